"""Processes that hold shards of one model have to decay alike, and say so before the first step."""

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from weightdecay.errors import InputError
from weightdecay.hooks.plan import Plan, Target, plain
from weightdecay.rules import Rule
from weightdecay.rules.base import is_sharded, seen

# How long ranks wait for one another when a rule is attached, in seconds.
PATIENCE = 60.0
# How often each set of ranks has called what: the same on all of them.
_calls: dict[tuple[str, tuple[int, ...]], "itertools.count[int]"] = {}


def sharded_parameters(optimizer: optim.Optimizer) -> list[Tensor]:
    """The parameters of an optimizer that are distributed over processes."""
    return [p for group in optimizer.param_groups for p in group["params"] if is_sharded(p)]


def check_shards(optimizer: optim.Optimizer, targets: Iterable[Target]) -> None:
    """Refuse shards that torch cannot step, that do not belong together, or that hold numbers that are none.

    Raises:
        InputError: parameters on different meshes; Muon on fewer rows than ranks; NaN, which a norm would
            spread to all ranks.
    """
    first: tuple[str, Any] | None = None
    for target in targets:
        name, w = target.name, target.parameter
        if not is_sharded(w):
            continue
        mesh = w.device_mesh  # pyright: ignore[reportAttributeAccessIssue]
        first = first or (name, mesh)
        if mesh != first[1]:
            what = "parameters are distributed over different meshes"
            value, remedy = f"{first[1]} and {mesh}", "use one optimizer for each mesh"
            raise InputError(what, f"{first[0]} and {name}", value, remedy)
        if isinstance(optimizer, optim.Muon):
            for ranks, placement in zip(mesh.shape, w.placements, strict=True):  # pyright: ignore[reportAttributeAccessIssue]
                if placement.is_shard() and w.shape[placement.dim] < ranks:
                    what = "torch's Muon cannot step a matrix with fewer rows (or columns) than it has shards"
                    value = f"{tuple(w.shape)} over {ranks} ranks in dimension {placement.dim}"
                    remedy = "give it to AdamW (wd.split), or shard it over fewer ranks"
                    raise InputError(what, name, value, remedy)
        if not torch.isfinite(seen(w)).all():
            where = f"{name} on rank {torch.distributed.get_rank()}"
            remedy = "load a checkpoint from before it went wrong"
            raise InputError("a shard is not finite", where, "NaN or infinite", remedy)


def summary(
    optimizer: optim.Optimizer, rules: tuple[Rule, ...], shown: str, plan: Plan, **options: Any
) -> dict[str, str]:
    """What ranks have to agree on, by what it is called."""
    parts = {"optimizer": type(optimizer).__name__, "rule": shown}
    for i, strengths in enumerate(zip(*plan.strengths, strict=True)):
        each = [f"{plain(s.at(0)):g} ({s.law}, lr_max {s.lr_max})" for s in strengths if s]
        parts[f"strength in parameter group {i}"] = ", ".join(each)
    arguments = [(field.name, getattr(rule, field.name)) for rule in rules for field in fields(rule)]
    for name, value in arguments:
        if isinstance(value, Mapping):  # tensors or names, by parameter
            parts |= {f"{name} of {key}": str(getattr(own, "shape", own)) for key, own in value.items()}
    parts |= {f"decay of {target.name}": f"× {target.scale:g}" for target in plan.all_targets}
    return parts | {name: str(value) for name, value in options.items()}


