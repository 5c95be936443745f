"""What is to be solved: data, weights and penalty, checked by the front door; and how a column enters."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

Intercept = Literal["free", "penalized", "none"]
BLOCK = 1 << 18  # numbers of X that are looked at together: small enough to stay near
# Of its mean: a standard deviation under it is rounding in float64, or less than the last digit of float32.
CONSTANT = {torch.float64: 16 * torch.finfo(torch.float64).eps, torch.float32: torch.finfo(torch.float32).eps}
NARROWEST = 64  # columns in a block at least


@dataclass(frozen=True)
class Problem:
    """min over (b, b0) of  Σ_i w_i (y_i − b0 − x_i·b)² + α Σ_j f_j b_j².

    Args:
        X: inputs (n, p), as they were given: never copied whole.
        y: targets (n, t), float64.
        weights: w, of mean 1 over all rows (n,); None where all are 1.
        penalty: f ≥ 0 (p,); None where all are 1.
        intercept: free of the penalty, penalised like a column of ones, or none.
        standardize: divide columns by their standard deviation, over the rows that are fitted.
    """

    X: Float[Tensor, "n p"]
    y: Float64[Tensor, "n t"]
    weights: Float64[Tensor, " n"] | None = None
    penalty: Float64[Tensor, " p"] | None = None
    intercept: Intercept = "free"
    standardize: bool = False

    @property
    def root(self) -> Float64[Tensor, " n"] | None:
        """√w, by which rows are multiplied."""
        return None if self.weights is None else self.weights.sqrt()

    def of_rows(self, rows: Int64[Tensor, " m"]) -> "Problem":
        """The same on some of the rows: a copy of those."""
        weights = None if self.weights is None else self.weights[rows]
        return Problem(self.X[rows], self.y[rows], weights, self.penalty, self.intercept, self.standardize)


@dataclass(frozen=True)
class Columns:
    """How columns enter: z_j = (x_j − mean_j) · factor_j.

    Args:
        mean: weighted means, zero unless the intercept is free (p,).
        y_mean: the targets' likewise (t,).
        factor: 1/(sd_j √f_j); zero for columns that are constant or not penalised (p,).
        free: places of the unpenalised columns (q0,).
        still: places of the columns that do not vary (c,).
        ones: whether a penalised column of ones is added.
    """

    mean: Float64[Tensor, " p"]
    y_mean: Float64[Tensor, " t"]
    factor: Float64[Tensor, " p"]
    free: Int64[Tensor, " q0"]
    still: Int64[Tensor, " c"]
    ones: bool


def means_and_sds(problem: Problem) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
    """Weighted means and standard deviations (1/n) of the columns; exactly 0 for a constant one."""
    n, p = problem.X.shape
    mean, sd = problem.y.new_zeros(p), problem.y.new_zeros(p)
    weights = problem.y.new_ones(n) if problem.weights is None else problem.weights
    for J in blocks(n, p):
        block = problem.X[:, J].double()
        mean[J], sd[J] = _mean_and_sd(block, weights)
    return mean, torch.where(is_constant(mean, sd, problem.X.dtype), 0, sd)


def is_constant(
    mean: Float64[Tensor, " p"], sd: Float64[Tensor, " p"], dtype: torch.dtype
) -> Bool[Tensor, " p"]:
    """Whether columns are constant: their standard deviation is no more than rounding of their mean."""
    return sd <= CONSTANT[dtype] * mean.abs()


def constant_columns(problem: Problem) -> Int64[Tensor, " c"]:
    """Places of the columns that do not vary, by `is_constant`; a few rows rule out almost all others."""
    X, weights = problem.X, problem.weights
    n, w = len(X), problem.y.new_ones(len(X)) if weights is None else weights
    rows = w.topk(min(4, n)).indices
    few, most = X[rows].double(), 4 * CONSTANT[X.dtype] * (n / w[rows]).sqrt()[:, None]
    suspects = ((few - few[0]).abs() <= most * few[0].abs()).all(0).nonzero()[:, 0]
    found = [suspects[:0]]
    for some in suspects.split(max(NARROWEST, BLOCK // n)):
        mean, sd = _mean_and_sd(X[:, some].double(), w)
        found.append(some[is_constant(mean, sd, X.dtype)])
    return torch.cat(found)


def _mean_and_sd(block: Float64[Tensor, "n w"], w: Float64[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Weighted; about the first row, so that a constant column has an sd of 0."""
    away = block - block[0]
    offset = w @ away / w.sum()
    away -= offset
    rest = w @ away / w.sum()  # what rounding left out of it, where the first row is unlike all others
    return (block[0] + offset) + rest, (w @ (away - rest) ** 2 / w.sum()).sqrt()


