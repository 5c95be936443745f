"""Random tables by every way in: the same numbers or the same refusal, as Python reads the cells."""

import csv
import io
import re
import tempfile
from decimal import Decimal
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import torch

from weightdecay.errors import InputError
from weightdecay.ridge.problem import matched
from weightdecay.tables import csv_blocks, parquet_blocks, read_table
from weightdecay.tables.columns import ColumnOptions
from weightdecay.tables.source import new_rows, open_source, read_whole

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
GOOD = [
    "1",
    "-2.5",
    " 3",
    "4 ",
    "\t5",
    "\u00a06\u00a0",
    "+7",
    "8.",
    ".9",
    "1e3",
    "1E-2",
    "007",
    "true",
    "True",
    "FALSE",
]
BAD = [
    "",
    " ",
    "n/a",
    "NaN",
    "inf",
    "-Infinity",
    "1,5",
    "1 2",
    "1_000",
    "0x10",
    "1e200",
    "five",
    "--1",
    "2020-01-01",
    '"1"',
]
ODD_NAMES = ["a_duplicated_0", "a, b", "y z", "größe", 'q"', "x\ny", "Unnamed: 0", "0", "b", "B"]


class Arrow:
    """A table as pyarrow's: something with Arrow's stream of columns and no more."""

    def __init__(self, frame):
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema=None):
        return self.frame.__arrow_c_stream__(requested_schema)


def number(text):
    """What a cell is: a float, or what is said of it."""
    text = (text or "").strip()
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity") or not text:
        return "a cell is empty, not finite or beyond 1e150"
    if not NUMBER.fullmatch(text):
        return "a cell is not a number"
    return float(text) if abs(float(text)) < 1e150 else "a cell is empty, not finite or beyond 1e150"


def expected(texts):
    """The numbers (rows, columns), or what, row and column of the first refusal."""
    cells = {name: [number(text) for text in column] for name, column in texts.items()}
    for row in range(len(next(iter(cells.values())))):
        for name, column in cells.items():
            if isinstance(column[row], str):
                return column[row], row, name
    return np.array(list(cells.values())).T


def drawn(random, rows):
    """A column as polars has it, and the texts of its cells."""
    kind = random.choice(["float", "int", "large", "uint8", "bool", "decimal", "float16", "text", "category"])
    if kind in ("text", "category"):
        texts = [str(random.choice(GOOD)) for _ in range(rows)]
        return pl.Series(texts, dtype=pl.String if kind == "text" else pl.Categorical), texts
    values = {
        "float": lambda: (random.normal(size=rows) * 10.0 ** random.integers(-9, 9)).tolist(),
        "int": lambda: random.integers(-5, 6, rows).tolist(),
        "large": lambda: random.integers(2**53, 2**62, rows).tolist(),
        "uint8": lambda: random.integers(0, 256, rows).tolist(),
        "bool": lambda: random.integers(0, 2, rows).astype(bool).tolist(),
        "decimal": lambda: [Decimal(int(v)).scaleb(-5) for v in random.integers(-(10**17), 10**17, rows)],
        "float16": lambda: random.normal(size=rows).astype(np.float16).astype(float).tolist(),
    }[kind]()
    types = {"uint8": pl.UInt8, "float16": pl.Float16, "decimal": pl.Decimal(25, 5)}
    return pl.Series(values, dtype=types.get(kind)), [str(value) for value in values]


def broken(random, column, texts):
    """One cell that cannot be used."""
    row = int(random.integers(len(texts)))
    cell = str(random.choice(BAD)) if random.random() < 0.8 else None
    texts = [cell if place == row else text for place, text in enumerate(texts)]
    if cell is None and random.random() < 0.5:  # empty in a column of numbers
        return pl.Series(
            [None if place == row else value for place, value in enumerate(column)], dtype=column.dtype
        ), texts
    return pl.Series(texts, dtype=pl.String), texts


def csv_text(random, texts):
    """The same cells as CSV, and the row in the file of each row."""
    out = io.StringIO()
    end = str(random.choice(["\n", "\r\n"]))
    quoting = csv.QUOTE_ALL if random.random() < 0.3 else csv.QUOTE_MINIMAL
    writer = csv.writer(out, lineterminator=end, quoting=quoting)
    blank = random.random() < 0.5
    out.write(end * int(random.integers(0, 3) * blank))
    writer.writerow(texts)
    lines, last = [], 0
    for cells in zip(*texts.values(), strict=True):
        count = int(random.integers(0, 3) * blank * (random.random() < 0.3))
        out.write((str(random.choice(["", " ", "\t "])) + end) * count)
        last += count + 1
        lines.append(last - 1)
        writer.writerow(["" if cell is None else cell for cell in cells])
    text = out.getvalue() + end * int(random.integers(0, 3) * blank)
    if random.random() < 0.3:
        text = text.removesuffix(end)
    if end == "\n" and random.random() < 0.15 and not any("\n" in name for name in texts):
        text = text.replace("\n", "\r")
    return text.encode("utf-8-sig" if random.random() < 0.3 else "utf-8"), lines


