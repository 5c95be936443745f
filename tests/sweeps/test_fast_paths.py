"""Fast paths against plain loops, on tasks that break what a fast path assumes."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from tests.sweeps import plain
from torch import nn, optim
from torch.nn.utils import parametrize

import weightdecay as wd
from weightdecay.sweeps import linear, method, run

DOUBLE = torch.float64
DRAWN = torch.Generator().manual_seed(3)
X = torch.randn(43, 5, generator=DRAWN, dtype=DOUBLE)
Y = X @ torch.linspace(-1, 2, 5, dtype=DOUBLE)[:, None] + 0.3
TRAIN, TEST = (X[:23], Y[:23]), (X[23:], Y[23:])
SGD = partial(optim.SGD, lr=0.05)


class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(5, 1)

    def forward(self, x):
        return self.out(x).squeeze(-1)


class Rectified(nn.Linear):
    """Xw + b, but for outputs far from those of random numbers."""

    def forward(self, x):
        return F.relu(super().forward(x) + 3) - 3


class Halved(torch.autograd.Function):
    """The identity forwards, a half backwards."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


class Custom(nn.Linear):
    def forward(self, x):
        return Halved.apply(super().forward(x))


class Dropped(nn.Module):
    """Linear in evaluation alone."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(5, 1)

    def forward(self, x):
        return self.out(F.dropout(x, 0.3, self.training))


class Later(nn.Linear):
    """Linear for the first 12 calls."""

    calls = 0

    def __init__(self):
        super().__init__(5, 1)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (2 if self.calls > 12 else 1)


class Listed(nn.Module):
    """Reaches its weights by a list of its own."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(5, 1)
        self.kept = [self.out.weight, self.out.bias]

    def forward(self, x):
        return F.linear(x, *self.kept)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 5)
        self.two.weight, self.out = self.one.weight, nn.Linear(5, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Masked(nn.Linear):
    """Draws a plain tensor at its initialisation."""

    def __init__(self):
        super().__init__(5, 1)
        self.mask = torch.rand(5) > 0.4

    def forward(self, x):
        return super().forward(x * self.mask)


def hooked_parameter():
    model = nn.Linear(5, 1)
    model.weight.register_hook(lambda gradient: gradient.clamp(-2, 2))
    return model


def hooked_module():
    model = nn.Linear(5, 1)
    model.register_forward_hook(lambda module, given, output: output.clamp(-4, 4))
    return model


def halve(p):
    p.grad.mul_(0.5)


def hooked_backwards():
    model = nn.Linear(5, 1)
    model.weight.register_post_accumulate_grad_hook(halve)
    return model


class Clamp(nn.Module):
    def forward(self, weight):
        return weight.clamp(-1, 1)


def clamped_weight():
    model = nn.Linear(5, 1)
    parametrize.register_parametrization(model, "weight", Clamp())
    return model


def frozen_bias():
    model = nn.Linear(5, 1)
    model.bias.requires_grad_(False)
    return model


def buffered():
    return nn.Sequential(nn.BatchNorm1d(5, affine=False), nn.Linear(5, 1))


@pytest.mark.parametrize(
    "make_model",
    [
        *(Squeezed, lambda: Rectified(5, 1), lambda: Custom(5, 1), Dropped, Later, Listed, Tied, Masked),
        *(hooked_parameter, hooked_module, hooked_backwards, frozen_bias, buffered),
        lambda: nn.Linear(5, 1, bias=False),
        lambda: nn.Sequential(nn.Linear(5, 1), nn.Hardtanh(-50, 50)),
        clamped_weight,
    ],
)
def test_models(make_model):
    train, test = (TRAIN, TEST)
    if make_model is Squeezed:
        train, test = ((x, y[:, 0]) for x, y in (TRAIN, TEST))
    agrees(lambda: make_model().to(DOUBLE), train, test)


def penalised():
    """A loss that looks at the parameters of the model that was made last, and what makes models."""
    models = []

    def make_model():
        models.append(nn.Linear(5, 1).to(DOUBLE))
        return models[-1]

    return make_model, lambda o, t: F.mse_loss(o, t) + 0.1 * models[-1].weight.square().sum()


def weighted(o, t):
    return (torch.linspace(0.5, 2, 43, dtype=DOUBLE)[: len(o), None] * (o - t) ** 2).mean()


def noisy(o, t):
    return F.mse_loss(o, t + 0.1 * torch.randn_like(t))


@pytest.mark.parametrize(
    "loss",
    [
        *(nn.MSELoss(reduction="sum"), weighted, noisy, F.l1_loss, partial(F.huber_loss, delta=40.0)),
        lambda o, t: ((1 + (t > 5)) * (o - t) ** 2).mean(),
        lambda o, t: (o.clamp(-8, 8) - t).square().mean(),
        lambda o, t: (o - t.clamp(max=2)).square().mean(),
        lambda o, t: (o - t).square().sum() / 8,
        lambda o, t: (o - t).square().mean() * (2 if len(o) < 8 else 1),
        lambda o, t: (o - t).square().mean() + 0.1 * o.square().mean(),
        lambda o, t: (o - t).square().mean().sqrt(),
        lambda o, t: (o - t).square().mean().clamp(max=3),
        lambda o, t: (o - t.round()).square().mean(),
        lambda o, t: F.mse_loss(o.float(), t.float()),
    ],
)
@pytest.mark.parametrize("batch", [8, 23])
def test_losses(loss, batch):
    if batch == 23 and loss is weighted:
        pytest.skip("one more of the same")
    agrees(lambda: nn.Linear(5, 1).to(DOUBLE), TRAIN, TEST, loss=loss, batch_size=batch)


def test_a_loss_that_looks_at_the_parameters():
    make_model, loss = penalised()
    for optimizer in (SGD, partial(optim.Adam, lr=0.02)):
        found = agrees(make_model, TRAIN, TEST, loss=loss, optimizer=optimizer)
        assert "reach the weights otherwise" in found.method


def test_targets_of_another_shape_or_type():
    pairs = lambda o, t: ((o - t) ** 2).mean()  # noqa: E731  of all pairs, where (n, 1) meets (n,)
    flat = [(x, y[:, 0]) for x, y in (TRAIN, TEST)]
    agrees(lambda: nn.Linear(5, 1).to(DOUBLE), *flat, loss=pairs)
    whole = [(x, y.round().long()) for x, y in (TRAIN, TEST)]
    agrees(lambda: nn.Linear(5, 1).to(DOUBLE), *whole, loss=lambda o, t: F.mse_loss(o, t.to(o.dtype)))
    single = [(x.float(), y) for x, y in (TRAIN, TEST)]
    agrees(lambda: nn.Linear(5, 1), *single, near=1e-5)
    # The test data's own shape is the loss's business.
    agrees(lambda: nn.Linear(5, 1).to(DOUBLE), TRAIN, flat[1], loss=pairs)


def by_axes(parameters):
    groups = [[p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]]
    return optim.SGD([{"params": group, "lr": lr} for group, lr in zip(groups, (0.05, 0.01), strict=True)])


def hooked_step(parameters, most=0.5):
    made = optim.SGD(parameters, lr=0.05)
    made.register_step_pre_hook(lambda *_: [p.grad.clamp_(-most, most) for p in parameters] and None)
    return made


def changed_step(parameters):
    made = optim.SGD(parameters, lr=0.05)
    own = made.step

    def step(closure=None):
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        return own(closure)

    made.step = step
    return made


class Clipped(optim.SGD):
    """Clips by the norm of all gradients, far from what a trial of random numbers may show."""

    def step(self, closure=None):
        torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 40.0)
        return super().step(closure)


