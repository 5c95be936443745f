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


class Decaying(optim.Optimizer):
    """Gradient descent with momentum, sign descent or Adam, and a decay that is wrong in a chosen way."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0, kind="", factor=1.0, every=1, power=1):
        options = {"lr": lr, "weight_decay": weight_decay, "kind": kind, "factor": factor}
        super().__init__(params, {**options, "every": every, "power": power})
        self.steps = 0

    @torch.no_grad()
    def step(self, closure=None):
        strengths = [group["weight_decay"] for group in self.param_groups]
        for i, group in enumerate(self.param_groups):
            decay = {
                "the first's": strengths[0],
                "the last's": strengths[-1],
                "if the first decays": strengths[i] * bool(strengths[0]),
                "the mean": sum(strengths) / len(strengths),
                "the default": self.defaults["weight_decay"],
            }.get(group["kind"], strengths[i]) ** group["power"] * group["factor"]
            if group["every"] > 1:
                decay *= group["every"] * (self.steps % group["every"] == group["every"] - 1)
            for j, p in enumerate(group["params"]):
                self._move(
                    p, group["lr"], decay * (j == 0 or group["kind"] != "the first of each"), group["kind"]
                )
        self.steps += 1

    def _move(self, p, lr, decay, kind):
        state = self.state[p]
        m, v = (state.setdefault(key, torch.zeros_like(p)) for key in ("m", "v"))
        if kind == "momentum":
            p.sub_(m.mul_(0.9).add_(p.grad + decay * p), alpha=lr)
        elif kind == "average":
            p.sub_(m.mul_(0.9).add_(p.grad + decay * p, alpha=0.1), alpha=lr)
        elif kind == "adam":
            g = p.grad + decay * p
            v.mul_(0.99).addcmul_(g, g, value=0.01)
            p.addcdiv_(m.mul_(0.9).add_(g, alpha=0.1), v.sqrt().add_(1e-8), value=-lr)
        elif kind == "of the momentum":
            p.sub_(m.mul_(0.9 * (1 - lr * decay)).add_(p.grad), alpha=lr)
        elif kind == "noisy":
            p.sub_(p.grad + decay * p, alpha=lr).add_(torch.randn_like(p), alpha=0.1 * lr**0.5)
        elif kind == "of the weights' size":
            size = lr * p.square().mean().sqrt()
            p.sub_(size * p.grad.sign()).mul_(1 - size * decay)
        elif kind == "after":
            p.sub_(p.grad.sign(), alpha=lr).mul_(1 - lr * decay)
        elif kind == "without lr":
            p.mul_(1 - decay).sub_(p.grad.sign(), alpha=lr)
        elif kind == "cautious":
            p.sub_(lr * (decay * p * (p.grad * p >= 0) + p.grad.sign()))
        elif kind == "with gradient":
            p.sub_(lr * (decay * p * (p.grad != 0) + p.grad.sign()))
        else:
            p.mul_(1 - lr * decay).sub_(p.grad.sign(), alpha=lr)
