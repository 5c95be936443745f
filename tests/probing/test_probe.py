"""The probe of a class: forms with a known answer, numbers, findings, and that nothing outside changes."""

import subprocess
import sys

import pytest
import torch
from tests.probing.probe_optimizers import Form, Hidden, Raising, Stuck
from torch import optim

import weightdecay.rules as rules
from weightdecay.errors import FindingsError, InputError
from weightdecay.hooks import attach
from weightdecay.probing.run import probe
from weightdecay.units import coupled_rate


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("decoupled", "decoupled"),
        ("independent", "independent"),
        ("cautious", "cautious"),
        ("scaled", "scaled"),
        ("squared", "scaled"),
        ("half", "scaled"),
        ("none", "none"),
    ],
)
def test_forms_with_a_known_answer(form, expected):
    assert probe(Form, form=form).form == expected


@pytest.mark.parametrize("lr", [1e-5, 0.3])
@pytest.mark.parametrize("weight_decay", [1e-4, 1.0])
@pytest.mark.parametrize(
    ("kind", "form"),
    [(optim.AdamW, "decoupled"), (optim.SGD, "coupled"), (optim.Adam, "sign-normalised")],
)
def test_the_form_does_not_depend_on_the_numbers(kind, form, lr, weight_decay):
    assert probe(kind, lr=lr, weight_decay=weight_decay).form == form


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("form", ["decoupled", "independent", "cautious"])
def test_in_either_type(dtype, form):
    assert probe(Form, form=form, dtype=dtype).form == form


def test_rate_of_decoupled_and_independent():
    assert probe(optim.AdamW, lr=1e-3, weight_decay=0.1).rate == pytest.approx(1e-4, rel=1e-9)
    assert probe(Form, lr=1e-3, weight_decay=0.1, form="independent").rate == pytest.approx(0.1, rel=1e-9)


def test_rate_of_sgd_with_momentum_is_the_coupled_rate():
    found = probe(optim.SGD, lr=0.01, weight_decay=1e-3, momentum=0.9)
    assert found.rate == pytest.approx(coupled_rate(1e-3, 0.01, momentum=0.9), rel=1e-2)
    assert found.expected == pytest.approx(1e-5)


def test_adam_with_l2_shrinks_alike_whatever_the_strength():
    rates = [probe(optim.Adam, weight_decay=strength).rate for strength in (0.01, 1.0)]
    assert rates[0] == pytest.approx(rates[1], rel=0.05)


def test_attached_rules():
    def cautious(params, lr, weight_decay):
        optimizer = optim.AdamW(params, lr=lr, weight_decay=0.0)
        attach(optimizer, rules.Cautious(weight_decay), on="all")
        return optimizer

    assert probe(cautious).form == "cautious"


def test_a_strength_in_an_attribute_is_seen():
    assert probe(Hidden).form == "decoupled"


def test_no_effect_is_an_error():
    found = probe(Form, form="none")
    assert [(f.code, f.severity) for f in found.findings] == [("WD304", "error")]
    assert found.rate == 0
    with pytest.raises(FindingsError, match="WD304"):
        found.check()


def test_no_strength_is_no_error():
    found = probe(Form, form="none", weight_decay=0.0)
    assert found.findings == ()
    assert probe(optim.AdamW, weight_decay=0.0).form == "decoupled"
    assert probe(optim.AdamW, weight_decay=0.0).rate == 0


def test_an_optimizer_that_does_not_move():
    found = probe(Stuck)
    assert (found.form, found.moved, found.gradient_moved) == ("unknown", False, False)
    assert "did not move" in str(found)
    with pytest.raises(FindingsError):
        found.check()


def test_coupled_in_an_adaptive_optimizer_is_a_warning():
    assert [(f.code, f.severity) for f in probe(optim.Adam).findings] == [("WD301", "warning")]


def needs_more(params, rank, lr=1e-3, weight_decay=0.0):
    raise AssertionError("not called")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Raising, "a key of its own"),
        (needs_more, "rank="),
        (optim.SparseAdam, "weight_decay"),
        (lambda params, lr, weight_decay: 3, "int"),
        (lambda: None, ""),
    ],
)
def test_what_cannot_be_probed_is_unknown_with_the_reason(make, reason):
    found = probe(make)
    assert found.form == "unknown"
    assert reason in found.why
    assert [(f.code, f.severity) for f in found.findings] == [("WD305", "info")]
    found.check()


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"optimizer": 3}, "optimizer"),
        ({"optimizer": optim.SGD([torch.zeros(1)])}, "optimizer"),
        ({"optimizer": optim.SGD, "lr": 0.0}, "lr"),
        ({"optimizer": optim.SGD, "lr": float("nan")}, "lr"),
        ({"optimizer": optim.SGD, "weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_bad_input(arguments, where):
    with pytest.raises(InputError, match=where):
        probe(**arguments)


UNTOUCHED = """
import random, numpy, torch
from weightdecay.probing.run import probe
class Noisy(torch.optim.SGD):
    def step(self, closure=None):
        torch.rand(3), random.random(), numpy.random.rand()
        super().step()
def states():
    return torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()
before = states()
probe(Noisy)
assert states() == before
"""


def test_random_numbers_outside_are_not_touched():
    # In a process of its own: here the type checker draws random numbers too.
    subprocess.run([sys.executable, "-c", UNTOUCHED], check=True)


def test_the_same_twice():
    assert probe(optim.Adam) == probe(optim.Adam)


def test_shown():
    lines = str(probe(optim.AdamW)).splitlines()
    assert lines[0] == "AdamW: decoupled"
    assert lines[1] == "  removed per step without gradient: 0.0001 (lr·λ = 0.0001)"
