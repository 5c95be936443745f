"""How often a torch scheduler is stepped: once an optimizer step or once an epoch, told by its own course.

A scheduler object does not say which of the two its training loop does. Its length and its shape do in most
cases: `CosineAnnealingLR(T_max=9)` in 9 epochs of 100 steps goes by epochs. Where they do not, and the two
readings differ, the caller has to say so.
"""

import math
from typing import Any, Literal

import numpy as np

from weightdecay.errors import InputError
from weightdecay.units.numbers import number

# How often the schedule goes on: "step", "epoch", or the number of optimizer steps between.
Interval = str | float

# Two readings whose peak, mean and mean square differ by less are one.
_ALIKE = 0.01
# A schedule is over when this share of all its changes is behind it, and idle before this share.
_OVER, _IDLE = 0.9, 0.02
# More changes of direction than this are not meant, but for schedulers made to go up and down.
_WAVES = 10
_CYCLIC = ("CyclicLR", "OneCycleLR", "CosineAnnealingWarmRestarts")


def steps_between(interval: Any, steps_per_epoch: Any) -> float:
    """Optimizer steps between two steps of the schedule.

    Raises:
        InputError: no such interval, or an epoch of unknown length.
    """
    if interval == "step":
        return 1.0
    if interval == "epoch":
        if steps_per_epoch is None:
            what = 'interval="epoch" needs the length of an epoch'
            raise InputError(what, "steps_per_epoch", "None", "give steps_per_epoch")
        return number(steps_per_epoch, "steps_per_epoch", least=1)
    if isinstance(interval, str) or interval is None:
        remedy = 'use "step" or "epoch", or a number of optimizer steps'
        raise InputError("no such interval", "interval", repr(interval), remedy)
    return number(interval, "interval", least=1)


def stretched(rows: np.ndarray, steps: int, between: float) -> np.ndarray:
    """Each value for all optimizer steps until the schedule goes on."""
    if between == 1:
        return rows[:, :steps]
    return rows[:, np.floor(np.arange(steps) / between + 1e-9).astype(int)]


def places(steps: int, between: float) -> int:
    """How many values of the schedule a run uses."""
    return math.floor((steps - 1) / between + 1e-9) + 1


def found(
    scheduler: Any, course: np.ndarray, steps: int, per_epoch: float | None
) -> Literal["step", "epoch"]:
    """Find whether a scheduler goes by steps or by epochs.

    Args:
        scheduler: the scheduler.
        course: what it does step by step (groups, up to steps): shorter where it cannot go further.
        steps: of the run.
        per_epoch: steps of an epoch; None where it is not known.

    Raises:
        InputError: it cannot be known, and it matters.
    """
    whole = course.shape[1] == steps
    peaks = course.max(1, keepdims=True)
    relative = course / np.where(peaks > 0, peaks, 1)
    if per_epoch is None:
        first = steps // 10
        if not _over_early(scheduler, relative, first) and (whole or course.shape[1] > first):
            return "step"  # where it is not whole, for its own message
        raise _unknown(scheduler, "by step it would be over, or go up and down, long before the run ends", "")
    epochs = places(steps, per_epoch)
    if epochs > course.shape[1]:
        return "step"  # for its own message
    if not whole:
        return "epoch"
    length = own_length(scheduler)
    falls = bool((relative[:, min(steps, epochs + 1) - 1] < relative[:, :epochs].max(1)).any())
    if length is not None and _fits(length, steps):
        return "step"
    if length is not None and falls and _fits(length, epochs):
        return "epoch"
    if type(scheduler).__name__ == "CyclicLR" or (length is None and _made_for(relative)):
        return "step"
    early = _over_early(scheduler, relative, max(steps // 10, epochs if steps >= 4 * epochs else 0))
    length = length or getattr(scheduler, "step_size", None) or getattr(scheduler, "T_0", None)
    longer = length is not None and 1.05 * epochs + 1 < length <= 1.05 * steps
    idle = _changes(relative[:, :epochs]) <= _IDLE * _changes(relative)
    if not early and (longer or idle or (relative[:, :epochs].max(1) < 0.5).all()):
        return "step"
    if early and not idle:
        return "epoch"
    by_epoch = stretched(course, steps, per_epoch)
    if _alike(course, by_epoch):
        return "step"
    means = f"the mean lr is {course.mean():.3g} by step and {by_epoch.mean():.3g} by epoch"
    raise _unknown(scheduler, means, f" of {per_epoch:g} steps")


def own_length(scheduler: Any) -> int | None:
    """The number of its steps that a scheduler is made for; None where it has none."""
    parts = getattr(scheduler, "_schedulers", None)
    if parts:
        lengths = [own_length(part) for part in parts]
        milestones = getattr(scheduler, "_milestones", None)  # of a SequentialLR, one part after another
        if milestones:
            return None if lengths[-1] is None else milestones[-1] + lengths[-1]
        known = [length for length in lengths if length is not None]
        return max(known) if len(known) == len(lengths) else None
    for name in ("total_steps", "T_max", "total_iters"):
        if isinstance(value := getattr(scheduler, name, None), int):
            return value
    milestones = getattr(scheduler, "milestones", None)
    return max(milestones) if milestones else None


def _fits(length: int, run: int) -> bool:
    return abs(length - run) <= max(0.05 * run, 1 if run >= 5 else 0)


def _made_for(relative: np.ndarray) -> bool:
    """Whether a course comes to its end where the run does."""
    late = relative[:, int(0.8 * relative.shape[1])]
    return bool(((late > 0.04) & (relative[:, -1] < 0.1 * late)).all())


def _over_early(scheduler: Any, relative: np.ndarray, first: int) -> bool:
    """Whether it has fallen for good within its first steps, or goes up and down too often."""
    name = type(getattr(scheduler, "_schedulers", [scheduler])[-1]).__name__
    if name not in _CYCLIC:
        signs = [np.sign(moves[moves != 0]) for moves in np.diff(relative)]
        waves = max(int((one[1:] != one[:-1]).sum()) for one in signs)
        if waves > (2 if name == "CosineAnnealingLR" else _WAVES):
            return True
    if (own_length(scheduler) or 0) > first:
        return False
    within = _changes(relative[:, : first + 1])
    return within > 0 and within >= _OVER * _changes(relative) and bool((relative[:, -1] < 0.9).any())


def _changes(relative: np.ndarray) -> float:
    """All rises and falls, added up."""
    return float(np.abs(np.diff(relative)).sum())


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two readings have one peak, mean and mean square in each group."""
    numbers = [np.stack([a.max(1), a.mean(1), (a**2).mean(1)]) for a in (one, other)]
    return np.allclose(*numbers, rtol=_ALIKE, atol=0)


def _unknown(scheduler: Any, why: str, epoch: str) -> InputError:
    what = f"is {type(scheduler).__name__} stepped once a step or once an epoch{epoch}? It matters: {why}"
    remedy = f'give interval="step", or interval="epoch"{"" if epoch else " and steps_per_epoch"}'
    return InputError(what, "interval", "None", remedy)
