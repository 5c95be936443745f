"""Which weights are followed by a normalisation: from the order of nn.Sequential and from torch.fx.

Nothing runs on data and nothing in the model changes: torch.fx traces a copy of the modules' structure that
shares the tensors.
"""

import copy
import inspect
import io
import operator
import random
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from weightdecay.arguments import class_name

Verdicts = dict[int, set[bool | None]]


@dataclass(frozen=True)
class Following:
    """Identities of the weights that are followed by a normalisation, and of those where nobody can tell."""

    yes: frozenset[int] = frozenset()
    unknown: frozenset[int] = frozenset()
    problem: str = ""

    def why(self, parameter: Tensor) -> str:
        """The word for one parameter."""
        if id(parameter) in self.yes:
            return "followed by a normalisation"
        if id(parameter) in self.unknown:
            return "no normalisation seen behind it, but the model does not trace"
        return "not followed by a normalisation"


def followed_by_norm(model: nn.Module) -> Following:
    """Find the weights whose layers' outputs go to normalisations and nowhere else.

    Between layer and normalisation there may be what a positive factor passes through: identity, dropout,
    reshapes, products, ReLU, pooling. A model that torch.fx cannot trace is read part by part, and
    nn.Sequential by its order. A weight that is used in several places has to be followed by a normalisation
    in all of them.
    """
    verdicts: Verdicts = {}
    problem = _judge(replica(model), verdicts, whole=True)
    return Following(
        yes=frozenset(key for key, fates in verdicts.items() if fates == {True}),
        unknown=frozenset(key for key, fates in verdicts.items() if None in fates and False not in fates),
        problem=problem,
    )


def _judge(module: nn.Module, verdicts: Verdicts, whole: bool) -> str:
    """Record what is known of each weight inside a module; return why the module does not trace, if so."""
    if is_leaf(module):
        # What torch's own blocks hold is not followed by a normalisation: there a residual comes between.
        _record(module, verdicts, False if whole or not isinstance(module, WEIGHTED) else None)
        return ""
    graph = traced(module)
    if isinstance(graph, fx.Graph):
        _read(module, graph, verdicts, whole)
        return ""
    children = module.children()
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        children = _chain(module, verdicts, whole)
    for child in children:
        _judge(child, verdicts, whole=False)
    return graph


def _record(module: nn.Module, verdicts: Verdicts, *fates: bool | None) -> None:
    for layer in module.modules():
        if isinstance(layer, WEIGHTED):
            for weight in _weights(layer):
                verdicts.setdefault(id(weight), set()).update(fates)


def _weights(layer: nn.Module) -> Iterator[Tensor]:
    """The layer's weight, or what a parametrisation, pruning or weight_norm makes it from."""
    held = dict(layer._parameters)
    made = getattr(layer, "parametrizations", None)
    if isinstance(made, nn.ModuleDict) and "weight" in made:
        originals = dict(made["weight"]._parameters)
        several = "original1" in originals
        held = {"weight": originals.get("original1" if several else "original")}
    for name in ("weight", "weight_v", "weight_orig"):
        weight = held.get(name)
        if weight is not None:
            yield weight


def _read(root: nn.Module, graph: fx.Graph, verdicts: Verdicts, whole: bool) -> None:
    """What a trace says of each weight; out of the whole model is elsewhere, out of a part is unknown."""
    here: Verdicts = {}
    seen: set[int] = set()
    for node in graph.nodes:
        if node.op == "call_module":
            layer = root.get_submodule(str(node.target))
            if isinstance(layer, WEIGHTED):
                seen.add(id(layer))
                _record(layer, here, *fate(node, root))
        elif node.op == "get_attr":
            path, _, attribute = str(node.target).rpartition(".")
            owner = root.get_submodule(path)
            weight = getattr(owner, attribute, None)
            if isinstance(weight, nn.Parameter) and weight.ndim >= 2:
                seen.add(id(owner))
                here.setdefault(id(weight), set()).update(fate(node, root, weight=True))
    for layer in root.modules():  # unused, or inside one of torch's own blocks
        if isinstance(layer, WEIGHTED) and id(layer) not in seen:
            _record(layer, here, False)
    for key, fates in here.items():
        verdicts.setdefault(key, set()).update(False if whole and f is None else f for f in fates)


def _chain(sequential: nn.Sequential, verdicts: Verdicts, whole: bool) -> Iterable[nn.Module]:
    """Judge the weighted layers of a Sequential by what comes next; return its other children."""
    steps = list(_flat(sequential))
    for position, step in enumerate(steps):
        if isinstance(step, WEIGHTED):
            behind = (later for later in steps[position + 1 :] if not keeps_scale(later))
            after = next(behind, None)
            if after is None:
                _record(step, verdicts, False if whole else None)
            else:
                _record(step, verdicts, normalises(after))
    return [step for step in steps if not isinstance(step, WEIGHTED)]


def _flat(sequential: nn.Sequential) -> Iterator[nn.Module]:
    for child in sequential:
        if isinstance(child, nn.Sequential) and type(child).forward is nn.Sequential.forward:
            yield from _flat(child)
        else:
            yield child


