"""Leave-one-out of logistic and multinomial regression by one Newton step from the fit, along λ."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.logistic.solve import Fit, solve


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Each row judged without it, at one α.

    Args:
        fit: of all rows, K = 1.
        logits: of each row by the model without it (n, c), by one Newton step; rows of weight 0 as predicted.
        rows: that were really left out (m,).
        differences: of the log loss of those rows: by one step less really left out (m,).
        precision: the largest of their sizes, over the mean log loss left out.
        dof: effective degrees of freedom of the fit, the unpenalised ones included.
        evidence: −2 log of the Laplace approximation to the evidence, over Σ w.
    """

    fit: Fit
    logits: Float64[Tensor, "n c"]
    rows: Int64[Tensor, " m"]
    differences: Float64[Tensor, " m"]
    precision: float
    dof: float
    evidence: float


def leave_one_out(
    X: Float[Tensor, "n p"],
    labels: Int64[Tensor, " n"],
    classes: int,
    weights: Float64[Tensor, " n"],
    penalty: Float64[Tensor, " p"],
    alphas: Float64[Tensor, " L"],
    *,
    intercept: bool = True,
    tolerance: float = 1e-8,
    draws: int = 8,
    seed: int = 0,
) -> Iterator[LeftOut]:
    """Yield each α from the strongest to the weakest; arguments as `solve`'s, for one problem.

    Args:
        draws: how many rows are really left out, to see the precision.
        seed: of the draw.
    """
    raise NotImplementedError
    yield LeftOut(*([None] * 7))
    solve(X, labels, classes, weights[None], penalty[None], alphas, intercept=intercept, tolerance=tolerance)
    del draws, seed
