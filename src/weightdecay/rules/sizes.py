"""Rules whose strength depends on a size: of the weight, or of all gradients. Symbols as in `decays`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from weightdecay.arguments import number
from weightdecay.rules.base import Rule, Step


@dataclass(frozen=True)
class Huber(Rule):
    """Decay of small weights by a fraction, of large ones by a constant amount.

        w <- w - lr_t wd clip(w, -delta, delta) - lr_t u

    Args:
        weight_decay: wd.
        delta: from this size on a weight is pulled no harder; above 0, infinite is `Decoupled`.

    Convention: times lr. It is the gradient of the Huber function, quadratic within delta, linear outside.

    Source: Guo & Fan 2025, arXiv 2511.14721.

    Raises:
        InputError: delta is not above 0.

    >>> import torch
    >>> from weightdecay.rules import Step
    >>> Huber(0.5, delta=1.0).decayed(torch.tensor([0.5, 4.0]), Step(rate=0.5, weight_decay=0.5))
    tensor([0.2500, 3.5000])
    """

    paced = False  # beyond delta a smaller fraction goes

    delta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number(self.delta, "delta", above=0, infinite=True)

    def decayed(self, w: Tensor, step: Step) -> Tensor:
        """Return w - rate clip(w, ±delta)."""
        return self._decayed_copy(w, step)

    def decay_(self, w: Tensor, step: Step) -> None:
        """Do the same in place."""
        pull = w.clamp(-self.delta, self.delta)
        if isinstance(step.rate, Tensor):
            w.sub_(pull.mul_(step.rate))
        else:
            w.sub_(pull, alpha=step.rate)  # one pass less


@dataclass(frozen=True)
class PNorm(Rule):
    """The penalty (wd/p)·sum |w|^p, decoupled and implicit: p < 2 makes weights sparse.

        w <- (w - lr_t u) / (1 + lr_t wd |w|^(p-2))

    On the right w is the weight before the step. The division cannot overshoot, so any strength is allowed;
    at p = 2 it is 1/(1 + lr wd), which is not AdamW's 1 - lr wd. A weight of exactly 0 stays 0 where p < 2:
    do not use it on what is initialised with zeros. In a chain, u has the other rules' decay in it.

    Args:
        weight_decay: wd.
        p: the norm's exponent, above 0.

    Convention: times lr; the derivative of |w|^p/p, so that p = 2 is the one half of `Decoupled`. Memory: a
    copy of the weights.

    Source: Outmezguine & Levi 2024, arXiv 2404.10824.

    Raises:
        InputError: p is not a number above 0.

    >>> import torch
    >>> from weightdecay.rules import Step
    >>> w = torch.tensor([4.0, 0.25])
    >>> PNorm(1.0, p=1.0).decayed(w, Step(rate=1.0, weight_decay=1.0, before=w))
    tensor([3.2000, 0.0500])
    """

    after = True
    toward_zero = False
    paced = overshoots = False

    p: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number(self.p, "p", above=0)

    def decayed(self, w: Tensor, step: Step) -> Tensor:
        """Return w / (1 + rate |before|^(p-2))."""
        return self._decayed_copy(w, step)

    def decay_(self, w: Tensor, step: Step) -> None:
        """Do the same in place."""
        assert step.before is not None
        size = step.before.abs()
        size = size.to(torch.promote_types(size.dtype, torch.float32))  # a small rate is nothing in 16 bits
        rate = step.rate
        if size.device.type == "cpu" and not isinstance(rate, Tensor):  # one pass instead of two
            rate = torch.scalar_tensor(rate, dtype=size.dtype, device="cpu")
        if self.p >= 2:
            w.div_(size.pow_(self.p - 2).mul_(rate).add_(1))
            return
        size = size if self.p == 1 else size.pow_(2 - self.p)
        ratio = torch.div(rate, size, out=size) if isinstance(rate, Tensor) else size.reciprocal_().mul_(rate)
        if isinstance(step.rate, Tensor) or step.rate == 0:
            ratio.nan_to_num_(nan=0.0, posinf=torch.inf)  # 0/0, a weight of 0 under no decay, stays
        w.div_(ratio.add_(1))


@dataclass(frozen=True)
class Stable(Rule):
    """Decay relative to the size of all gradients: AdamS.

        w <- w - lr_t wd w / sqrt(mean(v)) - lr_t u

    v is Adam's average of squared gradients, corrected for its short beginning, and the mean goes over all
    parameters of the optimizer that have a gradient. Gradients c times as large decay 1/c as fast. Where all
    gradients have been zero there is no size to compare with, and nothing decays.

    Args:
        weight_decay: wd, in units of a gradient.

    Convention: times lr. Only on torch's Adam, AdamW, NAdam and RAdam, which keep v. On a GPU each step waits
    for the mean: as gradients fade the rate grows, and a step that would remove a whole weight is an error.

    Source: Xie et al. 2023, arXiv 2011.11152.

    >>> import torch
    >>> from weightdecay.rules import Step
    >>> step = Step(rate=0.25, weight_decay=0.5, second_moment=4.0)
    >>> Stable(0.5).decayed(torch.tensor([8.0]), step)
    tensor([7.])
    """

    needs_second_moment = True
    paced = overshoots = False  # another rate is checked, in each step

    def factor(self, step: Step) -> float | Tensor:
        """Return 1 - rate/sqrt(mean(v))."""
        return 1 - step.rate / step.second_moment**0.5 if step.second_moment > 0 else 1.0
