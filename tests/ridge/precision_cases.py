"""Random hard tables: what `path.precision` claims, beside the error of each score against 270 digits.

    python -m tests.ridge.precision_cases --cases 3000

prints, for each kind of table and each criterion, how many scores were outside what was claimed, how many
cases were refused, and by how much claims exceed errors.

The oracle solves every case by its definition, in fixed-point numbers: NumPy arrays of Python integers, in
units of 2^-BITS, after X was divided by a power of two. α = 0 is the limit: 2^-260. It imports nothing of the
package.
"""

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import torch

BITS = 900
ONE = 1 << BITS
LEAST = 260  # bits: α = 2^-260 stands for 0
Pairs = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """A table, how it is fitted and judged, and the α it is judged at."""

    kind: str
    X: np.ndarray
    y: np.ndarray
    alphas: np.ndarray
    cv: str
    pairs: Pairs = field(default_factory=list)
    weights: np.ndarray | None = None
    penalty: np.ndarray | None = None
    intercept: str = "free"
    standardize: bool = False
    groups: np.ndarray | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `wd.ridge_path`."""
        return {
            "cv": self.pairs or self.cv,
            "sample_weight": self.weights,
            "penalty_factors": self.penalty,
            "intercept": self.intercept,
            "standardize": self.standardize,
        }


# ---------------------------------------------------------------- the oracle


def fixed(values: Any, shift: int = 0) -> np.ndarray:
    """Floats times 2^shift, exactly, as integers in units of 2^-BITS."""

    def one(value: float) -> int:
        numerator, denominator = float(value).as_integer_ratio()
        power = BITS + shift - (denominator.bit_length() - 1)
        return numerator << power if power >= 0 else numerator >> -power

    return np.array([one(v) for v in np.asarray(values, dtype=float).ravel()], dtype=object).reshape(
        np.shape(values)
    )


def times(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Matrix product."""
    return (A @ B) >> BITS


