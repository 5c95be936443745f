"""What a sweep found, in sentences with its own figures."""

import math

from weightdecay.sweeps.records import Trained
from weightdecay.sweeps.selection import Comparison, Goal, Selection
from weightdecay.sweeps.strengths import title


def lines(found: Selection, goal: Goal, settings: int) -> tuple[str, str, str, str]:
    """Four lines: the best, one standard error, against no decay, and the shape of the curve.

    Args:
        found: the best setting's selection.
        goal: what was chosen by.
        settings: how many rules and learning rates there were to choose from.
    """
    return _best(found, goal, settings), _one_se(found, goal), _no_decay(found, goal), _shape(found)


def doubts(found: Selection, goal: Goal, others: "tuple[Selection, ...]") -> tuple[str, ...]:
    """What to be careful about."""
    said = []
    if len(found.seeds) == 1:
        said.append("one seed only: there are no error bars, and a difference may be luck; give more seeds")
    elif found.no_decay is not None and _flattered(found.no_decay):
        said.append(_optimism(found.no_decay, goal))
    failed = [one for selection in (found, *others) for one in selection.diverged]
    if diverged := [one for one in failed if not goal.unmeasured(one)]:
        said.append(_diverged(diverged))
    if unmeasured := [one for one in failed if goal.unmeasured(one)]:
        said.append(_unmeasured(unmeasured, goal))
    if found.edge is not None and not found.flat:
        said.append(
            f"the best is the {'strongest' if found.edge == 'high' else 'weakest'} that was tried: "
            f"{'stronger' if found.edge == 'high' else 'weaker'} ones may be better"
        )
    if found.no_decay is None:
        said.append("no decay was not trained to the end: there is nothing to compare with")
    if (elsewhere := _none_elsewhere(found, goal, others)) is not None:
        said.append(
            f"no decay does better at {setting_name(elsewhere)}: {goal.title} {elsewhere.mean(0.0):.4g}"
        )
    return tuple(said)


def strength(value: float, unit: str, weight_decay: float | None = None) -> str:
    """A strength as a sentence says it.

    >>> strength(2.0, "half_life_epochs", 0.35), strength(0.0, "weight_decay")
    ('half-life 2 epochs (λ = 0.35)', 'no decay')
    """
    if value == 0:
        return "no decay"
    if unit == "weight_decay":
        return f"λ = {value:.3g}"
    behind = "" if weight_decay is None else f" (λ = {weight_decay:.3g})"
    if unit == "half_lives_per_run":
        return f"{value:.3g} half-{'life' if value == 1 else 'lives'} per run{behind}"
    return f"half-life {value:.3g} {unit.removeprefix('half_life_')}{behind}"


def setting_name(found: Selection) -> str:
    """The rule, and the learning rate where there are several: "Decoupled, lr 0.001"."""
    return found.rule if found.lr is None else f"{found.rule}, lr {found.lr:.3g}"


def _none_elsewhere(found: Selection, goal: Goal, others: "tuple[Selection, ...]") -> Selection | None:
    """The other setting at which no decay is best, if it is better there than at the chosen one."""
    if found.no_decay is None:
        return None
    better = [
        other
        for other in others
        if other.no_decay is not None and goal.sign * (other.mean(0.0) - found.mean(0.0)) < 0
    ]
    return min(better, key=lambda other: goal.sign * other.mean(0.0), default=None)


def _named(found: Selection, value: float) -> str:
    return strength(value, found.unit, found.weight_decays[found.place(value)])


def _scored(found: Selection, value: float, goal: Goal) -> str:
    place = found.place(value)
    error = f" ± {float(found.errors[place]):.2g}" if len(found.seeds) > 1 else ""
    return f"{goal.title} {float(found.means[place]):.4g}{error}"


def _best(found: Selection, goal: Goal, settings: int) -> str:
    among = f"{'most' if goal.maximize else 'least'} of {len(found.strengths)} strengths"
    where = f" and {settings} settings, with {setting_name(found)}" if settings > 1 else ""
    seeds = f"mean of {len(found.seeds)} seeds" if len(found.seeds) > 1 else "one seed"
    return f"best: {_named(found, found.best)}, {_scored(found, found.best, goal)}, {among}{where} ({seeds})"


