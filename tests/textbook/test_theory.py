"""The closed forms, against matrices multiplied out, real trainings and 40 seeds."""

import numpy as np
import pytest
import torch
from tests import oracles
from tests.helpers import drawn, relative, small

from weightdecay.textbook import theory
from weightdecay.textbook.settings import Experiment, Synthetic, draw
from weightdecay.textbook.versions import VERSIONS, train_batched, train_plain


@pytest.mark.parametrize("penalize_bias", [False, True])
@pytest.mark.parametrize("n_inputs", [3, 40])
def test_expected_path_is_the_matrix_power(n_inputs, penalize_bias):
    one = drawn(small(data=Synthetic(n_train=12, n_test=5, n_inputs=n_inputs)))
    lambdas, steps = torch.tensor([0.05, 3.0], dtype=torch.float64), [0, 1, 7, 400]
    path = theory.expected_path(
        one.X, one.y, one.w, one.b, lambdas, lr=0.01, steps=steps, penalize_bias=penalize_bias
    )
    for i, lam in enumerate(lambdas.tolist()):
        for e, t in enumerate(steps):
            w, b = oracles.expected_path(
                one.X.numpy(),
                one.y.numpy(),
                one.w.numpy(),
                float(one.b),
                t,
                lam=lam,
                lr=0.01,
                penalize_bias=penalize_bias,
            )
            assert relative(path.w[i, e], w) < 1e-11
            assert abs(float(path.b[i, e]) - b) < 1e-11


