"""Each finding has its page in two languages, whose code triggers it and then does not; the how-to runs."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import typer.testing

from weightdecay.auditing.checks import CODES
from weightdecay.cli import app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/audit"
listed = runpy.run_path(str(ROOT / "docs" / "findings.py"))["listed"]  # as it is in the documentation
SEVERITIES = {"error": "错误", "warning": "警告", "info": "提示"}


def page(path):
    return (ROOT / "docs" / path).read_text(encoding="utf-8")


def blocks(text, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(source, names):
    exec(compile(source, "page", "exec"), names)


def codes(audit):
    return {finding.code for finding in audit.findings}


def test_every_code_has_its_pages_and_no_page_is_without_code():
    assert {path.name for path in FOLDER.glob("WD*.md")} == {
        f"{code}{language}.md" for code in CODES for language in ("", ".zh")
    }


@pytest.mark.parametrize("code", CODES)
def test_the_code_of_a_page_triggers_it_and_then_does_not(code):
    first, then = blocks(page(f"audit/{code}.md"))
    names: dict = {}
    run(first, names)
    assert code in codes(names["audit"]), names["audit"]
    found = [one for one in names["audit"].findings if one.code == code]
    severity = re.search(r"^Severity: (\w+)\.$", page(f"audit/{code}.md"), re.MULTILINE)
    assert severity
    assert {one.severity for one in found} == {severity[1]}
    assert all(one.message and one.fix for one in found)
    run(then, names)
    assert code not in codes(names["audit"]), names["audit"]


@pytest.mark.parametrize("code", CODES)
def test_the_two_languages_are_in_step(code):
    english, chinese = page(f"audit/{code}.md"), page(f"audit/{code}.zh.md")
    assert blocks(english) == blocks(chinese)
    assert len(re.findall(r"^#", english, re.MULTILINE)) == len(re.findall(r"^#", chinese, re.MULTILINE))
    severity = re.search(r"^Severity: (\w+)\.$", english, re.MULTILINE)
    assert severity
    assert f"\n严重程度：{SEVERITIES[severity[1]]}。\n" in chinese


@pytest.mark.parametrize("language", ["", ".zh"])
def test_the_index_lists_every_code_with_its_severity(language):
    text = listed(page(f"audit/index{language}.md"), language)
    for code in CODES:
        severity = re.search(r"^Severity: (\w+)\.$", page(f"audit/{code}.md"), re.MULTILINE)
        assert severity
        shown = SEVERITIES[severity[1]] if language else severity[1]
        assert f"| [{code}]({code}{language}.md) | {shown} |" in text
        assert f"\n{code}{language}\n" in text  # the table of contents


def test_what_the_index_ignores_is_kept_with_its_reason():
    names: dict = {}
    run(blocks(page("audit/WD105.md"))[0], names)
    (block,) = blocks(page("audit/index.md"))
    assert [block] == blocks(page("audit/index.zh.md"))
    several = [eval(line, names) for line in block.splitlines()]
    assert ["WD105" in codes(audit) for audit in several] == [False, True, False]
    assert "part of the recipe" in str(several[2])


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """Where a project may be written and imported from; its modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in [name for name in set(sys.modules) - before if name.startswith("mypackage")]:
        del sys.modules[name]


def test_the_how_to_runs(empty_folder):
    """Its builder, its commands one after another, its test; a refactor then makes the last command fail."""
    text = page("howto/audit-in-ci.md")
    chinese = page("howto/audit-in-ci.zh.md")
    for kind in ("python", "console", "yaml"):
        pairs = zip(blocks(text, kind), blocks(chinese, kind), strict=True)
        assert all(kind == "console" or ours == theirs for ours, theirs in pairs)
    shown = [re.findall(r"^\$ ([^#\n]*?) *(?:#.*)?$", one, re.MULTILINE) for one in (text, chinese)]
    assert shown[0] == shown[1]
    builder, test = blocks(text)
    (empty_folder / "mypackage").mkdir()
    (empty_folder / "mypackage/train.py").write_text(builder, encoding="utf-8")
    lines = [line for block in blocks(text, "console") for line in block.splitlines()]
    lines += [line.split("run:")[1] for line in text.splitlines() if "run: weightdecay" in line]
    lines += [line.split("entry:")[1] for line in text.splitlines() if "entry: weightdecay" in line]
    commands = [line.split("#")[0].strip("$ ").split() for line in lines if "weightdecay audit" in line]
    assert len(commands) == 8
    for _, *command in commands:
        result = typer.testing.CliRunner().invoke(app, command)
        assert result.exit_code == 0, (command, result.output, result.exception)
    names: dict = {}
    run(builder, names)
    run(test, names)
    names["test_the_decay_is_the_one_we_meant"]()
    one_group = builder.replace("wd.param_groups(model, weight_decay=0.1)", "model.parameters()")
    assert one_group != builder
    (empty_folder / "mypackage/other.py").write_text(one_group, encoding="utf-8")
    command = ["audit", "mypackage.other:build", "--against", "plan.json", "--format", "github"]
    result = typer.testing.CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "WD601" in result.output


def test_the_hook_is_the_command():
    text = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    assert "id: weightdecay-audit" in text
    assert "entry: weightdecay audit\n" in text
    assert "pass_filenames: false" in text
