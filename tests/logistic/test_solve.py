"""The solver of logistic and multinomial regression: against autograd, scikit-learn and explicit fits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import one_hot

from weightdecay.logistic import solve as module
from weightdecay.logistic.solve import solve

LOADERS = {"iris": load_iris, "breast cancer": load_breast_cancer, "digits": load_digits}


def data(name):
    X, y = LOADERS[name](return_X_y=True)
    return torch.tensor(X), torch.tensor(y, dtype=torch.int64), int(y.max()) + 1


def wide(n=60, p=150, classes=3):
    generator = torch.Generator().manual_seed(3)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64) + 2
    return X, torch.randint(classes, (n,), generator=generator), classes


def folds(n, K=3):
    weights = torch.ones(K + 1, n, dtype=torch.float64)
    for k in range(K):
        weights[k, k::K] = 0
    return weights


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_autograd(X, y, C, w, f, alpha, W, b):
    """Objective and gradient with respect to W and b by their definition."""
    W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
    Z = X.double() @ W.mT + b
    Z = torch.cat([torch.zeros_like(Z), Z], 1) if C == 2 else Z
    loss = torch.nn.functional.cross_entropy(Z, y, reduction="none")
    objective = w @ loss + alpha / 2 * (f * W**2).sum()
    return objective.detach(), torch.autograd.grad(objective, [W, b])


def start(X, y, C, w, f, intercept):
    """Gradient at W = 0 and the best intercept, written out."""
    Y = one_hot(y, C).double()
    share = (w @ Y / w.sum()) if intercept else torch.full((C,), 1 / C, dtype=torch.float64)
    G = ((share - Y) * w[:, None]).mT @ X.double()
    b = ((share - Y) * w[:, None]).sum(0)
    return (G[1:], b[1:]) if C == 2 else (G, b)


def size(W, b, f, intercept):
    scaled = W / torch.where(f > 0, f, 1).sqrt()
    return float((scaled**2).sum() + (b**2).sum() * intercept) ** 0.5


CASES = {
    "iris": (lambda: data("iris"), {}),
    "iris, weights and factors of each fold": (
        lambda: data("iris"),
        {"weights": "random", "factors": "each"},
    ),
    "iris, a free column": (lambda: data("iris"), {"factors": "free"}),
    "iris, no intercept": (lambda: data("iris"), {"intercept": False}),
    "breast cancer": (lambda: data("breast cancer"), {}),
    "breast cancer, factors of each fold": (lambda: data("breast cancer"), {"factors": "each"}),
    "digits": (lambda: data("digits"), {"alphas": [1e5, 1e3, 10]}),
    "digits, weights and factors": (
        lambda: data("digits"),
        {"alphas": [1e5, 1e3, 10], "weights": "random", "factors": "each"},
    ),
    "wide": (wide, {}),
    "wide, factors of each fold": (wide, {"factors": "each"}),
    "wide, free columns, no intercept": (wide, {"factors": "free", "intercept": False, "alphas": [100, 1]}),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_by_autograd_vanish(name):
    make, options = CASES[name]
    X, y, C = make()
    n, p = X.shape
    intercept = options.get("intercept", True)
    w = folds(n)
    if options.get("weights") == "random":
        w *= random(n) + 0.5
    f = torch.ones(len(w), p, dtype=torch.float64)
    if options.get("factors") == "each":
        f = random(len(w), p, seed=1) + 0.5
    if options.get("factors") == "free":
        f[:, 1] = 0
    alphas = torch.tensor(options.get("alphas", [1000, 10, 1, 0.1]), dtype=torch.float64)
    fits = list(solve(X, y, C, w, f, alphas, intercept=intercept))
    assert [fit.place for fit in fits] == list(range(len(alphas)))
    for fit in fits:
        for k in range(len(w)):
            objective, gradients = by_autograd(X, y, C, w[k], f[k], fit.alpha, fit.coef[k], fit.intercept[k])
            found = size(*gradients, f[k], intercept) / size(
                *start(X, y, C, w[k], f[k], intercept), f[k], intercept
            )
            assert found < 2e-8
            assert float(fit.gradient[k]) <= 1e-8
            assert float(fit.objective[k]) == pytest.approx(float(objective), rel=1e-7)
            expected = X.double() @ fit.coef[k].mT + fit.intercept[k]
            torch.testing.assert_close(fit.logits(k), expected, rtol=1e-7, atol=1e-7)
            W, b = fit.at(k)
            torch.testing.assert_close(W, fit.coef[k])
            torch.testing.assert_close(b, fit.intercept[k])
        if C > 2:
            assert float(fit.coef.sum(1).abs().max()) <= 1e-9 * (1 + float(fit.coef.abs().max()))


@pytest.mark.parametrize("name", ["iris", "breast cancer", "digits"])
def test_it_agrees_with_scikit_learn(name):
    X, y, C = data(name)
    X = X / X.std(0).clamp_min(1e-3)
    n, p = X.shape
    alphas = torch.tensor([100, 1.0], dtype=torch.float64)
    ones = torch.ones(1, n, dtype=torch.float64)
    for fit in solve(X, y, C, ones, torch.ones(1, p, dtype=torch.float64), alphas, tolerance=1e-10):
        peer = LogisticRegression(C=1 / fit.alpha, tol=1e-10, solver="newton-cg", max_iter=10000)
        peer.fit(X.numpy(), y.numpy())
        np.testing.assert_allclose(fit.coef[0].numpy(), peer.coef_, atol=1e-6)
        np.testing.assert_allclose(fit.intercept[0].numpy(), peer.intercept_, atol=1e-6)
        theirs = by_autograd(
            X,
            y,
            C,
            ones[0],
            torch.ones(p),
            fit.alpha,
            torch.tensor(peer.coef_),
            torch.tensor(peer.intercept_),
        )[0]
        assert float(fit.objective[0]) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("name", ["iris", "breast cancer"])
def test_folds_are_explicit_fits(name):
    X, y, C = data(name)
    X = X / X.std(0)
    n, p = X.shape
    w, alphas = folds(n), torch.tensor([10, 0.3], dtype=torch.float64)
    together = list(solve(X, y, C, w, torch.ones(4, p, dtype=torch.float64), alphas, tolerance=1e-12))
    for k in range(4):
        kept = w[k] > 0
        ones = torch.ones(1, int(kept.sum()), dtype=torch.float64)
        f = torch.ones(1, p, dtype=torch.float64)
        for fit, other in zip(
            together, solve(X[kept], y[kept], C, ones, f, alphas, tolerance=1e-12), strict=True
        ):
            torch.testing.assert_close(fit.coef[k], other.coef[0], rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(fit.intercept[k], other.intercept[0], rtol=1e-8, atol=1e-8)


def test_the_order_of_alphas_and_what_a_held_out_row_says_do_not_matter():
    X, y, C = data("iris")
    w, f = folds(len(y)), torch.ones(4, 4, dtype=torch.float64)
    alphas = torch.tensor([0.1, 10, 1], dtype=torch.float64)
    fits = list(solve(X, y, C, w, f, alphas))
    assert [fit.place for fit in fits] == [1, 2, 0]
    changed = X.clone()
    changed[::3] += 1
    torch.testing.assert_close(
        next(solve(changed, y, C, w, f, alphas)).coef[0], fits[0].coef[0], rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("name", ["iris", "breast cancer"])
def test_a_penalty_without_end_leaves_the_shares_of_the_classes(name):
    X, y, C = data(name)
    w = random(1, len(y)) + 0.1
    f = torch.ones(1, X.shape[1], dtype=torch.float64)
    fit = next(solve(X, y, C, w, f, torch.tensor([1e14], dtype=torch.float64)))
    assert float(fit.coef.abs().max()) < 1e-6
    P = fit.logits(0).sigmoid() if C == 2 else fit.logits(0).softmax(1)
    share = w[0] @ one_hot(y, C).double() / w.sum()
    torch.testing.assert_close(P[0], share[-P.shape[1] :], rtol=1e-6, atol=1e-6)


def test_separable_data_stay_finite_and_solved():
    X, y, _ = data("iris")
    y = (y > 0).long()
    f = torch.ones(1, 4, dtype=torch.float64)
    alphas = torch.tensor([1, 1e-4, 1e-8], dtype=torch.float64)
    for fit in solve(X, y, 2, torch.ones(1, len(y), dtype=torch.float64), f, alphas):
        assert bool(fit.coef.isfinite().all())
        assert float(fit.gradient[0]) <= 1e-8


def test_columns_of_very_different_scales_are_solved():
    X, y, C = data("digits")
    X = X * torch.logspace(-3, 3, 64, dtype=torch.float64)
    f = torch.ones(2, 64, dtype=torch.float64)
    w = folds(len(y), 1)
    w[0, ::3], w[0, 1::3] = 0, 1
    for fit in solve(X, y, C, w, f, torch.tensor([1e6, 1e3, 10], dtype=torch.float64)):
        assert float(fit.gradient.max()) <= 1e-8


def test_a_column_that_is_constant_in_a_fold_and_free_there_gets_nothing():
    X, y, C = data("iris")
    X[:, 1] = 0
    X[::3, 1] = 1
    w, f = folds(len(y)), torch.ones(4, 4, dtype=torch.float64)
    f[0, 1] = 0
    fit = next(solve(X, y, C, w, f, torch.tensor([1.0], dtype=torch.float64)))
    assert float(fit.coef[0, :, 1].abs().max()) < 1e-9
    assert float(fit.coef[1, :, 1].abs().max()) > 1e-3
    assert float(fit.gradient.max()) <= 1e-8


@pytest.mark.parametrize("kind", ["blocks", "diagonal"])
@pytest.mark.parametrize("same", [True, False])
def test_every_preconditioner_arrives_at_the_same(kind, same, monkeypatch):
    X, y, C = data("digits")
    X, y = X[::3], y[::3]
    w = folds(len(y))
    f = torch.ones(4, 64, dtype=torch.float64) if same else random(4, 64) + 0.5
    alphas = torch.tensor([100, 1.0], dtype=torch.float64)
    expected = [fit.coef for fit in solve(X, y, C, w, f, alphas, tolerance=1e-10)]
    made = []
    init = module.Shared.__init__

    def other(self, system):
        init(self, system)
        self.kind, self.dtype = kind, torch.float32
        made.append(self)

    monkeypatch.setattr(module.Shared, "__init__", other)
    for fit, coef in zip(solve(X, y, C, w, f, alphas, tolerance=1e-10), expected, strict=True):
        assert float(fit.gradient.max()) <= 1e-8
        torch.testing.assert_close(fit.coef, coef, rtol=1e-5, atol=1e-7)
    assert made


def test_a_hundred_penalties_cost_little_more_than_twenty(monkeypatch):
    X, y, C = data("digits")
    X, w = X / 16, folds(len(y), 5)
    f = torch.ones(6, 64, dtype=torch.float64)
    counts = []
    evaluate, product = module.System.evaluate, module.System.product

    def counted(self, *args):
        counts[-1] += 1
        return evaluate(self, *args)

    def multiplied(self, *args):
        counts[-1] += 1
        return product(self, *args)

    monkeypatch.setattr(module.System, "evaluate", counted)
    monkeypatch.setattr(module.System, "product", multiplied)
    for L in (20, 100):
        counts.append(0)
        for _ in solve(X, y, C, w, f, len(y) * torch.logspace(1, -4, L, dtype=torch.float64)):
            pass
    assert counts[1] < 2.5 * counts[0]
