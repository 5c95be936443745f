"""What a cell may be: the one rule by which files, frames and arrays become numbers; and names of columns."""

import difflib
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import polars as pl

from weightdecay.errors import InputError
from weightdecay.text import Text

TOO_LARGE = 1e150  # beyond, squares overflow in float64
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-", "?", ".")
MARKS_OF_THOUSANDS = {",": ",", ".": ".", "'": "'’", " ": " \u00a0\u2009\u202f"}
INDEX = "__index_level_0__"  # what pandas calls an index without a name in a Parquet file


_CHECK = Text("check the path and the file", "请检查路径和文件")


def unreadable(path: str, reason: Any, remedy: str = _CHECK) -> InputError:
    """Say why a table cannot be read; of an exception its first line, or its kind."""
    if isinstance(reason, Exception):
        reason = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
    return InputError(Text("the table cannot be read", "无法读取表格"), path, reason, remedy)


def no_rows(path: Any) -> InputError:
    """Refuse a file without rows."""
    return InputError("the table has no rows", str(path), None, "give a file with a header and rows")


def is_plain(kind: Any) -> bool:
    """Whether a column's cells are taken as they are, not by their text."""
    return (kind.is_numeric() and not kind.is_decimal()) or kind in (pl.Boolean, pl.Null)


class Numerals(NamedTuple):
    """How numbers are written as text.

    Args:
        decimal_comma: whether the decimal mark is a comma.
        thousands: the mark between thousands, of "," "." " " and "'", or "".
    """

    decimal_comma: bool = False
    thousands: str = ""

    def grouped(self) -> str:
        """The pattern of a number that may have marks between thousands, and has them all if any."""
        mark, decimal = f"[{MARKS_OF_THOUSANDS[self.thousands]}]", "," if self.decimal_comma else "[.]"
        return rf"[+-]?(?:\d{{1,3}}(?:{mark}\d{{3}})+|\d{{1,3}})?(?:{decimal}\d*)?"


PLAIN = Numerals()


def numbers(column: pl.Series, kind: Any = pl.Float64, numerals: Numerals = PLAIN) -> pl.Series:
    """Return a column as floats, null where a cell is missing or no number.

    Numbers and booleans (1 and 0) are taken as they are; of anything else the text is read: a number as
    `numerals` has it, or true or false in any case, with white space around it.

    >>> numbers(pl.Series([" 1.5", "True", "1e3", "n/a", "-", ""])).to_list()
    [1.5, 1.0, 1000.0, None, None, None]
    >>> numbers(pl.Series(["1.288.184,75", "-0,5", "1.5", "12"]), numerals=Numerals(True, ".")).to_list()
    [1288184.75, -0.5, None, 12.0]
    """
    if is_plain(column.dtype):
        return column.cast(kind)
    text = texts(column).str.strip_chars()
    text = text.set(text.is_in(MISSING), None)
    if numerals.thousands:
        marks = f"[{MARKS_OF_THOUSANDS[numerals.thousands]}]"
        bare = text.str.replace_all(marks, "")
        text = bare.zip_with(text.str.contains(f"^(?:{numerals.grouped()})$").fill_null(False), text)
    if numerals.decimal_comma:  # a point is no number then
        text = text.set(text.str.contains(".", literal=True), None).str.replace(",", ".", literal=True)
    text = text.str.to_lowercase().replace({"true": "1", "false": "0"})
    return text.cast(kind, strict=False)


def texts(column: pl.Series) -> pl.Series:
    """Return the cells of a column as text."""
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:  # lists, structs, objects and the like
        return pl.Series(
            column.name, [None if cell is None else str(cell) for cell in column.to_list()], pl.String
        )


def absent(column: pl.Series) -> pl.Series:
    """Whether a cell has no value, by the list of `MISSING`."""
    if column.dtype.is_float():
        return column.is_null() | column.is_nan().fill_null(True)
    if is_plain(column.dtype):
        return column.is_null()
    return texts(column).str.strip_chars().is_in(MISSING).fill_null(True)


def count_missing(blocks: Iterable[pl.DataFrame], counts: dict[str, int]) -> tuple[int, int]:
    """Count the missing cells of each column into `counts`; return the rows with one, and all rows."""
    rows = incomplete = 0
    for frame in blocks:
        missing = frame.select(absent(column) for column in frame.iter_columns())
        for name in frame.columns:
            counts[name] = counts.get(name, 0) + int(missing[name].sum())
        rows, incomplete = rows + frame.height, incomplete + int(missing.max_horizontal().sum())
    return incomplete, rows


def missing_cells(blocks: Iterable[pl.DataFrame], drop: str, mean: str | None) -> Text:
    """Say how many cells each column misses, and what to do about that.

    Args:
        blocks: the columns that are used, in blocks of rows.
        drop: the option that leaves such rows out.
        mean: the option that puts means in, or None where that cannot be done.
    """
    counts: dict[str, int] = {}
    incomplete, rows = count_missing(blocks, counts)
    each = [f"{name!r} {count:,}" for name, count in counts.items() if count]
    first, left = ", ".join(each[:8]), f"{len(each) - 8:,}"
    more = Text(f" and {left} columns more", f" 和另外 {left} 列") if len(each) > 8 else Text("", "")
    other = Text("", "")
    if mean is not None:
        other = Text(f", {mean} puts in the means of the training rows", f"，{mean} 用训练行的平均值填补")
    return Text(
        f"missing cells: {first}{more}, in {incomplete:,} of {rows:,} rows; {drop} leaves these rows "
        f"out{other}",
        f"缺失的单元格：{first}{more.zh}，{rows:,} 行中有 {incomplete:,} 行；{drop} 去掉这些行{other.zh}",
    )


