"""Results on disk: what the first version wrote is read for ever; what is none is refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.kept.make_kept import numbers

import weightdecay as wd
from weightdecay.saving import KINDS

KEPT = Path(__file__).parent / "kept"
NUMBERS = json.loads((KEPT / "numbers.json").read_text())


def flat(values):
    """All that a nested list holds."""
    if not isinstance(values, list):
        return [values]
    return [one for value in values for one in flat(value)]


def agree(kind, result):
    again, then = flat(numbers(kind, result)), flat(NUMBERS[kind])
    assert len(again) == len(then) > 5
    for now, before in zip(again, then, strict=True):
        assert now == (pytest.approx(before, rel=1e-12, nan_ok=True) if isinstance(before, float) else before)


@pytest.mark.parametrize("kind", NUMBERS)
def test_what_the_first_version_wrote_gives_its_numbers(kind, tmp_path):
    result = wd.load(KEPT / ("audit.json" if kind == "audit" else kind))
    agree(kind, result)
    folder = tmp_path / ("plan.json" if kind == "audit" else kind)
    result.save(folder)
    agree(kind, wd.load(folder))


def test_a_folder_of_a_path_and_a_model_gives_both(tmp_path):
    for kind in ("model", "path"):
        shutil.copytree(KEPT / kind, tmp_path, dirs_exist_ok=True)
    agree("path", wd.load(tmp_path))
    agree("path", wd.load(tmp_path / "path.json"))
    agree("model", wd.load(tmp_path / "model.json"))


@pytest.mark.parametrize("record", KINDS)
def test_another_kind_or_version_is_named_with_its_path(record, tmp_path):
    kind, file = KINDS[record], tmp_path / record
    file.write_text(json.dumps({"kind": "novel", "version": 3}))
    with pytest.raises(wd.InputError) as raised:
        wd.load(tmp_path)
    assert f"not {kind.noun}: {file} = novel, version 3" in str(raised.value)
    file.write_text(json.dumps({"kind": kind.name, "version": 2}))
    with pytest.raises(wd.InputError) as raised:
        wd.load(tmp_path)
    assert f"written by another version: {kind.noun}, {file} = 2;" in str(raised.value)
    file.write_text(json.dumps(kind.about))
    with pytest.raises(wd.InputError, match="a field is missing or wrong"):
        wd.load(tmp_path)


def test_an_audit_of_another_version_is_named(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"format": "weightdecay audit, version 2"}))
    with pytest.raises(wd.InputError, match=r"another version: a saved audit, .*plan\.json = 2"):
        wd.load(file)


def test_a_folder_without_a_result_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "nothing", tmp_path / ("long" * 100), tmp_path / "a\0b"):
        with pytest.raises(wd.InputError, match="no record of a run") as raised:
            wd.load(path)
        assert raised.value.where == str(path)
    with pytest.raises(wd.InputError, match="a file cannot be read"):
        wd.load(tmp_path / ("long" * 100 + ".json"))


@pytest.mark.parametrize("name", ["run.json", "path.json", "model.json", "plan.json", "plan"])
def test_an_audit_has_a_file_of_any_name(tmp_path, name):
    model = torch.nn.Linear(2, 1)
    audit = wd.audit(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert wd.load(audit.save(tmp_path / name)) == audit


def test_what_is_no_path_is_refused():
    with pytest.raises(wd.InputError, match=r"not a path: folder = None; give a folder"):
        wd.load(None)
