"""The decay rules: small frozen values, each with its equation, and how they compose."""

from weightdecay.rules.base import RULES, Rule, Step, Strength
from weightdecay.rules.chain import Chain, chain, rules_of
from weightdecay.rules.decays import L2, Cautious, Corrected, Decoupled, Independent, Toward

__all__ = [
    "L2",
    "RULES",
    "Cautious",
    "Chain",
    "Corrected",
    "Decoupled",
    "Independent",
    "Rule",
    "Step",
    "Strength",
    "Toward",
    "chain",
    "rules_of",
]
