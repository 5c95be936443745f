"""Rows of tables: what a cell may be, blank lines, names of columns, habits of giving data."""

import gzip
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import torch
from tests.faults.rows import row

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.ridge.model import predict_file
from weightdecay.ridge.table_fit import Request, fit_table
from weightdecay.tables import csv_blocks, read_table
from weightdecay.tables.source import open_source, read_whole

RANDOM = np.random.default_rng(0)
NUMBERS = np.column_stack(
    [np.arange(12) % 2, np.round(RANDOM.normal(size=12), 3), np.round(RANDOM.normal(size=12), 3)]
)


def answers(path, target="y", drop=()):
    """What each reader of a file gives: its inputs and target, or its refusal."""
    found = {}
    for name, read in {
        "whole": lambda: in_one(read_whole(path, [target], drop)),
        "textbook": lambda: beside(read_table(path, target, drop)),
        "blocks": lambda: torch.cat(
            [torch.cat([b.X, b.y], 1) for b in open_source(path, target, drop).blocks()]
        ).numpy(),
    }.items():
        try:
            found[name] = read()
        except InputError as error:
            found[name] = f"{error}".replace(str(path), "FILE")
    return found


def in_one(table):
    return np.hstack([table.X.to_numpy(), table.y.to_numpy()])


def beside(table):
    return torch.cat([table.X, table.y[:, None]], 1).numpy()


def agree(found, right):
    """Whether all ways give the numbers, or a refusal with every part of `right`, the same in all."""
    if isinstance(right, np.ndarray):
        return all(isinstance(one, np.ndarray) and np.array_equal(one, right) for one in found.values())
    texts = {str(one) for one in found.values()}
    return len(texts) == 1 and all(part in texts.copy().pop() for part in right)


def shown(found):
    return ", ".join(
        f"{name}: {'numbers' if isinstance(one, np.ndarray) else one}" for name, one in found.items()
    )


def of_bytes(content, right, drop=(), name="t.csv"):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        found = answers(path, drop=drop)
    return shown(found), agree(found, right)


def table(cells, end="\n"):
    """Three columns of text as CSV."""
    return end.join(["a,b,y", *(",".join(row) for row in cells)]) + end


def texts(values):
    return [[repr(float(cell)) for cell in row] for row in values]


@row("37", "True/False in a CSV: fit, then predict the same file", "predicts")
def booleans():
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        cells = [["True" if float(row[0]) else "False", *row[1:]] for row in texts(NUMBERS)]
        (folder / "t.csv").write_text(table(cells))
        fit_table(Request(str(folder / "t.csv"), ("y",)), folder).save(folder / "m")
        model = wd.load(folder / "m" / "model.json")
        predict_file(model, folder / "t.csv", folder / "p.csv")
        found = pl.read_csv(folder / "p.csv")["y_predicted"].to_numpy()
    right = NUMBERS[:, :2] @ model.coef.numpy() + model.intercept.numpy()
    return "predicts", bool(np.allclose(found, right, rtol=1e-12))


@row("37", "spaces, tabs, no-break spaces and True around and among numbers in a CSV", "the same numbers")
def spaces():
    cells = [[f" {a}", f"\t{b}\u00a0", f"{y} "] for a, b, y in texts(NUMBERS)]
    cells[3][0], cells[4][0] = "True", "false"
    return of_bytes(table(cells).encode(), NUMBERS)


@row("37", "numbers as text in Parquet", "the same numbers")
def text_in_parquet():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        pl.DataFrame(dict(zip("aby", zip(*texts(NUMBERS), strict=True), strict=True))).write_parquet(path)
        found = answers(path)
    return shown(found), agree(found, NUMBERS)


@row("37", "gzip named .csv", "the same numbers")
def gzipped():
    return of_bytes(gzip.compress(table(texts(NUMBERS)).encode()), NUMBERS)


@row("37", "UTF-16", "the same numbers")
def utf16():
    return of_bytes(table(texts(NUMBERS)).encode("utf-16"), NUMBERS)


@row("37", "CR line ends", "the same numbers")
def carriage_returns():
    return of_bytes(table(texts(NUMBERS), "\r").encode(), NUMBERS)


