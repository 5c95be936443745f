"""Small parameters joined: few calls, the same results as each by itself, state that stays the user's."""

import io
import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from tests.hooks.zoo import make_rule
from torch import nn, optim
from torch.profiler import ProfilerActivity, profile

import weightdecay as wd
from weightdecay.hooks import apply
from weightdecay.hooks.decay import attached
from weightdecay.rules import RULES

# Sizes of three binary orders; (3, 5), (7, 2) and (4, 4) share one with another.
SHAPES = [(3, 5), (7, 2), (1, 15), (4, 4), (40, 3), (5, 5)]
HOOKED = [name for name in RULES if name != "LoRAProduct"]


def parameters(count, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    made = []
    for i, shape in zip(range(count), itertools.cycle(shapes), strict=False):
        w = nn.Parameter(torch.randn(shape, generator=generator))
        w.grad = torch.randn(shape, generator=generator)
        made.append((f"{i}.weight", w))
    return made


def calls(optimizer):
    """How many operators a step calls, not counting those that operators call."""
    optimizer.step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        optimizer.step()
    called = [event for event in profiled.events() if event.name.startswith("aten::")]
    within = [event.cpu_parent is not None and event.cpu_parent.name.startswith("aten::") for event in called]
    return within.count(False)


def hooked(named, rule, kind=optim.AdamW, **options):
    optimizer = kind(named, lr=0.01, **({"weight_decay": 0} if kind is optim.AdamW else {}), **options)
    all_but_one = [wd.Group(name="0.weight", scale=0), wd.Group(name="*")]  # else the optimizer does it
    wd.attach(optimizer, rule, on=all_but_one)
    return optimizer


@pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
@pytest.mark.parametrize("name", HOOKED)
def test_calls_do_not_grow_with_the_number_of_tensors(name):
    """The optimizer's fused step is one call, too."""
    few, many = (calls(hooked(parameters(count), make_rule(name, 0.01), fused=True)) for count in (36, 360))
    assert many == few


@pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
@pytest.mark.parametrize("kind", [optim.SGD, optim.AdamW])
@pytest.mark.parametrize("name", HOOKED)
def test_joined_is_each_by_itself(name, kind, monkeypatch):
    """To the bit; norms of rows add up in another order, and so does the mean of all gradients' squares."""
    if name == "Stable" and kind is optim.SGD:
        return
    results = []
    for size in (1 << 14, 0):
        monkeypatch.setattr(apply, "SMALL", size)
        named = parameters(20)
        optimizer = hooked(named, make_rule(name, 0.5), kind)
        for step in range(4):
            for i, (_, w) in enumerate(named):
                w.grad = None if step == 2 and i % 3 == 0 else torch.sin(w.detach() * 7 + step)
            optimizer.step()
        results.append([w.detach() for _, w in named])
    exact = name not in ("FixedNorm", "Constrained")
    for joined, alone in zip(*results, strict=True):
        torch.testing.assert_close(joined, alone, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-7)


@pytest.mark.parametrize("rule", [wd.Toward(0.5, ema=0.9), wd.Constrained(bound=1.0)])
def test_what_is_kept_for_joined_parameters_is_saved_and_loaded(rule):
    """Places in one tensor, of which each has its own name: saved half way, with gradients missing once."""
    named = parameters(12)
    optimizer = hooked(named, rule, optim.SGD)
    decay = attached(optimizer)[0]
    optimizer.step()
    buffer = io.BytesIO()
    torch.save({"decay": decay.state_dict(), "weights": [w.detach().clone() for _, w in named]}, buffer)
    again = parameters(12)
    other = hooked(again, rule, optim.SGD)
    other.step()
    other.step()  # what is loaded takes the place of what this one has kept
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    attached(other)[0].load_state_dict(saved["decay"])
    with torch.no_grad():
        for (_, w), value in zip(again, saved["weights"], strict=True):
            w.copy_(value)
    for step in range(3):
        for parameters_, stepped in ((named, optimizer), (again, other)):
            for i, (_, w) in enumerate(parameters_):
                w.grad = None if step == 1 and i % 4 == 0 else torch.cos(w.detach())
            stepped.step()
    assert all(torch.equal(w, v) for (_, w), (_, v) in zip(named, again, strict=True))


def test_a_parameter_that_breaks_harms_no_other():
    """A weight that is no number, joined as a row with others and padding, and later mended."""
    named = parameters(12)
    optimizer = hooked(named, wd.Constrained(bound=1.0), optim.SGD)
    whole = named[3][1].detach().clone()
    with torch.no_grad():
        named[3][1].fill_(math.nan)
    optimizer.step()
    assert all(w.isfinite().all() for i, (_, w) in enumerate(named) if i != 3)
    with torch.no_grad():
        named[3][1].copy_(whole)
    attached(optimizer)[0].state_dict()["parameters"]["3.weight"][0]["multiplier"].zero_()
    optimizer.step()
    assert all(w.isfinite().all() for _, w in named)


def test_a_rule_of_ones_own_is_joined_where_it_keeps_nothing():
    seen: list[int] = []

    @dataclass(frozen=True)
    class Own(wd.Rule):
        def decayed(self, w, step):
            seen.append(w.numel())
            return w - step.rate * w.sign()

    @dataclass(frozen=True)
    class Keeping(Own):
        def start(self, w, name):
            return {"w": w.detach().clone()}

    for kind, sizes in ((Own, [14 + 15 + 16 + 120 + 25]), (Keeping, [14, 15, 16, 120, 25])):
        optimizer = hooked(parameters(6), kind(0.5), optim.SGD)
        seen.clear()
        optimizer.step()
        assert seen == sizes
        del RULES[kind.__name__]  # they are no part of the contract table


def attached_to(rule, count=3):
    named = parameters(count)
    optimizer = optim.SGD(named, lr=0.1)
    wd.attach(optimizer, rule, on=wd.Group(name="*"))
    return [w for _, w in named], optimizer


def test_two_penalties_give_the_gradients_back():
    ws, optimizer = attached_to(wd.chain(wd.L2(0.5), wd.L2(0.1)))
    gradients, start = [w.grad.clone() for w in ws], [w.detach().clone() for w in ws]
    optimizer.step()
    for w, w0, g in zip(ws, start, gradients, strict=True):
        torch.testing.assert_close(w.detach(), w0 - 0.1 * (g + 0.6 * w0))
        assert torch.equal(w.grad, g)


def test_a_default_device_is_not_that_of_the_weights():
    ws, optimizer = attached_to(wd.Decoupled(0.5))
    wanted = [0.95 * w.detach() - 0.1 * w.grad for w in ws]
    with torch.device("meta"):
        optimizer.step()
    for w, right in zip(ws, wanted, strict=True):
        torch.testing.assert_close(w.detach(), right)


@pytest.mark.parametrize("rule", [wd.Huber(0.5), wd.Toward(0.5)], ids=str)
def test_a_first_step_in_inference_mode_is_not_the_last(rule):
    (ws, optimizer), (others, other) = attached_to(rule), attached_to(rule)
    with torch.inference_mode():
        optimizer.step()
    other.step()
    optimizer.step()
    other.step()
    assert all(torch.equal(w, v) for w, v in zip(ws, others, strict=True))


@dataclass(frozen=True)
class Normed(wd.Rule):
    """Adds the direction of a weight to its gradient."""

    coupled, elementwise, by_rows = True, False, True

    def decayed(self, w, step):
        return w.clone()

    def gradient(self, g, w, step, out=None):
        norm = torch.linalg.vector_norm(w, dim=1, keepdim=True) if step.rows else w.norm()
        return g + step.weight_decay * w / norm


@dataclass(frozen=True)
class Stated(wd.Rule):
    """Multiplies with a factor that each parameter keeps."""

    def start(self, w, name):
        return {"share": w.new_tensor(w.numel() / 100)}

    def factor(self, step):
        return 1 - step.rate * step.state["share"]


for own in (Normed, Stated):
    del RULES[own.__name__]  # which other tests go through


@pytest.mark.parametrize(
    ("rule", "right"),
    [
        (Normed(0.5), lambda w: w - 0.1 * (w.grad + 0.5 * w / w.norm())),
        (Stated(0.5), lambda w: w * (1 - 0.05 * w.numel() / 100) - 0.1 * w.grad),
    ],
    ids=["coupled", "factor"],
)
def test_rules_of_ones_own_that_look_at_single_parameters_are_not_joined(rule, right):
    ws, optimizer = attached_to(rule)
    wanted = [right(w).detach() for w in ws]
    optimizer.step()
    for w, then in zip(ws, wanted, strict=True):
        torch.testing.assert_close(w.detach(), then)
