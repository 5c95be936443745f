"""The experiment as a whole: results, theory beside it, divergence, interruption, records on disk."""

import dataclasses
import json
import statistics

import numpy as np
import polars as pl
import pytest
import torch
from tests.helpers import drawn, relative, small

import weightdecay as wd
from weightdecay.textbook import theory
from weightdecay.textbook.record import RESULT_SCHEMA
from weightdecay.textbook.versions import VERSIONS, train_plain

TECATOR = wd.TableFile("examples/data/tecator.csv", "fat", ("water", "protein"), n_train=40)


@pytest.fixture(scope="module")
def run():
    """The notes' experiment, three seeds and all versions, with a short curve."""
    return wd.run_experiment(
        wd.Experiment(versions=tuple(VERSIONS), seeds=3, curve=(0.1, 1.0, 10.0, 1000.0), curve_seeds=5)
    )


def test_one_row_per_version_seed_lam_and_look(run):
    assert dict(run.results.schema) == RESULT_SCHEMA
    assert run.results.height == 4 * 3 * 2 * 20
    assert run.results.select("version", "seed", "lam", "epoch").is_unique().all()
    assert run.results["epoch"].unique().sort().to_list() == list(range(5, 101, 5))
    assert run.results["version"].unique(maintain_order=True).to_list() == list(VERSIONS)


def test_each_row_is_that_training_alone(run):
    for version in VERSIONS.values():
        looks = []
        one = drawn(run.experiment, seed=2)
        train_plain(version, one, run.experiment, 3.0, lambda *look, looks=looks: looks.append(look))
        rows = run.results.filter(
            pl.col("version") == version.name, pl.col("seed") == 2, pl.col("lam") == 3.0
        )
        for name, i in (("test_loss", 2), ("w_norm", 3)):
            assert relative(rows[name].to_list(), [look[i] for look in looks]) < 1e-4


def test_decay_helps_spectacularly_because_it_forgets_the_start(run):
    for without, decayed in zip(run.outcomes[::2], run.outcomes[1::2], strict=True):
        assert (without.lam, decayed.lam) == (0.0, 3.0)
        assert without.test_loss > 100 * decayed.test_loss
        assert without.w_norm > 10 * decayed.w_norm
        assert without.residue == 180
        assert decayed.residue == pytest.approx(180 * (1 - 0.009) ** 800)
        assert relative(decayed.out_of_reach, decayed.residue) < 0.3
        # Excess risk is twice the test loss above the noise's own; 100 test rows tell it to about 1/sqrt(50).
        for outcome in (without, decayed):
            assert outcome.excess == pytest.approx(2 * outcome.test_loss - 1e-4, rel=0.4)
    zero = wd.run_experiment(wd.Experiment(init="zero", versions=("scratch",), curve=()))
    without, decayed = zero.outcomes
    assert 0.5 < without.test_loss / decayed.test_loss < 2
    assert without.residue == decayed.residue == 0
    assert without.out_of_reach < 1e-9


def test_theory_stands_beside_what_was_measured(run):
    for outcome in run.outcomes:
        if outcome.version == "two-optimizers":
            assert outcome.theory is None
        else:
            assert relative(outcome.test_loss, outcome.theory) < 0.05
            assert outcome.b == pytest.approx(outcome.theory_b, abs=0.02)
            assert abs(outcome.b - outcome.ridge_b) > 0.02  # after 400 steps the bias has not arrived
    assert (
        relative(run.curve.table["test_loss"].to_list()[:3], run.curve.table["theory"].to_list()[:3]) < 0.05
    )


def test_outcomes_are_medians_over_the_seeds(run):
    last = run.results.filter(pl.col("epoch") == 100, pl.col("version") == "concise", pl.col("lam") == 3.0)
    outcome = next(o for o in run.outcomes if (o.version, o.lam) == ("concise", 3.0))
    assert outcome.test_loss == statistics.median(last["test_loss"])
    assert outcome.test_low == pytest.approx(statistics.mean(sorted(last["test_loss"])[:2]))
    losses = run.losses("concise", 3.0)
    assert losses["test_loss"][-1] == outcome.test_loss
    assert losses["test_low"][-1] == pytest.approx(outcome.test_low)


