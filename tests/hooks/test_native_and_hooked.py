"""One assignment has one outcome, whether the optimizer or a hook decays."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn, optim

import weightdecay as wd

# Lowered, and by hooks.
BOTH = pytest.mark.parametrize("kind", [optim.AdamW, optim.SGD], ids=["lowered", "hooked"])
RULE = wd.Decoupled(0.5)


def attached(kind, count=2):
    ws = [nn.Parameter(torch.full((3, 2), float(i + 1))) for i in range(count)]
    for w in ws:
        w.grad = torch.zeros_like(w)
    optimizer = kind([(f"w{i}", w) for i, w in enumerate(ws)], lr=0.1, weight_decay=0)
    decay = wd.attach(optimizer, RULE)
    assert bool(decay.plan.native) == (kind is optim.AdamW)
    return ws, optimizer, decay


@BOTH
@pytest.mark.parametrize("value", [0.3, 1.0, torch.tensor(0.2)], ids=str)
def test_a_strength_that_is_assigned_is_refused(kind, value):
    ws, optimizer, _ = attached(kind)
    optimizer.step()
    before = ws[0].detach().clone()
    optimizer.param_groups[0]["weight_decay"] = value
    with pytest.raises(wd.InputError, match=r"weight_decay of parameter group 0"):
        optimizer.step()
    assert torch.equal(ws[0], before)


def test_a_strength_of_zero_is_an_assignment_where_it_is_not_zero():
    _, optimizer, _ = attached(optim.AdamW)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    with pytest.raises(wd.InputError, match="another value was assigned"):
        optimizer.step()


def test_the_factor_and_lr_are_followed_where_lowered():
    ws, optimizer, decay = attached(optim.AdamW)
    optimizer.step()
    decay.factor = 0.5
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.2
    optimizer.step()
    torch.testing.assert_close(ws[0].detach(), torch.full((3, 2), 0.95 * 0.975 * 0.95))


@BOTH
def test_frozen_with_a_gradient_left_does_not_decay(kind):
    """And the others go on; once the gradient is gone, as before."""
    ws, optimizer, decay = attached(kind)
    optimizer.step()
    ws[0].requires_grad_(False)
    for _ in range(3):
        optimizer.step()
    torch.testing.assert_close(ws[0].detach(), torch.full((3, 2), 0.95))
    torch.testing.assert_close(ws[1].detach(), torch.full((3, 2), 2 * 0.95**4))
    ws[0].grad = None
    optimizer.step()
    torch.testing.assert_close(ws[0].detach(), torch.full((3, 2), 0.95))
    assert bool(decay.plan.native) == (kind is optim.AdamW)
    ws[0].requires_grad_(True)
    ws[0].grad = torch.zeros_like(ws[0])
    optimizer.step()
    torch.testing.assert_close(ws[0].detach(), torch.full((3, 2), 0.95**2))


def test_frozen_from_the_start_with_a_gradient():
    w, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2), requires_grad=False)
    w.grad, other.grad = torch.zeros(2, 2), torch.zeros(2, 2)
    optimizer = optim.AdamW([w, other], lr=0.1, weight_decay=0)
    wd.attach(optimizer, RULE)
    optimizer.step()
    assert torch.equal(other, torch.ones(2, 2))
    torch.testing.assert_close(w.detach(), torch.full((2, 2), 0.95))


def through_a_file(optimizer):
    file = io.BytesIO()
    torch.save(optimizer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@BOTH
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, copy.copy, lambda o: pickle.loads(pickle.dumps(o)), through_a_file]
)
def test_a_copy_does_not_decay_and_says_so(kind, copied):
    ws, optimizer, _ = attached(kind)
    with pytest.warns(
        wd.WeightDecayWarning, match=r"does not decay by Decoupled.*attach the rule to the copy"
    ):
        twin = copied(optimizer)
    p = twin.param_groups[0]["params"][0]
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    twin.step()
    assert torch.equal(p, before)
    assert twin.param_groups[0]["weight_decay"] == 0
    wd.attach(optim.SGD([nn.Parameter(torch.ones(2, 2))], lr=0.1), RULE)  # others are not concerned
    optimizer.step()
    if p is not ws[0]:
        torch.testing.assert_close(ws[0].detach(), torch.full((3, 2), 0.95))


@BOTH
def test_after_detach_copies_are_silent(kind):
    _, optimizer, decay = attached(kind)
    decay.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy.deepcopy(optimizer)


def test_a_copy_with_the_model_in_one_go():
    """As a deep copy of a trainer does."""
    _, optimizer, _ = attached(optim.AdamW)
    with pytest.warns(wd.WeightDecayWarning, match="copied or pickled AdamW"):
        twin = copy.deepcopy({"optimizer": optimizer, "list": [1]})
    wd.attach(twin["optimizer"], RULE)


@BOTH
def test_two_optimizers_that_decay_one_parameter_are_told(kind):
    """In the step in which both are at work, once."""
    w = nn.Parameter(torch.ones(2, 2))
    w.grad = torch.zeros_like(w)
    first, second = optim.SGD([("w", w)], lr=0.1), kind([("w", w)], lr=0.1, weight_decay=0)
    decay = wd.attach(first, RULE)
    first.step()
    wd.attach(second, RULE)
    second.step()
    first.step()
    with pytest.warns(wd.WeightDecayWarning, match=r"w decays twice: Decoupled\(weight_decay=0.5\) on SGD"):
        second.step()
    second.step()
    torch.testing.assert_close(w.detach(), torch.full((2, 2), 0.95**5))
    assert decay.steps == 2


def test_an_optimizer_that_is_no_longer_stepped_is_not_told_of():
    """As where a notebook's cell runs again."""
    w = nn.Parameter(torch.ones(2, 2))
    w.grad = torch.zeros_like(w)
    kept = []
    for _ in range(3):
        optimizer = optim.SGD([("w", w)], lr=0.1)
        kept.append(wd.attach(optimizer, RULE))
        optimizer.step()
        optimizer.step()


def test_parameters_that_the_optimizer_does_not_hold_are_shown():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = optim.SGD(model[0].parameters(), lr=0.1)
    shown = str(wd.attach(optimizer, RULE, model=model))
    assert "not in this optimizer: 2 parameters of the model (1.weight, 1.bias)" in shown


def test_a_patched_step_is_not_lowered():
    """What was put in the place of `step` need not know the option."""
    w = nn.Parameter(torch.ones(2, 2))
    w.grad = torch.zeros_like(w)
    optimizer = optim.AdamW([("w", w)], lr=0.1, weight_decay=0)
    optimizer.step = lambda closure=None: None
    with pytest.raises(wd.InputError, match="does not survive the step"):
        wd.attach(optimizer, RULE)
