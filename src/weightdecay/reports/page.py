"""One HTML file from a page's data: styles, scripts and numbers inside, nothing from outside."""

import base64
import hashlib
import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from weightdecay import __version__
from weightdecay.reports.style import COLOURS, variables
from weightdecay.text import Text

# By this line a page is known as one of ours, which may be written anew.
MARK = '<meta name="generator" content="weightdecay'
_STATIC = files("weightdecay.reports") / "static"


def document(title: str, data: dict[str, Any], kind: str) -> str:
    """The whole page.

    Args:
        title: plain text.
        data: what the script reads, as JSON has it.
        kind: of page: its markup and its script are in `static`.

    The Content-Security-Policy allows the styles and scripts in this file, by their checksums, and nothing
    else: no request, no frame, no form.
    """
    styles = "\n".join((_static("uPlot.min.css"), variables(), _static("page.css")))
    scripts = [_static(name) for name in ("uPlot.iife.min.js", "common.js", f"{kind}.js")]
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_checksum(styles)}'",
            f"script-src {' '.join(repr(_checksum(script)) for script in scripts)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    # "<" in a text could end the element; JSON has another way to write it.
    numbers = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'{MARK} {__version__}">\n<title>{html.escape(title)}</title>',
            f"<style>{styles}</style>\n</head>\n<body>",
            _static(f"{kind}.html"),
            f'<script type="application/json" id="data">{numbers}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body>\n</html>\n",
        )
    )


def packed(values: Any, kind: str = "<f4") -> str:
    """Numbers as base64, in little endian: float32 unless said."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def _checksum(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


LOSS = Text("loss", "损失")
STRENGTH = Text("λ", "λ")


@dataclass(frozen=True)
class Line:
    """One series of a figure.

    Args:
        name: what it is called: a `Text`, or a name from the data.
        y: its values (n,); what is not finite leaves a gap.
        colour: a role or colour of `reports.style`, "soft", or a number in the order of its colours.
        dashed: draw it dashed.
        points: points and no line.
        band: half the height of a band around it (n,), or None.
        bars: draw that as error bars.
        group: the place of its group in the figure; None is drawn with every group.
        shown: whether it is drawn before anything is chosen.
    """

    name: str
    y: Any
    colour: str | int = 0
    dashed: bool = False
    points: bool = False
    band: Any = None
    bars: bool = False
    group: int | None = None
    shown: bool = True


@dataclass(frozen=True)
class LineGroup:
    """Series of a figure that are seen together; its label is the y axis'."""

    label: Text
    log_y: bool = False


@dataclass(frozen=True)
class Top:
    """A second way to say x, along the top.

    Args:
        label: with its unit.
        values: for each x (n,); what is not finite has no label.
    """

    label: Text
    values: Any


@dataclass(frozen=True)
class Chart:
    """Series over one axis.

    Args:
        caption: what it shows.
        x: ascending (n,).
        lines: the series.
        x_label: with its unit.
        y_label: likewise.
        log_x: a log axis; it may begin at 0.
        log_y: likewise; what is not positive leaves a gap.
        at_least: the y axis has this range, or more.
        top: the axis along the top.
        groups: to choose one from.
        choose: the reader may choose which series are drawn.
    """

    caption: Text
    x: Any
    lines: Sequence[Line]
    x_label: Text
    y_label: Text
    log_x: bool = False
    log_y: bool = False
    at_least: tuple[float, float] | None = None
    top: Top | None = None
    groups: Sequence[LineGroup] = ()
    choose: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, numbers packed in float64."""
        plain = ("dashed", "points", "bars", "group", "shown")
        cycle = [*COLOURS]
        lines = [
            {"name": _both(line.name), **{name: getattr(line, name) for name in plain}}
            | {"colour": cycle[line.colour % len(cycle)] if isinstance(line.colour, int) else line.colour}
            | {"y": packed(line.y, "<f8"), "band": None if line.band is None else packed(line.band, "<f8")}
            for line in self.lines
        ]
        return {
            **{name: _both(getattr(self, name)) for name in ("caption", "x_label", "y_label")},
            **{name: getattr(self, name) for name in ("log_x", "log_y", "at_least", "choose")},
            "x": packed(self.x, "<f8"),
            "lines": lines,
            "top": self.top and {"label": _both(self.top.label), "values": packed(self.top.values, "<f8")},
            "groups": [{"label": _both(group.label), "log_y": group.log_y} for group in self.groups],
        }


Shade = float | None | Sequence[float | None]


@dataclass(frozen=True)
class PageTable:
    """Rows of short texts: a `Text`, or a name or number that is the same in both languages.

    Args:
        caption: what it shows.
        head: the columns' names.
        rows: a cell each.
        shades: for each row, how much of a colour it has, from 0 to 1, or that of each cell; or None.
    """

    caption: Text
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    shades: Sequence[Shade] | None = None


@dataclass(frozen=True)
class Node:
    """A node of a tree.

    Args:
        name: of the module or parameter.
        said: about it.
        shade: how much of a colour it has, from 0 to 1.
        children: below it.
    """

    name: str
    said: Text
    shade: float
    children: Sequence["Node"] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        below = [node.to_dict() for node in self.children]
        return {"name": self.name, "said": _both(self.said), "shade": self.shade, "children": below}


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: what it is about.
        lines: the answer in sentences.
        doubts: what to be careful about.
        tables: first what matters most.
        tree: below the tables, with its caption.
        figures: below.
        notes: what was left out, and why.
    """

    title: Text
    lines: Sequence[Text] = ()
    doubts: Sequence[Text] = ()
    tables: Sequence[PageTable] = ()
    tree: tuple[Text, Sequence[Node]] | None = None
    figures: Sequence[Chart] = ()
    notes: Sequence[Text] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return {
            "title": _both(self.title),
            **{name: list(map(_both, getattr(self, name))) for name in ("lines", "doubts", "notes")},
            "tree": self.tree
            and {"caption": _both(self.tree[0]), "nodes": [node.to_dict() for node in self.tree[1]]},
            "tables": [
                {
                    "caption": _both(table.caption),
                    "head": list(map(_both, table.head)),
                    "rows": [list(map(_both, row)) for row in table.rows],
                    "shades": None if table.shades is None else list(table.shades),
                }
                for table in self.tables
            ],
            "figures": [figure.to_dict() for figure in self.figures],
        }


def _both(text: str) -> list[str] | str:
    """Return English and Chinese, as the page's script reads them; a name or number as it is."""
    return [text, text.zh] if isinstance(text, Text) else text


def array(values: Any) -> np.ndarray:
    """Numbers of a tensor or list, in float64."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values, dtype=np.float64)


def number(value: float | None) -> str:
    """As a person writes it; a dash where there is none, or where it is not finite.

    >>> number(0.123456), number(float("inf"))
    ('0.1235', '–')
    """
    return f"{value:.4g}" if value is not None and math.isfinite(value) else "–"


def thinned(count: int, most: int) -> list[int]:
    """Places of at most so many of `count`, evenly spread, both ends included.

    >>> thinned(10, 4), thinned(3, 4)
    ([0, 3, 6, 9], [0, 1, 2])
    """
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
