"""The one table of all benchmarks: a row for each figure that has a goal.

A program notes its figures while it measures, and prints them when it ends. `make bench` runs `all.py`, which
joins the tables of all programs.
"""

import atexit
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles

COLUMNS = ("job", "peer", "ratio", "goal", "date", "command")
HEADING = "| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|"
_rows: list[str] = []


def note(job: str, peer: str, ratios: Sequence[float], goal: str, unit: str = "") -> None:
    """Keep a row of the table.

    Args:
        job: what was measured.
        peer: what it is divided by, or divides; "" for a figure with a unit of its own.
        ratios: of each repeat; the row has their median, and quartiles of five or more, else the extremes.
        goal: what the median is meant to be, such as "≤ 1.3".
        unit: of the figures, where they are no ratios.
    """
    if not _rows:
        atexit.register(lambda: print(f"\n{HEADING}\n" + "\n".join(_rows)))
    low, high = min(ratios), max(ratios)
    if len(ratios) >= 5:
        low, _, high = quantiles(ratios, n=4)
    spread = f" ({low:.3g} – {high:.3g})" if len(ratios) > 1 else ""
    command = " ".join(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    figure = f"{median(ratios):.3g}{spread} {unit}".strip()
    cells = [job, peer, figure, goal, f"{datetime.now():%Y-%m-%d}", f"`{command}`"]
    _rows.append("| " + " | ".join(cells) + " |")
