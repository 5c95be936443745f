"""What an audit looks at: a live model, the optimizers that hold its parameters, what decays them, the run.

`read` checks the arguments and plans once; the checks read the `State`. Nothing live is changed.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LRScheduler

from weightdecay import arguments
from weightdecay.arguments import class_name, count, no_number, number
from weightdecay.errors import Finding, InputError
from weightdecay.groups import Assignment, assign
from weightdecay.groups.inventory import Candidate, inventory, plain_name, role_in
from weightdecay.hooks.decay import Decay, attached
from weightdecay.hooks.optimizers import bare_optimizer, form_of, is_adaptive, momentum_of
from weightdecay.probing.run import probe_optimizer
from weightdecay.rules import Cautious, Corrected, Decoupled, Independent, Rule
from weightdecay.schedule.learning_rates import Interval, bare_scheduler, described_lrs, is_scheduler
from weightdecay.text import Text, chinese
from weightdecay.units.halflife import (
    FLOORS,
    Law,
    coupled_rate,
    diverges_from,
    log_retention,
    rounded_rate,
    shape,
)

NO_RATE = ("none", "unknown", "sign-normalised")
# Less of the intended decay than this may be lost to rounding, as at the end of a schedule that goes to 0.
LOST = 0.1
_OF_RULES: dict[type[Rule], str] = {
    Decoupled: "decoupled",
    Independent: "independent",
    Corrected: "corrected",
    Cautious: "cautious",
}
Optimizers = tuple[optim.Optimizer, ...]
Names = dict[str, None]  # in order, each once


@dataclass(frozen=True)
class Pull:
    """One decay of one parameter.

    Args:
        by: what does it: the optimizer's class, or the rule as it was written.
        attached: whether it is an attached rule.
        weight_decay: λ now, scale included.
        form: "decoupled", "coupled", "sign-normalised", ..., "none", "unknown".
        law: how the fraction removed follows lr.
        lr_max: the peak that the law refers to.
        factor: times what the law gives.
        sgd: momentum, dampening and nesterov, where the decay passes through them.
        why: what a probe saw of its form.
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
        """Return what one step takes from a weight without gradient, momentum aside; None: not known.

        Args:
            lrs: step sizes.
        """
        if self.form in NO_RATE or not self.paced:
            return None
        shapes = shape(self.law, lrs, self.lr_max or (float(lrs.max()) or 1.0))
        dampening = self.sgd[1] if self.sgd and self.sgd[0] else 0.0
        return self.weight_decay * self.factor * np.asarray(shapes) * (1 - dampening)

    def rates(self, lrs: np.ndarray) -> np.ndarray | None:
        """Return the fraction removed in a step, momentum counted; None: not known, or not below 1."""
        removed = self.removed(lrs)
        if removed is None or removed.max(initial=0) >= self.limit:
            return None
        if self.momentum is None:
            return removed
        unique, where = np.unique(lrs, return_inverse=True)
        sgd = dict(zip(("momentum", "dampening", "nesterov"), self.momentum, strict=True))
        return np.array([coupled_rate(self.weight_decay, float(lr), **sgd) for lr in unique])[where]  # pyright: ignore[reportArgumentType]

    @property
    def momentum(self) -> tuple[float, float, bool] | None:
        """Momentum, dampening and nesterov, where momentum carries the decay on."""
        return self.sgd if self.form == "coupled" and self.sgd is not None and self.sgd[0] > 0 else None

    @property
    def limit(self) -> float:
        """What `removed` must stay below."""
        return 1.0 if self.momentum is None else diverges_from(self.momentum[0], self.momentum[2])


@dataclass(frozen=True)
class Place:
    """Where an optimizer holds a parameter, and what decays it there.

    Args:
        optimizer, group, position: positions of the optimizer, of the group, and within the group.
        pulls: the decays; the optimizer's own first.
        weight_decay: the sum of their λ.
        rule: the attached rule that decided about the parameter; empty without one.
        assignment: what it decided.
        applied: whether something is removed: a decay that its optimizer does not apply removes nothing.
    """

    optimizer: int
    group: int
    position: int
    pulls: tuple[Pull, ...] = ()
    weight_decay: float = 0.0
    rule: str = ""
    assignment: Assignment | None = None
    applied: bool = False


