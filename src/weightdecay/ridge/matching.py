"""New inputs -> a tensor in a model's own columns, by name where there are names."""

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from weightdecay.errors import InputError

# Beyond, squares overflow in float64.
TOO_LARGE = 1e150


def matched(X: Any, features: Sequence[str] | None, p: int, where: str = "X") -> Float64[Tensor, "m p"]:
    """The columns a model knows, in its order, as float64.

    A table with named columns is matched by name, in any order; a tensor or an array by place.

    Args:
        X: tensor or array (m, p), or a polars or pandas DataFrame.
        features: the model's columns, or None where it was fitted without names.
        p: how many there are.
        where: the argument to name in an error.

    Raises:
        InputError: a column is missing, unknown, there twice or not numeric; the wrong number of columns;
            a cell that is empty or not finite, which is named.

    >>> matched(pl.DataFrame({"b": [2], "a": [1]}), ("a", "b"), 2)
    tensor([[1., 2.]], dtype=torch.float64)
    """
    names = names_of(X)
    if names is not None and features is not None:
        check_names(names, features, where)
        X = X.select(list(features)) if isinstance(X, pl.DataFrame) else X[list(features)]
        names = list(features)
    numbers = _tensor(X, names, where)
    if numbers.ndim != 2 or numbers.shape[1] != p:
        shape = tuple(numbers.shape)
        raise InputError("the wrong shape", where, shape, f"give (rows, {p}): a column for each feature")
    wrong = ~(numbers.abs() < TOO_LARGE)
    if bool(wrong.any()):
        row, column = (int(i) for i in wrong.nonzero()[0])
        column_name = repr(features[column]) if features else column
        value = float(numbers[row, column])
        what = "a cell is empty, not finite or beyond 1e150"
        raise InputError(what, f"{where}[{row}, {column_name}]", value, "fill it, or leave the row out")
    return numbers


def names_of(X: Any) -> list[str] | None:
    """The column names of a polars or pandas DataFrame; None for a tensor or an array."""
    if isinstance(X, Tensor | np.ndarray) or not hasattr(X, "columns"):
        return None
    return [str(name) for name in X.columns]


def check_names(names: Sequence[str], features: Sequence[str], where: str) -> None:
    """Raise unless the names are the features, in any order.

    Raises:
        InputError: one is there twice, missing or unknown.
    """
    known, given = set(features), set(names)
    twice = next((name for name in names if names.count(name) > 1), None) if len(given) < len(names) else None
    if twice is not None:
        raise InputError("two columns have one name", where, repr(twice), "rename one of them")
    extra = [name for name in names if name not in known]
    missing = [name for name in features if name not in given]
    if missing:
        close = difflib.get_close_matches(missing[0], extra, n=1)
        hint = f"is {missing[0]!r} called {close[0]!r} there?" if close else "give every column of the fit"
        raise InputError(_plural(missing, "is missing", "are missing"), where, listed(missing), hint)
    if extra:
        what = _plural(extra, "is not known to the model", "are not known to the model")
        raise InputError(what, where, listed(extra), "leave out what the model was not fitted on")


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first few names, quoted, and how many there are in all."""
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown}, … ({len(names):,} columns)"


def _plural(names: Sequence[str], one: str, many: str) -> str:
    return f"a column {one}" if len(names) == 1 else f"columns {many}"


def _tensor(X: Any, names: Sequence[str] | None, where: str) -> Float[Tensor, "..."]:
    if isinstance(X, Tensor):
        if X.dtype.is_complex:
            raise InputError("not real numbers", where, X.dtype, "give real ones")
        return X.detach().double()
    if names is not None:
        for name in names:
            column = X[name]
            dtype = column.dtype
            numeric = (
                dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)
                if isinstance(column, pl.Series)
                else getattr(dtype, "kind", "O") in "iufb"
            )
            if not numeric:
                raise InputError(
                    "a column is not numeric", f"{where}[{name!r}]", dtype, "convert it to numbers"
                )
        if isinstance(X, pl.DataFrame):
            X = X.select(pl.all().cast(pl.Float64)).to_numpy()
        else:
            X = X.to_numpy(dtype=np.float64, na_value=np.nan)
    try:
        array = np.asarray(X)
        if array.dtype.kind not in "iufb":
            raise TypeError
        return torch.from_numpy(np.array(array, dtype=np.float64, order="C"))
    except (TypeError, ValueError) as error:
        raise InputError("not a table of numbers", where, type(X).__name__, "give numbers") from error
