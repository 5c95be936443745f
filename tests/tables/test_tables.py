"""Tables: read right, or refused with the row and the column named."""

import bz2
import gzip
import lzma
import re
import time

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from tests.fuzz.tables import case

from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.ridge.path import ridge_path
from weightdecay.ridge.problem import matched
from weightdecay.tables import csv_blocks, read_table
from weightdecay.tables.dialect import Reading
from weightdecay.tables.source import new_rows, of_rows, open_source, read_whole, row_names

GOOD = "a,b,y\n1,2.5,3\n4,5,6\n7,8,10\n"


@pytest.fixture
def csv(tmp_path):
    def write(text, name="t.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_a_table(csv):
    table = read_table(csv(GOOD), "y")
    assert table.columns == ("a", "b")
    assert torch.equal(table.X, torch.tensor([[1, 2.5], [4, 5], [7, 8]]).double())
    assert torch.equal(table.y, torch.tensor([3, 6, 10], dtype=torch.float64))
    assert read_table(csv(GOOD), "a", ["b"]).columns == ("y",)


def test_types_are_those_of_the_whole_column(csv):
    """The first 200 rows look like whole numbers; a fraction may follow, and a word is named with its row."""
    rows = "".join(f"{i},{i}\n" for i in range(200))
    assert float(read_table(csv("a,y\n" + rows + "120.5,7\n"), "y").X[-1]) == 120.5
    with pytest.raises(InputError, match=r"row 201, column 'a'.*'n/a'"):
        read_table(csv("a,y\n" + rows + "n/a,7\n"), "y")


def test_blank_lines_are_no_rows_but_count(csv):
    assert len(read_table(csv(GOOD + "\n\n"), "y").y) == 3
    with pytest.raises(InputError, match=r"row 3, column 'b'"):
        read_table(csv("a,b,y\n1,2,3\n\n4,x,5\n"), "y")


def test_a_path_is_a_path_and_no_pattern(csv):
    assert len(read_table(csv(GOOD, "g[1].csv"), "y").y) == 3


def test_parquet_is_csv(csv, tmp_path):
    pl.read_csv(csv(GOOD)).write_parquet(tmp_path / "t.parquet")
    assert torch.equal(read_table(tmp_path / "t.parquet", "y").X, read_table(tmp_path / "t.csv", "y").X)


def test_the_spectra_are_all_there():
    table = read_table("examples/data/tecator.csv", "fat", ["water", "protein"])
    assert table.X.shape == (215, 100)
    assert table.columns[0] == "x_001"
    assert float(table.X[0, 0]) == 2.61776


@pytest.mark.parametrize(
    ("text", "options", "parts"),
    [
        (GOOD, {"target": "z"}, ["no such column", "'z'", "'a', 'b', 'y'"]),
        (GOOD, {"target": "y", "drop": ["q"]}, ["no such column", "'q'"]),
        (GOOD, {"target": "y", "drop": ["y"]}, ["as target and as drop", "'y'"]),
        (GOOD, {"target": "y", "drop": ["a", "b"]}, ["no column is left"]),
        ("a,y\n1,2\nx,3\n", {"target": "y"}, ["not a number", "row 2", "'a'", "'x'"]),
        ("a,y\n1,2\n,3\n4,5\n", {"target": "y"}, ["empty", "row 2", "'a'"]),
        ("a,y\n1,2\n3,4\nNaN,5\n", {"target": "y"}, ["row 3", "'a'", "= 'NaN'"]),
        ("a,y\n1,2\n3,inf\n", {"target": "y"}, ["row 2", "'y'", "inf"]),
        ("a,y\n1,2\n-1e200,3\n", {"target": "y"}, ["row 2", "'a'", "beyond 1e150"]),
        ("a,y\n1,2\n3,2\n", {"target": "y"}, ["constant", "'y'", "2.0"]),
        ("a,a,y\n1,2,3\n4,5,6\n", {"target": "y"}, ["one name", "'a'"]),
        ("a:y\n1:2\n", {"target": "y"}, ["no such column", "what stands between its columns? (--separator)"]),
        ("a,y\n", {"target": "y"}, ["no rows"]),
        ("", {"target": "y"}, ["cannot be read"]),
        ("a,y\n1,2\n1,2,3,4\n", {"target": "y"}, ["too many cells", "row 2", "4 of 2 cells: '1,2,3,4'"]),
    ],
)
def test_what_cannot_be_used_is_named(csv, text, options, parts):
    with pytest.raises(InputError) as caught:
        read_table(csv(text), **options)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables(tmp_path):
    for path, part in (
        (tmp_path / "none.csv", "cannot be read"),
        (tmp_path / "t.xlsx", r"give a \.csv, \.tsv, "),
    ):
        with pytest.raises(InputError, match=part):
            read_table(path, "y")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="the Parquet file is cut short"):
        read_table(tmp_path / "cut.parquet", "y")


