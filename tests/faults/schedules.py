"""Schedules, half-lives, precision, wrappers: what was found wrong in them, re-enacted."""

import warnings
from functools import partial

import numpy as np
import torch
from tests.faults.rows import row
from torch import nn, optim
from torch.optim import lr_scheduler as s

import weightdecay as wd

LN2 = np.log(2)


def one_weight(kind=optim.SGD, value=1.0, **options):
    w = nn.Parameter(torch.full((3, 3), value, dtype=torch.float64))
    return w, kind([w], **{"lr": 0.1, "weight_decay": 0.0, **options})


def told(do):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        do()
    return [str(one.message) for one in found if issubclass(one.category, wd.WeightDecayWarning)]


BY_EPOCH = {
    "StepLR": lambda o: s.StepLR(o, 3, 0.1),
    "ExponentialLR": lambda o: s.ExponentialLR(o, 0.7),
    "cosine": lambda o: s.CosineAnnealingLR(o, T_max=9),
}


def half_lives_by_epoch(make, spe=100, epochs=9, **options):
    """Half-lives that happen in a loop whose scheduler is stepped once an epoch, one was asked."""
    w, o = one_weight()
    scheduler = make(o)
    wd.attach(
        o,
        wd.Decoupled(wd.HalfLives(1)),
        on="all",
        schedule=scheduler,
        steps=epochs * spe,
        steps_per_epoch=spe,
        **options,
    )
    for _ in range(epochs):
        for _ in range(spe):
            w.grad = torch.zeros_like(w)
            o.step()
        scheduler.step()
    return float(-w.detach()[0, 0].log() / LN2)


@row("2", "StepLR, ExponentialLR and cosine stepped once an epoch: half-lives that happen", "1, 1, 1")
def _by_epoch():
    found = [half_lives_by_epoch(make) for make in BY_EPOCH.values()]
    return ", ".join(f"{one:.4g}" for one in found), all(abs(one - 1) < 1e-9 for one in found)


@row("2", "audit of AdamW with StepLR by epoch: share of the weights left, where WD403 says .967", "no WD403")
def _audit_by_epoch():
    model = nn.Linear(3, 3, bias=False)
    o = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    found = wd.audit(model, o, schedule=s.StepLR(o, 3, 0.1), steps=900, steps_per_epoch=100)
    codes = [one.code for one in found.findings]
    return ", ".join(codes) or "no findings", "WD403" not in codes


@row("2", "a scheduler of unknown length that may go by steps or by epochs", "asked for interval=")
def _asks():
    try:
        half_lives_by_epoch(lambda o: s.LambdaLR(o, lambda e: min(1.0, (e + 1) / 5)))
    except wd.InputError as error:
        return str(error), error.where == "interval"
    return "nothing said", False


@row("4", "HalfLives(3) told 400 steps, trained for 500", "one warning, once")
def _goes_on():
    w, o = one_weight()
    wd.attach(o, wd.Decoupled(wd.HalfLives(3)), on="all", steps=400)

    def train():
        for _ in range(500):
            w.grad = torch.zeros_like(w)
            o.step()

    said = told(train)
    return "; ".join(said) or "nothing said", len(said) == 1 and "400 steps" in said[0]


@row("4", "lr ten times the schedule's peak under HalfLives", "one warning, once")
def _above():
    w, o = one_weight(optim.AdamW)
    wd.attach(o, wd.Decoupled(wd.HalfLives(1)), on="all", schedule=[0.1] * 400)

    def train():
        for _ in range(20):
            o.param_groups[0]["lr"] = 1.0
            w.grad = torch.zeros_like(w)
            o.step()

    said = told(train)
    return "; ".join(said) or "nothing said", len(said) == 1 and "0.1" in said[0]


@row("5", "decay of 3.1e-8 a step in float32: what is said of the 7.6e-8 that happen", "quantised, × 2.5")
def _quantised():
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(200, 200))
    o = optim.AdamW([w], lr=1e-4, weight_decay=0.0)
    said = told(lambda: wd.attach(o, wd.Decoupled(3.1e-4), on="all"))
    return "; ".join(said) or "nothing said", len(said) == 1 and "quantised" in said[0]


