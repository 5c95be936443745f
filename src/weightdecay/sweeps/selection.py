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
from weightdecay.text import Text

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
    for training in trained:
        settings.setdefault((training.copy.rule, training.copy.lr), []).append(training)
    judged = tuple(filter(None, [_selection(several, goal) for several in settings.values()]))
    if not judged and not trained:
        raise InputError("nothing is finished", "sweep", "no training", "let it run, or resume it")
    if not judged:
        _check_metric(trained, goal)
        steps = [training.diverged for training in trained if training.diverged is not None]
        first = f"first at step {min(steps)}" if steps else "no score is finite"
        what = "at every strength a training diverged or is missing"
        raise DivergenceError(what, "lr", first, "give a smaller learning rate, or clip=")
    return judged


def _check_metric(trained: Sequence[Trained], goal: Goal) -> None:
    """Where nothing can be chosen: refuse the metric, if by their loss the trainings could be."""
    unmeasured = [training for training in trained if goal.unmeasured(training)]
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
    means = [goal.sign * selection.mean(selection.best) for selection in selections]
    return next(i for i, mean in enumerate(means) if tied(mean, min(means), len(selections[i].seeds)))


def tied(mean: float, other: float, seeds: int) -> bool:
    """Whether means over so many seeds differ by no more than their rounding."""
    return abs(mean - other) <= seeds * torch.finfo(torch.float64).eps * max(abs(mean), abs(other))


