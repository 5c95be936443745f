"""The page of a sweep: score against strength with every seed, all settings, learning curves."""

import numpy as np
import polars as pl

from weightdecay.reports.page import chinese
from weightdecay.reports.page.figures import (
    Both,
    Figure,
    Group,
    Line,
    Page,
    Table,
    Top,
    array,
    number,
    thinned,
)
from weightdecay.sweeps.explain import setting_name
from weightdecay.sweeps.record import Sweep
from weightdecay.sweeps.selection import Selection
from weightdecay.sweeps.strengths import title

_FIRST_CURVES = 6  # drawn before anything is chosen
_MOST_CURVES = 40  # of each setting
_MOST_NUMBERS = 60_000  # of all curves; and of the points of all seeds
_MOST_COLUMNS = 24
_MOST_ROWS = 200
_UNITS = {
    "weight_decay": "λ",
    "half_lives_per_run": "每次训练的半衰期个数",
    "half_life_steps": "半衰期（步）",
    "half_life_epochs": "半衰期（轮）",
    "half_life_samples": "半衰期（样本）",
}


def page(sweep: Sweep) -> Page:
    """The page."""
    notes: list[Both] = []
    scores, learning = _scores(sweep, notes), _learning(sweep, notes)
    tables = [*_heat(sweep, notes), _table(sweep, notes)]
    lines = (*sweep.lines, f"trained {sweep.method}"), chinese.sweep_lines(sweep)
    doubts = sweep.doubts, chinese.sweep_doubts(sweep)
    name = sweep.goal.title
    heading = (f"Sweep: {name} against the strength", f"扫描：{chinese.goal_name(sweep)}与强度")
    return Page(heading, lines, doubts, tables, figures=[scores, *learning], notes=notes)


def _unit(sweep: Sweep) -> Both:
    return title(sweep.unit), _UNITS[sweep.unit]


def _goal(sweep: Sweep) -> Both:
    return sweep.goal.title, chinese.goal_name(sweep)


