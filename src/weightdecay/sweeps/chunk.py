"""What a chunk's trainings share before any of them begins: step sizes, and how strongly each copy decays."""

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from weightdecay.errors import InputError
from weightdecay.hooks.optimizers import momentum_of
from weightdecay.hooks.plan import Plan, check_strengths, make_plan
from weightdecay.hooks.refusals import check_native, check_optimizer
from weightdecay.hooks.trial import try_rule
from weightdecay.rules import Rule, Strength, rules_of
from weightdecay.rules.strength import GroupStrength, Setting, group_strength
from weightdecay.schedule import lrs
from weightdecay.sweeps.grid import strength_of
from weightdecay.sweeps.looks import made, set_up
from weightdecay.sweeps.task import Chunk, Task


@dataclass(frozen=True)
class Strong:
    """One strength of a chunk, read for every rule and parameter group.

    Args:
        rules: one after another.
        plan: which parameters decay, and how strongly.
        weight_decay: the number it comes to; None where there is no one number.
    """

    rules: tuple[Rule, ...]
    plan: Plan
    weight_decay: float | None


@dataclass(frozen=True)
class Settings:
    """A chunk, ready to be trained.

    Args:
        task: what is trained.
        chunk: the copies.
        rates: the step sizes (groups, steps).
        strong: one for each of the chunk's strengths.
        steps_per_epoch: of the run that strengths are meant for (a trial is shorter than that).
    """

    task: Task
    chunk: Chunk
    rates: np.ndarray
    strong: tuple[Strong, ...]
    steps_per_epoch: int

    @property
    def setting(self) -> Setting:
        """What `attach` is told."""
        return setting_of(self.task, self.rates, self.steps_per_epoch)


def settings_of(task: Task, chunk: Chunk) -> Settings:
    """Read the schedule and the strengths of a chunk.

    Raises:
        InputError: a schedule, an optimizer, a rule or a strength that cannot be used; see `wd.attach`.
    """
    model = made(task, chunk.seeds[0])
    rates = rates_of(task, list(model.parameters()), chunk.lr)
    setting = setting_of(task, rates, task.steps_per_epoch)
    optimizer = optimizer_of(task, list(model.parameters()), chunk.lr)
    strong, plan = [], None
    for strength in chunk.strengths:
        rules = rules_made(task, chunk.rule, strength_of(strength, chunk.unit))
        if plan is None or [type(rule) for rule in rules] != [type(rule) for rule in strong[0].rules]:
            plan = make_plan(optimizer, rules, model, task.on, setting)
            if not plan.all_targets:
                what = "no parameter of the model decays"
                raise InputError(what, "on", repr(task.on), "choose other groups")
            for rule in rules:
                try_rule(rule, plan.all_targets)
        strengths = tuple(_by_group(rule, optimizer, plan, setting) for rule in rules)
        own = dataclasses.replace(plan, strengths=strengths)
        check_strengths(optimizer, rules, own, setting)
        strong.append(Strong(rules, own, _number(rules[0], strengths[0])))
    return Settings(task, chunk, rates, tuple(strong), task.steps_per_epoch)


def factor_of(task: Task, rule: str, lr: float | None) -> float | None:
    """The fraction of a weight that λ = 1 removes in a step at the largest learning rate.

    None where there is no such number: coupled decay, several step sizes, a rule without a law of its own.
    """
    with set_up(task):  # making a model draws random numbers
        settings = settings_of(task, Chunk(rule, lr, (0.0,), "weight_decay", (0,)))
    strong = settings.strong[0]
    if len(strong.rules) != 1 or strong.rules[0].coupled:
        return None
    (strengths,) = strong.plan.strengths
    found = {
        float(strength.rate(1.0, float(rates.max())))
        for strength, rates in zip(strengths, settings.rates, strict=True)
        if strength is not None
    }
    return found.pop() if len(found) == 1 else None


def rules_made(task: Task, name: str, strength: Strength) -> tuple[Rule, ...]:
    """The rules that a name stands for, at a strength.

    Raises:
        InputError: the user's function of the strength fails, or gives no rule.
    """
    try:
        made_one = task.rules[name](strength)
    except InputError:  # a rule's own, of a strength that it cannot have
        raise
    except Exception as error:
        what = f"the rule {name} cannot be made with a strength ({type(error).__name__}: {error})"
        remedy = "give a class such as wd.Decoupled, or a function of the strength that returns a rule"
        raise InputError(what, "rule", repr(strength), remedy) from error
    return rules_of(made_one)


