"""The singular values of X itself, for small tables and where a Gram matrix would lose too many digits.

A Gram matrix squares the condition number κ: errors of eps·κ² become eps·κ here, at several times the cost.

**What rounding does to a score** is bounded from first principles. The decomposition is that of Z + E,
exactly, with ‖E‖ ≤ η = c·eps·‖Z‖; what is made of it is off by another c·eps. With M = (ZZ' + α)^-1, the
residual r = αMy and the coefficients β = Z'My, the derivatives in E of the residual, of the slack and of a
prediction of a row x are

    dr_i = −(αM)_i E β − (MZ)_i E'r
    d(αM)_ii = −2 (αM)_i E (Z'M)_i
    d(x'β) = x'(I − Z'MZ) E'u − (MZx)'E β,   u = r/α

and norms of their factors, all known from the decomposition at every α, bound them. Where the smallest
direction is not safe from E itself (η² beside s + α) nothing is certain, and the bound is infinite.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from weightdecay.ridge.columns import Columns, Problem, columns, penalized_blocks, targets, unpenalized
from weightdecay.ridge.kernel import Fold
from weightdecay.ridge.linalg import matmul
from weightdecay.ridge.rows import Rows, left_inverse, orthonormal, project

EPS = torch.finfo(torch.float64).eps
ROUNDING = 32 * EPS  # c·eps: of sums, products and decompositions, relative to the norms of what enters
SMALLEST = 1e-153  # a singular value whose square keeps its digits
SAFE = 0.3  # η beside the least of √(s + α): beyond, first derivatives say nothing


@dataclass(frozen=True)
class Noise:
    """What rounding has put into a decomposition.

    Args:
        own: relative, of every step (c·eps, times the condition number of the unpenalised columns).
        size: √s of the largest s, by which all that follows is divided.
        z: η, of the rows: a singular value may be off by so much.
        y: of the targets (t,).
        least: s under which a direction may be any, its true s between 0 and this.
        outside: norm of what of the targets neither U nor the unpenalised part reaches (t,).
    """

    own: float
    size: float
    z: float
    y: Float64[Tensor, " t"]
    least: float
    outside: Float64[Tensor, " t"]

    def some(self, some: slice | Tensor) -> "Noise":
        """The same for some of the targets."""
        return replace(self, y=self.y[some], outside=self.outside[some])

    def inflated(self, s: Float64[Tensor, " k"], alphas: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        """By how much a first derivative is to be enlarged at α/size²; infinite where it says nothing."""
        if len(s) == 0:
            return torch.ones_like(alphas)
        off = self.z / (s.clamp_min(self.least).min() + alphas).sqrt()
        return torch.where(off < SAFE, 1 / (1 - off) ** 2, torch.inf)


@dataclass(frozen=True)
class Norms:
    """Norms of the factors of the derivatives at each α, in units of the largest singular value.

    Directions that may be any are taken at their worst.

    Args:
        inverse: 1/(s + α) (k, L).
        gain: √s/(s + α) (k, L).
        keep: α/(s + α) (k, L).
        coef: ‖β‖ (L, t).
        residual: ‖r‖ (L, t).
        enlarge: see `Noise.inflated` (L,).
    """

    inverse: Float64[Tensor, "k L"]
    gain: Float64[Tensor, "k L"]
    keep: Float64[Tensor, "k L"]
    coef: Float64[Tensor, "L t"]
    residual: Float64[Tensor, "L t"]
    enlarge: Float64[Tensor, " L"]


def norms(
    s: Float64[Tensor, " k"], c: Float64[Tensor, "k t"], noise: Noise, alphas: Float64[Tensor, " L"]
) -> Norms:
    """Of a fit with eigenvalues s and targets c in its eigenbasis."""
    s, alphas = s / noise.size / noise.size, alphas / noise.size / noise.size
    worst = s.clamp_min(noise.least)[:, None]
    inverse = 1 / (worst + alphas)
    gain = worst.sqrt() * inverse
    keep = alphas / (s[:, None] + alphas)
    coef = matmul(gain.mT**2, c**2).sqrt()
    residual = (matmul(keep.mT**2, c**2) + noise.outside**2).sqrt()
    return Norms(inverse, gain, keep, coef, residual, noise.inflated(s, alphas))


def centred(problem: Problem, cols: Columns) -> tuple[Float64[Tensor, "n m"], Float64[Tensor, "n q"]]:
    """The weighted rows: what is penalised, centred and scaled, and what is not."""
    Z = torch.cat([block.clone() for block in penalized_blocks(problem, cols)], dim=1)
    N, root = unpenalized(problem, cols), problem.root
    return (Z, N) if root is None else (Z * root[:, None], N * root[:, None])


@dataclass(frozen=True)
class Direct:
    """One singular value decomposition.

    Args:
        rows: the rows' basis.
        Vh: right singular vectors, zero on columns that do not take part (k, m).
        noise: what rounding has put into it.
    """

    rows: Rows
    Vh: Float64[Tensor, "k m"]
    noise: Noise


def decompose_directly(problem: Problem, cols: Columns) -> Direct:
    """The rows' basis and the right singular vectors, from one singular value decomposition.

    The unpenalised part is appended, larger than all else, and its directions are dropped, so that what is
    left is orthogonal to it even where X has no rank of its own. Columns that do not take part are left out.

    Raises:
        FloatingPointError: a cell is not finite.
    """
    Z, N = centred(problem, cols)
    taken = torch.cat([cols.factor != 0, cols.factor.new_ones(int(cols.ones)) != 0])
    every = bool(taken.all())
    Z = Z if every else Z[:, taken]
    Q, y = orthonormal(N), targets(problem, cols)
    (n, m), q = Z.shape, Q.shape[1]
    own = ROUNDING * _condition(N)
    noise_z, noise_y = own * float(Z.norm()), own * y.norm(dim=0)
    if not math.isfinite(noise_z):
        raise FloatingPointError("X")
    if q:
        Z = project(Q, Z)
        size = 2 * Z.norm()
        Z = torch.cat([Z, Q * torch.where(size > 0, size, 1)], dim=1)
    U, d, Vh = torch.linalg.svd(Z, full_matrices=False)
    U, d, Vh = U[:, q:], d[q:], Vh[q:, :m]
    size = (float(d.max()) if len(d) else 0.0) or 1.0
    floor = max(n * EPS * size, SMALLEST)
    d = torch.where(d > floor, d, 0)
    y = project(Q, y)
    c = matmul(U.mT, y)
    outside = y.new_zeros(y.shape[1]) if U.shape[1] + q == n else (y - matmul(U, c)).norm(dim=0)
    if not every:
        Vh = Vh.new_zeros(len(Vh), len(taken)).index_copy_(1, taken.nonzero()[:, 0], Vh)
    noise = Noise(own, size, noise_z / size, noise_y, (max(floor, noise_z) / size) ** 2, outside)
    return Direct(Rows(d**2, U, y, c, Q, problem.root), Vh, noise)


def _condition(N: Float64[Tensor, "n q"]) -> float:
    """Condition number of the unpenalised columns, by any scale of theirs, as far as they differ."""
    size = N.norm(dim=0)
    if int((size > 0).sum()) < 2:
        return 1.0
    d = torch.linalg.svdvals(N[:, size > 0] / size[size > 0])
    return float(d[0] / d[d > len(N) * EPS * d[0]][-1])


@dataclass(frozen=True)
class DirectFold(Fold):
    """A fold of singular values, which knows how far rounding may have moved its errors.

    Args:
        s, c, B, base: as of any fold.
        noise: of the fit.
        W: held-out rows along the right singular vectors, in units of the noise (d, k).
        beyond: norms of what of them no singular vector reaches (d,).
        off: what rounding may have moved of each row (d,).
        share: norms of each row's weights on the training targets by the unpenalised part (d,).
        y: the rows' targets, absolute (d, t).
    """

    noise: Noise
    W: Float64[Tensor, "d k"]
    beyond: Float64[Tensor, " d"]
    off: Float64[Tensor, " d"]
    share: Float64[Tensor, " d"]
    y: Float64[Tensor, "d t"]

    def bound(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t d"]:
        """How far rounding may have moved each held-out error."""
        n, noise, W2 = norms(self.s, self.c, self.noise, alphas), self.noise, self.W**2
        left = (matmul(n.keep.mT**2, W2.mT) + self.beyond**2).sqrt()  # ‖(I − Z'MZ)x‖ (L, d)
        along = matmul(n.gain.mT**2, W2.mT).sqrt()  # ‖MZx‖
        dual = matmul(n.inverse.mT**2, self.c**2).sqrt()  # ‖u‖ on the directions of U
        apart = matmul(n.inverse.mT**2, W2.mT).sqrt()
        if bool((noise.outside > 0).any()):
            apart = apart + self.beyond / (alphas / noise.size / noise.size)[:, None]
        moved = noise.z * (
            left[:, None] * dual[:, :, None]
            + apart[:, None] * noise.outside[:, None]
            + along[:, None] * n.coef[:, :, None]
        )
        moved = moved + self.off * n.coef[:, :, None] + along[:, None] * noise.y[:, None]
        moved = moved + self.share * noise.y[:, None] + noise.own * self.y.mT
        return moved * n.enlarge[:, None, None]


def once(problem: Problem, rows: Int64[Tensor, " m"]) -> Problem:
    """Some of the rows; one that is named several times once, with its weight as often."""
    rows, count = rows.unique(return_counts=True)
    found = problem.of_rows(rows)
    if int(count.max()) == 1:
        return found
    weights = count.double() if found.weights is None else found.weights * count
    return replace(found, weights=weights)


def direct_fold(fit: Problem, held: Problem, scale: Float64[Tensor, " p"] | None = None) -> DirectFold:
    """The fold of singular values: B = (Z_S − N_S A Z_T) V diag(d).

    Args:
        fit: the training rows.
        held: the rows held out.
        scale: 1/(sd_j √f_j) of the columns; by default that of the training rows.
    """
    cols = columns(fit)
    if scale is not None:
        cols = Columns(
            cols.mean, cols.y_mean, torch.where(cols.factor > 0, scale, 0), cols.free, cols.still, cols.ones
        )
    direct = decompose_directly(fit, cols)
    rows, Vh, own = direct.rows, direct.Vh, direct.noise.own
    (Z, N), (Z_fit, N_fit) = centred(held, cols), centred(fit, cols)
    weights = matmul(N, left_inverse(N_fit))
    y, share = targets(held, cols), weights.norm(dim=1)
    base = y - matmul(weights, targets(fit, cols))
    off = own * (Z.norm(dim=1) + share * Z_fit.norm())
    Z -= matmul(weights, Z_fit)
    W = matmul(Z, Vh.mT)
    complete = len(Vh) >= int((cols.factor != 0).sum()) + cols.ones
    beyond = W.new_zeros(len(W)) if complete else (Z - matmul(W, Vh)).norm(dim=1)
    size = direct.noise.size
    return DirectFold(
        rows.s, rows.c, W * rows.s.sqrt(), base, direct.noise,
        W / size, beyond / size, off / size, share, y.abs(),
    )  # fmt: skip


def loo_bound(
    rows: Rows,
    noise: Noise,
    alphas: Float64[Tensor, " r"],
    errors: Float64[Tensor, "r t n"],
    slack: Float64[Tensor, "r n"],
) -> Float64[Tensor, "r t n"]:
    """How far rounding may have moved each leave-one-out error r_i/(1 − h_i)."""
    n, U2 = norms(rows.s, rows.c, noise, alphas), rows.U**2
    a2, b = matmul(n.keep.mT**2, U2.mT), matmul(n.gain.mT**2, U2.mT).sqrt()
    if rows.complete:
        a = own = a2.sqrt()
    else:  # what is left outside is a difference of numbers of size 1
        a = (a2 + (1 - U2.sum(1) - (rows.Q**2).sum(1)).clamp_min(0)).sqrt()
        own = torch.ones_like(a)
    residual = noise.z * (a[:, None] * n.coef[:, :, None] + b[:, None] * n.residual[:, :, None])
    residual = residual + noise.own * n.residual[:, :, None] + own[:, None] * noise.y[:, None]
    off = (2 * (noise.z * a * b + noise.own * own) / slack)[:, None]
    moved = (residual / slack[:, None] + errors.abs() * off) / (1 - off)
    return torch.where(off < SAFE, moved, torch.inf) * n.enlarge[:, None, None]


def _largest(values: Float64[Tensor, "k L"]) -> Float64[Tensor, " L"]:
    return values.amax(0) if len(values) else values.new_zeros(values.shape[1])


def gcv_bound(
    rows: Rows, noise: Noise, alphas: Float64[Tensor, " L"], outside: int
) -> Float64[Tensor, "L t"]:
    """Relative error of generalised CV; `outside`: how many directions no α reaches."""
    n = norms(rows.s, rows.c, noise, alphas)
    norm = _largest(n.keep) if rows.complete else torch.ones_like(alphas)
    residual = noise.z * (norm[:, None] * n.coef + _largest(n.gain)[:, None] * n.residual)
    residual = residual + noise.own * n.residual + norm[:, None] * noise.y
    share = (n.keep * 2 * (noise.z * n.gain + noise.own)).sum(0) / (n.keep.sum(0) + outside)
    off = residual / n.residual.clamp_min(torch.finfo(residual.dtype).tiny)
    return (2 * off + off**2 + 2 * share[:, None] + noise.own) * n.enlarge[:, None]


def evidence_bound(
    rows: Rows, noise: Noise, alphas: Float64[Tensor, " L"], misfit: Float64[Tensor, "L t"]
) -> Float64[Tensor, "L t"]:
    """Absolute error of −2 log evidence."""
    n = norms(rows.s, rows.c, noise, alphas)
    left = len(rows.U) - rows.Q.shape[1]
    # A constant target has a misfit of zero, and nothing moves it.
    off = 2 * n.residual * (noise.z * n.coef + noise.y) / misfit.clamp_min(torch.finfo(misfit.dtype).tiny)
    spread = (2 * noise.z * n.gain + noise.own * (1 - n.keep.log())).sum(0)
    return (left * (off + noise.own) + spread[:, None]) * n.enlarge[:, None]
