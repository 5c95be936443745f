"""Figures and tables of a sweep show what the record holds."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from rich.console import Console
from tests.sweeps.records import LAMBDAS, training, trainings

import weightdecay as wd
from weightdecay.reports.report import save_figure
from weightdecay.reports.sweep import SweepBar, print_sweep
from weightdecay.sweeps.record import sweep_record
from weightdecay.sweeps.run import Progress


@pytest.fixture(autouse=True)
def no_display():
    mpl.use("agg")
    yield
    plt.close("all")


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def line(ax, label):
    return next(one for one in ax.lines if one.get_label() == label)


def two_axes(**more):
    rows = [training(lam, seed, lr=0.01, **more) for seed in range(3) for lam in LAMBDAS]
    rows += [
        training(lam, seed, lr=0.1, loss=training(lam, seed).test_loss + 0.1)
        for seed in range(3)
        for lam in LAMBDAS
    ]
    rows += [
        training(lam, seed, lr=1.0, diverged=3 if lam > 0.1 else None) for seed in range(3) for lam in LAMBDAS
    ]
    return sweep_record(rows)


def test_the_curve_has_its_band_no_decay_and_both_choices():
    sweep = sweep_record(trainings())
    ax = wd.plot(sweep)
    curve = line(ax, "mean over seeds")
    np.testing.assert_array_equal(curve.get_xdata(), LAMBDAS[1:])
    np.testing.assert_array_equal(curve.get_ydata(), sweep.scores[1:])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(float((sweep.scores + sweep.errors)[1:].max()))
    assert band[:, 1].min() == pytest.approx(float((sweep.scores - sweep.errors)[1:].min()))
    assert set(line(ax, "no decay").get_ydata()) == {float(sweep.scores[0])}
    assert line(ax, "no decay").get_linestyle() == "--"
    assert line(ax, "best: λ = 1").get_data() == ([1.0], [sweep.selection.mean(1.0)])
    assert line(ax, "one standard error: λ = 1").get_marker() == "D"
    faint = [one for one in ax.lines if one.get_alpha() == 0.35]
    points = sorted(value for one in faint for value in one.get_ydata())
    assert points == sorted(sweep.selection.scores[:, 1:].flatten().tolist())
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "λ", "test loss")
    assert ax.get_title() == "Decoupled, 5 seeds"


def test_one_seed_has_no_band_and_says_so():
    ax = wd.plot(sweep_record(trainings(seeds=1)))
    assert ax.get_title() == "Decoupled, one seed: no error bars"
    assert not ax.collections
    assert labels(ax) == ["no decay", "best: λ = 1"]


def test_what_is_not_told_from_the_best_is_shaded_and_flatness_said():
    rows = [training(lam, seed, loss=float(seed)) for seed in range(2) for lam in LAMBDAS]
    ax = wd.plot(sweep_record(rows))
    assert "flat: one standard error tells no strength from the best" in ax.get_title()
    assert "the best is at the edge: stronger may be better" in ax.get_title()
    assert "not told from the best" in labels(ax)


def test_a_diverged_strength_is_a_cross_at_the_bad_end():
    rows = trainings(LAMBDAS[:-1]) + [training(3.0, seed, diverged=4) for seed in range(5)]
    for goal, side in (({}, 0.97), ({"maximize": "accuracy"}, 0.03)):
        ax = wd.plot(sweep_record(rows, **goal))
        cross = line(ax, "5 trainings diverged")
        assert (cross.get_marker(), list(cross.get_xdata()), list(cross.get_ydata())) == ("x", [3.0], [side])
        assert 3.0 not in line(ax, "mean over seeds").get_xdata()
    none = [training(0.0, seed, diverged=4) for seed in range(5)] + trainings(LAMBDAS[1:])
    ax = wd.plot(sweep_record(none))
    assert "no decay" not in labels(ax)
    assert [text.get_text() for text in ax.texts] == ["no decay diverged"]


def test_no_decay_as_the_best_is_marked_on_its_line():
    rows = [training(lam, seed, loss=lam + 1 + 0.01 * seed) for seed in range(3) for lam in LAMBDAS]
    ax = wd.plot(sweep_record(rows))
    assert "best: no decay" in labels(ax)
    marks = [one for one in ax.lines if one.get_marker() == "o" and list(one.get_xdata()) == [0.01]]
    assert [mark.get_ydata()[0] for mark in marks] == [pytest.approx(1.01)]


def test_stronger_is_to_the_right_in_half_lives():
    rows = [training(life, loss=life or 9.0, unit="half_life_epochs") for life in (0.0, 8.0, 4.0, 2.0)]
    ax = wd.plot(sweep_record(rows))
    low, high = ax.get_xlim()
    assert low > 8 > 2 > high
    assert ax.get_xlabel() == "half-life in epochs"


def test_the_heat_map_has_every_mean_and_frames_the_best():
    sweep = two_axes()
    curves, heat = wd.plot(sweep)
    shown = np.asarray(heat.images[0].get_array().filled(np.nan))
    expected = sweep.heat()["score"].to_numpy().reshape(3, 7)
    np.testing.assert_array_equal(shown, np.where(np.isfinite(expected), expected, np.nan))
    assert [text.get_text() for text in heat.get_yticklabels()] == ["0.01", "0.1", "1"]
    assert [text.get_text() for text in heat.get_xticklabels()][:3] == ["none", "0.01", "0.03"]
    written = {text.get_position(): text.get_text() for text in heat.texts}
    assert written[5, 0] == f"{expected[0, 5]:.3g}"
    assert sum(one.get_marker() == "x" for one in heat.lines) == np.isinf(expected).sum() == 3
    (frame,) = [one for one in heat.lines if one.get_linewidth() == 2.5]
    assert (min(frame.get_xdata()), min(frame.get_ydata())) == (4.5, -0.5)
    assert "Decoupled, lr 0.1" in labels(curves)
    assert "best: λ = 1" in labels(curves)
    alone = wd.plot(sweep, Figure().subplots())  # one Axes gets the curves
    assert labels(alone) == labels(curves)


def test_rules_are_rows_of_their_names():
    rows = [*trainings(seeds=2), *trainings(seeds=2, rule="Cautious")]
    _, heat = wd.plot(sweep_record(rows))
    heat.figure.canvas.draw()
    assert [text.get_text() for text in heat.get_yticklabels()] == ["Decoupled", "Cautious"]


@pytest.mark.parametrize("lambdas", [(1.0,), (0.0, 1.0), (0.1, 1.0), (0.0, *np.logspace(-8, 2, 40).tolist())])
@pytest.mark.parametrize("scale", [1.0, 1e-4, -1.0])
def test_any_grid_and_any_score_can_be_drawn(tmp_path, lambdas, scale):
    rows = [training(lam, seed, loss=scale * (1 + lam + 0.1 * seed)) for seed in range(3) for lam in lambdas]
    files = save_figure(sweep_record(rows), tmp_path, "sweep")
    assert [file.name for file in files] == ["sweep.svg", "sweep.png"]
    bits = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in save_figure(sweep_record(rows), tmp_path, "sweep")] == bits


def test_what_is_no_result_is_refused():
    with pytest.raises(TypeError, match="a Sweep, a RidgePath, a LogisticPath or a Monitored, not dict"):
        wd.plot({})


def printed(sweep):
    console = Console(file=io.StringIO(), width=60, color_system=None)
    print_sweep(sweep, console)
    return console.file.getvalue().splitlines()


def test_the_table_has_a_row_each_strength():
    sweep = sweep_record(trainings(LAMBDAS[:-1]) + [training(3.0, seed, diverged=4) for seed in range(5)])
    head, columns, *rows = printed(sweep)
    assert head == "Decoupled, test loss: mean ± standard error over 5 seeds"
    assert columns.split()[:3] == ["λ", "test", "loss"]
    assert len(rows) == 7
    assert rows[0].split()[:2] == ["no", "decay"]
    assert f"{float(sweep.scores[3]):.4g} ± {float(sweep.errors[3]):.2g}" in rows[3]
    assert rows[5].endswith("–  best")
    assert rows[6].split() == ["3", "–", "–", "5", "diverged"]
    one = printed(sweep_record(trainings(seeds=1)))
    assert one[0] == "Decoupled, test loss: one seed"
    assert not any("±" in row for row in one)


def test_half_lives_have_their_number_and_settings_their_row():
    rows = [
        training(life, s, loss=life or 9.0, unit="half_life_epochs")
        for s in (0, 1)
        for life in (0.0, 8.0, 4.0)
    ]
    lines = printed(sweep_record(rows))
    assert lines[1].split()[:5] == ["half-life", "in", "epochs", "λ", "test"]
    lines = printed(two_axes())
    assert lines[0] == "the best strength of each setting"
    assert lines[2].split()[:4] == ["Decoupled,", "lr", "0.01", "1"]
    assert lines[2].endswith("best")
    assert lines[4].split()[3] == "0.1"
    assert lines[5].startswith("Decoupled, lr 0.01, test loss")


def test_the_bar_tells_trainings_rate_time_left_and_the_best_so_far():
    console = Console(file=io.StringIO(), width=120, height=40, force_terminal=True, color_system=None)
    with SweepBar(console, "weight_decay", curves=True) as bar:
        bar(Progress(0, 40, 1.0, None, None, 0.0))
        bar(Progress(10, 40, 6.0, (0.3, 0.5), training(0.3, 1), 0.25))
    shown = console.file.getvalue()
    assert "10 of 40 trainings, 2/s, 0:15 left, best so far λ = 0.3: 0.5" in shown
    assert "λ = 0.3, seed 1" in shown
    plain = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with SweepBar(plain, "weight_decay", curves=False) as bar:
        bar(Progress(10, 40, 6.0, None, training(0.3, 1), 0.25))
    assert "seed 1" not in plain.file.getvalue()
