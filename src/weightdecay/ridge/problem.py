"""The ridge problem: its data, how columns enter it, and the checks of what a user gives.

`Problem` and `Columns` are what the routes compute with. `RidgeOptions` and `checked` make a problem of
tensors, arrays or DataFrames, weights and penalties; `matched` reads new rows for a model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import time, timedelta
from functools import cached_property
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from weightdecay.arguments import choice
from weightdecay.errors import InputError
from weightdecay.ridge.linalg import EPS, gram, matmul
from weightdecay.ridge.sparse_inputs import SparseInputs, is_sparse, sparse_inputs
from weightdecay.tables.cells import (
    TOO_LARGE,
    absent,
    check_names,
    is_plain,
    missing_cells,
    no_name_twice,
    no_such_column,
    numbers,
    refuse_cell,
)
from weightdecay.tables.columns import (
    NOTHING_SAID,
    Cells,
    Coding,
    ColumnOptions,
    learn,
    not_an_input,
    plain_coding,
)

Intercept = Literal["free", "penalized", "none"]
BLOCK = 1 << 18  # numbers of X that are looked at together: small enough to stay near
# Of its mean: a standard deviation under it is rounding in float64, or less than the last digit of float32.
CONSTANT = {torch.float64: 16 * EPS, torch.float32: torch.finfo(torch.float32).eps}
NARROWEST = 64  # columns in a block at least
FEW_DIGITS = 1e-6  # of a mean square, from which on a variance is no difference of it and the mean's square
TOO_SMALL, TOO_SMALL_SINGLE = 1e-150, 1e-18  # differences of a column under it underflow when squared
TOO_LARGE_SINGLE = 1e15  # beyond, sums of squares overflow in float32


@dataclass(frozen=True)
class Problem:
    """min over (b, b0) of  Σ_i w_i (y_i − b0 − x_i·b)² + α Σ_j f_j b_j².

    Args:
        X: inputs (n, p), as they were given: never copied whole, and sparse ones never made dense.
        y: targets (n, t), float64.
        weights: w, of mean 1 over all rows (n,); None where all are 1.
        penalty: f ≥ 0 (p,); None where all are 1.
        intercept: free of the penalty, penalised like a column of ones, or none.
        standardize: divide columns by their standard deviation, over the rows that are fitted.
    """

    X: Float[Tensor, "n p"] | SparseInputs
    y: Float64[Tensor, "n t"]
    weights: Float64[Tensor, " n"] | None = None
    penalty: Float64[Tensor, " p"] | None = None
    intercept: Intercept = "free"
    standardize: bool = False

    @property
    def root(self) -> Float64[Tensor, " n"] | None:
        """√w, by which rows are multiplied."""
        return None if self.weights is None else self.weights.sqrt()

    def of_rows(self, rows: Int64[Tensor, " m"]) -> "Problem":
        """The same on some of the rows: a copy of those."""
        weights = None if self.weights is None else self.weights[rows]
        return Problem(self.X[rows], self.y[rows], weights, self.penalty, self.intercept, self.standardize)

    def dense(self) -> "Problem":
        """The same with X as a tensor whose rows lie in memory one after the other."""
        X = self.X.dense() if isinstance(self.X, SparseInputs) else self.X.contiguous()
        return Problem(X, self.y, self.weights, self.penalty, self.intercept, self.standardize)

    @cached_property
    def thin(self) -> tuple[Int64[Tensor, " w"], SparseInputs] | None:
        """Of sparse inputs the columns that are not crowded, with their places; None where there are none."""
        if not isinstance(self.X, SparseInputs):
            return None
        some = (~self.X.crowded(self.weights)).nonzero()[:, 0]
        return (some, self.X.of_columns(some)) if len(some) else None

    @cached_property
    def _crowded(self) -> tuple[Int64[Tensor, " h"], SparseInputs]:
        assert isinstance(self.X, SparseInputs)
        some = self.X.crowded(self.weights).nonzero()[:, 0]
        return some, self.X.of_columns(some)

    def blocks(self) -> Iterator[tuple[slice | Int64[Tensor, " w"], Float[Tensor, "n w"]]]:
        """Yield the columns, or of sparse inputs the crowded ones, in dense blocks, with their places."""
        n, p = self.X.shape
        if isinstance(self.X, SparseInputs):
            places, crowded = self._crowded
            for J in blocks(n, len(places)):
                whole = J.stop - J.start == len(places)
                some = crowded if whole else crowded.of_columns(torch.arange(J.start, J.stop))
                yield places[J], some.dense()
        else:
            for J in blocks(n, p):
                yield J, self.X[:, J]


@dataclass(frozen=True)
class Columns:
    """How columns enter: z_j = (x_j − mean_j) · factor_j.

    Args:
        mean: weighted means, zero unless the intercept is free (p,).
        y_mean: the targets' likewise (t,).
        factor: 1/(sd_j √f_j); zero for columns that are constant or not penalised (p,).
        free: places of the unpenalised columns (q0,).
        constant: places of the columns that do not vary (c,).
        ones: whether a penalised column of ones is added.
    """

    mean: Float64[Tensor, " p"]
    y_mean: Float64[Tensor, " t"]
    factor: Float64[Tensor, " p"]
    free: Int64[Tensor, " q0"]
    constant: Int64[Tensor, " c"]
    ones: bool


def means_and_sds(problem: Problem) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
    """Weighted means and standard deviations (1/n) of the columns; exactly 0 for a constant one."""
    n, p = problem.X.shape
    mean, sd = problem.y.new_zeros(p), problem.y.new_zeros(p)
    weights = problem.y.new_ones(n) if problem.weights is None else problem.weights
    for J, block in problem.blocks():
        mean[J], sd[J] = mean_and_sd(block.double(), weights)
    if problem.thin is not None:
        J, thin = problem.thin
        share = weights / weights.sum()
        mean[J] = thin.transposed_times(share)
        sd[J] = (
            (replace(thin, values=thin.values**2).transposed_times(share) - mean[J] ** 2).clamp_min(0).sqrt()
        )
    return mean, torch.where(is_constant(mean, sd, problem.X.dtype), 0, sd)


def correlations(problem: Problem) -> Float64[Tensor, "p t"]:
    """Weighted correlations of the columns with the targets; NaN where one of them does not vary."""
    n, p = problem.X.shape
    weights = problem.y.new_ones(n) if problem.weights is None else problem.weights
    share = weights / weights.sum()
    y = problem.y - share @ problem.y
    y = y - share @ y  # or what is left of a large mean meets that of a column
    against = torch.cat([share[None], (y * share[:, None]).mT])
    sums, square = problem.y.new_empty(len(against), p), problem.y.new_empty(p)
    buffer = None  # one for all blocks, as in `_penalized_blocks`
    for J, block in problem.blocks():
        block = block.double()
        if buffer is None or buffer.shape != block.shape:
            buffer = torch.empty_like(block)
        sums[:, J] = matmul(against, block)
        square[J] = matmul(share[None], torch.mul(block, block, out=buffer))[0]
    if problem.thin is not None:
        J, thin = problem.thin
        sums[:, J] = thin.transposed_times(against.mT).mT
        square[J] = replace(thin, values=thin.values**2).transposed_times(share)
    variance = square - sums[0] ** 2
    for some in (variance < FEW_DIGITS * square).nonzero()[:, 0].split(max(NARROWEST, BLOCK // n)):
        X = problem.X
        block = X.of_columns(some).dense() if isinstance(X, SparseInputs) else X[:, some]
        mean, sd = mean_and_sd(block.double(), weights)
        variance[some] = torch.where(is_constant(mean, sd, X.dtype), 0, sd**2)
    size = variance.clamp_min(0).sqrt()[:, None] * (share @ y**2).sqrt()
    return sums[1:].mT / torch.where(size > 0, size, torch.nan)


def is_constant(
    mean: Float64[Tensor, "*K p"], sd: Float64[Tensor, "*K p"], dtype: torch.dtype
) -> Bool[Tensor, "*K p"]:
    """Whether columns are constant: their standard deviation is no more than rounding of their mean."""
    return sd <= CONSTANT[dtype] * mean.abs()


def constant_columns(problem: Problem) -> Int64[Tensor, " c"]:
    """Places of the columns that do not vary, by `is_constant`; a few rows rule out almost all others."""
    X, weights = problem.X, problem.weights
    if isinstance(X, SparseInputs):
        return (means_and_sds(problem)[1] == 0).nonzero()[:, 0]
    n, w = len(X), problem.y.new_ones(len(X)) if weights is None else weights
    rows = w.topk(min(4, n)).indices
    few, most = X[rows].double(), 4 * CONSTANT[X.dtype] * (n / w[rows]).sqrt()[:, None]
    suspects = ((few - few[0]).abs() <= most * few[0].abs()).all(0).nonzero()[:, 0]
    if len(suspects) == 0:
        return suspects
    constant = []
    for some in suspects.split(max(NARROWEST, BLOCK // n)):
        mean, sd = mean_and_sd(X[:, some].double(), w)
        constant.append(some[is_constant(mean, sd, X.dtype)])
    return torch.cat(constant)


def mean_and_sd(block: Float64[Tensor, "n w"], w: Float64[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Weighted; the mean in two steps, so that a constant column's sd is far under its rounding."""
    mean = w @ block / w.sum()
    away = block - mean
    offset = w @ away / w.sum()
    return mean + offset, (w @ (away - offset) ** 2 / w.sum()).sqrt()


