"""Decay by the step size of construction: a probe changes lr afterwards, and the audit keeps the rate."""

import pytest
import torch
from torch import nn, optim

import weightdecay as wd
from weightdecay.auditing.state import read


class Kept(optim.Optimizer):
    """p *= 1 - wd·lr_0, with lr_0 wherever it may be kept."""

    where = "attribute"

    def __init__(self, params, lr=0.1, weight_decay=0.0):
        self.first = lr
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        if self.where == "group":
            for group in self.param_groups:
                group["initial_lr"] = group["lr"]

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            kept = {"attribute": self.first, "defaults": self.defaults["lr"], "now": group["lr"]}
            lr = group["initial_lr"] if self.where == "group" else kept[self.where]
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["weight_decay"] * lr).sub_(p.grad, alpha=group["lr"])


class Defaults(Kept):
    where = "defaults"


class InGroup(Kept):
    where = "group"


class Now(Kept):
    where = "now"


@pytest.mark.parametrize("kind", [Kept, Defaults, InGroup])
@pytest.mark.parametrize("lr", [0.1, 1e-3])
def test_it_is_independent_of_lr(kind, lr):
    found = wd.probe(kind, lr=lr, weight_decay=0.02)
    assert found.form == "independent"
    assert found.rate == pytest.approx(0.02 * lr, rel=1e-3)
    assert wd.probe(Now, lr=lr, weight_decay=0.02).form == "decoupled"


@pytest.mark.parametrize("kind", [Kept, Defaults, InGroup, Now])
@pytest.mark.parametrize("warmup", [False, True])
def test_an_audit_says_what_is_left(kind, warmup):
    """Against the loop itself: zero gradients, and a schedule that falls to 0."""
    steps = 400
    model = nn.Linear(3, 3, bias=False, dtype=torch.float64)
    optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.05)
    first = (lambda t: min((t + 1) / 40, 1 - t / steps)) if warmup else (lambda t: 1 - t / steps)
    scheduler = optim.lr_scheduler.LambdaLR(optimizer, first)
    (pull,) = read(model, (optimizer,)).held[0].pulls
    rates = torch.tensor([0.1 * first(t) for t in range(steps)]).double().numpy()
    told = float((1 - torch.tensor(pull.removed(rates))).prod())
    start = model.weight.detach().clone()
    for _ in range(steps):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
        scheduler.step()
    assert told == pytest.approx(float((model.weight.detach() / start).mean()), rel=1e-3)
