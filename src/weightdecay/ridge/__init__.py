"""Exact ridge regression: one factorisation, every λ."""

from weightdecay.ridge.exact import Factors, LeastLoo, LinearModel, factor, least_loo, loo_errors, solve

__all__ = ["Factors", "LeastLoo", "LinearModel", "factor", "least_loo", "loo_errors", "solve"]
