"""Ridge through the rows where the folds are few, the target is one and the rows are many: see `krylov`."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.ridge.by_rows import ByRows, gram_precision, lost, splits_of
from weightdecay.ridge.columns import Columns, Problem, columns, means_and_sds, target_variance
from weightdecay.ridge.covariance import Covariance
from weightdecay.ridge.curves import folds_curve
from weightdecay.ridge.kernel import Kernel, decompose, kernel
from weightdecay.ridge.krylov import Krylov, lanczos
from weightdecay.ridge.linalg import matmul
from weightdecay.ridge.route import Curve, Scale, Scheme
from weightdecay.ridge.rows import orthonormal
from weightdecay.ridge.solution import coefficients

LEAST_ROWS = 1200  # below, decomposing is faster
MOST_FOLDS = 20
SHARE = 12  # 1/12 of n steps of Lanczos cost no more than decomposing all rows


@dataclass(frozen=True)
class ByFolds:
    """The route of Lanczos, with the decomposition of all rows behind it for what it does not give.

    Args:
        problem: data, weights, penalty; one target.
        cols: how the columns enter.
        kernel: the rows' products.
        scheme: folds, or pairs of rows.
    """

    problem: Problem
    cols: Columns
    kernel: Kernel
    scheme: Scheme
    _known: dict[str, Krylov] = field(default_factory=dict, repr=False, compare=False)
    _refused: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def full(self) -> ByRows:
        """The same by decomposition."""
        return ByRows(self.problem, self.cols, decompose(self.kernel), self.scheme, self.kernel)

    @property
    def name(self) -> str:
        """What was decomposed."""
        return f"products of {self.n:,} rows"

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.problem.y.device

    @property
    def most(self) -> int:
        """Steps of Lanczos that cost no more than decomposing all rows."""
        return self.n // SHARE

    @property
    def n(self) -> int:
        """How many rows are fitted."""
        return len(self.problem.X)

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self.problem.X.shape[1]

    @property
    def variance(self) -> Float64[Tensor, " t"]:
        """The target's weighted variance."""
        return target_variance(self.problem)

    @property
    def still(self) -> list[int]:
        """Places of the columns that do not vary."""
        return self.cols.still.tolist()

    @property
    def unpenalized(self) -> int:
        """The free intercept and free columns."""
        return orthonormal(self.kernel.N).shape[1]

    @property
    def eigenvalues(self) -> Float64[Tensor, " k"]:
        """Of the projected Gram matrix: this decomposes it."""
        return self.full.eigenvalues

    @property
    def scale(self) -> Scale:
        """The mean eigenvalue from the trace, the largest from Lanczos."""
        Q = orthonormal(self.kernel.N)
        trace = self.kernel.K.trace() - (Q * matmul(self.kernel.K, Q)).sum()
        mean = float(trace) / (self.n - self.unpenalized)
        basis = self._basis(mean)
        return Scale(mean, self.full.scale.largest if basis is None else float(basis.ritz[-1].max()))

    def curve(self, alphas: Float64[Tensor, " L"]) -> Curve:
        """The score at every α."""
        basis = self._basis(float(alphas.min()))
        if basis is None:
            return self.full.curve(alphas)
        root, y = self.kernel.root, self.kernel.y
        sums, weights = [], []
        for k, (_, test) in enumerate(splits_of(self.scheme)):
            errors = basis.held_out(alphas, slice(k, k + 1))[0][:, test]
            sums.append((errors**2).sum(1)[:, None])
            weights.append(float(len(test)) if root is None else float((root[test] ** 2).sum()))
        ritz = basis.ritz[-1]
        condition = ritz.max() / (ritz.min() + alphas)
        found = folds_curve(sums, weights, gram_precision(condition))
        return replace(found, precision=found.precision * lost(y, found.mean))

    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """β = Z'u, at the target's α."""
        basis = self._basis(float(alphas.min()))
        if basis is None:
            return self.full.solve(alphas)
        return coefficients(self.problem, self.cols, basis.dual(alphas, -1).mT.contiguous())

    def rss(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
        """The weighted training residual is αu."""
        basis = self._basis(float(alphas.min()))
        if basis is None:
            return self.full.rss(alphas)
        return (alphas[:, None] * basis.weights(alphas)[-1]).square().sum(1, keepdim=True)

    def out_of_fold(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "n t"]:
        """Predictions of each row by a fit without it; NaN if no split holds it out, the mean of several."""
        basis = self._basis(float(alphas.min()))
        if basis is None:
            return self.full.out_of_fold(alphas)
        y, root = self.problem.y, self.kernel.root
        errors, count = torch.zeros_like(y), torch.zeros_like(y)
        for k, (_, test) in enumerate(splits_of(self.scheme)):
            errors[test, 0] += basis.held_out(alphas, slice(k, k + 1))[0, 0, test]
            count[test] += 1
        errors = torch.where(count > 0, errors / count, torch.nan)
        return y - (errors if root is None else errors / root[:, None])

    def out_of_fold_blocks(self, alphas: Float64[Tensor, " t"]) -> Iterator[Float64[Tensor, "b t"]]:
        """The same in one block."""
        yield self.out_of_fold(alphas)

    def covariance(self, alpha: float) -> Covariance:
        """(X'X + αF)^-1 through the rows."""
        return self.full.covariance(alpha)

    def spread(self, alpha: float) -> Float64[Tensor, " p"]:
        """Standard errors of the coefficients in units of σ."""
        return self.full.spread(alpha)

    def inputs(self) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
        """Weighted means and standard deviations of the columns."""
        return means_and_sds(self.problem)

    def _basis(self, alpha: float) -> Krylov | None:
        """What holds from this α on; None where Lanczos takes too long."""
        known = self._known.get("basis")
        if (known is None or known.alpha > alpha) and alpha > self._refused.get("alpha", 0.0):
            fitted = torch.zeros(len(splits_of(self.scheme)) + 1, self.n, dtype=torch.bool)
            for row, (train, _) in zip(fitted, splits_of(self.scheme), strict=False):
                row[train] = True
            fitted[-1] = True
            known = lanczos(self.kernel, fitted.to(self.kernel.K.device), alpha, most=self.most)
            if known is None:
                self._refused["alpha"] = alpha
            else:
                self._known["basis"] = known
        return known if known is not None and known.alpha <= alpha else None


def folds_alone(problem: Problem, scheme: Scheme) -> bool:
    """Whether Lanczos is worth a try: few folds of many rows, each row once, one target, scaled alike."""
    plain = not isinstance(scheme, str) and not problem.standardize and problem.y.shape[1] == 1
    if not plain or len(problem.X) < LEAST_ROWS or len(splits_of(scheme)) > MOST_FOLDS:
        return False
    return all(len(train.unique()) == len(train) for train, _ in splits_of(scheme))


def by_folds(problem: Problem, scheme: Scheme) -> ByFolds:
    """Form the products of the rows."""
    cols = columns(problem)
    return ByFolds(problem, cols, kernel(problem, cols), scheme)
