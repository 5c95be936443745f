"""The step size of every step of a run, from a name, numbers, a function or a torch scheduler."""

import copy
import functools
import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import CellType, FunctionType, SimpleNamespace
from typing import Any, Literal

import numpy as np

from weightdecay.arguments import count, number, vector
from weightdecay.errors import InputError

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
    """Return the optimizer steps between two steps of the schedule.

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
    """Repeat each value for all optimizer steps until the schedule goes on."""
    if between == 1:
        return rows[:, :steps]
    return rows[:, np.floor(np.arange(steps) / between + 1e-9).astype(int)]


def values_needed(steps: int, between: float) -> int:
    """Return how many values of the schedule a run uses."""
    return math.floor((steps - 1) / between + 1e-9) + 1


def interval_of(
    scheduler: Any, values: np.ndarray, steps: int, per_epoch: float | None
) -> Literal["step", "epoch"]:
    """Return whether a scheduler goes by steps or by epochs.

    Args:
        scheduler: the scheduler.
        values: its learning rates step by step (groups, up to steps): shorter where it cannot go further.
        steps: of the run.
        per_epoch: steps of an epoch; None where it is not known.

    Raises:
        InputError: it cannot be known, and it matters.
    """
    whole = values.shape[1] == steps
    peaks = values.max(1, keepdims=True)
    relative = values / np.where(peaks > 0, peaks, 1)
    if per_epoch is None:
        first = steps // 10
        if not _over_early(scheduler, relative, first) and (whole or values.shape[1] > first):
            return "step"  # where it is not whole, for its own message
        raise _unknown(scheduler, "by step it would be over, or go up and down, long before the run ends", "")
    epochs = values_needed(steps, per_epoch)
    if epochs > values.shape[1]:
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
    by_epoch = stretched(values, steps, per_epoch)
    if _alike(values, by_epoch):
        return "step"
    means = f"the mean lr is {values.mean():.3g} by step and {by_epoch.mean():.3g} by epoch"
    raise _unknown(scheduler, means, f" of {per_epoch:g} steps")


def own_length(scheduler: Any) -> int | None:
    """Return the number of its steps that a scheduler is made for; None where it has none."""
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
    """Whether the learning rates come to their end where the run does."""
    late = relative[:, int(0.8 * relative.shape[1])]
    return bool(((late > 0.04) & (relative[:, -1] < 0.1 * late)).all())


def _over_early(scheduler: Any, relative: np.ndarray, first: int) -> bool:
    """Whether it has fallen for good within its first steps, or goes up and down too often."""
    name = type(getattr(scheduler, "_schedulers", [scheduler])[-1]).__name__
    if name not in _CYCLIC:
        signs = [np.sign(moves[moves != 0]) for moves in np.diff(relative)]
        waves = max(int((sign[1:] != sign[:-1]).sum()) for sign in signs)
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


NAMES = ("constant", "linear", "cosine", "wsd")
_PARAMETERS = ("params", "param_names")
MOST_STEPS = 50_000_000  # laid out one by one, 8 bytes each


def lrs(
    schedule: Any,
    steps: int | None = None,
    lr: float | Sequence[float] | None = None,
    *,
    warmup: float = 0.0,
    floor: float = 0.0,
    decay: float = 0.2,
    interval: Interval | None = None,
    steps_per_epoch: float | None = None,
) -> np.ndarray:
    """The step size of each group at each step, of shape (groups, steps), in float64.

    Args:
        schedule: one of
            a name: "constant"; "linear", to floor·lr; "cosine", to floor·lr; "wsd", constant and then
            linear to floor·lr over the last share `decay` of the steps;
            numbers: one a step, or one row a group;
            a function of the step, counted from 0, that returns the step size;
            a torch LR scheduler that has not been stepped (also inside an Accelerate scheduler or a
            Lightning mapping): it is simulated on a copy, and neither it nor its optimizer is touched.
        steps: of the run; not needed for numbers.
        lr: the peak step size of a name, or one for each group.
        warmup: with a name: the share of the steps over which the step size rises in equal steps to lr.
        floor: with a name: the last step size as a share of lr.
        decay: with "wsd": the share of the steps over which it falls.
        interval: how often the schedule goes on: "step", once an optimizer step; "epoch", once an epoch, so
            that numbers, functions and names count epochs; or a number of optimizer steps. None is "step",
            and for a torch scheduler it is found from its own length and shape.
        steps_per_epoch: optimizer steps of an epoch.

    Convention: with W warmup steps, lr_t = lr (t + 1)/W for t < W; after that u = (t - W)/(T - W) runs from
    0, and never quite reaches 1: linear 1 - u, cosine (1 + cos(pi u))/2, as torch's schedulers do.

    Raises:
        InputError: not a schedule, a number out of range, a scheduler that looks at a metric
            (ReduceLROnPlateau) or has been stepped, one that ends before the run does, or one of which it
            is not clear whether it goes by steps or by epochs.

    >>> lrs("linear", 4, lr=1.0)
    array([[1.  , 0.75, 0.5 , 0.25]])
    >>> lrs([0.1, 0.2])
    array([[0.1, 0.2]])
    >>> lrs([0.1, 0.2], interval="epoch", steps_per_epoch=2)
    array([[0.1, 0.1, 0.2, 0.2]])
    """
    shape = {"warmup": warmup, "floor": floor, "decay": decay}
    return described_lrs(schedule, steps, lr, interval=interval, steps_per_epoch=steps_per_epoch, **shape)[0]


def described_lrs(
    schedule: Any,
    steps: int | None = None,
    lr: float | Sequence[float] | None = None,
    *,
    warmup: float = 0.0,
    floor: float = 0.0,
    decay: float = 0.2,
    interval: Interval | None = None,
    steps_per_epoch: float | None = None,
) -> tuple[np.ndarray, str]:
    """Return what `lrs` does, and in words how often the schedule goes on."""
    if isinstance(schedule, Mapping) and "scheduler" in schedule and interval is None:
        interval = _of_mapping(schedule, steps_per_epoch)
    schedule = bare_scheduler(schedule)
    if not isinstance(schedule, str):
        if lr is not None:
            remedy = "leave it out: the schedule has its own"
            raise InputError("lr is the peak of a schedule given by name", "lr", lr, remedy)
        if (warmup, floor, decay) != (0.0, 0.0, 0.2):
            what = "warmup, floor and decay shape a schedule given by name"
            raise InputError(what, "schedule", type(schedule).__name__, "leave out")
    between = None if interval is None else steps_between(interval, steps_per_epoch)
    if is_scheduler(schedule):
        rows, between = _of_scheduler(schedule, _steps(steps), between, steps_per_epoch)
        return rows, _in_words(schedule, between, interval)
    read: Any = _values_of if callable(schedule) else _numbers
    if isinstance(schedule, str):
        read = functools.partial(_named, lr=lr, warmup=warmup, floor=floor, decay=decay)
    if between is None or between == 1:
        return read(schedule, steps), ""
    if steps is None and read is _numbers:
        rows = _numbers(schedule, None)
        total = round(rows.shape[1] * between)
    else:
        total = _steps(steps)
        rows = read(schedule, values_needed(total, between))
    return stretched(rows, total, between), _in_words(schedule, between, interval)


def bare_scheduler(schedule: Any) -> Any:
    """Return torch's scheduler in what Accelerate and Lightning put around it; anything else as it is."""
    for _ in range(8):  # wrappers in wrappers
        inner = schedule.get("scheduler") if isinstance(schedule, Mapping) else None
        if inner is None and not is_scheduler(schedule):
            inner = getattr(schedule, "scheduler", None)
        if inner is None:
            break
        schedule = inner
    return schedule


