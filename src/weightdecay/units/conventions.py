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
from weightdecay.errors import InputError

Family = Literal["ridge", "decoupled", "adam-l2"]

# What a conversion may need to know, in words for messages and help texts.
CONTEXT = {
    "n": "the number of training examples",
    "batch_size": "the number of examples in a batch",
    "micro_batches": "how many micro-batches are accumulated for a step",
    "momentum": "the momentum of SGD",
    "dampening": "the dampening of SGD's momentum",
    "lr_max": "the peak step size",
    "sd_y": "the standard deviation of y, divided by n",
    "sd_x": "the standard deviation of each feature, divided by n",
    "noise_sd": "the standard deviation of the noise",
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


_LR_TWICE = "lr acts as 2·lr of the canonical objective, whose loss is halved"
_BATCH = "a sum over batches of m examples has m in place of n: give batch_size=m"
_ADAMW = "a weight without gradient loses the share lr_t·wd in a step"
_TORCH = "torch.optim, run"


def _batch(context: Mapping[str, Any]) -> float:
    return context.get("batch_size", context.get("n"))


ROWS = (
    Convention(
        name="canonical",
        what="λ of 1/(2n) ||y - Xw||² + λ/2 ||w||², or of mean loss + λ/2 ||w||²",
        equation="λ",
        source="scikit-learn's and glmnet's documentation, up to scale",
    ),
    Convention(
        name="textbook",
        what="λ of the from-scratch loop: half squared loss of each example + λ/2 ||w||², summed, ÷ batch",
        equation="λ = λ_textbook",
        remark="the penalty must be broadcast onto each example's loss; see textbook.added_once",
        source="Dive into Deep Learning, chapter weight decay, run",
    ),
    Convention(
        name="textbook.added_once",
        what="the common slip: loss.sum() + λ/2 ||w||², then ÷ batch",
        equation="λ = λ_textbook / batch_size",
        needs=("batch_size",),
        remark="batch_size times weaker than was meant",
        source="run",
        divisor=lambda c: c["batch_size"],
    ),
    Convention(
        name="torch.SGD+mean_loss",
        what="weight_decay of torch SGD beside a mean loss such as cross entropy",
        equation="λ = wd",
        remark="any momentum, dampening and Nesterov: the solution does not move",
        source=_TORCH,
    ),
    Convention(
        name="torch.SGD+sum_loss",
        what='weight_decay of torch SGD beside a sum of losses such as CrossEntropyLoss(reduction="sum")',
        equation="λ = wd / n",
        needs=("n",),
        takes=("batch_size",),
        remark=f"lr acts as n·lr; {_BATCH} (recipes write weight_decay × batch size)",
        source=_TORCH,
        divisor=_batch,
    ),
    Convention(
        name="torch.SGD+half_mse",
        what="weight_decay of torch SGD beside MSELoss()/2",
        equation="λ = wd",
        remark="any momentum, dampening and Nesterov: the solution does not move",
        source=_TORCH,
    ),
    Convention(
        name="torch.SGD+MSELoss",
        what="weight_decay of torch SGD beside MSELoss()",
        equation="λ = wd / 2",
        remark=_LR_TWICE,
        source=_TORCH,
        divisor=lambda _: 2.0,
    ),
    Convention(
        name="torch.SGD+MSELoss.sum",
        what='weight_decay of torch SGD beside MSELoss(reduction="sum") over all examples',
        equation="λ = wd / (2 n)",
        needs=("n",),
        takes=("batch_size",),
        remark=f"lr acts as 2·n·lr; {_BATCH}",
        source=_TORCH,
        divisor=lambda c: 2 * _batch(c),
    ),
    Convention(
        name="torch.SGD+half_sum",
        what='weight_decay of torch SGD beside MSELoss(reduction="sum")/2 over all examples',
        equation="λ = wd / n",
        needs=("n",),
        takes=("batch_size",),
        remark=f"lr acts as n·lr; {_BATCH}",
        source=_TORCH,
        divisor=_batch,
    ),
    Convention(
        name="torch.SGD+accumulated",
        what="weight_decay of torch SGD, gradients of K micro-batches (mean loss) added up, not averaged",
        equation="λ = wd / K",
        needs=("micro_batches",),
        remark="lr acts as K·lr; a penalty inside the loss would keep its ratio to it",
        source=_TORCH,
        divisor=lambda c: c["micro_batches"],
    ),
    Convention(
        name="sgdw",
        what="decoupled decay on SGD with momentum, beside a mean loss or MSELoss()/2",
        equation="λ = wd (1 - momentum) / (1 - dampening)",
        needs=("momentum",),
        takes=("dampening",),
        remark="decoupled: here the momentum does move the solution",
        source="arXiv 1711.05101, algorithm 1; run",
        divisor=lambda c: (1 - c.get("dampening", 0.0)) / (1 - c["momentum"]),
    ),
    Convention(
        name="keras.SGD",
        what='weight_decay of Keras SGD (decoupled) beside loss="mse"',
        equation="λ = wd (1 - momentum) / 2",
        needs=("momentum",),
        remark=f"{_LR_TWICE}; decoupled: the momentum moves the solution",
        source="keras.optimizers, run",
        divisor=lambda c: 2 / (1 - c["momentum"]),
    ),
    Convention(
        name="keras.l2",
        what='c of keras.regularizers.L2, which adds c ||w||² (no half), beside loss="mse"',
        equation="λ = c",
        remark=_LR_TWICE,
        source="keras.regularizers, run",
    ),
    Convention(
        name="optax.add_decayed_weights",
        what="weight_decay of chain(add_decayed_weights(wd), sgd(lr)) beside a mean of optax.l2_loss",
        equation="λ = wd",
        remark="coupled, as torch SGD; optax.l2_loss is halved",
        source="optax, run",
    ),
    Convention(
        name="sklearn.Ridge",
        what="alpha of sklearn.linear_model.Ridge",
        equation="λ = alpha / n",
        needs=("n",),
        source="scikit-learn, run",
        divisor=lambda c: c["n"],
    ),
    Convention(
        name="sklearn.LogisticRegression",
        what="C of sklearn.linear_model.LogisticRegression",
        equation="λ = 1 / (n C)",
        needs=("n",),
        remark="beside the mean logistic loss; the same λ beside a squared loss is another model",
        source="scikit-learn, run",
        power=-1,
        divisor=lambda c: c["n"],
    ),
    Convention(
        name="glmnet",
        what='lambda of glmnet(family="gaussian", alpha=0, standardize=FALSE)',
        equation="λ = lambda / sd(y)",
        needs=("sd_y",),
        remark="sd with 1/n: glmnet scales y to unit variance inside",
        source="glmnet; by its closed form and, where R is, run",
        divisor=lambda c: c["sd_y"],
    ),
    Convention(
        name="glmnet.standardize",
        what='lambda of glmnet(family="gaussian", alpha=0), whose default is standardize=TRUE',
        equation="λ_j = lambda sd(x_j)² / sd(y)",
        needs=("sd_y", "sd_x"),
        remark="one λ for each feature; for a single one divide each column by its sd first",
        source="glmnet; by its closed form and, where R is, run",
        divisor=lambda c: c["sd_y"] / c["sd_x"] ** 2,
    ),
    Convention(
        name="gaussian_prior",
        what="the standard deviation tau of a prior w ~ N(0, tau²), for a squared loss with known noise",
        equation="λ = noise_sd² / (n tau²)",
        needs=("n", "noise_sd"),
        source="Bayes' rule: the posterior's mode",
        power=-2,
        divisor=lambda c: c["n"] / c["noise_sd"] ** 2,
    ),
    Convention(
        name="gaussian_prior.nll",
        what="the standard deviation tau of a prior w ~ N(0, tau²) beside a mean negative log likelihood",
        equation="λ = 1 / (n tau²)",
        needs=("n",),
        source="Bayes' rule: the posterior's mode",
        power=-2,
        divisor=lambda c: c["n"],
    ),
    Convention(
        name="torch.AdamW",
        what="weight_decay of torch.optim.AdamW (default 1e-2)",
        equation="lr_t·wd a step",
        family="decoupled",
        remark=_ADAMW,
        source=_TORCH,
    ),
    Convention(
        name="optax.adamw",
        what="weight_decay of optax.adamw (default 1e-4)",
        equation="lr_t·wd a step",
        family="decoupled",
        remark=f"multiplied by lr, as in torch: {_ADAMW}",
        source="optax, run",
    ),
    Convention(
        name="keras.AdamW",
        what="weight_decay of keras.optimizers.AdamW (default 4e-3)",
        equation="lr_t·wd a step",
        family="decoupled",
        remark=f"multiplied by lr, as in torch: {_ADAMW}",
        source="keras.optimizers, run",
    ),
    Convention(
        name="independent",
        what="λ_ind of the AdamW paper and of Composer, which lr_max does not multiply",
        equation="λ_ind·lr_t/lr_max a step",
        needs=("lr_max",),
        family="decoupled",
        remark="it still follows the schedule",
        source="arXiv 1711.05101",
        divisor=lambda c: c["lr_max"],
    ),
    Convention(
        name="torch.Adam",
        what="weight_decay of torch.optim.Adam: coupled L2, divided by the running size of the gradient",
        equation="none",
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
        cells = [("name", "λ, or the share removed", "needs", "what it is")]
        cells += [(row.name, row.equation, ", ".join(row.needs), row.what) for row in self]
        widths = [max(len(line[i]) for line in cells) for i in range(4)]
        lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)) for line in cells]
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
    return tuple(f"{row.name}: {row.remark}" for row in rows if row.remark)


def _named(name: str, where: str) -> Convention:
    for row in ROWS:
        if row.name == name:
            return row
    # The names that contain what was given, else those spelled like it, else all.
    lower = {row.name.lower(): row.name for row in ROWS}
    inside = [known for key, known in lower.items() if str(name).lower() in key]
    alike = [lower[key] for key in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.5)]
    remedy = f"use {' or '.join(inside or alike or lower.values())}"
    raise InputError("no such convention", where, repr(name), remedy)


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
                raise InputError(f"{row.name} needs {name}, {CONTEXT[name]}", name, "nothing", f"give {name}")
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
