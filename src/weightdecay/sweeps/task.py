"""What is trained, and on what: everything about a sweep but the strengths and the seeds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from weightdecay.hooks.plan import On
from weightdecay.rules import Chain, Rule, Strength


@dataclass(frozen=True)
class Data:
    """Examples in memory; the first axis of every tensor counts them.

    Args:
        inputs: what the model is called with, one tensor for each argument.
        target: what the loss compares the output with.
    """

    inputs: tuple[Tensor, ...]
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Task:
    """What is trained; everything but strength and seed.

    Args:
        make_model: makes a model, drawing its initialisation from torch's global generator.
        train: the training data, whole.
        test: the data that the curves are measured on.
        loss: (output, target) -> 0-dim tensor, the mean over a batch.
        metrics: name -> (output, target) -> 0-dim tensor, over all of the test data.
        optimizer: called with a list of parameters, and with `lr=` where there are several; decays nothing.
        rules: name -> strength -> rule, say {"Decoupled": wd.Decoupled}.
        lrs: the step sizes of a second axis, or None.
        schedule: None, or whatever `weightdecay.schedule.lrs` takes, or `optimizer -> torch LR scheduler`.
        on: which parameters decay, as in `wd.attach`.
        epochs: passes over the training data.
        batch_size: examples of a step; the last batch of an epoch holds what is left.
        every: the test data are looked at after every so many epochs, and at the end.
        clip: largest norm of a copy's gradient, as torch.nn.utils.clip_grad_norm_; None: as it is.
        device: where the training happens.
        threads: of torch, while a chunk is trained.
    """

    make_model: Callable[[], nn.Module]
    train: Data
    test: Data
    loss: Callable[[Any, Tensor], Tensor]
    metrics: Mapping[str, Callable[[Any, Tensor], Tensor]]
    optimizer: Callable[..., Optimizer]
    rules: Mapping[str, Callable[[Strength], Rule | Chain]]
    lrs: tuple[float, ...] | None
    schedule: Any
    on: On
    epochs: int
    batch_size: int
    every: int
    clip: float | None
    device: torch.device
    threads: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-len(self.train) // self.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps of a run."""
        return self.epochs * self.steps_per_epoch

    def looked_at(self, epoch: int) -> bool:
        """Whether the test data are looked at after this epoch, counted from 1."""
        return epoch % self.every == 0 or epoch == self.epochs
