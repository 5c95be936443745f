"""What figures of a path show beside its curve: coefficients over λ, predictions beside measurements."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.record import RidgePath


@dataclass(frozen=True, eq=False)
class CoefficientPath:
    """Coefficients over λ, of the columns whose coefficients are largest at the best λ.

    Args:
        lambdas: λ (L,).
        unit: the convention of λ.
        coef: coefficients times the inputs' standard deviations (L, m, t): the change of the prediction
            when a column moves by one sd, which can be compared between columns.
        names: the m columns, that of largest coefficient first.
        targets: the t targets' names.
        p: how many columns there are in all.
        best: λ of least score, one for each target (t,).
        one_se: λ of the one-standard-error rule (t,).
    """

    lambdas: Float64[Tensor, " L"]
    unit: str
    coef: Float64[Tensor, "L m t"]
    names: tuple[str, ...]
    targets: tuple[str, ...]
    p: int
    best: Float64[Tensor, " t"]
    one_se: Float64[Tensor, " t"]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of rows that the fit had not seen, beside what was measured.

    Args:
        targets: the t targets' names.
        measured: (n, t).
        predicted: out of fold (n, t); NaN where a row was never held out.
        rmse: root mean squared error of each target (t,).
        r2: 1 − Σ(error²) / Σ(measured − mean)² of each target (t,).
        how: the splitter, in words.
    """

    targets: tuple[str, ...]
    measured: Float64[Tensor, "n t"]
    predicted: Float64[Tensor, "n t"]
    rmse: Float64[Tensor, " t"]
    r2: Float64[Tensor, " t"]
    how: str


def coefficient_path(path: RidgePath, most: int = 200, points: int = 60) -> CoefficientPath:
    """The coefficient path, thinned so that it can be drawn.

    Args:
        path: a fitted path.
        most: keep so many columns at most.
        points: and so many λ.
    """
    step = max(1, -(-len(path.lambdas) // points))
    lambdas = path.lambdas.cpu()[::step]
    scale = path._solver.inputs()[1].cpu()
    best = _each(path, path.best)
    final = _columns(path.coef(path.best)) * scale[:, None]
    order = final.abs().amax(1).argsort(descending=True)[:most]
    rows = [_columns(path.coef(float(lam)))[order] * scale[order, None] for lam in lambdas]
    features = path.features or tuple(f"column {i + 1}" for i in range(path.p))
    return CoefficientPath(
        lambdas=lambdas,
        unit=path.unit,
        coef=torch.stack(rows),
        names=tuple(features[i] for i in order.tolist()),
        targets=target_names(path),
        p=path.p,
        best=best,
        one_se=_each(path, path.one_se),
    )


def held_out(path: RidgePath, y: Tensor, lam: float | Tensor | None = None) -> HeldOut:
    """Predictions out of fold against what was measured, with their error.

    Args:
        path: a fitted path.
        y: the targets it was fitted to, (n,) or (n, t).
        lam: λ; by default the best.

    Raises:
        InputError: the wrong number of rows.
    """
    predicted = _columns(path.out_of_fold(lam))
    measured = _columns(y.detach().double().cpu())
    if measured.shape != predicted.shape:
        raise InputError("not the targets of the fit", "y", tuple(y.shape), f"give {tuple(predicted.shape)}")
    error = predicted - measured
    seen = ~error.isnan()
    count = seen.sum(0)
    squares = torch.where(seen, error**2, 0).sum(0)
    mean = torch.where(seen, measured, 0).sum(0) / count
    spread = torch.where(seen, (measured - mean) ** 2, 0).sum(0)
    how = "loo" if path.cv in ("gcv", "evidence") else path.cv  # those two hold nothing out themselves
    rmse = (squares / count).sqrt()
    return HeldOut(target_names(path), measured, predicted, rmse, 1 - squares / spread, how)


def target_names(path: RidgePath) -> tuple[str, ...]:
    """The targets' names, or numbers."""
    return path.targets or tuple(f"target {i + 1}" for i in range(_count(path)))


def target_list(path: RidgePath, most: int = 3) -> str:
    """The targets' names in a few words; nothing where they have none."""
    names = path.targets or ()
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _count(path: RidgePath) -> int:
    return 1 if path.scores.ndim == 1 else path.scores.shape[1]


def _each(path: RidgePath, lam: float | Tensor) -> Tensor:
    """One λ for each target."""
    return torch.as_tensor(lam, dtype=torch.float64).cpu().expand(_count(path))


def _columns(values: Tensor) -> Tensor:
    values = values.double().cpu()
    return values[:, None] if values.ndim == 1 else values
