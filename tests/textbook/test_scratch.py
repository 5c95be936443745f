"""From scratch, against NumPy, torch.optim, autograd and linear algebra."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import oracles
from tests.helpers import drawn, relative, small

from weightdecay.textbook import scratch


def train(one, *, init=None, **options):
    """Train a draw from scratch in float64; returns w, b and the looks."""
    w, b = init or (one.w, torch.zeros((), dtype=torch.float64))
    w, b = w.clone().requires_grad_(), b.clone().requires_grad_()
    looks = []
    scratch.train(
        (one.X, one.y),
        (one.X_test, one.y_test),
        w,
        b,
        generator=one.generator(),
        watch=lambda *look: looks.append(look),
        **options,
    )
    return w.detach(), b.detach(), looks


@pytest.mark.parametrize("penalize_bias", [False, True])
@pytest.mark.parametrize("lam", [0.0, 3.0])
def test_training_is_the_update_equation(lam, penalize_bias):
    one = drawn(small())
    options = {"lam": lam, "lr": 0.01, "batch_size": 5, "penalize_bias": penalize_bias}
    w, b, looks = train(one, epochs=6, every=2, **options)
    reference = list(
        oracles.minibatch_descent(one.X.numpy(), one.y.numpy(), one.w.numpy(), 0, one.order(6), **options)
    )
    assert relative(w, reference[-1][0]) < 1e-12
    assert abs(b - reference[-1][1]) < 1e-12
    assert [look[0] for look in looks] == [2, 4, 6]
    for epoch, train_loss, test_loss, norm in looks:
        w, b = reference[epoch - 1]
        assert train_loss == pytest.approx(oracles.half_mse(one.X.numpy(), one.y.numpy(), w, b), rel=1e-10)
        assert test_loss == pytest.approx(
            oracles.half_mse(one.X_test.numpy(), one.y_test.numpy(), w, b), rel=1e-10
        )
        assert norm == pytest.approx(np.sqrt((w**2).sum()), rel=1e-12)


def test_training_is_torch_sgd_on_half_the_mean_squared_loss():
    one = drawn(small())
    w, b, _ = train(one, lam=3.0, lr=0.01, epochs=6, batch_size=5)
    v, c = one.w.clone().requires_grad_(), torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([{"params": [v], "weight_decay": 3.0}, {"params": [c]}], lr=0.01)
    for rows in one.order(6):
        for batch in rows.split(5):
            optimizer.zero_grad()
            (((one.X[batch] @ v + c - one.y[batch]) ** 2).mean() / 2).backward()
            optimizer.step()
    assert relative(w, v.detach()) < 1e-12
    assert abs(b - c.detach()) < 1e-12


def test_the_penalty_and_its_gradient():
    w = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    scratch.l2_penalty(w).backward()
    assert torch.equal(w.grad, w.detach())
    assert scratch.l2_penalty(w).item() == pytest.approx(np.linalg.norm(w.detach()) ** 2 / 2, rel=1e-15)
    assert scratch.l2_penalty(torch.zeros(7)).item() == 0


def test_no_decay_changes_nothing_bit_for_bit():
    one = drawn(small())
    w, b, _ = train(one, lam=0.0, lr=0.01, epochs=3, batch_size=5)
    v, c = one.w.clone().requires_grad_(), torch.zeros((), dtype=torch.float64, requires_grad=True)
    generator = one.generator()
    for _ in range(3):
        for X, y in scratch.minibatches(one.X, one.y, 5, generator):
            scratch.squared_loss(scratch.linreg(X, v, c), y).sum().backward()
            scratch.sgd([v, c], 0.01, len(y))
    assert torch.equal(w, v.detach())
    assert torch.equal(b, c.detach())


@pytest.mark.parametrize("lam", [0.0, 0.5, 3.0])
def test_what_no_example_reaches_only_decays(lam):
    one = drawn(small())
    w, _, _ = train(one, lam=lam, lr=0.01, epochs=6, batch_size=5)
    Q = torch.linalg.qr(one.X.T, mode="complete").Q[:, len(one.y) :]  # a basis of the null space of X
    start, end = Q.T @ one.w, Q.T @ w
    assert float((end - (1 - 0.01 * lam) ** 18 * start).abs().max()) < 1e-12
    assert float(start.abs().max()) > 0.5


def test_every_example_is_seen_once_an_epoch():
    rows = torch.arange(23)
    batches = list(scratch.minibatches(rows, rows, 5, torch.Generator().manual_seed(0)))
    assert [len(X) for X, _ in batches] == [5, 5, 5, 5, 3]
    assert all(torch.equal(X, y) for X, y in batches)
    seen = torch.cat([X for X, _ in batches])
    assert torch.equal(seen.sort().values, rows)
    assert not torch.equal(seen, rows)


def test_the_data_follow_the_linear_model():
    w = torch.linspace(-1, 1, 5, dtype=torch.float64)
    X, y = scratch.synthetic_data(w, 0.5, 200_000, noise=0.2, generator=torch.Generator().manual_seed(0))
    noise = y - X @ w - 0.5
    # Standard errors: 1/sqrt(200,000) = .0022 for an N(0, 1) mean, .2 of that for the noise; 5 are allowed.
    assert float(X.mean(0).abs().max()) < 0.012
    assert float((X.T @ X / len(X) - torch.eye(5)).abs().max()) < 0.02
    assert abs(float(noise.mean())) < 0.0023
    assert abs(float(noise.std()) - 0.2) < 0.002


def test_scratch_imports_torch_and_nothing_else():
    tree = ast.parse(Path(scratch.__file__).read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
        elif isinstance(node, ast.Attribute):
            assert node.attr not in {"optim", "nn"}
    assert names == {"torch"}
