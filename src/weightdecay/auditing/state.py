"""The parameters of a live model and where live optimizers hold them; nothing is changed."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LRScheduler

from weightdecay import arguments
from weightdecay.arguments import count
from weightdecay.auditing.findings import Draft
from weightdecay.errors import Finding, InputError
from weightdecay.groups import Assignment, assign
from weightdecay.groups.before_norm import replica
from weightdecay.groups.inventory import Candidate, inventory, plain_name
from weightdecay.groups.roles import class_name, role_in
from weightdecay.hooks.decay import Decay, attached
from weightdecay.hooks.optimizers import bare_optimizer, form_of, is_adaptive, momentum_of
from weightdecay.probing.run import probe_optimizer
from weightdecay.rules import Cautious, Corrected, Decoupled, Independent, Rule
from weightdecay.rules.strength import GroupStrength
from weightdecay.schedule.learning_rates import Interval, bare_scheduler, described_lrs, is_scheduler
from weightdecay.units.halflife import Law, coupled_rate, diverges_from, shape

_REMEDY = "give the optimizers that step: wd.audit(model, optimizer)"


def checked_model(model: Any) -> nn.Module:
    """The model.

    Raises:
        InputError: it is none.
    """
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InputError(
            "a class where a model is needed", "model", model.__name__, f"give {model.__name__}(...)"
        )
    remedy = "give the torch.nn.Module first, then its optimizers; of several models an nn.ModuleList"
    return arguments.model(model, remedy)


def checked_optimizers(given: Iterable[Any]) -> tuple[optim.Optimizer, ...]:
    """The optimizers, each once, wrappers taken off; lists of them are opened.

    Raises:
        InputError: something is no optimizer of torch's kind, or there is none.
    """
    found: list[optim.Optimizer] = []
    for one in given:
        several = list(one) if isinstance(one, (list, tuple, set)) else [one]
        for item in several:
            optimizer = _optimizer(item)
            if all(optimizer is not other for other in found):
                found.append(optimizer)
    if not found:
        raise InputError("no optimizer", "optimizers", "nothing", _REMEDY)
    return tuple(found)


def _optimizer(given: Any) -> optim.Optimizer:
    if isinstance(given, Decay):
        return given.optimizer
    given = bare_optimizer(given)
    if isinstance(given, LRScheduler):
        remedy = "give it as schedule=, and its optimizer here"
        raise InputError(
            "a scheduler where an optimizer is needed", "optimizers", type(given).__name__, remedy
        )
    if isinstance(given, type):
        kind = "an optimizer's class" if issubclass(given, optim.Optimizer) else "a class"
        what = f"{kind} where an optimizer is needed"
        raise InputError(what, "optimizers", given.__name__, f"give {given.__name__}(parameters, lr=...)")
    groups = getattr(given, "param_groups", None)
    whole = isinstance(groups, list) and all(isinstance(one, dict) and "params" in one for one in groups)
    if not isinstance(given, optim.Optimizer) or not whole:
        what = "not an optimizer of torch's kind"
        remedy = "it has to be a torch.optim.Optimizer whose __init__ has run"
        raise InputError(what, "optimizers", type(given).__name__, remedy)
    return given


def checked_scaler(scaler: Any) -> Any:
    """The gradient scaler, or None.

    Raises:
        InputError: it is none.
    """
    own = all(hasattr(scaler, name) for name in ("unscale_", "is_enabled", "scale"))
    if scaler is None or (own and not isinstance(scaler, type)):
        return scaler
    kind = scaler if isinstance(scaler, type) else type(scaler)
    raise InputError("not a gradient scaler", "scaler", kind.__name__, "give a torch.amp.GradScaler()")


def titles(optimizers: tuple[optim.Optimizer, ...]) -> tuple[str, ...]:
    """A name for each: its class, with its position where another has the same class."""
    kinds = [type(one).__name__ for one in optimizers]
    return tuple(
        f"{kind} ({i + 1} of {len(kinds)})" if kinds.count(kind) > 1 else kind for i, kind in enumerate(kinds)
    )


@dataclass(frozen=True)
class Place:
    """Where an optimizer holds a parameter: positions of the optimizer, the group, and within the group."""

    optimizer: int
    group: int
    position: int


@dataclass(frozen=True, eq=False)
class Held:
    """A parameter of the model, with every place that holds it."""

    name: str
    aliases: tuple[str, ...]
    candidate: Candidate
    places: tuple[Place, ...]

    @property
    def parameter(self) -> Tensor:
        """The tensor itself."""
        return self.candidate.parameter

    @property
    def role(self) -> str:
        """What it is for."""
        return self.candidate.role

    @property
    def moves(self) -> bool:
        """Whether an optimizer that holds it changes it: frozen ones still do with a gradient left over."""
        return self.parameter.requires_grad or self.parameter.grad is not None


@dataclass(frozen=True, eq=False)
class Live:
    """A model and its optimizers, read once.

    Args:
        model: the model.
        optimizers: without what other libraries wrap around them.
        titles: a name for each optimizer.
        held: the model's parameters in their order.
        strange: places that hold what is not in the model, each with a name for it.
        flat: whether parameters were flattened, so that roles mean nothing.
    """

    model: nn.Module
    optimizers: tuple[optim.Optimizer, ...]
    titles: tuple[str, ...]
    held: tuple[Held, ...]
    strange: tuple[tuple[Place, str], ...]
    flat: bool

    def group(self, place: Place) -> Mapping[str, Any]:
        """The parameter group of a place."""
        return self.optimizers[place.optimizer].param_groups[place.group]


def read(model: nn.Module, optimizers: tuple[optim.Optimizer, ...]) -> Live:
    """Read a model and its optimizers.

    Raises:
        InputError: no parameters, or one that a lazy layer has not made yet.
    """
    flat = any(map(is_flat, model.parameters()))
    held_by_model = _as_they_are(model) if flat else inventory(model, frozen=True)
    if not held_by_model:
        raise InputError("no parameters", "model", class_name(model), "give a model that has parameters")
    places = _places(optimizers)
    modules = dict(model.named_modules(remove_duplicate=False))
    held = tuple(_held(one, places.pop(id(one.parameter), []), modules) for one in held_by_model)
    strange = [(place, _strange_name(optimizers, place)) for rest in places.values() for place in rest]
    return Live(model, optimizers, titles(optimizers), held, tuple(strange), flat)


def is_flat(parameter: Tensor) -> bool:
    """Whether a parameter is many tensors laid into one, as older sharding leaves them."""
    return getattr(parameter, "_is_flat_param", False) or type(parameter).__name__ == "FlatParameter"


def expected(live: Live, groups: Any) -> dict[int, float]:
    """What should decay, as scales by identity of the parameter; empty where nobody has an opinion.

    Raises:
        InputError: groups that cannot be used.
    """
    trainable = any(one.parameter.requires_grad for one in live.held)
    if groups is None or live.flat or not trainable:
        return {}
    return {id(one.parameter): one.scale for one in assign(live.model, groups)}


def _held(candidate: Candidate, places: Sequence[Place], modules: Mapping[str, nn.Module]) -> Held:
    plain = dict.fromkeys(plain_name(modules, name) for name in candidate.names)
    name, *aliases = plain
    return Held(name, tuple(aliases), candidate, tuple(places))


def _places(optimizers: tuple[optim.Optimizer, ...]) -> dict[int, list[Place]]:
    found: dict[int, list[Place]] = {}
    for o, optimizer in enumerate(optimizers):
        for g, group in enumerate(optimizer.param_groups):
            for p, parameter in enumerate(group["params"]):
                found.setdefault(id(parameter), []).append(Place(o, g, p))
    return found


def _strange_name(optimizers: tuple[optim.Optimizer, ...], place: Place) -> str:
    """What to call a parameter that the model does not have."""
    group = optimizers[place.optimizer].param_groups[place.group]
    names = group.get("param_names")
    if names is not None and place.position < len(names):
        return str(names[place.position])
    return f"group {place.group}, position {place.position}"


def _as_they_are(model: nn.Module) -> list[Candidate]:
    """The parameters of a model in which some are flattened: the inventory refuses those."""
    found: dict[int, Candidate] = {}
    for path, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is None or id(parameter) in found:
                continue
            name = f"{path}.{attribute}" if path else attribute
            role, why = role_in(module, attribute, parameter)
            if is_flat(parameter):
                role, why = "other", f"{attribute} of {class_name(module)}, several tensors laid into one"
            found[id(parameter)] = Candidate(name, parameter, (name,), (module,), role, why)
    return list(found.values())


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
        return described_lrs(schedule, steps, [float(row[0]) for row in rows.values()], **every)
    given, told = described_lrs(schedule, steps, **every)
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
    own, told = described_lrs(given, steps, **every)
    for g, row in enumerate(own):
        rows[found, g] = row
    tellings.append(told)
    return []


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


_OF_RULES: dict[type[Rule], str] = {
    Decoupled: "decoupled",
    Independent: "independent",
    Corrected: "corrected",
    Cautious: "cautious",
}


@dataclass(frozen=True)
class Form:
    """How a decay acts.

    Args:
        form: "decoupled", "coupled", "sign-normalised", ..., "none", "unknown".
        factor: the fraction removed in a step over lr·λ, of "independent" over λ, where it is not 1.
        why: what was seen, a line.
        wrong: what a probe found beside it.
    """

    form: str
    factor: float = 1.0
    why: str = ""
    wrong: tuple[Finding, ...] = ()


def own_form(optimizer: optim.Optimizer, group: int) -> Form:
    """The form of an optimizer's own decay in one of its groups."""
    known = form_of(optimizer, optimizer.param_groups[group])
    return Form(known) if known else _probed(optimizer, group)