def from_pandas(frame):
    columns = {}
    for column in frame:
        plain = column.dtype.is_numeric() and not column.dtype.is_decimal() and not column.null_count()
        columns[column.name] = column.to_numpy() if plain else pd.Series(column.to_list(), dtype=object)
    return pd.DataFrame(columns)


def ways_in(folder, frame, target, lines):
    """Each way to read the files and the frame: name -> a function that gives (rows, inputs then target).

    Files give the rows' numbers, too; they are checked here.
    """
    inputs = [name for name in frame.columns if name != target]
    order = [*inputs, target]
    numeric = ColumnOptions(number=inputs)  # whatever they look like

    def blocks(path):
        source = open_source(path, target, dtype=torch.float64, options=numeric)
        parts = [(block.rows, torch.cat([block.X, block.y], 1).clone()) for block in source.blocks()]
        return tuple(torch.cat(part).numpy() for part in zip(*parts, strict=True))

    def whole(path):
        table = read_whole(path, [target], options=numeric)
        return table.rows.to_numpy(), np.hstack([table.X.to_numpy(), table.y.to_numpy()])

    def textbook(path):
        table = read_table(path, target, options=numeric)
        return None, torch.cat([table.X, table.y[:, None]], 1).numpy()

    def new(path):
        parts = [(rows.to_numpy(), X.copy()) for rows, X in new_rows(path, order)]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def checked(read, path):
        rows, found = read(path)
        right = np.arange(len(found)) if path.suffix == ".parquet" else np.array(lines)
        return found if rows is None or np.array_equal(rows, right + 1) else rows

    def numbers(values):
        return matched(values, order, len(order)).numpy()

    ways = {}
    for path in (folder / "t.csv", folder / "t.parquet"):
        for read in (blocks, whole, textbook, new):
            ways[f"{read.__name__} {path.suffix}"] = lambda read=read, path=path: checked(read, path)
    listed = [list(row) for row in frame.select(order).iter_rows()]
    return ways | {
        "polars": lambda: numbers(frame),
        "lazy": lambda: numbers(frame.lazy()),
        "arrow": lambda: numbers(Arrow(frame)),
        "pandas": lambda: numbers(from_pandas(frame)),
        "objects": lambda: numbers(np.array(listed, dtype=object)),
    }


def refusal(error, order, lines):
    """What is refused, and the row and the column of a cell."""
    place = re.search(r"(?:row (\d+), column (.+) of .+|X\[(\d+), (.+)\])$", error.where, re.S)
    if not place:
        return (str(error),)
    line, name, row, own = place.groups()
    if line is not None:
        number = int(line) - 1
        return error.what, number if lines is None else lines.index(number), name
    return error.what, int(row), repr(order[int(own)]) if own.isdecimal() else own


def differences(texts, frame, target, folder, lines):
    """The ways that give anything but what is expected."""
    order = [name for name in texts if name != target] + [target]
    right = expected({name: texts[name] for name in order})
    if not isinstance(right, np.ndarray):
        right = (right[0], right[1], repr(right[2]))
    for way, read in ways_in(folder, frame, target, lines).items():
        try:
            found = read()
        except InputError as error:
            found = refusal(error, order, lines if ".csv" in way else None)
        same = (
            np.array_equal(found, right)
            if isinstance(right, np.ndarray) and isinstance(found, np.ndarray)
            else isinstance(right, tuple) and found == right
        )
        if not same:
            if isinstance(right, np.ndarray) and isinstance(found, np.ndarray):
                row, column = np.argwhere(found != right)[0] if found.shape == right.shape else (0, 0)
                found, wanted = (repr(a[row, column]) + f" of {a.shape}" for a in (found, right))
            else:
                wanted = right if isinstance(right, tuple) else "numbers"
                found = found if isinstance(found, tuple) else "numbers"
            yield f"{way}: {found} (right: {wanted})"


def case(seed):
    """None, or which ways in give something else."""
    random = np.random.default_rng(seed)
    rows, p = int(random.integers(2, 40)), int(random.integers(1, 6))
    names = [str(name) for name in random.permutation(ODD_NAMES)[: p + 1]]
    columns = {name: drawn(random, rows) for name in names}
    for _ in range(int(random.integers(0, 3)) * int(random.random() < 0.6)):
        name = str(random.choice(names))
        columns[name] = broken(random, *columns[name])
    target = str(random.choice(names))
    columns[target] = (pl.Series(np.arange(rows) / 8), [str(row / 8) for row in range(rows)])  # not constant
    frame = pl.DataFrame([column.alias(name) for name, (column, _) in columns.items()])
    texts = {name: cells for name, (_, cells) in columns.items()}
    with (
        tempfile.TemporaryDirectory() as made,
        mock.patch.multiple(csv_blocks, BYTES=int(random.choice([1, 7, 64, 1 << 22]))),
        mock.patch.multiple(
            parquet_blocks, HELD=int(random.choice([100, 1 << 20])), AT_ONCE=int(random.choice([3, 1000]))
        ),
    ):
        folder = Path(made)
        content, lines = csv_text(random, texts)
        (folder / "t.csv").write_bytes(content)
        frame.write_parquet(folder / "t.parquet", row_group_size=int(random.integers(1, 50)))
        return "; ".join(differences(texts, frame, target, folder, lines)) or None
