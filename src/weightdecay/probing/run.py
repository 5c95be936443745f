"""Probe an optimizer: which decay does it really apply?"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import optim

from weightdecay import arguments
from weightdecay.arguments import number
from weightdecay.errors import Finding, InputError
from weightdecay.errors import check as check_findings
from weightdecay.hooks.optimizers import bare_optimizer
from weightdecay.hooks.trial import untouched
from weightdecay.probing.deciding import (
    ASIDE,
    Decision,
    Form,
    Observations,
    decide,
    nothing,
    observe,
    unswitched,
)
from weightdecay.probing.driving import (
    PATTERNS,
    Build,
    Driver,
    Layout,
    Pattern,
    Setting,
    Unbuilt,
    builder,
    draws,
    fingerprint,
    in_groups,
    layouts,
    missing,
    mixed_up,
    plain,
    shadow,
    workable,
)
from weightdecay.text import Text, chinese

MATRIX, VECTOR = (32, 16), (16,)
PAIR = [(8, 32), (16, 8)]  # low-rank factors, for optimizers that take only those
TYPES = (torch.float64, torch.float32)
GRADIENTS = 244  # random ones, for as many steps as are looked at to find those that decay
# Weights of this size: as they are drawn, and small (some train small weights only).
SIZES = (1.0, 3e-4)
_MOST = 32  # groups of a live optimizer that are tried together
_KNOWN: "dict[tuple[Any, ...], Probe]" = {}  # what was measured, by class and options
STAND_IN, STAND_IN_LR = 0.1, 1e-3  # to find the form with, where the given ones are 0


@dataclass(frozen=True)
class Probe:
    """The decay that an optimizer really applies, as measured on small tensors.

    Args:
        optimizer: the name of its class.
        form: "none"; "coupled" (through the gradient or the momentum, and its rate does not depend on the
            gradient: SGD); "decoupled" (removes lr·λ of a weight); "independent" (removes λ, or λ times
            the lr that it was built with, whatever lr is now);
            "cautious" (decoupled, and only where the update points the same way); "sign-normalised" (through
            the gradient of an optimizer that divides by the gradient's size: Adam with L2); "scaled" (beside
            the gradient, by another factor than lr·λ: a trust ratio, an estimated or adjusted step size,
            lr²); "unknown".
        rate: the fraction of a weight that is removed per step in the long run without gradient, at this step
            size and strength; None where it could not be measured. Where nothing goes without gradient
            (`idle`), the fraction that a step with a random gradient removes of the weights that decay.
        expected: lr·λ.
        moved: whether any step changed the weights.
        gradient_moved: whether a gradient did, without decay.
        why: what was seen, one observation a line.
        findings: what looks wrong: WD301, WD304, WD305, WD306, WD307.
        factor: how many times the decay is what the strength means in this form: 1 in the documented ones,
            -1 with the wrong sign, 2 twice as much; None where the form says nothing of it.
        idle: whether something decays with a gradient, and nothing without one.
        in_step: the fraction that a step itself removes, where momentum carries the rest into later ones;
            None as for `rate`.
        mixed: whether several parameter groups decay by other strengths than their own.
    """

    optimizer: str
    form: Form
    rate: float | None
    expected: float | None
    moved: bool
    gradient_moved: bool
    why: str
    findings: tuple[Finding, ...]
    factor: float | None = None
    idle: bool = False
    in_step: float | None = None
    mixed: bool = False

    def check(self) -> None:
        """Raise if the strength has no effect, or another than it means.

        Raises:
            FindingsError: a finding is an error.
        """
        check_findings(self.findings)

    def __str__(self) -> str:
        measured = "not measured" if self.rate is None else f"{self.rate:.4g}"
        asked = "" if self.expected is None else f" (lr·λ = {self.expected:.4g})"
        when = "with a gradient, and 0 without" if self.idle else "without gradient"
        lines = [f"{self.optimizer}: {self.form}", f"  removed per step {when}: {measured}{asked}"]
        lines += [f"  {line}" for line in self.why.splitlines()]
        return "\n".join(lines + [f"  {finding}" for finding in self.findings])


def probe(
    optimizer: Any,
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.1,
    dtype: torch.dtype | None = None,
    shape: tuple[int, ...] | None = None,
    **options: Any,
) -> Probe:
    """Measure the decay that an optimizer really applies, on a few small tensors of its own.

    Args:
        optimizer: its class, or a function of params, lr, weight_decay and the options that makes one.
        lr: the step size; twice as much is tried too.
        weight_decay: the strength λ; twice as much is tried too.
        dtype: of the weights; by default float64, or float32 where it cannot.
        shape: of the matrix; by default (32, 16), with a vector of 16.
        options: further arguments of the optimizer.

    Returns:
        The form, the fraction removed per step, the observations, and findings: a strength without effect is
        an error (WD304), and so are one that makes weights grow (WD306) and groups that decay by the
        strengths of others (WD307); another amount than the strength means (WD306) and coupled decay in an
        adaptive optimizer (WD301) are warnings, an unknown form an information (WD305).

    The decay's part of a step is w'(λ = 0) - w'(λ), from one state after 12 steps with random gradients: at
    two strengths, two step sizes, two gradient scales and no gradient; against the step that g + λw gives;
    and whether the next step, without decay and from the same weights, still shows it. Then three parameter
    groups with strengths of their own.

    Convention: the expected share is lr·λ per step. Nothing outside is changed, random numbers included.

    Raises:
        InputError: not a class or function, or a number out of range.

    >>> import torch
    >>> probe(torch.optim.AdamW).form, probe(torch.optim.Adam).form
    ('decoupled', 'sign-normalised')
    """
    if not callable(optimizer):
        raise InputError(
            "not an optimizer's class", "optimizer", type(optimizer).__name__, "give the class or a function"
        )
    lr = number(lr, "lr", above=0)
    strength = number(weight_decay, "weight_decay", least=0)
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    lacking = missing(optimizer, options)
    if lacking:
        return unknown(name, f"not built: it needs {', '.join(f'{key}=' for key in lacking)}", lr * strength)
    matrix = tuple(shape or MATRIX)
    shapes = [[matrix, matrix[-1:]], [matrix], PAIR] if len(matrix) > 1 else [[matrix]]
    with untouched():
        try:
            measured = _measure(
                optimizer, options, *usable(lr, strength), [dtype] if dtype else TYPES, shapes, PATTERNS
            )
        except Unbuilt as error:
            return unknown(name, f"not run: {error}", lr * strength)
    return conclude(name, measured, lr, strength)


@dataclass(frozen=True)
class Measured:
    """What was seen, what it amounts to, and what several groups do, where that is not by their strengths."""

    seen: Observations
    decision: Decision
    groups: str | None


def _measure(
    optimizer: Callable[..., Any],
    options: dict[str, Any],
    lr: float,
    weight_decay: float,
    dtypes: Any,
    shapes: list[list[tuple[int, ...]]],
    patterns: Sequence[Pattern],
) -> Measured:
    """The observations in the first set-up in which the optimizer runs and moves.

    Raises:
        Unbuilt: it runs in none.
    """
    reason, best = "", None
    for size in SIZES:
        for tensors in shapes:
            for dtype in dtypes:
                for layout in layouts(optimizer):
                    try:
                        setting = Setting(
                            builder(optimizer, layout, options),
                            [w * size for w in draws(tensors, 1, 1, dtype)[0]],
                            draws(tensors, GRADIENTS, 2, dtype),
                        )
                        grouped = _grouped(optimizer, layout, options)
                        measured = _observed(setting, lr, weight_decay, grouped, patterns)
                    except Unbuilt as error:
                        reason = reason or str(error)
                        continue
                    if measured.seen.gradient_moved > 0.5:
                        return measured
                    best = best or measured
                    break
                else:
                    continue
                break
        if best is None:
            break
    if best is None:
        raise Unbuilt(reason)
    return best


def _grouped(
    make: Callable[..., Any], layout: Layout, options: dict[str, Any]
) -> Callable[[Pattern], Build] | None:
    """Builders of optimizers with a parameter in each group; None where parameters come in no groups."""
    if in_groups(layout, ()) is None:
        return None

    def build_with(strengths: Pattern) -> Build:
        laid = in_groups(layout, strengths)
        assert laid is not None
        return builder(make, laid, options)

    return build_with


def _observed(
    setting: Setting,
    lr: float,
    weight_decay: float,
    grouped: Callable[[Pattern], Build] | None,
    patterns: Sequence[Pattern],
) -> Measured:
    setting = workable(setting, lr, weight_decay)
    try:
        driver = Driver(setting, lr, weight_decay)
        optimizer, setting = driver.optimizer, setting if driver.switchable else unswitched(setting)
        blended = all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))
        seen = observe(setting, lr, weight_decay, blended)
        if nothing(seen, lr, weight_decay):  # it may not read the parameter groups
            seen = observe(unswitched(setting), lr, weight_decay, blended)
    except Exception as error:  # an optimizer may raise anything
        raise Unbuilt(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}") from error
    decision = decide(seen, lr, weight_decay)
    groups = None
    if grouped and driver.switchable and decision.form not in ("none", "unknown"):
        with suppress(Exception):  # it does not take groups
            groups = mixed_up(grouped, setting, patterns, lr, weight_decay, seen.every)
    return Measured(seen, decision, groups)


def probe_optimizer(optimizer: Any, group: int = 0) -> Probe:
    """Measure the decay of a live optimizer's class with the options of one of its parameter groups.

    Clones are stepped; the optimizer, its state and its parameters are not touched. Where the group's
    strength is 0 the form is found with another, and the rate is 0. Groups with the same options are
    measured once.

    Args:
        optimizer: the optimizer.
        group: the number of its parameter group.

    Raises:
        InputError: not an optimizer of torch's kind, or no such group.

    >>> import torch
    >>> probe_optimizer(torch.optim.SGD([torch.zeros(2, 2)], lr=0.1, momentum=0.9, weight_decay=1e-4)).form
    'coupled'
    """
    optimizer = arguments.optimizer(bare_optimizer(optimizer), "give a torch Optimizer", hooked=False)
    if not 0 <= group < len(optimizer.param_groups):
        raise InputError(
            "no such parameter group", "group", group, f"there are {len(optimizer.param_groups)}, from 0"
        )
    name = type(optimizer).__name__
    own = optimizer.param_groups[group]
    # At the step size it was built with, which it may have kept; a scheduler moves lr from there.
    lr, strength = plain(own.get("initial_lr", own.get("lr", 1.0))), plain(own.get("weight_decay", 0.0))
    if not (lr >= 0 and strength >= 0 and lr + strength < float("inf")):
        return unknown(name, f"lr = {lr:g}, weight_decay = {strength:g}", None)
    patterns = _proportions(optimizer)
    options = fingerprint(optimizer, group)
    key = None if options is None else (*options, *patterns)
    if key in _KNOWN:
        return _KNOWN[key]
    shapes = [[MATRIX, VECTOR], [MATRIX], PAIR]
    with untouched():
        try:
            make = shadow(optimizer, group)
            measured = _measure(make, {}, *usable(lr, strength), TYPES, shapes, patterns)
            result = conclude(name, measured, lr, strength)
        except Unbuilt as error:
            result = unknown(name, f"not run: {error}", lr * strength)
    if key is not None:
        _KNOWN[key] = result
    return result


def _proportions(optimizer: optim.Optimizer) -> tuple[Pattern, ...]:
    """The strengths of a live optimizer's groups in multiples of the least; nothing for one group alone."""
    strengths = [plain(group.get("weight_decay", 0.0)) for group in optimizer.param_groups[:_MOST]]
    unit = min((strength for strength in strengths if strength > 0), default=0.0)
    if len(strengths) < 2 or not 0 < unit < float("inf"):
        return ()
    return (tuple(strength / unit for strength in strengths),)


