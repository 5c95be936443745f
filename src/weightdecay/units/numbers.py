"""Numbers and vectors that a user gave, checked."""

import math
from typing import Any

import numpy as np

from weightdecay.errors import InputError


def number(
    value: Any,
    where: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    infinite: bool = False,
    remedy: str = "",
) -> float:
    """A number from Python, NumPy or torch as a float, if it lies where it should.

    Args:
        value: what was given.
        where: the argument to name in an error.
        least: the smallest value allowed.
        above: a bound that must be exceeded.
        below: a bound that must not be reached.
        infinite: allow infinity.
        remedy: what to do; by default the range is told.

    Raises:
        InputError: not a number, NaN, infinite or out of the range.

    >>> number(3, "lr", above=0)
    3.0
    """
    remedy = remedy or _range(least, above, below)
    plain = _float(value, where)
    if math.isnan(plain) or (math.isinf(plain) and not infinite):
        raise InputError("not a finite number", where, value, remedy)
    if plain < least or plain <= above or (plain >= below and not math.isinf(plain)):
        raise InputError("out of range", where, value, remedy)
    return plain


def _float(value: Any, where: str) -> float:
    if isinstance(value, bool | np.bool_ | str | bytes) or value is None:
        raise InputError("not a number", where, repr(value), "give a number")
    try:
        return float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("not a number", where, repr(value)[:60], "give a number") from error


def _range(least: float, above: float, below: float) -> str:
    parts = [
        *([f"{least:g} or more"] if math.isfinite(least) else []),
        *([f"more than {above:g}"] if math.isfinite(above) else []),
        *([f"less than {below:g}"] if math.isfinite(below) else []),
    ]
    return f"give a number{': ' * bool(parts)}{' and '.join(parts)}"


def count(value: Any, where: str, least: int = 1, most: int | None = None) -> int:
    """A whole number from `least` to `most`.

    Raises:
        InputError: anything else.

    >>> count(10.0, "steps")
    10
    """
    plain = number(value, where, least=least)
    if plain != int(plain):
        raise InputError("not a whole number", where, value, f"give {least} or more")
    if most is not None and plain > most:
        raise InputError("too large", where, value, f"give {most:,} or less")
    return int(plain)


def vector(values: Any, where: str, *, least: float = 0.0, below: float = math.inf) -> np.ndarray:
    """Numbers as a float64 array, every one finite and in the range.

    Raises:
        InputError: not numbers, none at all, or one out of the range, which is named by its place.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf":
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor that requires grad
        raise InputError("not a list of numbers", where, repr(values)[:60], "give numbers") from error
    if array.size == 0:
        raise InputError("an empty list", where, "[]", "give at least one number")
    wrong = ~(np.isfinite(array) & (array >= least) & (array < below))
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = f"{where}[{', '.join(map(str, first))}]" if first else where
        raise InputError("out of range", place, array[first], _range(least, -math.inf, below))
    return array