def test_the_curve_leaves_out_what_cannot_work_and_keeps_what_was_asked_for(run):
    assert run.curve.table["lam"].to_list() == [0.1, 1.0, 3.0, 10.0]  # 1000: lr·λ ≥ 1
    assert run.curve.best_lam == 10.0
    row = run.curve.table.filter(lam=3.0)
    losses = []
    for seed in range(5):
        one = drawn(run.experiment, seed)
        train_plain(VERSIONS["scratch"], one, run.experiment, 3.0, lambda *look: losses.append(look))
    last = sorted(test_loss for epoch, _, test_loss, _ in losses if epoch == 100)
    for name, value in (("test_low", last[1]), ("test_loss", last[2]), ("test_high", last[3])):
        assert row[name].item() == pytest.approx(value, rel=1e-4)
    assert run.curve.best_lam_theory == pytest.approx(0.05)
    assert run.curve.seeds == 5
    far = wd.run_experiment(small(lambdas=(0.0, 1e-9, 2.0), curve=(1.0, 3.0), curve_seeds=1))
    assert far.curve.table["lam"].to_list() == [1.0, 2.0, 3.0]  # no line is drawn over empty decades


@pytest.mark.parametrize(("version", "factor"), [("scratch", 1), ("concise", 2), ("concise-matched", 1)])
def test_the_best_lam_is_told_in_the_version_s_own_convention(version, factor):
    run = wd.run_experiment(small(versions=version, lambdas=[0], curve=[1], curve_seeds=1))
    assert run.curve.best_lam_theory == pytest.approx(factor * 0.01**2 / (12 * 0.01**2))


def test_matched_agrees_and_the_notes_say_so(run):
    scratch, matched = (run.results.filter(pl.col("version") == v) for v in ("scratch", "concise-matched"))
    assert relative(matched["test_loss"].to_list(), scratch["test_loss"].to_list()) < 1e-5
    notes = " ".join(run.notes)
    assert "scratch and concise-matched optimise one objective" in notes
    assert "As printed, MSELoss has no ½" in notes
    assert "20 examples reach 20 of the 200 directions" in notes


def test_penalize_bias_shrinks_the_bias_in_every_version():
    """Full batches to the end, against ridge with the bias penalised, in each version's own strength."""
    settings = small(
        versions=("scratch", "concise", "concise-matched"),
        penalize_bias=True,
        lambdas=(2.0,),
        lr=0.02,
        epochs=2000,
        batch_size=12,
    )
    for outcome in wd.run_experiment(settings).outcomes:
        assert outcome.test_loss == pytest.approx(outcome.ridge, rel=1e-9)
        assert outcome.theory == pytest.approx(outcome.ridge, rel=1e-9)
        assert outcome.b == pytest.approx(outcome.ridge_b, rel=1e-9)
        assert outcome.theory_b == pytest.approx(outcome.ridge_b, rel=1e-9)


def test_real_spectra_more_decay_is_not_better():
    run = wd.run_experiment(dataclasses.replace(wd.Experiment(data=TECATOR), lambdas=(0.0, 3.0), curve=()))
    without, decayed = run.outcomes[:2]
    assert decayed.test_loss > 1.05 * without.test_loss
    assert without.excess is None
    assert any("λ = 3 makes the test loss WORSE" in note for note in run.notes)
    assert not any("best λ for this design" in note for note in run.notes)


def refitted(X, y, lam):
    """The mean squared leave-one-out error by n refits, each a least squares problem of its own."""
    n, p = X.shape
    errors = []
    for i in range(n):
        keep = np.arange(n) != i
        m = X[keep].mean(0)
        Z = np.vstack([X[keep] - m, np.sqrt(n * lam) * np.eye(p)])
        w = np.linalg.lstsq(Z, np.append(y[keep] - y[keep].mean(), np.zeros(p)), rcond=None)[0]
        errors.append(y[i] - y[keep].mean() - (X[i] - m) @ w)
    return np.mean(np.square(errors))


def test_torch_keeps_its_threads():
    before, inside = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        wd.run_experiment(small(), on_evaluation=lambda seen: inside.append(torch.get_num_threads()))
        with pytest.raises(wd.InputError):
            wd.run_experiment(small(lambdas=[-1]))
        assert torch.get_num_threads() == 2
        assert set(inside) == {1}
    finally:
        torch.set_num_threads(before)


