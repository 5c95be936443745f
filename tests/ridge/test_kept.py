"""Models and paths that the first version wrote still load, with the right intervals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.ridge.kept.make import SHAPES, data

import weightdecay as wd

KEPT = Path(__file__).parent / "kept"


@pytest.mark.parametrize("intercept", ["free", "none"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
def test_what_the_first_version_wrote_is_read(shape, intercept):
    X, y = data(shape)
    n, p = X.shape
    new = np.random.default_rng(1).normal(size=(5, p)) * np.arange(1, p + 1)
    center, least = (X.mean(0), 1 / n) if intercept == "free" else (np.zeros(p), 0.0)
    away, Z = new - center, X - center
    inverse = np.linalg.inv(Z.T @ Z + n * 0.5 * np.eye(p))
    variance = least + np.einsum("ij,jk,ik->i", away, inverse, away)
    coef = inverse @ Z.T @ (y - y.mean() * (intercept == "free"))
    path = wd.load(KEPT / f"{shape}-{intercept}-path")
    for model in (wd.load(KEPT / f"{shape}-{intercept}-model"), path.model(path.best)):
        assert float(model.lam) == 0.5
        np.testing.assert_allclose(model.coef, coef, rtol=1e-9, atol=1e-12)
        found = model.covariance.variance(torch.tensor(new))
        # 1 - s/(s + α), of which these files hold the second term, has lost s/α of its digits.
        np.testing.assert_allclose(found, variance, rtol=1e-9)
        if shape == "tall":  # the wide model leaves no degree of freedom
            low, high = model.interval(torch.tensor(new), 0.9)
            assert bool((low < high).all())
