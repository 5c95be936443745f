"""Every re-enacted fault gives the right value."""

import importlib
import pkgutil
from pathlib import Path

import pytest
from tests.faults.rows import ROWS

for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
    if module.name not in ("rows", "__main__") and not module.name.startswith("test_"):
        importlib.import_module(f"tests.faults.{module.name}")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.number}-{row.what}")
def test_row(row):
    given, right = row.run()
    assert right, f"{given} (right: {row.right})"
