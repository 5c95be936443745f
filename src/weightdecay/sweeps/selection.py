"""Which strength: best, one standard error, flatness, no decay against the best; over shared seeds."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import DivergenceError, InputError
from weightdecay.quantile import student_t
from weightdecay.select import Choice, Edge, choose_paired
from weightdecay.sweeps.records import Trained
from weightdecay.sweeps.strengths import ascending

LEVEL = 0.95  # of the interval of the difference to no decay


@dataclass(frozen=True)
class Goal:
    """What a strength is chosen by.

    Args:
        name: "loss", the test loss, or the name of a metric.
        maximize: whether more is better.
    """

    name: str = "loss"
    maximize: bool = False

    @property
    def title(self) -> str:
        """How an axis or a sentence calls it."""
        return f"test {self.name}"

    @property
    def sign(self) -> float:
        """Times this, less is better."""
        return -1.0 if self.maximize else 1.0

    def score(self, trained: Trained) -> float:
        """A training's score; infinitely bad where it diverged or its score is not finite."""
        value = trained.test_loss if self.name == "loss" else trained.metrics[self.name]
        return value if trained.diverged is None and math.isfinite(value) else self.sign * math.inf

    def unmeasured(self, trained: Trained) -> bool:
        """Whether the metric is not finite where the loss is: the metric's doing, not the training's."""
        if self.name == "loss" or trained.diverged is not None or not math.isfinite(trained.test_loss):
            return False
        return not math.isfinite(trained.metrics[self.name])


def goal_of(minimize: str, maximize: str | None, metrics: Sequence[str]) -> Goal:
    """What to choose by: `minimize` ("loss" or a metric), or `maximize` where it is given.

    Raises:
        InputError: no such metric; a metric called "loss".

    >>> goal_of("loss", "accuracy", ["accuracy"])
    Goal(name='accuracy', maximize=True)
    """
    if "loss" in metrics:
        raise InputError("a metric has the loss's name", "metrics", "'loss'", "give it another")
    where, name = ("minimize", minimize) if maximize is None else ("maximize", maximize)
    if maximize == "loss":
        raise InputError("more loss is not better", "maximize", "'loss'", "use minimize, or name a metric")
    if name not in ("loss", *metrics):
        raise InputError("no such score", where, repr(name), f"use {' or '.join(['loss', *metrics])}")
    return Goal(name, maximize is not None)


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
