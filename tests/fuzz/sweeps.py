"""Random sweeps against plain loops: every optimizer of torch that fits, losses, models, odd factories.

Every case is one that a sweep takes: a refusal is a fault, too.
"""

import math
import random
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from tests.sweeps import plain
from torch import nn, optim

import weightdecay as wd
from weightdecay.errors import InputError

WIDTH = 4


class Squeezed(nn.Module):
    """Linear regression as people write it, from (n, p) to (n,)."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(WIDTH, 1)

    def forward(self, x):
        return self.out(x).squeeze(-1)


class Tied(nn.Module):
    """Two uses of one weight, and a frozen one."""

    def __init__(self, outputs):
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.two.weight = self.one.weight
        self.out = nn.Linear(WIDTH, outputs)
        self.two.bias.requires_grad_(False)

    def forward(self, x):
        return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Masked(nn.Module):
    """Draws a plain tensor, not a buffer, when it is made: another one for each seed."""

    def __init__(self, outputs):
        super().__init__()
        self.out = nn.Linear(WIDTH, outputs)
        self.mask = torch.rand(WIDTH) > 0.4

    def forward(self, x):
        return self.out(x * self.mask)


class Attending(nn.Module):
    """A transformer layer with dropout."""

    def __init__(self, outputs, dropout):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(2, 1, 4, dropout=dropout, batch_first=True)
        self.out = nn.Linear(WIDTH, outputs)

    def forward(self, x):
        return self.out(self.layer(x.view(len(x), WIDTH // 2, 2)).flatten(1))


def conv(outputs):
    return nn.Sequential(
        nn.Unflatten(1, (1, WIDTH)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(9, outputs)
    )


def mlp(outputs, *between):
    return nn.Sequential(nn.Linear(WIDTH, 5), *(make() for make in between), nn.Tanh(), nn.Linear(5, outputs))


def flat(outputs):
    """Matrices alone, as Muon wants them."""
    return nn.Sequential(nn.Linear(WIDTH, 5, bias=False), nn.Tanh(), nn.Linear(5, outputs, bias=False))


MODELS = {
    "linear": lambda outputs: nn.Linear(WIDTH, outputs),
    "linear without bias": lambda outputs: nn.Linear(WIDTH, outputs, bias=False),
    "a hidden layer": mlp,
    "batch norm": lambda outputs: mlp(outputs, lambda: nn.BatchNorm1d(5)),
    "layer norm": lambda outputs: mlp(outputs, lambda: nn.LayerNorm(5)),
    "dropout": lambda outputs: mlp(outputs, lambda: nn.Dropout(0.3)),
    "both": lambda outputs: mlp(outputs, lambda: nn.BatchNorm1d(5), lambda: nn.Dropout(0.3)),
    "conv": conv,
    "tied": Tied,
    "masked": Masked,
    "transformer": lambda outputs: Attending(outputs, 0.2),
    "transformer without dropout": lambda outputs: Attending(outputs, 0.0),
    "relu at the end": lambda outputs: nn.Sequential(nn.Linear(WIDTH, outputs), nn.Softplus()),
}

OPTIMIZERS = {
    "SGD": partial(optim.SGD, lr=0.05),
    "SGD momentum": partial(optim.SGD, lr=0.02, momentum=0.9),
    "SGD nesterov": partial(optim.SGD, lr=0.02, momentum=0.9, nesterov=True),
    "SGD dampening": partial(optim.SGD, lr=0.02, momentum=0.5, dampening=0.3),
    "SGD foreach": partial(optim.SGD, lr=0.05, foreach=True),
    "Adam": partial(optim.Adam, lr=0.01),
    "Adam amsgrad": partial(optim.Adam, lr=0.01, amsgrad=True),
    "AdamW": partial(optim.AdamW, lr=0.01, weight_decay=0),
    "NAdam": partial(optim.NAdam, lr=0.01),
    "RAdam": partial(optim.RAdam, lr=0.01),
    "Adamax": partial(optim.Adamax, lr=0.01),
    "Adagrad": partial(optim.Adagrad, lr=0.05),
    "Adadelta": partial(optim.Adadelta, lr=0.3),
    "RMSprop": partial(optim.RMSprop, lr=0.005),
    "RMSprop centered": partial(optim.RMSprop, lr=0.005, centered=True, momentum=0.5),
    "ASGD": partial(optim.ASGD, lr=0.02),
    "Adafactor": partial(optim.Adafactor, lr=0.02, weight_decay=0),
    "Muon": partial(optim.Muon, lr=0.02, weight_decay=0),
}


class Own(optim.SGD):
    """A subclass that steps half as far."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.mul_(0.5)
        return super().step(closure)


