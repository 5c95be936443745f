"""A fitted ridge model: predictions, intervals, and a folder of two plain files that holds it."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64
from polars.io.plugins import register_io_source
from torch import Tensor

from weightdecay.arguments import choice, probability
from weightdecay.errors import InputError
from weightdecay.ridge.gram import Covariance
from weightdecay.ridge.linalg import on_cpu
from weightdecay.ridge.problem import matched
from weightdecay.ridge.sparse_inputs import SparseInputs
from weightdecay.saving import KINDS, Saved, environment, plain, replacing, save, unwritable, writable_folder
from weightdecay.select import student_t
from weightdecay.tables.cells import no_rows
from weightdecay.tables.columns import UNSEEN, Coding
from weightdecay.tables.dialect import Reading
from weightdecay.tables.source import (
    column_types,
    files_of,
    new_rows,
    notes_of,
    of_rows,
    row_names,
    without_name,
)
from weightdecay.text import Text

LEAST_LEFT = 1.0  # degrees of freedom for the noise, without which there are no intervals
# What is a number or a tensor of numbers: kept in model.safetensors, to the bit.
_NUMBERS = ("coef", "intercept", "lam", "alpha", "dof", "noise_sd", "mean", "scale")


@dataclass(frozen=True, eq=False)
class RidgeModel:
    """ŷ = X b + b0, with what is needed to use it, to doubt it and to know where it came from.

    Args:
        coef: b, on the original scale of the columns: (p,), or (p, t) for t targets.
        intercept: b0, () or (t,).
        features: the columns' names; None where it was fitted on a tensor without names.
        targets: the targets' names, or None.
        lam: the strength, in `unit`; for several targets one, or one each (t,).
        unit: its convention, a name of `wd.units`.
        alpha: the same in the sum convention, scikit-learn's alpha.
        n: rows it was fitted on.
        dof: effective degrees of freedom, one or (t,).
        noise_sd: σ̂, √(RSS / (n − dof)), () or (t,); of a row of mean weight. NaN where n − dof is 0
            but for rounding.
        mean: the training inputs' means (p,).
        scale: their standard deviations, divided by n, (p,).
        covariance: (X'X + αF)^-1 in a form that serves intervals; None where it is not kept.
        settings: everything that was chosen, as plain values.
        coding: how the columns of a table become the features; None where they are numbers as they stand.
        ranges: the least and the greatest value of each input among the training rows; None where they were
            not kept, as in files of earlier versions.
    """

    coef: Float64[Tensor, "p *t"] = field(repr=False)
    intercept: Float64[Tensor, "*t"]
    features: tuple[str, ...] | None = field(repr=False)
    targets: tuple[str, ...] | None
    lam: float | Float64[Tensor, " t"]
    unit: str
    alpha: float | Float64[Tensor, " t"]
    n: int
    dof: float | Float64[Tensor, " t"]
    noise_sd: Float64[Tensor, "*t"]
    mean: Float64[Tensor, " p"] = field(repr=False)
    scale: Float64[Tensor, " p"] = field(repr=False)
    covariance: Covariance | None = field(default=None, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    coding: Coding | None = field(default=None, repr=False)
    ranges: Float64[Tensor, "2 p"] | None = field(default=None, repr=False)

    def predict(self, X: Any, unseen: str = "refuse") -> Float64[Tensor, "m *t"]:
        """Predictions for new rows: (m,), or (m, t) for several targets, on the device of X.

        Args:
            X: tensor or array (m, p), sparse or not, its columns in the order of the fit; or a polars or
                pandas DataFrame, matched by name in any order.
            unseen: "base" takes levels that the fit has not seen as the most frequent one.

        Raises:
            InputError: columns that are missing or unknown, cells that are not finite, levels that the fit
                has not seen.
        """
        return self._predict(self._matched(X, unseen))

    @on_cpu()
    def interval(self, X: Any, level: float = 0.9, unseen: str = "refuse") -> tuple[Tensor, Tensor]:
        """Prediction intervals: where a new measurement of each row lies with probability `level`.

            ŷ ± t σ̂ √(1 + v),   t of n − dof degrees of freedom, v the variance of ŷ in units of σ²

        Convention: noise of equal variance, and a model that is right: the bias of shrinking is not counted,
        nor that λ was chosen from the same rows. In 500 simulated tables of 100 rows, the signal as large as
        the noise, intervals of .9 hold 89.7 % of new measurements with 10 columns, 90.0 % with 30 and 89.7 %
        with 90, each ± 0.3, where λ is known; where leave-one-out chooses it 89.7, 89.5 and 89.0 %
        (python tests/ridge/test_coverage.py, 2026-11-30, 2 cores).

        Args:
            X: as in `predict`.
            level: the probability, between 0 and 1.
            unseen: as in `predict`.

        Returns:
            The lower and the upper ends, each of the shape of the predictions.

        Raises:
            InputError: the level is no probability; the covariance was not kept; fewer than one degree of
                freedom is left for the noise.
        """
        probability(level, "level")
        if self.covariance is None:
            what = "no intervals without the covariance of the coefficients"
            remedy = "fit with fewer columns or rows, or take the spread of the held-out errors"
            reason = self.settings.get("no_covariance") or remedy
            raise InputError(what, "covariance", "not kept", str(reason))
        left = self.n - torch.as_tensor(self.dof, dtype=torch.float64)
        if not bool((left >= LEAST_LEFT).all()):
            what = (
                "the model interpolates its training rows, and no degrees of freedom are left for the noise"
            )
            remedy = self.settings.get("no_noise") or "fit with a larger λ (--choose one-se), or on more rows"
            raise InputError(what, "n − dof", f"{float(left.min()):.3g}", str(remedy))
        rows = self._matched(X, unseen)
        middle = self._predict(rows)
        t = torch.tensor(
            [student_t(level, float(freedom)) for freedom in left.reshape(-1)], dtype=torch.float64
        )
        sparse = isinstance(rows, SparseInputs)
        blocks = (block for _, block in rows.blocks()) if sparse else [rows.cpu()]
        spread = (1 + torch.cat([self.covariance.variance(block) for block in blocks])).sqrt()
        noise = (t.reshape(left.shape) * self.noise_sd.cpu()).to(middle.device)
        spread = spread.to(middle.device)
        half = noise * (spread[:, None] if middle.ndim > spread.ndim else spread)
        return middle - half, middle + half

    def outside(self, X: Any, unseen: str = "refuse") -> Bool[Tensor, "m p"]:
        """Where an input of a new row is outside the range that it had in the training rows.

        By more than a millionth of that range. There the model extrapolates, and its intervals do not count
        what is not linear.

        Args:
            X: as in `predict`.
            unseen: as in `predict`.

        Raises:
            InputError: as in `predict`; the ranges were not kept.
        """
        if self.ranges is None:
            what = "the ranges of the training rows were not kept"
            raise InputError(what, "ranges", None, "fit it again with `weightdecay fit`")
        rows = self._matched(X, unseen)
        low, high = self.ranges.to(rows.device)
        slack = 1e-6 * (high - low)
        blocks = (block for _, block in rows.blocks()) if isinstance(rows, SparseInputs) else [rows]
        return torch.cat([(block < low - slack) | (block > high + slack) for block in blocks])

    def save(self, folder: str | Path) -> list[Path]:
        """Write model.safetensors and model.json into a folder, made if need be; returns their paths.

        Either both files are replaced or neither; model.json has the checksum of the other.

        Raises:
            InputError: they cannot be written.
        """
        tensors: dict[str, float | Tensor] = {name: getattr(self, name) for name in _NUMBERS}
        if self.covariance is not None:
            tensors |= {f"covariance.{name}": part for name, part in self.covariance.tensors().items()}
        if self.ranges is not None:
            tensors["ranges"] = self.ranges
        return save(folder, "model.json", self.to_dict(), {"model.safetensors": tensors})

    def to_dict(self) -> dict[str, Any]:
        """All but the coefficients and the covariance, as plain values; null where a number is not finite."""
        return {
            **KINDS["model.json"].about,
            "targets": self.targets,
            "lambda": plain(self.lam),
            "unit": self.unit,
            "alpha": plain(self.alpha),
            "n": self.n,
            "dof": plain(self.dof),
            "noise_sd": plain(self.noise_sd),
            "intercept": plain(self.intercept),
            "settings": dict(self.settings),
            "environment": environment(),
            "features": self.features,
            "coding": None if self.coding is None else self.coding.to_dict(),
            "means": plain(self.mean),
            "scales": plain(self.scale),
        }

    def outputs(self, X: Any = None, level: float | None = None) -> dict[str, Any]:
        """What `weightdecay predict` writes of new rows, by column; without rows the columns' names alone."""
        kinds = ("predicted",) if level is None else ("predicted", "low", "high")
        names = self.targets or ("target",)
        if X is None:
            return dict.fromkeys(f"{name}_{kind}" for name in names for kind in kinds)
        values = [self.predict(X), *(() if level is None else self.interval(X, level))]
        return {
            f"{name}_{kind}": (each if each.ndim == 1 else each[:, t]).numpy()
            for t, name in enumerate(names)
            for kind, each in zip(kinds, values, strict=True)
        }

    def _matched(self, X: Any, unseen: str) -> Float64[Tensor, "m p"] | SparseInputs:
        choice(unseen, "unseen", UNSEEN)
        return matched(X, self.features, len(self.coef), coding=self.coding, unseen=unseen)

    def _predict(self, rows: Float64[Tensor, "m p"] | SparseInputs) -> Float64[Tensor, "m *t"]:
        return rows @ self.coef.to(rows.device) + self.intercept.to(rows.device)


def from_saved(saved: Saved) -> RidgeModel:
    """Make the model that `RidgeModel.save` wrote."""
    tensors = saved.tensors("model.safetensors")
    parts = {
        name.removeprefix("covariance."): t for name, t in tensors.items() if name.startswith("covariance.")
    }
    numbers: dict[str, Any] = {name: tensors[name] for name in _NUMBERS}
    for name in ("lam", "alpha", "dof"):
        numbers[name] = numbers[name] if numbers[name].ndim else float(numbers[name])
    features, targets = saved["features"], saved["targets"]
    return RidgeModel(
        **numbers,
        features=None if features is None else tuple(features),
        targets=None if targets is None else tuple(targets),
        **{name: saved[name] for name in ("unit", "n", "settings")},
        covariance=Covariance.of(parts, tensors["mean"]) if parts else None,
        coding=coding_of(saved),
        ranges=tensors.get("ranges"),
    )


def coding_of(saved: Saved) -> Coding | None:
    """Read how columns become features; files of earlier versions do not have it."""
    values = saved.values.get("coding")
    return None if values is None else Coding.from_dict(values)


Progress = Callable[[int], None]


@runtime_checkable
class TableModel(Protocol):
    """A model that predicts the rows of a table: what `predict_file` needs of it."""

    @property
    def features(self) -> tuple[str, ...] | None:
        """The columns' names."""

    @property
    def coding(self) -> Coding | None:
        """How the columns of a table become the features."""

    @property
    def ranges(self) -> Float64[Tensor, "2 p"] | None:
        """The least and the greatest value of each input among the training rows."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was chosen."""
        ...

    def outside(self, X: Any) -> Bool[Tensor, "m p"]:
        """Where an input is outside its range."""
        ...

    def outputs(self, X: Any, level: float | None) -> dict[str, Any]:
        """Predictions by column; without rows the columns' names alone."""
        ...


@dataclass(frozen=True)
class Predicted:
    """What was written.

    Args:
        rows: how many rows.
        columns: the columns of the file.
        path: the file.
        outside: in how many rows an input is outside its range in the training rows; None where the model
            does not know it.
        outside_of: by input, in how many rows.
        notes: what was found of how the table is written, and of rows outside, in sentences.
    """

    rows: int
    columns: tuple[str, ...]
    path: Path
    outside: int | None = None
    outside_of: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[Text, ...] = ()


def predict_file(
    model: TableModel,
    data: str | Path,
    out: str | Path,
    level: float | None = None,
    on_progress: Progress | None = None,
    ids: Sequence[str] | None = None,
    force: bool = False,
    reading: Reading | None = None,
    unseen: str = "refuse",
) -> Predicted:
    """Predict every row of a table, matched by name, and write a .csv or .parquet file, by its ending.

    Its columns: row, the row's number in the table; the columns that name the rows; <target>_predicted; with
    a level also <target>_low and <target>_high; of a classification <target>_p_<class> for each class; where
    the model knows the ranges of its inputs, outside: of how many inputs the row is outside the range of the
    training rows.

    Args:
        model: from `wd.load`.
        data: a table of any length; its columns are those of the fit, in any order. Columns
            that were a target, dropped, a group or a weight at the fit may be there and are not looked at.
        out: the file to write.
        level: the probability of a prediction interval, or None for none.
        on_progress: called with the number of rows that are done.
        ids: columns of the table that name its rows; by default those of the fit that are there.
        force: replace a file that has other columns.
        reading: how a table of text is written, where it is not to be found out.
        unseen: take levels that the fit has not seen as the most frequent one ("base"), or refuse them.

    Raises:
        InputError: a table or a level that cannot be used, or a file that cannot be written or has other
            columns; then none is written.
    """
    data, out = Path(data), Path(out)
    choice(unseen, "unseen", UNSEEN)
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(
            "not a kind of table this program writes", "out", str(out), "end it in .csv or .parquet"
        )
    if out.exists() and data.exists() and out.samefile(data):
        raise InputError("the output would replace the input", "out", str(out), "choose another name")
    if model.features is None:
        raise InputError("the model has no column names", "model", None, "fit it on a table")
    ranges = _Outside(model)
    blocks = _blocks(
        model, data, level, on_progress, _ids(model, data, ids, level, reading), reading, unseen, ranges
    )
    first = next(
        blocks, None
    )  # before a file or a folder is made: most that is wrong shows in the first block
    if first is None:
        raise no_rows(data)
    if out.is_file() and not force and _columns(out) != first.columns:
        remedy = "choose another name, or replace it with --force"
        raise InputError("a file with other columns would be replaced", "out", str(out), remedy)
    writable_folder(out.parent)
    count = 0

    def source(*_: Any) -> Iterator[pl.DataFrame]:
        nonlocal count
        for block in itertools.chain([first], blocks):
            count += block.height
            yield block

    with replacing(out) as temporary:
        lazy = register_io_source(source, schema=first.schema)
        try:
            if out.suffix.lower() == ".csv":
                lazy.sink_csv(temporary, maintain_order=True)
            else:
                lazy.sink_parquet(temporary, maintain_order=True)
        except pl.exceptions.PolarsError as error:
            raise unwritable(out, error) from error
    known = (*model.features, *(() if model.coding is None else model.coding.left_out))
    index = [name for name in without_name(_columns(data, reading)) if name not in known]
    unnamed = Text("left out: the first column, which has no name", "去掉了没有名称的第一列")
    notes = (*notes_of(data, reading), *([unnamed] if index else ()), *ranges.notes(count))
    outside = None if model.ranges is None else ranges.rows
    return Predicted(count, tuple(first.columns), out, outside, ranges.columns(), notes)


class _Outside:
    """Counts of rows outside the range of the training rows, and in which inputs."""

    def __init__(self, model: TableModel) -> None:
        self.model, self.rows = model, 0
        self.counts = torch.zeros(len(model.features or ()), dtype=torch.int64)

    def add(self, X: np.ndarray) -> np.ndarray | None:
        """Of how many inputs each row is outside; None where the model does not know."""
        if self.model.ranges is None:
            return None
        where = self.model.outside(X)
        self.counts += where.sum(0)
        each = where.sum(1)
        self.rows += int((each > 0).sum())
        return each.numpy()

    def columns(self) -> dict[str, int]:
        """The inputs by the number of rows, the most first."""
        order = self.counts.argsort(descending=True, stable=True)
        features = self.model.features
        assert features is not None
        return {features[j]: int(self.counts[j]) for j in order.tolist() if self.counts[j] > 0}

    def notes(self, count: int) -> tuple[Text, ...]:
        """Say how many rows are outside, and of which inputs; nothing where none is."""
        columns = self.columns()
        if not columns:
            return ()
        each = ", ".join(f"{name!r} {rows:,}" for name, rows in itertools.islice(columns.items(), 5))
        more = len(columns) - 5
        spread = Text("intervals", "预测区间")
        if hasattr(self.model, "classes"):
            spread = Text("probabilities", "概率")
        return (
            Text(
                f"outside the range of the training rows: {self.rows:,} of {count:,} rows "
                f"(column 'outside'), by input: {each}"
                + (f" and {more:,} inputs more" if more > 0 else "")
                + f"; there the model extrapolates, and {spread} do not count that",
                f"{count:,} 行中有 {self.rows:,} 行超出训练行的取值范围（见 outside 列），按输入计：{each}"
                + (f" 等共 {len(columns):,} 个输入" if more > 0 else "")
                + f"；模型在那里是外推，{spread.zh}没有计入这一点",
            ),
        )


def _ids(
    model: TableModel, data: Path, names: Sequence[str] | None, level: float | None, reading: Reading | None
) -> pl.DataFrame:
    """The columns that name the rows."""
    taken = ["row", "outside", *model.outputs(None, level)]
    if names is None:
        known = _columns(data, reading)
        names = [name for name in model.settings.get("id", ()) if name in known]
    return row_names(data, names, taken, reading)


def _columns(file: Path, reading: Reading | None = None) -> list[str]:
    """The columns of a table; none where it is no table."""
    try:
        return [name for part in files_of(file, reading) for name in column_types(part)]
    except InputError:
        return []


def _blocks(
    model: TableModel,
    data: Path,
    level: float | None,
    on_progress: Progress | None,
    ids: pl.DataFrame,
    reading: Reading | None,
    unseen: str,
    ranges: _Outside,
) -> Iterator[pl.DataFrame]:
    assert model.features is not None
    done = 0
    ignored = (*model.settings.get("not_inputs", ()), *ids.columns)
    for rows, X in new_rows(data, model.coding or model.features, ignored, reading, unseen):
        block = _predicted(model, rows, of_rows(ids, rows), X, level)
        outside = ranges.add(X)
        yield block if outside is None else block.with_columns(outside=pl.Series(outside))
        done += len(rows)
        if on_progress is not None:
            on_progress(done)


def _predicted(
    model: TableModel, rows: pl.Series, ids: dict[str, pl.Series], X: np.ndarray, level: float | None
) -> pl.DataFrame:
    return pl.DataFrame({"row": rows, **ids, **model.outputs(X, level)})
