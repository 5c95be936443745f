"""The size of all gradients, as Adam and its kin keep it, of all parameters and all shards."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, optim

from weightdecay.errors import InputError
from weightdecay.hooks.views import seen, total
from weightdecay.rules.layout import is_sharded, laid_like

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
