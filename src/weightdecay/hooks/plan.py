"""Which parameters of an optimizer decay, in what form and how strongly; what its rules keep for them."""

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim

from weightdecay.errors import InputError
from weightdecay.groups import Assignment, Group, assign, preset
from weightdecay.groups.inventory import INSERTED, plain_parameters
from weightdecay.hooks.optimizers import check_hooks, is_adaptive, momentum_of, native_options
from weightdecay.rules import Rule
from weightdecay.rules.base import laid_like
from weightdecay.rules.strength import GroupStrength, Setting, group_strength
from weightdecay.units import Law, limits, retention, shape

On = str | Group | Sequence[str | Group]
_TRAINED, _DTYPE, _DEVICE = map(operator.attrgetter, ("requires_grad", "dtype", "device"))
_HALF = (torch.bfloat16, torch.float16, torch.complex32)


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
        return tuple(itertools.chain.from_iterable(self.targets))

    @property
    def by_hooks(self) -> bool:
        """Whether there is a group that the optimizer does not decay by itself."""
        return len(self.native) < sum(map(bool, self.targets))

    def strength(self, rule: int, group: int) -> GroupStrength:
        """Return the strength of a rule in a group where something decays."""
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
    owned = {} if model is None else plain_parameters(model)
    names, named = _names(optimizer, model, owned)
    everything: list[tuple[str | None, Tensor]] = []
    trainable: list[tuple[str | None, Tensor]] = []
    for group in groups:
        for p in group["params"]:
            everything.append((names[id(p)] if named else None, p))
            if p.requires_grad:
                trainable.append(everything[-1])
    source, wanted = everything if model is None else model, lenient(on) if again else on
    assigned: dict[int, Assignment] = {}
    for entry in assign(source, wanted, within=trainable) if trainable else ():
        if entry.group.options:
            what = "attach sets no optimizer options"
            raise InputError(what, "on", repr(entry.group), "give options to wd.param_groups")
        assigned[id(entry.parameter)] = entry
    assignments: list[tuple[Assignment, ...]] = []
    targets: list[tuple[Target, ...]] = []
    for group in groups:
        entries: list[Assignment] = []
        decaying: list[Target] = []
        for p in group["params"]:
            if (entry := assigned.get(id(p))) is not None:
                entries.append(entry)
                if entry.scale > 0:
                    decaying.append(Target(names[id(p)], p, entry.scale))
                    _check_target(decaying[-1], at_random, rules)
        assignments.append(tuple(entries))
        targets.append(tuple(decaying))
    strengths: list[tuple[GroupStrength | None, ...]] = []
    for rule in rules:
        by_group: list[GroupStrength | None] = [None] * len(groups)
        for i, group in enumerate(groups):
            if targets[i]:
                momentum = momentum_of(optimizer, group)
                by_group[i] = group_strength(rule, i, len(groups), setting, momentum)
        strengths.append(tuple(by_group))
    options = native_options(optimizer, rules[0]) if len(rules) == 1 and not by_hooks else None
    native = {} if options is None else _native(optimizer, options, targets, strengths[0])
    if len(native) < sum(map(bool, targets)):
        check_hooks(optimizer, rules)
    partners: list[Mapping[str, Tensor]] = []
    for rule in rules:
        looks = type(rule).partner_of is not Rule.partner_of
        partners.append(_partners(rule, optimizer, names, owned, targets) if looks else {})
    elsewhere: list[str] = []
    for name, parameter in owned.items():
        if parameter.requires_grad and id(parameter) not in names:
            elsewhere.append(name)
    return Plan(
        assignments=tuple(assignments),
        targets=tuple(targets),
        strengths=tuple(strengths),
        native=native,
        named=named,
        partners=tuple(partners),
        elsewhere=tuple(elsewhere),
        schedule=setting.schedule,
    )


def lenient(on: On) -> On:
    """Return the selectors as optional ones: none has to select something."""
    if isinstance(on, str):
        return on
    if isinstance(on, Group):
        return replace(on, optional=True)
    flat = [group for item in on for group in (preset(item) if isinstance(item, str) else (item,))]
    return [replace(group, optional=True) for group in flat]


def signature(optimizer: optim.Optimizer) -> list[Any]:
    """Return what a plan depends on and training can change: the parameters, their types, which are frozen.

    A frozen one counts as another while it has a gradient: the optimizer goes on stepping by that.
    """
    parts: list[Any] = []
    for group in optimizer.param_groups:
        parameters: list[Tensor] = group["params"]
        # Lists that C makes, since each step does.
        trained, dtypes = list(map(_TRAINED, parameters)), list(map(_DTYPE, parameters))
        frozen = [] if all(trained) else [p.requires_grad or p.grad is None for p in parameters]
        parts.append((list(map(id, parameters)), trained, frozen, dtypes, list(map(_DEVICE, parameters))))
    return parts


