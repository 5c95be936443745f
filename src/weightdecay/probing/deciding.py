"""The form of a decay, from what was seen."""

from dataclasses import dataclass

from weightdecay.probing.observing import LOUD, Observations, Share
from weightdecay.probing.record import Form

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
    shares = [seen.plain, seen.loud, seen.stronger] + ([seen.still] if seen.still else [])
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
    others = [seen.loud, seen.sudden] + [one for one in (seen.still, seen.steady) if one and one.uniform]
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
    if not seen.switched and abs(times - 1) < 0.1:  # without a switch the courses are not quite alike
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
