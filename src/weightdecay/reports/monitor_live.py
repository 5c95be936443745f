"""A table in the terminal that shows the last look of a monitor."""

from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_MOST = 20  # rows, those of the largest parameters


class MonitorTable:
    """A sink of a monitor: `with MonitorTable() as table: wd.Monitor(model, optimizer, sinks=[table])`.

    In a terminal one table is kept up to date; into a pipe nothing is printed.

    Args:
        console: where to show it; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> "MonitorTable":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, rows: list[dict[str, Any]]) -> None:
        """Show one look."""
        if self._console.is_terminal:
            self._live.update(table(rows), refresh=True)


def table(rows: list[dict[str, Any]]) -> Table:
    """One look as a table: a row for each of the largest parameters."""
    step = rows[0]["step"] if rows else 0
    shown = Table(title=f"step {step}")
    shown.add_column("parameter")
    for name in ("norm", "equilibrium", "angle", "applied / intended"):
        shown.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -row["numel"])[:_MOST]:
        ratio = row["applied"] / row["intended"] if row["intended"] else float("nan")
        numbers = (row["norm"], row["equilibrium_norm"], row["angle"], ratio)
        shown.add_row(Text(row["parameter"]), *(f"{number:.4g}" for number in numbers))
    return shown
