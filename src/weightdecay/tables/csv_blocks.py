"""CSV in blocks of rows: bytes are read, cut after a row's end, and parsed by polars."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import polars as pl
import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.tables.cells import blank_rows, numbers, refuse_cell

BYTES = 4 << 20
LONGEST = 64 << 20  # of what may lie between two quotation marks: beyond, one was not closed


def schema(path: str) -> dict[str, Any]:
    """The names in the header; types are only known when all is read."""
    with Path(path).open("rb") as file:
        header = _header(file)
    if not header.strip():
        raise InputError("the table cannot be read", path, "empty CSV", "give a file with a header and rows")
    try:
        frame = pl.read_csv(header, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            "the table cannot be read", path, str(error).splitlines()[0], "mend line 1"
        ) from error
    twice = [name for name in frame.columns if "_duplicated_" in name]
    if twice:
        name = twice[0].partition("_duplicated_")[0]
        raise InputError("two columns have one name", f"column in {path}", repr(name), "rename one of them")
    return dict.fromkeys(frame.columns)


def _header(file: IO[bytes]) -> bytes:
    """The first row; quoted names may hold line breaks."""
    header = line = file.readline()
    while line and header.count(b'"') % 2 and len(header) < LONGEST:
        line = file.readline()
        header += line
    return header


def _end(text: bytes) -> int:
    """Where the last whole row ends: after a line break with an even number of quotation marks before it."""
    end = text.rfind(b"\n") + 1
    inside = text.count(b'"', 0, end) % 2
    while inside:
        before = text.rfind(b"\n", 0, end - 1) + 1
        inside ^= text.count(b'"', before, end) % 2
        end = before
    return end


def count(path: str) -> int | None:  # noqa: ARG001  (known for Parquet)
    """Not known before the file is read."""
    return None


def blocks(
    path: str,
    inputs: Sequence[str],
    others: Sequence[str],
    step: int,
    dtype: torch.dtype,
    start: int,
    number: int | None,
) -> Iterator[tuple[int, Callable[[], pl.DataFrame], Tensor, Tensor]]:
    """Blocks of rows: the number of rows before, the rows for a message, inputs (b, p), other columns (b, o).

    Blank lines are no rows, but count where a row is named. A file is always read whole.
    """
    del start, number, step, dtype
    names = [*inputs, *others]
    every: list[str] = list(schema(path))
    first, rest = 0, b""
    try:
        file = Path(path).open("rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise InputError(
            "the table cannot be read", path, error.strerror or error, "check the path"
        ) from error
    with file:
        _header(file)
        while True:
            read = file.read(BYTES)
            lines = rest + read
            end = _end(lines) if read else len(lines)
            lines, rest = lines[:end], lines[end:]
            if len(rest) > LONGEST:
                what = "a quotation mark is not closed"
                raise InputError(what, path, f"after row {first}", "close it, or write it twice")
            if lines:
                frame = _parsed(path, lines, every, names, first)
                kept = frame.filter(~blank_rows(frame))
                if kept.height:
                    if sum(kept.null_count().row(0)):
                        refuse_cell(frame, first, path, 1e300)
                    yield first, functools.partial(_same, frame), numbers(kept, inputs), numbers(kept, others)
                first += frame.height
            if not read:
                return


def _same(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


def _parsed(path: str, lines: bytes, every: list[str], names: Sequence[str], first: int) -> pl.DataFrame:
    """The chosen columns of some lines as numbers; a cell that is none is named."""

    def read(kind: Any) -> pl.DataFrame:
        frame = pl.read_csv(lines, has_header=False, schema=cast(Any, dict.fromkeys(every, kind)), glob=False)
        return frame.select(names)

    try:
        return read(pl.Float64)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        try:
            texts = read(pl.String)
        except pl.exceptions.PolarsError:
            raise InputError(
                "the table cannot be read", path, f"{reason}, near row {first + 1}", "check the file"
            ) from error
        logical = texts.with_columns(
            pl.col(name).str.strip_chars().replace({"true": "1", "false": "0"}) for name in names
        )
        refuse_cell(logical, first, path, 1e300)
        return logical.cast(pl.Float64)
