"""Norms and angles against the closed forms, on random walks and on a network in a noisy stream."""

import math

import pytest
import torch
from torch import nn, optim
from walks import Lion, Signs, walk

from weightdecay.monitor.expected import equilibrium_norm, kappa_of
from weightdecay.monitor.run import Monitor

ELEMENTS = 2000
SGD_NORM = (0.01 * ELEMENTS / (2 * 0.1)) ** 0.25  # ||w||⁴ = lr G²/(2 wd), G² the elements of the noise
# make, size of first weights, scale-invariant, norm, angle of a step; Lion's and Muon's from the law alone
CASES = {
    "AdamW": (
        *(lambda p: optim.AdamW(p, lr=1e-3, weight_decay=1.0), 0.02, False),
        *(math.sqrt(ELEMENTS * 1e-3 / 2), math.sqrt(2e-3 * 0.1 / 1.9)),
    ),
    "signs": (
        *(lambda p: Signs(p, lr=1e-3, weight_decay=1.0), 0.02, False),
        *(math.sqrt(ELEMENTS * 1e-3 / 2), math.sqrt(2e-3)),
    ),
    "SGD": (
        *(lambda p: optim.SGD(p, lr=0.01, weight_decay=0.1), 0.07, True),
        *(SGD_NORM, math.sqrt(2 * 0.01 * 0.1)),
    ),
    "SGD with momentum": (
        *(lambda p: optim.SGD(p, lr=0.01, weight_decay=0.01, momentum=0.9), 0.2, True),
        *((0.01 * ELEMENTS / (2 * 0.01 * 0.1)) ** 0.25, math.sqrt(2 * 0.01 * 0.01 / 1.9)),
    ),
    "Lion": (lambda p: Lion(p, lr=1e-3, weight_decay=1.0), 0.15, False, None, None),
    "Muon": (lambda p: optim.Muon(p, lr=1e-2, weight_decay=0.1), 0.13, False, None, None),
}


@pytest.mark.parametrize("name", CASES)
def test_random_walks_come_to_the_norm_of_the_law(name):
    make, start, invariant, norm, angle = CASES[name]
    # Lion's second average remembers a hundred steps: a look has to be as long.
    looks = {"every": 250, "burst": 250} if name == "Lion" else {}
    seen = walk(make, start, invariant, **looks).summary().row(0, named=True)
    assert seen["residual"] == pytest.approx(0, abs=0.03)
    assert seen["ratio"] == pytest.approx(1, abs=1e-3)
    if norm is not None:
        assert seen["norm"] == pytest.approx(norm, rel=0.03)
        assert seen["equilibrium_norm"] == pytest.approx(norm, rel=0.03)
        assert seen["angle"] == pytest.approx(angle, rel=0.03)


def network(scale, steps):
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(20, 64, bias=False), nn.LayerNorm(64), nn.Tanh()),
        *(nn.Linear(64, 64, bias=False), nn.LayerNorm(64), nn.Tanh(), nn.Linear(64, 1)),
    )
    normed = [model[0].weight, model[3].weight]
    with torch.no_grad():
        for w in normed:
            w.mul_(scale)
    rest = [p for p in model.parameters() if all(p is not w for w in normed)]
    groups = [{"params": normed, "weight_decay": 1.0}, {"params": rest, "weight_decay": 0.0}]
    optimizer = optim.AdamW(groups, lr=1e-3)
    drawn = torch.Generator().manual_seed(1)
    teacher = torch.randn(20, 1, generator=drawn)
    with Monitor(model, optimizer) as monitor:
        for _ in range(steps):
            x = torch.randn(16, 20, generator=drawn)
            y = torch.tanh(x @ teacher / 4) + torch.randn(16, 1, generator=drawn)
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
    return monitor.result()


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_a_network_in_a_noisy_stream_comes_to_it_from_both_sides(scale):
    seen = network(scale, 6000)
    first = seen.rows.filter(step=0)
    assert (first["norm"] > first["equilibrium_norm"]).to_list() == [scale > 1, scale > 1]
    assert seen.summary(0.4)["residual"].abs().max() < 0.15


def test_where_the_law_fails_the_residual_is_shown():
    # Updates that always point the same way do not forget: the law's stationary noise is not there.
    model = nn.Linear(30, 30, bias=False)
    optimizer = optim.SGD(model.parameters(), lr=0.01, weight_decay=0.1)
    direction = torch.randn(30, 30, generator=torch.Generator().manual_seed(0))
    with Monitor(model, optimizer, every=20, burst=4) as monitor:
        for _ in range(400):
            model.weight.grad = direction.clone()
            optimizer.step()
    seen = monitor.result()
    assert abs(seen.summary()["residual"][0]) > 0.5
    assert any("equilibrium" in doubt for doubt in seen.doubts)


def test_the_law_by_hand():
    assert equilibrium_norm(2.0, 1.0, 1.0) == 2.0  # all is removed in each step: the last update is left
    assert equilibrium_norm(1.0, 4.0, 0.0) == math.inf
    assert math.isnan(equilibrium_norm(1.0, 1.0, math.nan))
    assert kappa_of([2.0, 1.0, 0.5], 0.5) == 1 + 2 * (0.5 * 0.5 + 0.25 * 0.25)
    assert math.isnan(kappa_of([], 0.1))
    assert math.isnan(kappa_of([0.0, 0.0], 0.1))
