"""Many trainings as one model against the plain loop, in turn, ratios within a repeat.

On every core: processes of one thread, each of which trains its share of the copies and then plain loops
while the others do the same. What their start costs (some two seconds) is not in the ratio.

.venv/bin/python benchmarks/sweep.py [--quick] [--repeats 5]
.venv/bin/python benchmarks/sweep.py --device cuda       the MLP on a GPU, beside the CPU and the plain loop
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import weightdecay as wd
from devices import device_of, name_of
from table import note
from weightdecay.engine import cores, in_processes, packed
from weightdecay.sweeps.chunk import Recipes
from weightdecay.sweeps.looks import order
from weightdecay.sweeps.method import Method, Plan, chunks_of, method_of, train_chunk
from weightdecay.sweeps.task import Chunk, Data, Task

EPOCHS = 3


def digits(device: str) -> tuple[Data, Data]:
    X, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    X, y = (X / 16).float().to(device), y.to(device)
    return Data((X[:1437],), y[:1437]), Data((X[1437:],), y[1437:])


def mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def task_of(make_model: Callable[[], nn.Module], batch: int, device: str = "cpu") -> Task:
    train, test = digits(device)
    return Task(
        make_model=make_model,
        train=train,
        test=test,
        loss=F.cross_entropy,
        metrics={},
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0),
        rules={"Decoupled": wd.Decoupled},
        lrs=None,
        schedule=None,
        on="matrices",
        epochs=EPOCHS,
        batch_size=batch,
        every=EPOCHS,
        clip=None,
        device=torch.device(device),
        threads=2,
    )


def plain(task: Task, strength: float) -> float:
    """Seconds of the loop as people write it, with torch's fastest AdamW; the end is looked at."""
    torch.manual_seed(0)
    model = task.make_model().to(task.device)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": strength},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
    (X,), y = task.train.inputs, task.train.target
    start = time.perf_counter()
    for epoch in range(task.epochs):
        for rows in order(len(X), 0, epoch).to(X.device).split(task.batch_size):
            optimizer.zero_grad()
            task.loss(model(X[rows]), y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        task.loss(model(task.test.inputs[0]), task.test.target).item()
    return time.perf_counter() - start


def turns(shared: tuple[Task, Method, int, int], chunk: Chunk, _note: Any) -> list[tuple[float, float]]:
    """In a process: CPU seconds, one thread's, of a chunk and of a plain loop, for each repeat."""
    task, method, repeats, loops = shared
    torch.set_num_threads(1)
    train_chunk(Recipes(replace(task, epochs=1)), chunk, method)  # warm
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        train_chunk(Recipes(task), chunk, method)
        ours = time.process_time() - start
        start = time.process_time()
        for _ in range(loops):
            plain(task, 0.1)
        seconds.append((ours, (time.process_time() - start) / loops))
    return seconds


def on_cores(name: str, task: Task, strengths: int, repeats: int, goal: str) -> None:
    """A sweep on every core against plain loops on every core."""
    task = replace(task, threads=1)
    grid = tuple(float(x) for x in torch.logspace(-3, 1, strengths))
    method, count = method_of(Recipes(task)), min(cores(), strengths)
    assert method.name == "vectorised", method
    chunks = chunks_of(Plan(method, strengths, 1, count), [("Decoupled", None)], grid, "weight_decay", (0,))
    shared = packed((task, method, repeats, 3 if repeats > 1 else 1))
    assert shared is not None
    found = dict(in_processes(turns, shared, chunks, count))
    ratios, steps = [], []
    for repeat in range(repeats):
        ours = max(found[i][repeat][0] for i in range(count))  # the last to end
        loops = sum(len(chunk.copies) * found[i][repeat][1] for i, chunk in enumerate(chunks)) / count
        ratios.append(loops / ours)
        steps.append(1e3 * ours / task.steps)
    note(f"sweep, {name}, {strengths} copies on {count} cores", "plain loops on as many", ratios, goal)
    print(
        f"{name:<26} {strengths:4d} copies on {count} cores: ours {statistics.median(steps):7.3f} ms a step, "
        f"{statistics.median(ratios):5.1f} × plain loops on as many ({min(ratios):.1f} – {max(ratios):.1f}; "
        f"goal {goal})",
        flush=True,
    )


def gemm_share(width: int, batch: int, copies: int) -> float:
    """Seconds of a step's matrix products alone, of all copies, as torch multiplies here."""
    X, W = torch.randn(batch, 64), torch.randn(64, copies * width)
    H, V = torch.randn(copies, batch, width), torch.randn(copies, width, 10)
    D, G = torch.randn(copies, batch, 10), torch.randn(batch, copies * width)

    products: list[torch.Tensor] = []

    def step() -> None:
        products[:] = X @ W, H @ V, D @ V.mT, H.mT @ D, X.T @ G

    step()
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def compare(name: str, task: Task, seeds: int, strengths: int, repeats: int, loops: int, goal: str) -> None:
    grid = tuple(float(x) for x in torch.logspace(-3, 1, strengths))
    copies = seeds * strengths
    chunk = Chunk("Decoupled", None, grid, "weight_decay", tuple(range(seeds)))
    method = method_of(Recipes(replace(task, seeds=chunk.seeds)))
    assert method.name == "vectorised", method
    train_chunk(Recipes(replace(task, epochs=1)), chunk, method)  # warm
    ratios, ours, theirs = [], [], []
    for _ in range(repeats):
        one = statistics.mean(plain(task, grid[i % strengths]) for i in range(loops))
        start = time.perf_counter()
        train_chunk(Recipes(task), chunk, method)
        ours.append(time.perf_counter() - start)
        theirs.append(one * copies)
        ratios.append(theirs[-1] / ours[-1])
    if goal != "–":
        note(f"sweep, {name}, {copies} copies", "one plain loop, fused AdamW", ratios, goal)
    a_step = 1e3 / task.steps
    plain_ms, ours_ms = statistics.median(theirs) * a_step / copies, statistics.median(ours) * a_step
    print(
        f"{name:<26} {copies:4d} copies  plain {plain_ms:6.3f} ms a step, ours {ours_ms:7.3f} ms for all: "
        f"{statistics.median(ratios):5.1f} × ({min(ratios):.1f} – {max(ratios):.1f}; goal {goal}), "
        f"{method.bytes_per_copy / 1e3:.0f} kB a copy allowed for",
        flush=True,
    )


def beside(
    name: str, make: Callable[[], nn.Module], batch: int, device: str, copies: int, repeats: int
) -> None:
    """The same chunk on a device and on the CPU, in turn."""
    chunk = Chunk("Decoupled", None, tuple(1e-3 * (i + 1) for i in range(copies)), "weight_decay", (0,))
    tasks = {where: task_of(make, batch, where) for where in ("cpu", device)}
    methods = {where: method_of(Recipes(replace(task, seeds=chunk.seeds))) for where, task in tasks.items()}
    assert all(method.name == "vectorised" for method in methods.values()), methods
    seconds: dict[str, list[float]] = {where: [] for where in tasks}
    losses: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):
        for where, task in tasks.items():
            start = time.perf_counter()
            found = train_chunk(Recipes(task), chunk, methods[where])
            if repeat:  # the first also loads kernels
                seconds[where].append(time.perf_counter() - start)
            losses[where] = [one.test_loss for one in found.trained]
    here, there = seconds["cpu"], seconds[device]
    ratios = [one / other for one, other in zip(here, there, strict=True)]
    apart = max(abs(one / other - 1) for one, other in zip(losses[device], losses["cpu"], strict=True))
    a_step = 1e3 / tasks[device].steps
    print(
        f"{name:<26} {copies:4d} copies  CPU {statistics.median(here) * a_step:.3f} ms a step of all, "
        f"{device} {statistics.median(there) * a_step:.3f}: {statistics.median(ratios):.1f} × "
        f"({min(ratios):.1f} – {max(ratios):.1f}); test losses agree to {apart:.1g}",
        flush=True,
    )


