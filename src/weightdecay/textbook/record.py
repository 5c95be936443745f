"""The record of one run: what was set, what was measured, what theory says; saved as plain files."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import polars as pl
import torch

from weightdecay.saving import KINDS, Saved, environment, save
from weightdecay.text import Text, chinese_of, texts_of
from weightdecay.textbook.settings import Draw, Experiment, Synthetic, TableFile
from weightdecay.textbook.versions import VERSIONS

RESULT_SCHEMA: dict[str, Any] = {
    "version": pl.String,
    "seed": pl.Int64,
    "lam": pl.Float64,
    "epoch": pl.Int64,
    "train_loss": pl.Float64,
    "test_loss": pl.Float64,
    "w_norm": pl.Float64,
}
SLIDER_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("version", "init"), pl.String),
    **dict.fromkeys(("lam", "half_life", "theory", "ridge"), pl.Float64),
    "w_norm": pl.Float32,
    "epoch": pl.List(pl.Int64),
    **dict.fromkeys(("train_loss", "test_loss", "weights"), pl.List(pl.Float32)),
}
CURVE_SCHEMA: dict[str, Any] = dict.fromkeys(
    ("lam", "test_loss", "test_low", "test_high", "theory", "ridge"), pl.Float64
)


@dataclass(frozen=True)
class Evaluation:
    """One look at one training: what a callback is given.

    Args:
        version: scratch, concise, concise-matched or two-optimizers.
        seed: the seed.
        lam: λ.
        epoch: after which epoch.
        train_loss: half the mean squared error on the training data, without penalty.
        test_loss: likewise on the test data.
        w_norm: the L2 norm of the weights, bias excluded.
        epochs: how many epochs the training has in all.
    """

    version: str
    seed: int
    lam: float
    epoch: int
    train_loss: float
    test_loss: float
    w_norm: float
    epochs: int


@dataclass(frozen=True)
class Outcome:
    """How a version ended at one λ: medians over the seeds.

    Args:
        version: the version.
        lam: λ as given.
        train_loss: half the mean squared training error.
        test_loss: half the mean squared test error.
        test_low: its first quartile over the seeds.
        test_high: its third quartile.
        w_norm: the L2 norm of w.
        theory: test loss of the expected w_t, b_t after as many steps (not the expected test loss, which the
            spread of minibatches makes a little larger or smaller); None where Adam steps the bias.
        ridge: test loss of the exact ridge solution at the same strength (least norm at λ = 0).
        b: the bias.
        theory_b: the bias expected after as many steps; None where Adam steps it.
        ridge_b: the bias of the exact ridge solution.
        residue: squared length expected to be left of the start where no example reaches.
        out_of_reach: that squared length as measured.
        excess: ||w − w*||² + (b − b*)²; None for a table.
    """

    version: str
    lam: float
    train_loss: float
    test_loss: float
    test_low: float
    test_high: float
    w_norm: float
    theory: float | None
    ridge: float
    b: float
    theory_b: float | None
    ridge_b: float
    residue: float
    out_of_reach: float
    excess: float | None

    def is_worse_than(self, other: "Outcome") -> bool:
        """Whether its test loss is noticeably larger: by more than half a percent."""
        return self.test_loss > 1.005 * other.test_loss


@dataclass(frozen=True)
class LambdaCurve:
    """Test loss against λ for one version: median and quartiles over seeds, with theory.

    Args:
        version: the version.
        seeds: how many.
        table: columns lam, test_loss, test_low, test_high, theory, ridge; NaN where a training diverged.
        best_lam: the λ of least measured median test loss.
        best_lam_theory: the λ best for the design at convergence, in this version's convention; or None.
    """

    version: str
    seeds: int
    table: pl.DataFrame
    best_lam: float
    best_lam_theory: float | None


@dataclass(frozen=True)
class Run:
    """One run of the textbook's experiment.

    Args:
        experiment: every setting, with λ resolved.
        results: one row per version, seed, λ and look; columns as in `Evaluation`, without epochs.
        outcomes: the end of each version at each λ.
        curve: test loss against λ, or None.
        notes: what there is to see, in sentences with the numbers of this run.
        complete: False if the run was interrupted.
        slider: the trainings behind the page's slider, as `weightdecay.textbook.experiment` says; or None.
    """

    experiment: Experiment
    results: pl.DataFrame = field(repr=False)
    outcomes: tuple[Outcome, ...] = ()
    curve: LambdaCurve | None = field(default=None, repr=False)
    notes: tuple[Text, ...] = field(default=(), repr=False)
    complete: bool = True
    slider: pl.DataFrame | None = field(default=None, repr=False)

    def losses(self, version: str, lam: float) -> pl.DataFrame:
        """One training's losses over the epochs, over seeds: median (and quartiles of the test loss)."""
        test = pl.col("test_loss")
        return (
            self.results.filter(pl.col("version") == version, pl.col("lam") == lam)
            .group_by("epoch", maintain_order=True)
            .agg(
                pl.col("train_loss").median(),
                test.median(),
                test.quantile(0.25, "linear").alias("test_low"),
                test.quantile(0.75, "linear").alias("test_high"),
            )
            .sort("epoch")
        )

    def table(self) -> pl.DataFrame:
        """The outcomes as a table: one row per version and λ, one column per field of `Outcome`."""
        columns = {f.name: [getattr(outcome, f.name) for outcome in self.outcomes] for f in fields(Outcome)}
        return pl.DataFrame(
            columns, schema={"version": pl.String} | dict.fromkeys([*columns][1:], pl.Float64)
        )

    def save(self, folder: str | Path) -> list[Path]:
        """Write results.parquet, lambda.parquet and slider.parquet (with a curve), run.json.

        Returns their paths.

        The folder is made if need be. Either all files are replaced or none; run.json has the checksums of
        the others.

        Raises:
            InputError: they cannot be written.
        """
        folder = Path(folder)
        tables = {"results": self.results, "lambda": self.curve and self.curve.table, "slider": self.slider}
        parts = {f"{name}.parquet": table for name, table in tables.items() if table is not None}
        paths = save(folder, "run.json", self.to_dict(), parts)
        for name in tables:
            if f"{name}.parquet" not in parts:  # of a run that was here before
                (folder / f"{name}.parquet").unlink(missing_ok=True)
        return paths

    def to_dict(self) -> dict[str, Any]:
        """Everything but the two tables, as plain values."""
        data = self.experiment.data
        curve = self.curve and {k: v for k, v in vars(self.curve).items() if k != "table"}
        return {
            "kind": KINDS["run.json"].name,
            "complete": self.complete,
            "settings": self.experiment.to_dict(),
            "seeds": self.experiment.seed_list,
            "data_sha256": data.sha256 if isinstance(data, TableFile) else None,
            "environment": environment(),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "curve": curve,
            "notes": list(self.notes),
            "notes_zh": chinese_of(self.notes),
        }


