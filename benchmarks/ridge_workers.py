"""Each contestant of `benchmarks/ridge.py` in a process of its own: time and memory of one run at a time."""

import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ridge_contestants import CONTESTANTS, DESIGNS, QUICK, SHAPES, Design, draw, draw_gaussian

GEMM = 2048


def resident(field: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def forget() -> float:
    """Give freed memory back and count the peak from here; what is resident now, in MB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def gemm_rate() -> float:
    """NumPy's float64 matrix product at 2048³, flops per second, best of five."""
    a = np.random.default_rng(0).standard_normal((GEMM, GEMM))
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        np.matmul(a, a)
        taken.append(time.perf_counter() - start)
    return 2 * GEMM**3 / min(taken)


def work(job: str, package: str, letter: str, lambdas: int, quick: bool) -> None:
    """A contestant's process: a seed comes in on a line, what it took goes out on a line."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a contestant prints is not a reply
    design = ((QUICK if quick else DESIGNS) | SHAPES)[letter]
    data = draw_gaussian if letter in SHAPES else draw
    if package == "gemm":
        for _ in sys.stdin:
            replies.write(json.dumps({"rate": gemm_rate()}) + "\n")
        return
    run = CONTESTANTS[job, package]()
    elsewhere = package == "glmnet"
    if not elsewhere and letter not in SHAPES:
        run(draw(Design(20, 30, design.targets, {}), 0, lambdas))
    for seed in sys.stdin:
        problem = data(design, int(seed), lambdas)
        before, peak, taken, outcome = forget(), 0.0, [], None
        while not taken or (not elsewhere and sum(taken) < 0.2 and len(taken) < 5):
            start = time.perf_counter()
            outcome = run(problem)
            taken.append(time.perf_counter() - start)
            peak = peak or resident("VmHWM") - before
        assert outcome is not None
        found = dataclasses.asdict(outcome)
        if not elsewhere:
            found |= {"seconds": min(taken), "first": taken[0], "extra": peak}
        replies.write(json.dumps(found) + "\n")


class Worker:
    """A contestant in a process of its own; `replies` are by repeat, `reason` says why there are none."""

    def __init__(self, job: str, package: str, letter: str, lambdas: int = 100, quick: bool = False) -> None:
        self.job, self.package, self.lambdas = job, package, lambdas
        self.replies: dict[int, dict[str, Any]] = {}
        self.reason = ""
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        settings = json.dumps([job, package, letter, lambdas, quick])
        self.process = subprocess.Popen(
            [sys.executable, __file__, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def ask(self, repeat: int) -> None:
        """Run once; where the process dies, keep its last words and ask no more."""
        if self.reason:
            return
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{repeat}\n")
            self.process.stdin.flush()
            self.replies[repeat] = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            status = self.process.wait()
            self.errors.seek(0)
            words = self.errors.read().strip().splitlines()
            self.reason = words[-1] if words else f"ended with {status}"

    def close(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.communicate()
        self.errors.close()

    def values(self, key: str = "seconds") -> list[float]:
        """A figure of every repeat."""
        return [reply[key] for _, reply in sorted(self.replies.items())]

    def over(self, other: "Worker") -> list[float]:
        """Its seconds over another's, in each repeat that both took part in."""
        both = sorted(self.replies.keys() & other.replies.keys())
        return [self.replies[r]["seconds"] / other.replies[r]["seconds"] for r in both]


if __name__ == "__main__":
    work(*json.loads(sys.argv[1]))
