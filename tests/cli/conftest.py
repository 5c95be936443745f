"""Commands without their pictures, where something else is the claim: most of their time is drawing."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def undrawn(monkeypatch):
    """The files are there, and empty."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: Path(path).write_bytes(b""))
