"""What people give to a sweep: loaders, seeds, and functions of theirs that fail."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.sweeps.task import data_of, seeds_of

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
TRAIN, TEST = (X[:20], (X[:20, 0] > 0).long()), (X[20:], (X[20:, 0] > 0).long())
ITEMS = TensorDataset(*TRAIN)


def swept(train=TRAIN, test=TEST, make_model=lambda: nn.Linear(3, 2), **changes):
    adamw = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0)
    arguments = {"loss": nn.functional.cross_entropy, "optimizer": adamw, "strengths": [0.1, 1.0]}
    arguments |= {"seeds": 2, "epochs": 2, "batch_size": 8, "widen": 0, **changes}
    return wd.sweep(make_model, train, test, **arguments)


class Backwards(SequentialSampler):
    def __iter__(self):
        return reversed(range(len(self)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_sampler": BatchSampler(RandomSampler(ITEMS), 4, drop_last=True)},
            r"a batch_sampler of its own is not followed: the sweep draws its own order, .*"
            r"train\.batch_sampler = BatchSampler; give the dataset, and batch_size",
        ),
        ({"batch_size": None}, r"makes no batches: train\.batch_size = None"),
        (
            {"sampler": SubsetRandomSampler(range(5))},
            r"train\.sampler = SubsetRandomSampler; give the dataset",
        ),
        ({"sampler": WeightedRandomSampler([1.0] * 20, 20)}, r"train\.sampler = WeightedRandomSampler"),
        ({"sampler": Backwards(ITEMS)}, r"train\.sampler = Backwards"),
        ({"sampler": RandomSampler(ITEMS, num_samples=5)}, r"train\.sampler = RandomSampler"),
        (
            {"sampler": RandomSampler(ITEMS, replacement=True)},
            r"with replacement.*train\.sampler = RandomSampler",
        ),
        (
            {"batch_size": 8, "drop_last": True},
            r"drop_last is not followed.*train\.drop_last = True; leave it out",
        ),
    ],
)
def test_a_loader_whose_order_is_not_followed_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        data_of(DataLoader(ITEMS, **options), "train")


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_plain_loader_is_its_examples_in_their_order(shuffle):
    found = data_of(DataLoader(ITEMS, batch_size=8, shuffle=shuffle), "train")
    assert torch.equal(found.inputs[0], TRAIN[0])
    assert torch.equal(found.target, TRAIN[1])


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        (3, (0, 1, 2)),
        (np.int64(3), (0, 1, 2)),
        (torch.tensor(3), (0, 1, 2)),
        ([7, 5], (7, 5)),
        (range(10, 14, 2), (10, 12)),
        (np.array([3, 0]), (3, 0)),
        (np.arange(2, dtype=np.uint8), (0, 1)),
        (torch.tensor([4, 9]), (4, 9)),
        ([2**62, 2**62 - 1], (2**62, 2**62 - 1)),  # as whole numbers: one float for both
    ],
)
def test_seeds_are_a_number_or_any_list_of_numbers(given, seeds):
    found = seeds_of(given)
    assert found == seeds
    assert {type(seed) for seed in found} == {int}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.array([1, 1]), r"seeds have to be different: seeds = \[1, 1\]"),
        (torch.tensor([0, -1]), r"out of range: seeds\[1\] = -1"),
        (np.array([0.5]), r"not a whole number: seeds\[0\] = 0.5"),
        (np.zeros((2, 2)), r"not a number: seeds\[0\]"),
        (np.array([True]), r"not a number: seeds\[0\]"),
        ([], "no seeds: seeds = "),
        (range(0), "no seeds: seeds = "),
        ("3", "not a number: seeds = '3'"),
        (None, "not a number: seeds"),
    ],
)
def test_what_are_no_seeds_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        seeds_of(given)


def test_an_array_of_seeds_is_that_list():
    assert swept(seeds=np.array([4, 1])).table().equals(swept(seeds=[4, 1]).table())


def fails(*_):
    raise RuntimeError("mine, and\nmore lines")


class NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no way back")


class OneWay(nn.Linear):
    def forward(self, x):
        return NoWayBack.apply(super().forward(x))


class Deeper(nn.Module):
    """Another width for each seed."""

    def __init__(self):
        super().__init__()
        width = int(torch.randint(1, 100, ()))
        self.layers = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)


class Annealed:
    """A loss that counts its calls."""

    calls = 0

    def __call__(self, output, target):
        self.calls += 1
        return nn.functional.cross_entropy(output, target) * (1 + 0.01 * self.calls)


class Stuck(torch.optim.SGD):
    def step(self, closure=None):
        raise ZeroDivisionError("stuck")


ONE = nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"make_model": lambda: ONE}, "every call has to return a new model: make_model"),
        ({"make_model": Deeper}, r"layout depends on the seed: layers.0.weight is another with seed 1"),
        ({"make_model": lambda: OneWay(3, 2)}, r"the loss has no gradient \(RuntimeError: no way back\)"),
        ({"make_model": lambda: nn.Linear(3, 2, device="meta")}, r"the model cannot be made \(NotImpl"),
        ({"loss": Annealed()}, "the loss has another value when it is called again: loss = Annealed"),
        ({"optimizer": partial(Stuck, lr=0.1)}, r"a training fails \(ZeroDivisionError: stuck\): epoch = 1"),
        ({"optimizer": torch.optim.SparseAdam}, r"a training fails \(RuntimeError: SparseAdam does not supp"),
        ({"optimizer": lambda ps: torch.optim.SGD([])}, "the optimizer cannot be made"),
        ({"metrics": {"": fails}}, "a metric without a name"),
        ({"rule": fails}, r"the rule fails cannot be made with a strength \(RuntimeError: mine.*rule = 0\.0"),
        ({"rule": {"mine": lambda: wd.Decoupled(0.1)}}, r"the rule mine cannot be made.*TypeError"),
        ({"loss": fails}, r"the loss cannot be computed \(RuntimeError: mine, and\): loss = fails"),
        (
            {"metrics": {"odd": fails}},
            r"the metric cannot be computed \(RuntimeError: mine, and\): metrics\['odd'\] = fails",
        ),
        ({"strengths": [wd.HalfLife(tokens=1e6)]}, r"the tokens of a step: HalfLife\.tokens"),
    ],
)
def test_functions_that_fail_are_named_before_any_training(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        swept(out=tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_none():
    with pytest.raises(InputError, match="null byte"):
        swept(out="a\0b")


class Fading(nn.Linear):
    """Fails in its last steps."""

    def __init__(self):
        super().__init__(3, 2)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        if self.calls > 5:
            raise RuntimeError("worn out")
        return super().forward(x)


class Deciding(Fading):
    def forward(self, x):
        return super().forward(x) * (1.0 if x.sum().item() > 0 else 2.0)


@pytest.mark.parametrize("model", [Fading, Deciding])
def test_a_model_that_fails_late_is_named(model):
    with pytest.raises(InputError, match=r"a training fails \(RuntimeError: worn out\): epoch = 2"):
        swept(make_model=model)


class Later:
    """A loss or metric that is fine for so many calls, as one is that meets what it does not expect."""

    def __init__(self, calls, function):
        self.calls, self.function = calls, function

    def __call__(self, output, target):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("mine")
        return self.function(output, target)


def leaves_torch(output, target):
    return float((output.argmax(-1) == target).double().mean().item())


class Branching(nn.Linear):
    def forward(self, input):
        return super().forward(input) * (1 if input.sum().item() > 0 else 2)


@pytest.mark.parametrize("model", [nn.Linear, Branching])
def test_a_metric_or_loss_that_fails_late_is_named(model):
    make_model = partial(model, 3, 2)
    odd = Later(20, leaves_torch)
    with pytest.raises(
        InputError, match=r"the metric cannot be computed \(RuntimeError: mine\): metrics\['odd'\]"
    ):
        swept(make_model=make_model, metrics={"odd": odd}, epochs=9)
    loss = Later(40 if model is nn.Linear else 200, nn.functional.cross_entropy)
    with pytest.raises(InputError, match=r"the loss cannot be computed \(RuntimeError: mine\): loss = Later"):
        swept(make_model=make_model, loss=loss, epochs=40)


def strict(output, target):
    """As scikit-learn's: refuses what is not finite."""
    if not bool(output.isfinite().all()):
        raise ValueError("Input contains NaN")
    return float(output.abs().mean().item())


