"""Which steps of a traced forward a positive factor passes through, and which ones take it away."""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from weightdecay.groups.tracing import normalises

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
    found: set[bool | None] = set()
    for user in node.users:
        if user.op == "output":
            found.add(None)
        elif _normalising(user, node, root):
            found.add(True)
        elif weight and _weighing(user):
            found |= fate(user, root)
        elif _keeping(user, node, root):
            found |= fate(user, root, weight)
        elif not _measuring(user):
            found.add(False)
    return found or {False}


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
