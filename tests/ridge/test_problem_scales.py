"""Columns that are constant up to rounding, numbers near the ends of float64, and arrays of every make."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from tests.fuzz.ridge import lowered

import weightdecay as wd

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
EPS = np.finfo(float).eps


def table(n, p, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 1
    return X, X[:, 0] + rng.normal(size=n)


def jitter(n, value, eps=EPS, seed=1):
    """A value, off by a last digit here and there."""
    return value * (1 + eps * np.random.default_rng(seed).integers(-2, 3, size=n))


# Constant up to rounding.


@pytest.mark.parametrize("bound", ["as they are", "products", "singular values", "blocks of columns"])
@pytest.mark.parametrize("cv", [4, "loo", "gcv"])
@pytest.mark.parametrize("options", ["", "standardize", "weights", "weights standardize", "free standardize"])
@pytest.mark.parametrize("p", [5, 40])
def test_a_column_constant_up_to_rounding_is_constant(p, options, cv, bound):
    """The same path as without it, whichever algorithm there is."""
    X, y = table(24, p)
    X[:, 2] = jitter(24, -0.1)
    kept = np.delete(np.arange(p), 2)
    given, without = ({"cv": cv, "standardize": "standardize" in options} for _ in range(2))
    if "weights" in options:
        w = np.random.default_rng(2).uniform(1e-3, 2, size=24)
        given["sample_weight"] = without["sample_weight"] = w
    if "free" in options:
        factors = np.where(np.arange(p) == 2, 0.0, 1.0)
        given["penalty_factors"] = factors
    grid = np.logspace(-2, 2, 5)
    with lowered(bound):
        path, other = wd.ridge_path(X, y, grid, **given), wd.ridge_path(X[:, kept], y, grid, **without)
    assert path.still == [2]
    assert torch.allclose(path.scores, other.scores, rtol=1e-10, atol=0)
    assert float(path.coef()[2]) == 0
    assert torch.allclose(path.coef()[kept], other.coef(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("p", [5, 40])
def test_the_last_digit_of_float32_is_rounding(p):
    X, y = table(24, p)
    X = X.astype(np.float32)
    X[:, 1] = jitter(24, np.float32(0.1), float(np.finfo(np.float32).eps) / 4)
    assert np.ptp(X[:, 1]) > 0
    path = wd.ridge_path(X, y, [1.0], cv=4, standardize=True)
    assert path.still == [1]
    assert float(path.coef()[1]) == 0


@pytest.mark.parametrize("p", [4, 30])
def test_a_column_that_varies_a_little_is_kept(p):
    """A thousandth of a thousandth of its mean is no rounding: refits agree."""
    X, y = table(24, p)
    X[:, 1] = 1e6 + np.random.default_rng(3).normal(size=24)
    path = wd.ridge_path(X, y, [1.0], cv="loo", standardize=True, unit="sklearn.Ridge")
    moved = X.copy()
    moved[:, 1] -= 1e6
    other = wd.ridge_path(moved, y, [1.0], cv="loo", standardize=True, unit="sklearn.Ridge")
    assert path.still == []
    assert torch.allclose(path.coef(), other.coef(), rtol=1e-7, atol=1e-10)


def test_a_constant_column_without_an_intercept_is_one():
    X, y = table(20, 3)
    X[:, 2] = 1.0
    path = wd.ridge_path(X, y + 5, [1e-9], cv="loo", intercept="none")
    assert float(path.coef()[2]) > 1
    assert not any("do not vary" in note for note in path.notes)


# Near the ends of float64.


@pytest.mark.parametrize("size", [1e-149, 1e-80, 1e80, 1e149])
@pytest.mark.parametrize("cv", [4, "loo", "gcv"])
@pytest.mark.parametrize(("n", "p"), [(12, 30), (30, 5)])
def test_squares_of_squares_may_be_out_of_range(n, p, cv, size):
    X, y = table(n, p)
    grid = np.logspace(-1, 3, 9)
    options = {"cv": cv, "unit": "sklearn.Ridge"}
    right, path = wd.ridge_path(X, y, grid, **options), wd.ridge_path(X, y * size, grid, **options)
    for mine, other in ((path.scores, right.scores), (path.errors, right.errors)):
        assert torch.allclose(mine / size / size, other, rtol=1e-9, atol=0)
    assert (path.best, path.one_se) == (right.best, right.one_se)
    path = wd.ridge_path(X * size, y, grid * size * size, **options)
    assert torch.allclose(path.scores, right.scores, rtol=1e-9, atol=0)
    assert torch.allclose(path.coef(grid[3] * size * size) * size, right.coef(grid[3]), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_a_target_out_of_the_range_of_float32(size):
    X, y = table(30, 4)
    right, path = (wd.ridge_path(X.astype(np.float32), y * c, cv=4) for c in (1.0, size))
    assert torch.allclose(path.scores / size / size, right.scores, rtol=1e-6, atol=0)


@pytest.mark.parametrize("p", [3, 30])
@pytest.mark.parametrize("standardize", [False, True])
def test_what_underflows_is_said(standardize, p):
    X, y = table(20, p)
    X[:, 1] *= 1e-160
    for given, target, place in (
        (X, y, r"X\[:, 1\]"),
        (pl.DataFrame(X, schema=[f"c{j}" for j in range(p)]), y, r"X\[:, 'c1'\]"),
        (table(20, p)[0], y * 1e-180, r"y\[:, 0\]"),
        ((table(20, p)[0] * 1e-25).astype(np.float32), y, r"X\[:, 0\]"),
    ):
        with pytest.raises(wd.InputError, match=f"too little for its squares: {place}"):
            wd.ridge_path(given, target, cv="loo", standardize=standardize)
    X[:, 1] = 0.0  # a column of zeros is one
    assert wd.ridge_path(X, y, cv="loo", standardize=standardize).still == [1]


# Arrays of every make.

GRIDS = {
    "reversed": lambda grid: grid[::-1],
    "every second": lambda grid: np.repeat(grid, 2)[::2],
    "a column of a table": lambda grid: np.stack([grid, grid], 1)[:, 0],
    "big-endian": lambda grid: grid.astype(">f8"),
    "float32": lambda grid: grid.astype(np.float32),
    "read-only": lambda grid: pd.Series(grid).to_numpy(),
    "a list": list,
    "a tuple": tuple,
    "a tensor that has a gradient": lambda grid: torch.tensor(grid, requires_grad=True),
    "a polars Series": pl.Series,
    "a pandas Series": lambda grid: pd.Series(grid, index=grid),
    "whole numbers": lambda grid: grid.astype(np.int16),
}


@pytest.mark.parametrize("make", GRIDS)
@pytest.mark.parametrize("unit", ["canonical", "glmnet"])
def test_grids(make, unit):
    X, y = table(20, 4)
    grid = np.array([1.0, 2.0, 8.0, 64.0])
    right = wd.ridge_path(X, y, grid, cv="loo", unit=unit)
    path = wd.ridge_path(X, y, GRIDS[make](grid), cv="loo", unit=unit)
    assert torch.allclose(path.lambdas, right.lambdas, rtol=1e-6, atol=0)
    assert torch.allclose(path.scores, right.scores, rtol=1e-6, atol=0)


MAKES = {
    "reversed": lambda values: values[::-1].copy()[::-1],
    "upside down": lambda values: np.flip(np.flip(values).copy()),
    "big-endian": lambda values: values.astype(values.dtype.newbyteorder(">")),
    "every second": lambda values: np.repeat(values, 2, axis=0)[::2],
    "fortran": np.asfortranarray,
    "objects": lambda values: values.astype(object),
    "long doubles": lambda values: values.astype(np.longdouble),
}


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize(("n", "p"), [(20, 4), (12, 30)])
def test_data_of_every_make(n, p, make):
    X, y = table(n, p)
    w, f = np.arange(1.0, n + 1), np.arange(1.0, p + 1)
    right = wd.ridge_path(X, y, [1.0], cv=4, sample_weight=w, penalty_factors=f)
    X, y, w, f = (MAKES[make](values) for values in (X, y, w, f))
    path = wd.ridge_path(X, y, [1.0], cv=4, sample_weight=w, penalty_factors=f)
    assert torch.allclose(path.scores, right.scores, rtol=1e-12, atol=0)


PAIRS = {
    "reversed": lambda rows, n: rows[::-1],
    "bytes": lambda rows, n: rows.astype(np.uint8),
    "big-endian": lambda rows, n: rows.astype(">i4"),
    "a list": lambda rows, n: rows.tolist(),
    "a mask": lambda rows, n: np.isin(np.arange(n), rows),
    "a list of a mask": lambda rows, n: np.isin(np.arange(n), rows).tolist(),
    "a tensor": lambda rows, n: torch.tensor(rows),
    "a range": lambda rows, n: range(int(rows[0]), int(rows[-1]) + 1),
}


@pytest.mark.parametrize("make", PAIRS)
def test_rows_of_every_make(make):
    X, y = table(15, 4)
    pairs = [(np.arange(8), np.arange(8, 12)), (np.arange(10), np.arange(10, 15))]
    given = [tuple(PAIRS[make](rows, 15) for rows in pair) for pair in pairs]
    assert torch.equal(
        wd.ridge_path(X, y, [1.0], cv=given).scores, wd.ridge_path(X, y, [1.0], cv=pairs).scores
    )


def test_lazy_frames():
    X, y = table(20, 3)
    frame = pl.DataFrame(X, schema=["a", "b", "c"]).with_columns(y=y)
    right = wd.ridge_path(frame.drop("y"), frame["y"], [1.0])
    path = wd.ridge_path(frame.lazy().drop("y"), frame.lazy().select("y"), [1.0])
    assert torch.equal(path.scores[:, 0], right.scores)
    assert path.features == ("a", "b", "c")
    assert torch.equal(path.predict(frame.lazy().select("c", "a", "b"))[:, 0], right.predict(frame.drop("y")))
    with pytest.raises(wd.InputError, match=r"the table cannot be read: X = .*mend the query"):
        wd.ridge_path(frame.lazy().select("z"), y)


@pytest.mark.parametrize("cv", [None, "5", " 5 ", "LOO", np.int8(5)])
def test_ways_to_write_cv(cv, tmp_path):
    X, y = table(20, 3)
    pl.DataFrame(X).with_columns(y=y).write_parquet(tmp_path / "t.parquet")
    right = wd.ridge_path(X, y, [1.0], cv="loo" if cv == "LOO" else 5)
    for path in (
        wd.ridge_path(X, y, [1.0], cv=cv),
        wd.ridge_path(str(tmp_path / "t.parquet"), "y", [1.0], cv=cv),
    ):
        assert path.cv == right.cv
        assert torch.allclose(path.scores, right.scores, rtol=1e-12, atol=0)


# Unpenalised columns that the rows do not determine.


def test_as_many_free_columns_as_rows_is_one_refusal(tmp_path):
    for n, free in ((8, 7), (8, 9), (30, 29)):
        for p in (free + 1, 2 * n):
            X, y = table(n, p)
            factors = [0.0] * free + [1.0] * (p - free)
            for cv in ("loo", "gcv", "evidence"):
                with pytest.raises(wd.InputError, match="as many unpenalised columns as rows"):
                    wd.ridge_path(X, y, [1.0], cv=cv, penalty_factors=factors)
            frame = pl.DataFrame(X).with_columns(y=y)
            frame.write_parquet(tmp_path / "t.parquet")
            with pytest.raises(wd.InputError, match="as many unpenalised columns as rows"):
                wd.ridge_path(str(tmp_path / "t.parquet"), "y", [1.0], cv="loo", penalty_factors=factors)


@pytest.mark.parametrize("bound", ["as they are", "Lanczos", "singular values", "products"])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("p", [4, 30])
def test_a_split_that_leaves_a_free_column_open_is_refused(p, standardize, bound):
    """A dummy that is 0 in all training rows of the second split."""
    X, y = table(20, p)
    X[:, 1] = np.arange(20) < 5
    factors = np.where(np.arange(p) == 1, 0.0, 1.0)
    pairs = [(np.arange(12), np.arange(12, 16)), (np.arange(5, 20), np.arange(5))]
    with lowered(bound), pytest.raises(wd.InputError, match="a fold cannot be left out: cv = split 2"):
        wd.ridge_path(X, y, [1.0], cv=pairs, penalty_factors=factors, standardize=standardize)
