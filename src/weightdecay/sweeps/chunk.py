"""A rule at a learning rate, read once: step sizes, the parameters that decay, the strength of each copy."""

import dataclasses
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from weightdecay.errors import InputError
from weightdecay.hooks.optimizers import check_native, check_optimizer, momentum_of
from weightdecay.hooks.plan import Plan, check_strengths, make_plan
from weightdecay.hooks.trial import try_rule
from weightdecay.rules import Rule, Strength, rules_of
from weightdecay.rules.strength import GroupStrength, Setting, group_strength
from weightdecay.schedule import lrs
from weightdecay.sweeps.grid import strength_of
from weightdecay.sweeps.looks import function_name, made, set_up
from weightdecay.sweeps.task import Chunk, Task


@dataclass(frozen=True)
class Strong:
    """One strength, read for every rule and parameter group.

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
    def weight_decays(self) -> list[float | None]:
        """The number that each strength comes to."""
        return [strong.weight_decay for strong in self.strong]


@dataclass(frozen=True)
class Recipe:
    """A rule at a learning rate.

    Args:
        task: what is trained.
        rule: the rule's name.
        lr: the learning rate where there are several, else None.
        model: one of the models, for its parameters' names and shapes.
        optimizer: one of its parameters, which makes no step.
        rates: the step sizes (groups, steps).
    """

    task: Task
    rule: str
    lr: float | None
    model: nn.Module
    optimizer: Optimizer
    rates: np.ndarray
    _strong: dict[Strength, Strong] = field(default_factory=dict)
    _plans: dict[tuple[type, ...], Plan] = field(default_factory=dict)

    def settings(self, chunk: Chunk) -> Settings:
        """A chunk of this rule and learning rate.

        Raises:
            InputError: as `strong`.
        """
        strong = map(functools.partial(self.strong, unit=chunk.unit), chunk.strengths)
        return Settings(self.task, chunk, self.rates, tuple(strong), self.task.steps_per_epoch)

    def strong(self, value: float, unit: str) -> Strong:
        """Read a strength.

        Raises:
            InputError: a rule or a strength that cannot be used; see `wd.attach`.
        """
        strength = strength_of(value, unit)
        if strength in self._strong:
            return self._strong[strength]
        rules, optimizer = rules_at(self.task, self.rule, strength), self.optimizer
        setting = Setting(
            steps_per_epoch=self.task.steps_per_epoch,
            samples_per_step=self.task.batch_size,
            steps=self.rates.shape[1],
            lrs=self.rates,
        )
        kinds = tuple(map(type, rules))
        if kinds not in self._plans:
            plan = make_plan(optimizer, rules, self.model, self.task.on, setting)
            if not plan.all_targets:
                what = "no parameter of the model decays"
                raise InputError(what, "on", repr(self.task.on), "choose other groups")
            for rule in rules:
                if not rule.built_in:
                    try_rule(rule, plan.all_targets)
            self._plans[kinds] = plan
        plan, groups = self._plans[kinds], optimizer.param_groups
        strengths: list[tuple[GroupStrength | None, ...]] = []
        for rule in rules:
            by_group: list[GroupStrength | None] = [None] * len(groups)
            for i, group in enumerate(groups):
                if plan.targets[i]:
                    momentum = momentum_of(optimizer, group)
                    by_group[i] = group_strength(rule, i, len(groups), setting, momentum)
            strengths.append(tuple(by_group))
        plan = dataclasses.replace(plan, strengths=tuple(strengths))
        # Refusals alone: what rounding does to a strength is advice, and takes as long as a small training.
        check_strengths(optimizer, rules, plan, setting, rounded=True)
        numbers = set()
        if not callable(rules[0].weight_decay):
            numbers = {float(of_group.at(0)) for of_group in strengths[0] if of_group is not None}
        weight_decay = numbers.pop() if len(numbers) == 1 else None
        self._strong[strength] = Strong(rules, plan, weight_decay)
        return self._strong[strength]

    @property
    def factor(self) -> float | None:
        """The fraction of a weight that λ = 1 removes in a step at the largest learning rate.

        None where there is no such number: coupled decay, several step sizes, a rule with no law of its own.
        """
        none = self.strong(0.0, "weight_decay")
        if len(none.rules) != 1 or none.rules[0].coupled:
            return None
        factors = {
            float(strength.rate(1.0, float(rates.max())))
            for strength, rates in zip(none.plan.strengths[0], self.rates, strict=True)
            if strength is not None
        }
        return factors.pop() if len(factors) == 1 else None


@dataclass(frozen=True)
class Recipes:
    """The recipe of every rule and learning rate of a task, each made when first asked for."""

    task: Task
    _made: dict[tuple[str, float | None], Recipe] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process makes its own: not every model can be sent."""
        return Recipes, (self.task,)

    def of(self, rule: str, lr: float | None) -> Recipe:
        """The recipe of a rule and a learning rate; draws random numbers.

        Raises:
            InputError: a model, an optimizer or a schedule that cannot be used.
        """
        if (rule, lr) not in self._made:
            others = list(self._made.values())
            model = others[0].model if others else made(self.task, self.task.seeds[0])
            rates = rates_of(self.task, list(model.parameters()), lr)
            optimizer = optimizer_of(self.task, list(model.parameters()), lr)
            self._made[rule, lr] = Recipe(self.task, rule, lr, model, optimizer, rates)
        return self._made[rule, lr]

    def check(self, strengths: Sequence[float]) -> None:
        """Read strengths with every rule and learning rate.

        Raises:
            InputError: one that a rule cannot have, or that would remove a whole weight in a step.
        """
        with set_up(self.task):
            for pair in self.task.pairs:
                for strength in strengths:
                    self.of(*pair).strong(strength, self.task.strengths.unit)


