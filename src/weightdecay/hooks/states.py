"""What rules keep, by parameter name; never in the optimizer's own state."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.hooks.plan import Target
from weightdecay.rules import Rule
from weightdecay.rules.layout import laid_like


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
