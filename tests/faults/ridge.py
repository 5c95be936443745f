"""Ridge paths: folds, splits, ties, scales and habits, each beside an explicit solve in NumPy."""

import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
from sklearn.model_selection import LeaveOneOut
from tests.faults.rows import row

import weightdecay as wd


def table(n, p, seed=0, targets=None):
    """Gaussian inputs and a target that three of them make."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 1
    shape = n if targets is None else (n, targets)
    y = rng.normal(size=shape)
    return X, y + (X[:, :3].sum(1) if targets is None else X[:, :3].sum(1)[:, None])


def solve(X, y, alpha, factors=None):
    """Coefficients and intercept by the normal equations of the centred rows, or their dual."""
    m, c = X.mean(0), y.mean(0)
    Z, f = X - m, np.ones(X.shape[1]) if factors is None else np.asarray(factors)
    if Z.shape[1] <= len(Z):
        b = np.linalg.solve(Z.T @ Z + alpha * np.diag(f), Z.T @ (y - c))
    else:
        b = Z.T @ np.linalg.solve(Z @ Z.T + alpha * np.eye(len(Z)), y - c)
    return b, c - m @ b


def score(X, y, alpha, pairs, standardize=False):
    """The mean squared error of all held-out rows, fold by fold, rows as often as they are named."""
    squares, count = 0.0, 0
    for train, test in pairs:
        sd = X[train].std(0) if standardize else np.ones(X.shape[1])
        b, b0 = solve(X[train] / sd, y[train], alpha)
        squares, count = squares + ((y[test] - X[test] / sd @ b - b0) ** 2).sum(), count + len(test)
    return squares / count


def of_folds(fold):
    """The pairs of a fold for each row."""
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(fold.max() + 1)]


def close(found, right, rtol=1e-9):
    """Both as a text, and whether they agree."""
    return f"{found:.10g} for {right:.10g}", bool(abs(found - right) <= rtol * abs(right))


@row("29", "K folds, standardized, 400 × 1000", "the explicit folds")
def wide_folds():
    X, y = table(400, 1000)
    fold = np.arange(400) % 3
    path = wd.ridge_path(X, y, [1.0, 100.0], cv=of_folds(fold), unit="sklearn.Ridge", standardize=True)
    return close(float(path.scores[1]), score(X, y, 100.0, of_folds(fold), standardize=True))


@row("29", "five folds, standardized, 48 × 7000", "the explicit folds")
def wide_splits():
    X, y = table(48, 7000)
    pairs = of_folds(np.arange(48) % 5)
    path = wd.ridge_path(X, y, [50.0], cv=pairs, unit="sklearn.Ridge", standardize=True)
    return close(float(path.scores[0]), score(X, y, 50.0, pairs, standardize=True))


@row("20", "bootstrap pairs whose lengths add up to n", "the rows as given")
def bootstrap():
    X, y = table(12, 3)
    pairs = [(np.array([0, 0, 1, 2, 3, 4, 5, 5]), np.array([8, 9, 10, 11]))]  # rows 6 and 7: nobody's
    pairs.append((np.array([8, 8, 9, 10]), np.array([0, 1, 2, 3, 4, 5, 6, 7])))
    path = wd.ridge_path(X, y, [2.0], cv=pairs, unit="sklearn.Ridge")
    return close(float(path.scores[0]), score(X, y, 2.0, pairs))


@row("20", "a row trained on twice, n ≤ p", "it counts twice")
def twice():
    X, y = table(10, 30)
    pairs = [(np.array([0, 0, 0, 1, 2, 3]), np.arange(4, 10)), (np.array([4, 4, 5, 6, 7]), np.array([0, 1]))]
    path = wd.ridge_path(X, y, [2.0], cv=pairs, unit="sklearn.Ridge")
    return close(float(path.scores[0]), score(X, y, 2.0, pairs))


@row("20", "Lanczos, a row in two held-out sets", "the mean of its predictions")
def lanczos():
    from weightdecay.ridge import wide

    X, y = table(40, 60)
    pairs = [(np.arange(20), np.arange(20, 40)), (np.arange(10, 30), np.arange(30, 40))]
    with (
        mock.patch.object(wide, "LEAST_ROWS", 1),
        mock.patch.object(wide.ByFolds, "most", property(lambda _: 40)),
    ):
        path = wd.ridge_path(X, y, [100.0], cv=pairs, unit="sklearn.Ridge")
        found = path.out_of_fold().numpy()[35]
    fits = [solve(X[train], y[train], 100.0) for train, _ in pairs]
    return close(float(found), float(np.mean([X[35] @ b + b0 for b, b0 in fits])))


@row("26", "shared=True, leave-one-out, 25 targets", "sd over rows of the targets' mean, and its one-SE λ")
def shared():
    X, y = table(60, 10, targets=25)
    grid = np.logspace(0, 4, 40)
    path = wd.ridge_path(X, y, grid, cv="loo", unit="sklearn.Ridge", shared=True)
    q = np.empty((len(grid), 60))
    Z = X - X.mean(0)
    for a, alpha in enumerate(grid):
        H = Z @ np.linalg.solve(Z.T @ Z + alpha * np.eye(10), Z.T) + 1 / 60
        e = (y - H @ y) / (1 - H.diagonal())[:, None]
        q[a] = (e**2 / y.var(0)).mean(1)
    best = q.mean(1).argmin()
    near = q.mean(1) <= q[best].mean() + q[best].std(ddof=1) / 60**0.5
    return close(float(path.one_se), grid[np.flatnonzero(near).max()])


@row("24", "cv=n", "leave-one-out, at its cost")
def every_row_a_fold():
    X, y = table(300, 40)
    times, paths = [], []
    for cv in (LeaveOneOut(), 300):
        start = time.perf_counter()
        paths.append(wd.ridge_path(X, y, cv=cv))
        times.append(time.perf_counter() - start)
    same = bool((paths[0].scores == paths[1].scores).all() and (paths[0].errors == paths[1].errors).all())
    return f"same answer: {same}, {times[1] / times[0]:.1f} times the cost", same and times[1] < 5 * times[0]


@row("25", "all columns constant", "the strongest λ of the grid, whatever the route")
def nothing_to_choose():
    rng = np.random.default_rng(0)
    found = []
    for n, p in ((30, 4), (30, 50)):
        path = wd.ridge_path(np.full((n, p), 0.1), rng.normal(size=n))
        found.append(float(path.best) == float(path.lambdas[-1]))
    return f"strongest: {found}", all(found)


@row("25", "a target without noise: memory, one file, shards", "one λ and one grid")
def one_choice():
    X, _ = table(90, 5)
    y = X @ np.arange(1.0, 6.0)
    frame = pl.DataFrame(X, schema=list("abcde")).with_columns(y=y)
    paths = [wd.ridge_path(frame.drop("y"), frame["y"], cv=5)]
    with tempfile.TemporaryDirectory() as folder:
        frame.write_parquet(Path(folder) / "one.parquet")
        paths.append(wd.ridge_path(f"{folder}/one.parquet", "y", cv=5))
        shards = Path(folder) / "shards"
        shards.mkdir()
        for k in range(3):
            frame[30 * k : 30 * k + 30].write_parquet(shards / f"{k}.parquet")
        paths.append(wd.ridge_path(str(shards), "y", cv=5))
    found = [(len(path.lambdas), f"{float(path.best):.6g}") for path in paths]
    return str(found), len(set(found)) == 1


@row("21", "a column constant up to rounding, n ≤ p, standardized", "coefficient 0, and said")
def nearly_constant():
    X, y = table(20, 40)
    X[:, 7] = 0.1 * (1 + np.finfo(float).eps * np.random.default_rng(1).integers(-1, 2, size=20))
    path = wd.ridge_path(X, y, [1.0], cv="loo", standardize=True)
    largest = float(path.coef()[7].abs())
    return f"coefficient {largest:.3g}, still {path.still}", largest == 0 and path.still == [7]


@row("23", "a descending NumPy grid", "the ascending one's path")
def descending():
    X, y = table(20, 4)
    grid = np.logspace(-3, 3, 7)
    path = wd.ridge_path(X, y, grid[::-1], cv="loo")
    return close(float(path.best), float(wd.ridge_path(X, y, grid, cv="loo").best), 0)


@row("23", "as many free columns as rows", "one refusal everywhere")
def all_free():
    found = []
    for n, p, free, cv in (
        (8, 7, 6, "loo"),
        (8, 9, 8, "loo"),
        (8, 20, 8, 4),
        (8, 7, 7, 4),
        (8, 20, 7, "gcv"),
    ):
        X, y = table(n, p + (p == free))
        factors = [0.0] * free + [1.0] * (X.shape[1] - free)
        try:
            wd.ridge_path(X, y, [1.0], cv=cv, penalty_factors=factors)
            found.append("answered")
        except wd.InputError as error:
            found.append("unpenalised" if "unpenalised" in str(error) else str(error))
    return str(found), found[0] in ("answered", "unpenalised") and set(found[1:]) == {"unpenalised"}


@row("23", "y of 1e-200, X of 1e-165", "refused for what it is")
def too_small():
    X, y = table(20, 10)
    found = []
    for inputs, target in ((X, y * 1e-200), (X * 1e-165, y), (X[:, :4] * 1e-165, y)):
        try:
            path = wd.ridge_path(inputs, target, cv="loo", standardize=True)
            found.append(f"best {path.best}, still {path.still}")
        except wd.InputError as error:
            found.append("squares" if "squares" in str(error) else str(error))
    return str(found), set(found) == {"squares"}


@row("23", "X and y of 1e-150 and 1e150", "the path of 1, in their units")
def extreme_scales():
    X, y = table(30, 5)
    right = wd.ridge_path(X, y, [1.0, 10.0], cv="loo", unit="sklearn.Ridge")
    worst = 0.0
    for size in (1e-149, 1e149):
        path = wd.ridge_path(X, y * size, [1.0, 10.0], cv="loo", unit="sklearn.Ridge")
        for mine, other in (
            (path.scores / size / size, right.scores),
            (path.errors / size / size, right.errors),
        ):
            worst = max(worst, float((mine / other - 1).abs().max()))
        path = wd.ridge_path(X * size, y, np.array([1.0, 10.0]) * size * size, cv="loo", unit="sklearn.Ridge")
        worst = max(worst, float((path.scores / right.scores - 1).abs().max()))
    return f"relative error {worst:.1e}", worst < 1e-9


@row("29c", "cv=None and cv='5'", "five folds")
def habits():
    X, y = table(20, 4)
    texts = {wd.ridge_path(X, y, [1.0], cv=cv).cv for cv in (None, "5", 5)}
    return str(texts), len(texts) == 1


@row("29c", "one constant target among several", "coefficients 0, its value; the others as alone")
def one_constant():
    X, y = table(20, 4, targets=3)
    y[:, 1] = 0.1
    path = wd.ridge_path(X, y, [1.0, 10.0], cv="loo", unit="sklearn.Ridge")
    alone = wd.ridge_path(X, y[:, 2], [1.0, 10.0], cv="loo", unit="sklearn.Ridge")
    same = float(path.best[2]) == float(alone.best) and bool(
        (path.scores[:, 2] - alone.scores).abs().max() < 1e-12
    )
    flat = float(path.coef()[:, 1].abs().max()) == 0 and abs(float(path.intercept()[1]) - 0.1) < 1e-15
    return f"others as alone: {same}, its own flat: {flat}", same and flat


@row("29c", "generalised CV where dof exceed 95 % of the rows", "the path says which λ were left out")
def left_out_of_gcv():
    X, y = table(12, 40)
    path = wd.ridge_path(X, y, np.logspace(-8, 2, 11), cv="gcv")
    said = [note for note in path.notes if "95%" in note]
    return str(said), len(said) == 1


@row("29c", "a LazyFrame", "its rows")
def lazy():
    X, y = table(20, 3)
    frame = pl.DataFrame(X, schema=["a", "b", "c"])
    found = wd.ridge_path(frame.lazy(), y, [1.0], cv="loo").scores
    return close(float(found[0]), float(wd.ridge_path(frame, y, [1.0], cv="loo").scores[0]), 0)
