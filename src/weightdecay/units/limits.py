"""What a strength must not be (errors), and what it probably should not be (advice)."""

import math
from collections.abc import Sequence
from typing import Any

from weightdecay.arguments import number
from weightdecay.errors import InputError
from weightdecay.text import Text, chinese
from weightdecay.units.halflife import (
    FLOORS,
    OFF,
    Law,
    checked_type,
    coupled_rate,
    diverges_from,
    half_life,
    oscillates_from,
    rounded_rate,
    shape,
)


def check(
    weight_decay: float,
    lr_max: float | None = None,
    *,
    law: Law = "lr",
    coupled: bool = False,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    where: str = "weight_decay",
) -> float:
    """Refuse a strength that cannot be; return it as a float.

    Args:
        weight_decay: the strength.
        lr_max: the largest step size of the run; None checks the strength alone.
        law: how the fraction removed in a step follows the step size.
        coupled: the decay goes through the gradient and SGD's momentum, below.
        momentum: of SGD, for coupled decay.
        dampening: of SGD, for coupled decay.
        nesterov: of SGD, for coupled decay.
        where: the argument to name in an error.

    Raises:
        InputError: the strength is negative or not finite; it removes a whole weight or more in a step
            (max rate >= 1: torch's AdamW flips signs without a warning); coupled decay with momentum
            diverges (a = lr·wd·(1 - dampening) >= 2 (1 + mu), Nesterov 2 (1 + mu)/(1 + 2 mu)).

    >>> check(0.1, lr_max=3e-4)
    0.1
    """
    strength = number(weight_decay, where, least=0)
    if lr_max is None and law in ("lr", "lr_squared"):
        return strength
    peak = 1.0 if lr_max is None else number(lr_max, "lr_max", least=0)
    if peak == 0:
        return strength
    per_unit = peak if law == "lr" else float(shape(law, peak, peak))
    if coupled and momentum:
        mu = number(momentum, "momentum", least=0, below=1)
        per_unit *= 1 - number(dampening, "dampening", least=0, below=1)
        limit, what = diverges_from(mu, nesterov), Text("the weight diverges", "权重发散")
    else:
        limit = 1.0
        what = Text("a step removes the whole weight or more", "一步就去掉整个权重甚至更多")
    if strength * per_unit >= limit:
        most = f"{limit / per_unit:.4g}"
        value = Text(f"{strength:g} at lr = {peak:g}", f"{strength:g}（学习率 {peak:g}）")
        if law in ("constant", "lr_relative"):
            value = f"{strength:g}"
        raise InputError(what, where, value, Text(f"give less than {most}", f"请给小于 {most} 的值"))
    return strength


def advice(
    weight_decay: float,
    lr: float | None = None,
    *,
    law: Law = "lr",
    coupled: bool = False,
    adaptive: bool = False,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    dtype: Any = None,
    steps: float | None = None,
    steps_per_epoch: float | None = None,
    retention: float | None = None,
) -> tuple[Text, ...]:
    """What a careful colleague would say about a strength that can be used; empty when there is nothing.

    Args:
        weight_decay: the strength.
        lr: the peak step size; not needed for the laws "lr_relative" and "constant".
        law: how the fraction removed in a step follows the step size.
        coupled: the decay goes through the gradient (L2).
        adaptive: the optimizer divides by a running size of the gradient (Adam and its kin).
        momentum: of SGD, for coupled decay.
        dampening: of SGD, for coupled decay.
        nesterov: of SGD, for coupled decay.
        dtype: what the weights are stored in, a name or a torch dtype.
        steps: of the run.
        steps_per_epoch: to compare the timescale with a pass over the data.
        retention: the share of the initial weights that is left after the run.

    Returns:
        One line each: what, the numbers, what to do.

    Raises:
        InputError: as `check`, or an argument out of range.

    >>> advice(1e-4, lr=1e-4, dtype="float32")  # doctest: +ELLIPSIS
    ('the decay is lost in float32: the rate 1e-08 a step is below 2.98e-08, so p·(1 - rate) is p again; ...
    """
    momenta = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
    if law in ("lr_relative", "constant") and lr is None:
        lr = 1.0
    strength = check(weight_decay, lr, law=law, coupled=coupled, **momenta)
    if dtype is not None:
        checked_type(dtype)
    if strength == 0:
        return ()
    if coupled and adaptive:
        return (
            Text(
                "coupled L2 in an adaptive optimizer has no decay rate: the optimizer divides it away; "
                f"with weight_decay = {strength:g} a weight without gradient shrinks by about lr a step as "
                "with any other; use decoupled decay (wd.Decoupled, AdamW)",
                "自适应优化器里的耦合 L2 没有衰减率：优化器把它除掉了；"
                f"weight_decay = {strength:g} 时，没有梯度的权重每步大约缩小 lr，换成别的值也一样；"
                "请用解耦的衰减（wd.Decoupled, AdamW）",
            ),
        )
    lines: list[Text] = []
    if lr:
        rate = strength * (lr if law == "lr" else float(shape(law, lr, lr)))
        if coupled:
            lines += _momentum(strength, lr, **momenta)
            rate = coupled_rate(strength, lr, **momenta)
            removed = strength * lr * (1 - dampening if momentum else 1.0)  # what one step really adds
        else:
            removed = rate
        # What goes through the gradient is not rounded beside the weight: gradients differ from step to step.
        lines += _precision(removed, None if coupled else dtype)
        lines += _timescale(rate, steps, steps_per_epoch, retention)
    elif retention is not None:
        lines += _retained(number(retention, "retention", least=0))
    return tuple(lines)


