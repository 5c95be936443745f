"""A table that is read in blocks: one CSV or Parquet file, or a folder of shards with the same columns."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.tables import csv_blocks, parquet_blocks
from weightdecay.tables.cells import listed, refuse_cell, separator_hint

READERS = {".csv": csv_blocks, ".parquet": parquet_blocks}
ROWS = 8192  # rows to a block; fewer where there are many columns
NUMBERS = 1 << 21


class RowBlock(NamedTuple):
    """Consecutive rows: inputs (b, p), targets (b, t), and weights (b,) if a column holds them.

    Their memory is used again some blocks later: copy what is to be kept.
    """

    X: Float[Tensor, "b p"]
    y: Float64[Tensor, "b t"]
    weights: Float64[Tensor, " b"] | None


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
            reader = READERS[Path(shard.path).suffix.lower()]
            found = 0
            for first, show, X, rest in reader.blocks(
                shard.path, self.inputs, others, step, self.dtype, shard.start, shard.number
            ):
                found += len(X)
                yield self._block(first, show, X, rest, shard.path)
            if found == 0:
                raise InputError("the table has no rows", shard.path, None, "leave the file out")

    def _block(
        self, first: int, show: Callable[[], pl.DataFrame], X: Tensor, rest: Tensor, path: str
    ) -> RowBlock:
        """Split a block by what its columns are for."""
        t, limit = len(self.targets), 1e300 if self.dtype == torch.float64 else 1e30
        for part in (X, rest):
            flat = part.numpy().ravel(order="K")  # as it lies: no copy
            with np.errstate(over="ignore", invalid="ignore"):
                size = float(flat @ flat)
            if not size < limit:  # one quick pass finds NaN, infinite and large; another, where
                refuse_cell(show(), first, path, limit)
        X, y = X.to(self.dtype), rest[:, :t]
        weights = None
        if self.weights is not None:
            weights = rest[:, t]
            if bool((weights < 0).any()):
                row = int((weights < 0).nonzero()[0])
                raise InputError(
                    "a weight is negative",
                    f"row {first + row + 1}, column {self.weights!r} of {path}",
                    float(weights[row]),
                    "weights are 0 or more",
                )
        return RowBlock(X, y, weights)


def open_source(
    path: str | Path,
    target: str | Sequence[str],
    drop: Sequence[str] = (),
    weights: str | None = None,
    dtype: torch.dtype | None = None,
) -> Source:
    """Look at the columns of a file, or of all files of a folder; no row is read.

    Args:
        path: a .csv or .parquet file, or a folder of such files, which are taken in the order of their names.
        target: the column or columns to predict; every other one is an input unless dropped.
        drop: columns to leave out.
        weights: the column that holds a weight for each row.
        dtype: of the inputs; by default float32 if they are stored so, else float64.

    Raises:
        InputError: no such file, no table in the folder, a column that is missing, named twice, no number or
            given two parts, shards whose columns differ.
    """
    targets = (target,) if isinstance(target, str) else tuple(target)
    files = _files(Path(path))
    schemas = [_schema(file) for file in files]
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        _same_columns(files[0], schemas[0], file, schema)
    inputs = _roles(files[0], list(schemas[0]), targets, tuple(drop), weights)
    for file, schema in zip(files, schemas, strict=True):
        for name in (*inputs, *targets, *(() if weights is None else (weights,))):
            kind = schema[name]
            if kind is not None and not (kind.is_numeric() or kind == pl.Boolean):
                raise InputError(
                    "a column is not numeric", f"column {name!r} in {file}", kind, "drop it, or convert it"
                )
    if dtype is None:
        single = all(schema[name] == pl.Float32 for schema in schemas for name in inputs)
        dtype = torch.float32 if single else torch.float64
    counts = [READERS[file.suffix.lower()].count(str(file)) for file in files]
    for file, count in zip(files, counts, strict=True):
        if count == 0:
            raise InputError("the table has no rows", str(file), None, "leave the file out")
    known = [count for count in counts if count is not None]
    return Source(
        tuple(Shard(str(file)) for file in files),
        inputs,
        targets,
        weights,
        dtype,
        sum(known) if len(known) == len(counts) else None,
    )


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in READERS)
        if not files:
            raise InputError(
                "no table in the folder", str(path), None, "give one with .csv or .parquet files"
            )
        return files
    if path.suffix.lower() not in READERS:
        raise InputError("not a table this program reads", "data", str(path), "give a .csv or .parquet file")
    if not path.is_file():
        raise InputError("the table cannot be read", str(path), "no such file", "check the path")
    return [path]


def _schema(file: Path) -> dict[str, Any]:
    """Names and types of the columns; None where a type is only known cell by cell (CSV)."""
    return READERS[file.suffix.lower()].schema(str(file))


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
    file: Path, columns: list[str], targets: tuple[str, ...], drop: tuple[str, ...], weights: str | None
) -> tuple[str, ...]:
    """The inputs' names, in the order of the file."""
    if not targets:
        raise InputError("no target", "target", None, "name the column to predict")
    special = (*targets, *(() if weights is None else (weights,)))
    for name in (*special, *drop):
        if name not in columns:
            raise InputError(
                "no such column",
                f"column in {file}",
                repr(name),
                f"the file has {listed(columns)}{separator_hint(columns)}",
            )
    twice = [name for place, name in enumerate(special) if name in special[:place]]
    if twice:
        raise InputError("a column is given two parts", "target", repr(twice[0]), "name it once")
    for name in special:
        if name in drop:
            what = "the target is also dropped" if name in targets else "the weights are also dropped"
            raise InputError(what, "drop", repr(name), "take it out of one of the two")
    inputs = tuple(name for name in columns if name not in special and name not in drop)
    if not inputs:
        raise InputError("no column is left as an input", str(file), None, "drop fewer columns")
    return inputs
