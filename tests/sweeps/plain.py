"""Training as one writes it by hand: the oracle of sweeps. It shares no code with the package.

The data order and the seeds of a step's draws follow the documented formula (docs/decisions,
common random numbers): the first four bytes of BLAKE2b("seed/what/number").
"""

import hashlib
from dataclasses import dataclass, field

import torch


def mixed(seed, what, number):
    """The seed of a use of a training's seed."""
    digest = hashlib.blake2b(f"{seed}/{what}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


@dataclass
class Ended:
    """What a training gave: losses per look, buffers and parameters at the end."""

    model: torch.nn.Module
    train: list[float] = field(default_factory=list)  # mean over the examples of an epoch
    test: list[float] = field(default_factory=list)

    @property
    def weights(self):
        return {
            name: tensor.detach()
            for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers())
        }


def matrices(model):
    """What decays by default in these small models: weights of two or more axes of linear and conv layers."""
    return [p for p in model.parameters() if p.ndim > 1 and p.requires_grad]


def train(
    make_model,
    data,
    test,
    *,
    loss,
    optimizer,
    lam=0.0,
    seed=0,
    epochs,
    batch_size,
    rule="Decoupled",
    clip=None,
    decays=matrices,
    rates=None,
):
    """One training: the user's optimizer, and decay of weights before its step (L2: in the gradient).

    rates: the step size at each step, for all groups; None: the optimizer's own.
    """
    *inputs, target = data
    *test_inputs, test_target = test
    torch.manual_seed(seed)
    model = make_model()
    torch.manual_seed(seed)
    made = optimizer(list(model.parameters()))
    held = {id(p) for group in made.param_groups for p in group["params"]}
    lrs = {id(p): group for group in made.param_groups for p in group["params"]}
    weights = [p for p in decays(model) if id(p) in held]
    ended, step = Ended(model), 0
    for epoch in range(epochs):
        model.train()
        generator = torch.Generator().manual_seed(mixed(seed, "order", epoch))
        order = torch.randperm(len(target), generator=generator)
        total = 0.0
        for rows in order.split(batch_size):
            if rates is not None:
                for group in made.param_groups:
                    group["lr"] = rates[step]
            torch.manual_seed(mixed(seed, "step", step))
            made.zero_grad()
            value = loss(model(*(x[rows] for x in inputs)), target[rows])
            value.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            with torch.no_grad():
                for p in weights:
                    if p.grad is None:
                        continue
                    if rule == "L2":
                        p.grad.add_(p, alpha=-lam if lrs[id(p)].get("maximize") else lam)
                    else:
                        p.mul_(1 - lrs[id(p)]["lr"] * lam)
            made.step()
            total += value.item() * len(rows)
            step += 1
        ended.train.append(total / len(target))
        model.eval()
        torch.manual_seed(mixed(seed, "look", epoch + 1))
        with torch.no_grad():
            size = 4 * batch_size  # the package's own, which only matters to a model that draws in eval
            parts = [model(*x) for x in zip(*(x.split(size) for x in test_inputs), strict=True)]
            ended.test.append(loss(torch.cat(parts), test_target).item())
    return ended
