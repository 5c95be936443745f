"""The grid of λ that suits ridge, and how it is widened where the least score is near its edge."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.ridge.route import Scale

PER_DECADE = 12
FIRST, LAST = 1e-6, 1e2  # of the mean eigenvalue: from almost no shrinkage to almost nothing left
LOWEST, HIGHEST = 1e-14, 1e6  # the true edges: beyond, nothing changes that float64 can tell
GRAM = 3e-6  # of the largest eigenvalue: see the precision of the route of Gram matrices
STEP = 2.0  # decades by which a grid is widened


def automatic(scale: Scale, low: float = FIRST, high: float = LAST) -> Float64[Tensor, " L"]:
    """Penalties from `low` to `high` times the mean eigenvalue, 12 to a decade, sum convention.

    >>> len(automatic(Scale(mean=2.0, largest=3.0)))
    97
    """
    first = round(PER_DECADE * math.log10(low))
    last = round(PER_DECADE * math.log10(high))
    powers = torch.arange(first, last + 1, dtype=torch.float64) / PER_DECADE
    return scale.mean * 10**powers


def first(scale: Scale) -> tuple[float, float]:
    """The range to begin with, in mean eigenvalues: no lower than where a Gram matrix keeps eight digits."""
    return max(FIRST, GRAM * scale.largest / scale.mean), LAST


def wider(low: float, high: float, edges: set[str]) -> tuple[float, float]:
    """The next range, two decades further where a least score sits near an edge that can move."""
    if "low" in edges:
        low = max(LOWEST, low / 10**STEP)
    if "high" in edges:
        high = min(HIGHEST, high * 10**STEP)
    return low, high
