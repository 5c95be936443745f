"""A strength in another set-up, against runs of the real AdamW without gradient."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from weightdecay.errors import InputError
from weightdecay.schedule import Setup, lrs, transfer
from weightdecay.schedule.lifetimes import lifetime
from weightdecay.units.halflife import HalfLife, mean_age, retention, shape

OLD = Setup(256, 3e-4, 10_000)
NEW = Setup(1024, 6e-4, 5_000, "cosine")


def left_by_adamw(weight_decay, step_sizes):
    """What the real AdamW leaves of a weight whose gradient is zero."""
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    p.grad = torch.zeros_like(p)
    optimizer = torch.optim.AdamW([p], lr=1.0, weight_decay=weight_decay)
    for lr in step_sizes:
        optimizer.param_groups[0]["lr"] = float(lr)
        optimizer.step()
    return float(p.detach())


SCHEDULES = {
    "constant": {},
    "linear": {"warmup": 0.1},
    "cosine": {"floor": 0.1},
    "wsd": {"warmup": 0.05, "decay": 0.3},
}


@pytest.mark.parametrize("name", [*SCHEDULES, "one cycle"])
def test_retention_is_that_of_adamw(name):
    steps = 600
    if name == "one cycle":
        o = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
        rows = lrs(torch.optim.lr_scheduler.OneCycleLR(o, 2e-2, steps), steps)
    else:
        rows = lrs(name, steps, 2e-2, **SCHEDULES[name])
    expected = left_by_adamw(0.3, rows[0])
    assert retention(0.3 * shape("lr", rows[0])) == pytest.approx(expected, rel=1e-12)
    if name != "one cycle":
        found = lifetime(0.3, lr=2e-2, schedule=name, steps=steps, **SCHEDULES[name])
        assert found.retention == pytest.approx(expected, rel=1e-12)
        assert found.half_lives == pytest.approx(-math.log2(expected), rel=1e-12)


def test_the_daily_question_by_run():
    answer = transfer(0.1, OLD, NEW, keep="run")
    assert left_by_adamw(answer.weight_decay, NEW.lrs()) == pytest.approx(
        left_by_adamw(0.1, OLD.lrs()), rel=1e-11
    )
    assert answer.half_lives_old == answer.half_lives_new
    assert "kept: half-lives per run" in answer.notes[0]
    assert "keeping half-lives per epoch would give 0.3999" in answer.notes[0]


def test_the_daily_question_by_epoch():
    """Twice the epochs: what is left is squared."""
    answer = transfer(0.1, OLD, NEW, keep="epoch")
    assert answer.epochs_ratio == 2.0
    assert left_by_adamw(answer.weight_decay, NEW.lrs()) == pytest.approx(
        left_by_adamw(0.1, OLD.lrs()) ** 2, rel=1e-11
    )
    assert "kept: half-lives per epoch" in answer.notes[0]


def test_data_of_another_size_count_in_epochs():
    old, new = Setup(10, 0.1, 100, examples=100), Setup(10, 0.1, 100, examples=200)
    assert transfer(0.1, old, new, "epoch").epochs_ratio == 0.5
    assert "differ in size (100 and 200)" in transfer(0.1, old, new, "epoch").notes[1]
    assert transfer(0.1, old, new, "run").weight_decay == pytest.approx(0.1, rel=1e-13)
    assert transfer(0.1, Setup(10, 0.1, 100, examples=100), Setup(10, 0.1, 100)).epochs_ratio == 1


setups = st.builds(
    Setup,
    st.integers(1, 512),
    st.floats(1e-5, 0.3),
    st.integers(20, 400),
    st.sampled_from(["constant", "linear", "cosine", "wsd"]),
)


@given(setups, setups, st.floats(1e-3, 0.4), st.sampled_from(["lr", "lr_squared", "lr_relative", "constant"]))
def test_there_and_back(old, new, strength, law):
    for keep in ("run", "epoch"):
        try:
            there = transfer(strength, old, new, keep, law=law)
        except InputError:  # more half-lives than so short a run can have: another test's matter
            assert new.lrs().size < 400
            continue
        back = transfer(there.weight_decay, new, old, keep, law=law)
        assert back.weight_decay == pytest.approx(strength, rel=1e-9)
        assert there.epochs_ratio * back.epochs_ratio == pytest.approx(1)


@given(setups, st.floats(1e-3, 0.4))
def test_at_equal_epochs_both_rules_agree(old, strength):
    new = Setup(old.batch_size * 2, old.lr * 1.5, old.steps, old.schedule, examples=2 * 10**6)
    old = Setup(old.batch_size, old.lr, old.steps, old.schedule, examples=10**6)
    run, epoch = transfer(strength, old, new, "run"), transfer(strength, old, new, "epoch")
    assert run.weight_decay == pytest.approx(epoch.weight_decay, rel=1e-12)
    assert "the numbers of epochs are equal" in run.notes[0]


def test_batch_size_alone_by_epoch_is_linear():
    """arXiv 2505.13738: at fixed lr and data wd rises with the batch size (to first order in lr·wd)."""
    answer = transfer(0.1, Setup(256, 1e-4, 8000), Setup(1024, 1e-4, 2000), keep="epoch")
    assert answer.weight_decay == pytest.approx(0.4, rel=1e-4)


def test_width_is_told_and_left_alone():
    old, new = Setup(256, 3e-4, 1000, width=256), Setup(256, 3e-4 / 4, 1000, width=1024)
    neither = transfer(0.1, old, new)
    independent = transfer(0.1, old, new, width_rule="independent")
    sqrt = transfer(0.1, old, new, width_rule="sqrt")
    assert neither.weight_decay == independent.weight_decay == pytest.approx(0.4, rel=1e-4)  # lr·wd
    assert sqrt.weight_decay == pytest.approx(0.2, rel=1e-4)  # wd as sqrt(width)
    assert "arXiv 2510.19093" in neither.notes[-1]
    assert (
        f"2510.15262 lets wd grow as sqrt(width), which would be {sqrt.weight_decay:.4g}" in neither.notes[-1]
    )
    assert "by the rule sqrt (arXiv 2510.15262)" in sqrt.notes[-1]
    assert len(transfer(0.1, OLD, NEW).notes) == 1
    with pytest.raises(InputError, match="needs both widths"):
        transfer(0.1, OLD, NEW, width_rule="sqrt")


def test_schedules_of_every_kind():
    p = [torch.nn.Parameter(torch.ones(1))]
    optimizer = torch.optim.SGD(p, lr=6e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5000)
    expected = transfer(0.1, OLD, NEW).weight_decay
    for schedule in (scheduler, list(NEW.lrs()), lambda t: 6e-4 * (1 + math.cos(math.pi * t / 5000)) / 2):
        new = Setup(1024, steps=5000, schedule=schedule)
        assert transfer(0.1, OLD, new).weight_decay == pytest.approx(expected, rel=1e-12)
    two = torch.optim.SGD([{"params": p}, {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0}], lr=0.1)
    both = Setup(1024, steps=5, schedule=torch.optim.lr_scheduler.StepLR(two, 2))
    with pytest.raises(InputError, match="groups have different step sizes"):
        transfer(0.1, OLD, both)


def test_warnings_and_limits():
    answer = transfer(1.0, OLD, Setup(256, 3e-4, 500, examples=25_600))
    assert answer.warnings == ()  # tau, 167 steps, is between an epoch and the run
    short = transfer(1.0, OLD, Setup(256, 3e-4, 100), keep="epoch")
    assert "the decay does next to nothing" in short.warnings[0]
    assert transfer(1e-3, OLD, NEW).warnings == ()  # it did so in the old run, too: that is what is kept
    with pytest.raises(InputError, match="more half-lives than 1 steps can have"):
        transfer(3000, Setup(1, 3e-4, 10_000), Setup(1, 1e-3, 1))
    with pytest.raises(
        InputError, match=r"removes the whole weight or more: weight_decay = 4000 at lr = 0\.0003"
    ):
        transfer(4000, OLD, NEW)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: Setup(0, 0.1, 10), "Setup.batch_size = 0"),
        (lambda: Setup(1, -0.1, 10), "Setup.lr = -0.1"),
        (lambda: Setup(1, 0.1, 0), "Setup.steps = 0"),
        (lambda: Setup(1, 0.1, 10, width=0), "Setup.width = 0"),
        (lambda: transfer(-0.1, OLD, NEW), "weight_decay = -0.1"),
        (lambda: transfer(math.nan, OLD, NEW), "weight_decay = nan"),
        (lambda: transfer(0.1, OLD, Setup(1, 0.1)), "how many steps"),
        (lambda: transfer(0.1, OLD, Setup(1, None, 10)), "needs its peak"),
    ],
)
def test_bad_input_is_named(call, part):
    with pytest.raises(InputError, match=part):
        call()


def test_figures_of_mean_age():
    """formulas.md, section 2: tau at the peak 2000, T 10,000."""
    for name, options, figure in (
        ("constant", {}, 1931),
        ("linear", {}, 5056),
        ("cosine", {}, 5624),
        ("wsd", {"warmup": 0.02, "decay": 0.2}, 2817),
    ):
        assert lifetime(0.5, lr=1e-3, schedule=name, steps=10_000, **options).mean_age == pytest.approx(
            figure, abs=0.6
        )


def test_mean_age_against_a_run():
    """Updates that carry their own step number: the weight is their mean."""
    rates, step_sizes = 0.5 * lrs("cosine", 300, 0.02, warmup=0.1)[0], lrs("cosine", 300, 0.02, warmup=0.1)[0]
    weight = total = 0.0
    for t, (rate, lr) in enumerate(zip(rates, step_sizes, strict=True)):
        weight, total = weight * (1 - rate) + lr * (299 - t), total * (1 - rate) + lr
    assert mean_age(rates, step_sizes) == pytest.approx(weight / total, rel=1e-12)


def test_lifetime_in_both_directions():
    for options in (
        {"lr": 3e-4},
        {"lr": 0.1, "coupled": True, "momentum": 0.9, "steps": 100},
        {"lr": 0.1, "coupled": True, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "law": "constant"},
        {"lr": 0.1, "law": "lr_relative", "schedule": "cosine", "steps": 100},
    ):
        there = lifetime(half_life_steps=700, **options)
        assert there.half_life == pytest.approx(700, rel=1e-12)
        assert lifetime(there.weight_decay, **options).half_life == pytest.approx(700, rel=1e-12)
    run = lifetime(half_lives=3, lr=1e-2, schedule="cosine", steps=1000, law="lr_squared")
    assert run.retention == pytest.approx(1 / 8, rel=1e-12)
    assert run.half_life_in_run == pytest.approx(1000 / 3)
    assert run.share_of_run == run.half_life / 1000
    none = lifetime(0.0, lr=0.1, steps=10)
    assert (none.half_life, none.half_life_in_run, none.retention) == (math.inf, math.inf, 1.0)
    assert lifetime(half_life_steps=HalfLife(steps=500).in_steps(), lr=0.1).timescale == pytest.approx(
        721.85, abs=0.01
    )


def test_lifetime_of_coupled_decay_with_momentum():
    """At a constant step size exact; under a schedule as if each step size had always been."""
    found = lifetime(5e-4, lr=0.1, coupled=True, momentum=0.9, steps=13_800)
    assert round(found.half_life) == 1380
    assert found.half_lives == pytest.approx(10, rel=1e-3)
    assert found.mean_age is None
    step_sizes = np.asarray(lrs("cosine", 4000, 0.1))[0]
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    p.grad = torch.zeros_like(p)
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=5e-4)
    for lr in step_sizes:
        optimizer.param_groups[0]["lr"] = float(lr)
        p.grad.zero_()
        optimizer.step()
    slowly = lifetime(5e-4, lr=0.1, coupled=True, momentum=0.9, schedule="cosine", steps=4000)
    assert slowly.retention == pytest.approx(float(p.detach()), rel=0.01)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "0 ways"),
        ({"weight_decay": 1.0, "half_lives": 1.0}, "2 ways"),
        ({"weight_decay": 1.0, "momentum": 0.9}, "momentum = 0.9"),
        ({"weight_decay": 1.0, "coupled": True, "law": "constant"}, "law = constant"),
        ({"half_lives": 1.0}, "how many steps"),
        ({"half_lives": 1.0, "steps": 5, "coupled": True, "momentum": 0.9}, "half-life in steps at the peak"),
        ({"half_life_steps": 0.0}, "half_life_steps = 0"),
        ({"weight_decay": 1.0, "schedule": "cosine"}, "how many steps"),
    ],
)
def test_bad_lifetimes_are_named(options, part):
    with pytest.raises(InputError, match=part):
        lifetime(lr=0.1, **options)


def test_what_cannot_be_used_is_said():
    """A width or a size of the data in one set-up only, and options of other schedules."""
    wide = transfer(0.1, Setup(256, 3e-4, 100, width=64), Setup(256, 3e-4, 100))
    assert "a width was given for one set-up only: nothing was done about it" in wide.notes
    sized = transfer(0.1, Setup(256, 3e-4, 100, examples=1000), Setup(256, 3e-4, 100))
    assert any(note.startswith("examples were given for one set-up only") for note in sized.notes)
    by_width = transfer(0.1, Setup(1, 3e-4, 100, width=64), Setup(1, 1e-4, 100, width=256), width_rule="sqrt")
    assert "but for the width" in by_width.notes[0]
    with pytest.raises(InputError, match=r"has no floor: Setup.floor = 0.1"):
        Setup(1, 0.1, 10, floor=0.1)
    with pytest.raises(InputError, match=r"only the schedule wsd.*Setup.decay = 0.3"):
        Setup(1, 0.1, 10, schedule="cosine", decay=0.3)


def test_no_decay_has_no_half_lives():
    answer = transfer(0.0, OLD, NEW)
    assert str(answer).splitlines()[1] == "half-lives    0 in the old run, 0 in the new"
