"""What a path says of itself, in sentences with its own figures."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weightdecay.ridge.model import LEAST_LEFT
from weightdecay.select import Choice

if TYPE_CHECKING:
    from weightdecay.ridge.judge import Judged
    from weightdecay.ridge.record import RidgePath

MOST_DOF = 0.95  # of the rows: generalised CV is not believed beyond, and a model is said to interpolate
LOST = {"float64": 1e-6, "float32": 1e-3}  # relative error of the scores from which on it is told


def facts(path: "RidgePath") -> list[str]:
    """What was done and what was chosen."""
    lambdas = path.lambdas
    grid = (
        f"{len(lambdas)} λ from {_short(lambdas[0])} to {_short(lambdas[-1])}"
        if len(lambdas) > 1
        else "one λ"
    )
    found = [
        f"{path.n:,} rows, {path.p:,} columns: the {path.route} decomposed once, judged by {path.cv} "
        f"at {grid} ({path.unit})"
    ]
    if isinstance(path.best, float) and isinstance(path.one_se, float):
        best, one_se = (int((lambdas - lam).abs().argmin()) for lam in (path.best, path.one_se))
        least = f" {_short(path.scores[best])}" if path.scores.ndim == 1 else ""
        found.append(
            f"least score{least} at λ = {_short(path.best)}, {_short(path.dof[best])} degrees of freedom; "
            f"within one standard error up to λ = {_short(path.one_se)}, {_short(path.dof[one_se])} degrees "
            "of freedom"
        )
    if path.cv == "gcv":
        beyond = path.dof > MOST_DOF * path.n
        if bool(beyond.any()) and not bool(beyond.all()):
            found.append(
                f"generalised cross-validation is not believed where degrees of freedom exceed "
                f"{MOST_DOF:.0%} of the rows: the {int(beyond.sum())} λ up to "
                f"{_short(lambdas[beyond].max())} are not chosen from, whatever their scores"
            )
    found += constant_columns_said(path)
    worst = float(path.precision.max())
    if worst <= _told(path):
        found.append(f"estimated relative error of the scores: at most {worst:.1g}")
    return found


def constant_columns(path: "RidgePath") -> Sequence[int]:
    """Return the places of the columns whose coefficient is 0 because they do not vary."""
    factors = path.settings.get("penalty_factors")
    if path.settings.get("intercept", "free") == "free":
        return path.still
    scaled = bool(path.settings.get("standardize"))  # otherwise one may serve as an intercept
    return [j for j in path.still if scaled and not (factors and factors[j] == 0)]


def constant_columns_said(path: "RidgePath") -> list[str]:
    """Which columns do not vary, in one sentence or none."""
    still = constant_columns(path)
    if not still:
        return []
    names = [path.features[j] if path.features else f"column {j}" for j in still[:5]]
    some = ", ".join(names) + (", …" if len(still) > 5 else "")
    return [f"columns that do not vary have the coefficient 0: {some} ({len(still)} in all)"]


def interpolates(path: "RidgePath", lam: float | Tensor) -> str | None:
    """What follows if the model at λ has nearly as many degrees of freedom as rows: a sentence, or None."""
    left = path.n - path._dof(path._alphas(lam))
    close = [k for k, one in enumerate(left.tolist()) if one < max(LEAST_LEFT, (1 - MOST_DOF) * path.n)]
    if not close:
        return None
    k = close[0]
    if left[k] < LEAST_LEFT:
        so = "it interpolates them, and nothing is left for a noise sd or a prediction interval"
    else:
        so = f"noise sd, standard errors and prediction intervals rest on the {_short(left[k])} that are left"
    given = _short(torch.as_tensor(lam).reshape(-1).expand(len(left))[k])
    return (
        f"the model{_of(close, path)} at λ = {given} has {_short(path.n - left[k])} degrees of freedom "
        f"for {path.n:,} rows: {so}; {stronger(path, k)}"
    )


def stronger(path: "RidgePath", target: int) -> str:
    """What to do about a model that interpolates: take λ by one standard error, if that leaves more."""
    left = path.n - float(path._dof(path._alphas(path.one_se))[target])
    if left < max(LEAST_LEFT, (1 - MOST_DOF) * path.n):
        return "take a larger λ"
    one_se = torch.as_tensor(path.one_se).reshape(-1)
    lam = _short(one_se[target if len(one_se) > 1 else 0])
    return f"λ = {lam}, within one standard error (one_se, --choose one-se), leaves {_short(left)}"


def doubts(
    path: "RidgePath",
    judged: Sequence["Judged"],
    choices: Sequence[Choice],
    given: bool,
) -> tuple[str, ...]:
    """What to be careful about: a flat curve, an edge, a model that interpolates, digits that are lost.

    Args:
        path: the record.
        judged: what they were chosen by.
        choices: what was chosen from each.
        given: whether the grid was the user's.
    """
    found = []
    constant = (path._solver.variance == 0).nonzero()[:, 0].tolist()
    if constant:
        found.append(
            f"there is nothing to predict{_of(constant, path, all_of_them=True)}: the target is constant"
        )
    varying = [(k, choice) for k, choice in enumerate(choices) if judged[k].varies]
    flat = [k for k, choice in varying if choice.flat]
    if flat and len(path.lambdas) > 1:
        scores, errors = judged[flat[0]].scores, judged[flat[0]].errors
        finite = scores[scores.isfinite()]
        found.append(
            f"the curve is flat{_of(flat, path)}: over all λ the score changes by "
            f"{_short(finite.max() - finite.min())}, no more than its standard error of "
            f"{_short(errors[choices[flat[0]].best])}; the data do not choose λ"
        )
    for side, meaning in (("low", "no shrinkage at all"), ("high", "the mean alone")):
        at = [k for k, choice in varying if choice.edge == side and not choice.flat]
        if at:
            lam = path.lambdas[0 if side == "low" else -1]
            hint = "widen it" if given else f"what it tends to there is {meaning}"
            if side == "low" and not given and path.settings.get("dtype") == "float32":
                hint = "float32 inputs may carry no smaller one; give float64"
            found.append(
                f"the least score is at the edge of the grid{_of(at, path)}, λ = {_short(lam)}; {hint}"
            )
    if (said := interpolates(path, path.best)) is not None:
        found.append(said)
    worst = float(path.precision.max())
    if worst > _told(path):
        lam = _short(path.lambdas[int(path.precision.argmax())])
        lost = (
            f"no digit of the scores is certain at λ = {lam}, where rounding decides"
            if worst == math.inf
            else f"the scores have an estimated relative error of {worst:.1g} at λ = {lam}"
        )
        found.append(f"digits are lost: {lost}; standardise, or take larger λ")
    return tuple(found)


def _told(path: "RidgePath") -> float:
    return LOST.get(path.settings.get("dtype", ""), 1e-6)


def _of(targets: Sequence[int], path: "RidgePath", all_of_them: bool = False) -> str:
    """Which targets, where there are several that are told apart."""
    together = path.scores.ndim == 1 or len(targets) == path.scores.shape[1] or isinstance(path.best, float)
    if together and not all_of_them:
        return ""
    name = path.targets[targets[0]] if path.targets else f"target {targets[0] + 1}"
    return f" for {len(targets)} of {path.scores.shape[1]} targets, {name} first"


def _short(value: Any) -> str:
    return f"{float(value):.4g}"
