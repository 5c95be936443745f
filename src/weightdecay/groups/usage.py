"""What a module's forward does with the tensors it holds itself: multiplies, adds, looks up, scales."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from weightdecay.groups.before_norm import _MEASURING, _NORMALISING, normalises, replica, traced

# Which argument of a function is for what, by position and by name.
_LAYER = {1: "matrix", "weight": "matrix", 2: "bias", "bias": "bias"}
_CONVOLUTION = {1: "convolution", "weight": "convolution", 2: "bias", "bias": "bias"}
_ARGUMENTS: dict[Any, dict[Any, str]] = {
    function: places
    for functions, places in (
        ((F.linear, F.bilinear), _LAYER),
        ((F.conv1d, F.conv2d, F.conv3d), _CONVOLUTION),
        ((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _CONVOLUTION),
        ((F.embedding, F.embedding_bag), {1: "embedding", "weight": "embedding"}),
        (
            (F.layer_norm, torch.layer_norm, F.group_norm, F.rms_norm, torch.rms_norm),
            {2: "gain", "weight": "gain", 3: "bias", "bias": "bias"},
        ),
        ((F.batch_norm, F.instance_norm), {3: "gain", "weight": "gain", 4: "bias", "bias": "bias"}),
        ((torch.addmm, torch.baddbmm), {0: "added", 1: "matrix", 2: "matrix"}),
        ((torch.addcmul,), {0: "added", 1: "scale", 2: "scale"}),
        ((torch.lerp,), {2: "scale"}),
        ((torch.index_select,), {0: "embedding"}),
    )
    for function in functions
}
_PRODUCTS = {torch.matmul, operator.matmul, torch.mm, torch.bmm, torch.mv, torch.tensordot, torch.inner}
_SUMS = {operator.add, operator.sub, operator.iadd, operator.isub, torch.add, torch.sub}
_TIMES = {operator.mul, operator.imul, operator.truediv, operator.itruediv, torch.mul, torch.div}
_METHODS = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv"), "matrix"),
    **dict.fromkeys(("add", "add_", "sub", "sub_"), "added"),
    **dict.fromkeys(("mul", "mul_", "div", "div_"), "scale"),
    "index_select": "embedding",
}
_CURVED = {"exp", "log", "sigmoid", "tanh", "softplus", "softmax", "log_softmax", "logsigmoid", "sin", "cos"}
# Only the first argument is a value; the other one lends its type or shape.
_LIKE = {"to", "type_as", "expand_as", "view_as", "reshape_as"}
_TIMES_NAMES = ("mul", "mul_", "truediv", "div", "div_")
_KEPT = ("float", "half", "bfloat16", "view", "reshape", "unsqueeze", "squeeze", "contiguous", "getitem")
_SIZES = {"mean", "var", "std", "norm", "vector_norm", "sum", "amax", "var_mean", "std_mean", "logsumexp"}
_AROUND_SIZES = {
    *("sqrt", "pow", "add", "mul", "truediv", "div", "clamp", "clamp_min", "maximum", "max"),
    *("sub", "to", "type_as", *_KEPT),
}


# The roles of the tensors of modules that were traced, by class and by the names and shapes of the tensors.
Traced = dict[Any, dict[str, str]]


def role_by_use(owner: nn.Module, path: str, traced_before: Traced) -> str | None:
    """Return the role of a module's own tensor by its use in forward; None where that is not seen.

    Args:
        owner: the module whose forward uses it.
        path: the tensor's name within it.
        traced_before: is filled, so that a class with the same tensors is traced once.
    """
    key = type(owner), tuple((name, tuple(p.shape)) for name, p in _held(owner))
    if key not in traced_before:
        traced_before[key] = _roles(owner)
    return traced_before[key].get(path)


def _roles(owner: nn.Module) -> dict[str, str]:
    """The roles of a module's own tensors, by path, as far as torch.fx can follow its forward."""
    if isinstance(owner, torch.jit.ScriptModule) or hasattr(owner, "parametrizations"):
        return {}  # a parametrised weight is computed when it is asked for
    root = replica(owner)
    graph = traced(root, _Shallow)
    if not isinstance(graph, fx.Graph):
        return {}
    own = dict(_held(owner))
    uses = _uses(graph, root, own)
    roles = {path: _role(uses[path], parameter.ndim) for path, parameter in own.items() if path in uses}
    return {path: role for path, role in roles.items() if role is not None}


