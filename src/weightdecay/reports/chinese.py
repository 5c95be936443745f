"""What records say of themselves in English sentences, in Chinese ones: from the same values."""

import math

import polars as pl
import torch
from torch import Tensor

from weightdecay.auditing.record import Audit
from weightdecay.monitor.record import RATIO, RESIDUAL, UNASKED, Monitored
from weightdecay.ridge.model import LEAST_LEFT
from weightdecay.ridge.record import LOST, RidgePath, constant_columns, interpolates
from weightdecay.ridge.table_fit import HeldOut
from weightdecay.sweeps.record import Sweep

# What the codes of an audit stand for; their pages have the same titles.
FINDINGS = {
    "WD101": "归一化层在衰减",
    "WD102": "偏置在衰减",
    "WD103": "权重矩阵不衰减",
    "WD104": "同一角色，几种强度",
    "WD105": "嵌入在没有梯度时也衰减",
    "WD106": "适配器在衰减",
    "WD107": "模型要求豁免，却在衰减",
    "WD108": "不该衰减的参数",
    "WD201": "参数不在任何优化器里",
    "WD202": "参数出现了不止一次",
    "WD203": "优化器里的参数不属于模型",
    "WD204": "共享的权重有两种强度",
    "WD205": "被压平的参数",
    "WD206": "两个参数共用一块内存",
    "WD207": "已冻结，却还在动",
    "WD301": "自适应优化器里的耦合衰减",
    "WD302": "衰减了两次",
    "WD303": "没有人选过的强度",
    "WD304": "衰减没有发生",
    "WD305": "衰减的形式不常见或不清楚",
    "WD306": "衰减与强度的含义不符",
    "WD307": "参数组被弄混了",
    "WD401": "衰减冲过了头",
    "WD402": "低于权重的精度",
    "WD403": "衰减几乎不起作用",
    "WD404": "比一个轮次还快",
    "WD405": "比整个训练还慢",
    "WD406": "衰减在振荡",
    "WD501": "稀疏梯度",
    "WD502": "梯度缩放器",
    "WD503": "检查点改变了规则",
    "WD504": "权重不是数",
    "WD505": "调度器属于另一个优化器",
    "WD506": "恢复后强度变了",
    "WD601": "计划变了",
}
SEVERITY = {"error": "错误", "warning": "警告", "info": "提示"}
_JUDGED = {"loo": "留一法", "gcv": "广义交叉验证", "evidence": "证据"}
_UNITS = {"steps": "步", "epochs": "轮", "samples": "个样本"}


def ridge_lines(path: RidgePath) -> list[str]:
    """What was done and what was chosen."""
    lambdas = path.lambdas
    grid = f"{len(lambdas)} 个 λ（{lambdas[0]:.4g} 到 {lambdas[-1]:.4g}）" if len(lambdas) > 1 else "一个 λ"
    judged = _JUDGED.get(path.cv, path.cv)
    said = [f"{path.n:,} 行，{path.p:,} 列：只分解一次，在{grid}上用{judged}评判（单位 {path.unit}）"]
    if isinstance(path.best, float) and isinstance(path.one_se, float):
        best, one_se = (int((lambdas - lam).abs().argmin()) for lam in (path.best, path.one_se))
        least = f" {float(path.scores[best]):.4g}" if path.scores.ndim == 1 else ""
        said.append(
            f"得分最小值{least}在 λ = {path.best:.4g}，自由度 {float(path.dof[best]):.4g}；"
            f"一倍标准误之内直到 λ = {path.one_se:.4g}，自由度 {float(path.dof[one_se]):.4g}"
        )
    if still := constant_columns(path):
        said.append(f"不变化的列系数为 0（共 {len(still)} 列）")
    worst = float(path.precision.max())
    if worst <= _told(path):
        said.append(f"得分的相对误差估计不超过 {worst:.1g}")
    return said


