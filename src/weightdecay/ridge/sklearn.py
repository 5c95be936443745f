"""The ridge path as a scikit-learn estimator: `RidgePathCV`, in place of `RidgeCV`.

Needs scikit-learn: pip install "weightdecay[sklearn]".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from weightdecay.errors import InputError
from weightdecay.ridge.lambdas import Strength
from weightdecay.ridge.path import fit_path
from weightdecay.ridge.problem import Inputs, RidgeOptions, coded_inputs, matched, tensor_of
from weightdecay.ridge.record import RidgePath
from weightdecay.tables.columns import Coding, ColumnOptions

try:
    from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'weightdecay.ridge.sklearn needs scikit-learn: pip install "weightdecay[sklearn]"', name=error.name
    ) from error


class PathEstimator(BaseEstimator):
    """What the estimators of a path share: frames by name, sparse inputs, pickles without the data.

    Attributes:
        path_: the whole path, which holds the data; pickles and copies leave it out.
        features_: the inputs' names, or None where the columns have none.
        coding_: how columns became inputs, or None where they are numbers as they stand.
    """

    features_: "tuple[str, ...] | None"
    coding_: "Coding | None"
    unseen: str

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that sparse inputs are taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Without the path, which holds the data."""
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name != "path_"}

    def _name_inputs(self, coding: Coding | None, features: tuple[str, ...] | None) -> None:
        """Keep the inputs' coding and names, by default scikit-learn's names of the columns."""
        self.coding_, self.features_ = coding, features
        names = getattr(self, "feature_names_in_", None)
        if features is None and coding is None and names is not None:
            self.features_ = tuple(map(str, names))

    def _rows(self, X: Any) -> Any:
        """New rows as the inputs of the fit (m, p): an array, or sparse."""
        check_is_fitted(self)
        if self.coding_ is None:
            return validate_data(self, X, accept_sparse=True, dtype=(np.float64, np.float32), reset=False)
        validate_data(self, X, skip_check_array=True, reset=False)
        p = len(self.coding_.features)
        rows: Any = matched(X, self.features_, p, coding=self.coding_, unseen=self.unseen)
        return rows.numpy()


