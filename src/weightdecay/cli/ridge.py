"""`weightdecay fit` and `weightdecay predict`: from a table to a model, from new rows to predictions."""

import contextlib
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weightdecay.arguments import choice, grid, probability
from weightdecay.cli.folders import check_folder, fresh, new_files
from weightdecay.errors import InputError

if TYPE_CHECKING:
    from weightdecay.ridge.table_fit import Progress, Request, TableFit


_CV = ("loo", "gcv", "evidence")
# What fit writes.
FILES = (
    *(f"{name}.{kind}" for name in ("cv", "coefficients", "predicted") for kind in ("svg", "png")),
    *("report.html", "coefficients.csv", "path.csv", "out_of_fold.csv", "out_of_fold.parquet"),
    *("path.safetensors", "path.parquet", "model.safetensors", "path.json", "model.json"),
)


def fit(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A .csv or .parquet table, or a folder of them.")
    ],
    target: Annotated[str, typer.Option(help="The column to predict, or several by commas, as in a CSV.")],
    drop: Annotated[str | None, typer.Option(help="Columns to leave out, by commas.")] = None,
    ids: Annotated[
        str | None,
        typer.Option(
            "--id", help="Columns that name the rows, by commas: no inputs, kept beside predictions."
        ),
    ] = None,
    cv: Annotated[
        str | None,
        typer.Option(
            help="loo, gcv, evidence or a number of folds. [loo; with --groups, --time, --out-of-core 5]"
        ),
    ] = None,
    lambdas: Annotated[
        str | None,
        typer.Option("--lambda", help="λ: 0.1,1 or first:last:count. [a grid that suits the data]"),
    ] = None,
    unit: Annotated[
        str, typer.Option(help="Convention of λ; weightdecay convert --list has the names.")
    ] = "canonical",
    choose: Annotated[
        str, typer.Option(help="The model's λ: best, or one-se, the strongest within one standard error.")
    ] = "best",
    shared: Annotated[bool, typer.Option("--shared", help="With several targets: one λ for all.")] = False,
    seed: Annotated[int, typer.Option(help="Shuffles the folds.")] = 0,
    groups: Annotated[
        str | None, typer.Option(help="Column of labels: rows of one label are held out together.")
    ] = None,
    time: Annotated[
        bool, typer.Option("--time", help="Rows are in order of time: train on earlier ones only.")
    ] = False,
    weights: Annotated[str | None, typer.Option(help="Column of the rows' weights.")] = None,
    unpenalized: Annotated[
        str | None, typer.Option(help="Columns that are not penalised, by commas.")
    ] = None,
    standardize: Annotated[
        bool,
        typer.Option("--standardize/--no-standardize", help="Divide each column by its standard deviation."),
    ] = True,
    intercept: Annotated[str, typer.Option(help="free of the penalty, penalized, or none.")] = "free",
    out_of_core: Annotated[
        bool,
        typer.Option("--out-of-core", help="Read in blocks; large files and folders always are."),
    ] = False,
    engine: Annotated[
        str | None, typer.Option(help="Read on several machines: dask, or a scheduler as tcp://host:port.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("runs/fit"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace a fit with other settings that is in the folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Fit a ridge regression to a table, with the λ that leave-one-out or cross-validation chooses.

    weightdecay fit examples/data/tecator.csv --target fat --drop water,protein --out runs/fat

    Writes the model (model.safetensors, model.json), its coefficients and their standard errors
    (coefficients.csv), predictions of rows while they were held out (out_of_fold.csv, .parquet), the whole
    path (path.csv, .parquet, .safetensors, .json), figures (cv, coefficients, predicted) and a page.

    Names of columns are written as in a CSV: --drop 'a,"b, c"' names two columns, and --drop "" the one
    without a name.
    """
    given = dict(locals())
    for name in ("out", "force", "quiet", "as_json"):
        given.pop(name)
    request = _request(given)
    check_folder(out, "fit", FILES, lambda record: record["settings"]["request"] == request.plain(), force)
    with new_files(out, FILES) as folder:
        with _bar(request.data, quiet or as_json) as advance:
            found = _fitted(request, folder, advance)
        paths = _written(found, folder)
    names = ", ".join(path.name for path in paths)
    if as_json:
        print(json.dumps({**found.to_dict(), "files": [str(out / path.name) for path in paths]}))
    elif not quiet:
        print(*found.lines, f"written into {out}: {names}", sep="\n")
    if not quiet:
        for doubt in found.doubts:
            print(f"note: {doubt}", file=sys.stderr)


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The folder that fit wrote.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A .csv or .parquet table of new rows.")],
    out: Annotated[Path, typer.Option(help="The .csv or .parquet file to write.")] = Path("predictions.csv"),
    ids: Annotated[
        str | None,
        typer.Option("--id", help="Columns that name the rows, by commas. [those of the fit that are there]"),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(help="Probability of a prediction interval, such as 0.9; adds its two ends."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that has other columns than these predictions.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a line.")] = False,
) -> None:
    """Predict new rows with a model that fit wrote; columns are matched by name, in any order.

    weightdecay predict runs/fat new.csv --out predictions.parquet

    Missing and unknown columns are refused. Columns that were a target, dropped, a group or a weight at the
    fit are not looked at. Tables of any length are read in blocks.
    """
    from weightdecay.ridge.model import predict_file
    from weightdecay.saving import load

    loaded = load(Path(model) / "model.json")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # so that the unfinished file is removed
    if interval is not None:
        probability(interval, "interval")
    with fresh(out.parent), _in_arguments(), _bar(data, quiet or as_json) as advance:
        each = None if advance is None else lambda rows: advance("predicting", rows, None)
        done = predict_file(loaded, data, out, interval, each, names(ids) or None, force)
    if as_json:
        print(json.dumps({"rows": done.rows, "columns": done.columns, "file": str(done.path)}))
    elif not quiet:
        print(f"{done.rows:,} rows predicted; written into {out}: {', '.join(done.columns)}")


def _request(given: dict[str, Any]) -> "Request":
    """The options as `fit_table` takes them."""
    from weightdecay.ridge.table_fit import Request

    given["id"] = given.pop("ids")
    lists = {name: names(given.pop(name)) for name in ("target", "drop", "id", "unpenalized")}
    if not any(lists["target"]):
        raise InputError(
            "which column is to be predicted?", "target", "nothing", "name a column of the table"
        )
    cv = given.pop("cv")
    if cv is not None and cv not in _CV:
        if not cv.isdecimal() or int(cv) < 2:
            raise InputError(
                "no such way to judge", "cv", repr(cv), "use loo, gcv, evidence or a number of folds"
            )
        cv = int(cv)
    lambdas = given.pop("lambdas")
    for name, choices in (("choose", ("best", "one-se")), ("intercept", ("free", "penalized", "none"))):
        choice(given[name], name, choices)
    return Request(cv=cv, lambdas=None if lambdas is None else grid(lambdas, "lambda"), **lists, **given)


def _fitted(request: "Request", folder: Path, advance: "Progress | None") -> "TableFit":
    """Fit; errors about arguments are told with the options' names."""
    from weightdecay.ridge.table_fit import fit_table

    try:
        with _in_arguments():
            return fit_table(request, folder, advance)
    except InputError as error:
        about_unit = error.where in ("source", "convert") or error.value == repr(request.unit)
        where = "unit" if about_unit else {"lambdas": "lambda", "lam": "lambda"}.get(error.where, error.where)
        raise InputError(error.what, where, error.value, error.remedy) from error


@contextlib.contextmanager
def _in_arguments() -> Iterator[None]:
    """Tell errors about the table or the model with the names that --help has for them."""
    try:
        yield
    except InputError as error:
        where = error.where.upper() if error.where in ("data", "model") else error.where
        raise InputError(error.what, where, error.value, error.remedy) from error


def _written(found: "TableFit", folder: Path) -> list[Path]:
    from weightdecay.reports.plot import save_figure
    from weightdecay.reports.report import write_page

    views = (("cv", found.path), ("coefficients", found.coefficients), ("predicted", found.held_out))
    figures = [path for name, view in views for path in save_figure(view, folder, name)]
    return [*figures, write_page(found.path, folder / "report.html", found.held_out), *found.save(folder)]


@contextlib.contextmanager
def _bar(data: str, silent: bool) -> "Iterator[Progress | None]":
    """A progress bar with a rate and an end, where stderr is a terminal; else nothing."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID, TextColumn

    from weightdecay.reports.terminal import fitting
    from weightdecay.tables.source import count_rows

    console = Console(stderr=True)
    rows = "{task.completed:,} of {task.total:,} rows, {task.fields[rate]} rows/s"
    columns = fitting(console, (TextColumn("{task.description}"), TextColumn(rows)))
    stages: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:

        def advance(stage: str, rows: int, total: int | None) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(stage, total=total or count_rows(data), rate="–")
            speed = next(task.speed for task in progress.tasks if task.id == stages[stage])
            progress.update(stages[stage], completed=rows, rate="–" if speed is None else f"{speed:,.0f}")

        yield advance


NAME = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?:,|\Z)|([^,]*)(?:,|\Z)')


def names(text: str | None) -> tuple[str, ...]:
    """Names between commas, without white space around them; a name in double quotes is taken as it is.

    >>> names('water, "a, b"," c"')
    ('water', 'a, b', ' c')
    >>> names(""), names(None)
    (('',), ())
    """
    found: list[str] = []
    at = 0
    while text is not None and at <= len(text):
        match = NAME.match(text, at)
        assert match is not None
        quoted, plain = match.groups()
        found.append(plain.strip() if quoted is None else quoted.replace('""', '"'))
        at = match.end() + (not match[0].endswith(","))
    return tuple(found)