def test_a_curvature_next_to_nothing_moves_w_by_its_gradient():
    """Inputs of size 1e-6: 1 - (1 - lr μ)^t keeps no digit there, and the path is a straight line."""
    one = drawn(small(data=Synthetic(n_train=12, n_test=5, n_inputs=2)))
    X = 1e-6 * one.X
    y = one.y - one.y.mean() + 1e6 * X[:, 0]
    *_, (w, _) = oracles.minibatch_descent(
        X.numpy(), y.numpy(), one.w.numpy(), 0.0, [range(12)] * 50, lam=0.0, lr=0.01, batch_size=12
    )
    path = theory.expected_path(
        X,
        y,
        one.w,
        torch.zeros((), dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
        lr=0.01,
        steps=[50],
    )
    moved, expected = path.w[0, 0] - one.w, w - one.w.numpy()
    assert float(moved.abs().max()) > 1e-8
    assert relative(moved, expected) < 1e-6  # w itself is rounded at 1e-16


@pytest.mark.parametrize("version", ["scratch", "concise", "concise-matched"])
@pytest.mark.parametrize("lam", [0.0, 3.0])
def test_full_batch_training_is_the_expected_path(version, lam):
    settings = small(batch_size=12, epochs=100, every=50)
    one, version = drawn(settings), VERSIONS[version]
    w, b = train_plain(version, one, settings, lam, lambda *look: None)
    canonical, lr = version.canonical(lam, settings.lr)
    start = version.start(one, settings)
    path = theory.expected_path(
        one.X, one.y, *start, torch.tensor([canonical], dtype=torch.float64), lr=lr, steps=[settings.steps]
    )
    assert relative(path.w[0, 0], w) < 1e-12
    assert abs(float(path.b[0, 0] - b)) < 1e-12


def test_the_path_ends_in_ridge_and_the_ridge_is_the_normal_equations():
    one = drawn(small())
    for penalize_bias in (False, True):
        model = theory.ridge_models(one, torch.tensor([0.5], dtype=torch.float64), penalize_bias)
        w, b = oracles.ridge(one.X.numpy(), one.y.numpy(), 0.5, penalize_bias)
        assert relative(model.w[0], w) < 1e-12
        assert abs(float(model.b[0]) - b) < 1e-12
        path = theory.expected_path(
            one.X,
            one.y,
            one.w,
            one.b,
            torch.tensor([0.5], dtype=torch.float64),
            lr=0.05,
            steps=[100_000],
            penalize_bias=penalize_bias,
        )
        assert relative(path.w[0, 0], w) < 1e-10


def test_largest_curvature_is_where_gradient_descent_turns_over():
    settings = small(batch_size=12, epochs=400, every=400)
    one = drawn(settings)
    limit = 2 / (theory.largest_curvature(one.X) + 3.0)
    for factor, stable in ((0.999, True), (1.02, False)):
        sweep = train_batched(
            VERSIONS["scratch"], [one], settings, torch.tensor([3.0], dtype=torch.float64), lr=factor * limit
        )
        assert bool(sweep.train_loss[0, 0, -1] < 100) is stable


def test_forty_seeds_of_the_notes_experiment():
    """Excess risk 180 ± 10 without decay, .15 to .25 with λ = 3; the residue is all but all of the first."""
    settings = Experiment(dtype="float64")
    draws = [draw(settings.data, seed) for seed in range(40)]
    lambdas = torch.tensor([0.0, 3.0], dtype=torch.float64)
    sweep = train_batched(VERSIONS["scratch"], draws, settings, lambdas)
    excess = theory.excess_risk(settings.data, sweep.w, sweep.b).mean(0)
    assert 170 < float(excess[0]) < 190
    assert 0.15 < float(excess[1]) < 0.25
    expected = torch.stack([theory.residue(one.X, lambdas, 0.003, 400) for one in draws]).mean(0)
    left = torch.stack([theory.out_of_reach(one.X, w) for one, w in zip(draws, sweep.w, strict=True)])
    assert expected.tolist() == [180.0, pytest.approx(180 * (1 - 0.009) ** 800)]
    # A chi-square of 180 degrees, 40 times: standard error sqrt(2/180/40) = 1.7 %; 4 of them allowed.
    assert float((left.mean(0) / expected - 1).abs().max()) < 0.07
    # Most excess at λ = 3 is residue and a bias that has not arrived; the expected path says as much.
    paths = [
        theory.expected_path(
            one.X, one.y, one.w, torch.tensor(0.0, dtype=torch.float64), lambdas, lr=0.003, steps=[400]
        )
        for one in draws
    ]
    w, b = torch.stack([p.w[:, 0] for p in paths]), torch.stack([p.b[:, 0] for p in paths])
    assert relative(theory.excess_risk(settings.data, w, b).mean(0)[1], excess[1]) < 0.05
    assert 0.02 < float(((b - 0.05) ** 2)[:, 1].mean()) < 0.06


def test_the_best_lam_of_the_design_is_the_best():
    """Expected excess of ridge given X, over noise and over the sign pattern of w*, from the spectrum."""
    data = Synthetic()
    best = theory.best_lam(data)
    assert best == pytest.approx(0.05)
    lambdas = best * np.array([0.5, 0.8, 1.0, 1.25, 2.0])
    excess = np.zeros(len(lambdas))
    for seed in range(40):
        X = draw(data, seed).X.numpy()
        s2 = np.linalg.svd(X, compute_uv=False) ** 2 / data.n_train
        for i, lam in enumerate(lambdas):
            bias = data.true_weight**2 * (((lam / (s2 + lam)) ** 2).sum() + 180)
            excess[i] += bias + data.noise**2 / data.n_train * (s2 / (s2 + lam) ** 2).sum()
    assert excess.argmin() == 2


def test_excess_risk_is_twice_the_test_loss_above_the_noise():
    data = Synthetic(n_test=200_000, n_inputs=5)
    one = draw(data, 0)
    w, b = one.w[None, None], one.b[None, None]
    loss = ((one.X_test @ one.w + one.b - one.y_test) ** 2).mean() / 2
    # The mean of 200,000 squares has standard error sqrt(2/200,000) = .3 %.
    assert float(theory.excess_risk(data, w, b)) == pytest.approx(2 * float(loss) - data.noise**2, rel=0.015)
    assert theory.best_lam(Synthetic(true_weight=0.0)) is None
