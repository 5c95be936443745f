"""What rules do around one step of an optimizer: before it, in place of gradients, and after it."""

import itertools
import operator
import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from types import FrameType
from typing import Any

from torch import Tensor, optim

from weightdecay.errors import WeightDecayWarning
from weightdecay.hooks import apply
from weightdecay.hooks.apply import Batch
from weightdecay.hooks.optimizers import check_second_moment, direction, is_readable, mean_second_moment
from weightdecay.hooks.plan import Plan, States, Target, check_rate
from weightdecay.hooks.ranks import check_size
from weightdecay.hooks.rounding import Rounding
from weightdecay.hooks.sparse import Sparse
from weightdecay.rules import Rule, Step
from weightdecay.rules.base import seen
from weightdecay.rules.strength import GroupStrength

# A rule's position, a parameter group, and some of its parameters that have a gradient.
Work = tuple[int, dict[str, Any], Batch]
# In C: each step asks each parameter.
_PARAMETER, _GRADIENT, _IS_SPARSE = map(operator.attrgetter, ("parameter", "grad", "is_sparse"))


class Stepper:
    """The rules around each step of an optimizer.

    Args:
        optimizer: the optimizer.
        rules: the rules.
        states: what they keep.
        compiled: let torch.compile write their kernels.
        sparse: what is done with sparse gradients.
        rounding: of decayed weights, at random; None is to the nearest.
        late: decay after the step, by what the weights were when it began.

    Attributes:
        acted: whether this step's decay has been done, as far as it comes before the step.
    """

    def __init__(
        self,
        optimizer: optim.Optimizer,
        rules: tuple[Rule, ...],
        states: States,
        compiled: bool,
        sparse: Sparse,
        rounding: Rounding | None,
        late: bool,
    ) -> None:
        self._optimizer, self._rules, self._states, self._sparse = optimizer, rules, states, sparse
        self._rounding, self._late = rounding, late
        # Rules that look at the update come late, those that act on what the step left last.
        self._order = sorted(range(len(rules)), key=lambda r: (rules[r].after, rules[r].needs_update))
        self._passes = [apply.Pass(rule, compiled, rounding) for rule in rules]
        self._memory = apply.Memory()
        self._plan: Plan | None = None  # that the batches were made for
        self._batches: dict[tuple[int, int], list[Batch]] = {}  # of each rule and parameter group
        self._parameters: list[list[Tensor]] = []  # that decay, of each group
        self._above_peak = self._after_end = False  # what was warned of
        self._kept: dict[Tensor, Tensor] = {}  # the weights when the step began, where decay is late
        self._gradients: list[tuple[Tensor, Tensor, Tensor]] = []  # the user's, while a penalty is added
        # Rules that wait for the step, and the weights before it, where u is not readable.
        self._waiting: dict[Tensor, tuple[Tensor, list[tuple[Rule, Step]]]] = {}
        self._afterwards: list[Work] = []  # of rules that act after the step
        self.acted = False

    def keep(self, targets: Iterable[Target]) -> None:
        """Copy the weights before the step moves them, where decay is late: a closure may find them moved."""
        if not all(rule.coupled for rule in self._rules):
            for target in targets:
                w = target.parameter
                self._kept[w] = self._memory.whole(w, "before").copy_(w)

    def act(self, plan: Plan, step: int, factor: float) -> Tensor | float:
        """Decay once a step; add penalties whenever the loss was evaluated, and return their sum.

        Raises:
            InputError: a strength, a gradient or a size that no step can be made with; every check is done
                before the first tensor changes.
        """
        work = self._work(plan, step, factor)
        for part in work:
            if self._rules[part[0]].after and not self.acted:
                self._afterwards.append(self._with_start(part))
        penalty: Tensor | float = 0.0
        for r, parts in itertools.groupby(work, key=operator.itemgetter(0)):
            if self._rules[r].coupled or not (self.acted or self._rules[r].after):
                if plan.partners[r]:  # partners may decay, too: all are copied before any does
                    parts = [_with_partners(part) for part in parts]
                for _, group, batch in parts:
                    penalty = penalty + self._decay(r, group, batch)
        self.acted = True
        return penalty

    def finish(self) -> None:
        """Do what comes after the step."""
        for w, (before, rules) in self._waiting.items():
            apply.decay_after(w, before, rules, self._memory, self._rounding)
        for r, _, batch in self._afterwards:
            apply.decay(self._rules[r], self._passes[r], batch, self._memory)

    def give_back_gradients(self) -> None:
        """Put the user's gradients back in the place of those with a penalty."""
        for parameter, gradient, with_penalty in reversed(self._gradients):  # of two penalties the last first
            if parameter.grad is with_penalty:  # else the user has made a new one since
                parameter.grad = gradient
        self._gradients.clear()

    def drop(self) -> None:
        """Forget what belongs to one step."""
        self.acted = False
        self.give_back_gradients()
        self._waiting.clear()
        self._kept.clear()
        self._afterwards.clear()

    def end(self) -> None:
        """Forget everything, memory included."""
        self.drop()
        self._memory = apply.Memory()

    def check(self, group: int, rule: Rule, strength: GroupStrength, rate: float | Tensor, step: int) -> None:
        """Refuse a step that would remove a whole weight; warn once where training leaves what was planned.

        Raises:
            InputError: the rate is 1 or more, or not a number.
        """
        lr = self._optimizer.param_groups[group]["lr"]
        if strength.steps is not None and step >= strength.steps and not self._after_end:
            self._after_end = True
            _warn(
                f"training goes on after the {strength.steps:,} steps that attach was given: {rule.shown} "
                "decays beyond its half-lives; attach with the true number of steps, or detach"
            )
        if not rule.coupled and rule.overshoots:
            check_rate(group, strength.law, rate, lr, step)
        if isinstance(lr, Tensor) or self._above_peak:
            return
        by_rule = strength.lr_max is not None and not rule.coupled and rule.overshoots
        peak = strength.lr_max if by_rule else strength.peak
        if peak is not None and lr > peak * (1 + 1e-6):
            self._above_peak = True
            start = f"lr = {float(lr):g} of parameter group {group} is above "
            _warn(
                f"{start}lr_max = {peak:g} at step {step}: {type(rule).__name__} decays more than it says; "
                "give the true peak"
                if by_rule
                else f"{start}{peak:g}, the peak of the schedule that attach was given, at step {step}: "
                f"{rule.shown} decays {lr / peak:.3g} times as fast as it says; attach with the true schedule"
            )

    def _work(self, plan: Plan, step: int, factor: float) -> list[Work]:
        """What is to be done by hooks, in order."""
        if plan is not self._plan:
            self._plan, self._parameters = plan, []
            for targets in plan.targets:
                self._parameters.append(list(map(_PARAMETER, targets)))
            self._batches = apply.sort(self._rules, plan, self._states, self._rounding)
        complete: list[bool] = []  # whether each parameter of the group that decays has a gradient
        for i, targets in enumerate(plan.targets):
            gradients = list(map(_GRADIENT, self._parameters[i]))
            complete.append(type(None) not in set(map(type, gradients)))
            if not complete[i] or any(map(_IS_SPARSE, gradients)):
                for target, gradient in zip(targets, gradients, strict=True):
                    if gradient is not None and gradient.is_sparse:
                        self._sparse.check(target, gradient, i in plan.native)
        work: list[Work] = []
        size = None  # of all gradients, where a rule looks at it
        for r in self._order:
            rule = self._rules[r]
            if rule.needs_second_moment and size is None:
                size = mean_second_moment(self._optimizer)
                check_size(size, self._optimizer, plan)
            for i, group in enumerate(self._optimizer.param_groups):
                live = self._batches[r, i]
                if not complete[i]:
                    has = [[k for k, w in enumerate(batch.ws) if w.grad is not None] for batch in live]
                    live = [batch.some(some) for batch, some in zip(live, has, strict=True) if some]
                if not live:
                    continue
                strength, lr = plan.strength(r, i), group["lr"]
                if isinstance(lr, Tensor):
                    lr = lr.reshape(())  # torch takes one of shape (1,), too
                at = strength.at(step) * factor
                rate = strength.rate(at, lr)
                steps: dict[float, Step] = {}
                for batch in live:
                    if (scale := batch.scale) not in steps:
                        steps[scale] = Step(rate * scale, at * scale, lr=lr, second_moment=size or 0.0)
                        self.check(i, rule, strength, rate * scale, step)
                        if size is not None and rule.needs_second_moment:
                            check_second_moment(size, rate * scale, f"parameter group {i}", step)
                    work.append((r, group, replace(batch, step=steps[scale])))
        return work

    def _with_start(self, work: Work) -> Work:
        """The work with the weights as they are now, before anything has acted."""
        r, group, batch = work
        now = [self._kept.get(w, w) for w in batch.ws] if self._kept else batch.ws
        if batch.joined:
            before = apply.join(self._rules[r], now)
        else:
            before = [self._memory.whole(w, "start").copy_(own) for w, own in zip(batch.ws, now, strict=True)]
        return r, group, replace(batch, before=before)

    def _decay(self, r: int, group: dict[str, Any], batch: Batch) -> Tensor | float:
        """Decay by one rule, as far as it is done before the step; return its penalty."""
        rule, once, optimizer = self._rules[r], self._passes[r], self._optimizer
        batch, penalised = self._sparse.take(rule, group, batch)
        self._gradients += penalised
        penalty: Tensor | float = 0.0
        if not batch.ws:
            return penalty
        if rule.coupled:
            if isinstance(optimizer, optim.LBFGS):
                penalty = sum(rule.penalty(seen(w), step) for w, step in batch.each())
            self._gradients += apply.add_penalty(rule, optimizer, group, batch, self._memory)
        elif not (rule.needs_update or self._late):
            apply.decay(rule, once, batch, self._memory)
        elif not self._late and is_readable(optimizer):
            update = direction(optimizer, group, batch.ws)
            apply.decay(rule, once, batch, self._memory, update)
        else:
            for w, step in batch.each():
                if w not in self._waiting:
                    before = self._kept.get(w)
                    if before is None:
                        before = self._memory.whole(w, "before").copy_(w)
                    self._waiting[w] = before, []
                self._waiting[w][1].append((rule, step))
        return penalty


