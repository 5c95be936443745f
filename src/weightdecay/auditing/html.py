"""An audit for a notebook: a plain table, everything escaped."""

from html import escape
from typing import TYPE_CHECKING

from weightdecay.auditing.show import group_lines, headline, rows, some

if TYPE_CHECKING:
    from weightdecay.auditing.record import Audit


def page(audit: "Audit") -> str:
    """The findings and the table."""
    head, *body = rows(audit)
    findings = [
        (one.code, one.severity, one.message, some(one.parameters), one.fix) for one in audit.findings
    ]
    parts = [f"<p>{escape(headline(audit))}</p>"]
    if audit.settings.get("interval"):
        parts.append(f"<p>schedule: {escape(audit.settings['interval'])}</p>")
    if findings:
        parts.append(_table(("code", "severity", "what", "parameters", "fix"), findings))
    if audit.ignored:
        quiet = [f"{one.finding.code} {one.reason}".strip() for one in audit.ignored]
        parts.append(f"<p>ignored: {escape('; '.join(quiet))}</p>")
    totals = "".join(f"<li>{escape(line)}</li>" for line in group_lines(audit.groups))
    return "\n".join([*parts, _table(head, body), f"<ul>{totals}</ul>"])


def _table(head: tuple[str, ...], body: "list[tuple[str, ...]]") -> str:
    lines = ["<table>", f"<thead>{_row(head, 'th')}</thead>", "<tbody>"]
    return "\n".join([*lines, *(_row(row, "td") for row in body), "</tbody>", "</table>"])


def _row(cells: tuple[str, ...], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
