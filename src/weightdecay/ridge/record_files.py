"""Records as plain files: numbers to the bit, and read back only if the files belong together."""

import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from weightdecay import files
from weightdecay.errors import InputError
from weightdecay.files import read_json


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


def read_checked(file: Path, checksum: Any, record: str) -> bytes:
    """As `weightdecay.files.read_checked`, of a fit."""
    return files.read_checked(file, checksum, record, "fit it again")


def read_tensors(file: Path, checksum: Any, record: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file that belongs to a record.

    Raises:
        InputError: as `read_checked`; or it is no safetensors file.
    """
    content = read_checked(file, checksum, record)
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise InputError("not a safetensors file", str(file), error, "fit it again") from error


def tensor_bytes(values: Mapping[str, float | Tensor]) -> bytes:
    """Numbers and tensors as a safetensors file, to the bit."""
    return safetensors.torch.save({name: _stored(value) for name, value in values.items()})


def plain(value: float | Tensor) -> Any:
    """A number, or a list of them, as JSON has it; null where one is not finite."""
    if isinstance(value, Tensor) and value.ndim:
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


def _stored(value: float | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu().contiguous().clone()
    return torch.tensor(value, dtype=torch.float64)
