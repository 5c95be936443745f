"""What pulls at a parameter in one place: the optimizer's own decay and attached rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor, optim

from weightdecay.auditing.forms import own_form, rule_form
from weightdecay.auditing.reading import Held, Live, Place
from weightdecay.errors import InputError
from weightdecay.findings import Finding
from weightdecay.groups import Assignment
from weightdecay.hooks.decay import Decay, attached
from weightdecay.hooks.native import momentum_of
from weightdecay.rules.strength import GroupStrength
from weightdecay.units.coupled import coupled_rate, diverges_from
from weightdecay.units.rates import Law, shape

NO_RATE = ("none", "unknown", "sign-normalised")


@dataclass(frozen=True)
class Pull:
    """One decay of one parameter.

    Args:
        by: whose hand it is: the optimizer's class, or the rule as it was written.
        attached: whether it is an attached rule.
        weight_decay: λ now, scale included.
        form: as in `forms`.
        law: how the fraction removed follows lr.
        lr_max: the peak that the law refers to.
        factor: times what the law gives.
        sgd: momentum, dampening and nesterov, where the decay passes through them.
        why: what was seen of its form.
        at_random: the weights are rounded at random, so that no decay is too fine for them.
        sparse: whether it can go by a sparse gradient.
        paced: whether λ says which fraction of a weight goes, as far as the form has a rate.
        wrong: what a probe found of it.
    """

    by: str
    attached: bool
    weight_decay: float
    form: str
    law: Law = "lr"
    lr_max: float | None = None
    factor: float = 1.0
    sgd: tuple[float, float, bool] | None = None
    why: str = ""
    at_random: bool = False
    sparse: bool = False
    paced: bool = True
    wrong: tuple[Finding, ...] = ()

    def removed(self, lrs: np.ndarray) -> np.ndarray | None:
        """What one step takes from a weight without gradient, momentum aside; None where that is not known.

        Args:
            lrs: step sizes.
        """
        if self.form in NO_RATE or not self.paced:
            return None
        shapes = shape(self.law, lrs, self.lr_max or (float(lrs.max()) or 1.0))
        dampening = self.sgd[1] if self.sgd and self.sgd[0] else 0.0
        return self.weight_decay * self.factor * np.asarray(shapes) * (1 - dampening)

    def rates(self, lrs: np.ndarray) -> np.ndarray | None:
        """The fraction removed in a step, momentum counted; None where it is not known or not below 1."""
        removed = self.removed(lrs)
        if removed is None or removed.max(initial=0) >= self.limit:
            return None
        if not self.through_momentum:
            return removed
        assert self.sgd is not None
        unique, where = np.unique(lrs, return_inverse=True)
        sgd = dict(zip(("momentum", "dampening", "nesterov"), self.sgd, strict=True))
        return np.array([coupled_rate(self.weight_decay, float(lr), **sgd) for lr in unique])[where]  # pyright: ignore[reportArgumentType]

    @property
    def through_momentum(self) -> bool:
        """Whether momentum carries the decay on."""
        return self.form == "coupled" and self.sgd is not None and self.sgd[0] > 0

    @property
    def limit(self) -> float:
        """What `removed` must stay below."""
        if not self.through_momentum:
            return 1.0
        assert self.sgd is not None
        return diverges_from(self.sgd[0], self.sgd[2])


class Pulls:
    """Everything that pulls, looked up by parameter and place."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._decays = [_attached(optimizer) for optimizer in live.optimizers]
        self._targets = [[_targets(decay) for decay in decays] for decays in self._decays]
        self._entries = [_entries(decays) for decays in self._decays]
        self.own = cache(self._own)

    def of(self, held: Held, place: Place) -> tuple[Pull, ...]:
        """The decays of a parameter where one optimizer holds it."""
        if not held.moves:
            return ()
        found: list[Pull] = []
        lowered = False
        decays = zip(self._decays[place.optimizer], self._targets[place.optimizer], strict=True)
        for decay, targets in decays:
            lowered |= place.group in decay.plan.native
            found += self._by_rules(decay, place, targets.get(id(held.parameter), 0.0))
        own = None if lowered else self.own(place.optimizer, place.group)
        return tuple(found) if own is None else (own, *found)

    def all(self, held: Held) -> tuple[Pull, ...]:
        """The decays of a parameter in all its places."""
        return tuple(pull for place in held.places for pull in self.of(held, place))

    def reason(self, held: Held, place: Place) -> str:
        """Why an attached rule does what it does to a parameter; empty without one."""
        found = self._entry(held, place)
        return f"{found[0]} attached, group {found[1].label!r}: {found[1].reason}" if found else ""

    def label(self, held: Held, place: Place) -> str | None:
        """What the group that an attached rule put it in is called."""
        found = self._entry(held, place)
        return found[1].label if found else None

    def _entry(self, held: Held, place: Place) -> tuple[str, Assignment] | None:
        entries = self._entries[place.optimizer]
        return entries.get((id(held.parameter), place.group))

    def rules(self, optimizer: int) -> list[Decay]:
        """What is attached to an optimizer."""
        return self._decays[optimizer]

    def _own(self, o: int, g: int) -> Pull | None:
        optimizer = self._live.optimizers[o]
        group = optimizer.param_groups[g]
        strength = as_number(group.get("weight_decay"))
        if not strength:
            return None
        form = own_form(optimizer, g)
        law: Law = "constant" if form.form == "independent" else "lr"
        factor = form.factor if form.form in ("scaled", "coupled", "independent") else 1.0
        sgd = _sgd(optimizer, group) if form.form == "coupled" else None
        return Pull(
            type(optimizer).__name__,
            False,
            strength,
            form.form,
            law,
            factor=1.0 if sgd else factor,
            sgd=sgd,
            why=form.why,
            wrong=form.wrong,
        )

    def _by_rules(self, decay: Decay, place: Place, scale: float) -> list[Pull]:
        found: list[Pull] = []
        if not scale:
            return found
        optimizer = self._live.optimizers[place.optimizer]
        group = optimizer.param_groups[place.group]
        for rule, strengths in zip(decay.rules, decay.plan.strengths, strict=True):
            strength = strengths[place.group] if _has(decay, place.group) else None
            if strength is None:
                continue
            form = rule_form(rule, optimizer, group)
            at = _strength_now(strength, decay) * scale
            sgd = _sgd(optimizer, group) if form == "coupled" else None
            if at > 0:
                law, at_random = strength.law, decay.rounding == "stochastic"
                sparse = decay.sparse is not None
                own = Pull(
                    rule.shown,
                    True,
                    at,
                    form,
                    law,
                    strength.lr_max,
                    sgd=sgd,
                    at_random=at_random,
                    sparse=sparse,
                    paced=rule.paced,
                )
                found.append(own)
        return found


