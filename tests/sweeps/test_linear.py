"""The batched program against each training alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers import drawn, relative, small

from weightdecay.sweeps import linear
from weightdecay.textbook.settings import Experiment, Synthetic
from weightdecay.textbook.versions import VERSIONS, stack, train_batched, train_plain

LAMBDAS = (0.0, 1e-3, 0.3, 3.0, 50.0)


def gaps(version, settings, seeds=2, lambdas=LAMBDAS):
    """The largest relative difference of losses and norms, and of final parameters, to training alone."""
    draws = [drawn(settings, seed) for seed in range(seeds)]
    sweep = train_batched(version, draws, settings, torch.tensor(lambdas, dtype=torch.float64))
    losses = parameters = 0.0
    for s, one in enumerate(draws):
        for i, lam in enumerate(lambdas):
            looks = []
            w, b = train_plain(version, one, settings, lam, lambda *look, looks=looks: looks.append(look))
            assert sweep.epochs == tuple(look[0] for look in looks)
            alone = torch.tensor(looks, dtype=torch.float64)[:, 1:]
            batched = torch.stack(
                [t[s, i].double() for t in (sweep.train_loss, sweep.test_loss, sweep.w_norm)], 1
            )
            losses = max(losses, float((batched / alone - 1).abs().max()))
            parameters = max(
                parameters, relative(torch.cat([sweep.w[s, i], sweep.b[s, i, None]]), torch.cat([w, b[None]]))
            )
    return losses, parameters


@pytest.mark.parametrize("penalize_bias", [False, True])
@pytest.mark.parametrize("n_inputs", [3, 13, 40])
@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_float64(version, n_inputs, penalize_bias):
    data = Synthetic(n_train=12, n_test=30, n_inputs=n_inputs)
    losses, parameters = gaps(version, small(data=data, penalize_bias=penalize_bias))
    assert losses < 1e-12
    assert parameters < 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-12)])
@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_the_notes_experiment(version, dtype, tolerance):
    """As long and as large as the notes have it.

    A prediction is a sum of 200 products near 1, rounded by about δ = 8 eps in each program. Two losses r²/2
    then differ by 4δ/r, relatively, so they are compared where r > 4δ/tolerance: in float32 above 7e-4.
    """
    settings = Experiment(dtype=dtype)
    one = drawn(settings)
    sweep = train_batched(version, [one], settings, torch.tensor([0.0, 3.0], dtype=torch.float64))
    floor = (4 * 8 * torch.finfo(settings.torch_dtype).eps / tolerance) ** 2 / 2
    for i, lam in enumerate((0.0, 3.0)):
        looks = []
        train_plain(version, one, settings, lam, lambda *look, looks=looks: looks.append(look))
        alone = torch.tensor(looks, dtype=torch.float64)
        for column, tensor in ((1, sweep.train_loss), (2, sweep.test_loss), (3, sweep.w_norm)):
            counts = alone[:, column] > floor
            assert float((tensor[0, i].double() / alone[:, column] - 1).abs()[counts].max()) < tolerance
            assert bool(counts.all()) or (column == 1 and counts.sum() > 4)


@given(
    st.integers(0, 2**32),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(1, 7),
    st.sampled_from(list(VERSIONS)),
)
def test_any_shape(seed, n, p, batch, version):
    data = Synthetic(n_train=n, n_test=4, n_inputs=p)
    settings = small(data=data, batch_size=min(batch, n), epochs=3, every=2, seed=seed)
    losses, _ = gaps(VERSIONS[version], settings, seeds=1, lambdas=(0.0, 2.0))
    assert losses < 1e-9  # a loss that happens to be near zero keeps fewer digits


def test_blocks_of_strengths_change_nothing(monkeypatch):
    settings = small()
    draws = [drawn(settings, seed) for seed in range(3)]
    lambdas = torch.linspace(0, 5, 11, dtype=torch.float64)
    whole = train_batched(VERSIONS["two-optimizers"], draws, settings, lambdas)
    monkeypatch.setattr(linear, "_BLOCK_BYTES", 3 * 30 * 8 * 4)
    ticks = []
    parts = train_batched(
        VERSIONS["two-optimizers"], draws, settings, lambdas, lambda *tick: ticks.append(tick)
    )
    assert ticks == [(i + 1, 18) for i in range(18)]
    for name in ("train_loss", "test_loss", "w_norm", "b", "w"):
        assert relative(getattr(parts, name), getattr(whole, name)) < 1e-13


def test_a_training_that_diverges_leaves_the_others_alone():
    settings = small(epochs=60)
    tame, wild = (
        train_batched(
            VERSIONS["scratch"],
            [drawn(settings)],
            settings,
            torch.tensor([0.5, lam, 1.0], dtype=torch.float64),
        )
        for lam in (2.0, 400.0)
    )
    assert not bool(wild.train_loss[0, 1, -1] < 1e6)
    for name in ("train_loss", "test_loss", "w_norm", "b", "w"):
        assert torch.equal(getattr(wild, name)[:, [0, 2]], getattr(tame, name)[:, [0, 2]])


def test_what_no_example_reaches_is_untouched_without_decay():
    settings = small()
    one = drawn(settings)
    sweep = train_batched(VERSIONS["scratch"], [one], settings, torch.tensor([0.0], dtype=torch.float64))
    Q = torch.linalg.qr(one.X.T, mode="complete").Q[:, len(one.y) :]
    assert float((Q.T @ (sweep.w[0, 0] - one.w)).abs().max()) < 1e-12


def test_the_problem_is_not_changed():
    settings = small()
    problem = stack(VERSIONS["scratch"], [drawn(settings)], settings)
    copies = {name: value.clone() for name, value in vars(problem).items()}
    linear.train_linear(problem, torch.tensor([1.0], dtype=torch.float64), lr=0.01, batch_size=5, every=1)
    assert all(torch.equal(getattr(problem, name), value) for name, value in copies.items())
