"""Sparse inputs against the dense path of the same table: every option, kind of matrix and refusal."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, ShuffleSplit

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.ridge import moments, sparse_inputs
from weightdecay.ridge import path as paths
from weightdecay.ridge.problem import (
    Problem,
    across_rows,
    columns,
    constant_columns,
    means_and_sds,
    products_of_rows,
)
from weightdecay.ridge.sklearn import RidgePathCV
from weightdecay.ridge.sparse_inputs import SparseInputs
from weightdecay.ridge.sparse_inputs import sparse_inputs as inputs_of

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")

WIDE, TALL = (60, 150), (150, 60)
BEYOND = 1e-8  # of the dense path
ROWS = [(np.r_[0:40, 5, 5], np.arange(45, 60)), (np.arange(20, 60), np.arange(0, 20))]
PENALTY = np.r_[0.0, 0.0, 3.0]  # a crowded column, a sparse one, a heavier penalty
JUDGES = {
    "loo": "loo",
    "folds": 5,
    "gcv": "gcv",
    "evidence": "evidence",
    "splitter": ShuffleSplit(3, random_state=0),
    "pairs": ROWS,
}
OPTIONS = ["plain", "standardize", "weights", "penalty", "none", "penalized", "several"]


def table(shape: tuple[int, int], seed: int = 0) -> tuple[sp.csr_array, np.ndarray]:
    """Columns that are full with means of their own, crowded, sparse, empty; some rows are long."""
    random = np.random.default_rng(seed)
    n, p = shape
    X = sp.random_array((n, p), density=0.04, rng=random, format="lil")
    X[:, 0] = random.normal(size=n) + 20
    X[:, 4] = random.normal(size=n) * (random.random(n) < 0.4)
    X[3, : p // 2] = random.normal(size=p // 2)
    X[n - 1, : p // 3] = 1
    X[:, 7] = 0
    X[:, 12] = 0
    X[[1, 25, 50], 12] = 2
    X = sp.csr_array(X)
    return X, X @ random.normal(size=p) + random.normal(size=n)


def options_of(name: str, n: int, p: int) -> dict:
    """Keyword arguments of `ridge_path`."""
    weights = np.random.default_rng(1).uniform(0.1, 2, n)
    weights[[2, 30]] = 0, 50
    factors = np.ones(p)
    factors[[0, 12, 20]] = PENALTY
    return {
        "plain": {},
        "standardize": {"standardize": True},
        "weights": {"sample_weight": weights, "standardize": True},
        "penalty": {"penalty_factors": factors},
        "none": {"intercept": "none"},
        "penalized": {"intercept": "penalized"},
        "several": {"shared": True},
    }[name]


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, of the size of the first; rows without a number have none in both."""
    assert torch.equal(a.isnan(), b.isnan())
    return float((a - b).nan_to_num().abs().max() / a.nan_to_num().abs().max().clamp_min(1e-12))


