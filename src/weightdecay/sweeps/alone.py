"""One training as people write it: the oracle of the vectorised trainer, and its fallback."""

import functools
import inspect
import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import weightdecay.hooks as hooks
from weightdecay.errors import WeightDecayWarning
from weightdecay.rules import Chain
from weightdecay.sweeps.chunk import Settings, optimizer_of
from weightdecay.sweeps.looks import (
    at_epoch,
    load_optimizer_state,
    loss_of,
    made,
    measured_alone,
    measures_of,
    mixed,
    optimizer_state,
    order,
    outputs_of,
    pack,
    reseed,
    tensors_of,
    trained_of,
    unpack,
)
from weightdecay.sweeps.task import Checkpoint, ChunkResult, Copy, Data, Look, OnEpoch


class Alone:
    """A copy in training: the user's model, the user's optimizer, and the rule attached to it."""

    def __init__(self, settings: Settings, copy: Copy) -> None:
        self.settings, self.copy = settings, copy
        task, rules = settings.task, settings.strong[settings.chunk.strengths.index(copy.strength)].rules
        self.model = made(task, copy.seed)
        self.optimizer = optimizer_of(task, list(self.model.parameters()), copy.lr)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WeightDecayWarning)
            self.decay = hooks.attach(
                self.optimizer,
                rules[0] if len(rules) == 1 else Chain(rules),
                model=self.model,
                on=task.on,
                steps_per_epoch=settings.steps_per_epoch,
                samples_per_step=task.batch_size,
                steps=settings.rates.shape[1],
                schedule=settings.rates,
            )
        # Whether the optimizer evaluates the loss itself, as LBFGS does.
        closure = inspect.signature(type(self.optimizer).step).parameters.get("closure")
        needed = closure is not None and closure.default is inspect.Parameter.empty
        self.takes_closure = needed or isinstance(self.optimizer, torch.optim.LBFGS)
        self.looks: list[list[Any]] = []  # the fields of a `Look`, as a checkpoint has them
        self.diverged: int | None = None

    def train_epoch(self, epoch: int) -> None:
        """Train an epoch, counted from 0, up to a loss that is not finite; look after it if it is time."""
        task, data, seed = self.settings.task, self.settings.task.train, self.copy.seed
        self.model.train()
        batches = order(len(data), seed, epoch).split(task.batch_size)
        total = 0.0
        for i, rows in enumerate(batches if self.diverged is None else ()):
            step = epoch * len(batches) + i
            for group, lr in zip(self.optimizer.param_groups, self.settings.rates[:, step], strict=True):
                group["lr"] = float(lr)
            losses: list[float] = []
            closure = functools.partial(self._backward, step, data.rows(rows, task.device), losses)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", WeightDecayWarning)
                if self.takes_closure:
                    self.optimizer.step(closure)  # pyright: ignore[reportCallIssue, reportArgumentType]
                else:
                    closure()
                    self.optimizer.step()
            total += len(rows) / len(data) * losses[0]  # before the step, without penalty
            if not math.isfinite(losses[0]):
                self.diverged = step
                break
        if task.looked_at(epoch + 1):
            finite = self.diverged is None
            self.looks.append(self._look(epoch + 1, total if finite else math.nan))

    def _backward(self, step: int, batch: Data, losses: list[float]) -> Tensor:
        """Make the gradients of a batch; its loss is appended to `losses`."""
        task = self.settings.task
        reseed(mixed(self.copy.seed, "step", step), task.device)
        self.optimizer.zero_grad()
        loss = loss_of(task, self.model(*batch.inputs), batch.target)
        loss.backward()
        if task.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), task.clip)
        losses.append(loss.item())
        return loss

    @torch.no_grad()
    def _look(self, epoch: int, train_loss: float) -> list[Any]:
        task = self.settings.task
        if self.diverged is not None:
            return [epoch, math.nan, math.nan, dict.fromkeys(task.metrics, math.nan)]
        self.model.eval()
        reseed(mixed(self.copy.seed, "look", epoch), task.device)
        outputs = outputs_of(self.model, task.test, task)
        target = task.test.target.to(task.device)
        measures = {
            name: measured_alone(name, measure, outputs, target)
            for name, measure in measures_of(task).items()
        }
        return [epoch, train_loss, measures.pop(""), measures]

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers on the CPU; NaN if it diverged."""
        weights = {}
        for name, tensor in tensors_of(self.model).items():
            weights[name] = tensor.detach().to("cpu", copy=True)
            if self.diverged is not None and tensor.is_floating_point():
                weights[name].fill_(math.nan)
        return weights

    def state(self) -> dict[str, Any]:
        """All that training goes on from."""
        return {
            "model": tensors_of(self.model),
            "optimizer": optimizer_state(self.optimizer),
            "decay": self.decay.state_dict(),
            "looks": self.looks,
            "diverged": self.diverged,
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, tensor in tensors_of(self.model).items():
            tensor.copy_(state["model"][name])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.decay.load_state_dict(state["decay"])
        self.looks, self.diverged = state["looks"], state["diverged"]


def train_alone(
    settings: Settings, start: Checkpoint | None = None, on_epoch: OnEpoch | None = None
) -> ChunkResult:
    """Train the copies of a chunk one after another; epochs are counted over all of them."""
    task, chunk = settings.task, settings.chunk
    finished: list[list[Any]] = []  # of each copy that is done: looks, diverged, weights
    running, done = None, 0
    if start is not None:
        finished, running = unpack(start.tensors, start.plain, task.device)
        done = start.epoch
    for copy in chunk.copies[len(finished) :]:
        run = Alone(settings, copy)
        if running is not None:
            run.load(running)
            running = None
        for epoch in range(done - len(finished) * task.epochs, task.epochs):
            with at_epoch(epoch + 1):
                run.train_epoch(epoch)
            done += 1
            if on_epoch is not None and epoch + 1 < task.epochs:
                on_epoch(done, lambda done=done, run=run: Checkpoint(done, *pack([finished, run.state()])))
        finished.append([run.looks, run.diverged, run.weights()])
        if on_epoch is not None:
            on_epoch(done, lambda done=done: Checkpoint(done, *pack([finished, None])))
    trained, each = [], []
    for copy, (looks, diverged, weights) in zip(chunk.copies, finished, strict=True):
        number = settings.weight_decays[chunk.strengths.index(copy.strength)]
        looks = [Look(*look) for look in looks]
        trained.append(trained_of(copy, number, looks, diverged, task.steps_per_epoch))
        each.append(weights)
    shape = len(chunk.seeds), len(chunk.strengths)
    weights = pytree.tree_map(lambda *same: torch.stack(same).unflatten(0, shape), *each)
    return ChunkResult(tuple(trained), weights)
