"""What a person gives -> a checked problem: tensors, arrays or DataFrames; weights and penalties."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.columns import Intercept, Problem, blocks
from weightdecay.tables.cells import TOO_LARGE

TOO_SMALL, TOO_SMALL_SINGLE = 1e-150, 1e-18  # differences of a column under it underflow when squared
TOO_LARGE_SINGLE = 1e15  # beyond, sums of squares overflow in float32


@dataclass(frozen=True)
class Given:
    """A checked problem and what to call its parts.

    Args:
        problem: rows of positive weight only.
        rows: their numbers in the data as given, or None where all were kept (n,).
        features: the columns' names, or None.
        targets: the targets' names, or None.
        single: whether y was given without an axis of targets.
    """

    problem: Problem
    rows: Int64[Tensor, " n"] | None
    features: tuple[str, ...] | None
    targets: tuple[str, ...] | None
    single: bool


def checked(
    X: Any,
    y: Any,
    sample_weight: Any = None,
    penalty_factors: Any = None,
    intercept: Intercept = "free",
    standardize: bool = False,
) -> Given:
    """Check the data and put them into one form. X is not copied where it is a tensor or array of floats.

    Whether its cells are finite is left to the sums that are made of them anyway; see `all_finite`.

    Raises:
        InputError: shapes that do not fit, cells that are not finite (the first is named), columns that are
            not numbers or that repeat a name, a constant target, weights that are negative or all zero.
    """
    features, targets = names_of(X), names_of(y)
    no_name_twice(features, "X")
    no_name_twice(targets, "y")
    inputs, target = tensor_of(X, "X"), tensor_of(y, "y")
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
        raise InputError("not a target for each row", "y", f"shape {shape}", f"X has {n} rows")
    if n < 2:
        raise InputError("too few rows", "X", n, "two are needed at least")
    if not bool(target.abs().sum() < TOO_LARGE):
        all_finite(target, "y", targets)
    weights = None if sample_weight is None else vector(sample_weight, n, "sample_weight", inputs)
    penalty = None if penalty_factors is None else factors(penalty_factors, p, features, inputs)
    checked_choice(intercept)
    rows = None
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
    if bool((target == target[0]).all()):
        name = targets[0] if targets else "y" if single else "y[:, 0]"
        raise InputError("the target is constant", name, float(target[0, 0]), "there is nothing to predict")
    not_too_small(inputs, "X", features)
    not_too_small(target, "y", targets)
    if penalty is not None and bool((penalty == 1).all()):
        penalty = None
    problem = Problem(inputs, target, weights, penalty, intercept, standardize)
    return Given(problem, rows, features, targets, single)


def names_of(values: Any) -> tuple[str, ...] | None:
    """The column names of a polars or pandas DataFrame, or of a Series; None for a tensor or an array."""
    if isinstance(values, pl.DataFrame) or (hasattr(values, "iloc") and hasattr(values, "columns")):
        return tuple(str(name) for name in values.columns)
    if not (isinstance(values, pl.Series) or hasattr(values, "iloc")) or values.name in (None, ""):
        return None
    return (str(values.name),)


def no_name_twice(names: Sequence[str] | None, where: str) -> None:
    """Raise if two columns have one name."""
    seen: set[str] = set()
    for name in names or ():
        if name in seen:
            raise InputError("two columns have one name", where, repr(name), "rename one of them")
        seen.add(name)


def tensor_of(values: Any, where: str) -> Float[Tensor, "..."]:
    """A float32 or float64 tensor, on the same memory where that can be.

    Args:
        values: numbers: a tensor, an array, lists, or a DataFrame or Series, whose empty cells become NaN.
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
            if array.dtype.kind not in "iufbO":
                raise TypeError("text" if array.dtype.kind in "SU" else f"{array.dtype} values")
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


def _unsupported(what: str, where: str, found: Any) -> InputError:
    return InputError(f"{what} values are not supported", where, found, "give real, dense numbers")


def _array(values: Any, where: str) -> np.ndarray:
    if isinstance(values, pl.DataFrame | pl.Series):
        return _polars(values, where)
    return _pandas(values, where) if hasattr(values, "iloc") else np.asarray(values)


def _polars(values: Any, where: str) -> np.ndarray:
    frame = values.to_frame() if isinstance(values, pl.Series) else values
    for column in frame:
        if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
            raise _no_numbers(column.name, where, column.dtype)
    same = len(set(frame.dtypes)) == 1 and frame.dtypes[0] in (pl.Float32, pl.Float64)
    array = (frame if same else frame.cast(pl.Float64)).to_numpy()
    return array[:, 0] if isinstance(values, pl.Series) else array


