"""Which parameter of an optimizer decays, how strongly, and by whose hand."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim

from weightdecay.errors import InputError
from weightdecay.groups import Assignment, Group, assign, preset
from weightdecay.groups.inventory import INSERTED, plain_parameters
from weightdecay.hooks.optimizers import is_adaptive, momentum_of, native_options
from weightdecay.hooks.refusals import check_hooks, check_parameter, check_scale
from weightdecay.rules import Rule
from weightdecay.rules.sharded import laid_like
from weightdecay.rules.strength import GroupStrength, Setting, group_strength
from weightdecay.units import Law, limits, retention, shape

On = str | Group | Sequence[str | Group]


@dataclass(frozen=True)
class Target:
    """A parameter that decays.

    Args:
        name: the name its state is kept under.
        parameter: the tensor.
        scale: times the strength.
    """

    name: str
    parameter: Tensor
    scale: float


@dataclass(frozen=True)
class Plan:
    """What happens at a step.

    Args:
        assignments: every trainable parameter of the optimizer, with the reason; one list a group.
        targets: those that decay; one list a group.
        strengths: for each rule, one entry a group; None where nothing decays.
        native: the options that switch on an optimizer's own decay, by group; other groups go by hooks.
        named: whether names were known; else they are positions.
        partners: for each rule, the parameter it looks at beside one that decays, by that one's name.
        elsewhere: the model's trainable parameters that the optimizer does not hold.
        schedule: how often the schedule goes on, in words.
    """

    assignments: tuple[tuple[Assignment, ...], ...]
    targets: tuple[tuple[Target, ...], ...]
    strengths: tuple[tuple[GroupStrength | None, ...], ...]
    native: Mapping[int, Mapping[str, Any]]
    named: bool
    partners: tuple[Mapping[str, Tensor], ...] = ()
    elsewhere: tuple[str, ...] = ()
    schedule: str = ""

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """The parameters that decay, of all groups."""
        return tuple(target for targets in self.targets for target in targets)

    def strength(self, rule: int, group: int) -> GroupStrength:
        """The strength of a rule in a group where something decays."""
        strength = self.strengths[rule][group]
        assert strength is not None
        return strength


# Makes the plan again when parameters were added to the optimizer, replaced, frozen or thawed.
Planner = Callable[[], Plan]


def make_plan(
    optimizer: optim.Optimizer,
    rules: tuple[Rule, ...],
    model: nn.Module | None,
    on: On,
    setting: Setting,
    again: bool = False,
    at_random: bool = False,
    by_hooks: bool = False,
) -> Plan:
    """Decide for every parameter of the optimizer.

    Args:
        optimizer: the optimizer.
        rules: the rules, one after another.
        model: decides roles and names; None leaves it to names and shapes.
        on: which parameters decay.
        setting: what is known about the training.
        again: training goes on, so a group may select nothing any more.
        at_random: weights are rounded at random.
        by_hooks: the optimizer's own decay is not what is meant.

    Raises:
        InputError: a parameter is not in the model, stands twice in the optimizer or cannot decay; a
            selector or a strength that cannot be used; an optimizer in which the rule has no meaning.
    """
    groups = optimizer.param_groups
    names, named = _names(optimizer, model)
    assignments = _assigned(optimizer, model, lenient(on) if again else on, names if named else {})
    targets = tuple(
        tuple(Target(names[id(e.parameter)], e.parameter, e.scale) for e in entries if e.scale > 0)
        for entries in assignments
    )
    for target in (target for entries in targets for target in entries):
        check_parameter(target.name, target.parameter, at_random, rules)
        check_scale(target.name, target.scale, rules)
    strengths = tuple(
        tuple(
            group_strength(rule, i, len(groups), setting, momentum_of(optimizer, group))
            if targets[i]
            else None
            for i, group in enumerate(groups)
        )
        for rule in rules
    )
    native = {} if by_hooks else _native(optimizer, rules, targets, strengths)
    if any(entries and i not in native for i, entries in enumerate(targets)):
        check_hooks(optimizer, rules)
    partners = tuple(_partners(rule, optimizer, model, names, targets) for rule in rules)
    owned = {} if model is None else plain_parameters(model)
    elsewhere = tuple(name for name, p in owned.items() if p.requires_grad and id(p) not in names)
    return Plan(assignments, targets, strengths, native, named, partners, elsewhere, setting.schedule)


def lenient(on: On) -> On:
    """The same selectors, none of which has to select something."""
    if isinstance(on, str):
        return on
    if isinstance(on, Group):
        return replace(on, optional=True)
    flat = [group for one in on for group in (preset(one) if isinstance(one, str) else (one,))]
    return [replace(group, optional=True) for group in flat]


def signature(optimizer: optim.Optimizer) -> tuple[tuple[tuple[int, bool, bool, torch.dtype], ...], ...]:
    """What a plan depends on and training can change: the parameters, their types, and which are frozen.

    A frozen one counts as another while it has a gradient: the optimizer goes on stepping by that.
    """
    return tuple(
        tuple((id(p), p.requires_grad, p.requires_grad or p.grad is None, p.dtype) for p in group["params"])
        for group in optimizer.param_groups
    )


def _assigned(
    optimizer: optim.Optimizer, model: nn.Module | None, on: On, names: Mapping[int, str]
) -> tuple[tuple[Assignment, ...], ...]:
    everything = [(names.get(id(p)), p) for group in optimizer.param_groups for p in group["params"]]
    held = [(name, p) for name, p in everything if p.requires_grad]
    found: tuple[Assignment, ...] = ()
    if held:
        found = assign(everything if model is None else model, on, within=held)
    for entry in found:
        if entry.group.options:
            what = "attach sets no optimizer options"
            raise InputError(what, "on", repr(entry.group), "give options to wd.param_groups")
    by_parameter = {id(entry.parameter): entry for entry in found}
    return tuple(
        tuple(by_parameter[id(p)] for p in group["params"] if id(p) in by_parameter)
        for group in optimizer.param_groups
    )


def _native(
    optimizer: optim.Optimizer,
    rules: tuple[Rule, ...],
    targets: tuple[tuple[Target, ...], ...],
    strengths: tuple[tuple[GroupStrength | None, ...], ...],
) -> dict[int, Mapping[str, Any]]:
    """The groups for which an option of the optimizer can speak: all of it decays, all as strongly.

    Not those with a frozen parameter that has a gradient left, which the optimizer would decay.
    """
    options = native_options(optimizer, rules[0]) if len(rules) == 1 else None
    if options is None:
        return {}
    native = {}
    for i, group in enumerate(optimizer.param_groups):
        strength, trainable = strengths[0][i], sum(p.requires_grad for p in group["params"])
        alike = len({target.scale for target in targets[i]}) == 1
        alike &= not any(p.grad is not None for p in group["params"] if not p.requires_grad)
        if strength and strength.law != "constant" and len(targets[i]) == trainable and alike:
            native[i] = options
    return native


def _partners(
    rule: Rule,
    optimizer: optim.Optimizer,
    model: nn.Module | None,
    names: Mapping[int, str],
    targets: tuple[tuple[Target, ...], ...],
) -> dict[str, Tensor]:
    """The parameter that a rule looks at beside each one that decays.

    Raises:
        InputError: it is not there, or the two do not fit.
    """
    if type(rule).partner_of is Rule.partner_of:
        return {}
    there: dict[str, Tensor] = {} if model is None else plain_parameters(model)
    there |= {names[id(p)]: p for group in optimizer.param_groups for p in group["params"]}
    found: dict[str, Tensor] = {}
    for target in (target for entries in targets for target in entries):
        other = rule.partner_of(target.name)
        if other is None:
            continue
        kind = type(rule).__name__
        if other not in there:
            raise InputError(
                f"{target.name} has no partner", kind, other, "give model=, or leave it out with on="
            )
        if reason := rule.mismatch(target.name, target.parameter, there[other]):
            raise InputError(f"{target.name} and {other} do not fit", kind, reason, "leave them out with on=")
        found[target.name] = there[other]
    return found


def _names(optimizer: optim.Optimizer, model: nn.Module | None) -> tuple[dict[int, str], bool]:
    """A name for every parameter: the model's, else the optimizer's, else its position."""
    owned = {} if model is None else {id(p): name for name, p in plain_parameters(model).items()}
    names: dict[int, str] = {}
    taken: set[str] = set()
    named = True
    for i, group in enumerate(optimizer.param_groups):
        own = group.get("param_names")
        for j, parameter in enumerate(group["params"]):
            place = f"group {i}, position {j}"
            if id(parameter) in names:
                what = "a parameter stands twice in the optimizer"
                raise InputError(what, place, names[id(parameter)], "give each parameter once")
            if model is not None and id(parameter) not in owned:
                raise InputError(
                    "the optimizer holds a parameter that is not in the model",
                    place,
                    f"{own[j] + ' ' if own else ''}{tuple(parameter.shape)}",
                    "give the model the optimizer was built from, or leave out model=",
                )
            named &= model is not None or own is not None
            name = owned[id(parameter)] if owned else INSERTED.sub("", own[j]) if own else place
            if name in taken:
                what = "two parameters in the optimizer have one name"
                raise InputError(
                    what, place, name, "give model=; of several models, an nn.ModuleList of them"
                )
            names[id(parameter)] = name
            taken.add(name)
    return names, named


class States:
    """One dictionary of tensors for each parameter and rule."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._by_name: dict[str, list[dict[str, Tensor]]] = {}
        self._shapes: dict[str, torch.Size] = {}

    def add(self, targets: Iterable[Target]) -> None:
        """Start the state of the parameters that have none yet, or had another shape.

        Raises:
            InputError: a rule cannot start, say because its point has another shape.
        """
        new = [one for one in targets if self._shapes.get(one.name) != one.parameter.shape]
        started = {one.name: [rule.start(one.parameter, one.name) for rule in self._rules] for one in new}
        self._by_name.update(started)
        self._shapes.update({one.name: one.parameter.shape for one in new})

    def of(self, target: Target, rule: int) -> dict[str, Tensor]:
        """The state of a parameter for one of the rules, where and of the type that the parameter is now."""
        state, w = self._by_name[target.name][rule], target.parameter
        if not w.ndim and not self._rules[rule].elementwise:
            return state  # a norm is no weight, though it may look like one
        for key, tensor in state.items():
            if tensor.shape == w.shape and (tensor.dtype, tensor.device) != (w.dtype, w.device):
                state[key] = tensor.to(
                    device=w.device, dtype=w.dtype
                )  # the model was moved or cast after the rule was attached
        return state

    def to_dict(self, targets: Iterable[Target]) -> dict[str, list[dict[str, Any]]]:
        """The tensors themselves, not copies, as in torch's own state dicts."""
        return {target.name: _filled(self._by_name[target.name]) for target in targets}

    def load(self, saved: Any, targets: Iterable[Target]) -> None:
        """Take over saved tensors; all are checked before the first is copied.

        Raises:
            InputError: as `check`.
        """
        pairs = self.check(saved, targets)
        fitting = [(mine, laid_like(found.detach().to(mine.device), mine)) for mine, found in pairs]
        for mine, found in fitting:
            mine.copy_(found)

    def check(self, saved: Any, targets: Iterable[Target]) -> list[tuple[Tensor, Tensor]]:
        """Each tensor with the saved one.

        Raises:
            InputError: another set of parameters, a tensor that is missing or has another shape.
        """
        if not isinstance(saved, Mapping):
            raise InputError(
                "not states by parameter name", "parameters", type(saved).__name__, "give a mapping"
            )
        wanted = {target.name: self._by_name[target.name] for target in targets}
        for name in sorted(set(saved) ^ set(wanted)):
            side = "the saved state" if name in saved else "the optimizer"
            raise InputError(
                "not the same parameters decay",
                "state_dict",
                name,
                f"only {side} has it; rename it, or go on without the state",
            )
        return [pair for name, states in wanted.items() for pair in _pairs(name, states, saved[name])]


def _filled(states: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
    """The states; an empty one beside others has a value, or a distributed checkpoint would miss it."""
    return [dict(state) if state or not any(states) else {"nothing": True} for state in states]


def _pairs(name: str, states: list[dict[str, Tensor]], saved: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Each tensor with the saved one."""
    if not isinstance(saved, list) or len(saved) != len(states):
        found = len(saved) if isinstance(saved, list) else type(saved).__name__
        raise InputError("a state for another number of rules", name, found, f"give {len(states)}")
    for mine, theirs in zip(states, saved, strict=True):
        for key, tensor in mine.items():
            found = theirs.get(key) if isinstance(theirs, Mapping) else None
            if not isinstance(found, Tensor) or found.shape != tensor.shape:
                shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise InputError(
                    "a saved tensor does not fit",
                    f"{key} of {name}",
                    shape,
                    f"{tuple(tensor.shape)} is needed",
                )
            yield tensor, found


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
