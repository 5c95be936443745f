"""Checks of arguments: what passes comes back as it is, what does not is named with what to do."""

import numpy as np
import pytest
import torch
from torch import nn, optim

from weightdecay import arguments
from weightdecay.errors import InputError


def test_what_is_right_comes_back():
    net = nn.Linear(2, 1)
    sgd = optim.SGD(net.parameters(), lr=0.1)
    assert arguments.model(net) is net
    assert arguments.optimizer(sgd) is sgd
    assert arguments.function(len, "loss", "give one") is len
    assert arguments.choice("b", "by", {"a": 1, "b": 2}) == "b"
    assert arguments.probability(0.9, "level") == 0.9
    assert arguments.number(torch.tensor(2.0), "lr") == arguments.number(np.float32(2), "lr") == 2.0


class Unborn(optim.Optimizer):
    def __init__(self):
        pass


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: arguments.model(nn.Linear), "not a model: model = type; give a torch.nn.Module"),
        (lambda: arguments.model(3, "give the model"), "not a model: model = int; give the model"),
        (
            lambda: arguments.optimizer(Unborn()),
            "not an optimizer of torch's kind: optimizer = Unborn; ",
        ),
        (lambda: arguments.function(3, "loss", "give one"), "not a function: loss = 3; give one"),
        (lambda: arguments.function(3, "loss", "give one", "int"), "not a function: loss = int; give one"),
        (lambda: arguments.choice("c", "by", ("a", "b")), "no such choice: by = 'c'; use a, b"),
        (lambda: arguments.choice("c", "by", ("a",), "no such unit"), "no such unit: by = 'c'; use a"),
        (lambda: arguments.probability(1, "level"), "not a probability: level = 1; give one between 0 and 1"),
        (lambda: arguments.number(np.bool_(True), "lr"), "not a number: lr = "),
        (lambda: arguments.number(True, "lr"), "not a number: lr = True; give a number"),
    ],
)
def test_what_is_not_is_refused(check, message):
    with pytest.raises(InputError) as raised:
        check()
    assert str(raised.value).startswith(message)
