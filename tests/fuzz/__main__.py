"""Random cases against slow readable oracles, for as long as one likes.

python -m tests.fuzz ridge --seconds 3600 --first 0
python -m tests.fuzz attach --case 1234          one case again

Each module here has `case(seed)`: None where the package is right or refuses with its own error, else
what is wrong, in words. A raw error of NumPy, torch or polars is a fault.
"""

import argparse
import importlib
import sys
import time

import torch
from tests.fuzz.outcome import outcome


def main() -> int:
    """Run cases until the time is over; print each fault, and how many cases there were."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("subject", choices=["ridge", "sweeps", "attach", "tables"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--case", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    case = importlib.import_module(f"tests.fuzz.{options.subject}").case
    seeds = iter([options.case]) if options.case is not None else iter(range(options.first, sys.maxsize))
    ends, faults, cases = time.monotonic() + options.seconds, 0, 0
    for seed in seeds:
        wrong = outcome(case, seed)
        cases += 1
        if wrong:
            faults += 1
            print(f"case {seed}: {wrong}", flush=True)
        if time.monotonic() > ends:
            break
    print(f"{options.subject}: {cases} cases, {faults} faults")
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
