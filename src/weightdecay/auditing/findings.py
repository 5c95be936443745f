"""The codes of the findings: stable, each with a page in the documentation; what they cost."""

from dataclasses import dataclass

from weightdecay.errors import Finding, Severity
from weightdecay.text import Text


@dataclass(frozen=True)
class Code:
    """What a code stands for.

    Args:
        title: a few words, as its page is called.
        severity: what it usually is; a single finding may be milder.
    """

    title: Text
    severity: Severity


CODES: dict[str, Code] = {
    "WD101": Code(Text("a normalisation decays", "归一化层在衰减"), "warning"),
    "WD102": Code(Text("a bias decays", "偏置在衰减"), "warning"),
    "WD103": Code(Text("a weight matrix does not decay", "权重矩阵不衰减"), "warning"),
    "WD104": Code(Text("one role, several strengths", "同一角色，几种强度"), "warning"),
    "WD105": Code(Text("an embedding decays without gradient", "嵌入在没有梯度时也衰减"), "info"),
    "WD106": Code(Text("an adapter decays", "适配器在衰减"), "info"),
    "WD107": Code(Text("exempt, but decays", "模型要求豁免，却在衰减"), "warning"),
    "WD108": Code(Text("a parameter that should not decay", "不该衰减的参数"), "warning"),
    "WD201": Code(Text("a parameter in no optimizer", "参数不在任何优化器里"), "error"),
    "WD202": Code(Text("a parameter more than once", "参数出现了不止一次"), "error"),
    "WD203": Code(Text("a parameter that is not in the model", "优化器里的参数不属于模型"), "error"),
    "WD204": Code(Text("tied weights with two strengths", "共享的权重有两种强度"), "error"),
    "WD205": Code(Text("flattened parameters", "被压平的参数"), "error"),
    "WD206": Code(Text("two parameters over the same memory", "两个参数共用一块内存"), "error"),
    "WD207": Code(Text("frozen, and still moving", "已冻结，却还在动"), "warning"),
    "WD301": Code(Text("coupled decay in an adaptive optimizer", "自适应优化器里的耦合衰减"), "warning"),
    "WD302": Code(Text("a parameter decays twice", "衰减了两次"), "error"),
    "WD303": Code(Text("a strength nobody chose", "没有人选过的强度"), "warning"),
    "WD304": Code(Text("a decay that is not applied", "衰减没有发生"), "error"),
    "WD305": Code(Text("the form of the decay is unusual or unknown", "衰减的形式不常见或不清楚"), "info"),
    "WD306": Code(Text("the decay is not what its strength means", "衰减与强度的含义不符"), "warning"),
    "WD307": Code(Text("groups that are mixed up", "参数组被弄混了"), "error"),
    "WD401": Code(Text("the decay overshoots", "衰减冲过了头"), "error"),
    "WD402": Code(Text("below the precision of the weights", "低于权重的精度"), "error"),
    "WD403": Code(Text("the decay does next to nothing", "衰减几乎不起作用"), "info"),
    "WD404": Code(Text("faster than an epoch", "比一个轮次还快"), "warning"),
    "WD405": Code(Text("slower than the run", "比整个训练还慢"), "info"),
    "WD406": Code(Text("the decay oscillates", "衰减在振荡"), "warning"),
    "WD501": Code(Text("a sparse gradient", "稀疏梯度"), "error"),
    "WD502": Code(Text("the gradient scaler", "梯度缩放器"), "warning"),
    "WD503": Code(Text("a checkpoint changed the rule", "检查点改变了规则"), "error"),
    "WD504": Code(Text("weights that are not numbers", "权重不是数"), "error"),
    "WD505": Code(Text("a scheduler of another optimizer", "调度器属于另一个优化器"), "warning"),
    "WD506": Code(Text("resumed with another strength", "恢复后强度变了"), "warning"),
    "WD601": Code(Text("the plan changed", "计划变了"), "error"),
}

# Within a severity, the costliest first: what ruins a run, what decays nothing or too much, what decays in
# another form or too little, a few parameters, and last what asks whether something was meant.
COST: tuple[str, ...] = (
    *("WD504", "WD401", "WD501", "WD306", "WD307", "WD304", "WD201", "WD202", "WD302", "WD203", "WD206"),
    *("WD204", "WD503", "WD402", "WD205", "WD601"),
    *("WD404", "WD406", "WD301", "WD103", "WD104", "WD506", "WD505", "WD502", "WD207"),
    *("WD106", "WD107", "WD101", "WD102", "WD108", "WD303"),
    *("WD305", "WD405", "WD105", "WD403"),
)


@dataclass(frozen=True)
class Draft:
    """What a check found; names may still be taken out of it.

    Args:
        code: one of `CODES`.
        names: of the parameters concerned; empty where it is the whole.
        message: what, with the numbers, as `counted` takes it.
        fix: what to do.
        severity: None is the code's own.
    """

    code: str
    names: tuple[str, ...]
    message: str
    fix: str
    severity: Severity | None = None

    def finding(self, names: tuple[str, ...] | None = None) -> Finding:
        """The finding, about these names alone."""
        about = self.names if names is None else names
        severity = self.severity or CODES[self.code].severity
        return Finding(self.code, severity, about, counted(self.message, len(about)), self.fix)


def counted(message: str, n: int) -> str:
    """A message for so many: "{n}" is the number, "{one|many}" the word for it.

    >>> counted("{n} bias{|es} decay{s|}", 1), counted("{n} bias{|es} decay{s|}", 3)
    ('1 bias decays', '3 biases decay')
    """
    parts = message.replace("{n}", f"{n:,}").split("{")
    shown = parts[0]
    for part in parts[1:]:
        words, _, rest = part.partition("}")
        one, _, many = words.partition("|")
        shown += (one if n == 1 else many) + rest
    return shown
