"""Figures of a ridge path show what the record holds, at one target and at many, at one λ and at many."""

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from polars.testing import assert_frame_equal

import weightdecay as wd
from weightdecay.reports.report import save_figure
from weightdecay.ridge.path import ridge_path
from weightdecay.ridge.table_fit import (
    Request,
    coefficient_path,
    fit_table,
    held_out,
    importance,
    load_held_out,
)
from weightdecay.select import student_t

# Curves that are flat, or fall to an edge of the grid, are drawn here on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
LAMBDAS = torch.logspace(-4, 2, 31, dtype=torch.float64)


@pytest.fixture(autouse=True)
def no_display():
    mpl.use("agg")
    yield
    plt.close("all")


def data(n=40, p=12, targets=1, noise=1.0):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    y = X[:, :targets] + noise * torch.randn(n, targets, generator=generator, dtype=torch.float64)
    return X, y[:, 0] if targets == 1 else y


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_curve_has_its_band_and_both_choices():
    X, y = data()
    path = ridge_path(X, y, LAMBDAS, cv=4)
    ax = wd.plot(path)
    curve = max(ax.lines, key=lambda line: len(line.get_xdata()))
    np.testing.assert_array_equal(curve.get_xdata(), LAMBDAS)
    np.testing.assert_array_equal(curve.get_ydata(), path.scores)
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(float((path.scores + path.errors).max()))
    assert band[:, 1].min() == pytest.approx(float((path.scores - path.errors).min()))
    marks = {line.get_marker(): line.get_xdata()[0] for line in ax.lines if line.get_marker() in ("o", "D")
             and len(line.get_xdata()) == 1}  # fmt: skip
    assert marks == {"o": path.best, "D": path.one_se}
    assert labels(ax) == [f"least: λ = {path.best:.3g}", f"one standard error: λ = {path.one_se:.3g}"]
    assert ax.get_xscale() == "log"
    assert ax.get_title() == "40 rows, 12 columns; 4 folds, shuffled, seed 0"
    top = ax.child_axes[0]
    ax.figure.canvas.draw()
    shown = [float(text.get_text()) for text in top.get_xticklabels()]
    np.testing.assert_allclose(shown, path.dof[[0, 5, 10, 15, 20, 25, 30]], rtol=0.06)


def test_edge_and_flatness_are_said():
    X, y = data(noise=100.0)
    path = ridge_path(X, y, [1.0, 10.0, 100.0], cv="loo")
    assert path.edge == "high"
    assert path.flat
    title = wd.plot(path).get_title()
    assert "leave-one-out\nthe least is at the edge: λ → ∞\nflat: no λ" in title
    assert "within one standard error of the least" in labels(wd.plot(path))


@pytest.mark.parametrize("lambdas", [[0.1], [0.1, 1.0], [0.0, 0.1, 1.0, 10.0]])
@pytest.mark.parametrize("targets", [1, 3, 9])
@pytest.mark.parametrize("cv", ["loo", "evidence"])
def test_few_strengths_and_many_targets_can_be_drawn(tmp_path, lambdas, targets, cv):
    X, y = data(targets=targets)
    path = ridge_path(X, y, lambdas, cv=cv)
    ax = wd.plot(path)
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    assert low <= lambdas[0] <= lambdas[-1] <= high
    curves = [line for line in ax.lines if len(line.get_xdata()) == len(lambdas) > 1]
    for curve, scores in zip(curves, path.scores.reshape(len(lambdas), -1).T, strict=False):
        np.testing.assert_array_equal(curve.get_ydata(), scores)
    for view in (coefficient_path(path), importance(path), held_out(path, y)):
        panels = np.atleast_1d(wd.plot(view))
        assert len(panels) == min(targets, 6)
    if targets == 3:
        assert {"target 1", "target 2", "target 3"} <= set(labels(ax))


def test_the_coefficient_path_labels_the_largest():
    X, y = data(targets=3)
    path = ridge_path(X, y, LAMBDAS, cv="loo")
    view = coefficient_path(path)
    scale = X.std(0, correction=0)
    for t, ax in enumerate(wd.plot(view)):
        best = float(path.best[t])
        size = (path.coef(best)[:, t] * scale).abs()
        largest = [f"column {i + 1}" for i in size.argsort(descending=True)[:6].tolist()]
        assert labels(ax)[:6] == largest
        named = next(line for line in ax.lines if line.get_label() == largest[0])
        column = int(size.argmax())
        expected = [float(path.coef(float(lam))[column, t] * scale[column]) for lam in view.lambdas]
        np.testing.assert_allclose(named.get_ydata(), expected, rtol=1e-12)
        assert len(ax.lines) == 12 + 2  # every column, and both choices


def test_many_columns_are_thinned_and_said():
    X, y = data(n=30, p=400)
    view = coefficient_path(ridge_path(X, y, LAMBDAS), most=50, points=10)
    assert view.coef.shape == (8, 50, 1)
    assert "the 50 largest of 400" in wd.plot(view).get_title()


