"""Decay that would not survive the step is done after it, or refused; nothing is lost without a word."""

import copy

import numpy as np
import pytest
import torch
from tests.hooks.homemade import HOMEMADE, Ascending, Looking, Masters, Phases, Plain, Restoring
from torch import nn, optim
from torch.optim.optimizer import register_optimizer_step_post_hook

import weightdecay as wd
from weightdecay.hooks.trial import NoTwin, Twin

LR, RATE = 0.1, 0.02
WORKING = sorted(name for name, (_, where) in HOMEMADE.items() if where in ("before", "after"))
RULES = {
    "Decoupled": wd.Decoupled(RATE / LR),
    "Huber": wd.Huber(RATE / LR, delta=0.5),
    "Cautious": wd.Cautious(RATE / LR),
    "Toward": wd.Toward(RATE / LR, to={"w": torch.zeros(5, 4)}),
}


def weight(seed=0, shape=(5, 4)):
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64) + 0.2)


def drive(optimizer, w, steps, way, gradient=None):
    """Steps in one of the ways, with the gradient that a function of the weights gives; 0 without one."""
    gradient = gradient or torch.zeros_like

    def closure():
        w.grad = gradient(w.detach())
        return torch.tensor(1.0)

    for _ in range(steps):
        closure()
        if way == "phases":
            optimizer.first_step(zero_grad=True)
            closure()
            optimizer.second_step(zero_grad=True)
        elif way == "own phases":
            optimizer.ascend()
            closure()
            optimizer.descend()
        elif way == "loss":
            optimizer.step(torch.tensor(1.0))
        else:
            optimizer.step(closure) if way == "closure" else optimizer.step()


def ways(name):
    own = {
        "restoring": ["closure"],
        "phases": ["closure", "phases"],
        "wanting": ["loss"],
        "gathering": ["plain"],
    }
    return ["closure", "own phases"] if name.startswith("ascending") else own.get(name, ["plain", "closure"])


def shrunk(w, rule, steps):
    """A plain loop."""
    bound = 0.5 if isinstance(rule, wd.Huber) else float("inf")
    for _ in range(steps):
        w = w - RATE * w.clamp(-bound, bound)
    return w


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "way"), [(name, way) for name in WORKING for way in ways(name)])
def test_all_of_the_decay_is_kept(name, way, rule):
    w = weight()
    start = w.detach().clone()
    optimizer = HOMEMADE[name][0]([("w", w)])
    decay = wd.attach(optimizer, RULES[rule], on="all")
    for steps in (20, 200):
        drive(optimizer, w, steps - decay.steps, way)
        assert decay.late == (HOMEMADE[name][1] == "after")
        assert decay.steps == steps
        torch.testing.assert_close(w.detach(), shrunk(start, RULES[rule], steps), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(HOMEMADE) - set(WORKING)))
def test_refused_and_nothing_is_changed(name):
    w = weight()
    before = w.detach().clone()
    optimizer = HOMEMADE[name][0]([("w", w)])
    with pytest.raises(wd.InputError, match=f"does not survive the step.*{HOMEMADE[name][1]}"):
        wd.attach(optimizer, wd.Decoupled(RATE / LR), on="all")
    assert torch.equal(w, before)
    assert w.grad is None
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer.state


