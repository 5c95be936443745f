"""The front door: data in, the whole regularisation path out."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.memory import available, require
from weightdecay.ridge import lambdas as grids
from weightdecay.ridge.folds import CRITERIA, Splits, as_given, checked_seed, fold_ids, splits
from weightdecay.ridge.lambdas import Strength, strength
from weightdecay.ridge.linalg import one_pool
from weightdecay.ridge.moments import Penalty
from weightdecay.ridge.problem import (
    Given,
    Intercept,
    Problem,
    all_finite,
    checked,
    checked_choice,
    collected,
    factors,
    target_variance,
)
from weightdecay.ridge.record import MOST_DOF, RidgePath, doubts
from weightdecay.ridge.route import Curve, Route, Scheme, at_least
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
from weightdecay.select import Choice, Edge, choose, least
from weightdecay.tables.source import Source, open_source
from weightdecay.text import Text

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


PRODUCTS = 3  # of each fold's p × p: its own, those of the other rows, and their eigenvectors


def path_of_file(
    data: str | Path,
    target: Any,
    lambdas: Any,
    *,
    cv: Any,
    unit: str,
    seed: int,
    sample_weight: Any,
    penalty_factors: Any,
    intercept: Intercept,
    standardize: bool,
    shared: bool,
    drop: Sequence[str],
    engine: Any,
    on_progress: Callable[[int, int | None], None] | None,
) -> RidgePath:
    """`ridge_path` for a file or a folder; arguments as there, columns by name.

    Raises:
        InputError: as `ridge_path`, by file, row and column; a splitter, for which rows have to be in memory.
    """
    criterion, K = _criterion(cv)
    if not (sample_weight is None or isinstance(sample_weight, str)):
        what = type(sample_weight).__name__
        raise InputError("weights of a file are a column of it", "sample_weight", what, "name the column")
    checked_choice(intercept)
    checked_seed(seed)
    source = open_source(data, _names(target, "y"), _names(drop, "drop"), sample_weight)
    p = len(source.inputs)
    require(8 * p * p * (PRODUCTS * K + 4), f"the products of {p:,} columns for {K} folds")
    if penalty_factors is not None:
        penalty_factors = factors(penalty_factors, p, source.inputs, torch.empty(0))
    penalty = Penalty(penalty_factors, intercept, standardize)
    stats = statistics(source, folds=K, seed=seed, engine=engine, on_progress=on_progress)
    single_rows = criterion is None and stats.rows == K and not standardize  # as in memory
    route = tall_from(stats, "loo" if single_rows else criterion, penalty)
    job = Job(
        strength=strength(unit, stats.rows, route.variance),
        lambdas=lambdas,
        shared=shared,
        cv=f"{K} folds of one row" if single_rows else criterion or f"{K} folds, shuffled, seed {seed}",
        features=source.inputs,
        targets=source.targets,
        single=isinstance(target, str),
        settings=_settings(source, stats, penalty, shared, drop),
        small=stats.rows * p * min(stats.rows, p) < SMALL,
        precise=_in_memory(stats, route, penalty, seed) if _fits(stats.rows, p) else None,
        leaks=leak(_weighted(source), source.inputs, source.targets),
    )
    with one_pool():
        return path_of(route, job)


def _weighted(source: Source) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of the rows with a weight: their inputs and targets."""
    for block in source.blocks():
        kept = slice(None) if block.weights is None else block.weights > 0
        yield block.X[kept], block.y[kept]


def _fits(n: int, p: int) -> bool:
    """Whether the rows and their singular vectors have room in memory."""
    there = available()
    return there is not None and COPIES * 8 * n * p < there / 2


def _in_memory(stats: Statistics, route: Tall, penalty: Penalty, seed: int) -> Callable[[], Route]:
    """The table read whole, for its singular values."""

    def precise() -> Route:
        assert route.rows is not None
        inputs, targets, weights = [], [], []
        for block in route.rows():  # copies: later blocks come in the same memory
            inputs.append(block.X.clone())
            targets.append(block.y.clone())
            if block.weights is not None:
                weights.append(block.weights.clone())
        X, y, weight = torch.cat(inputs), torch.cat(targets), torch.cat(weights) if weights else None
        folds = route.criterion == "folds"
        scheme: Any = fold_ids(0, len(X), len(stats.folds), seed) if folds else route.criterion
        if weight is not None and bool((weight == 0).any()):
            kept = weight > 0
            X, y, weight = X[kept], y[kept], weight[kept]
            scheme = scheme[kept] if isinstance(scheme, Tensor) else scheme
        problem = Problem(X, y, weight, penalty.factors, penalty.intercept, penalty.standardize)
        return by_singular_values(problem, scheme)

    return precise