@dataclass(frozen=True, eq=False)
class Held:
    """A parameter of the model, with every place that holds it.

    Args:
        name: without what wrappers add.
        aliases: its other names, where weights are tied.
        parameter: the tensor itself.
        role: what it is for.
        candidate: why it has this role, the modules that own it, and whether the model exempts it.
        places: where optimizers hold it.
        pulls: the decays in all its places.
        moves: whether an optimizer that holds it changes it: a frozen one, too, with a gradient left over.
        wanted: the scale of the decay that it should have; None where nobody has an opinion.
    """

    name: str
    aliases: tuple[str, ...]
    parameter: Tensor
    role: str
    candidate: Candidate
    places: tuple[Place, ...]
    pulls: tuple[Pull, ...]
    moves: bool
    wanted: float | None


@dataclass(frozen=True, eq=False)
class LearningRates:
    """How the learning rates go.

    Args:
        rows: by optimizer and group: the step sizes of the run, or one alone where its length is not known.
        steps: of the run, or None.
        mismatches: what is wrong with the schedulers, each with what to do.
        described: how often each schedule goes on, in words.
    """

    rows: Mapping[tuple[int, int], np.ndarray]
    steps: int | None
    mismatches: tuple[tuple[Text, Text], ...] = ()
    described: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pace:
    """How fast one decay goes over the run.

    Args:
        pull: the decay.
        names: of the parameters.
        dtype: what they are stored in.
        lr: the largest step size.
        removed: the largest fraction that a step takes from a weight, momentum aside.
        overshoots: whether that makes weights grow.
        lost: which share of the decay is too small for the precision of the weights,
        lost_steps: and in which share of the steps.
        rounded: what rounding makes of the decay, over what is meant.
        timescale: 1/rate in steps, at the largest rate; None where there is no rate.
        kept: what is left of the initial weights after the run; None where that is not known.
    """

    pull: Pull
    names: tuple[str, ...]
    dtype: str
    lr: float
    removed: float
    overshoots: bool
    lost: float = 0.0
    lost_steps: float = 0.0
    rounded: float = 1.0
    timescale: float | None = None
    kept: float | None = None


