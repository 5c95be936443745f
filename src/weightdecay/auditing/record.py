"""What an audit returns: frozen records that can be saved and printed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from weightdecay import arguments
from weightdecay.errors import Finding, check
from weightdecay.saving import AUDIT, Saved, write_json
from weightdecay.text import Text, chinese, chinese_of, columns_of, local, padded

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
    lines: list[str] = [local(headline(audit))]
    if interval := audit.settings.get("interval"):
        lines.append(f"  {local(schedule_line(interval))}")
    lines += [f"  {line}" for line in finding_lines(audit.findings)]
    for quiet in audit.ignored:
        code, reason = quiet.finding.code, ": " * bool(quiet.reason) + quiet.reason
        lines.append(f"  {local(Text(f'ignored {code}{reason}', f'已忽略 {code}{reason}'))}")
    return "\n".join([*lines, "", *aligned(rows(audit)), "", *group_lines(audit.groups)])


def schedule_line(interval: str) -> Text:
    """Say how often the schedule goes on."""
    return Text(f"schedule: {interval}", f"学习率调度：{interval}")


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
        title = _group_of(total.optimizer, total.group)
        label = f" {total.label!r}" if total.label else ""
        values = ", ".join(f"{value:g}" for value in total.weight_decay[:3])
        count, elements, decaying = (f"{n:,}" for n in (total.parameters, total.elements, total.decaying))
        decays = Text("no decay", "不衰减")
        if total.decaying:
            decays = Text(f"{decaying} decay at {values}", f"其中 {decaying} 个以 {values} 衰减")
        lr = Text("", "")
        if total.lr is not None:
            lr = Text(f", lr = {total.lr:g}", f"，学习率 {total.lr:g}")
        plural = "s" * (total.parameters != 1)
        line = Text(
            f"{title}{label}: {count} parameter{plural}, {elements} elements, {decays}{lr}",
            f"{title.zh}{label}：{count} 个参数，{elements} 个元素，{decays.zh}{lr.zh}",
        )
        lines.append(local(line))
    if (more := len(groups) - MOST_GROUPS) > 0:
        lines.append(local(Text(f"and {more} more groups", f"还有 {more} 组")))
    return lines


def _group_of(optimizer: str | None, group: int | None) -> Text:
    """Name a parameter group by its optimizer and its place."""
    if optimizer is None:
        return Text("in no optimizer", "不在任何优化器里")
    return Text(f"{optimizer} {group}", f"{chinese(optimizer)} {group}")


def finding_lines(findings: Iterable[Finding]) -> list[str]:
    """Each finding in two or three lines."""
    lines: list[str] = []
    for finding in findings:
        lines.append(finding_head(finding))
        if finding.parameters:
            lines.append(f"      {local(some(finding.parameters))}")
        fix = Text(f"fix: {finding.fix}", f"修正：{chinese(finding.fix)}")
        lines.append(f"      {local(fix)}")
    return lines


def finding_head(finding: Finding) -> str:
    """Code, severity and message of a finding."""
    code, severity, message = finding.code, SEVERITIES[finding.severity], finding.message
    return local(Text(f"{code} {severity}: {message}", f"{code} {severity.zh}：{chinese(message)}"))


def some(names: Sequence[str]) -> Text:
    """The first names, and how many more there are."""
    shown, more = ", ".join(names[:_NAMES]), len(names) - _NAMES
    return Text(f"{shown} and {more} more", f"{shown} 和另外 {more} 个") if more > 0 else Text(shown, shown)


def rows(audit: "Audit") -> list[tuple[str, ...]]:
    """The table's rows: each parameter, or what has optimizer, group, role and strength in common."""
    if len(audit.parameters) <= MOST:
        table = [_head("parameter", "shape", "role", "group", "decays", "half-life", "why")]
        for p in audit.parameters:
            shape = "×".join(map(str, p.shape)) or local(Text("scalar", "标量"))
            why = reason(p.why.partition("; ")[0])  # the rest is in the other columns
            group = "-" if p.optimizer is None else local(_group_of(p.optimizer, p.group))
            table.append((p.name, shape, p.role, group, strength(p), half_life(p), local(why)))
        return table
    alike: dict[tuple, list[Parameter]] = {}
    for p in audit.parameters:
        key = p.optimizer, p.group, p.role, p.weight_decay, p.rule, p.half_life, p.frozen
        alike.setdefault(key, []).append(p)
    table = [
        _head("optimizer", "group", "role", "parameters", "elements", "decays", "half-life", "for example")
    ]
    for several in alike.values():
        p, group = several[0], "-" if several[0].group is None else str(several[0].group)
        elements = sum(other.numel for other in several)
        place = local(p.optimizer or "-"), group, p.role, f"{len(several):,}", f"{elements:,}"
        table.append((*place, strength(p), half_life(p), p.name))
    return table


