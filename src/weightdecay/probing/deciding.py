"""The form of a decay, from what was seen."""

from weightdecay.probing.observing import LOUD, Observations, Share
from weightdecay.probing.record import Form

NOTHING = 1e-9  # a largest share below this, times lr·λ, is rounding


def decide(seen: Observations, lr: float, weight_decay: float) -> tuple[Form, list[str]]:
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
        return "none", ["strength changes nothing: not with random gradients, nor with none"]
    if seen.plain.halves:
        return _halves(seen, lines)
    if seen.through:
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


def _halves(seen: Observations, lines: list[str]) -> tuple[Form, list[str]]:
    if seen.plain.aligned > 0.95:
        return "cautious", [*lines, "takes nothing where the update points away from 0"]
    return "unknown", [*lines, "takes nothing of some weights, and not by the direction of the update"]


def _through(seen: Observations, lr: float, weight_decay: float, lines: list[str]) -> tuple[Form, list[str]]:
    """The step is the one of g + λw."""
    if seen.plain.uniform and seen.echo < 1e-6:
        # Without memory both forms are the same step; only the order of the arithmetic differs.
        lines.append("without momentum the two forms are the same step: w - lr·g - lr·λ·w")
        if seen.same_bits < 0.9:
            lines.append(
                f"{1 - seen.same_bits:.0%} of the weights differ from the gradient's in the last bit"
            )
            return _beside(seen, lr, weight_decay, lines)
        if seen.same_bits < 1:
            return "unknown", lines
        lines.append("to the last bit it is the one that the gradient g + λw gives")
    else:
        lines.append("the step is the one that the gradient g + λw gives")
    if _normalised(seen) and seen.plain.uniform and seen.echo < 1e-6 and seen.switched:
        return "unknown", [*lines, "and its step size depends on the gradients"]
    if _normalised(seen):
        lines.append(f"gradients {LOUD:g} times as large leave {_quotient(seen.loud, seen.plain):.2g} of it")
        return "sign-normalised", lines
    if seen.plain.uniform:
        return "coupled", [*lines, "the share does not depend on the gradients"]
    double = seen.rate_stronger / seen.rate if seen.rate and seen.rate_stronger else 0.0
    if not 1.8 < double < 2.2:
        return "unknown", [*lines, "and it is neither even nor of the gradients' size"]
    return "coupled", [*lines, "twice the strength takes twice as much, whatever the gradients' size"]


def _remembered(seen: Observations, lines: list[str]) -> tuple[Form, list[str]]:
    """Not the gradient's step, but the next step shows it."""
    lines.append(f"the next step, without decay, still shows {seen.echo:.2g} of it: it is in the momentum")
    if seen.plain.uniform and _alike(seen.plain, seen.loud):
        grown = _quotient(seen.faster, seen.plain)
        if 1.9 < grown < 2.1:
            return "coupled", lines
        return "unknown", [*lines, f"and twice the step size takes {grown:.3g} times as much"]
    if _normalised(seen):
        return "sign-normalised", [*lines, "larger gradients leave less of it"]
    return "unknown", [*lines, "and it is neither even nor of the gradients' size"]


def _uneven(seen: Observations, lines: list[str]) -> tuple[Form, list[str]]:
    """Beside the gradient, and not the same share of each weight."""
    if seen.plain.typical > 0 and _normalised(seen):
        return "scaled", [*lines, "beside the gradient, divided by the gradients' size, weight by weight"]
    return "unknown", [*lines, "beside the gradient, and not the same share of each weight"]


def _beside(seen: Observations, lr: float, weight_decay: float, lines: list[str]) -> tuple[Form, list[str]]:
    """Beside the gradient, the same share of each weight."""
    if seen.echo <= 1e-3:
        lines.append("beside the gradient: the next step shows nothing of it")
    else:
        lines.append("not the gradient's: the next step shows it since the weights are a blend of sequences")
    others = [seen.loud, seen.sudden] + ([seen.still] if seen.still and seen.still.uniform else [])
    if not all(_alike(seen.plain, other) for other in others):
        return "scaled", [*lines, "how much depends on the gradients"]
    grown, doubled = _quotient(seen.faster, seen.plain), _quotient(seen.stronger, seen.plain)
    if not 1.9 < doubled < 2.1:
        return "unknown", [*lines, f"twice the strength takes {doubled:.3g} times as much"]
    lines.append(f"twice the step size takes {grown:.3g} times as much")
    factor = seen.plain.typical / weight_decay
    if abs(grown - 1) < 0.02 and abs(factor - 1) < 0.02:
        return "independent", lines
    if abs(grown - 2) < 0.05 and abs(factor / lr - 1) < 0.02:
        return "decoupled", lines
    if seen.blended and seen.echo > 1e-3:
        return "decoupled", lines
    if not seen.switched:
        return "unknown", [*lines, "the strength is not in the parameter groups"]
    return "scaled", [*lines, f"the factor is {factor / lr:.4g}·lr·λ"]


def _normalised(seen: Observations) -> bool:
    """Larger gradients leave clearly less of the decay, or more: it is divided by a size of theirs."""
    quotient = _quotient(seen.loud, seen.plain)
    return not 1 / 1.5 < quotient < 1.5


def _alike(one: Share, other: Share) -> bool:
    return abs(_quotient(other, one) - 1) < 0.003


def _quotient(one: Share, other: Share) -> float:
    return one.typical / other.typical if other.typical else float("inf")
