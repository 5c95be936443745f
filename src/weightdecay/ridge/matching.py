"""New inputs -> a tensor in a model's own columns, by name where there are names."""

import difflib
from collections.abc import Sequence
from typing import Any

import polars as pl
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.data import all_finite, collected, names_of, tensor_of
from weightdecay.tables.cells import listed, no_name_twice


def matched(X: Any, features: Sequence[str] | None, p: int, where: str = "X") -> Float64[Tensor, "m p"]:
    """The columns a model knows, in its order, as float64.

    A table with named columns is matched by name, in any order; a tensor or an array by place.

    Args:
        X: tensor or array (m, p), or a polars or pandas DataFrame, a LazyFrame or a pyarrow Table.
        features: the model's columns, or None where it was fitted without names.
        p: how many there are.
        where: the argument to name in an error.

    Raises:
        InputError: a column is missing, unknown or there twice; the wrong number of columns; a cell that is
            no finite number, which is named.

    >>> matched(pl.DataFrame({"b": [2], "a": [1]}), ("a", "b"), 2)
    tensor([[1., 2.]], dtype=torch.float64)
    """
    X = collected(X, where)
    names = names_of(X)
    if names is not None and features is not None and hasattr(X, "columns"):
        check_names(names, features, where)
        places = {name: place for place, name in enumerate(names)}
        order = [places[name] for name in features]
        X = X[:, order] if isinstance(X, pl.DataFrame) else X.iloc[:, order]
    numbers = tensor_of(X, where).double()
    if numbers.ndim != 2 or numbers.shape[1] != p:
        shape = tuple(numbers.shape)
        raise InputError("the wrong shape", where, shape, f"give (rows, {p}): a column for each feature")
    all_finite(numbers, where, features)
    return numbers


def check_names(names: Sequence[str], features: Sequence[str], where: str) -> None:
    """Raise unless the names are the features, in any order.

    Raises:
        InputError: one is there twice, missing or unknown.
    """
    known, given = set(features), set(names)
    no_name_twice(names, where)
    extra = [name for name in names if name not in known]
    missing = [name for name in features if name not in given]
    if missing:
        close = difflib.get_close_matches(missing[0], extra, n=1)
        hint = f"is {missing[0]!r} called {close[0]!r} there?" if close else "give every column of the fit"
        raise InputError(_plural(missing, "is missing", "are missing"), where, listed(missing), hint)
    if extra:
        what = _plural(extra, "is not known to the model", "are not known to the model")
        raise InputError(what, where, listed(extra), "leave out what the model was not fitted on")


def _plural(names: Sequence[str], one: str, many: str) -> str:
    return f"a column {one}" if len(names) == 1 else f"columns {many}"