@pytest.mark.parametrize("way", ["closure", "phases"])
def test_late_decay_is_that_of_the_equation(way):
    """w <- w - lr g(w + e) - rate w: the weights are those of before the step, not the perturbed ones."""
    center = weight(1).detach()
    w = weight()
    optimizer = Phases([("w", w)], rho=0.5)
    wd.attach(optimizer, wd.Decoupled(RATE / LR), on="all")
    plain = w.detach().clone()
    for _ in range(10):
        gradient = plain - center
        perturbed = plain + 0.5 * gradient / (gradient.norm() + 1e-12)
        plain = plain - LR * (perturbed - center) - RATE * plain
    drive(optimizer, w, 10, way, lambda w: w - center)
    torch.testing.assert_close(w.detach(), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", ["closure", "phases"])
def test_l2_is_in_the_second_gradient(way):
    center, w = weight(1).detach(), weight()
    optimizer = Phases([("w", w)], rho=0.0)
    decay = wd.attach(optimizer, wd.L2(RATE / LR), on="all")
    plain = w.detach().clone()
    for _ in range(10):
        plain = plain - LR * (plain - center + RATE / LR * plain)
    drive(optimizer, w, 10, way, lambda w: w - center)
    assert decay.steps == 10
    torch.testing.assert_close(w.detach(), plain, rtol=1e-12, atol=1e-12)


def test_stochastic_rounding_happens_late_too():
    w = nn.Parameter(weight().detach().bfloat16())
    optimizer = Phases([("w", w)])
    decay = wd.attach(optimizer, wd.Decoupled(1e-3 / LR), on="all", rounding="stochastic")
    start = w.detach().float().norm()
    drive(optimizer, w, 200, "closure")
    assert decay.happened().ratio == pytest.approx(1, abs=0.3)
    assert w.detach().float().norm() / start == pytest.approx(0.999**200, abs=0.05)


def test_detach_ends_both_phases():
    w = weight()
    optimizer = Phases([("w", w)])
    decay = wd.attach(optimizer, wd.Decoupled(0.1), on="all")
    decay.detach()
    before = w.detach().clone()
    drive(optimizer, w, 3, "phases")
    assert torch.equal(w, before)
    assert "first_step" not in vars(optimizer)


def test_print_says_where_it_decays():
    w = weight()
    assert "hooks after step" in str(wd.attach(Phases([("w", w)]), wd.Decoupled(0.1), on="all"))


def test_the_optimizer_inside_is_not_attached_to_again():
    w = weight()
    optimizer = Ascending([w])
    wd.attach(optimizer, wd.Decoupled(0.1), on="all")
    with pytest.raises(wd.InputError, match="a second decay on top"):
        wd.attach(optimizer.base, wd.Decoupled(0.1), on="all")


def test_nothing_outside_is_touched():
    """Random numbers, the class, the state in the middle of a training, hooks of others."""
    w, calls = weight(), []
    optimizer = Plain([("w", w)])
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    handle = register_optimizer_step_post_hook(lambda *_: calls.append(2))
    w.grad = torch.ones_like(w)
    kept = copy.deepcopy(optimizer.state_dict()), dict(vars(Plain)), w.detach().clone(), w.grad
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    wd.attach(optimizer, wd.Decoupled(0.1), on="all")
    handle.remove()
    assert not calls
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert (optimizer.state_dict(), dict(vars(Plain))) == kept[:2]
    assert torch.equal(w, kept[2])
    assert w.grad is kept[3]


def test_a_step_patched_on_the_instance_is_tried_too():
    """A function in place of `step` runs no hook: refused, not silent."""
    w = weight()
    optimizer = optim.SGD([("w", w)], lr=LR)
    optimizer.step = lambda closure=None: w.data.sub_(LR * w.grad)
    with pytest.raises(wd.InputError, match="does not survive"):
        wd.attach(optimizer, wd.Decoupled(0.1), on="all")


def test_schedulers_wrap_the_step_and_nothing_is_tried():
    w = weight()
    optimizer = Plain([("w", w)])
    optim.lr_scheduler.StepLR(optimizer, 10)
    before = w.detach().clone()
    decay = wd.attach(optimizer, wd.Decoupled(RATE / LR), on="all")
    assert torch.equal(w, before)
    drive(optimizer, w, 20, "plain")
    torch.testing.assert_close(w.detach(), shrunk(before, RULES["Decoupled"], 20), rtol=1e-9, atol=0)
    assert decay.steps == 20


def test_many_parameters_are_represented():
    ws = [weight(i, (6, 3) if i % 2 else (7,)) for i in range(40)]
    with pytest.raises(wd.InputError, match="blends"):
        wd.attach(Looking(ws), wd.Decoupled(0.1), on="all")
    with pytest.raises(wd.InputError, match="puts back"):
        wd.attach(Masters(ws), wd.Decoupled(0.1), on="all")
    assert not wd.attach(Plain(ws), wd.Decoupled(0.1), on="all").late


def test_zeros_and_16_bits_can_be_tried():
    for made in (torch.zeros(4, 4), torch.randn(4, 4).bfloat16(), torch.full((4, 4), 1e-6)):
        w = nn.Parameter(made)
        with pytest.raises(wd.InputError, match="blends"):
            wd.attach(Looking([w]), wd.Decoupled(0.1), on="all", rounding="stochastic")


class Locked(Plain):
    def __init__(self, params):
        import threading

        super().__init__(params)
        self.lock = threading.Lock()


def test_what_cannot_be_tried_is_said():
    with pytest.warns(wd.WeightDecayWarning, match="could not be tried .it holds a lock"):
        wd.attach(Locked([weight()]), wd.Decoupled(0.1), on="all")
    with pytest.raises(NoTwin):
        Twin(Locked([weight()]), 4)


class Counting(Restoring):
    made = 0

    def __init__(self, params):
        super().__init__(params)
        type(self).made += 1


def test_no_constructor_runs():
    wd.attach(Counting([weight()]), wd.Decoupled(0.1), on="all")
    assert Counting.made == 1


def test_two_rules_on_an_optimizer_of_two_phases():
    """Each on a weight of its own; one is detached, the other goes on."""
    first, second = weight(0), weight(1)
    start = second.detach().clone()
    optimizer = Phases([("first", first), ("second", second)])
    one = wd.attach(
        optimizer, wd.Decoupled(RATE / LR), on=[wd.Group(name="first"), wd.Group(name="*", scale=0)]
    )
    other = wd.attach(
        optimizer, wd.Decoupled(RATE / LR), on=[wd.Group(name="second"), wd.Group(name="*", scale=0)]
    )
    for detach in (lambda: None, one.detach, other.detach):
        detach()
        for w in (first, second):
            w.grad = torch.zeros_like(w)
        optimizer.first_step()
        optimizer.second_step()
        if other._handles:
            with pytest.warns(wd.WeightDecayWarning, match="does not decay by"):
                copy.deepcopy(optimizer)
    torch.testing.assert_close(second.detach(), start * (1 - RATE) ** 2, rtol=1e-12, atol=0)
    assert (one.steps, other.steps) == (1, 2)
