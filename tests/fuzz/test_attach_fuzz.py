"""Some random lives of an optimizer with an attached rule: `python -m tests.fuzz attach` runs more."""

import pytest
from tests.fuzz.attach import case
from tests.fuzz.outcome import outcome


@pytest.mark.parametrize("seed", range(30))
def test_case(seed):
    assert outcome(case, seed) is None
