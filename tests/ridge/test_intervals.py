"""Variances of predictions and standard errors, against 50 digits: every option, and λ down to nothing."""

import mpmath
import numpy as np
import pytest
import ridge_oracles as oracle
import torch

import weightdecay as wd

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")

OPTIONS = {
    "plain": {},
    "standardised": {"standardize": True},
    "no intercept": {"intercept": "none"},
    "no intercept, standardised": {"intercept": "none", "standardize": True},
    "a penalised intercept": {"intercept": "penalized"},
    "weights": {"weights": np.linspace(0.2, 3, 16)},
    "free columns": {"penalty": [0.0, 1, 2, 0] + [1.0] * 20},
    "free columns, no intercept, weights": {
        "penalty": [1.0, 0, 2, 0] + [0.5] * 20, "intercept": "none", "weights": np.linspace(3, 0.2, 16),
    },
    "free columns, a penalised intercept, standardised": {
        "penalty": [1.0, 0, 2, 0] + [0.5] * 20, "intercept": "penalized", "standardize": True,
    },
}  # fmt: skip
SHAPES = {
    "tall, well conditioned": (16, 6, 10.0, 1.0),
    "tall, κ 1e4, λ 1e-13": (16, 6, 1e4, 1e-13),
    "tall, κ 1e7, λ = 0": (16, 6, 1e7, 0.0),
    "wide": (16, 24, 10.0, 0.3),
    "wide, κ 1e4": (16, 24, 1e4, 1e-3),
}


def case(shape, options, seed=0):
    """Inputs, targets, α, options for the oracle, and the path."""
    n, p, kappa, alpha = SHAPES[shape]
    random = np.random.default_rng(seed)
    U, _, V = np.linalg.svd(random.normal(size=(n, p)), full_matrices=False)
    X = 0.5 + n**0.5 * U * np.geomspace(1, 1 / kappa, min(n, p)) @ V
    y = random.normal(size=(n, 1))
    given = dict(OPTIONS[options])
    if "penalty" in given:
        given["penalty"] = given["penalty"][:p]
    names = {"weights": "sample_weight", "penalty": "penalty_factors"}
    path = wd.ridge_path(
        X, y[:, 0], [alpha], unit="sklearn.Ridge", cv="loo", **{names.get(k, k): v for k, v in given.items()}
    )
    return X, y, alpha, given, path


def variances(X, new, alpha, weights=None, penalty=None, intercept="free", standardize=False):
    """x'(X'WX + αF)^-1 x of new rows, the intercept among the columns."""
    w, f = oracle.settle(X, weights, penalty)
    Z, f, sd, _ = oracle.design(X, w, f, intercept, standardize)
    rows = new / sd
    if intercept != "none":
        rows = np.column_stack([rows, oracle.like(X, np.ones(len(new)))])
    return np.sum(rows.T * oracle.solve((Z.T * w) @ Z + np.diag(alpha * f), rows.T)[0], axis=0)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_variance_of_a_prediction_keeps_its_digits(shape, options):
    X, _, alpha, given, path = case(shape, options)
    new = np.vstack([X[:3], X.mean(0) + np.random.default_rng(1).normal(size=(3, X.shape[1]))])
    with mpmath.workdps(50):
        right = oracle.rounded(variances(oracle.exact(X), oracle.exact(new), mpmath.mpf(alpha), **given))
    covariance = path.model().covariance
    assert covariance is not None
    np.testing.assert_allclose(covariance.variance(torch.from_numpy(new)), right, rtol=1e-7)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_standard_errors_keep_their_digits(shape, options):
    X, y, alpha, given, path = case(shape, options)
    with mpmath.workdps(50):
        right = oracle.rounded(
            oracle.standard_errors(oracle.exact(X), oracle.exact(y), mpmath.mpf(alpha), **given)
        )
    np.testing.assert_allclose(path.standard_errors(), right[:, 0], rtol=1e-6)


def test_a_repeated_column_has_an_interval_without_a_penalty():
    """λ = 0, the limit: new rows that repeat it too are as sure as without it, others are not sure at all."""
    random = np.random.default_rng(4)
    X = random.normal(size=(20, 3))
    y = X.sum(1) + random.normal(size=20)
    one, both = (wd.ridge_path(inputs, y, [0.0], cv="loo").model() for inputs in (X, X[:, [0, 1, 2, 2]]))
    new = random.normal(size=(5, 3))
    for found, right in zip(both.interval(new[:, [0, 1, 2, 2]]), one.interval(new), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)
    low, high = both.interval(random.normal(size=(5, 4)))
    assert bool((high - low > 1e6).all())


def test_noise_where_almost_no_degree_of_freedom_is_left():
    """σ̂² = RSS / (n − dof): both in 50 digits, n − dof = 3e-8 of 12 rows."""
    random = np.random.default_rng(5)
    X, y = random.normal(size=(12, 30)), random.normal(size=(12, 1))
    path = wd.ridge_path(X, y[:, 0], [1e-7], unit="sklearn.Ridge", cv="loo")
    with mpmath.workdps(50):
        Xe, ye = oracle.exact(X), oracle.exact(y)
        left = 12 - oracle.degrees_of_freedom(Xe, mpmath.mpf(1e-7))
        right = float((oracle.residual_squares(Xe, ye, mpmath.mpf(1e-7))[0] / left) ** 0.5)
    assert float(path.model().noise_sd) == pytest.approx(right, rel=1e-12)


def coverage(random, n, p, alpha, intercept, standardize, sets, new=4):
    """The share of new measurements inside their 90 % interval: `sets` draws of coefficients and noise.

    With α > 0 coefficients come from the prior that α stands for, N(0, σ²/α) on the columns as they are
    penalised; the free intercept from anywhere. Then, and at α → 0, an interval should hold what it says.
    """
    X = random.normal(size=(n + new, p)) @ np.diag(random.uniform(0.3, 3, p)) + random.normal(size=p)
    sd = X[:n].std(0) if standardize else np.ones(p)
    b = random.normal(size=(p, sets)) / sd[:, None] / (alpha or 1.0) ** 0.5
    b0 = random.normal(size=sets) * {"free": 10, "penalized": (alpha or 1.0) ** -0.5, "none": 0}[intercept]
    y = X @ b + b0 + random.normal(size=(n + new, sets))
    path = wd.ridge_path(
        X[:n], y[:n], [alpha], unit="sklearn.Ridge", cv="gcv", shared=True, intercept=intercept,
        standardize=standardize,
    )  # fmt: skip
    low, high = (ends.numpy() for ends in path.model().interval(X[n:], 0.9))
    return ((low <= y[n:]) & (y[n:] <= high)).mean()


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("intercept", ["free", "penalized", "none"])
@pytest.mark.parametrize(
    ("n", "p", "alpha"), [(12, 4, 0.0), (40, 60, 20.0), (30, 10, 5.0)], ids=["λ = 0", "wide", "tall"]
)
def test_intervals_cover_what_they_say(n, p, alpha, intercept, standardize):
    """At λ = 0 the distribution is exactly Student's t; under the prior that λ stands for nearly so."""
    random = np.random.default_rng(0)
    found = np.mean([coverage(random, n, p, alpha, intercept, standardize, sets=125) for _ in range(4)])
    assert 0.88 <= found <= 0.92
