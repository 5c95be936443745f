"""Figures of a monitor: norms, angles, decay applied over intended. Nothing is computed."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from weightdecay.errors import InputError
from weightdecay.monitor.record import Monitored
from weightdecay.reports.style import BLACK, COLOURS

_MOST = len(COLOURS)  # parameters with a line of their own: the largest


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
    for name, colour in zip(names, COLOURS, strict=False):
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
    first.plot([], [], color=BLACK, ls=":", lw=1, label="equilibrium of decay and updates")
    first.set(yscale="log", ylabel="norm")
    if drawn < there:
        first.set_title(f"the {drawn} largest of {there} parameters", fontsize=9)
    second.set(yscale="log", ylabel="angle of a step, rad")
    third.axhline(1, color=BLACK, lw=0.8, ls="--")
    third.set(ylabel="decay applied / intended", xlabel="step", ylim=(-0.05, None))
    third.set_ylim(top=max(1.2, third.get_ylim()[1]))
    handles, labels = first.get_legend_handles_labels()  # below all three, not over a curve
    third.legend(handles, labels, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2)
