"""How many digits a route through moments leaves: estimates that are never smaller than the error."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.ridge.basis import Basis

AGAIN = 1e6  # terms this much larger than their difference: the rows are read again
FEW = 1e-6
SAFETY = 100.0


def cancelled(
    found: Float64[Tensor, "L t"], terms: Float64[Tensor, "L t"], carried: bool
) -> Float64[Tensor, "L t"]:
    """How much larger the terms are than what is left of them."""
    if carried:
        terms = terms.amax(0).expand_as(found)
    return terms / found.clamp_min(torch.finfo(found.dtype).tiny)


def carried(found: Float64[Tensor, "L t"], carried: bool) -> Float64[Tensor, " L"]:
    """What carrying errors from pivots to all λ costs, in eps: relative to the largest error of the grid."""
    if not carried:
        return torch.zeros_like(found[:, 0])
    ratio = found.amax(0) / found.clamp_min(torch.finfo(found.dtype).tiny)
    return 200 * ratio.sqrt().amax(1)


def condition(bases: Sequence[Basis], alphas: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
    """The largest condition number of what is inverted, at every α."""
    worst = torch.ones_like(alphas)
    for fit in bases:
        if fit.rank:
            worst = torch.maximum(worst, fit.largest / (fit.s[fit.rank - 1] + alphas))
        worst = worst.clamp_min(fit.free_condition)
    return worst


def of_fits(
    bases: Sequence[Basis],
    alphas: Float64[Tensor, " L"],
    total: Float64[Tensor, " t"],
    squares: Float64[Tensor, "L t"],
    eps: float,
    null: float,
) -> Float64[Tensor, " L"]:
    """Relative error of sums of squared errors: eps × condition number, more where y is fitted closely."""
    close = (total / squares.clamp_min(torch.finfo(squares.dtype).tiny)).clamp_min(1).sqrt().amax(1)
    return (SAFETY * eps * condition(bases, alphas) + _missed(alphas, null)) * close


def of_criterion(
    fit: Basis,
    alphas: Float64[Tensor, " L"],
    squares: Float64[Tensor, "L t"],
    eps: float,
    lost: Float64[Tensor, " t"],
    null: float,
) -> Float64[Tensor, " L"]:
    """Relative error of a residual sum of squares."""
    tiny = torch.finfo(squares.dtype).tiny
    own = 8 * eps * (lost / squares.clamp_min(tiny)).amax(1)
    return own + of_fits([fit], alphas, fit.ss, squares, eps, null)


def with_squares(precision: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
    """Of a square whose root has this relative error: it counts twice, and squared where it is not small."""
    return precision + precision**2


def of_spread(fit: Basis, alphas: Float64[Tensor, " L"], eps: float, null: float) -> Float64[Tensor, " L"]:
    """Absolute error of Σ log(1 + s/α)."""
    s = fit.s[: fit.rank, None]
    missed = fit.null.shape[1] * torch.log1p(max(null, 0.0) / alphas)
    return (8 * eps * fit.largest / (s + alphas)).sum(0) + missed + 8 * eps


def of_directions(fit: Basis, eps: float) -> float:
    """How far from orthonormal the rows along the directions may be: eps × condition number at α = 0."""
    return SAFETY * eps * fit.largest / float(fit.s[fit.rank - 1]) if fit.rank else 0.0


def _missed(alphas: Float64[Tensor, " L"], null: float) -> Float64[Tensor, " L"]:
    """The share that directions taken for null could have had in a fit."""
    return 4 * null / (null + alphas) if null else torch.zeros_like(alphas)
