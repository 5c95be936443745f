"""The directions in which a penalty acts on a set of rows, from their moments: α only scales them.

With centred, weighted rows Z and R such that Z R has orthonormal columns:

    b(α) = R diag(φ) R'g,   φ_k = s_k/(s_k + α), and 1 where nothing is penalised
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.ridge.columns import is_constant
from weightdecay.ridge.linalg import eigh, matmul
from weightdecay.ridge.moments import Moments

Intercept = Literal["free", "penalized", "none"]


@dataclass(frozen=True)
class Penalty:
    """What is penalised: Σ_j f_j b_j², on columns divided by their sd if `standardize`.

    Args:
        factors: f ≥ 0 (p,), or None for ones.
        intercept: "free", "penalized" like a column of ones, or "none".
        standardize: divide columns by their sd on the training rows.
    """

    factors: Float64[Tensor, " p"] | None = None
    intercept: Intercept = "free"
    standardize: bool = False


@dataclass(frozen=True)
class Basis:
    """A factored set of training rows; m is p, and one more for a penalised intercept.

    Args:
        R: directions (m, r): the penalised by falling s, then the free.
        s: eigenvalues of the penalised, scaled, projected X'X (k,), descending, rounding zeros set to 0.
        null: directions the rows say nothing of, in the penalty's own scale (m, z).
        c: R'g (r, t).
        ss: Σ w (y − centre)² (t,).
        center: what is taken out of inputs and targets before anything else (p + t,).
        rest: what rounding left out of it (p + t,).
        largest: of the diagonal before what is free was projected out, or s: what rounding is relative to.
        floor: eigenvalues below it were taken for zero.
        free_condition: condition number of the free columns' products.
        weight: sum of the rows' weights.
        intercept: "free", "penalized" (the last row of R is its own) or "none".
    """

    R: Float64[Tensor, "m r"]
    s: Float64[Tensor, " k"]
    null: Float64[Tensor, "m z"]
    c: Float64[Tensor, "r t"]
    ss: Float64[Tensor, " t"]
    center: Float64[Tensor, " pt"]
    rest: Float64[Tensor, " pt"]
    largest: float
    floor: float
    free_condition: float
    weight: float
    intercept: Intercept

    @property
    def ones(self) -> bool:
        """Whether the last row of R is an intercept's."""
        return self.intercept == "penalized"

    @property
    def rank(self) -> int:
        """How many penalised directions the rows determine."""
        return int((self.s > 0).sum())

    @property
    def free(self) -> int:
        """How many unpenalised columns there are, as far as the rows tell them apart."""
        return self.R.shape[1] - self.rank

    @property
    def p(self) -> int:
        """The number of inputs."""
        return len(self.R) - self.ones

    def phi(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "r L"]:
        """s/(s + α), and 1 for free directions."""
        s = self.s[: self.rank, None]
        alphas = alphas.to(s.device)
        return torch.cat([s / (s + alphas), alphas.new_ones(self.free, len(alphas))])

    def lost(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "r L"]:
        """α/(s + α), which is 1 − φ with all its digits, and 0 for free directions."""
        s = self.s[: self.rank, None]
        alphas = alphas.to(s.device)
        return torch.cat([alphas / (s + alphas), alphas.new_zeros(self.free, len(alphas))])

    def fits(self, alphas: Float64[Tensor, " L"], targets: slice = slice(None)) -> Float64[Tensor, "m L u"]:
        """Coefficients at each α, an intercept penalised or free of columns last where there is one."""
        c = self.c[:, targets]
        spread = self.phi(alphas)[:, :, None] * c[:, None, :]
        L, u = len(alphas), c.shape[1]
        return matmul(self.R, spread.reshape(len(c), L * u)).reshape(len(self.R), L, u)

    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """Coefficients and intercepts on the original scale, an α for each target."""
        b = matmul(self.R, self.phi(alphas) * self.c)
        p = self.p
        coef = b[:p]
        mean, y_mean = self.center[:p], self.center[p:]
        intercept = (y_mean - mean @ coef) + (self.rest[p:] - self.rest[:p] @ coef)
        return coef, intercept + b[p] if self.ones else intercept