class RidgePathCV(MultiOutputMixin, RegressorMixin, PathEstimator):
    """Ridge regression with the α that cross-validation chooses, from one factorisation.

        min over (b, b0) of  Σ_i w_i (y_i − b0 − x_i·b)² + α Σ_j f_j b_j²

    Convention: α as in scikit-learn's Ridge; it is not divided by the number of rows, and is the same in
    every fold and in the final fit.

    Args:
        alphas: the grid; None makes one that suits the data, widened while the least score is near its edge.
        cv: "loo" (exact leave-one-out), "gcv", "evidence", a number of folds (shuffled), a splitter of
            scikit-learn, or pairs (train, test).
        choose: "best", the α of least score, or "one_se", the largest α within one standard error of it.
        alpha_per_target: an α for each target; otherwise one for all, by the mean of the targets' scores in
            units of each one's variance.
        fit_intercept: whether there is an intercept; it is not penalised.
        standardize: divide each column by its standard deviation, inside every fold. Coefficients are on the
            original scale.
        penalty_factors: a multiple of the penalty for each column; 0: not penalised.
        random_state: seed of the shuffled folds; None is 0.
        category: columns of a frame to take as categories, whatever they look like.
        number: columns of a frame to take as numbers, such as whole numbers that rise by one.
        dates: "days": a column of dates is the days since the first one; otherwise it is refused.
        missing: cells that have no value are refused, or "drop" leaves their rows out, or "mean" puts in the
            means of each fold's training rows.
        unseen: of levels that `predict` meets and the fit has not seen: "refuse" them, or take them as the
            most frequent one ("base").

    In a frame texts become an input for each level, and an index, texts that are all different and constants
    are left out; coefficients are those of the inputs, whose names are `features_`.

    Attributes:
        alpha_: the α chosen; one for each target with alpha_per_target and several targets.
        best_score_: minus the mean squared error of held-out rows at alpha_ (minus the score of `cv="gcv"` or
            minus −2 log evidence); one for each target likewise, otherwise the mean over targets.
        coef_: (p,), or (t, p) for targets of shape (n, t).
        intercept_: a number, or (t,).
        path_: the whole path, a `RidgePath`; strengths there are α over the mean of the weights. It holds the
            data, so pickles and copies of the estimator leave it out.
        features_: the inputs' names, or None where the columns have none.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Sample weights count as repetitions, except in leave-one-out, which leaves out a row with all its weight,
    as scikit-learn's RidgeCV does: of a row that is there twice, one copy is seen while the other is out.

    >>> random = np.random.default_rng(0)
    >>> X = random.normal(size=(40, 20))
    >>> model = RidgePathCV(alphas=[0.1, 1, 10, 100]).fit(X, X[:, 0] + random.normal(size=40))
    >>> model.alpha_, model.coef_.shape, model.predict(X).shape
    (10.0, (20,), (40,))
    """

    alpha_: "float | np.ndarray"
    coef_: np.ndarray
    intercept_: "float | np.ndarray"
    best_score_: "float | np.ndarray"
    path_: RidgePath

    def __init__(
        self,
        alphas: Any = None,
        cv: Any = "loo",
        *,
        choose: str = "best",
        alpha_per_target: bool = False,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty_factors: Any = None,
        random_state: int | None = None,
        category: Sequence[str] = (),
        number: Sequence[str] = (),
        dates: str | None = None,
        missing: str = "refuse",
        unseen: str = "refuse",
    ) -> None:
        self.alphas = alphas
        self.cv = cv
        self.choose = choose
        self.alpha_per_target = alpha_per_target
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty_factors = penalty_factors
        self.random_state = random_state
        self.category = category
        self.number = number
        self.dates = dates
        self.missing = missing
        self.unseen = unseen

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> "RidgePathCV":
        """Choose α and fit.

        Args:
            X: inputs (n, p): array, sparse or not, or a pandas or polars DataFrame.
            y: target (n,), or targets (n, t).
            sample_weight: a weight for each row (n,), or one number.
            groups: a label for each row (n,), for folds by group.

        Returns:
            The estimator itself.

        Raises:
            InputError: a ValueError; data, folds or strengths that cannot be used.
        """
        if self.choose not in ("best", "one_se"):
            raise InputError("no such choice", "choose", repr(self.choose), "use 'best' or 'one_se'")
        said = ColumnOptions(self.category, self.number, dates=self.dates, missing=self.missing)
        intercept = "free" if self.fit_intercept else "none"
        inputs: Any = X
        if hasattr(X, "columns") and hasattr(X, "shape") and min(X.shape) > 0:
            inputs = coded_inputs(X, RidgeOptions(intercept=intercept, columns=said))
        coded = isinstance(inputs, Inputs) and not inputs.coding.plain
        if coded or self.missing != "refuse":
            validate_data(self, X, skip_check_array=True)
            n = len(X)
            y = _target(y, n)
        else:
            inputs, y = validate_data(
                self,
                X,
                y,
                accept_sparse=True,
                dtype=(np.float64, np.float32),
                multi_output=True,
                y_numeric=True,
                ensure_min_samples=2,
            )
            n = inputs.shape[0]
        X = inputs
        weights = _weights(sample_weight, n)
        if weights is not None and self.missing != "refuse":  # their mean is that of the rows that are fitted
            gone = np.isnan(y.reshape(n, -1)).any(1)
            if self.missing == "drop":
                values = inputs.X if isinstance(inputs, Inputs) else tensor_of(inputs, "X")
                gone |= values.isnan().any(1).numpy()
                gone |= getattr(inputs, "empty", None) is not None and inputs.empty  # pyright: ignore[reportAttributeAccessIssue]
            weights = np.where(gone, 0.0, weights)
        alphas = (
            None if self.alphas is None else Strength("sklearn.Ridge").alpha(self.alphas, "alphas").numpy()
        )
        # The path makes weights of mean 1, and so α smaller by as much.
        total = 1.0 if weights is None else float(weights[weights > 0].mean())
        shared = y.ndim == 2 and not (self.alpha_per_target and y.shape[1] > 1)
        options = RidgeOptions(
            None if alphas is None else alphas / total,
            cv=self.cv,
            unit="sklearn.Ridge",
            seed=0 if self.random_state is None else self.random_state,
            groups=groups,
            sample_weight=weights,
            penalty_factors=self.penalty_factors,
            intercept=intercept,
            standardize=self.standardize,
            shared=shared,
            columns=said,
        )
        self.path_ = fit_path(X, y, options)
        self._name_inputs(self.path_.coding, self.path_.features)
        lam = self.path_.best if self.choose == "best" else self.path_.one_se
        coef, intercept = self.path_.coef(lam).cpu().numpy(), self.path_.intercept(lam).cpu().numpy()
        self.coef_ = np.ascontiguousarray(coef.T)
        self.intercept_ = float(intercept) if intercept.ndim == 0 else intercept
        self.alpha_ = lam.numpy() * total if isinstance(lam, torch.Tensor) else lam * total
        self.best_score_ = self._score(lam)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions (m,) or (m, t)."""
        return self._rows(X) @ self.coef_.T + self.intercept_

    def _score(self, lam: float | torch.Tensor) -> float | np.ndarray:
        """Minus the score at the choice: one for each λ that was chosen."""
        path = self.path_
        scores = path.scores.reshape(len(path.lambdas), -1)
        if not isinstance(lam, torch.Tensor):
            return -float(scores[(path.lambdas - lam).abs().argmin()].mean())
        places = (path.lambdas[:, None] - lam).abs().argmin(0)
        return -scores.gather(0, places[None])[0].numpy()


def _target(y: Any, n: int) -> np.ndarray:
    """The target as numbers, NaN where there is none."""
    values = tensor_of(y, "y").cpu().numpy()
    if len(values) != n:
        raise InputError("not a target for each row", "y", f"shape {values.shape}", f"X has {n} rows")
    return values


def _weights(sample_weight: Any, n: int) -> np.ndarray | None:
    """Checked weights, or None where all are 1."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=np.float64)
    weights = np.full(n, weights) if weights.ndim == 0 else weights
    if weights.shape != (n,):
        raise InputError("not a weight for each row", "sample_weight", weights.shape, f"give {n} weights")
    wrong = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if len(wrong):
        first = int(wrong[0])
        raise InputError(
            "negative or not finite", f"sample_weight[{first}]", weights[first], "give 0 or more"
        )
    if np.count_nonzero(weights) < 2:
        what = "every row has weight zero" if not weights.any() else "all rows but one have weight zero"
        raise InputError(what, "sample_weight", None, "two rows of positive weight are needed at least")
    return weights
