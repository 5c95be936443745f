"""The pages that say where things are name files and functions that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "weightdecay"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
CHANGES = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("| change |")[2]


def defined(file):
    tree = ast.parse(file.read_text("utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} | {
        node.name for node in classes
    }
    return names | {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in ast.walk(node)
        if isinstance(target, ast.Name)
    }


@pytest.mark.parametrize("step", re.findall(r"^\d+\. (`.*)", ARCHITECTURE, re.M))
def test_each_step_of_a_walk_is_there(step):
    file, name = re.match(r"`([\w/]+\.py)`(?:(?:,| or|, or)? ?`?.*?· `(\w+)`)?", step).groups()
    assert (SRC / file).is_file()
    assert name is None or name in defined(SRC / file)


def test_every_folder_is_described():
    described = set(re.findall(r"`([\w/]+(?:\.py|/))`", ARCHITECTURE.partition("## The walk")[0]))
    there = {f"{path.name}/" if path.is_dir() else path.name for path in SRC.iterdir()}
    assert {name for name in there if not name.startswith("__")} - {"py.typed"} <= described


@pytest.mark.parametrize(
    "change", [line for line in CHANGES.splitlines() if line.count("|") == 3 and "`" in line]
)
def test_the_files_of_a_change_are_there(change):
    files = re.findall(r"`((?:docs/)?[\w/]+(?:\.py|\.md|/))`", change.split("|")[2])
    assert files
    for file in files:
        assert ((ROOT if file.startswith("docs") else SRC) / file).exists(), file
