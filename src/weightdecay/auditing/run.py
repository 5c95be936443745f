"""`audit`: what decays in a live model and its optimizers, why, and what looks wrong."""

import itertools
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version as version_of
from typing import Any

import torch
from torch import Tensor

from weightdecay.arguments import closest, number
from weightdecay.auditing.checks import coverage, decisions, doubts, mechanics, strengths
from weightdecay.auditing.findings import CODES, COST, Draft
from weightdecay.auditing.record import Audit, GroupTotal, Ignored, Parameter
from weightdecay.auditing.state import (
    Course,
    Held,
    Live,
    Place,
    Pull,
    Pulls,
    as_number,
    check_numbers,
    checked_model,
    checked_optimizers,
    checked_scaler,
    course,
    defaults,
    expected,
    read,
)
from weightdecay.errors import Finding, InputError
from weightdecay.groups.roles import class_name
from weightdecay.schedule.learning_rates import Interval
from weightdecay.units.halflife import half_life


def audit(
    model: Any,
    *optimizers: Any,
    schedule: Any = None,
    steps: Any = None,
    steps_per_epoch: float | None = None,
    interval: Interval | None = None,
    groups: Any = "matrices",
    scaler: Any = None,
    ignore: Any = (),
) -> Audit:
    """Say for every parameter whether it decays, how strongly and why, and list what looks wrong.

    Reads live objects and changes nothing in them. Attached rules are found by themselves; wrappers
    (DistributedDataParallel, torch.compile, FSDP2) are seen through; on the meta device values are not read.

    Args:
        model: the nn.Module that is trained; of several an `nn.ModuleList`.
        optimizers: every optimizer that steps, one after another or in lists.
        schedule: the learning rates of the run, as `weightdecay.schedule.lrs` takes them: a torch scheduler
            before its first step (simulated on a copy), a list with one for each optimizer, a name, numbers,
            a function of the step. None: the lr that the groups have.
        steps: how many optimizer steps the run has, a whole number; without it nothing is said about the run.
        steps_per_epoch: optimizer steps of a pass over the data, to compare the timescale with it and for a
            schedule that goes by epochs.
        interval: how often the schedule goes on: "step", "epoch" or a number of optimizer steps. None: for a
            torch scheduler it is found from its own length, or asked for; else "step".
        groups: what should decay, as in `param_groups`; None has no opinion.
        scaler: the GradScaler, if there is one.
        ignore: codes of findings that are not to be told, such as "WD105" or "WD103:head.*" (a pattern of
            names), or a mapping from these to the reason.

    Convention: strengths are what the optimizer or rule calls weight_decay, times the group's scale;
    half-lives are in steps at the peak step size.

    Raises:
        InputError: no model, no optimizer, a lazy layer, a schedule or groups that cannot be used.

    >>> from torch import nn, optim
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    >>> optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    >>> for finding in audit(model, optimizer).findings:
    ...     print(finding.code, finding.parameters)
    WD101 ('1.weight',)
    WD102 ('0.bias', '1.bias')

    Source: the reports in `reference/rules.md`, section 4, each of which was silent.
    """
    quiet = silences(ignore)
    live = read(checked_model(model), checked_optimizers(optimizers))
    check_numbers(live)
    checked_scaler(scaler)
    per_epoch = None if steps_per_epoch is None else number(steps_per_epoch, "steps_per_epoch", above=0)
    run = course(schedule, steps, live.optimizers, interval, per_epoch)
    pulls = Pulls(live)
    drafts = itertools.chain(
        decisions(live, pulls, expected(live, groups)),
        coverage(live, pulls),
        doubts(live, pulls, run),
        strengths(live, pulls, run, per_epoch),
        mechanics(live, pulls, scaler),
        run.drafts,
    )
    findings, ignored = settled(drafts, quiet)
    return Audit(
        parameters=parameter_records(live, pulls, run),
        findings=findings,
        ignored=ignored,
        groups=group_totals(live, pulls),
        settings=_settings(live, run, schedule, per_epoch, groups, scaler),
        versions={
            "weightdecay": version_of("weightdecay"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


def _settings(
    live: Live, run: Course, schedule: Any, per_epoch: Any, groups: Any, scaler: Any
) -> dict[str, Any]:
    """What was said, in words."""
    told = schedule if isinstance(schedule, str) or schedule is None else type(schedule).__name__
    return {
        "model": type(live.model).__name__,
        "optimizers": list(live.titles),
        "steps": run.steps,
        "steps_per_epoch": per_epoch,
        "schedule": told,
        "interval": "; ".join(run.told) or None,
        "groups": groups if isinstance(groups, str) or groups is None else repr(groups),
        "scaler": None if scaler is None else type(scaler).__name__,
    }


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


_REMEDY = 'give codes, such as ["WD105", "WD103:head.*"], or a mapping from these to reasons'
_ORDER = ("error", "warning", "info")


@dataclass(frozen=True)
class Silence:
    """One entry: a code, a pattern of names (None: all), a reason."""

    code: str
    pattern: str | None
    reason: str

    def covers(self, name: str) -> bool:
        """Whether a parameter of this name is meant."""
        return self.pattern is None or fnmatchcase(name, self.pattern)


def silences(ignore: Any) -> tuple[Silence, ...]:
    """Read `ignore`.

    Raises:
        InputError: not codes, or an unknown one.
    """
    if isinstance(ignore, str):
        ignore = [part for part in ignore.split(",") if part.strip()]
    if isinstance(ignore, Mapping):
        pairs = [(entry, reason) for entry, reason in ignore.items()]
    elif isinstance(ignore, Iterable):
        pairs = [(entry, "") for entry in ignore]
    else:
        raise InputError("not codes", "ignore", repr(ignore), _REMEDY)
    return tuple(_silence(entry, reason) for entry, reason in pairs)


def _silence(entry: Any, reason: Any) -> Silence:
    if not isinstance(entry, str) or not isinstance(reason, str):
        raise InputError("not a code, or a reason that is no text", "ignore", repr(entry), _REMEDY)
    code, colon, pattern = (part.strip() for part in entry.partition(":"))
    if code not in CODES:
        best = ", ".join(closest(code, CODES, 3))
        raise InputError("no such code", "ignore", repr(entry), f"the closest are {best}")
    if code == "WD601":
        what, remedy = "a change of the plan is not ignored", "save the plan again, or leave out --against"
        raise InputError(what, "ignore", repr(entry), remedy)
    if colon and not pattern:
        raise InputError("a pattern is missing", "ignore", repr(entry), f"give {code}, or {code}:head.*")
    return Silence(code, pattern or None, reason)


def settled(
    drafts: Iterable[Draft], ignore: tuple[Silence, ...]
) -> tuple[tuple[Finding, ...], tuple[Ignored, ...]]:
    """The findings that remain, the costliest first, and those ignored; one ignored in part is in both."""
    told: list[Finding] = []
    quiet: list[Ignored] = []
    for draft in drafts:
        mine = [one for one in ignore if one.code == draft.code]
        whole = next((one for one in mine if one.pattern is None), None)
        if whole:
            quiet.append(Ignored(draft.finding(), whole.reason))
            continue
        left = draft.names
        for one in mine:
            covered = tuple(name for name in left if one.covers(name))
            if covered:
                quiet.append(Ignored(draft.finding(covered), one.reason))
                left = tuple(name for name in left if name not in covered)
        if left or not draft.names:
            told.append(draft.finding(left))
    told.sort(key=lambda finding: (_ORDER.index(finding.severity), COST.index(finding.code)))
    return tuple(told), tuple(quiet)
