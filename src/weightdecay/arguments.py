"""Arguments that a user gave, checked: one function for each kind, called where a public function begins.

The command line reads this before it needs NumPy or torch, so that they are imported where they are used.
"""

import math
import os
import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from weightdecay.errors import InputError
from weightdecay.text import Text, chinese_of

if TYPE_CHECKING:
    import numpy as np
    from torch import nn, optim

T = TypeVar("T")


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
        remedy: what to do; the allowed range by default.

    Raises:
        InputError: not a number, NaN, infinite or out of the range.

    >>> number(3, "lr", above=0)
    3.0
    """
    plain = _float(value, where)
    if math.isnan(plain) or (math.isinf(plain) and not infinite):
        what = Text("not a finite number", "不是有限的数")
    elif plain < least or plain <= above or (plain >= below and not math.isinf(plain)):
        what = Text("out of range", "超出范围")
    else:
        return plain
    raise InputError(what, where, value, remedy or _range(least, above, below))


def _float(value: Any, where: str) -> float:
    if isinstance(value, bool | str | bytes) or type(value).__name__ in ("bool", "bool_") or value is None:
        raise no_number(repr(value), where)
    try:
        return float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, OverflowError) as error:
        raise no_number(repr(value)[:60], where) from error


_GIVE_A_NUMBER = Text("give a number", "请给一个数")


def no_number(shown: str, where: str, remedy: str = _GIVE_A_NUMBER) -> InputError:
    """Say that something is not a number."""
    return InputError(Text("not a number", "不是数"), where, shown, remedy)


def _range(least: float, above: float, below: float) -> Text:
    parts: list[Text] = []
    if math.isfinite(least):
        parts.append(Text(f"{least:g} or more", f"不小于 {least:g}"))
    if math.isfinite(above):
        parts.append(Text(f"more than {above:g}", f"大于 {above:g}"))
    if math.isfinite(below):
        parts.append(Text(f"less than {below:g}", f"小于 {below:g}"))
    if not parts:
        return _GIVE_A_NUMBER
    limits = Text(" and ".join(parts), "、".join(chinese_of(parts)))
    return Text(f"{_GIVE_A_NUMBER}: {limits}", f"{_GIVE_A_NUMBER.zh}：{limits.zh}")


_NOT_WHOLE = Text("not a whole number", "不是整数")


def count(value: Any, where: str, least: int = 1, most: int | None = None) -> int:
    """A whole number from `least` to `most`.

    Raises:
        InputError: anything else.

    >>> count(10.0, "steps")
    10
    """
    plain = number(value, where, least=least)
    if plain != int(plain):
        raise InputError(
            _NOT_WHOLE, where, value, Text(f"give {least} or more", f"请给不小于 {least} 的整数")
        )
    if most is not None and plain > most:
        raise InputError(
            Text("too large", "太大"),
            where,
            value,
            Text(f"give {most:,} or less", f"请给不大于 {most:,} 的数"),
        )
    return int(plain)


def whole(value: Any, where: str) -> int:
    """Return a Python integer of at least 1; unlike `count`, take no float that is whole.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        what = Text("not a whole number of at least 1", "不是不小于 1 的整数")
        raise InputError(what, where, value, Text("give 1 or more", "请给 1 或更大的整数"))
    return value


