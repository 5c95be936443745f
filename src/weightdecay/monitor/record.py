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
from weightdecay.text import Text

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
    def lines(self) -> tuple[Text, ...]:
        """The answer in plain sentences."""
        return lines_of(self.summary(), self.optimizer, self.steps, self.every)

    @property
    def doubts(self) -> tuple[Text, ...]:
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


# Differences between measured and predicted norms are reported from a tenth on: noise of few looks is less.
RESIDUAL = 0.1
# Applied over intended beyond these is no rounding of a healthy run.
RATIO = (0.9, 1.1)
# A fraction of a weight that rounding does not take in a step.
UNASKED = 1e-6


def lines_of(summary: pl.DataFrame, optimizer: str, steps: int, every: int) -> tuple[Text, ...]:
    """Say what happened, a line each."""
    if not summary.height:
        return (
            Text(
                f"{optimizer}: {steps} steps, no look yet (one every {every} steps)",
                f"{optimizer}：{steps} 步，还没有观察（每 {every} 步一次）",
            ),
        )
    lines = [
        Text(
            f"{optimizer}: {steps} steps, a look every {every}; figures of the second half of the looks",
            f"{optimizer}：{steps} 步，每 {every} 步观察一次；数字取后一半的观察",
        )
    ]
    decaying = summary.filter(pl.col("ratio").is_finite())
    if count := decaying.height:
        low, high = _range(decaying["ratio"])
        lines.append(
            Text(
                f"decay applied over intended: {low:.3g} to {high:.3g} in {count} parameters that decay",
                f"实际衰减除以应有衰减：{low:.3g} 到 {high:.3g}，共 {count} 个衰减的参数",
            )
        )
    low, high = _range(summary["angle"])
    lines.append(
        Text(f"angle of a step: {low:.3g} to {high:.3g} rad", f"每步的角度：{low:.3g} 到 {high:.3g} 弧度")
    )
    balanced = summary.filter(pl.col("residual").is_finite())
    if balanced.height:
        low, high = _range(balanced["residual"])
        _, needed = _range(balanced["steps_to_equilibrium"])
        lines.append(
            Text(
                f"norm against the equilibrium of decay and updates: {low:+.1%} to {high:+.1%}; "
                f"it takes {needed:.4g} steps to get there",
                f"范数相对于衰减与更新的平衡：{low:+.1%} 到 {high:+.1%}；到达那里需要 {needed:.4g} 步",
            )
        )
    return tuple(lines)


def doubts_of(summary: pl.DataFrame, rows: pl.DataFrame) -> tuple[Text, ...]:
    """Say what looks wrong or is not known, a line each."""
    said: list[Text] = []
    growing = summary.filter(pl.col("ratio").is_finite() & (pl.col("ratio") < 0))
    if count := growing.height:
        worst = growing.sort("ratio").row(0, named=True)
        name, share = worst["parameter"], f"{-worst['ratio']:.3g}"
        said.append(
            Text(
                f"{count} parameters grow by their decay, {name} by {share} of what it should lose: "
                "the sign is wrong; see wd.probe",
                f"{count} 个参数因衰减而变大，{name} 增大了应减少量的 {share} 倍：符号反了；参见 wd.probe",
            )
        )
    off = summary.filter(
        pl.col("ratio").is_finite() & (pl.col("ratio") >= 0) & ~pl.col("ratio").is_between(*RATIO)
    )
    if count := off.height:
        worst = off.sort((pl.col("ratio").log()).abs(), descending=True, nulls_last=True).row(0, named=True)
        name, ratio = worst["parameter"], f"{worst['ratio']:.3g}"
        said.append(
            Text(
                f"{count} parameters do not decay as intended, {name} by {ratio} of it: skipped steps, "
                "a cautious rule, a decay that acts every few steps or is not what its strength means "
                "(see wd.probe), or weights too narrow for so small a change (bfloat16)",
                f"{count} 个参数的衰减与应有的不同，{name} 是应有的 {ratio} 倍：跳过的步、谨慎规则、"
                "每隔几步才作用一次的衰减、与强度的含义不符的衰减（参见 wd.probe），"
                "或权重的精度太低，容不下这样小的变化（bfloat16）",
            )
        )
    if names := _names(rows.filter((pl.col("weight_decay") == 0) & (pl.col("applied").abs() > UNASKED))):
        said.append(
            Text(
                f"the strength of {names} is 0, and something decays it; see wd.probe",
                f"{names.zh} 的强度是 0，却在衰减；参见 wd.probe",
            )
        )
    if names := _names(rows.filter(pl.col("intended").is_nan())):
        said.append(
            Text(
                f"no rate is known for {names}: coupled decay in an adaptive optimizer is divided by the "
                "size of the gradient; audit the optimizer, or use decoupled decay",
                f"{names.zh} 的衰减率无从知道：自适应优化器中的耦合衰减会除以梯度的大小；"
                "请审计优化器，或改用解耦衰减",
            )
        )
    idle = (pl.col("weight_decay") > 0) & (pl.col("lr") > 0) & (pl.col("intended") == 0)
    if names := _names(rows.filter(idle)):
        said.append(
            Text(
                f"a strength above 0 removes nothing of {names}: the optimizer ignores it; see wd.probe",
                f"{names.zh} 的强度大于 0，却没有衰减：优化器忽略了它；参见 wd.probe",
            )
        )
    residual = summary.filter(pl.col("residual").is_finite() & (pl.col("residual").abs() > RESIDUAL))
    if count := residual.height:
        name, share = residual["parameter"][0], f"{residual['residual'][0]:+.0%}"
        said.append(
            Text(
                f"{count} norms are not at the equilibrium that decay and updates predict, {name} is off by "
                f"{share}: not there yet, a changing step size, or updates that depend on the weights "
                "(the layer is not scale-invariant, or examples are learnt by heart)",
                f"{count} 个范数不在衰减与更新所预言的平衡上，{name} 偏离 {share}："
                "还没有到达、步长在变，或更新依赖于权重（这一层不是尺度不变的，或样本已被背下）",
            )
        )
    if names := _names(rows.filter(pl.col("update_norm").is_nan())):
        said.append(
            Text(
                f"the gradient part of the step is not known for {names}: step(closure) makes its gradients "
                "too late to be seen, the optimizer holds what cannot be copied, or weights are not finite",
                f"{names.zh} 的更新中梯度部分无从知道：step(closure) 算梯度太晚，看不到；"
                "优化器含有不能复制的东西；或权重不是有限的数",
            )
        )
    return tuple(said)


def _range(values: pl.Series) -> tuple[float, float]:
    known = values.drop_nulls().drop_nans()
    low: Any = known.min()
    high: Any = known.max()
    return (math.nan, math.nan) if low is None else (float(low), float(high))


def _names(rows: pl.DataFrame) -> Text:
    """Return the first parameters of rows, and how many more there are; empty where there are none."""
    names = rows["parameter"].unique(maintain_order=True).to_list()
    first, more = ", ".join(names[:3]), len(names) - 3
    if more <= 0:
        return Text(first, first)
    return Text(f"{first} and {more} more", f"{first} 等（另有 {more} 个）")


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

    writer = SummaryWriter(str(writable_folder(folder)))

    def write(rows: list[Row]) -> None:
        for row in rows:
            for name in _SCALARS:
                writer.add_scalar(f"{row['parameter']}/{name}", row[name], row["step"])
        for name in ("train_loss", "test_loss"):
            if rows and rows[0][name] is not None:
                writer.add_scalar(name, rows[0][name], rows[0]["step"])
        writer.flush()

    return write
