"""Ridge from one singular value decomposition: the solution and the exact leave-one-out error at every λ.

Objective (canonical λ):  J(w, b) = 1/(2n) ||y − Xw − b||² + λ/2 ||w||²,  b free.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """What every λ shares: the centred inputs X − 1m' = U diag(s) V', thin, the constant direction apart.

    Args:
        m: the inputs' means (p,); zero when the bias is penalised or absent.
        y_mean: the target's mean (); zero likewise.
        y: the centred target (n,).
        U: left singular vectors (n, k), orthogonal to the constant.
        s: singular values (k,), those within rounding of zero set to zero.
        Vh: right singular vectors (k, p).
        leverage_of_mean: 1/n where a mean was taken out, else 0.
    """

    m: Float[Tensor, " p"]
    y_mean: Float[Tensor, ""]
    y: Float[Tensor, " n"]
    U: Float[Tensor, "n k"]
    s: Float[Tensor, " k"]
    Vh: Float[Tensor, "k p"]
    leverage_of_mean: float

    @property
    def rank(self) -> int:
        """The rank of the centred inputs."""
        return int((self.s > 0).sum())

    @property
    def spans_everything(self) -> bool:
        """Whether U and the constant together span all of n-space, so that nothing of y lies outside."""
        return self.U.shape[1] + (self.leverage_of_mean > 0) == self.U.shape[0]


@dataclass(frozen=True)
class LinearModel:
    """ŷ = Xw + b, with w of shape (p,) and b of shape (); or L such models, (L, p) and (L,)."""

    w: Float[Tensor, "*L p"]
    b: Float[Tensor, "*L"]

    def predict(self, X: Float[Tensor, "m p"]) -> Float[Tensor, "*L m"]:
        """The predictions, shape (m,) or (L, m)."""
        return self.w @ X.T + self.b[..., None]

    def half_mse(self, X: Float[Tensor, "m p"], y: Float[Tensor, " m"]) -> Float[Tensor, "*L"]:
        """Half the mean squared error on (X, y), shape () or (L,)."""
        return ((self.predict(X) - y) ** 2).mean(-1) / 2


def factor(X: Float[Tensor, "n p"], y: Float[Tensor, " n"], center: bool = True) -> Factors:
    """Factor once, query many: the thin singular value decomposition of the centred inputs.

    The constant vector is set apart by making it the top singular vector (a large constant column is
    appended, and its triple dropped), so that what is left is orthogonal to it even where X has no rank
    of its own: the leave-one-out error then needs no subtraction of 1/n.

    Args:
        X: inputs (n, p).
        y: target (n,).
        center: take the means out, which leaves the bias free of the penalty.
    """
    n, p = X.shape
    m = X.mean(0) if center else X.new_zeros(p)
    y_mean = y.mean() if center else y.new_zeros(())
    Z = X - m
    if center:
        scale = 2 * torch.linalg.matrix_norm(Z) + 1
        Z = torch.cat([Z, (scale / n**0.5).expand(n, 1)], dim=1)
    U, s, Vh = torch.linalg.svd(Z, full_matrices=False)
    if center:
        U, s, Vh = U[:, 1:], s[1:], Vh[1:, :p]
    floor = max(n, p) * torch.finfo(s.dtype).eps * (s.max() if len(s) else 0)
    return Factors(m, y_mean, y - y_mean, U, torch.where(s > floor, s, 0), Vh, 1 / n if center else 0.0)


def solve(factors: Factors, lam: float | Float[Tensor, " L"]) -> LinearModel:
    """The ridge solution: w = V diag(s / (s² + nλ)) U'y, b = mean(y) − m'w.

    Convention: canonical λ, half *mean* squared loss + λ/2 ||w||²; scikit-learn's alpha is nλ.
    At λ = 0 it is the solution of least norm (the pseudoinverse).

    Args:
        factors: from `factor`.
        lam: λ ≥ 0, or several (L,).

    >>> X, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([1.0, 3.0, 5.0])
    >>> model = solve(factor(X, y), lam=0.0)
    >>> [round(v.item(), 4) for v in (model.w[0], model.b)]
    [2.0, 1.0]
    """
    n, s = len(factors.y), factors.s
    lam = torch.as_tensor(lam, dtype=s.dtype)[..., None]
    gain = torch.where(s > 0, s / (s**2 + n * lam).clamp_min(torch.finfo(s.dtype).tiny), 0)
    w = (gain * (factors.U.T @ factors.y)) @ factors.Vh
    return LinearModel(w, factors.y_mean - w @ factors.m)


def loo_errors(factors: Factors, lambdas: Float[Tensor, " L"]) -> Float[Tensor, " L"]:
    """The exact leave-one-out error at each λ: the mean squared error of n refits, without refitting.

        e_i = (y_i − ŷ_i) / (1 − h_i),   h = the diagonal of the hat matrix (with the mean's 1/n)

    With φ = nλ/(s² + nλ): residual = Uφ U'y + (what of y lies outside U), and 1 − h_i = Σ_k U_ik² φ_k +
    (what of e_i lies outside); where U spans everything both rests are exactly nothing and are left out.

    Args:
        factors: from `factor`.
        lambdas: canonical λ > 0, shape (L,).
    """
    n, U = len(factors.y), factors.U
    alpha = n * lambdas.to(U.dtype)
    keep = alpha[:, None] / (factors.s**2 + alpha[:, None])
    projected = U.T @ factors.y
    residual = (keep * projected) @ U.T
    slack = keep @ (U**2).T
    if not factors.spans_everything:
        residual = residual + (factors.y - U @ projected)
        slack = slack + (1 - factors.leverage_of_mean - (U**2).sum(1))
    return ((residual / slack) ** 2).mean(1)


@dataclass(frozen=True)
class LeastLoo:
    """The strength of least leave-one-out error.

    Args:
        lam: canonical λ.
        error: the mean squared leave-one-out error there.
        at_edge: whether λ is the first or last of the grid: the least may lie beyond it.
    """

    lam: float
    error: float
    at_edge: bool


def least_loo(factors: Factors, per_decade: int = 10) -> LeastLoo:
    """The λ of least leave-one-out error, on a log grid over the whole range that matters.

    The grid goes from 1e-12 to 100 of the mean of s²/n: below, nothing is shrunk; above, all is.
    """
    mean = float((factors.s**2).sum()) / len(factors.y) / max(1, factors.rank)
    lambdas = mean * torch.logspace(-12, 2, 14 * per_decade + 1, dtype=factors.s.dtype)
    errors = loo_errors(factors, lambdas)
    best = int(errors.argmin())
    return LeastLoo(float(lambdas[best]), float(errors[best]), best in (0, len(lambdas) - 1))