def _of_mapping(schedule: Mapping[Any, Any], steps_per_epoch: float | None) -> Interval | None:
    """How often Lightning steps a scheduler of its configuration; None where that is not said."""
    if (interval := schedule.get("interval")) is None:
        return None
    every = number(schedule.get("frequency", 1), "frequency", least=1)
    return interval if every == 1 else every * steps_between(interval, steps_per_epoch)


def _of_scheduler(
    scheduler: Any, steps: int, between: float | None, steps_per_epoch: float | None
) -> tuple[np.ndarray, float]:
    """The step sizes by a torch scheduler, and the optimizer steps between two of its own."""
    _refuse_what_cannot_be_simulated(scheduler)
    per_epoch = None if steps_per_epoch is None else number(steps_per_epoch, "steps_per_epoch", above=0)
    wanted = steps if between is None else values_needed(steps, between)
    values, error = _simulated(scheduler, wanted)
    if between is None:
        if per_epoch == 1:
            between = 1.0
        else:
            known = None if per_epoch is None or per_epoch < 1 else per_epoch
            between = steps_between(interval_of(scheduler, values, steps, known), per_epoch)
    needed = values_needed(steps, between)
    if values.shape[1] < needed and error is not None:
        raise error
    return stretched(values, steps, between), between


def _in_words(schedule: Any, between: float, interval: Any) -> str:
    """How often a schedule goes on, in words."""
    what = f"{type(schedule).__name__}, stepped" if is_scheduler(schedule) else "goes on"
    often = "once a step" if between == 1 else f"once in {between:g} steps"
    if interval == "epoch" or (interval is None and between > 1):
        often = f"once an epoch of {between:g} steps"
    other = "epoch" if between == 1 else "step"
    doubt = f' (judged by its length and shape; if not, give interval="{other}")' if interval is None else ""
    return f"{what} {often}{doubt}"


