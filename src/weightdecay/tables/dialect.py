"""How a table of text is written, seen in its first lines: encoding, separator, decimal mark, comments."""

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from weightdecay.errors import InputError
from weightdecay.tables.cells import (
    MARKS_OF_THOUSANDS,
    MISSING,
    PLAIN,
    Numerals,
    no_name_twice,
    unreadable,
)
from weightdecay.text import Text

HEAD = 1 << 20  # bytes in which the first rows are
LONGEST = 64 << 20  # of a header, or of what may lie between two quotation marks: beyond, one was not closed
LOOKED = 64 << 20  # bytes that are checked for being UTF-8 before another encoding is thought of
ROWS = 200  # rows that are looked at
SEPARATORS = ",;\t|"
WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# What begins like this is no text, whatever its name is.
OTHER_FORMATS = {
    b"BZh9": ("compressed with bzip2", "unpack it: bunzip2"),
    b"\xfd7zXZ": ("compressed with xz", "unpack it: unxz"),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unpack it, or save it as CSV"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save it as CSV"),
    b"PAR1\x15": ("a Parquet file", "end its name in .parquet"),
    b"ARROW1": ("an Arrow file", "end its name in .arrow"),
}
MARKS = {  # the longer first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
BLANK = " \t\r\f\v\u00a0"
COMMENT = re.compile(rb"(?m)^#[^\n]*(?=\n)")
LIKE_A_NUMBER = re.compile(r"[+-]?[\d.,][\d.,'’ \u00a0\u202f]*([eE][+-]?\d+)?")
DECIMAL_COMMA = re.compile(r"[+-]?(\d{1,3}([.'’ \u00a0\u202f]\d{3})+|\d*)(,\d*)?([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Reading:
    """What the user says of how text tables are written; None is found out from each file.

    Args:
        separator: the character between two columns, or the word tab.
        decimal_comma: whether numbers have a comma for the decimal point.
        encoding: as Python names it: utf-8, windows-1252, utf-16 and so on.

    Raises:
        InputError: a separator that is not one character; an encoding that there is not.
    """

    separator: str | None = None
    decimal_comma: bool | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.separator is not None:
            mark = WORDS.get(self.separator.lower(), self.separator)
            if len(mark) != 1 or not mark.isascii() or mark in '"\r\n' or mark.isalnum():
                remedy = "give one character, such as ';', or tab"
                raise InputError("no such separator", "separator", repr(self.separator), remedy)
            object.__setattr__(self, "separator", mark)
        if self.encoding is not None:
            try:
                known = codecs.lookup(self.encoding)
                "".encode(self.encoding)  # refuses what turns bytes into bytes, such as base64
            except (LookupError, ValueError) as error:
                remedy = "use utf-8, windows-1252, utf-16 or another name that Python knows"
                raise InputError("no such encoding", "encoding", repr(self.encoding), remedy) from error
            object.__setattr__(self, "encoding", known.name)

    def __bool__(self) -> bool:
        """Whether any of them is given."""
        return self != Reading()


@dataclass(frozen=True)
class Dialect:
    """How one table of text is written.

    Args:
        columns: the names in the header, without those of empty last columns.
        compression: "gzip", "zstd" or None.
        encoding: Python's name of it.
        separator: between two columns.
        numerals: how numbers are written.
        comment: whether lines that begin with # are no rows.
        skip: how many lines are before the header.
        empty: how many columns without a name are at the end of each row, which are left out.
        spaces: whether spaces stand between a separator and a quotation mark.
        line_end: of each line.
        notes: what was found that is not plain CSV, in sentences.
    """

    columns: tuple[str, ...]
    compression: str | None = None
    encoding: str = "utf-8"
    separator: str = ","
    numerals: Numerals = PLAIN
    comment: bool = False
    skip: int = 0
    empty: int = 0
    spaces: bool = False
    line_end: str = "\n"
    notes: tuple[Text, ...] = field(default=(), compare=False)


class Shard(NamedTuple):
    """Some rows of one file: `number` of them from row `start`; all where it is None.

    Args:
        path: the file.
        start: the first row, from 0.
        number: how many rows.
        dialect: how it is written, if it is text.
    """

    path: str
    start: int = 0
    number: int | None = None
    dialect: Dialect | None = None


# The bytes of a file, unpacked, as UTF-8.


def pieces(path: str, compression: str | None, encoding: str, size: int) -> Iterator[bytes]:
    """The text of a file as UTF-8 without a byte order mark, about `size` bytes at a time.

    Raises:
        InputError: the file cannot be read or unpacked; bytes that are no text in this encoding (byte and
            line).
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    at = 0
    for read in itertools.chain(_unpacked(path, compression, size), [b""]):
        waiting = decoder.getstate()[0]  # the first bytes of a character that goes on in the next piece
        if encoding == "utf-8" and not waiting and read.isascii():
            yield read  # as most tables are: nothing to decode
        else:
            try:
                text = decoder.decode(read, not read)
            except UnicodeDecodeError as error:
                raise _not_text(path, compression, encoding, error, at - len(waiting)) from error
            yield (text.removeprefix("\ufeff") if at == 0 else text).encode()
        at += len(read)


def _unpacked(path: str, compression: str | None, size: int) -> Iterator[bytes]:
    try:
        if compression == "zstd":  # unpacked by polars, which gives lines of UTF-8 and nothing else
            lines = pl.scan_lines(path, glob=False).collect_batches(chunk_size=1000, maintain_order=True)
            for batch in lines:
                yield "\n".join([*batch.to_series().to_list(), ""]).encode()
            return
        with gzip.open(path) if compression == "gzip" else Path(path).open("rb") as file:
            while read := file.read(size):
                yield read
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise unreadable(path, error, "it is cut short or damaged: write it again") from error
    except OSError as error:
        raise unreadable(path, error.strerror or error, "check the path") from error
    except pl.exceptions.PolarsError as error:
        raise unreadable(path, error, "a .zst file has to hold UTF-8: unpack it with unzstd") from error


def _not_text(
    path: str, compression: str | None, encoding: str, error: UnicodeDecodeError, start: int
) -> InputError:
    """Say at which byte and line a text is not in its encoding; the error counts from the byte `start`."""
    byte = start + error.start
    line, left = 1, byte
    for read in _unpacked(path, compression, HEAD):
        line += read.count(b"\n", 0, left)
        left -= len(read)
        if left <= 0:
            break
    near = bytes(error.object[max(0, error.start - 8) : error.start + 8])
    place = f"byte {byte + 1:,}, line {line:,} of {path}"
    remedy = "say how it is written, for example --encoding windows-1252"
    return InputError(f"the text is not {_shown(encoding)}", place, repr(near), remedy)


def _shown(encoding: str) -> str:
    names = {"cp1252": "Windows-1252", "iso8859-1": "Latin-1", "gb18030": "GB 18030"}
    return names.get(encoding, encoding.upper())


# What the first lines show.


def dialect_of(path: str | Path, reading: Reading | None = None) -> Dialect:
    """Look at the first lines of a table of text: how it is written, where `reading` does not say it.

    Raises:
        InputError: no such file, no text, an encoding that does not decode (byte and line), no header, a
            separator that is not in it, two columns with one name.
    """
    path, reading = str(path), reading or Reading()
    compression, encoding, notes = _encoding(path, reading.encoding)
    head = _head(path, compression, encoding)
    if re.match(r"\s*(\[\s*)?[\[{]\s*(\"|\d|}|])", head) and head.lstrip()[0] in "[{":
        remedy = "write it as CSV, with a header and a line for each row"
        raise InputError("this is JSON, not a table of text", path, None, remedy)
    line_end = "\r" if "\r" in head and "\n" not in head else "\n"
    lines = head.replace("\r", "\n").split("\n") if line_end == "\r" else head.split("\n")

    skip, comments, separator = 0, [], reading.separator
    while skip < len(lines):
        line = lines[skip].strip(BLANK)
        if line.startswith("sep=") and len(line) == 5:  # as Excel has it
            separator = separator or line[4]
        elif line.startswith("#"):
            comments.append(skip)
        elif line:
            break
        skip += 1
    if comments and _is_header(lines[comments[-1]], lines[skip : skip + ROWS], separator):
        skip = comments.pop()
    if skip == len(lines):
        raise unreadable(path, "empty CSV", "give a file with a header and rows")
    if "\0" in lines[skip]:
        remedy = "say its encoding (--encoding), or save it as UTF-8"
        raise InputError("the table is not text", path, f"NUL bytes in line {skip + 1}", remedy)

    text = "\n".join([lines[skip].removeprefix("#"), *lines[skip + 1 :], ""])
    if not first_end(text.encode()):
        raise not_closed(f"line {skip + 1} of {path}", text)
    bare = without_comments(text.encode()).decode() if "\n#" in text else text
    separator = separator or _separator(bare)
    header, *rows = _rows(bare, separator)
    comment = _is_commented(lines[skip + 1 : skip + ROWS], bool(comments), separator, len(header))
    if not comment and bare is not text:
        rows = _rows(text, separator)[1:]
    if reading.separator and len(header) == 1 and separator not in text:
        remedy = f"say another, or leave it out: {_separator(text)!r} is found"
        raise InputError("the separator is in no line", path, repr(separator), remedy)
    columns, empty = _names(header, rows)
    no_name_twice(columns, f"column in {path}")
    rows = [row for row in rows if len(row) >= len(columns)]
    numerals = _numerals(list(zip(*rows, strict=False)), separator, reading.decimal_comma)
    found = Dialect(
        columns,
        compression,
        encoding,
        separator,
        numerals,
        comment,
        skip,
        empty,
        spaces=re.search(rf'{re.escape(separator)} +"', text) is not None,
        line_end=line_end,
    )
    return replace(found, notes=(*notes, *_notes(found, reading, bool(comments))))


def _encoding(path: str, encoding: str | None) -> tuple[str | None, str, list[Text]]:
    """The compression, the encoding, and a note where it is a guess."""
    compression = None
    for start in _unpacked(path, None, 8):
        compression = "gzip" if start.startswith(GZIP) else "zstd" if start.startswith(ZSTD) else None
        break
    if encoding is not None:
        if compression == "zstd" and encoding not in ("utf-8", "ascii"):
            remedy = "unpack it with unzstd: packed, a .zst file has to hold UTF-8"
            raise InputError("no such encoding in a .zst file", path, encoding, remedy)
        return compression, encoding, []
    start = next(_unpacked(path, compression, HEAD), b"")
    for other, (what, remedy) in OTHER_FORMATS.items():
        if start.startswith(other):
            raise InputError("the table is not text", path, what, remedy)
    for mark, name in MARKS.items():
        if start.startswith(mark):
            return compression, name, []
    first = start[:4096]
    nuls = first[::2].count(0), first[1::2].count(0)  # of letters in UTF-16 every other byte is 0
    if max(nuls) > len(first) // 8 and min(nuls) == 0:
        return compression, "utf-16-le" if nuls[1] else "utf-16-be", [_guess("UTF-16")]
    if compression == "zstd":
        return compression, "utf-8", []
    decoder, looked = codecs.getincrementaldecoder("utf-8")(), 0
    for read in _unpacked(path, compression, 4 << 20):
        waiting = decoder.getstate()[0]
        try:
            if waiting or not read.isascii():
                decoder.decode(read)
        except UnicodeDecodeError as error:
            text = (waiting + read).decode("utf-8", "replace")
            wrong = text.count("\ufffd")
            right = sum(map(len, re.findall(r"[^\x00-\x7f\ufffd]+", text)))
            name = "gb18030" if _is_chinese(waiting + read) else "cp1252"
            try:
                codecs.getincrementaldecoder(name)().decode(waiting + read)
            except UnicodeDecodeError:
                right = wrong
            if right >= wrong:  # UTF-8 with some damage, or neither
                raise _not_text(path, compression, "utf-8", error, looked - len(waiting)) from error
            return compression, name, [_guess(_shown(name))]
        looked += len(read)
        if looked >= LOOKED:
            break
    return compression, "utf-8", []


def _is_chinese(text: bytes) -> bool:
    """Whether bytes beyond ASCII come in pairs, as in GB 2312, and four in five are frequent characters."""
    runs = re.findall(rb"[\x80-\xff]+", text[: text.rfind(b"\n") + 1 or None])
    leads = [run[i] for run in runs for i in range(0, len(run), 2)]
    frequent = sum(0xA1 <= lead <= 0xA9 or 0xB0 <= lead <= 0xD7 for lead in leads)
    pairs = all(len(run) % 2 == 0 and min(run) >= 0xA1 for run in runs)
    return pairs and 5 * frequent >= 4 * len(leads)


def _guess(name: str) -> Text:
    return Text(
        f"the table is not UTF-8 and is read as {name}; if letters are wrong, say it with --encoding",
        f"表格不是 UTF-8，按 {name} 读取；如果文字不对，请用 --encoding 指定编码",
    )


def _head(path: str, compression: str | None, encoding: str) -> str:
    """The first whole lines of a file."""
    head = b""
    for piece in pieces(path, compression, encoding, HEAD):
        cut = len(head) >= HEAD or len(piece) >= HEAD  # there may be more
        head += piece
        end = max(head.rfind(b"\n"), head.rfind(b"\r"))
        rows = head.count(b"\n") + head.count(b"\r")  # some, where the header alone is long
        if (len(head) >= HEAD and rows > 8) or len(head) > LONGEST:
            return head[:end].decode() if cut and end > 0 else head.decode()
    return head.decode()


def first_end(text: bytes) -> int:
    """Where the first row ends, 0 if it does not: quoted names may hold line breaks."""
    end = text.find(b"\n") + 1
    while end and text.count(b'"', 0, end) % 2:
        end = text.find(b"\n", end) + 1
    return end


def not_closed(place: str, text: str) -> InputError:
    """Say where a quotation mark opens that nothing closes."""
    remedy = "close it, or write it twice"
    return InputError("a quotation mark is not closed", place, repr(text[:40]), remedy)


def without_comments(text: bytes) -> bytes:
    r"""Make lines blank that begin with #, but for those inside quotation marks; the text begins with a row.

    >>> without_comments(b'1,2\n# no\n"u\n# v",3\n')
    b'1,2\n\n"u\n# v",3\n'
    """
    parts, at, quotes = [], 0, 0
    for line in COMMENT.finditer(text):
        quotes += text.count(b'"', at, line.start())
        if quotes % 2:
            quotes += line[0].count(b'"')
            parts.append(text[at : line.end()])
        else:
            parts.append(text[at : line.start()])
        at = line.end()
    return b"".join([*parts, text[at:]])


def _rows(text: str, separator: str) -> list[list[str]]:
    """The cells of the first rows, white space around them taken off."""
    found = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != " ")
    rows: list[list[str]] = []
    try:
        for row in found:
            cells = row if len(rows) == 0 and '"' in text[:HEAD] else [cell.strip(BLANK) for cell in row]
            if len(row) > 1 or any(cells):
                rows.append(cells)
            if len(rows) > ROWS:
                break
    except csv.Error:  # a cell that is too long: the rows before it will do
        pass
    return rows


def _separator(text: str) -> str:
    """The separator by which most rows are as long as the header, then by which most cells are numbers."""
    header = text[: first_end(text.encode())]
    best, separator = (-1.0, 0.0), ","
    for mark in SEPARATORS:
        if mark not in header:
            continue
        first, *rows = _rows(text, mark)
        whole = [cell for row in rows if len(row) == len(first) for cell in row]
        same = sum(len(row) == len(first) for row in rows) / max(1, len(rows))
        score = (same, sum(LIKE_A_NUMBER.fullmatch(cell) is not None for cell in whole) / max(1, len(whole)))
        if score > best:
            best, separator = score, mark
    return separator


def _is_header(line: str, lines: Sequence[str], separator: str | None) -> bool:
    """Whether a line that begins with # names the columns of the lines after it."""
    if not lines:
        return False
    text = "\n".join([*lines, ""])
    mark = separator or _separator(text)
    names, first = (_rows(some, mark)[0] for some in (line[1:].strip() or "#", text))
    numbers = [any(LIKE_A_NUMBER.fullmatch(cell) for cell in cells) for cells in (names, first)]
    return len(names) == len(first) > 1 and numbers == [False, True]


def _is_commented(lines: Sequence[str], before: bool, separator: str, width: int) -> bool:
    """Whether lines that begin with # are comments: not where most do, or where they are whole rows."""
    marked = [line for line in lines if line.startswith("#")]
    whole = marked and width > 1 and all(line.count(separator) == width - 1 for line in marked)
    return not whole and 2 * len(marked) <= len(lines) and (before or bool(marked))


def _names(header: list[str], rows: list[list[str]]) -> tuple[tuple[str, ...], int]:
    """The columns' names without those of empty last columns, and how many of these a row has."""
    named = len(header)
    while named > 1 and not header[named - 1]:
        named -= 1
    lengths = {len(row) for row in rows} or {len(header)}
    if len(lengths) == 1 and max(lengths) >= named and not any(any(row[named:]) for row in rows):
        return tuple(header[:named]), max(lengths) - named
    return tuple(header), 0


def _numerals(columns: Sequence[Sequence[str]], separator: str, decimal_comma: bool | None) -> Numerals:
    """How the cells of columns write numbers; a mark of thousands is one where a whole column has it."""
    columns = [[cell for cell in column if cell not in MISSING] for column in columns]
    if decimal_comma is None:
        points = any(_grouped(column, Numerals(False, ","), separator) for column in columns)
        decimal_comma = separator != "," and not points and any(map(_has_decimal_comma, columns))
    for mark in (".", " ", "'") if decimal_comma else (",", " ", "'"):
        numerals = Numerals(decimal_comma, mark)
        if any(_grouped(column, numerals, separator) for column in columns):
            return numerals
    return Numerals(decimal_comma)


def _has_decimal_comma(cells: Sequence[str]) -> bool:
    return "," in "".join(cells) and all(map(DECIMAL_COMMA.fullmatch, cells))


def _grouped(cells: Sequence[str], numerals: Numerals, separator: str) -> bool:
    """Whether all cells are numbers with this mark between thousands, of which `1,288` alone is no proof."""
    marks = MARKS_OF_THOUSANDS[numerals.thousands]
    text = "".join(cells)
    if not any(mark in text for mark in marks):
        return False
    sure = marks not in (",", ".") or separator == ","
    decimal, pattern = "," if numerals.decimal_comma else ".", re.compile(numerals.grouped())
    return all(map(pattern.fullmatch, cells)) and (
        sure or any(cell.count(marks) > 1 or (decimal in cell and marks in cell) for cell in cells)
    )


def _notes(found: Dialect, reading: Reading, comments: bool) -> Iterator[Text]:
    """Notes on what was detected, not given as an option, and differs from plain CSV."""
    mark = found.separator
    if reading.separator is None and mark not in ",\t":
        yield Text(f"columns are separated by {mark!r}", f"列之间以 {mark!r} 分隔")
    if reading.decimal_comma is None and found.numerals.decimal_comma:
        yield Text("numbers have a decimal comma", "数字使用小数逗号")
    if found.numerals.thousands:
        mark = found.numerals.thousands
        yield Text(f"numbers have {mark!r} between thousands", f"数字以 {mark!r} 分隔千位")
    if found.comment or comments:
        yield Text("lines that begin with # are comments and are left out", "以 # 开头的行是注释，已略去")
    if found.empty:
        yield Text(
            "the last column has no name and no values and is left out", "最后一列没有名称也没有值，已略去"
        )
