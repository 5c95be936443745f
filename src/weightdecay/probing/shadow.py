"""A second optimizer like a live one, on parameters of its own."""

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn, optim

from weightdecay.probing.building import Unbuilt

# What belongs to the live object: hooks would be called by the clone's steps.
_HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)
# Set on the instance by schedulers, attached rules and torch itself; the class has its own.
_WRAPPED = (
    *("step", "zero_grad", "profile_hook_step", "_warned_capturable_if_run_uncaptured"),
    *("__reduce_ex__", "first_step", "second_step"),
)
# Options that choose an implementation; the plain one runs on small CPU tensors.
_IMPLEMENTATION = {"foreach": None, "fused": None, "capturable": False, "differentiable": False}
_SIMPLE = (bool, int, float, complex, str, type(None), torch.dtype)
# Group entries that schedulers and wrappers leave, or that speak of the live parameters.
_NOT_OPTIONS = ("params", "param_names")


def plain(value: Any) -> float:
    """A number that may be a tensor; NaN for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return float("nan")


def shadow(optimizer: optim.Optimizer, group: int) -> Callable[..., Any]:
    """A function of parameters, step size and strength that makes an optimizer like this one.

    Raises:
        Unbuilt: it holds something that can neither be shared nor copied.
    """
    kind = type(optimizer)
    options = _options(optimizer.param_groups[group])
    # A step counter belongs to the training, unless the constructor makes it.
    defaults = getattr(optimizer, "defaults", None) or {}  # a class that is none of torch's may have none
    if "step" in defaults:
        options["step"] = _options({"from": defaults["step"]}).get("from", 0)
    attributes = {
        key: _own(key, value, optimizer)
        for key, value in vars(optimizer).items()
        if key not in ("state", "param_groups", *_HOOKS, *_WRAPPED)
    }

    def make(parameters: Any, lr: float, weight_decay: float) -> Any:
        twin = kind.__new__(kind)
        vars(twin).update({key: copy.deepcopy(value) for key, value in attributes.items()})
        vars(twin).update({key: OrderedDict() for key in _HOOKS})
        vars(twin).update(_rebound(optimizer, twin))
        twin.state = defaultdict(dict)
        given = parameters if isinstance(parameters[0], dict) else [{"params": parameters}]
        twin.param_groups = [
            {
                **copy.deepcopy(options),
                **({"lr": lr} if "lr" in options else {}),
                **({"weight_decay": weight_decay} if "weight_decay" in options else {}),
                **{key: value for key, value in one.items() if key == "params" or key in options},
            }
            for one in _flat(given)
        ]
        return twin

    return make


def fingerprint(optimizer: optim.Optimizer, group: int) -> tuple[Any, ...] | None:
    """The class and all options of a group, to measure alike ones once; None if some cannot be compared."""
    kind = type(optimizer)
    items: list[tuple[str, str]] = []
    for key, value in optimizer.param_groups[group].items():
        if key in _NOT_OPTIONS or key in _IMPLEMENTATION:
            continue
        if not _simple(value) and not (isinstance(value, Tensor) and value.numel() == 1):
            return None
        items.append((key, repr(value.item() if isinstance(value, Tensor) else value)))
    for key, value in vars(optimizer).items():
        if key in ("state", "param_groups", "defaults", *_HOOKS, *_WRAPPED):
            continue
        if not _simple(value):
            return None
        items.append((f".{key}", repr(value)))
    return (kind, *sorted(items))


def _flat(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**one, "params": list(one["params"]) if not isinstance(one["params"], Tensor) else [one["params"]]}
        for one in groups
    ]


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's options without what it counts and remembers of the training."""
    found: dict[str, Any] = {}
    for key, value in group.items():
        if key in _NOT_OPTIONS or key == "step" or (isinstance(value, Tensor) and value.numel() > 1):
            continue
        if isinstance(value, Tensor):
            found[key] = value.item()
        elif key in _IMPLEMENTATION:
            found[key] = _IMPLEMENTATION[key]
        elif _simple(value):
            found[key] = value
    return found


def _simple(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_simple(one) for one in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _simple(one) for key, one in value.items())
    return isinstance(value, _SIMPLE)


def _own(key: str, value: Any, optimizer: optim.Optimizer) -> Any:
    """What the clone gets for an attribute; nothing that leads back to the live tensors."""
    if isinstance(value, FunctionType) and value.__closure__:
        raise Unbuilt(f"{type(optimizer).__name__}.{key} is a function that may hold the live optimizer")
    if _simple(value) or isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return value
    if isinstance(value, MethodType):
        return None  # bound again in _rebound
    if key == "defaults" and isinstance(value, dict):
        return _options(value)
    if isinstance(value, (dict, list, tuple, set)) and not value:
        return type(value)()
    own = getattr(value, "__dict__", None)
    if own is not None and not isinstance(value, (nn.Module, optim.Optimizer)) and _simple(own):
        return copy.deepcopy(value)  # a small object, such as a schedule of its own
    if isinstance(value, (nn.Module, Tensor, optim.Optimizer)) or not isinstance(value, (dict, list, tuple)):
        raise Unbuilt(f"{type(optimizer).__name__}.{key} is a {type(value).__name__}, which is not copied")
    raise Unbuilt(f"{type(optimizer).__name__}.{key} holds more than plain values, which are not copied")


def _rebound(optimizer: optim.Optimizer, twin: Any) -> dict[str, Any]:
    """Methods kept as attributes, bound to the twin."""
    return {
        key: MethodType(value.__func__, twin)
        for key, value in vars(optimizer).items()
        if isinstance(value, MethodType) and value.__self__ is optimizer and key not in _WRAPPED
    }
