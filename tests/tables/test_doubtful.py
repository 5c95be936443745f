"""Columns that could be taken silently for something else: each is refused by name or reported."""

import datetime
import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from tests.commands import here

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.tables.columns import ColumnOptions
from weightdecay.tables.source import look_at, open_source, read_whole, target_kind

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
ROWS = 30
X = np.random.default_rng(0).normal(size=ROWS)


def table(**columns):
    return pl.DataFrame({"x": X, **columns, "y": X**2})


DATES = [f"{1 + i % 28}.{1 + i % 12}.{90 + i % 9}" for i in range(ROWS)]
DOUBTFUL = {
    "short years": (["31.12.99", *DATES[1:]], "the year has two digits: column 'c' of .* write 1999-12-31"),
    "month first": (["12/31/99"] * 16 + ["01/02/2001"] * 14, "the year has two digits: .* = '12/31/99'"),
    "percent": ([f"{i % 7} %" for i in range(ROWS)], "numbers with a sign: .*--category c takes it as"),
    "dollars": ([f"${1200 + i:,}" for i in range(ROWS)], r"numbers with a sign: column 'c' of .* = '\$1,2"),
    "euros": ([f"{3148 + i} €" for i in range(ROWS)], "numbers with a sign: .* = '3148 €'"),
    "times": ([f"12:{i}" for i in range(30, 60)], "numbers with a sign: column 'c' of .* = '12:30'"),
    "some": (["5%"] * 9 + ["6%"] * 9 + ["none", "few"] * 6, "numbers with a sign: .* = '[56]%'"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_texts_that_may_be_numbers_or_dates_are_to_be_decided(tmp_path, name):
    cells, message = DOUBTFUL[name]
    table(c=cells).write_csv(tmp_path / "t.csv")
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "t.csv", "y", options=ColumnOptions(dates="days"))
    (refusal,) = look_at(tmp_path / "t.csv").refusals
    assert str(refusal).startswith(message.split(":")[0])
    said = ColumnOptions(category=["c"])
    if len(set(cells)) < ROWS:
        assert open_source(tmp_path / "t.csv", "y", options=said).inputs[1].startswith("c=")


def test_new_dates_with_short_years_are_refused():
    frame = table(d=[f"{1 + i % 28}.12.{1990 + i % 9}" for i in range(ROWS)])
    path = wd.ridge_path(frame.drop("y"), frame["y"], [1.0], cv=3, dates="days")
    with pytest.raises(InputError, match=r"'d'\] = '31.12.99'; the fit had dates as 31.01.2020"):
        path.predict(pl.DataFrame({"x": [1.0], "d": ["31.12.99"]}), 1.0)


def test_leading_zeros_are_no_numbers(tmp_path):
    frame = table(
        zip=[f"{i % 4:05d}" for i in range(ROWS)],
        who=[f"{i * i + 7:015d}" for i in range(ROWS)],
        number=[f"0{i}.5" if i % 2 else "012" for i in range(ROWS)],
        zero=["0" if i % 2 else "12" for i in range(ROWS)],
    )
    frame.write_csv(tmp_path / "t.csv")
    columns = {column.name: column for column in look_at(tmp_path / "t.csv").columns}
    roles = {name: column.role for name, column in columns.items()}
    assert roles == {
        **dict.fromkeys(["x", "number", "zero", "y"], "number"),
        "zip": "category",
        "who": "identifier",
    }
    assert columns["zip"].why.startswith("text: leading zeros")
    assert columns["who"].values.startswith("000000000000007, ")
    expected = ["x", *(f"zip=0000{i}" for i in range(4)), "number", "zero"]
    assert list(open_source(tmp_path / "t.csv", "y").inputs) == expected
    path = wd.ridge_path(frame.drop("y"), frame["y"], [1.0], cv=3)
    assert list(path.features or ()) == expected
    said = ColumnOptions(number=["zip", "who"])
    assert open_source(tmp_path / "t.csv", "y", options=said).inputs == ("x", "zip", "who", "number", "zero")


def test_dates_with_a_time_zone():
    days = pd.date_range("2020-03-28", periods=ROWS, freq="7h", tz="Europe/Oslo")
    right = np.arange(ROWS) * 7 / 24
    plain = wd.ridge_path(np.column_stack([X, right]), X**2, [1.0], cv=3)
    instants = pl.Series(days.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[us]"))
    zoned = instants.dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Oslo")
    for frame in (pd.DataFrame({"x": X, "t": days}), pl.DataFrame({"x": X, "t": zoned})):
        path = wd.ridge_path(frame, X**2, [1.0], cv=3, dates="days")
        assert path.features == ("x", "t")
        np.testing.assert_allclose(path.coef(1.0), plain.coef(1.0), rtol=1e-10)


STRANGE = {
    "Duration": [datetime.timedelta(hours=i) for i in range(ROWS)],
    "Time": [datetime.time(i % 24) for i in range(ROWS)],
    "Binary": [b"a"] * ROWS,
    "List": [[1]] * ROWS,
    "Struct": [{"u": 1}] * ROWS,
}


@pytest.mark.parametrize("kind", STRANGE)
def test_types_that_are_no_input(tmp_path, kind):
    frame = table(t=pl.Series(STRANGE[kind]))
    frame.write_parquet(tmp_path / "t.parquet")
    for options in (ColumnOptions(), ColumnOptions(category=["t"])):
        with pytest.raises(
            InputError, match=f"a column of type {kind}.* is no input: column 't' of .*--drop t"
        ):
            open_source(tmp_path / "t.parquet", "y", options=options)
    assert open_source(tmp_path / "t.parquet", "y", drop=["t"]).inputs == ("x",)
    for given in (frame.drop("y"), pd.DataFrame({"x": X, "t": STRANGE[kind]})):
        with pytest.raises(InputError, match=r"a column of type .* is no input: X\[:, 't'\]"):
            wd.ridge_path(given, X, [1.0], cv=3)


def test_complex_columns_are_no_input():
    with pytest.raises(InputError, match=r"a column of type complex128 is no input: X\[:, 't'\]"):
        wd.ridge_path(pd.DataFrame({"x": X, "t": X * 1j}), X, [1.0], cv=3)


def test_targets_of_text(tmp_path):
    table(city=["oslo", "rome"] * 15, cost=["$5"] * ROWS).write_csv(tmp_path / "t.csv")
    with pytest.raises(
        InputError, match=r"the target is text: column 'city' of .* = 'oslo'; a ridge regress"
    ):
        open_source(tmp_path / "t.csv", "city")
    with pytest.raises(
        InputError, match=r"the weights are text: column 'city' of .*choose another --weights"
    ):
        open_source(tmp_path / "t.csv", "y", weights="city")
    with pytest.raises(InputError, match=r"numbers with a sign: column 'cost' of .* = '\$5'; take"):
        open_source(tmp_path / "t.csv", "cost")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_target_of_yes_and_no(tmp_path, kind):
    """In memory, in blocks, with a column that is read through, weights and a second target."""
    words = ["Yes" if i % 3 else "No" for i in range(ROWS)]
    frame = table(city=["oslo", "rome"] * 15, won=words, w=[1.0 + i % 2 for i in range(ROWS)])
    path = tmp_path / f"t.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    right = (frame["won"] == "Yes").cast(pl.Float64).to_numpy()
    whole = read_whole(path, ["won", "y"], weights="w")
    np.testing.assert_array_equal(whole.y["won"], right)
    np.testing.assert_array_equal(whole.weights, frame["w"])
    source = open_source(path, ["y", "won"], weights="w")
    np.testing.assert_array_equal(torch.cat([block.y.clone() for block in source.blocks()])[:, 1], right)
    (column,) = [column for column in whole.columns if column.name == "won"]
    assert (column.role, column.why) == ("target", "to be predicted: yes is 1, no is 0")
    frame = frame.with_columns(won=pl.when(pl.int_range(ROWS) != 4).then("won"))
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    with pytest.raises(
        InputError, match=r"row 5, column 'won' of .* = empty; missing cells: 'won' 1, in 1 of"
    ):
        read_whole(path, ["won"])
    assert read_whole(path, ["won"], options=ColumnOptions(missing="drop")).kept.arg_min() == 4


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["oslo", "rome"], "text"),
        (["2020-01-01", "2020-01-02"], "text"),
        (["1", "x", "y"], "text"),
        (["Yes", "no"], "yes/no"),
        (["TRUE", "false"], "yes/no"),
        (["t", None], "yes/no"),
        (["1", "0"], "number"),
        (["1.5", "2", "n/a", "three"], "number"),
        (["$5", "$7"], "number"),
        ([None, "NA"], "number"),
    ],
)
def test_which_targets_are_classes(tmp_path, cells, kind):
    frame = pl.DataFrame({"x": [*range(40)], "y": (cells * 40)[:40]})
    frame.write_csv(tmp_path / "t.csv")
    frame.write_parquet(tmp_path / "t.parquet")
    assert [target_kind(tmp_path / f"t.{kind}", "y") for kind in ("csv", "parquet")] == [kind] * 2
    pl.DataFrame({"y": [True, False]}).write_parquet(tmp_path / "b.parquet")
    assert target_kind(tmp_path / "b.parquet", "y") == "yes/no"
    with pytest.raises(InputError, match=r"no such column: target = 'z'"):
        target_kind(tmp_path / "t.csv", "z")


