"""Digits: intervals and leverages at small λ, scores and what is claimed of them."""

import mpmath
import numpy as np
from tests.faults.rows import row


def _table(n, p, kappa, seed=0):
    """Inputs whose singular values fall evenly from 1 to 1/κ, times √n, and a target."""
    random = np.random.default_rng(seed)
    U, _, V = np.linalg.svd(random.normal(size=(n, p)), full_matrices=False)
    X = n**0.5 * U * np.geomspace(1, 1 / kappa, min(n, p)) @ V
    return X, X @ random.normal(size=p) + 0.1 * random.normal(size=n)


def _variances(A, new, alpha, factors):
    """x'(A'A + αF)^-1 x of new rows, in 50 digits."""
    with mpmath.workdps(50):
        A, new = mpmath.matrix(A.tolist()), mpmath.matrix(new.tolist())
        inverse = (A.T * A + alpha * mpmath.diag([float(f) for f in factors])) ** -1
        return np.array([float((new[i, :] * inverse * new[i, :].T)[0]) for i in range(new.rows)])


@row("22b", "variance of predictions, 60 × 10, κ 1e3, λ = 0", "within 1e-9 of 50 digits")
def small_lam():
    import weightdecay as wd

    X, y = _table(60, 10, 1e3)
    model = wd.ridge_path(X, y, [0.0], cv="loo").model()
    low, high = model.interval(X[:8], 0.9)
    A = np.column_stack([X, np.ones(60)])
    b = np.linalg.lstsq(A, y)[0]
    sigma = (((y - A @ b) ** 2).sum() / (60 - 11)) ** 0.5
    half = 1.6765508926168529 * sigma * (1 + _variances(A, A[:8], 0, np.ones(11))) ** 0.5  # t of 49, .95
    error = float(np.abs((high - low).numpy() / 2 / half - 1).max())
    return f"half widths off by {error:.1g}", error < 1e-7


@row("22", "interval without an intercept, three rows", "t·σ·√(1 + x²/Σx²)")
def no_intercept():
    import weightdecay as wd

    random = np.random.default_rng(3)
    X = 3 + random.normal(size=(12, 1))
    y = 2 * X[:, 0] + random.normal(size=12)
    new = np.array([[0.0], [2.0], [30.0]])
    low, high = wd.ridge_path(X, y, [0.0], intercept="none", cv="loo").model().interval(new, 0.9)
    b = (X[:, 0] @ y) / (X[:, 0] @ X[:, 0])
    sigma = (((y - b * X[:, 0]) ** 2).sum() / 11) ** 0.5
    half = 1.7958848187040437 * sigma * (1 + new[:, 0] ** 2 / (X[:, 0] @ X[:, 0])) ** 0.5  # t of 11, .95
    found = ((high - low) / 2).numpy()
    return f"{np.round(found, 3)} where {np.round(half, 3)}", bool(np.allclose(found, half, rtol=1e-7))


def _held_out(X, y, alpha, pairs, digits=60):
    """Mean squared error of the held-out rows by explicit solves of the dual, with a free intercept."""
    with mpmath.workdps(digits):
        total, count = mpmath.mpf(0), 0
        for train, test in pairs:
            A = mpmath.matrix([[mpmath.mpf(v) for v in row] for row in X[train].tolist()])
            B = mpmath.matrix([[mpmath.mpf(v) for v in row] for row in X[test].tolist()])
            m = len(train)
            S = mpmath.zeros(m + 1)
            K = A * A.T
            for i in range(m):
                for j in range(m):
                    S[i, j] = K[i, j]
                S[i, i] += mpmath.mpf(alpha) if alpha else mpmath.mpf(10) ** (-digits // 2)
                S[i, m] = S[m, i] = 1
            solved = mpmath.lu_solve(S, mpmath.matrix([mpmath.mpf(v) for v in y[train].tolist()] + [0]))
            predicted = B * (A.T * solved[:m, 0])
            for k, row in enumerate(test):
                total += (mpmath.mpf(float(y[row])) - predicted[k] - solved[m]) ** 2
                count += 1
        return total / count


def _claim(X, y, alphas, right, **options):
    """The errors of the scores and what is claimed of them, in words; and whether all are within."""
    import weightdecay as wd

    path = wd.ridge_path(X, y, alphas, unit="sklearn.Ridge", **options)
    errors = [abs(float(mpmath.mpf(float(s)) / one - 1)) for s, one in zip(path.scores, right, strict=True)]
    claims = path.precision.tolist()
    held = all(e <= c for e, c in zip(errors, claims, strict=True))
    return (
        f"errors {', '.join(f'{e:.1g}' for e in errors)}; claims {', '.join(f'{c:.1g}' for c in claims)}",
        held,
    )


def _one_by_one(n):
    return [(np.delete(np.arange(n), i), np.array([i])) for i in range(n)]


@row("19", "16 rows of rank 5 and a little, α 1e-16, 1e-14, 1e-12", "errors within the claims")
def small_eigenvalues():
    random = np.random.default_rng(1)
    X = random.normal(size=(16, 5)) @ random.normal(size=(5, 20)) + 1e-8 * random.normal(size=(16, 20))
    y = random.normal(size=16)
    alphas, pairs = [1e-16, 1e-14, 1e-12], _one_by_one(16)
    return _claim(X, y, alphas, [_held_out(X, y, a, pairs) for a in alphas], cv="loo")


@row(
    "19",
    "rank 6 of 12 rows, one of leverage near 1, α 0 and 1e-8",
    "errors within the claims",
)
def leverage_and_rank():
    random = np.random.default_rng(5)
    X = np.round(random.normal(size=(12, 6)) * 64) @ np.round(random.normal(size=(6, 14)) * 64) / 4096
    X[3] += 4096 * np.eye(14)[2]
    y, pairs = random.normal(size=12), _one_by_one(12)
    return _claim(X, y, [0.0, 1e-8], [_held_out(X, y, a, pairs) for a in (0.0, 1e-8)], cv="loo")


@row("19", "n > p, a value of 1e7, as loo", "errors within a claim of 1e-6 at most")
def an_outlier():
    import weightdecay as wd

    random = np.random.default_rng(2)
    X, y = random.normal(size=(20, 4)), random.normal(size=20)
    X[7, 2] = 1e7
    right = [_held_out(X, y, 1e-3, _one_by_one(20))]
    given, held = _claim(X, y, [1e-3], right, cv="loo")
    claim = float(wd.ridge_path(X, y, [1e-3], unit="sklearn.Ridge", cv="loo").precision.max())
    return given, held and claim < 1e-6


@row("23", "a column with a single 1, and an outlier of 1e9, as loo", "an answer, within its claim")
def leverage_one():
    random = np.random.default_rng(4)
    X, y = random.normal(size=(14, 4)), random.normal(size=14)
    X[:, 1] = np.eye(14)[5]
    X[9, 3] = 1e9
    return _claim(X, y, [1e-14, 1e-3], [_held_out(X, y, a, _one_by_one(14)) for a in (1e-14, 1e-3)], cv="loo")
