"""Half-lives, rates and coupled momentum, against mpmath and against real optimizers."""

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, example, given

from weightdecay.errors import InputError
from weightdecay.units.halflife import (
    HalfLife,
    HalfLives,
    coupled_rate,
    coupled_weight_decay,
    diverges_from,
    half_life,
    mean_age,
    oscillates_from,
    rate_of,
    retention,
    shape,
    strength_for,
)

mpmath.mp.dps = 50
TINY = 4e-16  # two units in the last place of float64


@given(st.floats(1e-300, 1 - 1e-9))
def test_half_life_of_a_rate(rate):
    expected = mpmath.log(2) / -mpmath.log1p(-mpmath.mpf(rate))
    assert abs(half_life(rate) / expected - 1) < TINY


@given(st.floats(1e-2, 1e300))
def test_rate_of_a_half_life(steps):
    expected = -mpmath.expm1(-mpmath.log(2) / mpmath.mpf(steps))
    assert abs(rate_of(steps) / expected - 1) < TINY


@given(st.floats(1e-12, 0.999))
def test_half_life_there_and_back(rate):
    assert rate_of(half_life(rate)) == pytest.approx(rate, rel=1e-14)


def test_ends_of_the_scale():
    assert half_life(0) == math.inf
    assert half_life(1) == 0
    assert rate_of(math.inf) == 0
    assert HalfLife(steps=math.inf).rate() == 0
    assert retention(np.zeros(3)) == 1


def test_defaults_of_three_libraries():
    """formulas.md, section 1: half-lives at lr 1e-3 of torch's, Keras's and optax's defaults."""
    found = [half_life(1e-3 * wd) for wd in (1e-2, 4e-3, 1e-4)]
    assert [f"{h:.2g}" for h in found] == ["6.9e+04", "1.7e+05", "6.9e+06"]
    assert round(found[0], -3) == 69_000
    assert round(found[1], -3) == 173_000


@given(st.lists(st.floats(0, 0.99), min_size=1, max_size=50))
def test_retention(rates):
    expected = mpmath.fprod(1 - mpmath.mpf(r) for r in rates)
    assert abs(retention(np.array(rates)) / expected - 1) < 1e-13


@given(
    st.floats(1e-12, 30),
    st.lists(st.floats(0, 10), min_size=1, max_size=40).filter(lambda shapes: max(shapes) > 1e-6),
)
@example(1000.0, [1.0] * 1000)
@example(30.0, [1.0, 1e-6])
@example(30.0, [1e-6, *[1.0] * 3, 1e-9])
@example(1e-12, [5.0])
def test_strength_for_solves_its_equation(halves, shapes):
    strength = strength_for(halves, np.array(shapes))
    assert strength * max(shapes) < 1
    found = -mpmath.fsum(mpmath.log(1 - mpmath.mpf(strength) * mpmath.mpf(a)) for a in shapes)
    # Near the edge the equation itself turns a rounding of the strength into more.
    edge = 1 / (1 - strength * max(shapes))
    assert abs(found / (mpmath.mpf(halves) * mpmath.log(2)) - 1) < 1e-14 * (1 + edge / max(halves, 1))


def test_strength_for_limits():
    assert strength_for(0, np.array([1.0, 2.0])) == 0
    with pytest.raises(InputError, match="more half-lives than 1 steps can have: half-lives per run = 60"):
        strength_for(60, np.array([1.0]))
    with pytest.raises(InputError, match="every step size is 0"):
        strength_for(1, np.zeros(3))
    with pytest.raises(InputError, match=r"shapes\[1\] = -1"):
        strength_for(1, np.array([1.0, -1.0]))


@given(st.floats(0.01, 20), st.floats(0.01, 20), st.integers(0, 2**32 - 1))
def test_strength_rises_with_half_lives(a, b, seed):
    assume(abs(a - b) > 1e-9)
    shapes = np.random.default_rng(seed).uniform(0.1, 1, 50)
    assert (strength_for(a, shapes) < strength_for(b, shapes)) == (a < b)


def test_shapes():
    lrs = np.array([0.5, 2.0, 1.0])
    np.testing.assert_array_equal(shape("lr", lrs), lrs)
    np.testing.assert_array_equal(shape("lr_relative", lrs), lrs / 2)
    np.testing.assert_array_equal(shape("lr_squared", lrs), lrs**2 / 2)
    np.testing.assert_array_equal(shape("constant", lrs), [1, 1, 1])
    np.testing.assert_array_equal(shape("lr_squared", lrs, lr_max=4.0), lrs**2 / 4)
    groups = np.array([[1.0, 2.0], [4.0, 2.0], [0.0, 0.0]])
    np.testing.assert_array_equal(shape("lr_relative", groups), [[0.5, 1], [1, 0.5], [0, 0]])
    assert shape("lr_squared", 0.5, 2.0) == 0.125
    assert shape("lr", 0.5) == 0.5
    with pytest.raises(InputError, match="lr_max"):
        shape("lr_relative", 0.5)
    with pytest.raises(InputError, match="lr_max = 0"):
        shape("lr_relative", 0.5, 0.0)


