"""Chunks: resuming, divergence, methods, refusals; every copy against the plain loop."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.rules import base
from weightdecay.sweeps import method as methods
from weightdecay.sweeps.chunk import Recipes
from weightdecay.sweeps.method import Method
from weightdecay.sweeps.task import Checkpoint, Chunk, Data, Task, data_of
from weightdecay.text import Text

DOUBLE = torch.float64
TOGETHER = Method("vectorised", Text("", ""), True, 0)
ALONE = Method("one by one", Text("", ""), True, 0)
LINEAR = Method("linear", Text("", ""), True, 0)


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(DOUBLE)


def dropped():
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 3)).to(DOUBLE)


def accuracy(output, target):
    return (output.argmax(-1) == target).double().mean()


def task_of(make_model=mlp, **options):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(56, 6, generator=generator, dtype=DOUBLE)
    y = torch.randint(0, 3, (56,), generator=generator)
    settings = {
        "make_model": make_model,
        "train": Data((X[:40],), y[:40]),
        "test": Data((X[40:],), y[40:]),
        "loss": F.cross_entropy,
        "metrics": {"accuracy": accuracy},
        "optimizer": partial(optim.AdamW, lr=1e-2, weight_decay=0),
        "rules": {"rule": wd.Decoupled},
        "lrs": None,
        "schedule": None,
        "on": "matrices",
        "epochs": 5,
        "batch_size": 12,
        "every": 2,
        "clip": None,
        "device": torch.device("cpu"),
        "threads": 1,
    }
    return Task(**{**settings, **options})


def regression(**options):
    X = torch.randn(56, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    y = X.sum(1, keepdim=True) + 0.3
    data = {"train": Data((X[:40],), y[:40]), "test": Data((X[40:],), y[40:]), "loss": F.mse_loss}
    more = {"metrics": {"error": lambda o, t: (o - t).abs().mean()}, "optimizer": partial(optim.SGD, lr=0.05)}
    return task_of(lambda: nn.Linear(6, 1).to(DOUBLE), **{**data, **more, **options})


def method_of(task, seeds):
    return methods.method_of(Recipes(replace(task, seeds=seeds)))


def train_chunk(task, *more, **options):
    return methods.train_chunk(Recipes(task), *more, **options)


def chunk_of(strengths=(0.0, 0.5, 3.0), seeds=(0, 7), **options):
    return Chunk(
        **{
            "rule": "rule",
            "lr": None,
            "strengths": strengths,
            "unit": "weight_decay",
            "seeds": seeds,
            **options,
        }
    )


def assert_same(one, other, near=0.0):
    for a, b in zip(one.trained, other.trained, strict=True):
        assert (a.copy, a.diverged, a.weight_decay) == (b.copy, b.diverged, b.weight_decay)
        for look, again in zip(a.looks, b.looks, strict=True):
            found = [look.epoch, look.train_loss, look.test_loss, *look.metrics.values()]
            wanted = [again.epoch, again.train_loss, again.test_loss, *again.metrics.values()]
            torch.testing.assert_close(
                torch.tensor(found, dtype=DOUBLE),
                torch.tensor(wanted, dtype=DOUBLE),
                rtol=0,
                atol=near,
                equal_nan=True,
            )
    assert one.weights.keys() == other.weights.keys()
    for name, tensor in one.weights.items():
        torch.testing.assert_close(tensor, other.weights[name], rtol=0, atol=near, equal_nan=True)


def stored(checkpoint):
    """A checkpoint as a file gives it back."""
    tensors = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    return Checkpoint(checkpoint.epoch, tensors, json.loads(json.dumps(checkpoint.plain)))


@pytest.mark.parametrize(
    ("task", "seeds", "method"),
    [
        (task_of(rules={"rule": partial(wd.Toward, ema=0.9)}), (0, 7), TOGETHER),
        (task_of(rules={"rule": wd.Cautious}, optimizer=partial(optim.RMSprop, lr=1e-2)), (0,), TOGETHER),
        (task_of(dropped, schedule="cosine"), (3,), TOGETHER),
        (regression(), (0, 7), LINEAR),
        (task_of(dropped, rules={"rule": partial(wd.Toward, ema=0.9)}, epochs=2), (0, 7), ALONE),
        (task_of(optimizer=partial(optim.LBFGS, max_iter=3), rules={"rule": wd.L2}, epochs=3), (0,), ALONE),
    ],
)
def test_going_on_from_any_epoch_ends_with_the_same_bits(task, seeds, method):
    chunk, kept = chunk_of(seeds=seeds), {}
    quiet = train_chunk(task, chunk, method)
    whole = train_chunk(task, chunk, method, on_epoch=lambda e, make: kept.update({e: stored(make())}))
    assert_same(quiet, whole)
    assert len(kept) == task.epochs * (6 * (len(seeds) // 2) or 3 if method is ALONE else 1)
    for checkpoint in kept.values():
        assert_same(train_chunk(task, chunk, method, start=checkpoint), whole)


class Plain(optim.SGD):
    """SGD that is not known for what it is, so that no strength is refused."""


@pytest.mark.parametrize("seeds", [(0,), (0, 7)])
def test_a_copy_that_diverges_is_recorded_and_leaves_the_others_alone(seeds):
    # w <- (1 - lr·λ) w = -79 w blows the weights up, step by step.
    task = task_of(optimizer=partial(Plain, lr=0.05), rules={"rule": wd.L2}, epochs=50)
    wild = train_chunk(task, chunk_of((0.0, 0.5, 1600.0, 3.0), seeds), TOGETHER)
    tame = train_chunk(task, chunk_of((0.0, 0.5, 1.0, 3.0), seeds), TOGETHER)
    alone = train_chunk(task, chunk_of((0.0, 0.5, 1600.0, 3.0), seeds), ALONE)
    for one, other, by_itself in zip(wild.trained, tame.trained, alone.trained, strict=True):
        assert one.diverged == by_itself.diverged
        if one.copy.strength == 1600.0:
            assert one.diverged is not None
            assert 50 < one.diverged < 200
            assert math.isnan(one.test_loss)
            assert math.isnan(one.looks[-1].metrics["accuracy"])
            assert math.isfinite(one.looks[0].train_loss)
        else:
            assert one == other
    for name, tensor in wild.weights.items():
        keep = [0, 1, 3]
        assert torch.equal(tensor[:, keep], tame.weights[name][:, keep])
        assert tensor[:, 2].isnan().all()
        assert alone.weights[name][:, 2].isnan().all()


class Two(nn.Module):
    """Two inputs, tied weights, a frozen parameter, one that is not used, and a scalar."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.b.weight = self.a.weight
        self.a.bias.requires_grad_(False)
        self.idle, self.size = nn.Linear(2, 2), nn.Parameter(torch.tensor(1.0))

    def forward(self, x, z):
        return self.out(torch.tanh(self.a(x)) + self.size * self.b(z))


