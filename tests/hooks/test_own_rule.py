"""Slips in a rule of one's own, found when it is attached."""

from dataclasses import dataclass

import pytest
import torch
from tests.hooks.zoo import Model
from torch import optim

import weightdecay as wd
from weightdecay.rules import RULES


def methods(**given):
    """A rule with these methods or class variables, kept out of the contract table."""
    kind = dataclass(frozen=True)(type("Own", (wd.Rule,), given))
    del RULES["Own"]
    return kind(0.1)


def in_place(self, w, step):
    return w.mul_(1 - step.rate)


def broken(self, w, step):
    raise KeyError("no such table")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "overrides none of a rule's methods: rule = Own; write a method `decayed`"),
        ({"decay": lambda self, w, step: w / 2}, "overrides none"),
        (
            {"decayed": lambda self, w, step: w.sum()},
            r"tensor of the weight's shape: Own = \(\); \(2, 3\)",
        ),
        ({"decayed": lambda self, w, step: None}, "return a tensor of the weight's shape: Own = NoneType"),
        (
            {"decayed": lambda self, w, step: w * w.norm(dim=1, keepdim=True)},
            "weights come flat unless elementwise",
        ),
        ({"decayed": lambda self, w, step: w - w.mean(-1, keepdim=True)}, "depends on the weight's shape"),
        ({"decayed": lambda self, w, step: w - w.mean()}, "looks at more of the weight than one element"),
        ({"decayed": in_place}, "changes the weight it is given"),
        ({"decayed": broken}, r"failed on a trial \(KeyError: 'no such table'\): rule = Own"),
        ({"decayed": lambda self, w, step: step.update * w}, "set needs_update = True"),
        ({"coupled": True, "decayed": lambda self, w, step: w}, "a coupled rule needs a method `gradient`"),
        (
            {"decayed": lambda self, w, step: w / 2, "start": lambda self, w, name: w},
            "a dictionary of tensors",
        ),
    ],
)
def test_slips_are_named_and_nothing_changes(given, message):
    model = Model()
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    before = [w.detach().clone() for w in model.parameters()]
    with pytest.raises(wd.InputError, match=message):
        wd.attach(optimizer, methods(**given), model=model, on="all")
    assert all(torch.equal(w, b) for w, b in zip(model.parameters(), before, strict=True))
    assert not optimizer._optimizer_step_pre_hooks


def test_a_rule_that_acts_in_place_only():
    """Its `decay_` is called, by hooks, also in a subclass of a rule that optimizers bring along."""
    for kind, base in ((optim.SGD, wd.Rule), (optim.AdamW, wd.Decoupled)):
        erasing = dataclass(frozen=True)(type("Own", (base,), {"decay_": lambda self, w, step: w.zero_()}))
        del RULES["Own"]
        model = Model()
        optimizer = kind(model.named_parameters(), lr=0.1, weight_decay=0)
        wd.attach(optimizer, erasing(0.1), model=model, on="all")
        for w in model.parameters():
            w.grad = torch.zeros_like(w)
        optimizer.step()
        assert not any(w.any() for w in model.parameters())


def test_a_law_of_its_own_is_enough():
    model = Model()
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    wd.attach(optimizer, methods(law="constant"), model=model)
    before = model.first.weight.detach().clone()
    for w in model.parameters():
        w.grad = torch.zeros_like(w)
    optimizer.step()
    torch.testing.assert_close(model.first.weight.detach(), before * 0.9)
