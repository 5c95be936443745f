"""What users of other projects reported is found, in the parameters it is about; once mended, it is not."""

from fnmatch import fnmatchcase

import pytest
import torch
from tests.peers import good_configurations, issue_builders

from weightdecay.auditing.run import audit, audit_diff

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # the other libraries' own warnings


@pytest.fixture(autouse=True, scope="module")
def libraries():
    for name in ("transformers", "peft", "pytorch_optimizer"):
        pytest.importorskip(name)


def audited(builder, mended=False):
    """The audit of what a builder makes."""
    torch.manual_seed(0)
    model, optimizers, *settings = builder(mended)
    several = optimizers if isinstance(optimizers, list) else [optimizers]
    return audit(model, *several, **(settings[0] if settings else {}))


def codes(found):
    return {finding.code for finding in found.findings}


@pytest.mark.parametrize("issue", issue_builders.ISSUES)
def test_a_reported_bug_is_found(issue):
    builder, wanted, pattern = issue_builders.ISSUES[issue]
    found = audited(builder)
    assert wanted <= codes(found), found
    for code in wanted:
        names = [name for one in found.findings if one.code == code for name in one.parameters]
        assert names or pattern == "*"
        assert all(fnmatchcase(name, pattern) for name in names), (code, names)
    assert not wanted & codes(audited(builder, mended=True))


def test_a_refactor_that_changes_who_decays_is_a_difference(tmp_path):
    """Fast-LLM#542 again: the plan of before, kept in the repository, says what changed."""
    before = audited(issue_builders.renamed_in_a_refactor, mended=True)
    before.save(tmp_path / "plan.json")
    after = audited(issue_builders.renamed_in_a_refactor)
    difference = audit_diff(tmp_path / "plan.json", after)
    changed = {change.parameter for change in difference.changes if change.field == "weight_decay"}
    assert changed == {one.name for one in after.parameters if "norm" in one.name}
    assert {finding.code for finding in difference.findings} == {"WD601"}
    assert not audit_diff(tmp_path / "plan.json", before).changes


@pytest.mark.parametrize("name", good_configurations.GOOD)
def test_a_good_configuration_has_no_error_and_no_warning(name):
    model, optimizers, settings = good_configurations.GOOD[name]()
    found = audit(model, *optimizers, **settings)
    assert {one.severity for one in found.findings} <= {"info"}, found
    found.check()
