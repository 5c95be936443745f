"""The ridge path against the others, interleaved in one run: time, memory, ratios; then out of core.

    .venv/bin/python benchmarks/ridge.py                       everything, Markdown on standard output
    .venv/bin/python benchmarks/ridge.py --designs AC --repeats 9 --no-out-of-core
    .venv/bin/python benchmarks/ridge.py --designs ''          shapes and out of core alone
    .venv/bin/python benchmarks/ridge.py --shapes 300×300,200×10 --designs '' --no-out-of-core
    .venv/bin/python benchmarks/ridge.py --quick               small shapes, to see that it runs
    .venv/bin/python benchmarks/ridge.py --slow                also scikit-learn's GridSearchCV (minutes)
    .venv/bin/python benchmarks/ridge.py --device cuda         ours on a GPU beside ours on the CPU, alone

Every contestant has a process of its own, so that thread pools do not meet and memory is its own. In each
repeat a new data set is drawn, the same for all, and each process runs on it, one after the other; a run
shorter than .2 s is the best of up to five. Ratios are taken within a repeat. Extra memory is the peak of a
process in its first run of the shape (VmHWM of /proc/self/status, reset before) above what was resident once
the data were drawn; a run on a tiny table before settles imports and thread pools. R's glmnet takes part
where it is installed, in the first repeats only; it keeps its own time and memory.

`--shapes` names the shapes that people have, 20×200 to 1000000×20: leave-one-out against scikit-learn alone,
and the first call of a process, imports done but without a run before, over the median of all repeats.
"""

import argparse
import os
import platform
import sys
from datetime import datetime
from pathlib import Path
from statistics import median

import numpy as np

import ridge_device
import ridge_out_of_core
from devices import device_of
from ridge_contestants import CONTESTANTS, DESIGNS, QUICK, SHAPES, Design, glmnet_is_here
from ridge_workers import Worker
from table import note

OURS = "weightdecay"
SLOW = ("glmnet", "GridSearchCV")  # in the first repeats only
JOBS = {"loo": "leave-one-out", "folds": "5 folds"}
SHAPE_COLUMNS = (
    "shape", "ours, median ms", "scikit-learn", "ratio", "min – max", "goal", "first call, × median", "goal",
)  # fmt: skip

COLUMNS = ("design", "job", "package", "median s", "min – max", "extra MB", "× ours", "min – max", "goal")


def compare(letter: str, design: Design, options: argparse.Namespace) -> tuple[list[Worker], Worker]:
    """Run everybody on one design: the contestants, and the machine's matrix product beside them."""
    chosen = [(job, package) for job, package in CONTESTANTS if takes_part(package, design, options)]
    workers = [Worker(job, package, letter, 100, options.quick) for job, package in chosen]
    workers += [Worker(job, OURS, letter, 1000, options.quick) for job in JOBS]
    gemm = Worker("", "gemm", letter)
    for repeat in range(options.repeats):
        for worker in (*workers, gemm):
            if worker.package not in SLOW or repeat < options.slow_repeats:
                say(f"{letter}, repeat {repeat + 1} of {options.repeats}: {worker.package} {worker.job}")
                worker.ask(repeat)
    for worker in (*workers, gemm):
        worker.close()
    say("")
    return workers, gemm


def shape_row(name: str, options: argparse.Namespace) -> str:
    """A row for one shape: ours and scikit-learn's leave-one-out in turns."""
    workers = [Worker("loo", package, name) for package in (OURS, "scikit-learn")]
    for repeat in range(options.repeats):
        for worker in workers:
            say(f"{name}, repeat {repeat + 1} of {options.repeats}: {worker.package}")
            worker.ask(repeat)
    for worker in workers:
        worker.close()
    say("")
    ours, peer = workers
    if not ours.replies or not peer.replies:
        return row([name, ours.reason[:40] or "–", peer.reason[:40] or "–", *[""] * 5])
    ratios, seconds = peer.over(ours), ours.values()
    cells = [name, f"{median(seconds) * 1e3:.3g}", f"{median(peer.values()) * 1e3:.3g}"]
    cells += [f"{median(ratios):.3g}", span(ratios), f"≥ {SHAPES[name].goals['scikit-learn']:g}"]
    note(f"ridge path {name}, leave-one-out", "scikit-learn", ratios, cells[-1])
    return row([*cells, f"{ours.values('first')[0] / median(seconds):.2g}", "≤ 3"])


def takes_part(package: str, design: Design, options: argparse.Namespace) -> bool:
    """Whether a package runs on a design: those that cannot end there, or are not here, do not."""
    if package == "himalaya":
        return design.n <= design.p
    if package == "GridSearchCV":
        return options.slow
    if package == "glmnet":
        return design.targets == 1 and options.slow_repeats > 0 and glmnet_is_here()
    return True


def say(line: str) -> None:
    """What runs now, on one line of the terminal."""
    if sys.stderr.isatty():
        print(f"\r{line:76}\r", end="", file=sys.stderr, flush=True)


