"""Tables of text in blocks of rows: bytes are read, cut after a row's end, and parsed by polars."""

import csv
import functools
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.tables.cells import MISSING, Numerals, numbers, unreadable
from weightdecay.tables.dialect import (
    LONGEST,
    Dialect,
    Shard,
    first_end,
    not_closed,
    pieces,
    without_comments,
)

BYTES = 4 << 20
SPACES = rb"(?:[ \t\r\f\v]|\xc2\xa0)*"
BLANK = re.compile(rb"\n((?:%s\n)+)" % SPACES)
BLANK_BESIDE_TABS = re.compile(rb"\n((?:%s\n)+)" % SPACES.replace(rb"\t", b""))
ROW = " row number"  # in a frame beside columns of the file


def schema(shard: Shard) -> dict[str, Any]:
    """The names in the header; types are only known when all is read."""
    return dict.fromkeys(_dialect(shard).columns)


def _dialect(shard: Shard) -> Dialect:
    assert shard.dialect is not None
    return shard.dialect


def _stretches(shard: Shard) -> Iterator[bytes]:
    """Whole rows after the header, about `BYTES` at a time; the last ends in a line break, too.

    What follows a quotation mark that is not closed comes last, by itself.
    """
    dialect = _dialect(shard)
    quote = re.compile(rb'"(?:[^"]|"")*"|(?<=%s) +(?=")' % re.escape(dialect.separator.encode()))
    rest, skip, header = b"", dialect.skip, False
    for piece in itertools.chain(pieces(shard.path, dialect.compression, dialect.encoding, BYTES), [None]):
        text = rest + (b"" if piece is None else piece)
        if dialect.line_end == "\r":
            text = text.replace(b"\r", b"\n")
        if piece is None and text and not text.endswith(b"\n"):
            text += b"\n"
        while skip and (end := text.find(b"\n") + 1):
            text, skip = text[end:], skip - 1
        if not header and not skip:
            end = first_end(text)
            text, header = text[end:], end > 0
        if header and dialect.comment:
            text = without_comments(text)
        end = _end(text) if header else 0
        if end:
            whole = text[:end]
            yield quote.sub(lambda part: part[0].strip(b" "), whole) if dialect.spaces else whole
        rest = text[end:]
        if rest and (len(rest) > LONGEST or piece is None):
            yield rest
            return


def _end(text: bytes) -> int:
    """Where the last whole row ends: after a line break with an even number of quotation marks before it."""
    end = text.rfind(b"\n") + 1
    inside = b'"' in text and text.count(b'"', 0, end) % 2
    while inside:
        before = text.rfind(b"\n", 0, end - 1) + 1
        inside ^= text.count(b'"', before, end) % 2
        end = before
    return end


def _filled(text: bytes, separator: str) -> Iterator[tuple[bytes, int]]:
    """Rows between blank lines, and how many of these come after; inside a quoted cell there are none."""
    text = b"\n" + text
    start = at = 1
    quotes = 0
    for blank in (BLANK_BESIDE_TABS if separator == "\t" else BLANK).finditer(text):
        quotes += text.count(b'"', at, blank.start())
        at = blank.start()
        if quotes % 2 == 0:
            yield text[start : blank.start() + 1], blank[1].count(b"\n")
            start = blank.end()
    yield text[start:], 0


def _height(text: bytes) -> int:
    """How many rows there are: line breaks outside quotation marks."""
    return text.count(b"\n") if b'"' not in text else sum(t.count(b"\n") for t in text.split(b'"')[::2])


def count(shard: Shard) -> int | None:  # noqa: ARG001  (known for Parquet)
    """Not known before the file is read."""
    return None


def row_count(shard: Shard) -> int:
    """How many rows there are; the whole file is read."""
    separator = _dialect(shard).separator
    return sum(_height(part) for text in _stretches(shard) for part, _ in _filled(text, separator))


