"""`ridge_path` where the mathematics is easy and the numbers are not: scales, ranks, units, what it says."""

import warnings

import numpy as np
import polars as pl
import pytest
import torch

import weightdecay as wd
from weightdecay.memory import available, require
from weightdecay.ridge.lambdas import Strength
from weightdecay.ridge.problem import Problem
from weightdecay.ridge.wide import by_products


def table(n, p, seed=0, targets=None):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64) + 1
    shape = (n,) if targets is None else (n, targets)
    y = torch.randn(shape, generator=generator, dtype=torch.float64)
    return X, y + (X[:, :1] if targets else X[:, 0]) * 1.5


GRID = np.logspace(-5, 5, 11)


def quiet(*given, **options):
    """A path whose doubts are not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wd.WeightDecayWarning)
        return wd.ridge_path(*given, **options)


@pytest.mark.parametrize("scale", [1e-60, 1e-8, 1e8, 1e60])
@pytest.mark.parametrize("cv", ["loo", 4, "gcv", "evidence"])
@pytest.mark.parametrize(("n", "p"), [(14, 30), (30, 8)])
def test_units_of_the_inputs_do_not_matter(n, p, cv, scale):
    """X·c with α·c² is the same problem: to 1e-10, what the products' rounding leaves."""
    X, y = table(n, p)
    here = quiet(X, y, GRID, cv=cv, unit="sklearn.Ridge")
    there = quiet(X * scale, y, GRID * scale**2, cv=cv, unit="sklearn.Ridge")
    assert torch.allclose(here.scores, there.scores, rtol=1e-10, atol=0)
    assert torch.allclose(here.dof, there.dof, rtol=1e-10, atol=0)
    assert torch.allclose(here.coef(1.0), there.coef(scale**2) * scale, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("cv", ["loo", 4, "gcv"])
@pytest.mark.parametrize("p", [40, 6])
def test_free_columns_that_repeat_others_add_nothing(p, cv):
    """Three dummies and an intercept are two dummies and an intercept."""
    X, y = table(24, p)
    dummies = torch.eye(3, dtype=torch.float64)[torch.arange(24) % 3]
    free, shrunk = [0.0], [1.0] * p
    three = quiet(torch.cat([X, dummies], 1), y, GRID, cv=cv, penalty_factors=shrunk + free * 3)
    two = quiet(torch.cat([X, dummies[:, :2]], 1), y, GRID, cv=cv, penalty_factors=shrunk + free * 2)
    assert torch.allclose(three.scores, two.scores, rtol=1e-9, atol=0)
    assert torch.allclose(three.dof, two.dof, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("n", "p", "rank"), [(60, 100, 30), (80, 140, 3), (50, 90, 90)])
def test_folds_of_a_wide_table_on_a_long_grid(n, p, rank):
    """Errors are carried between λ; where X has no full rank folds have eigenvalues of their own."""
    generator = torch.Generator().manual_seed(3)
    left = torch.randn(n, rank, generator=generator, dtype=torch.float64)
    X = left @ torch.randn(rank, p, generator=generator, dtype=torch.float64) / rank**0.5
    y = X[:, 0] + torch.randn(n, generator=generator, dtype=torch.float64)
    lambdas = np.logspace(-12, 3, 60)
    path = quiet(X, y, lambdas, cv=5)
    alone = torch.cat([quiet(X, y, [lam], cv=5).scores for lam in lambdas])
    error = (path.scores / alone - 1).abs()
    assert float(error.max()) < 1e-11
    assert bool((error <= path.precision).all())


@pytest.mark.parametrize("standardize", [False, True])
def test_folds_by_singular_values_on_a_long_grid(standardize):
    """A column of spectra next to another: κ is 1e6, and a fold's eigenvalues lie below those of all rows."""
    generator = torch.Generator().manual_seed(4)
    smooth = torch.randn(80, 30, generator=generator, dtype=torch.float64).cumsum(1) + 5
    smooth = smooth + 1e-6 * torch.randn(80, 30, generator=generator, dtype=torch.float64)
    X = torch.cat([smooth, smooth[:, :10] + 1e-6 * torch.randn(80, 10, generator=generator).double()], 1)
    y = smooth[:, 3] + torch.randn(80, generator=generator, dtype=torch.float64)
    lambdas = np.logspace(-15, 1, 300)
    path = quiet(X, y, lambdas, cv=2, standardize=standardize)
    assert "inputs" in path.route
    some = [0, 71, 140, 222, 299]
    alone = torch.cat([quiet(X, y, [lambdas[k]], cv=2, standardize=standardize).scores for k in some])
    error = (path.scores[some] / alone - 1).abs()
    assert bool((error <= path.precision[some].clamp_min(1e-12)).all()), error


def test_predictions_keep_their_digits_at_a_small_lam():
    """The intercept is a difference of large numbers, and κ is 1e7: to 1e-6, some eps·κ·mean/sd."""
    X, y = table(60, 40, seed=5)
    X = torch.cat([X, X[:, :5] + 1e-6 * table(60, 5, seed=6)[0]], 1) + 1000
    path = quiet(X[1:], y[1:], [1e-12], cv="loo")
    left_out = quiet(X, y, [1e-12 * 59 / 60], cv="loo").out_of_fold()[0]
    assert float(path.predict(X[:1])[0]) == pytest.approx(float(left_out), rel=1e-6)


def test_a_float32_table_stays_with_its_moments_and_a_small_lam_is_refused():
    X, y = table(4000, 40)  # a small one is decomposed
    path = wd.ridge_path(X.float(), y.float(), cv=5)
    assert "moments" in path.route
    assert torch.allclose(path.scores, quiet(X.float().double(), y.float(), path.lambdas).scores, rtol=1e-4)
    with pytest.raises(wd.InputError, match="float64"):
        wd.ridge_path(X.float(), y.float(), [1e-12])


@pytest.mark.parametrize("unit", ["canonical", "sklearn.Ridge", "glmnet", "textbook", "gaussian_prior"])
def test_any_unit_is_the_same_path(unit):
    X, y = table(30, 8)
    context = {"noise_sd": 1.0} if unit == "gaussian_prior" else {}
    if context:
        with pytest.raises(wd.InputError, match="noise_sd"):
            wd.ridge_path(X, y, [0.1], unit=unit)
        return
    alphas = np.logspace(-3, 3, 7)
    strength = Strength(unit, {"n": 30, "sd_y": float(y.std(correction=0))})
    path = quiet(X, y, strength.lam(torch.from_numpy(alphas)), unit=unit, cv="loo")
    assert torch.allclose(path.alphas, torch.from_numpy(alphas), rtol=1e-12)
    assert torch.allclose(path.scores, quiet(X, y, alphas, unit="sklearn.Ridge", cv="loo").scores)


def test_glmnet_goes_with_the_weighted_sd_of_one_target():
    X, y = table(30, 8)
    w = torch.rand(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    path = quiet(X, y, [1.0], unit="glmnet", sample_weight=w)
    share = w / w.sum()
    sd = float((share @ (y - share @ y) ** 2).sqrt())
    assert float(path.alphas[0]) == pytest.approx(30 / sd, rel=1e-12)
    with pytest.raises(wd.InputError, match="one target at a time"):
        wd.ridge_path(X, torch.stack([y, 100 * y], 1), unit="glmnet")


def test_predictions_out_of_fold_are_the_mean_of_several_splits():
    for p in (30, 5):
        X, y = table(20, p)
        half = torch.arange(20) < 10
        pairs = [(~half, half), (half, ~half), (torch.arange(20) >= 5, torch.arange(20) < 5)]
        both = quiet(X, y, [0.3], cv=pairs).out_of_fold()
        alone = [quiet(X, y, [0.3], cv=[pair]).out_of_fold() for pair in pairs]
        expected = torch.stack(alone).nanmean(0)
        assert torch.allclose(both, expected, rtol=1e-10)


def test_the_grid_is_widened_until_the_least_score_has_both_sides():
    X, y = table(40, 60, seed=8)
    path = quiet(X, y, cv="loo")
    best = int(path.scores.argmin())
    assert 6 <= best < len(path.lambdas) - 6 or path.edge
    noise = torch.randn(40, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    with pytest.warns(wd.WeightDecayWarning, match="the mean alone"):
        nothing = wd.ridge_path(X, noise, cv=5)
    assert nothing.edge == "high"
    assert float(nothing.dof[-1]) == pytest.approx(1, abs=1e-3)
    with pytest.warns(wd.WeightDecayWarning, match="widen it"):
        wd.ridge_path(X, noise, [1e-3, 1.0, 1e3], cv=5)


def test_the_least_score_has_half_a_decade_on_both_sides(monkeypatch):
    """From a grid of two decades, wherever in it or beside it the least score is."""
    monkeypatch.setattr("weightdecay.ridge.lambdas.FIRST", 1e-2)
    monkeypatch.setattr("weightdecay.ridge.lambdas.LAST", 1.0)
    generator = torch.Generator().manual_seed(8)
    X = torch.randn(60, 40, generator=generator, dtype=torch.float64)
    signal = X @ torch.randn(40, generator=generator, dtype=torch.float64)
    noise = torch.randn(60, generator=generator, dtype=torch.float64)
    for size in np.logspace(-1, 1, 12):
        path = quiet(X, signal + size * noise, cv="loo")
        best = int(path.scores.argmin())
        half_a_decade = 10**0.5 * (1 - 1e-9)
        assert path.lambdas[best] / path.lambdas[0] >= half_a_decade, size
        assert path.lambdas[-1] / path.lambdas[best] >= half_a_decade, size


def test_a_flat_curve_and_constant_columns_are_said():
    X, _ = table(12, 3, seed=1)
    X[:, 1] = 7.0
    with pytest.warns(wd.WeightDecayWarning, match="the curve is flat: over all λ the score changes by"):
        path = wd.ridge_path(X, torch.randn(12, generator=torch.Generator().manual_seed(1)), [1e-3, 1.0])
    assert path.flat
    assert float(path.coef()[1]) == 0.0
    assert any("do not vary" in note and "column 1" in note for note in path.notes)
    assert path.doubts[0] in path.notes


def test_generalised_cv_is_not_believed_where_nothing_is_left():
    """At λ → 0 the criterion is 0/0: least there, if the direction of least variance happens to fit."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(m, 12, generator=generator, dtype=torch.float64) for m in (12, 20))
    s = torch.logspace(0, -3, 12, dtype=torch.float64)
    X = torch.linalg.qr(rows)[0] * s @ torch.linalg.qr(columns)[0].mT
    c = s + 0.1 * torch.randn(12, generator=generator, dtype=torch.float64)
    c[-1] = 0
    y = torch.linalg.qr(rows)[0] @ c
    path = quiet(X, y, np.logspace(-12, 2, 60), cv="gcv", intercept="none")
    place = int((path.lambdas - path.best).abs().argmin())
    assert int(path.scores.argmin()) == 0
    assert float(path.dof[place]) <= 0.95 * 12 < float(path.dof[place - 1])
    # Where no λ is believed, the least score has to do.
    low = quiet(X, y, np.logspace(-12, -10, 3), cv="gcv", intercept="none")
    assert low.best == float(low.lambdas[low.scores.argmin()])


@pytest.mark.parametrize("single", [False, True])
def test_a_column_that_is_the_target_is_told(single):
    X, Y = table(300, 5, targets=3)
    Y[:, 1] = X[:, 4]
    y, which = (Y[:, 1], "y") if single else (Y, r"y\[:, 1\]")
    names = pl.DataFrame(X.numpy(), schema=list("abcde"))
    named = pl.Series("fat", y.numpy()) if single else pl.DataFrame(y.numpy(), schema=["u", "fat", "v"])
    for inputs, target, said in ((X, y, rf"X\[:, 4\] equals {which}"), (names, named, "'e' equals 'fat'")):
        edge = pytest.warns(wd.WeightDecayWarning, match="at the edge of the grid")  # all is said at λ → 0
        with edge, pytest.warns(wd.WeightDecayWarning, match=f"{said} in every row"):
            path = wd.ridge_path(inputs, target, GRID)
        assert "is the target itself" in path.doubts[-1]
    for row in (0, 5, 50, 299):  # equal in all rows but one
        almost = X.clone()
        almost[row, 4] += 1e-9
        assert not any("target itself" in doubt for doubt in quiet(almost, y, GRID).doubts)
    told = quiet(X.float(), y, GRID).doubts  # y is rounded as X is
    assert any("target itself" in doubt for doubt in told)


def test_many_targets_at_a_time_or_all(monkeypatch):
    X, Y = table(25, 40, targets=7)
    for cv in (4, "loo", "gcv", "evidence"):
        whole = quiet(X, Y, GRID, cv=cv)
        with monkeypatch.context() as patch:
            patch.setattr("weightdecay.ridge.wide.ERRORS", 600)
            parts = quiet(X, Y, GRID, cv=cv)
        assert torch.allclose(whole.scores, parts.scores, rtol=1e-12)
        assert torch.allclose(whole.errors, parts.errors, rtol=1e-9)
    alphas = torch.tensor([0.1, 3.0, 20.0], dtype=torch.float64)
    route = by_products(Problem(X, Y + 100 * torch.arange(7)), "loo")
    every = route.solve(alphas.repeat(3)[:7])
    for found, expected in zip(route._some(slice(3, 6)).solve(alphas), every, strict=True):
        assert torch.allclose(found, expected[..., 3:6], rtol=1e-12)


def test_the_variance_of_a_prediction_is_that_of_the_inverse():
    for n, p in ((12, 30), (30, 6)):
        X, y = table(n, p)
        path = quiet(X, y, GRID, cv="loo")
        covariance = path.model(0.5).covariance
        Z = X - X.mean(0)
        inverse = torch.linalg.inv(Z.mT @ Z + 0.5 * n * torch.eye(p, dtype=torch.float64))
        D = table(5, p, seed=11)[0]
        expected = 1 / n + (D @ inverse * D).sum(1)
        assert torch.allclose(covariance.variance(X.mean(0) + D), expected, rtol=1e-9)


def test_standard_errors_against_the_sandwich():
    X, y = table(15, 25)
    path = quiet(X, y, GRID, cv="loo")
    found = path.standard_errors(0.3)
    Z = X - X.mean(0)
    inverse = torch.linalg.inv(Z.mT @ Z + 0.3 * 15 * torch.eye(25, dtype=torch.float64))
    unit = (inverse @ Z.mT @ Z @ inverse).diagonal().sqrt()
    assert torch.allclose(found / found[0], unit / unit[0], rtol=1e-9)


def test_memory_is_asked_for_before_it_is_taken(monkeypatch):
    assert available() > 1e8
    require(1000, "a little")
    monkeypatch.setattr("weightdecay.memory.available", lambda device="cpu": 1000)
    with pytest.raises(wd.InputError, match="not enough memory: the products of 300 rows"):
        wd.ridge_path(*table(300, 500))


def test_a_problem_of_some_rows():
    X, y = table(6, 3)
    part = Problem(X, y[:, None], torch.arange(6, dtype=torch.float64)).of_rows(torch.tensor([4, 1]))
    assert part.weights.tolist() == [4, 1]
    assert torch.equal(part.X, X[[4, 1]])
