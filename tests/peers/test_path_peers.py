"""The path against scikit-learn, himalaya and glmnet, to 1e-8 on well-scaled data."""

import shutil
import subprocess
import warnings

import numpy as np
import pytest

import weightdecay as wd

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")]

SHAPES = [(25, 60), (60, 8), (40, 40)]
ALPHAS = np.logspace(-2, 3, 11)


def table(n, p, targets=1):
    random = np.random.default_rng(n)
    X = random.normal(size=(n, p)) + random.normal(size=p)
    y = X @ random.normal(size=(p, targets)) / p**0.5 + random.normal(size=(n, targets)) + 3
    return X, y[:, 0] if targets == 1 else y, random.uniform(0.3, 3, size=n)


def path_of(X, y, cv, alphas=ALPHAS, **options):
    return wd.ridge_path(X, y, alphas, unit="sklearn.Ridge", cv=cv, **options)


def close(found, expected, tolerance=1e-8):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert abs(found - expected).max() < tolerance * abs(expected).max()


@pytest.mark.parametrize(("n", "p"), SHAPES)
@pytest.mark.parametrize("mode", ["svd", "eigen"])
@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_cv_leave_one_out(n, p, mode, weighted):
    """Scores of every row and λ, λ, coefficients. Its scores with weights are w_i e_i², w as given."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y, weights = table(n, p)
    weights = weights / weights.mean() if weighted else None
    peer = linear_model.RidgeCV(ALPHAS, gcv_mode=mode, store_cv_results=True).fit(X, y, weights)
    path = path_of(X, y, "loo", sample_weight=weights)
    np.testing.assert_allclose(path.scores, peer.cv_results_.mean(0), rtol=1e-8)
    assert path.best == pytest.approx(peer.alpha_)
    close(path.coef(), peer.coef_)
    assert float(path.intercept()) == pytest.approx(peer.intercept_, rel=1e-8)


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_ridge_cv_with_a_lam_for_each_target(n, p):
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y, _ = table(n, p, targets=3)
    peer = linear_model.RidgeCV(ALPHAS, alpha_per_target=True, store_cv_results=True).fit(X, y)
    path = path_of(X, y, "loo")
    np.testing.assert_allclose(path.scores.T, peer.cv_results_.mean(0), rtol=1e-8)
    np.testing.assert_allclose(path.best, peer.alpha_)
    close(path.coef(), peer.coef_.T)


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_explicit_ridge_in_each_fold(n, p):
    linear_model = pytest.importorskip("sklearn.linear_model")
    selection = pytest.importorskip("sklearn.model_selection")
    X, y, _ = table(n, p)
    folds = selection.KFold(5, shuffle=True, random_state=0)
    path = path_of(X, y, folds)
    expected = np.empty((5, len(ALPHAS)))
    for k, (train, test) in enumerate(folds.split(X)):
        for j, alpha in enumerate(ALPHAS):
            model = linear_model.Ridge(alpha=alpha, solver="svd").fit(X[train], y[train])
            expected[k, j] = np.mean((y[test] - model.predict(X[test])) ** 2)
    np.testing.assert_allclose(path.fold_scores, expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("KFold", {"n_splits": 5}),
        ("RepeatedKFold", {"n_splits": 4, "n_repeats": 2, "random_state": 0}),
        ("TimeSeriesSplit", {"n_splits": 4, "test_size": 5}),
        ("ShuffleSplit", {"n_splits": 6, "test_size": 0.2, "random_state": 0}),
        ("LeaveOneOut", {}),
        ("GroupKFold", {"n_splits": 5}),
    ],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_grid_search_chooses_the_same(name, options, scaled):
    """Scores of each split with its splitters, a scaler inside the fold or none, and the λ of the best."""
    selection = pytest.importorskip("sklearn.model_selection")
    linear_model = pytest.importorskip("sklearn.linear_model")
    pipeline, preprocessing = (
        pytest.importorskip(f"sklearn.{part}") for part in ("pipeline", "preprocessing")
    )
    X, y, _ = table(40, 12)
    X = X * np.logspace(-1, 1, 12)
    groups = np.arange(40) // 4 if name == "GroupKFold" else None
    splitter = getattr(selection, name)(**options)
    steps = [preprocessing.StandardScaler()] if scaled else []
    model = pipeline.make_pipeline(*steps, linear_model.Ridge())
    search = selection.GridSearchCV(
        model, {"ridge__alpha": ALPHAS}, cv=splitter, scoring="neg_mean_squared_error"
    )
    search.fit(X, y, groups=groups)
    path = path_of(X, y, splitter, groups=groups, standardize=scaled)
    if name != "LeaveOneOut":
        count = splitter.get_n_splits(X, y, groups)
        expected = [-search.cv_results_[f"split{k}_test_score"] for k in range(count)]
        np.testing.assert_allclose(path.fold_scores, np.stack(expected), rtol=1e-8)
    np.testing.assert_allclose(path.scores, -search.cv_results_["mean_test_score"], rtol=1e-8)
    assert path.best == pytest.approx(search.best_params_["ridge__alpha"])
    ridge = search.best_estimator_[-1]
    scale = search.best_estimator_[0].scale_ if scaled else 1.0
    close(path.coef(), ridge.coef_ / scale)


@pytest.mark.parametrize("kind", ["kernel", "columns"])
def test_himalaya(kind):
    """Its scores are minus the squared error at the best λ of each target."""
    torch = pytest.importorskip("torch")
    backend = pytest.importorskip("himalaya.backend")
    selection = pytest.importorskip("sklearn.model_selection")
    folds = selection.KFold(5, shuffle=True, random_state=0)
    if kind == "kernel":
        model = pytest.importorskip("himalaya.kernel_ridge").KernelRidgeCV
        X, y, _ = table(40, 60, targets=3)
    else:
        model = pytest.importorskip("himalaya.ridge").RidgeCV
        X, y, _ = table(60, 8, targets=3)
    backend.set_backend("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = model(alphas=torch.tensor(ALPHAS), cv=folds, fit_intercept=True)
        peer.fit(torch.tensor(X), torch.tensor(y))
    path = path_of(X, y, folds)
    np.testing.assert_allclose(path.best, peer.best_alphas_)
    np.testing.assert_allclose(path.scores.min(0).values, -peer.cv_scores_, rtol=1e-8)
    close(path.predict(X), peer.predict(torch.tensor(X)).numpy())


@pytest.mark.parametrize(("n", "p"), [(60, 8), (40, 25)])
def test_bayesian_ridge_finds_the_most_evident_lam(n, p):
    """Its fixed point, without hyperpriors, is the maximum of the evidence; the curve there is MacKay's."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y, _ = table(n, p)
    flat = dict.fromkeys(("alpha_1", "alpha_2", "lambda_1", "lambda_2"), 0.0)
    peer = linear_model.BayesianRidge(max_iter=5000, tol=1e-12, compute_score=True, **flat).fit(X, y)
    alpha = peer.lambda_ / peer.alpha_
    grid = alpha * np.array([0.01, 0.97, 1, 1.03, 100])  # it centres, and counts the mean as no parameter
    path = path_of(X - X.mean(0), y - y.mean(), "evidence", grid, intercept="none")
    assert path.best == pytest.approx(alpha)
    close(path_of(X, y, "loo", [alpha]).coef(), peer.coef_, 1e-6)