@pytest.mark.parametrize(
    "optimizer",
    [
        *(by_axes, hooked_step, changed_step, partial(Clipped, lr=0.05)),
        lambda ps: optim.SGD(ps[:1], lr=0.05),
        lambda ps: optim.SGD([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.3}], lr=0.05),
        lambda ps: optim.SGD([{"params": ps[:1]}, {"params": ps[1:], "momentum": 0.9}], lr=0.05),
        partial(optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
        partial(optim.SGD, lr=0.05, momentum=0.9, dampening=0.5),
        partial(optim.SGD, lr=0.05, dampening=0.5),
        partial(optim.SGD, lr=1e-4, maximize=True),
        partial(optim.SGD, lr=0.05, foreach=True),
        partial(optim.SGD, lr=torch.tensor(0.05, dtype=DOUBLE)),
    ],
)
@pytest.mark.parametrize("rule", ["Decoupled", "L2"])
def test_optimizers(optimizer, rule):
    clips = getattr(optimizer, "func", optimizer) in (hooked_step, changed_step, Clipped)
    if rule == "L2" and clips:
        pytest.skip("whether a penalty is clipped, too, is the optimizer's affair")
    far = (TRAIN[0], 30 * TRAIN[1]) if clips else TRAIN
    agrees(lambda: nn.Linear(5, 1).to(DOUBLE), far, TEST, optimizer=optimizer, rule=rule)


