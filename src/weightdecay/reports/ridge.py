"""A ridge path: its figures (curve, coefficients, importance, predictions beside measurements) and page."""

import math
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from weightdecay.errors import InputError
from weightdecay.logistic.record import WORDS, LogisticPath
from weightdecay.reports.page import STRENGTH, Chart, Line, Page, PageTable, Top, array, number, thinned
from weightdecay.reports.style import CYCLE, GREY, INK, SCORE
from weightdecay.ridge.record import RidgePath, facts
from weightdecay.ridge.table_fit import (
    CoefficientPath,
    HeldOut,
    Importance,
    coefficient_path,
    importance,
    off_by,
    target_list,
    target_names,
)
from weightdecay.text import Text

_MOST_TARGETS = len(CYCLE)  # more are drawn in grey, without bands
_MOST_PANELS = 6
_LABELLED = 8
_MOST_LABELS = 7  # along an axis
_LONGEST = 28  # letters of a column's name
_CRITERIA = {"loo": "leave-one-out", "gcv": "generalised cross-validation", "evidence": "evidence"}
_SCORES = {
    "gcv": Text("generalised cross-validation score", "广义交叉验证得分"),
    "evidence": Text("−2 log evidence", "−2 log 证据"),
}


def figure_size(result: RidgePath | CoefficientPath | Importance | HeldOut) -> tuple[float, float]:
    """Width and height in inches."""
    if isinstance(result, RidgePath):
        return 6.4, 4.6
    rows, columns = _shape(len(result.targets))
    wide, high = (4.6, 4.4) if isinstance(result, HeldOut) else (6.4, 4.4)
    if isinstance(result, Importance):
        high = 1.2 + 0.32 * result.coef.shape[1]
    across, down = (1.0, 1.0) if columns == 1 else (0.75, 0.85)
    return wide * across * columns, high * down * rows