@pytest.mark.parametrize("model", [nn.Linear, Branching])
def test_a_metric_that_refuses_what_diverged_does_not_end_the_others(model):
    sgd = {
        "optimizer": torch.optim.SGD,
        "lr": [1e-3, 20.0],
        "loss": nn.functional.mse_loss,
        "strengths": [1e-3],
    }
    y = TRAIN[0][:, :1]
    data = {"train": (X[:20], y), "test": (X[:20], y), "make_model": partial(model, 3, 1)}
    found = swept(**data, **sgd, epochs=300, every=100, metrics={"size": strict})
    table = found.table()
    assert table.filter(lr=20.0)["diverged"].null_count() == 0
    assert table.filter(lr=20.0)["test_size"].is_nan().all()
    assert table.filter(lr=1e-3)["test_size"].is_finite().all()


def test_a_metric_that_is_nowhere_finite_is_the_metric_s_fault():
    def odd(output, target):
        return output.sum() * float("nan")

    message = r"the metric chooses no strength: .* at 6 trainings whose loss is: metrics\['odd'\] = nan"
    with pytest.raises(InputError, match=message) as told:
        swept(metrics={"odd": odd}, minimize="odd")
    assert not isinstance(told.value, wd.DivergenceError)
    assert not swept(metrics={"odd": odd}).doubts[1:]
