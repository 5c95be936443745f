"""`report`: one file that explains a result to whoever opens it."""

from pathlib import Path
from typing import Any

from weightdecay.errors import InputError
from weightdecay.files import writable_folder, write_text
from weightdecay.reports.page import textbook
from weightdecay.reports.page.document import MARK, document
from weightdecay.textbook.record import Run


def report(result: Any, path: str | Path, *, force: bool = False) -> Path:
    """Write a page that explains a result: one HTML file that works offline, in English and Chinese.

    Args:
        result: a `Run` of the textbook's experiment. Its page has a slider over λ, and every position of it
            is a training that was done (`run.slider`).
        path: the file to write, "page.html"; its folder is made if need be.
        force: replace a file that is not a page of this package's.

    Returns:
        The path.

    Raises:
        InputError: the run has no trainings for the slider; the file is somebody else's, or cannot be written.
        TypeError: a result of another kind.
    """
    if not isinstance(result, Run):
        raise TypeError(f"report makes the page of a Run, not of {type(result).__name__}")
    if result.slider is None or not result.slider.height:
        remedy = "run it again, to the end and with its curve over λ"
        raise InputError("the run has no trainings for the slider", "result", repr(result)[:60], remedy)
    path = Path(path)
    check_free(path, force, "choose another name, or --force (force=True)")
    writable_folder(path.parent)
    write_text(path, document(textbook.title_of(result), textbook.data_of(result), "textbook.html"))
    return path


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
