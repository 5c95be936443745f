"""Checks every annotated shape and type while the tests run."""

import sys
from pathlib import Path

import hypothesis
import pytest
import tests.typechecker  # noqa: F401  (the hook finds it by name)
import torch
from jaxtyping import install_import_hook

hook = install_import_hook("weightdecay", "tests.typechecker.typechecked")
torch.set_num_threads(1)  # small matrices: on a busy machine threads would wait for one another
hypothesis.settings.register_profile("same every time", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.load_profile("same every time")

# Read by the tests beside them, under their full names.
_BESIDE = [*Path("tests/faults").glob("*.py"), *Path("tests/fuzz").glob("*.py")]
collect_ignore = [str(path) for path in _BESIDE if not path.name.startswith("test_")]
collect_ignore_glob = ["tests/*/conftest.py"]  # several of one name, without doctests


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` run where there is one."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def main_module_kept():
    """An IPython shell puts its own module in the place of `__main__`; no process starts from that one."""
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before


@pytest.fixture(autouse=True)
def figures_closed():
    """Pyplot keeps every figure until it is closed, and warns from the 21st on."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
