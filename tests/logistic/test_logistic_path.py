"""The path against scikit-learn fitted to explicit folds, by its definition, and what is refused."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch

import weightdecay as wd
from weightdecay.logistic import record
from weightdecay.logistic.path import LogisticOptions, fit_path

pytest.importorskip("sklearn")
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import (
    GroupKFold,
    LeaveOneOut,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
)

# Curves that are flat, or fall to an edge of the grid, are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
CS = np.array([0.03, 0.3, 3.0])


def rows(C=3, n=90, p=6, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p)) + 1
    W = random.normal(size=(p, C))
    return X, (X @ W + 2 * random.gumbel(size=(n, C))).argmax(1)


def fitted(X, labels, C, weights=None, intercept=True):
    """Scikit-learn's, at the minimum to all digits."""
    model = LogisticRegression(
        C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000, fit_intercept=intercept
    )
    return model.fit(X, labels, sample_weight=weights)


def of_two(model, C):
    """Coefficients and intercepts in the package's shape."""
    if C == 2:
        return model.coef_[0], model.intercept_[0]
    return model.coef_, model.intercept_ - np.mean(model.intercept_)


def refused(*given, **options):
    """The message, which is one line."""
    with pytest.raises(wd.InputError) as caught:
        wd.logistic_path(*given, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("C", [2, 3, 5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", ["free", "none"])
def test_every_fold_and_the_final_fit_are_those_of_scikit_learn(C, weighted, intercept):
    X, y = rows(C)
    w = np.random.default_rng(1).uniform(0.2, 3, len(y)) if weighted else np.ones(len(y))
    w = w / w.mean()
    splitter = StratifiedKFold(4)
    path = wd.logistic_path(
        X, y, CS, cv=splitter, unit="sklearn.LogisticRegression", sample_weight=w if weighted else None,
        intercept=intercept,
    )  # fmt: skip
    np.testing.assert_allclose(path.lambdas, CS[::-1])
    np.testing.assert_allclose(path.alphas, 1 / CS[::-1])
    for place, strength in enumerate(CS[::-1]):
        expected = of_two(fitted(X, y, strength, w, intercept == "free"), C)
        np.testing.assert_allclose(path.coef(strength), expected[0], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(path.intercept(strength), expected[1], rtol=1e-6, atol=1e-7)
        total, means = 0.0, []
        for train, test in splitter.split(X, y):
            P = fitted(X[train], y[train], strength, w[train], intercept == "free").predict_proba(X[test])
            means.append(log_loss(y[test], P, sample_weight=w[test], labels=range(C)))
            total += means[-1] * w[test].sum()
            np.testing.assert_allclose(path.out_of_fold(strength)[test], P, atol=1e-7)
        np.testing.assert_allclose(path.fold_scores[:, place], means, rtol=1e-7)
        assert float(path.scores[place]) == pytest.approx(total / w.sum(), rel=1e-7)
        assert float(path.errors[place]) == pytest.approx(np.std(means, ddof=1) / 2, rel=1e-5)
    assert path.best == CS[::-1][int(path.scores.argmin())]


def test_the_judges_are_those_of_scikit_learn():
    X, y = rows(2)
    splitter = StratifiedKFold(3)
    path = wd.logistic_path(X, y, CS, cv=splitter, unit="sklearn.LogisticRegression", judge="auc")
    for place, strength in enumerate(CS[::-1]):
        areas, wrong, squares = [], 0, 0
        for train, test in splitter.split(X, y):
            model = fitted(X[train], y[train], strength)
            P = model.predict_proba(X[test])
            areas.append(roc_auc_score(y[test], P[:, 1]))
            wrong += (model.predict(X[test]) != y[test]).sum()
            squares += brier_score_loss(y[test], P[:, 1]) * len(test)
        np.testing.assert_allclose(1 - path.fold_scores[:, place], areas, rtol=1e-9)
        assert float(path.scores[place]) == pytest.approx(1 - np.mean(areas), rel=1e-9)
        assert float(path.errors[place]) == pytest.approx(np.std(areas, ddof=1) / 3**0.5, rel=1e-7)
        assert float(path.curves["error"][place]) == pytest.approx(wrong / len(y))
        assert float(path.curves["brier"][place]) == pytest.approx(squares / len(y), rel=1e-6)
    for judge in ("error", "brier", "log_loss"):
        other = wd.logistic_path(X, y, CS, cv=splitter, unit="sklearn.LogisticRegression", judge=judge)
        torch.testing.assert_close(other.scores, path.curves[judge])
        assert other.judge == judge


@pytest.mark.parametrize("p", [5, 120])
def test_columns_are_standardised_inside_every_fold(p):
    X, y = rows(3, p=p)
    X = X * 10.0 ** (np.arange(p) % 4)
    splitter = StratifiedKFold(3)
    path = wd.logistic_path(X, y, [0.3], cv=splitter, unit="sklearn.LogisticRegression", standardize=True)
    for train, test in splitter.split(X, y):
        mean, sd = X[train].mean(0), X[train].std(0)
        model = fitted((X[train] - mean) / sd, y[train], 0.3)
        P = model.predict_proba((X[test] - mean) / sd)
        np.testing.assert_allclose(path.out_of_fold(0.3)[test], P, atol=1e-7)
    model = fitted((X - X.mean(0)) / X.std(0), y, 0.3)
    np.testing.assert_allclose(path.coef(0.3).numpy() * X.std(0), model.coef_, rtol=1e-5, atol=1e-8)


def test_penalty_factors_are_columns_divided_by_their_roots():
    X, y = rows(3)
    f = np.array([1.0, 2.0, 0.5, 9.0, 1.0, 0.1])
    path = wd.logistic_path(X, y, [0.3], unit="sklearn.LogisticRegression", penalty_factors=f)
    model = fitted(X / np.sqrt(f), y, 0.3)
    np.testing.assert_allclose(path.coef(0.3), model.coef_ / np.sqrt(f), rtol=1e-6, atol=1e-8)


def test_a_column_that_is_not_penalised_has_a_gradient_of_zero():
    X, y = rows(2)
    path = wd.logistic_path(X, y, [10.0], penalty_factors=[0, 1, 1, 1, 1, 1])
    p = path.predict_proba(X)[:, 1].numpy()
    assert (y - p) @ X[:, 0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose((y - p) @ X[:, 1:] / len(y) / 10, path.coef()[1:], rtol=1e-6)
    assert abs(path.coef()[0]) > 10 * abs(path.coef()[1:]).max()


def test_a_fit_between_the_grid_points_is_as_exact():
    X, y = rows(3)
    path = wd.logistic_path(X, y, CS, unit="sklearn.LogisticRegression")
    np.testing.assert_allclose(path.coef(0.77), fitted(X, y, 0.77).coef_, rtol=1e-6, atol=1e-8)
    assert path.out_of_fold(0.77).shape == (90, 3)
    assert path.confusion(0.77).drop("class").to_numpy().sum() == 90


def test_weights_are_repeated_rows():
    X, y = rows(3)
    w = np.random.default_rng(3).integers(0, 4, len(y))
    many = np.repeat(np.arange(len(y)), w)
    fold = np.arange(len(y)) % 3
    weighted = wd.logistic_path(X, y, CS, cv=fold, unit="sklearn.LogisticRegression", sample_weight=w)
    repeated = wd.logistic_path(
        X[many], y[many], CS * w[w > 0].mean(), cv=fold[many], unit="sklearn.LogisticRegression"
    )
    np.testing.assert_allclose(weighted.alphas * w[w > 0].mean(), repeated.alphas * w[w > 0].mean() ** 2)
    again = wd.logistic_path(
        X[many], y[many], CS / w[w > 0].mean(), cv=fold[many], unit="sklearn.LogisticRegression"
    )
    np.testing.assert_allclose(weighted.scores, again.scores, rtol=1e-7)
    np.testing.assert_allclose(weighted.coef(CS[0]), again.coef(again.lambdas[-1]), rtol=1e-6, atol=1e-9)


def test_a_row_counts_as_often_as_a_pair_names_it():
    X, y = rows(2)
    train, test = np.r_[np.arange(60), np.arange(10)], np.r_[60:90, 60]
    path = wd.logistic_path(X, y, [1.0], cv=[(train, test)], unit="sklearn.LogisticRegression")
    P = fitted(X[train], y[train], 1.0).predict_proba(X[test])
    assert float(path.scores[0]) == pytest.approx(log_loss(y[test], P), rel=1e-8)
    assert bool(path.out_of_fold(1.0)[:60].isnan().all())
    assert path.confusion().drop("class").to_numpy().sum() == 30
    both = wd.logistic_path(
        X, y, [1.0], cv=[(train, test), (np.arange(50), [60, 61])], unit="sklearn.LogisticRegression"
    )
    other = fitted(X[:50], y[:50], 1.0).predict_proba(X[60:61])[0]
    np.testing.assert_allclose(both.out_of_fold()[60], (2 * P[0] + other) / 3, rtol=1e-6)


@pytest.mark.parametrize("given", ["balanced", {0: 3.0, 2: 0.5}])
def test_class_weights_are_weights_of_rows(given):
    X, y = rows(3)
    counts = np.bincount(y)
    each = len(y) / (3 * counts) if given == "balanced" else np.array([3.0, 1.0, 0.5])
    by_class = wd.logistic_path(X, y, CS, class_weight=given)
    by_row = wd.logistic_path(X, y, CS, sample_weight=each[y])
    torch.testing.assert_close(by_class.scores, by_row.scores)
    torch.testing.assert_close(by_class.coef(), by_row.coef())
    model = LogisticRegression(
        C=1 / float(by_class.alphas[0]), class_weight="balanced" if given == "balanced" else None, tol=1e-10,
        solver="newton-cholesky",
    )  # fmt: skip
    if given == "balanced":
        expected = model.fit(X, y).coef_
        np.testing.assert_allclose(by_class.coef(by_class.lambdas[0]), expected, rtol=1e-5, atol=1e-8)


def test_the_order_of_rows_and_the_names_of_classes_are_no_matter():
    X, y = rows(3)
    path = wd.logistic_path(X, y, CS, cv=np.arange(90) % 3)
    order = np.random.default_rng(0).permutation(90)
    shuffled = wd.logistic_path(X[order], y[order], CS, cv=order % 3)
    torch.testing.assert_close(shuffled.scores, path.scores, rtol=1e-9, atol=0)
    names = np.array(["z", "m", "a"])  # sorts the other way round
    renamed = wd.logistic_path(X, names[y], CS, cv=np.arange(90) % 3)
    assert renamed.classes == ("a", "m", "z")
    torch.testing.assert_close(renamed.scores, path.scores, rtol=1e-9, atol=0)
    torch.testing.assert_close(renamed.coef(), path.coef().flip(0), rtol=1e-6, atol=1e-9)
    assert set(renamed.predict(X).tolist()) <= set(names)
    np.testing.assert_array_equal(renamed.predict(X), names[path.predict(X)])


@pytest.mark.parametrize("cv", [4, 90, "10"])
def test_a_number_of_folds_deals_every_class_evenly(cv):
    X, y = rows(3)
    path = wd.logistic_path(X, y, [0.1], cv=cv)
    K = int(cv)
    assert path.fold_scores.shape == (K, 1)
    assert not bool(path.out_of_fold().isnan().any())
    assert path.cv == (f"{K} folds by class, shuffled, seed 0" if K < 90 else "90 folds of one row")
    fitter = path._fitted.fitter
    for fold in fitter.judging.folds:
        held = np.bincount(y[fold.rows.numpy()], minlength=3)
        assert (np.abs(held - np.bincount(y) / K) < 2).all()
        assert abs(held.sum() - 90 / K) < 1
    if K == 4:
        other = wd.logistic_path(X, y, [0.1], cv=4, seed=1)
        assert float(other.scores[0]) != float(path.scores[0])
        assert float(other.scores[0]) == pytest.approx(float(path.scores[0]), rel=0.2)


def test_splitters_groups_and_repeated_folds():
    X, y = rows(2)
    groups = np.arange(90) // 9
    for cv, given in (
        (GroupKFold(5), {"groups": groups}),
        (5, {"groups": groups}),
        (RepeatedKFold(n_splits=3, n_repeats=2, random_state=0), {}),
        (ShuffleSplit(3, random_state=0), {}),
    ):
        path = wd.logistic_path(X, y, CS, cv=cv, unit="sklearn.LogisticRegression", **given)
        K = len(path.fold_scores)
        if not isinstance(cv, int):
            scores = []
            for train, test in cv.split(X, y, **given):
                P = fitted(X[train], y[train], CS[0]).predict_proba(X[test])
                scores.append(log_loss(y[test], P, labels=[0, 1]))
            np.testing.assert_allclose(path.fold_scores[:, -1], scores, rtol=1e-7)
            assert len(scores) == K
        else:
            assert path.cv == "5 folds by group, shuffled, seed 0"
            for fold in path._fitted.fitter.judging.folds:
                inside = groups[fold.rows.numpy()]
                assert not np.isin(groups[fold.train.numpy() > 0], inside).any()


def test_leave_one_out_by_a_splitter_really_leaves_each_out():
    X, y = load_iris(return_X_y=True)
    X, y = X[::3], y[::3]
    path = wd.logistic_path(X, y, [1.0], cv=LeaveOneOut(), unit="sklearn.LogisticRegression")
    losses = []
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        losses.append(-fitted(X[others], y[others], 1.0).predict_log_proba(X[i : i + 1])[0, y[i]])
    assert float(path.scores[0]) == pytest.approx(np.mean(losses), rel=1e-7)


def test_the_automatic_grid_surrounds_the_best_by_half_a_decade():
    X, y = load_breast_cancer(return_X_y=True)
    path = wd.logistic_path(X, y, standardize=True)
    widened = wd.logistic_path(*load_iris(return_X_y=True))
    assert (len(path.lambdas), len(widened.lambdas)) == (31, 43)
    for one in (path, widened):
        assert one.edge is None
        assert one.best / float(one.lambdas[0]) > 10**0.45
        assert float(one.lambdas[-1]) / one.best > 10**0.45
        ratios = one.lambdas[1:] / one.lambdas[:-1]
        torch.testing.assert_close(ratios, torch.full_like(ratios, 10 ** (1 / 6)))
    at_top = path.predict_proba(X, float(path.lambdas[-1]))[:, 1]
    assert float((at_top - 357 / 569).abs().max()) < 0.15
    assert float(path.gradient.max()) <= 1e-8


def test_the_grid_follows_the_units_of_the_columns_and_the_number_of_rows():
    X, y = rows(3, n=300)
    path, scaled = wd.logistic_path(X, y, cv=3), wd.logistic_path(1000 * X, y, cv=3)
    torch.testing.assert_close(scaled.lambdas, 1e6 * path.lambdas, rtol=1e-6, atol=0)
    assert scaled.best == pytest.approx(1e6 * path.best, rel=1e-6)
    fold = np.arange(300) % 3
    once = wd.logistic_path(X, y, cv=fold)
    twice = wd.logistic_path(np.r_[X, X], np.r_[y, y], cv=np.r_[fold, fold])
    torch.testing.assert_close(twice.lambdas, once.lambdas, rtol=1e-9, atol=0)
    torch.testing.assert_close(twice.scores, once.scores, rtol=1e-7, atol=0)


def test_noise_is_told_by_the_edge():
    random = np.random.default_rng(3)
    X, y = random.normal(size=(100, 5)), np.arange(100) % 2
    with pytest.warns(
        wd.WeightDecayWarning, match="at the edge of the grid, λ = .*; what it tends to there is the class"
    ):
        path = wd.logistic_path(X, y)
    assert path.edge == "high"
    np.testing.assert_allclose(path.predict_proba(X, float(path.lambdas[-1])), 0.5, atol=0.05)


def test_a_flat_curve_is_told():
    X, y = rows(2)
    with pytest.warns(wd.WeightDecayWarning, match="the curve is flat: over all λ the error rate changes by"):
        assert wd.logistic_path(X, y, [1e-3, 2e-3], judge="error").flat


def test_separable_classes_are_told_with_the_smallest_lambda_that_is_safe():
    X, y = load_iris(return_X_y=True)
    setosa = np.where(y == 0, "setosa", "other")
    with pytest.warns(wd.WeightDecayWarning, match="planes separate the classes, and held-out rows, too"):
        path = wd.logistic_path(X, setosa)
    assert path.edge == "low"
    assert path.separable
    reached = path.lambdas[path.gradient <= 1e-8]
    (note,) = (note for note in path.notes if "planes separate the classes of the training rows" in note)
    assert f"the weakest λ of the grid that is safe: λ = {float(reached[0]):.4g}" in note
    assert bool(path.coef(path.best).isfinite().all())
    assert (path.predict(X) == setosa).all()
    assert not wd.logistic_path(X, y).separable


def test_what_was_done_is_said_in_both_languages():
    X, y = rows(2)
    path = wd.logistic_path(X, np.where(y, "yes", "no"))
    for note in path.notes:
        assert note.zh
        assert any("\u4e00" <= letter <= "\u9fff" for letter in note.zh)
        numbers = [word for word in note.replace(",", " ").replace("(", " ").split() if word[0].isdigit()]
        assert all(number.strip(";:)%") in note.zh for number in numbers)
    assert "90 rows, 6 columns, 2 classes (no " in path.notes[0]
    assert "judged by 5 folds by class, shuffled, seed 0 and log loss" in path.notes[0]


def test_tables_are_coded_and_matched_by_name():
    X, y = rows(3)
    names = ["north", "south", "east"]
    place = np.random.default_rng(1).integers(0, 3, 90)
    frame = pl.DataFrame(X, schema=list("abcdef")).with_columns(
        place=pl.Series([names[k] for k in place]), row=pl.Series(range(90)), other=pl.lit(1.0)
    )
    path = wd.logistic_path(frame, pl.Series("kind", [f"k{k}" for k in y]), CS, drop=["f"])
    assert path.features == (*"abcde", "place=east", "place=north", "place=south")
    assert path.target == "kind"
    assert path.classes == ("k0", "k1", "k2")
    assert any(
        "'row' (it numbers the rows)" in note and "'other' (the same in" in note for note in path.notes
    )
    by_hand = np.c_[X[:, :5], place == 2, place == 0, place == 1]
    plain = wd.logistic_path(by_hand, y, CS)
    torch.testing.assert_close(path.coef(), plain.coef())
    order = frame.select("place", "e", "d", "c", "b", "a")
    torch.testing.assert_close(path.predict_proba(order), plain.predict_proba(by_hand))
    with pytest.raises(wd.InputError, match="the fit has not seen this level"):
        path.predict(order.with_columns(place=pl.lit("west")))
    pandas = wd.logistic_path(
        pd.DataFrame(frame.to_dict(as_series=False)), pd.Series(y), CS, drop="f", penalty_factors={"a": 0.5}
    )
    assert pandas.features == path.features


def test_rows_that_miss_a_cell_or_a_label_are_left_out():
    X, y = rows(3)
    frame = pl.DataFrame(X, schema=list("abcdef")).with_columns(
        a=pl.when(pl.int_range(90) == 4).then(None).otherwise(pl.col("a"))
    )
    labels = [None if i == 7 else f"k{k}" for i, k in enumerate(y)]
    assert "labels[7] = missing; fill it, or missing='drop'" in refused(frame, labels)
    assert "X[4, 'a'] = nan" in refused(frame, [f"k{k}" for k in y])
    fold = np.arange(90) % 3
    path = wd.logistic_path(frame, labels, CS, missing="drop", cv=fold)
    kept = np.setdiff1d(np.arange(90), [4, 7])
    plain = wd.logistic_path(X[kept], y[kept], CS, cv=fold[kept])
    assert path.n == 88
    torch.testing.assert_close(path.scores, plain.scores)
    assert any("2 of 90 rows have a missing cell and are left out" in note for note in path.notes)
    pairs = [(np.arange(45), np.arange(45, 90)), (np.arange(45, 90), np.arange(45))]
    by_pairs = wd.logistic_path(frame, labels, CS, missing="drop", cv=pairs)
    assert by_pairs.out_of_fold().shape == (88, 3)


def test_a_column_that_is_constant_in_a_fold_has_no_coefficient_there():
    X, y = rows(2)
    X[:, 0] = np.arange(90) < 30
    fold = np.arange(90) // 30
    for options in ({}, {"standardize": True}, {"penalty_factors": [0, 1, 1, 1, 1, 1]}):
        path = wd.logistic_path(X, y, [0.1], cv=fold, **options)
        rest_of = {name: value for name, value in options.items() if name == "standardize"}
        without = wd.logistic_path(X[:, 1:], y, [0.1], cv=fold, **rest_of)
        rest, own = path.out_of_fold()[:30], without.out_of_fold()[:30]
        torch.testing.assert_close(rest, own, rtol=1e-6, atol=1e-8)


def test_sparse_and_single_precision_inputs():
    X, y = rows(3)
    X[np.abs(X) < 0.7] = 0
    path = wd.logistic_path(X, y, CS)
    sparse = wd.logistic_path(scipy.sparse.csr_array(X), y, CS)
    torch.testing.assert_close(sparse.scores, path.scores)
    single = wd.logistic_path(X.astype(np.float32), y, CS)
    torch.testing.assert_close(single.scores, path.scores, rtol=1e-6, atol=0)
    assert single.settings["dtype"] == "float32"


@pytest.mark.parametrize(
    ("unit", "strength"),
    [
        ("canonical", 1 / 90),
        ("torch.SGD+mean_loss", 1 / 90),
        ("torch.SGD+sum_loss", 1.0),
        ("sklearn.LogisticRegression", 1.0),
        ("gaussian_prior.nll", 1.0),
    ],
)
def test_units(unit, strength):
    X, y = rows(3)
    path = wd.logistic_path(X, y, [strength, 2 * strength], unit=unit)
    np.testing.assert_allclose(path.coef(strength), fitted(X, y, 1.0).coef_, rtol=1e-6, atol=1e-8)
    assert wd.convert(strength, unit, "sklearn.LogisticRegression", n=90) == pytest.approx(1.0)
    assert path.alphas[0] < path.alphas[1]


def test_progress_is_reported_for_every_lambda():
    X, y = rows(2)
    seen = []
    wd.logistic_path(X, y, CS, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


X0, Y0 = rows(3)
RARE = np.where(np.arange(90) == 5, "rare", np.array(["a", "b"])[np.arange(90) % 2])
HALF, THIRDS = np.arange(90) > 44, np.arange(90) // 30
BAD = {
    "NaN": ((np.where(np.arange(6) == 2, np.nan, X0), Y0), {}, "X[0, 2] = nan"),
    "infinite": ((np.where(X0[3, 1] == X0, np.inf, X0), Y0), {}, "X[3, 1] = inf"),
    "one class": ((X0, ["a"] * 90), {}, "one class only: labels = 'a'"),
    "one class with a weight": ((X0, HALF), {"sample_weight": HALF}, "one class only: labels = True"),
    "a regression": ((X0, X0[:, 0]), {}, "is it a regression? use ridge_path"),
    "a class with one row": ((X0, RARE), {}, "a class has no row among the training rows of a fold: fold"),
    "a class with one row, left out": (
        (X0, RARE),
        {"cv": "loo"},
        "a class has one row, and none is left when that is held out: labels = 'rare'",
    ),
    "a class that a fold lacks": (
        (X0, THIRDS),
        {"cv": THIRDS},
        "fold 1 of 3 = 0, 30 rows in all; use other folds, or fewer",
    ),
    "lengths": ((X0, Y0[:7]), {}, "not a target for each row: labels = shape (7,); X has 90 rows"),
    "negative weights": ((X0, Y0), {"sample_weight": -np.ones(90)}, "not finite: sample_weight[0] = -1"),
    "too few weights": ((X0, Y0), {"sample_weight": np.ones(7)}, "sample_weight = shape (7,); give 90"),
    "a class weight": ((X0, Y0), {"class_weight": {7: 1.0}}, "class_weight"),
    "a class weight of 0": ((X0, Y0), {"class_weight": {1: 0.0}}, "weight above 0: class_weight[1] = 0.0"),
    "class weights": ((X0, Y0), {"class_weight": "equal"}, "weights of classes: class_weight = 'equal'"),
    "AUC of three": ((X0, Y0), {"judge": "auc"}, "defined for two classes: judge = 'auc', 3 classes"),
    "AUC of a fold": (
        (X0, Y0 > 0),
        {"judge": "auc", "cv": 90},
        "one class only, for which there is no AUC: cv = fold 1 of 90",
    ),
    "gcv": ((X0, Y0), {"cv": "gcv"}, "generalised cross-validation is for squared errors: cv = 'gcv'"),
    "folds": ((X0, Y0), {"cv": 91}, "fewer rows than folds: cv = 91"),
    "one fold": ((X0, Y0), {"cv": 1}, "too few folds: cv = 1"),
    "a unit": (
        (X0, Y0),
        {"unit": "sklearn.Ridge"},
        "not a convention beside log losses: unit = 'sklearn.Ridge'; use canonical, ",
    ),
    "an intercept": ((X0, Y0), {"intercept": "penalized"}, "a penalised intercept is for ridge"),
    "means": ((X0, Y0), {"missing": "mean"}, "are not put into a classification: missing = 'mean'"),
    "a strength": ((X0, Y0), {"lambdas": [-1.0]}, "not a strength: lambdas = -1.0"),
    "C of 0": ((X0, Y0), {"lambdas": [0.0], "unit": "sklearn.LogisticRegression"}, "no λ belongs to it"),
    "drop": ((X0, Y0), {"drop": ["a"]}, "only for tables with named columns: drop = ('a',)"),
    "no such column": ((pl.DataFrame(X0), Y0), {"drop": ["a"]}, "drop"),
    "factors": ((X0, Y0), {"penalty_factors": [1.0]}, "penalty_factors"),
    "a file": (("table.csv", "y"), {}, "a classifier's table has to be in memory: X = table.csv; read the"),
    "one axis": ((X0[:, 0], Y0), {}, "not a table: X = shape (90,)"),
    "no columns": ((X0[:, :0], Y0), {}, "no column is left as an input"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_on_one_line(kind):
    given, options, message = BAD[kind]
    assert message in refused(*given, **options)


def test_a_class_with_one_row_left_is_a_doubt():
    X, y = rows(2)
    y = np.where(np.arange(90) < 2, 2, y)
    with pytest.warns(wd.WeightDecayWarning, match="class 2 has one row among the training rows of fold"):
        wd.logistic_path(X, y, CS)


def test_a_judge_is_checked():
    with pytest.raises(wd.InputError, match="no such judge: judge = 'f1'; use log_loss, error, brier, auc"):
        fit_path(X0, Y0, LogisticOptions(judge="f1"))


def test_no_penalty_at_all_is_the_limit_of_little():
    X, y = rows(2, n=200)
    path = wd.logistic_path(X, y, [0.0, 0.1])
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(X, y)
    np.testing.assert_allclose(path.coef(0.0), model.coef_[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(path.intercept(0.0), model.intercept_[0], rtol=1e-5)
    assert path.best == 0
    assert path.model().lam == 0
    assert path.coef_frame().height == 7


def test_a_fit_that_has_not_reached_its_minimum_is_told(monkeypatch):
    X, y = rows(2)
    monkeypatch.setattr(record, "REACHED", 1e-30)
    with pytest.warns(
        wd.WeightDecayWarning, match="at 3 λ from .* a fit has not reached its minimum: the grad"
    ):
        path = wd.logistic_path(X, y, CS)
    assert not any("every fit is at its minimum" in note for note in path.notes)


def test_columns_that_say_nothing_leave_the_class_shares():
    y = np.arange(60) % 3 == 0
    for cv in (5, "loo"):
        path = wd.logistic_path(np.ones((60, 2)), y, [0.1, 1.0], cv=cv)
        torch.testing.assert_close(path.coef(), torch.zeros(2).double(), rtol=0, atol=1e-9)
        np.testing.assert_allclose(path.predict_proba(np.ones((1, 2)))[0], [2 / 3, 1 / 3], rtol=1e-8)
        np.testing.assert_allclose(path.standard_errors(), 0)


def test_separable_classes_without_a_penalty_are_a_doubt():
    """There is no minimum: not at λ = 0, and at no λ where the separating column is free."""
    X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = X[:, 0] > 0
    with pytest.warns(wd.WeightDecayWarning, match="no minimum at λ = 0"):
        path = wd.logistic_path(X, labels, [0.0, 0.1])
    assert any("that is safe: λ = 0.1" in note for note in path.notes)
    assert not any("at its minimum" in note for note in path.notes)
    with pytest.warns(wd.WeightDecayWarning, match="columns without a penalty separate the classes"):
        wd.logistic_path(X, labels, [0.01, 1.0], penalty_factors=[0, 1, 1])
    with pytest.warns(wd.WeightDecayWarning, match="edge of the grid"):
        path = wd.logistic_path(X, labels, [1e-3, 1e-2, 0.1])
    assert not any("no minimum" in doubt for doubt in path.doubts)


def test_balanced_weights_and_the_baseline_count_rows_by_weight():
    """A row of weight 3 is three rows."""
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(60, 2)), (generator.random(60) < 0.3).astype(int)
    weights = generator.integers(1, 4, size=60)
    order = np.repeat(np.arange(60), weights)
    folds = np.arange(60) % 4
    weighted = wd.logistic_path(
        X, y, [0.05], cv=folds, class_weight="balanced", sample_weight=weights.astype(float)
    )
    repeated = wd.logistic_path(X[order], y[order], [0.05], cv=folds[order], class_weight="balanced")
    torch.testing.assert_close(weighted.coef(), repeated.coef(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(weighted.intercept(), repeated.intercept(), rtol=1e-6, atol=1e-8)
    plain = wd.logistic_path(X, y, [0.05], cv=folds, sample_weight=weights.astype(float))
    again = wd.logistic_path(X[order], y[order], [0.05], cv=folds[order])
    assert plain.share_wrong == pytest.approx(again.share_wrong)
    assert plain.share_wrong != pytest.approx(min(y.mean(), 1 - y.mean()))