def frames(
    shard: Shard, wanted: Sequence[str], kind: Any = pl.Float64, texts: Sequence[str] = ()
) -> Iterator[tuple[np.ndarray, Callable[[], list[pl.Series]], list[pl.Series]]]:
    """Some columns, in blocks of rows: the rows' numbers from 0, their texts for a message, their cells.

    Blank lines and comments are no rows, but count where a row is named.

    Args:
        shard: the file.
        wanted: names of columns.
        kind: Float64 for numbers, null where a cell is none; String for texts.
        texts: names of further columns, which are texts.
    """
    dialect = _dialect(shard)
    measured, wanted = len(wanted), [*wanted, *texts]
    places = [dialect.columns.index(name) for name in wanted]
    kinds = [kind] * measured + [pl.String] * len(texts)
    as_text = [pl.String] * len(places)
    missing: tuple[str, ...] = ()  # what is empty for polars, which takes a fifth longer then
    first = 0
    for text in _stretches(shard):
        if b'"' in text and text.count(b'"') % 2:
            raise not_closed(f"row {first + 1} of {shard.path}", text.decode())
        parts, rows = [], []
        for part, blanks in _filled(text, dialect.separator):
            parts.append(part)
            rows.append(np.arange(first, first + _height(part)))
            first += len(rows[-1]) + blanks
        numbered, lines = np.concatenate(rows), b"".join(parts)
        if len(numbered):
            read = functools.partial(_parsed, shard, lines, numbered, places)
            cells = None if kind == pl.String else read(kinds, missing)
            if cells is None and kind != pl.String and not missing:
                missing = MISSING
                cells = read(kinds, missing)
            if cells is None:
                cells = read(as_text)
            assert cells is not None
            for place, column in enumerate(cells[:measured]):
                if kind != pl.String and column.dtype == pl.String:
                    # What is not plain once is not tried again: a failure costs reading the block again.
                    cells[place], plain = _numbers(column, dialect.numerals)
                    kinds[place] = kind if plain else pl.String
            yield numbered, functools.partial(_named, read, wanted), cells


def _numbers(column: pl.Series, numerals: Numerals) -> tuple[pl.Series, bool]:
    """Texts as numbers, and whether polars reads them alone."""
    plain = column.set(column.is_in(MISSING), None)
    if numerals.decimal_comma and not plain.str.contains(".", literal=True).any():
        plain = plain.str.replace(",", ".", literal=True)
    elif numerals.decimal_comma:
        return numbers(column, numerals=numerals), False
    try:
        return plain.cast(pl.Float64), True
    except pl.exceptions.PolarsError:
        return numbers(column, numerals=numerals), False


def _named(read: Callable[[Any], Any], wanted: Sequence[str]) -> list[pl.Series]:
    """Cells as texts, by name."""
    cells = read([pl.String] * len(wanted))
    return [column.alias(name) for column, name in zip(cells, wanted, strict=True)]


def _parsed(
    shard: Shard,
    lines: bytes,
    rows: np.ndarray,
    places: Sequence[int],
    kinds: Sequence[Any],
    missing: Sequence[str] = (),
) -> list[pl.Series] | None:
    """Columns by their places, as these kinds; None if a cell is not of its kind.

    Raises:
        InputError: a row has too many or too few cells, or a quotation mark inside one.
    """
    dialect = _dialect(shard)
    width = len(dialect.columns) + dialect.empty
    names = [f"c{place}" for place in range(width)]
    schema: dict[str, Any] = dict.fromkeys(names, pl.String)
    schema |= {names[place]: kind for place, kind in zip(places, kinds, strict=True)}
    as_text = all(kind == pl.String for kind in schema.values())
    if not as_text and dialect.numerals.decimal_comma and b"." in lines:
        return None  # polars would take a decimal point, too
    try:
        frame = pl.read_csv(
            # With a header of its own, polars does not guess from the first row.
            dialect.separator.join(names).encode() + b"\n" + lines,
            schema=schema,
            columns=[names[place] for place in sorted({*places, width - 1})],
            separator=dialect.separator,
            decimal_comma=dialect.numerals.decimal_comma,
            null_values=list(missing) or None,
            glob=False,
        )
        if frame.height != len(rows):
            raise pl.exceptions.ComputeError("quotation marks inside a cell")
    except pl.exceptions.PolarsError as error:
        if not as_text:
            return None
        raise _unreadable(shard, lines, width, rows, error) from error
    last = frame[names[-1]]
    if width > 1 and last.null_count():  # which a row has that is too short
        bare = re.sub(rb'"[^"]*"', b"", lines) if b'"' in lines else lines
        if bare.count(dialect.separator.encode()) != (width - 1) * len(rows):
            raise _unreadable(shard, lines, width, rows, None)
    if dialect.empty and last.null_count() < len(last):
        row = int(last.is_not_null().arg_true()[0])
        what = "a row has a cell in a column without a name"
        place = f"row {rows[row] + 1} of {shard.path}"
        raise InputError(what, place, repr(last[row]), "name the column in the header, or empty the cell")
    return [frame[names[place]] for place in places]