def test_schedules():
    steps = 4 * 3
    rates = [0.05 * (1 - k / 20) for k in range(steps)]
    agrees(lambda: nn.Linear(5, 1).to(DOUBLE), TRAIN, TEST, rates=rates)
    falling = lambda o: optim.lr_scheduler.StepLR(o, 3, 0.5)  # noqa: E731  stepped after every step
    rates = [0.05 * 0.5 ** (k // 3) for k in range(steps)]
    agrees(lambda: nn.Linear(5, 1).to(DOUBLE), TRAIN, TEST, rates=rates, schedule=falling)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, t: ((o - t) ** 2).mean() / 2,
        lambda o, t: 0.3 * (t - o).square().sum() / len(o),
        lambda o, t: torch.mean((o - t) * (o - t)),
        lambda o, t: (o - t).pow(2).flatten().mean(),
        nn.MSELoss(),
    ],
)
def test_what_is_linear_regression_still_is(loss):
    """The fast path is not given up for what it is made for."""
    flat = [(x, y[:, 0]) for x, y in (TRAIN, TEST)]
    found = agrees(lambda: Squeezed().to(DOUBLE), *flat, loss=loss)
    assert found.method.startswith("linear")


def test_sizes_at_which_the_linear_route_changes(monkeypatch):
    """Blocks of strengths, chunks, more inputs than examples, and inputs too many for copies of them."""
    wide = torch.randn(12, 40, generator=DRAWN, dtype=DOUBLE)
    data = [(wide[:8], wide[:8, :1] + 0.1), (wide[8:], wide[8:, :1])]
    for bytes_, chunk, most in [
        (2**25, None, 2**24),
        (8 * 8 * 2, None, 2**24),
        (2**25, 3, 2**24),
        (64, 5, 20),
    ]:
        monkeypatch.setattr(linear, "_BLOCK_BYTES", bytes_)
        monkeypatch.setattr(linear, "_MOST", most)
        for train, test, p in [(*data, 40), (TRAIN, TEST, 5)]:
            more = {"chunk": chunk, "strengths": [0.01, 0.1, 0.3, 1.0]}
            found = agrees(lambda p=p: nn.Linear(p, 1).to(DOUBLE), train, test, **more)
            assert found.method.startswith("linear" if most > 20 else "vectorised")


def normed():
    return nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1)).to(DOUBLE)


@pytest.mark.parametrize(
    ("chunk", "memory", "count"),
    [(None, None, 1), (1, None, 8), (3, None, 4), (None, 1, 8), (None, 60_000, 2)],
)
def test_sizes_at_which_chunks_change(monkeypatch, chunk, memory, count):
    """Chunks as the user says, and as memory allows, give the same numbers."""
    if memory is not None:
        monkeypatch.setattr(method, "available", lambda device: memory)
    chunks = []
    monkeypatch.setattr(run, "results", noting(run.results, chunks))
    agrees(normed, TRAIN, TEST, strengths=[0.01, 0.1, 1.0], chunk=chunk, batch_size=4)
    assert len(chunks) == count


def noting(results, chunks):
    def noted(job, several, *more):
        chunks.extend(several)
        return results(job, several, *more)

    return noted


def agrees(
    make_model, train, test, near=1e-8, rates=None, schedule=None, strengths=(0.1,), chunk=None, **given
):
    """Every training of a sweep is what a plain loop gives; the sweep."""
    made = {"loss": F.mse_loss, "optimizer": SGD, "epochs": 4, "batch_size": 8, "rule": "Decoupled", **given}
    rule = getattr(wd, made.pop("rule"))
    axes = {"strengths": list(strengths), "seeds": 2, "widen": 0, "chunk": chunk, "rule": rule}
    found = wd.sweep(make_model, train, test, **made, **axes, schedule=schedule or rates)
    for one in found.trained:
        key = {"lam": one.copy.strength, "seed": one.copy.seed, "rule": rule.__name__, "rates": rates}
        right = plain.train(make_model, train, test, **made, **key)
        got = torch.tensor([[look.train_loss, look.test_loss] for look in one.looks], dtype=DOUBLE)
        wanted = torch.tensor([right.train, right.test], dtype=DOUBLE).T
        torch.testing.assert_close(got, wanted, rtol=near, atol=near, msg=lambda m: f"{m} {found.method}")
        if one.copy.strength == found.best:
            place = found.seeds.index(one.copy.seed)
            for name, weights in right.weights.items():
                torch.testing.assert_close(found.weights[name][place], weights, rtol=near, atol=near)
    return found


def test_what_no_trial_can_show_is_found_by_reading():
    """A hook that no gradient of a trial reaches."""
    clamped = lambda ps: hooked_step(ps, 1e6)  # noqa: E731
    found = agrees(lambda: nn.Linear(5, 1).to(DOUBLE), TRAIN, TEST, optimizer=clamped)
    assert not found.method.startswith("linear")
