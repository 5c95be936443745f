"""The decay rules: small frozen values, each with its equation, and how they compose."""

from weightdecay.rules.base import RULES, Chain, Rule, Step, Strength, chain, rules_of
from weightdecay.rules.decays import L2, Cautious, Corrected, Decoupled, Independent, Toward
from weightdecay.rules.lora import LoRAProduct
from weightdecay.rules.norms import Constrained, FixedNorm
from weightdecay.rules.sizes import Huber, PNorm, Stable

__all__ = [
    "L2",
    "RULES",
    "Cautious",
    "Chain",
    "Constrained",
    "Corrected",
    "Decoupled",
    "FixedNorm",
    "Huber",
    "Independent",
    "LoRAProduct",
    "PNorm",
    "Rule",
    "Stable",
    "Step",
    "Strength",
    "Toward",
    "chain",
    "rules_of",
]
