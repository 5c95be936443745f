"""A small twin of an optimizer: all that it holds, copied, each tensor cut to its first elements."""

import copy
import functools
import logging
import random
import types
import warnings
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from weightdecay.hooks.views import seen

# Shared by the twin and its original: nothing in them changes.
_SHARED = (
    *(bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, torch.Size),
    *(types.BuiltinFunctionType, types.ModuleType, logging.Logger, slice, range),
)
_NARROW = (torch.bfloat16, torch.float16)


class NoTwin(Exception):
    """Something in an optimizer cannot be copied; the text says what."""


@contextmanager
def untouched(gpus: Sequence[int] = ()) -> Iterator[None]:
    """Random numbers drawn inside, by whom ever, do not change those drawn outside; no global hook runs."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002  (an optimizer may use it)
    everywhere: list[Any] = [_global_optimizer_pre_hooks, _global_optimizer_post_hooks]
    kept = [dict(hooks) for hooks in everywhere]
    try:
        for hooks in everywhere:
            hooks.clear()
        elsewhere = torch.get_default_device().type != "cpu"
        on_cpu = torch.device("cpu") if elsewhere else nullcontext()
        with (
            on_cpu,
            torch.random.fork_rng(devices=list(gpus)),
            warnings.catch_warnings(),
            torch.enable_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        for hooks, own in zip(everywhere, kept, strict=True):
            hooks.update(own)


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


class Twin:
    """A copy of an optimizer that shares no tensor with it.

    Every tensor is cut to its first elements in each dimension: a master copy of a parameter stays one.

    Args:
        optimizer: the original; it is only read.
        side: how many elements of each dimension are kept; None keeps all.

    Attributes:
        optimizer: the copy, of the same class, without hooks.

    Raises:
        NoTwin: it holds something that cannot be copied, such as a lock.
    """

    def __init__(self, optimizer: optim.Optimizer, side: int | None) -> None:
        self._side = side
        self._copies: dict[int, Any] = {}
        self._originals: list[Any] = []  # kept alive, so that no other object takes their ids
        self.optimizer: optim.Optimizer = self._of(optimizer)

    def parameter(self, original: Tensor) -> Tensor:
        """The copy of a parameter."""
        return self._copies[id(original)]

    def optimizers(self) -> list[optim.Optimizer]:
        """The copy, and those inside it."""
        return [self.optimizer, *inside(self.optimizer)]

    def _of(self, value: Any) -> Any:
        """The copy of whatever an optimizer holds."""
        if isinstance(value, _SHARED):
            return value
        if id(value) not in self._copies:
            self._originals.append(value)
            made = self._made(value)
            self._copies.setdefault(id(value), made)
        return self._copies[id(value)]

    def _started(self, value: Any, made: Any) -> Any:
        """Remember a copy before it is filled: it may hold itself."""
        self._copies[id(value)] = made
        return made

    def _made(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._corner(value)
        if isinstance(value, dict):
            made = self._started(value, _emptied(value))
            for key, one in list(value.items()):
                made[self._of(key)] = self._of(one)
            return made
        if isinstance(value, list | deque):
            made = self._started(value, _emptied(value))
            made.extend([self._of(one) for one in value])
            return made
        if isinstance(value, set):
            made = self._started(value, _emptied(value))
            made.update([self._of(one) for one in value])
            return made
        if isinstance(value, tuple):
            parts = [self._of(one) for one in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        return self._made_callable(value)

    def _made_callable(self, value: Any) -> Any:
        if isinstance(value, types.MethodType):
            return types.MethodType(self._of(value.__func__), self._of(value.__self__))
        if isinstance(value, functools.partial):
            parts = self._of(value.func), self._of(value.args), self._of(value.keywords)
            return functools.partial(parts[0], *parts[1], **parts[2])
        if isinstance(value, weakref.ref):
            target = value()
            return value if target is None else weakref.ref(self._of(target))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, torch.Generator):
            return torch.Generator(value.device).set_state(value.get_state())
        return self._object(value)

    def _function(self, value: types.FunctionType) -> Any:
        """A function whose closure may hold the optimizer or its tensors."""
        if not value.__closure__:
            return value
        cells = tuple(types.CellType() for _ in value.__closure__)
        made = types.FunctionType(
            value.__code__, value.__globals__, value.__name__, value.__defaults__, cells
        )
        self._started(value, made)
        made.__kwdefaults__ = value.__kwdefaults__
        for cell, own in zip(value.__closure__, cells, strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not bound yet
                continue
            own.cell_contents = self._of(content)
        vars(made).update({key: self._of(one) for key, one in vars(value).items()})
        return made

    def _object(self, value: Any) -> Any:
        kind: Any = type(value)
        if not hasattr(value, "__dict__"):
            try:
                return copy.deepcopy(value)
            except Exception as error:
                raise NoTwin(f"it holds a {kind.__name__}, which cannot be copied") from error
        try:
            made = self._started(value, kind.__new__(kind))
        except TypeError as error:
            raise NoTwin(f"it holds a {kind.__name__}, which cannot be copied") from error
        for key, one in vars(value).items():
            if isinstance(value, optim.Optimizer) and key.startswith("_optimizer_") and "hooks" in key:
                vars(made)[key] = type(one)()  # hooks are the original's
            elif not hasattr(one, "_wrapped_by_lr_sched") and not _is_ours(one):  # they lead to the original
                vars(made)[key] = self._of(one)
        return made

    def _corner(self, value: Tensor) -> Tensor:
        """The first elements of a tensor, here; 16 bits are too narrow for a trial."""
        here = value.detach()
        if type(here) is not Tensor and not isinstance(here, nn.Parameter):
            here = seen(here) if not value.is_complex() else here
        if here.layout == torch.strided and self._side is not None:
            here = here[tuple(slice(0, self._side) for _ in here.shape)]
        here = here.to(torch.float32) if here.dtype in _NARROW else here.clone()
        if isinstance(value, nn.Parameter):
            return nn.Parameter(here, requires_grad=value.requires_grad)
        return here.requires_grad_(value.requires_grad and value.is_leaf)


def _is_ours(value: Any) -> bool:
    """Whether an attached rule has set it."""
    return callable(value) and str(getattr(value, "__module__", "")).startswith("weightdecay.")


def _emptied(value: Any) -> Any:
    made = copy.copy(value)
    made.clear()
    return made
