"""Some seeded cases of the random ridge paths; `python -m tests.fuzz ridge --seconds N` draws more."""

import pytest
from tests.fuzz.outcome import outcome
from tests.fuzz.ridge import case

CASES = 160


@pytest.mark.parametrize("seed", range(0, CASES, 20))
def test_random_paths(seed):
    """Nothing wrong in twenty of them."""
    wrong = {one: found for one in range(seed, seed + 20) if (found := outcome(case, one))}
    assert not wrong, "\n".join(f"case {one}: {found}" for one, found in wrong.items())
