"""A sweep: its figures (score against strength, heat map of two axes), page and terminal output."""

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text as Styled

from weightdecay.reports.page import (
    STRENGTH,
    Chart,
    Line,
    LineGroup,
    Page,
    PageTable,
    Top,
    array,
    number,
    thinned,
)
from weightdecay.reports.style import CHOSEN, CYCLE, DIVERGED, GREY, INK, SCORE
from weightdecay.reports.terminal import chart, legend, without_colour
from weightdecay.sweeps.grid import title
from weightdecay.sweeps.record import Sweep
from weightdecay.sweeps.run import Progress
from weightdecay.sweeps.selection import Selection, setting_name, strength
from weightdecay.sweeps.task import Trained
from weightdecay.text import Text, columns_of, local, local_list, padded

_MOST_CURVES = len(CYCLE) - 2  # black is for no decay, orange for the choices
_MOST_CELLS = 100  # with more, the numbers in them are too small to read


def figure_size(sweep: Sweep) -> tuple[float, float]:
    """Width and height in inches."""
    return (6.8, 4.6) if len(sweep.selections) == 1 else (12.4, 5.2)


def figure_axes(sweep: Sweep, figure: Figure) -> np.ndarray | Axes:
    """One Axes; where there is a second axis two, for the curves and the heat map."""
    return figure.subplots() if len(sweep.selections) == 1 else figure.subplots(1, 2)


def draw(sweep: Sweep, ax: np.ndarray | Axes) -> None:
    """Draw the curve, or the curves and the heat map into an array of two Axes."""
    if isinstance(ax, Axes):
        _draw_curve(sweep, ax)
        return
    curves, heat = np.ravel(ax)
    _draw_curve(sweep, curves)
    _draw_heat(sweep, heat)


def _draw_curve(sweep: Sweep, ax: Axes) -> None:
    selection = sweep.selection
    _strength_axis(ax, selection)
    _score_axis(ax, sweep)
    _draw_others(ax, sweep)
    _draw_seeds(ax, selection)
    _draw_means(ax, selection, len(sweep.selections) > 1)
    _draw_none(ax, selection)
    _draw_choices(ax, selection)
    _draw_diverged(ax, selection)
    seeds = len(selection.seeds)
    what = f"{seeds} seeds" if seeds > 1 else "one seed: no error bars"
    what = f"{setting_name(selection)}, {what}"
    if selection.edge is not None:
        what += (
            f"\nthe best is at the edge: {'stronger' if selection.edge == 'high' else 'weaker'} may be better"
        )
    if selection.flat and seeds > 1:
        what += "\nflat: one standard error tells no strength from the best"
    ax.set_title(what, pad=8)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4.5, ncols=2)


def _draw_others(ax: Axes, sweep: Sweep) -> None:
    """The mean scores of the settings that are not the best."""
    others = [other for other in sweep.selections if other is not sweep.selection][: _MOST_CURVES - 1]
    colours = [colour for colour in CYCLE if colour not in (SCORE, CHOSEN, INK)]
    for other, colour in zip(others, colours, strict=False):
        seen = [i for i, value in enumerate(other.strengths) if value > 0 and math.isfinite(other.means[i])]
        strengths, scores = [other.strengths[i] for i in seen], [float(other.means[i]) for i in seen]
        ax.plot(strengths, scores, color=colour, lw=1, marker=".", ms=4, label=setting_name(other))


def _strength_axis(ax: Axes, selection: Selection) -> None:
    positive = [value for value in selection.strengths if value > 0]
    ax.set_xscale("log")
    low, high = min(positive), max(positive)
    room = (high / low) ** 0.04 if high > low else 10.0
    ax.set_xlim(low / room, high * room)
    if selection.unit.startswith("half_life_"):
        ax.invert_xaxis()  # to the right decay grows stronger, in any unit
    _plain_ticks(ax.xaxis, low / room, high * room)
    ax.set_xlabel(title(selection.unit))


