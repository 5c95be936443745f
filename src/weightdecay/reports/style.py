"""Colours and settings that all figures share."""

from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import font_manager

# Okabe and Ito's colours: told apart by everyone, and in grey.
BLUE, ORANGE, GREEN, PINK, SKY, AMBER, BLACK = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"),
    "#000000",
)
GREY = "#999999"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER, BLACK)

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


@cache
def families() -> tuple[str, ...]:
    """Font families that are here, for Latin and, if there is one, for Chinese letters."""
    return ("DejaVu Sans", *(_known() or _found())[:1])


def _known() -> list[str]:
    """Those that matplotlib has in its list, which it makes once and keeps."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in _CHINESE if name in there]


def _found() -> list[str]:
    """Those that have been installed since."""
    files = [Path(name) for name in font_manager.findSystemFonts()]
    for stem in ("NotoSansCJK-Regular", "NotoSansSC-Regular", "wqy-microhei", "NotoSerifCJK-Regular"):
        if file := next((one for one in files if one.stem == stem), None):
            font_manager.fontManager.addfont(file)
            return _known()
    return []


def style() -> dict[Any, Any]:
    """The settings, with the fonts of this machine."""
    return {**STYLE, "font.family": list(families())}
