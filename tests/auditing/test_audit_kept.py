"""Ignoring, saving, loading and comparing audits."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn, optim

import weightdecay as wd
from weightdecay.auditing.checks import CODES, COST
from weightdecay.auditing.run import Change, audit, audit_diff
from weightdecay.errors import FindingsError, InputError
from weightdecay.saving import load


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def one_group(model, weight_decay=0.1):
    return optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)


def test_a_code_is_ignored_with_its_reason_and_kept():
    model = small()
    found = audit(model, one_group(model), ignore={"WD102": "a recipe"})
    assert [one.code for one in found.findings] == ["WD101"]
    (quiet,) = found.ignored
    assert (quiet.finding.code, quiet.reason) == ("WD102", "a recipe")
    assert len(quiet.finding.parameters) == 3


@pytest.mark.parametrize("ignore", [["WD101", "WD102:0.*"], "WD101,WD102:0.*", ("WD102:0.*", "WD101")])
def test_a_pattern_takes_out_what_it_covers_and_the_rest_is_counted_anew(ignore):
    model = small()
    found = audit(model, one_group(model), ignore=ignore)
    (left,) = found.findings
    assert (left.code, left.parameters) == ("WD102", ("1.bias", "2.bias"))
    assert left.message == "2 biases decay"
    quiet = {one.finding.code: one.finding for one in found.ignored}
    assert quiet["WD102"].parameters == ("0.bias",)
    assert quiet["WD102"].message == "1 bias decays"
    assert not audit(model, one_group(model), ignore="WD101,WD102:*").findings


@pytest.mark.parametrize(
    ("ignore", "said"),
    [
        (["WD999"], "no such code"),
        ("norms", "no such code"),
        (["WD101:"], "a pattern is missing"),
        ([101], "not a code"),
        ({"WD101": None}, "not a code"),
        (7, "not codes"),
    ],
)
def test_what_cannot_be_ignored(ignore, said):
    model = small()
    with pytest.raises(InputError, match=said):
        audit(model, one_group(model), ignore=ignore)


def test_check_raises_with_all_errors_and_only_then():
    model = small()
    audit(model, one_group(model)).check()  # warnings only
    stray = optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    found = audit(model, stray)
    assert [one.code for one in found.errors] == ["WD201", "WD203"]
    with pytest.raises(FindingsError, match="WD201") as raised:
        found.check()
    assert raised.value.findings == found.errors


def test_an_audit_comes_back_from_its_file_as_it_was(tmp_path):
    model = small()
    model[2].bias.requires_grad_(False)
    found = audit(model, optim.Adam(model.parameters(), weight_decay=0.1), steps=100, ignore={"WD301": "why"})
    back = load(found.save(tmp_path / "plan.json"))
    assert back == found
    assert str(back) == str(found)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plan: {},
        lambda plan: [],
        lambda plan: {**plan, "format": "another"},
        lambda plan: {name: value for name, value in plan.items() if name != "findings"},
        lambda plan: {**plan, "parameters": [{"name": "weight"}]},
        lambda plan: {**plan, "parameters": 3},
    ],
)
def test_a_file_that_is_no_audit(tmp_path, spoil):
    model = small()
    file = audit(model, one_group(model)).save(tmp_path / "plan.json")
    file.write_text(json.dumps(spoil(json.loads(file.read_text()))))
    with pytest.raises(InputError, match=r"plan\.json"):
        load(file)


def test_the_same_plan_has_no_difference_even_through_a_file_a_wrapper_and_other_groups(tmp_path):
    model = small()
    plan = audit(model, optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3)).save(tmp_path / "plan.json")
    parts = [{"params": [p], "weight_decay": 0.1 * (p.ndim == 2)} for p in reversed(list(model.parameters()))]
    other = audit(torch.compile(model, backend="eager"), optim.AdamW(parts, lr=3e-4), steps=7)
    difference = audit_diff(plan, other)
    assert difference.changes == difference.findings == ()
    difference.check()
    assert str(difference) == "the plan is the same"


def test_every_kind_of_change_is_told(tmp_path):
    model = small()
    plan = audit(model, optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3))
    model[2].weight.requires_grad_(False)
    model.append(nn.Linear(2, 2, bias=False))
    model[1] = nn.Identity()
    now = audit(model, optim.Adam(wd.param_groups(model, 0.2), lr=1e-3))
    difference = audit_diff(plan, now)
    changes = {(one.parameter, one.field): (one.old, one.new) for one in difference.changes}
    assert changes["0.weight", "weight_decay"] == (0.1, 0.2)
    assert changes["0.weight", "form"] == ("decoupled", "sign-normalised")
    assert changes["2.weight", "frozen"] == (False, True)
    assert changes["3.weight", "parameter"][0] is None
    assert changes["1.weight", "parameter"][1] is None
    assert Change("1.bias", "parameter", "bias, weight_decay 0", None) in difference.changes
    assert {(one.code, one.severity) for one in difference.findings} == {("WD601", "error")}
    assert "0.1 -> 0.2" in str(difference.findings)
    with pytest.raises(FindingsError):
        difference.check()


def test_what_is_no_audit_cannot_be_compared(tmp_path):
    with pytest.raises(InputError, match="not an audit"):
        audit_diff(3, 4)
    with pytest.raises(InputError, match="cannot be read"):
        audit_diff(tmp_path / "none.json", tmp_path / "none.json")


def test_codes_are_stable():
    assert list(CODES) == [
        *(f"WD10{i}" for i in range(1, 9)),
        *(f"WD20{i}" for i in range(1, 8)),
        *(f"WD30{i}" for i in range(1, 8)),
        *(f"WD40{i}" for i in range(1, 7)),
        *(f"WD50{i}" for i in range(1, 7)),
        "WD601",
    ]


def test_every_code_has_its_place_by_cost():
    """Within a severity, an error of the numbers before a question; and no code is forgotten."""
    assert sorted(COST) == sorted(CODES)
    assert COST.index("WD504") < COST.index("WD304") < COST.index("WD301") < COST.index("WD303")


def test_the_page_of_an_audit_with_a_code_of_another_version(tmp_path):
    model = nn.Linear(4, 3)
    audit = wd.audit(model, optim.AdamW(model.parameters(), lr=1e-3))
    unknown = replace(audit.findings[0], code="WD999", message="something new")
    file = replace(audit, findings=(unknown,)).save(tmp_path / "plan.json")
    page = wd.report(load(file), tmp_path / "page.html")
    assert "something new" in page.read_text(encoding="utf-8")
