"""Leave-one-out on the path against fits that really leave each row out; and the evidence."""

import numpy as np
import pytest
import torch

import weightdecay as wd

pytest.importorskip("sklearn")
from sklearn.datasets import load_breast_cancer, load_iris, load_wine

from weightdecay.logistic import leave_one_out

# Curves that are flat, or fall to an edge of the grid, are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")


def breast_cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return ((X - X.mean(0)) / X.std(0))[::4], y[::4]


def wine():
    X, y = load_wine(return_X_y=True)
    return (X - X.mean(0)) / X.std(0), y


def wide():
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 90))
    return X, (X[:, 0] + random.normal(size=60) > 0).astype(int)


TABLES = {
    "iris": lambda: load_iris(return_X_y=True),
    "breast cancer": breast_cancer,
    "wine": wine,
    "wide": wide,
}


@pytest.mark.parametrize("table", TABLES)
def test_the_curve_is_that_of_rows_really_left_out(table):
    X, y = TABLES[table]()
    best = wd.logistic_path(X, y, cv="loo").best
    lambdas = best * np.logspace(-1, 1, 5)
    path = wd.logistic_path(X, y, lambdas, cv="loo")
    brute = wd.logistic_path(X, y, lambdas, cv=len(y))
    error = (path.scores / brute.scores - 1).abs()
    assert float(error.max()) < 0.012
    assert bool((error <= path.precision).all())
    assert float(path.precision.max()) < 0.1
    at = path._place(best)
    losses = -brute.out_of_fold(best)[torch.arange(len(y)), torch.as_tensor(y)].log()
    assert float(path.errors[at]) == pytest.approx(float(losses.std()) / len(y) ** 0.5, rel=0.1)
    own = -path.out_of_fold(best)[torch.arange(len(y)), torch.as_tensor(y)].log()
    assert float(path.errors[at]) == pytest.approx(float(own.std()) / len(y) ** 0.5, rel=1e-8)
    for judge in ("error", "brier"):
        torch.testing.assert_close(path.curves[judge], brute.curves[judge], rtol=0.1, atol=2.5 / len(y))
    assert any("leave-one-out by one Newton step" in note for note in path.notes)
    assert path.fold_scores is None
    assert path.out_of_fold().shape == (len(y), len(path.classes))


def test_weak_penalties_keep_their_precision_where_one_step_is_far_off(monkeypatch):
    """Iris at a λ at which one Newton step alone is off by half."""
    X, y = load_iris(return_X_y=True)
    lambdas = [1.35e-6, 1.35e-5]
    brute = wd.logistic_path(X, y, lambdas, cv=150)
    path = wd.logistic_path(X, y, lambdas, cv="loo")
    torch.testing.assert_close(path.scores, brute.scores, rtol=0.01, atol=0)
    monkeypatch.setattr(leave_one_out, "MOST", 2)
    few = wd.logistic_path(X, y, lambdas, cv="loo")
    error = (few.scores / brute.scores - 1).abs()
    assert bool((error <= few.precision).all())
    assert float(few.precision.max()) > 0.1


def test_what_is_not_precise_is_a_doubt(monkeypatch):
    monkeypatch.setattr(leave_one_out, "MOST", 1)
    X, y = load_iris(return_X_y=True)
    with pytest.warns(wd.WeightDecayWarning, match="leave-one-out by one Newton step is not precise at λ ="):
        wd.logistic_path(X, y, [1e-6], cv="loo")


def test_weights_groups_and_names_of_leave_one_out():
    X, y = load_iris(return_X_y=True)
    weights = np.random.default_rng(0).uniform(0.5, 2, 150)
    path = wd.logistic_path(X, y, [1e-3, 1e-2], cv="loo", sample_weight=weights)
    brute = wd.logistic_path(X, y, [1e-3, 1e-2], cv=150, sample_weight=weights)
    torch.testing.assert_close(path.scores, brute.scores, rtol=0.003, atol=0)
    assert path.cv == "loo"
    assert "judged by loo and log loss" in path.notes[0]
    assert "留一法" in path.notes[0].zh
    area = wd.logistic_path(X[50:], y[50:], [1e-3, 1e-2, 0.1], cv="loo", judge="auc")
    assert area.judge == "auc"
    assert 0 < float(area.errors[0]) < 0.05


