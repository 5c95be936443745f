"""Files that are whole or not there; and results in folders of plain files: a record, tables, tensors.

The command line reads this before it needs torch or polars, so that they are imported where they are used.
"""

import contextlib
import hashlib
import importlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as version_of
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightdecay import arguments
from weightdecay.errors import InputError
from weightdecay.text import Text

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor


_CHECK = Text("check the path", "请检查路径")
_NO_JSON = Text("a file is not JSON", "文件不是 JSON")
_OWN = Text("give a file this program wrote", "请给本程序写出的文件")
_CHOOSE = Text("choose another folder", "请另选文件夹")


def unreadable(file: Path, reason: Any, remedy: str = _CHECK) -> InputError:
    """Say why a file cannot be read; of an error the system's words, else its first line."""
    return InputError(Text("a file cannot be read", "文件无法读取"), str(file), _words(reason), remedy)


def unwritable(file: Path, reason: Any, remedy: str = _CHOOSE) -> InputError:
    """Say why a file cannot be written, likewise."""
    return InputError(Text("a file cannot be written", "文件无法写入"), str(file), _words(reason), remedy)


def unwritable_folder(folder: Path, reason: Any) -> InputError:
    """Say why a folder cannot be written, likewise."""
    shown = repr(str(folder))[1:-1]  # a name may have a null in it
    what = Text("the output folder cannot be written", "输出文件夹无法写入")
    remedy = Text("choose another with --out", "请用 --out 另选")
    return InputError(what, shown, _words(reason), remedy)


