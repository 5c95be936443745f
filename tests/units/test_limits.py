"""What is refused and what is advised against, where a number is claimed against real optimizers."""

import math

import numpy as np
import pytest
import torch

from weightdecay.errors import InputError
from weightdecay.units.halflife import FLOORS
from weightdecay.units.limits import advice, check


def adamw_without_gradient(steps, lr, weight_decay, dtype=torch.float64, start=None):
    p = torch.nn.Parameter(torch.ones(1, dtype=dtype) if start is None else start.clone())
    p.grad = torch.zeros_like(p)
    optimizer = torch.optim.AdamW([p], lr=lr, weight_decay=weight_decay, eps=1e-4)  # 1e-8 is 0 in float16
    path = []
    for _ in range(steps):
        optimizer.step()
        path.append(p.detach().clone())
    return path


def test_what_is_refused_is_what_goes_wrong():
    """torch's AdamW flips the sign from lr·wd = 1 on, and diverges above 2, without a word."""
    assert check(9.99, 0.1) == 9.99
    assert min(float(w) for w in adamw_without_gradient(50, 0.1, 9.99)) > 0
    for weight_decay, wrong in (
        (10.0, lambda w: w == 0),
        (15.0, lambda w: w < 0),
        (25.0, lambda w: abs(w) > 1),
    ):
        assert any(wrong(float(w)) for w in adamw_without_gradient(3, 0.1, weight_decay))
        with pytest.raises(
            InputError, match=f"weight_decay = {weight_decay:g} at lr = 0.1; give less than 10"
        ):
            check(weight_decay, 0.1)


@pytest.mark.parametrize(
    ("arguments", "options", "limit"),
    [
        ((0.1,), {}, 10),
        ((0.1,), {"law": "lr_squared"}, 10),
        ((0.1,), {"law": "lr_relative"}, 1),
        ((), {"law": "lr_relative"}, 1),
        ((), {"law": "constant"}, 1),
        ((0.1,), {"coupled": True}, 10),
        ((0.1,), {"coupled": True, "momentum": 0.9}, 38),
        ((0.1,), {"coupled": True, "momentum": 0.9, "dampening": 0.5}, 76),
        ((0.1,), {"coupled": True, "momentum": 0.9, "nesterov": True}, 38 / 2.8),
    ],
)
def test_the_limit_of_every_law(arguments, options, limit):
    assert check(limit * 0.999, *arguments, **options) == limit * 0.999
    with pytest.raises(InputError, match=f"give less than {limit:.4g}"):
        check(limit * 1.001, *arguments, **options)
    with pytest.raises(InputError, match="give less than"):
        check(limit * (1 + 1e-12), *arguments, **options)


def test_without_a_step_size_only_the_number_itself_is_checked():
    assert check(1e6) == 1e6
    assert check(1e6, 0.0) == 1e6
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(InputError, match=f"lam = {wrong}"):
            check(wrong, where="lam")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_floor_of_a_dtype_is_where_weights_stop_moving(dtype):
    """At the floor no weight moves; at 2.1 times the floor every weight does."""
    name = str(dtype).removeprefix("torch.")
    start = torch.linspace(0.5, 4, 4001).to(dtype)
    still = adamw_without_gradient(3, 1.0, FLOORS[name], dtype, start)[-1]
    assert torch.equal(still, start)
    moved = adamw_without_gradient(1, 1.0, 2.1 * FLOORS[name], dtype, start)[-1]
    assert (moved < start).all()


def test_floors_are_half_the_spacing_below_one():
    for name, floor in FLOORS.items():
        dtype = getattr(torch, name)
        assert floor == torch.finfo(dtype).eps / 4
        assert torch.tensor(1 - floor, dtype=torch.float64).to(dtype) == 1


def said(*arguments, **options):
    return " | ".join(advice(*arguments, **options))


def test_precision():
    for weight_decay, lr in ((1e-4, 1e-4), (1e-8, 5e-5)):  # two published recipes
        assert "the decay is lost in float32" in said(weight_decay, lr, dtype="float32")
    assert "the decay is lost in bfloat16: the rate 3e-05" in said(0.1, 3e-4, dtype=torch.bfloat16)
    assert advice(0.1, 3e-4, dtype="float32") == ()
    assert advice(1e-4, 1e-4) == ()
    # A penalty goes through the gradient, and is not rounded beside the weight.
    assert "lost" not in said(1e-4, 1e-4, coupled=True, momentum=0.9, dtype="float32")
    with pytest.raises(InputError, match="no such floating point type: dtype = int8"):
        advice(0.1, 3e-4, dtype="int8")


def test_timescale():
    assert "very fast: its timescale 1/rate is 5 steps" in said(2.0, 0.1)
    assert advice(1.0, 0.1) == ()  # 10 steps
    assert "half of a weight is gone after 3.11" in said(2.0, 0.1)
    assert "shorter than an epoch of 500" in said(0.1, 0.1, steps_per_epoch=500)
    assert advice(0.1, 0.1, steps_per_epoch=99) == ()
    assert "longer than the run of 80" in said(0.1, 0.1, steps=80)
    assert advice(0.1, 0.1, steps=150) == ()
    # Of two lines that say the same the stronger one.
    assert len(advice(0.1, 0.1, steps=5)) == 1
    assert "next to nothing: 0.951" in said(0.1, 0.1, steps=5)
    assert "next to nothing: 0.95 " in said(0.1, 0.1, retention=0.95)
    assert advice(0.1, 0.1, retention=0.9) == ()
    assert "longer than the run" in said(0.1, 0.1, steps=80, retention=0.9)
    assert "next to nothing" in said(0.1, retention=0.95)


def test_oscillation_is_told_where_it_begins():
    options = {"coupled": True, "momentum": 0.9}
    assert advice(0.026, 0.1, **options) == ()
    assert "weights oscillate: lr·wd·(1 - dampening) = 0.00264 is more than 0.00263" in said(
        0.0264, 0.1, **options
    )
    assert "below 0.0263" in said(0.0264, 0.1, **options)
    sizes = []
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.0264)
    for _ in range(3000):
        p.grad = torch.zeros_like(p)
        optimizer.step()
        sizes.append(float(p.detach()))
    assert (np.array(sizes) < 0).any()


def test_coupled_in_an_adaptive_optimizer():
    assert "no decay rate" in said(0.1, 1e-3, coupled=True, adaptive=True)
    assert advice(0.1, 1e-3, adaptive=True) == ()


def test_nothing_is_said_of_no_decay():
    assert advice(0.0, 1e-3, dtype="bfloat16", steps=10, coupled=True, adaptive=True) == ()


def test_laws_without_lr():
    assert "very fast" in said(0.2, law="constant")
    assert "lost in bfloat16" in said(1e-3, law="lr_relative", dtype="bfloat16")


def test_every_line_is_one_line():
    for line in (
        *advice(2.0, 0.1, dtype="bfloat16", steps=3, steps_per_epoch=50, coupled=True, momentum=0.9),
        *advice(1e-9, 0.1, dtype="bfloat16", steps=3, steps_per_epoch=50),
    ):
        assert "\n" not in line
        assert line[0].islower()


@pytest.mark.parametrize(
    "options",
    [{"steps": -1}, {"steps": 0}, {"steps_per_epoch": 0}, {"retention": -0.1}, {"retention": math.nan}],
)
def test_bad_input_is_named(options):
    (name, value) = next(iter(options.items()))
    with pytest.raises(InputError, match=f"{name} = {value}"):
        advice(0.01, 0.1, **options)
    with pytest.raises(InputError, match="removes the whole weight"):
        advice(20, 0.1)
