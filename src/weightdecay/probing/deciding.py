"""The form of a decay, from what was seen."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from weightdecay.probing.driving import WARM, Fading, Setting, Trajectory, long_run, run

Form = Literal[
    "none", "coupled", "decoupled", "independent", "cautious", "sign-normalised", "scaled", "unknown"
]

Change = Callable[[Tensor, Tensor], Tensor]
LOUD = 100.0  # how much larger the gradients of the other scale are


@dataclass(frozen=True)
class Share:
    """The share of each weight that decay takes in a step.

    Args:
        typical: the median over a matrix.
        uniform: it is the same for nearly all weights.
        halves: it is the same for some weights and 0 for the others.
        aligned: of such weights, the fraction where the update points the way the decay does.
        taken: the median over those of which something is taken.
        largest: of any weight, in absolute value.
        pull: the cosine between what is taken and the weights: 1 is toward 0, -1 away from it.
    """

    typical: float
    uniform: bool
    halves: bool
    aligned: float
    taken: float
    largest: float
    pull: float


@dataclass(frozen=True)
class Observations:
    """All that is looked at.

    Args:
        plain: at the given step size and strength, with random gradients.
        stronger: at twice the strength.
        faster: at twice the step size.
        loud: with gradients 100 times as large.
        sudden: where only the probed step's gradient is 100 times as large.
        steady: of weights twice as large, with the same gradients in every step; None where lr·λ is taken,
            which says enough.
        at_rest: where the probed step's gradient is 0; None where that gives no number.
        vector: plain, of the vector; None where there is none.
        through: c, where the step is the one that the gradient g + cλw gives without decay; else None.
        same_bits: the fraction of weights for which this is so to the last bit.
        echo: what the next step, without decay and from the same weights, still shows of it, relative.
        rate: the fraction removed per step in the long run without gradient; None where not measurable.
        every: how many steps lie between two that decay.
        rate_stronger: the same at twice the strength.
        step_size: the root mean square of the update that random gradients make, without decay, over lr.
        gradient_moved: the fraction of the weights that random gradients moved, without decay.
        blended: the optimizer has a training and an evaluation mode.
        switched: the strength was switched in the parameter groups, else by the constructor.
    """

    plain: Share
    stronger: Share
    faster: Share
    loud: Share
    sudden: Share
    steady: Share | None
    at_rest: Share | None
    vector: Share | None
    through: float | None
    same_bits: float
    echo: float
    rate: float | None
    every: float
    rate_stronger: float | None
    step_size: float
    gradient_moved: float
    blended: bool
    switched: bool


def observe(setting: Setting, lr: float, weight_decay: float, blended: bool = False) -> Observations:
    """Run the optimizer in all these ways.

    Args:
        setting: the optimizer and how to drive it.
        lr: the step size.
        weight_decay: the strength.
        blended: what to say about it in the result.
    """
    tolerance = 2e-3 if setting.start[0].dtype == torch.float64 else 0.02
    fading = long_run(setting, lr, weight_decay)
    setting = replace(setting, warm=_acting_step(fading, setting))

    def pair(
        strength: float = weight_decay, scale: float = 1.0, faster: float = 1.0
    ) -> tuple[Trajectory, Trajectory]:
        without = run(setting, lr, strength, decaying=False, scale=scale, faster=faster)
        return without, run(setting, lr, strength, scale=scale, faster=faster)

    without, with_ = pair()

    def share(runs: tuple[Trajectory, Trajectory], i: int = 0) -> Share:
        return _share(runs[0], runs[1], i, tolerance)

    def changed(gradient: Change) -> Share:
        runs = [run(setting, lr, weight_decay, decaying=on, gradient=gradient) for on in (False, True)]
        return share((runs[0], runs[1]))

    def with_penalty(c: float) -> Trajectory:
        def gradient(g: Tensor, w: Tensor) -> Tensor:
            return g.add(w, alpha=c * weight_decay)

        return run(setting, lr, weight_decay, decaying=False, gradient=gradient)

    edited = with_penalty(1.0)
    size = _distance(without.after, with_.after) or 1.0
    seen = share((without, with_))
    # An estimated step size grows with gradients that agree, and random ones do not; one in proportion to the
    # size of the weights, as Adafactor's, grows with them.
    usual = not seen.uniform or abs(seen.typical / (lr * weight_decay) - 1) < 0.02
    again = replace(
        setting,
        start=[2 * w for w in setting.start],
        gradients=[setting.gradients[0]] * len(setting.gradients),
    )
    steady = [run(again, lr, weight_decay, decaying=on) for on in (False, True) if not usual]
    at_rest = changed(lambda g, _: torch.zeros_like(g))
    through = 1.0 if _distance(edited.after, with_.after) < 1e-2 * tolerance * size else None
    c, tried = 1.0, edited
    for _ in range(3):  # c is read off the gradient's effect, which need not be in proportion to it
        if through is not None or not (c := c * _times(without, with_, tried)):
            break
        tried = with_penalty(c)
        through = c if _distance(tried.after, with_.after) < tolerance * size else None
    return Observations(
        plain=seen,
        stronger=share(pair(2 * weight_decay)),
        faster=share(pair(faster=2.0)),
        loud=share(pair(scale=LOUD)),
        sudden=changed(lambda g, _: LOUD * g),
        steady=share((steady[0], steady[1])) if steady else None,
        at_rest=at_rest if at_rest.largest < float("inf") else None,
        vector=share((without, with_), 1) if len(setting.start) > 1 else None,
        through=through,
        same_bits=_same(edited.after, with_.after),
        # Without a switch the next step decays too.
        echo=_distance(without.echo, with_.echo) / size if setting.switched else 0.0,
        rate=fading.rate,
        every=fading.every,
        rate_stronger=long_run(setting, lr, 2 * weight_decay).rate,
        step_size=float((without.after[0] - without.before[0]).double().square().mean().sqrt()) / lr,
        gradient_moved=1 - _same(without.before, without.after),
        blended=blended,
        switched=setting.switched,
    )


def _acting_step(fading: Fading, setting: Setting) -> int:
    """The first step after the warm-up in which the decay acts, for those that act every few steps only."""
    later = [i for i in fading.acts if WARM <= i <= len(setting.gradients) - 2]
    return later[0] if fading.every > 1 and later else setting.warm


def _times(without: Trajectory, with_: Trajectory, tried: Trajectory) -> float:
    """How many times the decay does what a penalty's gradient did, in the median; 0 where that is nothing."""
    removed = (with_.after[0] - without.after[0]).double()
    asked = (tried.after[0] - without.after[0]).double()
    there = asked.abs() > 1e-6 * asked.abs().max()
    times = float((removed[there] / asked[there]).median()) if there.any() else 0.0
    return times if 1e-6 < abs(times) < 1e6 else 0.0