def eliminated(A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """A^-1 B and the pivots of a symmetric matrix, definite or definite with a negative Schur complement."""
    M, k = np.concatenate([A, B], axis=1), len(A)
    pivots = []
    for i in range(k):
        pivots.append(M[i, i])
        if i + 1 < k:
            factor = (M[i + 1 :, i] << BITS) // M[i, i]
            M[i + 1 :, i:] -= np.outer(factor, M[i, i:]) >> BITS
    X = M[:, k:]
    for i in reversed(range(k)):
        if i + 1 < k:
            X[i] -= (M[i, i + 1 : k] @ X[i + 1 :]) >> BITS
        X[i] = (X[i] << BITS) // M[i, i]
    return X, pivots


def logarithm(pivots: list[int]) -> Any:
    """Σ log |pivot|."""
    return sum((mpmath.log(mpmath.mpf(abs(p))) - BITS * mpmath.log(2) for p in pivots), mpmath.mpf(0))


class Exact:
    """A case in fixed-point numbers."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.shift = -math.frexp(float(np.abs(case.X).max()) or 1.0)[1] if not case.standardize else 0
        spread = -math.frexp(float(np.abs(case.X).max()) or 1.0)[1]
        self.X, self.y = fixed(case.X, spread), fixed(case.y)
        n = len(self.y)
        w = fixed(np.ones(n) if case.weights is None else case.weights)
        self.w = w * n * ONE // w.sum()
        self.f = fixed(np.ones(self.X.shape[1]) if case.penalty is None else case.penalty)

    def alpha(self, alpha: float) -> int:
        """α beside X as it was divided."""
        return max(int(fixed([alpha], 2 * self.shift)[0]), 1 << (BITS - LEAST))

    def design(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The columns of all rows, scaled over some of them, with their factors; a column of ones last."""
        case, X, w = self.case, self.X, self.w[rows]
        keep = [not (column == column[0]).all() for column in X[rows].T]
        keep = np.array([k or (case.intercept != "free" and not case.standardize) for k in keep], dtype=bool)
        Z, f = X[:, keep], self.f[keep]
        if case.standardize:
            mean = (w @ Z[rows]) // w.sum()
            variance = (w @ ((Z[rows] - mean) ** 2 >> BITS)) // w.sum()
            sd = np.array([math.isqrt(int(v) << BITS) for v in variance], dtype=object)
            Z = (Z << BITS) // sd
        if case.intercept != "none":
            Z = (
                np.column_stack(
                    [Z, np.full(len(X), ONE >> -self.shift if self.shift < 0 else ONE << self.shift)]
                )
                if case.intercept == "penalized"
                else np.column_stack([Z, np.full(len(X), ONE, dtype=object)])
            )
            f = np.append(f, ONE if case.intercept == "penalized" else 0)
        return Z, f

    def held_out(self, alpha: int, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Errors of the test rows."""
        Z, f = self.design(train)
        A, w, y = Z[train], self.w[train], self.y[train]
        if Z.shape[1] <= len(train):
            weighted = (A * w[:, None]) >> BITS
            G = times(weighted.T, A)
            G[np.diag_indices(len(G))] += (alpha * f) >> BITS
            b = eliminated(G, times(weighted.T, y[:, None]))[0][:, 0]
        else:
            P, U = f != 0, f == 0
            a = self._dual(A, f, w, alpha, y[:, None])[0][:, 0]
            b = np.zeros(len(f), dtype=object)
            b[P] = (times(A[:, P].T, a[: len(y), None])[:, 0] << BITS) // f[P]
            b[U] = a[len(y) :]
        return self.y[test] - times(Z[test], b[:, None])[:, 0]

    def _dual(self, A: np.ndarray, f: np.ndarray, w: np.ndarray, alpha: int, B: np.ndarray) -> Any:
        P, U = f != 0, f == 0
        q = int(U.sum())
        K = times((A[:, P] << BITS) // f[P], A[:, P].T)
        K[np.diag_indices(len(K))] += (alpha << BITS) // w
        N = A[:, U]
        S = np.block([[K, N], [N.T, np.zeros((q, q), dtype=object)]])
        return eliminated(S, np.concatenate([B, np.zeros((q, B.shape[1]), dtype=object)]))

    def whole(self, alpha: int, evidence: bool) -> tuple[Any, Any, Any, Any]:
        """Residuals (n,), slack 1 − h (n,), misfit, and Σ log(1 + s/α), of all rows."""
        n = len(self.y)
        Z, f = self.design(np.arange(n))
        free, w = f == 0, self.w
        N = Z[:, free]
        base = logarithm(eliminated(times(((N * w[:, None]) >> BITS).T, N), N.T.copy())[1]) if evidence else 0
        log_alpha = mpmath.log(mpmath.mpf(alpha)) - BITS * mpmath.log(2)
        if Z.shape[1] <= n:
            weighted = (Z * w[:, None]) >> BITS
            G = times(weighted.T, Z)
            G[np.diag_indices(len(G))] += (alpha * f) >> BITS
            solved, pivots = eliminated(G, np.column_stack([Z.T, times(weighted.T, self.y[:, None])]))
            slack = ONE - (((Z * solved[:, :n].T).sum(1) >> BITS) * w >> BITS)
            residual = self.y - times(Z, solved[:, n:])[:, 0]
            misfit = (w * self.y >> BITS) @ residual >> BITS
            spread = (
                logarithm(pivots) - base - int((~free).sum()) * log_alpha - logarithm(list(f[~free]))
                if evidence
                else 0
            )
            return residual, slack, misfit, spread
        eye = np.zeros((n, n), dtype=object)
        eye[np.diag_indices(n)] = ONE
        solved, pivots = self._dual(Z, f, w, alpha, np.column_stack([eye, self.y]))
        a = solved[:n, n]
        q = int(free.sum())
        spread = logarithm(pivots) + logarithm(list(w)) - (n - q) * log_alpha - base if evidence else 0
        return (
            a * alpha // w,
            solved[:n, :n].diagonal() * alpha // w,
            (self.y @ a >> BITS) * alpha >> BITS,
            spread,
        )

    def score(self, alpha: float) -> Any:
        """The score at α, as mpmath's number; evidence without constants."""
        case, n, a = self.case, len(self.y), self.alpha(alpha)
        unit = mpmath.mpf(ONE)
        if case.cv == "folds":
            squares, mass = 0, 0
            for train, test in case.pairs:
                e, w = self.held_out(a, train, test), self.w[test]
                squares, mass = squares + int((w * e * e).sum()), mass + int(w.sum())
            return mpmath.mpf(squares) / unit**2 / mpmath.mpf(mass)
        residual, slack, misfit, spread = self.whole(a, case.cv == "evidence")
        if case.cv == "loo":
            e = (residual << BITS) // slack
            return mpmath.mpf(int((self.w * e * e).sum())) / unit**2 / mpmath.mpf(int(self.w.sum()))
        if case.cv == "gcv":
            rss = mpmath.mpf(int((self.w * residual * residual).sum())) / unit**3
            return rss / n / (mpmath.mpf(int(slack.sum())) / unit / n) ** 2
        q = int((self.design(np.arange(n))[1] == 0).sum())
        return (n - q) * mpmath.log(mpmath.mpf(int(misfit)) / unit / (n - q)) + spread


# ---------------------------------------------------------------- the tables


def gaussian(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Independent normal numbers."""
    return r.normal(size=(n, p))


def deficient(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Of low rank, exactly: products of small integers."""
    k = int(r.integers(1, max(2, min(n, p))))
    return (r.integers(-9, 10, (n, k)) @ r.integers(-9, 10, (k, p)) / 8).astype(float)


def rounded_deficient(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Of low rank, up to rounding."""
    k = int(r.integers(1, max(2, min(n, p))))
    return r.normal(size=(n, k)) @ r.normal(size=(k, p))


def duplicated(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Columns that repeat others."""
    X = r.normal(size=(n, p))
    return X[:, r.integers(0, p, p)]


def nearly_constant(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Some columns vary by 1e-4 to 1e-11 of their mean, one not at all."""
    X = r.normal(size=(n, p))
    for j in r.choice(p, max(1, p // 3), replace=False):
        X[:, j] = 1 + 10 ** -r.uniform(4, 11) * X[:, j]
    if p > 3:
        X[:, r.integers(p)] = 0.1
    return X


def leverage(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """A row of leverage 1 − 1e-8 or so; or a column with a single 1."""
    X = r.normal(size=(n, p))
    if r.random() < 0.5:
        X[r.integers(n)] *= 10 ** r.uniform(3, 5)
    else:
        X[:, 0] = 0
        X[r.integers(n), 0] = 1
    return X


def outlier(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """One value of 1e7, or 1e9."""
    X = r.normal(size=(n, p))
    X[r.integers(n), r.integers(p)] = 10 ** r.uniform(6, 9)
    return X


def far(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Means of 1e4 standard deviations."""
    return r.normal(size=(n, p)) + 1e4 * r.uniform(0.5, 1, p)


def tiny(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Of the size of 1e-148: a column whose sd is under 1e-150 is refused."""
    return r.normal(size=(n, p)) * 1e-148


def huge(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Of the size of 1e149."""
    return r.normal(size=(n, p)) * 1e149


def mixed(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Columns of sizes from 1e-6 to 1e6."""
    return r.normal(size=(n, p)) * 10 ** r.uniform(-6, 6, p)


def spectra(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Smooth curves, as near-infrared spectra are: highly collinear."""
    x = np.linspace(0, 1, p)
    centres, widths = r.uniform(0, 1, 6), r.uniform(0.1, 0.4, 6)
    shapes = np.exp(-(((x - centres[:, None]) / widths[:, None]) ** 2) / 2)
    noise = 10 ** -r.uniform(3, 7)
    return (
        3 + r.normal(size=(n, 6)) @ shapes + 0.2 * r.normal(size=(n, 1)) * x + noise * r.normal(size=(n, p))
    )


def conditioned(r: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Singular values that fall evenly to 1/κ, κ up to 1e8."""
    U, _, V = np.linalg.svd(r.normal(size=(n, p)), full_matrices=False)
    return U * np.geomspace(1, 10 ** -r.uniform(1, 8), min(n, p)) @ V


KINDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    make.__name__: make
    for make in (
        gaussian, deficient, rounded_deficient, duplicated, nearly_constant, leverage, outlier, far, tiny,
        huge, mixed, spectra, conditioned,
    )
}  # fmt: skip


def splits(r: np.random.Generator, n: int) -> Pairs:
    """Folds, groups, splits that overlap, leave rows out or repeat training rows."""
    rows, how = np.arange(n), r.integers(5)
    if how == 0:
        fold = r.permutation(rows) % min(n, int(r.integers(2, 7)))
        return [(rows[fold != k], rows[fold == k]) for k in range(fold.max() + 1)]
    if how == 1:  # groups
        label = r.integers(0, max(2, n // 3), n)
        label = np.unique(label, return_inverse=True)[1]
        if label.max() == 0:
            label[0] = 1
        fold = label % min(4, int(label.max()) + 1)
        return [(rows[fold != k], rows[fold == k]) for k in range(fold.max() + 1)]
    pairs = []
    for _ in range(int(r.integers(1, 5))):
        order = r.permutation(n)
        held = int(r.integers(1, max(2, n // 2)))
        test, train = order[:held], order[held:]
        if how == 3:
            train = r.choice(train, len(train) + int(r.integers(2)))  # bootstrap
        elif how == 4 and len(train) > 4:
            train = train[: max(3, len(train) - int(r.integers(1, 4)))]
        if len(np.unique(train)) > 1:
            pairs.append((np.sort(train), np.sort(test)))
    return pairs or [(rows[1:], rows[:1])]


def size(r: np.random.Generator, largest: int) -> int:
    """From 3 up, small ones more often."""
    return round(3 * (largest / 3) ** r.random())


def case(seed: int, largest: int = 60) -> Case:
    """One case."""
    r = np.random.default_rng(seed)
    kind = list(KINDS)[int(r.integers(len(KINDS)))]
    n, p = size(r, largest), size(r, largest)
    X = KINDS[kind](r, n, p)
    scale = float(np.abs(X).max())
    y = X / scale @ r.normal(size=p) * r.choice([1.0, 0.0, 100.0]) + r.choice([1.0, 1e-3]) * r.normal(size=n)
    cv = str(r.choice(["folds", "folds", "loo", "loo", "gcv", "evidence"]))
    weights = r.uniform(0.1, 3, n) if r.random() < 0.25 else None
    penalty = None
    if r.random() < 0.25:
        penalty = r.uniform(0.1, 5, p)
        if p > 1 and n > 8 and kind in ("gaussian", "far", "conditioned", "spectra"):
            penalty[int(r.integers(p))] = 0.0
    intercept = str(r.choice(["free", "free", "free", "penalized", "none"]))
    standardize = bool(r.random() < 0.3)
    # As a share of the mean eigenvalue or as they come, from 0 to 1e5.
    unit = 1.0 if standardize else scale
    alphas = np.where(r.random(3) < 0.6, 10 ** r.uniform(-15, 5, 3), 10 ** r.uniform(-3, 1, 3))
    alphas = np.unique(np.where(r.random(3) < 0.15, 0, alphas * unit * unit)) if r.random() < 0.8 or kind in (
        "tiny", "huge",
    ) else np.array([0.0, 1.0, 1e5])  # fmt: skip
    if cv == "evidence":
        alphas = alphas[alphas > 0] if (alphas > 0).any() else np.array([unit * unit])
    return Case(
        kind,
        X,
        y,
        alphas,
        cv,
        splits(r, n) if cv == "folds" else [],
        weights,
        penalty,
        intercept,
        standardize,
    )


@dataclass(frozen=True)
class Outcome:
    """What a case gave: the errors of its scores and what was claimed of them; or why it was refused."""

    case: Case
    errors: np.ndarray
    claims: np.ndarray
    refused: str | None = None


def outcome(case: Case) -> Outcome:
    """Run one case, and its oracle."""
    import weightdecay as wd

    none = np.zeros(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            path = wd.ridge_path(case.X, case.y, case.alphas, unit="sklearn.Ridge", **case.options)
        except wd.InputError as error:
            return Outcome(case, none, none, str(error))
    exact = Exact(case)
    with mpmath.workdps(60):
        right = [exact.score(float(alpha)) for alpha in case.alphas]
        errors = [
            float(abs(mpmath.mpf(float(s)) / one - 1)) for s, one in zip(path.scores, right, strict=True)
        ]
    errors = np.where(torch.isfinite(path.scores).numpy(), np.array(errors), np.inf)
    return Outcome(case, errors, path.precision.numpy())


def outcomes(cases: int, first: int = 0, largest: int = 60) -> Iterator[Outcome]:
    """One after the other, by seed."""
    for seed in range(first, first + cases):
        yield outcome(case(seed, largest))


def table(found: list[Outcome]) -> str:
    """Rows by kind of table and by criterion."""
    lines = [
        f"{'':>20} cases refused scores outside  no digit  median claim  claim/error: least, median, 90 %"
    ]
    for name, of in [
        *((kind, [o for o in found if o.case.kind == kind]) for kind in KINDS),
        *((cv, [o for o in found if o.case.cv == cv]) for cv in ("folds", "loo", "gcv", "evidence")),
        ("all", found),
    ]:
        errors = np.concatenate([o.errors for o in of] or [np.zeros(0)])
        claims = np.concatenate([o.claims for o in of] or [np.zeros(0)])
        if len(errors) == 0:
            continue
        sure = np.isfinite(claims) & np.isfinite(errors)
        ratio = claims[sure] / np.maximum(errors[sure], 2.0**-53)
        shown = np.quantile(ratio, [0, 0.5, 0.9]) if sure.any() else [np.nan] * 3
        lines.append(
            f"{name:>20} {len(of):5} {sum(o.refused is not None for o in of):7} {len(errors):6} "
            f"{int((~(errors <= claims)).sum()):7} {int((~sure).sum()):9} {np.median(claims):13.1e} "
            f"{shown[0]:13.1e} {shown[1]:8.1e} {shown[2]:8.1e}"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table; the exit status says whether all claims held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--largest", type=int, default=60, help="rows and columns at most")
    parser.add_argument("--show", type=int, default=10, help="cases to name that were refused or outside")
    parser.add_argument(
        "--products", action="store_true", help="large tables' routes: no singular values at first"
    )
    given = parser.parse_args()
    if given.products:
        from weightdecay.ridge import path

        path.DIRECT = 0
    torch.set_num_threads(1)
    started, found, shown = time.time(), [], 0
    for seed, one in enumerate(outcomes(given.cases, given.first, given.largest), given.first):
        found.append(one)
        outside = ~(one.errors <= one.claims)
        if (one.refused or outside.any()) and shown < given.show:
            shown += 1
            c = one.case
            where = f"α {c.alphas[outside]}, errors {one.errors[outside]}, claims {one.claims[outside]}"
            options = [f" {k}" for k in ("standardize", "weights", "penalty") if np.any(getattr(c, k))]
            print(
                f"seed {seed}: {c.kind} {c.X.shape} {c.cv} {c.intercept}{''.join(options)}: "
                f"{one.refused or where}",
                flush=True,
            )
    print(table(found))
    print(f"{time.time() - started:.0f} s")
    return int(any((~(one.errors <= one.claims)).any() for one in found))


if __name__ == "__main__":
    sys.exit(main())