def from_saved(saved: Saved) -> Run:
    """Make the run that `Run.save` wrote."""
    curve, slider = saved["curve"], "slider.parquet" in saved["sha256"]
    return Run(
        experiment=Experiment.from_dict(saved["settings"]),
        results=saved.table("results.parquet", RESULT_SCHEMA),
        outcomes=tuple(Outcome(**outcome) for outcome in saved["outcomes"]),
        curve=curve and LambdaCurve(table=saved.table("lambda.parquet", CURVE_SCHEMA), **curve),
        notes=texts_of(saved["notes"], saved.values.get("notes_zh")),
        complete=saved["complete"],
        slider=saved.table("slider.parquet", SLIDER_SCHEMA) if slider else None,
    )


def explain(
    experiment: Experiment,
    first: Draw,
    results: pl.DataFrame,
    outcomes: Sequence[Outcome],
    curve: LambdaCurve | None,
    gap: float,
) -> Iterator[Text]:
    """Say what there is to see, the most striking first.

    Args:
        experiment: the settings.
        first: the draw of the first seed.
        results: every look at every training.
        outcomes: the end of each version at each λ.
        curve: test loss against λ, or None.
        gap: by how much the batched program and the plain ones differ in test loss, relatively, at most.
    """
    yield from _effect(outcomes)
    yield from _forgetting(experiment, first, outcomes)
    yield from _bias(experiment, outcomes)
    if isinstance(experiment.data, Synthetic):
        yield from _best(experiment, curve)
    else:
        yield from _unreached(experiment, outcomes)
        yield Text(
            "What needs the true weights (excess risk, the best λ of the design) is left out for a table.",
            "需要知道真实权重的内容（超额风险、该设计的最佳 λ）对表格数据略去。",
        )
    yield from _conventions(experiment, results)
    watched, every = len(experiment.watched), len(experiment.lambdas or ())
    if watched < every:
        yield Text(
            f"The curves show {watched} of the {every} λ.", f"曲线只画出 {every} 个 λ 中的 {watched} 个。"
        )
    yield Text(
        f"The batched program repeats the plain ones: test losses differ by {gap:.1e} at most, relatively.",
        f"批量程序与逐个训练的程序结果一致：测试损失的相对差别不超过 {gap:.1e}。",
    )


