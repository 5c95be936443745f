"""The record of a path of logistic regression: every λ, its score, the choices, and the models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from weightdecay.arguments import choice, count
from weightdecay.errors import InputError
from weightdecay.logistic.judging import (
    BINS,
    Calibration,
    calibration,
    confusion,
    names_of_classes,
    probabilities,
)
from weightdecay.logistic.labels import as_array
from weightdecay.ridge.lambdas import Strength
from weightdecay.ridge.linalg import on_cpu
from weightdecay.ridge.model import coding_of
from weightdecay.ridge.problem import matched
from weightdecay.ridge.record import phrase, short
from weightdecay.ridge.sparse_inputs import SparseInputs
from weightdecay.saving import LOGISTIC, Saved, environment, plain, save
from weightdecay.select import Choice, Edge
from weightdecay.tables.columns import UNSEEN, Coding
from weightdecay.text import Text, chinese_of, texts_of

if TYPE_CHECKING:
    from weightdecay.logistic.fitting import Fitter

SAME = 1e-9  # relative difference of two α that are one: a λ may have been typed
SIDE = 2000  # coefficients, intercepts among them, beyond which there are no standard errors: 32 MB a matrix
EVERY_SIDE = 150  # beyond which degrees of freedom are not taken exactly at every λ of the grid
REACHED = 1e-8  # of a gradient's norm at W = 0: within it a fit is the minimum
IMPRECISE = 0.1  # of leave-one-out, relative to the mean log loss, from which on it is a doubt
AGAIN = "fit it again with `logistic_path`"
WORDS = {
    "log_loss": Text("log loss", "对数损失"),
    "error": Text("error rate", "错误率"),
    "brier": Text("Brier score", "Brier 分数"),
    "auc": Text("1 − AUC", "1 − AUC"),
    "evidence": Text("−2 log evidence", "−2 log 证据"),
}


def facts(path: "LogisticPath") -> list[Text]:
    """Say what was done and what was chosen."""
    lambdas, names = path.lambdas, path.class_names
    low, high = short(lambdas[0]), short(lambdas[-1])
    grid = Text("one λ", "一个 λ")
    if len(lambdas) > 1:
        grid = Text(f"{len(lambdas)} λ from {low} to {high}", f"{low} 到 {high} 的 {len(lambdas)} 个 λ ")
    cv, judge = phrase(path.cv), WORDS[path.judge]
    some = [f"{name} {rows:,}" for name, rows in zip(names[:5], path.counts, strict=False)]
    listed = ", ".join(some) + (", …" if len(names) > 5 else "")
    lines = [
        Text(
            f"{path.n:,} rows, {path.p:,} columns, {len(names):,} classes ({listed}): judged by {cv} and "
            f"{judge} at {grid} ({path.unit})",
            f"{path.n:,} 行，{path.p:,} 列，{len(names):,} 个类别（{listed}）：用{cv.zh}和{judge.zh}"
            f"在 {grid.zh}上评判（单位 {path.unit}）",
        )
    ]
    at_best, at_one_se = path._place(path.best), path._place(path.one_se)
    freedom = []
    for lam in (path.best, path.one_se):
        dof = path.dof_at(lam)
        freedom.append(
            Text("", "")
            if dof is None
            else Text(f", {short(dof)} degrees of freedom", f"，自由度 {short(dof)}")
        )
    lines.append(
        Text(
            f"least {judge} {short(path.scores[at_best])} at λ = {short(path.best)}{freedom[0]}; within one "
            f"standard error up to λ = {short(path.one_se)}{freedom[1]}",
            f"{judge.zh}最小值 {short(path.scores[at_best])} 在 λ = {short(path.best)} 处{freedom[0].zh}；"
            f"一倍标准误之内最大可取 λ = {short(path.one_se)}{freedom[1].zh}",
        )
    )
    if "error" in path.curves:
        best, one_se, none = (
            f"{float(values):.1%}"
            for values in (path.curves["error"][at_best], path.curves["error"][at_one_se], path.share_wrong)
        )
        lines.append(
            Text(
                f"rows predicted wrong when held out: {best} at the best λ, {one_se} by one standard error; "
                f"always the most frequent class: {none}",
                f"留出时预测错误的行：最佳 λ 处 {best}，一倍标准误处 {one_se}；总是预测最多的类别则为 {none}",
            )
        )
    lines += [] if path.coding is None else path.coding.said()
    if path.separable:
        lines.append(_separable(path))
    if path.precision is not None:
        there = float(path.precision[at_best])
        lines.append(
            Text(
                f"leave-one-out by one Newton step from the fit: by rows that were really left out the log "
                f"loss at the best λ is off by {there:.2g} of itself at most",
                f"留一法由拟合处的一步牛顿法得到：由真正留出的行估计，最佳 λ 处对数损失的相对误差"
                f"不超过 {there:.2g}",
            )
        )
    worst = float(path.gradient.max())
    if worst <= REACHED and not (path.separable and bool((path.lambdas == 0).any())):
        lines.append(
            Text(
                f"every fit is at its minimum: gradients of at most {worst:.1g} of those at W = 0",
                f"每个拟合都到达最小值：梯度不超过 W = 0 处的 {worst:.1g}",
            )
        )
    return lines


def _separable(path: "LogisticPath") -> Text:
    """Say that a plane separates the classes, and the smallest λ that is safe."""
    reached = path.lambdas[(path.gradient <= REACHED) & (path.lambdas > 0)]
    safe = f"λ = {short(reached[0])}" if len(reached) else "none"
    safe_zh = f"λ = {short(reached[0])}" if len(reached) else "没有"
    return Text(
        f"planes separate the classes of the training rows: without a penalty the coefficients grow without "
        f"end; the weakest λ of the grid that is safe: {safe}",
        f"训练行的各类别可用平面分开：没有惩罚时系数会无限增大；网格中可放心使用的最弱的 λ：{safe_zh}",
    )


def doubts(path: "LogisticPath", chosen: Choice, given: bool) -> tuple[Text, ...]:
    """Say what to be careful about: a flat curve, an edge, fits that are not at the minimum, leave-one-out.

    Args:
        path: the record.
        chosen: from its scores.
        given: whether the grid was the user's.
    """
    said: list[Text] = []
    judge = WORDS[path.judge]
    factors = path.settings.get("penalty_factors")
    if path.separable and bool((path.lambdas == 0).any()):
        said.append(
            Text(
                "planes separate the classes of the training rows, so that there is no minimum at λ = 0: the "
                "coefficients there are as large as rounding lets them grow; take a larger λ",
                "训练行的各类别可用平面分开，因此在 λ = 0 处没有最小值：那里的系数只受舍入限制；请取更大的 λ",
            )
        )
    elif factors and 0 in factors and path._separates(-1):
        said.append(
            Text(
                "columns without a penalty separate the classes of the training rows: their coefficients "
                "have no minimum at any λ, and are as large as rounding lets them grow; penalise them",
                "不受惩罚的列就能把训练行的各类别分开：它们的系数在任何 λ 处都没有最小值，"
                "只受舍入限制；请对这些列加惩罚",
            )
        )
    if chosen.flat and len(path.lambdas) > 1:
        finite = path.scores[path.scores.isfinite()]
        change, error = short(finite.max() - finite.min()), short(path.errors[chosen.best])
        said.append(
            Text(
                f"the curve is flat: over all λ the {judge} changes by {change}, no more than its standard "
                f"error of {error}; the data do not choose λ",
                f"曲线是平的：在全部 λ 上{judge.zh}只变化 {change}，不超过它的标准误 {error}；"
                "这些数据选不出 λ",
            )
        )
    elif chosen.edge is not None:
        said.append(_edge(path, chosen.edge, given))
    missed = path.gradient > REACHED
    if bool(missed.any()):
        lams, worst = path.lambdas[missed], float(path.gradient.max())
        number = int(missed.sum())
        en = (
            f"λ = {short(lams[0])}"
            if number == 1
            else f"{number} λ from {short(lams[0])} to {short(lams[-1])}"
        )
        zh = (
            f"λ = {short(lams[0])}"
            if number == 1
            else f"{short(lams[0])} 到 {short(lams[-1])} 的 {number} 个 λ"
        )
        said.append(
            Text(
                f"at {en} a fit has not reached its minimum: the gradient is {worst:.1g} of the one at "
                "W = 0; standardise, or take larger λ",
                f"在 {zh} 处有拟合没有到达最小值：梯度是 W = 0 处的 {worst:.1g}；请标准化，或取更大的 λ",
            )
        )
    if path.precision is not None:
        worst = float(path.precision[chosen.best])
        if not worst <= IMPRECISE:
            said.append(
                Text(
                    f"leave-one-out by one Newton step is not precise at λ = {short(path.best)}: by rows "
                    f"that were really left out the log loss may be off by {worst:.2g} of itself; use cv=5",
                    f"在 λ = {short(path.best)} 处，一步牛顿法的留一法不精确："
                    f"由真正留出的行估计，对数损失的相对误差可达 {worst:.2g}；请用 cv=5",
                )
            )
    return tuple(said)


def _edge(path: "LogisticPath", side: str, given: bool) -> Text:
    """Say that the least score is at an end of the grid, and what that means there."""
    lam = short(path.lambdas[0 if side == "low" else -1])
    if given:
        hint = Text("widen it", "请把网格加宽")
    elif side == "high":
        hint = Text("what it tends to there is the class shares alone", "那里的极限是只用各类别的比例预测")
    elif path.separable:
        hint = Text(
            "planes separate the classes, and held-out rows, too: any λ below serves",
            "各类别可用平面分开，留出的行也是：更小的 λ 都可以",
        )
    else:
        hint = Text("what it tends to there is no shrinkage at all", "那里的极限是完全不收缩")
    return Text(
        f"the least {WORDS[path.judge]} is at the edge of the grid, λ = {lam}; {hint}",
        f"{WORDS[path.judge].zh}最小值在网格的边缘，λ = {lam}；{hint.zh}",
    )


@dataclass(frozen=True, eq=False)
class Fitted:
    """What stands behind a path: coefficients on its grid and, while the data are there, a way to more.

    Args:
        alphas: where coefficients are known (L,).
        coefs: coefficients there (L, c, p).
        intercepts: (L, c).
        dofs: effective degrees of freedom by α, where they are known.
        held: each row's held-out probabilities (n, C) by α.
        mean: of the columns (p,).
        sd: of the columns (p,).
        ranges: the least and the greatest value of each column (2, p).
        codes: the place of each row's class (n,); empty where the data are gone.
        weights: of the rows (n,), or None where all are 1.
        fitter: the data; None where the path was loaded.
        spreads: standard errors (c, q) by α, or the reason why there are none.
        tables: calibration and confusion by α, of a path that was loaded.
    """

    alphas: Float64[Tensor, " L"]
    coefs: Float64[Tensor, "L c p"]
    intercepts: Float64[Tensor, "L c"]
    dofs: dict[float, float]
    held: dict[float, Float64[Tensor, "n C"]]
    mean: Float64[Tensor, " p"]
    sd: Float64[Tensor, " p"]
    ranges: Float64[Tensor, "2 p"]
    codes: Int64[Tensor, " n"]
    weights: Float64[Tensor, " n"] | None
    fitter: "Fitter | None"
    spreads: dict[float, Float64[Tensor, "c q"] | str] = field(default_factory=dict)
    tables: Mapping[float, tuple[Calibration, pl.DataFrame]] = field(default_factory=dict)
    _last: dict[float, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def near(self, alpha: float) -> float:
        """The α of the grid that is meant, or α itself."""
        close = (self.alphas - alpha).abs() <= SAME * alpha
        return float(self.alphas[close][0]) if bool(close.any()) else alpha

    def solve(self, alpha: float) -> tuple[Float64[Tensor, "c p"], Float64[Tensor, " c"]] | None:
        """Coefficients and intercepts; None where there are none without the data."""
        close = ((self.alphas - alpha).abs() <= SAME * alpha).nonzero()[:, 0]
        if len(close):
            return self.coefs[close[0]], self.intercepts[close[0]]
        if self.fitter is None:
            return None
        if alpha not in self._last:
            self._last.clear()
            coef, intercept = self.fitter.fit(alpha)
            self._last[alpha] = coef.cpu(), intercept.cpu()
        return self._last[alpha]

    def probabilities(self, alpha: float) -> Float64[Tensor, "n C"] | None:
        """Held-out probabilities; None without the data."""
        if alpha not in self.held:
            if self.fitter is None:
                return None
            self.held[alpha] = self.fitter.held_out(alpha).cpu()
        return self.held[alpha]

    @on_cpu()
    def spread(self, alpha: float) -> Float64[Tensor, "c q"] | str | None:
        """Standard errors (c, q), or why there are none; None without the data. Degrees of freedom, too."""
        if alpha not in self.spreads:
            found = self.solve(alpha)
            if self.fitter is None or found is None:
                return None
            coef, intercept = found
            side = coef.numel() + len(intercept)
            if side > SIDE:
                why = f"{side:,} coefficients are too many for standard errors, which take {SIDE:,} at most"
                self.spreads[alpha] = why
            else:
                errors, dof = self.fitter.problem.spread(alpha, coef, intercept)
                self.spreads[alpha] = errors.cpu()
                self.dofs.setdefault(alpha, dof)
        return self.spreads[alpha]

    def dof(self, alpha: float) -> float | None:
        """Effective degrees of freedom, or None where they are not known or take too long."""
        if alpha not in self.dofs:
            self.spread(alpha)
        return self.dofs.get(alpha)

    def fill_degrees(self, first: Sequence[float]) -> None:
        """Take the degrees of freedom at every α of the grid, and exactly those of the first ones."""
        few = self.coefs[0].numel() <= EVERY_SIDE
        for alpha in self.alphas.tolist() if few else first:
            self.dof(alpha)
        if self.fitter is not None and any(alpha not in self.dofs for alpha in self.alphas.tolist()):
            self.dofs.update(self.fitter.degrees(self.alphas) | self.dofs)


# Fields that are plain values.
PLAIN = ("unit", "judge", "edge", "flat", "cv", "n", "p", "target", "best", "one_se")


@dataclass(frozen=True, eq=False)
class LogisticPath:
    """Logistic or multinomial regression at every λ of a grid, judged; models and predictions at any λ > 0.

    Args:
        lambdas: the grid in `unit`, in the order of ascending strength (L,).
        unit: its convention, a name of `wd.conventions()`.
        alphas: the same on the sum of log losses, nλ, the inverse of scikit-learn's C (L,).
        scores: what λ is chosen by, the smaller the better: the judge's score of held-out rows, or
            −2 log evidence (L,).
        errors: their standard errors: over folds sd(fold means)/√K; for leave-one-out sd/√n; for the
            evidence 1 (L,).
        fold_scores: each fold's score (K, L); None without folds.
        curves: the scores of all judges, by name: log_loss, error, brier and of two classes auc, as 1 − AUC.
        judge: the one that was chosen by, or "evidence".
        gradient: the largest norm of a gradient among the fits at each λ, over its norm at W = 0 (L,).
        precision: of leave-one-out: how far the mean log loss may be off, relative to it, by rows that were
            really left out (L,); None for folds.
        best: λ of the least score, the strongest of those that rounding does not tell from it.
        one_se: the strongest λ whose score is within one standard error of the least.
        edge: "low" or "high" where the least score is at an end of the grid, which was not to be moved.
        flat: whether one standard error tells no λ of the grid from the best.
        flat_range: the λ around the best that one standard error does not tell from it.
        cv: how λ was judged, in words.
        classes: the labels, ascending, as Python values.
        counts: how many rows each class has.
        n: rows of positive weight.
        p: columns.
        features: the columns' names, or None.
        target: the name of the labels, or None.
        doubts: what to be careful about, in sentences with the figures of this path; each was a warning, too.
        settings: everything that was chosen, as plain values.
        coding: how the columns of a table became the features; None where they are numbers as they stand.
    """

    lambdas: Float64[Tensor, " L"] = field(repr=False)
    unit: str
    alphas: Float64[Tensor, " L"] = field(repr=False)
    scores: Float64[Tensor, " L"] = field(repr=False)
    errors: Float64[Tensor, " L"] = field(repr=False)
    fold_scores: Float64[Tensor, "K L"] | None = field(repr=False)
    curves: Mapping[str, Float64[Tensor, " L"]] = field(repr=False)
    judge: str
    gradient: Float64[Tensor, " L"] = field(repr=False)
    precision: Float64[Tensor, " L"] | None = field(repr=False)
    best: float
    one_se: float
    edge: Edge
    flat: bool
    flat_range: tuple[float, float]
    cv: str
    classes: tuple[Any, ...]
    counts: tuple[int, ...]
    n: int
    p: int
    features: tuple[str, ...] | None = field(repr=False)
    target: str | None
    doubts: tuple[Text, ...]
    settings: Mapping[str, Any] = field(repr=False)
    _fitted: Fitted = field(repr=False)
    _strength: Strength = field(repr=False)
    coding: Coding | None = field(default=None, repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes as texts."""
        return names_of_classes(self.classes)

    @property
    def notes(self) -> tuple[Text, ...]:
        """What there is to know, in sentences with the figures of this path; the doubts last."""
        return (*facts(self), *self.doubts)

    @property
    def share_wrong(self) -> float:
        """The share of rows, by weight, that are not of the most frequent class."""
        return float(self.settings.get("share_wrong", 1 - max(self.counts) / sum(self.counts)))

    @cached_property
    def separable(self) -> bool:
        """Whether planes separate the classes: the fit at the weakest λ predicts every training row right."""
        if self._fitted.fitter is None:
            return bool(self.settings.get("separable"))
        return self._separates(0)

    def _separates(self, place: int) -> bool:
        """Whether the fit at a λ of the grid predicts every training row right."""
        fitter = self._fitted.fitter
        assert fitter is not None
        coef, intercept = self._fitted.coefs[place], self._fitted.intercepts[place]
        for some in torch.arange(self.n).split(1 << 14):
            Z = fitter.problem.X[some].double().cpu() @ coef.mT + intercept
            codes = self._fitted.codes[some]
            Z = torch.cat([torch.zeros_like(Z), Z], 1) if Z.shape[1] == 1 else Z
            own = Z.gather(1, codes[:, None])
            if bool((own <= Z.scatter(1, codes[:, None], -torch.inf).amax(1, keepdim=True)).any()):
                return False
        return True

    @cached_property
    def dof(self) -> Float64[Tensor, " L"]:
        """Effective degrees of freedom at every λ (L,), the trace of H^-1 J; NaN where that takes too long.

        J is the second derivative of the loss at the fit and H that of the objective; an intercept counts 1,
        and one for each class C − 1.
        """
        self._fitted.fill_degrees([self._alpha(lam) for lam in (self.best, self.one_se)])
        found = [self._fitted.dofs.get(alpha) for alpha in self.alphas.tolist()]
        return torch.tensor([float("nan") if dof is None else dof for dof in found], dtype=torch.float64)

    def dof_at(self, lam: float | Tensor | None = None) -> float | None:
        """Effective degrees of freedom at λ; None where there are too many coefficients to know them."""
        return self._fitted.dof(self._alpha(lam))

    def coef(self, lam: float | Tensor | None = None) -> Float64[Tensor, "*C p"]:
        """Coefficients on the original scale: (p,) of two classes, for the second; else (C, p).

        λ is in `unit`; at the best without it.
        """
        return self._squeezed(self._solution(lam)[0])

    def intercept(self, lam: float | Tensor | None = None) -> Float64[Tensor, "*C"]:
        """The intercept () or the intercepts (C,)."""
        return self._squeezed(self._solution(lam)[1])

    def predict_proba(self, X: Any, lam: float | Tensor | None = None) -> Float64[Tensor, "m C"]:
        """Probabilities of the classes for new rows (m, C); a DataFrame is matched by name."""
        return self._model(lam).predict_proba(X)

    def predict(self, X: Any, lam: float | Tensor | None = None) -> np.ndarray:
        """The most probable class of each new row, as an array of labels (m,)."""
        return self._model(lam).predict(X)

    def out_of_fold(self, lam: float | Tensor | None = None) -> Float64[Tensor, "n C"]:
        """Probabilities of each row by fits that have not seen it; leave-one-out where there are no folds.

        NaN for rows that no split holds out, the mean where several do.
        """
        alpha = self._held_alpha(lam)
        P = self._fitted.probabilities(alpha)
        if P is None:
            what = "predictions out of fold need the data, which a loaded path does not have"
            raise InputError(what, "lam", short(self.best if lam is None else lam), AGAIN)
        return P.clone()

    def calibration(self, lam: float | Tensor | None = None, bins: int = BINS) -> Calibration:
        """How held-out probabilities compare with what was observed: a table by bins, and the expected error.

        Raises:
            InputError: nothing is held out; a loaded path, at another λ than the best and by one standard
                error, or with other bins.
        """
        count(bins, "bins", most=1000)
        given, alpha = self.best if lam is None else float(lam), self._held_alpha(lam)
        if self._fitted.fitter is None:
            stored = self._fitted.tables.get(alpha)
            if stored is None or bins != BINS:
                what = "another calibration needs the data, which a loaded path does not have"
                raise InputError(what, "lam", f"{short(given)}, {bins} bins", AGAIN)
            return stored[0]
        P, codes, weights = self._judged_rows(alpha)
        return calibration(
            P, codes, torch.ones(len(codes)).double() if weights is None else weights, given, bins
        )

    def confusion(self, lam: float | Tensor | None = None) -> pl.DataFrame:
        """Held-out rows by class and by predicted class: counts, or sums of weights.

        A row per class: class, and "predicted …" for each class.

        Raises:
            InputError: as `calibration`.
        """
        alpha = self._held_alpha(lam)
        if self._fitted.fitter is None:
            stored = self._fitted.tables.get(alpha)
            if stored is None:
                what = "another confusion table needs the data, which a loaded path does not have"
                raise InputError(what, "lam", short(self.best if lam is None else lam), AGAIN)
            return stored[1]
        return confusion(*self._judged_rows(alpha), self.classes)

    def standard_errors(self, lam: float | Tensor | None = None) -> Float64[Tensor, "*C p"]:
        """Standard errors of the coefficients, of the shape of `coef`: how they vary at fixed λ.

            the roots of the diagonal of H^-1 J H^-1,   H = J + α F

        J is the second derivative of the loss at the fit, the Fisher information. The bias that shrinking
        brings is not in them, nor that λ was chosen. Source: le Cessie and van Houwelingen (1992).

        Raises:
            InputError: too many coefficients; a loaded path, at another λ than the best and by one standard
                error.
        """
        return self._squeezed(self._spread(lam)[:, : self.p])

    def model(self, lam: float | Tensor | None = None) -> "LogisticModel":
        """The model at λ, which can be saved and used without the data; at the best λ without an argument."""
        errors: Tensor | None = None
        more: dict[str, Any] = {}
        try:
            errors = self._spread(lam)
        except InputError as error:
            more["no_standard_errors"] = str(error)
        return self._model(lam, errors, more)

    def frame(self) -> pl.DataFrame:
        """One row per λ: lam, alpha, score, error, dof, gradient, precision, all judges, fold_1 and so on.

        The judges' columns are log_loss, error_rate, brier, and of two classes auc, the area itself.
        """
        nan = torch.full_like(self.lambdas, torch.nan)
        columns = {
            "lam": self.lambdas,
            "alpha": self.alphas,
            "score": self.scores,
            "error": self.errors,
            "dof": self.dof,
            "gradient": self.gradient,
            "precision": nan if self.precision is None else self.precision,
        }
        for name, values in self.curves.items():
            if name != "evidence":
                columns[{"error": "error_rate"}.get(name, name)] = 1 - values if name == "auc" else values
        for k, fold in enumerate(() if self.fold_scores is None else self.fold_scores):
            columns[f"fold_{k + 1}"] = fold
        return pl.DataFrame({name: values.tolist() for name, values in columns.items()})

    def coef_frame(self, lam: float | Tensor | None = None) -> pl.DataFrame:
        """The coefficients at λ as a table: class, column, coefficient, standard_error, per_sd.

        A row per class and column, of two classes for the second alone, and one, "(intercept)", for the
        intercept. `per_sd` is the coefficient times the column's standard deviation, which can be compared
        between columns. `standard_error` is null where there is none.
        """
        coef, intercept = self._solution(lam)
        try:
            errors = self._spread(lam)
        except InputError:
            errors = torch.full((len(coef), self.p + 1), torch.nan, dtype=torch.float64)
        names = self.features or tuple(f"column {j + 1}" for j in range(self.p))
        classes = self.class_names[-len(coef) :]
        parts = []
        for k, name in enumerate(classes):
            own = [float(errors[k, self.p])] if errors.shape[1] > self.p else [float("nan")]
            parts.append(
                pl.DataFrame(
                    {
                        "class": [name] * (self.p + 1),
                        "column": ["(intercept)", *names],
                        "coefficient": [float(intercept[k]), *coef[k].tolist()],
                        "standard_error": [*own, *errors[k, : self.p].tolist()],
                        "per_sd": pl.Series([None, *(coef[k] * self._fitted.sd).tolist()], dtype=pl.Float64),
                    }
                )
            )
        return pl.concat(parts).with_columns(pl.col("standard_error").fill_nan(None))

    def save(self, folder: str | Path) -> list[Path]:
        """Write path.safetensors, path.parquet (`frame`) and path.json into a folder, made if need be.

        Of the data nothing is kept but means, standard deviations and ranges of the columns, and of the rows
        that were held out the calibration and the confusion table at the best λ and by one standard error.
        Either all files are replaced or none; path.json has the checksums of the others.

        Returns:
            The files' paths.

        Raises:
            InputError: they cannot be written.
        """
        fitted = self._fitted
        chosen = sorted({fitted.near(self._alpha(lam)) for lam in (self.best, self.one_se)})
        tensors = {name: getattr(fitted, name) for name in _TENSORS}
        why: list[str | None] = []
        for k, alpha in enumerate(chosen):
            spread = fitted.spread(alpha)
            why.append(spread if isinstance(spread, str) else None)
            if isinstance(spread, Tensor):
                tensors[f"spread.{k}"] = spread
        held = self.judge != "evidence"
        tables = [self._tables(lam) for lam in (self.best, self.one_se)] if held else []
        dofs = [fitted.dof(alpha) for alpha in chosen]
        values = {
            **{name: getattr(self, name) for name in PLAIN},
            "flat_range": self.flat_range,
            "classes": self.classes,
            "counts": self.counts,
            "notes": self.notes,
            "doubts": self.doubts,
            "doubts_zh": chinese_of(self.doubts),
            "settings": {**self.settings, "separable": self.separable},
            "context": dict(self._strength.context),
            "chosen": chosen,
            "dofs": dofs,
            "no_standard_errors": why,
            "held_out": tables,
            "curves": [*self.curves],
            "has_precision": self.precision is not None,
            "features": self.features,
            "coding": None if self.coding is None else self.coding.to_dict(),
        }
        parts = {"path.safetensors": tensors, "path.parquet": self.frame()}
        return save(folder, "path.json", values, parts, LOGISTIC["path.json"])

    def _tables(self, lam: float) -> dict[str, Any]:
        reliability = self.calibration(lam)
        return {
            "alpha": self._fitted.near(self._alpha(lam)),
            "lam": reliability.lam,
            "calibration_error": reliability.error,
            "calibration": reliability.table.to_dicts(),
            "confusion": [list(row) for row in self.confusion(lam).rows()],
        }

    def _place(self, lam: float) -> int:
        return int((self.lambdas - lam).abs().argmin())

    def _alpha(self, lam: float | Tensor | None) -> float:
        """α of λ.

        Raises:
            InputError: no number, several, negative, or 0.
        """
        alphas = self._strength.alpha(self.best if lam is None else lam)
        if len(alphas) != 1:
            raise InputError("one λ is needed", "lam", f"{len(alphas)} values", "give one")
        alpha = self._fitted.near(float(alphas[0]))
        if alpha == 0:
            if float(self.best if lam is None else lam) not in self.lambdas.tolist():
                raise InputError("no penalty at all", "lam", 0, "give a λ above 0")
            return float(self.alphas[0])
        return alpha

    def _held_alpha(self, lam: float | Tensor | None) -> float:
        if self.judge == "evidence":
            remedy = "use folds, or cv='loo'"
            raise InputError("the evidence holds no rows out", "cv", "'evidence'", remedy)
        return self._alpha(lam)

    def _judged_rows(self, alpha: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """Probabilities, classes and weights of the rows that were held out."""
        P, fitted = self._fitted.probabilities(alpha), self._fitted
        assert P is not None
        there = ~P[:, 0].isnan()
        weights = None if fitted.weights is None else fitted.weights[there]
        return P[there], fitted.codes[there], weights

    def _solution(self, lam: float | Tensor | None) -> tuple[Float64[Tensor, "c p"], Float64[Tensor, " c"]]:
        found = self._fitted.solve(self._alpha(lam))
        if found is None:
            what = "the path was saved without its data, and without coefficients at this λ"
            low, high = short(self.lambdas[0]), short(self.lambdas[-1])
            remedy = (
                f"there are those of {len(self.lambdas)} λ from {low} to {high}, `path.lambdas`; or {AGAIN}"
            )
            raise InputError(what, "lam", f"{float(self.best if lam is None else lam):.6g}", remedy)
        return found[0].clone(), found[1].clone()

    def _spread(self, lam: float | Tensor | None) -> Float64[Tensor, "c q"]:
        spread = self._fitted.spread(self._alpha(lam))
        if isinstance(spread, str):
            raise InputError("no standard errors here", "coef", f"{self.p:,} columns", spread)
        if spread is None:
            what = "no standard errors at this λ without the data"
            remedy = f"there are those at the best λ and by one standard error; or {AGAIN}"
            raise InputError(what, "lam", f"{float(self.best if lam is None else lam):.6g}", remedy)
        return spread

    def _squeezed(self, values: Tensor) -> Tensor:
        """Without the classes' axis where there is one logit."""
        return values[0] if len(self.classes) == 2 else values

    def _model(
        self, lam: float | Tensor | None, errors: Tensor | None = None, more: Mapping[str, Any] | None = None
    ) -> "LogisticModel":
        coef, intercept = self._solution(lam)
        fitted, q = self._fitted, self.p + 1
        own = errors is not None and errors.shape[1] == q
        return LogisticModel(
            coef=self._squeezed(coef),
            intercept=self._squeezed(intercept),
            classes=self.classes,
            features=self.features,
            target=self.target,
            lam=self.best if lam is None else float(lam),
            unit=self.unit,
            alpha=self._alpha(lam),
            n=self.n,
            counts=self.counts,
            dof=self.dof_at(lam) if errors is not None else None,
            standard_errors=None if errors is None else self._squeezed(errors[:, : self.p]),
            intercept_errors=self._squeezed(errors[:, self.p]) if own and errors is not None else None,
            mean=fitted.mean,
            scale=fitted.sd,
            ranges=fitted.ranges,
            settings=dict(self.settings) | dict(more or {}),
            coding=self.coding,
        )


_TENSORS = ("alphas", "coefs", "intercepts", "mean", "sd", "ranges")


def path_of_saved(saved: Saved) -> LogisticPath:
    """Make the path that `LogisticPath.save` wrote."""
    tensors, frame = saved.tensors("path.safetensors"), saved.table("path.parquet")

    def column(name: str) -> Tensor:
        return torch.from_numpy(frame[name].to_numpy().copy())

    known = zip(tensors["alphas"].tolist(), frame["dof"].to_list(), strict=True)
    dofs = {alpha: dof for alpha, dof in known if dof is not None and dof == dof}
    spreads: dict[float, Tensor | str] = {}
    for k, (alpha, why, dof) in enumerate(
        zip(saved["chosen"], saved["no_standard_errors"], saved["dofs"], strict=True)
    ):
        spreads[alpha] = tensors[f"spread.{k}"] if why is None else why
        if dof is not None:
            dofs[alpha] = dof
    classes = tuple(saved["classes"])
    columns = ["class", *(f"predicted {name}" for name in names_of_classes(classes))]
    tables = {
        one["alpha"]: (
            Calibration(pl.DataFrame(one["calibration"]), one["calibration_error"], one["lam"]),
            pl.DataFrame(one["confusion"], schema=columns, orient="row"),
        )
        for one in saved["held_out"]
    }
    numbers: dict[str, Any] = {name: tensors[name] for name in _TENSORS}
    fitted = Fitted(
        **numbers,
        dofs=dofs,
        held={},
        codes=torch.empty(0, dtype=torch.int64),
        weights=None,
        fitter=None,
        spreads=spreads,
        tables=tables,
    )
    folds = [column(name) for name in frame.columns if name.startswith("fold_")]
    curves = {
        name: column("score")
        if name == "evidence"
        else 1 - column("auc")
        if name == "auc"
        else column("error_rate" if name == "error" else name)
        for name in saved["curves"]
    }
    features = saved["features"]
    return LogisticPath(
        lambdas=column("lam"),
        alphas=column("alpha"),
        scores=column("score"),
        errors=column("error"),
        fold_scores=torch.stack(folds) if folds else None,
        curves=curves,
        gradient=column("gradient"),
        precision=column("precision") if saved["has_precision"] else None,
        **{name: saved[name] for name in PLAIN},
        flat_range=(saved["flat_range"][0], saved["flat_range"][1]),
        classes=classes,
        counts=tuple(saved["counts"]),
        features=None if features is None else tuple(features),
        doubts=texts_of(saved["doubts"], saved.values.get("doubts_zh")),
        settings=saved["settings"],
        coding=coding_of(saved),
        _fitted=fitted,
        _strength=Strength(saved["unit"], saved["context"]),
    )


# What is a number or a tensor of numbers: kept in model.safetensors, to the bit.
_NUMBERS = ("coef", "intercept", "lam", "alpha", "mean", "scale", "ranges")


@dataclass(frozen=True, eq=False)
class LogisticModel:
    """P(class | x) from the logits x·W' + b, with what is needed to use it and to know where it came from.

    Of two classes there is one logit, that of the second; of more one each, and a softmax.

    Args:
        coef: W, on the original scale of the columns: (p,) of two classes, else (C, p).
        intercept: b, () or (C,).
        classes: the labels, ascending, as Python values.
        features: the columns' names; None where it was fitted on a tensor without names.
        target: the name of the labels, or None.
        lam: the strength, in `unit`.
        unit: its convention, a name of `wd.conventions()`.
        alpha: the same on the sum of log losses, the inverse of scikit-learn's C.
        n: rows it was fitted on.
        counts: rows of each class.
        dof: effective degrees of freedom, or None.
        standard_errors: of the coefficients, in their shape; None where there are too many.
        intercept_errors: of the intercept likewise.
        mean: the training inputs' means (p,).
        scale: their standard deviations, divided by n, (p,).
        ranges: the least and the greatest value of each input among the training rows (2, p).
        settings: everything that was chosen, as plain values.
        coding: how the columns of a table become the features; None where they are numbers as they stand.
    """

    coef: Float64[Tensor, "*C p"] = field(repr=False)
    intercept: Float64[Tensor, "*C"]
    classes: tuple[Any, ...]
    features: tuple[str, ...] | None = field(repr=False)
    target: str | None
    lam: float
    unit: str
    alpha: float
    n: int
    counts: tuple[int, ...] = field(repr=False)
    dof: float | None
    standard_errors: Float64[Tensor, "*C p"] | None = field(repr=False)
    intercept_errors: Float64[Tensor, "*C"] | None = field(repr=False)
    mean: Float64[Tensor, " p"] = field(repr=False)
    scale: Float64[Tensor, " p"] = field(repr=False)
    ranges: Float64[Tensor, "2 p"] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    coding: Coding | None = field(default=None, repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes as texts."""
        return names_of_classes(self.classes)

    def logits(self, X: Any, unseen: str = "refuse") -> Float64[Tensor, "m c"]:
        """Logits for new rows: (m, 1) of two classes, for the second; else (m, C).

        Args:
            X: tensor or array (m, p), its columns in the order of the fit; or a polars or pandas DataFrame,
                matched by name in any order.
            unseen: "base" takes levels that the fit has not seen as the most frequent one.

        Raises:
            InputError: columns that are missing or unknown, cells that are not finite, levels that the fit
                has not seen.
        """
        rows = self._matched(X, unseen)
        p = self.coef.shape[-1]
        coef, intercept = self.coef.reshape(-1, p).to(rows.device), self.intercept.reshape(-1).to(rows.device)
        return rows @ coef.mT + intercept

    def predict_proba(self, X: Any, unseen: str = "refuse") -> Float64[Tensor, "m C"]:
        """Probabilities of the classes, in the order of `classes`, for new rows (m, C).

        Args:
            X: as in `logits`.
            unseen: as in `logits`.

        Raises:
            InputError: as `logits`.
        """
        return probabilities(self.logits(X, unseen))

    def predict(self, X: Any, unseen: str = "refuse") -> np.ndarray:
        """The most probable class of each new row, as an array of labels (m,).

        Args:
            X: as in `logits`.
            unseen: as in `logits`.

        Raises:
            InputError: as `logits`.
        """
        Z = self.logits(X, unseen)
        places = (Z[:, 0] > 0).long() if Z.shape[1] == 1 else Z.argmax(1)
        return as_array(self.classes)[places.cpu().numpy()]

    def outside(self, X: Any, unseen: str = "refuse") -> Bool[Tensor, "m p"]:
        """Where an input of a new row is outside its range in the training rows, by a millionth of it."""
        rows = self._matched(X, unseen)
        low, high = self.ranges.to(rows.device)
        slack = 1e-6 * (high - low)
        blocks = (block for _, block in rows.blocks()) if isinstance(rows, SparseInputs) else [rows]
        return torch.cat([(block < low - slack) | (block > high + slack) for block in blocks])

    def save(self, folder: str | Path) -> list[Path]:
        """Write model.safetensors and model.json into a folder, made if need be; returns their paths.

        Either both files are replaced or neither; model.json has the checksum of the other.

        Raises:
            InputError: they cannot be written.
        """
        tensors: dict[str, float | Tensor] = {name: getattr(self, name) for name in _NUMBERS}
        for name in ("dof", "standard_errors", "intercept_errors"):
            if getattr(self, name) is not None:
                tensors[name] = getattr(self, name)
        return save(
            folder, "model.json", self.to_dict(), {"model.safetensors": tensors}, LOGISTIC["model.json"]
        )

    def to_dict(self) -> dict[str, Any]:
        """All but the coefficients, as plain values."""
        return {
            **LOGISTIC["model.json"].about,
            "classes": self.classes,
            "counts": self.counts,
            "target": self.target,
            "lambda": self.lam,
            "unit": self.unit,
            "alpha": self.alpha,
            "n": self.n,
            "dof": self.dof,
            "intercept": plain(self.intercept),
            "settings": dict(self.settings),
            "environment": environment(),
            "features": self.features,
            "coding": None if self.coding is None else self.coding.to_dict(),
            "means": plain(self.mean),
            "scales": plain(self.scale),
        }

    def outputs(self, X: Any = None, level: float | None = None) -> dict[str, Any]:
        """What `weightdecay predict` writes of new rows, by column; without rows the columns' names alone.

        Args:
            X: as in `logits`.
            level: of a prediction interval, which there is none of here.

        Raises:
            InputError: as `logits`; a level.
        """
        if level is not None:
            what = "a prediction interval is for a regression"
            remedy = "leave it out: there is a probability for each class"
            raise InputError(what, "interval", level, remedy)
        target = self.target or "target"
        names = [f"{target}_predicted", *(f"{target}_p_{name}" for name in self.class_names)]
        if X is None:
            return dict.fromkeys(names)
        P = self.predict_proba(X)
        return dict(zip(names, [self.predict(X), *P.cpu().numpy().T], strict=True))

    def _matched(self, X: Any, unseen: str) -> Float64[Tensor, "m p"] | SparseInputs:
        choice(unseen, "unseen", UNSEEN)
        return matched(X, self.features, self.coef.shape[-1], coding=self.coding, unseen=unseen)


def model_of_saved(saved: Saved) -> LogisticModel:
    """Make the model that `LogisticModel.save` wrote."""
    tensors = saved.tensors("model.safetensors")
    numbers: dict[str, Any] = {name: tensors[name] for name in _NUMBERS}
    for name in ("lam", "alpha"):
        numbers[name] = float(numbers[name])
    features = saved["features"]
    return LogisticModel(
        **numbers,
        classes=tuple(saved["classes"]),
        counts=tuple(saved["counts"]),
        features=None if features is None else tuple(features),
        **{name: saved[name] for name in ("target", "unit", "n", "settings")},
        dof=float(tensors["dof"]) if "dof" in tensors else None,
        standard_errors=tensors.get("standard_errors"),
        intercept_errors=tensors.get("intercept_errors"),
        coding=coding_of(saved),
    )


def from_saved(saved: Saved) -> LogisticPath | LogisticModel:
    """Make the path or the model that was saved."""
    return path_of_saved(saved) if saved.file.name == "path.json" else model_of_saved(saved)
