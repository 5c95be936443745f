"""The rows of a table in their eigenbasis, and all that the route through the rows takes from it.

`Rows` holds the basis. It comes from products of the rows (`kernel`, `decompose`) or from singular values
(`decompose_directly`), which keep more digits and a bound on their rounding (`Noise`). From it follow
residuals, leave-one-out errors and criteria; folds, as blocks of the basis or by a decomposition of their own
(`Fold`, `DirectFold`); bounds on what rounding has moved; coefficients; and the covariance of predictions.
"""

import math
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.linalg import EPS, eigh, gram, matmul, solve_definite
from weightdecay.ridge.problem import (
    Columns,
    Problem,
    across_rows,
    columns,
    products_of_rows,
    unpenalized,
)

NEEDED = 1e-12  # of a row's own, beside the unpenalised part: below, that has no solution without it
ROUNDING = 32 * EPS  # c·eps: of sums, products and decompositions, relative to the norms of what enters
SMALLEST = 1e-153  # a singular value whose square keeps its digits
SAFE = 0.3  # η beside the least of √(s + α): beyond, first derivatives say nothing
LARGEST = 2e8  # numbers in a covariance's `root`: 1.6 GB


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
    errors = matmul(spread, rows.U.mT).reshape(len(alphas), t, -1)
    if not rows.complete:
        errors += (rows.y - matmul(rows.U, c)).mT
    return errors


def slack(rows: Rows, alphas: Float64[Tensor, " r"]) -> Float64[Tensor, "r n"]:
    """1 − h_i at each α: nothing is subtracted where U is complete, so tiny values keep their digits."""
    squares = rows.U**2
    left = matmul(rows.kept(alphas).mT, squares.mT)
    if not rows.complete:
        left += (1 - squares.sum(1) - (rows.Q**2).sum(1)).clamp_min(0)
    return left


def loo_errors(
    rows: Rows, alphas: Float64[Tensor, " r"], left_of_one: Float64[Tensor, "r n"]
) -> Float64[Tensor, "r t n"]:
    """Leave-one-out errors e_i / (1 − h_i), in the weighted space; not finite where 1 − h_i rounds to zero.

    Args:
        rows: the rows' basis.
        alphas: penalties.
        left_of_one: 1 − h_i, as `slack` gives it.

    Raises:
        InputError: a row that the unpenalised part needs: without it there is no solution.
    """
    needed = (1 - (rows.Q**2).sum(1) < NEEDED).nonzero()[:, 0]
    if len(needed):
        why = "an unpenalised column depends on it alone"
        raise InputError("a row cannot be left out", "row", int(needed[0]) + 1, why)
    return residuals(rows, alphas).div_(left_of_one[:, None, :])


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
    errors = solve_definite(blocks, (inside[:, :, out] / largest[:, None, None]).mT, certain)
    return None if errors is None else errors.mT


def undetermined(split: int) -> InputError:
    """Return the error for a split whose training rows do not determine the unpenalised part."""
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
    total = matmul(rows.kept(alphas).mT, rows.c**2)
    return total if rows.complete else total + _outside(rows, rows.c)


def _outside(rows: Rows, c: Float64[Tensor, "k t"]) -> Float64[Tensor, " t"]:
    return ((rows.y - matmul(rows.U, c)) ** 2).sum(0)


# Decomposing the products of the rows.


def orthonormal(N: Float64[Tensor, "n q"]) -> Float64[Tensor, "n r"]:
    """An orthonormal basis of what columns span, by their rank: columns that repeat others add nothing."""
    if N.shape[1] == 0:
        return N
    size = N.norm(dim=0)
    if N.shape[1] == 1:
        return N / size if float(size) > 0 else N[:, :0]
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
    """Form the products.

    Raises:
        FloatingPointError: a cell is not finite.
    """
    K = products_of_rows(problem, cols)
    if not bool(K.diagonal().sum().isfinite()):
        raise FloatingPointError("X")
    # Targets are centred before anything is projected out: a large mean takes no digits.
    N, y, root = unpenalized(problem, cols), problem.y - cols.y_mean, problem.root
    if root is not None:
        K *= root[:, None] * root
        N, y = N * root[:, None], y * root[:, None]
    return Kernel(K, N, y, root)


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


