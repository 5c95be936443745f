"""Rules that hold a parameter's norm. Symbols as in `decays`; ||w|| is the norm of the whole parameter."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from weightdecay.arguments import number
from weightdecay.errors import InputError
from weightdecay.rules.base import Rule, Step, Strength, is_sharded, whole

# A constrained step removes at most half of a weight; the multiplier stops there, too.
_MOST = 0.25


@dataclass(frozen=True)
class FixedNorm(Rule):
    """Training on a sphere: the norm stays what it was, and lr is the angle of a step (hyperball).

        w <- R N(w - lr_t R N(u)),   R = ||w_0||,   N(x) = x/||x||

    R is the norm when the rule is attached. It needs no strength, and does not change when u is multiplied
    by anything, as long as w - lr u is more than the rounding of w: u is the difference that the step makes,
    all other decay included, so 16-bit weights are refused. A step whose update is zero moves nothing.

    Convention: lr is the group's own; `Group(scale=)` and schedules of the strength do not apply. Memory: a
    copy of the weights.

    Source: Wen et al. 2026, arXiv 2606.16899.

    Raises:
        InputError: a parameter is zero when attached, which has no direction, or has 16 bits.

    >>> import torch
    >>> from weightdecay.rules import Step
    >>> step = Step(0.0, 0.0, lr=0.75, before=torch.tensor([2.0, 0.0]), state={"norm": torch.tensor(2.0)})
    >>> FixedNorm().decayed(torch.tensor([2.0, -5.0]), step)
    tensor([ 1.6000, -1.2000])
    """

    weight_decay: Strength = field(default=1.0, init=False, repr=False)

    after = True
    elementwise = False
    by_rows = True
    toward_zero = False
    paced = overshoots = False

    def start(self, w: Tensor, name: str) -> dict[str, Tensor]:
        """Return the norm to keep."""
        if w.dtype in (torch.bfloat16, torch.float16):
            what = "the step on 16-bit weights is rounded before its direction could be read from it"
            raise InputError(
                what, f"FixedNorm on {name}", str(w.dtype), "keep float32 weights and use autocast"
            )
        norm = norm_of(w.detach())
        if not norm > 0:
            what, remedy = "a parameter that is zero has no norm to keep", "leave it out with on="
            raise InputError(what, name, float(norm), remedy)
        return {"norm": norm}

    def decayed(self, w: Tensor, step: Step) -> Tensor:
        """Return the point of the sphere to which a step of the angle lr leads."""
        assert step.before is not None
        return self._decayed_copy(w, step)

    def decay_(self, w: Tensor, step: Step) -> None:
        """Do the same in the memory of w."""
        before, radius = step.before, step.state["norm"]
        assert before is not None
        update = torch.sub(before, w, out=w)
        length = norm_of(update, step.rows)
        pace = torch.where(length > 0, step.lr * radius / length, 0.0).to(w.dtype)
        torch.addcmul(before, update, pace, value=-1, out=w)
        norm = norm_of(w, step.rows)
        w.mul_(torch.where(norm > 0, radius / norm, 1.0).to(w.dtype))


@dataclass(frozen=True)
class Constrained(Rule):
    """A bound on the norm instead of a strength: decay that finds how strong it has to be (CPR).

        l <- max(0, l + mu (||w||²/bound - 1));   w <- w - 2 l w - lr_t u

    While ||w||² <= bound and l is 0, this is the optimizer alone. Where it rests, ||w||² is the bound and
    l says what a penalty would have to be: with SGD, λ = 2 l/lr is the ridge λ whose solution has that norm.

    Args:
        bound: of ||w||², for each parameter; "start" for what it is when the rule is attached.
        mu: how fast l follows the violation, a number above 0; l and the norm swing with a period of about
            3/sqrt(mu) steps while they settle.

    Convention: one parameter, one bound, one multiplier l, which starts at 0 and is kept with the state. The
    norm is that of the weights of which the gradient was taken, and 2 l of these is removed; published code
    takes both from the weights after the step. A step removes at most half of a weight. `Group(scale=)` and
    schedules of the strength do not apply.

    Source: Franke et al. 2024, arXiv 2311.09058; the bound is relative, since mu would carry units.

    Raises:
        InputError: bound or mu is not above 0; a parameter is zero and the bound is its start.

    >>> import torch
    >>> from weightdecay.rules import Step
    >>> rule = Constrained(bound=1.0, mu=0.125)
    >>> w = torch.tensor([1.0, 1.0])
    >>> rule.decayed(w, Step(0.0, 0.0, state=rule.start(w, "w")))
    tensor([0.7500, 0.7500])
    """

    weight_decay: Strength = field(default=1.0, init=False, repr=False)

    elementwise = False
    by_rows = True
    toward_zero = False
    paced = overshoots = False

    bound: float | Literal["start"] = field(default="start", kw_only=True)
    mu: float = field(default=0.01, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bound != "start":
            number(self.bound, "bound", above=0)
        number(self.mu, "mu", above=0)

    def start(self, w: Tensor, name: str) -> dict[str, Tensor]:
        """Return a multiplier of 0, and the bound."""
        now = norm_of(w.detach()).square()
        bound = now if self.bound == "start" else torch.full_like(now, self.bound)
        if not bound > 0:
            what, remedy = "a parameter that is zero bounds itself to zero", "give bound=, or leave it out"
            raise InputError(what, name, float(bound), remedy)
        return {"multiplier": torch.zeros_like(now), "bound": bound}

    def decayed(self, w: Tensor, step: Step) -> Tensor:
        """Return w (1 - 2 l), with the l that is due."""
        return w * (1 - 2 * self._multiplier(w, step)).to(w.dtype)

    def decay_(self, w: Tensor, step: Step) -> None:
        """Do the same in place, and keep l."""
        step.state["multiplier"].copy_(self._multiplier(w, step))
        w.mul_((1 - 2 * step.state["multiplier"]).to(w.dtype))

    def _multiplier(self, w: Tensor, step: Step) -> Tensor:
        violation = norm_of(w, step.rows).square() / step.state["bound"] - 1
        return (step.state["multiplier"] + self.mu * violation).clamp(0, _MOST)


def norm_of(w: Tensor, rows: bool = False) -> Tensor:
    """||w||, in float32 or wider; of all shards where w is sharded; or of each row, as a column."""
    if rows:
        return torch.linalg.vector_norm(w, dim=1, keepdim=True)
    if w.dtype in (torch.float32, torch.float64) and w.is_contiguous() and not is_sharded(w):
        return torch.dot(w.view(-1), w.view(-1)).sqrt()  # three times as fast
    wide = torch.promote_types(w.real.dtype if w.is_complex() else w.dtype, torch.float32)
    return whole(torch.linalg.vector_norm(w, dtype=torch.promote_types(w.dtype, wide)))
