"""Exact ridge and leave-one-out, against refits, optimality conditions and limits."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import oracles
from tests.helpers import relative

from weightdecay.ridge import factor, least_loo, loo_errors, solve


def table(seed, n, p, rank=None, shift=3.0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    if rank is not None:
        X = X[:, :rank] @ torch.randn(rank, p, generator=generator, dtype=torch.float64)
    return X + shift, X.sum(1) + torch.randn(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("n", "p"), [(20, 40), (40, 10), (15, 14), (15, 15), (3, 1)])
@pytest.mark.parametrize("lam", [1e-3, 0.1, 10.0])
def test_leave_one_out_is_n_refits(n, p, lam):
    X, y = table(0, n, p)
    error = loo_errors(factor(X, y), torch.tensor([lam], dtype=torch.float64))
    assert float(error) == pytest.approx(oracles.leave_one_out(X.numpy(), y.numpy(), lam), rel=1e-9)


def test_leave_one_out_of_a_rank_deficient_table():
    X, y = table(1, 20, 40, rank=6)
    error = loo_errors(factor(X, y), torch.tensor([0.1], dtype=torch.float64))
    assert float(error) == pytest.approx(oracles.leave_one_out(X.numpy(), y.numpy(), 0.1), rel=1e-9)


def test_leave_one_out_keeps_its_digits_at_a_tiny_lam():
    """A wide table at λ = 1e-14 of the mean eigenvalue, where subtracting from 1 would leave no digit."""
    X, y = table(2, 8, 20)
    factors = factor(X, y)
    lam = 1e-14 * float((factors.s**2).mean()) / 8
    with mpmath.workdps(60):
        K = mpmath.matrix((X @ X.T).tolist())
        n, errors = 8, []
        for i in range(n):
            keep = [j for j in range(n) if j != i]
            # Dual ridge with a free intercept: [K + nλ, 1; 1', 0] [a; b] = [y; 0].
            A = mpmath.zeros(n, n)
            for r, j in enumerate(keep):
                for c, k in enumerate(keep):
                    A[r, c] = mpmath.fdot(
                        [
                            (mpmath.mpf(float(u)), mpmath.mpf(float(v)))
                            for u, v in zip(X[j], X[k], strict=True)
                        ]
                    )
                A[r, r] += n * mpmath.mpf(lam)
                A[r, n - 1] = A[n - 1, r] = 1
            solution = mpmath.lu_solve(A, mpmath.matrix([*(mpmath.mpf(float(y[j])) for j in keep), 0]))
            cross = [
                mpmath.fdot(
                    [(mpmath.mpf(float(u)), mpmath.mpf(float(v))) for u, v in zip(X[i], X[k], strict=True)]
                )
                for k in keep
            ]
            prediction = mpmath.fdot(zip(cross, solution[: n - 1], strict=True)) + solution[n - 1]
            errors.append((mpmath.mpf(float(y[i])) - prediction) ** 2)
        exact = float(sum(errors) / n)
        assert K.rows == n
    assert float(loo_errors(factors, torch.tensor([lam], dtype=torch.float64))) == pytest.approx(
        exact, rel=1e-11
    )


@given(st.integers(0, 2**32), st.integers(3, 12), st.integers(1, 15), st.floats(-4, 3))
def test_the_gradient_is_zero_at_the_solution(seed, n, p, log_lam):
    X, y = table(seed, n, p)
    lam = 10**log_lam
    model = solve(factor(X, y), lam)
    residual = model.predict(X) - y
    gradient = X.T @ residual / n + lam * model.w
    scale = float((X.T @ y).abs().max()) / n
    assert float(gradient.abs().max()) < 1e-11 * scale
    assert abs(float(residual.mean())) < 1e-12 * float(y.abs().max())


@given(st.integers(0, 2**32))
def test_shrinkage_is_monotone_in_lam(seed):
    factors = factor(*table(seed, 10, 15))
    norms = [float(solve(factors, lam).w.norm()) for lam in (0.0, 1e-3, 1e-1, 10.0, 1e3)]
    assert all(b < a for a, b in itertools.pairwise(norms))


def test_the_limits_are_the_pseudoinverse_and_the_mean():
    X, y = table(3, 10, 25)
    w = np.linalg.pinv((X - X.mean(0)).numpy()) @ (y - y.mean()).numpy()
    assert relative(solve(factor(X, y), 0.0).w, w) < 1e-12
    far = solve(factor(X, y), 1e12)
    assert float(far.w.abs().max()) < 1e-10
    assert float(far.b) == pytest.approx(float(y.mean()), rel=1e-9)


def test_least_loo_is_the_least_on_its_range():
    X, y = table(4, 30, 8)
    best = least_loo(factor(X, y))
    nearby = loo_errors(factor(X, y), best.lam * torch.tensor([0.25, 0.5, 2.0, 4.0], dtype=torch.float64))
    assert bool((nearby > best.error).all())
    assert best.error == pytest.approx(oracles.leave_one_out(X.numpy(), y.numpy(), best.lam), rel=1e-9)
    assert not best.at_edge


def test_least_loo_says_when_it_sits_on_an_edge():
    """Without noise, the less decay the better."""
    X, y = table(5, 30, 8)
    assert least_loo(factor(X, X.sum(1))).at_edge
    assert not least_loo(factor(X, y)).at_edge
