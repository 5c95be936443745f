"""A Parquet file larger than one would hold: the path against polars alone reading the same file.

    .venv/bin/python benchmarks/ridge_out_of_core.py [--repeats 5] [--quick]

1.5 million rows of 200 float32 columns and a target are written to a temporary folder (1.2 GB). Each repeat
runs in turn, each in a process of its own: polars reading the whole file; polars reading it in blocks that
are dropped; 5 folds of 100 λ. Time is within the process, imports left out; memory is the peak above what is
resident after the import (Linux). The file is in the page cache for all of them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from ridge_workers import forget, resident
from table import note

FULL, SMALL, GROUP = (1_500_000, 200), (60_000, 20), 50_000


def write(file: Path, n: int, p: int) -> None:
    """Gaussian columns x0 … and a target y of all of them with as much noise; groups of 50,000 rows."""
    random = np.random.default_rng(0)
    X = random.standard_normal((n, p), dtype=np.float32)
    y = X @ random.standard_normal(p, dtype=np.float32)
    y += y.std() * random.standard_normal(n, dtype=np.float32)
    frame = pl.from_numpy(X, schema=[f"x{j}" for j in range(p)]).with_columns(y=y)
    frame.write_parquet(file, row_group_size=GROUP)


def whole(file: str) -> None:
    """Polars, all of it at once."""
    pl.read_parquet(file)


def blocks(file: str) -> None:
    """Polars, block by block, in order."""
    for _ in pl.scan_parquet(file).collect_batches(chunk_size=GROUP, maintain_order=True):
        pass


def path(file: str) -> None:
    """Ours: 5 folds, coefficients at the best λ."""
    import weightdecay as wd

    found = wd.ridge_path(file, "y", cv=5)  # type: ignore[arg-type]
    found.coef()
    found.intercept()


RUNS: dict[str, Callable[[str], None]] = {
    "polars, whole file": whole,
    "polars, in blocks": blocks,
    "weightdecay, 5 folds": path,
}


def work(name: str, file: str) -> None:
    """In a process of its own: seconds, and MB above the import."""
    import weightdecay as wd

    assert wd.ridge_path  # names are looked up when first used: this imports torch, for all of them alike

    before = forget()
    start = time.perf_counter()
    RUNS[name](file)
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, resident("VmHWM") - before]))


def report(repeats: int, quick: bool, say: Callable[[str], None]) -> str:
    """A Markdown table."""
    n, p = SMALL if quick else FULL
    found: dict[str, list[list[float]]] = {name: [] for name in RUNS}
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.parquet"
        say(f"writing {n} × {p}")
        subprocess.run([sys.executable, __file__, "--write", str(file), str(n), str(p)], check=True)
        size = file.stat().st_size / 1e9
        for repeat in range(repeats):
            for name in [name for name in RUNS if name not in reasons]:
                say(f"out of core, repeat {repeat + 1} of {repeats}: {name}")
                command = [sys.executable, __file__, "--work", name, str(file)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    reasons[name] = (done.stderr.strip().splitlines() or ["it ended"])[-1]
                else:
                    found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    say("")
    lines = [
        f"Out of core: {n} × {p} float32, Parquet, {size:.2g} GB; speed is of the reading by polars alone.",
        "",
        "| | median s | min – max | GB/s | MB above import | of polars' speed, whole | in blocks | goal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in found.items():
        if not figures:
            lines.append(f"| {name} | {reasons.get(name, '')[:80]} | | | | | | |")
            continue
        seconds = [s for s, _ in figures]
        shares = [
            f"{median(a / b for (a, _), b in zip(found[peer], seconds, strict=False)):.0%}"
            for peer in list(RUNS)[:2]
        ]
        goal = "≥ 70 %, ≤ 150 MB" if name.startswith("weightdecay") else ""
        peak = max(extra for _, extra in figures)
        if goal:
            ratios = [a / b for (a, _), b in zip(found[list(RUNS)[1]], seconds, strict=False)]
            note(f"{n} × {p} out of core, 5 folds", "polars in blocks", ratios, "≥ 0.7")
            note(
                f"{n} × {p} out of core, 5 folds: memory", "", [extra for _, extra in figures], "≤ 150", "MB"
            )
        lines.append(
            f"| {name} | {median(seconds):.3g} | {min(seconds):.3g} – {max(seconds):.3g} | "
            f"{size / median(seconds):.2g} | {peak:.0f} | {' | '.join(shares)} | {goal} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
    elif sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--repeats", type=int, default=5)
        parser.add_argument("--quick", action="store_true")
        options = parser.parse_args()
        print(report(options.repeats, options.quick, lambda line: print(line, file=sys.stderr)))
