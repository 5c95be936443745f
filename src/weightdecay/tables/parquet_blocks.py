"""Parquet and Arrow in blocks of rows, some columns at a time: memory does not follow the file.

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
from weightdecay.tables.cells import numbers, texts, unreadable
from weightdecay.tables.dialect import Shard

HELD = 48 << 20  # bytes of decoded numbers; a larger row group is read in parts
LET_GO = 2  # blocks after which nobody holds one of the range before
AT_ONCE = 1 << 20  # numbers that polars reads at a time


def schema(shard: Shard) -> dict[str, Any]:
    """Names and types of the columns."""
    whole(shard.path)
    try:
        return dict(_scan(shard.path).collect_schema())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(shard.path, error) from error


def whole(path: str) -> None:
    """Refuse a file that has no end.

    Raises:
        InputError: the file is cut short, or is not of the format that its name has.
    """
    name, mark = ("Parquet", b"PAR1") if is_parquet(path) else ("Arrow", b"ARROW1")
    try:
        with Path(path).open("rb") as file:
            start = file.read(len(mark))
            size = file.seek(0, 2)
            file.seek(max(0, size - len(mark)))
            end = file.read()
    except OSError as error:
        raise unreadable(path, error) from error
    if start == mark and (end != mark or size < 12):
        what = f"the {name} file is cut short"
        raise InputError(what, path, "its last bytes are missing", "write it again")
    if start != mark:
        remedy = "end its name in .csv if it is one"
        if not is_parquet(path):
            remedy = "write it in Arrow's file format (Feather version 2), not the stream format"
        raise InputError("the table cannot be read", path, f"no {name} file", remedy)


def is_parquet(path: str) -> bool:
    """Whether a file is Parquet by its name; else it is Arrow's."""
    return path.lower().endswith(".parquet")


def _scan(path: str) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False) if is_parquet(path) else pl.scan_ipc(path, glob=False)


def count(shard: Shard) -> int | None:
    """How many rows the file has, from its end."""
    whole(shard.path)
    try:
        return int(_scan(shard.path).select(pl.len()).collect().item())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(shard.path, error) from error


def blocks(
    shard: Shard,
    inputs: Sequence[str],
    others: Sequence[str],
    step: int,
    dtype: torch.dtype,
    texts: Sequence[str] = (),
) -> Iterator[tuple[np.ndarray, Callable[[], list[pl.Series]], Tensor, Tensor, list[pl.Series]]]:
    """Blocks of rows: numbers in the file, cells for a message, inputs, other columns, columns of texts."""
    path, start, number, _ = shard
    kind = pl.Float32 if dtype == torch.float32 else pl.Float64
    rows = count(shard) or 0
    stop = rows if number is None else min(rows, start + number)
    a_row = len(inputs) * (4 if kind == pl.Float32 else 8) + 8 * len(others) + 24 * len(texts)

    table = _scan(path)  # one for all reads: it keeps what it knows of the file

    ranges = list(pieces(path, rows, a_row, start, stop))
    room = max((last - first for first, last in ranges), default=0)
    # Two of each, used in turn: new memory for every range would cost as much as the reading.
    memory = [(_numbers(len(inputs), room, kind), _numbers(len(others), room, pl.Float64)) for _ in range(2)]

    def read(first: int, last: int) -> tuple[np.ndarray, np.ndarray, list[pl.Series]]:
        inside, beside = (part[:, : last - first] for part in memory[0])
        memory.reverse()
        _columns(inside, table, path, inputs, first)
        _columns(beside, table, path, others, first)
        return inside, beside, _read(table, path, texts, first, last - first) if texts else []

    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(read, *ranges[0]) if ranges else None
        for place, (first, last) in enumerate(ranges):
            assert waiting is not None
            held, beside, named = waiting.result()
            waiting = None
            for number_yielded, a in enumerate(range(0, last - first, step)):
                # Not before those who wait for blocks have let go of the range before.
                if waiting is None and number_yielded >= LET_GO and place + 1 < len(ranges):
                    waiting = reader.submit(read, *ranges[place + 1])
                b = min(last - first, a + step)
                shown = functools.partial(_read, table, path, [*inputs, *others], first + a, b - a)
                some = [column.slice(a, b - a) for column in named]
                yield np.arange(first + a, first + b), shown, _rows(held, a, b), _rows(beside, a, b), some
            if waiting is None and place + 1 < len(ranges):
                waiting = reader.submit(read, *ranges[place + 1])


def _numbers(columns: int, rows: int, kind: Any) -> np.ndarray:
    return np.empty((columns, rows), np.float32 if kind == pl.Float32 else np.float64)