def test_for_a_table_lam_is_chosen_by_leave_one_out():
    run = wd.run_experiment(wd.Experiment(data=TECATOR, versions=("scratch",), curve=()))
    zero, chosen = run.experiment.lambdas
    X, y = drawn(run.experiment).X.numpy(), drawn(run.experiment).y.numpy()
    # Exact least squares on the augmented table, refitted 40 times: 10 digits are left at such a λ.
    errors = [refitted(X, y, factor * chosen) for factor in (0.5, 1.0, 2.0)]
    assert errors[1] == min(errors)
    assert f"half mean squared error {errors[1] / 2:.4g}" in run.notes[0]
    one = drawn(run.experiment)
    best = theory.ridge_models(one, torch.tensor([chosen], dtype=torch.float64))
    assert zero == 0
    assert 1e-12 < chosen < 1e-2
    assert run.outcomes[1].ridge == pytest.approx(
        float(((best.predict(one.X_test) - one.y_test) ** 2).mean()) / 2
    )
    assert "least exact leave-one-out error" in run.notes[0]
    assert any("800 steps do not get near the exact minimiser" in note for note in run.notes)
    assert (
        not any("Switch it off" in note for note in run.notes)
        or run.outcomes[1].test_loss < run.outcomes[0].test_loss
    )


def test_the_outcomes_as_a_table(run):
    table = run.table()
    assert table.height == len(run.outcomes) == 8
    assert table.filter(version="concise", lam=3.0)["test_loss"].item() == run.outcomes[3].test_loss
    assert table["theory"].null_count() == 2


def test_a_callback_sees_the_plain_trainings_as_they_go():
    seen, stages = [], []
    run = wd.run_experiment(
        small(lambdas=(0.0, 1.0)), on_evaluation=seen.append, on_progress=lambda *stage: stages.append(stage)
    )
    assert [(s.version, s.lam, s.epoch) for s in seen[:4]] == [
        ("scratch", 0.0, 2),
        ("scratch", 0.0, 4),
        ("scratch", 0.0, 6),
        ("scratch", 1.0, 2),
    ]
    assert len(seen) == run.results.height == 12
    assert stages[0] == ("scratch: 2 trainings at once", 1, 6)


@pytest.mark.parametrize(
    ("version", "factor"), [("scratch", 1), ("concise", 2), ("concise-matched", 1), ("two-optimizers", 2)]
)
def test_a_step_size_beyond_two_over_the_curvature_is_refused(version, factor):
    data = wd.Synthetic(n_train=12, n_test=5, n_inputs=1)  # one input, so that the bias's share shows
    settings = small(data=data, versions=(version,), lambdas=(0.1,), batch_size=12)
    design = drawn(settings).X.numpy()
    if version != "two-optimizers":  # there the bias is Adam's
        design = np.column_stack([design, np.ones(12)])
    h = np.linalg.norm(design, 2) ** 2 / 12
    limit = 2 / (factor * h + 0.1)
    wd.run_experiment(dataclasses.replace(settings, lr=0.9999 * limit))
    with pytest.raises(wd.InputError, match=f"too large for {version}.*lr = .*use less than") as caught:
        wd.run_experiment(dataclasses.replace(settings, lr=1.0001 * limit))
    assert f"{limit:.3g}" in str(caught.value)
    assert not isinstance(caught.value, wd.DivergenceError)


@pytest.mark.parametrize("version", ["scratch", "concise"])
def test_a_training_that_runs_away_is_stopped_with_a_step_size_that_works(version):
    """Batches of one diverge long before full batches do."""
    settings = small(versions=(version,), lambdas=(0.0, 1.0), batch_size=1, epochs=40)
    limit = 2 / theory.largest_curvature(drawn(settings).X)
    settings = dataclasses.replace(settings, lr=0.4 * limit)
    seen, stages = [], []
    with pytest.raises(wd.DivergenceError):
        wd.run_experiment(
            settings, on_evaluation=seen.append, on_progress=lambda *stage: stages.append(stage)
        )
    assert not stages  # stopped while it was watched, at the first look that is too large
    assert all(look.train_loss < 1e6 * 200 for look in seen)
    with pytest.raises(
        wd.DivergenceError, match=r"training diverged.*seed 0.*largest that completes"
    ) as caught:
        wd.run_experiment(settings)
    works = caught.value.largest_lr
    wd.run_experiment(dataclasses.replace(settings, lr=works))
    with pytest.raises(wd.DivergenceError):
        wd.run_experiment(dataclasses.replace(settings, lr=2 * works))


