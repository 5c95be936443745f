"""Rounds of a sweep: the grid, wider while the best is at its edge, then finer around the best."""

import contextlib
from collections.abc import Callable, Sequence

from weightdecay.errors import DivergenceError
from weightdecay.sweeps.records import Trained
from weightdecay.sweeps.selection import Goal, best_of, selections_of
from weightdecay.sweeps.store import Round
from weightdecay.sweeps.strengths import Strengths, refined, widened

GRID = "the grid"


def next_round(
    rounds: Sequence[Round],
    trained: Sequence[Trained],
    goal: Goal,
    unit: str,
    widen: int,
    refine: int,
    possible: Callable[[float], bool],
) -> Round | None:
    """What to train after these rounds; None: nothing.

    Args:
        rounds: those that are trained.
        trained: what they gave.
        goal: what is best.
        unit: of the strengths.
        widen: how many rounds may widen the grid; none does after the first that refines.
        refine: how many rounds refine it.
        possible: whether a strength can be trained.
    """
    strengths = Strengths((), unit).and_([value for one in rounds for value in one.strengths])  # pyright: ignore[reportArgumentType]
    wider = sum(one.why.startswith("wider") for one in rounds)
    finer = sum(one.why.startswith("finer") for one in rounds)
    found = None
    with contextlib.suppress(DivergenceError):  # there is no best; the record says so
        selections = selections_of(trained, goal)
        found = selections[best_of(selections, goal)]
    if found is None:
        return None
    if found.edge is not None and wider < widen and not finer:
        new = _new(widened(strengths, found.edge), strengths, possible)
        if new:
            return Round(len(rounds), f"wider at the {found.edge} end", new)
    if finer < refine:
        new = _new(refined(strengths, strengths.values.index(found.best)), strengths, possible)
        if new:
            return Round(len(rounds), f"finer around {found.best:g}", new)
    return None


def _new(values: Sequence[float], there: Strengths, possible: Callable[[float], bool]) -> tuple[float, ...]:
    return tuple(value for value in values if value not in there.values and possible(value))
