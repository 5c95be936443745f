"""The decay rules. Symbols: u the optimizer's update without decay, lr_t its step size, wd the strength."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal

import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.rules.base import Rule, Step, laid_like

# What DataParallel, torch.compile and other wrappers put into the names in a state dict.
_WRAPPED = re.compile(
    r"(^|(?<=\.))(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)


@dataclass(frozen=True)
class L2(Rule):
    """The penalty wd/2 ||w||² in the loss: coupled weight decay.

        g <- g + wd w

    Convention: one half; the optimizer treats the sum as its gradient, so lr, momentum and an adaptive
    denominator act on the penalty, too. In Adam and its kin it therefore has no decay rate: use `Decoupled`.

    Source: Hoerl & Kennard 1970; torch.optim.SGD(weight_decay=...), bit for bit.

    >>> import torch
    >>> from weightdecay.rules import Step
    >>> g, w = torch.tensor([1.0, 0.0]), torch.tensor([2.0, -4.0])
    >>> L2(0.5).gradient(g, w, Step(rate=0.0, weight_decay=0.5))
    tensor([ 2., -2.])
    """

    native = "coupled"
    coupled = True

    def decayed(self, w: Tensor, step: Step) -> Tensor:
        """Return a copy of w: nothing but the gradient changes."""
        del step
        return w.clone()

    def gradient(self, g: Tensor, w: Tensor, step: Step, out: Tensor | None = None) -> Tensor:
        """Return g + wd w."""
        if isinstance(step.weight_decay, Tensor):
            return torch.add(g, step.weight_decay * w, out=out)
        return torch.add(g, w, alpha=step.weight_decay, out=out)

    def penalty(self, w: Tensor, step: Step) -> Tensor:
        """Return wd/2 ||w||²."""
        return step.weight_decay * w.square().sum() / 2


@dataclass(frozen=True)
class Decoupled(Rule):
    """Decay beside the update, as in AdamW.

        w <- (1 - lr_t wd) w - lr_t u

    Convention: times lr, so the fraction removed follows the learning rate's schedule.

    Source: Loshchilov & Hutter 2017, arXiv 1711.05101; torch.optim.AdamW, bit for bit.

    >>> import torch
    >>> from weightdecay.rules import Step
    >>> Decoupled(0.5).decayed(torch.tensor([2.0, -4.0]), Step(rate=0.25, weight_decay=0.5))
    tensor([ 1.5000, -3.0000])
    """

    native = "decoupled"

    @property
    def composes(self) -> bool:
        """Yes: factors multiply; unless a subclass does something else."""
        return self.plain


@dataclass(frozen=True)
class Independent(Decoupled):
    """Decay whose strength does not depend on the peak learning rate.

        w <- (1 - lr_t/lr_max wd) w - lr_t u

    Args:
        weight_decay: wd, the fraction removed by a step at peak lr (lr_max times AdamW's value).
        lr_max: the peak learning rate: a number, or one for each parameter group of the optimizer; left
            out, the maximum over the schedule given to `attach`.

    Convention: times lr/lr_max; a schedule still shapes it, its height does not.

    Source: the convention of Loshchilov & Hutter 2017, arXiv 1711.05101, algorithm 2.

    >>> rule = Independent(1e-4, lr_max=1e-3)
    >>> rule.law, rule.lr_max
    ('lr_relative', 0.001)
    """

    lr_max: float | Sequence[float] | None = None

    law = "lr_relative"


@dataclass(frozen=True)
class Corrected(Decoupled):
    """Decay that keeps normalised layers level under a schedule (AdamC).

        w <- (1 - lr_t²/lr_max wd) w - lr_t u

    Meant for the weights of layers followed by a normalisation: `on=wd.Group(before_norm=True)`.

    Args:
        weight_decay: wd, AdamW's value at peak lr.
        lr_max: the peak learning rate: a number, or one for each parameter group of the optimizer; left
            out, the maximum over the schedule given to `attach`.

    Convention: times lr²/lr_max; at constant lr it is `Decoupled`.

    Source: Defazio 2025, arXiv 2506.02285.

    >>> Corrected(0.1, lr_max=1e-3).law
    'lr_squared'
    """

    lr_max: float | Sequence[float] | None = None

    law = "lr_squared"


@dataclass(frozen=True)
class Cautious(Rule):
    """Decay only where the update moves a weight toward zero, too.

        w <- w - lr_t (u + wd 1[u∘w >= 0]∘w)

    Ties (u = 0 or w = 0) count as agreement, as in the paper; some published code has > 0.

    Convention: times lr. Where u cannot be read from the optimizer's state before the step, it is the
    difference that the step makes, and a copy of w is kept for the length of the step.

    Source: Chen et al. 2025, arXiv 2510.12402.

    >>> import torch
    >>> from weightdecay.rules import Step
    >>> step = Step(rate=0.25, weight_decay=0.5, update=torch.tensor([1.0, -1.0, 0.0]))
    >>> Cautious(0.5).decayed(torch.tensor([4.0, 4.0, 4.0]), step)
    tensor([3., 4., 3.])
    """

    needs_update = True

    def decayed(self, w: Tensor, step: Step) -> Tensor:
        """Return w (1 - rate) where u∘w >= 0, else w."""
        assert step.update is not None
        return torch.where(step.update * w >= 0, w * (1 - step.rate), w)

    def decay_(self, w: Tensor, step: Step) -> None:
        """Do it in two passes over w and the update, without new memory."""
        if step.update is None or isinstance(step.rate, Tensor):
            w.copy_(self.decayed(w, step))
            return
        # The derivative of a leaky ReLU is the one kernel that keeps w where its argument is positive and
        # multiplies by the slope elsewhere, zero included: three times faster than `where` on a CPU.
        against = torch.addcmul(w.new_zeros(()), step.update, w, value=-1, out=step.update)
        torch.ops.aten.leaky_relu_backward.grad_input(w, against, 1 - step.rate, False, grad_input=w)


@dataclass(frozen=True)
class Toward(Rule):
    """Decay toward a point instead of zero: L2-SP, decoupled.

        w <- w - lr_t wd (w - w_0) - lr_t u

    Args:
        weight_decay: wd.
        to: w_0: "start", the weights when the rule is attached, or a mapping from parameter name to
            tensor, say the state dict of a pretrained model.
        ema: β in (0, 1): w_0 <- β w_0 + (1 - β) w at the beginning of each step; left out, w_0 stays.

    Convention: times lr. Memory: one copy of the parameters it acts on.

    Source: Li et al. 2018, arXiv 1802.01483.

    Raises:
        InputError: `ema` is not between 0 and 1; a parameter is missing in `to` or has another shape.

    >>> import torch
    >>> from weightdecay.rules import Step
    >>> step = Step(rate=0.5, weight_decay=1.0, state={"point": torch.tensor([1.0, 0.0])})
    >>> Toward(1.0).decayed(torch.tensor([3.0, 3.0]), step)
    tensor([2.0000, 1.5000])
    """

    toward_zero = False

    # Tensors have no equality of one answer: rules compare without them.
    to: Literal["start"] | Mapping[str, Tensor] = field(default="start", repr=False, compare=False)
    ema: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.to != "start" and not isinstance(self.to, Mapping):
            found = repr(self.to) if isinstance(self.to, str) else type(self.to).__name__
            raise InputError(
                "no such point to decay toward",
                "to",
                found,
                'give "start", or tensors by name (a state dict)',
            )
        if self.ema is not None and not (isinstance(self.ema, Real | Tensor) and 0 < self.ema < 1):
            raise InputError("not a share of the old point", "ema", self.ema, "give a number between 0 and 1")

    @property
    def composes(self) -> bool:
        """Yes, toward a point that stays; unless a subclass does something else."""
        return (
            self.ema is None and type(self).decayed is Toward.decayed and type(self).decay_ is Toward.decay_
        )

    def start(self, w: Tensor, name: str) -> dict[str, Tensor]:
        """Return a copy of the point w_0."""
        if isinstance(self.to, str):
            return {"point": w.detach().clone()}
        point = self.to.get(name)
        if point is None:
            plain = _WRAPPED.sub("", name)
            alike = [one for key, one in self.to.items() if _WRAPPED.sub("", key) == plain]
            point = alike[0] if len(alike) == 1 else None
        if not isinstance(point, Tensor):
            found = name if point is None else f"{name}: {type(point).__name__}"
            raise InputError("no point for a parameter", "to", found, "give a tensor for every parameter")
        point = point.detach()
        if point.shape != w.shape:
            raise InputError(
                f"the point of {name} has another shape", "to", tuple(point.shape), f"give {tuple(w.shape)}"
            )
        if not point.isfinite().all():
            raise InputError("a point to decay toward is not finite", "to", name, "give finite numbers")
        return {"point": laid_like(point.to(device=w.device, dtype=w.dtype, copy=True), w)}

    def decayed(self, w: Tensor, step: Step) -> Tensor:
        """Return the point on the way from w to w_0 at the fraction rate."""
        return torch.lerp(w, step.state["point"], _weight(step.rate, w))

    def decay_(self, w: Tensor, step: Step) -> None:
        """Do the same in place; a point that follows takes its own step first."""
        point = step.state["point"]
        if self.ema is not None:
            point.lerp_(w, 1 - self.ema)
        w.lerp_(point, _weight(step.rate, w))


def _weight(rate: float | Tensor, w: Tensor) -> float | Tensor:
    """A rate that lerp takes: a tensor has to be of the weight's type."""
    return rate.to(w.dtype) if isinstance(rate, Tensor) else rate
