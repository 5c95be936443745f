"""Faults of attach: decay that does not happen, and assignments with two outcomes."""

import copy
import pickle
import warnings

import torch
from tests.faults.rows import row
from torch import nn, optim

import weightdecay as wd

RATE = 0.05


def _left(optimizer, w, rule, way="closure", steps=20):
    """What steps without gradient leave of a weight, and how many were counted; or the refusal."""
    start = float(w.detach().norm())
    try:
        decay = wd.attach(optimizer, rule, on="all")
    except wd.InputError as error:
        return None, str(error)

    def closure():
        w.grad = torch.zeros_like(w)
        return torch.tensor(0.0)

    for _ in range(steps):
        closure()
        if way == "phases":
            optimizer.first_step(zero_grad=True)
            closure()
            optimizer.second_step(zero_grad=True)
        else:
            optimizer.step(closure) if way == "closure" else optimizer.step()
    return float(w.detach().norm()) / start, f"{decay.steps} steps counted"


def _weight():
    return nn.Parameter(torch.linspace(0.2, 0.9, 12).view(4, 3))


class _Sharp(optim.Optimizer):
    """Perturb, call the closure, restore the weights, step by SGD."""

    def __init__(self, params, base=optim.SGD, **options):
        super().__init__(params, options)
        self.base = base(self.param_groups, **options)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self, zero_grad=False):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.clone()
                p.add_(0.05 * p.grad)
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad=False):
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(self.state[p]["old"])
        self.base.step()
        if zero_grad:
            self.zero_grad()

    def step(self, closure=None):
        self.first_step(zero_grad=True)
        with torch.enable_grad():
            closure()
        self.second_step()


@row("1", "sharpness-aware, a closure: Decoupled, Huber, Cautious", ".358 of the weights, 20 steps")
def sharp_with_a_closure():
    rules = wd.Decoupled(RATE / 0.1), wd.Huber(RATE / 0.1, delta=1.0), wd.Cautious(RATE / 0.1)
    found = []
    for rule in rules:
        w = _weight()
        found.append(_left(_Sharp([w], lr=0.1), w, rule))
    right = all(left and abs(left / 0.95**20 - 1) < 0.02 and "20 steps" in said for left, said in found)
    return f"{found}", right


@row("1", "sharpness-aware, driven by its two phases", ".358 of the weights, 20 steps")
def sharp_in_two_phases():
    w = _weight()
    left, said = _left(_Sharp([w], lr=0.1), w, wd.Decoupled(RATE / 0.1), "phases")
    return f"{left}, {said}", bool(left) and abs(left / 0.95**20 - 1) < 0.02 and "20 steps" in said


@row(
    "1",
    "weights rebuilt from state (FTRL, DAdapt, Nero, MADGRAD, SRMM), blended (Ranger, schedule-free)",
    "refused",
)
def rebuilt():
    import pytorch_optimizer as po

    names = "FTRL DAdaptAdaGrad DAdaptSGD Nero MADGRAD SRMM Ranger ScheduleFreeSGD ScheduleFreeAdamW"
    silent = []
    for name in names.split():
        w = _weight()
        left, said = _left(getattr(po, name)([w], lr=0.1), w, wd.Decoupled(RATE / 0.1), "plain", 1)
        if left is not None or "survive" not in said:
            silent.append(name)
    return f"silent: {silent}", not silent


def _made(kind, count=1):
    ws = [nn.Parameter(torch.ones(3, 2)) for _ in range(count)]
    for w in ws:
        w.grad = torch.zeros_like(w)
    optimizer = kind([(f"w{i}", w) for i, w in enumerate(ws)], lr=0.1, weight_decay=0)
    return ws, optimizer, wd.attach(optimizer, wd.Decoupled(0.5))


# Lowered to the optimizer's own decay, and by hooks.
_BOTH = optim.AdamW, optim.SGD


@row("3", 'group["weight_decay"] = 0.3 after attach, lowered and hooked', "refused in both")
def assigned():
    found = []
    for kind in _BOTH:
        _, optimizer, _ = _made(kind)
        optimizer.param_groups[0]["weight_decay"] = 0.3
        try:
            optimizer.step()
            found.append(f"undone: {optimizer.param_groups[0]['weight_decay']}")
        except wd.InputError:
            found.append("refused")
    return f"{found}", found == ["refused"] * 2


@row("3", "frozen, with a gradient left, lowered and hooked", "1.0 in both")
def frozen():
    found = []
    for kind in _BOTH:
        ws, optimizer, _ = _made(kind, 2)
        ws[0].requires_grad_(False)
        optimizer.step()
        found.append(round(float(ws[0][0, 0]), 6))
    return f"{found}", found == [1.0, 1.0]


@row("3", "a copied or pickled optimizer, lowered and hooked", "no decay, and a warning, in all")
def copied():
    found = []
    for kind in _BOTH:
        for copying in (copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))):
            _, optimizer, _ = _made(kind)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                twin = copying(optimizer)
            w = twin.param_groups[0]["params"][0]
            w.grad = torch.zeros_like(w)
            twin.step()
            found.append((round(float(w.detach()[0, 0]), 6), len(said)))
    return f"{found}", found == [(1.0, 1)] * 4


@row("17", "one parameter in two attached optimizers", "told")
def in_two():
    w = nn.Parameter(torch.ones(3, 2))
    first, second = optim.SGD([("w", w)], lr=0.1), optim.SGD([("w", w)], lr=0.1)
    kept = wd.attach(first, wd.Decoupled(0.5))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        wd.attach(second, wd.Decoupled(0.5))
        w.grad = torch.zeros_like(w)
        for optimizer in (first, second):
            optimizer.step()
    kept.detach()
    return f"{[str(one.message)[:60] for one in said]}", any(
        "decays twice" in str(one.message) for one in said
    )


@row(
    "36",
    "of hooks: an optimizer whose step was replaced is lowered, a function that may know no weight_decay",
    "refused",
)
def replaced():
    w = nn.Parameter(torch.ones(3, 2))
    w.grad = torch.zeros_like(w)
    optimizer = optim.AdamW([w], lr=0.1, weight_decay=0)
    optimizer.step = lambda closure=None: w.data.sub_(0.1 * w.grad)
    try:
        decay = wd.attach(optimizer, wd.Decoupled(0.5))
    except wd.InputError as error:
        return f"{error}", "survive" in str(error)
    for _ in range(20):
        optimizer.step()
    return f"{float(w.detach()[0, 0])} left, {decay.steps} steps counted", False
