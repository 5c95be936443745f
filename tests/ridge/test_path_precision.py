"""The digits of the scores, against 50 digits or long double; and the precision reported with them."""

import mpmath
import numpy as np
import pytest
import ridge_oracles as oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import weightdecay as wd
from weightdecay.ridge import path as path_module

# Curves that are flat, or fall to an edge of the grid, are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")

EPS = np.finfo(float).eps


def conditioned(seed, n, p, kappa, rank=None, shift=0.0):
    """Inputs whose centred singular values fall evenly from 1 to 1/κ, on means of `shift` sd; a target.

    With a rank given the numbers are multiples of 2^-34, so that float64 holds them, and the rank is exact.
    """
    random = np.random.default_rng(seed)
    given, rank = rank, rank or min(n - 1, p)
    U = np.linalg.qr(np.column_stack([np.ones(n), random.normal(size=(n, rank))]))[0][:, 1:]
    V = np.linalg.qr(random.normal(size=(p, rank)))[0]
    A = n**0.5 * U * np.geomspace(1, 1 / kappa, rank)
    if given:
        A, V = np.round(A * 2.0**20) / 2.0**20, np.round(V * 2.0**14) / 2.0**14
    X = A @ V.T
    means = shift * X.std(0) * random.choice([-1, 1], size=p) * random.uniform(0.5, 1, size=p)
    X = X + np.round(means * 2.0**20) / 2.0**20
    return X, X @ random.normal(size=p) + 0.3 * random.normal(size=n)


def facts(X):
    """κ of the centred inputs and the mean of their non-null squared singular values."""
    s = np.linalg.svd(X - X.mean(0), compute_uv=False)
    s = s[s > max(X.shape) * EPS * (s[0] + abs(X).max())]
    return s[0] / s[-1], np.mean(s**2)


def exact_scores(X, y, alphas, pairs):
    """Mean squared errors of the held-out rows in 50 digits (L,)."""
    with mpmath.workdps(50):
        Xe, ye = oracle.exact(X), oracle.exact(y[:, None])
        scores = [oracle.fold_scores(Xe, ye, mpmath.mpf(float(a)), pairs)[1][0] for a in alphas]
        return np.array([float(score) for score in scores])


def errors_and_precision(X, y, alphas, cv, pairs):
    """Relative errors of the scores (L,), and what the path says of them (L,)."""
    path = wd.ridge_path(X, y, alphas, unit="sklearn.Ridge", cv=cv)
    expected = exact_scores(X, y, alphas, pairs)
    return abs(path.scores.numpy() / expected - 1), path.precision.numpy()


RELATIVE = np.array([1e-14, 1e-11, 1e-6, 1e-2])  # α in mean eigenvalues

WELL = {
    "wide": {"n": 10, "p": 24, "kappa": 20},
    "wide, means of 1e4 sd": {"n": 10, "p": 24, "kappa": 20, "shift": 1e4},
    "rank-deficient": {"n": 12, "p": 18, "kappa": 20, "rank": 5},
    "rank-deficient, means of 1e4 sd": {"n": 12, "p": 18, "kappa": 20, "rank": 5, "shift": 1e4},
    "tall": {"n": 24, "p": 6, "kappa": 20},
    "tall, means of 1e4 sd": {"n": 24, "p": 6, "kappa": 20, "shift": 1e4},
    "tall, rank-deficient, means of 1e4 sd": {"n": 20, "p": 8, "kappa": 20, "rank": 4, "shift": 1e4},
    "square": {"n": 12, "p": 11, "kappa": 90},
    "κ = 100": {"n": 10, "p": 20, "kappa": 100, "shift": 10},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WELL)
def test_leave_one_out_keeps_twelve_digits(name, seed):
    X, y = conditioned(seed, **WELL[name])
    kappa, mean = facts(X)
    assert kappa <= 100.01
    errors, precision = errors_and_precision(X, y, RELATIVE * mean, "loo", oracle.one_by_one(len(y)))
    assert errors.max() < 1e-12
    assert bool((precision >= errors).all())


ILL = {
    "wide": {"n": 12, "p": 20, "kappa": 1e4},
    "wide, worse": {"n": 12, "p": 20, "kappa": 1e6},
    "spectra": {"n": 14, "p": 24, "kappa": 3e7},
    "tall": {"n": 24, "p": 7, "kappa": 1e5},
    "tall, worse": {"n": 24, "p": 7, "kappa": 3e7},
    "tall, means of 1e4 sd": {"n": 24, "p": 7, "kappa": 1e5, "shift": 1e4},
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ILL)
def test_ill_conditioned_tables_keep_what_a_gram_would_and_say_so(name, seed):
    X, y = conditioned(seed, **ILL[name])
    kappa, mean = facts(X)
    errors, precision = errors_and_precision(X, y, RELATIVE * mean, "loo", oracle.one_by_one(len(y)))
    assert errors.max() < 100 * EPS * kappa**2
    assert bool((precision >= errors).all())


