"""The record of a sweep: what it says, its tables, and the folder that holds it."""

import json
import math
from dataclasses import replace

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from tests.sweeps.records import LAMBDAS, training, trainings

import weightdecay as wd
from weightdecay.saving import load
from weightdecay.sweeps.method import Method, Plan
from weightdecay.sweeps.record import sweep_record
from weightdecay.text import Text

WEIGHTS = {"0.weight": torch.randn(5, 3, 2), "0.steps": torch.arange(5)}


def record(trained=None, **more):
    return sweep_record(trainings() if trained is None else trained, **more)


def two_axes():
    return [
        training(lam, seed, lr=lr, loss=None if lr == 0.01 else training(lam, seed).test_loss - 0.05)
        for seed in range(3)
        for lr in (0.01, 0.1)
        for lam in LAMBDAS
    ]


def test_the_record_has_the_choice_and_the_tables():
    sweep = record(method="vectorised", seconds=3.0)
    assert (sweep.best, sweep.one_se, sweep.weight_decay, sweep.edge, sweep.flat) == (
        1.0,
        1.0,
        1.0,
        None,
        False,
    )
    assert (sweep.strengths, sweep.unit, sweep.rule, sweep.lr) == (LAMBDAS, "weight_decay", "Decoupled", None)
    table = sweep.table()
    assert table.columns == [
        *("rule", "lr", "strength", "seed", "unit", "weight_decay", "train_loss", "test_loss"),
        *("test_accuracy", "diverged"),
    ]
    assert table.height == len(sweep.trained) == 35
    means = table.group_by("strength").agg(pl.col("test_loss").mean()).sort("strength")["test_loss"]
    assert means.to_list() == pytest.approx(sweep.scores.tolist())
    summary = sweep.summary()
    assert summary["score"].to_list() == sweep.scores.tolist()
    assert summary["error"].to_list() == sweep.errors.tolist()
    assert summary.filter(pl.col("difference") == 0)["strength"].to_list() == [1.0]
    curves = sweep.curves()
    assert curves.height == 35 * 3
    last = curves.filter(pl.col("epoch") == 3, pl.col("strength") == 0.3, pl.col("seed") == 2)
    assert last["test_loss"].item() == training(0.3, 2).looks[-1].test_loss
    assert repr(sweep).startswith("Sweep(best=1, one_se=1, unit='weight_decay', edge=None, flat=False")


def test_the_answer_is_said_in_four_lines():
    best, one_se, none, shape = record().lines
    assert best.startswith("best: λ = 1, test loss 0.5")
    assert best.endswith("least of 7 strengths (mean of 5 seeds)")
    assert one_se == "one standard error: every stronger decay is further than that from the best"
    low, high = (f"{value:.3g}" for value in (record().no_decay.low, record().no_decay.high))
    assert none.endswith(f"worse by 0.504, 95 % interval [{low}, {high}], seed by seed")
    assert shape == "range: both neighbours of the best are further than one standard error from it"
    assert not record().doubts  # whichever seed is left out, the choice is the same
    assert str(record()).splitlines() == [*record().lines]


def of(rows, strengths=(0.0, 0.1, 1.0), **more):
    """The record of these test losses, a row each seed."""
    trained = [
        training(lam, seed, loss=loss, diverged=None if math.isfinite(loss) else 7)
        for seed, row in enumerate(rows)
        for lam, loss in zip(strengths, row, strict=True)
    ]
    return record(trained, **more)


def test_a_gain_that_leaving_seeds_out_lessens_is_said_to_be_too_good():
    said = of([(5.0, 4.0, 3.0), (6.0, 2.0, 4.0), (7.0, 5.0, 1.0)])
    none = said.no_decay
    assert 0 < none.left_out < none.difference
    (doubt,) = [one for one in said.doubts if "too good" in one]
    assert doubt.endswith(
        f"{none.difference:.3g} of test loss, is a little too good; "
        f"chosen without the seed it is judged by: {none.left_out:.3g}"
    )
    luck = of([(1.0, 0.5, 1.4), (1.0, 1.3, 0.6)])  # each seed has a best of its own, which the other refutes
    assert luck.no_decay.left_out < 0 < luck.no_decay.difference
    assert f"judged by there is none: {luck.no_decay.left_out:.3g}" in " ".join(luck.doubts)
    diverged = of([(math.inf, 2.0, 3.0), (4.0, 2.0, 1.0)])
    assert diverged.lines[2] == "no decay: it diverged"
    assert not any("too good" in doubt for doubt in diverged.doubts)


def test_equal_means_are_told_from_equal_scores():
    crossed = of([(1.0, 1.5, 0.5), (1.0, 1.5, 1.5)])
    assert (crossed.best, crossed.no_decay.difference) == (1.0, 0.0)
    assert crossed.lines[2] == (
        "no decay: the same mean test loss, by seeds that differ; they cannot tell the two apart"
    )
    thirds = [(0.1, 0.9, 0.2), (0.2, 0.9, 0.3), (0.3, 0.9, 0.1)]  # seed by seed the rounding does not cancel
    assert of(thirds).no_decay.difference == float(abs(of(thirds).scores[0] - of(thirds).scores[2]))
    counted = of([(1.0, 1.5, 1.0), (1.0, 1.5, 1.0)], maximize="accuracy")
    assert counted.lines[2] == "no decay: the very same test accuracy at every seed"
    one = of([(1.0, 1.5, 1.0)])
    assert one.lines[2] == "no decay: the very same score; the best strength is too weak to change it"
    assert not any("too good" in doubt for doubt in one.doubts)


