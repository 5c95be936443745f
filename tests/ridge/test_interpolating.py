"""Models with as many degrees of freedom as rows: what is said of them, and saved paths to the bit."""

import numpy as np
import polars as pl
import pytest
import torch

import weightdecay as wd
from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.ridge.table_fit import Request, fit_table


def table(n, p, t=1, noise=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    X = normal(n, p)
    y = X @ normal(p, t) + noise * normal(n, t)
    return X, y[:, 0] if t == 1 else y


def left(X, alpha, n):
    """n − dof from singular values, by the sum that has no cancellation: the intercept takes one."""
    s = np.linalg.svd(X - X.mean(0), compute_uv=False)[: n - 1] ** 2
    return float((alpha / (s + alpha)).sum())


@pytest.mark.parametrize(
    "options", [{"cv": "loo"}, {"cv": 4}, {"cv": "evidence"}, {"cv": "loo", "unit": "sklearn.Ridge"}]
)
def test_a_least_score_that_interpolates_is_told_of(options):
    X, y = table(24, 90)
    with pytest.warns(WeightDecayWarning, match=r"24 degrees of freedom for 24 rows: it interpolates"):
        path = wd.ridge_path(X, y, **options)
    (said,) = [one for one in path.doubts if "interpolates" in one]
    one_se = path._strength.alpha(path.one_se).item()
    if left(X.numpy(), one_se, 24) >= 1.2:
        assert f"λ = {path.one_se:.4g}, within one standard error (one_se, --choose one-se)" in said
        assert f"leaves {left(X.numpy(), one_se, 24):.4g}" in said
    else:
        assert said.endswith("take a larger λ")
    assert said in repr(path)
    assert said in path.notes
    assert "插值" in said.zh
    assert ("一倍标准误的 λ" in said.zh) == ("one_se" in said)
    assert path.model().noise_sd.isnan()
    with pytest.raises(InputError, match="interpolates its training rows"):
        path.model().interval(X)


def test_few_degrees_of_freedom_are_told_of_with_how_many():
    X, y = table(40, 38, noise=1e-3)
    with pytest.warns(WeightDecayWarning, match=r"rest on the 1(\.\d+)? that are left"):
        path = wd.ridge_path(X, y, [1e-9], cv="loo")
    assert torch.isfinite(path.model().noise_sd)
    lower, upper = path.model().interval(X)
    assert bool((lower < upper).all())


@pytest.mark.parametrize("choose", ["best", "one-se"])
def test_both_languages_speak_of_the_model_that_fit_chose(choose, tmp_path):
    X, y = table(24, 90)
    pl.DataFrame(X.numpy()).with_columns(y=y.numpy()).write_csv(tmp_path / "t.csv")
    found = fit_table(Request(str(tmp_path / "t.csv"), ("y",), choose=choose), tmp_path)
    english = [one for one in found.path.doubts if "degrees of freedom" in one]
    shown = [one.zh for one in found.path.doubts if "自由度" in one.zh]
    assert len(english) == len(shown)
    assert all(f"λ = {float(found.model.lam):.4g} " in one for one in (*english, *shown))


def test_a_choice_that_is_the_other_one_too_is_said_once(tmp_path):
    X, y = table(30, 3, noise=1.0)
    pl.DataFrame(X.numpy()).with_columns(y=y.numpy()).write_csv(tmp_path / "t.csv")
    found = fit_table(Request(str(tmp_path / "t.csv"), ("y",), lambdas=(1.0,)), tmp_path)
    assert not any("besides" in line for line in found.lines)


def test_a_constant_column_that_serves_as_an_intercept_is_not_said_to_have_no_coefficient():
    X, y = table(30, 3, noise=1.0)
    X[:, 1] = 2
    path = wd.ridge_path(X, y + 5, intercept="none")
    assert abs(float(path.coef()[1])) > 1
    assert not any("do not vary" in note or "不变化" in note.zh for note in path.notes)


def test_of_several_targets_those_are_named():
    X, y = table(24, 90)
    noise = torch.randn(24, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y = torch.stack([y, X[:, 0] + noise], 1)
    with pytest.warns(WeightDecayWarning) as caught:
        path = wd.ridge_path(X, y, cv="loo")
    assert any("for 1 of 2 targets, target 1 first at" in str(one.message) for one in caught)
    noise = path.model().noise_sd
    assert noise[0].isnan()
    assert noise[1].isfinite()


def test_an_ordinary_fit_says_nothing_of_it():
    path = wd.ridge_path(*table(60, 5, noise=1.0), cv="loo")
    assert path.doubts == ()


SHAPES = [(40, 7, 1), (30, 90, 1), (30, 90, 3), (200, 20, 2)]


@pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")
@pytest.mark.parametrize(
    "options", [{}, {"cv": "loo", "standardize": True}, {"cv": "gcv", "intercept": "none"}]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("n", "p", "t"), SHAPES)
def test_a_saved_path_has_the_same_bits(tmp_path, n, p, t, dtype, options):
    X, y = table(n, p, t, noise=0.5)
    path = wd.ridge_path(X.to(dtype), y, **options)
    path.save(tmp_path)
    back = wd.load(tmp_path)
    new = table(17, p, seed=3)[0]
    for name in ("lambdas", "alphas", "scores", "errors", "dof", "precision"):
        assert torch.equal(getattr(path, name), getattr(back, name)), name
    for lam in (path.best, path.one_se, float(path.lambdas[3]), float(path.lambdas[-2])):
        assert torch.equal(path.coef(lam), back.coef(lam))
        assert torch.equal(path.intercept(lam), back.intercept(lam))
        assert torch.equal(path.predict(new, lam), back.predict(new, lam))
    assert torch.equal(path.model().predict(new), back.model().predict(new))
