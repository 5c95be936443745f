"""How predicted probabilities are judged: log loss, error rate, Brier score, AUC, calibration, confusion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import polars as pl
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError

Judge = Literal["log_loss", "error", "brier", "auc"]
JUDGES: tuple[Judge, ...] = get_args(Judge)
ROW_BY_ROW: tuple[Judge, ...] = ("log_loss", "error", "brier")  # the others compare rows with each other
BINS = 10


def probabilities(logits: Float64[Tensor, "m c"]) -> Float64[Tensor, "m C"]:
    """Probabilities of all classes from the logits: one, of the second of two classes, or one each."""
    if logits.shape[1] > 1:
        return logits.softmax(1)
    return torch.cat([(-logits).sigmoid(), logits.sigmoid()], 1)


def row_losses(logits: Float64[Tensor, "m c"], codes: Int64[Tensor, " m"]) -> Float64[Tensor, "3 m"]:
    """Each row's log loss, error and Brier score (3, m).

        −log p_y,   [argmax p ≠ y],   Σ_c (p_c − [c = y])²; with two classes half of it, (p_1 − y)²

    Convention: scikit-learn's `log_loss`, `zero_one_loss` and `brier_score_loss`.
    """
    y = codes[:, None]
    if logits.shape[1] > 1:
        log_loss = logits.logsumexp(1) - logits.gather(1, y)[:, 0]
        P = logits.softmax(1)
        brier = (P**2).sum(1) - 2 * P.gather(1, y)[:, 0] + 1
        wrong = logits.argmax(1) != codes
    else:
        score = logits[:, 0]
        towards = torch.where(codes > 0, score, -score)
        log_loss, brier = torch.nn.functional.softplus(-towards), (-towards).sigmoid() ** 2
        wrong = (score > 0) != (codes > 0)
    return torch.stack([log_loss, wrong.double(), brier])


def auc_parts(
    score: Float64[Tensor, " m"], codes: Int64[Tensor, " m"], weights: Float64[Tensor, " m"]
) -> tuple[float, float]:
    """The area under the ROC curve, and its standard error; NaN where there is one class.

        P(score of a row of class 1 > score of a row of class 0) + ½ P(equal)

    Source of the standard error: DeLong, DeLong and Clarke-Pearson (1988), rows weighted.
    """
    order = score.argsort()
    score, positive, w = score[order], codes[order] > 0, weights[order]
    up, down = torch.where(positive, w, 0.0), torch.where(positive, 0.0, w)
    if not bool(up.any()) or not bool(down.any()):
        return float("nan"), float("nan")
    _, tie, count = score.unique_consecutive(return_inverse=True, return_counts=True)

    def below(mass: Tensor) -> Tensor:
        """The mass of the other class below each row, half of what ties with it."""
        groups = mass.new_zeros(len(count)).index_add(0, tie, mass)
        return (groups.cumsum(0) - groups / 2)[tie]

    above_zero = below(down) / down.sum()  # of a row of class 1: its chance to beat one of class 0
    below_one = 1 - below(up) / up.sum()
    area = float(up @ above_zero / up.sum())
    spread = sum(
        float((mass**2) @ (part - area) ** 2 / mass.sum() ** 2)
        for mass, part in ((up, above_zero), (down, below_one))
    )
    return area, spread**0.5


@dataclass(frozen=True, eq=False)
class Calibration:
    """How predicted probabilities compare with what was observed, on rows that were held out.

    Of two classes the probability is that of the second; of more, that of the predicted class, and what is
    observed is whether that was right.

    Args:
        table: a row for each bin of equal width that has rows: low, high, rows, predicted (their mean
            probability), observed (their share), error (the standard error of that share).
        error: expected calibration error, Σ share of the bin's rows · |observed − predicted|.
        lam: the λ, in the path's unit.
    """

    table: pl.DataFrame
    error: float
    lam: float


def calibration(
    P: Float64[Tensor, "m C"],
    codes: Int64[Tensor, " m"],
    weights: Float64[Tensor, " m"],
    lam: float,
    bins: int = BINS,
) -> Calibration:
    """Reliability by bins. Source: Guo et al. (2017), Naeini et al. (2015)."""
    two = P.shape[1] == 2
    confidence, guess = (P[:, 1], None) if two else P.max(1)
    right = (codes == 1) if guess is None else (guess == codes)
    place = (confidence * bins).long().clamp(0, bins - 1)
    rows: list[dict[str, float | int]] = []
    total, error = float(weights.sum()), 0.0
    for b in range(bins):
        inside = place == b
        w = weights[inside]
        if not len(w) or not float(w.sum()) > 0:
            continue
        predicted, observed = (float(w @ v[inside].double() / w.sum()) for v in (confidence, right))
        effective = float(w.sum() ** 2 / (w**2).sum())
        rows.append(
            {
                "low": b / bins,
                "high": (b + 1) / bins,
                "rows": int(inside.sum()),
                "predicted": predicted,
                "observed": observed,
                "error": (observed * (1 - observed) / effective) ** 0.5,
            }
        )
        error += float(w.sum()) / total * abs(observed - predicted)
    return Calibration(pl.DataFrame(rows), error, lam)


def confusion(
    P: Float64[Tensor, "m C"],
    codes: Int64[Tensor, " m"],
    weights: Float64[Tensor, " m"] | None,
    classes: Sequence[Any],
) -> pl.DataFrame:
    """Rows by true class, columns by predicted class: counts, or sums of weights."""
    C = len(classes)
    guess = (P[:, 1] > P[:, 0]).long() if C == 2 else P.argmax(1)
    mass = torch.ones(len(codes), dtype=torch.int64) if weights is None else weights
    table = mass.new_zeros(C * C).index_add(0, codes * C + guess, mass).reshape(C, C)
    names = names_of_classes(classes)
    columns = {f"predicted {name}": table[:, k].tolist() for k, name in enumerate(names)}
    return pl.DataFrame({"class": list(names), **columns})


def names_of_classes(classes: Sequence[Any]) -> tuple[str, ...]:
    """What classes are called in a table: whole numbers without their zeros after the point."""
    plain = all(isinstance(label, float) and label.is_integer() for label in classes)
    return tuple(str(int(label) if plain else label) for label in classes)


def check_judge(judge: Any, classes: int) -> Judge:
    """Return the judge if it can judge so many classes.

    Raises:
        InputError: it is none of the choices; AUC of more than two classes.
    """
    if judge not in JUDGES:
        raise InputError("no such judge", "judge", repr(judge), f"use {', '.join(JUDGES)}")
    if judge == "auc" and classes > 2:
        what = "the area under the ROC curve is defined for two classes"
        raise InputError(what, "judge", f"'auc', {classes} classes", "use 'log_loss', 'error' or 'brier'")
    return judge
