"""What of a decay happens where weights are rounded to the nearest, against the arithmetic itself."""

import numpy as np
import pytest
import torch

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.units.halflife import FLOORS, rounded_rate
from weightdecay.units.limits import advice

NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def removed(rate, dtype, weights):
    """<w, w - w'>/<w, w> of one multiplication by 1 - rate."""
    w = weights.to(dtype)
    after = w.clone().mul_(1 - rate)
    return float((w.double() * (w.double() - after.double())).sum() / w.double().square().sum())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("units", [0.3, 0.7, 1.04, 1.5, 2.2, 3.36, 5.0, 6.9, 20.3, 333.0])
def test_rounded_rates_are_what_multiplication_does(name, units):
    """Weights whose logarithms are even: every mantissa as often as log m says."""
    rate = units * FLOORS[name]
    weights = torch.tensor(2.0 ** (np.arange(200_000) / 200_000), dtype=torch.float64)
    weights = weights * torch.where(torch.arange(200_000) % 2 == 0, 1.0, -1.0)
    expected = removed(rate, NAMES[name], weights)
    assert rounded_rate([rate], name)[0] == pytest.approx(expected, rel=0.02, abs=1e-3 * rate)


def test_what_is_said():
    for rate, ratio in ((3.1e-8, "2.56"), (1e-7, "1.19"), (2e-7, "0.9")):  # the rates of the report, and one
        (line,) = [one for one in advice(rate, 1.0, dtype="float32") if "float32" in one]
        assert all(part in line for part in (f"of the rate {rate:.3g} a step", f"(× {ratio}", "stochastic"))
    assert "quantised" not in " ".join(advice(1e-5, 1.0, dtype="float32"))
    assert "lost in float32" in advice(1e-8, 1.0, dtype="float32")[0]
    for dtype, rate in (("bfloat16", 3.9e-3), ("float16", 5e-4)):
        assert f"quantised in {dtype}" in advice(rate, 1.0, dtype=dtype)[0]
    for rate in (1e-8, 3.1e-8, 1e-7):  # through the gradient it is not rounded beside the weight
        said = " ".join(advice(rate, 1.0, coupled=True, momentum=0.9, dtype="float32"))
        assert not any(word in said for word in ("lost", "quantised"))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("strength", [1e-8, 3.1e-8, 1e-7, 1e-4])
@pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")
def test_happened_is_what_the_next_step_does(kind, strength):
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.randn(60, 60))
    optimizer = kind([w], lr=1.0, weight_decay=0.0)
    decay = wd.attach(optimizer, wd.Decoupled(strength), on="all")
    before, account = w.detach().double(), decay.happened()
    w.grad = torch.zeros_like(w)
    optimizer.step()
    assert account.intended == pytest.approx(strength * float(before.square().sum()), rel=1e-12)
    assert account.happened == pytest.approx(float((before * (before - w.detach().double())).sum()), rel=1e-9)


def test_an_audit_says_so():
    layer = torch.nn.Linear(40, 40, bias=False)

    def found(lr, **options):
        optimizer = torch.optim.AdamW(layer.parameters(), lr=lr, weight_decay=1e-3)
        audit = wd.audit(layer, optimizer, **options)
        return [(one.severity, one.message) for one in audit.findings if one.code == "WD402"]

    assert found(1e-2) == []
    ((severity, message),) = found(3.1e-5)
    assert severity == "warning"
    assert "about 2.56 times the decay happens" in message
    assert found(1e-5)[0][0] == "error"
    assert found(1e-4)[0][0] == "info"
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    assert [one for one in wd.audit(layer, optimizer).findings if one.code == "WD402"] == []


def test_coupled_decay_happens_where_it_was_said_to_be_lost():
    """SGD, lr 1e-4, wd 1e-4, noisy gradients: float32 loses of its decay what float64 does, on average."""
    ends = {}
    for dtype in (torch.float32, torch.float64):
        for strength in (0.0, 1e-4):
            generator = torch.Generator().manual_seed(0)
            w = torch.nn.Parameter(torch.randn(20_000, generator=generator, dtype=torch.float64).to(dtype))
            optimizer = torch.optim.SGD([w], lr=1e-4, momentum=0.9, weight_decay=strength)
            start = w.detach().double().clone()
            for _ in range(300):
                w.grad = torch.randn(20_000, generator=generator, dtype=torch.float64).to(dtype)
                optimizer.step()
            ends[dtype, strength] = w.detach().double()
        ends[dtype] = float((start * (ends[dtype, 0.0] - ends[dtype, 1e-4])).sum())
    assert ends[torch.float32] / ends[torch.float64] == pytest.approx(1, abs=0.1)


def test_sixteen_bits_under_a_penalty_are_refused_without_a_remedy_that_is_refused():
    layer = torch.nn.Linear(4, 4, bias=False).bfloat16()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with pytest.raises(InputError, match="too narrow for a penalty") as error:
        wd.attach(optimizer, wd.L2(0.1), model=layer)
    assert "stochastic" not in str(error.value)
