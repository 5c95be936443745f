"""Colours and settings that all figures share."""

from typing import Any

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
