"""From one way to write a strength to another, through one canonical λ."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.arguments import count, number, vector
from weightdecay.errors import InputError
from weightdecay.units.conventions import CONTEXT, ROWS, Convention

_NO_LAMBDA = {
    "decoupled": (
        "decoupled decay in an adaptive optimizer has no ridge equivalent: with full batches AdamW ends at "
        "the least loss with every |w_j| <= 1/wd, not at a ridge solution, and where noise dominates it acts "
        "as L2 with another strength for each weight; compare half-lives instead"
    ),
    "adam-l2": (
        "Adam with coupled L2 has no decay rate and no λ: without gradient a weight shrinks by about lr a "
        "step whatever weight_decay is; use AdamW, and its half-life"
    ),
}


class Conventions(tuple[Convention, ...]):
    """The records of `conventions()`; printed, a table."""

    __slots__ = ()

    def __str__(self) -> str:
        cells = [("name", "λ, or the share removed", "needs", "what it is")]
        cells += [(row.name, row.equation, ", ".join(row.needs), row.what) for row in self]
        widths = [max(len(line[i]) for line in cells) for i in range(4)]
        lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)) for line in cells]
        return "\n".join(line.rstrip() for line in lines)


def conventions() -> Conventions:
    """The ways to write a strength that `convert` knows: a tuple of records, a table when printed.

    Returns:
        One `Convention` each: name, what it is, equation, needed context, remark, source.

    >>> [row.name for row in conventions()][:3]
    ['canonical', 'textbook', 'textbook.added_once']
    >>> next(row for row in conventions() if row.name == "sklearn.Ridge").equation
    'λ = alpha / n'
    """
    return Conventions(ROWS)


def convert(
    value: float | Sequence[float] | np.ndarray, source: str, target: str, **context: Any
) -> float | np.ndarray:
    """The number that means in the convention `target` what `value` means in `source`.

    Both go through the canonical λ of J(w) = 1/(2n) ||y - Xw||² + λ/2 ||w||²: the solution
    w = (X'X/n + λI)^-1 X'y/n is the same. AdamW and its kin have no λ; among themselves they go through the
    share of a weight that a step removes.

    Args:
        value: the strength; a list or an array for one per feature.
        source: the name of its convention; `conventions()` lists them.
        target: the name of the convention that is wanted.
        context: what the two need to know, by name: n, batch_size, micro_batches, momentum, dampening,
            lr_max, sd_y, sd_x, noise_sd.

    Returns:
        A number; an array where there is one strength for each feature.

    Convention: every record's `equation` says λ in terms of its number, `remark` what else changes.

    Raises:
        InputError: an unknown name, context that is missing or not used, a value out of range, or a
            conversion that does not exist (AdamW to ridge; Adam with L2 to anything).

    >>> convert(3, "textbook", "sklearn.Ridge", n=20)
    60.0
    >>> convert(0.1, "torch.AdamW", "independent", lr_max=1e-3)
    0.0001
    """
    return converted(value, source, target, checked_context(source, target, context))


def converted(
    value: float | Sequence[float] | np.ndarray, source: str, target: str, known: Mapping[str, Any]
) -> float | np.ndarray:
    """Convert with a context from `checked_context`: for many conversions of one kind."""
    old, new = _named(source, "source"), _named(target, "target")
    number_or_array = number(value, "value", least=0) if np.ndim(value) == 0 else vector(value, "value")
    if old.power < 0 and not np.all(number_or_array):
        remedy = f"give {old.what.split(' of ')[0]} more than 0"
        raise InputError("no λ belongs to it", "value", 0, remedy)
    if np.ndim(number_or_array) and "sd_x" in known and np.shape(number_or_array) != known["sd_x"].shape:
        sizes = f"{np.size(number_or_array)} values for {known['sd_x'].size} features"
        raise InputError("one strength for each feature is needed", "value", sizes, "give as many as sd_x")
    try:
        lam = number_or_array**old.power / old.divisor(known)
        if new.power < 0 and not np.all(lam):
            raise InputError(f"no decay has no finite number in {new.name}", "value", 0, "give more than 0")
        result = (lam * new.divisor(known)) ** (1 / new.power) if new.power != 1 else lam * new.divisor(known)
        if not np.all(np.isfinite(result)):
            raise OverflowError
    except OverflowError as error:
        what = "a strength beyond what float64 can hold"
        raise InputError(what, "value", value, "give one nearer to 1") from error
    return float(result) if np.ndim(result) == 0 else np.asarray(result)


def remarks(source: str, target: str) -> tuple[str, ...]:
    """What one must know to use the number that `convert` gives, one line each.

    >>> remarks("textbook", "torch.SGD+MSELoss")[-1]
    'torch.SGD+MSELoss: lr acts as 2·lr of the canonical objective, whose loss is halved'
    """
    rows = dict.fromkeys((_named(source, "source"), _named(target, "target")))
    return tuple(f"{row.name}: {row.remark}" for row in rows if row.remark)


def _named(name: str, where: str) -> Convention:
    for row in ROWS:
        if row.name == name:
            return row
    # The names that contain what was given, else those spelled like it, else all.
    lower = {row.name.lower(): row.name for row in ROWS}
    inside = [known for key, known in lower.items() if str(name).lower() in key]
    alike = [lower[key] for key in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.5)]
    remedy = f"use {' or '.join(inside or alike or lower.values())}"
    raise InputError("no such convention", where, repr(name), remedy)


def checked_context(source: str, target: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check that a conversion exists, and its context: every name needed is there, and no other."""
    old, new = _named(source, "source"), _named(target, "target")
    if old.family != new.family or old.family == "adam-l2":
        reason = _NO_LAMBDA["adam-l2" if "adam-l2" in (old.family, new.family) else "decoupled"]
        raise InputError("this conversion does not exist", "convert", f"{old.name} to {new.name}", reason)
    usable = dict.fromkeys((*old.needs, *old.takes, *new.needs, *new.takes))
    for name in given:
        if name in usable:
            continue
        what = "not used by this conversion" if name in CONTEXT else "no such context"
        remedy = f"leave it out; {old.name} to {new.name} uses {', '.join(usable) or 'none'}"
        if name not in CONTEXT and (close := difflib.get_close_matches(name.lower(), CONTEXT, n=1)):
            remedy = f"did you mean {close[0]}, {CONTEXT[close[0]]}?"
        raise InputError(what, name, given[name], remedy)
    checked = {}
    for name, value in given.items():
        if value is not None:
            checked[name] = _checked(name, value)
    for row in (old, new):
        for name in row.needs:
            instead = name == "n" and "batch_size" in row.takes and "batch_size" in checked
            if name not in checked and not instead:
                raise InputError(f"{row.name} needs {name}, {CONTEXT[name]}", name, "nothing", f"give {name}")
    return checked


def _checked(name: str, value: Any) -> Any:
    if name in ("n", "batch_size", "micro_batches"):
        return count(value, name)
    if name in ("momentum", "dampening"):
        return number(value, name, least=0, below=1)
    if name == "sd_x":
        array = vector(value, name)
        if not array.all():
            raise InputError("a feature that does not vary", name, 0.0, "leave constant features out")
        return array
    return number(value, name, above=0)
