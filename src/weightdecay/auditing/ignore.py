"""What is not to be told, and why: codes, codes with a pattern of names, a mapping to reasons."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from weightdecay.auditing.codes import CODES, COST
from weightdecay.auditing.drafts import Draft
from weightdecay.auditing.record import Ignored
from weightdecay.errors import InputError
from weightdecay.findings import Finding
from weightdecay.groups.suggest import closest

_REMEDY = 'give codes, such as ["WD105", "WD103:head.*"], or a mapping from these to reasons'
_ORDER = ("error", "warning", "info")


@dataclass(frozen=True)
class Silence:
    """One entry: a code, a pattern of names (None: all), a reason."""

    code: str
    pattern: str | None
    reason: str

    def covers(self, name: str) -> bool:
        """Whether a parameter of this name is meant."""
        return self.pattern is None or fnmatchcase(name, self.pattern)


def silences(ignore: Any) -> tuple[Silence, ...]:
    """Read `ignore`.

    Raises:
        InputError: not codes, or an unknown one.
    """
    if isinstance(ignore, str):
        ignore = [part for part in ignore.split(",") if part.strip()]
    if isinstance(ignore, Mapping):
        pairs = [(entry, reason) for entry, reason in ignore.items()]
    elif isinstance(ignore, Iterable):
        pairs = [(entry, "") for entry in ignore]
    else:
        raise InputError("not codes", "ignore", repr(ignore), _REMEDY)
    return tuple(_silence(entry, reason) for entry, reason in pairs)


def _silence(entry: Any, reason: Any) -> Silence:
    if not isinstance(entry, str) or not isinstance(reason, str):
        raise InputError("not a code, or a reason that is no text", "ignore", repr(entry), _REMEDY)
    code, colon, pattern = (part.strip() for part in entry.partition(":"))
    if code not in CODES:
        best = ", ".join(closest(code, CODES, 3))
        raise InputError("no such code", "ignore", repr(entry), f"the closest are {best}")
    if code == "WD601":
        what, remedy = "a change of the plan is not ignored", "save the plan again, or leave out --against"
        raise InputError(what, "ignore", repr(entry), remedy)
    if colon and not pattern:
        raise InputError("a pattern is missing", "ignore", repr(entry), f"give {code}, or {code}:head.*")
    return Silence(code, pattern or None, reason)


def settled(
    drafts: Iterable[Draft], ignore: tuple[Silence, ...]
) -> tuple[tuple[Finding, ...], tuple[Ignored, ...]]:
    """The findings that remain, the costliest first, and those ignored; one ignored in part is in both."""
    told: list[Finding] = []
    quiet: list[Ignored] = []
    for draft in drafts:
        mine = [one for one in ignore if one.code == draft.code]
        whole = next((one for one in mine if one.pattern is None), None)
        if whole:
            quiet.append(Ignored(draft.finding(), whole.reason))
            continue
        left = draft.names
        for one in mine:
            covered = tuple(name for name in left if one.covers(name))
            if covered:
                quiet.append(Ignored(draft.finding(covered), one.reason))
                left = tuple(name for name in left if name not in covered)
        if left or not draft.names:
            told.append(draft.finding(left))
    told.sort(key=lambda finding: (_ORDER.index(finding.severity), COST.index(finding.code)))
    return tuple(told), tuple(quiet)