def _momentum(
    weight_decay: float, lr: float, momentum: float, dampening: float, nesterov: bool
) -> list[Text]:
    a, limit = lr * weight_decay * (1 - dampening), oscillates_from(momentum, nesterov)
    if not momentum or a <= limit:
        return []
    most = f"{limit / a * weight_decay:.3g}"
    return [
        Text(
            f"weights oscillate: lr·wd·(1 - dampening) = {a:.3g} is more than {limit:.3g}, the most that "
            f"momentum = {momentum:g} follows without; give a weight_decay below {most}",
            f"权重振荡：lr·wd·(1 - dampening) = {a:.3g} 大于 {limit:.3g}，后者是 momentum = {momentum:g} "
            f"时不振荡的上限；请让 weight_decay 小于 {most}",
        )
    ]


def _precision(rate: float, dtype: Any) -> list[Text]:
    if dtype is None:
        return []
    name = checked_type(dtype)
    remedy = Text(
        'keep the weights in a wider type, or attach with rounding="stochastic"',
        '用更宽的类型保存权重，或挂上规则时用 rounding="stochastic"',
    )
    floor = FLOORS[name]
    if rate <= floor:
        return [
            Text(
                f"the decay is lost in {name}: the rate {rate:.3g} a step is below {floor:.3g}, so "
                f"p·(1 - rate) is p again; {remedy}",
                f"衰减在 {name} 里丢失：每步的衰减率 {rate:.3g} 低于 {floor:.3g}，"
                f"所以 p·(1 - rate) 仍等于 p；{remedy.zh}",
            )
        ]
    happens = float(rounded_rate([rate], name)[0])
    if abs(happens / rate - 1) <= OFF:
        return []
    times = f"{happens / rate:.2f}"
    return [
        Text(
            f"the decay is quantised in {name}: of the rate {rate:.3g} a step about {happens:.2g} happens "
            f"(× {times}), since p·(1 - rate) is rounded to the nearest number; {remedy}",
            f"衰减在 {name} 里被量化：每步的衰减率 {rate:.3g} 实际约为 {happens:.2g}"
            f"（× {times}），因为 p·(1 - rate) 舍入到最近的数；{remedy.zh}",
        )
    ]


def _timescale(
    rate: float, steps: float | None, steps_per_epoch: float | None, retention: float | None
) -> list[Text]:
    """Lines about tau = 1/rate; of several that say the same the strongest only."""
    tau, lines = 1 / rate, []
    if tau < 10:
        life = f"{half_life(min(rate, 1)):.3g}"
        lines.append(
            Text(
                f"the decay is very fast: its timescale 1/rate is {tau:.3g} steps (less than 10), half of a "
                f"weight is gone after {life}; give less weight_decay",
                f"衰减非常快：时间尺度 1/rate 为 {tau:.3g} 步（小于 10），权重过 {life} 步就减半；"
                "请减小 weight_decay",
            )
        )
    elif steps_per_epoch is not None and tau < number(steps_per_epoch, "steps_per_epoch", above=0):
        lines.append(
            Text(
                f"the timescale 1/rate, {tau:.4g} steps, is shorter than an epoch of {steps_per_epoch:g}: "
                "the weights forget examples before they come again; give less weight_decay",
                f"时间尺度 1/rate 为 {tau:.4g} 步，短于一轮的 {steps_per_epoch:g} 步："
                "样本再次出现之前权重已经忘了它；请减小 weight_decay",
            )
        )
    kept = retention
    if kept is None and steps is not None:
        kept = math.exp(number(steps, "steps", above=0) * math.log1p(-rate)) if rate < 1 else 0.0
    dull = _retained(number(kept, "retention", least=0)) if kept is not None else []
    if not dull and steps is not None and tau > number(steps, "steps", above=0):
        dull = [
            Text(
                f"the timescale 1/rate, {tau:.4g} steps, is longer than the run of {steps:g}: the start is "
                "never forgotten; give more weight_decay",
                f"时间尺度 1/rate 为 {tau:.4g} 步，长于整个训练的 {steps:g} 步：初值始终不会被忘掉；"
                "请增大 weight_decay",
            )
        ]
    return lines + dull


def _retained(retention: float) -> list[Text]:
    if retention <= 0.9:
        return []
    return [
        Text(
            f"the decay does next to nothing: {retention:.3g} of the initial weights is left after the run "
            "(more than 0.9); give more weight_decay",
            f"衰减几乎不起作用：训练之后初始权重还剩 {retention:.3g}（大于 0.9）；请增大 weight_decay",
        )
    ]


def warning_lines(warnings: Sequence[str]) -> list[Text]:
    """Return warnings as a terminal shows them."""
    return [Text(f"warning: {warning}", f"警告：{chinese(warning)}") for warning in warnings]
