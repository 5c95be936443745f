"""The step sizes of a run, against torch's own schedulers really stepped."""

import copy
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as s

from weightdecay.errors import InputError
from weightdecay.schedule import lrs

STEPS = 40


def optimizer(kind=torch.optim.SGD, **options):
    parameters = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
    options = {"lr": 0.1, **({"momentum": 0.9} if kind is torch.optim.SGD else {}), **options}
    return kind([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.02}], **options)


def warm_then_cosine(o):
    warm = s.LinearLR(o, start_factor=0.1, total_iters=10)
    return s.SequentialLR(o, [warm, s.CosineAnnealingLR(o, T_max=30)], milestones=[10])


def chained(o):
    return s.ChainedScheduler([s.ConstantLR(o, factor=0.5, total_iters=7), s.ExponentialLR(o, gamma=0.9)])


def nested(o):
    inner = s.SequentialLR(o, [s.LinearLR(o, 0.1, total_iters=4), s.ExponentialLR(o, 0.9)], milestones=[4])
    return s.ChainedScheduler([inner, s.StepLR(o, 11)])


class Counting:
    """A callable with a state that a simulation on the original would spoil."""

    calls = 0

    def __call__(self, step):
        self.calls += 1
        return 1 / self.calls


class OwnScheduler(s.LRScheduler):
    def get_lr(self):
        return [lr / (1 + self.last_epoch) for lr in self.base_lrs]


SCHEDULERS = {
    "lambda": lambda o: s.LambdaLR(o, lambda t: 1 / (1 + t)),
    "lambda of each group": lambda o: s.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1 - t / 50]),
    "multiplicative": lambda o: s.MultiplicativeLR(o, lambda t: 0.95),
    "counting": lambda o: s.LambdaLR(o, Counting()),
    "step": lambda o: s.StepLR(o, 7),
    "multistep": lambda o: s.MultiStepLR(o, [3, 20]),
    "constant": s.ConstantLR,
    "linear": lambda o: s.LinearLR(o, 1.0, 0.0, STEPS),
    "exponential": lambda o: s.ExponentialLR(o, 0.9),
    "cosine": lambda o: s.CosineAnnealingLR(o, STEPS, eta_min=1e-3),
    "restarts": lambda o: s.CosineAnnealingWarmRestarts(o, T_0=8, T_mult=2),
    "polynomial": lambda o: s.PolynomialLR(o, STEPS, power=2),
    "one cycle": lambda o: s.OneCycleLR(o, max_lr=[0.4, 0.1], total_steps=STEPS),
    "cyclic": lambda o: s.CyclicLR(o, 0.01, 0.2, step_size_up=6, mode="triangular2"),
    "cyclic by a function": lambda o: s.CyclicLR(
        o, 0.01, 0.2, step_size_up=6, scale_fn=lambda x: 0.9**x, scale_mode="cycle"
    ),
    "sequence": warm_then_cosine,
    "chain": chained,
    "nested": nested,
    "averaging": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.05, anneal_epochs=10),
    "own": OwnScheduler,
}


def really_stepped(make, make_optimizer):
    o = make_optimizer()
    scheduler, seen = make(o), []
    for _ in range(STEPS):
        seen.append([float(group["lr"]) for group in o.param_groups])
        o.step()
        if len(seen) < STEPS:
            scheduler.step()
    return np.array(seen).T


def state(o):
    return copy.deepcopy([{k: v for k, v in g.items() if k != "params"} for g in o.param_groups])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_is_simulated_and_nothing_is_touched(name):
    make, o = SCHEDULERS[name], optimizer()
    expected = really_stepped(make, optimizer)
    scheduler = make(o)
    groups, counts = state(o), copy.deepcopy({k: v for k, v in vars(scheduler).items() if k == "last_epoch"})
    step, called = o.step, getattr(o, "_opt_called", None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = lrs(scheduler, STEPS)
    assert told == []
    np.testing.assert_array_equal(found, expected)
    assert state(o) == groups
    assert (o.step, getattr(o, "_opt_called", None)) == (step, called)
    assert all(vars(scheduler)[k] == v for k, v in counts.items())
    for _ in range(STEPS - 1):  # the original still does what it would have done
        o.step()
        scheduler.step()
    np.testing.assert_array_equal([g["lr"] for g in o.param_groups], expected[:, -1])


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_a_step_size_that_is_a_tensor(kind):
    def make_optimizer():
        return kind([torch.nn.Parameter(torch.ones(2))], lr=torch.tensor(0.1))

    o = make_optimizer()
    scheduler = s.CosineAnnealingLR(o, STEPS)
    found = lrs(scheduler, STEPS)
    np.testing.assert_array_equal(
        found, really_stepped(lambda o: s.CosineAnnealingLR(o, STEPS), make_optimizer)
    )
    assert float(o.param_groups[0]["lr"]) == pytest.approx(0.1)


def test_one_cycle_on_adam_moves_betas_of_the_copy_only():
    def make_optimizer():
        return optimizer(torch.optim.AdamW)

    o = make_optimizer()
    scheduler = SCHEDULERS["one cycle"](o)
    betas = o.param_groups[0]["betas"]
    np.testing.assert_array_equal(
        lrs(scheduler, STEPS), really_stepped(SCHEDULERS["one cycle"], make_optimizer)
    )
    assert o.param_groups[0]["betas"] == betas


def test_what_cannot_be_simulated_is_refused():
    with pytest.raises(InputError, match="depend on a metric"):
        lrs(s.ReduceLROnPlateau(optimizer()), 5)
    for make in (SCHEDULERS["cosine"], warm_then_cosine, chained, nested):
        o = optimizer()
        scheduler = make(o)
        o.step()
        scheduler.step()
        with pytest.raises(InputError, match="has been stepped"):
            lrs(scheduler, 5)
    with pytest.raises(InputError, match=f"past {STEPS + 1} steps: steps = {STEPS + 5}"):
        lrs(SCHEDULERS["one cycle"](optimizer()), STEPS + 5)
    with pytest.raises(InputError, match="how many steps"):
        lrs(SCHEDULERS["cosine"](optimizer()))


class Uncopyable:
    def __deepcopy__(self, memo):
        raise TypeError("holds a lock")

    def __call__(self, step):
        return 1.0


def test_a_scheduler_that_cannot_be_copied():
    with pytest.raises(InputError, match=r"cannot be copied: .*holds a lock"):
        lrs(s.LambdaLR(optimizer(), Uncopyable()), 5)


@pytest.mark.parametrize(
    ("name", "options", "scheduler"),
    [
        ("constant", {}, lambda o: s.ConstantLR(o, factor=1.0)),
        ("linear", {}, lambda o: s.LinearLR(o, 1.0, 0.0, STEPS)),
        ("linear", {"floor": 0.1}, lambda o: s.LinearLR(o, 1.0, 0.1, STEPS)),
        ("cosine", {}, lambda o: s.CosineAnnealingLR(o, STEPS)),
        (
            "wsd",
            {"warmup": 0.1, "decay": 0.25},
            lambda o: s.LambdaLR(o, lambda t: (t + 1) / 4 if t < 4 else min(1, (STEPS - t) / 10)),
        ),
    ],
)
def test_names_are_what_torch_does(name, options, scheduler):
    expected = really_stepped(scheduler, optimizer)
    found = lrs(name, STEPS, [0.1, 0.02], **options)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-17)


