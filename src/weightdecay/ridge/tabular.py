"""Tables of a ridge fit: inputs, targets, groups and weights of a file; and a file of new rows, in blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from weightdecay.errors import InputError
from weightdecay.memory import available
from weightdecay.ridge.matching import check_names
from weightdecay.tables.cells import no_such_column
from weightdecay.tables.source import (
    Shard,
    Source,
    cells_of,
    column_types,
    files_of,
    open_source,
    row_count,
)


@dataclass(frozen=True)
class ForRidge:
    """The columns of a table by what they are for.

    Args:
        X: the inputs, float64.
        y: the targets, float64.
        groups: a label for each row, or None.
        weights: a weight for each row, or None.
        rows: the rows' numbers in the file, from 1.
        kept: whether a row has a weight above 0.
    """

    X: pl.DataFrame
    y: pl.DataFrame
    groups: np.ndarray | None
    weights: np.ndarray | None
    rows: pl.Series
    kept: pl.Series


def read_for_ridge(
    path: str | Path,
    targets: Sequence[str],
    drop: Sequence[str] = (),
    groups: str | None = None,
    weights: str | None = None,
) -> ForRidge:
    """Read a .csv or .parquet file whole.

    Raises:
        InputError: a file that cannot be read, a column that is missing, named twice, without a name or
            wanted for two things, a cell that is no finite number (row and column named), a constant target.
    """
    source = open_source(path, targets, drop, weights, torch.float64, groups)
    special = [*targets, *([weights] if weights else [])]
    tables, numbered = [], []
    for block in source.blocks():
        beside = [] if block.weights is None else [block.weights[:, None]]
        numbers = torch.cat([block.X, block.y, *beside], 1)  # a copy: later blocks come in the same memory
        tables.append(pl.DataFrame(numbers.numpy(), schema=[*source.inputs, *special]))
        numbered.append(pl.Series("row", block.rows.numpy()))
    table, rows = pl.concat(tables), pl.concat(numbered)
    if len(rows) < 2:
        raise InputError("too few rows", str(path), len(rows), "two are needed at least")
    kept = pl.Series([True]).new_from_index(0, len(rows))
    if weights:
        kept = table[weights] > 0
        if kept.sum() < 2:
            what = "fewer than two rows have a weight above 0"
            raise InputError(what, f"column {weights!r} of {path}", kept.sum(), "give more")
    used = table.select(targets).filter(kept)
    if all(used[name].n_unique() == 1 for name in targets):
        raise InputError(
            "the target is constant", f"column {targets[0]!r} in {path}", used[0, 0], "choose another"
        )
    return ForRidge(
        table.select(source.inputs),
        table.select(targets),
        _labels(source.labels(groups), rows, path).to_numpy() if groups else None,
        table[weights].to_numpy() if weights else None,
        rows,
        kept,
    )


def new_rows(
    path: str | Path, features: Sequence[str], ignored: Sequence[str] = ()
) -> Iterator[tuple[pl.Series, np.ndarray]]:
    """The columns that a model knows, in its order, in blocks of rows: their numbers in the file, and X.

    Args:
        path: a .csv or .parquet file, of any length.
        features: the model's columns.
        ignored: columns that may be there and are not wanted.

    Raises:
        InputError: a file that cannot be read, a column that is missing, unknown or there twice, a cell that
            is no finite number (row and column named).
    """
    if Path(path).is_dir():
        raise InputError("a folder is not predicted", "data", str(path), "give its files one by one")
    (file,) = files_of(path)
    names = list(column_types(file))
    spare = set(ignored) - set(features)
    check_names([name for name in names if name not in spare], features, str(file))
    source = Source((Shard(str(file)),), tuple(features), (), None, torch.float64, None)
    for block in source.blocks():
        yield pl.Series("row", block.rows.numpy()), block.X.numpy()


def row_names(path: str | Path, columns: Sequence[str], taken: Sequence[str]) -> pl.DataFrame:
    """Columns that name the rows of a file, as they stand there: texts of a CSV, any type of a Parquet file.

    Args:
        path: a .csv or .parquet file.
        columns: the columns' names.
        taken: names that other columns have where these are going to be written.

    Raises:
        InputError: a file that cannot be read, a column that is missing or has a name that is taken.
    """
    if not columns:
        return pl.DataFrame()
    (file,) = files_of(path)
    there = list(column_types(file))
    for name in columns:
        if name not in there:
            raise no_such_column(name, there, "id", f"{path} has")
        if name in taken or columns.count(name) > 1:
            what = "an identifier has the name of another column of the file that is written"
            raise InputError(what, "id", repr(name), "rename it in the table")
    return cells_of(file, columns)


def of_rows(names: pl.DataFrame, rows: pl.Series) -> dict[str, pl.Series]:
    """What `row_names` has for these rows, numbered from 1, by column."""
    return {column.name: column.gather(rows - 1) for column in names.get_columns()}


def _labels(column: pl.Series, rows: pl.Series, path: str | Path) -> pl.Series:
    if column.null_count():
        place = f"row {rows[int(column.is_null().arg_true()[0])]}, column {column.name!r} of {path}"
        raise InputError("a row without a group", place, "empty", "fill it, or leave the row out")
    return column


def count_rows(path: str | Path) -> int:
    """How many rows a .csv or .parquet file has, or all those of a folder, for a progress bar.

    Raises:
        InputError: it cannot be read.
    """
    return sum(row_count(file) for file in files_of(path))


def is_large(path: str | Path) -> bool:
    """Whether a table is a folder, or its file is larger than a quarter of the memory that is left."""
    path = Path(path)
    if path.is_dir():
        return True
    memory = available()
    try:
        return memory is not None and path.stat().st_size > memory / 4
    except OSError:
        return False  # that it cannot be read is for who reads it to say
