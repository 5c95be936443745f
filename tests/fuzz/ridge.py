"""Random ridge paths against explicit solves: every option, splitter, form of the data and way in.

The oracle solves augmented least squares, [√w Z; √(αf)] b = [√w y; 0], fold by fold in float64, and imports
nothing of the package. Sizes at which an algorithm changes are lowered, so that small tables cross them.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import torch
from sklearn import model_selection

import weightdecay as wd
from weightdecay.ridge import lambdas as lambdas_module
from weightdecay.ridge import moments, problem, record, streaming, tall, wide
from weightdecay.ridge import path as path_module
from weightdecay.ridge import path as paths
from weightdecay.ridge import scores as scores_module
from weightdecay.tables import source

# Sizes at which an algorithm changes, by what changes there, and a value that a small table is beyond.
BOUNDS: dict[str, list[tuple[Any, str, Any]]] = {
    "as they are": [],
    "blocks of columns": [(problem, "BLOCK", 1), (problem, "NARROWEST", 1)],
    "blocks of rows": [(moments, "BLOCK", 1), (moments, "LEAST_ROWS", 3), (source, "ROWS", 5)],
    "many folds": [(moments, "BLOCK", 1), (moments, "LEAST_ROWS", 2), (moments, "SHARED_FOLDS", 1)],
    "some targets at a time": [(moments, "JOINT", 0), (scores_module, "MOST", 1), (wide, "ERRORS", 1)],
    "Lanczos": [(wide, "LEAST_ROWS", 1), (wide, "SHARE", 1), (wide, "MOST_FOLDS", 1000)],
    "Lanczos that gives up": [(wide, "LEAST_ROWS", 1), (wide, "SHARE", 8)],
    "singular values": [(path_module, name, -1.0) for name in ("ENOUGH", "ENOUGH_SINGLE")],
    "products": [
        (path_module, "ENOUGH", 2.0), (path_module, "ENOUGH_SINGLE", 2.0),
        (path_module, "LOST", {"float64": 2.0, "float32": 2.0}),
    ],
    "pivots": [
        (wide, "LONG", 1), (wide, "SMALL", 0), (tall, "LONG", 1), (tall, "SMALL", 0),
        (lambdas_module, "CHUNK", 1), (lambdas_module, "FEW", 2),
    ],
    "rows again": [(scores_module, "AGAIN", 0.0), (scores_module, "FEW", 2.0)],
    "errors at some λ": [(scores_module, "EVERY", 0.0), (scores_module, "SOME", 8)],
    "shards": [(streaming, "SHARD_ROWS", 4), (source, "ROWS", 3)],
    "little is stored": [(record, "LARGEST", 1), (record, "LARGEST_COVARIANCE", 1)],
}  # fmt: skip


@contextmanager
def lowered(bound: str) -> Iterator[None]:
    """Within it, the bounds of this name have their low values."""
    with ExitStack() as stack:
        # Small tables go by singular values at once, past all the others.
        direct = [] if bound == "as they are" else [(paths, "DIRECT", 0)]
        for module, name, value in [*BOUNDS[bound], *direct]:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


@dataclass
class Case:
    """A table, how it is handed over, and how it is fitted.

    Args:
        X, y: float64 arrays (n, p) and (n, t), or (n,) for a single target.
        alphas: the grid in the sum convention, ascending.
        cv: as `ridge_path` takes it.
        pairs: the same as (training rows, test rows), a row as often as it is named; None for a criterion.
        options: of `ridge_path`: intercept, standardize, sample_weight, penalty_factors, shared, groups.
        form: of the data: "tensor", "float32", "numpy", "fortran", "reversed", "big-endian", "read-only",
            "polars", "pandas", "csv", "parquet", "shards".
        bound: a name of BOUNDS.
    """

    X: np.ndarray
    y: np.ndarray
    alphas: np.ndarray
    cv: Any
    pairs: list[tuple[np.ndarray, np.ndarray]] | None
    options: dict[str, Any]
    form: str = "tensor"
    bound: str = "as they are"


def is_text(cv: Any, text: str) -> bool:
    """Whether λ is judged by this criterion; arrays do not compare to a text."""
    return isinstance(cv, str) and cv == text


# The oracle.


def spread(X, w):
    """Weighted standard deviations (1/n); 0 where a column is constant up to rounding."""
    mean = w @ X / w.sum()
    sd = np.sqrt(w @ (X - mean) ** 2 / w.sum())
    return np.where(sd <= 16 * np.finfo(float).eps * np.abs(mean), 0, sd)


def scaled_once(X, w, f, intercept):
    """Columns divided by their standard deviations over all rows, as leave-one-out takes them."""
    sd = spread(X, w)
    kept = (sd == 0) & (f == 0) & (intercept != "free")  # it may serve as an intercept
    return X / np.where(kept, 1, np.where(sd > 0, sd, np.inf))


def solve(X, y, alpha, w, f, intercept="free", standardize=False):
    """Coefficients (p, t) and intercepts (t,) by augmented least squares."""
    A, B, kept, scale, mean, y_mean = augmented(X, y, alpha, w, f, intercept, standardize)
    size = np.linalg.norm(A, axis=0)
    size[size == 0] = 1
    found = np.linalg.lstsq(A / size, B)[0] / size[:, None]
    b, b0 = np.zeros((X.shape[1], y.shape[1])), y_mean
    if intercept == "penalized":
        found, b0 = found[:-1], found[-1]
    b[kept] = found / scale[:, None]
    return b, b0 - mean @ found


def degrees(X, alpha, w, f, intercept="free", standardize=False):
    """The trace of the hat matrix."""
    A = augmented(X, np.zeros((len(X), 1)), alpha, w, f, intercept, standardize)[0]
    if A.shape[1] == 0:
        return float(intercept == "free")
    size = np.linalg.norm(A, axis=0)
    U, d, _ = np.linalg.svd(A / np.where(size > 0, size, 1), full_matrices=False)
    U = U[: len(X), d > len(A) * np.finfo(float).eps * d.max()]
    return (U**2).sum() + (intercept == "free")


def augmented(X, y, alpha, w, f, intercept, standardize):
    """[√w Z; √(αf)] and [√w y; 0], which columns are in Z, their scales, and the means taken out."""
    sd = spread(X, w)
    kept = sd > 0 if standardize or intercept == "free" else np.ones(len(sd), bool)
    if intercept != "free":  # a column without a penalty needs no scale
        kept = kept | (f == 0)
    scale = np.where(sd > 0, sd, 1)[kept] if standardize else np.ones(kept.sum())
    Z, g = X[:, kept] / scale, f[kept]
    mean = w @ Z / w.sum() if intercept == "free" else np.zeros(Z.shape[1])
    y_mean = w @ y / w.sum() if intercept == "free" else np.zeros(y.shape[1])
    Z = Z - mean
    if intercept == "penalized":
        Z, g = np.column_stack([Z, np.ones(len(Z))]), np.append(g, 1.0)
    A = np.concatenate([np.sqrt(w)[:, None] * Z, np.diag(np.sqrt(alpha * g))])
    B = np.concatenate([np.sqrt(w)[:, None] * (y - y_mean), np.zeros((len(g), y.shape[1]))])
    return A, B, kept, scale, mean, y_mean


def determined(X, w, f, train, intercept):
    """Whether the training rows determine the unpenalised part as all rows do."""
    free = f == 0
    if intercept == "free":  # beside it a constant column has nothing to say
        free &= spread(X, w) > 0
    N = X[:, free]
    if intercept == "free":
        N = np.column_stack([np.ones(len(N)), N])
    size = np.linalg.norm(N, axis=0)
    N = N[:, size > 0] / size[size > 0]
    if N.shape[1] == 0:
        return True

    def rank(M):
        return np.linalg.matrix_rank(M, tol=1e-10 * len(M) ** 0.5)

    return rank(N[train]) == rank(N)


@dataclass
class Expected:
    """What the definitions give at every α: scores (L, t), standard errors, dof (L,)."""

    scores: np.ndarray
    errors: np.ndarray
    dof: np.ndarray
    w: np.ndarray
    f: np.ndarray
    rows: np.ndarray
    pairs: Any
    variance: np.ndarray


def settled(case: Case):
    """Rows of positive weight, their weights of mean 1, factors, and the splits of those rows."""
    n, p = case.X.shape
    weights = case.options.get("sample_weight")
    w = np.ones(n) if weights is None else np.asarray(weights, float)
    rows = np.flatnonzero(w > 0)
    place = np.full(n, -1)
    place[rows] = np.arange(len(rows))
    w = w[rows] / w[rows].mean()
    factors = case.options.get("penalty_factors")
    f = np.ones(p) if factors is None else np.asarray(factors, float)
    pairs = case.pairs
    if is_text(case.cv, "loo"):
        pairs = [(np.delete(np.arange(n), i), np.array([i])) for i in rows]
    if pairs is not None:
        kept = [(place[train], place[test]) for train, test in pairs]
        kept = [(train[train >= 0], test[test >= 0]) for train, test in kept]
        pairs = [(train, test) for train, test in kept if len(train) and len(test)]
    return rows, w, f, pairs


def expected(case: Case) -> Expected:
    """Scores, their standard errors and degrees of freedom by the definitions."""
    rows, w, f, pairs = settled(case)
    X, y = case.X[rows], case.y.reshape(len(case.X), -1)[rows]
    intercept = case.options.get("intercept", "free")
    standardize = case.options.get("standardize", False)
    varies = np.ptp(y, axis=0) > 0
    variance = np.where(varies, w @ (y - w @ y / w.sum()) ** 2 / w.sum(), 0)
    n, (L, t) = len(X), (len(case.alphas), y.shape[1])
    options = {"intercept": intercept, "standardize": standardize}
    dof = np.array([degrees(X, alpha, w, f, **options) for alpha in case.alphas])
    scores, errors = np.zeros((L, t)), np.zeros((L, t))
    if is_text(case.cv, "gcv"):
        all_rows = [solve(X, y, alpha, w, f, **options) for alpha in case.alphas]
        rss = np.stack([w @ (y - X @ b - b0) ** 2 for b, b0 in all_rows])
        scores = rss / n / (1 - dof[:, None] / n) ** 2
        errors = scores * np.sqrt(2 / n)
    elif pairs is not None:
        if is_text(case.cv, "loo") and standardize:  # the scales are those of all rows
            X, options["standardize"] = scaled_once(X, w, f, intercept), False
        q = np.zeros((len(pairs), L, t))
        for k, (train, test) in enumerate(pairs):
            for a, alpha in enumerate(case.alphas):
                b, b0 = solve(X[train], y[train], alpha, w[train], f, **options)
                q[k, a] = w[test] @ (y[test] - X[test] @ b - b0) ** 2
        mass = np.array([w[test].sum() for _, test in pairs])
        scores = q.sum(0) / mass.sum()
        each = q / mass[:, None, None]
        if is_leave_one_out(case):
            each = q
        K = len(pairs)
        errors = deviation(each) / K**0.5 if K > 1 else errors
        if case.options.get("shared"):
            one = (each[:, :, varies] / variance[varies]).mean(2)
            errors = deviation(one)[:, None] / K**0.5 if K > 1 else errors[:, :1]
    scores[:, ~varies & (intercept == "free")] = 0
    if errors.shape[1] == t:
        errors[:, ~varies & (intercept == "free")] = 0
    if case.options.get("shared") and not is_text(case.cv, "evidence"):
        scores = (scores[:, varies] / variance[varies]).mean(1, keepdims=True)
    return Expected(scores, errors, dof, w, f, rows, pairs, variance)


def deviation(values):
    """The standard deviation over the first axis, whatever the scale."""
    size = np.abs(values).max() or 1.0
    return (values / size).std(0, ddof=1) * size


def is_leave_one_out(case: Case) -> bool:
    """Whether every row is held out once, by itself, by all others, on one scale."""
    if is_text(case.cv, "loo"):
        return True
    n = len(case.X)
    each = case.pairs is not None and len(case.pairs) == n
    each = each and all(len(test) == 1 and len(np.unique(train)) == n - 1 for train, test in case.pairs)
    each = each and len(np.unique(np.concatenate([test for _, test in case.pairs]))) == n
    return each and not case.options.get("standardize", False)


# The package.


def handed_over(case: Case, folder: Path) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """The data in their form, and the options."""
    X, y, options = case.X, case.y, dict(case.options)
    if case.form in FILES:
        names = [f"x{j}" for j in range(X.shape[1])]
        targets = ["y"] if y.ndim == 1 else [f"y{k}" for k in range(y.shape[1])]
        frame = pl.DataFrame(np.column_stack([X, y]), schema=[*names, *targets])
        if options.get("sample_weight") is not None:
            frame = frame.with_columns(w=pl.Series(options["sample_weight"]))
            options["sample_weight"] = "w"
        where = folder / f"t.{case.form}"
        if case.form == "csv":
            frame.write_csv(where)
        elif case.form == "parquet":
            frame.write_parquet(where, row_group_size=4)
        else:
            where = folder / "shards"
            where.mkdir()
            for k, first in enumerate(range(0, len(X), 7)):
                frame[first : first + 7].write_parquet(where / f"part-{k:03}.parquet")
        options["number"] = names  # constant columns and counts are left out of files otherwise
        return (str(where), targets[0] if y.ndim == 1 else targets), options
    if case.form in ("tensor", "float32"):
        dtype = torch.float32 if case.form == "float32" else torch.float64
        return (torch.tensor(X, dtype=dtype), torch.tensor(y)), options
    if case.form == "polars":
        frame = pl.DataFrame(X, schema=[f"x{j}" for j in range(X.shape[1])])
        return (frame, pl.Series("y", y) if y.ndim == 1 else y), {**options, "number": frame.columns}
    if case.form == "pandas":
        frame = pd.DataFrame(X).rename(columns=str)
        return (frame, y), {**options, "number": [*frame.columns]}
    if case.form == "fortran":
        X = np.asfortranarray(X)
    elif case.form == "reversed":
        X, y = X[::-1].copy()[::-1], y[::-1].copy()[::-1]
    elif case.form == "big-endian":
        X, y = X.astype(">f8"), y.astype(">f8")
    elif case.form == "read-only":
        X.flags.writeable = False
    return (X, y), options


def fitted(case: Case, lambdas: Any = "given") -> wd.RidgePath:
    """The path of a case; a file is gone afterwards, but its path may read it again before."""
    with tempfile.TemporaryDirectory() as folder:
        return _fitted(case, Path(folder), lambdas)


def _fitted(case: Case, folder: Path, lambdas: Any = "given") -> wd.RidgePath:
    data, options = handed_over(case, folder)
    grid = case.alphas if isinstance(lambdas, str) else lambdas
    return wd.ridge_path(*data, grid, cv=case.cv, unit="sklearn.Ridge", **options)


def wrong(case: Case) -> str | None:
    """What is wrong with the path of a case, in words; None where all agrees."""
    rows, w, f, pairs = settled(case)
    intercept = case.options.get("intercept", "free")
    X = case.X[rows]
    undetermined = not all(determined(X, w, f, train, intercept) for train, _ in pairs or ())
    free = int((f == 0).sum()) + (intercept == "free")
    with tempfile.TemporaryDirectory() as folder, lowered(case.bound):
        try:
            path = _fitted(case, Path(folder))
        except wd.InputError as error:
            fair = undetermined or free >= len(rows) or (pairs is not None and not pairs)
            fair |= case.form == "float32" and "float32" in str(error)
            fair |= case.form in FILES and pairs is not None and len(pairs) < len(case.pairs or pairs)
            return None if fair else f"refused: {error}"
        if undetermined:
            return "an answer where a split does not determine the unpenalised part"
        return _differs(case, path, expected(case))


def _differs(case: Case, path: wd.RidgePath, right: Expected) -> str | None:
    L = len(case.alphas)
    single = case.y.ndim == 1
    shared = bool(case.options.get("shared"))
    X, y = case.X[right.rows], case.y.reshape(len(case.X), -1)[right.rows]
    found = path.scores.reshape(L, -1).numpy()
    coarse = 2e-3 if case.form == "float32" else 1e-8
    allowed = np.maximum(coarse, 3 * path.precision.numpy())[:, None]
    size = right.variance * (1e-13 if case.form != "float32" else 1e-5) + 1e-290
    varies = right.variance > 0
    if not is_text(case.cv, "evidence"):
        scaled = found
        if shared:
            scaled = (found[:, varies] / right.variance[varies]).mean(1, keepdims=True)
            size = np.array([1e-13 if case.form != "float32" else 1e-5])
        off = np.abs(scaled - right.scores) - allowed * right.scores - size
        if not (off <= 0).all():
            a, k = np.unravel_index(np.nanargmax(np.where(np.isnan(off), np.inf, off)), off.shape)
            at = f"at α {case.alphas[a]:.3g} ({path.route})"
            return f"score {scaled[a, k]:.12g} for {right.scores[a, k]:.12g} {at}"
        if not shared and path.errors is not None:
            loose = 0.3 if case.bound == "errors at some λ" else 10 * allowed + 1e-6
            error = path.errors.reshape(L, -1).numpy()
            off = np.abs(error - right.errors) - loose * (right.errors + right.scores) - 10 * size
            if not (off <= 0).all():
                a, k = np.unravel_index(off.argmax(), off.shape)
                return f"standard error {error[a, k]:.10g} for {right.errors[a, k]:.10g} ({path.route})"
        if not is_text(case.cv, "gcv") and case.bound != "errors at some λ":
            chosen = _choice(case, path, right, scaled, allowed)
            if chosen:
                return chosen
    off = np.abs(path.dof.numpy() - right.dof) - right.dof * (
        1e-3 if case.form == "float32" else 1e-5 + 1e3 * path.precision.numpy()
    )
    if not (off <= 0).all():
        return f"dof {path.dof.numpy()[off.argmax()]:.10g} for {right.dof[off.argmax()]:.10g}"
    return _solutions(case, path, right, X, y, single)


def _choice(case, path, right, scaled, allowed) -> str | None:
    """best is as good as the least, none stronger is as good; one_se is the strongest within one error."""
    grid = path.alphas.numpy()
    best = np.atleast_1d(np.asarray(path.best, dtype=float))
    for k, lam in enumerate(best):
        place = int(np.abs(grid - lam).argmin())
        scores, slack = (
            right.scores[:, k],
            allowed[:, 0] * right.scores[:, k] + 1e-13 * (right.scores[:, k].max()),
        )
        if scores[place] - scores.min() > 2 * slack.max() + slack[place]:
            return f"best α {lam:.4g} scores {scores[place]:.10g}, the least is {scores.min():.10g}"
        errors = right.errors[:, k if right.errors.shape[1] > 1 else 0]
        one = float(np.atleast_1d(np.asarray(path.one_se, dtype=float))[k])
        bound = scores[place] + errors[place]
        margin = 20 * slack + 1e-5 * (errors[place] + scores[place])
        sure = np.flatnonzero(scores <= bound - margin)
        maybe = np.flatnonzero(scores <= bound + margin)
        at = int(np.abs(grid - one).argmin())
        if not (max(sure.max() if len(sure) else place, 0) <= at <= maybe.max()):
            return f"one standard error: α {one:.4g}, should be {grid[maybe.max()]:.4g}"
    return None


def _solutions(case, path, right, X, y, single) -> str | None:
    """Coefficients, intercepts and predictions out of fold at the best λ and at the middle of the grid."""
    options = {name: case.options[name] for name in ("intercept", "standardize") if name in case.options}
    coarse = 1e-2 if case.form == "float32" else 1e-7
    for lam in (path.best, float(path.lambdas[len(path.lambdas) // 2])):
        alphas = np.broadcast_to(np.atleast_1d(np.asarray(lam, dtype=float)), y.shape[1:])
        places = [int(np.abs(path.alphas.numpy() - alpha).argmin()) for alpha in alphas]
        loose = max(coarse, *(1e3 * float(path.precision[place]) for place in places))
        b, b0 = path.coef(lam).reshape(X.shape[1], -1).numpy(), path.intercept(lam).reshape(-1).numpy()
        for k, alpha in enumerate(alphas):
            one = y[:, k : k + 1]
            c, c0 = solve(X, one, alpha, right.w, right.f, **options)
            size = np.abs(X).max() * np.abs(c).sum() + np.abs(c0).max() + np.abs(one).max()
            off = np.abs(X @ b[:, k] + b0[k] - X @ c[:, 0] - c0[0]).max()
            if not off <= loose * size:
                return f"fitted values are off by {off:.3g} of {size:.3g} at α {alpha:.3g} ({path.route})"
        if right.pairs is None:
            continue
        mine = path.out_of_fold(lam).reshape(-1, y.shape[1]).numpy()
        if len(mine) != len(X):
            mine = mine[right.rows]
        Z, scaled = X, dict(options)
        if is_text(case.cv, "loo") and options.get("standardize"):
            intercept = options.get("intercept", "free")
            Z, scaled["standardize"] = scaled_once(X, right.w, right.f, intercept), False
        total, count = np.zeros_like(y), np.zeros(len(y))
        for train, test in right.pairs:
            once = np.unique(test)
            count[once] += 1
            for k, alpha in enumerate(alphas):
                c, c0 = solve(Z[train], y[train, k : k + 1], alpha, right.w[train], right.f, **scaled)
                total[once, k] += (Z[once] @ c + c0)[:, 0]
        seen = count > 0
        if not (np.isnan(mine[~seen]).all() and np.isfinite(mine[seen]).all()):
            return "predictions out of fold: rows that no split holds out are not NaN, or others are"
        off = np.abs(mine[seen] - total[seen] / count[seen, None])
        size = np.abs(y).max() + np.abs(mine[seen]).max()
        if not (off <= loose * size).all():
            return f"predictions out of fold are off by {off.max():.3g} of {size:.3g} ({path.route})"
    return None


# The draw.

FILES = ("csv", "parquet", "shards")
FORMS = (
    *["tensor"] * 6, "float32", "numpy", "fortran", "reversed", "big-endian", "read-only", "polars", "pandas",
    "csv", "parquet", "shards",
)  # fmt: skip


def drawn(seed: int) -> Case:
    """A case from its seed."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 10)) if rng.random() < 0.25 else int(rng.integers(8, 40))
    p = int(rng.choice([1, 2, 3, 5, 8, 13, 25, 50, 90]))
    X = rng.normal(size=(n, p)) + rng.choice([0, 1, 30])
    kind = rng.random()
    if kind < 0.15:
        rank = int(rng.integers(1, 6))
        X = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, p)) + rng.choice([0, 2])
    elif kind < 0.3:
        X = rng.integers(-2, 3, size=(n, p)).astype(float)
    elif kind < 0.4:
        X = X * 10 ** rng.uniform(-3, 3, size=p)
    scaled = rng.random() < 0.08
    if scaled:
        X = X * 10.0 ** rng.choice([-140, -60, -8, 8, 60, 140])
    if p > 1 and rng.random() < 0.15:
        X[:, int(rng.integers(p))] = rng.choice([0.0, 1.0, 0.1])
    if p > 2 and rng.random() < 0.15:
        X[:, 1] = X[:, 0]
    if rng.random() < 0.1:  # constant up to rounding
        X[:, -1] = rng.choice([0.1, -3e5]) * (1 + np.finfo(float).eps * rng.integers(-2, 3, size=n))
    t = rng.choice([0, 0, 0, 1, 2, 5])
    signal = X[:, :3].sum(1) - X[:, :3].sum(1).mean()
    target = rng.normal() + (signal / signal.std() if signal.std() > 1e-9 * np.abs(X).max() else 0)
    target = target + rng.choice([0.1, 1.0]) * rng.normal(size=n)
    y = target if t == 0 else target[:, None] * rng.normal(size=t) + rng.normal(size=(n, t))
    if n > 3 and rng.random() < 0.1:
        y = y * 10.0 ** rng.choice([-140, -60, 60, 140])
    if t > 1 and rng.random() < 0.1:
        y[:, 0] = rng.choice([0.0, 0.1])
    intercepts = ["free", "free", "free", "none", "penalized"]  # a penalised one has a scale of its own: 1
    options: dict[str, Any] = {
        "intercept": str(rng.choice(intercepts[:4] if scaled else intercepts)),
        "standardize": bool(rng.random() < 0.4),
    }
    if rng.random() < 0.35:
        w = rng.uniform(0.1, 3, size=n)
        if rng.random() < 0.4:
            w[rng.random(n) < 0.3] = 0
        if (w > 0).sum() < 3:
            w = w + 1
        options["sample_weight"] = w
    if rng.random() < 0.35:
        f = rng.uniform(0.2, 4, size=p)
        if rng.random() < 0.6 and p > 1:
            most = p if rng.random() < 0.1 else min(p, 4)
            f[rng.choice(p, size=int(rng.integers(1, most)), replace=False)] = 0
        if f.any():
            options["penalty_factors"] = f
    if t > 1 and rng.random() < 0.4:
        options["shared"] = True
    form = str(rng.choice(FORMS))
    form = "tensor" if scaled and form == "float32" else form
    cv, pairs = _scheme(rng, n, form, options)
    sd = X.std(0)
    size = float(n * (1.0 if options["standardize"] else (sd[sd > 0] ** 2).mean() if (sd > 0).any() else 1.0))
    low, high = (-2, 3) if form == "float32" else sorted(rng.uniform(-6, 3, size=2))
    alphas = size * np.logspace(low, high, int(rng.choice([1, 3, 7, 12, 40])))
    bound = str(rng.choice(list(BOUNDS)))
    return Case(X, y, np.unique(alphas), cv, pairs, options, form, bound)


