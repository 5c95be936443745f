"""An audit changes nothing: every bit of model, optimizer, scheduler and random numbers."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn, optim

import weightdecay as wd
from weightdecay.auditing.run import audit

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


def bits(value):
    """A copy of everything that can be compared, tensors as bytes."""
    if isinstance(value, torch.Tensor):
        grad = None if value.grad is None else bits(value.grad)
        plain = value.detach().to_dense() if value.is_sparse else value.detach()
        content = plain.flatten().contiguous().view(torch.uint8).tolist()
        return ("tensor", id(value), value._version, value.requires_grad, content, grad)
    if isinstance(value, dict):
        return {
            key if not isinstance(key, torch.Tensor) else id(key): bits(one) for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [bits(one) for one in value]
    return copy.copy(value) if not callable(value) else id(value)


def state(model, optimizers, schedulers=()):
    modules = [
        (id(module), module.training, list(module._forward_hooks), list(module._forward_pre_hooks))
        for module in model.modules()
    ]
    held = [
        [
            bits(one.param_groups),
            bits(dict(one.state)),
            bits(one.defaults),
            list(one._optimizer_step_pre_hooks),
            list(one._optimizer_step_post_hooks),
            sorted(one.__dict__),
            one.__dict__.get("step"),
        ]
        for one in optimizers
    ]
    planned = [
        [
            {
                name: bits(value)
                for name, value in one.__dict__.items()
                if name not in ("optimizer", "lr_lambdas")
            }
        ]
        for one in schedulers
    ]
    random = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # noqa: NPY002
    names = [(name, bits(p)) for name, p in model.named_parameters(remove_duplicate=False)]
    return [names, bits(dict(model.named_buffers())), modules, held, planned, random]


class Unknown(optim.Adam):
    """A class that has to be probed."""


def trained(make):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(9, 8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)
    )
    optimizer = make(model)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randint(9, (16,))).square().sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    "make",
    [
        lambda model: optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3),
        lambda model: optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3),
        lambda model: Unknown(model.parameters(), lr=1e-3, weight_decay=0.1),
    ],
)
def test_nothing_changes(make):
    model, optimizer = trained(make)
    before = state(model, [optimizer])
    found = audit(model, optimizer, schedule="cosine", steps=1000, scaler=torch.amp.GradScaler("cpu"))
    str(found), found._repr_html_(), found.table()
    assert state(model, [optimizer]) == before


def test_nothing_changes_with_a_rule_attached_and_a_scheduler():
    model, optimizer = trained(lambda model: optim.Adam(model.named_parameters(), lr=1e-3))
    wd.attach(optimizer, wd.Cautious(0.1), model=model)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=500)
    before = state(model, [optimizer], [schedule])
    audit(model, optimizer, schedule=schedule, steps=500)
    assert state(model, [optimizer], [schedule]) == before


def test_nothing_changes_in_the_example_of_all_mistakes():
    from audit_me import build

    built = build()
    model, optimizers, schedule = built.pop("model"), built.pop("optimizers"), built["schedule"]
    before = state(model, optimizers, [schedule])
    audit(model, *optimizers, **built)
    assert state(model, optimizers, [schedule]) == before
