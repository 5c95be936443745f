"""The conventions: one record each, all tied to one canonical strength.

The canonical λ belongs to J(w) = 1/(2n) ||y - Xw||² + λ/2 ||w||², and for other losses to
mean loss + λ/2 ||w||². Every record says λ = value^power / divisor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

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
