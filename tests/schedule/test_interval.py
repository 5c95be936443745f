"""Schedulers stepped once a step or once an epoch, against loops that really step them."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as s

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.schedule import lrs
from weightdecay.schedule.learning_rates import described_lrs
from weightdecay.schedule.lifetimes import lifetime

EPOCHS, PER = 9, 20


def optimizer(**options):
    parameters = [nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2)]
    options = {"lr": 0.1, "momentum": 0.9, **options}
    return torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.02}], **options)


def warm_then_cosine(o):
    warm = s.LinearLR(o, 0.1, total_iters=2)
    return s.SequentialLR(o, [warm, s.CosineAnnealingLR(o, EPOCHS - 2)], milestones=[2])


SCHEDULERS = {
    "step": lambda o: s.StepLR(o, 3),
    "multistep": lambda o: s.MultiStepLR(o, [3, 6], gamma=0.5),
    "exponential": lambda o: s.ExponentialLR(o, 0.7),
    "cosine": lambda o: s.CosineAnnealingLR(o, EPOCHS),
    "restarts": lambda o: s.CosineAnnealingWarmRestarts(o, 2, T_mult=2),
    "linear": lambda o: s.LinearLR(o, 1.0, 0.01, EPOCHS),
    "warmup": lambda o: s.LinearLR(o, 0.1, 1.0, 4),
    "constant": lambda o: s.ConstantLR(o, 0.2, 4),
    "polynomial": lambda o: s.PolynomialLR(o, EPOCHS, power=2),
    "lambda": lambda o: s.LambdaLR(o, [lambda e: 0.8**e, lambda e: 1 - e / EPOCHS]),
    "multiplicative": lambda o: s.MultiplicativeLR(o, lambda e: 0.8),
    "sequence": warm_then_cosine,
    "chain": lambda o: s.ChainedScheduler([s.ConstantLR(o, 0.5, 4), s.ExponentialLR(o, 0.7)]),
    "one cycle": lambda o: s.OneCycleLR(o, [0.4, 0.1], total_steps=EPOCHS),
    "cyclic": lambda o: s.CyclicLR(o, 0.01, 0.2, step_size_up=3),
}


def loop(make, every, steps=EPOCHS * PER):
    """The lr of a plain loop that steps the scheduler after every so many optimizer steps."""
    o = optimizer()
    scheduler, seen = make(o), []
    for t in range(steps):
        seen.append([group["lr"] for group in o.param_groups])
        o.step()
        if (t + 1) % every == 0 and t + 1 < steps:
            scheduler.step()
    return np.array(seen).T


def everything(o, scheduler):
    groups = [{k: v for k, v in group.items() if k != "params"} for group in o.param_groups]
    return repr((groups, {k: v for k, v in scheduler.state_dict().items() if k != "_schedulers"}))


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("every", [PER, 7])
def test_by_epochs_and_by_numbers_of_steps(name, every):
    make, o = SCHEDULERS[name], optimizer()
    steps = EPOCHS * every
    scheduler = make(o)
    before = everything(o, scheduler)
    options = {"interval": "epoch", "steps_per_epoch": PER} if every == PER else {"interval": every}
    np.testing.assert_array_equal(lrs(scheduler, steps, **options), loop(make, every, steps))
    assert everything(o, scheduler) == before


@pytest.mark.parametrize("period", [200, 50, 100])
def test_a_cosine_by_epochs_is_found_where_both_readings_have_one_mean(period):
    """Going down and up once an epoch or once a step, a cosine of an even period has the same mean."""
    scheduler = s.CosineAnnealingLR(optimizer(), period)
    assert "stepped once an epoch of 40 steps" in described_lrs(scheduler, 200 * 40, steps_per_epoch=40)[1]


ASKED = ("restarts", "warmup", "constant")  # both readings are possible, and differ


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name not in (*ASKED, "cyclic")])
def test_epochs_are_found(name):
    found, told = described_lrs(SCHEDULERS[name](optimizer()), EPOCHS * PER, steps_per_epoch=PER)
    np.testing.assert_array_equal(found, loop(SCHEDULERS[name], PER))
    assert f"stepped once an epoch of {PER} steps" in told


@pytest.mark.parametrize("name", ASKED)
def test_what_cannot_be_known_is_asked(name):
    with pytest.raises(InputError, match=r"stepped once a step or once an epoch of 20 steps\?") as error:
        lrs(SCHEDULERS[name](optimizer()), EPOCHS * PER, steps_per_epoch=PER)
    assert error.value.where == "interval"


BY_STEP = {
    "step": lambda o: s.StepLR(o, 60),
    "multistep": lambda o: s.MultiStepLR(o, [60, 120]),
    "cosine": lambda o: s.CosineAnnealingLR(o, EPOCHS * PER),
    "linear": lambda o: s.LinearLR(o, 1.0, 0.0, EPOCHS * PER),
    "warmup": lambda o: s.LinearLR(o, 0.1, 1.0, 30),
    "one cycle": lambda o: s.OneCycleLR(o, 0.4, total_steps=EPOCHS * PER),
    "cyclic": lambda o: s.CyclicLR(o, 0.01, 0.2, step_size_up=10),
    "restarts": lambda o: s.CosineAnnealingWarmRestarts(o, 60),
    "transformers": lambda o: s.LambdaLR(o, lambda t: min((t + 1) / 10, 1 - t / (EPOCHS * PER))),
    "wsd": lambda o: s.LambdaLR(o, lambda t: min((t + 1) / 10, 1, (EPOCHS * PER - t) / 40)),
    "inverse root": lambda o: s.LambdaLR(o, lambda t: min((t + 1) / 30, (30 / (t + 1)) ** 0.5)),
}


@pytest.mark.parametrize("name", BY_STEP)
@pytest.mark.parametrize("per", [PER, None])
def test_steps_are_found(name, per):
    found, told = described_lrs(BY_STEP[name](optimizer()), EPOCHS * PER, steps_per_epoch=per)
    np.testing.assert_array_equal(found, loop(BY_STEP[name], 1))
    assert "stepped once a step" in told


@pytest.mark.parametrize("name", ["step", "exponential", "cosine", "polynomial", "sequence", "lambda"])
def test_a_schedule_that_would_be_over_at_once_is_asked_about(name):
    """Without the length of an epoch nothing can be found, but this much can be seen."""
    with pytest.raises(InputError, match=r"give interval=.*steps_per_epoch"):
        lrs(SCHEDULERS[name](optimizer()), 900)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_half_lives_happen(name, kind):
    """Zero gradients: 2^-H of the weights is left by a loop that steps the scheduler once an epoch."""
    w = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    o = kind([w], lr=0.1, weight_decay=0.0, **options)
    of_one_group = {
        "lambda": lambda o: s.LambdaLR(o, lambda e: 0.8**e),
        "one cycle": lambda o: s.OneCycleLR(o, 0.4, total_steps=EPOCHS),
    }
    scheduler = {**SCHEDULERS, **of_one_group}[name](o)
    rule, known = wd.Decoupled(wd.HalfLives(2)), {"steps": EPOCHS * PER, "steps_per_epoch": PER}
    decay = wd.attach(o, rule, on="all", schedule=scheduler, interval="epoch", **known)
    assert f"stepped once an epoch of {PER} steps" in str(decay)
    for epoch in range(EPOCHS):
        for _ in range(PER):
            w.grad = torch.zeros_like(w)
            o.step()
        if epoch + 1 < EPOCHS:
            scheduler.step()
    assert w.detach().mean().item() == pytest.approx(0.25, rel=1e-12)


def test_an_audit_says_what_is_left_and_how_the_schedule_goes():
    model = nn.Linear(3, 3, bias=False)
    o = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.02)
    run = {"steps": 900, "steps_per_epoch": 100}
    by_epoch = wd.audit(model, o, schedule=s.StepLR(o, 3), **run)
    assert "schedule: StepLR, stepped once an epoch of 100 steps" in str(by_epoch)
    assert "WD403" not in [one.code for one in by_epoch.findings]  # .549·.943·.994 is left
    by_step = wd.audit(model, o, schedule=s.StepLR(o, 3), interval="step", **run)
    (one,) = [one for one in by_step.findings if one.code == "WD403"]
    assert f"leaves {math.prod(1 - 0.002 * 0.1 ** (t // 3) for t in range(900)):.3g}" in one.message
    mapping = {"scheduler": s.StepLR(o, 3), "interval": "epoch", "frequency": 2}
    assert "once in 200 steps" in str(wd.audit(model, o, schedule=mapping, **run))


def test_names_numbers_and_functions_by_epoch():
    every = {"interval": "epoch", "steps_per_epoch": 3}
    np.testing.assert_array_equal(lrs([0.3, 0.1], **every), [[0.3] * 3 + [0.1] * 3])
    np.testing.assert_array_equal(lrs([0.3, 0.1], 4, **every), [[0.3] * 3 + [0.1]])
    np.testing.assert_array_equal(lrs(lambda e: 0.5**e, 5, **every), [[1, 1, 1, 0.5, 0.5]])
    np.testing.assert_allclose(lrs("cosine", 9, 1.0, **every)[0], np.repeat([1, 0.75, 0.25], 3), rtol=1e-12)
    half = lrs(lambda e: float(e), 5, interval="epoch", steps_per_epoch=2.5)  # steps 3 to 5 begin epoch 1
    np.testing.assert_array_equal(half, [[0, 0, 0, 1, 1]])
    life = lifetime(0.1, lr=0.1, schedule="linear", steps=12, interval="epoch", steps_per_epoch=4)
    assert life.retention == pytest.approx(math.prod(1 - 0.01 * (1 - e / 3) for e in range(3)) ** 4 / 1)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"interval": "epoch"}, "needs the length of an epoch: steps_per_epoch = None"),
        ({"interval": "epochs"}, "no such interval: interval = 'epochs'"),
        ({"interval": 0.5}, "interval = 0.5"),
        ({"interval": "epoch", "steps_per_epoch": 0}, "steps_per_epoch = 0"),
    ],
)
def test_bad_intervals(options, part):
    with pytest.raises(InputError, match=part):
        lrs(lambda t: 1.0, 10, **options)
    with pytest.raises(InputError, match="an interval without a schedule"):
        wd.attach(optimizer(), wd.Decoupled(0.1), interval="epoch")


def test_a_transfer_by_epochs_is_that_of_the_numbers():
    run = {"batch_size": 10, "steps": 36, "examples": 39}  # 4 steps an epoch, the last a small one
    old = wd.Setup(schedule=s.MultiStepLR(optimizer_of_one(), [3, 6], gamma=0.5), **run)
    numbers = np.repeat(0.1 * 0.5 ** (np.arange(9) // 3), 4)
    new = wd.Setup(10, lr=0.1, steps=50)
    assert wd.transfer(0.1, old, new) == wd.transfer(0.1, wd.Setup(10, schedule=numbers, examples=39), new)
    with pytest.raises(InputError, match=r"Setup\.examples = None"):
        wd.Setup(10, lr=0.1, steps=36, schedule="cosine", interval="epoch").lrs()


def optimizer_of_one():
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


def counted():
    calls = 0

    def factor(_):
        nonlocal calls
        calls += 1
        return 1 / calls

    return factor


def popping():
    left = [1 / (1 + t) for t in range(100)]
    return lambda _: left.pop(0)


def remembering(_, calls=[0]):  # noqa: B006  (that it is kept between calls is what is tested)
    calls[0] += 1
    return 1 / calls[0]


def iterating():
    values = iter([1 / (1 + t) for t in range(100)])
    return lambda _: next(values)


@pytest.mark.parametrize("make", [counted, popping, lambda: remembering, iterating])
def test_a_function_that_keeps_count_is_not_advanced(make):
    scheduler = s.LambdaLR(optimizer_of_one(), make())  # calls it once
    expected = [0.1 / (1 + t) for t in range(10)]
    for _ in range(2):
        np.testing.assert_allclose(lrs(scheduler, 10), [expected], rtol=1e-12)
    remembering.__defaults__[0][0] = 0


def test_a_generator_cannot_be_copied():
    values = (1 / (1 + t) for t in range(100))
    scheduler = s.LambdaLR(optimizer_of_one(), lambda _: next(values))
    with pytest.raises(InputError, match="cannot be copied"):
        lrs(scheduler, 10)
