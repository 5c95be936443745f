"""Strengths as people give them; grids that grow and are refined keep their spacing on the log axis."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import weightdecay as wd
from weightdecay.sweeps.grid import (
    UNITS,
    Strengths,
    ascending,
    read_strengths,
    refined,
    strength_of,
    strengths_of,
    widened,
)
from weightdecay.units import grid


@pytest.mark.parametrize(
    ("given", "values", "unit"),
    [
        (0.1, (0.0, 0.1), "weight_decay"),
        ([1, 0.1], (0.0, 0.1, 1.0), "weight_decay"),
        ((0.0, 3.0), (0.0, 3.0), "weight_decay"),
        (np.array([1.0, 2.0]), (0.0, 1.0, 2.0), "weight_decay"),
        (torch.tensor([2.0, 1.0]), (0.0, 1.0, 2.0), "weight_decay"),
        (torch.tensor(2.0), (0.0, 2.0), "weight_decay"),
        (wd.HalfLives(3), (0.0, 3.0), "half_lives_per_run"),
        ([wd.HalfLives(0), wd.HalfLives(3)], (0.0, 3.0), "half_lives_per_run"),
        (wd.HalfLife.grid(1, 4, 3), (0.0, 4.0, 2.0, 1.0), "half_life_epochs"),
        ([wd.HalfLife(steps=9), wd.HalfLife(steps=math.inf)], (0.0, 9.0), "half_life_steps"),
        (wd.HalfLife.grid(10, 1000, 3, unit="samples"), (0.0, 1000.0, 100.0, 10.0), "half_life_samples"),
        (Strengths((1.0, 2.0), "weight_decay"), (0.0, 1.0, 2.0), "weight_decay"),
    ],
)
def test_strengths_are_read_in_the_order_of_ascending_strength(given, values, unit):
    found = strengths_of(given)
    assert (found.unit, len(found)) == (unit, len(values))
    assert found.values == pytest.approx(values, rel=1e-15)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "nothing to try"),
        (torch.tensor([]), "nothing to try"),
        ([0.1, -0.2], "out of range"),
        ([0.1, math.inf], "not a finite number"),
        ([math.nan], "not a finite number"),
        ([0.1, 0.3, 0.1], "twice: strengths = 0.1"),
        ([0.0], "no decay alone"),
        (0, "no decay alone"),
        ("0.1", "not strengths"),
        ([True], "not a number"),
        ([None], "not a number"),
        ([0.1, wd.HalfLives(2)], "several units: strengths = weight_decay, half_lives_per_run"),
        ([wd.HalfLife(steps=2), wd.HalfLife(epochs=2)], "several units"),
        (wd.HalfLife(steps=2, lr=1e-3), "leave lr out"),
        (
            wd.HalfLife(tokens=5),
            r"the tokens of a step: HalfLife\.tokens = 5\.0; .* in steps, epochs or samples",
        ),
    ],
)
def test_what_is_no_grid_is_refused(given, words):
    with pytest.raises(wd.InputError, match=words):
        strengths_of(given)


def test_a_rule_gets_what_its_unit_means():
    made = {unit: strength_of(2.0, unit) for unit in UNITS}
    assert made == {
        "weight_decay": 2.0,
        "half_lives_per_run": wd.HalfLives(2),
        "half_life_steps": wd.HalfLife(steps=2),
        "half_life_epochs": wd.HalfLife(epochs=2),
        "half_life_samples": wd.HalfLife(samples=2),
    }
    assert {strength_of(0.0, unit) for unit in UNITS} == {0.0}
    for unit in UNITS:  # and is read back as what it was
        assert strengths_of(strength_of(2.0, unit)) == Strengths((0.0, 2.0), unit)


def test_the_grids_are_those_of_the_command_line():
    lambdas = grid("0.1:30:24")
    assert tuple(h.per_run for h in wd.HalfLives.grid(0.1, 30, 24)) == lambdas
    assert tuple(h.epochs for h in wd.HalfLife.grid(0.1, 30, 24)) == lambdas
    assert (lambdas[0], lambdas[-1], len(lambdas)) == (0.1, 30, 24)
    np.testing.assert_allclose(np.diff(np.log(lambdas)), math.log(300) / 23, rtol=1e-12)
    assert read_strengths("0.1:30:24", "half_lives_per_run") == strengths_of(wd.HalfLives.grid(0.1, 30, 24))
    assert read_strengths("3,0").values == (0.0, 3.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: wd.HalfLives.grid(1, 1, 2),
        lambda: wd.HalfLives.grid(0, 1, 2),
        lambda: wd.HalfLives.grid(1, 2, 1),
        lambda: wd.HalfLives.grid(1, math.inf, 2),
        lambda: wd.HalfLife.grid(1, 2, 2, unit="years"),
        lambda: read_strengths("many"),
        lambda: read_strengths("1:2"),
        lambda: read_strengths("-1"),
        lambda: read_strengths("0.1,0.1"),
    ],
)
def test_a_grid_that_is_none_is_refused(make):
    with pytest.raises(wd.InputError):
        make()


@given(
    unit=st.sampled_from(UNITS),
    low=st.floats(1e-6, 1.0),
    ratio=st.floats(1.2, 30.0),
    count=st.integers(2, 12),
    edge=st.sampled_from(["low", "high"]),
)
def test_a_wider_grid_goes_on_as_it_was(unit, low, ratio, count, edge):
    before = Strengths((0.0, *ascending([low * ratio**i for i in range(count)], unit)), unit)
    more = widened(before, edge)
    after = before.and_(more)
    assert after.values[0] == 0
    assert (after.values[-len(more) :] if edge == "high" else after.values[1 : 1 + len(more)]) == more
    assert len(after) == len(before) + len(more)
    steps = np.diff(np.log(after.positive))
    np.testing.assert_allclose(np.abs(steps), math.log(ratio), rtol=1e-9)
    assert len(set(np.sign(steps))) == 1
    decades = len(more) * math.log10(ratio)
    assert abs(decades - 1) <= math.log10(ratio) / 2 + 1e-9 or len(more) == 1


def test_one_strength_alone_grows_by_a_decade():
    for unit, down, up in (("weight_decay", 0.2, 20.0), ("half_life_epochs", 20.0, 0.2)):
        one = Strengths((0.0, 2.0), unit)
        assert widened(one, "low") == pytest.approx((down,))
        assert widened(one, "high") == pytest.approx((up,))


@pytest.mark.parametrize("unit", ["weight_decay", "half_life_steps"])
def test_refining_halves_the_steps_around_a_place(unit):
    values = (1.0, 4.0, 16.0, 64.0)
    grid = Strengths((0.0, *ascending(values, unit)), unit)
    for place, expected in {
        1: (0.5, 2.0) if unit == "weight_decay" else (128.0, 32.0),  # no decay is no place on a log axis
        2: (2.0, 8.0) if unit == "weight_decay" else (32.0, 8.0),
        4: (32.0,) if unit == "weight_decay" else (2.0,),
        0: (0.5,) if unit == "weight_decay" else (128.0,),
    }.items():
        assert refined(grid, place) == pytest.approx(expected)
        assert len(grid.and_(refined(grid, place))) == len(grid) + len(expected)
    one = Strengths((0.0, 10.0), "weight_decay")
    assert refined(one, 1) == pytest.approx((10**0.5, 10**1.5))
    assert refined(one, 0) == pytest.approx((10**0.5,))