def two_inputs(**options):
    task = task_of(lambda: Two().to(DOUBLE), **options)
    train, test = (Data((d.inputs[0], d.inputs[0].flip(1)), d.target) for d in (task.train, task.test))
    return replace(task, train=train, test=test)


HALF_LIVES = [
    ("half_lives_per_run", (0.0, 2.0, 9.0)),
    ("half_life_epochs", (0.0, 2.0, 0.5)),
    ("half_life_steps", (0.0, 9.0)),
]


@pytest.mark.parametrize(
    ("task", "chunk"),
    [
        (task_of(clip=0.2), chunk_of()),
        (
            task_of(clip=0.2, rules={"rule": wd.L2}, optimizer=partial(optim.SGD, lr=0.1, momentum=0.9)),
            chunk_of(),
        ),
        (task_of(dropped), chunk_of(seeds=(4,))),
        (
            task_of(lrs=(1e-3, 2e-2), schedule="linear", optimizer=partial(optim.AdamW, weight_decay=0)),
            chunk_of(lr=2e-2),
        ),
        (task_of(schedule=lambda o: optim.lr_scheduler.StepLR(o, 7, 0.5)), chunk_of()),
        (task_of(schedule=lambda t: 0.01 / (1 + t), rules={"rule": wd.Corrected}), chunk_of()),
        (task_of(schedule=[0.01] * 10 + [0.001] * 10), chunk_of()),
        (task_of(rules={"rule": lambda s: wd.Decoupled(lambda t: s / (1 + t))}), chunk_of()),
        (two_inputs(clip=0.5), chunk_of()),
        (two_inputs(on=[wd.Group(name="a.*", scale=2), wd.Group(name="*", scale=0.5)]), chunk_of()),
        (task_of(metrics={"first": lambda o, t: float(o[0, 0])}), chunk_of()),
        (regression(optimizer=partial(optim.SGD, lr=0.05, momentum=0.5)), chunk_of()),
        *((task_of(schedule="cosine"), chunk_of(values, unit=unit)) for unit, values in HALF_LIVES),
    ],
)
def test_each_copy_is_what_it_is_alone(task, chunk):
    assert_same(train_chunk(task, chunk, TOGETHER), train_chunk(task, chunk, ALONE), 1e-11)


@pytest.mark.parametrize("rule", [wd.Decoupled, wd.L2])
@pytest.mark.parametrize("on", ["matrices", [wd.Group(name="*")]])
def test_linear_models_go_their_own_way_to_the_same_end(rule, on):
    task = regression(rules={"rule": rule}, on=on)
    method = method_of(task, (0, 7))
    assert method.name == "linear"
    found, wanted = train_chunk(task, chunk_of(), method), train_chunk(task, chunk_of(), ALONE)
    assert_same(found, wanted, 1e-11)