def _attached(optimizer: optim.Optimizer) -> list[Decay]:
    """What is attached; nothing can be to a class that has an optimizer inside and no hooks of its own."""
    return attached(optimizer) if hasattr(optimizer, "_optimizer_step_pre_hooks") else []


def defaults(optimizer: optim.Optimizer) -> Mapping[str, Any]:
    """The options that an optimizer was built with; none where its class does not keep them."""
    return getattr(optimizer, "defaults", None) or {}


def as_number(value: Any) -> float:
    """A strength or step size as a float; 0 for none.

    Raises:
        InputError: it is no number.
    """
    if value is None:
        return 0.0
    if isinstance(value, Tensor) and value.numel() == 1:
        return float("nan") if value.device.type == "meta" else float(value)
    if isinstance(value, Real) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return float(value)
    remedy = "give a float, or a tensor of one element"
    raise InputError("not a number", "lr or weight_decay of a group", repr(value), remedy)


def check_numbers(live: Live) -> None:
    """Refuse what no decay can be told from.

    Raises:
        InputError: the step size or strength of a group is not finite, or negative.
    """
    for title, optimizer in zip(live.titles, live.optimizers, strict=True):
        for g, group in enumerate(optimizer.param_groups):
            for name in ("lr", "weight_decay"):
                value = group.get(name)
                if isinstance(value, Tensor) and value.device.type == "meta":
                    continue
                if not 0 <= as_number(value) < float("inf"):
                    where = f"{name} of group {g} of {title}"
                    remedy = "see what set it: a schedule, a checkpoint, a division by 0"
                    raise InputError("not a finite number of at least 0", where, value, remedy)


def _strength_now(strength: GroupStrength, decay: Decay) -> float:
    try:
        return as_number(strength.at(decay.steps)) * decay.factor
    except InputError:  # a function of the step that has ended
        return 0.0


def _has(decay: Decay, group: int) -> bool:
    """Whether the plan is as old as the group: one that was added later is not in it."""
    return group < len(decay.plan.assignments)


def _entries(decays: list[Decay]) -> dict[tuple[int, int], tuple[str, Assignment]]:
    """What attached rules decided, by identity of the parameter and group."""
    return {
        (id(entry.parameter), group): (decay.shown, entry)
        for decay in reversed(decays)
        for group, entries in enumerate(decay.plan.assignments)
        for entry in entries
    }


def _targets(decay: Decay) -> dict[int, float]:
    return {id(target.parameter): target.scale for target in decay.plan.all_targets}


def _sgd(optimizer: optim.Optimizer, group: Any) -> tuple[float, float, bool] | None:
    momentum = momentum_of(optimizer, group)
    if momentum is None:
        return None
    return float(momentum["momentum"]), float(momentum["dampening"]), bool(momentum["nesterov"])
