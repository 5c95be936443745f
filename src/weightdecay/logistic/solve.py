"""Logistic and multinomial regression along λ, several problems at once.

Each problem k minimises over (W, b)

    Σ_i w_ki logloss_ki + α/2 Σ_j f_kj ‖W_kj‖²

with one logit where there are two classes, and else the symmetric softmax, whose coefficients sum to zero
over the classes. The intercept b is free. A row of weight 0 is held out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Fit:
    """The fits of K problems at one α.

    Args:
        alpha: the penalty on the sum.
        place: of this α among those that were given.
        coef: (K, c, p).
        intercept: (K, c), zero where there is none.
        objective: Σ w logloss + α/2 Σ f ‖W_j‖² (K,).
        gradient: norm of the gradient over its norm at W = 0 and the best intercept (K,).
    """

    alpha: float
    place: int
    coef: Float64[Tensor, "K c p"]
    intercept: Float64[Tensor, "K c"]
    objective: Float64[Tensor, " K"]
    gradient: Float64[Tensor, " K"]
    X: Float[Tensor, "n p"]

    def logits(self, k: int, rows: Int64[Tensor, " m"]) -> Float64[Tensor, "m c"]:
        """Logits of some rows by problem k."""
        return self.X[rows].double() @ self.coef[k].mT + self.intercept[k]


def solve(
    X: Float[Tensor, "n p"],
    labels: Int64[Tensor, " n"],
    classes: int,
    weights: Float64[Tensor, "K n"],
    penalty: Float64[Tensor, "K p"],
    alphas: Float64[Tensor, " L"],
    *,
    intercept: bool = True,
    tolerance: float = 1e-8,
) -> Iterator[Fit]:
    """Yield the fits from the strongest α to the weakest.

    Args:
        X: inputs (n, p), float32 or float64.
        labels: 0 to classes − 1 (n,).
        classes: C; two have c = 1 logit, that of class 1, more have c = C.
        weights: w ≥ 0 (K, n); zero is held out.
        penalty: f ≥ 0 (K, p).
        alphas: α > 0 (L,), in any order.
        intercept: whether there is a free one.
        tolerance: of the gradient's norm, in its norm at the start.
    """
    K, (n, p), c = len(weights), X.shape, 1 if classes == 2 else classes
    design = torch.cat([X.double(), torch.ones(n, 1, dtype=torch.float64)[:, : int(intercept)]], 1)
    y = torch.nn.functional.one_hot(labels, classes).double()[:, -c:]
    width = design.shape[1]
    f = torch.cat([penalty, torch.zeros(K, width - p, dtype=torch.float64)], 1)
    start = torch.zeros(K, c, width, dtype=torch.float64)
    if intercept:
        share = (weights @ y) / weights.sum(1, keepdim=True)
        best = share.log() if c > 1 else share.log() - (1 - share).log()
        start[:, :, p] = best - best.mean(1, keepdim=True) * (c > 1)

    def value(k: int, V: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
        Z = design @ V.mT
        if c == 1:
            loss, P = (torch.nn.functional.softplus(Z) - y * Z).sum(1), Z.sigmoid()
        else:
            loss, P = Z.logsumexp(1) - (y * Z).sum(1), Z.softmax(1)
        objective = weights[k] @ loss + alpha / 2 * (f[k] * V**2).sum()
        return objective, ((P - y) * weights[k, :, None]).mT @ design + alpha * f[k] * V, P

    order = alphas.argsort(descending=True).tolist()
    norms = [value(k, start[k], 0.0)[1].norm() for k in range(K)]
    V = start.clone()
    for place in order:
        alpha = float(alphas[place])
        objective, size = torch.zeros(K, dtype=torch.float64), torch.zeros(K, dtype=torch.float64)
        for k in range(K):
            for _ in range(100):
                objective[k], G, P = value(k, V[k], alpha)
                size[k] = G.norm() / norms[k]
                if size[k] <= tolerance:
                    break
                S = torch.diag_embed(P) - P[:, :, None] * P[:, None] if c > 1 else (P * (1 - P))[:, :, None]
                H = torch.einsum("n,ncd,np,nq->cpdq", weights[k], S, design, design)
                H = H.reshape(c * width, -1) + torch.diag((alpha * f[k]).repeat(c))
                D = -torch.linalg.lstsq(H, G.reshape(-1, 1), driver="gelsd").solution.reshape(c, width)
                t = 1.0
                while t > 1e-6 and value(k, V[k] + t * D, alpha)[0] > objective[k] * (1 + 1e-14):
                    t /= 2
                V[k] += t * D
        coef, b = V[:, :, :p].clone(), V[:, :, p:].sum(2)
        yield Fit(alpha, place, coef, b, objective, size, X)
