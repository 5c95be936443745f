"""Figures of a result, drawn with matplotlib. Nothing is computed here."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from weightdecay.monitor.record import Monitored
from weightdecay.reports import monitor, ridge, sweep
from weightdecay.reports.style import RIDGE, TEST, THEORY, TRAIN, style
from weightdecay.ridge.record import RidgePath
from weightdecay.ridge.table_fit import CoefficientPath, HeldOut
from weightdecay.saving import replacing
from weightdecay.sweeps.record import Sweep
from weightdecay.textbook.record import LambdaCurve, Run


def plot(result: Any, ax: Any = None) -> Any:
    """Draw a result and return the Axes.

    Args:
        result: a `Run` (its training curves: a row per version, a column per λ), its `curve` (test loss
            against λ), or a `RidgePath` (its score against λ, with a band of one standard error and both
            choices). A `RidgePath` has two more views, from `weightdecay.ridge.table_fit`:
            `coefficient_path(path)` and `held_out(path, y)`. Or a `Sweep`: its score against the strength,
            and where it has a second axis the heat map of both. Or a `Monitored`: norms with their
            equilibrium, angles, and the decay applied over that intended.
        ax: Axes to draw into. For a `Run` an array of them, of shape (versions, λ), for a view of several
            targets an array of one each, and for a `Sweep` with a second axis an array of two, or one for
            the curves alone, for a `Monitored` an array of three; None makes a new pyplot figure.

    Returns:
        The Axes, or the array of them.

    Raises:
        TypeError: the result is of another kind, or None because the run has no curve.
    """
    if not isinstance(result, Run | LambdaCurve | RidgePath | CoefficientPath | HeldOut | Sweep | Monitored):
        raise TypeError(
            f"plot draws a Run or its curve, a Sweep, a RidgePath or a Monitored, not {type(result).__name__}"
        )
    with mpl.rc_context(style()):
        if ax is None:
            from matplotlib import pyplot as plt  # only here: it looks for a display

            figure = plt.figure(figsize=_size(result), layout="constrained")
            ax = _axes(result, figure)
        if isinstance(result, LambdaCurve):
            _draw_lambda(result, ax)
        elif isinstance(result, Run):
            _draw_losses(result, np.atleast_2d(ax))
        else:
            _module(result).draw(result, ax)
    return ax


def save_figures(run: Run, folder: Path) -> list[Path]:
    """Write curves.svg, curves.png and, if the run has a curve over λ, lambda.svg and lambda.png."""
    paths = save_figure(run, folder, "curves")
    if run.curve is not None:
        return [*paths, *save_figure(run.curve, folder, "lambda")]
    for kind in ("svg", "png"):
        (folder / f"lambda.{kind}").unlink(missing_ok=True)
    return paths


def save_figure(result: Any, folder: Path, name: str) -> list[Path]:
    """Write the figure that `plot` draws as name.svg and name.png, the same bits each time."""
    paths = []
    with _figure(result) as figure:
        for kind in ("svg", "png"):
            path = folder / f"{name}.{kind}"
            with replacing(path) as temporary:
                metadata = {"Date": None} if kind == "svg" else None
                figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
            paths.append(path)
    return paths


@contextlib.contextmanager
def _figure(result: Any) -> Iterator[Figure]:
    with mpl.rc_context(style()):
        figure = Figure(figsize=_size(result), layout="constrained")
        plot(result, _axes(result, figure))
        yield figure


def _size(result: Any) -> tuple[float, float]:
    if isinstance(result, LambdaCurve):
        return 6.4, 4.4
    if not isinstance(result, Run):
        return _module(result).figure_size(result)
    return 3.2 * max(2, len(result.experiment.watched)), 2.6 * len(result.experiment.versions)


def _module(result: Any) -> Any:
    """The module that draws a record of ridge, of sweeps or of a monitor."""
    if isinstance(result, Monitored):
        return monitor
    return sweep if isinstance(result, Sweep) else ridge


def _axes(result: Any, figure: Figure) -> Any:
    if isinstance(result, LambdaCurve):
        return figure.subplots()
    if not isinstance(result, Run):
        return _module(result).figure_axes(result, figure)
    shape = len(result.experiment.versions), len(result.experiment.watched)
    return figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)


def _draw_losses(run: Run, axes: np.ndarray) -> None:
    for row, version in zip(axes, run.experiment.versions, strict=True):
        for ax, lam in zip(row, run.experiment.watched, strict=True):
            losses = run.losses(version, lam)
            ax.set_yscale("log")
            marker = "o" if losses.height == 1 else None  # a line of one point is nothing
            ax.plot(losses["epoch"], losses["train_loss"], color=TRAIN, marker=marker, label="train")
            ax.plot(losses["epoch"], losses["test_loss"], color=TEST, marker=marker, ls="--", label="test")
            if run.experiment.seeds > 1:
                ax.fill_between(
                    losses["epoch"], losses["test_low"], losses["test_high"], color=TEST, alpha=0.2, lw=0
                )
            ax.set_title(f"{version}, λ = {lam:.3g}")
            ax.set_xlim(min(run.experiment.every, run.experiment.epochs - 1), run.experiment.epochs)
            if ax.get_subplotspec() is None or ax.get_subplotspec().is_last_row():
                ax.set_xlabel("epoch")
        row[0].set_ylabel("½ mean squared error")
    axes[0, 0].legend()


def _draw_lambda(curve: LambdaCurve, ax: Axes) -> None:
    table = curve.table.filter(pl.col("test_loss").is_not_nan())
    ax.set(xscale="log", yscale="log", xlabel="λ", ylabel="test loss, ½ mean squared error")
    ax.fill_between(table["lam"], table["test_low"], table["test_high"], color=TEST, alpha=0.2, lw=0)
    ax.plot(
        table["lam"],
        table["test_loss"],
        color=TEST,
        label=f"measured: median and quartiles, {curve.seeds} seeds",
    )
    if not bool(table["theory"].is_nan().all()):
        ax.plot(
            table["lam"],
            table["theory"],
            color=THEORY,
            ls="--",
            lw=1,
            label="theory: weights expected after as many steps",
        )
    ax.plot(table["lam"], table["ridge"], color=RIDGE, ls=":", label="theory: trained to the end (ridge)")
    ax.axvline(curve.best_lam, color=TEST, lw=0.8, label=f"least measured: λ = {curve.best_lam:.3g}")
    if curve.best_lam_theory:
        best = curve.best_lam_theory
        ax.axvline(best, color=RIDGE, lw=0.8, ls=":", label=f"best trained to the end: λ = {best:.3g}")
    ax.set_title(f"{curve.version}: test loss against the strength of the decay")
    ax.legend(
        fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2
    )  # under, not over, the curves
