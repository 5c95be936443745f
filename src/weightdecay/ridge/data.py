"""What a person gives -> a checked problem: tensors, arrays or DataFrames; weights and penalties."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.columns import Intercept, Problem, blocks

TOO_LARGE = 1e150  # beyond, squares overflow in float64


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
    features, targets = _names(X, "X"), _names(y, "y")
    inputs, target = _tensor(X, "X"), _tensor(y, "y")
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
    if not bool(target.sum().isfinite()):
        all_finite(target, "y", targets)
    weights = None if sample_weight is None else vector(sample_weight, n, "sample_weight", inputs)
    penalty = None if penalty_factors is None else vector(penalty_factors, p, "penalty_factors", inputs)
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
    for place in range(target.shape[1]):
        column = target[:, place]
        if bool((column == column[0]).all()):
            name = targets[place] if targets else "y" if single else f"y[:, {place}]"
            raise InputError("the target is constant", name, float(column[0]), "there is nothing to predict")
    if penalty is not None and bool((penalty == 1).all()):
        penalty = None
    problem = Problem(inputs, target, weights, penalty, intercept, standardize)
    return Given(problem, rows, features, targets, single)


def _names(X: Any, where: str) -> tuple[str, ...] | None:
    """The column names of a DataFrame, or of a Series; None for a tensor or an array."""
    if isinstance(X, Tensor | np.ndarray | list | tuple):
        return None
    if hasattr(X, "columns"):
        names = tuple(str(name) for name in X.columns)
        for place, name in enumerate(names):
            if name in names[:place]:
                raise InputError("two columns have one name", where, repr(name), "rename one of them")
        return names
    name = getattr(X, "name", None)
    return None if name in (None, "") else (str(name),)


def _tensor(values: Any, where: str) -> Tensor:
    """A float32 or float64 tensor on the same memory where that can be."""
    if isinstance(values, pl.DataFrame | pl.Series):
        values = _polars(values, where)
    if not isinstance(values, Tensor):
        try:
            array = np.asarray(values)
            if array.dtype.kind in "OUSM":
                array = array.astype(np.float64)
            values = torch.from_numpy(np.ascontiguousarray(array) if array.ndim == 0 else _writable(array))
        except (TypeError, ValueError) as error:
            raise InputError(
                "not numbers", where, str(error)[:80], "convert text to numbers, or leave it out"
            ) from error
    if values.is_complex() or values.is_sparse:
        what = "complex" if values.is_complex() else "sparse"
        raise InputError(f"{what} values are not supported", where, values.dtype, "give real, dense numbers")
    values = values.detach()
    return values if values.dtype in (torch.float32, torch.float64) else values.double()


def _polars(values: Any, where: str) -> np.ndarray:
    frame = values.to_frame() if isinstance(values, pl.Series) else values
    for column in frame:
        if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
            place = f"column {column.name!r} of {where}"
            raise InputError("a column is not numeric", place, column.dtype, "drop it, or convert it")
    same = len(set(frame.dtypes)) == 1 and frame.dtypes[0] in (pl.Float32, pl.Float64)
    array = (frame if same else frame.cast(pl.Float64)).to_numpy()
    return array[:, 0] if isinstance(values, pl.Series) else array


def _writable(array: np.ndarray) -> np.ndarray:
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


def all_finite(values: Float[Tensor, "n p"], where: str, names: tuple[str, ...] | None) -> None:
    """Check that every cell is finite, and its square, too.

    Raises:
        InputError: one is not; the first is named.
    """
    for J in blocks(*values.shape):
        wrong = ~(values[:, J].double().abs() < TOO_LARGE)
        if bool(wrong.any()):
            row, column = (int(i) for i in wrong.nonzero()[0])
            place = (J.start or 0) + column
            name = repr(names[place]) if names else place
            value = float(values[row, place])
            what = "a cell is empty, not finite or beyond 1e150"
            raise InputError(what, f"{where}[{row}, {name}]", value, "fill it, or leave the row out")


def checked_choice(intercept: str) -> None:
    """Raise unless it is a way to treat the intercept."""
    if intercept not in get_args(Intercept):
        choices = ", ".join(get_args(Intercept))
        raise InputError("no such choice", "intercept", repr(intercept), f"use {choices}")


def vector(values: Any, size: int, where: str, like: Tensor) -> Float64[Tensor, " m"]:
    """A vector of numbers of 0 or more, not all 0."""
    vector = _tensor(values, where).to(device=like.device, dtype=torch.float64)
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
