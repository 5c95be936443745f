"""Fits along λ: of all rows and of every fold, judged on the way."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.logistic.classification import Classification, Judging
from weightdecay.logistic.judging import ROW_BY_ROW, Judge, auc_parts, probabilities, row_losses
from weightdecay.logistic.leave_one_out import invertible, laplace, leave_one_out
from weightdecay.logistic.solve import Fit, solve
from weightdecay.ridge.linalg import on_cpu
from weightdecay.ridge.scores import folds_curve

TOLERANCE = 1e-8  # of a gradient's norm, in its norm at W = 0
KEPT = 20_000_000  # numbers of held-out logits that are kept meanwhile: 160 MB
UNDETERMINED = 1e-4  # of the mean log loss: what fits without a row, which stop early, leave open
DRAWS = 8  # rows drawn by lot that are really left out, beside those that change the fit most


@dataclass(frozen=True, eq=False)
class Step:
    """What is known at one α.

    Args:
        alpha: the penalty on the sum.
        coef: of the fit to all rows (c, p).
        intercept: (c,).
        gradient: the largest of all fits, in units of the one at W = 0.
        sums: Σ w of each row's losses over each fold's held-out rows (K, 3); K is 1 for leave-one-out.
        spread: standard errors of the means of the losses by leave-one-out (3,), or None.
        auc: the area under the ROC curve in each fold, and its standard error (K, 2), or None.
        held: logits of the held-out rows, fold after fold (M, c), or None where they are too many.
        dof: effective degrees of freedom, or None.
        precision: of leave-one-out, or None.
        evidence: −2 log evidence, or None.
    """

    alpha: float
    coef: Float64[Tensor, "c p"]
    intercept: Float64[Tensor, " c"]
    gradient: float
    sums: Float64[Tensor, "K 3"] | None = None
    spread: Float64[Tensor, " 3"] | None = None
    auc: Float64[Tensor, "K 2"] | None = None
    held: Float64[Tensor, "M c"] | None = None
    dof: float | None = None
    precision: float | None = None
    evidence: float | None = None


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores at every λ, the smaller the better, with their standard errors; by judge.

    Args:
        mean: of every judge, or of "evidence" (L,).
        error: likewise (L,).
        folds: each fold's (K, L); None without folds.
    """

    mean: dict[str, Float64[Tensor, " L"]]
    error: dict[str, Float64[Tensor, " L"]]
    folds: dict[str, Float64[Tensor, "K L"]] | None


