"""The routes through the rows: from their products, or from the singular values of X.

For tables with no more rows than columns, and for any table in memory where digits are short. `ByRows`
decomposes all rows; `ByFolds` takes few folds of many rows by Lanczos.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor
from typing_extensions import override

from weightdecay.errors import InputError
from weightdecay.ridge.folds import each_once
from weightdecay.ridge.gram import (
    Covariance,
    Cross,
    DirectFold,
    Fold,
    Kernel,
    Noise,
    Rows,
    coefficients,
    covariance_of_rows,
    decompose,
    decompose_directly,
    direct_fold,
    evidence_bound,
    fold_of,
    free_part,
    fresh_fold,
    gcv,
    gcv_bound,
    kernel,
    left,
    left_inverse,
    left_out_errors,
    loo_bound,
    loo_errors,
    minus_two_log_evidence,
    misfit,
    orthonormal,
    part_of_kernel,
    residuals,
    rss,
    slack,
    spread_of_rows,
    undetermined,
)
from weightdecay.ridge.lambdas import LONG, Axis, axis, sums_of_squares, whole
from weightdecay.ridge.linalg import EPS, gram, matmul
from weightdecay.ridge.problem import (
    Columns,
    Problem,
    columns,
    correlations,
    means_and_sds,
    target_variance,
    unpenalized,
)
from weightdecay.ridge.route import Criterion, Curve, Route, Scale, Scheme, Split
from weightdecay.ridge.scores import (
    RowSums,
    evidence_curve,
    folds_curve,
    gcv_curve,
    loo_curve,
    products_norm,
    side_by_side,
)

SMALL = 3e4  # held-out errors below which every λ is its own pivot
ERRORS = 20_000_000  # held-out errors that are in memory together: 160 MB
LEAST_SHARE = 1e-12  # of an unpenalised direction that a split's training rows must have of it
REFITS = 1e8  # multiplications of the decompositions that rows of large leverage may take
FEW_REFITS = 4
# Of a typical error: a row whose error may be off by more is left out for once; at the λ that are not chosen
# among a row may be off by more.
DOUBTFUL, DOUBTFUL_ELSEWHERE = 1e-10, 1e-8
LEAST_PRECISION = 2e-13  # what carrying errors from pivots to all λ may cost
# Of Lanczos:
LEAST_ROWS, MOST_FOLDS = 1200, 20  # with fewer rows or more folds decomposing is faster
SHARE = 12  # 1/12 of n steps cost no more than decomposing all rows
RESIDUAL = 1e-15  # of the target's norm
LOOK = 6  # steps between looks at the residual


@dataclass(frozen=True)
class ByRows(Route):
    """The route through the rows.

    Args:
        problem: data, weights, penalty.
        cols: how the columns enter, over all rows.
        rows: the rows' eigenbasis.
        scheme: a criterion, or the (training rows, test rows) of every split.
        kernel: the rows' products; None where singular values were taken instead.
        Vh: then the right singular vectors (k, m).
        noise: then what rounding has put into them.
    """

    problem: Problem
    cols: Columns
    rows: Rows
    scheme: Criterion | list[Split]
    kernel: Kernel | None
    Vh: Float64[Tensor, "k m"] | None = None
    noise: Noise | None = None
    _direct: dict[int, DirectFold] = field(default_factory=dict, repr=False, compare=False)

    @override
    def spectrum(self) -> Float64[Tensor, " k"]:
        return self.rows.s

    @override
    def curve(self, alphas: Float64[Tensor, " L"]) -> Curve:
        """Return the score at every α, of so many targets at a time that their errors have room."""
        n, t = self.rows.y.shape
        # Pivots where they save more than they cost: always where each takes a matrix for every fold.
        heavy = n * t * len(alphas) > SMALL or len(alphas) > LONG
        pivots = heavy or not isinstance(self.scheme, str)
        grid = axis(self.rows.s, alphas) if pivots else whole(alphas)
        score, joint = ByRows._evidence if self.scheme == "evidence" else ByRows._folds, None
        if self.scheme == "gcv":
            score, joint = ByRows._gcv, partial(self._joint, alphas)
        elif self.scheme == "loo":
            among = RowSums(len(alphas), self.variance, n)
            score, joint = partial(ByRows._loo, among=among), partial(among.error, alphas)
        few = max(1, ERRORS // (len(grid.pivots) * n))
        if t <= few:
            curve = score(self, grid)
        else:
            parts = (self._some(slice(first, first + few)) for first in range(0, t, few))
            curve = side_by_side([score(part, grid) for part in parts])
        return replace(curve, joint=joint)

    def _some(self, some: slice | Tensor) -> "ByRows":
        """Return the route of some of the targets."""
        y, rows, products = self.problem.y[:, some], self.rows, self.kernel
        return replace(
            self,
            variance=self.variance[some],
            problem=replace(self.problem, y=y),
            cols=replace(self.cols, y_mean=self.cols.y_mean[some]),
            rows=replace(rows, y=rows.y[:, some], c=rows.c[:, some]),
            kernel=None if products is None else replace(products, y=products.y[:, some]),
            noise=None if self.noise is None else self.noise.some(some),
            _direct={},
        )

    def _evidence(self, grid: Axis) -> Curve:
        rows, alphas = self.rows, grid.alphas
        mean = minus_two_log_evidence(rows, alphas)
        if self.noise is None:
            return evidence_curve(mean, self._gram_precision(alphas))
        moved = evidence_bound(rows, self.noise, alphas, misfit(rows, alphas))
        return evidence_curve(mean, (moved / mean.abs().clamp_min(torch.finfo(mean.dtype).tiny)).amax(1))

    def _gcv(self, grid: Axis) -> Curve:
        rows, alphas = self.rows, grid.alphas
        mean = gcv(rows, alphas)
        if self.noise is None:
            return gcv_curve(mean, self.n, self._precision(alphas, mean))
        return gcv_curve(mean, self.n, gcv_bound(rows, self.noise, alphas).amax(1))

    def _joint(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        """For generalised CV: √(2/n) as for one target, with the correlations of the residuals."""
        rows, variance = self.rows, self.variance
        scale = torch.where(variance > 0, variance, torch.inf).rsqrt()
        c, rest = rows.c * scale, (rows.y - matmul(rows.U, rows.c)) * scale
        norm = products_norm(c, rows.kept(alphas), None if rows.complete else gram(rest.mT))
        return norm * (2 / self.n) ** 0.5 / (left(rows, alphas) ** 2 * self.n * max(1, (variance > 0).sum()))

    def _loo(self, grid: Axis, among: RowSums) -> Curve:
        errors, bound = self._one_by_one(grid.few)
        moved = None if bound is None else (2 * errors.abs() * bound + bound**2).sum(2)
        curve = loo_curve(errors, grid, grid.alphas, self.variance, among)
        if moved is None:
            return replace(curve, precision=self._precision(grid.alphas, curve.mean))
        return replace(curve, precision=_relative(moved, curve.mean * self.n, grid, self.variance > 0))

    def _one_by_one(
        self, alphas: Float64[Tensor, " r"]
    ) -> tuple[Float64[Tensor, "r t n"], Float64[Tensor, "r t n"] | None]:
        """Leave-one-out errors, and how far rounding may have moved each where that is known.

        Rows of which 1 − h has few digits are left out for once, the worst of them first.
        """
        left_of_one = slack(self.rows, alphas)
        errors = loo_errors(self.rows, alphas, left_of_one)
        if self.noise is None:
            return errors, None
        bound = loo_bound(self.rows, self.noise, alphas, errors, left_of_one)
        n, p = self.problem.X.shape
        left_out = torch.zeros(n, dtype=torch.bool, device=self.device)
        for _ in range(max(FEW_REFITS, int(REFITS / (n * p * min(n, p))))):
            doubt = _doubt(errors, bound).masked_fill(left_out, 0)
            i = int(doubt.argmax())
            if float(doubt[i]) <= DOUBTFUL:
                break
            left_out[i] = True
            if i not in self._direct:
                kept = torch.arange(n, device=self.device) != i
                fit = self.problem.of_rows(kept.nonzero()[:, 0])
                cols = columns(fit)  # scaled as all rows are
                cols = replace(cols, factor=torch.where(cols.factor > 0, self.cols.factor, 0))
                held = self.problem.of_rows(torch.tensor([i], device=self.device))
                self._direct[i] = direct_fold(fit, cols, held)
            fold = self._direct[i]
            refitted, off = fold.errors(alphas)[:, :, 0], fold.bound(alphas)[:, :, 0]
            better = ~(off > bound[:, :, i])  # where neither is certain, too
            errors[:, :, i] = torch.where(better, refitted, errors[:, :, i])
            bound[:, :, i] = torch.where(better, off, bound[:, :, i])
        if not bool(errors.isfinite().all()):
            what, why = "a row cannot be left out", "the others say nothing of it that float64 holds"
            row = int((~errors.isfinite()).any(0).any(0).nonzero()[0])
            raise InputError(what, "row", row + 1, f"{why}: penalise more, or use folds")
        return errors, bound

    def _folds(self, grid: Axis) -> Curve:
        assert not isinstance(self.scheme, str)
        alphas, root, inside = grid.alphas, self.rows.root, None
        blockwise = self.kernel is not None and not self.problem.standardize
        sums, weights = [], []
        moved = alphas.new_zeros(len(alphas), self.rows.y.shape[1])
        for k, (train, test) in enumerate(self.scheme):
            errors, fold_grid = None, grid
            # A block of the Gram matrix: all that the training rows leave, fewer, and scaled alike.
            if blockwise and 2 * len(test) <= self.n and each_once(train, test, self.n):
                inside = residuals(self.rows, grid.few) if inside is None else inside
                errors = left_out_errors(self.rows, grid.few, test, inside)
            if errors is None:
                fold = self._fold(k)
                fold_grid = axis(fold.s, alphas) if len(alphas) > LONG else whole(alphas)
                errors = fold.errors(fold_grid.few)
                if isinstance(fold, DirectFold):
                    bound = fold.bound(fold_grid.few)
                    moved += _between((2 * errors.abs() * bound + bound**2).sum(2), fold_grid)
            sums.append(sums_of_squares(errors, fold_grid))
            weights.append(float(len(test)) if root is None else float((root[test] ** 2).sum()))
        curve = folds_curve(sums, weights, alphas)
        if self.noise is None:
            return replace(curve, precision=self._precision(alphas, curve.mean))
        total = torch.stack(sums).sum(0)
        return replace(curve, precision=_relative(moved, total, whole(alphas), self.variance > 0))

    def _fold(self, k: int) -> Fold:
        """Return one fold by a decomposition of its own."""
        assert not isinstance(self.scheme, str)
        train, test = self.scheme[k]
        if self.kernel is not None:
            if self.problem.standardize:
                return fold_of(*fresh_fold(self.problem, train, test))
            K, N, y = self.kernel.K, self.kernel.N, self.kernel.y
            return fold_of(part_of_kernel(self.kernel, train), Cross(K[test][:, train], N[test], y[test]))
        if k not in self._direct:
            # A row that is named several times once, with its weight as often.
            rows, count = train.unique(return_counts=True)
            fit = self.problem.of_rows(rows)
            if int(count.max()) > 1:
                weights = count.double() if fit.weights is None else fit.weights * count
                fit = replace(fit, weights=weights)
            self._direct[k] = direct_fold(fit, columns(fit), self.problem.of_rows(test))
        return self._direct[k]

    @override
    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """β = Z'u with u = U diag(1/(s + α)) U'y, or V diag(√s/(s + α)) U'y; an α for each target."""
        s = self.rows.s[:, None]
        inverse = torch.where(s > 0, 1 / (s + alphas), 0)
        if self.Vh is not None:
            beta, p = matmul(self.Vh.mT, s.sqrt() * inverse * self.rows.c), self.width
            constant = beta[p] if self.cols.ones else beta.new_zeros(beta.shape[1])
            return free_part(self.problem, self.cols, beta[:p] * self.cols.factor[:, None], constant)
        u = matmul(self.rows.U, inverse * self.rows.c)
        if not bool(u.isfinite().all()):
            what = "sums are beyond what float64 can hold"
            remedy = "divide the columns and the target by their size"
            raise InputError(what, "the coefficients", "inf", remedy)
        return coefficients(self.problem, self.cols, u)

    @override
    def rss(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
        return rss(self.rows, alphas)

    @override
    def out_of_fold(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "n t"]:
        y, root = self.problem.y, self.rows.root
        if isinstance(self.scheme, str):
            errors = torch.empty_like(y)
            for alpha in alphas.unique():
                some = (alphas == alpha).nonzero()[:, 0]
                errors[:, some] = self._some(some)._one_by_one(alpha[None])[0][0].mT
        else:
            errors, count = torch.zeros_like(y), y.new_zeros(len(y), 1)
            for k, (_, test) in enumerate(self.scheme):
                errors[test] += self._fold(k).errors_each(alphas)
                count[test] += 1
            errors = torch.where(count > 0, errors / count, torch.nan)
        return y - (errors if root is None else errors / root[:, None])

    @override
    def covariance(self, alpha: float) -> Covariance:
        return covariance_of_rows(self.problem, self.cols, self.rows, self.Vh, alpha)

    @override
    def spread(self, alpha: float) -> Float64[Tensor, " p"]:
        return spread_of_rows(self.problem, self.cols, self.rows, self.Vh, alpha)

    @override
    def inputs(self) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
        return means_and_sds(self.problem)

    @override
    def correlations(self) -> Float64[Tensor, "p t"]:
        return correlations(self.problem)

    def _gram_precision(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        """What a Gram matrix leaves of float64, by the condition number of what is inverted.

        An eigenvalue that was taken for zero may be any below the rounding of the largest.
        """
        assert self.kernel is not None
        s = self.rows.s
        if not bool((s > 0).any()):
            return torch.full_like(alphas, LEAST_PRECISION)
        # Where free columns were projected out, what they took away has left its rounding behind.
        projected = self.unpenalized > (self.problem.intercept == "free")
        return gram_precision(
            (self.kernel.K.norm() if projected else s.max()) / (s.min() + alphas.to(s.device))
        )

    def _precision(
        self, alphas: Float64[Tensor, " L"], mean: Float64[Tensor, "L t"]
    ) -> Float64[Tensor, " L"]:
        """What a Gram matrix leaves, and what is lost where the errors are far smaller than the targets."""
        return self._gram_precision(alphas) * lost(self.rows.y, mean)


def by_products(problem: Problem, scheme: Scheme) -> ByRows:
    """Form and decompose the products of the rows."""
    cols = columns(problem)
    return _by_kernel(problem, cols, kernel(problem, cols), splits_of(scheme))


def _by_kernel(problem: Problem, cols: Columns, products: Kernel, scheme: Criterion | list[Split]) -> ByRows:
    rows = decompose(products)
    about = _about(problem, cols, f"products of {len(problem.X):,} rows", rows.Q)
    return ByRows(problem, cols, rows, scheme, products, **about)


def by_singular_values(problem: Problem, scheme: Scheme) -> ByRows:
    """Decompose X itself: eps·κ where products leave eps·κ², at several times the cost."""
    problem = problem.dense()  # rows in memory one after the other: the same bits whatever the layout
    cols = columns(problem)
    direct = decompose_directly(problem, cols)
    n, p = problem.X.shape
    about = _about(problem, cols, f"{n:,} × {p:,} inputs", direct.rows.Q)
    return ByRows(problem, cols, direct.rows, splits_of(scheme), None, direct.Vh, direct.noise, **about)


def _about(problem: Problem, cols: Columns, name: str, Q: Float64[Tensor, "n q"]) -> dict[str, Any]:
    """What every route tells of a problem in memory; Q spans the unpenalised part."""
    n, p = problem.X.shape
    return {
        "name": name,
        "n": n,
        "width": p,
        "device": problem.y.device,
        "variance": target_variance(problem),
        "constant": cols.constant.tolist(),
        "unpenalized": Q.shape[1],
    }


def _doubt(errors: Float64[Tensor, "r t n"], bound: Float64[Tensor, "r t n"]) -> Float64[Tensor, " n"]:
    """How far each row's error may be off, beside a typical one; less counts at λ that will not be chosen.

    Those are where the mean square, whatever rounding did, is beyond one standard error of the least.
    """
    sure = torch.where(bound.isfinite(), errors, 0)
    typical = sure.square().mean(2, keepdim=True).sqrt().clamp_min(torch.finfo(sure.dtype).tiny)
    doubt, unit = bound / typical, typical.amax()  # squares stay in range
    if float(doubt.max()) <= DOUBTFUL:
        return doubt.amax((0, 1))
    squares = (errors / unit).square()
    mean, moved = squares.mean(2), ((2 * errors.abs() + bound) / unit * (bound / unit)).mean(2)
    best = (mean + moved).nan_to_num(nan=math.inf).argmin(0)[None]
    highest = mean + moved + squares.std(2, correction=0) / max(1, errors.shape[2] - 1) ** 0.5
    beyond = mean - moved > highest.gather(0, best)  # not where one is no number
    return torch.where(beyond[:, :, None], doubt * (DOUBTFUL / DOUBTFUL_ELSEWHERE), doubt).amax((0, 1))


def _relative(
    moved: Float64[Tensor, "r t"], total: Float64[Tensor, "L t"], grid: Axis, varies: Bool[Tensor, " t"]
) -> Float64[Tensor, " L"]:
    """The largest relative error of a sum of squares, of targets that vary, from what may have moved it."""
    relative = torch.where(varies, _between(moved, grid) / total, 0).nan_to_num(nan=torch.inf)
    if len(grid.pivots) < len(grid.alphas):
        relative = relative + torch.where(varies, LEAST_PRECISION * (total.amax(0) / total).sqrt(), 0)
    return relative.amax(1) + 4 * torch.finfo(total.dtype).eps


def _between(moved: Float64[Tensor, "r t"], grid: Axis) -> Float64[Tensor, "L t"]:
    """At every λ the larger of what the pivots beside it have."""
    order = grid.pivots.sort()
    moved = moved[order.indices.to(moved.device)]
    after = torch.searchsorted(order.values, torch.arange(len(grid.alphas))).clamp(max=len(moved) - 1)
    before = (torch.searchsorted(order.values, torch.arange(len(grid.alphas)), right=True) - 1).clamp(min=0)
    return torch.maximum(moved[before.to(moved.device)], moved[after.to(moved.device)])


def check_determined(problem: Problem, scheme: Scheme) -> None:
    """Raise where a split's training rows leave an unpenalised coefficient open that all rows determine.

    Raises:
        InputError: they do; how held-out rows are predicted would be arbitrary.
    """
    splits = splits_of(scheme)
    if isinstance(splits, str) or problem.penalty is None or bool((problem.penalty > 0).all()):
        return
    Q = orthonormal(unpenalized(problem, columns(problem)))
    for k, (train, _) in enumerate(splits):
        if int(torch.linalg.matrix_rank(Q[train], atol=LEAST_SHARE)) < Q.shape[1]:
            raise undetermined(k)


def gram_precision(condition: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
    """Relative error of the scores: 100 eps times the condition number of what is inverted."""
    return (100 * EPS * condition).clamp_min(LEAST_PRECISION)


def lost(y: Float64[Tensor, "n t"], mean: Float64[Tensor, "L t"]) -> Float64[Tensor, " L"]:
    """By how much an error that is relative to the targets grows where the held-out errors are small."""
    tiny = torch.finfo(mean.dtype).tiny
    return ((y**2).mean(0) / mean.clamp_min(tiny)).amax(1).clamp_min(1).sqrt()


def splits_of(scheme: Scheme) -> Criterion | list[Split]:
    """Return (training rows, test rows) of every split; a criterion as it is."""
    if not isinstance(scheme, Tensor):
        return scheme
    return [
        ((scheme != k).nonzero()[:, 0], (scheme == k).nonzero()[:, 0]) for k in range(int(scheme.max()) + 1)
    ]


# Folds by Lanczos, where a few hundred products cost less than a decomposition.


@dataclass(frozen=True)
class Krylov:
    """What Lanczos leaves of F systems (P K P + α) u = P y, each on its own rows.

    Args:
        alpha: the least α for which it holds.
        V: orthonormal bases, zero on rows that are held out (F, m, n).
        ritz: eigenvalues of the projections (F, m).
        Y: their eigenvectors (F, m, m).
        norm: ‖P y‖ (F,).
        beside: products of the held-out rows with the basis, recentred (F, m, n); zero on other rows.
        error: targets of the held-out rows less the unpenalised part's prediction (F, n); zero elsewhere.
    """

    alpha: float
    V: Float64[Tensor, "F m n"]
    ritz: Float64[Tensor, "F m"]
    Y: Float64[Tensor, "F m m"]
    norm: Float64[Tensor, " F"]
    beside: Float64[Tensor, "F m n"]
    error: Float64[Tensor, "F n"]

    def weights(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "F L m"]:
        """U in the basis, at every α."""
        first = self.Y[:, 0] * self.norm[:, None]  # Y'e_1
        return matmul(first[:, None, :] / (self.ritz[:, None, :] + alphas[:, None]), self.Y.mT.contiguous())

    def held_out(self, alphas: Float64[Tensor, " L"], systems: slice) -> Float64[Tensor, "F L n"]:
        """Errors on the held-out rows of some systems, zero on the rows that were fitted."""
        return self.error[systems, None] - matmul(self.weights(alphas)[systems], self.beside[systems])

    def dual(self, alphas: Float64[Tensor, " L"], system: int) -> Float64[Tensor, "L n"]:
        """U of one system."""
        return matmul(self.weights(alphas)[system], self.V[system])


def lanczos(kernel: Kernel, fitted: Bool[Tensor, "F n"], alpha: float, most: int) -> Krylov | None:
    """Run Lanczos on every system until the residual at `alpha` has vanished.

    None where `most` steps are too few. With full reorthogonalisation, twice: without it digits are lost.

    Args:
        kernel: products, unpenalised part and one target of all rows.
        fitted: the rows of each system.
        alpha: the least α that is asked for.
        most: steps in all; it gives up as soon as they will not do.
    """
    mask = fitted.double()
    y = kernel.y[:, 0]
    parts = [_Unpenalized(kernel.N, row) for row in fitted]
    start = torch.stack([part.project(y * m) for part, m in zip(parts, mask, strict=True)])
    norm = start.norm(dim=1)
    F, n = mask.shape
    V = start.new_empty(F, most + 1, n)
    beside = start.new_empty(F, most, n)
    diagonal, off = start.new_zeros(F, most), start.new_zeros(F, most)
    residuals: list[float] = []
    V[:, 0] = start / norm[:, None].clamp_min(1e-300)
    for step in range(most):
        product = matmul(kernel.K, V[:, step].mT.contiguous()).mT.contiguous()
        for f, part in enumerate(parts):
            beside[f, step] = (product[f] - part.share(product[f] * mask[f])) * (1 - mask[f])
            product[f] = part.project(product[f] * mask[f])
        basis = V[:, : step + 1]
        w = product
        for _ in range(2):
            inner = matmul(basis, w[:, :, None])
            w = w - matmul(inner.mT.contiguous(), basis)[:, 0]
            diagonal[:, step] += inner[:, step, 0]
        off[:, step] = w.norm(dim=1)
        V[:, step + 1] = w / off[:, step, None].clamp_min(1e-300)
        if (step + 1) % LOOK == 0 or step + 1 == most:
            m = step + 1
            ritz, Y, residual = _projected(diagonal[:, :m], off[:, :m], alpha)
            if residual <= RESIDUAL * m:
                error = torch.stack(
                    [(y - part.share(y * row)) * (1 - row) for part, row in zip(parts, mask, strict=True)]
                )
                return Krylov(alpha, V[:, :m], ritz, Y, norm, beside[:, :m], error)
            residuals.append(residual)
            if _too_slow(residuals, most):
                break
    return None


def _projected(
    diagonal: Float64[Tensor, "F m"], off: Float64[Tensor, "F m"], alpha: float
) -> tuple[Float64[Tensor, "F m"], Float64[Tensor, "F m m"], float]:
    """The projections' eigenvalues and vectors; and the largest residual, β_m |u_m|, relative to ‖P y‖."""
    T = torch.diag_embed(diagonal)
    m = T.shape[1]
    if m > 1:
        T += torch.diag_embed(off[:, : m - 1], 1) + torch.diag_embed(off[:, : m - 1], -1)
    ritz, Y = torch.linalg.eigh(T)
    ritz = ritz.clamp_min(0)
    last = ((Y[:, 0] * Y[:, -1]) / (ritz + alpha)).sum(1).abs()
    return ritz, Y, float((off[:, -1] * last).max())


def _too_slow(residuals: list[float], most: int) -> bool:
    """Whether at twice the rate of the last half of the steps the residual would not vanish by `most`.

    Asked from a quarter of the steps on: before, large eigenvalues hide the rate. Most spectra keep it, and
    those that fall fast about double it.

    Args:
        residuals: at every look.
        most: steps in all.
    """
    half, m = len(residuals) // 2, len(residuals) * LOOK
    if half < 2 or 4 * m < most:
        return False
    rate = math.log(residuals[half - 1] / residuals[-1]) / (m - half * LOOK)
    return math.log(residuals[-1] / (RESIDUAL * m)) > 2 * rate * (most - m)


class _Unpenalized:
    """The unpenalised part of one system: what it takes of a vector on the fitted rows, and of the others."""

    def __init__(self, N: Float64[Tensor, "n q"], fitted: Bool[Tensor, " n"]) -> None:
        inside = N * fitted[:, None]
        self.N, self.inverse = N, left_inverse(inside)
        self.inside = inside

    def share(self, v: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """The prediction of every row from a regression of v on the fitted rows."""
        return self.N @ (self.inverse @ v)

    def project(self, v: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """v, zero off the fitted rows, less its part along the unpenalised columns."""
        for _ in range(2):
            v = v - self.inside @ (self.inverse @ v)
        return v


@dataclass(frozen=True)
class ByFolds(Route):
    """The route of Lanczos, with the decomposition of all rows behind it for what it does not give.

    Args:
        problem: data, weights, penalty; one target.
        cols: how the columns enter.
        kernel: the rows' products.
        splits: (training rows, test rows) of every split.
    """

    problem: Problem
    cols: Columns
    kernel: Kernel
    splits: list[Split]
    _known: dict[str, Krylov] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def full(self) -> ByRows:
        """The same by decomposition."""
        return _by_kernel(self.problem, self.cols, self.kernel, self.splits)

    @property
    def most(self) -> int:
        """Steps of Lanczos that cost no more than decomposing all rows."""
        return self.n // SHARE

    @override
    def spectrum(self) -> Float64[Tensor, " k"]:
        return self.full.spectrum()

    @override
    def spectrum_scale(self) -> Scale:
        """Return the mean eigenvalue from the trace, and the largest from Lanczos."""
        Q = orthonormal(self.kernel.N)
        trace = self.kernel.K.trace() - (Q * matmul(self.kernel.K, Q)).sum()
        mean = float(trace) / (self.n - self.unpenalized)
        basis = self._basis(mean)
        largest = self.full.spectrum_scale().largest if basis is None else float(basis.ritz[-1].max())
        return Scale(mean, largest)

    @override
    def curve(self, alphas: Float64[Tensor, " L"]) -> Curve:
        basis = self._basis(float(alphas.min()))
        if basis is None:
            return self.full.curve(alphas)
        root, y = self.kernel.root, self.kernel.y
        sums, weights = [], []
        for k, (_, test) in enumerate(self.splits):
            errors = basis.held_out(alphas, slice(k, k + 1))[0][:, test]
            sums.append((errors**2).sum(1)[:, None])
            weights.append(float(len(test)) if root is None else float((root[test] ** 2).sum()))
        ritz = basis.ritz[-1]
        condition = ritz.max() / (ritz.min() + alphas)
        curve = folds_curve(sums, weights, gram_precision(condition))
        return replace(curve, precision=curve.precision * lost(y, curve.mean))

    @override
    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """β = Z'u, at the target's α."""
        basis = self._basis(float(alphas.min()))
        if basis is None:
            return self.full.solve(alphas)
        return coefficients(self.problem, self.cols, basis.dual(alphas, -1).mT.contiguous())

    @override
    def rss(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
        """The weighted training residual is αu."""
        basis = self._basis(float(alphas.min()))
        if basis is None:
            return self.full.rss(alphas)
        return (alphas[:, None] * basis.weights(alphas)[-1]).square().sum(1, keepdim=True)

    @override
    def out_of_fold(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "n t"]:
        basis = self._basis(float(alphas.min()))
        if basis is None:
            return self.full.out_of_fold(alphas)
        y, root = self.problem.y, self.kernel.root
        errors, count = torch.zeros_like(y), torch.zeros_like(y)
        for k, (_, test) in enumerate(self.splits):
            errors[test, 0] += basis.held_out(alphas, slice(k, k + 1))[0, 0, test]
            count[test] += 1
        errors = torch.where(count > 0, errors / count, torch.nan)
        return y - (errors if root is None else errors / root[:, None])

    @override
    def covariance(self, alpha: float) -> Covariance:
        return self.full.covariance(alpha)

    @override
    def spread(self, alpha: float) -> Float64[Tensor, " p"]:
        return self.full.spread(alpha)

    @override
    def inputs(self) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
        return means_and_sds(self.problem)

    @override
    def correlations(self) -> Float64[Tensor, "p t"]:
        return correlations(self.problem)

    def _basis(self, alpha: float) -> Krylov | None:
        """What holds from this α on; None where Lanczos takes too long, or all rows are decomposed anyway."""
        known = self._known.get("basis")
        decomposed = "full" in self.__dict__
        if (known is None or known.alpha > alpha) and not decomposed:
            fitted = torch.zeros(len(self.splits) + 1, self.n, dtype=torch.bool)
            for row, (train, _) in zip(fitted, self.splits, strict=False):
                row[train] = True
            fitted[-1] = True
            known = lanczos(self.kernel, fitted.to(self.kernel.K.device), alpha, most=self.most)
            if known is not None:
                self._known["basis"] = known
        return known if known is not None and known.alpha <= alpha else None


def folds_alone(problem: Problem, scheme: Scheme) -> bool:
    """Whether Lanczos is worth a try: few folds of many rows, each row once, one target, scaled alike."""
    splits = splits_of(scheme)
    if isinstance(splits, str) or problem.standardize or problem.y.shape[1] > 1:
        return False
    if len(problem.X) < LEAST_ROWS or len(splits) > MOST_FOLDS:
        return False
    return all(len(train.unique()) == len(train) for train, _ in splits)


def by_folds(problem: Problem, scheme: Scheme) -> ByFolds:
    """Form the products of the rows."""
    cols, splits = columns(problem), splits_of(scheme)
    assert not isinstance(splits, str)
    products = kernel(problem, cols)
    about = _about(problem, cols, f"products of {len(problem.X):,} rows", orthonormal(products.N))
    return ByFolds(problem, cols, products, splits, **about)