class _Shallow(fx.Tracer):
    """Follows one forward and calls what is inside by name."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - fx's signature
        return True


def _held(owner: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """A module's own tensors, those in its lists and dicts of parameters included."""
    held = [(name, p) for name, p in owner._parameters.items() if p is not None]
    for child, module in owner._modules.items():
        if isinstance(module, (nn.ParameterList, nn.ParameterDict)):
            held += [(f"{child}.{name}", p) for name, p in module._parameters.items() if p is not None]
    return held


def _role(uses: set[str | None], axes: int) -> str | None:
    """What the uses of one tensor amount to; None where one of them says nothing."""
    if not uses or None in uses:
        return None
    if "gain" in uses:
        return "normalization"
    if "curved" in uses:
        return "other"
    if "matrix" in uses and axes > 1:
        return "head" if "embedding" in uses else "matrix"
    if uses == {"convolution"}:
        return "convolution"
    if uses == {"embedding"}:
        return "embedding" if axes == 2 else "other"
    if uses <= {"bias", "added"}:
        return "bias"
    return "other" if uses <= {"scale", "added"} else None


def _uses(graph: fx.Graph, root: nn.Module, own: Mapping[str, Tensor]) -> dict[str, set[str | None]]:
    """What becomes of each tensor where it meets data; before that, what is made of it stands for it."""
    uses: dict[str, set[str | None]] = {}
    data: set[fx.Node] = set()
    made_of: dict[fx.Node, set[tuple[str, bool]]] = {}  # the tensors, and whether they were bent
    for node in graph.nodes:
        if node.op == "get_attr":
            made_of[node] = {(str(node.target), False)} if str(node.target) in own else set()
        elif node.op == "placeholder":
            data.add(node)
        elif node.op == "output" or _measures(node):
            for path, _ in set().union(*(made_of.get(operand, set()) for operand in node.all_input_nodes)):
                if node.op == "output":
                    uses.setdefault(path, set()).add(None)
        else:
            inputs = _values(node)
            if node.op == "call_module" or any(operand in data for operand in inputs):
                data.add(node)
                for operand in inputs:
                    for path, bent in made_of.get(operand, ()):
                        use = _use(node, operand, data, root)
                        uses.setdefault(path, set()).add("curved" if bent and use != "bias" else use)
            else:
                bent = _name(node) in _CURVED
                for path in (gains := _gains(node, made_of, own)):
                    uses.setdefault(path, set()).add("scale")
                made_of[node] = {
                    (path, bent or was)
                    for operand in inputs
                    for path, was in made_of.get(operand, ())
                    if path not in gains
                }
    return uses


def _gains(
    node: fx.Node, made_of: Mapping[fx.Node, set[tuple[str, bool]]], own: Mapping[str, Tensor]
) -> set[str]:
    """The tensors along one axis that only scale another tensor before it meets data."""
    if _name(node) not in ("mul", "mul_"):
        return set()
    paths = {path for operand in node.all_input_nodes for path, _ in made_of.get(operand, ())}
    gains = {path for path in paths if one_axis(own[path])}
    return gains if gains < paths else set()


def one_axis(parameter: Tensor) -> bool:
    """Whether at most one axis is longer than 1."""
    return sum(size != 1 for size in parameter.shape) <= 1


def _values(node: fx.Node) -> list[fx.Node]:
    """The inputs that are values, not what lends its shape or type."""
    if node.op == "call_method" and node.target in _LIKE:
        return [operand for operand in node.args[:1] if isinstance(operand, fx.Node)]
    return node.all_input_nodes


def _name(node: fx.Node) -> str:
    return str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))


