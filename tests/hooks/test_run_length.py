"""Half-lives that go on beyond the run that was told: one warning, once."""

import warnings

import pytest
import torch
from torch import nn, optim

import weightdecay as wd


def trained(kind, rule, told, rates, **options):
    """The warnings of a run with these step sizes, and what is left of the weights."""
    w = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    o = kind([w], lr=rates[0], weight_decay=0.0, **options)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        decay = wd.attach(o, rule, on="all", **told)
        for lr in rates:
            o.param_groups[0]["lr"] = lr
            w.grad = torch.zeros_like(w)
            o.step()
    assert decay.steps == len(rates)
    said = [str(one.message) for one in found]
    return [one for one in said if "attach was given" in one], w.detach().mean().item()


KINDS = [(optim.SGD, {}), (optim.AdamW, {}), (optim.SGD, {"momentum": 0.9})]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_nothing_is_said_within(kind, options):
    for told in (
        {"steps": 50},
        {"schedule": [0.1] * 50},
        {"schedule": [0.1 * (1 - t / 50) for t in range(50)]},
    ):
        rates = told.get("schedule", [0.1] * 50)
        said, left = trained(kind, wd.Decoupled(wd.HalfLives(3)), told, rates, **options)
        assert said == []
        assert left == pytest.approx(1 / 8)


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("rule", [wd.Decoupled, wd.Independent])
def test_training_that_goes_on(kind, options, rule):
    told = {"schedule": [0.1] * 50} if rule is wd.Independent else {"steps": 50}
    said, left = trained(kind, rule(wd.HalfLives(3)), told, [0.1] * 75, **options)
    assert left == pytest.approx(2**-4.5)
    (line,) = said
    assert "after the 50 steps that attach was given" in line
    assert "HalfLives(per_run=3.0)" in line


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("strength", [wd.HalfLives(1), wd.HalfLife(steps=100)])
def test_lr_above_the_peak(kind, options, strength):
    told = {"schedule": [0.1] * 50}
    said, _ = trained(kind, wd.Decoupled(strength), told, [0.1] * 5 + [1.0] * 20, **options)
    (line,) = said
    assert (
        "lr = 1 of parameter group 0 is above 0.1, the peak of the schedule that attach was given, at step 5"
        in line
    )
    assert "decays 10 times as fast as it says" in line


def test_a_penalty_with_a_half_life_warns_too():
    told = {"schedule": [0.1] * 50}
    said, _ = trained(optim.SGD, wd.L2(wd.HalfLife(steps=100)), told, [0.3] * 20, momentum=0.9)
    (line,) = said
    assert "decays 3 times as fast" in line


def test_who_told_nothing_is_not_warned():
    """A number follows lr as it says, and a half-life at a given lr says where it holds."""
    for strength, told in (
        (0.1, {"schedule": [0.1] * 50}),
        (wd.HalfLife(steps=100, lr=0.1), {"schedule": [0.1] * 50}),
        (wd.HalfLife(steps=100), {"steps": 50}),
    ):
        said, _ = trained(optim.AdamW, wd.Decoupled(strength), told, [0.3] * 75)
        assert said == []


def test_a_resumed_run_knows_how_far_it_is():
    w = nn.Parameter(torch.ones(2, 2))
    o = optim.SGD([w], lr=0.1)
    decay = wd.attach(o, wd.Decoupled(wd.HalfLives(3)), on="all", steps=50)
    decay.load_state_dict({**decay.state_dict(), "steps": 50})
    w.grad = torch.zeros_like(w)
    with pytest.warns(wd.WeightDecayWarning, match="after the 50 steps"):
        o.step()
