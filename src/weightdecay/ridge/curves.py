"""From held-out errors at a few λ to a score and its standard error at all of them."""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from weightdecay.ridge.lambda_axis import Axis, carried, sums_of_squares
from weightdecay.ridge.linalg import gram, matmul
from weightdecay.ridge.route import Curve

EVERY = 5e6  # beyond so many errors, the standard error is taken at some λ and interpolated
SOME = 32


class RowSums:
    """Σ over targets of squared errors, each target's in units of its variance: one number for each row.

    Targets share their rows, and so their luck: the standard error of a mean over targets is that of these.

    Args:
        L: length of the grid.
        variance: of all targets (t,); those that do not vary are left out.
        n: number of rows.
    """

    def __init__(self, L: int, variance: Float64[Tensor, " t"], n: int) -> None:
        self.places = some_places(L, n * len(variance))
        self.count = int((variance > 0).sum())
        self.q = variance.new_zeros(len(self.places), n)

    def error(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        """The standard error of the mean over rows and targets."""
        error = self.q.std(1) / (self.q.shape[1] ** 0.5 * max(1, self.count))
        return between(error[:, None], self.places, alphas)[:, 0]


def loo_curve(
    E: Float64[Tensor, "r t n"],
    grid: Axis,
    precision: Float64[Tensor, " L"],
    variance: Float64[Tensor, " t"],
    among: RowSums,
) -> Curve:
    """The leave-one-out curve: the mean of n squared errors, and sd(e²)/√n.

    Where n, λ and targets are many the standard error is taken at 32 λ of the grid and interpolated between;
    its own statistical uncertainty is orders of magnitude larger.

    Args:
        E: errors at the pivots.
        grid: of α.
        precision: estimated relative error.
        variance: of these targets.
        among: to which their squared errors are added.
    """
    n, places = E.shape[2], among.places
    mean = sums_of_squares(E, grid) / n
    tiny = torch.finfo(mean.dtype).tiny
    share = torch.where(variance > 0, mean / variance.clamp_min(tiny), 0)
    errors, first = torch.zeros(len(places), E.shape[1], dtype=mean.dtype, device=mean.device), 0
    for some, carried_errors in carried(E, grid, places):
        here = slice(first, first := first + len(some))
        e = carried_errors.square_().div_(mean[some].clamp_min(tiny)[:, :, None])  # of mean 1: e⁴ in range
        variance_of_e = (torch.linalg.vecdot(e, e) / n - 1).clamp_min(0) / max(1, n - 1)
        errors[here] = mean[some] * variance_of_e.sqrt()
        among.q[here] += matmul(share[some][:, None, :], e)[:, 0]
    return Curve(mean, between(errors, places, grid.alphas), None, precision.to(mean.device))


def folds_curve(
    sums: list[Float64[Tensor, "L t"]], weights: list[float], precision: Float64[Tensor, " L"]
) -> Curve:
    """The curve over folds: the mean over all held-out rows, and sd(fold means)/√K.

    Args:
        sums: Σ w e² on each fold's held-out rows (L, t).
        weights: Σ w of those rows.
        precision: estimated relative error (L,).
    """
    folds = torch.stack([total / weight for total, weight in zip(sums, weights, strict=True)])
    mean = torch.stack(sums).sum(0) / sum(weights)
    unit = mean.clamp_min(torch.finfo(mean.dtype).tiny)  # squares of scores may be out of range
    spread = (folds / unit).std(0) * unit if len(folds) > 1 else torch.zeros_like(mean)
    return Curve(mean, spread / len(folds) ** 0.5, folds, precision.to(mean.device))


def products_norm(
    c: Float64[Tensor, "k t"], keep: Float64[Tensor, "k L"], outside: Float64[Tensor, "t t"] | None
) -> Float64[Tensor, " L"]:
    """‖E'E‖ (Frobenius) of the residuals E of t targets at every λ: of their squares' covariances.

    Args:
        c: targets in the eigenbasis.
        keep: α/(s + α).
        outside: products of what of the targets no direction reaches.
    """
    d = keep**2
    total = (d * matmul(gram(c) ** 2, d)).sum(0)
    if outside is not None:
        total = total + 2 * d.mT @ (matmul(c, outside) * c).sum(1) + (outside**2).sum()
    return total.clamp_min(0).sqrt()


def gcv_curve(mean: Float64[Tensor, "L t"], n: int, precision: Float64[Tensor, " L"]) -> Curve:
    """Generalised CV, with the standard error of a mean of n squares of normal errors, mean·√(2/n)."""
    return Curve(mean, mean * (2 / n) ** 0.5, None, precision.to(mean.device))


def evidence_curve(mean: Float64[Tensor, "L t"], precision: Float64[Tensor, " L"]) -> Curve:
    """The evidence: one unit of −2 log is what one standard error of log λ costs."""
    return Curve(mean, torch.ones_like(mean), None, precision.to(mean.device))


def side_by_side(parts: list[Curve]) -> Curve:
    """The curves of some targets and of others, as one."""
    folds = [part.folds for part in parts if part.folds is not None]
    return Curve(
        torch.cat([part.mean for part in parts], dim=1),
        torch.cat([part.error for part in parts], dim=1),
        torch.cat(folds, dim=2) if folds else None,
        torch.stack([part.precision for part in parts]).amax(0),
    )


def some_places(L: int, errors: int) -> Int64[Tensor, " m"]:
    """Places of a grid of L at which a standard error is taken: all where the errors at one λ are few."""
    count = L if errors * L <= EVERY else min(L, SOME)
    return torch.linspace(0, L - 1, count).round().long()


def between(
    values: Float64[Tensor, "m t"], places: Tensor, alphas: Float64[Tensor, " L"]
) -> Float64[Tensor, "L t"]:
    """Linear in log α between the places where values are known."""
    if len(places) == len(alphas):
        return values
    known = alphas[places].log()
    right = torch.searchsorted(known, alphas.log()).clamp(1, len(places) - 1)
    share = (alphas.log() - known[right - 1]) / (known[right] - known[right - 1])
    share = share.clamp(0, 1)[:, None].to(values.device)
    return values[right - 1] * (1 - share) + values[right] * share
