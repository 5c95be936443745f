"""What an audit returns: frozen records that can be saved and printed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from weightdecay import arguments
from weightdecay.errors import Finding, check
from weightdecay.saving import AUDIT, Saved, write_json
from weightdecay.text import Text, chinese_of

if TYPE_CHECKING:
    import polars as pl


MOST = 40  # parameters that are shown one by one
MOST_GROUPS = 12
_NAMES = 4
SEVERITIES = {
    "error": Text("error", "错误"),
    "warning": Text("warning", "警告"),
    "info": Text("info", "提示"),
}
_WITHOUT_STRENGTH = ("constrained", "fixednorm")


def shown(audit: "Audit") -> str:
    """The whole audit."""
    lines: list[str] = [headline(audit)]
    if audit.settings.get("interval"):
        lines.append(f"  schedule: {audit.settings['interval']}")
    lines += [f"  {line}" for line in finding_lines(audit.findings)]
    for quiet in audit.ignored:
        lines.append(f"  ignored {quiet.finding.code}{': ' * bool(quiet.reason)}{quiet.reason}")
    return "\n".join([*lines, "", *aligned(rows(audit)), "", *group_lines(audit.groups)])


def headline(audit: "Audit") -> Text:
    """Say how much decays, and how many findings there are."""
    counts = []
    for severity, name in SEVERITIES.items():
        if n := sum(finding.severity == severity for finding in audit.findings):
            plural = "s" * (n != 1 and severity != "info")
            counts.append(Text(f"{n} {name}{plural}", f"{n} 个{name.zh}"))
    findings = Text(", ".join(counts), "，".join(chinese_of(counts)))
    if not counts:
        findings = Text("no findings", "没有发现问题")
    decaying, parameters = sum(p.decays for p in audit.parameters), len(audit.parameters)
    share = audit.decaying / audit.elements if audit.elements else 0.0
    return Text(
        f"weight decay: {decaying} of {parameters} parameters decay, {share:.1%} of {audit.elements:,} "
        f"elements; {findings}",
        f"权重衰减：{parameters} 个参数中有 {decaying} 个衰减，"
        f"占 {audit.elements:,} 个元素的 {share:.1%}；{findings.zh}",
    )


def group_lines(groups: Sequence["GroupTotal"]) -> list[str]:
    """Each parameter group in a line, the first ones of many."""
    lines = []
    for total in groups[:MOST_GROUPS]:
        title = f"{total.optimizer} {total.group}" if total.optimizer else "in no optimizer"
        label = f" {total.label!r}" if total.label else ""
        values = ", ".join(f"{value:g}" for value in total.weight_decay[:3])
        decays = f"{total.decaying:,} decay at {values}" if total.decaying else "no decay"
        lr = "" if total.lr is None else f", lr = {total.lr:g}"
        counts = f"{total.parameters:,} parameter{'s' * (total.parameters != 1)}, {total.elements:,} elements"
        lines.append(f"{title}{label}: {counts}, {decays}{lr}")
    if len(groups) > MOST_GROUPS:
        lines.append(f"and {len(groups) - MOST_GROUPS} more groups")
    return lines


def finding_lines(findings: Iterable[Finding]) -> list[str]:
    """Each finding in two or three lines."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.code} {finding.severity}: {finding.message}")
        if finding.parameters:
            lines.append(f"      {some(finding.parameters)}")
        lines.append(f"      fix: {finding.fix}")
    return lines


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def rows(audit: "Audit") -> list[tuple[str, ...]]:
    """The table's rows: each parameter, or what has optimizer, group, role and strength in common."""
    if len(audit.parameters) <= MOST:
        table: list[tuple[str, ...]] = [("parameter", "shape", "role", "group", "decays", "half-life", "why")]
        for p in audit.parameters:
            shape = "×".join(map(str, p.shape)) or "scalar"
            why = p.why.partition("; ")[0]  # the rest is in the other columns
            group = "-" if p.optimizer is None else f"{p.optimizer} {p.group}"
            table.append((p.name, shape, p.role, group, strength(p), half_life(p), why))
        return table
    alike: dict[tuple, list[Parameter]] = {}
    for p in audit.parameters:
        key = p.optimizer, p.group, p.role, p.weight_decay, p.rule, p.half_life, p.frozen
        alike.setdefault(key, []).append(p)
    table = [("optimizer", "group", "role", "parameters", "elements", "decays", "half-life", "for example")]
    for several in alike.values():
        p, group = several[0], "-" if several[0].group is None else str(several[0].group)
        elements = sum(other.numel for other in several)
        place = p.optimizer or "-", group, p.role, f"{len(several):,}", f"{elements:,}"
        table.append((*place, strength(p), half_life(p), p.name))
    return table