def basis(moments: Moments, penalty: Penalty, eps: float = torch.finfo(torch.float64).eps) -> Basis:
    """Factor a set of rows given by its moments.

    Args:
        moments: of the training rows.
        penalty: what is penalised.
        eps: rounding of the products the moments are sums of.
    """
    p = moments.p
    G, g, ss, center, rest = _about_the_intercept(moments, penalty.intercept)
    factors = G.new_ones(len(G))
    if penalty.factors is not None:
        factors[:p] = penalty.factors.to(G.device)
    sd = deviations(moments, eps)
    scale = _scale(sd, penalty, len(G))
    unpenalised = factors == 0
    if penalty.intercept == "free":  # beside a constant of its own a constant column has nothing to say
        unpenalised[:p] &= sd > 0
    P, U = (factors > 0).nonzero()[:, 0], unpenalised.nonzero()[:, 0]
    column = scale[P] / factors[P].sqrt()
    K = column[:, None] * G[P][:, P] * column
    largest = float(K.diagonal().max()) if len(P) else 0.0
    free, condition = _free(G, U, eps)
    along = matmul(free.mT, G[U][:, P] * column)  # free directions against penalised columns
    if len(U):
        K = K - matmul(along.mT, along)
    s, V = eigh(K) if len(P) else (G.new_zeros(0), G.new_zeros(0, 0))
    s, V = s.flip(0), V.flip(1)
    largest = max(largest, float(s[0]) if len(s) else 0.0)
    double = eps <= torch.finfo(torch.float64).eps
    floor = (max(len(P), 8) if double else 4) * eps * largest
    s = torch.where(s > floor, s, 0)
    rank = int((s > 0).sum())

    full = G.new_zeros(len(G), len(P) + free.shape[1])
    full[P, : len(P)] = column[:, None] * V
    if len(U):
        full[U, : len(P)] = -matmul(free, matmul(along, V))
        full[U, len(P) :] = free
    R = torch.cat([full[:, :rank] / s[:rank].sqrt(), full[:, len(P) :]], dim=1)
    return Basis(
        R, s, full[:, rank : len(P)], matmul(R.mT, g), ss, center, rest, largest, floor, condition,
        moments.weight, penalty.intercept,
    )  # fmt: skip


def _about_the_intercept(m: Moments, intercept: Intercept) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Products about the means, or about zero where the intercept is not free, with ones if penalised."""
    if intercept == "free":
        return m.G, m.g, m.ss, m.mean, m.rest
    x, y, W = m.x_mean, m.y_mean, m.weight
    G, g = torch.addr(m.G, W * x, x), torch.addr(m.g, W * x, y)
    if intercept == "penalized":
        edge = torch.cat([W * x, x.new_tensor([W])])
        G = torch.cat([torch.cat([G, W * x[None]]), edge[:, None]], dim=1)
        g = torch.cat([g, W * y[None]])
    return G, g, m.ss + W * y**2, torch.zeros_like(m.mean), torch.zeros_like(m.rest)


def deviations(m: Moments, eps: float) -> Float64[Tensor, " p"]:
    """Standard deviations (1/n) of the inputs, of this rounding; 0 for one that does not vary."""
    sd = (m.G.diagonal().clamp_min(0) / m.weight).sqrt()
    dtype = torch.float32 if eps == torch.finfo(torch.float32).eps else torch.float64
    return torch.where(is_constant(m.x_mean, sd, dtype), 0, sd)


def _scale(sd: Float64[Tensor, " p"], penalty: Penalty, side: int) -> Tensor:
    """1/sd if columns are standardised, and 0 for a column that is constant, whose coefficient is 0."""
    scale = sd.new_ones(side)
    if penalty.standardize:
        scale[: len(sd)] = 1 / sd
    if penalty.standardize or penalty.intercept == "free":
        scale[: len(sd)][sd == 0] = 0
    return scale


def _free(G: Tensor, U: Tensor, eps: float) -> tuple[Tensor, float]:
    """An orthonormal basis of the free columns, by any scale of theirs, and their condition number."""
    if len(U) == 0:
        return G.new_zeros(0, 0), 1.0
    unit = G[U, U].clamp_min(0)
    unit = torch.where(unit > 0, unit.rsqrt(), 0)
    u, Q = eigh(unit[:, None] * G[U][:, U] * unit)
    kept = u > 8 * len(U) * eps
    if not bool(kept.any()):
        return G.new_zeros(len(U), 0), 1.0
    return unit[:, None] * Q[:, kept] / u[kept].sqrt(), float(u.max() / u[kept].min())
