"""What the figures of a monitor say, in sentences."""

import math
from typing import Any

import polars as pl

# From a tenth on, a difference between measured and predicted norms is said: noise of few looks is less.
RESIDUAL = 0.1
# Applied over intended beyond these is no rounding of a healthy run.
RATIO = (0.9, 1.1)
# A fraction of a weight that rounding does not take in a step.
UNASKED = 1e-6


def lines_of(summary: pl.DataFrame, optimizer: str, steps: int, every: int) -> tuple[str, ...]:
    """What happened; a line each."""
    if not summary.height:
        return (f"{optimizer}: {steps} steps, no look yet (one every {every} steps)",)
    decaying = summary.filter(pl.col("ratio").is_finite())
    lines = [f"{optimizer}: {steps} steps, a look every {every}; figures of the second half of the looks"]
    if decaying.height:
        low, high = _range(decaying["ratio"])
        lines.append(
            f"decay applied over intended: {low:.3g} to {high:.3g} in {decaying.height} parameters that decay"
        )
    low, high = _range(summary["angle"])
    lines.append(f"angle of a step: {low:.3g} to {high:.3g} rad")
    balanced = summary.filter(pl.col("residual").is_finite())
    if balanced.height:
        low, high = _range(balanced["residual"])
        lines.append(
            f"norm against the equilibrium of decay and updates: {low:+.1%} to {high:+.1%}; "
            f"it takes {_range(balanced['steps_to_equilibrium'])[1]:.4g} steps to get there"
        )
    return tuple(lines)


def doubts_of(summary: pl.DataFrame, rows: pl.DataFrame) -> tuple[str, ...]:
    """What looks wrong or is not known; a line each."""
    found = []
    growing = summary.filter(pl.col("ratio").is_finite() & (pl.col("ratio") < 0))
    if growing.height:
        worst = growing.sort("ratio").row(0, named=True)
        found.append(
            f"{growing.height} parameters grow by their decay, {worst['parameter']} by {-worst['ratio']:.3g} "
            "of what it should lose: the sign is wrong; see wd.probe"
        )
    off = summary.filter(
        pl.col("ratio").is_finite() & (pl.col("ratio") >= 0) & ~pl.col("ratio").is_between(*RATIO)
    )
    if off.height:
        worst = off.sort((pl.col("ratio").log()).abs(), descending=True, nulls_last=True).row(0, named=True)
        found.append(
            f"{off.height} parameters do not decay as intended, {worst['parameter']} by {worst['ratio']:.3g} "
            "of it: skipped steps, a cautious rule, a decay that acts every few steps or is not what its "
            "strength means (see wd.probe), or weights too narrow for so small a change (bfloat16)"
        )
    unasked = rows.filter((pl.col("weight_decay") == 0) & (pl.col("applied").abs() > UNASKED))
    if unasked.height:
        names = _some(list(unasked["parameter"].unique(maintain_order=True)))
        found.append(f"the strength of {names} is 0, and something decays it; see wd.probe")
    unknown = rows.filter(pl.col("intended").is_nan())["parameter"].unique(maintain_order=True)
    if len(unknown):
        found.append(
            f"no rate is known for {_some(list(unknown))}: coupled decay in an adaptive optimizer is divided "
            "by the size of the gradient; audit the optimizer, or use decoupled decay"
        )
    idle = rows.filter((pl.col("weight_decay") > 0) & (pl.col("lr") > 0) & (pl.col("intended") == 0))
    if idle.height:
        names = _some(list(idle["parameter"].unique(maintain_order=True)))
        found.append(f"a strength above 0 removes nothing of {names}: the optimizer ignores it; see wd.probe")
    residual = summary.filter(pl.col("residual").is_finite() & (pl.col("residual").abs() > RESIDUAL))
    if residual.height:
        found.append(
            f"{residual.height} norms are not at the equilibrium that decay and updates predict, "
            f"{residual['parameter'][0]} is off by {residual['residual'][0]:+.0%}: not there yet, a changing "
            "step size, or updates that depend on the weights (the layer is not scale-invariant, or examples "
            "are learnt by heart)"
        )
    blind = rows.filter(pl.col("update_norm").is_nan())["parameter"].unique(maintain_order=True)
    if len(blind):
        found.append(
            f"the gradient part of the step is not known for {_some(list(blind))}: step(closure) makes its "
            "gradients too late to be seen, the optimizer holds what cannot be copied, or weights are not "
            "finite"
        )
    return tuple(found)


def _range(values: pl.Series) -> tuple[float, float]:
    known = values.drop_nulls().drop_nans()
    low: Any = known.min()
    high: Any = known.max()
    return (math.nan, math.nan) if low is None else (float(low), float(high))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
