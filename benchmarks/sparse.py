"""What decay costs an embedding with sparse gradients, over the sparse optimizer alone, in one run.

    .venv/bin/python benchmarks/sparse.py [--rounds 201] [--threads 2 | --cpu]

An embedding of 1,000,000 × 64 in float32, 1,000 rows a step, drawn uniformly: nearly every row has missed
decay when it comes, which is the dearest case for the lazy way. Every candidate has a table and state of its
own; each round gives all of them the same rows, in an order drawn anew, and a ratio is of neighbours in one
round. "iteration" is zero_grad, forward, backward and step; "step" is `optimizer.step()` alone. "lazy, by
hand" is the same arithmetic in ten lines without the package: what these torch calls alone cost. Dense decay
is there twice: the sparse optimizer beside a multiplication of the whole table, and a dense gradient under
the rule with torch's own dense optimizer; it has rounds of its own, since it empties the caches.
On a machine that others use, `--cpu` counts the processor time of one thread.
"""

import argparse
import math
import os
import platform
import random
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn, optim

import weightdecay as wd
from table import note

warnings.simplefilter("ignore", wd.WeightDecayWarning)  # strengths here are for timing, not for training
ROWS, WIDTH, BATCH, WARM, LR, STRENGTH = 1_000_000, 64, 1_000, 10, 1e-3, 0.1
DENSE = ["alone", "the whole table times a factor", "dense gradient"]
GOAL, PARTS = 1.3, ("iteration, ms", "step, ms")
Training = tuple[nn.Embedding, optim.Optimizer]
KINDS: dict[str, tuple[Callable[..., optim.Optimizer], Callable[..., optim.Optimizer]]] = {
    "SparseAdam": (optim.SparseAdam, lambda ps, lr: optim.AdamW(ps, lr=lr, weight_decay=0, fused=True)),
    "SGD": (optim.SGD, optim.SGD),
}


def table(sparse: bool = True) -> nn.Embedding:
    """The embedding."""
    return nn.Embedding(ROWS, WIDTH, sparse=sparse, _weight=torch.full((ROWS, WIDTH), 0.1))


def alone(kind: str) -> Training:
    """The sparse optimizer, and no decay."""
    embedding = table()
    return embedding, KINDS[kind][0](embedding.parameters(), lr=LR)


def attached(kind: str, how: str) -> Training:
    """The rule on sparse gradients."""
    embedding, optimizer = alone(kind)
    wd.attach(optimizer, wd.Decoupled(STRENGTH), model=embedding, on="all", sparse=how)
    return embedding, optimizer


def by_hand(kind: str) -> Training:
    """The lazy way in as few torch calls as it needs, without any check."""
    embedding, optimizer = alone(kind)
    weight, current, total = embedding.weight.data, torch.zeros(ROWS, dtype=torch.float64), 0.0

    @torch.no_grad()
    def catch_up(_: object, read: tuple[Tensor]) -> None:
        missed = torch.exp(total - current.index_select(0, read[0])).float()
        weight.index_put_((read[0],), weight.index_select(0, read[0]).mul_(missed[:, None]))

    @torch.no_grad()
    def decay(*_: object) -> None:
        nonlocal total
        assert embedding.weight.grad is not None
        rows = embedding.weight.grad._indices()[0]
        total += math.log1p(-LR * STRENGTH)
        weight.index_put_((rows,), weight.index_select(0, rows).mul_(1 - LR * STRENGTH))
        current.index_fill_(0, rows, total)

    embedding.register_forward_pre_hook(catch_up)
    optimizer.register_step_pre_hook(decay)
    return embedding, optimizer


def multiplied(kind: str) -> Training:
    """The whole table times a factor, before each step."""
    embedding, optimizer = alone(kind)

    @torch.no_grad()
    def decay(*_: object) -> None:
        embedding.weight.mul_(1 - LR * STRENGTH)

    optimizer.register_step_pre_hook(decay)
    return embedding, optimizer


def dense(kind: str) -> Training:
    """A dense gradient."""
    embedding = table(sparse=False)
    optimizer = KINDS[kind][1](embedding.parameters(), lr=LR)
    wd.attach(optimizer, wd.Decoupled(STRENGTH), model=embedding, on="all")
    return embedding, optimizer


CANDIDATES: dict[str, Callable[[str], Training]] = {
    "alone": alone,
    "lazy": lambda kind: attached(kind, "lazy"),
    "touched": lambda kind: attached(kind, "touched"),
    "lazy, by hand": by_hand,
    "the whole table times a factor": multiplied,
    "dense gradient": dense,
}


def iteration(
    training: Training, rows: Tensor, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Seconds of one iteration, and of its step."""
    embedding, optimizer = training
    start = clock()
    optimizer.zero_grad()
    embedding(rows).square().sum().backward()
    middle = clock()
    optimizer.step()
    end = clock()
    return end - start, end - middle


def times(kind: str, names: Sequence[str], rounds: int, clock: Callable[[], float]) -> None:
    """Print what candidates take over the optimizer alone."""
    trainings = {name: CANDIDATES[name](kind) for name in names}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    order, generator = random.Random(0), torch.Generator().manual_seed(0)
    for round_ in range(WARM + rounds):
        rows = torch.randint(ROWS, (BATCH,), generator=generator)
        for name in order.sample(names, len(names)):
            found = iteration(trainings[name], rows, clock)
            if round_ >= WARM:
                seconds[name].append(found)
    for name, own in seconds.items():
        cells = ""
        for part in (0, 1):
            ratios = [mine[part] / base[part] for mine, base in zip(own, seconds["alone"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            median = statistics.median(mine[part] for mine in own) * 1e3
            cells += f"{median:16.3f}{middle:8.2f}{f'{low:.2f} - {high:.2f}':>18}"
        goal = f"   goal ≤ {GOAL}" if name in ("lazy", "touched") else ""
        if goal:
            ratios = [mine[0] / base[0] for mine, base in zip(own, seconds["alone"], strict=True)]
            note(f"sparse gradients, {kind}, {name}: an iteration", f"{kind} alone", ratios, f"≤ {GOAL}")
        print(f"{name:32}{cells}{goal}")


def memory(kind: str, name: str) -> float:
    """MB at the peak of ten iterations and a state dict, in a process of its own, above its beginning."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        training = CANDIDATES[name](kind)
        for _ in range(10):
            iteration(training, torch.randint(ROWS, (BATCH,)))
        training[0].state_dict()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(writing, str((peak - before) / 1024).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found = float(answer.read())
    os.waitpid(child, 0)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=201)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu", action="store_true")
    arguments = parser.parse_args()
    clock = time.thread_time if arguments.cpu else time.perf_counter
    threads = 1 if arguments.cpu else arguments.threads
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    peaks = {kind: [f"{name} {memory(kind, name):.0f}" for name in CANDIDATES] for kind in KINDS}
    torch.set_num_threads(threads)
    print(f"{platform.machine()}, torch {torch.__version__}, {threads} threads, float32")
    print(f"{ROWS:,} × {WIDTH}, {BATCH:,} rows a step, {arguments.rounds} rounds")
    columns = "".join(f"{what:>16}{'ratio':>8}{'quartiles':>18}" for what in PARTS)
    for kind in KINDS:
        print(f"\n{kind:32}{columns}")
        times(kind, ["alone", "lazy", "touched", "lazy, by hand"], arguments.rounds, clock)
        times(kind, DENSE, arguments.rounds // 5, clock)
        print(f"peak memory, MB: {', '.join(peaks[kind])}")