def ridge_doubts(path: RidgePath) -> list[str]:
    """What to be careful about."""
    said = []
    if constant := int((path._solver.variance == 0).sum()):
        said.append(f"有 {constant} 个目标不变化，没有什么可预测的")
    if path.flat and len(path.lambdas) > 1:
        said.append("曲线是平的：一倍标准误分不出哪个 λ 更好；这些数据选不出 λ")
    if path.edge is not None and not path.flat:
        side = "最弱" if path.edge == "low" else "最强"
        said.append(f"得分最小值在网格的边缘，是试过的{side}的 λ")
    choose = path.settings.get("request", {}).get("choose")
    said += _interpolates(path, path.one_se if choose == "one-se" else path.best)
    worst = float(path.precision.max())
    if worst > _told(path):
        where = float(path.lambdas[int(path.precision.argmax())])
        lost = (
            f"在 λ = {where:.4g} 处得分没有一位数字是可靠的，结果由舍入决定"
            if worst == math.inf
            else f"得分的相对误差估计为 {worst:.1g}（λ = {where:.4g}）"
        )
        said.append(f"数字位数有损失：{lost}；请标准化，或取更大的 λ")
    return said


def _interpolates(path: RidgePath, lam: float | Tensor) -> list[str]:
    """That the model at λ has nearly as many degrees of freedom as rows, and what follows; or nothing."""
    if interpolates(path, lam) is None:
        return []
    lams = torch.as_tensor(lam).reshape(-1)
    left = path.n - path._dof(path._alphas(lam))
    k = int(left.argmin())
    so = (
        "模型对这些行作了插值，没有剩下什么可用来估计噪声标准差或预测区间"
        if left[k] < LEAST_LEFT
        else f"噪声标准差、标准误和预测区间只依据剩下的 {float(left[k]):.4g} 个自由度"
    )
    one_se = (
        "，例如一倍标准误的 λ（one_se，--choose one-se）" if interpolates(path, path.one_se) is None else ""
    )
    return [
        f"λ = {float(lams[k if len(lams) > 1 else 0]):.4g} 处的模型对 {path.n:,} 行用了 "
        f"{path.n - float(left[k]):.4g} 个自由度：{so}；请取更大的 λ{one_se}"
    ]


def held_out_line(seen: HeldOut) -> str:
    """How well rows were predicted that the fit had not seen."""
    r2, rmse = ("、".join(f"{value:.3g}" for value in one.tolist()) for one in (seen.r2, seen.rmse))
    return f"留出的行：R² {r2}，均方根误差 {rmse}"


def sweep_lines(sweep: Sweep) -> list[str]:
    """The best, one standard error, against no decay, and the shape of the curve."""
    found, seeds = sweep.selection, len(sweep.seeds)
    order = "最大" if sweep.goal.maximize else "最小"
    among = (
        f"{len(found.strengths)} 个强度中{order}（{f'{seeds} 个种子的平均' if seeds > 1 else '一个种子'}）"
    )
    lines = [f"最好：{_named(sweep, sweep.best)}，{_scored(sweep, sweep.best)}，{among}"]
    if seeds == 1:
        lines.append("一倍标准误：一个种子无从知道")
    elif sweep.one_se == sweep.best:
        lines.append("一倍标准误：更强的衰减与最好的都相差超过一倍标准误，或没有试过")
    else:
        lines.append(
            f"一倍标准误：之内最强的是 {_named(sweep, sweep.one_se)}，{_scored(sweep, sweep.one_se)}"
        )
    lines.append(_no_decay(sweep))
    weakest, strongest = (_named(sweep, value) for value in sweep.flat_range)
    if seeds == 1:
        lines.append("范围：一个种子无从知道")
    elif sweep.flat:
        lines.append("平：一倍标准误分不出哪个强度更好")
    elif weakest == strongest:
        lines.append("范围：相邻的强度与最好的都相差超过一倍标准误")
    else:
        lines.append(f"范围：从 {weakest} 到 {strongest}，一倍标准误分不出哪个更好")
    return lines


