"""`report`: one file that explains a result to whoever opens it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightdecay.auditing.record import Audit
from weightdecay.errors import InputError
from weightdecay.monitor.record import Monitored
from weightdecay.reports import audit, monitor, ridge, sweep, textbook
from weightdecay.reports.page import MARK, document
from weightdecay.ridge.record import RidgePath
from weightdecay.ridge.table_fit import HeldOut, held_out
from weightdecay.saving import writable_folder, write_text
from weightdecay.sweeps.record import Sweep
from weightdecay.textbook.record import Run


def report(result: Any, path: str | Path, *, y: Any = None, force: bool = False) -> Path:
    """Write a page that explains a result: one HTML file that works offline, in English and Chinese.

    Args:
        result: a `Run` of the textbook's experiment, whose page has a slider over λ, every position of it a
            training that was done (`run.slider`); a `RidgePath`, a `Sweep`, an `Audit` or a `Monitored`.
            Messages of an audit are in English in both languages.
        path: the file to write, "page.html"; its folder is made if need be.
        y: the targets a `RidgePath` was fitted to, (n,) or (n, t): its page then shows predictions of rows
            while they were held out, at the best λ, beside them.
        force: replace a file that is not a page of this package's.

    Returns:
        The path.

    Raises:
        InputError: there is nothing for the slider, the file is not a page of this package's, or y is not
            what the path was fitted to.
        TypeError: a result of another kind.
    """
    seen = None
    if y is not None:
        if not isinstance(result, RidgePath):
            raise InputError("y belongs to a ridge path", "y", type(y).__name__, "leave it out")
        seen = held_out(result, _numbers(y))
    return write_page(result, path, seen, force=force)


def write_page(result: Any, path: str | Path, seen: HeldOut | None = None, *, force: bool = False) -> Path:
    """Write the page as `report` does; `seen` are the held-out rows of a ridge path."""
    kinds = (Run, RidgePath, Sweep, Audit, Monitored)
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
    path = Path(path)
    check_free(path, force, "choose another name, or --force (force=True)")
    writable_folder(path.parent)
    write_text(path, _document(result, seen))
    return path


def _document(result: Any, seen: HeldOut | None) -> str:
    if isinstance(result, Run):
        return document(textbook.title_of(result), textbook.data_of(result), "textbook")
    if isinstance(result, RidgePath):
        page = ridge.page(result, seen)
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