def _criterion(cv: Any) -> tuple[Any, int]:
    """A criterion's name or None, and the number of folds whose moments are taken."""
    cv = as_given(cv)
    if isinstance(cv, str) and cv.lower() in CRITERIA:
        return CRITERIA[cv.lower()], 1
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        if cv < 2:
            raise InputError("too few folds", "cv", int(cv), "two are needed at least")
        return None, int(cv)
    raise InputError(
        "not a way to hold out rows of a file",
        "cv",
        repr(cv),
        "give a number of folds, 'loo', 'gcv' or 'evidence'",
    )


def _names(given: Any, where: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        found = type(given).__name__
        raise InputError("not names of columns", where, found, "of a file, give a column's name or several")
    return tuple(names)


def _settings(
    source: Source, stats: Statistics, penalty: Penalty, shared: bool, drop: Sequence[str]
) -> dict[str, Any]:
    return {
        "seed": int(stats.seed),
        "files": [Path(shard.path).name for shard in source.shards],
        "drop": list(_names(drop, "drop")),
        "weights": source.weights,
        "intercept": penalty.intercept,
        "standardize": penalty.standardize,
        "penalty_factors": None if penalty.factors is None else penalty.factors.tolist(),
        "shared": shared,
        "dtype": str(source.dtype).removeprefix("torch."),
    }


ENOUGH = 1e-8  # relative error of the scores at which a Gram matrix is good enough,
ENOUGH_SMALL = 1e-11  # and where singular values cost nothing
ENOUGH_SINGLE = 1e-3  # of products in single precision, which carry six digits where noise is not tiny
NEAR = grids.PER_DECADE // 2  # steps of the grid that are wanted on either side of the least score
SMALL = 1e8  # multiplications of a singular value decomposition that nobody waits for


@dataclass(frozen=True)
class Job:
    """What was asked for, beside the data.

    Args:
        strength: the convention of λ.
        lambdas: the grid as given, or None.
        shared: one λ for all targets.
        cv: how λ is judged, in words.
        features, targets: names, or None.
        single: one target, without an axis.
        settings: for the record.
        small: whether such a route costs next to nothing.
        precise: makes a route that keeps more digits than a Gram matrix, or None where there is none.
        leaks: what there is to say of a column that is the target itself.
    """

    strength: Strength
    lambdas: Any
    shared: bool
    cv: str
    features: tuple[str, ...] | None
    targets: tuple[str, ...] | None
    single: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    small: bool = False
    precise: Callable[[], Route] | None = None
    leaks: tuple[Text, ...] = ()


@dataclass(frozen=True)
class _Found:
    """A curve on a grid."""

    route: Route
    alphas: Float64[Tensor, " L"]
    curve: Curve


def path_of(route: Route, job: Job) -> RidgePath:
    """The record of a path: the curve on the grid, with more digits where they are needed, and the choices.

    Raises:
        InputError: strengths that cannot be used.
    """
    if route.unpenalized >= route.n:
        what = f"{route.unpenalized} with the intercept, {route.n} rows"
        remedy = "penalise more columns; nothing is left to judge λ by"
        raise InputError("as many unpenalised columns as rows", "penalty_factors", what, remedy)
    found = _on_grid(route, job)
    single = job.settings.get("dtype") == "float32"
    enough = ENOUGH_SINGLE if single else ENOUGH_SMALL if job.small else ENOUGH
    if float(found.curve.precision.max()) > enough and job.precise is not None:
        found = _on_grid(job.precise(), job)
    if bool(found.curve.mean.isnan().any()):
        what, where = "sums are beyond what float64 can hold", "the scores"
        raise InputError(what, where, "NaN", "divide the columns and the target by their size")
    judged = _judged(found, job)
    choices = [choose(one.scores, one.errors, one.doubt) for one in judged]
    lambdas = job.strength.lam(found.alphas) if job.lambdas is None else _given(job)[1]
    path = _record(found, job, choices, [one.varies for one in judged], lambdas)
    doubted = doubts(path, judged, choices, given=job.lambdas is not None)
    path = replace(path, doubts=(*doubted, *job.leaks))
    for doubt in path.doubts:
        warnings.warn(doubt, WeightDecayWarning, stacklevel=3)
    return path


def _on_grid(route: Route, job: Job) -> _Found:
    """The curve on the grid as given, or on one that is widened while the least score is at its edge."""
    device = route.device
    if job.lambdas is not None:
        alphas = at_least(_given(job)[0], route, squares=job.cv != "evidence")
        return _Found(route, alphas, route.curve(alphas.to(device)))
    scale = route.spectrum_scale()
    low, high = grids.first(scale)
    found = _Found(route, alphas := grids.automatic(scale, low, high), route.curve(alphas.to(device)))
    while True:
        judged = [one for one in _judged(found, job, final=False) if one.varies]
        places = [least(one.scores, one.doubt) for one in judged]
        edges = {"low" for place in places if place < NEAR}
        edges |= {"high" for place in places if place >= len(found.alphas) - NEAR}
        wider = grids.wider(low, high, edges)
        if wider == (low, high):
            return found
        below = grids.automatic(scale, wider[0], low)[:-1] if wider[0] < low else None
        above = grids.automatic(scale, high, wider[1])[1:] if wider[1] > high else None
        try:
            found = _joined(found, below, above)
        except InputError:  # inputs in single precision carry no smaller λ
            return found
        low, high = wider


def _joined(found: _Found, below: Tensor | None, above: Tensor | None) -> _Found:
    """The curve with more of the grid on one side or both."""
    device = found.route.device
    pieces = [(found.alphas, found.curve)]
    if below is not None:
        pieces.insert(0, (below, found.route.curve(below.to(device))))
    if above is not None:
        pieces.append((above, found.route.curve(above.to(device))))
    curves = [curve for _, curve in pieces]
    folds = [curve.folds for curve in curves if curve.folds is not None]
    joints = [curve.joint for curve in curves if curve.joint is not None]
    return _Found(
        found.route,
        torch.cat([alphas for alphas, _ in pieces]),
        Curve(
            torch.cat([curve.mean for curve in curves]),
            torch.cat([curve.error for curve in curves]),
            torch.cat(folds, dim=1) if folds else None,
            torch.cat([curve.precision for curve in curves]),
            (lambda: torch.cat([joint().cpu() for joint in joints])) if joints else None,
        ),
    )


def _given(job: Job) -> tuple[Float64[Tensor, " L"], Float64[Tensor, " L"]]:
    """The grid as given, as α ascending and in its own unit; repeated strengths once."""
    alphas = job.strength.alpha(job.lambdas, "lambdas")
    values = torch.from_numpy(job.strength.numbers(job.lambdas, "lambdas"))
    order = torch.from_numpy(alphas.numpy().argsort(kind="stable"))
    alphas, values = alphas[order], values[order]
    new = torch.cat([torch.ones(1, dtype=torch.bool), alphas[1:] > alphas[:-1]])
    return alphas[new], values[new]


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


def _judged(found: _Found, job: Job, final: bool = True) -> list[Judged]:
    """What is chosen by: scores of each target, or those that are shared; with standard errors if `final`."""
    curve, scale = found.curve, found.route.variance.cpu()
    mean, error, varies = curve.mean.cpu(), curve.error.cpu(), scale > 0
    doubt = curve.precision.cpu()[:, None] * mean.abs()
    certain = curve.precision.cpu() < 1
    if bool(certain.any()):  # a score of which no digit is certain is not chosen
        mean = torch.where(certain[:, None], mean, torch.inf)
    if job.shared and job.cv == "evidence":
        mean, error, doubt = (
            mean[:, varies].sum(1, keepdim=True),
            error[:, :1],
            doubt[:, varies].sum(1, keepdim=True),
        )
    elif job.shared:
        error = _shared_error(curve, scale)[:, None] if final else error[:, :1]
        mean, doubt = ((values / scale)[:, varies].mean(1, keepdim=True) for values in (mean, doubt))
    if job.shared:
        varies = varies.any()[None]
    if job.cv == "gcv":
        s = found.route.spectrum().cpu()
        dof = (s / (s + found.alphas[:, None])).sum(1) + found.route.unpenalized
        believed = dof <= MOST_DOF * found.route.n
        if bool(believed.any()):
            mean = torch.where(believed[:, None], mean, torch.inf)
    return [Judged(mean[:, k], error[:, k], doubt[:, k], bool(varies[k])) for k in range(mean.shape[1])]


def _shared_error(curve: Curve, scale: Tensor) -> Float64[Tensor, " L"]:
    """The standard error of the mean over targets: they share their rows or folds, and so their luck."""
    varies = scale > 0
    if curve.folds is not None:
        folds = (curve.folds.cpu() / scale)[:, :, varies].mean(2)
        return folds.std(0) / len(folds) ** 0.5 if len(folds) > 1 else torch.zeros_like(folds[0])
    if curve.joint is not None and len(scale) > 1:
        return curve.joint().cpu()
    return (curve.error.cpu() / scale)[:, varies].mean(1)


def _record(
    found: _Found, job: Job, choices: list[Choice], varies: list[bool], lambdas: Float64[Tensor, " L"]
) -> RidgePath:
    def chosen(places: list[int]) -> float | Tensor:
        return (
            float(lambdas[places[0]]) if len(places) == 1 and (job.single or job.shared) else lambdas[places]
        )

    def squeezed(values: Tensor) -> Tensor:
        return (values[..., 0] if job.single else values).cpu()

    telling = [choice for choice, one in zip(choices, varies, strict=True) if one]
    widest = max(telling, key=lambda choice: choice.high - choice.low)
    edges: list[Edge] = [choice.edge for choice in telling if choice.edge]
    route, curve = found.route, found.curve
    return RidgePath(
        lambdas=lambdas,
        unit=job.strength.unit,
        alphas=found.alphas,
        scores=squeezed(curve.mean),
        errors=squeezed(curve.error),
        fold_scores=None if curve.folds is None else squeezed(curve.folds),
        precision=torch.where(curve.precision < 1, curve.precision, torch.inf).cpu(),
        best=chosen([choice.best for choice in choices]),
        one_se=chosen([choice.one_se for choice in choices]),
        edge=edges[0] if edges else None,
        flat=any(choice.flat for choice in telling),
        flat_range=(float(lambdas[widest.low]), float(lambdas[widest.high])),
        cv=job.cv,
        route=route.name,
        n=route.n,
        p=route.width,
        features=job.features,
        targets=job.targets,
        doubts=(),
        settings={"cv": job.cv, "unit": job.strength.unit, **job.settings},
        _solver=route,
        _strength=job.strength,
    )


def leak(
    blocks: Iterable[tuple[Float[Tensor, "b p"], Float64[Tensor, "b t"]]],
    features: Sequence[str] | None,
    targets: Sequence[str] | None,
) -> tuple[Text, ...]:
    """What there is to say of a column that equals a target in every row: a sentence, or none.

    It is a doubt and no error: a few rows of whole numbers may be equal by chance.

    Args:
        blocks: the rows, in any number of blocks; reading stops where no column is left.
        features: the columns' names, or None.
        targets: the targets' names, or None.

    >>> import torch
    >>> X = torch.tensor([[1.0, 3.0], [2.0, 4.0]], dtype=torch.float64)
    >>> leak([(X, X[:, 1:])], None, ["y"])
    ("X[:, 1] equals 'y' in every row: a column is the target itself; drop it",)
    >>> leak([(X, X[:, 1:] + 1)], None, None)
    ()
    """
    pairs: Int64[Tensor, "k 2"] | None = None
    t = 0
    for X, y in blocks:
        y, t = y.to(X.dtype), y.shape[1]
        if pairs is None:
            if len(X) == 0:
                continue
            pairs = (X[0] == y[0, :, None]).nonzero()
        for rows in (8, 128, len(X)):  # a few rows rule out almost all columns
            target, column = pairs.unbind(1)
            pairs = pairs[(X[:rows, column] == y[:rows, target]).all(0)]
        if len(pairs) == 0:
            return ()
    if pairs is None:
        return ()
    target, column = pairs[0].tolist()
    which = repr(targets[target]) if targets else "y" if t == 1 else f"y[:, {target}]"
    named = repr(features[column]) if features else f"X[:, {column}]"
    return (
        Text(
            f"{named} equals {which} in every row: a column is the target itself; drop it",
            f"{named} 在每一行都等于 {which}：这一列就是目标本身，请去掉它",
        ),
    )