def means(problem: Problem) -> Float64[Tensor, " p"]:
    """Weighted means of the columns."""
    n, p = problem.X.shape
    share = problem.y.new_ones(n) if problem.weights is None else problem.weights
    return torch.cat([(share / share.sum()) @ problem.X[:, J].double() for J in blocks(n, p)])


def columns(problem: Problem) -> Columns:
    """Means and factors over the problem's rows."""
    p = problem.X.shape[1]
    penalty = problem.y.new_ones(p) if problem.penalty is None else problem.penalty
    mean, divisor = problem.y.new_zeros(p), penalty.sqrt()
    if problem.standardize:
        mean, sd = means_and_sds(problem)
        divisor = sd * divisor
    elif problem.intercept == "free":
        mean = means(problem)
    factor, free = torch.where(divisor > 0, 1 / divisor, 0), penalty == 0
    still = constant_columns(problem)
    if problem.intercept == "free":  # beside a constant of its own a constant column has nothing to say
        factor[still], free[still] = 0, False
    y_mean = weighted_mean(problem.y, problem.weights)
    about_zero = 0.0 if problem.intercept != "free" else 1.0
    return Columns(
        mean * about_zero,
        y_mean * about_zero,
        factor,
        free.nonzero()[:, 0],
        still,
        problem.intercept == "penalized",
    )


def weighted_mean(y: Float64[Tensor, "n t"], weights: Float64[Tensor, " n"] | None) -> Float64[Tensor, " t"]:
    """Means of the columns of y (t,); about the first row, so that a constant's is exact."""
    away = y - y[0]
    return y[0] + (away.mean(0) if weights is None else weights @ away / weights.sum())


def target_variance(problem: Problem) -> Float64[Tensor, " t"]:
    """The targets' weighted variances, divided by n."""
    mean = weighted_mean(problem.y, problem.weights)
    return weighted_mean((problem.y - mean) ** 2, problem.weights)


def targets(problem: Problem, cols: Columns) -> Float64[Tensor, "n t"]:
    """The weighted targets, centred before anything is projected out: a large mean takes no digits."""
    y = problem.y - cols.y_mean
    return y if problem.root is None else y * problem.root[:, None]


def unpenalized(problem: Problem, cols: Columns) -> Float64[Tensor, "n q"]:
    """The part without penalty: the constant where the intercept is free, and free columns, centred."""
    parts = [problem.X[:, cols.free].double() - cols.mean[cols.free]]
    if problem.intercept == "free":
        parts.insert(0, problem.y.new_ones(len(problem.X), 1))
    return torch.cat(parts, dim=1)


def blocks(n: int, p: int) -> Iterator[slice]:
    """Slices of columns of about `BLOCK` numbers each."""
    # Not so narrow that adding up n × n products costs more than they.
    width = max(NARROWEST, n, BLOCK // max(1, n))
    return (slice(first, min(first + width, p)) for first in range(0, p, width))


def penalized_blocks(problem: Problem, cols: Columns) -> Iterator[Float64[Tensor, "n w"]]:
    """The columns that are penalised, centred and scaled, each block in the memory of the last."""
    plain = bool((cols.factor == 1).all())
    n, p = problem.X.shape
    buffer = None  # one for all blocks: new memory for each would cost as much as the products
    for J in blocks(n, p):
        block = problem.X[:, J]
        if buffer is None or buffer.shape != block.shape:
            buffer = torch.empty(block.shape, dtype=torch.float64, device=block.device)
        torch.sub(block, cols.mean[J], out=buffer)
        yield buffer if plain else buffer.mul_(cols.factor[J])
    if cols.ones:
        yield problem.y.new_ones(n, 1)
