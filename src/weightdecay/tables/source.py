"""A table that is read in blocks: one CSV or Parquet file, or a folder of shards with the same columns."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.memory import available
from weightdecay.tables import csv_blocks, parquet_blocks
from weightdecay.tables.cells import (
    TOO_LARGE,
    check_names,
    listed,
    no_index,
    no_rows,
    no_such_column,
    refuse_cell,
    unreadable,
)

READERS = {".csv": csv_blocks, ".parquet": parquet_blocks}
ROWS = 8192  # rows to a block; fewer where there are many columns
NUMBERS = 1 << 21


class RowBlock(NamedTuple):
    """Consecutive rows: inputs (b, p), targets (b, t), weights (b,) if a column holds them, and numbers.

    `rows` are their numbers in their file, from 1; blank lines of a CSV are no rows, but count.

    Their memory is used again some blocks later: copy what is to be kept.
    """

    X: Float[Tensor, "b p"]
    y: Float64[Tensor, "b t"]
    weights: Float64[Tensor, " b"] | None
    rows: Int64[Tensor, " b"]


class Shard(NamedTuple):
    """Some rows of one file: `number` of them from row `start`; all where it is None."""

    path: str
    start: int = 0
    number: int | None = None


@dataclass(frozen=True)
class Source:
    """Where rows come from, checked as far as names and types go.

    Args:
        shards: files in the order of their names.
        inputs: names of the input columns.
        targets: names of the target columns.
        weights: name of the column of weights, or None.
        dtype: of the inputs as read, float64 or float32.
        rows: how many there are, or None where that takes reading them (CSV).
    """

    shards: tuple[Shard, ...]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    weights: str | None
    dtype: torch.dtype
    rows: int | None

    def blocks(self, shards: Sequence[Shard] | None = None) -> Iterator[RowBlock]:
        """All rows, in blocks, every cell checked.

        Raises:
            InputError: an empty, NaN or infinite cell or a text (file, row and column named), a file that is
                gone, cut short or has no rows, a negative weight.
        """
        others = (*self.targets, *(() if self.weights is None else (self.weights,)))
        step = max(256, min(ROWS, NUMBERS // len(self.inputs)))
        for shard in self.shards if shards is None else shards:
            reader = READERS[_ending(shard.path)]
            found = 0
            for rows, shown, X, rest in reader.blocks(
                shard.path, self.inputs, others, step, self.dtype, shard.start, shard.number
            ):
                found += len(X)
                yield self._block(rows + 1, shown, X, rest, shard.path)
            if found == 0:
                raise no_rows(shard.path)

    def labels(self, name: str) -> pl.Series:
        """A column as texts, null where a cell is empty, for the rows of all blocks."""
        return pl.concat([READERS[_ending(one.path)].labels(one.path, name) for one in self.shards])

    def _block(
        self, rows: np.ndarray, shown: Callable[[], list[pl.Series]], X: Tensor, rest: Tensor, path: str
    ) -> RowBlock:
        """Split a block by what its columns are for."""
        t, limit = len(self.targets), 1e300 if self.dtype == torch.float64 else 1e30
        for part in (X, rest):
            flat = part.numpy().ravel(order="K")  # as it lies: no copy
            with np.errstate(over="ignore", invalid="ignore"):
                size = float(flat @ flat)
            if not size < limit:  # one quick pass finds NaN, infinite and large; another, where
                refuse_cell(
                    shown(),
                    lambda row, name: f"row {rows[row]}, column {name!r} of {path}",
                    min(TOO_LARGE, limit**0.5),
                )
        X, y = X.to(self.dtype), rest[:, :t]
        weights = None
        if self.weights is not None:
            weights = rest[:, t]
            if bool((weights < 0).any()):
                row = int((weights < 0).nonzero()[0])
                raise InputError(
                    "a weight is negative",
                    f"row {rows[row]}, column {self.weights!r} of {path}",
                    float(weights[row]),
                    "weights are 0 or more",
                )
        return RowBlock(X, y, weights, torch.from_numpy(rows))


def open_source(
    path: str | Path,
    target: str | Sequence[str],
    drop: Sequence[str] = (),
    weights: str | None = None,
    dtype: torch.dtype | None = None,
    groups: str | None = None,
) -> Source:
    """Look at the columns of a file, or of all files of a folder; no row is read.

    Args:
        path: a .csv or .parquet file, or a folder of such files, which are taken in the order of their names.
        target: the column or columns to predict; every other one is an input unless dropped.
        drop: columns to leave out.
        weights: the column that holds a weight for each row.
        dtype: of the inputs; by default float32 if they are stored so, else float64.
        groups: the column of group labels, which is no input.

    Raises:
        InputError: no such file, no table in the folder, a column that is missing, named twice, without a
            name or wanted for two things, shards whose columns differ.
    """
    targets = (target,) if isinstance(target, str) else tuple(target)
    files = files_of(path)
    schemas = [column_types(file) for file in files]
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        _same_columns(files[0], schemas[0], file, schema)
    inputs = _roles(files[0], list(schemas[0]), targets, tuple(drop), weights, groups)
    if dtype is None:
        single = all(schema[name] == pl.Float32 for schema in schemas for name in inputs)
        dtype = torch.float32 if single else torch.float64
    counts = [READERS[_ending(file)].count(str(file)) for file in files]
    for file, count in zip(files, counts, strict=True):
        if count == 0:
            raise no_rows(file)
    known = [count for count in counts if count is not None]
    return Source(
        tuple(Shard(str(file)) for file in files),
        inputs,
        targets,
        weights,
        dtype,
        sum(known) if len(known) == len(counts) else None,
    )


def _ending(path: str | Path) -> str:
    return Path(path).suffix.lower()


def files_of(path: str | Path) -> list[Path]:
    """A .csv or .parquet file, or those of a folder in the order of their names."""
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _ending(file) in READERS)
        if not files:
            raise InputError(
                "no table in the folder", str(path), None, "give one with .csv or .parquet files"
            )
        return files
    if _ending(path) not in READERS:
        raise InputError("not a table this program reads", "data", str(path), "give a .csv or .parquet file")
    if not path.is_file():
        raise unreadable(str(path), "no such file", "check the path")
    return [path]


def column_types(file: Path) -> dict[str, Any]:
    """Names and types of a file's columns; None where a type is only known cell by cell (CSV)."""
    return READERS[_ending(file)].schema(str(file))


