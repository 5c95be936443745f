"""The copies of a chunk as one model: parameters (seeds, strengths, ...), nested vmap, one optimizer."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn, optim
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from weightdecay.sweeps.allocator import kept_memory
from weightdecay.sweeps.decay import AXES, StackedDecay
from weightdecay.sweeps.looks import all_trained, loss_of, measured_alone, measures_of, outputs_of, told
from weightdecay.sweeps.packing import load_optimizer_state, optimizer_state, pack, unpack
from weightdecay.sweeps.records import Checkpoint, ChunkResult
from weightdecay.sweeps.seeds import made, mixed, order, reseed
from weightdecay.sweeps.settings import Settings, optimizer_of
from weightdecay.sweeps.task import Data

OnEpoch = Callable[[int, Callable[[], Checkpoint]], None]
# Optimizers whose fused kernels do the same arithmetic in one pass over memory.
_FUSED = (optim.SGD, optim.Adam, optim.AdamW, optim.Adagrad)


class Copies:
    """Some strengths of a chunk at all of its seeds, in training.

    Args:
        settings: the chunk.
        strengths: which of its strengths, by position.
    """

    def __init__(self, settings: Settings, strengths: range) -> None:
        self.settings, self.strengths = settings, strengths
        task, chunk = settings.task, settings.chunk
        models = [made(task, seed) for seed in chunk.seeds]
        self.model, count = models[0], len(strengths)
        self.parameters = {
            name: nn.Parameter(stacked, requires_grad=p.requires_grad)
            for (name, p), stacked in zip(
                self.model.named_parameters(),
                _stacked([dict(model.named_parameters()) for model in models], count),
                strict=True,
            )
        }
        buffers = [dict(model.named_buffers()) for model in models]
        self.buffers = dict(zip(buffers[0], _stacked(buffers, count), strict=True))
        self.optimizer = optimizer_of(task, list(self.parameters.values()), chunk.lr)
        fuse(self.optimizer)
        self.decay = StackedDecay(settings, strengths, self.optimizer, self.parameters)
        shape = len(chunk.seeds), count
        self.diverged = torch.full(shape, -1, dtype=torch.int64, device=task.device)
        self.looks: list[dict[str, Any]] = []
        self._losses = self._over_copies(self._loss, len(task.train.inputs), 0, seed=0)
        self._outputs = self._over_copies(self._output, len(task.test.inputs), seed=None)

    def _loss(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Tensor:
        output = functional_call(self.model, (parameters, buffers), data[:-1])
        return loss_of(self.settings.task, output, data[-1])

    def _output(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Any:
        return functional_call(self.model, (parameters, buffers), data)

    def _over_copies(self, function: Callable[..., Any], inputs: int, *more: int, seed: int | None) -> Any:
        """A function of one copy's weights, inputs and more, for all copies.

        All strengths share the inputs, so a first layer sees one batch for all of them; seeds have inputs of
        their own (axis `seed`) or not (None). What is drawn is the same at every strength: a model that
        draws has one seed here.
        """
        inner = vmap(function, (0, 0, *(None,) * inputs, *more), randomness="same")
        if len(self.settings.chunk.seeds) == 1:  # one level less for every operation to go through
            return _with_one_seed(inner, inputs if seed is None else 0)
        return vmap(inner, (0, 0, *(seed,) * inputs, *more), randomness="same")

    def train_epoch(self, epoch: int, data: Data) -> None:
        """Train an epoch, counted from 0, and look at the test data after it if it is time."""
        task, chunk, rates = self.settings.task, self.settings.chunk, self.settings.rates
        self.model.train()
        orders = torch.stack([order(len(data), seed, epoch) for seed in chunk.seeds]).to(task.device)
        batches = orders.split(task.batch_size, 1)
        losses = torch.empty(len(batches), *self.diverged.shape, dtype=torch.float64, device=task.device)
        for i, rows in enumerate(batches):
            step = epoch * len(batches) + i
            for group, lr in zip(self.optimizer.param_groups, rates[:, step], strict=True):
                group["lr"] = float(lr)
            reseed(mixed(chunk.seeds[0], "step", step), task.device)
            self._step(step, losses[i], *(tensor[rows] for tensor in (*data.inputs, data.target)))
        bad = ~losses.isfinite()
        first = torch.where(bad.any(0), bad.int().argmax(0) + epoch * len(batches), -1)
        self.diverged = torch.where(self.diverged < 0, first, self.diverged)
        if task.looked_at(epoch + 1):
            sizes = torch.tensor([rows.shape[1] for rows in batches], dtype=torch.float64, device=task.device)
            self._look(epoch + 1, torch.tensordot(sizes / len(data), losses, 1))

    def _step(self, step: int, losses: Float[Tensor, "S L"], *batch: Tensor) -> None:
        task = self.settings.task
        # Losses and metrics get a target of every copy's own, a view: some refuse one that only seeds have.
        *inputs, target = batch
        target = target.unsqueeze(1).expand(-1, losses.shape[1], *target.shape[1:])
        found = self._losses(dict(self.parameters), self.buffers, *inputs, target)
        losses.copy_(found.detach())
        self.optimizer.zero_grad(set_to_none=True)
        found.sum().backward()
        if task.clip is not None:
            clip_each(list(self.parameters.values()), task.clip)
        self.decay.before(step)
        self.optimizer.step()
        self.decay.after()

    @torch.no_grad()
    def _look(self, epoch: int, train_loss: Tensor) -> None:
        task = self.settings.task
        self.model.eval()
        reseed(mixed(self.settings.chunk.seeds[0], "look", epoch), task.device)
        weights = {name: p.detach() for name, p in self.parameters.items()}
        test = moved(task.test, task.device)
        outputs = outputs_of(
            lambda *inputs: self._outputs(weights, self.buffers, *inputs), test, task, rows_axis=AXES
        )
        found = {
            name: measured(name, measure, outputs, test.target, train_loss.shape).cpu()
            for name, measure in measures_of(task).items()
        }
        self.looks.append({"epoch": epoch, "train": train_loss.cpu(), "test": found})

    def state(self) -> dict[str, Any]:
        """All that training goes on from."""
        return {
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "buffers": self.buffers,
            "optimizer": optimizer_state(self.optimizer),
            "rules": self.decay.states,
            "diverged": self.diverged,
            "looks": self.looks,
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, p in self.parameters.items():
            p.copy_(state["parameters"][name])
        self.buffers, self.decay.states = state["buffers"], state["rules"]
        self.diverged, self.looks = state["diverged"], state["looks"]
        load_optimizer_state(self.optimizer, state["optimizer"])


def train_vectorised(
    settings: Settings,
    start: Checkpoint | None = None,
    on_epoch: OnEpoch | None = None,
    together: int | None = None,
) -> ChunkResult:
    """Train all copies of a chunk, `together` strengths at a time within each epoch."""
    task, chunk = settings.task, settings.chunk
    data = moved(task.train, task.device)
    together = together or len(chunk.strengths)
    parts = [
        Copies(settings, range(i, min(i + together, len(chunk.strengths))))
        for i in range(0, len(chunk.strengths), together)
    ]
    done = 0
    if start is not None:
        done = start.epoch
        for part, state in zip(parts, unpack(start.tensors, start.plain, task.device), strict=True):
            part.load(state)
    with kept_memory():
        for epoch in range(done, task.epochs):
            with told(epoch + 1):
                for part in parts:
                    part.train_epoch(epoch, data)
            if on_epoch is not None:
                on_epoch(epoch + 1, lambda at=epoch + 1: Checkpoint(at, *pack([p.state() for p in parts])))
    return _result(settings, parts)


def measured(
    name: str, measure: Callable[[Any, Tensor], Tensor], outputs: Any, target: Tensor, shape: torch.Size
) -> Float[Tensor, "S L"]:
    """A loss or metric of every copy's outputs; one after another where it cannot be batched.

    Raises:
        InputError: the user's function fails.
    """
    try:
        return (
            vmap(vmap(measure))(outputs, target.expand(*shape, *target.shape))
            .detach()
            .double()
            .reshape(shape)
        )
    except Exception:  # a metric that looks at values, or leaves torch
        pick = pytree.tree_map
        values = [
            [
                measured_alone(name, measure, pick(lambda leaf: leaf[s, i], outputs), target)  # noqa: B023
                for i in range(shape[1])
            ]
            for s in range(shape[0])
        ]
        return torch.tensor(values, dtype=torch.float64)


@torch.no_grad()
def clip_each(parameters: list[nn.Parameter], most: float) -> None:
    """Clip the gradient of every copy by its own norm, as torch.nn.utils.clip_grad_norm_ does for one."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = [torch.linalg.vector_norm(g.flatten(AXES), dim=-1) for g in gradients if g.ndim > AXES]
    norms += [g.abs() for g in gradients if g.ndim == AXES]
    factor = (most / (torch.linalg.vector_norm(torch.stack(norms), dim=0) + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(factor.view(*factor.shape, *(1,) * (g.ndim - AXES)))


def _with_one_seed(inner: Callable[..., Any], shared: int) -> Callable[..., Any]:
    """The function over strengths alone, from and to tensors with a first axis of one seed."""

    def function(parameters: Any, buffers: Any, *data: Tensor) -> Any:
        own = parameters, buffers, data[shared:]
        parameters, buffers, data_of_seed = pytree.tree_map(lambda leaf: leaf.squeeze(0), own)
        found = inner(parameters, buffers, *data[:shared], *data_of_seed)
        return pytree.tree_map(lambda leaf: leaf.unsqueeze(0), found)

    return function


def _stacked(by_seed: list[dict[str, Tensor]], strengths: int) -> list[Tensor]:
    """Each tensor with leading axes (S, L), every strength with memory of its own."""
    return [
        torch.stack([tensors[name].detach() for tensors in by_seed])
        .unsqueeze(1)
        .repeat(1, strengths, *(1,) * by_seed[0][name].ndim)
        for name in by_seed[0]
    ]


def fuse(optimizer: optim.Optimizer) -> None:
    """Switch on the fused kernel where the user left the choice to torch."""
    floats = (torch.float32, torch.float64)
    for group in optimizer.param_groups:
        free = group.get("fused", False) is None and not group.get("foreach") and not group.get("capturable")
        plain = not group.get("differentiable") and not group.get("amsgrad")
        if type(optimizer) in _FUSED and free and plain and all(p.dtype in floats for p in group["params"]):
            group["fused"] = True


def moved(data: Data, device: torch.device) -> Data:
    """The data on a device."""
    return Data(tuple(tensor.to(device) for tensor in data.inputs), data.target.to(device))


def _result(settings: Settings, parts: list[Copies]) -> ChunkResult:
    chunk, steps = settings.chunk, settings.task.steps_per_epoch
    diverged = torch.cat([part.diverged for part in parts], 1).cpu()
    weights = {
        name: torch.cat([{**part.parameters, **part.buffers}[name].detach() for part in parts], 1).cpu()
        for name in (*parts[0].parameters, *parts[0].buffers)
    }
    for tensor in weights.values():
        if tensor.is_floating_point():
            tensor[diverged >= 0] = math.nan
    # One look of all parts is theirs side by side.
    seen = [
        {
            "epoch": looks[0]["epoch"],
            "train": torch.cat([look["train"] for look in looks], 1),
            "test": {name: torch.cat([look["test"][name] for look in looks], 1) for name in looks[0]["test"]},
        }
        for looks in zip(*(part.looks for part in parts), strict=True)
    ]
    numbers = [strong.weight_decay for strong in settings.strong]
    return ChunkResult(all_trained(chunk, numbers, steps, seen, diverged), weights)
