"""Cells: to numbers, or refused by file, row and column."""

from collections.abc import Sequence

import polars as pl
import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError

TOO_LARGE = 1e150  # beyond, squares overflow in float64


def numbers(frame: pl.DataFrame, names: Sequence[str]) -> Float64[Tensor, "b t"]:
    """Some columns as float64 (rows, columns)."""
    found = frame.select(pl.col(name).cast(pl.Float64) for name in names)
    return torch.from_numpy(found.to_numpy(writable=True)).reshape(frame.height, len(names))


def blank_rows(frame: pl.DataFrame) -> pl.Series:
    """Which rows have nothing in any cell: blank lines, which are no rows."""
    return frame.select(pl.all_horizontal(pl.all().is_null())).to_series()


def refuse_cell(frame: pl.DataFrame, first: int, path: str, limit: float, lines: bool = True) -> None:
    """Name the first cell that is no number to compute with; return if there is none.

    Args:
        frame: the rows, as numbers or as texts.
        first: the number of rows before them in the file, blank ones counted.
        path: the file.
        limit: of the sum of squares.
        lines: a row with nothing in any cell is a blank line, and no row.
    """
    largest = min(TOO_LARGE, limit**0.5)
    blank = blank_rows(frame) & lines
    least: tuple[int, str] | None = None
    for column in frame.iter_columns():
        if column.dtype == pl.String:
            column = column.str.strip_chars()
        values = column.cast(pl.Float64, strict=False)
        wrong = (~(values.abs() < largest)).fill_null(True)
        if column.dtype == pl.Boolean:
            wrong = column.is_null()
        places = (wrong & ~blank).arg_true()
        if len(places) and (least is None or places[0] < least[0]):
            least = (int(places[0]), column.name)
    if least is None:
        return
    row, name = least
    cell = frame[name][row]
    place = f"row {first + row + 1}, column {name!r} of {path}"
    if isinstance(cell, str):
        raise InputError("a cell is not a number", place, repr(cell), "drop the column, or mend the cell")
    raise InputError(
        f"a cell is empty, not finite or beyond {largest:.0e}".replace("e+", "e"),
        place,
        "empty" if cell is None else cell,
        "fill it, or leave the row out",
    )


def separator_hint(names: Sequence[str]) -> str:
    """What to say of a header that was not taken apart."""
    return "; are its columns separated by commas?" if len(names) == 1 and set(names[0]) & set(";\t|") else ""


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first few names, and how many there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names):,} columns)"
