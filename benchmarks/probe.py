"""What `wd.probe` says of every optimizer of torch.optim and pytorch_optimizer, against their source.

    .venv/bin/python benchmarks/probe.py            the confusion matrix, what is unknown, and times

The truth is `tests/peers/probe_truth.py`, made by reading the source.
"""

import inspect
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import get_args

import torch
from pytorch_optimizer.optimizer import OPTIMIZERS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "peers"))

from probe_truth import REQUIRED, TRUTH  # pyright: ignore[reportMissingImports]

from table import note
from weightdecay.probing.deciding import Form
from weightdecay.probing.run import Probe, probe


def zoo() -> dict[str, type]:
    """Every optimizer that takes `weight_decay`."""
    kinds = {f"torch.{name}": getattr(torch.optim, name) for name in dir(torch.optim)}
    for kind in OPTIMIZERS.values():
        if isinstance(kind, type) and not kind.__module__.startswith("torch."):
            kinds[f"po.{kind.__name__}"] = kind
    return {
        name: kind
        for name, kind in kinds.items()
        if isinstance(kind, type) and "weight_decay" in inspect.signature(kind).parameters
    }


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, Probe] = {}
    seconds: dict[str, float] = {}
    for name, kind in zoo().items():
        start = time.perf_counter()
        found[name] = probe(kind, **REQUIRED.get(name, {}))
        seconds[name] = time.perf_counter() - start
    pairs = Counter((TRUTH[name], found[name].form) for name in found)
    forms = [form for form in get_args(Form) if any(form in pair for pair in pairs)]
    print("truth \\ probe".ljust(17), *(form.rjust(15) for form in forms))
    for truth in forms:
        if any(truth == row for row, _ in pairs):
            print(truth.ljust(17), *(str(pairs[truth, form] or ".").rjust(15) for form in forms))
    unknown = [name for name in found if found[name].form == "unknown"]
    right = sum(found[name].form == TRUTH[name] for name in found)
    wrong = len(found) - right - len(unknown)
    note("wd.probe: optimizers named right", "their source", [right / len(found)], "≥ 0.95")
    note("wd.probe: optimizers named wrong", "their source", [wrong], "0", "optimizers")
    print(f"\n{len(found)} optimizers: {right} right ({right / len(found):.1%}), ", end="")
    print(f"{len(unknown)} unknown, {wrong} wrong")
    for name in unknown:
        print(f"  {name} (source: {TRUTH[name]}): {found[name].why.splitlines()[-1]}")
    slowest = max(seconds, key=lambda name: seconds[name])
    print(f"\ntime: median {statistics.median(seconds.values()) * 1e3:.0f} ms, total ", end="")
    print(f"{sum(seconds.values()):.1f} s, slowest {slowest} {seconds[slowest]:.1f} s")


if __name__ == "__main__":
    main()
