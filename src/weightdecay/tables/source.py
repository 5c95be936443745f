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
from weightdecay.tables import csv_blocks, parquet_blocks
from weightdecay.tables.cells import TOO_LARGE, listed, no_index, no_such_column, refuse_cell

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


def no_rows(path: str | Path) -> InputError:
    """The refusal of a file without rows."""
    return InputError("the table has no rows", str(path), None, "give a file with a header and rows")


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
        raise InputError("the table cannot be read", str(path), "no such file", "check the path")
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
