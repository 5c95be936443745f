"""The model: predictions by name, intervals, and the two files that hold it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from weightdecay.errors import InputError
from weightdecay.ridge.model import predict_file
from weightdecay.ridge.path import ridge_path
from weightdecay.ridge.table_fit import Request, fit_table
from weightdecay.saving import load
from weightdecay.select import student_t

# Curves that are flat, or fall to an edge of the grid, are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")


def table(n=40, p=4, targets=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64) * torch.arange(1, p + 1) + 3
    noise = torch.randn(n, targets, generator=generator, dtype=torch.float64)
    y = X[:, :1] + 2 * torch.arange(targets) + 0.5 * noise
    return pl.DataFrame(X.numpy(), schema=list("abcdefgh"[:p])), pl.DataFrame(
        y.numpy(), schema=[f"y{t}" for t in range(targets)]
    )


def pandas(frame):
    """Without pyarrow, which polars would use."""
    return pd.DataFrame(frame.to_dict(as_series=False))


@pytest.fixture(scope="module")
def model():
    X, y = table()
    return ridge_path(X, y["y0"], [0.1, 1.0, 10.0]).model(0.1)


def test_a_table_is_matched_by_name_in_any_order(model):
    X, _ = table()
    expected = torch.from_numpy(X.to_numpy()) @ model.coef + model.intercept
    for given in (X, X.select("d", "b", "a", "c"), pandas(X)[["c", "a", "d", "b"]], X.to_numpy()):
        torch.testing.assert_close(model.predict(given), expected, rtol=1e-13, atol=1e-13)
    whole = X.select(pl.all().round().cast(pl.Int32)).select("b", "d", "c", "a")
    rounded = torch.from_numpy(X.to_numpy().round()) @ model.coef + model.intercept
    torch.testing.assert_close(model.predict(whole), rounded, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda X: X.drop("b"), r"a column is missing: X = 'b'; give every column"),
        (lambda X: X.drop("b", "c"), r"columns are missing: X = 'b', 'c'"),
        (lambda X: X.rename({"b": "bb"}), r"is missing: X = 'b'; is 'b' called 'bb' there"),
        (lambda X: X.with_columns(z=1), r"not known to the model: X = 'z'"),
        (lambda X: pd.concat([pandas(X), pandas(X)[["a"]]], axis=1), r"one name: X = 'a'"),
        (lambda X: X.with_columns(b=pl.lit("x")), r"a cell is not a number: X\[0, 'b'\] = 'x'"),
        (lambda X: X.with_columns(b=pl.lit(None)), r"empty, not finite .*X\[0, 'b'\] = nan"),
        (lambda X: pandas(X).replace({"c": {X["c"][7]: np.inf}}), r"X\[7, 'c'\] = inf"),
        (lambda X: X.to_numpy()[:, :3], r"the wrong shape: X = \(40, 3\); give \(rows, 4\)"),
        (lambda X: X.to_numpy()[0], r"the wrong shape: X = \(4,\)"),
        (lambda X: X.to_numpy() + 1j, r"complex values are not supported"),
    ],
)
def test_columns_that_do_not_fit_are_refused_by_name(model, given, message):
    with pytest.raises(InputError, match=message):
        model.predict(given(table()[0]))


def test_intervals_are_those_of_the_textbook(model):
    """At λ → 0: ŷ ± t s √(1 + 1/n + d'(Z'Z)^-1 d), with n − p − 1 degrees of freedom."""
    X, y = table()
    small = ridge_path(X, y["y0"], [1e-9]).model()
    low, high = small.interval(X, 0.95)
    n, p = X.shape
    A = np.column_stack([np.ones(n), X.to_numpy()])
    beta, rss = np.linalg.lstsq(A, y["y0"].to_numpy())[:2]
    s = np.sqrt(rss[0] / (n - p - 1))
    leverage = np.einsum("ij,jk,ik->i", A, np.linalg.inv(A.T @ A), A)
    half = 2.030107928 * s * np.sqrt(1 + leverage)  # t of 35 degrees of freedom, from a table
    np.testing.assert_allclose(low, A @ beta - half, rtol=1e-6)
    np.testing.assert_allclose(high, A @ beta + half, rtol=1e-6)


def test_intervals_hold_what_they_promise():
    """New measurements of the same design: 90 % of them inside, of several targets each."""
    X, y = table(400, 6, targets=3)
    more, measured = table(4000, 6, targets=3, seed=1)
    fitted = ridge_path(X, y, [1e-3, 1e-2], shared=True).model()
    low, high = fitted.interval(more, 0.9)
    seen = torch.from_numpy(measured.to_numpy())
    share = ((low < seen) & (seen < high)).double().mean(0)
    assert low.shape == (4000, 3)
    assert bool(((share - 0.9).abs() < 0.02).all()), share


def test_intervals_that_cannot_be_had_say_why(model):
    X, y = table(targets=2)
    with pytest.raises(InputError, match="not a probability"):
        model.interval(X, 90)
    apart = ridge_path(X, y, [0.1, 1.0]).model(torch.tensor([0.1, 1.0], dtype=torch.float64))
    with pytest.raises(InputError, match=r"no intervals .*different λ"):
        apart.interval(X)
    X, y = table(5, 8)
    with pytest.raises(InputError, match=r"no degrees of freedom are left .*n − dof = "):
        ridge_path(X, y["y0"], [1e-9], cv="loo").model().interval(X)


@pytest.mark.parametrize("targets", [1, 2])
def test_a_model_comes_back_from_its_files_to_the_bit(tmp_path, targets):
    X, y = table(targets=targets)
    fitted = ridge_path(X, y["y0"] if targets == 1 else y, [0.1, 1.0, 10.0], shared=True).model()
    paths = fitted.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in paths) == ["model.json", "model.safetensors"]
    assert sorted(paths) == sorted((tmp_path / "new" / "folder").iterdir())
    again = load(tmp_path / "new" / "folder")
    assert torch.equal(again.predict(X), fitted.predict(X))
    for ends in zip(again.interval(X), fitted.interval(X), strict=True):
        assert torch.equal(*ends)
    for name in ("features", "targets", "lam", "unit", "alpha", "n", "dof", "settings"):
        assert getattr(again, name) == getattr(fitted, name), name
    for name in ("coef", "intercept", "noise_sd", "mean", "scale"):
        assert torch.equal(getattr(again, name), getattr(fitted, name)), name
    record = json.loads((tmp_path / "new" / "folder" / "model.json").read_text())
    assert record["features"] == list("abcd")
    np.testing.assert_allclose(record["means"], X.mean().row(0))
    np.testing.assert_allclose(record["scales"], X.std(ddof=0).row(0))
    assert {"weightdecay", "torch", "python"} <= set(record["environment"])
    assert (record["n"], record["unit"]) == (40, "canonical")
    before = {path: path.read_bytes() for path in paths}
    again.save(tmp_path / "new" / "folder")
    assert {path: path.read_bytes() for path in paths} == before


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
            "cut short",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "cut short"),
        (lambda f: (f / "model.safetensors").unlink(), r"cannot be read.*model\.safetensors"),
        (lambda f: (f / "model.json").unlink(), r"cannot be read.*model\.json"),
        (lambda f: (f / "model.json").write_text((f / "model.json").read_text()[:-40]), "not JSON"),
        (lambda f: (f / "model.json").write_text('{"kind": "textbook"}'), "not a ridge model"),
        (lambda f: (f / "model.json").write_text("[]"), "not a ridge model"),
        (lambda f: changed(f, version=2), "another version"),
        (lambda f: changed(f, features=None, unit=...), "a field is missing or wrong"),
    ],
)
def test_files_that_are_cut_short_or_of_others_are_refused(model, tmp_path, harm, message):
    model.save(tmp_path)
    harm(tmp_path)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "model.json")


def changed(folder, **values):
    record = json.loads((folder / "model.json").read_text()) | values
    left = {name: value for name, value in record.items() if value is not ...}
    (folder / "model.json").write_text(json.dumps(left))


def test_files_of_two_models_do_not_pass_for_one(model, tmp_path):
    X, y = table()
    model.save(tmp_path / "a")
    ridge_path(X, y["y0"], [5.0]).model().save(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "model.safetensors", tmp_path / "b")
    with pytest.raises(InputError, match=r"not the file that model\.json was written with"):
        load(tmp_path / "b")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs resource limits")
def test_a_disk_that_fills_leaves_the_model_that_was_there(model, tmp_path):
    """In a process whose files may not grow over 60 kB: new tensors are larger, the old model stays."""
    model.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    script = (
        "import resource, sys, torch, weightdecay as wd\n"
        "from weightdecay.ridge.path import ridge_path\n"
        "X = torch.randn(50, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)\n"
        "model = ridge_path(X, X[:, 0], [1.0]).model()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "try: model.save(sys.argv[1])\n"
        "except wd.InputError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert "a file cannot be written" in done.stdout, done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_quantiles_of_student_are_those_of_the_tables():
    for level, freedom, value in (
        (0.9, 1, 6.313751515),
        (0.95, 2, 4.302652730),
        (0.99, 5, 4.032142984),
        (0.9, 30, 1.697260887),
        (0.95, 120, 1.979930405),
        (0.5, 4.5, 0.7327883),  # between the tables' 0.741 (4) and 0.727 (5)
    ):
        assert student_t(level, freedom) == pytest.approx(value, rel=2e-3 if freedom == 4.5 else 1e-8)


def test_rows_outside_the_training_range_are_marked_and_counted(tmp_path):
    """Against a comparison cell by cell, in a CSV and in Parquet, in several blocks."""
    X, y = table(60)
    frame = X.with_columns(y=y["y0"], only=pl.Series([0.0, 1.0] * 30))
    frame.write_csv(tmp_path / "t.csv")
    fit = fit_table(Request(str(tmp_path / "t.csv"), ("y",)), tmp_path)
    new = frame.drop("y").with_columns(
        a=pl.when(pl.int_range(60).is_in([3, 7, 8])).then(frame["a"].max() + 0.1).otherwise("a"),
        c=pl.when(pl.int_range(60) == 7).then(frame["c"].min() - 0.1).otherwise("c"),
        d=pl.when(pl.int_range(60) == 9).then(frame["d"].max() * (1 + 1e-12)).otherwise("d"),  # rounding
    )
    right = [2 if row == 7 else int(row in (3, 8)) for row in range(60)]
    for name, write in (("n.csv", new.write_csv), ("n.parquet", new.write_parquet)):
        write(tmp_path / name)
        done = predict_file(fit.model, tmp_path / name, tmp_path / f"{name}.out.parquet", 0.9)
        found = pl.read_parquet(tmp_path / f"{name}.out.parquet")
        assert found["outside"].to_list() == right
        assert (done.outside, dict(done.outside_of)) == (3, {"a": 3, "c": 1})
        assert done.notes[-1].startswith("outside the range of the training rows: 3 of 60 rows")
        assert "by input: 'a' 3, 'c' 1;" in done.notes[-1]
        assert "60 行中有 3 行" in done.notes[-1].zh
    assert fit.model.outside(new.select(fit.model.features)).sum(1).tolist() == right
    fit.model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert torch.equal(again.ranges, fit.model.ranges)
    # A model of an earlier version knows no ranges, and says nothing of them.
    replace(fit.model, ranges=None).save(tmp_path / "old")
    old = load(tmp_path / "old")
    done = predict_file(old, tmp_path / "n.csv", tmp_path / "old.csv")
    assert (done.outside, done.columns, done.notes) == (None, ("row", "y_predicted"), ())
    with pytest.raises(InputError, match="ranges of the training rows were not kept"):
        old.outside(new.select(fit.model.features))


def test_the_range_is_that_of_the_rows_that_were_fitted(tmp_path, monkeypatch):
    """Rows of weight 0 are no training rows, nor are missing cells values; in memory and in blocks."""
    monkeypatch.chdir(tmp_path)
    X, y = table(60)
    frame = X.with_columns(y=y["y0"], w=pl.Series([0.0] * 5 + [1.0] * 55), g=pl.Series(["u", "v", "w"] * 20))
    frame = frame.with_columns(a=pl.when(pl.int_range(60) < 5).then(1e3).otherwise("a"))
    frame.write_parquet("t.parquet")
    for block in (False, True):
        request = Request("t.parquet", ("y",), weights="w", out_of_core=block, cv=5)
        model = fit_table(request, tmp_path).model
        right = frame.filter(pl.col("w") > 0).select("a", "b", "c", "d")
        np.testing.assert_array_equal(model.ranges[:, :4], [right.min().row(0), right.max().row(0)])
        assert model.ranges[:, 4:].tolist() == [[0.0] * 3, [1.0] * 3]
    holes = frame.with_columns(b=pl.when(pl.int_range(60) % 4 == 0).then(None).otherwise("b"))
    holes.write_csv("h.csv")
    model = fit_table(Request("h.csv", ("y",), weights="w", missing="mean"), tmp_path).model
    mark = model.features.index("b=missing")
    used = holes.filter(pl.col("w") > 0)
    place = model.features.index("b")
    assert model.ranges[:, place].tolist() == [used["b"].min(), used["b"].max()]
    assert model.ranges[:, mark].tolist() == [0.0, 1.0]
    predict_file(model, "h.csv", "p.csv", ids=[])
    beyond = [
        (holes[name] < used[name].min()) | (holes[name] > used[name].max()) for name in ("a", "b", "c", "d")
    ]
    right = pl.DataFrame(
        [flag.fill_null(value=False).cast(int).alias(str(k)) for k, flag in enumerate(beyond)]
    )
    assert pl.read_csv("p.csv")["outside"].to_list() == right.sum_horizontal().to_list()
    assert sum(right.row(0)) == 1
