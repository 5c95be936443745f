"""The gradient part of a step: the step done once more, on a copy and without any decay."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

# Copies of weights, gradients and state are made for so many elements at a time.
PIECE = 1 << 23


@torch.no_grad()
def without_decay(optimizer: optim.Optimizer, parameters: Sequence[nn.Parameter]) -> dict[int, Tensor]:
    """What parameters would be after the coming step if nothing decayed, by identity.

    Optimizer, parameters, gradients and random numbers stay as they are. A parameter without gradient is
    left out.

    Args:
        optimizer: about to step; its gradients are made.
        parameters: of this optimizer.
    """
    wanted = {id(parameter) for parameter in parameters if parameter.grad is not None}
    found: dict[int, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
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
    twin.__dict__.update(optimizer.__dict__)
    twin.__dict__.pop("step", None)  # a scheduler's wrapper, bound to the original
    for hooks in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        twin.__dict__[hooks] = OrderedDict()
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    for parameter, made in zip(parameters, copies, strict=True):
        assert parameter.grad is not None
        made.grad = parameter.grad.detach().clone()
    twin.state = defaultdict(dict)
    for parameter, made in zip(parameters, copies, strict=True):
        if parameter in optimizer.state:
            twin.state[made] = _copied(optimizer.state[parameter])
    own = {key: _copied(value) for key, value in group.items() if key not in ("params", "param_names")}
    if "weight_decay" in own:
        own["weight_decay"] = 0.0
    twin.param_groups = [{**own, "params": copies}]
    twin.step()
    return [made.detach() for made in copies]


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value
