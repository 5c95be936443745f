"""Which parameter of an optimizer decays, how strongly, and by whose hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn, optim

from weightdecay.errors import InputError
from weightdecay.groups import Assignment, Group, assign, preset
from weightdecay.groups.inventory import INSERTED, plain_parameters
from weightdecay.hooks.native import momentum_of, native_options
from weightdecay.hooks.refuse import check_hooks, check_parameter, check_scale
from weightdecay.rules import Rule
from weightdecay.rules.strength import GroupStrength, Setting, group_strength

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
