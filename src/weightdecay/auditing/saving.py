"""`load_audit`: an audit from the file that `Audit.save` wrote."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from weightdecay.auditing.record import FORMAT, Audit, GroupTotal, Ignored, Parameter
from weightdecay.errors import InputError
from weightdecay.files import read_json
from weightdecay.findings import Finding

_REMEDY = "give a file that Audit.save wrote"


def load_audit(path: str | Path) -> Audit:
    """Read an audit that was saved.

    Raises:
        InputError: the file is missing, or not one that `Audit.save` wrote.
    """
    content = read_json(Path(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError("not a saved audit", str(path), None, _REMEDY)
    try:
        parameters = tuple(_made(Parameter, row) for row in content["parameters"])
        if len({one.name for one in parameters}) < len(parameters):
            raise ValueError("a parameter is there twice")
        return Audit(
            parameters=parameters,
            findings=tuple(_made(Finding, row) for row in content["findings"]),
            ignored=tuple(
                Ignored(_made(Finding, row["finding"]), str(row["reason"])) for row in content["ignored"]
            ),
            groups=tuple(_made(GroupTotal, row) for row in content["groups"]),
            settings=dict(content["settings"]),
            versions=dict(content["versions"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
        raise InputError("a saved audit that cannot be read", str(path), said, _REMEDY) from error


def _made(kind: Any, row: Mapping[str, Any]) -> Any:
    """A record from plain values: lists become tuples."""
    names = [one.name for one in fields(kind)]
    if set(row) != set(names):
        raise ValueError(f"{kind.__name__} has other fields: {sorted(set(row) ^ set(names))}")
    values = {name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in names}
    hints = get_type_hints(kind)
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"{kind.__name__}.{name} = {value!r}")
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is what a record's annotation says."""
    parts = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(one, parts[0]) for one in value)
    if get_origin(hint) is Literal:
        return value in parts
    if parts:
        return any(_fits(value, part) for part in parts)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)
