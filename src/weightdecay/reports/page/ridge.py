"""The page of a ridge path: its curve and both choices, the coefficients, the degrees of freedom."""

import numpy as np

from weightdecay.reports.page.figures import STRENGTH, Figure, Line, Page, array
from weightdecay.ridge.record import RidgePath
from weightdecay.ridge.views import coefficient_path, target_names

_MOST_COLUMNS = 30
_MOST_TARGETS = 6
_SCORES = {
    "gcv": ("generalised cross-validation score", "广义交叉验证得分"),
    "evidence": ("−2 log evidence", "−2 log 证据"),
}


def page(path: RidgePath) -> Page:
    """The page."""
    lambdas, scores, errors = (array(one) for one in (path.lambdas, path.scores, path.errors))
    scores, errors = scores.reshape(len(lambdas), -1), errors.reshape(len(lambdas), -1)
    log = bool((lambdas > 0).all())
    names = target_names(path)[:_MOST_TARGETS]
    best, one_se = (np.broadcast_to(array(one), scores.shape[1:]) for one in (path.best, path.one_se))
    curves = []
    for t, name in enumerate(names):
        label = ("score ± one standard error", "得分 ± 一倍标准误") if len(names) == 1 else name
        curves.append(Line(label, scores[:, t], t, band=errors[:, t]))
    for what, lam in ((("least", "最小"), best), (("one standard error", "一倍标准误"), one_se)):
        marks = np.full(len(lambdas), np.nan)
        for t in range(len(names)):
            place = np.abs(lambdas - lam[t]).argmin()
            marks[place] = scores[place, t]
        curves.append(Line(what, marks, "ink" if what[0] == "least" else "test", points=True))
    unit = STRENGTH if path.unit == "canonical" else (f"λ, {path.unit}", f"λ，{path.unit}")
    label = _SCORES.get(path.cv, ("squared error, held out", "留出行的均方误差"))
    low, high = scores.min(), scores.max()
    figures = [
        Figure(
            ("Score against λ", "得分与 λ"),
            lambdas,
            curves,
            unit,
            label,
            log,
            bool(low > 0 and high > 4 * low),
        ),
        *_coefficients(path, log, unit),
        Figure(
            ("Effective degrees of freedom", "有效自由度"),
            lambdas,
            [Line(("degrees of freedom", "自由度"), array(path.dof))],
            unit,
            ("degrees of freedom", "自由度"),
            log,
        ),
    ]
    notes = []
    if path.p > _MOST_COLUMNS:
        notes.append(
            (
                f"Coefficients of the {_MOST_COLUMNS} largest of {path.p} columns are drawn.",
                f"图中只画出 {path.p} 列中系数最大的 {_MOST_COLUMNS} 列。",
            )
        )
    count = scores.shape[1]
    if count > _MOST_TARGETS:
        notes.append(
            (
                f"{_MOST_TARGETS} of {count} targets are drawn.",
                f"图中只画出 {count} 个目标中的 {_MOST_TARGETS} 个。",
            )
        )
    title = (f"Ridge path: {path.n:,} rows, {path.p:,} columns", f"岭回归路径：{path.n:,} 行，{path.p:,} 列")
    return Page(title, path.notes[: len(path.notes) - len(path.doubts)], path.doubts, (), figures, notes)


def _coefficients(path: RidgePath, log: bool, unit: tuple[str, str]) -> list[Figure]:
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