def _native(
    optimizer: optim.Optimizer,
    options: Mapping[str, Any],
    targets: Sequence[Sequence[Target]],
    strengths: Sequence[GroupStrength | None],
) -> dict[int, Mapping[str, Any]]:
    """The groups for which an option of the optimizer can speak: all of it decays, all as strongly.

    Not those with a frozen parameter that has a gradient left, which the optimizer would decay.
    """
    native = {}
    for i, group in enumerate(optimizer.param_groups):
        strength, trainable = strengths[i], sum(p.requires_grad for p in group["params"])
        alike = len({target.scale for target in targets[i]}) == 1
        alike &= not any(p.grad is not None for p in group["params"] if not p.requires_grad)
        if strength and strength.law != "constant" and len(targets[i]) == trainable and alike:
            native[i] = options
    return native


def _partners(
    rule: Rule,
    optimizer: optim.Optimizer,
    names: Mapping[int, str],
    owned: Mapping[str, Tensor],
    targets: Sequence[Sequence[Target]],
) -> dict[str, Tensor]:
    """The parameter that a rule looks at beside each one that decays.

    Raises:
        InputError: it is not there, or the two do not fit.
    """
    kind, partners = type(rule).__name__, {}
    parameters = dict(owned)
    parameters |= {names[id(p)]: p for group in optimizer.param_groups for p in group["params"]}
    for target in itertools.chain.from_iterable(targets):
        other = rule.partner_of(target.name)
        if other is None:
            continue
        if other not in parameters:
            raise InputError(
                f"{target.name} has no partner", kind, other, "give model=, or leave it out with on="
            )
        if reason := rule.mismatch(target.name, target.parameter, parameters[other]):
            raise InputError(f"{target.name} and {other} do not fit", kind, reason, "leave them out with on=")
        partners[target.name] = parameters[other]
    return partners


def _names(
    optimizer: optim.Optimizer, model: nn.Module | None, parameters: Mapping[str, Tensor]
) -> tuple[dict[int, str], bool]:
    """A name for every parameter (the model's, the optimizer's, or its position), and whether it is known."""
    owned = dict(zip(map(id, parameters.values()), parameters, strict=True))
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


def _check_target(target: Target, at_random: bool, rules: tuple[Rule, ...]) -> None:
    """Refuse a parameter that decay does not work on yet, and a scale where no strength is there to multiply.

    Raises:
        InputError: a flattened, meta or sparse parameter; one of 16 bits that is not to be rounded at
            random; a scale for a rule without strength.
    """
    name, parameter, scale = target.name, target.parameter, target.scale
    # Older sharding (FSDP1) has laid it into one with others, or made it a view of such a one.
    if getattr(parameter, "_is_flat_param", False) or getattr(parameter, "_fsdp_flattened", False):
        what, remedy = "a flattened parameter has lost its names and shapes", "shard with fully_shard (FSDP2)"
    elif parameter.device.type == "meta":
        what, remedy = "a meta tensor has no values", "materialise the model first (to_empty)"
    elif parameter.layout != torch.strided:
        what, remedy = "sparse parameters are not supported yet", "leave it out with on="
    elif parameter.dtype in _HALF and not at_random:
        what = "16-bit weights are too narrow for decay: p·(1 - rate) rounds back to p"
        remedy = 'attach with rounding="stochastic", or keep float32 weights and use autocast'
        if any(rule.coupled for rule in rules):  # it goes through the gradient, and is not rounded at random
            what = "16-bit weights are too narrow for a penalty: the optimizer rounds small steps away"
            remedy = "keep float32 weights and use autocast"
    elif not (parameter.is_floating_point() or parameter.is_complex()):
        what, remedy = "only floating point parameters can decay", "leave it out with on="
    else:
        what = remedy = ""
    if what:
        kind = f"{str(parameter.dtype).removeprefix('torch.')} {tuple(parameter.shape)}"
        raise InputError(what, name, kind, remedy)
    for rule in rules:
        if scale != 1 and not rule.has_strength:
            what = f"{type(rule).__name__} has no strength that a group could scale"
            raise InputError(what, f"scale of {name}", f"{scale:g}", "give 1 or 0")


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
        started: dict[str, list[dict[str, Tensor]]] = {}
        shapes: dict[str, torch.Size] = {}
        for target in targets:
            w = target.parameter
            if self._shapes.get(target.name) != w.shape:
                started[target.name] = [rule.start(w, target.name) for rule in self._rules]
                shapes[target.name] = w.shape
        self._by_name.update(started)  # only now: none of the rules has failed
        self._shapes.update(shapes)

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
            elif tensor.ndim == 0 and tensor.device != w.device:
                state[key] = tensor.to(w.device)  # a norm: its precision is its own
        return state

    def to_dict(self, targets: Iterable[Target]) -> dict[str, list[dict[str, Any]]]:
        """The tensors themselves, not copies, as in torch's own state dicts."""
        saved: dict[str, list[dict[str, Any]]] = {}
        for target in targets:
            states = self._by_name[target.name]
            # An empty one beside others has a value, or a distributed checkpoint would miss it.
            saved[target.name] = [dict(s) if s or not any(states) else {"nothing": True} for s in states]
        return saved

    def load(self, saved: Any, targets: Iterable[Target]) -> None:
        """Take over saved tensors; all are checked before the first is copied.

        Raises:
            InputError: as `check`.
        """
        pairs = self.check(saved, targets)
        fitting = [(mine, laid_like(theirs.detach().to(mine.device), mine)) for mine, theirs in pairs]
        for mine, theirs in fitting:
            mine.copy_(theirs)

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


