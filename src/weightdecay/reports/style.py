"""Colours by role, for figures, pages and terminals alike; the settings that all figures share."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Colour:
    """A colour, as figures, the page and the terminal have it.

    Args:
        figure: on a figure.
        light, dark: on the page, by the reader's colour scheme; both can be read as text.
        terminal: the name that rich knows.
    """

    figure: str
    light: str
    dark: str
    terminal: str


# Okabe and Ito's colours: told apart by everyone, and in grey. Series without a role take them in this order.
COLOURS = {
    "blue": Colour("#0072B2", "#0072b2", "#56b4e9", "blue"),
    "orange": Colour("#D55E00", "#c24e00", "#ff9447", "dark_orange"),
    "green": Colour("#009E73", "#007a58", "#3fd0a4", "green"),
    "pink": Colour("#CC79A7", "#a8487e", "#e39cc4", "magenta"),
    "sky": Colour("#56B4E9", "#1f7fae", "#9bd3f5", "cyan"),
    "amber": Colour("#E69F00", "#8f6200", "#f0b840", "yellow"),
    "black": Colour("#000000", "#1a1a1a", "#eee", "default"),
}
ROLES = {
    "train": "blue",
    "test": "orange",
    "theory": "black",
    "ridge": "green",  # trained to the end
    "score": "blue",  # what strengths are judged by
    "chosen": "orange",  # the best strength, and the one by one standard error
    "diverged": "green",
    "ink": "black",  # text, no decay, lines through a choice
}
CYCLE = tuple(colour.figure for colour in COLOURS.values())
GREY = "#999999"  # what is not told apart


def of(role: str) -> Colour:
    """Return the colour of a role."""
    return COLOURS[ROLES[role]]


TRAIN, TEST, THEORY, RIDGE, SCORE, CHOSEN, DIVERGED, INK = (of(role).figure for role in ROLES)


def variables() -> str:
    """Return the page's colours as CSS variables, `--blue` by name and `--train` by role."""
    names = {**{name: name for name in COLOURS}, **ROLES}
    light, dark = (
        " ".join(f"--{name}: {getattr(COLOURS[colour], scheme)};" for name, colour in names.items())
        for scheme in ("light", "dark")
    )
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.titlesize": 9,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "svg.hashsalt": "weightdecay",  # the same figure is the same file
    "svg.fonttype": "none",
}

# Families that have Chinese: the first that is installed follows the usual one, glyph by glyph.
_CHINESE = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("Noto Serif CJK SC", "Noto Serif CJK JP"),
    *("WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Heiti TC"),
)
_FILES = ("NotoSansCJK-Regular", "NotoSansSC-Regular", "wqy-microhei", "NotoSerifCJK-Regular")


def style() -> dict[Any, Any]:
    """Return the settings, with the fonts of this machine."""
    return {**STYLE, "font.family": list(families())}


@cache
def families() -> tuple[str, ...]:
    """Return font families that are here, for Latin and, if there is one, for Chinese letters."""
    from matplotlib import font_manager  # only for figures: the terminal starts without it

    def listed() -> list[str]:
        """Those that matplotlib has in its list, which it makes once and keeps."""
        there = {font.name for font in font_manager.fontManager.ttflist}
        return [name for name in _CHINESE if name in there]

    if not listed():  # one may have been installed since
        files = [Path(name) for name in font_manager.findSystemFonts()]
        for stem in _FILES:
            if file := next((file for file in files if file.stem == stem), None):
                font_manager.fontManager.addfont(file)
                break
    return ("DejaVu Sans", *listed()[:1])
