"""Ridge by its definition: refits, explicit matrices, in float64 or in as many digits as wanted.

Imports nothing of the package. Every function takes the same options:

    weights    (n,) or None       of the rows; normalised here to mean 1
    penalty    (p,) or None       a factor for each column; 0 is unpenalised
    intercept  "free" | "penalized" | "none"
    standardize                   columns divided by their weighted 1/n sd in the rows of the fit

and works on whatever numbers it is given: float64 arrays, or object arrays of mpmath numbers made by `exact`
or long doubles, which go through plain Gaussian elimination. Targets are (n, t).
"""

import mpmath
import numpy as np


def exact(values):
    """The same values, as mpmath numbers."""
    return np.vectorize(mpmath.mpf, otypes=[object])(np.asarray(values, dtype=float))


def rounded(values):
    """Back to float64."""
    return np.asarray(values).astype(float)


def root(values):
    """Square roots."""
    values = np.asarray(values)
    return np.sqrt(values) if values.dtype != object else np.vectorize(mpmath.sqrt, otypes=[object])(values)


def logarithm(values):
    """Natural logarithms."""
    values = np.asarray(values)
    return np.log(values) if values.dtype != object else np.vectorize(mpmath.log, otypes=[object])(values)


def solve(A, B):
    """A⁻¹ B and log |det A|; LAPACK for float64, else Gaussian elimination with pivoting."""
    if A.dtype == float:
        return np.linalg.solve(A, B), np.linalg.slogdet(A)[1]
    M, k = np.concatenate([A, B], axis=1), len(A)
    for i in range(k):
        best = i + max(range(k - i), key=lambda r: abs(M[i + r, i]))
        if best != i:
            M[[i, best]] = M[[best, i]]
        M[i + 1 :, i:] -= np.outer(M[i + 1 :, i] / M[i, i], M[i, i:])
    X, log_det = M[:, k:], logarithm(abs(np.diag(M))).sum()
    for i in reversed(range(k)):
        X[i] = (X[i] - M[i, i + 1 : k] @ X[i + 1 :]) / M[i, i]
    return X, log_det


def like(X, values):
    """An array in the numbers of X."""
    return exact(values) if X.dtype == object else np.asarray(values, dtype=X.dtype)


def settle(X, weights, penalty):
    """Weights of mean 1 and factors, in the numbers of X."""
    w = like(X, np.ones(len(X)) if weights is None else weights)
    return w * len(w) / w.sum(), like(X, np.ones(X.shape[1]) if penalty is None else penalty)


def scales(X, w, standardize):
    """The sd of each column (1/n, weighted); 1 where nothing is scaled, 0 marks a constant column."""
    if not standardize:
        return like(X, np.ones(X.shape[1]))
    mean = w @ X / w.sum()
    constant = np.array([bool((column == column[0]).all()) for column in X.T])
    return root(np.where(constant, like(X, 0), w @ (X - mean) ** 2 / w.sum()))


def design(X, w, f, intercept, standardize):
    """The columns that are fitted with their factors and scales; the intercept is last, constants are out."""
    sd = scales(X, w, standardize)
    kept = np.array([bool(s != 0) for s in sd], dtype=bool)
    Z, f = X[:, kept] / sd[kept], f[kept]
    if intercept != "none":
        Z = np.column_stack([Z, like(X, np.ones(len(X)))])
        f = np.append(f, like(X, float(intercept == "penalized")))
    return Z, f, sd, kept


def fit(X, y, alpha, w, f, intercept="free", standardize=False):
    """Coefficients (p, t) and intercepts (t,): the normal equations, or their dual where columns are more.

    Dual: with unpenalised columns U and K = Σ z_j z_j'/f_j, [K + αW⁻¹, U; U', 0] [a; c] = [y; 0],
    b_j = z_j'a/f_j.
    """
    Z, f, sd, kept = design(X, w, f, intercept, standardize)
    if Z.shape[1] <= len(Z):
        found = solve((Z.T * w) @ Z + np.diag(alpha * f), (Z.T * w) @ y)[0]
    else:
        found = dual(Z, y, alpha, w, f)
    b, b0 = like(X, np.zeros((X.shape[1], y.shape[1]))), like(X, np.zeros(y.shape[1]))
    if intercept != "none":
        found, b0 = found[:-1], found[-1]
    b[kept] = found / sd[kept][:, None]
    return b, b0


def dual(Z, y, alpha, w, f):
    """The coefficients of all columns of Z."""
    free = np.array([bool(v == 0) for v in f])
    P, U = Z[:, ~free], Z[:, free]
    q = U.shape[1]
    A = np.block([[(P / f[~free]) @ P.T + np.diag(alpha / w), U], [U.T, like(Z, np.zeros((q, q)))]])
    solved = solve(A, np.concatenate([y, like(Z, np.zeros((q, y.shape[1])))]))[0]
    found = like(Z, np.zeros((Z.shape[1], y.shape[1])))
    found[~free] = (P.T @ solved[: len(Z)]) / f[~free][:, None]
    found[free] = solved[len(Z) :]
    return found


def ridge(X, y, alpha, *, weights=None, penalty=None, **options):
    """Coefficients (p, t) and intercepts (t,) of all rows."""
    return fit(X, y, alpha, *settle(X, weights, penalty), **options)