def usable(lr: float, weight_decay: float) -> tuple[float, float]:
    """Numbers whose effect stands out from rounding; the given ones, unless they are next to nothing.

    >>> usable(1e-3, 0.1), usable(0.0, 0.0)
    ((0.001, 0.1), (0.001, 0.1))
    """
    lr = lr if lr > 1e-7 else STAND_IN_LR
    return lr, weight_decay if lr * weight_decay > 1e-10 else STAND_IN


# What `weightdecay.probing.deciding` observes, in Chinese.
_SEEN = (
    (
        r"takes (\S+) of a matrix's weights with random gradients, not the same of each weight",
        r"随机梯度下去掉矩阵权重的 \1，各权重不一",
    ),
    (r"takes (\S+) of a matrix's weights with random gradients", r"随机梯度下去掉矩阵权重的 \1"),
    (
        r"strength changes nothing: not with random gradients, nor with none",
        r"强度不改变任何东西：有随机梯度或没有梯度时都一样",
    ),
    (r"acts every (\S+) steps", r"每 \1 步作用一次"),
    (
        r"takes nothing of some weights, and not by the direction of the update",
        r"有些权重不受影响，且与更新的方向无关",
    ),
    (r"takes nothing where the update points away from 0", r"更新背离 0 的地方不衰减"),
    (
        r"nor of weights that the update does not move, as without gradient",
        r"更新不移动的权重（如没有梯度时）也不衰减",
    ),
    (
        r"without momentum the two forms are the same step: (.+)",
        r"没有动量时两种形式是同一步：\1",
    ),
    (
        r"(\S+) of the weights differ from the gradient's in the last bit",
        r"\1 的权重与经由梯度的结果在最后一位不同",
    ),
    (r"to the last bit it is the one that the gradient (.+) gives", r"直到最后一位都与梯度 \1 给出的相同"),
    (r"the step is the one that the gradient (.+) gives", r"这一步与梯度 \1 给出的相同"),
    (r"and its step size depends on the gradients", r"且它的步长取决于梯度"),
    (r"gradients (\S+) times as large leave (\S+) of it", r"梯度放大 \1 倍时，它剩下 \2"),
    (r"the share does not depend on the gradients", r"去掉的比例与梯度无关"),
    (r"and it is neither even nor of the gradients' size", r"且既不均匀，也不随梯度的大小变化"),
    (
        r"twice the strength takes twice as much, whatever the gradients' size",
        r"强度加倍则去掉的加倍，与梯度的大小无关",
    ),
    (
        r"the next step, without decay, still shows (\S+) of it: it is in the momentum",
        r"下一步不加衰减时仍有它的 \1：它在动量里",
    ),
    (r"and it does not pull the weights toward 0", r"且它不把权重拉向 0"),
    (r"(?:and )?twice the step size takes (\S+) times as much", r"步长加倍时去掉的是 \1 倍"),
    (r"larger gradients leave less of it", r"梯度越大，它剩得越少"),
    (
        r"beside the gradient, divided by the gradients' size, weight by weight",
        r"独立于梯度，逐个权重除以梯度的大小",
    ),
    (r"beside the gradient, and not the same share of each weight", r"独立于梯度，各权重去掉的比例不一"),
    (r"beside the gradient: the next step shows nothing of it", r"独立于梯度：下一步看不到它"),
    (
        r"not the gradient's: the next step shows it since the weights are a blend of sequences",
        r"不经由梯度：下一步能看到它，是因为权重由几个序列混合而成",
    ),
    (
        r"how much depends on the gradients or on the size of the weights",
        r"去掉多少取决于梯度或权重的大小",
    ),
    (r"twice the strength takes (\S+) times as much", r"强度加倍时去掉的是 \1 倍"),
    (
        r"(\S+) of the step size that it was built with, whatever lr is now",
        r"按构造时的步长 \1，与现在的 lr 无关",
    ),
    (r"the strength is not in the parameter groups", r"强度不在参数组里"),
    (r"the factor is (\S+)", r"系数是 \1"),
    (r"and the update is of (\S+)", r"且更新的大小为 \1"),
    (r"strengths in the proportion (.+) decay as (.+)", r"强度之比为 \1，衰减之比却是 \2"),
)


