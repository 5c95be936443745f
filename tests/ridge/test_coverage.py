"""Coverage of 90 % prediction intervals over 500 simulated data sets, with λ known and with λ chosen.

What the docstring of `RidgeModel.interval` and the documentation say of both comes from here:

    python tests/ridge/test_coverage.py
"""

import warnings

import numpy as np
import pytest

import weightdecay as wd

N, SETS, NEW = 100, 500, 20
NOISE = 1.0


def covered(p, choice, sets=SETS, seed=0):
    """The share of new measurements inside their interval, and its standard error over data sets.

    Each set has inputs, coefficients and noise of its own; coefficients are N(0, τ²) with p τ² = 1, so that
    the signal has the variance of the noise, and the true α is σ²/τ² = p.
    """
    random = np.random.default_rng(seed)
    inside = np.empty(sets)
    for k in range(sets):
        X = random.normal(size=(N + NEW, p))
        y = 3 + X @ random.normal(size=p) * p**-0.5 + NOISE * random.normal(size=N + NEW)
        known = choice == "known"
        lambdas = [float(p)] if known else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wd.WeightDecayWarning)
            path = wd.ridge_path(X[:N], y[:N], lambdas, unit="sklearn.Ridge", cv="gcv" if known else choice)
            low, high = path.model().interval(X[N:], 0.9)
        inside[k] = ((low.numpy() <= y[N:]) & (y[N:] <= high.numpy())).mean()
    return inside.mean(), inside.std() / sets**0.5


@pytest.mark.parametrize("p", [10, 30])
def test_intervals_cover_what_they_say_at_the_true_strength(p):
    share, _ = covered(p, "known")
    assert 0.88 <= share <= 0.92


@pytest.mark.parametrize("p", [10, 30])
def test_little_is_lost_where_the_strength_is_chosen_from_the_same_data(p):
    """Measured with 500 sets: half a point at most. Here with 100 sets, whose standard error is .7 points."""
    share, _ = covered(p, "loo", sets=100)
    assert 0.87 <= share <= 0.92


if __name__ == "__main__":
    for columns in (10, 30, 90):
        for name in ("known", "loo", 5, "gcv", "evidence"):
            value, error = covered(columns, name)
            print(f"p = {columns:3}  λ {name!s:9} {100 * value:.1f} % ± {100 * error:.1f}", flush=True)
