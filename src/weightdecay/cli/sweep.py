"""`weightdecay sweep`: the best strength for the model of a Python file."""

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightdecay.arguments import choice, grid
from weightdecay.cli.folders import check_folder, noted, written_into
from weightdecay.cli.options import EPOCHS, SweepOptions, command, given
from weightdecay.errors import InputError
from weightdecay.text import Text, chinese, local

if TYPE_CHECKING:
    from weightdecay.scripts import Script
    from weightdecay.sweeps.grid import Strengths, Unit
    from weightdecay.sweeps.record import Sweep
    from weightdecay.sweeps.run import Progress

# What it writes, beside the store and the checkpoints.
FILES = (
    *("sweep.svg", "sweep.png", "report.html", "table.parquet", "curves.parquet", "weights.safetensors"),
    "sweep.json",
)
_UNITS: "dict[str, Unit]" = {
    "weight-decay": "weight_decay",
    "half-lives": "half_lives_per_run",
    "half-life-steps": "half_life_steps",
    "half-life-epochs": "half_life_epochs",
    "half-life-samples": "half_life_samples",
}


@command
def sweep(options: SweepOptions) -> None:
    """Find the best weight decay for a model: train it at many strengths and seeds at once.

    weightdecay sweep examples/digits.py --strengths 1e-3:30:24 --seeds 8 --out runs/digits

    The file has make_model() -> model, data = (train, test) or a function that returns both, loss(output,
    target) and optimizer(parameters), without decay of its own; it may have metrics, schedule, epochs,
    batch_size, rule, on, clip, every, minimize and maximize.

    Writes every finished training into a store at once: after anything, --resume goes on. At the end also
    tables (table.parquet, curves.parquet), the best weights, sweep.json and a figure.
    """
    out, chosen = options.out, _chosen(options)
    check_folder(out, "sweep", FILES, lambda _: True)  # one that is there is refused or resumed below
    script = _loaded(options.file)
    arguments = {"epochs": EPOCHS, **script.arguments, **chosen}
    if "minimize" in chosen:
        arguments.pop("maximize", None)  # the file's
    with _report(chosen["strengths"], options) as watcher, _streams() as printer:

        def on_progress(progress: "Progress") -> None:
            watcher(progress)
            if options.as_json:
                printer(_progress(progress))

        result = _swept(script, arguments, out, options.resume, on_progress)
        paths = _figures(result, out)
    if options.as_json:
        print(json.dumps({"event": "result", **result.to_dict(), "files": [str(path) for path in paths]}))
    elif not options.quiet:
        from weightdecay.reports.sweep import print_sweep
        from weightdecay.reports.terminal import output

        print_sweep(result, output())
        print(*map(local, result.lines), written_into(out, paths), sep="\n")
    if not options.quiet:
        print(local(Text(f"trained {result.method}", f"训练方式：{result.method.zh}")), file=sys.stderr)
        if result.place is not None:
            print(local(Text(f"trained {result.place}", f"训练地点：{result.place.zh}")), file=sys.stderr)
        for doubt in result.doubts:
            print(noted(doubt), file=sys.stderr)


def _chosen(options: SweepOptions) -> dict[str, Any]:
    """The arguments of `sweep` that the command line gives."""
    from weightdecay.sweeps.grid import read_strengths

    unit = _UNITS[choice(options.unit, "unit", _UNITS, Text("no such unit", "没有这个单位"))]
    if options.minimize is not None and options.maximize is not None:
        what, remedy = (
            Text("choose by one score", "只能按一个指标选择"),
            Text("leave out --minimize", "请去掉 --minimize"),
        )
        raise InputError(what, "maximize", options.maximize, remedy)
    chosen = given(options, "file", "unit", "out", "resume", "curves", "quiet", "as_json")
    chosen["strengths"], chosen["seeds"] = read_strengths(options.strengths, unit), _seeds(options.seeds)
    if options.rule is not None:
        chosen["rule"] = _rules(options.rule)
    if options.lr is not None:
        chosen["lr"] = grid(options.lr, "lr")
    return chosen