def strength(p: "Parameter") -> str:
    """λ and form in few words."""
    if p.optimizer is None or not p.weight_decay:
        return "frozen" if p.frozen else "in no optimizer" if p.optimizer is None else "no"
    return p.form if p.form in _WITHOUT_STRENGTH else f"{p.weight_decay:g} {p.form}"


def half_life(p: "Parameter") -> str:
    """The half-life in steps, and as a share of the run."""
    if p.half_life is None:
        return "-"
    steps = f"{p.half_life:,.0f}" if p.half_life >= 100 else f"{p.half_life:.3g}"
    share = "" if p.share_of_run is None else f" ({p.share_of_run:.2g} of the run)"
    return f"{steps} steps{share}"


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, columns under one another."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


@dataclass(frozen=True)
class Parameter:
    """What happens to one parameter.

    Args:
        name: as `model.named_parameters()` has it, without what wrappers add.
        aliases: its other names, where weights are tied.
        module: class of the module that holds it.
        role: what it is for: one of `weightdecay.groups.ROLES`.
        shape: of the whole tensor, where it is sharded.
        dtype: what it is stored in.
        numel: number of elements.
        optimizer: the class of the optimizer that has it, with its position where there are several; None
            where none has it.
        group: the position of its group in that optimizer.
        weight_decay: λ as the optimizer or the rule calls it, scale included; 0 where there is none.
        rule: by whose hand it decays, in words; empty where it does not.
        form: how: "decoupled", "coupled", "sign-normalised" and so on; "none" where it does not decay.
        half_life: in steps, at the peak step size; None where it does not decay or has no half-life.
        share_of_run: half-life over the steps of the run; None without steps.
        frozen: whether it does not require a gradient.
        why: why it has this role and this strength.
    """

    name: str
    aliases: tuple[str, ...]
    module: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    numel: int
    optimizer: str | None
    group: int | None
    weight_decay: float
    rule: str
    form: str
    half_life: float | None
    share_of_run: float | None
    frozen: bool
    why: str

    @property
    def decays(self) -> bool:
        """Whether anything is removed: a strength that its optimizer does not apply removes nothing."""
        return self.weight_decay > 0 and self.form != "none"


@dataclass(frozen=True)
class GroupTotal:
    """One parameter group of an optimizer, summed up.

    Args:
        optimizer: as in `Parameter`.
        group: its position; None for the parameters that no optimizer has.
        label: the group's name, if it has one.
        lr: the step size now.
        parameters: how many it has.
        elements: how many numbers these have.
        decaying: how many of these decay.
        weight_decay: the strengths that occur, the largest first.
    """

    optimizer: str | None
    group: int | None
    label: str
    lr: float | None
    parameters: int
    elements: int
    decaying: int
    weight_decay: tuple[float, ...]


@dataclass(frozen=True)
class Ignored:
    """A finding that was not to be told, and the reason given."""

    finding: Finding
    reason: str


