"""The record of a regularisation path: every λ, its score, the choices, and the models behind them."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from jaxtyping import Float64
from torch import Tensor
from typing_extensions import override

from weightdecay.errors import InputError
from weightdecay.ridge.gram import Covariance
from weightdecay.ridge.lambdas import Strength
from weightdecay.ridge.linalg import on_cpu, one_pool
from weightdecay.ridge.model import LEAST_LEFT, RidgeModel, coding_of
from weightdecay.ridge.route import Curve, Route, Scale, at_least
from weightdecay.saving import Saved, plain, save
from weightdecay.select import Choice, Edge
from weightdecay.tables.columns import Coding
from weightdecay.text import Text, chinese_of, texts_of

if TYPE_CHECKING:
    from weightdecay.ridge.path import Judged


MOST_DOF = 0.95  # of the rows: generalised CV is not believed beyond, and a model is said to interpolate
LOST = {"float64": 1e-6, "float32": 1e-3}  # relative error of the scores from which on it is told


# What a path's `route` and `cv` say, in Chinese.
_PHRASES = (
    (r"moments of (.+) columns", r"\1 列的矩"),
    (r"(.+) × (.+) inputs", r"\1 × \2 的输入"),
    (r"products of (.+) rows", r"\1 行的内积"),
    (r"loo", "留一法"),
    (r"gcv", "广义交叉验证"),
    (r"evidence", "证据"),
    (r"(\d+) folds of one row", r"每折一行的 \1 折交叉验证"),
    (r"(\d+) folds by group, shuffled, seed (\d+)", r"按组划分的 \1 折交叉验证（打乱，种子 \2）"),
    (r"(\d+) folds by class, shuffled, seed (\d+)", r"按类别划分的 \1 折交叉验证（打乱，种子 \2）"),
    (r"(\d+) folds, shuffled, seed (\d+)", r" \1 折交叉验证（打乱，种子 \2）"),
)


def phrase(english: str) -> Text:
    """Return what a route or criterion is called; another's splitter has its own name."""
    for pattern, chinese in _PHRASES:
        if match := re.fullmatch(pattern, english):
            return Text(english, match.expand(chinese))
    return Text(english, f" {english} ")


def facts(path: "RidgePath") -> list[Text]:
    """Say what was done and what was chosen."""
    lambdas = path.lambdas
    low, high = short(lambdas[0]), short(lambdas[-1])
    grid = Text("one λ", "一个 λ")
    if len(lambdas) > 1:
        grid = Text(f"{len(lambdas)} λ from {low} to {high}", f"{low} 到 {high} 的 {len(lambdas)} 个 λ ")
    route, cv = phrase(path.route), phrase(path.cv)
    lines = [
        Text(
            f"{path.n:,} rows, {path.p:,} columns: the {route} decomposed once, judged by {cv} "
            f"at {grid} ({path.unit})",
            f"{path.n:,} 行，{path.p:,} 列：对 {route.zh}只分解一次，"
            f"用{cv.zh}在 {grid.zh}上评判（单位 {path.unit}）",
        )
    ]
    if isinstance(path.best, float) and isinstance(path.one_se, float):
        at_best, at_one_se = (int((lambdas - lam).abs().argmin()) for lam in (path.best, path.one_se))
        least = f" {short(path.scores[at_best])}" if path.scores.ndim == 1 else ""
        best, best_dof = short(path.best), short(path.dof[at_best])
        one_se, one_se_dof = short(path.one_se), short(path.dof[at_one_se])
        lines.append(
            Text(
                f"least score{least} at λ = {best}, {best_dof} degrees of freedom; within one standard error "
                f"up to λ = {one_se}, {one_se_dof} degrees of freedom",
                f"得分最小值{least} 在 λ = {best} 处，自由度 {best_dof}；"
                f"一倍标准误之内最大可取 λ = {one_se}，自由度 {one_se_dof}",
            )
        )
    if path.cv == "gcv":
        beyond = path.dof > MOST_DOF * path.n
        if bool(beyond.any()) and not bool(beyond.all()):
            count, largest = int(beyond.sum()), short(lambdas[beyond].max())
            lines.append(
                Text(
                    f"generalised cross-validation is not believed where degrees of freedom exceed "
                    f"{MOST_DOF:.0%} of the rows: the {count} λ up to {largest} are not chosen from, "
                    "whatever their scores",
                    f"自由度超过行数的 {MOST_DOF:.0%} 时，广义交叉验证不可信："
                    f"不大于 {largest} 的 {count} 个 λ 无论得分如何都不参与选择",
                )
            )
    lines += [] if path.coding is None else path.coding.said()
    lines += constant_columns_said(path)
    worst = float(path.precision.max())
    if worst <= _tolerance(path):
        lines.append(
            Text(
                f"estimated relative error of the scores: at most {worst:.1g}",
                f"得分的相对误差估计不超过 {worst:.1g}",
            )
        )
    return lines


