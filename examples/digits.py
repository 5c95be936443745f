"""How much weight decay do the digits need?

weightdecay sweep examples/digits.py --strengths 1e-3:30:24 --seeds 8 --out runs/digits

A file for `weightdecay sweep` has four names: `make_model`, `data`, `loss` and `optimizer`. This one also
says how to measure accuracy, how long to train and on how many examples at once.
The pictures come with scikit-learn: pip install scikit-learn.
"""

from functools import partial

import torch
from torch import Tensor, nn

try:
    from sklearn.datasets import load_digits
except ModuleNotFoundError as error:
    what = "examples/digits.py needs scikit-learn, whose pictures it trains on: pip install scikit-learn"
    raise ModuleNotFoundError(what, name="sklearn") from error

epochs, batch_size = 40, 128  # long enough to overfit
loss = nn.functional.cross_entropy
optimizer = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0)  # the sweep decays


def make_model() -> nn.Module:
    """A small network for 8 × 8 pictures of ten digits."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """1,797 pictures: two thirds to train on, every third one to test."""
    pictures, digits = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(pictures, dtype=torch.float32) / 16, torch.tensor(digits)
    third = torch.arange(len(inputs)) % 3 == 2
    return (inputs[~third], targets[~third]), (inputs[third], targets[third])


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The share of pictures that are read right."""
    return (output.argmax(1) == target).float().mean()


metrics = {"accuracy": accuracy}