def unswitched(setting: Setting) -> Setting:
    """The same, its decay switched by the constructor."""
    return replace(setting, switched=False)


def _share(without: Trajectory, with_: Trajectory, i: int, tolerance: float) -> Share:
    before, base = without.before[i].double(), without.after[i].double()
    removed = base - with_.after[i].double()
    # Some take their share before the gradient's part, some after it.
    shares = [removed / before, removed / base]
    if not all(torch.isfinite(share).all() for share in shares):
        return Share(float("nan"), False, False, 0.0, float("nan"), float("inf"), float("nan"))
    best = max(shares, key=lambda share: _agreeing(share, tolerance))
    largest = float(best.abs().max())
    taken = best.abs() > 1e-3 * largest
    some = bool(taken.any()) and 0.1 < float(taken.double().mean()) < 0.9
    step = base - before
    return Share(
        typical=float(best.median()),
        uniform=_agreeing(best, tolerance) > 0.9,
        halves=some and _agreeing(best[taken], tolerance) > 0.95,
        aligned=float(((step * before <= 0) == taken).double().mean()),
        taken=float(best[taken].median()) if taken.any() else 0.0,
        largest=largest,
        pull=float(torch.nn.functional.cosine_similarity(removed.flatten(), before.flatten(), dim=0)),
    )


def _agreeing(share: Tensor, tolerance: float) -> float:
    middle = share.median()
    if middle == 0:  # most take nothing: that is not a share
        return 0.0
    return float(((share - middle).abs() <= tolerance * middle.abs()).double().mean())


def _distance(ones: list[Tensor], others: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ones, others, strict=True))


def _same(ones: list[Tensor], others: list[Tensor]) -> float:
    return float(torch.cat([(a == b).double().flatten() for a, b in zip(ones, others, strict=True)]).mean())


ASIDE = 0.1  # a cosine within this of 0 points neither toward 0 nor away from it
NOTHING = 1e-9  # a largest share below this, times lr·λ, is rounding