def _scheme(rng, n: int, form: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """How λ is judged, and the pairs of rows that it means."""
    K = int(rng.integers(2, min(n, 8) + 1)) if rng.random() < 0.9 else n
    seed = int(rng.integers(1000))
    choices = ["int", "int", "loo", "gcv"]
    if form not in FILES:
        choices += [
            "numbers", "groups", "LeaveOneOut", "KFold", "repeated", "shuffle", "time", "pairs", "bootstrap",
            "overlap", "twice", "half",
        ]  # fmt: skip
    kind = str(rng.choice(choices))
    every = np.arange(n)
    if kind in ("loo", "gcv"):
        return kind, None
    if kind in ("int", "groups"):
        from weightdecay.ridge.folds import splits

        options["seed"] = seed
        if kind == "groups":
            labels = rng.integers(0, K + 2, size=n)
            labels[:K] = np.arange(K)
            options["groups"] = labels
        scheme = splits(K, n, seed, options.get("groups")).scheme
        fold = every if isinstance(scheme, str) else scheme.numpy()
        return K, [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(fold.max() + 1)]
    if kind == "numbers":
        fold = rng.permutation(np.arange(n) % K)
        return fold * 3 + 1, [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(K)]
    splitters = {
        "LeaveOneOut": model_selection.LeaveOneOut(),
        "KFold": model_selection.KFold(K, shuffle=True, random_state=seed),
        "repeated": model_selection.RepeatedKFold(n_splits=min(K, 3), n_repeats=2, random_state=seed),
        "shuffle": model_selection.ShuffleSplit(3, test_size=0.3, random_state=seed),
        "time": model_selection.TimeSeriesSplit(min(K, n - 1, 3)),
    }
    if kind in splitters:
        return splitters[kind], list(splitters[kind].split(every))
    pairs = []
    for _ in range(int(rng.integers(1, 4))):
        mixed = rng.permutation(n)
        cut = int(rng.integers(1, n))
        train, test = mixed[:cut], mixed[cut:]
        if kind == "bootstrap":
            train = rng.choice(n, size=n)
            test = np.setdiff1d(every, train)
            if rng.random() < 0.5:  # as many names as there are rows, and yet no partition
                train = rng.choice(train, size=n - len(test)) if len(test) < n else train
        elif kind == "overlap":
            test = test[: int(rng.integers(1, len(test) + 1))]
        elif kind == "twice":
            test = rng.choice(test, size=len(test) + 1)
        elif kind == "half":
            train = train[: max(1, len(train) // 2)]
        if len(test) and len(train):
            pairs.append((train, test))
    if not pairs:
        pairs = [(every[: n // 2], every[n // 2 :])]
    return [(train.copy(), test.copy()) for train, test in pairs], pairs


def case(seed: int) -> str | None:
    """What is wrong with the random path of a seed, or None."""
    drawn_case = drawn(seed)
    found = wrong(drawn_case)
    return None if found is None else f"{found}  [{described(drawn_case)}]"


def described(case: Case) -> str:
    """A case in a line."""
    options = {name: "…" if np.ndim(value) else value for name, value in case.options.items()}
    cv = case.cv if isinstance(case.cv, int | str) else type(case.cv).__name__
    return f"{case.X.shape} t={case.y.shape[1:]} {case.form} cv={cv} {options} {case.bound}"