def clipping(parameters):
    """A hook that clips by the norm of all gradients."""
    made = optim.SGD(parameters, lr=0.05)
    made.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(parameters, 0.3) and None)
    return made


def by_axes(parameters):
    """Two groups by the number of axes, as training scripts make them."""
    groups = [[p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]]
    return optim.SGD([{"params": one, "lr": lr} for one, lr in zip(groups, (0.05, 0.01), strict=True) if one])


FACTORIES = {
    "the first alone": lambda ps: optim.SGD(ps[:1], lr=0.05),
    "all but the last": lambda ps: optim.Adam(ps[:-1] or ps, lr=0.01),
    "two groups": lambda ps: optim.SGD(
        [{"params": ps[:1], "lr": 0.05}, {"params": ps[1:], "momentum": 0.9}], lr=0.01
    ),
    "by axes": by_axes,
    "those that train": lambda ps: optim.SGD([p for p in ps if p.requires_grad], lr=0.05),
    "a subclass": partial(Own, lr=0.1),
    "clipping": clipping,
    "backwards": lambda ps: optim.AdamW(ps[::-1], lr=0.01, weight_decay=0),
}


@dataclass
class Case:
    """What is trained, drawn from a seed."""

    made: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def _losses(pick, outputs, dtype, batch):
    """A loss and its name for regression or classification, and targets for so many rows."""
    weights = torch.linspace(0.5, 2.0, max(batch, 20), dtype=dtype)
    regression = {
        "mean": F.mse_loss,
        "by hand": lambda o, t: ((o - t) ** 2).mean(),
        "half": lambda o, t: 0.5 * (o - t).square().mean(),
        "sum": lambda o, t: 0.1 * F.mse_loss(o, t, reduction="sum"),
        "over the batch size": lambda o, t: (o - t).square().sum() / batch,
        "weighted by place": lambda o, t: (
            weights[: len(o)].view(-1, *(1,) * (o.ndim - 1)) * (o - t) ** 2
        ).mean(),
        "weighted by target": lambda o, t: ((1 + (t > 0).to(dtype)) * (o - t) ** 2).mean(),
        "huber": partial(F.huber_loss, delta=2.5),
        "huber far": partial(F.huber_loss, delta=50.0),
        "clipped": lambda o, t: (o.clamp(-3, 3) - t).square().mean(),
        "absolute": F.l1_loss,
        "root": lambda o, t: (F.mse_loss(o, t) + 1e-3).sqrt(),
        "module": nn.MSELoss(),
        "with another term": lambda o, t: F.mse_loss(o, t) + 0.01 * o.mean(),
    }
    labels = {
        "cross entropy": F.cross_entropy,
        "cross entropy, sum": lambda o, t: 0.1 * F.cross_entropy(o, t, reduction="sum"),
        "class weights": partial(F.cross_entropy, weight=torch.linspace(0.5, 2, outputs, dtype=dtype)),
        "smoothed": partial(F.cross_entropy, label_smoothing=0.1),
    }
    kinds = labels if outputs > 1 and pick.random() < 0.5 else regression
    name = pick.choice(list(kinds))
    return name, kinds[name], kinds is labels


def _rule(pick, kind):
    """A rule that a plain loop has in one way.

    What a hook or a subclass does to gradients, it does to a penalty in them and not to torch's own;
    Adafactor takes the length of its step from the weights before its own decay.
    """
    rule = pick.choice(["Decoupled", "L2"])
    return {"clipping": "Decoupled", "a subclass": "Decoupled", "Adafactor": "L2"}.get(kind, rule)


