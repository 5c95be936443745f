"""The record of one run: what was set, what was measured, what theory says; saved as plain files."""

import json
import platform
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version as version_of
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from weightdecay.errors import InputError
from weightdecay.files import read_checked, read_json, sha256, write_together
from weightdecay.textbook.data import TableFile
from weightdecay.textbook.settings import Experiment

VERSION = 1  # of the files
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
        slider: the trainings behind the page's slider, as `weightdecay.textbook.slider` says; or None.
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
        files = {f"{name}.parquet": _parquet(table) for name, table in tables.items() if table is not None}
        sums = {name: sha256(content) for name, content in files.items()}
        record = {**self.to_dict(), "version": VERSION, "sha256": sums}
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        paths = write_together(folder, {**files, "run.json": text.encode()})
        for name in tables:
            if f"{name}.parquet" not in files:  # of a run that was here before
                (folder / f"{name}.parquet").unlink(missing_ok=True)
        return paths

    def to_dict(self) -> dict[str, Any]:
        """Everything but the two tables, as plain values."""
        data = self.experiment.data
        curve = self.curve and {k: v for k, v in vars(self.curve).items() if k != "table"}
        return {
            "kind": "textbook",
            "complete": self.complete,
            "settings": self.experiment.to_dict(),
            "seeds": self.experiment.seed_list,
            "data_sha256": data.sha256 if isinstance(data, TableFile) else None,
            "environment": environment(),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "curve": curve,
            "notes": list(self.notes),
        }


def load_run(folder: str | Path) -> Run:
    """Load what `Run.save` wrote.

    Raises:
        InputError: a file is missing, cannot be read or is not what it should be.
    """
    folder = Path(folder)
    values = read_json(folder / "run.json")
    if not isinstance(values, dict) or values.get("kind") != "textbook":
        raise InputError(
            "not a textbook run", str(folder / "run.json"), None, "give the folder of a textbook run"
        )
    if values.get("version") != VERSION or not isinstance(values.get("sha256"), dict):
        what, version = "written by another version", values.get("version")
        raise InputError(what, str(folder / "run.json"), version, "run it again")
    sums = values["sha256"]
    try:
        curve = values["curve"] and LambdaCurve(
            table=_read_parquet(folder, "lambda.parquet", sums, CURVE_SCHEMA), **values["curve"]
        )
        return Run(
            experiment=Experiment.from_dict(values["settings"]),
            results=_read_parquet(folder, "results.parquet", sums, RESULT_SCHEMA),
            outcomes=tuple(Outcome(**outcome) for outcome in values["outcomes"]),
            curve=curve,
            notes=tuple(values["notes"]),
            complete=values["complete"],
            slider=_read_parquet(folder, "slider.parquet", sums, SLIDER_SCHEMA)
            if "slider.parquet" in sums
            else None,
        )
    except InputError:  # which is a ValueError and says more
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "a field is missing or unknown", str(folder / "run.json"), error, "run it again"
        ) from error


def environment() -> dict[str, Any]:
    """What, beside the settings, the bits of a run depend on."""
    versions = {name: version_of(name) for name in ("weightdecay", "torch", "numpy", "polars", "matplotlib")}
    return {**versions, "python": platform.python_version(), "machine": platform.machine()}


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _read_parquet(folder: Path, name: str, sums: dict[str, Any], schema: dict[str, Any]) -> pl.DataFrame:
    path = folder / name
    content = read_checked(path, sums[name], "run.json", "run it again")
    try:
        frame = pl.read_parquet(BytesIO(content))
    except pl.exceptions.PolarsError as error:
        said = str(error).splitlines()[0]
        raise InputError("a file cannot be read", str(path), said, "run it again") from error
    if dict(frame.schema) != schema:
        raise InputError(
            "a table has other columns than it should", str(path), list(frame.columns), "run it again"
        )
    return frame
