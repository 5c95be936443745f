"""A path of logistic regression: its figures (curve, reliability) and page; the rest is as a ridge path's."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from weightdecay.errors import InputError
from weightdecay.logistic.judging import Calibration
from weightdecay.logistic.record import WORDS, LogisticPath, facts
from weightdecay.logistic.table_fit import coefficient_path, importance, logit_names, off_by
from weightdecay.reports.page import Chart, Line, Page, PageTable, array, number
from weightdecay.reports.ridge import (
    MOST_COLUMNS,
    MOST_TARGETS_ON_PAGE,
    about,
    coefficient_charts,
    columns_drawn,
    curve_chart,
    dof_chart,
    draw_curve,
    importance_tables,
    strength_label,
)
from weightdecay.reports.style import INK, SCORE
from weightdecay.text import Text

MOST_CLASSES = 20  # of a confusion table on a page
LONGEST = 24  # letters of a class's name there


def figure_size(result: LogisticPath | Calibration) -> tuple[float, float]:
    """Width and height in inches."""
    return (6.4, 4.6) if isinstance(result, LogisticPath) else (4.6, 4.4)


def figure_axes(result: LogisticPath | Calibration, figure: Figure) -> Axes:  # noqa: ARG001
    """One Axes."""
    return figure.subplots()


def draw(result: LogisticPath | Calibration, ax: Axes) -> None:
    """Draw the score over λ, or how probabilities compare with what was observed."""
    if isinstance(result, LogisticPath):
        draw_curve(result, ax)
        return
    predicted, observed, error = _bins(result)
    ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--", label="predicted = observed")
    ax.errorbar(
        predicted, observed, yerr=error, fmt="o", color=SCORE, ms=5, capsize=3, lw=1.2,
        label="rows of a bin ± one standard error",
    )  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability, held out", ylabel="observed share")
    ax.set_aspect("equal")
    error = f"expected calibration error {100 * result.error:.2g} %"
    ax.set_title(f"reliability at λ = {result.lam:.3g}: {error}")
    ax.legend(fontsize=8, loc="lower right")


def page(path: LogisticPath, worst: pl.DataFrame | None = None) -> Page:
    """The page; with the rows whose own class had the least probability while they were held out."""
    log = bool((array(path.lambdas) > 0).all())
    unit, lam = strength_label(path), _chosen(path)
    try:
        calibration, confusion = path.calibration(lam), path.confusion(lam)
    except InputError:  # the evidence holds nothing out
        calibration = confusion = None
    view = coefficient_path(path, most=MOST_COLUMNS)
    figures = [curve_chart(path, log, unit)]
    if path.judge not in ("error", "evidence"):
        figures.append(_errors(path, log, unit))
    if calibration is not None:
        figures.append(_reliability(path, calibration))
    figures += coefficient_charts(view, log, unit)
    if np.isfinite(array(path.dof)).any():
        figures.append(dof_chart(path, log, unit))
    lines = [*about(path), *facts(path), *([] if calibration is None else [off_by(calibration)])]
    tables = [
        *([] if confusion is None else _confusion(path, confusion)),
        *importance_tables(importance(path, lam)),
        *([] if worst is None else _worst(worst)),
    ]
    title = Text("Logistic path", "逻辑回归路径")
    if path.target:
        title = Text(f"Logistic path of {path.target}", f"{path.target} 的逻辑回归路径")
    title = Text(
        f"{title}: {path.n:,} rows, {path.p:,} columns, {len(path.classes):,} classes",
        f"{title.zh}：{path.n:,} 行，{path.p:,} 列，{len(path.classes):,} 个类别",
    )
    return Page(title, lines, path.doubts, tables, figures=figures, notes=_notes(path))


def _chosen(path: LogisticPath) -> float:
    """λ of the model that `weightdecay fit` wrote; else the best."""
    return path.one_se if path.settings.get("request", {}).get("choose") == "one-se" else path.best


def _errors(path: LogisticPath, log: bool, unit: Text) -> Chart:
    """The share of held-out rows that are predicted wrong, and what the most frequent class would have."""
    errors = array(path.curves["error"])
    always = Text("always the most frequent class", "总是预测最多的类别")
    lines = [
        Line(WORDS["error"], errors, 0),
        Line(always, np.full(len(errors), path.share_wrong), "ink", dashed=True),
    ]
    caption = Text("Rows predicted wrong, held out", "留出时预测错误的行")
    return Chart(caption, array(path.lambdas), lines, unit, WORDS["error"], log)


def _bins(calibration: Calibration) -> tuple[np.ndarray, ...]:
    """Predicted, observed and its standard error, in the order of the predicted."""
    table = calibration.table.sort("predicted")
    return tuple(table[name].to_numpy() for name in ("predicted", "observed", "error"))


def _reliability(path: LogisticPath, calibration: Calibration) -> Chart:
    """Observed shares over predicted probabilities, in bins."""
    predicted, observed, error = _bins(calibration)
    caption = Text("Reliability of the predicted class's probability", "预测类别概率的可靠性")
    if len(path.classes) == 2:
        name = path.class_names[1]
        caption = Text(f"Reliability of the probability of {name}", f"{name} 的概率的可靠性")
    bins = Text("rows of a bin ± one standard error", "一个区间的行 ± 一倍标准误")
    lines = [
        Line(Text("predicted = observed", "预测等于观测"), predicted, "ink", dashed=True),
        Line(bins, observed, "train", points=True, band=error, bars=True),
    ]
    labels = (
        Text("predicted probability, held out", "留出时预测的概率"),
        Text("observed share", "观测到的比例"),
    )
    return Chart(caption, predicted, lines, *labels, at_least=(0.0, 1.0))


def _confusion(path: LogisticPath, confusion: pl.DataFrame) -> list[PageTable]:
    """Rows by class and by prediction, shaded by their share of the class's rows."""
    if len(path.classes) > MOST_CLASSES:
        return []
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in path.class_names]
    counts = [values for _, *values in confusion.iter_rows()]
    rows = [
        (name, *(f"{value:,}" if isinstance(value, int) else number(value) for value in values))
        for name, values in zip(names, counts, strict=True)
    ]
    shades = [[None, *(value / (sum(values) or 1) for value in values)] for values in counts]
    caption = Text(
        "Held-out rows: a row for each class, a column for each prediction",
        "留出的行：每行一个类别，每列一个预测",
    )
    return [PageTable(caption, [Text("class", "类别"), *names], rows, shades)]


