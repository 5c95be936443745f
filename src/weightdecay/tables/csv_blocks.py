"""CSV in blocks of rows: bytes are read, cut after a row's end, and parsed by polars."""

import csv
import functools
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.tables.cells import no_name_twice, numbers, unreadable

BYTES = 4 << 20
LONGEST = 64 << 20  # of what may lie between two quotation marks: beyond, one was not closed
HEAD = 1 << 20  # in which a line ends, in any file that has lines
SPACES = rb"(?:[ \t\r\f\v]|\xc2\xa0)*"
BLANK = re.compile(rb"\n((?:%s\n)+)" % SPACES)
ROW = " row number"  # in a frame beside columns of the file
UTF8 = b"\xef\xbb\xbf"
# What begins like this is no CSV, whatever its name is.
OTHER_FORMATS = {
    b"\x1f\x8b": ("compressed with gzip", "unpack it: gunzip"),
    b"BZh9": ("compressed with bzip2", "unpack it: bunzip2"),
    b"\xfd7zXZ": ("compressed with xz", "unpack it: unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it: unzstd"),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unpack it, or save it as CSV"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save it as CSV"),
    b"PAR1\x15": ("a Parquet file", "end its name in .parquet"),
    b"\xff\xfe": ("UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8"),
}


def schema(path: str) -> dict[str, Any]:
    """The names in the header; types are only known when all is read."""
    header = next(_stretches(path), b"")
    if not header.strip():
        raise unreadable(path, "empty CSV", "give a file with a header and rows")
    if header.count(b'"') % 2:
        raise _not_closed(f"line 1 of {path}", header)
    if b"\0" in header:
        what = "the table is not text in UTF-8"
        raise InputError(what, path, "NUL bytes in line 1", "save it as UTF-8: iconv -f UTF-16 -t UTF-8")
    try:
        names = next(csv.reader(io.StringIO(header.decode(), newline="")))
    except UnicodeDecodeError as error:
        a, b = (header.rfind(b",", 0, error.start) + 1, header.find(b",", error.start))
        name = header[a : b if b > 0 else None].strip()
        raise InputError(
            "the header is not UTF-8",
            f"line 1 of {path}",
            f"{name!r}, in Windows-1252 {name.decode('cp1252', 'replace')!r}",
            "save it as UTF-8: iconv -f WINDOWS-1252 -t UTF-8",
        ) from error
    except csv.Error as error:
        raise unreadable(path, error, "mend line 1") from error
    no_name_twice(names, f"column in {path}")
    return dict.fromkeys(names)


