"""`weightdecay fit` and `weightdecay predict`: from a table to a model, from new rows to predictions."""

import contextlib
import itertools
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightdecay.arguments import choice, grid, probability
from weightdecay.cli.folders import check_folder, fresh, new_files, noted, written_into
from weightdecay.cli.options import FitOptions, PredictOptions, command
from weightdecay.errors import InputError
from weightdecay.text import Text, chinese, columns_of, local, padded

if TYPE_CHECKING:
    from weightdecay.logistic.table_fit import ClassFit
    from weightdecay.ridge.table_fit import Progress, Request, TableFit
    from weightdecay.tables.columns import Column
    from weightdecay.tables.dialect import Reading


_CV = ("loo", "gcv", "evidence")
# What fit writes.
FILES = (
    *(
        f"{name}.{kind}"
        for name in ("cv", "coefficients", "importance", "predicted", "reliability")
        for kind in ("svg", "png")
    ),
    *("report.html", "coefficients.csv", "path.csv", "out_of_fold.csv", "out_of_fold.parquet"),
    *("confusion.csv", "calibration.csv"),
    *("path.safetensors", "path.parquet", "model.safetensors", "path.json", "model.json"),
)


@command
def fit(options: FitOptions) -> None:
    """Fit a ridge or a logistic regression to a table, with the λ that leave-one-out or folds choose.

    weightdecay fit examples/data/tecator.csv --target fat --drop water,protein --out runs/fat

    A target of numbers is a regression, one of texts or of yes and no a classification, which gives each
    class a probability; --task overrules.

    Writes the model (model.safetensors, model.json), its coefficients and their standard errors
    (coefficients.csv), predictions of rows while they were held out (out_of_fold.csv, .parquet), the whole
    path (path.csv, .parquet, .safetensors, .json), figures (cv, coefficients, importance, predicted)
    and a page. Of a classification also confusion.csv and calibration.csv, and the figure reliability.

    Columns become inputs by what they are: numbers, texts as categories, yes and no. What is done with each
    is shown first; without --target that is all. An index, an identifier and constants are left out.

    Names of columns are written as in a CSV: --drop 'a,"b, c"' names two columns, and --drop "" the one
    without a name.
    """
    if options.target is None:
        _list_columns(options)
        return
    out, request = options.out, _request(options)
    asked = request.plain()
    check_folder(out, "fit", FILES, lambda record: record["settings"]["request"] == asked, options.force)
    with new_files(out, FILES) as folder:
        with _bar(request.data, request.reading, options.quiet or options.as_json) as advance:
            show = None if options.quiet or options.as_json else _show_columns
            found = _fitted(request, folder, advance, show)
        paths = _written(found, folder)
    if options.as_json:
        print(json.dumps({**found.to_dict(), "files": [str(out / path.name) for path in paths]}))
    elif not options.quiet:
        print(*map(local, found.lines), written_into(out, paths), sep="\n")
    if not options.quiet:
        for doubt in found.doubts:
            print(noted(doubt), file=sys.stderr)


@command
def predict(options: PredictOptions) -> None:
    """Predict new rows with a model that fit wrote; columns are matched by name, in any order.

    weightdecay predict runs/fat new.csv --out predictions.parquet

    Missing and unknown columns are refused. Columns that were a target, dropped, a group or a weight at the
    fit are not looked at. Tables of any length are read in blocks.
    """
    from weightdecay.ridge.model import predict_file
    from weightdecay.saving import load

    model, out, interval = load(Path(options.model) / "model.json"), options.out, options.interval
    signal.signal(signal.SIGINT, signal.default_int_handler)  # so that the unfinished file is removed
    if interval is not None:
        probability(interval, "interval")
    silent = options.quiet or options.as_json
    reading = _reading(options)
    with fresh(out.parent), _in_arguments(), _bar(options.data, reading, silent) as advance:
        stage = Text("predicting", "预测")
        each = None if advance is None else lambda rows: advance(stage, rows, None)
        ids = names(options.ids) or None
        done = predict_file(
            model, options.data, out, interval, each, ids, options.force, reading, options.unseen
        )
    if options.as_json:
        outside = {} if done.outside is None else {"outside": done.outside, "outside_of": done.outside_of}
        written = {"rows": done.rows, "columns": done.columns, "file": str(done.path), **outside}
        print(json.dumps(written))
    elif not options.quiet:
        columns = ", ".join(done.columns)
        line = Text(
            f"{done.rows:,} rows predicted; written into {out}: {columns}",
            f"已预测 {done.rows:,} 行；已写入 {out}：{columns}",
        )
        print(local(line))
    if not options.quiet:
        for note in done.notes:
            print(noted(note), file=sys.stderr)