def _effect(outcomes: Sequence[Outcome]) -> Iterator[Text]:
    """Say what each λ did to the test loss, against none."""
    for without, decayed in itertools.product(outcomes, outcomes):
        if without.lam != 0 or decayed.lam == 0 or decayed.version != without.version:
            continue
        ratio = decayed.test_loss / without.test_loss
        if decayed.is_worse_than(without):
            effect = Text("makes the test loss WORSE", "使测试损失变差")
        elif ratio < 0.1:
            times = f"{1 / ratio:,.0f}"
            effect = Text(f"lowers the test loss {times} times", f"使测试损失降到原来的 {times} 分之一")
        elif ratio < 0.995:
            effect = Text(f"lowers the test loss by {1 - ratio:.0%}", f"使测试损失降低 {1 - ratio:.0%}")
        else:
            effect = Text("hardly changes the test loss", "几乎不改变测试损失")
        lam, before, after = decayed.lam, f"{without.test_loss:.4g}", f"{decayed.test_loss:.4g}"
        yield Text(
            f"{without.version}: λ = {lam:.3g} {effect}: {before} without, {after} with decay.",
            f"{without.version}：λ = {lam:.3g} {effect.zh}：无衰减时 {before}，有衰减时 {after}。",
        )


def _forgetting(experiment: Experiment, first: Draw, outcomes: Sequence[Outcome]) -> Iterator[Text]:
    """Say why decay helps: it forgets the part of the start that no example reaches."""
    n, p, rank = len(first.y), first.X.shape[1], int(torch.linalg.matrix_rank(first.X))
    if rank == p:
        return
    reach = Text(
        f"{n} examples reach {rank} of the {p} directions of w",
        f"{n} 个样本触及 w 的 {p} 个方向中的 {rank} 个",
    )
    if experiment.init == "zero":
        yield Text(
            f"{reach}. Started from zero, the other {p - rank} hold nothing that decay could forget.",
            f"{reach.zh}。从零开始时，其余 {p - rank} 个方向上没有什么可让衰减忘掉的。",
        )
        return
    best = min(outcomes, key=attrgetter("test_loss"))
    helps = best.lam > 0 and 0 in (experiment.lambdas or ())
    why = Text("Why: ", "原因：") if helps else Text("", "")
    yield Text(
        f"{why}{reach}. In the other {p - rank} no gradient ever moves the N(0, 1) start; only decay does.",
        f"{why.zh}{reach.zh}。在其余 {p - rank} 个方向上，梯度从不移动 N(0, 1) 的起点，只有衰减会。",
    )
    for outcome in outcomes:
        if outcome.version == outcomes[0].version:
            lam, steps = f"{outcome.lam:.3g}", experiment.steps
            expected, measured = f"{outcome.residue:.3g}", f"{outcome.out_of_reach:.3g}"
            yield Text(
                f"  λ = {lam}: after {steps} steps a squared length of {expected} is expected in them; "
                f"it is {measured}.",
                f"  λ = {lam}：{steps} 步之后，这些方向上的长度平方预期为 {expected}，实际为 {measured}。",
            )
    if helps:
        yield Text(
            '  Switch it off with init "zero": nothing to forget, and little of the effect remains.',
            '  用 init "zero" 可以去掉它：没有什么可忘，效果也就所剩无几。',
        )


def _unreached(experiment: Experiment, outcomes: Sequence[Outcome]) -> Iterator[Text]:
    """Say where so many steps of gradient descent are still far from the minimiser they go to."""
    for outcome in outcomes:
        if outcome.lam > 0 and outcome.test_loss > 1.5 * outcome.ridge:
            version, lam, ridge = outcome.version, f"{outcome.lam:.3g}", f"{outcome.ridge:.4g}"
            yield Text(
                f"{version}, λ = {lam}: {experiment.steps} steps do not get near the exact minimiser, ridge, "
                f"whose test loss is {ridge}.",
                f"{version}，λ = {lam}：{experiment.steps} 步到不了精确的最小值点（岭回归）附近，"
                f"那里的测试损失是 {ridge}。",
            )


