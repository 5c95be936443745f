"""The folder that a command writes into: nothing in it is replaced silently, and all files come at once."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from weightdecay.errors import InputError
from weightdecay.saving import KINDS, read_json, unwritable_folder, writable_folder

try:
    import fcntl
except ImportError:  # Windows has none: files are whole all the same
    fcntl = None

_NOUNS = {"textbook": "a textbook run", "fit": "a fit", "sweep": "a sweep"}
# By these files it is known which command wrote a folder.
_WRITERS = {"sweep.sqlite": "sweep", **{record: kind.writer for record, kind in KINDS.items()}}


def check_folder(
    out: Path, command: str, names: tuple[str, ...], same: Callable[[Any], bool], force: bool | None = None
) -> None:
    """Before long work: refuse a folder in which something would be lost.

    The same command with the same settings may write its files anew; anything else needs `force`, and files
    of another command are never mixed with these.

    Args:
        out: the folder.
        command: that writes it.
        names: of all files that it writes.
        same: whether a record in the folder, as JSON has it, has the settings that are asked for now.
        force: replace files and runs of other settings; None where the command has no such option.

    Raises:
        InputError: files would be replaced or mixed.
    """
    record = next((name for name in _WRITERS if os.path.exists(out / name)), None)  # noqa: PTH110 (raises nothing)
    if record is not None and _WRITERS[record] != command:
        remedy = f"{_WRITERS[record]} wrote {record} there: choose another folder with --out"
        raise InputError("the folder has the files of another command", "out", out, remedy)
    if force:
        return
    check_own(out)
    if record is None:
        name = next((name for name in names if os.path.lexists(out / name)), None)
        if name is not None:
            remedy = "choose another folder with --out" + ("" if force is None else ", or add --force")
            raise InputError("a file would be replaced", "out", out / name, remedy)
        return
    try:
        # A sweep's store is no JSON; the sweep itself compares the settings in it.
        as_asked = same(None if record.endswith(".sqlite") else read_json(out / record))
    except (InputError, KeyError, TypeError, AttributeError):
        as_asked = False
    if not as_asked:
        what = f"there is {_NOUNS[command]} with other settings in the folder"
        raise InputError(what, "out", out, "choose another with --out, or replace it with --force")


def check_own(folder: Path) -> None:
    """Before long work: refuse a folder whose report.html is somebody else's."""
    page = folder / "report.html"
    try:
        there = page.is_file()
    except OSError:  # a name that is no name is for others to refuse
        return
    if there:
        from weightdecay.reports.report import check_free

        check_free(page, False, "it would be replaced: choose another folder with --out")


@contextlib.contextmanager
def new_files(out: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """A folder for new files, which replace those in `out` when all are there; else `out` is as it was.

    Of `names` those that are not written anew are removed: they belong to the run that is replaced.

    Raises:
        InputError: `out` cannot be written, or another command is writing into it.
    """
    with fresh(out):
        writable_folder(out)
        with _written(out):
            folder = Path(tempfile.mkdtemp(prefix=".new-", dir=out))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # so that the unfinished folder is removed
        try:
            with _alone(out, folder):
                yield folder
                with _written(out):
                    _replace(folder, out, names)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _replace(folder: Path, out: Path, names: tuple[str, ...]) -> None:
    """Move the new files, records last, and remove what is left of the run before."""
    paths = sorted(folder.iterdir(), key=lambda path: path.suffix == ".json")
    for path in paths:
        path.replace(out / path.name)
    for name in names if paths else ():
        if name not in {path.name for path in paths}:
            (out / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _written(out: Path) -> Iterator[None]:
    """Errors of the disk, told of the folder."""
    try:
        yield
    except OSError as error:
        raise unwritable_folder(out, error) from error


@contextlib.contextmanager
def _alone(out: Path, folder: Path) -> Iterator[None]:
    """Hold `out` for this process, and clear away what a killed one has left."""
    if fcntl is None:
        yield
        return
    with _written(out):
        held = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait until it is done, or choose another folder with --out"
            raise InputError("another command is writing into the folder", "out", out, remedy) from None
        except OSError:  # a file system without locks
            yield
            return
        for left in out.glob(".new*"):
            if left != folder:
                shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(held)


@contextlib.contextmanager
def fresh(folder: Path) -> Iterator[None]:
    """Take folders that were made away again if the block fails."""
    made: list[Path] = []
    with contextlib.suppress(OSError):  # a name that is no name is for others to refuse
        made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except BaseException:
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()
        raise