def part_of_kernel(rows: Kernel, keep: Int64[Tensor, " m"]) -> Kernel:
    """The same of some of the rows."""
    root = None if rows.root is None else rows.root[keep]
    return Kernel(rows.K[keep][:, keep], rows.N[keep], rows.y[keep], root)


# Folds by a decomposition of their own.


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
        (k, t), (inverse, unit) = self.c.shape, self._inverse(alphas)
        spread = (inverse.mT[:, None, :] * self.c.mT).reshape(len(alphas) * t, k)
        return self.base.mT - matmul(spread, self.B.mT / unit).reshape(len(alphas), t, len(self.B))

    def errors_each(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "d t"]:
        """Each target at an α of its own."""
        inverse, unit = self._inverse(alphas)
        return self.base - matmul(self.B / unit, inverse * self.c)

    def _inverse(self, alphas: Tensor) -> tuple[Tensor, float]:
        """u/(s + α), and u: a power of two near the largest s, which keeps it in range for any scale of X."""
        unit = 2.0 ** (math.frexp(float(self.s.max()))[1] - 1) if len(self.s) else 1.0
        return torch.where(self.s[:, None] > 0, unit / (self.s[:, None] + alphas), 0), unit


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
    return part_of_kernel(both, torch.arange(m)), Cross(both.K[m:, :m], both.N[m:], both.y[m:])


# Singular values, and how far rounding may have moved what follows from them.


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
        enlarge: by how much a first derivative is to be enlarged; infinite where it says nothing (L,).
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
    enlarge = torch.ones_like(alphas)
    if len(s):
        off = noise.z / (s.clamp_min(noise.least).min() + alphas).sqrt()
        enlarge = torch.where(off < SAFE, 1 / (1 - off) ** 2, torch.inf)
    return Norms(inverse, gain, keep, coef, residual, enlarge)


Weighted = tuple[Float64[Tensor, "n m"], Float64[Tensor, "n q"], Float64[Tensor, "n t"]]


def weighted(problem: Problem, cols: Columns) -> Weighted:
    """The weighted rows: what is penalised, centred and scaled; what is not; and the centred targets."""
    assert isinstance(problem.X, Tensor)
    Z = ((problem.X.double() - cols.mean) * cols.factor).contiguous()
    if cols.ones:
        Z = torch.cat([Z, Z.new_ones(len(Z), 1)], dim=1)
    N, y, root = unpenalized(problem, cols), problem.y - cols.y_mean, problem.root
    return (Z, N, y) if root is None else (Z * root[:, None], N * root[:, None], y * root[:, None])


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


def decompose_directly(problem: Problem, cols: Columns, parts: Weighted | None = None) -> Direct:
    """The rows' basis and the right singular vectors, from one singular value decomposition.

    The unpenalised part is appended, larger than all else, and its directions are dropped, so that what is
    left is orthogonal to it even where X has no rank of its own. Columns that do not take part are left out.

    Args:
        problem: the rows.
        cols: how the columns enter.
        parts: the rows as `weighted` gives them, where they are at hand.

    Raises:
        FloatingPointError: a cell is not finite.
    """
    Z, N, y = weighted(problem, cols) if parts is None else parts
    taken = torch.cat([cols.factor != 0, cols.factor.new_ones(int(cols.ones)) != 0])
    every = bool(taken.all())
    Z = Z if every else Z[:, taken]
    Q = orthonormal(N)
    (n, m), q = Z.shape, Q.shape[1]
    own, size = 1.0, N.norm(dim=0)
    if (
        int((size > 0).sum()) > 1
    ):  # condition number, by any scale of theirs, of columns as far as they differ
        d = torch.linalg.svdvals(N[:, size > 0] / size[size > 0])
        own = float(d[0] / d[d > n * EPS * d[0]][-1])
    own *= ROUNDING
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


