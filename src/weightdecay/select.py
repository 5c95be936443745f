"""Choosing a strength from a curve: the least score, one standard error, edges and flatness.

For paths and sweeps alike.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Edge = Literal["low", "high"] | None


@dataclass(frozen=True)
class Choice:
    """Places in a grid of ascending strengths.

    Args:
        best: the least score; the larger strength where two are equal.
        one_se: the largest strength whose score is within one standard error of the least.
        low, high: the first and last strength around the best that one standard error does not tell from it.
        edge: "low" or "high" where the least score is the first or the last.
        flat: whether one standard error tells no strength of the grid from the best.
    """

    best: int
    one_se: int
    low: int
    high: int
    edge: Edge
    flat: bool


def choose(scores: Float[Tensor, " L"], errors: Float[Tensor, " L"]) -> Choice:
    """Choose from scores (smaller is better) and their standard errors, in the order of ascending strength.

    >>> import torch
    >>> choose(torch.tensor([9.0, 4.0, 3.0, 3.5, 8.0]), torch.full((5,), 0.6))
    Choice(best=2, one_se=3, low=2, high=3, edge=None, flat=False)
    """
    values = scores.tolist()
    least = min(values)
    best = max(place for place, value in enumerate(values) if value == least)
    bound = least + float(errors[best])
    within = [value <= bound for value in values]
    low = high = best
    while low > 0 and within[low - 1]:
        low -= 1
    while high + 1 < len(values) and within[high + 1]:
        high += 1
    one_se = max(place for place, near in enumerate(within) if near)
    edge: Edge = "low" if best == 0 else "high" if best == len(values) - 1 else None
    return Choice(best, one_se, low, high, edge if len(values) > 1 else None, all(within))
