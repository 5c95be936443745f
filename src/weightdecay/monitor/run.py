"""`Monitor`: looks at weights, updates and decay around an optimizer's own steps."""

import copy
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from numbers import Real
from types import FunctionType
from typing import Any, cast

import polars as pl
import torch
from torch import Tensor, nn, optim
from torch._compile import _disable_dynamo

from weightdecay import arguments
from weightdecay.arguments import closest, count, no_number
from weightdecay.errors import InputError
from weightdecay.groups.inventory import inventory
from weightdecay.hooks.optimizers import HOOKS, WRAPPED, check_optimizer
from weightdecay.hooks.step import OpenStep
from weightdecay.hooks.trial import untouched
from weightdecay.monitor.expected import Intent, Multiple, equilibrium_norm, intents, kappa_of
from weightdecay.monitor.record import SCHEMA, Monitored
from weightdecay.rules.base import is_sharded

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
            `Monitored.table` (`weightdecay.monitor.record` has files and TensorBoard).
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
        optimizer: Any,
        every: int = 50,
        *,
        burst: int = 32,
        sinks: Sequence[Sink] = (),
        parameters: str | Sequence[str] | None = None,
    ) -> None:
        optimizer = check_optimizer(optimizer)
        self.optimizer, self.steps = optimizer, 0
        self.every = count(every, "every", least=2)
        self._burst = min(count(burst, "burst", least=2), self.every)
        if callable(sinks) or not isinstance(sinks, Sequence) or not all(map(callable, sinks)):
            raise InputError(
                "not a list of functions", "sinks", repr(sinks), "give sinks=[file('looks.csv')]"
            )
        self._sinks = tuple(sinks)
        self._model = model
        patterns = (parameters,) if isinstance(parameters, str) else parameters
        if patterns is not None:
            patterns = tuple(patterns) if isinstance(patterns, Iterable) else (patterns,)
            if not all(isinstance(pattern, str) for pattern in patterns):
                remedy = "give glob patterns of names, such as parameters=['layers.*.weight']"
                raise InputError("not names of parameters", "parameters", repr(parameters), remedy)
        self._patterns = patterns
        self._names = _names(model, optimizer)
        self._forms: dict[int, Multiple] = {}
        self._step = OpenStep()
        self._rows: list[Row] = []
        self._notes: dict[str, float] = {}
        self._open: dict[int, Row] = {}  # the rows of the look that is going on
        self._bursts: dict[int, Burst] = {}
        self._intents: dict[int, Intent] = {}
        self._before: dict[int, Tensor] = {}
        self._replayed: dict[int, Tensor] = {}
        self._generator = torch.Generator().manual_seed(0)
        self._watched = self._chosen()
        for name, _, parameter in self._watched.values():
            if is_sharded(parameter):
                what = "only a shard of the parameter is here"
                remedy = "watch a model that is not sharded, or leave the parameter out"
                raise InputError(what, name, tuple(parameter.shape), remedy)
        self._check_patterns()
        self._handles = [
            optimizer.register_step_pre_hook(self._pre),
            optimizer.register_step_post_hook(self._post),
        ]
        # First before and last after the step: what attached rules do belongs to it.
        before = cast(OrderedDict, optimizer._optimizer_step_pre_hooks)  # torch declares dict
        before.move_to_end(self._handles[0].id, last=False)

    def note(self, train_loss: float | None = None, test_loss: float | None = None) -> None:
        """Tell losses; the next look records them.

        Raises:
            InputError: not a number.
        """
        for name, value in (("train_loss", train_loss), ("test_loss", test_loss)):
            if value is None:
                continue
            if not isinstance(value, Real):
                raise no_number(repr(value), name, "give loss.item()")
            self._notes[name] = float(value)  # a loss that runs away is worth recording, too

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

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:  # else what ended the training is the one to tell
                raise

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
        try:
            rows = [dict(row) for row in state_dict["rows"]]
            pl.DataFrame(rows, schema=SCHEMA)
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            what = "rows that are not a monitor's"
            raise InputError(what, "state_dict", type(error).__name__, "give Monitor.state_dict()") from error
        self.steps, self._rows = count(state_dict["steps"], "steps", least=0), rows
        self._open, self._bursts = {}, {}  # a look at what was before
        self._before, self._replayed, self._notes = {}, {}, {}

    def _chosen(self) -> dict[int, tuple[str, int, nn.Parameter]]:
        """The parameters to watch, by identity: name, group, tensor."""
        groups = self.optimizer.param_groups
        if any(id(parameter) not in self._names for group in groups for parameter in group["params"]):
            self._names = _names(self._model, self.optimizer)  # some were added since
        held = self._trainable()
        if self._patterns is None:
            rates = intents(self.optimizer, self._forms)
            # By the strength, too: in warm-up the rate may be 0 at first. And all of them where groups are
            # mixed up: those of strength 0 may decay.
            if any(multiple.mixed for multiple in self._forms.values()):
                return held
            decays = {key for key in held if rates[key].rate != 0 or rates[key].weight_decay > 0}
            return {key: watched for key, watched in held.items() if key in decays} or held
        return {key: w for key, w in held.items() if any(fnmatchcase(w[0], p) for p in self._patterns)}

    def _trainable(self) -> dict[int, tuple[str, int, nn.Parameter]]:
        """The optimizer's parameters that are not frozen, by identity: name, group, tensor."""
        return {
            id(parameter): (self._names[id(parameter)], i, parameter)
            for i, group in enumerate(self.optimizer.param_groups)
            for parameter in group["params"]
            if parameter.requires_grad
        }

    def _check_patterns(self) -> None:
        """Each pattern is the name of something; later it may be frozen."""
        names = [name for name, *_ in self._trainable().values()]
        for pattern in self._patterns or ():
            if not any(fnmatchcase(name, pattern) for name in names):
                remedy = f"the closest names are {', '.join(closest(pattern, names))}"
                what = "no parameter of the optimizer has such a name"
                raise InputError(what, "parameters", repr(pattern), remedy)

    # What is measured are the tensors themselves, not those of a graph.
    @_disable_dynamo
    @torch.no_grad()
    def _pre(self, optimizer: optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._step.begins():
            return
        place = self.steps % self.every
        if place >= self._burst:
            return
        # A rule that was attached since then acts within the step, too.
        cast(OrderedDict, optimizer._optimizer_step_post_hooks).move_to_end(self._handles[1].id)
        self._intents = intents(optimizer, self._forms)
        if place == 0:
            closure = args[1] if len(args) > 1 else kwargs.get("closure")
            self._begin(callable(closure))

    def _begin(self, closure: bool) -> None:
        """A look: keep the weights, and what they would be without decay."""
        self._finish()
        self._watched = self._chosen()
        live = {key: w for key, (_, _, w) in self._watched.items() if w.grad is not None or closure}
        self._bursts = {key: Burst(w, self._generator) for key, w in live.items()}
        self._before = {key: w.detach().clone() for key, w in live.items()}
        self._replayed = {}
        if not closure:
            try:
                self._replayed = without_decay(self.optimizer, [*live.values()])
            except Exception:  # of the copy, not of the training: the table has NaN and says so
                self._replayed = {}

    @_disable_dynamo
    @torch.no_grad()
    def _post(self, optimizer: optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del optimizer, args, kwargs
        if not self._step.ends():
            return
        place = self.steps % self.every
        if place < self._burst:
            if place == 0:
                self._open = {key: self._look(key) for key in self._bursts}
                self._before, self._replayed, self._notes = {}, {}, {}
            for key, burst in self._bursts.items():
                intent = self._intents.get(key)  # None for one that has left the optimizer
                burst.after(self._watched[key][2], _number(intent.rate) if intent else 0.0)
        self.steps += 1
        if place == self._burst - 1:
            self._finish()

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
        failed: list[Exception] = []
        for sink in self._sinks:
            try:
                sink([dict(row) for row in rows])
            except Exception as error:
                failed.append(error)
        if failed:
            raise failed[0]


def _number(rate: float) -> float:
    """The rate, or 0 where there is none: its part of u is then left in."""
    return 0.0 if math.isnan(rate) else rate


def _angle(before: Tensor, after: Tensor) -> float:
    """Between two vectors, in radians, exact for small angles too."""
    a, b = before / before.norm(), after / after.norm()
    return 2 * math.atan2(float((a - b).norm()), float((a + b).norm()))


def _names(model: nn.Module, optimizer: optim.Optimizer) -> dict[int, str]:
    """Names of the optimizer's parameters: the model's."""
    names = {id(candidate.parameter): candidate.name for candidate in inventory(arguments.model(model))}
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


# Elements of a parameter that are followed: enough that a correlation is known to about 1 %.
SAMPLE = 4096


class Burst:
    """Consecutive updates of one parameter, on a fixed sample of its elements; made before the first step.

    The gradient part of a step is u = w' - (1 - rate) w, w the weights before it. What changes the weights
    between two steps counts as part of the second.

    Args:
        parameter: the parameter.
        generator: draws the sample.
    """

    def __init__(self, parameter: nn.Parameter, generator: torch.Generator) -> None:
        count = parameter.numel()
        drawn = torch.randperm(count, generator=generator, device="cpu")[:SAMPLE] if count > SAMPLE else None
        self._index = None if drawn is None else drawn.sort().values.to(parameter.device)
        self._weights = [self._sampled(parameter)]
        self._rates: list[float] = []

    def after(self, parameter: nn.Parameter, rate: float) -> None:
        """Keep what the step has made of the weights; `rate` is the fraction that it was to remove."""
        self._weights.append(self._sampled(parameter))
        self._rates.append(rate)

    def products(self) -> list[float]:
        """Mean products u_t·u_{t+k} of the steps until now, k = 0, 1, ..., half of their number."""
        if len(self._rates) < 2:
            return []
        w = torch.stack(self._weights).double()
        kept = 1 - torch.tensor(self._rates, dtype=torch.float64, device=w.device)
        # A difference of numbers that are nearly equal takes all digits, its products do not.
        u = torch.addcmul(w[1:], kept[:, None], w[:-1], value=-1)
        size = u.abs().amax().clamp_min(1e-300)
        gram = u.div_(size).float()
        gram = (gram @ gram.T).double() * size**2
        return [float(gram.diagonal(k).mean()) for k in range(1 + len(u) // 2)]

    def _sampled(self, parameter: nn.Parameter) -> Tensor:
        flat = parameter.detach().reshape(-1)
        return flat.clone() if self._index is None else flat.index_select(0, self._index)


# Copies of weights, gradients and state are made for so many elements at a time.
PIECE = 1 << 23


@torch.no_grad()
def without_decay(optimizer: optim.Optimizer, parameters: Sequence[nn.Parameter]) -> dict[int, Tensor]:
    """What parameters would be after the coming step if nothing decayed, by identity.

    Optimizer, parameters, gradients and random numbers stay as they are. A parameter without gradient is
    left out.

    Args:
        optimizer: about to step; its gradients are made.
        parameters: of this optimizer.

    Raises:
        Exception: whatever a copy of the optimizer raises; ValueError where none can be made.
    """
    wanted = {id(parameter) for parameter in parameters if parameter.grad is not None}
    stepped: dict[int, Tensor] = {}
    devices = {parameter.device for parameter in parameters if parameter.device.type == "cuda"}
    with untouched(), torch.random.fork_rng(devices=devices), torch.no_grad():
        for group in optimizer.param_groups:
            held = [parameter for parameter in group["params"] if id(parameter) in wanted]
            for some in _pieces(held):
                copies = _stepped(optimizer, group, some)
                stepped |= {id(parameter): made for parameter, made in zip(some, copies, strict=True)}
    return stepped


def _pieces(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    some: list[nn.Parameter] = []
    for parameter in parameters:
        if some and sum(earlier.numel() for earlier in some) + parameter.numel() > PIECE:
            yield some
            some = []
        some.append(parameter)
    if some:
        yield some


def _stepped(
    optimizer: optim.Optimizer, group: dict[str, Any], parameters: list[nn.Parameter]
) -> list[Tensor]:
    """Copies of parameters after a step of a copy of the optimizer that holds nothing else."""
    twin = object.__new__(type(optimizer))  # copy.copy drops what a subclass or a gradient scaler has set
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    for parameter, made in zip(parameters, copies, strict=True):
        assert parameter.grad is not None
        made.grad = parameter.grad.detach().clone()
    # What the twin gets for what may be met again: itself, the copies, nothing of the other parameters.
    everything = [parameter for each in optimizer.param_groups for parameter in each["params"]]
    memo: dict[int, Any] = {id(w): nn.Parameter(w.detach().new_empty(0)) for w in everything}
    memo |= {id(parameter): made for parameter, made in zip(parameters, copies, strict=True)}
    memo[id(optimizer)] = twin
    twin.state = defaultdict(dict)
    for parameter, made in zip(parameters, copies, strict=True):
        if parameter in optimizer.state:
            twin.state[made] = _copied(optimizer.state[parameter], memo)
    own = {key: _copied(value, memo) for key, value in group.items() if key not in ("params", "param_names")}
    kept = ("state", "param_groups", *HOOKS, *WRAPPED)
    mine = {key: _copied(value, memo) for key, value in vars(optimizer).items() if key not in kept}
    twin.__dict__.update(mine, **{hooks: OrderedDict() for hooks in HOOKS})
    if "weight_decay" in own:
        own["weight_decay"] = 0.0
    twin.param_groups = [{**own, "params": copies}]
    twin.step()
    return [made.detach() for made in copies]


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A copy that shares nothing with the original; `memo` has, by identity, what was copied before."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, FunctionType) and value.__closure__:
        raise ValueError("a function that may hold the live optimizer")
    if isinstance(value, optim.Optimizer):
        raise ValueError("an optimizer inside, whose decay is its own")
    if type(value) is dict:
        return {key: _copied(item, memo) for key, item in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)([_copied(item, memo) for item in value])
    if isinstance(value, Tensor):
        memo[id(value)] = value.detach().clone()
        return memo[id(value)]
    return copy.deepcopy(value, memo)
