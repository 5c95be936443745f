"""From a strength as people write it to a number at each step, for one parameter group."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from weightdecay.arguments import number
from weightdecay.errors import InputError
from weightdecay.rules.base import Rule, shown
from weightdecay.units import HalfLife, HalfLives, Law, coupled_weight_decay, rate_of, shape, strength_for


@dataclass(frozen=True)
class Setting:
    """What is known about the training when a rule is attached; None is unknown.

    Args:
        steps_per_epoch, samples_per_step, tokens_per_step: to count half-lives in steps.
        steps: how many steps the run has.
        lrs: the learning rates of the run, groups × steps; one row counts for every group.
        schedule: how often the schedule goes on, in words; empty where that needs no word.
    """

    steps_per_epoch: float | None = None
    samples_per_step: float | None = None
    tokens_per_step: float | None = None
    steps: int | None = None
    lrs: np.ndarray | None = None
    schedule: str = ""

    def rates(self, group: int) -> np.ndarray | None:
        """The learning rates of a group over the run.

        Raises:
            InputError: the group came later than the schedule.
        """
        if self.lrs is None or len(self.lrs) == 1:
            return None if self.lrs is None else self.lrs[0]
        if group >= len(self.lrs):
            raise InputError(
                "the schedule has no learning rates for a group that came later",
                "schedule",
                f"{len(self.lrs)} rows",
                f"there is no row for group {group}: attach again with a new schedule",
            )
        return self.lrs[group]

    def peak(self, group: int) -> float | None:
        """The largest learning rate of a group over the schedule."""
        rates = self.rates(group)
        return None if rates is None else float(rates.max())


@dataclass(frozen=True)
class GroupStrength:
    """A rule's strength in one parameter group.

    Args:
        law: how the removed fraction follows lr; "constant" for a half-life without a learning rate.
        lr_max: the peak learning rate, where the law needs it.
        at: the strength at a step, before the group's scale.
        peak: the largest lr of the schedule that a half-life was told, where it holds at that lr.
        steps: the steps of the run that half-lives per run were told.
    """

    law: Law
    lr_max: float | None
    at: Callable[[int], float | Tensor]
    peak: float | None = None
    steps: int | None = None

    def rate(self, strength: float | Tensor, lr: float | Tensor) -> float | Tensor:
        """The fraction removed: strength times what the law makes of lr. Tensors stay tensors."""
        if self.law == "constant":
            return strength
        if self.law == "lr":
            return lr * strength
        assert self.lr_max is not None
        relative = lr / self.lr_max
        return relative * strength if self.law == "lr_relative" else lr * relative * strength

    def native(self, strength: float | Tensor, lr: float | Tensor) -> float | Tensor:
        """The `weight_decay` with which a natively decoupled optimizer removes that fraction."""
        if self.law == "lr":
            return strength
        assert self.lr_max is not None
        return strength / self.lr_max if self.law == "lr_relative" else strength * (lr / self.lr_max)


def group_strength(
    rule: Rule, group: int, groups: int, setting: Setting, momentum: Mapping[str, Any] | None
) -> GroupStrength:
    """Read the strength of a rule for one parameter group.

    A half-life needs to know at which lr it holds: `HalfLife(lr=)`, else the peak of the schedule given,
    else it holds at every lr, and the law is constant.

    Args:
        rule: the rule.
        group: the group's position in the optimizer.
        groups: how many groups the optimizer has.
        setting: what is known about the training.
        momentum: momentum, dampening and nesterov of torch's SGD; None for any other optimizer.

    Raises:
        InputError: λ is negative or not finite, a list of another length, a half-life that lacks something.
    """
    name = f"{type(rule).__name__}.weight_decay"
    lr_max = _lr_max(rule, group, groups, setting) if rule.law in ("lr_relative", "lr_squared") else None
    value = rule.weight_decay
    if isinstance(value, HalfLife | HalfLives) and not rule.paced:
        what = "the rule does not remove the same fraction of every weight, so it has no half-life"
        raise InputError(what, name, shown(value), "give a number")
    if isinstance(value, HalfLife):
        return _half_life(rule, value, lr_max, group, setting, momentum)
    if isinstance(value, HalfLives):
        return _half_lives(rule, value, lr_max, group, setting)
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise InputError("a strength is one number", name, tuple(value.shape), "give a 0-dim tensor")
        number(value.item(), name, least=0)
        return GroupStrength(rule.law, lr_max, lambda _: value.reshape(()))
    if callable(value):
        return GroupStrength(rule.law, lr_max, lambda step: _called(value, step, name))
    if isinstance(value, Sequence):
        value = _of_group(value, group, groups, name)
    strength = number(value, name, least=0)
    return GroupStrength(rule.law, lr_max, lambda _: strength)


def _called(function: Callable[[int], Any], step: int, name: str) -> float:
    """The value of a strength given as a function of the step."""
    try:
        value = function(step)
    except Exception as error:
        raise InputError(
            f"the function of the step failed ({type(error).__name__}: {error})",
            name,
            f"step {step}",
            "write a function that takes the step and returns a number",
        ) from error
    return number(value, f"{name}({step})", least=0)


def _of_group(value: Any, group: int, groups: int, name: str) -> Any:
    """The entry for a group of a list with one number each; a number is every group's."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return value
    if len(value) != groups:
        raise InputError(
            "a list has one number for each parameter group",
            name,
            list(value),
            f"the optimizer has {groups} group{'s' * (groups != 1)}",
        )
    return value[group]


