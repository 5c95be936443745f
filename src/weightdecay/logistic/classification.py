"""The classification problem: its data checked, its folds, and what a model's coefficients are worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.logistic.judging import names_of_classes
from weightdecay.logistic.labels import Labels, labels_of, one_class
from weightdecay.memory import require
from weightdecay.ridge.folds import Splits, as_given, fold_ids, splits
from weightdecay.ridge.lambdas import Scale
from weightdecay.ridge.problem import (
    Checked,
    CommonOptions,
    Inputs,
    all_finite,
    checked_rows,
    coded_inputs,
    is_constant,
    mean_and_sd,
    names_of,
    not_too_small,
    vector,
)
from weightdecay.ridge.sparse_inputs import SparseInputs

BALANCED = "balanced"
TINY = 0.1  # of logits: probabilities move by some percent


@dataclass(frozen=True, eq=False)
class Classification:
    """min over (W, b) of  Σ_i w_i logloss_i + α/2 Σ_j f_j ‖W_j‖².

    Args:
        X: inputs (n, p), as they were given: float32 or float64.
        codes: the place of each row's class (n,).
        classes: how many there are, C.
        weights: w > 0, of mean 1 (n,).
        factors: f ≥ 0 (p,).
        intercept: whether there is a free one.
        standardize: multiply f_j by the variance of column j over the rows that are fitted.
    """

    X: Float[Tensor, "n p"]
    codes: Int64[Tensor, " n"]
    classes: int
    weights: Float64[Tensor, " n"]
    factors: Float64[Tensor, " p"]
    intercept: bool = True
    standardize: bool = False

    @property
    def logits(self) -> int:
        """How many logits a row has, c: one for two classes."""
        return 1 if self.classes == 2 else self.classes

    def moments(
        self, weights: Float64[Tensor, "K n"]
    ) -> tuple[Float64[Tensor, "K p"], Float64[Tensor, "K p"]]:
        """Weighted means and standard deviations (1/n) of the columns; exactly 0 for a constant one."""
        mean = weights.new_empty(len(weights), self.X.shape[1])
        sd = torch.empty_like(mean)
        for J in range(0, self.X.shape[1], 512):
            block = self.X[:, J : J + 512].double()
            for k, w in enumerate(weights):
                mean[k, J : J + 512], sd[k, J : J + 512] = mean_and_sd(block, w)
        return mean, torch.where(is_constant(mean, sd, self.X.dtype), 0, sd)

    def penalty(self, weights: Float64[Tensor, "K n"]) -> Float64[Tensor, "K p"]:
        """The penalty factors of fits to rows of these weights.

        A column that is constant in the rows of a fit has a factor above 0 there, so that its coefficient,
        of which those rows say nothing beside an intercept, is 0.
        """
        factors = self.factors.expand(len(weights), -1)
        if not self.standardize and bool((self.factors > 0).all()):
            return factors.contiguous()
        sd = self.moments(weights)[1]
        scaled = factors * sd**2 if self.standardize else factors
        return torch.where((sd == 0) & (scaled == 0), 1.0, scaled)

    def scale(self) -> Scale:
        """The size of the eigenvalues of the loss's second derivative at W = 0, in units of the factors.

        It is (diag π − π π') ⊗ X'WX with the class shares π, X centred by a free intercept; the mean is over
        those that are not zero. What is not penalised is left out.
        """
        weights = self.weights[None]
        mean, sd = (values[0] for values in self.moments(weights))
        n = float(self.weights.sum())
        squares = n * (sd**2 if self.intercept else sd**2 + mean**2)
        factors = self.penalty(weights)[0]
        held = (factors > 0) & (squares > 0)
        if not bool(held.any()):
            return Scale(1.0, 1.0)
        each = squares[held] / factors[held]
        share = torch.zeros(self.classes, dtype=torch.float64, device=self.codes.device)
        share = share.index_add(0, self.codes, self.weights) / n
        spread = float(share @ (1 - share)) / (self.classes - 1)
        if self.classes == 2:
            spread /= 2  # one logit is the difference of two
        total, rank = float(each.sum()) * spread, min(int(held.sum()), max(1, len(self.X) - 1))
        return Scale(total / rank, total)

    def largest(self) -> float:
        """The α at which coefficients are tiny: one gradient step from W = 0 moves logits by `TINY` (rms).

        With W = −G/(α f) and G the gradient at W = 0 and the best intercept. 0 where that gradient is.
        """
        w, n = self.weights, float(self.weights.sum())
        y = torch.nn.functional.one_hot(self.codes, self.classes).double()[:, -self.logits :]
        away = (w @ y / n if self.intercept else 1 / self.classes) - y
        mean = self.moments(w[None])[0][0] if self.intercept else torch.zeros_like(self.factors)
        factors = self.penalty(w[None])[0]
        steps = y.new_zeros(len(y), self.logits)
        for J in range(0, len(mean), 512):
            block = self.X[:, J : J + 512].double() - mean[J : J + 512]
            f = factors[J : J + 512, None]
            steps += block @ torch.where(f > 0, block.mT @ (away * w[:, None]) / f, 0.0)
        return float((w @ steps**2 / n).mean().sqrt()) / TINY

    def information(
        self, coef: Float64[Tensor, "c p"], intercept: Float64[Tensor, " c"]
    ) -> Float64[Tensor, "c q c q"]:
        """The second derivative of the loss at a fit, without the penalty; the intercept is the last of q.

        Σ_i w_i (diag p_i − p_i p_i') ⊗ x_i x_i'
        """
        c, n = len(coef), len(self.X)
        q = self.X.shape[1] + int(self.intercept)
        J = torch.zeros(c, q, c, q, dtype=torch.float64, device=self.X.device)
        for some in torch.arange(n, device=self.X.device).split(max(256, (1 << 22) // max(1, q))):
            D = self.X[some].double()
            Z = D @ coef.to(D.device).mT + intercept.to(D.device)
            if self.intercept:
                D = torch.cat([D, D.new_ones(len(D), 1)], 1)
            P = Z.sigmoid() if c == 1 else Z.softmax(1)
            w = self.weights[some]
            for a in range(c):
                for b in range(a + 1):
                    s = w * (P[:, a] * (1 - P[:, a]) if a == b else -P[:, a] * P[:, b])
                    part = D.mT @ (D * s[:, None])
                    J[a, :, b] += part
                    if a != b:
                        J[b, :, a] += part
        return J

    def spread(
        self, alpha: float, coef: Float64[Tensor, "c p"], intercept: Float64[Tensor, " c"]
    ) -> tuple[Float64[Tensor, "c q"], float]:
        """Standard errors of the coefficients and, last, the intercept; and effective degrees of freedom.

            the roots of the diagonal of H^-1 J H^-1,   H = J + α F,   trace of H^-1 J

        J is the second derivative of the loss at the fit, the Fisher information of the rows, F the penalty
        factors, 0 for the intercept. Source: Gray (1992); le Cessie and van Houwelingen (1992).
        """
        c, p = self.logits, self.X.shape[1]
        H = self.information(coef, intercept)
        q = H.shape[1]
        places = torch.arange(q, device=H.device)
        f = torch.cat([alpha * self.penalty(self.weights[None])[0], H.new_zeros(q - p)])
        size = float(H.diagonal(dim1=0, dim2=2).sum()) / (c * q)
        # What is not penalised is fixed by its sum over the classes alone, which is 0.
        tie = torch.where(f == 0, size / c, 0.0) if c > 1 else torch.zeros_like(f)
        for a in range(c):
            H[a, places, a, places] += f
            H[a, places, :, places] += tie[:, None]
        inverse = _inverse(H.reshape(c * q, c * q)).reshape(c * q, c, q)
        # H^-1 J H^-1 = H^-1 − H^-1 (H − J) H^-1, and the trace of H^-1 J likewise.
        own = inverse.reshape(c * q, -1).diagonal()
        lost = (inverse**2 * f).sum((1, 2)) + (inverse.sum(1) ** 2 * tie).sum(1)
        errors = (own - lost).clamp_min(0).sqrt().reshape(c, q)
        rest = (own * f.repeat(c)).sum() + (inverse.reshape(c, q, c, q).sum(2) * tie).diagonal(
            dim1=1, dim2=2
        ).sum()
        constant = self.moments(self.weights[None])[1][0] == 0
        errors[:, :p][:, constant] = 0
        return errors, float(c * q - rest)


def _inverse(H: Float64[Tensor, "s s"]) -> Float64[Tensor, "s s"]:
    """The inverse of a symmetric matrix that is positive definite, or within rounding of it."""
    factor, info = torch.linalg.cholesky_ex(H)
    return torch.cholesky_inverse(factor) if int(info) == 0 else torch.linalg.pinv(H, hermitian=True)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A checked classification and what to call its parts.

    Args:
        problem: rows of positive weight that have a label.
        rows: their numbers in the data as given, or None where all were kept.
        given: how many rows were given.
        checked: of the table: its coding, names and what was left out.
        classes: the labels, ascending.
        target: the name of the labels, or None.
        weighted: whether rows have weights of their own.
        mean_weight: of these rows, class weights included, before they were made to have mean 1.
    """

    problem: Classification
    rows: Int64[Tensor, " m"] | None
    given: int
    checked: Checked
    classes: tuple[Any, ...]
    target: str | None
    weighted: bool
    mean_weight: float


def prepared(X: Any, labels: Any, options: CommonOptions, class_weight: Any = None) -> Prepared:
    """Check data and options and put them into one form. X is not copied where it is a tensor of floats.

    Raises:
        InputError: as `logistic_path`.
    """
    found = labels if isinstance(labels, Labels) else labels_of(labels)
    table = X if isinstance(X, Inputs) else coded_inputs(X, options)
    count = len(found.codes)
    inputs = table.X if isinstance(table, Inputs) else table
    if inputs.ndim == 2 and options.columns.missing == "refuse" and count == inputs.shape[0]:
        absent = found.codes.isnan().nonzero()[:, 0]
        if len(absent):
            where = f"{found.name or 'labels'}[{int(absent[0])}]"
            raise InputError(
                "a row has no label", where, "missing", "fill it, or missing='drop' leaves it out"
            )
    names = names_of(X)
    checked = checked_rows(table, names, found.codes, None, options, "labels")
    inputs, codes = checked.problem.X, checked.problem.y[:, 0].long()
    if isinstance(inputs, SparseInputs):
        n, p = inputs.shape
        require(24 * n * p, f"{n:,} × {p:,} sparse inputs as a dense table")
        inputs = inputs.dense()
    present, codes = codes.unique(return_inverse=True)
    classes = tuple(found.classes[int(k)] for k in present)
    if len(classes) == 1:
        raise one_class(classes[0], found.name or "labels")
    all_finite(inputs, "X", checked.features, checked.missing_cells)
    not_too_small(inputs, "X", checked.features)
    weights = checked.problem.weights
    weighted = weights is not None or class_weight is not None
    weights = torch.ones(len(codes), dtype=torch.float64, device=codes.device) if weights is None else weights
    mean_weight = 1.0
    if options.sample_weight is not None:
        given = vector(options.sample_weight, count, "sample_weight", codes)
        mean_weight = float((given if checked.rows is None else given[checked.rows]).mean())
    if class_weight is not None:
        weights = weights * _class_weights(class_weight, classes, codes, weights)
        mean_weight *= float(weights.mean())
        weights = weights / weights.mean()
    factors = checked.problem.penalty
    problem = Classification(
        inputs,
        codes,
        len(classes),
        weights,
        torch.ones(inputs.shape[1], dtype=torch.float64, device=inputs.device)
        if factors is None
        else factors,
        options.intercept == "free",
        options.standardize,
    )
    return Prepared(problem, checked.rows, count, checked, classes, found.name, weighted, mean_weight)


def _class_weights(
    given: Any, classes: Sequence[Any], codes: Int64[Tensor, " n"], weights: Float64[Tensor, " n"]
) -> Float64[Tensor, " n"]:
    """A weight for each row by its class: by name, or W / (C · W_c) of all rows' weights and the class's."""
    if isinstance(given, str) and given == BALANCED:
        by_class = codes.bincount(weights, minlength=len(classes))
        return (weights.sum() / (len(classes) * by_class))[codes]
    if not isinstance(given, Mapping):
        remedy = "give {class: weight}, or 'balanced'"
        raise InputError("not weights of classes", "class_weight", repr(given)[:60], remedy)
    names = names_of_classes(classes)
    by_label = dict(zip(classes, range(len(classes)), strict=True))
    by_label |= {name: k for k, name in enumerate(names) if name not in by_label}
    each = [1.0] * len(classes)
    for label, weight in given.items():
        if label not in by_label:
            shown = ", ".join(names[:10])
            raise InputError("no such class", "class_weight", repr(label)[:60], f"the classes are {shown}")
        number = weight.item() if hasattr(weight, "item") else weight
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < float("inf"):
            where = f"class_weight[{label!r}]"
            raise InputError("not a weight above 0", where, repr(weight)[:60], "give a number above 0")
        each[by_label[label]] = float(number)
    return torch.tensor(each, dtype=torch.float64, device=codes.device)[codes]


@dataclass(frozen=True, eq=False)
class Fold:
    """One split: rows as often as they are named.

    Args:
        train: how often each row is trained on (n,).
        rows: the rows that are held out, ascending (m,).
        times: how often each of them is (m,).
    """

    train: Float64[Tensor, " n"]
    rows: Int64[Tensor, " m"]
    times: Float64[Tensor, " m"]


@dataclass(frozen=True, eq=False)
class Judging:
    """How λ is judged.

    Args:
        criterion: "loo", "evidence", or None where there are folds.
        folds: the folds.
        text: the same in words.
    """

    criterion: str | None
    folds: tuple[Fold, ...]
    text: str


def judging(cv: Any, table: Prepared, seed: int, groups: Any, X: Any, labels: Any) -> Judging:
    """Make the folds of the rows that take part.

    A number of folds deals the rows of each class to them evenly, by lot; with groups it deals the groups.

    Raises:
        InputError: as `splits`; generalised cross-validation; a class without a row among the training rows
            of a fold.
    """
    n, problem = len(table.problem.X), table.problem
    cv = as_given(cv)
    if isinstance(cv, str) and cv.lower() == "gcv":
        remedy = "use 'loo', 'evidence' or folds"
        raise InputError("generalised cross-validation is for squared errors", "cv", "'gcv'", remedy)
    if isinstance(cv, str):
        found = splits(cv, n, seed, groups)
        assert isinstance(found.scheme, str)
        if found.scheme == "loo":
            _every_class_stays(problem, table.classes)
        return Judging(found.scheme, (), found.text)
    number = isinstance(cv, int | np.integer) and not isinstance(cv, bool) and groups is None
    kept = None if number else table.rows
    if number and 2 <= cv < n:
        order = problem.codes.argsort(stable=True).cpu()
        fold = torch.empty(n, dtype=torch.int64)
        fold[order] = fold_ids(0, n, int(cv), seed)
        found = Splits(fold, f"{int(cv)} folds by class, shuffled, seed {seed}")
    else:
        y = labels.codes if isinstance(labels, Labels) else labels
        found = splits(cv, n if number else table.given, seed, groups, X if hasattr(X, "shape") else None, y)
    scheme = found.scheme
    if isinstance(scheme, str):  # as many folds as rows: each is really fitted
        scheme = torch.arange(n if number else table.given)
    folds = _folds(scheme, None if kept is None else kept.cpu(), n, table.given, problem.codes.device)
    _every_class_trains(folds, table)
    return Judging(None, folds, found.text)


def _folds(
    scheme: Any, kept: Int64[Tensor, " n"] | None, n: int, given: int, device: torch.device
) -> tuple[Fold, ...]:
    """Folds among the rows that take part: all n of them, or those of the rows given that are kept."""
    if isinstance(scheme, Tensor):
        fold = scheme if kept is None else scheme[kept]
        numbers = fold.unique().tolist()
        if len(numbers) < 2:
            what = "all rows that take part are in one fold"
            raise InputError(what, "cv", "one fold", "use other folds")
        pairs = [((fold != k).nonzero()[:, 0], (fold == k).nonzero()[:, 0]) for k in numbers]
    else:
        place = torch.arange(n) if kept is None else torch.full((given,), -1)
        if kept is not None:
            place[kept] = torch.arange(n)
        pairs = [(place[train], place[test]) for train, test in scheme]
        pairs = [(train[train >= 0], test[test >= 0]) for train, test in pairs]
        pairs = [(train, test) for train, test in pairs if len(train) and len(test)]
        if not pairs:
            what = "no split has rows that take part on both sides"
            raise InputError(what, "cv", "weights of 0 on one side of each", "use other splits")
    folds = []
    for train, test in pairs:
        names, times = test.unique(return_counts=True)
        counts = train.bincount(minlength=n).double()
        folds.append(Fold(counts.to(device), names.to(device), times.double().to(device)))
    return tuple(folds)


def _every_class_stays(problem: Classification, classes: Sequence[Any]) -> None:
    """Refuse leave-one-out where a class has one row, of which nothing is left."""
    counts = problem.codes.bincount(minlength=len(classes))
    alone = (counts == 1).nonzero()[:, 0]
    if len(alone):
        k = int(alone[0])
        what = "a class has one row, and none is left when that is held out"
        raise InputError(what, "labels", repr(classes[k]), "leave that row out, or join classes")


def _every_class_trains(folds: Sequence[Fold], table: Prepared) -> None:
    """Refuse folds whose training rows lack a class."""
    C = table.problem.classes
    counts = table.problem.codes.bincount(minlength=C).tolist()
    for k, fold in enumerate(folds):
        there = fold.train.new_zeros(C).index_add(0, table.problem.codes, fold.train)
        lost = (there == 0).nonzero()[:, 0]
        if len(lost):
            label, rows = table.classes[int(lost[0])], counts[int(lost[0])]
            what = "a class has no row among the training rows of a fold"
            value = f"{label!r}, {rows} row{'s' if rows > 1 else ''} in all"
            remedy = "leave its rows out or join classes" if rows == 1 else "use other folds, or fewer"
            raise InputError(what, f"fold {k + 1} of {len(folds)}", value, remedy)


def rare_classes(folds: Sequence[Fold], table: Prepared) -> list[tuple[Any, int]]:
    """Classes that have one row in the training rows of some fold, with the fold's number."""
    found: dict[int, int] = {}
    for k, fold in enumerate(folds):
        times = (fold.train > 0).double()
        there = times.new_zeros(table.problem.classes).index_add(0, table.problem.codes, times)
        for place in (there == 1).nonzero()[:, 0].tolist():
            found.setdefault(place, k + 1)
    return [(table.classes[place], k) for place, k in sorted(found.items())]