def test_mean_step_sizes():
    """Over the peak: linear 1/2, cosine (1 + f)/2, WSD 1 - a/2 - b/2; of squares: linear 1/3, cosine 3/8."""
    steps = 100_000
    for name, options, mean, square in (
        ("linear", {}, 1 / 2, 1 / 3),
        ("cosine", {}, 1 / 2, 3 / 8),
        ("cosine", {"floor": 0.2}, 0.6, None),
        ("wsd", {"warmup": 0.1, "decay": 0.3}, 0.8, None),
    ):
        found = lrs(name, steps, 1.0, **options)[0]
        assert found.mean() == pytest.approx(mean, abs=1e-4)
        assert square is None or (found**2).mean() == pytest.approx(square, abs=1e-4)


def test_numbers_and_functions():
    np.testing.assert_array_equal(lrs([0.1, 0.2]), [[0.1, 0.2]])
    np.testing.assert_array_equal(lrs(((1, 2, 3), (4, 5, 6)), 3), [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(lrs(torch.tensor([0.5, 0.25])), [[0.5, 0.25]])
    np.testing.assert_array_equal(lrs(lambda t: 0.5**t, 3), [[1, 0.5, 0.25]])
    np.testing.assert_array_equal(lrs(lambda t: torch.tensor(t + 1.0), 2), [[1, 2]])
    assert lrs(np.array([1, 2])).dtype == np.float64
    first, last = lrs("cosine", 10, 1.0, warmup=1.0)[0, [0, -1]]  # warmup is the whole run
    assert (first, last) == (0.1, 1.0)


@pytest.mark.parametrize(
    ("arguments", "options", "part"),
    [
        (("cosin", 5, 0.1), {}, "no such schedule: schedule = 'cosin'"),
        (("cosine", 5), {}, "needs its peak: lr = None"),
        (("cosine", None, 0.1), {}, "how many steps"),
        (("cosine", 0, 0.1), {}, "steps = 0"),
        (("cosine", 5, -0.1), {}, "lr = -0.1"),
        (("cosine", 5, [0.1, math.nan]), {}, r"lr\[1\] = nan"),
        (("cosine", 5, math.inf), {}, "lr = inf"),
        (("cosine", 5, 0.1), {"floor": 1.5}, "floor = 1.5"),
        (("wsd", 10, 0.1), {"warmup": 0.6, "decay": 0.6}, "warmup and decay overlap"),
        (("cosine", 10**12, 0.1), {}, "too large: steps"),
        (([0.1, 0.2], 3), {}, "differ in length: schedule = 2 numbers"),
        (([0.1, -0.2],), {}, r"schedule\[1\] = -0.2"),
        (([[0.1], [math.nan]],), {}, r"schedule\[1, 0\] = nan"),
        (([],), {}, "empty list"),
        ((["a"],), {}, "not a list of numbers"),
        (([[[0.1]]],), {}, "one row a group"),
        ((0.1, 5), {}, "one row a group"),
        ((None, 5), {}, "not a list of numbers"),
        (([0.1], 1, 0.1), {}, "lr is the peak of a schedule given by name"),
        (([0.1],), {"warmup": 0.1}, "shape a schedule given by name"),
        ((lambda t: -1, 3), {}, r"schedule\(0\) = -1"),
        ((lambda t: "x", 3), {}, r"schedule\(0\) = 'x'"),
        ((lambda: 1, 3), {}, "cannot be called with a step"),
    ],
)
def test_bad_input_is_named(arguments, options, part):
    with pytest.raises(InputError, match=part):
        lrs(*arguments, **options)


def test_torch_is_not_imported_for_names():
    code = (
        "import sys; from weightdecay.schedule import lrs, transfer; lrs('cosine', 3, .1); "
        "lrs(lambda t: t, 3); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
