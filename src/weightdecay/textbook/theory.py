"""What theory says about the experiment, in float64 and without training anything.

Full-batch gradient descent on the penalised loss, and in expectation minibatch descent with replacement,
follows z_t = A^t z_0 + (I − A^t) z_ridge for z = (w, b), A = I − lr (H + λD), H = [X 1]'[X 1]/n, with D
the identity but for a zero where the bias goes free.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.ridge import LinearModel, factor, solve
from weightdecay.textbook.settings import Draw, Synthetic


@dataclass(frozen=True)
class ExpectedPath:
    """Weights (L, E, p) and bias (L, E) that gradient descent is expected to reach, per λ and step."""

    w: Float64[Tensor, "L E p"]
    b: Float64[Tensor, "L E"]

    def half_mse(self, X: Float64[Tensor, "m p"], y: Float64[Tensor, " m"]) -> Float64[Tensor, "L E"]:
        """Half the mean squared error of the expected weights on (X, y)."""
        return ((self.w @ X.T + self.b[:, :, None] - y) ** 2).mean(-1) / 2


def expected_path(
    X: Float64[Tensor, "n p"],
    y: Float64[Tensor, " n"],
    w: Float64[Tensor, " p"],
    b: Float64[Tensor, ""],
    lambdas: Float64[Tensor, " L"],
    *,
    lr: float,
    steps: Sequence[int],
    penalize_bias: bool = False,
) -> ExpectedPath:
    """The closed form of w_t and b_t at each λ, after each of the given numbers of steps.

    With V diag(μ) V' = H + λD:  z_t = V [(1 − lr μ)^t V'z_0 + (1 − (1 − lr μ)^t)/μ V'g],  g = [X 1]'y/n.
    A direction with μ = 0 is left where it started. Convention: half *mean* squared loss, canonical λ.

    Args:
        X: inputs (n, p).
        y: targets (n,).
        w: weights at the start (p,).
        b: bias at the start ().
        lambdas: canonical λ (L,).
        lr: step size.
        steps: the numbers of steps t at which the path is wanted (E of them).
        penalize_bias: let the bias decay, too.
    """
    n, p = X.shape
    basis = torch.linalg.qr(torch.cat([X.T, w[:, None]], 1)).Q if p > n + 1 else torch.eye(p, dtype=X.dtype)
    design = torch.cat([X @ basis, X.new_ones(n, 1)], 1)
    start = torch.cat([basis.T @ w, b[None]])
    decays = X.new_ones(len(start))
    decays[-1] = float(penalize_bias)
    mu, V = torch.linalg.eigh(design.T @ design / n + lambdas[:, None, None] * decays.diag())
    mu, t = mu[:, None, :], torch.tensor(steps, dtype=X.dtype)[:, None]
    remains = (1 - lr * mu) ** t
    # (1 − (1 − x)^t)/μ with x = lr μ loses its digits as x t → 0: two terms of its series serve there.
    small = (lr * mu * t).abs() < 1e-8
    series = lr * t * (1 - (t - 1) * lr * mu / 2)
    gained = torch.where(small, series, (1 - remains) / torch.where(small, 1, mu))
    z = (remains * (start @ V)[:, None] + gained * ((design.T @ y / n) @ V)[:, None]) @ V.mT
    return ExpectedPath(z[..., :-1] @ basis.T, z[..., -1])


def ridge_models(draw: Draw, lambdas: Float64[Tensor, " L"], penalize_bias: bool = False) -> LinearModel:
    """The exact minimisers that the trainings go to: ridge on the draw's training data, canonical λ."""
    if not penalize_bias:
        return solve(factor(draw.X, draw.y), lambdas)
    whole = solve(
        factor(torch.cat([draw.X, draw.X.new_ones(len(draw.y), 1)], 1), draw.y, center=False), lambdas
    )
    return LinearModel(whole.w[:, :-1], whole.w[:, -1])


def largest_curvature(X: Float64[Tensor, "n p"], with_bias: bool = True) -> float:
    """The h of the limit lr < 2/(h + λ): the largest eigenvalue of [X 1]'[X 1]/n (of X'X/n without bias)."""
    design = torch.cat([X, X.new_ones(len(X), 1)], 1) if with_bias else X
    return float(torch.linalg.matrix_norm(design, 2) ** 2) / len(X)


def residue(
    X: Float64[Tensor, "n p"], lambdas: Float64[Tensor, " L"], lr: float, steps: int
) -> Float64[Tensor, " L"]:
    """What is expected to be left of an N(0, 1) start where no example reaches: (p − rank X)(1 − lr λ)^(2T).

    It is a squared length; at λ = 0 nothing is ever lost of it.
    """
    return (X.shape[1] - int(torch.linalg.matrix_rank(X))) * (1 - lr * lambdas) ** (2 * steps)


def out_of_reach(X: Float64[Tensor, "n p"], w: Float64[Tensor, "L p"]) -> Float64[Tensor, " L"]:
    """The squared length of that part of each w that no row of X reaches (its part in the null space)."""
    _, s, Vh = torch.linalg.svd(X, full_matrices=False)
    rows = Vh[s > max(X.shape) * torch.finfo(s.dtype).eps * s.max()]
    return ((w - w @ rows.T @ rows) ** 2).sum(1)


def excess_risk(
    data: Synthetic, w: Float64[Tensor, "S L p"], b: Float64[Tensor, "S L"]
) -> Float64[Tensor, "S L"]:
    """||w − w*||² + (b − b*)²: twice the expected half squared test loss above the noise's own."""
    return ((w - data.true_weight) ** 2).sum(2) + (b - data.true_bias) ** 2


def best_lam(data: Synthetic) -> float | None:
    """The canonical λ of least expected excess risk at convergence: noise² / (n w*²); None if w* = 0.

    It is the posterior mean's, were w* ~ N(0, w*²); X ~ N(0, 1) favours no direction, so the one w* with
    all its entries alike is served as well.

    >>> round(best_lam(Synthetic()), 6)
    0.05
    """
    signal = data.n_train * data.true_weight**2  # which underflows to 0 for a tiny w*
    return data.noise**2 / signal if signal else None
