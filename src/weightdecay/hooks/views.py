"""What a rule is shown of a parameter: the shard that is here, complex numbers as pairs."""

import sys
from typing import Any

import torch
from torch import Tensor


def sharded_type() -> Any:
    """The type DTensor; an empty tuple, of which nothing is an instance, where it is not loaded."""
    module = sys.modules.get("torch.distributed.tensor")
    return () if module is None else module.DTensor


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is distributed over a mesh of processes."""
    return isinstance(tensor, sharded_type())


def seen(tensor: Tensor) -> Tensor:
    """The same memory as a plain, real tensor: of a distributed one what is on this rank.

    For rules whose elements depend on themselves alone, and for sums that are reduced afterwards.
    """
    tensor = tensor.detach()
    if is_sharded(tensor):
        tensor = tensor.to_local()  # pyright: ignore[reportAttributeAccessIssue]
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def like(tensor: Tensor, w: Tensor) -> Tensor:
    """A gradient or state, distributed as its parameter is: sums that are still to be made are made."""
    if is_sharded(w) and tensor.placements != w.placements:  # pyright: ignore[reportAttributeAccessIssue]
        return tensor.redistribute(w.device_mesh, w.placements)  # pyright: ignore[reportAttributeAccessIssue]
    return tensor


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
