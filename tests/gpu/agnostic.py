"""A call on another device gives what it gives on the CPU; a default device of the user's changes nothing.

On the device that pretends, numbers are the CPU's own, so they are equal; on a GPU sums are in another order.
`test_agnostic.py` runs this file in a process of its own.
"""

import copy
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from tests.gpu.pretend import Pretended, pretending
from tests.hooks.zoo import LR, Model, make_rule, parts, train, weights
from torch import nn, optim

import weightdecay as wd
from weightdecay.probing.run import probe_optimizer
from weightdecay.rules import RULES

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}  # float64


@pytest.fixture(params=["pretend", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    with pretending() if request.param == "pretend" else nullcontext():
        yield request.param


def moved(model, device):
    model.to(device)
    model.x, model.y = model.x.to(device), model.y.to(device)
    return model


def test_the_device_that_pretends_refuses_what_a_gpu_refuses():
    with pretending():
        x = torch.ones(3).to("pretend")
        for mixed in (
            lambda: x + torch.ones(3),
            lambda: torch.ones(3)[x.long()],
            lambda: torch.zeros(()).add_(x.sum()),
            lambda: np.asarray(x),
        ):
            with pytest.raises((RuntimeError, TypeError)):
                mixed()
        assert isinstance(torch.tensor(2.0) * x[torch.tensor([0, 1])], Pretended)
        assert x.cpu().tolist() == [1.0] * 3


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "RMSprop"])
@pytest.mark.parametrize("name", RULES)
def test_every_rule(device, name, kind):
    if name == "Stable" and kind != "AdamW":
        pytest.skip("refused: no average of squared gradients")

    def trained(where):
        model = moved(Model(kind), where)
        options = {"weight_decay": 0.0} if kind == "AdamW" else {}
        optimizer = getattr(optim, kind)(model.named_parameters(), lr=LR, **options)
        decay = wd.attach(optimizer, make_rule(name), model=model, on=parts(name))
        train(model, optimizer, 3)
        decay.load_state_dict(copy.deepcopy(decay.state_dict()))
        train(model, optimizer, 3)
        assert all(p.device.type == where for p in model.parameters())
        return weights(model)

    for found, wanted in zip(trained(device), trained("cpu"), strict=True):
        torch.testing.assert_close(found.cpu(), wanted, **TOLERANCE)


def table(n, p, targets=1):
    generator = torch.Generator().manual_seed(n)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    y = X[:, :targets] + 0.3 * torch.randn(n, targets, generator=generator, dtype=torch.float64)
    return X, y[:, 0] if targets == 1 else y


def asked(path, X):
    """What there is to ask of a path, on the CPU."""
    found = [path.scores, path.errors, path.coef(), path.intercept(), path.predict(X), path.dof]
    if path.cv not in ("generalised cross-validation", "evidence"):
        found.append(path.out_of_fold())
    return [value.cpu() for value in (*found, path.standard_errors())]


OPTIONS = {
    "plain": {},
    "a grid": {"lambdas": [0.1, 1.0, 10.0]},
    "weights": {"sample_weight": np.arange(36) % 5, "standardize": True},
    "factors": {"penalty_factors": np.array([0.0, 2.0, *[1.0] * 7]), "intercept": "penalized"},
}


@pytest.mark.parametrize("cv", ["loo", "gcv", "evidence", 4, np.arange(36) % 3], ids=str)
@pytest.mark.parametrize("options", OPTIONS)
def test_ridge(device, options, cv):
    X, y = table(36, 9)
    found, wanted = (
        asked(wd.ridge_path(X.to(where), y.to(where), cv=cv, **OPTIONS[options]), X.to(where))
        for where in (device, "cpu")
    )
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("n", "p", "targets"), [(20, 60, 1), (20, 60, 3), (60, 20, 3)])
@pytest.mark.parametrize("cv", ["loo", 4])
def test_ridge_in_every_shape(device, n, p, targets, cv):
    X, y = table(n, p, targets)
    found, wanted = (
        asked(wd.ridge_path(X.to(where), y.to(where), cv=cv), X.to(where)) for where in (device, "cpu")
    )
    for one, other in zip(found, wanted, strict=True):
        # An interpolating target has no noise sd.
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7, equal_nan=True)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x) if x[0, 0].item() > 0 else 0.5 * self.net(x)