def _warn(message: str) -> None:
    warnings.warn(message, WeightDecayWarning, stacklevel=3)


def _with_partners(work: Work) -> Work:
    """The work with copies of the partners."""
    r, group, batch = work
    copies = [None if partner is None else partner.detach().clone() for partner in batch.partners]
    return r, group, replace(batch, partners=copies)


# The function that torch puts around every `step`, and from which it calls hooks.
_CALL_OF_STEP = optim.Optimizer.profile_hook_step(lambda: None).__code__.co_qualname


class OpenStep:
    """The step that a hook has seen begin, and the steps within it.

    torch runs the hooks in every class whose `step` it has wrapped, so a subclass that calls `super().step()`
    runs them twice; an optimizer inside is stepped by the one around it. Their hooks are not those of a step
    of its own. A step that an exception ended has no last hook: its call is no longer on the stack. Until the
    next step that call keeps what was on the stack alive, unless the exception went through a hook: `fails`.

    Attributes:
        open: whether a step has begun and not ended.
    """

    def __init__(self) -> None:
        self.open = False
        self._call: FrameType | None = None
        self._within = 0

    def begins(self, hooked: bool = True) -> bool:
        """Return whether a step begins; False for one within the open step.

        Args:
            hooked: a hook asks; else the step is one in two phases, of which no call is open between them.
        """
        if self.runs():
            self._within += 1
            return False
        call = sys._getframe() if hooked else None
        while call is not None and call.f_code.co_qualname != _CALL_OF_STEP:
            call = call.f_back
        self.open, self._call, self._within = True, call, 0
        return True

    def runs(self) -> bool:
        """Return whether the call of the open step has not returned."""
        frame = None if self._call is None else sys._getframe()
        while frame is not None and frame is not self._call:
            frame = frame.f_back
        return frame is not None

    def fails(self) -> None:
        """Let go of the open step, which an exception ends."""
        self.open, self._call, self._within = False, None, 0

    def ends(self) -> bool:
        """Return whether the open step ends; False for one within it."""
        if self._within:
            self._within -= 1
            return False
        self.open, self._call = False, None
        return True


def makes_state(optimizer: optim.Optimizer) -> bool:
    """Return whether this step is none: distributed checkpoints make one so that there is a state to fill."""
    checkpoint = sys.modules.get("torch.distributed.checkpoint.state_dict")
    if checkpoint is None or optimizer.state:  # not loaded: it cannot be the caller
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not checkpoint._init_optim_state.__code__:
        frame = frame.f_back
    return frame is not None