class OptimizerDecay:
    """What decays the parameters of one optimizer: attached rules, and its own `weight_decay`."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer
        # Nothing can be attached to a class that has an optimizer inside and no hooks of its own.
        self.rules = attached(optimizer) if hasattr(optimizer, "_optimizer_step_pre_hooks") else []
        self._scales: list[dict[int, float]] = []  # of each rule, by the parameter's identity
        self._decided: dict[tuple[int, int], tuple[str, Assignment]] = {}  # the first rule's word counts
        self.native: set[int] = set()  # groups in which an attached rule sets the optimizer's own decay
        for decay in self.rules:
            self._scales.append({id(target.parameter): target.scale for target in decay.plan.all_targets})
            self.native.update(decay.plan.native)
            for group, entries in enumerate(decay.plan.assignments):
                for entry in entries:
                    self._decided.setdefault((id(entry.parameter), group), (decay.shown, entry))
        self._own: dict[int, Pull | None] = {}

    def place(self, o: int, g: int, position: int, parameter: Tensor, moves: bool) -> Place:
        """Return the place of a parameter in group g, with what decays it there."""
        rule, assignment = self._decided.get((id(parameter), g), ("", None))
        pulls: list[Pull] = []
        if moves:
            for decay, scales in zip(self.rules, self._scales, strict=True):
                pulls += self._by_rules(decay, g, scales.get(id(parameter), 0.0))
            if g not in self._own:
                self._own[g] = None if g in self.native else _own(self.optimizer, g)
            if (own := self._own[g]) is not None:
                pulls.insert(0, own)
        strength, applied = 0.0, False
        for pull in pulls:
            strength += pull.weight_decay
            applied |= pull.form != "none"
        return Place(o, g, position, tuple(pulls), strength, rule, assignment, applied)

    def _by_rules(self, decay: Decay, g: int, scale: float) -> list[Pull]:
        pulls: list[Pull] = []
        # A group that was added later is not in the plan.
        if not scale or g >= len(decay.plan.assignments):
            return pulls
        group = self.optimizer.param_groups[g]
        for rule, strengths in zip(decay.rules, decay.plan.strengths, strict=True):
            strength = strengths[g]
            if strength is None:
                continue
            try:
                now = as_number(strength.at(decay.steps)) * decay.factor * scale
            except InputError:  # a function of the step that has ended
                now = 0.0
            if now > 0:
                form = rule_form(rule, self.optimizer, group)
                pulls.append(
                    Pull(
                        rule.shown,
                        True,
                        now,
                        form,
                        strength.law,
                        strength.lr_max,
                        sgd=_sgd(self.optimizer, group) if form == "coupled" else None,
                        at_random=decay.rounding == "stochastic",
                        sparse=decay.sparse is not None,
                        paced=rule.paced,
                    )
                )
        return pulls


@dataclass(frozen=True, eq=False)
class State:
    """A model, its optimizers and the run, read once.

    Args:
        model: the model.
        optimizers: without what other libraries wrap around them.
        titles: a name for each optimizer.
        decays: what decays the parameters of each optimizer.
        held: the model's parameters in their order.
        trained: those that an optimizer changes.
        decaying: those of which something is removed.
        strange: places that hold what is not in the model, each with a name for it.
        by_pull: the decays that occur, each with its optimizer, and the names of what decays by it.
        paces: how fast each decay goes, where it has a speed.
        rates: the learning rates of the run.
        steps_per_epoch: of the run, or None.
        scaler: the gradient scaler, or None.
    """

    model: nn.Module
    optimizers: Optimizers
    titles: tuple[Text, ...]
    decays: tuple[OptimizerDecay, ...]
    held: tuple[Held, ...]
    trained: tuple[Held, ...]
    decaying: tuple[Held, ...]
    strange: tuple[tuple[Place, str], ...]
    by_pull: Mapping[tuple[Pull, int], Names]
    paces: tuple[Pace, ...]
    rates: LearningRates
    steps_per_epoch: float | None
    scaler: Any

    def group(self, place: Place) -> Mapping[str, Any]:
        """Return the parameter group of a place."""
        return self.optimizers[place.optimizer].param_groups[place.group]

    def names_in(self, o: int, groups: Container[int] | None = None) -> tuple[str, ...]:
        """Return the names of the parameters that an optimizer holds, in these groups of it."""
        names: Names = {}
        for held in self.held:
            for place in held.places:
                if place.optimizer == o and (groups is None or place.group in groups):
                    names[held.name] = None
        return tuple(names)


def _pace(pull: Pull, names: tuple[str, ...], dtype: str, lrs: np.ndarray, steps: int | None) -> Pace | None:
    removed, peak = pull.removed(lrs), float(lrs.max())
    if removed is None or not removed.max(initial=0) > 0:
        return None
    largest, rates = float(removed.max()), pull.rates(lrs)
    if largest >= pull.limit:
        return Pace(pull, names, dtype, peak, largest, True)
    lost, lost_steps, rounded = 0.0, 0.0, 1.0
    floor = FLOORS.get(dtype)
    # What goes through the gradient is not rounded beside the weight.
    if floor is not None and not pull.at_random and pull.form != "coupled":
        below = (removed <= floor) & (removed > 0)
        lost, lost_steps = float(removed[below].sum() / removed.sum()), float(below.mean())
        if lost <= LOST:
            rounded = float(rounded_rate(removed, dtype).sum() / removed.sum())
    timescale = None if rates is None else 1 / float(rates.max())
    kept = None
    if rates is not None and steps is not None and not (pull.attached and pull.by.startswith("Toward(")):
        kept = float(np.exp(log_retention(rates)))
    return Pace(pull, names, dtype, peak, largest, False, lost, lost_steps, rounded, timescale, kept)


def read(
    model: Any,
    optimizers: Iterable[Any],
    *,
    schedule: Any = None,
    steps: Any = None,
    steps_per_epoch: Any = None,
    interval: Interval | None = None,
    groups: Any = None,
    scaler: Any = None,
) -> State:
    """Check the arguments of `audit`, which has the same, and read what they say.

    Raises:
        InputError: an argument cannot be used; no parameters, or one that a lazy layer has not made yet.
    """
    model, optimizers = checked_model(model), checked_optimizers(optimizers)
    flat = any(map(is_flat, model.parameters()))
    candidates = _as_they_are(model) if flat else inventory(model, frozen=True)
    if not candidates:
        raise InputError("no parameters", "model", class_name(model), "give a model that has parameters")
    titles = _titles(optimizers)
    check_numbers(optimizers, titles)
    check_scaler(scaler)
    if steps_per_epoch is not None:
        steps_per_epoch = number(steps_per_epoch, "steps_per_epoch", above=0)
    rates = learning_rates(schedule, steps, optimizers, interval, steps_per_epoch)
    trainable = False
    for candidate in candidates:
        trainable |= candidate.parameter.requires_grad
    wanted: dict[int, float] = {}
    for entry in assign(model, groups) if groups is not None and trainable and not flat else ():
        wanted[id(entry.parameter)] = entry.scale
    decays = tuple(map(OptimizerDecay, optimizers))
    positions: dict[int, list[tuple[int, int, int]]] = {}
    for o, optimizer in enumerate(optimizers):
        for g, group in enumerate(optimizer.param_groups):
            for p, parameter in enumerate(group["params"]):
                positions.setdefault(id(parameter), []).append((o, g, p))
    modules = dict(model.named_modules(remove_duplicate=False))
    held, trained, decaying = [], [], []
    by_pull: dict[tuple[Pull, int], Names] = {}
    by_pace: dict[tuple[Pull, int, int, str], Names] = {}
    for candidate in candidates:
        parameter = candidate.parameter
        dtype = str(parameter.dtype).removeprefix("torch.")
        moves = parameter.requires_grad or parameter.grad is not None
        name, *aliases = dict.fromkeys([plain_name(modules, name) for name in candidate.names])
        places: list[Place] = []
        pulls: list[Pull] = []
        applied = False
        for o, g, p in positions.pop(id(parameter), []):
            place = decays[o].place(o, g, p, parameter, moves)
            places.append(place)
            pulls += place.pulls
            applied |= place.applied
            for pull in place.pulls:
                by_pull.setdefault((pull, o), {})[name] = None
                by_pace.setdefault((pull, o, g, dtype), {})[name] = None
        of_model = Held(
            name,
            tuple(aliases),
            parameter,
            candidate.role,
            candidate,
            tuple(places),
            tuple(pulls),
            moves,
            wanted.get(id(parameter)),
        )
        held.append(of_model)
        if moves and places:
            trained.append(of_model)
        if applied:
            decaying.append(of_model)
    strange = []
    for rest in positions.values():
        for o, g, p in rest:
            group = optimizers[o].param_groups[g]
            named = group.get("param_names") or ()
            strange.append((Place(o, g, p), str(named[p]) if p < len(named) else f"group {g}, position {p}"))
    paces = []
    for (pull, o, g, dtype), names in by_pace.items():
        pace = _pace(pull, tuple(names), dtype, rates.rows[o, g], rates.steps)
        if pace is not None:
            paces.append(pace)
    return State(
        model,
        optimizers,
        titles,
        decays,
        tuple(held),
        tuple(trained),
        tuple(decaying),
        tuple(strange),
        by_pull,
        tuple(paces),
        rates,
        steps_per_epoch,
        scaler,
    )


def checked_model(model: Any) -> nn.Module:
    """Return the model.

    Raises:
        InputError: it is none.
    """
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InputError(
            "a class where a model is needed", "model", model.__name__, f"give {model.__name__}(...)"
        )
    remedy = "give the torch.nn.Module first, then its optimizers; of several models an nn.ModuleList"
    return arguments.model(model, remedy)


def checked_optimizers(several: Iterable[Any]) -> Optimizers:
    """Return the optimizers, each once, wrappers taken off; lists of them are opened.

    Raises:
        InputError: something is no optimizer of torch's kind, or there is none.
    """
    optimizers: dict[int, Any] = {}
    for each in several:
        for item in each if isinstance(each, (list, tuple, set)) else [each]:
            optimizer: Any = item.optimizer if isinstance(item, Decay) else bare_optimizer(item)
            kind = optimizer.__name__ if isinstance(optimizer, type) else type(optimizer).__name__
            groups: Any = getattr(optimizer, "param_groups", None)
            whole = isinstance(optimizer, optim.Optimizer) and isinstance(groups, list)
            for group in groups if whole else ():
                whole &= isinstance(group, dict) and "params" in group
            what = remedy = ""
            if isinstance(optimizer, LRScheduler):
                what = "a scheduler where an optimizer is needed"
                remedy = "give it as schedule=, and its optimizer here"
            elif isinstance(optimizer, type):
                what = "an optimizer's class" if issubclass(optimizer, optim.Optimizer) else "a class"
                what, remedy = f"{what} where an optimizer is needed", f"give {kind}(parameters, lr=...)"
            elif not whole:
                what = "not an optimizer of torch's kind"
                remedy = "it has to be a torch.optim.Optimizer whose __init__ has run"
            if what:
                raise InputError(what, "optimizers", kind, remedy)
            optimizers[id(optimizer)] = optimizer
    if not optimizers:
        remedy = "give the optimizers that step: wd.audit(model, optimizer)"
        raise InputError("no optimizer", "optimizers", "nothing", remedy)
    return tuple(optimizers.values())


def check_scaler(scaler: Any) -> None:
    """Refuse what is no gradient scaler, and not None.

    Raises:
        InputError: it is none.
    """
    if scaler is None:
        return
    own = hasattr(scaler, "unscale_") and hasattr(scaler, "is_enabled") and hasattr(scaler, "scale")
    if own and not isinstance(scaler, type):
        return
    kind = scaler if isinstance(scaler, type) else type(scaler)
    raise InputError("not a gradient scaler", "scaler", kind.__name__, "give a torch.amp.GradScaler()")


def _titles(optimizers: Optimizers) -> tuple[Text, ...]:
    """Return a name for each: its class, with its position where another has the same class."""
    kinds = [type(optimizer).__name__ for optimizer in optimizers]
    titles: list[Text] = []
    for i, kind in enumerate(kinds):
        title = Text(kind, kind)
        if kinds.count(kind) > 1:
            place, count = i + 1, len(kinds)
            title = Text(f"{kind} ({place} of {count})", f"{kind}（{count} 之 {place}）")
        titles.append(title)
    return tuple(titles)


def is_flat(parameter: Tensor) -> bool:
    """Whether a parameter is many tensors laid into one, as older sharding leaves them."""
    return getattr(parameter, "_is_flat_param", False) or type(parameter).__name__ == "FlatParameter"


def _as_they_are(model: nn.Module) -> list[Candidate]:
    """Return the parameters of a model in which some are flattened: the inventory refuses those."""
    candidates: dict[int, Candidate] = {}
    for path, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is None or id(parameter) in candidates:
                continue
            name = f"{path}.{attribute}" if path else attribute
            role, why = role_in(module, attribute, parameter)
            if is_flat(parameter):
                role, why = "other", f"{attribute} of {class_name(module)}, several tensors laid into one"
            candidates[id(parameter)] = Candidate(name, parameter, (name,), (module,), role, why)
    return list(candidates.values())


def defaults(optimizer: optim.Optimizer) -> Mapping[str, Any]:
    """Return the options that an optimizer was built with; none where its class does not keep them."""
    return getattr(optimizer, "defaults", None) or {}


def as_number(value: Any) -> float:
    """Return a strength or step size as a float; 0 for none.

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
    raise no_number(repr(value), "lr or weight_decay of a group", remedy)