def _scores(sweep: Sweep, notes: list[Both]) -> Figure:
    """Means with error bars, and every seed."""
    found = sweep.selection
    strengths = array(found.strengths)
    order = np.argsort(strengths)  # half-lives are in the order of strength, which is the other way round
    kept = order[strengths[order] > 0]  # a log axis has no 0
    lines = []
    seeds = thinned(len(found.seeds), max(1, _MOST_NUMBERS // len(kept)))
    for s in seeds if len(found.seeds) > 1 else ():
        name = (f"seed {found.seeds[s]}", f"种子 {found.seeds[s]}")
        lines.append(Line(name, array(found.scores[s])[kept], "soft", points=True))
    if len(seeds) < len(found.seeds):
        some = f"Points of {len(seeds)} of {len(found.seeds)} seeds are drawn; means are those of all."
        notes.append(
            (some, f"图中只画出 {len(found.seeds)} 个种子中 {len(seeds)} 个的点；平均是全部种子的。")
        )
    errors = array(found.errors)[kept] if len(found.seeds) > 1 else None
    mean = ("mean ± standard error", "平均 ± 标准误") if len(found.seeds) > 1 else ("one seed", "一个种子")
    lines.append(Line(mean, array(found.means)[kept], 0, band=errors, bars=True))
    for value, name, colour in (
        (found.one_se, ("one standard error", "一倍标准误"), "test"),
        (found.best, ("best", "最好"), "ink"),
    ):
        mark = np.where(strengths[kept] == value, array(found.means)[kept], np.nan)
        if value > 0 and (len(found.seeds) > 1 or colour == "ink"):
            lines.append(Line(name, mark, colour, points=True))
    if 0.0 in found.strengths:
        none = found.mean(0.0)
        lines.append(Line(("no decay", "无衰减"), np.full(len(kept), none), "ink", dashed=True))
    scores = array(found.scores)
    log = _spread(scores) and not sweep.goal.maximize
    name = setting_name(found)
    caption = (f"Score against strength: {name}", f"得分与强度：{name}")
    return Figure(
        caption, strengths[kept], lines, _unit(sweep), _goal(sweep), True, log, top=_top(sweep, kept)
    )


def _top(sweep: Sweep, kept: np.ndarray) -> Top | None:
    """The half-lives that λ comes to; the λ that half-lives come to."""
    found = sweep.selection
    if sweep.unit == "weight_decay":
        label, values = (
            ("half-life in epochs, at the largest lr", "半衰期（轮，按最大学习率）"),
            sweep.half_lives(),
        )
    else:
        label, values = ("λ", "λ"), found.weight_decays
    plain = np.array([np.nan if value is None else value for value in values], dtype=np.float64)[kept]
    return Top(label, plain) if np.isfinite(plain).any() else None


def _spread(values: np.ndarray) -> bool:
    """Whether a log axis shows them better."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) and finite.min() > 0 and finite.max() > 4 * finite.min())


def _learning(sweep: Sweep, notes: list[Both]) -> list[Figure]:
    """Means over seeds at every look: of all settings, strengths and measures, to choose from."""
    curves = sweep.curves()
    measures = [name for name in curves.columns if name.startswith(("test_", "train_"))]
    measures.sort(key=lambda name: name != f"test_{sweep.goal.name}")  # what is chosen by comes first
    means = curves.group_by("rule", "lr", "strength", "epoch").agg(pl.col(measures).mean()).sort("epoch")
    epochs = means["epoch"].unique().sort()
    if len(epochs) < 2:
        return []
    settings = sorted(sweep.selections, key=lambda one: one is not sweep.selection)
    rows = len(settings) * len(measures) * min(_MOST_CURVES, max(len(one.strengths) for one in settings))
    looks = thinned(len(epochs), max(2, _MOST_NUMBERS // rows))
    kept = epochs.gather(looks)
    if len(kept) < len(epochs):
        some = f"Learning curves have {len(kept)} of {len(epochs)} looks."
        notes.append((some, f"学习曲线只有 {len(epochs)} 次评估中的 {len(kept)} 次。"))
    if any(len(one.strengths) > _MOST_CURVES for one in settings):
        some = f"Learning curves of at most {_MOST_CURVES} strengths of a setting can be chosen."
        notes.append((some, f"每种设置最多可选 {_MOST_CURVES} 个强度的学习曲线。"))
    lines: list[Line] = []
    groups: list[Group] = []
    for one in settings:
        rule, lr = pl.col("rule") == one.rule, pl.lit(True) if one.lr is None else pl.col("lr") == one.lr
        table = means.filter(rule & lr)
        for name in measures:
            found = _curves(one, table, name, kept, len(groups))
            groups.append(
                Group(_measure(name, one, len(settings) > 1), _spread(np.stack([line.y for line in found])))
            )
            lines += found
    caption = ("Learning curves, means over seeds", "学习曲线，各种子的平均")
    labels = ("epoch", "轮"), groups[0].label
    return [Figure(caption, kept.to_numpy(), lines, *labels, groups=groups, choose=True)]


def _curves(found: Selection, table: pl.DataFrame, measure: str, epochs: pl.Series, group: int) -> list[Line]:
    """One measure of a setting: a line each strength; few of them are drawn at first."""
    places = sorted({*thinned(len(found.strengths), _MOST_CURVES), found.place(found.best)})
    first = {places[i] for i in thinned(len(places), _FIRST_CURVES)} | {found.place(found.best)}
    lines = []
    for i in places:
        strength = found.strengths[i]
        rows = pl.DataFrame({"epoch": epochs}).join(
            table.filter(pl.col("strength") == strength).select("epoch", measure), on="epoch", how="left"
        )
        y = rows.sort("epoch")[measure].fill_null(float("nan")).to_numpy()
        best = strength == found.best
        value = number(strength)
        name = (
            (f"{value}, best", f"{value}，最好")
            if best
            else ("no decay", "无衰减")
            if strength == 0
            else value
        )
        lines.append(Line(name, y, len(lines), dashed=not best, group=group, shown=i in first))
    return lines


def _measure(name: str, found: Selection, several: bool) -> Both:
    """What a measure is called."""
    words = {"test_loss": ("test loss", "测试损失"), "train_loss": ("train loss", "训练损失")}
    english, other = words.get(name, (name.replace("_", " ", 1), f"测试 {name.removeprefix('test_')}"))
    setting = setting_name(found)
    return (f"{english}, {setting}", f"{other}，{setting}") if several else (english, other)


def _heat(sweep: Sweep, notes: list[Both]) -> list[Table]:
    """Where there is a second axis: mean scores, a row each setting, a column each strength."""
    if len(sweep.selections) == 1:
        return []
    every = sorted({value for one in sweep.selections for value in one.strengths if value > 0})
    if sweep.unit.startswith("half_life_"):
        every.reverse()  # to the right decay grows stronger
    wanted = {one.best for one in sweep.selections}
    columns = [
        value for i, value in enumerate(every) if i in thinned(len(every), _MOST_COLUMNS) or value in wanted
    ]
    if len(columns) < len(every):
        some = f"The grid has {len(columns)} of {len(every)} strengths."
        notes.append((some, f"网格只列出 {len(every)} 个强度中的 {len(columns)} 个。"))
    columns = [0.0, *columns]
    scores = np.full((len(sweep.selections), len(columns)), np.nan)
    for i, one in enumerate(sweep.selections):
        for value, score in zip(one.strengths, array(one.means), strict=True):
            if value in columns:
                scores[i, columns.index(value)] = score
    shades = _shades(scores, sweep.goal.maximize)
    rows = [
        [setting_name(one), *(number(float(score)) for score in row)]
        for one, row in zip(sweep.selections, scores, strict=True)
    ]
    head = [("setting", "设置"), ("no decay", "无衰减"), *(number(value) for value in columns[1:])]
    what, other = _goal(sweep)
    unit, unit_zh = _unit(sweep)
    caption = (
        f"Mean {what}: a column each {unit}; the darker, the better",
        f"{other}的平均：每列一个 {unit_zh}；颜色越深越好",
    )
    return [Table(caption, head, rows, [[None, *row] for row in shades])]


def _shades(scores: np.ndarray, maximize: bool) -> list[list[float | None]]:
    """From 0, the worst, to 1, the best; None where there is no score.

    By rank, so that one bad score does not make all others alike.
    """
    finite = np.unique(scores[np.isfinite(scores)])
    ranks = np.searchsorted(finite, scores) / max(1, len(finite) - 1)
    better = ranks if maximize else 1 - ranks
    return [
        [float(share) if np.isfinite(score) else None for share, score in zip(*pair, strict=True)]
        for pair in zip(better, scores, strict=True)
    ]


def _table(sweep: Sweep, notes: list[Both]) -> Table:
    """All settings and strengths: the darker, the better."""
    heat = sweep.heat()
    if heat.height > _MOST_ROWS:
        some = f"The table has the best {_MOST_ROWS} of {heat.height} rows."
        notes.append((some, f"表中只列出 {heat.height} 行中最好的 {_MOST_ROWS} 行。"))
        heat = heat.sort("score", descending=sweep.goal.maximize).head(_MOST_ROWS)
    rows = [
        [
            row["rule"],
            *(number(row[name]) for name in ("lr", "strength", "weight_decay")),
            f"{number(row['score'])} ± {number(row['error'])}",
            str(row["diverged"]),
        ]
        for row in heat.iter_rows(named=True)
    ]
    head = [("rule", "规则"), "lr", _unit(sweep), "weight_decay", _goal(sweep)]
    shades = [row[0] for row in _shades(heat["score"].to_numpy()[:, None], sweep.goal.maximize)]
    caption = ("All settings; the darker, the better", "全部设置；颜色越深越好")
    return Table(caption, [*head, ("diverged seeds", "发散的种子")], rows, shades)