@row("6", "L2 of lr 1e-4, wd 1e-4 in SGD with momentum, float32: said to be lost", "nothing said")
def _coupled_is_not_lost():
    model = nn.Linear(3, 3, bias=False)
    o = optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    said = told(lambda: wd.attach(o, wd.L2(1e-4), model=model))
    codes = [one.code for one in wd.audit(model, o).findings]
    return "; ".join(said + codes) or "nothing said", not said and "WD402" not in codes


@row("14", "optimizer state loaded first, then the same rule attached", "the order is the remedy")
def _state_first():
    _, o = one_weight(optim.AdamW)
    wd.attach(o, wd.Decoupled(0.1), on="all")
    state = o.state_dict()
    _, again = one_weight(optim.AdamW)
    again.load_state_dict(state)
    try:
        wd.attach(again, wd.Decoupled(0.1), on="all")
    except wd.InputError as error:
        return str(error), "attach the rule first" in str(error)
    return "attached", True


class Wrapped(optim.Optimizer):
    """As Accelerate does it: a subclass whose own `__init__` never ran."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)

    def step(self, closure=None):
        self.optimizer.step(closure)


class WrappedScheduler:
    """As Accelerate does it: no scheduler of torch's."""

    def __init__(self, scheduler):
        self.scheduler = scheduler


@row("16", "attach and Monitor on an AcceleratedOptimizer, with its scheduler", "half-lives 1")
def _accelerated():
    w, o = one_weight()
    model = nn.ParameterList([w])
    scheduler, outer = s.CosineAnnealingLR(o, 40), Wrapped(o)
    rule = wd.Decoupled(wd.HalfLives(1))
    wd.attach(outer, rule, on="all", schedule=WrappedScheduler(scheduler), steps=40)
    with wd.Monitor(model, outer, every=20):
        for _ in range(40):
            w.grad = torch.zeros_like(w)
            outer.step()
            scheduler.step()
    found = float(-w.detach()[0, 0].log() / LN2)
    return f"{found:.4g}", abs(found - 1) < 1e-9


@row("16", "Toward(to=state_dict) and states of a model with a compiled layer inside", "the plain names")
def _compiled_inside():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    start = {key: value.clone() for key, value in model.state_dict().items()}
    model[0] = torch.compile(model[0])
    o = optim.SGD(model.parameters(), lr=0.1)
    names = list(wd.attach(o, wd.Toward(0.1, to=start), model=model).state_dict()["parameters"])
    return ", ".join(names), names == ["0.weight", "1.weight"]


@row("17", "adapters alone train: groups *lora_* and *", "the adapters decay")
def _adapters():
    model = nn.Sequential(nn.Linear(3, 3))
    model.requires_grad_(False)
    model.register_parameter("lora_A", nn.Parameter(torch.ones(2, 3)))
    groups = wd.param_groups(model, 0.1, [wd.Group(name="*lora_*"), wd.Group(name="*", scale=0)])
    found = [(group["name"], group["weight_decay"]) for group in groups]
    return str(found), found == [("*lora_*", 0.1)]


class RateOfConstruction(optim.Optimizer):
    """p *= 1 - wd·initial_lr, whatever lr is later."""

    def __init__(self, params, lr=0.1, weight_decay=0.0):
        self.initial_lr = lr
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["weight_decay"] * self.initial_lr).sub_(p.grad, alpha=group["lr"])


@row("12", "p *= 1 - wd·initial_lr under a schedule: the audit says decay falls with it", "independent of lr")
def _rate_of_construction():
    model = nn.Linear(3, 3, bias=False)
    o = RateOfConstruction(model.parameters(), lr=0.1, weight_decay=0.02)
    scheduler = s.CosineAnnealingLR(o, 1000)
    found = wd.audit(model, o, schedule=scheduler, steps=1000)
    one = found.parameters[0]
    said = f"{one.form}; {', '.join(f.code for f in found.findings)}"
    return said, one.form == "independent" and "WD305" in [f.code for f in found.findings]


@row("41", "weight_decay of a summed cross entropy, batch 512", "512 times as large")
def _summed():
    to = partial(wd.convert, 5e-4, "torch.SGD+mean_loss")
    try:
        found = to("torch.SGD+sum_loss", batch_size=512)
    except wd.InputError as error:
        return str(error), False
    return f"{found:g}", found == 5e-4 * 512
