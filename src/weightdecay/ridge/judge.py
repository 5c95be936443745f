"""From an algorithm to a record: the grid, the curve on it, the choices, and what is said of them."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.ridge import grid as grids
from weightdecay.ridge.explain import MOST_DOF, doubts
from weightdecay.ridge.record import RidgePath
from weightdecay.ridge.route import Curve, Route, at_least
from weightdecay.ridge.strength import Strength
from weightdecay.select import Choice, Edge, choose, least

ENOUGH = 1e-8  # relative error of the scores at which a Gram matrix is good enough,
ENOUGH_SMALL = 1e-11  # and where singular values cost nothing
ENOUGH_SINGLE = 1e-3  # of products in single precision, which carry six digits where noise is not tiny
NEAR = grids.PER_DECADE // 2  # steps of the grid that are wanted on either side of the least score
SMALL = 1e8  # multiplications of a singular value decomposition that nobody waits for


@dataclass(frozen=True)
class Job:
    """What was asked for, beside the data.

    Args:
        strength: the convention of λ.
        lambdas: the grid as given, or None.
        shared: one λ for all targets.
        cv: how λ is judged, in words.
        features, targets: names, or None.
        single: one target, without an axis.
        settings: for the record.
        small: whether such a route costs next to nothing.
        precise: makes a route that keeps more digits than a Gram matrix, or None where there is none.
        leaks: what there is to say of a column that is the target itself.
    """

    strength: Strength
    lambdas: Any
    shared: bool
    cv: str
    features: tuple[str, ...] | None
    targets: tuple[str, ...] | None
    single: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    small: bool = False
    precise: Callable[[], Route] | None = None
    leaks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """A curve on a grid."""

    route: Route
    alphas: Float64[Tensor, " L"]
    curve: Curve


def path_of(route: Route, job: Job) -> RidgePath:
    """The record of a path: the curve on the grid, with more digits where they are needed, and the choices.

    Raises:
        InputError: strengths that cannot be used.
    """
    if route.unpenalized >= route.n:
        what = f"{route.unpenalized} with the intercept, {route.n} rows"
        remedy = "penalise more columns; nothing is left to judge λ by"
        raise InputError("as many unpenalised columns as rows", "penalty_factors", what, remedy)
    found = _on_grid(route, job)
    single = job.settings.get("dtype") == "float32"
    enough = ENOUGH_SINGLE if single else ENOUGH_SMALL if job.small else ENOUGH
    if float(found.curve.precision.max()) > enough and job.precise is not None:
        found = _on_grid(job.precise(), job)
    if bool(found.curve.mean.isnan().any()):
        what, where = "sums are beyond what float64 can hold", "the scores"
        raise InputError(what, where, "NaN", "divide the columns and the target by their size")
    judged = _judged(found, job)
    choices = [choose(one.scores, one.errors, one.doubt) for one in judged]
    lambdas = job.strength.lam(found.alphas) if job.lambdas is None else _given(job)[1]
    path = _record(found, job, choices, [one.varies for one in judged], lambdas)
    doubted = doubts(path, judged, choices, given=job.lambdas is not None)
    path = replace(path, doubts=(*doubted, *job.leaks))
    for doubt in path.doubts:
        warnings.warn(doubt, WeightDecayWarning, stacklevel=3)
    return path


def _on_grid(route: Route, job: Job) -> _Found:
    """The curve on the grid as given, or on one that is widened while the least score is at its edge."""
    device = route.device
    if job.lambdas is not None:
        alphas = at_least(_given(job)[0], route, squares=job.cv != "evidence")
        return _Found(route, alphas, route.curve(alphas.to(device)))
    scale = route.scale
    low, high = grids.first(scale)
    found = _Found(route, alphas := grids.automatic(scale, low, high), route.curve(alphas.to(device)))
    while True:
        judged = [one for one in _judged(found, job, final=False) if one.varies]
        places = [least(one.scores, one.doubt) for one in judged]
        edges = {"low" for place in places if place < NEAR}
        edges |= {"high" for place in places if place >= len(found.alphas) - NEAR}
        wider = grids.wider(low, high, edges)
        if wider == (low, high):
            return found
        below = grids.automatic(scale, wider[0], low)[:-1] if wider[0] < low else None
        above = grids.automatic(scale, high, wider[1])[1:] if wider[1] > high else None
        try:
            found = _joined(found, below, above)
        except InputError:  # inputs in single precision carry no smaller λ
            return found
        low, high = wider


def _joined(found: _Found, below: Tensor | None, above: Tensor | None) -> _Found:
    """The curve with more of the grid on one side or both."""
    device = found.route.device
    pieces = [(found.alphas, found.curve)]
    if below is not None:
        pieces.insert(0, (below, found.route.curve(below.to(device))))
    if above is not None:
        pieces.append((above, found.route.curve(above.to(device))))
    curves = [curve for _, curve in pieces]
    folds = [curve.folds for curve in curves if curve.folds is not None]
    joints = [curve.joint for curve in curves if curve.joint is not None]
    return _Found(
        found.route,
        torch.cat([alphas for alphas, _ in pieces]),
        Curve(
            torch.cat([curve.mean for curve in curves]),
            torch.cat([curve.error for curve in curves]),
            torch.cat(folds, dim=1) if folds else None,
            torch.cat([curve.precision for curve in curves]),
            (lambda: torch.cat([joint().cpu() for joint in joints])) if joints else None,
        ),
    )


def _given(job: Job) -> tuple[Float64[Tensor, " L"], Float64[Tensor, " L"]]:
    """The grid as given, as α ascending and in its own unit; repeated strengths once."""
    alphas = job.strength.alpha(job.lambdas, "lambdas")
    values = torch.from_numpy(job.strength.numbers(job.lambdas, "lambdas"))
    order = torch.from_numpy(alphas.numpy().argsort(kind="stable"))
    alphas, values = alphas[order], values[order]
    new = torch.cat([torch.ones(1, dtype=torch.bool), alphas[1:] > alphas[:-1]])
    return alphas[new], values[new]


@dataclass(frozen=True)
class Judged:
    """What λ is chosen by, for one target or for all that share one.

    Args:
        scores, errors: with their standard errors (L,).
        doubt: by how much rounding may have changed each score: its estimated precision times its size (L,).
        varies: whether the target does, or one of those that share λ.
    """

    scores: Float64[Tensor, " L"]
    errors: Float64[Tensor, " L"]
    doubt: Float64[Tensor, " L"]
    varies: bool = True


def _judged(found: _Found, job: Job, final: bool = True) -> list[Judged]:
    """What is chosen by: scores of each target, or those that are shared; with standard errors if `final`."""
    curve, scale = found.curve, found.route.variance.cpu()
    mean, error, varies = curve.mean.cpu(), curve.error.cpu(), scale > 0
    doubt = curve.precision.cpu()[:, None] * mean.abs()
    certain = curve.precision.cpu() < 1
    if bool(certain.any()):  # a score of which no digit is certain is not chosen
        mean = torch.where(certain[:, None], mean, torch.inf)
    if job.shared and job.cv == "evidence":
        mean, error, doubt = (
            mean[:, varies].sum(1, keepdim=True),
            error[:, :1],
            doubt[:, varies].sum(1, keepdim=True),
        )
    elif job.shared:
        error = _shared_error(curve, scale)[:, None] if final else error[:, :1]
        mean, doubt = ((values / scale)[:, varies].mean(1, keepdim=True) for values in (mean, doubt))
    if job.shared:
        varies = varies.any()[None]
    if job.cv == "gcv":
        s = found.route.eigenvalues.cpu()
        dof = (s / (s + found.alphas[:, None])).sum(1) + found.route.unpenalized
        believed = dof <= MOST_DOF * found.route.n
        if bool(believed.any()):
            mean = torch.where(believed[:, None], mean, torch.inf)
    return [Judged(mean[:, k], error[:, k], doubt[:, k], bool(varies[k])) for k in range(mean.shape[1])]


def _shared_error(curve: Curve, scale: Tensor) -> Float64[Tensor, " L"]:
    """The standard error of the mean over targets: they share their rows or folds, and so their luck."""
    varies = scale > 0
    if curve.folds is not None:
        folds = (curve.folds.cpu() / scale)[:, :, varies].mean(2)
        return folds.std(0) / len(folds) ** 0.5 if len(folds) > 1 else torch.zeros_like(folds[0])
    if curve.joint is not None and len(scale) > 1:
        return curve.joint().cpu()
    return (curve.error.cpu() / scale)[:, varies].mean(1)


def _record(
    found: _Found, job: Job, choices: list[Choice], varies: list[bool], lambdas: Float64[Tensor, " L"]
) -> RidgePath:
    def chosen(places: list[int]) -> float | Tensor:
        return (
            float(lambdas[places[0]]) if len(places) == 1 and (job.single or job.shared) else lambdas[places]
        )

    def squeezed(values: Tensor) -> Tensor:
        return (values[..., 0] if job.single else values).cpu()

    telling = [choice for choice, one in zip(choices, varies, strict=True) if one]
    widest = max(telling, key=lambda choice: choice.high - choice.low)
    edges: list[Edge] = [choice.edge for choice in telling if choice.edge]
    route, curve = found.route, found.curve
    return RidgePath(
        lambdas=lambdas,
        unit=job.strength.unit,
        alphas=found.alphas,
        scores=squeezed(curve.mean),
        errors=squeezed(curve.error),
        fold_scores=None if curve.folds is None else squeezed(curve.folds),
        precision=torch.where(curve.precision < 1, curve.precision, torch.inf).cpu(),
        best=chosen([choice.best for choice in choices]),
        one_se=chosen([choice.one_se for choice in choices]),
        edge=edges[0] if edges else None,
        flat=any(choice.flat for choice in telling),
        flat_range=(float(lambdas[widest.low]), float(lambdas[widest.high])),
        cv=job.cv,
        route=route.name,
        n=route.n,
        p=route.width,
        features=job.features,
        targets=job.targets,
        doubts=(),
        settings={"cv": job.cv, "unit": job.strength.unit, **job.settings},
        _solver=route,
        _strength=job.strength,
    )
