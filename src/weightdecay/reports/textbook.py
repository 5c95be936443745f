"""A textbook run: its figures, its page with the slider over λ, and curves that grow in a notebook."""

import io
import time
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from weightdecay.errors import InputError
from weightdecay.reports.page import packed
from weightdecay.reports.style import RIDGE, TEST, THEORY, TRAIN, style
from weightdecay.textbook.record import Evaluation, LambdaCurve, Run
from weightdecay.textbook.settings import Synthetic


def figure_size(result: Run | LambdaCurve) -> tuple[float, float]:
    """Width and height in inches."""
    if isinstance(result, LambdaCurve):
        return 6.4, 4.4
    return 3.2 * max(2, len(result.experiment.watched)), 2.6 * len(result.experiment.versions)


def figure_axes(result: Run | LambdaCurve, figure: Figure) -> Any:
    """One Axes for a curve over λ; for a run one for each version, a row, and λ, a column."""
    if isinstance(result, LambdaCurve):
        return figure.subplots()
    shape = len(result.experiment.versions), len(result.experiment.watched)
    return figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)


def draw(result: Run | LambdaCurve, ax: Any) -> None:
    """Draw the losses of a run, or a curve over λ."""
    if isinstance(result, LambdaCurve):
        _draw_lambda(result, ax)
    else:
        _draw_losses(result, np.atleast_2d(ax))


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


def title_of(run: Run) -> str:
    """The page's title."""
    data = run.experiment.data
    what = "the textbook's experiment" if isinstance(data, Synthetic) else f"{data.target}, from a table"
    return f"Weight decay: {what}"


def data_of(run: Run) -> dict[str, Any]:
    """Everything the page's script reads; `run.slider` is there."""
    assert run.slider is not None
    experiment = run.experiment
    data = experiment.data
    first = run.slider.row(0, named=True)
    return {
        "kind": "textbook",
        "title": title_of(run),
        "facts": {
            "synthetic": isinstance(data, Synthetic),
            "target": None if isinstance(data, Synthetic) else data.target,
            "n_train": data.n_train,
            "inputs": data.n_inputs if isinstance(data, Synthetic) else data.table.X.shape[1],
            "epochs": experiment.epochs,
            "seed": experiment.seed,
            "lr": experiment.lr,
            "batch_size": experiment.batch_size,
            "looks": len(first["epoch"]),
            "every": experiment.every,
        },
        "start": {"lam": max(experiment.lambdas or (0.0,)), "init": experiment.init},
        "epoch": first["epoch"],
        "sets": [
            _packed(name, init, rows)
            for (name, init), rows in run.slider.group_by("version", "init", maintain_order=True)
        ],
    }


def _packed(version: Any, init: Any, rows: pl.DataFrame) -> dict[str, Any]:
    """The trainings of one program from one start: matrices with a row for each λ."""
    return {
        "version": version,
        "init": init,
        "count": rows.height,
        "lam": packed(rows["lam"], "<f8"),
        **{name: packed(rows[name]) for name in ("half_life", "theory", "ridge", "w_norm")},
        **{name: packed(rows[name].to_list()) for name in ("train_loss", "test_loss", "weights")},
    }


class LiveCurves:
    """A callback that draws train and test loss in a notebook, growing: `on_evaluation=wd.LiveCurves()`.

    Args:
        seconds: redraw at most so often; the end of a training is always drawn.

    Raises:
        InputError: IPython is not there.
    """

    def __init__(self, seconds: float = 0.2) -> None:
        try:
            from IPython.display import Image, display
        except ImportError as error:
            raise InputError(
                "live curves need a notebook", "IPython", "not installed", "pip install ipython"
            ) from error
        self._image, self._display = Image, display
        self._seconds, self._shown = seconds, 0.0
        self._handle: Any = None
        self._trainings: dict[tuple[str, float], list[Evaluation]] = {}

    def __call__(self, seen: Evaluation) -> None:
        """Take one look and redraw if it is time."""
        earlier = self._trainings.get((seen.version, seen.lam))
        if earlier and seen.epoch <= earlier[-1].epoch:  # another run begins: another picture
            self._trainings, self._handle = {}, None
        self._trainings.setdefault((seen.version, seen.lam), []).append(seen)
        if seen.epoch < seen.epochs and time.monotonic() - self._shown < self._seconds:
            return
        png = io.BytesIO()
        self._draw().savefig(png, format="png", dpi=100)
        picture = self._image(data=png.getvalue(), format="png")
        if self._handle is None:
            self._handle = self._display(picture, display_id=True)
        else:
            self._handle.update(picture)
        self._shown = time.monotonic()

    def _draw(self) -> Figure:
        with mpl.rc_context(style()):
            figure = Figure(figsize=(3.2 * min(2, len(self._trainings)), 2.6 * -(-len(self._trainings) // 2)))
            figure.set_layout_engine("constrained")
            axes = figure.subplots(
                -(-len(self._trainings) // 2), min(2, len(self._trainings)), squeeze=False, sharey=True
            )
            for ax, ((version, lam), looks) in zip(axes.flat, self._trainings.items(), strict=False):
                epochs = [look.epoch for look in looks]
                ax.plot(epochs, [look.train_loss for look in looks], color=TRAIN, marker=".", label="train")
                ax.plot(
                    epochs, [look.test_loss for look in looks], color=TEST, marker=".", ls="--", label="test"
                )
                ax.set(
                    yscale="log", title=f"{version}, λ = {lam:.3g}", xlabel="epoch", xlim=(0, looks[0].epochs)
                )
            for ax in axes[:, 0]:
                ax.set_ylabel("½ mean squared error")
            axes[0, 0].legend()
        for ax in axes.flat[len(self._trainings) :]:
            ax.remove()
        return figure
