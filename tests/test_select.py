import pytest
import torch

from weightdecay.select import choose


@pytest.mark.parametrize(
    ("scores", "error", "expected"),
    [
        ([9, 4, 3, 3.5, 8], 0.6, {"best": 2, "one_se": 3, "low": 2, "high": 3, "edge": None, "flat": False}),
        ([9, 4, 3, 3.5, 8], 0.0, {"best": 2, "one_se": 2, "low": 2, "high": 2}),
        ([1, 2, 3], 0.5, {"best": 0, "one_se": 0, "edge": "low", "flat": False}),
        ([3, 2, 1], 1.0, {"best": 2, "one_se": 2, "low": 1, "edge": "high"}),
        ([2, 2, 2], 0.1, {"best": 2, "one_se": 2, "low": 0, "high": 2, "edge": "high", "flat": True}),
        # Beyond a hill the curve may come back: one standard error reaches there, the range around does not.
        ([3, 1, 9, 1.5, 9], 0.6, {"best": 1, "one_se": 3, "low": 1, "high": 1}),
        ([1.0], 0.1, {"best": 0, "edge": None, "flat": True}),
        ([float("inf"), 2, 1, 5], 0.1, {"best": 2, "low": 2, "flat": False}),
    ],
)
def test_choices(scores, error, expected):
    found = choose(torch.tensor(scores, dtype=torch.float64), torch.full((len(scores),), error))
    assert {name: getattr(found, name) for name in expected} == expected


def test_the_standard_error_is_that_of_the_least_score():
    found = choose(torch.tensor([3.0, 1.0, 1.5, 2.5]), torch.tensor([9.0, 0.6, 9.0, 9.0]))
    assert (found.best, found.one_se) == (1, 2)
