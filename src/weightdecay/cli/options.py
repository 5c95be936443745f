"""The options of each command: one frozen record, from which its parameters on the command line are made."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from weightdecay.errors import InputError
from weightdecay.text import Text, used

EPOCHS = 20  # of a sweep, where neither the file nor the command says
LANG = typer.Option("--lang", help="Language of the output: en or zh. [that of LC_ALL, LC_MESSAGES, LANG]")
_JSON = typer.Option("--json", help="Print one JSON object instead of text.")
_QUIET = typer.Option("--quiet", help="Print nothing but errors.")
_SEPARATOR = typer.Option(help="What stands between two columns: ';', tab. [found in the first lines]")
_DECIMAL_COMMA = typer.Option(
    "--decimal-comma/--decimal-point", help="How numbers are written. [found in the first lines]"
)
_ENCODING = typer.Option(help="Of the text: utf-8, windows-1252, utf-16. [found]")
_LAW = typer.Option(help="The rule's rate goes with: lr, lr_relative, lr_squared or constant.")
_SETUP = "schedule=, warmup=, floor=, decay=, interval=, examples=, width="
SETUP = Text(f"batch=256,lr=3e-4,steps=10000; and {_SETUP}", f"batch=256,lr=3e-4,steps=10000；以及 {_SETUP}")


def command(function: Callable[[Any], None]) -> Callable[..., None]:
    """Make a command of a function of options: a parameter for each field of their record, and --lang."""
    record = get_type_hints(function)["options"]
    hints = {**get_type_hints(record, include_extras=True), "lang": Annotated[str | None, LANG]}

    @functools.wraps(function)
    def run(lang: str | None = None, **values: Any) -> None:  # noqa: ARG001 (read before, see cli.run)
        function(record(**values))

    run.__annotations__ = hints
    run.__signature__ = inspect.Signature(  # pyright: ignore[reportAttributeAccessIssue]
        [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in fields(record)
        ]
        + [inspect.Parameter("lang", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hints["lang"])]
    )
    return run


def _help(command: Any, ctx: Any, english: Callable[[Any], str]) -> str:
    """The help of a command in the language that is printed in."""
    if used() == "en":
        return english(ctx)
    from weightdecay.cli.chinese import help_of

    return help_of(command, ctx)


class Group(TyperGroup):
    """The program, with its help in both languages."""

    def get_help(self, ctx: Any) -> str:
        """Return what --help prints."""
        return _help(self, ctx, super().get_help)


class Command(TyperCommand):
    """A command that refuses an option given twice, of which the last would count and the first be lost."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the command's name."""
        order = self.make_parser(ctx).parse_args(args=[*args])[2]
        for option in order:
            if isinstance(option, TyperOption) and not option.multiple and order.count(option) > 1:
                remedy = Text("give it once", "只写一次")
                if "by commas" in (option.help or ""):
                    remedy = Text(f"{remedy}, several by commas", f"{remedy.zh}，多个值以逗号分隔")
                what = Text("an option is given more than once", "选项写了不止一次")
                raise InputError(what, option.opts[0], None, remedy)
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """Return what --help prints."""
        return _help(self, ctx, super().get_help)


