"""From what was read to the records that an audit returns."""

from torch import Tensor

from weightdecay.auditing.course import Course
from weightdecay.auditing.decaying import Pull, Pulls, as_number, defaults
from weightdecay.auditing.reading import Held, Live, Place
from weightdecay.auditing.record import GroupTotal, Parameter
from weightdecay.groups.roles import class_name
from weightdecay.units.rates import half_life


def parameter_records(live: Live, pulls: Pulls, run: Course) -> tuple[Parameter, ...]:
    """One record for each parameter."""
    return tuple(_record(one, live, pulls, run) for one in live.held)


def _record(one: Held, live: Live, pulls: Pulls, run: Course) -> Parameter:
    parameter, place = one.parameter, one.places[0] if one.places else None
    acting = () if place is None else pulls.of(one, place)
    life = None if place is None else _half_life(acting, run, place)
    return Parameter(
        name=one.name,
        aliases=one.aliases,
        module=class_name(one.candidate.owners[0]) if one.candidate.owners else "",
        role=one.role,
        shape=tuple(parameter.shape),
        dtype=str(parameter.dtype).removeprefix("torch."),
        numel=parameter.numel(),
        optimizer=None if place is None else live.titles[place.optimizer],
        group=None if place is None else place.group,
        weight_decay=sum((pull.weight_decay for pull in acting), 0.0),
        rule=" and ".join(_rule(pull) for pull in acting),
        form="+".join(dict.fromkeys(pull.form for pull in acting)) or "none",
        half_life=life,
        share_of_run=None if life is None or run.steps is None else life / run.steps,
        frozen=not parameter.requires_grad,
        why=f"{one.candidate.why}; {_placed(one, live, pulls)}",
    )


def _rule(pull: Pull) -> str:
    return f"{pull.by}, attached" if pull.attached else f"{pull.by}'s own weight_decay"


def _half_life(acting: tuple[Pull, ...], run: Course, place: Place) -> float | None:
    """At the peak step size, everything that pulls together; None where that is not known."""
    lrs = run.rows[place.optimizer, place.group]
    peak = lrs[[int(lrs.argmax())]]
    left = 1.0
    for pull in acting:
        rates = pull.rates(peak)
        if rates is None:
            return None
        left *= 1 - float(rates[0])
    return half_life(1 - left) if 0 < left < 1 else None


def _placed(one: Held, live: Live, pulls: Pulls) -> str:
    """Which group it is in, and where its strength is from."""
    exempt = f"; {one.candidate.exempt}" if one.candidate.exempt else ""
    frozen = not one.parameter.requires_grad
    if not one.places:
        return ("frozen" if frozen else "in no optimizer") + exempt
    place = one.places[0]
    group = live.group(place)
    label = f" {group['name']!r}" if isinstance(group.get("name"), str) else ""
    said = f"group {place.group}{label} of {live.titles[place.optimizer]}"
    if frozen:
        left_over = "its gradient is left over, so that it still moves" if one.moves else "it stays as it is"
        return f"{said}; frozen: {left_over}{exempt}"
    if reason := pulls.reason(one, place):
        return f"{said}; {reason}"
    return f"{said}, {_source(group, live, place)}{exempt}"


def _source(group: object, live: Live, place: Place) -> str:
    assert isinstance(group, dict)
    if "weight_decay" not in group:
        return "which has no weight_decay"
    value = as_number(group["weight_decay"])
    built = as_number(defaults(live.optimizers[place.optimizer]).get("weight_decay"))
    return f"weight_decay = {value:g}" + (
        ", as the optimizer was built" if value == built else " of the group's own"
    )


def group_totals(live: Live, pulls: Pulls) -> tuple[GroupTotal, ...]:
    """Every parameter group, and at last what no optimizer has."""
    members: dict[tuple[int, int] | None, list[tuple[Held, Place | None]]] = {
        (o, g): [] for o, one in enumerate(live.optimizers) for g in range(len(one.param_groups))
    }
    for one in live.held:
        for place in one.places:
            members[place.optimizer, place.group].append((one, place))
        if not one.places:
            members.setdefault(None, []).append((one, None))
    return tuple(_total(key, held, live, pulls) for key, held in members.items())


def _total(
    key: tuple[int, int] | None, held: list[tuple[Held, Place | None]], live: Live, pulls: Pulls
) -> GroupTotal:
    strengths = [
        sum(pull.weight_decay for pull in pulls.of(one, place)) if place else 0.0 for one, place in held
    ]
    sizes = [one.parameter.numel() for one, _ in held]
    applied = [
        place is not None and any(p.form != "none" for p in pulls.of(one, place)) for one, place in held
    ]
    decaying = sum(size for size, does in zip(sizes, applied, strict=True) if does)
    group = live.optimizers[key[0]].param_groups[key[1]] if key else {}
    return GroupTotal(
        optimizer=live.titles[key[0]] if key else None,
        group=key[1] if key else None,
        label=str(group.get("name") or ""),
        lr=as_number(group["lr"]) if isinstance(group.get("lr"), (int, float, Tensor)) else None,
        parameters=len(held),
        elements=sum(sizes),
        decaying=decaying,
        weight_decay=tuple(sorted({value for value in strengths if value}, reverse=True)),
    )
