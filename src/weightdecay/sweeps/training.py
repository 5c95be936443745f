"""Train a chunk of copies: which method does it, and the training itself."""

from dataclasses import dataclass
from typing import Literal

from weightdecay.sweeps.alone import OnEpoch, train_alone
from weightdecay.sweeps.checks import Seen, check_task
from weightdecay.sweeps.records import Checkpoint, Chunk, ChunkResult
from weightdecay.sweeps.seeds import set_up
from weightdecay.sweeps.settings import settings_of
from weightdecay.sweeps.squared import linear_of, train_squared
from weightdecay.sweeps.task import Task
from weightdecay.sweeps.trial import linear_is_right, try_alone, why_not_together
from weightdecay.sweeps.vectorised import train_vectorised


@dataclass(frozen=True)
class Method:
    """How the copies of a task are trained.

    Args:
        name: "linear": `weightdecay.sweeps.linear`; "vectorised": all copies of a chunk as one model;
            "one by one": each by the plain loop.
        reason: why, a sentence.
        seeds_together: whether a chunk may hold several seeds.
        bytes_per_copy: an upper estimate of what a copy takes in training.
    """

    name: Literal["linear", "vectorised", "one by one"]
    reason: str
    seeds_together: bool
    bytes_per_copy: int


def method_of(task: Task, seeds: tuple[int, ...]) -> Method:
    """Find out how the copies of a task can be trained, by trying it on one batch.

    Args:
        task: what is to be trained.
        seeds: the seeds of the sweep.

    Raises:
        InputError: the task cannot be trained at all; see `check_task` and `wd.attach`.
    """
    with set_up(task):
        seen = check_task(task, seeds)
        for lr in task.lrs or (None,):
            for rule in task.rules:  # refuses what attach refuses, before any training
                settings_of(task, Chunk(rule, lr, (0.0,), "weight_decay", seeds[:1]))
        linear = None if seen.draws else linear_of(task, seeds[0])
        if linear is not None and linear_is_right(task, seeds):
            return Method("linear", linear.reason, True, linear.bytes_per_copy)
        tried = seeds[:1] if seen.draws else seeds[:2]
        reason = why_not_together(task, tried)
        if reason is not None:
            try_alone(task, seeds[0])
    if reason is not None:
        return Method("one by one", reason, True, _bytes(seen))
    said = "all copies run as one model"
    if seen.draws:
        said += "; the model draws random numbers, so each seed has a chunk of its own"
    return Method("vectorised", said, not seen.draws, _bytes(seen))


def train_chunk(
    task: Task,
    chunk: Chunk,
    method: Method,
    start: Checkpoint | None = None,
    on_epoch: OnEpoch | None = None,
) -> ChunkResult:
    """Train every seed of a chunk at every strength.

    The bits do not depend on `start` and `on_epoch`. They may depend on the number of threads and on how
    many copies the chunk holds, but not on their values: a copy that diverges leaves the others alone.

    Args:
        task: what is trained.
        chunk: the copies.
        method: what `method_of` found.
        start: go on from here.
        on_epoch: called after each epoch with the number of epochs done and a function that makes the
            checkpoint; one by one, epochs are counted over the copies.

    Raises:
        InputError: a strength that cannot be, a step that would remove a whole weight; before any training.
    """
    with set_up(task):
        settings = settings_of(task, chunk)
        if method.name == "linear":
            return train_squared(settings, start, on_epoch)
        if method.name == "one by one":
            return train_alone(settings, start, on_epoch)
        assert method.seeds_together or len(chunk.seeds) == 1
        return train_vectorised(settings, start, on_epoch)


def _bytes(seen: Seen) -> int:
    """Weights, gradients, two of the optimizer's, a rule's point, copies; activations; outputs."""
    return 10 * seen.weight_bytes + 5 * seen.forward_bytes + 3 * seen.output_bytes