def _lr_max(rule: Rule, group: int, groups: int, setting: Setting) -> float:
    where = f"{type(rule).__name__}.lr_max"
    given = _of_group(getattr(rule, "lr_max", None), group, groups, where)
    lr_max = setting.peak(group) if given is None else given
    if lr_max is None:
        # Not read from the optimizer: after OneCycleLR's construction its lr is 1/25 of the peak.
        raise InputError(
            "the rule needs the peak learning rate", where, "None", "give lr_max=, or schedule= to attach"
        )
    return number(lr_max, where, above=0)


def _half_life(
    rule: Rule,
    value: HalfLife,
    lr_max: float | None,
    group: int,
    setting: Setting,
    momentum: Mapping[str, Any] | None,
) -> GroupStrength:
    steps = value.in_steps(
        steps_per_epoch=setting.steps_per_epoch,
        samples_per_step=setting.samples_per_step,
        tokens_per_step=setting.tokens_per_step,
    )
    lr = next((lr for lr in (value.lr, lr_max, setting.peak(group)) if lr is not None), None)
    peak = lr if value.lr is None else None
    if lr == 0:
        raise InputError(
            "no half-life at a learning rate of 0", "schedule", f"group {group}", "give the group no decay"
        )
    if rule.coupled:
        if momentum is None:
            raise InputError(
                "coupled decay has no half-life in this optimizer",
                f"{type(rule).__name__}.weight_decay",
                shown(value),
                "give a number, or use wd.Decoupled",
            )
        if lr is None:
            raise InputError(
                "coupled decay has a half-life at one learning rate only",
                "HalfLife.lr",
                "None",
                "give lr=, or schedule= to attach",
            )
        strength = coupled_weight_decay(steps, lr, **momentum)
        return GroupStrength(rule.law, lr_max, lambda _: strength, peak)
    rate = rate_of(steps)
    if lr is None:
        return GroupStrength("constant", None, lambda _: rate)
    strength = rate / float(shape(rule.law, lr, lr_max))
    return GroupStrength(rule.law, lr_max, lambda _: strength, peak)


def _half_lives(
    rule: Rule, value: HalfLives, lr_max: float | None, group: int, setting: Setting
) -> GroupStrength:
    if rule.coupled:
        raise InputError(
            "coupled decay cannot be given in half-lives of a run",
            f"{type(rule).__name__}.weight_decay",
            value,
            "give a number or wd.HalfLife",
        )
    if (rates := setting.rates(group)) is not None:
        strength = strength_for(value.per_run, np.asarray(shape(rule.law, rates, lr_max)))
        return GroupStrength(rule.law, lr_max, lambda _: strength, float(rates.max()), len(rates))
    if setting.steps is None:
        raise InputError(
            "half-lives of a run need the run", "steps", "None", "give steps= and schedule= to attach"
        )
    rate = strength_for(value.per_run, np.ones(setting.steps))
    return GroupStrength("constant", None, lambda _: rate, steps=setting.steps)
