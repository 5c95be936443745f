"""What is seen of a decay: the share of a weight that it takes, under changed conditions."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from weightdecay.probing.course import WARM, Course, Fading, Setting, long_run, run

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
        still: where the probed step's gradient is 0; None where that gives no number.
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
    still: Share | None
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
    """Run the courses.

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
    ) -> tuple[Course, Course]:
        without = run(setting, lr, strength, decaying=False, scale=scale, faster=faster)
        return without, run(setting, lr, strength, scale=scale, faster=faster)

    without, with_ = pair()

    def share(courses: tuple[Course, Course], i: int = 0) -> Share:
        return _share(courses[0], courses[1], i, tolerance)

    def changed(gradient: Change) -> Share:
        courses = [run(setting, lr, weight_decay, decaying=on, gradient=gradient) for on in (False, True)]
        return share((courses[0], courses[1]))

    def with_penalty(c: float) -> Course:
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
    still = changed(lambda g, _: torch.zeros_like(g))
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
        still=still if still.largest < float("inf") else None,
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


def _times(without: Course, with_: Course, tried: Course) -> float:
    """How many times the decay does what a penalty's gradient did, in the median; 0 where that is nothing."""
    removed = (with_.after[0] - without.after[0]).double()
    asked = (tried.after[0] - without.after[0]).double()
    there = asked.abs() > 1e-6 * asked.abs().max()
    times = float((removed[there] / asked[there]).median()) if there.any() else 0.0
    return times if 1e-6 < abs(times) < 1e6 else 0.0


def unswitched(setting: Setting) -> Setting:
    """The same, its decay switched by the constructor."""
    return replace(setting, switched=False)


def _share(without: Course, with_: Course, i: int, tolerance: float) -> Share:
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
    return max(float((one - other).abs().max()) for one, other in zip(ones, others, strict=True))


def _same(ones: list[Tensor], others: list[Tensor]) -> float:
    return float(torch.cat([(a == b).double().flatten() for a, b in zip(ones, others, strict=True)]).mean())
