"""What the command line shows: curves that grow in a terminal, plain lines in a pipe, one table."""

import math
from collections.abc import Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text as Styled

from weightdecay.reports import style
from weightdecay.text import Text, local, local_list
from weightdecay.textbook.record import Evaluation, Outcome, Run

TRAIN_STYLE, TEST_STYLE = style.of("train").terminal, style.of("test").terminal
TEST_MARK = "o"  # of the test loss where there is no colour


def output() -> Console:
    """Standard output; of a fixed width and without colour where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=110, color_system=None)


class Watcher:
    """What a run reports to, inside a with block. This one shows nothing."""

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to clean up."""

    def on_evaluation(self, seen: Evaluation) -> None:
        """Take one look at one training."""

    def on_progress(self, stage: str, done: int, total: int) -> None:
        """Take how far a batched stage has come."""


class PlainLines(Watcher):
    """One line when a training ends and one when a batched stage ends: for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_evaluation(self, seen: Evaluation) -> None:
        """Print the last look at a training."""
        if seen.epoch == seen.epochs:
            line = Text(
                f"{seen.version}, λ = {seen.lam:.3g}, seed {seen.seed}: epoch {seen.epoch}, train loss "
                f"{seen.train_loss:.4g}, test loss {seen.test_loss:.4g}, ||w|| {seen.w_norm:.4g}",
                f"{seen.version}，λ = {seen.lam:.3g}，种子 {seen.seed}：第 {seen.epoch} 轮，训练损失 "
                f"{seen.train_loss:.4g}，测试损失 {seen.test_loss:.4g}，||w|| {seen.w_norm:.4g}",
            )
            self._line(local(line))

    def on_progress(self, stage: str, done: int, total: int) -> None:
        """Print that a stage is done."""
        if done == total:
            self._line(local(stage))

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


class GrowingCurves(Watcher):
    """Train and test loss of every watched training, growing on a log scale, over a progress bar."""

    def __init__(self, console: Console, trainings: int) -> None:
        self._console, self._trainings = console, trainings
        self._looks: dict[tuple[str, float], list[Evaluation]] = {}
        columns = fitting(console, (TextColumn("{task.description}"), MofNCompleteColumn()))
        self._progress = Progress(*columns, console=console)
        self._stages: dict[str, TaskID] = {}
        self._live = Live(console=console, refresh_per_second=12, get_renderable=self._render)

    def __enter__(self) -> Watcher:
        self._watching = self._progress.add_task(
            local(Text("trainings to watch", "显示的训练")), total=self._trainings
        )
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def on_evaluation(self, seen: Evaluation) -> None:
        """Add a point to both curves of a training."""
        self._looks.setdefault((seen.version, seen.lam), []).append(seen)
        if seen.epoch == seen.epochs:
            self._progress.advance(self._watching)

    def on_progress(self, stage: str, done: int, total: int) -> None:
        """Move a stage's bar."""
        if stage not in self._stages:
            self._stages[stage] = self._progress.add_task(local(stage), total=total)
        self._progress.update(self._stages[stage], completed=done)

    def _render(self) -> Group:
        rows = -(-max(1, self._trainings) // 2)
        width = max(24, self._console.width // 2 - 1)
        height = min(12, max(4, (self._console.height - 4) // rows - 2))
        fitting = max(1, (self._console.height - 4) // (height + 2)) * 2
        seen = [look for looks in list(self._looks.values()) for look in looks]
        values = [value for look in seen for value in (look.train_loss, look.test_loss)]
        panels = [
            Panel(
                chart(looks, values, width - 4, height, without_colour(self._console)),
                title=f"{version}, λ = {lam:.3g}",
                subtitle=legend(self._console, _epoch(looks[-1], width)),
                width=width,
            )
            for (version, lam), looks in list(self._looks.items())[-fitting:]
        ]
        return Group(Columns(panels, padding=0), self._progress)


def fitting(console: Console, words: Sequence[ProgressColumn]) -> list[ProgressColumn]:
    """Columns of a progress line: a bar after the first words, and the time left, where there is room."""
    bar = [BarColumn()] if console.width >= 100 else [BarColumn(10)] if console.width >= 80 else []
    return [words[0], *bar, *words[1:], *([TimeRemainingColumn()] if console.width >= 70 else [])]


def _epoch(seen: Evaluation, width: int) -> str:
    """How far a training is."""
    if width < 40:
        return f" {seen.epoch}/{seen.epochs}"
    return local(Text(f", epoch {seen.epoch} of {seen.epochs}", f"，第 {seen.epoch} / {seen.epochs} 轮"))


def without_colour(console: Console) -> bool:
    """Whether colours do not tell train from test: NO_COLOR is set, or the terminal has none."""
    return console.no_color or console.color_system is None


def legend(console: Console, rest: str) -> Styled:
    """Which curve is which; by their marks where there is no colour."""
    marks = (" ─ ", f" {TEST_MARK}") if without_colour(console) else (" ", "")
    train, test = local(Text("train", "训练")), local(Text("test", "测试"))
    return Styled.assemble((f"{train}{marks[0]}", TRAIN_STYLE), (f"{test}{marks[1]}", TEST_STYLE), rest)


def chart(
    looks: Sequence[Any], values: Sequence[float], width: int, height: int, plain: bool = False
) -> Styled:
    """Train and test loss over the epochs in braille dots, log scale; `values` sets the scale's ends.

    Args:
        looks: one training's looks: epoch, train_loss, test_loss, and how many epochs there are in all.
        values: all losses that share the vertical scale.
        width: of the chart in characters, the axis' labels included.
        height: in lines.
        plain: without colour: the test loss is a mark at each look, not a line.
    """
    logs = [math.log10(value) for value in values if 0 < value < math.inf]
    if not logs:
        return Styled("\n" * (height - 1))
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    high = max(high, low + 1)
    columns = width - 7
    cells = [[0] * columns for _ in range(height)]
    styles = [[""] * columns for _ in range(height)]
    dots = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
    for name, drawn in (("train_loss", TRAIN_STYLE), ("test_loss", TEST_STYLE)):
        points = [(look.epoch, getattr(look, name)) for look in looks if 0 < getattr(look, name) < math.inf]
        place = [
            (
                round(epoch / looks[0].epochs * (columns * 2 - 1)),
                round((high - math.log10(loss)) / (high - low) * (height * 4 - 1)),
            )
            for epoch, loss in points
        ]
        if plain and name == "test_loss":
            for x, y in place:
                cells[y // 4][x // 2], styles[y // 4][x // 2] = -1, drawn
            continue
        for (x0, y0), (x1, y1) in zip(place, place[1:] or place, strict=False):
            steps = max(abs(x1 - x0), abs(y1 - y0), 1)
            for i in range(steps + 1):
                x, y = round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps)
                cells[y // 4][x // 2] |= dots[y % 4][x % 2]
                styles[y // 4][x // 2] = drawn
    text = Styled()
    for line in range(height):
        label = f"1e{high}" if line == 0 else f"1e{low}" if line == height - 1 else ""
        text.append(f"{label:>5} ┤" if label else "      │")
        for bits, drawn in zip(cells[line], styles[line], strict=True):
            text.append(TEST_MARK if bits < 0 else chr(0x2800 + bits) if bits else " ", drawn)
        text.append("\n" if line < height - 1 else "")
    return text


def print_run(run: Run, console: Console) -> None:
    """Print the outcomes, as a table or, where that does not fit, a line each; and the notes under them."""
    seeds, epochs, seed = run.experiment.seeds, run.experiment.epochs, run.experiment.seed
    over = (
        Text(f"medians over {seeds} seeds [quartiles]", f"{seeds} 个种子的中位数 [四分位数]")
        if seeds > 1
        else Text(f"seed {seed}", f"种子 {seed}")
    )
    title = local(
        Text(
            f"½ mean squared error after {epochs} epochs, {over}",
            f"{epochs} 轮后的 ½ 均方误差，{over.zh}",
        )
    )
    heads = (
        local(Text("version", "写法")),
        "λ",
        local(Text("train loss", "训练损失")),
        local(Text("test loss", "测试损失")),
        "||w||",
        local(Text("theory", "理论")),
        local(Text("ridge", "岭回归")),
    )
    rows = [_cells(run, outcome) for outcome in run.outcomes]
    table = Table(title=title)
    for head in heads:
        table.add_column(head, justify="left" if head is heads[0] else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Styled, row))
    if (
        rows
        and Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width
    ):
        console.print(table)
    elif rows:
        console.print(title, markup=False, highlight=False)
        for row in rows:
            named = [f"{head} {cell}" for head, cell in zip(heads[2:], row[2:], strict=True)]
            colon = local(Text(": ", "："))
            line = f"{local_list([row[0], f'λ = {row[1]}'])}{colon}{local_list(named)}"
            console.print(line, markup=False, highlight=False)
    if rows:
        explained = Text(
            "theory: test loss of the weights expected after as many steps; ridge: of the exact minimiser.",
            "理论：同样步数后期望权重的测试损失；岭回归：精确最小值点的测试损失。",
        )
        console.print(
            local(explained), markup=False, highlight=False, style="dim", soft_wrap=not console.is_terminal
        )
    for note in run.notes:
        console.print(local(note), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _cells(run: Run, outcome: Outcome) -> list[str]:
    without = [other for other in run.outcomes if other.version == outcome.version and other.lam == 0]
    worse = local(Text(" worse", " 更差")) if any(map(outcome.is_worse_than, without)) else ""
    band = f" [{outcome.test_low:.3g}, {outcome.test_high:.3g}]" if run.experiment.seeds > 1 else ""
    return [
        outcome.version,
        f"{outcome.lam:.3g}",
        f"{outcome.train_loss:.3g}",
        f"{outcome.test_loss:.4g}{band}{worse}",
        f"{outcome.w_norm:.4g}",
        "–" if outcome.theory is None else f"{outcome.theory:.4g}",
        f"{outcome.ridge:.4g}",
    ]