@dataclass(frozen=True)
class Decision:
    """What the observations amount to.

    Args:
        form: the form.
        why: the reasons, one observation each.
        factor: how many times the decay is what the strength means in this form; None where a form says
            nothing of it.
    """

    form: Form
    why: list[str]
    factor: float | None = None


def decide(seen: Observations, lr: float, weight_decay: float) -> Decision:
    """The form and the reasons.

    Args:
        seen: the observations.
        lr: the step size they were made with.
        weight_decay: their strength.
    """
    lines = [
        f"takes {seen.plain.typical / (lr * weight_decay):.4g}·lr·λ of a matrix's weights with random "
        f"gradients{'' if seen.plain.uniform else ', not the same of each weight'}"
    ]
    if nothing(seen, lr, weight_decay):
        return Decision("none", ["strength changes nothing: not with random gradients, nor with none"])
    if seen.every > 1:
        lines.append(f"acts every {seen.every:.3g} steps")
    if seen.plain.halves:
        return _halves(seen, lr, weight_decay, lines)
    # Without memory the gradient's decay and one beside it are the same step, whatever the factor.
    if seen.through == 1 or (seen.through and (remembered(seen) or not seen.plain.uniform)):
        return _through(seen, lr, weight_decay, lines)
    if seen.echo > 1e-3 and not seen.blended:
        return _remembered(seen, lines)
    if not seen.plain.uniform:
        return _uneven(seen, lines)
    return _beside(seen, lr, weight_decay, lines)


def nothing(seen: Observations, lr: float, weight_decay: float) -> bool:
    """Whether the strength had no effect at all."""
    shares = [seen.plain, seen.loud, seen.stronger] + ([seen.at_rest] if seen.at_rest else [])
    return all(share.largest <= NOTHING * lr * weight_decay for share in shares) and seen.echo == 0


def remembered(seen: Observations) -> bool:
    """Whether later steps take more of it than the step itself."""
    if seen.switched:
        return seen.echo >= 1e-6
    return bool(seen.rate) and abs(seen.rate / (seen.plain.typical or float("inf")) - 1) > 0.05


def _halves(seen: Observations, lr: float, weight_decay: float, lines: list[str]) -> Decision:
    if seen.plain.aligned <= 0.95:
        lines.append("takes nothing of some weights, and not by the direction of the update")
        return Decision("unknown", lines)
    lines.append("takes nothing where the update points away from 0")
    if seen.rate == 0:
        lines.append("nor of weights that the update does not move, as without gradient")
    return Decision("cautious", lines, seen.plain.taken / (lr * weight_decay))


def _through(seen: Observations, lr: float, weight_decay: float, lines: list[str]) -> Decision:
    """The step is the one of g + cλw."""
    c = seen.through
    penalty = "g + λw" if c == 1 else f"g + {c:.4g}·λw"
    if seen.plain.uniform and not remembered(seen):
        # Without memory both forms are the same step; only the order of the arithmetic differs.
        lines.append("without momentum the two forms are the same step: w - lr·g - lr·λ·w")
        if seen.same_bits < 0.9:
            lines.append(
                f"{1 - seen.same_bits:.0%} of the weights differ from the gradient's in the last bit"
            )
            return _beside(seen, lr, weight_decay, lines)
        if seen.same_bits < 1:
            return Decision("unknown", lines)
        lines.append("to the last bit it is the one that the gradient g + λw gives")
    else:
        lines.append(f"the step is the one that the gradient {penalty} gives")
    if _normalised(seen) and seen.plain.uniform and seen.echo < 1e-6 and seen.switched:
        return Decision("unknown", [*lines, "and its step size depends on the gradients"])
    if _normalised(seen):
        lines.append(f"gradients {LOUD:g} times as large leave {_quotient(seen.loud, seen.plain):.2g} of it")
        return Decision("sign-normalised", lines, c)
    if seen.plain.uniform:
        return Decision("coupled", [*lines, "the share does not depend on the gradients"], c)
    double = seen.rate_stronger / seen.rate if seen.rate and seen.rate_stronger else 0.0
    if not 1.8 < double < 2.2:
        return Decision("unknown", [*lines, "and it is neither even nor of the gradients' size"], c)
    return Decision(
        "coupled", [*lines, "twice the strength takes twice as much, whatever the gradients' size"], c
    )


