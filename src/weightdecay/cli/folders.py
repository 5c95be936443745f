"""The folder that a command writes into: nothing in it is replaced silently, and all files come at once."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from weightdecay.errors import InputError
from weightdecay.saving import KINDS, read_json, unwritable_folder, writable_folder
from weightdecay.text import Text, chinese, local

try:
    import fcntl
except ImportError:  # Windows has none: files are whole all the same
    fcntl = None

_NOUNS = {
    "textbook": Text("a textbook run", "教材实验"),
    "fit": Text("a fit", "拟合"),
    "sweep": Text("a sweep", "扫描"),
}
_ANOTHER = Text("choose another folder with --out", "请用 --out 另选文件夹")
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
        command = _WRITERS[record]
        remedy = Text(
            f"{command} wrote {record} there: {_ANOTHER}", f"{command} 在那里写了 {record}：{_ANOTHER.zh}"
        )
        what = Text("the folder has the files of another command", "文件夹里是另一个命令的文件")
        raise InputError(what, "out", out, remedy)
    if force:
        return
    check_own(out)
    if record is None:
        name = next((name for name in names if os.path.lexists(out / name)), None)
        if name is not None:
            remedy = (
                _ANOTHER
                if force is None
                else Text(f"{_ANOTHER}, or add --force", f"{_ANOTHER.zh}，或加上 --force")
            )
            raise InputError(Text("a file would be replaced", "有文件会被替换"), "out", out / name, remedy)
        return
    try:
        # A sweep's store is no JSON; the sweep itself compares the settings in it.
        as_asked = same(None if record.endswith(".sqlite") else read_json(out / record))
    except (InputError, KeyError, TypeError, AttributeError):
        as_asked = False
    if not as_asked:
        noun = _NOUNS[command]
        what = Text(f"there is {noun} with other settings in the folder", f"文件夹里已有设置不同的{noun.zh}")
        remedy = Text(
            "choose another with --out, or replace it with --force",
            "请用 --out 另选文件夹，或用 --force 替换",
        )
        raise InputError(what, "out", out, remedy)


def check_own(folder: Path) -> None:
    """Before long work: refuse a folder whose report.html is somebody else's."""
    page = folder / "report.html"
    try:
        there = page.is_file()
    except OSError:  # a name that is no name is for others to refuse
        return
    if there:
        from weightdecay.reports.report import check_free

        remedy = Text(f"it would be replaced: {_ANOTHER}", f"它会被替换：{_ANOTHER.zh}")
        check_free(page, False, remedy)


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


def noted(note: str) -> str:
    """Return the line of a note or a doubt."""
    return local(Text(f"note: {note}", f"注意：{chinese(note)}"))


def written_into(out: Path, paths: Iterable[Path]) -> str:
    """Return the line that lists what was written."""
    names = ", ".join(path.name for path in paths)
    return local(Text(f"written into {out}: {names}", f"已写入 {out}：{names}"))


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
            what = Text("another command is writing into the folder", "另一个命令正在写入该文件夹")
            remedy = Text(f"wait until it is done, or {_ANOTHER}", f"请等它完成，或{_ANOTHER.zh}")
            raise InputError(what, "out", out, remedy) from None
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