def test_dates_are_not_numbers(tmp_path):
    pl.DataFrame({"a": pl.Series(["2020-01-01", "2020-01-02"]).str.to_date(), "y": [1, 2]}).write_parquet(
        tmp_path / "t.parquet"
    )
    remedy = "'2020-01-01'; --dates days takes the days since the first one, --drop a leaves it out"
    with pytest.raises(InputError, match=f"a column of dates: column 'a' of .*{remedy}"):
        read_table(tmp_path / "t.parquet", "y")


QUOTED = {
    "last": ("x,y,note\n", '{x},{y},"line {x}\n\n, ""more"" of it"\n'),
    "first": ("note,x,y\n", '"line {x}\nmore",{x},{y}\n'),
    "in the header": ('x,"no\nte",y\n', "{x},n,{y}\n"),
}


@pytest.mark.parametrize("size", [1, 40, 700, 1 << 20])
@pytest.mark.parametrize("name", QUOTED)
def test_quoted_line_breaks_in_blocks(tmp_path, monkeypatch, name, size):
    """Wherever a block of bytes ends, a row is cut at its own end."""
    monkeypatch.setattr("weightdecay.tables.csv_blocks.BYTES", size)
    header, line = QUOTED[name]
    path = tmp_path / "t.csv"
    path.write_text(header + "".join(line.format(x=i, y=i + 0.5) for i in range(40)))
    source = open_source(path, "y", [column for column in ("note", "no\nte") if column in header])
    blocks = list(source.blocks())
    assert torch.cat([block.X for block in blocks])[:, 0].tolist() == list(range(40))
    assert torch.cat([block.y for block in blocks])[:, 0].tolist() == [i + 0.5 for i in range(40)]


def test_a_quotation_mark_that_is_not_closed(tmp_path, monkeypatch):
    for name, part in (("BYTES", "not closed: row 1 of"), ("LONGEST", "not closed: row 1 of")):
        monkeypatch.setattr(f"weightdecay.tables.csv_blocks.{name}", 100)
        path = tmp_path / "t.csv"
        path.write_text('note,x,y\n"a,1,2\n' + "b,1,2\n" * 200)
        with pytest.raises(InputError, match=part):
            list(open_source(path, "y", ["note"]).blocks())


def every_way(path, target="y", drop=()):
    """What each reader of a file gives: numbers, or its refusal without the folder."""

    def blocks():
        source = open_source(path, target, drop, dtype=torch.float64)
        return torch.cat([torch.cat([block.X, block.y], 1).clone() for block in source.blocks()])

    def whole():
        table = read_whole(path, [target], drop)
        return torch.cat([table.X.to_torch(), table.y.to_torch()], 1)

    def textbook():
        table = read_table(path, target, drop)
        return torch.cat([table.X, table.y[:, None]], 1)

    found = []
    for read in (blocks, whole, textbook):
        try:
            found.append(read().tolist())
        except InputError as error:
            found.append(str(error).replace(f"{path.parent}/", ""))
    assert found[1:] == found[:1] * 2
    return found[0]


ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 10.0]]
PLAIN = "a,b,y\n1,2,3\n4,5,6\n7,8,10\n"
READ = {
    "byte order mark": ("\ufeff" + PLAIN).encode(),
    "byte order mark, quoted names": ('\ufeff"a","b","y"\n' + PLAIN[6:]).encode(),
    "CRLF": PLAIN.replace("\n", "\r\n").encode(),
    "CR": PLAIN.replace("\n", "\r").encode(),
    "CR and blank lines": ("\r" + PLAIN.replace("\n", "\r\r")).encode(),
    "no line end at the end": PLAIN.strip().encode(),
    "no line end after CR": PLAIN.strip().replace("\n", "\r").encode(),
    "white space for lines": PLAIN.replace("\n", "\n \t\n\u00a0\n").encode(),
    "quoted numbers": PLAIN.replace("5", '" 5 "').encode(),
    "all in quotes": b'"a","b","y"\n"1","2","3"\n"4","5","6"\n"7","8","10"\n',
    "exponents and signs": PLAIN.replace("4,5", "+4.e0,.05E+2").encode(),
    "header alone in CR": b"a,b,y\r1,2,3\r4,5,6\r7,8,10",
    "gzip": gzip.compress(PLAIN.encode()),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "a no-break space of Latin-1": PLAIN.replace("5", "\u00a05").encode("latin-1"),
    "spaces in the header": PLAIN.replace("a,b,y", "a, b , y").encode(),
}


