"""`LogisticPathCV` as scikit-learn expects a classifier, and against its LogisticRegression."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from weightdecay.errors import InputError
from weightdecay.logistic.sklearn import LogisticPathCV

# Curves that are flat, or fall to an edge of the grid, are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
CS = np.logspace(-3, 1, 5)
FOLDS = StratifiedKFold(4)


def data(C=3, n=90, p=6, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p)) + 1
    return X, np.array(["ant", "bee", "cat", "dog"])[
        (X @ random.normal(size=(p, C)) + 2 * random.gumbel(size=(n, C))).argmax(1)
    ]


def exact(C, **options):
    return LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000, **options)


@pytest.mark.parametrize("cv", ["loo", 3])
def test_every_check_of_scikit_learn_passes(cv):
    """In a process of its own: it calls the constructor with values of every type."""
    script = (
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "from weightdecay.logistic.sklearn import LogisticPathCV\n"
        f"results = check_estimator(LogisticPathCV(cv={cv!r}), on_skip=None)\n"
        "assert len(results) > 50\n"
        "print(*(one['check_name'] for one in results if one['status'] != 'passed'))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "check_array_api_input\n"  # skipped: wants an environment variable


@pytest.mark.parametrize("C", [2, 3])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_the_chosen_fit_is_that_of_logistic_regression(C, fit_intercept):
    X, y = data(C)
    weights = np.random.default_rng(1).uniform(0.2, 9, size=len(X))
    ours = LogisticPathCV(CS, cv=FOLDS, fit_intercept=fit_intercept).fit(X, y, weights)
    scores = []
    for strength in CS:
        losses = 0
        for train, test in FOLDS.split(X, y):
            model = exact(strength, fit_intercept=fit_intercept).fit(X[train], y[train], weights[train])
            losses += log_loss(
                y[test], model.predict_proba(X[test]), sample_weight=weights[test], normalize=False
            )
        scores.append(losses / weights.sum())
    assert pytest.approx(CS[np.argmin(scores)]) == ours.C_
    assert ours.best_score_ == pytest.approx(-min(scores), rel=1e-7)
    np.testing.assert_allclose(ours.path_.scores, scores[::-1], rtol=1e-7)
    peer = exact(ours.C_, fit_intercept=fit_intercept).fit(X, y, weights)
    assert ours.coef_.shape == peer.coef_.shape
    assert ours.intercept_.shape == peer.intercept_.shape
    np.testing.assert_array_equal(ours.classes_, peer.classes_)
    np.testing.assert_allclose(ours.coef_, peer.coef_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), atol=1e-8)
    np.testing.assert_allclose(ours.predict_log_proba(X), peer.predict_log_proba(X), atol=1e-7)
    np.testing.assert_array_equal(ours.predict(X), peer.predict(X))
    assert ours.score(X, y) == peer.score(X, y)
    assert ours.decision_function(X).shape == peer.decision_function(X).shape
    assert ours.lam_ * len(X) == pytest.approx(1 / (ours.C_ * weights.mean()))


def test_it_chooses_as_logistic_regression_cv_does():
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    peer = LogisticRegressionCV(
        Cs=CS, cv=FOLDS, scoring="neg_log_loss", tol=1e-10, max_iter=1000, solver="newton-cholesky",
        l1_ratios=(0,), use_legacy_attributes=False,
    ).fit(X, y)  # fmt: skip
    ours = LogisticPathCV(CS, cv=FOLDS).fit(X, y)
    assert pytest.approx(float(np.ravel(peer.C_)[0])) == ours.C_
    np.testing.assert_allclose(ours.coef_, peer.coef_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours.path_.fold_scores.flip(1), -np.squeeze(peer.scores_), rtol=1e-6)


def test_class_weights_are_those_of_logistic_regression():
    X, y = data(3)
    for given in ("balanced", {"ant": 3.0, "bee": 0.5, "cat": 1.0}):
        ours = LogisticPathCV([0.3], cv=FOLDS, class_weight=given).fit(X, y)
        peer = exact(0.3, class_weight=given).fit(X, y)
        assert pytest.approx(0.3) == ours.C_
        np.testing.assert_allclose(ours.coef_, peer.coef_, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), atol=1e-7)


def test_one_standard_error_chooses_a_smaller_c():
    X, y = data(3)
    best = LogisticPathCV(cv=FOLDS).fit(X, y)
    larger = LogisticPathCV(cv=FOLDS, choose="one_se").fit(X, y)
    assert larger.C_ < best.C_
    np.testing.assert_allclose(larger.coef_, exact(larger.C_).fit(X, y).coef_, rtol=1e-5, atol=1e-8)
    area = LogisticPathCV(cv=FOLDS, judge="auc").fit(*data(2))
    assert 0.5 < area.best_score_ < 1


def test_standardised_columns_are_a_pipeline_with_a_scaler_in_every_fold():
    X, y = data(3)
    X = X * 10.0 ** np.arange(6)
    ours = LogisticPathCV([0.3], cv=FOLDS, standardize=True).fit(X, y)
    peer = make_pipeline(StandardScaler(), exact(0.3))
    expected = cross_val_predict(peer, X, y, cv=FOLDS, method="predict_proba")
    np.testing.assert_allclose(ours.path_.out_of_fold(), expected, atol=1e-7)
    np.testing.assert_allclose(ours.predict_proba(X), peer.fit(X, y).predict_proba(X), atol=1e-7)


def test_weights_are_repetitions_where_folds_are_given():
    X, y = data(3)
    weights = np.random.default_rng(3).integers(0, 4, size=len(X))
    many, fold = np.repeat(np.arange(len(X)), weights), np.arange(len(X)) % 3
    pairs = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    pairs_of_many = [(np.flatnonzero(fold[many] != k), np.flatnonzero(fold[many] == k)) for k in range(3)]
    for Cs in (None, CS):
        weighted = LogisticPathCV(Cs, cv=pairs).fit(X, y, weights)
        repeated = LogisticPathCV(Cs, cv=pairs_of_many).fit(X[many], y[many])
        np.testing.assert_allclose(weighted.C_, repeated.C_, rtol=1e-9)
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(weighted.best_score_, repeated.best_score_, rtol=1e-8)


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_pipelines_clones_and_pickles(output):
    X, y = data(3)
    names = list("abcdef")
    table = pd.DataFrame(X, columns=names) if output == "pandas" else pl.DataFrame(X, schema=names)
    pipeline = make_pipeline(StandardScaler(), LogisticPathCV(CS, cv=3)).set_output(transform=output)
    pipeline.fit(table, y)
    assert list(pipeline[-1].feature_names_in_) == names
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(again.predict_proba(table), pipeline.predict_proba(table))
    assert not hasattr(again[-1], "path_")
    bare = clone(pipeline)[-1]
    assert bare.get_params() == LogisticPathCV(CS, cv=3).get_params() | {"Cs": bare.Cs}
    with pytest.raises(NotFittedError):
        bare.predict(X)
    assert cross_val_predict(LogisticPathCV(CS, cv=3), X, y, cv=3).shape == y.shape


def test_frames_with_texts_missing_cells_and_groups():
    X, y = data(3)
    place = np.array(["north", "south", "east"])[np.arange(90) % 3]
    frame = pl.DataFrame(X, schema=list("abcdef")).with_columns(place=pl.Series(place))
    model = LogisticPathCV(CS, cv=FOLDS, unseen="base").fit(frame, y)
    assert model.features_ == (*"abcdef", "place=east", "place=north", "place=south")
    by_hand = np.c_[X, place == "east", place == "north", place == "south"]
    plain = LogisticPathCV(CS, cv=FOLDS).fit(by_hand, y)
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.predict_proba(frame), plain.predict_proba(by_hand))
    assert model.predict(frame.with_columns(place=pl.lit("west"))).shape == (90,)
    holes = frame.with_columns(a=pl.when(pl.int_range(90) < 4).then(None).otherwise(pl.col("a")))
    dropped = LogisticPathCV(CS, cv=3, missing="drop").fit(holes, y, np.arange(1.0, 91.0))
    rest = LogisticPathCV(CS, cv=3).fit(frame[4:], y[4:], np.arange(5.0, 91.0))
    assert pytest.approx(rest.C_) == dropped.C_
    np.testing.assert_allclose(dropped.coef_, rest.coef_, rtol=1e-6, atol=1e-9)
    grouped = LogisticPathCV(CS, cv=GroupKFold(3)).fit(X, y, groups=np.arange(90) // 6)
    assert grouped.path_.fold_scores.shape == (3, 5)


@pytest.mark.parametrize(
    ("options", "weights", "message"),
    [
        ({"Cs": [-1.0]}, None, "not a strength: Cs = -1.0"),
        ({"Cs": "x"}, None, "not numbers: Cs = 'x'"),
        ({"Cs": [0.0]}, None, "no λ belongs to it"),
        ({"cv": "loocv"}, None, "no such criterion: cv = 'loocv'"),
        ({"choose": "1se"}, None, "no such choice: choose = '1se'"),
        ({"judge": "auc"}, None, "defined for two classes"),
        ({"cv": 3}, [-1.0] * 90, r"sample_weight\[0\] = -1"),
        ({"cv": 3, "penalty_factors": [1.0]}, None, "penalty_factors"),
        ({"cv": 3, "missing": "mean"}, None, "means of the training rows"),
    ],
)
def test_what_cannot_be_used_is_an_input_error(options, weights, message):
    X, y = data()
    with pytest.raises(InputError, match=message):
        LogisticPathCV(**options).fit(X, y, weights)


def test_without_scikit_learn_it_says_what_to_install():
    script = (
        "import sys; sys.modules['sklearn'] = None; import weightdecay.logistic, weightdecay.logistic.sklearn"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'needs scikit-learn: pip install "weightdecay[sklearn]"' in done.stderr.splitlines()[-1]
