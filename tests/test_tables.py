"""Tables: read right, or refused with the row and the column named."""

import polars as pl
import pytest
import torch

from weightdecay.errors import InputError
from weightdecay.tables import read_table
from weightdecay.tables.source import open_source

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
        (GOOD, {"target": "z"}, ["no such column", "'z'", "a, b, y"]),
        (GOOD, {"target": "y", "drop": ["q"]}, ["no such column", "'q'"]),
        (GOOD, {"target": "y", "drop": ["y"]}, ["also dropped", "'y'"]),
        (GOOD, {"target": "y", "drop": ["a", "b"]}, ["no column is left"]),
        ("a,y\n1,2\nx,3\n", {"target": "y"}, ["not a number", "row 2", "'a'", "'x'"]),
        ("a,y\n1,2\n,3\n4,5\n", {"target": "y"}, ["empty", "row 2", "'a'"]),
        ("a,y\n1,2\n3,4\nNaN,5\n", {"target": "y"}, ["row 3", "'a'", "nan"]),
        ("a,y\n1,2\n3,inf\n", {"target": "y"}, ["row 2", "'y'", "inf"]),
        ("a,y\n1,2\n-1e200,3\n", {"target": "y"}, ["row 2", "'a'", "beyond 1e150"]),
        ("a,y\n1,2\n3,2\n", {"target": "y"}, ["constant", "'y'", "2.0"]),
        ("a,a,y\n1,2,3\n4,5,6\n", {"target": "y"}, ["one name", "'a'"]),
        ("a;y\n1;2\n", {"target": "y"}, ["no such column", "a;y; are its columns separated by commas?"]),
        ("a,y\n", {"target": "y"}, ["no rows"]),
        ("", {"target": "y"}, ["cannot be read"]),
        ("a,y\n1,2\n1,2,3,4\n", {"target": "y"}, ["cannot be read"]),
    ],
)
def test_what_cannot_be_used_is_named(csv, text, options, parts):
    with pytest.raises(InputError) as caught:
        read_table(csv(text), **options)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables(tmp_path):
    for path, part in ((tmp_path / "none.csv", "cannot be read"), (tmp_path / "t.xlsx", ".csv or .parquet")):
        with pytest.raises(InputError, match=part):
            read_table(path, "y")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "cut.parquet", "y")


def test_dates_are_not_numbers(tmp_path):
    pl.DataFrame({"a": pl.Series(["2020-01-01", "2020-01-02"]).str.to_date(), "y": [1, 2]}).write_parquet(
        tmp_path / "t.parquet"
    )
    with pytest.raises(InputError, match=r"column 'a'.*Date"):
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
    for name, part in (("BYTES", "near row 1"), ("LONGEST", "a quotation mark is not closed")):
        monkeypatch.setattr(f"weightdecay.tables.csv_blocks.{name}", 100)
        path = tmp_path / "t.csv"
        path.write_text('note,x,y\n"a,1,2\n' + "b,1,2\n" * 200)
        with pytest.raises(InputError, match=part):
            list(open_source(path, "y", ["note"]).blocks())
