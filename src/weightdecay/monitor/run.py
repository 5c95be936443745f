"""`Monitor`: looks at weights, updates and decay around an optimizer's own steps."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

import polars as pl
import torch
from torch import Tensor, nn, optim

from weightdecay.errors import InputError
from weightdecay.groups.inventory import inventory
from weightdecay.groups.suggest import closest
from weightdecay.hooks.refuse import check_optimizer
from weightdecay.monitor.burst import Burst
from weightdecay.monitor.equilibrium import equilibrium_norm, kappa_of
from weightdecay.monitor.rates import Intent, intents
from weightdecay.monitor.record import SCHEMA, Monitored
from weightdecay.monitor.replay import without_decay
from weightdecay.units.numbers import count, number

Row = dict[str, Any]
Sink = Callable[[list[Row]], None]


class Monitor:
    """Watch what the decay does while a model trains; the training's own bits do not change.

    Args:
        model: the model; it gives the names.
        optimizer: its optimizer, with whatever decay it has or was attached to it.
        every: steps between two looks.
        burst: how many consecutive steps a look follows, on a sample of 4096 elements of each parameter, for
            the autocorrelation of the updates; at most `every`.
        sinks: functions that are given the rows of each look, a list of dicts with the columns of
            `Monitored.table` (`weightdecay.monitor.sinks` has files and TensorBoard).
        parameters: glob patterns of names to watch; by default those that decay, or all if none does.

    At a look the coming step is done once more on copies, without decay: the difference from the real step is
    what the decay did. So it is measured in any optimizer, whatever it calls its decay.

    Convention: norms are Euclidean, of each parameter; fractions are per step; steps are the optimizer's.

    Raises:
        InputError: no such parameter, or an optimizer or number that cannot be used.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Linear(4, 1)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    >>> with Monitor(model, optimizer, every=2, burst=2) as monitor:
    ...     for _ in range(6):
    ...         loss = model(torch.randn(8, 4)).square().mean()
    ...         optimizer.zero_grad(); loss.backward(); optimizer.step()
    >>> monitor.result().table().filter(parameter="weight")["applied"].round(6).to_list()
    [0.001, 0.001, 0.001]

    Source: equilibrium, Kosson et al. 2023, arXiv 2305.17212.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        every: int = 50,
        *,
        burst: int = 32,
        sinks: Sequence[Sink] = (),
        parameters: str | Sequence[str] | None = None,
    ) -> None:
        check_optimizer(optimizer)
        self.optimizer, self.steps = optimizer, 0
        self.every = count(every, "every", least=2)
        self._burst = min(count(burst, "burst", least=2), self.every)
        self._sinks = tuple(sinks)
        self._patterns = (parameters,) if isinstance(parameters, str) else parameters
        self._names = _names(model, optimizer)
        self._forms: dict[int, float] = {}
        self._rows: list[Row] = []
        self._notes: dict[str, float] = {}
        self._open: dict[int, Row] = {}  # the rows of the look that is going on
        self._bursts: dict[int, Burst] = {}
        self._intents: dict[int, Intent] = {}
        self._before: dict[int, Tensor] = {}
        self._replayed: dict[int, Tensor] = {}
        self._generator = torch.Generator().manual_seed(0)
        self._watched = self._chosen()
        self._handles = [
            optimizer.register_step_pre_hook(self._pre),
            optimizer.register_step_post_hook(self._post),
        ]
        self._around_all()

    def note(self, train_loss: float | None = None, test_loss: float | None = None) -> None:
        """Tell losses; the next look records them.

        Raises:
            InputError: not a number.
        """
        for name, value in (("train_loss", train_loss), ("test_loss", test_loss)):
            if value is not None:
                self._notes[name] = number(value, name)

    def result(self) -> Monitored:
        """What was seen until now."""
        rows = pl.DataFrame(self._rows, schema=SCHEMA)
        return Monitored(rows, type(self.optimizer).__name__, self.every, self.steps)

    def close(self) -> None:
        """Take the hooks away; what was seen stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._finish()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Steps and rows, to go on after a resume; plain values."""
        return {"steps": self.steps, "every": self.every, "rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            InputError: not such a state, or one with another `every`.
        """
        if not isinstance(state_dict, dict) or not {"steps", "every", "rows"} <= set(state_dict):
            what = "not the state of a monitor"
            raise InputError(what, "state_dict", type(state_dict).__name__, "give Monitor.state_dict()")
        if state_dict["every"] != self.every:
            remedy = f"make the monitor with every={state_dict['every']}"
            raise InputError("a state with other looks", "every", self.every, remedy)
        self.steps, self._rows = count(state_dict["steps"], "steps", least=0), list(state_dict["rows"])

    def _chosen(self) -> dict[int, tuple[str, int, nn.Parameter]]:
        """The parameters to watch, by identity: name, group, tensor."""
        held = {
            id(parameter): (self._names[id(parameter)], i, parameter)
            for i, group in enumerate(self.optimizer.param_groups)
            for parameter in group["params"]
            if parameter.requires_grad
        }
        if self._patterns is None:
            rates = intents(self.optimizer, self._forms)
            decaying = {key: one for key, one in held.items() if rates[key].rate != 0}
            return decaying or held
        for pattern in self._patterns:
            if not any(fnmatchcase(name, pattern) for name, *_ in held.values()):
                best = ", ".join(closest(pattern, [name for name, *_ in held.values()]))
                what, remedy = (
                    "no parameter of the optimizer has such a name",
                    f"the closest names are {best}",
                )
                raise InputError(what, "parameters", repr(pattern), remedy)
        return {key: one for key, one in held.items() if any(fnmatchcase(one[0], p) for p in self._patterns)}

    @torch.no_grad()
    def _pre(self, optimizer: optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        place = self.steps % self.every
        if place >= self._burst:
            return
        self._around_all()
        self._intents = intents(optimizer, self._forms)
        if place == 0:
            closure = args[1] if len(args) > 1 else kwargs.get("closure")
            self._begin(callable(closure))

    def _around_all(self) -> None:
        """First before and last after the step: what attached rules do belongs to it."""
        # torch declares dict and makes OrderedDict
        cast(OrderedDict, self.optimizer._optimizer_step_pre_hooks).move_to_end(
            self._handles[0].id, last=False
        )
        cast(OrderedDict, self.optimizer._optimizer_step_post_hooks).move_to_end(self._handles[1].id)

    def _begin(self, closure: bool) -> None:
        """A look: keep the weights, and what they would be without decay."""
        self._finish()
        self._watched = self._chosen()
        live = {key: one for key, one in self._watched.items() if one[2].grad is not None or closure}
        self._bursts = {key: Burst(one[2], self._generator) for key, one in live.items()}
        self._before = {key: one[2].detach().clone() for key, one in live.items()}
        parameters = [one[2] for one in live.values()]
        self._replayed = {} if closure else without_decay(self.optimizer, parameters)

    @torch.no_grad()
    def _post(self, optimizer: optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del optimizer, args, kwargs
        place = self.steps % self.every
        if place < self._burst:
            if place == 0:
                self._open = {key: self._look(key) for key in self._bursts}
                self._before, self._replayed, self._notes = {}, {}, {}
            for key, burst in self._bursts.items():
                burst.after(self._watched[key][2], _number(self._intents[key].rate))
            if place == self._burst - 1:
                self._finish()
        self.steps += 1

    def _look(self, key: int) -> Row:
        """The row of one parameter, from the weights before and after the step and after its replay."""
        name, group, parameter = self._watched[key]
        intent, w = self._intents[key], self._before[key].double().flatten()
        after = parameter.detach().double().flatten()
        square = float(w @ w)
        norm = math.sqrt(square)
        update = applied = math.nan
        if key in self._replayed:
            plain = self._replayed[key].double().flatten()
            update = float((plain - w).norm())
            applied = float((plain - after) @ w) / square if square else math.nan
        return {
            "step": self.steps,
            "parameter": name,
            "group": group,
            "numel": w.numel(),
            "lr": intent.lr,
            "weight_decay": intent.weight_decay,
            "norm": norm,
            "rms": norm / math.sqrt(max(w.numel(), 1)),
            "update_norm": update,
            "angle": _angle(w, after),
            "effective_lr": update / norm if norm else math.nan,
            "applied": applied,
            "intended": intent.at_once,
            "rate": intent.rate,
            "kappa": math.nan,
            "equilibrium_norm": math.nan,
            "steps_to_equilibrium": 1 / (2 * intent.rate) if intent.rate > 0 else math.inf,
            "train_loss": self._notes.get("train_loss"),
            "test_loss": self._notes.get("test_loss"),
        }

    def _finish(self) -> None:
        """End a look: what the burst says of the autocorrelation completes its rows."""
        if not self._open:
            return
        for key, row in self._open.items():
            row["kappa"] = kappa_of(self._bursts[key].products(), _number(row["rate"]))
            row["equilibrium_norm"] = equilibrium_norm(row["update_norm"], row["kappa"], row["rate"])
        rows = list(self._open.values())
        self._open, self._bursts = {}, {}
        self._rows += rows
        for sink in self._sinks:
            sink([dict(row) for row in rows])


def _number(rate: float) -> float:
    """The rate, or 0 where there is none: its part of u is then left in."""
    return 0.0 if math.isnan(rate) else rate


def _angle(before: Tensor, after: Tensor) -> float:
    """Between two vectors, in radians, exact for small angles too."""
    a, b = before / before.norm(), after / after.norm()
    return 2 * math.atan2(float((a - b).norm()), float((a + b).norm()))


def _names(model: nn.Module, optimizer: optim.Optimizer) -> dict[int, str]:
    """Names of the optimizer's parameters: the model's."""
    if not isinstance(model, nn.Module):
        raise InputError("not a model", "model", type(model).__name__, "give a torch.nn.Module")
    names = {id(one.parameter): one.name for one in inventory(model)}
    for i, group in enumerate(optimizer.param_groups):
        for j, parameter in enumerate(group["params"]):
            if id(parameter) not in names:
                if parameter.requires_grad:
                    what = "the optimizer holds a parameter that is not in the model"
                    where = f"group {i}, position {j}"
                    remedy = "give the model the optimizer was built from"
                    raise InputError(what, where, tuple(parameter.shape), remedy)
                names[id(parameter)] = f"group {i}, position {j}"
    return names
