"""The textbook experiment: the batched program against the loop as the notes write it, in one run.

    python benchmarks/textbook.py [--repeats 7]

Both sides train float32 on 2 threads, evaluations of train and test loss included (every 5 epochs); drawing
the data is left out on both sides, shuffling is in on both. Each repeat runs every contestant once, one after
the other; printed are medians over repeats and the median of the ratios taken within a repeat.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from table import note
from weightdecay.textbook import scratch
from weightdecay.textbook.settings import Experiment, draw
from weightdecay.textbook.versions import VERSIONS, train_batched

SETTINGS = Experiment()


def notes_loop(one, lam, lr=0.003, epochs=100, batch_size=5):
    """The training loop as the notes write it: data loaders, autograd, losses accumulated over batches."""
    train_data = TensorDataset(one.X.float(), one.y.float().reshape(-1, 1))
    test_data = TensorDataset(one.X_test.float(), one.y_test.float().reshape(-1, 1))
    train_iter = DataLoader(train_data, batch_size, shuffle=True)
    test_iter = DataLoader(test_data, batch_size, shuffle=False)
    w = one.w.float().reshape(-1, 1).requires_grad_()
    b = torch.zeros(1, requires_grad=True)

    def net(X):
        return X @ w + b

    def loss(y_hat, y):
        return (y_hat - y.reshape(y_hat.shape)) ** 2 / 2

    def evaluate(data_iter):
        total, count = 0.0, 0
        for X, y in data_iter:
            losses = loss(net(X), y)
            total, count = total + losses.sum().item(), count + losses.numel()
        return total / count

    losses = []
    for epoch in range(epochs):
        for X, y in train_iter:
            batch_loss = loss(net(X), y) + lam * (w**2).sum() / 2
            batch_loss.sum().backward()
            with torch.no_grad():
                for param in (w, b):
                    gradient = param.grad
                    assert gradient is not None
                    param -= lr * gradient / batch_size
                    gradient.zero_()
        if (epoch + 1) % 5 == 0:
            losses.append((evaluate(train_iter), evaluate(test_iter)))
    return losses, w.norm().item()


def plain_scratch(one, lam):
    """This package's own readable program: the same, batches cut from tensors, losses on whole data sets."""
    w, b = one.w.float().requires_grad_(), torch.zeros((), requires_grad=True)
    data = (one.X.float(), one.y.float()), (one.X_test.float(), one.y_test.float())
    scratch.train(*data, w, b, lam=lam, generator=one.generator(), watch=print_nothing)


def print_nothing(*look):
    """Look at the losses as the loop of the notes does, and drop them."""


def batched(draws, n_lambdas):
    """N λ × the seeds of the draws as one program; one λ is λ = 3."""
    lambdas = torch.logspace(-3, 2, n_lambdas, dtype=torch.float64) if n_lambdas > 1 else torch.tensor([3.0])
    return train_batched(VERSIONS["scratch"], draws, SETTINGS, lambdas)


def in_one_thread(run: Callable) -> None:
    """As `wd.run_experiment` runs it, so that a busy machine cannot make threads wait for one another."""
    torch.set_num_threads(1)
    run()
    torch.set_num_threads(2)


