"""Weight decay (L2 regularisation) for people who train models with PyTorch.

Importing this package imports nothing else; each public name is looked up when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The public names by the module that has them.
_NAMES = {
    "errors": ("DivergenceError", "InputError", "Interrupted", "WeightDecayError", "WeightDecayWarning"),
    "saving": ("load",),
    "units.conventions": ("conventions", "convert"),
    "units.halflife": ("HalfLife", "HalfLives"),
    "schedule.setups": ("Setup", "transfer"),
    "rules": (
        "Cautious",
        "Constrained",
        "Corrected",
        "Decoupled",
        "FixedNorm",
        "Huber",
        "Independent",
        "L2",
        "LoRAProduct",
        "PNorm",
        "Rule",
        "Stable",
        "Toward",
        "chain",
    ),
    "groups": ("Group", "param_groups", "split"),
    "hooks": ("WeightDecayScheduler", "attach"),
    "ridge.path": ("ridge_path",),
    "ridge.record": ("RidgePath",),
    "logistic.path": ("logistic_path",),
    "logistic.record": ("LogisticPath",),
    "sweeps.run": ("sweep",),
    "sweeps.record": ("Sweep",),
    "auditing.run": ("audit", "audit_diff"),
    "auditing.record": ("Audit",),
    "probing.run": ("probe",),
    "monitor.run": ("Monitor",),
    "textbook.settings": ("Experiment", "Synthetic", "TableFile"),
    "textbook.experiment": ("run_experiment",),
    "textbook.record": ("Run",),
    "reports.report": ("plot", "report"),
    "reports.textbook": ("LiveCurves",),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

# Packages with more than the names above, for those who build on them.
_PACKAGES = ("groups", "hooks", "ridge", "rules", "schedule", "units")

if TYPE_CHECKING:  # the same names for those who do not run this; a test compares
    from weightdecay.auditing.record import Audit as Audit
    from weightdecay.auditing.run import audit as audit
    from weightdecay.auditing.run import audit_diff as audit_diff
    from weightdecay.errors import DivergenceError as DivergenceError
    from weightdecay.errors import InputError as InputError
    from weightdecay.errors import Interrupted as Interrupted
    from weightdecay.errors import WeightDecayError as WeightDecayError
    from weightdecay.errors import WeightDecayWarning as WeightDecayWarning
    from weightdecay.groups import Group as Group
    from weightdecay.groups import param_groups as param_groups
    from weightdecay.groups import split as split
    from weightdecay.hooks import WeightDecayScheduler as WeightDecayScheduler
    from weightdecay.hooks import attach as attach
    from weightdecay.logistic.path import logistic_path as logistic_path
    from weightdecay.logistic.record import LogisticPath as LogisticPath
    from weightdecay.monitor.run import Monitor as Monitor
    from weightdecay.probing.run import probe as probe
    from weightdecay.reports.report import plot as plot
    from weightdecay.reports.report import report as report
    from weightdecay.reports.textbook import LiveCurves as LiveCurves
    from weightdecay.ridge.path import ridge_path as ridge_path
    from weightdecay.ridge.record import RidgePath as RidgePath
    from weightdecay.rules import L2 as L2
    from weightdecay.rules import Cautious as Cautious
    from weightdecay.rules import Constrained as Constrained
    from weightdecay.rules import Corrected as Corrected
    from weightdecay.rules import Decoupled as Decoupled
    from weightdecay.rules import FixedNorm as FixedNorm
    from weightdecay.rules import Huber as Huber
    from weightdecay.rules import Independent as Independent
    from weightdecay.rules import LoRAProduct as LoRAProduct
    from weightdecay.rules import PNorm as PNorm
    from weightdecay.rules import Rule as Rule
    from weightdecay.rules import Stable as Stable
    from weightdecay.rules import Toward as Toward
    from weightdecay.rules import chain as chain
    from weightdecay.saving import load as load
    from weightdecay.schedule.setups import Setup as Setup
    from weightdecay.schedule.setups import transfer as transfer
    from weightdecay.sweeps.record import Sweep as Sweep
    from weightdecay.sweeps.run import sweep as sweep
    from weightdecay.textbook.experiment import run_experiment as run_experiment
    from weightdecay.textbook.record import Run as Run
    from weightdecay.textbook.settings import Experiment as Experiment
    from weightdecay.textbook.settings import Synthetic as Synthetic
    from weightdecay.textbook.settings import TableFile as TableFile
    from weightdecay.units.conventions import conventions as conventions
    from weightdecay.units.conventions import convert as convert
    from weightdecay.units.halflife import HalfLife as HalfLife
    from weightdecay.units.halflife import HalfLives as HalfLives


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
