"""Moments: right to the last digits, whatever the means, and however the rows are put together."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightdecay.ridge.moments import fold_moments, merge, merge_tree, training


def reference(X, y, w):
    """Centred sums in 80-bit arithmetic."""
    X, y, w = (np.asarray(a, dtype=np.longdouble) for a in (X, y, w))
    m, my = w @ X / w.sum(), w @ y / w.sum()
    Z, v = X - m, y - my
    return m, my, Z.T @ (Z * w[:, None]), Z.T @ (v * w[:, None]), w @ v**2


def data(seed, n=90, p=5, t=2, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64) + offset
    y = X[:, :t] + torch.randn(n, t, generator=generator, dtype=torch.float64)
    return X, y, torch.rand(n, generator=generator, dtype=torch.float64) + 0.1


def near(found, wanted, bound):
    wanted = np.asarray(wanted, dtype=np.float64)
    assert np.abs(found.numpy() - wanted).max() <= bound * np.abs(wanted).max()


@pytest.mark.parametrize("t", [1, 2, 20])  # 20: more targets than ride along in the Gram matrix
@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_sums_against_long_double(offset, t):
    X, y, w = data(0, p=25, t=t, offset=offset)
    for weights in (None, w):
        found = fold_moments(X, y, None, weights)[0]
        m, my, G, g, ss = reference(X, y, torch.ones(90) if weights is None else w)
        near(found.x_mean, m, 1e-15)
        near(found.y_mean, my, 1e-15)
        for part, wanted in ((found.G, G), (found.g, g), (found.ss, ss)):
            near(part, wanted, 3e-14)


def test_a_first_row_unlike_all_others_costs_no_digits():
    X, y, _ = data(1, n=5000)
    X[0] = 1e6
    m, _, G, _, _ = reference(X, y, torch.ones(5000))
    found = fold_moments(X, y)[0]
    near(found.G, G, 1e-13)
    near(found.x_mean, m, 1e-15)


def test_training_sets_hold_no_trace_of_the_fold_left_out():
    """The first fold is 1e7 times as large: by subtraction it would leave errors of 1e-2 in the rest."""
    X, y, _ = data(2)
    fold = torch.arange(90) // 18
    X[fold == 0] *= 1e7
    parts = fold_moments(X, y, fold)
    for k, found in enumerate(training(parts)):
        keep = fold != k
        _, _, G, g, ss = reference(X[keep], y[keep], torch.ones(int(keep.sum())))
        for part, wanted in ((found.G, G), (found.g, g), (found.ss, ss)):
            near(part, wanted, 1e-14)
        assert found.rows == int(keep.sum())


def test_blocks_and_order_of_columns_in_memory_do_not_matter(monkeypatch):
    X, y, w = data(3, n=3000, p=3)
    fold = torch.arange(3000) % 7
    whole = fold_moments(X, y, fold, w)
    monkeypatch.setattr("weightdecay.ridge.moments.BLOCK", 100)
    for other in (X, X.T.contiguous().T):
        for a, b in zip(whole, fold_moments(other, y, fold, w), strict=True):
            near(b.G, a.G.numpy(), 1e-14)
            assert a.rows == b.rows


def test_float32_products_are_added_in_float64():
    X, y, _ = data(4, n=20_000, p=3)
    found = fold_moments((X + 100).float(), y)[0]
    _, _, G, g, ss = reference((X + 100).float().double(), y, torch.ones(20_000))
    near(found.G, G, 1e-6)
    near(found.g, g, 1e-6)
    near(found.ss, ss, 1e-14)
    assert found.G.dtype == torch.float64


@given(st.integers(0, 2**31), st.integers(-6, 6), st.lists(st.integers(0, 30), min_size=3, max_size=3))
def test_merging_is_associative_and_equals_the_whole(seed, power, sizes):
    X, y, w = data(seed, n=sum(sizes) + 2, offset=10.0**power)
    sizes[-1] += 2
    X[: sizes[0]] *= 10.0 ** (power / 2)
    pieces = [fold_moments(*part)[0] for part in _cut(X, y, w, sizes)]
    a, b, c = pieces
    left, right = merge(merge(a, b), c), merge(a, merge(b, c))
    m, _, G, g, ss = reference(X, y, w)
    for found in (left, right, merge_tree(pieces)):
        near(found.x_mean, m, 1e-14)
        for part, wanted in ((found.G, G), (found.g, g), (found.ss, ss)):
            near(part, wanted, 1e-12)


def _cut(X, y, w, sizes):
    first = 0
    for size in sizes:
        rows = slice(first, first + size)
        yield X[rows], y[rows], None, w[rows]
        first += size