def finite(value: Any, where: str) -> float:
    """Return a Python number whose square is finite, too.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e150:
        raise InputError("not a finite number below 1e150", where, repr(value), "give one")
    return value


def probability(value: float, where: str) -> float:
    """Return a number between 0 and 1, both excluded.

    Raises:
        InputError: it is none.
    """
    if not 0 < number(value, where) < 1:
        remedy = Text("give one between 0 and 1, such as 0.9", "请给 0 与 1 之间的数，如 0.9")
        raise InputError(Text("not a probability", "不是概率"), where, value, remedy)
    return value


_NO_CHOICE = Text("no such choice", "没有这个选择")


def choice(value: T, where: str, names: Iterable[T], what: str = _NO_CHOICE) -> T:
    """Return a value that is one of several.

    Raises:
        InputError: it is none of them; they are listed.

    >>> choice("mean", "by", ("sum", "mean"))
    'mean'
    """
    names = tuple(names)
    if value not in names:
        every = ", ".join(map(str, names))
        raise InputError(what, where, repr(value), Text(f"use {every}", f"可用 {every}"))
    return value


def path(value: Any, where: str, remedy: str) -> Path:
    """Return a path.

    Raises:
        InputError: it is neither a string nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError("not a path", where, repr(value)[:60], remedy)
    return Path(value)


def function(value: T, where: str, remedy: str, shown: Any = None) -> T:
    """Return a function.

    Args:
        value: what was given.
        where: the argument to name in an error.
        remedy: what the function should take.
        shown: what an error says was given instead; by default its repr.

    Raises:
        InputError: it cannot be called.
    """
    if not callable(value):
        raise InputError("not a function", where, repr(value) if shown is None else shown, remedy)
    return value


def model(value: Any, remedy: str = "give a torch.nn.Module") -> "nn.Module":
    """Return a model.

    Raises:
        InputError: it is not a torch.nn.Module.
    """
    from torch import nn

    if not isinstance(value, nn.Module):
        raise InputError("not a model", "model", type(value).__name__, remedy)
    return value


def class_name(module: "nn.Module") -> str:
    """The name of the module's class; for a scripted module, of the class it was scripted from."""
    return str(getattr(module, "original_name", None) or type(module).__name__)


def optimizer(
    value: Any, remedy: str = "give a torch.optim.Optimizer whose __init__ has run", hooked: bool = True
) -> "optim.Optimizer":
    """Return an optimizer; `hooked`: one that hooks can be registered on.

    Raises:
        InputError: it is none of torch's kind, or a subclass whose __init__ has not run.
    """
    from torch import optim

    hooks = not hooked or hasattr(value, "_optimizer_step_pre_hooks")
    if not isinstance(value, optim.Optimizer) or not hooks:
        raise InputError("not an optimizer of torch's kind", "optimizer", type(value).__name__, remedy)
    return value


def vector(values: Any, where: str, *, least: float = 0.0, below: float = math.inf) -> "np.ndarray":
    """Numbers as a float64 array, every one finite and in the range.

    Raises:
        InputError: not numbers, none at all, or one out of the range, which is named by its place.
    """
    import numpy as np

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
    remedy = Text(
        "write 0,3 or first:last:count with 0 < first < last",
        "写成 0,3 或 起点:终点:个数，且 0 < 起点 < 终点",
    )
    raise InputError(Text("neither a number nor a range", "既不是数，也不是范围"), where, repr(part), remedy)


def log_spaced(low: float, high: float, count: int) -> list[float]:
    """At least two numbers from `low` to `high`, both exactly, equally far apart on a log axis.

    >>> log_spaced(0.1, 10, 3)
    [0.1, 1.0, 10]
    """
    start, span = math.log10(low), math.log10(high) - math.log10(low)
    return [low, *(10 ** (start + span * i / (count - 1)) for i in range(1, count - 1)), high]


def closest(word: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most like a word or pattern, best first; equally good ones in their own order.

    >>> closest("layer.*.weigth", ["layers.0.weight", "head.bias", "layers.1.weight"], 2)
    ['layers.0.weight', 'layers.1.weight']
    """
    plain = re.sub(r"^re:|[*?\\^$()\[\]+]", "", word).lower()

    def likeness(name: str) -> float:
        lower = name.lower()
        inside = bool(plain) and plain in lower
        return inside + SequenceMatcher(None, plain, lower, autojunk=False).ratio()

    return sorted(dict.fromkeys(names), key=likeness, reverse=True)[:count]