def strength(p: "Parameter") -> str:
    """λ and form in few words."""
    if p.optimizer is None or not p.weight_decay:
        if p.frozen:
            return local(Text("frozen", "已冻结"))
        return local(_group_of(None, None) if p.optimizer is None else Text("no", "否"))
    return p.form if p.form in _WITHOUT_STRENGTH else f"{p.weight_decay:g} {p.form}"


def half_life(p: "Parameter") -> str:
    """The half-life in steps, and as a share of the run."""
    if p.half_life is None:
        return "-"
    steps = f"{p.half_life:,.0f}" if p.half_life >= 100 else f"{p.half_life:.3g}"
    life = Text(f"{steps} steps", f"{steps} 步")
    if p.share_of_run is not None:
        share = f"{p.share_of_run:.2g}"
        life = Text(f"{life} ({share} of the run)", f"{life.zh}（训练的 {share} 倍）")
    return local(life)


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, columns under one another."""
    widths = [max(map(columns_of, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


_HEADS = {
    "parameter": "参数",
    "shape": "形状",
    "role": "角色",
    "group": "组",
    "decays": "衰减",
    "half-life": "半衰期",
    "why": "原因",
    "optimizer": "优化器",
    "parameters": "参数数",
    "elements": "元素数",
    "for example": "例如",
}
# Why a parameter has its role, as `weightdecay.groups.inventory` puts it, in Chinese.
_REASONS = (
    (r"(\S+) of (\S+)", r"\2 的 \1"),
    (r"(\S+) of the parametrised (\S+) of (\S+)", r"参数化的 \3.\2 的 \1"),
    (r"the gain of weight_norm on (\S+) of (\S+)", r"\2 的 \1 上 weight_norm 的增益"),
    (r"(\S+) of (\S+), a normalisation by the name of its class", r"\2 的 \1，按类名是归一化层"),
    (r"weight of (\S+), an embedding by the name of its class", r"\1 的 weight，按类名是嵌入"),
    (r"(\S+) of (\S+), several tensors laid into one", r"\2 的 \1，由多个张量压平而成"),
    (r"(\S+), a weight matrix by its name and shape,(?: of (\S+))?", r"\2 的 \1，按名字和形状是权重矩阵"),
    (r"(\S+), taken for a weight matrix by its shape,(?: of (\S+))?", r"\2 的 \1，按形状当作权重矩阵"),
    (r"(\S+), a token embedding by its name,(?: of (\S+))?", r"\2 的 \1，按名字是词元嵌入"),
    (r"(\S+), no weight matrix by its name (\(\w+\)),(?: of (\S+))?", r"\3 的 \1，按名字 \2 不是权重矩阵"),
    (r"(\S+), a vector with further axes of size 1,(?: of (\S+))?", r"\2 的 \1，其余各轴长为 1 的向量"),
    (r"(\S+), broadcast along its first axis,(?: of (\S+))?", r"\2 的 \1，沿第一个轴广播"),
    (r"(\S+), a vector(?: of (\S+))?", r"\2 的 \1，向量"),
    (r"(\S+), a scalar(?: of (\S+))?", r"\2 的 \1，标量"),
    (
        r"(\S+), the gain of a normalisation by its use in forward of (\S+)",
        r"\2 的 \1，按在 forward 中的用法是归一化的增益",
    ),
    (r"(\S+), added by the forward of (\S+)", r"\2 的 \1，在 forward 中相加"),
    (r"(\S+), a linear map by its use in forward of (\S+)", r"\2 的 \1，按在 forward 中的用法是线性映射"),
    (r"(\S+), a kernel by its use in forward of (\S+)", r"\2 的 \1，按在 forward 中的用法是卷积核"),
    (r"(\S+), looked up by the forward of (\S+)", r"\2 的 \1，在 forward 中查表"),
    (
        r"(\S+), embedding and output head by its use in forward of (\S+)",
        r"\2 的 \1，按在 forward 中的用法既是嵌入又是输出头",
    ),
    (
        r"(\S+), no weight matrix by its use in forward of (\S+)",
        r"\2 的 \1，按在 forward 中的用法不是权重矩阵",
    ),
    (
        r"tied: (.+) and (\S+) are one parameter, embedding and output head",
        r"共享：\1 与 \2 是同一个参数，既是嵌入又是输出头",
    ),
)


def _head(*names: str) -> tuple[str, ...]:
    return tuple(local(Text(name, _HEADS[name])) for name in names)


def reason(english: str) -> Text:
    """Return why a parameter has its role; records and files have it in English."""
    for pattern, words in _REASONS:
        if match := re.fullmatch(pattern, english):
            return Text(english, match.expand(words).removeprefix(" 的 "))
    if english.endswith(suffix := ", returned by get_output_embeddings()"):
        return Text(english, f"{reason(english.removesuffix(suffix)).zh}，由 get_output_embeddings() 返回")
    return Text(english, english)


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
    parts = [f"<p>{escape(local(headline(audit)))}</p>"]
    if interval := audit.settings.get("interval"):
        parts.append(f"<p>{escape(local(schedule_line(interval)))}</p>")
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
