"""Predictions out of fold of a table that is read in blocks, written as they come in a second pass."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from jaxtyping import Float64
from polars.io.plugins import register_io_source
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.files import replacing
from weightdecay.ridge.folds import fold_ids
from weightdecay.ridge.record import RidgePath
from weightdecay.ridge.tall import Tall
from weightdecay.ridge.views import HeldOut, target_names
from weightdecay.tables.source import RowBlock, Source

SAMPLE = 5000  # rows of the figure


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
) -> HeldOut:
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
        R², RMSE, and the first rows for a figure.

    Raises:
        InputError: the table has changed, or the file cannot be written.
    """
    names, folds = target_names(path), 0 if path.fold_scores is None else len(path.fold_scores)
    seed = path.settings["seed"]
    shown: list[tuple[Tensor, Tensor]] = []
    sums: _Sums | None = None

    def frames(*_: Any) -> Iterator[pl.DataFrame]:
        nonlocal sums
        first = before = last = 0
        for block, predicted in _beside(path, lam, table):
            if block.rows[0] <= last:  # the next shard
                before += last
            last = int(block.rows[-1])
            kept = torch.arange(len(block.y)) if block.weights is None else block.weights.nonzero()[:, 0]
            measured = block.y[kept]
            sums = _added(sums, measured, predicted)
            if sum(len(y) for y, _ in shown) < SAMPLE:
                shown.append((measured[:SAMPLE], predicted[:SAMPLE]))
            fold = fold_ids(first, len(block.y), folds, seed)[kept] + 1 if folds else None
            yield _frame(before + block.rows[kept], measured, predicted, names, fold)
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
            reason = str(error).splitlines()[0]
            raise InputError(
                "a file cannot be written", str(file), reason, "choose another folder"
            ) from error
    assert sums is not None
    spread = sums.about2 - sums.about**2 / sums.count
    measured, predicted = (torch.cat(parts)[:SAMPLE] for parts in zip(*shown, strict=True))
    how = "loo" if path.cv in ("gcv", "evidence") else path.cv
    rmse = (sums.squares / sums.count).sqrt()
    return HeldOut(names, measured, predicted, rmse, 1 - sums.squares / spread, how)


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
