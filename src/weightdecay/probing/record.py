"""What a probe of an optimizer found."""

from dataclasses import dataclass
from typing import Literal

from weightdecay.errors import Finding
from weightdecay.errors import check as check_findings

Form = Literal[
    "none", "coupled", "decoupled", "independent", "cautious", "sign-normalised", "scaled", "unknown"
]


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
