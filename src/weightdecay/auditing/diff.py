"""`audit_diff`: who decays differently from before."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightdecay.auditing.findings import CODES, Draft
from weightdecay.auditing.record import Audit, Parameter, aligned, some
from weightdecay.errors import Finding, InputError, check
from weightdecay.saving import load, read_json

# What decides about the decay of a parameter; sizes and positions of groups may change.
_FIELDS = ("weight_decay", "form", "frozen", "role", "aliases")
_FIX = "if it is meant, save the plan again and commit it; else see what was renamed or regrouped"


@dataclass(frozen=True)
class Change:
    """One field of one parameter; `field` is "parameter" where it is new or gone."""

    parameter: str
    field: str
    old: Any
    new: Any


@dataclass(frozen=True)
class AuditDiff:
    """What changed between two audits.

    Args:
        changes: one each.
        findings: WD601, if there are any.
    """

    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]

    def check(self) -> None:
        """Raise if anything changed.

        Raises:
            FindingsError: with the findings.
        """
        check(self.findings)

    def __str__(self) -> str:
        if not self.changes:
            return "the plan is the same"
        rows = [(c.parameter, c.field, _shown(c.old), "->", _shown(c.new)) for c in self.changes]
        return "\n".join(
            [*(f"{one.code} {one.severity}: {one.message}" for one in self.findings), *aligned(rows)]
        )


def audit_diff(old: Any, new: Any) -> AuditDiff:
    """Compare who decays, how strongly and in what form.

    Sizes, step sizes and positions of groups do not count.

    Args:
        old: an audit, or the file it was saved to: the plan.
        new: what is now.

    Raises:
        InputError: no audit, or a file that is none.
    """
    before, after = _audit(old, "old"), _audit(new, "new")
    was = {one.name: one for one in before.parameters}
    now = {one.name: one for one in after.parameters}
    changes = [Change(name, "parameter", None, _short(one)) for name, one in now.items() if name not in was]
    changes += [Change(name, "parameter", _short(one), None) for name, one in was.items() if name not in now]
    for name in (name for name in was if name in now):
        changes += _changes(was[name], now[name])
    return AuditDiff(tuple(changes), tuple(map(CODES["WD601"].finding, _drafts(changes))))


def _audit(given: Any, where: str) -> Audit:
    audit = given
    if isinstance(given, (str, Path)):
        # A folder may hold another result, but never a plan: read as a file, it is refused with the reason.
        audit = load(given) if Path(given).is_file() else read_json(Path(given))
    if isinstance(audit, Audit):
        return audit
    raise InputError(
        "not an audit", where, type(audit).__name__, "give an Audit, or the file it was saved to"
    )


def _changes(was: Parameter, now: Parameter) -> list[Change]:
    changes = []
    for field in _FIELDS:
        old, new = getattr(was, field), getattr(now, field)
        if field == "weight_decay" and abs(old - new) <= 1e-9 * max(old, new):
            continue
        if old != new:
            changes.append(Change(was.name, field, old, new))
    return changes


def _drafts(changes: list[Change]) -> list[Draft]:
    """One finding for each kind of change."""
    kinds: dict[str, list[Change]] = {}
    for one in changes:
        new_or_gone = "{is|are} new" if one.old is None else "{is|are} gone"
        what = new_or_gone if one.field == "parameter" else f"{{differs|differ}} in {one.field}"
        kinds.setdefault(what, []).append(one)
    drafts = []
    for what, several in kinds.items():
        names = tuple(dict.fromkeys(one.parameter for one in several))
        first = several[0]
        shown = "" if first.field == "parameter" else f", {_shown(first.old)} -> {_shown(first.new)}"
        message = f"{{n}} parameter{{|s}} {what} against the plan ({some(names)}{shown})"
        drafts.append(Draft(names, message, _FIX))
    return drafts


def _short(one: Parameter) -> str:
    return f"{one.role}, weight_decay {one.weight_decay:g}"


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
