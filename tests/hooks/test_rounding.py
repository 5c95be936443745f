"""Decay of narrow weights: rounded at random it happens, on average exactly; to the nearest it does not."""

import copy
import io
import math

import pytest
import torch

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.hooks.rounding import Rounding


def trained(
    dtype,
    steps,
    lr=1e-3,
    strength=0.1,
    rounding="stochastic",
    seed=0,
    rule=wd.Decoupled,
    n=20_000,
    kind="SGD",
):
    """Weights of a layer after steps whose gradient is zero, beside what they were."""
    layer = torch.nn.Linear(n, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(1, n, generator=torch.Generator().manual_seed(1)))
    layer.to(dtype)
    start = layer.weight.detach().double().clone()
    optimizer = getattr(torch.optim, kind)(layer.parameters(), lr=lr)
    decay = wd.attach(optimizer, rule(strength), model=layer, rounding=rounding, seed=seed)
    for _ in range(steps):
        layer.weight.grad = torch.zeros_like(layer.weight)
        optimizer.step()
    return start, layer.weight.detach().double(), decay


BF, HALF = torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("dtype", "rule", "kind"),
    [
        *((dtype, wd.Decoupled, "SGD") for dtype in (BF, HALF)),  # before the step, without the update
        *((dtype, wd.Cautious, "SGD") for dtype in (BF, HALF)),  # with it
        (BF, wd.Cautious, "NAdam"),  # after the step; in float16 NAdam itself divides 0 by 0
    ],
)
def test_a_thousand_steps_decay_as_they_should(dtype, rule, kind):
    start, end, decay = trained(dtype, 1000, rule=rule, kind=kind)
    assert end.norm() / start.norm() == pytest.approx((1 - 1e-4) ** 1000, abs=0.005)  # .905, as asked for
    assert decay.happened().ratio == pytest.approx(1, abs=0.02)
    assert "of the decay happened" in repr(decay)
    with pytest.raises(InputError, match='rounding="stochastic"'):
        trained(dtype, 1, rounding="nearest", rule=rule)


def test_float32_under_a_tiny_rate():
    start, end, decay = trained(torch.float32, 2000, lr=1e-4, strength=1e-4)
    # each weight moves by whole spacings, so compare with the spread of the sum
    left = float((start * end).sum() / start.square().sum())
    spacing = 2.0**-23
    spread = math.sqrt(2000 * 1e-8 / spacing) * spacing / math.sqrt(start.numel())
    assert left == pytest.approx((1 - 1e-8) ** 2000, abs=5 * spread)
    assert left < 1 - 1e-5
    assert decay.happened().ratio == pytest.approx(1, abs=0.02)


def test_unbiased_over_seeds():
    ends = [trained(torch.bfloat16, 20, seed=seed, n=500) for seed in range(200)]
    start, kept = ends[0][0], torch.stack([end for _, end, _ in ends])
    wanted = start * (1 - 1e-4) ** 20
    # where rounding can move a weight, its mean over seeds is within 3 standard errors, 99.7 % of the time
    error = kept.std(0) / math.sqrt(len(ends))
    moved = error > 0
    z = ((kept.mean(0) - wanted) / error)[moved]
    assert moved.double().mean() > 0.3
    assert z.abs().mean() < 1.0  # .80 for a standard normal
    total = (kept * start).sum((1, 2)) / start.square().sum()
    off = total.mean() - (1 - 1e-4) ** 20
    assert abs(off) < 3 * total.std() / math.sqrt(len(ends))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounded_to_a_neighbour_with_the_right_probability(dtype):
    wide = torch.float64 if dtype == torch.float32 else torch.float32
    x = torch.tensor(
        [1.0, -1.0, 1.0 + 2**-26, 2 - 2**-25, -3.3, 0.1, 1e-7, -1e-7, 0.0, -0.0, math.inf, math.nan],
        dtype=wide,
    )
    rounding, drawn = Rounding(0), []
    for _ in range(4000):
        out = torch.empty(len(x), dtype=dtype)
        rounding.round_(x, out)
        drawn.append(out)
    drawn = torch.stack(drawn).double()
    for i, value in enumerate(x.double().tolist()):
        if math.isnan(value):
            assert drawn[:, i].isnan().all()
            continue
        seen = drawn[:, i].unique()
        assert len(seen) <= 2
        if len(seen) == 1:
            assert seen.item() == value or abs(value) < 1.1
        else:
            low, high = seen.tolist()
            assert low < value < high
            share = (drawn[:, i] == high).double().mean().item()
            right = (value - low) / (high - low)
            assert abs(share - right) < 4 * math.sqrt(right * (1 - right) / 4000)


