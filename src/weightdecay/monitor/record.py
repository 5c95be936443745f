"""What a monitor saw: one frozen record."""

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from weightdecay.files import sha256, write_together
from weightdecay.monitor.explain import doubts_of, lines_of

KIND, VERSION = "weightdecay monitor", 1
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
        buffer = BytesIO()
        self.rows.write_parquet(buffer)
        content = buffer.getvalue()
        about = {
            "kind": KIND,
            "version": VERSION,
            **{name: getattr(self, name) for name in ("optimizer", "every", "steps")},
            "sha256": sha256(content),
        }
        text = json.dumps(about, indent=2) + "\n"
        return write_together(folder, {"monitor.parquet": content, "monitor.json": text.encode()})

    def __str__(self) -> str:
        """The answer in sentences."""
        return "\n".join((*self.lines, *(f"note: {doubt}" for doubt in self.doubts)))

    def __repr__(self) -> str:
        """In a line."""
        looks = self.rows["step"].n_unique()
        parameters = self.rows["parameter"].n_unique()
        return f"Monitored({self.optimizer}, {self.steps} steps, {looks} looks at {parameters} parameters)"
