"""Fit a table from a file for `weightdecay fit`: its path, model, figures and predictions out of fold."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from polars.io.plugins import register_io_source
from torch import Tensor

from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.ridge.folds import fold_ids, splits
from weightdecay.ridge.leaks import repeated
from weightdecay.ridge.model import LEAST_LEFT, RidgeModel
from weightdecay.ridge.path import fit_path
from weightdecay.ridge.problem import Inputs, Intercept, RidgeOptions, tensor_of
from weightdecay.ridge.record import RidgePath, constant_columns_said, interpolates, phrase
from weightdecay.ridge.tall import Tall
from weightdecay.saving import plain, replacing, unreadable, unwritable, writable_folder
from weightdecay.select import student_t
from weightdecay.tables.cells import no_such_column
from weightdecay.tables.columns import Coding, Column, ColumnOptions
from weightdecay.tables.dialect import Reading
from weightdecay.tables.source import (
    RowBlock,
    Source,
    is_large,
    of_rows,
    open_source,
    read_whole,
    row_names,
)
from weightdecay.text import Text

Progress = Callable[[str, int, int | None], None]
NAME = "out_of_fold.parquet"
SPREADSHEET = 1_048_575  # rows, beside the header, that a spreadsheet opens
SHOWN = 5000  # rows of the figure of held-out predictions
WORST = 5  # rows of largest error that are named
HOW = {
    "loo": Text("leave-one-out", "留一法"),
    "gcv": Text("generalised cross-validation", "广义交叉验证"),
    "evidence": Text("the evidence", "证据"),
}
EFFECT = Text("change of the prediction by one sd of the column", "该列变化一个标准差时预测的变化")

# Figures of a path.


@dataclass(frozen=True, eq=False)
class CoefficientPath:
    """Coefficients over λ, of the columns whose coefficients are largest at the best λ.

    Args:
        lambdas: λ (L,).
        unit: the convention of λ.
        coef: coefficients times the inputs' standard deviations (L, m, t): the change of the prediction
            when a column moves by one sd, which can be compared between columns.
        names: the m columns, that of largest coefficient first.
        targets: the t targets' names.
        p: how many columns there are in all.
        best: λ of least score, one for each target (t,).
        one_se: λ of the one-standard-error rule (t,).
    """

    lambdas: Float64[Tensor, " L"]
    unit: str
    coef: Float64[Tensor, "L m t"]
    names: tuple[str, ...]
    targets: tuple[str, ...]
    p: int
    best: Float64[Tensor, " t"]
    one_se: Float64[Tensor, " t"]


@dataclass(frozen=True, eq=False)
class Importance:
    """The columns that matter most: those whose coefficients, times the columns' sd, are largest.

    Args:
        targets: the t targets' names.
        names: for each target m columns, that of largest coefficient first.
        coef: the change of the prediction when a column moves by one standard deviation (t, m).
        half: half the width of its interval, Student's t times the standard error at fixed λ: the noise is
            in it, the bias of shrinking is not; NaN where no degrees of freedom are left (t, m).
        level: the probability of the intervals.
        p: how many columns there are in all.
        effect: what a coefficient is, in words.
    """

    targets: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    coef: Float64[Tensor, "t m"]
    half: Float64[Tensor, "t m"]
    level: float
    p: int
    effect: Text = EFFECT

    def ends(self, target: int, place: int) -> Text:
        """The interval in words; nothing where there is none."""
        value, half = float(self.coef[target, place]), float(self.half[target, place])
        if math.isnan(half):
            return Text("", "")
        low, high = short_number(value - half), short_number(value + half)
        return Text(f"{low} to {high}", f"{low} 到 {high}")

    def plain(self) -> dict[str, Any]:
        """By target, each column with its coefficient and half the width of its interval, for JSON."""
        return {
            target: [
                {"column": name, "per_sd": value, "half": plain(half)}
                for name, value, half in zip(names, coef.tolist(), halves, strict=True)
            ]
            for target, names, coef, halves in zip(
                self.targets, self.names, self.coef, self.half, strict=True
            )
        }


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of rows that the fit had not seen, beside what was measured.

    Args:
        targets: the t targets' names.
        measured: (n, t).
        predicted: out of fold (n, t); NaN where a row was never held out.
        rmse: root mean squared error of each target (t,).
        r2: 1 − Σ(error²) / Σ(measured − mean)² of each target (t,).
        mean_rmse: root mean squared error of the mean as prediction, √(Σ(measured − mean)² / n) (t,).
        how: the splitter, in words.
        worst: the rows of largest error, in units of their target's rmse: row, columns that name it, target,
            measured, prediction.
    """

    targets: tuple[str, ...]
    measured: Float64[Tensor, "n t"]
    predicted: Float64[Tensor, "n t"]
    rmse: Float64[Tensor, " t"]
    r2: Float64[Tensor, " t"]
    mean_rmse: Float64[Tensor, " t"]
    how: str
    worst: pl.DataFrame = field(repr=False)