@pytest.mark.parametrize("size", [1, 5, 1 << 22])
@pytest.mark.parametrize("name", READ)
def test_csv_as_it_comes(tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(csv_blocks, "BYTES", size)
    (tmp_path / "t.csv").write_bytes(READ[name])
    assert every_way(tmp_path / "t.csv") == ROWS


REFUSED = {
    "zip": (b"PK\x03\x04\x14\x00", "the table is not text: t.csv = a zip archive or an Excel workbook"),
    "xz": (
        lzma.compress(PLAIN.encode()),
        "t.csv = compressed with xz; unpack it: unxz",
    ),
    "bzip2": (
        bz2.compress(PLAIN.encode()),
        "t.csv = compressed with bzip2; unpack it",
    ),
    "Parquet": (b"PAR1\x15\x04", "t.csv = a Parquet file; end its name in .parquet"),
    "NUL in the header": (PLAIN.replace("b", "b\0").encode(), "not text: t.csv = NUL bytes in line 1; say"),
    "UTF-8 with damage": (
        PLAIN.replace("a", "größe").encode().replace(b"5", b"\xff5"),
        "not UTF-8: byte 21, line 3 of t.csv = b'1,2,3\\n4,\\xff5,6\\n7,8'; say how it is written",
    ),
    "neither UTF-8 nor Windows-1252": (
        PLAIN.replace("5", "§").encode().replace(b"\xc2\xa7", b"\x8d"),
        "byte 15",
    ),
    "NUL in a cell": (
        PLAIN.replace("5", "5\0").encode(),
        "not a number: row 2, column 'b' of t.csv = '5\\x00'",
    ),
    "header and blank lines": (
        b"a,b,y\n\n \n\n",
        "the table has no rows: t.csv; give a file with a header and rows",
    ),
    "blank lines": (b"\n\n \n", "t.csv = empty CSV"),
    "cells of nothing": (PLAIN.replace("4,5,6", ",,").encode(), "row 2, column 'a' of t.csv = empty"),
    "white space": (PLAIN.replace("5", " ").encode(), "row 2, column 'b' of t.csv = empty"),
    "empty in quotes": (PLAIN.replace("5", '""').encode(), "row 2, column 'b' of t.csv = empty"),
    "a short row": (
        PLAIN.replace("4,5,6", "4,5").encode(),
        "row 2 of t.csv, line 3 = 2 of 3 cells: '4,5'",
    ),
    "a short first row": (
        PLAIN.replace("1,2,3", "1").encode(),
        "row 1 of t.csv, line 2 = 1 of 3 cells",
    ),
    "a long row": (
        PLAIN.replace("4,5,6", "4,5,6,7").encode(),
        "too many cells: row 2 of t.csv, line 3 = 4 of 3 cells: '4,5,6,7'; quote a cell that has ',' in it",
    ),
    "a decimal comma": (
        ("\n" + PLAIN).replace("4,5", "4,5,5").encode(),
        "row 2 of t.csv, line 4 = 4 of 3 cells: '4,5,5,6'; quote a cell",
    ),
    "a decimal comma in quotes": (
        PLAIN.replace("5", '"5,5"').encode(),
        "not a number: row 2, column 'b' of t.csv = '5,5'; a decimal comma? --decimal-comma reads it",
    ),
    "after blank lines": (PLAIN.replace("\n4,5", "\n\n\n4,x").encode(), "row 4, column 'b' of t.csv = 'x'"),
    "the first of several": (
        PLAIN.replace("4,5", "4,x").replace("7", "z").encode(),
        "row 2, column 'b' of t.csv = 'x'",
    ),
    "beyond": (
        PLAIN.replace("5", "1e400").encode(),
        "not finite or beyond 1e150: row 2, column 'b' of t.csv = inf",
    ),
    "not closed": (
        PLAIN.replace("5", '"5').encode(),
        "a quotation mark is not closed: row 2 of t.csv = '4,\"5,6",
    ),
    "not closed in the header": (b'a,"b,y\n1,2,3\n', "not closed: line 1 of t.csv"),
    "a quotation mark inside": (
        PLAIN.replace("5", '"5"x').encode(),
        'a quotation mark is inside a cell, as in 5" pipe: rows ',
    ),
    "quotation marks in two cells": (
        PLAIN.replace("5", '5"').replace("7", '7"').encode(),
        'a quotation mark is inside a cell, as in 5" pipe: rows ',
    ),
    "names of nothing": (b",,y\n1,2,3\n", "two columns have one name: column in t.csv = ''"),
    "no name": (
        b'b,"",y\n1,2,3\n2,4,4\n',
        """an input has no name: column '' of t.csv = ''; an index? drop it (--drop ""), or give""",
    ),
    "another case": (b"a,b,Y\n1,2,3\n", "target = 'y'; is 'Y' meant? t.csv has 'a', 'b', 'Y'"),
    "a quoted space in front": (
        b'a," b"," y"\n1,2,3\n',
        "is ' y' meant? (on the command line: '\" y\"'); t.csv has 'a', ' b', ' y'",
    ),
    "a comma": (b'a,"y, z"\n1,2\n', "is 'y, z' meant? (on the command line: '\"y, z\"')"),
}


@pytest.mark.parametrize("size", [7, 1 << 22])
@pytest.mark.parametrize("name", REFUSED)
def test_csv_that_is_refused_by_all_alike(tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(csv_blocks, "BYTES", size)
    content, part = REFUSED[name]
    (tmp_path / "t.csv").write_bytes(content)
    assert part in every_way(tmp_path / "t.csv")


def test_what_is_dropped_may_be_anything(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('note,a,b,y\n"caf\n\né",1,2,3\n,4,5,6\nna\x00,7,8,10\n'.encode("latin-1"))
    assert every_way(path, drop=["note"]) == ROWS
    for name in (b"", b"__index_level_0__"):  # an index is left out by itself
        path.write_bytes(name + b",a,b,y\n0,1,2,3\n1,4,5,6\n2,7,8,10\n")
        assert every_way(path, drop=[name.decode()]) == every_way(path) == ROWS


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        (pl.Series(["1", "2", "u"]), "'u'"),
        (pl.Series([1.0, None, 2.0], dtype=pl.Float32), "empty"),
        (pl.Series([True, None, False]), "empty"),
        (pl.Series(["1", "", "2"]), "empty"),
        (pl.Series([1.0, float("-inf"), 2.0]), "-inf"),
    ],
)
def test_parquet_that_is_refused_by_all_alike(tmp_path, column, cell):
    """A frame refuses the same cell."""
    frame = pl.DataFrame({"a": column, "y": [1, 2, 4]})
    frame.write_parquet(tmp_path / "t.parquet")
    assert f"column 'a' of t.parquet = {cell};" in every_way(tmp_path / "t.parquet")
    with pytest.raises(
        InputError, match=r"X\[\d, 'a'\] = " + ("(nan|empty);" if cell == "empty" else re.escape(cell))
    ):
        matched(frame, ["a", "y"], 2)


def test_labels_that_are_not_utf8(tmp_path):
    """é and è would become one group."""
    path = tmp_path / "t.csv"
    path.write_bytes("a,g,y\n1,é,3\n2,è,4\n5,e,6\n".encode("latin-1"))
    table = read_whole(path, ["y"], groups="g")
    assert table.groups.tolist() == ["é", "è", "e"]
    assert "read as Windows-1252" in table.notes[0]
    with pytest.raises(InputError, match="the text is not UTF-8: byte 9, line 2 of"):
        read_whole(path, ["y"], groups="g", reading=Reading(encoding="utf8"))
    path.write_bytes("a,g,y\n1,é,3\n\n2, è,4\n5,é ,6\n".encode())
    assert read_whole(path, ["y"], groups="g").groups.tolist() == ["é", "è", "é"]
    path.write_bytes(b'a,g,y\n1,u,3\n\n2,"",4\n')
    with pytest.raises(InputError, match="a row without a group: row 3, column 'g'"):
        read_whole(path, ["y"], groups="g")


def test_frames_without_a_name_and_queries_that_fail():
    with pytest.raises(InputError, match=r"an input has no name: X\[:, ''\] = ''"):
        ridge_path(pd.DataFrame({"b": [2.0, 1.0, 1.0], "": [1.0, 2.0, 4.0]}), [1.0, 2.0, 1.0])
    for query, part in ((pl.scan_csv("none.csv"), "none.csv"), (pl.LazyFrame({"a": [1]}).select("q"), '"q"')):
        with pytest.raises(InputError, match=f"the table cannot be read: X = .*{part}"):
            ridge_path(query, [1.0, 2.0, 1.0])


@pytest.mark.parametrize("changes", [{}, {"dtype": pl.Float32}, {"targets": 2}, {"zero": True}])
def test_a_column_of_a_file_that_is_the_target(tmp_path, monkeypatch, changes):
    """Told from a file as from a frame; not of a column that differs in the last block."""
    monkeypatch.setattr(csv_blocks, "BYTES", 64)
    random = np.random.default_rng(0)
    frame = pl.DataFrame(random.integers(0, 2, size=(40, 4)).astype(float), schema=["a", "b", "u", "y"])
    frame = frame.with_columns(copy=pl.col("y"), near=pl.when(pl.int_range(40) == 39).then(5).otherwise("y"))
    weight = None
    if changes.get("zero"):
        frame = frame.with_columns(copy=pl.when(pl.int_range(40) == 3).then(7).otherwise("copy"))
        weight = "w"
        frame = frame.with_columns(w=pl.when(pl.int_range(40) == 3).then(0.0).otherwise(1.0))
    frame = frame.cast(changes.get("dtype", pl.Float64))
    frame.write_csv(tmp_path / "t.csv")
    frame.write_parquet(tmp_path / "t.parquet")
    target = ["u", "y"] if "targets" in changes else "y"
    for path in ("t.csv", "t.parquet"):
        with pytest.warns(WeightDecayWarning) as caught:
            ridge_path(tmp_path / path, target, [1.0], sample_weight=weight)
        said = [str(one.message) for one in caught if "target itself" in str(one.message)]
        assert said == ["'copy' equals 'y' in every row: a column is the target itself; drop it"]


def test_random_tables_by_every_way_in():
    ends, seed = time.monotonic() + 5, 0
    while time.monotonic() < ends or seed < 5:
        assert case(seed) is None, seed
        seed += 1


def test_identifiers_stand_at_the_numbers_of_their_rows(tmp_path, monkeypatch):
    """Blank lines before the header and between rows, CR for line ends, blocks of a few bytes."""
    monkeypatch.setattr(csv_blocks, "BYTES", 9)
    path = tmp_path / "t.csv"
    path.write_bytes("\r\rid,x\r\rü 1,1\r \r\ru2,2\r,3".encode())
    ids = row_names(path, ["id"], ())
    assert [of_rows(ids, rows)["id"].to_list() for rows, _ in new_rows(path, ["x"], ["id"])] == [
        ["ü 1"],
        ["u2"],
        [None],
    ]
    path.write_bytes("id,x\nü,1\nu,2\n".encode("latin-1"))
    assert row_names(path, ["id"], ())["id"].to_list() == ["ü", "u"]
