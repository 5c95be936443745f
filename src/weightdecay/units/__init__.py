"""Strengths in every convention people write them in. NumPy at most; never torch.

Names are looked up when first used, so that reading a grid on the command line costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from weightdecay.units.grids import grid

if TYPE_CHECKING:
    from weightdecay.units.coupled import coupled_rate, coupled_weight_decay
    from weightdecay.units.halflife import HalfLife, HalfLives
    from weightdecay.units.limits import advice, check
    from weightdecay.units.rates import Law, half_life, mean_age, rate_of, retention, shape, strength_for

_HOMES = {
    **dict.fromkeys(("coupled_rate", "coupled_weight_decay"), "coupled"),
    **dict.fromkeys(("HalfLife", "HalfLives"), "halflife"),
    **dict.fromkeys(("advice", "check"), "limits"),
    **dict.fromkeys(
        ("Law", "half_life", "mean_age", "rate_of", "retention", "shape", "strength_for"), "rates"
    ),
}

__all__ = [
    "HalfLife",
    "HalfLives",
    "Law",
    "advice",
    "check",
    "coupled_rate",
    "coupled_weight_decay",
    "grid",
    "half_life",
    "mean_age",
    "rate_of",
    "retention",
    "shape",
    "strength_for",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
