"""Run all benchmarks, one after another, and print one table of what has a goal.

.venv/bin/python benchmarks/all.py [NAME ...]
"""

import subprocess
import sys
from pathlib import Path

from table import HEADING

PROGRAMS = (
    *("textbook", "attach", "sparse", "ridge", "ridge_sparse", "logistic"),
    *("table_fit", "sweep", "probe", "monitor", "page"),
)


def main() -> None:
    """Run those that are named, or all."""
    rows: list[str] = []
    failed: list[str] = []
    for name in sys.argv[1:] or PROGRAMS:
        file = Path(__file__).with_name(f"{name}.py")
        print(f"\n== {file.name}", flush=True)
        lines = []
        with subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            for line in program.stdout:
                print(line, end="", flush=True)
                lines.append(line.rstrip())
        failed += [name] * (program.returncode != 0)
        columns = HEADING.splitlines()[0]
        rows += lines[lines.index(columns) + 2 :] if columns in lines else []
    print("\n== all\n" + "\n".join([HEADING, *rows]))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
