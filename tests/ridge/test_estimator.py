"""`RidgePathCV` as scikit-learn expects an estimator, and against its `RidgeCV`."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GroupKFold, KFold, TimeSeriesSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from weightdecay.errors import InputError
from weightdecay.ridge.sklearn import RidgePathCV

# Curves that are flat, or fall to an edge of the grid, are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
ALPHAS = np.logspace(-2, 4, 13)


def data(n=60, p=8, targets=None, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p)) + 2
    y = X @ random.normal(size=(p, targets or 1)) + 3 * random.normal(size=(n, targets or 1))
    return X, y if targets else y[:, 0]


@pytest.mark.parametrize("cv", ["loo", 3])
def test_every_check_of_scikit_learn_passes(cv):
    """In a process of its own: it calls the constructor with values of every type."""
    script = (
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "from weightdecay.ridge.sklearn import RidgePathCV\n"
        f"results = check_estimator(RidgePathCV(cv={cv!r}), on_skip=None)\n"
        "assert len(results) > 50\n"
        "print(*(one['check_name'] for one in results if one['status'] != 'passed'))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "check_array_api_input\n"  # skipped: wants an environment variable


@pytest.mark.parametrize("shape", [(60, 8), (20, 50)])
@pytest.mark.parametrize("targets", [None, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_leave_one_out_is_that_of_ridge_cv(shape, targets, weighted, fit_intercept):
    X, y = data(*shape, targets)
    weights = np.random.default_rng(1).uniform(0.2, 9, size=len(X)) if weighted else None
    ours = RidgePathCV(ALPHAS, alpha_per_target=True, fit_intercept=fit_intercept).fit(X, y, weights)
    peer = RidgeCV(ALPHAS, alpha_per_target=targets is not None, fit_intercept=fit_intercept)
    peer.fit(X, y, weights)
    np.testing.assert_allclose(ours.alpha_, peer.alpha_, rtol=1e-12)
    np.testing.assert_allclose(ours.coef_, peer.coef_, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(ours.intercept_, peer.intercept_, rtol=1e-8, atol=1e-9)
    assert ours.coef_.shape == peer.coef_.shape
    assert np.shape(ours.alpha_) == np.shape(peer.alpha_)
    if not weighted:  # scikit-learn multiplies its weighted errors by other factors
        np.testing.assert_allclose(ours.best_score_, peer.best_score_, rtol=1e-8)
    np.testing.assert_allclose(ours.predict(X), peer.predict(X), rtol=1e-8)


@pytest.mark.parametrize("splitter", [KFold(4), TimeSeriesSplit(4), GroupKFold(4)])
def test_folds_are_refits_of_ridge(splitter):
    """Each α: pooled squared errors of Ridge fitted to each fold's training rows, with the same alpha."""
    X, y = data()
    groups = np.arange(len(X)) % 7
    weights = np.random.default_rng(2).integers(1, 4, size=len(X)).astype(float)
    given = {"groups": groups} if isinstance(splitter, GroupKFold) else {}
    ours = RidgePathCV(ALPHAS, cv=splitter).fit(X, y, weights, **given)
    errors = []
    for alpha in ALPHAS:
        folds = [
            (weights[test], y[test] - Ridge(alpha).fit(X[train], y[train], weights[train]).predict(X[test]))
            for train, test in splitter.split(X, y, **given)
        ]
        errors.append(sum((w * e**2).sum() for w, e in folds) / sum(w.sum() for w, _ in folds))
    np.testing.assert_allclose(ours.path_.scores, errors, rtol=1e-8)
    assert ours.alpha_ == pytest.approx(ALPHAS[np.argmin(errors)])
    assert ours.best_score_ == pytest.approx(-min(errors), rel=1e-8)
    np.testing.assert_allclose(ours.coef_, Ridge(ours.alpha_).fit(X, y, weights).coef_, rtol=1e-8)


def test_one_alpha_for_all_targets_and_the_larger_one():
    X, y = data(targets=3)
    each = RidgePathCV(ALPHAS, alpha_per_target=True).fit(X, y)
    shared = RidgePathCV(ALPHAS).fit(X, y)
    assert isinstance(shared.alpha_, float)
    assert each.alpha_.shape == each.best_score_.shape == (3,)
    assert min(each.alpha_) <= shared.alpha_ <= max(each.alpha_)
    larger = RidgePathCV(ALPHAS, choose="one_se").fit(X, y)
    assert larger.alpha_ > shared.alpha_
    np.testing.assert_allclose(larger.coef_, Ridge(larger.alpha_).fit(X, y).coef_, rtol=1e-8)


