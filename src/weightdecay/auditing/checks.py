"""WD1xx: do the right parameters decay?"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch._subclasses.fake_tensor import FakeTensor

from weightdecay.auditing.findings import Draft
from weightdecay.auditing.state import (
    Course,
    Held,
    Live,
    Place,
    Pull,
    Pulls,
    adapter_parameters,
    adapters,
    as_number,
    defaults,
    is_flat,
)
from weightdecay.errors import Finding
from weightdecay.groups.selectors import PRESETS
from weightdecay.units.halflife import log_retention, oscillates_from
from weightdecay.units.limits import FLOORS, OFF, rounded_rate

_WEIGHTS = ("matrix", "convolution", "head")
_GROUPS = "wd.param_groups(model, weight_decay=...) makes groups by role"


def decisions(live: Live, pulls: Pulls, wanted: Mapping[int, float]) -> Iterator[Draft]:
    """The findings about which parameters decay, against what should."""
    trained = [one for one in live.held if one.moves and one.places]
    decays = {id(one): bool(pulls.all(one)) for one in trained}
    decaying = [one for one in trained if any(pull.form != "none" for pull in pulls.all(one))]
    yield from _small_ones(decaying, wanted)
    yield from _unasked(decaying, wanted, adapter_parameters(live))
    yield from _left_out(trained, decays, wanted)
    yield from _split(live, pulls, trained, decays, wanted)
    yield from _embeddings(decaying)
    yield from adapters(live, decaying)
    yield from _exempt(decaying, pulls, wanted)


def _small_ones(decaying: list[Held], wanted: Mapping[int, float]) -> Iterator[Draft]:
    words = {
        "WD101": ("normalization", "{n} parameter{|s} of normalisations decay{s|}"),
        "WD102": ("bias", "{n} bias{|es} decay{s|}"),
    }
    for code, (role, message) in words.items():
        names = [one.name for one in decaying if one.role == role and _scale(wanted, one) == 0]
        if names:
            yield Draft(code, tuple(names), message, f"{_GROUPS}; or say groups='all'")


def _unasked(decaying: list[Held], wanted: Mapping[int, float], told: set[int]) -> Iterator[Draft]:
    """What should not decay and has no finding of its own, by role."""
    own = ("normalization", "bias", "embedding")
    mine = [one for one in decaying if one.role not in own and _scale(wanted, one) == 0]
    mine = [one for one in mine if one.candidate.exempt is None and id(one.parameter) not in told]
    for role in dict.fromkeys(one.role for one in mine):
        names = tuple(one.name for one in mine if one.role == role)
        if role == "other":
            message, fix = (
                "{n} parameter{|s} that {is|are} no weight matri{x|ces} decay{s|}",
                f"{_GROUPS}; or say groups='all'",
            )
        else:
            message = f"{{n}} {role} parameter{{|s}} decay{{s|}} and should not, by the groups of the audit"
            fix = "give the optimizer these groups, or the audit those of the optimizer"
        yield Draft("WD108", names, message, fix)


def _left_out(
    trained: list[Held], decays: Mapping[int, bool], wanted: Mapping[int, float]
) -> Iterator[Draft]:
    if not any(decays.values()):
        return  # no decay at all is a choice
    for role in _WEIGHTS:
        mine = [one for one in trained if one.role == role and (_scale(wanted, one) or 0) > 0]
        left = [one.name for one in mine if not decays[id(one)]]
        if left:
            others = "others of this role do" if len(left) < len(mine) else "parameters of other roles do"
            message = f"{{n}} {role} parameter{{|s}} do{{es|}} not decay, and {others}"
            yield Draft("WD103", tuple(left), message, f"{_GROUPS}; or ignore what is left out on purpose")


def _split(
    live: Live,
    pulls: Pulls,
    trained: list[Held],
    decays: Mapping[int, bool],
    wanted: Mapping[int, float],
) -> Iterator[Draft]:
    """One role of one optimizer, of which some decay and some do not, and nothing says why."""
    parts: dict[tuple[int, str], list[Held]] = {}
    for one in trained:
        alone = len(one.places) == 1 and one.candidate.exempt is None and not _named(live, pulls, one)
        if alone and _scale(wanted, one) != 0:
            parts.setdefault((one.places[0].optimizer, one.role), []).append(one)
    for (o, role), several in parts.items():
        left = [one.name for one in several if not decays[id(one)]]
        if 0 < len(left) < len(several) and role != "other":
            others = f"the other {len(several) - len(left)} of {live.titles[o]}"
            message = f"{{n}} {role} parameter{{|s}} do{{es|}} not decay, unlike {others}"
            fix = "decide by role, not by words in names; write an exception as a group of its own"
            yield Draft("WD104", tuple(left), message, fix)


def _named(live: Live, pulls: Pulls, one: Held) -> bool:
    """Whether the group of a parameter has a name that somebody wrote for it."""
    usual = {group.label for groups in PRESETS.values() for group in groups}
    label = pulls.label(one, one.places[0]) or live.group(one.places[0]).get("name")
    plain = re.sub(r" \(\d+\)$|, exempt by the model$", "", str(label))
    return label is not None and plain not in usual


def _embeddings(decaying: list[Held]) -> Iterator[Draft]:
    names, untouched, rows = [], 0, 0
    for one in decaying:
        if one.role != "embedding":
            continue
        counts = _rows_without_gradient(one)
        if counts == 0:
            continue
        names.append(one.name)
        if counts is not None:
            untouched, rows = untouched + counts, rows + one.parameter.shape[0]
    if names:
        seen = f" (now {untouched:,} of {rows:,} rows)" if rows else ""
        message = f"{{n}} embedding{{|s}} decay{{s|}}, rows without gradient{seen} as well"
        yield Draft("WD105", tuple(names), message, "leave embeddings out, or accept it for rare tokens")


def _rows_without_gradient(one: Held) -> int | None:
    """How many rows of the gradient are zero; None where there is none to look at."""
    gradient = one.parameter.grad
    if gradient is None or gradient.is_sparse or gradient.is_meta or hasattr(gradient, "_local_tensor"):
        return None
    with torch.no_grad():
        return int((gradient == 0).flatten(1).all(1).sum())


def _exempt(decaying: list[Held], pulls: Pulls, wanted: Mapping[int, float]) -> Iterator[Draft]:
    by_reason: dict[str, list[str]] = {}
    for one in decaying:
        reason = one.candidate.exempt
        meant = (_scale(wanted, one) or 0) > 0 or "although the model exempts it" in pulls.reason(
            one, one.places[0]
        )
        if reason is not None and not meant:
            by_reason.setdefault(reason.removeprefix("the model exempts it: "), []).append(one.name)
    for reason, names in by_reason.items():
        message = f"{{n}} parameter{{|s}} decay{{s|}} although the model exempts {{it|them}} ({reason})"
        yield Draft(
            "WD107",
            tuple(names),
            message,
            "wd.param_groups heeds the model; to overrule it, Group(force=True)",
        )


def _scale(wanted: Mapping[int, float], one: Held) -> float | None:
    """What should be: a scale, or None where there is no opinion."""
    return wanted.get(id(one.parameter))


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


def doubts(live: Live, pulls: Pulls, run: Course) -> Iterator[Draft]:
    """The findings about form."""
    pairs = by_pull(live, pulls)
    for (pull, o), names in pairs.items():
        yield from _form(pull, live.titles[o], names, _changes(run, o))
    yield from _measured(live, pairs)
    yield from _twice(live, pulls)
    for o, optimizer in enumerate(live.optimizers):
        if not pulls.rules(o):
            yield from _default(live, o, optimizer)


def by_pull(live: Live, pulls: Pulls) -> dict[tuple[Pull, int], tuple[str, ...]]:
    """The decays that occur, each with its optimizer and the names it pulls at."""
    found: dict[tuple[Pull, int], dict[str, None]] = {}
    for one in live.held:
        for place in one.places:
            for pull in pulls.of(one, place):
                found.setdefault((pull, place.optimizer), {})[one.name] = None
    return {key: tuple(names) for key, names in found.items()}


def _changes(run: Course, o: int) -> bool:
    return any(row.max() > row.min() for (optimizer, _), row in run.rows.items() if optimizer == o)


def _form(pull: Pull, title: str, names: tuple[str, ...], changes: bool) -> Iterator[Draft]:
    strength = f"weight_decay = {pull.weight_decay:g}"
    if pull.form == "sign-normalised":
        who = f"{pull.by} on {title}" if pull.attached else title
        message = (
            f"{who} decays {{n}} parameter{{|s}} through the gradient and divides by its size: "
            f"{strength} has no rate"
        )
        fix = "use a decoupled form: AdamW, decoupled_weight_decay=True, or wd.attach a rule"
        yield Draft("WD301", names, message, fix)
    elif pull.form == "none":
        message = f"{title} has {strength} for {{n}} parameter{{|s}}, and applies none{_because(pull)}"
        fix = "use another implementation, or weight_decay=0 and wd.attach(optimizer, wd.Decoupled(...))"
        yield Draft("WD304", names, message, fix)
    elif pull.form == "unknown" and not pull.wrong:
        message = f"it is not known how {title} applies {strength}{_because(pull)}"
        yield Draft("WD305", names, message, "see wd.probe; or weight_decay=0 and wd.attach a rule")
    elif pull.form == "independent" and not pull.attached and changes:
        message = f"the decay of {title} does not follow lr: {strength} goes on as lr falls by its schedule"
        yield Draft("WD305", names, message, "schedule the strength too, or use a decay that follows lr")


def _measured(live: Live, pairs: Mapping[tuple[Pull, int], tuple[str, ...]]) -> Iterator[Draft]:
    """What a probe found wrong, once for all parameters of an optimizer."""
    found: dict[tuple[int, Finding], dict[str, None]] = {}
    for (pull, o), names in pairs.items():
        held = [one.name for one in live.held if any(place.optimizer == o for place in one.places)]
        for one in pull.wrong:
            about = held if one.code == "WD307" else names
            found.setdefault((o, one), {}).update(dict.fromkeys(about))
    for (_, one), names in found.items():
        yield Draft(one.code, tuple(names), one.message, one.fix, one.severity)


def _because(pull: Pull) -> str:
    return f" ({pull.why})" if pull.why else ""


def _twice(live: Live, pulls: Pulls) -> Iterator[Draft]:
    found: dict[str, list[str]] = {}
    for one in live.held:
        for place in one.places:
            several = pulls.of(one, place)
            own = [pull for pull in several if not pull.attached]
            rules = [pull for pull in several if pull.attached]
            if own and rules:
                title, value = live.titles[place.optimizer], own[0].weight_decay
                by = f"{title}'s own weight_decay = {value:g} and {rules[0].by}"
                found.setdefault(by, []).append(one.name)
    for by, names in found.items():
        message = f"{{n}} parameter{{|s}} decay{{s|}} twice: by {by}"
        yield Draft("WD302", tuple(names), message, "set the groups' weight_decay to 0, or detach the rule")


def _default(live: Live, o: int, optimizer: optim.Optimizer) -> Iterator[Draft]:
    """A strength that is the class's own default in every group."""
    default = class_default(optimizer)
    strengths = {as_number(group.get("weight_decay")) for group in optimizer.param_groups}
    if (
        not default
        or strengths != {default}
        or any(_said(optimizer, group) for group in optimizer.param_groups)
    ):
        return
    names = [one.name for one in live.held if any(place.optimizer == o for place in one.places)]
    kind = type(optimizer).__name__
    message = f"weight_decay = {default:g} is {kind}'s default, in every group: was it chosen?"
    yield Draft("WD303", tuple(names), message, "say the number: wd.param_groups(model, weight_decay=...)")


