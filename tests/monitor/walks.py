"""Optimizers and random walks: gradients that are noise, with or without scale invariance."""

import torch
from torch import nn

from weightdecay.monitor.run import Monitor


class Signs(torch.optim.Optimizer):
    """Sign descent with decoupled decay."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(p.grad.sign(), alpha=-group["lr"])


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, arXiv 2302.06675."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((b1 * m + (1 - b1) * p.grad).sign(), alpha=-group["lr"])
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


def walk(make, start, invariant=False, steps=4000, every=50, burst=32, dtype=torch.float32):
    """Monitor a (40, 50) matrix under standard normal gradients.

    Invariant: orthogonal to w and divided by ||w||, as of a layer whose scale does not matter.
    """
    drawn = torch.Generator().manual_seed(1)
    model = nn.Linear(50, 40, bias=False, dtype=dtype)
    w = model.weight
    with torch.no_grad():
        w.copy_(start * torch.randn(w.shape, generator=drawn))
    optimizer = make(model.parameters())
    with Monitor(model, optimizer, every=every, burst=burst) as monitor:
        for _ in range(steps):
            gradient = torch.randn(w.shape, generator=drawn).to(dtype)
            if invariant:
                unit = w.detach() / w.detach().norm()
                gradient = (gradient - (gradient * unit).sum() * unit) / w.detach().norm()
            w.grad = gradient
            optimizer.step()
    return monitor.result()
