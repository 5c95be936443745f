"""Parquet in blocks of rows: a few columns at a time of one row group, and memory does not follow the file.

A row group's pages are compressed column by column, so all its rows have to be held to have one of them:
its numbers stay as they were decoded, and rows are put together from them a block at a time. What is never
held is the file's bytes and polars' working copies for more than a few columns.
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

HELD = 104 << 20  # bytes of decoded numbers; a larger row group is read in parts
AT_ONCE = 1 << 19  # numbers that polars reads at a time


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
    for first, last in pieces(path, rows, a_row, start, stop):
        held = _columns(path, inputs, kind, first, last - first)
        beside = _columns(path, others, pl.Float64, first, last - first)
        for a in range(0, last - first, step):
            b = min(last - first, a + step)
            show = functools.partial(_shown, (held, inputs, beside, others), a, b)
            yield first + a, show, _by_rows(held, a, b), _by_rows(beside, a, b)
        held.clear()  # whoever still has a block must not keep all of these
        beside.clear()


def _columns(path: str, names: Sequence[str], kind: Any, first: int, number: int) -> list[np.ndarray]:
    """Columns as numbers, a few read at a time, by two threads."""
    width = max(1, AT_ONCE // number)
    groups = [names[some : some + width] for some in range(0, len(names), width)]

    def read(some: Sequence[str]) -> list[np.ndarray]:
        found = []
        for column in _read(path, some, first, number):
            if column.null_count():
                refuse_cell(column.to_frame(), first, path, 1e300, lines=False)
            found.append(column.cast(kind).to_numpy())
        return found

    with ThreadPoolExecutor(2) as pool:
        return [column for group in pool.map(read, groups) for column in group]


def _by_rows(columns: list[np.ndarray], a: int, b: int) -> Tensor:
    """Some rows of columns, row by row; in tiles that stay in cache while rows and columns change places."""
    rows = np.empty((b - a, len(columns)), columns[0].dtype)
    for j in range(0, len(columns), 16):
        rows[:, j : j + 16] = np.stack([column[a:b] for column in columns[j : j + 16]]).T
    return torch.from_numpy(rows)


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


def _read(path: str, names: Sequence[str], first: int, number: int) -> list[pl.Series]:
    try:
        frame = pl.scan_parquet(path, glob=False).select(names).slice(first, number).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(path, error) from error
    return [column.rechunk() for column in frame.iter_columns()]


def _shown(held: tuple, a: int, b: int) -> pl.DataFrame:
    """A block's rows with their names, for a message."""
    columns, inputs, beside, others = held
    named = [*zip(inputs, columns, strict=True), *zip(others, beside, strict=True)]
    return pl.DataFrame({name: column[a:b] for name, column in named})
