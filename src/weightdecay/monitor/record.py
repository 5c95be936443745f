"""What a monitor saw: one frozen record."""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from weightdecay.errors import InputError
from weightdecay.saving import Saved, replacing, save, writable_folder

SCHEMA: dict[str, Any] = {
    "step": pl.Int64,
    "parameter": pl.String,
    "group": pl.Int64,
    "numel": pl.Int64,
    "lr": pl.Float64,
    "weight_decay": pl.Float64,
    "norm": pl.Float64,
    "rms": pl.Float64,
    "update_norm": pl.Float64,
    "angle": pl.Float64,
    "effective_lr": pl.Float64,
    "applied": pl.Float64,
    "intended": pl.Float64,
    "rate": pl.Float64,
    "kappa": pl.Float64,
    "equilibrium_norm": pl.Float64,
    "steps_to_equilibrium": pl.Float64,
    "train_loss": pl.Float64,
    "test_loss": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class Monitored:
    """What happened to the weights during a training, and what the decay had to do with it.

    Args:
        rows: what was measured, see `table`.
        optimizer: the name of its class.
        every: steps between two looks.
        steps: that were taken.
    """

    rows: pl.DataFrame
    optimizer: str
    every: int
    steps: int

    def table(self) -> pl.DataFrame:
        """A row for each look and parameter.

        Columns: step (from 0), parameter, group, numel, lr, weight_decay; norm ||w|| before the step and rms
        ||w||/sqrt(numel); update_norm U, of the gradient part u of the step; angle between w before and after
        the step, in radians; effective_lr, U/||w||, the relative size of an update; applied, the fraction of
        w that the decay really removed within the step, <w'(no decay) - w', w>/||w||²; intended, the fraction
        it was to remove; rate, the fraction per step in the long run, more than that where momentum carries
        coupled decay on; kappa, the autocorrelation factor of the updates around; equilibrium_norm, U
        sqrt(kappa/(1 - r²)) with r = 1 - rate; steps_to_equilibrium, 1/(2·rate); the losses that `note` was
        given.
        """
        return self.rows

    def summary(self, last: float = 0.5) -> pl.DataFrame:
        """A row for each parameter, over the last share of the looks.

        Args:
            last: the share of the looks that counts.

        Columns: parameter, numel; norm and equilibrium_norm (root mean squares), residual = norm/equilibrium
        - 1; ratio = applied/intended (sums); angle, effective_lr, kappa, steps_to_equilibrium (means).
        """
        steps = self.rows["step"].unique().sort()
        seen = self.rows
        if len(steps):
            seen = seen.filter(pl.col("step") >= steps[min(int(len(steps) * (1 - last)), len(steps) - 1)])
        squares = [(pl.col(name) ** 2).mean().sqrt().alias(name) for name in ("norm", "equilibrium_norm")]
        means = [pl.col(name).mean() for name in ("angle", "effective_lr", "kappa", "steps_to_equilibrium")]
        return (
            seen.with_columns(pl.col("kappa", "equilibrium_norm").fill_nan(None))
            .group_by("parameter", maintain_order=True)
            .agg(
                pl.col("numel").first(),
                *squares,
                (pl.col("applied").sum() / pl.col("intended").sum()).alias("ratio"),
                *means,
            )
            .with_columns(
                pl.when(pl.col("equilibrium_norm").is_finite())  # without decay there is no equilibrium
                .then(pl.col("norm") / pl.col("equilibrium_norm") - 1)
                .alias("residual")
            )
        )

    @property
    def lines(self) -> tuple[str, ...]:
        """The answer in plain sentences."""
        return lines_of(self.summary(), self.optimizer, self.steps, self.every)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What looks wrong, or cannot be told; a line each."""
        return doubts_of(self.summary(), self.rows)

    def save(self, folder: str | Path) -> list[Path]:
        """Write monitor.parquet and monitor.json into a folder; all or nothing.

        Raises:
            InputError: it cannot be written.
        """
        values = {name: getattr(self, name) for name in ("optimizer", "every", "steps")}
        return save(folder, "monitor.json", values, {"monitor.parquet": self.rows})

    def __str__(self) -> str:
        """The answer in sentences."""
        return "\n".join((*self.lines, *(f"note: {doubt}" for doubt in self.doubts)))

    def __repr__(self) -> str:
        """In a line."""
        looks = self.rows["step"].n_unique()
        parameters = self.rows["parameter"].n_unique()
        return f"Monitored({self.optimizer}, {self.steps} steps, {looks} looks at {parameters} parameters)"


def from_saved(saved: Saved) -> Monitored:
    """Make the record that `Monitored.save` wrote."""
    rows = saved.table("monitor.parquet").select(list(SCHEMA))
    values = [saved[name] for name in ("optimizer", "every", "steps")]
    kinds = [type(value) for value in values]
    if dict(rows.schema) != SCHEMA or kinds != [str, int, int] or values[1] < 2 or values[2] < 0:
        raise TypeError("another type than it should have")
    return Monitored(rows, *values)


# From a tenth on, a difference between measured and predicted norms is said: noise of few looks is less.
RESIDUAL = 0.1
# Applied over intended beyond these is no rounding of a healthy run.
RATIO = (0.9, 1.1)
# A fraction of a weight that rounding does not take in a step.
UNASKED = 1e-6


def lines_of(summary: pl.DataFrame, optimizer: str, steps: int, every: int) -> tuple[str, ...]:
    """What happened; a line each."""
    if not summary.height:
        return (f"{optimizer}: {steps} steps, no look yet (one every {every} steps)",)
    decaying = summary.filter(pl.col("ratio").is_finite())
    lines = [f"{optimizer}: {steps} steps, a look every {every}; figures of the second half of the looks"]
    if decaying.height:
        low, high = _range(decaying["ratio"])
        lines.append(
            f"decay applied over intended: {low:.3g} to {high:.3g} in {decaying.height} parameters that decay"
        )
    low, high = _range(summary["angle"])
    lines.append(f"angle of a step: {low:.3g} to {high:.3g} rad")
    balanced = summary.filter(pl.col("residual").is_finite())
    if balanced.height:
        low, high = _range(balanced["residual"])
        lines.append(
            f"norm against the equilibrium of decay and updates: {low:+.1%} to {high:+.1%}; "
            f"it takes {_range(balanced['steps_to_equilibrium'])[1]:.4g} steps to get there"
        )
    return tuple(lines)


def doubts_of(summary: pl.DataFrame, rows: pl.DataFrame) -> tuple[str, ...]:
    """What looks wrong or is not known; a line each."""
    found = []
    growing = summary.filter(pl.col("ratio").is_finite() & (pl.col("ratio") < 0))
    if growing.height:
        worst = growing.sort("ratio").row(0, named=True)
        found.append(
            f"{growing.height} parameters grow by their decay, {worst['parameter']} by {-worst['ratio']:.3g} "
            "of what it should lose: the sign is wrong; see wd.probe"
        )
    off = summary.filter(
        pl.col("ratio").is_finite() & (pl.col("ratio") >= 0) & ~pl.col("ratio").is_between(*RATIO)
    )
    if off.height:
        worst = off.sort((pl.col("ratio").log()).abs(), descending=True, nulls_last=True).row(0, named=True)
        found.append(
            f"{off.height} parameters do not decay as intended, {worst['parameter']} by {worst['ratio']:.3g} "
            "of it: skipped steps, a cautious rule, a decay that acts every few steps or is not what its "
            "strength means (see wd.probe), or weights too narrow for so small a change (bfloat16)"
        )
    unasked = rows.filter((pl.col("weight_decay") == 0) & (pl.col("applied").abs() > UNASKED))
    if unasked.height:
        names = _some(list(unasked["parameter"].unique(maintain_order=True)))
        found.append(f"the strength of {names} is 0, and something decays it; see wd.probe")
    unknown = rows.filter(pl.col("intended").is_nan())["parameter"].unique(maintain_order=True)
    if len(unknown):
        found.append(
            f"no rate is known for {_some(list(unknown))}: coupled decay in an adaptive optimizer is divided "
            "by the size of the gradient; audit the optimizer, or use decoupled decay"
        )
    idle = rows.filter((pl.col("weight_decay") > 0) & (pl.col("lr") > 0) & (pl.col("intended") == 0))
    if idle.height:
        names = _some(list(idle["parameter"].unique(maintain_order=True)))
        found.append(f"a strength above 0 removes nothing of {names}: the optimizer ignores it; see wd.probe")
    residual = summary.filter(pl.col("residual").is_finite() & (pl.col("residual").abs() > RESIDUAL))
    if residual.height:
        found.append(
            f"{residual.height} norms are not at the equilibrium that decay and updates predict, "
            f"{residual['parameter'][0]} is off by {residual['residual'][0]:+.0%}: not there yet, a changing "
            "step size, or updates that depend on the weights (the layer is not scale-invariant, or examples "
            "are learnt by heart)"
        )
    blind = rows.filter(pl.col("update_norm").is_nan())["parameter"].unique(maintain_order=True)
    if len(blind):
        found.append(
            f"the gradient part of the step is not known for {_some(list(blind))}: step(closure) makes its "
            "gradients too late to be seen, the optimizer holds what cannot be copied, or weights are not "
            "finite"
        )
    return tuple(found)


def _range(values: pl.Series) -> tuple[float, float]:
    known = values.drop_nulls().drop_nans()
    low: Any = known.min()
    high: Any = known.max()
    return (math.nan, math.nan) if low is None else (float(low), float(high))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


Row = dict[str, Any]
# What TensorBoard gets, by parameter: `weight/norm` and so on.
_SCALARS = (
    *("norm", "rms", "update_norm", "angle", "effective_lr", "applied", "intended", "kappa"),
    "equilibrium_norm",
)


def file(path: str | Path) -> Callable[[list[Row]], None]:
    """Keep a CSV or Parquet file, by its suffix, that has every look until now; replaced whole each time.

    Raises:
        InputError: another suffix, or a folder that cannot be written.

    >>> file("monitor.txt")
    Traceback (most recent call last):
    weightdecay.errors.InputError: no such kind of file: path = monitor.txt; use .csv or .parquet
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise InputError("no such kind of file", "path", path, "use .csv or .parquet")
    writable_folder(path.parent)
    seen: list[pl.DataFrame] = []

    def write(rows: list[Row]) -> None:
        seen.append(pl.DataFrame(rows, schema=SCHEMA))
        with replacing(path) as temporary:
            table = pl.concat(seen)
            if path.suffix == ".csv":
                table.write_csv(temporary)
            else:
                table.write_parquet(temporary)

    return write


def tensorboard(folder: str | Path) -> Callable[[list[Row]], None]:
    """Write scalars for TensorBoard: `<parameter>/<column>` at each look.

    Raises:
        InputError: tensorboard is not installed, or the folder cannot be written.
    """
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise InputError(
            "tensorboard is not installed", "folder", folder, "pip install 'weightdecay[tensorboard]'"
        ) from error
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(writable_folder(Path(folder))))

    def write(rows: list[Row]) -> None:
        for row in rows:
            for name in _SCALARS:
                writer.add_scalar(f"{row['parameter']}/{name}", row[name], row["step"])
        for name in ("train_loss", "test_loss"):
            if rows and rows[0][name] is not None:
                writer.add_scalar(name, rows[0][name], rows[0]["step"])
        writer.flush()

    return write