def _said(optimizer: optim.Optimizer, group: Mapping[str, Any]) -> bool:
    """Whether a group came with a strength of its own, whatever the number.

    torch adds what a group does not say from the defaults, in their order: a strength that stands before an
    option that comes earlier there was in the group already.
    """
    order, built = list(group), list(defaults(optimizer))
    if "weight_decay" not in order or "weight_decay" not in built:
        return False
    earlier = built[: built.index("weight_decay")]
    place = order.index("weight_decay")
    return any(key in order and order.index(key) > place for key in earlier)


def class_default(optimizer: optim.Optimizer) -> float | None:
    """The `weight_decay` that the optimizer's class has when nobody says anything; None if it takes none."""
    try:
        parameter = inspect.signature(type(optimizer)).parameters.get("weight_decay")
    except (TypeError, ValueError):
        return None
    return None if parameter is None or parameter.default is parameter.empty else as_number(parameter.default)


# Less of the intended decay than this may be lost to rounding, as at the end of a schedule that goes to 0.
_LOST = 0.1
_WIDER = 'keep the weights in a wider type, or wd.attach(..., rounding="stochastic")'


def strengths(live: Live, pulls: Pulls, run: Course, steps_per_epoch: float | None) -> Iterator[Draft]:
    """The findings about strengths, over the run where it is known."""
    alike: dict[tuple[Pull, int, int, str], dict[str, None]] = {}
    for one in live.held:
        dtype = str(one.parameter.dtype).removeprefix("torch.")
        for place in one.places:
            for pull in pulls.of(one, place):
                key = pull, place.optimizer, place.group, dtype
                alike.setdefault(key, {})[one.name] = None
    merged: dict[tuple[str, str, str], tuple[Draft, dict[str, None]]] = {}
    for (pull, o, g, dtype), names in alike.items():
        for draft in _of(pull, run.rows[o, g], run.steps, steps_per_epoch, dtype):
            key = draft.code, draft.message, draft.severity or ""
            merged.setdefault(key, (draft, {}))[1].update(names)
    for draft, names in merged.values():
        yield Draft(draft.code, tuple(names), draft.message, draft.fix, draft.severity)


