"""The quantile of Student's t distribution, for intervals."""

import math

import numpy as np


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
