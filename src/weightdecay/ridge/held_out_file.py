"""Predictions of rows while they were held out, from the file that `weightdecay fit` wrote."""

from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.record import RidgePath
from weightdecay.ridge.views import HeldOut, target_names

NAME = "out_of_fold.parquet"
SHOWN = 5000  # rows of the figures


def load_held_out(folder: str | Path, path: RidgePath) -> HeldOut:
    """Load what `weightdecay fit` wrote beside a path.

    Args:
        folder: where they are.
        path: what they were predicted by.

    Returns:
        R² and RMSE of all rows; of the first 5,000 what was measured and predicted.

    Raises:
        InputError: the file cannot be read, or has other rows or targets than the path.
    """
    file, names = Path(folder) / NAME, target_names(path)
    try:
        table = pl.scan_parquet(file)
        found = _sums(table)
        if set(found) != set(names) or any(row["rows"] != path.n for row in found.values()):
            sizes = ", ".join(f"{name}: {row['rows']:,}" for name, row in found.items())
            what = f"not the rows of path.json, {path.n:,} of each of {', '.join(names)}"
            raise InputError(what, str(file), sizes, "fit it again")
        shown = [table.filter(pl.col("target") == name).head(SHOWN).collect() for name in names]
        measured, predicted = (
            torch.stack([_numbers(one[column]) for one in shown], 1) for column in ("measured", "prediction")
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        said = str(error).splitlines()[0]
        raise InputError("a file cannot be read", str(file), said, "fit it again") from error
    rmse, r2 = (_numbers(pl.Series([found[name][key] for name in names])) for key in ("rmse", "r2"))
    return HeldOut(names, measured, predicted, rmse, r2, path.cv)


def _sums(table: pl.LazyFrame) -> dict[str, dict[str, float]]:
    """Rows, RMSE and R² of each target; rows that were never held out count as rows alone."""
    measured = pl.col("measured").filter(pl.col("prediction").is_not_null())
    squares = (pl.col("prediction") - pl.col("measured")) ** 2
    sums = table.group_by("target").agg(
        pl.len().alias("rows"),
        squares.mean().sqrt().alias("rmse"),
        (1 - squares.sum() / ((measured - measured.mean()) ** 2).sum()).alias("r2"),
    )
    return {row.pop("target"): row for row in sums.collect().iter_rows(named=True)}


def _numbers(values: pl.Series) -> Tensor:
    return torch.from_numpy(values.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy())
