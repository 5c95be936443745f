"""Decay of weights too narrow for it: computed wide, rounded at random, so that it happens on average."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, optim

from weightdecay.arguments import count
from weightdecay.errors import InputError
from weightdecay.hooks.plan import Plan, plain
from weightdecay.rules import Rule, Step
from weightdecay.rules.base import seen, shard_of

# What a weight is widened to, piece by piece, and the integers of its size.
_WIDE = {
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}
_BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


@dataclass(frozen=True)
class Happened:
    """What the decay was to remove, and what it removed, summed over weights and steps.

    Args:
        intended: the sum of <w, w − w'>, w' the decayed weights before they are rounded.
        happened: the same with the weights as they are stored.
    """

    intended: float
    happened: float

    @property
    def ratio(self) -> float:
        """What happened of it; NaN before the first step."""
        return self.happened / self.intended if self.intended else float("nan")


class Rounding:
    """Stochastic rounding with random numbers of its own.

        w <- the number below x with probability (above − x)/(above − below), else the one above;   E[w] = x

    What is drawn depends on the seed, the step, the shard and how many parameters came before, and on
    nothing else: it goes on the same after a restart, and copies of one shard stay the same.

    Args:
        seed: of the random numbers.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._step = self._drawn = 0
        self._generator: torch.Generator | None = None
        self._sums: dict[str, Tensor] = {}  # intended and happened, on each device

    def at(self, step: int) -> None:
        """A step begins."""
        self._step, self._drawn = step, 0

    def begin(self, w: Tensor) -> None:
        """A parameter begins, in the order that the ranks have in common."""
        text = f"{self.seed} {self._step} {self._drawn} {shard_of(w)}"
        own = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")
        self._generator = torch.Generator(seen(w).device).manual_seed(own)
        self._drawn += 1

    def applies(self, w: Tensor) -> bool:
        """Whether there is something wider; float64 is rounded to the nearest."""
        return w.dtype in _WIDE

    def wide(self, w: Tensor) -> Tensor:
        """A wide copy."""
        return w.to(_WIDE[w.dtype])

    def decay_(self, rule: Rule, w: Tensor, step: Step) -> None:
        """Decay by a rule as if the weight, the update and the rule's state were wide."""
        wide = self.wide(w)
        before = wide.clone()
        widened = self.widened(step, wide.dtype)
        rule.decay_(wide, widened)
        self.store(wide, w, before)
        self.keep(widened, step)

    def widened(self, step: Step, dtype: torch.dtype) -> Step:
        """The step with wide tensors."""
        tensors = {"update": step.update, "before": step.before, "partner": step.partner}
        wide: dict[str, Any] = {k: v.to(dtype) for k, v in tensors.items() if v is not None}
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in step.state.items()}
        return replace(step, **wide, state=state)

    def keep(self, widened: Step, step: Step) -> None:
        """Bring the state up to date from its wide copy."""
        for key, value in step.state.items():
            if widened.state[key] is not value:
                self.round_(widened.state[key], value) if self.applies(value) else value.copy_(
                    widened.state[key]
                )

    def store(self, wide: Tensor, w: Tensor, before: Tensor) -> None:
        """Write the weights, rounded at random, and what was intended and what happened to the account."""
        wide, w, before = seen(wide), seen(w), seen(before)
        intended = torch.dot(before.flatten(), (before - wide).flatten()).double()
        self.round_(wide, w)
        happened = torch.dot(before.flatten(), (before - w).flatten()).double()
        sums = self._sums.setdefault(str(w.device), torch.zeros(2, dtype=torch.float64, device=w.device))
        sums += torch.stack([intended, happened])

    def round_(self, wide: Tensor, out: Tensor) -> None:
        """Write `wide` to `out`, rounded at random; what is not finite stays as it is."""
        wide, out = seen(wide), seen(out)
        if out.dtype == torch.bfloat16:
            self._cut_(wide, out)
            return
        near = wide.to(out.dtype)
        error = wide - near
        # As integers, neighbours of floating-point numbers are one apart; plus one is away from zero.
        away = (error > 0) != near.signbit()
        other = (near.view(_BITS[out.dtype]) + (2 * away.to(_BITS[out.dtype]) - 1)).view(out.dtype)
        share = error / (other.to(wide.dtype) - near)
        drawn = torch.rand(wide.shape, dtype=wide.dtype, device=wide.device, generator=self._generator)
        out.copy_(torch.where(drawn < share, other, near))

    def _cut_(self, wide: Tensor, out: Tensor) -> None:
        """The same from float32 to bfloat16, which is its upper half: add 16 random bits and cut them off.

        The carry comes with exactly the probability that the lower half says, at a fifth of the cost.
        """
        numel = wide.numel()
        # 64 random bits at a time are four times as fast as 16.
        drawn = torch.empty(-(-numel // 4), dtype=torch.int64, device=wide.device)
        drawn.random_(-(2**63), None, generator=self._generator)
        bits = drawn.view(torch.int16)[:numel].view(wide.shape).to(torch.int32).bitwise_and_(0xFFFF)
        moved = bits.add_(wide.view(torch.int32)).bitwise_and_(-0x10000).view(torch.float32)
        out.copy_(torch.where(wide.isnan(), wide, moved))

    def happened(self) -> Happened:
        """The account so far."""
        both = [sums.tolist() for sums in self._sums.values()]
        return Happened(sum(one[0] for one in both), sum(one[1] for one in both))

    def state(self) -> list[float]:
        """The account, for a checkpoint; the random numbers follow from the count of steps."""
        account = self.happened()
        return [account.intended, account.happened]

    def load(self, saved: Any) -> None:
        """Take over what `state` gave.

        Raises:
            InputError: it is no such state.
        """
        floats = isinstance(saved, list) and all(isinstance(value, float) for value in saved)
        if not (floats and len(saved) == 2):
            what, remedy = "not the state of a rounding", "give Decay.state_dict()"
            raise InputError(what, "rounding", type(saved).__name__, remedy)
        self._sums = {"cpu": torch.tensor(saved, dtype=torch.float64)}


def one_step(
    optimizer: optim.Optimizer, rules: tuple[Rule, ...], plan: Plan, step: int, factor: float
) -> Happened:
    """What one step's decay is to remove and what it removes where weights are rounded to the nearest.

    Raises:
        InputError: a rule does something else than to multiply every weight by 1 - rate.
    """
    intended = happened = 0.0
    for r, rule in enumerate(rules):
        if rule.coupled or rule.needs_update or not (rule.paced and rule.toward_zero):
            remedy = 'attach with rounding="stochastic" where the rule allows it, or use wd.Monitor'
            raise InputError("nothing is counted", "rounding", f"nearest, {type(rule).__name__}", remedy)
        for i, targets in enumerate(plan.targets):
            for target in targets:
                strength, lr = plan.strength(r, i), plain(optimizer.param_groups[i]["lr"])
                at = plain(strength.at(step)) * factor * target.scale
                rate, w = plain(strength.rate(at, lr)), seen(target.parameter)
                after, size = w.clone(), w.double().square().sum().item()
                rule.decay_(after, Step(rate, at, lr=lr))
                intended += rate * size
                happened += (w.double() * (w.double() - after.double())).sum().item()
    return Happened(intended, happened)


def make_rounding(rounding: str, seed: int, rules: tuple[Rule, ...], compiled: bool) -> Rounding:
    """Return the rounding at random that `rounding="stochastic"` asks for.

    Raises:
        InputError: no such rounding; a rule or a kernel that it does not go with; a seed that is none.
    """
    if rounding != "stochastic":
        raise InputError("no such rounding", "rounding", repr(rounding), "use nearest or stochastic")
    for rule in rules:
        if rule.coupled:
            what = "the penalty is part of the gradient, and the optimizer rounds what it makes of it"
            raise InputError(what, "rounding", f"stochastic, {type(rule).__name__}", "use wd.Decoupled")
        if rule.after and not rule.has_strength:
            what, remedy = "a norm that is set anew loses nothing to rounding", "leave rounding= out"
            raise InputError(what, "rounding", f"stochastic, {type(rule).__name__}", remedy)
    if compiled:
        raise InputError("stochastic rounding is not compiled", "compile", True, "leave one of them out")
    return Rounding(count(seed, "seed", least=0))


def saved_rounding(state: Mapping[str, Any], rounding: Rounding | None) -> Any:
    """What a checkpoint has for this rounding.

    Raises:
        InputError: the checkpoint was rounded in another way.
    """
    saved = state.get("rounding")
    if (saved is None) != (rounding is None):
        there, here = ("nearest", "stochastic") if saved is None else ("stochastic", "nearest")
        remedy = f"here it is {here}: attach with rounding={there!r}, or go on without the state"
        raise InputError("the state belongs to another rounding", "state_dict", there, remedy)
    return saved
