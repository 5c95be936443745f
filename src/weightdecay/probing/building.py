"""Small parameters, and an optimizer made on them in whichever way its constructor allows."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Makes an optimizer on given parameters, with a step size and a strength.
Build = Callable[[list[nn.Parameter], float, float], Any]
Layout = Callable[[list[nn.Parameter]], Any]


class Unbuilt(Exception):
    """An optimizer that could not be made or stepped; the text says why."""


class _Model(nn.Module):
    """For optimizers that ask for the model."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self.weight = parameters[0]
        if len(parameters) > 1:
            self.bias = parameters[1]


def _plain(parameters: list[nn.Parameter]) -> Any:
    return parameters


def _groups(parameters: list[nn.Parameter]) -> Any:
    """Groups that say which parameters are matrices, as optimizers with a second one inside want it."""
    return [{"params": [p], "use_muon": p.ndim >= 2} for p in parameters]


def _named(parameters: list[nn.Parameter]) -> Any:
    return list(_Model(parameters).named_parameters())


LAYOUTS: Mapping[str, Layout] = {
    "a list": _plain,
    "groups with use_muon": _groups,
    "named parameters": _named,
    "a model": _Model,
}


def in_groups(layout: Layout, strengths: tuple[float, ...]) -> Layout | None:
    """The layout with a group for each parameter, of its own strength; None where there are no groups."""
    if layout not in (_plain, _groups):
        return None

    def laid(parameters: list[nn.Parameter]) -> Any:
        groups = _groups(parameters) if layout is _groups else [{"params": [p]} for p in parameters]
        return [
            {**group, "weight_decay": strength} for group, strength in zip(groups, strengths, strict=True)
        ]

    return laid


def layouts(make: Callable[..., Any]) -> Iterator[tuple[str, Layout]]:
    """The ways to hand parameters over, the likeliest first."""
    try:
        first = next(iter(inspect.signature(make).parameters), "")
    except (TypeError, ValueError):
        first = ""
    order = ["a model", *LAYOUTS] if first in ("model", "module") else list(LAYOUTS)[:-1]
    for name in dict.fromkeys(order):
        yield name, LAYOUTS[name]


def missing(make: Callable[..., Any], options: Mapping[str, Any]) -> list[str]:
    """Arguments without a default that were not given, the parameters aside."""
    try:
        signature = list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    wanted = [p.name for p in signature[1:] if p.default is p.empty and p.kind not in kinds]
    return [name for name in wanted if name not in {"lr", "weight_decay", *options}]


def builder(make: Callable[..., Any], layout: Layout, options: Mapping[str, Any]) -> Build:
    """An optimizer class or factory as a function of parameters, step size and strength."""

    def build(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(layout(parameters), **{"lr": lr, "weight_decay": weight_decay, **options})

    return build


def parameters_like(values: list[Tensor]) -> list[nn.Parameter]:
    """New parameters with these values."""
    return [nn.Parameter(value.clone()) for value in values]


def draws(shapes: list[tuple[int, ...]], count: int, seed: int, dtype: torch.dtype) -> list[list[Tensor]]:
    """`count` lists of standard normal tensors, from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return [
        [
            torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(dtype)
            for shape in shapes
        ]
        for _ in range(count)
    ]
