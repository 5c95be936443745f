"""(X'X + αF)^-1 in a form that gives the variance of a prediction, in units of σ², as a sum of squares."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.columns import Columns, Problem, penalized_blocks, unpenalized
from weightdecay.ridge.linalg import matmul
from weightdecay.ridge.rows import Rows, left_inverse

LARGEST = 2e8  # numbers in `root`: 1.6 GB
ROUNDING = 32 * torch.finfo(torch.float64).eps


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
        found = self.leverage + (alone @ self.free_root.mT).square().sum(1) + inner.square() @ self.weight
        if float(self.beyond) > 0:
            rest = Z - inner @ self.root
            rest -= (rest @ self.root.mT) @ self.root
            found += torch.where(rest.norm(dim=1) > least[:, -1], rest.square().sum(1), 0) * self.beyond
        return found

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
    one = root.new_ones(())
    factor = torch.cat([torch.where(cols.factor > 0, cols.factor, 0), one.expand(int(cols.ones))])
    s = rows.s[kept]
    rounding = torch.zeros_like(s), ROUNDING * (s.max() / s.min()).sqrt()[None] if count else 0 * one[None]
    return Covariance(
        cols.mean,
        factor,
        root,
        1 / (s + alpha),
        one / alpha if count < int((factor > 0).sum()) else 0 * one,
        torch.cat(rounding),
        one / len(problem.X) if problem.intercept == "free" else 0 * one,
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
        gains = (matmul(u, block) for block in penalized_blocks(problem, cols))
    else:
        gains = iter([Vh[kept] * (rows.s[kept].sqrt() / (rows.s[kept] + alpha))[:, None]])
    norms, shared, first = [], adjust.new_zeros(len(adjust), int(kept.sum())), 0
    for gain in gains:
        norms.append(gain.norm(dim=0))
        shared += adjust[:, first : first + gain.shape[1]] @ gain.mT
        first += gain.shape[1]
    spread = torch.cat(norms)[: problem.X.shape[1]] * cols.factor
    spread[cols.free] = (free_root.square().sum(0) + shared.square().sum(1)).sqrt()
    return spread


def _beside(rows: Rows, U: Float64[Tensor, "n k"]) -> Float64[Tensor, "k n"]:
    """For products with rows as they are given, which have no weights yet."""
    return (U if rows.root is None else U * rows.root[:, None]).mT.contiguous()


def _right(problem: Problem, cols: Columns, rows: Rows) -> Float64[Tensor, "k m"]:
    """Right singular vectors Z'u/√s."""
    kept = rows.s > 0
    u = _beside(rows, rows.U[:, kept] / rows.s[kept].sqrt())
    return torch.cat([matmul(u, block) for block in penalized_blocks(problem, cols)], dim=1)


def _of_free(problem: Problem, cols: Columns, m: int) -> tuple[Tensor, Tensor]:
    """Regressions of the penalised columns on the free ones, and a root of (N'N)^-1 of the free ones."""
    q, root = len(cols.free), problem.root
    if q == 0:
        return problem.y.new_zeros(0, m), problem.y.new_zeros(0, 0)
    N = unpenalized(problem, cols)
    N = (N if root is None else N * root[:, None])[:, int(problem.intercept == "free") :]
    inverse = left_inverse(N)
    weighted = inverse if root is None else inverse * root
    adjust = torch.cat([matmul(weighted, block) for block in penalized_blocks(problem, cols)], dim=1)
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
