"""Columns: what each one is taken for, and that every way in gives the same inputs and the same numbers."""

import json
import shlex
import warnings
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from tests.commands import here

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.tables import csv_blocks
from weightdecay.tables.cells import typed_name
from weightdecay.tables.columns import Coding, ColumnOptions
from weightdecay.tables.source import look_at, open_source, read_whole

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
CITIES = ["oslo", "paris", "rome"]


def people(n=60, seed=0):
    """A table as people have them: an index, a number, categories, yes and no, dates, names, constants."""
    random = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "id": range(1, n + 1),
            "age": random.normal(40, 9, n),
            "city": random.choice(CITIES, n),
            "smokes": random.choice(["yes", "no"], n),
            "since": [f"20{random.integers(10, 26):02d}-{random.integers(1, 13):02d}-05" for _ in range(n)],
            "who": [f"person {j}" for j in range(n)],
            "kind": [*(["a", "b"] * n)[: n - 3], "c", "c", "d"],
            "unit": ["kg"] * n,
            "zero": [0] * n,
        }
    )
    y = frame["age"] / 9 + (frame["city"] == "rome").cast(pl.Int64) * 2 + random.normal(size=n)
    return frame.with_columns(y=y)


def roles(learned):
    return {column.name: column.role for column in learned.columns}


def coded(frame):
    """By hand: the inputs of `people`, with the days of `since`."""
    days = frame["since"].str.to_date().to_numpy().astype("datetime64[D]").astype(float)
    parts = {
        "age": frame["age"].to_numpy(),
        **{f"city={city}": (frame["city"] == city).to_numpy() * 1.0 for city in CITIES},
        "smokes": (frame["smokes"] == "yes").to_numpy() * 1.0,
        "since": days - days.min(),
        "kind=a": (frame["kind"] == "a").to_numpy() * 1.0,
        "kind=b": (frame["kind"] == "b").to_numpy() * 1.0,
        "kind=(rare)": frame["kind"].is_in(["c", "d"]).to_numpy() * 1.0,
    }
    return list(parts), np.array(list(parts.values())).T


def written(folder, frame, name):
    path = folder / name
    if name.endswith("parquet"):
        frame.write_parquet(path, row_group_size=17)
    elif name.endswith("arrow"):
        frame.write_ipc(path)
    elif name == "shards":
        path.mkdir(exist_ok=True)
        edges = [0, 9, 31, len(frame)]
        for a, b in pairwise(edges):
            frame[a:b].write_csv(path / f"{a:03d}.csv")
    else:
        frame.write_csv(path)
    return path


FILES = ["t.csv", "t.parquet", "t.arrow", "shards"]


@pytest.mark.parametrize("name", FILES)
def test_the_role_of_each_column(tmp_path, name, monkeypatch):
    monkeypatch.setattr("weightdecay.tables.csv_blocks.BYTES", 300)
    monkeypatch.setattr("weightdecay.tables.columns.SAMPLE", 20)
    frame = people()
    path = written(tmp_path, frame, name)
    learned = look_at(path, options=ColumnOptions(dates="days"))
    assert roles(learned) == {
        **{"id": "index", "age": "number", "city": "category", "smokes": "yes/no", "since": "date"},
        **{"who": "identifier", "kind": "category", "unit": "constant", "zero": "constant", "y": "number"},
    }
    source = open_source(path, "y", options=ColumnOptions(dates="days"))
    names, X = coded(frame)
    assert list(source.inputs) == names
    np.testing.assert_array_equal(torch.cat([block.X.clone() for block in source.blocks()]), X)
    assert Coding.from_dict(json.loads(json.dumps(source.coding.to_dict()))) == source.coding
    assert source.coding.left_out == ("id", "who", "unit", "zero")


