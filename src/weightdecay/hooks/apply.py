"""Apply a rule to tensors in place: small ones joined, large ones in pieces, in memory that is made once."""

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from weightdecay.errors import InputError
from weightdecay.hooks.optimizers import Direction
from weightdecay.hooks.plan import Plan, States
from weightdecay.hooks.rounding import Rounding
from weightdecay.rules import Rule, Step
from weightdecay.rules.base import SMALL, SMALL_ELSEWHERE, laid_like, seen

# A million elements, 4 MB: smaller pieces are slower on two threads, which each operation wakes; larger ones
# are no faster and take more scratch memory.
PIECE = 1 << 20
# Elsewhere large tensors come whole, and small ones are joined to so many elements.
JOINED_ELSEWHERE = 1 << 24
_SHAPE = operator.attrgetter("shape")
# A parameter and what the rule gets to know of this step.
Live = tuple[Tensor, Step]


_NOTHING = Step(0.0, 0.0)


@dataclass(frozen=True)
class Batch:
    """Parameters to which a rule does the same at a step.

    Args:
        ws: the parameters.
        names: their names.
        states: what the rule keeps for each; empty where it keeps nothing.
        partners: what it looks at beside each; empty where it has none.
        scale: times the strength.
        plain: they are neither distributed nor complex.
        joined: they are small, and the rule takes all of them as one tensor.
        step: what the rule gets to know of all of them.
        before: each weight before the step, or all joined; None where the rule does not look at it.
        memory: of what is joined, from one step to the next.
    """

    ws: list[Tensor]
    names: list[str]
    states: list[dict[str, Tensor]]
    partners: list[Tensor | None]
    scale: float
    plain: bool
    joined: bool
    step: Step = _NOTHING
    before: Sequence[Tensor] | Tensor | None = None
    memory: dict[str, "Joined"] = field(default_factory=dict)

    def some(self, chosen: Sequence[int]) -> "Batch":
        """Return the batch of some of the parameters, by position."""
        return replace(
            self,
            ws=[self.ws[i] for i in chosen],
            names=[self.names[i] for i in chosen],
            states=[self.states[i] for i in chosen] if self.states else [],
            partners=[self.partners[i] for i in chosen] if self.partners else [],
            joined=self.joined and len(chosen) > 1,
            memory={},
        )

    def place(self, rule: Rule) -> None:
        """Give what the rule keeps its place in what it is given, so that nothing is copied."""
        for key in self.states[0]:
            joined = self.together(rule, key, [state[key] for state in self.states])
            for state, view in zip(self.states, joined.views, strict=True):
                state[key] = view

    def together(self, rule: Rule, what: str, tensors: list[Tensor]) -> "Joined":
        """Return the weights, or what is kept for them, as one tensor that has their values."""
        joined = self.memory.get(what)
        if joined is None or not joined.fits(tensors):
            joined = self.memory[what] = Joined(rule, tensors)
        else:
            joined.read(tensors)
        return joined

    def each(self) -> list[Live]:
        """Return each parameter with a step of its own."""
        if not (self.states or self.partners) and self.before is None:
            return list(zip(self.ws, itertools.repeat(self.step)))
        live: list[Live] = []
        for i, w in enumerate(self.ws):
            state = self.states[i] if self.states else {}
            partner = self.partners[i] if self.partners else None
            before = None if self.before is None else self.before[i]
            step = replace(self.step, state=state, partner=partner, before=before, name=self.names[i])
            live.append((w, step))
        return live


