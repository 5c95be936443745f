"""One table in every file of `ordinary.py` and by every other way in: the same columns, the same numbers."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from tests.tables.ordinary import ORDINARY, small_table

import weightdecay as wd
from weightdecay.ridge.folds import fold_ids
from weightdecay.ridge.path import fit_path
from weightdecay.ridge.problem import Inputs, RidgeOptions, tensor_of
from weightdecay.ridge.sklearn import RidgePathCV
from weightdecay.tables.columns import ColumnOptions
from weightdecay.tables.source import new_rows, open_source, read_whole

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
ROWS, LAM = 60, [1.0]
PATH = {"cv": 3, "unit": "sklearn.Ridge", "standardize": True}


def mixed(holes=False):
    """The small table, and an index, a category of rare levels, names and a constant; or also empty cells."""
    place = pl.int_range(pl.len())
    frame = small_table(texts=True, rows=ROWS).with_columns(
        (1 + place).alias("id"),
        pl.Series("kind", [*(["a", "b"] * ROWS)[: ROWS - 3], "c", "c", "d"]),
        pl.format("person {}", place).alias("who"),
        pl.lit("kg").alias("unit"),
    )
    if holes:
        every = {"b": 13, "price": 23, "city": 17, "member": 19, "day": 29}
        frame = frame.with_columns(
            pl.when(place % k != 5).then(pl.col(name)).alias(name) for name, k in every.items()
        )
    return frame


def coded(frame):
    """By hand: the inputs' names and numbers, NaN where a cell is empty."""

    def levels(name, *values):
        return {f"{name}={value}": frame[name] == value for value in values}

    days = frame["day"].str.to_date()
    columns = {
        **{name: frame[name] for name in ("größe", "b", "price")},
        **levels("city", "Köln", "Málaga", "Paris", "Zürich"),
        "member": frame["member"] == "yes",
        "day": (days - days.min()).dt.total_days(),
        **levels("kind", "a", "b"),
        "kind=(rare)": frame["kind"].is_in(["c", "d"]),
    }
    return list(columns), np.array([column.cast(pl.Float64).to_numpy() for column in columns.values()]).T


@pytest.mark.parametrize("kind", ORDINARY)
def test_every_file(tmp_path, kind, monkeypatch):
    """Read at once, in blocks of a folder's two files, as new rows; and the path out of core."""
    monkeypatch.setattr("weightdecay.tables.columns.SAMPLE", 20)
    frame = mixed(holes=True)
    names, X = coded(frame)
    y, kept = frame["y"].to_numpy(), np.flatnonzero(~np.isnan(X).any(1))
    said = ColumnOptions(dates="days", missing="drop")
    whole = read_whole(ORDINARY[kind].into(tmp_path, frame), ["y"], options=said)
    assert list(whole.coding.features) == names
    assert whole.left_out == ROWS - len(kept)
    np.testing.assert_array_equal(whole.kept.arg_true(), kept)
    np.testing.assert_array_equal(whole.X.to_numpy()[kept], X[kept])
    np.testing.assert_array_equal(whole.y["y"].to_numpy()[kept], y[kept])
    source = open_source(in_two_files(kind, tmp_path / "shards", frame), "y", options=said)
    assert (source.coding, source.columns) == (whole.coding, whole.columns)
    found = []
    for block in source.blocks():
        there = torch.ones(len(block.y)) if block.weights is None else block.weights
        found.append((block.X[there > 0], block.y[there > 0]))
    for parts, right in zip(zip(*found, strict=True), (X[kept], y[kept, None]), strict=True):
        np.testing.assert_array_equal(torch.cat(parts), right)
    filled = ORDINARY[kind].into(tmp_path, frame[kept])
    np.testing.assert_array_equal(
        np.concatenate([rows for _, rows in new_rows(filled, whole.coding, ["y"])]), X[kept]
    )
    path = wd.ridge_path(tmp_path / "shards", "y", LAM, **PATH, dates="days", missing="drop")
    same(path, plain_path(X, y, kept, fold_ids(0, ROWS, 3, 0)))


def in_two_files(kind, folder, frame):
    """The frame's rows as files of a kind in a folder."""
    folder.mkdir()
    for part, rows in enumerate((frame[:37], frame[37:])):
        file = ORDINARY[kind].into(folder, rows)
        file.rename(folder / f"{part}{file.name[1:]}")
    return folder


def plain_path(X, y, kept, folds):
    """The path of numbers alone, in the folds that all rows would have."""
    return wd.ridge_path(X[kept], y[kept], LAM, **{**PATH, "cv": folds.numpy()[kept]})