def _steps(steps: Any) -> int:
    if steps is None:
        raise InputError("how many steps has the run?", "steps", "None", "give steps")
    return count(steps, "steps", most=MOST_STEPS)


def _named(name: str, steps: Any, *, lr: Any, warmup: float, floor: float, decay: float) -> np.ndarray:
    if name not in NAMES:
        raise InputError("no such schedule", "schedule", repr(name), f"use one of {', '.join(NAMES)}")
    total = _steps(steps)
    if lr is None:
        raise InputError("a schedule given by name needs its peak", "lr", "None", "give lr")
    peaks = vector([number(lr, "lr", least=0)] if np.ndim(lr) == 0 else lr, "lr")
    if peaks.ndim != 1:
        raise InputError("one step size a group", "lr", f"shape {peaks.shape}", "give a number or a list")
    warmup, floor = _share(warmup, "warmup"), _share(floor, "floor")
    rising = round(warmup * total)
    u = (np.arange(total) - rising) / max(total - rising, 1)
    if name == "constant":
        falling = np.ones(total)
    elif name == "linear":
        falling = 1 - u
    elif name == "cosine":
        falling = (1 + np.cos(np.pi * u)) / 2
    else:
        last = round(_share(decay, "decay") * total)
        if rising + last > total:
            raise InputError("warmup and decay overlap", "decay", decay, "together at most 1")
        falling = np.minimum(1, (total - np.arange(total)) / max(last, 1))
    relative = floor + (1 - floor) * falling
    relative[:rising] = np.arange(1, rising + 1) / max(rising, 1)
    return peaks[:, None] * relative


def _share(value: Any, where: str) -> float:
    share = number(value, where, least=0)
    if share > 1:
        raise InputError("not a share", where, value, "give a number from 0 to 1")
    return share


def _numbers(values: Any, steps: Any) -> np.ndarray:
    array = vector(values, "schedule")
    if array.ndim not in (1, 2):
        raise InputError(
            "neither one step size a step nor one row a group",
            "schedule",
            f"{type(values).__name__} of shape {array.shape}",
            "give a list of numbers, or of lists",
        )
    array = np.atleast_2d(array)
    if steps is not None and array.shape[1] != _steps(steps):
        raise InputError(
            "the schedule and the run differ in length",
            "schedule",
            f"{array.shape[1]} numbers",
            f"give {steps}, one a step",
        )
    return array


def _values_of(schedule: Any, steps: Any) -> np.ndarray:
    steps = _steps(steps)
    try:
        values = [schedule(step) for step in range(steps)]
    except Exception as error:  # whatever a user's function may raise
        what, value = "the schedule cannot be called with a step", f"{type(schedule).__name__}: {error}"
        raise InputError(what, "schedule", value, "mend it") from error
    return np.array([[number(v, f"schedule({t})", least=0) for t, v in enumerate(values)]])


def is_scheduler(schedule: Any) -> bool:
    """Return whether it is one of torch's schedulers."""
    # Whoever holds a scheduler has imported torch; nobody else waits for it.
    if "torch" not in sys.modules:
        return False
    from torch.optim.lr_scheduler import LRScheduler

    return isinstance(schedule, LRScheduler)