@row("28", "a blank line after the header, before it, and at the end", "12 rows")
def blank_lines():
    text = table(texts(NUMBERS))
    return of_bytes(b"\n\r\n" + text.replace("y\n", "y\n\n  \n").encode() + b"\n\n", NUMBERS)


@row("28", "a blank line wherever a block of bytes ends", "12 rows")
def blank_lines_at_a_boundary():
    text, whole = table(texts(NUMBERS)).replace("\n", "\n\n").encode(), csv_blocks.BYTES
    try:
        for size in range(1, 200, 7):
            csv_blocks.BYTES = size
            given, right = of_bytes(text, NUMBERS)
            if not right:
                return f"blocks of {size} bytes: {given}", False
    finally:
        csv_blocks.BYTES = whole
    return given, right


@row("28", "a row with nothing but a dropped column", "refused alike, the row named")
def only_a_dropped_column():
    rows = [["note", "a", "y"], ["u", "1", "2"], ["v", "", ""], ["w", "3", "5"], ["x", "4", "9"]]
    text = "".join(",".join(row) + "\n" for row in rows).encode()
    return of_bytes(text, ["a cell is empty", "row 2, column 'a' of FILE = empty"], ("note",))


@row("39", "a Latin-1 header", "the same numbers, and the name")
def latin():
    text = table(texts(NUMBERS)).replace("a,", "größe,", 1)
    given, right = of_bytes(text.encode("latin-1"), NUMBERS)
    return given, right and of_bytes(text.encode("latin-1"), NUMBERS[:, 1:], ("größe",))[1]


@row("39", "an unnamed index column", "left out alike, and by --drop ''")
def index():
    rows = [["", "a", "b", "y"], *([str(i), *cells] for i, cells in enumerate(texts(NUMBERS)))]
    text = "".join(",".join(row) + "\n" for row in rows).encode()
    given, right = of_bytes(text, NUMBERS)
    return given, right and of_bytes(text, NUMBERS, ("",))[1]


@row("39", '--drop "" and names with commas or outer spaces', "('',), ('a, b', ' c', 'd')")
def names_given():
    import weightdecay.cli.ridge as cli

    names = getattr(cli, "names", None) or cli._names
    given = names(""), names('"a, b"," c", d')
    return str(given), given == (("",), ("a, b", " c", "d"))


@row("39", "a column honestly named a_duplicated_0", "the same numbers")
def duplicated():
    return of_bytes(table(texts(NUMBERS)).replace("a,b", "a,a_duplicated_0", 1).encode(), NUMBERS)


@row("39", "a header `a, b, y`", "the same numbers")
def outer_spaces():
    text = table(texts(NUMBERS)).replace("a,b,y", "a, b, y", 1).encode()
    return of_bytes(text, NUMBERS)


@row("29c", "a LazyFrame", "the path of the frame")
def lazy():
    frame = pl.DataFrame(NUMBERS, schema=["a", "b", "y"])
    y = frame["y"]
    found, right = (
        wd.ridge_path(X, y, [1.0]).scores for X in (frame.select("a", "b").lazy(), frame.select("a", "b"))
    )
    return f"{float(found):.6g}", bool(torch.equal(found, right))


@row("29c", "a column equal to the target, in a frame of 2 rows, an array and a file", "a warning in each")
def leaks():
    said = []
    with tempfile.TemporaryDirectory() as folder:
        frame = pl.DataFrame({"a": [1.0, 2.0], "b": [0.5, 0.25], "y": [1.0, 2.0]})
        frame.write_csv(Path(folder) / "t.csv")
        X = frame.select("a", "b")
        for given in ((X, frame["y"]), (X.to_numpy(), frame["y"].to_numpy()), (Path(folder) / "t.csv", "y")):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    wd.ridge_path(*given, [1.0], cv=2)
                except InputError as error:
                    said.append(f"refused: {error}")
                    continue
            told = [str(one.message) for one in caught if "target itself" in str(one.message)]
            said.append(re.sub(r" in every row.*", "", told[0]) if told else "nothing")
    return "; ".join(said), all("equals" in one and "refused" not in one for one in said)
