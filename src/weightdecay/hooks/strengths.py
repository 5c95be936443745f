"""Strengths that cannot be, and strengths that should not be: when attaching, and at every step."""

import math

import numpy as np
from torch import Tensor, optim

from weightdecay.errors import InputError
from weightdecay.hooks.native import is_adaptive, momentum_of
from weightdecay.hooks.plan import Plan
from weightdecay.rules import Rule
from weightdecay.rules.strength import GroupStrength, Setting
from weightdecay.units import Law, limits, retention, shape

# The fraction that a step removes, by law.
_RATES: dict[Law, str] = {
    "lr": "lr·weight_decay",
    "lr_relative": "lr/lr_max·weight_decay",
    "lr_squared": "lr²/lr_max·weight_decay",
    "constant": "the rate",
}


def check_strengths(
    optimizer: optim.Optimizer, rules: tuple[Rule, ...], plan: Plan, setting: Setting, rounded: bool = False
) -> list[str]:
    """Refuse strengths that cannot be; return what is to be said about those that can, each line once.

    Where weights are rounded at random no strength is too small for them.

    Raises:
        InputError: a strength is out of range, or removes a whole weight in a step.
    """
    lines: list[str] = []
    for rule, strengths in zip(rules, plan.strengths, strict=True):
        for i, strength in enumerate(strengths):
            if strength is not None:
                advice = _checked(optimizer, rule, strength, plan, i, setting, rounded)
                lines += [f"{type(rule).__name__} on {type(optimizer).__name__}: {line}" for line in advice]
    return list(dict.fromkeys(lines))


def _checked(
    optimizer: optim.Optimizer,
    rule: Rule,
    strength: GroupStrength,
    plan: Plan,
    i: int,
    setting: Setting,
    rounded: bool,
) -> tuple[str, ...]:
    group, targets, where = optimizer.param_groups[i], plan.targets[i], f"{type(rule).__name__}.weight_decay"
    scale, rates = max(target.scale for target in targets), setting.rates(i)
    at = plain(strength.at(0)) * scale
    if not rule.paced:  # how much it removes depends on more than the rate
        limits.check(at, *((plain(group["lr"]),) if rule.overshoots else ()), law=strength.law, where=where)
        return ()
    momentum = momentum_of(optimizer, group) or {} if rule.coupled else {}
    if rule.coupled and not momentum:  # no step of a known size to compare with
        limits.check(at, where=where)
        return limits.advice(at, adaptive=is_adaptive(optimizer, group), coupled=True)
    # The schedule's peak; without one the rate now, which a warm-up may still raise: each step checks again.
    known = (lr for lr in (strength.lr_max, setting.peak(i), plain(group["lr"])) if lr is not None)
    lr = next(known)
    left = None
    if rates is not None and not rule.coupled:
        varies = callable(rule.weight_decay)
        strengths = scale * np.array([strength.at(t) for t in range(len(rates))]) if varies else at
        removed = strengths * np.asarray(shape(strength.law, rates, strength.lr_max))
        if len(over := np.flatnonzero(removed >= 1)):
            t = int(over[0])
            found = f"{plain(strength.at(t)) * scale:g} at lr = {rates[t]:g}, step {t}"
            raise InputError(
                "a step removes the whole weight or more", where, found, "lower lr or the strength"
            )
        left = retention(removed)
    limits.check(at, lr, law=strength.law, coupled=rule.coupled, where=where, **momentum)
    if rates is None and not rule.coupled:
        check_rate(i, strength.law, strength.rate(at, plain(group["lr"])), group["lr"], 0)
    if lr == 0 or callable(rule.weight_decay):  # a function of the step has no one timescale
        return ()
    return limits.advice(
        at,
        lr,
        law=strength.law,
        coupled=rule.coupled,
        dtype=None if rounded else targets[0].parameter.dtype.to_real(),
        steps=setting.steps if rule.toward_zero else None,
        steps_per_epoch=setting.steps_per_epoch,
        retention=left if rule.toward_zero else None,
        **momentum,
    )


def plain(value: float | Tensor) -> float:
    """A number as a Python float."""
    return float(value.item()) if isinstance(value, Tensor) else float(value)


def check_rate(group: int, law: Law, rate: float | Tensor, lr: float | Tensor, step: int) -> None:
    """Refuse a step that would remove a whole weight; a tensor on a device is not waited for.

    Raises:
        InputError: the fraction is not less than 1, or not a number.
    """
    if isinstance(rate, Tensor) and rate.device.type != "cpu":
        return
    found = plain(rate)
    if found >= 1 or math.isnan(found):
        raise InputError(
            "a step would remove the whole weight or more",
            f"{_RATES[law]} of parameter group {group}",
            f"{found:g} at lr = {plain(lr):g}, step {step}",
            f"lower lr or the strength{', or give the true lr_max' if 'lr_max' in _RATES[law] else ''}",
        )
