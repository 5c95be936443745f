"""All folds and the final fit at once, by Lanczos: for one target and many rows, where the spectrum is kind.

Each step multiplies the Gram matrix with one vector for every fold together; some tens of steps then stand
for the decomposition of every fold's matrix, at every α. How far the residual at the least α has fallen is
known exactly, and where it does not fall in time the whole matrix is decomposed instead.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from weightdecay.ridge.kernel import Kernel
from weightdecay.ridge.linalg import matmul
from weightdecay.ridge.rows import left_inverse

RESIDUAL = 1e-15  # of the target's norm
LOOK = 6  # steps between looks at the residual


@dataclass(frozen=True)
class Krylov:
    """What Lanczos leaves of F systems (P K P + α) u = P y, each on its own rows.

    Args:
        alpha: the least α for which it holds.
        V: orthonormal bases, zero on rows that are held out (F, m, n).
        ritz: eigenvalues of the projections (F, m).
        Y: their eigenvectors (F, m, m).
        norm: ‖P y‖ (F,).
        beside: products of the held-out rows with the basis, recentred (F, m, n); zero on other rows.
        error: targets of the held-out rows less the unpenalised part's prediction (F, n); zero elsewhere.
    """

    alpha: float
    V: Float64[Tensor, "F m n"]
    ritz: Float64[Tensor, "F m"]
    Y: Float64[Tensor, "F m m"]
    norm: Float64[Tensor, " F"]
    beside: Float64[Tensor, "F m n"]
    error: Float64[Tensor, "F n"]

    def weights(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "F L m"]:
        """U in the basis, at every α."""
        first = self.Y[:, 0] * self.norm[:, None]  # Y'e_1
        return matmul(first[:, None, :] / (self.ritz[:, None, :] + alphas[:, None]), self.Y.mT.contiguous())

    def held_out(self, alphas: Float64[Tensor, " L"], systems: slice) -> Float64[Tensor, "F L n"]:
        """Errors on the held-out rows of some systems, zero on the rows that were fitted."""
        return self.error[systems, None] - matmul(self.weights(alphas)[systems], self.beside[systems])

    def dual(self, alphas: Float64[Tensor, " L"], system: int) -> Float64[Tensor, "L n"]:
        """U of one system."""
        return matmul(self.weights(alphas)[system], self.V[system])


def lanczos(kernel: Kernel, fitted: Bool[Tensor, "F n"], alpha: float, most: int) -> Krylov | None:
    """Run Lanczos on every system until the residual at `alpha` has vanished; None after `most` steps.

    With full reorthogonalisation, twice: what is lost without it are the digits.

    Args:
        kernel: products, unpenalised part and one target of all rows.
        fitted: the rows of each system.
        alpha: the least α that is asked for.
        most: steps after which to give up.
    """
    mask = fitted.double()
    y = kernel.y[:, 0]
    parts = [_Unpenalized(kernel.N, row) for row in fitted]
    start = torch.stack([part.project(y * m) for part, m in zip(parts, mask, strict=True)])
    norm = start.norm(dim=1)
    F, n = mask.shape
    V = start.new_empty(F, most + 1, n)
    beside = start.new_empty(F, most, n)
    diagonal, off = start.new_zeros(F, most), start.new_zeros(F, most)
    V[:, 0] = start / norm[:, None].clamp_min(1e-300)
    for step in range(most):
        product = matmul(kernel.K, V[:, step].mT.contiguous()).mT.contiguous()
        for f, part in enumerate(parts):
            beside[f, step] = (product[f] - part.share(product[f] * mask[f])) * (1 - mask[f])
            product[f] = part.project(product[f] * mask[f])
        basis = V[:, : step + 1]
        w = product
        for _ in range(2):
            inner = matmul(basis, w[:, :, None])
            w = w - matmul(inner.mT.contiguous(), basis)[:, 0]
            diagonal[:, step] += inner[:, step, 0]
        off[:, step] = w.norm(dim=1)
        V[:, step + 1] = w / off[:, step, None].clamp_min(1e-300)
        if (step + 1) % LOOK == 0 or step + 1 == most:
            found = _solved(diagonal[:, : step + 1], off[:, : step + 1], alpha)
            if found is not None:
                m = step + 1
                error = torch.stack(
                    [(y - part.share(y * row)) * (1 - row) for part, row in zip(parts, mask, strict=True)]
                )
                return Krylov(alpha, V[:, :m], *found, norm, beside[:, :m], error)
    return None


def _solved(
    diagonal: Float64[Tensor, "F m"], off: Float64[Tensor, "F m"], alpha: float
) -> tuple[Float64[Tensor, "F m"], Float64[Tensor, "F m m"]] | None:
    """The projections' eigenvalues and vectors if every residual, β_m |u_m|, has vanished; else None."""
    T = torch.diag_embed(diagonal)
    m = T.shape[1]
    if m > 1:
        T += torch.diag_embed(off[:, : m - 1], 1) + torch.diag_embed(off[:, : m - 1], -1)
    ritz, Y = torch.linalg.eigh(T)
    last = ((Y[:, 0] * Y[:, -1]) / (ritz.clamp_min(0) + alpha)).sum(1).abs()
    residual = off[:, -1] * last  # relative to the target's norm
    return (ritz.clamp_min(0), Y) if bool((residual <= RESIDUAL * m).all()) else None


class _Unpenalized:
    """The unpenalised part of one system: what it takes of a vector on the fitted rows, and of the others."""

    def __init__(self, N: Float64[Tensor, "n q"], fitted: Bool[Tensor, " n"]) -> None:
        inside = N * fitted[:, None]
        self.N, self.inverse = N, left_inverse(inside)
        self.inside = inside

    def share(self, v: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """The prediction of every row from a regression of v on the fitted rows."""
        return self.N @ (self.inverse @ v)

    def project(self, v: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """v, zero off the fitted rows, less its part along the unpenalised columns."""
        for _ in range(2):
            v = v - self.inside @ (self.inverse @ v)
        return v
