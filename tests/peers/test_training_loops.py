"""The page on training loops: its code runs, and both languages have the same."""

import re
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*"),
]
PAGES = Path(__file__).parents[2] / "docs/howto"


def blocks(name):
    return re.findall(r"^```python\n(.*?)^```$", (PAGES / name).read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_runs(tmp_path, monkeypatch):
    for library in ("accelerate", "transformers", "lightning"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    first, *others = blocks("training-loops.md")
    assert len(others) == 5
    assert [first, *others] == blocks("training-loops.zh.md")
    assert first in others[0]  # the lines that most people need
    there = {}
    for block in others:
        exec(compile(block, "training-loops", "exec"), there)
    assert there["callback"].decays[0].steps == 20