def _measures(node: fx.Node) -> bool:
    """Asks for a shape or a type."""
    if node.op == "call_method":
        return node.target in _MEASURING
    return node.target is getattr and node.args[1] in _MEASURING


def _use(node: fx.Node, operand: fx.Node, data: set[fx.Node], root: nn.Module) -> str | None:
    """What a node that has data does with a tensor."""
    places = [i for i, argument in enumerate(node.args) if argument is operand]
    places += [name for name, argument in node.kwargs.items() if argument is operand]
    if node.op == "call_method":
        use = _METHODS.get(str(node.target))
    elif node.op != "call_function":
        return None
    elif node.target in _ARGUMENTS:
        known = {_ARGUMENTS[node.target].get(place) for place in places}
        return known.pop() if len(known) == 1 else None
    elif node.target is torch.einsum:
        return _summed(node, operand)
    elif node.target is operator.getitem:
        return "embedding" if node.args[0] is operand else None
    else:
        use = (
            "matrix"
            if node.target in _PRODUCTS
            else "added"
            if node.target in _SUMS
            else "scale"
            if node.target in _TIMES
            else None
        )
    others = [other for other in node.all_input_nodes if other is not operand and other in data]
    if use == "scale" and others and all(_normalised(other, data, root) for other in others):
        return "gain"
    if use == "scale" and any(map(_divided, node.users)):
        return "gain"  # a·(x - mean)/deviation, from left to right
    return use


def _summed(node: fx.Node, operand: fx.Node) -> str | None:
    """Whether torch.einsum sums over an axis of a tensor and of another one, or only multiplies."""
    equation, *operands = node.args
    if not isinstance(equation, str) or "->" not in equation or "..." in equation.split("->")[1][1:-1]:
        return "matrix"
    inputs, output = equation.replace(" ", "").split("->")
    parts = inputs.split(",")
    if len(parts) != len(operands):
        return None
    mine: set[str] = set()
    others: set[str] = set()
    for part, argument in zip(parts, operands, strict=True):
        (mine if argument is operand else others).update(part)
    return "matrix" if (mine & others) - set(output) - {"."} else "scale"


def _normalised(node: fx.Node, data: set[fx.Node], root: nn.Module) -> bool:
    """Whether a value was divided by its own size; constants and other tensors may have scaled it since."""
    name, inputs = _name(node), [operand for operand in _values(node) if operand in data]
    if node.op == "call_module":
        return normalises(root.get_submodule(str(node.target)))
    if node.op == "call_function" and node.target in _NORMALISING:
        return True
    if _divided(node):
        return True
    kept = name in (*_TIMES_NAMES, *_LIKE, *_KEPT)
    return kept and len(inputs) == 1 and _normalised(inputs[0], data, root)


def _divided(node: fx.Node) -> bool:
    """A value over the size of something."""
    name, inputs = _name(node), node.all_input_nodes
    if name in ("truediv", "div", "div_"):
        return len(inputs) > 1 and _size(inputs[-1])
    return name in ("mul", "mul_") and any(map(_inverse, inputs))


def _inverse(node: fx.Node) -> bool:
    """One over the size of something."""
    name, inputs = _name(node), node.all_input_nodes
    if name in _KEPT or name in _LIKE:
        return bool(inputs) and _inverse(inputs[0])
    power = node.args[1] if name == "pow" and len(node.args) > 1 else None
    negative = isinstance(power, (int, float)) and power < 0
    over = name in ("truediv", "div") and node.args[:1] not in [(operand,) for operand in inputs]
    return (name in ("rsqrt", "reciprocal") or negative or over) and any(map(_size, inputs))


def _size(node: fx.Node, depth: int = 8) -> bool:
    """The size of something: a mean square and its root, a deviation, a norm."""
    if node.op not in ("call_function", "call_method") or depth == 0:
        return False
    if _name(node) in _SIZES:
        return True
    return _name(node) in _AROUND_SIZES and any(_size(operand, depth - 1) for operand in node.all_input_nodes)