def sweep_doubts(sweep: Sweep) -> list[str]:
    """What to be careful about."""
    found, none = sweep.selection, sweep.no_decay
    said = []
    if len(found.seeds) == 1:
        said.append("只有一个种子：没有误差棒，差别可能是偶然；请多给几个种子")
    elif none is not None and none.left_out is not None and none.left_out < none.difference * (1 - 1e-9):
        left = f"优势是 {none.left_out:.3g}" if none.left_out > 0 else "就没有优势"
        said.append(
            f"最好的强度就是按这些得分选出来的，所以它的优势 {none.difference:.3g} 略为乐观；"
            f"选择时不用评判它的那个种子，{left}"
        )
    failed = [one for selection in sweep.selections for one in selection.diverged]
    unmeasured = sum(sweep.goal.unmeasured(one) for one in failed)
    if len(failed) > unmeasured:
        said.append(f"{len(failed) - unmeasured} 次训练发散；有种子发散的强度不会被选中")
    if unmeasured:
        said.append(f"{unmeasured} 次训练的 {sweep.goal.name} 不是有限的数；这样的强度不会被选中")
    if found.edge is not None and not found.flat:
        side, more = ("最强", "更强") if found.edge == "high" else ("最弱", "更弱")
        said.append(f"最好的是试过的{side}的：{more}的也许更好")
    if none is None:
        said.append("没有训练完无衰减的情形：没有可比较的")
    elif any(
        sweep.goal.sign * (one.mean(0.0) - found.mean(0.0)) < 0
        for one in sweep.selections
        if one.no_decay is not None
    ):
        said.append("在另一种设置下，无衰减做得更好")
    return said


def monitor_lines(result: Monitored) -> list[str]:
    """What happened."""
    summary = result.summary()
    if not summary.height:
        return [f"{result.optimizer}：{result.steps} 步，还没有观察（每 {result.every} 步一次）"]
    lines = [f"{result.optimizer}：{result.steps} 步，每 {result.every} 步观察一次；数字取后一半的观察"]
    decaying = summary.filter(pl.col("ratio").is_finite())
    if decaying.height:
        low, high = _range(decaying["ratio"])
        lines.append(f"实际衰减除以应有衰减：{decaying.height} 个衰减的参数中为 {low:.3g} 到 {high:.3g}")
    low, high = _range(summary["angle"])
    lines.append(f"每步的角度：{low:.3g} 到 {high:.3g} 弧度")
    balanced = summary.filter(pl.col("residual").is_finite())
    if balanced.height:
        low, high = _range(balanced["residual"])
        steps = _range(balanced["steps_to_equilibrium"])[1]
        lines.append(f"范数相对于衰减与更新的平衡：{low:+.1%} 到 {high:+.1%}；到达那里需要 {steps:.4g} 步")
    return lines


