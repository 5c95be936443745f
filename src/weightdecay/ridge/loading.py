"""The record of a path, from its files."""

from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.record import KIND, PLAIN, VERSION, RidgePath
from weightdecay.ridge.record_files import names_of_list, read_checked, read_record, read_tensors
from weightdecay.ridge.stored import stored_of
from weightdecay.ridge.strength import Strength


def load_path(folder: str | Path) -> RidgePath:
    """Load what `RidgePath.save` or `weightdecay fit` wrote.

    A loaded path has everything but the data: coefficients, models and predictions at the λ of its grid, no
    predictions out of fold; standard errors and intervals at the best λ and by one standard error.

    Raises:
        InputError: a file is missing, cut short, of another path, or no path at all.
    """
    folder = Path(folder)
    file = folder / "path.json"
    values = read_record(file, KIND, VERSION)
    try:
        sums = values["sha256"]
        numbers = folder / "path.safetensors"
        tensors = read_tensors(numbers, sums["path.safetensors"], file.name)
        table = read_checked(folder / "path.parquet", sums["path.parquet"], file.name)
        strength = Strength(values["unit"], values["context"])
        return RidgePath(
            **_columns(pl.read_parquet(BytesIO(table)), values["single"]),
            **{name: values[name] for name in PLAIN},
            best=_lam(values["best"]),
            one_se=_lam(values["one_se"]),
            flat_range=(values["flat_range"][0], values["flat_range"][1]),
            features=names_of_list(values["features"]),
            targets=names_of_list(values["targets"]),
            doubts=tuple(values["doubts"]),
            settings=values["settings"],
            _solver=stored_of(tensors, values["solver"], values["route"], values["n"], strength),
            _strength=strength,
        )
    except InputError:  # which is a ValueError and says more
        raise
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, pl.exceptions.PolarsError) as error:
        raise InputError("a field is missing or wrong", str(file), error, "fit it again") from error


def _columns(frame: pl.DataFrame, single: bool) -> dict[str, Any]:
    """The tensors of a path from the columns of its frame."""
    L = frame["target"].rle()[0]["len"]
    t = frame.height // L

    def column(name: str) -> Tensor:
        """(L, t), or (L,) of a single target."""
        values = torch.from_numpy(frame[name].to_numpy().copy()).reshape(t, L).T.contiguous()
        return values[:, 0] if single else values

    def first(name: str) -> Tensor:
        return torch.from_numpy(frame[name].head(L).to_numpy().copy())

    folds = [column(name) for name in frame.columns if name.startswith("fold_")]
    return {
        "lambdas": first("lam"),
        "alphas": first("alpha"),
        "scores": column("score"),
        "errors": column("error"),
        "fold_scores": torch.stack(folds) if folds else None,
        "precision": first("precision"),
    }


def _lam(value: float | list[float]) -> float | Tensor:
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else float(value)
