"""What optimizers do, of torch and around it: one table, and what cannot be attached to.

`Facts` has what torch's classes do; `native_options` and `Native` set a decay that an optimizer brings along;
`direction` reads the coming update from gradient and state, `mean_second_moment` the size of all gradients;
the checks refuse an optimizer around which a rule has no meaning.
"""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch._utils import _flatten_dense_tensors
from torch.optim.lr_scheduler import LRScheduler

from weightdecay import arguments
from weightdecay.errors import InputError
from weightdecay.rules import L2, Decoupled, Rule
from weightdecay.rules.base import SMALL, SMALL_ELSEWHERE, is_sharded, laid_like, seen, total

# The option of a parameter group with which Adam and its kin choose between coupled and decoupled decay.
FLAG = "decoupled_weight_decay"
# What a rule calls its native form, and the options that switch it on.
_COUPLED, _DECOUPLED = {"coupled": {}}, {"decoupled": {}}
_EITHER = {"coupled": {FLAG: False}, "decoupled": {FLAG: True}}


@dataclass(frozen=True)
class Facts:
    """What a class of torch's optimizers does.

    Args:
        form: of its own decay: "coupled" (added to the gradient, removes a known fraction),
            "sign-normalised" (added to a gradient that is divided by its own size), "decoupled" (removes lr·λ
            of the weight); None where it has no decay.
        native: the rules' forms that it brings along, each with the options beside `weight_decay`.
        flag: for those that have the option `FLAG`, its value where a group lacks it; else None.
        adaptive: it divides the gradient by a running size, so that coupled decay has no rate.
        readable: gradient and state tell the direction of the coming update: see `direction`.
        second_moment: it keeps v, the average of squared gradients.
        fused: it has a fused kernel that does the same arithmetic in one pass over memory.
        sparse: it takes sparse gradients.
    """

    form: str | None = None
    native: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    flag: bool | None = None
    adaptive: bool = False
    readable: bool = False
    second_moment: bool = False
    fused: bool = False
    sparse: bool = False


_UNKNOWN = Facts()
_TABLE: dict[type, Facts] = {
    optim.SGD: Facts("coupled", _COUPLED, readable=True, fused=True, sparse=True),
    optim.ASGD: Facts("coupled", _COUPLED),
    optim.Adam: Facts(
        "sign-normalised", _EITHER, False, adaptive=True, readable=True, second_moment=True, fused=True
    ),
    optim.AdamW: Facts(
        "sign-normalised", _DECOUPLED, True, adaptive=True, readable=True, second_moment=True, fused=True
    ),
    optim.NAdam: Facts("sign-normalised", _EITHER, False, adaptive=True, second_moment=True),
    optim.RAdam: Facts("sign-normalised", _EITHER, False, adaptive=True, second_moment=True),
    optim.Adagrad: Facts("sign-normalised", _COUPLED, adaptive=True, fused=True, sparse=True),
    optim.RMSprop: Facts("sign-normalised", _COUPLED, adaptive=True),
    optim.Adadelta: Facts("sign-normalised", _COUPLED, adaptive=True),
    optim.Adamax: Facts("sign-normalised", _COUPLED, adaptive=True),
    optim.Adafactor: Facts("decoupled", _DECOUPLED, adaptive=True),
    optim.Muon: Facts("decoupled", _DECOUPLED, adaptive=True),
    optim.Rprop: Facts(adaptive=True),
    optim.SparseAdam: Facts(adaptive=True, sparse=True),
}
# What a copy of an optimizer does not get: hooks, which are the original's and would run in the copy's steps.
HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)
# Nor what schedulers, attached rules and torch itself set on the instance; the class has its own.
WRAPPED = (
    *("step", "zero_grad", "profile_hook_step", "_warned_capturable_if_run_uncaptured"),
    *("__reduce_ex__", "first_step", "second_step"),
)
_SCHEDULE_FREE = ("AdamWScheduleFree", "RAdamScheduleFree")
_PLAIN_RULES = tuple((kind.factor, kind.decayed, kind.decay_, kind.gradient) for kind in (Rule, L2))


def facts(optimizer: optim.Optimizer, *, inherited: bool = False) -> Facts:
    """Return what is known of an optimizer's class; nothing is known of others than torch's.

    Args:
        optimizer: the optimizer.
        inherited: count the class that it is derived from, too, which may have another step.
    """
    for kind in type(optimizer).__mro__:
        if kind in _TABLE or not inherited:
            return _TABLE.get(kind, _UNKNOWN)
    return _UNKNOWN


