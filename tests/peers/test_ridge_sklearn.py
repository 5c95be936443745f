"""Ridge and leave-one-out against scikit-learn."""

import numpy as np
import pytest
import torch

from weightdecay.ridge import factor, loo_errors, solve
from weightdecay.tables import read_table

pytestmark = pytest.mark.peer


@pytest.fixture(params=["wide", "tall", "spectra"])
def data(request):
    if request.param == "spectra":
        table = read_table("examples/data/tecator.csv", "fat", ["water", "protein"])
        return table.X[:60], table.y[:60]
    n, p = (20, 50) if request.param == "wide" else (60, 8)
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64) + 2
    return X, X[:, 0] + torch.randn(n, generator=generator, dtype=torch.float64)


def test_coefficients(data):
    """Within 1e-8 of the largest; on the spectra (condition number 1e5) at λ where that is to be had."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = data
    for lam in (1e-3, 0.1, 10.0):
        peer = linear_model.Ridge(alpha=lam * len(y), solver="svd").fit(X.numpy(), y.numpy())
        model = solve(factor(X, y), lam)
        assert float(abs(model.w.numpy() - peer.coef_).max()) < 1e-8 * abs(peer.coef_).max()
        assert float(model.b) == pytest.approx(peer.intercept_, rel=1e-8)


def test_leave_one_out(data):
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = data
    lambdas = np.array([1e-2, 0.1, 1.0])
    peer = linear_model.RidgeCV(alphas=lambdas * len(y), store_cv_results=True, gcv_mode="svd")
    errors = peer.fit(X.numpy(), y.numpy()).cv_results_.mean(0)
    ours = loo_errors(factor(X, y), torch.tensor(lambdas))
    np.testing.assert_allclose(ours.numpy(), errors, rtol=1e-8)
