"""Approximate leave-one-out against rows really left out; degrees of freedom and evidence by definition."""

import math

import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris

from weightdecay.logistic.leave_one_out import laplace, leave_one_out, log_loss, pivots
from weightdecay.logistic.solve import solve

LOADERS = {"iris": load_iris, "breast cancer": load_breast_cancer, "digits": load_digits}


def data(name):
    X, y = LOADERS[name](return_X_y=True)
    X = torch.tensor(X)
    return (X / 16 if name == "digits" else X), torch.tensor(y, dtype=torch.int64), int(y.max()) + 1


def really(X, y, C, f, alphas, rows, at_a_time=60):
    """Log loss of rows by fits without each (L, m)."""
    found = []
    for some in rows.split(at_a_time):
        w = torch.ones(len(some), len(y), dtype=torch.float64)
        w[torch.arange(len(some)), some] = 0
        fits = solve(X, y, C, w, f.expand(len(some), -1), alphas, tolerance=1e-11)
        losses = [
            [log_loss(fit.logits(k, row[None]), y[row[None]])[0] for k, row in enumerate(some)]
            for fit in fits
        ]
        found.append(torch.tensor(losses))
    return torch.cat(found, 1)


@pytest.mark.parametrize(
    ("name", "step", "low", "high"),
    [("iris", 1, -5, -2), ("breast cancer", 4, -7, -2), ("digits", 40, -6, -3)],
)
def test_the_log_loss_is_that_of_brute_force_around_the_best_penalty(name, step, low, high):
    X, y, C = data(name)
    n, p = X.shape
    f, w = torch.ones(p, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
    alphas = n * torch.logspace(high, low, 4 * (high - low) + 1, dtype=torch.float64)
    found = leave_one_out(X, y, C, w, f, alphas)
    losses = torch.stack([log_loss(left.logits, y) for left in found])
    best = int(losses.mean(1).argmin())
    assert 3 < best < len(alphas) - 4
    around = [best - 4, best - 3, best, best + 4]
    rows = torch.arange(0, n, step)
    exact = really(X, y, C, f[None], alphas[around], rows)
    apart = (losses[around][:, rows].mean(1) / exact.mean(1) - 1).abs()
    assert float(apart.max()) < 0.01
    if step == 1:
        assert all(found[at].precision >= float(error) for at, error in zip(around, apart, strict=True))
    assert max(float(left.differences.abs().max()) for left in found) > 0.01  # one step alone is not enough


@pytest.mark.parametrize(("classes", "intercept"), [(2, True), (3, True), (3, False)])
def test_a_step_is_newtons_with_explicit_matrices(classes, intercept):
    X, y, _ = data("iris")
    y = y.clamp_max(classes - 1)
    n, p = X.shape
    w = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    w[7] = 0
    f, alphas = torch.tensor([1.0, 2, 0.5, 1], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    (left,) = leave_one_out(X, y, classes, w, f, alphas, intercept=intercept, draws=0)
    c = 1 if classes == 2 else classes
    A = torch.cat([X, torch.ones(n, 1, dtype=torch.float64)], 1) if intercept else X
    f = torch.cat([f, torch.zeros(A.shape[1] - p, dtype=torch.float64)])
    V = torch.cat([left.fit.coef[0], left.fit.intercept[0][:, None]], 1)[:, : A.shape[1]]

    def objective(flat, weights):
        W = flat.view(c, -1)
        return weights @ log_loss(A @ W.mT, y) + alphas[0] / 2 * (f * W**2).sum()

    def hessian(weights):
        return torch.autograd.functional.hessian(lambda flat: objective(flat, weights), V.flatten())

    for i in (0, 7, 80, 149):
        weights = w.clone()
        weights[i] = 0
        flat = V.flatten().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(flat, weights), flat)
        step = -(torch.linalg.pinv(hessian(weights), rtol=1e-12) @ gradient).view(c, -1)
        torch.testing.assert_close(left.logits[i], (V + step) @ A[i], rtol=1e-6, atol=1e-7)
    H = hessian(w)
    inverse = torch.linalg.pinv(H, rtol=1e-12)
    penalty = (alphas[0] * f).repeat(c).diag()
    rank = torch.linalg.matrix_rank(H, rtol=1e-12)
    assert left.dof == pytest.approx(float(rank - (inverse @ penalty).trace()), rel=1e-6)
    kept = (
        torch.linalg.eigvalsh(H)[-rank:].log().sum()
    )  # the prior of the sum over classes is its own posterior
    free = (A.shape[1] - p) * max(1, c - 1)
    prior = c * (alphas[0] * f[f > 0]).log().sum()
    expected = 2 * objective(V.flatten(), w) - prior + kept - free * math.log(2 * math.pi)
    assert left.evidence * float(w.sum()) == pytest.approx(float(expected), abs=1e-6)


def test_between_pivots_little_is_lost(monkeypatch):
    X, y, C = data("iris")
    w, f = torch.ones(1, len(y), dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)
    fits = list(solve(X, y, C, w, f, len(y) * torch.logspace(0, -5, 41, dtype=torch.float64)))
    dof, evidence = laplace(fits)
    assert len(pivots([fit.alpha for fit in fits])) < 15
    monkeypatch.setattr(pivots, "__defaults__", (0.0,))
    all_dof, all_evidence = laplace(fits)
    torch.testing.assert_close(dof, all_dof, rtol=5e-3, atol=0)
    torch.testing.assert_close(evidence, all_evidence, rtol=0, atol=2e-4)


def test_the_same_seed_draws_the_same_rows():
    X, y, C = data("iris")
    w, f = torch.ones(len(y), dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    alphas = torch.tensor([100.0, 1], dtype=torch.float64)
    first, again, other = (
        [left.rows.tolist() for left in leave_one_out(X, y, C, w, f, alphas, seed=seed)] for seed in (0, 0, 1)
    )
    assert first == again != other
