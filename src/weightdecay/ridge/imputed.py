"""The route where cells are missing: the means of each fold's training rows stand in for them.

No fold sees the rows that it predicts, and so each has a table of its own and a route of its own; what is
asked of all rows is answered by the table with the means of all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float64
from torch import Tensor
from typing_extensions import override

from weightdecay.errors import InputError
from weightdecay.ridge.gram import Covariance
from weightdecay.ridge.problem import Problem, column_means
from weightdecay.ridge.route import Curve, Route, Scale, Scheme
from weightdecay.ridge.scores import folds_curve
from weightdecay.ridge.wide import splits_of


@dataclass(frozen=True)
class Imputed(Route):
    """One route for each split, joined.

    Args:
        whole: the route of all rows.
        parts: that of each split.
        weights: of the rows that each split holds out.
    """

    whole: Route
    parts: tuple[Route, ...]
    weights: tuple[float, ...]

    @override
    def spectrum(self) -> Float64[Tensor, " k"]:
        return self.whole.spectrum()

    @override
    def spectrum_scale(self) -> Scale:
        return self.whole.spectrum_scale()

    @override
    def curve(self, alphas: Float64[Tensor, " L"]) -> Curve:
        curves = [part.curve(alphas) for part in self.parts]
        sums = [curve.mean * weight for curve, weight in zip(curves, self.weights, strict=True)]
        return folds_curve(
            sums, list(self.weights), torch.stack([curve.precision for curve in curves]).amax(0)
        )

    @override
    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        return self.whole.solve(alphas)

    @override
    def rss(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
        return self.whole.rss(alphas)

    @override
    def out_of_fold(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "n t"]:
        return torch.stack([part.out_of_fold(alphas) for part in self.parts]).nanmean(0)

    @override
    def covariance(self, alpha: float) -> Covariance:
        return self.whole.covariance(alpha)

    @override
    def spread(self, alpha: float) -> Float64[Tensor, " p"]:
        return self.whole.spread(alpha)

    @override
    def inputs(self) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
        return self.whole.inputs()

    @override
    def correlations(self) -> Float64[Tensor, "p t"]:
        return self.whole.correlations()


def imputed(
    problem: Problem, holes: Bool[Tensor, "n p"], scheme: Scheme, route: Callable[[Problem, Scheme], Route]
) -> Imputed:
    """Make a table and a route for each split.

    Args:
        problem: the data, with the means of all rows where cells are missing.
        holes: where they are.
        scheme: the folds.
        route: makes the route of a problem.

    Raises:
        InputError: there are no folds.
    """
    splits = splits_of(scheme)
    if isinstance(splits, str):
        what, remedy = "means of the training rows need folds", "give a number of folds"
        raise InputError(what, "cv", repr(splits), remedy)
    given, root = problem.X, problem.weights
    assert isinstance(given, Tensor)
    weights = [float(len(test)) if root is None else float(root[test].sum()) for _, test in splits]
    whole, parts = route(problem, scheme), []
    for train, test in splits:
        means = column_means(given[train], holes[train], None if root is None else root[train])
        # A column without a value among the training rows keeps the mean of all.
        means = torch.where(holes[train].all(0), given.double().mean(0), means)
        X = torch.where(holes, means.to(given.dtype), given)
        parts.append(route(replace(problem, X=X), [(train, test)]))
    same = ("name", "n", "width", "device", "variance", "constant", "unpenalized")
    about = {name: getattr(whole, name) for name in same}
    return Imputed(whole=whole, parts=tuple(parts), weights=tuple(weights), **about)