def _pandas(values: Any, where: str) -> np.ndarray:
    columns, dtypes = (values.columns, list(values.dtypes)) if values.ndim == 2 else ([None], [values.dtype])
    for name, dtype in zip(columns, dtypes, strict=True):
        if getattr(dtype, "kind", "O") not in "iufb":
            raise _no_numbers(values.name if name is None else name, where, dtype)
    same = dtypes and all(dtype == dtypes[0] for dtype in dtypes)
    if same and isinstance(dtypes[0], np.dtype):
        return values.to_numpy()
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def _no_numbers(name: Any, where: str, dtype: Any) -> InputError:
    place = where if name in (None, "") else f"column {str(name)!r} of {where}"
    return InputError("a column is not numeric", place, dtype, "drop it, or convert it")


def _plain(array: np.ndarray) -> np.ndarray:
    """Torch has no read-only tensors, negative strides or swapped bytes."""
    plain = array.dtype.isnative and all(stride >= 0 for stride in array.strides)
    if array.dtype not in (np.float32, np.float64) or not plain:
        return array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    if array.flags.writeable:
        return array
    view = array.view()
    try:
        view.flags.writeable = True
    except ValueError:
        return array.copy()
    return view


def all_finite(values: Float[Tensor, "n p"], where: str, names: Sequence[str] | None) -> None:
    """Check that every cell is finite, and its square, too.

    Raises:
        InputError: one is not; the first is named.
    """
    largest = TOO_LARGE if values.dtype == torch.float64 else TOO_LARGE_SINGLE
    for J in blocks(*values.shape):
        wrong = ~(values[:, J].abs() < largest)
        if bool(wrong.any()):
            row, column = (int(i) for i in wrong.nonzero()[0])
            place = (J.start or 0) + column
            name = repr(names[place]) if names else place
            what = f"a cell is empty, not finite or beyond {largest:.0e}".replace("e+", "e")
            value = float(values[row, place])
            raise InputError(what, f"{where}[{row}, {name}]", value, "fill it, or leave the row out")


def not_too_small(values: Float[Tensor, "n p"], where: str, names: Sequence[str] | None) -> None:
    """Raise if a column varies by so little that its squares underflow; a few rows rule out almost all."""
    least = TOO_SMALL if values.dtype == torch.float64 else TOO_SMALL_SINGLE
    suspects = ((values[:4] - values[0]).abs().amax(0) < least).nonzero()[:, 0]
    if len(suspects) == 0:
        return
    most = (values[:, suspects] - values[0, suspects]).abs().amax(0)
    wrong = ((most > 0) & (most < least)).nonzero()[:, 0]
    if len(wrong):
        place = int(suspects[wrong[0]])
        what = f"a column varies by less than {least:.0e}, too little for its squares"
        column = repr(names[place]) if names else place
        raise InputError(what, f"{where}[:, {column}]", float(most[wrong[0]]), "multiply it, or leave it out")


def collected(values: Any, where: str) -> Any:
    """A LazyFrame's rows; anything else as it is."""
    if not isinstance(values, pl.LazyFrame):
        return values
    try:
        return values.collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("the LazyFrame cannot be collected", where, reason, "collect it first") from error


def checked_choice(intercept: str) -> None:
    """Raise unless it is a way to treat the intercept."""
    if intercept not in get_args(Intercept):
        choices = ", ".join(get_args(Intercept))
        raise InputError("no such choice", "intercept", repr(intercept), f"use {choices}")


def factors(values: Any, p: int, names: Sequence[str] | None, like: Tensor) -> Float64[Tensor, " p"]:
    """Penalty factors as a vector.

    Args:
        values: a factor for each column, or {name: factor}, 1 for the columns that are not in it.
        p: the number of columns.
        names: theirs, or None.
        like: a tensor on the device they are wanted on.
    """
    if isinstance(values, Mapping):
        if names is None:
            what = "the columns have no names"
            raise InputError(what, "penalty_factors", "by name", f"give {p} numbers, or a DataFrame")
        by_name = {str(name): factor for name, factor in values.items()}
        unknown = next((name for name in by_name if name not in names), None)
        if unknown is not None:
            raise InputError("no such column", "penalty_factors", repr(unknown), "name inputs only")
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