def _pairs(name: str, states: list[dict[str, Tensor]], saved: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Each tensor with the saved one."""
    if not isinstance(saved, list) or len(saved) != len(states):
        number = len(saved) if isinstance(saved, list) else type(saved).__name__
        raise InputError("a state for another number of rules", name, number, f"give {len(states)}")
    for mine, theirs in zip(states, saved, strict=True):
        for key, tensor in mine.items():
            other = theirs.get(key) if isinstance(theirs, Mapping) else None
            if not isinstance(other, Tensor) or other.shape != tensor.shape:
                shape = tuple(other.shape) if isinstance(other, Tensor) else type(other).__name__
                raise InputError(
                    "a saved tensor does not fit",
                    f"{key} of {name}",
                    shape,
                    f"{tuple(tensor.shape)} is needed",
                )
            yield tensor, other


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
    lines: dict[str, None] = {}
    for r, rule in enumerate(rules):
        for i, strength in enumerate(plan.strengths[r]):
            if strength is not None:
                for line in _advice(optimizer, rule, strength, plan, i, setting, rounded):
                    lines[f"{type(rule).__name__} on {type(optimizer).__name__}: {line}"] = None
    return list(lines)


def _advice(
    optimizer: optim.Optimizer,
    rule: Rule,
    strength: GroupStrength,
    plan: Plan,
    i: int,
    setting: Setting,
    rounded: bool,
) -> tuple[str, ...]:
    """What is to be said about a rule's strength in one group, once it is known to be possible."""
    group, targets, where = optimizer.param_groups[i], plan.targets[i], f"{type(rule).__name__}.weight_decay"
    scale, rates = 0.0, setting.rates(i)
    for target in targets:
        scale = max(scale, target.scale)
    at = plain(strength.at(0)) * scale
    if not rule.paced:  # how much it removes depends on more than the rate
        limits.check(at, *((plain(group["lr"]),) if rule.overshoots else ()), law=strength.law, where=where)
        return ()
    momentum = momentum_of(optimizer, group) or {} if rule.coupled else {}
    if rule.coupled and not momentum:  # no step of a known size to compare with
        limits.check(at, where=where)
        return limits.advice(at, adaptive=is_adaptive(optimizer, group), coupled=True)
    # The schedule's peak; without one the rate now, which a warm-up may still raise: each step checks again.
    lr = strength.lr_max
    if lr is None:
        lr = plain(group["lr"]) if rates is None else float(rates.max())
    left = None
    if rates is not None and not rule.coupled:
        varies = callable(rule.weight_decay)
        strengths = scale * np.array([strength.at(t) for t in range(len(rates))]) if varies else at
        removed = strengths * np.asarray(shape(strength.law, rates, strength.lr_max))
        if len(over := np.flatnonzero(removed >= 1)):
            t = int(over[0])
            what, remedy = "a step removes the whole weight or more", "lower lr or the strength"
            at_step = f"{plain(strength.at(t)) * scale:g} at lr = {rates[t]:g}, step {t}"
            raise InputError(what, where, at_step, remedy)
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
    removed = plain(rate)
    if removed >= 1 or math.isnan(removed):
        raise InputError(
            "a step would remove the whole weight or more",
            f"{_RATES[law]} of parameter group {group}",
            f"{removed:g} at lr = {plain(lr):g}, step {step}",
            f"lower lr or the strength{', or give the true lr_max' if 'lr_max' in _RATES[law] else ''}",
        )