def test_the_best_at_the_end_has_one_neighbour_and_nothing_stronger():
    found = of([(3.0, 2.0, 1.0), (3.1, 2.0, 1.0)])
    assert found.lines[1] == "one standard error: the best is the strongest that was tried"
    assert found.lines[3] == "range: the best's one neighbour is further than one standard error from it"


def without_metric(one):
    return replace(one, metrics={"accuracy": math.nan})


def test_a_metric_that_is_not_finite_is_not_called_divergence():
    trained = trainings()
    some = [without_metric(one) if one.copy.strength == 3.0 else one for one in trained]
    said = record(some, maximize="accuracy").doubts
    assert said == (
        "the metric accuracy is not finite at 5 trainings whose loss is, the first at λ = 3, seed 0; "
        "such a λ is never chosen",
    )
    none = [without_metric(one) if one.copy.strength == 0.0 else one for one in trained]
    assert record(none, maximize="accuracy").lines[2] == "no decay: its test accuracy is not finite"
    both = [replace(one, diverged=4) if one.copy.strength == 0.3 else one for one in some]
    said = " ".join(record(both, maximize="accuracy").doubts)
    assert "5 trainings diverged, the earliest at step 4 (λ = 0.3, seed 0)" in said
    assert "is not finite at 5 trainings" in said
    every = [without_metric(one) for one in trained]
    with pytest.raises(
        wd.InputError, match=r"the metric chooses no strength.*metrics\['accuracy'\] = nan at"
    ):
        record(every, maximize="accuracy")
    with pytest.raises(wd.DivergenceError):  # by their loss, too, there would be nothing to choose
        record(
            [replace(one, diverged=4 * (one.copy.seed == 0) or None) for one in every], maximize="accuracy"
        )


def test_what_the_data_cannot_tell_is_said():
    rows = [(1.0, 0.9, 1.3), (1.0, 1.05, 1.4), (1.0, 0.95, 1.2)]
    trained = [
        training(lam, seed, loss=loss)
        for seed, row in enumerate(rows)
        for lam, loss in zip((0.0, 0.1, 1.0), row, strict=True)
    ]
    sweep = record(trained)
    assert "the data cannot tell the best from no decay; about 23 seeds would" in sweep.lines[2]
    assert sweep.no_decay.low < 0 < sweep.no_decay.high
    one = record(trainings(seeds=1))
    assert "one seed cannot tell" in one.lines[2]
    assert "one seed only: there are no error bars" in one.doubts[0]
    assert not any("±" in line for line in one.lines)
    none = record([training(lam, seed, loss=lam + 1) for seed in range(2) for lam in LAMBDAS])
    assert none.lines[0].startswith("best: no decay")
    assert none.lines[2] == "no decay: no strength that was tried is better"
    assert "the best is the weakest that was tried" in none.doubts[0]
    same = record([training(lam, s, loss=max(1.0, lam) + s) for s in range(2) for lam in (0.0, 0.1, 10.0)])
    assert (same.best, same.lines[2]) == (
        0.1,
        "no decay: the very same score; the best strength is too weak to change it",
    )
    assert not same.doubts
    flat = record([training(lam, seed, loss=float(seed)) for seed in range(2) for lam in LAMBDAS])
    assert flat.lines[3].startswith("flat: ")


def test_divergence_is_said():
    trained = trainings(LAMBDAS[:-1])
    trained += [training(3.0, seed, diverged=10 - seed) for seed in range(5)]
    sweep = record(trained)
    assert sweep.best == 1.0
    assert any(
        "5 trainings diverged, the earliest at step 6 (λ = 3, seed 4)" in doubt for doubt in sweep.doubts
    )
    assert sweep.summary()["diverged"].to_list() == [0] * 6 + [5]
    assert math.isnan(sweep.table()["test_loss"][-1])
    assert sweep.to_dict()["scores"][-1] is None


def test_half_lives_are_said_with_their_number():
    trained = [
        training(life, seed, loss=abs(math.log2(life or 9) - 1) + 0.01 * seed, unit="half_life_epochs")
        for seed in range(3)
        for life in (0.0, 8.0, 2.0, 1.0)
    ]
    sweep = record(trained)
    assert sweep.lines[0].startswith("best: half-life 2 epochs (λ = 2)")
    assert sweep.summary()["strength"].to_list() == [0.0, 8.0, 2.0, 1.0]


