"""A rule of one's own, tried on a copy of a parameter before it is attached."""

import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.hooks.plan import Target
from weightdecay.rules import Rule, Step


@torch.no_grad()
def try_rule(rule: Rule, targets: tuple[Target, ...]) -> None:
    """Run a rule once on a copy of the smallest parameter; the package's own rules need no trial.

    Raises:
        InputError: the rule overrides nothing, fails, or answers with something that is no new weight.
    """
    kind = type(rule)
    if kind.__module__.startswith("weightdecay."):
        return
    if (kind.decayed, kind.decay_, kind.gradient, kind.law) == (
        *(Rule.decayed, Rule.decay_, Rule.gradient, Rule.law),
    ):
        raise InputError(
            "the rule overrides none of a rule's methods", "rule", kind.__name__, "write a method `decayed`"
        )
    target = min(targets, key=lambda target: target.parameter.numel())
    w = target.parameter.detach().clone()
    try:
        state = rule.start(w.clone(), target.name)
        _check_state(kind.__name__, state)
        step = Step(0.5, 0.5, update=torch.ones_like(w) if rule.needs_update else None, state=state)
        before = w.clone()
        answer = rule.gradient(torch.ones_like(w), w, step) if rule.coupled else rule.decayed(w, step)
    except InputError:
        raise
    except Exception as error:
        hint = ""
        if isinstance(error, NotImplementedError):
            hint = "a coupled rule needs a method `gradient`"
        elif "NoneType" in str(error) and not rule.needs_update:
            hint = "set needs_update = True to be given step.update"
        raise InputError(
            f"the rule failed on a trial ({type(error).__name__}: {error})", "rule", kind.__name__, hint
        ) from error
    method = "gradient" if rule.coupled else "decayed"
    if not isinstance(answer, Tensor) or answer.shape != w.shape:
        found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        what = f"{method} has to return a tensor of the weight's shape"
        raise InputError(what, kind.__name__, found, f"{tuple(w.shape)} is needed")
    if not torch.equal(w, before):
        raise InputError(
            f"{method} changes the weight it is given", "rule", kind.__name__, "return a new tensor instead"
        )


def _check_state(name: str, state: object) -> None:
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            "start has to return a dictionary of tensors", name, type(state).__name__, 'say {"key": tensor}'
        )
