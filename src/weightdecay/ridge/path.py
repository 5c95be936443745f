"""The front door: data in, the whole regularisation path out.

`ridge_path` collects its options; `fit_path` checks the data, makes one plan, scores the grid of λ by one
algorithm (`_route`), chooses, and writes the record.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.memory import available, require
from weightdecay.ridge import lambdas as grids
from weightdecay.ridge.folds import CRITERIA, as_given, fold_ids, splits
from weightdecay.ridge.imputed import imputed
from weightdecay.ridge.lambdas import Strength, strength
from weightdecay.ridge.leaks import Blocks, leak
from weightdecay.ridge.linalg import on_cpu, one_pool
from weightdecay.ridge.moments import Penalty
from weightdecay.ridge.problem import (
    Checked,
    Intercept,
    Problem,
    RidgeOptions,
    all_finite,
    checked,
    collected,
    factors,
    target_variance,
)
from weightdecay.ridge.record import LOST, MOST_DOF, RidgePath, doubts
from weightdecay.ridge.route import Curve, Route, Scheme, at_least, joined
from weightdecay.ridge.sparse_inputs import SparseInputs, is_sparse
from weightdecay.ridge.streaming import Statistics, statistics, tall_from
from weightdecay.ridge.tall import Tall, tall
from weightdecay.ridge.wide import (
    by_folds,
    by_products,
    by_singular_values,
    check_determined,
    folds_alone,
    splits_of,
)
from weightdecay.select import Edge, choose, least
from weightdecay.tables.columns import MARK, Coding, ColumnOptions
from weightdecay.tables.source import Source, open_source
from weightdecay.text import Text

DIRECT = 1e6  # multiplications below which singular values, which keep the most digits, cost nothing
COPIES = 6  # of the inputs, for their singular values
PRODUCTS = 3  # of each fold's p × p: its own, those of the other rows, and their eigenvectors
# Relative error of the scores λ is chosen among at which a Gram matrix is good enough; of products in single
# precision, which carry six digits where noise is not tiny, another. At all other λ it is `LOST`.
ENOUGH, ENOUGH_SINGLE = 1e-8, 1e-3


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
    category: Sequence[str] = (),
    number: Sequence[str] = (),
    dates: str | None = None,
    missing: str = "refuse",
) -> RidgePath:
    """The whole path of ridge regression, judged: which λ is best, and the models for all of them.

    Args:
        X: inputs (n, p): tensor, array, a pandas or polars DataFrame, a pyarrow Table, or a LazyFrame, which
            is collected; a sparse matrix or array of SciPy, a sparse tensor, or a pandas DataFrame whose
            columns are all sparse, which is made dense only if it is small, or if its products would lose
            digits and there is room; or a .csv or .parquet file or a folder of such shards, which is read in
            blocks; then y, `drop` and `sample_weight` name columns.
            In a table with named columns texts become an input for each level, and an index, texts that
            are all different and constants are left out; `path.notes` says so.
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
        category: columns to take as categories, whatever they look like.
        number: columns to take as numbers, such as whole numbers that rise by one.
        dates: "days": a column of dates is the days since the first one; otherwise it is refused.
        missing: cells that have no value are refused, or "drop" leaves their rows out, or "mean" puts in the
            means of each fold's training rows, with an indicator column where more than 5 % are missing.
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
            the target itself or determines it (|r| > .999).

    >>> generator = torch.Generator().manual_seed(0)
    >>> X = torch.randn(30, 10, generator=generator, dtype=torch.float64)
    >>> y = X[:, 0] + torch.randn(30, generator=generator, dtype=torch.float64)
    >>> path = ridge_path(X, y, [1e-3, 1.0, 100.0], cv="loo")
    >>> path.coef(path.best).shape
    torch.Size([10])
    """
    options = RidgeOptions(
        lambdas, cv, unit, seed, groups, sample_weight, penalty_factors, intercept, standardize, shared, drop,
        engine, on_progress,
        ColumnOptions(category, number, dates=dates, missing=missing),
    )  # fmt: skip
    return fit_path(X, y, options)


@dataclass(frozen=True)
class Plan:
    """What is computed, and how, for one table and one set of options.

    Args:
        options: as they were given.
        strength: the convention of λ.
        grid: α ascending, and the same in their own unit, as given; None where the grid is to suit the data.
        cv: how λ is judged, in words.
        features, targets: names, or None.
        single: one target, without an axis.
        settings: for the record.
        route: makes the algorithm.
        precise: makes one that keeps more digits, or None where there is none.
        notes: what there is to say of rows that are left out and of cells that are filled.
        rows: the rows with a weight again, in blocks.
        coding: how columns became inputs, or None where they are numbers as they stand.
        problem: the data, where they are in memory.
    """

    options: RidgeOptions
    strength: Strength
    grid: tuple[Float64[Tensor, " L"], Float64[Tensor, " L"]] | None
    cv: str
    features: tuple[str, ...] | None
    targets: tuple[str, ...] | None
    single: bool
    settings: Mapping[str, Any]
    route: Callable[[], Route]
    precise: Callable[[], Route] | None
    notes: tuple[Text, ...]
    rows: Callable[[], Blocks]
    coding: Coding | None = None
    problem: Problem | None = None
    missing_cells: Callable[[], str] | None = None


def fit_path(X: Any, y: Any, options: RidgeOptions) -> RidgePath:
    """Fit, judge and choose: `ridge_path` with its options as a record.

    Raises:
        InputError: as `ridge_path`.
    """
    with on_cpu(), one_pool():
        plan = _plan_file(X, y, options) if isinstance(X, str | Path | Source) else _plan_table(X, y, options)
        try:
            route = plan.route()
            alphas, curve = _score(route, plan)
            if plan.precise is not None and not _is_enough(_judged(route, alphas, curve, plan), curve, plan):
                route = plan.precise()
                alphas, curve = _score(route, plan)
        except FloatingPointError:  # a sum is not finite: say which cell
            if plan.problem is None:
                raise
            X = plan.problem.X
            all_finite(X, "X", plan.features, plan.missing_cells)
            what = "sums of squares are beyond what float64 can hold"
            largest = float((X.values if isinstance(X, SparseInputs) else X).abs().max())
            raise InputError(what, "X", largest, "divide the columns by their size") from None
        if bool(curve.mean.isnan().any()):
            what, where = "sums are beyond what float64 can hold", "the scores"
            raise InputError(what, where, "NaN", "divide the columns and the target by their size")
        judged = _judged(route, alphas, curve, plan)
        choices = [choose(target.scores, target.errors, target.doubt) for target in judged]
        lambdas = plan.strength.lam(alphas) if plan.grid is None else plan.grid[1]
        best = lambdas[[choice.best for choice in choices]]
        one_se = lambdas[[choice.one_se for choice in choices]]
        if len(choices) == 1 and (plan.single or options.shared):
            best, one_se = float(best[0]), float(one_se[0])
        varying = [choice for choice, target in zip(choices, judged, strict=True) if target.varies]
        widths = [choice.high - choice.low for choice in varying]
        widest = varying[widths.index(max(widths))]
        edges: list[Edge] = [choice.edge for choice in varying if choice.edge is not None]
        flat = [choice for choice in varying if choice.flat]
        targets = 0 if plan.single else slice(None)
        path = RidgePath(
            lambdas=lambdas,
            unit=plan.strength.unit,
            alphas=alphas,
            scores=curve.mean[..., targets].cpu(),
            errors=curve.error[..., targets].cpu(),
            fold_scores=None if curve.folds is None else curve.folds[..., targets].cpu(),
            precision=torch.where(curve.precision < 1, curve.precision, torch.inf).cpu(),
            best=best,
            one_se=one_se,
            edge=edges[0] if edges else None,
            flat=len(flat) > 0,
            flat_range=(float(lambdas[widest.low]), float(lambdas[widest.high])),
            cv=plan.cv,
            route=route.name,
            n=route.n,
            p=route.width,
            features=plan.features,
            targets=plan.targets,
            doubts=(),
            settings={"cv": plan.cv, "unit": plan.strength.unit, **plan.settings},
            coding=plan.coding,
            _solver=route,
            _strength=plan.strength,
        )
        warned = doubts(path, judged, choices, given=plan.grid is not None)
        correlations = route.correlations().cpu()
        leaks = leak(correlations, plan.rows, path.n, plan.features, plan.targets)
        path = replace(path, doubts=(*warned, *leaks, *plan.notes))
    for doubt in path.doubts:
        warnings.warn(doubt, WeightDecayWarning, stacklevel=3)
    return path


def _plan_table(X: Any, y: Any, options: RidgeOptions) -> Plan:
    """Check data in memory and plan their path."""
    X, y = collected(X, "X"), collected(y, "y")
    if options.engine is not None or options.drop:
        name = "drop" if options.drop else "engine"
        value = repr(options.drop or options.engine)
        raise InputError("only for files", name, value, "give a path, or leave it out")
    table = checked(X, y, options)
    problem, n = table.problem, X.shape[0] if is_sparse(X) else len(X)
    judge = splits(options.cv, n, options.seed, options.groups, X, y)
    scheme = judge.scheme
    if scheme == "loo" and problem.standardize and not isinstance(as_given(options.cv), str):
        scheme = torch.arange(n)  # a splitter's folds scale by themselves
    if table.rows is not None and not isinstance(scheme, str):
        scheme = _among(scheme, table.rows.cpu(), n)
    convention = strength(options.unit, len(problem.X), target_variance(problem))
    route, precise = partial(_route, problem, scheme), partial(_precise, problem, scheme)
    if table.holes is not None:
        route, precise = (partial(imputed, problem, table.holes, scheme, each) for each in (_route, _precise))
    dense = not isinstance(problem.X, SparseInputs) or _fits(*problem.X.shape)
    beside = [Text("weight", "权重")] if problem.weights is not None else []
    beside += [Text("group", "分组")] if options.groups is not None else []
    return Plan(
        options,
        convention,
        None if options.lambdas is None else convention.grid(options.lambdas),
        cv=judge.text,
        features=table.features,
        targets=table.targets,
        single=table.single,
        settings={
            "seed": int(options.seed),
            "intercept": options.intercept,
            "standardize": options.standardize,
            "penalty_factors": None if problem.penalty is None else problem.penalty.tolist(),
            "weighted": problem.weights is not None,
            "shared": options.shared,
            "dtype": str(problem.X.dtype).removeprefix("torch."),
        },
        route=route,
        precise=precise if dense and not _direct(problem, scheme) else None,
        notes=(
            *rows_left_out(table.left_out, n, options.columns.missing, beside),
            *cells_filled(table),
        ),
        rows=partial(_rows, problem),
        coding=table.coding,
        problem=problem,
        missing_cells=table.missing_cells,
    )


def _fits(n: int, p: int) -> bool:
    """Whether inputs that are not in memory as a dense table have room there with their singular values."""
    there = available()
    return there is not None and COPIES * 8 * n * p < there / 2


def _rows(problem: Problem) -> Blocks:
    """Yield the rows: sparse ones in dense blocks."""
    if not isinstance(problem.X, SparseInputs):
        yield problem.X, problem.y
    else:
        yield from ((block, problem.y[some]) for some, block in problem.X.blocks())


def cells_filled(table: Checked) -> tuple[Text, ...]:
    """Say in how many cells a mean stands in for a missing value; nothing where in none."""
    inputs = () if table.coding is None else table.coding.inputs
    said, X = [], table.problem.X
    own = [f"{column.name}={MARK}" for column in inputs if MARK in column.levels]
    if own and table.features is not None and isinstance(X, Tensor):
        sums = X[:, [table.features.index(name) for name in own]].sum(0)
        cells = int(sums.sum())
        if cells:
            en = f"{cells:,} missing cells of categories are a level of their own"
            said.append(Text(en, f"类别列中的 {cells:,} 个缺失值自成一个类别"))
    if table.holes is None:
        return tuple(said)
    cells, columns = int(table.holes.sum()), int(table.holes.any(0).sum())
    marked = [column.name for column in inputs if column.indicator]
    en = f"{cells:,} missing cells of {columns:,} columns take the mean of the training rows"
    zh = f"{columns:,} 列中的 {cells:,} 个缺失值取训练行的均值"
    if marked:
        listed = ", ".join(map(repr, marked[:5])) + (", …" if len(marked) > 5 else "")
        en += f"; a further column says where: {listed}"
        zh += f"；另有一列标明缺失位置：{listed}"
    return (Text(en, zh), *said)


def rows_left_out(count: int, rows: int, missing: str, beside: Sequence[Text] = ()) -> tuple[Text, ...]:
    """Say how many rows a missing cell leaves out, and of which columns; nothing where none is."""
    if not count:
        return ()
    if missing == "mean":  # inputs are filled
        en, zh = " or ".join(["target", *beside]), "或".join(["目标", *(name.zh for name in beside)])
        en = f"left out: {count:,} of {rows:,} rows, whose {en} is missing"
        return (Text(en, f"{rows:,} 行中有 {count:,} 行因{zh}缺失而去掉"),)
    en = f"{count:,} of {rows:,} rows have a missing cell and are left out"
    return (Text(en, f"{rows:,} 行中有 {count:,} 行因缺失值而去掉"),)


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


def _plan_file(data: str | Path | Source, target: Any, options: RidgeOptions) -> Plan:
    """Read a file or a folder and plan its path; columns are given by name.

    Raises:
        InputError: as `ridge_path`, by file, row and column; a splitter, for which rows have to be in memory.
    """
    if options.groups is not None:
        raise InputError(
            "groups need the rows in memory", "groups", "given", "read the table, or leave them out"
        )
    criterion, K = _criterion(options.cv)
    weights = options.sample_weight
    if not (weights is None or isinstance(weights, str)):
        what = type(weights).__name__
        raise InputError("weights of a file are a column of it", "sample_weight", what, "name the column")
    drop = _names(options.drop, "drop")
    source = data
    if not isinstance(source, Source):
        constants = options.intercept == "free"
        source = open_source(
            source, _names(target, "y"), drop, weights, options=options.columns, constants=constants
        )
    if options.columns.missing == "mean":
        what, remedy = "means of the training rows need the rows in memory", "read the table, or 'drop' rows"
        raise InputError(what, "missing", "'mean'", remedy)
    p = len(source.inputs)
    require(8 * p * p * (PRODUCTS * K + 4), f"the products of {p:,} columns for {K} folds")
    penalty_factors = options.penalty_factors
    if penalty_factors is not None:
        penalty_factors = factors(penalty_factors, p, source.inputs, torch.empty(0), source.coding)
    penalty = Penalty(penalty_factors, options.intercept, options.standardize)
    stats = statistics(
        source, folds=K, seed=options.seed, engine=options.engine, on_progress=options.on_progress
    )
    n = stats.rows
    single_rows = criterion is None and n == K and not options.standardize  # as in memory
    route = tall_from(stats, "loo" if single_rows else criterion, penalty)
    convention = strength(options.unit, n, route.variance)
    return Plan(
        options,
        convention,
        None if options.lambdas is None else convention.grid(options.lambdas),
        cv=f"{K} folds of one row"
        if single_rows
        else criterion or f"{K} folds, shuffled, seed {options.seed}",
        features=source.inputs,
        targets=source.targets,
        single=isinstance(target, str),
        settings={
            "seed": int(options.seed),
            "files": [Path(shard.path).name for shard in source.shards],
            "drop": list(drop),
            "weights": source.weights,
            "intercept": options.intercept,
            "standardize": options.standardize,
            "penalty_factors": None if penalty_factors is None else penalty_factors.tolist(),
            "shared": options.shared,
            "dtype": str(source.dtype).removeprefix("torch."),
        },
        route=lambda: route,
        precise=partial(_precise_file, stats, route) if _fits(n, p) else None,
        notes=_dropped(source),
        rows=partial(_weighted, source),
        coding=None if source.coding.plain else source.coding,
    )


def _dropped(source: Source) -> tuple[Text, ...]:
    """Say how many rows of a file a missing cell leaves out; they are counted by another pass."""
    if source.missing != "drop":
        return ()
    counts = [(block.left_out, len(block.y)) for block in source.blocks()]
    left_out, rows = (sum(each) for each in zip(*counts, strict=True))
    return rows_left_out(left_out, rows, "drop")


def _criterion(cv: Any) -> tuple[Any, int]:
    """A criterion's name or None, and the number of folds whose moments are taken."""
    cv = as_given(cv)
    if isinstance(cv, str) and cv.lower() in CRITERIA:
        return CRITERIA[cv.lower()], 1
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        if cv < 2:
            raise InputError("too few folds", "cv", int(cv), "two are needed at least")
        return None, int(cv)
    remedy = "give a number of folds, 'loo', 'gcv' or 'evidence'"
    raise InputError("not a way to hold out rows of a file", "cv", repr(cv), remedy)