def _remembered(seen: Observations, lines: list[str]) -> Decision:
    """Not the gradient's step, but the next step shows it."""
    lines.append(f"the next step, without decay, still shows {seen.echo:.2g} of it: it is in the momentum")
    if not seen.plain.uniform and abs(seen.plain.pull) < ASIDE:
        return Decision("unknown", [*lines, "and it does not pull the weights toward 0"])
    if seen.plain.uniform and _alike(seen.plain, seen.loud):
        grown = _quotient(seen.faster, seen.plain)
        if 1.9 < grown < 2.1:
            return Decision("coupled", lines)
        return Decision("unknown", [*lines, f"and twice the step size takes {grown:.3g} times as much"])
    if _normalised(seen):
        return Decision("sign-normalised", [*lines, "larger gradients leave less of it"])
    return Decision("unknown", [*lines, "and it is neither even nor of the gradients' size"])


def _uneven(seen: Observations, lines: list[str]) -> Decision:
    """Beside the gradient, and not the same share of each weight."""
    if seen.plain.typical > 0 and _normalised(seen):
        lines.append("beside the gradient, divided by the gradients' size, weight by weight")
        return Decision("scaled", lines)
    return Decision("unknown", [*lines, "beside the gradient, and not the same share of each weight"])


def _beside(seen: Observations, lr: float, weight_decay: float, lines: list[str]) -> Decision:
    """Beside the gradient, the same share of each weight."""
    if seen.echo <= 1e-3:
        lines.append("beside the gradient: the next step shows nothing of it")
    else:
        lines.append("not the gradient's: the next step shows it since the weights are a blend of sequences")
    others = [seen.loud, seen.sudden]
    others += [share for share in (seen.at_rest, seen.steady) if share and share.uniform]
    if not all(_alike(seen.plain, other) for other in others):
        return Decision("scaled", [*lines, "how much depends on the gradients or on the size of the weights"])
    grown, doubled = _quotient(seen.faster, seen.plain), _quotient(seen.stronger, seen.plain)
    if not 1.9 < doubled < 2.1:
        return Decision("unknown", [*lines, f"twice the strength takes {doubled:.3g} times as much"])
    lines.append(f"twice the step size takes {grown:.3g} times as much")
    # Of a decay that acts every few steps the average counts, whatever it was that it saved up.
    each = seen.rate if seen.every > 1 and seen.rate is not None else seen.plain.typical
    factor = each / weight_decay
    if abs(grown - 1) < 0.02 and abs(factor - 1) < 0.02:
        return Decision("independent", lines, 1.0)
    if abs(grown - 1) < 0.02 and abs(factor / lr - 1) < 0.02:
        lines.append("lr·λ of the step size that it was built with, whatever lr is now")
        return Decision("independent", lines, 1.0)
    if abs(grown - 2) < 0.05 and abs(factor / lr - 1) < 0.02:
        return Decision("decoupled", lines, 1.0)
    if seen.blended and seen.echo > 1e-3:
        return Decision("decoupled", lines)
    # A decay that does not follow lr is compared with λ, any other with lr·λ.
    times = factor if abs(grown - 1) < 0.02 else factor / lr
    if not seen.switched and abs(times - 1) < 0.1:  # without a switch the runs are not quite alike
        return Decision("unknown", [*lines, "the strength is not in the parameter groups"])
    lines.append(f"the factor is {factor / lr:.4g}·lr·λ")
    if seen.rate and abs(seen.rate / each - 1) > 0.05:  # it changes from step to step
        return Decision("scaled", lines)
    # An estimated step size: what the update shows of it is nearer to the factor than to lr.
    if abs(times) < 0.1 and abs(times) ** 1.5 < seen.step_size < abs(times) ** 0.5:
        return Decision("scaled", [*lines, f"and the update is of {seen.step_size:.2g}·lr"])
    return Decision("scaled", lines, times)


def _normalised(seen: Observations) -> bool:
    """Larger gradients leave clearly less of the decay, or more: it is divided by a size of theirs."""
    quotient = _quotient(seen.loud, seen.plain)
    return not 1 / 1.5 < quotient < 1.5


def _alike(one: Share, other: Share) -> bool:
    return abs(_quotient(other, one) - 1) < 0.003


def _quotient(one: Share, other: Share) -> float:
    return one.typical / other.typical if other.typical else float("inf")
