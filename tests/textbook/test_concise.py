"""With torch.nn and torch.optim, against the plain equations."""

import pytest
import torch
from tests import oracles
from tests.helpers import drawn, relative, small

from weightdecay.textbook import concise
from weightdecay.textbook.versions import VERSIONS, train_plain


def nothing(*look):
    pass


def test_the_layer_starts_exactly_where_it_is_told():
    one = drawn(small())
    model = concise.linear_model(one.w, one.b)
    assert torch.equal(model.weight.detach().squeeze(0), one.w)
    assert torch.equal(model.bias.detach().squeeze(0), one.b)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("penalize_bias", [False, True])
def test_as_printed_it_minimises_the_whole_mean_squared_error(penalize_bias):
    settings = small(penalize_bias=penalize_bias)
    one = drawn(settings)
    w, b = train_plain(VERSIONS["concise"], one, settings, 3.0, nothing)
    options = {"lam": 3.0, "lr": 0.01, "batch_size": 5, "loss_scale": 2, "penalize_bias": penalize_bias}
    *_, (v, c) = oracles.minibatch_descent(
        one.X.numpy(), one.y.numpy(), one.w.numpy(), one.b, one.order(6), **options
    )
    assert relative(w, v) < 1e-12
    assert abs(b - c) < 1e-12


@pytest.mark.parametrize("penalize_bias", [False, True])
def test_matched_it_is_the_program_from_scratch(penalize_bias):
    settings = small(penalize_bias=penalize_bias)
    one = drawn(settings)
    w, b = train_plain(VERSIONS["concise-matched"], one, settings, 3.0, nothing)
    v, c = train_plain(VERSIONS["scratch"], one, settings, 3.0, nothing)
    assert relative(w, v) < 1e-12
    assert abs(b - c) < 1e-12


@pytest.mark.parametrize("penalize_bias", [False, True])
def test_two_optimizers_step_their_own_parameters(penalize_bias):
    """Stepped in parallel with SGD's and Adam's equations, written out."""
    settings = small(penalize_bias=penalize_bias)
    one = drawn(settings)
    w, b = train_plain(VERSIONS["two-optimizers"], one, settings, 3.0, nothing)
    v, c = one.w.clone(), float(one.b)
    mean = square = 0.0
    batches = (batch for epoch in one.order(6) for batch in epoch.split(5))
    for step, rows in enumerate(batches, start=1):
        error = one.X[rows] @ v + c - one.y[rows]
        gradient = 2 * float(error.mean()) + (3.0 * c if penalize_bias else 0.0)
        v = v - 0.01 * (2 * one.X[rows].T @ error / len(rows) + 3.0 * v)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        c -= settings.bias_lr * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)) ** 0.5 + 1e-8)
    assert relative(w, v) < 1e-12
    assert abs(float(b) - c) < 1e-12


def test_only_the_weight_decays_unless_asked():
    model = concise.linear_model(torch.ones(3), torch.ones(()))
    (optimizer,) = concise.one_optimizer(model, lr=0.1, weight_decay=2.0)
    groups = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert groups == {id(model.weight): 2.0, id(model.bias): 0.0}
