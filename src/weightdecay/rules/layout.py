"""Tensors that are distributed over processes: told apart, and laid out as a parameter is."""

import sys
from typing import Any

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