def rule_form(rule: Rule, optimizer: optim.Optimizer, group: Mapping[str, Any]) -> str:
    """The form of an attached rule."""
    if rule.coupled:
        return "sign-normalised" if is_adaptive(optimizer, group) else "coupled"
    return _OF_RULES.get(type(rule), type(rule).__name__.lower())


def _probed(optimizer: optim.Optimizer, group: int) -> Form:
    found = probe_optimizer(optimizer, group)
    factor = found.rate / found.expected if found.rate and found.expected else 1.0
    strength = optimizer.param_groups[group].get("weight_decay")
    if found.form == "independent" and found.rate and strength:
        factor = found.rate / float(strength)  # of λ: lr is no part of it
    if found.form in ("unknown", "none") and not found.moved:
        return Form("unknown", why=f"the probe did not see it move: {_line(found.why)}")
    told = ("WD306", "WD307", *(["WD305"] if found.idle else []))  # the others are the audit's own
    wrong = tuple(one for one in found.findings if one.code in told)
    return Form(found.form, factor, _line(found.why), wrong)


def _line(text: str) -> str:
    return "; ".join(text.splitlines())


_ADAPTER = re.compile(
    r"(^|[._])lora_?(embedding_)?(a|b|down|up|magnitude_vector)($|[._])"
    r"|(^|\.)((hada|lokr)_w\d|ia3_l|boft_s|road_alpha)",
    re.I,
)
# Neutral at 1 or at the base weights' norms, not at 0: for layers that cannot be tried.
_MULTIPLIER = re.compile(r"(^|[._])(ia3_l|boft_s|lora_magnitude_vector|road_alpha)($|[._])")