def check_numbers(optimizers: Optimizers, titles: Sequence[str]) -> None:
    """Refuse step sizes and strengths that no decay can be computed from.

    Raises:
        InputError: the step size or strength of a group is not finite, or negative.
    """
    for title, optimizer in zip(titles, optimizers, strict=True):
        for g, group in enumerate(optimizer.param_groups):
            for name in ("lr", "weight_decay"):
                value = group.get(name)
                if isinstance(value, Tensor) and value.device.type == "meta":
                    continue
                if not 0 <= as_number(value) < float("inf"):
                    where = f"{name} of group {g} of {title}"
                    remedy = "see what set it: a schedule, a checkpoint, a division by 0"
                    raise InputError("not a finite number of at least 0", where, value, remedy)


def learning_rates(
    schedule: Any,
    steps: Any,
    optimizers: Optimizers,
    interval: Interval | None = None,
    steps_per_epoch: float | None = None,
) -> LearningRates:
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
    if schedule is None and interval is not None:
        raise InputError("an interval without a schedule", "interval", repr(interval), "give schedule=, too")
    total = None if steps is None else count(steps, "steps")
    every: dict[str, Any] = {"interval": interval, "steps_per_epoch": steps_per_epoch}
    rows = {}
    for o, optimizer in enumerate(optimizers):
        for g, group in enumerate(optimizer.param_groups):
            # in warmup lr is small or 0, and `initial_lr` is what it goes to
            rows[o, g] = np.array([max(as_number(group.get("lr")), as_number(group.get("initial_lr")))])
    schedulers = [] if schedule is None else _schedulers(schedule)
    if schedulers is None:  # a name, numbers or a function of the step
        peaks = [float(row[0]) for row in rows.values()] if isinstance(schedule, str) else None
        lrs, interval_shown = described_lrs(schedule, total, peaks, **every)
        if len(lrs) not in (1, len(rows)):
            remedy = f"give one row, or {len(rows)}: one for each group of {len(optimizers)} optimizers"
            what = "a schedule has one row for each group"
            raise InputError(what, "schedule", f"{len(lrs)} rows", remedy)
        lrs = np.broadcast_to(lrs, (len(rows), lrs.shape[1]))
        return LearningRates(
            dict(zip(rows, lrs, strict=True)), len(lrs[0]), (), (interval_shown,) if interval_shown else ()
        )
    mismatches, described = [], []
    bare = [bare_scheduler(scheduler) for scheduler in schedulers]
    for scheduler, wrapped in zip(bare, schedulers, strict=True):
        kind, optimizer = type(scheduler).__name__, scheduler.optimizer
        if any(other is not scheduler and other.optimizer is optimizer for other in bare):
            remedy = "give the ChainedScheduler or SequentialLR that they are steps of"
            raise InputError("two schedulers of one optimizer", "schedule", kind, remedy)
        inner = bare_optimizer(optimizer)
        o = next((o for o, one in enumerate(optimizers) if one is optimizer or one is inner), None)
        if o is None:
            other = type(optimizer).__name__
            message = Text(
                f"{kind} belongs to another {other} than the one given: it never changes lr here",
                f"{kind} 属于另一个 {other}，不是给出的这个：它不会改变这里的 lr",
            )
            fix = Text(
                "make the scheduler last, from the optimizer that steps", "最后再用实际更新的优化器创建调度器"
            )
            mismatches.append((message, fix))
            continue
        groups, known = len(optimizers[o].param_groups), len(getattr(scheduler, "base_lrs", ()))
        if known and known != groups:
            message = Text(
                f"{kind} knows {known} parameter groups and its optimizer has {groups}",
                f"{kind} 只知道 {known} 个参数组，而它的优化器有 {groups} 个",
            )
            fix = Text(
                "make the scheduler again after the last add_param_group",
                "在最后一次 add_param_group 之后重新创建调度器",
            )
            mismatches.append((message, fix))
            continue
        lrs, interval_shown = described_lrs(wrapped, total, **every)
        for g, row in enumerate(lrs):
            rows[o, g] = row
        described.append(interval_shown)
    total = total or max((len(row) for row in rows.values() if len(row) > 1), default=None)
    if total is not None:
        # views of one number: they take no memory, however long the run
        rows = {key: np.broadcast_to(row, total) if len(row) == 1 else row for key, row in rows.items()}
    return LearningRates(rows, total, tuple(mismatches), tuple(dict.fromkeys(described)))


