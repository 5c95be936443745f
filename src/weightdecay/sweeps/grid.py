"""The strengths of a sweep: one unit, ascending strength, wider at an edge and finer around the best."""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from weightdecay.arguments import number
from weightdecay.errors import InputError
from weightdecay.text import Text
from weightdecay.units import HalfLife, HalfLives, grid

Unit = Literal[
    "weight_decay", "half_lives_per_run", "half_life_steps", "half_life_epochs", "half_life_samples"
]
UNITS: tuple[Unit, ...] = Unit.__args__  # pyright: ignore[reportAttributeAccessIssue]
# How an axis or a column calls them.
TITLES: dict[str, Text] = {
    "weight_decay": Text("λ", "λ"),
    "half_lives_per_run": Text("half-lives per run", "每次训练的半衰期个数"),
    "half_life_steps": Text("half-life in steps", "半衰期（步）"),
    "half_life_epochs": Text("half-life in epochs", "半衰期（轮）"),
    "half_life_samples": Text("half-life in samples", "半衰期（样本）"),
}
_LIFE = "half_life_"  # a time: the longer, the weaker


@dataclass(frozen=True)
class Strengths:
    """Strengths in one unit.

    Args:
        values: in the order of ascending strength, so half-lives descend; 0 in any unit is no decay.
        unit: "weight_decay" (λ), "half_lives_per_run", or "half_life_" and steps, epochs or samples.

    >>> Strengths((0.0, 8.0, 2.0), "half_life_epochs").positive
    (8.0, 2.0)
    """

    values: tuple[float, ...]
    unit: Unit

    def __len__(self) -> int:
        return len(self.values)

    @property
    def positive(self) -> tuple[float, ...]:
        """All but no decay."""
        return tuple(value for value in self.values if value > 0)

    def and_(self, more: Sequence[float]) -> "Strengths":
        """These and others of the same unit."""
        return Strengths(ascending({*self.values, *more}, self.unit), self.unit)


def strength_of(value: float, unit: str) -> float | HalfLife | HalfLives:
    """What a rule is made with: a number, a half-life, or half-lives per run; 0 is no decay in any unit.

    >>> strength_of(3.0, "half_lives_per_run"), strength_of(0.0, "half_life_epochs")
    (HalfLives(per_run=3.0), 0.0)
    """
    if unit == "weight_decay" or value == 0:
        return float(value)
    return HalfLives(value) if unit == "half_lives_per_run" else HalfLife(**{unit.removeprefix(_LIFE): value})


def ascending(values: Iterable[float], unit: str) -> tuple[float, ...]:
    """Values of a unit in the order of ascending strength.

    >>> ascending([1.0, 4.0, 0.0], "half_life_epochs")
    (0.0, 4.0, 1.0)
    """
    return tuple(sorted(values, key=functools.partial(log_strength, unit=unit)))


def title(unit: str) -> Text:
    """How an axis or a column calls a unit.

    >>> title("half_life_epochs")
    'half-life in epochs'
    """
    return TITLES[unit]


def strengths_of(strengths: Any) -> Strengths:
    """Read strengths as people give them, all of one unit; no decay is added as the reference.

    Args:
        strengths: λ as numbers, an array or a tensor; `HalfLives` (or `HalfLives.grid`), or `HalfLife`; one
            or several, in any order; or `Strengths`.

    Raises:
        InputError: none, or none above 0; one that is negative, not finite or repeated; several units; a
            half-life with a step size of its own, or in tokens.

    >>> strengths_of([0.1, 0.01]).values
    (0.0, 0.01, 0.1)
    >>> strengths_of(HalfLives.grid(1, 4, 3))
    Strengths(values=(0.0, 1.0, 2.0, 4.0), unit='half_lives_per_run')
    """
    if isinstance(strengths, Strengths):
        return strengths_of_values(strengths.values, strengths.unit)
    parts = [_part(value) for value in _several(strengths)]
    units: dict[Unit, None] = dict.fromkeys(unit for _, unit in parts)
    if len(units) > 1:
        raise InputError("strengths of several units", "strengths", ", ".join(units), "give them in one")
    return strengths_of_values([value for value, _ in parts], parts[0][1] if parts else "weight_decay")


def read_strengths(text: str, unit: Unit = "weight_decay", where: str = "strengths") -> Strengths:
    """Read strengths as they are written on the command line: 0.1,1 or first:last:count.

    Raises:
        InputError: not that grammar; and as `strengths_of`.

    >>> read_strengths("1:100:3").values
    (0.0, 1.0, 10.0, 100.0)
    """
    return strengths_of_values(grid(text, where), unit, where)


