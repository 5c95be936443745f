"""Apply a rule to tensors: in place, large ones in pieces, in memory that is made once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, optim

from weightdecay.errors import InputError
from weightdecay.hooks.optimizers import direction
from weightdecay.hooks.rounding import Rounding
from weightdecay.rules import Rule, Step
from weightdecay.rules.base import laid_like, seen

# From this many elements on a compiled kernel is worth its call.
SMALL = 1 << 14
# A parameter and what the rule gets to know of this step.
Live = tuple[Tensor, Step]


class Memory:
    """What a step needs beside the parameters: made when first needed, used again in every step."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[torch.dtype, torch.device, int], Tensor] = {}
        self._copies: dict[tuple[Tensor, str], Tensor] = {}

    def piece(self, like: Tensor, slot: int = 0) -> Tensor:
        """Uninitialised memory of the shape and layout of a piece."""
        if like.device.type != "cpu" or like.numel() > PIECE or not like.is_contiguous():
            return torch.empty_like(like)
        key = like.dtype, like.device, slot
        if key not in self._pieces or self._pieces[key].numel() < like.numel():
            self._pieces[key] = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
        return self._pieces[key][: like.numel()].view_as(like)

    def whole(self, parameter: Tensor, what: str) -> Tensor:
        """Memory as large as a parameter, the same in every step."""
        kept = self._copies.get((parameter, what))
        now = parameter.shape, parameter.dtype, parameter.device  # a model may be moved or cast
        if kept is None or (kept.shape, kept.dtype, kept.device) != now:
            kept = self._copies[parameter, what] = torch.empty_like(parameter)
        return kept


class Pass:
    """One rule on one stretch of memory, compiled into one kernel if asked for.

    Args:
        rule: the rule.
        compiled: let torch.compile write the kernel.
        rounding: of the result, at random; None is to the nearest.
    """

    def __init__(self, rule: Rule, compiled: bool, rounding: Rounding | None = None) -> None:
        self._rule, self.rounding = rule, rounding
        self._kernel: Callable[..., None] | None = None
        # A kernel is told no more than these; a rule that looks at whole tensors has reductions of its own.
        fits = rule.elementwise and not (rule.coupled or rule.told_more)
        if compiled and fits and type(rule).decayed is not Rule.decayed:
            self._kernel = torch.compile(self._all_in_one, dynamic=True)
            self._try()

    def _try(self) -> None:
        """Compile once, so that a missing compiler shows before anything is changed."""
        w = torch.ones(SMALL)
        try:
            self(w, Step(0.5, 0.5, state=self._rule.start(w, "")), (w.clone(),) * self._rule.needs_update)
        except InputError:  # the rule has no state for a parameter of this name; the kernel is made later
            pass
        except Exception as error:
            raise InputError(
                "torch.compile cannot write a kernel here",
                "compile",
                str(error).strip().splitlines()[0][:150],
                "install a C++ compiler, or leave out compile=True",
            ) from error

    def __call__(self, w: Tensor, step: Step, read: Sequence[Tensor] = (), share: float = 1.0) -> None:
        """Decay w; `read` holds gradient and momentum, of which `share` of the first counts."""
        if self.rounding is not None and self.rounding.applies(w):
            self.rounding.decay_(self._rule, w, step)
            return
        if self._kernel is None or not self.fuses(w):
            self._rule.decay_(w, step)
            return
        numbers = [
            torch.as_tensor(number, dtype=torch.float64) for number in (step.rate, step.weight_decay, share)
        ]
        self._kernel(w, *numbers, list(read), dict(step.state))

    def _all_in_one(
        self,
        w: Tensor,
        rate: Tensor,
        strength: Tensor,
        share: Tensor,
        read: list[Tensor],
        state: dict[str, Tensor],
    ) -> None:
        update = None
        if read:
            update = read[0] * share if len(read) == 1 else read[1] + share * read[0]
        self._rule.decay_(w, Step(rate, strength, update, state))

    def fuses(self, w: Tensor) -> bool:
        """Whether a kernel does it, update included; calling one costs more than a small tensor does."""
        return self._kernel is not None and w.numel() >= SMALL


def decay(rule: Rule, once: Pass, live: Sequence[Live]) -> None:
    """Decay parameters by a rule that does not look at the update."""
    plain = (type(rule).decayed, type(rule).decay_) == (Rule.decayed, Rule.decay_)
    if plain and once.rounding is None:
        # A factor and nothing else: one call for the tensors that share it. (Tensors compare by identity.)
        together: dict[Any, list[Tensor]] = {}
        for w, step in live:
            together.setdefault(step.rate, []).append(seen(w))
        for rate, ws in together.items():
            torch._foreach_mul_(ws, 1 - rate)  # pyright: ignore[reportPrivateImportUsage]
        return
    for w, step in live:
        if once.rounding is not None:
            once.rounding.begin(w)
        for piece, here, _ in _cut(rule, once, w, step):
            once(piece, here)


def decay_along(
    rule: Rule,
    once: Pass,
    optimizer: optim.Optimizer,
    group: Mapping[str, Any],
    live: Sequence[Live],
    memory: Memory,
) -> None:
    """Decay by a rule that looks at the update, before the step, where the optimizer's state tells it."""
    for w, step in live:
        if once.rounding is not None:
            once.rounding.begin(w)
        update = direction(optimizer, group, w)
        for piece, here, read in _cut(rule, once, w, step, *update.tensors):
            if once.fuses(piece):
                once(piece, here, read, update.share)
            else:
                once(piece, replace(here, update=update.into(memory.piece(piece), *read)))


