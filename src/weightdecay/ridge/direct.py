"""The singular values of X itself, for tables whose Gram matrix would lose too many digits.

A Gram matrix squares the condition number κ: errors of eps·κ² become eps·κ here, at several times the cost.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.ridge.columns import Columns, Problem, columns, penalized_blocks, targets, unpenalized
from weightdecay.ridge.kernel import Fold
from weightdecay.ridge.linalg import matmul
from weightdecay.ridge.rows import Rows, left_inverse, orthonormal, project


def centred(problem: Problem, cols: Columns) -> tuple[Float64[Tensor, "n m"], Float64[Tensor, "n q"]]:
    """The weighted rows: what is penalised, centred and scaled, and what is not."""
    Z = torch.cat([block.clone() for block in penalized_blocks(problem, cols)], dim=1)
    N, root = unpenalized(problem, cols), problem.root
    return (Z, N) if root is None else (Z * root[:, None], N * root[:, None])


def decompose_directly(problem: Problem, cols: Columns) -> tuple[Rows, Float64[Tensor, "k m"]]:
    """The rows' basis and the right singular vectors, from one singular value decomposition.

    The unpenalised part is appended, larger than all else, and its directions are dropped, so that what is
    left is orthogonal to it even where X has no rank of its own.
    """
    Z, N = centred(problem, cols)
    Q = orthonormal(N)
    (n, m), q = Z.shape, Q.shape[1]
    if q:
        Z = project(Q, Z)
        size = 2 * Z.norm()
        Z = torch.cat([Z, Q * torch.where(size > 0, size, 1)], dim=1)
    U, d, Vh = torch.linalg.svd(Z, full_matrices=False)
    U, d, Vh = U[:, q:], d[q:], Vh[q:, :m]
    floor = n * torch.finfo(d.dtype).eps * (d.max() if len(d) else 0)
    d = torch.where(d > floor, d, 0)
    y = project(Q, targets(problem, cols))
    return Rows(d**2, U, y, matmul(U.mT, y), Q, problem.root), Vh


def direct_fold(fit: Problem, held: Problem) -> Fold:
    """The fold of singular values: B = (Z_S − N_S A Z_T) V diag(d)."""
    cols = columns(fit)
    rows, Vh = decompose_directly(fit, cols)
    (Z, N), (Z_fit, N_fit) = centred(held, cols), centred(fit, cols)
    A = left_inverse(N_fit)
    base = targets(held, cols) - matmul(N, matmul(A, targets(fit, cols)))
    Z -= matmul(N, matmul(A, Z_fit))
    return Fold(rows.s, rows.c, matmul(Z, Vh.mT) * rows.s.sqrt(), base)
