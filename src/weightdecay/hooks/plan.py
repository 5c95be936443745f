"""Which parameter of an optimizer decays, how strongly, and by whose hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn, optim

from weightdecay.errors import InputError
from weightdecay.groups import Assignment, Group, assign
from weightdecay.groups.inventory import peeled
from weightdecay.hooks.native import momentum_of, native_options
from weightdecay.hooks.refuse import check_parameter
from weightdecay.rules import Rule
from weightdecay.rules.strength import GroupStrength, Setting, group_strength


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
        strengths: for each rule, one entry a group.
        native: the options that switch on an optimizer's own decay, by group; other groups go by hooks.
        named: whether names were known; else they are positions.
    """

    assignments: tuple[tuple[Assignment, ...], ...]
    targets: tuple[tuple[Target, ...], ...]
    strengths: tuple[tuple[GroupStrength, ...], ...]
    native: Mapping[int, Mapping[str, Any]]
    named: bool

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """The parameters that decay, of all groups."""
        return tuple(target for targets in self.targets for target in targets)


# Makes the plan again when parameters were added to the optimizer, frozen or thawed.
Planner = Callable[[], Plan]


def make_plan(
    optimizer: optim.Optimizer,
    rules: tuple[Rule, ...],
    model: nn.Module | None,
    on: str | Group | Sequence[str | Group],
    setting: Setting,
) -> Plan:
    """Decide for every parameter of the optimizer.

    Raises:
        InputError: a parameter is not in the model or stands twice in the optimizer; a selector or a
            strength that cannot be used.
    """
    groups = optimizer.param_groups
    names, named = _names(optimizer, model)
    held = [
        (names[id(p)] if named else None, p) for group in groups for p in group["params"] if p.requires_grad
    ]
    found = assign(held, on) if model is None else assign(model, on, within=held)
    for entry in found:
        if entry.group.options:
            raise InputError(
                "attach sets no optimizer options", "on", repr(entry.group), "give options to wd.param_groups"
            )
    by_parameter = {id(entry.parameter): entry for entry in found}
    assignments = tuple(
        tuple(by_parameter[id(p)] for p in group["params"] if id(p) in by_parameter) for group in groups
    )
    targets = tuple(
        tuple(Target(names[id(e.parameter)], e.parameter, e.scale) for e in entries if e.scale > 0)
        for entries in assignments
    )
    for target in (target for entries in targets for target in entries):
        check_parameter(target.name, target.parameter)
    strengths = tuple(
        tuple(
            group_strength(rule, i, len(groups), setting, momentum_of(optimizer, group))
            for i, group in enumerate(groups)
        )
        for rule in rules
    )
    native = {}
    if len(rules) == 1 and (options := native_options(optimizer, rules[0])) is not None:
        native = {
            i: options
            for i, group in enumerate(groups)
            if _whole(group, targets[i]) and strengths[0][i].law != "constant"
        }
    return Plan(assignments, targets, strengths, native, named)


def signature(optimizer: optim.Optimizer) -> tuple[tuple[bool, ...], ...]:
    """What a plan depends on and training can change: which parameters there are, and which are frozen."""
    return tuple(tuple(p.requires_grad for p in group["params"]) for group in optimizer.param_groups)


def _whole(group: Mapping[str, Any], targets: tuple[Target, ...]) -> bool:
    """Whether one option can speak for the group: all its trainable parameters decay, all as strongly."""
    trainable = sum(p.requires_grad for p in group["params"])
    return 0 < len(targets) == trainable and len({target.scale for target in targets}) == 1


def _names(optimizer: optim.Optimizer, model: nn.Module | None) -> tuple[dict[int, str], bool]:
    """A name for every parameter: the model's, else the optimizer's, else its position."""
    owned = {} if model is None else {id(p): name for name, p in peeled(model).named_parameters()}
    names: dict[int, str] = {}
    named = True
    for i, group in enumerate(optimizer.param_groups):
        own = group.get("param_names")
        for j, parameter in enumerate(group["params"]):
            place = f"group {i}, position {j}"
            if id(parameter) in names:
                raise InputError(
                    "a parameter stands twice in the optimizer",
                    place,
                    names[id(parameter)],
                    "give each parameter once",
                )
            if model is not None and id(parameter) not in owned:
                raise InputError(
                    "the optimizer holds a parameter that is not in the model",
                    place,
                    f"{own[j] + ' ' if own else ''}{tuple(parameter.shape)}",
                    "give the model the optimizer was built from, or leave out model=",
                )
            named &= model is not None or own is not None
            name = owned[id(parameter)] if owned else own[j] if own else place
            if name in names.values():
                raise InputError(
                    "two parameters of the optimizer have one name",
                    place,
                    name,
                    "give model= to tell them apart",
                )
            names[id(parameter)] = name
    return names, named