def decay_after(
    w: Tensor,
    before: Tensor,
    rules: Sequence[tuple[Rule, Step]],
    memory: Memory,
    rounding: Rounding | None = None,
) -> None:
    """Decay by rules that look at the update, after the step, as if it had been done before it.

    The update is the difference that the step made: w <- w + (decayed(before) - before), where a second rule
    starts from what the first left of `before`.
    """
    if rounding is not None:
        rounding.begin(w)
    flat = all(rule.elementwise for rule, _ in rules)
    if flat:
        w, before, rules = seen(w), seen(before), [(rule, _flat(step)) for rule, step in rules]
    else:
        w = w.detach()
    if rounding is not None and rounding.applies(w):
        _after_rounded(w, before, rules, rounding)
        return
    states = [state for _, step in rules for state in step.state.values()]
    cut = pieces(w, before, *states) if flat else [(w, before, *states)]
    for piece, old, *rest in cut:
        decayed = memory.piece(piece, slot=1).copy_(old)
        update = torch.sub(old, piece, out=memory.piece(piece, slot=2))
        for rule, step in rules:
            own, rest = rest[: len(step.state)], rest[len(step.state) :]
            u = memory.piece(piece).copy_(update)  # a rule may overwrite it
            state = dict(zip(step.state, own, strict=True))
            rule.decay_(decayed, replace(step, state=state, update=u))
        piece.add_(decayed.sub_(old))


def _after_rounded(w: Tensor, before: Tensor, rules: Sequence[tuple[Rule, Step]], rounding: Rounding) -> None:
    """The same, computed wide and rounded at random."""
    old, new = rounding.wide(before), rounding.wide(w)
    decayed = old.clone()
    for rule, step in rules:
        wide = rounding.widened(replace(step, update=old - new), old.dtype)
        rule.decay_(decayed, wide)
        rounding.keep(wide, step)
    rounding.store(new + (decayed - old), w, new)


def _flat(step: Step) -> Step:
    """The step with plain tensors."""
    if not step.state and step.before is None:
        return step
    before = None if step.before is None else seen(step.before)
    return replace(step, before=before, state={key: seen(value) for key, value in step.state.items()})


def _cut(
    rule: Rule, once: Pass, w: Tensor, step: Step, *read: Tensor
) -> Iterator[tuple[Tensor, Step, Sequence[Tensor]]]:
    """Stretches of a weight, the step with the same stretch of its tensors, and of what is read beside it.

    Where an element depends on itself alone, they are pieces of what is on this rank; a kernel goes over all
    of it at once.
    """
    if not rule.elementwise:
        yield w.detach(), step, read
        return
    here, reads, kept = seen(w), len(read), list(step.state)
    start = () if step.before is None else (step.before,)
    beside = map(seen, (*read, *start, *step.state.values()))
    size = here.numel() if once.fuses(here) else PIECE
    for piece, *rest in pieces(here, *beside, size=size):
        if len(rest) > reads:
            before = rest[reads] if start else None
            state = dict(zip(kept, rest[reads + len(start) :], strict=True))
            yield piece, replace(step, before=before, state=state), rest[:reads]
        else:
            yield piece, step, rest


def add_penalty(
    rule: Rule, optimizer: optim.Optimizer, group: Mapping[str, Any], live: Sequence[Live], memory: Memory
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Put the gradient with the penalty's share in place of each gradient.

    The sum has memory of its own, so that the user's gradient can be given back after the step.

    Returns:
        For each parameter: itself, the gradient that was there, the sum that is there now.
    """
    scale = getattr(optimizer, "grad_scale", None)  # fused optimizers divide by it inside the step
    sign = (-1.0 if group.get("maximize") else 1.0) * (1.0 if scale is None else float(scale))
    owned = []
    for w, step in live:
        gradient = w.grad
        assert gradient is not None
        step = replace(step, weight_decay=step.weight_decay * sign)
        out = memory.whole(w, "gradient")
        if rule.elementwise:
            here = seen(out)
            penalised = rule.gradient(seen(laid_like(gradient, w)), seen(w), _flat(step), out=here)
            if penalised is not here:  # a rule may return memory of its own
                here.copy_(penalised)
            w.grad = out
        else:
            w.grad = rule.gradient(gradient, w, step, out=out)
        owned.append((w, gradient, w.grad))
    return owned


# A million elements, 4 MB: smaller pieces are slower on two threads, which each operation wakes; larger ones
# are no faster and take more scratch memory.
PIECE = 1 << 20


def pieces(*tensors: Tensor, size: int = PIECE) -> Iterator[tuple[Tensor, ...]]:
    """The same stretch of several tensors, one stretch after another, as flat views.

    Pieces bound the memory that intermediate results take; on other devices tensors come whole.
    Tensors that cannot be viewed flat, or are not all of one shape, come whole.
    """
    first, flat = tensors[0], []
    for tensor in tensors:
        if not tensor.is_contiguous() or tensor.shape != first.shape:
            yield tuple(tensor.detach() for tensor in tensors)
            return
        flat.append(tensor.detach().view(-1))
    if first.device.type != "cpu" or first.numel() <= size:
        yield tuple(flat)
    else:
        yield from zip(*(tensor.split(size) for tensor in flat), strict=True)
