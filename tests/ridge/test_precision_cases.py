"""What a path claims of its digits, on random hard tables, against 270 digits: see `precision_cases`."""

import numpy as np
import pytest
import ridge_oracles as oracle
from tests.ridge import precision_cases as cases

from weightdecay.ridge import path

STEP = 10  # cases to a test, so that one that fails says where


@pytest.mark.parametrize("first", range(0, 80, STEP))
def test_no_score_is_outside_what_is_claimed_of_it(first):
    for seed, found in enumerate(cases.outcomes(STEP, first, largest=24), first):
        assert found.refused is None, (seed, found.refused)
        assert bool((found.errors <= found.claims).all()), (seed, found.errors, found.claims)


@pytest.mark.parametrize("first", range(500, 560, STEP))
def test_nor_by_the_routes_of_large_tables(first, monkeypatch):
    monkeypatch.setattr(path, "DIRECT", 0)
    for seed, found in enumerate(cases.outcomes(STEP, first, largest=20), first):
        assert bool((found.errors <= found.claims).all()), (seed, found.errors, found.claims)


def test_claims_are_no_more_cautious_than_they_need_to_be():
    found = list(cases.outcomes(40, 2000, largest=14))
    errors, claims = (np.concatenate([getattr(one, name) for one in found]) for name in ("errors", "claims"))
    assert np.median(claims / np.maximum(errors, np.finfo(float).eps / 2)) < 1e4
    assert np.isfinite(claims).mean() > 0.85


def test_the_oracle_is_that_of_plain_solves():
    """In float64, on tables where that is enough: explicit refits, hat matrices and determinants."""
    seen = set()
    for seed in range(60):
        case = cases.case(seed, 12)
        if case.kind not in ("gaussian", "far", "leverage", "huge"):
            continue
        unit = 1.0 if case.standardize else float(np.abs(case.X).max()) ** 2
        options = {"weights": case.weights, "penalty": case.penalty, "intercept": case.intercept}
        options["standardize"] = case.standardize
        X, y, alphas = case.X, case.y[:, None], (0.1 * unit, 3 * unit)
        score = SCORES[case.cv]
        right = [score(X, y, alpha, case.pairs, **options) for alpha in alphas]
        found = [float(cases.Exact(case).score(alpha)) for alpha in alphas]
        if case.cv == "evidence":  # constants are left out
            right, found = [right[1] - right[0]], [found[1] - found[0]]
        np.testing.assert_allclose(found, right, rtol=1e-5, err_msg=str(seed))
        seen.add(case.cv)
    assert seen == {"folds", "loo", "gcv", "evidence"}


def loo(X, y, alpha, pairs, standardize, **options):
    """Refits, on columns that are scaled over all rows."""
    w = oracle.settle(X, options["weights"], None)[0]
    return oracle.leave_one_out(X / oracle.scales(X, w, standardize), y, alpha, **options)[0]


SCORES = {
    "folds": lambda X, y, alpha, pairs, **options: oracle.fold_scores(X, y, alpha, pairs, **options)[1][0],
    "loo": loo,
    "gcv": lambda X, y, alpha, pairs, **options: oracle.generalized(X, y, alpha, **options)[0],
    "evidence": lambda X, y, alpha, pairs, **options: oracle.evidence(X, y, alpha, **options)[0],
}
