"""Trainings for a page with a slider: every λ of a fine grid, both starts, three programs."""

import dataclasses
import math

import polars as pl
import torch

from weightdecay.textbook.compare import predicted, workable
from weightdecay.textbook.data import Draw, Synthetic
from weightdecay.textbook.record import SLIDER_SCHEMA
from weightdecay.textbook.settings import INITS, Experiment
from weightdecay.textbook.versions import VERSIONS, Version, train_batched
from weightdecay.units import grid
from weightdecay.units.rates import half_life

SHOWN = ("scratch", "concise", "concise-matched")
MOST_LOOKS = 20  # of one training; with more epochs the looks are further apart
MOST_WEIGHTS = 50


def slider(experiment: Experiment, first: Draw) -> pl.DataFrame:
    """Train the first seed at about 100 λ, from both starts, by three programs.

    A row for each training: version, init, lam; half_life in epochs (infinite without decay); theory, the
    test loss of the weights expected after as many steps; ridge, that of the exact minimiser; w_norm at the
    end; epoch, train_loss and test_loss at each look; weights, the first 50 at the end. λ at which gradient
    descent cannot work are left out.

    Args:
        experiment: settings, λ resolved; its own λ are among those of the grid, unless they are many.
        first: the draw of its first seed.
    """
    low = "1e-3" if isinstance(experiment.data, Synthetic) else "1e-10"
    own = experiment.lambdas or ()
    lambdas = sorted({0.0, *grid(f"{low}:100:99"), *(own if len(own) <= 8 else ())})
    return pl.concat(
        _trained(VERSIONS[name], dataclasses.replace(experiment, init=init), first, lambdas)
        for name in SHOWN
        for init in INITS
    )


def _trained(version: Version, experiment: Experiment, first: Draw, given: list[float]) -> pl.DataFrame:
    lambdas = torch.tensor(workable(version, experiment, [first], given), dtype=torch.float64)
    if not len(lambdas):
        return pl.DataFrame(schema=SLIDER_SCHEMA)
    every = max(experiment.every, math.ceil(experiment.epochs / MOST_LOOKS))
    sweep = train_batched(version, [first], experiment, lambdas, every=every)
    theory = predicted(version, experiment, [first], lambdas.tolist())
    batches = math.ceil(len(first.y) / experiment.batch_size)
    rate = experiment.lr * version.lr_factor * version.lam_factor
    rows = {
        "version": [version.name] * len(lambdas),
        "init": [experiment.init] * len(lambdas),
        "lam": lambdas.tolist(),
        "half_life": [half_life(rate * lam) / batches if lam else math.inf for lam in lambdas.tolist()],
        "theory": theory.loss[0].tolist(),
        "ridge": theory.ridge[0].tolist(),
        "w_norm": sweep.w_norm[0, :, -1].tolist(),
        "epoch": [list(sweep.epochs)] * len(lambdas),
        "train_loss": sweep.train_loss[0].tolist(),
        "test_loss": sweep.test_loss[0].tolist(),
        "weights": sweep.w[0, :, :MOST_WEIGHTS].tolist(),
    }
    went_well = sweep.test_loss[0].isfinite().all(1) & sweep.train_loss[0].isfinite().all(1)
    return pl.DataFrame(rows, schema=SLIDER_SCHEMA).filter(pl.Series(went_well.tolist()))