def optimizer_of(task: Task, parameters: list[nn.Parameter], lr: float | None) -> Optimizer:
    """The user's optimizer on these parameters.

    Raises:
        InputError: it cannot be made, is none, or decays by itself.
    """
    try:
        optimizer = task.optimizer(parameters) if lr is None else task.optimizer(parameters, lr=lr)
    except Exception as error:
        what = f"the optimizer cannot be made ({type(error).__name__}: {error})"
        remedy = "give a function of the parameters, say partial(torch.optim.AdamW, lr=1e-3, weight_decay=0)"
        raise InputError(what, "optimizer", _name(task.optimizer), remedy) from error
    optimizer = check_optimizer(optimizer)
    _without_default_decay(optimizer)
    if getattr(optimizer, "defaults", {}).get("weight_decay"):
        what = "the optimizer decays by itself, beside the strengths that are tried"
        value, kind = optimizer.defaults["weight_decay"], type(optimizer).__name__
        raise InputError(what, f"weight_decay of {kind}", value, "give it weight_decay=0")
    check_native(optimizer)
    return optimizer


def _without_default_decay(optimizer: Optimizer) -> None:
    """A class's own default, such as AdamW's .01, is nobody's wish: the strengths take its place."""
    own = inspect.signature(type(optimizer)).parameters.get("weight_decay")
    if own is None:
        return
    for options in (getattr(optimizer, "defaults", {}), *optimizer.param_groups):
        if options.get("weight_decay") == own.default:
            options["weight_decay"] = 0.0


def rates_of(task: Task, parameters: list[nn.Parameter], lr: float | None) -> np.ndarray:
    """The step size of each parameter group at each step (groups, steps).

    Raises:
        InputError: a schedule that cannot be used.
    """
    schedule, steps = task.schedule, task.steps
    optimizer = optimizer_of(task, parameters, lr)  # one of its own: making a scheduler changes it
    own = [float(group["lr"]) for group in optimizer.param_groups]
    if schedule is None or isinstance(schedule, str):
        return lrs(schedule or "constant", steps, own)
    made_one = _scheduler(schedule, optimizer)
    if made_one is None and lr is not None:
        what = "the schedule has step sizes of its own, and so has the second axis"
        remedy = "give a schedule's name, or a function optimizer -> torch scheduler"
        raise InputError(what, "schedule", type(schedule).__name__, remedy)
    # A sweep steps a scheduler once an optimizer step.
    rows = lrs(schedule if made_one is None else made_one, steps, interval="step")
    if len(rows) not in (1, len(own)):
        what = "a schedule has one row for each parameter group"
        raise InputError(what, "schedule", len(rows), f"give {len(own)} rows")
    return np.broadcast_to(rows, (len(own), steps))


def setting_of(task: Task, rates: np.ndarray, steps_per_epoch: int) -> Setting:
    """What is known about the run, as `attach` has it."""
    return Setting(
        steps_per_epoch=steps_per_epoch, samples_per_step=task.batch_size, steps=rates.shape[1], lrs=rates
    )


def _scheduler(schedule: Any, optimizer: Optimizer) -> LRScheduler | None:
    """What a function `optimizer -> scheduler` makes; None for a schedule of another kind."""
    if isinstance(schedule, LRScheduler) or not callable(schedule):
        return None
    try:
        found = schedule(optimizer)
    except Exception:  # a function of the step; `lrs` says so if it is none
        return None
    if not isinstance(found, LRScheduler):
        return None
    if getattr(found, "cycle_momentum", False):
        what, remedy = "a schedule that changes the momentum, too", "give it cycle_momentum=False"
        raise InputError(what, "schedule", type(found).__name__, remedy)
    return found


def _by_group(
    rule: Rule, optimizer: Optimizer, plan: Plan, setting: Setting
) -> tuple[GroupStrength | None, ...]:
    groups = optimizer.param_groups
    return tuple(
        group_strength(rule, i, len(groups), setting, momentum_of(optimizer, group))
        if plan.targets[i]
        else None
        for i, group in enumerate(groups)
    )


def _number(rule: Rule, strengths: tuple[GroupStrength | None, ...]) -> float | None:
    """The strength as a number, where it is one number."""
    if callable(rule.weight_decay):
        return None
    found = {_plain(strength.at(0)) for strength in strengths if strength is not None}
    return found.pop() if len(found) == 1 else None


def _plain(value: float | Tensor) -> float:
    return float(value)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