def _plain_ticks(axis: Axis, low: float, high: float) -> None:
    """Numbers as people write them, and not only at powers of ten where there are few of those."""
    decades = math.log10(high / low)
    if decades <= 6:
        subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 3.0, 5.0)
        axis.set_major_locator(LogLocator(subs=subs, numticks=20))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _score_axis(ax: Axes, sweep: Sweep) -> None:
    """A log axis where scores are positive and span more than a factor of four."""
    scores = np.concatenate([selection.scores.numpy().ravel() for selection in sweep.selections])
    finite = scores[np.isfinite(scores)]
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high > 4 * low and not sweep.goal.maximize:
        ax.set_yscale("log", nonpositive="clip")
        _plain_ticks(ax.yaxis, low, high)
    ax.set_ylabel(sweep.goal.title)


def _draw_seeds(ax: Axes, selection: Selection) -> None:
    """Every training as a faint point."""
    if len(selection.seeds) == 1:
        return
    strengths = np.asarray(selection.strengths)
    for row in selection.scores.numpy():
        seen = np.isfinite(row) & (strengths > 0)
        ax.plot(strengths[seen], row[seen], ls="none", marker=".", ms=5, mec="none", color=SCORE, alpha=0.35)


def _draw_means(ax: Axes, selection: Selection, several: bool) -> None:
    strengths, means, errors = (
        np.asarray(values) for values in (selection.strengths, selection.means, selection.errors)
    )
    seen = (strengths > 0) & np.isfinite(means)
    label = setting_name(selection) if several else "mean over seeds" if len(selection.seeds) > 1 else None
    ax.plot(
        strengths[seen],
        means[seen],
        color=SCORE,
        lw=1.4,
        marker="." if seen.sum() <= 30 else None,
        label=label,
    )
    if len(selection.seeds) > 1:
        low, high = means[seen] - errors[seen], means[seen] + errors[seen]
        ax.fill_between(
            strengths[seen], low, high, color=SCORE, alpha=0.2, lw=0, label="± one standard error"
        )


def _draw_none(ax: Axes, selection: Selection) -> None:
    """No decay, which a log axis does not have, as a line across."""
    if selection.strengths[0] != 0 or not math.isfinite(score := float(selection.means[0])):
        return
    error = float(selection.errors[0])
    ax.axhline(score, color=INK, lw=1, ls="--", label="no decay")
    if error > 0:
        ax.axhspan(score - error, score + error, color=INK, alpha=0.07, lw=0)


def _draw_choices(ax: Axes, selection: Selection) -> None:
    """The best full, one standard error open; and the range that is not told from the best."""
    for value, marker, what in ((selection.best, "o", "best"), (selection.one_se, "D", "one standard error")):
        if marker == "D" and len(selection.seeds) == 1:
            continue
        label = f"{what}: {strength(value, selection.unit)}"
        place = (value, selection.mean(value))
        face, size, order = (
            (CHOSEN, 6, 6) if marker == "o" else ("white", 10, 5)
        )  # both are seen where they meet
        style = {"marker": marker, "mfc": face, "mec": CHOSEN, "ms": size, "ls": "none", "zorder": order}
        ax.plot(*(([], []) if value == 0 else ([place[0]], [place[1]])), label=label, **style)
        if value == 0:  # on the line of no decay, at its weak end
            ax.plot([0.01], [place[1]], transform=ax.get_yaxis_transform(), clip_on=False, **style)
    low, high = selection.flat_range
    if low != high and len(selection.seeds) > 1:
        end = ax.get_xlim()[0] if low == 0 else low
        ax.axvspan(end, high, color=GREY, alpha=0.15, lw=0, zorder=0, label="not told from the best")


def _draw_diverged(ax: Axes, selection: Selection) -> None:
    """Crosses along the bad end, one each strength."""
    strengths = sorted({training.copy.strength for training in selection.diverged})
    if not strengths:
        return
    side = 0.97 if float(selection.means.max()) == math.inf else 0.03
    places = [value for value in strengths if value > 0]
    count = f"{len(selection.diverged)} training{'s' * (len(selection.diverged) > 1)} diverged"
    cross = {"marker": "x", "ms": 7, "mew": 1.6, "color": DIVERGED, "ls": "none", "clip_on": False}
    ax.plot(places, [side] * len(places), transform=ax.get_xaxis_transform(), label=count, **cross)
    if strengths[0] == 0:
        ax.plot([0.01], [side], transform=ax.transAxes, **cross)
        ax.text(0.03, side, "no decay diverged", transform=ax.transAxes, fontsize=8, va="center")


