"""Parquet in blocks of rows: a few columns at a time of one row group, and memory does not follow the file.

A row group's pages are compressed column by column, so all its rows have to be held to have one of them:
its numbers are held column by column, and a block of rows is a view of them, while the next row group is
read. What is never held is the file's bytes and polars' working copies for more than some columns.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.tables.cells import refuse_cell
from weightdecay.tables.footer import row_group_rows

HELD = 48 << 20  # bytes of decoded numbers; a larger row group is read in parts
AT_ONCE = 1 << 21  # numbers that polars reads at a time


def schema(path: str) -> dict[str, Any]:
    """Names and types of the columns."""
    whole(path)
    try:
        return dict(pl.read_parquet_schema(path))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(path, error) from error


def whole(path: str) -> None:
    """Refuse a file that has no end.

    Raises:
        InputError: the file is cut short, or no Parquet file.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(4)
            size = file.seek(0, 2)
            file.seek(max(0, size - 4))
            end = file.read(4)
    except OSError as error:
        raise unreadable(path, error) from error
    if start != b"PAR1" or end != b"PAR1" or size < 12:
        what = "the Parquet file is cut short" if start == b"PAR1" else "the table cannot be read"
        reason = "its last bytes are missing" if start == b"PAR1" else "no Parquet file"
        raise InputError(what, path, reason, "write it again")


def count(path: str) -> int | None:
    """How many rows there are, from the file's end."""
    whole(path)
    try:
        return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(path, error) from error


def blocks(
    path: str,
    inputs: Sequence[str],
    others: Sequence[str],
    step: int,
    dtype: torch.dtype,
    start: int,
    number: int | None,
) -> Iterator[tuple[int, Callable[[], pl.DataFrame], Tensor, Tensor]]:
    """Blocks of rows: number of rows before, the rows for a message, inputs, other columns."""
    whole(path)
    kind = pl.Float32 if dtype == torch.float32 else pl.Float64
    rows = count(path) or 0
    stop = rows if number is None else min(rows, start + number)
    a_row = len(inputs) * (4 if kind == pl.Float32 else 8) + 8 * len(others)

    table = pl.scan_parquet(path, glob=False)  # one for all reads: it keeps what it knows of the file

    def read(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        inside = _columns(table, path, inputs, kind, first, last - first)
        return inside, _columns(table, path, others, pl.Float64, first, last - first)

    for (first, last), (held, beside) in _ahead(read, pieces(path, rows, a_row, start, stop)):
        for a in range(0, last - first, step):
            b = min(last - first, a + step)
            show = functools.partial(_shown, (held, inputs, beside, others), a, b)
            yield first + a, show, _rows(held, a, b), _rows(beside, a, b)


def _ahead(
    read: Callable[[int, int], Any], ranges: Iterator[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Any]]:
    """Each range with what was read of it, the next one being read meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for one in ranges:
            following = one, pool.submit(read, *one)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def _columns(
    table: pl.LazyFrame, path: str, names: Sequence[str], kind: Any, first: int, number: int
) -> np.ndarray:
    """Columns as numbers, one below the other (columns, rows); some are read at a time."""
    width = max(1, AT_ONCE // number)
    found = np.empty((len(names), number), np.float32 if kind == pl.Float32 else np.float64)
    for some in range(0, len(names), width):
        read = _read(table, path, names[some : some + width], first, number)
        for place, column in enumerate(read, start=some):
            if column.null_count():
                refuse_cell(column.to_frame(), first, path, 1e300, lines=False)
            found[place] = column.cast(kind).to_numpy()
    return found


def _rows(columns: np.ndarray, a: int, b: int) -> Tensor:
    """Some rows of columns, as they lie: column after column, without a copy."""
    return torch.from_numpy(columns[:, a:b]).mT


def pieces(path: str, rows: int, bytes_a_row: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows to hold together: row groups, or equal parts of large ones."""
    edges = [0]
    for size in row_group_rows(path) or [rows]:
        parts = max(1, -(-size * bytes_a_row // HELD))
        edges += [edges[-1] + size * (k + 1) // parts for k in range(parts)]
    for first, last in itertools.pairwise(edges):
        if max(first, start) < min(last, stop):
            yield max(first, start), min(last, stop)


def unreadable(path: str, error: Exception) -> InputError:
    """What polars says, in one line."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError("the table cannot be read", path, reason, "check the path and the file")


def _read(table: pl.LazyFrame, path: str, names: Sequence[str], first: int, number: int) -> list[pl.Series]:
    try:
        frame = table.select(names).slice(first, number).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(path, error) from error
    return [column.rechunk() for column in frame.iter_columns()]


def _shown(held: tuple, a: int, b: int) -> pl.DataFrame:
    """A block's rows with their names, for a message."""
    columns, inputs, beside, others = held
    named = [*zip(inputs, columns, strict=True), *zip(others, beside, strict=True)]
    return pl.DataFrame({name: column[a:b] for name, column in named})