def drawn(seed: int) -> Case:
    """The case of a seed."""
    pick, case = random.Random(seed), Case()
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if pick.random() < 0.8 else torch.float32
    name = pick.choice([*MODELS, "linear", "squeezed"])
    outputs = 1 if name == "squeezed" or pick.random() < 0.4 else 3
    epochs = pick.randint(1, 3)
    n, batch = pick.choice([(24, 8), (23, 8), (19, 19), (20, 40), (33, 12), (12, 5), (30, 7), (17, 3)])
    batch = min(batch, n)
    loss_name, loss, labels = _losses(pick, outputs, dtype, batch)
    X = torch.randn(n + 20, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    shape = () if name == "squeezed" else (outputs,)
    y = (X @ torch.randn(WIDTH, math.prod(shape), generator=generator, dtype=torch.float64).to(dtype)).view(
        -1, *shape
    ) + 0.3
    if labels:
        y = y.argmax(-1)
    kind = pick.choice(list(OPTIMIZERS))
    if pick.random() < 0.3:
        kind = pick.choice(list(FACTORIES))
    if kind == "Muon":
        name, make = "flat", flat
    else:
        make = (lambda _: Squeezed()) if name == "squeezed" else MODELS[name]
    optimizer = {**OPTIMIZERS, **FACTORIES}[kind]
    steps = epochs * -(-n // batch)
    rates = None
    if kind in OPTIMIZERS and pick.random() < 0.25:
        top = optimizer.keywords["lr"]
        rates = [top * (1 - k / (2 * steps)) for k in range(steps)]
    case.made = {
        "make_model": lambda: make(outputs).to(dtype),
        "train": (X[:n], y[:n]),
        "test": (X[n:], y[n:]),
        "loss": loss,
        "optimizer": optimizer,
        "rule": _rule(pick, kind),
        "lam": pick.choice([0.01, 0.3, 2.0]),
        "epochs": epochs,
        "batch_size": batch,
        "clip": pick.choice([None, None, None, 0.5]),
        "rates": rates,
        "chunk": pick.choice([None, None, 1, 3]),
        "every": pick.choice([1, 1, 2]),
    }
    case.told = [name, loss_name, kind, str(dtype)[6:], f"{n} in batches of {batch}, {epochs} epochs"]
    case.told += [f"{key} {case.made[key]}" for key in ("rule", "lam", "clip", "chunk", "every")]
    case.told += ["a schedule"] * (rates is not None)
    return case


def case(seed: int) -> str | None:
    """A sweep of two strengths and two seeds; what differs from plain loops, in words."""
    one = drawn(seed)
    made, said = one.made, ", ".join(one.told)
    try:
        with torch.random.fork_rng():
            found = swept(**made)
    except InputError as error:
        return f"refused: {error} ({said})"
    near = 1e-7 if made["train"][0].dtype == torch.float64 else 5e-3
    for trained in found.trained:
        wanted = alone(made, trained.copy.strength, trained.copy.seed)
        for look in trained.looks:
            pairs = (
                (look.train_loss, wanted.train[look.epoch - 1]),
                (look.test_loss, wanted.test[look.epoch - 1]),
            )
            for what, (got, right) in zip(("train", "test"), pairs, strict=True):
                if not abs(got - right) <= near * (1 + abs(right)):
                    return f"{what} loss {got:.9g} for {right:.9g}, {found.method[:60]} ({said})"
        if trained.copy.strength != found.best:
            continue
        place = found.seeds.index(trained.copy.seed)
        for name, right in wanted.weights.items():
            gap = (found.weights[name][place].double() - right.double()).abs().max().item()
            if near < 1e-6 and not gap <= 1e-6 * (1 + float(right.abs().max())):
                return f"{name} is off by {gap:.2g}, {found.method[:60]} ({said})"
    return None


def swept(rule, lam, rates, **made):
    """The sweep of a case."""
    return wd.sweep(rule=getattr(wd, rule), strengths=[lam], seeds=2, widen=0, schedule=rates, **made)


def alone(made, strength, seed):
    """The plain loop of one of its trainings."""
    names = ("loss", "optimizer", "epochs", "batch_size", "rule", "clip", "rates")
    with torch.random.fork_rng():
        return plain.train(
            made["make_model"], made["train"], made["test"], lam=strength, seed=seed,
            **{name: made[name] for name in names},
        )  # fmt: skip
