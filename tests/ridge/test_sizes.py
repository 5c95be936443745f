"""Sizes at which an algorithm changes, each crossed with every option and way to hold rows out."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import LeaveOneOut, RepeatedKFold, TimeSeriesSplit
from tests.fuzz.ridge import BOUNDS, Case, wrong

import weightdecay as wd
from weightdecay.ridge import path

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")

OPTIONS = {
    "plain": {},
    "standardized": {"standardize": True},
    "no intercept": {"intercept": "none"},
    "penalized intercept": {"intercept": "penalized", "standardize": True},
    "weights": {"weights": True},
    "free columns": {"factors": True},
    "three targets": {"targets": 3},
    "one λ for three targets": {"targets": 3, "shared": True, "weights": True},
    "all at once": {"targets": 3, "standardize": True, "weights": True, "factors": True},
    "all, no intercept": {"standardize": True, "weights": True, "factors": True, "intercept": "none"},
    "float32": {"form": "float32", "standardize": True, "weights": True},
}
SCHEMES = ["folds", "loo", "pairs", "repeats", "time", "cv=n", "gcv", "groups"]


def case(n, p, options, scheme, bound, seed=0):
    """A table and one way to fit it."""
    rng = np.random.default_rng(seed)
    options = dict(options)
    targets, grid, form = options.pop("targets", None), options.pop("grid", 3), options.pop("form", "tensor")
    X = rng.normal(size=(n, p)) * rng.uniform(0.5, 2, size=p) + rng.normal(size=p)
    y = X[:, :3].sum(1) + rng.normal(size=n)
    y = y if targets is None else y[:, None] * rng.normal(size=targets) + rng.normal(size=(n, targets))
    if options.pop("weights", False):
        options["sample_weight"] = np.where(np.arange(n) % 7 == 3, 0, rng.uniform(0.5, 2, size=n))
    if options.pop("factors", False):
        options["penalty_factors"] = np.where(np.arange(p) % 11 == 4, 0, rng.uniform(0.5, 2, size=p))
    every, cv = np.arange(n), scheme
    pairs = None
    if scheme in ("folds", "groups"):
        fold = rng.permutation(every % 3)
        cv = fold
        pairs = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    elif scheme == "pairs":  # overlapping, with rows that are named twice and rows that nobody names
        pairs = [(every[: n - 5], every[n - 5 :]), (rng.choice(every[4:], size=n), every[[0, 1, 2, 2]])]
        cv = pairs
    elif scheme in ("repeats", "time", "cv=n"):
        splitter = {
            "repeats": RepeatedKFold(n_splits=3, n_repeats=2, random_state=0),
            "time": TimeSeriesSplit(2),
            "cv=n": LeaveOneOut(),
        }[scheme]
        pairs = list(splitter.split(every))
        cv = n if scheme == "cv=n" else splitter
    low = 0 if form == "float32" else -2
    return Case(X, y, n * np.logspace(low, 2, grid), cv, pairs, options, form, bound)


@pytest.mark.parametrize(("n", "p"), [(15, 47), (29, 8)], ids=["wide", "tall"])
@pytest.mark.parametrize("bound", BOUNDS)
def test_every_bound_with_every_option(bound, n, p):
    """Each option beside a way to hold rows out, another one for every bound."""
    found = {}
    for k, (name, options) in enumerate(OPTIONS.items()):
        scheme = SCHEMES[(k + list(BOUNDS).index(bound)) % len(SCHEMES)]
        if said := wrong(case(n, p, options, scheme, bound)):
            found[name, scheme] = said
    assert not found, "\n".join(f"{key}: {said}" for key, said in found.items())


@pytest.mark.parametrize(("n", "p"), [(15, 47), (29, 8)], ids=["wide", "tall"])
@pytest.mark.parametrize("bound", ["as they are", "Lanczos", "singular values"])
def test_a_grid_that_is_carried_from_pivots(bound, n, p):
    said = wrong(case(n, p, {"grid": 130, "intercept": "none"}, "folds", bound))
    assert said is None, said


@pytest.mark.parametrize("n", [15, 16, 17, 30])
@pytest.mark.parametrize("bound", ["blocks of columns", "products", "singular values"])
def test_folds_of_wide_tables_by_their_own_scales(bound, n):
    """The last block of columns may be one column, or as wide as the others."""
    for p, scheme in (
        (n, "folds"),
        (n + 1, "time"),
        (2 * n, "pairs"),
        (2 * n + 1, "folds"),
        (3 * n - 1, "time"),
    ):
        said = wrong(case(n, p, OPTIONS["all at once"], scheme, bound, seed=p))
        assert said is None, f"{p} columns, {scheme}: {said}"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every decomposition from here on, as multiplications: an eigendecomposition takes half of an SVD's."""
    done: list[float] = []
    eigh, svd = np.linalg.eigh, torch.linalg.svd

    def counted_eigh(K):
        done.append(len(K) ** 3 / 2)
        return eigh(K)

    def counted_svd(X, **options):
        done.append(X.numel() * min(X.shape))
        return svd(X, **options)

    monkeypatch.setattr(np.linalg, "eigh", counted_eigh)
    monkeypatch.setattr(torch.linalg, "svd", counted_svd)
    return done


@pytest.mark.parametrize("cv", ["loo", 5])
@pytest.mark.parametrize("shape", [(15, 15), (15, 16), (15, 20), (15, 45), (30, 15), (150, 15)], ids=str)
def test_a_larger_table_takes_no_less_work_than_a_smaller_one(shape, cv, work):
    """Beyond the size under which the work is less than that of the call itself."""
    needed = []
    for times in (3, 4, 6, 8, 11, 15, 20, 24, 28, 32):
        n, p = (times * side for side in shape)
        rng = np.random.default_rng(times)
        X = rng.normal(size=(n, p))
        work.clear()
        wd.ridge_path(X, X[:, 0] + rng.normal(size=n), np.logspace(-2, 5, 20), unit="sklearn.Ridge", cv=cv)
        needed.append(max(sum(work), path.DIRECT))
    assert needed == sorted(needed)
    assert needed[-1] > needed[0]
