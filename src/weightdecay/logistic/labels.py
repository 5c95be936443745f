"""Labels as they are given, read as classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.problem import collected, names_of

FEW_VALUES = 10  # classes that may be numbers with a fraction
FEW_CLASSES = 20  # classes that may be whole numbers with fewer rows each than `ROWS_EACH`
ROWS_EACH = 4  # rows to a class, on average, under which many whole numbers are measurements
REMEDY = "give one label for each row: numbers, strings or booleans"


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a table.

    Args:
        codes: the place of each row's class among the classes, NaN where there is no label (n,).
        classes: the different labels, ascending, as Python values.
        name: of the column, or None.
    """

    codes: Float64[Tensor, " n"]
    classes: tuple[Any, ...]
    name: str | None = None


def labels_of(values: Any, where: str = "labels") -> Labels:
    """Read labels: numbers, strings, booleans or categories.

    Classes are sorted as scikit-learn sorts them: numbers by size, texts by their characters. A category
    that no row has is no class. Missing are None, NaN, and nulls of a Series.

    Args:
        values: a label for each row (n,): list, array, tensor, or a Series or frame of one column.
        where: the argument to name in an error.

    Raises:
        InputError: no labels in this form, labels of several kinds, one class only, or numbers of so many
            values that they are measurements.

    >>> labels_of(["b", "a", None, "b"])
    Labels(codes=tensor([1., 0., nan, 1.], dtype=torch.float64), classes=('a', 'b'), name=None)
    """
    values = collected(values, where)
    if values is None:
        raise InputError("nothing is given", where, repr(None), REMEDY)
    names = names_of(values)
    cells, missing = _cells(values, where)
    if cells.ndim != 1:
        remedy = "give one label for each row; of columns of 0 and 1, one to a class, that is X.argmax(1)"
        raise InputError("not a label for each row", where, f"shape {cells.shape}", remedy)
    there = _alike(cells[~missing], where)
    if there.dtype.kind == "f" and not np.isfinite(there).all():
        raise InputError("a label is not finite", where, float(there[~np.isfinite(there)][0]), REMEDY)
    classes, codes = np.unique(there, return_inverse=True)
    name = names[0] if names else None
    _few_enough(classes, len(there), name or where)
    every = np.full(len(cells), np.nan)
    every[~missing] = codes
    return Labels(torch.from_numpy(every), tuple(classes.tolist()), name)


def _cells(values: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Values as an array, and which are missing; those may be anything."""
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_complex():
            raise InputError("not labels", where, f"{values.layout} of {values.dtype}", REMEDY)
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
        array = values.numpy()
    elif isinstance(values, pl.DataFrame) or (hasattr(values, "iloc") and values.ndim == 2):
        if values.shape[1] != 1:
            what = "a table of several columns"
            raise InputError(what, where, f"{values.shape[1]} columns", "give the one that has the classes")
        return _cells(values.to_series() if isinstance(values, pl.DataFrame) else values.iloc[:, 0], where)
    elif isinstance(values, pl.Series):
        missing = values.is_null().to_numpy()
        if isinstance(values.dtype, pl.Categorical | pl.Enum):
            values = values.cast(pl.String)
        if values.dtype.is_temporal() or values.dtype.is_nested():
            raise InputError("not labels", where, str(values.dtype), REMEDY)
        there = values.drop_nulls().to_numpy()
        array = np.empty(len(values), there.dtype)
        array[~missing] = there
        if array.dtype.kind == "f":
            missing = missing | np.isnan(np.where(missing, 0, array))
        return array, missing
    elif hasattr(values, "iloc"):
        missing = values.isna().to_numpy()
        there = values[~missing]
        there = there.astype(object) if hasattr(there.dtype, "categories") else there
        array = np.empty(len(values), dtype=object)
        array[~missing] = there.to_numpy()
        return array, missing
    else:
        plain = isinstance(values, np.ndarray)
        try:  # as objects: an array of a list with a text in it makes texts of None and NaN
            array = values if plain else np.array(values, dtype=object)
        except ValueError as error:
            raise InputError("not labels", where, str(error)[:60], REMEDY) from error
        array = np.asarray(array)
    if array.dtype.kind not in "biufUSO":
        raise InputError("not labels", where, f"{array.dtype} values", REMEDY)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        return array, np.zeros(array.shape, bool)
    if array.dtype.kind == "O":
        return array, np.array([_is_missing(cell) for cell in array], bool)
    return array, np.isnan(array) if array.dtype.kind == "f" else np.zeros(len(array), bool)


def _is_missing(cell: Any) -> bool:
    return cell is None or type(cell).__name__ == "NAType" or (isinstance(cell, float) and cell != cell)


def _alike(cells: np.ndarray, where: str) -> np.ndarray:
    """Cells of one kind as an array of that kind."""
    if cells.dtype.kind == "S":
        return np.char.decode(cells, "utf-8", "replace")
    if cells.dtype.kind != "O":
        return cells
    kinds = {_kind(cell) for cell in cells} or {"number"}
    if kinds == {"whole", "number"}:
        kinds = {"number"}
    if len(kinds) > 1 or "" in kinds:
        found = " and ".join(sorted({type(cell).__name__ for cell in cells}))
        raise InputError("labels of several kinds, or of none", where, found, "give numbers, or texts")
    dtypes = {"text": np.str_, "boolean": np.bool_, "whole": np.int64, "number": np.float64}
    try:
        return cells.astype(dtypes[kinds.pop()])
    except OverflowError as error:
        raise InputError("labels are too large", where, str(error), "give them as texts") from error


def _kind(cell: Any) -> str:
    if isinstance(cell, str):
        return "text"
    if isinstance(cell, bool | np.bool_):
        return "boolean"
    if isinstance(cell, int | np.integer):
        return "whole"
    return "number" if isinstance(cell, float | np.floating) else ""


def _few_enough(classes: np.ndarray, rows: int, where: str) -> None:
    """Refuse what is no classification.

    Raises:
        InputError: no label, one class, a class for each row, or numbers that are measurements.
    """
    count = len(classes)
    if count == 0:
        raise InputError("no row has a label", where, "empty", REMEDY)
    if count == 1:
        raise one_class(classes[0], where)
    if classes.dtype.kind in "iuf":
        fractions = classes.dtype.kind == "f" and bool((classes != classes.round()).any())
        if (fractions and count > FEW_VALUES) or (count > FEW_CLASSES and rows < ROWS_EACH * count):
            remedy = "is it a regression? use ridge_path; if each number is a class, give texts"
            value = f"{count:,} different ones in {rows:,} rows"
            raise InputError("labels that are numbers of many values", where, value, remedy)
    if count == rows and rows > 2:
        what, remedy = "every row has a class of its own", "is it an identifier? give another column"
        raise InputError(what, where, f"{count:,} classes", remedy)


def one_class(label: Any, where: str) -> InputError:
    """Say that there is nothing to tell apart."""
    shown = label.item() if isinstance(label, np.generic) else label
    return InputError("one class only", where, repr(shown), "give rows of two classes at least")


def as_array(classes: Sequence[Any]) -> np.ndarray:
    """The classes as an array, to be taken by their places."""
    return np.array(classes)
