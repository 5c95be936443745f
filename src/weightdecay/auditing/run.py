"""`audit`: what decays in a live model and its optimizers, why, and what looks wrong.

`audit_diff` says who decays differently from a plan that was saved.
"""

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightdecay.arguments import class_name, closest
from weightdecay.auditing.checks import CHECKS, CODES, Draft
from weightdecay.auditing.record import (
    SEVERITIES,
    Audit,
    GroupTotal,
    Ignored,
    Parameter,
    aligned,
    finding_head,
    some,
)
from weightdecay.auditing.state import Held, Place, State, as_number, defaults, read
from weightdecay.errors import Finding, InputError
from weightdecay.errors import check as check_findings
from weightdecay.saving import load, read_json
from weightdecay.schedule.learning_rates import Interval
from weightdecay.text import Text, local
from weightdecay.units.halflife import half_life

_REMEDY = 'give codes, such as ["WD105", "WD103:head.*"], or a mapping from these to reasons'


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
    silences = read_silences(ignore)
    state = read(
        model,
        optimizers,
        schedule=schedule,
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        interval=interval,
        groups=groups,
        scaler=scaler,
    )
    findings, ignored = _findings(state, silences)
    named = schedule if isinstance(schedule, str) or schedule is None else type(schedule).__name__
    return Audit(
        parameters=_records(state),
        findings=findings,
        ignored=ignored,
        groups=_group_totals(state),
        settings={
            "model": type(state.model).__name__,
            "optimizers": list(state.titles),
            "steps": state.rates.steps,
            "steps_per_epoch": state.steps_per_epoch,
            "schedule": named,
            "interval": "; ".join(state.rates.described) or None,
            "groups": groups if isinstance(groups, str) or groups is None else repr(groups),
            "scaler": None if scaler is None else type(scaler).__name__,
        },
        versions={
            "weightdecay": version_of("weightdecay"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


@dataclass(frozen=True)
class Silence:
    """One entry of `ignore`: a code, a pattern of names (None: all), a reason."""

    code: str
    pattern: str | None
    reason: str


def read_silences(ignore: Any) -> tuple[Silence, ...]:
    """Read `ignore`.

    Raises:
        InputError: not codes, or an unknown one.
    """
    if isinstance(ignore, str):
        ignore = [part for part in ignore.split(",") if part.strip()]
    if not isinstance(ignore, Iterable):
        raise InputError("not codes", "ignore", repr(ignore), _REMEDY)
    silences = []
    for entry in ignore:
        reason = ignore[entry] if isinstance(ignore, Mapping) else ""
        if not isinstance(entry, str) or not isinstance(reason, str):
            raise InputError("not a code, or a reason that is no text", "ignore", repr(entry), _REMEDY)
        code, colon, pattern = map(str.strip, entry.partition(":"))
        if code not in CODES:
            best = ", ".join(closest(code, CODES, 3))
            raise InputError("no such code", "ignore", repr(entry), f"the closest are {best}")
        if code == "WD601":
            remedy = "save the plan again, or leave out --against"
            raise InputError("a change of the plan is not ignored", "ignore", repr(entry), remedy)
        if colon and not pattern:
            raise InputError("a pattern is missing", "ignore", repr(entry), f"give {code}, or {code}:head.*")
        silences.append(Silence(code, pattern or None, reason))
    return tuple(silences)


def _findings(state: State, silences: Sequence[Silence]) -> tuple[tuple[Finding, ...], tuple[Ignored, ...]]:
    """Return the findings that remain, the costliest first, and those ignored; in part is in both."""
    findings: list[Finding] = []
    ignored: list[Ignored] = []
    for code, check in CODES.items():
        patterns: list[Silence] = []
        whole: Silence | None = None
        for silence in silences:
            if silence.code == code and silence.pattern is not None:
                patterns.append(silence)
            elif silence.code == code:
                whole = whole or silence
        for draft in check.drafts(state):
            if whole is not None:
                ignored.append(Ignored(check.finding(draft), whole.reason))
                continue
            left = draft.names
            for silence in patterns:
                covered = tuple([name for name in left if fnmatchcase(name, silence.pattern or "*")])
                if covered:
                    ignored.append(Ignored(check.finding(draft, covered), silence.reason))
                    left = tuple([name for name in left if name not in covered])
            if left or not draft.names:
                findings.append(check.finding(draft, left))
    costliest_first: list[Finding] = []
    for severity in SEVERITIES:
        for check in CHECKS:
            costliest_first += [f for f in findings if f.code == check.code and f.severity == severity]
    return tuple(costliest_first), tuple(ignored)


def _records(state: State) -> tuple[Parameter, ...]:
    """Return what happens to each parameter; where one is held twice, in its first place."""
    records = []
    for held in state.held:
        parameter, candidate = held.parameter, held.candidate
        place = held.places[0] if held.places else None
        hands: list[str] = []
        forms: dict[str, None] = {}
        for pull in place.pulls if place else ():
            hands.append(f"{pull.by}, attached" if pull.attached else f"{pull.by}'s own weight_decay")
            forms[pull.form] = None
        life, steps = _half_life(place, state), state.rates.steps
        record = Parameter(
            name=held.name,
            aliases=held.aliases,
            module=class_name(candidate.owners[0]) if candidate.owners else "",
            role=held.role,
            shape=tuple(parameter.shape),
            dtype=str(parameter.dtype).removeprefix("torch."),
            numel=parameter.numel(),
            optimizer=None if place is None else state.titles[place.optimizer],
            group=None if place is None else place.group,
            weight_decay=place.weight_decay if place else 0.0,
            rule=" and ".join(hands),
            form="+".join(forms) or "none",
            half_life=life,
            share_of_run=None if life is None or steps is None else life / steps,
            frozen=not parameter.requires_grad,
            why=f"{candidate.why}; {_placed(held, place, state)}",
        )
        records.append(record)
    return tuple(records)


def _half_life(place: Place | None, state: State) -> float | None:
    """At the peak step size, everything that pulls together; None where that is not known."""
    if place is None:
        return None
    lrs = state.rates.rows[place.optimizer, place.group]
    peak = lrs[[int(lrs.argmax())]]
    left = 1.0
    for pull in place.pulls:
        rates = pull.rates(peak)
        if rates is None:
            return None
        left *= 1 - float(rates[0])
    return half_life(1 - left) if 0 < left < 1 else None


def _placed(held: Held, place: Place | None, state: State) -> str:
    """Say which group a parameter is in, and where its strength is from."""
    exempt = f"; {held.candidate.exempt}" if held.candidate.exempt else ""
    frozen = not held.parameter.requires_grad
    if place is None:
        return ("frozen" if frozen else "in no optimizer") + exempt
    group, title = state.group(place), state.titles[place.optimizer]
    label = f" {group['name']!r}" if isinstance(group.get("name"), str) else ""
    where = f"group {place.group}{label} of {title}"
    if frozen:
        left_over = "its gradient is left over, so that it still moves" if held.moves else "it stays as it is"
        return f"{where}; frozen: {left_over}{exempt}"
    if (decided := place.assignment) is not None:
        return f"{where}; {place.rule} attached, group {decided.label!r}: {decided.reason}"
    if "weight_decay" not in group:
        return f"{where}, which has no weight_decay{exempt}"
    value = as_number(group["weight_decay"])
    built = as_number(defaults(state.optimizers[place.optimizer]).get("weight_decay"))
    source = ", as the optimizer was built" if value == built else " of the group's own"
    return f"{where}, weight_decay = {value:g}{source}{exempt}"


def _group_totals(state: State) -> tuple[GroupTotal, ...]:
    """Sum up every parameter group, and at last what no optimizer has."""
    members: dict[tuple[int, int] | None, list[tuple[Held, Place | None]]] = {}
    for key in state.rates.rows:
        members[key] = []
    for held in state.held:
        for place in held.places:
            members[place.optimizer, place.group].append((held, place))
        if not held.places:
            members.setdefault(None, []).append((held, None))
    totals = []
    for key, held_here in members.items():
        elements, decaying, strengths = 0, 0, set()
        for held, place in held_here:
            size = held.parameter.numel()
            elements += size
            if place is not None:
                decaying += size if place.applied else 0
                strengths.add(place.weight_decay)
        group = state.optimizers[key[0]].param_groups[key[1]] if key else {}
        lr = group.get("lr")
        totals.append(
            GroupTotal(
                optimizer=state.titles[key[0]] if key else None,
                group=key[1] if key else None,
                label=str(group.get("name") or ""),
                lr=as_number(lr) if isinstance(lr, (int, float, Tensor)) else None,
                parameters=len(held_here),
                elements=elements,
                decaying=decaying,
                weight_decay=tuple(sorted(strengths - {0}, reverse=True)),
            )
        )
    return tuple(totals)


SAME = Text("the plan is the same", "与计划一致")
# What decides about the decay of a parameter; sizes and positions of groups may change.
_DECIDING = ("weight_decay", "form", "frozen", "role", "aliases")


@dataclass(frozen=True)
class Change:
    """One field of one parameter; `field` is "parameter" where it is new or gone."""

    parameter: str
    field: str
    old: Any
    new: Any


@dataclass(frozen=True)
class AuditDiff:
    """What changed between two audits.

    Args:
        changes: one each.
        findings: WD601, if there are any.
    """

    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]

    def check(self) -> None:
        """Raise if anything changed.

        Raises:
            FindingsError: with the findings.
        """
        check_findings(self.findings)

    def __str__(self) -> str:
        if not self.changes:
            return local(SAME)
        rows = [(c.parameter, c.field, _shown(c.old), "->", _shown(c.new)) for c in self.changes]
        findings = [finding_head(finding) for finding in self.findings]
        return "\n".join([*findings, *aligned(rows)])


def audit_diff(old: Any, new: Any) -> AuditDiff:
    """Compare who decays, how strongly and in what form.

    Sizes, step sizes and positions of groups do not count.

    Args:
        old: an audit, or the file it was saved to: the plan.
        new: what is now.

    Raises:
        InputError: no audit, or a file that is none.
    """
    before, after = _by_name(old, "old"), _by_name(new, "new")
    changes = [Change(n, "parameter", None, _in_short(p)) for n, p in after.items() if n not in before]
    changes += [Change(n, "parameter", _in_short(p), None) for n, p in before.items() if n not in after]
    for name, was in before.items():
        for field in _DECIDING if name in after else ():
            then, now = getattr(was, field), getattr(after[name], field)
            alike = field == "weight_decay" and abs(then - now) <= 1e-9 * max(then, now)
            if then != now and not alike:
                changes.append(Change(name, field, then, now))
    kinds: dict[Text, list[Change]] = {}
    for change in changes:
        what = Text(f"{{differs|differ}} in {change.field}", f"的 {change.field} 不同")
        if change.field == "parameter":
            what = Text("{is|are} gone", "已不存在") if change.new is None else Text("{is|are} new", "是新的")
        kinds.setdefault(what, []).append(change)
    findings = []
    for what, alike in kinds.items():
        names, first = tuple(dict.fromkeys([change.parameter for change in alike])), alike[0]
        values = "" if first.field == "parameter" else f", {_shown(first.old)} -> {_shown(first.new)}"
        which = some(names)
        message = Text(
            f"{{n}} parameter{{|s}} {what} against the plan ({which}{values})",
            f"与计划相比，{{n}} 个参数{what.zh}（{which.zh}{values}）",
        )
        fix = Text(
            "if it is meant, save the plan again and commit it; else see what was renamed or regrouped",
            "若有意如此，重新保存计划并提交；否则检查哪些参数改了名字或换了组",
        )
        findings.append(CODES["WD601"].finding(Draft(names, message, fix)))
    return AuditDiff(tuple(changes), tuple(findings))


def _by_name(audit: Any, where: str) -> dict[str, Parameter]:
    """The parameters of an audit, or of the file that it was saved to."""
    if isinstance(audit, (str, Path)):
        # A folder may hold another result, but never a plan: read as a file, it is refused with the reason.
        audit = load(audit) if Path(audit).is_file() else read_json(Path(audit))
    if not isinstance(audit, Audit):
        remedy = "give an Audit, or the file it was saved to"
        raise InputError("not an audit", where, type(audit).__name__, remedy)
    return {parameter.name: parameter for parameter in audit.parameters}


def _in_short(parameter: Parameter) -> str:
    return f"{parameter.role}, weight_decay {parameter.weight_decay:g}"


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
