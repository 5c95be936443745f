"""The conventions, one record each, all tied to one canonical strength; and `convert`, from one to another.

The canonical λ belongs to J(w) = 1/(2n) ||y - Xw||² + λ/2 ||w||², and for other losses to
mean loss + λ/2 ||w||². Every record says λ = value^power / divisor.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from weightdecay.arguments import count, number, vector
from weightdecay.errors import NOTHING, InputError
from weightdecay.text import Text, chinese, columns_of, local, padded

Family = Literal["ridge", "decoupled", "adam-l2"]

# What a conversion may need to know, in words for messages and help texts.
CONTEXT = {
    "n": Text("the number of training examples", "训练样本数"),
    "batch_size": Text("the number of examples in a batch", "每批的样本数"),
    "micro_batches": Text("how many micro-batches are accumulated for a step", "每步累加的微批次数"),
    "momentum": Text("the momentum of SGD", "SGD 的动量"),
    "dampening": Text("the dampening of SGD's momentum", "SGD 动量的 dampening"),
    "lr_max": Text("the peak step size", "峰值学习率"),
    "sd_y": Text("the standard deviation of y, divided by n", "y 的标准差，除以 n"),
    "sd_x": Text("the standard deviation of each feature, divided by n", "每个特征的标准差，除以 n"),
    "noise_sd": Text("the standard deviation of the noise", "噪声的标准差"),
}


@dataclass(frozen=True)
class Convention:
    """One way to write a strength.

    Args:
        name: what `convert` takes.
        what: what the number is.
        equation: the canonical λ from the number; for decoupled decay the fraction removed in a step.
        needs: the context it cannot do without.
        takes: the context it can use.
        family: "ridge" has a λ; "decoupled" has a rate a step, but no λ; "adam-l2" has neither.
        remark: what one must know to use the number.
        source: where this was read or checked.
        power: the λ goes as the number to this power.
        divisor: one over λ at the number 1, from the context: division and multiplication by whole numbers
            such as n keep 3 · 20 at 60.
    """

    name: str
    what: str
    equation: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    family: Family = "ridge"
    remark: str = ""
    source: str = ""
    power: int = 1
    divisor: Callable[[Mapping[str, Any]], Any] = field(default=lambda _: 1.0, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, without the function."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.repr}


_LR_TWICE = Text(
    "lr acts as 2·lr of the canonical objective, whose loss is halved",
    "lr 相当于 canonical 目标（损失带 ½）的 2·lr",
)
_BATCH = Text(
    "a sum over batches of m examples has m in place of n: give batch_size=m",
    "对 m 个样本的批次求和时以 m 代替 n：给 batch_size=m",
)
_ADAMW = Text(
    "a weight without gradient loses the share lr_t·wd in a step", "没有梯度的权重每步减少 lr_t·wd 的比例"
)
_TORCH = "torch.optim, run"


def _batch(context: Mapping[str, Any]) -> float:
    return context.get("batch_size", context.get("n"))


ROWS = (
    Convention(
        name="canonical",
        what=Text(
            "λ of 1/(2n) ||y - Xw||² + λ/2 ||w||², or of mean loss + λ/2 ||w||²",
            "1/(2n) ||y - Xw||² + λ/2 ||w||² 中的 λ，或平均损失 + λ/2 ||w||² 中的 λ",
        ),
        equation="λ",
        source="scikit-learn's and glmnet's documentation, up to scale",
    ),
    Convention(
        name="textbook",
        what=Text(
            "λ of the from-scratch loop: half squared loss of each example + λ/2 ||w||², summed, ÷ batch",
            "从零开始的训练循环中的 λ：每个样本的半平方损失 + λ/2 ||w||²，求和后 ÷ 批量大小",
        ),
        equation="λ = λ_textbook",
        remark=Text(
            "the penalty must be broadcast onto each example's loss; see textbook.added_once",
            "惩罚必须加到每个样本的损失上；见 textbook.added_once",
        ),
        source="Dive into Deep Learning, chapter weight decay, run",
    ),
    Convention(
        name="textbook.added_once",
        what=Text(
            "the common slip: loss.sum() + λ/2 ||w||², then ÷ batch",
            "常见的失误：loss.sum() + λ/2 ||w||²，再 ÷ 批量大小",
        ),
        equation="λ = λ_textbook / batch_size",
        needs=("batch_size",),
        remark=Text(
            "batch_size times weaker than was meant",
            "比本意弱 batch_size 倍",
        ),
        source="run",
        divisor=lambda c: c["batch_size"],
    ),
    Convention(
        name="torch.SGD+mean_loss",
        what=Text(
            "weight_decay of torch SGD beside a mean loss such as cross entropy",
            "torch SGD 的 weight_decay，损失取平均（如交叉熵）",
        ),
        equation="λ = wd",
        remark=Text(
            "any momentum, dampening and Nesterov: the solution does not move",
            "动量、dampening、Nesterov 任意：解不变",
        ),
        source=_TORCH,
    ),
    Convention(
        name="torch.SGD+sum_loss",
        what=Text(
            'weight_decay of torch SGD beside a sum of losses such as CrossEntropyLoss(reduction="sum")',
            'torch SGD 的 weight_decay，损失取总和，如 CrossEntropyLoss(reduction="sum")',
        ),
        equation="λ = wd / n",
        needs=("n",),
        takes=("batch_size",),
        remark=Text(
            f"lr acts as n·lr; {_BATCH} (recipes write weight_decay × batch size)",
            f"lr 相当于 n·lr；{_BATCH.zh}（有些训练配方写作 weight_decay × batch size）",
        ),
        source=_TORCH,
        divisor=_batch,
    ),
    Convention(
        name="torch.SGD+half_mse",
        what=Text(
            "weight_decay of torch SGD beside MSELoss()/2",
            "torch SGD 的 weight_decay，损失为 MSELoss()/2",
        ),
        equation="λ = wd",
        remark=Text(
            "any momentum, dampening and Nesterov: the solution does not move",
            "动量、dampening、Nesterov 任意：解不变",
        ),
        source=_TORCH,
    ),
    Convention(
        name="torch.SGD+MSELoss",
        what=Text(
            "weight_decay of torch SGD beside MSELoss()",
            "torch SGD 的 weight_decay，损失为 MSELoss()",
        ),
        equation="λ = wd / 2",
        remark=_LR_TWICE,
        source=_TORCH,
        divisor=lambda _: 2.0,
    ),
    Convention(
        name="torch.SGD+MSELoss.sum",
        what=Text(
            'weight_decay of torch SGD beside MSELoss(reduction="sum") over all examples',
            'torch SGD 的 weight_decay，损失为全部样本的 MSELoss(reduction="sum")',
        ),
        equation="λ = wd / (2 n)",
        needs=("n",),
        takes=("batch_size",),
        remark=Text(
            f"lr acts as 2·n·lr; {_BATCH}",
            f"lr 相当于 2·n·lr；{_BATCH.zh}",
        ),
        source=_TORCH,
        divisor=lambda c: 2 * _batch(c),
    ),
    Convention(
        name="torch.SGD+half_sum",
        what=Text(
            'weight_decay of torch SGD beside MSELoss(reduction="sum")/2 over all examples',
            'torch SGD 的 weight_decay，损失为全部样本的 MSELoss(reduction="sum")/2',
        ),
        equation="λ = wd / n",
        needs=("n",),
        takes=("batch_size",),
        remark=Text(
            f"lr acts as n·lr; {_BATCH}",
            f"lr 相当于 n·lr；{_BATCH.zh}",
        ),
        source=_TORCH,
        divisor=_batch,
    ),
    Convention(
        name="torch.SGD+accumulated",
        what=Text(
            "weight_decay of torch SGD, gradients of K micro-batches (mean loss) added up, not averaged",
            "torch SGD 的 weight_decay，K 个微批次（平均损失）的梯度相加而不取平均",
        ),
        equation="λ = wd / K",
        needs=("micro_batches",),
        remark=Text(
            "lr acts as K·lr; a penalty inside the loss would keep its ratio to it",
            "lr 相当于 K·lr；写在损失里的惩罚则与损失保持原来的比例",
        ),
        source=_TORCH,
        divisor=lambda c: c["micro_batches"],
    ),
    Convention(
        name="sgdw",
        what=Text(
            "decoupled decay on SGD with momentum, beside a mean loss or MSELoss()/2",
            "带动量的 SGD 上的解耦衰减，损失取平均或为 MSELoss()/2",
        ),
        equation="λ = wd (1 - momentum) / (1 - dampening)",
        needs=("momentum",),
        takes=("dampening",),
        remark=Text(
            "decoupled: here the momentum does move the solution",
            "解耦：这里动量会改变解",
        ),
        source="arXiv 1711.05101, algorithm 1; run",
        divisor=lambda c: (1 - c.get("dampening", 0.0)) / (1 - c["momentum"]),
    ),
    Convention(
        name="keras.SGD",
        what=Text(
            'weight_decay of Keras SGD (decoupled) beside loss="mse"',
            'Keras SGD 的 weight_decay（解耦），损失为 loss="mse"',
        ),
        equation="λ = wd (1 - momentum) / 2",
        needs=("momentum",),
        remark=Text(
            f"{_LR_TWICE}; decoupled: the momentum moves the solution",
            f"{_LR_TWICE.zh}；解耦：动量会改变解",
        ),
        source="keras.optimizers, run",
        divisor=lambda c: 2 / (1 - c["momentum"]),
    ),
    Convention(
        name="keras.l2",
        what=Text(
            'c of keras.regularizers.L2, which adds c ||w||² (no half), beside loss="mse"',
            'keras.regularizers.L2 的 c，它加上 c ||w||²（不折半），损失为 loss="mse"',
        ),
        equation="λ = c",
        remark=_LR_TWICE,
        source="keras.regularizers, run",
    ),
    Convention(
        name="optax.add_decayed_weights",
        what=Text(
            "weight_decay of chain(add_decayed_weights(wd), sgd(lr)) beside a mean of optax.l2_loss",
            "chain(add_decayed_weights(wd), sgd(lr)) 的 weight_decay，损失为 optax.l2_loss 的平均",
        ),
        equation="λ = wd",
        remark=Text(
            "coupled, as torch SGD; optax.l2_loss is halved",
            "耦合，与 torch SGD 相同；optax.l2_loss 已折半",
        ),
        source="optax, run",
    ),
    Convention(
        name="sklearn.Ridge",
        what=Text(
            "alpha of sklearn.linear_model.Ridge",
            "sklearn.linear_model.Ridge 的 alpha",
        ),
        equation="λ = alpha / n",
        needs=("n",),
        source="scikit-learn, run",
        divisor=lambda c: c["n"],
    ),
    Convention(
        name="sklearn.LogisticRegression",
        what=Text(
            "C of sklearn.linear_model.LogisticRegression",
            "sklearn.linear_model.LogisticRegression 的 C",
        ),
        equation="λ = 1 / (n C)",
        needs=("n",),
        remark=Text(
            "beside the mean logistic loss; the same λ beside a squared loss is another model",
            "对应平均逻辑损失；同一 λ 配平方损失是另一个模型",
        ),
        source="scikit-learn, run",
        power=-1,
        divisor=lambda c: c["n"],
    ),
    Convention(
        name="glmnet",
        what=Text(
            'lambda of glmnet(family="gaussian", alpha=0, standardize=FALSE)',
            'glmnet(family="gaussian", alpha=0, standardize=FALSE) 的 lambda',
        ),
        equation="λ = lambda / sd(y)",
        needs=("sd_y",),
        remark=Text(
            "sd with 1/n: glmnet scales y to unit variance inside",
            "标准差用 1/n：glmnet 内部把 y 缩放到单位方差",
        ),
        source="glmnet; by its closed form and, where R is, run",
        divisor=lambda c: c["sd_y"],
    ),
    Convention(
        name="glmnet.standardize",
        what=Text(
            'lambda of glmnet(family="gaussian", alpha=0), whose default is standardize=TRUE',
            'glmnet(family="gaussian", alpha=0) 的 lambda，其默认为 standardize=TRUE',
        ),
        equation="λ_j = lambda sd(x_j)² / sd(y)",
        needs=("sd_y", "sd_x"),
        remark=Text(
            "one λ for each feature; for a single one divide each column by its sd first",
            "每个特征一个 λ；若要单一的 λ，先把每列除以其标准差",
        ),
        source="glmnet; by its closed form and, where R is, run",
        divisor=lambda c: c["sd_y"] / c["sd_x"] ** 2,
    ),
    Convention(
        name="gaussian_prior",
        what=Text(
            "the standard deviation tau of a prior w ~ N(0, tau²), for a squared loss with known noise",
            "先验 w ~ N(0, tau²) 的标准差 tau，平方损失，噪声已知",
        ),
        equation="λ = noise_sd² / (n tau²)",
        needs=("n", "noise_sd"),
        source="Bayes' rule: the posterior's mode",
        power=-2,
        divisor=lambda c: c["n"] / c["noise_sd"] ** 2,
    ),
    Convention(
        name="gaussian_prior.nll",
        what=Text(
            "the standard deviation tau of a prior w ~ N(0, tau²) beside a mean negative log likelihood",
            "先验 w ~ N(0, tau²) 的标准差 tau，损失为平均负对数似然",
        ),
        equation="λ = 1 / (n tau²)",
        needs=("n",),
        source="Bayes' rule: the posterior's mode",
        power=-2,
        divisor=lambda c: c["n"],
    ),
    Convention(
        name="torch.AdamW",
        what=Text(
            "weight_decay of torch.optim.AdamW (default 1e-2)",
            "torch.optim.AdamW 的 weight_decay（默认 1e-2）",
        ),
        equation=Text("lr_t·wd a step", "每步 lr_t·wd"),
        family="decoupled",
        remark=_ADAMW,
        source=_TORCH,
    ),
    Convention(
        name="optax.adamw",
        what=Text(
            "weight_decay of optax.adamw (default 1e-4)",
            "optax.adamw 的 weight_decay（默认 1e-4）",
        ),
        equation=Text("lr_t·wd a step", "每步 lr_t·wd"),
        family="decoupled",
        remark=Text(
            f"multiplied by lr, as in torch: {_ADAMW}",
            f"与 torch 一样乘以 lr：{_ADAMW.zh}",
        ),
        source="optax, run",
    ),
    Convention(
        name="keras.AdamW",
        what=Text(
            "weight_decay of keras.optimizers.AdamW (default 4e-3)",
            "keras.optimizers.AdamW 的 weight_decay（默认 4e-3）",
        ),
        equation=Text("lr_t·wd a step", "每步 lr_t·wd"),
        family="decoupled",
        remark=Text(
            f"multiplied by lr, as in torch: {_ADAMW}",
            f"与 torch 一样乘以 lr：{_ADAMW.zh}",
        ),
        source="keras.optimizers, run",
    ),
    Convention(
        name="independent",
        what=Text(
            "λ_ind of the AdamW paper and of Composer, which lr_max does not multiply",
            "AdamW 论文和 Composer 的 λ_ind，不乘 lr_max",
        ),
        equation=Text("λ_ind·lr_t/lr_max a step", "每步 λ_ind·lr_t/lr_max"),
        needs=("lr_max",),
        family="decoupled",
        remark=Text(
            "it still follows the schedule",
            "它仍随调度变化",
        ),
        source="arXiv 1711.05101",
        divisor=lambda c: c["lr_max"],
    ),
    Convention(
        name="torch.Adam",
        what=Text(
            "weight_decay of torch.optim.Adam: coupled L2, divided by the running size of the gradient",
            "torch.optim.Adam 的 weight_decay：耦合的 L2，被梯度的大小相除",
        ),
        equation=Text("none", "无"),
        family="adam-l2",
        source=_TORCH,
    ),
)

_NO_LAMBDA = {
    "decoupled": (
        "decoupled decay in an adaptive optimizer has no ridge equivalent: with full batches AdamW ends at "
        "the least loss with every |w_j| <= 1/wd, not at a ridge solution, and where noise dominates it acts "
        "as L2 with another strength for each weight; compare half-lives instead"
    ),
    "adam-l2": (
        "Adam with coupled L2 has no decay rate and no λ: without gradient a weight shrinks by about lr a "
        "step whatever weight_decay is; use AdamW, and its half-life"
    ),
}


class Conventions(tuple[Convention, ...]):
    """The records of `conventions()`; printed, a table."""

    __slots__ = ()

    def __str__(self) -> str:
        heads = (
            Text("name", "名称"),
            Text("λ, or the share removed", "λ，或去掉的比例"),
            Text("needs", "需要"),
            Text("what it is", "含义"),
        )
        cells = [(row.name, row.equation, ", ".join(row.needs), row.what) for row in self]
        shown = [[local(cell) for cell in line] for line in (heads, *cells)]
        widths = [max(columns_of(line[i]) for line in shown) for i in range(4)]
        lines = ["  ".join(padded(cell, w) for cell, w in zip(line, widths, strict=True)) for line in shown]
        return "\n".join(line.rstrip() for line in lines)


def conventions() -> Conventions:
    """The ways to write a strength that `convert` knows: a tuple of records, a table when printed.

    Returns:
        One `Convention` each: name, what it is, equation, needed context, remark, source.

    >>> [row.name for row in conventions()][:3]
    ['canonical', 'textbook', 'textbook.added_once']
    >>> next(row for row in conventions() if row.name == "sklearn.Ridge").equation
    'λ = alpha / n'
    """
    return Conventions(ROWS)


def convert(
    value: float | Sequence[float] | np.ndarray, source: str, target: str, **context: Any
) -> float | np.ndarray:
    """The number that means in the convention `target` what `value` means in `source`.

    Both go through the canonical λ of J(w) = 1/(2n) ||y - Xw||² + λ/2 ||w||²: the solution
    w = (X'X/n + λI)^-1 X'y/n is the same. AdamW and its kin have no λ; among themselves they go through the
    share of a weight that a step removes.

    Args:
        value: the strength; a list or an array for one per feature.
        source: the name of its convention; `conventions()` lists them.
        target: the name of the convention that is wanted.
        context: what the two need to know, by name: n, batch_size, micro_batches, momentum, dampening,
            lr_max, sd_y, sd_x, noise_sd.

    Returns:
        A number; an array where there is one strength for each feature.

    Convention: every record's `equation` says λ in terms of its number, `remark` what else changes.

    Raises:
        InputError: an unknown name, context that is missing or not used, a value out of range, or a
            conversion that does not exist (AdamW to ridge; Adam with L2 to anything).

    >>> convert(3, "textbook", "sklearn.Ridge", n=20)
    60.0
    >>> convert(0.1, "torch.AdamW", "independent", lr_max=1e-3)
    0.0001
    """
    return converted(value, source, target, checked_context(source, target, context))


def converted(
    value: float | Sequence[float] | np.ndarray, source: str, target: str, known: Mapping[str, Any]
) -> float | np.ndarray:
    """Convert with a context from `checked_context`: for many conversions of one kind."""
    old, new = _named(source, "source"), _named(target, "target")
    number_or_array = number(value, "value", least=0) if np.ndim(value) == 0 else vector(value, "value")
    if old.power < 0 and not np.all(number_or_array):
        remedy = f"give {old.what.split(' of ')[0]} more than 0"
        raise InputError("no λ belongs to it", "value", 0, remedy)
    if np.ndim(number_or_array) and "sd_x" in known and np.shape(number_or_array) != known["sd_x"].shape:
        sizes = f"{np.size(number_or_array)} values for {known['sd_x'].size} features"
        raise InputError("one strength for each feature is needed", "value", sizes, "give as many as sd_x")
    try:
        lam = number_or_array**old.power / old.divisor(known)
        if new.power < 0 and not np.all(lam):
            raise InputError(f"no decay has no finite number in {new.name}", "value", 0, "give more than 0")
        result = (lam * new.divisor(known)) ** (1 / new.power) if new.power != 1 else lam * new.divisor(known)
        if not np.all(np.isfinite(result)):
            raise OverflowError
    except OverflowError as error:
        what = "a strength beyond what float64 can hold"
        raise InputError(what, "value", value, "give one nearer to 1") from error
    return float(result) if np.ndim(result) == 0 else np.asarray(result)


def remarks(source: str, target: str) -> tuple[str, ...]:
    """What one must know to use the number that `convert` gives, one line each.

    >>> remarks("textbook", "torch.SGD+MSELoss")[-1]
    'torch.SGD+MSELoss: lr acts as 2·lr of the canonical objective, whose loss is halved'
    """
    rows = dict.fromkeys((_named(source, "source"), _named(target, "target")))
    return tuple(
        Text(f"{row.name}: {row.remark}", f"{row.name}：{chinese(row.remark)}") for row in rows if row.remark
    )


def _named(name: str, where: str) -> Convention:
    for row in ROWS:
        if row.name == name:
            return row
    # The names that contain what was given, else those spelled like it, else all.
    lower = {row.name.lower(): row.name for row in ROWS}
    inside = [known for key, known in lower.items() if str(name).lower() in key]
    alike = [lower[key] for key in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.5)]
    known = [*(inside or alike or lower.values())]
    names = Text(" or ".join(known), " 或 ".join(known))
    remedy = Text(f"use {names}", f"可用 {names.zh}")
    raise InputError(Text("no such convention", "没有这种写法"), where, repr(name), remedy)


def checked_context(source: str, target: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check that a conversion exists, and its context: every name needed is there, and no other."""
    old, new = _named(source, "source"), _named(target, "target")
    if old.family != new.family or old.family == "adam-l2":
        reason = _NO_LAMBDA["adam-l2" if "adam-l2" in (old.family, new.family) else "decoupled"]
        raise InputError("this conversion does not exist", "convert", f"{old.name} to {new.name}", reason)
    usable = dict.fromkeys((*old.needs, *old.takes, *new.needs, *new.takes))
    for name in given:
        if name in usable:
            continue
        what = "not used by this conversion" if name in CONTEXT else "no such context"
        remedy = f"leave it out; {old.name} to {new.name} uses {', '.join(usable) or 'none'}"
        if name not in CONTEXT and (close := difflib.get_close_matches(name.lower(), CONTEXT, n=1)):
            remedy = f"did you mean {close[0]}, {CONTEXT[close[0]]}?"
        raise InputError(what, name, given[name], remedy)
    checked = {}
    for name, value in given.items():
        if value is not None:
            checked[name] = _checked(name, value)
    for row in (old, new):
        for name in row.needs:
            instead = name == "n" and "batch_size" in row.takes and "batch_size" in checked
            if name not in checked and not instead:
                title, what = row.name, CONTEXT[name]
                raise InputError(
                    Text(f"{title} needs {name}, {what}", f"{title} 还需要 {name}（{what.zh}）"),
                    name,
                    NOTHING,
                    Text(f"give {name}", f"请给出 {name}"),
                )
    return checked


def _checked(name: str, value: Any) -> Any:
    if name in ("n", "batch_size", "micro_batches"):
        return count(value, name)
    if name in ("momentum", "dampening"):
        return number(value, name, least=0, below=1)
    if name == "sd_x":
        array = vector(value, name)
        if not array.all():
            raise InputError("a feature that does not vary", name, 0.0, "leave constant features out")
        return array
    return number(value, name, above=0)
