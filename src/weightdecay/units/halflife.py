"""Half-lives as people give them, and the fraction that a step removes: as asked for, and once rounded."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, overload

import numpy as np

from weightdecay.arguments import choice, log_spaced, number, vector
from weightdecay.arguments import count as whole
from weightdecay.errors import InputError


@dataclass(frozen=True)
class HalfLife:
    """The time after which half of a weight that gets no gradient is left. Give exactly one unit.

    Args:
        steps: in optimizer steps.
        epochs: in passes over the data.
        samples: in training examples.
        tokens: in tokens.
        lr: the step size at which it holds; None is the peak of the schedule where one is given, and
            every step size where none is.

    A half-life h in steps is the rate 1 - 2^(-1/h).

    Convention: it speaks of the rate at the (peak) step size; under a schedule that falls, the weight
    lives longer. `HalfLives` speaks of a whole run.

    Raises:
        InputError: none or several units, or one that is not more than 0.

    >>> HalfLife(epochs=2).in_steps(steps_per_epoch=500)
    1000.0
    >>> HalfLife(steps=1).rate()
    0.5
    """

    steps: float | None = None
    epochs: float | None = None
    samples: float | None = None
    tokens: float | None = None
    lr: float | None = None

    def __post_init__(self) -> None:
        given = [unit for unit in _PER if getattr(self, unit) is not None]
        if len(given) != 1:
            raise InputError(
                "a half-life has exactly one unit",
                "HalfLife",
                " and ".join(given) or "none",
                f"give one of {', '.join(_PER)}",
            )
        for f in fields(self):
            if (value := getattr(self, f.name)) is not None:
                # Infinity is no decay, so that rates of 0 go there and back.
                plain = number(value, f"HalfLife.{f.name}", above=0, infinite=f.name != "lr")
                object.__setattr__(self, f.name, plain)

    @classmethod
    def grid(cls, low: float, high: float, count: int, unit: str = "epochs") -> "tuple[HalfLife, ...]":
        """Half-lives from `low` to `high`, both included, equally far apart on a log axis.

        Raises:
            InputError: not 0 < low < high, fewer than two, or no such unit.

        >>> [h.epochs for h in HalfLife.grid(0.5, 8, 3)]
        [0.5, 2.0, 8.0]
        """
        choice(unit, "unit", _PER, "no such unit")
        return tuple(cls(**{unit: value}) for value in _grid(low, high, count))

    def in_steps(
        self,
        *,
        steps_per_epoch: float | None = None,
        samples_per_step: float | None = None,
        tokens_per_step: float | None = None,
    ) -> float:
        """The half-life in optimizer steps.

        Raises:
            InputError: the number that the unit needs is missing or not more than 0.
        """
        unit = next(unit for unit in _PER if getattr(self, unit) is not None)
        value, name = getattr(self, unit), _PER[unit]
        if not name:
            return value
        per = {
            "steps_per_epoch": steps_per_epoch,
            "samples_per_step": samples_per_step,
            "tokens_per_step": tokens_per_step,
        }[name]
        if per is None:
            raise InputError(f"a half-life in {unit} needs {name}", name, "None", f"give {name}")
        per = number(per, name, above=0)
        return value * per if unit == "epochs" else value / per

    def rate(self, **context: Any) -> float:
        """The fraction removed in a step; takes what `in_steps` takes."""
        return rate_of(self.in_steps(**context))


# A unit of HalfLife and what is needed to count it in steps.
_PER = {"steps": "", "epochs": "steps_per_epoch", "samples": "samples_per_step", "tokens": "tokens_per_step"}


@dataclass(frozen=True)
class HalfLives:
    """How many times a whole run halves a weight that gets no gradient.

    Args:
        per_run: the half-lives per run H: the share 2^-H is left at the end.

    Convention: it holds over the run under its schedule, so it survives a change of batch size, lr and
    schedule; `HalfLife` speaks of one step at the peak.

    Raises:
        InputError: it is negative or not finite.

    >>> HalfLives(per_run=5).retention
    0.03125
    """

    per_run: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "per_run", number(self.per_run, "HalfLives.per_run", least=0))

    @classmethod
    def grid(cls, low: float, high: float, count: int) -> "tuple[HalfLives, ...]":
        """Half-lives per run from `low` to `high`, both included, equally far apart on a log axis.

        Raises:
            InputError: not 0 < low < high, or fewer than two.

        >>> [h.per_run for h in HalfLives.grid(0.1, 10, 3)]
        [0.1, 1.0, 10.0]
        """
        return tuple(cls(value) for value in _grid(low, high, count))

    @property
    def retention(self) -> float:
        """The share of the initial weights that is left at the end, 2^-H."""
        return 2**-self.per_run


def _grid(low: float, high: float, count: int) -> list[float]:
    low, count = number(low, "low", above=0), whole(count, "count", least=2, most=100_000)
    return log_spaced(low, number(high, "high", above=low), count)


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


def coupled_rate(
    weight_decay: float, lr: float, momentum: float = 0, dampening: float = 0, nesterov: bool = False
) -> float:
    """The fraction of a weight that torch's SGD with `weight_decay` removes in a step, momentum counted.

    rate = 1 - |z|, z the root of larger modulus; about a/(1 - mu) for small a.

    Convention: coupled decay, g <- g + wd·w, without gradient from the loss. Where the weight oscillates
    (see `oscillates_from`) this is the rate of the envelope; `advice` warns about it.

    Raises:
        InputError: an argument out of range, or the weight diverges.

    >>> from weightdecay.units.halflife import half_life
    >>> round(half_life(coupled_rate(5e-4, lr=0.1, momentum=0.9)))
    1380
    """
    a, mu = _scaled(weight_decay, lr, momentum, dampening, nesterov)
    if a >= diverges_from(mu, nesterov):
        limit = diverges_from(mu, nesterov) / (a / number(weight_decay, "weight_decay"))
        raise InputError(
            "the weight diverges", "weight_decay", weight_decay, f"give less than {limit:.4g} at lr = {lr:g}"
        )
    # In x = 1 - z the equation is x² - c x + a = 0, free of cancellation; its discriminant, factored.
    if nesterov:
        c, discriminant = 1 - mu + a * (1 + mu), (1 - a) * ((1 - mu) ** 2 - (1 + mu) ** 2 * a)
        product = mu * (1 - a)
    else:
        c, root = 1 - mu + a, math.sqrt(mu)
        discriminant, product = ((1 - root) ** 2 - a) * ((1 + root) ** 2 - a), mu
    if discriminant < 0:
        return 1 - math.sqrt(product)
    root = math.sqrt(discriminant)
    slow = 2 * a / (c + root)
    fast = (c + root) / 2
    return min(slow, 2 - fast)  # the second where the faster root lies beyond -z


def coupled_weight_decay(
    half_life_steps: float, lr: float, momentum: float = 0, dampening: float = 0, nesterov: bool = False
) -> float:
    """The `weight_decay` of torch's SGD under which a weight has this half-life in steps, momentum counted.

    With z = 2^(-1/h): a = (1 - z)(z - mu)/z, and with Nesterov b = (1 - z)(z - mu)/((1 + mu) z - mu).

    Convention: coupled decay; the inverse of `coupled_rate`, where the weight does not oscillate.

    Raises:
        InputError: an argument out of range, or a half-life so short that momentum cannot follow it
            (z must be the slow root: sqrt(mu) or more, with Nesterov 2 mu/(1 + mu) or more).

    >>> round(coupled_weight_decay(1380, lr=0.1, momentum=0.9), 6)
    0.0005
    """
    steps = number(half_life_steps, "half_life_steps", above=0, infinite=True)
    lr = number(lr, "lr", above=0)
    _, mu = _scaled(0.0, lr, momentum, dampening, nesterov)
    removed = -math.expm1(-math.log(2) / steps)
    z = 1 - removed
    least = 2 * mu / (1 + mu) if nesterov else math.sqrt(mu)
    if z < least or removed >= 1:
        shortest = math.log(2) / -math.log(least) if least else 0.0
        raise InputError(
            "a shorter half-life than this momentum can have",
            "half_life_steps",
            half_life_steps,
            f"give {math.ceil(shortest * 100) / 100:g} or more at momentum = {mu:g}",
        )
    a = removed * (z - mu) / (((1 + mu) * z - mu) if nesterov else z)
    return a / (lr * (1 - dampening if mu else 1.0))


def oscillates_from(momentum: float, nesterov: bool = False) -> float:
    """From which a = lr·wd·(1 - dampening) on a weight oscillates.

    (1 - sqrt mu)²; Nesterov ((1 - mu)/(1 + mu))².

    >>> round(oscillates_from(0.9), 4)
    0.0026
    """
    return ((1 - momentum) / (1 + momentum)) ** 2 if nesterov else (1 - math.sqrt(momentum)) ** 2


def diverges_from(momentum: float, nesterov: bool = False) -> float:
    """From which a = lr·wd·(1 - dampening) on a weight grows: 2 (1 + mu), Nesterov 2 (1 + mu)/(1 + 2 mu)."""
    return 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1)


def _scaled(
    weight_decay: float, lr: float, momentum: float, dampening: float, nesterov: bool
) -> tuple[float, float]:
    """The checked a = lr·wd·(1 - dampening), and mu."""
    weight_decay, lr = number(weight_decay, "weight_decay", least=0), number(lr, "lr", least=0)
    mu = number(momentum, "momentum", least=0, below=1)
    dampening = number(dampening, "dampening", least=0, below=1)
    if nesterov and dampening:
        raise InputError("Nesterov momentum goes without dampening", "dampening", dampening, "give 0")
    # Without momentum torch has no buffer, and dampening does nothing.
    return lr * weight_decay * (1 - dampening if mu else 1.0), mu


# p·(1 - rate) rounds back to p for every p below half the spacing under 1: 2^-(bits of significand + 1).
FLOORS = {"float64": 2.0**-54, "float32": 2.0**-25, "float16": 2.0**-12, "bfloat16": 2.0**-9}
# A decay that rounding makes stronger or weaker by more than this is reported as quantised.
OFF = 0.05


def rounded_rate(rates: Any, dtype: Any) -> np.ndarray:
    """The fractions that steps remove where p·(1 - rate) is rounded to the nearest number of a type.

    With u the spacing of numbers under 1, a weight of mantissa m goes down by round(rate·m/(2u)) numbers,
    each of size 2u; the fraction is <p, p - p'>/<p, p>, over mantissas that are even on a log scale.

    Args:
        rates: the fractions asked for, a list or an array.
        dtype: what the weights are stored in, a name or a torch dtype.

    Convention: as torch multiplies: in float32 1 - rate itself is rounded first, in 16 bits it is float32.
    Optimizers that subtract rate·p instead lose more of it.

    Raises:
        InputError: no such type.

    >>> rounded_rate([1e-8, 3.1e-8, 1e-6], "float32")
    array([0.00000000e+00, 7.94728643e-08, 1.01440893e-06])
    """
    name = checked_type(dtype)
    asked, spacing = np.asarray(rates, dtype=np.float64), 2 * FLOORS[name]
    mantissas = 2 ** ((np.arange(1024) + 0.5) / 1024)
    unique, where = np.unique(asked, return_inverse=True)
    units = unique / spacing
    if name in ("float32", "float64"):
        units = np.rint(units)
    moved = np.zeros_like(units)
    for m in mantissas:  # one after another: a long schedule has as many rates as steps
        moved += np.rint(units * m / 2) * m
    happens = moved * 2 * spacing / (mantissas**2).sum()
    return np.where(units > 1e5, unique, happens)[where.reshape(asked.shape)]


def checked_type(dtype: Any) -> str:
    """The name of a floating point type, checked."""
    name = str(dtype).removeprefix("torch.")
    if name not in FLOORS:
        raise InputError("no such floating point type", "dtype", name, f"use one of {', '.join(FLOORS)}")
    return name