def coefficient_path(path: RidgePath, most: int = 200, points: int = 60) -> CoefficientPath:
    """The coefficient path, thinned so that it can be drawn.

    Args:
        path: a fitted path.
        most: keep so many columns at most.
        points: and so many λ.
    """
    step = max(1, -(-len(path.lambdas) // points))
    lambdas = path.lambdas.cpu()[::step]
    scale = path._solver.inputs()[1].cpu()
    best = _each(path, path.best)
    final = _columns(path.coef(path.best)) * scale[:, None]
    order = final.abs().amax(1).argsort(descending=True)[:most]
    rows = [_columns(path.coef(float(lam)))[order] * scale[order, None] for lam in lambdas]
    features = path.features or tuple(f"column {i + 1}" for i in range(path.p))
    return CoefficientPath(
        lambdas=lambdas,
        unit=path.unit,
        coef=torch.stack(rows),
        names=tuple(features[i] for i in order.tolist()),
        targets=target_names(path),
        p=path.p,
        best=best,
        one_se=_each(path, path.one_se),
    )


def held_out(path: RidgePath, y: Tensor, lam: float | Tensor | None = None) -> HeldOut:
    """Predictions out of fold against what was measured, with their error.

    Args:
        path: a fitted path.
        y: the targets it was fitted to, (n,) or (n, t).
        lam: λ; by default the best.

    Raises:
        InputError: the wrong number of rows.
    """
    predicted = _columns(path.out_of_fold(lam))
    measured = _columns(y.detach().double().cpu())
    if measured.shape != predicted.shape:
        raise InputError("not the targets of the fit", "y", tuple(y.shape), f"give {tuple(predicted.shape)}")
    error = predicted - measured
    seen = ~error.isnan()
    count = seen.sum(0)
    squares = torch.where(seen, error**2, 0).sum(0)
    mean = torch.where(seen, measured, 0).sum(0) / count
    spread = torch.where(seen, (measured - mean) ** 2, 0).sum(0)
    how = "loo" if path.cv in ("gcv", "evidence") else path.cv  # those two hold nothing out themselves
    names, rmse, mean_rmse = target_names(path), (squares / count).sqrt(), (spread / count).sqrt()
    largest = error.abs().nan_to_num(-1.0).topk(min(WORST, len(error)), dim=0).indices
    candidates = pl.DataFrame(
        {
            "row": (largest + 1).T.reshape(-1).numpy(),
            "target": [name for name in names for _ in range(len(largest))],
            "measured": measured.gather(0, largest).T.reshape(-1).numpy(),
            "prediction": predicted.gather(0, largest).T.reshape(-1).numpy(),
        }
    )
    worst = _worst(candidates, names, rmse)
    return HeldOut(names, measured, predicted, rmse, 1 - squares / spread, mean_rmse, how, worst)


def _worst(candidates: pl.DataFrame, names: Sequence[str], rmse: Float64[Tensor, " t"]) -> pl.DataFrame:
    """The rows of largest error, each in units of its target's."""
    units = pl.DataFrame(
        {"target": list(names), "rmse": rmse.tolist()}, schema_overrides={"rmse": pl.Float64}
    )
    error = (pl.col("prediction") - pl.col("measured")).abs() / pl.col("rmse")
    return (
        candidates.join(units, on="target", how="left", maintain_order="left")
        .with_columns(error=error.fill_nan(None))
        .drop_nulls("error")
        .sort("error", descending=True, maintain_order=True)
        .drop("error", "rmse")
        .head(WORST)
    )


def importance(
    path: RidgePath, lam: float | Tensor | None = None, most: int = 10, level: float = 0.9
) -> Importance:
    """The columns whose standardised coefficients are largest, with intervals.

    Args:
        path: a fitted path.
        lam: λ, or one for each target; by default the best.
        most: how many columns at most.
        level: the probability of the intervals.
    """
    scale = path._solver.inputs()[1].cpu()
    coef, errors = (
        (_columns(values) * scale[:, None]).T for values in (path.coef(lam), path.standard_errors(lam))
    )
    left = path.n - path._dof(path._alphas(lam)).expand(len(coef))
    t = [student_t(level, float(rest)) if rest >= LEAST_LEFT else math.nan for rest in left]
    order = coef.abs().argsort(dim=1, descending=True, stable=True)[:, :most]
    features = path.features or tuple(f"column {i + 1}" for i in range(path.p))
    return Importance(
        targets=target_names(path),
        names=tuple(tuple(features[j] for j in row) for row in order.tolist()),
        coef=coef.gather(1, order),
        half=errors.gather(1, order) * torch.tensor(t, dtype=torch.float64)[:, None],
        level=level,
        p=path.p,
    )


def target_names(path: RidgePath) -> tuple[str, ...]:
    """The targets' names, or numbers."""
    return path.targets or tuple(f"target {i + 1}" for i in range(_count(path)))


def target_list(path: RidgePath, most: int = 3) -> str:
    """The targets' names in a few words; nothing where they have none."""
    names = path.targets or ()
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _count(path: RidgePath) -> int:
    return 1 if path.scores.ndim == 1 else path.scores.shape[1]


def _each(path: RidgePath, lam: float | Tensor) -> Tensor:
    """One λ for each target."""
    return torch.as_tensor(lam, dtype=torch.float64).cpu().expand(_count(path))


def _columns(values: Tensor) -> Tensor:
    values = values.double().cpu()
    return values[:, None] if values.ndim == 1 else values


# Fitting a table.


@dataclass(frozen=True)
class Request:
    """What to fit, and how; every field is an option of `weightdecay fit`.

    Args:
        data: a table as `open_source` takes it.
        target: the columns to predict.
        drop: columns to leave out.
        id: columns that name the rows: kept beside their predictions, and no inputs.
        cv: "loo", "gcv", "evidence" or a number of folds; None is "loo", or 5
            folds with groups, with time and out of core.
        lambdas: the grid in `unit`, or None.
        unit: the convention of λ.
        choose: the λ of the model: of least score, or the strongest within one standard error of it.
        shared: one λ for all targets.
        seed: shuffles the folds.
        groups: the column whose rows of one value are held out together.
        time: rows are in the order of time: train on what came before.
        weights: the column of the rows' weights.
        unpenalized: columns that are not penalised.
        standardize: divide each column by its standard deviation.
        intercept: "free", "penalized" or "none".
        out_of_core: read the table in blocks; so are folders and files that are large for the memory, too.
        engine: "dask" or a scheduler's address: read it there, in blocks.
        reading: how tables of text are written, where it is not to be found out.
        category: columns to take as categories.
        number: columns to take as numbers.
        dates: "days": dates are the days since the first one.
        missing: "refuse", "drop" or "mean".
        task: "regression" or "classification"; None is a classification of texts and of yes and no.
        judge: of a classification: what λ is chosen by.
    """

    data: str
    target: tuple[str, ...]
    drop: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    cv: str | int | None = None
    lambdas: tuple[float, ...] | None = None
    unit: str = "canonical"
    choose: Literal["best", "one-se"] = "best"
    shared: bool = False
    seed: int = 0
    groups: str | None = None
    time: bool = False
    weights: str | None = None
    unpenalized: tuple[str, ...] = ()
    standardize: bool = True
    intercept: Intercept = "free"
    out_of_core: bool = False
    engine: str | None = None
    reading: Reading | None = None
    category: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    dates: str | None = None
    missing: str = "refuse"
    task: Literal["regression", "classification"] | None = None
    judge: str | None = None

    @property
    def columns(self) -> ColumnOptions:
        """The options of the columns."""
        return ColumnOptions(self.category, self.number, self.id, self.dates, self.missing)

    def plain(self) -> dict[str, Any]:
        """All options as JSON has them; options of text and columns only where they were given."""
        options = asdict(self)
        for name in ("reading", "category", "number", "dates", "missing", "task", "judge"):
            if not options[name] or options[name] == "refuse":
                del options[name]
        return json.loads(json.dumps(options))

    def settings(self) -> dict[str, Any]:
        """What the record of a model says of the fit, beside what its path says."""
        aside = (*self.target, *self.drop, *self.id, *(name for name in (self.groups, self.weights) if name))
        without = (
            "cv",
            "lambdas",
            "reading",
            *(name for name in ("task", "judge") if not getattr(self, name)),
        )
        values = {name: value for name, value in asdict(self).items() if name not in without}
        return {**values, "not_inputs": list(dict.fromkeys(aside))}

    def penalty_factors(self, coding: Coding) -> dict[str, float] | None:
        """The factors of the columns that are not penalised.

        Raises:
            InputError: such a column is no input.
        """
        for name in self.unpenalized:
            if name not in (*coding.names, *coding.features):
                raise no_such_column(name, coding.names, "unpenalized", "the inputs are")
        return dict.fromkeys(self.unpenalized, 0.0) or None

    def options(self, coding: Coding, **more: Any) -> RidgeOptions:
        """Return the options of the path of a table of these columns; `more` is what hangs on the table.

        Raises:
            InputError: a column that is not to be penalised is no input.
        """
        return RidgeOptions(
            self.lambdas,
            unit=self.unit,
            seed=self.seed,
            penalty_factors=self.penalty_factors(coding),
            intercept=self.intercept,
            standardize=self.standardize,
            shared=self.shared,
            columns=self.columns,
            **more,
        )


@dataclass(frozen=True)
class InTimeOrder:
    """Splits for rows in the order of time: train on all rows before, test on the next stretch.

    Args:
        count: how many splits; each tests n // (count + 1) rows.

    >>> [(len(train), test.tolist()) for train, test in InTimeOrder(2).split(range(7))]
    [(3, [3, 4]), (5, [5, 6])]
    """

    count: int

    @property
    def name(self) -> str:
        """For the report."""
        return "what came before, in order of time"

    def split(self, X: Any, *_: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Training rows and test rows of each split."""
        n = len(X)
        size = n // (self.count + 1)
        if size == 0:
            raise InputError(
                "fewer rows than folds", "cv", self.count, f"there are {n} rows; use fewer folds"
            )
        for start in range(n - self.count * size, n, size):
            yield torch.arange(start), torch.arange(start, start + size)


@dataclass(frozen=True, eq=False)
class TableFit:
    """What `weightdecay fit` writes and says.

    Args:
        path: the whole path.
        model: the model at the λ that was chosen.
        out_of_fold: one row per row and target: row, the columns of `id`, target, measured, prediction, fold
            (null without folds); None where it was written while the table was read.
        held_out: the same for a figure, with R² and RMSE.
        coefficients: the coefficient path for a figure.
        importance: the columns that matter most, for a figure.
        columns: what each column of the table is.
        lines: what was chosen and why.
        doubts: what to be careful about, in sentences.
    """

    path: RidgePath
    model: RidgeModel
    out_of_fold: pl.DataFrame | None = field(repr=False)
    held_out: HeldOut = field(repr=False)
    coefficients: CoefficientPath = field(repr=False)
    importance: Importance = field(repr=False)
    columns: tuple[Column, ...] = field(repr=False)
    lines: tuple[str, ...] = field(repr=False)
    doubts: tuple[str, ...] = field(repr=False)

    @property
    def figures(self) -> dict[str, Any]:
        """What is drawn, by the name of its file."""
        views = {"cv": self.path, "coefficients": self.coefficients, "importance": self.importance}
        return {**views, "predicted": self.held_out}

    @property
    def seen(self) -> HeldOut:
        """What the page has of held-out rows beside the path."""
        return self.held_out

    def save(self, folder: str | Path) -> list[Path]:
        """Write the path, the model and out_of_fold.parquet, if it is not there; returns their paths.

        `wd.load` reads the path back, and the model from its file model.json. For spreadsheets there are
        coefficients.csv, the model's coefficients with their standard errors, path.csv, the scores of every
        λ, and out_of_fold.csv, if that has no more rows than a spreadsheet.

        Raises:
            InputError: they cannot be written; then no file is half-written.
        """
        frames = {
            "coefficients": self.path.coef_frame(self.model.lam),
            "path": self.path.frame(),
        }
        tables = save_tables(folder, self.out_of_fold, frames)
        return [*tables, *self.path.save(folder), *self.model.save(folder)]

    def to_dict(self) -> dict[str, Any]:
        """What was chosen, as plain values: the model's record without long lists, and the held-out error."""
        record = self.model.to_dict()
        for name in ("features", "coding", "means", "scales", "environment"):
            record.pop(name)
        for name in ("best", "one_se"):
            lam = getattr(self.path, name)
            record[name] = lam.tolist() if isinstance(lam, Tensor) else lam
        return {
            **record,
            "p": self.path.p,
            "cv": self.path.cv,
            "edge": self.path.edge,
            "flat": self.path.flat,
            "rmse": self.held_out.rmse.tolist(),
            "r2": self.held_out.r2.tolist(),
            "mean_rmse": self.held_out.mean_rmse.tolist(),
            "worst": json.loads(self.held_out.worst.write_json()),
            "importance": self.importance.plain(),
            "notes": [*self.path.notes],
            "columns": [column.plain() for column in self.columns],
        }


def save_tables(
    folder: str | Path, out_of_fold: pl.DataFrame | None, frames: Mapping[str, pl.DataFrame]
) -> list[Path]:
    """Write rows out of fold, if they are not there, and tables for spreadsheets, each whole or not at all.

    Args:
        folder: the folder, made if need be.
        out_of_fold: these rows; None where they were written before, or there are none.
        frames: the tables by name. Rows out of fold come beside them, if a spreadsheet can have as many.

    Raises:
        InputError: they cannot be written.
    """
    folder = writable_folder(folder)
    rows, frames = folder / NAME, dict(frames)
    if out_of_fold is not None:
        with replacing(rows) as temporary:
            out_of_fold.write_parquet(temporary)
    there = [rows] if rows.exists() else []
    if there and pl.scan_parquet(rows).select(pl.len()).collect().item() <= SPREADSHEET:
        frames["out_of_fold"] = pl.read_parquet(rows)
    for name, frame in frames.items():
        with replacing(folder / f"{name}.csv") as temporary:
            frame.write_csv(temporary)
    return [*there, *(folder / f"{name}.csv" for name in frames)]


def fit_table(
    request: Request,
    folder: Path,
    on_progress: Progress | None = None,
    on_columns: Callable[[tuple[Column, ...]], None] | None = None,
) -> TableFit:
    """Read the table, fit the whole path, and make the model at the λ that is chosen.

    Args:
        request: what to fit.
        folder: where out_of_fold.parquet is written while the table is read again, if it is out of core.
        on_progress: then called with what is done, rows done, and rows in all or None.
        on_columns: called with what each column is, before anything is fitted.

    Raises:
        InputError: the table or an option cannot be used.
    """
    cv = _cv(request)
    columns: list[Column] = []

    def looked(found: tuple[Column, ...]) -> None:
        columns.extend(found)
        if on_columns is not None:
            on_columns(found)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", WeightDecayWarning)
        if request.out_of_core or request.engine is not None or is_large(request.data):
            path, seen, lam, ranges, frame, notes = _streamed(request, cv, folder, looked, on_progress)
        else:
            path, seen, lam, ranges, frame, notes = _in_memory(request, cv, looked)
    # The record of the path says what was asked for, the model's is as it was.
    path = replace(path, settings={**path.settings, "request": request.plain()})
    model = path.model(lam)
    model = replace(model, settings={**model.settings, **request.settings()}, ranges=ranges)
    view = importance(path, lam)
    doubts = messages(caught)
    if request.choose == "one-se":  # a doubt about the best λ becomes one about the λ that was chosen
        best, chosen = interpolates(path, path.best), interpolates(path, lam)
        path, doubts = (
            replace(path, doubts=_without(path.doubts, best, chosen)),
            _without(doubts, best, chosen),
        )
    left_out = [] if path.coding is None else path.coding.left_out_said()
    return TableFit(
        path=path,
        model=model,
        out_of_fold=frame,
        held_out=seen,
        coefficients=coefficient_path(path),
        importance=view,
        columns=tuple(columns),
        lines=(*_lines(request, path, model, seen), *matters_most(view), *wrong_most(seen)),
        doubts=(*notes, *left_out, *constant_columns_said(path), *doubts),
    )


def messages(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """Return what was warned of, in both languages where it is known in both."""
    return [warning.message.args[0] for warning in caught if isinstance(warning.message, Warning)]


def _without(doubts: Sequence[Any], one: str | None, another: str | None) -> tuple[Any, ...]:
    """The sentences with `another` in place of `one`; either may be None."""
    return (*(doubt for doubt in doubts if doubt != one), *([another] if another is not None else []))


# The path, rows held out, λ, the inputs' ranges, the rows where they are still to be written, notes.
_Fitted = tuple[RidgePath, HeldOut, float | Tensor, Tensor, pl.DataFrame | None, tuple[Text, ...]]
_Shown = Callable[[tuple[Column, ...]], None]


def _in_memory(request: Request, cv: Any, on_columns: _Shown) -> _Fitted:
    ids = row_names(
        request.data, request.id, ("row", "target", "measured", "prediction", "fold"), request.reading
    )
    table = read_whole(
        request.data,
        request.target,
        request.drop,
        request.groups,
        request.weights,
        request.reading,
        request.columns,
        request.intercept == "free",
        on_columns,
    )
    single = len(request.target) == 1
    options = request.options(table.coding, cv=cv, groups=table.groups, sample_weight=table.weights)
    inputs = Inputs(tensor_of(table.X, request.data), table.coding, left_out=table.left_out)
    path = fit_path(inputs, table.y.to_series() if single else table.y, options)
    lam = path.best if request.choose == "best" else path.one_se
    y = torch.from_numpy(table.y.filter(table.kept).to_numpy().copy())
    seen = held_out(path, y[:, 0] if single else y, lam)
    folds = _fold_of_row(
        splits(cv, len(table.rows), request.seed, table.groups, table.X).scheme, len(table.rows)
    )
    fold = pl.Series("fold", folds or [None] * len(table.rows), dtype=pl.Int64).filter(table.kept)
    rows = table.rows.filter(table.kept)
    copies = repeated(table.X.filter(table.kept), table.y.filter(table.kept), rows, fold if folds else None)
    frame = _long(rows, of_rows(ids, rows), seen, fold)
    worst = _worst(frame.drop("fold"), seen.targets, seen.rmse)
    used = inputs.X.numpy()[table.kept.to_numpy()] if not table.kept.all() else inputs.X.numpy()
    ends = zip(np.fmin.reduce(used).tolist(), np.fmax.reduce(used).tolist(), strict=True)  # NaN left out
    known = dict(zip(table.coding.features, ends, strict=True))
    marks = 0.0, 1.0  # of a column that says where a cell is missing
    ranges = torch.tensor([known.get(name, marks) for name in path.features or known], dtype=torch.float64).T
    path = replace(path, doubts=(*path.doubts, *copies))
    return path, replace(seen, worst=worst), lam, ranges, frame, (*table.notes, *copies)


def _streamed(
    request: Request, cv: Any, folder: Path, on_columns: _Shown, on_progress: Progress | None
) -> _Fitted:
    for name in ("groups", "time", "id"):
        if getattr(request, name):
            what = f"a table that is read in blocks has {'rows' if name == 'id' else 'folds'} by number only"
            value = ", ".join(request.id) if name == "id" else getattr(request, name)
            raise InputError(what, name, value, "leave it out, or take a part that fits memory")

    def stage(what: str) -> Callable[[int, int | None], None] | None:
        return None if on_progress is None else partial(on_progress, what)

    table = open_source(
        request.data,
        request.target,
        request.drop,
        request.weights,
        reading=request.reading,
        options=request.columns,
        constants=request.intercept == "free",
    )
    on_columns(table.columns)
    options = request.options(
        table.coding,
        cv=5 if request.cv is None else cv,
        drop=request.drop,
        sample_weight=request.weights,
        engine=request.engine,
        on_progress=stage(Text("reading", "读取")),
    )
    target = request.target[0] if len(request.target) == 1 else request.target
    path = fit_path(table, target, options)
    lam = path.best if request.choose == "best" else path.one_se
    seen, ranges = write_held_out(path, lam, table, folder / NAME, stage(Text("predicting", "预测")))
    return path, seen, lam, ranges, None, table.notes


def _cv(request: Request) -> Any:
    if request.missing == "mean" and isinstance(request.cv, str):
        what, remedy = "means of the training rows need folds", "give a number of folds"
        raise InputError(what, "cv", repr(request.cv), remedy)
    return folds_of(request, 5 if request.missing == "mean" else "loo")


def folds_of(request: Request, otherwise: str | int) -> Any:
    """The folds that are asked for, or `otherwise`; with groups or in order of time 5 without a number.

    Raises:
        InputError: groups and time together, or without folds; too few folds.
    """
    if request.groups is not None and request.time:
        raise InputError(
            "groups and time do not go together", "groups", repr(request.groups), "leave one out"
        )
    if request.groups is None and not request.time:
        return otherwise if request.cv is None else request.cv
    if isinstance(request.cv, str):
        option = "groups" if request.groups is not None else "time"
        raise InputError(f"{option} need folds", "cv", repr(request.cv), "give a number of folds")
    count = 5 if request.cv is None else request.cv
    if count < 1 or (count < 2 and not request.time):
        raise InputError("too few folds", "cv", count, "two are needed at least")
    return InTimeOrder(count) if request.time else count


def _fold_of_row(scheme: Any, n: int) -> list[int] | None:
    """The fold that holds out each row, from 1; 0 for none. None where folds are not the way."""
    if isinstance(scheme, str):
        return None
    if isinstance(scheme, Tensor):
        return (scheme + 1).tolist()
    fold = [0] * n
    for number, (_, test) in enumerate(scheme):
        for row in test.tolist():
            fold[row] = number + 1
    return fold


def _long(rows: pl.Series, ids: dict[str, pl.Series], seen: HeldOut, fold: pl.Series) -> pl.DataFrame:
    parts = [
        pl.DataFrame(
            {
                "row": rows,
                **ids,
                "target": [name] * len(rows),
                "measured": seen.measured[:, t].numpy(),
                "prediction": seen.predicted[:, t].numpy(),
                "fold": fold,
            },
            schema_overrides={"row": pl.Int64},
        )
        for t, name in enumerate(seen.targets)
    ]
    # A row that no split holds out has no prediction.
    return pl.concat(parts).with_columns(pl.col("prediction").fill_nan(None), pl.col("fold").replace(0, None))


def _lines(request: Request, path: RidgePath, model: RidgeModel, seen: HeldOut) -> tuple[str, ...]:
    """The data, how λ was judged, what was chosen, what else could have been if it is another, the errors."""
    targets = ", ".join(request.target[:3]) + (", …" if len(request.target) > 3 else "")
    scaled, unpenalized = scaling(request)
    first, last = f"{float(path.lambdas[0]):.3g}", f"{float(path.lambdas[-1]):.3g}"
    count, unit = len(path.lambdas), request.unit
    grid = Text(f"λ = {first}", f"λ = {first} ")
    if count > 1:
        grid = Text(f"{count} λ from {first} to {last}", f"{first} 到 {last} 的 {count} 个 λ ")
    one_se = request.choose == "one-se"
    one_by_one = Text(" one by one", "（逐一留出）") if path.cv in ("gcv", "evidence") else Text("", "")
    name, p, n = Path(request.data).name, f"{path.p:,}", f"{path.n:,}"
    route = phrase(path.route)
    judged = HOW.get(path.cv, phrase(path.cv))
    chosen, other = (
        _choice(path, lam) for lam in ((path.one_se, path.best) if one_se else (path.best, path.one_se))
    )
    why = Text("the least score", "得分最小")
    besides = Text(
        f"besides: {other}, within one standard error (--choose one-se)",
        f"另外：{other.zh}，在一倍标准误之内（--choose one-se）",
    )
    if one_se:
        why = Text(
            "the strongest λ within one standard error of the least score",
            "得分在最小值一倍标准误之内的最强 λ",
        )
        besides = Text(
            f"besides: {other}, the least score (--choose best)",
            f"另外：{other.zh}，得分最小（--choose best）",
        )
    same = torch.equal(torch.as_tensor(path.best), torch.as_tensor(path.one_se))
    off, noise = off_by(seen), _noise(model)
    return (
        Text(
            f"{targets} from {p} columns, {scaled}{unpenalized}; {n} rows of {name}",
            f"用 {p} 列{scaled.zh}预测 {targets}{unpenalized.zh}；{name} 的 {n} 行",
        ),
        Text(
            f"judged by {judged} at {grid} ({unit}); decomposed once: {route}",
            f"用{judged.zh}在 {grid.zh}上评判（{unit}）；只分解一次：{route.zh}",
        ),
        Text(f"chosen: {chosen}, {why}", f"选定：{chosen.zh}，{why.zh}"),
        *([] if same else [besides]),
        Text(f"held out{one_by_one}: {off}; {noise}", f"留出{one_by_one.zh}：{off.zh}；{noise.zh}"),
    )


def scaling(request: Request) -> tuple[Text, Text]:
    """Say whether columns are standardised, and how many are not penalised."""
    scaled = Text("as they are", "（保持原样）")
    if request.standardize:
        scaled = Text("standardised", "（已标准化）")
    count = len(request.unpenalized)
    if not count:
        return scaled, Text("", "")
    return scaled, Text(f", {count} of them not penalised", f"，其中 {count} 列不受惩罚")


def off_by(seen: HeldOut) -> Text:
    """Say what the error is in the target's own units, and what it is without any column."""
    rmse, mean, r2 = (_several(values) for values in (seen.rmse, seen.mean_rmse, seen.r2))
    return Text(
        f"off by {rmse} (root mean square), R² {r2}; predicting the mean is off by {mean}",
        f"误差为 {rmse}（均方根），R² {r2}；只用均值预测的误差为 {mean}",
    )


def matters_most(view: Importance) -> tuple[Text, ...]:
    """Say which columns matter most, ten in all and some at least of each of three targets."""
    targets = view.targets[:3]
    level = f"{100 * view.level:g} %"
    said = [
        Text(
            f"matter most ({view.effect}, {level} interval):",
            f"最重要的列（{view.effect.zh}，{level} 区间）：",
        )
    ]
    shown = [names[: max(3, 10 // len(targets))] for names in view.names[: len(targets)]]
    width = min(40, max(len(name) for names in shown for name in names))
    for t, names in enumerate(shown):
        if len(view.targets) > 1:
            said.append(Text(f"  {targets[t]}", f"  {targets[t]}"))
        values = [short_number(value) for value in view.coef[t, : len(names)].tolist()]
        wide = max(map(len, values))
        for m, name in enumerate(names):
            short = name if len(name) <= width else f"{name[: width - 1]}…"
            line = f"  {short:{width}}  {values[m]:>{wide}}"
            ends = view.ends(t, m)
            said.append(
                Text(line + (f"  ({ends})" if ends else ""), line + (f"  ({ends.zh})" if ends else ""))
            )
    return tuple(said)


def short_number(value: float) -> str:
    """Three digits, or all before the point up to a million.

    >>> short_number(-1359.2), short_number(0.91234), short_number(2e9)
    ('-1,359', '0.912', '2e+09')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def wrong_most(seen: HeldOut) -> tuple[Text, ...]:
    """Say in which rows the error is largest, by their numbers and the columns that name them."""
    if seen.worst.is_empty():
        return ()
    said = [Text("wrong most, held out:", "留出时误差最大的行：")]
    for row in seen.worst.iter_rows(named=True):
        number, target, measured, predicted = (
            row.pop(name) for name in ("row", "target", "measured", "prediction")
        )
        named = "; ".join(f"{name} {value}" for name, value in row.items())
        of = f"{target} " if len(seen.targets) > 1 else ""
        en, zh = (f" ({named})", f"（{named}）") if named else ("", "")
        said.append(
            Text(
                f"  row {number}{en}: {of}{measured:.4g} measured, {predicted:.4g} predicted",
                f"  第 {number} 行{zh}：{of}测量值 {measured:.4g}，预测值 {predicted:.4g}",
            )
        )
    return tuple(said)


def _noise(model: RidgeModel) -> Text:
    """The noise, where degrees of freedom are left to tell it from."""
    left = model.n - torch.as_tensor(model.dof, dtype=torch.float64)
    if bool((left < LEAST_LEFT).all()):
        return Text("no noise sd: no degrees of freedom are left", "没有噪声标准差：没有剩余的自由度")
    sd = _several(torch.where(left >= LEAST_LEFT, model.noise_sd, torch.nan))
    return Text(f"noise sd {sd}".replace("nan", "none"), f"噪声标准差 {sd}".replace("nan", "无"))


def _choice(path: RidgePath, lam: float | Tensor) -> Text:
    """λ, its degrees of freedom and its score."""
    values = torch.as_tensor(lam, dtype=torch.float64).reshape(-1)
    places = [int((path.lambdas - value).abs().argmin()) for value in values]
    scores = path.scores.reshape(len(path.lambdas), -1)
    chosen = _several(scores[places[0]] if len(places) == 1 else scores[places].diagonal())
    what = Text("score", "得分") if path.cv in ("gcv", "evidence") else Text("mean squared error", "均方误差")
    dof, shown = _several(path.dof[places]), _several(values)
    return Text(
        f"λ = {shown} with {dof} degrees of freedom and {what} {chosen}",
        f"λ = {shown}，自由度 {dof}，{what.zh} {chosen}",
    )


def _several(values: float | Tensor, most: int = 3) -> str:
    numbers = [f"{value:.3g}" for value in torch.as_tensor(values).reshape(-1).tolist()]
    return " / ".join(numbers[:most]) + (" / …" if len(numbers) > most else "")


# Predictions out of fold of a table that is read in blocks, and of a folder that was written.


@dataclass
class _Sums:
    """What R² and RMSE are made of, about the first block's mean."""

    count: Float64[Tensor, " t"]
    squares: Float64[Tensor, " t"]
    first: Float64[Tensor, " t"]
    about: Float64[Tensor, " t"]
    about2: Float64[Tensor, " t"]


def write_held_out(
    path: RidgePath,
    lam: float | Tensor,
    table: Source,
    file: Path,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> tuple[HeldOut, Float64[Tensor, "2 p"]]:
    """Write the prediction of every row while it was held out: row, target, measured, prediction, fold.

    Rows are numbered from 1 through all shards; blank lines of a CSV are no rows, but count. Rows of weight 0
    are left out.

    Args:
        path: of the table.
        lam: λ, or one for each target.
        table: the same files, targets and weights.
        file: the .parquet file to write.
        on_progress: called with rows done, and None.

    Returns:
        R², RMSE, and the first rows for a figure; the least and the greatest value of each input.

    Raises:
        InputError: the table has changed, or the file cannot be written.
    """
    names, folds = target_names(path), 0 if path.fold_scores is None else len(path.fold_scores)
    seed = path.settings["seed"]
    shown: list[tuple[Tensor, Tensor]] = []
    sums: _Sums | None = None
    worst: pl.DataFrame | None = None
    ranges = torch.tensor([[math.inf], [-math.inf]], dtype=torch.float64).repeat(1, path.p)

    def frames(*_: Any) -> Iterator[pl.DataFrame]:
        nonlocal sums, worst
        first = before = last = 0
        for block, predicted in _beside(path, lam, table):
            if block.rows[0] <= last:  # the next shard
                before += last
            last = int(block.rows[-1])
            kept = torch.arange(len(block.y)) if block.weights is None else block.weights.nonzero()[:, 0]
            measured = block.y[kept]
            sums = _added(sums, measured, predicted)
            if sum(len(y) for y, _ in shown) < SHOWN:
                shown.append((measured[:SHOWN], predicted[:SHOWN]))
            fold = fold_ids(first, len(block.y), folds, seed)[kept] + 1 if folds else None
            frame = _frame(before + block.rows[kept], measured, predicted, names, fold)
            if len(kept):
                X = block.X if len(kept) == len(block.X) else block.X[kept]
                ends = X.aminmax(dim=0)
                torch.minimum(ranges[0], ends.min.double(), out=ranges[0])
                torch.maximum(ranges[1], ends.max.double(), out=ranges[1])
                largest = (predicted - measured).abs().topk(min(WORST, len(kept)), dim=0).indices
                places = (largest * len(names) + torch.arange(len(names))).T.reshape(-1)
                some = frame.drop("fold")[places.tolist()]
                some = some if worst is None else pl.concat([worst, some])
                error = (pl.col("prediction") - pl.col("measured")).abs()
                worst = some.filter(error.rank("ordinal", descending=True).over("target") <= WORST)
            yield frame
            first += len(block.y)
            if on_progress is not None:
                on_progress(first, table.rows)

    schema = {
        "row": pl.Int64,
        "target": pl.String,
        "measured": pl.Float64,
        "prediction": pl.Float64,
        "fold": pl.Int64,
    }
    with replacing(file) as temporary:
        try:
            register_io_source(frames, schema=schema).sink_parquet(temporary, maintain_order=True)
        except pl.exceptions.PolarsError as error:
            raise unwritable(file, error) from error
    assert sums is not None
    assert worst is not None
    spread = sums.about2 - sums.about**2 / sums.count
    measured, predicted = (torch.cat(parts)[:SHOWN] for parts in zip(*shown, strict=True))
    how = "loo" if path.cv in ("gcv", "evidence") else path.cv
    rmse, mean_rmse = (sums.squares / sums.count).sqrt(), (spread / sums.count).sqrt()
    worst = _worst(worst, names, rmse)
    seen = HeldOut(names, measured, predicted, rmse, 1 - sums.squares / spread, mean_rmse, how, worst)
    return seen, ranges


def _added(sums: _Sums | None, y: Float64[Tensor, "b t"], predicted: Float64[Tensor, "b t"]) -> _Sums:
    if sums is None:
        zero = y.new_zeros(y.shape[1])
        sums = _Sums(zero, zero, y.mean(0), zero, zero)
    away = y - sums.first
    return _Sums(
        sums.count + len(y),
        sums.squares + ((predicted - y) ** 2).sum(0),
        sums.first,
        sums.about + away.sum(0),
        sums.about2 + (away**2).sum(0),
    )


def _beside(
    path: RidgePath, lam: float | Tensor, table: Source
) -> Iterator[tuple[RowBlock, Float64[Tensor, "k t"]]]:
    """Blocks of the table, and the predictions of their rows of positive weight."""
    ready = torch.empty(0, path.scores[0].numel(), dtype=torch.float64)
    # Rows without a weight are predicted, too, where rows come from the file itself.
    among_all = isinstance(path._solver, Tall)
    pieces = path.out_of_fold_blocks(lam)
    for block in table.blocks():
        kept = None if block.weights is None else block.weights > 0
        need = len(block.y) if among_all or kept is None else int(kept.sum())
        while len(ready) < need:
            ready = torch.cat([ready, next(pieces).reshape(-1, ready.shape[1])])
        predicted, ready = ready[:need], ready[need:]
        yield block, predicted[kept] if among_all and kept is not None else predicted


def _frame(
    rows: Tensor, measured: Tensor, predicted: Tensor, names: Sequence[str], fold: Tensor | None
) -> pl.DataFrame:
    """Some rows, a target after the other within a row."""
    count, t = predicted.shape
    return pl.DataFrame(
        {
            "row": rows.repeat_interleave(t).numpy(),
            "target": list(names) * count,
            "measured": measured.reshape(-1).numpy(),
            "prediction": predicted.reshape(-1).numpy(),
            "fold": None if fold is None else fold.repeat_interleave(t).numpy(),
        },
        schema_overrides={"fold": pl.Int64},
    )


def load_held_out(folder: str | Path, path: RidgePath) -> HeldOut:
    """Load what `weightdecay fit` wrote beside a path.

    Args:
        folder: where they are.
        path: what they were predicted by.

    Returns:
        R² and RMSE of all rows, those of largest error; of the first 5,000 what was measured and predicted.

    Raises:
        InputError: the file cannot be read, or has other rows or targets than the path.
    """
    file, names = Path(folder) / NAME, target_names(path)
    try:
        table = pl.scan_parquet(file)
        sums = _sums(table)
        if set(sums) != set(names) or any(row["rows"] != path.n for row in sums.values()):
            sizes = ", ".join(f"{name}: {row['rows']:,}" for name, row in sums.items())
            what = f"not the rows of path.json, {path.n:,} of each of {', '.join(names)}"
            raise InputError(what, str(file), sizes, "fit it again")
        shown = [table.filter(pl.col("target") == name).head(SHOWN).collect() for name in names]
        measured, predicted = (
            torch.stack([_numbers(rows[column]) for rows in shown], 1)
            for column in ("measured", "prediction")
        )
        error = (pl.col("prediction") - pl.col("measured")).abs()
        candidates = pl.concat(
            [
                table.filter(pl.col("target") == name, pl.col("prediction").is_not_null())
                .drop("fold")
                .top_k(WORST, by=error)
                .collect()
                for name in names
            ]
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(file, error, "fit it again") from error
    rmse, r2, mean_rmse = (
        _numbers(pl.Series([sums[name][key] for name in names])) for key in ("rmse", "r2", "mean_rmse")
    )
    worst = _worst(candidates, names, rmse)
    return HeldOut(names, measured, predicted, rmse, r2, mean_rmse, path.cv, worst)


def _sums(table: pl.LazyFrame) -> dict[str, dict[str, float]]:
    """Rows, and errors of each target; rows that were never held out count as rows alone."""
    measured = pl.col("measured").filter(pl.col("prediction").is_not_null())
    squares = (pl.col("prediction") - pl.col("measured")) ** 2
    sums = table.group_by("target").agg(
        pl.len().alias("rows"),
        squares.mean().sqrt().alias("rmse"),
        (1 - squares.sum() / ((measured - measured.mean()) ** 2).sum()).alias("r2"),
        ((measured - measured.mean()) ** 2).mean().sqrt().alias("mean_rmse"),
    )
    return {row.pop("target"): row for row in sums.collect().iter_rows(named=True)}


def _numbers(values: pl.Series) -> Tensor:
    return torch.from_numpy(values.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy())
