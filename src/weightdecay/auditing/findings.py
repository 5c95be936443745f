"""The one list of what an audit can find: codes, titles, their order and the index of the pages come from it.

A new finding is a function in `checks`, an entry here, and its page in `docs/audit` in both languages.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from weightdecay.auditing import checks
from weightdecay.auditing.checks import Draft, counted
from weightdecay.auditing.state import State
from weightdecay.errors import Finding, Severity
from weightdecay.text import Text


@dataclass(frozen=True)
class Check:
    """What can look wrong.

    Args:
        code: stable; its page in the documentation has this name.
        severity: what it usually is; a single finding may be milder.
        title: a few words, as the page is called.
        find: yields what is wrong; None for what `audit_diff` finds.
    """

    code: str
    severity: Severity
    title: Text
    find: Callable[[State], Iterator[Draft]] | None

    def drafts(self, state: State) -> list[Draft]:
        """Return what is wrong in a state; drafts with one message are one, unless they stand apart."""
        together: dict[tuple[str, Severity | None], tuple[Draft, dict[str, None]]] = {}
        drafts: list[tuple[Draft, dict[str, None]]] = []
        for draft in self.find(state) if self.find else ():
            key: tuple[str, Severity | None] = draft.message, draft.severity
            names = dict.fromkeys(draft.names)
            if draft.apart or key not in together:
                drafts.append((draft, names))
                together[key] = drafts[-1]
            else:
                together[key][1].update(names)
        return [replace(draft, names=tuple(names)) for draft, names in drafts]

    def finding(self, draft: Draft, names: tuple[str, ...] | None = None) -> Finding:
        """Return the finding of a draft, about these names alone."""
        about = draft.names if names is None else names
        message = counted(draft.message, len(about))
        return Finding(self.code, draft.severity or self.severity, about, message, draft.fix)


# Within a severity, the costliest first: what ruins a run, what decays nothing or too much, what decays in
# another form or too little, a few parameters, and last what asks whether something was meant.
CHECKS = (
    Check("WD504", "error", Text("weights that are not numbers", "权重不是数"), checks.not_a_number),
    Check("WD401", "error", Text("the decay overshoots", "衰减冲过了头"), checks.overshoot),
    Check("WD501", "error", Text("a sparse gradient", "稀疏梯度"), checks.sparse_gradient),
    Check(
        "WD306",
        "warning",
        Text("the decay is not what its strength means", "衰减与强度的含义不符"),
        checks.other_meaning,
    ),
    Check("WD307", "error", Text("groups that are mixed up", "参数组被弄混了"), checks.mixed_up_groups),
    Check("WD304", "error", Text("a decay that is not applied", "衰减没有发生"), checks.not_applied),
    Check(
        "WD201", "error", Text("a parameter in no optimizer", "参数不在任何优化器里"), checks.in_no_optimizer
    ),
    Check("WD202", "error", Text("a parameter more than once", "参数出现了不止一次"), checks.repeated),
    Check("WD302", "error", Text("a parameter decays twice", "衰减了两次"), checks.twice),
    Check(
        "WD203",
        "error",
        Text("a parameter that is not in the model", "优化器里的参数不属于模型"),
        checks.strange,
    ),
    Check(
        "WD206",
        "error",
        Text("two parameters over the same memory", "两个参数共用一块内存"),
        checks.shared_memory,
    ),
    Check(
        "WD204",
        "error",
        Text("tied weights with two strengths", "共享的权重有两种强度"),
        checks.two_strengths,
    ),
    Check("WD503", "error", Text("a checkpoint changed the rule", "检查点改变了规则"), checks.changed_flag),
    Check(
        "WD402", "error", Text("below the precision of the weights", "低于权重的精度"), checks.below_precision
    ),
    Check("WD205", "error", Text("flattened parameters", "被压平的参数"), checks.flattened),
    Check("WD601", "error", Text("the plan changed", "计划变了"), None),
    Check("WD404", "warning", Text("faster than an epoch", "比一个轮次还快"), checks.faster_than_an_epoch),
    Check("WD406", "warning", Text("the decay oscillates", "衰减在振荡"), checks.oscillation),
    Check(
        "WD301",
        "warning",
        Text("coupled decay in an adaptive optimizer", "自适应优化器里的耦合衰减"),
        checks.divided_by_the_gradient,
    ),
    Check(
        "WD103", "warning", Text("a weight matrix does not decay", "权重矩阵不衰减"), checks.undecayed_weight
    ),
    Check("WD104", "warning", Text("one role, several strengths", "同一角色，几种强度"), checks.split_role),
    Check(
        "WD506", "warning", Text("resumed with another strength", "恢复后强度变了"), checks.resumed_strength
    ),
    Check(
        "WD505",
        "warning",
        Text("a scheduler of another optimizer", "调度器属于另一个优化器"),
        checks.other_scheduler,
    ),
    Check("WD502", "warning", Text("the gradient scaler", "梯度缩放器"), checks.gradient_scaler),
    Check("WD207", "warning", Text("frozen, and still moving", "已冻结，却还在动"), checks.frozen),
    Check("WD106", "info", Text("an adapter decays", "适配器在衰减"), checks.adapter),
    Check("WD107", "warning", Text("exempt, but decays", "模型要求豁免，却在衰减"), checks.exempt),
    Check("WD101", "warning", Text("a normalisation decays", "归一化层在衰减"), checks.normalization),
    Check("WD102", "warning", Text("a bias decays", "偏置在衰减"), checks.bias),
    Check("WD108", "warning", Text("a parameter that should not decay", "不该衰减的参数"), checks.unwanted),
    Check("WD303", "warning", Text("a strength nobody chose", "没有人选过的强度"), checks.by_default),
    Check(
        "WD305",
        "info",
        Text("the form of the decay is unusual or unknown", "衰减的形式不常见或不清楚"),
        checks.unusual_form,
    ),
    Check("WD405", "info", Text("slower than the run", "比整个训练还慢"), checks.slower_than_the_run),
    Check(
        "WD105",
        "info",
        Text("an embedding decays without gradient", "嵌入在没有梯度时也衰减"),
        checks.embedding,
    ),
    Check(
        "WD403", "info", Text("the decay does next to nothing", "衰减几乎不起作用"), checks.next_to_nothing
    ),
)
CODES = {check.code: check for check in sorted(CHECKS, key=lambda check: check.code)}
COST = tuple(check.code for check in CHECKS)
