"""The path of a table that is read in blocks: CSV or Parquet, a file or a folder of shards, of any length."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.memory import available, require
from weightdecay.ridge.basis import Penalty
from weightdecay.ridge.by_rows import by_singular_values
from weightdecay.ridge.columns import Intercept, Problem
from weightdecay.ridge.data import checked_choice, factors
from weightdecay.ridge.folds import CRITERIA, as_given, checked_seed, fold_ids
from weightdecay.ridge.judge import SMALL, Job, path_of
from weightdecay.ridge.leaks import leak
from weightdecay.ridge.linalg import one_pool
from weightdecay.ridge.record import RidgePath
from weightdecay.ridge.route import Route
from weightdecay.ridge.streaming import Statistics, statistics, tall_from
from weightdecay.ridge.strength import strength
from weightdecay.ridge.tall import Tall
from weightdecay.tables.source import Source, open_source

COPIES = 6  # of the rows, for their singular values
PRODUCTS = 3  # of each fold's p × p: its own, those of the other rows, and their eigenvectors


def path_of_file(
    data: str | Path,
    target: Any,
    lambdas: Any,
    *,
    cv: Any,
    unit: str,
    seed: int,
    sample_weight: Any,
    penalty_factors: Any,
    intercept: Intercept,
    standardize: bool,
    shared: bool,
    drop: Sequence[str],
    engine: Any,
    on_progress: Callable[[int, int | None], None] | None,
) -> RidgePath:
    """`ridge_path` for a file or a folder; arguments as there, columns by name.

    Raises:
        InputError: as `ridge_path`, by file, row and column; a splitter, for which rows have to be in memory.
    """
    criterion, K = _criterion(cv)
    if not (sample_weight is None or isinstance(sample_weight, str)):
        what = type(sample_weight).__name__
        raise InputError("weights of a file are a column of it", "sample_weight", what, "name the column")
    checked_choice(intercept)
    checked_seed(seed)
    source = open_source(data, _names(target, "y"), _names(drop, "drop"), sample_weight)
    p = len(source.inputs)
    require(8 * p * p * (PRODUCTS * K + 4), f"the products of {p:,} columns for {K} folds")
    if penalty_factors is not None:
        penalty_factors = factors(penalty_factors, p, source.inputs, torch.empty(0))
    penalty = Penalty(penalty_factors, intercept, standardize)
    stats = statistics(source, folds=K, seed=seed, engine=engine, on_progress=on_progress)
    single_rows = criterion is None and stats.rows == K and not standardize  # as in memory
    route = tall_from(stats, "loo" if single_rows else criterion, penalty)
    job = Job(
        strength=strength(unit, stats.rows, route.variance),
        lambdas=lambdas,
        shared=shared,
        cv=f"{K} folds of one row" if single_rows else criterion or f"{K} folds, shuffled, seed {seed}",
        features=source.inputs,
        targets=source.targets,
        single=isinstance(target, str),
        settings=_settings(source, stats, penalty, shared, drop),
        small=stats.rows * p * min(stats.rows, p) < SMALL,
        precise=_in_memory(stats, route, penalty, seed) if _fits(stats.rows, p) else None,
        leaks=leak(_weighted(source), source.inputs, source.targets),
    )
    with one_pool():
        return path_of(route, job)


def _weighted(source: Source) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of the rows with a weight: their inputs and targets."""
    for block in source.blocks():
        kept = slice(None) if block.weights is None else block.weights > 0
        yield block.X[kept], block.y[kept]


def _fits(n: int, p: int) -> bool:
    """Whether the rows and their singular vectors have room in memory."""
    there = available()
    return there is not None and COPIES * 8 * n * p < there / 2


def _in_memory(stats: Statistics, route: Tall, penalty: Penalty, seed: int) -> Callable[[], Route]:
    """The table read whole, for its singular values."""

    def precise() -> Route:
        assert route.rows is not None
        inputs, targets, weights = [], [], []
        for block in route.rows():  # copies: later blocks come in the same memory
            inputs.append(block.X.clone())
            targets.append(block.y.clone())
            if block.weights is not None:
                weights.append(block.weights.clone())
        X, y, weight = torch.cat(inputs), torch.cat(targets), torch.cat(weights) if weights else None
        folds = route.criterion == "folds"
        scheme: Any = fold_ids(0, len(X), len(stats.folds), seed) if folds else route.criterion
        if weight is not None and bool((weight == 0).any()):
            kept = weight > 0
            X, y, weight = X[kept], y[kept], weight[kept]
            scheme = scheme[kept] if isinstance(scheme, Tensor) else scheme
        problem = Problem(X, y, weight, penalty.factors, penalty.intercept, penalty.standardize)
        return by_singular_values(problem, scheme)

    return precise


def _criterion(cv: Any) -> tuple[Any, int]:
    """A criterion's name or None, and the number of folds whose moments are taken."""
    cv = as_given(cv)
    if isinstance(cv, str) and cv.lower() in CRITERIA:
        return CRITERIA[cv.lower()], 1
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        if cv < 2:
            raise InputError("too few folds", "cv", int(cv), "two are needed at least")
        return None, int(cv)
    raise InputError(
        "not a way to hold out rows of a file",
        "cv",
        repr(cv),
        "give a number of folds, 'loo', 'gcv' or 'evidence'",
    )


def _names(given: Any, where: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        found = type(given).__name__
        raise InputError("not names of columns", where, found, "of a file, give a column's name or several")
    return tuple(names)


def _settings(
    source: Source, stats: Statistics, penalty: Penalty, shared: bool, drop: Sequence[str]
) -> dict[str, Any]:
    return {
        "seed": int(stats.seed),
        "files": [Path(shard.path).name for shard in source.shards],
        "drop": list(_names(drop, "drop")),
        "weights": source.weights,
        "intercept": penalty.intercept,
        "standardize": penalty.standardize,
        "penalty_factors": None if penalty.factors is None else penalty.factors.tolist(),
        "shared": shared,
        "dtype": str(source.dtype).removeprefix("torch."),
    }