def _in_chinese(line: str) -> str:
    """An observation in Chinese; English where it is not known."""
    if isinstance(line, Text):
        return line.zh
    for pattern, words in _SEEN:
        if match := re.fullmatch(pattern, line):
            return match.expand(words)
    return line


_SOURCE = Text("read its source", "阅读它的源码")


def conclude(name: str, measured: Measured, lr: float, strength: float) -> Probe:
    """The record, with findings."""
    seen, decision = measured.seen, measured.decision
    form, why = decision.form, decision.why
    moved = seen.gradient_moved > 0 or seen.plain.largest > 0
    findings: list[Finding] = []
    if not moved:
        message = Text(f"{name} did not move the weights at all", f"{name} 完全没有移动权重")
        fix = Text("check how it is called; nothing is trained", "检查调用方式；什么都没有训练")
        findings.append(Finding("WD304", "error", (), message, fix))
        form, why = "unknown", [Text("no step changed a weight", "没有一步改变了权重")]
    elif form == "none" and strength:
        message = Text(
            f"weight_decay = {strength:g} has no effect in {name}",
            f"weight_decay = {strength:g} 在 {name} 里不起作用",
        )
        fix = Text(
            "use wd.attach(optimizer, wd.Decoupled(...)) or another optimizer",
            "用 wd.attach(optimizer, wd.Decoupled(...)) 或换一个优化器",
        )
        findings.append(Finding("WD304", "error", (), message, fix))
    elif strength and form != "none":
        findings += _not_as_meant(name, measured)
    if form == "sign-normalised" and strength:
        message = Text(
            f"{name} divides the decay by the gradient's size: weight_decay = {strength:g} sets no rate",
            f"{name} 把衰减除以梯度的大小：weight_decay = {strength:g} 不决定衰减率",
        )
        fix = Text("use decoupled decay (AdamW, wd.Decoupled)", "用解耦的衰减（AdamW, wd.Decoupled）")
        findings.append(Finding("WD301", "warning", (), message, fix))
    elif form == "unknown" and not findings:
        message = Text(f"{name} decays in no known form", f"{name} 的衰减不是已知的形式")
        findings.append(Finding("WD305", "info", (), message, _SOURCE))
    idle = form in ("cautious", "decoupled", "independent", "scaled") and seen.rate == 0
    if idle and form != "cautious" and strength:
        message = Text(f"{name} decays no weight whose gradient is 0", f"{name} 不衰减梯度为 0 的权重")
        fix = Text("nothing, if that is meant: rows without gradient", "若有意如此则不必改：没有梯度的行")
        findings.append(Finding("WD305", "info", (), message, fix))
    if seen.vector and seen.vector.largest == 0 and seen.plain.largest > 0:
        why = [*why, Text("vectors do not decay", "向量不衰减")]
    return Probe(
        optimizer=name,
        form=form,
        rate=_rate(seen, form, idle, lr, strength),
        expected=lr * strength,
        moved=moved,
        gradient_moved=seen.gradient_moved > 0,
        why=Text("\n".join(why), "\n".join(map(_in_chinese, why))),
        findings=tuple(findings),
        factor=decision.factor,
        idle=idle,
        in_step=seen.plain.taken if (lr, strength) == usable(lr, strength) else None,
        mixed=measured.groups is not None,
    )


