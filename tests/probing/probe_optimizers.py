"""Optimizers with a known decay, written for the tests."""

import torch
from torch import optim


class Form(optim.Optimizer):
    """Sign descent with a decay of a chosen form."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0, form="decoupled"):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "form": form})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            lr, decay = group["lr"], group["weight_decay"]
            for p in group["params"]:
                update = torch.sign(p.grad)
                taken = {
                    "decoupled": lr * decay * p,
                    "independent": decay * p,
                    "cautious": lr * decay * p * (update * p >= 0),
                    "scaled": lr * decay * p * p.grad.norm(),
                    "squared": lr * lr / 1e-3 * decay * p,
                    "half": 0.5 * lr * decay * p,
                    "none": 0 * p,
                }[group["form"]]
                p.sub_(lr * update + taken)


class Stuck(optim.Optimizer):
    """Does not move."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def step(self, closure=None):
        return None


class Raising(Stuck):
    """Raises."""

    def step(self, closure=None):
        raise KeyError("a key of its own")


class Hidden(optim.Optimizer):
    """Keeps its strength in an attribute."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0):
        super().__init__(params, {"lr": lr})
        self.strength = weight_decay

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * self.strength).sub_(group["lr"] * p.grad.sign())
