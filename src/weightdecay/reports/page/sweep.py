"""The page of a sweep: score against strength with every seed, all settings, learning curves."""

import numpy as np
import polars as pl

from weightdecay.reports.page.figures import LOSS, Figure, Line, Page, Table, array, number
from weightdecay.sweeps.explain import setting_name
from weightdecay.sweeps.record import Sweep
from weightdecay.sweeps.strengths import title

_MOST_CURVES = 8


def page(sweep: Sweep) -> Page:
    """The page."""
    lines = (*sweep.lines, f"trained {sweep.method}")
    figures = [_scores(sweep), *_learning(sweep)]
    notes = []
    if len([one for one in sweep.strengths if one > 0]) + 1 > _MOST_CURVES:
        notes.append(
            (
                f"Learning curves of {_MOST_CURVES} strengths are drawn, means over seeds.",
                f"学习曲线只画出 {_MOST_CURVES} 个强度，取各种子的平均。",
            )
        )
    name = sweep.goal.name
    heading = (f"Sweep: {name} against the strength", f"扫描：{name} 与强度")
    return Page(heading, lines, sweep.doubts, [_table(sweep)], figures, notes)


def _scores(sweep: Sweep) -> Figure:
    found = sweep.selection
    kept = [i for i, value in enumerate(found.strengths) if value > 0]
    scores = array(found.scores)[:, kept]
    lines = [
        Line(
            ("mean ± standard error", "平均 ± 标准误"),
            array(found.means)[kept],
            0,
            band=array(found.errors)[kept],
        )
    ]
    for s, seed in enumerate(found.seeds):
        lines.append(Line((f"seed {seed}", f"种子 {seed}"), scores[s], "soft", points=True))
    if 0.0 in found.strengths:
        none = float(found.means[found.strengths.index(0.0)])
        lines.append(Line(("no decay", "无衰减"), np.full(len(kept), none), "ink", dashed=True))
    finite = scores[np.isfinite(scores)]
    log = (
        bool(len(finite) and finite.min() > 0 and finite.max() > 4 * finite.min()) and not sweep.goal.maximize
    )
    unit = title(sweep.unit)
    strengths = [found.strengths[i] for i in kept]
    order = np.argsort(strengths)  # half-lives are in the order of strength, which is the other way round
    lines = [
        Line(
            one.name,
            one.y[order],
            one.colour,
            one.dashed,
            one.points,
            None if one.band is None else one.band[order],
        )
        for one in lines
    ]
    label = (sweep.goal.name, sweep.goal.name)
    caption = (f"Score against strength: {setting_name(found)}", f"得分与强度：{setting_name(found)}")
    return Figure(caption, np.array(strengths)[order], lines, (unit, unit), label, True, log)


def _learning(sweep: Sweep) -> list[Figure]:
    """Test loss over the epochs, the best strength among the ones shown."""
    curves = sweep.curves().filter(pl.col("rule") == sweep.rule)
    if sweep.lr is not None:
        curves = curves.filter(pl.col("lr") == sweep.lr)
    strengths = sorted(curves["strength"].unique())
    if len(strengths) > _MOST_CURVES:
        places = {round(i * (len(strengths) - 1) / (_MOST_CURVES - 1)) for i in range(_MOST_CURVES)}
        strengths = sorted({strengths[i] for i in places if strengths[i] != sweep.best} | {sweep.best})
    means = curves.group_by("strength", "epoch").agg(pl.col("test_loss").mean()).sort("epoch")
    epochs = means["epoch"].unique().sort()
    lines = []
    for i, strength in enumerate(strengths):
        rows = means.filter(pl.col("strength") == strength)
        seen = dict(zip(rows["epoch"], rows["test_loss"], strict=True))
        y = np.array(
            [np.nan if seen.get(epoch) is None else seen[epoch] for epoch in epochs], dtype=np.float64
        )
        best = strength == sweep.best
        lines.append(Line(f"{number(strength)}{' *' if best else ''}", y, i, dashed=not best))
    if len(epochs) < 2:
        return []
    caption = ("Test loss over the epochs (* the best)", "各轮的测试损失（* 最好的）")
    return [Figure(caption, epochs.to_numpy(), lines, ("epoch", "轮"), LOSS, log_y=True)]


def _table(sweep: Sweep) -> Table:
    """All settings: the more of the colour, the better the score."""
    heat = sweep.heat()
    scores = heat["score"].to_numpy()
    finite = scores[np.isfinite(scores)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    shares = (scores - low) / ((high - low) or 1.0)
    better = shares if sweep.goal.maximize else 1 - shares
    rows = [
        [
            row["rule"],
            *(number(row[name]) for name in ("lr", "strength", "weight_decay")),
            f"{number(row['score'])} ± {number(row['error'])}",
            str(row["diverged"]),
        ]
        for row in heat.iter_rows(named=True)
    ]
    head = [("rule", "规则"), "lr", (title(sweep.unit), title(sweep.unit)), "weight_decay"]
    more = [(sweep.goal.name, sweep.goal.name), ("diverged seeds", "发散的种子")]
    shades = [float(one) if np.isfinite(one) else None for one in better]
    return Table(
        ("All settings; the best are coloured", "全部设置；颜色越深越好"), [*head, *more], rows, shades
    )
