"""The singular values of X itself, for tables whose Gram matrix would lose too many digits.

A Gram matrix squares the condition number κ: errors of eps·κ² become eps·κ here, at several times the cost.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.ridge.columns import Columns, Problem, columns, penalized_blocks, targets, unpenalized
from weightdecay.ridge.linalg import matmul
from weightdecay.ridge.rows import Rows, project


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
    (n, m), q = Z.shape, N.shape[1]
    Q = torch.linalg.qr(N)[0]
    if q:
        Z = project(Q, Z)
        Z = torch.cat([Z, Q * (2 * Z.norm() + 1)], dim=1)
    U, d, Vh = torch.linalg.svd(Z, full_matrices=False)
    U, d, Vh = U[:, q:], d[q:], Vh[q:, :m]
    floor = n * torch.finfo(d.dtype).eps * (d.max() if len(d) else 0)
    d = torch.where(d > floor, d, 0)
    y = project(Q, targets(problem, cols))
    return Rows(d**2, U, y, matmul(U.mT, y), Q, problem.root), Vh


def direct_errors(fit: Problem, held: Problem, alphas: Float64[Tensor, " r"]) -> Float64[Tensor, "r t d"]:
    """Errors, weighted, of a fit on rows that took no part in it."""
    cols = columns(fit)
    rows, Vh = decompose_directly(fit, cols)
    Z, N = centred(held, cols)
    error = targets(held, cols)
    if N.shape[1]:
        Z_fit, N_fit = centred(fit, cols)
        share = N @ torch.linalg.pinv(N_fit)
        error, Z = error - share @ targets(fit, cols), Z - matmul(share, Z_fit)
    gain = rows.s.sqrt()[:, None] / (rows.s[:, None] + alphas)
    gain = torch.where(rows.s[:, None] > 0, gain, 0)
    c = rows.c
    spread = (gain.mT[:, None, :] * c.mT).reshape(-1, len(c))
    found = matmul(spread, matmul(Z, Vh.mT).mT).reshape(len(alphas), c.shape[1], -1)
    return error.mT - found