def held_out(X, y, alpha, pairs, *, weights=None, penalty=None, **options):
    """Errors y − ŷ of the held-out rows of each (train, test) pair, by refits: a list of (rows, t).

    The penalty α and the weights stay what they are on all rows; the scales are the training rows'.
    """
    w, f = settle(X, weights, penalty)
    errors = []
    for train, test in pairs:
        b, b0 = fit(X[train], y[train], alpha, w[train], f, **options)
        errors.append(y[test] - X[test] @ b - b0)
    return errors


def fold_scores(X, y, alpha, pairs, *, weights=None, penalty=None, **options):
    """Weighted mean squared error of each pair's held-out rows (K, t), and of all of them (t,)."""
    w = settle(X, weights, penalty)[0]
    errors = held_out(X, y, alpha, pairs, weights=weights, penalty=penalty, **options)
    sums = [w[test] @ e**2 for (_, test), e in zip(pairs, errors, strict=True)]
    masses = [w[test].sum() for _, test in pairs]
    return np.stack([s / m for s, m in zip(sums, masses, strict=True)]), sum(sums) / sum(masses)


def one_by_one(n):
    """The pairs of leave-one-out."""
    return [(np.delete(np.arange(n), i), np.array([i])) for i in range(n)]


def k_pairs(fold):
    """The pairs of a vector of fold numbers."""
    fold = np.asarray(fold)
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(fold.max() + 1)]


def leave_one_out(X, y, alpha, **options):
    """Weighted mean squared error of n refits, (t,)."""
    return fold_scores(X, y, alpha, one_by_one(len(X)), **options)[1]


def hat(X, alpha, w, f, intercept="free", standardize=False):
    """The symmetric hat matrix W^½ Z (Z'WZ + αF)⁻¹ Z'W^½, the intercept in it."""
    Z, f, _, _ = design(X, w, f, intercept, standardize)
    rows = Z * root(w)[:, None]
    return rows @ solve(rows.T @ rows + np.diag(alpha * f), rows.T)[0]


def degrees_of_freedom(X, alpha, *, weights=None, penalty=None, **options):
    """The trace of the hat matrix."""
    return np.trace(hat(X, alpha, *settle(X, weights, penalty), **options))


def residual_squares(X, y, alpha, *, weights=None, penalty=None, **options):
    """Weighted training residual sum of squares, (t,)."""
    w, f = settle(X, weights, penalty)
    b, b0 = fit(X, y, alpha, w, f, **options)
    return w @ (y - X @ b - b0) ** 2


def generalized(X, y, alpha, **options):
    """Generalized cross-validation: RSS/n over (1 − dof/n)², (t,)."""
    n = len(X)
    left = 1 - degrees_of_freedom(X, alpha, **options) / n
    return residual_squares(X, y, alpha, **options) / n / left**2


def evidence(X, y, alpha, *, weights=None, penalty=None, intercept="free", standardize=False):
    """−2 log of the marginal likelihood, noise variance at its maximum, (t,).

    b_j ~ N(0, σ²/(α f_j)), y_i ~ N(·, σ²/w_i); unpenalised columns U are integrated out flat:
    (n−q)(log 2πσ̂² + 1) + log|V| + log|U'V⁻¹U|, V = W⁻¹ + K/α, σ̂² = y'Py/(n−q), P = V⁻¹ − V⁻¹U(U'V⁻¹U)⁻¹U'V⁻¹.
    """
    w, f = settle(X, weights, penalty)
    Z, f, _, _ = design(X, w, f, intercept, standardize)
    free = np.array([bool(v == 0) for v in f])
    P, U = Z[:, ~free], Z[:, free]
    left = len(X) - U.shape[1]
    V = np.diag(1 / w) + (P / f[~free]) @ P.T / alpha
    both, log_V = solve(V, np.concatenate([U, y], axis=1))
    VU, Vy = both[:, : U.shape[1]], both[:, U.shape[1] :]
    log_U = 0
    if U.shape[1]:
        found, log_U = solve(U.T @ VU, U.T @ Vy)
        Vy = Vy - VU @ found
    noise = (y * Vy).sum(0) / left
    pi = np.pi if noise.dtype != object else mpmath.pi
    return left * (logarithm(2 * pi * noise) + 1) + log_V + log_U


def standard_errors(X, y, alpha, *, weights=None, penalty=None, **options):
    """Of the coefficients (p, t), original scale: σ̂² (G + αF)⁻¹ G (G + αF)⁻¹, σ̂² = RSS/(n − dof)."""
    w, f = settle(X, weights, penalty)
    noise = residual_squares(X, y, alpha, weights=weights, penalty=penalty, **options) / (
        len(X) - degrees_of_freedom(X, alpha, weights=weights, penalty=penalty, **options)
    )
    intercept, standardize = options.get("intercept", "free"), options.get("standardize", False)
    Z, g, sd, kept = design(X, w, f, intercept, standardize)
    G = (Z.T * w) @ Z
    inverse = solve(G + np.diag(alpha * g), like(X, np.eye(len(G))))[0]
    spread = np.diag(inverse @ G @ inverse)
    if intercept != "none":
        spread = spread[:-1]
    found = like(X, np.zeros((X.shape[1], y.shape[1])))
    found[kept] = root(spread[:, None] * noise) / sd[kept][:, None]
    return found
