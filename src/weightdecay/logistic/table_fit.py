"""Fit the classes of a table from a file for `weightdecay fit`: path, model, figures, rows out of fold."""

import contextlib
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import polars as pl
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.logistic.judging import Calibration
from weightdecay.logistic.labels import Labels, labels_of
from weightdecay.logistic.path import LogisticOptions, fit_path
from weightdecay.logistic.record import LogisticModel, LogisticPath, facts
from weightdecay.ridge.leaks import repeated
from weightdecay.ridge.problem import Inputs, tensor_of
from weightdecay.ridge.table_fit import (
    NAME,
    WORST,
    CoefficientPath,
    Importance,
    Request,
    folds_of,
    matters_most,
    messages,
    save_tables,
    scaling,
    short_number,
)
from weightdecay.saving import plain, unreadable
from weightdecay.tables.cells import numbers
from weightdecay.tables.columns import Column
from weightdecay.tables.source import is_large, of_rows, read_whole, row_names, target_kind
from weightdecay.text import Text

MOST_SHOWN = 10  # classes of a confusion table in a terminal
LONGEST = 24  # letters of a class's name there
ODDS = Text("change of the log odds by one sd of the column", "该列变化一个标准差时对数几率的变化")
LOGIT = Text("change of the class's logit by one sd of the column", "该列变化一个标准差时该类 logit 的变化")


def task_of(request: Request) -> Text | None:
    """Say why a request is a classification; None where it is a regression.

    Raises:
        InputError: a classification of several targets, or in blocks; a judge for a regression.
    """
    said = Text("as asked: classification", "按要求：分类")
    if request.task is None and len(request.target) == 1:
        target = request.target[0]
        kind = target_kind(request.data, target, request.reading)
        if kind == "text":
            said = Text("a text target: classification", "目标是文本：分类")
        elif kind == "yes/no":
            said = Text(
                "a target of yes and no: classification (--task regression predicts it as 1 and 0)",
                "目标是“是/否”：分类（用 --task regression 则按 1 和 0 预测）",
            )
        if kind != "number":
            return said
    if request.task == "classification":
        if len(request.target) > 1:
            value = ", ".join(request.target)
            raise InputError("a classification has one target", "target", value, "fit one after the other")
        return said
    if request.judge is not None:
        what, remedy = (
            "a regression is judged by squared errors",
            "leave it out, or add --task classification",
        )
        raise InputError(what, "judge", repr(request.judge), remedy)
    return None


# Figures of a path.