def sort(
    rules: Sequence[Rule], plan: Plan, states: States, rounding: Rounding | None
) -> dict[tuple[int, int], list[Batch]]:
    """Return the batches of each rule and parameter group that decays by hooks."""
    sorted_: dict[tuple[int, int], list[Batch]] = {}
    for r, rule in enumerate(rules):
        keeps, partners = type(rule).start is not Rule.start, plan.partners[r]
        by_rows = rule.by_rows and not rule.coupled
        takes_joined = rounding is None and not rule.multiplies and (rule.elementwise or by_rows)
        if not rule.built_in and (keeps or partners):
            takes_joined = False  # one's own may look at the parameter's name
        for i, targets in enumerate(plan.targets):
            last: dict[Any, Batch] = {}
            length: dict[Any, int] = {}
            sorted_[r, i] = []
            for target in targets if i not in plan.native else ():
                w, state = target.parameter, states.of(target, r) if keeps else {}
                plain = type(w) is nn.Parameter and not w.is_complex()
                small, most = SMALL_ELSEWHERE, JOINED_ELSEWHERE
                if w.device.type == "cpu":
                    small, most = SMALL, PIECE
                joined = takes_joined and plain and w.is_contiguous() and w.numel() < small
                for tensor in state.values():
                    joined &= tensor.shape == w.shape or (rule.by_rows and tensor.numel() == 1)
                # Rows are padded to the longest: of one binary order, to less than twice their length.
                order = w.numel().bit_length() if joined and not rule.elementwise else 0
                kind = target.scale, w.dtype, w.device, plain, joined, order
                if kind not in last or (joined and length[kind] + w.numel() > most):
                    last[kind] = Batch([], [], [], [], target.scale, plain, joined)
                    length[kind] = 0
                    sorted_[r, i].append(last[kind])
                length[kind] += w.numel()
                last[kind].ws.append(w)
                last[kind].names.append(target.name)
                if keeps:
                    last[kind].states.append(state)
                if partners:
                    last[kind].partners.append(partners.get(target.name))
            for k, batch in enumerate(sorted_[r, i]):
                if len(batch.ws) == 1:
                    sorted_[r, i][k] = replace(batch, joined=False)
                elif batch.joined and keeps:
                    batch.place(rule)
    return sorted_


def join(rule: Rule, tensors: Sequence[Tensor]) -> Tensor:
    """Return small tensors as one: end to end, or each a row, padded with zeros."""
    if rule.elementwise:
        return _flatten_dense_tensors(tensors)
    return _flatten_dense_tensors(_padded(tensors)).view(len(tensors), -1)