def adapters(live: Live, decaying: list[Held]) -> Iterator[Draft]:
    """The findings about adapters that decay."""
    inside, away = adapter_parameters(live), _away_from_base(live)
    mine = [one for one in decaying if id(one.parameter) in inside]
    if names := tuple(one.name for one in mine if id(one.parameter) in away):
        message = (
            "{n} parameter{|s} of adapters decay{s|} away from the base model: at 0 {it leaves|they leave} "
            "nothing of a layer's output"
        )
        fix = "give strength 0; or wd.attach wd.Toward, which pulls to where they started"
        yield Draft("WD106", names, message, fix, "warning")
    if names := tuple(one.name for one in mine if id(one.parameter) not in away):
        message = "{n} parameter{|s} of adapters decay{s|}: that pulls to the base model, not to zero"
        yield Draft("WD106", names, message, "keep it if that is meant; else give adapters strength 0")


def adapter_parameters(live: Live) -> set[int]:
    """Identities of what adapters added: those of peft by their class, others by their names."""
    inside = _of_peft(live.model)
    return inside | {id(one.parameter) for one in live.held if _ADAPTER.search(one.name)}


def _away_from_base(live: Live) -> set[int]:
    """Identities of the parameters of adapters whose decay leads away from the base model."""
    tried = _tried_layers(live.model)
    held = {id(one.parameter): one.name for one in live.held}
    return {key for key, name in held.items() if tried.get(key, bool(_MULTIPLIER.search(name)))}


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers that peft has put around others."""
    for module in model.modules():
        if any(kind.__name__ == "BaseTunerLayer" for kind in type(module).__mro__):
            yield module


def _of_peft(model: nn.Module) -> set[int]:
    """What adapters of peft added, without the layers they wrap."""
    return {
        id(p)
        for module in _layers(model)
        for name, p in module.named_parameters()
        if not name.startswith("base_layer.")
    }


def _tried_layers(model: nn.Module) -> dict[int, bool]:
    """Whether each parameter of peft's linear layers, set to 0, takes the layer's output from the base's."""
    known: dict[Any, dict[str, bool]] = {}
    found: dict[int, bool] = {}
    for layer in _layers(model):
        own = {name: p for name, p in layer.named_parameters() if not name.startswith("base_layer.")}
        key = type(layer), tuple((name, tuple(p.shape)) for name, p in own.items())
        if key not in known:
            known[key] = _tried(layer, tuple(own))
        found |= {id(own[name]): away for name, away in known[key].items()}
    return found


@torch.no_grad()
def _tried(layer: nn.Module, names: tuple[str, ...]) -> dict[str, bool]:
    """For each name, whether the layer with zeros there is far from its base; nothing where it cannot run."""
    try:
        twin = replica(layer)
        for module in twin.modules():
            module.__dict__["training"] = False
        base: Any = twin.base_layer
        if not isinstance(base, nn.Linear) or base.weight.is_meta:
            return {}
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, base.in_features, generator=generator).to(base.weight)
        target = base(x)
        tried = {
            name: torch.func.functional_call(twin, {name: torch.zeros_like(twin.get_parameter(name))}, (x,))
            for name in names
        }
        return {name: float((y - target).norm()) > 0.5 * float(target.norm()) for name, y in tried.items()}
    except Exception:  # a forward is anybody's code; then names have to do
        return {}