def _request(options: FitOptions) -> "Request":
    """The options as `fit_table` takes them."""
    from weightdecay.ridge.table_fit import Request

    target = names(options.target)
    if not any(target):
        raise InputError(
            Text("which column is to be predicted?", "要预测哪一列？"),
            "target",
            "nothing",
            Text("name a column of the table", "请写出表中的一列"),
        )
    cv: str | int | None = options.cv
    if cv is not None and cv not in _CV:
        if not cv.isdecimal() or int(cv) < 2:
            remedy = Text("use loo, gcv, evidence or a number of folds", "可用 loo, gcv, evidence 或折数")
            raise InputError(Text("no such way to judge", "没有这种评判方式"), "cv", repr(cv), remedy)
        cv = int(cv)
    choice(options.choose, "choose", ("best", "one-se"))
    if options.task is not None:
        choice(options.task, "task", ("regression", "classification"))
    choice(options.intercept, "intercept", ("free", "penalized", "none"))
    same = (
        *("data", "unit", "choose", "shared", "seed", "groups", "time", "weights", "standardize"),
        *("intercept", "out_of_core", "engine", "dates", "missing", "task", "judge"),
    )
    return Request(
        target=target,
        drop=names(options.drop),
        id=names(options.ids),
        unpenalized=names(options.unpenalized),
        category=names(options.category),
        number=names(options.number),
        cv=cv,
        lambdas=None if options.lambdas is None else grid(options.lambdas, "lambda"),
        reading=_reading(options),
        **{name: getattr(options, name) for name in same},
    )


def _reading(options: FitOptions | PredictOptions) -> "Reading":
    """What the options say of how text is written."""
    from weightdecay.tables.dialect import Reading

    return Reading(options.separator, options.decimal_comma, options.encoding)


def _fitted(
    request: "Request",
    folder: Path,
    advance: "Progress | None",
    show: "Callable[[tuple[Column, ...]], None] | None",
) -> "TableFit | ClassFit":
    """Fit; errors about arguments are told with the options' names."""
    from weightdecay.logistic.table_fit import fit_classes, task_of
    from weightdecay.ridge.table_fit import fit_table

    try:
        with _in_arguments():
            classes = task_of(request)
            if classes is not None:
                return fit_classes(request, classes, show)
            return fit_table(request, folder, advance, show)
    except InputError as error:
        about_unit = error.where in ("source", "convert") or error.value == repr(request.unit)
        where = "unit" if about_unit else {"lambdas": "lambda", "lam": "lambda"}.get(error.where, error.where)
        raise InputError(error.what, where, error.value, error.remedy) from error


_FOUND = ("category", "yes/no", "date", "index", "identifier", "constant")
_ROLES = {
    "number": Text("number", "数值"),
    "category": Text("category", "类别"),
    "yes/no": Text("yes/no", "是/否"),
    "date": Text("date", "日期"),
    "index": Text("index", "行号"),
    "identifier": Text("identifier", "标识符"),
    "constant": Text("constant", "常数"),
    "target": Text("target", "目标"),
    "class": Text("class", "目标类别"),
    "weights": Text("weights", "权重"),
    "groups": Text("groups", "分组"),
    "dropped": Text("dropped", "略去"),
    "id": Text("id", "行名"),
}
SHOWN = 40  # columns in a listing; of more, numbers that follow each other share a line


def _show_columns(columns: "tuple[Column, ...]") -> None:
    """Print what each column is, unless all inputs are numbers and what else there is was said."""
    if any(column.role in _FOUND for column in columns):
        _print_columns(columns, sys.stderr)


def _shown(name: str) -> str:
    """A column's name on one line."""
    return (name if name.isprintable() else repr(name)[1:-1]) or '""'


