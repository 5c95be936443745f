"""A fixed number of the fuzz program's cases; `python -m tests.fuzz sweeps --seconds N` runs more."""

import pytest
from tests.fuzz.outcome import outcome
from tests.fuzz.sweeps import case


@pytest.mark.parametrize("seed", range(40))
def test_case(seed):
    wrong = outcome(case, seed)
    assert wrong is None, wrong
