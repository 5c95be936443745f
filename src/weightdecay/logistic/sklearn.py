"""The path of logistic regression as a scikit-learn estimator: `LogisticPathCV`.

It takes the place of `LogisticRegressionCV`. Needs scikit-learn: pip install "weightdecay[sklearn]".
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from weightdecay.errors import InputError
from weightdecay.logistic.classification import prepared
from weightdecay.logistic.judging import Judge, probabilities
from weightdecay.logistic.labels import labels_of
from weightdecay.logistic.path import LogisticOptions, fit_path
from weightdecay.logistic.record import LogisticPath
from weightdecay.ridge.lambdas import Strength
from weightdecay.ridge.problem import Inputs, coded_inputs
from weightdecay.tables.columns import ColumnOptions

try:
    from sklearn.base import ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

    from weightdecay.ridge.sklearn import PathEstimator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'weightdecay.logistic.sklearn needs scikit-learn: pip install "weightdecay[sklearn]"', name=error.name
    ) from error

UNIT = "sklearn.LogisticRegression"


class LogisticPathCV(ClassifierMixin, PathEstimator):
    """Logistic or multinomial regression with the C that held-out rows choose.

        min over (W, b) of  C Σ_i w_i logloss_i + ½ Σ_j f_j ‖W_j‖²

    Convention: C as in scikit-learn's LogisticRegression; it is the same in every fold and in the final fit.

    Args:
        Cs: the grid; None makes one that suits the data, widened while the least score is near its edge.
        cv: "loo" (leave-one-out by one Newton step from the fit), "evidence" (Laplace's approximation), a
            number of folds (shuffled, by class), a splitter of scikit-learn, or pairs (train, test).
        judge: "log_loss", "error", "brier", or of two classes "auc".
        choose: "best", the C of least score, or "one_se", the least C within one standard error of it.
        fit_intercept: whether there is an intercept; it is not penalised.
        standardize: as if each column were divided by its standard deviation, inside every fold.
            Coefficients are on the original scale.
        class_weight: {class: weight}, or "balanced"; it counts in the score, too.
        penalty_factors: a multiple of the penalty for each column; 0: not penalised.
        random_state: seed of the shuffled folds and of the rows that are really left out; None is 0.
        category: columns of a frame to take as categories, whatever they look like.
        number: columns of a frame to take as numbers, such as whole numbers that rise by one.
        dates: "days": a column of dates is the days since the first one; otherwise it is refused.
        missing: cells that have no value are refused, or "drop" leaves their rows out.
        unseen: of levels that `predict` meets and the fit has not seen: "refuse" them, or take them as the
            most frequent one ("base").

    Attributes:
        classes_: the labels, ascending.
        C_: the C chosen.
        lam_: the same as canonical λ = 1/(n C), beside weights of mean 1.
        best_score_: minus the score of held-out rows at C_; the AUC itself.
        coef_: (1, p) for two classes, else (C, p).
        intercept_: (1,) or (C,).
        path_: the whole path, a `LogisticPath`; strengths there are C times the mean of the weights. It holds
            the data, so pickles and copies of the estimator leave it out.
        features_: the inputs' names, or None where the columns have none.
        n_features_in_, feature_names_in_: as in scikit-learn.

    >>> random = np.random.default_rng(0)
    >>> X = random.normal(size=(60, 5))
    >>> labels = np.where(X[:, 0] + random.normal(size=60) > 0, "yes", "no")
    >>> model = LogisticPathCV(Cs=[0.01, 0.1, 1, 10], cv=5).fit(X, labels)
    >>> model.C_, model.coef_.shape, model.predict_proba(X).shape
    (1.0, (1, 5), (60, 2))
    """

    classes_: np.ndarray
    C_: float
    lam_: float
    coef_: np.ndarray
    intercept_: np.ndarray
    best_score_: float
    path_: LogisticPath

    def __init__(
        self,
        Cs: Any = None,
        cv: Any = "loo",
        *,
        judge: Judge = "log_loss",
        choose: str = "best",
        fit_intercept: bool = True,
        standardize: bool = False,
        class_weight: Any = None,
        penalty_factors: Any = None,
        random_state: int | None = None,
        category: Sequence[str] = (),
        number: Sequence[str] = (),
        dates: str | None = None,
        missing: str = "refuse",
        unseen: str = "refuse",
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.judge = judge
        self.choose = choose
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.class_weight = class_weight
        self.penalty_factors = penalty_factors
        self.random_state = random_state
        self.category = category
        self.number = number
        self.dates = dates
        self.missing = missing
        self.unseen = unseen

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> "LogisticPathCV":
        """Choose C and fit.

        Args:
            X: inputs (n, p): array, sparse or not, or a pandas or polars DataFrame.
            y: a label for each row (n,).
            sample_weight: a weight for each row (n,), or one number.
            groups: a label for each row (n,), for folds by group.

        Returns:
            The estimator itself.

        Raises:
            InputError: a ValueError; data, labels, folds or strengths that cannot be used.
        """
        if self.choose not in ("best", "one_se"):
            raise InputError("no such choice", "choose", repr(self.choose), "use 'best' or 'one_se'")
        said = ColumnOptions(self.category, self.number, dates=self.dates, missing=self.missing)
        options = LogisticOptions(
            cv=self.cv,
            unit=UNIT,
            seed=0 if self.random_state is None else self.random_state,
            groups=groups,
            class_weight=self.class_weight,
            penalty_factors=self.penalty_factors,
            intercept="free" if self.fit_intercept else "none",
            standardize=self.standardize,
            judge=self.judge,
            columns=said,
        )
        inputs: Any = X
        if hasattr(X, "columns") and hasattr(X, "shape") and min(X.shape) > 0:
            inputs = coded_inputs(X, options)
        coded = isinstance(inputs, Inputs) and not inputs.coding.plain
        if coded or self.missing != "refuse":
            validate_data(self, X, skip_check_array=True)
            labels = labels_of(y, "y")
        else:
            inputs, y = validate_data(
                self, X, y, accept_sparse=True, dtype=(np.float64, np.float32), ensure_min_samples=2
            )
            y = column_or_1d(y, warn=True)
            check_classification_targets(y)
            labels = labels_of(y, "y")
        if sample_weight is not None:
            rows = np.empty((len(labels.codes), 1))
            weights = _check_sample_weight(sample_weight, rows, dtype=np.float64)
            options = replace(options, sample_weight=weights)
        table = prepared(inputs, labels, options, self.class_weight)
        # The path makes weights of mean 1, and so C larger by as much.
        total = table.mean_weight
        if self.Cs is not None:
            options = replace(options, lambdas=Strength.numbers(self.Cs, "Cs") * total)
        self.path_ = path = fit_path(inputs, labels, options, table)
        self._name_inputs(path.coding, path.features)
        lam = path.best if self.choose == "best" else path.one_se
        p = path.p
        self.classes_ = np.array(path.classes)
        self.coef_ = np.ascontiguousarray(path.coef(lam).numpy().reshape(-1, p))
        self.intercept_ = path.intercept(lam).numpy().reshape(-1)
        self.C_ = float(lam) / total
        self.lam_ = float(path.alphas[(path.lambdas - lam).abs().argmin()]) / path.n
        score = float(path.scores[(path.lambdas - lam).abs().argmin()])
        self.best_score_ = 1 - score if path.judge == "auc" else -score
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits: (m,) of two classes, for the second; else (m, C)."""
        logits = self._logits(X)
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes (m, C), in the order of `classes_`."""
        return probabilities(torch.from_numpy(self._logits(X))).numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Their logarithms (m, C)."""
        logits = torch.from_numpy(self._logits(X))
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        return logits.log_softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row (m,)."""
        logits = self._logits(X)
        places = (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(1)
        return self.classes_[places]

    def _logits(self, X: Any) -> np.ndarray:
        return np.asarray(self._rows(X) @ self.coef_.T + self.intercept_, dtype=np.float64)
