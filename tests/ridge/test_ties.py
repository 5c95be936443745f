"""Which λ is chosen where scores are equal, where λ is shared, and where a target is constant."""

from unittest import mock

import numpy as np
import polars as pl
import pytest
import torch
from tests.fuzz.ridge import lowered

import weightdecay as wd
from weightdecay.ridge import wide
from weightdecay.ridge.table_fit import Request, fit_table
from weightdecay.select import choose_paired, least

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")


def table(n, p, targets=None, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 1
    y = rng.normal(size=n if targets is None else (n, targets))
    return X, y + (X[:, :3].sum(1) if targets is None else X[:, :3].sum(1)[:, None])


# Ties.


def noiseless(kind, seed):
    """A target that the inputs make without noise: all scores at small λ are rounding."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(61, 5)) + rng.choice([0, 3, 100])
    if kind == "a repeated column":
        X = np.column_stack([X, X[:, 0]])
    elif kind == "whole numbers":
        X = np.round(X)
    return X, X[:, :4] @ np.array([1.0, -2, 3, 0.5])


@pytest.mark.parametrize("bound", ["as they are", "products"])
@pytest.mark.parametrize("cv", [5, "loo", "gcv"])
@pytest.mark.parametrize("kind", ["plain", "a repeated column", "whole numbers"])
def test_the_order_of_sums_does_not_choose(kind, cv, bound, tmp_path):
    """In memory, in other orders of columns, from a file and from shards: one λ on one grid."""
    X, y = noiseless(kind, seed=len(kind))
    frame = pl.DataFrame(X).with_columns(y=y)
    frame.write_parquet(tmp_path / "t.parquet")
    (tmp_path / "shards").mkdir()
    for k in range(5):
        frame[13 * k : 13 * k + 13].write_parquet(tmp_path / "shards" / f"{k}.parquet")
    with lowered(bound):
        paths = [
            wd.ridge_path(torch.tensor(X), y, cv=cv),
            wd.ridge_path(np.ascontiguousarray(X[:, ::-1]), y, cv=cv),
            wd.ridge_path(str(tmp_path / "t.parquet"), "y", cv=cv),
            wd.ridge_path(str(tmp_path / "shards"), "y", cv=cv),
        ]
    found = {(len(path.lambdas), f"{path.best:.6g}", f"{path.one_se:.6g}") for path in paths}
    assert len(found) == 1, found


@pytest.mark.parametrize("cv", [4, "loo", "gcv", "evidence"])
@pytest.mark.parametrize(
    "options", [{}, {"standardize": True}, {"standardize": True, "intercept": "none"}], ids=str
)
@pytest.mark.parametrize("p", [3, 40])
def test_without_an_input_that_varies_the_strongest_is_chosen(p, options, cv):
    X = np.tile(np.array([[0.0, 0.1, -1e7]]), (20, 14))[:, :p]
    path = wd.ridge_path(X, table(20, 3)[1], cv=cv, **options)
    assert path.best == path.one_se == float(path.lambdas[-1])


def test_scores_within_their_doubt():
    scores = torch.tensor([0.5, 0.9, 0.9 + 1e-13, 1.0], dtype=torch.float64)
    sure = torch.tensor([0.5, 1e-12, 1e-12, 1e-12], dtype=torch.float64)
    assert least(scores) == 0
    assert least(scores, sure) == 2, "the first may be as bad as 1.0, and is as good as the others at best"
    assert least(scores, torch.full_like(scores, torch.inf)) == 3
    assert least(torch.tensor([torch.inf, 2.0, torch.nan]), torch.tensor([torch.inf, 0.0, torch.nan])) == 1
    assert least(torch.tensor([-5.0, -5.0 - 1e-14, -4.0]).double(), torch.full((3,), 1e-13).double()) == 1


def test_means_over_seeds_that_differ_by_their_rounding():
    scores = torch.tensor([[0.1, 0.3], [0.2, 0.2], [0.3, 0.1]], dtype=torch.float64)
    assert choose_paired(scores).choice.best == 1
    assert choose_paired(scores.flip(1)).choice.best == 1


# One λ for several targets.


def left_out(X, y, alpha, w):
    """Weighted leave-one-out errors by refits: w e² (n, t)."""
    n, p = X.shape
    found = np.empty_like(y)
    for i in range(n):
        k = np.delete(np.arange(n), i)
        Z = np.column_stack([X[k], np.ones(n - 1)])
        penalty = np.diag(np.append(np.full(p, alpha), 0))
        b = np.linalg.solve(Z.T * w[k] @ Z + penalty, Z.T * w[k] @ y[k])
        found[i] = w[i] * (y[i] - np.append(X[i], 1) @ b) ** 2
    return found


@pytest.mark.parametrize("bound", ["as they are", "some targets at a time", "pivots", "products"])
@pytest.mark.parametrize(("n", "p"), [(14, 20), (30, 6)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_standard_error_of_a_mean_over_targets(weighted, n, p, bound):
    X, y = table(n, p, targets=6)
    y = y * np.array([1, 100, 1e-3, 1, 1, 1])
    w = np.random.default_rng(1).uniform(0.5, 2, size=n) if weighted else np.ones(n)
    w = w / w.mean()
    grid = n * np.logspace(-2, 3, 30)
    with lowered(bound):
        path = wd.ridge_path(X, y, grid, cv="loo", unit="sklearn.Ridge", shared=True, sample_weight=w)
    variance = w @ (y - w @ y / n) ** 2 / n
    q = np.stack([(left_out(X, y, alpha, w) / variance).mean(1) for alpha in grid])
    best = q.mean(1).argmin()
    bound_ = q[best].mean() + q[best].std(ddof=1) / n**0.5
    assert path.best == grid[best]
    assert path.one_se == grid[np.flatnonzero(q.mean(1) <= bound_).max()]


@pytest.mark.parametrize("bound", ["as they are", "products"])
@pytest.mark.parametrize(("n", "p"), [(14, 20), (60, 6)])
def test_generalised_cross_validation_counts_equal_targets_once(n, p, bound):
    """The same target five times has the standard error of one: √(2/n) of the score."""
    X, y = table(n, p)
    grid = n * np.logspace(-1, 3, 60)
    with lowered(bound):
        one = wd.ridge_path(X, y, grid, cv="gcv", unit="sklearn.Ridge")
        five = wd.ridge_path(
            X, y[:, None] * np.arange(1.0, 6), grid, cv="gcv", unit="sklearn.Ridge", shared=True
        )
    assert (one.best, one.one_se) == (five.best, five.one_se)


def test_generalised_cross_validation_of_independent_targets(tmp_path):
    """√(2/n)·‖R‖/(t n (1 − dof/n)²), R the products of the residuals in units of the variances."""
    X, y = table(40, 6, targets=9)
    y = np.random.default_rng(5).normal(size=y.shape) + 0.2 * X[:, :1]
    grid = 40 * np.logspace(-2, 3, 50)
    Z, score, error = X - X.mean(0), [], []
    for alpha in grid:
        H = Z @ np.linalg.solve(Z.T @ Z + alpha * np.eye(6), Z.T) + 1 / 40
        E = (y - H @ y) / y.std(0)
        score.append((E**2).sum() / 9 / 40 / (1 - np.trace(H) / 40) ** 2)
        error.append((2 / 40) ** 0.5 * np.linalg.norm(E.T @ E) / 9 / 40 / (1 - np.trace(H) / 40) ** 2)
    score, error = np.array(score), np.array(error)
    best = score.argmin()
    right = grid[np.flatnonzero(score <= score[best] + error[best]).max()]
    frame = pl.DataFrame(np.column_stack([X, y]))
    frame.write_parquet(tmp_path / "t.parquet")
    options = {"cv": "gcv", "unit": "sklearn.Ridge", "shared": True}
    for path in (
        wd.ridge_path(X, y, grid, **options),
        wd.ridge_path(str(tmp_path / "t.parquet"), frame.columns[6:], grid, **options),
    ):
        assert (path.best, path.one_se) == (grid[best], right)


def test_a_single_split_has_no_standard_error():
    X, y = table(20, 4, targets=3)
    path = wd.ridge_path(X, y, cv=[(np.arange(12), np.arange(12, 20))], shared=True)
    assert path.best == path.one_se


# Constant targets beside others.


@pytest.mark.parametrize("cv", [4, "loo", "gcv", "evidence"])
@pytest.mark.parametrize("p", [3, 30])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_a_constant_target_takes_nothing_from_the_others(value, p, cv):
    X, y = table(16, p, targets=2)
    both = np.column_stack([y[:, 0], np.full(16, value), y[:, 1]])
    path, without = wd.ridge_path(X, both, cv=cv), wd.ridge_path(X, y, cv=cv)
    assert torch.equal(path.lambdas, without.lambdas)
    assert torch.equal(path.best[[0, 2]], without.best)
    assert torch.allclose(path.scores[:, [0, 2]], without.scores, rtol=1e-12, atol=0)
    assert float(path.coef()[:, 1].abs().max()) == 0
    assert float(path.intercept()[1]) == value
    assert any("nothing to predict for 1 of 3 targets, target 2 first" in doubt for doubt in path.doubts)
    assert any("1 个目标不变化" in doubt.zh for doubt in path.doubts)
    assert not any("digits are lost" in doubt for doubt in path.doubts)
    one, other = (wd.ridge_path(X, given, cv=cv, shared=True) for given in (both, y))
    assert (one.best, one.one_se) == (other.best, other.one_se)


def test_a_constant_target_in_a_file(tmp_path):
    X, y = table(30, 3)
    frame = pl.DataFrame(X, schema=["a", "b", "c"]).with_columns(y=y, z=pl.lit(2.5))
    frame.write_csv(tmp_path / "t.csv")
    path = wd.ridge_path(str(tmp_path / "t.csv"), ["y", "z"])
    assert float(path.best[0]) == wd.ridge_path(str(tmp_path / "t.csv"), "y", drop=["z"]).best
    found = fit_table(Request(str(tmp_path / "t.csv"), ("y", "z")), tmp_path)
    assert any("'z'" in doubt or "z first" in doubt for doubt in found.doubts)
    for targets in ("z", ["z"]):
        with pytest.raises(wd.InputError, match="the target is constant"):
            wd.ridge_path(str(tmp_path / "t.csv"), targets)


# As many folds as rows.


@pytest.mark.parametrize(
    "options",
    [{"cv": 12}, {"cv": np.arange(12)[::-1] * 2}, {"cv": 12, "groups": list("abcdefghijkl")}, {"cv": "12"}],
    ids=["a number", "a fold for each row", "groups", "a text"],
)
@pytest.mark.parametrize("p", [3, 30])
def test_as_many_folds_as_rows_is_leave_one_out(p, options):
    X, y = table(12, p)
    here, loo = wd.ridge_path(X, y, **options), wd.ridge_path(X, y, cv="loo")
    assert torch.equal(here.scores, loo.scores)
    assert torch.equal(here.errors, loo.errors)
    with mock.patch.object(wide.ByRows, "_folds", side_effect=AssertionError("folds one by one")):
        wd.ridge_path(X, y, **options)
        with pytest.raises(AssertionError, match="folds one by one"):
            wd.ridge_path(X, y, cv=6)


def test_as_many_folds_as_rows_of_a_file(tmp_path):
    X, y = table(12, 3)
    pl.DataFrame(X).with_columns(y=y).write_csv(tmp_path / "t.csv")
    here, loo = (wd.ridge_path(str(tmp_path / "t.csv"), "y", cv=cv) for cv in (12, "loo"))
    assert torch.allclose(here.scores, loo.scores, rtol=1e-12, atol=0)
    assert here.cv == "12 folds of one row"