def _not_as_meant(name: str, measured: Measured) -> Iterator[Finding]:
    """Where the decay is not what its strength means: its sign, its size, its groups."""
    seen, decision = measured.seen, measured.decision
    about = Text(f"weight_decay in {name}", f"{name} 的 weight_decay ")
    factor, plain = decision.factor, seen.plain
    aside = abs(plain.pull) < ASIDE and not plain.uniform and not plain.halves
    doubled = seen.stronger.typical / plain.typical if plain.typical and plain.uniform else 2.0
    if (factor or plain.pull) < 0 and not (factor is None and aside):
        size = Text("", "")
        if factor is not None:
            size = Text(
                f": it takes {factor:.3g} times what it should", f"：它去掉的是应有的 {factor:.3g} 倍"
            )
        message = Text(
            f"{about} has the wrong sign, and makes the weights grow{size}",
            f"{about.zh}符号错了，使权重增大{size.zh}",
        )
        fix = Text(
            "subtract it: w - lr·λ·w, or add λ·w to the gradient", "应当减去：w - lr·λ·w，或把 λ·w 加到梯度上"
        )
        yield Finding("WD306", "error", (), message, fix)
    elif factor is None and aside and seen.rate == 0:
        message = Text(
            f"{about} changes the step, and pulls no weight toward 0",
            f"{about.zh}改变了步长，却没有把任何权重拉向 0",
        )
        yield Finding("WD306", "error", (), message, Text("let it act on the weights", "让它作用于权重"))
    elif not 1.2 < doubled < 3:
        message = Text(
            f"{about} is not in proportion: twice the strength takes {doubled:.3g} times as much",
            f"{about.zh}不成比例：强度加倍，去掉的是 {doubled:.3g} 倍",
        )
        yield Finding("WD306", "warning", (), message, Text("multiply by the strength once", "只乘一次强度"))
    elif factor is not None and abs(factor - 1) > 0.02:
        if decision.form in ("coupled", "sign-normalised"):
            message = Text(
                f"{about} adds {factor:.3g}·λw to the gradient, and L2 adds λw",
                f"{about.zh}把 {factor:.3g}·λw 加到梯度上，而 L2 加的是 λw",
            )
        else:
            unit = "λ" if abs(seen.faster.taken / plain.taken - 1) < 0.02 else "lr·λ"
            message = Text(
                f"{about} takes {factor:.3g}·{unit} of a weight, and the documented forms take {unit}",
                f"{about.zh}去掉权重的 {factor:.3g}·{unit}，而文档中的形式去掉 {unit}",
            )
        fix = Text(
            "mend it, or choose strengths for this optimizer alone", "修正它，或专为这个优化器选择强度"
        )
        yield Finding("WD306", "warning", (), message, fix)
    if groups := measured.groups:
        message = Text(
            f"{name} mixes its parameter groups up: {groups}", f"{name} 弄混了参数组：{_in_chinese(groups)}"
        )
        fix = Text(
            "read each group's own weight_decay in step, or give all groups the same",
            "在 step 里读取每组自己的 weight_decay，或让所有组相同",
        )
        yield Finding("WD307", "error", (), message, fix)


def _rate(seen: Observations, form: Form, idle: bool, lr: float, strength: float) -> float | None:
    if form == "none" or strength == 0:
        return 0.0
    if (lr, strength) != usable(lr, strength):
        return None
    return seen.plain.taken if idle else seen.rate


def unknown(name: str, why: str, expected: float | None) -> Probe:
    """The record of an optimizer that could not be measured."""
    message = Text(f"{name} could not be probed: {why}", f"{name} 无法探测：{chinese(why)}")
    finding = Finding("WD305", "info", (), message, _SOURCE)
    return Probe(name, "unknown", None, expected, False, False, why, (finding,))