@settings(max_examples=25)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(8, 14), (14, 5), (9, 8), (7, 30)]),
    st.floats(0, 8),
    st.floats(-14, 1),
    st.sampled_from([0.0, 0.0, 10.0, 1e4]),
    st.booleans(),
    st.sampled_from(["loo", "folds"]),
)
def test_the_reported_precision_is_never_smaller_than_the_error(
    seed, shape, log_kappa, log_lam, shift, deficient, cv
):
    n, p = shape
    X, y = conditioned(seed, n, p, 10**log_kappa, 3 if deficient and log_kappa < 4 else None, shift)
    alpha = 10**log_lam * facts(X)[1]
    pairs = oracle.one_by_one(n) if cv == "loo" else oracle.k_pairs(np.arange(n) % 3)
    errors, precision = errors_and_precision(X, y, [alpha], "loo" if cv == "loo" else pairs, pairs)
    assert errors[0] <= precision[0]


def hard(name):
    """The tables that break peers: Gaussian 2000 × 30 in 5 contiguous folds, noise sd 1."""
    random = np.random.default_rng(0)
    X, b = random.normal(size=(2000, 30)), random.normal(size=30)
    noise = random.normal(size=2000)
    y = X @ b + (1e-6 if name == "noise of 1e-6" else 1) * noise
    if name == "column means of 1e7 sd":
        X = X + 1e7
    if name == "first fold × 1e7":
        X[:400] *= 1e7
    if name == "first fold + 1e6":
        X[:400] += 1e6
    if name.startswith("first fold"):
        y[:400] = noise[:400]
    return X, y


def long_double_folds(X, y, alpha, pairs):
    """Each fold's mean squared error in long double, centred first (K,)."""
    X, y = X.astype(np.longdouble), y.astype(np.longdouble)[:, None]
    scores = []
    for train, test in pairs:
        mean, y_mean = X[train].mean(0), y[train].mean(0)
        Z = X[train] - mean
        b = oracle.solve(Z.T @ Z + alpha * np.eye(Z.shape[1]), Z.T @ (y[train] - y_mean))[0]
        scores.append(np.mean((y[test] - y_mean - (X[test] - mean) @ b) ** 2))
    return np.array(scores)


HARD = ["well scaled", "column means of 1e7 sd", "first fold × 1e7", "first fold + 1e6", "noise of 1e-6"]


@pytest.mark.parametrize("name", HARD)
def test_hard_cases_are_right(name):
    X, y = hard(name)
    alphas = np.logspace(-3, 3, 5)
    pairs = oracle.k_pairs(np.arange(2000) // 400)
    expected = np.array([long_double_folds(X, y, alpha, pairs) for alpha in alphas]).T.astype(float)
    path = wd.ridge_path(X, y, alphas, unit="sklearn.Ridge", cv=pairs)
    assert path.fold_scores is not None
    np.testing.assert_allclose(path.fold_scores, expected, rtol=1e-6)
    errors = abs(path.scores.numpy() / expected.mean(0) - 1)
    assert bool((path.precision.numpy() >= errors).all())


def test_float32_is_within_its_digits():
    """Sums in float64: scores within 5e-6 of float64's, the same λ."""
    random = np.random.default_rng(0)
    for n, p in ((60, 200), (300, 20)):
        X = random.normal(size=(n, p))
        y = X[:, 0] + random.normal(size=n)
        alphas = np.logspace(-1, 4, 6)
        double = wd.ridge_path(X, y, alphas, unit="sklearn.Ridge", cv=5)
        single = wd.ridge_path(torch.tensor(X).float(), y, alphas, unit="sklearn.Ridge", cv=5)
        np.testing.assert_allclose(single.scores, double.scores, rtol=5e-6)
        assert single.best == pytest.approx(double.best)


def test_float32_at_a_tiny_lam_is_as_right_as_float64_or_refused(monkeypatch):
    """Small tables are decomposed, wide ones multiplied in float64; large tall ones are not."""
    random = np.random.default_rng(1)
    X = random.normal(size=(60, 60)).astype(np.float32)
    y = X[:, 0] + random.normal(size=60)
    for width in (60, 40):
        double, single = (
            wd.ridge_path(inputs[:50, :width], y[:50], [1e-9], unit="sklearn.Ridge", cv=5)
            for inputs in (X.astype(float), X)
        )
        assert float(single.scores[0]) == pytest.approx(float(double.scores[0]), rel=5e-6)
    monkeypatch.setattr(path_module, "DIRECT", 0)
    with pytest.raises(wd.InputError, match="float32 is not precise enough"):
        wd.ridge_path(X[:, :40], y, [1e-9], unit="sklearn.Ridge", cv=5)