def _worst(worst: pl.DataFrame) -> list[PageTable]:
    """The rows whose own class had the least probability."""
    if worst.is_empty():
        return []
    names = {
        "row": Text("row", "行"),
        "measured": Text("class", "类别"),
        "prediction": Text("predicted", "预测"),
        "probability": Text("probability of its class", "所属类别的概率"),
    }
    cells = [
        [number(v) if name == "probability" else str(v) for name, v in zip(worst.columns, row, strict=True)]
        for row in worst.iter_rows()
    ]
    caption = Text("Least probability of the own class, held out", "留出时所属类别概率最小的行")
    return [PageTable(caption, [names.get(name, name) for name in worst.columns], cells)]


def _notes(path: LogisticPath) -> list[Text]:
    """What was left out."""
    notes = columns_drawn(path)
    if (count := len(logit_names(path))) > MOST_TARGETS_ON_PAGE:
        shown = MOST_TARGETS_ON_PAGE
        notes.append(
            Text(
                f"Coefficients of {shown} of {count} classes are drawn.",
                f"图中只画出 {count} 个类别中 {shown} 个的系数。",
            )
        )
    if (count := len(path.classes)) > MOST_CLASSES:
        notes.append(
            Text(
                f"The confusion table of {count} classes is not shown: `path.confusion()` has it.",
                f"{count} 个类别的混淆矩阵没有显示：见 `path.confusion()`。",
            )
        )
    return notes
