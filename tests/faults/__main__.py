"""Re-enact the faults that were found from outside, and print what each gives beside the right value.

python -m tests.faults            all of them
python -m tests.faults 18 22b     those of these numbers

It runs on any commit of the package (set PYTHONPATH to its src): what raises is printed, never raised.
"""

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

import torch
from tests.faults.rows import ROWS, Row


def outcome(row: Row) -> tuple[str, bool]:
    """What a row gives on this package; an exception is an outcome, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return row.run()
    except Exception as error:  # whatever an older package raises is what it gives
        return f"raises {type(error).__name__}: {error}".split("\n")[0], False


def main(numbers: list[str]) -> int:
    """Print a line for each row; the exit status says whether all are right."""
    torch.set_num_threads(1)
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in ("rows", "__main__") and not module.name.startswith("test_"):
            importlib.import_module(f"tests.faults.{module.name}")
    rows = [row for row in ROWS if not numbers or row.number in numbers]
    wrong = 0
    for row in sorted(rows, key=lambda row: (int("".join(filter(str.isdigit, row.number))), row.number)):
        given, right = outcome(row)
        wrong += not right
        verdict = "right" if right else "WRONG"
        print(f"{row.number:>4}  {verdict}  {row.what}: {given[:160]} (right: {row.right})", flush=True)
    print(f"{len(rows) - wrong} of {len(rows)} right")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
