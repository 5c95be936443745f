"""Weight decay (L2 regularisation) for people who train models with PyTorch.

Importing this package imports nothing else; each public name is looked up when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from weightdecay.errors import (
        DivergenceError,
        InputError,
        Interrupted,
        WeightDecayError,
        WeightDecayWarning,
    )
    from weightdecay.groups import Group, param_groups, preset, split
    from weightdecay.hooks import Decay, WeightDecayScheduler, attach
    from weightdecay.reports.live import LiveCurves
    from weightdecay.reports.plot import plot
    from weightdecay.ridge.loading import load_path
    from weightdecay.ridge.model import RidgeModel, load_model
    from weightdecay.ridge.path import ridge_path
    from weightdecay.ridge.record import RidgePath
    from weightdecay.rules import L2, Cautious, Corrected, Decoupled, Independent, Rule, Toward, chain
    from weightdecay.schedule.setups import Setup, Transfer, transfer
    from weightdecay.sweeps.loading import load_sweep
    from weightdecay.sweeps.record import Sweep
    from weightdecay.sweeps.run import sweep
    from weightdecay.textbook.data import Synthetic, TableFile
    from weightdecay.textbook.experiment import run_experiment
    from weightdecay.textbook.record import Evaluation, LambdaCurve, Outcome, Run, load_run
    from weightdecay.textbook.settings import Experiment
    from weightdecay.units.conventions import conventions, convert
    from weightdecay.units.halflife import HalfLife, HalfLives

_HOMES = {
    "Cautious": "rules",
    "Corrected": "rules",
    "Decay": "hooks",
    "Decoupled": "rules",
    "DivergenceError": "errors",
    "Evaluation": "textbook.record",
    "Experiment": "textbook.settings",
    "Group": "groups",
    "HalfLife": "units.halflife",
    "HalfLives": "units.halflife",
    "Independent": "rules",
    "InputError": "errors",
    "Interrupted": "errors",
    "L2": "rules",
    "LambdaCurve": "textbook.record",
    "LiveCurves": "reports.live",
    "Outcome": "textbook.record",
    "RidgeModel": "ridge.model",
    "RidgePath": "ridge.record",
    "Rule": "rules",
    "Run": "textbook.record",
    "Setup": "schedule.setups",
    "Sweep": "sweeps.record",
    "Synthetic": "textbook.data",
    "TableFile": "textbook.data",
    "Toward": "rules",
    "Transfer": "schedule.setups",
    "WeightDecayError": "errors",
    "WeightDecayScheduler": "hooks",
    "WeightDecayWarning": "errors",
    "attach": "hooks",
    "chain": "rules",
    "conventions": "units.conventions",
    "convert": "units.conventions",
    "load_model": "ridge.model",
    "load_path": "ridge.loading",
    "load_run": "textbook.record",
    "load_sweep": "sweeps.loading",
    "param_groups": "groups",
    "plot": "reports.plot",
    "preset": "groups",
    "ridge_path": "ridge.path",
    "run_experiment": "textbook.experiment",
    "split": "groups",
    "sweep": "sweeps.run",
    "transfer": "schedule.setups",
}

__all__ = [
    "L2",
    "Cautious",
    "Corrected",
    "Decay",
    "Decoupled",
    "DivergenceError",
    "Evaluation",
    "Experiment",
    "Group",
    "HalfLife",
    "HalfLives",
    "Independent",
    "InputError",
    "Interrupted",
    "LambdaCurve",
    "LiveCurves",
    "Outcome",
    "RidgeModel",
    "RidgePath",
    "Rule",
    "Run",
    "Setup",
    "Sweep",
    "Synthetic",
    "TableFile",
    "Toward",
    "Transfer",
    "WeightDecayError",
    "WeightDecayScheduler",
    "WeightDecayWarning",
    "attach",
    "chain",
    "conventions",
    "convert",
    "load_model",
    "load_path",
    "load_run",
    "load_sweep",
    "param_groups",
    "plot",
    "preset",
    "ridge_path",
    "run_experiment",
    "split",
    "sweep",
    "transfer",
]


# Packages with more than the names above, for those who build on them.
_PACKAGES = ("groups", "hooks", "ridge", "rules", "schedule", "units")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
