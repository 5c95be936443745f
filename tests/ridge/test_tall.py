"""More rows than columns: against refits in 80-bit arithmetic, and never surer of itself than it is right."""

import numpy as np
import pytest
import torch

from weightdecay.errors import InputError
from weightdecay.ridge.folds import fold_ids
from weightdecay.ridge.problem import Problem
from weightdecay.ridge.tall import tall

LONG = np.longdouble


def solve(A, b):
    """Gauss and Jordan with pivots, in 80-bit arithmetic: A^-1 b."""
    A = np.concatenate([A.astype(LONG), b.astype(LONG)], axis=1)
    n = len(A)
    for i in range(n):
        pivot = i + int(np.abs(A[i:, i]).argmax())
        A[[i, pivot]] = A[[pivot, i]]
        A[i] = A[i] / A[i, i]
        for j in range(n):
            if j != i:
                A[j] = A[j] - A[j, i] * A[i]
    return A[:, n:]


def refit(X, y, w, f, intercept, standardize, alpha):
    """Ridge by its normal equations: coefficients and intercepts."""
    X, y, w, f = (np.asarray(a, dtype=LONG) for a in (X, y, w, f))
    m, my = w @ X / w.sum(), w @ y / w.sum()
    if standardize:
        f = f * (w @ (X - m) ** 2 / w.sum())
    if intercept == "free":
        Z, v = X - m, y - my
        b = solve(Z.T @ (Z * w[:, None]) + LONG(alpha) * np.diag(f), Z.T @ (v * w[:, None]))
        return b, my - m @ b
    Z = np.concatenate([X, np.ones((len(X), 1), LONG)], axis=1) if intercept == "penalized" else X
    f = np.append(f, LONG(1)) if intercept == "penalized" else f
    b = solve(Z.T @ (Z * w[:, None]) + LONG(alpha) * np.diag(f), Z.T @ (y * w[:, None]))
    return (b[:-1], b[-1]) if intercept == "penalized" else (b, np.zeros(y.shape[1], LONG))


def scores(X, y, pairs, alpha, w=None, f=None, intercept="free", standardize=False):
    """Weighted mean squared error over held-out rows (t,), and the predictions (n, t)."""
    w = np.ones(len(X)) if w is None else w
    f = np.ones(X.shape[1]) if f is None else f
    total, weight, predictions = LONG(0), LONG(0), np.full(y.shape, np.nan, LONG)
    for train, test in pairs:
        b, b0 = refit(X[train], y[train], w[train], f, intercept, standardize, alpha)
        predictions[test] = X[test].astype(LONG) @ b + b0
        e = y[test] - predictions[test]
        total, weight = total + w[test].astype(LONG) @ e**2, weight + w[test].astype(LONG).sum()
    return total / weight, predictions


def pairs_of(scheme, n):
    if isinstance(scheme, list):
        return [(a.numpy(), b.numpy()) for a, b in scheme]
    fold = np.arange(n) if isinstance(scheme, str) else scheme.numpy()
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(fold.max() + 1)]


def data(n=40, p=4, t=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64) * torch.arange(1.0, p + 1) + 3
    y = X @ torch.randn(p, t, generator=generator, dtype=torch.float64)
    return X, y + torch.randn(n, t, generator=generator, dtype=torch.float64)


