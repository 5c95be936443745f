"""One strength in another set-up: another batch size, step size, schedule, length or data set."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from weightdecay.arguments import count, number
from weightdecay.errors import InputError
from weightdecay.schedule.learning_rates import Interval, lrs
from weightdecay.text import Text, chinese, local
from weightdecay.units.halflife import LN2, Law, log_retention, shape, strength_for
from weightdecay.units.limits import advice, check, warning_lines

_NUMBER = re.compile(r"\d[\d.,e+-]*")
Keep = Literal["run", "epoch"]
WidthRule = Literal["independent", "sqrt"]
# The half-lives' power of (old width / new width), beside lr that goes as 1/width.
_WIDTH_POWERS = {"independent": 0.0, "sqrt": 0.5}
_WIDTH_SOURCES = {"independent": "arXiv 2510.19093", "sqrt": "arXiv 2510.15262"}


@dataclass(frozen=True)
class Setup:
    """What a training is set to, as far as weight decay looks at it.

    Args:
        batch_size: training examples (or tokens) a step, over all devices and accumulated micro-batches.
        lr: the peak step size, where the schedule is a name; else None.
        steps: optimizer steps of the run; not needed where the schedule is a list of numbers.
        schedule: whatever `weightdecay.schedule.lrs` takes: a name, numbers, a function, a torch scheduler.
        examples: size of the training data, in the unit of the batch size; None: the same in both set-ups.
        width: of the hidden layers, to be told what the literature says about it.
        warmup: with a named schedule: share of the steps over which lr rises.
        floor: with a named schedule: the last step size as a share of lr.
        decay: with "wsd": share of the steps over which lr falls.
        interval: how often the schedule goes on: "step", "epoch" (of examples/batch_size steps, rounded up)
            or a number of steps. None: for a torch scheduler it is found from its own length, or asked for;
            else "step".

    Raises:
        InputError: a number out of range.

    >>> Setup(batch_size=256, lr=3e-4, steps=10_000).schedule
    'constant'
    """

    batch_size: int
    lr: float | None = None
    steps: int | None = None
    schedule: Any = "constant"
    examples: int | None = None
    width: int | None = None
    warmup: float = 0.0
    floor: float = 0.0
    decay: float = 0.2
    interval: Interval | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "examples", "width"):
            if (value := getattr(self, name)) is not None or name == "batch_size":
                object.__setattr__(self, name, count(value, f"Setup.{name}"))
        if self.lr is not None:
            object.__setattr__(self, "lr", number(self.lr, "Setup.lr", above=0))
        if self.floor and self.schedule == "constant":
            raise InputError("a constant step size has no floor", "Setup.floor", self.floor, "leave it out")
        if self.decay != Setup.decay and self.schedule != "wsd":
            raise InputError(
                "only the schedule wsd has a share of decay", "Setup.decay", self.decay, "leave it out"
            )

    def lrs(self) -> np.ndarray:
        """The step size at each step.

        Raises:
            InputError: the schedule cannot be used, or gives different step sizes to several groups.
        """
        if self.interval == "epoch" and self.examples is None:
            what = "an epoch of unknown length"
            raise InputError(what, "Setup.examples", "None", "give examples, the size of the training data")
        rows = lrs(
            self.schedule,
            self.steps,
            self.lr,
            warmup=self.warmup,
            floor=self.floor,
            decay=self.decay,
            interval=self.interval,
            steps_per_epoch=math.ceil(self.examples / self.batch_size) if self.examples else None,
        )
        if not (rows == rows[0]).all():
            raise InputError(
                "the groups have different step sizes",
                "Setup.schedule",
                f"{len(rows)} rows",
                "transfer one group at a time",
            )
        return rows[0]


@dataclass(frozen=True)
class Transfer:
    """What `transfer` found.

    Args:
        weight_decay: the strength in the new set-up.
        kept: "run" or "epoch": what is the same in both, half-lives per run or per epoch.
        half_lives_old: half-lives of the old run.
        half_lives_new: half-lives of the new run.
        retention_old: share of the initial weights that the old run leaves, 2^-half_lives_old.
        retention_new: share that the new run leaves.
        epochs_ratio: passes over the data of the new run over those of the old.
        notes: the rule that was kept and what is not agreed on, one line each.
        warnings: what is doubtful about the new strength and was not about the old, one line each.
    """

    weight_decay: float
    kept: Keep
    half_lives_old: float
    half_lives_new: float
    retention_old: float
    retention_new: float
    epochs_ratio: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lives = f"{self.half_lives_old:.4g}", f"{self.half_lives_new:.4g}"
        kept = f"{self.retention_old:.4g}", f"{self.retention_new:.4g}"
        lines = (
            Text(f"weight_decay  {self.weight_decay:.6g}", f"weight_decay  {self.weight_decay:.6g}"),
            Text(
                f"half-lives    {lives[0]} in the old run, {lives[1]} in the new",
                f"半衰期个数    旧的训练 {lives[0]}，新的训练 {lives[1]}",
            ),
            Text(
                f"left of start {kept[0]} after the old run, {kept[1]} after the new",
                f"初值剩余      旧的训练之后 {kept[0]}，新的训练之后 {kept[1]}",
            ),
            *(Text(f"note: {note}", f"注意：{chinese(note)}") for note in self.notes),
            *warning_lines(self.warnings),
        )
        return "\n".join(map(local, lines))


def transfer(
    weight_decay: float,
    old: Setup,
    new: Setup,
    keep: Keep = "run",
    law: Law = "lr",
    width_rule: WidthRule | None = None,
) -> Transfer:
    """The strength that does in a new set-up what `weight_decay` does in the old one.

    Solves sum_t ln(1 - wd·shape_t) = -H ln 2 under the new schedule, where H is the old run's sum,
    times the ratio of epochs if half-lives per epoch are to be kept.

    Args:
        weight_decay: the strength in the old set-up.
        old: the set-up in which it is known to be good.
        new: the set-up it is wanted for.
        keep: "run" keeps half-lives per run, "epoch" per epoch; at equal numbers of epochs they agree.
        law: how the rule follows the step size: "lr" for AdamW and SGD without momentum.
        width_rule: None does nothing about the width; beside lr that goes as 1/width (muP), "independent"
            keeps lr·wd (arXiv 2510.19093), "sqrt" lets wd grow as sqrt(width) (arXiv 2510.15262).

    Convention: decoupled decay (torch AdamW); for coupled decay on SGD with momentum see `coupled_rate`.

    Raises:
        InputError: a set-up or strength that cannot be, or half-lives that the new run cannot have.

    >>> old = Setup(batch_size=256, lr=3e-4, steps=10_000)
    >>> new = Setup(batch_size=1024, lr=6e-4, steps=5_000, schedule="cosine")
    >>> answer = transfer(0.1, old, new, keep="run")
    >>> f"{answer.weight_decay:.4f}, {answer.half_lives_new:.3f} half-lives"
    '0.2000, 0.433 half-lives'
    >>> f"{transfer(0.1, old, new, keep='epoch').weight_decay:.4f}"
    '0.3999'

    Source: arXiv 2405.13698 and 2505.13738 (the timescale of decay against epochs and run length).
    """
    if keep not in ("run", "epoch"):
        raise InputError("what is to be kept?", "keep", repr(keep), "use run or epoch")
    if width_rule is not None and width_rule not in tuple(_WIDTH_POWERS):
        raise InputError("no such rule", "width_rule", repr(width_rule), "use independent or sqrt, or None")
    for where, setup in (("old", old), ("new", new)):
        if not isinstance(setup, Setup):
            raise InputError("not a Setup", where, repr(setup)[:60], "give Setup(batch_size, lr, steps)")
    old_lrs, new_lrs = old.lrs(), new.lrs()
    strength = check(weight_decay, float(old_lrs.max()), law=law)
    half_lives = -log_retention(strength * shape(law, old_lrs)) / LN2 + 0.0  # no -0
    ratio = _epochs_ratio(old, len(old_lrs), new, len(new_lrs))
    wanted = half_lives * (ratio if keep == "epoch" else 1.0) * _width_factor(old, new, width_rule)
    shapes = shape(law, new_lrs)
    transferred = strength_for(wanted, shapes)
    other = half_lives * (1.0 if keep == "epoch" else ratio) * _width_factor(old, new, width_rule)
    return Transfer(
        weight_decay=transferred,
        kept=keep,
        half_lives_old=half_lives,
        half_lives_new=wanted,
        retention_old=2**-half_lives,
        retention_new=2**-wanted,
        epochs_ratio=ratio,
        notes=(
            _kept(keep, half_lives, ratio, _reach(other, shapes), width_rule is not None),
            *_about_data(old, new),
            *_about_width(old, new, width_rule, wanted, shapes),
        ),
        warnings=_news(
            _advice(strength, old, old_lrs, law, half_lives), _advice(transferred, new, new_lrs, law, wanted)
        ),
    )


def _advice(strength: float, setup: Setup, rates: np.ndarray, law: Law, half_lives: float) -> tuple[str, ...]:
    return advice(
        strength,
        float(rates.max()),
        law=law,
        steps=len(rates),
        steps_per_epoch=setup.examples / setup.batch_size if setup.examples else None,
        retention=2**-half_lives,
    )


def _news(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """What is to be said of the new strength and was not of the old; numbers apart, the same line."""
    known = {_NUMBER.sub("#", line) for line in old}
    return tuple(line for line in new if _NUMBER.sub("#", line) not in known)


def _epochs_ratio(old: Setup, old_steps: int, new: Setup, new_steps: int) -> float:
    """Epochs of the new run over epochs of the old; an unknown size of the data is that of the other run."""
    seen = (new_steps * new.batch_size) / (old_steps * old.batch_size)
    return seen * old.examples / new.examples if old.examples and new.examples else seen


def _reach(half_lives: float, shapes: np.ndarray) -> float | None:
    try:
        return strength_for(half_lives, shapes)
    except InputError:
        return None


def _kept(keep: Keep, half_lives: float, ratio: float, other: float | None, by_width: bool) -> Text:
    names = Text("per run", "每次训练"), Text("per epoch", "每轮")
    name, another = reversed(names) if keep == "epoch" else names
    but = Text(", but for the width", "，宽度另计") if by_width else Text("", "")
    start = Text(
        f"kept: half-lives {name} ({half_lives:.4g} over the old run{but})",
        f"保持{name.zh}的半衰期个数（旧的训练共 {half_lives:.4g}{but.zh}）",
    )
    if math.isclose(ratio, 1, rel_tol=1e-9):
        return Text(
            f"{start}; the numbers of epochs are equal, so half-lives {another} are kept, too",
            f"{start.zh}；轮数相同，所以{another.zh}的半衰期个数也保持不变",
        )
    instead = Text("is out of reach", "无法做到")
    if other is not None:
        instead = Text(f"would give {other:.4g}", f"则得到 {other:.4g}")
    return Text(
        f"{start}; the new run has {ratio:.4g} times the epochs: keeping half-lives {another} {instead}",
        f"{start.zh}；新的训练轮数是原来的 {ratio:.4g} 倍：若保持{another.zh}的半衰期个数，{instead.zh}",
    )


def _about_data(old: Setup, new: Setup) -> Sequence[str]:
    if old.examples and new.examples and old.examples != new.examples:
        before, after = f"{old.examples:,}", f"{new.examples:,}"
        return (
            Text(
                f"the data differ in size ({before} and {after}): epochs are counted in each",
                f"数据量不同（{before} 和 {after}）：轮数各按自己的数据计",
            ),
        )
    if bool(old.examples) != bool(new.examples):
        return (
            Text(
                "examples were given for one set-up only: both are taken to have the same data",
                "只有一个设置给出了 examples：视两者的数据相同",
            ),
        )
    return ()


def _width_factor(old: Setup, new: Setup, rule: str | None) -> float:
    if rule is None:
        return 1.0
    if not (old.width and new.width):
        raise InputError("a rule for the width needs both widths", "width_rule", rule, "give width in both")
    return (old.width / new.width) ** _WIDTH_POWERS[rule]


def _about_width(
    old: Setup, new: Setup, rule: str | None, wanted: float, shapes: np.ndarray
) -> Sequence[str]:
    if bool(old.width) != bool(new.width):
        return (
            Text(
                "a width was given for one set-up only: nothing was done about it",
                "只有一个设置给出了 width：未作处理",
            ),
        )
    if not (old.width and new.width) or old.width == new.width:
        return ()
    if rule is not None:
        other = next(name for name in _WIDTH_POWERS if name != rule)
        source, against = _WIDTH_SOURCES[rule], _WIDTH_SOURCES[other]
        return (
            Text(
                f"width {old.width} to {new.width} by the rule {rule} ({source}); it takes lr as 1/width; "
                f"{against} disagrees",
                f"宽度 {old.width} 到 {new.width}，按规则 {rule}（{source}）；它设 lr 与 1/width 成正比；"
                f"{against} 的结论不同",
            ),
        )
    lower = _reach(wanted * math.sqrt(old.width / new.width), shapes)
    shown = Text("is out of reach", "无法做到")
    if lower is not None:
        shown = Text(f"would be {lower:.4g}", f"为 {lower:.4g}")
    return (
        Text(
            f"width {old.width} to {new.width}: nothing was done about it, the literature disagrees. With "
            "lr as 1/width (muP), arXiv 2510.19093 keeps lr·wd, which is this answer; arXiv 2510.15262 lets "
            f"wd grow as sqrt(width), which {shown}. Choose with width_rule",
            f"宽度 {old.width} 到 {new.width}：未作处理，文献结论不一。lr 与 1/width 成正比时 (muP)，"
            "arXiv 2510.19093 保持 lr·wd 不变，即这里的结果；arXiv 2510.15262 让 wd 随 sqrt(width) 增大，"
            f"结果{shown.zh}。用 width_rule 选择",
        ),
    )