def _schedulers(schedule: Any) -> list[Any] | None:
    """Return schedulers, in whatever is around them, if that is what was given."""
    several = schedule if isinstance(schedule, (list, tuple)) else [schedule]
    several = [scheduler for scheduler in several if scheduler is not None]
    if not several and schedule:
        return []  # a list of None: no scheduler
    return several if several and all(is_scheduler(bare_scheduler(one)) for one in several) else None


def _own(optimizer: optim.Optimizer, g: int) -> Pull | None:
    """Return the decay that an optimizer does itself in a group; None where it has no strength."""
    group = optimizer.param_groups[g]
    strength = as_number(group.get("weight_decay"))
    if not strength:
        return None
    known_form = form_of(optimizer, group)
    form = Form(known_form) if known_form else _probed(optimizer, g)
    sgd = _sgd(optimizer, group) if form.form == "coupled" else None
    known = form.form in ("scaled", "coupled", "independent") and sgd is None
    return Pull(
        type(optimizer).__name__,
        False,
        strength,
        form.form,
        "constant" if form.form == "independent" else "lr",
        factor=form.factor if known else 1.0,
        sgd=sgd,
        why=form.why,
        wrong=form.wrong,
    )


def _sgd(optimizer: optim.Optimizer, group: Any) -> tuple[float, float, bool] | None:
    momentum = momentum_of(optimizer, group)
    if momentum is None:
        return None
    return float(momentum["momentum"]), float(momentum["dampening"]), bool(momentum["nesterov"])


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


