"""Which strength: best, one standard error, flatness, no decay against the best; over shared seeds."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import DivergenceError, InputError
from weightdecay.select import Choice, Edge, choose_paired, student_t
from weightdecay.sweeps.grid import ascending, title
from weightdecay.sweeps.task import Goal, Trained

LEVEL = 0.95  # of the interval of the difference to no decay


@dataclass(frozen=True)
class Comparison:
    """No decay against the best strength, seed by seed.

        d_s = score_s(no decay) − score_s(best),   mean of d ± t sd(d)/√S,   t of S − 1 degrees of freedom

    Args:
        difference: the mean of d; positive where no decay is worse, also where more is better.
        low, high: the 95 % interval; infinite with one seed.
        error: the standard error of the mean; 0 with one seed.
        seeds: S.
        left_out: the mean of d where the best strength is chosen without the seed it is judged by, so that
            choosing does not flatter; None with one seed.

    Convention: the interval is over seeds (initialisation, order, dropout), at these test data.
    """

    difference: float
    low: float
    high: float
    error: float
    seeds: int
    left_out: float | None

    @property
    def tells(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    @property
    def seeds_needed(self) -> int | None:
        """About how many seeds would tell, if mean and standard deviation stay; None where they cannot."""
        if self.difference <= 0 or not 0 < self.error < math.inf:
            return None
        ratio = self.difference / (self.error * math.sqrt(self.seeds))
        enough = (n for n in range(2, 1001) if ratio * math.sqrt(n) > student_t(LEVEL, n - 1))
        return next(enough, None)


@dataclass(frozen=True, eq=False)
class Selection:
    """The strengths of one rule and one learning rate, judged.

    Args:
        rule: the rule's name.
        lr: the learning rate where there are several, else None.
        unit: of the strengths.
        strengths: in the order of ascending strength, 0 (no decay) first (L,).
        weight_decays: the numbers λ they come to; None where there is none (L,).
        seeds: the seeds (S,).
        scores: every training's score; ±infinity where it diverged (S, L).
        means: their means over seeds (L,).
        errors: the means' standard errors over seeds; 0 with one seed (L,).
        differences: how much worse than the best, mean over seeds (L,).
        difference_errors: the standard errors of those differences, seed by seed (L,).
        best: the strength of the best mean; the stronger of two that are equal.
        one_se: the strongest whose difference to the best is within its standard error.
        flat_range: the weakest and the strongest around the best that are as near as that.
        edge: "low" or "high" where the grid should go on; low only while the weakest is not
            level with no decay, within no decay's own standard error.
        flat: whether every strength is as near as that.
        no_decay: no decay against the best; None where strength 0 was not trained.
        diverged: trainings that diverged, or whose score is not finite.
    """

    rule: str
    lr: float | None
    unit: str
    strengths: tuple[float, ...] = field(repr=False)
    weight_decays: tuple[float | None, ...] = field(repr=False)
    seeds: tuple[int, ...] = field(repr=False)
    scores: Float64[Tensor, "S L"] = field(repr=False)
    means: Float64[Tensor, " L"] = field(repr=False)
    errors: Float64[Tensor, " L"] = field(repr=False)
    differences: Float64[Tensor, " L"] = field(repr=False)
    difference_errors: Float64[Tensor, " L"] = field(repr=False)
    best: float
    one_se: float
    flat_range: tuple[float, float]
    edge: Edge
    flat: bool
    no_decay: Comparison | None
    diverged: tuple[Trained, ...] = field(repr=False)

    def place(self, strength: float) -> int:
        """The place of a strength in the grid."""
        return self.strengths.index(strength)

    def mean(self, strength: float) -> float:
        """The mean score at a strength."""
        return float(self.means[self.place(strength)])


def selections_of(trained: Sequence[Trained], goal: Goal) -> tuple[Selection, ...]:
    """Judge the strengths of each rule and learning rate that occurs, in order of occurrence.

    Strengths that not every seed has finished are left out.

    Args:
        trained: trainings of one unit, in any order.
        goal: what to choose by.

    Raises:
        DivergenceError: at every strength of every rule and learning rate a training diverged.
        InputError: nothing is finished; at every strength the metric is not finite, and the loss is.
    """
    settings: dict[tuple[str, float | None], list[Trained]] = {}
    for one in trained:
        settings.setdefault((one.copy.rule, one.copy.lr), []).append(one)
    found = [_selection(several, goal) for several in settings.values()]
    judged = tuple(selection for selection in found if selection is not None)
    if not judged and not trained:
        raise InputError("nothing is finished", "sweep", "no training", "let it run, or resume it")
    if not judged:
        _check_metric(trained, goal)
        steps = [one.diverged for one in trained if one.diverged is not None]
        first = f"first at step {min(steps)}" if steps else "no score is finite"
        what = "at every strength a training diverged or is missing"
        raise DivergenceError(what, "lr", first, "give a smaller learning rate, or clip=")
    return judged


def _check_metric(trained: Sequence[Trained], goal: Goal) -> None:
    """Where nothing can be chosen: refuse the metric, if by their loss the trainings could be."""
    unmeasured = [one for one in trained if goal.unmeasured(one)]
    if not unmeasured:
        return
    with contextlib.suppress(DivergenceError):
        selections_of(trained, Goal())
        copy, value = unmeasured[0].copy, unmeasured[0].metrics[goal.name]
        what = (
            f"the metric chooses no strength: it is not finite at {len(unmeasured)} trainings whose loss is"
        )
        remedy = "mend the metric, or choose by another score"
        where = f"{value} at strength {copy.strength:g} ({copy.unit}), seed {copy.seed}"
        raise InputError(what, f"metrics[{goal.name!r}]", where, remedy)


def best_of(selections: Sequence[Selection], goal: Goal) -> int:
    """The place of the setting (rule, learning rate) with the best mean score; of ties the first."""
    means = [goal.sign * one.mean(one.best) for one in selections]
    return next(i for i, mean in enumerate(means) if tied(mean, min(means), len(selections[i].seeds)))


def tied(one: float, other: float, seeds: int) -> bool:
    """Whether means over so many seeds differ by no more than their rounding."""
    return abs(one - other) <= seeds * torch.finfo(torch.float64).eps * max(abs(one), abs(other))


def _selection(trained: Sequence[Trained], goal: Goal) -> Selection | None:
    """None where no strength is finite at every seed."""
    unit = trained[0].copy.unit
    seeds = tuple(dict.fromkeys(one.copy.seed for one in trained))
    cells = {(one.copy.seed, one.copy.strength): one for one in trained}
    strengths = tuple(
        strength
        for strength in ascending({strength for _, strength in cells}, unit)
        if all((seed, strength) in cells for seed in seeds)
    )
    if not strengths:
        return None
    grid = [[cells[seed, strength] for strength in strengths] for seed in seeds]
    scores = torch.tensor(
        [[goal.score(one) for one in row] for row in grid], dtype=torch.float64, device="cpu"
    )
    if not bool(scores.isfinite().all(0).any()):
        return None
    paired = choose_paired(goal.sign * scores)
    choice = paired.choice
    return Selection(
        rule=trained[0].copy.rule,
        lr=trained[0].copy.lr,
        unit=unit,
        strengths=strengths,
        weight_decays=tuple(one.weight_decay for one in grid[0]),
        seeds=seeds,
        scores=scores,
        means=scores.mean(0),
        errors=_standard_errors(scores),
        differences=paired.differences,
        difference_errors=paired.errors,
        best=strengths[choice.best],
        one_se=strengths[choice.one_se],
        flat_range=(strengths[choice.low], strengths[choice.high]),
        edge=_edge(choice, strengths, goal.sign * scores),
        flat=choice.flat,
        no_decay=_against_none(goal.sign * scores, choice.best) if strengths[0] == 0 else None,
        diverged=tuple(one for row in grid for one in row if not math.isfinite(goal.score(one))),
    )


def _edge(choice: Choice, strengths: Sequence[float], scores: Tensor) -> Edge:
    """Where the grid should go on.

    At the weak end a curve runs into no decay: strengths weaker than the weakest are worth a try only while
    the weakest differs from none by more than none's own standard error over seeds. A paired difference can
    be told long after it has become too small to matter.
    """
    if strengths[0] != 0 or choice.best > 1 or len(strengths) < 3:
        return choice.edge
    difference = float((scores[:, 1] - scores[:, 0]).mean())
    if math.isinf(difference):  # one of the two diverged
        return "low"
    return "low" if abs(difference) > float(_standard_errors(scores)[0]) else None


def _against_none(scores: Float64[Tensor, "S L"], best: int) -> Comparison:
    d, means = scores[:, 0] - scores[:, best], scores.mean(0)
    # The difference of the means that were chosen by: rounding makes no equal ones differ.
    seeds, mean = len(d), float(means[0] - means[best])
    if seeds == 1:
        return Comparison(mean, -math.inf, math.inf, 0.0, 1, None)
    if not math.isfinite(mean):  # no decay diverged
        return Comparison(math.inf, math.inf, math.inf, math.inf, seeds, None)
    error = float(d.std()) / math.sqrt(seeds)
    half = student_t(LEVEL, seeds - 1) * error
    return Comparison(mean, mean - half, mean + half, error, seeds, _left_out(scores))


def _left_out(scores: Float64[Tensor, "S L"]) -> float:
    """The mean gain over no decay of the strength that the other seeds choose."""
    scores = scores[:, scores.isfinite().all(0)]
    gains = []
    for seed in range(len(scores)):
        others = torch.cat([scores[:seed], scores[seed + 1 :]])
        best = choose_paired(others).choice.best
        gains.append(float(scores[seed, 0] - scores[seed, best]))
    return sum(gains) / len(gains)


def _standard_errors(scores: Float64[Tensor, "S L"]) -> Float64[Tensor, " L"]:
    if len(scores) == 1:
        return torch.zeros_like(scores[0])
    return (scores.std(0) / math.sqrt(len(scores))).nan_to_num(nan=math.inf, posinf=math.inf)


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