def _selection(trained: Sequence[Trained], goal: Goal) -> Selection | None:
    """None where no strength is finite at every seed."""
    unit = trained[0].copy.unit
    seeds = tuple(dict.fromkeys(training.copy.seed for training in trained))
    columns: dict[float, dict[int, Trained]] = {}
    for training in trained:
        columns.setdefault(training.copy.strength, {})[training.copy.seed] = training
    strengths = tuple(value for value in ascending(columns, unit) if len(columns[value]) == len(seeds))
    if not strengths:
        return None
    grid = [[columns[strength][seed] for strength in strengths] for seed in seeds]
    each = [[goal.score(training) for training in row] for row in grid]
    scores = torch.tensor(each, dtype=torch.float64, device="cpu")
    if not bool(scores.isfinite().all(0).any()):
        return None
    paired = choose_paired(goal.sign * scores)
    choice = paired.choice
    return Selection(
        rule=trained[0].copy.rule,
        lr=trained[0].copy.lr,
        unit=unit,
        strengths=strengths,
        weight_decays=tuple(training.weight_decay for training in grid[0]),
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
        diverged=tuple(
            training for row in grid for training in row if not math.isfinite(goal.score(training))
        ),
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


def lines(judged: Selection, goal: Goal, settings: int) -> tuple[Text, Text, Text, Text]:
    """Four lines: the best, one standard error, against no decay, and the shape of the curve.

    Args:
        judged: the best setting's selection.
        goal: what was chosen by.
        settings: how many rules and learning rates there were to choose from.
    """
    return _best(judged, goal, settings), _one_se(judged, goal), _no_decay(judged, goal), _shape(judged)


def doubts(judged: Selection, goal: Goal, others: "tuple[Selection, ...]") -> tuple[Text, ...]:
    """What to be careful about."""
    texts: list[Text] = []
    if len(judged.seeds) == 1:
        texts.append(
            Text(
                "one seed only: there are no error bars, and a difference may be luck; give more seeds",
                "只有一个种子：没有误差棒，差别可能是偶然；请多给几个种子",
            )
        )
    elif judged.no_decay is not None and _flattered(judged.no_decay):
        texts.append(_optimism(judged.no_decay, goal))
    failed = [training for each in (judged, *others) for training in each.diverged]
    if diverged := [training for training in failed if not goal.unmeasured(training)]:
        texts.append(_diverged(diverged))
    if unmeasured := [training for training in failed if goal.unmeasured(training)]:
        texts.append(_unmeasured(unmeasured, goal))
    if judged.edge is not None and not judged.flat:
        texts.append(
            Text(
                "the best is the strongest that was tried: stronger ones may be better",
                "最好的是试过的最强的：更强的也许更好",
            )
            if judged.edge == "high"
            else Text(
                "the best is the weakest that was tried: weaker ones may be better",
                "最好的是试过的最弱的：更弱的也许更好",
            )
        )
    if judged.no_decay is None:
        texts.append(
            Text(
                "no decay was not trained to the end: there is nothing to compare with",
                "没有训练完无衰减的情形：没有可比较的",
            )
        )
    if (elsewhere := _none_elsewhere(judged, goal, others)) is not None:
        name, score = setting_name(elsewhere), f"{elsewhere.mean(0.0):.4g}"
        texts.append(
            Text(
                f"no decay does better at {name}: {goal.title} {score}",
                f"在 {name} 下无衰减做得更好：{goal.title.zh} {score}",
            )
        )
    return tuple(texts)


_TIMES = {
    "half_life_steps": Text("steps", "步"),
    "half_life_epochs": Text("epochs", "轮"),
    "half_life_samples": Text("samples", "个样本"),
}


def strength(value: float, unit: str, weight_decay: float | None = None) -> Text:
    """A strength as a sentence says it.

    >>> strength(2.0, "half_life_epochs", 0.35), strength(0.0, "weight_decay")
    ('half-life 2 epochs (λ = 0.35)', 'no decay')
    """
    if value == 0:
        return Text("no decay", "无衰减")
    if unit == "weight_decay":
        return Text(f"λ = {value:.3g}", f"λ = {value:.3g}")
    lam = Text("", "")
    if weight_decay is not None:
        lam = Text(f" (λ = {weight_decay:.3g})", f"（λ = {weight_decay:.3g}）")
    if unit == "half_lives_per_run":
        lives = "half-life" if value == 1 else "half-lives"
        return Text(f"{value:.3g} {lives} per run{lam}", f"每次训练 {value:.3g} 个半衰期{lam.zh}")
    time = _TIMES[unit]
    return Text(f"half-life {value:.3g} {time}{lam}", f"半衰期 {value:.3g} {time.zh}{lam.zh}")


def setting_name(judged: Selection) -> str:
    """The rule, and the learning rate where there are several: "Decoupled, lr 0.001"."""
    return judged.rule if judged.lr is None else f"{judged.rule}, lr {judged.lr:.3g}"


def _none_elsewhere(judged: Selection, goal: Goal, others: "tuple[Selection, ...]") -> Selection | None:
    """The other setting at which no decay is best, if it is better there than at the chosen one."""
    if judged.no_decay is None:
        return None
    better = [
        other
        for other in others
        if other.no_decay is not None and goal.sign * (other.mean(0.0) - judged.mean(0.0)) < 0
    ]
    return min(better, key=lambda other: goal.sign * other.mean(0.0), default=None)


def _scored(judged: Selection, value: float, goal: Goal) -> Text:
    """A strength with its score."""
    place = judged.place(value)
    named = strength(value, judged.unit, judged.weight_decays[place])
    score = f"{float(judged.means[place]):.4g}"
    if len(judged.seeds) > 1:
        score += f" ± {float(judged.errors[place]):.2g}"
    return Text(f"{named}, {goal.title} {score}", f"{named.zh}，{goal.title.zh} {score}")


def _best(judged: Selection, goal: Goal, settings: int) -> Text:
    scored, strengths = _scored(judged, judged.best, goal), len(judged.strengths)
    several = Text("", "")
    among = Text("most", "最大") if goal.maximize else Text("least", "最小")
    if settings > 1:
        name = setting_name(judged)
        several = Text(f" and {settings} settings, with {name}", f"、{settings} 种设置（取 {name}）")
    seeds = Text("one seed", "一个种子")
    if len(judged.seeds) > 1:
        seeds = Text(f"mean of {len(judged.seeds)} seeds", f"{len(judged.seeds)} 个种子的平均")
    return Text(
        f"best: {scored}, {among} of {strengths} strengths{several} ({seeds})",
        f"最好：{scored.zh}，在 {strengths} 个强度{several.zh}中{among.zh}（{seeds.zh}）",
    )


def _one_se(judged: Selection, goal: Goal) -> Text:
    if len(judged.seeds) == 1:
        return Text("one standard error: not known from one seed", "一倍标准误：一个种子无从知道")
    if judged.best == judged.strengths[-1]:
        return Text(
            "one standard error: the best is the strongest that was tried",
            "一倍标准误：最好的就是试过的最强的",
        )
    if judged.one_se == judged.best:
        return Text(
            "one standard error: every stronger decay is further than that from the best",
            "一倍标准误：更强的衰减都比最好的差一倍标准误以上",
        )
    scored = _scored(judged, judged.one_se, goal)
    return Text(
        f"one standard error: {scored}, is the strongest as near as that to the best",
        f"一倍标准误：与最好的相差不超过一倍标准误的最强者是 {scored.zh}",
    )


def _no_decay(judged: Selection, goal: Goal) -> Text:
    none = judged.no_decay
    if none is None:
        return Text("no decay: not trained", "无衰减：没有训练")
    if judged.best == 0:
        return Text("no decay: no strength that was tried is better", "无衰减：试过的强度没有一个更好")
    if math.isinf(none.difference):
        if any(training.copy.strength == 0 and goal.unmeasured(training) for training in judged.diverged):
            return Text(f"no decay: its {goal.title} is not finite", f"无衰减：{goal.title.zh}不是有限的数")
        return Text("no decay: it diverged", "无衰减：发散")
    if none.difference == 0:
        return _no_difference(none, goal)
    score, worse = f"{judged.mean(0.0):.4g}", f"{none.difference:.3g}"
    what = Text(
        f"no decay: {goal.title} {score}, worse by {worse}", f"无衰减：{goal.title.zh} {score}，差 {worse}"
    )
    if none.seeds == 1:
        return Text(
            f"{what}; one seed cannot tell whether that is luck", f"{what.zh}；一个种子分不出这是不是偶然"
        )
    interval = f"[{none.low:.3g}, {none.high:.3g}]"
    what = Text(
        f"{what}, 95 % interval {interval}, seed by seed", f"{what.zh}，逐个种子比较的 95 % 区间 {interval}"
    )
    if none.tells:
        return what
    needed, more = none.seeds_needed, Text("", "")
    if needed and needed > none.seeds:
        more = Text(f"; about {needed} seeds would", f"；大约需要 {needed} 个种子")
    return Text(
        f"{what}: the data cannot tell the best from no decay{more}",
        f"{what.zh}：这些数据分不出最好的强度与无衰减{more.zh}",
    )


def _no_difference(none: Comparison, goal: Goal) -> Text:
    """Describe equal means; the stronger of the two is the best."""
    if none.error > 0:
        return Text(
            f"no decay: the same mean {goal.title}, by seeds that differ; they cannot tell the two apart",
            f"无衰减：{goal.title.zh}的平均相同，各种子的却不同；它们分不出两者",
        )
    if goal.name != "loss":  # a count, say, which a small change leaves as it is
        return Text(
            f"no decay: the very same {goal.title} at every seed",
            f"无衰减：每个种子的{goal.title.zh}都完全相同",
        )
    return Text(
        "no decay: the very same score; the best strength is too weak to change it",
        "无衰减：得分完全相同；最好的强度太弱，改变不了得分",
    )


def _shape(judged: Selection) -> Text:
    if len(judged.seeds) == 1:
        return Text("range: not known from one seed", "范围：一个种子无从知道")
    if judged.flat:
        return Text(
            "flat: one standard error tells no strength from the best", "平：一倍标准误分不出哪个强度更好"
        )
    weakest, strongest = (
        strength(value, judged.unit, judged.weight_decays[judged.place(value)]) for value in judged.flat_range
    )
    if weakest != strongest:
        return Text(
            f"range: from {weakest} to {strongest} no strength is told from the best by one standard error",
            f"范围：从 {weakest.zh} 到 {strongest.zh}，一倍标准误分不出哪个更好",
        )
    if judged.best in (judged.strengths[0], judged.strengths[-1]):
        return Text(
            "range: the best's one neighbour is further than one standard error from it",
            "范围：与最好的相邻的那个强度比它差一倍标准误以上",
        )
    return Text(
        "range: both neighbours of the best are further than one standard error from it",
        "范围：与最好的相邻的两个强度都比它差一倍标准误以上",
    )


def _flattered(none: Comparison) -> bool:
    """Whether the gain shrinks where the choice is made without the seed it is judged by."""
    if none.left_out is None or none.difference <= 0:  # one seed, or no decay diverged
        return False
    # It cannot grow; where every seed's absence leaves the choice as it is, it stays, up to rounding.
    return none.left_out < none.difference * (1 - 1e-9)


def _optimism(none: Comparison, goal: Goal) -> Text:
    assert none.left_out is not None
    gain, left = f"{none.difference:.3g}", Text(f": {none.left_out:.3g}", f"它是 {none.left_out:.3g}")
    if none.left_out <= 0:
        left = Text(f" there is none: {none.left_out:.3g}", f"就没有优势：{none.left_out:.3g}")
    return Text(
        "the best strength was chosen by the very scores it is judged by, so its gain over no decay, "
        f"{gain} of {goal.title}, is a little too good; chosen without the seed it is judged by{left}",
        f"最好的强度就是按评判它的这些得分选出来的，所以它比无衰减的优势（{goal.title.zh} {gain}）略为乐观；"
        f"选择时不用评判它的那个种子，{left.zh}",
    )


def _unmeasured(trained: "list[Trained]", goal: Goal) -> Text:
    """Of trainings whose metric is not finite, and whose loss is."""
    first, count = trained[0], len(trained)
    which = strength(first.copy.strength, first.copy.unit, first.weight_decay)
    seed, unit = first.copy.seed, title(first.copy.unit)
    plural = "s" * (count > 1)
    return Text(
        f"the metric {goal.name} is not finite at {count} training{plural} whose loss is, "
        f"the first at {which}, seed {seed}; such a {unit} is never chosen",
        f"有 {count} 次训练的损失是有限的数，指标 {goal.name} 却不是，第一次在 {which.zh}，种子 {seed}；"
        f"这样的 {unit.zh} 不会被选中",
    )


def _diverged(gone: "list[Trained]") -> Text:
    first = min(gone, key=lambda training: math.inf if training.diverged is None else training.diverged)
    which = strength(first.copy.strength, first.copy.unit, first.weight_decay)
    seed, unit, count = first.copy.seed, title(first.copy.unit), len(gone)
    when = Text("at the end", "结束时")
    if first.diverged is not None:
        when = Text(f"at step {first.diverged}", f"第 {first.diverged} 步")
    plural = "s" * (count > 1)
    return Text(
        f"{count} training{plural} diverged, the earliest {when} ({which}, seed {seed}); "
        f"a {unit} at which a seed diverged is never chosen",
        f"{count} 次训练发散，最早的一次在{when.zh}（{which.zh}，种子 {seed}）；"
        f"有种子发散的 {unit.zh} 不会被选中",
    )
