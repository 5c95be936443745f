"""Every criterion from one decomposition of the rows: leave-one-out, any folds, generalised CV, evidence.

With the unpenalised part projected out, the rows are Z = U diag(√s) V' and the residual is e = (I − H) y,
where I − H = U diag(α/(s + α)) U' + R, R the projection on what neither U nor the unpenalised part reaches.
Rows D left out of a fit have the errors  e_D = ((I − H)_DD)^-1 e_D(in sample);  leave-one-out is D = {i}.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.linalg import gram, matmul, solve_definite

NEEDED = 1e-12  # of a row's own, beside the unpenalised part: below, that has no solution without it


@dataclass(frozen=True)
class Rows:
    """The rows of the weighted, scaled, projected inputs in their eigenbasis.

    Args:
        s: eigenvalues (k,), descending, rounding zeros set to 0.
        U: eigenvectors (n, k), orthogonal to Q.
        y: targets, weighted and projected (n, t).
        c: U'y (k, t).
        Q: orthonormal basis of the unpenalised part, the intercept's direction among it (n, q).
        root: square roots of the rows' weights (n,), or None where all are 1.
    """

    s: Float64[Tensor, " k"]
    U: Float64[Tensor, "n k"]
    y: Float64[Tensor, "n t"]
    c: Float64[Tensor, "k t"]
    Q: Float64[Tensor, "n q"]
    root: Float64[Tensor, " n"] | None

    @property
    def complete(self) -> bool:
        """Whether U and Q span everything, so that nothing of y lies outside."""
        return self.U.shape[1] + self.Q.shape[1] == self.U.shape[0]

    def kept(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "k L"]:
        """α/(s + α): the share of each direction that stays in the residual."""
        return alphas / (self.s[:, None] + alphas)


def residuals(rows: Rows, alphas: Float64[Tensor, " r"]) -> Float64[Tensor, "r t n"]:
    """The training residual at each α, weighted as the rows are."""
    c, keep = rows.c, rows.kept(alphas)
    k, t = c.shape
    spread = (keep.mT[:, None, :] * c.mT).reshape(len(alphas) * t, k)
    found = matmul(spread, rows.U.mT).reshape(len(alphas), t, -1)
    if not rows.complete:
        found += (rows.y - matmul(rows.U, c)).mT
    return found


def slack(rows: Rows, alphas: Float64[Tensor, " r"]) -> Float64[Tensor, "r n"]:
    """1 − h_i at each α: nothing is subtracted where U is complete, so tiny values keep their digits."""
    squares = rows.U**2
    found = matmul(rows.kept(alphas).mT, squares.mT)
    if not rows.complete:
        found += (1 - squares.sum(1) - (rows.Q**2).sum(1)).clamp_min(0)
    return found


def loo_errors(rows: Rows, alphas: Float64[Tensor, " r"]) -> Float64[Tensor, "r t n"]:
    """Leave-one-out errors e_i / (1 − h_i), in the weighted space; not finite where 1 − h_i rounds to zero.

    Raises:
        InputError: a row that the unpenalised part needs: without it there is no solution.
    """
    needed = (1 - (rows.Q**2).sum(1) < NEEDED).nonzero()[:, 0]
    if len(needed):
        why = "an unpenalised column depends on it alone"
        raise InputError("a row cannot be left out", "row", int(needed[0]) + 1, why)
    return residuals(rows, alphas).div_(slack(rows, alphas)[:, None, :])


def left_out_errors(
    rows: Rows, alphas: Float64[Tensor, " r"], out: Int64[Tensor, " d"], inside: Float64[Tensor, "r t n"]
) -> Float64[Tensor, "r t d"] | None:
    """Errors on the rows `out` of the fit to all others, from the in-sample residuals of all rows.

    That the other rows determine the unpenalised part is checked before, by `check_determined`.
    """
    U, d = rows.U[out], len(out)
    keep = rows.kept(alphas)
    largest = keep.amax(0)  # each matrix on its own scale: at small α all of it is small
    scaled = (keep / largest).sqrt()
    blocks = torch.stack([gram(U * scaled[:, j]) for j in range(len(alphas))])
    if not rows.complete:
        rest = torch.eye(d, dtype=U.dtype, device=U.device) - gram(U) - gram(rows.Q[out])
        blocks += rest / largest[:, None, None]
    # Nothing but free columns can make a block singular: some row is always left for the mean.
    certain = rows.Q.shape[1] <= 1
    found = solve_definite(blocks, (inside[:, :, out] / largest[:, None, None]).mT, certain)
    return None if found is None else found.mT


def undetermined(split: int) -> InputError:
    """What is said of a split whose training rows do not determine the unpenalised part."""
    remedy = "without it an unpenalised column is constant or repeats others; shuffle, or penalise it"
    return InputError("a fold cannot be left out", "cv", f"split {split + 1}", remedy)


def gcv(rows: Rows, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
    """Generalised cross-validation: mean(e²) / (1 − dof/n)², e the training residual."""
    return rss(rows, alphas) / len(rows.U) / left(rows, alphas)[:, None] ** 2


def left(rows: Rows, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
    """1 − dof/n."""
    n = len(rows.U)
    outside = n - rows.U.shape[1] - rows.Q.shape[1]
    return (rows.kept(alphas).sum(0) + outside) / n


def rss(rows: Rows, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
    """The weighted training residual sum of squares."""
    c, keep = rows.c, rows.kept(alphas)
    total = matmul(keep.mT**2, c**2)
    return total if rows.complete else total + _outside(rows, c)


def minus_two_log_evidence(rows: Rows, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
    """−2 log marginal likelihood of y ~ N(·, σ²(I + ZZ'/α)), the unpenalised part flat, σ² profiled out.

    (n − q) log(y'(I + ZZ'/α)^-1 y / (n − q)) + Σ log(1 + s/α), constants left out.
    """
    keep, free, squares = rows.kept(alphas), len(rows.U) - rows.Q.shape[1], misfit(rows, alphas)
    tiny = torch.finfo(squares.dtype).tiny
    return free * (squares / free).clamp_min(tiny).log() - keep.log().sum(0)[:, None]


def misfit(rows: Rows, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
    """y'(I + ZZ'/α)^-1 y."""
    found = matmul(rows.kept(alphas).mT, rows.c**2)
    return found if rows.complete else found + _outside(rows, rows.c)


def _outside(rows: Rows, c: Float64[Tensor, "k t"]) -> Float64[Tensor, " t"]:
    return ((rows.y - matmul(rows.U, c)) ** 2).sum(0)


def orthonormal(N: Float64[Tensor, "n q"]) -> Float64[Tensor, "n r"]:
    """An orthonormal basis of what columns span, by their rank: columns that repeat others add nothing."""
    if N.shape[1] == 0:
        return N
    size = N.norm(dim=0)
    U, d, _ = torch.linalg.svd(N[:, size > 0] / size[size > 0], full_matrices=False)
    return U[:, d > len(N) * torch.finfo(N.dtype).eps * d.max()] if len(d) else U


def left_inverse(N: Float64[Tensor, "n q"]) -> Float64[Tensor, "q n"]:
    """The pseudoinverse of columns, each on its own scale: a small one is not taken for rounding."""
    size = N.norm(dim=0)
    size = torch.where(size > 0, size, 1)
    return torch.linalg.pinv(N / size) / size[:, None]


def project(Q: Float64[Tensor, "n q"], A: Float64[Tensor, "n m"]) -> Float64[Tensor, "n m"]:
    """A less its part along Q, twice, so that what is left is orthogonal to working precision."""
    for _ in range(2):
        A = A - Q @ (Q.mT @ A)
    return A


def floor_to_zero(s: Float64[Tensor, " k"], n: int) -> Float64[Tensor, " k"]:
    """Eigenvalues within rounding of zero, n·eps of the largest, set to zero."""
    top = s.max().clamp_min(0) if len(s) else s.sum()
    return torch.where(s > n * torch.finfo(s.dtype).eps * top, s, 0)
