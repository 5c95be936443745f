"""The step sizes of each group over the run, from whatever is known of the schedule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import optim

from weightdecay.auditing.decaying import as_number
from weightdecay.auditing.drafts import Draft
from weightdecay.errors import InputError
from weightdecay.hooks.refuse import bare_optimizer
from weightdecay.schedule.interval import Interval
from weightdecay.schedule.learning_rates import bare_scheduler, is_scheduler, told_lrs
from weightdecay.units.numbers import count

Optimizers = tuple[optim.Optimizer, ...]


@dataclass(frozen=True, eq=False)
class Course:
    """How lr goes.

    Args:
        rows: by optimizer and group: the step sizes of the run, or one alone where its length is not known.
        steps: of the run, or None.
        varies: the groups whose lr changes.
        drafts: what is wrong with the scheduler.
        told: how often each schedule goes on, in words.
    """

    rows: Mapping[tuple[int, int], np.ndarray]
    steps: int | None
    drafts: tuple[Draft, ...] = ()
    told: tuple[str, ...] = ()

    def peak(self, optimizer: int, group: int) -> float:
        """The largest step size of a group."""
        return float(self.rows[optimizer, group].max())


def course(
    schedule: Any,
    steps: Any,
    optimizers: Optimizers,
    interval: Interval | None = None,
    steps_per_epoch: float | None = None,
) -> Course:
    """Read the schedule.

    Args:
        schedule: None, what `weightdecay.schedule.lrs` takes, or a list with one scheduler an optimizer.
        steps: of the run, or None.
        optimizers: of the audit.
        interval: how often the schedule goes on, as in `lrs`.
        steps_per_epoch: steps of an epoch, or None.

    Raises:
        InputError: a schedule that cannot be used.
    """
    every: dict[str, Any] = {"interval": interval, "steps_per_epoch": steps_per_epoch}
    if schedule is None and interval is not None:
        raise InputError("an interval without a schedule", "interval", repr(interval), "give schedule=, too")
    total = None if steps is None else count(steps, "steps")
    groups = [(o, g) for o, one in enumerate(optimizers) for g in range(len(one.param_groups))]
    rows = {key: np.array([_lr(optimizers, *key)]) for key in groups}
    schedulers = _schedulers(schedule)
    if schedulers is None and schedule is not None:
        given, told = _numbers(schedule, total, optimizers, rows, every)
        rows = dict(zip(groups, given, strict=True))
        return Course(rows, len(given[0]), told=(told,) if told else ())
    drafts: list[Draft] = []
    tellings: list[str] = []
    several = [bare_scheduler(one) for one in schedulers or ()]
    for scheduler, given in zip(several, schedulers or (), strict=True):
        if any(other is not scheduler and other.optimizer is scheduler.optimizer for other in several):
            remedy = "give the ChainedScheduler or SequentialLR that they are steps of"
            raise InputError("two schedulers of one optimizer", "schedule", type(scheduler).__name__, remedy)
        drafts += _take(scheduler, given, total, optimizers, rows, every, tellings)
    lengths = {len(row) for row in rows.values()} - {1}
    total = total or (max(lengths) if lengths else None)
    if total is not None:
        # views of one number: they take no memory, however long the run
        rows = {key: np.broadcast_to(row, total) if len(row) == 1 else row for key, row in rows.items()}
    return Course(rows, total, tuple(drafts), tuple(dict.fromkeys(tellings)))


def _lr(optimizers: Optimizers, o: int, g: int) -> float:
    """The step size without a schedule; in warmup it is small or 0, and `initial_lr` is what it goes to."""
    group = optimizers[o].param_groups[g]
    return max(as_number(group.get("lr")), as_number(group.get("initial_lr")))


def _schedulers(schedule: Any) -> list[Any] | None:
    """Schedulers, in whatever is around them, if that is what was given."""
    several = (
        [one for one in schedule if one is not None] if isinstance(schedule, (list, tuple)) else [schedule]
    )
    if not several and schedule:
        return []  # a list of None: no scheduler
    return several if several and all(is_scheduler(bare_scheduler(one)) for one in several) else None


def _numbers(
    schedule: Any,
    steps: int | None,
    optimizers: Optimizers,
    rows: Mapping[Any, np.ndarray],
    every: Mapping[str, Any],
) -> tuple[Any, str]:
    """One row a group, from a name, numbers or a function of the step."""
    if isinstance(schedule, str):
        return told_lrs(schedule, steps, [float(row[0]) for row in rows.values()], **every)
    given, told = told_lrs(schedule, steps, **every)
    if len(given) not in (1, len(rows)):
        remedy = f"give one row, or {len(rows)}: one for each group of {len(optimizers)} optimizers"
        raise InputError("a schedule has one row for each group", "schedule", f"{len(given)} rows", remedy)
    return (given if len(given) == len(rows) else np.broadcast_to(given, (len(rows), given.shape[1]))), told


def _take(
    scheduler: Any,
    given: Any,
    steps: int | None,
    optimizers: Optimizers,
    rows: dict[Any, np.ndarray],
    every: Mapping[str, Any],
    tellings: list[str],
) -> list[Draft]:
    """Put what a scheduler will do into the rows; say so where it will not do it here."""
    kind, its = type(scheduler).__name__, bare_optimizer(scheduler.optimizer)
    found = next((o for o, one in enumerate(optimizers) if one is scheduler.optimizer or one is its), None)
    if found is None:
        other = type(scheduler.optimizer).__name__
        message = f"{kind} belongs to another {other} than the one given: it never changes lr here"
        return [Draft("WD505", (), message, "make the scheduler last, from the optimizer that steps")]
    groups, known = len(optimizers[found].param_groups), len(getattr(scheduler, "base_lrs", ()))
    if known and known != groups:
        message = f"{kind} knows {known} parameter groups and its optimizer has {groups}"
        return [Draft("WD505", (), message, "make the scheduler again after the last add_param_group")]
    own, told = told_lrs(given, steps, **every)
    for g, row in enumerate(own):
        rows[found, g] = row
    tellings.append(told)
    return []
