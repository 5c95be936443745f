"""What the page of a textbook run shows: its settings, and the trainings behind the slider."""

from typing import Any

import polars as pl

from weightdecay.reports.page.document import packed
from weightdecay.textbook.data import Synthetic
from weightdecay.textbook.record import Run


def title_of(run: Run) -> str:
    """The page's title."""
    data = run.experiment.data
    what = "the textbook's experiment" if isinstance(data, Synthetic) else f"{data.target}, from a table"
    return f"Weight decay: {what}"


def data_of(run: Run) -> dict[str, Any]:
    """Everything the page's script reads; `run.slider` is there."""
    assert run.slider is not None
    one = run.experiment
    data = one.data
    first = run.slider.row(0, named=True)
    return {
        "kind": "textbook",
        "title": title_of(run),
        "facts": {
            "synthetic": isinstance(data, Synthetic),
            "target": None if isinstance(data, Synthetic) else data.target,
            "n_train": data.n_train,
            "inputs": data.n_inputs if isinstance(data, Synthetic) else data.table.X.shape[1],
            "epochs": one.epochs,
            "seed": one.seed,
            "lr": one.lr,
            "batch_size": one.batch_size,
            "looks": len(first["epoch"]),
            "every": one.every,
        },
        "start": {"lam": max(one.lambdas or (0.0,)), "init": one.init},
        "epoch": first["epoch"],
        "sets": [
            _packed(name, init, rows)
            for (name, init), rows in run.slider.group_by("version", "init", maintain_order=True)
        ],
    }


def _packed(version: Any, init: Any, rows: pl.DataFrame) -> dict[str, Any]:
    """The trainings of one program from one start: matrices with a row for each λ."""
    return {
        "version": version,
        "init": init,
        "count": rows.height,
        "lam": packed(rows["lam"], "<f8"),
        **{name: packed(rows[name]) for name in ("half_life", "theory", "ridge", "w_norm")},
        **{name: packed(rows[name].to_list()) for name in ("train_loss", "test_loss", "weights")},
    }
