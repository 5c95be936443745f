"""Chunks, trained here, in processes or by Dask; results as they finish."""

import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from weightdecay.engine import as_finished
from weightdecay.sweeps.checkpoints import Keeper
from weightdecay.sweeps.plan import Plan
from weightdecay.sweeps.records import Checkpoint, Chunk, ChunkResult
from weightdecay.sweeps.task import Task
from weightdecay.sweeps.training import train_chunk
from weightdecay.sweeps.workers import in_processes, packed

PATIENCE = 5.0  # seconds of training one by one here before processes are started
Told = Callable[[float], None]  # the share of a chunk's epochs that is done


@dataclass(frozen=True)
class Job:
    """What every chunk needs.

    Args:
        task: what is trained.
        plan: how.
        keeper: of checkpoints.
    """

    task: Task
    plan: Plan
    keeper: Keeper


class _LongWork(Exception):
    """Training one by one takes long enough for processes."""


def results(
    job: Job, chunks: Sequence[Chunk], client: Any, told: Told, patience: float = PATIENCE
) -> Generator[tuple[Chunk, ChunkResult]]:
    """Train chunks; each with its result as soon as it is there.

    Args:
        job: what every chunk needs.
        chunks: what is to be trained.
        client: of Dask; None: here, and one by one in processes, if it takes long and things can be sent.
        told: called after each epoch of a chunk that is trained here.
        patience: seconds to train one by one before processes are started.

    Raises:
        InputError: a chunk cannot be trained.
    """
    if client is not None:
        # Workers have their own disks: no checkpoints there.
        shared = replace(job, keeper=Keeper(None))
        names = [str(chunk) for chunk in chunks]
        for place, result in as_finished(run_chunk, shared, chunks, client, names):
            yield chunks[place], result
        return
    left = list(chunks)
    several = job.plan.method.name == "one by one" and job.task.device.type == "cpu" and cores() > 1
    until = time.monotonic() + patience
    while left:
        may_leave = several and len(left) > 1
        try:
            result = run_chunk(job, left[0], told, until if may_leave else None)
        except _LongWork:
            several = False  # one attempt
            if (shared := packed(job)) is None:
                continue
            for place, result in in_processes(run_chunk, shared, left, cores()):
                yield left[place], result
            return
        yield left.pop(0), result


def run_chunk(job: Job, chunk: Chunk, told: Told | None = None, until: float | None = None) -> ChunkResult:
    """Train a chunk, from its checkpoint if there is one.

    Args:
        job: what every chunk needs.
        chunk: what is trained.
        told: called after each epoch with the share that is done.
        until: a time at which to leave it to processes.
    """
    task, method = replace(job.task, threads=job.plan.threads), job.plan.method
    copies = len(chunk.copies) if method.name == "one by one" else 1
    total = task.epochs * copies
    keeper = replace(job.keeper, last=time.monotonic())

    def on_epoch(done: int, make: Callable[[], Checkpoint]) -> None:
        if done < total:
            keeper.keep(chunk, make)
        if told is not None:
            told(done / total)
        if until is not None and time.monotonic() > until:
            raise _LongWork

    return train_chunk(task, chunk, method, keeper.found(chunk), on_epoch)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
