"""An audit as text for a terminal: findings first, then what decays."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from weightdecay.findings import Finding

if TYPE_CHECKING:
    from weightdecay.auditing.record import Audit, GroupTotal, Parameter

MOST = 40  # parameters that are shown one by one
MOST_GROUPS = 12
_NAMES = 4
_WITHOUT_STRENGTH = ("constrained", "fixednorm")


def shown(audit: "Audit") -> str:
    """The whole audit."""
    lines = [headline(audit)]
    if audit.settings.get("interval"):
        lines.append(f"  schedule: {audit.settings['interval']}")
    lines += [f"  {line}" for line in finding_lines(audit.findings)]
    lines += [f"  ignored {one.finding.code}{_reason(one.reason)}" for one in audit.ignored]
    return "\n".join([*lines, "", *aligned(rows(audit)), "", *group_lines(audit.groups)])


def headline(audit: "Audit") -> str:
    """How much decays, and how many findings there are."""
    counts = [
        sum(one.severity == severity for one in audit.findings) for severity in ("error", "warning", "info")
    ]
    words = [
        f"{n} {word}{'s' * (n != 1 and word != 'info')}"
        for n, word in zip(counts, ("error", "warning", "info"), strict=True)
        if n
    ]
    decaying = sum(one.decays for one in audit.parameters)
    share = audit.decaying / audit.elements if audit.elements else 0.0
    return (
        f"weight decay: {decaying} of {len(audit.parameters)} parameters decay, {share:.1%} of "
        f"{audit.elements:,} elements; {', '.join(words) or 'no findings'}"
    )


def group_lines(groups: Sequence["GroupTotal"]) -> list[str]:
    """Each parameter group in a line, the first ones of many."""
    lines = []
    for one in groups[:MOST_GROUPS]:
        title = f"{one.optimizer} {one.group}" if one.optimizer else "in no optimizer"
        label = f" {one.label!r}" if one.label else ""
        values = ", ".join(f"{value:g}" for value in one.weight_decay[:3])
        decays = f"{one.decaying:,} decay at {values}" if one.decaying else "no decay"
        lr = "" if one.lr is None else f", lr = {one.lr:g}"
        plural = "" if one.parameters == 1 else "s"
        lines.append(
            f"{title}{label}: {one.parameters:,} parameter{plural}, {one.elements:,} elements, {decays}{lr}"
        )
    if len(groups) > MOST_GROUPS:
        lines.append(f"and {len(groups) - MOST_GROUPS} more groups")
    return lines


def finding_lines(findings: Iterable[Finding]) -> list[str]:
    """Each finding in two or three lines."""
    lines: list[str] = []
    for one in findings:
        lines.append(f"{one.code} {one.severity}: {one.message}")
        if one.parameters:
            lines.append(f"      {some(one.parameters)}")
        lines.append(f"      fix: {one.fix}")
    return lines


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def rows(audit: "Audit") -> list[tuple[str, ...]]:
    """The table's rows: each parameter, or what has optimizer, group, role and strength in common."""
    if len(audit.parameters) <= MOST:
        head = ("parameter", "shape", "role", "group", "decays", "half-life", "why")
        return [head, *(_single(one) for one in audit.parameters)]
    alike: dict[tuple, list[Parameter]] = {}
    for one in audit.parameters:
        key = one.optimizer, one.group, one.role, one.weight_decay, one.rule, one.half_life, one.frozen
        alike.setdefault(key, []).append(one)
    head = ("optimizer", "group", "role", "parameters", "elements", "decays", "half-life", "for example")
    return [head, *(_several(several) for several in alike.values())]


def _single(one: "Parameter") -> tuple[str, ...]:
    shape = "×".join(map(str, one.shape)) or "scalar"
    why = one.why.partition("; ")[0]  # the rest is in the other columns
    return one.name, shape, one.role, place(one), strength(one), half_life(one), why


def _several(several: Sequence["Parameter"]) -> tuple[str, ...]:
    one = several[0]
    elements = sum(other.numel for other in several)
    group = "-" if one.group is None else str(one.group)
    return (
        *(one.optimizer or "-", group, one.role, f"{len(several):,}", f"{elements:,}"),
        *(strength(one), half_life(one), one.name),
    )


def place(one: "Parameter") -> str:
    """Optimizer and group."""
    return "-" if one.optimizer is None else f"{one.optimizer} {one.group}"


def strength(one: "Parameter") -> str:
    """λ and form in few words."""
    if one.optimizer is None:
        return "frozen" if one.frozen else "in no optimizer"
    if not one.weight_decay:
        return "frozen" if one.frozen else "no"
    return one.form if one.form in _WITHOUT_STRENGTH else f"{one.weight_decay:g} {one.form}"


def half_life(one: "Parameter") -> str:
    """The half-life in steps, and as a share of the run."""
    if one.half_life is None:
        return "-"
    steps = f"{one.half_life:,.0f}" if one.half_life >= 100 else f"{one.half_life:.3g}"
    share = "" if one.share_of_run is None else f" ({one.share_of_run:.2g} of the run)"
    return f"{steps} steps{share}"


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, columns under one another."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _reason(reason: str) -> str:
    return f": {reason}" if reason else ""
