"""The front door: data in, the whole regularisation path out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.memory import require
from weightdecay.ridge.by_folds import by_folds, folds_alone
from weightdecay.ridge.by_rows import by_products, by_singular_values, check_determined, splits_of
from weightdecay.ridge.columns import Intercept, Problem, target_variance
from weightdecay.ridge.data import Given, all_finite, checked, collected
from weightdecay.ridge.folds import Splits, as_given, splits
from weightdecay.ridge.from_files import path_of_file
from weightdecay.ridge.judge import SMALL, Job, path_of
from weightdecay.ridge.leaks import leak
from weightdecay.ridge.linalg import one_pool
from weightdecay.ridge.record import RidgePath
from weightdecay.ridge.route import Route, Scheme
from weightdecay.ridge.strength import strength
from weightdecay.ridge.tall import tall

DIRECT = 1e7  # multiplications below which singular values, which keep the most digits, cost nothing
COPIES = 6  # of the inputs, for their singular values


def ridge_path(
    X: Any,
    y: Any,
    lambdas: Any = None,
    *,
    cv: Any = 5,
    unit: str = "canonical",
    seed: int = 0,
    groups: Any = None,
    sample_weight: Any = None,
    penalty_factors: Any = None,
    intercept: Intercept = "free",
    standardize: bool = False,
    shared: bool = False,
    drop: Sequence[str] = (),
    engine: Any = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> RidgePath:
    """The whole path of ridge regression, judged: which λ is best, and the models for all of them.

    Args:
        X: inputs (n, p): tensor, array, a pandas or polars DataFrame, a pyarrow Table, or a LazyFrame, which
            is collected; or a .csv or .parquet file or a folder of such shards, which is read in blocks; then
            y, `drop` and `sample_weight` name columns.
        y: target (n,), or targets (n, t).
        lambdas: the grid, in `unit`; by default one that suits the data, widened until the least score has
            half a decade on both sides, or is at a true edge.
        cv: a number of folds, "loo", "gcv", "evidence", an object with scikit-learn's `split`, or pairs
            (training rows, test rows), or a fold for each row (n,). As many folds as rows are leave-one-out;
            a row counts as often as a pair names it; None is 5.
        unit: the convention of λ, a name of `wd.conventions()`.
        seed: shuffles the folds.
        groups: a label for each row (n,): rows of one label are held out together.
        sample_weight: a weight for each row (n,), made to have mean 1; rows of weight 0 take no part.
        penalty_factors: f, a multiple of the penalty for each column (p,), or some by name; 0: not penalised.
        intercept: "free" of the penalty, "penalized" like a column of ones, or "none".
        standardize: divide each column by its standard deviation over the rows that are fitted, inside every
            fold; coefficients come back on the original scale. Leave-one-out, generalised CV and the evidence
            take the standard deviations of all rows.
        drop: columns of a file to leave out.
        engine: who reads a file: None this process, "dask" workers on this machine, "tcp://host:port" or a
            `distributed.Client` those of a scheduler; with TLS a client that has certificates.
        on_progress: called with the rows of a file that are read, and how many there are or None.
        shared: choose one λ for all targets, by the mean of their scores in units of each one's variance.
            A constant target takes no part in it, and has coefficients of 0.

    Equation: min over (b, b0) of  Σ_i w_i (y_i − b0 − x_i·b)² + α Σ_j f_j b_j².

    Convention: canonical λ belongs to 1/(2n) Σ w (…)² + λ/2 Σ f b², so α = nλ. **α is the same in every
    fold,** in leave-one-out and in the final fit: the best α is σ²/τ², noise over prior variance, whatever
    the number of rows. scikit-learn's alpha is α (`unit="sklearn.Ridge"`).

    Returns:
        A `RidgePath`.

    Raises:
        InputError: data, folds or strengths that cannot be used, or more memory than there is.

    Warns:
        WeightDecayWarning: the curve is flat, the least score is at an edge, digits are lost, or a column is
            the target itself.

    >>> generator = torch.Generator().manual_seed(0)
    >>> X = torch.randn(30, 10, generator=generator, dtype=torch.float64)
    >>> y = X[:, 0] + torch.randn(30, generator=generator, dtype=torch.float64)
    >>> path = ridge_path(X, y, [1e-3, 1.0, 100.0], cv="loo")
    >>> path.coef(path.best).shape
    torch.Size([10])
    """
    with torch.device("cpu"):  # what is made without a device, whatever the default is
        if isinstance(X, str | Path):
            if groups is not None:
                raise InputError(
                    "groups need the rows in memory", "groups", "given", "read the table, or leave them out"
                )
            return path_of_file(
                X,
                y,
                lambdas,
                cv=cv,
                unit=unit,
                seed=seed,
                sample_weight=sample_weight,
                penalty_factors=penalty_factors,
                intercept=intercept,
                standardize=standardize,
                shared=shared,
                drop=drop,
                engine=engine,
                on_progress=on_progress,
            )
        X, y = collected(X, "X"), collected(y, "y")
        if engine is not None or drop:
            name = "drop" if drop else "engine"
            raise InputError("only for files", name, repr(drop or engine), "give a path, or leave it out")
        given = checked(X, y, sample_weight, penalty_factors, intercept, standardize)
        problem = given.problem
        found = _splits(X, y, cv, seed, groups, given)
        job = Job(
            strength=strength(unit, len(problem.X), target_variance(problem)),
            lambdas=lambdas,
            shared=shared,
            cv=found.text,
            features=given.features,
            targets=given.targets,
            single=given.single,
            settings={
                "seed": int(seed),
                "intercept": intercept,
                "standardize": standardize,
                "penalty_factors": None if problem.penalty is None else problem.penalty.tolist(),
                "weighted": problem.weights is not None,
                "shared": shared,
                "dtype": str(problem.X.dtype).removeprefix("torch."),
            },
            small=problem.X.numel() * min(problem.X.shape) < SMALL,
            precise=lambda: _precise(problem, found.scheme),
            leaks=leak([(problem.X, problem.y)], given.features, given.targets),
        )
        try:
            with one_pool():
                return path_of(_route(problem, found.scheme), job)
        except FloatingPointError:  # a sum is not finite: say which cell
            all_finite(problem.X, "X", given.features)
            what = "sums of squares are beyond what float64 can hold"
            raise InputError(
                what, "X", float(problem.X.abs().max()), "divide the columns by their size"
            ) from None


def _route(problem: Problem, scheme: Scheme) -> Route:
    """Singular values where they cost nothing, else products of the rows or of the columns, the fewer."""
    n, p = problem.X.shape
    side = min(n, p)
    count = 1 if isinstance(scheme, str) else len(splits_of(scheme))
    if n * p * side * count <= DIRECT:
        check_determined(problem, scheme)
        return by_singular_values(problem, scheme)
    folds = 1 if isinstance(scheme, str) or n <= p else len(splits_of(scheme))
    require(
        (5 + 3 * folds) * 8 * side**2,
        f"the products of {side:,} {'rows' if n <= p else 'columns'}",
        problem.y.device,
    )
    if n > p:
        return tall(problem, scheme)
    check_determined(problem, scheme)
    if folds_alone(problem, scheme):
        return by_folds(problem, scheme)
    return by_products(problem, scheme)


def _precise(problem: Problem, scheme: Scheme) -> Route:
    n, p = problem.X.shape
    require(COPIES * 8 * n * p, f"the singular values of {n:,} × {p:,} inputs", problem.y.device)
    return by_singular_values(problem, scheme)


def _splits(X: Any, y: Any, cv: Any, seed: int, groups: Any, given: Given) -> Splits:
    """The splits of all rows, then of those that are kept."""
    found = splits(cv, len(X), seed, groups, X, y)
    scheme = found.scheme
    if scheme == "loo" and not isinstance(as_given(cv), str) and given.problem.standardize:
        scheme = torch.arange(len(X))  # a splitter's folds scale by themselves
    if given.rows is not None and not isinstance(scheme, str):
        scheme = _among(scheme, given.rows.cpu(), len(X))
    return replace(found, scheme=scheme)


def _among(scheme: Tensor | list[tuple[Tensor, Tensor]], rows: Tensor, n: int) -> Scheme:
    """Folds or pairs of all rows as those of the rows that are kept."""
    if isinstance(scheme, Tensor):
        folds = scheme[rows].unique(return_inverse=True)[1]
        if int(folds.max()) == 0:
            what = "all rows of positive weight are in one fold"
            raise InputError(what, "sample_weight", "0 in the others", "use other folds")
        return folds
    place = torch.full((n,), -1)
    place[rows] = torch.arange(len(rows))
    pairs = [tuple(side[side >= 0] for side in (place[train], place[test])) for train, test in scheme]
    kept = [(train, test) for train, test in pairs if len(train) and len(test)]
    if not kept:
        what = "no split has rows of positive weight on both sides"
        raise InputError(what, "sample_weight", "0 on one side of each", "use other splits")
    return kept
