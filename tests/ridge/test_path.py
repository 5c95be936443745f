"""The path against refits and explicit matrices: every criterion, every option, wide and tall."""

import numpy as np
import pytest
import ridge_oracles as oracle
import torch
from hypothesis import given
from hypothesis import strategies as st

import weightdecay as wd
from weightdecay.ridge import path as path_module

# Curves that are flat, or fall to an edge of the grid, are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")

SHAPES = [(12, 20), (30, 6), (15, 14)]
LAMBDAS = np.array([1e-3, 0.05, 2.0])


def table(seed, n, p, targets=2, rank=None, shift=2.0):
    """Inputs with means, a target or several, weights and factors (one of them 0)."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p))
    if rank is not None:
        X = X[:, :rank] @ random.normal(size=(rank, p))
    X += shift * random.normal(size=p)
    y = X @ random.normal(size=(p, targets)) + random.normal(size=(n, targets)) + 5
    penalty = random.uniform(0.3, 3, size=p)
    if p > 1:
        penalty[p // 2] = 0
    return X, y, random.uniform(0.3, 3, size=n), penalty


def leave_one_out(X, y, alpha, *, standardize=False, **options):
    """As the path defines it: refits on columns divided by the sd of all rows."""
    w = oracle.settle(X, options.get("weights"), None)[0]
    return oracle.leave_one_out(X / oracle.scales(X, w, standardize), y, alpha, **options)


def given_options(which, weights, penalty):
    """The options under their names here and in the oracles."""
    ours, theirs = {}, {}
    if "weights" in which:
        ours["sample_weight"] = theirs["weights"] = weights
    if "factors" in which:
        ours["penalty_factors"] = theirs["penalty"] = penalty
    if "standardize" in which:
        ours["standardize"] = theirs["standardize"] = True
    for intercept in ("penalized", "none"):
        if intercept in which:
            ours["intercept"] = theirs["intercept"] = intercept
    return ours, theirs


OPTIONS = [
    "",
    "weights",
    "factors",
    "standardize",
    "penalized",
    "none",
    "weights factors standardize",
    "weights factors standardize penalized",
    "weights factors none",
    "standardize none",
]


@pytest.mark.parametrize("which", OPTIONS)
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_leave_one_out(n, p, which):
    X, y, weights, penalty = table(0, n, p)
    ours, theirs = given_options(which, weights, penalty)
    path = wd.ridge_path(X, y, LAMBDAS, cv="loo", **ours)
    expected = [leave_one_out(X, y, lam * n, **theirs) for lam in LAMBDAS]
    np.testing.assert_allclose(path.scores, expected, rtol=1e-9)


@pytest.mark.parametrize("which", OPTIONS)
@pytest.mark.parametrize(("n", "p"), SHAPES)
@pytest.mark.parametrize("kind", ["folds", "splits", "two folds"])
def test_folds(n, p, which, kind):
    """Of equal and unequal size, large and small, and splits that leave rows out or test them twice."""
    X, y, weights, penalty = table(1, n, p)
    ours, theirs = given_options(which, weights, penalty)
    order = np.random.default_rng(0).permutation(n)
    if kind == "splits":
        pairs = [(order[: n // 2], order[n // 2 :]), (order[: n - 3], order[n - 3 :]), (order[4:], order[:2])]
    else:
        pairs = oracle.k_pairs(order % (5 if kind == "folds" else 2))
    path = wd.ridge_path(X, y, LAMBDAS, cv=pairs, **ours)
    found = [oracle.fold_scores(X, y, lam * n, pairs, **theirs) for lam in LAMBDAS]
    assert path.fold_scores is not None
    np.testing.assert_allclose(path.fold_scores, np.stack([f for f, _ in found], axis=1), rtol=1e-8)
    np.testing.assert_allclose(path.scores, [mean for _, mean in found], rtol=1e-8)


@pytest.mark.parametrize("which", OPTIONS)
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_generalized_and_evidence_and_degrees_of_freedom(n, p, which):
    """The evidence up to a constant: only its shape over λ has a meaning."""
    X, y, weights, penalty = table(2, n, p)
    ours, theirs = given_options(which, weights, penalty)
    path = wd.ridge_path(X, y, LAMBDAS, cv="gcv", **ours)
    expected = np.array([oracle.generalized(X, y, lam * n, **theirs) for lam in LAMBDAS])
    np.testing.assert_allclose(path.scores, expected, rtol=1e-9)
    np.testing.assert_allclose(path.errors, expected * (2 / n) ** 0.5, rtol=1e-9)
    dof = [oracle.degrees_of_freedom(X, lam * n, **theirs) for lam in LAMBDAS]
    np.testing.assert_allclose(path.dof, dof, rtol=1e-9)
    evidence = np.array([oracle.evidence(X, y, lam * n, **theirs) for lam in LAMBDAS])
    scores = wd.ridge_path(X, y, LAMBDAS, cv="evidence", **ours).scores.numpy()
    np.testing.assert_allclose(scores - scores[0], evidence - evidence[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("which", OPTIONS)
@pytest.mark.parametrize(("n", "p"), SHAPES)
@pytest.mark.parametrize("cv", ["loo", 3])
def test_coefficients_and_their_standard_errors(n, p, which, cv):
    X, y, weights, penalty = table(3, n, p)
    ours, theirs = given_options(which, weights, penalty)
    path = wd.ridge_path(X, y, LAMBDAS, cv=cv, **ours)
    for lam in (0.01, 0.5):
        b, b0 = oracle.ridge(X, y, lam * n, **theirs)
        np.testing.assert_allclose(path.coef(lam), b, rtol=1e-8, atol=1e-9 * abs(b).max())
        np.testing.assert_allclose(path.intercept(lam), b0, rtol=1e-8, atol=1e-9)
        errors = oracle.standard_errors(X, y, lam * n, **theirs)
        np.testing.assert_allclose(path.standard_errors(lam), errors, rtol=1e-7)
        np.testing.assert_allclose(path.predict(X[:3], lam), X[:3] @ b + b0, rtol=1e-8)


@pytest.mark.parametrize(("n", "p"), SHAPES)
@pytest.mark.parametrize(
    ("which", "cv"), [("", "loo"), ("weights factors", "loo"), ("", 3), ("weights factors standardize", 3)]
)
def test_predictions_out_of_fold(n, p, which, cv):
    X, y, weights, penalty = table(4, n, p)
    ours, theirs = given_options(which, weights, penalty)
    pairs = oracle.one_by_one(n) if cv == "loo" else oracle.k_pairs(np.arange(n) % 3)
    path = wd.ridge_path(X, y, LAMBDAS, cv="loo" if cv == "loo" else pairs, **ours)
    expected = np.full_like(y, np.nan)
    for (_, test), errors in zip(pairs, oracle.held_out(X, y, 0.05 * n, pairs, **theirs), strict=True):
        expected[test] = y[test] - errors
    np.testing.assert_allclose(path.out_of_fold(0.05), expected, rtol=1e-8)


def test_rows_that_no_split_holds_out_have_no_prediction():
    X, y, _, _ = table(4, 20, 5, targets=1)
    path = wd.ridge_path(X, y[:, 0], LAMBDAS, cv=[(np.arange(12), np.arange(12, 16))])
    assert bool(path.out_of_fold(0.05)[12:16].isfinite().all())
    assert int(path.out_of_fold(0.05).isnan().sum()) == 16


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_a_lam_for_each_target_and_one_shared(n, p):
    X, y, _, _ = table(5, n, p, targets=3)
    y[:, 1] = np.random.default_rng(9).normal(size=n)  # nothing to learn: a large λ
    grid = np.logspace(-4, 3, 30)
    path = wd.ridge_path(X, y, grid, cv="loo")
    scores = np.array([oracle.leave_one_out(X, y, lam * n) for lam in grid])
    np.testing.assert_allclose(path.best, grid[scores.argmin(0)])
    assert len(set(path.best.tolist())) > 1
    b = np.column_stack(
        [oracle.ridge(X, y[:, [k]], float(lam) * n)[0][:, 0] for k, lam in enumerate(path.best)]
    )
    np.testing.assert_allclose(path.coef(), b, rtol=1e-7, atol=1e-9)
    shared = wd.ridge_path(X, y, grid, cv="loo", shared=True)
    assert shared.best == pytest.approx(grid[(scores / y.var(0)).mean(1).argmin()])


@pytest.mark.parametrize("cv", ["loo", 5])
def test_the_one_standard_error_choice(cv):
    X, y, _, _ = table(6, 40, 10, targets=1)
    grid = np.logspace(-3, 2, 40)
    path = wd.ridge_path(X, y[:, 0], grid, cv=cv)
    if cv == "loo":
        errors = np.array(
            [np.concatenate(oracle.held_out(X, y, lam * 40, oracle.one_by_one(40)))[:, 0] for lam in grid]
        )
        spread = (errors**2).std(1, ddof=1) / 40**0.5
    else:
        assert path.fold_scores is not None
        spread = path.fold_scores.numpy().std(0, ddof=1) / 5**0.5
    np.testing.assert_allclose(path.errors, spread, rtol=1e-8)
    scores = path.scores.numpy()
    least = int(scores.argmin())
    assert path.best == pytest.approx(grid[least])
    assert path.one_se == pytest.approx(grid[scores <= scores[least] + spread[least]].max())
    assert path.one_se > path.best


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_as_many_folds_as_rows_is_leave_one_out(n, p):
    X, y, _, _ = table(7, n, p, targets=1)
    loo = wd.ridge_path(X, y[:, 0], LAMBDAS, cv="loo").scores
    np.testing.assert_allclose(wd.ridge_path(X, y[:, 0], LAMBDAS, cv=n).scores, loo, rtol=1e-10)
    given = wd.ridge_path(X, y[:, 0], LAMBDAS, cv=oracle.one_by_one(n)).scores
    np.testing.assert_allclose(given, loo, rtol=1e-10)


@pytest.mark.parametrize("cv", ["loo", "gcv", 4])
def test_rows_of_weight_zero_are_not_there(cv):
    X, y, weights, _ = table(8, 20, 7, targets=1)
    weights[[3, 11]] = 0
    there = weights > 0
    kept, fold = np.cumsum(there) - 1, np.arange(20) % 4  # splits are in row numbers of the data as given
    cvs = (cv, cv)
    if cv == 4:
        of_the_rest = [(kept[a[there[a]]], kept[b[there[b]]]) for a, b in oracle.k_pairs(fold)]
        cvs = (oracle.k_pairs(fold), of_the_rest)
    path = wd.ridge_path(X, y[:, 0], LAMBDAS, cv=cvs[0], sample_weight=weights)
    without = wd.ridge_path(X[there], y[there, 0], LAMBDAS, cv=cvs[1], sample_weight=weights[there])
    assert path.n == 18
    np.testing.assert_allclose(path.scores, without.scores, rtol=1e-12)
    np.testing.assert_allclose(path.coef(0.1), without.coef(0.1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "p", "rank"), [(10, 25, None), (30, 6, None), (30, 12, 5), (12, 30, 5)])
def test_the_limits_are_the_pseudoinverse_and_the_mean(n, p, rank):
    X, y, _, _ = table(9, n, p, targets=1, rank=rank)
    y = y[:, 0]
    path = wd.ridge_path(X, y, np.logspace(-3, 3, 7), cv="loo")
    w = np.linalg.pinv(X - X.mean(0), rcond=1e-10) @ (y - y.mean())
    for lam in (0.0, 1e-13):
        np.testing.assert_allclose(path.coef(lam), w, rtol=1e-6, atol=1e-8 * abs(w).max())
    assert float(path.coef(1e13).abs().max()) < 1e-9
    assert float(path.intercept(1e13)) == pytest.approx(y.mean(), rel=1e-9)
    far = wd.ridge_path(X, y, [1e13], cv="loo").scores
    assert float(far) == pytest.approx(np.mean(((y - y.mean()) * n / (n - 1)) ** 2), rel=1e-9)


@given(st.integers(0, 2**32), st.integers(4, 15), st.integers(1, 20))
def test_degrees_of_freedom_and_norm_fall_with_lam(seed, n, p):
    X, y, _, _ = table(seed, n, p, targets=1)
    path = wd.ridge_path(X, y[:, 0], np.logspace(-4, 4, 17), cv="gcv")
    assert bool((path.dof.diff() < 0).all())
    assert 1 < float(path.dof[-1]) < float(path.dof[0]) < min(n, p + 1)
    norms = [float(path.coef(lam).norm()) for lam in (1e-3, 1e-1, 10.0)]
    assert norms[0] > norms[1] > norms[2]


@given(st.integers(0, 2**32), st.integers(5, 12), st.integers(1, 15), st.sampled_from(OPTIONS))
def test_any_table_any_options(seed, n, p, which):
    X, y, weights, penalty = table(seed, n, p, targets=1)
    ours, theirs = given_options(which, weights, penalty)
    lam = 0.1
    path = wd.ridge_path(X, y[:, 0], [lam], cv="loo", **ours)
    expected = float(leave_one_out(X, y, lam * n, **theirs)[0])
    assert float(path.scores) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("which", ["", "weights", "standardize"])
@pytest.mark.parametrize(("n", "p"), SHAPES)
@pytest.mark.parametrize("value", [0.1, 1e5 / 3])
def test_constant_columns_have_nothing_to_say(n, p, value, which):
    """Beside a free intercept, penalised or free: the coefficient is 0 exactly, not the mean's rounding."""
    X, y, weights, _ = table(12, n, p, targets=1)
    ours, _ = given_options(which, weights, None)
    X[:, [2, 4]] = value
    factors = np.ones(p)
    factors[[2, 3]] = 0
    path = wd.ridge_path(X, y[:, 0], LAMBDAS, cv="loo", penalty_factors=factors, **ours)
    rest = [j for j in range(p) if j not in (2, 4)]
    without = wd.ridge_path(X[:, rest], y[:, 0], LAMBDAS, cv="loo", penalty_factors=factors[rest], **ours)
    assert path.still == [2, 4]
    assert path.coef(0.05)[[2, 4]].tolist() == [0, 0]
    np.testing.assert_allclose(path.coef(0.05)[rest], without.coef(0.05), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(path.scores, without.scores, rtol=1e-9)
    np.testing.assert_allclose(path.dof, without.dof, rtol=1e-9)


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray])
def test_tensors_and_arrays(kind):
    X, y, _, _ = table(11, 20, 5, targets=1)
    expected = float(oracle.leave_one_out(X, y, 0.1 * 20)[0])
    path = wd.ridge_path(kind(X), kind(y[:, 0]), [0.1], cv="loo")
    assert float(path.scores) == pytest.approx(expected, rel=1e-10)
    single = wd.ridge_path(kind(X.astype(np.float32)), kind(y[:, 0]), [0.1], cv="loo")
    assert float(single.scores) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cv", ["loo", 5, "gcv"])
