"""Tensors that are distributed over processes: told apart, and laid out as a parameter is."""

import sys
from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is distributed over a mesh of processes."""
    module = sys.modules.get("torch.distributed.tensor")  # not loaded: nothing can be
    return module is not None and isinstance(tensor, module.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a distributed tensor, on every rank; sums that are still to be made are made."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def laid_like(tensor: Tensor, w: Any) -> Tensor:
    """The same numbers laid out as w is: a whole tensor cut, every rank having all of it; shards joined."""
    if not is_sharded(w):
        return whole(tensor)
    if is_sharded(tensor):
        alike = (tensor.device_mesh, tensor.placements) == (w.device_mesh, w.placements)  # pyright: ignore[reportAttributeAccessIssue]
        return tensor if alike else tensor.redistribute(w.device_mesh, w.placements)  # pyright: ignore[reportAttributeAccessIssue]
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, w.device_mesh, w.placements, src_data_rank=None)


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