def test_labels_are_read_as_texts_and_are_no_input(tmp_path):
    frame = table(label=[" 7", "8", "NA"] * 10, g=["a", "b"] * 15)
    frame.write_csv(tmp_path / "t.csv")
    said = ColumnOptions(missing="drop")
    whole = read_whole(tmp_path / "t.csv", ["label"], groups="g", options=said, labelled=True)
    assert whole.y["label"].to_list() == ["7", "8", None] * 10
    assert whole.kept.to_list() == [True, True, False] * 10
    assert "label" not in whole.coding.names
    (column,) = [column for column in whole.columns if column.name == "label"]
    assert (column.role, column.why) == ("class", "to be predicted: a class")
    with pytest.raises(
        InputError, match=r"a row without a class: row 3, column 'label'.*drop leaves these rows out$"
    ):
        read_whole(tmp_path / "t.csv", ["label"], groups="g", labelled=True)


@pytest.mark.parametrize("missing", ["drop", "mean"])
def test_rows_without_a_group_or_a_weight_are_left_out(tmp_path, missing):
    place = pl.int_range(ROWS)
    frame = table(g=[str(i % 5) for i in range(ROWS)], w=[1.0 + i % 2 for i in range(ROWS)]).with_columns(
        g=pl.when(place == 3).then(pl.lit("NA")).otherwise("g"), w=pl.when(place != 7).then("w")
    )
    frame.write_csv(tmp_path / "t.csv")
    with pytest.raises(InputError, match="missing cells: 'w' 1, 'g' 1, in 2 of 30 rows; --missing drop"):
        read_whole(tmp_path / "t.csv", ["y"], groups="g", weights="w")
    with pytest.raises(InputError, match=r"a row without a group: row 4, .*missing cells: 'g' 1, in 1 of 30"):
        read_whole(tmp_path / "t.csv", ["y"], ["w"], groups="g")
    said = ColumnOptions(missing=missing)
    found = read_whole(tmp_path / "t.csv", ["y"], groups="g", weights="w", options=said)
    assert found.left_out == 2
    assert (~found.kept).arg_true().to_list() == [3, 7]
    line = ("fit", "t.csv", "--target", "y", "--groups", "g", "--drop", "w", "--missing", missing)
    done = here(*line, "--lambda", ".1", cwd=tmp_path)
    said = "left out: 1 of 30 rows, whose target or group is missing"
    assert (said if missing == "mean" else "1 of 30 rows have a missing cell") in done.stderr, done.stderr


