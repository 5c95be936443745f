"""A decay against what its strength means: sign, size, when it acts, and by which group's strength."""

import pytest
import torch
from tests.probing.probe_optimizers import Decaying
from torch import nn

from weightdecay.probing.run import probe, probe_optimizer

FORMS = ("", "after", "without lr", "cautious", "momentum", "average", "adam")


def codes(found, severity=None):
    return {one.code for one in found.findings if severity in (None, one.severity)}


@pytest.mark.parametrize("kind", FORMS)
def test_the_right_sign_and_size_say_nothing(kind):
    found = probe(Decaying, kind=kind)
    assert codes(found) - {"WD301"} == set()
    assert found.factor == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(("kind", "factor"), [(kind, -1.0) for kind in FORMS] + [("momentum", -0.5)])
def test_a_wrong_sign_is_an_error(kind, factor):
    found = probe(Decaying, kind=kind, factor=factor)
    assert codes(found, "error") == {"WD306"}
    assert found.factor == pytest.approx(factor, rel=1e-2)


@pytest.mark.parametrize(("kind", "factor"), [(kind, 2.0) for kind in FORMS] + [("", 0.5), ("adam", 10.0)])
def test_a_wrong_size_is_a_warning_with_the_factor(kind, factor):
    found = probe(Decaying, kind=kind, factor=factor)
    assert "WD306" in codes(found, "warning")
    assert codes(found, "error") == set()
    assert found.factor == pytest.approx(factor, rel=1e-2)


@pytest.mark.parametrize(("kind", "weight_decay"), [("", 0.1), ("momentum", 1.0), ("without lr", 0.1)])
def test_a_squared_strength_is_a_warning_even_where_it_is_1(kind, weight_decay):
    assert "WD306" in codes(probe(Decaying, kind=kind, power=2, weight_decay=weight_decay), "warning")


def test_a_decay_of_the_momentum_pulls_no_weight():
    found = probe(Decaying, kind="of the momentum")
    assert (found.form, codes(found, "error")) == ("unknown", {"WD306"})


def test_weights_without_gradient_that_do_not_decay_are_told():
    found = probe(Decaying, kind="with gradient")
    assert (found.form, found.idle, codes(found)) == ("decoupled", True, {"WD305"})
    assert found.rate == pytest.approx(1e-4)
    assert "with a gradient, and 0 without" in str(found)


@pytest.mark.parametrize("every", [2, 7, 10, 13, 60])
def test_what_acts_every_few_steps_is_measured_over_whole_periods(every):
    found = probe(Decaying, every=every)
    assert (found.form, codes(found)) == ("decoupled", set())
    assert found.rate == pytest.approx(1 - (1 - 1e-4 * every) ** (1 / every), rel=1e-6)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_phase_of_a_live_optimizer_does_not_matter(steps):
    p = nn.Parameter(torch.ones(3, 3))
    optimizer = Decaying([p], lr=1e-3, weight_decay=0.1, every=4)
    for _ in range(steps):
        p.grad = torch.ones_like(p)
        optimizer.step()
    found = probe_optimizer(optimizer)
    assert (found.form, codes(found)) == ("decoupled", set())


def test_a_step_size_of_the_weights_size_is_not_taken_for_a_factor():
    """As Adafactor's with scale_parameter=True: λ means what it does there, for weights of any size."""
    found = probe(Decaying, kind="of the weights' size")
    assert (found.form, found.factor, codes(found)) == ("scaled", None, set())


def test_noise_is_not_taken_for_groups_that_are_mixed_up():
    """As of Langevin dynamics: parameters differ by their noise."""
    assert not probe(Decaying, kind="noisy").mixed


KINDS = ("the first's", "the last's", "if the first decays", "the mean", "the default")


@pytest.mark.parametrize("kind", [*KINDS, "the first of each"])
def test_groups_that_are_mixed_up_are_an_error(kind):
    assert codes(probe(Decaying, kind=kind), "error") == {"WD307"}


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_groups_that_are_kept_apart_are_not(kind):
    assert not probe(Decaying, kind=kind).mixed


@pytest.mark.parametrize(
    ("strengths", "wrong"),
    [
        ((0.1, 0.0), {"the first's", "the last's", "the mean"}),
        ((0.0, 0.1), {"the first's", "the last's", "if the first decays", "the mean"}),
        ((0.1, 0.1), set()),
        ((0.1,), set()),
        ((0.4, 0.2, 0.1, 0.0), {"the first's", "the last's", "the mean"}),
    ],
)
def test_a_live_optimizer_is_tried_with_its_own_strengths(strengths, wrong):
    for kind in ("the first's", "the last's", "if the first decays", "the mean", ""):
        groups = [{"params": [nn.Parameter(torch.ones(3, 3))], "weight_decay": one} for one in strengths]
        optimizer = Decaying(groups, kind=kind)
        assert probe_optimizer(optimizer, strengths.index(0.1)).mixed == (kind in wrong), kind
