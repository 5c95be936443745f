"""The rows of a table as their products: one Gram matrix, its decomposition, and folds as blocks of it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from weightdecay.ridge.columns import Columns, Problem, columns, penalized_blocks, targets, unpenalized
from weightdecay.ridge.linalg import eigh, gram, matmul
from weightdecay.ridge.rows import Rows, floor_to_zero, left_inverse, orthonormal, project


@dataclass(frozen=True)
class Kernel:
    """The rows of a problem as their products.

    Args:
        K: products of the weighted, centred, scaled rows (n, n).
        N: the weighted unpenalised part (n, q).
        y: weighted targets (n, t).
        root: √w (n,) or None.
    """

    K: Float64[Tensor, "n n"]
    N: Float64[Tensor, "n q"]
    y: Float64[Tensor, "n t"]
    root: Float64[Tensor, " n"] | None


def kernel(problem: Problem, cols: Columns) -> Kernel:
    """One pass over X, in blocks of columns.

    Raises:
        FloatingPointError: a cell is not finite.
    """
    n = len(problem.X)
    K = problem.y.new_zeros(n, n)
    for block in penalized_blocks(problem, cols):
        K += gram(block)
    if not bool(K.diagonal().sum().isfinite()):
        raise FloatingPointError("X")
    N, root = unpenalized(problem, cols), problem.root
    if root is not None:
        K *= root[:, None] * root
        N = N * root[:, None]
    return Kernel(K, N, targets(problem, cols), root)


def decompose(rows: Kernel) -> Rows:
    """Eigenvalues and eigenvectors with the unpenalised part deflated, never subtracted.

    The part is raised above all else (t QQ', t = 2 tr K) and its eigenvectors are dropped.
    """
    Q = orthonormal(rows.N)
    n, q = Q.shape
    if q == 0:
        s, U = eigh(rows.K)
        U = U.flip(1)
        return Rows(floor_to_zero(s.flip(0), n), U, rows.y, matmul(U.mT, rows.y), rows.N, rows.root)
    # P K P + t QQ' = K − Q B' − B Q' with B = K Q − Q (Q'K Q + t)/2.
    along = matmul(rows.K, Q)
    inner = matmul(Q.mT, along)
    trace = 2 * rows.K.trace()
    above = torch.where(trace > 0, trace, 1)
    B = along - matmul(Q, (inner + above * torch.eye(q, dtype=Q.dtype, device=Q.device)) / 2)
    K = rows.K.addmm(Q, B.mT, alpha=-1).addmm_(B, Q.mT, alpha=-1)
    s, U = eigh(K)
    s, U = s[: n - q].flip(0), U[:, : n - q].flip(1)
    s = torch.where(trace > 0, s, 0)  # not the rounding of what was raised
    y = project(Q, rows.y)
    return Rows(floor_to_zero(s, n), U, y, matmul(U.mT, y), Q, rows.root)


def part(rows: Kernel, keep: Int64[Tensor, " m"]) -> Kernel:
    """The same of some of the rows."""
    root = None if rows.root is None else rows.root[keep]
    return Kernel(rows.K[keep][:, keep], rows.N[keep], rows.y[keep], root)


@dataclass(frozen=True)
class Cross:
    """Rows that were not fitted, beside those that were.

    Args:
        K: products of the former with the latter (d, m).
        N: the former's unpenalised part (d, q).
        y: their targets (d, t).
    """

    K: Float64[Tensor, "d m"]
    N: Float64[Tensor, "d q"]
    y: Float64[Tensor, "d t"]


@dataclass(frozen=True)
class Fold:
    """A fit to some rows, seen from others: their errors at every α are base − B diag(1/(s + α)) c.

    Args:
        s: eigenvalues of the fit (k,).
        c: targets in its eigenbasis (k, t).
        B: products of the others with the eigenvectors (d, k).
        base: the others' targets less what the unpenalised part predicts (d, t).
    """

    s: Float64[Tensor, " k"]
    c: Float64[Tensor, "k t"]
    B: Float64[Tensor, "d k"]
    base: Float64[Tensor, "d t"]

    def errors(self, alphas: Float64[Tensor, " r"]) -> Float64[Tensor, "r t d"]:
        """At each α."""
        k, t = self.c.shape
        spread = (self._inverse(alphas).mT[:, None, :] * self.c.mT).reshape(len(alphas) * t, k)
        return self.base.mT - matmul(spread, self.B.mT / self._unit).reshape(len(alphas), t, len(self.B))

    def errors_each(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "d t"]:
        """Each target at an α of its own."""
        return self.base - matmul(self.B / self._unit, self._inverse(alphas) * self.c)

    @property
    def _unit(self) -> float:
        """A power of two near the largest s, so that c/(s + α) stays in range whatever the scale of X."""
        return 2.0 ** (math.frexp(float(self.s.max()))[1] - 1) if len(self.s) else 1.0

    def _inverse(self, alphas: Tensor) -> Tensor:
        return torch.where(self.s[:, None] > 0, self._unit / (self.s[:, None] + alphas), 0)


def fold_of(fitted: Kernel, beside: Cross) -> Fold:
    """The fold of a Gram matrix: what the unpenalised part predicts is taken out of the cross products, too.

    With A = N_T^+: base = y_S − N_S A y_T, B = (K_ST − N_S A K_TT) U; recentring a block is the case N = 1.
    """
    rows = decompose(fitted)
    A = left_inverse(fitted.N)
    base = beside.y - matmul(beside.N, matmul(A, fitted.y))
    return Fold(rows.s, rows.c, matmul(beside.K - matmul(beside.N, matmul(A, fitted.K)), rows.U), base)


def fresh_fold(
    problem: Problem, train: Int64[Tensor, " m"], test: Int64[Tensor, " d"]
) -> tuple[Kernel, Cross]:
    """Kernel and cross products of a fold that is scaled by its own training rows."""
    cols, m = columns(problem.of_rows(train)), len(train)
    both = kernel(problem.of_rows(torch.cat([train, test])), cols)  # one pass, one block width
    return part(both, torch.arange(m)), Cross(both.K[m:, :m], both.N[m:], both.y[m:])