def columns(problem: Problem) -> Columns:
    """Means and factors over the problem's rows.

    Raises:
        FloatingPointError: a column to be standardised has a standard deviation that is not finite.
    """
    n, p = problem.X.shape
    penalty = problem.y.new_ones(p) if problem.penalty is None else problem.penalty
    mean, divisor = problem.y.new_zeros(p), penalty.sqrt()
    if problem.standardize:
        mean, sd = means_and_sds(problem)
        if not bool(sd.isfinite().all()):  # a factor of 0 would hide the column and its cell that is not
            raise FloatingPointError
        divisor = sd * divisor
    elif problem.intercept == "free":
        share = problem.y.new_ones(n) if problem.weights is None else problem.weights
        share = share / share.sum()
        for J, block in problem.blocks():
            mean[J] = share @ block.double()
        if problem.thin is not None:
            J, thin = problem.thin
            mean[J] = thin.transposed_times(share)
    factor, free = torch.where(divisor > 0, 1 / divisor, 0), penalty == 0
    constant = constant_columns(problem)
    if problem.intercept == "free":  # beside a constant of its own a constant column has nothing to say
        factor[constant], free[constant] = 0, False
    y_mean = weighted_mean(problem.y, problem.weights)
    about_zero = 0.0 if problem.intercept != "free" else 1.0
    return Columns(
        mean * about_zero,
        y_mean * about_zero,
        factor,
        free.nonzero()[:, 0],
        constant,
        problem.intercept == "penalized",
    )


