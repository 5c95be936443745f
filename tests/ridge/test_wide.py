"""Lanczos for all folds against the decomposition of the whole matrix."""

import pytest
import torch

from weightdecay.ridge.folds import fold_ids
from weightdecay.ridge.problem import Problem
from weightdecay.ridge.wide import ByFolds, by_folds, by_products, folds_alone

N = 240
ALPHAS = torch.logspace(0, 6, 30, dtype=torch.float64)


def problem(weighted=False, free=False, intercept="free", decay=0.0):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N, 900, generator=generator, dtype=torch.float64) + 2
    X *= torch.linspace(0, 1, N, dtype=torch.float64)[:, None].neg().mul(decay).exp()
    y = X[:, :4].sum(1, keepdim=True) + torch.randn(N, 1, generator=generator, dtype=torch.float64)
    weights = torch.rand(N, generator=generator, dtype=torch.float64) + 0.2 if weighted else None
    weights = None if weights is None else weights / weights.mean()
    penalty = torch.ones(900, dtype=torch.float64) if free else None
    if penalty is not None:
        penalty[:2] = 0
    return Problem(X, y, weights, penalty, intercept)


@pytest.mark.parametrize("kind", ["folds", "pairs"])
@pytest.mark.parametrize(
    "options",
    [{}, {"weighted": True}, {"free": True}, {"intercept": "none"}, {"intercept": "penalized"}],
    ids=str,
)
def test_the_same_as_decomposing(options, kind, monkeypatch):
    """To 1e-11 of the scores: κ is about 10, and Lanczos stops at 1e-15 of the target's norm."""
    monkeypatch.setattr(ByFolds, "most", property(lambda _: 200))
    scheme = fold_ids(0, N, 4, seed=0)
    if kind == "pairs":
        scheme = [(torch.arange(120), torch.arange(120, 170)), (torch.arange(170), torch.arange(170, N))]
    given = problem(**options)
    quick, whole = by_folds(given, scheme), by_products(given, scheme)
    found, expected = quick.curve(ALPHAS), whole.curve(ALPHAS)
    assert quick._known, "Lanczos gave up"
    assert "full" not in vars(quick), "all was decomposed after all"
    assert torch.allclose(found.mean, expected.mean, rtol=1e-11, atol=0)
    assert torch.allclose(found.folds, expected.folds, rtol=1e-11, atol=0)
    assert torch.allclose(found.error, expected.error, rtol=1e-9, atol=0)
    alpha = ALPHAS[7:8]
    for mine, other in zip(quick.solve(alpha), whole.solve(alpha), strict=True):
        assert torch.allclose(mine, other, rtol=0, atol=1e-11 * float(other.abs().max()))
    assert torch.allclose(quick.rss(ALPHAS), whole.rss(ALPHAS), rtol=1e-11, atol=0)
    assert torch.allclose(
        quick.out_of_fold(alpha), whole.out_of_fold(alpha), rtol=1e-11, atol=1e-11, equal_nan=True
    )
    assert quick.spectrum_scale().mean == pytest.approx(whole.spectrum_scale().mean, rel=1e-12)
    assert quick.spectrum_scale().largest == pytest.approx(whole.spectrum_scale().largest, rel=1e-6)


def test_a_smaller_alpha_is_run_again_and_a_slow_one_is_left_to_the_decomposition(monkeypatch):
    monkeypatch.setattr(ByFolds, "most", property(lambda _: 60))
    scheme = fold_ids(0, N, 4, seed=0)
    quick = by_folds(problem(), scheme)
    quick.curve(ALPHAS[-3:])
    first = quick._known["basis"].alpha
    quick.curve(ALPHAS[10:])
    assert quick._known["basis"].alpha < first
    slow = by_folds(problem(decay=12.0), scheme)
    tiny = torch.tensor([1e-4, 1.0], dtype=torch.float64)
    found = slow.curve(tiny)
    assert "full" in vars(slow)
    assert torch.equal(found.mean, by_products(problem(decay=12.0), scheme).curve(tiny).mean)


def test_it_is_tried_for_one_target_of_many_rows_in_few_folds():
    rows = Problem(torch.zeros(1200, 1500), torch.zeros(1200, 1, dtype=torch.float64))
    folds = fold_ids(0, 1200, 5, seed=0)
    assert folds_alone(rows, folds)
    assert not folds_alone(rows, "loo")
    assert not folds_alone(rows, fold_ids(0, 1200, 100, seed=0))
    assert not folds_alone(Problem(rows.X, torch.zeros(1200, 2, dtype=torch.float64)), folds)
    assert not folds_alone(Problem(rows.X, rows.y, standardize=True), folds)
    assert not folds_alone(problem(), fold_ids(0, N, 5, seed=0))