def _columns(into: np.ndarray, table: pl.LazyFrame, path: str, names: Sequence[str], first: int) -> None:
    """Columns as numbers, one below the other (columns, rows); some are read at a time."""
    number = into.shape[1]
    width = max(1, AT_ONCE // number)
    kind = pl.Float32 if into.dtype == np.float32 else pl.Float64
    for some in range(0, len(names), width):
        for place, column in enumerate(_read(table, path, names[some : some + width], first, number), some):
            into[place] = numbers(column, kind).to_numpy()  # NaN where a cell is no number


def _rows(columns: np.ndarray, a: int, b: int) -> Tensor:
    """Some rows of columns, as they lie: column after column, without a copy."""
    return torch.from_numpy(columns[:, a:b]).mT


def pieces(path: str, rows: int, bytes_a_row: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows to hold together: row groups, or equal parts of large ones."""
    edges = [0]
    for size in (row_group_rows(path) if is_parquet(path) else None) or [rows]:
        parts = max(1, -(-size * bytes_a_row // HELD))
        edges += [edges[-1] + size * (k + 1) // parts for k in range(parts)]
    for first, last in itertools.pairwise(edges):
        if max(first, start) < min(last, stop):
            yield max(first, start), min(last, stop)


def _read(table: pl.LazyFrame, path: str, names: Sequence[str], first: int, number: int) -> list[pl.Series]:
    try:
        frame = table.select(names).slice(first, number).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(path, error) from error
    return [column.rechunk() for column in frame.iter_columns()]


def raw(shard: Shard, names: Sequence[str], most: int | None = None) -> Iterator[pl.DataFrame]:
    """Some columns as they stand, in blocks of rows; those of the first rows only where `most` is given."""
    path, start, number, _ = shard
    rows = count(shard) or 0
    stop, table = rows if number is None else min(rows, start + number), _scan(path)
    for first, last in pieces(path, rows, 24 * len(names), start, min(stop, start + (most or rows))):
        yield pl.DataFrame(dict(zip(names, _read(table, path, names, first, last - first), strict=True)))


def cells(shard: Shard, names: Sequence[str]) -> pl.DataFrame:
    """Some columns as they are."""
    return pl.DataFrame(_read(_scan(shard.path), shard.path, names, 0, count(shard) or 0))


def labels(shard: Shard, name: str) -> pl.Series:
    """A column as texts without white space around them; null where a cell is empty."""
    return texts(cells(shard, [name]).to_series()).str.strip_chars().replace("", None)


def row_group_rows(path: str) -> list[int] | None:
    """Rows of each row group, read from the file's metadata (Thrift, compact protocol); None if that fails.

    Source: parquet.thrift, FileMetaData: 3 num_rows, 4 row_groups; RowGroup: 1 columns, 3 num_rows.
    """
    try:
        state = Path(path).stat()
    except OSError:
        return None
    return _footer_rows(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _footer_rows(path: str, *_: int) -> list[int] | None:
    """The same; kept for the same file, for a wide one takes a while."""
    try:
        with Path(path).open("rb") as file:
            file.seek(-8, 2)
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - length, 2)
            data = file.read(length)
        return _Compact(data).row_groups()
    except (OSError, IndexError, ValueError):
        return None


class _Compact:
    """Just enough of Thrift's compact protocol to step over what is not wanted."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def zigzag(self) -> int:
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def fields(self):
        """(number, type) of each field of a struct; the caller steps over its value."""
        last = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            if byte == 0:
                return
            last = last + (byte >> 4) if byte >> 4 else self.zigzag()
            yield last, byte & 15

    def items(self) -> tuple[int, int]:
        """Length and type of a list."""
        byte = self.data[self.at]
        self.at += 1
        return (byte >> 4 if byte >> 4 < 15 else self.number()), byte & 15

    def skip(self, kind: int) -> None:
        if kind in (1, 2):  # a boolean is in its field's type
            return
        if kind == 3:
            self.at += 1
        elif kind in (4, 5, 6):
            self.number()
        elif kind == 7:
            self.at += 8
        elif kind == 8:
            length = self.number()  # which moves on by itself
            self.at += length
        elif kind in (9, 10):
            length, inner = self.items()
            for _ in range(length):
                if inner in (1, 2):
                    self.at += 1
                else:
                    self.skip(inner)
        elif kind == 12:
            for _, inner in self.fields():
                self.skip(inner)
        else:
            raise ValueError(f"type {kind}")

    def row_groups(self) -> list[int]:
        found: list[int] = []
        for field, kind in self.fields():
            if field != 4:
                self.skip(kind)
                continue
            length, _ = self.items()
            for _ in range(length):
                for inner, inner_kind in self.fields():
                    if inner == 3:
                        found.append(self.zigzag())
                    else:
                        self.skip(inner_kind)
        return found