def interleaved(contestants: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each repeat, after one round that is not counted."""
    seconds = {name: [] for name in contestants}
    for repeat in range(repeats + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def gemm_limit() -> float:
    """The machine's float32 matrix product, flops per second."""
    a = torch.randn(2048, 2048)
    best = min(timed(lambda: a @ a) for _ in range(5))
    return 2 * 2048**3 / best


def timed(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_memory() -> None:
    """In a process of its own: the peak of 20,000 trainings above what was resident before, in MB (Linux)."""
    draws = [draw(SETTINGS.data, seed) for seed in range(20)]
    batched(draws[:1], 1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    batched(draws, 1000)
    print(resident("VmHWM") - before)


def resident(field: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def seconds_of(*command: str) -> float:
    """Wall seconds of a whole process."""
    return timed(lambda: subprocess.run(command, check=True, capture_output=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peak-memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.peak_memory:
        peak_memory()
        return
    draws = [draw(SETTINGS.data, seed) for seed in range(20)]
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, float32")
    seconds = interleaved(
        {
            "loop of the notes, 1 training": lambda: notes_loop(draws[0], 3.0),
            "scratch.train, 1 training": lambda: plain_scratch(draws[0], 3.0),
            "batched, 1 training": lambda: batched(draws[:1], 1),
            "batched, 100 λ × 20 seeds = 2,000": lambda: batched(draws, 100),
            "batched, 1,000 λ × 20 seeds = 20,000": lambda: batched(draws, 1000),
            "2,000 in one thread": lambda: in_one_thread(lambda: batched(draws, 100)),
            "20,000 in one thread": lambda: in_one_thread(lambda: batched(draws, 1000)),
        },
        arguments.repeats,
    )
    goals = {"batched, 1 ": 0.25, "batched, 100 ": 0.5, "batched, 1,000 ": 1.5}
    loop, plain = list(seconds.values())[:2]
    print(f"{'':38}{'median s':>9}{'min':>8}{'max':>8}{'× loop':>9}{'goal':>7}{'× scratch':>11}")
    for name, times in seconds.items():
        ratio, to_plain = (
            statistics.median(a / b for a, b in zip(times, base, strict=True)) for base in (loop, plain)
        )
        goal = next((f"≤ {goal:g}" for start, goal in goals.items() if name.startswith(start)), "")
        middle = statistics.median(times)
        if goal:
            note(name, "the loop of the notes", [a / b for a, b in zip(times, loop, strict=True)], goal)
        print(
            f"{name:38}{middle:9.4f}{min(times):8.4f}{max(times):8.4f}{ratio:9.3f}{goal:>7}{to_plain:11.3f}"
        )

    # A step is two products of 5 × 22 by 22 × L and one pass of decay, for each seed; 400 steps; 20 looks.
    flops = 20 * 1000 * (400 * 2 * 2 * 5 * 22 + 20 * 2 * 120 * 22)
    rate, limit = flops / min(seconds["batched, 1,000 λ × 20 seeds = 20,000"]), gemm_limit()
    print(f"20,000 trainings: {rate / 1e9:.0f} GF/s, {rate / limit:.0%} of a large matrix product here")
    command = [sys.executable, __file__, "--peak-memory"]
    peaks = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(3)
    ]
    print(f"20,000 trainings: peak memory {statistics.median(peaks):.0f} MB above the import (goal < 300)")
    note("20,000 trainings: peak memory", "", peaks, "< 300", "MB")

    python = [sys.executable, "-c"]
    rounds = range(arguments.repeats + 1)
    pairs = [
        (seconds_of(*python, "import torch"), seconds_of(*python, "import torch, weightdecay"))
        for _ in rounds
    ]
    ratios = [ours / alone for alone, ours in pairs[1:]]
    print(f"import torch, weightdecay: {statistics.median(ratios):.3f} × import torch (goal ≤ 1.05)")
    note("import torch, weightdecay", "import torch", ratios, "≤ 1.05")
    script = str(Path(sys.executable).with_name("weightdecay"))
    helps = [seconds_of(script, "--help") for _ in rounds][1:]
    print(f"weightdecay --help: {statistics.median(helps):.2f} s (goal ≤ .3)")
    note("weightdecay --help", "", helps, "≤ .3", "s")
    with tempfile.TemporaryDirectory() as folder:
        jobs = [seconds_of(script, "textbook", "--out", folder) for _ in range(4)][1:]
    print(f"weightdecay textbook, files written: {statistics.median(jobs):.1f} s (goal < 10)")
    note("weightdecay textbook, files written", "", jobs, "< 10", "s")


if __name__ == "__main__":
    main()
