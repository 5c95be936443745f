"""Exact ridge regression: one factorisation, every λ."""

from weightdecay.ridge.exact import Factors, LinearModel, factor, least_loo, loo_errors, solve

__all__ = ["Factors", "LinearModel", "factor", "least_loo", "loo_errors", "solve"]