def rule_form(rule: Rule, optimizer: optim.Optimizer, group: Mapping[str, Any]) -> str:
    """Return the form of an attached rule."""
    if rule.coupled:
        return "sign-normalised" if is_adaptive(optimizer, group) else "coupled"
    return _OF_RULES.get(type(rule), type(rule).__name__.lower())


def _probed(optimizer: optim.Optimizer, group: int) -> Form:
    probe = probe_optimizer(optimizer, group)
    factor = probe.rate / probe.expected if probe.rate and probe.expected else 1.0
    strength = optimizer.param_groups[group].get("weight_decay")
    if probe.form == "independent" and probe.rate and strength:
        factor = probe.rate / float(strength)  # of λ: lr is no part of it
    if probe.form in ("unknown", "none") and not probe.moved:
        line = _line(probe.why)
        return Form(
            "unknown",
            why=Text(f"the probe did not see it move: {line}", f"探测时没有看到它移动：{chinese(line)}"),
        )
    codes = ("WD306", "WD307", *(["WD305"] if probe.idle else []))  # the others are the audit's own
    wrong = tuple(finding for finding in probe.findings if finding.code in codes)
    return Form(probe.form, factor, _line(probe.why), wrong)


def _line(text: str) -> Text:
    return Text("; ".join(text.splitlines()), "；".join(chinese(text).splitlines()))