def _draw_heat(sweep: Sweep, ax: Axes) -> None:
    """Mean scores: a column each strength, a row each rule or learning rate; the best one framed."""
    columns = _columns(sweep)
    scores = np.full((len(sweep.selections), len(columns)), np.nan)
    for i, selection in enumerate(sweep.selections):
        for value, score in zip(selection.strengths, selection.means.tolist(), strict=True):
            scores[i, columns.index(value)] = score
    shown = np.where(np.isfinite(scores), scores, np.nan)
    cmap, norm = ("cividis", None) if sweep.goal.maximize else ("cividis_r", _norm(shown))
    image = ax.imshow(shown, aspect="auto", origin="lower", cmap=cmap, norm=norm)
    bar = ax.figure.colorbar(image, ax=ax, label=f"{sweep.goal.title}, mean over seeds")
    if norm is not None:
        _plain_ticks(bar.ax.yaxis, float(np.nanmin(shown)), float(np.nanmax(shown)))
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    ax.grid(visible=False)
    every = -(-len(columns) // 12)
    ticks = range(0, len(columns), every)
    ax.set_xticks(list(ticks), ["none" if columns[i] == 0 else f"{columns[i]:.2g}" for i in ticks])
    ax.set_yticks(range(len(scores)), _rows(sweep))
    ax.set(xlabel=title(sweep.unit), ylabel="learning rate" if _one_rule(sweep) else "")
    ax.spines[:].set_visible(False)
    for i, j in np.argwhere(np.isinf(scores)):
        ax.plot(j, i, marker="x", color=DIVERGED, ms=7, mew=1.6)
    if scores.size <= _MOST_CELLS:
        _write_cells(ax, shown, image)
    for i, selection in enumerate(sweep.selections):
        chosen = i == sweep.chosen
        x, y = columns.index(selection.best) - 0.5, i - 0.5
        frame = {
            "color": CHOSEN if chosen else INK,
            "lw": 2.5 if chosen else 1.0,
            "ls": "-" if chosen else "--",
            "clip_on": False,
        }
        ax.plot([x, x + 1, x + 1, x, x], [y, y, y + 1, y + 1, y], **frame)
    ax.set_title("framed: the best strength of each row (dashed) and of all", pad=8)


def _norm(shown: np.ndarray) -> LogNorm | None:
    """Colours by the logarithm, where scores span more than a factor of four."""
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    return LogNorm(low, high) if low > 0 and high > 4 * low else None


def _write_cells(ax: Axes, shown: np.ndarray, image: object) -> None:
    for i, j in np.argwhere(np.isfinite(shown)):
        red, green, blue, _ = image.cmap(image.norm(shown[i, j]))  # pyright: ignore[reportAttributeAccessIssue]
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        ax.text(
            j, i, f"{shown[i, j]:.3g}", ha="center", va="center", fontsize=7, color="white" if dark else INK
        )


def _columns(sweep: Sweep) -> list[float]:
    """All strengths that occur, in the order of ascending strength."""
    longest = {value for selection in sweep.selections for value in selection.strengths}
    order = sorted(longest - {0.0}, reverse=sweep.unit.startswith("half_life_"))
    return [0.0, *order] if 0.0 in longest else order


def _one_rule(sweep: Sweep) -> bool:
    return len({selection.rule for selection in sweep.selections}) == 1


def _rows(sweep: Sweep) -> list[str]:
    if _one_rule(sweep):
        return [f"{selection.lr:.3g}" for selection in sweep.selections]
    return [setting_name(selection) for selection in sweep.selections]


_FIRST_CURVES = 6  # drawn before anything is chosen
_MOST_CURVES_ON_PAGE = 40  # of each setting
_MOST_NUMBERS = 60_000  # of all curves; and of the points of all seeds
_MOST_COLUMNS = 24
_MOST_ROWS = 200


def page(sweep: Sweep) -> Page:
    """The page."""
    notes: list[Text] = []
    scores, learning = _scores(sweep, notes), _learning(sweep, notes)
    tables = [*_heat(sweep, notes), _table(sweep, notes)]
    doubts, goal = sweep.doubts, sweep.goal.title
    lines = sweep.notes[: len(sweep.notes) - len(doubts)]
    heading = Text(f"Sweep: {goal} against the strength", f"扫描：{goal.zh}与强度")
    return Page(heading, lines, doubts, tables, figures=[scores, *learning], notes=notes)


def _scores(sweep: Sweep, notes: list[Text]) -> Chart:
    """Means with error bars, and every seed."""
    selection = sweep.selection
    strengths = array(selection.strengths)
    order = np.argsort(strengths)  # half-lives are in the order of strength, which is the other way round
    kept = order[strengths[order] > 0]  # a log axis has no 0
    lines = []
    seeds = thinned(len(selection.seeds), max(1, _MOST_NUMBERS // len(kept)))
    for s in seeds if len(selection.seeds) > 1 else ():
        name = Text(f"seed {selection.seeds[s]}", f"种子 {selection.seeds[s]}")
        lines.append(Line(name, array(selection.scores[s])[kept], "soft", points=True))
    if len(seeds) < len(selection.seeds):
        notes.append(
            Text(
                f"Points of {len(seeds)} of {len(selection.seeds)} seeds are drawn; means are those of all.",
                f"图中只画出 {len(selection.seeds)} 个种子中 {len(seeds)} 个的点；平均是全部种子的。",
            )
        )
    errors = array(selection.errors)[kept] if len(selection.seeds) > 1 else None
    mean = (
        Text("mean ± standard error", "平均 ± 标准误")
        if len(selection.seeds) > 1
        else Text("one seed", "一个种子")
    )
    lines.append(Line(mean, array(selection.means)[kept], 0, band=errors, bars=True))
    for value, name, colour in (
        (selection.one_se, Text("one standard error", "一倍标准误"), "test"),
        (selection.best, Text("best", "最好"), "ink"),
    ):
        mark = np.where(strengths[kept] == value, array(selection.means)[kept], np.nan)
        if value > 0 and (len(selection.seeds) > 1 or colour == "ink"):
            lines.append(Line(name, mark, colour, points=True))
    if 0.0 in selection.strengths:
        none = selection.mean(0.0)
        lines.append(Line(Text("no decay", "无衰减"), np.full(len(kept), none), "ink", dashed=True))
    scores = array(selection.scores)
    log = _spread(scores) and not sweep.goal.maximize
    name = setting_name(selection)
    caption = Text(f"Score against strength: {name}", f"得分与强度：{name}")
    labels = title(sweep.unit), sweep.goal.title
    return Chart(caption, strengths[kept], lines, *labels, True, log, top=_top(sweep, kept))


def _top(sweep: Sweep, kept: np.ndarray) -> Top | None:
    """The half-lives that λ comes to; the λ that half-lives come to."""
    selection = sweep.selection
    if sweep.unit == "weight_decay":
        label, values = (
            Text("half-life in epochs, at the largest lr", "半衰期（轮，按最大学习率）"),
            sweep.half_lives(),
        )
    else:
        label, values = STRENGTH, selection.weight_decays
    plain = np.array([np.nan if value is None else value for value in values], dtype=np.float64)[kept]
    return Top(label, plain) if np.isfinite(plain).any() else None


def _spread(values: np.ndarray) -> bool:
    """Whether a log axis shows them better."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) and finite.min() > 0 and finite.max() > 4 * finite.min())


def _learning(sweep: Sweep, notes: list[Text]) -> list[Chart]:
    """Means over seeds at every look: of all settings, strengths and measures, to choose from."""
    curves = sweep.curves()
    measures = [name for name in curves.columns if name.startswith(("test_", "train_"))]
    measures.sort(key=lambda name: name != f"test_{sweep.goal.name}")  # what is chosen by comes first
    means = curves.group_by("rule", "lr", "strength", "epoch").agg(pl.col(measures).mean()).sort("epoch")
    epochs = means["epoch"].unique().sort()
    if len(epochs) < 2:
        return []
    settings = sorted(sweep.selections, key=lambda selection: selection is not sweep.selection)
    strengths = min(_MOST_CURVES_ON_PAGE, max(len(selection.strengths) for selection in settings))
    looks = thinned(len(epochs), max(2, _MOST_NUMBERS // (len(settings) * len(measures) * strengths)))
    kept = epochs.gather(looks)
    if len(kept) < len(epochs):
        notes.append(
            Text(
                f"Learning curves have {len(kept)} of {len(epochs)} looks.",
                f"学习曲线只有 {len(epochs)} 次评估中的 {len(kept)} 次。",
            )
        )
    if any(len(selection.strengths) > _MOST_CURVES_ON_PAGE for selection in settings):
        notes.append(
            Text(
                f"Learning curves of at most {_MOST_CURVES_ON_PAGE} strengths of a setting can be chosen.",
                f"每种设置最多可选 {_MOST_CURVES_ON_PAGE} 个强度的学习曲线。",
            )
        )
    lines: list[Line] = []
    groups: list[LineGroup] = []
    for selection in settings:
        table = means.filter(pl.col("rule") == selection.rule)
        if selection.lr is not None:
            table = table.filter(pl.col("lr") == selection.lr)
        for name in measures:
            drawn = _curves(selection, table, name, kept, len(groups))
            label = _measure(name, selection, len(settings) > 1)
            groups.append(LineGroup(label, _spread(np.stack([line.y for line in drawn]))))
            lines += drawn
    caption = Text("Learning curves, means over seeds", "学习曲线，各种子的平均")
    labels = Text("epoch", "轮"), groups[0].label
    return [Chart(caption, kept.to_numpy(), lines, *labels, groups=groups, choose=True)]


def _curves(
    selection: Selection, table: pl.DataFrame, measure: str, epochs: pl.Series, group: int
) -> list[Line]:
    """One measure of a setting: a line each strength; few of them are drawn at first."""
    places = sorted(
        {*thinned(len(selection.strengths), _MOST_CURVES_ON_PAGE), selection.place(selection.best)}
    )
    first = {places[i] for i in thinned(len(places), _FIRST_CURVES)} | {selection.place(selection.best)}
    lines = []
    for i in places:
        strength = selection.strengths[i]
        rows = pl.DataFrame({"epoch": epochs}).join(
            table.filter(pl.col("strength") == strength).select("epoch", measure), on="epoch", how="left"
        )
        y = rows.sort("epoch")[measure].fill_null(float("nan")).to_numpy()
        best = strength == selection.best
        value = number(strength)
        name = (
            Text(f"{value}, best", f"{value}，最好")
            if best
            else Text("no decay", "无衰减")
            if strength == 0
            else value
        )
        lines.append(Line(name, y, len(lines), dashed=not best, group=group, shown=i in first))
    return lines


def _measure(name: str, selection: Selection, several: bool) -> Text:
    """What a measure is called."""
    words = {"test_loss": Text("test loss", "测试损失"), "train_loss": Text("train loss", "训练损失")}
    measure = words.get(name, Text(name.replace("_", " ", 1), f"测试 {name.removeprefix('test_')}"))
    setting = setting_name(selection)
    return Text(f"{measure}, {setting}", f"{measure.zh}，{setting}") if several else measure


def _heat(sweep: Sweep, notes: list[Text]) -> list[PageTable]:
    """Where there is a second axis: mean scores, a row each setting, a column each strength."""
    if len(sweep.selections) == 1:
        return []
    every = sorted({value for selection in sweep.selections for value in selection.strengths if value > 0})
    if sweep.unit.startswith("half_life_"):
        every.reverse()  # to the right decay grows stronger
    wanted = {selection.best for selection in sweep.selections}
    columns = [
        value for i, value in enumerate(every) if i in thinned(len(every), _MOST_COLUMNS) or value in wanted
    ]
    if len(columns) < len(every):
        notes.append(
            Text(
                f"The grid has {len(columns)} of {len(every)} strengths.",
                f"网格只列出 {len(every)} 个强度中的 {len(columns)} 个。",
            )
        )
    columns = [0.0, *columns]
    scores = np.full((len(sweep.selections), len(columns)), np.nan)
    for i, selection in enumerate(sweep.selections):
        for value, score in zip(selection.strengths, array(selection.means), strict=True):
            if value in columns:
                scores[i, columns.index(value)] = score
    shades = _shades(scores, sweep.goal.maximize)
    rows = [
        [setting_name(selection), *(number(float(score)) for score in row)]
        for selection, row in zip(sweep.selections, scores, strict=True)
    ]
    head = [Text("setting", "设置"), Text("no decay", "无衰减"), *(number(value) for value in columns[1:])]
    goal, unit = sweep.goal.title, title(sweep.unit)
    caption = Text(
        f"Mean {goal}: a column each {unit}; the darker, the better",
        f"{goal.zh}的平均：每列一个 {unit.zh}；颜色越深越好",
    )
    return [PageTable(caption, head, rows, [[None, *row] for row in shades])]


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


def _table(sweep: Sweep, notes: list[Text]) -> PageTable:
    """All settings and strengths: the darker, the better."""
    heat = sweep.heat()
    if heat.height > _MOST_ROWS:
        notes.append(
            Text(
                f"The table has the best {_MOST_ROWS} of {heat.height} rows.",
                f"表中只列出 {heat.height} 行中最好的 {_MOST_ROWS} 行。",
            )
        )
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
    head = [Text("rule", "规则"), "lr", title(sweep.unit), "weight_decay", sweep.goal.title]
    shades = [row[0] for row in _shades(heat["score"].to_numpy()[:, None], sweep.goal.maximize)]
    caption = Text("All settings; the darker, the better", "全部设置；颜色越深越好")
    return PageTable(caption, [*head, Text("diverged seeds", "发散的种子")], rows, shades)


_MOST_CURVES_IN_TERMINAL = 4


class SweepBar:
    """A bar under the latest curves: trainings done, rate, time left, and the best strength so far.

    Args:
        console: where to.
        unit: of the strengths.
        curves: whether to draw the curves of the trainings that finished last.
    """

    def __init__(self, console: Console, unit: str, curves: bool) -> None:
        self._console, self._unit = console, unit
        self._seen: deque[Trained] = deque(maxlen=_MOST_CURVES_IN_TERMINAL if curves else 0)
        self._first: Progress | None = None
        self._last: Progress | None = None
        self._since = time.monotonic()
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._render)

    def __enter__(self) -> "SweepBar":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Take how far it is."""
        if self._first is None:
            self._first, self._since = progress, time.monotonic()
        self._last = progress
        if progress.looks is not None and progress.looks.looks:
            self._seen.append(progress.looks)

    def _render(self) -> Any:
        if self._last is None:
            return Styled(local(Text("looking at the model", "正在检查模型")))
        bar = ProgressBar(total=1.0, completed=self._last.share, width=max(10, self._console.width // 4))
        row = Table.grid(padding=(0, 1))
        row.add_row(bar, Styled(self._words(self._last)))
        if not self._seen:
            return row
        width = max(24, self._console.width // 2 - 1)
        return Group(
            Columns([_panel(trained, width, self._console) for trained in self._seen], padding=0), row
        )

    def _words(self, last: Progress) -> str:
        assert self._first is not None
        done, total, running = (f"{number:,}" for number in (last.done, last.total, last.running))
        words: list[str] = [Text(f"{done} of {total} trainings", f"已完成 {done} / {total} 次训练")]
        if last.running:
            epoch, epochs = f"{last.epoch:,}", f"{last.epochs:,}"
            words.append(
                Text(f"{running} at epoch {epoch} of {epochs}", f"{running} 次在第 {epoch} / {epochs} 轮")
            )
        seconds = last.seconds - self._first.seconds
        gained = last.share * last.total - self._first.share * self._first.total
        if gained > 0 and seconds > 0:
            rate = gained / seconds
            waited = time.monotonic() - self._since - seconds  # since the last report
            left = max(0.0, (1 - last.share) * last.total / rate - max(0.0, waited))
            clock = _clock(left)
            words += [f"{rate:.3g}/s", Text(f"{clock} left", f"剩余 {clock}")]
        if last.best is not None:
            at, score = strength(last.best[0], self._unit), f"{last.best[1]:.4g}"
            words.append(Text(f"best so far {at}: {score}", f"目前最好 {at.zh}：{score}"))
        return local_list(words)


def _clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes.

    >>> _clock(75.4), _clock(7300)
    ('1:15', '2 h 01')
    """
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02}"


@dataclass(frozen=True)
class _Point:
    epoch: int
    train_loss: float
    test_loss: float
    epochs: int


def _panel(trained: Trained, width: int, console: Console) -> Panel:
    points = [
        _Point(look.epoch, look.train_loss, look.test_loss, trained.looks[-1].epoch) for look in trained.looks
    ]
    values = [value for point in points for value in (point.train_loss, point.test_loss)]
    epoch, seed = points[-1].epoch, trained.copy.seed
    below = legend(console, local(Text(f", epoch {epoch}", f"，第 {epoch} 轮")))
    at = strength(trained.copy.strength, trained.copy.unit)
    name = local(Text(f"{at}, seed {seed}", f"{at.zh}，种子 {seed}"))
    curves = chart(points, values, width - 4, 8, without_colour(console))
    return Panel(curves, title=name, subtitle=below, width=width)


_BEST, _NO_DECAY = Text("best", "最好"), Text("no decay", "无衰减")


def print_sweep(sweep: Sweep, console: Console) -> None:
    """Print the table of strengths; where there is a second axis, the best of each setting before it."""
    if len(sweep.selections) > 1:
        caption = Text("the best strength of each setting", "每种设置的最佳强度")
        _print(console, _settings_rows(sweep), caption, left=1)
    seeds, setting, goal = len(sweep.seeds), setting_name(sweep.selection), sweep.goal.title
    over = Text("one seed", "一个种子")
    if seeds > 1:
        over = Text(f"mean ± standard error over {seeds} seeds", f"{seeds} 个种子的平均 ± 标准误")
    caption = Text(f"{setting}, {goal}: {over}", f"{setting}，{goal.zh}：{over.zh}")
    _print(console, _table_rows(sweep), caption, left=0)


def _table_rows(sweep: Sweep) -> list[list[str]]:
    """A head, and a row for each strength."""
    selection, summary = sweep.selection, sweep.summary()
    several, as_number = len(sweep.seeds) > 1, sweep.unit == "weight_decay"
    worse_by = Text("worse than the best by", "比最好的差")
    head = [title(sweep.unit), *([] if as_number else ["λ"]), sweep.goal.title, worse_by, ""]
    rows = [head]
    for row in summary.iter_rows(named=True):
        worse = f"{row['difference']:.3g}" + (f" ± {row['difference_error']:.2g}" if several else "")
        lam = "–" if row["weight_decay"] is None else f"{row['weight_decay']:.3g}"
        score = f"{row['score']:.4g}" + (f" ± {row['error']:.2g}" if several else "")
        diverged = row["diverged"]
        marks: list[str] = [_BEST] if row["strength"] == selection.best else []
        if several and row["strength"] == selection.one_se != selection.best:
            marks.append(Text("one standard error", "一倍标准误"))
        if diverged:
            marks.append(Text(f"{diverged} diverged", f"{diverged} 次发散"))
        rows.append(
            [
                _NO_DECAY if row["strength"] == 0 else f"{row['strength']:.3g}",
                *([] if as_number else [lam]),
                "–" if diverged else score,
                "–" if diverged or row["strength"] == selection.best else worse,
                local_list(marks),
            ]
        )
    return rows


def _settings_rows(sweep: Sweep) -> list[list[str]]:
    """A head, and a row for each rule and learning rate."""
    unit = title(sweep.unit)
    best_of = Text(f"best {unit}", f"最好的 {unit.zh}")
    rows: list[list[str]] = [[Text("setting", "设置"), best_of, sweep.goal.title, _NO_DECAY, ""]]
    for place, selection in enumerate(sweep.selections):
        none = selection.mean(0.0) if selection.strengths[0] == 0 else math.nan
        best = _NO_DECAY if selection.best == 0 else f"{selection.best:.3g}"
        shown = f"{none:.4g}" if math.isfinite(none) else "–"
        row = [setting_name(selection), best, f"{selection.mean(selection.best):.4g}", shown]
        rows.append([*row, _BEST if place == sweep.chosen else ""])
    return rows


def _print(console: Console, rows: list[list[str]], caption: str, left: int) -> None:
    """A table, aligned by spaces: the first `left` columns and the last to the left, numbers to the right."""
    rows = [[local(cell) for cell in row] for row in rows]
    widths = [max(columns_of(row[i]) for row in rows) for i in range(len(rows[0]))]
    console.print(local(caption), markup=False, highlight=False, soft_wrap=True)
    for row in rows:
        cells = [
            padded(cell, width, right=left <= i < len(row) - 1)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        console.print("  ".join(cells).rstrip(), markup=False, highlight=False, soft_wrap=True)
