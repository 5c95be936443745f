"""`plot` and `report`: the figure of a result, and one file that explains it to whoever opens it."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from weightdecay import arguments
from weightdecay.auditing.record import Audit
from weightdecay.errors import InputError
from weightdecay.logistic.judging import Calibration
from weightdecay.logistic.record import LogisticPath
from weightdecay.monitor.record import Monitored
from weightdecay.reports import audit, logistic, monitor, ridge, sweep, textbook
from weightdecay.reports.page import MARK, document
from weightdecay.reports.style import style
from weightdecay.ridge.record import RidgePath
from weightdecay.ridge.table_fit import CoefficientPath, HeldOut, Importance, held_out
from weightdecay.saving import replacing, writable_folder, write_text
from weightdecay.sweeps.record import Sweep
from weightdecay.textbook.record import LambdaCurve, Run

# What draws a result.
_FIGURES: dict[type, Any] = {
    **dict.fromkeys((Run, LambdaCurve), textbook),
    **dict.fromkeys((RidgePath, CoefficientPath, Importance, HeldOut), ridge),
    **dict.fromkeys((LogisticPath, Calibration), logistic),
    Sweep: sweep,
    Monitored: monitor,
}


def plot(result: Any, ax: Any = None) -> Any:
    """Draw a result and return the Axes.

    Args:
        result: a `Run` (its training curves: a row per version, a column per λ), its `curve` (test loss
            against λ), or a `RidgePath` (its score against λ, with a band of one standard error and both
            choices). A `RidgePath` has three more views, from `weightdecay.ridge.table_fit`:
            `coefficient_path(path)`, `importance(path)` and `held_out(path, y)`. Or a `LogisticPath`, which
            has `coefficient_path(path)` and `importance(path)` of `weightdecay.logistic.table_fit`, and
            `path.calibration()`, which is drawn as a reliability diagram. Or a `Sweep`: its score
            against the strength, and where it has a second axis the heat map of both. Or a `Monitored`:
            norms with their equilibrium, angles, and the decay applied over that intended.
        ax: Axes to draw into. For a `Run` an array of them, of shape (versions, λ), for a view of several
            targets an array of one each, and for a `Sweep` with a second axis an array of two, or one for
            the curves alone, for a `Monitored` an array of three; None makes a new pyplot figure.

    Returns:
        The Axes, or the array of them.

    Raises:
        TypeError: the result is of another kind, or None because the run has no curve.
    """
    module = _module(result)
    if module is None:
        raise TypeError(
            "plot draws a Run or its curve, a Sweep, a RidgePath, a LogisticPath or a Monitored, "
            f"not {type(result).__name__}"
        )
    with mpl.rc_context(style()):
        if ax is None:
            from matplotlib import pyplot as plt  # only here: it looks for a display

            figure = plt.figure(figsize=module.figure_size(result), layout="constrained")
            ax = module.figure_axes(result, figure)
        module.draw(result, ax)
    return ax


def _module(result: Any) -> Any:
    """The module that draws a result; None where there is none."""
    return next((module for kind, module in _FIGURES.items() if isinstance(result, kind)), None)


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
    paths, module = [], _module(result)
    with mpl.rc_context(style()):
        figure = Figure(figsize=module.figure_size(result), layout="constrained")
        module.draw(result, module.figure_axes(result, figure))
        for kind in ("svg", "png"):
            path = folder / f"{name}.{kind}"
            with replacing(path) as temporary:
                metadata = {"Date": None} if kind == "svg" else None
                figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
            paths.append(path)
    return paths


def report(result: Any, path: str | Path, *, y: Any = None, force: bool = False) -> Path:
    """Write a page that explains a result: one HTML file that works offline, in English and Chinese.

    Args:
        result: a `Run` of the textbook's experiment, whose page has a slider over λ, every position of it a
            training that was done (`run.slider`); a `RidgePath`, a `LogisticPath`, a `Sweep`, an `Audit` or a
            `Monitored`. Messages of an audit are in English in both languages.
        path: the file to write, "page.html"; its folder is made if need be.
        y: the targets a `RidgePath` was fitted to, (n,) or (n, t): its page then shows predictions of rows
            while they were held out, at the best λ, beside them.
        force: replace a file that is not a page of this package's.

    Returns:
        The path.

    Raises:
        InputError: there is nothing for the slider, `path` is no path or a file that is not a page of this
            package's, or y is not what the path was fitted to.
        TypeError: a result of another kind.
    """
    file = arguments.path(path, "path", "give the name of a file to write, such as page.html")
    seen = None
    if y is not None:
        if not isinstance(result, RidgePath):
            raise InputError("y belongs to a ridge path", "y", type(y).__name__, "leave it out")
        seen = held_out(result, _numbers(y))
    return write_page(result, file, seen, force=force)


def write_page(
    result: Any, path: Path, seen: HeldOut | pl.DataFrame | None = None, *, force: bool = False
) -> Path:
    """Write the page as `report` does; `seen` is what is known of the held-out rows of a path."""
    kinds = (Run, RidgePath, LogisticPath, Sweep, Audit, Monitored)
    if not isinstance(result, kinds):
        names = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"report makes the page of one of {names}, not of {type(result).__name__}")
    if isinstance(result, Run) and (result.slider is None or not result.slider.height):
        why, remedy = (
            ("a run without its curve over λ", "run it again with one, at a step size that works for it")
            if result.complete
            else ("a run that was interrupted", "run it again, to the end")
        )
        raise InputError("there are no trainings for the slider of the page", "result", why, remedy)
    check_free(path, force, "choose another name, or --force (force=True)")
    writable_folder(path.parent)
    write_text(path, _document(result, seen))
    return path


def _document(result: Any, seen: Any) -> str:
    if isinstance(result, Run):
        return document(textbook.title_of(result), textbook.data_of(result), "textbook")
    if isinstance(result, RidgePath):
        page = ridge.page(result, seen)
    elif isinstance(result, LogisticPath):
        page = logistic.page(result, seen)
    else:
        makers = {Sweep: sweep.page, Audit: audit.page, Monitored: monitor.page}
        page = next(make(result) for kind, make in makers.items() if isinstance(result, kind))
    return document(page.title, page.to_dict(), "figures")


def _numbers(y: Any) -> Tensor:
    """Targets as people have them."""
    try:
        return torch.as_tensor(y if isinstance(y, Tensor) else np.asarray(y, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError("not numbers", "y", type(y).__name__, "give the targets of the fit") from error


def check_free(path: Path, force: bool, remedy: str) -> None:
    """Refuse to replace what this package has not made.

    Raises:
        InputError: the file is somebody else's, and `force` is not given; with the remedy.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            ours = MARK in file.read(4096)
    except OSError:  # not there, or no file: for the writer to say
        return
    if not ours and not force:
        what = "the file is not a page of this package's"
        raise InputError(what, str(path), None, remedy)
