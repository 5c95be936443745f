"""Rates: how fast a weight that gets no gradient goes, step by step and over a run.

A rule removes the fraction rate_t = strength·shape_t of a weight at step t. After T steps the share
prod(1 - rate_t) is left; at a constant rate half is left after ln 2 / -ln(1 - rate) steps.
"""

import math
from typing import Literal, overload

import numpy as np

from weightdecay.errors import InputError
from weightdecay.units.numbers import number, vector

Law = Literal["lr", "lr_relative", "lr_squared", "constant"]
LN2 = math.log(2)
# Where 1 - rate is no longer told from 0 in float64: 2^-53 is left after one step.
_MOST = 53 * LN2


@overload
def shape(law: Law, lrs: np.ndarray, lr_max: float | None = None) -> np.ndarray: ...
@overload
def shape(law: Law, lrs: float, lr_max: float | None = None) -> float: ...
def shape(law: Law, lrs: np.ndarray | float, lr_max: float | None = None) -> np.ndarray | float:
    """How the fraction removed at step t follows the step size: rate_t = strength·shape_t.

    shape_t = lr_t ("lr"), lr_t/lr_max ("lr_relative"), lr_t²/lr_max ("lr_squared") or 1 ("constant").

    Args:
        law: one of the four names.
        lrs: step sizes; the last axis is the step.
        lr_max: the peak step size; None is the maximum of `lrs` over the steps, if that is an array.

    Returns:
        An array like `lrs`, or a number for a number.

    Raises:
        InputError: an unknown law; a law that needs lr_max without one.

    >>> shape("lr_squared", np.array([0.5, 1.0, 0.0]))
    array([0.25, 1.  , 0.  ])
    >>> shape("lr_relative", 1e-3, lr_max=2e-3)
    0.5
    """
    single = np.ndim(lrs) == 0
    values = vector(lrs, "lrs")
    if law == "lr":
        result = values
    elif law == "constant":
        result = np.ones_like(values)
    elif law in ("lr_relative", "lr_squared"):
        peak = _peak(values, lr_max, single)
        # A group whose lr is 0 throughout never decays, whatever its peak is said to be.
        relative = np.divide(values, peak, out=np.zeros_like(values), where=np.asarray(peak) > 0)
        result = relative if law == "lr_relative" else values * relative
    else:
        raise InputError("no such law", "law", repr(law), "use lr, lr_relative, lr_squared or constant")
    return float(result) if single else result


def _peak(values: np.ndarray, lr_max: float | None, single: bool) -> np.ndarray | float:
    if lr_max is not None:
        return number(lr_max, "lr_max", above=0)
    if single:
        raise InputError(
            "this law needs the peak step size", "lr_max", "None", "give lr_max or all step sizes of the run"
        )
    return values.max(-1, keepdims=True)


def half_life(rate: float) -> float:
    """The half-life in steps of a rate: ln 2 / -ln(1 - rate); infinite for 0.

    Raises:
        InputError: the rate is not in [0, 1].

    >>> round(half_life(1e-3 * 1e-2))
    69314
    """
    rate = number(rate, "rate", least=0)
    if rate > 1:
        raise InputError("out of range", "rate", rate, "a rate above 1 flips the sign: give 1 or less")
    if rate == 0:
        return math.inf
    return 0.0 if rate == 1 else LN2 / -math.log1p(-rate)


def rate_of(half_life_steps: float) -> float:
    """The fraction removed in a step by a half-life in steps: 1 - 2^(-1/h); 0 for an infinite one.

    Raises:
        InputError: the half-life is not more than 0.

    >>> rate_of(1)
    0.5
    """
    return -math.expm1(-LN2 / number(half_life_steps, "half_life_steps", above=0, infinite=True))


def strength_for(halves: float, shapes: np.ndarray) -> float:
    """The strength s under which a run has so many half-lives: solves sum ln(1 - s·shape_t) = -halves·ln 2.

    Args:
        halves: half-lives per run.
        shapes: one number a step, from `shape`.

    Raises:
        InputError: no strength with s·shape_t < 1 at every step gets there.

    >>> strength_for(1.0, np.array([1.0]))
    0.5
    """
    halves, shapes = number(halves, "halves", least=0), vector(shapes, "shapes").ravel()
    if halves == 0:
        return 0.0
    largest = float(shapes.max())
    if largest == 0:
        raise InputError("nothing can decay: every step size is 0", "shapes", 0.0, "check the schedule")
    relative = shapes[shapes > 0] / largest
    target = halves * LN2
    # With s·largest = 1 - e^-y the sum is convex and falls in y, and the first y is left of the root:
    # Newton's steps from there approach the root from one side and cannot overshoot.
    y = target / float(relative.sum())
    for _ in range(200):
        if y > _MOST:
            raise _out_of_reach(halves, len(shapes))
        removed = -math.expm1(-y)
        value = float(np.log1p(-removed * relative).sum()) + target
        slope = math.exp(-y) * float((relative / (1 - removed * relative)).sum())
        step = value / slope
        y += step
        if abs(step) <= 1e-16 * y:
            break
    strength = -math.expm1(-y) / largest
    if strength * largest >= 1:
        raise _out_of_reach(halves, len(shapes))
    return strength


def _out_of_reach(halves: float, steps: int) -> InputError:
    return InputError(
        f"more half-lives than {steps} steps can have", "half-lives per run", f"{halves:g}", "ask for fewer"
    )


def retention(rates: np.ndarray) -> float:
    """The share of a weight that is left after the run when no gradient comes: prod(1 - rate_t).

    Raises:
        InputError: a rate is negative or 1 or more.

    >>> retention(np.array([0.5, 0.5]))
    0.25
    """
    return math.exp(log_retention(rates))


def log_retention(rates: np.ndarray) -> float:
    """The logarithm ln prod(1 - rate_t), where the product itself would be too small to write."""
    return float(np.log1p(-vector(rates, "rates", below=1)).sum())


def mean_age(rates: np.ndarray, lrs: np.ndarray) -> float:
    """The mean age, in steps at the end of the run, of the updates that make up the final weights.

    w_T = R w_0 + sum c_t u_t with c_t = lr_t prod_{s>t}(1 - rate_s); the update of the last step has age 0,
    so the mean age is sum c_t (T - 1 - t) / sum c_t.

    Args:
        rates: the fraction removed at each step.
        lrs: the step size of each step.

    Raises:
        InputError: rates or step sizes out of range or of different lengths, or no update at all.

    >>> mean_age(np.array([0.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0]))
    1.0
    """
    rates, lrs = vector(rates, "rates", below=1).ravel(), vector(lrs, "lrs").ravel()
    if rates.shape != lrs.shape:
        raise InputError("as many rates as step sizes are needed", "rates", len(rates), f"give {len(lrs)}")
    if not lrs.any():
        raise InputError("there is no update: every step size is 0", "lrs", 0.0, "check the schedule")
    kept = np.log1p(-rates)
    weights = lrs * np.exp(np.cumsum(kept[::-1])[::-1] - kept)
    return float(weights @ np.arange(len(lrs))[::-1] / weights.sum())