def log_evidence(X, y, alpha):
    """Laplace's approximation for one logit, with a free intercept, from autograd's second derivatives."""
    D = torch.cat([X, torch.ones(len(X), 1, dtype=torch.float64)], 1)
    f = torch.ones(D.shape[1], dtype=torch.float64)
    f[-1] = 0

    def objective(v):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(D @ v, y.double(), reduction="sum")
        return loss + alpha / 2 * (f * v**2).sum()

    v = torch.zeros(D.shape[1], dtype=torch.float64)
    for _ in range(30):
        H = torch.autograd.functional.hessian(objective, v)
        v = v - torch.linalg.solve(H, torch.autograd.functional.jacobian(objective, v))
    return float(-objective(v) + X.shape[1] / 2 * np.log(alpha) - torch.linalg.slogdet(H)[1] / 2)


def test_the_evidence_is_laplace_s():
    X, y = (torch.from_numpy(values) for values in breast_cancer())
    lambdas = [1e-3, 1e-2, 0.1, 1.0]
    path = wd.logistic_path(X, y, lambdas, cv="evidence")
    expected = torch.tensor([-2 * log_evidence(X, y, alpha) for alpha in path.alphas.tolist()])
    differences = path.scores - expected.double()
    torch.testing.assert_close(differences, differences[:1].expand(4), rtol=0, atol=1e-4)
    assert path.judge == "evidence"
    assert float(path.errors[0]) == 1
    assert path.curves.keys() == {"evidence"}
    with pytest.raises(wd.InputError, match="the evidence holds no rows out: cv = 'evidence'; use folds"):
        path.confusion()
    automatic = wd.logistic_path(X, y, cv="evidence")
    by_rows = wd.logistic_path(X, y, cv="loo")
    assert automatic.edge is None
    assert abs(np.log10(automatic.best / by_rows.best)) < 1


@pytest.mark.parametrize("cv", ["loo", "evidence"])
def test_such_paths_come_back_from_files(tmp_path, cv):
    X, y = load_iris(return_X_y=True)
    path = wd.logistic_path(X, y, [1e-3, 1e-2, 0.1], cv=cv)
    path.save(tmp_path)
    again = wd.load(tmp_path)
    assert again.notes == path.notes
    assert torch.equal(again.dof, path.dof)
    if cv == "loo":
        assert torch.equal(again.precision, path.precision)
        assert again.confusion().equals(path.confusion())
    assert again.frame().equals(path.frame())


def test_a_hessian_that_is_too_large_is_refused():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(600, 560)), np.arange(600) % 20
    with pytest.raises(wd.InputError) as caught:
        wd.logistic_path(X, y, [1.0], cv="loo")
    what = "loo takes the inverse of a Hessian, which is too large: X = 560 columns and 20 classes; use folds"
    assert what in str(caught.value)


def test_degrees_of_freedom_with_folds_and_by_leave_one_out_are_the_same():
    X, y = wine()
    lambdas = np.logspace(-3, 1, 9)
    by_folds, left = (wd.logistic_path(X, y, lambdas, cv=cv) for cv in (3, "loo"))
    torch.testing.assert_close(by_folds.dof, left.dof, rtol=1e-3, atol=0)
    fitted = by_folds._fitted
    between = fitted.fitter.degrees(by_folds.alphas)
    torch.testing.assert_close(
        torch.tensor([*between.values()][::-1]).double(), by_folds.dof, rtol=1e-3, atol=0
    )
