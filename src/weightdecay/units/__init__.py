"""Strengths in every convention people write them in. NumPy at most; never torch.

Names are looked up when first used, so that reading a grid on the command line costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from weightdecay.arguments import grid

if TYPE_CHECKING:
    from weightdecay.units.halflife import (
        HalfLife,
        HalfLives,
        Law,
        coupled_rate,
        coupled_weight_decay,
        half_life,
        mean_age,
        rate_of,
        retention,
        shape,
        strength_for,
    )
    from weightdecay.units.limits import advice, check

_HOMES = {
    **dict.fromkeys(("coupled_rate", "coupled_weight_decay"), "halflife"),
    **dict.fromkeys(("HalfLife", "HalfLives"), "halflife"),
    **dict.fromkeys(("advice", "check"), "limits"),
    **dict.fromkeys(
        ("Law", "half_life", "mean_age", "rate_of", "retention", "shape", "strength_for"), "halflife"
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
