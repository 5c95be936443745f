"""WD5xx: sparse gradients, scalers, checkpoints, weights that are no numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch._subclasses.fake_tensor import FakeTensor

from weightdecay.auditing.decaying import Pulls, as_number, defaults
from weightdecay.auditing.doubts import class_default
from weightdecay.auditing.drafts import Draft
from weightdecay.auditing.reading import Held, Live

# Options that say in which form an optimizer decays, and that its state dict brings along.
_FLAGS = ("decoupled_weight_decay", "weight_decouple", "fixed_decay")


def mechanics(live: Live, pulls: Pulls, scaler: Any) -> Iterator[Draft]:
    """The findings about what happens around the decay."""
    yield from _sparse(live, pulls)
    if scaler is not None:
        yield from _scaler(live, scaler)
    for o, optimizer in enumerate(live.optimizers):
        yield from _flags(live, pulls, o, optimizer)
        yield from _stale(live, pulls, o, optimizer)
    yield from _not_numbers(live)


def _sparse(live: Live, pulls: Pulls) -> Iterator[Draft]:
    held = [one for one in live.held if not all(pull.sparse for pull in pulls.all(one))]
    names = [one.name for one in held if _has_sparse_gradient(one)]
    if names:
        message = (
            "{n} decaying parameter{ has a sparse gradient|s have sparse gradients}: the step will raise"
        )
        fix = "leave them out of the decay, attach wd.Decoupled instead, or build with sparse=False"
        yield Draft("WD501", tuple(names), message, fix)


def _has_sparse_gradient(one: Held) -> bool:
    gradient = one.parameter.grad
    if gradient is not None and gradient.is_sparse:
        return True
    owners = one.candidate.owners
    return any(isinstance(owner, (nn.Embedding, nn.EmbeddingBag)) and owner.sparse for owner in owners)


def _scaler(live: Live, scaler: Any) -> Iterator[Draft]:
    if not scaler.is_enabled():
        message = "the gradient scaler is switched off: nothing is scaled and no step skipped"
        yield Draft("WD502", (), message, "leave it out, or GradScaler(enabled=True)", "info")
        return
    trained = [one for one in live.held if one.parameter.requires_grad and one.places]
    half = tuple(one.name for one in trained if one.parameter.dtype == torch.float16)
    if half:
        message = "{n} parameter{ is|s are} float16: the scaler refuses to unscale float16 gradients"
        yield Draft("WD502", half, message, "keep float32 weights and use autocast")
    wide = tuple(one.name for one in trained if one.parameter.dtype == torch.bfloat16)
    if wide:
        message = (
            "{n} parameter{ is|s are} bfloat16, whose gradients need no scaler; skipped steps do not decay"
        )
        yield Draft("WD502", wide, message, "leave the scaler out", "info")
    for o, optimizer in enumerate(live.optimizers):
        if isinstance(optimizer, optim.LBFGS):
            message = f"{live.titles[o]} needs a closure, and a scaler's step takes none"
            yield Draft("WD502", (), message, "train without a scaler")


def _flags(live: Live, pulls: Pulls, o: int, optimizer: optim.Optimizer) -> Iterator[Draft]:
    """Groups whose form is not the one that the optimizer was built with."""
    for flag in _FLAGS:
        built = defaults(optimizer).get(flag)
        if not isinstance(built, bool):
            continue
        names = []
        for g, group in enumerate(optimizer.param_groups):
            if bool(group.get(flag, built)) != built and pulls.own(o, g) and not _lowered(pulls, o, g):
                names += [one.name for one in live.held if _in(one, o, g)]
        if names:
            message = (
                f"{live.titles[o]} was built with {flag} = {built}, and for {{n}} parameter{{|s}} the group "
                f"says {not built}: a state dict of another class brought its own"
            )
            fix = f"build the class that made the checkpoint, or set the groups' {flag} after loading"
            yield Draft("WD503", tuple(names), message, fix)


def _stale(live: Live, pulls: Pulls, o: int, optimizer: optim.Optimizer) -> Iterator[Draft]:
    """Strengths none of which is the one that the optimizer was built with."""
    built = as_number(defaults(optimizer).get("weight_decay"))
    if not built or class_default(optimizer) in (None, built):
        return  # nobody said one, except perhaps to the groups or to an optimizer inside
    groups = [g for g in range(len(optimizer.param_groups)) if not _lowered(pulls, o, g)]
    found = {g: as_number(optimizer.param_groups[g].get("weight_decay")) for g in groups}
    if not any(found.values()) or built in found.values():
        return
    names = [one.name for one in live.held if any(_in(one, o, g) for g, value in found.items() if value)]
    values = ", ".join(f"{value:g}" for value in sorted(set(found.values()) - {0.0}))
    message = f"{live.titles[o]} was built with weight_decay = {built:g}, and its groups have {values}"
    yield Draft("WD506", tuple(names), message, "set the groups' weight_decay after loading a checkpoint")


def _lowered(pulls: Pulls, o: int, g: int) -> bool:
    return any(g in decay.plan.native for decay in pulls.rules(o))


def _in(one: Held, o: int, g: int) -> bool:
    return any((place.optimizer, place.group) == (o, g) for place in one.places)


def _not_numbers(live: Live) -> Iterator[Draft]:
    counts = not_finite({one.name: one.parameter for one in live.held})
    if counts:
        total = sum(counts.values())
        shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:3])
        more = ", ..." if len(counts) > 3 else ""
        message = (
            f"{{n}} parameter{{|s}} {{has|have}} {total:,} elements that are NaN or infinite ({shown}{more})"
        )
        yield Draft("WD504", tuple(counts), message, "go back to a checkpoint that is finite")


@torch.no_grad()
def not_finite(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How many elements of each tensor are not finite, where there are any and values can be read."""
    suspects: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        local = getattr(tensor, "_local_tensor", tensor).detach()
        if (
            local.is_meta
            or local.layout != torch.strided
            or isinstance(local, FakeTensor)
            or local.element_size() == 1  # eight bits: a sum is not implemented
            or not (local.is_floating_point() or local.is_complex())
        ):
            continue
        suspects[name] = local
    # A sum is not finite if an element is not: a cheap first look (a sum may also overflow).
    sums = {name: tensor.sum() for name, tensor in suspects.items()}
    odd = [name for name, total in sums.items() if not bool(total.isfinite())]
    counts = {name: int((~suspects[name].isfinite()).sum()) for name in odd}
    return {name: count for name, count in counts.items() if count}
