"""Trainings as two tables, and back, to the bit."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from weightdecay.sweeps.records import Copy, Look, Trained

KEY = {"rule": pl.String, "lr": pl.Float64, "strength": pl.Float64}
_METRIC = "test_"


def table_of(trained: Sequence[Trained]) -> pl.DataFrame:
    """One row per training: its key, the number λ, losses and metrics at the end, the step it diverged at."""
    columns: dict[str, list[Any]] = {
        **_keys([one.copy for one in trained]),
        "weight_decay": [one.weight_decay for one in trained],
        "train_loss": [one.train_loss for one in trained],
        "test_loss": [one.test_loss for one in trained],
        **_metrics([one.metrics for one in trained]),
        "diverged": [one.diverged for one in trained],
    }
    schema = {**KEY, "seed": pl.Int64, "unit": pl.String, **dict.fromkeys([*columns][5:], pl.Float64)}
    return pl.DataFrame(columns, schema={**schema, "diverged": pl.Int64})


def curves_of(trained: Sequence[Trained]) -> pl.DataFrame:
    """One row per training and look: its key, the epoch, losses and metrics."""
    pairs = [(one.copy, look) for one in trained for look in one.looks]
    columns: dict[str, list[Any]] = {
        **_keys([copy for copy, _ in pairs]),
        "epoch": [look.epoch for _, look in pairs],
        "train_loss": [look.train_loss for _, look in pairs],
        "test_loss": [look.test_loss for _, look in pairs],
        **_metrics([look.metrics for _, look in pairs], trained[0].metrics if trained else ()),
    }
    schema = {**KEY, "seed": pl.Int64, "unit": pl.String, "epoch": pl.Int64}
    return pl.DataFrame(columns, schema={**schema, **dict.fromkeys([*columns][6:], pl.Float64)})


def trained_of(table: pl.DataFrame, curves: pl.DataFrame) -> tuple[Trained, ...]:
    """The trainings that the two tables were made from.

    Raises:
        KeyError, TypeError, polars' ColumnNotFoundError: they are other tables.
    """
    looks: dict[Copy, list[Look]] = {}
    for row in curves.iter_rows(named=True):
        copy = _copy(row)
        looks.setdefault(copy, []).append(
            Look(row.pop("epoch"), row.pop("train_loss"), row.pop("test_loss"), _unprefixed(row))
        )
    found = []
    for row in table.iter_rows(named=True):
        copy = _copy(row)
        numbers = {name: row.pop(name) for name in ("weight_decay", "train_loss", "test_loss", "diverged")}
        found.append(Trained(copy, **numbers, metrics=_unprefixed(row), looks=tuple(looks.pop(copy, ()))))
    return tuple(found)


def _keys(copies: Sequence[Copy]) -> dict[str, list[Any]]:
    return {name: [getattr(copy, name) for copy in copies] for name in (*KEY, "seed", "unit")}


def _copy(row: dict[str, Any]) -> Copy:
    return Copy(**{name: row.pop(name) for name in (*KEY, "unit", "seed")})


def _metrics(values: Sequence[dict[str, float]], names: Any = None) -> dict[str, list[float]]:
    names = values[0] if values else names or ()
    return {_METRIC + name: [one[name] for one in values] for name in names}


def _unprefixed(row: dict[str, Any]) -> dict[str, float]:
    return {name.removeprefix(_METRIC): value for name, value in row.items()}
