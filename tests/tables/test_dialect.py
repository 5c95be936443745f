"""Tables of text in the dialects that people write: read as what they are, or refused in one line."""

import gzip
import pickle
import subprocess
import warnings

import numpy as np
import polars as pl
import pytest
import torch
from tests.tables.ordinary import ORDINARY, ordinary_files, small_table, written
from tests.tables.test_tables import every_way

import weightdecay as wd
from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.ridge.model import predict_file
from weightdecay.ridge.table_fit import Request, fit_table
from weightdecay.tables import csv_blocks, dialect, read_table
from weightdecay.tables.dialect import Reading, dialect_of
from weightdecay.tables.source import cells_of, files_of, new_rows, open_source, read_whole, row_names

NUMBERS = small_table().to_numpy().tolist()


@pytest.mark.parametrize("size", [1, 61, 1 << 22])
@pytest.mark.parametrize("kind", ORDINARY)
def test_the_same_numbers_from_every_file(tmp_path, monkeypatch, kind, size):
    monkeypatch.setattr(csv_blocks, "BYTES", size)
    file = ORDINARY[kind]
    path = file.into(tmp_path, small_table())
    assert every_way(path, drop=file.drop) == NUMBERS
    source = open_source(path, "y", file.drop)
    assert source.inputs == ("größe", "b", "price")
    assert file.said in " ".join(source.notes)
    assert bool(source.notes) == bool(file.said)
    assert all(note.zh != note for note in source.notes)
    shards = pickle.loads(pickle.dumps(source.shards))
    assert torch.equal(next(source.blocks(shards)).X, next(source.blocks()).X)


@pytest.mark.parametrize("kind", ORDINARY)
def test_the_same_texts_from_every_file(tmp_path, kind):
    frame = small_table(texts=True)
    (shard,) = files_of(ORDINARY[kind].into(tmp_path, frame))
    texts = frame.select("city", "member", "day")
    cells = cells_of(shard, texts.columns).select(pl.all().str.strip_chars())
    assert cells.drop_nulls().equals(texts)  # empty where a comment is
    assert row_names(shard.path, ["city"], ())["city"].str.strip_chars().equals(cells["city"])


def test_fit_and_predict_read_each_file_as_it_is(tmp_path):
    """A model of one file predicts all others; it keeps nothing of how its own was written."""
    files = ordinary_files(tmp_path, small_table())
    fit = fit_table(Request(str(files["decimal comma"]), ("y",)), tmp_path)
    assert any("decimal comma" in doubt for doubt in fit.doubts)
    assert "reading" not in fit.model.settings
    fit.save(tmp_path / "m")
    model = wd.load(tmp_path / "m" / "model.json")
    right = model.predict(small_table().drop("y")).numpy()
    for kind, path in files.items():
        if kind != "index without a name":
            predict_file(model, path, tmp_path / "p.parquet")
            assert np.array_equal(pl.read_parquet(tmp_path / "p.parquet")["y_predicted"], right), kind


def test_out_of_core_and_shards_of_several_dialects(tmp_path):
    frame = small_table()
    (tmp_path / "shards").mkdir()
    ways = ("semicolons", "decimal comma", "gzip", "Arrow", "UTF-16 without a mark")
    for place, kind in enumerate(ways):
        path = ORDINARY[kind].into(tmp_path, frame[8 * place : 8 * place + 8])
        path.rename(tmp_path / "shards" / f"{place}.{path.name.partition('.')[2]}")
    source = open_source(tmp_path / "shards", "y")
    assert torch.cat([torch.cat([b.X, b.y], 1) for b in source.blocks()]).tolist() == NUMBERS
    assert len(source.notes) == 3
    plain = ORDINARY["plain"].into(tmp_path, frame)
    with warnings.catch_warnings(action="ignore", category=WeightDecayWarning):
        paths = [wd.ridge_path(file, "y", [0.1, 1.0], cv=4) for file in (tmp_path / "shards", plain)]
    assert torch.equal(paths[0].scores, paths[1].scores)


def test_chinese_that_is_not_utf8(tmp_path):
    """As Excel saves it in China; German letters side by side are not taken for it."""
    path = tmp_path / "t.csv"
    text = "编号,城市,y\n1,北京（东）,2\n2,上海,3\n"
    path.write_bytes(text.encode("gb18030"))
    found = dialect_of(path)
    assert found.columns == ("编号", "城市", "y")
    assert "read as GB 18030" in found.notes[0]
    assert row_names(path, ["城市"], ())["城市"].to_list() == ["北京（东）", "上海"]
    path.write_bytes("Größe,Maß °C,ÄÖ\n1,2,3\n".encode("cp1252"))
    assert dialect_of(path).columns == ("Größe", "Maß °C", "ÄÖ")