def _bias(experiment: Experiment, outcomes: Sequence[Outcome]) -> Iterator[Text]:
    """Say where the bias has got to, if that is not yet where ridge has it."""
    strongest = max(experiment.lambdas or (0,))
    for outcome in outcomes:
        off = abs(outcome.b - outcome.ridge_b) > 0.1 * abs(outcome.ridge_b)
        if outcome.theory_b is None or outcome.lam != strongest or not off:
            continue
        version, lam, steps = outcome.version, f"{outcome.lam:.3g}", experiment.steps
        start = "N(0, 1)" if VERSIONS[version].draws_bias and experiment.init == "normal" else "0"
        b, expected, ridge = f"{outcome.b:.3g}", f"{outcome.theory_b:.3g}", f"{outcome.ridge_b:.3g}"
        yield Text(
            f"{version}, λ = {lam}: the bias, started at {start}, is {b} after {steps} steps (expected "
            f"{expected}), on its way to {ridge}.",
            f"{version}，λ = {lam}：偏置从 {start} 开始，{steps} 步之后是 {b}（预期 {expected}），"
            f"正在趋向 {ridge}。",
        )


def _best(experiment: Experiment, curve: LambdaCurve | None) -> Iterator[Text]:
    """Say which λ of the curve is best, after these steps and trained to the end."""
    if curve is None:
        return
    losses = dict(curve.table.select("lam", "test_loss").iter_rows())
    close = [lam for lam, loss in losses.items() if loss <= 1.05 * losses[curve.best_lam]]
    least, best = f"{losses[curve.best_lam]:.3g}", f"{curve.best_lam:.3g}"
    low, high = f"{min(close):.3g}", f"{max(close):.3g}"
    edge = forgets = Text("", "")
    if curve.best_lam == max(losses):
        edge = Text(" (the largest on the curve)", "（曲线上最大的）")
    if experiment.init == "normal":
        forgets = Text(
            f" In only {experiment.steps} steps more decay forgets more of the start.",
            f"只走 {experiment.steps} 步时，衰减越强，起点忘得越多。",
        )
    yield Text(
        f"{curve.version}, {curve.seeds} seeds: the median test loss is least, {least}, at λ = {best}"
        f"{edge}, and within 5 % of that from {low} to {high}.{forgets}",
        f"{curve.version}，{curve.seeds} 个种子：测试损失的中位数在 λ = {best}{edge.zh} 处最小，"
        f"为 {least}；从 {low} 到 {high} 与它相差不超过 5 %。{forgets.zh}",
    )
    if curve.best_lam_theory is not None:
        yield Text(
            "Trained until nothing changes, as in the ridge column, the best λ for this design is "
            f"noise²/(n w*²), in this version λ = {curve.best_lam_theory:.3g}.",
            "训练到不再变化时（如岭回归一列），这种设计的最佳 λ 是 noise²/(n w*²)，"
            f"在这个版本中 λ = {curve.best_lam_theory:.3g}。",
        )


def _conventions(experiment: Experiment, results: pl.DataFrame) -> Iterator[Text]:
    """Say which versions optimise the same objective, and how closely they then agree."""
    if {"concise", "two-optimizers"} & set(experiment.versions):
        yield Text(
            "As printed, MSELoss has no ½, so λ acts as λ/2 and lr as 2·lr, and the bias starts at "
            "N(0, 1): the concise curves differ from those from scratch. Version concise-matched gives "
            "the optimizer 2λ and lr/2 instead.",
            "照书上写，MSELoss 没有 ½，所以 λ 相当于 λ/2，lr 相当于 2·lr，而且偏置从 N(0, 1) 开始："
            "简洁实现的曲线与从零实现的不同。concise-matched 版本改给优化器 2λ 和 lr/2。",
        )
    if {"scratch", "concise-matched"} <= set(experiment.versions):
        scratch, matched = (results.filter(pl.col("version") == v) for v in ("scratch", "concise-matched"))
        pairs = scratch.join(matched, on=["seed", "lam", "epoch"], suffix="_matched")
        gap = (pairs["test_loss_matched"] / pairs["test_loss"] - 1).abs().max()
        yield Text(
            f"scratch and concise-matched optimise one objective from one start: their test losses "
            f"differ by {gap:.1e} at most, relatively ({experiment.dtype}).",
            f"scratch 与 concise-matched 从同一起点优化同一目标：测试损失的相对差别不超过 {gap:.1e}"
            f"（{experiment.dtype}）。",
        )
    if "two-optimizers" in experiment.versions:
        yield Text(
            "two-optimizers: no theory column, as Adam on the bias has no closed form.",
            "two-optimizers：没有理论一列，因为偏置上的 Adam 没有闭式解。",
        )
