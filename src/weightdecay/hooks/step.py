"""What rules do to parameters around one step: before it, in place of gradients, and after it."""

import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, optim

from weightdecay.errors import WeightDecayWarning
from weightdecay.hooks import apply
from weightdecay.hooks.apply import Live, readable
from weightdecay.hooks.optimizers import check_second_moment, mean_second_moment
from weightdecay.hooks.plan import Plan, States, Target, check_rate
from weightdecay.hooks.ranks import check_size
from weightdecay.hooks.rounding import Rounding
from weightdecay.hooks.sparse import Sparse
from weightdecay.rules import Rule, Step
from weightdecay.rules.sharded import seen
from weightdecay.rules.strength import GroupStrength

# A rule's position, a parameter group and its parameters that have a gradient.
Work = tuple[int, dict[str, Any], list[Live]]


class Telling:
    """Makes, at each step, the work of all rules.

    Args:
        optimizer: the optimizer.
        rules: the rules.
        states: what they keep.
        sparse: what is done with sparse gradients.
    """

    def __init__(
        self, optimizer: optim.Optimizer, rules: tuple[Rule, ...], states: States, sparse: Sparse
    ) -> None:
        self._optimizer, self._rules, self._states, self._sparse = optimizer, rules, states, sparse
        # Rules that look at the update come late, those that act on what the step left last.
        self._order = sorted(range(len(rules)), key=lambda r: (rules[r].after, rules[r].needs_update))
        self._above_peak = self._after_end = False

    def work(self, plan: Plan, step: int, factor: float) -> Iterator[Work]:
        """What is to be done by hooks, in order.

        Raises:
            InputError: a strength, a gradient or a size that no step can be made with.
        """
        size = self._size(plan)
        for r in self._order:
            rule = self._rules[r]
            for i, targets in enumerate(plan.targets):
                live = [target for target in targets if target.parameter.grad is not None]
                self._sparse.check(live, native=i in plan.native)
                if not live or i in plan.native:
                    continue
                group, strength = self._optimizer.param_groups[i], plan.strength(r, i)
                at = strength.at(step) * factor
                rate = strength.rate(at, group["lr"])
                told = {scale: (rate * scale, at * scale) for scale in {target.scale for target in live}}
                for scaled, _ in told.values():
                    self.check(i, rule, strength, scaled, step)
                    if rule.needs_second_moment:
                        check_second_moment(size, scaled, f"parameter group {i}", step)
                if _shared(rule):  # nothing differs between parameters of one scale
                    steps = {scale: Step(*numbers, lr=group["lr"]) for scale, numbers in told.items()}
                    yield r, group, [(one.parameter, steps[one.scale]) for one in live]
                else:
                    own = [self._told(plan, one, r, told[one.scale], group["lr"], size) for one in live]
                    yield r, group, [(one.parameter, step) for one, step in zip(live, own, strict=True)]

    def _size(self, plan: Plan) -> float:
        """The size of all gradients, where a rule looks at it."""
        if not any(rule.needs_second_moment for rule in self._rules):
            return 0.0
        size = mean_second_moment(self._optimizer)
        check_size(size, self._optimizer, plan)
        return size

    def _told(
        self,
        plan: Plan,
        target: Target,
        r: int,
        numbers: tuple[float | Tensor, float | Tensor],
        lr: float | Tensor,
        size: float,
    ) -> Step:
        """What a rule is told about a parameter."""
        return Step(
            *numbers,
            state=self._states.of(target, r),
            lr=lr,
            second_moment=size,
            partner=plan.partners[r].get(target.name),
            name=target.name,
        )

    def check(self, group: int, rule: Rule, strength: GroupStrength, rate: float | Tensor, step: int) -> None:
        """Refuse a step that would remove a whole weight; warn once where training goes beyond what was told.

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


def _warn(message: str) -> None:
    warnings.warn(message, WeightDecayWarning, stacklevel=3)


def _shared(rule: Rule) -> bool:
    """Whether a rule keeps nothing and looks at nothing but its rate and the update."""
    return not rule.told_more and type(rule).start is Rule.start


class Acting:
    """The rules at one step.

    Args:
        optimizer: the optimizer.
        rules: the rules.
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
        compiled: bool,
        sparse: Sparse,
        rounding: Rounding | None,
        late: bool = False,
    ) -> None:
        self._optimizer, self._rules, self._sparse, self._rounding = optimizer, rules, sparse, rounding
        self._late = late
        self._kept: dict[Tensor, Tensor] = {}  # the weights when the step began, where decay is late
        self._passes = [apply.Pass(rule, compiled, rounding) for rule in rules]
        self._memory = apply.Memory()
        self._gradients: list[tuple[Tensor, Tensor, Tensor]] = []  # the user's, while a penalty is added
        # Rules that wait for the step, and the weights before it, where u is not readable.
        self._waiting: dict[Tensor, tuple[Tensor, list[tuple[Rule, Step]]]] = {}
        self._afterwards: list[Work] = []  # of rules that act after the step
        self.acted = False

    def begin(self) -> None:
        """A step begins; one before it may have failed half way."""
        self.drop()
        self.acted = False

    def keep(self, parameters: Iterable[Tensor]) -> None:
        """Copy the weights before the step moves them, where decay is late: a closure may find them moved."""
        if not all(rule.coupled for rule in self._rules):
            self._kept = {w: self._memory.whole(w, "before").copy_(w) for w in parameters}

    def act(self, work: Sequence[Work]) -> Tensor | float:
        """Decay once a step; add penalties whenever the loss was evaluated, and return their sum."""
        penalty: Tensor | float = 0.0
        if not self.acted:
            self._afterwards = [self._started(one) for one in work if self._rules[one[0]].after]
        for r, own in itertools.groupby(work, key=lambda one: one[0]):
            rule = self._rules[r]
            if rule.coupled or not (self.acted or rule.after):
                penalty = penalty + self._act_by(r, [_with_partners(one) for one in own])
        self.acted = True
        return penalty

    def finish(self) -> None:
        """Do what comes after the step."""
        for w, (before, rules) in self._waiting.items():
            apply.decay_after(w, before, rules, self._memory, self._rounding)
        for r, _, live in self._afterwards:
            apply.decay(self._rules[r], self._passes[r], live)

    def give_back_gradients(self) -> None:
        """Put the user's gradients back in the place of those with a penalty."""
        for parameter, gradient, with_penalty in self._gradients:
            if parameter.grad is with_penalty:  # else the user has made a new one since
                parameter.grad = gradient
        self._gradients.clear()

    def drop(self) -> None:
        """Forget what belongs to one step."""
        self.give_back_gradients()
        self._waiting.clear()
        self._kept.clear()
        self._afterwards.clear()

    def end(self) -> None:
        """Forget everything, memory included."""
        self.drop()
        self._memory = apply.Memory()

    def _started(self, work: Work) -> Work:
        """The same work, told the weights as they are now, before anything has acted."""
        r, group, live = work
        kept = [(w, self._memory.whole(w, "start").copy_(self._kept.get(w, w)), step) for w, step in live]
        return r, group, [(w, replace(step, before=before)) for w, before, step in kept]

    def _act_by(self, r: int, work: Sequence[Work]) -> Tensor | float:
        """Decay by one rule, as far as it is done before the step; return its penalty."""
        rule, once = self._rules[r], self._passes[r]
        penalty: Tensor | float = 0.0
        for _, group, everything in work:
            live, penalised = self._sparse.take(rule, group, everything)
            self._gradients += penalised
            if rule.coupled:
                if isinstance(self._optimizer, optim.LBFGS):
                    penalty = penalty + sum(rule.penalty(seen(w), step) for w, step in live)
                self._gradients += apply.add_penalty(rule, self._optimizer, group, live, self._memory)
            elif not (rule.needs_update or self._late):
                apply.decay(rule, once, live)
            elif not self._late and readable(self._optimizer):
                apply.decay_along(rule, once, self._optimizer, group, live, self._memory)
            else:
                for w, step in live:
                    if w not in self._waiting:
                        before = self._kept.get(w)
                        if before is None:
                            before = self._memory.whole(w, "before").copy_(w)
                        self._waiting[w] = before, []
                    self._waiting[w][1].append((rule, step))
        return penalty


def _with_partners(work: Work) -> Work:
    """The same work with copies of the partners: they may decay themselves before they are looked at."""
    r, group, live = work
    if all(step.partner is None for _, step in live):
        return work
    copies = [None if step.partner is None else step.partner.detach().clone() for _, step in live]
    return r, group, [(w, replace(step, partner=one)) for (w, step), one in zip(live, copies, strict=True)]
