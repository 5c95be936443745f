"""The page of an audit: findings first, then the tree of the parameters, coloured by strength."""

from collections.abc import Sequence

from weightdecay.auditing.checks import CODES
from weightdecay.auditing.record import SEVERITIES, Audit, Parameter, headline, reason
from weightdecay.reports.page import Node, Page, PageTable, number
from weightdecay.text import Text, chinese

_SHADES = {"error": 1.0, "warning": 0.4, "info": 0.1}


def page(audit: Audit) -> Page:
    """The page."""
    rows: list[list[str]] = []
    for finding in audit.findings:
        message, known = finding.message, CODES.get(finding.code)  # another version may have further codes
        names = ", ".join(finding.parameters[:20]) + (", …" if len(finding.parameters) > 20 else "")
        what = message if known is None else Text(message, f"{known.title.zh}（{chinese(message)}）")
        rows.append([finding.code, SEVERITIES[finding.severity], what, names, finding.fix])
    head: list[str] = [
        Text("code", "代码"),
        Text("severity", "级别"),
        Text("what", "内容"),
        Text("parameters", "参数"),
        Text("fix", "修正"),
    ]
    shades = [_SHADES[finding.severity] for finding in audit.findings]
    tables = [PageTable(Text("Findings", "结论"), head, rows, shades)] if rows else []
    largest = max((entry.weight_decay for entry in audit.parameters if entry.decays), default=0.0) or 1.0
    lines = [headline(audit)]
    if interval := audit.settings.get("interval"):
        lines.append(Text(f"schedule: {interval}", f"学习率调度：{interval}"))
    if not rows:
        lines.append(Text("no findings", "没有发现问题"))
    tree = _nodes([(entry.name.split("."), entry) for entry in audit.parameters], largest)
    caption = Text(
        f"Parameters: the darker, the stronger (at most {number(largest)})",
        f"参数：颜色越深，衰减越强（最强 {number(largest)}）",
    )
    return Page(
        Text("Audit of the weight decay", "权重衰减的审计"), lines, tables=tables, tree=(caption, tree)
    )


def _nodes(parts: Sequence[tuple[list[str], Parameter]], largest: float) -> list[Node]:
    """The tree of dotted names, in the model's order; a module on its own is joined with what it holds."""
    below: dict[str, list[tuple[list[str], Parameter]]] = {}
    for names, parameter in parts:
        below.setdefault(names[0], []).append((names[1:], parameter))
    nodes = []
    for name, inside in below.items():
        if not inside[0][0]:
            nodes += [_leaf(name, parameter, largest) for _, parameter in inside]
            continue
        children = _nodes(inside, largest)
        elements = sum(parameter.numel for _, parameter in inside)
        decaying = sum(parameter.numel for _, parameter in inside if parameter.decays)
        strength = sum(
            parameter.numel * parameter.weight_decay for _, parameter in inside if parameter.decays
        ) / max(1, elements)
        share = decaying / max(1, elements)
        text = Text(f"{elements:,} elements, {share:.0%} decay", f"{elements:,} 个元素，{share:.0%} 衰减")
        nodes.append(Node(name, text, strength / largest, children))
    return nodes


def _leaf(name: str, parameter: Parameter, largest: float) -> Node:
    shape = " × ".join(map(str, parameter.shape)) or "1"
    if parameter.decays:
        value = number(parameter.weight_decay)
        decay = Text(f"weight_decay {value}", f"强度 {value}")
        if parameter.half_life is not None:
            steps = number(parameter.half_life)
            decay = Text(f"{decay}, half-life {steps} steps", f"{decay.zh}，半衰期 {steps} 步")
    else:
        decay = Text("no decay", "不衰减")
    where = "" if parameter.group is None else f", {parameter.optimizer} {parameter.group}"
    why = Text(parameter.why, reason(parameter.why.partition("; ")[0]).zh)
    text = Text(
        f"{shape}, {parameter.role}{where}: {decay}; {why}",
        f"{shape}，{parameter.role}{where}：{decay.zh}；{why.zh}",
    )
    return Node(name, text, parameter.weight_decay / largest if parameter.decays else 0.0)
