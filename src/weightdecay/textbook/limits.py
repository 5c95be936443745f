"""Where training cannot work: step sizes refused beforehand, runaway trainings stopped and explained."""

from collections.abc import Sequence

import torch

from weightdecay.errors import DivergenceError, InputError
from weightdecay.ridge import LinearModel
from weightdecay.textbook import theory
from weightdecay.textbook.data import Draw
from weightdecay.textbook.record import Evaluation
from weightdecay.textbook.settings import Experiment
from weightdecay.textbook.versions import Version, train_batched

# A loss beyond this multiple of its start is a training that ran away.
RUNAWAY = 1e6


def check_lr(
    version: Version, experiment: Experiment, draws: Sequence[Draw], lambdas: Sequence[float]
) -> None:
    """Refuse a step size at which even full batches diverge: lr ≥ 2/(h + λ), canonically."""
    for one in draws:
        h = theory.largest_curvature(one.X, with_bias=not version.adam_bias)
        for given in lambdas:
            lam, lr = version.canonical(given, experiment.lr)
            if lr * (h + lam) > 2:
                limit = 2 / (h + lam) * experiment.lr / lr
                raise InputError(
                    f"the step size is too large for {version.name}: gradient descent diverges from "
                    f"{'2/(2h+λ)' if version.loss_scale == 2 and version.lr_factor == 1 else '2/(h+λ)'} on",
                    "lr",
                    f"{experiment.lr:g} at λ = {given:g} (largest curvature h = {h:.4g}, seed {one.seed})",
                    f"use less than {limit:.3g}, and batches may need less still",
                )


def start_loss(version: Version, experiment: Experiment, one: Draw) -> float:
    """Half the mean squared training error before the first step."""
    return float(LinearModel(*version.start(one, experiment)).half_mse(one.X, one.y))


def diverged(
    version: Version, experiment: Experiment, draws: list[Draw], seen: Evaluation, start: float
) -> DivergenceError:
    """The error for a training that ran away, with a step size that does not."""
    error = DivergenceError(
        f"training diverged: {version.name}, λ = {seen.lam:g}, seed {seen.seed}, epoch {seen.epoch}, "
        f"train loss {seen.train_loss:.3g} from {start:.3g}",
        "lr",
        f"{experiment.lr:g}",
        _remedy(version, experiment, largest := _largest_lr(version, experiment, draws)),
    )
    error.largest_lr = largest
    return error


def _largest_lr(version: Version, experiment: Experiment, draws: list[Draw]) -> float | None:
    """Halve lr until every training of the version completes; None if 40 halvings do not help."""
    lambdas = torch.tensor(experiment.lambdas, dtype=torch.float64)
    starts = [start_loss(version, experiment, one) for one in draws]
    bounds = RUNAWAY * torch.tensor(starts, dtype=torch.float64)[:, None, None]
    for halvings in range(1, 41):
        lr = experiment.lr / 2**halvings
        losses = train_batched(version, draws, experiment, lambdas, lr=lr).train_loss.double()
        if bool((losses.isfinite() & (losses <= bounds)).all()):
            return lr
    return None


def _remedy(version: Version, experiment: Experiment, largest: float | None) -> str:
    if largest is not None:
        return f"halving it, {largest:.4g} is the largest that completes"
    if version.adam_bias:
        return f"no halving of it completes, so try a smaller bias_lr = {experiment.bias_lr:g}"
    return "no halving of it completes, so look at the data's scale"
