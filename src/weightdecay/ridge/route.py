"""The base of the algorithms for the path: a curve over λ, and solutions at the λ that are chosen."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from weightdecay.ridge.gram import Covariance

# How λ is judged: a criterion by name, a fold for each row, or (training rows, test rows) for each split.
Criterion = Literal["loo", "gcv", "evidence"]
Split = tuple[Tensor, Tensor]
Scheme = Criterion | Int64[Tensor, " n"] | list[Split]


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


def joined(curves: list[Curve]) -> Curve:
    """Join the curves of one table on grids that follow each other."""
    folds = [curve.folds for curve in curves if curve.folds is not None]
    joints = [curve.joint for curve in curves if curve.joint is not None]
    return Curve(
        torch.cat([curve.mean for curve in curves]),
        torch.cat([curve.error for curve in curves]),
        torch.cat(folds, dim=1) if folds else None,
        torch.cat([curve.precision for curve in curves]),
        (lambda: torch.cat([joint().cpu() for joint in joints])) if joints else None,
    )


@dataclass(frozen=True)
class Scale:
    """The size of the eigenvalues, by which grids are made.

    Args:
        mean: of those that are not zero.
        largest: the largest.
    """

    mean: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class Route(ABC):
    """An algorithm, with its data and its scheme; everything below is small once it is made.

    Args:
        name: what was decomposed, in words.
        n: how many rows are fitted.
        width: how many columns there are.
        device: where it is computed.
        variance: the targets' weighted variances (1/n) (t,).
        constant: places of the columns that do not vary.
        unpenalized: how many coefficients are free, the intercept among them.
    """

    name: str
    n: int
    width: int
    device: torch.device
    variance: Float64[Tensor, " t"]
    constant: list[int]
    unpenalized: int

    @abstractmethod
    def spectrum(self) -> Float64[Tensor, " k"]:
        """Return the eigenvalues of the penalised, scaled, projected X'X on all rows.

        They descend; those within rounding of zero are 0.
        """

    def spectrum_scale(self) -> Scale:
        """Return the mean and the largest eigenvalue, which may be cheaper than all; 1 where all are zero."""
        positive = self.spectrum()
        positive = positive[positive > 0]
        return Scale(float(positive.mean()), float(positive.max())) if len(positive) else Scale(1.0, 1.0)

    @abstractmethod
    def curve(self, alphas: Float64[Tensor, " L"]) -> Curve:
        """Return the score at every α."""

    @abstractmethod
    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """Return coefficients and intercepts on the original scale, an α for each target."""

    @abstractmethod
    def rss(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
        """Return the weighted training residual sum of squares."""

    @abstractmethod
    def out_of_fold(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "n t"]:
        """Predict each row by a fit without it, leave-one-out where there are no folds.

        NaN for rows that no split holds out; the mean where several do.
        """

    def out_of_fold_blocks(self, alphas: Float64[Tensor, " t"]) -> Iterator[Float64[Tensor, "b t"]]:
        """Yield the predictions of `out_of_fold` in blocks of consecutive rows."""
        yield self.out_of_fold(alphas)

    @abstractmethod
    def covariance(self, alpha: float) -> Covariance:
        """Return (X'X + αF)^-1, for standard errors and intervals."""

    @abstractmethod
    def spread(self, alpha: float) -> Float64[Tensor, " p"]:
        """Return the standard errors of the coefficients in units of σ.

        They are the roots of the diagonal of (X'X + αF)^-1 X'X (X'X + αF)^-1.
        """

    @abstractmethod
    def inputs(self) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
        """Return the weighted means and standard deviations (1/n) of the columns; 0 for a constant one."""

    @abstractmethod
    def correlations(self) -> Float64[Tensor, "p t"]:
        """Return the weighted correlations of the columns with the targets; NaN where one does not vary."""


def at_least(alphas: Float64[Tensor, " L"], route: Route, squares: bool = True) -> Float64[Tensor, " L"]:
    """Replace λ = 0 by its limit: so little that it changes no singular value that float64 tells from zero.

    Args:
        alphas: penalties.
        route: for the scale of the eigenvalues.
        squares: whether squares of α have to be in range, too.
    """
    if bool((alphas >= 1e-30).all()):
        return alphas
    largest = route.spectrum_scale().largest
    alphas = torch.where(alphas == 0, max(1e-36 * largest, 5e-324), alphas)
    return alphas.clamp_min(1e-140 * largest) if squares else alphas