def coefficient_path(path: LogisticPath, most: int = 200, points: int = 60) -> CoefficientPath:
    """The coefficient path, thinned so that it can be drawn: a panel for each logit.

    Args:
        path: a fitted path, or one that was loaded.
        most: keep so many columns at most.
        points: and so many λ.
    """
    step = max(1, -(-len(path.lambdas) // points))
    lambdas = path.lambdas[::step]
    scale, names = path._fitted.sd, logit_names(path)
    order = (_by_column(path.coef(path.best)) * scale[:, None]).abs().amax(1).argsort(descending=True)[:most]
    rows = [_by_column(path.coef(float(lam)))[order] * scale[order, None] for lam in lambdas]
    best, one_se = (torch.full((len(names),), lam, dtype=torch.float64) for lam in (path.best, path.one_se))
    columns = _columns(path)
    kept = tuple(columns[j] for j in order.tolist())
    return CoefficientPath(lambdas, path.unit, torch.stack(rows), kept, names, path.p, best, one_se)


def importance(
    path: LogisticPath, lam: float | None = None, most: int = 10, level: float = 0.9
) -> Importance:
    """The columns whose standardised coefficients are largest, with intervals, for each logit.

    Args:
        path: a fitted path, or one that was loaded.
        lam: λ; by default the best.
        most: how many columns at most.
        level: the probability of the intervals, those of a normal distribution.
    """
    scale = path._fitted.sd
    coef = (_by_column(path.coef(lam)) * scale[:, None]).T
    half = torch.full_like(coef, math.nan)
    with contextlib.suppress(InputError):  # too many coefficients, or a loaded path at another λ
        errors = (_by_column(path.standard_errors(lam)) * scale[:, None]).T
        half = NormalDist().inv_cdf(0.5 + level / 2) * errors
    order = coef.abs().argsort(dim=1, descending=True, stable=True)[:, :most]
    columns = _columns(path)
    return Importance(
        targets=logit_names(path),
        names=tuple(tuple(columns[j] for j in row) for row in order.tolist()),
        coef=coef.gather(1, order),
        half=half.gather(1, order),
        level=level,
        p=path.p,
        effect=ODDS if len(path.classes) == 2 else LOGIT,
    )


def logit_names(path: LogisticPath) -> tuple[str, ...]:
    """What the logits are of: of two classes the second alone."""
    return path.class_names[1:] if len(path.classes) == 2 else path.class_names


def _by_column(values: Float64[Tensor, "*C p"]) -> Float64[Tensor, "p c"]:
    return values[:, None] if values.ndim == 1 else values.mT


def _columns(path: LogisticPath) -> tuple[str, ...]:
    return path.features or tuple(f"column {j + 1}" for j in range(path.p))


# Fitting a table.


@dataclass(frozen=True, eq=False)
class ClassFit:
    """What `weightdecay fit` writes and says of a classification.

    Args:
        path: the whole path.
        model: the model at the λ that was chosen.
        out_of_fold: one row per row: row, the columns of `id`, target, measured, prediction, p_<class> for
            each class, fold (null without folds); None where the evidence holds nothing out.
        calibration: at that λ; None likewise.
        confusion: rows by class and by predicted class; None likewise.
        worst: the rows whose own class had the least probability: row, columns that name it, measured,
            prediction, probability.
        coefficients: the coefficient path for a figure.
        importance: the columns that matter most, for a figure.
        columns: what each column of the table is.
        lines: what was chosen and why.
        doubts: what to be careful about, in sentences.
    """

    path: LogisticPath
    model: LogisticModel
    out_of_fold: pl.DataFrame | None = field(repr=False)
    calibration: Calibration | None = field(repr=False)
    confusion: pl.DataFrame | None = field(repr=False)
    worst: pl.DataFrame | None = field(repr=False)
    coefficients: CoefficientPath = field(repr=False)
    importance: Importance = field(repr=False)
    columns: tuple[Column, ...] = field(repr=False)
    lines: tuple[str, ...] = field(repr=False)
    doubts: tuple[str, ...] = field(repr=False)

    @property
    def figures(self) -> dict[str, Any]:
        """What is drawn, by the name of its file."""
        views = {"cv": self.path, "coefficients": self.coefficients, "importance": self.importance}
        return views if self.calibration is None else {**views, "reliability": self.calibration}

    @property
    def seen(self) -> pl.DataFrame | None:
        """What the page has of held-out rows beside the path."""
        return self.worst

    def save(self, folder: str | Path) -> list[Path]:
        """Write the path, the model and out_of_fold.parquet; returns their paths.

        `wd.load` reads the path back, and the model from its file model.json. For spreadsheets there are
        coefficients.csv, path.csv, confusion.csv, calibration.csv and, if it has no more rows than a
        spreadsheet, out_of_fold.csv.

        Raises:
            InputError: they cannot be written; then no file is half-written.
        """
        frames = {"coefficients": self.path.coef_frame(self.model.lam), "path": self.path.frame()}
        if self.confusion is not None and self.calibration is not None:
            frames |= {"confusion": self.confusion, "calibration": self.calibration.table}
        tables = save_tables(folder, self.out_of_fold, frames)
        return [*tables, *self.path.save(folder), *self.model.save(folder)]

    def to_dict(self) -> dict[str, Any]:
        """What was chosen, as plain values: the model's record without long lists, and held-out scores."""
        record = self.model.to_dict()
        for name in ("features", "coding", "means", "scales", "environment"):
            record.pop(name)
        path, place = self.path, self.path._place(self.model.lam)
        at_lambda = path.frame().row(place, named=True)
        scores = ("log_loss", "error_rate", "brier", "auc")
        return {
            **record,
            "task": "classification",
            **{name: getattr(path, name) for name in ("p", "cv", "judge", "best", "one_se", "edge", "flat")},
            **{name: plain(at_lambda[name]) for name in scores if name in at_lambda},
            "most_frequent_class_error_rate": path.share_wrong,
            "calibration_error": None if self.calibration is None else self.calibration.error,
            "confusion": None if self.confusion is None else self.confusion.to_dicts(),
            "worst": None if self.worst is None else json.loads(self.worst.write_json()),
            "importance": self.importance.plain(),
            "notes": [*path.notes],
            "columns": [column.plain() for column in self.columns],
        }


def fit_classes(
    request: Request, said: Text, on_columns: Callable[[tuple[Column, ...]], None] | None = None
) -> ClassFit:
    """Read the table, fit the whole path, and make the model at the λ that is chosen.

    Args:
        request: what to fit.
        said: why it is a classification.
        on_columns: called with what each column is, before anything is fitted.

    Raises:
        InputError: the table or an option cannot be used.
    """
    _in_memory_alone(request)
    early = {"unit": request.unit, "intercept": request.intercept, "columns": request.columns}
    LogisticOptions(**early)  # refuses what is wrong with these before the table is read
    cv = folds_of(request, 5)
    table = read_whole(
        request.data, request.target, request.drop, request.groups, request.weights, request.reading,
        request.columns, request.intercept == "free", on_columns, labelled=True,
    )  # fmt: skip
    labels = _labels(table.y.to_series(), request)
    taken = ("row", "target", "measured", "prediction", "fold", *(f"p_{name}" for name in labels.classes))
    ids = row_names(request.data, request.id, taken, request.reading)
    options = LogisticOptions(
        request.lambdas,
        cv=cv,
        seed=request.seed,
        groups=table.groups,
        sample_weight=table.weights,
        penalty_factors=request.penalty_factors(table.coding),
        standardize=request.standardize,
        judge=request.judge or "log_loss",
        **early,
    )
    inputs = Inputs(tensor_of(table.X, request.data), table.coding, left_out=table.left_out)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", WeightDecayWarning)
        path = fit_path(inputs, labels, options)
    lam = path.best if request.choose == "best" else path.one_se
    rows = table.rows.filter(table.kept)
    out_of_fold = copies = None
    if path.judge != "evidence":
        fold = _fold_of_row(path)
        out_of_fold = _long(path, lam, rows, of_rows(ids, rows), fold)
        copies = repeated(table.X.filter(table.kept), table.y.filter(table.kept), rows, fold)
    path = replace(
        path,
        settings={**path.settings, "request": request.plain()},
        doubts=(*path.doubts, *(copies or ())),
    )
    model = path.model(lam)
    model = replace(model, settings={**model.settings, **request.settings()})
    view = importance(path, lam)
    calibration, confusion = (
        (None, None) if out_of_fold is None else (path.calibration(lam), path.confusion(lam))
    )
    worst = None if out_of_fold is None else worst_rows(out_of_fold, path)
    left_out = [] if path.coding is None else path.coding.left_out_said()
    lines = _lines(request, said, path, lam, calibration, confusion)
    return ClassFit(
        path=path,
        model=model,
        out_of_fold=out_of_fold,
        calibration=calibration,
        confusion=confusion,
        worst=worst,
        coefficients=coefficient_path(path),
        importance=view,
        columns=table.columns,
        lines=(*lines, *matters_most(view), *wrong_most(worst)),
        doubts=(*table.notes, *(copies or ()), *left_out, *messages(caught)),
    )


def _in_memory_alone(request: Request) -> None:
    """Refuse what is read in blocks, and options of several targets."""
    what = "a classification reads its table into memory"
    remedy = "leave it out; of a larger table fit a part"
    if request.engine is not None:
        raise InputError(what, "engine", repr(request.engine), remedy)
    if request.out_of_core:
        raise InputError(what, "out_of_core", "given", remedy)
    if is_large(request.data):
        folder = Path(request.data).is_dir()
        value = "a folder" if folder else "larger than a quarter of the memory that is left"
        remedy = "give one file" if folder else "fit a part of it"
        raise InputError(what, str(request.data), value, remedy)
    if request.shared:
        raise InputError("one λ for all is for several targets", "shared", "one target", "leave it out")


def _labels(cells: pl.Series, request: Request) -> Labels:
    """The classes: numbers where all cells are, and they were asked for as classes; else texts."""
    target = request.target[0]
    if request.task == "classification" and target_kind(request.data, target, request.reading) == "number":
        values = numbers(cells)
        if values.null_count() == cells.null_count():
            whole = bool((values == values.round()).all())
            cells = values.cast(pl.Int64) if whole else values
    try:
        labels = labels_of(cells)
    except InputError as error:
        if "ridge_path" not in error.remedy:
            raise
        remedy = "is it a regression? then leave out --task"
        raise InputError(error.what, error.where, error.value, remedy) from error
    return replace(labels, codes=labels.codes.nan_to_num(0.0))  # rows without a label have weight 0


def _fold_of_row(path: LogisticPath) -> pl.Series | None:
    """The fold that holds out each row, from 1, null where none does; None where folds are not the way."""
    fitter = path._fitted.fitter
    assert fitter is not None
    if not fitter.judging.folds:
        return None
    fold: Int64[Tensor, " n"] = torch.zeros(path.n, dtype=torch.int64)
    for k, one in enumerate(fitter.judging.folds):
        fold[one.rows.cpu()] = k + 1
    return pl.Series("fold", fold.numpy()).replace(0, None)


def _long(
    path: LogisticPath, lam: float, rows: pl.Series, ids: dict[str, pl.Series], fold: pl.Series | None
) -> pl.DataFrame:
    """Each row's class, and what was predicted of it while it was held out."""
    P, codes = path.out_of_fold(lam), path._fitted.codes
    guess = P.nan_to_num(-1.0).argmax(1)
    guess = torch.where(P[:, -1] > P[:, 0], 1, 0) if len(path.classes) == 2 else guess
    classes = pl.Series(list(path.classes))
    there = pl.Series((~P[:, 0].isnan()).numpy())
    frame = pl.DataFrame(
        {
            "row": rows,
            **ids,
            "target": [path.target] * len(rows),
            "measured": classes.gather(codes.numpy()),
            "prediction": classes.gather(guess.numpy()),
            **{f"p_{name}": P[:, k].numpy() for k, name in enumerate(path.class_names)},
            "fold": pl.Series([None] * len(rows), dtype=pl.Int64) if fold is None else fold,
        },
        schema_overrides={"row": pl.Int64},
    )
    own = pl.when(there)
    return frame.with_columns(
        own.then(pl.col("prediction")), *(own.then(pl.col(f"p_{name}")) for name in path.class_names)
    )


def worst_rows(out_of_fold: pl.DataFrame, path: LogisticPath) -> pl.DataFrame:
    """The rows whose own class had the least probability, the least first.

    Args:
        out_of_fold: as `weightdecay fit` writes it.
        path: that it was predicted by.
    """
    chances = [f"p_{name}" for name in path.class_names]
    own = pl.coalesce(
        pl.when(pl.col("measured") == label).then(pl.col(chance))
        for label, chance in zip(path.classes, chances, strict=True)
    )
    frame = out_of_fold.with_columns(probability=own).drop("target", "fold", *chances)
    return frame.drop_nulls("probability").sort("probability", maintain_order=True).head(WORST)


def load_worst(folder: str | Path, path: LogisticPath) -> pl.DataFrame:
    """The same of what `weightdecay fit` wrote beside a path.

    Raises:
        InputError: the file cannot be read, or has other rows or classes than the path.
    """
    file = Path(folder) / NAME
    try:
        table = pl.read_parquet(file)
        if table.height != path.n:
            what = f"not the rows of path.json, which are {path.n:,}"
            raise InputError(what, str(file), f"{table.height:,} rows", "fit it again")
        return worst_rows(table, path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(file, error, "fit it again") from error


def _lines(
    request: Request,
    said: Text,
    path: LogisticPath,
    lam: float,
    calibration: Calibration | None,
    confusion: pl.DataFrame | None,
) -> tuple[str, ...]:
    """Why a classification, the data, how λ was judged, what was chosen, and how well that predicts."""
    scaled, unpenalized = scaling(request)
    name, target, p, shown = Path(request.data).name, path.target, f"{path.p:,}", f"{lam:.3g}"
    one_se = request.choose == "one-se"
    which = Text("of the least", "得分最小")
    if one_se:
        which = Text(
            "the strongest within one standard error of the least", "得分在最小值一倍标准误之内的最强者"
        )
    option = Text("", "")
    if path.best != path.one_se:
        other = "best" if one_se else "one-se"
        option = Text(f" (--choose {other} takes the other)", f"（--choose {other} 取另一个）")
    lines = [
        said,
        Text(
            f"{target} of {name} from {p} columns, {scaled}{unpenalized}",
            f"用 {p} 列{scaled.zh}预测 {name} 的 {target}{unpenalized.zh}",
        ),
        *facts(path),
        Text(
            f"the model has λ = {shown}, {which} score{option}", f"模型取 λ = {shown}，{which.zh}{option.zh}"
        ),
    ]
    if calibration is not None:
        lines.append(off_by(calibration))
    return (*lines, *([] if confusion is None else _confusion_lines(confusion, path)))


def off_by(calibration: Calibration) -> Text:
    """Say how far probabilities are from what was observed."""
    error = 100 * calibration.error
    return Text(
        f"probabilities of held-out rows are off by {error:.2g} % on average (expected calibration error)",
        f"留出行的概率平均偏差 {error:.2g} %（期望校准误差）",
    )


def _confusion_lines(confusion: pl.DataFrame, path: LogisticPath) -> list[str]:
    """The table for a terminal; nothing where there are too many classes."""
    if len(path.classes) > MOST_SHOWN:
        return []
    names = [
        name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in confusion["class"].to_list()
    ]
    cells = [[f"{value:,.4g}" if value < 1000 else f"{value:,.0f}" for value in row[1:]]
             for row in confusion.iter_rows()]  # fmt: skip
    widths = [max(len(row[k]) for row in [names, *cells]) for k in range(len(names))]
    first = max(map(len, names))
    heads = "  ".join(f"{name:>{wide}}" for name, wide in zip(names, widths, strict=True))
    body = [
        f"  {name:{first}}  " + "  ".join(f"{cell:>{wide}}" for cell, wide in zip(row, widths, strict=True))
        for name, row in zip(names, cells, strict=True)
    ]
    return [
        Text(
            "held out, a row for each class, a column for each prediction:",
            "留出的行，每行一个类别，每列一个预测：",
        ),
        f"  {'':{first}}  {heads}",
        *body,
    ]


def wrong_most(worst: pl.DataFrame | None) -> tuple[Text, ...]:
    """Say which rows had the least probability of their own class, by their numbers and names."""
    if worst is None or worst.is_empty():
        return ()
    said = [
        Text("least probability of the own class, held out:", "留出时自己类别的概率最小的行："),
    ]
    for row in worst.iter_rows(named=True):
        number, measured, predicted, chance = (
            row.pop(name) for name in ("row", "measured", "prediction", "probability")
        )
        named = "; ".join(f"{name} {value}" for name, value in row.items())
        en, zh = (f" ({named})", f"（{named}）") if named else ("", "")
        p = short_number(chance)
        said.append(
            Text(
                f"  row {number}{en}: {measured} with probability {p}, predicted {predicted}",
                f"  第 {number} 行{zh}：{measured} 的概率为 {p}，预测为 {predicted}",
            )
        )
    return tuple(said)
