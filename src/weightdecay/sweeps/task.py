"""What a sweep is asked for, checked (`Task`, by `task_of`), its data in memory, what trainings give."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from weightdecay.arguments import count, function, number
from weightdecay.errors import InputError
from weightdecay.hooks.plan import On
from weightdecay.rules import Chain, Rule, Strength
from weightdecay.sweeps.grid import Strengths, strengths_of
from weightdecay.text import Text


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

    def map(self, function: Callable[[Tensor], Tensor]) -> "Data":
        """These data with a function applied to every tensor."""
        return Data(tuple(map(function, self.inputs)), function(self.target))

    def rows(self, rows: slice | Tensor, device: torch.device | None = None) -> "Data":
        """These rows of every tensor, on a device."""
        return self.map(lambda x: x[rows].to(device))


@dataclass(frozen=True)
class Goal:
    """What a strength is chosen by.

    Args:
        name: "loss", the test loss, or the name of a metric.
        maximize: whether more is better.
    """

    name: str = "loss"
    maximize: bool = False

    @property
    def title(self) -> Text:
        """How an axis or a sentence calls it."""
        if self.name == "loss":
            return Text("test loss", "测试损失")
        return Text(f"test {self.name}", f"测试 {self.name}")

    @property
    def sign(self) -> float:
        """Times this, less is better."""
        return -1.0 if self.maximize else 1.0

    def score(self, trained: "Trained") -> float:
        """A training's score; infinitely bad where it diverged or its score is not finite."""
        value = trained.test_loss if self.name == "loss" else trained.metrics[self.name]
        return value if trained.diverged is None and math.isfinite(value) else self.sign * math.inf

    def unmeasured(self, trained: "Trained") -> bool:
        """Whether the metric is not finite where the loss is: the metric's doing, not the training's."""
        if self.name == "loss" or trained.diverged is not None or not math.isfinite(trained.test_loss):
            return False
        return not math.isfinite(trained.metrics[self.name])


def goal_of(minimize: str, maximize: str | None, metrics: Sequence[str]) -> Goal:
    """What to choose by: `minimize` ("loss" or a metric), or `maximize` where it is given.

    Raises:
        InputError: no such metric; a metric called "loss".

    >>> goal_of("loss", "accuracy", ["accuracy"])
    Goal(name='accuracy', maximize=True)
    """
    if "loss" in metrics:
        raise InputError("a metric has the loss's name", "metrics", "'loss'", "give it another")
    where, name = ("minimize", minimize) if maximize is None else ("maximize", maximize)
    if maximize == "loss":
        raise InputError("more loss is not better", "maximize", "'loss'", "use minimize, or name a metric")
    if name not in ("loss", *metrics):
        raise InputError("no such score", where, repr(name), f"use {' or '.join(['loss', *metrics])}")
    return Goal(name, maximize is not None)


