"""New rows of a file -> a file of predictions, in blocks, whole or not at all: `weightdecay predict`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from weightdecay.errors import InputError
from weightdecay.files import replacing, writable_folder
from weightdecay.ridge.model import RidgeModel
from weightdecay.ridge.tabular import new_rows, of_rows, row_names
from weightdecay.tables.source import column_types, files_of

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Predicted:
    """What was written.

    Args:
        rows: how many rows.
        columns: the columns of the file.
        path: the file.
    """

    rows: int
    columns: tuple[str, ...]
    path: Path


def predict_file(
    model: RidgeModel,
    data: str | Path,
    out: str | Path,
    level: float | None = None,
    on_progress: Progress | None = None,
    ids: Sequence[str] | None = None,
    force: bool = False,
) -> Predicted:
    """Predict every row of a table, matched by name, and write a .csv or .parquet file, by its ending.

    Its columns: row, the row's number in the table; the columns that name the rows; <target>_predicted; with
    a level also <target>_low and <target>_high.

    Args:
        model: from `load_model`.
        data: a .csv or .parquet file of any length; its columns are those of the fit, in any order. Columns
            that were a target, dropped, a group or a weight at the fit may be there and are not looked at.
        out: the file to write.
        level: the probability of a prediction interval, or None for none.
        on_progress: called with the number of rows that are done.
        ids: columns of the table that name its rows; by default those of the fit that are there.
        force: replace a file that has other columns.

    Raises:
        InputError: a table or a level that cannot be used, or a file that cannot be written or has other
            columns; then none is written.
    """
    data, out = Path(data), Path(out)
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(
            "not a kind of table this program writes", "out", str(out), "end it in .csv or .parquet"
        )
    if out.exists() and data.exists() and out.samefile(data):
        raise InputError("the output would replace the input", "out", str(out), "choose another name")
    if model.features is None:
        raise InputError("the model has no column names", "model", None, "fit it on a table")
    blocks = _blocks(model, data, level, on_progress, _ids(model, data, ids, level))
    first = next(
        blocks, None
    )  # before a file or a folder is made: most that is wrong shows in the first block
    if first is None:
        raise InputError("the table has no rows", str(data), None, "give a file with a header and rows")
    if out.is_file() and not force and _columns(out) != first.columns:
        remedy = "choose another name, or replace it with --force"
        raise InputError("a file with other columns would be replaced", "out", str(out), remedy)
    writable_folder(out.parent)
    count = 0

    def source(*_: Any) -> Iterator[pl.DataFrame]:
        nonlocal count
        for block in _chained(first, blocks):
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
            reason = str(error).splitlines()[0]
            raise InputError("a file cannot be written", str(out), reason, "choose another folder") from error
    return Predicted(count, tuple(first.columns), out)


def _ids(model: RidgeModel, data: Path, given: Sequence[str] | None, level: float | None) -> pl.DataFrame:
    """The columns that name the rows."""
    kinds = ("predicted",) if level is None else ("predicted", "low", "high")
    taken = ["row", *(f"{name}_{kind}" for name in model.targets or ("target",) for kind in kinds)]
    if given is None:
        known = _columns(data)
        given = [name for name in model.settings.get("id", ()) if name in known]
    return row_names(data, given, taken)


def _columns(file: Path) -> list[str]:
    """The columns of a table; none where it is no table."""
    try:
        return [name for one in files_of(file) for name in column_types(one)]
    except InputError:
        return []


def _blocks(
    model: RidgeModel, data: Path, level: float | None, on_progress: Progress | None, ids: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    assert model.features is not None
    done = 0
    for rows, X in new_rows(data, model.features, (*model.settings.get("not_inputs", ()), *ids.columns)):
        yield _predicted(model, rows, of_rows(ids, rows), X, level)
        done += len(rows)
        if on_progress is not None:
            on_progress(done)


def _chained(first: pl.DataFrame, rest: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    yield first
    yield from rest


def _predicted(
    model: RidgeModel, rows: pl.Series, ids: dict[str, pl.Series], X: np.ndarray, level: float | None
) -> pl.DataFrame:
    values = {"predicted": model.predict(X)}
    if level is not None:
        values["low"], values["high"] = model.interval(X, level)
    names = model.targets or ("target",)
    columns: dict[str, Any] = {"row": rows, **ids}
    for t, name in enumerate(names):
        for kind, numbers in values.items():
            columns[f"{name}_{kind}"] = (numbers if numbers.ndim == 1 else numbers[:, t]).numpy()
    return pl.DataFrame(columns)