@pytest.fixture
def by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take products of small tables, too, and be content with them."""
    monkeypatch.setattr(paths, "DIRECT", 0)
    monkeypatch.setattr(paths, "ENOUGH", 1e-6)


@pytest.mark.usefixtures("by_products")
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cv", JUDGES)
@pytest.mark.parametrize("shape", [WIDE, TALL])
def test_the_path_is_that_of_the_dense_table(shape, cv, option):
    X, y = table(shape)
    if option == "several":
        y = np.stack([y, np.roll(y, 3)], axis=1)
    options = {"cv": JUDGES[cv], **options_of(option, *shape)}
    grid = np.logspace(-2, 2, 12)
    dense, sparse = wd.ridge_path(X.toarray(), y, grid, **options), wd.ridge_path(X, y, grid, **options)
    assert sparse.route == dense.route
    assert sparse.route.split()[0] == ("moments" if shape == TALL else "products")
    for name in ("scores", "errors", "dof"):
        assert largest(getattr(dense, name), getattr(sparse, name)) < BEYOND, name
    for name in ("coef", "intercept", "out_of_fold", "standard_errors"):
        assert largest(getattr(dense, name)(), getattr(sparse, name)()) < BEYOND, name
    assert sparse.best == dense.best
    assert sparse.still == dense.still
    ends = dense.model(10.0).interval(X.toarray()[:9]), sparse.model(10.0).interval(X[:9])
    assert max(largest(a, b) for a, b in zip(*ends, strict=True)) < BEYOND
    assert largest(dense.predict(X.toarray()), sparse.predict(X)) < BEYOND
    model = sparse.model()
    assert (
        max(largest(getattr(dense.model(), part), getattr(model, part)) for part in ("mean", "scale")) < 1e-12
    )


def test_lanczos_takes_sparse_inputs():
    random = np.random.default_rng(0)
    X = sp.random_array((1300, 1500), density=0.01, rng=random, format="csr")
    y = X @ random.normal(size=1500) + random.normal(size=1300)
    dense, sparse = (wd.ridge_path(some, y, [0.01, 0.1], cv=3) for some in (X.toarray(), X))
    assert largest(dense.scores, sparse.scores) < BEYOND
    assert largest(dense.coef(), sparse.coef()) < BEYOND


def test_products_are_those_of_the_dense_table(monkeypatch: pytest.MonkeyPatch):
    for pairs, numbers in ((1 << 20, 1 << 21), (7, 50)):
        monkeypatch.setattr(sparse_inputs, "PAIRS", pairs)
        monkeypatch.setattr(sparse_inputs, "NUMBERS", numbers)
        for shape in (WIDE, TALL, (40, 1), (2, 50)):
            X = inputs_of(table(shape)[0] if min(shape) > 8 else sp.random_array(shape, density=0.5), "X")
            D = X.dense()
            by_column, by_row = torch.rand(shape[1]).double(), torch.rand(shape[0]).double()
            torch.testing.assert_close(X.products_of_rows(by_column), D * by_column**2 @ D.T)
            torch.testing.assert_close(X.products_of_columns(by_row), D.T * by_row**2 @ D)
            torch.testing.assert_close(X @ D.T, D @ D.T)
            torch.testing.assert_close(X.transposed_times(by_row), D.T @ by_row)
            rows = torch.tensor([1, 0, 1])
            torch.testing.assert_close(X[rows].dense(), D[rows])
            torch.testing.assert_close(torch.cat([block for _, block in X.blocks()]), D)


@pytest.mark.parametrize("intercept", ["free", "penalized", "none"])
def test_the_centred_and_scaled_rows_are_those_of_the_dense_table(intercept):
    X, y = table(WIDE)
    weights, penalty = torch.rand(60).double(), torch.rand(150).double()
    sparse = Problem(inputs_of(X, "X"), torch.from_numpy(y)[:, None], weights, penalty, intercept, True)
    cols, dense, A = columns(sparse), sparse.dense(), torch.randn(7, 60).double()
    torch.testing.assert_close(products_of_rows(sparse, cols), products_of_rows(dense, columns(dense)))
    wholes = torch.zeros(2, 7, 150 + cols.ones).double()
    for problem, whole in zip((sparse, dense), wholes, strict=True):
        for J, block in across_rows(problem, columns(problem), A):
            whole[:, J] = block
    torch.testing.assert_close(*wholes)


def test_a_large_mean_costs_no_digits():
    """A column that is full, or has all of the weight, is centred before products are made of it."""
    X, y = table(WIDE)
    X = X.tolil()
    X[:, 30], X[:, 31] = np.random.default_rng(2).normal(size=60) + 1e6, 0
    X[2, 31], X[3, 31] = 3, 3.0001
    heavy = torch.ones(60, dtype=torch.float64)
    heavy[2:4] = 1e9
    for weights in (None, torch.rand(60, dtype=torch.float64), heavy):
        dense = Problem(torch.from_numpy(X.toarray()), torch.from_numpy(y)[:, None], weights)
        sparse = Problem(inputs_of(X, "X"), dense.y, weights)
        for a, b in zip(means_and_sds(dense), means_and_sds(sparse), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
        assert constant_columns(sparse).tolist() == constant_columns(dense).tolist()


def kinds(X: sp.csr_array) -> dict:
    """One table in every form."""
    torch_csr = torch.from_numpy(X.toarray()).to_sparse_csr()
    twice = sp.coo_array(
        (np.r_[X.data / 2, X.data / 2], [np.r_[i, i] for i in X.tocoo().coords]), shape=X.shape
    )
    shuffled = X.tocoo()
    order = np.random.default_rng(0).permutation(X.nnz)
    shuffled = sp.coo_array((X.data[order], [i[order] for i in shuffled.coords]), shape=X.shape)
    return {
        "csr_array": X,
        "csr_matrix": sp.csr_matrix(X),
        "csc_array": sp.csc_array(X),
        "csc_matrix": sp.csc_matrix(X),
        "lil": X.tolil(),
        "cells listed twice": twice,
        "shuffled": shuffled,
        "int16": X.astype(np.int16),
        "float32": X.astype(np.float32),
        "torch csr": torch_csr,
        "torch csr float32": torch_csr.float(),
        "torch csc": torch_csr.to_sparse_csc(),
        "torch coo": torch_csr.to_sparse_coo(),
        "frame": pd.DataFrame.sparse.from_spmatrix(X),
    }


@pytest.mark.filterwarnings("ignore:Sparse C:UserWarning")
def test_every_kind_of_sparse_matrix_gives_the_same_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "DIRECT", 1e7)  # small enough to be made dense
    random = np.random.default_rng(0)
    X = sp.csr_array(sp.random_array(WIDE, density=0.1, rng=random) * 20).astype(np.int64).astype(np.float64)
    y = random.normal(size=WIDE[0])
    expected = wd.ridge_path(X.toarray(), y, [1.0, 10.0])
    for name, kind in kinds(X).items():
        path = wd.ridge_path(kind, y, [1.0, 10.0])
        assert torch.equal(path.scores, expected.scores), name
        assert torch.equal(path.coef(), expected.coef()), name
        assert largest(expected.predict(X.toarray()), path.predict(kind)) < 1e-14, name
    boolean, zeros = X.astype(bool), X.copy()
    zeros.data[:5] = 0
    for some in (boolean, zeros):
        dense, sparse = (wd.ridge_path(one, y, [1.0]) for one in (some.toarray().astype(float), some))
        assert torch.equal(dense.scores, sparse.scores)


def test_a_frame_of_sparse_columns_is_matched_by_name():
    X, y = table(WIDE)
    frame = pd.DataFrame.sparse.from_spmatrix(X, columns=[f"word {j}" for j in range(X.shape[1])])
    path = wd.ridge_path(frame, y, [1.0], penalty_factors={"word 3": 2.0})
    assert path.features == tuple(frame.columns)
    turned = frame[frame.columns[::-1]]
    assert torch.equal(path.predict(turned), path.predict(frame))
    with pytest.raises(InputError, match="word 9"):
        path.predict(frame.drop(columns="word 9"))
    mixed = frame.assign(**{"word 0": X.toarray()[:, 0]})
    assert (
        largest(path.scores, wd.ridge_path(mixed, y, [1.0], penalty_factors={"word 3": 2.0}).scores) < BEYOND
    )


@pytest.mark.usefixtures("by_products")
@pytest.mark.parametrize("cv", ["loo", 3])
@pytest.mark.parametrize("shape", [(40, 3000), (3000, 40)])
def test_the_table_is_never_made_dense(shape, cv, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sparse_inputs, "NUMBERS", 8000)
    monkeypatch.setattr(moments, "BLOCK", 8000)
    sizes, dense = [], SparseInputs.dense
    monkeypatch.setattr(SparseInputs, "dense", lambda self: sizes.append(dense(self).numel()) or dense(self))
    X = sp.random_array(shape, density=0.02, rng=np.random.default_rng(0), format="csr")
    y = np.random.default_rng(1).normal(size=shape[0])
    path = wd.ridge_path(X, y, [1.0, 10.0], cv=cv)
    path.coef(), path.standard_errors(), path.model().interval(X[:2])
    assert 0 < max(sizes) <= 256 * 40  # of a block of rows, of which there are 256 at least


def test_both_sides_beyond_the_memory_are_refused():
    with pytest.raises(InputError, match=r"products of 300,000 rows = \d{4,}\.\d GiB of"):
        wd.ridge_path(sp.eye_array(300_000, format="csr"), np.arange(300_000.0))


@pytest.mark.usefixtures("by_products")
def test_few_digits_are_told_where_the_dense_table_has_no_room(monkeypatch: pytest.MonkeyPatch):
    X, y = table(WIDE)
    X = X * np.logspace(0, 7, WIDE[1])
    assert wd.ridge_path(X, y, [1e-9, 1e-6]).route == "60 × 150 inputs"
    monkeypatch.setattr(paths, "available", lambda: 1000)
    with pytest.warns(wd.WeightDecayWarning, match="digits are lost"):
        path = wd.ridge_path(X, y, [1e-9, 1e-6])
    assert path.route == "products of 60 rows"
    assert float(path.precision.max()) > 1e-6


@pytest.mark.parametrize(
    ("cell", "said"), [(np.nan, "nan"), (np.inf, "inf"), (-1e200, "-1e\\+200")], ids=["nan", "inf", "large"]
)
def test_a_cell_that_is_no_finite_number_is_named(cell, said):
    X, y = table(WIDE)
    X = X.tolil()
    X[17, 23] = cell
    with pytest.raises(InputError, match=rf"X\[17, 23\] = {said}"):
        wd.ridge_path(X.tocsc(), y)
    frame = pd.DataFrame.sparse.from_spmatrix(X.tocsc(), columns=[f"w{j}" for j in range(X.shape[1])])
    with pytest.raises(InputError, match=rf"X\[17, 'w23'\] = {said}"):
        wd.ridge_path(frame, y)
    X[17, 23] = 1
    path = wd.ridge_path(X, y, [1.0, 10.0])
    X[17, 23] = cell
    with pytest.raises(InputError, match=r"X\[17, 23\]"):
        path.predict(X)


def test_what_is_no_table_of_real_numbers_is_refused():
    X, y = table(WIDE)
    with pytest.raises(InputError, match=r"not real numbers.*complex128"):
        wd.ridge_path(X.astype(complex), y)
    with pytest.raises(InputError, match=r"not a table.*\(150,\)"):
        wd.ridge_path(sp.coo_array(np.arange(150.0)), y)
    with pytest.raises(InputError, match="not a target for each row"):
        wd.ridge_path(X, y[:-1])
    with pytest.raises(InputError, match="sparse"):
        wd.ridge_path(X, sp.csr_array(y[:, None]))
    with pytest.raises(InputError, match="wrong shape"):
        wd.ridge_path(X, y, [1.0, 10.0]).predict(X[:, :-1])
    X = X.tolil()
    X[2, 30] = 1e-200
    X[np.arange(60) != 2, 30] = 0
    with pytest.raises(InputError, match=r"varies by less than.*X\[:, 30\]"):
        wd.ridge_path(X.tocsr(), y)


def test_a_column_that_is_the_target_is_told():
    X, _ = table(WIDE)
    y = X.toarray()[:, 20]
    with pytest.warns(wd.WeightDecayWarning, match=r"X\[:, 20\] equals y"):
        wd.ridge_path(X, y, [1.0])


@pytest.mark.parametrize("shape", [WIDE, TALL])
def test_the_estimator_is_that_of_scikit_learn(shape):
    X, y = table(shape)
    alphas = np.logspace(-1, 3, 9)
    theirs, ours = RidgeCV(alphas=alphas).fit(X, y), RidgePathCV(alphas).fit(X, y)
    assert ours.alpha_ == pytest.approx(theirs.alpha_)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(ours.predict(X), RidgePathCV(alphas).fit(X.toarray(), y).predict(X.toarray()))
    weights = np.random.default_rng(0).uniform(size=shape[0])
    folds = RidgePathCV(alphas, cv=KFold(4)), RidgePathCV(alphas, cv=KFold(4))
    a, b = (one.fit(some, y, weights) for one, some in zip(folds, (X, X.toarray()), strict=True))
    np.testing.assert_allclose(a.coef_, b.coef_, atol=1e-10)


def test_scipy_is_not_imported():
    code = """
import sys, warnings, torch
warnings.simplefilter("ignore")
import weightdecay as wd
X = torch.eye(40, dtype=torch.float64)[:, :30].to_sparse_csr()
wd.ridge_path(X, torch.arange(40.0), [1.0]).predict(X)
assert "scipy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
