"""Going on with a store: what counts as the same sweep; rounds and progress are what they would be."""

import sqlite3
from contextlib import closing
from functools import partial

import job as jobs
import pytest
import torch
from torch import nn

from weightdecay.errors import InputError
from weightdecay.rules import Decoupled
from weightdecay.sweeps.store import FILE, opened, plain

job = partial(jobs.job, rule=Decoupled, epochs=4, strengths=[0.3, 3.0], refine=0, widen=0)
# Labels that are noise: the more decay the better, so the grid goes on.
NOISE = {
    "train": (jobs.points(40, 5)[0], torch.arange(40) % 2),
    "strengths": [0.1, 1.0],
    "batch_size": 20,
    "epochs": 30,
    "every": 10,
}


def same(one, other):
    assert one.table().equals(other.table())
    assert one.curves().equals(other.curves())
    assert one.lines == other.lines
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def forget(folder, where):
    """As if the process had been killed before it stored these trainings."""
    with closing(sqlite3.connect(folder / FILE)) as connection, connection:
        ids = f"SELECT id FROM trained WHERE {where}"
        connection.execute(f"DELETE FROM look WHERE trained IN ({ids})")
        gone = connection.execute(f"DELETE FROM trained WHERE {where}").rowcount
    for name in ("sweep.json", "table.parquet", "curves.parquet", "weights.safetensors"):
        (folder / name).unlink()
    return gone


def rounds(folder):
    with opened(folder) as store:
        return [one.why for one in store.rounds()]


def test_a_chunk_of_which_some_is_stored_counts_each_training_once(tmp_path):
    whole = job(out=tmp_path, chunk=6)
    assert forget(tmp_path, "seed = 1 AND strength > 0") == 2  # of one chunk's six
    seen = []
    same(job(out=tmp_path, chunk=6, resume=True, on_progress=seen.append), whole)
    assert seen[0].done == 4
    assert [(one.done, one.total) for one in seen[-1:]] == [(6, 6)]
    assert all(one.done <= one.total for one in seen)
    assert [one.share for one in seen] == sorted(one.share for one in seen)
    assert seen[0].share == pytest.approx((4 + 2 / 4) / 6)


def test_a_sweep_whose_best_came_in_a_later_round_is_resumed(tmp_path):
    changes = {"strengths": [0.3, 3.0, 30.0], "epochs": 6, "refine": 1, "maximize": "accuracy"}
    whole = job(out=tmp_path, **changes)
    assert whole.best not in (0.0, 0.3, 3.0, 30.0)
    same(job(out=tmp_path, resume=True, **changes), whole)
    assert forget(tmp_path, f"strength = {whole.best!r} AND seed = 1") == 1  # the later round half done
    same(job(out=tmp_path, resume=True, **changes), whole)


def test_more_rounds_are_gone_on_with_to_the_same_bits(tmp_path):
    at_once = job(**NOISE, widen=1, refine=2)
    for more in ({}, {"widen": 1}, {"widen": 1, "refine": 1}, {"widen": 1, "refine": 2}):
        found = job(out=tmp_path, resume=True, **NOISE, **more)
    same(found, at_once)
    assert found.settings["refine"] == 2
    assert [why.split()[0] for why in rounds(tmp_path)] == ["the", "wider", "finer", "finer"]
    same(job(out=tmp_path, resume=True, **NOISE, widen=1, refine=2), at_once)
    seen = []
    message = r"refine: refine = 2 in .*, 1 now; give the same .*: the store has rounds that these would not"
    with pytest.raises(InputError, match=message):
        job(out=tmp_path, resume=True, **NOISE, widen=1, refine=1, on_progress=seen.append)
    with pytest.raises(InputError, match=r"widen: widen = 1 in .*, 0 now"):
        job(out=tmp_path, resume=True, **NOISE, widen=0, refine=2, on_progress=seen.append)
    assert not seen


def test_another_goal_is_judged_anew_where_it_leads_to_the_same_rounds(tmp_path):
    by_loss = job(out=tmp_path)
    by_accuracy = job(out=tmp_path, resume=True, maximize="accuracy")
    same(by_accuracy, job(maximize="accuracy"))
    assert by_accuracy.table().equals(by_loss.table())
    assert by_accuracy.goal.name == "accuracy"
    same(job(out=tmp_path, resume=True), by_loss)


def test_seeds_cannot_be_added_and_it_is_said(tmp_path):
    job(out=tmp_path)
    message = r"seeds: seeds = \[0, 1\] in .*, \[0, 1, 2\] now; .* takes no more seeds or strengths"
    with pytest.raises(InputError, match=message):
        job(out=tmp_path, resume=True, seeds=3)


def smoothed(smoothing):
    def loss(output, target):
        return nn.functional.cross_entropy(output, target, label_smoothing=smoothing)

    return loss


class Smoothed:
    def __init__(self, smoothing):
        self.smoothing = smoothing

    def __call__(self, output, target):
        return nn.functional.cross_entropy(output, target, label_smoothing=self.smoothing)

    def loss(self, output, target):
        return self(output, target)


def smoothed_by(output, target, smoothing):
    return nn.functional.cross_entropy(output, target, label_smoothing=smoothing)


def with_default(smoothing):
    def loss(output, target, smoothing=smoothing):
        return nn.functional.cross_entropy(output, target, label_smoothing=smoothing)

    return loss


def with_keyword_default(smoothing):
    def loss(output, target, *, smoothing=smoothing):
        return nn.functional.cross_entropy(output, target, label_smoothing=smoothing)

    return loss


def weighted(smoothing):
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1 + smoothing]))


@pytest.mark.parametrize(
    "make",
    [
        smoothed,
        with_default,
        with_keyword_default,
        Smoothed,
        lambda smoothing: Smoothed(smoothing).loss,
        lambda smoothing: partial(smoothed_by, smoothing=smoothing),
        lambda smoothing: partial(nn.functional.cross_entropy, label_smoothing=smoothing),
        lambda smoothing: nn.CrossEntropyLoss(label_smoothing=smoothing),
        weighted,
    ],
)
def test_functions_that_hold_other_values_are_others(make):
    assert plain(make(0.1)) == plain(make(0.1))
    assert plain(make(0.1)) != plain(make(0.2))


@pytest.mark.parametrize("held", [3, "x", True, None, 0.5, (1, ("a", 2.0))])
def test_plain_values_of_a_closure_are_compared_and_others_are_not(held):
    def holding(value):
        return lambda output, target: (value, output, target)

    assert plain(holding(held)) == plain(holding(held)) != plain(holding("another"))
    # A list may be what the function writes into; it says nothing of what the function is.
    assert plain(holding([1])) == plain(holding([2]))


def test_a_resume_with_another_value_in_the_loss_is_refused(tmp_path):
    job(out=tmp_path, loss=smoothed(0.1))
    with pytest.raises(InputError, match=r"other settings: loss: loss = .*smoothing=0\.1.* now"):
        job(out=tmp_path, loss=smoothed(0.2), resume=True)
    job(out=tmp_path, loss=smoothed(0.1), resume=True)
