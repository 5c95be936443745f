"""The optimizers and the model of the contract table."""

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_optimizer
import schedulefree
import torch
from torch import nn, optim

from weightdecay.rules import RULES, Rule

LR, WD = 0.05, 0.4
BUILT_IN = (
    *("L2", "Decoupled", "Independent", "Corrected", "Cautious", "Toward"),
    *("Constrained", "FixedNorm", "Huber", "LoRAProduct", "PNorm", "Stable"),
)
Factory = Callable[[Iterable[Any]], optim.Optimizer]


def _schedule_free(parameters):
    optimizer = schedulefree.AdamWScheduleFree(parameters, lr=LR)
    optimizer.train()
    return optimizer


OPTIMIZERS: dict[str, Factory] = {
    "SGD": lambda ps: optim.SGD(ps, lr=LR),
    "SGD+momentum": lambda ps: optim.SGD(ps, lr=LR, momentum=0.9, dampening=0.2),
    "Nesterov": lambda ps: optim.SGD(ps, lr=LR, momentum=0.9, nesterov=True),
    "Adam": lambda ps: optim.Adam(ps, lr=LR),
    "AdamW": lambda ps: optim.AdamW(ps, lr=LR, weight_decay=0),
    "NAdam": lambda ps: optim.NAdam(ps, lr=LR),
    "RAdam": lambda ps: optim.RAdam(ps, lr=LR),
    "Adagrad": lambda ps: optim.Adagrad(ps, lr=LR),
    "RMSprop": lambda ps: optim.RMSprop(ps, lr=LR),
    "Adafactor": lambda ps: optim.Adafactor(ps, lr=LR),
    "Muon": lambda ps: optim.Muon(ps, lr=LR, weight_decay=0),
    "LBFGS": lambda ps: optim.LBFGS(ps, lr=0.5, max_iter=4, line_search_fn="strong_wolfe"),
    "schedulefree": _schedule_free,
    "pytorch_optimizer": lambda ps: pytorch_optimizer.AdaBelief(ps, lr=LR),
}

# Ways in which torch's own optimizers compute the same step.
VARIANTS: dict[str, Factory] = {
    f"{kind.__name__} {way}": lambda ps, kind=kind, options=options, way=way: kind(
        ps, lr=LR, weight_decay=0, **options, **({way: True} if way != "single" else {"foreach": False})
    )
    for kind, options, ways in (
        (optim.SGD, {"momentum": 0.9}, ("single", "foreach", "fused")),
        (optim.Adam, {}, ("single", "foreach", "fused")),
        (optim.AdamW, {}, ("single", "foreach", "fused")),
        (optim.Adagrad, {}, ("single", "foreach", "fused")),
        (optim.NAdam, {}, ("single", "foreach")),
        (optim.RAdam, {}, ("single", "foreach")),
        (optim.RMSprop, {}, ("single", "foreach")),
    )
    for way in ways
}


class Model(nn.Module):
    """Two matrices and, unless an optimizer takes matrices only, two biases."""

    def __init__(self, name="SGD", dtype=torch.float64, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Linear(4, 3, bias=name != "Muon", dtype=dtype)
        self.second = nn.Linear(3, 2, bias=name != "Muon", dtype=dtype)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
        self.x = torch.randn(6, 4, generator=generator, dtype=torch.float64).to(dtype)
        self.y = torch.randn(6, 2, generator=generator, dtype=torch.float64).to(dtype)

    def loss(self):
        return (self.second(torch.tanh(self.first(self.x))) - self.y).square().mean()


def make_rule(name: str, strength: Any = WD) -> Rule:
    """A rule of the registry, with what it needs beside a strength."""
    kind = RULES[name]
    if name == "FixedNorm":
        return kind()
    if name == "Constrained":  # less than the weights' squares, so that it acts at once
        return kind(bound=1.0, mu=0.01)
    if name == "LoRAProduct":
        return kind(strength, pairs={"second.weight": "first.weight"})
    return kind(strength, lr_max=2 * LR) if "lr_max" in kind.__dataclass_fields__ else kind(strength)


def parts(name: str) -> str:
    """What a rule decays in the tests: all, or the two factors of a product."""
    return "matrices" if name == "LoRAProduct" else "all"


def closure_of(model: Model, optimizer: optim.Optimizer):
    def closure():
        optimizer.zero_grad()
        loss = model.loss()
        loss.backward()
        return loss

    return closure


def train(model: Model, optimizer: optim.Optimizer, steps: int) -> None:
    """Some steps in the way every optimizer of the table takes."""
    for _ in range(steps):
        if isinstance(optimizer, optim.LBFGS):
            optimizer.step(closure_of(model, optimizer))
        else:
            closure_of(model, optimizer)()
            optimizer.step()


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(ours: Iterable[torch.Tensor], theirs: Iterable[torch.Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
