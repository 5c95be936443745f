"""What every rule is told at a step: parameters, rates, sizes; checked before the first tensor changes."""

import warnings
from collections.abc import Iterator
from typing import Any

from torch import Tensor, optim

from weightdecay.errors import WeightDecayWarning
from weightdecay.hooks.apply import Live
from weightdecay.hooks.moments import check_second_moment, mean_second_moment
from weightdecay.hooks.plan import Plan, Target
from weightdecay.hooks.ranks import check_size
from weightdecay.hooks.sparse import Sparse
from weightdecay.hooks.states import States
from weightdecay.hooks.strengths import check_rate
from weightdecay.rules import Rule, Step
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