@dataclass(frozen=True)
class Task:
    """What a sweep is asked to train, checked.

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
        strengths: the grid as given, no decay included.
        seeds: the seeds.
        goal: what is chosen by.
        widen: how many rounds may widen the grid.
        refine: how many rounds refine it.
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
    strengths: Strengths = field(default_factory=lambda: Strengths((0.0,), "weight_decay"))
    seeds: tuple[int, ...] = (0,)
    goal: Goal = Goal()
    widen: int = 0
    refine: int = 0

    @property
    def pairs(self) -> list[tuple[str, float | None]]:
        """Every rule at every step size."""
        return list(itertools.product(self.rules, self.lrs or (None,)))

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


BATCH = 128  # where none is given


def task_of(
    make_model: Any,
    train: Any,
    test: Any,
    *,
    loss: Any,
    optimizer: Any,
    rule: Any,
    strengths: Any,
    seeds: Any,
    epochs: Any,
    batch_size: Any,
    metrics: Any,
    schedule: Any,
    clip: Any,
    on: Any,
    every: Any,
    lr: Any,
    minimize: Any,
    maximize: Any,
    widen: Any,
    refine: Any,
    device: Any,
) -> Task:
    """The task, from what a user gave to `sweep`.

    Raises:
        InputError: an argument that cannot be used.
    """
    grid, seeds = strengths_of(strengths), seeds_of(seeds)
    widen, refine = count(widen, "widen", least=0, most=20), count(refine, "refine", least=0, most=20)
    adamw = "partial(torch.optim.AdamW, lr=1e-3, weight_decay=0)"
    for name, value, example in (
        ("make_model", make_model, "a function that returns a new model"),
        ("loss", loss, "a function of (output, target), say torch.nn.functional.cross_entropy"),
        ("optimizer", optimizer, f"a function of the parameters, say {adamw}"),
    ):
        kind = type(value).__name__
        function(None if isinstance(value, torch.optim.Optimizer) else value, name, f"give {example}", kind)
    train_data, test_data = data_of(train, "train"), data_of(test, "test")
    if batch_size is None:
        own = train.batch_size if isinstance(train, DataLoader) else None
        batch_size = min(own or BATCH, len(train_data))
    metrics = _metrics(metrics)
    return Task(
        make_model=make_model,
        train=train_data,
        test=test_data,
        loss=loss,
        metrics=metrics,
        optimizer=optimizer,
        rules=rules_named(rule),
        lrs=_lrs(lr),
        schedule=schedule,
        on=tuple(on) if isinstance(on, list) else on,
        epochs=count(epochs, "epochs"),
        batch_size=count(batch_size, "batch_size", most=len(train_data)),
        every=count(every, "every"),
        clip=None if clip is None else number(clip, "clip", above=0),
        device=_device(device, train_data.target),
        threads=torch.get_num_threads(),
        strengths=grid,
        seeds=seeds,
        goal=goal_of(minimize, maximize, tuple(metrics)),
        widen=widen,
        refine=refine,
    )


def seeds_of(seeds: Any) -> tuple[int, ...]:
    """0 … n − 1 for a number n, or the seeds that are given: a list, a range, an array or a tensor.

    Raises:
        InputError: none, one that is repeated, or not a whole number from 0 to 2**62.

    >>> seeds_of(3), seeds_of([7, 5]), seeds_of(range(10, 12))
    ((0, 1, 2), (7, 5), (10, 11))
    """
    plain = seeds.tolist() if hasattr(seeds, "tolist") else seeds  # an array, a tensor or a number of theirs
    if isinstance(plain, str) or not isinstance(plain, Sequence):
        return tuple(range(count(plain, "seeds", most=100_000)))
    values = []
    for i, value in enumerate(plain):
        checked = count(value, f"seeds[{i}]", least=0, most=2**62)
        # Through a float, whole numbers beyond 2**53 would become others.
        values.append(int(value) if isinstance(value, int | np.integer) else checked)
    if not values:
        raise InputError("no seeds", "seeds", values, "give at least one, or how many")
    if len(set(values)) < len(values):
        raise InputError("seeds have to be different", "seeds", values, "give each once")
    return tuple(values)


def rules_named(rule: Any) -> dict[str, Callable[[Any], Rule | Chain]]:
    """Rules by name, from one or several; a rule is a class such as Decoupled or a function of the strength.

    Raises:
        InputError: none, no function, a rule that has its strength already, two of one name.

    >>> from weightdecay.rules import Cautious, Decoupled
    >>> list(rules_named([Decoupled, Cautious]))
    ['Decoupled', 'Cautious']
    """
    if isinstance(rule, Mapping):
        pairs = [(str(name), each) for name, each in rule.items()]
    else:
        several = rule if isinstance(rule, list | tuple) else [rule]
        pairs = [(getattr(each, "__name__", f"rule {i}"), each) for i, each in enumerate(several)]
    for name, each in pairs:
        if isinstance(each, Rule | Chain):
            what, remedy = "a rule that has its strength already", "give the class, say rule=wd.Decoupled"
            raise InputError(what, "rule", each.shown, remedy)
        if not callable(each):
            raise InputError("not a rule", "rule", repr(each), f"give, say, wd.Decoupled for {name}")
    rules = dict(pairs)
    if not rules or len(rules) < len(pairs):
        names = ", ".join(name for name, _ in pairs) or "none"
        raise InputError("rules need different names", "rule", names, "give a mapping from name to rule")
    return rules


def _metrics(metrics: Any) -> dict[str, Callable[..., Any]]:
    if metrics is not None and not isinstance(metrics, Mapping):
        remedy = "give a mapping, say {'accuracy': accuracy}"
        raise InputError("metrics have names", "metrics", type(metrics).__name__, remedy)
    for name, metric in (metrics or {}).items():
        if not isinstance(name, str):
            raise InputError("a metric's name is not text", "metrics", repr(name), "give, say, 'accuracy'")
        if not name:
            raise InputError("a metric without a name", "metrics", repr(name), "give, say, 'accuracy'")
        function(metric, f"metrics[{name!r}]", "give one of (output, target)")
    return dict(metrics or {})


def _lrs(lr: Any) -> tuple[float, ...] | None:
    if lr is None:
        return None
    several = lr.tolist() if hasattr(lr, "tolist") else lr
    if not isinstance(several, Sequence) or isinstance(several, str):
        several = [several]
    values = tuple(sorted(number(value, f"lr[{i}]", above=0) for i, value in enumerate(several)))
    if not values or len(set(values)) < len(values):
        raise InputError("step sizes have to be different", "lr", list(values), "give each once")
    return values


def _device(device: Any, data: torch.Tensor) -> torch.device:
    try:
        chosen = data.device if device is None else torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:
        what = f"no such device ({str(error).splitlines()[0]})"
        raise InputError(what, "device", device, "leave it out, or give 'cpu'") from error
    return chosen


# Items of a dataset that are fetched again to see whether they stay the same, and how often each.
_AGAIN, _TIMES = 8, 3
_REMEDY = "give tensors (X, y), a map-style Dataset or a DataLoader of one"


def data_of(data: Any, where: str) -> Data:
    """Take data into memory.

    Args:
        data: `Data`; tensors or arrays (X, y), or (X1, X2, y) for a model of several inputs; a map-style
            Dataset of such items; or a DataLoader, of which dataset and collate function are taken.
        where: what to call it in messages.

    Raises:
        InputError: something else; no examples; tensors of different lengths; numbers that are not finite;
            an item that differs when it is fetched again; a DataLoader with a sampler or a batch_sampler of
            its own, or with drop_last.

    >>> data_of((np.zeros((3, 2), dtype=np.float32), [0, 1, 1]), "train").target
    tensor([0, 1, 1])
    """
    if isinstance(data, Data):
        tensors = [*data.inputs, data.target]
    elif isinstance(data, DataLoader):
        if not isinstance(data.dataset, IterableDataset):  # which is refused as what it is
            _check_order(data, where)
        tensors = _fetched(data.dataset, data.collate_fn, where)
    elif isinstance(data, TensorDataset):
        tensors = list(data.tensors)
    elif isinstance(data, tuple | list):
        tensors = _flat(data, where)
    else:
        tensors = _fetched(data, default_collate, where)
    return _checked(tensors, where)


def _check_order(loader: DataLoader, where: str) -> None:
    """Refuse a loader of which more is lost than its order, which the sweep draws itself."""
    draws = "the sweep draws its own order, in which every epoch sees each example once"
    remedy = "give the dataset"
    if loader.batch_size is None:
        # None stands for both: batches that a batch_sampler makes, and examples without batches.
        batches: Any = loader.batch_sampler
        if batches is None:
            raise InputError("a DataLoader that makes no batches", f"{where}.batch_size", "None", remedy)
        what = f"a batch_sampler of its own is not followed: {draws}"
        raise InputError(what, f"{where}.batch_sampler", type(batches).__name__, f"{remedy}, and batch_size")
    sampler: Any = loader.sampler
    if type(sampler) not in (SequentialSampler, RandomSampler) or len(sampler) != len(loader.dataset):  # pyright: ignore[reportArgumentType]
        what = f"a sampler of its own is not followed: {draws}"
        raise InputError(what, f"{where}.sampler", type(sampler).__name__, remedy)
    if getattr(sampler, "replacement", False):
        what = f"a sampler with replacement is not followed: {draws}"
        raise InputError(what, f"{where}.sampler", type(sampler).__name__, remedy)
    if loader.drop_last:
        what = f"drop_last is not followed: {draws}"
        raise InputError(what, f"{where}.drop_last", True, "leave it out; the last batch holds what is left")


def _fetched(dataset: Any, collate: Callable[[list[Any]], Any], where: str) -> list[Tensor]:
    """All items of a dataset, as one batch."""
    by_place = hasattr(dataset, "__getitem__") and not isinstance(dataset, Mapping)
    if isinstance(dataset, IterableDataset) or not by_place:
        raise InputError(
            "not data that can be taken example by example", where, type(dataset).__name__, _REMEDY
        )
    try:
        count = len(dataset)
    except TypeError as error:
        raise InputError("data without a length", where, type(dataset).__name__, _REMEDY) from error
    if count == 0:
        raise InputError("no examples", where, 0, "give some")
    spread = sorted({round(i * (count - 1) / max(_AGAIN - 1, 1)) for i in range(_AGAIN)})
    for place in spread:
        first = _flat(collate([dataset[place]]), where)
        for _ in range(_TIMES - 1):
            for one, other in zip(first, _flat(collate([dataset[place]]), where), strict=True):
                if one.shape != other.shape or not torch.equal(one, other):
                    what = "an item differs when it is fetched again (random augmentation?)"
                    remedy = "give data that stay the same: copies are compared on equal data"
                    raise InputError(what, f"{where}[{place}]", None, remedy)
    return _flat(collate([dataset[i] for i in range(count)]), where)


def _flat(batch: Any, where: str) -> list[Tensor]:
    """A batch as tensors, the target last."""
    if not isinstance(batch, tuple | list):
        what = "an item has to be (input, target) or (input, ..., target)"
        raise InputError(what, where, type(batch).__name__, "give a collate function that makes it so")
    tensors = []
    for i, part in enumerate(batch):
        try:
            tensors.append(part.detach() if isinstance(part, Tensor) else torch.as_tensor(np.asarray(part)))
        except (TypeError, ValueError) as error:
            raise InputError("not numbers", f"{where}[{i}]", type(part).__name__, _REMEDY) from error
    return tensors


def _checked(tensors: Sequence[Tensor], where: str) -> Data:
    if len(tensors) < 2:
        raise InputError("inputs and a target are needed", where, f"{len(tensors)} tensors", _REMEDY)
    if 0 in map(Tensor.dim, tensors):
        raise InputError("a number where examples should be", where, "0-dim", _REMEDY)
    lengths = list(map(len, tensors))
    if len(set(lengths)) > 1:
        what = "the tensors differ in length"
        raise InputError(what, where, lengths, "the first axis of each counts the examples")
    if lengths[0] == 0:
        raise InputError("no examples", where, 0, "give some")
    for i, tensor in enumerate(tensors):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            row = int((~tensor.isfinite()).nonzero()[0, 0])
            raise InputError("not finite", f"{where}[{i}]", f"row {row}", "leave the row out, or fill it in")
    return Data(tuple(tensors[:-1]), tensors[-1])


@dataclass(frozen=True)
class Copy:
    """One training's name: the key of an evaluation.

    Args:
        rule: the rule's name in the task.
        lr: the step size where there are several, else None.
        strength: as it was given, in `unit`; 0 in any unit is no decay.
        unit: "weight_decay", or the unit of a half-life.
        seed: of initialisation, data order and the model's own draws.
    """

    rule: str
    lr: float | None
    strength: float
    unit: str
    seed: int


class Look(NamedTuple):
    """What one look saw; a tuple, which is made faster than a dataclass: a sweep has many.

    Args:
        epoch: after which epoch, counted from 1.
        train_loss: Σ m_b·loss_b / n over the epoch's batches of m_b of n examples, each as it was before its
            step: the mean over the examples, where the loss is the mean over a batch.
        test_loss: the loss of all test examples.
        metrics: each metric of all test examples.
    """

    epoch: int
    train_loss: float
    test_loss: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Trained:
    """What one training gave.

    Args:
        copy: which training it was.
        weight_decay: the number that the strength comes to; None where there is no one number.
        train_loss: at the last look; NaN if it diverged.
        test_loss: at the last look; NaN if it diverged.
        metrics: at the last look; NaN if it diverged.
        looks: all looks.
        diverged: the first step, counted from 0, whose training loss is not finite; None: no step.
    """

    copy: Copy
    weight_decay: float | None
    train_loss: float
    test_loss: float
    metrics: dict[str, float]
    looks: tuple[Look, ...]
    diverged: int | None


@dataclass(frozen=True)
class Chunk:
    """Trainings that run together: every seed at every strength, in this order."""

    rule: str
    lr: float | None
    strengths: tuple[float, ...]
    unit: str
    seeds: tuple[int, ...]

    @property
    def copies(self) -> tuple[Copy, ...]:
        """The trainings, seed by seed."""
        return tuple(
            Copy(self.rule, self.lr, strength, self.unit, seed)
            for seed in self.seeds
            for strength in self.strengths
        )


@dataclass(frozen=True)
class ChunkResult:
    """What a chunk gave.

    Args:
        trained: one for each of the chunk's copies, in their order.
        weights: parameters and buffers at the end by name, with leading axes (seeds, strengths), on the CPU.
    """

    trained: tuple[Trained, ...]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A running chunk at the end of an epoch; whoever trains it knows how to go on from there.

    Args:
        epoch: epochs that are done.
        tensors: weights, buffers, the optimizer's and the rules' state, by name, on the CPU.
        plain: everything else, as JSON has it.
    """

    epoch: int
    tensors: dict[str, Tensor]
    plain: dict[str, Any]


# Called after an epoch with the number of epochs done and a function that makes the checkpoint.
OnEpoch = Callable[[int, Callable[[], Checkpoint]], None]