# What is said goes before what is found.


def test_what_is_said_goes_before_what_is_found(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a|x;y\n1|2;3\n4|5;6\n7|8;9\n")
    assert dialect_of(path, Reading("|")).columns == ("a", "x;y")
    path.write_text('a,y\n"1,5",2\n"2,25",3\n"1,125",5\n')
    assert read_table(path, "y", reading=Reading(decimal_comma=True)).X[:, 0].tolist() == [1.5, 2.25, 1.125]
    path.write_text("a;y\n1,288;2\n2,500;3\n3,125;5\n")
    assert read_table(path, "y").X[:, 0].tolist() == [1.288, 2.5, 3.125]
    with pytest.raises(InputError, match=r"row 1, column 'a' .* = '1,288'; a decimal comma\?"):
        read_table(path, "y", reading=Reading(decimal_comma=False))
    path.write_bytes("größe;y\n1;2\n3;4\n".encode("cp1251", "replace").replace(b"?", b"\xf6"))
    assert dialect_of(path, Reading(encoding="cp1251")).columns[0] == "grццe"
    assert dialect_of(path, Reading(encoding="latin1")).columns[0] == "grööe"


def test_every_reader_takes_it(tmp_path):
    path, reading = tmp_path / "t.csv", Reading(":", True, "utf-16")
    path.write_bytes("id:a:y\nü:1,5:2\nv:2,5:3\n".encode("utf-16"))
    assert read_table(path, "y", ["id"], reading).X.tolist() == [[1.5], [2.5]]
    assert read_whole(path, ["y"], ["id"], reading=reading).X["a"].to_list() == [1.5, 2.5]
    assert next(new_rows(path, ["a"], ["id", "y"], reading))[1].tolist() == [[1.5], [2.5]]
    assert row_names(path, ["id"], (), reading)["id"].to_list() == ["ü", "v"]
    fit = fit_table(Request(str(path), ("y",), ("id",), reading=reading), tmp_path)
    assert not any("decimal" in doubt for doubt in fit.doubts)
    assert fit.path.settings["request"]["reading"]["encoding"] == "utf-16"


def test_the_command_line_says_it(tmp_path):
    (tmp_path / "t.dat.txt").write_bytes(written(small_table(), ":", ",").encode("utf-16"))

    def run(*line):
        command = [".venv/bin/python", "-m", "weightdecay", *line, "--decimal-comma", "--encoding", "utf-16"]
        return subprocess.run([*command, "--separator", ":"], capture_output=True, text=True, check=False)

    data, out = str(tmp_path / "t.dat.txt"), str(tmp_path / "m")
    done = run("fit", data, "--target", "y", "--out", out)
    assert done.returncode == 0, done.stderr
    done = run("predict", out, data, "--out", str(tmp_path / "p.csv"))
    assert done.returncode == 0, done.stderr
    assert pl.read_csv(tmp_path / "p.csv").height == 40


# What is read, and how.

READ = {
    "no evidence for comments: an id": ("id,y\n#1,2\n#2,3\n", ["id", "y"], [["#1", "2"], ["#2", "3"]]),
    "a name that begins with #": ("#id,y\na,2\nb,3\n", ["id", "y"], [["a", "2"], ["b", "3"]]),
    "a comment that looks like a header": ("# see a,b\na,b\n1,2\n", ["a", "b"], [["1", "2"]]),
    "# inside quotation marks": (
        '# one\na,b\n"u\n# v",2\n# two\nw,3\n',
        ["a", "b"],
        [["u\n# v", "2"], [None, None], ["w", "3"]],
    ),
    "several empty columns": ("a,b,,\n1,2,,\n3,4,,\n", ["a", "b"], [["1", "2"], ["3", "4"]]),
    "a separator after each row alone": ("a;b\n1;2;\n3;4;\n", ["a", "b"], [["1", "2"], ["3", "4"]]),
    "a separator after the header alone": ("a;b;\n1;2\n3;4\n", ["a", "b"], [["1", "2"], ["3", "4"]]),
    "spaces before quotation marks": (
        'a, "b, c", d\n"x, ""y""", "2", u\nv,  "3, 4", w\n',
        ["a", "b, c", "d"],
        [['x, "y"', "2", " u"], ["v", "3, 4", " w"]],
    ),
    "commas in the names, semicolons between": ("a, cm;b, cm\n1,5;2\n", ["a, cm", "b, cm"], [["1,5", "2"]]),
    "a cell with semicolons": ('a,b\n"u;v;w",2\n"x;y",3\n', ["a", "b"], [["u;v;w", "2"], ["x;y", "3"]]),
    "tabs, and a row of empty cells": ("a\tb\n1\t2\n\t\n", ["a", "b"], [["1", "2"], [None, None]]),
    "ids that begin with #, of which a row has a comma in quotes": (
        'id,y\n#1,"2,0"\n#2,3\n#3,4\n',
        ["id", "y"],
        [["#1", "2,0"], ["#2", "3"], ["#3", "4"]],
    ),
    "the separator that Excel wrote": ("sep=|\na|x;y\n1|2;3\n", ["a", "x;y"], [["1", "2;3"]]),
    "a tab at the end of a line": ("a\tb\n1\t2\t\n3\t4\t\n", ["a", "b"], [["1", "2"], ["3", "4"]]),
    "a form feed for a line": ("a;b\n1;2\n\f\n3;4\n", ["a", "b"], [["1", "2"], [None, None], ["3", "4"]]),
}


@pytest.mark.parametrize("size", [1, 1 << 22])
@pytest.mark.parametrize("name", READ)
def test_cells(tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(csv_blocks, "BYTES", size)
    text, columns, rows = READ[name]
    (tmp_path / "t.csv").write_text(text)
    (shard,) = files_of(tmp_path / "t.csv")
    assert list(shard.dialect.columns) == columns
    assert [list(row) for row in cells_of(shard, columns).rows()] == rows


@pytest.mark.parametrize(
    "mark", ["NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-", "?", ".", " NA ", ""]
)
@pytest.mark.parametrize("kind", ["plain", "decimal comma", "thousands", "Latin-1"])
def test_a_missing_cell_is_named(tmp_path, kind, mark):
    """In a column of numbers; where a label is wanted it is a label."""
    frame = small_table().with_columns(pl.col("b").cast(pl.String))
    frame = frame.with_columns(b=pl.when(pl.int_range(40) == 7).then(pl.lit(mark)).otherwise("b"))
    path = ORDINARY[kind].into(tmp_path, frame)
    said = every_way(path)
    assert (
        f"row 8, column 'b' of {path.name} = {repr(mark.strip()) if mark else 'empty'}; missing cells: "
        in said
    )
    (shard,) = files_of(path)
    assert cells_of(shard, ["b"])["b"][7] == (mark or None)


REFUSED = {
    "a separator that is in no line": (
        "a;y\n1;2\n",
        Reading("|"),
        "the separator is in no line: t.csv = '|'",
    ),
    "a long separator": ("a;y\n1;2\n", ("||",), "no such separator: separator = '||'; give one character"),
    "an encoding that there is not": ("a,y\n", (None, None, "utf-9"), "no such encoding: encoding = 'utf-9'"),
    "an encoding of bytes": ("a,y\n", (None, None, "base64"), "no such encoding: encoding = 'base64'"),
    "bytes that do not decode": (
        "a,y\n1,2\nü,3\n".encode("latin-1"),
        Reading(encoding="utf-8"),
        "the text is not UTF-8: byte 9, line 3 of t.csv = b'a,y\\n1,2\\n\\xfc,3\\n'; say how it is written",
    ),
    "half a character of UTF-16": (
        "a,y\n1,2\n3,4\n".encode("utf-16-le") + b"\x31",
        Reading(encoding="utf-16-le"),
        "the text is not UTF-16-LE: byte 25, line 4",
    ),
    "bytes that are not Windows-1252": (
        b"a,y\n1,2\n\x81,3\n",
        Reading(encoding="windows-1252"),
        "the text is not Windows-1252: byte 9, line 3",
    ),
    "a decimal comma in some cells": (
        "a;y\n1,5;2\n2.5;3\n",
        None,
        "not a number: row 1, column 'a' of t.csv = '1,5'; a decimal comma? --decimal-comma reads it, if all",
    ),
    "a decimal comma in some columns": (
        "a;y\n1,5;2\n2,5;3.5\n",
        None,
        "not a number: row 2, column 'y' of t.csv = '3.5'; numbers have a decimal comma there",
    ),
    "a decimal comma in a later cell": (
        "a;y\n1.5;2\n2.5;3\n2,5;4\n",
        None,
        "not a number: row 3, column 'a' of t.csv = '2,5'; a decimal comma?",
    ),
    "thousands in a wrong place": (
        'a,y\n"1,288,184.75",2\n12,"12,88"\n',
        None,
        "not a number: row 2, column 'y' of t.csv = '12,88'",
    ),
    "two columns with one name": ("a;b;a\n1;2;3\n", None, "two columns have one name: column in t.csv = 'a'"),
    "a row that is too short": (
        "a;b;y\n1;2;3\n4;5\n",
        None,
        "too few cells: row 2 of t.csv, line 3 = 2 of 3 cells: '4;5'",
    ),
    "a row that is too long": (
        "a;b;y\n1;2;3\n4;5;6;7\n",
        None,
        "too many cells: row 2 of t.csv, line 3 = 4 of 3 cells: '4;5;6;7'; quote a cell that has ';' in it",
    ),
    "a short row after a cell of two lines": (
        'a,b,y\n"1\n",2,3\n4,5\n',
        None,
        "too few cells: row 2 of t.csv, line 4 = 2 of 3 cells: '4,5'",
    ),
    "a short row of quoted cells": (
        'a,y\n"1",3\n"4"\n',
        None,
        "too few cells: row 2 of t.csv, line 3 = 1 of 2",
    ),
    "a cell in the empty column": (
        "a;y;\n1;2;\n" + "3;4;\n" * 600 + "5;6;7\n",
        None,
        "a cell in a column without a name: row 602 of t.csv = '7'",
    ),
    "a commented row": ("a,y\n1,2\n#3,4\n5,6\n", None, "not a number: row 2, column 'a' of t.csv = '#3'"),
    "gzip that is cut short": (
        gzip.compress(b"a,y\n1,2\n")[:-9],
        None,
        "it is cut short or damaged",
    ),
    "an Arrow file": (b"ARROW1\0\0", None, "t.csv = an Arrow file; end its name in .arrow"),
}


@pytest.mark.parametrize("size", [1, 1 << 22])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_in_one_line(tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(csv_blocks, "BYTES", size)
    text, reading, part = REFUSED[name]
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        read_table(path, "y", reading=Reading(*reading) if type(reading) is tuple else reading)
    said = str(caught.value).replace(f"{tmp_path}/", "")
    assert part in said
    assert "\n" not in said


def test_files_that_are_not_what_their_name_says(tmp_path):
    frame = small_table()
    frame.write_ipc_stream(tmp_path / "stream.arrow")
    frame.write_ipc(tmp_path / "whole.arrow")
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "whole.arrow").read_bytes()[:-9])
    (tmp_path / "latin.csv").write_bytes(b"\xfc,y\n1,2\n")
    subprocess.run(["gzip", "-k", tmp_path / "latin.csv"], check=True)
    assert dialect_of(tmp_path / "latin.csv.gz").columns == ("ü", "y")
    for name, part in (
        ("stream.arrow", "no Arrow file; write it in Arrow's file format"),
        ("cut.arrow", "the Arrow file is cut short"),
    ):
        with pytest.raises(InputError, match=part):
            read_table(tmp_path / name, "y")
    with pytest.raises(InputError, match=r"only a table of text has a sep.*encoding = 'utf-8'"):
        read_table(tmp_path / "whole.arrow", "y", reading=Reading(encoding="UTF8"))


def test_a_note_beside_tables_is_no_table(tmp_path):
    small_table().write_csv(tmp_path / "a.csv")
    (tmp_path / "readme.txt").write_text("what this is\n")
    assert [shard.path for shard in files_of(tmp_path)] == [str(tmp_path / "a.csv")]


def test_a_letter_beyond_what_is_looked_at(tmp_path, monkeypatch):
    """Then it is too late to guess: refused with the byte and the line."""
    monkeypatch.setattr(dialect, "LOOKED", 1 << 20)
    path = tmp_path / "t.csv"
    path.write_bytes(b"name,a,y\n" + b"u,1,2\n" * (6 << 20) + "ü,3,4\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"byte 37,748,746, line 6,291,458 of .*--encoding windows-1252"):
        list(open_source(path, "y", ["name"]).blocks())
    assert dialect_of(path, Reading(encoding="latin-1")).notes == ()