def check_size(size: float, optimizer: optim.Optimizer, plan: Plan) -> None:
    """Refuse a step whose gradients' size is not finite.

    Raises:
        InputError: it is not; it names the parameter and, where it is sharded, the rank.
    """
    if math.isfinite(size):
        return
    names = {id(entry.parameter): entry.name for entries in plan.assignments for entry in entries}
    wrong = [
        (names.get(id(p)) or "a parameter without name", is_sharded(p))
        for group in optimizer.param_groups
        for p in group["params"]
        if p.grad is not None and not torch.isfinite(seen(p.grad)).all()
    ]
    whole = [name for name, shard in wrong if not shard]
    if whole or not sharded_parameters(optimizer):
        places = whole or [name for name, _ in wrong]
    else:  # the sum over shards is not finite on any rank, so that all of them are here
        answers = Ranks(optimizer, "step").answers({"first": wrong[0][0] if wrong else None})
        places = [f"{a['first']} on rank {rank}" for rank, a in answers.items() if a["first"]]
    where = places[0] if places else "the optimizer's average of squared gradients"
    raise InputError("gradients are not finite", where, remedy="skip the step, or lower the learning rate")


class Ranks:
    """The ranks that hold the shards of an optimizer's parameters come together, to agree or to fail.

    Args:
        optimizer: the optimizer; where nothing is sharded there is nobody to meet.
        call: what all of them do, "attach" or "step"; a number counts how often it was called.
        model: if it is a DistributedDataParallel, its ranks come together, too.
    """

    def __init__(
        self, optimizer: optim.Optimizer, call: str = "attach", model: nn.Module | None = None
    ) -> None:
        self._ranks: tuple[int, ...] = ()
        for w in sharded_parameters(optimizer):
            self._ranks += tuple(w.device_mesh.mesh.flatten().tolist())  # pyright: ignore[reportAttributeAccessIssue]
        self._ranks = tuple(sorted(set(self._ranks)))
        if isinstance(model, DistributedDataParallel):
            group = set(torch.distributed.get_process_group_ranks(model.process_group))
            self._ranks = tuple(sorted(group.union(self._ranks)))
        self._call, self._round = call, 0
        if self._ranks:
            self._number = next(_calls.setdefault((call, self._ranks), itertools.count()))

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Let the others, who wait for this rank's next answer, know that it has failed."""
        del kind, traceback
        if error is not None and self._ranks:
            self._say({"failed": str(error)})

    def agree(self, own: Mapping[str, str]) -> None:
        """Tell the others, and compare.

        Raises:
            InputError: another rank failed, says something else, or does not come.
        """
        answers = self.answers({"summary": own})
        for rank, answer in answers.items():
            if "failed" in answer:
                what = f"another rank cannot {self._call}"
                raise InputError(what, f"rank {rank}", answer["failed"], "mend it there")
        first, *others = answers
        reference = answers[first]["summary"]
        for rank in others:
            theirs = answers[rank]["summary"]
            for what in reference | theirs:
                if reference.get(what) != theirs.get(what):
                    where = f"{what}, on ranks {first} and {rank}"
                    value = f"{reference.get(what, 'none')} and {theirs.get(what, 'none')}"
                    raise InputError("ranks disagree", where, value, "give every rank the same")

    def answers(self, own: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
        """Tell the others, and return what each rank says; one that is alone hears itself.

        Raises:
            InputError: another rank does not come.
        """
        if not self._ranks:
            return {0: dict(own)}
        self._say(own)
        answers = {rank: self._answer(rank) for rank in self._ranks}
        self._round += 1
        return answers

    def _store(self) -> Any:
        # The one store that every backend has; torch has no public name for it.
        from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

        # What an elastic launcher started again must not read the answers of those who died.
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        ranks = "-".join(map(str, self._ranks))
        where = f"weightdecay/{again}/{ranks}/{self._call}/{self._number}/{self._round}"
        return PrefixStore(where, _get_default_store())

    def _say(self, answer: Mapping[str, Any]) -> None:
        self._store().set(str(torch.distributed.get_rank()), json.dumps(answer))

    def _answer(self, rank: int) -> dict[str, Any]:
        store = self._store()
        try:
            store.wait([str(rank)], timedelta(seconds=PATIENCE))
        except RuntimeError as error:
            raise InputError(
                f"a rank did not {self._call} within {PATIENCE:g} s",
                "rank",
                rank,
                f"call {self._call} on every rank that has shards; see that rank's own error, if it has one",
            ) from error
        return json.loads(store.get(str(rank)))
