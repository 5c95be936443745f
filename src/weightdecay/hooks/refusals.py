"""What no rule can be attached to, and why; checked before anything is changed."""

from collections.abc import Container
from typing import Any

import torch
from torch import Tensor, optim
from torch.optim.lr_scheduler import LRScheduler

from weightdecay import arguments
from weightdecay.errors import InputError
from weightdecay.hooks.optimizers import is_schedule_free, keeps_second_moment
from weightdecay.rules import Rule
from weightdecay.rules.sharded import is_sharded

_HALF = (torch.bfloat16, torch.float16, torch.complex32)


def bare_optimizer(optimizer: Any) -> Any:
    """The optimizer whose step runs, inside what Accelerate, Fabric, Lightning or DeepSpeed put around it.

    A wrapper has a torch optimizer as `optimizer`, and is none itself: its `__init__` never ran (so that it
    has no hooks), or it passes the inner one's hooks for its own. An optimizer that only uses another inside
    its step, such as a lookahead, has hooks of its own and stays.
    """
    for _ in range(8):  # wrappers in wrappers
        inner = getattr(optimizer, "optimizer", None) or getattr(optimizer, "_optimizer", None)
        hooks = getattr(optimizer, "_optimizer_step_pre_hooks", None)
        own = isinstance(optimizer, optim.Optimizer) and hooks is not None
        if inner is None or isinstance(optimizer, type | LRScheduler) or not _holds_groups(inner):
            break
        if own and hooks is not getattr(inner, "_optimizer_step_pre_hooks", None):
            break
        optimizer = inner
    return optimizer


def _holds_groups(optimizer: Any) -> bool:
    return not isinstance(optimizer, type) and isinstance(getattr(optimizer, "param_groups", None), list)


def check_optimizer(optimizer: Any) -> optim.Optimizer:
    """The optimizer, wrappers taken off; refuse what is none of torch's kind, or has no learning rate.

    Raises:
        InputError: one of these.
    """
    optimizer = arguments.optimizer(bare_optimizer(optimizer))
    for i, group in enumerate(optimizer.param_groups):
        if not isinstance(group.get("lr"), float | int | Tensor):
            raise InputError(
                "the optimizer has no learning rate that a rule could follow",
                f"lr of parameter group {i}",
                repr(group.get("lr")),
                "give its groups an lr",
            )
    return optimizer


def check_hooks(optimizer: optim.Optimizer, rules: tuple[Rule, ...]) -> None:
    """Refuse an optimizer around whose step a rule has no meaning.

    Raises:
        InputError: see the reasons below.
    """
    for rule in rules:
        if reason := _refusal(optimizer, rule):
            raise InputError(f"{type(rule).__name__} cannot act here", "optimizer", *reason)
    if any(rule.coupled for rule in rules) and any(rule.needs_second_moment for rule in rules):
        what = "a penalty in the gradient would change the size that the other rule compares with"
        raise InputError(what, "rule", " and ".join(type(rule).__name__ for rule in rules), "use one of them")


def _refusal(optimizer: optim.Optimizer, rule: Rule) -> tuple[str, str] | None:
    """Why hooks cannot do a rule, and what to do instead; None if they can."""
    name = type(optimizer).__name__
    if any(group.get("differentiable") for group in optimizer.param_groups):
        return f"{name} with differentiable=True, whose step is part of a graph", "use a rule it brings along"
    if isinstance(optimizer, optim.LBFGS) and not rule.coupled:
        return (
            f"{name}, which evaluates the loss several times a step and takes curvature from the weights' "
            "moves: a decay beside the update would be taken for curvature",
            "use wd.L2, whose penalty is part of the loss",
        )
    if is_schedule_free(optimizer) and not rule.coupled:
        return (
            f"{name}, whose weights are a blend of two sequences: decay from outside reaches one only",
            "use its own: wd.Decoupled with a number, on groups that wd.param_groups made; or wd.L2",
        )
    if rule.needs_second_moment and not keeps_second_moment(optimizer):
        return (
            f"{name}, which keeps no average of squared gradients to compare with",
            "use torch's Adam, AdamW, NAdam or RAdam, without amsgrad",
        )
    return None


