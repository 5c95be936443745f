"""In which form an optimizer applies its own `weight_decay`: known of torch's classes, else probed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import optim

from weightdecay.findings import Finding
from weightdecay.hooks.native import is_adaptive
from weightdecay.probing.run import probe_optimizer
from weightdecay.rules import Cautious, Corrected, Decoupled, Independent, Rule

_FLAG = "decoupled_weight_decay"
# Exact classes: a subclass may have changed its step. A test holds the table against the probe.
_DECOUPLED = (optim.Adafactor, optim.Muon)
_BY_FLAG = (optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam)
_DIVIDED = (optim.Adagrad, optim.RMSprop, optim.Adadelta, optim.Adamax)
_COUPLED = (optim.SGD, optim.ASGD)
_OF_RULES: dict[type[Rule], str] = {
    Decoupled: "decoupled",
    Independent: "independent",
    Corrected: "corrected",
    Cautious: "cautious",
}


@dataclass(frozen=True)
class Form:
    """How a decay acts.

    Args:
        form: "decoupled", "coupled", "sign-normalised", ..., "none", "unknown".
        factor: the fraction removed in a step over lr·λ, of "independent" over λ, where it is not 1.
        why: what was seen, a line.
        wrong: what a probe found beside it.
    """

    form: str
    factor: float = 1.0
    why: str = ""
    wrong: tuple[Finding, ...] = ()


def own_form(optimizer: optim.Optimizer, group: int) -> Form:
    """The form of an optimizer's own decay in one of its groups."""
    known = _of_torch(optimizer, optimizer.param_groups[group])
    return known or _probed(optimizer, group)


def rule_form(rule: Rule, optimizer: optim.Optimizer, group: Mapping[str, Any]) -> str:
    """The form of an attached rule."""
    if rule.coupled:
        return "sign-normalised" if is_adaptive(optimizer, group) else "coupled"
    return _OF_RULES.get(type(rule), type(rule).__name__.lower())


def _of_torch(optimizer: optim.Optimizer, group: Mapping[str, Any]) -> Form | None:
    kind = type(optimizer)
    if kind in _DECOUPLED or (kind in _BY_FLAG and group.get(_FLAG)):
        return Form("decoupled")
    if kind in _DIVIDED or kind in _BY_FLAG:
        return Form("sign-normalised")
    return Form("coupled") if kind in _COUPLED else None


def _probed(optimizer: optim.Optimizer, group: int) -> Form:
    found = probe_optimizer(optimizer, group)
    factor = found.rate / found.expected if found.rate and found.expected else 1.0
    strength = optimizer.param_groups[group].get("weight_decay")
    if found.form == "independent" and found.rate and strength:
        factor = found.rate / float(strength)  # of λ: lr is no part of it
    if found.form in ("unknown", "none") and not found.moved:
        return Form("unknown", why=f"the probe did not see it move: {_line(found.why)}")
    told = ("WD306", "WD307", *(["WD305"] if found.idle else []))  # the others are the audit's own
    wrong = tuple(one for one in found.findings if one.code in told)
    return Form(found.form, factor, _line(found.why), wrong)


def _line(text: str) -> str:
    return "; ".join(text.splitlines())