SCHEMES = {
    "folds": fold_ids(0, 40, 5, 0),
    "loo": "loo",
    "pairs": [(torch.arange(20), torch.arange(20, 32)), (torch.arange(28), torch.arange(28, 40))],
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("factors", [None, (1.0, 0.0, 2.5, 0.0)])
@pytest.mark.parametrize(
    ("intercept", "standardize"), [("free", 0), ("free", 1), ("penalized", 0), ("none", 0)]
)
def test_every_option_against_refits(scheme, weighted, factors, intercept, standardize):
    X, y = data()
    w = torch.linspace(0.2, 1.8, 40, dtype=torch.float64) if weighted else None
    f = None if factors is None else torch.tensor(factors).double()
    found = tall(Problem(X, y, w, f, intercept, bool(standardize)), SCHEMES[scheme])
    alphas = torch.tensor([0.01, 5.0]).double()
    curve = found.curve(alphas)
    numpy = {"w": None if w is None else w.numpy(), "f": None if f is None else f.numpy()}
    if scheme == "loo" and standardize:  # which scales by all rows, as generalised CV does
        spread = (torch.ones(40).double() if w is None else w) @ (X - _mean(X, w)) ** 2 / 40
        numpy["f"] = (spread * (1 if f is None else f)).numpy()
        standardize = False
    for i, alpha in enumerate(alphas):
        wanted, predictions = scores(
            X.numpy(), y.numpy(), pairs_of(SCHEMES[scheme], 40), float(alpha), **numpy,
            intercept=intercept, standardize=standardize,
        )  # fmt: skip
        error = np.abs(curve.mean[i].numpy() / wanted - 1).max()
        assert error < 1e-11
        assert error <= float(curve.precision[i])
        if scheme != "pairs":
            both = found.out_of_fold(alpha.expand(2)).numpy()
            assert np.abs(both - predictions).max() < 1e-10
    both = found.out_of_fold(alphas).numpy()  # a strength for each target
    assert np.isnan(both).sum() == (40 if scheme == "pairs" else 0)
    coef, constant = found.solve(alphas)
    for t, alpha in enumerate(alphas):
        ones = np.ones(40), np.ones(4)
        b, b0 = refit(
            X, y, ones[0] if w is None else numpy["w"], ones[1] if numpy["f"] is None else numpy["f"],
            intercept, standardize, float(alpha),
        )  # fmt: skip
        assert np.abs(coef[:, t].numpy() - b[:, t]).max() < 1e-11
        assert abs(constant[t].item() - b0[t]) < 1e-10
        rest = y.numpy() - X.numpy() @ b - b0
        weights = ones[0] if w is None else numpy["w"]
        assert np.abs(found.rss(alphas)[t].numpy()[t] / (weights @ rest**2)[t] - 1) < 1e-11


def _mean(X, w):
    return X.mean(0) if w is None else w @ X / w.sum()


def test_generalised_cv_and_the_evidence_by_their_definitions():
    X, y = data(t=1)
    n, alphas = 40, torch.tensor([0.1, 3.0, 100.0]).double()
    gcv, evidence = (tall(Problem(X, y), how).curve(alphas) for how in ("gcv", "evidence"))
    Z = (X - X.mean(0)).numpy()
    H = [Z @ np.linalg.solve(Z.T @ Z + float(a) * np.eye(4), Z.T) + 1 / n for a in alphas]
    rest = [((y[:, 0].numpy() - h @ y[:, 0].numpy()) ** 2).mean() for h in H]
    wanted = [r / (1 - np.trace(h) / n) ** 2 for r, h in zip(rest, H, strict=True)]
    assert np.abs(gcv.mean[:, 0].numpy() / wanted - 1).max() < 1e-12
    # The restricted likelihood: y projected on what is orthogonal to the constant.
    Q = np.linalg.qr(np.concatenate([np.ones((n, 1)), np.eye(n)[:, 1:]], axis=1))[0][:, 1:]
    for i, a in enumerate(alphas):
        V = Q.T @ (np.eye(n) + Z @ Z.T / float(a)) @ Q
        v = Q.T @ y[:, 0].numpy()
        wanted = (n - 1) * np.log(v @ np.linalg.solve(V, v) / (n - 1)) + np.linalg.slogdet(V)[1]
        assert abs(float(evidence.mean[i, 0]) - wanted) < 1e-10
    assert torch.equal(evidence.error, torch.ones(3, 1).double())


def test_standard_errors():
    X, y = data(t=1)
    fold = SCHEMES["folds"]
    alpha = torch.tensor([2.0]).double()
    curve = tall(Problem(X, y), fold).curve(alpha)
    assert curve.folds.shape == (5, 1, 1)
    assert float(curve.error) == pytest.approx(float(curve.folds[:, 0, 0].std() / 5**0.5), rel=1e-12)
    loo = tall(Problem(X, y), "loo")
    e2 = (y - loo.out_of_fold(alpha))[:, 0] ** 2
    assert float(loo.curve(alpha).error) == pytest.approx(float(e2.std() / 40**0.5), rel=1e-10)


HARD = ("plain", "far means", "one fold large", "one fold far", "no noise", "near collinear")


@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("scheme", ["folds", "loo", "gcv"])
def test_hard_cases_are_right_or_said_to_be_wrong(case, scheme):
    """The cases of the reference: right to 1e-6, or a precision that says so; never beyond the precision."""
    n, p = 200, 6
    generator = torch.Generator().manual_seed(5)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    fold = torch.arange(n) // 40
    signal = X.sum(1, keepdim=True)
    y = signal + noise
    near = X = X + 1e7 if case == "far means" else X
    if case == "far means":
        near = X - 1e7  # exactly; 80 bits, too, lose what 1e7 takes
    elif case.startswith("one fold"):
        X[fold == 0] = X[fold == 0] * 1e7 if case == "one fold large" else X[fold == 0] + 1e6
        y[fold == 0] = noise[fold == 0]
    elif case == "no noise":
        y = signal + 1e-6 * noise
    elif case == "near collinear":
        X[:, 1] = X[:, 0] + 1e-6 * X[:, 1]
    near = near if case == "far means" else X
    alphas = torch.logspace(-3, 3, 4, dtype=torch.float64)
    route = tall(Problem(X, y), fold if scheme == "folds" else scheme)
    curve = route.curve(alphas)
    for i, alpha in enumerate(alphas):
        if scheme == "gcv":
            Z = near.numpy().astype(LONG)
            Z = Z - Z.mean(0)
            K = Z.T @ Z + LONG(float(alpha)) * np.eye(p)
            dof = np.trace(solve(K, Z.T @ Z)) + 1
            b, b0 = refit(near, y, np.ones(n), np.ones(p), "free", False, float(alpha))
            e = y.numpy() - near.numpy().astype(LONG) @ b - b0
            wanted = (e**2).mean(0) / (1 - dof / n) ** 2
        else:
            wanted, _ = scores(
                near.numpy(), y.numpy(), pairs_of(fold if scheme == "folds" else "loo", n), float(alpha)
            )
        error = float(np.abs(curve.mean[i].numpy() / wanted - 1).max())
        reported = float(curve.precision[i])
        assert error <= reported, (case, float(alpha), error, reported)
        assert error <= 1e-6 or reported > 1e-6
        if case in ("plain", "far means", "no noise"):
            assert error < 1e-7


def test_a_long_axis_is_carried_over_from_pivots(monkeypatch):
    X, y = data(n=60, p=5)
    alphas = torch.logspace(-6, 5, 300, dtype=torch.float64)
    for scheme in (fold_ids(0, 60, 4, 0), "loo"):
        plain = tall(Problem(X, y), scheme).curve(alphas)
        monkeypatch.setattr("weightdecay.ridge.tall.SMALL", 0)
        carried = tall(Problem(X, y), scheme).curve(alphas)
        monkeypatch.undo()
        assert float((carried.mean / plain.mean - 1).abs().max()) < 1e-12
        assert float((carried.error / plain.error - 1).abs().max()) < 1e-9


def test_duplicate_and_constant_columns():
    X, y = data(t=1)
    wide = torch.cat([X, X[:, :1], torch.full((40, 1), 0.1).double()], dim=1)
    alphas = torch.tensor([1e-9, 1.0]).double()
    for standardize in (False, True):
        route = tall(Problem(wide, y, None, None, "free", standardize), SCHEMES["folds"])
        coef, _ = route.solve(alphas[1:])
        assert float(coef[-1]) == 0
        assert float((coef[0] - coef[-2]).abs()) < 1e-12
        assert int((route.spectrum() > 0).sum()) == 4
        curve = route.curve(alphas)
        assert bool(curve.mean.isfinite().all())
        assert float(curve.precision.max()) < 1e-6
    shrunk = tall(Problem(X, y), "gcv").solve(torch.tensor([1e12]).double())
    assert float(shrunk[0].abs().max()) < 1e-6
    assert float(shrunk[1] - y.mean()) < 1e-6


def test_single_precision():
    X, y = data(n=400, p=6, t=1, seed=3)
    y += 10 * torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X = (X + 50).float()
    for scheme in (fold_ids(0, 400, 5, 0), "loo", "gcv"):
        alphas = torch.tensor([0.1, 10.0]).double()
        exact = tall(Problem(X.double(), y), scheme).curve(alphas)
        found = tall(Problem(X, y), scheme).curve(alphas)
        error = (found.mean / exact.mean - 1).abs().amax(1)
        assert float(error.max()) < 5e-6
        assert bool((error <= found.precision).all())
    with pytest.raises(InputError, match="float32 is not precise enough"):
        tall(Problem(X, y), "gcv").curve(torch.tensor([1e-4]).double())


def test_a_row_that_a_free_column_needs_cannot_be_left_out():
    X, y = data(t=1)
    X[:, 1] = 0
    X[7, 1] = 1
    free = torch.tensor([1.0, 0.0, 1.0, 1.0]).double()
    with pytest.raises(InputError, match="cannot be left out"):
        tall(Problem(X, y, None, free), "loo").curve(torch.tensor([1.0]).double())