def test_predictions_beside_measurements():
    X, y = data()
    path = ridge_path(X, y, LAMBDAS, cv="loo")
    view = held_out(path, y)
    ax = wd.plot(view)
    points, diagonal = ax.lines
    np.testing.assert_array_equal(points.get_xdata(), y)
    np.testing.assert_array_equal(points.get_ydata(), path.out_of_fold())
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    least = float(path.scores.min())
    assert float(view.rmse) ** 2 == pytest.approx(least, rel=1e-8)  # the score is of these very predictions
    assert float(view.r2) == pytest.approx(1 - least / float(y.var(correction=0)), rel=1e-8)
    assert (
        ax.get_title() == f"target 1: R² = {float(view.r2):.3g}, RMSE = {float(view.rmse):.3g}\nleave-one-out"
    )
    with pytest.raises(wd.InputError, match="not the targets of the fit"):
        held_out(path, y[:-1])


@pytest.mark.parametrize("targets", [1, 3])
def test_the_columns_that_matter_most_are_drawn_with_their_intervals(targets):
    X, y = data(p=24, targets=targets)
    path = ridge_path(X, y, LAMBDAS, cv="loo")
    view = importance(path)
    scale, n = X.std(0, correction=0), len(X)
    axes = np.atleast_1d(wd.plot(view))
    for t, ax in enumerate(axes):
        lam = path.best if targets == 1 else path.best[t]
        coef, errors = (
            values if targets == 1 else values[:, t] for values in (path.coef(), path.standard_errors())
        )
        per_sd = coef * scale
        order = per_sd.abs().argsort(descending=True)[:10]
        assert view.names[t] == tuple(f"column {j + 1}" for j in order.tolist())
        shown = [label.get_text() for label in ax.get_yticklabels()]
        assert shown == list(view.names[t])
        assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the largest on top
        bars = ax.containers[0]
        np.testing.assert_allclose(bars[0].get_xdata(), per_sd[order], rtol=1e-12)
        freedom = n - float(path._dof(path._alphas(lam))[0])
        half = student_t(0.9, freedom) * (errors * scale)[order]
        segments = np.array(bars[2][0].get_segments())
        np.testing.assert_allclose(segments[:, 1, 0] - segments[:, 0, 0], 2 * half, rtol=1e-9)
        assert "the 10 largest of 24; 90 % intervals" in ax.get_title()


def test_without_degrees_of_freedom_there_are_no_intervals():
    X, y = data(n=10, p=30)
    view = importance(ridge_path(X, y, [1e-12], cv="loo"))
    assert bool(view.half.isnan().all())
    assert "interval" not in wd.plot(view).get_title()
    assert view.ends(0, 0) == ""


def test_the_rows_of_largest_error_are_those_of_a_sort(tmp_path):
    X, y = data(targets=2)
    y[:, 1] *= 1000
    path = ridge_path(X, y, LAMBDAS, cv=5)
    view = held_out(path, y)
    error = ((view.predicted - y) / view.rmse).abs()
    right = sorted(((float(error[i, t]), i, t) for i in range(len(y)) for t in range(2)), reverse=True)[:5]
    found = view.worst.select("row", "target").rows()
    assert found == [(i + 1, f"target {t + 1}") for _, i, t in right]
    mean = float((y[:, 1] - y[:, 1].mean()).square().mean().sqrt())
    assert float(view.mean_rmse[1]) == pytest.approx(mean, rel=1e-12)
    # The same of a folder, in memory and out of core.
    table = pl.DataFrame(X.numpy(), schema=[f"x{j}" for j in range(12)]).with_columns(
        u=y[:, 0].numpy(), v=y[:, 1].numpy()
    )
    table.write_csv(tmp_path / "t.csv")
    views = []
    for blocks in (False, True):
        out = tmp_path / str(blocks)
        out.mkdir()
        fit = fit_table(Request(str(tmp_path / "t.csv"), ("u", "v"), cv=5, out_of_core=blocks), out)
        fit.save(out)
        views += [fit.held_out, load_held_out(out, wd.load(out))]
    assert views[0].worst.height == 5
    for other in views[1:]:
        assert_frame_equal(views[0].worst, other.worst, rel_tol=1e-6)
        torch.testing.assert_close(views[0].mean_rmse, other.mean_rmse, rtol=1e-12, atol=0)


def test_rows_that_are_never_held_out_are_left_out():
    X, y = data()
    path = ridge_path(X, y, LAMBDAS, cv=[(torch.arange(20), torch.arange(20, 40))])
    view = held_out(path, y)
    assert bool(view.predicted[:20].isnan().all())
    error = view.predicted[20:, 0] - y[20:]
    assert float(view.rmse) == pytest.approx(float((error**2).mean().sqrt()))
    wd.plot(view)


def test_given_axes_are_drawn_into_and_files_have_the_same_bits(tmp_path):
    X, y = data()
    path = ridge_path(X, y, LAMBDAS)
    ax = Figure().subplots()
    assert wd.plot(path, ax) is ax
    files = save_figure(path, tmp_path, "cv")
    assert [file.name for file in files] == ["cv.svg", "cv.png"]
    bits = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in save_figure(path, tmp_path, "cv")] == bits
    with pytest.raises(TypeError, match="a LogisticPath or a Monitored, not dict"):
        wd.plot({})


def test_the_coefficient_path_needs_no_covariance(monkeypatch):
    """Which is p × p, while the scale of the inputs is p numbers."""
    X, y = data(24, 6)
    path = ridge_path(X, y, LAMBDAS)
    monkeypatch.setattr(type(path), "model", None)
    assert coefficient_path(path).coef.shape == (len(LAMBDAS), 6, 1)