_KEEPING_MODULES = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten, nn.Unflatten),
    *(nn.ReLU, nn.LeakyReLU, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.PixelShuffle, nn.ChannelShuffle),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.Upsample),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_KEEPING_FUNCTIONS = {
    *(torch.reshape, torch.flatten, torch.permute, torch.transpose, torch.t, torch.squeeze, torch.unsqueeze),
    *(torch.movedim, torch.swapaxes, torch.chunk, torch.split, torch.unbind, torch.narrow, torch.unflatten),
    *(torch.relu, F.relu, F.leaky_relu, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.interpolate),
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.pixel_shuffle),
    *(operator.getitem, operator.neg),
}
_KEEPING_METHODS = {
    *("view", "reshape", "flatten", "permute", "transpose", "t", "squeeze", "unsqueeze", "contiguous"),
    *("movedim", "swapaxes", "chunk", "split", "unbind", "narrow", "unflatten", "expand", "clone", "relu"),
    *("to", "float", "double", "half", "bfloat16", "type_as"),
}
_MEASURING = {"size", "dim", "numel", "shape", "dtype", "device", "ndim", "is_cuda", "type"}
_TIMES = {operator.mul, operator.truediv, torch.mul, torch.div}
_NORMALISING = {
    *(F.layer_norm, F.group_norm, F.instance_norm, F.batch_norm, F.normalize, F.rms_norm),
    *(torch.layer_norm, torch.rms_norm),
}
_WEIGHING = {
    *(F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    *(F.embedding, F.embedding_bag, torch.matmul, operator.matmul, torch.mm, torch.bmm, torch.einsum),
}


def fate(node: fx.Node, root: nn.Module, weight: bool = False) -> set[bool | None]:
    """Where a node's value goes: True for a normalisation, None for out of the module, False for elsewhere.

    Args:
        node: a value of the traced forward.
        root: the module that was traced.
        weight: the value is a weight itself, which a layer's function may still take.
    """
    fates: set[bool | None] = set()
    for user in node.users:
        if user.op == "output":
            fates.add(None)
        elif _normalising(user, node, root):
            fates.add(True)
        elif weight and _weighing(user):
            fates |= fate(user, root)
        elif _keeping(user, node, root):
            fates |= fate(user, root, weight)
        elif not _measuring(user):
            fates.add(False)
    return fates or {False}


def _weighing(user: fx.Node) -> bool:
    """Uses a weight as a layer does: linear in it."""
    return user.target in (("matmul", "mm", "bmm") if user.op == "call_method" else _WEIGHING)


def _first_argument(user: fx.Node) -> Any:
    return user.args[0] if user.args else user.kwargs.get("input")


def _normalising(user: fx.Node, node: fx.Node, root: nn.Module) -> bool:
    if _first_argument(user) is not node:
        return False
    if user.op == "call_module":
        return normalises(root.get_submodule(str(user.target)))
    return user.op == "call_function" and user.target in _NORMALISING


def _keeping(user: fx.Node, node: fx.Node, root: nn.Module) -> bool:
    if user.op == "call_function" and user.target in _TIMES:
        return True  # it scales with each factor; one that depends on the other is a user of its own
    if _first_argument(user) is not node:
        return False
    if user.op == "call_module":
        return keeps_scale(root.get_submodule(str(user.target)))
    if user.op == "call_method":
        return user.target in _KEEPING_METHODS
    return user.target in _KEEPING_FUNCTIONS or (user.target is getattr and user.args[1] in ("T", "mT"))


def keeps_scale(module: nn.Module) -> bool:
    """Whether a positive factor passes through a module: these very classes, a subclass may do anything."""
    return type(module) in _KEEPING_MODULES


def _measuring(user: fx.Node) -> bool:
    """Asks for a shape or a type, which no factor changes."""
    if user.op == "call_method":
        return user.target in _MEASURING
    return user.target is getattr and user.args[1] in _MEASURING


WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag)


NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# "Norm" as a word of a class name: LlamaRMSNorm, T5LayerNorm, LayerNormalization; not Normal or Normalizer.
_NORM_CLASS = re.compile(r"norm(?!ous|ed|al(?!ization))", re.IGNORECASE)


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: torch's own classes, or a class whose name says so."""
    return isinstance(module, NORMS) or bool(_NORM_CLASS.search(class_name(module)))


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


# The attribute in which a wrapper has what it wraps, by its class.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "_FabricModule": "_forward_module",
}
WRAPPED = frozenset(_WRAPPERS.values())


def peeled(module: nn.Module) -> nn.Module:
    """Return the module inside DataParallel, DistributedDataParallel, torch.compile and the like."""
    while attribute := wrapped_attribute(module):
        inner = getattr(module, attribute, None)
        if not isinstance(inner, nn.Module):
            break
        module = inner
    return module


def wrapped_attribute(module: nn.Module) -> str:
    """Return the attribute in which a wrapper has what it wraps; empty for a module that wraps nothing."""
    for kind in type(module).__mro__:
        if kind.__name__ in _WRAPPERS:
            return _WRAPPERS[kind.__name__]
    return ""


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
