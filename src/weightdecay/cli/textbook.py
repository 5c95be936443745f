"""`weightdecay textbook`: the textbook's experiment."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightdecay.arguments import grid
from weightdecay.cli.folders import check_folder, new_files, written_into
from weightdecay.cli.options import TextbookOptions, command, given
from weightdecay.cli.report import open_page
from weightdecay.cli.ridge import names as columns
from weightdecay.errors import InputError, Interrupted
from weightdecay.saving import read_json
from weightdecay.text import Text, local

if TYPE_CHECKING:
    from weightdecay.textbook.record import Run
    from weightdecay.textbook.settings import Experiment

# Settings of the synthetic design; they make no sense beside --data.
_SYNTHETIC = ("n_inputs", "true_weight", "true_bias", "noise")
# What it writes.
FILES = (
    *(f"{name}.{kind}" for name in ("curves", "lambda") for kind in ("svg", "png")),
    *("report.html", "results.parquet", "lambda.parquet", "slider.parquet", "run.json"),
)


@command
def textbook(options: TextbookOptions) -> None:
    """See weight decay work: linear regression with too few examples, without decay and with it.

    Trains from scratch and with torch.optim, prints one table, and writes curves, results and settings
    into a folder. Every default is the textbook's.
    """
    out, settings = options.out, options.settings
    values = given(options, "settings", "out", "force", "quiet", "as_json", "show")
    if settings and values:
        option = {"lambdas": "lambda", "versions": "version"}.get(name := min(values), name).replace("_", "-")
        raise InputError("settings from a file stand alone", "settings", settings, f"leave out --{option}")
    experiment = _again(settings) if settings else _experiment(values)
    run, paths = _run(experiment, out, options.force, options.quiet or options.as_json)
    if options.as_json:
        print(json.dumps({**run.to_dict(), "files": [str(path) for path in paths]}))
    elif not options.quiet:
        from weightdecay.reports.terminal import output, print_run

        print_run(run, output())
        if paths:
            print(written_into(out, paths))
    if not run.complete:
        if not paths:
            kept = Text(f"the complete run in {out} is kept as it was", f"{out} 中完整的运行保持原样")
            print(local(kept), file=sys.stderr)
        raise KeyboardInterrupt
    if options.show:
        page = out / "report.html"
        open_page(page if page.exists() else out / "curves.png", options.quiet)


def _experiment(values: dict[str, Any]) -> "Experiment":
    """The settings from the options that were given."""
    from weightdecay.textbook.settings import VERSION_NAMES, Experiment, Synthetic, TableFile

    if "lambdas" in values:
        values["lambdas"] = grid(values["lambdas"], "lambda")
    if "curve" in values:
        values["curve"] = () if values["curve"] == "none" else grid(values["curve"], "curve")
    if "versions" in values:
        names = values["versions"]
        values["versions"] = (
            VERSION_NAMES if names == "all" else tuple(name.strip() for name in names.split(","))
        )
    sizes = {key: values.pop(key) for key in ("n_train", "n_test") if key in values}
    if "data" not in values:
        for name in ("target", "drop"):
            if name in values:
                raise InputError(
                    "an option of a table without a table", name, values[name], "give --data, too"
                )
        return Experiment(
            data=Synthetic(**sizes, **{k: values.pop(k) for k in _SYNTHETIC if k in values}), **values
        )
    for name in _SYNTHETIC:
        if name in values:
            raise InputError(
                "an option of the synthetic design beside a table", name, values[name], "leave it out"
            )
    if "target" not in values:
        raise InputError(
            "which column is to be predicted?", "target", "nothing", "name a column of the table"
        )
    drop = columns(values.pop("drop", None))
    return Experiment(data=TableFile(values.pop("data"), values.pop("target"), drop, **sizes), **values)


def _again(path: Path) -> "Experiment":
    from weightdecay.textbook.settings import Experiment, TableFile

    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("settings"), dict):
        raise InputError(
            "not the settings of a run", "settings", path, "give a run.json that this program wrote"
        )
    experiment = Experiment.from_dict(values["settings"])
    if isinstance(experiment.data, TableFile) and experiment.data.sha256 != values.get("data_sha256"):
        table = experiment.data.path
        remedy = "leave out --settings and give the options again"
        raise InputError("the table has changed since that run", "data", table, remedy)
    return experiment


def _run(experiment: "Experiment", out: Path, force: bool, silent: bool) -> "tuple[Run, list[Path]]":
    """Run and write the folder; an interrupted run is written, too, but never over a complete one."""
    from weightdecay.reports import terminal
    from weightdecay.textbook.experiment import resolved, run_experiment

    asked = json.loads(json.dumps(resolved(experiment.checked()).to_dict()))
    check_folder(out, "textbook", FILES, lambda record: record["settings"] == asked, force)
    console = terminal.output()
    if silent:
        watcher = terminal.Watcher()
    elif console.is_terminal:
        watcher = terminal.GrowingCurves(
            console, len(experiment.versions) * len(experiment.watched or (0, 1))
        )
    else:
        watcher = terminal.PlainLines(console)
    with new_files(out, FILES) as folder:
        try:
            with watcher:
                run = run_experiment(
                    experiment, on_evaluation=watcher.on_evaluation, on_progress=watcher.on_progress
                )
        except Interrupted as interrupt:
            run = interrupt.partial
        return run, [] if not run.complete and _complete(out) else _written(run, folder, out)


def _complete(out: Path) -> bool:
    """Whether there is a run that was not interrupted."""
    try:
        return bool(read_json(out / "run.json")["complete"])
    except (InputError, KeyError, TypeError):
        return False


def _written(run: "Run", folder: Path, out: Path) -> list[Path]:
    """Write all files; they are going to be in `out`."""
    from weightdecay.reports.report import report, save_figures

    pages = [report(run, folder / "report.html")] if run.slider is not None and run.slider.height else []
    return [out / path.name for path in (*save_figures(run, folder), *pages, *run.save(folder))]
