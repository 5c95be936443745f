"""Exceptions. One form of message: what is wrong, where, which value, what to do."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from weightdecay.text import Text, chinese

# How places in a table are called, in Chinese.
_PLACES = (
    (r"^row (\d+), column (['\"].*['\"]) (?:of|in) (.+)$", r"\3 第 \1 行，列 \2"),
    (r"^column (['\"].*['\"]) (?:of|in) (.+)$", r"\2 的列 \1"),
)
_SYSTEM = {
    "No such file or directory": "没有这个文件或目录",
    "Permission denied": "权限不足",
    "Is a directory": "是一个目录",
    "Not a directory": "不是目录",
    "No space left on device": "磁盘空间不足",
}
NOTHING = Text("nothing", "无")  # the value of what was not given


class WeightDecayError(Exception):
    """Any error this package raises on purpose."""


class InputError(WeightDecayError, ValueError):
    """Something a user gave cannot be used.

    The message reads "what: where = value; remedy", on one line.

    Args:
        what: what is wrong, in a few words.
        where: the argument, file, row or column it is about.
        value: what was found there; left out when there is nothing to show.
        remedy: what to do.

    >>> print(InputError("the batch is larger than the data", "batch_size", 50, "use 20 or less"))
    the batch is larger than the data: batch_size = 50; use 20 or less
    """

    def __init__(self, what: str, where: str, value: Any = None, remedy: str = "") -> None:
        self.what, self.where, self.value, self.remedy = what, where, value, remedy
        shown = where if value is None else f"{where} = {value}"
        message = f"{what}: {shown}{'; ' if remedy else ''}{remedy}"
        super().__init__(_on_one_line(message))

    @property
    def zh(self) -> str:
        """The message in Chinese; parts that have none stay English."""
        end = f"；{chinese(self.remedy)}" if self.remedy else ""
        value = "" if self.value is None else f" = {in_chinese(self.value)}"
        place = chinese(self.where)
        for pattern, words in _PLACES:
            place = re.sub(pattern, words, place)
        return _on_one_line(f"{chinese(self.what)}：{place}{value}{end}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuilt from its parts where it is unpickled: workers send errors back."""
        return type(self), (self.what, self.where, self.value, self.remedy), self.__dict__


def in_chinese(reason: Any) -> Any:
    """Return a value of an error in Chinese, the system's commonest reasons among them."""
    return _SYSTEM.get(str(reason), chinese(reason))


def _on_one_line(message: str) -> str:
    return re.sub(r"\s*[\r\n]\s*", " ", message).strip()  # spaces in a name are kept


class WeightDecayWarning(UserWarning):
    """A strength or a rule that can be used and probably should not be."""


class DivergenceError(InputError):
    """A training ran away; `largest_lr` is the largest step size of a halving grid that completes."""

    largest_lr: float | None = None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of long work.

    Args:
        partial: what was computed until then.
        kept: what is stored of it, in words; empty where nothing is stored.
    """

    def __init__(self, partial: Any = None, kept: str = "") -> None:
        super().__init__("interrupted")
        self.partial, self.kept = partial, kept


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