def same(path, right):
    assert path.n == right.n
    np.testing.assert_allclose(path.scores, right.scores, rtol=1e-12)
    np.testing.assert_allclose(path.coef(1.0), right.coef(1.0), rtol=1e-11, atol=1e-12)


def frames(frame):
    """A table as it comes in memory, texts as texts or all columns typed."""
    day = pl.col("day").str.to_date()
    typed = frame.with_columns(day, pl.col("city").cast(pl.Categorical), member=pl.col("member") == "yes")
    pandas = pd.DataFrame(frame.to_dict(as_series=False))
    nullable = pandas.assign(
        city=pandas["city"].astype("category"),
        b=pandas["b"].astype("Int64"),
        größe=pandas["größe"].astype("Float64"),
        member=pandas["member"].map({"yes": True, "no": False}).astype("boolean"),
        day=pd.to_datetime(pandas["day"]),
    ).set_index(pd.Index(range(7, 7 + len(frame))))
    ways = {"polars": frame, "typed": typed, "lazy": typed.lazy(), "pandas": pandas, "nullable": nullable}
    texts = frame.with_columns(pl.all().cast(pl.String).fill_null(" NA"))
    return {**ways, "texts": texts, "Arrow": Stream(frame)}


class Stream:
    """A table of Arrow, as pyarrow and others give it."""

    def __init__(self, frame):
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema=None):
        return self.frame.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("missing", ["refuse", "drop", "mean"])
def test_every_frame(tmp_path, missing):
    """In memory, by name: the path, its predictions of any other frame, and the estimator."""
    frame = mixed(holes=missing != "refuse")
    names, X = coded(frame)
    said = {"dates": "days", "missing": missing}
    y, kept = frame["y"].to_numpy(), np.arange(ROWS)
    if missing == "drop":
        kept = np.flatnonzero(~np.isnan(X).any(1))
    if missing == "mean":  # empty cells of a category are a level, and `b` has many of them
        city = [name.startswith("city=") for name in names]
        X[:, city] = np.nan_to_num(X[:, city])
        last = names.index("city=Zürich") + 1
        X = np.insert(X, last, frame["city"].is_null().to_numpy(), 1)
        names = [*names[:2], "b=missing", *names[2:last], "city=missing", *names[last:]]
        right = wd.ridge_path(X, y, LAM, **PATH, missing="mean")
    else:
        right = plain_path(X, y, kept, fold_ids(0, ROWS, 3, 0))
    inputs, full = frame.drop("y"), mixed().drop("y")
    paths = {way: wd.ridge_path(given, y, LAM, **PATH, **said) for way, given in frames(inputs).items()}
    for name in ("plain", "Parquet"):
        table = read_whole(ORDINARY[name].into(tmp_path, frame), ["y"], options=ColumnOptions(**said))
        options = RidgeOptions(LAM, **PATH, sample_weight=table.weights, columns=ColumnOptions(**said))
        read = Inputs(tensor_of(table.X, "X"), table.coding, left_out=table.left_out)
        paths[name] = fit_path(read, table.y.to_series(), options)
    predicted = paths["polars"].predict(full, 1.0)
    for way, path in paths.items():
        assert list(path.features) == names, way
        same(path, right)
        for given in frames(full).values():  # and any frame is predicted by any of them
            np.testing.assert_allclose(path.predict(given, 1.0), predicted, rtol=1e-11, atol=1e-12)
    for given in (inputs, *(frames(inputs)[way] for way in ("pandas", "nullable"))):
        model = RidgePathCV(LAM, cv=3, standardize=True, **said).fit(given, y)
        assert list(model.features_) == names
        np.testing.assert_allclose(model.coef_, right.coef(1.0), rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(model.predict(full), predicted, rtol=1e-11, atol=1e-12)


def test_dask(tmp_path):
    """Shards of the least plain kind, with empty cells, on the workers of Dask."""
    pytest.importorskip("distributed")
    frame = mixed(holes=True)
    _, X = coded(frame)
    kept = np.flatnonzero(~np.isnan(X).any(1))
    shards = in_two_files("Windows-1252, decimal comma", tmp_path / "shards", frame)
    path = wd.ridge_path(shards, "y", LAM, **PATH, dates="days", missing="drop", engine="dask")
    same(path, plain_path(X, frame["y"].to_numpy(), kept, fold_ids(0, ROWS, 3, 0)))
