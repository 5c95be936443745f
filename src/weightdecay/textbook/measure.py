"""What was measured: the plain trainings one watches and the batched ones, in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.sweeps import LinearSweep
from weightdecay.textbook.record import RESULT_SCHEMA, Evaluation
from weightdecay.textbook.settings import Experiment


@dataclass(frozen=True)
class Measured:
    """All trainings of one version: S seeds, L strengths, E looks.

    Args:
        epochs: after which epochs one looked.
        train_loss: half the mean squared training error (S, L, E).
        test_loss: half the mean squared test error (S, L, E).
        w_norm: the L2 norm of the weights (S, L, E).
        w: the weights at the end (S, L, p).
        b: the bias at the end (S, L).
        gap: by how much the plain and the batched program differ in test loss, relatively, at most.
    """

    epochs: tuple[int, ...]
    train_loss: Float64[Tensor, "S L E"]
    test_loss: Float64[Tensor, "S L E"]
    w_norm: Float64[Tensor, "S L E"]
    w: Float64[Tensor, "S L p"]
    b: Float64[Tensor, "S L"]
    gap: float


def merge(experiment: Experiment, sweep: LinearSweep, watched: Sequence[Evaluation]) -> Measured:
    """The batched trainings; where one was watched, its losses take the place of its batched twin's."""
    losses = [tensor.double().clone() for tensor in (sweep.train_loss, sweep.test_loss, sweep.w_norm)]
    batched_test = losses[1][0].clone()
    for i, lam in enumerate(experiment.lambdas or ()):
        looks = [look for look in watched if look.lam == lam]
        for tensor, name in zip(losses, ("train_loss", "test_loss", "w_norm"), strict=True):
            if looks:
                tensor[0, i] = torch.tensor([getattr(look, name) for look in looks], dtype=torch.float64)
    gap = float((batched_test / losses[1][0] - 1).abs().nan_to_num(0).max())
    return Measured(sweep.epochs, *losses, w=sweep.w.double(), b=sweep.b.double(), gap=gap)


def as_table(
    experiment: Experiment, measured: Mapping[str, Measured], watched: Mapping[str, Sequence[Evaluation]]
) -> pl.DataFrame:
    """One row per version, seed, λ and look; of a version not yet measured, what was watched of it."""
    parts = [pl.DataFrame(schema=RESULT_SCHEMA)]
    for version in experiment.versions:
        if version in measured:
            m = measured[version]
            axes = (torch.arange(size) for size in m.test_loss.shape)
            s, i, e = (index.flatten() for index in torch.meshgrid(*axes, indexing="ij"))
            columns = {
                "version": pl.repeat(version, len(s), eager=True),
                "seed": torch.tensor(experiment.seed_list)[s].numpy(),
                "lam": torch.tensor(experiment.lambdas, dtype=torch.float64)[i].numpy(),
                "epoch": torch.tensor(m.epochs)[e].numpy(),
                "train_loss": m.train_loss.flatten().numpy(),
                "test_loss": m.test_loss.flatten().numpy(),
                "w_norm": m.w_norm.flatten().numpy(),
            }
        else:
            looks = watched.get(version, [])
            columns = {name: [getattr(look, name) for look in looks] for name in RESULT_SCHEMA}
        parts.append(pl.DataFrame(columns, schema=RESULT_SCHEMA))
    return pl.concat(parts)
