"""Several rules, one after another."""

from dataclasses import dataclass

from weightdecay.errors import InputError
from weightdecay.rules.base import Rule


@dataclass(frozen=True)
class Chain:
    """Rules that act on the same parameters, made by `chain`."""

    rules: tuple[Rule, ...]

    @property
    def shown(self) -> str:
        """The rules as they were written."""
        return f"chain({', '.join(rule.shown for rule in self.rules)})"


def chain(*rules: Rule | Chain) -> Chain:
    """Compose decay rules: each acts on what the one before it left.

        w <- r_k(... r_2(r_1(w)))

    Convention: rules that change the gradient add up; rules that look at the update come after those that
    do not, and rules that act on what the step left (`PNorm`, `FixedNorm`) last. A chain is never lowered
    to the optimizer's own decay.

    Raises:
        InputError: no rule, or something that is not a rule.

    >>> from weightdecay.rules import Cautious, Decoupled
    >>> chain(Decoupled(0.1), Cautious(0.01)).shown
    'chain(Decoupled(weight_decay=0.1), Cautious(weight_decay=0.01))'
    """
    flat: list[Rule] = []
    for rule in rules:
        flat += rules_of(rule)
    if not flat:
        raise InputError("an empty chain", "chain", "()", "give at least one rule")
    return Chain(tuple(flat))


def rules_of(rule: Rule | Chain) -> tuple[Rule, ...]:
    """The rules that one stands for.

    Raises:
        InputError: it is not a rule.
    """
    if isinstance(rule, Chain):
        return rule.rules
    if isinstance(rule, Rule):
        return (rule,)
    raise InputError("not a decay rule", "rule", repr(rule), "give, say, wd.Decoupled(0.1)")
