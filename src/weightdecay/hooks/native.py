"""Optimizers that bring a decay along, and the options that switch it on."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from torch import optim

from weightdecay.errors import InputError
from weightdecay.rules import L2, Decoupled, Rule

_WITH_FLAG = (optim.Adam, optim.NAdam, optim.RAdam)
_COUPLED_ONLY = (optim.SGD, optim.Adagrad, optim.RMSprop, optim.Adadelta, optim.Adamax, optim.ASGD)
_DECOUPLED_ONLY = (optim.AdamW, optim.Adafactor, optim.Muon)
# What a rule calls its native form, and the exact type (a subclass may have changed its step).
_NATIVE: dict[tuple[str | None, type], Mapping[str, Any]] = {
    **{("coupled", kind): {"decoupled_weight_decay": False} for kind in _WITH_FLAG},
    **{("decoupled", kind): {"decoupled_weight_decay": True} for kind in _WITH_FLAG},
    **{("coupled", kind): {} for kind in _COUPLED_ONLY},
    **{("decoupled", kind): {} for kind in _DECOUPLED_ONLY},
}
_PLAIN = tuple((kind.decayed, kind.decay_, kind.gradient) for kind in (Rule, L2))
_SCHEDULE_FREE = ("AdamWScheduleFree", "RAdamScheduleFree")


def is_schedule_free(optimizer: optim.Optimizer) -> bool:
    """Whether the weights an optimizer holds are a blend of two sequences."""
    return type(optimizer).__module__.startswith("schedulefree")


def has_own_step(optimizer: optim.Optimizer) -> bool:
    """Whether `step` is the class's: on an instance, schedulers wrap it and call that."""
    step = vars(optimizer).get("step")
    return step is None or hasattr(step, "_wrapped_by_lr_sched")


def native_options(optimizer: optim.Optimizer, rule: Rule) -> Mapping[str, Any] | None:
    """The options beside `weight_decay` with which an optimizer does the rule itself; None if it cannot.

    >>> import torch
    >>> from weightdecay.rules import L2, Decoupled
    >>> adam = torch.optim.Adam([torch.zeros(1)])
    >>> native_options(adam, Decoupled(0.1))
    {'decoupled_weight_decay': True}
    >>> native_options(torch.optim.SGD([torch.zeros(1)]), Decoupled(0.1)) is None
    True
    """
    if (type(rule).decayed, type(rule).decay_, type(rule).gradient) not in _PLAIN:
        return None  # a subclass that does something else
    kind = type(optimizer)
    if not has_own_step(optimizer):
        return None  # what was put in its place may not know the option
    # Their decay follows a learning rate of their own, so only the plain rule is theirs.
    if is_schedule_free(optimizer):
        return {} if kind.__name__ in _SCHEDULE_FREE and type(rule) is Decoupled else None
    return _NATIVE.get((rule.native, kind))


def is_adaptive(optimizer: optim.Optimizer, group: Mapping[str, Any]) -> bool:
    """Whether an optimizer divides its gradient by a running size, so that coupled decay has no rate."""
    known = (optim.Adagrad, optim.RMSprop, optim.Adadelta, optim.Adafactor, optim.Muon, optim.Rprop)
    return isinstance(optimizer, known) or "betas" in group


def momentum_of(optimizer: optim.Optimizer, group: Mapping[str, Any]) -> dict[str, Any] | None:
    """Momentum, dampening and nesterov of torch's SGD; None for any other optimizer."""
    if type(optimizer) is not optim.SGD:
        return None
    return {name: group[name] for name in ("momentum", "dampening", "nesterov")}


class Native:
    """The options of an optimizer that were set for it, and what they were before."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._before: dict[int, dict[str, Any]] = {}
        self._last: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}  # the groups, and what was set

    def set(self, group: int, options: Mapping[str, Any]) -> None:
        """Set options of a parameter group; by position, since loading a state makes new groups."""
        own = self._optimizer.param_groups[group]
        if group not in self._before:
            self._before[group] = {key: own[key] for key in options}
        own.update(options)
        self._last[group] = own, dict(options)

    def check(self) -> None:
        """Refuse an option that somebody has set since, other than by loading a state.

        Raises:
            InputError: the value would be lost: a rule sets it at every step.
        """
        for i, (group, options) in self._last.items():
            if i >= len(self._optimizer.param_groups) or group is not self._optimizer.param_groups[i]:
                continue
            for key, value in options.items():
                if group.get(key) is not value and group.get(key) != value:
                    raise InputError(
                        "the attached rule sets this option, and another value was assigned",
                        f"{key} of parameter group {i}",
                        group.get(key),
                        "use wd.WeightDecayScheduler or the decay's `factor`, or detach it",
                    )

    def put_back(self, keep: Container[int] = ()) -> None:
        """Put back what was before, except in the groups to keep."""
        for group in [group for group in self._before if group not in keep]:
            self._optimizer.param_groups[group].update(self._before.pop(group))
            self._last.pop(group, None)

    def without(self, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Copies of parameter groups, with what was before."""
        return [{**group, **self._before.get(i, {})} for i, group in enumerate(groups)]
