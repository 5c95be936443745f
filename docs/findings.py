"""The tables in the index of the audit's findings, from the list that the audit itself goes by."""

from weightdecay.auditing.checks import CODES
from weightdecay.auditing.record import SEVERITIES
from weightdecay.text import Text

MARK = "<!-- findings -->"
# What the hundreds of the codes are about.
AREAS = {
    "WD1": Text("Which parameters decay", "哪些参数在衰减"),
    "WD2": Text("Parameters and optimizers", "参数与优化器"),
    "WD3": Text("Form", "形式"),
    "WD4": Text("Strength", "强度"),
    "WD5": Text("Mechanics", "机制"),
    "WD6": Text("Against a plan", "与计划对照"),
}
HEAD = Text("| code | severity | what |", "| 代码 | 严重程度 | 内容 |")


def listed(text, suffix=""):
    """The index with its tables and the pages it leads to; `suffix` is ".zh" for the Chinese one."""

    def said(of):
        return of.zh if suffix else of

    lines = []
    for area, title in AREAS.items():
        lines += [f"## {said(title)}", "", said(HEAD), "|---|---|---|"]
        for code, check in CODES.items():
            if code.startswith(area):
                name = check.title.zh if suffix else check.title[0].upper() + check.title[1:]
                lines.append(f"| [{code}]({code}{suffix}.md) | {said(SEVERITIES[check.severity])} | {name} |")
        lines.append("")
    pages = "\n".join(f"{code}{suffix}" for code in CODES)
    return text.replace(MARK, "\n".join([*lines, f"```{{toctree}}\n:hidden:\n\n{pages}\n```"]))
