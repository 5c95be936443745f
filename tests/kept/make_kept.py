"""A result of each kind as the first version wrote it (commit 690c041), with its numbers: they load for ever.

PYTHONPATH=src python tests/kept/make_kept.py    (on that commit; it writes beside itself)
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn, optim

import weightdecay as wd

HERE = Path(__file__).parent


def numbers(kind, result):
    """What a result says, as JSON has it."""
    if kind == "path":
        values = [result.best, result.one_se, result.coef(), result.scores, result.dof, result.errors]
    elif kind == "model":
        rows = torch.linspace(-1, 1, 2 * len(result.coef), dtype=torch.float64).reshape(2, -1)
        values = [result.lam, result.noise_sd, result.predict(rows), *result.interval(rows, 0.9)]
    elif kind == "sweep":
        weights = sum(tensor.double().square().sum() for tensor in result.weights.values())
        values = [result.best, result.one_se, result.flat_range, weights, result.table()["train_loss"]]
    elif kind == "textbook":
        ends = [list(vars(outcome).values())[1:] for outcome in result.outcomes]
        least = [result.curve.table[name].min() for name in ("test_loss", "theory", "ridge")]
        values = [result.results["test_loss"], result.results["w_norm"], ends, least]
    elif kind == "monitor":
        kept = [result.rows[name] for name in ("norm", "update_norm", "applied", "kappa")]
        values = [*kept, *result.summary().row(0)[2:]]
    else:
        assert kind == "audit"
        values = [[one.numel, one.weight_decay, one.half_life] for one in result.parameters]
        values += [
            [one.code, one.message] for one in (*result.findings, *(i.finding for i in result.ignored))
        ]
    return [plain(value) for value in values]


def plain(value):
    """A value as JSON has it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_list"):
        return value.to_list()
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def net():
    """A model of a few weights."""
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def data(rows):
    """Inputs and a target that depends on the first."""
    rng = np.random.default_rng(rows)
    X = torch.tensor(rng.normal(size=(rows, 3)), dtype=torch.float32)
    return X, X[:, :1] + 0.1 * torch.tensor(rng.normal(size=(rows, 1)), dtype=torch.float32)


def adamw(params):
    """AdamW that decays."""
    return optim.AdamW(params, lr=0.01, weight_decay=0.1)


def results():
    """One of each kind."""
    X, y = (part.double() for part in data(20))
    path = wd.ridge_path(X, y[:, 0], [1e-4, 1e-3, 0.01, 0.1, 1.0], cv=4)
    sweep = wd.sweep(
        net,
        data(16),
        data(12),
        loss=nn.functional.mse_loss,
        optimizer=lambda params: optim.SGD(params, lr=0.05),
        strengths=[0.01, 1.0],
        seeds=2,
        epochs=2,
        batch_size=8,
        widen=0,
    )
    design = wd.Synthetic(n_train=6, n_test=8, n_inputs=10)
    run = wd.run_experiment(
        wd.Experiment(data=design, epochs=4, every=2, curve=(0.1, 1.0), curve_seeds=2, seeds=2)
    )
    torch.manual_seed(0)
    model = net()
    optimizer = adamw(model.parameters())
    monitor = wd.Monitor(model, optimizer, every=4, burst=2)
    X, y = data(16)
    for _ in range(8):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X), y).backward()
        optimizer.step()
    monitored = monitor.result()
    audit = wd.audit(model, optimizer, steps=100, ignore={"WD102": "a recipe"})
    return {
        **{"path": path, "model": path.model(), "sweep": sweep, "textbook": run},
        **{"monitor": monitored, "audit": audit},
    }


if __name__ == "__main__":
    expected = {}
    for kind, result in results().items():
        result.save(HERE / ("audit.json" if kind == "audit" else kind))
        expected[kind] = numbers(kind, result)
    (HERE / "numbers.json").write_text(json.dumps(expected, indent=1) + "\n")
