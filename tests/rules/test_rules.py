"""Each rule against its equation, element by element, and how rules are written and composed."""

import pytest
import torch
from tests.hooks.zoo import make_rule

import weightdecay as wd
from weightdecay.rules import RULES, Step

VALUES = torch.tensor([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0], dtype=torch.float64)


def test_cautious_table_of_ties():
    """u and w each negative, zero, positive: decay wherever u·w >= 0, zeros included (the paper's choice)."""
    for u in (-1.0, -0.0, 0.0, 1.0):
        for w in (-2.0, -0.0, 0.0, 2.0):
            step = Step(rate=0.25, weight_decay=1.0, update=torch.tensor([u]))
            expected = torch.tensor([w * 0.75 if u * w >= 0 else w])
            ours = wd.Cautious(1.0).decayed(torch.tensor([w]), step)
            in_place = torch.tensor([w])
            wd.Cautious(1.0).decay_(in_place, Step(0.25, 1.0, update=torch.tensor([u])))
            assert torch.equal(ours, expected)
            assert torch.equal(in_place, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [name for name in RULES if not RULES[name].coupled])
def test_in_place_is_bitwise_the_pure_function(name, dtype):
    generator = torch.Generator().manual_seed(1)
    w, u, point, partner = (torch.randn(100, 10, generator=generator, dtype=dtype) for _ in range(4))
    u[::7] = 0
    w[::11] = 0

    def step():
        one = torch.ones((), dtype=dtype)
        kept = {"point": point, "norm": 30 * one, "multiplier": 0.01 * one, "bound": 900 * one}
        told = {"before": u, "second_moment": 4.0, "partner": partner.mT, "name": "second.weight"}
        return Step(0.125, 0.5, u.clone(), kept, 0.1, **told)

    rule = make_rule(name, 0.5)
    expected = rule.decayed(w, step())
    kept = w.clone()
    rule.decay_(w, step())
    assert torch.equal(w, expected)
    assert not torch.equal(w, kept)


def test_cautious_all_aligned_is_adamw_and_all_opposed_is_none():
    for sign, weight_decay in ((1, 0.4), (-1, 0.0)):
        w, v = (torch.nn.Parameter(torch.tensor([3.0, -2.0, 5.0])) for _ in range(2))
        ours = torch.optim.AdamW([("w", w)], lr=0.01, weight_decay=0)
        theirs = torch.optim.AdamW([v], lr=0.01, weight_decay=weight_decay)
        wd.attach(ours, wd.Cautious(0.4), on="all")
        for _ in range(20):
            for p, optimizer in ((w, ours), (v, theirs)):
                p.grad = sign * p.detach().clone()
                optimizer.step()
        assert torch.equal(w, v)


def test_l2_is_the_gradient_of_its_penalty():
    w = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    step = Step(rate=0.0, weight_decay=0.3)
    (gradient,) = torch.autograd.grad(wd.L2(0.3).penalty(w, step), w)
    ours = wd.L2(0.3).gradient(torch.zeros(7, dtype=torch.float64), w.detach(), step)
    torch.testing.assert_close(ours, gradient, rtol=1e-15, atol=0)


def test_a_chain_acts_in_order():
    """Two decays multiply, and a pull that comes second starts from what the first left."""
    point = torch.full((2, 2), 10.0, dtype=torch.float64)
    for rules, expected in (
        ((wd.Decoupled(0.5), wd.Toward(1.0, to={"w": point})), 1 * 0.95 * 0.9 + 10 * 0.1),
        ((wd.Toward(1.0, to={"w": point}), wd.Decoupled(0.5)), (1 * 0.9 + 10 * 0.1) * 0.95),
        ((wd.chain(wd.Decoupled(0.5)), wd.Decoupled(0.5)), 0.95**2),
    ):
        w = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        optimizer = torch.optim.SGD([("w", w)], lr=0.1)
        wd.attach(optimizer, wd.chain(*rules))
        w.grad = torch.zeros_like(w)
        optimizer.step()
        torch.testing.assert_close(w.detach(), torch.full_like(w, expected), rtol=1e-14, atol=0)


def test_a_chain_with_an_adaptive_update_is_the_sum_of_its_parts():
    """Coupled and decoupled together in AdamW, which alone would be lowered: against doing both by hand."""
    generator = torch.Generator().manual_seed(0)
    start, g = (torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    w, v = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    ours = torch.optim.AdamW([("w", w)], lr=0.01, weight_decay=0)
    theirs = torch.optim.AdamW([v], lr=0.01, weight_decay=0.5)
    with pytest.warns(wd.WeightDecayWarning, match="no decay rate"):
        wd.attach(ours, wd.chain(wd.Decoupled(0.5), wd.L2(0.3)))
    for _ in range(10):
        # AdamW adds the penalty's gradient before its own decay; the hooks decay first.
        w.grad = g.clone()
        v.grad = g + 0.3 * v.detach() * (1 - 0.01 * 0.5)
        ours.step()
        theirs.step()
    torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-12)


def test_rules_are_values():
    assert wd.Decoupled(0.1) == wd.Decoupled(0.1)
    assert wd.Decoupled(0.1) != wd.Independent(0.1)
    with pytest.raises(AttributeError):
        wd.Decoupled(0.1).weight_decay = 0.2
    assert wd.Cautious(wd.HalfLife(epochs=2)).shown == "Cautious(weight_decay=HalfLife(epochs=2))"
    assert wd.Decoupled(torch.tensor(0.5)).shown == "Decoupled(weight_decay=tensor)"
    assert " at 0x" not in wd.Decoupled(lambda step: 0.1).shown


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wd.Toward(0.1, ema=1.0), "ema = 1.0; give a number between 0 and 1"),
        (lambda: wd.Toward(0.1, ema=float("nan")), "ema = nan"),
        (lambda: wd.chain(), "an empty chain"),
    ],
)
def test_bad_rules(make, message):
    with pytest.raises(wd.InputError, match=message):
        make()
