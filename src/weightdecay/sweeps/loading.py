"""The record of a sweep, from its files."""

from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import safetensors.torch
from safetensors import SafetensorError

from weightdecay.errors import InputError
from weightdecay.files import read_checked, read_json
from weightdecay.sweeps.record import KIND, VERSION, Sweep, sweep_record
from weightdecay.sweeps.tables import trained_of


def load_sweep(folder: str | Path) -> Sweep:
    """Load what `Sweep.save` or `weightdecay sweep` wrote.

    Raises:
        InputError: a file is missing, cut short, of another sweep, or no sweep at all.
    """
    folder = Path(folder)
    values = _record(folder / "sweep.json")
    try:
        contents = {
            name: read_checked(folder / name, checksum, "sweep.json", "sweep again")
            for name, checksum in values["sha256"].items()
        }
        table, curves = (
            pl.read_parquet(BytesIO(contents[name])) for name in ("table.parquet", "curves.parquet")
        )
        name, maximize = values["goal"]["name"], values["goal"]["maximize"]
        return sweep_record(
            trained_of(table, curves),
            **({"maximize": name} if maximize else {"minimize": name}),
            weights=safetensors.torch.load(contents["weights.safetensors"]),
            **{field: values[field] for field in ("method", "settings", "seconds")},
            steps_per_epoch=values.get("steps_per_epoch"),  # older records have neither
            factors={(rule, lr): value for rule, lr, value in values.get("factors", ())},
        )
    except InputError:  # which is a ValueError and says more
        raise
    except (
        *(KeyError, TypeError, ValueError, IndexError, AttributeError),
        *(pl.exceptions.PolarsError, SafetensorError),
    ) as error:
        what = "a field is missing or wrong"
        raise InputError(what, str(folder / "sweep.json"), repr(error), "sweep again") from error


def _record(file: Path) -> dict[str, Any]:
    values = read_json(file)
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise InputError("not a sweep", str(file), None, "give a folder that `weightdecay sweep` wrote")
    if values.get("version") != VERSION:
        raise InputError("written by another version", str(file), values.get("version"), "sweep again")
    return values
