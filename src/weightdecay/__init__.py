"""Weight decay (L2 regularisation) for people who train models with PyTorch.

Importing this package imports nothing else; each public name is looked up when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from weightdecay.errors import DivergenceError, InputError, Interrupted, WeightDecayError
    from weightdecay.reports.live import LiveCurves
    from weightdecay.reports.plot import plot
    from weightdecay.textbook.data import Synthetic, TableFile
    from weightdecay.textbook.experiment import run_experiment
    from weightdecay.textbook.record import Evaluation, LambdaCurve, Outcome, Run, load_run
    from weightdecay.textbook.settings import Experiment

_HOMES = {
    "DivergenceError": "errors",
    "Evaluation": "textbook.record",
    "Experiment": "textbook.settings",
    "InputError": "errors",
    "Interrupted": "errors",
    "LambdaCurve": "textbook.record",
    "LiveCurves": "reports.live",
    "Outcome": "textbook.record",
    "Run": "textbook.record",
    "Synthetic": "textbook.data",
    "TableFile": "textbook.data",
    "WeightDecayError": "errors",
    "load_run": "textbook.record",
    "plot": "reports.plot",
    "run_experiment": "textbook.experiment",
}

__all__ = [
    "DivergenceError",
    "Evaluation",
    "Experiment",
    "InputError",
    "Interrupted",
    "LambdaCurve",
    "LiveCurves",
    "Outcome",
    "Run",
    "Synthetic",
    "TableFile",
    "WeightDecayError",
    "load_run",
    "plot",
    "run_experiment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