def _words(reason: Any) -> str:
    return getattr(reason, "strerror", None) or str(reason).partition("\n")[0]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` if the block succeeds, else remove it.

    Raises:
        InputError: the file cannot be written (no permission, no space, a folder of that name).
    """
    path = _regular(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _regular(path: Path) -> Path:
    """Where a link leads; what is neither a file nor a free name, such as a device, is not replaced."""
    try:
        path = path.resolve() if path.is_symlink() else path
        reason = None if path.name and (path.is_file() or not path.exists()) else "no name of a file"
    except (OSError, RuntimeError) as error:  # no permission, a name too long, links in a circle
        reason = error
    if reason is not None:
        raise unwritable(path, reason, "choose another file or folder")
    return path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all. NaN and infinity are refused, not written."""
    write_text(path, _json(value))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise InputError(_NO_JSON, str(path), error, _OWN) from error


def writable_folder(path: Any) -> Path:
    """Make the folder if need be and prove that a file can be written into it.

    Raises:
        InputError: it is no path, is a file, or cannot be made or written.
    """
    path = arguments.path(path, "folder", "give the name of a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:  # ValueError: a name that has a null in it
        raise unwritable_folder(path, error) from error
    return path


@dataclass(frozen=True)
class Kind:
    """A kind of result on disk.

    Args:
        name: what its record says that it is.
        noun: the same in a message.
        version: of its files.
        home: the module whose `from_saved` makes the result.
        writer: the command or the method that writes it.
        remedy: what to do where a record is of another kind.
        again: what to do where its files are damaged.
    """

    name: str
    noun: str
    version: int
    home: str
    writer: str
    remedy: str
    again: str

    @property
    def about(self) -> dict[str, Any]:
        """How its record begins."""
        return {"kind": self.name, "version": self.version}


# By the file that holds the record. A folder that has several is of the first: a fit's is a path.
KINDS = {
    "run.json": Kind(
        *("textbook", "a textbook run", 1, "textbook.record", "textbook"),
        *("give the folder of a textbook run", "run it again"),
    ),
    "path.json": Kind(
        *("ridge path", "a ridge path", 1, "ridge.record", "fit"),
        *("give a folder that `weightdecay fit` wrote", "fit it again"),
    ),
    "sweep.json": Kind(
        *("sweep", "a sweep", 1, "sweeps.record", "sweep"),
        *("give a folder that `weightdecay sweep` wrote", "sweep again"),
    ),
    "monitor.json": Kind(
        *("weightdecay monitor", "the record of a monitor", 1, "monitor.record", "Monitored.save"),
        *("give a folder that save() wrote", "save it again"),
    ),
    "model.json": Kind(
        *("ridge model", "a ridge model", 1, "ridge.model", "fit"),
        *("give a folder that `weightdecay fit` wrote", "fit it again"),
    ),
}
# Of another kind in a file of the same name.
LOGISTIC = {
    "path.json": Kind(
        *("logistic path", "a path of logistic regression", 1, "logistic.record", "fit"),
        *("give a folder that `LogisticPath.save` wrote", "fit it again"),
    ),
    "model.json": Kind(
        *("logistic model", "a model of logistic regression", 1, "logistic.record", "fit"),
        *("give a folder that `LogisticModel.save` wrote", "fit it again"),
    ),
}
AUDIT = Kind(  # one file, of any name
    *("weightdecay audit", "a saved audit", 1, "auditing.record", "Audit.save"),
    *("give a file that Audit.save wrote", "save it again"),
)


def save(
    folder: str | Path,
    record: str,
    values: Mapping[str, Any],
    parts: Mapping[str, "pl.DataFrame | Mapping[str, float | Tensor]"],
    kind: Kind | None = None,
) -> list[Path]:
    """Write a result into a folder, made if need be; either all its files are replaced, or none.

    Args:
        folder: the folder.
        record: the file of plain values, a name of `KINDS`; it gets the kind, the version, the checksums of
            the other files and the environment, too, and comes last.
        values: these values.
        parts: by the name of their file, tables (Parquet) and tensors by name (safetensors, to the bit).
        kind: of the result; by default that of `KINDS`.

    Returns:
        The files' paths.

    Raises:
        InputError: they cannot be written.
    """
    kind = kind or KINDS[record]
    files = {name: _bytes(part) for name, part in parts.items()}
    sums = {name: _sha256(content) for name, content in files.items()}
    about = {**kind.about, "sha256": sums, "environment": environment()}
    files[record] = _json({**about, **values}).encode()
    folder = writable_folder(folder)
    with contextlib.ExitStack() as stack:
        for name in reversed(list(files)):  # what is entered last is renamed first
            stack.enter_context(replacing(folder / name)).write_bytes(files[name])
    return [folder / name for name in files]


def _bytes(part: "pl.DataFrame | Mapping[str, float | Tensor]") -> bytes:
    if not isinstance(part, Mapping):
        buffer = BytesIO()
        part.write_parquet(buffer)
        return buffer.getvalue()
    import safetensors.torch
    import torch
    from torch import Tensor

    return safetensors.torch.save(
        {
            name: value.detach().cpu().contiguous().clone()
            if isinstance(value, Tensor)
            else torch.tensor(value, dtype=torch.float64)
            for name, value in part.items()
        }
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def environment() -> dict[str, str]:
    """What, beside the settings, the bits of a result depend on."""
    names = ("weightdecay", "torch", "numpy", "polars", "safetensors", "matplotlib")
    versions = {name: version_of(name) for name in names}
    return {**versions, "python": platform.python_version(), "machine": platform.machine()}


def load(folder: Any) -> Any:
    """Load a result that was saved, by this version or an earlier one.

    Args:
        folder: what `save` of a `RidgePath`, `LogisticPath`, a model of theirs, a `Sweep`, a `Run` or a
            monitor's result wrote, or `weightdecay fit`, `sweep` or `textbook`; or the file of an `Audit`. A
            fit's folder holds a path and a model: it gives the path, and its file model.json the model.

    Returns:
        The result. A `RidgePath` that was loaded has everything but the data: coefficients, models and
        predictions at the λ of its grid, no predictions out of fold; standard errors and intervals at the
        best λ and by one standard error. A `LogisticPath` likewise, with calibration and confusion there.

    Raises:
        InputError: there is none; one of another version; a file is missing, cut short or of another result.

    >>> import tempfile, torch, weightdecay as wd
    >>> model = torch.nn.Linear(2, 1)
    >>> audit = wd.audit(model, torch.optim.SGD(model.parameters(), lr=0.1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     wd.load(audit.save(f"{folder}/plan.json")) == audit
    True
    """
    file = _record(arguments.path(folder, "folder", "give a folder, or a file in it"))
    values = read_json(file)
    kind = KINDS.get(file.name, AUDIT)
    if isinstance(values, dict) and "format" in values:  # an audit, whose file may have any name
        kind = AUDIT
    name, version = _kind_of(values) if isinstance(values, dict) else (None, None)
    if file.name in LOGISTIC and name == LOGISTIC[file.name].name:
        kind = LOGISTIC[file.name]
    if name != kind.name:
        what = None if name is None else f"{name}, version {version}"
        raise InputError(f"not {kind.noun}", str(file), what, kind.remedy)
    if version != kind.version:
        raise InputError("written by another version", f"{kind.noun}, {file}", version, kind.again)
    from polars.exceptions import PolarsError
    from safetensors import SafetensorError

    try:
        return importlib.import_module(f"weightdecay.{kind.home}").from_saved(Saved(file, kind, values))
    except InputError:  # which is a ValueError and says more
        raise
    except (
        *(KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError),
        *(PolarsError, SafetensorError),
    ) as error:
        raise InputError("a field is missing or wrong", str(file), error, kind.again) from error


def _record(path: Path) -> Path:
    """The file that holds the record; a path that does not exist is a folder's, unless it ends as a file."""
    # os.path raises nothing, whatever the name is.
    if os.path.isfile(path) or (not os.path.isdir(path) and path.suffix == ".json"):  # noqa: PTH112, PTH113
        return path
    for name in KINDS:
        if os.path.exists(path / name):  # noqa: PTH110
            return path / name
    remedy = Text(
        "give a folder that textbook, fit or sweep wrote, or the file of an audit",
        "请给出 textbook、fit 或 sweep 写出的文件夹，或审计的文件",
    )
    raise InputError(Text("no record of a run", "没有运行的记录"), str(path), None, remedy)


def _kind_of(values: Mapping[str, Any]) -> tuple[Any, Any]:
    """Kind and version; an audit has both in one text."""
    if "format" in values:
        name, _, version = str(values["format"]).partition(", version ")
        return name, int(version) if version.isdecimal() else version
    return values.get("kind"), values.get("version")


@dataclass(frozen=True)
class Saved:
    """A record that was read, and the way to the files beside it.

    Args:
        file: the record's.
        kind: of the result.
        values: the plain values.
    """

    file: Path
    kind: Kind
    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def table(self, name: str, schema: Mapping[str, Any] | None = None) -> "pl.DataFrame":
        """A table beside the record.

        Raises:
            InputError: it cannot be read, is not the one that the record was written with, or has other
                columns than the schema.
        """
        import polars as pl

        content = self._part(name)
        try:
            frame = pl.read_parquet(BytesIO(content))
        except pl.exceptions.PolarsError as error:
            raise unreadable(self.file.with_name(name), error, self.kind.again) from error
        if schema is not None and dict(frame.schema) != schema:
            what = "a table has other columns than it should"
            raise InputError(what, str(self.file.with_name(name)), list(frame.columns), self.kind.again)
        return frame

    def tensors(self, name: str) -> dict[str, "Tensor"]:
        """Tensors beside the record, by name.

        Raises:
            InputError: they cannot be read, or are not those that the record was written with.
        """
        import safetensors.torch
        from safetensors import SafetensorError

        content = self._part(name)
        try:
            return safetensors.torch.load(content)
        except SafetensorError as error:
            where = str(self.file.with_name(name))
            raise InputError("not a safetensors file", where, error, self.kind.again) from error

    def _part(self, name: str) -> bytes:
        file = self.file.with_name(name)
        sums = self.values["sha256"]
        # The first version wrote one checksum where there is one other file.
        checksum = sums if isinstance(sums, str) else sums[name]
        try:
            content = file.read_bytes()
        except OSError as error:
            raise unreadable(file, error, self.kind.again) from error
        if _sha256(content) != checksum:
            what = f"cut short, changed, or not the file that {self.file.name} was written with"
            raise InputError(what, str(file), f"{len(content):,} bytes", self.kind.again)
        return content


def plain(value: "float | Tensor") -> Any:
    """A number, or a list of them, as JSON has it; null where one is not finite."""
    values = value.tolist() if hasattr(value, "tolist") else value  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(values, list):
        return [plain(number) for number in values]
    return float(values) if math.isfinite(values) else None