def monitor_doubts(result: Monitored) -> list[str]:
    """What looks wrong or is not known."""
    summary, rows = result.summary(), result.rows
    said = []
    growing = summary.filter(pl.col("ratio").is_finite() & (pl.col("ratio") < 0))
    if growing.height:
        said.append(f"{growing.height} 个参数因衰减而变大：符号反了；参见 wd.probe")
    off = summary.filter(
        pl.col("ratio").is_finite() & (pl.col("ratio") >= 0) & ~pl.col("ratio").is_between(*RATIO)
    )
    if off.height:
        said.append(
            f"{off.height} 个参数的衰减与应有的不同：跳过的步、谨慎规则、每隔几步才作用一次的衰减、"
            "与强度的含义不符的衰减（参见 wd.probe），或精度太低（bfloat16）"
        )
    unasked = rows.filter((pl.col("weight_decay") == 0) & (pl.col("applied").abs() > UNASKED))
    if unasked.height:
        said.append(f"{unasked['parameter'].n_unique()} 个参数的强度是 0，却在衰减；参见 wd.probe")
    if count := rows.filter(pl.col("intended").is_nan())["parameter"].n_unique():
        said.append(f"{count} 个参数的衰减率无从知道：自适应优化器中的耦合衰减会除以梯度的大小")
    idle = rows.filter((pl.col("weight_decay") > 0) & (pl.col("lr") > 0) & (pl.col("intended") == 0))
    if idle.height:
        said.append(f"{idle['parameter'].n_unique()} 个参数设了强度却没有衰减：优化器忽略了它；参见 wd.probe")
    residual = summary.filter(pl.col("residual").is_finite() & (pl.col("residual").abs() > RESIDUAL))
    if residual.height:
        said.append(
            f"{residual.height} 个范数不在衰减与更新所预言的平衡上："
            "还没有到达、步长在变，或更新依赖于权重（这一层不是尺度不变的，或样本已被背下）"
        )
    if count := rows.filter(pl.col("update_norm").is_nan())["parameter"].n_unique():
        said.append(f"{count} 个参数的更新中梯度部分无从知道")
    return said


def audit_line(audit: Audit) -> str:
    """The model in a line."""
    share = audit.decaying / audit.elements if audit.elements else 0.0
    counts = "，".join(
        f"{sum(one.severity == name for one in audit.findings)} 个{said}" for name, said in SEVERITY.items()
    )
    return (
        f"{len(audit.parameters):,} 个参数，{audit.elements:,} 个元素；其中 {audit.decaying:,} 个"
        f"（{share:.1%}）衰减；{counts}"
    )


def _told(path: RidgePath) -> float:
    return LOST.get(path.settings.get("dtype", ""), 1e-6)


def _named(sweep: Sweep, value: float) -> str:
    """A strength as a sentence says it."""
    if value == 0:
        return "无衰减"
    if sweep.unit == "weight_decay":
        return f"λ = {value:.3g}"
    lam = sweep.selection.weight_decays[sweep.selection.place(value)]
    behind = "" if lam is None else f"（λ = {lam:.3g}）"
    if sweep.unit == "half_lives_per_run":
        return f"每次训练 {value:.3g} 个半衰期{behind}"
    return f"半衰期 {value:.3g} {_UNITS[sweep.unit.removeprefix('half_life_')]}{behind}"


def _scored(sweep: Sweep, value: float) -> str:
    found = sweep.selection
    error = f" ± {float(found.errors[found.place(value)]):.2g}" if len(found.seeds) > 1 else ""
    return f"{goal_name(sweep)} {found.mean(value):.4g}{error}"


def goal_name(sweep: Sweep) -> str:
    """What strengths are chosen by."""
    return "测试损失" if sweep.goal.name == "loss" else f"测试 {sweep.goal.name}"


def _no_decay(sweep: Sweep) -> str:
    none = sweep.no_decay
    if none is None:
        return "无衰减：没有训练"
    if sweep.best == 0:
        return "无衰减：试过的强度没有一个更好"
    if math.isinf(none.difference):
        return "无衰减：发散，或得分不是有限的数"
    said = f"无衰减：{goal_name(sweep)} {sweep.selection.mean(0.0):.4g}，差 {none.difference:.3g}"
    if none.seeds == 1:
        return f"{said}；一个种子分不出这是不是偶然"
    interval = f"逐个种子比较的 95 % 区间 [{none.low:.3g}, {none.high:.3g}]"
    if none.tells:
        return f"{said}，{interval}"
    needed = none.seeds_needed
    more = f"；大约需要 {needed} 个种子" if needed and needed > none.seeds else ""
    return f"{said}，{interval}：这些数据分不出最好的强度与无衰减{more}"


def _range(values: pl.Series) -> tuple[float, float]:
    known = values.drop_nulls().drop_nans().to_list()
    return (min(known), max(known)) if known else (math.nan, math.nan)
