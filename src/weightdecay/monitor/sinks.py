"""Where the rows of a monitor can go while the training runs: files, TensorBoard, any function."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from weightdecay.errors import InputError
from weightdecay.files import replacing, writable_folder
from weightdecay.monitor.record import SCHEMA

Row = dict[str, Any]
# What TensorBoard gets, by parameter: `weight/norm` and so on.
_SCALARS = (
    *("norm", "rms", "update_norm", "angle", "effective_lr", "applied", "intended", "kappa"),
    "equilibrium_norm",
)


def file(path: str | Path) -> Callable[[list[Row]], None]:
    """Keep a CSV or Parquet file, by its suffix, that has every look until now; replaced whole each time.

    Raises:
        InputError: another suffix, or a folder that cannot be written.

    >>> file("monitor.txt")
    Traceback (most recent call last):
    weightdecay.errors.InputError: no such kind of file: path = monitor.txt; use .csv or .parquet
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise InputError("no such kind of file", "path", path, "use .csv or .parquet")
    writable_folder(path.parent)
    seen: list[pl.DataFrame] = []

    def write(rows: list[Row]) -> None:
        seen.append(pl.DataFrame(rows, schema=SCHEMA))
        with replacing(path) as temporary:
            table = pl.concat(seen)
            if path.suffix == ".csv":
                table.write_csv(temporary)
            else:
                table.write_parquet(temporary)

    return write


def tensorboard(folder: str | Path) -> Callable[[list[Row]], None]:
    """Write scalars for TensorBoard: `<parameter>/<column>` at each look.

    Raises:
        InputError: tensorboard is not installed, or the folder cannot be written.
    """
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise InputError(
            "tensorboard is not installed", "folder", folder, "pip install 'weightdecay[tensorboard]'"
        ) from error
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(writable_folder(Path(folder))))

    def write(rows: list[Row]) -> None:
        for row in rows:
            for name in _SCALARS:
                writer.add_scalar(f"{row['parameter']}/{name}", row[name], row["step"])
        for name in ("train_loss", "test_loss"):
            if rows and rows[0][name] is not None:
                writer.add_scalar(name, rows[0][name], rows[0]["step"])
        writer.flush()

    return write
