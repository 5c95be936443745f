"""Golden audits: role and strength of every parameter of many architectures, against a table by hand."""

from fnmatch import fnmatchcase

import pytest
import torch
from tests.peers.architecture_roles import LETTERS, ROLES, lines
from tests.peers.architectures import BUILDERS

import weightdecay as wd
from weightdecay.auditing.run import audit

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # the other libraries' own warnings
DECAYING = {"matrix", "convolution", "head"}


@pytest.fixture(autouse=True, scope="module")
def libraries():
    for name in ("transformers", "peft", "pytorch_optimizer"):
        pytest.importorskip(name)


def wanted(architecture, parameter):
    """The role that the table gives a name, and whether the model exempts it."""
    letter = next(letter for letter, pattern in lines(architecture)[0] if fnmatchcase(parameter, pattern))
    return LETTERS[letter.lower()], letter.isupper()


def codes(found, severity=None):
    return {finding.code for finding in found.findings if severity in (None, finding.severity)}


def named(found, code):
    return {name for finding in found.findings if finding.code == code for name in finding.parameters}


def test_there_are_many_and_each_has_a_table():
    assert list(ROLES) == list(BUILDERS)
    assert len(BUILDERS) >= 30


@pytest.mark.parametrize("architecture", BUILDERS)
def test_roles_and_strengths_are_those_of_the_table(architecture):
    model = BUILDERS[architecture]()
    found = audit(model, torch.optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3))
    rules, tied = lines(architecture)
    assert [one.name for one in found.parameters] == [name for name, _ in model.named_parameters()]
    for one in found.parameters:
        role, exempt = wanted(architecture, one.name)
        assert one.role == role, one
        assert one.weight_decay == (0.1 if role in DECAYING and not exempt else 0.0), one
    for letter, pattern in rules:
        assert any(fnmatchcase(one.name, pattern) for one in found.parameters), (letter, pattern)
    several = [{one.name, *one.aliases} for one in found.parameters if set(one.aliases) - {one.name}]
    assert sorted(map(sorted, several)) == sorted(map(sorted, tied))
    assert not codes(found, "error"), found
    assert not codes(found, "warning"), found


@pytest.mark.parametrize("architecture", BUILDERS)
def test_one_group_for_all_is_told_parameter_by_parameter(architecture):
    model = BUILDERS[architecture]()
    found = audit(model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1))
    truth = {name: wanted(architecture, name) for name, _ in model.named_parameters()}
    assert named(found, "WD101") == {name for name, (role, _) in truth.items() if role == "normalization"}
    assert named(found, "WD102") == {name for name, (role, _) in truth.items() if role == "bias"}
    assert named(found, "WD107") == {name for name, (_, exempt) in truth.items() if exempt}
    assert named(found, "WD108") == {
        name for name, (role, exempt) in truth.items() if role == "other" and not exempt
    }
    assert not named(found, "WD103")
    assert not codes(found, "error"), found
