"""Choosing a strength from a curve: the least score, one standard error, edges and flatness.

For paths and sweeps alike.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

Edge = Literal["low", "high"] | None


@dataclass(frozen=True)
class Choice:
    """Places in a grid of ascending strengths.

    Args:
        best: the least score; the strongest of those that rounding does not tell from it.
        one_se: the strongest whose score is within one standard error of the least, also beyond worse ones.
        low, high: the weakest and the strongest of the stretch around the best that one standard error does
            not tell from it.
        edge: "low" or "high" where the least score is the first or the last.
        flat: whether one standard error tells no strength of the grid from the best.
    """

    best: int
    one_se: int
    low: int
    high: int
    edge: Edge
    flat: bool


def choose(
    scores: Float[Tensor, " L"], errors: Float[Tensor, " L"], doubt: Float[Tensor, " L"] | None = None
) -> Choice:
    """Choose from scores (smaller is better) and their standard errors, in the order of ascending strength.

    Args:
        scores: of every strength.
        errors: their standard errors.
        doubt: by how much rounding may have changed each score; None where they are exact. See `least`.

    >>> import torch
    >>> choose(torch.tensor([9.0, 4.0, 3.0, 3.5, 8.0]), torch.full((5,), 0.6))
    Choice(best=2, one_se=3, low=2, high=3, edge=None, flat=False)
    """
    best = least(scores, doubt)
    bound = float(scores[best]) + float(errors[best])
    return _choice(best, (scores.double() <= bound).tolist())


def least(scores: Float[Tensor, " L"], doubt: Float[Tensor, " L"] | None = None) -> int:
    """The place of the least score: the last of those that rounding does not tell from it.

        score − doubt ≤ min (score + doubt)

    So the choice does not hang on the order in which a sum was taken.

    >>> import torch
    >>> scores = torch.tensor([1.0, 1.0 + 1e-14, 2.0], dtype=torch.float64)
    >>> least(scores), least(scores, 1e-12 * scores)
    (0, 1)
    """
    scores = scores.double().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    doubt = torch.zeros_like(scores) if doubt is None else doubt.double().nan_to_num(0)
    return int((scores - doubt <= (scores + doubt).min()).nonzero()[-1])


@dataclass(frozen=True)
class PairedChoice:
    """A choice from scores that are paired.

    Args:
        choice: the places.
        differences: how much higher than the best's a strength's mean score is (L,).
        errors: the standard errors of those differences (L,); 0 where there is one seed.
    """

    choice: Choice
    differences: Float64[Tensor, " L"]
    errors: Float64[Tensor, " L"]


def choose_paired(scores: Float64[Tensor, "S L"]) -> PairedChoice:
    """Choose from scores (smaller is better) of the same S seeds at every strength, in ascending order.

        d_s(λ) = score_s(λ) − score_s(best);   near the best: mean of d(λ) ≤ sd of d(λ) / √S

    What a seed does to the scores of all strengths alike cancels in d. A strength with a score that is not
    finite is never near the best.

    >>> import torch
    >>> lucky, unlucky = torch.tensor([5.0, 4.0, 4.2, 6.0]), torch.tensor([7.0, 6.1, 6.0, 8.0])
    >>> choose_paired(torch.stack([lucky, unlucky]).double()).choice
    Choice(best=1, one_se=2, low=1, high=2, edge=None, flat=False)
    """
    mean = scores.mean(0).nan_to_num(nan=math.inf, posinf=math.inf)
    best = least(mean, len(scores) * torch.finfo(mean.dtype).eps * mean.abs())  # rounding of a mean
    d = scores - scores[:, best : best + 1]
    differences, errors = d.mean(0).nan_to_num(nan=math.inf, posinf=math.inf), torch.zeros_like(d[0])
    if len(scores) > 1:
        errors = (d.std(0) / math.sqrt(len(scores))).nan_to_num(nan=math.inf, posinf=math.inf)
    within = (differences <= errors) & differences.isfinite()
    return PairedChoice(_choice(best, within.tolist()), differences, errors)


def _choice(best: int, within: list[bool]) -> Choice:
    """From the best and from which others one standard error does not tell from it."""
    low = high = best
    while low > 0 and within[low - 1]:
        low -= 1
    while high + 1 < len(within) and within[high + 1]:
        high += 1
    one_se = len(within) - 1 - within[::-1].index(True)
    edge: Edge = "low" if best == 0 else "high" if best == len(within) - 1 else None
    return Choice(best, one_se, low, high, edge if len(within) > 1 else None, all(within))


def student_t(level: float, freedom: float) -> float:
    """The t that |T| stays below with probability `level`, for any degrees of freedom, whole or not.

        P(|T| ≤ t) = 2 c ∫_0^a cos(u)^(ν−1) du,   t = √ν tan a,   c = Γ((ν+1)/2) / (√π Γ(ν/2))

    The integral by Gauss and Legendre's rule, the root by bisection: within 1e-8 for levels up to .99 and
    1e-5 up to .9999. Beyond ν = 1e6 the answer is that of 1e6, the normal one within 5e-6.

    Args:
        level: between 0 and 1.
        freedom: ν ≥ 1.

    >>> round(student_t(0.9, 10), 6), round(student_t(0.95, 1e9), 4)
    (1.812461, 1.96)
    """
    freedom = min(freedom, 1e6)
    constant = _ratio_of_gammas(freedom) / math.sqrt(math.pi)
    nodes, weights = np.polynomial.legendre.leggauss(100)

    def inside(angle: float) -> float:
        u = angle * (nodes + 1) / 2
        return float(constant * angle * (weights @ np.cos(u) ** (freedom - 1)))

    low, high = 0.0, min(math.pi / 2, 40 / math.sqrt(freedom))  # 40 standard deviations are enough
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(high)


def _ratio_of_gammas(freedom: float) -> float:
    """Γ((ν+1)/2) / Γ(ν/2); by its series where the difference of two large logarithms would lose digits."""
    if freedom < 1000:
        return math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    return math.sqrt(freedom / 2) * (1 - 1 / (4 * freedom) + 1 / (32 * freedom**2))
