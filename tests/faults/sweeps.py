"""Sweeps that trained something else than a plain loop does, or said something untrue."""

import tempfile
from functools import partial

import torch
import torch.nn.functional as F
from tests.faults.rows import row
from tests.sweeps import plain
from torch import nn, optim

import weightdecay as wd


def _table(n, p=5, seed=5):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=generator)
    return X, X @ torch.linspace(-1, 2, p)[:, None] + 0.3


def _against_plain(make_model, train, test, **made):
    """The worst relative error of test and train losses, and how the sweep trained."""
    found = wd.sweep(make_model, train, test, strengths=[0.1], seeds=2, widen=0, **made)
    worst = [0.0, 0.0]
    for one in found.trained:
        right = plain.train(make_model, train, test, lam=one.copy.strength, seed=one.copy.seed, **made)
        pairs = (one.test_loss, right.test[-1]), (one.train_loss, right.train[-1])
        gaps = [abs(got - wanted) / (abs(wanted) + 1e-12) for got, wanted in pairs]
        worst = [max(pair) for pair in zip(worst, gaps, strict=True)]
    return worst, found.method


def _told(worst, method, near=1e-4):
    return f"test off by {worst[0]:.2g}, train by {worst[1]:.2g} ({method[:90]})", max(worst) < near


def _summed(batch):
    loss = partial(F.mse_loss, reduction="sum")
    made = {"loss": loss, "optimizer": partial(optim.SGD, lr=1e-3), "epochs": 3, "batch_size": batch}
    return _told(*_against_plain(lambda: nn.Linear(5, 1), _table(40), _table(30, seed=6), **made))


@row("18", "a summed loss, batches of 12 of 40", "as a plain loop")
def summed():
    return _summed(12)


@row("18", "a summed loss, one batch of all", "as a plain loop")
def summed_whole():
    return _summed(40)


@row("18", "a Huber loss that is squared up to 100, errors beyond", "as a plain loop")
def huber():
    (X, y), test = _table(40), _table(30, seed=6)
    made = {"loss": partial(F.huber_loss, delta=100.0), "optimizer": partial(optim.SGD, lr=0.01)}
    train = X, 1e3 * y
    return _told(*_against_plain(lambda: nn.Linear(5, 1), train, test, **made, epochs=3, batch_size=12))


@row("36", "an optimizer that holds the weight alone", "as a plain loop")
def weight_alone():
    made = {"loss": F.mse_loss, "optimizer": lambda ps, lr=0.05: optim.SGD(list(ps)[:1], lr=lr)}
    train, test = _table(40), _table(30, seed=6)
    return _told(*_against_plain(lambda: nn.Linear(5, 1), train, test, **made, epochs=3, batch_size=12))


class _Attending(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.02, batch_first=True)
        self.layer, self.out = layer, nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.layer(x).mean(1))


@row("27", "a float32 transformer with dropout", "as a plain loop, or one by one")
def attending():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(160, 6, 8, generator=generator)
    y = (X.sum((1, 2)) > 0).long()
    made = {"loss": F.cross_entropy, "optimizer": partial(optim.AdamW, lr=1e-2, weight_decay=0)}
    train, test = (X[:96], y[:96]), (X[96:], y[96:])
    return _told(*_against_plain(_Attending, train, test, **made, epochs=4, batch_size=32))


@row("29b", "train loss, the last batch of 1 of 33 examples", "the mean over examples")
def train_loss():
    made = {"loss": F.mse_loss, "optimizer": partial(optim.SGD, lr=0.05)}
    train = tuple(torch.cat([part[:32], 30 * part[32:]]) for part in _table(33))
    worst, method = _against_plain(
        lambda: nn.Linear(5, 1), train, _table(30, seed=6), **made, epochs=1, batch_size=16
    )
    return _told(worst, method)


@row(
    "31", "a batch of 78 trainings, interrupted: what is kept, and what --resume begins with", "epoch 2 of 6"
)
def interrupted():
    first, seen = [], []

    def stop(progress):
        seen.append(progress)
        if progress.share >= 0.3:
            raise KeyboardInterrupt

    made = {"loss": F.mse_loss, "optimizer": partial(optim.SGD, lr=0.01), "epochs": 6, "widen": 0}
    given = lambda: nn.Sequential(nn.Linear(5, 1)), _table(40), _table(30, seed=6)
    made |= {"strengths": torch.logspace(-3, 0, 38), "seeds": 2, "checkpoint_seconds": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        try:
            wd.sweep(*given, **made, out=folder, on_progress=stop)
        except KeyboardInterrupt as error:
            kept = getattr(error, "kept", "what is finished is kept")
        resumed = wd.sweep(*given, **made, out=folder, resume=True, on_progress=first.append)
    whole = wd.sweep(*given, **made)
    same = resumed.table().equals(whole.table())
    epoch = round(first[0].share * 6) if first else 0  # the first to be told of is done
    right = same and "78 more are kept up to epoch 2 of 6" in kept and epoch == 3
    begun = f"resumed it begins with epoch {epoch}"
    return f"{kept}; {begun}; {'the same' if same else 'other'} bits", right