def rules_at(task: Task, name: str, strength: Strength) -> tuple[Rule, ...]:
    """The rules that a name stands for, at a strength.

    Raises:
        InputError: the user's function of the strength fails, or gives no rule.
    """
    try:
        rule = task.rules[name](strength)
    except InputError:  # a rule's own, of a strength that it cannot have
        raise
    except Exception as error:
        what = f"the rule {name} cannot be made with a strength ({type(error).__name__}: {error})"
        remedy = "give a class such as wd.Decoupled, or a function of the strength that returns a rule"
        raise InputError(what, "rule", repr(strength), remedy) from error
    return rules_of(rule)


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
        raise InputError(what, "optimizer", function_name(task.optimizer), remedy) from error
    optimizer = check_optimizer(optimizer)
    # A class's own default, such as AdamW's .01, is nobody's wish: the strengths take its place.
    own = inspect.signature(type(optimizer)).parameters.get("weight_decay")
    if own is not None:
        for options in (getattr(optimizer, "defaults", {}), *optimizer.param_groups):
            if options.get("weight_decay") == own.default:
                options["weight_decay"] = 0.0
    if getattr(optimizer, "defaults", {}).get("weight_decay"):
        what = "the optimizer decays by itself, beside the strengths that are tried"
        value, kind = optimizer.defaults["weight_decay"], type(optimizer).__name__
        raise InputError(what, f"weight_decay of {kind}", value, "give it weight_decay=0")
    check_native(optimizer)
    return optimizer


def options_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The options of each parameter group, without its parameters."""
    options = []
    for group in optimizer.param_groups:
        options.append(dict(group))
        options[-1].pop("params")
        options[-1].pop("param_names", None)
    return options


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
    scheduler = _scheduler(schedule, optimizer)
    if scheduler is None and lr is not None:
        what = "the schedule has step sizes of its own, and so has the second axis"
        remedy = "give a schedule's name, or a function optimizer -> torch scheduler"
        raise InputError(what, "schedule", type(schedule).__name__, remedy)
    # A sweep steps a scheduler once an optimizer step.
    rows = lrs(schedule if scheduler is None else scheduler, steps, interval="step")
    if len(rows) not in (1, len(own)):
        what = "a schedule has one row for each parameter group"
        raise InputError(what, "schedule", len(rows), f"give {len(own)} rows")
    return np.broadcast_to(rows, (len(own), steps))


def _scheduler(schedule: Any, optimizer: Optimizer) -> LRScheduler | None:
    """What a function `optimizer -> scheduler` makes; None for a schedule of another kind."""
    if isinstance(schedule, LRScheduler) or not callable(schedule):
        return None
    try:
        scheduler = schedule(optimizer)
    except Exception:  # a function of the step; `lrs` says so if it is none
        return None
    if not isinstance(scheduler, LRScheduler):
        return None
    if getattr(scheduler, "cycle_momentum", False):
        what, remedy = "a schedule that changes the momentum, too", "give it cycle_momentum=False"
        raise InputError(what, "schedule", type(scheduler).__name__, remedy)
    return scheduler