def _simulated(scheduler: Any, steps: int) -> tuple[np.ndarray, InputError | None]:
    """Step a copy of the scheduler on a stand-in for its optimizer.

    Returns:
        The step sizes, as far as the scheduler goes, and why it goes no further.
    """
    stand_in = SimpleNamespace(
        param_groups=[
            {key: copy.deepcopy(value) for key, value in group.items() if key not in _PARAMETERS}
            for group in scheduler.optimizer.param_groups
        ],
        step=_taken,
        _opt_called=True,
    )
    try:
        twin = copy.deepcopy(scheduler, {id(scheduler.optimizer): stand_in})
        _own_functions(twin)
    except Exception as error:  # it may hold anything
        what, value = "the scheduler cannot be copied", f"{type(scheduler).__name__}: {error}"
        raise InputError(what, "schedule", value, "give its numbers") from error
    result = np.empty((len(stand_in.param_groups), steps))
    for step in range(steps):
        result[:, step] = [float(group["lr"]) for group in stand_in.param_groups]
        if not (result[:, step] >= 0).all() or np.isinf(result[:, step]).any():
            if step == 0:
                vector(result[:, :1], "schedule")  # raises
            what = f"the scheduler gives no step size at its step {step}"
            value = f"{type(scheduler).__name__}: {result[:, step].min():g}"
            return result[:, :step], InputError(what, "schedule", value, "mend it")
        if step + 1 < steps:
            try:
                twin.step()
            except Exception as error:  # OneCycleLR after its last step, or anything in one of a user's own
                what = f"the scheduler cannot go past {step + 1} steps"
                return result[:, : step + 1], InputError(what, "steps", steps, f"it says: {error}")
    return result, None


def _own_functions(scheduler: Any) -> None:
    """Replace a copied scheduler's functions by copies: a deep copy shares them, and they may count calls."""
    for key, value in vars(scheduler).items():
        if key != "optimizer" and isinstance(value, FunctionType | list):
            setattr(scheduler, key, _owned(value))
    for part in getattr(scheduler, "_schedulers", ()):
        _own_functions(part)


def _owned(value: Any) -> Any:
    """A copy of a function, with the variables and defaults it keeps state in, or of a container.

    Other objects are shared: a function may well know the whole training.
    """
    if isinstance(value, FunctionType):
        cells = tuple(map(_cell, value.__closure__ or ())) if value.__closure__ else None
        twin = FunctionType(value.__code__, value.__globals__, value.__name__, closure=cells)
        twin.__defaults__, twin.__kwdefaults__ = _owned(value.__defaults__), _owned(value.__kwdefaults__)
        twin.__dict__.update(_owned(value.__dict__))
        return twin
    if type(value) in (list, tuple):
        return type(value)(map(_owned, value))
    if type(value) is dict:
        return {key: _owned(item) for key, item in value.items()}
    if isinstance(value, Iterator | set | deque):
        return copy.deepcopy(value)  # of a generator it raises: it cannot be looked into
    return value


def _cell(cell: CellType) -> CellType:
    try:
        return CellType(_owned(cell.cell_contents))
    except ValueError:  # a name that is not bound yet, or the function's own
        return CellType()


def _taken() -> None:
    """What a scheduler asks of its optimizer's `step`: that schedulers know it, and that it was called."""


_taken._wrapped_by_lr_sched = True  # pyright: ignore[reportFunctionMemberAccess]


def _refuse_what_cannot_be_simulated(scheduler: Any) -> None:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    if isinstance(scheduler, ReduceLROnPlateau):
        raise InputError(
            "the step sizes depend on a metric of the run",
            "schedule",
            "ReduceLROnPlateau",
            "give the numbers expected, or a half-life at the peak",
        )
    if _stepped(scheduler):
        raise InputError(
            "the scheduler has been stepped, so the start of the run is gone",
            "schedule",
            type(scheduler).__name__,
            "give it before the first step",
        )


def _stepped(scheduler: Any) -> bool:
    """Whether a scheduler, or one that it is made of, has gone past its first step."""
    if getattr(scheduler, "_step_count", 0) > 1 or getattr(scheduler, "last_epoch", 0) > 0:
        return True
    return any(map(_stepped, getattr(scheduler, "_schedulers", ())))
