"""The record of one run: what was set, what was measured, what theory says; saved as plain files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import polars as pl
import torch

from weightdecay.saving import KINDS, Saved, environment, save
from weightdecay.textbook.data import Draw, Synthetic, TableFile
from weightdecay.textbook.settings import Experiment
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
    notes: tuple[str, ...] = field(default=(), repr=False)
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
        }


def from_saved(saved: Saved) -> Run:
    """Make the run that `Run.save` wrote."""
    curve, slider = saved["curve"], "slider.parquet" in saved["sha256"]
    return Run(
        experiment=Experiment.from_dict(saved["settings"]),
        results=saved.table("results.parquet", RESULT_SCHEMA),
        outcomes=tuple(Outcome(**outcome) for outcome in saved["outcomes"]),
        curve=curve and LambdaCurve(table=saved.table("lambda.parquet", CURVE_SCHEMA), **curve),
        notes=tuple(saved["notes"]),
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
) -> list[str]:
    """The sentences, most striking first.

    Args:
        experiment: the settings.
        first: the draw of the first seed.
        results: every look at every training.
        outcomes: the end of each version at each λ.
        curve: test loss against λ, or None.
        gap: by how much the batched program and the plain ones differ in test loss, relatively, at most.
    """
    notes = [*_effect(outcomes), *_forgetting(experiment, first, outcomes), *_bias(experiment, outcomes)]
    if isinstance(experiment.data, Synthetic):
        notes += _best(experiment, curve)
    else:
        notes += _unreached(experiment, outcomes)
        notes.append(
            "What needs the true weights (excess risk, the best λ of the design) is left out for a table."
        )
    notes += _conventions(experiment, results)
    if len(experiment.watched) < len(experiment.lambdas or ()):
        notes.append(f"The curves show {len(experiment.watched)} of the {len(experiment.lambdas or ())} λ.")
    notes.append(
        f"The batched program repeats the plain ones: test losses differ by {gap:.1e} at most, relatively."
    )
    return notes


def _effect(outcomes: Sequence[Outcome]) -> list[str]:
    """What each λ did to the test loss, against none."""
    notes = []
    for without in (outcome for outcome in outcomes if outcome.lam == 0):
        for decayed in outcomes:
            if decayed.version != without.version or decayed.lam == 0:
                continue
            ratio = decayed.test_loss / without.test_loss
            if decayed.is_worse_than(without):
                effect = "makes the test loss WORSE"
            elif ratio < 0.995:
                by = f"{1 / ratio:,.0f} times" if ratio < 0.1 else f"by {1 - ratio:.0%}"
                effect = f"lowers the test loss {by}"
            else:
                effect = "hardly changes the test loss"
            notes.append(
                f"{without.version}: λ = {decayed.lam:.3g} {effect}: "
                f"{without.test_loss:.4g} without, {decayed.test_loss:.4g} with decay."
            )
    return notes


def _forgetting(experiment: Experiment, first: Draw, outcomes: Sequence[Outcome]) -> list[str]:
    """Why decay helps: it forgets the part of the start that no example reaches."""
    p, rank = first.X.shape[1], int(torch.linalg.matrix_rank(first.X))
    if rank == p:
        return []
    reach = f"{len(first.y)} examples reach {rank} of the {p} directions of w"
    if experiment.init == "zero":
        return [f"{reach}. Started from zero, the other {p - rank} hold nothing that decay could forget."]
    lambdas = [outcome.lam for outcome in sorted(outcomes, key=lambda outcome: outcome.test_loss)]
    helps = 0 in lambdas and lambdas[0] > 0
    notes = [
        f"{'Why: ' if helps else ''}{reach}. In the other {p - rank} no gradient ever moves the "
        "N(0, 1) start; only decay does."
    ]
    notes += [
        f"  λ = {outcome.lam:.3g}: after {experiment.steps} steps a squared length of {outcome.residue:.3g} "
        f"is expected in them; it is {outcome.out_of_reach:.3g}."
        for outcome in outcomes
        if outcome.version == outcomes[0].version
    ]
    if helps:
        notes.append('  Switch it off with init "zero": nothing to forget, and little of the effect remains.')
    return notes


def _unreached(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[str]:
    """Where so many steps of gradient descent are still far from the minimiser they go to."""
    return [
        f"{outcome.version}, λ = {outcome.lam:.3g}: {experiment.steps} steps do not get near the exact "
        f"minimiser, ridge, whose test loss is {outcome.ridge:.4g}."
        for outcome in outcomes
        if outcome.lam > 0 and outcome.test_loss > 1.5 * outcome.ridge
    ]


def _bias(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[str]:
    """Where the bias has got to, if that is not yet where ridge has it."""
    return [
        f"{outcome.version}, λ = {outcome.lam:.3g}: the bias, started at "
        f"{'N(0, 1)' if VERSIONS[outcome.version].draws_bias and experiment.init == 'normal' else 0}, is "
        f"{outcome.b:.3g} after {experiment.steps} steps (expected {outcome.theory_b:.3g}), on its way to "
        f"{outcome.ridge_b:.3g}."
        for outcome in outcomes
        if outcome.theory_b is not None
        and outcome.lam == max(o.lam for o in outcomes)
        and abs(outcome.b - outcome.ridge_b) > 0.1 * abs(outcome.ridge_b)
    ]


def _best(experiment: Experiment, curve: LambdaCurve | None) -> list[str]:
    if curve is None:
        return []
    losses = dict(curve.table.select("lam", "test_loss").iter_rows())
    least, close = (
        losses[curve.best_lam],
        [lam for lam, loss in losses.items() if loss <= 1.05 * losses[curve.best_lam]],
    )
    edge = " (the largest on the curve)" if curve.best_lam == max(losses) else ""
    notes = [
        f"{curve.version}, {curve.seeds} seeds: the median test loss is least, {least:.3g}, at "
        f"λ = {curve.best_lam:.3g}{edge}, and within 5 % of that from {min(close):.3g} to {max(close):.3g}."
    ]
    if experiment.init == "normal":
        notes[0] += f" In only {experiment.steps} steps more decay forgets more of the start."
    if curve.best_lam_theory is not None:
        notes.append(
            "Trained until nothing changes, as in the ridge column, the best λ for this design is "
            f"noise²/(n w*²), in this version λ = {curve.best_lam_theory:.3g}."
        )
    return notes


def _conventions(experiment: Experiment, results: pl.DataFrame) -> list[str]:
    """Which versions optimise the same objective, and how closely they then agree."""
    notes = []
    if {"concise", "two-optimizers"} & set(experiment.versions):
        notes.append(
            "As printed, MSELoss has no ½, so λ acts as λ/2 and lr as 2·lr, and the bias starts at N(0, 1): "
            "the concise curves differ from those from scratch. Version concise-matched gives the optimizer "
            "2λ and lr/2 instead."
        )
    if {"scratch", "concise-matched"} <= set(experiment.versions):
        keys = ["seed", "lam", "epoch"]
        scratch, matched = (results.filter(pl.col("version") == v) for v in ("scratch", "concise-matched"))
        pairs = scratch.join(matched, on=keys, suffix="_matched")
        gap = (pairs["test_loss_matched"] / pairs["test_loss"] - 1).abs().max()
        notes.append(
            f"scratch and concise-matched optimise one objective from one start: their test losses differ by "
            f"{gap:.1e} at most, relatively ({experiment.dtype})."
        )
    if "two-optimizers" in experiment.versions:
        notes.append("two-optimizers: no theory column, as Adam on the bias has no closed form.")
    return notes
