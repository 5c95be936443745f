"""A page of sentences, figures and tables, as plain values that its script draws."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weightdecay.reports.page.document import packed

Both = tuple[str, str]  # English and Chinese

LOSS: Both = ("loss", "损失")
STRENGTH: Both = ("λ", "λ")


@dataclass(frozen=True)
class Line:
    """One series of a figure.

    Args:
        name: what it is called: in both languages, or a name from the data.
        y: its values (n,); what is not finite leaves a gap.
        colour: a name of the style sheet's colours, or a number of its cycle.
        dashed: draw it dashed.
        points: points and no line.
        band: half the height of a band around it (n,), or None.
    """

    name: Both | str
    y: Any
    colour: str | int = 0
    dashed: bool = False
    points: bool = False
    band: Any = None


@dataclass(frozen=True)
class Figure:
    """Series over one axis.

    Args:
        caption: what it shows.
        x: ascending (n,).
        lines: the series.
        x_label: with its unit.
        y_label: likewise.
        log_x: a log axis.
        log_y: likewise; what is not positive leaves a gap.
        at_least: the y axis has this range, or more.
    """

    caption: Both
    x: Any
    lines: Sequence[Line]
    x_label: Both
    y_label: Both
    log_x: bool = False
    log_y: bool = False
    at_least: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, numbers packed in float64."""
        lines = [
            {
                "name": one.name,
                "y": packed(one.y, "<f8"),
                "colour": one.colour,
                "dashed": one.dashed,
                "points": one.points,
                "band": None if one.band is None else packed(one.band, "<f8"),
            }
            for one in self.lines
        ]
        named = {
            name: getattr(self, name)
            for name in ("caption", "x_label", "y_label", "log_x", "log_y", "at_least")
        }
        return {**named, "x": packed(self.x, "<f8"), "lines": lines}


@dataclass(frozen=True)
class Table:
    """Rows of short texts.

    Args:
        caption: what it shows.
        head: the columns' names.
        rows: a cell each.
        shades: for each row, how much of a colour it has, from 0 to 1; or None.
    """

    caption: Both
    head: Sequence[Both | str]
    rows: Sequence[Sequence[str]]
    shades: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: in both languages.
        lines: the answer in sentences, as the record has them.
        doubts: what to be careful about.
        tables: first what matters most.
        figures: below.
        notes: what was left out, and why.
    """

    title: Both
    lines: Sequence[str] = ()
    doubts: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[Both] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return {
            **{name: list(getattr(self, name)) for name in ("title", "lines", "doubts", "notes")},
            "tables": [
                {"caption": one.caption, "head": list(one.head), "rows": [list(row) for row in one.rows]}
                | {"shades": None if one.shades is None else list(one.shades)}
                for one in self.tables
            ],
            "figures": [one.to_dict() for one in self.figures],
        }


def array(values: Any) -> np.ndarray:
    """Numbers of a tensor or list, in float64."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values, dtype=np.float64)


def number(value: float | None) -> str:
    """As a person writes it; a dash where there is none."""
    return "–" if value is None else f"{value:.4g}"