def test_missing_cells_of_categories_are_counted_too():
    city = pl.Series([None, "oslo", "rome"] * 10)
    frame = pl.DataFrame({"x": [None, *X[1:]], "city": city})
    path = wd.ridge_path(frame, X, [1.0], cv=3, missing="mean")
    assert "10 missing cells of categories are a level of their own" in map(str, path.notes)
    assert "1 missing cells of 1 columns take the mean of the training rows" in map(str, path.notes)


def test_an_unknown_first_column_without_a_name_is_left_out_and_said(tmp_path):
    frame = table(z=X[::-1].copy())
    frame.write_csv(tmp_path / "t.csv")
    frame.insert_column(0, pl.Series("", range(ROWS))).write_csv(tmp_path / "new.csv")
    assert here("fit", "t.csv", "--target", "y", "--out", "m", cwd=tmp_path).returncode == 0
    done = here("predict", "m", "new.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: left out: the first column, which has no name" in done.stderr


def test_the_listing_counts_missing_cells_and_says_how_the_file_is_read(tmp_path):
    lines = [
        "a\\nb;x;m;city;y",
        *(f"{i % 7},5;{'' if i % 3 else i};True;u{i % 2};{i * i}" for i in range(ROWS)),
    ]
    text = "\n".join(lines).replace("a\\nb", '"a\nb"')
    (tmp_path / "t.csv").write_text(text)
    done = here("fit", "t.csv", "--number", "city", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert shown[0].startswith("a\\nb  number")
    assert shown[1].endswith(", 20 missing")
    assert shown[2].split()[:2] == ["m", "constant"]
    assert "note: numbers have a decimal comma" in shown
    assert "to be decided: texts are named as numbers: column 'city' of t.csv = 'u0'; take it" in done.stdout
    assert "to be decided: cells are missing: t.csv; missing cells: 'x' 20, in 20 of 30 rows" in done.stdout
    values = json.loads(here("fit", "t.csv", "--json", cwd=tmp_path).stdout)
    assert "numbers have a decimal comma" in values["notes"]
    assert values["columns"][1]["missing"] == 20


@pytest.mark.parametrize("cells", [["True", "true", "1"], ["1", "1.0", "TRUE"]])
def test_ways_to_write_one_are_the_same_in_every_row(tmp_path, cells):
    table(m=cells * 10).write_csv(tmp_path / "t.csv")
    assert open_source(tmp_path / "t.csv", "y").coding.aside == (("m", "constant"),)


def test_json_and_a_single_row(tmp_path):
    for text in ('[{"a": 1, "y": 2}]\n', '{"a": 1}\n{"a": 2}\n', "[[1, 2], [3, 4]]\n"):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(InputError, match="this is JSON, not a table of text"):
            look_at(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("[a],{y}\n1,2\n")
    with pytest.raises(InputError, match=r"too few rows: t\.csv has 1 row; a fit needs at least 2"):
        read_whole(tmp_path / "t.csv", ["{y}"])


def test_texts_of_many_levels_are_not_told_to_be_numbers(tmp_path):
    levels = [f"u{i // 2}" for i in range(2400)]
    for c, hint in ((levels, False), ([level[1:] for level in levels], True)):
        pl.DataFrame({"c": c, "y": range(0, 4800, 2)}).write_csv(tmp_path / "t.csv")
        with pytest.raises(InputError, match="a category of more than 1,000 levels") as error:
            open_source(tmp_path / "t.csv", "y", options=ColumnOptions(category=["c"]))
        assert ("numbers are better left numbers" in str(error.value)) == hint
