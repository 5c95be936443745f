"""A person's table: a CSV or Parquet file -> checked columns of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.tables.source import open_source


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
