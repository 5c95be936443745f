"""Scores and their standard errors: from held-out errors at a few λ to all of them.

Then the held-out errors that come from moments, and how far rounding may have moved those scores.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.ridge.lambdas import Axis, carried, quadratic, sums_of_squares
from weightdecay.ridge.linalg import EPS, gram, matmul, one_pool
from weightdecay.ridge.moments import Basis, Moments
from weightdecay.ridge.route import Curve

EVERY = 5e6  # beyond so many errors, the standard error is taken at some λ and interpolated
SOME = 32
LEAST = 16 * EPS  # 1 − h below is rounding
MOST = 4_000_000  # numbers in a working copy: 32 MB
AGAIN = 1e6  # terms this much larger than their difference: the rows are read again
FEW = 1e-6  # of the targets' squares: below, what no direction reaches is taken from the rows
SAFETY = 100.0


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
    folds = torch.stack(sums)
    mean = folds.sum(0) / sum(weights)
    for fold, weight in zip(folds, weights, strict=True):
        fold /= weight
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


# Errors from moments, with another pass over the rows where that is needed.


class Block(NamedTuple):
    """Consecutive rows of the data: number of the first, inputs, targets, weights."""

    first: int
    X: Float[Tensor, "b p"]
    y: Float64[Tensor, "b t"]
    weights: Float64[Tensor, " b"] | None


Rows = Callable[[], Iterator[Block]]
Chooser = Callable[
    [int, int], Sequence[Int64[Tensor, " m"]]
]  # (first row, count) -> places held out, by split


def targets_at_once(numbers: int, t: int) -> list[slice]:
    """Slices of targets such that `numbers` for each of them fit a working copy."""
    width = max(1, MOST // max(1, numbers))
    return [slice(first, min(t, first + width)) for first in range(0, t, width)]


def squares_by_moments(
    basis: Basis, part: Moments, grid: Axis
) -> tuple[Float64[Tensor, "L t"], Float64[Tensor, "L t"]]:
    """Σ w e² on rows held out, from their moments, and the size of the terms it is the difference of.

    ss − 2 b'g + b'G b + W (dy − d'b)²,   d = m − centre of the training rows
    """
    p, t = part.p, len(part.ss)
    d = (part.mean - basis.center) + (part.rest - basis.rest)
    T = grid.T.to(part.G.device)
    squares, terms = part.G.new_empty(T.shape[1], t), part.G.new_empty(T.shape[1], t)
    for some in targets_at_once(3 * len(basis.R) * len(grid.pivots), t):
        B = basis.fits(grid.few, some)
        b = B[:p]
        q, u = b.shape[1:]
        Gb = matmul(part.G, b.reshape(p, -1)).reshape(p, q, u)
        quadratic = b.permute(2, 1, 0) @ Gb.permute(2, 0, 1)  # (u, q, q)
        bending = ((quadratic @ T) * T).sum(1).T
        linear = T.T @ (b * part.g[:, some][:, None]).sum(0)
        shift = matmul(d[:p][None], b.reshape(p, -1)).reshape(q, u)
        shift = T.T @ (shift + B[p] if basis.ones else shift)
        ss, dy, W = part.ss[some], d[p:][some], part.weight
        squares[:, some] = ss - 2 * linear + bending + W * (dy - shift) ** 2
        terms[:, some] = ss + bending.abs() + W * (dy.abs() + shift.abs()) ** 2
    return squares, terms


def centred(block: Block, basis: Basis, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Inputs (with a column of ones if need be) and targets less the centre of the training rows, float64."""
    X, y = (block.X, block.y) if places is None else (block.X.index_select(0, places), block.y[places])
    p = X.shape[1]
    Z = X.double() - basis.center[:p]
    Z -= basis.rest[:p]
    if basis.ones:
        Z = torch.cat([Z, Z.new_ones(len(Z), 1)], dim=1)
    return Z, y - basis.center[p:] - basis.rest[p:]


@one_pool()
def squares_by_rows(
    bases: Sequence[Basis], rows: Rows, chosen: Chooser, grid: Axis, which: Sequence[int]
) -> list[Float64[Tensor, "L t"]]:
    """Σ w e² on the rows held out, for some splits: one more pass over the rows for each slice of targets.

    Args:
        bases: the fit of every split.
        rows: the data, from the start.
        chosen: which rows of a block each split holds out.
        grid: of α.
        which: splits to compute.
    """
    T = grid.T
    L, t = T.shape[1], bases[0].c.shape[1]
    sums = [torch.zeros(L, t, dtype=torch.float64, device=bases[0].R.device) for _ in which]
    for some in targets_at_once(len(which) * len(bases[0].R) * len(grid.pivots), t):
        fits = [bases[k].fits(grid.few, some) for k in which]
        for block in rows():
            places = chosen(block.first, len(block.X))
            for place, k in enumerate(which):
                if len(places[k]) == 0:
                    continue
                here = places[k].to(block.X.device)
                Z, y = centred(block, bases[k], here)
                b = fits[place]
                e = y[:, None, some] - matmul(Z, b.reshape(len(b), -1)).reshape(len(Z), *b.shape[1:])
                if block.weights is not None:
                    e *= block.weights[here].sqrt()[:, None, None]
                e = e.permute(2, 0, 1) @ T.to(e.device)
                sums[place][:, some] += (e**2).sum(1).T
    return sums


class LeaveOneOut(NamedTuple):
    """Leave-one-out errors, summed, q_i = w_i e_i² in units of the target's variance.

    Args:
        sums: Σ w e² (L, t).
        spread: sd of q over the rows (L, t).
        joint: sd over the rows of q's mean over targets (L,).
        slack: the least 1 − h_i (L,), `LEAST` where it is no more than rounding.
        needed: the same by the unpenalised part alone: `LEAST` if it has no solution without some row.
    """

    sums: Float64[Tensor, "L t"]
    spread: Float64[Tensor, "L t"]
    joint: Float64[Tensor, " L"]
    slack: Float64[Tensor, " L"]
    needed: float


@one_pool()
def leave_one_out(
    basis: Basis, rows: Rows, n: int, grid: Axis, variance: Float64[Tensor, " t"]
) -> LeaveOneOut:
    """A pass over the rows:  e_i = r_i/(1 − h_i),  r = y − W(φ∘c),  h = w/Σw + (W∘W) φ,  W = Z R.

    An error left out is, as a function of α, a sum of 1/(s + α) again: so errors are computed at the grid's
    pivots and carried over.
    """
    T, P = grid.T.to(basis.R.device), basis.phi(grid.few)
    L, t, q = T.shape[1], basis.c.shape[1], P.shape[1]
    if basis.free:  # nothing but the unpenalised part, as at α = ∞
        P = torch.cat([P, (torch.arange(len(P), device=P.device) >= basis.rank).double()[:, None]], dim=1)
    needed = 1.0
    places = some_places(L, n * t)
    products, totals = basis.R.new_zeros(t, q, q), basis.R.new_zeros(2, len(places), t + 1)
    among = basis.R.new_zeros(0, len(places))  # of the targets' mean, row by row
    slack, varies = basis.R.new_ones(q), variance > 0
    unit = torch.where(varies, variance, 1)
    for e, left, some in left_out(basis, rows, P):
        needed = min(needed, float(left[:, q:].min())) if basis.free else needed
        e, slack = e[:, :q], torch.minimum(slack, left[:, :q].amin(0))
        if some.start == 0:
            among = e.new_zeros(len(e), len(places))
        for u in range(e.shape[2]):
            errors = e[:, :, u].contiguous()
            products[some.start + u] += gram(errors.mT)
            every = matmul(errors, T[:, places]).square_().div_(unit[some.start + u])
            totals[:, :, some.start + u] += torch.stack(
                [every.sum(0), torch.linalg.vecdot(every, every, dim=0)]
            )
            if varies[some.start + u]:
                among += every / varies.sum()
        if some.stop == t:
            totals[:, :, t] += torch.stack([among.sum(0), torch.linalg.vecdot(among, among, dim=0)])
    mean, squares = totals / n
    spread = between(((squares - mean**2).clamp_min(0) * n / max(1, n - 1)).sqrt(), places, grid.alphas)
    whole = (slack @ T) if q == L else slack.min().expand(L)
    return LeaveOneOut(quadratic(products, grid), spread[:, :t] * unit, spread[:, t], whole, needed)


def left_out(
    basis: Basis, rows: Rows, P: Float64[Tensor, "r q"], raw: bool = False
) -> Iterator[tuple[Float64[Tensor, "b q u"], Float64[Tensor, "b q"], slice]]:
    """For blocks of rows and of targets: √w e (or e if `raw`), 1 − h, and which targets."""
    t = basis.c.shape[1]
    for block in rows():
        Z, y = centred(block, basis)
        W = matmul(Z, basis.R)
        h = matmul(W * W, P)
        if basis.intercept == "free":
            h += 1 / basis.weight
        root = None
        if block.weights is not None:
            h *= block.weights[:, None]
            root = block.weights.sqrt()[:, None, None]
        left = (1 - h).clamp_min(LEAST)
        for some in targets_at_once(len(Z) * P.shape[1] * 4, t):
            c = basis.c[:, some]
            q, u = P.shape[1], c.shape[1]
            fitted = matmul(W, (P[:, :, None] * c[:, None, :]).reshape(len(P), q * u))
            e = (y[:, None, some] - fitted.reshape(len(Z), q, u)) / left[:, :, None]
            if root is not None and not raw:
                e *= root
            yield e, left, some


@one_pool()
def outside(basis: Basis, rows: Rows) -> Float64[Tensor, "t t"]:
    """Σ w e e' of the fit without a penalty, from the rows: what of the targets no direction reaches."""
    t = len(basis.ss)
    total = basis.R.new_zeros(t, t)
    b = matmul(basis.R, basis.c)
    for block in rows():
        Z, y = centred(block, basis)
        e = y - matmul(Z, b)
        total += gram((e if block.weights is None else e * block.weights.sqrt()[:, None]).mT)
    return total


@one_pool()
def null_norm(basis: Basis, rows: Rows) -> float:
    """No less than the true eigenvalues of directions taken for null: their length in the rows themselves."""
    total = 0.0
    for block in rows():
        Z, _ = centred(block, basis)
        W = matmul(Z, basis.null)
        if block.weights is not None:
            W *= block.weights.sqrt()[:, None]
        total += float(W.square().sum())
    return total


# How far rounding may have moved scores from moments.


def cancelled(
    squares: Float64[Tensor, "L t"], terms: Float64[Tensor, "L t"], carried: bool
) -> Float64[Tensor, "L t"]:
    """How much larger the terms are than what is left of them."""
    if carried:
        terms = terms.amax(0).expand_as(squares)
    return terms / squares.clamp_min(torch.finfo(squares.dtype).tiny)


def carried_rounding(squares: Float64[Tensor, "L t"], carried: bool) -> Float64[Tensor, " L"]:
    """What carrying errors from pivots to all λ costs, in eps: relative to the largest error of the grid."""
    if not carried:
        return torch.zeros_like(squares[:, 0])
    ratio = squares.amax(0) / squares.clamp_min(torch.finfo(squares.dtype).tiny)
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