def form_of(optimizer: optim.Optimizer, group: Mapping[str, Any], *, inherited: bool = False) -> str | None:
    """Return the form of an optimizer's own decay in a parameter group, as in `Facts`; None: not known."""
    known = facts(optimizer, inherited=inherited)
    decoupled = known.flag is not None and group.get(FLAG, known.flag)
    return "decoupled" if decoupled else known.form


def is_torchs(optimizer: optim.Optimizer) -> bool:
    """Return whether an optimizer is of one of torch's own classes, with the class's `step`."""
    return type(optimizer).__module__.startswith("torch.") and has_own_step(optimizer)


def is_schedule_free(optimizer: optim.Optimizer) -> bool:
    """Return whether the weights an optimizer holds are a blend of two sequences."""
    return type(optimizer).__module__.startswith("schedulefree")


def has_own_step(optimizer: optim.Optimizer) -> bool:
    """Return whether `step` is the class's: on an instance, schedulers wrap it and call that."""
    step = vars(optimizer).get("step")
    return step is None or hasattr(step, "_wrapped_by_lr_sched")


def is_adaptive(optimizer: optim.Optimizer, group: Mapping[str, Any]) -> bool:
    """Return whether it divides its gradient by a running size, so that coupled decay has no rate."""
    return "betas" in group or facts(optimizer, inherited=True).adaptive


def is_readable(optimizer: optim.Optimizer) -> bool:
    """Return whether `direction` knows this optimizer."""
    return facts(optimizer).readable and has_own_step(optimizer)


def keeps_second_moment(optimizer: optim.Optimizer) -> bool:
    """Return whether the optimizer keeps v; the largest v so far (amsgrad) is another one."""
    return facts(optimizer).second_moment and not any(
        group.get("amsgrad") for group in optimizer.param_groups
    )