R = """
suppressPackageStartupMessages(library(glmnet))
d <- as.matrix(read.csv("data.csv", header=FALSE)); X <- d[, -1]; y <- d[, 1]
fit <- glmnet(X, y, alpha=0, lambda=c(10, 1, LAMBDA), standardize=FALSE, thresh=1e-22, maxit=1e7)
cat(format(as.vector(coef(fit, s=LAMBDA)), digits=17), "\\n")
"""


def test_glmnet(tmp_path):
    """Coefficients at its λ, given in its own unit; and with `wd.convert`."""
    if not shutil.which("Rscript"):
        pytest.skip("there is no R here")
    X, y, _ = table(60, 8)
    np.savetxt(tmp_path / "data.csv", np.column_stack([y, X]), delimiter=",", fmt="%.17g")
    script = R.replace("LAMBDA", "0.3")
    done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, cwd=tmp_path)
    if "no package called" in done.stderr:
        pytest.skip("R has no glmnet here")
    assert done.returncode == 0, done.stderr
    intercept, *coefficients = (float(value) for value in done.stdout.split())
    path = wd.ridge_path(X, y, [0.03, 0.3, 3.0], unit="glmnet", cv="loo")
    close(path.coef(0.3), coefficients)
    assert float(path.intercept(0.3)) == pytest.approx(intercept, rel=1e-8)
    lam = wd.convert(0.3, "glmnet", "canonical", sd_y=y.std())
    close(wd.ridge_path(X, y, [lam], cv="loo").coef(), coefficients)
