"""Every optimizer of torch.optim and pytorch_optimizer with `weight_decay`: the probe against the source."""

import inspect
from collections import Counter
from typing import Any

import pytest
import torch
from pytorch_optimizer.optimizer import OPTIMIZERS
from tests.peers.probe_truth import FLAGGED, REQUIRED, TRUTH

from weightdecay.probing.run import probe

pytestmark = pytest.mark.peer


def takes_decay(kind: Any) -> bool:
    return isinstance(kind, type) and "weight_decay" in inspect.signature(kind).parameters


def zoo() -> dict[str, type]:
    ours = {f"torch.{name}": getattr(torch.optim, name) for name in dir(torch.optim)}
    peers = {f"po.{kind.__name__}": kind for kind in OPTIMIZERS.values() if isinstance(kind, type)}
    peers = {name: kind for name, kind in peers.items() if not kind.__module__.startswith("torch.")}
    return {name: kind for name, kind in {**ours, **peers}.items() if takes_decay(kind)}


ZOO = zoo()


def test_every_optimizer_is_in_the_table():
    assert len(ZOO) > 110
    assert set(ZOO) == set(TRUTH)


def test_confusion_matrix():
    found = {name: probe(kind, **REQUIRED.get(name, {})).form for name, kind in ZOO.items()}
    wrong = {
        name: (TRUTH[name], form) for name, form in found.items() if form not in (TRUTH[name], "unknown")
    }
    assert not wrong
    right = sum(found[name] == TRUTH[name] for name in ZOO)
    assert right >= 0.95 * len(ZOO), Counter(found.values())


@pytest.mark.parametrize(("name", "options", "form"), FLAGGED, ids=lambda v: str(v)[:60])
def test_flags(name, options, form):
    assert probe(ZOO[name], **options).form == form


def without_decay(kind: type) -> type:
    """The class with a step in which the strength is lost."""

    class Dropped(kind):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            kept = [group.get("weight_decay") for group in self.param_groups]
            for group in self.param_groups:
                group["weight_decay"] = 0.0
            try:
                return super().step(*args, **kwargs)
            finally:
                for group, own in zip(self.param_groups, kept, strict=True):
                    group["weight_decay"] = own

    Dropped.__name__ = f"{kind.__name__}Dropped"
    return Dropped


def factory_without_decay(kind: type) -> Any:
    """A function that takes a strength and does not hand it on."""
    first = next(iter(inspect.signature(kind).parameters))

    def make(params: Any, lr: float, weight_decay: float, **options: Any) -> Any:
        return kind(params, lr=lr, weight_decay=0.0, **options)

    def make_for_model(model: Any, lr: float, weight_decay: float, **options: Any) -> Any:
        return kind(model, lr=lr, weight_decay=0.0, **options)

    return make_for_model if first == "model" else make


# Those that cannot run here, and one without any decay to drop.
CANNOT = {"po.DeMo", "po.DistributedMuon", "po.BSAM"}


@pytest.mark.parametrize("drop", [without_decay, factory_without_decay])
@pytest.mark.parametrize("name", sorted(set(ZOO) - CANNOT))
def test_a_dropped_decay_is_found(name, drop):
    if name == "po.AdaLOMO" and drop is without_decay:
        pytest.skip("its step is not used")
    found = probe(drop(ZOO[name]), **REQUIRED.get(name, {}))
    assert found.form == "none", found
    assert [(finding.code, finding.severity) for finding in found.findings] == [("WD304", "error")]