def momentum_of(optimizer: optim.Optimizer, group: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return momentum, dampening and nesterov of torch's SGD; None for any other optimizer."""
    if type(optimizer) is not optim.SGD:
        return None
    return {"momentum": group["momentum"], "dampening": group["dampening"], "nesterov": group["nesterov"]}


def inside(optimizer: optim.Optimizer) -> list[optim.Optimizer]:
    """Return the optimizers that one holds and drives, such as the base optimizer of sharpness-aware ones."""
    holders = [optimizer]
    for holder in holders:  # grows while it is read
        for value in vars(holder).values():
            several = isinstance(value, list | tuple) and len(value) < 100
            for held in value if several else (value,):
                if isinstance(held, optim.Optimizer) and held not in holders:
                    holders.append(held)
    return holders[1:]


def native_options(optimizer: optim.Optimizer, rule: Rule) -> Mapping[str, Any] | None:
    """Return the options beside `weight_decay` with which it does the rule itself; None if it cannot.

    >>> import torch
    >>> from weightdecay.rules import L2, Decoupled
    >>> adam = torch.optim.Adam([torch.zeros(1)])
    >>> native_options(adam, Decoupled(0.1))
    {'decoupled_weight_decay': True}
    >>> native_options(torch.optim.SGD([torch.zeros(1)]), Decoupled(0.1)) is None
    True
    """
    kind = type(rule)
    if rule.native is None or (kind.factor, kind.decayed, kind.decay_, kind.gradient) not in _PLAIN_RULES:
        return None  # a subclass does something else
    if not has_own_step(optimizer):
        return None  # what was put in its place may not know the option
    # Their decay follows a learning rate of their own, so only the plain rule is theirs.
    if is_schedule_free(optimizer):
        return {} if type(optimizer).__name__ in _SCHEDULE_FREE and kind is Decoupled else None
    return facts(optimizer).native.get(rule.native)


class Native:
    """The options of an optimizer that were set for it, and what they were before."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._before: dict[int, dict[str, Any]] = {}
        self._last: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}  # the groups, and what was set

    def set(self, group: int, options: Mapping[str, Any]) -> None:
        """Set options of a parameter group; by position, since loading a state makes new groups."""
        own = self._optimizer.param_groups[group]
        if group not in self._before:
            self._before[group] = {key: own[key] for key in options}
        own.update(options)
        self._last[group] = own, dict(options)

    def check(self) -> None:
        """Refuse an option that somebody has set since, other than by loading a state.

        Raises:
            InputError: the value would be lost: a rule sets it at every step.
        """
        for i, (group, options) in self._last.items():
            if i >= len(self._optimizer.param_groups) or group is not self._optimizer.param_groups[i]:
                continue
            for key, value in options.items():
                if group.get(key) is not value and group.get(key) != value:
                    raise InputError(
                        "the attached rule sets this option, and another value was assigned",
                        f"{key} of parameter group {i}",
                        group.get(key),
                        "use wd.WeightDecayScheduler or the decay's `factor`, or detach it",
                    )

    def put_back(self, keep: Container[int] = ()) -> None:
        """Put back what was before, except in the groups to keep."""
        for group in list(self._before):
            if group not in keep:
                self._optimizer.param_groups[group].update(self._before.pop(group))
                self._last.pop(group, None)

    def without(self, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Copies of parameter groups, with what was before."""
        return [{**group, **self._before.get(i, {})} for i, group in enumerate(groups)]


@dataclass(frozen=True)
class Direction:
    """u of some parameters up to a positive factor: gradient and momentum, added with weights.

    Args:
        tensors: what is read of each, element by element: the gradient g, and after the first step the
            running average m before the coming one.
        shares: what g counts alone, and beside m; sign included.
    """

    tensors: Sequence[tuple[Tensor, ...]]
    shares: tuple[float, float]

    def into(self, out: Tensor, read: Sequence[Tensor]) -> Tensor:
        """Write u for one piece of the tensors into `out`."""
        if len(read) == 1:
            return torch.mul(read[0], self.shares[0], out=out)
        return torch.add(read[1], read[0], alpha=self.shares[1], out=out)


def direction(
    optimizer: optim.Optimizer, group: Mapping[str, Any], parameters: Sequence[Tensor]
) -> Direction:
    """The direction in which the coming step moves parameters, taken from their gradients and state.

    Adam divides by something positive, so the sign of its update is that of its new average
    b1 m + (1 - b1) g; SGD's is mu m + (1 - d) g, with Nesterov g + mu (mu m + (1 - d) g).
    """
    # A fused optimizer under a gradient scaler undoes the scale itself, inside the step.
    scale = getattr(optimizer, "grad_scale", None)
    sign = (-1.0 if group.get("maximize") else 1.0) / (1.0 if scale is None else float(scale))
    if type(optimizer) is optim.SGD:
        key, mu = "momentum_buffer", float(group["momentum"])
        keep, new = mu, 1 - float(group["dampening"])
        if group["nesterov"]:
            keep, new = mu * mu, 1 + mu * new
    else:
        key, keep = "exp_avg", float(group["betas"][0])
        new = 1 - keep
    states: Mapping[Tensor, Mapping[str, Any]] = optimizer.state if keep else {}
    tensors: list[tuple[Tensor, ...]] = []
    for w in parameters:
        gradient, state = w.grad, states.get(w)
        assert gradient is not None
        if type(w) is not nn.Parameter:  # a plain one has a plain gradient
            gradient = laid_like(gradient, w)
        buffer = None if state is None else state.get(key)
        tensors.append((gradient,) if buffer is None else (gradient, buffer))
    return Direction(tensors, (sign, sign * new / keep if keep else math.nan))


def mean_second_moment(optimizer: optim.Optimizer) -> float:
    """The mean of v over all parameters with a gradient, as the coming step makes it; 0 without any.

        v_t = b2 v_{t-1} + (1 - b2) g²,   over 1 - b2^t

    Sums over shards are added, so the layout of the parameters does not change it.
    """
    scale = getattr(optimizer, "grad_scale", None)  # fused optimizers divide by it inside the step
    unscaled = 1.0 if scale is None else float(scale) ** 2
    # Distributed in the same way, one sum over ranks each: a parameter, and what is read of all.
    alike: dict[Any, tuple[Tensor, list[_Moments]]] = {}
    count = 0
    for group in optimizer.param_groups:
        b2 = float(group["betas"][1])
        for w in group["params"]:
            if (gradient := w.grad) is None:
                continue
            state = optimizer.state.get(w, {})
            v, steps, layout = state.get("exp_avg_sq"), state.get("step", 0.0), w.device
            count += w.numel() * (2 if w.is_complex() else 1)
            if type(w) is not nn.Parameter or w.is_complex():  # the others have plain tensors
                gradient, v = seen(laid_like(gradient, w)), v if v is None else seen(laid_like(v, w))
                steps = seen(steps) if isinstance(steps, Tensor) else steps
                if is_sharded(w):
                    layout = w.device_mesh, w.placements  # pyright: ignore[reportAttributeAccessIssue]
            if layout not in alike:
                alike[layout] = w, []
            alike[layout][1].append((gradient, v, steps, b2))
    if not count:
        return 0.0
    sums = [total(_sum(moments, unscaled), w) for w, moments in alike.values()]
    return sum(map(float, sums)) / count


# A gradient and the average of its squares so far, the steps taken, and b2.
_Moments = tuple[Tensor, Tensor | None, float | Tensor, float]


def _sum(moments: Sequence[_Moments], unscaled: float) -> Tensor:
    """The sum of v over what is here of some parameters, in float32 or wider; small ones go together."""
    taken = [steps for _, _, steps, _ in moments]
    if tensors := [steps for steps in taken if isinstance(steps, Tensor)]:  # one wait for all of them
        numbers = iter(torch.stack(tensors).tolist())
        taken = [next(numbers) if isinstance(steps, Tensor) else steps for steps in taken]
    together: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
    small = SMALL if moments[0][0].device.type == "cpu" else SMALL_ELSEWHERE
    for i, ((gradient, v, _, b2), steps) in enumerate(zip(moments, taken, strict=True)):
        gradients, averages = together.setdefault(
            (b2, steps, -1 if gradient.numel() < small else i), ([], [])
        )
        gradients.append(gradient)
        if v is not None:
            averages.append(v)
    sums: list[Tensor] = []
    shares: list[float] = []
    for (b2, steps, _), (gradients, averages) in together.items():
        corrected = 1 - b2 ** (steps + 1)
        flat = _widened(gradients)
        sums.append(torch.dot(flat, flat).double())  # several times as fast as a norm
        shares.append((1 - b2) / corrected / unscaled)
        if averages:
            sums.append(_widened(averages).sum().double())  # v is positive
            shares.append(b2 / corrected)
    return torch.stack(sums) @ torch.tensor(shares, dtype=torch.float64, device=sums[0].device)


def _widened(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors end to end, in float32 or wider."""
    flat = _flatten_dense_tensors(tensors)
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def check_second_moment(size: float, rate: float | Tensor, name: str, step: int) -> None:
    """Refuse a step that removes a whole weight.

    Raises:
        InputError: gradients are so small that the rate is 1 or more.
    """
    removed = float(rate) / size**0.5 if size > 0 else 0.0
    if removed >= 1:
        raise InputError(
            "a step would remove the whole weight or more",
            f"lr·weight_decay/sqrt(mean of v) of {name}",
            f"{removed:g} at step {step}",
            "lower lr or the strength: it is in units of a gradient",
        )


def bare_optimizer(optimizer: Any) -> Any:
    """Return the optimizer whose step runs, inside what Accelerate, Fabric, Lightning or DeepSpeed put on it.

    A wrapper has a torch optimizer as `optimizer`, and is none itself: its `__init__` never ran (so that it
    has no hooks), or it passes the inner one's hooks for its own. An optimizer that only uses another inside
    its step, such as a lookahead, has hooks of its own and stays.
    """
    for _ in range(8):  # wrappers in wrappers
        inner = getattr(optimizer, "optimizer", None) or getattr(optimizer, "_optimizer", None)
        hooks = getattr(optimizer, "_optimizer_step_pre_hooks", None)
        own = isinstance(optimizer, optim.Optimizer) and hooks is not None
        if inner is None or isinstance(optimizer, type | LRScheduler):
            break
        if isinstance(inner, type) or not isinstance(getattr(inner, "param_groups", None), list):
            break
        if own and hooks is not getattr(inner, "_optimizer_step_pre_hooks", None):
            break
        optimizer = inner
    return optimizer


def check_optimizer(optimizer: Any) -> optim.Optimizer:
    """Return the optimizer, wrappers taken off; refuse what is none of torch's kind, or has no learning rate.

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
    name, differentiable = type(optimizer).__name__, False
    for group in optimizer.param_groups:
        differentiable |= bool(group.get("differentiable"))
    coupled = sized = False
    for rule in rules:
        reason = None
        if differentiable:
            what = f"{name} with differentiable=True, whose step is part of a graph"
            reason = what, "use a rule it brings along"
        elif isinstance(optimizer, optim.LBFGS) and not rule.coupled:
            reason = (
                f"{name}, which evaluates the loss several times a step and takes curvature from the "
                "weights' moves: a decay beside the update would be taken for curvature",
                "use wd.L2, whose penalty is part of the loss",
            )
        elif is_schedule_free(optimizer) and not rule.coupled:
            reason = (
                f"{name}, whose weights are a blend of two sequences: decay from outside reaches one only",
                "use its own: wd.Decoupled with a number, on groups that wd.param_groups made; or wd.L2",
            )
        elif rule.needs_second_moment and not keeps_second_moment(optimizer):
            reason = (
                f"{name}, which keeps no average of squared gradients to compare with",
                "use torch's Adam, AdamW, NAdam or RAdam, without amsgrad",
            )
        if reason:
            raise InputError(f"{type(rule).__name__} cannot act here", "optimizer", *reason)
        coupled, sized = coupled or rule.coupled, sized or rule.needs_second_moment
    if coupled and sized:
        what = "a penalty in the gradient would change the size that the other rule compares with"
        raise InputError(what, "rule", " and ".join(type(rule).__name__ for rule in rules), "use one of them")


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
