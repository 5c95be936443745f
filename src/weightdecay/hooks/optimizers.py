"""Optimizers that bring a decay along, and the options that switch it on."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, optim

from weightdecay.errors import InputError
from weightdecay.rules import L2, Decoupled, Rule
from weightdecay.rules.sharded import is_sharded, laid_like, seen, total

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


_KEEPS = (optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam)
# A parameter with its share of the sum: of the average so far, and of the new gradient's square.
_Share = tuple[Tensor, float, float]


def keeps_second_moment(optimizer: optim.Optimizer) -> bool:
    """Whether the optimizer keeps v; exact types, and the largest v so far is another one."""
    return type(optimizer) in _KEEPS and not any(group.get("amsgrad") for group in optimizer.param_groups)


def mean_second_moment(optimizer: optim.Optimizer) -> float:
    """The mean of v over all parameters with a gradient, as the coming step makes it; 0 without any.

        v_t = b2 v_{t-1} + (1 - b2) g²,   over 1 - b2^t

    Sums over shards are added, so the layout of the parameters does not change it.
    """
    alike: dict[Any, list[tuple[Tensor, float]]] = {}  # distributed in the same way: one sum over ranks each
    count = 0
    for group in optimizer.param_groups:
        for w in group["params"]:
            if w.grad is not None:
                key = (w.device_mesh, w.placements) if is_sharded(w) else w.device
                alike.setdefault(key, []).append((w, float(group["betas"][1])))
                count += w.numel() * (2 if w.is_complex() else 1)
    if not count:
        return 0.0
    shares = [_shares(optimizer, same) for same in alike.values()]
    return sum(float(total(_sum(optimizer, own), own[0][0])) for own in shares) / count


def _shares(optimizer: optim.Optimizer, same: Sequence[tuple[Tensor, float]]) -> list[_Share]:
    """What v so far and the new gradient's square count for, of each parameter."""
    scale = getattr(optimizer, "grad_scale", None)  # fused optimizers divide by it inside the step
    unscaled = 1.0 if scale is None else float(scale) ** 2
    known = [optimizer.state.get(w, {}).get("step", 0.0) for w, _ in same]
    if tensors := [seen(step) for step in known if isinstance(step, Tensor)]:  # one wait for all of them
        taken = iter(torch.stack(tensors).tolist())
        known = [next(taken) if isinstance(step, Tensor) else step for step in known]
    shares = []
    for (w, b2), steps in zip(same, known, strict=True):
        corrected = 1 - b2 ** (steps + 1)
        shares.append((w, b2 / corrected, (1 - b2) / corrected / unscaled))
    return shares


def _sum(optimizer: optim.Optimizer, shares: Sequence[_Share]) -> Tensor:
    """The sum of v over what is here of some parameters, in float32 or wider."""
    device = seen(shares[0][0]).device
    gradients = [seen(laid_like(w.grad, w)) for w, *_ in shares if w.grad is not None]
    result = torch.stack([_square(one) for one in gradients]) @ _numbers([new for *_, new in shares], device)
    kept = [(optimizer.state.get(w, {}).get("exp_avg_sq"), w, share) for w, share, _ in shares]
    old = [(seen(laid_like(v, w)), share) for v, w, share in kept if v is not None]
    if old:  # v is positive
        sums = torch.stack([v.sum(dtype=_wide(v)).double() for v, _ in old])
        result = result + sums @ _numbers([share for _, share in old], device)
    return result


def _square(one: Tensor) -> Tensor:
    """The sum of squares; a dot product is several times as fast as a norm."""
    flat = one.to(_wide(one)).reshape(-1)
    return torch.dot(flat, flat).double()


def _wide(one: Tensor) -> torch.dtype:
    return torch.promote_types(one.dtype, torch.float32)


def _numbers(values: list[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=device)


def check_second_moment(size: float, rate: float | Tensor, name: str, step: int) -> None:
    """Refuse a step that removes a whole weight.

    Raises:
        InputError: gradients are so small that the rate is 1 or more.
    """
    removed = float(rate) / size**0.5 if size > 0 else 0.0
    if removed >= 1:
        raise InputError(
            "a step would remove the whole weight or more",
            f"lr·weight_decay/sqrt(mean of v) of {name}",
            f"{removed:g} at step {step}",
            "lower lr or the strength: it is in units of a gradient",
        )


def inside(optimizer: optim.Optimizer) -> list[optim.Optimizer]:
    """The optimizers that one holds and drives, such as the base optimizer of sharpness-aware ones."""
    found: list[optim.Optimizer] = []
    todo: list[Any] = list(vars(optimizer).values())
    while todo:
        one = todo.pop(0)
        if isinstance(one, list | tuple) and len(one) < 100:
            todo += [each for each in one if isinstance(each, optim.Optimizer)]
        elif isinstance(one, optim.Optimizer) and one is not optimizer and one not in found:
            found.append(one)
            todo += vars(one).values()
    return found
