"""A symbolic look at a model's forward with torch.fx, on a copy of its structure that shares the tensors."""

import copy
import inspect
import io
import random
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import fx, nn

from weightdecay.groups.inventory import peeled
from weightdecay.groups.roles import class_name, is_norm

WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag)


def normalises(module: nn.Module) -> bool:
    """Whether a module divides by the size of what comes in (a frozen normalisation does not)."""
    wrapper = not module.__module__.startswith("torch.nn") and any(
        isinstance(inner, WEIGHTED) for inner in module.modules()
    )
    return is_norm(module) and not wrapper and "frozen" not in class_name(module).lower()


def is_leaf(module: nn.Module) -> bool:
    """What is not looked into: weighted layers, normalisations and torch's own modules but its containers."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    own = module.__module__.startswith(("torch.nn", "torch.ao.nn")) and not isinstance(module, containers)
    return own or isinstance(module, WEIGHTED) or normalises(module)


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True  # or forward would change the model's real buffers in place

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - fx's signature
        return is_leaf(m)


def traced(module: nn.Module, tracer: type[fx.Tracer] = _Tracer) -> fx.Graph | str:
    """The graph of a module's forward, with every argument that has a default at it; or why there is none."""
    try:
        signature = inspect.signature(module.forward)
        empty = inspect.Parameter.empty
        given: dict[str, Any] = {
            name: one.default for name, one in signature.parameters.items() if one.default is not empty
        }
        with _undisturbed():
            return tracer().trace(module, concrete_args=given)
    except Exception as error:  # forward is anybody's code: whatever it raises, it does not trace
        return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def replica(module: nn.Module, made: dict[int, nn.Module] | None = None) -> nn.Module:
    """The same modules once more, without hooks and wrappers, with the very same tensors.

    Forward may set attributes and hooks may keep what they see; on a replica neither reaches the model.
    """
    made = {} if made is None else made
    module = peeled(module)
    if id(module) not in made:
        if isinstance(module, torch.jit.ScriptModule):
            made[id(module)] = module
            return module
        new = made[id(module)] = type(module).__new__(type(module))
        new.__dict__.update({key: _loosened(value) for key, value in module.__dict__.items()})
        hooks = [key for key in new.__dict__ if key.endswith(("_hooks", "_hooks_with_kwargs"))]
        new.__dict__.update({key: OrderedDict() for key in hooks})
        children = {
            key: None if child is None else replica(child, made) for key, child in module._modules.items()
        }
        new.__dict__["_modules"] = children
    return made[id(module)]


def _loosened(value: Any) -> Any:
    return copy.copy(value) if type(value) in (dict, list, set, OrderedDict) else value


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Random generators as before, no warning and nothing printed, whatever a forward does."""
    python, own, numpy = random.getstate(), torch.get_rng_state(), sys.modules.get("numpy")
    legacy = numpy.random.get_state() if numpy else None
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        torch.set_rng_state(own)
        if numpy:
            numpy.random.set_state(legacy)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
