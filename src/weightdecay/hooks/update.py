"""The direction of an update that has not happened yet, where the optimizer's state tells it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, optim

from weightdecay.hooks.native import has_own_step
from weightdecay.rules.layout import laid_like

# A million elements, 4 MB: smaller pieces are slower on two threads, which each operation wakes; larger ones
# are no faster and take more scratch memory.
PIECE = 1 << 20


@dataclass(frozen=True)
class Direction:
    """u up to a positive factor: gradient and momentum, added with weights.

    Args:
        gradient: g.
        momentum: the running average m before the step; None before the first.
        share: what g counts beside m, sign included.
    """

    gradient: Tensor
    momentum: Tensor | None
    share: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What is read, element by element."""
        return (self.gradient,) if self.momentum is None else (self.gradient, self.momentum)

    def into(self, out: Tensor, gradient: Tensor, momentum: Tensor | None = None) -> Tensor:
        """Write u for one piece of the tensors into `out`."""
        if momentum is None:
            return torch.mul(gradient, self.share, out=out)
        return torch.add(momentum, gradient, alpha=self.share, out=out)


def readable(optimizer: optim.Optimizer) -> bool:
    """Whether `direction` knows this optimizer; exact types, since a subclass may have changed its step."""
    return type(optimizer) in (optim.SGD, optim.Adam, optim.AdamW) and has_own_step(optimizer)


def direction(optimizer: optim.Optimizer, group: Mapping[str, Any], parameter: Tensor) -> Direction:
    """The direction in which the coming step moves a parameter, taken from gradient and state.

    Adam divides by something positive, so the sign of its update is that of its new average
    b1 m + (1 - b1) g; SGD's is mu m + (1 - d) g, with Nesterov g + mu (mu m + (1 - d) g).
    """
    assert parameter.grad is not None
    gradient, state = laid_like(parameter.grad, parameter), optimizer.state.get(parameter, {})
    # A fused optimizer under a gradient scaler undoes the scale itself, inside the step.
    scale = getattr(optimizer, "grad_scale", None)
    sign = (-1.0 if group.get("maximize") else 1.0) / (1.0 if scale is None else float(scale))
    if type(optimizer) is optim.SGD:
        buffer, mu = state.get("momentum_buffer"), float(group["momentum"])
        keep, new = mu, 1 - float(group["dampening"])
        if group["nesterov"]:
            keep, new = mu * mu, 1 + mu * new
    else:
        buffer, keep = state.get("exp_avg"), float(group["betas"][0])
        new = 1 - keep
    if buffer is None or keep == 0:
        return Direction(gradient, None, sign)
    return Direction(gradient, buffer, sign * new / keep)


def pieces(*tensors: Tensor, size: int = PIECE) -> Iterator[tuple[Tensor, ...]]:
    """The same stretch of several tensors, one stretch after another, as flat views.

    Pieces bound the memory that intermediate results take; on other devices tensors come whole.
    Tensors that cannot be viewed flat, or are not all of one shape, come whole.
    """
    first = tensors[0]
    if not all(tensor.is_contiguous() and tensor.shape == first.shape for tensor in tensors):
        yield tuple(tensor.detach() for tensor in tensors)
        return
    flat = [tensor.detach().view(-1) for tensor in tensors]
    if first.device.type != "cpu" or first.numel() <= size:
        yield tuple(flat)
    else:
        yield from zip(*(tensor.split(size) for tensor in flat), strict=True)
