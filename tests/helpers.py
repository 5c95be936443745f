"""What several tests build on."""

import torch

from weightdecay.textbook.settings import Experiment, Synthetic, draw

SMALL = Synthetic(n_train=12, n_test=30, n_inputs=40)


def small(**changes):
    """A small, quick experiment in float64 with a ragged last batch (5, 5, 2)."""
    settings = {"data": SMALL, "epochs": 6, "every": 2, "dtype": "float64", "curve": (), "lr": 0.01}
    return Experiment(**{**settings, **changes})


def drawn(settings, seed=0):
    return draw(settings.data, seed)


def relative(a, b):
    """The largest difference relative to the largest value: rounding of sums grows with the terms."""
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    return float((a - b).abs().max() / b.abs().max())
