"""Columns that determine the target, and rows that stand in several folds, by every way in."""

import json

import numpy as np
import polars as pl
import pytest
import scipy.sparse
import torch
from tests.commands import here

import weightdecay as wd
from weightdecay.ridge.leaks import repeated
from weightdecay.text import Text

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")


def table(n=60, p=4, near=1e-2, seed=0):
    """Inputs a, b, … of which `near` follows the target in other units, up to noise of that size."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p))
    y = X[:, 0] + random.normal(size=n)
    frame = pl.DataFrame(X, schema=list("abcdefgh"[:p]))
    return frame.with_columns(y=y, near=40 - 2.54 * (y + near * random.normal(size=n)))


def leaks(path):
    return [doubt for doubt in path.doubts if "determined by" in doubt or "target itself" in doubt]


@pytest.mark.parametrize("way", ["arrays", "frame", "csv", "parquet", "float32"])
@pytest.mark.parametrize("n", [12, 400])
@pytest.mark.parametrize("cv", ["loo", 3])
def test_a_column_that_determines_the_target_is_said_by_every_way_in(tmp_path, way, n, cv):
    for near, said in ((1e-2, True), (1e-1, False)):
        frame = table(n, near=near)
        X, y = frame.drop("y"), frame["y"]
        r = float(np.corrcoef(frame["near"], y)[0, 1])
        assert (abs(r) > 0.999) == said
        frame.write_csv(tmp_path / "t.csv")
        frame.write_parquet(tmp_path / "t.parquet")
        given = {
            "arrays": (X.to_numpy(), y.to_numpy()),
            "frame": (X, y),
            "csv": (tmp_path / "t.csv", "y"),
            "parquet": (tmp_path / "t.parquet", "y"),
            "float32": (X.to_numpy().astype(np.float32), y.to_numpy()),
        }[way]
        found = leaks(wd.ridge_path(*given, [0.1, 1.0], cv=cv, standardize=True))
        assert len(found) == said
        if said:
            column = "'near'" if way in ("frame", "csv", "parquet") else "X[:, 4]"
            target = "y" if way in ("arrays", "float32") else "'y'"
            assert found[0].startswith(f"{target} is almost determined by {column} (r = {r:.6f}"[:-3])
            assert isinstance(found[0], Text)
            assert column in found[0].zh


def test_weights_count_and_rows_without_one_do_not():
    frame = table(50)
    spoiled = frame.with_columns(near=pl.when(pl.int_range(50) < 5).then(1e3).otherwise("near"))
    X, y, weights = spoiled.drop("y"), spoiled["y"], np.where(np.arange(50) < 5, 0.0, 1.0)
    assert leaks(wd.ridge_path(X, y, [1.0])) == []
    assert len(leaks(wd.ridge_path(X, y, [1.0], sample_weight=weights))) == 1


def test_wide_tables_and_several_targets():
    random = np.random.default_rng(0)
    X, Y = random.normal(size=(30, 5000)), random.normal(size=(30, 2))
    X[:, [7, 70, 700, 4000]] = Y[:, [1]] * [1, -2, 3, 4] + 1e-3 * random.normal(size=(30, 4))
    found = leaks(wd.ridge_path(X, Y, [0.1, 1.0], cv="loo"))
    assert len(found) == 1
    assert found[0].startswith("y[:, 1] is almost determined by X[:, ")
    assert " and 1 more: " in found[0]


def test_few_rows_come_close_by_chance():
    """Of 9 rows one of 200,000 columns may come near; only an equal one is reported."""
    random = np.random.default_rng(0)
    X, y = random.normal(size=(9, 5)), random.normal(size=9)
    X[:, 2] = 3 * y
    assert leaks(wd.ridge_path(X, y, [1.0], cv="loo")) == []
    X[:, 2] = y
    assert len(leaks(wd.ridge_path(X, y, [1.0], cv="loo"))) == 1


def test_copies_are_counted_where_they_are_in_different_folds():
    """Against every pair of rows."""
    random = np.random.default_rng(0)
    for seed in range(20):
        n = 30
        X = pl.DataFrame(random.integers(0, 2, size=(n, 4)).astype(float))
        y = pl.DataFrame({"y": random.integers(0, 2, size=n).astype(float)})
        folds = pl.Series("fold", random.integers(1, 4, size=n))
        cells = np.column_stack([X, y])
        same = (cells[:, None] == cells).all(2) & (folds.to_numpy()[:, None] != folds.to_numpy())
        alone = (cells[:, None] == cells).all(2).sum(1) > 1
        rows = pl.Series("row", np.arange(1, n + 1) * 2)
        for held, right in ((folds, same.any(1)), (None, alone)):
            (found,) = repeated(X, y, rows, held)
            assert found.startswith(f"{right.sum()} of 30 rows stand in another fold, too"), seed
        assert repeated(X, y, rows, pl.Series([1] * n)) == ()
    assert repeated(pl.DataFrame({"a": [0.0, 1.0]}), pl.DataFrame({"y": [1.0, 1.0]}), rows[:2], None) == ()


def test_fit_says_so_and_groups_are_the_way_out(tmp_path):
    frame = table(40).drop("near").with_columns(who=pl.int_range(40) % 23 + 100)
    pl.concat([frame, frame[3:9]]).write_csv(tmp_path / "t.csv")
    arguments = ("fit", "t.csv", "--target", "y", "--cv", 4)
    said = here(*arguments, "--drop", "who", "--out", "a", cwd=tmp_path)
    assert "note: " in said.stderr
    assert "of 46 rows stand in another fold, too, with the same inputs and target, rows " in said.stderr
    assert any(
        "stand in another fold" in note
        for note in json.loads((tmp_path / "a/path.json").read_text())["doubts"]
    )
    grouped = here(*arguments, "--groups", "who", "--out", "b", cwd=tmp_path)
    assert (grouped.returncode, "another fold" in grouped.stderr) == (0, False)


def test_correlations_of_every_route_are_those_of_numpy():
    random = np.random.default_rng(0)
    for n, p, cv in ((40, 6, 4), (2000, 60, 4), (60, 3000, 4), (60, 3000, "loo")):
        X, Y, w = random.normal(size=(n, p)) + 5, random.normal(size=(n, 2)), random.uniform(0.1, 3, n)
        X[:, 1] = 3.0
        path = wd.ridge_path(X, Y, [1.0], cv=cv, sample_weight=w)
        found = path._solver.correlations()
        right = np.cov(X.T, Y.T, aweights=w, ddof=0)[:p, p:]
        scale = np.outer(
            np.cov(X.T, aweights=w, ddof=0).diagonal(), np.cov(Y.T, aweights=w, ddof=0).diagonal()
        )
        assert bool(found[1].isnan().all())
        there = np.arange(p) != 1
        np.testing.assert_allclose(found[there], right[there] / np.sqrt(scale[there]), rtol=1e-9, atol=1e-12)
        assert torch.isfinite(found[2:]).all()


def test_correlations_of_sparse_inputs_and_a_leak_among_them():
    random = np.random.default_rng(0)
    dense = random.normal(size=(80, 300)) * (random.uniform(size=(80, 300)) < 0.05)
    dense[:, 5] = random.normal(size=80)  # a crowded column
    y = random.normal(size=80)
    y[random.uniform(size=80) < 0.8] = 0.0
    dense[:, 9] = 2 * y
    for cv in ("loo", 4):
        path = wd.ridge_path(scipy.sparse.csr_array(dense), y, [0.1, 1.0], cv=cv)
        right = wd.ridge_path(dense, y, [0.1, 1.0], cv=cv)
        torch.testing.assert_close(
            path._solver.correlations(), right._solver.correlations(), rtol=1e-9, atol=1e-12, equal_nan=True
        )
        assert leaks(path) == leaks(right)
        assert len(leaks(path)) == 1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e7, 1e9])
@pytest.mark.parametrize("shape", [(200, 30), (40, 90), (3000, 5)])
def test_correlations_of_columns_far_from_zero(shape, offset, weighted):
    """By NumPy's, in any route; rounding of a mean is 1e-16 of it, and is measured by the deviation."""
    random = np.random.default_rng(0)
    X = random.normal(size=shape) + offset
    y = X[:, :3].sum(1) + random.normal(size=len(X))
    weights = random.uniform(0.5, 2, size=len(X)) if weighted else None
    path = wd.ridge_path(X, y, cv=3, sample_weight=weights)
    covariance = np.cov(np.column_stack([X, y]).T, aweights=weights, ddof=0)
    expected = covariance[:-1, -1] / np.sqrt(np.diag(covariance)[:-1] * covariance[-1, -1])
    got = path._solver.correlations()[:, 0].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-8 + 1e-15 * offset, rtol=0)
    assert leaks(path) == []