def _unreadable(
    shard: Shard, lines: bytes, width: int, rows: np.ndarray, error: Exception | None
) -> InputError:
    """Which row is no row of the table, and why."""
    separator = _dialect(shard).separator
    found = csv.reader(io.StringIO(lines.decode(), newline=""), delimiter=separator)
    try:
        for row, cells in zip(rows, found, strict=False):
            if len(cells) > width or (error is None and len(cells) < width):
                few = len(cells) < width
                shown = separator.join(cells)
                shown = repr(shown if len(shown) < 60 else f"{shown[:60]}…")
                count = f"{len(cells)} of {width} cells: {shown}"
                remedy = "give every column a cell" if few else f"quote a cell that has {separator!r} in it"
                what = f"a row has too {'few' if few else 'many'} cells"
                place = f"row {row + 1} of {shard.path}, line {_line(shard, int(row))}"
                return InputError(what, place, count, remedy)
    except csv.Error as other:
        error = other
    if b'"' in lines:
        between = f"rows {rows[0] + 1} to {rows[-1] + 1} of {shard.path}"
        remedy = 'write the cell as "5"" pipe"'
        return InputError('a quotation mark is inside a cell, as in 5" pipe', between, None, remedy)
    reason = f"{str(error).splitlines()[0]}, near row {rows[0] + 1}"
    return unreadable(shard.path, reason, "check the file")


def _line(shard: Shard, row: int) -> int:
    """The line of the file on which a row begins; a cell with line breaks takes several."""
    rows, inside = 0, 0
    for text in _stretches(shard):
        for i, part in enumerate(text.split(b'"')):
            breaks = part.count(b"\n")
            if i % 2:
                inside += breaks
            elif rows + breaks >= row:
                return _dialect(shard).skip + 1 + inside + row + 1
            else:
                rows += breaks
    raise AssertionError(row)


def blocks(
    shard: Shard,
    inputs: Sequence[str],
    others: Sequence[str],
    step: int,
    dtype: torch.dtype,
    texts: Sequence[str] = (),
) -> Iterator[tuple[np.ndarray, Callable[[], list[pl.Series]], Tensor, Tensor, list[pl.Series]]]:
    """Blocks of rows: numbers, cells for a message, inputs (b, p), other columns (b, o), columns of texts.

    A file is always read whole.
    """
    del step, dtype
    names = [*inputs, *others, *texts]
    for rows, shown, cells in frames(shard, names[: len(names) - len(texts)], texts=texts):
        columns = dict(zip(names, cells, strict=True))
        yield rows, shown, *by_use(shard, columns, inputs, others, texts)


def by_use(
    shard: Shard,
    columns: Mapping[str, pl.Series],
    inputs: Sequence[str],
    others: Sequence[str],
    texts: Sequence[str],
) -> tuple[Tensor, Tensor, list[pl.Series]]:
    """Return columns of `frames` as inputs (b, p), other columns (b, o), and columns of texts."""

    def together(names: Sequence[str]) -> Tensor:
        """Side by side; empty cells become NaN."""
        rows = len(next(iter(columns.values()), ()))
        found = np.empty((len(names), rows))
        for place, name in enumerate(names):
            column = columns[name]
            if column.dtype == pl.String:
                column, _ = _numbers(column, _dialect(shard).numerals)
            found[place] = column.to_numpy()
        return torch.from_numpy(found).mT

    return together(inputs), together(others), [columns[name] for name in texts]


def raw(shard: Shard, names: Sequence[str], most: int | None = None) -> Iterator[pl.DataFrame]:  # noqa: ARG001
    """Some columns as they stand, in blocks of rows: texts."""
    for _, _, columns in frames(shard, names, pl.String):
        yield pl.DataFrame(dict(zip(names, columns, strict=True)))


def cells(shard: Shard, names: Sequence[str]) -> pl.DataFrame:
    """Some columns as texts; empty where there is a blank line, so that a row is at its number."""
    found = list(_texts(shard, names))
    if not found:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    every = pl.DataFrame({ROW: np.arange(found[-1][ROW][-1] + 1)})
    return every.join(pl.concat(found), on=ROW, how="left", maintain_order="left").drop(ROW)


def _texts(shard: Shard, names: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Rows' numbers from 0 and some columns as texts."""
    for rows, _, columns in frames(shard, names, pl.String):
        named = [column.alias(name) for name, column in zip(names, columns, strict=True)]
        yield pl.DataFrame([pl.Series(ROW, rows, pl.Int64), *named])


def labels(shard: Shard, name: str) -> pl.Series:
    """A column as texts without white space around them; null where a cell is empty."""
    found = [part[name].str.strip_chars().replace("", None) for part in _texts(shard, [name])]
    return pl.concat([pl.Series(name, [], pl.String), *found])
