"""Files that are whole or not there: written under a temporary name, then renamed."""

import contextlib
import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightdecay.errors import InputError

if TYPE_CHECKING:  # commands that need no torch write files, too
    from torch import Tensor


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
        raise InputError(
            "a file cannot be written", str(path), error.strerror or error, "choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _regular(path: Path) -> Path:
    """Where a link leads; what is neither a file nor a free name, such as a device, is not replaced."""
    try:
        path = path.resolve() if path.is_symlink() else path
        said = None if path.name and (path.is_file() or not path.exists()) else "no name of a file"
    except (OSError, RuntimeError) as error:  # no permission, a name too long, links in a circle
        said = getattr(error, "strerror", None) or error
    if said is not None:
        raise InputError("a file cannot be written", str(path), said, "choose another file or folder")
    return path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all. NaN and infinity are refused, not written."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            "a file cannot be read", str(path), error.strerror or error, "check the path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError("a file is not JSON", str(path), error, "give a file this program wrote") from error


def writable_folder(path: Path) -> Path:
    """Make the folder if need be and prove that a file can be written into it.

    Raises:
        InputError: it is a file, or cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:  # ValueError: a name that has a null in it
        raise InputError(
            "the output folder cannot be written",
            repr(str(path))[1:-1],
            getattr(error, "strerror", None) or error,
            "choose another with --out",
        ) from error
    return path


def sha256(content: bytes) -> str:
    """The checksum by which a record knows its other files."""
    return hashlib.sha256(content).hexdigest()


def read_checked(file: Path, checksum: Any, record: str, remedy: str) -> bytes:
    """The content of a file that belongs to a record.

    Args:
        file: the file.
        checksum: that the record has for it.
        record: the record's name, for the message.
        remedy: what to do, likewise.

    Raises:
        InputError: it cannot be read, or is not the file the record was written with.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError("a file cannot be read", str(file), error.strerror or error, remedy) from error
    if sha256(content) != checksum:
        what = f"cut short, changed, or not the file that {record} was written with"
        raise InputError(what, str(file), f"{len(content):,} bytes", remedy)
    return content


def write_together(folder: str | Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder, made if need be; either all are replaced, the last one last, or none.

    Raises:
        InputError: they cannot be written.
    """
    folder = writable_folder(Path(folder))
    with contextlib.ExitStack() as stack:
        for name in reversed(list(files)):  # what is entered last is renamed first
            stack.enter_context(replacing(folder / name)).write_bytes(files[name])
    return [folder / name for name in files]


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """Indented JSON. NaN and infinity are refused, not written."""
    return (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_record(file: Path, kind: str, version: int) -> dict[str, Any]:
    """The values of a record.

    Raises:
        InputError: the file is missing, no JSON, of another kind or version.
    """
    values = read_json(file)
    if not isinstance(values, dict) or values.get("kind") != kind:
        raise InputError(f"not a {kind}", str(file), None, "give a folder that `weightdecay fit` wrote")
    if values.get("version") != version:
        raise InputError("written by another version", str(file), values.get("version"), "fit it again")
    return values


def read_part(file: Path, checksum: Any, record: str) -> bytes:
    """As `weightdecay.saving.read_checked`, of a fit."""
    return read_checked(file, checksum, record, "fit it again")


def read_tensors(file: Path, checksum: Any, record: str) -> dict[str, "Tensor"]:
    """The tensors of a safetensors file that belongs to a record.

    Raises:
        InputError: as `read_checked`; or it is no safetensors file.
    """
    import safetensors.torch

    content = read_part(file, checksum, record)
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise InputError("not a safetensors file", str(file), error, "fit it again") from error


def tensor_bytes(values: Mapping[str, "float | Tensor"]) -> bytes:
    """Numbers and tensors as a safetensors file, to the bit."""
    import safetensors.torch

    return safetensors.torch.save({name: _stored(value) for name, value in values.items()})


def plain(value: "float | Tensor") -> Any:
    """A number, or a list of them, as JSON has it; null where one is not finite."""
    if not isinstance(value, float | int) and value.ndim:
        return [plain(one) for one in value.tolist()]
    number = float(value)
    return number if math.isfinite(number) else None


def names_of_list(names: list[str] | None) -> tuple[str, ...] | None:
    """Names as a record holds them."""
    return None if names is None else tuple(names)


def environment() -> dict[str, str]:
    """What, beside the settings, the bits of a fit depend on."""
    names = ("weightdecay", "torch", "numpy", "polars", "safetensors")
    versions = {name: version_of(name) for name in names}
    return {**versions, "python": platform.python_version(), "machine": platform.machine()}


def _stored(value: "float | Tensor") -> "Tensor":
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().cpu().contiguous().clone()
    return torch.tensor(value, dtype=torch.float64)
