"""WD2xx: is each parameter in exactly one optimizer, once, with one strength, as itself?"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from weightdecay.auditing.decaying import Pulls, as_number
from weightdecay.auditing.drafts import Draft
from weightdecay.auditing.reading import Held, Live, Place, is_flat


def coverage(live: Live, pulls: Pulls) -> Iterator[Draft]:
    """The findings about which optimizer has which parameter."""
    yield from _missing(live)
    yield from _repeated(live)
    yield from _strange(live)
    yield from _tied(live, pulls)
    yield from _flattened(live)
    yield from _frozen(live, pulls)


def strength_in(held: Held, pulls: Pulls) -> list[float]:
    """The strength of a parameter in each of its places."""
    return [sum(pull.weight_decay for pull in pulls.of(held, place)) for place in held.places]


def _missing(live: Live) -> Iterator[Draft]:
    names = [one.name for one in live.held if one.parameter.requires_grad and not one.places]
    if names:
        message = "{n} parameter{|s} require{s|} a gradient and no optimizer has {it|them}"
        yield Draft("WD201", tuple(names), message, "give them to an optimizer, or requires_grad_(False)")


def _repeated(live: Live) -> Iterator[Draft]:
    several: dict[tuple[int, ...], list[str]] = {}
    for one in live.held:
        if len(one.places) > 1:
            several.setdefault(tuple(place.optimizer for place in one.places), []).append(one.name)
    for optimizers, names in several.items():
        where = " and ".join(live.titles[o] for o in dict.fromkeys(optimizers))
        how = f"{len(optimizers)} times in {where}" if len(set(optimizers)) == 1 else f"in {where}"
        message = (
            f"{{n}} parameter{{|s}} {{is|are}} {how}: updated and decayed {len(optimizers)} times a step"
        )
        yield Draft("WD202", tuple(names), message, "give each parameter once: wd.split(model, {...})")


def _strange(live: Live) -> Iterator[Draft]:
    for o, title in enumerate(live.titles):
        names = tuple(name for place, name in live.strange if place.optimizer == o)
        if names:
            message = f"{{n}} parameter{{|s}} of {title} {{is|are}} not in the model"
            fix = "make the optimizer last, from this model; of several models give an nn.ModuleList"
            yield Draft("WD203", names, message, fix)


def _tied(live: Live, pulls: Pulls) -> Iterator[Draft]:
    for one in live.held:
        strengths = sorted(set(strength_in(one, pulls)))
        if len(strengths) > 1:
            shown = " and ".join(f"{value:g}" for value in strengths)
            message = f"one parameter under the strengths {shown}"
            yield Draft("WD204", (one.name, *one.aliases)[:1], message, "one decision for a tied weight")
    for several in _over_one_memory(live):
        names = tuple(one.name for one in several)
        updated = [one for one in several if one.places and one.moves]
        if len(updated) < 2:
            continue
        fix = "tie them by assigning the parameter itself: head.weight = embedding.weight"
        message = f"{len(updated)} parameters share their memory, and each is updated"
        yield Draft("WD206", names, message, fix)
        strengths = sorted({value for one in updated for value in strength_in(one, pulls)})
        if len(strengths) > 1:
            shown = " and ".join(f"{value:g}" for value in strengths)
            yield Draft("WD204", names, f"parameters over one memory under the strengths {shown}", fix)


def _over_one_memory(live: Live) -> list[list[Held]]:
    """Parameters whose elements overlap, together."""
    by_storage: dict[int, list[tuple[int, int, Held]]] = {}
    for one in live.held:
        tensor = _local(one.parameter)
        if (reach := _reach(tensor)) is not None:
            by_storage.setdefault(tensor.untyped_storage()._cdata, []).append((*reach, one))
    found: list[list[Held]] = []
    for several in by_storage.values():
        reached = 0
        together: list[Held] = []
        for start, end, one in sorted(several, key=lambda item: item[:2]):
            if start < reached:
                together.append(one)
            else:
                found.append(together)
                together = [one]
            reached = max(reached, end)
        found.append(together)
    order = {id(one): i for i, one in enumerate(live.held)}
    return [sorted(group, key=lambda one: order[id(one)]) for group in found if len(group) > 1]


def _local(parameter: Tensor) -> Tensor:
    """The part that lies here, of a parameter that is sharded."""
    return getattr(parameter, "_local_tensor", parameter)


def _reach(tensor: Tensor) -> tuple[int, int] | None:
    """The first byte and the end of a tensor that fills the memory between them; else None."""
    if tensor.layout != torch.strided or tensor.numel() == 0:
        return None
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    if extent != tensor.numel():
        return None  # columns of a larger tensor: the memory between belongs to others
    start = int(tensor.storage_offset()) * tensor.element_size()
    return start, start + int(extent) * tensor.element_size()


def _flattened(live: Live) -> Iterator[Draft]:
    flat: Sequence[Held] = [one for one in live.held if is_flat(one.parameter)]
    if flat:
        message = "{n} parameter{ is|s are} several tensors laid into one: names and shapes are lost"
        fix = "shard with torch.distributed.fsdp.fully_shard, or use_orig_params=True"
        yield Draft("WD205", tuple(one.name for one in flat), message, fix)


def _frozen(live: Live, pulls: Pulls) -> Iterator[Draft]:
    """What was frozen after it had a gradient: an optimizer goes by the gradient, not by requires_grad."""
    found: dict[str, list[str]] = {}
    for one in live.held:
        if one.parameter.requires_grad or one.parameter.grad is None:
            continue
        places = [place for place in one.places if as_number(live.group(place).get("lr", 1.0)) != 0]
        reasons = [
            *(["decays"] if any(p.form != "none" for place in places for p in pulls.of(one, place)) else []),
            *(["coasts on its momentum"] if any(_coasts(live, one, place) for place in places) else []),
            *(["follows its last gradient"] if places and _any(one.parameter.grad) else []),
        ]
        if reasons:
            found.setdefault(" and ".join(reasons), []).append(one.name)
    for how, names in found.items():
        message = f"{{n}} frozen parameter{{|s}} still move{{s|}}: {{it|each}} {how}, as .grad is not None"
        fix = "set .grad to None, as optimizer.zero_grad() does, or take it out of the optimizer"
        yield Draft("WD207", tuple(names), message, fix)


def _coasts(live: Live, one: Held, place: Place) -> bool:
    """Whether the optimizer's state has something of the parameter's size that is not 0."""
    state = live.optimizers[place.optimizer].state.get(one.parameter, {})
    return any(
        isinstance(kept, Tensor) and kept.shape == one.parameter.shape and kept.ndim and _any(kept)
        for kept in state.values()
    )


@torch.no_grad()
def _any(tensor: Tensor) -> bool:
    """Whether an element is not 0; taken for granted where values cannot be read."""
    local = _local(tensor)
    if local.is_meta or local.layout != torch.strided:
        return True
    return bool(torch.count_nonzero(local))
