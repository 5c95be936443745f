"""`weightdecay audit`: what decays in a model that a function builds, and what looks wrong."""

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from weightdecay.arguments import choice
from weightdecay.cli.options import AuditOptions, command, given
from weightdecay.errors import InputError
from weightdecay.text import Text, chinese, local

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weightdecay.auditing.record import Audit
    from weightdecay.auditing.run import AuditDiff
    from weightdecay.errors import Finding

_FORMATS = ("table", "json", "github")
_LEVELS = {"error": "error", "warning": "warning", "info": "notice"}


@command
def audit(options: AuditOptions) -> None:
    """Say which parameters decay, how strongly and why, and what looks wrong.

    weightdecay audit mypackage.train:build --steps 10000

    The builder takes no arguments and returns (model, optimizer), (model, [optimizers], scheduler), or a
    mapping with the names of wd.audit's arguments. It may build on the meta device: values are not needed.

    Exit code: 0 no error, 1 findings of severity error, 2 bad input.
    """
    choice(options.output, "format", _FORMATS, Text("no such format", "没有这种格式"))
    settings = given(options, "target", "output", "ignore", "save", "against")
    if options.interval and options.interval.isdigit():
        settings["interval"] = float(options.interval)
    if options.ignore:
        settings["ignore"] = ",".join(options.ignore)
    result = _audited(options.target, settings)
    difference = None
    if options.against is not None:
        from weightdecay.auditing.run import audit_diff

        difference = audit_diff(options.against, result)
    if options.save is not None:
        _check_free(options.save)
        result.save(options.save)
    _print(options.output, result, difference, options.target)
    if result.errors or (difference is not None and difference.findings):
        raise typer.Exit(1)


def _check_free(file: Path) -> None:
    """Refuse to replace a file that is not a saved audit."""
    from weightdecay.auditing.record import Audit
    from weightdecay.saving import load

    try:
        if not file.is_file() or isinstance(load(file), Audit):
            return
    except InputError:
        pass
    except OSError:  # a name that is no name is for the writer to refuse
        return
    what = Text("the file is not a saved audit", "该文件不是保存的审计")
    remedy = Text("it would be replaced: choose another name", "它会被替换：请另选名字")
    raise InputError(what, "save", file, remedy)


def _audited(target: str, options: dict[str, Any]) -> "Audit":
    """The audit of what the builder makes; what its code prints goes to stderr."""
    from weightdecay.auditing.run import audit as audited
    from weightdecay.scripts import ScriptError, build

    try:
        with contextlib.redirect_stdout(sys.stderr):
            built = build(target)
            settings = {**built.settings, **options}
            if settings.get("groups") == "none":
                settings["groups"] = None
            if "ignore" in options and "ignore" in built.settings:
                settings["ignore"] = _both(built.settings["ignore"], options["ignore"])
            return audited(built.model, *built.optimizers, **settings)
    except ScriptError as error:
        print(error.frames, file=sys.stderr)
        raise


def _both(builder: Any, command: str) -> Any:
    """What the builder ignores, with its reasons, and what the command line does."""
    if not isinstance(builder, (str, dict, list, tuple, set)):
        return builder  # for the audit to refuse
    own = {part: "on the command line" for part in command.split(",") if part}
    if isinstance(builder, dict):
        return {**own, **builder}
    return [*(builder.split(",") if isinstance(builder, str) else builder), *own]


def _print(output: str, result: "Audit", difference: "AuditDiff | None", target: str) -> None:
    if output == "json":
        plain = result.to_dict()
        if difference is not None:
            from dataclasses import asdict

            plain["against"] = asdict(difference)
        print(json.dumps(plain, allow_nan=False))
        return
    from weightdecay.auditing.run import SAME

    changed = difference.findings if difference is not None else ()
    if output == "github":
        for line in _annotations([*result.findings, *changed], target):
            print(line)
    print(result)
    if difference is not None:
        against = Text(f"against the plan: {difference}", f"与计划相比：{difference}") if changed else SAME
        print(f"\n{local(against)}")


def _annotations(findings: "Iterable[Finding]", target: str) -> list[str]:
    """Findings as GitHub reads them from a step's output."""
    place = target.rpartition(":")[0] or target
    file = f"file={_escaped(place, True)}," if place.endswith(".py") else ""
    lines = []
    for finding in findings:
        names = f" ({', '.join(finding.parameters[:20])})" if finding.parameters else ""
        message, fix = finding.message, finding.fix
        shown = Text(f"{message}{names}; {fix}", f"{chinese(message)}{names}；{chinese(fix)}")
        text = _escaped(local(shown))
        lines.append(f"::{_LEVELS[finding.severity]} {file}title={finding.code}::{text}")
    return lines


def _escaped(text: str, within: bool = False) -> str:
    """Text of an annotation, or of one of its properties."""
    pairs = [("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), *([(":", "%3A"), (",", "%2C")] if within else [])]
    for old, new in pairs:
        text = text.replace(old, new)
    return text
