"""The step size of every step of a run, from a name, numbers, a function or a torch scheduler."""

import copy
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from weightdecay.errors import InputError
from weightdecay.units.numbers import count, number, vector

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
) -> np.ndarray:
    """The step size of each group at each step, of shape (groups, steps), in float64.

    Args:
        schedule: one of
            a name: "constant"; "linear", to floor·lr; "cosine", to floor·lr; "wsd", constant and then
            linear to floor·lr over the last share `decay` of the steps;
            numbers: one a step, or one row a group;
            a function of the step, counted from 0, that returns the step size;
            a torch LR scheduler that has not been stepped: it is simulated on a copy, and neither it nor
            its optimizer is touched.
        steps: of the run; not needed for numbers.
        lr: the peak step size of a name, or one for each group.
        warmup: with a name: the share of the steps over which the step size rises in equal steps to lr.
        floor: with a name: the last step size as a share of lr.
        decay: with "wsd": the share of the steps over which it falls.

    Convention: with W warmup steps, lr_t = lr (t + 1)/W for t < W; after that u = (t - W)/(T - W) runs from
    0, and never quite reaches 1: linear 1 - u, cosine (1 + cos(pi u))/2, as torch's schedulers do.

    Raises:
        InputError: not a schedule, a number out of range, a scheduler that looks at a metric
            (ReduceLROnPlateau) or has been stepped, one that ends before the run does.

    >>> lrs("linear", 4, lr=1.0)
    array([[1.  , 0.75, 0.5 , 0.25]])
    >>> lrs([0.1, 0.2])
    array([[0.1, 0.2]])
    """
    if isinstance(schedule, str):
        return _named(schedule, steps, lr, warmup=warmup, floor=floor, decay=decay)
    if lr is not None:
        raise InputError(
            "lr is the peak of a schedule given by name", "lr", lr, "leave it out: the schedule has its own"
        )
    if (warmup, floor, decay) != (0.0, 0.0, 0.2):
        raise InputError(
            "warmup, floor and decay shape a schedule given by name", "schedule", _kind(schedule), "leave out"
        )
    if _is_scheduler(schedule):
        return _simulated(schedule, _steps(steps))
    if callable(schedule):
        return _called(schedule, _steps(steps))
    return _given(schedule, steps)


def _steps(steps: Any) -> int:
    if steps is None:
        raise InputError("how many steps has the run?", "steps", "None", "give steps")
    return count(steps, "steps", most=MOST_STEPS)


def _kind(schedule: Any) -> str:
    return type(schedule).__name__


def _named(name: str, steps: Any, lr: Any, *, warmup: float, floor: float, decay: float) -> np.ndarray:
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
        falling = _stable_then_linear(total, rising, _share(decay, "decay"))
    relative = floor + (1 - floor) * falling
    relative[:rising] = np.arange(1, rising + 1) / max(rising, 1)
    return peaks[:, None] * relative


def _stable_then_linear(total: int, rising: int, decay: float) -> np.ndarray:
    last = round(decay * total)
    if rising + last > total:
        raise InputError("warmup and decay overlap", "decay", decay, "together at most 1")
    return np.minimum(1, (total - np.arange(total)) / max(last, 1))


def _share(value: Any, where: str) -> float:
    share = number(value, where, least=0)
    if share > 1:
        raise InputError("not a share", where, value, "give a number from 0 to 1")
    return share


def _given(values: Any, steps: Any) -> np.ndarray:
    array = vector(values, "schedule")
    if array.ndim not in (1, 2):
        raise InputError(
            "neither one step size a step nor one row a group",
            "schedule",
            f"{_kind(values)} of shape {array.shape}",
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


def _called(schedule: Any, steps: int) -> np.ndarray:
    try:
        values = [schedule(step) for step in range(steps)]
    except Exception as error:  # whatever a user's function may raise
        raise InputError(
            "the schedule cannot be called with a step", "schedule", f"{_kind(schedule)}: {error}", "mend it"
        ) from error
    return np.array([[number(v, f"schedule({t})", least=0) for t, v in enumerate(values)]])


def _is_scheduler(schedule: Any) -> bool:
    # Whoever holds a scheduler has imported torch; nobody else waits for it.
    if "torch" not in sys.modules:
        return False
    from torch.optim.lr_scheduler import LRScheduler

    return isinstance(schedule, LRScheduler)


def _simulated(scheduler: Any, steps: int) -> np.ndarray:
    """Step a copy of the scheduler on a stand-in for its optimizer."""
    _refuse_what_cannot_be_simulated(scheduler)
    stand_in = SimpleNamespace(
        param_groups=[
            {
                key: copy.deepcopy(value)
                for key, value in group.items()
                if key not in ("params", "param_names")
            }
            for group in scheduler.optimizer.param_groups
        ],
        step=_taken,
        _opt_called=True,
    )
    try:
        twin = copy.deepcopy(scheduler, {id(scheduler.optimizer): stand_in})
    except Exception as error:  # it may hold anything
        raise InputError(
            "the scheduler cannot be copied", "schedule", f"{_kind(scheduler)}: {error}", "give its numbers"
        ) from error
    result = np.empty((len(stand_in.param_groups), steps))
    for step in range(steps):
        result[:, step] = [float(group["lr"]) for group in stand_in.param_groups]
        if step + 1 < steps:
            try:
                twin.step()
            except Exception as error:  # OneCycleLR after its last step, or anything in one of a user's own
                raise InputError(
                    f"the scheduler cannot go past {step + 1} steps", "steps", steps, f"it says: {error}"
                ) from error
    return vector(result, "schedule")


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
            _kind(scheduler),
            "give it before the first step",
        )


def _stepped(scheduler: Any) -> bool:
    """Whether a scheduler, or one that it is made of, has gone past its first step."""
    if getattr(scheduler, "_step_count", 0) > 1 or getattr(scheduler, "last_epoch", 0) > 0:
        return True
    return any(map(_stepped, getattr(scheduler, "_schedulers", ())))
