"""A rule of one's own, tried before it is attached."""

import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.hooks.plan import Target
from weightdecay.rules import Rule, Step


@torch.no_grad()
def try_rule(rule: Rule, targets: tuple[Target, ...]) -> None:
    """Run a rule on made-up weights of a parameter's shape; the package's own rules need no trial.

    Raises:
        InputError: the rule overrides nothing, fails, or answers with something that is no new weight.
    """
    kind = type(rule)
    if kind.__module__.startswith("weightdecay.") or kind.partner_of is not Rule.partner_of:
        return  # ours; or one that looks at real parameters, of which a trial has none
    if (kind.decayed, kind.decay_, kind.gradient, kind.law) == (
        *(Rule.decayed, Rule.decay_, Rule.gradient, Rule.law),
    ):
        raise InputError(
            "the rule overrides none of a rule's methods", "rule", kind.__name__, "write a method `decayed`"
        )
    target = min(targets, key=lambda target: (target.parameter.ndim < 2, target.parameter.numel()))
    like = target.parameter
    dtype = like.dtype.to_real()  # complex weights come as pairs
    w = torch.linspace(-1, 1, like.numel(), dtype=dtype, device=like.device).view(like.shape)
    with torch.random.fork_rng(devices=[]):
        answer = _answer(rule, w, target.name)
        flat = _answer(rule, w.flatten(), target.name) if rule.elementwise else answer.flatten()
    if not torch.equal(flat, answer.flatten()):
        what = "the rule depends on the weight's shape, and weights come flat"
        raise InputError(what, "rule", kind.__name__, "set elementwise = False")


def _answer(rule: Rule, w: Tensor, name: str) -> Tensor:
    """What the rule makes of a weight, checked."""
    kind, before = type(rule).__name__, w.clone()
    try:
        torch.manual_seed(0)  # within the fork: a rule may draw, and draws the same each time
        state = rule.start(w.clone(), name)
        _check_state(kind, state)
        ones = torch.ones_like(w)
        step = Step(
            0.5,
            0.5,
            update=ones if rule.needs_update else None,
            state=state,
            lr=0.5,
            before=ones if rule.after else None,
            second_moment=1.0,
            name=name,
        )
        answer = rule.gradient(torch.ones_like(w), w, step) if rule.coupled else rule.decayed(w, step)
    except InputError:
        raise
    except Exception as error:
        what = f"the rule failed on a trial ({type(error).__name__}: {error})"
        raise InputError(what, "rule", kind, _hint(rule, error, w)) from error
    method = "gradient" if rule.coupled else "decayed"
    if not isinstance(answer, Tensor) or answer.shape != w.shape:
        found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        what = f"{method} has to return a tensor of the weight's shape"
        raise InputError(what, kind, found, f"{tuple(w.shape)} is needed")
    if not torch.equal(w, before):
        what = f"{method} changes the weight it is given"
        raise InputError(what, "rule", kind, "return a new tensor instead")
    return answer


def _hint(rule: Rule, error: Exception, w: Tensor) -> str:
    if isinstance(error, NotImplementedError):
        return "a coupled rule needs a method `gradient`"
    if "NoneType" in str(error) and not rule.needs_update:
        return "set needs_update = True to be given step.update"
    if rule.elementwise and w.ndim == 1:
        return "weights come flat unless elementwise = False"
    return ""


def _check_state(name: str, state: object) -> None:
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            "start has to return a dictionary of tensors", name, type(state).__name__, 'say {"key": tensor}'
        )