def direct_fold(fit: Problem, cols: Columns, held: Problem) -> DirectFold:
    """The fold of singular values: B = (Z_S − N_S A Z_T) V diag(d).

    Args:
        fit: the training rows.
        cols: how the columns enter.
        held: the rows held out.
    """
    (Z, N, y), (Z_fit, N_fit, y_fit) = weighted(held, cols), weighted(fit, cols)
    direct = decompose_directly(fit, cols, (Z_fit, N_fit, y_fit))
    rows, Vh, own, size = direct.rows, direct.Vh, direct.noise.own, direct.noise.size
    weights = matmul(N, left_inverse(N_fit))
    share = weights.norm(dim=1)
    base = y - matmul(weights, y_fit)
    off = own * (Z.norm(dim=1) + share * Z_fit.norm())
    Z -= matmul(weights, Z_fit)
    W = matmul(Z, Vh.mT)
    complete = len(Vh) >= int((cols.factor != 0).sum()) + cols.ones
    beyond = W.new_zeros(len(W)) if complete else (Z - matmul(W, Vh)).norm(dim=1)
    return DirectFold(
        rows.s, rows.c, W * rows.s.sqrt(), base, direct.noise,
        W / size, beyond / size, off / size, share, y.abs(),
    )  # fmt: skip


