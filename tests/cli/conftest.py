"""Commands without their pictures, where something else is the claim: most of their time is drawing."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def undrawn(monkeypatch):
    """The files hold the numbers of the lines, so that another picture is another file."""

    def write(figure, path, **options):
        lines = [line.get_xydata().tolist() for ax in figure.axes for line in ax.lines]
        Path(path).write_text(json.dumps(lines), encoding="utf-8")

    monkeypatch.setattr(Figure, "savefig", write)
