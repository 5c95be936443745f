"""The four versions of the experiment: the plain program of each, and what it is to the batched one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from weightdecay.sweeps import AdamBias, LinearProblem, LinearSweep, train_linear
from weightdecay.textbook import concise, scratch
from weightdecay.textbook.settings import Draw, Experiment

Watch = Callable[[int, float, float, float], None]
Strength = TypeVar("Strength", float, Tensor)


@dataclass(frozen=True)
class Version:
    """What a version makes of the λ and lr a reader gives.

    Args:
        name: its value in `version`.
        loss_scale: c in c/(2n)·||Xw + b − y||²: 1 from scratch, 2 for MSELoss.
        lam_factor: the optimizer is given weight_decay = lam_factor·λ ...
        lr_factor: ... and lr_factor·lr.
        draws_bias: the bias starts at N(0, 1), as the textbook's concise version does, not at 0.
        adam_bias: Adam steps the bias, SGD the weight.
    """

    name: str
    loss_scale: float = 1.0
    lam_factor: float = 1.0
    lr_factor: float = 1.0
    draws_bias: bool = False
    adam_bias: bool = False

    def canonical(self, lam: Strength, lr: float) -> tuple[Strength, float]:
        """The λ and lr that give the same path under half mean squared loss: λ/c and c·lr."""
        return lam * self.lam_factor / self.loss_scale, lr * self.lr_factor * self.loss_scale

    def start(self, draw: Draw, settings: Experiment) -> tuple[Tensor, Tensor]:
        """The starting weights (p,) and bias (), in float64."""
        if settings.init == "zero":
            return torch.zeros_like(draw.w), torch.zeros_like(draw.b)
        return draw.w, draw.b if self.draws_bias else torch.zeros_like(draw.b)


VERSIONS = {
    version.name: version
    for version in (
        Version("scratch"),
        Version("concise", loss_scale=2.0, draws_bias=True),
        Version("concise-matched", loss_scale=2.0, lam_factor=2.0, lr_factor=0.5),
        Version("two-optimizers", loss_scale=2.0, draws_bias=True, adam_bias=True),
    )
}


def train_plain(
    version: Version, draw: Draw, settings: Experiment, lam: float, watch: Watch
) -> tuple[Tensor, Tensor]:
    """Train one seed at one λ by the program a reader reads; returns the final weights (p,) and bias ()."""
    dtype = settings.torch_dtype
    w, b = version.start(draw, settings)
    w, b = w.to(dtype), b.to(dtype)
    train_data = draw.X.to(dtype), draw.y.to(dtype)
    test_data = draw.X_test.to(dtype), draw.y_test.to(dtype)
    loop = {
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "every": settings.every,
        "generator": draw.generator(),
        "watch": watch,
    }
    if version.name == "scratch":
        w, b = w.clone().requires_grad_(), b.clone().requires_grad_()
        scratch.train(
            train_data, test_data, w, b, lam=lam, lr=settings.lr, penalize_bias=settings.penalize_bias, **loop
        )
        return w.detach(), b.detach()
    model = concise.linear_model(w, b)
    decay = version.lam_factor * lam
    step = {
        "lr": version.lr_factor * settings.lr,
        "weight_decay": decay,
        "bias_decay": decay if settings.penalize_bias else 0.0,
    }
    if version.adam_bias:
        optimizers = concise.two_optimizers(model, bias_lr=settings.bias_lr, **step)
    else:
        optimizers = concise.one_optimizer(model, **step)
    concise.train(train_data, test_data, model, optimizers, **loop)
    return model.weight.detach().squeeze(0), model.bias.detach().squeeze(0)


def stack(version: Version, draws: list[Draw], settings: Experiment) -> LinearProblem:
    """The draws of several seeds as one batched problem."""
    seeds = []
    for draw in draws:
        start = version.start(draw, settings)
        seeds.append((draw.X, draw.y, draw.X_test, draw.y_test, *start, draw.order(settings.epochs)))
    X, y, X_test, y_test, w, b, order = map(torch.stack, zip(*seeds, strict=True))
    dtype = settings.torch_dtype
    tensors = X.to(dtype), y.to(dtype), X_test.to(dtype), y_test.to(dtype), w.to(dtype), b.to(dtype)
    return LinearProblem(*tensors, order=order)


def train_batched(
    version: Version,
    draws: list[Draw],
    settings: Experiment,
    lambdas: Tensor,
    on_epoch: Callable[[int, int], None] | None = None,
    *,
    lr: float | None = None,
    every: int | None = None,
) -> LinearSweep:
    """Train several seeds at several λ as one batched program; each comes out as trained alone."""
    return train_linear(
        stack(version, draws, settings),
        version.lam_factor * lambdas,
        lr=version.lr_factor * (settings.lr if lr is None else lr),
        batch_size=settings.batch_size,
        every=every or settings.every,
        loss_scale=version.loss_scale,
        penalize_bias=settings.penalize_bias,
        adam_bias=AdamBias(settings.bias_lr) if version.adam_bias else None,
        on_epoch=on_epoch,
    )