def figure_axes(
    result: RidgePath | CoefficientPath | Importance | HeldOut, figure: Figure
) -> np.ndarray | Axes:
    """One Axes; for the coefficients or predictions of several targets a panel for each, an array of them."""
    if isinstance(result, RidgePath) or len(result.targets) == 1:
        return figure.subplots()
    count = min(len(result.targets), _MOST_PANELS)
    axes = figure.subplots(*_shape(len(result.targets)), squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return axes[:count]


def draw(result: RidgePath | CoefficientPath | Importance | HeldOut, ax: np.ndarray | Axes) -> None:
    """Draw into the Axes, or into an array of Axes, a target each."""
    if isinstance(result, RidgePath):
        assert isinstance(ax, Axes)
        draw_curve(result, ax)
        return
    panels = {CoefficientPath: _draw_coefficients, Importance: _draw_importance, HeldOut: _draw_held_out}
    panel = panels[type(result)]
    for target, one in enumerate([ax] if isinstance(ax, Axes) else ax):
        panel(result, target, one)  # pyright: ignore[reportArgumentType]


def _shape(targets: int) -> tuple[int, int]:
    count = min(targets, _MOST_PANELS)
    columns = count if count <= 3 else -(-count // 2)
    return -(-count // columns), columns


def draw_curve(path: RidgePath | LogisticPath, ax: Axes) -> None:
    """Draw scores over λ with a band of one standard error, and both choices."""
    lambdas, scores, errors = (array(values) for values in (path.lambdas, path.scores, path.errors))
    scores, errors = scores.reshape(len(lambdas), -1), errors.reshape(len(lambdas), -1)
    best, one_se = (np.broadcast_to(array(lam), scores.shape[1:]) for lam in (path.best, path.one_se))
    _lambda_axis(ax, lambdas, path.unit)
    _score_axis(ax, scores)
    many = scores.shape[1] > _MOST_TARGETS
    names = target_names(path) if isinstance(path, RidgePath) else ("",)
    colours = cycle([GREY] if many else CYCLE)
    for t, colour in zip(range(scores.shape[1]), colours, strict=False):
        name = names[t] if scores.shape[1] > 1 and not many else None
        _draw_scores(ax, lambdas, scores[:, t], errors[:, t], colour, name, band=not many)
        _mark(ax, lambdas, scores[:, t], best[t], colour, "o")
        _mark(ax, lambdas, scores[:, t], one_se[t], colour, "D")
    _label_choices(ax, best, one_se, shared=isinstance(path.best, float))
    ax.set_ylabel(str(_score_of(path)))
    if path.flat:
        ax.axvspan(
            *path.flat_range, color=GREY, alpha=0.15, lw=0, label="within one standard error of the least"
        )
    if np.isfinite(array(path.dof)).any():
        _dof_axis(ax, lambdas, array(path.dof))
    ax.set_title(_title(path), pad=8)
    _legend_below(ax, 2)


def _draw_scores(
    ax: Axes,
    lambdas: np.ndarray,
    scores: np.ndarray,
    errors: np.ndarray,
    colour: str,
    name: str | None,
    band: bool,
) -> None:
    marker = "." if len(lambdas) <= 20 else None  # a line of one or two points is little
    ax.plot(lambdas, scores, color=colour, marker=marker, lw=1.4 if band else 0.6, label=name)
    if not band:
        return
    if len(lambdas) == 1:
        ax.errorbar(lambdas, scores, yerr=errors, color=colour, capsize=4, lw=1)
    else:
        ax.fill_between(lambdas, scores - errors, scores + errors, color=colour, alpha=0.2, lw=0)


def _mark(ax: Axes, lambdas: np.ndarray, scores: np.ndarray, lam: float, colour: str, marker: str) -> None:
    """A choice on its curve: full for the least, open for one standard error."""
    place = int(np.abs(lambdas - lam).argmin())
    face, size, order = (colour, 4, 6) if marker == "o" else ("white", 8, 5)  # both are seen where they meet
    ax.plot(
        lambdas[place], scores[place], marker=marker, ms=size, mfc=face, mec=colour, ls="none", zorder=order
    )


def _label_choices(ax: Axes, best: np.ndarray, one_se: np.ndarray, shared: bool) -> None:
    """Lines through both choices where they are one for all; a key for the marks."""
    for lam, marker, what, line in ((best, "o", "least", "-"), (one_se, "D", "one standard error", ":")):
        face = INK if marker == "o" else "white"
        if shared:
            ax.axvline(float(lam[0]), color=INK, lw=0.8, ls=line, zorder=1)
        label = f"{what}: λ = {float(lam[0]):.3g}" if shared else f"{what}, λ for each target"
        ax.plot(
            [],
            [],
            color=INK,
            marker=marker,
            mfc=face,
            ms=5,
            lw=0.8,
            ls=line if shared else "none",
            label=label,
        )


def _score_of(path: RidgePath | LogisticPath) -> Text:
    """What is on the axis of scores."""
    if isinstance(path, RidgePath):
        held_out = Text("mean squared error of rows held out", "留出行的均方误差")
        return _SCORES.get(path.cv, held_out)
    judge = WORDS[path.judge]
    if path.judge == "evidence":
        return judge
    return Text(f"{judge} of rows held out", f"留出行的{judge.zh}")


def _title(path: RidgePath | LogisticPath) -> str:
    if isinstance(path, RidgePath):
        named = f"{target_list(path)}: " if path.targets else ""
    else:
        named = f"{path.target}: " if path.target else ""
    what = f"{named}{path.n:,} rows, {path.p:,} columns; {_CRITERIA.get(path.cv, path.cv)}"
    if path.edge is not None:
        what += f"\nthe least is at the edge: λ → {'0' if path.edge == 'low' else '∞'}"
    if path.flat:
        what += "\nflat: no λ of the grid can be told from the best"
    return what


def _lambda_axis(ax: Axes, lambdas: np.ndarray, unit: str) -> None:
    positive = lambdas[lambdas > 0]
    if len(positive) == len(lambdas):
        ax.set_xscale("log")
        if len(lambdas) == 1:
            ax.set_xlim(lambdas[0] / 10, lambdas[0] * 10)
    elif len(positive) and positive.max() >= 10 * positive.min():
        ax.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.5)
        _label_from_zero(ax, float(positive.min()), float(positive.max()))
    ax.set_xlabel("λ" if unit == "canonical" else f"λ, as {unit}")


def _label_from_zero(ax: Axes, low: float, high: float) -> None:
    """Label 0 and powers of ten, so many that they do not run into one another, nor into the 0."""
    decades = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    step = -(-len(decades) // _MOST_LABELS) if decades else 1
    room = (math.log10(high / low) + 1) / 12  # a label's width, in decades
    powers = [k for k in decades[::-1][::step] if k - math.log10(low) > room - 0.5]
    ax.xaxis.set_major_locator(FixedLocator([0.0, *(10.0**k for k in powers)]))
    ax.xaxis.set_major_formatter(FixedFormatter(["0", *(f"$10^{{{k}}}$" for k in powers)]))
    ax.xaxis.set_minor_locator(NullLocator())


def _score_axis(ax: Axes, scores: np.ndarray) -> None:
    low, high = float(scores.min()), float(scores.max())
    if low > 0 and high > 4 * low:
        ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)  # the band may reach below 0


def _dof_axis(ax: Axes, lambdas: np.ndarray, dof: np.ndarray) -> None:
    """Degrees of freedom at a few λ, on top."""
    at = ax.xaxis.get_transform().transform(lambdas)
    wanted = np.linspace(at[0], at[-1], min(_MOST_LABELS, len(lambdas)))
    places = np.unique([np.abs(at - one).argmin() for one in wanted])
    top = ax.secondary_xaxis("top")
    if ax.get_xscale() == "symlog":  # of this scale matplotlib's second axis does not know by itself
        top.set_xscale("symlog", linthresh=float(lambdas[lambdas > 0].min()), linscale=0.5)
    top.xaxis.set_major_locator(FixedLocator(lambdas[places].tolist()))
    top.xaxis.set_major_formatter(FixedFormatter([_short(float(dof[place])) for place in places]))
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xlabel("degrees of freedom", fontsize=8)
    top.tick_params(labelsize=8)


def _draw_coefficients(view: CoefficientPath, target: int, ax: Axes) -> None:
    lambdas, coef = array(view.lambdas), array(view.coef)[:, :, target]
    order = np.argsort(-np.abs(coef[np.abs(lambdas - float(view.best[target])).argmin()]))
    _lambda_axis(ax, lambdas, view.unit)
    shown = [_short_name(name) for name in view.names]
    named = order[: min(_LABELLED, len(CYCLE) - 1)]  # black is for the lines of λ
    marker = "." if len(lambdas) <= 20 else None
    for column in order[len(named) :]:
        ax.plot(lambdas, coef[:, column], color=GREY, lw=0.5, alpha=0.5, marker=marker, ms=2)
    for column, colour in zip(named, CYCLE, strict=False):
        ax.plot(lambdas, coef[:, column], color=colour, lw=1.3, marker=marker, label=shown[column])
    best, one_se = float(view.best[target]), float(view.one_se[target])
    ax.axvline(best, color=INK, lw=0.8, label=f"least: λ = {best:.3g}")
    ax.axvline(one_se, color=INK, lw=0.8, ls=":", label=f"one standard error: λ = {one_se:.3g}")
    ax.set_ylabel("coefficient × sd of the column")
    rest = f"; the {len(view.names):,} largest of {view.p:,} are drawn" if view.p > len(view.names) else ""
    ax.set_title(f"{_panel(view, target)}coefficients{rest}")
    _legend_below(ax, 3 if len(view.targets) == 1 else 2)


def _short_name(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _panel(view: CoefficientPath | Importance, target: int) -> str:
    """The panel's name before what it shows: on a line of its own where there are several."""
    name = view.targets[target]
    return f"{name}: " if len(view.targets) == 1 else f"{_short_name(name)}\n"


def _draw_importance(view: Importance, target: int, ax: Axes) -> None:
    """Coefficients as points with their intervals, the largest on top."""
    coef, half, names = array(view.coef)[target], array(view.half)[target], view.names[target]
    places = np.arange(len(coef))
    ax.axvline(0, color=INK, lw=0.8)
    ax.errorbar(coef, places, xerr=np.nan_to_num(half), fmt="o", color=SCORE, ms=5, capsize=3, lw=1.2)
    ax.set_yticks(places, [_short_name(name) for name in names])
    ax.set_ylim(len(coef) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(str(view.effect))
    rest = f", the {len(coef)} largest of {view.p:,}" if view.p > len(coef) else ""
    interval = f"; {100 * view.level:g} % intervals" if np.isfinite(half).any() else ""
    ax.set_title(f"{_panel(view, target)}coefficients{rest}{interval}")


def _draw_held_out(view: HeldOut, target: int, ax: Axes) -> None:
    measured, predicted = array(view.measured)[:, target], array(view.predicted)[:, target]
    many = len(measured) > 2000
    ax.plot(
        *(measured, predicted, "."),
        color=SCORE,
        ms=2 if many else 5,
        alpha=0.3 if many else 0.7,
        mec="none",
        rasterized=many,
    )
    low, high = float(np.nanmin([measured, predicted])), float(np.nanmax([measured, predicted]))
    ax.plot([low, high], [low, high], color=INK, lw=0.8)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel="measured", ylabel="predicted while held out")
    fit = f"R² = {float(view.r2[target]):.3g}, RMSE = {float(view.rmse[target]):.3g}"
    ax.set_title(f"{view.targets[target]}: {fit}\n{_CRITERIA.get(view.how, view.how)}")


def _legend_below(ax: Axes, columns: int) -> None:
    """Under the axis' label, whatever the height of the Axes: the distance is in units of the font."""
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4.5, ncols=columns)


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.2g}"


MOST_COLUMNS = 30
MOST_TARGETS_ON_PAGE = 6
_MOST_ROWS = 2000


def page(path: RidgePath, seen: HeldOut | None = None) -> Page:
    """The page; with predictions of rows that the fit had not seen, these beside what was measured."""
    log = bool((array(path.lambdas) > 0).any())
    unit = strength_label(path)
    dof = dof_chart(path, log, unit)
    held = [] if seen is None else _held_out(seen)
    view = coefficient_path(path, most=MOST_COLUMNS)
    figures = [curve_chart(path, log, unit), *coefficient_charts(view, log, unit), *held, dof]
    lines = [*about(path), *facts(path)]
    if seen is not None:
        lines.append(Text(f"held out: {off_by(seen)}", f"留出的行：{off_by(seen).zh}"))
    tables = [*_importance(path), *([] if seen is None else _worst(seen))]
    title = Text("Ridge path", "岭回归路径")
    if named := target_list(path):
        title = Text(f"Ridge path of {named}", f"{named} 的岭回归路径")
    title = Text(f"{title}: {path.n:,} rows, {path.p:,} columns", f"{title.zh}：{path.n:,} 行，{path.p:,} 列")
    return Page(title, lines, path.doubts, tables, figures=figures, notes=_notes(path, seen))


def strength_label(path: RidgePath | LogisticPath) -> Text:
    """Of the axis of λ."""
    return STRENGTH if path.unit == "canonical" else Text(f"λ, {path.unit}", f"λ，{path.unit}")


def dof_chart(path: RidgePath | LogisticPath, log: bool, unit: Text) -> Chart:
    """Degrees of freedom over λ."""
    name = Text("degrees of freedom", "自由度")
    caption = Text("Effective degrees of freedom", "有效自由度")
    return Chart(caption, array(path.lambdas), [Line(name, array(path.dof))], unit, name, log)


def _importance(path: RidgePath) -> list[PageTable]:
    """The columns that matter most; none where a loaded path does not know."""
    chosen = path.settings.get("request", {}).get("choose", "best")
    try:
        view = importance(path, path.one_se if chosen == "one-se" else path.best)
    except InputError:
        return []
    return importance_tables(view)


def importance_tables(view: Importance) -> list[PageTable]:
    """The columns that matter most, a table for each target, or logit."""
    level = f"{100 * view.level:g} %"
    head = [
        Text("column", "列"),
        Text("change by one sd", "变化一个标准差时"),
        Text(f"{level} interval", f"{level} 区间"),
    ]
    tables = []
    for t, target in enumerate(view.targets[:MOST_TARGETS_ON_PAGE]):
        coef = array(view.coef)[t]
        cells = [
            (name, number(value), view.ends(t, m) or number(None))
            for m, (name, value) in enumerate(zip(view.names[t], coef.tolist(), strict=True))
        ]
        largest = float(np.abs(coef).max()) or 1.0
        shades = [[None, abs(float(value)) / largest, None] for value in coef]
        of = "" if len(view.targets) == 1 else f": {target}"
        rest = f" ({len(coef)} / {view.p:,})" if view.p > len(coef) else ""
        caption = Text(f"Which columns matter most{rest}{of}", f"最重要的列{rest}{of}")
        tables.append(PageTable(caption, head, cells, shades))
    return tables


def _worst(seen: HeldOut) -> list[PageTable]:
    """The rows of largest error."""
    if seen.worst.is_empty():
        return []
    names = {
        "row": Text("row", "行"),
        "target": Text("target", "目标"),
        "measured": Text("measured", "测量值"),
        "prediction": Text("predicted", "预测值"),
    }
    shown = [name for name in seen.worst.columns if name != "target" or len(seen.targets) > 1]
    cells = [
        [
            number(value) if name in ("measured", "prediction") else str(value)
            for name, value in zip(shown, row, strict=True)
        ]
        for row in seen.worst.select(shown).iter_rows()
    ]
    caption = Text("Where it is wrong most, held out", "留出时误差最大的行")
    return [PageTable(caption, [names.get(name, name) for name in shown], cells)]


def about(path: RidgePath | LogisticPath) -> list[Text]:
    """What `weightdecay fit` was asked for: the table, the targets, and the λ of the model it wrote."""
    request = path.settings.get("request")
    if request is None:
        return []
    targets, file = ", ".join(request["target"]), Path(request["data"]).name
    one_se = request["choose"] == "one-se"
    lams = array(path.one_se if one_se else path.best).reshape(-1)
    lam = " / ".join(number(value) for value in lams[:MOST_TARGETS_ON_PAGE]) + (
        " / …" if len(lams) > 6 else ""
    )
    why = (
        Text(
            "the strongest within one standard error of the least score (--choose one-se)",
            "得分在最小值一倍标准误之内的最强者（--choose one-se）",
        )
        if one_se
        else Text("of the least score (--choose best)", "得分最小者（--choose best）")
    )
    return [
        Text(f"target: {targets}; table: {file}", f"目标：{targets}；表格：{file}"),
        Text(f"the model of this fit has λ = {lam}, {why}", f"本次拟合的模型取 λ = {lam}，{why.zh}"),
    ]


def columns_drawn(path: RidgePath | LogisticPath) -> list[Text]:
    """Say that not all columns are drawn; nothing where they are."""
    if path.p <= MOST_COLUMNS:
        return []
    return [
        Text(
            f"Coefficients of the {MOST_COLUMNS} largest of {path.p} columns are drawn.",
            f"图中只画出 {path.p} 列中系数最大的 {MOST_COLUMNS} 列。",
        )
    ]


def _notes(path: RidgePath, seen: HeldOut | None) -> list[Text]:
    """What was left out."""
    notes = columns_drawn(path)
    if (count := len(target_names(path))) > MOST_TARGETS_ON_PAGE:
        notes.append(
            Text(
                f"{MOST_TARGETS_ON_PAGE} of {count} targets are drawn.",
                f"图中只画出 {count} 个目标中的 {MOST_TARGETS_ON_PAGE} 个。",
            )
        )
    if seen is not None and path.n > _MOST_ROWS:
        notes.append(
            Text(
                f"Predictions of {_MOST_ROWS:,} of {path.n:,} rows are drawn.",
                f"图中只画出 {path.n:,} 行中 {_MOST_ROWS:,} 行的预测。",
            )
        )
    return notes


def curve_chart(path: RidgePath | LogisticPath, log: bool, unit: Text) -> Chart:
    """Scores with their standard errors, and both choices; the degrees of freedom along the top."""
    lambdas, scores, errors = (array(one) for one in (path.lambdas, path.scores, path.errors))
    scores, errors = scores.reshape(len(lambdas), -1), errors.reshape(len(lambdas), -1)
    names = target_names(path)[:MOST_TARGETS_ON_PAGE] if isinstance(path, RidgePath) else ("",)
    best, one_se = (np.broadcast_to(array(one), scores.shape[1:]) for one in (path.best, path.one_se))
    curves = []
    for t, name in enumerate(names):
        label = Text("score ± one standard error", "得分 ± 一倍标准误") if len(names) == 1 else name
        curves.append(Line(label, scores[:, t], t, band=errors[:, t]))
    for what, lam, colour in (
        (Text("least", "最小"), best, "ink"),
        (Text("one standard error", "一倍标准误"), one_se, "test"),
    ):
        marks = np.full((len(names), len(lambdas)), np.nan)
        for t in range(len(names)):
            place = np.abs(lambdas - lam[t]).argmin()
            marks[t, place] = scores[place, t]
        curves += [Line(what, one, colour, points=True) for one in marks]
    shown = scores[:, : len(names)]
    wide = bool(shown.min() > 0 and shown.max() > 4 * shown.min())
    caption = Text("Score against λ", "得分与 λ")
    label = _score_of(path)
    if isinstance(path, RidgePath) and path.cv not in _SCORES:
        label = Text("squared error, held out", "留出行的平方误差")
    dof = array(path.dof)
    top = Top(Text("degrees of freedom", "自由度"), dof) if np.isfinite(dof).any() else None
    return Chart(caption, lambdas, curves, unit, label, log, wide, top=top)


def coefficient_charts(view: CoefficientPath, log: bool, unit: Text) -> list[Chart]:
    """A figure for each target, or logit."""
    charts = []
    for t, target in enumerate(view.targets[:MOST_TARGETS_ON_PAGE]):
        lines = [Line(name, array(view.coef[:, m, t]), m) for m, name in enumerate(view.names)]
        of = "" if len(view.targets) == 1 else f": {target}"
        caption = Text(f"Coefficients times the columns' sd{of}", f"系数乘以各列标准差{of}")
        charts.append(
            Chart(
                caption, array(view.lambdas), lines, unit, Text("change by one sd", "一个标准差的变化"), log
            )
        )
    return charts


def _held_out(seen: HeldOut) -> list[Chart]:
    """Predictions beside measurements, and what is left, for each target."""
    charts = []
    row, line = Text("row, held out", "留出的行"), Text("as measured", "与测量相等")
    for t, target in enumerate(seen.targets[:MOST_TARGETS_ON_PAGE]):
        measured, predicted = (array(one[:, t]) for one in (seen.measured, seen.predicted))
        known = np.flatnonzero(np.isfinite(predicted))
        kept = known[thinned(len(known), _MOST_ROWS)]
        of = "" if len(seen.targets) == 1 else f": {target}"
        up = kept[np.argsort(measured[kept], kind="stable")]
        points = Line(row, predicted[up], "train", points=True)
        same = Line(line, measured[up], "ink", dashed=True)
        labels = Text("measured", "测量值"), Text("predicted", "预测值")
        caption = Text(f"Predicted against measured{of}", f"预测与测量{of}")
        charts.append(Chart(caption, measured[up], [points, same], *labels))
        right = kept[np.argsort(predicted[kept], kind="stable")]
        left = Line(row, (measured - predicted)[right], "train", points=True)
        none = Line(line, np.zeros(len(right)), "ink", dashed=True)
        labels = Text("predicted", "预测值"), Text("measured − predicted", "测量值 − 预测值")
        caption = Text(f"Residuals of rows held out{of}", f"留出行的残差{of}")
        charts.append(Chart(caption, predicted[right], [left, none], *labels))
    return charts
