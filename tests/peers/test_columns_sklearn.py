"""Columns and missing cells fold by fold against pipelines of scikit-learn."""

import numpy as np
import polars as pl
import pytest

import weightdecay as wd

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")]
ALPHAS = [1e-3, 1.0, 50.0]
LEVELS = [["oslo", "paris", "rome"], ["a", "b", "c", "d"]]


def table(n, seed, missing=False):
    """Two categories, and three numbers on scales far apart."""
    random = np.random.default_rng(seed)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "age": random.normal(40, 9, n),
            "city": random.choice(LEVELS[0], n),
            "income": random.lognormal(8, 1, n),
            "kind": random.choice(LEVELS[1], n, p=[0.5, 0.3, 0.1, 0.1]),
            "height": random.normal(1.7, 0.1, n),
        }
    )
    y = frame["age"] / 9 + (frame["city"] == "rome") * 2 + np.log(frame["income"]) + random.normal(size=n)
    if missing:
        frame.loc[random.random(n) < 0.15, "age"] = np.nan
        frame.loc[random.random(n) < 0.03, "height"] = np.nan
    return frame, y.to_numpy()


def pipeline(alpha, scaled, missing):
    """What a user of scikit-learn writes: levels of the whole table, all else fitted in the fold."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    parts = [
        ("levels", OneHotEncoder(categories=LEVELS, sparse_output=False), ["city", "kind"]),
        ("age", SimpleImputer(add_indicator=missing), ["age"]),
        ("numbers", SimpleImputer(), ["income", "height"]),
    ]
    steps = [
        ColumnTransformer(parts),
        *([StandardScaler()] if scaled else []),
        Ridge(alpha=alpha, solver="svd"),
    ]
    return make_pipeline(*steps)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("n", [60, 3000])  # by singular values, and by moments
def test_fold_by_fold_as_a_pipeline(n, scaled, missing, seed):
    frame, y = table(n, seed, missing)
    folds = np.random.default_rng(seed).integers(0, 4, n)
    if n == 60:  # a level that only one fold holds
        frame.loc[frame["kind"] == "d", "kind"] = "c"
        frame.loc[np.flatnonzero(folds == 2)[:5], "kind"] = "d"
    options = {"missing": "mean"} if missing else {}
    path = wd.ridge_path(frame, y, ALPHAS, cv=folds, unit="sklearn.Ridge", standardize=scaled, **options)
    assert len(path.features) == 3 + 3 + 4 + missing
    for place, alpha in enumerate(ALPHAS):
        right = np.empty(n)
        for k in range(4):
            seen, held = folds != k, folds == k
            fitted = pipeline(alpha, scaled, missing).fit(frame[seen], y[seen])
            right[held] = fitted.predict(frame[held])
            error = ((right[held] - y[held]) ** 2).mean()
            np.testing.assert_allclose(path.fold_scores[k, place], error, rtol=1e-8)
        np.testing.assert_allclose(path.out_of_fold(alpha), right, rtol=1e-8)
        np.testing.assert_allclose(path.scores[place], ((right - y) ** 2).mean(), rtol=1e-8)
        final = pipeline(alpha, scaled, missing).fit(frame, y)
        new, _ = table(40, seed + 9, missing)
        np.testing.assert_allclose(path.model(alpha).predict(new), final.predict(new), rtol=1e-8)


def test_a_wide_table_with_missing_cells():
    """More inputs than rows: by products of the rows."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    random = np.random.default_rng(0)
    X = random.normal(size=(240, 600)) + 2
    y = X[:, :5].sum(1) + random.normal(size=240)
    X[random.random(X.shape) < 0.005] = np.nan
    folds = np.arange(240) % 3
    path = wd.ridge_path(X, y, [1.0, 30.0], cv=folds, unit="sklearn.Ridge", missing="mean")
    for place, alpha in enumerate((1.0, 30.0)):
        right = np.empty(240)
        for k in range(3):
            fitted = make_pipeline(SimpleImputer(), Ridge(alpha=alpha)).fit(X[folds != k], y[folds != k])
            right[folds == k] = fitted.predict(X[folds == k])
        np.testing.assert_allclose(path.out_of_fold(alpha), right, rtol=1e-8)
        np.testing.assert_allclose(path.scores[place], ((right - y) ** 2).mean(), rtol=1e-8)
    whole = make_pipeline(SimpleImputer(), Ridge(alpha=1.0)).fit(X, y)
    np.testing.assert_allclose(path.predict(X, 1.0), whole.predict(X), rtol=1e-8)


def test_missing_cells_from_a_file_and_the_estimator(tmp_path):
    """The model that fit writes fills what predict meets, and says where."""
    from tests.commands import here

    from weightdecay.ridge.sklearn import RidgePathCV

    frame, y = table(120, 3, missing=True)
    text = pl.DataFrame(frame.assign(y=y).to_dict("list"), nan_to_null=True)
    text.write_csv(tmp_path / "t.csv")
    words = ("fit", "t.csv", "--target", "y", "--missing", "mean", "--lambda", 0.1, "--out", "a")
    done = here(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cells = int(frame.isna().sum().sum())
    assert f"note: {cells} missing cells of 2 columns take the mean of the training rows" in done.stderr
    assert "a further column says where: 'age'" in done.stderr
    assert here("predict", "a", "t.csv", "--out", "p.csv", cwd=tmp_path).returncode == 0
    final = pipeline(0.1 * 120, True, True).fit(frame, y)
    np.testing.assert_allclose(
        pl.read_csv(tmp_path / "p.csv")["y_predicted"], final.predict(frame), rtol=1e-8
    )
    estimator = RidgePathCV([12.0], cv=5, standardize=True, missing="mean").fit(frame, y)
    np.testing.assert_allclose(estimator.predict(frame), final.predict(frame), rtol=1e-8)
    for way, part in ((("--cv", "loo"), "need folds"), (("--out-of-core",), "need the rows in memory")):
        done = here(*words[:-2], *way, "--out", "b", cwd=tmp_path)
        assert (done.returncode, part in done.stderr) == (2, True), done.stderr