def memory(task: Task, copies: int) -> None:
    """What copies really take: the growth of the process, against the estimate that sizes chunks."""
    method = method_of(Recipes(task))
    small = Chunk("Decoupled", None, (0.0,), "weight_decay", (0,))
    train_chunk(Recipes(task), small, method)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grid = tuple(1e-3 * (i + 1) for i in range(copies))
    train_chunk(Recipes(task), replace(small, strengths=grid), method)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / copies
    print(f"memory: {grown / 1e3:.0f} kB a copy measured, {method.bytes_per_copy / 1e3:.0f} kB estimated")


def linear(seeds: int, strengths: int, repeats: int) -> None:
    """The textbook's experiment: 200 inputs, 20 + 100 examples, batch 5, 100 epochs."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(120, 200, generator=generator)
    y = X @ torch.full((200, 1), 0.01) + 0.05 + 0.01 * torch.randn(120, 1, generator=generator)
    task = replace(
        task_of(lambda: nn.Linear(200, 1), 5),
        train=Data((X[:20],), y[:20]),
        test=Data((X[20:],), y[20:]),
        loss=F.mse_loss,
        optimizer=partial(torch.optim.SGD, lr=0.003),
        epochs=100,
        every=5,
    )
    method = method_of(Recipes(replace(task, seeds=tuple(range(seeds)))))
    assert method.name == "linear", method
    grid = tuple(float(x) for x in torch.logspace(-3, 1.5, strengths))
    chunk = Chunk("Decoupled", None, grid, "weight_decay", tuple(range(seeds)))
    ratios = []
    for _ in range(repeats):
        one = _plain_linear(task)
        start = time.perf_counter()
        train_chunk(Recipes(task), chunk, method)
        ratios.append(one * seeds * strengths / (time.perf_counter() - start))
    note(
        f"sweep, the textbook's linear model, {seeds * strengths} copies", "one plain loop", ratios, "≥ 1000"
    )
    print(
        f"linear, {seeds * strengths} copies: {statistics.median(ratios):.0f} × "
        f"({min(ratios):.0f} – {max(ratios):.0f}; goal ≥ 1000)"
    )


def _plain_linear(task: Task) -> float:
    model = nn.Linear(200, 1)
    optimizer = torch.optim.SGD(
        [{"params": [model.weight], "weight_decay": 3.0}, {"params": [model.bias]}], lr=0.003
    )
    (X,), y = task.train.inputs, task.train.target
    start = time.perf_counter()
    for epoch in range(task.epochs):
        for rows in order(len(X), 0, epoch).split(task.batch_size):
            optimizer.zero_grad()
            task.loss(model(X[rows]), y[rows]).backward()
            optimizer.step()
        if task.looked_at(epoch + 1):
            with torch.no_grad():
                task.loss(model(task.test.inputs[0]), task.test.target).item()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few copies, one repeat: to see that it runs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="cuda: that comparison alone"
    )
    given = parser.parse_args()
    device = device_of(given.device)
    repeats, strengths = (1, 8) if given.quick else (given.repeats, 64)
    torch.set_num_threads(2)
    print(
        f"torch {torch.__version__}, {name_of(device)}; AdamW, digits, float32",
        file=sys.stderr,
    )
    if device != "cpu":
        for batch in (32, 128):
            name, make = f"MLP 64-64-10, batch {batch}", partial(mlp, 64)
            beside(name, make, batch, device, strengths, repeats)
            task, copies = task_of(make, batch, device), strengths if given.quick else 512
            compare(f"GPU, {name}", task, 1, copies, repeats, 1, "≥ 40")
        return
    for width, batch, goal, on_all in (
        *((64, 32, "≥ 10", "≥ 4"), (64, 128, "≥ 10", "≥ 4")),
        *((256, 32, "≥ 5", "≥ 1.5"), (256, 128, "≥ 5", "≥ 1.5")),
    ):
        name, task = f"MLP 64-{width}-10, batch {batch}", task_of(partial(mlp, width), batch)
        on_cores(name, task, strengths, repeats, on_all)
        compare(f"{name}, one process", task, 1, strengths, repeats, 3, goal)
        shared = gemm_share(width, batch, strengths)
        print(f"  its matrix products alone: {1e3 * shared:.2f} ms a step")
    compare(
        "the same, 8 seeds", task_of(partial(mlp, 64), 128), 8, max(1, strengths // 8), repeats, 3, "≥ 10"
    )
    compare("convnet, batch 128", task_of(convnet, 128), 1, max(2, strengths // 4), min(repeats, 3), 3, "–")
    memory(task_of(partial(mlp, 256), 128), 8 if given.quick else 512)
    linear(*((2, 20) if given.quick else (8, 250)), repeats)


if __name__ == "__main__":
    main()