def test_an_automatic_grid_and_standardised_columns():
    X, y = data()
    model = RidgePathCV().fit(X * 10.0 ** np.arange(8), y)
    assert 1e-12 < model.alpha_ < 1e12
    scaled = RidgePathCV(ALPHAS, standardize=True).fit(X * 10.0 ** np.arange(8), y)
    peer = Ridge(scaled.alpha_).fit((X - X.mean(0)) / X.std(0), y)
    np.testing.assert_allclose(scaled.coef_ * X.std(0) * 10.0 ** np.arange(8), peer.coef_, rtol=1e-8)


def pandas_of(X, names):
    return pd.DataFrame(X, columns=names)


def polars_of(X, names):
    return pl.DataFrame(X, schema=names)


@pytest.mark.parametrize("frame", [pandas_of, polars_of])
def test_tables_with_names(frame):
    X, y = data()
    names = list("abcdefgh")
    model = RidgePathCV(ALPHAS).fit(frame(X, names), y)
    assert list(model.feature_names_in_) == names
    assert model.n_features_in_ == 8
    np.testing.assert_allclose(model.predict(frame(X, names)), RidgePathCV(ALPHAS).fit(X, y).predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame(X, names[::-1]))


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_pipelines_clones_and_pickles(output):
    X, y = data()
    pipeline = make_pipeline(StandardScaler(), RidgePathCV(ALPHAS)).set_output(transform=output)
    table = pandas_of(X, list("abcdefgh")) if output == "pandas" else polars_of(X, list("abcdefgh"))
    pipeline.fit(table, y)
    assert list(pipeline[-1].feature_names_in_) == list("abcdefgh")
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(again.predict(table), pipeline.predict(table))
    assert not hasattr(again[-1], "path_")
    bare = clone(pipeline)[-1]
    assert bare.get_params() == RidgePathCV(ALPHAS).get_params() | {"alphas": bare.alphas}
    with pytest.raises(NotFittedError):
        bare.predict(X)
    assert cross_val_predict(RidgePathCV(ALPHAS), X, y, cv=3).shape == y.shape


def test_weights_are_repetitions_where_folds_are_given():
    X, y = data()
    weights = np.random.default_rng(3).integers(0, 4, size=len(X))
    many = np.repeat(np.arange(len(X)), weights)
    fold = np.arange(len(X)) % 3
    pairs = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    pairs_of_many = [(np.flatnonzero(fold[many] != k), np.flatnonzero(fold[many] == k)) for k in range(3)]
    weighted = RidgePathCV(cv=pairs).fit(X, y, weights)
    repeated = RidgePathCV(cv=pairs_of_many).fit(X[many], y[many])
    np.testing.assert_allclose(weighted.alpha_, repeated.alpha_, rtol=1e-9)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-9)
    np.testing.assert_allclose(weighted.best_score_, repeated.best_score_, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "weights", "message"),
    [
        ({"alphas": [-1.0]}, None, "not a strength"),
        ({"alphas": "x"}, None, "not numbers: alphas = 'x'"),
        ({"cv": "loocv"}, None, "no such criterion: cv = 'loocv'"),
        ({"cv": 100}, None, "fewer rows than folds"),
        ({"choose": "1se"}, None, "no such choice: choose = '1se'"),
        ({}, [-1.0] * 60, r"sample_weight\[0\] = -1"),
        ({}, [0.0] * 60, "every row has weight zero"),
        ({}, [1.0] * 59, r"sample_weight = \(59,\); give 60 weights"),
        ({"penalty_factors": [1.0]}, None, "penalty_factors"),
    ],
)
def test_what_cannot_be_used_is_an_input_error(options, weights, message):
    X, y = data()
    with pytest.raises(InputError, match=message):
        RidgePathCV(**options).fit(X, y, weights)


def test_without_scikit_learn_it_says_what_to_install():
    script = "import sys; sys.modules['sklearn'] = None; import weightdecay.ridge, weightdecay.ridge.sklearn"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'needs scikit-learn: pip install "weightdecay[sklearn]"' in done.stderr.splitlines()[-1]
