"""Everything about one strength in one run: half-life, share of the run, retention, mean age."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from weightdecay.arguments import number
from weightdecay.errors import InputError
from weightdecay.schedule.learning_rates import Interval, lrs
from weightdecay.text import Text, local
from weightdecay.units.halflife import (
    LN2,
    Law,
    coupled_rate,
    coupled_weight_decay,
    half_life,
    log_retention,
    mean_age,
    rate_of,
    shape,
    strength_for,
)
from weightdecay.units.limits import advice, check, warning_lines


@dataclass(frozen=True)
class Lifetime:
    """What a strength does to a weight that gets no gradient.

    Args:
        weight_decay: the strength.
        rate: the fraction removed in a step at the peak step size.
        half_life: in steps, at the peak; infinite without decay.
        timescale: 1/rate, in steps.
        steps: of the run, or None; the fields below are None without it.
        share_of_run: half-life at the peak over the steps of the run.
        half_lives: over the whole run, under its schedule.
        half_life_in_run: steps over half_lives: the half-life averaged over the run.
        retention: share of the initial weights that is left at the end.
        mean_age: of the updates in the final weights, in steps; None for coupled decay with momentum.
        warnings: one line each.
    """

    weight_decay: float
    rate: float
    half_life: float
    timescale: float
    steps: int | None = None
    share_of_run: float | None = None
    half_lives: float | None = None
    half_life_in_run: float | None = None
    retention: float | None = None
    mean_age: float | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        life, scale = f"{self.half_life:.6g}", f"{self.timescale:.6g}"
        lines = [
            Text(f"weight_decay  {self.weight_decay:.6g}", f"weight_decay  {self.weight_decay:.6g}"),
            Text(
                f"half-life     {life} steps at the peak step size",
                f"半衰期        {life} 步，按峰值学习率",
            ),
            Text(f"timescale     {scale} steps (1/rate)", f"时间尺度      {scale} 步（1/rate）"),
        ]
        if self.steps is not None:
            share, steps, averaged = (
                f"{self.share_of_run:.4g}",
                f"{self.steps:,}",
                f"{self.half_life_in_run:.6g}",
            )
            lives, kept = f"{self.half_lives:.4g}", f"{self.retention:.4g}"
            lines += [
                Text(
                    f"of the run    {share} times its {steps} steps is that half-life",
                    f"相对训练长度  该半衰期是 {steps} 步的 {share} 倍",
                ),
                Text(
                    f"averaged      {averaged} steps is the half-life over the whole run",
                    f"平均半衰期    {averaged} 步，按整个训练计",
                ),
                Text(f"half-lives    {lives} in the run", f"半衰期个数    {lives}，在整个训练中"),
                Text(f"left of start {kept}", f"初值剩余      {kept}"),
            ]
        if self.mean_age is not None:
            age = f"{self.mean_age:.6g}"
            lines.append(
                Text(
                    f"mean age      {age} steps, of the updates in the final weights",
                    f"平均年龄      {age} 步，指最终权重里的各次更新",
                )
            )
        return "\n".join(map(local, [*lines, *warning_lines(self.warnings)]))


def lifetime(
    weight_decay: float | None = None,
    *,
    half_life_steps: float | None = None,
    half_lives: float | None = None,
    lr: float,
    schedule: Any = "constant",
    steps: int | None = None,
    warmup: float = 0.0,
    floor: float = 0.0,
    decay: float = 0.2,
    law: Law = "lr",
    coupled: bool = False,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    dtype: Any = None,
    steps_per_epoch: float | None = None,
    interval: Interval | None = None,
) -> Lifetime:
    """What one strength does in one run. Give it as weight_decay, half_life_steps or half_lives.

    Args:
        weight_decay: the strength.
        half_life_steps: instead: the half-life in steps at the peak step size.
        half_lives: instead: half-lives of the whole run under its schedule.
        lr: the peak step size.
        schedule: a name; see `lrs`.
        steps: of the run; None answers for the peak alone.
        warmup: see `lrs`.
        floor: see `lrs`.
        decay: see `lrs`.
        law: how the fraction removed follows the step size.
        coupled: the decay goes through SGD's gradient and momentum.
        momentum: of SGD, for coupled decay.
        dampening: of SGD, for coupled decay.
        nesterov: of SGD, for coupled decay.
        dtype: what the weights are stored in, for the warnings.
        steps_per_epoch: for the warnings, and for a schedule that goes by epochs.
        interval: how often the schedule goes on: "step", "epoch" or a number of steps; see `lrs`.

    Convention: decoupled decay removes strength·shape_t at step t. Coupled decay with momentum under a
    schedule is taken as if the step size of each step had always been: exact where it is constant.

    Raises:
        InputError: none or several strengths, a strength that cannot be, a schedule that is none.

    >>> round(lifetime(0.1, lr=3e-4, schedule="cosine", steps=10_000).retention, 3)
    0.861
    """
    given = [v for v in (weight_decay, half_life_steps, half_lives) if v is not None]
    if len(given) != 1:
        remedy = Text(
            "give exactly one of weight_decay, half_life, half_lives",
            "weight_decay, half_life, half_lives 中请恰好给出一个",
        )
        what = Text("a strength is said in one way", "强度只能以一种方式给出")
        raise InputError(what, "weight_decay", Text(f"{len(given)} ways", f"{len(given)} 种"), remedy)
    peak = number(lr, "lr", above=0)
    sgd = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
    _only_for_coupled(coupled, law, sgd)
    run = None
    if steps is not None or schedule != "constant" or half_lives is not None:
        every: dict[str, Any] = {"interval": interval, "steps_per_epoch": steps_per_epoch}
        run = lrs(schedule, steps, peak, warmup=warmup, floor=floor, decay=decay, **every)[0]
    strength = _strength(weight_decay, half_life_steps, half_lives, run, peak, law, coupled, sgd)
    check(strength, peak, law=law, coupled=coupled, **sgd)
    rate = coupled_rate(strength, peak, **sgd) if coupled else strength * shape(law, peak, peak)
    peak_life = Lifetime(strength, rate, half_life(rate), 1 / rate if rate else float("inf"))
    about = {"law": law, "coupled": coupled, "dtype": dtype, "steps_per_epoch": steps_per_epoch, **sgd}
    if run is None:
        return Lifetime(**{**vars(peak_life), "warnings": advice(strength, peak, **about)})
    return _over(run, peak_life, peak, about)


def _strength(
    weight_decay: float | None,
    half_life_steps: float | None,
    half_lives: float | None,
    run: np.ndarray | None,
    peak: float,
    law: Law,
    coupled: bool,
    sgd: dict[str, Any],
) -> float:
    """The strength, from the one of the first three that was given."""
    if half_life_steps is not None:
        if coupled:
            return coupled_weight_decay(half_life_steps, peak, **sgd)
        return rate_of(half_life_steps) / shape(law, peak, peak)
    if half_lives is None:
        return number(weight_decay, "weight_decay", least=0)
    if coupled and sgd["momentum"]:
        raise InputError(
            "no strength is solved for under coupled decay with momentum",
            "half_lives",
            half_lives,
            "give a half-life in steps at the peak",
        )
    assert run is not None
    return strength_for(half_lives, shape(law, run, peak))


def _only_for_coupled(coupled: bool, law: Law, sgd: dict[str, Any]) -> None:
    for name, value in sgd.items():
        if value and not coupled:
            raise InputError(
                "momentum does not change the rate of decoupled decay",
                name,
                value,
                "leave it out, or say coupled",
            )
    if coupled and law != "lr":
        raise InputError("coupled decay follows the step size", "law", law, "use lr")


def _over(run: np.ndarray, peak_life: Lifetime, peak: float, about: dict[str, Any]) -> Lifetime:
    """The same strength, over a run with these step sizes."""
    through_momentum = about["coupled"] and about["momentum"]
    if through_momentum:
        sgd = {name: about[name] for name in ("momentum", "dampening", "nesterov")}
        unique, where = np.unique(run, return_inverse=True)
        rates = np.array([coupled_rate(peak_life.weight_decay, float(lr), **sgd) for lr in unique])[where]
    else:
        rates = peak_life.weight_decay * shape(about["law"], run, peak)
    halves = -log_retention(rates) / LN2 + 0.0  # no -0
    kept = 2**-halves
    return Lifetime(
        **{
            **vars(peak_life),
            "steps": len(run),
            "share_of_run": peak_life.half_life / len(run),
            "half_lives": halves,
            "half_life_in_run": len(run) / halves if halves else float("inf"),
            "retention": kept,
            "mean_age": None if through_momentum else mean_age(rates, run),
            "warnings": advice(peak_life.weight_decay, peak, steps=len(run), retention=kept, **about),
        }
    )
