"""A device that is not there: tensors on it live on the CPU, and it refuses what a GPU refuses.

A tensor elsewhere beside one on the CPU (numbers, indices and copies apart), and NumPy. What it does not
have: kernels, generators and graphs of its own, so nothing about speed or rounding follows from it.
"""

from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
aten = torch.ops.aten
_COPIES = {aten.copy_.default, aten._to_copy.default}
_INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class Pretended(Tensor):
    """A tensor there, whose numbers are in `inner`."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        own = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        own.inner = inner
        return own

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _call(function, args, kwargs or {})

    # What torch does below the dispatcher, where it cannot be seen.

    def __repr__(self, **_):
        return f"Pretended({self.inner})"

    def __getitem__(self, place):
        return super().__getitem__(_as_tensors(place))

    def tolist(self):
        return self.cpu().tolist()

    def new_tensor(self, data, *, dtype=None):
        return torch.tensor(data, dtype=dtype or self.dtype).to(self.device)


@contextmanager
def pretending():
    """Have the device, in a process of its own: from then on torch takes it for an accelerator."""
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME)
    with _Dispatching(), _Making():
        yield


class _Making(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = function is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == NAME
        return function(*args, **{**kwargs, "device": "cpu"}).to(NAME) if there else function(*args, **kwargs)


class _Dispatching(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _call(function, args, kwargs or {})


def _call(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(tensor, Pretended) for tensor in tensors)
    first = args[0] if args else None
    if there and function not in _COPIES:
        _refuse_mixtures(function, tensors, first)
    if (device := kwargs.get("device")) is not None:
        there = torch.device(device).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu"), "pin_memory": False}
        kwargs = {k: v for k, v in kwargs.items() if k in {one.name for one in function._schema.arguments}}
    elif function is aten.copy_.default:
        there = isinstance(first, Pretended)
    known = {id(_inner(tensor)): tensor for tensor in tensors}  # what is changed in place stays itself
    found = function(*pytree.tree_map(_inner, args), **pytree.tree_map(_inner, kwargs))

    def outer(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or id(leaf) in known:
            return known.get(id(leaf), leaf)
        return Pretended(leaf) if there else leaf

    return pytree.tree_map(outer, found)


def _refuse_mixtures(function: Any, tensors: list[Tensor], first: Any) -> None:
    """An index may be on the CPU, and a number; what is written may not."""
    if function in _INDEXING:
        here = not isinstance(first, Pretended)
    else:
        here = any(tensor.ndim and not isinstance(tensor, Pretended) for tensor in tensors)
        here |= function._schema.is_mutable and isinstance(first, Tensor) and not isinstance(first, Pretended)
    if here:
        found = ", ".join(f"{tensor.device} {tuple(tensor.shape)}" for tensor in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device: {function}: {found}")


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, Pretended) else leaf


def _as_tensors(place: Any) -> Any:
    if isinstance(place, tuple):
        return tuple(map(_as_tensors, place))
    return torch.tensor(place) if isinstance(place, list) else place
