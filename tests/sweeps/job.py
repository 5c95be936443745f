"""A small sweep that other processes run, too: two rules, four strengths, two seeds, and a finer round."""

import sys
from functools import partial

import torch
from torch import nn

from weightdecay.rules import Cautious, Decoupled
from weightdecay.sweeps.run import sweep


def points(n, seed):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 6, generator=generator)
    noise = torch.randn(n, generator=generator)
    return X, (X[:, 0] + 0.5 * X[:, 1] * X[:, 2] + 0.5 * noise > 0).long()


def network():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


class Branching(nn.Module):
    """Has control flow that depends on the data: trained one by one."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x) if x[0, 0].item() > 0 else 0.5 * self.net(x)


def accuracy(output, target):
    return (output.argmax(-1) == target).float().mean()


def job(**changes):
    """The sweep; `Sweep`."""
    arguments = {
        "make_model": network,
        "train": points(96, 0),
        "test": points(200, 1),
        "loss": nn.functional.cross_entropy,
        "optimizer": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0),
        "metrics": {"accuracy": accuracy},
        "strengths": [0.3, 3.0, 30.0],
        "seeds": 2,
        "epochs": 6,
        "batch_size": 32,
        "every": 2,
        "chunk": 4,
        "refine": 1,
        "rule": [Decoupled, Cautious],
        "checkpoint_seconds": 0.0,
    }
    return sweep(**{**arguments, **changes})


def quietly(folder, changes=None):
    """In another process, begun or resumed."""
    torch.set_num_threads(1)
    job(out=folder, resume=True, **(changes or {}))


if __name__ == "__main__":
    quietly(sys.argv[1])