SAID = {
    "categories": ({"g": [3, 4, 5] * 5}, {"category": ["g"]}, ["g=3", "g=4", "g=5"]),
    "as floats": ({"g": [3.0, 4.0, 5.0] * 5}, {"category": "g"}, ["g=3", "g=4", "g=5"]),
    "true": ({"g": [True, False, True] * 5}, {}, ["g"]),
    "true, as category": ({"g": [True, False, True] * 5}, {"category": ["g"]}, ["g=false", "g=true"]),
    "words": ({"g": ["t", "f", "n"] * 5}, {}, ["g=f", "g=n", "g=t"]),
    "a day first": ({"g": [f"{j + 1}.3.2020" for j in range(15)]}, {"dates": "days"}, ["g"]),
    "times": ({"g": [f"2020-01-01T{j:02d}:30" for j in range(15)]}, {"dates": "days"}, ["g"]),
    "counted": ({"g": range(15)}, {}, []),
    "counted, and wanted": ({"g": range(15)}, {"number": ["g"]}, ["g"]),
    "counted from two": ({"g": range(2, 17)}, {}, ["g"]),
    "few levels": ({"g": ["u", "v", "w"] * 5}, {}, ["g=u", "g=v", "g=w"]),
    "all rare": ({"g": ["u", "v", "w", "x", "z"] * 3}, {}, ["g=u", "g=v", "g=w", "g=x", "g=z"]),
    "one rare": ({"g": ["u", "v"] * 6 + ["w"] * 3}, {}, ["g=u", "g=v", "g=w"]),
    "two rare": ({"g": ["u", "v"] * 6 + ["w"] * 2 + ["x"]}, {}, ["g=u", "g=v", "g=(rare)"]),
    "empty": ({"g": [None] * 15}, {}, []),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_of_columns(tmp_path, name):
    columns, options, features = SAID[name]
    frame = pl.DataFrame({"x": np.random.default_rng(0).normal(size=15), **columns}).with_columns(
        y=pl.col("x") ** 2
    )
    frame.write_csv(tmp_path / "t.csv")
    for path in (
        wd.ridge_path(frame.drop("y"), frame["y"], [1.0], cv=3, **options),
        wd.ridge_path(tmp_path / "t.csv", "y", [1.0], cv=3, **options),
    ):
        assert list(path.features) == ["x", *features]
        assert path.coding is None or "x" not in path.coding.left_out


def test_a_column_of_numbers_with_a_bad_cell_is_no_category(tmp_path):
    frame = people(1000).select("age", "y").with_columns(pl.col("age").cast(pl.String))
    frame[700, "age"] = "x"
    frame.write_csv(tmp_path / "t.csv")
    message = "row 701, column 'age' of .*t.csv = 'x'; .*take the column as a category: --category age"
    with pytest.raises(InputError, match=message):
        read_whole(tmp_path / "t.csv", ["y"])
    with pytest.raises(InputError, match=r"X\[700, 'age'\] = 'x'"):
        wd.ridge_path(frame.drop("y"), frame["y"])


BAD = {
    "a level in every row": (
        {},
        {"category": ["who"]},
        "a level of its own in every row: column 'who' of .* = 60 lev",
    ),
    "no column": ({}, {"category": ["sity"]}, "no such column: category = 'sity'; is 'city' meant?"),
    "two options": (
        {},
        {"category": ["city"], "number": ["city"]},
        "as category and as number: category = 'city'",
    ),
    "the target": ({}, {"category": ["y"]}, "a column is named as target and as category: category = 'y'"),
    "dates": (
        {"d": ["2020-03-04", "2021-01-01"] * 30},
        {},
        "a column of dates: column 'd' of .*--drop d leaves it",
    ),
    "day or month": (
        {"d": ["03/04/2020", "05/06/2020"] * 30},
        {"dates": "days"},
        "the day and the month cannot be told apart: column 'd' of .* = '03/04/2020'; write them as",
    ),
    "no such dates": ({}, {"dates": "weeks"}, "dates = 'weeks'"),
    "no such way": ({}, {"missing": "zero"}, "missing = 'zero'"),
    "missing": (
        {"age": [None, 1.0, 2.0] * 20, "city": ["rome", "oslo", None] * 20},
        {},
        "row 1, column 'age' of .* = empty; missing cells: 'age' 20, 'city' 20, in 40 of 60 rows; --missing",
    ),
    "missing texts": (
        {"city": ["rome", "oslo", None] * 20},
        {},
        "row 3, column 'city' of .* = empty; missing cells: ",
    ),
    "all rows": (
        {"age": [None, 1.0] * 30, "smokes": ["yes", None, "no", None] * 15},
        {"missing": "drop"},
        "hardly a row is left: the others have missing cells: .* 0 of 60 rows",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_named(tmp_path, name):
    changes, options, message = BAD[name]
    frame = people().drop("since").with_columns(**{k: pl.Series(v) for k, v in changes.items()})
    frame.write_csv(tmp_path / "t.csv")
    with pytest.raises(InputError, match=message) as caught:
        read_whole(tmp_path / "t.csv", ["y"], options=ColumnOptions(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changed", ["missing", "missing texts"])
def test_missing_cells_of_a_frame_are_counted_as_those_of_a_file(tmp_path, changed):
    frame = people().drop("since").with_columns(**{k: pl.Series(v) for k, v in BAD[changed][0].items()})
    frame.write_csv(tmp_path / "t.csv")
    with pytest.raises(InputError) as of_file:
        wd.ridge_path(tmp_path / "t.csv", "y")
    with pytest.raises(InputError) as of_frame:
        wd.ridge_path(frame.drop("y"), frame["y"])
    counts = of_frame.value.remedy.split(";")[0]
    assert counts in of_file.value.remedy
    assert counts.startswith("missing cells: ")
    assert of_frame.value.remedy.endswith("missing='mean' puts in the means of the training rows")
    number = (
        people().select("age").with_columns(age=pl.when(pl.int_range(60) < 7).then(None).otherwise("age"))
    )
    with pytest.raises(InputError, match=r"X\[0, 'age'\] = nan; missing cells: 'age' 7, in 7 of 60 rows; "):
        wd.ridge_path(number, frame["y"])


def test_what_is_read_to_learn_the_columns_is_not_read_again(tmp_path, monkeypatch):
    """Also columns whose first rows are empty or alike, so that they seem no numbers until all is read."""
    monkeypatch.setattr("weightdecay.tables.columns.SAMPLE", 20)
    monkeypatch.setattr(csv_blocks, "BYTES", 600)
    calls, frames = [], csv_blocks.frames
    monkeypatch.setattr(csv_blocks, "frames", lambda *a, **k: calls.append(a) or frames(*a, **k))
    place = pl.int_range(60)
    frame = (
        people()
        .select("age", "city", "y", "smokes")
        .with_columns(
            late=pl.when(place < 33).then(0.0).otherwise(place / 7),
            first=pl.when(place > 22).then(pl.format("1,{}", 100 + place)),
        )
    )
    frame.write_csv(tmp_path / "t.csv")
    said = ColumnOptions(missing="drop")
    table = read_whole(tmp_path / "t.csv", ["y"], options=said)
    assert len(calls) == 2  # the first rows, and all
    assert table.coding.numbers == ("age", "late", "first")
    blocks = list(open_source(tmp_path / "t.csv", "y", options=said).blocks())
    np.testing.assert_array_equal(table.X.to_numpy(), torch.cat([block.X for block in blocks]))
    np.testing.assert_array_equal(table.X["first"].to_numpy()[23:], 1100 + np.arange(23, 60))
    np.testing.assert_array_equal(table.X["late"], frame["late"])


@pytest.mark.parametrize("counted", [5, 200])
def test_texts_of_which_there_are_many(tmp_path, monkeypatch, counted):
    """They are no longer told apart; what is missing is still counted."""
    monkeypatch.setattr("weightdecay.tables.columns.COUNTED", counted)
    monkeypatch.setattr(csv_blocks, "BYTES", 300)
    who = [None if j % 9 == 4 else f"person {j % 10}" for j in range(100)]
    pl.DataFrame({"who": who, "y": range(0, 200, 2)}).write_csv(tmp_path / "t.csv")
    who = look_at(tmp_path / "t.csv").columns[0]
    assert (who.role, who.missing) == ("identifier" if counted == 5 else "category", 11)


def test_numbers_of_many_values_are_no_category(tmp_path):
    random = np.random.default_rng(0)
    frame = pl.DataFrame({"x": random.integers(0, 10_000, 20_000), "y": random.normal(size=20_000)})
    frame.write_csv(tmp_path / "t.csv")
    message = (
        r"a category of more than 1,000 levels: column 'x' of .* = 8,\d\d\d levels; leave it out \(--drop x\)"
    )
    with pytest.raises(InputError, match=message):
        read_whole(tmp_path / "t.csv", ["y"], options=ColumnOptions(category=("x",)))


def test_a_table_of_one_column(tmp_path):
    (tmp_path / "t.csv").write_text("y\n1\n2\n4\n")
    with pytest.raises(InputError, match=r"the table has no column besides the target: .*t\.csv; give it"):
        read_whole(tmp_path / "t.csv", ["y"])
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{j},{j % 3}\n" for j in range(12)))
    assert read_whole(tmp_path / "t.csv", ["y"]).coding.features == ("x",)  # the only input may count


def test_a_level_that_no_training_row_has(tmp_path):
    """Its column is zero there, and so is its coefficient: rows of it are predicted as if it were not."""
    frame = (
        people(30)
        .select("age", "city", "y")
        .with_columns(city=pl.Series(["oslo"] * 12 + ["rome"] * 12 + ["paris"] * 6))
    )
    folds = np.array([0] * 12 + [1] * 12 + [2] * 6)
    path = wd.ridge_path(frame.drop("y"), frame["y"], [0.1], cv=folds, standardize=True)
    seen, held = frame[:24], frame[24:]
    part = wd.ridge_path(seen.drop("y"), seen["y"], [0.1 * 30 / 24], cv=3, standardize=True)
    X = np.column_stack([held["age"], np.zeros((6, 2))])
    np.testing.assert_allclose(path.out_of_fold(0.1)[24:], part.predict(X), rtol=1e-10)


def test_a_model_takes_the_raw_table(tmp_path):
    """Also one with an unseen level, by name, in another order, without what was left out."""
    frame = people().drop("since")
    frame.write_csv(tmp_path / "t.csv")
    done = here("fit", "t.csv", "--target", "y", "--out", "a", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = {column["name"]: column["role"] for column in json.loads(done.stdout)["columns"]}
    assert listed == roles(look_at(tmp_path / "t.csv")) | {"y": "target"}
    new = frame.select("kind", "smokes", "city", "age").with_columns(
        city=pl.when(pl.int_range(60) == 3).then(pl.lit("Oslo")).otherwise("city")
    )
    new.write_parquet(tmp_path / "new.parquet")
    done = here("predict", "a", "new.parquet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "the fit has not seen this level: row 4, column 'city' of new.parquet = 'Oslo'; is 'oslo' meant?"
        in done.stderr
    )
    done = here("predict", "a", "new.parquet", "--unseen", "base", "--out", "p.parquet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    base = frame["city"].mode().sort()[0]
    model = wd.load(tmp_path / "a" / "model.json")
    right = model.predict(new.with_columns(city=pl.col("city").replace("Oslo", base)))
    np.testing.assert_array_equal(pl.read_parquet(tmp_path / "p.parquet")["y_predicted"], right)
    np.testing.assert_array_equal(model.predict(new, unseen="base"), right)
    np.testing.assert_allclose(
        wd.load(tmp_path / "a").predict(frame.drop("y")), model.predict(frame.drop("y"))
    )


def test_the_columns_are_listed_without_a_target(tmp_path):
    people().write_csv(tmp_path / "t.csv")
    done = here("fit", "t.csv", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[2].split()[:2] == ["city", "category"]
    assert "an input for each of 3 levels" in lines[2]
    assert lines[-2].startswith("to be decided: a column of dates: column 'since' of t.csv = '20")
    assert lines[-1] == "next, with the column to predict: weightdecay fit t.csv --target COLUMN"
    assert not (tmp_path / "runs").exists()
    done = here("fit", "t.csv", "--json", cwd=tmp_path)
    assert {column["name"]: column["role"] for column in json.loads(done.stdout)["columns"]}["id"] == "index"
    done = here("fit", "t.csv", "--target", "y", "--dates", "days", cwd=tmp_path)
    assert done.stderr.splitlines()[0].split()[:2] == ["id", "index"]


def test_what_is_listed_can_be_typed(tmp_path):
    """Names and paths with blanks, brackets and commas, quoted for a shell; a level of missing cells."""
    name, file = "Delta 13 C, (o/oo)", "the birds.csv"
    city = pl.when(pl.int_range(60) % 9 != 4).then("city").alias("city")
    people().select("age", city, pl.col("y").alias(name)).write_csv(tmp_path / file)
    done = here("fit", file, "--missing", "mean", cwd=tmp_path)
    assert "text: an input for each of 3 levels, one for missing cells (" in done.stdout.splitlines()[1]
    command = done.stdout.splitlines()[-1].partition(": ")[2]
    assert command == "weightdecay fit 'the birds.csv' --target COLUMN"
    command = command.replace("COLUMN", typed_name(name))
    assert here(*shlex.split(command)[1:], "--missing", "mean", cwd=tmp_path).returncode == 0


def test_it_is_said_whose_missing_cell_leaves_a_row_out(tmp_path):
    frame = people().select("age", "city", pl.lit(2.0).alias("w"), y=pl.when(pl.int_range(60) > 1).then("y"))
    frame = frame.with_columns(age=pl.when(pl.int_range(60) > 5).then("age"))
    frame.write_csv(tmp_path / "t.csv")
    line = ("fit", "t.csv", "--target", "y", "--cv", 3, "--lambda", 0.1, "--force")
    out = "left out: 2 of 60 rows, whose target is missing"
    assert out in here(*line, "--missing", "mean", "--drop", "w", cwd=tmp_path).stderr
    with pytest.warns(wd.WeightDecayWarning, match=out):
        wd.ridge_path(frame.drop("y", "w"), frame["y"], [0.1], cv=3, missing="mean")
    frame = frame.with_columns(w=pl.when(pl.int_range(60) != 7).then(1.0 + pl.int_range(60) % 2))
    frame.write_csv(tmp_path / "t.csv")
    out = "left out: 3 of 60 rows, whose target or weight is missing"
    assert out in here(*line, "--missing", "mean", "--weights", "w", cwd=tmp_path).stderr


def test_rows_with_missing_cells_are_dropped_and_counted(tmp_path):
    frame = (
        people()
        .drop("since")
        .with_columns(
            age=pl.when(pl.int_range(60) % 7 == 3).then(None).otherwise("age"),
            city=pl.when(pl.int_range(60) % 11 == 5).then(pl.lit("?")).otherwise("city"),
            y=pl.when(pl.int_range(60) == 50).then(None).otherwise("y"),
        )
    )
    frame.write_csv(tmp_path / "t.csv")
    full = frame.filter(pl.col("age").is_not_null() & (pl.col("city") != "?") & pl.col("y").is_not_null())
    out = f"{60 - len(full)} of 60 rows have a missing cell and are left out"
    for way in ((), ("--out-of-core",)):
        done = here(
            "fit",
            "t.csv",
            "--target",
            "y",
            "--missing",
            "drop",
            "--cv",
            3,
            "--lambda",
            0.1,
            *way,
            "--out",
            "a",
            "--force",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert out in done.stderr
        held = pl.read_parquet(tmp_path / "a/out_of_fold.parquet")
        np.testing.assert_array_equal(held["measured"], full["y"])
        path = wd.load(tmp_path / "a")
        assert path.n == len(full)
        names, X = coded(full.with_columns(since=pl.lit("2020-01-01")))
        keep = [j for j, name in enumerate(names) if name != "since"]
        folds = held["fold"].to_numpy()
        right = wd.ridge_path(X[:, keep], full["y"].to_numpy(), [0.1], cv=folds, standardize=True)
        np.testing.assert_allclose(path.coef(0.1), right.coef(0.1), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(held["prediction"], right.out_of_fold(0.1), rtol=1e-10)


def test_kept_models_have_no_coding():
    model = wd.load("tests/kept/model")
    assert model.coding is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict(torch.zeros(2, len(model.coef))).shape[0] == 2