def constant_columns(path: "RidgePath") -> Sequence[int]:
    """Return the places of the columns whose coefficient is 0 because they do not vary."""
    factors = path.settings.get("penalty_factors")
    if path.settings.get("intercept", "free") == "free":
        return path.still
    scaled = bool(path.settings.get("standardize"))  # otherwise one may serve as an intercept
    return [j for j in path.still if scaled and not (factors and factors[j] == 0)]


def constant_columns_said(path: "RidgePath") -> list[Text]:
    """Say which columns do not vary, in one sentence or none."""
    constant = constant_columns(path)
    if not constant:
        return []
    first = path.features or {j: Text(f"column {j}", f"列 {j}") for j in constant[:5]}
    names = [first[j] for j in constant[:5]] + ["…"] * (len(constant) > 5)
    columns = Text(", ".join(names), "、".join(chinese_of(names)))
    return [
        Text(
            f"columns that do not vary have the coefficient 0: {columns} ({len(constant)} in all)",
            f"不变化的列系数为 0：{columns.zh}（共 {len(constant)} 列）",
        )
    ]


def interpolates(path: "RidgePath", lam: float | Tensor) -> Text | None:
    """Say what follows if the model at λ has nearly as many degrees of freedom as rows; else None."""
    alphas, least_left = path._alphas(lam), max(LEAST_LEFT, (1 - MOST_DOF) * path.n)
    if path._most_dof(float(alphas.min())) <= path.n - least_left:
        return None
    left = path.n - path._dof(alphas)
    close = [k for k, rest in enumerate(left.tolist()) if rest < least_left]
    if not close:
        return None
    k = close[0]
    rest, dof = short(left[k]), short(path.n - left[k])
    if left[k] < LEAST_LEFT:
        effect = Text(
            "it interpolates them, and nothing is left for a noise sd or a prediction interval",
            "它对这些行作了插值，没有剩下什么可用来估计噪声标准差或预测区间",
        )
    else:
        effect = Text(
            f"noise sd, standard errors and prediction intervals rest on the {rest} that are left",
            f"噪声标准差、标准误和预测区间只依据剩下的 {rest} 个自由度",
        )
    at, targets = short(torch.as_tensor(lam).reshape(-1).expand(len(left))[k]), _of(close, path)
    remedy = stronger(path, k)
    return Text(
        f"the model{targets} at λ = {at} has {dof} degrees of freedom for {path.n:,} rows: {effect}; "
        f"{remedy}",
        f"模型{targets.zh}在 λ = {at} 处对 {path.n:,} 行用了 {dof} 个自由度：{effect.zh}；{remedy.zh}",
    )


def stronger(path: "RidgePath", target: int) -> Text:
    """Say what to do about a model that interpolates: take λ by one standard error, if that leaves more."""
    left = path.n - float(path._dof(path._alphas(path.one_se))[target])
    if left < max(LEAST_LEFT, (1 - MOST_DOF) * path.n):
        return Text("take a larger λ", "请取更大的 λ")
    one_se = torch.as_tensor(path.one_se).reshape(-1)
    lam, rest = short(one_se[target if len(one_se) > 1 else 0]), short(left)
    return Text(
        f"λ = {lam}, within one standard error (one_se, --choose one-se), leaves {rest}",
        f"请取一倍标准误的 λ = {lam}（one_se，--choose one-se），可剩下 {rest} 个自由度",
    )


