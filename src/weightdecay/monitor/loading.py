"""The record of a monitor, from its files."""

import hashlib
from io import BytesIO
from pathlib import Path

import polars as pl

from weightdecay.errors import InputError
from weightdecay.files import read_json
from weightdecay.monitor.record import KIND, SCHEMA, VERSION, Monitored


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
    try:
        content = numbers.read_bytes()
    except OSError as error:
        raise InputError("a file cannot be read", str(numbers), error.strerror, "check the folder") from error
    if hashlib.sha256(content).hexdigest() != about.get("sha256"):
        what = "cut short, changed, or not the file that monitor.json was written with"
        raise InputError(what, str(numbers), f"{len(content):,} bytes", "save it again")
    rows = pl.read_parquet(BytesIO(content))
    try:
        return Monitored(
            rows.select(list(SCHEMA)), *(about[name] for name in ("optimizer", "every", "steps"))
        )
    except (KeyError, pl.exceptions.PolarsError) as error:
        raise InputError("a field is missing", str(file), error, "save it again") from error
