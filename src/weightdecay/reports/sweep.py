"""Figures of a sweep: the score against the strength, and the heat map of two axes. Nothing is computed."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from weightdecay.reports.style import BLACK, BLUE, COLOURS, GREEN, GREY, ORANGE
from weightdecay.sweeps.explain import setting_name, strength
from weightdecay.sweeps.record import Sweep
from weightdecay.sweeps.selection import Selection
from weightdecay.sweeps.strengths import title

_MOST_CURVES = len(COLOURS) - 2  # black is for no decay, orange for the choices
_MOST_CELLS = 100  # with more, the numbers in them are too small to read


def figure_size(sweep: Sweep) -> tuple[float, float]:
    """Width and height in inches."""
    return (6.8, 4.6) if len(sweep.selections) == 1 else (12.4, 5.2)


def figure_axes(sweep: Sweep, figure: Figure) -> np.ndarray | Axes:
    """One Axes; where there is a second axis two, for the curves and the heat map."""
    return figure.subplots() if len(sweep.selections) == 1 else figure.subplots(1, 2)


def draw(sweep: Sweep, ax: np.ndarray | Axes) -> None:
    """Draw the curve, or the curves and the heat map into an array of two Axes."""
    if isinstance(ax, Axes):
        _draw_curve(sweep, ax)
        return
    curves, heat = np.ravel(ax)
    _draw_curve(sweep, curves)
    _draw_heat(sweep, heat)


def _draw_curve(sweep: Sweep, ax: Axes) -> None:
    found = sweep.selection
    _strength_axis(ax, found)
    _score_axis(ax, sweep)
    _draw_others(ax, sweep)
    _draw_seeds(ax, found)
    _draw_means(ax, found, len(sweep.selections) > 1)
    _draw_none(ax, found)
    _draw_choices(ax, found)
    _draw_diverged(ax, found)
    seeds = len(found.seeds)
    what = f"{seeds} seeds" if seeds > 1 else "one seed: no error bars"
    what = f"{setting_name(found)}, {what}"
    if found.edge is not None:
        what += f"\nthe best is at the edge: {'stronger' if found.edge == 'high' else 'weaker'} may be better"
    if found.flat and seeds > 1:
        what += "\nflat: one standard error tells no strength from the best"
    ax.set_title(what, pad=8)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4.5, ncols=2)


def _draw_others(ax: Axes, sweep: Sweep) -> None:
    """The mean scores of the settings that are not the best."""
    others = [one for one in sweep.selections if one is not sweep.selection][: _MOST_CURVES - 1]
    for other, colour in zip(
        others, (one for one in COLOURS if one not in (BLUE, ORANGE, BLACK)), strict=False
    ):
        seen = [i for i, value in enumerate(other.strengths) if value > 0 and math.isfinite(other.means[i])]
        strengths, scores = [other.strengths[i] for i in seen], [float(other.means[i]) for i in seen]
        ax.plot(strengths, scores, color=colour, lw=1, marker=".", ms=4, label=setting_name(other))


def _strength_axis(ax: Axes, found: Selection) -> None:
    positive = [value for value in found.strengths if value > 0]
    ax.set_xscale("log")
    low, high = min(positive), max(positive)
    room = (high / low) ** 0.04 if high > low else 10.0
    ax.set_xlim(low / room, high * room)
    if found.unit.startswith("half_life_"):
        ax.invert_xaxis()  # to the right decay grows stronger, in any unit
    _plain_ticks(ax.xaxis, low / room, high * room)
    ax.set_xlabel(title(found.unit))


def _plain_ticks(axis: Axis, low: float, high: float) -> None:
    """Numbers as people write them, and not only at powers of ten where there are few of those."""
    decades = math.log10(high / low)
    if decades <= 6:
        subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 3.0, 5.0)
        axis.set_major_locator(LogLocator(subs=subs, numticks=20))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _score_axis(ax: Axes, sweep: Sweep) -> None:
    """A log axis where scores are positive and span more than a factor of four."""
    scores = np.concatenate([one.scores.numpy().ravel() for one in sweep.selections])
    finite = scores[np.isfinite(scores)]
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high > 4 * low and not sweep.goal.maximize:
        ax.set_yscale("log", nonpositive="clip")
        _plain_ticks(ax.yaxis, low, high)
    ax.set_ylabel(sweep.goal.title)


def _draw_seeds(ax: Axes, found: Selection) -> None:
    """Every training as a faint point."""
    if len(found.seeds) == 1:
        return
    strengths = np.asarray(found.strengths)
    for row in found.scores.numpy():
        seen = np.isfinite(row) & (strengths > 0)
        ax.plot(strengths[seen], row[seen], ls="none", marker=".", ms=5, mec="none", color=BLUE, alpha=0.35)


def _draw_means(ax: Axes, found: Selection, several: bool) -> None:
    strengths, means, errors = (np.asarray(values) for values in (found.strengths, found.means, found.errors))
    seen = (strengths > 0) & np.isfinite(means)
    label = setting_name(found) if several else "mean over seeds" if len(found.seeds) > 1 else None
    ax.plot(
        strengths[seen],
        means[seen],
        color=BLUE,
        lw=1.4,
        marker="." if seen.sum() <= 30 else None,
        label=label,
    )
    if len(found.seeds) > 1:
        low, high = means[seen] - errors[seen], means[seen] + errors[seen]
        ax.fill_between(strengths[seen], low, high, color=BLUE, alpha=0.2, lw=0, label="± one standard error")


def _draw_none(ax: Axes, found: Selection) -> None:
    """No decay, which a log axis does not have, as a line across."""
    if found.strengths[0] != 0 or not math.isfinite(score := float(found.means[0])):
        return
    error = float(found.errors[0])
    ax.axhline(score, color=BLACK, lw=1, ls="--", label="no decay")
    if error > 0:
        ax.axhspan(score - error, score + error, color=BLACK, alpha=0.07, lw=0)


def _draw_choices(ax: Axes, found: Selection) -> None:
    """The best full, one standard error open; and the range that is not told from the best."""
    for value, marker, what in ((found.best, "o", "best"), (found.one_se, "D", "one standard error")):
        if marker == "D" and len(found.seeds) == 1:
            continue
        label = f"{what}: {strength(value, found.unit)}"
        place = (value, found.mean(value))
        face, size, order = (
            (ORANGE, 6, 6) if marker == "o" else ("white", 10, 5)
        )  # both are seen where they meet
        style = {"marker": marker, "mfc": face, "mec": ORANGE, "ms": size, "ls": "none", "zorder": order}
        ax.plot(*(([], []) if value == 0 else ([place[0]], [place[1]])), label=label, **style)
        if value == 0:  # on the line of no decay, at its weak end
            ax.plot([0.01], [place[1]], transform=ax.get_yaxis_transform(), clip_on=False, **style)
    low, high = found.flat_range
    if low != high and len(found.seeds) > 1:
        end = ax.get_xlim()[0] if low == 0 else low
        ax.axvspan(end, high, color=GREY, alpha=0.15, lw=0, zorder=0, label="not told from the best")


def _draw_diverged(ax: Axes, found: Selection) -> None:
    """Crosses along the bad end, one each strength."""
    gone = sorted({one.copy.strength for one in found.diverged})
    if not gone:
        return
    side = 0.97 if float(found.means.max()) == math.inf else 0.03
    places = [value for value in gone if value > 0]
    count = f"{len(found.diverged)} training{'s' * (len(found.diverged) > 1)} diverged"
    cross = {"marker": "x", "ms": 7, "mew": 1.6, "color": GREEN, "ls": "none", "clip_on": False}
    ax.plot(places, [side] * len(places), transform=ax.get_xaxis_transform(), label=count, **cross)
    if gone[0] == 0:
        ax.plot([0.01], [side], transform=ax.transAxes, **cross)
        ax.text(0.03, side, "no decay diverged", transform=ax.transAxes, fontsize=8, va="center")


def _draw_heat(sweep: Sweep, ax: Axes) -> None:
    """Mean scores: a column each strength, a row each rule or learning rate; the best one framed."""
    columns = _columns(sweep)
    scores = np.full((len(sweep.selections), len(columns)), np.nan)
    for i, one in enumerate(sweep.selections):
        for value, score in zip(one.strengths, one.means.tolist(), strict=True):
            scores[i, columns.index(value)] = score
    shown = np.where(np.isfinite(scores), scores, np.nan)
    cmap, norm = ("cividis", None) if sweep.goal.maximize else ("cividis_r", _norm(shown))
    image = ax.imshow(shown, aspect="auto", origin="lower", cmap=cmap, norm=norm)
    bar = ax.figure.colorbar(image, ax=ax, label=f"{sweep.goal.title}, mean over seeds")
    if norm is not None:
        _plain_ticks(bar.ax.yaxis, float(np.nanmin(shown)), float(np.nanmax(shown)))
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    ax.grid(visible=False)
    every = -(-len(columns) // 12)
    ticks = range(0, len(columns), every)
    ax.set_xticks(list(ticks), ["none" if columns[i] == 0 else f"{columns[i]:.2g}" for i in ticks])
    ax.set_yticks(range(len(scores)), _rows(sweep))
    ax.set(xlabel=title(sweep.unit), ylabel="learning rate" if _one_rule(sweep) else "")
    ax.spines[:].set_visible(False)
    for i, j in np.argwhere(np.isinf(scores)):
        ax.plot(j, i, marker="x", color=GREEN, ms=7, mew=1.6)
    if scores.size <= _MOST_CELLS:
        _write_cells(ax, shown, image)
    for i, one in enumerate(sweep.selections):
        chosen = i == sweep.chosen
        x, y = columns.index(one.best) - 0.5, i - 0.5
        frame = {
            "color": ORANGE if chosen else BLACK,
            "lw": 2.5 if chosen else 1.0,
            "ls": "-" if chosen else "--",
            "clip_on": False,
        }
        ax.plot([x, x + 1, x + 1, x, x], [y, y, y + 1, y + 1, y], **frame)
    ax.set_title("framed: the best strength of each row (dashed) and of all", pad=8)


def _norm(shown: np.ndarray) -> LogNorm | None:
    """Colours by the logarithm, where scores span more than a factor of four."""
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    return LogNorm(low, high) if low > 0 and high > 4 * low else None


def _write_cells(ax: Axes, shown: np.ndarray, image: object) -> None:
    for i, j in np.argwhere(np.isfinite(shown)):
        red, green, blue, _ = image.cmap(image.norm(shown[i, j]))  # pyright: ignore[reportAttributeAccessIssue]
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        ax.text(
            j, i, f"{shown[i, j]:.3g}", ha="center", va="center", fontsize=7, color="white" if dark else BLACK
        )


def _columns(sweep: Sweep) -> list[float]:
    """All strengths that occur, in the order of ascending strength."""
    longest = {value for one in sweep.selections for value in one.strengths}
    order = sorted(longest - {0.0}, reverse=sweep.unit.startswith("half_life_"))
    return [0.0, *order] if 0.0 in longest else order


def _one_rule(sweep: Sweep) -> bool:
    return len({one.rule for one in sweep.selections}) == 1


def _rows(sweep: Sweep) -> list[str]:
    if _one_rule(sweep):
        return [f"{one.lr:.3g}" for one in sweep.selections]
    return [setting_name(one) for one in sweep.selections]
