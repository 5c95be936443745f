"""The further rules, each against an oracle of its own: a limit, an optimality condition, autograd."""

import math

import pytest
import torch
from tests import oracles
from torch import nn, optim

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.rules import Step

F64 = torch.float64


def descend(rule, gradient, start, steps, lr=0.1, kind=optim.SGD, **options):
    """Weights of one parameter after steps along `gradient(w)`, under a rule or none."""
    w = nn.Parameter(start.clone())
    optimizer = kind([("layer.weight", w)], lr=lr, **options)
    decay = None if rule is None else wd.attach(optimizer, rule, on="all")
    for _ in range(steps):
        w.grad = gradient(w.detach())
        optimizer.step()
    return w.detach(), decay


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_huber_without_a_limit_is_adamw_and_far_out_a_constant_pull():
    """1e-14: one product more or less in float64, 50 steps."""
    start, g = random(5, 4), random(5, 4, seed=1)
    adamw = {"kind": optim.AdamW, "lr": 0.01}
    ours, _ = descend(wd.Huber(0.5, delta=math.inf), lambda w: g * w, start, 50, weight_decay=0, **adamw)
    theirs, _ = descend(None, lambda w: g * w, start, 50, weight_decay=0.5, **adamw)
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)
    far, _ = descend(wd.Huber(0.5, delta=0.25), torch.zeros_like, torch.full((2, 2), 8.0, dtype=F64), 10)
    torch.testing.assert_close(far, torch.full((2, 2), 8 - 10 * 0.1 * 0.5 * 0.25, dtype=F64))


def test_p_norm_of_two_divides():
    start = random(3, 3)
    once, _ = descend(wd.PNorm(0.5, p=2), torch.zeros_like, start, 1)
    torch.testing.assert_close(once, start / 1.05, rtol=1e-15, atol=0)
    assert not torch.allclose(once, start * 0.95, rtol=1e-4)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_p_norm_rests_where_the_penalised_loss_is_level(p):
    """h (w - c) + wd |w|^(p-1) sign(w) = 0, in closed form by bisection; c is below wd for one weight."""
    h, c = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=F64), torch.tensor([2.0, -1.0, 3.0, 0.2], dtype=F64)
    ended, _ = descend(wd.PNorm(0.4, p=p), lambda w: h * (w - c), torch.ones(4, dtype=F64), 500, lr=0.2)
    low, high = torch.zeros(4, dtype=F64), c.abs()
    for _ in range(100):
        middle = (low + high) / 2
        above = h * (middle - c.abs()) + 0.4 * middle ** (p - 1) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    torch.testing.assert_close(ended, low * c.sign(), rtol=1e-8, atol=1e-8)
    assert (ended[3].abs() < 1e-8) == (p == 1)


def test_p_norm_keeps_zeros_and_without_strength_does_nothing():
    start = torch.tensor([[0.0, 1.0]], dtype=F64)
    for strength, expected in ((0.0, start + 0.1), (1.0, torch.tensor([[0.0, 1.0]], dtype=F64))):
        ended, _ = descend(wd.PNorm(strength), lambda w: -torch.ones_like(w), start, 1)
        torch.testing.assert_close(ended, expected)


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.NAdam])
@pytest.mark.parametrize("scale", [0.125, 64.0])
def test_stable_decays_by_the_size_of_all_gradients(kind, scale):
    """Gradients c times as large: decay 1/c as fast; 2e-3, as a weight that decayed less decays more."""

    def lost(scale):
        w, other = (nn.Parameter(random(3, 4, seed=seed)) for seed in (0, 1))
        start = w.detach().clone()
        options = {} if kind is not optim.AdamW else {"weight_decay": 0}
        optimizer = kind([("w", w), ("b", other)], lr=1e-3, eps=0, **options)
        wd.attach(optimizer, wd.Stable(0.1), on=[wd.Group(name="w"), wd.Group(name="*", scale=0)])
        plain = nn.Parameter(start.clone())
        rest = nn.Parameter(other.detach().clone())
        bare = kind([plain, rest], lr=1e-3, eps=0, **options)
        for t in range(5):
            for p, seed in ((w, 10), (plain, 10), (other, 20), (rest, 20)):
                p.grad = scale * (1 + t) * random(3, 4, seed=seed)
            optimizer.step()
            bare.step()
        assert torch.equal(other, rest)  # does not decay, and is part of the mean all the same
        return plain.detach() - w.detach()

    torch.testing.assert_close(lost(scale) * scale, lost(1.0), rtol=2e-3, atol=1e-9)