def test_when_no_step_size_helps_the_error_says_so():
    settings = small(versions=("two-optimizers",), lambdas=(1.0,), bias_lr=1e9, curve=())
    with pytest.raises(wd.DivergenceError, match=r"no halving of it completes.*bias_lr = 1e\+09") as caught:
        wd.run_experiment(settings)
    assert caught.value.largest_lr is None


def test_a_curve_without_a_possible_lam_is_left_out():
    run = wd.run_experiment(small(lambdas=[0], curve=[1000]))
    assert run.curve is None
    assert any("No curve over λ" in note for note in run.notes)


def test_a_table_of_constants_has_no_leave_one_out(tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f"1,{i}\n" for i in range(30)))
    with pytest.raises(wd.InputError, match=r"no column is left as an input.*'a': constant"):
        wd.run_experiment(wd.Experiment(data=wd.TableFile(tmp_path / "t.csv", "y")))


def test_a_batched_training_that_runs_away_is_named():
    """With batches of one at lr .05 only λ = 0 diverges; it is not among the λ that are watched."""
    lambdas = (2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 0.0, 2.7, 2.8)
    settings = small(versions=("scratch",), lambdas=lambdas, lr=0.05, batch_size=1, epochs=300, every=100)
    assert 0.0 not in settings.watched
    with pytest.raises(wd.DivergenceError, match="λ = 0, seed 0") as caught:
        wd.run_experiment(settings)
    assert caught.value.largest_lr == 0.025


def test_interrupted_keeps_what_was_computed(tmp_path):
    seen = []

    def stop(look):
        seen.append(look)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(wd.Interrupted) as caught:
        wd.run_experiment(small(lambdas=(0.0, 1.0)), on_evaluation=stop)
    assert isinstance(caught.value, KeyboardInterrupt)
    partial = caught.value.partial
    assert not partial.complete
    assert partial.results["test_loss"].to_list() == [look.test_loss for look in seen]
    partial.save(tmp_path)
    assert wd.load(tmp_path).results.equals(partial.results)

    def stop_later(stage, done, total):
        if stage.startswith("concise") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(wd.Interrupted) as caught:
        wd.run_experiment(small(lambdas=(0.0, 1.0), seeds=2), on_progress=stop_later)
    counts = dict(caught.value.partial.results["version"].value_counts().iter_rows())
    assert counts == {"scratch": 12, "concise": 6}

    def stop_last(stage, done, total):
        if "curve" in stage:
            raise KeyboardInterrupt

    with pytest.raises(wd.Interrupted) as caught:
        wd.run_experiment(small(lambdas=(0.0, 1.0), curve=(1.0, 2.0)), on_progress=stop_last)
    assert len(caught.value.partial.outcomes) == 4


def test_a_run_survives_its_folder(run, tmp_path):
    paths = run.save(tmp_path)
    assert [path.name for path in paths] == [
        "results.parquet",
        "lambda.parquet",
        "slider.parquet",
        "run.json",
    ]
    loaded = wd.load(tmp_path)
    assert loaded.results.equals(run.results)
    assert loaded.curve.table.equals(run.curve.table, null_equal=True)
    assert loaded.slider.equals(run.slider)
    assert dataclasses.replace(loaded, results=run.results, curve=run.curve, slider=run.slider) == run
    values = json.loads((tmp_path / "run.json").read_text())
    assert values["seeds"] == [0, 1, 2]
    assert values["environment"]["torch"]
    dataclasses.replace(run, curve=None, slider=None).save(tmp_path)
    assert not (tmp_path / "lambda.parquet").exists()
    assert not (tmp_path / "slider.parquet").exists()
    assert wd.load(tmp_path).curve is None


def test_a_folder_that_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(wd.InputError, match=r"cannot be read.*run\.json"):
        wd.load(tmp_path / "run.json")
    run.save(tmp_path)
    (tmp_path / "results.parquet").write_bytes(b"")
    with pytest.raises(wd.InputError, match=r"results\.parquet"):
        wd.load(tmp_path)
    run.save(tmp_path)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "results.parquet")
    with pytest.raises(wd.InputError, match=r"not the file that run\.json was written with: .*results"):
        wd.load(tmp_path)
    run.save(tmp_path)
    values = json.loads((tmp_path / "run.json").read_text())
    for text in ("{", "[]", json.dumps({**values, "outcomes": [{}]}), json.dumps({"kind": "textbook"})):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(wd.InputError, match=r"run\.json"):
            wd.load(tmp_path)
