"""Figures of a path of logistic regression show what the record holds."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import weightdecay as wd
from weightdecay.logistic.table_fit import coefficient_path, importance

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
LAMBDAS = torch.logspace(-3, 1, 9, dtype=torch.float64)


@pytest.fixture(autouse=True)
def no_display():
    mpl.use("agg")
    yield
    plt.close("all")


def made(classes=2, n=80, p=12):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    score = X[:, 0] - 0.5 * X[:, 3] + torch.randn(n, generator=generator, dtype=torch.float64)
    edges = score.quantile(torch.linspace(0, 1, classes + 1, dtype=torch.float64)[1:-1])
    return X, [f"class {k}" for k in torch.bucketize(score, edges).tolist()]


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("judge", ["log_loss", "error", "brier", "auc"])
def test_the_curve_has_its_band_and_both_choices(judge):
    path = wd.logistic_path(*made(), LAMBDAS, cv=4, judge=judge)
    ax = wd.plot(path)
    curve = max(ax.lines, key=lambda line: len(line.get_xdata()))
    np.testing.assert_array_equal(curve.get_xdata(), LAMBDAS)
    np.testing.assert_array_equal(curve.get_ydata(), path.scores)
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(float((path.scores + path.errors).max()))
    marks = {line.get_marker(): line.get_xdata()[0] for line in ax.lines if line.get_marker() in ("o", "D")
             and len(line.get_xdata()) == 1}  # fmt: skip
    assert marks == {"o": path.best, "D": path.one_se}
    words = {"log_loss": "log loss", "error": "error rate", "brier": "Brier score", "auc": "1 − AUC"}
    assert ax.get_ylabel() == f"{words[judge]} of rows held out"
    assert ax.get_title().startswith("80 rows, 12 columns; 4 folds by class, shuffled, seed 0")


@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("cv", ["loo", "evidence"])
def test_few_strengths_and_many_classes_can_be_drawn(tmp_path, classes, cv):
    for lambdas in ([0.1], [0.01, 0.1, 1.0]):
        path = wd.logistic_path(*made(classes), lambdas, cv=cv)
        wd.plot(path).figure.canvas.draw()
        panels = 1 if classes == 2 else min(classes, 6)
        for view in (coefficient_path(path), importance(path)):
            drawn = np.atleast_1d(wd.plot(view))
            assert len(drawn) == panels
            drawn[0].figure.canvas.draw()
        wd.report(path, tmp_path / "page.html")
        assert ("Reliability" in (tmp_path / "page.html").read_text("utf-8")) == (cv == "loo")


@pytest.mark.parametrize("classes", [2, 3])
def test_the_coefficients_are_those_of_the_path_times_the_columns_sd(classes):
    X, y = made(classes)
    path = wd.logistic_path(X, y, LAMBDAS, cv=4)
    view, scale = coefficient_path(path), X.std(0, correction=0)
    place = [int(name.removeprefix("column ")) - 1 for name in view.names]
    for at, lam in enumerate(LAMBDAS.tolist()):
        expected = (path.coef(lam) * scale).reshape(-1, 12)[:, place].T
        torch.testing.assert_close(view.coef[at], expected, rtol=1e-12, atol=0)
    size = (path.coef(path.best) * scale).reshape(-1, 12).abs().amax(0)
    assert place == size.argsort(descending=True).tolist()
    most = importance(path, path.one_se, most=3)
    coef, errors = ((each * scale).reshape(-1, 12) for each in (
        path.coef(path.one_se), path.standard_errors(path.one_se)
    ))  # fmt: skip
    for t in range(len(most.targets)):
        order = coef[t].abs().argsort(descending=True)[:3]
        assert most.names[t] == tuple(f"column {j + 1}" for j in order.tolist())
        torch.testing.assert_close(most.half[t], 1.6448536 * errors[t, order], rtol=1e-6, atol=0)
    assert most.targets == (("class 1",) if classes == 2 else ("class 0", "class 1", "class 2"))
    words = "change of the log odds" if classes == 2 else "change of the class's logit"
    assert np.atleast_1d(wd.plot(most))[0].get_xlabel().startswith(words)


def test_reliability_is_drawn_with_its_errors():
    path = wd.logistic_path(*made(n=400), LAMBDAS, cv=4)
    found = path.calibration()
    ax = wd.plot(found)
    points = ax.containers[0][0]
    np.testing.assert_array_equal(points.get_xdata(), found.table["predicted"])
    np.testing.assert_array_equal(points.get_ydata(), found.table["observed"])
    ends = [bar.vertices[:, 1] for bar in ax.containers[0][2][0].get_paths()]
    np.testing.assert_allclose([high - low for low, high in ends], 2 * found.table["error"])
    assert f"expected calibration error {100 * found.error:.2g} %" in ax.get_title()


def test_a_loaded_path_is_drawn_as_the_path(tmp_path):
    path = wd.logistic_path(*made(3), LAMBDAS, cv=4)
    path.save(tmp_path / "path")
    loaded = wd.load(tmp_path / "path")
    assert (
        wd.report(path, tmp_path / "a.html").read_bytes()
        == wd.report(loaded, tmp_path / "b.html").read_bytes()
    )
    with pytest.raises(wd.InputError, match="y belongs to a ridge path"):
        wd.report(path, tmp_path / "c.html", y=[1, 2])