def test_the_same_seed_gives_the_same_bits_and_torch_s_own_draws_are_left_alone():
    before = torch.get_rng_state()
    one, other, third = (trained(torch.bfloat16, 50, seed=seed)[1] for seed in (3, 3, 4))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    torch.set_rng_state(before)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.NAdam])
def test_resumed_bit_for_bit(kind):
    def make():
        torch.manual_seed(0)
        layer = torch.nn.Linear(8, 4).to(torch.bfloat16)
        options = {"weight_decay": 0.0} if kind is torch.optim.AdamW else {}
        optimizer = kind(layer.parameters(), lr=1e-2, **options)
        return layer, optimizer, wd.attach(optimizer, wd.Cautious(0.1), model=layer, rounding="stochastic")

    def step(layer, optimizer, seed):
        generator = torch.Generator().manual_seed(seed)
        for p in layer.parameters():
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        optimizer.step()

    layer, optimizer, decay = make()
    for i in range(6):
        if i == 3:
            file = io.BytesIO()
            torch.save((layer.state_dict(), optimizer.state_dict(), decay.state_dict()), file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        step(layer, optimizer, i)
    again, second, on = make()
    for one, state in zip((again, second, on), saved, strict=True):
        one.load_state_dict(state)
    for i in range(3, 6):
        step(again, second, i)
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), again.parameters(), strict=True))
    assert on.happened() == decay.happened()


def test_what_is_refused():
    layer = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for rule, options, said in (
        (wd.Decoupled(0.1), {"rounding": "up"}, "no such rounding"),
        (wd.L2(0.1), {"rounding": "stochastic"}, "the penalty is part of the gradient"),
        (wd.Decoupled(0.1), {"rounding": "stochastic", "compile": True}, "not compiled"),
        (wd.Decoupled(0.1), {"rounding": "stochastic", "seed": -1}, "seed"),
    ):
        with pytest.raises(InputError, match=said):
            wd.attach(optimizer, rule, model=layer, **options)
    plain = wd.attach(optimizer, wd.Cautious(0.1), model=layer)
    with pytest.raises(InputError, match="nothing is counted"):
        plain.happened()
    state = plain.state_dict()
    plain.detach()
    at_random = wd.attach(optimizer, wd.Toward(0.1), model=layer, rounding="stochastic")
    before = copy.deepcopy(at_random.state_dict())
    with pytest.raises(InputError, match="another rounding"):
        at_random.load_state_dict({**state, "rule": before["rule"]})
    moved = {"weight": [{"point": torch.zeros(1, 4)}]}
    with pytest.raises(InputError, match="not the state of a rounding"):
        at_random.load_state_dict({**before, "parameters": moved, "rounding": {"generators": {"cpu": 3}}})
    point = at_random.state_dict()["parameters"]["weight"][0]["point"]
    assert torch.equal(point, before["parameters"]["weight"][0]["point"])


def test_float64_and_no_lowering():
    start, end, _ = trained(torch.float64, 10)
    torch.testing.assert_close(end, start * (1 - 1e-4) ** 10, rtol=1e-12, atol=0)
    layer = torch.nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.0)
    decay = wd.attach(optimizer, wd.Decoupled(0.1), model=layer, rounding="stochastic")
    assert "hooks around step" in repr(decay)
    assert optimizer.param_groups[0]["weight_decay"] == 0


def test_a_monitor_sees_it_and_an_audit_knows():
    def run(watched):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.LayerNorm(32)).to(torch.bfloat16)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
        wd.attach(optimizer, wd.Decoupled(0.5), model=model, rounding="stochastic")
        monitor = wd.Monitor(model, optimizer, every=4) if watched else None
        for _ in range(60):
            x = torch.randn(16, 32).to(torch.bfloat16)
            optimizer.zero_grad()
            model(x).float().square().mean().backward()
            optimizer.step()
        return model, optimizer, monitor

    model, optimizer, _ = run(False)
    watched, _, monitor = run(True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), watched.parameters(), strict=True))
    ratio = monitor.result().summary().filter(parameter="0.weight")["ratio"].item()
    monitor.close()
    assert ratio == pytest.approx(1, abs=0.5)  # 1,024 weights, 8 looks: each is one throw
    assert not [one for one in wd.audit(model, optimizer).findings if one.code == "WD402"]
    lost = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.5)
    found = [one for one in wd.audit(model, lost).findings if one.code == "WD402"]
    assert 'rounding="stochastic"' in found[0].fix


def test_every_nan_stays_one():
    """Also one of all ones, as a GPU makes it: a carry would run over into the sign."""
    nan = torch.tensor([0x7FFFFFFF, -1, 0x7FC00000], dtype=torch.int32).view(torch.float32)
    rounding, out = Rounding(0), torch.empty(3, dtype=torch.bfloat16)
    for step in range(20):
        rounding.at(step)
        rounding.begin(out)
        rounding.round_(nan, out)
        assert out.isnan().all()