def loo_bound(
    rows: Rows,
    noise: Noise,
    alphas: Float64[Tensor, " r"],
    errors: Float64[Tensor, "r t n"],
    left_of_one: Float64[Tensor, "r n"],
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
    off = (2 * (noise.z * a * b + noise.own * own) / left_of_one)[:, None]
    moved = (residual / left_of_one[:, None] + errors.abs() * off) / (1 - off)
    return torch.where(off < SAFE, moved, torch.inf) * n.enlarge[:, None, None]


def _largest(values: Float64[Tensor, "k L"]) -> Float64[Tensor, " L"]:
    return values.amax(0) if len(values) else values.new_zeros(values.shape[1])


def gcv_bound(rows: Rows, noise: Noise, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
    """Relative error of generalised CV."""
    outside = len(rows.U) - rows.U.shape[1] - rows.Q.shape[1]  # directions that no α reaches
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


# Coefficients and their covariance.


def coefficients(
    problem: Problem, cols: Columns, dual: Float64[Tensor, "n t"]
) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
    """From dual weights u, with β = Z'u, to coefficients and intercepts of the columns as they were given."""
    u = dual if problem.root is None else dual * problem.root[:, None]
    # Of columns that are centred first: u may be large where λ is small, its sum is zero only to rounding.
    coef = _gathered(problem, cols, u.mT.contiguous())[:, : problem.X.shape[1]].mT * cols.factor[:, None]
    constant = u.sum(0) if cols.ones else u.new_zeros(u.shape[1])
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
    for J, block in problem.blocks():
        rest = rest - (block.double() - cols.mean[J]) @ coef[J]
    if problem.thin is not None:
        J, thin = problem.thin
        rest = rest - (thin @ coef[J] - cols.mean[J] @ coef[J])
    N = unpenalized(problem, cols)
    if problem.root is not None:
        N, rest = N * problem.root[:, None], rest * problem.root[:, None]
    a = left_inverse(N) @ rest
    if problem.intercept == "free":
        constant, a = a[0], a[1:]
    coef[cols.free] = a
    return coef, constant - cols.mean @ coef


@dataclass(frozen=True)
class Covariance:
    """(X'X + αF)^-1 by directions: what each adds to the variance is a square, and nothing is subtracted.

        z = (x − center)·factor − (x − center)[free] adjust
        v(x) = leverage + ‖free_root (x − center)[free]‖² + Σ_k weight_k (r_k·z)²
               + beyond ‖z − Σ_k r_k (r_k·z)‖²

    Args:
        center: what is taken out of the inputs: their means, or zero unless the intercept is free (p,).
        factor: 1/(sd_j √f_j), m of them: p, and one more where the intercept is a penalised column of ones.
        root: directions r_k (k, m).
        weight: the variance along each (k,).
        beyond: the prior's variance, 1/α, of directions that no r_k reaches; 0 where there are none.
        rounding: the part of z, along each r_k and beyond them, that is no more than rounding (k + 1,): where
            α is tiny it must not weigh in directions that the data do not determine.
        leverage: the variance of the intercept, 1/n or 0.
        free: places of the columns that are not penalised (q,).
        adjust: regressions of the penalised columns on the free ones (q, m).
        free_root: a root of the inverse of the free columns' products (q, q).
    """

    center: Float64[Tensor, " p"]
    factor: Float64[Tensor, " m"]
    root: Float64[Tensor, "k m"]
    weight: Float64[Tensor, " k"]
    beyond: Float64[Tensor, ""]
    rounding: Float64[Tensor, " k1"]
    leverage: Float64[Tensor, ""]
    free: Int64[Tensor, " q"]
    adjust: Float64[Tensor, "q m"]
    free_root: Float64[Tensor, "q q"]

    def variance(self, X: Float64[Tensor, "b p"]) -> Float64[Tensor, " b"]:
        """The variance of the prediction's mean at inputs, in units of σ² (b,)."""
        D = X - self.center
        alone = D[:, self.free]
        if len(self.factor) > D.shape[1]:
            D = torch.cat([D, D.new_ones(len(D), 1)], dim=1)
        Z = D * self.factor - alone @ self.adjust
        size = Z.norm(dim=1)
        inner = Z @ self.root.mT
        least = self.rounding * size[:, None]
        inner = torch.where(inner.abs() > least[:, :-1] * self.root.norm(dim=1), inner, 0)
        total = self.leverage + (alone @ self.free_root.mT).square().sum(1) + inner.square() @ self.weight
        if float(self.beyond) > 0:
            rest = Z - inner @ self.root
            rest -= (rest @ self.root.mT) @ self.root
            total += torch.where(rest.norm(dim=1) > least[:, -1], rest.square().sum(1), 0) * self.beyond
        return total

    def cpu(self) -> "Covariance":
        """The same in main memory."""
        return replace(self, **{name: part.cpu() for name, part in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """The parts by name, for a file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], mean: Float64[Tensor, " p"]) -> "Covariance":
        """From the parts of `tensors`, or from those of the first version, which kept the means apart."""
        if "rest" in tensors:
            sign, leverage = tensors["rest"].unbind()
            return _of_first_version(tensors["diagonal"], tensors["root"], sign, leverage, mean)
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})


def covariance_of_rows(
    problem: Problem, cols: Columns, rows: Rows, Vh: Float64[Tensor, "k m"] | None, alpha: float
) -> Covariance:
    """By the right singular vectors of the rows: (V diag(s) V' + α)^-1 = Σ_k v_k v_k'/(s_k + α) + 1/α beyond.

    Args:
        problem: what was fitted.
        cols: how its columns enter.
        rows: the rows' basis.
        Vh: right singular vectors; None where products were decomposed, and they have to be made.
        alpha: α > 0.

    Raises:
        InputError: too large a root.
    """
    kept = rows.s > 0
    count, m = int(kept.sum()), problem.X.shape[1] + cols.ones
    if count * m > LARGEST:
        raise InputError(
            "the covariance is too large", "rows × columns", f"{count} × {m}", "use fewer columns"
        )
    root = _right(problem, cols, rows) if Vh is None else Vh[kept]
    unit = root.new_ones(())
    factor = torch.cat([torch.where(cols.factor > 0, cols.factor, 0), unit.expand(int(cols.ones))])
    s = rows.s[kept]
    rounding = torch.zeros_like(s), ROUNDING * (s.max() / s.min()).sqrt()[None] if count else 0 * unit[None]
    return Covariance(
        cols.mean,
        factor,
        root,
        1 / (s + alpha),
        unit / alpha if count < int((factor > 0).sum()) else 0 * unit,
        torch.cat(rounding),
        unit / len(problem.X) if problem.intercept == "free" else 0 * unit,
        cols.free,
        *_of_free(problem, cols, m),
    )


def spread_of_rows(
    problem: Problem, cols: Columns, rows: Rows, Vh: Float64[Tensor, "k m"] | None, alpha: float
) -> Float64[Tensor, " p"]:
    """Standard errors of the coefficients in units of σ: the norm of the map from y to each of them.

    That map is V diag(√s/(s + α)) U' for the penalised columns; for the free ones N^+ − N^+ Z V diag(…) U',
    whose two parts are orthogonal.
    """
    kept = rows.s > 0
    adjust, free_root = _of_free(problem, cols, problem.X.shape[1] + cols.ones)
    if Vh is None:
        u = _beside(rows, rows.U[:, kept] / (rows.s[kept] + alpha))
        gains = across_rows(problem, cols, u)
    else:
        gain = Vh[kept] * (rows.s[kept].sqrt() / (rows.s[kept] + alpha))[:, None]
        gains = iter([(slice(None), gain)])
    norms, shared = adjust.new_zeros(adjust.shape[1]), adjust.new_zeros(len(adjust), int(kept.sum()))
    for J, gain in gains:
        norms[J] = gain.norm(dim=0)
        shared += adjust[:, J] @ gain.mT
    spread = norms[: problem.X.shape[1]] * cols.factor
    spread[cols.free] = (free_root.square().sum(0) + shared.square().sum(1)).sqrt()
    return spread


def _beside(rows: Rows, U: Float64[Tensor, "n k"]) -> Float64[Tensor, "k n"]:
    """For products with rows as they are given, which have no weights yet."""
    return (U if rows.root is None else U * rows.root[:, None]).mT.contiguous()


def _right(problem: Problem, cols: Columns, rows: Rows) -> Float64[Tensor, "k m"]:
    """Right singular vectors Z'u/√s."""
    kept = rows.s > 0
    u = _beside(rows, rows.U[:, kept] / rows.s[kept].sqrt())
    return _gathered(problem, cols, u)


def _gathered(problem: Problem, cols: Columns, A: Float64[Tensor, "k n"]) -> Float64[Tensor, "k m"]:
    """A Z."""
    whole = A.new_empty(len(A), problem.X.shape[1] + cols.ones)
    for J, block in across_rows(problem, cols, A):
        whole[:, J] = block
    return whole


def _of_free(problem: Problem, cols: Columns, m: int) -> tuple[Tensor, Tensor]:
    """Regressions of the penalised columns on the free ones, and a root of (N'N)^-1 of the free ones."""
    q, root = len(cols.free), problem.root
    if q == 0:
        return problem.y.new_zeros(0, m), problem.y.new_zeros(0, 0)
    N = unpenalized(problem, cols)
    N = (N if root is None else N * root[:, None])[:, int(problem.intercept == "free") :]
    inverse = left_inverse(N)
    weighted = inverse if root is None else inverse * root
    adjust = _gathered(problem, cols, weighted)
    return adjust, torch.linalg.qr(inverse.mT)[1]


def _of_first_version(
    diagonal: Float64[Tensor, " p"],
    root: Float64[Tensor, "k p"],
    sign: Float64[Tensor, ""],
    leverage: Float64[Tensor, ""],
    mean: Float64[Tensor, " p"],
) -> Covariance:
    """From diag(d) + sign · Σ r_k r_k': the r_k/√d are orthogonal where the sign is −1."""
    q = diagonal.new_zeros(0, dtype=torch.int64)
    free = q, diagonal.new_zeros(0, len(diagonal)), diagonal.new_zeros(0, 0)
    center = mean if float(leverage) > 0 else torch.zeros_like(mean)
    if float(sign) > 0:
        weight, factor, beyond = root.new_ones(len(root)), torch.ones_like(diagonal), 0.0
    else:
        factor = diagonal.sqrt()
        root = torch.where(factor > 0, root / factor, 0)
        taken = root.square().sum(1)
        root, weight, beyond = root / taken.sqrt()[:, None], (1 - taken).clamp_min(0), 1.0
    rounding = diagonal.new_zeros(len(root) + 1)
    return Covariance(center, factor, root, weight, diagonal.new_tensor(beyond), rounding, leverage, *free)
