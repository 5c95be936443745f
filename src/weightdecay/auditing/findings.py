"""The codes of the findings: stable, each with a page in the documentation; what they cost."""

from dataclasses import dataclass

from weightdecay.errors import Finding, Severity


@dataclass(frozen=True)
class Code:
    """What a code stands for.

    Args:
        subject: a few words.
        severity: what it usually is; a single finding may be milder.
    """

    subject: str
    severity: Severity


CODES: dict[str, Code] = {
    "WD101": Code("a normalisation decays", "warning"),
    "WD102": Code("a bias decays", "warning"),
    "WD103": Code("a weight matrix does not decay", "warning"),
    "WD104": Code("one role, several strengths", "warning"),
    "WD105": Code("an embedding decays without gradient", "info"),
    "WD106": Code("an adapter decays", "info"),
    "WD107": Code("exempt, but decays", "warning"),
    "WD108": Code("a parameter that should not decay", "warning"),
    "WD201": Code("a parameter in no optimizer", "error"),
    "WD202": Code("a parameter more than once", "error"),
    "WD203": Code("a parameter that is not in the model", "error"),
    "WD204": Code("tied weights with two strengths", "error"),
    "WD205": Code("flattened parameters", "error"),
    "WD206": Code("two parameters over the same memory", "error"),
    "WD207": Code("frozen, and still moving", "warning"),
    "WD301": Code("coupled decay in an adaptive optimizer", "warning"),
    "WD302": Code("a parameter decays twice", "error"),
    "WD303": Code("a strength nobody chose", "warning"),
    "WD304": Code("a decay that is not applied", "error"),
    "WD305": Code("the form of the decay is not known", "info"),
    "WD306": Code("the decay is not what its strength means", "warning"),
    "WD307": Code("groups that are mixed up", "error"),
    "WD401": Code("the decay overshoots", "error"),
    "WD402": Code("below the precision of the weights", "error"),
    "WD403": Code("the decay does next to nothing", "info"),
    "WD404": Code("faster than an epoch", "warning"),
    "WD405": Code("slower than the run", "info"),
    "WD406": Code("the decay oscillates", "warning"),
    "WD501": Code("a sparse gradient", "error"),
    "WD502": Code("the gradient scaler", "warning"),
    "WD503": Code("a checkpoint changed the rule", "error"),
    "WD504": Code("weights that are not numbers", "error"),
    "WD505": Code("a scheduler of another optimizer", "warning"),
    "WD506": Code("resumed with another strength", "warning"),
    "WD601": Code("the plan changed", "error"),
}

# Within a severity, the costliest first: what ruins a run, what decays nothing or too much, what decays in
# another form or too little, a few parameters, and last what asks whether something was meant.
COST: tuple[str, ...] = (
    *("WD504", "WD401", "WD501", "WD306", "WD307", "WD304", "WD201", "WD202", "WD302", "WD203", "WD206"),
    *("WD204", "WD503", "WD402", "WD205", "WD601"),
    *("WD404", "WD406", "WD301", "WD103", "WD104", "WD506", "WD505", "WD502", "WD207"),
    *("WD106", "WD107", "WD101", "WD102", "WD108", "WD303"),
    *("WD305", "WD405", "WD105", "WD403"),
)


@dataclass(frozen=True)
class Draft:
    """What a check found; names may still be taken out of it.

    Args:
        code: one of `CODES`.
        names: of the parameters concerned; empty where it is the whole.
        message: what, with the numbers, as `counted` takes it.
        fix: what to do.
        severity: None is the code's own.
    """

    code: str
    names: tuple[str, ...]
    message: str
    fix: str
    severity: Severity | None = None

    def finding(self, names: tuple[str, ...] | None = None) -> Finding:
        """The finding, about these names alone."""
        about = self.names if names is None else names
        severity = self.severity or CODES[self.code].severity
        return Finding(self.code, severity, about, counted(self.message, len(about)), self.fix)


def counted(message: str, n: int) -> str:
    """A message for so many: "{n}" is the number, "{one|many}" the word for it.

    >>> counted("{n} bias{|es} decay{s|}", 1), counted("{n} bias{|es} decay{s|}", 3)
    ('1 bias decays', '3 biases decay')
    """
    parts = message.replace("{n}", f"{n:,}").split("{")
    shown = parts[0]
    for part in parts[1:]:
        words, _, rest = part.partition("}")
        one, _, many = words.partition("|")
        shown += (one if n == 1 else many) + rest
    return shown