def test_a_linear_model_that_diverges_is_recorded_at_its_step():
    task = regression(optimizer=partial(optim.SGD, lr=3.0), epochs=150)
    found = train_chunk(task, chunk_of((0.0, 0.1)), method_of(task, (0, 7)))
    alone = train_chunk(task, chunk_of((0.0, 0.1)), ALONE)
    steps = [one.diverged for one in found.trained]
    assert steps == [one.diverged for one in alone.trained]
    assert None not in steps
    assert all(tensor.isnan().all() for tensor in found.weights.values())


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.out = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.cells(x.view(-1, 2, 3))[0][:, -1])


class Looking(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        found = self.out(x)
        return 2 * found if found.mean() > 0 else found


class Trust(optim.Optimizer):
    """A step as long as the tensor, in the manner of LARS: no element by itself."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad * p.norm() / (p.grad.norm() + 1e-12), alpha=-group["lr"])


class Shrinking(wd.Decoupled):
    """Says that an element decays by itself, and looks at the mean of all."""

    def decayed(self, w, step):
        return w - step.rate * w.abs().mean()


base.RULES.pop("Shrinking")  # the registry is every test's


def matrices():
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)).to(DOUBLE)


@pytest.mark.parametrize(
    ("task", "name", "reason"),
    [
        (task_of(), "vectorised", "all copies run as one model"),
        (task_of(dropped), "vectorised", "draws random numbers"),
        (
            task_of(optimizer=optim.Adafactor),
            "one by one",
            "Adafactor does not treat every element by itself",
        ),
        (task_of(optimizer=Trust), "one by one", "Trust does not treat every element by itself"),
        (task_of(matrices, optimizer=partial(optim.Muon, weight_decay=0)), "one by one", "only supports 2D"),
        (
            task_of(optimizer=optim.LBFGS, rules={"rule": wd.L2}),
            "one by one",
            "LBFGS searches along one line",
        ),
        (task_of(lambda: Recurrent().to(DOUBLE)), "one by one", "gru"),
        (task_of(lambda: Looking().to(DOUBLE)), "one by one", "data-dependent control flow"),
        (
            task_of(rules={"rule": lambda s: wd.Toward(s, ema=0.5 + s)}),
            "one by one",
            "more than its strength",
        ),
        (regression(), "linear", "a squared loss"),
        (regression(loss=F.l1_loss), "vectorised", ""),
        (regression(optimizer=partial(optim.SGD, lr=0.01, momentum=0.9)), "vectorised", ""),
        (regression(schedule="cosine"), "vectorised", ""),
    ],
)
def test_the_method_is_found_by_trying(task, name, reason):
    method = method_of(task, (0, 7))
    assert (method.name, reason in method.reason) == (name, True), method
    assert method.seeds_together == ("draws" not in method.reason)
    assert method.bytes_per_copy > 0


def test_a_rule_that_would_mix_copies_is_refused():
    with pytest.raises(wd.InputError, match="looks at more of the weight than one element"):
        method_of(task_of(rules={"rule": Shrinking}), (0, 7))


calls = []


def counting():
    calls.append(1)
    model = mlp()
    with torch.no_grad():
        model[0].bias += len(calls)
    return model


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + float(np.random.default_rng().normal())


def whole():
    model = mlp()
    model.register_parameter("count", nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False))
    return model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"make_model": counting}, "not deterministic under a fixed seed: its initialisation"),
        ({"make_model": lambda: Noisy(6, 3).to(DOUBLE)}, "not deterministic under a fixed seed: its output"),
        ({"make_model": whole}, "a parameter that is not float: count = int64"),
        ({"make_model": lambda: mlp().requires_grad_(False)}, "nothing to train"),
        ({"make_model": lambda: 3}, "make_model"),
        ({"make_model": lambda: mlp().float()}, "the model cannot be called with the data"),
        ({"loss": partial(F.cross_entropy, reduction="none")}, "one number for a batch: loss = shape (12,)"),
        ({"loss": lambda o, t: F.cross_entropy(o.detach(), t)}, "does not depend on the parameters"),
        ({"loss": lambda o: o}, "the loss cannot be computed"),
        ({"metrics": {"all": lambda o, t: o}}, "metrics['all']"),
        ({"optimizer": partial(optim.AdamW, weight_decay=0.1)}, "decays by itself"),
        ({"optimizer": partial(optim.SGD, lr=-1)}, "the optimizer cannot be made"),
        ({"schedule": "up"}, "no such schedule"),
        ({"schedule": [0.1, 0.2]}, "differ in length"),
        ({"schedule": lambda t: 0.1, "lrs": (0.1, 0.2)}, "step sizes of its own"),
        ({"schedule": lambda o: optim.lr_scheduler.OneCycleLR(o, 0.1, 20)}, "cycle_momentum=False"),
        ({"on": [wd.Group(name="*", scale=0)]}, "no parameter of the model decays"),
    ],
)
def test_what_cannot_be_trained_is_refused_before(options, message):
    calls.clear()
    with pytest.raises(InputError) as raised:
        method_of(task_of(**options), (0, 7))
    assert message in str(raised.value)


@pytest.mark.parametrize("rule", [wd.Decoupled, lambda s: wd.chain(wd.L2(s), wd.Decoupled(s))])
def test_a_strength_that_removes_whole_weights_is_refused(rule):
    task = task_of(rules={"rule": rule})
    with pytest.raises(InputError, match="removes the whole weight"):
        train_chunk(task, chunk_of((0.0, 1.0, 100.0)), TOGETHER)


def test_nothing_of_the_callers_is_changed():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    before = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    task = task_of(dropped, threads=1 + before[0] % 2)
    method = method_of(task, (0,))
    train_chunk(task, chunk_of(seeds=(0,)), method)
    assert (torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()) == before
    assert torch.equal(torch.rand(3), expected)


def test_strengths_come_to_numbers_where_they_do():
    task = task_of(schedule="constant")
    found = train_chunk(task, chunk_of((0.0, 20.0), unit="half_life_steps", seeds=(0,)), TOGETHER).trained
    assert found[1].weight_decay == pytest.approx((1 - 2 ** (-1 / 20)) / 1e-2)
    assert Recipes(task).of("rule", None).settings(chunk_of()).strong[1].weight_decay == 0.5


class Items(Dataset):
    def __init__(self, noise=0.0):
        self.noise = noise

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return torch.full((2,), float(i)) + self.noise * torch.rand(2), i % 2


X, Y = torch.arange(20.0).view(10, 2), torch.arange(10) % 2


@pytest.mark.parametrize(
    "given",
    [
        (X, Y),
        [X.numpy(), Y.tolist()],
        TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True),
        Data((X,), Y),
    ],
)
def test_data_are_taken_as_they_are(given):
    data = data_of(given, "train")
    assert torch.equal(data.inputs[0], X)
    assert torch.equal(data.target, Y)


def test_a_dataset_is_fetched_item_by_item():
    data = data_of(Items(), "train")
    assert torch.equal(data.inputs[0], torch.arange(10.0)[:, None].expand(10, 2))
    assert torch.equal(data.target, Y)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Items(noise=0.1), "differs when it is fetched again"),
        ((X,), "inputs and a target"),
        ((X, Y[:5]), "differ in length"),
        ((X[:0], Y[:0]), "no examples"),
        ((X / 0, Y), "not finite: train[0] = row 0"),
        (3, "example by example"),
        (
            DataLoader(TensorDataset(X, Y), sampler=WeightedRandomSampler([1.0] * 10, 10)),
            "a sampler of its own",
        ),
        (DataLoader(Items(), collate_fn=lambda items: {"x": 1}), "(input, target)"),
        ((["a", "b"], [0, 1]), "not numbers"),
    ],
)
def test_other_data_are_refused(given, message):
    with pytest.raises(InputError) as raised:
        data_of(given, "train")
    assert message in str(raised.value)


def test_a_plan_for_processes_is_made_by_the_work_and_the_memory(monkeypatch):
    """Not by a clock: the chunks decide on the bits."""
    memory, task = 2**35, task_of()
    monkeypatch.setattr(methods, "cores", lambda: 8)
    monkeypatch.setattr(methods, "available", lambda device: memory)
    much = Method("vectorised", Text("", ""), True, 100, methods._MUCH_WORK // (100 * task.steps))
    assert methods.processes_of(much, task, 101).tasks == 8
    assert methods.processes_of(much, task, 99) is None
    assert methods.processes_of(replace(much, name="one by one"), task, 101) is None
    assert methods.processes_of(much, replace(task, device=torch.device("cuda")), 101) is None
    memory = 2**30  # a process takes a third of it
    assert methods.processes_of(much, task, 101).tasks == 2
    monkeypatch.setattr(methods, "cores", lambda: 1)
    assert methods.processes_of(much, task, 101) is None


def test_work_counts_what_a_step_multiplies_and_moves():
    """Products forwards, twice as many backwards: 2 (6·8 + 8·3) for each of 12 rows."""
    method = method_of(task_of(), (0,))
    assert method.work == method.bytes_per_copy + 3 * 2 * 12 * (6 * 8 + 8 * 3)
