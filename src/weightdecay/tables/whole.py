"""A person's table: a CSV or Parquet file -> checked columns of numbers."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.tables.cells import TOO_LARGE, listed, separator_hint


@dataclass(frozen=True)
class Table:
    """The inputs and the target of a table, float64, no cell missing.

    Args:
        X: the inputs, shape (rows, columns).
        y: the target, shape (rows,).
        columns: the inputs' names, in the order of the file.
    """

    X: Float64[Tensor, "n p"]
    y: Float64[Tensor, " n"]
    columns: tuple[str, ...]


def read_table(path: str | Path, target: str, drop: Sequence[str] = ()) -> Table:
    """Read a CSV or Parquet file: one column is the target, every other one an input unless dropped.

    Args:
        path: the file, by its ending .csv or .parquet.
        target: the column to predict.
        drop: columns to leave out.

    Raises:
        InputError: a file that is missing or cannot be parsed, a column that is missing, named twice or
            not numeric, an empty, NaN or infinite cell (row and column named), a constant target.
    """
    path = Path(path)
    frame, rows = read_rows(path)
    for name in (target, *drop):
        if name not in frame.columns:
            raise InputError(
                "no such column",
                f"column in {path}",
                repr(name),
                f"the file has {listed(frame.columns)}{separator_hint(frame.columns)}",
            )
    if target in drop:
        raise InputError("the target is also dropped", "drop", repr(target), "take it out of one of the two")
    inputs = [name for name in frame.columns if name != target and name not in drop]
    if not inputs:
        raise InputError("no column is left as an input", str(path), None, "drop fewer columns")
    numbers = frame.select(numeric(frame[name], rows, path) for name in (*inputs, target))
    y = torch.from_numpy(numbers[target].to_numpy(writable=True))
    if len(y) > 1 and bool((y == y[0]).all()):
        raise InputError(
            "the target is constant", f"column {target!r} in {path}", y[0].item(), "choose another"
        )
    return Table(
        torch.from_numpy(numbers.select(inputs).to_numpy(writable=True)).contiguous(), y, tuple(inputs)
    )


def read_rows(path: Path) -> tuple[pl.DataFrame, pl.Series]:
    """The rows that are not blank, and which rows of the file they are, counted from 1."""
    # Types are inferred from all rows, so that a column of whole numbers may end in fractions, or in text.
    readers = {
        ".csv": functools.partial(pl.read_csv, infer_schema_length=None, glob=False),
        ".parquet": functools.partial(pl.read_parquet, glob=False),
    }
    if path.suffix.lower() not in readers:
        raise InputError("not a table this program reads", "data", str(path), "give a .csv or .parquet file")
    try:
        frame = readers[path.suffix.lower()](path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            "the table cannot be read", str(path), reason, "check the path and the file"
        ) from error
    twice = [name for name in frame.columns if "_duplicated_" in name]
    if twice:
        name = twice[0].partition("_duplicated_")[0]
        raise InputError("two columns have one name", f"column in {path}", repr(name), "rename one of them")
    if frame.height == 0:
        raise InputError("the table has no rows", str(path), None, "give a file with a header and rows")
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    return frame.filter(~blank), (~blank).arg_true() + 1


def numeric(column: pl.Series, rows: pl.Series, path: Path) -> pl.Series:
    """The column as float64; the first cell that is not a finite number is an error that names it."""
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean or column.dtype == pl.String):
        raise InputError(
            "a column is not numeric",
            f"column {column.name!r} in {path}",
            column.dtype,
            "drop it, or convert it",
        )
    numbers = column.cast(pl.Float64, strict=False)
    wrong = (~(numbers.abs() < TOO_LARGE)).fill_null(True).arg_true()
    if len(wrong):
        cell = column[wrong[0]]
        place = f"row {rows[wrong[0]]}, column {column.name!r} of {path}"
        if isinstance(cell, str):
            raise InputError("a cell is not a number", place, repr(cell), "drop the column, or mend the cell")
        raise InputError(
            "a cell is empty, not finite or beyond 1e150",
            place,
            "empty" if cell is None else cell,
            "fill it, or leave the row out",
        )
    return numbers
