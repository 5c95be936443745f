"""The λ axis is short: a held-out error, as a function of λ, is known everywhere once it is known at a few λ.

A ridge prediction is a sum of 1/(s + α) over the training set's eigenvalues s, so each held-out error lies
in the span of the functions 1 and s/(s + α). On a grid of 100 or 1000 values these have a numerical rank of
10 to 40: errors are computed at so many *pivots* of the grid, and carried to the others by one small matrix.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.ridge.linalg import matmul

SAMPLES = 16  # of s to a unit of log s, in which the family is smooth
FEW = 8  # λ that are their own pivots
TOLERANCE = 3e-14
MARGIN = 1e-2
CANDIDATES = 200  # for pivots, of a long grid
CHUNK = 1 << 20  # errors that are carried over together: 8 MB


@dataclass(frozen=True)
class Axis:
    """A grid of penalties and its pivots: f(α_l) = Σ_j T_jl f(α_pivot j) for every f in the span.

    Args:
        alphas: the grid, sum convention (L,).
        pivots: places in the grid (r,).
        T: (r, L); the identity where the grid is its own pivots.
    """

    alphas: Float64[Tensor, " L"]
    pivots: Int64[Tensor, " r"]
    T: Float64[Tensor, "r L"]

    @property
    def few(self) -> Float64[Tensor, " r"]:
        """The pivots' penalties (r,)."""
        return self.alphas[self.pivots.to(self.alphas.device)]


def whole(alphas: Float64[Tensor, " L"]) -> Axis:
    """Every penalty its own pivot: for small problems, where choosing costs more than it saves."""
    return Axis(alphas, torch.arange(len(alphas)), torch.eye(len(alphas), dtype=torch.float64))


def axis(s: Float[Tensor, " k"], alphas: Float64[Tensor, " L"]) -> Axis:
    """Choose the pivots for training sets whose eigenvalues lie between the least and the largest of s.

    Leaving rows out of a Gram matrix of rows that has no zero eigenvalue never widens that interval (Cauchy's
    interlacing), so the eigenvalues of all rows serve every fold. Where there are zeros, a fold's least
    positive eigenvalue may lie anywhere below, and the interval goes down to where no α of the grid sees it.

    Args:
        s: eigenvalues on all rows, zeros included.
        alphas: penalties (L,).

    >>> s, alphas = torch.tensor([1.0, 50.0]), torch.logspace(-3, 5, 100, dtype=torch.float64)
    >>> found = axis(s, alphas)
    >>> f = 7.0 + 2 / (3.0 + alphas)
    >>> len(found.pivots) < 25, bool((f[found.pivots] @ found.T - f).abs().max() < 1e-13)
    (True, True)
    """
    positive = s[s > 0].double().cpu()
    if len(alphas) < FEW or len(positive) == 0:
        return whole(alphas)
    least = float(positive.min())
    if len(positive) < len(s):
        least = MARGIN * min(least, float(alphas.min()))
    low, high = math.log(least), float(positive.max().log())
    count = 64 + int(SAMPLES * (high - low))
    samples = torch.linspace(low, high, count, dtype=torch.float64).exp()[:, None]
    values = alphas.cpu()
    family = torch.cat([torch.ones_like(values)[None], samples / (samples + values)])
    step = max(1, len(alphas) // CANDIDATES)  # the family is smooth in log α, too
    return Axis(alphas, *_interpolate(family, torch.arange(0, len(alphas), step)))


def _interpolate(
    family: Float64[Tensor, "m L"], candidates: Int64[Tensor, " l"]
) -> tuple[Int64[Tensor, " r"], Float64[Tensor, "r L"]]:
    """Columns that span the others, by Gram and Schmidt with pivoting, twice, to be orthogonal."""
    rest = family[:, candidates].numpy()
    target = TOLERANCE * float((rest**2).sum(0).max()) ** 0.5
    Q, chosen = [], []
    for _ in range(min(rest.shape)):
        norms = (rest**2).sum(0)
        column = int(norms.argmax())
        if norms[column] ** 0.5 <= target:
            break
        q = rest[:, column] / norms[column] ** 0.5
        for earlier in Q:
            q = q - earlier * (earlier @ q)
        q = q / (q @ q) ** 0.5
        rest -= q[:, None] * (q @ rest)
        rest[:, column] = 0
        Q.append(q)
        chosen.append(column)
    pivots = candidates[chosen]
    basis = torch.stack([torch.from_numpy(q) for q in Q])
    coordinates = basis @ family
    T = torch.linalg.solve_triangular(coordinates[:, pivots].triu(), coordinates, upper=True)
    T[:, pivots] = torch.eye(len(pivots), dtype=T.dtype)
    return pivots, T


def sums_of_squares(E: Float64[Tensor, "r t n"], grid: Axis) -> Float64[Tensor, "L t"]:
    """Σ_i e_i² at every λ of the grid from the errors at its pivots: T' (E'E) T, one small Gram per target.

    Where a target's sums differ by more than a factor of 30 over the grid its errors themselves are carried
    over, so that the least keep their digits.
    """
    products = matmul(E.permute(1, 0, 2), E.permute(1, 2, 0))  # (t, r, r)
    squares = quadratic(products, grid)
    diagonal = products.diagonal(dim1=1, dim2=2)
    uneven = (diagonal.amin(1) * 30 < diagonal.amax(1)).nonzero()[:, 0]
    if len(uneven) and len(grid.pivots) < len(grid.alphas):
        for places, errors in carried(E[:, uneven], grid):
            squares[places[:, None], uneven] = torch.linalg.vecdot(errors, errors)
    return squares


def quadratic(products: Float64[Tensor, "t r r"], grid: Axis) -> Float64[Tensor, "L t"]:
    """T_l' P T_l at every λ, for each target's products P of errors at the pivots: one product for all."""
    T = grid.T.to(products.device)
    pairs = (T[:, None, :] * T[None, :, :]).reshape(-1, T.shape[1])
    return matmul(pairs.mT, products.reshape(len(products), -1).mT)


def carried(
    E: Float64[Tensor, "r t n"], grid: Axis, places: Int64[Tensor, " m"] | None = None
) -> Iterator[tuple[Int64[Tensor, " c"], Float64[Tensor, "c t n"]]]:
    """The errors at all λ of the grid or at some places, a few λ at a time."""
    places = torch.arange(len(grid.alphas)) if places is None else places
    few = max(1, CHUNK // E[0].numel())
    flat = E.reshape(len(E), -1)
    for some in places.split(few):
        yield some, matmul(grid.T[:, some].to(E.device).mT, flat).reshape(len(some), *E.shape[1:])