def _seeds(text: str) -> int | list[int]:
    try:
        parts = [int(part) for part in text.split(",")]
    except ValueError:
        remedy = Text("give how many, or which, by commas", "请给出个数，或以逗号分隔的各个种子")
        raise InputError(Text("not seeds", "不是种子"), "seeds", repr(text), remedy) from None
    return parts[0] if "," not in text else parts


def _rules(text: str) -> list[Any]:
    from weightdecay.rules import RULES

    known = {name.lower(): rule for name, rule in RULES.items()}
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in known:
            every = ", ".join(known)
            remedy = Text(f"use {every}", f"可用 {every}")
            raise InputError(Text("no such rule", "没有这个规则"), "rule", repr(name), remedy)
    return [known[name] for name in names]


def _loaded(file: str) -> "Script":
    """The file; what its code prints goes to stderr, and of its traceback its own frames are shown."""
    from weightdecay.scripts import ScriptError, load_script

    try:
        with contextlib.redirect_stdout(sys.stderr):
            return load_script(file)
    except ScriptError as error:
        print(error.frames, file=sys.stderr)
        raise


def _swept(script: "Script", arguments: dict[str, Any], out: Path, resume: bool, on_progress: Any) -> "Sweep":
    from weightdecay.sweeps.run import sweep as front_door

    try:
        with _interruptible(on_progress) as reported:
            return front_door(
                **arguments, out=out, resume=resume, on_progress=reported, about={"script": script.sha256}
            )
    except KeyboardInterrupt as interrupt:
        # A library may have lost what is kept.
        kept = getattr(interrupt, "kept", "") or Text("what was stored until then", "此前已存盘的结果")
        line = Text(
            f"kept in {out}: {kept}; --resume goes on", f"保存在 {out}：{chinese(kept)}；用 --resume 继续"
        )
        print(local(line), file=sys.stderr)
        raise


@contextlib.contextmanager
def _interruptible(on_progress: Any) -> Iterator[Any]:
    """Ctrl-C as a KeyboardInterrupt, whatever is made of it on the way.

    Compiled libraries turn the exception into one of their own or lose it; so that it came is also noted,
    and looked at when something is raised and at every progress.
    """
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def reported(progress: "Progress") -> None:
        if interrupted:
            raise KeyboardInterrupt
        on_progress(progress)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield reported
    except Exception:
        if interrupted:
            raise KeyboardInterrupt from None
        raise


def _figures(result: "Sweep", out: Path) -> "list[Path]":
    """The figures, and everything else that is in the folder."""
    from weightdecay.reports.report import report, save_figure

    save_figure(result, out, "sweep")
    report(result, out / "report.html")
    return sorted(path for path in out.iterdir() if path.is_file() and not path.name.startswith("."))


def _progress(progress: "Progress") -> dict[str, Any]:
    best = None if progress.best is None else {"strength": progress.best[0], "score": progress.best[1]}
    names = ("done", "total", "share", "seconds", "running", "epoch", "epochs")
    numbers = {name: getattr(progress, name) for name in names}
    return {"event": "progress", **numbers, "best": best}


@contextlib.contextmanager
def _streams() -> Iterator[Any]:
    """Standard output for the command alone: what the file's code prints goes to stderr. Yields a printer."""
    own = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield lambda values: print(json.dumps(values), file=own, flush=True)


@contextlib.contextmanager
def _report(strengths: "Strengths", options: SweepOptions) -> Iterator[Any]:
    """A bar where stderr is a terminal; else nothing."""
    if options.quiet or options.as_json or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    from weightdecay.reports.sweep import SweepBar

    with SweepBar(Console(stderr=True), strengths.unit, options.curves) as bar:
        yield bar
