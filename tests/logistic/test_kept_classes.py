"""What the first version wrote of classes still loads, with its numbers."""

import json
from pathlib import Path

import pytest
from tests.logistic.kept.make_kept_classes import numbers

import weightdecay as wd

KEPT = Path(__file__).parent / "kept"


@pytest.mark.parametrize("kind", ["path", "model"])
def test_what_the_first_version_wrote_gives_its_numbers(kind):
    then = json.loads((KEPT / "numbers.json").read_text(encoding="utf-8"))[kind]
    again = numbers(wd.load(KEPT / kind))
    assert len(again) == len(then)
    for now, before in zip(again, then, strict=True):
        assert _flat(now) == pytest.approx(_flat(before), rel=1e-12)


def _flat(values):
    return [one for value in values for one in _flat(value)] if isinstance(values, list) else [values]