def test_stable_is_refused_where_there_is_no_size_or_the_rate_is_too_large():
    w = nn.Parameter(torch.ones(2, 2))
    for make, said in (
        (lambda: optim.SGD([w], lr=0.1), "keeps no average of squared gradients"),
        (lambda: optim.AdamW([w], weight_decay=0, amsgrad=True), "without amsgrad"),
    ):
        with pytest.raises(InputError, match=said):
            wd.attach(make(), wd.Stable(0.1))
    optimizer = optim.AdamW([w], weight_decay=0)
    with pytest.raises(InputError, match="no half-life"):
        wd.attach(optimizer, wd.Stable(wd.HalfLife(epochs=1)), steps_per_epoch=10)
    with pytest.raises(InputError, match="the size that the other rule compares with"):
        wd.attach(optimizer, wd.chain(wd.L2(0.1), wd.Stable(0.1)))
    wd.attach(optimizer, wd.Stable(0.1))
    for gradient, said in ((1e-5, "remove the whole weight"), (math.nan, "gradients are not finite")):
        w.grad = torch.full_like(w, gradient)
        before = w.detach().clone()
        with pytest.raises(InputError, match=said):
            optimizer.step()
        assert torch.equal(w, before)


@pytest.mark.parametrize("kind", [optim.SGD, optim.AdamW, optim.RMSprop])
def test_a_fixed_norm_stays_and_the_size_of_the_update_does_not_matter(kind):
    start, g = random(4, 6), random(4, 6, seed=1)
    options = {"weight_decay": 0} if kind is optim.AdamW else {}
    ends = []
    for scale in (1.0, 2.0**20):
        if kind is optim.SGD:
            ended, _ = descend(wd.FixedNorm(), lambda w, c=scale: c * (g - w), start, 30, lr=0.05)
        else:
            ended, _ = descend(wd.FixedNorm(), lambda w: g - w, start, 30, lr=0.05, kind=kind, **options)
        assert ended.norm().item() == pytest.approx(start.norm().item(), rel=1e-14)
        ends.append(ended)
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(ends[0], start, rtol=1e-2)


def test_the_angle_of_a_step_is_the_learning_rate():
    """At right angles to the update tan(angle) = lr, exactly."""
    start = torch.tensor([[3.0, 0.0]], dtype=F64)
    ended, _ = descend(wd.FixedNorm(), lambda w: torch.tensor([[0.0, 7.0]], dtype=F64), start, 1, lr=0.05)
    torch.testing.assert_close(ended[0, 1] / ended[0, 0], torch.tensor(-0.05, dtype=F64), rtol=1e-14, atol=0)
    with pytest.raises(InputError, match="a parameter that is zero has no norm to keep"):
        wd.attach(optim.SGD([nn.Parameter(torch.zeros(2, 2))], lr=0.1), wd.FixedNorm())


def test_the_multiplier_of_a_bound_is_the_ridge_strength_that_meets_it():
    """Against the normal equations: the ridge solution at λ = 2 l/lr has ||w||² = bound, and is w; 1e-6."""
    X, y, lr = random(30, 6), random(30, seed=1), 0.2
    free = torch.linalg.lstsq(X, y).solution
    bound = 0.25 * free.square().sum().item()
    rule = wd.Constrained(bound=bound, mu=0.01)
    w, decay = descend(rule, lambda w: X.T @ (X @ w - y) / 30, torch.zeros(6, dtype=F64), 3000, lr=lr)
    state = decay.state_dict()["parameters"]["layer.weight"][0]
    lam = 2 * state["multiplier"].item() / lr
    Z = X.numpy()
    ridge = oracles.np.linalg.solve(Z.T @ Z / 30 + lam * oracles.np.eye(6), Z.T @ y.numpy() / 30)
    assert lam > 0.05
    assert (ridge**2).sum() == pytest.approx(bound, rel=1e-6)
    torch.testing.assert_close(w, torch.from_numpy(ridge), rtol=1e-6, atol=1e-6)
    # and the λ that meets the bound, found by bisection, is that one
    low, high = 0.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        at = oracles.np.linalg.solve(Z.T @ Z / 30 + middle * oracles.np.eye(6), Z.T @ y.numpy() / 30)
        low, high = (middle, high) if (at**2).sum() > bound else (low, middle)
    assert lam == pytest.approx(low, rel=1e-6)


def test_within_its_bound_a_constrained_optimizer_is_the_optimizer():
    start, g = random(3, 3), random(3, 3, seed=1)
    ours, decay = descend(wd.Constrained(bound=1e6), lambda w: g * w, start, 20)
    theirs, _ = descend(None, lambda w: g * w, start, 20)
    assert torch.equal(ours, theirs)
    assert "bound=1000000.0" in repr(decay)
    far, _ = descend(wd.Constrained(bound=1e-9, mu=10.0), torch.zeros_like, start, 1)
    torch.testing.assert_close(far, start / 2)  # at most half of a weight in a step


@pytest.mark.parametrize("given", [None, {"up": "down"}])
def test_the_product_decays_by_the_gradient_of_its_norm(given):
    names = ("up", "down") if given else ("net.lora_B.default.weight", "net.lora_A.default.weight")
    B, A = nn.Parameter(random(5, 2)), nn.Parameter(random(2, 4, seed=1))
    before = [B.detach().clone().requires_grad_(), A.detach().clone().requires_grad_()]
    penalty = 0.3 / 2 * (before[0] @ before[1]).square().sum()
    gradients = torch.autograd.grad(penalty, before)
    rule = wd.LoRAProduct(0.3, pairs=given)
    told = Step(0.0, 0.3, partner=before[1], name=names[0])
    assert rule.penalty(before[0], told).item() == pytest.approx(penalty.item(), rel=1e-14)
    # in groups of their own, so that one has decayed before the other's turn
    optimizer = optim.SGD([{"params": [(names[0], B)]}, {"params": [(names[1], A)]}], lr=0.1)
    wd.attach(optimizer, rule, on="all")
    for w in (A, B):
        w.grad = torch.zeros_like(w)
    optimizer.step()
    for w, old, gradient in zip((B, A), before, gradients, strict=True):
        torch.testing.assert_close(w.detach(), (old - 0.1 * gradient).detach(), rtol=1e-14, atol=1e-15)


