"""What rules keep, by parameter name; never in the optimizer's own state."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.hooks.plan import Target
from weightdecay.rules import Rule


class States:
    """One dictionary of tensors for each parameter and rule."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._by_name: dict[str, list[dict[str, Tensor]]] = {}

    def add(self, targets: Iterable[Target]) -> None:
        """Start the state of the parameters that have none yet.

        Raises:
            InputError: a rule cannot start, say because its point has another shape.
        """
        started = {
            target.name: [rule.start(target.parameter, target.name) for rule in self._rules]
            for target in targets
            if target.name not in self._by_name
        }
        self._by_name.update(started)

    def of(self, target: Target, rule: int) -> dict[str, Tensor]:
        """The state of a parameter for one of the rules."""
        return self._by_name[target.name][rule]

    def to_dict(self) -> dict[str, list[dict[str, Tensor]]]:
        """The tensors themselves, not copies, as in torch's own state dicts."""
        return {name: [dict(state) for state in states] for name, states in self._by_name.items()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take over saved tensors; all are checked before the first is copied.

        Raises:
            InputError: another set of parameters, a tensor that is missing or has another shape.
        """
        for name in sorted(set(saved) ^ set(self._by_name)):
            side = "the saved state" if name in saved else "the optimizer"
            raise InputError(
                "the parameters have changed their names",
                "state_dict",
                name,
                f"only {side} has it; rename it, or go on without the state",
            )
        pairs = []
        for name, states in self._by_name.items():
            if len(saved[name]) != len(states):
                raise InputError(
                    "a state for another number of rules", name, len(saved[name]), f"{len(states)}"
                )
            for mine, theirs in zip(states, saved[name], strict=True):
                for key, tensor in mine.items():
                    found = theirs.get(key)
                    if found is None or found.shape != tensor.shape:
                        raise InputError(
                            "a saved tensor does not fit",
                            f"{key} of {name}",
                            None if found is None else tuple(found.shape),
                            f"{tuple(tensor.shape)} is needed",
                        )
                    pairs.append((tensor, found))
        for tensor, found in pairs:
            tensor.copy_(found)