def given(options: Any, *without: str) -> dict[str, Any]:
    """Return the options that were given, by name, but for some."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in values.items() if value is not None and name not in without}


@dataclass(frozen=True)
class TextbookOptions:
    """The options of `weightdecay textbook`."""

    lambdas: Annotated[
        str | None,
        typer.Option(
            "--lambda", help="λ: 0,3 or first:last:count. [0,3; with --data 0 and the leave-one-out best]"
        ),
    ] = None
    versions: Annotated[
        str | None,
        typer.Option(
            "--version",
            help="scratch, concise, concise-matched, two-optimizers, by commas, or all. [scratch,concise]",
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(help="First seed: draws data, start and batches. [0]")] = None
    seeds: Annotated[int | None, typer.Option(help="How many seeds. [1]")] = None
    data: Annotated[str | None, typer.Option(help="A .csv or .parquet table instead of synthetic data.")] = (
        None
    )
    target: Annotated[str | None, typer.Option(help="With --data: the column to predict.")] = None
    drop: Annotated[str | None, typer.Option(help="With --data: columns to leave out, by commas.")] = None
    n_train: Annotated[int | None, typer.Option(help="Training examples. [20]")] = None
    n_test: Annotated[int | None, typer.Option(help="Test examples. [100; with --data all others]")] = None
    n_inputs: Annotated[int | None, typer.Option(help="Inputs of an example. [200]")] = None
    true_weight: Annotated[float | None, typer.Option(help="Value of every true weight. [0.01]")] = None
    true_bias: Annotated[float | None, typer.Option(help="True bias. [0.05]")] = None
    noise: Annotated[float | None, typer.Option(help="Standard deviation of the noise. [0.01]")] = None
    batch_size: Annotated[int | None, typer.Option(help="Rows of a batch. [5]")] = None
    lr: Annotated[float | None, typer.Option(help="Step size. [0.003]")] = None
    bias_lr: Annotated[float | None, typer.Option(help="Adam's step size in two-optimizers. [0.01]")] = None
    epochs: Annotated[int | None, typer.Option(help="How often every example is seen. [100]")] = None
    every: Annotated[int | None, typer.Option(help="Take the losses every so many epochs. [5]")] = None
    init: Annotated[str | None, typer.Option(help="Start: normal, N(0,1), or zero. [normal]")] = None
    penalize_bias: Annotated[
        bool | None, typer.Option("--penalize-bias", help="Count the bias into the penalty.")
    ] = None
    dtype: Annotated[str | None, typer.Option(help="float32 or float64. [float32]")] = None
    curve: Annotated[
        str | None,
        typer.Option(help="λ of the figure over λ, a grid, or none. [1e-3:100:61; with --data 1e-10:100:73]"),
    ] = None
    curve_seeds: Annotated[int | None, typer.Option(help="Seeds of that figure. [20]")] = None
    settings: Annotated[
        Path | None, typer.Option(help="Run again: all settings from the run.json of an earlier run.")
    ] = None
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("runs/textbook")
    force: Annotated[
        bool, typer.Option("--force", help="Replace a run with other settings that is in the folder.")
    ] = False
    quiet: Annotated[bool, _QUIET] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = (
        False
    )
    show: Annotated[bool, typer.Option("--open", help="Open the page when done.")] = False


@dataclass(frozen=True)
class FitOptions:
    """The options of `weightdecay fit`."""

    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A table (.csv, .tsv, .txt, .parquet, .arrow), or a folder."),
    ]
    target: Annotated[
        str | None,
        typer.Option(
            help="The column to predict, or several by commas, as in a CSV. [none: the columns are listed]"
        ),
    ] = None
    drop: Annotated[str | None, typer.Option(help="Columns to leave out, by commas.")] = None
    category: Annotated[str | None, typer.Option(help="Columns to take as categories, by commas.")] = None
    number: Annotated[str | None, typer.Option(help="Columns to take as numbers, by commas.")] = None
    dates: Annotated[
        str | None, typer.Option(help="days: a date is the days since the first one. [dates are refused]")
    ] = None
    missing: Annotated[
        str,
        typer.Option(
            help="Cells without a value: refuse them, drop their rows, or mean, that of the training rows."
        ),
    ] = "refuse"
    ids: Annotated[
        str | None,
        typer.Option(
            "--id", help="Columns that name the rows, by commas: no inputs, kept beside predictions."
        ),
    ] = None
    task: Annotated[
        str | None,
        typer.Option(
            help="regression or classification. [classification of texts and of yes and no, else regression]"
        ),
    ] = None
    judge: Annotated[
        str | None,
        typer.Option(
            help="A classification is judged by log_loss, error, brier or, of two classes, auc. [log_loss]"
        ),
    ] = None
    cv: Annotated[
        str | None,
        typer.Option(
            help="loo, gcv, evidence or a number of folds. [loo; of a classification and with --groups, "
            "--time, --out-of-core 5]"
        ),
    ] = None
    lambdas: Annotated[
        str | None,
        typer.Option("--lambda", help="λ: 0.1,1 or first:last:count. [a grid that suits the data]"),
    ] = None
    unit: Annotated[str, typer.Option(help="Convention of λ; weightdecay convert --list has the names.")] = (
        "canonical"
    )
    choose: Annotated[
        str, typer.Option(help="The model's λ: best, or one-se, the strongest within one standard error.")
    ] = "best"
    shared: Annotated[bool, typer.Option("--shared", help="With several targets: one λ for all.")] = False
    seed: Annotated[int, typer.Option(help="Shuffles the folds.")] = 0
    groups: Annotated[
        str | None, typer.Option(help="Column of labels: rows of one label are held out together.")
    ] = None
    time: Annotated[
        bool, typer.Option("--time", help="Rows are in order of time: train on earlier ones only.")
    ] = False
    weights: Annotated[str | None, typer.Option(help="Column of the rows' weights.")] = None
    unpenalized: Annotated[str | None, typer.Option(help="Columns that are not penalised, by commas.")] = None
    standardize: Annotated[
        bool,
        typer.Option("--standardize/--no-standardize", help="Divide each column by its standard deviation."),
    ] = True
    intercept: Annotated[str, typer.Option(help="free of the penalty, penalized, or none.")] = "free"
    out_of_core: Annotated[
        bool,
        typer.Option("--out-of-core", help="Read in blocks; large files and folders always are."),
    ] = False
    engine: Annotated[
        str | None, typer.Option(help="Read on several machines: dask, or a scheduler as tcp://host:port.")
    ] = None
    separator: Annotated[str | None, _SEPARATOR] = None
    decimal_comma: Annotated[bool | None, _DECIMAL_COMMA] = None
    encoding: Annotated[str | None, _ENCODING] = None
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("runs/fit")
    force: Annotated[
        bool, typer.Option("--force", help="Replace a fit with other settings that is in the folder.")
    ] = False
    quiet: Annotated[bool, _QUIET] = False
    as_json: Annotated[bool, _JSON] = False


@dataclass(frozen=True)
class PredictOptions:
    """The options of `weightdecay predict`."""

    model: Annotated[str, typer.Argument(metavar="MODEL", help="The folder that fit wrote.")]
    data: Annotated[str, typer.Argument(metavar="DATA", help="A table of new rows.")]
    out: Annotated[Path, typer.Option(help="The .csv or .parquet file to write.")] = Path("predictions.csv")
    ids: Annotated[
        str | None,
        typer.Option("--id", help="Columns that name the rows, by commas. [those of the fit that are there]"),
    ] = None
    unseen: Annotated[
        str,
        typer.Option(help="Levels that the fit has not seen: refuse them, or base, the most frequent one."),
    ] = "refuse"
    interval: Annotated[
        float | None,
        typer.Option(help="Probability of a prediction interval, such as 0.9; adds its two ends."),
    ] = None
    separator: Annotated[str | None, _SEPARATOR] = None
    decimal_comma: Annotated[bool | None, _DECIMAL_COMMA] = None
    encoding: Annotated[str | None, _ENCODING] = None
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that has other columns than these predictions.")
    ] = False
    quiet: Annotated[bool, _QUIET] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a line.")] = False


@dataclass(frozen=True)
class SweepOptions:
    """The options of `weightdecay sweep`."""

    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A Python file with make_model, data, loss and optimizer."),
    ]
    strengths: Annotated[
        str, typer.Option(help="What to try: 0.1,1 or first:last:count, log spaced; no decay always is.")
    ]
    unit: Annotated[
        str,
        typer.Option(
            help="Of the strengths: weight-decay (λ), half-lives (per run), half-life-steps, "
            "half-life-epochs, half-life-samples."
        ),
    ] = "weight-decay"
    seeds: Annotated[str, typer.Option(help="How many seeds, or which, by commas.")] = "8"
    epochs: Annotated[int | None, typer.Option(help=f"Passes over the data. [the file's, else {EPOCHS}]")] = (
        None
    )
    batch_size: Annotated[
        int | None, typer.Option(help="Examples of a step. [the file's, else 128 or all there are]")
    ] = None
    rule: Annotated[
        str | None,
        typer.Option(
            help="Decay rules, by commas: l2, decoupled, cautious, ... [the file's, else decoupled]"
        ),
    ] = None
    lr: Annotated[
        str | None, typer.Option(help="Step sizes as a second axis: 1e-4:1e-2:5. [the optimizer's own]")
    ] = None
    minimize: Annotated[
        str | None, typer.Option(help="Choose by loss, or by a metric of the file. [the file's, else loss]")
    ] = None
    maximize: Annotated[
        str | None, typer.Option(help="Choose by a metric of which more is better, instead.")
    ] = None
    widen: Annotated[
        int, typer.Option(help="How often to go on by a decade where the best is at an edge.")
    ] = 2
    refine: Annotated[int, typer.Option(help="How often to halve the steps around the best.")] = 0
    engine: Annotated[
        str | None,
        typer.Option(
            help="Train on several machines: dask, or a scheduler as tcp://host:port; here: in one process. "
            "[every core, where that saves time]"
        ),
    ] = None
    device: Annotated[str | None, typer.Option(help="Where to train: cpu, cuda. [where the data are]")] = None
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("runs/sweep")
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in the folder.")] = False
    curves: Annotated[
        bool, typer.Option("--curves", help="Draw the curves of the trainings that finish, while it runs.")
    ] = False
    quiet: Annotated[bool, _QUIET] = False
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, an object a line: progress, and at last the result.")
    ] = False


@dataclass(frozen=True)
class AuditOptions:
    """The options of `weightdecay audit`."""

    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="The builder: mypackage.train:build or path/file.py:build."),
    ]
    output: Annotated[str, typer.Option("--format", help="table, json or github (annotations).")] = "table"
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="Codes not to tell, by commas: WD105,WD103:head.*. May be given several times."),
    ] = None
    steps: Annotated[int | None, typer.Option(help="Optimizer steps of the run.")] = None
    steps_per_epoch: Annotated[
        float | None, typer.Option(help="Optimizer steps of a pass over the data.")
    ] = None
    interval: Annotated[
        str | None,
        typer.Option(help="The schedule goes on once a step or epoch, or in so many steps. [found, or step]"),
    ] = None
    schedule: Annotated[
        str | None, typer.Option(help="Of lr: constant, linear, cosine, wsd. [the builder's, else none]")
    ] = None
    groups: Annotated[
        str | None, typer.Option(help="What should decay: a preset's name, or none. [matrices]")
    ] = None
    save: Annotated[Path | None, typer.Option(help="Write the plan into a file.")] = None
    against: Annotated[
        Path | None, typer.Option(help="Compare with a saved plan: any difference is an error.")
    ] = None


@dataclass(frozen=True)
class ReportOptions:
    """The options of `weightdecay report`."""

    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that a command wrote.")]
    out: Annotated[Path | None, typer.Option(help="The file to write. [FOLDER/report.html]")] = None
    show: Annotated[bool, typer.Option("--open", help="Open it when done.")] = False
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is not a page of this program's.")
    ] = False
    quiet: Annotated[bool, _QUIET] = False


@dataclass(frozen=True)
class TransferOptions:
    """The options of `weightdecay transfer`."""

    weight_decay: Annotated[
        str, typer.Argument(metavar="WEIGHT_DECAY", help="The strength in the old set-up.")
    ]
    old: Annotated[str, typer.Option(help=f"The set-up it is good for: {SETUP}.")]
    new: Annotated[str, typer.Option(help="The set-up it is wanted for, in the same words.")]
    keep: Annotated[str, typer.Option(help="Keep half-lives per run or per epoch.")] = "run"
    law: Annotated[str, _LAW] = "lr"
    width_rule: Annotated[
        str | None,
        typer.Option(help="For another width: independent (2510.19093) or sqrt (2510.15262). [neither]"),
    ] = None
    as_json: Annotated[bool, _JSON] = False


@dataclass(frozen=True)
class ConvertOptions:
    """The options of `weightdecay convert`."""

    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="The strength: 3, or several by commas.")
    ] = None
    source: Annotated[str | None, typer.Option("--from", help="The convention it is in.")] = None
    target: Annotated[str | None, typer.Option("--to", help="The convention that is wanted.")] = None
    n: Annotated[int | None, typer.Option(help="Training examples.")] = None
    batch_size: Annotated[int | None, typer.Option(help="Examples in a batch.")] = None
    micro_batches: Annotated[int | None, typer.Option(help="Micro-batches added up for a step.")] = None
    momentum: Annotated[float | None, typer.Option(help="SGD's momentum.")] = None
    dampening: Annotated[float | None, typer.Option(help="SGD's dampening.")] = None
    lr_max: Annotated[float | None, typer.Option(help="Peak step size.")] = None
    sd_y: Annotated[float | None, typer.Option(help="Standard deviation of y (1/n).")] = None
    sd_x: Annotated[str | None, typer.Option(help="Standard deviation of each feature (1/n), by commas.")] = (
        None
    )
    noise_sd: Annotated[float | None, typer.Option(help="Standard deviation of the noise.")] = None
    show_list: Annotated[bool, typer.Option("--list", help="List the conventions and what they need.")] = (
        False
    )
    as_json: Annotated[bool, _JSON] = False


@dataclass(frozen=True)
class HalfLifeOptions:
    """The options of `weightdecay half-life`."""

    lr: Annotated[float, typer.Option(help="Step size at the peak of the schedule.")]
    weight_decay: Annotated[float | None, typer.Option(help="The strength.")] = None
    half_life: Annotated[
        float | None, typer.Option(help="Instead: half-life in steps at the peak; gives the strength.")
    ] = None
    half_lives: Annotated[
        float | None, typer.Option(help="Instead: half-lives in the whole run; gives the strength.")
    ] = None
    schedule: Annotated[str, typer.Option(help="constant, linear, cosine or wsd.")] = "constant"
    steps: Annotated[int | None, typer.Option(help="Steps of the run.")] = None
    warmup: Annotated[float, typer.Option(help="Share of the steps over which lr rises.")] = 0.0
    floor: Annotated[float, typer.Option(help="Last step size as a share of lr.")] = 0.0
    decay: Annotated[float, typer.Option(help="With wsd: share of the steps over which lr falls.")] = 0.2
    law: Annotated[str, _LAW] = "lr"
    coupled: Annotated[bool, typer.Option("--coupled", help="L2 in torch's SGD, not decoupled.")] = False
    momentum: Annotated[float, typer.Option(help="With --coupled: SGD's momentum.")] = 0.0
    dampening: Annotated[float, typer.Option(help="With --coupled: SGD's dampening.")] = 0.0
    nesterov: Annotated[bool, typer.Option("--nesterov", help="With --coupled: Nesterov momentum.")] = False
    dtype: Annotated[
        str | None, typer.Option(help="What the weights are stored in: float32, bfloat16, float16, float64.")
    ] = None
    steps_per_epoch: Annotated[
        float | None, typer.Option(help="Optimizer steps of an epoch, to compare and for --interval.")
    ] = None
    interval: Annotated[
        str | None,
        typer.Option(help="The schedule goes on once a step or epoch, or in so many steps. [step]"),
    ] = None
    as_json: Annotated[bool, _JSON] = False
