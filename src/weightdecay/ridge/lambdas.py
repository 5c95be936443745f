"""Grids of λ: the automatic one, conventions of λ as α, and the pivots of a long one."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.linalg import matmul
from weightdecay.ridge.route import Scale
from weightdecay.units.conventions import ROWS, checked_context, converted

PER_DECADE = 12
FIRST, LAST = 1e-6, 1e2  # of the mean eigenvalue: from almost no shrinkage to almost nothing left
LOWEST, HIGHEST = 1e-14, 1e6  # the true edges: beyond, nothing changes that float64 can tell
GRAM = 3e-6  # of the largest eigenvalue: see the precision of the route of Gram matrices
STEP = 2.0  # decades by which a grid is widened
NEAR = PER_DECADE // 2  # steps of the grid that are wanted on either side of the least score
SUM = "sklearn.Ridge"  # the convention of α
SAMPLES = 16  # of s to a unit of log s, in which the family is smooth
FEW = 8  # λ that are their own pivots
LONG = 128  # λ from which on pivots pay for themselves
TOLERANCE = 3e-14  # of the family's norm that pivots may leave
MARGIN = 1e-2  # below the least eigenvalue, or α, where a fold may have smaller ones than all rows
CANDIDATES = 200  # for pivots, of a long grid
CHUNK = 1 << 20  # errors that are carried over together: 8 MB


def automatic(
    scale: Scale, low: float = FIRST, high: float = LAST, per_decade: int = PER_DECADE
) -> Float64[Tensor, " L"]:
    """Penalties from `low` to `high` times the mean eigenvalue, 12 to a decade, sum convention.

    >>> len(automatic(Scale(mean=2.0, largest=3.0)))
    97
    """
    first = round(per_decade * math.log10(low))
    last = round(per_decade * math.log10(high))
    powers = torch.arange(first, last + 1, dtype=torch.float64) / per_decade
    return scale.mean * 10**powers


def first(scale: Scale) -> tuple[float, float]:
    """The range to begin with, in mean eigenvalues: no lower than where a Gram matrix keeps eight digits."""
    return max(FIRST, GRAM * scale.largest / scale.mean), LAST


def widened(
    low: float,
    high: float,
    place: int,
    count: int,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    near: int = NEAR,
) -> tuple[float, float]:
    """The range that leaves half a decade on both sides of the least score, as far as the true edges.

    Args:
        low: the lower end as it is.
        high: the upper end.
        place: of the least score in its grid.
        count: λ in the grid.
        lowest: the true edge below.
        highest: the true edge above.
        near: steps of the grid to half a decade.

    >>> widened(1e-4, 100.0, place=3, count=73)
    (1e-06, 100.0)
    """
    if place < near:
        low = max(lowest, low / 10**STEP)
    if place >= count - near:
        high = min(highest, high * 10**STEP)
    return low, high


# Conventions of λ.


@dataclass(frozen=True)
class Strength:
    """A convention of `wd.units` and what it needs to know.

    Args:
        unit: the convention's name.
        context: n, and what else the convention needs, such as sd_y for glmnet's.
    """

    unit: str
    context: Mapping[str, Any] = field(default_factory=dict)

    _known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def alpha(self, lam: Any, where: str = "lam") -> Float64[Tensor, " L"]:
        """α of one λ or several, (L,).

        Raises:
            InputError: negative, not finite, or no number; or a convention without a ridge equivalent.
        """
        values = self.numbers(lam, where)
        if self.unit != SUM:
            values = converted(values, self.unit, SUM, self._context(self.unit, SUM))
        return torch.from_numpy(np.atleast_1d(values))

    def lam(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        """λ of several α (L,)."""
        values = alphas.cpu().numpy().copy()
        if self.unit != SUM:
            values = converted(values, SUM, self.unit, self._context(SUM, self.unit))
        return torch.from_numpy(np.atleast_1d(values))

    def grid(self, lambdas: Any) -> tuple[Float64[Tensor, " L"], Float64[Tensor, " L"]]:
        """A grid as given, as α ascending and in its own unit; repeated strengths once."""
        alphas, values = self.alpha(lambdas, "lambdas"), torch.from_numpy(self.numbers(lambdas, "lambdas"))
        order = torch.from_numpy(alphas.numpy().argsort(kind="stable"))
        alphas, values = alphas[order], values[order]
        new = torch.cat([torch.ones(1, dtype=torch.bool), alphas[1:] > alphas[:-1]])
        return alphas[new], values[new]

    @staticmethod
    def numbers(lam: Any, where: str = "lam") -> np.ndarray:
        """One λ or several as a new array, in their own unit (L,); errors as `alpha`'s."""
        try:
            plain = lam.detach().cpu().numpy() if isinstance(lam, Tensor) else lam
            values = np.array(plain, dtype=np.float64, order="C", ndmin=1).ravel()
        except (TypeError, ValueError) as error:
            raise InputError("not numbers", where, repr(lam)[:60], "give numbers of 0 or more") from error
        wrong = values[~((values >= 0) & (values < np.inf))]
        if len(wrong) or not len(values):
            what = float(wrong[0]) if len(wrong) else "nothing"
            raise InputError("not a strength", where, what, "give finite numbers of 0 or more")
        return values

    def _context(self, source: str, target: str) -> dict[str, Any]:
        """What the conversion needs to know, checked the first time."""
        if not self._known:
            context = dict(self.context)
            for name in context.keys() - _needed(self.unit):
                del context[name]
            self._known.update(checked_context(source, target, context))
        return self._known


