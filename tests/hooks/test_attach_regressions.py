"""Slips that a review found, each as it was found."""

import gc
import subprocess
import sys
import weakref
from contextlib import suppress
from dataclasses import dataclass

import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

import weightdecay as wd

F64 = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class NotReadable(optim.SGD):
    """A subclass may have changed its step, so that its update is the difference that the step makes."""


def one_step(rule, kind=optim.SGD, start=None, steps=1):
    w = nn.Parameter(random(3, 4) if start is None else start.clone())
    optimizer = kind([("w", w)], lr=0.1)
    decay = wd.attach(optimizer, rule, on="all")
    for t in range(steps):
        w.grad = random(*w.shape, seed=t + 1)
        optimizer.step()
    return w.detach(), decay


def test_a_fixed_norm_after_other_decay_has_that_decay_in_its_update():
    start, g = random(3, 4), random(3, 4, seed=1)
    ours, _ = one_step(wd.chain(wd.Decoupled(0.4), wd.FixedNorm()))
    update = start - (start * (1 - 0.1 * 0.4) - 0.1 * g)
    moved = start - 0.1 * start.norm() * update / update.norm()
    torch.testing.assert_close(ours, start.norm() * moved / moved.norm(), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("last", [wd.FixedNorm(), wd.PNorm(0.4)])
def test_a_chain_means_the_same_whether_the_update_is_readable_or_not(last):
    rule = wd.chain(wd.Cautious(0.4), last)
    ours, theirs = one_step(rule, steps=3)[0], one_step(rule, NotReadable, steps=3)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_a_product_after_other_decay_takes_both_factors_as_that_left_them():
    B, A = nn.Parameter(random(4, 2)), nn.Parameter(random(2, 3, seed=1))
    left, right = B.detach() * 0.96, A.detach() * 0.96
    optimizer = optim.SGD([{"params": [("lora_B", B)]}, {"params": [("lora_A", A)]}], lr=0.1)
    wd.attach(optimizer, wd.chain(wd.Decoupled(0.4), wd.LoRAProduct(0.3)), on="all")
    B.grad, A.grad = torch.zeros_like(B), torch.zeros_like(A)
    optimizer.step()
    torch.testing.assert_close(B.detach(), left - 0.03 * left @ right @ right.T, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(A.detach(), right - 0.03 * left.T @ left @ right, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_fixed_norm_does_not_amplify_rounding(dtype):
    optimizer = optim.SGD([("w", nn.Parameter(torch.ones(2, 2, dtype=dtype)))], lr=0.1)
    for rounding, said in (("nearest", "16-bit weights"), ("stochastic", "loses nothing to rounding")):
        with pytest.raises(wd.InputError, match=said):
            wd.attach(optimizer, wd.FixedNorm(), rounding=rounding)
    with pytest.raises(
        wd.InputError, match="rounded before its direction"
    ):  # in a chain it is found when it starts
        wd.FixedNorm().start(torch.ones(2, dtype=dtype), "w")


def test_a_fixed_norm_makes_no_nan_of_zeros():
    w = nn.Parameter(random(3, 3))
    optimizer = optim.SGD([("w", w)], lr=1.0)
    wd.attach(optimizer, wd.FixedNorm())
    with torch.no_grad():
        w.zero_()
    w.grad = torch.zeros_like(w)
    optimizer.step()
    assert torch.equal(w, torch.zeros_like(w))
    ended, _ = one_step(wd.FixedNorm(), start=torch.tensor([[2.0]], dtype=F64))
    assert torch.isfinite(ended).all()


def test_stable_before_the_state_is_made_and_without_elements():
    w, none = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(0, 2))
    optimizer = optim.AdamW([("w", w), ("none", none)], weight_decay=0)
    assert not optimizer.state[w]  # looking makes an empty one
    wd.attach(optimizer, wd.Stable(0.1))
    w.grad, none.grad = torch.ones_like(w), torch.ones_like(none)
    optimizer.step()
    optimizer.zero_grad()
    none.grad = torch.ones_like(none)
    optimizer.step()


def test_rules_without_a_strength_have_none_to_scale_or_schedule():
    rules = wd.FixedNorm(), wd.Constrained()
    for rule in rules:
        optimizer = optim.SGD([("w", nn.Parameter(random(2, 2)))], lr=0.1)
        with pytest.raises(wd.InputError, match=r"no strength that a group could scale: scale of w = 0\.5"):
            wd.attach(optimizer, rule, on=wd.Group(name="w", scale=0.5))
        decay = wd.attach(optimizer, rule)
        assert str(decay.strengths()) == "[nan]"
        with pytest.raises(wd.InputError, match="the rule has no strength"):
            wd.WeightDecayScheduler(decay, lambda t: 0.5)
    both = wd.attach(
        optim.SGD([("w", nn.Parameter(random(2, 2)))], lr=0.1), wd.chain(wd.FixedNorm(), wd.Decoupled(0.5))
    )
    assert both.strengths() == [0.5]


def test_huber_has_no_half_life_and_does_not_overshoot():
    optimizer = optim.SGD([("w", nn.Parameter(random(2, 2)))], lr=0.1)
    with pytest.raises(wd.InputError, match="no half-life"):
        wd.attach(optimizer, wd.Huber(wd.HalfLife(steps=10)))
    with pytest.raises(wd.InputError, match="removes the whole weight"):
        wd.attach(optimizer, wd.Huber(10.0))


def test_a_replaced_parameter_of_another_shape_starts_anew():
    layer = nn.Linear(3, 3, bias=False)
    optimizer = optim.SGD(layer.parameters(), lr=0.01)
    wd.attach(optimizer, wd.FixedNorm(), model=layer)
    layer.weight = nn.Parameter(100 * torch.ones(5, 3))
    optimizer.param_groups[0]["params"] = [layer.weight]
    layer.weight.grad = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    before = layer.weight.norm().item()
    optimizer.step()
    assert layer.weight.norm().item() == pytest.approx(before)


def test_a_state_that_cannot_be_read_changes_nothing():
    pairs = [(name, nn.Parameter(random(2, 2))) for name in "ab"]
    decay = wd.attach(optim.SGD(pairs, lr=0.1), wd.Toward(0.1))
    state = decay.state_dict()
    before = [states[0]["point"].clone() for states in state["parameters"].values()]
    wrong = {name: [{"point": torch.ones(2, 2, dtype=F64)}] for name in "ab"}
    wrong["b"][0]["point"] = torch.ones(2, 2, dtype=F64, device="meta")
    with pytest.raises(NotImplementedError):
        decay.load_state_dict({**state, "parameters": wrong})
    after = [states[0]["point"] for states in decay.state_dict()["parameters"].values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_norm_is_no_weight_though_it_looks_like_one():
    for dtype in (torch.complex128, torch.bfloat16):
        w = nn.Parameter(torch.tensor(3.0, dtype=dtype))
        optimizer = optim.SGD([("w", w)], lr=0.1)
        narrow = dtype == torch.bfloat16
        decay = wd.attach(
            optimizer, wd.Constrained(bound=1.0), on="all", rounding="stochastic" if narrow else "nearest"
        )
        w.grad = torch.zeros_like(w)
        optimizer.step()
        kept = decay.state_dict()["parameters"]["w"][0]
        assert {one.dtype for one in kept.values()} == {torch.float32 if narrow else F64}


def test_what_was_kept_for_a_step_goes_with_the_decay():
    w = nn.Parameter(random(4, 4))
    optimizer = optim.SGD([("w", w)], lr=0.1)
    decay = wd.attach(optimizer, wd.PNorm(0.1))
    w.grad = torch.ones_like(w)
    optimizer.step()
    seen = weakref.ref(w)
    decay.detach()
    optimizer.param_groups[0]["params"] = []
    optimizer.state.clear()
    del w, decay, optimizer
    gc.collect()
    assert seen() is None


def test_weights_that_became_narrow_are_refused():
    layer = nn.Linear(3, 3)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    wd.attach(optimizer, wd.Decoupled(0.1), model=layer)
    layer.to(torch.bfloat16)
    layer.weight.grad = torch.zeros_like(layer.weight)
    with pytest.raises(wd.InputError, match="16-bit weights are too narrow"):
        optimizer.step()


def test_stable_on_sparse_gradients_sends_nobody_in_a_circle():
    table = nn.Embedding(5, 2, sparse=True)
    with pytest.raises(wd.InputError, match="build the embedding with sparse=False"):
        wd.attach(optim.SparseAdam(table.parameters()), wd.Stable(0.1), model=table, on="all")


@pytest.mark.filterwarnings("default::weightdecay.errors.WeightDecayWarning")
def test_a_table_read_past_its_module_is_told():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(20, 3, sparse=True)

        def forward(self, x):
            return F.embedding(x, self.table.weight, sparse=True)

    model = Reader()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    wd.attach(optimizer, wd.Decoupled(0.5), model=model, on="all")

    def step(rows):
        optimizer.zero_grad()
        model(torch.tensor(rows)).sum().backward()
        optimizer.step()

    step([0, 1])
    with pytest.warns(wd.WeightDecayWarning, match=r"rows of table.weight were read by other hands"):
        step([2, 3])
    step([0, 2])  # once


def test_a_rule_of_ones_own_may_have_a_partner():
    @dataclass(frozen=True)
    class Pair(wd.Rule):
        elementwise = False

        def partner_of(self, name):
            return {"a": "b", "b": "a"}[name]

        def decayed(self, w, step):
            return w - step.rate * step.partner

    try:
        a, b = nn.Parameter(torch.ones(2, 2)), nn.Parameter(2 * torch.ones(2, 2))
        optimizer = optim.SGD([("a", a), ("b", b)], lr=0.1)
        wd.attach(optimizer, Pair(1.0), on="all")
        a.grad, b.grad = torch.zeros_like(a), torch.zeros_like(b)
        optimizer.step()
        torch.testing.assert_close(a.detach(), torch.full((2, 2), 0.8))
        torch.testing.assert_close(b.detach(), torch.full((2, 2), 1.9))
    finally:
        wd.rules.RULES.pop("Pair")  # the registry is every test's


def test_a_state_of_another_shape_stays_whole_when_rows_catch_up():
    @dataclass(frozen=True)
    class Kept(wd.Rule):
        composes = True

        def start(self, w, name):
            return {"c": torch.tensor(2.0, dtype=w.dtype)}

        def decayed(self, w, step):
            return w - step.rate * (w - step.state["c"])

    try:
        table = nn.Embedding(10, 3, sparse=True, dtype=F64)
        before = table.weight.detach().clone()
        optimizer = optim.SGD(table.parameters(), lr=0.1)
        decay = wd.attach(optimizer, Kept(0.5), model=table, on="all")
        for _ in range(2):
            optimizer.zero_grad()
            (0 * table(torch.tensor([1, 2, 3]))).sum().backward()
            optimizer.step()
        decay.flush()
        torch.testing.assert_close(table.weight.detach(), 2 + (before - 2) * 0.95**2)
    finally:
        wd.rules.RULES.pop("Kept")


@pytest.mark.parametrize("failing", ["closure", "rule"])
def test_a_step_that_failed_keeps_nothing_alive_of_what_was_on_the_stack(failing):
    class Batch:
        pass

    w = nn.Parameter(random(3))
    optimizer = optim.SGD([("w", w)], lr=1.0)
    later = 0.1 if failing == "closure" else 2.0  # more than the whole weight
    wd.attach(optimizer, wd.Decoupled(lambda step: later if step else 0.1), on="all")

    def train(fail):
        batch = Batch()

        def closure():
            w.grad = random(3)
            if fail and failing == "closure":
                raise ZeroDivisionError
            return w.detach().sum()

        with suppress(ZeroDivisionError, wd.InputError):
            optimizer.step(closure)
        return weakref.ref(batch)

    train(False)
    lost = train(True)
    gc.collect()
    assert lost() is None


WRONG = """
import torch
import weightdecay as wd

model, setup = torch.nn.Linear(2, 1), wd.Setup(batch_size=1, lr=0.1, steps=10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for call in (
    lambda: wd.Toward(0.1, ema="x"),
    lambda: wd.Monitor(model, optimizer, parameters=3),
    lambda: wd.Monitor(model, optimizer, parameters=["weight", 3]),
    lambda: wd.transfer(0.1, setup, setup, width_rule=[1]),
):
    try:
        call()
    except wd.InputError as error:
        print(error)
"""


def test_arguments_of_another_type_are_refused_in_words():
    # In a process of its own, in which no type checker of the tests comes first.
    done = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, check=True)
    ema, number, numbers, rule = done.stdout.splitlines()
    assert "not a share of the old point" in ema
    assert "not names of parameters" in number
    assert "parameters = ['weight', 3]" in numbers
    assert "width_rule = [1]; use independent or sqrt" in rule