def doubts(
    path: "RidgePath",
    judged: Sequence["Judged"],
    choices: Sequence[Choice],
    given: bool,
) -> tuple[Text, ...]:
    """Say what to be careful about: a flat curve, an edge, a model that interpolates, digits that are lost.

    Args:
        path: the record.
        judged: what they were chosen by.
        choices: what was chosen from each.
        given: whether the grid was the user's.
    """
    said: list[Text] = []
    constant = (path._solver.variance == 0).nonzero()[:, 0].tolist()
    if constant:
        said.append(_constant_targets(constant, path))
    varying = [(k, choice) for k, choice in enumerate(choices) if judged[k].varies]
    flat = [k for k, choice in varying if choice.flat]
    if flat and len(path.lambdas) > 1:
        scores, errors = judged[flat[0]].scores, judged[flat[0]].errors
        finite, targets = scores[scores.isfinite()], _of(flat, path)
        change, error = short(finite.max() - finite.min()), short(errors[choices[flat[0]].best])
        said.append(
            Text(
                f"the curve is flat{targets}: over all λ the score changes by {change}, no more than its "
                f"standard error of {error}; the data do not choose λ",
                f"曲线是平的{targets.zh}：在全部 λ 上得分只变化 {change}，不超过它的标准误 {error}；"
                "这些数据选不出 λ",
            )
        )
    for side in ("low", "high"):
        at = [k for k, choice in varying if choice.edge == side and not choice.flat]
        if at:
            said.append(_edge(path, side, _of(at, path), given))
    if (few_left := interpolates(path, path.best)) is not None:
        said.append(few_left)
    worst = float(path.precision.max())
    if worst > _tolerance(path):
        lam = short(path.lambdas[int(path.precision.argmax())])
        lost = Text(
            f"the scores have an estimated relative error of {worst:.1g} at λ = {lam}",
            f"在 λ = {lam} 处，得分的相对误差估计为 {worst:.1g}",
        )
        if worst == math.inf:
            lost = Text(
                f"no digit of the scores is certain at λ = {lam}, where rounding decides",
                f"在 λ = {lam} 处，得分没有一位数字是可靠的，结果由舍入决定",
            )
        said.append(
            Text(
                f"digits are lost: {lost}; standardise, or take larger λ",
                f"有效数字有损失：{lost.zh}；请标准化，或取更大的 λ",
            )
        )
    return tuple(said)


def _constant_targets(constant: Sequence[int], path: "RidgePath") -> Text:
    name, every = _target(constant[0], path), path.scores[0].numel()
    return Text(
        f"there is nothing to predict for {len(constant)} of {every} targets, {name} first: "
        "the target is constant",
        f"{every} 个目标中有 {len(constant)} 个目标不变化（首先是{name.zh}），没有什么可预测的",
    )


def _edge(path: "RidgePath", side: str, targets: Text, given: bool) -> Text:
    """Say that the least score is at an end of the grid, and what that means there."""
    lam = short(path.lambdas[0 if side == "low" else -1])
    if given:
        hint = Text("widen it", "请把网格加宽")
    elif side == "high":
        hint = Text("what it tends to there is the mean alone", "那里的极限是只用均值预测")
    elif path.settings.get("dtype") == "float32":
        hint = Text(
            "float32 inputs may carry no smaller one; give float64",
            "float32 的输入也许容不下更小的 λ，请给 float64",
        )
    else:
        hint = Text("what it tends to there is no shrinkage at all", "那里的极限是完全不收缩")
    return Text(
        f"the least score is at the edge of the grid{targets}, λ = {lam}; {hint}",
        f"得分最小值在网格的边缘{targets.zh}，λ = {lam}；{hint.zh}",
    )


def _tolerance(path: "RidgePath") -> float:
    return LOST.get(path.settings.get("dtype", ""), 1e-6)


def _of(targets: Sequence[int], path: "RidgePath") -> Text:
    """Say which targets, where there are several that are told apart."""
    if path.scores.ndim == 1 or len(targets) == path.scores.shape[1] or isinstance(path.best, float):
        return Text("", "")
    name, every = _target(targets[0], path), path.scores.shape[1]
    return Text(
        f" for {len(targets)} of {every} targets, {name} first",
        f"（{every} 个目标中的 {len(targets)} 个，首先是{name.zh}）",
    )


def _target(k: int, path: "RidgePath") -> Text:
    return (
        Text(path.targets[k], f" {path.targets[k]}")
        if path.targets
        else Text(f"target {k + 1}", f"目标 {k + 1}")
    )


def short(value: Any) -> str:
    """Return a number in four digits."""
    return f"{float(value):.4g}"


# Fields that are plain values.
PLAIN = ("unit", "edge", "flat", "cv", "route", "n", "p")

NOTHING = 1e-9  # degrees of freedom left, as a share of the rows, that are the rounding of their difference
REMEMBERED = 1_000_000  # coefficients that are kept when they have been found: 8 MB