def test_the_second_axis_is_in_the_heat_table():
    sweep = record(two_axes())
    assert (sweep.lr, sweep.best, len(sweep.selections)) == (0.1, 1.0, 2)
    heat = sweep.heat()
    assert heat.columns[:3] == ["rule", "lr", "strength"]
    assert heat["lr"].to_list() == [0.01] * 7 + [0.1] * 7
    assert_frame_equal(heat.filter(pl.col("lr") == 0.1).drop("rule", "lr"), sweep.summary())
    assert "and 2 settings, with Decoupled, lr 0.1" in sweep.lines[0]
    worse_none = [
        training(lam, seed, lr=lr, loss=loss)
        for seed in range(2)
        for lr, losses in ((0.01, (2.0, 1.9)), (0.1, (3.0, 1.0)))
        for lam, loss in zip((0.0, 1.0), losses, strict=True)
    ]
    said = record(worse_none).doubts
    assert any("no decay does better at Decoupled, lr 0.01: test loss 2" in doubt for doubt in said)


@pytest.mark.parametrize("more", [{}, {"maximize": "accuracy"}, {"minimize": "accuracy"}])
def test_a_saved_record_is_read_back_to_the_bit(tmp_path, more):
    trained = [*two_axes(), *(training(9.0, seed, lr=0.1, diverged=3) for seed in range(3))]
    sweep = record(trained, **more, method="m", settings={"epochs": 3}, weights=WEIGHTS, seconds=1.5)
    paths = sweep.save(tmp_path / "new" / "folder")
    names = ["table.parquet", "curves.parquet", "weights.safetensors", "sweep.json"]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (tmp_path / "new/folder").iterdir()) == sorted(names)
    again = load(tmp_path / "new/folder")
    assert again.to_dict() == sweep.to_dict()
    assert_frame_equal(again.table(), sweep.table())
    assert_frame_equal(again.curves(), sweep.curves())
    assert_frame_equal(again.heat(), sweep.heat())
    assert str(again) == str(sweep)
    assert repr(again.trained) == repr(sweep.trained)  # NaN is not equal to itself, its text is
    assert {name: value.dtype for name, value in again.weights.items()} == {
        "0.weight": torch.float32,
        "0.steps": torch.int64,
    }
    assert all(torch.equal(again.weights[name], value) for name, value in WEIGHTS.items())
    bits = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in again.save(tmp_path / "other")] == bits


def test_weights_that_share_memory_are_saved(tmp_path):
    tied = torch.randn(3, 2)
    sweep = record(weights={"embedding": tied, "head": tied, "turned": tied.T})
    sweep.save(tmp_path)
    assert torch.equal(load(tmp_path).weights["head"], tied)
    assert torch.equal(load(tmp_path).weights["turned"], tied.T)


def test_a_folder_that_is_no_sweep_is_refused(tmp_path):
    def refused(match, change=None):
        record(weights=WEIGHTS).save(tmp_path / "s")
        if change:
            change(tmp_path / "s")
        with pytest.raises(wd.InputError, match=match):
            load(tmp_path / "s")

    def edit(**more):
        def change(folder):
            values = json.loads((folder / "sweep.json").read_text())
            (folder / "sweep.json").write_text(json.dumps({**values, **more}))

        return change

    with pytest.raises(wd.InputError, match="cannot be read"):
        load(tmp_path / "nothing" / "sweep.json")
    refused("not a sweep", edit(kind="textbook"))
    refused("another version", edit(version=99))
    refused("not a sweep", lambda folder: (folder / "sweep.json").write_text("[]"))
    refused("not JSON", lambda folder: (folder / "sweep.json").write_text("{"))
    refused("a field is missing", edit(sha256={}))
    refused("a field is missing", edit(goal=None))
    refused("table.parquet", lambda folder: (folder / "table.parquet").unlink())
    refused("cut short", lambda folder: (folder / "curves.parquet").write_bytes(b"PAR1"))
    refused("changed", lambda folder: (folder / "weights.safetensors").write_bytes(b""))
    (tmp_path / "file").write_text("")
    with pytest.raises(wd.InputError, match="cannot be written"):
        record().save(tmp_path / "file")


def test_an_empty_sweep_is_refused():
    with pytest.raises(wd.InputError, match="nothing is finished"):
        sweep_record([])


def test_how_it_was_trained_is_told_in_both_languages_and_comes_back(tmp_path):
    """Folders of earlier versions have no Chinese of it: they load, and say it in English."""
    method = Method("one by one", Text("the model decides", "模型自行决定"), False, 1)
    record = sweep_record(trainings(), method=method.words)
    record.save(tmp_path)
    for sweep in (record, wd.load(tmp_path)):
        (note,) = [note for note in sweep.notes if note.startswith("trained ")]
        assert (note, note.zh) == (
            "trained one by one: the model decides",
            "训练方式：逐个训练（模型自行决定）",
        )
    plan = Plan(method, 1, 1)
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.method.reason.zh == "模型自行决定"
    values = json.loads((tmp_path / "sweep.json").read_text())
    del values["method_zh"]
    (tmp_path / "sweep.json").write_text(json.dumps(values))
    assert wd.load(tmp_path).method.zh == "one by one: the model decides"