def cells_of(file: Path, names: Sequence[str]) -> pl.DataFrame:
    """Some columns as they stand in a file, texts of a CSV; empty where a CSV has a blank line."""
    return READERS[_ending(file)].cells(str(file), names)


def row_count(file: str | Path) -> int:
    """How many rows a file has; a CSV is read for it."""
    known = READERS[_ending(file)].count(str(file))
    return csv_blocks.row_count(str(file)) if known is None else known


def _same_columns(first: Path, names: dict, file: Path, others: dict) -> None:
    missing = [name for name in names if name not in others]
    extra = [name for name in others if name not in names]
    if missing or extra:
        parts = [f"no {listed(missing)}"] if missing else []
        parts += [f"also {listed(extra)}"] if extra else []
        raise InputError(
            "shards whose columns differ",
            str(file),
            ", ".join(parts),
            f"make it like {first}, or move it away",
        )


def _roles(
    file: Path,
    columns: list[str],
    targets: tuple[str, ...],
    drop: tuple[str, ...],
    weights: str | None,
    groups: str | None,
) -> tuple[str, ...]:
    """The inputs' names, in the order of the file."""
    if not targets:
        raise InputError("no target", "target", None, "name the column to predict")
    aside = {"target": targets, "drop": drop, "groups": (groups,), "weights": (weights,)}
    uses: dict[str, str] = {}
    for use, names in aside.items():
        for name in names:
            if name is None:
                continue
            if name not in columns:
                raise no_such_column(name, columns, use, f"{file} has")
            if name in uses:
                twice = "twice" if uses[name] == use else f"as {uses[name]} and as {use}"
                raise InputError(f"a column is named {twice}", use, repr(name), "take one of them out")
            uses[name] = use
    inputs = tuple(name for name in columns if name not in uses)
    if not inputs:
        raise InputError("no column is left as an input", str(file), None, "drop fewer columns")
    no_index(inputs, f"column in {file}", "--drop")
    return inputs


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


@dataclass(frozen=True)
class Table:
    """The inputs and the target of a table, float64, no cell missing.

    Args:
        X: the inputs, shape (rows, columns).
        y: the target, shape (rows,).
        columns: the inputs' names, in the order of the file.
    """

    X: Float64[Tensor, "n p"]
    y: Float64[Tensor, " n"]
    columns: tuple[str, ...]


def read_table(path: str | Path, target: str, drop: Sequence[str] = ()) -> Table:
    """Read a CSV or Parquet file: one column is the target, every other one an input unless dropped.

    Args:
        path: the file, by its ending .csv or .parquet.
        target: the column to predict.
        drop: columns to leave out.

    Raises:
        InputError: a file that is missing or cannot be parsed, a column that is missing, named twice or
            without a name, a cell that is no finite number (row and column named), a constant target.
    """
    source = open_source(path, target, drop, dtype=torch.float64)
    # Copies: later blocks come in the same memory.
    parts = [(block.X.clone(), block.y[:, 0].clone()) for block in source.blocks()]
    X, y = (torch.cat(part) for part in zip(*parts, strict=True))
    if len(y) > 1 and bool((y == y[0]).all()):
        raise InputError(
            "the target is constant", f"column {target!r} in {path}", y[0].item(), "choose another"
        )
    return Table(X, y, source.inputs)
