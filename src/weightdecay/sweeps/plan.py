"""Which copies train together: decided once, kept in the store, the same whatever is resumed where."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch

from weightdecay.engine import Capacity
from weightdecay.memory import available
from weightdecay.sweeps.records import Chunk
from weightdecay.sweeps.training import Method

T = TypeVar("T")
# What chunks may take of the memory that can be had: the estimate is of one copy, and others need some, too.
_SHARE = {"cpu": 0.4, "cuda": 0.7}


@dataclass(frozen=True)
class Plan:
    """How copies are put together.

    Args:
        method: how they are trained.
        copies: the most that train together.
        threads: of torch in each training; results of another number may differ in their last bit.
    """

    method: Method
    copies: int
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Plan":
        """What `to_dict` gave."""
        return cls(Method(**values["method"]), values["copies"], values["threads"])


def plan_of(
    method: Method,
    total: int,
    threads: int,
    device: torch.device,
    capacity: Capacity | None,
    chunk: int | None,
) -> Plan:
    """Chunks as large as memory allows, but as many as there are workers.

    Args:
        method: how copies are trained.
        total: how many there are.
        threads: of torch here.
        device: where they are trained.
        capacity: of the workers; None: chunks run here, one after another.
        chunk: the most copies of a chunk, where the user says so.
    """
    if method.name == "one by one":
        return Plan(method, 1, 1)  # the cores are shared by copies
    if capacity is None:
        tasks, memory = 1, available(device)
    else:
        tasks, memory, threads = capacity.tasks, capacity.memory, 1
    copies = -(-total // tasks)
    if memory is not None:
        fits = max(1, int(memory * _SHARE.get(device.type, 0.4)) // max(1, method.bytes_per_copy))
        if copies > fits:  # a power of two: nearly the same memory at hand gives the same chunks, so bits
            copies = 2 ** (fits.bit_length() - 1)
    return Plan(method, chunk or copies, threads)


def chunks_of(
    plan: Plan,
    settings: Sequence[tuple[str, float | None]],
    strengths: Sequence[float],
    unit: str,
    seeds: Sequence[int],
) -> tuple[Chunk, ...]:
    """Every strength and seed of every rule and learning rate, in chunks.

    >>> method = Method("vectorised", "", True, 1)
    >>> found = chunks_of(Plan(method, 4, 1), [("Decoupled", None)], (0.0, 0.1, 0.2), "weight_decay", (0, 1))
    >>> [(chunk.strengths, chunk.seeds) for chunk in found]
    [((0.0, 0.1), (0, 1)), ((0.2,), (0, 1))]
    """
    together = plan.method.seeds_together and plan.copies > 1
    parts = split(seeds, min(plan.copies, len(seeds)) if together else 1)
    largest = max(map(len, parts))
    return tuple(
        Chunk(rule, lr, some, unit, part)
        for rule, lr in settings
        for some in split(strengths, max(1, plan.copies // largest))
        for part in parts
    )


def split(values: Sequence[T], most: int) -> tuple[tuple[T, ...], ...]:
    """Parts of at most so many, and of nearly the same size.

    >>> split(range(5), 3)
    ((0, 1, 2), (3, 4))
    """
    count = -(-len(values) // most)
    size, longer = divmod(len(values), count) if count else (0, 0)
    starts = [i * size + min(i, longer) for i in range(count + 1)]
    return tuple(tuple(values[a:b]) for a, b in pairwise(starts))
