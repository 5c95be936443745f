"""What a rule is shown of a parameter: the shard that is here, complex numbers as pairs."""

from typing import Any

import torch
from torch import Tensor

from weightdecay.rules.layout import is_sharded


def seen(tensor: Tensor) -> Tensor:
    """The same memory as a plain, real tensor: of a distributed one what is on this rank.

    For rules whose elements depend on themselves alone, and for sums that are reduced afterwards.
    """
    tensor = tensor.detach()
    if type(tensor) is Tensor and not tensor.is_complex():  # what nearly all are
        return tensor
    if is_sharded(tensor):
        tensor = tensor.to_local()  # pyright: ignore[reportAttributeAccessIssue]
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def shard_of(w: Tensor) -> tuple[int, ...]:
    """Which shard of a parameter is here; copies of one shard have the same answer."""
    if not is_sharded(w):
        return ()
    mesh: Any = w.device_mesh  # pyright: ignore[reportAttributeAccessIssue]
    at = mesh.get_coordinate() or ()
    placements: Any = w.placements  # pyright: ignore[reportAttributeAccessIssue]
    return tuple(i for i, placement in zip(at, placements, strict=False) if placement.is_shard())


def total(values: Tensor, w: Tensor) -> Tensor:
    """Sums over the shard that is here, added over all shards of a parameter distributed as w is."""
    if not is_sharded(w):
        return values
    from torch.distributed.tensor import DTensor, Partial, Replicate

    placements = [Partial() if p.is_shard() else Replicate() for p in w.placements]  # pyright: ignore[reportAttributeAccessIssue]
    mesh = w.device_mesh  # pyright: ignore[reportAttributeAccessIssue]
    return DTensor.from_local(values, mesh, placements, run_check=False).full_tensor()
