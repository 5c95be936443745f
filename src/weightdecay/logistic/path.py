"""The front door: data and labels in, the whole path of logistic or multinomial regression out.

`logistic_path` collects its options; `fit_path` checks the data, makes one plan, fits the grid of λ from the
strongest to the weakest and judges it on the way, widens it, chooses, and writes the record.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.arguments import choice
from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.logistic.classification import Prepared, judging, prepared, rare_classes
from weightdecay.logistic.fitting import KEPT, TOLERANCE, Fitter, Step
from weightdecay.logistic.judging import Judge, check_judge
from weightdecay.logistic.leave_one_out import invertible
from weightdecay.logistic.record import Fitted, LogisticPath, doubts
from weightdecay.ridge import lambdas as grids
from weightdecay.ridge.lambdas import Scale, Strength
from weightdecay.ridge.linalg import on_cpu, one_pool
from weightdecay.ridge.path import rows_left_out
from weightdecay.ridge.problem import Intercept, collected, names_of
from weightdecay.select import choose, least
from weightdecay.tables.cells import no_such_column
from weightdecay.tables.columns import NOTHING_SAID, ColumnOptions
from weightdecay.tables.source import Source
from weightdecay.text import Text

PER_DECADE = 6  # λ of the automatic grid: a fit each, from a curve that is smooth in log λ
NEAR = PER_DECADE // 2  # of them that are wanted on either side of the least score: half a decade
DECADES = 5  # that the grid begins with, down from where coefficients are tiny
LOWEST, HIGHEST = 1e-9, 1e2  # of that λ: the true edges
ROUNDING = 1e-9  # of a score: what a gradient that is not quite 0 leaves of it
# The conventions that stand beside a mean, or a sum, of log losses.
UNITS = (
    "canonical",
    "torch.SGD+mean_loss",
    "torch.SGD+sum_loss",
    "sklearn.LogisticRegression",
    "gaussian_prior.nll",
)


@dataclass(frozen=True, eq=False)
class LogisticOptions:
    """The options of `weightdecay.logistic_path`, whose docstring says what each of them means.

    Raises:
        InputError: an option that is none of the choices.
    """

    lambdas: Any = None
    cv: Any = 5
    unit: str = "canonical"
    seed: int = 0
    groups: Any = None
    sample_weight: Any = None
    class_weight: Any = None
    penalty_factors: Any = None
    intercept: Intercept = "free"
    standardize: bool = False
    judge: str = "log_loss"
    drop: Sequence[str] = ()
    on_progress: Callable[[int, int | None], None] | None = None
    columns: ColumnOptions = field(default_factory=lambda: NOTHING_SAID)

    def __post_init__(self) -> None:
        if self.intercept == "penalized":
            remedy = "add a column of ones and use intercept='none'"
            raise InputError("a penalised intercept is for ridge", "intercept", "'penalized'", remedy)
        choice(self.intercept, "intercept", ("free", "none"))
        choice(self.unit, "unit", UNITS, "not a convention beside log losses")
        if not isinstance(self.seed, int | np.integer):
            raise InputError("not a whole number", "seed", repr(self.seed), "give an integer")
        if self.columns.missing == "mean":
            what = "means of the training rows are not put into a classification"
            remedy = "use 'drop', or a pipeline with sklearn.impute.SimpleImputer and LogisticPathCV"
            raise InputError(what, "missing", "'mean'", remedy)


def logistic_path(
    X: Any,
    labels: Any,
    lambdas: Any = None,
    *,
    cv: Any = 5,
    unit: str = "canonical",
    seed: int = 0,
    groups: Any = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    penalty_factors: Any = None,
    intercept: Intercept = "free",
    standardize: bool = False,
    judge: Judge = "log_loss",
    drop: Sequence[str] = (),
    on_progress: Callable[[int, int | None], None] | None = None,
    category: Sequence[str] = (),
    number: Sequence[str] = (),
    dates: str | None = None,
    missing: str = "refuse",
) -> LogisticPath:
    """The whole path of logistic or multinomial regression, judged: which λ is best, and the models.

    Args:
        X: inputs (n, p): tensor, array, a pandas or polars DataFrame, a pyarrow Table, or a LazyFrame, which
            is collected. In a table with named columns texts become an input for each level, and an index,
            texts that are all different and constants are left out; `path.notes` says so. Sparse inputs are
            made dense if there is room.
        labels: a label for each row (n,): numbers, strings, booleans or categories, of two classes or more.
        lambdas: the grid, in `unit`; by default one that suits the data: down from where coefficients are
            tiny, widened until the least score has half a decade on both sides, or is at a true edge.
        cv: a number of folds, which deals the rows of each class evenly; "loo", leave-one-out by one Newton
            step from the fit, with some rows really left out as its check; "evidence", Laplace's
            approximation to it; an object with scikit-learn's `split`, or pairs (training rows, test rows),
            or a fold for each row (n,). As many folds as rows really leave each out. A row counts as often
            as a pair names it; None is 5.
        unit: the convention of λ: "canonical", "sklearn.LogisticRegression" (its C), "torch.SGD+mean_loss",
            "torch.SGD+sum_loss" or "gaussian_prior.nll".
        seed: shuffles the folds, and draws the rows that are really left out.
        groups: a label for each row (n,): rows of one label are held out together.
        sample_weight: a weight for each row (n,), made to have mean 1; rows of weight 0 take no part.
        class_weight: {class: weight}, 1 for the others, or "balanced", W / (C · W_c) with the
            weight W_c of the class's rows and that of all, W. It multiplies the weights of the rows, in the
            fit and in the score, and the products are made to have mean 1: scikit-learn's C, which takes
            them as they are, is then 1/(α · their mean). `LogisticPathCV` takes them as scikit-learn does.
        penalty_factors: f, a multiple of the penalty for each column (p,), or some by name; 0: not penalised.
        intercept: "free" of the penalty, or "none".
        standardize: multiply f by the variance of each column over the rows that are fitted, inside every
            fold, as if columns were divided by their standard deviation; coefficients are on the original
            scale.
        judge: what λ is chosen by: "log_loss", "error" (the share of rows predicted wrong), "brier", or of
            two classes "auc", of which the score is 1 − AUC.
        drop: columns of a frame to leave out.
        on_progress: called with the number of λ that are done, and how many there are or None.
        category: columns to take as categories, whatever they look like.
        number: columns to take as numbers, such as whole numbers that rise by one.
        dates: "days": a column of dates is the days since the first one; otherwise it is refused.
        missing: cells and labels that have no value are refused, or "drop" leaves their rows out.

    Equation: min over (W, b) of  Σ_i w_i logloss_i + α/2 Σ_j f_j ‖W_j‖², for two classes with one logit, for
    more with one each, the symmetric softmax, whose coefficients sum to zero over the classes.

    Convention: canonical λ belongs to mean log loss + λ/2 Σ f ‖W‖², so α = nλ, n the rows of positive weight.
    **α is the same in every fold,** in leave-one-out and in the final fit. scikit-learn's C is 1/α
    (`unit="sklearn.LogisticRegression"`).

    Returns:
        A `LogisticPath`.

    Raises:
        InputError: data, labels, folds or strengths that cannot be used; a class without a row among the
            training rows of a fold.

    Warns:
        WeightDecayWarning: the curve is flat, the least score is at an edge, a plane separates the classes, a
            fit has not reached the minimum, or leave-one-out is not precise.

    >>> generator = torch.Generator().manual_seed(0)
    >>> X = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    >>> labels = ["yes" if x > 0 else "no" for x in X[:, 0] + torch.randn(60, generator=generator)]
    >>> path = logistic_path(X, labels, [1e-3, 1e-2, 0.1, 1.0])
    >>> path.classes, path.coef(path.best).shape, path.predict_proba(X[:2]).shape
    (('no', 'yes'), torch.Size([4]), torch.Size([2, 2]))
    """
    options = LogisticOptions(
        lambdas, cv, unit, seed, groups, sample_weight, class_weight, penalty_factors, intercept, standardize,
        judge, drop, on_progress,
        ColumnOptions(category, number, dates=dates, missing=missing),
    )  # fmt: skip
    return fit_path(X, labels, options)


@dataclass(frozen=True, eq=False)
class Plan:
    """What is computed for one table and one set of options.

    Args:
        options: as they were given.
        table: the data.
        fitter: fits and judges them.
        judge: what is chosen by: a judge, or "evidence".
        strength: the convention of λ.
        grid: α ascending, and the same in their own unit, as given; None where the grid is to suit the data.
        notes: what there is to say of rows and classes.
    """

    options: LogisticOptions
    table: Prepared
    fitter: Fitter
    judge: str
    strength: Strength
    grid: tuple[Float64[Tensor, " L"], Float64[Tensor, " L"]] | None
    notes: tuple[Text, ...]


def fit_path(X: Any, labels: Any, options: LogisticOptions, table: Prepared | None = None) -> LogisticPath:
    """Fit, judge and choose: `logistic_path` with its options as a record.

    Args:
        X: as `logistic_path`.
        labels: as `logistic_path`.
        options: the others.
        table: what `prepared` made of these, where it is at hand.

    Raises:
        InputError: as `logistic_path`.
    """
    if isinstance(X, str | Path | Source):
        remedy = "read the table, for instance with polars.read_csv, and give its columns"
        raise InputError("a classifier's table has to be in memory", "X", str(X)[:60], remedy)
    with on_cpu(), one_pool():  # between the fits, too, where held-out rows are judged
        X, labels = collected(X, "X"), collected(labels, "labels")
        X = _without(X, options.drop)
        table = prepared(X, labels, options, options.class_weight) if table is None else table
        path = _chosen(_plan(table, X, labels, options))
    for doubt in path.doubts:
        warnings.warn(doubt, WeightDecayWarning, stacklevel=3)
    return path


def _plan(table: Prepared, X: Any, labels: Any, options: LogisticOptions) -> Plan:
    check_judge(options.judge, table.problem.classes)
    how = judging(options.cv, table, int(options.seed), options.groups, X, labels)
    fitter = Fitter(table.problem, how, int(options.seed))
    n, p = table.problem.X.shape
    if how.criterion is not None and not invertible(n, p, table.problem.classes):
        what = f"{how.criterion} takes the inverse of a Hessian, which is too large"
        value = f"{p:,} columns and {table.problem.classes:,} classes"
        raise InputError(what, "X", value, "use folds, cv=5, or fewer columns")
    if options.judge == "auc" and how.criterion == "loo":
        # Without its own label each row has another intercept: the ranks say more of that than of the model.
        what = "rows left out one by one have no common rank, and so no AUC"
        raise InputError(what, "judge", "'auc', cv = 'loo'", "use cv=5, or another judge")
    if options.judge == "auc":
        _both_classes(fitter)
    strength = Strength(options.unit, {"n": len(table.problem.X)})
    beside = [Text("label", "标签")]
    beside += [Text("weight", "权重")] if options.sample_weight is not None else []
    notes = list(rows_left_out(table.checked.left_out, table.given, options.columns.missing, beside))
    notes += [
        Text(
            f"class {label!r} has one row among the training rows of fold {k}: "
            "hardly anything is known of it there",
            f"在第 {k} 折的训练行中，类别 {label!r} 只有一行，几乎没有关于它的信息",
        )
        for label, k in rare_classes(how.folds, table)
    ]
    return Plan(
        options,
        table,
        fitter,
        "evidence" if how.criterion == "evidence" else options.judge,
        strength,
        None if options.lambdas is None else strength.grid(options.lambdas),
        tuple(notes),
    )


def _without(X: Any, drop: Sequence[str]) -> Any:
    """A frame without some of its columns."""
    names = (drop,) if isinstance(drop, str) else tuple(str(name) for name in drop or ())
    if not names:
        return X
    known = names_of(X)
    if known is None or not hasattr(X, "columns"):
        raise InputError("only for tables with named columns", "drop", repr(names), "give a frame")
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise no_such_column(unknown, known, "drop", "X has")
    kept = [place for place, name in enumerate(known) if name not in names]
    return X[:, kept] if isinstance(X, pl.DataFrame) else X.iloc[:, kept]


def _both_classes(fitter: Fitter) -> None:
    """Refuse AUC where a fold holds out one class only."""
    codes, folds = fitter.problem.codes, fitter.judging.folds
    for k, fold in enumerate(folds):
        if bool((codes[fold.rows] == codes[fold.rows[0]]).all()):
            what = "a fold holds out rows of one class only, for which there is no AUC"
            raise InputError(what, "cv", f"fold {k + 1} of {len(folds)}", "use fewer folds, or another judge")


def _grid(plan: Plan) -> list[Step]:
    """Fit the grid as given, or one that is widened while the least score is at its edge; λ ascending."""
    fitter, progress = plan.fitter, plan.options.on_progress
    done: list[int] = []

    def steps(alphas: Float64[Tensor, " L"]) -> list[Step]:
        size = len(alphas) * fitter.held_rows * fitter.problem.logits
        found = []
        for step in fitter.steps(alphas, keep=size <= KEPT):
            found.append(step)
            done.append(1)
            if progress is not None:
                progress(len(done), len(plan.grid[0]) if plan.grid is not None else None)
        return found[::-1]

    if plan.grid is not None:
        return steps(_above_zero(plan.grid[0], fitter))
    largest = fitter.problem.largest()
    scale = Scale(largest if largest > 0 else fitter.problem.scale().mean, 1.0)
    low, high = 10.0**-DECADES, 1.0
    found = steps(grids.automatic(scale, low, high, PER_DECADE))
    while True:
        curves = fitter.curves(found)
        scores = curves.mean[plan.judge].cpu()
        place = least(scores, ROUNDING * scores.abs())
        lower, higher = grids.widened(low, high, place, len(found), LOWEST, HIGHEST, NEAR)
        if found[0].gradient > TOLERANCE:  # nothing weaker is fitted better
            lower = low
        if (lower, higher) == (low, high):
            return found
        if lower < low:
            found = steps(grids.automatic(scale, lower, low, PER_DECADE)[:-1]) + found
        if higher > high:
            found = found + steps(grids.automatic(scale, high, higher, PER_DECADE)[1:])
        low, high = lower, higher


def _above_zero(alphas: Float64[Tensor, " L"], fitter: Fitter) -> Float64[Tensor, " L"]:
    """Replace λ = 0 by so little that it shrinks nothing that float64 can tell."""
    if bool((alphas > 0).all()):
        return alphas
    return torch.where(alphas == 0, 1e-14 * fitter.problem.scale().mean, alphas)


def _chosen(plan: Plan) -> LogisticPath:
    """Fit, choose and write the record."""
    options, table, fitter, problem = plan.options, plan.table, plan.fitter, plan.fitter.problem
    steps = _grid(plan)
    curves = fitter.curves(steps)
    scores, errors = curves.mean[plan.judge].cpu(), curves.error[plan.judge].cpu()
    chosen = choose(scores, errors, ROUNDING * scores.abs())
    alphas = torch.tensor([step.alpha for step in steps], dtype=torch.float64)
    lambdas = plan.strength.lam(alphas) if plan.grid is None else plan.grid[1]
    held = {}
    if fitter.judging.criterion != "evidence":
        for k in {chosen.best, chosen.one_se}:
            logits, alpha = steps[k].held, steps[k].alpha
            P = fitter.held_out(alpha) if logits is None else fitter.probabilities(logits)
            held[alpha] = P.cpu()
    mean, sd = (values[0].cpu() for values in problem.moments(problem.weights[None]))
    fitted = Fitted(
        alphas=alphas,
        coefs=torch.stack([step.coef for step in steps]).cpu(),
        intercepts=torch.stack([step.intercept for step in steps]).cpu(),
        dofs={step.alpha: step.dof for step in steps if step.dof is not None},
        held=held,
        mean=mean,
        sd=sd,
        ranges=torch.stack([problem.X.amin(0), problem.X.amax(0)]).double().cpu(),
        codes=problem.codes.cpu(),
        weights=problem.weights.cpu() if table.weighted else None,
        fitter=fitter,
    )
    counts = problem.codes.bincount(minlength=problem.classes).tolist()
    by_class = problem.codes.bincount(problem.weights, minlength=problem.classes)
    precision = [step.precision for step in steps if step.precision is not None]
    path = LogisticPath(
        lambdas=lambdas,
        unit=plan.strength.unit,
        alphas=alphas,
        scores=scores,
        errors=errors,
        fold_scores=None if curves.folds is None else curves.folds[plan.judge].cpu(),
        curves={name: values.cpu() for name, values in curves.mean.items()},
        judge=plan.judge,
        gradient=torch.tensor([step.gradient for step in steps], dtype=torch.float64).nan_to_num(),
        precision=torch.tensor(precision, dtype=torch.float64) if precision else None,
        best=float(lambdas[chosen.best]),
        one_se=float(lambdas[chosen.one_se]),
        edge=chosen.edge,
        flat=chosen.flat,
        flat_range=(float(lambdas[chosen.low]), float(lambdas[chosen.high])),
        cv=fitter.judging.text,
        classes=table.classes,
        counts=tuple(counts),
        n=len(problem.X),
        p=problem.X.shape[1],
        features=table.checked.features,
        target=table.target,
        doubts=(),
        settings={
            "cv": fitter.judging.text,
            "unit": plan.strength.unit,
            "judge": plan.judge,
            "seed": int(options.seed),
            "intercept": options.intercept,
            "standardize": options.standardize,
            "penalty_factors": None if options.penalty_factors is None else problem.factors.tolist(),
            "weighted": table.weighted,
            "share_wrong": 1 - float(by_class.max() / by_class.sum()),
            "class_weight": _plain_weights(options.class_weight),
            "drop": [
                str(name) for name in ([options.drop] if isinstance(options.drop, str) else options.drop)
            ],
            "dtype": str(problem.X.dtype).removeprefix("torch."),
        },
        coding=table.checked.coding,
        _fitted=fitted,
        _strength=plan.strength,
    )
    return replace(path, doubts=(*doubts(path, chosen, plan.grid is not None), *plan.notes))


def _plain_weights(given: Any) -> Any:
    """Class weights as JSON has them."""
    if given is None or isinstance(given, str):
        return given
    return {str(label): float(weight) for label, weight in given.items()}