def test_digits_that_no_choice_needs_are_not_paid_for(cv, monkeypatch):
    """At a square table's least λ products keep few digits, and scores there are far from the least."""
    random = np.random.default_rng(0)
    X = random.normal(size=(150, 150))
    y = X[:, :5].sum(1) + random.normal(size=150)
    alphas = np.logspace(-4, 4, 30)
    monkeypatch.setattr(path_module, "ENOUGH", 1e-11)
    ours = wd.ridge_path(X, y, alphas, unit="sklearn.Ridge", cv=cv)
    monkeypatch.setattr(path_module, "ENOUGH", -1.0)
    exact = wd.ridge_path(X, y, alphas, unit="sklearn.Ridge", cv=cv)
    assert (ours.route, exact.route) == ("products of 150 rows", "150 × 150 inputs")
    assert float(ours.precision.max()) > 1e-9 > float(exact.precision.max())
    assert (ours.best, ours.one_se, ours.flat_range) == (exact.best, exact.one_se, exact.flat_range)
    away = (ours.scores / exact.scores - 1).abs()
    assert bool((away <= ours.precision + exact.precision).all())


def test_digits_that_a_choice_needs_are_paid_for():
    """The least score is at the least λ, where products keep few digits."""
    random = np.random.default_rng(0)
    X = random.normal(size=(150, 150))
    y = X[:, :5].sum(1)
    path = wd.ridge_path(X, y, np.logspace(-6, -3, 4), unit="sklearn.Ridge", cv="gcv")
    assert path.route == "150 × 150 inputs"
