"""Ridge for tables with more rows than columns: everything from moments of the folds, taken in one pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from typing_extensions import override

from weightdecay.errors import InputError
from weightdecay.ridge import moments, scores
from weightdecay.ridge.folds import places
from weightdecay.ridge.gram import ROUNDING, Covariance, undetermined
from weightdecay.ridge.lambdas import LONG, Axis, axis, whole
from weightdecay.ridge.moments import (
    Basis,
    Moments,
    Penalty,
    basis,
    check_float32,
    deviations,
    fold_moments,
    merge_tree,
    moments_of_rows,
    training,
)
from weightdecay.ridge.problem import Problem
from weightdecay.ridge.route import Criterion, Curve, Route, Scheme
from weightdecay.ridge.scores import (
    LEAST,
    Block,
    Chooser,
    Rows,
    evidence_curve,
    folds_curve,
    gcv_curve,
    leave_one_out,
    left_out,
    null_norm,
    outside,
    products_norm,
    squares_by_moments,
    squares_by_rows,
)
from weightdecay.ridge.sparse_inputs import SparseInputs

SMALL = 4e9  # multiplications below which every λ is its own pivot


@dataclass(frozen=True)
class Tall(Route):
    """The route of moments.

    Args:
        all: moments of all rows.
        whole: the fit to them.
        parts: moments of the rows each split holds out; empty for a criterion without folds.
        trains: moments of the rows each split trains on.
        criterion: "folds", or a criterion without them.
        penalty: what is penalised.
        dtype: of the inputs, and so of their products.
        rows: the data again from the start, for what takes a second pass; None where it is gone.
        chosen: which rows of a block each split holds out.
    """

    all: Moments
    whole: Basis
    parts: Sequence[Moments]
    trains: Sequence[Moments]
    criterion: Criterion | Literal["folds"]
    penalty: Penalty
    dtype: torch.dtype
    rows: Rows | None = None
    chosen: Chooser | None = None

    @cached_property
    def bases(self) -> list[Basis]:
        """The fit of every split.

        Raises:
            InputError: one leaves an unpenalised coefficient open that all rows determine.
        """
        fits = [basis(part, self.penalty, self.dtype) for part in self.trains]
        for k, fit in enumerate(fits):
            if fit.free < self.whole.free:
                raise undetermined(k)
        return fits

    @override
    def inputs(self) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
        return self.all.x_mean, deviations(self.all, self.dtype)

    @override
    def correlations(self) -> Float64[Tensor, "p t"]:
        size = deviations(self.all, self.dtype)[:, None] * (self.all.ss / self.all.weight).sqrt()
        return self.all.g / self.all.weight / torch.where(size > 0, size, torch.nan)

    @override
    def spread(self, alpha: float) -> Float64[Tensor, " p"]:
        """The norms of the rows of R φ, for Z R is orthonormal."""
        phi = self.whole.phi(torch.tensor([alpha], dtype=torch.float64))[:, 0]
        return (self.whole.R[: self.all.p] * phi).norm(dim=1)

    @override
    def spectrum(self) -> Float64[Tensor, " k"]:
        return self.whole.s

    @override
    def curve(self, alphas: Float64[Tensor, " L"]) -> Curve:
        """The score at every α.

        Raises:
            InputError: float32 inputs and an α under 1e-6 of the largest eigenvalue; rows that are gone.
        """
        alphas = alphas.to(self.device)
        if self.dtype == torch.float32:
            check_float32(alphas, self.whole.largest)
        if self.criterion == "gcv":
            return self._gcv(alphas)
        if self.criterion == "evidence":
            return self._evidence(alphas)
        return self._loo(alphas) if self.criterion == "loo" else self._folds(alphas)

    def _folds(self, alphas: Float64[Tensor, " L"]) -> Curve:
        grid = self._axis(alphas, self.bases, 6 * self.all.p**2 * len(self.parts))
        sums, lost = [], torch.zeros_like(alphas)
        again = []
        for k, (fit, part) in enumerate(zip(self.bases, self.parts, strict=True)):
            squares, terms = squares_by_moments(fit, part, grid)
            sums.append(squares)
            ratio = scores.cancelled(squares, terms, carried=len(grid.pivots) < len(alphas))
            if self.rows is not None and bool((ratio > scores.AGAIN).any()):
                again.append(k)
            else:
                lost = torch.maximum(lost, self._eps * ratio.amax(1))
        if again:
            assert self.rows is not None
            assert self.chosen is not None
            for k, squares in zip(
                again, squares_by_rows(self.bases, self.rows, self.chosen, grid, again), strict=True
            ):
                sums[k] = squares
        weights = [part.weight for part in self.parts]
        errors = torch.stack(sums).sum(0)
        scale = torch.stack(
            [part.ss + part.weight * (part.y_mean - self.all.y_mean) ** 2 for part in self.parts]
        ).sum(0)
        precision = scores.of_fits(self.bases, alphas, scale, errors, self._eps, self._null) + 4 * lost
        return folds_curve([s.clamp_min(0) for s in sums], weights, scores.with_squares(precision))

    def _loo(self, alphas: Float64[Tensor, " L"]) -> Curve:
        fit, n = self.whole, self.n
        grid = self._axis(alphas, [fit], 4 * self.all.p * n)
        errors = leave_one_out(
            fit, self._data("leave-one-out takes a second pass over the rows"), n, grid, self.variance
        )
        if errors.needed <= LEAST:
            raise InputError(
                "a row cannot be left out",
                "cv",
                "'loo'",
                "without it an unpenalised column has nothing to say; penalise the column, or use folds",
            )
        mean = errors.sums / self.all.weight
        precision = scores.of_fits([fit], alphas, self.all.ss, errors.sums, self._eps, self._null)
        precision = precision / errors.slack + self._eps * scores.carried_rounding(
            errors.sums, len(grid.pivots) < len(alphas)
        )
        unit = n**0.5 / self.all.weight
        precision = scores.with_squares(precision)
        return Curve(mean, errors.spread * unit, None, precision, lambda: errors.joint * unit)

    def _gcv(self, alphas: Float64[Tensor, " L"]) -> Curve:
        n, rss = self.n, self.rss(alphas)
        share = (self.whole.lost(alphas).sum(0) + n - self.whole.rank - self.unpenalized) / n  # 1 − dof/n
        mean = rss / n / share[:, None] ** 2
        precision = scores.of_criterion(self.whole, alphas, rss, self._eps, self._outside_lost, self._null)
        curve = gcv_curve(mean, n, scores.with_squares(precision + 4 * self._eps / share))
        return curve if self.rows is None else replace(curve, joint=partial(self._joint, alphas, share))

    def _joint(self, alphas: Tensor, share: Tensor) -> Tensor:
        """For generalised CV: √(2/n) as for one target, with the correlations of the residuals."""
        fit, variance = self.whole, self.variance
        scale = torch.where(variance > 0, variance, torch.inf).rsqrt()
        products = outside(fit, self._data("correlations take a second pass over the rows"))
        norm = products_norm(fit.c * scale, fit.lost(alphas), products * scale[:, None] * scale)
        return norm * (2 / self.n) ** 0.5 / (share**2 * self.n * max(1, (variance > 0).sum()))

    def _evidence(self, alphas: Float64[Tensor, " L"]) -> Curve:
        fit, left = self.whole, self.n - self.unpenalized
        misfit = self._outside + fit.lost(alphas).mT @ fit.c**2
        tiny = torch.finfo(torch.float64).tiny
        spread = torch.log1p(fit.s[:, None] / alphas).sum(0)
        mean = left * (misfit / left).clamp_min(tiny).log() + spread[:, None]
        relative = scores.of_criterion(fit, alphas, misfit, self._eps, self._outside_lost, self._null)
        absolute = left * relative + scores.of_spread(fit, alphas, self._eps, self._null)
        return evidence_curve(mean, absolute / mean.abs().amin(1).clamp_min(tiny))

    @override
    def rss(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
        """What no direction reaches, and Σ c² (α/(s + α))²."""
        alphas = alphas.to(self.device)
        return self._outside + (self.whole.lost(alphas) ** 2).mT @ self.whole.c**2

    @cached_property
    def _outside(self) -> Tensor:
        """Σ w e² without a penalty; from the rows where the difference of moments has few digits left."""
        fit = self.whole
        difference = (fit.ss - (fit.c**2).sum(0)).clamp_min(0)
        if self.rows is not None and bool((difference < scores.FEW * fit.ss).any()):
            return outside(fit, self.rows).diagonal()
        return difference

    @cached_property
    def _outside_lost(self) -> Tensor:
        """Error of `_outside` and of targets along directions of small s, in units of eps (t,)."""
        fit, size = self.whole, self.whole.ss.sqrt()
        c, far = fit.c[: fit.rank], (fit.largest / fit.s[: fit.rank])[:, None]
        difference = (fit.ss - (fit.c**2).sum(0)).clamp_min(0)
        if self.rows is not None and bool((difference < scores.FEW * fit.ss).any()):
            off = scores.of_directions(fit, self._eps) * size
            here = (2 * off * self._outside.sqrt() + off**2) / self._eps
            return size * self._outside.sqrt() + here + 10 * size * (far * c).norm(dim=0)
        return fit.ss + 10 * (far * c**2).sum(0)

    @cached_property
    def _null(self) -> float:
        """An upper bound on the eigenvalues that were taken for zero."""
        if self.whole.null.shape[1] == 0 and all(fit.null.shape[1] == 0 for fit in self.bases):
            return 0.0
        if self.rows is None or self.whole.null.shape[1] == 0:
            return max(fit.floor for fit in [self.whole, *self.bases])
        return null_norm(self.whole, self.rows)

    @override
    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        return self.whole.solve(alphas)

    @override
    def out_of_fold(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "n t"]:
        return torch.cat(list(self.out_of_fold_blocks(alphas)))

    @override
    def out_of_fold_blocks(self, alphas: Float64[Tensor, " t"]) -> Iterator[Float64[Tensor, "b t"]]:
        rows = self._data("predictions out of fold take a second pass over the rows")
        alphas = alphas.to(self.device)
        if not self.bases:
            yield from self._left_out_predictions(rows, alphas)
            return
        assert self.chosen is not None
        solutions = [fit.solve(alphas) for fit in self.bases]
        for block in rows():
            predicted = block.y.new_zeros(block.y.shape)
            count = block.y.new_zeros(len(predicted), 1)
            held = self.chosen(block.first, len(block.X))
            for (coef, intercept), rows_out in zip(solutions, held, strict=True):
                if len(rows_out):
                    here = rows_out.to(predicted.device)
                    predicted[here] += block.X.index_select(0, here).double() @ coef + intercept
                    count[here] += 1
            yield torch.where(count > 0, predicted / count, torch.nan)

    def _left_out_predictions(self, rows: Rows, alphas: Tensor):
        """Targets less their errors, in blocks: each target at its own α, one after the other."""
        fit = self.whole
        for block in rows():
            predicted = torch.empty_like(block.y)
            for u, alpha in enumerate(alphas):
                one = replace(fit, c=fit.c[:, u : u + 1], center=_only(fit.center, fit.p, u),
                              rest=_only(fit.rest, fit.p, u), ss=fit.ss[u : u + 1])  # fmt: skip
                for e, _, _ in left_out(
                    one, partial(_one_target, [block], u), fit.phi(alpha[None]), raw=True
                ):
                    predicted[:, u] = block.y[:, u] - e[:, 0, 0]
            yield predicted

    @override
    def covariance(self, alpha: float) -> Covariance:
        """(X'X + αF)^-1 = Σ_k φ_k R_k R_k' + the null directions' 1/α."""
        fit, free = self.whole, self.penalty.intercept == "free"
        (m, z), none = fit.null.shape, fit.R.new_zeros(0, 0)
        known = fit.phi(fit.R.new_tensor([alpha]))[:, 0]
        rounding = ROUNDING * fit.largest / float(fit.s[fit.rank - 1]) if fit.rank else ROUNDING
        return Covariance(
            self.all.x_mean if free else torch.zeros_like(self.all.x_mean),
            fit.R.new_ones(m),
            torch.cat([fit.R, fit.null], dim=1).mT.contiguous(),
            torch.cat([known, known.new_full((z,), 1 / alpha)]),
            known.new_zeros(()),
            torch.cat([torch.zeros_like(known), known.new_full((z + 1,), rounding)]),
            fit.R.new_tensor(1 / fit.weight if free else 0.0),
            torch.zeros(0, dtype=torch.int64, device=fit.R.device),
            none.new_zeros(0, m),
            none,
        )

    @property
    def _eps(self) -> float:
        return torch.finfo(self.dtype).eps

    def _data(self, why: str) -> Rows:
        if self.rows is None:
            raise InputError("the rows are gone", "data", None, f"{why}: keep the file, or use folds")
        return self.rows

    def _axis(self, alphas: Tensor, bases: Sequence[Basis], cost: float) -> Axis:
        """Pivots where they save more than they cost."""
        if len(alphas) <= LONG and cost * len(alphas) * self.all.g.shape[1] < SMALL:
            return whole(alphas)
        positive = torch.cat([fit.s[: fit.rank] for fit in bases])
        if len(positive) == 0:
            return whole(alphas)
        # Leaving rows out makes small eigenvalues smaller.
        return axis(torch.stack([positive.min() * 1e-3, positive.max()]), alphas)


def _only(center: Tensor, p: int, u: int) -> Tensor:
    return torch.cat([center[:p], center[p + u : p + u + 1]])


def _one_target(blocks, u: int):
    for block in blocks:
        yield block._replace(y=block.y[:, u : u + 1])


def route_of_moments(
    moments: Moments,
    criterion: Criterion | Literal["folds"],
    penalty: Penalty,
    dtype: torch.dtype,
    rows: Rows | None,
    parts: Sequence[Moments] = (),
    trains: Sequence[Moments] = (),
    chosen: Chooser | None = None,
) -> Tall:
    """Factor the moments of all rows; arguments as those of `Tall`."""
    whole, sd = basis(moments, penalty, dtype), deviations(moments, dtype)
    return Tall(
        moments, whole, parts, trains, criterion, penalty, dtype, rows, chosen,
        name=f"moments of {moments.p} columns",
        n=moments.rows,
        width=moments.p,
        device=moments.G.device,
        variance=moments.ss / moments.weight,
        constant=(sd == 0).nonzero()[:, 0].tolist(),
        unpenalized=whole.free + (penalty.intercept == "free"),
    )  # fmt: skip


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused here
def tall(problem: Problem, scheme: Scheme) -> Tall:
    """Take the moments of the folds, in one pass; of every split's rows where splits are no partition.

    Raises:
        FloatingPointError: a cell is not finite.
        InputError: all rows are in one fold, or no split is left.
    """
    X, y, weights = problem.X, problem.y, problem.weights
    penalty = Penalty(problem.penalty, problem.intercept, problem.standardize)
    parts, trains, chosen = (), (), None
    if isinstance(scheme, Tensor):
        parts = fold_moments(X, y, scheme, weights)
        whole, trains, chosen = (
            merge_tree(parts),
            [*training(parts)],
            partial(_of_folds, scheme.cpu(), len(parts)),
        )
    else:
        whole = fold_moments(X, y, None, weights)[0]
    if not bool(whole.G.diagonal().sum().isfinite()):
        raise FloatingPointError("X")
    if isinstance(scheme, list):
        trains = [moments_of_rows(X, y, train, weights) for train, _ in scheme]
        parts = [moments_of_rows(X, y, test, weights) for _, test in scheme]
        chosen = partial(_of_tests, [test.cpu().sort().values for _, test in scheme])
    criterion = scheme if isinstance(scheme, str) else "folds"
    return route_of_moments(
        whole, criterion, penalty, X.dtype, partial(_blocks, problem), parts, trains, chosen
    )


def _blocks(problem: Problem) -> Iterator[Block]:
    """The rows of a problem in blocks, which are dense."""
    n, p = problem.X.shape
    step = max(moments.LEAST_ROWS, moments.BLOCK // (4 * p))
    for first in range(0, n, step):
        part = slice(first, min(n, first + step))
        weights = None if problem.weights is None else problem.weights[part]
        X = problem.X[part]
        X = X.dense() if isinstance(X, SparseInputs) else X
        yield Block(first, X, problem.y[part], weights)


def _of_folds(fold: Tensor, K: int, first: int, count: int) -> Sequence[Tensor]:
    """Held-out places in a block, where every row is in one fold."""
    return places(fold[first : first + count], K)


def _of_tests(tests: Sequence[Tensor], first: int, count: int) -> Sequence[Tensor]:
    """Held-out places in a block, where splits may overlap or leave rows out."""
    ends = torch.tensor([first, first + count])
    return [test[slice(*torch.searchsorted(test, ends).tolist())] - first for test in tests]