def _stretches(path: str) -> Iterator[bytes]:
    """The header, then whole rows, about `BYTES` at a time; the last ends in a line break, too.

    What follows a quotation mark that is not closed comes last, by itself.
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise unreadable(path, error.strerror or error, "check the path") from error
    with file:
        head = file.read(HEAD)
        for start, (what, remedy) in OTHER_FORMATS.items():
            if head.startswith(start):
                raise InputError("the table is not text in UTF-8", path, what, remedy)
        by_cr = b"\r" in head and b"\n" not in head
        file.seek(len(UTF8) if head.startswith(UTF8) else 0)
        rest, header = b"", False
        while True:
            read = file.read(BYTES)
            text = rest + (read.replace(b"\r", b"\n") if by_cr else read)
            if not read and text and not text.endswith(b"\n"):
                text += b"\n"
            if not header:
                text = re.sub(rb"\A(?:%s\n)+" % SPACES, b"", text)
                end = _first_end(text)
                header = end > 0
                if header:
                    yield text[:end]
                    text = text[end:]
            end = _end(text) if header else 0
            if end:
                yield text[:end]
            rest = text[end:]
            if rest and (len(rest) > LONGEST or not read):
                yield rest
                return
            if not read:
                return


def _not_closed(place: str, text: bytes) -> InputError:
    begins = repr(text[:40].decode("utf-8", "replace"))
    return InputError("a quotation mark is not closed", place, begins, "close it, or write it twice")


def _first_end(text: bytes) -> int:
    """Where the first row ends, 0 if it does not: quoted names may hold line breaks."""
    end = text.find(b"\n") + 1
    while end and text.count(b'"', 0, end) % 2:
        end = text.find(b"\n", end) + 1
    return end


def _end(text: bytes) -> int:
    """Where the last whole row ends: after a line break with an even number of quotation marks before it."""
    end = text.rfind(b"\n") + 1
    inside = text.count(b'"', 0, end) % 2
    while inside:
        before = text.rfind(b"\n", 0, end - 1) + 1
        inside ^= text.count(b'"', before, end) % 2
        end = before
    return end


def _filled(text: bytes) -> Iterator[tuple[bytes, int]]:
    """Rows between blank lines, and how many of these come after; inside a quoted cell there are none."""
    text = b"\n" + text
    start = at = 1
    quotes = 0
    for blank in BLANK.finditer(text):
        quotes += text.count(b'"', at, blank.start())
        at = blank.start()
        if quotes % 2 == 0:
            yield text[start : blank.start() + 1], blank[1].count(b"\n")
            start = blank.end()
    yield text[start:], 0


def _height(text: bytes) -> int:
    """How many rows there are: line breaks outside quotation marks."""
    return text.count(b"\n") if b'"' not in text else sum(t.count(b"\n") for t in text.split(b'"')[::2])


def count(path: str) -> int | None:  # noqa: ARG001  (known for Parquet)
    """Not known before the file is read."""
    return None


def row_count(path: str) -> int:
    """How many rows there are; the whole file is read."""
    stretches = _stretches(path)
    next(stretches, None)
    return sum(_height(part) for text in stretches for part, _ in _filled(text))


def frames(
    path: str, wanted: Sequence[str], kind: Any = pl.Float64
) -> Iterator[tuple[np.ndarray, Callable[[], list[pl.Series]], list[pl.Series]]]:
    """Some columns, in blocks of rows: the rows' numbers from 0, their texts for a message, their cells.

    Blank lines are no rows, but count where a row is named.

    Args:
        path: the file.
        wanted: names of columns.
        kind: Float64 for numbers, null where a cell is none; String for texts.
    """
    every = list(schema(path))
    places = [every.index(name) for name in wanted]
    stretches = _stretches(path)
    next(stretches)
    first = 0
    for text in stretches:
        if text.count(b'"') % 2:
            raise _not_closed(f"row {first + 1} of {path}", text)
        parts, rows = [], []
        for part, blanks in _filled(text):
            parts.append(part)
            rows.append(np.arange(first, first + _height(part)))
            first += len(rows[-1]) + blanks
        numbered, lines = np.concatenate(rows), b"".join(parts)
        if len(numbered):
            read = functools.partial(_parsed, path, lines, len(every), places, numbered)
            shown = functools.partial(_named, read, wanted)
            try:
                cells = read(kind, encoding="utf8")
            except pl.exceptions.PolarsError:
                cells = [column if kind == pl.String else numbers(column) for column in shown()]
            yield numbered, shown, cells


def _named(read: Callable[[Any], list[pl.Series]], wanted: Sequence[str]) -> list[pl.Series]:
    """Cells as texts, by name."""
    return [column.alias(name) for column, name in zip(read(pl.String), wanted, strict=True)]


def _parsed(
    path: str,
    lines: bytes,
    width: int,
    places: Sequence[int],
    rows: np.ndarray,
    kind: Any,
    encoding: Any = None,
) -> list[pl.Series]:
    """Columns by their places; polars' errors are left to the caller who gives an encoding."""
    kinds: dict[str, Any] = dict.fromkeys((f"c{place}" for place in range(width)), pl.String)
    header = ",".join(kinds).encode() + b"\n"  # with one of its own, polars does not guess from the first row
    kinds |= dict.fromkeys((f"c{place}" for place in places), kind)
    try:
        frame = pl.read_csv(header + lines, schema=kinds, glob=False, encoding=encoding or "utf8-lossy")
        if frame.height != len(rows):
            raise pl.exceptions.ComputeError("quotation marks inside a cell")
    except pl.exceptions.PolarsError as error:
        if encoding:
            raise
        raise _unreadable(path, lines, width, rows, error) from error
    return [frame.to_series(place) for place in places]