def _padded(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The tensors, each with its zeros after it, where they are not of one length."""
    sizes = [tensor.numel() for tensor in tensors]
    longest = max(sizes)
    if min(sizes) == longest:
        return tensors
    zeros = tensors[0].new_zeros(longest)
    gaps = {size: zeros[size:] for size in set(sizes)}
    return [part for tensor, size in zip(tensors, sizes, strict=True) for part in (tensor, gaps[size])]


class Joined:
    """Small tensors as one, in memory that stays, to and from which they are copied.

    Args:
        rule: the rule that they are for.
        tensors: the tensors.

    Attributes:
        tensor: all of them, as `join` makes it.
        views: the places of each.
    """

    def __init__(self, rule: Rule, tensors: Sequence[Tensor]) -> None:
        parts = tensors if rule.elementwise else _padded(tensors)
        with torch.inference_mode(False), torch.no_grad():  # steps outside of inference mode use it, too
            self.tensor, self._even = join(rule, tensors), len(parts) == len(tensors)
            self.views = _unflatten_dense_tensors(self.tensor.view(-1), parts)[:: len(parts) // len(tensors)]
        self._shapes = list(map(_SHAPE, tensors))

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the tensors have their places here, or the shapes that these were made for."""
        return self._holds(tensors) or list(map(_SHAPE, tensors)) == self._shapes

    def _holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the tensors are the places: there is nothing to copy."""
        return all(map(operator.is_, tensors, self.views))

    def read(self, tensors: list[Tensor]) -> None:
        """Copy the tensors into it."""
        if not self._holds(tensors):
            if not self._even:
                self.tensor.zero_()  # a rule may have made NaN of the padding
            torch._foreach_copy_(self.views, tensors)  # pyright: ignore[reportPrivateImportUsage]

    def write(self, tensors: list[Tensor]) -> None:
        """Copy what a rule has made of it to the tensors."""
        if not self._holds(tensors):
            torch._foreach_copy_(tensors, self.views)  # pyright: ignore[reportPrivateImportUsage]


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


def decay(rule: Rule, once: Pass, batch: Batch, memory: Memory, update: Direction | None = None) -> None:
    """Decay parameters by a rule; `update` is for one that looks at it before the step."""
    if rule.multiplies and once.rounding is None:
        _multiply(batch, rule.factor(batch.step))
    elif batch.joined and (update is None or len({len(read) for read in update.tensors}) == 1):
        _decay_joined(rule, once, batch, update)
    else:
        for i, (w, step) in enumerate(batch.each()):
            if once.rounding is not None:
                once.rounding.begin(w)
            for piece, here, read in _cut(rule, once, w, step, *(update.tensors[i] if update else ())):
                if update is not None and not once.fuses(piece):
                    here = replace(here, update=update.into(memory.piece(piece), read))
                once(piece, here, read, update.shares[len(read) - 1] if update else 1.0)


def _multiply(batch: Batch, factor: float | Tensor) -> None:
    """Multiply all with a factor, in one call."""
    ws = batch.ws if batch.plain else [seen(w) for w in batch.ws]
    if ws[0].device.type == "cpu" and not isinstance(factor, Tensor):
        # Which takes a third of the time on a CPU.
        factor = torch.scalar_tensor(factor, dtype=ws[0].dtype, device="cpu")
    torch._foreach_mul_(ws, factor)  # pyright: ignore[reportPrivateImportUsage]


def _decay_joined(rule: Rule, once: Pass, batch: Batch, update: Direction | None) -> None:
    """Decay small parameters as one tensor, and copy what is left of each to its place."""
    joined = batch.together(rule, "", batch.ws)
    w, keys = joined.tensor, batch.states[0] if batch.states else ()
    kept = {key: [state[key] for state in batch.states] for key in keys}
    states = {key: batch.together(rule, key, tensors) for key, tensors in kept.items()}
    state = {key: own.tensor for key, own in states.items()}
    step = replace(batch.step, state=state, before=batch.before, rows=not rule.elementwise)
    read = [join(rule, tensors) for tensors in zip(*update.tensors, strict=True)] if update else []
    if update is not None and not once.fuses(w):
        step = replace(step, update=update.into(read[-1], read))
    once(w, step, read, update.shares[len(read) - 1] if update else 1.0)
    joined.write(batch.ws)
    for key, tensors in kept.items():
        states[key].write(tensors)


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
    rule: Rule, optimizer: optim.Optimizer, group: Mapping[str, Any], batch: Batch, memory: Memory
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Put the gradient with the penalty's share in place of each gradient.

    The sum has memory of its own, so that the user's gradient can be given back after the step.

    Returns:
        For each parameter: itself, the gradient that was there, the sum that is there now.
    """
    scale = getattr(optimizer, "grad_scale", None)  # fused optimizers divide by it inside the step
    sign = (-1.0 if group.get("maximize") else 1.0) * (1.0 if scale is None else float(scale))
    batch = replace(batch, step=replace(batch.step, weight_decay=batch.step.weight_decay * sign))
    gradients: list[Any] = [w.grad for w in batch.ws]
    if batch.joined:
        joined = join(rule, gradients)
        penalised = rule.gradient(joined, join(rule, batch.ws), batch.step).to(joined.dtype)
        sums = _unflatten_dense_tensors(penalised, batch.ws)
    else:
        sums = [_penalised(rule, w, step, memory) for w, step in batch.each()]
    for w, penalised in zip(batch.ws, sums, strict=True):
        w.grad = penalised
    return list(zip(batch.ws, gradients, sums, strict=True))


def _penalised(rule: Rule, w: Tensor, step: Step, memory: Memory) -> Tensor:
    """The gradient of one parameter with the penalty's share."""
    gradient, out = w.grad, memory.whole(w, "gradient")
    assert gradient is not None
    if not rule.elementwise:
        return rule.gradient(gradient, w, step, out=out)
    here = seen(out)
    penalised = rule.gradient(seen(laid_like(gradient, w)), seen(w), _flat(step), out=here)
    if penalised is not here:  # a rule may return memory of its own
        here.copy_(penalised)
    return out


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