def test_half_lives_in_every_unit():
    assert HalfLife(steps=7).in_steps() == 7
    assert HalfLife(epochs=2).in_steps(steps_per_epoch=500) == 1000
    assert HalfLife(samples=6400).in_steps(samples_per_step=64) == 100
    assert HalfLife(tokens=1e9).in_steps(tokens_per_step=2**19) == 1e9 / 2**19
    assert HalfLife(epochs=2, lr=0.1).rate(steps_per_epoch=500) == rate_of(1000)
    assert HalfLife(epochs=2, lr=0.1).lr == 0.1
    assert HalfLives(3).retention == 0.125
    assert HalfLife(steps=np.float64(3)) == HalfLife(steps=3)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: HalfLife(), "exactly one unit: HalfLife = none"),
        (lambda: HalfLife(steps=1, epochs=2), "HalfLife = steps and epochs"),
        (lambda: HalfLife(steps=0), "HalfLife.steps = 0"),
        (lambda: HalfLife(steps=-1), "HalfLife.steps = -1"),
        (lambda: HalfLife(tokens=math.nan), "HalfLife.tokens = nan"),
        (lambda: HalfLife(steps=1, lr=math.inf), "HalfLife.lr = inf"),
        (lambda: HalfLife(epochs=1).in_steps(), "a half-life in epochs needs steps_per_epoch"),
        (lambda: HalfLife(epochs=1).in_steps(samples_per_step=3), "needs steps_per_epoch"),
        (lambda: HalfLife(samples=1).in_steps(), "needs samples_per_step"),
        (lambda: HalfLife(tokens=1).rate(), "needs tokens_per_step"),
        (lambda: HalfLife(epochs=1).in_steps(steps_per_epoch=0), "steps_per_epoch = 0"),
        (lambda: HalfLives(-1), "HalfLives.per_run = -1"),
        (lambda: HalfLives(math.inf), "HalfLives.per_run = inf"),
        (lambda: half_life(-0.1), "rate = -0.1"),
        (lambda: half_life(1.1), "flips the sign"),
        (lambda: half_life(math.nan), "rate = nan"),
        (lambda: rate_of(0), "half_life_steps = 0"),
        (lambda: retention(np.array([0.5, 1.0])), r"rates\[1\] = 1"),
        (lambda: mean_age(np.zeros(2), np.zeros(3)), "rates = 2; give 3"),
        (lambda: mean_age(np.zeros(2), np.zeros(2)), "every step size is 0"),
    ],
)
def test_bad_input_is_named(call, part):
    with pytest.raises(InputError, match=part):
        call()


# Coupled decay on SGD with momentum.

CASES = [
    {},
    {"momentum": 0.5},
    {"momentum": 0.9},
    {"momentum": 0.99},
    {"momentum": 0.9, "dampening": 0.5},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.5, "nesterov": True},
]


def sgd_without_gradient(steps, lr, weight_decay, **options):
    """The sizes of a weight under the real SGD, its gradient always zero."""
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([p], lr=lr, weight_decay=weight_decay, **options)
    sizes = []
    for _ in range(steps):
        p.grad = torch.zeros_like(p)
        optimizer.step()
        sizes.append(float(p.detach()))
    return np.array(sizes)


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.95])
def test_coupled_rate_is_that_of_sgd(options, share):
    """While the weight does not oscillate, step by step the slow root."""
    limit = oscillates_from(options.get("momentum", 0), options.get("nesterov", False))
    weight_decay = share * limit / 0.1 / (1 - options.get("dampening", 0))
    rate = coupled_rate(weight_decay, 0.1, **options)
    steps = min(40_000, math.ceil(30 / rate) + 5)
    sizes = sgd_without_gradient(steps, 0.1, weight_decay, **options)
    later = slice(int(0.6 * steps), None)  # the fast root has gone
    np.testing.assert_allclose((sizes[1:] / sizes[:-1])[later], 1 - rate, rtol=1e-9 if share < 0.9 else 1e-4)