def _besides(column: "Column", missing: bool) -> str:
    """Values, and how many cells are missing."""
    values = local(Text(f" ({column.values})", f"（{chinese(column.values)}）")) if column.values else ""
    count = f"{column.missing:,}"
    return values + (
        local(Text(f", {count} missing", f"，缺失 {count} 个")) if missing and column.missing else ""
    )


def _print_columns(columns: "tuple[Column, ...]", file: Any, missing: bool = False) -> None:
    """Print what each column is, as a plain table; with the number of missing cells where it is known."""
    lines: list[tuple[str, str, str, str]] = []
    runs = itertools.groupby(columns, lambda column: column.role == "number" and len(columns) > SHOWN)
    for run, members in runs:
        some = list(members)
        if run and len(some) > 3:
            name = f"{_shown(some[0].name)} … {_shown(some[-1].name)}"
            besides = _besides(some[0]._replace(missing=sum(column.missing for column in some)), missing)
            count = f"{len(some):,}"
            why = Text(f"numbers, {count} columns", f"数值，{count} 列")
            lines.append((name, local(_ROLES["number"]), local(why), besides))
        else:
            lines += [
                (
                    _shown(column.name),
                    local(_ROLES[column.role]),
                    local(column.why),
                    _besides(column, missing),
                )
                for column in some
            ]
    widths = [min(40, max(columns_of(line[k]) for line in lines)) for k in range(3)]
    for line in lines:
        cells = [
            cell if len(cell) <= width else f"{cell[: width - 1]}…"
            for cell, width in zip(line, widths, strict=False)
        ]
        print(
            "  ".join(
                [padded(cell, width) for cell, width in zip(cells[:2], widths, strict=False)]
                + [line[2] + line[3]]
            ).rstrip(),
            file=file,
        )


def _list_columns(options: FitOptions) -> None:
    """Say what would be done with each column, and what to type next."""
    from weightdecay.tables.cells import typed
    from weightdecay.tables.columns import ColumnOptions
    from weightdecay.tables.source import look_at

    said = ColumnOptions(
        names(options.category),
        names(options.number),
        names(options.ids),
        options.dates,
        options.missing,
    )
    with _in_arguments():
        learned = look_at(
            options.data, names(options.drop), options.weights, options.groups, _reading(options), said
        )
    if options.as_json:
        values = [column.plain() for column in learned.columns]
        refused = [str(refusal) for refusal in learned.refusals]
        print(json.dumps({"columns": values, "refused": refused, "notes": [*learned.notes]}))
        return
    _print_columns(learned.columns, sys.stdout, missing=True)
    for note in learned.notes:
        print(noted(note))
    for refusal in learned.refusals:
        print(local(Text(f"to be decided: {refusal}", f"尚待决定：{refusal.zh}")))
    line = f"weightdecay fit {typed(options.data)} --target COLUMN"
    print(local(Text(f"next, with the column to predict: {line}", f"下一步，给出要预测的列：{line}")))


@contextlib.contextmanager
def _in_arguments() -> Iterator[None]:
    """Tell errors about the table or the model with the names that --help has for them."""
    try:
        yield
    except InputError as error:
        where = error.where.upper() if error.where in ("data", "model") else error.where
        raise InputError(error.what, where, error.value, error.remedy) from error


def _written(found: "TableFit | ClassFit", folder: Path) -> list[Path]:
    from weightdecay.reports.report import save_figure, write_page

    figures = [path for name, view in found.figures.items() for path in save_figure(view, folder, name)]
    return [*figures, write_page(found.path, folder / "report.html", found.seen), *found.save(folder)]


@contextlib.contextmanager
def _bar(data: str, reading: "Reading | None", silent: bool) -> "Iterator[Progress | None]":
    """A progress bar with a rate and an end, where stderr is a terminal; else nothing."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID, TextColumn

    from weightdecay.reports.terminal import fitting
    from weightdecay.tables.source import count_rows

    console = Console(stderr=True)
    rows = Text(
        "{task.completed:,} of {task.total:,} rows, {task.fields[rate]} rows/s",
        "{task.completed:,} / {task.total:,} 行，每秒 {task.fields[rate]} 行",
    )
    columns = fitting(console, (TextColumn("{task.description}"), TextColumn(local(rows))))
    stages: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:

        def advance(stage: str, rows: int, total: int | None) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(
                    local(stage), total=total or count_rows(data, reading), rate="–"
                )
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
