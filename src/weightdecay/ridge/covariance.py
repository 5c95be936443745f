"""(X'X + αF)^-1 in a form that gives the variance of a prediction, in units of σ²."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.columns import Columns, Problem, blocks
from weightdecay.ridge.linalg import matmul
from weightdecay.ridge.rows import Rows

LARGEST = 2e8  # numbers in `root`: 1.6 GB


@dataclass(frozen=True)
class Covariance:
    """(X'X + αF)^-1 = diag(d) + Σ_k sign · r_k r_k', the intercept's 1/n apart.

    Args:
        diagonal: d (p,); zero where there is none.
        root: the rows r_k (k, p).
        sign: −1 where d is the prior's variance, of which the data take something away; 1 otherwise.
        leverage: the variance of the intercept, 1/n or 0.
    """

    diagonal: Float64[Tensor, " p"]
    root: Float64[Tensor, "k p"]
    sign: int
    leverage: float

    def variance(self, D: Float64[Tensor, "m p"]) -> Float64[Tensor, " m"]:
        """The variance of the prediction's mean at inputs less their mean, in units of σ² (m,)."""
        own = D**2 @ self.diagonal + self.sign * (D @ self.root.mT).square().sum(1)
        return own.clamp_min(0) + self.leverage

    def cpu(self) -> "Covariance":
        """The same in main memory."""
        return replace(self, diagonal=self.diagonal.cpu(), root=self.root.cpu())

    def tensors(self) -> dict[str, Tensor]:
        """The parts by name, for a file."""
        small = torch.tensor([self.sign, self.leverage], dtype=torch.float64)
        return {"diagonal": self.diagonal, "root": self.root, "rest": small}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Covariance":
        """From the parts of `tensors`."""
        sign, leverage = tensors["rest"].tolist()
        return cls(tensors["diagonal"], tensors["root"], int(sign), leverage)


def dual_covariance(problem: Problem, cols: Columns, rows: Rows, alpha: float) -> Covariance:
    """Through the rows: αC = F^-1 − Σ_k s/(s+α) v_k v_k', v_k the right singular vectors, scaled back.

    Raises:
        InputError: unpenalised columns, for which this form does not hold, or too large a root.
    """
    n, p = problem.X.shape
    if len(cols.free) or cols.ones:
        raise InputError(
            "no intervals here",
            "penalty_factors" if len(cols.free) else "intercept",
            "free columns" if len(cols.free) else "'penalized'",
            "with fewer rows than columns intervals need every column penalised and a free intercept",
        )
    kept = rows.s > 0
    if int(kept.sum()) * p > LARGEST:
        raise InputError(
            "the covariance is too large", "rows × columns", f"{int(kept.sum())} × {p}", "use fewer columns"
        )
    s = rows.s[kept]
    weights = rows.U[:, kept] / (s + alpha).sqrt()  # √(s/(s + α)) v_k = Z'u_k / √(s + α)
    u = weights if rows.root is None else weights * rows.root[:, None]
    root = u.new_zeros(int(kept.sum()), p)
    for J in blocks(n, p):
        root[:, J] = matmul(u.mT, problem.X[:, J].double() - cols.mean[J]) * cols.factor[J] ** 2
    root *= (1 / alpha) ** 0.5
    return Covariance(cols.factor**2 / alpha, root, -1, (1 / n) if problem.intercept == "free" else 0.0)
