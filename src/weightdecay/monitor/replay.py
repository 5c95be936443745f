"""The gradient part of a step: the step done once more, on a copy and without any decay."""

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn, optim

from weightdecay.hooks.twin import untouched

# Copies of weights, gradients and state are made for so many elements at a time.
PIECE = 1 << 23
_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


@torch.no_grad()
def without_decay(optimizer: optim.Optimizer, parameters: Sequence[nn.Parameter]) -> dict[int, Tensor]:
    """What parameters would be after the coming step if nothing decayed, by identity.

    Optimizer, parameters, gradients and random numbers stay as they are. A parameter without gradient is
    left out.

    Args:
        optimizer: about to step; its gradients are made.
        parameters: of this optimizer.

    Raises:
        Exception: whatever a copy of the optimizer raises; ValueError where none can be made.
    """
    wanted = {id(parameter) for parameter in parameters if parameter.grad is not None}
    found: dict[int, Tensor] = {}
    devices = {parameter.device for parameter in parameters if parameter.device.type == "cuda"}
    with untouched(), torch.random.fork_rng(devices=devices), torch.no_grad():
        for group in optimizer.param_groups:
            held = [parameter for parameter in group["params"] if id(parameter) in wanted]
            for some in _pieces(held):
                copies = _stepped(optimizer, group, some)
                found |= {id(parameter): made for parameter, made in zip(some, copies, strict=True)}
    return found


def _pieces(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    some: list[nn.Parameter] = []
    for parameter in parameters:
        if some and sum(one.numel() for one in some) + parameter.numel() > PIECE:
            yield some
            some = []
        some.append(parameter)
    if some:
        yield some


def _stepped(
    optimizer: optim.Optimizer, group: dict[str, Any], parameters: list[nn.Parameter]
) -> list[Tensor]:
    """Copies of parameters after a step of a copy of the optimizer that holds nothing else."""
    twin = object.__new__(type(optimizer))  # copy.copy drops what a subclass or a gradient scaler has set
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    for parameter, made in zip(parameters, copies, strict=True):
        assert parameter.grad is not None
        made.grad = parameter.grad.detach().clone()
    # What the twin gets for what may be met again: itself, the copies, nothing of the other parameters.
    others = [one for each in optimizer.param_groups for one in each["params"]]
    memo: dict[int, Any] = {id(one): nn.Parameter(one.detach().new_empty(0)) for one in others}
    memo |= {id(parameter): made for parameter, made in zip(parameters, copies, strict=True)}
    memo[id(optimizer)] = twin
    twin.state = defaultdict(dict)
    for parameter, made in zip(parameters, copies, strict=True):
        if parameter in optimizer.state:
            twin.state[made] = _copied(optimizer.state[parameter], memo)
    own = {key: _copied(value, memo) for key, value in group.items() if key not in ("params", "param_names")}
    # "step" is a scheduler's wrapper, the others an attached rule's, bound to the original.
    kept = ("step", "first_step", "second_step", "__reduce_ex__", "state", "param_groups", *_HOOKS)
    mine = {key: _copied(value, memo) for key, value in vars(optimizer).items() if key not in kept}
    twin.__dict__.update(mine, **{hooks: OrderedDict() for hooks in _HOOKS})
    if "weight_decay" in own:
        own["weight_decay"] = 0.0
    twin.param_groups = [{**own, "params": copies}]
    twin.step()
    return [made.detach() for made in copies]


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A copy that shares nothing with the original; `memo` has, by identity, what was copied before."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, FunctionType) and value.__closure__:
        raise ValueError("a function that may hold the live optimizer")
    if isinstance(value, optim.Optimizer):
        raise ValueError("an optimizer inside, whose decay is its own")
    if type(value) is dict:
        return {key: _copied(one, memo) for key, one in value.items()}
    if type(value) is list:
        return [_copied(one, memo) for one in value]
    if type(value) is tuple:
        return tuple(_copied(one, memo) for one in value)
    if isinstance(value, Tensor):
        memo[id(value)] = value.detach().clone()
        return memo[id(value)]
    return copy.deepcopy(value, memo)
