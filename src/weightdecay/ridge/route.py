"""What every algorithm for the path gives: a curve over λ, and a solution at the λ that is chosen."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from weightdecay.ridge.gram import Covariance

# How λ is judged: a criterion by name, a fold for each row, or (training rows, test rows) for each split.
Criterion = Literal["loo", "gcv", "evidence"]
Scheme = Criterion | Int64[Tensor, " n"] | list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Curve:
    """A score at every λ, for every target.

    Args:
        mean: the score: mean squared error out of fold or leave-one-out, generalised CV, or −2 log evidence
            (L, t).
        error: its standard error: over folds sd(fold means)/√K; for leave-one-out sd(e²)/√n; for generalised
            CV mean·√(2/n); for the evidence 1, a drop of ½ in log likelihood (L, t).
        folds: mean squared error of each fold (K, L, t), or None.
        precision: a bound on the relative error of `mean`; 1 or more where no digit is certain (L,).
        joint: for leave-one-out and generalised CV of several targets, called where one λ is chosen for all:
            the standard error of the mean over targets of their scores in units of their variances (L,).
    """

    mean: Float64[Tensor, "L t"]
    error: Float64[Tensor, "L t"]
    folds: Float64[Tensor, "K L t"] | None
    precision: Float64[Tensor, " L"]
    joint: Callable[[], Float64[Tensor, " L"]] | None = None


@dataclass(frozen=True)
class Scale:
    """The size of the eigenvalues, by which grids are made.

    Args:
        mean: of those that are not zero.
        largest: the largest.
    """

    mean: float
    largest: float


@runtime_checkable
class Route(Protocol):
    """An algorithm, with its data and its scheme; everything below is small once it is made."""

    @property
    def name(self) -> str:
        """What was decomposed, in words."""
        ...

    @property
    def eigenvalues(self) -> Float64[Tensor, " k"]:
        """Of the penalised, scaled, projected X'X on all rows, descending, rounding zeros set to 0."""
        ...

    @property
    def scale(self) -> Scale:
        """The mean and the largest eigenvalue, which may be cheaper than all."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        ...

    @property
    def n(self) -> int:
        """How many rows are fitted."""
        ...

    @property
    def variance(self) -> Float64[Tensor, " t"]:
        """The targets' weighted variances (1/n)."""
        ...

    @property
    def width(self) -> int:
        """How many columns there are."""
        ...

    @property
    def still(self) -> list[int]:
        """Places of the columns that do not vary."""
        ...

    @property
    def unpenalized(self) -> int:
        """How many coefficients are free, the intercept among them."""
        ...

    def curve(self, alphas: Float64[Tensor, " L"]) -> Curve:
        """The score at every α."""
        ...

    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """Coefficients and intercepts on the original scale, an α for each target; for one target several."""
        ...

    def rss(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
        """The weighted training residual sum of squares."""
        ...

    def out_of_fold(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "n t"]:
        """Predictions of each row by a fit without it."""
        ...

    def out_of_fold_blocks(self, alphas: Float64[Tensor, " t"]) -> Iterator[Float64[Tensor, "b t"]]:
        """The same in blocks of consecutive rows."""
        ...

    def covariance(self, alpha: float) -> Covariance:
        """(X'X + αF)^-1, for standard errors and intervals."""
        ...

    def spread(self, alpha: float) -> Float64[Tensor, " p"]:
        """The roots of the diagonal of (X'X + αF)^-1 X'X (X'X + αF)^-1: standard errors in units of σ."""
        ...

    def inputs(self) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
        """Weighted means and standard deviations (1/n) of the columns, for the record."""
        ...


def scale_of(s: Float64[Tensor, " k"]) -> Scale:
    """The scale of eigenvalues; 1 where all are zero."""
    positive = s[s > 0]
    return Scale(float(positive.mean()), float(positive.max())) if len(positive) else Scale(1.0, 1.0)


def at_least(alphas: Float64[Tensor, " L"], route: Route, squares: bool = True) -> Float64[Tensor, " L"]:
    """λ = 0 is the limit: so little that no singular value that float64 can tell from zero knows it.

    Args:
        alphas: as given.
        route: for the scale of the eigenvalues.
        squares: whether squares of α have to be in range, too.
    """
    if bool((alphas >= 1e-30).all()):
        return alphas
    largest = route.scale.largest
    alphas = torch.where(alphas == 0, max(1e-36 * largest, 5e-324), alphas)
    return alphas.clamp_min(1e-140 * largest) if squares else alphas
