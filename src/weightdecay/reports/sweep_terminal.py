"""What the command line shows of a sweep: a bar with the best so far, curves, and the table at the end."""

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from weightdecay.reports.terminal import chart, legend, without_colour
from weightdecay.sweeps.explain import setting_name, strength
from weightdecay.sweeps.record import Sweep
from weightdecay.sweeps.records import Trained
from weightdecay.sweeps.run import Progress
from weightdecay.sweeps.strengths import title

_MOST_CURVES = 4


class SweepBar:
    """A bar under the latest curves: trainings done, rate, time left, and the best strength so far.

    Args:
        console: where to.
        unit: of the strengths.
        curves: whether to draw the curves of the trainings that finished last.
    """

    def __init__(self, console: Console, unit: str, curves: bool) -> None:
        self._console, self._unit = console, unit
        self._seen: deque[Trained] = deque(maxlen=_MOST_CURVES if curves else 0)
        self._first: Progress | None = None
        self._last: Progress | None = None
        self._since = time.monotonic()
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._render)

    def __enter__(self) -> "SweepBar":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Take how far it is."""
        if self._first is None:
            self._first, self._since = progress, time.monotonic()
        self._last = progress
        if progress.looks is not None and progress.looks.looks:
            self._seen.append(progress.looks)

    def _render(self) -> Any:
        if self._last is None:
            return Text("looking at the model")
        bar = ProgressBar(total=1.0, completed=self._last.share, width=max(10, self._console.width // 4))
        row = Table.grid(padding=(0, 1))
        row.add_row(bar, Text(self._words(self._last)))
        if not self._seen:
            return row
        width = max(24, self._console.width // 2 - 1)
        return Group(Columns([_panel(one, width, self._console) for one in self._seen], padding=0), row)

    def _words(self, last: Progress) -> str:
        assert self._first is not None
        words = [f"{last.done:,} of {last.total:,} trainings"]
        if last.running:
            words.append(f"{last.running:,} at epoch {last.epoch:,} of {last.epochs:,}")
        seconds = last.seconds - self._first.seconds
        gained = last.share * last.total - self._first.share * self._first.total
        if gained > 0 and seconds > 0:
            rate = gained / seconds
            waited = time.monotonic() - self._since - seconds  # since the last report
            left = max(0.0, (1 - last.share) * last.total / rate - max(0.0, waited))
            words += [f"{rate:.3g}/s", f"{_clock(left)} left"]
        if last.best is not None:
            words.append(f"best so far {strength(last.best[0], self._unit)}: {last.best[1]:.4g}")
        return ", ".join(words)


def _clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes.

    >>> _clock(75.4), _clock(7300)
    ('1:15', '2 h 01')
    """
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02}"


@dataclass(frozen=True)
class _Point:
    epoch: int
    train_loss: float
    test_loss: float
    epochs: int


def _panel(trained: Trained, width: int, console: Console) -> Panel:
    points = [
        _Point(one.epoch, one.train_loss, one.test_loss, trained.looks[-1].epoch) for one in trained.looks
    ]
    values = [value for point in points for value in (point.train_loss, point.test_loss)]
    below = legend(console, f", epoch {points[-1].epoch}")
    name = f"{strength(trained.copy.strength, trained.copy.unit)}, seed {trained.copy.seed}"
    curves = chart(points, values, width - 4, 8, without_colour(console))
    return Panel(curves, title=name, subtitle=below, width=width)


def print_sweep(sweep: Sweep, console: Console) -> None:
    """Print the table of strengths; where there is a second axis, the best of each setting before it."""
    if len(sweep.selections) > 1:
        _print(console, _settings_rows(sweep), "the best strength of each setting", left=1)
    seeds = len(sweep.seeds)
    over = f"mean ± standard error over {seeds} seeds" if seeds > 1 else "one seed"
    _print(console, _rows(sweep), f"{setting_name(sweep.selection)}, {sweep.goal.title}: {over}", left=0)


def _rows(sweep: Sweep) -> list[list[str]]:
    """A head, and a row for each strength."""
    found, summary = sweep.selection, sweep.summary()
    several, as_number = len(sweep.seeds) > 1, sweep.unit == "weight_decay"
    head = [title(sweep.unit), *([] if as_number else ["λ"]), sweep.goal.title, "worse than the best by", ""]
    rows = [head]
    for row in summary.iter_rows(named=True):
        worse = f"{row['difference']:.3g}" + (f" ± {row['difference_error']:.2g}" if several else "")
        lam = "–" if row["weight_decay"] is None else f"{row['weight_decay']:.3g}"
        score = f"{row['score']:.4g}" + (f" ± {row['error']:.2g}" if several else "")
        gone = row["diverged"]
        marks = [
            *(["best"] if row["strength"] == found.best else []),
            *(["one standard error"] if several and row["strength"] == found.one_se != found.best else []),
            *([f"{gone} diverged"] if gone else []),
        ]
        rows.append(
            [
                "no decay" if row["strength"] == 0 else f"{row['strength']:.3g}",
                *([] if as_number else [lam]),
                "–" if gone else score,
                "–" if gone or row["strength"] == found.best else worse,
                ", ".join(marks),
            ]
        )
    return rows


def _settings_rows(sweep: Sweep) -> list[list[str]]:
    """A head, and a row for each rule and learning rate."""
    rows = [["setting", f"best {title(sweep.unit)}", sweep.goal.title, "no decay", ""]]
    for place, one in enumerate(sweep.selections):
        none = one.mean(0.0) if one.strengths[0] == 0 else math.nan
        best = "no decay" if one.best == 0 else f"{one.best:.3g}"
        shown = f"{none:.4g}" if math.isfinite(none) else "–"
        row = [setting_name(one), best, f"{one.mean(one.best):.4g}", shown]
        rows.append([*row, "best" if place == sweep.chosen else ""])
    return rows


def _print(console: Console, rows: list[list[str]], caption: str, left: int) -> None:
    """A table, aligned by spaces: the first `left` columns and the last to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    console.print(caption, markup=False, highlight=False, soft_wrap=True)
    for row in rows:
        cells = [
            cell.ljust(width) if i < left or i == len(row) - 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        console.print("  ".join(cells).rstrip(), markup=False, highlight=False, soft_wrap=True)
