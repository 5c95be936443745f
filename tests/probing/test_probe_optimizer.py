"""The probe of a live optimizer: the group's options count, and nothing in it changes."""

import copy

import pytest
import torch
from tests.probing.probe_optimizers import Form
from torch import nn, optim

from weightdecay.errors import InputError
from weightdecay.probing.run import probe, probe_optimizer


def trained(kind, **options):
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 2))
    optimizer = kind(model.parameters(), **options)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 5)).square().mean().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (optim.AdamW, {"weight_decay": 0.1}),
        (optim.Adam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
        (optim.SGD, {"weight_decay": 1e-3, "momentum": 0.9, "nesterov": True}),
        (optim.NAdam, {"weight_decay": 0.1}),
        (optim.ASGD, {"weight_decay": 0.1}),
        (Form, {"weight_decay": 0.1, "form": "independent"}),
        (optim.AdamW, {"weight_decay": 0.1, "fused": True}),
        (optim.AdamW, {"weight_decay": 0.1, "lr": torch.tensor(1e-3)}),
    ],
)
def test_live_as_the_class(kind, options):
    _, optimizer = trained(kind, **{"lr": 1e-3, **options})
    found = probe_optimizer(optimizer)
    given = {"lr": 1e-3, **{key: value for key, value in options.items() if key not in ("fused", "lr")}}
    expected = probe(kind, **given)
    assert (found.form, found.why) == (expected.form, expected.why)
    assert found.rate == pytest.approx(expected.rate, rel=1e-6)


def test_an_option_changed_after_construction_counts():
    _, optimizer = trained(optim.Adam, weight_decay=0.1)
    assert probe_optimizer(optimizer).form == "sign-normalised"
    optimizer.param_groups[0]["decoupled_weight_decay"] = True  # what loading AdamW's state does
    assert probe_optimizer(optimizer).form == "decoupled"


def test_each_group_by_itself():
    w, b = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3))
    optimizer = optim.AdamW([{"params": [w], "weight_decay": 0.2}, {"params": [b], "weight_decay": 0.0}])
    first, second = probe_optimizer(optimizer, 0), probe_optimizer(optimizer, 1)
    assert first.rate == pytest.approx(2e-4)
    assert (second.form, second.rate, second.findings) == ("decoupled", 0.0, ())


def test_a_subclass_that_drops_the_decay_is_found():
    class Dropped(optim.AdamW):
        def step(self, closure=None):
            kept = [group["weight_decay"] for group in self.param_groups]
            for group in self.param_groups:
                group["weight_decay"] = 0.0
            super().step(closure)
            for group, own in zip(self.param_groups, kept, strict=True):
                group["weight_decay"] = own

    _, optimizer = trained(Dropped, weight_decay=0.1)
    assert [finding.code for finding in probe_optimizer(optimizer).findings] == ["WD304"]


def bits(model, optimizer):
    return (
        [p.detach().clone() for p in model.parameters()],
        [p.grad.clone() for p in model.parameters()],
        copy.deepcopy(optimizer.state_dict()),
        [dict(group) for group in optimizer.param_groups],
        sorted(vars(optimizer)),
        list(optimizer._optimizer_step_pre_hooks),
        list(optimizer._optimizer_step_post_hooks),
        torch.get_rng_state(),
        model.training,
    )


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


@pytest.mark.parametrize("kind", [optim.AdamW, optim.Adam, optim.SGD, optim.RMSprop, optim.Adagrad])
def test_nothing_changes(kind):
    model, optimizer = trained(kind, weight_decay=0.1, lr=0.0123)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 2)  # puts a step of its own on the instance
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    state, before = dict(optimizer.state), bits(model, optimizer)
    probe_optimizer(optimizer)
    assert same(before, bits(model, optimizer))
    assert all(optimizer.state[p] is value for p, value in state.items())
    assert calls == []
    assert scheduler.last_epoch == 0


def test_what_is_not_copied_is_unknown():
    model, optimizer = trained(optim.AdamW, weight_decay=0.1)
    optimizer.model = model
    found = probe_optimizer(optimizer)
    assert found.form == "unknown"
    assert "model is a Sequential" in found.why


def test_bad_input():
    with pytest.raises(InputError, match="optimizer"):
        probe_optimizer(optim.SGD)
    with pytest.raises(InputError, match="group = 1"):
        probe_optimizer(optim.SGD([torch.zeros(1)]), 1)