def _names(values: Any, where: str) -> tuple[str, ...]:
    names = (values,) if isinstance(values, str) else values
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        kind = type(values).__name__
        raise InputError("not names of columns", where, kind, "of a file, give a column's name or several")
    return tuple(names)


def _weighted(source: Source) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of the rows with a weight: their inputs and targets."""
    for block in source.blocks():
        kept = slice(None) if block.weights is None else block.weights > 0
        yield block.X[kept], block.y[kept]


def _direct(problem: Problem, scheme: Scheme) -> bool:
    """Whether singular values cost nothing: fewer multiplications, of all splits, than the call itself."""
    n, p = problem.X.shape
    count = 1 if isinstance(scheme, str) else len(splits_of(scheme))
    return n * p * min(n, p) * count <= DIRECT


def _route(problem: Problem, scheme: Scheme) -> Route:
    """Singular values where they cost nothing, else products of the rows or of the columns, the fewer."""
    if _direct(problem, scheme):
        if problem.penalty is not None:
            check_determined(problem, scheme)
        return by_singular_values(problem, scheme)
    (n, p), count = problem.X.shape, 1 if isinstance(scheme, str) else len(splits_of(scheme))
    copies, what = 5 + 3 * (count if n > p else 1), "rows" if n <= p else "columns"
    require(copies * 8 * min(n, p) ** 2, f"the products of {min(n, p):,} {what}", problem.y.device)
    if n > p:
        return tall(problem, scheme)
    if problem.penalty is not None:
        check_determined(problem, scheme)
    return by_folds(problem, scheme) if folds_alone(problem, scheme) else by_products(problem, scheme)


def _precise(problem: Problem, scheme: Scheme) -> Route:
    """The singular values of a table in memory."""
    n, p = problem.X.shape
    require(COPIES * 8 * n * p, f"the singular values of {n:,} × {p:,} inputs", problem.y.device)
    return by_singular_values(problem, scheme)


def _precise_file(stats: Statistics, route: Tall) -> Route:
    """The singular values of a table that is read whole."""
    assert route.rows is not None
    inputs, targets, weights = [], [], []
    for block in route.rows():  # copies: later blocks come in the same memory
        inputs.append(block.X.clone())
        targets.append(block.y.clone())
        weights.append(torch.ones(len(block.y)).double() if block.weights is None else block.weights.clone())
    X, y, weight = torch.cat(inputs), torch.cat(targets), torch.cat(weights)
    weight = None if bool((weight == 1).all()) else weight
    folds = route.criterion == "folds"
    scheme: Any = fold_ids(0, len(X), len(stats.folds), stats.seed) if folds else route.criterion
    if weight is not None and bool((weight == 0).any()):
        kept = weight > 0
        X, y, weight = X[kept], y[kept], weight[kept]
        scheme = scheme[kept] if isinstance(scheme, Tensor) else scheme
        weight = None if bool((weight == 1).all()) else weight
    penalty = route.penalty
    problem = Problem(X, y, weight, penalty.factors, penalty.intercept, penalty.standardize)
    return by_singular_values(problem, scheme)


def _score(route: Route, plan: Plan) -> tuple[Float64[Tensor, " L"], Curve]:
    """Score the grid as given, or one that is widened while the least score is at its edge."""
    if route.unpenalized >= route.n:
        what = f"{route.unpenalized} with the intercept, {route.n} rows"
        remedy = "penalise more columns; nothing is left to judge λ by"
        raise InputError("as many unpenalised columns as rows", "penalty_factors", what, remedy)
    if plan.grid is not None:
        alphas = at_least(plan.grid[0], route, squares=plan.cv != "evidence")
        return alphas, route.curve(alphas.to(route.device))
    scale = route.spectrum_scale()
    low, high = grids.first(scale)
    alphas = grids.automatic(scale, low, high)
    curve = route.curve(alphas.to(route.device))
    while True:
        lower, higher = low, high
        for target in _judged(route, alphas, curve, plan, final=False):
            if target.varies:
                wider = grids.widened(low, high, least(target.scores, target.doubt), len(alphas))
                lower, higher = min(lower, wider[0]), max(higher, wider[1])
        if (lower, higher) == (low, high):
            return alphas, curve
        pieces = [(alphas, curve)]
        try:
            if lower < low:
                below = grids.automatic(scale, lower, low)[:-1]
                pieces.insert(0, (below, route.curve(below.to(route.device))))
            if higher > high:
                above = grids.automatic(scale, high, higher)[1:]
                pieces.append((above, route.curve(above.to(route.device))))
        except InputError:  # inputs in single precision carry no smaller λ
            return alphas, curve
        alphas, curve = torch.cat([some for some, _ in pieces]), joined([curve for _, curve in pieces])
        low, high = lower, higher


@dataclass(frozen=True)
class Judged:
    """What λ is chosen by, for one target or for all that share one.

    Args:
        scores, errors: with their standard errors (L,).
        doubt: by how much rounding may have changed each score: its estimated precision times its size (L,).
        varies: whether the target does, or one of those that share λ.
    """

    scores: Float64[Tensor, " L"]
    errors: Float64[Tensor, " L"]
    doubt: Float64[Tensor, " L"]
    varies: bool = True


def _judged(
    route: Route, alphas: Float64[Tensor, " L"], curve: Curve, plan: Plan, final: bool = True
) -> list[Judged]:
    """What is chosen by: scores of each target, or those that are shared; with standard errors if `final`."""
    scale, shared = route.variance.cpu(), plan.options.shared
    mean, error, varies = curve.mean.cpu(), curve.error.cpu(), scale > 0
    doubt = curve.precision.cpu()[:, None] * mean.abs()
    certain = curve.precision.cpu() < 1
    if bool(certain.any()):  # a score of which no digit is certain is not chosen
        mean = torch.where(certain[:, None], mean, torch.inf)
    if shared and plan.cv == "evidence":
        mean, error, doubt = (
            mean[:, varies].sum(1, keepdim=True),
            error[:, :1],
            doubt[:, varies].sum(1, keepdim=True),
        )
    elif shared:
        error = _shared_error(curve, scale)[:, None] if final else error[:, :1]
        mean, doubt = ((values / scale)[:, varies].mean(1, keepdim=True) for values in (mean, doubt))
    if shared:
        varies = varies.any()[None]
    if plan.cv == "gcv":
        s = route.spectrum().cpu()
        dof = (s / (s + alphas[:, None])).sum(1) + route.unpenalized
        believed = dof <= MOST_DOF * route.n
        if bool(believed.any()):
            mean = torch.where(believed[:, None], mean, torch.inf)
    return [*map(Judged, mean.mT, error.mT, doubt.mT, varies.tolist())]


def _is_enough(judged: list[Judged], curve: Curve, plan: Plan) -> bool:
    """Whether the scores have the digits they need: more at the λ that may be chosen than at the others.

    λ may be chosen where rounding may have hidden that its score is within one standard error of the least:
    score − doubt ≤ min (score + doubt) + its standard error. So more digits would choose among the same λ.
    """
    dtype, precision = plan.settings["dtype"], curve.precision.cpu()
    wanted = torch.full_like(precision, LOST[dtype])
    for target in judged:
        if not target.varies:
            continue
        highest = (target.scores + target.doubt).nan_to_num(nan=math.inf)
        place = int(highest.argmin())
        chosen = target.scores - target.doubt <= highest[place] + target.errors[place]
        wanted[chosen] = ENOUGH_SINGLE if dtype == "float32" else ENOUGH
    return bool((precision <= wanted).all())


def _shared_error(curve: Curve, scale: Tensor) -> Float64[Tensor, " L"]:
    """The standard error of the mean over targets: they share their rows or folds, and so their luck."""
    varies = scale > 0
    if curve.folds is not None:
        folds = (curve.folds.cpu() / scale)[:, :, varies].mean(2)
        return folds.std(0) / len(folds) ** 0.5 if len(folds) > 1 else torch.zeros_like(folds[0])
    if curve.joint is not None and len(scale) > 1:
        return curve.joint().cpu()
    return (curve.error.cpu() / scale)[:, varies].mean(1)