def _unreadable(path: str, lines: bytes, width: int, rows: np.ndarray, error: Exception) -> InputError:
    """Which row is no row of the table, and why."""
    found = csv.reader(io.StringIO(lines.decode("utf-8", "replace"), newline=""))
    try:
        for row, cells in zip(rows, found, strict=False):
            if len(cells) > width:
                count, remedy = f"{len(cells)} cells, {width} columns", "quote a cell that has a comma in it"
                return InputError("a row has too many cells", f"row {row + 1} of {path}", count, remedy)
    except csv.Error as other:
        error = other
    if b'"' in lines:
        between, remedy = f"rows {rows[0] + 1} to {rows[-1] + 1} of {path}", 'write the cell as "5"" pipe"'
        return InputError('a quotation mark is inside a cell, as in 5" pipe', between, None, remedy)
    reason = f"{str(error).splitlines()[0]}, near row {rows[0] + 1}"
    return unreadable(path, reason, "check the file")


def blocks(
    path: str,
    inputs: Sequence[str],
    others: Sequence[str],
    step: int,
    dtype: torch.dtype,
    start: int,
    number: int | None,
) -> Iterator[tuple[np.ndarray, Callable[[], list[pl.Series]], Tensor, Tensor]]:
    """Blocks of rows: their numbers, their cells for a message, inputs (b, p), other columns (b, o).

    A file is always read whole.
    """
    del start, number, step, dtype
    for rows, shown, cells in frames(path, [*inputs, *others]):
        yield (
            rows,
            shown,
            _together(cells[: len(inputs)], len(rows)),
            _together(cells[len(inputs) :], len(rows)),
        )


def _together(columns: Sequence[pl.Series], rows: int) -> Tensor:
    """Columns side by side (rows, columns); empty cells become NaN."""
    found = np.empty((len(columns), rows))
    for place, column in enumerate(columns):
        found[place] = column.to_numpy()
    return torch.from_numpy(found).mT


def cells(path: str, names: Sequence[str]) -> pl.DataFrame:
    """Some columns as texts; empty where there is a blank line, so that a row is at its number."""
    found = list(_texts(path, names))
    if not found:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    every = pl.DataFrame({ROW: np.arange(found[-1][ROW][-1] + 1)})
    return every.join(pl.concat(found), on=ROW, how="left", maintain_order="left").drop(ROW)


def _texts(path: str, names: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Rows' numbers from 0 and some columns as texts.

    Raises:
        InputError: a cell is not UTF-8: names that differ in it would become one.
    """
    for rows, _, columns in frames(path, names, pl.String):
        for name, column in zip(names, columns, strict=True):
            wrong = column.str.contains("\ufffd").fill_null(False).arg_true()
            if len(wrong):
                place = f"row {rows[wrong[0]] + 1}, column {name!r} of {path}"
                remedy = "save the file as UTF-8: iconv -f WINDOWS-1252 -t UTF-8"
                raise InputError("a label is not UTF-8", place, repr(column[wrong[0]]), remedy)
        named = [column.alias(name) for name, column in zip(names, columns, strict=True)]
        yield pl.DataFrame([pl.Series(ROW, rows, pl.Int64), *named])


def labels(path: str, name: str) -> pl.Series:
    """A column as texts without white space around them; null where a cell is empty."""
    found = [part[name].str.strip_chars().replace("", None) for part in _texts(path, [name])]
    return pl.concat([pl.Series(name, [], pl.String), *found])