@dataclass(frozen=True)
class Audit:
    """What decays in a model, how strongly and why, and what looks wrong.

    Args:
        parameters: one record each, in the model's order.
        findings: errors first.
        ignored: findings that were ignored.
        groups: each parameter group summed up.
        settings: what the audit was told: steps, schedule, groups.
        versions: of the package, of torch.
    """

    parameters: tuple[Parameter, ...] = field(repr=False)
    findings: tuple[Finding, ...]
    ignored: tuple[Ignored, ...] = ()
    groups: tuple[GroupTotal, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    versions: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings of severity "error"."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings of severity "warning"."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def elements(self) -> int:
        """How many numbers the model has, tied weights counted once."""
        return sum(parameter.numel for parameter in self.parameters)

    @property
    def decaying(self) -> int:
        """How many of these decay."""
        return sum(parameter.numel for parameter in self.parameters if parameter.decays)

    def check(self) -> None:
        """Raise if there is an error.

        Raises:
            FindingsError: with all findings of severity "error".
        """
        check(self.findings)

    def table(self) -> "pl.DataFrame":
        """The parameters as a table, a row each."""
        import polars as pl

        rows = [asdict(parameter) for parameter in self.parameters]
        for row in rows:
            row["aliases"], row["shape"] = list(row["aliases"]), list(row["shape"])
        return pl.DataFrame(rows, schema=_columns(pl))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `save` writes them."""
        return {"format": f"{AUDIT.name}, version {AUDIT.version}", **asdict(self)}

    def save(self, path: str | Path) -> Path:
        """Write one JSON file, whole or not at all: a plan to keep in a repository.

        Raises:
            InputError: it cannot be written.
        """
        file = arguments.path(path, "path", "give the name of a file to write, such as audit.json")
        write_json(file, self.to_dict())
        return file

    def __str__(self) -> str:
        return shown(self)

    def _repr_html_(self) -> str:
        return page(self)


def _columns(pl: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("name", "module", "role", "dtype", "optimizer", "rule", "form", "why"), pl.String)
    numbers = dict.fromkeys(("weight_decay", "half_life", "share_of_run"), pl.Float64)
    kinds = {"aliases": pl.List(pl.String), "shape": pl.List(pl.Int64), "frozen": pl.Boolean}
    whole = {"numel": pl.Int64, "group": pl.Int64}
    every = {**texts, **numbers, **kinds, **whole}
    return {name: every[name] for name in Parameter.__dataclass_fields__}


def from_saved(saved: Saved) -> Audit:
    """Make the audit that `Audit.save` wrote."""
    parameters = tuple(_made(Parameter, row) for row in saved["parameters"])
    if len({parameter.name for parameter in parameters}) < len(parameters):
        raise ValueError("a parameter is there twice")
    return Audit(
        parameters=parameters,
        findings=tuple(_made(Finding, row) for row in saved["findings"]),
        ignored=tuple(
            Ignored(_made(Finding, row["finding"]), str(row["reason"])) for row in saved["ignored"]
        ),
        groups=tuple(_made(GroupTotal, row) for row in saved["groups"]),
        settings=dict(saved["settings"]),
        versions=dict(saved["versions"]),
    )


def _made(kind: Any, row: Mapping[str, Any]) -> Any:
    """A record from plain values: lists become tuples."""
    names = [spec.name for spec in fields(kind)]
    if set(row) != set(names):
        raise ValueError(f"{kind.__name__} has other fields: {sorted(set(row) ^ set(names))}")
    values = {name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in names}
    hints = get_type_hints(kind)
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"{kind.__name__}.{name} = {value!r}")
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is what a record's annotation says."""
    parts = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(item, parts[0]) for item in value)
    if get_origin(hint) is Literal:
        return value in parts
    if parts:
        return any(_fits(value, part) for part in parts)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def page(audit: "Audit") -> str:
    """The findings and the table."""
    head, *body = rows(audit)
    findings = [
        (finding.code, finding.severity, finding.message, some(finding.parameters), finding.fix)
        for finding in audit.findings
    ]
    parts = [f"<p>{escape(headline(audit))}</p>"]
    if audit.settings.get("interval"):
        parts.append(f"<p>schedule: {escape(audit.settings['interval'])}</p>")
    if findings:
        parts.append(_table(("code", "severity", "what", "parameters", "fix"), findings))
    if audit.ignored:
        quiet = [f"{i.finding.code} {i.reason}".strip() for i in audit.ignored]
        parts.append(f"<p>ignored: {escape('; '.join(quiet))}</p>")
    totals = "".join(f"<li>{escape(line)}</li>" for line in group_lines(audit.groups))
    return "\n".join([*parts, _table(head, body), f"<ul>{totals}</ul>"])


def _table(head: tuple[str, ...], body: "list[tuple[str, ...]]") -> str:
    lines = ["<table>", f"<thead>{_row(head, 'th')}</thead>", "<tbody>"]
    return "\n".join([*lines, *(_row(row, "td") for row in body), "</tbody>", "</table>"])


def _row(cells: tuple[str, ...], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
