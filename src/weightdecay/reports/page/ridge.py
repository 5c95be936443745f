"""The page of a ridge path: its curve and choices, coefficients, predictions, degrees of freedom."""

from pathlib import Path

import numpy as np

from weightdecay.reports.page import chinese
from weightdecay.reports.page.figures import STRENGTH, Both, Figure, Line, Page, Top, array, number, thinned
from weightdecay.ridge.record import RidgePath
from weightdecay.ridge.views import HeldOut, coefficient_path, target_list, target_names

_MOST_COLUMNS = 30
_MOST_TARGETS = 6
_MOST_ROWS = 2000
_SCORES = {
    "gcv": ("generalised cross-validation score", "广义交叉验证得分"),
    "evidence": ("−2 log evidence", "−2 log 证据"),
}


def page(path: RidgePath, seen: HeldOut | None = None) -> Page:
    """The page; with predictions of rows that the fit had not seen, these beside what was measured."""
    log = bool((array(path.lambdas) > 0).any())
    unit = STRENGTH if path.unit == "canonical" else (f"λ, {path.unit}", f"λ，{path.unit}")
    dof = Figure(
        ("Effective degrees of freedom", "有效自由度"),
        array(path.lambdas),
        [Line(("degrees of freedom", "自由度"), array(path.dof))],
        unit,
        ("degrees of freedom", "自由度"),
        log,
    )
    held = [] if seen is None else _held_out(seen)
    figures = [_curve(path, log, unit), *_coefficients(path, log, unit), *held, dof]
    lines = list(path.notes[: len(path.notes) - len(path.doubts)]), chinese.ridge_lines(path)
    about = _about(path)
    for said, others in zip(lines, about, strict=True):
        said[:0] = others
    if seen is not None:
        r2, rmse = (", ".join(f"{value:.3g}" for value in one.tolist()) for one in (seen.r2, seen.rmse))
        lines[0].append(f"held out: R² {r2}, root mean squared error {rmse}")
        lines[1].append(chinese.held_out_line(seen))
    doubts = path.doubts, chinese.ridge_doubts(path)
    size = (f"{path.n:,} rows, {path.p:,} columns", f"{path.n:,} 行，{path.p:,} 列")
    named = target_list(path)
    title = (
        f"Ridge path of {named}: {size[0]}" if named else f"Ridge path: {size[0]}",
        f"{named} 的岭回归路径：{size[1]}" if named else f"岭回归路径：{size[1]}",
    )
    return Page(title, lines, doubts, figures=figures, notes=_notes(path, seen))


def _about(path: RidgePath) -> tuple[list[str], list[str]]:
    """What `weightdecay fit` was asked for: the table, the targets, and the λ of the model it wrote."""
    request = path.settings.get("request")
    if request is None:
        return [], []
    targets, file = ", ".join(request["target"]), Path(request["data"]).name
    one_se = request["choose"] == "one-se"
    lams = array(path.one_se if one_se else path.best).reshape(-1)
    lam = " / ".join(number(value) for value in lams[:_MOST_TARGETS]) + (" / …" if len(lams) > 6 else "")
    why = (
        (
            "the strongest within one standard error of the least score (--choose one-se)",
            "得分在最小值一倍标准误之内的最强者（--choose one-se）",
        )
        if one_se
        else ("of the least score (--choose best)", "得分最小者（--choose best）")
    )
    return (
        [f"target: {targets}; table: {file}", f"the model of this fit has λ = {lam}, {why[0]}"],
        [f"目标：{targets}；表格：{file}", f"本次拟合的模型取 λ = {lam}，{why[1]}"],
    )


def _notes(path: RidgePath, seen: HeldOut | None) -> list[Both]:
    """What was left out."""
    notes = []
    if path.p > _MOST_COLUMNS:
        drawn = f"Coefficients of the {_MOST_COLUMNS} largest of {path.p} columns are drawn."
        notes.append((drawn, f"图中只画出 {path.p} 列中系数最大的 {_MOST_COLUMNS} 列。"))
    if (count := len(target_names(path))) > _MOST_TARGETS:
        drawn = f"{_MOST_TARGETS} of {count} targets are drawn."
        notes.append((drawn, f"图中只画出 {count} 个目标中的 {_MOST_TARGETS} 个。"))
    if seen is not None and path.n > _MOST_ROWS:
        drawn = f"Predictions of {_MOST_ROWS:,} of {path.n:,} rows are drawn."
        notes.append((drawn, f"图中只画出 {path.n:,} 行中 {_MOST_ROWS:,} 行的预测。"))
    return notes


