"""What a check finds: a frozen record with a stable code, shared by audits and probes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from weightdecay.errors import WeightDecayError

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong.

    Args:
        code: stable, such as "WD101"; each has a page in the documentation.
        severity: "error" (the training is not what was asked for), "warning" (probably not), "info".
        parameters: names of what is concerned; empty where it is the whole.
        message: what, with the numbers.
        fix: what to do.
    """

    code: str
    severity: Severity
    parameters: tuple[str, ...]
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.code} {self.severity}: {self.message}; {self.fix}"


class FindingsError(WeightDecayError):
    """Raised by `check()`: there are findings of severity "error".

    Args:
        findings: all of them that are errors.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(map(str, self.findings)))


def check(findings: Iterable[Finding]) -> None:
    """Raise if a finding is an error.

    Raises:
        FindingsError: with all that are errors.

    >>> check([Finding("WD303", "warning", (), "weight_decay is AdamW's default", "say it")])
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise FindingsError(errors)
