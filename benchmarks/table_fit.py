"""`weightdecay fit` on a mixed CSV, files written, against polars and scikit-learn's `RidgeCV`, interleaved.

    .venv/bin/python benchmarks/table_fit.py
    .venv/bin/python benchmarks/table_fit.py --rows 20000 --repeats 2

200,000 rows: 40 columns of numbers, 10 of texts with 3 to 20 levels, and a target. In each repeat four
processes run on the same file, one after the other: `weightdecay fit` as a user types it, which learns the
columns, judges its grid of λ by leave-one-out, and writes model, predictions, figures and a page;
`polars.read_csv` with OneHotEncoder, StandardScaler and RidgeCV on 100 values of alpha, also leave-one-out,
which writes nothing; and both readings alone. The first two are timed from the process's start to its end;
the readings within theirs, imports left out. Ratios are taken within a repeat.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from ridge import heading, machine, row, span
from table import note

NUMBERS, TEXTS = 40, np.linspace(3, 20, 10).round().astype(int)
FIT, PEER = "weightdecay fit, files written", "polars.read_csv + RidgeCV"
READ, PEER_READ = "weightdecay, reading and coding", "polars.read_csv"
GOALS = {FIT: 2.0}
COLUMNS = ("", "median s", "min – max", "median CPU s", "over the peer", "min – max", "goal")


def write(file: Path, rows: int, seed: int) -> None:
    """Numbers of four decimals, texts, and a target of all of them with as much noise."""
    random = np.random.default_rng(seed)
    columns = {f"x{j}": random.standard_normal(rows).round(4) for j in range(NUMBERS)}
    y = np.sum([values * random.normal() / NUMBERS**0.5 for values in columns.values()], axis=0)
    for j, count in enumerate(TEXTS):
        level = random.integers(0, count, rows)
        columns[f"t{j}"] = np.array([f"level {k}" for k in range(count)])[level]
        y += random.normal(size=count)[level] / len(TEXTS) ** 0.5
    y += y.std() * random.standard_normal(rows)
    pl.DataFrame({**columns, "y": y.round(4)}).write_csv(file)


def work(name: str, file: str) -> None:
    """What a process of its own does; a reading prints its seconds, wall and CPU."""
    if name == PEER:
        from sklearn.linear_model import RidgeCV
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        frame = pl.read_csv(file)
        texts = frame.select(pl.col(pl.String))
        numbers = frame.drop("y", *texts.columns)
        levels = OneHotEncoder(sparse_output=False).fit_transform(texts.to_numpy())
        X = StandardScaler().fit_transform(np.hstack([numbers.to_numpy(), levels]))
        RidgeCV(np.logspace(-4, 6, 100)).fit(X, frame["y"].to_numpy())
        return
    import torch  # noqa: F401  (imports are left out)

    from weightdecay.tables.source import read_whole

    start, cpu = time.perf_counter(), time.process_time()
    if name == READ:
        read_whole(file, ["y"])
    else:
        pl.read_csv(file)
    print(json.dumps([time.perf_counter() - start, time.process_time() - cpu]))


def measured(name: str, file: Path, folder: Path) -> tuple[float, float]:
    """Run a contestant; seconds, wall and CPU."""
    command = [sys.executable, __file__, "--work", name, str(file)]
    if name == FIT:
        out = ["--target", "y", "--out", str(folder / "out"), "--force", "--quiet"]
        command = [sys.executable, "-m", "weightdecay", "fit", str(file), *out]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if name in (READ, PEER_READ):
        seconds, cpu = json.loads(done.stdout)
        return seconds, cpu
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    peers = {FIT: PEER, READ: PEER_READ}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in (FIT, PEER, READ, PEER_READ)}
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as name:
        folder, file = Path(name), Path(name) / "table.csv"
        for repeat in range(options.repeats):
            write(file, options.rows, repeat)
            for contestant, figures in found.items():
                figures.append(measured(contestant, file, folder))
        size = file.stat().st_size / 1e6
    inputs = NUMBERS + int(TEXTS.sum())
    print(f"{options.rows} rows, {NUMBERS} numbers, {len(TEXTS)} texts: {size:.0f} MB, {inputs} inputs\n")
    print(heading(COLUMNS))
    for contestant, figures in found.items():
        seconds = [wall for wall, _ in figures]
        cpu = median(cpu for _, cpu in figures)
        cells = [contestant, f"{median(seconds):.3g}", span(seconds), f"{cpu:.3g}"]
        if contestant in peers:
            both = zip(seconds, found[peers[contestant]], strict=True)
            ratios = [ours / theirs for ours, (theirs, _) in both]
            goal = f"≤ {GOALS[contestant]:g}" if contestant in GOALS else ""
            cells += [f"{median(ratios):.3g}", span(ratios), goal]
            if goal:
                note(contestant, peers[contestant], ratios, goal)
        else:
            cells += ["", "", ""]
        print(row(cells))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
    else:
        main()
