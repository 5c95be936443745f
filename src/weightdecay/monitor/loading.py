"""The record of a monitor, from its files."""

from io import BytesIO
from pathlib import Path

import polars as pl

from weightdecay.errors import InputError
from weightdecay.files import read_checked, read_json
from weightdecay.monitor.record import KIND, SCHEMA, VERSION, Monitored
from weightdecay.units.numbers import count


def load_monitored(folder: str | Path) -> Monitored:
    """Load what `Monitored.save` wrote.

    Raises:
        InputError: a file is missing, cut short, of another run, or no such record at all.
    """
    file = Path(folder) / "monitor.json"
    about = read_json(file)
    if not isinstance(about, dict) or about.get("kind") != KIND or about.get("version") != VERSION:
        raise InputError("not the record of a monitor", str(file), None, "give a folder that save() wrote")
    numbers = file.with_suffix(".parquet")
    content = read_checked(numbers, about.get("sha256"), file.name, "save it again")
    try:
        rows = pl.read_parquet(BytesIO(content)).select(list(SCHEMA))
        if dict(rows.schema) != SCHEMA or not isinstance(about["optimizer"], str):
            raise TypeError("another type than it should have")
        every, steps = count(about["every"], "every", least=2), count(about["steps"], "steps", least=0)
        return Monitored(rows, about["optimizer"], every, steps)
    except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError("a field is missing or wrong", str(file), error, "save it again") from error