def rows(letter: str, design: Design, workers: list[Worker]) -> list[str]:
    """A table's row for each contestant; its ratio is to ours on the same job with as many λ."""
    lines = []
    for worker in workers:
        ours = next(w for w in workers if (w.job, w.package, w.lambdas) == (worker.job, OURS, 100))
        name = worker.package + ("" if worker.lambdas == 100 else f", {worker.lambdas} λ")
        cells = [f"{letter} {design}", JOBS[worker.job], name]
        if not worker.replies:
            lines.append(row([*cells, worker.reason[:80], *[""] * 5]))
            continue
        seconds, ratios = worker.values(), worker.over(ours)
        cells += [f"{median(seconds):.3g}", span(seconds), f"{worker.values('extra')[0]:.0f}"]
        if worker is ours or not ratios:
            cells += [""] * 3
        else:
            cells += [f"{median(ratios):.3g}", span(ratios), goal(worker, design)]
            if cells[-1]:
                job = f"ridge path {letter} {design}, {JOBS[worker.job]}"
                note(job, worker.package if worker.lambdas == 100 else name, ratios, cells[-1])
        lines.append(row(cells))
    return lines


def goal(worker: Worker, design: Design) -> str:
    """What the ratio is meant to be."""
    if worker.package == OURS:
        return "≤ 1.25"
    return f"≥ {design.goals[worker.package]:g}" if worker.package in design.goals else ""


def limits(letter: str, design: Design, workers: list[Worker], gemm: Worker) -> list[str]:
    """What forming the Gram takes as a matrix product, over our whole time: a share of NumPy's at 2048³."""
    flops = 2 * design.n * design.p * min(design.n, design.p)
    lines = []
    for worker in workers:
        if worker.package == OURS and worker.lambdas == 100 and worker.replies:
            shares = [flops / worker.replies[r]["seconds"] / gemm.replies[r]["rate"] for r in worker.replies]
            goal = "≥ 50 %" if letter in "BD" else ""
            rate = f"{median(gemm.values('rate')) / 1e9:.0f}"
            cells = [f"{letter} {design}", JOBS[worker.job], rate, f"{median(shares):.0%}"]
            lines.append(row([*cells, span(shares, "{:.0%}"), goal]))
            if goal:
                note(f"ridge path {letter} {design}, {JOBS[worker.job]}", "NumPy's product", shares, "≥ 0.5")
    return lines


def agreement(letter: str, workers: list[Worker]) -> list[str]:
    """Leave-one-out has one answer: a line where another package found another."""
    ours, *others = [w for w in workers if w.job == "loo" and w.lambdas == 100 and w.replies]
    apart = [
        abs(other.replies[r]["score"] / ours.replies[r]["score"] - 1)
        for other in others
        for r in other.replies.keys() & ours.replies.keys()
    ]
    return [f"{letter}: least leave-one-out scores agree to {max(apart):.1g}."] if apart else []


def span(values: list[float], form: str = "{:.3g}") -> str:
    """Least and largest."""
    return f"{form.format(min(values))} – {form.format(max(values))}"


def row(cells: list[str] | tuple[str, ...]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def heading(columns: tuple[str, ...]) -> str:
    """The head of a Markdown table."""
    return row(columns) + "\n|" + "---|" * len(columns)


def machine() -> str:
    """Date, processor, cores, memory, versions."""
    import polars
    import torch

    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return (
        f"{datetime.now():%Y-%m-%d}, {(names or [platform.machine()])[0]}, {cores} cores, {memory:.0f} GiB; "
        f"Python {platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}, "
        f"polars {polars.__version__}; load {os.getloadavg()[0]:.1f} at the start."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--designs", default="ABCDE", help="which, by their letters")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="which, n×p, by commas; '' for none")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--slow-repeats", type=int, default=2, help="of glmnet and GridSearchCV; 0: without them"
    )
    parser.add_argument("--slow", action="store_true", help="also scikit-learn's GridSearchCV")
    parser.add_argument("--quick", action="store_true", help="small shapes and files, two repeats")
    parser.add_argument("--no-out-of-core", action="store_true")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="cuda: that comparison alone"
    )
    options = parser.parse_args()
    device = device_of(options.device)
    if options.quick:
        options.repeats, options.slow_repeats = 2, 1
    print(machine(), flush=True)
    shares, notes = [], []
    designs = {
        letter: d for letter, d in (QUICK if options.quick else DESIGNS).items() if letter in options.designs
    }
    if device != "cpu":
        for line in ridge_device.report(designs, device, options.repeats):
            print(line, flush=True)
        return
    if designs:
        print("\n" + heading(COLUMNS), flush=True)
    for letter, design in designs.items():
        workers, gemm = compare(letter, design, options)
        for job in JOBS:
            print("\n".join(rows(letter, design, [w for w in workers if w.job == job])), flush=True)
        shares += limits(letter, design, workers, gemm)
        notes += agreement(letter, workers)
    if shares:
        columns = ("design", "job", "NumPy's product, GF/s", "share of it", "min – max", "goal")
        print(
            "\nForming the Gram counted as a matrix product (2·n·p·min(n, p) flops), over the whole time:\n"
        )
        print("\n".join([heading(columns), *shares, "", *notes]), flush=True)
    shapes = [name for name in options.shapes.replace("x", "×").split(",") if name]
    if shapes and not options.quick:
        print("\nLeave-one-out, 100 α from .01 to 1e5:\n\n" + heading(SHAPE_COLUMNS), flush=True)
        for name in shapes:
            print(shape_row(name, options), flush=True)
    if not options.no_out_of_core:
        print("\n" + ridge_out_of_core.report(options.repeats, options.quick, say))


if __name__ == "__main__":
    main()