@dataclass(frozen=True, eq=False)
class RidgePath:
    """Ridge at every λ of a grid, judged; from it coefficients, models and predictions at any λ ≥ 0.

    For several targets scores have a last axis of t, and λ may be one each; for one target there is none.

    Args:
        lambdas: the grid in `unit`, in the order of ascending strength (L,).
        unit: its convention, a name of `wd.conventions()`.
        alphas: the same in the sum convention, scikit-learn's alpha (L,).
        scores: mean squared error out of fold or leave-one-out, generalised CV, or −2 log evidence.
        errors: their standard errors; for the evidence 1.
        fold_scores: each fold's mean squared error (K, L) or (K, L, t); None without folds.
        precision: a bound on the relative error that rounding leaves in each score, |score/exact − 1| with
            `exact` from the numbers as they are given, for the target that has lost most; infinite where no
            digit is certain, and such a score is not chosen (L,).
        best: λ of the least score, the strongest of those within their own precision of it; one each (t,)
            for several targets, unless one is shared.
        one_se: the strongest λ whose score is within one standard error of the least.
        edge: "low" or "high" where the least score is at an end of the grid, which was not to be moved.
        flat: whether one standard error tells no λ of the grid from the best, for some target.
        flat_range: the λ around the best that one standard error does not tell from it; the widest target's.
        cv: how λ was judged, in words.
        route: what was decomposed, in words.
        n: rows of positive weight.
        p: columns.
        features: the columns' names, or None.
        targets: the targets' names, or None.
        doubts: what to be careful about, in sentences with the figures of this path; each was a warning, too.
        settings: everything that was chosen, as plain values.
        coding: how the columns of a table became the features; None where they are numbers as they stand.
    """

    lambdas: Float64[Tensor, " L"] = field(repr=False)
    unit: str
    alphas: Float64[Tensor, " L"] = field(repr=False)
    scores: Float64[Tensor, "L *t"] = field(repr=False)
    errors: Float64[Tensor, "L *t"] = field(repr=False)
    fold_scores: Float64[Tensor, "K L *t"] | None = field(repr=False)
    precision: Float64[Tensor, " L"] = field(repr=False)
    best: float | Float64[Tensor, " t"]
    one_se: float | Float64[Tensor, " t"]
    edge: Edge
    flat: bool
    flat_range: tuple[float, float]
    cv: str
    route: str
    n: int
    p: int
    features: tuple[str, ...] | None = field(repr=False)
    targets: tuple[str, ...] | None
    doubts: tuple[Text, ...]
    settings: Mapping[str, Any] = field(repr=False)
    _solver: Route = field(repr=False)
    _strength: Strength = field(repr=False)
    coding: Coding | None = field(default=None, repr=False)
    _last: dict[tuple[float, ...], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _spreads: dict[float, Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def dof(self) -> Float64[Tensor, " L"]:
        """Effective degrees of freedom, Σ s/(s + α) + unpenalised, at every λ (L,)."""
        return self._dof(self.alphas)

    @property
    def notes(self) -> tuple[Text, ...]:
        """What there is to know, in sentences with the figures of this path; the doubts last."""
        return (*facts(self), *self.doubts)

    @property
    def still(self) -> list[int]:
        """Places of the columns that do not vary."""
        return self._solver.constant

    def coef(self, lam: float | Tensor | None = None) -> Float64[Tensor, "p *t"]:
        """Coefficients on the original scale (p,) or (p, t), at λ in `unit`; at the best without it."""
        return self._squeezed(self._solution(self._alphas(lam))[0])

    def intercept(self, lam: float | Tensor | None = None) -> Float64[Tensor, "*t"]:
        """The intercept () or (t,)."""
        return self._squeezed(self._solution(self._alphas(lam))[1])

    def predict(self, X: Any, lam: float | Tensor | None = None) -> Float64[Tensor, "m *t"]:
        """Predictions for new rows (m,) or (m, t) at λ; a DataFrame is matched by name."""
        return self._model(lam, None, {}).predict(X)

    @on_cpu()
    @one_pool()
    def out_of_fold(self, lam: float | Tensor | None = None) -> Float64[Tensor, "n *t"]:
        """The prediction of each row by a fit that has not seen it; leave-one-out where there are no folds.

        NaN for rows that no split holds out.
        """
        return self._squeezed(self._solver.out_of_fold(self._alphas(lam)))

    def out_of_fold_blocks(self, lam: float | Tensor | None = None) -> Iterator[Float64[Tensor, "b *t"]]:
        """The same of a file, in its blocks, so that memory does not follow the number of rows."""
        for predicted in self._solver.out_of_fold_blocks(self._alphas(lam)):
            yield self._squeezed(predicted)

    @on_cpu()
    @one_pool()
    def standard_errors(self, lam: float | Tensor | None = None) -> Float64[Tensor, "p *t"]:
        """Standard errors of the coefficients (p,) or (p, t): how they vary with the noise, at fixed λ.

            the roots of the diagonal of σ̂² (X'X + αF)^-1 X'X (X'X + αF)^-1,   σ̂² = RSS / (n − dof)

        The bias that shrinking brings is not in them. NaN where n − dof is 0 but for rounding. Source: Hoerl
        and Kennard (1970).
        """
        alphas = self._alphas(lam)
        spread = torch.stack([self._spread(float(alpha)) for alpha in alphas], dim=1)
        return self._squeezed(spread * self._noise(alphas))

    @on_cpu()
    @one_pool()
    def model(self, lam: float | Tensor | None = None) -> RidgeModel:
        """The model at λ, which can be saved and used without the data; at the best λ without an argument."""
        alphas = self._alphas(lam)
        if float(alphas.min()) != float(alphas.max()):
            why = "targets have different λ; choose one for all of them, by --shared or shared=True"
            return self._model(lam, None, {"no_covariance": why})
        try:
            return self._model(lam, self._solver.covariance(float(alphas[0])).cpu(), {})
        except InputError as error:
            return self._model(lam, None, {"no_covariance": str(error)})

    def frame(self) -> pl.DataFrame:
        """One row per target and λ: target, lam, alpha, score, error, dof, precision, fold_1 and so on."""
        L, t = len(self.lambdas), self.scores[0].numel()
        names = self.targets or tuple(str(i + 1) for i in range(t))
        columns: dict[str, Any] = {"target": [name for name in names for _ in range(L)]}
        for name, values in (("lam", self.lambdas), ("alpha", self.alphas)):
            columns[name] = values.repeat(t).tolist()
        for name, values in (("score", self.scores), ("error", self.errors)):
            columns[name] = values.reshape(L, t).T.reshape(-1).tolist()
        for name, values in (("dof", self.dof), ("precision", self.precision)):
            columns[name] = values.repeat(t).tolist()
        for k, fold in enumerate(() if self.fold_scores is None else self.fold_scores):
            columns[f"fold_{k + 1}"] = fold.reshape(L, t).T.reshape(-1).tolist()
        return pl.DataFrame(columns)

    def coef_frame(self, lam: float | Tensor | None = None) -> pl.DataFrame:
        """The coefficients at λ as a table: target, column, coefficient, standard_error, per_sd.

        A row per target and column, and one, "(intercept)", for the intercept. `per_sd` is the coefficient
        times the column's standard deviation, which can be compared between columns. `standard_error` is that
        of `standard_errors`; null where fewer than one degree of freedom is left for the noise.
        """
        t = self.scores[0].numel()
        model = self._model(lam, None, {})
        sd, coef = model.scale, model.coef.reshape(self.p, t)
        left = self.n - torch.as_tensor(model.dof, dtype=torch.float64).expand(t)
        errors = self.standard_errors(lam).cpu().reshape(self.p, t)
        errors = torch.where(left >= LEAST_LEFT, errors, torch.nan)
        names = self.features or tuple(f"column {j + 1}" for j in range(self.p))
        intercept = model.intercept.reshape(t)
        parts = [
            pl.DataFrame(
                {
                    "target": [target] * (self.p + 1),
                    "column": ["(intercept)", *names],
                    "coefficient": [float(intercept[k]), *coef[:, k].tolist()],
                    "standard_error": pl.Series([None, *errors[:, k].tolist()], dtype=pl.Float64),
                    "per_sd": pl.Series([None, *(coef[:, k] * sd).tolist()], dtype=pl.Float64),
                }
            )
            for k, target in enumerate(self.targets or [str(k + 1) for k in range(t)])
        ]
        return pl.concat(parts).with_columns(pl.col("standard_error").fill_nan(None))

    def save(self, folder: str | Path) -> list[Path]:
        """Write path.safetensors, path.parquet (`frame`) and path.json into a folder, made if need be.

        Of the data nothing is kept but means and standard deviations of the columns. Coefficients are those
        of every λ of the grid; of the best and by one standard error only where they would take more than
        160 MB. Either all files are replaced or none; path.json has the checksums of the others.

        Returns:
            The files' paths.

        Raises:
            InputError: they cannot be written.
        """
        stored = store(self)
        values = {
            **{name: getattr(self, name) for name in PLAIN},
            "best": plain(self.best),
            "one_se": plain(self.one_se),
            "flat_range": self.flat_range,
            "single": self.scores.ndim == 1,
            "targets": self.targets,
            "notes": self.notes,
            "doubts": self.doubts,
            "doubts_zh": chinese_of(self.doubts),
            "settings": dict(self.settings),
            "context": dict(self._strength.context),
            "solver": values_of(stored),
            "features": self.features,
            "coding": None if self.coding is None else self.coding.to_dict(),
        }
        parts = {"path.safetensors": tensors_of(stored), "path.parquet": self.frame()}
        return save(folder, "path.json", values, parts)

    def _alphas(self, lam: float | Tensor | None) -> Float64[Tensor, " t"]:
        """α of λ, one for each target."""
        t = self.scores[0].numel()
        alphas = self._strength.alpha(self.best if lam is None else lam)
        if len(alphas) not in (1, t):
            raise InputError("one λ for each target is needed", "lam", len(alphas), f"give one, or {t}")
        return at_least(alphas, self._solver).expand(t).to(self._solver.device)

    @on_cpu()
    @one_pool()
    def _solution(
        self, alphas: Float64[Tensor, " t"]
    ) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """Coefficients and intercepts; the last small ones are remembered: one asks for both in turn."""
        key = tuple(alphas.tolist())
        if key not in self._last:
            found = self._solver.solve(alphas)
            if found[0].numel() > REMEMBERED:
                return found
            self._last.clear()
            self._last[key] = found
        coef, intercept = self._last[key]
        return coef.clone(), intercept.clone()

    def _spread(self, alpha: float) -> Float64[Tensor, " p"]:
        """The standard errors in units of σ, remembered at the last α: tables and files need them."""
        if alpha not in self._spreads:
            self._spreads.clear()
            self._spreads[alpha] = self._solver.spread(alpha)
        return self._spreads[alpha]

    def _dof(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        s = self._solver.spectrum().cpu()
        return (s / (s + alphas.cpu()[:, None])).sum(1) + self._solver.unpenalized

    def _most_dof(self, alpha: float) -> float:
        """An upper bound on the degrees of freedom that needs no spectrum.

        They are those of as many eigenvalues of the same mean: s/(s + α) is concave in s.
        """
        free, mean = self._solver.unpenalized, self._solver.spectrum_scale().mean
        return min(self.n - free, self.p) * mean / (mean + alpha) + free

    def _noise(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, " t"]:
        """σ̂ of each target at its α; NaN where no degree of freedom is left."""
        rss, s = self._solver.rss(alphas).diagonal(), self._solver.spectrum()
        # n − dof without the difference of two numbers that are almost the same.
        left = (alphas / (s[:, None] + alphas)).sum(0) + self.n - len(s) - self._solver.unpenalized
        left = torch.where(left > NOTHING * self.n, left, torch.nan)
        return (rss / left).sqrt()

    def _squeezed(self, values: Tensor) -> Tensor:
        """Without the targets' axis where there is one target."""
        return values[..., 0] if self.scores.ndim == 1 else values

    def _model(
        self, lam: float | Tensor | None, covariance: Covariance | None, more: dict[str, Any]
    ) -> RidgeModel:
        alphas = self._alphas(lam)
        coef, intercept = self._solution(alphas)
        mean, sd = self._solver.inputs()
        given = self.best if lam is None else lam
        one = float(alphas.min()) == float(alphas.max())
        dof = self._dof(alphas)
        if self.n - float(dof.max()) < LEAST_LEFT:
            more = {**more, "no_noise": stronger(self, int(dof.argmax()))}
        return RidgeModel(
            coef=self._squeezed(coef).cpu(),
            intercept=self._squeezed(intercept).cpu(),
            features=self.features,
            targets=self.targets,
            lam=given.double().cpu() if isinstance(given, Tensor) and given.ndim else float(given),
            unit=self.unit,
            alpha=float(alphas[0]) if one else alphas.cpu(),
            n=self.n,
            dof=float(dof[0]) if one else dof,
            noise_sd=self._squeezed(self._noise(alphas)).cpu(),
            mean=mean.cpu(),
            scale=sd.cpu(),
            covariance=covariance,
            settings=dict(self.settings) | more,
            coding=self.coding,
        )


LARGEST = 20_000_000  # numbers in the table of coefficients: 160 MB,
LARGEST_COVARIANCE = 5_000_000  # and in each of two covariances: 40 MB
SAME = 1e-9  # relative difference of two α that are one: a λ may have been typed
AGAIN = "fit it again with `ridge_path`"


@dataclass(frozen=True)
class Stored(Route):
    """The route of a loaded path: it looks up what was solved before, and refuses what needs the data.

    Args:
        strength: the convention of λ.
        alphas: where coefficients are known: an α for each target (m, t).
        coefs: coefficients there (m, p, t).
        intercepts: (m, t).
        squares: training residual sums of squares (m, t).
        eigenvalues: of the penalised, scaled, projected X'X on all rows, descending (k,).
        mean, sd: of the columns (p,).
        scale: of the eigenvalues.
        spreads: standard errors in units of σ (p,) by α, at the α that were chosen.
        covariances: (X'X + αF)^-1 by α likewise, or the reason why there is none.
    """

    strength: Strength
    alphas: Float64[Tensor, "m t"]
    coefs: Float64[Tensor, "m p t"]
    intercepts: Float64[Tensor, "m t"]
    squares: Float64[Tensor, "m t"]
    eigenvalues: Float64[Tensor, " k"]
    mean: Float64[Tensor, " p"]
    sd: Float64[Tensor, " p"]
    scale: Scale
    spreads: Mapping[float, Float64[Tensor, " p"]]
    covariances: Mapping[float, Covariance | str]

    @override
    def spectrum(self) -> Float64[Tensor, " k"]:
        return self.eigenvalues

    @override
    def spectrum_scale(self) -> Scale:
        return self.scale

    @override
    def inputs(self) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
        return self.mean, self.sd

    @override
    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """Coefficients and intercepts, an α for each target.

        Raises:
            InputError: there are none at this α.
        """
        places, target = self._places(alphas), torch.arange(len(alphas))
        return self.coefs[places, :, target].mT.contiguous(), self.intercepts[places, target]

    @override
    def rss(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
        """NaN where it is not known."""
        found = self.squares.new_full((len(alphas), self.squares.shape[1]), torch.nan)
        for row, alpha in zip(found, alphas, strict=True):
            places, targets = self._near(alpha).nonzero(as_tuple=True)
            row[targets] = self.squares[places, targets]
        return found

    @override
    def spread(self, alpha: float) -> Float64[Tensor, " p"]:
        """Return the standard errors of the coefficients in units of σ, at an α that was chosen.

        Raises:
            InputError: there are none at this α.
        """
        return self._chosen(self.spreads, alpha, "no standard errors at this λ without the data")

    @override
    def covariance(self, alpha: float) -> Covariance:
        """Return (X'X + αF)^-1, at an α that was chosen.

        Raises:
            InputError: there is none at this α.
        """
        found = self._chosen(self.covariances, alpha, "no intervals at this λ without the data")
        if isinstance(found, str):
            raise InputError("no intervals here", "covariance", "not kept", found)
        return found

    @override
    def curve(self, alphas: Float64[Tensor, " L"]) -> Curve:
        """Refused: scores are known on the grid of the path only."""
        raise _data_are_gone("scores at other λ", len(alphas))

    @override
    def out_of_fold(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "n t"]:
        """Refused: it takes the rows."""
        raise _data_are_gone("predictions out of fold", len(alphas))

    @override
    def correlations(self) -> Float64[Tensor, "p t"]:
        """Refused: it takes the rows."""
        raise _data_are_gone("correlations", self.width)

    def _near(self, alphas: Tensor) -> Tensor:
        return (self.alphas - alphas).abs() <= SAME * alphas

    def _places(self, alphas: Float64[Tensor, " t"]) -> Tensor:
        """Where each target's α is among those that are known (t,)."""
        near = self._near(alphas)
        missing = (~near.any(0)).nonzero()[:, 0]
        if len(missing):
            target = int(missing[0])
            lam = _six_digits(self.strength.lam(alphas[target : target + 1])[0])
            known = self.strength.lam(self.alphas[:, target].unique())
            what = "the path was saved without its data, and without coefficients at this λ"
            raise InputError(what, "lam", lam, f"there are those of {_listed(known)}; or {AGAIN}")
        return near.byte().argmax(0)

    def _chosen(self, known: Mapping[float, Any], alpha: float, what: str) -> Any:
        for one, found in known.items():
            if abs(one - alpha) <= SAME * alpha:
                return found
        lam = _six_digits(self.strength.lam(torch.tensor([alpha], dtype=torch.float64))[0])
        there = self.strength.lam(torch.tensor([*known], dtype=torch.float64)) if known else None
        remedy = f"there are those of {_listed(there)}; or {AGAIN}" if there is not None else AGAIN
        raise InputError(what, "lam", lam, remedy)


def store(path: "RidgePath") -> Stored:
    """Solve at every λ of the grid; at the best and by one standard error only where that is too much.

    Standard errors and covariances are kept where one λ was chosen for all targets.
    """
    solver = path._solver
    if isinstance(solver, Stored):
        return solver
    choices = [path.best, path.one_se]
    size = path.lambdas.numel() * path.p * path.scores[0].numel()
    lambdas = path.lambdas.tolist() if size <= LARGEST else choices
    alphas = torch.stack([path._alphas(lam) for lam in lambdas])
    # One λ at a time, as the path itself solves: products of several at once differ in their last bits.
    coefs, intercepts = zip(*(solver.solve(row) for row in alphas), strict=True)
    chosen = {float(path._alphas(lam)[0]) for lam in choices if isinstance(lam, float)}
    mean, sd = solver.inputs()
    return Stored(
        **{name: getattr(solver, name) for name in ("name", "n", "width", "unpenalized", "constant")},
        device=torch.device("cpu"),
        strength=path._strength,
        alphas=alphas.cpu(),
        coefs=torch.stack(coefs).cpu(),
        intercepts=torch.stack(intercepts).cpu(),
        squares=torch.stack([solver.rss(row).diagonal() for row in alphas]).cpu(),
        eigenvalues=solver.spectrum().cpu(),
        mean=mean.cpu(),
        sd=sd.cpu(),
        variance=solver.variance.cpu(),
        scale=solver.spectrum_scale(),
        spreads={alpha: path._spread(alpha).cpu() for alpha in sorted(chosen)},
        covariances={alpha: _covariance(path, alpha) for alpha in sorted(chosen)},
    )


def _covariance(path: "RidgePath", alpha: float) -> Covariance | str:
    side = min(path.n, path.p)
    if side * path.p > LARGEST_COVARIANCE:
        return f"{side:,} × {path.p:,} numbers are too many for a path; save `path.model()`, which has them"
    try:
        return path._solver.covariance(alpha).cpu()
    except InputError as error:
        return str(error)


def tensors_of(stored: Stored) -> dict[str, Tensor]:
    """What is a tensor, by name."""
    found = {name: getattr(stored, name) for name in _TENSORS}
    for k, (alpha, spread) in enumerate(stored.spreads.items()):
        found[f"spread.{k}"] = spread
        covariance = stored.covariances[alpha]
        if isinstance(covariance, Covariance):
            found |= {f"covariance.{k}.{name}": part for name, part in covariance.tensors().items()}
    return found


def values_of(stored: Stored) -> dict[str, Any]:
    """What is not, as plain values."""
    return {
        "scale": [stored.scale.mean, stored.scale.largest],
        "unpenalized": stored.unpenalized,
        "still": stored.constant,
        "chosen": [*stored.spreads],
        "no_covariance": [one if isinstance(one, str) else None for one in stored.covariances.values()],
    }


def stored_of(
    tensors: Mapping[str, Tensor], values: Mapping[str, Any], name: str, n: int, strength: Strength
) -> Stored:
    """From `tensors_of` and `values_of`."""
    spreads, covariances = {}, {}
    for k, (alpha, why) in enumerate(zip(values["chosen"], values["no_covariance"], strict=True)):
        prefix = f"covariance.{k}."
        parts = {key.removeprefix(prefix): part for key, part in tensors.items() if key.startswith(prefix)}
        spreads[alpha] = tensors[f"spread.{k}"]
        covariances[alpha] = Covariance.of(parts, tensors["mean"]) if why is None else why
    return Stored(
        name=name,
        n=n,
        width=len(tensors["mean"]),
        device=torch.device("cpu"),
        strength=strength,
        **{key: tensors[key] for key in _TENSORS},
        scale=Scale(*values["scale"]),
        unpenalized=values["unpenalized"],
        constant=values["still"],
        spreads=spreads,
        covariances=covariances,
    )


_TENSORS = ("alphas", "coefs", "intercepts", "squares", "eigenvalues", "mean", "sd", "variance")


def _data_are_gone(what: str, count: int) -> InputError:
    return InputError(f"{what} need the data, which a loaded path does not have", "λ", count, AGAIN)


def _listed(lambdas: Tensor) -> str:
    ordered = lambdas.sort().values
    if len(ordered) <= 4:
        return "λ = " + ", ".join(_six_digits(lam) for lam in ordered)
    return f"{len(ordered)} λ from {_six_digits(ordered[0])} to {_six_digits(ordered[-1])}, `path.lambdas`"


def _six_digits(value: Any) -> str:
    return f"{float(value):.6g}"


def from_saved(saved: Saved) -> RidgePath:
    """Make the path that `RidgePath.save` wrote."""
    tensors = saved.tensors("path.safetensors")
    strength = Strength(saved["unit"], saved["context"])
    features, targets = saved["features"], saved["targets"]
    return RidgePath(
        **_columns(saved.table("path.parquet"), saved["single"]),
        **{name: saved[name] for name in PLAIN},
        best=_lam(saved["best"]),
        one_se=_lam(saved["one_se"]),
        flat_range=(saved["flat_range"][0], saved["flat_range"][1]),
        features=None if features is None else tuple(features),
        targets=None if targets is None else tuple(targets),
        doubts=texts_of(saved["doubts"], saved.values.get("doubts_zh")),
        settings=saved["settings"],
        coding=coding_of(saved),
        _solver=stored_of(tensors, saved["solver"], saved["route"], saved["n"], strength),
        _strength=strength,
    )


def _columns(frame: pl.DataFrame, single: bool) -> dict[str, Any]:
    """The tensors of a path from the columns of its frame."""
    L = frame["target"].rle()[0]["len"]
    t = frame.height // L

    def column(name: str) -> Tensor:
        """(L, t), or (L,) of a single target."""
        values = torch.from_numpy(frame[name].to_numpy().copy()).reshape(t, L).T.contiguous()
        return values[:, 0] if single else values

    def first(name: str) -> Tensor:
        return torch.from_numpy(frame[name].head(L).to_numpy().copy())

    folds = [column(name) for name in frame.columns if name.startswith("fold_")]
    return {
        "lambdas": first("lam"),
        "alphas": first("alpha"),
        "scores": column("score"),
        "errors": column("error"),
        "fold_scores": torch.stack(folds) if folds else None,
        "precision": first("precision"),
    }


def _lam(value: float | list[float]) -> float | Tensor:
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else float(value)
