"""A monitor's result: its figure, its page, and the table that grows in a terminal. Nothing is computed."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text as Styled

from weightdecay.errors import InputError
from weightdecay.monitor.record import Monitored
from weightdecay.reports.page import LOSS, Chart, Line, Page
from weightdecay.reports.style import CYCLE, INK
from weightdecay.text import Text

_MOST = len(CYCLE)  # parameters with a line of their own: the largest


def figure_size(result: Monitored) -> tuple[float, float]:
    """Width and height in inches."""
    del result
    return 7.2, 8.0


def figure_axes(result: Monitored, figure: Figure) -> np.ndarray:
    """Three Axes, one below the other."""
    del result
    return figure.subplots(3, 1, sharex=True)


def draw(result: Monitored, ax: np.ndarray) -> None:
    """Draw into an array of three Axes.

    Raises:
        InputError: another number of Axes.
    """
    axes = np.ravel(np.asarray(ax, dtype=object))
    if len(axes) != 3:
        raise InputError("a monitor is drawn into three Axes", "ax", len(axes), "plt.subplots(3, 1)")
    names = _largest(result.rows)
    for name, colour in zip(names, CYCLE, strict=False):
        rows = result.rows.filter(parameter=name)
        steps = rows["step"]
        axes[0].plot(steps, rows["norm"], color=colour, label=name)
        axes[0].plot(steps, rows["equilibrium_norm"], color=colour, ls=":", lw=1)
        axes[1].plot(steps, rows["angle"], color=colour)
        decaying = rows.filter(pl.col("intended") > 0)
        axes[2].plot(decaying["step"], decaying["applied"] / decaying["intended"], color=colour)
    _decorate(axes, len(names), result.rows["parameter"].n_unique())


def _largest(rows: pl.DataFrame) -> list[str]:
    sizes = rows.group_by("parameter", maintain_order=True).agg(pl.col("numel").first())
    kept = set(sizes.sort("numel", descending=True, maintain_order=True)["parameter"].head(_MOST))
    return [name for name in sizes["parameter"] if name in kept]


def _decorate(axes: np.ndarray, drawn: int, there: int) -> None:
    first, second, third = axes
    first.plot([], [], color=INK, ls=":", lw=1, label="equilibrium of decay and updates")
    first.set(yscale="log", ylabel="norm")
    if drawn < there:
        first.set_title(f"the {drawn} largest of {there} parameters", fontsize=9)
    second.set(yscale="log", ylabel="angle of a step, rad")
    third.axhline(1, color=INK, lw=0.8, ls="--")
    third.set(ylabel="decay applied / intended", xlabel="step", ylim=(-0.05, None))
    third.set_ylim(top=max(1.2, third.get_ylim()[1]))
    handles, labels = first.get_legend_handles_labels()  # below all three, not over a curve
    third.legend(handles, labels, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2)


_MOST_ON_PAGE = 7  # parameters: the largest


def page(result: Monitored) -> Page:
    """The page."""
    table = result.table()
    sizes = table.group_by("parameter", maintain_order=True).agg(pl.col("numel").first())
    names = (
        sizes.sort("numel", descending=True, maintain_order=True)["parameter"].head(_MOST_ON_PAGE).to_list()
    )
    steps = table["step"].unique().sort()

    def of(name: str, column: pl.Expr) -> np.ndarray:
        """A column of one parameter at every look."""
        rows = table.filter(parameter=name).select("step", column.cast(pl.Float64).alias("y"))
        frame = pl.DataFrame({"step": steps}).join(rows, on="step", how="left").sort("step")
        return frame["y"].fill_null(float("nan")).to_numpy()

    norms = [Line(name, of(name, pl.col("norm")), i) for i, name in enumerate(names)]
    norms += [
        Line(
            Text(f"{name}, equilibrium", f"{name}，平衡"),
            of(name, pl.col("equilibrium_norm")),
            i,
            dashed=True,
        )
        for i, name in enumerate(names)
    ]
    angles = [Line(name, of(name, pl.col("angle")), i) for i, name in enumerate(names)]
    ratio = pl.col("applied") / pl.col("intended")
    ratios = [Line(name, of(name, ratio), i) for i, name in enumerate(names)]
    step = Text("step", "步")
    x = steps.to_numpy()
    figures = [
        Chart(
            Text("Norm, and its equilibrium", "范数与平衡范数"),
            x,
            norms,
            step,
            Text("‖w‖", "‖w‖"),
            log_y=True,
        ),
        Chart(Text("Angle of a step", "每步的角度"), x, angles, step, Text("rad", "弧度"), log_y=True),
        Chart(
            Text("Decay applied over intended", "实际衰减除以应有衰减"),
            x,
            ratios,
            step,
            Text("ratio", "比值"),
            at_least=(0, 1.2),
        ),
        *_losses(table, x),
    ]
    notes = []
    if len(names) < sizes.height:
        notes.append(
            Text(
                f"The {len(names)} largest of {sizes.height} parameters.",
                f"{sizes.height} 个参数中最大的 {len(names)} 个。",
            )
        )
    title = Text(
        f"Monitor: {result.optimizer}, {result.steps} steps", f"监视器：{result.optimizer}，{result.steps} 步"
    )
    return Page(title, result.lines, result.doubts, figures=figures, notes=notes)


def _losses(table: pl.DataFrame, x: np.ndarray) -> list[Chart]:
    """What the training told, if it told something."""
    looks = table.group_by("step").agg(pl.col("train_loss", "test_loss").first()).sort("step")
    names = {"train_loss": Text("train", "训练"), "test_loss": Text("test", "测试")}
    lines = [
        Line(label, looks[name].cast(pl.Float64).fill_null(float("nan")).to_numpy(), colour)
        for colour, (name, label) in zip(("train", "test"), names.items(), strict=True)
        if looks[name].is_not_null().any()
    ]
    return [Chart(Text("Losses", "损失"), x, lines, Text("step", "步"), LOSS, log_y=True)] if lines else []


_MOST_ROWS = 20  # rows, those of the largest parameters


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
    for row in sorted(rows, key=lambda row: -row["numel"])[:_MOST_ROWS]:
        ratio = row["applied"] / row["intended"] if row["intended"] else float("nan")
        numbers = (row["norm"], row["equilibrium_norm"], row["angle"], ratio)
        shown.add_row(Styled(row["parameter"]), *(f"{number:.4g}" for number in numbers))
    return shown
