"""Half-lives as people give them: of a weight that gets no gradient, at a step size or over a run."""

from dataclasses import dataclass, fields
from typing import Any

from weightdecay.errors import InputError
from weightdecay.units.grids import log_spaced
from weightdecay.units.numbers import count as whole
from weightdecay.units.numbers import number
from weightdecay.units.rates import rate_of


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
        if unit not in _PER:
            raise InputError("no such unit", "unit", repr(unit), f"use {', '.join(_PER)}")
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