def weighted_mean(y: Float64[Tensor, "n t"], weights: Float64[Tensor, " n"] | None) -> Float64[Tensor, " t"]:
    """Means of the columns of y (t,), exact where one is constant."""
    mean = y.mean(0) if weights is None else weights @ y / weights.sum()
    return torch.where((y == y[0]).all(0), y[0], mean)


def target_variance(problem: Problem) -> Float64[Tensor, " t"]:
    """The targets' weighted variances, divided by n."""
    mean = weighted_mean(problem.y, problem.weights)
    return weighted_mean((problem.y - mean) ** 2, problem.weights)


def unpenalized(problem: Problem, cols: Columns) -> Float64[Tensor, "n q"]:
    """The part without penalty: the constant where the intercept is free, and free columns, centred."""
    X = problem.X
    free = X.of_columns(cols.free).dense() if isinstance(X, SparseInputs) else X[:, cols.free].double()
    parts = [free - cols.mean[cols.free]]
    if problem.intercept == "free":
        parts.insert(0, problem.y.new_ones(len(problem.X), 1))
    return torch.cat(parts, dim=1)


def blocks(n: int, p: int) -> Iterator[slice]:
    """Slices of columns of about `BLOCK` numbers each."""
    # Not so narrow that adding up n × n products costs more than they.
    width = max(NARROWEST, n, BLOCK // max(1, n))
    for first in range(0, p, width):
        yield slice(first, min(first + width, p))


def products_of_rows(problem: Problem, cols: Columns) -> Float64[Tensor, "n n"]:
    """Z Z', the products of the rows as they are penalised, centred and scaled; one pass over X."""
    n = len(problem.X)
    K = problem.y.new_zeros(n, n)
    for _, block in _penalized_blocks(problem, cols):
        K += gram(block)
    if problem.thin is not None:
        J, thin = problem.thin
        mean, factor = cols.mean[J], cols.factor[J]
        K += thin.products_of_rows(factor)
        if bool(mean.any()):  # less the means: −a_i − a_k + m'm
            scaled = mean * factor**2
            along = thin @ scaled - mean @ scaled / 2
            K -= along[:, None]
            K -= along
    return K


def across_rows(
    problem: Problem, cols: Columns, A: Float64[Tensor, "k n"]
) -> Iterator[tuple[slice | Int64[Tensor, " w"], Float64[Tensor, "k w"]]]:
    """Yield A Z in blocks of columns, with their places."""
    for J, block in _penalized_blocks(problem, cols):
        yield J, matmul(A, block)
    if problem.thin is not None:
        J, thin = problem.thin
        total = A.sum(1)
        for some in torch.arange(len(J)).split(max(NARROWEST, BLOCK // len(A))):
            part = thin if len(some) == len(J) else thin.of_columns(some)
            mean, factor = cols.mean[J[some]], cols.factor[J[some]]
            yield J[some], (part.transposed_times(A.mT).mT - total[:, None] * mean) * factor


def _penalized_blocks(
    problem: Problem, cols: Columns
) -> Iterator[tuple[slice | Int64[Tensor, " w"], Float64[Tensor, "n w"]]]:
    """The columns that are penalised, centred and scaled, each block in the memory of the last.

    Of sparse inputs those that are crowded.
    """
    plain = bool((cols.factor == 1).all())
    n, p = problem.X.shape
    buffer = None  # one for all blocks: new memory for each would cost as much as the products
    for J, block in problem.blocks():
        if buffer is None or buffer.shape != block.shape:
            buffer = torch.empty(block.shape, dtype=torch.float64, device=block.device)
        torch.sub(block, cols.mean[J], out=buffer)
        yield J, buffer if plain else buffer.mul_(cols.factor[J])
    if cols.ones:
        yield slice(p, p + 1), problem.y.new_ones(n, 1)


# Options and data as they are given, checked.


@runtime_checkable
class CommonOptions(Protocol):
    """What the options of all paths say of rows and columns."""

    @property
    def sample_weight(self) -> Any: ...  # noqa: D102
    @property
    def penalty_factors(self) -> Any: ...  # noqa: D102
    @property
    def intercept(self) -> Intercept: ...  # noqa: D102
    @property
    def standardize(self) -> bool: ...  # noqa: D102
    @property
    def columns(self) -> ColumnOptions: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class RidgeOptions:
    """The options of `weightdecay.ridge_path`, whose docstring says what each of them means.

    Raises:
        InputError: an intercept that is none of the choices; a seed that is no whole number.
    """

    lambdas: Any = None
    cv: Any = 5
    unit: str = "canonical"
    seed: int = 0
    groups: Any = None
    sample_weight: Any = None
    penalty_factors: Any = None
    intercept: Intercept = "free"
    standardize: bool = False
    shared: bool = False
    drop: Sequence[str] = ()
    engine: Any = None
    on_progress: Callable[[int, int | None], None] | None = None
    columns: ColumnOptions = NOTHING_SAID

    def __post_init__(self) -> None:
        choice(self.intercept, "intercept", get_args(Intercept))
        if not isinstance(self.seed, int | np.integer):
            raise InputError("not a whole number", "seed", repr(self.seed), "give an integer")


@dataclass(frozen=True)
class Inputs:
    """A table as inputs.

    Args:
        X: numbers, NaN where a cell of a column of numbers is missing (n, p).
        coding: how the table's columns became inputs.
        empty: whether a row has a missing cell in another column, or None where none has (n,).
        left_out: how many rows were left out before, for a missing cell.
        missing_cells: says how many cells each column misses, and what to do; None where that is not known.
    """

    X: Float[Tensor, "n p"]
    coding: Coding
    empty: Bool[np.ndarray, " n"] | None = None
    left_out: int = 0
    missing_cells: Callable[[], str] | None = None

    def __len__(self) -> int:
        return len(self.X)


@dataclass(frozen=True)
class Checked:
    """A checked problem and what to call its parts.

    Args:
        problem: rows of positive weight only.
        rows: their numbers in the data as given, or None where all were kept (n,).
        coding: how columns became inputs, or None where they are numbers as they stand.
        left_out: how many rows are left out for a missing cell.
        holes: where means stand in for missing cells, or None (n, p).
        features: the columns' names, or None.
        targets: the targets' names, or None.
        single: whether y was given without an axis of targets.
        missing_cells: as of `Inputs`.
    """

    problem: Problem
    rows: Int64[Tensor, " n"] | None
    coding: Coding | None
    left_out: int
    holes: Bool[Tensor, "n p"] | None
    features: tuple[str, ...] | None
    targets: tuple[str, ...] | None
    single: bool
    missing_cells: Callable[[], str] | None = None


def checked(X: Any, y: Any, options: RidgeOptions) -> Checked:
    """Check the data and put them into one form. X is not copied where it is a tensor or array of floats.

    Whether its cells are finite is left to the sums that are made of them anyway; see `all_finite`.

    Raises:
        InputError: shapes that do not fit, cells that are not finite (the first is named), columns that are
            not numbers or that repeat a name, a constant target, weights that are negative or all zero.
    """
    targets = names_of(y)
    if targets is not None:
        no_name_twice(targets, "y")
    table = X if isinstance(X, Inputs) else coded_inputs(X, options)
    found = checked_rows(table, names_of(X), tensor_of(y, "y"), targets, options)
    target = found.problem.y
    if bool((target == target[0]).all()):
        name = targets[0] if targets else "y" if found.single else "y[:, 0]"
        raise InputError("the target is constant", name, float(target[0, 0]), "there is nothing to predict")
    not_too_small(found.problem.X, "X", found.features)
    not_too_small(target, "y", targets)
    return found


def checked_rows(
    table: Inputs | Tensor | SparseInputs,
    features: tuple[str, ...] | None,
    target: Float[Tensor, "n *t"],
    targets: tuple[str, ...] | None,
    options: CommonOptions,
    where: str = "y",
) -> Checked:
    """Check shapes, weights, missing cells and penalty factors, and keep the rows that take part.

    Args:
        table: the inputs.
        features: the columns' names where the table is not coded, or None.
        target: numbers, NaN where there is none.
        targets: their names, or None.
        options: what was asked for.
        where: what the target is called in an error.

    Raises:
        InputError: as `checked`.
    """
    inputs = table.X if isinstance(table, Inputs) else table
    coding, left_out = None, 0
    if isinstance(table, Inputs):
        coding = None if table.coding.plain else table.coding
        features, left_out = table.coding.features, table.left_out
    if inputs.ndim != 2:
        shape = tuple(inputs.shape)
        raise InputError(
            "not a table", "X", f"shape {shape}", "give (rows, columns); X[:, None] for one column"
        )
    n, p = inputs.shape
    if p == 0:
        raise InputError("no column is left as an input", "X", "shape (…, 0)", "give one column at least")
    single = target.ndim == 1
    target = target.to(device=inputs.device, dtype=torch.float64)
    target = target[:, None] if single else target
    if target.ndim != 2 or len(target) != n or target.shape[1] == 0:
        shape = tuple(target.shape[:1] if single else target.shape)
        raise InputError("not a target for each row", where, f"shape {shape}", f"X has {n} rows")
    if n < 2:
        raise InputError("too few rows", "X", n, "two are needed at least")
    weights, penalty, rows = options.sample_weight, options.penalty_factors, None
    weights = None if weights is None else vector(weights, n, "sample_weight", target)
    sparse = isinstance(inputs, SparseInputs)  # what is not stored there is 0, and not missing
    if options.columns.missing != "refuse":
        gone = target.isnan().any(1)
        if options.columns.missing == "drop" and not sparse:
            gone |= inputs.isnan().any(1)
            if isinstance(table, Inputs) and table.empty is not None:
                gone |= torch.from_numpy(table.empty).to(gone.device)
        if bool(gone.any()):
            left_out += int(gone.sum())
            weights = torch.where(gone, 0.0, target.new_ones(n) if weights is None else weights)
            target = target.nan_to_num(0.0)
            if int((weights > 0).sum()) < 2:
                what, remedy = "hardly a row is left: the others have missing cells", "drop columns instead"
                raise InputError(what, "X", f"{int((weights > 0).sum())} of {n} rows", remedy)
    if not bool(target.abs().sum() < TOO_LARGE):
        all_finite(target, where, targets)
    if weights is not None:
        if bool((weights == 0).any()):
            rows = weights.nonzero()[:, 0]
            if len(rows) < 2:
                raise InputError(
                    "too few rows of positive weight", "sample_weight", len(rows), "two are needed"
                )
            inputs, target, weights = inputs[rows], target[rows], weights[rows]
        weights = weights / weights.mean()
        weights = None if bool((weights == 1).all()) else weights
    holes = None
    if options.columns.missing == "mean" and isinstance(inputs, Tensor):
        known = table.coding if isinstance(table, Inputs) else plain_coding([str(j) for j in range(p)])
        inputs, holes, coding = with_means(inputs, known, weights)
        features, p = None if features is None else coding.features, inputs.shape[1]
        holes = holes if bool(holes.any()) else None
    penalty = None if penalty is None else factors(penalty, p, features, target, coding)
    if penalty is not None and bool((penalty == 1).all()):
        penalty = None
    problem = Problem(inputs, target, weights, penalty, options.intercept, options.standardize)
    counts = table.missing_cells if isinstance(table, Inputs) else None
    return Checked(problem, rows, coding, left_out, holes, features, targets, single, counts)


def column_means(
    X: Float[Tensor, "n p"], holes: Bool[Tensor, "n p"], weights: Float64[Tensor, " n"] | None
) -> Float64[Tensor, " p"]:
    """Weighted means of the cells that are not missing; 0 where all are."""
    w = torch.ones(len(X), dtype=torch.float64, device=X.device) if weights is None else weights
    total = w @ (~holes).double()
    return torch.where(total > 0, w @ torch.where(holes, 0, X.double()) / total.clamp_min(1e-300), 0)


def with_means(
    X: Float[Tensor, "n p"], coding: Coding, weights: Float64[Tensor, " n"] | None
) -> tuple[Float[Tensor, "n q"], Bool[Tensor, "n q"], Coding]:
    """Put the columns' means where cells are missing, with a column that says where if these are many.

    Returns:
        The inputs, where means stand in, and the coding that does so with new rows.
    """
    holes = X.isnan()
    means, share = column_means(X, holes, weights), holes.double().mean(0)
    place, numbers = 0, {}
    for column in coding.inputs:
        if column.role != "category":
            numbers[column.name] = place
        place += len(column.features)
    coding = coding.filled(
        {name: float(share[place]) for name, place in numbers.items()},
        {name: float(means[place]) for name, place in numbers.items()},
    )
    X = torch.where(holes, means.to(X.dtype), X)
    indicators = {numbers[column.name] for column in coding.inputs if column.indicator}
    if not indicators:
        return X, holes, coding
    none = torch.zeros(len(X), 1, dtype=torch.bool, device=X.device)
    parts, marks = [], []
    for place in range(X.shape[1]):
        parts.append(X[:, place : place + 1])
        marks.append(holes[:, place : place + 1])
        if place in indicators:
            parts.append(holes[:, place : place + 1].to(X.dtype))
            marks.append(none)
    return torch.cat(parts, 1), torch.cat(marks, 1), coding


def coded_inputs(X: Any, options: CommonOptions) -> Inputs | Tensor | SparseInputs:
    """Return a frame as inputs, its columns coded by what they are; anything else as a tensor.

    Raises:
        InputError: as `checked`; a column of dates, a category of too many levels; the options name a
            column that is not there, or X is no frame.
    """
    names, said = names_of(X), options.columns
    if names is None or not hasattr(X, "columns") or is_sparse(X):
        named = next((name for name in ("category", "number", "dates") if getattr(said, name)), None)
        if named is not None:
            value = repr(getattr(said, named))
            raise InputError("only for tables with named columns", named, value, "give a frame, or a file")
        return inputs_of(X, "X")
    no_name_twice(names, "X")
    if not names or not len(X):
        return inputs_of(X, "X")
    places = {name: place for place, name in enumerate(names)}

    def some(wanted: Sequence[str], rows: int | None = None) -> pl.DataFrame:
        return _series(X, [places[name] for name in wanted], wanted, rows)

    cells = Cells(
        names,
        some,
        lambda measured, texts: iter([some([*measured, *texts])]),
        numbers,
        "X",
        lambda name: f"X[:, {name!r}]",
        lambda option, value: f"{option}={value!r}",
    )
    coding = learn(cells, {}, said, constants=options.intercept == "free").or_refused().coding

    def counts() -> str:
        return missing_cells(iter([some(coding.names)]), "missing='drop'", "missing='mean'")

    if coding.plain:
        return Inputs(tensor_of(X, "X"), coding, missing_cells=counts)
    try:
        return replace(_coded(X, places, coding, "X", said.missing != "refuse"), missing_cells=counts)
    except InputError as error:
        if not str(error.what).startswith("a cell is empty") or isinstance(error.value, float):
            raise
        raise InputError(error.what, error.where, error.value, counts()) from None


def _coded(
    X: Any,
    places: Mapping[str, int],
    coding: Coding,
    where: str,
    missing: bool = False,
    unseen: str = "refuse",
) -> Inputs:
    """Code the columns of a frame."""
    order = [places[name] for name in coding.numbers]
    values = torch.zeros(len(X), 0, dtype=torch.float64)
    if order:
        values = tensor_of(X[:, order] if isinstance(X, pl.DataFrame) else X.iloc[:, order], where)
    named = _series(X, [places[name] for name in coding.texts], coding.texts).get_columns()
    if named:
        values = values.double()
    values, empty = coding.coded(
        values, named, lambda row, name: f"{where}[{row}, {name!r}]", missing, unseen
    )
    return Inputs(values, coding, empty)


NO_INPUT = (bytes, complex, list, tuple, dict, set, np.ndarray, time, timedelta)  # as a cell of a frame


def _series(X: Any, places: Sequence[int], names: Sequence[str], rows: int | None = None) -> pl.DataFrame:
    """Some columns of a frame, and some first rows, as polars has them; texts where only Python knows."""
    if isinstance(X, pl.DataFrame):
        X = X if rows is None else X.head(rows)
        return pl.DataFrame({name: X.to_series(place) for place, name in zip(places, names, strict=True)})
    X = X if rows is None else X.iloc[:rows]
    columns: dict[str, pl.Series] = {}
    for place, name in zip(places, names, strict=True):
        column, dtype = X.iloc[:, place], X.dtypes.iloc[place]
        kind = getattr(dtype, "kind", "O")
        if isinstance(dtype, np.dtype) and kind in "iufbM":
            cells = column.to_numpy()
            columns[name] = pl.Series(cells.astype("datetime64[us]") if kind == "M" else cells)
        elif kind == "M":  # with a time zone
            utc = column.dt.tz_convert("UTC").dt.tz_localize(None)
            columns[name] = pl.Series(utc.to_numpy().astype("datetime64[us]"))
        elif kind == "m":
            columns[name] = pl.Series(column.to_numpy().astype("timedelta64[us]"))
        elif kind == "c":
            raise not_an_input(str(dtype), f"X[:, {name!r}]", f"drop={name!r}")
        elif kind in "iuf":
            columns[name] = pl.Series(column.to_numpy(dtype=np.float64, na_value=np.nan))
        else:
            cells = column.astype(object).where(column.notna(), None)
            strange = next((type(cell).__name__ for cell in cells if isinstance(cell, NO_INPUT)), None)
            if strange is not None:
                raise not_an_input(strange, f"X[:, {name!r}]", f"drop={name!r}")
            as_text = pl.Series(_texts(cells), dtype=pl.String)
            if kind == "b":
                as_text = as_text.replace({"1.0": "true", "0.0": "false"})
            typed = hasattr(dtype, "categories") or kind == "b"
            columns[name] = as_text.cast(pl.Categorical) if typed else as_text
    return pl.DataFrame(columns)


def names_of(values: Any) -> tuple[str, ...] | None:
    """The column names of a polars or pandas DataFrame, or of a Series; None for a tensor or an array."""
    if isinstance(values, pl.DataFrame) or (hasattr(values, "iloc") and hasattr(values, "columns")):
        return tuple(str(name) for name in values.columns)
    if not (isinstance(values, pl.Series) or hasattr(values, "iloc")) or values.name in (None, ""):
        return None
    return (str(values.name),)


def collected(values: Any, where: str) -> Any:
    """A polars LazyFrame or a table of Arrow as a polars DataFrame; anything else as it is.

    Raises:
        InputError: its rows cannot be read.
    """
    try:
        if isinstance(values, pl.LazyFrame):
            return values.collect()
        table = hasattr(values, "__arrow_c_stream__") and not hasattr(values, "iloc")
        if not table or isinstance(values, pl.DataFrame | pl.Series):
            return values
        series = pl.Series(values)
        return series.struct.unnest() if series.dtype == pl.Struct else series
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("the table cannot be read", where, reason, "mend the query") from error


def inputs_of(values: Any, where: str) -> Float[Tensor, "..."] | SparseInputs:
    """Inputs in the form that `Problem` takes.

    Raises:
        InputError: not a table of real numbers.
    """
    return sparse_inputs(values, where) if is_sparse(values) else tensor_of(values, where)


def tensor_of(values: Any, where: str) -> Float[Tensor, "..."]:
    """A float32 or float64 tensor, on the same memory where that can be.

    Args:
        values: numbers: a tensor, an array, lists, or a DataFrame or Series, whose empty cells become NaN.
            Text is read as in a file: see `cells.numbers`.
        where: the argument to name in an error.

    Raises:
        InputError: not real numbers in a dense form; the column is named where it has a name.
    """
    values = collected(values, where)
    if values is None:
        raise InputError("nothing is given", where, repr(None), "give numbers")
    if not isinstance(values, Tensor):
        if hasattr(values, "tocsr"):
            raise _unsupported("sparse", where, type(values).__name__)
        try:
            array = _array(values, where)
            if array.dtype.kind == "c":
                raise _unsupported("complex", where, array.dtype)
            if array.dtype.kind in "SUOmM" and array.ndim in (1, 2):
                array = _read(array, where)
            if array.dtype.kind not in "iufb":
                what = {"U": "text", "S": "text", "O": type(values).__name__}
                raise TypeError(what.get(array.dtype.kind, f"{array.dtype} values"))
            values = torch.from_numpy(_plain(array))
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(
                "not numbers", where, str(error)[:80], "convert text to numbers, or leave it out"
            ) from error
    if values.is_complex():
        raise _unsupported("complex", where, values.dtype)
    if values.layout != torch.strided:
        raise _unsupported("sparse", where, values.layout)
    values = values.detach()
    return values if values.dtype in (torch.float32, torch.float64) else values.double()


def _unsupported(what: str, where: str, kind: Any) -> InputError:
    return InputError(f"{what} values are not supported", where, kind, "give real, dense numbers")


def _array(values: Any, where: str) -> np.ndarray:
    if isinstance(values, pl.DataFrame | pl.Series):
        return _polars(values, where)
    return _pandas(values, where) if hasattr(values, "iloc") else np.asarray(values)


def _polars(values: Any, where: str) -> np.ndarray:
    frame = values.to_frame() if isinstance(values, pl.Series) else values
    same = len(set(frame.dtypes)) == 1 and frame.dtypes[0] in (pl.Float32, pl.Float64)
    array = frame.to_numpy() if same else _side_by_side(frame.get_columns(), where)
    return array[:, 0] if isinstance(values, pl.Series) else array


def _pandas(values: Any, where: str) -> np.ndarray:
    frame = values if values.ndim == 2 else values.to_frame()
    dtypes = list(frame.dtypes)
    if all(getattr(dtype, "kind", "O") in "iufb" for dtype in dtypes):
        if dtypes and all(dtype == dtypes[0] for dtype in dtypes) and isinstance(dtypes[0], np.dtype):
            return values.to_numpy()
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    columns = []
    for place, dtype in enumerate(dtypes):
        column = frame.iloc[:, place]
        if getattr(dtype, "kind", "O") in "iufb":
            cells = pl.Series(column.to_numpy(dtype=np.float64, na_value=np.nan))
        else:
            cells = pl.Series(_texts(column.astype(object).where(column.notna(), None)), dtype=pl.String)
        columns.append(cells.alias(str(column.name)))
    array = _side_by_side(columns, where)
    return array if values.ndim == 2 else array[:, 0]


def _read(array: np.ndarray, where: str) -> np.ndarray:
    """Texts or objects as numbers."""
    table = array.astype(str) if array.dtype.kind in "mM" else array
    table = table if table.ndim == 2 else table[:, None]
    columns = [pl.Series(str(j), _texts(table[:, j]), pl.String) for j in range(table.shape[1])]
    return _side_by_side(columns, where, named=False).reshape(array.shape)


def _texts(cells: Any) -> list[str | None]:
    """Each cell as text; what Python takes for a number as that number."""
    return [_text(cell) for cell in cells]


def _text(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    try:
        return repr(float(cell))
    except (TypeError, ValueError, OverflowError):
        return str(cell)


def _side_by_side(columns: Sequence[pl.Series], where: str, named: bool = True) -> np.ndarray:
    """Columns as float64, NaN where a cell is empty.

    Raises:
        InputError: a cell of text is no number; the first cell that cannot be used is named.
    """
    read = [numbers(column) for column in columns]
    if not all(is_plain(column.dtype) for column in columns):
        unread = (
            cells.null_count() > absent(column).sum() for cells, column in zip(read, columns, strict=True)
        )
        if any(unread):
            refuse_cell(columns, lambda row, name: f"{where}[{row}, {repr(name) if named else name}]")
    return np.stack([cells.to_numpy() for cells in read], 1) if read else np.empty((0, 0))


def _plain(array: np.ndarray) -> np.ndarray:
    """Torch has no read-only tensors, negative strides or swapped bytes."""
    plain = array.dtype.isnative and all(stride >= 0 for stride in array.strides)
    if array.dtype not in (np.float32, np.float64) or not plain:
        return array.astype(
            np.float32 if array.dtype.kind == "f" and array.dtype.itemsize == 4 else np.float64
        )
    if array.flags.writeable:
        return array
    view = array.view()
    try:
        view.flags.writeable = True
    except ValueError:
        return array.copy()
    return view


def all_finite(
    values: Float[Tensor, "n p"] | SparseInputs,
    where: str,
    names: Sequence[str] | None,
    missing_cells: Callable[[], str] | None = None,
) -> None:
    """Check that every cell is finite, and its square, too.

    Raises:
        InputError: one is not; the first is named.
    """
    largest = TOO_LARGE if values.dtype == torch.float64 else TOO_LARGE_SINGLE
    what = f"a cell is empty, not finite or beyond {largest:.0e}".replace("e+", "e")

    def refuse(row: int, place: int, value: float) -> InputError:
        name = repr(names[place]) if names else place
        remedy = "fill it, or leave the row out"
        if missing_cells is not None and value != value:
            remedy = missing_cells()
        return InputError(what, f"{where}[{row}, {name}]", value, remedy)

    if isinstance(values, SparseInputs):
        for k in (~(values.values.abs() < largest)).nonzero()[:1, 0]:
            raise refuse(int(values.row[k]), int(values.col[k]), float(values.values[k]))
        return
    for J in blocks(*values.shape):
        wrong = ~(values[:, J].abs() < largest)
        if bool(wrong.any()):
            row, column = (int(i) for i in wrong.nonzero()[0])
            place = (J.start or 0) + column
            raise refuse(row, place, float(values[row, place]))


def not_too_small(
    values: Float[Tensor, "n p"] | SparseInputs, where: str, names: Sequence[str] | None
) -> None:
    """Raise if a column varies by so little that its squares underflow; a few rows rule out almost all."""
    least = TOO_SMALL if values.dtype == torch.float64 else TOO_SMALL_SINGLE
    suspects = torch.arange(values.shape[1], device=values.device)
    if isinstance(values, SparseInputs):
        most = values.ranges()
        suspects, most = suspects[most < least], most[most < least]
    else:
        most = suspects[:0]
        for rows in (4, 128, len(values)):
            if len(suspects) == 0:
                return
            most = (values[:rows, suspects] - values[0, suspects]).abs().amax(0)
            suspects, most = suspects[most < least], most[most < least]
    wrong = (most > 0).nonzero()[:, 0]
    if len(wrong):
        place = int(suspects[wrong[0]])
        what = f"a column varies by less than {least:.0e}, too little for its squares"
        column = repr(names[place]) if names else place
        raise InputError(what, f"{where}[:, {column}]", float(most[wrong[0]]), "multiply it, or leave it out")


def factors(
    values: Any, p: int, names: Sequence[str] | None, like: Tensor, coding: Coding | None = None
) -> Float64[Tensor, " p"]:
    """Penalty factors as a vector.

    Args:
        values: a factor for each column, or {name: factor}, 1 for the columns that are not in it.
        p: the number of columns.
        names: theirs, or None.
        like: a tensor on the device they are wanted on.
        coding: of the columns; a factor of a category is that of all its levels.
    """
    if coding is not None:
        values = coding.spread(values)
    if isinstance(values, Mapping):
        if names is None:
            what = "the columns have no names"
            raise InputError(what, "penalty_factors", "by name", f"give {p} numbers, or a DataFrame")
        by_name = {str(name): factor for name, factor in values.items()}
        unknown = next((name for name in by_name if name not in names), None)
        if unknown is not None:
            raise no_such_column(unknown, names, "penalty_factors", "X has")
        values = [by_name.get(name, 1.0) for name in names]
    return vector(values, p, "penalty_factors", like)


def vector(values: Any, size: int, where: str, like: Tensor) -> Float64[Tensor, " m"]:
    """A vector of numbers of 0 or more, not all 0."""
    vector = tensor_of(values, where).to(device=like.device, dtype=torch.float64)
    if vector.shape != (size,):
        raise InputError("the wrong number of values", where, f"shape {tuple(vector.shape)}", f"give {size}")
    wrong = ~((vector >= 0) & (vector < TOO_LARGE))
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        raise InputError(
            "negative or not finite", f"{where}[{place}]", float(vector[place]), "give 0 or more"
        )
    if not bool(vector.any()):
        what = "every row has weight 0" if where == "sample_weight" else "nothing is penalised"
        raise InputError(what, where, "all 0", "give one above 0 at least")
    return vector


def matched(
    X: Any,
    features: Sequence[str] | None,
    p: int,
    where: str = "X",
    coding: Coding | None = None,
    unseen: str = "refuse",
) -> Float64[Tensor, "m p"] | SparseInputs:
    """The columns a model knows, in its order, as float64; sparse ones stay so.

    A table with named columns is matched by name, in any order; a tensor or an array by place.

    Args:
        X: tensor or array (m, p), sparse or not, or a polars or pandas DataFrame, a LazyFrame or a pyarrow
            Table.
        features: the model's columns, or None where it was fitted without names.
        p: how many there are.
        where: the argument to name in an error.
        coding: how the columns of a table become the features, or None where they are numbers.
        unseen: take levels that the coding does not know as the most frequent one ("base"), or refuse them.

    Raises:
        InputError: a column is missing, unknown or there twice; the wrong number of columns; a cell that is
            no finite number, which is named.

    >>> matched(pl.DataFrame({"b": [2], "a": [1]}), ("a", "b"), 2)
    tensor([[1., 2.]], dtype=torch.float64)
    """
    X = collected(X, where)
    names = names_of(X)
    if names is not None and features is not None and hasattr(X, "columns"):
        known, left_out = (features, ()) if coding is None else (coding.names, coding.left_out)
        check_names([name for name in names if name not in left_out or name in known], known, where)
        places = {name: place for place, name in enumerate(names)}
        if coding is not None:
            coded = _coded(X, places, coding, where, unseen=unseen).X.double()
            all_finite(coded, where, features)
            return coded
        order = [places[name] for name in features]
        X = X[:, order] if isinstance(X, pl.DataFrame) else X.iloc[:, order]
    numbers = inputs_of(X, where)
    if isinstance(numbers, Tensor):
        numbers = numbers.double()
        fills = coding is not None and coding.fills and not coding.texts
        if coding is not None and fills and numbers.shape[1:] == (len(coding.names),):
            filled = coding.coded(
                numbers.cpu(), [], lambda row, name: f"{where}[{row}, {name}]", missing=True
            )
            numbers = filled[0].to(numbers.device)
    if numbers.ndim != 2 or numbers.shape[1] != p:
        shape = tuple(numbers.shape)
        raise InputError("the wrong shape", where, shape, f"give (rows, {p}): a column for each feature")
    all_finite(numbers, where, features)
    return numbers