@dataclass(frozen=True, eq=False)
class Fitter:
    """A classification and its folds, ready to be fitted at any α.

    Args:
        problem: the data.
        judging: the folds, or the criterion.
        seed: of the rows that are really left out.
    """

    problem: Classification
    judging: Judging
    seed: int = 0

    @property
    def judges(self) -> tuple[Judge, ...]:
        """What can be judged: AUC of two classes, too."""
        if self.judging.criterion == "evidence":
            return ()
        ranked = self.problem.classes == 2 and self.judging.criterion != "loo"
        return (*ROW_BY_ROW, "auc") if ranked else ROW_BY_ROW

    @cached_property
    def train(self) -> Float64[Tensor, "k n"]:
        """Weights of the rows in each fit, that to all rows last."""
        w = self.problem.weights
        return torch.stack([*(w * fold.train for fold in self.judging.folds), w])

    @cached_property
    def penalty(self) -> Float64[Tensor, "k p"]:
        """Penalty factors in each fit."""
        return self.problem.penalty(self.train)

    @cached_property
    def weights(self) -> list[Float64[Tensor, " m"]]:
        """Weights of each fold's held-out rows; of all rows for leave-one-out."""
        w = self.problem.weights
        return [w[fold.rows] * fold.times for fold in self.judging.folds] or [w]

    def steps(self, alphas: Float64[Tensor, " L"], keep: bool = True) -> Iterator[Step]:
        """Yield every α from the strongest to the weakest."""
        with on_cpu():
            yield from self._by_folds(alphas, keep) if self.judging.folds else self._left_out(alphas, keep)

    def _by_folds(self, alphas: Float64[Tensor, " L"], keep: bool) -> Iterator[Step]:
        folds = self.judging.folds
        for fit in self._fits(alphas, self.train, self.penalty):
            logits = [fit.logits(k, fold.rows) for k, fold in enumerate(folds)]
            sums, auc = self._judged(logits)
            yield Step(
                fit.alpha, fit.coef[-1], fit.intercept[-1], float(fit.gradient.max()), sums, None, auc,
                torch.cat(logits) if keep else None,
            )  # fmt: skip

    def _fits(
        self, alphas: Float64[Tensor, " L"], weights: Float64[Tensor, "k n"], penalty: Float64[Tensor, "k p"]
    ) -> Iterator[Fit]:
        """Fits of all problems with these weights of the rows, from the strongest α to the weakest."""
        problem = self.problem
        return solve(
            problem.X, problem.codes, problem.classes, weights, penalty, alphas,
            intercept=problem.intercept, tolerance=TOLERANCE,
        )  # fmt: skip

    def _judged(self, logits: Sequence[Float64[Tensor, "m c"]]) -> tuple[Tensor, Tensor | None]:
        """Each fold's sums of losses, and areas."""
        codes, sums, areas = self.problem.codes, [], []
        rows = [fold.rows for fold in self.judging.folds] or [torch.arange(len(codes), device=codes.device)]
        for Z, some, w in zip(logits, rows, self.weights, strict=True):
            sums.append(row_losses(Z, codes[some]) @ w)
            if "auc" in self.judges:
                areas.append(auc_parts(Z[:, 0], codes[some], w))
        return torch.stack(sums), torch.tensor(areas, dtype=torch.float64) if areas else None

    def _left_out(self, alphas: Float64[Tensor, " L"], keep: bool) -> Iterator[Step]:
        problem, criterion = self.problem, self.judging.criterion
        w, draws = problem.weights, DRAWS if criterion == "loo" else 0
        total = w.sum()
        found = leave_one_out(
            problem.X, problem.codes, problem.classes, w, self.penalty[-1], alphas,
            intercept=problem.intercept, tolerance=TOLERANCE, draws=draws, seed=self.seed,
        )  # fmt: skip
        for left in found:
            fit = left.fit
            bare = Step(
                fit.alpha, fit.coef[0], fit.intercept[0], float(fit.gradient.max()),
                dof=left.dof, evidence=float(left.evidence * total),
            )  # fmt: skip
            if criterion == "evidence":
                yield bare
                continue
            spread = self._error_of_mean(row_losses(left.logits, problem.codes))
            sums, _ = self._judged([left.logits])
            held = left.logits if keep else None
            precision = max(left.precision, UNDETERMINED)
            yield replace(bare, sums=sums, spread=spread, held=held, precision=precision)

    def _error_of_mean(self, losses: Float64[Tensor, "*k n"]) -> Float64[Tensor, "*k"]:
        """Standard errors of weighted means over the rows: sd/√n where weights are 1."""
        w = self.problem.weights
        away = losses - (losses @ w / w.sum())[..., None]
        return (away**2 @ w**2).sqrt() / w.sum() * math.sqrt(len(w) / (len(w) - 1))

    def curves(self, steps: Sequence[Step]) -> Curves:
        """Put the steps' scores together, in their order."""
        if self.judging.criterion == "evidence":
            scores = torch.tensor([step.evidence for step in steps], dtype=torch.float64)
            return Curves({"evidence": scores}, {"evidence": torch.ones_like(scores)}, None)
        K = len(self.weights)
        sums = [torch.stack([step.sums[k] for step in steps if step.sums is not None]) for k in range(K)]
        weights = [float(w.sum()) for w in self.weights]
        curve = folds_curve(sums, weights, torch.zeros(len(steps), dtype=torch.float64))
        errors = curve.error
        if self.judging.criterion == "loo":
            errors = torch.stack([step.spread for step in steps if step.spread is not None])
        mean = {name: curve.mean[:, j] for j, name in enumerate(ROW_BY_ROW)}
        error = {name: errors[:, j] for j, name in enumerate(ROW_BY_ROW)}
        assert curve.folds is not None
        folds = {name: curve.folds[:, :, j] for j, name in enumerate(ROW_BY_ROW)}
        if "auc" in self.judges:
            areas = torch.stack([step.auc for step in steps if step.auc is not None])  # (L, K, 2)
            mean["auc"], folds["auc"] = 1 - areas[:, :, 0].mean(1), 1 - areas[:, :, 0].mT
            spread = areas[:, :, 0].std(1) / K**0.5 if K > 1 else areas[:, 0, 1]
            error["auc"] = spread
        return Curves(mean, error, folds if self.judging.folds else None)

    @property
    def held_rows(self) -> int:
        """How many rows are held out, over all folds."""
        return sum(len(w) for w in self.weights)

    def probabilities(self, held: Float64[Tensor, "M c"]) -> Float64[Tensor, "n C"]:
        """Each row's probabilities from held-out logits: the mean over folds that hold it out, else NaN."""
        P = probabilities(held)
        if not self.judging.folds:
            return P
        total = P.new_zeros(len(self.problem.codes), P.shape[1])
        times = P.new_zeros(len(total), 1)
        start = 0
        for fold in self.judging.folds:
            part = P[start : start + len(fold.rows)]
            total.index_add_(0, fold.rows, part * fold.times[:, None])
            times.index_add_(0, fold.rows, fold.times[:, None])
            start += len(fold.rows)
        return total / torch.where(times > 0, times, torch.nan)

    def fit(self, alpha: float) -> tuple[Float64[Tensor, "c p"], Float64[Tensor, " c"]]:
        """Fit all rows at one α."""
        alphas = torch.tensor([alpha], dtype=torch.float64)
        with on_cpu():
            (fit,) = self._fits(alphas, self.problem.weights[None], self.penalty[-1:])
        return fit.coef[0], fit.intercept[0]

    def degrees(self, alphas: Float64[Tensor, " L"]) -> dict[float, float]:
        """Effective degrees of freedom of the fit to all rows by α; none of too many coefficients.

        The Hessian is inverted at some α; between them its diagonal blocks are interpolated.
        """
        problem = self.problem
        n, p = problem.X.shape
        if not invertible(n, p, problem.classes):
            return {}
        with on_cpu():
            fits = list(self._fits(alphas, problem.weights[None], self.penalty[-1:]))
            dof = laplace(fits)[0]
        return {fit.alpha: found for fit, found in zip(fits, dof.tolist(), strict=True)}

    def held_out(self, alpha: float) -> Float64[Tensor, "n C"]:
        """Each row's probabilities at one α by fits without it."""
        (step,) = self.steps(torch.tensor([alpha], dtype=torch.float64))
        assert step.held is not None
        return self.probabilities(step.held)
