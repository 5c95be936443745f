"""From the basis of the rows back to coefficients and an intercept for the columns as they were given."""

from jaxtyping import Float64
from torch import Tensor

from weightdecay.ridge.columns import Columns, Problem, blocks, unpenalized
from weightdecay.ridge.linalg import matmul
from weightdecay.ridge.rows import left_inverse


def coefficients(
    problem: Problem, cols: Columns, dual: Float64[Tensor, "n t"]
) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
    """From dual weights u, with β = Z'u, to coefficients and intercepts of the columns as they were given."""
    n, p = problem.X.shape
    u = dual if problem.root is None else dual * problem.root[:, None]
    coef = u.new_zeros(p, u.shape[1])
    for J in blocks(n, p):
        # Centred first: u may be large where λ is small, and its sum is zero only to rounding.
        coef[J] = matmul((problem.X[:, J].double() - cols.mean[J]).mT, u)
    coef *= (cols.factor**2)[:, None]
    constant = u.sum(0) if cols.ones else u.new_zeros(u.shape[1])
    return free_part(problem, cols, coef, constant)


def from_right(
    problem: Problem, cols: Columns, beta: Float64[Tensor, "m t"]
) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
    """From coefficients of the centred, scaled columns to those of the columns as they were given."""
    p = problem.X.shape[1]
    coef = beta[:p] * cols.factor[:, None]
    constant = beta[p] if cols.ones else beta.new_zeros(beta.shape[1])
    return free_part(problem, cols, coef, constant)


def free_part(
    problem: Problem, cols: Columns, coef: Float64[Tensor, "p t"], constant: Float64[Tensor, " t"]
) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
    """Fill in the unpenalised coefficients, which fit what the penalised ones leave, and the intercept."""
    if len(cols.free) == 0:
        if problem.intercept != "free":
            return coef, constant
        return coef, cols.y_mean - cols.mean @ coef
    rest = problem.y - constant
    for J in blocks(*problem.X.shape):
        rest = rest - (problem.X[:, J].double() - cols.mean[J]) @ coef[J]
    N = unpenalized(problem, cols)
    if problem.root is not None:
        N, rest = N * problem.root[:, None], rest * problem.root[:, None]
    a = left_inverse(N) @ rest
    if problem.intercept == "free":
        constant, a = a[0], a[1:]
    coef[cols.free] = a
    return coef, constant - cols.mean @ coef
