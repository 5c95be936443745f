"""The registry of re-enacted faults: each row's small input, what it gives, and the right value."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One fault: `run` returns what happened, in words, and whether that is right."""

    number: str
    what: str
    right: str
    run: Callable[[], tuple[str, bool]]


ROWS: list[Row] = []


def row(number: str, what: str, right: str):
    """Register the re-enactment of a fault: `@row("18", "summed loss, batch 7", "50.8")`."""

    def register(run: Callable[[], tuple[str, bool]]) -> Callable[[], tuple[str, bool]]:
        ROWS.append(Row(number, what, right, run))
        return run

    return register