def _curve(path: RidgePath, log: bool, unit: Both) -> Figure:
    """Scores with their standard errors, and both choices; the degrees of freedom along the top."""
    lambdas, scores, errors = (array(one) for one in (path.lambdas, path.scores, path.errors))
    scores, errors = scores.reshape(len(lambdas), -1), errors.reshape(len(lambdas), -1)
    names = target_names(path)[:_MOST_TARGETS]
    best, one_se = (np.broadcast_to(array(one), scores.shape[1:]) for one in (path.best, path.one_se))
    curves = []
    for t, name in enumerate(names):
        label = ("score ± one standard error", "得分 ± 一倍标准误") if len(names) == 1 else name
        curves.append(Line(label, scores[:, t], t, band=errors[:, t]))
    for what, lam, colour in (
        (("least", "最小"), best, "ink"),
        (("one standard error", "一倍标准误"), one_se, "test"),
    ):
        marks = np.full((len(names), len(lambdas)), np.nan)
        for t in range(len(names)):
            place = np.abs(lambdas - lam[t]).argmin()
            marks[t, place] = scores[place, t]
        curves += [Line(what, one, colour, points=True) for one in marks]
    shown = scores[:, : len(names)]
    wide = bool(shown.min() > 0 and shown.max() > 4 * shown.min())
    caption = ("Score against λ", "得分与 λ")
    label = _SCORES.get(path.cv, ("squared error, held out", "留出行的均方误差"))
    top = Top(("degrees of freedom", "自由度"), array(path.dof))
    return Figure(caption, lambdas, curves, unit, label, log, wide, top=top)


def _coefficients(path: RidgePath, log: bool, unit: Both) -> list[Figure]:
    """A figure for each target."""
    view = coefficient_path(path, most=_MOST_COLUMNS)
    found = []
    for t, target in enumerate(view.targets[:_MOST_TARGETS]):
        lines = [Line(name, array(view.coef[:, m, t]), m) for m, name in enumerate(view.names)]
        of = "" if len(view.targets) == 1 else f": {target}"
        caption = (f"Coefficients times the columns' sd{of}", f"系数乘以各列标准差{of}")
        found.append(
            Figure(caption, array(view.lambdas), lines, unit, ("change by one sd", "一个标准差的变化"), log)
        )
    return found


def _held_out(seen: HeldOut) -> list[Figure]:
    """Predictions beside measurements, and what is left, for each target."""
    found = []
    row, line = ("row, held out", "留出的行"), ("as measured", "与测量相等")
    for t, target in enumerate(seen.targets[:_MOST_TARGETS]):
        measured, predicted = (array(one[:, t]) for one in (seen.measured, seen.predicted))
        known = np.flatnonzero(np.isfinite(predicted))
        kept = known[thinned(len(known), _MOST_ROWS)]
        of = "" if len(seen.targets) == 1 else f": {target}"
        up = kept[np.argsort(measured[kept], kind="stable")]
        points = Line(row, predicted[up], "train", points=True)
        same = Line(line, measured[up], "ink", dashed=True)
        labels = ("measured", "测量值"), ("predicted", "预测值")
        caption = (f"Predicted against measured{of}", f"预测与测量{of}")
        found.append(Figure(caption, measured[up], [points, same], *labels))
        right = kept[np.argsort(predicted[kept], kind="stable")]
        left = Line(row, (measured - predicted)[right], "train", points=True)
        none = Line(line, np.zeros(len(right)), "ink", dashed=True)
        labels = ("predicted", "预测值"), ("measured − predicted", "测量值 − 预测值")
        caption = (f"Residuals of rows held out{of}", f"留出行的残差{of}")
        found.append(Figure(caption, predicted[right], [left, none], *labels))
    return found
