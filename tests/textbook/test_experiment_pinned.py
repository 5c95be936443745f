"""The five classic slips of this experiment, each pinned."""

import numpy as np
import pytest
import torch
from tests.helpers import drawn, small

from weightdecay.textbook.experiment import run_experiment
from weightdecay.textbook.versions import VERSIONS, train_plain


def end(version, **changes):
    settings = small(**changes)
    looks = []
    w, b = train_plain(VERSIONS[version], drawn(settings), settings, 3.0, lambda *look: looks.append(look))
    return w, b, looks


def test_slip_1_two_objectives():
    """At equal numbers MSELoss is another objective: as printed the two differ, matched they do not."""
    scratch, printed, matched = (end(v, init="zero")[0] for v in ("scratch", "concise", "concise-matched"))
    assert torch.allclose(scratch, matched, rtol=1e-12, atol=0)
    assert float((scratch - printed).norm() / scratch.norm()) > 0.1


@pytest.mark.parametrize("version", VERSIONS)
def test_slip_2_the_penalty_is_not_in_the_reported_losses(version):
    one = drawn(small())
    w, b, looks = end(version)
    _, train_loss, test_loss, _ = looks[-1]
    for loss, X, y in ((train_loss, one.X, one.y), (test_loss, one.X_test, one.y_test)):
        assert loss == pytest.approx(
            np.mean((X.numpy() @ w.numpy() + b.item() - y.numpy()) ** 2) / 2, rel=1e-12
        )


@pytest.mark.parametrize("version", VERSIONS)
def test_slip_3_the_norm_is_the_norm(version):
    w, _, looks = end(version)
    assert looks[-1][3] == pytest.approx(np.linalg.norm(w.numpy()), rel=1e-12)
    assert looks[-1][3] != pytest.approx((w**2).sum().item() / 2, rel=0.01)


@pytest.mark.parametrize("version", VERSIONS)
def test_slip_4_training_starts_from_the_draw(version):
    """One step of a vanishing size leaves the start: no later initialisation, none applied too early."""
    settings = small(lr=1e-300, bias_lr=1e-300, epochs=1, batch_size=12)
    one = drawn(settings)
    w, b = train_plain(VERSIONS[version], one, settings, 3.0, lambda *look: None)
    assert torch.equal(w, one.w)
    assert b.item() == pytest.approx(one.b.item() if VERSIONS[version].draws_bias else 0.0, abs=1e-290)


def test_slip_5_seeds():
    """The same seed gives the same bits whatever the global state; another seed, and every part, differs."""
    torch.manual_seed(1)
    first = run_experiment(small(versions=tuple(VERSIONS)))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = run_experiment(small(versions=tuple(VERSIONS)))
    assert torch.equal(before, torch.get_rng_state())
    assert first.results.equals(again.results)
    assert first.outcomes == again.outcomes
    one, other = drawn(small(), 0), drawn(small(), 1)
    for name in ("X", "y", "X_test", "y_test", "w", "b"):
        assert not torch.equal(getattr(one, name), getattr(other, name))
    assert not torch.equal(one.order(1), other.order(1))
    assert not torch.equal(*one.order(2))