def typed(text: str) -> str:
    """A path as it is typed in a shell.

    >>> typed("größe.csv"), typed("Delta 13 C (o/oo)")
    ('größe.csv', "'Delta 13 C (o/oo)'")
    """
    return text if text and all(mark.isalnum() or mark in "_-+=.:/@%" for mark in text) else shlex.quote(text)


def typed_name(name: str) -> str:
    """A column's name as the options of a command take it, where names stand between commas.

    >>> print(typed_name("a"), typed_name("a, b"), typed_name(""))
    a '"a, b"' ""
    """
    if name == "":
        return '""'
    plain = name == name.strip() and "," not in name and not name.startswith('"')
    return typed(name if plain else '"' + name.replace('"', '""') + '"')


def refuse_cell(
    columns: Sequence[pl.Series],
    place: Callable[[int, str], str],
    largest: float = TOO_LARGE,
    numerals: Numerals = PLAIN,
    missing: bool = False,
) -> None:
    """Name the first cell, row by row, that is no number to compute with; return if there is none.

    Args:
        columns: the cells as they were given.
        place: row from 0 and column -> where that is.
        largest: numbers of this size and beyond are refused.
        numerals: how texts write numbers.
        missing: let cells pass that have no value.

    Raises:
        InputError: there is one.
    """
    least: tuple[int, pl.Series] | None = None
    for column in columns:
        wrong = (~(numbers(column, numerals=numerals).abs() < largest)).fill_null(True)
        wrong &= ~absent(column) if missing else True
        row = wrong.arg_max() if wrong.any() else None
        if row is not None and (least is None or row < least[0]):
            least = (row, column)
    if least is None:
        return
    row, column = least
    cell = column.slice(row, 1)
    value, text = numbers(cell, numerals=numerals)[0], texts(cell)[0]
    where, text = place(row, column.name), (text or "").strip()
    if value is None and text not in MISSING:
        shown = repr(text if len(text) < 60 else f"{text[:60]}…")
        other = numbers(cell, numerals=Numerals(not numerals.decimal_comma))[0] is not None
        category = f"--category {typed_name(column.name)}"
        remedy = f"drop the column, mend the cell, or take the column as a category: {category}"
        if other and numerals.decimal_comma:
            remedy = "numbers have a decimal comma there: write all so, or say --decimal-point"
        elif other:
            remedy = "a decimal comma? --decimal-comma reads it, if all numbers are so"
        raise InputError("a cell is not a number", where, shown, remedy)
    limit = f"{largest:.0e}".replace("e+", "e")
    shown = value if value is not None else repr(text) if text else Text("empty", "空")
    raise InputError(
        Text(f"a cell is empty, not finite or beyond {limit}", f"有单元格为空、不是有限的数或超出 {limit}"),
        where,
        shown,
        Text("fill it, or leave the row out", "请填上它，或去掉该行"),
    )


def no_name_twice(names: Sequence[str] | None, where: str) -> None:
    """Raise InputError if two columns have one name."""
    seen: set[str] = set()
    for name in names or ():
        if name in seen:
            raise InputError("two columns have one name", where, repr(name), "rename one of them")
        seen.add(name)


_THERE = {"the inputs are": "输入有", "the classes are": "类别有"}


def no_such_column(name: str, columns: Sequence[str], where: str, there: str) -> InputError:
    """Say which columns there are (`there` begins that sentence), and which name is the closest."""
    by_form = {column.strip().casefold(): column for column in reversed(columns)}
    wanted = name.strip().casefold()
    # A name with a comma that was not quoted is asked for by its parts.
    parts = [form for form in by_form if wanted in map(str.strip, form.split(","))]
    close = difflib.get_close_matches(wanted, by_form, n=1) or parts
    hint = Text("", "")
    if close:
        meant = by_form[close[0]]
        hint = Text(f"is {meant!r} meant? ", f"是否指 {meant!r}？")
        if meant != meant.strip() or "," in meant:
            quoted = f"""'"{meant}"'"""
            hint = Text(f"{hint}(on the command line: {quoted}); ", f"{hint.zh}（命令行里写作 {quoted}）；")
    every, there_zh = listed(columns), _THERE.get(there) or f"{there.removesuffix(' has')} 有"
    have = Text(f"{there} {every}", f"{there_zh} {every}")
    more = Text("", "")
    if len(columns) == 1:
        more = Text("; what stands between its columns? (--separator)", "；列之间用什么分隔？（--separator）")
    what = Text("no such column", "没有这一列")
    return InputError(what, where, repr(name), Text(f"{hint}{have}{more}", f"{hint.zh}{have.zh}{more.zh}"))


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first few names in quotation marks, and how many there are."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names):,} columns)"


def check_names(names: Sequence[str], features: Sequence[str], where: str) -> None:
    """Raise unless the names are the features, in any order.

    Raises:
        InputError: one is there twice, missing or unknown.
    """
    known, given = set(features), set(names)
    no_name_twice(names, where)
    extra = [name for name in names if name not in known]
    missing = [name for name in features if name not in given]
    if missing:
        close = difflib.get_close_matches(missing[0], extra, n=1)
        hint = f"is {missing[0]!r} called {close[0]!r} there?" if close else "give every column of the fit"
        raise InputError(_plural(missing, "is missing", "are missing"), where, listed(missing), hint)
    if extra:
        what = _plural(extra, "is not known to the model", "are not known to the model")
        raise InputError(what, where, listed(extra), "leave out what the model was not fitted on")


def _plural(names: Sequence[str], one: str, many: str) -> str:
    return f"a column {one}" if len(names) == 1 else f"columns {many}"
