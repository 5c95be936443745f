"""A finding before `ignore` has been asked, and what becomes of it."""

from dataclasses import dataclass

from weightdecay.auditing.codes import CODES
from weightdecay.findings import Finding, Severity


@dataclass(frozen=True)
class Draft:
    """What a check found; names may still be taken out of it.

    Args:
        code: one of `CODES`.
        names: of the parameters concerned; empty where it is the whole.
        message: what, with the numbers, as `counted` takes it.
        fix: what to do.
        severity: None is the code's own.
    """

    code: str
    names: tuple[str, ...]
    message: str
    fix: str
    severity: Severity | None = None

    def finding(self, names: tuple[str, ...] | None = None) -> Finding:
        """The finding, about these names alone."""
        about = self.names if names is None else names
        severity = self.severity or CODES[self.code].severity
        return Finding(self.code, severity, about, counted(self.message, len(about)), self.fix)


def counted(message: str, n: int) -> str:
    """A message for so many: "{n}" is the number, "{one|many}" the word for it.

    >>> counted("{n} bias{|es} decay{s|}", 1), counted("{n} bias{|es} decay{s|}", 3)
    ('1 bias decays', '3 biases decay')
    """
    parts = message.replace("{n}", f"{n:,}").split("{")
    shown = parts[0]
    for part in parts[1:]:
        words, _, rest = part.partition("}")
        one, _, many = words.partition("|")
        shown += (one if n == 1 else many) + rest
    return shown
