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
    assert len(blocks("training-loops.md")) == 5
    assert blocks("training-loops.md") == blocks("training-loops.zh.md")
    there = {}
    for block in blocks("training-loops.md"):
        exec(compile(block, "training-loops", "exec"), there)
    assert there["callback"].decays[0].steps == 20
