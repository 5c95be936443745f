import pytest
import torch

from weightdecay.ridge.lambdas import axis, carried, sums_of_squares, whole


@pytest.mark.parametrize(("low", "high"), [(1.0, 34.0), (1e-3, 1e3), (1e-8, 1e4)])
@pytest.mark.parametrize("length", [40, 100, 1000])
def test_any_held_out_error_is_known_from_its_pivots(low, high, length):
    """Within 1e-12 of the largest coefficient, at eigenvalues the choice has not seen."""
    alphas = high * torch.logspace(-8, 2, length, dtype=torch.float64)
    grid = axis(torch.tensor([low, high], dtype=torch.float64), alphas)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(500, generator=generator, dtype=torch.float64)
    s = low * (high / low) ** uniform[:, None]
    f = 0.3 - s / (s + alphas)
    assert len(grid.pivots) < min(length, 70)
    assert float((f[:, grid.pivots] @ grid.T - f).abs().max()) < 1e-12


def test_short_grids_and_no_eigenvalues_are_left_as_they_are():
    alphas = torch.logspace(-2, 2, 5, dtype=torch.float64)
    assert len(axis(torch.ones(3), alphas).pivots) == 5
    many = torch.logspace(-2, 2, 50, dtype=torch.float64)
    assert len(axis(torch.zeros(3), many).pivots) == 50


@pytest.mark.parametrize("spread", [1.0, 1e-7])
def test_sums_of_squares_are_those_of_all_errors(spread):
    """An error is known to 1e-13 of its largest over λ, and the sums are as right as that allows."""
    alphas = torch.logspace(-6, 4, 300, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    s = 10 ** torch.rand(40, generator=generator, dtype=torch.float64)
    a = torch.randn(60, 2, 40, generator=generator, dtype=torch.float64)
    every = torch.einsum("nts,sl->ltn", a, alphas / (s[:, None] + alphas))
    every[:, 1] += spread
    grid = axis(s, alphas)
    found = sums_of_squares(every[grid.pivots].contiguous(), grid)
    expected = (every**2).sum(2)
    bound = 2e-13 * (every.abs().amax(0) * every.abs()).sum(2) + 1e-12 * expected
    assert bool(((found - expected).abs() <= bound).all())
    assert torch.allclose(sums_of_squares(every.contiguous(), whole(alphas)), expected, rtol=1e-13, atol=0)


def test_errors_are_carried_to_chosen_places(monkeypatch):
    monkeypatch.setattr("weightdecay.ridge.lambdas.CHUNK", 100)
    alphas = torch.logspace(-3, 3, 120, dtype=torch.float64)
    s = torch.tensor([1.0, 2.0, 30.0], dtype=torch.float64)
    every = (alphas[:, None, None] / (alphas[:, None, None] + s)).expand(-1, 2, -1).contiguous()
    grid = axis(s, alphas)
    places = torch.tensor([0, 17, 118])
    pieces = list(carried(every[grid.pivots], grid, places))
    assert torch.equal(torch.cat([where for where, _ in pieces]), places)
    assert torch.allclose(torch.cat([errors for _, errors in pieces]), every[places], rtol=0, atol=1e-12)
