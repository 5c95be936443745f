"""What the documents say is so: their code runs, and the two languages are in step."""

import ast
import re
import shutil
from pathlib import Path

import matplotlib as mpl
import pytest
import typer.testing
from IPython.core.interactiveshell import InteractiveShell

from weightdecay.cli import app
from weightdecay.rules import base
from weightdecay.textbook.versions import VERSIONS

ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text):
    lines = [line.split("#")[0].split() for block in blocks(text, "sh") for line in block.splitlines()]
    return [line for line in lines if line and line[0] == "weightdecay"]


@pytest.fixture
def somewhere(tmp_path, monkeypatch):
    """A folder that looks like a checkout to a reader of the README."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    return tmp_path


def test_the_readme_s_commands_run(somewhere):
    assert len(commands(ENGLISH)) >= 6
    for command in commands(ENGLISH):
        result = typer.testing.CliRunner().invoke(app, command[1:])
        assert result.exit_code == 0, (command, result.output, result.exception)


def test_the_readme_s_python_runs(somewhere, capsys):
    """In English, and in Chinese what differs by more than comments."""
    english, chinese = (blocks(text, "python") for text in (ENGLISH, CHINESE))
    assert english
    for block in english:
        exec(compile(block, "README", "exec"), {})
    assert "λ = 3" in capsys.readouterr().out
    assert (somewhere / "runs/mine/run.json").exists()
    shutil.rmtree(somewhere / "runs/mine")
    for block, other in zip(english, chinese, strict=True):
        if ast.dump(ast.parse(block)) != ast.dump(ast.parse(other)):
            exec(compile(other, "README.zh", "exec"), {})
    assert "λ = 3" in capsys.readouterr().out
    assert (somewhere / "runs/mine/run.json").exists()


def test_the_readmes_are_in_step():
    assert commands(ENGLISH) == commands(CHINESE)
    for pattern in (r"^#+ ", r"^\|", r"^```"):
        assert len(re.findall(pattern, ENGLISH, re.MULTILINE)) == len(
            re.findall(pattern, CHINESE, re.MULTILINE)
        )
    for text in (ENGLISH, CHINESE):
        for name in VERSIONS:
            assert f"| `{name}` |" in text
        assert re.findall(r"\]\(((?!http)[^)#]+)\)", text)
        for link in re.findall(r"\]\(((?!http)[^)#]+)\)", text):
            assert (ROOT / link).exists(), link
    # the same figures, in the same order
    english, chinese = (re.findall(r"\d+\.\d+", text) for text in (ENGLISH, CHINESE))
    assert english == chinese


def cells(page):
    """The code cells of a text notebook, without their options."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r"^:.*\n", "", cell, flags=re.MULTILINE) for cell in found]


def test_both_languages_have_the_same_cells():
    docs = ROOT / "docs"
    pages = [path for path in docs.rglob("*.zh.md") if "_build" not in path.parts]
    assert len(pages) > 40
    for chinese in pages:
        page = str(chinese.relative_to(docs)).removesuffix(".zh.md")
        assert cells(f"{page}.md") == cells(f"{page}.zh.md"), page


@pytest.mark.parametrize(
    "page", ["tutorials/textbook", "howto/choose", "howto/own-rule", "howto/from-sklearn-glmnet"]
)
def test_the_pages_run(page, somewhere, monkeypatch):
    """As in a notebook, magics and all; `make docs` also draws them. The Chinese ones have the same cells."""
    assert cells(f"{page}.md") == cells(f"{page}.zh.md")
    monkeypatch.setattr(base, "RULES", dict(base.RULES))  # a page's own rules go when it ends
    shell = InteractiveShell.instance()
    shell.reset()
    for cell in cells(f"{page}.md"):
        shell.run_cell(cell).raise_error()
    assert mpl.pyplot.get_fignums()
    mpl.pyplot.close("all")
