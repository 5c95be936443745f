"""Weight decay (L2 regularisation) for people who train models with PyTorch.

Importing this package imports nothing else; each public name is looked up when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from weightdecay.auditing.diff import audit_diff
    from weightdecay.auditing.record import Audit, load_audit
    from weightdecay.auditing.run import audit
    from weightdecay.errors import (
        DivergenceError,
        InputError,
        Interrupted,
        WeightDecayError,
        WeightDecayWarning,
    )
    from weightdecay.groups import Group, param_groups, preset, split
    from weightdecay.hooks import Decay, WeightDecayScheduler, attach
    from weightdecay.monitor.record import Monitored, load_monitored
    from weightdecay.monitor.run import Monitor
    from weightdecay.probing.record import Probe
    from weightdecay.probing.run import probe
    from weightdecay.reports.plot import plot
    from weightdecay.reports.report import report
    from weightdecay.reports.textbook import LiveCurves
    from weightdecay.ridge.model import RidgeModel, load_model
    from weightdecay.ridge.path import ridge_path
    from weightdecay.ridge.record import RidgePath, load_path
    from weightdecay.rules import (
        L2,
        Cautious,
        Constrained,
        Corrected,
        Decoupled,
        FixedNorm,
        Huber,
        Independent,
        LoRAProduct,
        PNorm,
        Rule,
        Stable,
        Toward,
        chain,
    )
    from weightdecay.schedule.setups import Setup, Transfer, transfer
    from weightdecay.sweeps.record import Sweep, load_sweep
    from weightdecay.sweeps.run import sweep
    from weightdecay.textbook.data import Synthetic, TableFile
    from weightdecay.textbook.experiment import run_experiment
    from weightdecay.textbook.record import Evaluation, LambdaCurve, Outcome, Run, load_run
    from weightdecay.textbook.settings import Experiment
    from weightdecay.units.conversion import conventions, convert
    from weightdecay.units.halflife import HalfLife, HalfLives

_HOMES = {
    "Audit": "auditing.record",
    "Cautious": "rules",
    "Constrained": "rules",
    "Corrected": "rules",
    "Decay": "hooks",
    "Decoupled": "rules",
    "DivergenceError": "errors",
    "Evaluation": "textbook.record",
    "Experiment": "textbook.settings",
    "FixedNorm": "rules",
    "Group": "groups",
    "HalfLife": "units.halflife",
    "HalfLives": "units.halflife",
    "Huber": "rules",
    "Independent": "rules",
    "InputError": "errors",
    "Interrupted": "errors",
    "L2": "rules",
    "LambdaCurve": "textbook.record",
    "LiveCurves": "reports.textbook",
    "LoRAProduct": "rules",
    "Monitor": "monitor.run",
    "Monitored": "monitor.record",
    "Outcome": "textbook.record",
    "PNorm": "rules",
    "Probe": "probing.record",
    "RidgeModel": "ridge.model",
    "RidgePath": "ridge.record",
    "Rule": "rules",
    "Run": "textbook.record",
    "Setup": "schedule.setups",
    "Stable": "rules",
    "Sweep": "sweeps.record",
    "Synthetic": "textbook.data",
    "TableFile": "textbook.data",
    "Toward": "rules",
    "Transfer": "schedule.setups",
    "WeightDecayError": "errors",
    "WeightDecayScheduler": "hooks",
    "WeightDecayWarning": "errors",
    "attach": "hooks",
    "audit": "auditing.run",
    "audit_diff": "auditing.diff",
    "chain": "rules",
    "conventions": "units.conversion",
    "convert": "units.conversion",
    "load_audit": "auditing.record",
    "load_model": "ridge.model",
    "load_monitored": "monitor.record",
    "load_path": "ridge.record",
    "load_run": "textbook.record",
    "load_sweep": "sweeps.record",
    "param_groups": "groups",
    "plot": "reports.plot",
    "preset": "groups",
    "probe": "probing.run",
    "report": "reports.report",
    "ridge_path": "ridge.path",
    "run_experiment": "textbook.experiment",
    "split": "groups",
    "sweep": "sweeps.run",
    "transfer": "schedule.setups",
}

__all__ = [
    "L2",
    "Audit",
    "Cautious",
    "Constrained",
    "Corrected",
    "Decay",
    "Decoupled",
    "DivergenceError",
    "Evaluation",
    "Experiment",
    "FixedNorm",
    "Group",
    "HalfLife",
    "HalfLives",
    "Huber",
    "Independent",
    "InputError",
    "Interrupted",
    "LambdaCurve",
    "LiveCurves",
    "LoRAProduct",
    "Monitor",
    "Monitored",
    "Outcome",
    "PNorm",
    "Probe",
    "RidgeModel",
    "RidgePath",
    "Rule",
    "Run",
    "Setup",
    "Stable",
    "Sweep",
    "Synthetic",
    "TableFile",
    "Toward",
    "Transfer",
    "WeightDecayError",
    "WeightDecayScheduler",
    "WeightDecayWarning",
    "attach",
    "audit",
    "audit_diff",
    "chain",
    "conventions",
    "convert",
    "load_audit",
    "load_model",
    "load_monitored",
    "load_path",
    "load_run",
    "load_sweep",
    "param_groups",
    "plot",
    "preset",
    "probe",
    "report",
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
