"""Rules that are not the package's, and optimizers that are not torch's, tried before they are used."""

import copy
import functools
import inspect
import itertools
import logging
import random
import types
import warnings
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.hooks.decay import PHASES, Decay
from weightdecay.hooks.optimizers import inside
from weightdecay.hooks.plan import Plan, Target
from weightdecay.hooks.sparse import Sparse
from weightdecay.rules import Decoupled, Rule, Step
from weightdecay.rules.base import seen
from weightdecay.rules.strength import GroupStrength

# Shared by the twin and its original: nothing in them changes.
_SHARED = (
    *(bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, torch.Size),
    *(types.BuiltinFunctionType, types.ModuleType, logging.Logger, slice, range),
)
_NARROW = (torch.bfloat16, torch.float16)


class NoTwin(Exception):
    """Something in an optimizer cannot be copied; the text says what."""


@contextmanager
def untouched(gpus: Sequence[int] = ()) -> Iterator[None]:
    """Keep random numbers drawn inside from changing those drawn outside, and run no global hook."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002  (an optimizer may use it)
    everywhere: list[Any] = [_global_optimizer_pre_hooks, _global_optimizer_post_hooks]
    kept = [dict(hooks) for hooks in everywhere]
    try:
        for hooks in everywhere:
            hooks.clear()
        elsewhere = torch.get_default_device().type != "cpu"
        on_cpu = torch.device("cpu") if elsewhere else nullcontext()
        with (
            on_cpu,
            torch.random.fork_rng(devices=list(gpus)),
            warnings.catch_warnings(),
            torch.enable_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        for hooks, own in zip(everywhere, kept, strict=True):
            hooks.update(own)


class Twin:
    """A copy of an optimizer that shares no tensor with it.

    Every tensor is cut to its first elements in each dimension: a master copy of a parameter stays one.

    Args:
        optimizer: the original; it is only read.
        side: how many elements of each dimension are kept; None keeps all.

    Attributes:
        optimizer: the copy, of the same class, without hooks.

    Raises:
        NoTwin: it holds something that cannot be copied, such as a lock.
    """

    def __init__(self, optimizer: optim.Optimizer, side: int | None) -> None:
        self._side = side
        self._copies: dict[int, Any] = {}
        self._originals: list[Any] = []  # kept alive, so that no other object takes their ids
        self.optimizer: optim.Optimizer = self._of(optimizer)

    def parameter(self, original: Tensor) -> Tensor:
        """The copy of a parameter."""
        return self._copies[id(original)]

    def optimizers(self) -> list[optim.Optimizer]:
        """The copy, and those inside it."""
        return [self.optimizer, *inside(self.optimizer)]

    def _of(self, value: Any) -> Any:
        """The copy of whatever an optimizer holds."""
        if isinstance(value, _SHARED):
            return value
        if id(value) not in self._copies:
            self._originals.append(value)
            made = self._made(value)
            self._copies.setdefault(id(value), made)
        return self._copies[id(value)]

    def _started(self, value: Any, made: Any) -> Any:
        """Remember a copy before it is filled: it may hold itself."""
        self._copies[id(value)] = made
        return made

    def _made(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._corner(value)
        if isinstance(value, dict):
            made = self._started(value, _emptied(value))
            for key, item in list(value.items()):
                made[self._of(key)] = self._of(item)
            return made
        if isinstance(value, list | deque | set):
            made = self._started(value, _emptied(value))
            items = [self._of(item) for item in value]
            made.update(items) if isinstance(value, set) else made.extend(items)
            return made
        if isinstance(value, tuple):
            parts = [self._of(item) for item in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        return self._made_callable(value)

    def _made_callable(self, value: Any) -> Any:
        if isinstance(value, types.MethodType):
            return types.MethodType(self._of(value.__func__), self._of(value.__self__))
        if isinstance(value, functools.partial):
            parts = self._of(value.func), self._of(value.args), self._of(value.keywords)
            return functools.partial(parts[0], *parts[1], **parts[2])
        if isinstance(value, weakref.ref):
            target = value()
            return value if target is None else weakref.ref(self._of(target))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, torch.Generator):
            return torch.Generator(value.device).set_state(value.get_state())
        return self._object(value)

    def _function(self, value: types.FunctionType) -> Any:
        """A function whose closure may hold the optimizer or its tensors."""
        if not value.__closure__:
            return value
        cells = tuple(types.CellType() for _ in value.__closure__)
        made = types.FunctionType(
            value.__code__, value.__globals__, value.__name__, value.__defaults__, cells
        )
        self._started(value, made)
        made.__kwdefaults__ = value.__kwdefaults__
        for cell, own in zip(value.__closure__, cells, strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not bound yet
                continue
            own.cell_contents = self._of(content)
        vars(made).update({key: self._of(own) for key, own in vars(value).items()})
        return made

    def _object(self, value: Any) -> Any:
        kind: Any = type(value)
        if not hasattr(value, "__dict__"):
            try:
                return copy.deepcopy(value)
            except Exception as error:
                raise NoTwin(f"it holds a {kind.__name__}, which cannot be copied") from error
        try:
            made = self._started(value, kind.__new__(kind))
        except TypeError as error:
            raise NoTwin(f"it holds a {kind.__name__}, which cannot be copied") from error
        for key, own in vars(value).items():
            ours = callable(own) and str(getattr(own, "__module__", "")).startswith("weightdecay.")
            if isinstance(value, optim.Optimizer) and key.startswith("_optimizer_") and "hooks" in key:
                vars(made)[key] = _emptied(own)  # hooks are the original's
            elif not (ours or hasattr(own, "_wrapped_by_lr_sched")):  # these lead to the original
                vars(made)[key] = self._of(own)
        return made

    def _corner(self, value: Tensor) -> Tensor:
        """The first elements of a tensor, here; 16 bits are too narrow for a trial."""
        here = value.detach()
        if type(here) is not Tensor and not isinstance(here, nn.Parameter):
            here = seen(here) if not value.is_complex() else here
        if here.layout == torch.strided and self._side is not None:
            here = here[tuple(slice(0, self._side) for _ in here.shape)]
        here = here.to(torch.float32) if here.dtype in _NARROW else here.clone()
        if isinstance(value, nn.Parameter):
            return nn.Parameter(here, requires_grad=value.requires_grad)
        return here.requires_grad_(value.requires_grad and value.is_leaf)


def _emptied(value: Any) -> Any:
    made = copy.copy(value)
    made.clear()
    return made


TOLERANCE = 0.01  # of what is left
# How an optimizer is driven: gradients made before, made with a graph, by a closure, or in two phases.
DRIVEN = {
    "plain": "driven by step()",
    "graph": "driven by step() after create_graph=True",
    "closure": "driven by step(closure)",
    "phases": "driven by first_step() and second_step()",
}
# Sides of the twin's tensors: a corner; whole, where a corner does not do and there are not many elements.
SIDES, MANY = (4, None), 1 << 16
# More parameters than this are represented by one of each kind.
MOST = 4
_KNOWN: dict[Any, bool | str | NoTwin] = {}  # what a trial found, by class and options


@dataclass(frozen=True)
class TrialRun:
    """Some steps with a constant decay.

    Args:
        steps: how many.
        rate: what each removes.
        lr: the learning rate; None leaves the optimizer's own.
    """

    steps: int
    rate: float
    lr: float | None

    @property
    def left(self) -> float:
        """What decay should leave."""
        return (1 - self.rate) ** self.steps


# With gradients, at a learning rate so small that they hardly move a weight (slow weights may be a hundred
# steps behind); and at the optimizer's own without gradients, where what it does by itself shows.
RUNS = TrialRun(104, 1 / 50, 1e-8), TrialRun(24, 1 / 16, None)


@torch.no_grad()
def try_rule(rule: Rule, targets: tuple[Target, ...]) -> None:
    """Run a rule on made-up weights of a parameter's shape.

    Raises:
        InputError: the rule overrides nothing, fails, or answers with something that is no new weight.
    """
    kind = type(rule)
    if kind.partner_of is not Rule.partner_of:
        return  # it looks at real parameters, of which a trial has none
    if rule.plain and (kind.gradient, kind.law) == (Rule.gradient, Rule.law):
        raise InputError(
            "the rule overrides none of a rule's methods", "rule", kind.__name__, "write a method `decayed`"
        )
    target = min(targets, key=lambda target: (target.parameter.ndim < 2, target.parameter.numel()))
    like = target.parameter
    dtype = like.dtype.to_real()  # complex weights come as pairs
    w = torch.linspace(-1, 1, like.numel(), dtype=dtype, device=like.device).view(like.shape)
    with torch.random.fork_rng(devices=[]):
        answer = _answer(rule, w, target.name)
        flat = _answer(rule, w.flatten(), target.name) if rule.elementwise else answer.flatten()
        mixes = rule.elementwise and kind.start is Rule.start and _mixes(rule, w.flatten(), flat, target.name)
    if not torch.equal(flat, answer.flatten()):
        what = "the rule depends on the weight's shape, and weights come flat"
        raise InputError(what, "rule", kind.__name__, "set elementwise = False")
    if mixes:
        what = "the rule looks at more of the weight than one element, and weights come in pieces and joined"
        raise InputError(what, "rule", kind.__name__, "set elementwise = False")


def _mixes(rule: Rule, w: Tensor, answer: Tensor, name: str) -> bool:
    """Whether a rule makes something else of a weight when another is joined to it, other than by chance."""
    joined = _answer(rule, torch.cat([w, 3 * w + 1]), name)[: len(w)]
    alike = torch.allclose(joined, answer, rtol=1e-4, atol=1e-6, equal_nan=True)
    return not alike and torch.equal(_answer(rule, w, name, seed=1), answer)


def _answer(rule: Rule, w: Tensor, name: str, seed: int = 0) -> Tensor:
    """What the rule makes of a weight, checked."""
    kind, before = type(rule).__name__, w.clone()
    try:
        torch.manual_seed(seed)  # within the fork: a rule may draw, and draws the same each time
        state: object = rule.start(w.clone(), name)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            what, remedy = "start has to return a dictionary of tensors", 'say {"key": tensor}'
            raise InputError(what, kind, type(state).__name__, remedy)
        ones = torch.ones_like(w)
        step = Step(
            0.5,
            0.5,
            update=ones if rule.needs_update else None,
            state=state,
            lr=0.5,
            before=ones if rule.after else None,
            second_moment=1.0,
            name=name,
        )
        answer = rule.gradient(torch.ones_like(w), w, step) if rule.coupled else rule.decayed(w, step)
    except InputError:
        raise
    except Exception as error:
        what = f"the rule failed on a trial ({type(error).__name__}: {error})"
        raise InputError(what, "rule", kind, _hint(rule, error, w)) from error
    method = "gradient" if rule.coupled else "decayed"
    if not isinstance(answer, Tensor) or answer.shape != w.shape:
        returned = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        what = f"{method} has to return a tensor of the weight's shape"
        raise InputError(what, kind, returned, f"{tuple(w.shape)} is needed")
    if not torch.equal(w, before):
        what = f"{method} changes the weight it is given"
        raise InputError(what, "rule", kind, "return a new tensor instead")
    return answer


def _hint(rule: Rule, error: Exception, w: Tensor) -> str:
    if isinstance(error, NotImplementedError):
        return "a coupled rule needs a method `gradient`"
    if "NoneType" in str(error) and not rule.needs_update:
        return "set needs_update = True to be given step.update"
    if rule.elementwise and w.ndim == 1:
        return "weights come flat unless elementwise = False"
    return ""


def try_optimizer(optimizer: optim.Optimizer, plan: Plan, rules: Sequence[Rule]) -> bool:
    """Whether decay beside the update has to be done after the step, since it would not survive it otherwise.

    The optimizer, which is not of torch's own classes, is driven on a small twin: without decay, and with
    decay before and after the step, in all ways in which it can be driven. Nothing outside is changed.

    Raises:
        InputError: the decay does not survive in one of these ways.
    """
    if all(rule.coupled for rule in rules):
        return False
    by_hooks = [targets for i, targets in enumerate(plan.targets) if i not in plan.native]
    decaying = [target.parameter for targets in by_hooks for target in targets]
    if not decaying:
        return False
    key = _fingerprint(optimizer, decaying)
    if key is not None and key in _KNOWN:
        verdict = _KNOWN[key]
    else:
        with untouched(_gpus(decaying)):
            verdict = _verdict(optimizer, plan, decaying)
        if len(_KNOWN) > 1000:
            _KNOWN.clear()
        if key is not None:
            _KNOWN[key] = verdict
    name = type(optimizer).__name__
    if isinstance(verdict, str):
        raise InputError(
            "decay beside the update does not survive the step",
            "optimizer",
            f"{name}, {verdict}",
            "use its own weight_decay (wd.probe shows what that does), or another optimizer",
        )
    if isinstance(verdict, NoTwin):
        warnings.warn(
            f"whether decay survives a step of {name} could not be tried ({verdict}): see with wd.Monitor "
            "whether it happens",
            WeightDecayWarning,
            stacklevel=3,
        )
        return False
    return verdict


def _verdict(optimizer: optim.Optimizer, plan: Plan, targets: Sequence[Tensor]) -> bool | str | NoTwin:
    """Whether decay has to be late, why it is lost, or why nothing can be said."""
    reason = NoTwin("it has no parameters")
    held = [p for group in optimizer.param_groups for p in group["params"]]
    for chosen in [_chosen(optimizer, targets)] * (len(held) > MOST) + [held]:
        for side in SIDES:
            if side is None and sum(p.numel() for p in held) > MANY:
                continue
            try:
                return _Trial(optimizer, plan, targets, chosen, side).verdict()
            except NoTwin as error:
                reason = error
    return reason


def _chosen(optimizer: optim.Optimizer, targets: Sequence[Tensor]) -> list[Tensor]:
    """One target of each kind: of the same options and number of dimensions."""
    ids = {id(target) for target in targets}
    kinds: dict[Any, Tensor] = {}
    for group in optimizer.param_groups:
        options = repr(sorted((k, v) for k, v in group.items() if isinstance(v, bool | str | int)))
        for p in group["params"]:
            if id(p) in ids:
                kinds.setdefault((options, p.ndim), p)
    return list(kinds.values())[:MOST]


class _Trial:
    """An optimizer on a small twin, driven with and without decay.

    Args:
        optimizer: the original.
        plan: what decays.
        targets: the parameters that decay by hooks.
        chosen: the parameters that the twin keeps.
        side: how much of each dimension.
    """

    def __init__(
        self,
        optimizer: optim.Optimizer,
        plan: Plan,
        targets: Sequence[Tensor],
        chosen: Sequence[Tensor],
        side: int | None,
    ) -> None:
        self._optimizer, self._plan, self._side = optimizer, plan, side
        self._chosen = {id(p) for p in chosen}
        self._evaluated = 0  # closures in the last run
        self._gpus = _gpus(targets)
        self._targets = [target for target in targets if id(target) in self._chosen]

    def verdict(self) -> bool | str:
        """Whether decay has to be late, or why it is lost.

        Raises:
            NoTwin: the twin cannot be driven.
        """
        reasons, ways, late = [], 0, False
        for way in DRIVEN:
            if (way == "graph" and ways) or (way == "phases" and not hasattr(self._optimizer, PHASES[0])):
                continue
            for run in RUNS:
                plain = self._plain(run, way, reasons)
                if plain is None:
                    break
                try:
                    # A gradient that is taken again would be that of weights which have decayed.
                    again = self._evaluated > run.steps
                    needed = late or again or not self._survives(run, plain, way, late=False)
                    if needed and not self._survives(run, plain, way, late=True):
                        return self._why(run, plain, way)
                except InputError as error:  # it takes a closure and does not call it: so will training say
                    reasons.append(error.what)
                    break
                late, ways = needed, ways + 1
        if not ways:
            raise NoTwin(reasons[0])
        return late

    def _plain(self, run: TrialRun, way: str, reasons: list[str]) -> list[list[Tensor]] | None:
        """The weights without decay; None where the optimizer cannot be driven so."""
        try:
            plain = self._drive(run, way)
        except NoTwin:
            raise
        except Exception as error:  # an optimizer may raise anything where it is driven in another way
            reasons.append(f"{type(error).__name__}: {error}".splitlines()[0][:120])
            return None
        if all(torch.isfinite(w).all() for w in plain[-1]):
            return plain
        reasons.append("its weights are not finite after a trial")
        return None

    def _survives(self, run: TrialRun, plain: list[list[Tensor]], way: str, late: bool) -> bool:
        """Whether decay leaves what it should.

        That is one thing where the update does not depend on the weights, another where it multiplies them,
        and something between for an update of the weights' size.
        """
        decayed = self._drive(run, way, decaying=True, late=late)[-1]
        added = plain[0]
        for before, after in itertools.pairwise(plain[:-1]):
            added = [(1 - run.rate) * w + (b - a) for w, a, b in zip(added, before, after, strict=True)]
        for measured, beside, undecayed in zip(decayed, added, plain[-1], strict=True):
            times = run.left * undecayed
            between = min(float((beside - times).norm()), 2 * TOLERANCE * float(undecayed.norm()))
            if not any((measured - e).norm() <= TOLERANCE * e.norm() + between for e in (beside, times)):
                return False
        return True

    def _why(self, run: TrialRun, plain: list[list[Tensor]], way: str) -> str:
        """The reason in words."""
        decayed = self._drive(run, way, decaying=True, late=True)
        left = float(torch.stack([w.norm() for w in decayed[-1]]).norm())
        share = left / float(torch.stack([w.norm() for w in plain[-1]]).norm())
        measured = f"{share:.3g} of a weight is left after {run.steps} steps, for {run.left:.3g}"
        if all(callable(getattr(self._optimizer, name, None)) for name in ("train", "eval")):
            what = "whose weights are a blend of two sequences: decay from outside reaches one only"
        elif share > 0.9:
            what = "which puts back its weights, or makes them anew from what it keeps"
        else:
            what = "which blends its weights with others that it keeps, or changes their size itself"
        return f"{what} ({DRIVEN[way]}, {measured})"

    def _drive(
        self, run: TrialRun, way: str, decaying: bool = False, late: bool = False
    ) -> list[list[Tensor]]:
        """The weights before each step, after the last, and as evaluation sees them."""
        # Not torch.manual_seed, which seeds every GPU, too.
        for generator in (
            torch.default_generator,
            *map(torch.cuda.default_generators.__getitem__, self._gpus),
        ):
            generator.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  (whatever an optimizer draws is the same in every run)
        twin = Twin(self._optimizer, self._side)
        for optimizer in twin.optimizers():
            self._reduce(optimizer, twin, run.lr)
        weights = [twin.parameter(target) for target in self._targets]
        if decaying:
            self._attach(twin, run.rate, late)
        _call(twin.optimizer, "train")
        history = [_values(weights)]
        held = [p for group in twin.optimizer.param_groups for p in group["params"] if p.requires_grad]
        generator = torch.Generator().manual_seed(0)
        scale = 0.0 if run.lr is None else 1.0
        some = [[scale * torch.randn(p.shape, generator=generator).to(p) for p in held] for _ in range(8)]
        self._evaluated = 0
        for step in range(run.steps):
            self._evaluated += _step(twin.optimizer, way, held, some[step % len(some)])
            history.append(_values(weights))
        _call(twin.optimizer, "eval")
        return [*history, _values(weights)]

    def _reduce(self, optimizer: optim.Optimizer, twin: Twin, lr: float | None) -> None:
        """Leave the chosen parameters, at a learning rate above 0, with weights that are not all zero."""
        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        kept = {id(twin.parameter(p)) for p in held if id(p) in self._chosen}
        for group in optimizer.param_groups:
            if len(own := [p for p in group["params"] if id(p) in kept]) < len(group["params"]):
                group["params"][:] = own
                group.pop("param_names", None)
            if "lr" in group and (lr is not None or float(group["lr"]) == 0):  # a warm-up starts at 0
                now = 1e-3 if lr is None else lr
                group["lr"] = torch.full_like(group["lr"], now) if isinstance(group["lr"], Tensor) else now
            for p in own:
                if not p.detach().square().mean() > 1e-6:
                    p.data = torch.linspace(-1, 1, p.numel()).to(p).view_as(p)
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]

    def _attach(self, twin: Twin, rate: float, late: bool) -> None:
        """Decay by a constant rate, with the hooks that decay in training."""
        weights = {id(twin.parameter(target)) for target in self._targets}
        groups = twin.optimizer.param_groups
        targets = tuple(
            tuple(Target(f"{i} {j}", p, 1.0) for j, p in enumerate(group["params"]) if id(p) in weights)
            for i, group in enumerate(groups)
        )
        constant = GroupStrength("constant", None, lambda _: rate)
        rule = Decoupled(rate)
        plan = Plan(
            assignments=((),) * len(groups),
            targets=targets,
            strengths=((constant,) * len(groups),),
            native={},
            named=True,
            partners=({},),
        )
        sparse = Sparse("touched", twin.optimizer, (rule,), None, False)
        Decay(twin.optimizer, rule, plan, lambda: plan, False, sparse, late=late)


def _values(weights: Sequence[Tensor]) -> list[Tensor]:
    return [w.detach().clone().double() if not w.is_complex() else w.detach().clone() for w in weights]


def _step(optimizer: Any, way: str, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> int:
    """One step, as a user takes it; return how often its closure was evaluated."""
    calls = []

    def closure() -> Tensor:
        calls.append(1)
        return backward()

    def backward() -> Tensor:
        for p, g in zip(weights, gradients, strict=True):
            p.grad = None if way == "graph" else g.clone()
        if way == "graph":
            with torch.enable_grad():  # the gradient is g here, and the curvature 1
                pairs = zip(weights, gradients, strict=True)
                parts = [(g * p).sum().real + (p - p.detach()).abs().square().sum() / 2 for p, g in pairs]
                torch.stack(parts).sum().backward(create_graph=True)
        return torch.ones(())

    backward()
    if way == "phases":
        optimizer.first_step()
        backward()
        optimizer.second_step()
    elif way == "closure":
        optimizer.step(closure)
    else:
        arguments = inspect.signature(optimizer.step).parameters.values()
        needed = [a for a in arguments if a.default is a.empty and a.name != "closure"]
        losses = [a for a in needed if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)]
        optimizer.step(*(torch.ones(()) for _ in losses))
    return len(calls)


def _gpus(parameters: Sequence[Tensor]) -> list[int]:
    """The GPUs that hold them."""
    devices = {p.device for p in parameters if p.device.type == "cuda"}
    return sorted(torch.cuda.current_device() if gpu.index is None else gpu.index for gpu in devices)


def _call(optimizer: Any, name: str) -> None:
    """Call `train` or `eval`, where there is one."""
    if callable(method := getattr(optimizer, name, None)):
        method()


def _fingerprint(optimizer: optim.Optimizer, targets: Sequence[Tensor]) -> Any:
    """What tells optimizers apart whose trials may differ; None where it cannot be said."""
    if inside(optimizer) or optimizer.state:
        return None
    simple = (bool, int, float, str, type(None))

    def plain(value: Any) -> bool:
        return isinstance(value, simple) or (isinstance(value, tuple | list) and all(map(plain, value)))

    parts: list[Any] = [type(optimizer), tuple((tuple(t.shape), t.dtype, t.device) for t in targets)]
    for group in optimizer.param_groups:
        options = {k: v for k, v in group.items() if k not in ("params", "param_names", "initial_lr")}
        if not all(map(plain, options.values())):
            return None
        parts.append((len(group["params"]), repr(sorted(options.items()))))
    for key, value in vars(optimizer).items():
        if key in ("state", "param_groups", "defaults") or key.startswith("_optimizer_"):
            continue
        if not plain(value):
            return None
        parts.append((key, repr(value)))
    return tuple(parts)
