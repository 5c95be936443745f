"""The page of an audit: findings first, then every parameter, coloured by its strength."""

from weightdecay.auditing.record import Audit
from weightdecay.reports.page.figures import Page, Table, number


def page(audit: Audit) -> Page:
    """The page."""
    findings = [
        [one.code, one.severity, one.message, ", ".join(one.parameters[:20]), one.fix]
        for one in audit.findings
    ]
    largest = max((one.weight_decay for one in audit.parameters), default=0.0) or 1.0
    rows = [
        [
            one.name,
            " × ".join(map(str, one.shape)),
            one.role,
            "–" if one.group is None else f"{one.optimizer} {one.group}",
            number(one.weight_decay) if one.decays else "–",
            number(one.half_life),
            one.why,
        ]
        for one in audit.parameters
    ]
    head = [("parameter", "参数"), ("shape", "形状"), ("role", "角色"), ("group", "组"), "weight_decay"]
    more = [("half-life in steps", "半衰期（步）"), ("why", "原因")]
    severity = [
        ("code", "代码"),
        ("severity", "级别"),
        ("what", "内容"),
        ("parameters", "参数"),
        ("fix", "修正"),
    ]
    shades = {"error": 1.0, "warning": 0.4, "info": 0.1}
    tables = [
        Table(("Findings", "结论"), severity, findings, [shades[one.severity] for one in audit.findings]),
        Table(
            ("Parameters, coloured by strength", "参数，按强度着色"),
            [*head, *more],
            rows,
            [one.weight_decay / largest if one.decays else 0.0 for one in audit.parameters],
        ),
    ]
    line = str(audit).splitlines()[0]
    return Page(("Audit of the weight decay", "权重衰减的审计"), [line], (), tables)
