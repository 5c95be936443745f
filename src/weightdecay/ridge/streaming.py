"""Moments of a table that is read in blocks, here or by several workers, and the path from them."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from weightdecay.engine import map_merge
from weightdecay.errors import InputError
from weightdecay.ridge.folds import fold_ids, places
from weightdecay.ridge.linalg import one_blas_thread, one_pool
from weightdecay.ridge.moments import (
    Moments,
    Penalty,
    Sums,
    by_columns,
    merge,
    merge_tree,
    some_rows,
    training,
)
from weightdecay.ridge.route import Criterion
from weightdecay.ridge.scores import Block
from weightdecay.ridge.tall import Tall, route_of_moments
from weightdecay.tables.dialect import Shard
from weightdecay.tables.parquet_blocks import row_group_rows
from weightdecay.tables.source import RowBlock, Source, open_source, row_count

Progress = Callable[[int, int | None], None]
AHEAD = 1  # blocks that wait to be added up
SHARD_ROWS = 1_000_000  # of a Parquet file that several workers share


@dataclass(frozen=True)
class Statistics:
    """What one pass over a table leaves.

    Args:
        source: the table.
        folds: moments of every fold; of all rows as one fold where λ is judged without folds.
        seed: of the folds.
        scale: what weights are divided by to have mean 1.
    """

    source: Source
    folds: tuple[Moments, ...]
    seed: int
    scale: float

    @property
    def rows(self) -> int:
        """The number of rows with a weight."""
        return sum(part.rows for part in self.folds)


def statistics(
    source: Source | str | Path,
    target: Any = None,
    drop: Any = (),
    *,
    weights: str | None = None,
    folds: int = 1,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    engine: Any = None,
    on_progress: Progress | None = None,
) -> Statistics:
    """Read a table once: the moments of every fold.

    Args:
        source: the table as `open_source` gives it; or a file or folder, with the next three.
        target: the target's column, or several.
        drop: columns to leave out.
        weights: the column of row weights; they are made to have mean 1, and rows of weight 0 take no part.
        folds: number of folds K; 1 for leave-one-out, generalised CV and the evidence.
        seed: of the folds, which depend on the row's number alone.
        dtype: of the products; they are always added up in float64.
        engine: None in this process, "dask", a scheduler's address or a client.
        on_progress: called with rows done and rows in all, or None where that is not known before.

    Raises:
        InputError: what cannot be used, by file, row and column; fewer rows than folds; a constant target.
    """
    if not isinstance(source, Source):
        source = open_source(source, target, drop, weights, dtype)
    if engine is None and source.rows is None:  # CSV: to know a shard's first row takes reading all before it
        folded = _of_shards(source, source.shards, 0, folds, seed, on_progress)
    else:
        folded = _mapped(source, folds, seed, engine, on_progress)
    return _checked(source, folded, seed)


@one_pool()
@one_blas_thread()
def _of_shards(
    source: Source, shards: Any, first_row: int, K: int, seed: int, on_progress: Progress | None = None
) -> tuple[Moments, ...]:
    """The moments of the rows of some shards, the first of which has the number `first_row`."""
    sums = [Sums(len(source.inputs), len(source.targets), source.dtype) for _ in range(K)]
    row = first_row
    # One thread adds up, in the order of the blocks, while this one puts the next together from columns.
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as adder:
        waiting: deque[Future[None]] = deque()
        for block in source.blocks(shards):
            waiting.append(adder.submit(_add, sums, block, row, seed))
            row += len(block.X)
            if len(waiting) > AHEAD:
                waiting.popleft().result()
            if on_progress is not None:
                on_progress(row, source.rows)
        while waiting:
            waiting.popleft().result()
    return tuple(part.moments() for part in sums)


def _add(sums: list[Sums], block: RowBlock, first: int, seed: int) -> None:
    """Each row of a block to the sums of its fold; not those of weight 0."""
    if len(sums) > 1 and by_columns(block.X):  # it may be a view of many more rows: bring its own together
        block = block._replace(X=block.X.mT.contiguous().mT)
    for part, rows in zip(sums, _places(first, len(block.X), len(sums), seed), strict=True):
        X, y, w = block.X, block.y, block.weights
        if len(sums) > 1:
            X, y = some_rows(X, rows), y[rows]
            w = None if w is None else w[rows]
        if w is not None and bool((w == 0).any()):
            X, y, w = X[w > 0], y[w > 0], w[w > 0]
            w = None if bool((w == 1).all()) else w  # rows without a missing cell, say
        part.add(X, y, w)
        if part.buffer is not None:  # one working copy for all folds
            for other in sums:
                other.buffer = part.buffer


def _places(first: int, count: int, K: int, seed: int) -> Any:
    if K == 1:
        return [torch.arange(count)]
    return places(fold_ids(first, count, K, seed), K)


def _merged(a: tuple[Moments, ...], b: tuple[Moments, ...]) -> tuple[Moments, ...]:
    return tuple(merge(x, y) for x, y in zip(a, b, strict=True))


def _mapped(source: Source, K: int, seed: int, engine: Any, on_progress: Progress | None) -> Any:
    """Shards mapped and merged: files, and stretches of row groups of large Parquet files."""
    shards, total = _shards(source)
    done = 0

    def one_done(place: int, count: int) -> None:
        nonlocal done
        del count
        done += (shards[place + 1][1] if place + 1 < len(shards) else total) - shards[place][1]
        if on_progress is not None and engine is not None:
            on_progress(done, total)

    def here(rows: int, all_rows: int | None) -> None:
        if on_progress is not None:
            on_progress(rows, all_rows)

    return map_merge(
        _Task(source, K, seed, here if engine is None else None), shards, _merged, engine=engine,
        on_progress=one_done, names=[str(shard.path) for shard, _ in shards],
    )  # fmt: skip


def _shards(source: Source) -> tuple[list[tuple[Shard, int]], int]:
    """What a worker is given at a time, with the number of its first row; and how many rows there are."""
    shards: list[tuple[Shard, int]] = []
    first = 0
    for shard in source.shards:
        rows = row_count(shard)
        edges = [0, rows]
        if shard.path.lower().endswith(".parquet") and rows > SHARD_ROWS:
            edges = [0]
            for size in row_group_rows(shard.path) or [rows]:
                if len(edges) > 1 and edges[-1] - edges[-2] < SHARD_ROWS:
                    edges[-1] += size
                else:
                    edges.append(edges[-1] + size)
        for a, b in itertools.pairwise(edges):
            shards.append((shard if len(edges) == 2 else shard._replace(start=a, number=b - a), first + a))
        first += rows
    return shards, first


@dataclass(frozen=True)
class _Task:
    """Shard -> moments; what a worker is sent."""

    source: Source
    K: int
    seed: int
    on_progress: Progress | None

    def __call__(self, shard: tuple[Shard, int]) -> tuple[Moments, ...]:
        return _of_shards(self.source, [shard[0]], shard[1], self.K, self.seed, self.on_progress)


def _checked(source: Source, folds: tuple[Moments, ...], seed: int) -> Statistics:
    """Refuse what no path comes from; weights to mean 1."""
    rows, weight = sum(part.rows for part in folds), sum(part.weight for part in folds)
    where = source.shards[0].path
    if rows < 2 and source.weights is not None:
        what = "fewer than two rows have a weight above 0"
        raise InputError(what, f"column {source.weights!r} of {where}", rows, "give more")
    if rows < 2 and source.missing == "drop":
        what = "hardly a row is left: the others have missing cells"
        raise InputError(what, where, f"{rows} rows", "drop columns instead")
    if rows < 2:
        raise InputError("too few rows", where, rows, "two are needed at least")
    if rows < len(folds):
        raise InputError("fewer rows than folds", "cv", len(folds), f"there are {rows} rows; use fewer folds")
    if min(part.rows for part in folds) == 0:
        what = "all rows of a fold have weight 0"
        raise InputError(what, "cv", len(folds), "use fewer folds, or another seed")
    whole = merge_tree(folds)
    if bool((whole.ss <= (1e-15 * whole.y_mean) ** 2 * weight).all()):
        place = f"column {source.targets[0]!r} in {where}"
        raise InputError("the target is constant", place, float(whole.y_mean[0]), "choose another")
    scale = weight / rows
    if source.weights is not None:
        folds = tuple(
            Moments(m.rows, m.weight / scale, m.mean, m.rest, m.G / scale, m.g / scale, m.ss / scale)
            for m in folds
        )
    return Statistics(source, folds, seed, scale)


def tall_from(
    stats: Statistics,
    criterion: Criterion | None = None,
    penalty: Penalty | None = None,
    second_pass: bool = True,
) -> Tall:
    """The route of moments on a table that was read in blocks.

    Args:
        stats: from `statistics`.
        criterion: "loo", "gcv" or "evidence"; None for the folds.
        penalty: what is penalised.
        second_pass: read the table again where that is needed: leave-one-out, predictions out of fold, and
            where moments leave too few digits. Without it the last is told by the precision.
    """
    rows = partial(_rows_again, stats) if second_pass else None
    whole, dtype = merge_tree(stats.folds), stats.source.dtype
    penalty = penalty or Penalty()
    if criterion is not None:
        return route_of_moments(whole, criterion, penalty, dtype, rows)
    K = len(stats.folds)
    if K < 2:
        raise InputError("too few folds", "cv", K, "two are needed at least")

    trains, chosen = tuple(training(stats.folds)), partial(_places, K=K, seed=stats.seed)
    return route_of_moments(whole, "folds", penalty, dtype, rows, stats.folds, trains, chosen)


def _rows_again(stats: Statistics) -> Iterator[Block]:
    """The table's rows from the start, weights of mean 1."""
    first = 0
    for block in stats.source.blocks():
        weights = None if block.weights is None else block.weights / stats.scale
        yield Block(first, block.X, block.y, weights)
        first += len(block.X)