def strengths_of_values(values: Sequence[float], unit: Unit, where: str = "strengths") -> Strengths:
    """Strengths of a unit from numbers in any order; checked, and no decay added."""
    if len(values) == 0:
        raise InputError("there is nothing to try", where, "nothing", "give at least one strength above 0")
    plain = [number(value, where, least=0) for value in values]
    ordered = ascending(plain, unit)
    for value, following in pairwise(ordered):
        if value == following:
            raise InputError("a strength is there twice", where, value, "give each once")
    if ordered[-1] == 0:
        raise InputError("no decay alone is nothing to choose from", where, 0, "give a strength above 0")
    return Strengths(ordered if 0.0 in ordered else (0.0, *ordered), unit)


def widened(strengths: Strengths, edge: str) -> tuple[float, ...]:
    """The strengths that follow beyond an edge: about a decade, in steps as at that end of the grid.

    Args:
        strengths: the grid so far.
        edge: "low" or "high".

    Returns:
        New values of the same unit, in the order of ascending strength.

    >>> widened(Strengths((0.0, 1.0, 10.0), "weight_decay"), "high")
    (100.0,)
    >>> widened(Strengths((0.0, 8.0, 1.0), "half_life_epochs"), "low")
    (64.0,)
    """
    values = strengths.positive
    end, beside = (values[-1], values[-2:-1]) if edge == "high" else (values[0], values[1:2])
    factor = end / beside[0] if beside else _weaker(strengths.unit) ** (1 if edge == "low" else -1)
    count = max(1, round(math.log(10) / abs(math.log(factor))))
    return ascending([end * factor**i for i in range(1, count + 1)], strengths.unit)


def refined(strengths: Strengths, place: int) -> tuple[float, ...]:
    """The strengths half way, on a log axis, from one to its neighbours.

    The weakest has no decay for a neighbour, which a log axis does not have: half a step is taken, as long
    as the other side's. Nothing is taken beyond the strongest.

    Args:
        strengths: the grid so far.
        place: of the strength to look around.

    Returns:
        One or two new values of the same unit, in the order of ascending strength.

    >>> refined(Strengths((0.0, 1.0, 4.0, 16.0), "weight_decay"), 2)
    (2.0, 8.0)
    >>> refined(Strengths((0.0, 1.0, 4.0, 16.0), "weight_decay"), 1)
    (0.5, 2.0)
    """
    values = strengths.positive
    if len(values) == 1:
        values = (values[0] * _weaker(strengths.unit), values[0], values[0] / _weaker(strengths.unit))
        return _between(*values) if strengths.values[place] > 0 else _between(*values)[:1]
    below = values[0] * values[0] / values[1]  # stands for no decay
    if strengths.values[place] == 0:
        return _between(below, values[0])
    at = values.index(strengths.values[place])
    return _between(values[at - 1] if at else below, *values[at : at + 2])


def _between(*values: float) -> tuple[float, ...]:
    """The geometric means of neighbours."""
    return tuple(one * math.sqrt(other / one) for one, other in pairwise(values))


def _part(value: Any) -> tuple[float, Unit]:
    """A strength as value and unit."""
    if isinstance(value, HalfLives):
        return value.per_run, "half_lives_per_run"
    if not isinstance(value, HalfLife):
        return number(value, "strengths", least=0), "weight_decay"
    if value.lr is not None:
        what = "a half-life of a sweep holds at the peak of the schedule"
        raise InputError(what, "HalfLife.lr", value.lr, "leave lr out")
    if value.tokens is not None:  # no argument of a sweep says how many tokens a step has
        what, use = "a sweep does not know the tokens of a step", "steps, epochs or samples"
        raise InputError(what, "HalfLife.tokens", value.tokens, f"give the half-life in {use}, or HalfLives")
    unit = next(name for name in ("steps", "epochs", "samples") if getattr(value, name) is not None)
    time = getattr(value, unit)
    name: Unit = f"{_LIFE}{unit}"  # pyright: ignore[reportAssignmentType]
    return (0.0 if math.isinf(time) else time), name


def _several(strengths: Any) -> list[Any]:
    """One or several as a list."""
    if isinstance(strengths, str):
        remedy = "give numbers, wd.HalfLives or wd.HalfLife"
        raise InputError("not strengths", "strengths", repr(strengths), remedy)
    if hasattr(strengths, "tolist"):  # an array or a tensor
        strengths = strengths.tolist()
    try:
        return list(strengths)
    except TypeError:
        return [strengths]


def log_strength(value: float, unit: str) -> float:
    """Grows with the strength; on it a grid is evenly spaced."""
    if value == 0:
        return -math.inf
    return -math.log(value) if unit.startswith(_LIFE) else math.log(value)


def _weaker(unit: str) -> float:
    """The factor to a strength ten times weaker."""
    return 10.0 if unit.startswith(_LIFE) else 0.1