def _of(
    pull: Pull, lrs: np.ndarray, steps: int | None, steps_per_epoch: float | None, dtype: str
) -> Iterator[Draft]:
    removed = pull.removed(lrs)
    peak = float(lrs.max())
    if removed is None or not removed.max(initial=0) > 0:
        return
    said = f"weight_decay = {pull.weight_decay:g} at lr = {peak:g}"
    if removed.max() >= pull.limit:
        message = f"{said} takes {removed.max():.3g} of a weight in a step; {pull.limit:.3g} is too much"
        yield Draft(
            "WD401", (), message, f"give less than {pull.weight_decay * pull.limit / removed.max():.3g}"
        )
        return
    if pull.through_momentum and pull.sgd is not None:
        limit = oscillates_from(pull.sgd[0], pull.sgd[2])
        if removed.max() > limit:
            message = (
                f"{said} oscillates: lr·wd·(1 - dampening) = {removed.max():.3g}, and at most "
                f"{limit:.3g} does not at momentum = {pull.sgd[0]:g}"
            )
            fix = f"give less than {pull.weight_decay * limit / removed.max():.3g}, or decoupled decay"
            yield Draft("WD406", (), message, fix)
    yield from _precision(pull, removed, dtype, said)
    rates = pull.rates(lrs)
    if rates is not None:
        yield from _timescale(pull, rates, steps, steps_per_epoch, said)