def test_the_product_is_never_formed():
    """It would take 160 GB."""
    B, A = nn.Parameter(torch.ones(200_000, 2)), nn.Parameter(torch.ones(2, 200_000))
    optimizer = optim.SGD([("a.lora_B.weight", B), ("a.lora_A.weight", A)], lr=1e-6)
    wd.attach(optimizer, wd.LoRAProduct(0.1), on="all")
    for w in (A, B):
        w.grad = torch.zeros_like(w)
    optimizer.step()
    expected = torch.full_like(B, 1 - 1e-6 * 0.1 * 2 * 200_000)
    torch.testing.assert_close(B.detach(), expected)


def test_what_is_no_product_is_refused():
    B, A = nn.Parameter(torch.ones(5, 2)), nn.Parameter(torch.ones(2, 4))
    for named, said in (
        ([("head.weight", B)], "not a factor of a product: LoRAProduct = head.weight; give pairs="),
        ([("a.lora_B.weight", B)], "a.lora_B.weight has no partner"),
        ([("a.lora_B.weight", B), ("a.lora_A.weight", nn.Parameter(torch.ones(3, 4)))], "do not fit"),
    ):
        optimizer = optim.SGD(named, lr=0.1)
        with pytest.raises(InputError, match=said):
            wd.attach(optimizer, wd.LoRAProduct(0.1), on="all")
        assert not optimizer._optimizer_step_pre_hooks

    class Adapter(nn.Module):  # A is frozen, and found in the model
        def __init__(self):
            super().__init__()
            self.lora_A, self.lora_B = nn.Linear(4, 2, bias=False), nn.Linear(2, 5, bias=False)
            self.lora_A.weight.requires_grad_(False)

    model = Adapter()
    optimizer = optim.SGD(model.lora_B.parameters(), lr=0.1)
    wd.attach(optimizer, wd.LoRAProduct(0.1), model=model)
    B, A = model.lora_B.weight, model.lora_A.weight.detach()
    expected = B.detach() - 0.01 * B.detach() @ A @ A.T
    B.grad = torch.zeros_like(B)
    optimizer.step()
    torch.testing.assert_close(B.detach(), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wd.Huber(0.1, delta=0.0), "delta = 0.0"),
        (lambda: wd.Huber(0.1, delta=math.nan), "delta = nan"),
        (lambda: wd.PNorm(0.1, p=0), "p = 0"),
        (lambda: wd.Constrained(bound=-1.0), "bound = -1.0"),
        (lambda: wd.Constrained(mu=0), "mu = 0"),
    ],
)
def test_bad_rules(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "rule",
    [
        wd.Huber(0.1),
        wd.PNorm(0.1, p=1.5),
        wd.Stable(0.1),
        wd.Constrained(bound=100.0, mu=1e-5),
    ],
)
def test_rounded_at_random_the_mean_is_what_float64_makes_of_it(rule):
    """One step of 4,000 equal rows of bfloat16: within 5 standard errors, and rows differ.

    The optimizer's own move is exact in bfloat16, an eighth or nothing.
    """
    row = torch.tensor([1.5, -0.75, 0.5])
    g = 1.0 if rule.after else 0.0
    w, other = nn.Parameter(row.repeat(4000, 1).bfloat16()), nn.Parameter(torch.ones(8, 8).bfloat16())
    adam = isinstance(rule, wd.Stable)
    options = {"weight_decay": 0, "lr": 0.125} if adam else {"lr": 0.125}
    optimizer = (optim.AdamW if adam else optim.SGD)([("w", w), ("other", other)], **options)
    decay = wd.attach(
        optimizer, rule, on=[wd.Group(name="w"), wd.Group(name="*", scale=0)], rounding="stochastic"
    )
    start = w.detach().double()
    w.grad, other.grad = torch.full_like(w, g), torch.full_like(other, 2.0)
    size = 4.0 * 64 / (64 + 12_000)  # the mean of v, the gradient's square so far
    state = {key: value.double() for key, value in rule.start(start, "w").items()}
    told = Step(0.0125, 0.1, state=state, lr=0.125, before=start, second_moment=size)
    exact = rule.decayed(start - 0.125 * g, told)[0]
    optimizer.step()
    rows = w.detach().double()
    assert rows.std(0).min() > 0
    off = (rows.mean(0) - exact).abs() / (rows.std(0) / 4000**0.5)
    assert off.max() < 5
    if not rule.after:
        assert decay.happened().ratio == pytest.approx(1, abs=0.05)