@pytest.mark.parametrize("options", [case for case in CASES if case])
@pytest.mark.parametrize("times", [1.5, 20.0])
def test_coupled_rate_where_it_oscillates_is_the_envelope(options, times):
    mu, nesterov = options["momentum"], options.get("nesterov", False)
    a = times * oscillates_from(mu, nesterov)
    if a >= diverges_from(mu, nesterov):
        a = 0.95 * diverges_from(mu, nesterov)
    weight_decay = a / 0.1 / (1 - options.get("dampening", 0))
    sizes = abs(sgd_without_gradient(4000, 0.1, weight_decay, **options))
    kept = sizes > 1e-250
    sizes = sizes[kept]
    half = len(sizes) // 2
    first, last = sizes[: half // 2].max(), sizes[half : half + half // 2].max()
    measured = (last / first) ** (1 / half)
    assert 1 - coupled_rate(weight_decay, 0.1, **options) == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("options", CASES)
def test_oscillation_and_divergence_begin_where_they_are_said_to(options):
    mu, nesterov = options.get("momentum", 0), options.get("nesterov", False)
    unit = 1 / (0.1 * (1 - options.get("dampening", 0)))
    below, above = (
        sgd_without_gradient(6000, 0.1, factor * oscillates_from(mu, nesterov) * unit, **options)
        for factor in (0.98, 1.02)
    )
    assert (below > -1e-300).all()
    assert (above < 0).any()
    below, above = (
        abs(sgd_without_gradient(6000, 0.1, factor * diverges_from(mu, nesterov) * unit, **options)[-1])
        for factor in (0.98, 1.02)
    )
    assert below < 1e-3
    assert not above < 1e3  # or overflowed
    with pytest.raises(InputError, match="the weight diverges"):
        coupled_rate(1.0001 * diverges_from(mu, nesterov) * unit, 0.1, **options)


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("steps", [80.0, 1380.0, 1e6, 1e12])
def test_coupled_strength_there_and_back(options, steps):
    if steps < 1000 and options.get("momentum") == 0.99:
        steps = 300.0
    weight_decay = coupled_weight_decay(steps, 0.1, **options)
    assert half_life(coupled_rate(weight_decay, 0.1, **options)) == pytest.approx(steps, rel=1e-9)


def test_coupled_strength_gives_the_half_life_in_sgd():
    for options in CASES[1:]:
        weight_decay = coupled_weight_decay(400, 0.05, **options)
        sizes = sgd_without_gradient(4000, 0.05, weight_decay, **options)
        assert sizes[-1] / sizes[-401] == pytest.approx(0.5, rel=1e-9)


def test_the_figure_of_the_reference():
    """formulas.md, section 1: lr .1, wd 5e-4, mu .9 has a half-life of 1,380 steps, not 13,863."""
    assert round(half_life(coupled_rate(5e-4, 0.1, 0.9))) == 1380
    assert round(half_life(coupled_rate(5e-4, 0.1))) == 13_863
    assert round(oscillates_from(0.9), 4) == 0.0026


@given(st.floats(1e-12, 0.99), st.floats(0, 0.999), st.booleans())
def test_the_rate_is_the_root(share, mu, nesterov):
    """In 50 digits, at any distance from oscillation."""
    a = mpmath.mpf(share * oscillates_from(mu, nesterov))
    m = mpmath.mpf(mu)
    b, c = ((1 + m) * (1 - a), m * (1 - a)) if nesterov else (1 + m - a, m)
    root = (b + mpmath.sqrt(b**2 - 4 * c)) / 2
    assert abs(coupled_rate(float(a), 1.0, mu, nesterov=nesterov) / (1 - root) - 1) < 1e-11


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (
            lambda: coupled_weight_decay(5, 0.1, 0.9),
            "half_life_steps = 5; give 13.16 or more at momentum = 0.9",
        ),
        (lambda: coupled_weight_decay(5, 0.1, 0.9, nesterov=True), "give 12.83 or more at momentum = 0.9"),
        (lambda: coupled_weight_decay(0, 0.1), "half_life_steps = 0"),
        (lambda: coupled_weight_decay(9, 0), "lr = 0"),
        (lambda: coupled_rate(0.1, 0.1, 1.0), "momentum = 1"),
        (lambda: coupled_rate(0.1, 0.1, 0.9, 0.5, True), "dampening = 0.5"),
        (lambda: coupled_rate(-0.1, 0.1), "weight_decay = -0.1"),
        (lambda: coupled_rate(30, 0.1), "give less than 20 at lr = 0.1"),
    ],
)
def test_bad_coupled_input_is_named(call, part):
    with pytest.raises(InputError, match=part):
        call()


def test_the_shortest_half_life_with_momentum_is_allowed():
    for mu, nesterov in ((0.9, False), (0.9, True), (0.5, False)):
        least = 2 * mu / (1 + mu) if nesterov else math.sqrt(mu)
        steps = math.log(2) / -math.log(least) * (1 + 1e-9)
        weight_decay = coupled_weight_decay(steps, 0.1, mu, nesterov=nesterov)
        assert weight_decay * 0.1 == pytest.approx(oscillates_from(mu, nesterov), rel=1e-6)