def strength(unit: str, n: int, variance: Float64[Tensor, " t"]) -> Strength:
    """The convention for n rows and targets of these variances.

    Raises:
        InputError: several targets of different sd, in a convention that goes with the target's sd.
    """
    sd = variance.sqrt()
    if "sd_y" in _needed(unit) and float(sd.max() - sd.min()) > 1e-12 * float(sd.max()):
        what = "this convention goes with the target's standard deviation, and there are several"
        raise InputError(what, "unit", repr(unit), "fit one target at a time, or use 'canonical'")
    return Strength(unit, {"n": n, "sd_y": float(sd[0])})


def _needed(unit: str) -> set[str]:
    """The names of what the conversion between a convention and α needs to know, or may."""
    needed: set[str] = set()
    for row in ROWS:
        if row.name in (unit, SUM):
            needed.update(row.needs, row.takes)
    return needed


# Pivots: a few λ from which held-out errors are carried over to all.


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
    def whole(self) -> bool:
        """Whether every penalty is its own pivot, in the order of the grid."""
        return len(self.pivots) == len(self.alphas)

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
    >>> grid = axis(s, alphas)
    >>> f = 7.0 + 2 / (3.0 + alphas)
    >>> len(grid.pivots) < 25, bool((f[grid.pivots] @ grid.T - f).abs().max() < 1e-13)
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
    candidates = torch.arange(0, len(alphas), step)
    # Columns that span the others, by Gram and Schmidt with pivoting, twice, to be orthogonal.
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
    if len(chosen) == len(alphas):
        return whole(alphas)
    pivots = candidates[chosen]
    coordinates = torch.from_numpy(np.stack(Q)) @ family
    T = torch.linalg.solve_triangular(coordinates[:, pivots].triu(), coordinates, upper=True)
    T[:, pivots] = torch.eye(len(pivots), dtype=T.dtype)
    return Axis(alphas, pivots, T)


def sums_of_squares(E: Float64[Tensor, "r t n"], grid: Axis) -> Float64[Tensor, "L t"]:
    """Σ_i e_i² at every λ of the grid from the errors at its pivots: T' (E'E) T, one small Gram per target.

    Where a target's sums differ by more than a factor of 30 over the grid its errors themselves are carried
    over, so that the least keep their digits.
    """
    if grid.whole:
        return torch.linalg.vecdot(E, E)
    products = matmul(E.permute(1, 0, 2), E.permute(1, 2, 0))  # (t, r, r)
    squares = quadratic(products, grid)
    diagonal = products.diagonal(dim1=1, dim2=2)
    uneven = (diagonal.amin(1) * 30 < diagonal.amax(1)).nonzero()[:, 0]
    if len(uneven):
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
        if grid.whole:
            yield some, E[some.to(E.device)]
            continue
        yield some, matmul(grid.T[:, some].to(E.device).mT, flat).reshape(len(some), *E.shape[1:])
