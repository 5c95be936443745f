"""A rule on stacked parameters: a strength for every copy, and the order of `weightdecay.hooks`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.optim import Optimizer

from weightdecay.hooks.update import direction, readable
from weightdecay.rules import Rule, Step
from weightdecay.sweeps.settings import Settings

# The leading axes of a stacked parameter: seeds and strengths.
AXES = 2


@dataclass(frozen=True)
class _Target:
    """A stacked parameter that decays."""

    name: str
    parameter: nn.Parameter
    group: int
    scale: float


class StackedDecay:
    """What happens around a step of the optimizer that holds the stacked parameters.

    The optimizer's own decay is one number for all copies, so none is lowered to it: before the step comes
    every rule that does not look at the update, or whose update the optimizer's state tells; after it the
    others.

    Args:
        settings: the chunk.
        strengths: which of the chunk's strengths these copies have, by position.
        optimizer: over the stacked parameters, as many groups as the user's.
        parameters: (S, L, ...) by name.
    """

    def __init__(
        self,
        settings: Settings,
        strengths: range,
        optimizer: Optimizer,
        parameters: Mapping[str, nn.Parameter],
    ) -> None:
        self._strong = [settings.strong[i] for i in strengths]
        self._rules, self._optimizer = self._strong[0].rules, optimizer
        self._order = sorted(range(len(self._rules)), key=lambda r: self._rules[r].needs_update)
        plan = self._strong[0].plan
        self._targets = [
            _Target(target.name, parameters[target.name], group, target.scale)
            for group, targets in enumerate(plan.targets)
            for target in targets
        ]
        self.states = [[_started(rule, target) for target in self._targets] for rule in self._rules]
        self._told: dict[Any, Any] = {}
        self._waiting: list[tuple[Tensor, Tensor, list[tuple[Rule, Step]]]] = []

    @torch.no_grad()
    def before(self, step: int) -> None:
        """What is to be done before the optimizer's step, gradients made and clipped."""
        waiting: dict[int, tuple[Tensor, Tensor, list[tuple[Rule, Step]]]] = {}
        for r in self._order:
            rule = self._rules[r]
            for i, target in enumerate(self._targets):
                w = target.parameter
                if w.grad is None:
                    continue
                told = self._step(r, target, step, self.states[r][i])
                if rule.coupled:
                    sign = -1 if self._optimizer.param_groups[target.group].get("maximize") else 1
                    w.grad = _gradient(rule, w.grad, w, told, sign)
                elif not rule.needs_update:
                    _decay(rule, w, told)
                elif readable(self._optimizer):
                    _decay(rule, w, told, self._direction(target))
                else:
                    kept = waiting.setdefault(i, (w, w.detach().clone(), []))
                    kept[2].append((rule, told))
        self._waiting = list(waiting.values())

    @torch.no_grad()
    def after(self) -> None:
        """What is to be done after it: rules whose update is the difference that the step made."""
        for w, before, rules in self._waiting:
            decayed, update = before.clone(), before - w
            for rule, told in rules:
                _decay(rule, decayed, told, update.clone())
            w.add_(decayed.sub_(before))
        self._waiting = []

    def _direction(self, target: _Target) -> Tensor:
        found = direction(self._optimizer, self._optimizer.param_groups[target.group], target.parameter)
        return found.into(torch.empty_like(target.parameter), *found.tensors)

    def _step(self, r: int, target: _Target, step: int, state: dict[str, Tensor]) -> Step:
        """Rate and strength of every copy, in the parameter's type, to be broadcast over it."""
        lr = self._optimizer.param_groups[target.group]["lr"]
        varies = callable(self._rules[r].weight_decay)
        key = r, target.group, target.scale, target.parameter.ndim, target.parameter.dtype
        kept = self._told.get(key)
        if kept is None or kept[0] != lr or varies:
            kept = self._told[key] = (lr, *self._numbers(r, target, step, lr))
        return Step(kept[1], kept[2], state=state)

    def _numbers(self, r: int, target: _Target, step: int, lr: float) -> Iterator[Tensor]:
        strengths = [one.plan.strength(r, target.group) for one in self._strong]
        numbers = [float(strength.at(step)) for strength in strengths]
        at = torch.tensor(numbers, dtype=torch.float64, device="cpu")
        rate = strengths[0].rate(at, lr)
        w = target.parameter
        shape = (1, len(at), *(1,) * (w.ndim - AXES))
        for value in (rate, at):
            yield torch.as_tensor(value * target.scale, device="cpu").to(w).view(shape)


def _started(rule: Rule, target: _Target) -> dict[str, Tensor]:
    """The state of a rule for every copy (S, L, ...): all strengths of a seed start at the same weights."""
    copies = target.parameter.detach()
    by_seed = [rule.start(copies[s, 0].clone(), target.name) for s in range(len(copies))]
    strengths = copies.shape[1]
    return {
        key: torch.stack(
            [state[key].unsqueeze(0).expand(strengths, *state[key].shape) for state in by_seed]
        ).clone()
        for key in by_seed[0]
    }


def apply_to_copies(rule: Rule, w: Tensor, step: Step) -> Tensor:
    """A rule on stacked weights, coupled or not; for its trial."""
    if rule.coupled:
        assert step.update is not None
        return _gradient(rule, step.update, w, step, 1)
    _decay(rule, w, step, step.update if rule.needs_update else None)
    return w


def _decay(rule: Rule, w: Tensor, step: Step, update: Tensor | None = None) -> None:
    """Decay every copy in place."""
    assert isinstance(step.rate, Tensor)
    if (type(rule).decayed, type(rule).decay_) == (Rule.decayed, Rule.decay_):
        w.mul_(1 - step.rate)
    elif rule.elementwise:
        rule.decay_(w, Step(step.rate, step.weight_decay, update, step.state))
    else:
        _each(lambda one, told: (rule.decay_(one, told), one)[1], w, step, update)


def _gradient(rule: Rule, gradient: Tensor, w: Tensor, step: Step, sign: int) -> Tensor:
    """The gradient of every copy with the penalty's share."""
    told = Step(step.rate, step.weight_decay * sign, state=step.state)
    if rule.elementwise:
        return rule.gradient(gradient, w, told)
    return _each(lambda one, told: rule.gradient(told.update, one, told), w, told, gradient)


def _each(function: Any, w: Tensor, step: Step, beside: Tensor | None) -> Tensor:
    """A function of (weight, step) for each copy by itself."""
    seeds = len(w)
    rate, strength = (
        value.reshape(1, -1).expand(seeds, -1).reshape(-1)
        for value in (step.rate, step.weight_decay)
        if isinstance(value, Tensor)
    )
    beside = torch.zeros_like(w) if beside is None else beside
    flat = [tensor.detach().flatten(0, 1) for tensor in (w, beside, *step.state.values())]

    def one(rate: Tensor, strength: Tensor, w: Tensor, beside: Tensor, *state: Tensor) -> Tensor:
        told = Step(rate, strength, beside, dict(zip(step.state, state, strict=True)))
        return function(w, told)

    return vmap(one)(rate, strength, *flat).unflatten(0, w.shape[:AXES])
