"""What was measured beside what theory says: the end of each version at each λ, and the curve over λ."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.sweeps import LinearSweep
from weightdecay.textbook import theory
from weightdecay.textbook.data import Draw, Synthetic, draw
from weightdecay.textbook.record import CURVE_SCHEMA, RESULT_SCHEMA, Evaluation, LambdaCurve, Outcome
from weightdecay.textbook.settings import Experiment
from weightdecay.textbook.versions import Version, train_batched


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
            s, i, e = torch.cartesian_prod(*map(torch.arange, m.test_loss.shape)).T
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


OnProgress = Callable[[str, int, int], None]


def outcomes_of(
    version: Version, experiment: Experiment, draws: Sequence[Draw], measured: Measured
) -> list[Outcome]:
    """The last look at every λ, medians over seeds, with theory computed for each seed's own draw."""
    given = experiment.lambdas or ()
    expected = predicted(version, experiment, draws, given)
    canonical, lr = version.canonical(torch.tensor(given, dtype=torch.float64), experiment.lr)
    left = [theory.residue(one.X, canonical, lr, experiment.steps) for one in draws]
    reached = [theory.out_of_reach(one.X, w) for one, w in zip(draws, measured.w, strict=True)]
    low, middle, high = _quartiles(measured.test_loss[:, :, -1])
    columns = {
        "train_loss": _median(measured.train_loss[:, :, -1]),
        "test_loss": middle,
        "test_low": low,
        "test_high": high,
        "w_norm": _median(measured.w_norm[:, :, -1]),
        "ridge": _median(expected.ridge),
        "b": _median(measured.b),
        "ridge_b": _median(expected.ridge_b),
        "residue": _median(torch.stack(left)) * (experiment.init == "normal"),
        "out_of_reach": _median(torch.stack(reached)),
    }
    if not version.adam_bias:
        columns["theory"] = _median(expected.loss)
        columns["theory_b"] = _median(expected.b)
    if isinstance(experiment.data, Synthetic):
        columns["excess"] = _median(theory.excess_risk(experiment.data, measured.w, measured.b))
    rows = zip(*map(Tensor.tolist, columns.values()), strict=True)
    missing = dict.fromkeys({"theory", "theory_b", "excess"} - set(columns))
    return [
        Outcome(version.name, lam, **missing, **dict(zip(columns, row, strict=True)))
        for lam, row in zip(given, rows, strict=True)
    ]


def lambda_curve(
    version: Version, experiment: Experiment, draws: list[Draw], progress: OnProgress | None
) -> LambdaCurve | None:
    """Test loss against λ over `curve_seeds` seeds; None if gradient descent works at none of the λ.

    λ at which it cannot work are left out.
    """
    seeds = range(experiment.seed, experiment.seed + experiment.curve_seeds)
    draws = [*draws, *(draw(experiment.data, seed) for seed in seeds[len(draws) :])][: len(seeds)]
    curve = experiment.curve or ()
    inside = (lam for lam in experiment.lambdas or () if min(curve) <= lam <= max(curve) and lam > 0)
    possible = workable(version, experiment, draws, sorted({*curve, *inside}))
    if not possible:
        return None
    lambdas = torch.tensor(possible, dtype=torch.float64)
    stage = f"{version.name}: the curve, {len(draws) * len(possible)} trainings at once"
    on_epoch = functools.partial(progress, stage) if progress else None
    sweep = train_batched(version, draws, experiment, lambdas, on_epoch, every=experiment.epochs)
    expected = predicted(version, experiment, draws, possible)
    low, middle, high = _quartiles(sweep.test_loss[:, :, -1].double())
    theory_loss = torch.full_like(middle, torch.nan) if version.adam_bias else _median(expected.loss)
    columns = (lambdas, middle, low, high, theory_loss, _median(expected.ridge))
    table = {name: column.numpy() for name, column in zip(CURVE_SCHEMA, columns, strict=True)}
    best = theory.best_lam(experiment.data) if isinstance(experiment.data, Synthetic) else None
    return LambdaCurve(
        version.name,
        len(draws),
        pl.DataFrame(table, schema=CURVE_SCHEMA),
        best_lam=possible[int(middle.nan_to_num(torch.inf).argmin())],
        best_lam_theory=None if best is None else best * version.loss_scale / version.lam_factor,
    )


def workable(
    version: Version, experiment: Experiment, draws: Sequence[Draw], lambdas: Sequence[float]
) -> list[float]:
    """Those of the λ at which gradient descent on full batches converges, for every draw."""
    h = max(theory.largest_curvature(one.X, with_bias=not version.adam_bias) for one in draws)
    possible = []
    for given in lambdas:
        lam, lr = version.canonical(given, experiment.lr)
        if lr * (h + lam) < 2 and lr * lam < 1:
            possible.append(given)
    return possible


@dataclass(frozen=True)
class _Predicted:
    """For S seeds and L strengths: test loss and bias of the expected w_t, b_t, and of exact ridge.

    Where Adam steps the bias, `loss` and `b` are not what is expected and must not be shown.
    """

    loss: Float64[Tensor, "S L"]
    b: Float64[Tensor, "S L"]
    ridge: Float64[Tensor, "S L"]
    ridge_b: Float64[Tensor, "S L"]


def predicted(
    version: Version, experiment: Experiment, draws: Sequence[Draw], given: Sequence[float]
) -> _Predicted:
    """What theory says of each draw at each λ."""
    lambdas, lr = version.canonical(torch.tensor(given, dtype=torch.float64), experiment.lr)
    rows = []
    for one in draws:
        models = theory.ridge_models(one, lambdas, experiment.penalize_bias)
        path = theory.expected_path(
            one.X,
            one.y,
            *version.start(one, experiment),
            lambdas,
            lr=lr,
            steps=[experiment.steps],
            penalize_bias=experiment.penalize_bias,
        )
        ridge = models.half_mse(one.X_test, one.y_test)
        loss = path.half_mse(one.X_test, one.y_test)[:, 0]
        rows.append((loss, path.b[:, 0], ridge, models.b))
    return _Predicted(*map(torch.stack, zip(*rows, strict=True)))


def _quartiles(values: Float64[Tensor, "S L"]) -> Float64[Tensor, "3 L"]:
    return values.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=0)


def _median(values: Float64[Tensor, "S L"]) -> Float64[Tensor, " L"]:
    return values.quantile(0.5, dim=0)
