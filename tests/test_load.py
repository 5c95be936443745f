"""Results on disk: what the first version wrote is read for ever."""

import json
from pathlib import Path

import pytest
from tests.kept.make import numbers

import weightdecay as wd

KEPT = Path(__file__).parent / "kept"
KINDS = json.loads((KEPT / "numbers.json").read_text())
LOADERS = {
    **{"path": wd.load_path, "model": wd.load_model, "sweep": wd.load_sweep, "textbook": wd.load_run},
    **{"monitor": wd.load_monitored, "audit": wd.load_audit},
}


def flat(values):
    """All that a nested list holds."""
    if not isinstance(values, list):
        return [values]
    return [one for value in values for one in flat(value)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_first_version_wrote_gives_its_numbers(kind):
    result = LOADERS[kind](KEPT / ("audit.json" if kind == "audit" else kind))
    again, then = flat(numbers(kind, result)), flat(KINDS[kind])
    assert len(again) == len(then) > 5
    for now, before in zip(again, then, strict=True):
        assert (
            now == pytest.approx(before, rel=1e-12, nan_ok=True)
            if isinstance(before, float)
            else now == before
        )