def _precision(pull: Pull, removed: np.ndarray, dtype: str, said: str) -> Iterator[Draft]:
    floor = FLOORS.get(dtype)
    # What goes through the gradient is not rounded beside the weight.
    if floor is None or pull.at_random or pull.form == "coupled":
        return
    below = (removed <= floor) & (removed > 0)
    lost = float(removed[below].sum() / removed.sum())
    if lost <= _LOST:
        ratio = float(rounded_rate(removed, dtype).sum() / removed.sum())
        if abs(ratio - 1) > OFF:
            message = (
                f"{said} is quantised in {dtype}: about {ratio:.2f} times the decay happens, since "
                f"p·(1 - rate) is rounded to the nearest number and a step takes {removed.max():.3g} at most"
            )
            yield Draft("WD402", (), message, _WIDER, "warning" if abs(ratio - 1) > 0.2 else "info")
        return
    share = float(below.mean())
    when = "" if share == 1 else f" in {share:.0%} of the steps, with {lost:.0%} of the decay"
    message = (
        f"{said} is lost in {dtype}{when}: a step takes {removed.max():.3g} at most, and up to a rate of "
        f"{floor:.3g} p·(1 - rate) is p again"
    )
    yield Draft("WD402", (), message, _WIDER)


def _timescale(
    pull: Pull, rates: np.ndarray, steps: int | None, steps_per_epoch: float | None, said: str
) -> Iterator[Draft]:
    tau = 1 / float(rates.max())
    if tau < 10 or (steps_per_epoch is not None and tau < steps_per_epoch):
        than = "10 steps" if tau < 10 else f"an epoch of {steps_per_epoch:g}"
        message = f"{said} has a timescale 1/rate of {tau:.4g} steps, less than {than}"
        yield Draft("WD404", (), message, "give less, or a half-life in epochs")
    if steps is None or (pull.attached and pull.by.startswith("Toward(")):
        return
    kept = float(np.exp(log_retention(rates)))
    if kept > 0.9:
        message = f"{said} leaves {kept:.3g} of the initial weights after {steps:,} steps: next to nothing"
        yield Draft("WD403", (), message, "give wd.HalfLives(...) per run, or more")
    elif tau > steps:
        message = f"{said} has a timescale of {tau:.4g} steps, more than the run of {steps:,}"
        yield Draft("WD405", (), message, "keep it if that is meant; else give more")


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
