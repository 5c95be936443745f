"""What a person sees: figures, the terminal's chart, the notebook's growing curves."""

import dataclasses
import math
from base64 import b64decode

import matplotlib as mpl
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from rich.console import Console
from tests.helpers import small

import weightdecay as wd
from weightdecay.reports import terminal
from weightdecay.reports.report import save_figures
from weightdecay.textbook.record import Evaluation


@pytest.fixture(scope="module")
def run():
    return wd.run_experiment(small(seeds=3, lambdas=(0.0, 1.0), curve=(0.1, 1.0, 10.0), curve_seeds=4))


@pytest.fixture(autouse=True)
def no_display():
    mpl.use("agg")


def test_curves_draw_what_the_run_holds(run):
    axes = wd.plot(run)
    assert axes.shape == (2, 2)
    for row, version in zip(axes, ("scratch", "concise"), strict=True):
        for ax, lam in zip(row, (0.0, 1.0), strict=True):
            losses = run.losses(version, lam)
            train, test = ax.lines
            np.testing.assert_array_equal(train.get_ydata(), losses["train_loss"])
            np.testing.assert_array_equal(test.get_ydata(), losses["test_loss"])
            np.testing.assert_array_equal(train.get_xdata(), [2, 4, 6])
            assert ax.get_yscale() == "log"
            assert ax.get_title() == f"{version}, λ = {lam:g}"
            assert len(ax.collections) == 1  # the band over seeds


def test_the_curve_over_lam_draws_measurement_theory_and_the_best(run):
    ax = wd.plot(run.curve)
    lines = {line.get_label(): line for line in ax.lines}
    assert len(lines) == 5
    measured = next(line for label, line in lines.items() if label.startswith("measured"))
    np.testing.assert_array_equal(measured.get_ydata(), run.curve.table["test_loss"])
    theory = next(line for label, line in lines.items() if "as many steps" in label)
    np.testing.assert_array_equal(theory.get_ydata(), run.curve.table["theory"])
    assert f"least measured: λ = {run.curve.best_lam:.3g}" in lines
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_a_curve_without_theory_is_drawn_without():
    settings = small(versions=("two-optimizers",), lambdas=(0.0, 1.0), curve=(0.1, 1.0), curve_seeds=2)
    labels = [line.get_label() for line in wd.plot(wd.run_experiment(settings).curve).lines]
    assert len(labels) == 4
    assert not any("as many steps" in label for label in labels)


def test_a_single_look_is_a_point():
    ax = wd.plot(wd.run_experiment(small(every=1000)))[0, 0]
    assert [line.get_marker() for line in ax.lines] == ["o", "o"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_number_is_cut_in_a_narrow_terminal(run, width):
    console = Console(force_terminal=True, width=width, record=True)
    terminal.print_run(run, console)
    shown = " ".join(console.export_text().split())
    assert "…" not in shown
    for outcome in run.outcomes:
        assert f"{outcome.w_norm:.4g}" in shown
        assert f"{outcome.theory:.4g}" in shown
    assert ("┃ version" in shown) == (width >= 80)


def test_plot_draws_into_given_axes_and_nothing_else(run):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert wd.plot(run.curve, ax) is ax
    with pytest.raises(
        TypeError,
        match="a Sweep, a RidgePath, a LogisticPath or a Monitored, not NoneType",
    ):
        wd.plot(None)


def test_figures_are_files_with_the_same_bits_each_time(run, tmp_path):
    paths = save_figures(run, tmp_path)
    assert [path.name for path in paths] == ["curves.svg", "curves.png", "lambda.svg", "lambda.png"]
    bits = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in save_figures(run, tmp_path)] == bits
    save_figures(dataclasses.replace(run, curve=None), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "curves.svg"]


def test_an_interrupted_run_is_drawn_as_far_as_it_went(run, tmp_path):
    partial = dataclasses.replace(run, results=run.results.head(2), outcomes=(), curve=None, complete=False)
    assert len(save_figures(partial, tmp_path)) == 2
    empty = dataclasses.replace(partial, results=run.results.head(0))
    assert len(save_figures(empty, tmp_path)) == 2


def looks(losses):
    return [
        Evaluation("scratch", 0, 3.0, epoch, train, test, 1.0, len(losses))
        for epoch, (train, test) in enumerate(losses, start=1)
    ]


def test_the_terminal_chart_puts_dots_where_the_losses_are():
    losses = [(10.0 ** (2 - i), 100.0) for i in range(5)]  # train falls from 1e2 to 1e-2, test stays
    text = terminal.chart(looks(losses), [value for pair in losses for value in pair], width=27, height=5)
    lines = text.plain.splitlines()
    assert [len(line) for line in lines] == [27] * 5
    assert lines[0].startswith("  1e2 ┤")
    assert lines[-1].startswith(" 1e-2 ┤")
    # train is on every line, further right on each; test on the first line only
    columns = [min(i for i, c in enumerate(line[7:]) if c != " ") for line in lines]
    assert columns == sorted(columns)
    assert lines[-1].rstrip()[-1] != " "
    styles = {span.style for span in text.spans}
    assert {terminal.TRAIN_STYLE, terminal.TEST_STYLE} <= styles


@pytest.mark.parametrize("losses", [[(math.nan, math.inf)], [(0.0, 0.0)], [(1.0, 1.0)]])
def test_the_terminal_chart_survives_odd_losses(losses):
    terminal.chart(looks(losses), [value for pair in losses for value in pair], width=30, height=4)


def test_curves_grow_in_a_terminal(run):
    console = Console(force_terminal=True, width=100, height=40, record=True)
    with terminal.GrowingCurves(console, 4) as watcher:
        wd.run_experiment(
            run.experiment, on_evaluation=watcher.on_evaluation, on_progress=watcher.on_progress
        )
    shown = console.export_text()
    for part in (
        "scratch, λ = 0",
        "concise, λ = 1",
        "epoch 6 of 6",
        "4/4",
        "6 trainings at once",
        "the curve",
    ):
        assert part in shown


def test_curves_grow_in_a_notebook(run):
    """In a real IPython shell, at every look a picture; the last drawing has all the looks."""
    InteractiveShell.instance()
    live, figures = wd.LiveCurves(seconds=0), []
    draw = live._draw
    live._draw = lambda: figures.append(draw()) or figures[-1]
    with capture_output() as captured:
        wd.run_experiment(run.experiment, on_evaluation=live)
    assert len(captured.outputs) == len(figures) == 12
    for output in captured.outputs:
        assert b64decode(output.data["image/png"]).startswith(b"\x89PNG")
    assert len(figures[-1].axes) == 4
    train, test = figures[-1].axes[-1].lines
    losses = run.results.filter(seed=0, version="concise", lam=1.0)
    np.testing.assert_array_equal(train.get_ydata(), losses["train_loss"])
    np.testing.assert_array_equal(test.get_ydata(), losses["test_loss"])


def test_live_curves_can_be_used_again(run):
    with capture_output():
        live = wd.LiveCurves(seconds=0)
        wd.run_experiment(run.experiment, on_evaluation=live)
        first = live._handle
        wd.run_experiment(run.experiment, on_evaluation=live)
    assert live._handle is not first
    assert [len(looks) for looks in live._trainings.values()] == [3, 3, 3, 3]


def test_slow_notebooks_are_not_redrawn_too_often(run):
    with capture_output() as captured:
        wd.run_experiment(run.experiment, on_evaluation=wd.LiveCurves(seconds=3600))
    assert len(captured.outputs) <= 5  # the first look and the end of each training
