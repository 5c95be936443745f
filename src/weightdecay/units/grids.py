"""Strengths as people write them."""

import math

from weightdecay.errors import InputError


def grid(text: str, where: str = "grid") -> tuple[float, ...]:
    """Read a list of numbers: values and log-spaced ranges `first:last:count` (ends included), by commas.

    Args:
        text: for instance "0,3" or "1e-3:100:40" or "0,1e-3:100:40".
        where: the argument to name in an error.

    Raises:
        InputError: a part is not a number or not a range.

    >>> grid("0,3")
    (0.0, 3.0)
    >>> grid("0,0.1:10:3")
    (0.0, 0.1, 1.0, 10.0)
    """
    return tuple(value for part in text.split(",") for value in _part(part.strip(), where))


def _part(part: str, where: str) -> list[float]:
    try:
        first, *rest = part.split(":")
        if not rest:
            return [float(first)]
        low, high, count = float(first), float(rest[0]), int(rest[1])
        if len(rest) == 2 and math.isfinite(high) and 0 < low < high and 2 <= count <= 100_000:
            return log_spaced(low, high, count)
    except (ValueError, IndexError):
        pass
    raise InputError(
        "neither a number nor a range",
        where,
        repr(part),
        "write 0,3 or first:last:count with 0 < first < last",
    )


def log_spaced(low: float, high: float, count: int) -> list[float]:
    """At least two numbers from `low` to `high`, both exactly, equally far apart on a log axis.

    >>> log_spaced(0.1, 10, 3)
    [0.1, 1.0, 10]
    """
    start, span = math.log10(low), math.log10(high) - math.log10(low)
    return [low, *(10 ** (start + span * i / (count - 1)) for i in range(1, count - 1)), high]