def check_native(optimizer: optim.Optimizer, leave_out: Container[int] = ()) -> None:
    """Refuse an optimizer that decays by itself, in any group but those to leave out.

    Raises:
        InputError: a group's `weight_decay` is not 0.
    """
    for i, group in enumerate(optimizer.param_groups):
        if i not in leave_out and float(group.get("weight_decay", 0) or 0) != 0:
            raise InputError(
                "the optimizer already decays; a second decay on top would add up silently",
                f"weight_decay of parameter group {i}",
                float(group["weight_decay"]),
                "give weight_decay=0 to the optimizer and to groups added later; where it came with a saved "
                "state of the optimizer, attach the rule first and load that state afterwards",
            )


def check_capture(rules: tuple[Rule, ...], by_hooks: bool) -> None:
    """Refuse to be recorded: a CUDA graph repeats kernels and runs no hook, so strengths would stand still.

    The optimizer's own decay of a constant strength is part of its kernels and may be recorded.

    Raises:
        InputError: hooks decay, or the strength follows the step or the learning rate by a law of its own.
    """
    moves = [rule for rule in rules if callable(rule.weight_decay) or rule.law != "lr"]
    if by_hooks or moves:
        raise InputError(
            "a CUDA graph would repeat this step's decay and not run the hooks of the next",
            "optimizer.step() under capture",
            " and ".join(type(rule).__name__ for rule in moves or rules),
            "capture forward and backward only, or use wd.Decoupled or wd.L2 with a number on whole groups "
            "of an optimizer that brings it along",
        )


def check_parameter(
    name: str, parameter: Tensor, at_random: bool = False, rules: tuple[Rule, ...] = ()
) -> None:
    """Refuse a parameter that decay does not work on yet.

    Raises:
        InputError: a flattened, meta or sparse parameter; one of 16 bits that is not to be rounded at
            random.
    """
    if _is_flattened(parameter):
        what, remedy = "a flattened parameter has lost its names and shapes", "shard with fully_shard (FSDP2)"
    elif parameter.device.type == "meta":
        what, remedy = "a meta tensor has no values", "materialise the model first (to_empty)"
    elif parameter.layout != torch.strided:
        what, remedy = "sparse parameters are not supported yet", "leave it out with on="
    elif parameter.dtype in _HALF and not at_random:
        what = "16-bit weights are too narrow for decay: p·(1 - rate) rounds back to p"
        remedy = 'attach with rounding="stochastic", or keep float32 weights and use autocast'
        if any(rule.coupled for rule in rules):  # it goes through the gradient, and is not rounded at random
            what = "16-bit weights are too narrow for a penalty: the optimizer rounds small steps away"
            remedy = "keep float32 weights and use autocast"
    elif not (parameter.is_floating_point() or parameter.is_complex()):
        what, remedy = "only floating point parameters can decay", "leave it out with on="
    else:
        return
    raise InputError(
        what, name, f"{str(parameter.dtype).removeprefix('torch.')} {tuple(parameter.shape)}", remedy
    )


def check_scale(name: str, scale: float, rules: tuple[Rule, ...]) -> None:
    """Refuse a scale where there is no strength to multiply.

    Raises:
        InputError: one of the rules has none.
    """
    for rule in rules:
        if scale != 1 and not rule.has_strength:
            what = f"{type(rule).__name__} has no strength that a group could scale"
            raise InputError(what, f"scale of {name}", f"{scale:g}", "give 1 or 0")


def check_whole(name: str, parameter: Tensor) -> None:
    """Refuse a sharded parameter, for who looks at whole ones.

    Raises:
        InputError: it is sharded.
    """
    if is_sharded(parameter):
        remedy = "watch a model that is not sharded, or leave the parameter out"
        raise InputError("only a shard of the parameter is here", name, tuple(parameter.shape), remedy)


def _is_flattened(parameter: Tensor) -> bool:
    """Whether older sharding (FSDP1) has laid it into one with others, or made it a view of such a one."""
    return getattr(parameter, "_is_flat_param", False) or getattr(parameter, "_fsdp_flattened", False)
