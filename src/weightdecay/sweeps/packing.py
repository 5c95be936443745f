"""Nested state as flat tensors and JSON, so that a checkpoint is a plain file."""

from typing import Any

import torch
from torch import Tensor

from weightdecay.errors import InputError

_PLAIN = (bool, int, float, str, type(None))


def pack(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Split dictionaries, lists and tuples of tensors and plain values into tensors by path and the rest.

    Returns:
        Copies of the tensors on the CPU, and what JSON can hold, from which `unpack` makes the tree again.

    Raises:
        InputError: something that is neither.

    >>> tensors, plain = pack({"step": 3, 0: [torch.zeros(2)]})
    >>> list(tensors), plain
    (['0/0'], {'dict': [['step', 3], [0, {'list': [{'tensor': '0/0', 'cpu': True}]}]]})
    """
    tensors: dict[str, Tensor] = {}

    def packed(part: Any, path: tuple[str, ...]) -> Any:
        if isinstance(part, Tensor):
            name = "/".join(path)
            tensors[name] = part.detach().to("cpu", copy=True).contiguous()
            return {"tensor": name, "cpu": part.device.type == "cpu"}
        if isinstance(part, dict):
            return {"dict": [[key, packed(value, (*path, str(key)))] for key, value in part.items()]}
        if isinstance(part, list | tuple):
            kind = "list" if isinstance(part, list) else "tuple"
            return {kind: [packed(value, (*path, str(i))) for i, value in enumerate(part)]}
        if isinstance(part, _PLAIN):
            return part
        what = "a state that cannot be written down"
        raise InputError(what, "/".join(path), type(part).__name__, "keep tensors and numbers in it")

    return tensors, packed(tree, ())


def unpack(tensors: dict[str, Tensor], plain: Any, device: torch.device) -> Any:
    """The tree again; tensors that were on a device go to this one."""
    if not isinstance(plain, dict):
        return plain
    (kind, value), *_ = plain.items()
    if kind == "tensor":
        return tensors[value].to("cpu" if plain["cpu"] else device, copy=True)
    if kind == "dict":
        return {key: unpack(tensors, part, device) for key, part in value}
    parts = [unpack(tensors, part, device) for part in value]
    return parts if kind == "list" else tuple(parts)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimizer has gathered, by the position of its parameters; and its plain options."""
    return {
        "state": [
            [dict(optimizer.state[p]) if p in optimizer.state else None for p in group["params"]]
            for group in optimizer.param_groups
        ],
        "groups": [
            {key: value for key, value in group.items() if key != "params" and _storable(value)}
            for group in optimizer.param_groups
        ],
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Put that back, bit for bit (torch's own loading would cast)."""
    for group, states, options in zip(optimizer.param_groups, saved["state"], saved["groups"], strict=True):
        group.update(options)
        for parameter, state in zip(group["params"], states, strict=True):
            if state is not None:
                optimizer.state[parameter] = state


def _storable(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_storable, value))
    return isinstance(value, (*_PLAIN, Tensor))