def _one_se(found: Selection, goal: Goal) -> str:
    if len(found.seeds) == 1:
        return "one standard error: not known from one seed"
    if found.best == found.strengths[-1]:
        return "one standard error: the best is the strongest that was tried"
    if found.one_se == found.best:
        return "one standard error: every stronger decay is further than that from the best"
    return (
        f"one standard error: {_named(found, found.one_se)}, {_scored(found, found.one_se, goal)}, is the "
        "strongest as near as that to the best"
    )


def _no_decay(found: Selection, goal: Goal) -> str:
    none = found.no_decay
    if none is None:
        return "no decay: not trained"
    if found.best == 0:
        return "no decay: no strength that was tried is better"
    if math.isinf(none.difference):
        by_metric = any(one.copy.strength == 0 and goal.unmeasured(one) for one in found.diverged)
        return f"no decay: its {goal.title} is not finite" if by_metric else "no decay: it diverged"
    if none.difference == 0:
        return _no_difference(none, goal)
    what = f"no decay: {goal.title} {found.mean(0.0):.4g}, worse by {none.difference:.3g}"
    if none.seeds == 1:
        return f"{what}; one seed cannot tell whether that is luck"
    interval = f"95 % interval [{none.low:.3g}, {none.high:.3g}], seed by seed"
    if none.tells:
        return f"{what}, {interval}"
    needed = none.seeds_needed
    more = f"; about {needed} seeds would" if needed and needed > none.seeds else ""
    return f"{what}, {interval}: the data cannot tell the best from no decay{more}"


def _no_difference(none: Comparison, goal: Goal) -> str:
    """What is said of means that are equal; the stronger of the two is the best."""
    if none.error > 0:
        return f"no decay: the same mean {goal.title}, by seeds that differ; they cannot tell the two apart"
    if goal.name != "loss":  # a count, say, which a small change leaves as it is
        return f"no decay: the very same {goal.title} at every seed"
    return "no decay: the very same score; the best strength is too weak to change it"


def _shape(found: Selection) -> str:
    if len(found.seeds) == 1:
        return "range: not known from one seed"
    weakest, strongest = (_named(found, value) for value in found.flat_range)
    if found.flat:
        return "flat: one standard error tells no strength from the best"
    if weakest == strongest:
        inside = found.best not in (found.strengths[0], found.strengths[-1])
        beside = "both neighbours of the best are" if inside else "the best's one neighbour is"
        return f"range: {beside} further than one standard error from it"
    return f"range: from {weakest} to {strongest} no strength is told from the best by one standard error"


def _flattered(none: Comparison) -> bool:
    """Whether the gain shrinks where the choice is made without the seed it is judged by."""
    if none.left_out is None or none.difference <= 0:  # one seed, or no decay diverged
        return False
    # It cannot grow; where every seed's absence leaves the choice as it is, it stays, up to rounding.
    return none.left_out < none.difference * (1 - 1e-9)


def _optimism(none: Comparison, goal: Goal) -> str:
    assert none.left_out is not None
    left = "" if none.left_out > 0 else " there is none"
    return (
        "the best strength was chosen by the very scores it is judged by, so its gain over no decay, "
        f"{none.difference:.3g} of {goal.title}, is a little too good; "
        f"chosen without the seed it is judged by{left}: {none.left_out:.3g}"
    )


def _unmeasured(trained: "list[Trained]", goal: Goal) -> str:
    """Of trainings whose metric is not finite, and whose loss is."""
    first, count = trained[0], len(trained)
    which = f"{strength(first.copy.strength, first.copy.unit, first.weight_decay)}, seed {first.copy.seed}"
    return (
        f"the metric {goal.name} is not finite at {count} training{'s' * (count > 1)} whose loss is, "
        f"the first at {which}; such a {title(first.copy.unit)} is never chosen"
    )


def _diverged(gone: "list[Trained]") -> str:
    first = min(gone, key=lambda one: math.inf if one.diverged is None else one.diverged)
    unit = first.copy.unit
    when = "at the end" if first.diverged is None else f"at step {first.diverged}"
    return (
        f"{len(gone)} training{'s' * (len(gone) > 1)} diverged, the earliest {when} "
        f"({strength(first.copy.strength, unit, first.weight_decay)}, seed {first.copy.seed}); "
        f"a {title(unit)} at which a seed diverged is never chosen"
    )
