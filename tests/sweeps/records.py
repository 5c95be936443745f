"""Trainings by formula: ridge regression's losses in closed form, with seeds that shift all alike."""

import math

from weightdecay.sweeps.task import Copy, Look, Trained

LAMBDAS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def ridge_loss(lam, noise=1.0):
    """The risk of ridge with one true weight of 1 and one row of x = 1: bias² + variance, least at λ = σ²."""
    kept = 1 / (1 + lam)
    return (1 - kept) ** 2 + noise * kept**2


def training(lam, seed=0, *, loss=None, rule="Decoupled", lr=None, unit="weight_decay", diverged=None):
    """A training whose test loss is ridge's, shifted by the seed, with a wobble that is the copy's own."""
    own = 0.004 * math.sin(7.0 * seed + 13.0 * math.log1p(lam))
    loss = ridge_loss(lam) + 0.5 * math.cos(3.0 * seed) + own if loss is None else loss
    loss = math.nan if diverged is not None else loss
    looks = tuple(
        Look(epoch, loss / 2 + 1 / epoch, loss + 1 / epoch, {"accuracy": 1 - loss / 4 - 0.1 / epoch})
        for epoch in (1, 2, 3)
        if diverged is None
    )
    return Trained(
        Copy(rule, lr, lam, unit, seed),
        weight_decay=lam,
        train_loss=loss / 2,
        test_loss=loss,
        metrics={"accuracy": 1 - loss / 4},
        looks=looks,
        diverged=diverged,
    )


def trainings(lambdas=LAMBDAS, seeds=5, **more):
    return [training(lam, seed, **more) for seed in range(seeds) for lam in lambdas]