def on_cpu(make):
    """Models are made on the CPU, whatever the default device is."""

    def made():
        with torch.device("cpu"):
            return make().double()

    return made


@on_cpu
def network():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


SWEEPS = {
    "vectorised": {"rule": [wd.Decoupled, wd.Cautious], "clip": 1.0},
    "one by one": {"make_model": on_cpu(Branching)},
    "linear": {"make_model": on_cpu(lambda: nn.Linear(6, 1)), "optimizer": partial(optim.SGD, lr=0.05)},
}


def swept(method, where, data):
    with torch.device("cpu"):
        X, y = table(48, 6)
    y = y[:, None]
    arguments = {
        "make_model": network,
        "train": (X[:32].to(data), y[:32].to(data)),
        "test": (X[32:].to(data), y[32:].to(data)),
        "loss": nn.functional.mse_loss,
        "optimizer": partial(optim.AdamW, lr=1e-2, weight_decay=0),
        "metrics": {"mae": lambda output, target: (output - target).abs().mean()},
        "strengths": [0.1, 1.0],
        "seeds": 2,
        "epochs": 2,
        "widen": 0,
    }
    return wd.sweep(**{**arguments, **SWEEPS[method]}, batch_size=16, device=where)


@pytest.mark.parametrize("method", SWEEPS)
@pytest.mark.parametrize("there", [True, False], ids=["data there", "data on the CPU"])
def test_sweep(device, method, there):
    found, wanted = swept(method, device, device if there else "cpu"), swept(method, "cpu", "cpu")
    assert found.method == wanted.method
    assert found.method.startswith(method)
    assert found.best == wanted.best
    for name, tensor in wanted.weights.items():
        torch.testing.assert_close(found.weights[name], tensor, rtol=1e-6, atol=1e-8)
    columns = ["train_loss", "test_loss", "test_mae"]
    one, other = (record.table().select(columns).to_numpy() for record in (found, wanted))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_default_device_changes_nothing():
    """On meta nothing can be computed: what is made without a device would show."""
    X, y = table(36, 9)

    def everything():
        path = wd.ridge_path(X, y)
        assert path.model().interval(X)[0].shape == (36,)
        return asked(path, X), [swept(method, "cpu", "cpu") for method in SWEEPS]

    wanted, wanted_sweeps = everything()
    torch.set_default_device("meta")
    try:
        found, sweeps = everything()
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    for one, other in zip(sweeps, wanted_sweeps, strict=True):
        assert one.method == other.method
        assert one.table().equals(other.table())


def test_probe_audit_and_monitor(device):
    def everything(where):
        model = moved(Model("AdamW"), where)
        optimizer = optim.AdamW(model.parameters(), lr=LR, weight_decay=0.1)
        monitor = wd.Monitor(model, optimizer, every=2)
        train(model, optimizer, 6)
        rows = monitor.result().rows
        monitor.close()
        before = weights(model)
        form = probe_optimizer(optimizer).form
        findings = [(one.code, one.parameters) for one in wd.audit(model, optimizer).findings]
        assert all(map(torch.equal, before, weights(model)))
        return rows, form, findings

    (rows, *found), (wanted_rows, *wanted) = everything(device), everything("cpu")
    assert found == wanted
    numeric = [name for name, kind in rows.schema.items() if kind.is_float()]
    np.testing.assert_allclose(rows.select(numeric), wanted_rows.select(numeric), rtol=1e-6, atol=1e-7)
