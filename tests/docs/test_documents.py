"""What the documents say is so: their code runs, and the two languages are in step."""

import ast
import re
import runpy
import shutil
import sys
import types
from pathlib import Path

import matplotlib as mpl
import pytest
import typer.testing
from IPython.core.interactiveshell import InteractiveShell

from weightdecay.cli import app
from weightdecay.rules import base
from weightdecay.textbook.versions import VERSIONS

ROOT = Path(__file__).parents[2]
readme = types.SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("readme.py"))))
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in readme.NAMES)
LINK = re.compile(r'(?:\]\(|<img src=")((?!http)[^)#"]+)(?:#[^)]*)?[)"]')


@pytest.fixture
def somewhere(tmp_path, monkeypatch):
    """A folder that looks like a checkout to a reader of the README."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    return tmp_path


def test_the_readme_s_blocks_print_what_is_shown(somewhere):
    """In English; the Chinese one has the same code, comments aside, and the same output."""
    names = {}
    for language, code, shown in readme.blocks(ENGLISH):
        printed = readme.run(language, code, names)
        assert shown is None or readme.differs(shown, printed, language == "python") is None, (code, printed)
    for ours, theirs in zip(readme.blocks(ENGLISH), readme.blocks(CHINESE), strict=True):
        assert (ours[0], ours[2]) == (theirs[0], theirs[2])
        if ours[0] == "python":
            assert ast.dump(ast.parse(ours[1])) == ast.dump(ast.parse(theirs[1]))
        else:
            assert readme.commands(ours[1]) == readme.commands(theirs[1])


@pytest.mark.parametrize(
    ("shown", "ends", "missing"),
    [
        ("a 1.00\nb\nc 2\n", True, None),
        ("a 1.01\nb\nc 2\n", True, None),
        ("a 1.1\nb\nc 2\n", True, "a 1.1"),
        ("a 1\nc 2\n", True, "c 2"),
        ("a 1\n…\nc 2\n", True, None),
        ("a 1\nb\n", True, "c 2"),
        ("a 1\nb\n…\n", True, "c 2"),
        ("b\n", False, None),
        ("b\nd\n", False, "d"),
    ],
)
def test_an_output_that_is_not_so_is_found(shown, ends, missing):
    assert readme.differs(shown, "a 1.00\nb\nc 2\n", ends) == missing


def test_an_output_is_written_anew_where_it_was_cut():
    printed = "late\nλ 1\nλ 2\nb 30\nend\n"
    assert readme.refreshed("λ 5\nλ 6\n…\n", printed, ends=False) == "λ 1\nλ 2\n…\n"
    assert readme.refreshed("λ 5\nb 6\nc 1\n", printed, ends=False) == "λ 1\nb 30\n??? c 1\n"
    assert readme.refreshed("c 1\n", printed) == printed


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=readme.NAMES)
def test_the_readme_is_read_in_a_minute(text):
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200
    assert len(readme.blocks(text)) >= 5
    links = LINK.findall(text)
    assert len(links) > 15
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_readmes_are_in_step():
    for pattern in (r"^#+ ", r"^\|", r"^- ", r"^```"):
        assert len(re.findall(pattern, ENGLISH, re.MULTILINE)) == len(
            re.findall(pattern, CHINESE, re.MULTILINE)
        )
    plain = [{link.replace(".zh", "") for link in LINK.findall(text)} for text in (ENGLISH, CHINESE)]
    assert plain[0] == plain[1]
    english, chinese = (re.findall(r"\d+\.\d+", text) for text in (ENGLISH, CHINESE))
    assert english == chinese  # the same figures, in the same order


def test_a_package_index_gets_absolute_links(monkeypatch):
    interface = types.ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", interface)
    absolute = runpy.run_path(str(ROOT / "hatch_build.py"))["absolute"]
    text = absolute(ENGLISH, "https://code.example/weightdecay/")
    assert not LINK.findall(text)
    assert "(https://code.example/weightdecay/blob/HEAD/docs/howto/choose.md#how-strong)" in text
    assert '<img src="https://code.example/weightdecay/raw/HEAD/docs/pictures/lambda-0-and-3.png"' in text
    bare = absolute(ENGLISH, None)
    assert not LINK.findall(bare)
    assert "<img" not in bare
    assert "refused, with the reason" in bare


def test_the_picture_is_what_the_command_draws(somewhere):
    command = "textbook --version scratch --curve none --quiet --out runs/picture"
    assert typer.testing.CliRunner().invoke(app, command.split()).exit_code == 0
    drawn, kept = (
        mpl.image.imread(path)[..., :3]
        for path in ("runs/picture/curves.png", ROOT / "docs/pictures/lambda-0-and-3.png")
    )
    assert drawn.shape == kept.shape
    assert abs(drawn - kept).mean() < 0.02  # other fonts


def test_the_page_of_the_textbook_names_every_version():
    for page in ("textbook.md", "textbook.zh.md"):
        text = (ROOT / "docs/howto" / page).read_text(encoding="utf-8")
        for name in VERSIONS:
            assert f"| `{name}` |" in text


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


def entries(page):
    """The pages in the navigation of a home page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in found for line in block.splitlines() if line and not line.startswith(":")]
    return [line.split("<")[-1].rstrip(">") for line in lines]


def test_both_trees_have_the_same_pages():
    translated = [name for name in entries("index.md") if (ROOT / f"docs/{name}.zh.md").exists()]
    assert {f"{name}.zh" for name in translated} == {
        name for name in entries("index.zh.md") if name.endswith(".zh")
    }
    assert {name.removesuffix(".zh") for name in entries("index.zh.md")} == set(entries("index.md"))


@pytest.mark.parametrize("path", sorted((ROOT / "docs/howto").glob("*.md")), ids=lambda path: path.name)
def test_a_how_to_begins_with_what_most_people_need(path):
    """Before its first section: a few lines of code."""
    beginning = path.read_text(encoding="utf-8").split("\n## ")[0]
    found = re.findall(
        r"^```(?:python|console|\{code-cell\}.*?)\n(.*?)^```$", beginning, re.MULTILINE | re.DOTALL
    )
    shown = [code for code in found if "remove-" not in code]
    assert shown
    assert len([line for line in shown[0].splitlines() if line.strip()]) <= 9


@pytest.mark.parametrize(
    "page",
    ["tutorials/textbook", "howto/textbook", "howto/choose", "howto/own-rule", "howto/from-sklearn-glmnet"],
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
