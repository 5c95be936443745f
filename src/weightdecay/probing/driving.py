"""A few steps of an optimizer: warm-up without decay, one step with it, one more to see what it remembers."""

import copy
import inspect
import math
import random
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim

from weightdecay.hooks.optimizers import HOOKS, WRAPPED

# Makes an optimizer on given parameters, with a step size and a strength.
Build = Callable[[list[nn.Parameter], float, float], Any]
Layout = Callable[[list[nn.Parameter]], Any]


class Unbuilt(Exception):
    """An optimizer that could not be made or stepped; the text says why."""


class _Model(nn.Module):
    """For optimizers that ask for the model."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self.weight = parameters[0]
        if len(parameters) > 1:
            self.bias = parameters[1]


def _plain(parameters: list[nn.Parameter]) -> Any:
    return parameters


def _groups(parameters: list[nn.Parameter]) -> Any:
    """Groups that say which parameters are matrices, as optimizers with a second one inside want it."""
    return [{"params": [p], "use_muon": p.ndim >= 2} for p in parameters]


def _named(parameters: list[nn.Parameter]) -> Any:
    return list(_Model(parameters).named_parameters())


def in_groups(layout: Layout, strengths: tuple[float, ...]) -> Layout | None:
    """The layout with a group for each parameter, of its own strength; None where there are no groups."""
    if layout not in (_plain, _groups):
        return None

    def laid(parameters: list[nn.Parameter]) -> Any:
        groups = _groups(parameters) if layout is _groups else [{"params": [p]} for p in parameters]
        return [
            {**group, "weight_decay": strength} for group, strength in zip(groups, strengths, strict=True)
        ]

    return laid


def layouts(make: Callable[..., Any]) -> list[Layout]:
    """Return the ways to hand parameters over, the likeliest first."""
    try:
        first = next(iter(inspect.signature(make).parameters), "")
    except (TypeError, ValueError):
        first = ""
    return [*([_Model] if first in ("model", "module") else []), _plain, _groups, _named]


def missing(make: Callable[..., Any], options: Mapping[str, Any]) -> list[str]:
    """Arguments without a default that were not given, the parameters aside."""
    try:
        signature = list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    wanted = [p.name for p in signature[1:] if p.default is p.empty and p.kind not in kinds]
    return [name for name in wanted if name not in {"lr", "weight_decay", *options}]


def builder(make: Callable[..., Any], layout: Layout, options: Mapping[str, Any]) -> Build:
    """An optimizer class or factory as a function of parameters, step size and strength."""

    def build(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(layout(parameters), **{"lr": lr, "weight_decay": weight_decay, **options})

    return build


def draws(shapes: list[tuple[int, ...]], count: int, seed: int, dtype: torch.dtype) -> list[list[Tensor]]:
    """`count` lists of standard normal tensors, from a generator of their own."""
    options: Any = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64, "device": "cpu"}
    return [[torch.randn(shape, **options).to(dtype) for shape in shapes] for _ in range(count)]


WARM = 12  # steps: past what optimizers do differently at first (rectification, skipped first steps)


@dataclass(frozen=True)
class Setting:
    """How to drive an optimizer.

    Args:
        build: makes it.
        start: the weights it starts from.
        gradients: one list for each step of the warm-up, then the probed step's and the last one's.
        curved: gradients come from a graph, for optimizers that differentiate them again.
        closure: step takes a closure.
        switched: the decay is switched on and off in the parameter groups; else by the constructor.
        warm: how many steps come before the probed one.
    """

    build: Build
    start: list[Tensor]
    gradients: list[list[Tensor]]
    curved: bool = False
    closure: bool = False
    switched: bool = True
    warm: int = WARM


@dataclass(frozen=True)
class Trajectory:
    """The weights before the probed step, after it, and after one more from the same place without decay."""

    before: list[Tensor]
    after: list[Tensor]
    echo: list[Tensor]


class Driver:
    """An optimizer on parameters of its own, and the switch of its decay."""

    def __init__(self, setting: Setting, lr: float, weight_decay: float) -> None:
        torch.default_generator.manual_seed(0)  # not torch.manual_seed, which seeds every GPU, too
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  (whatever an optimizer draws is the same in every run)
        self.setting = setting
        self.parameters = [nn.Parameter(value.clone()) for value in setting.start]
        self.optimizer = setting.build(self.parameters, lr, weight_decay)
        self.groups: list[dict[str, Any]] = self.optimizer.param_groups
        self._own = [group.get("weight_decay") for group in self.groups]
        if callable(train := getattr(self.optimizer, "train", None)):
            train()

    @property
    def switchable(self) -> bool:
        """Whether the strength stands in the parameter groups."""
        return any(bool(own) for own in self._own)

    def decay(self, on: bool) -> None:
        """Set the strength to what the constructor made of it, or to 0."""
        for group, own in zip(self.groups, self._own, strict=False):
            if own is not None:
                group["weight_decay"] = own if on else own * 0

    def learn(self, factor: float) -> None:
        """Multiply the step size, as a scheduler would."""
        for group in self.groups:
            if group.get("lr") is not None:
                group["lr"] = group["lr"] * factor

    def values(self) -> list[Tensor]:
        """The weights now."""
        return [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def put(self, values: list[Tensor]) -> None:
        """Set the weights."""
        for p, value in zip(self.parameters, values, strict=True):
            p.copy_(value)

    def step(self, gradients: list[Tensor]) -> None:
        """One step with these gradients."""
        pairs = list(zip(self.parameters, gradients, strict=True))

        def backward() -> Tensor:
            for p, g in pairs:
                p.grad = None if self.setting.curved else g.clone()
            if not self.setting.curved:
                return torch.ones(())
            # The gradient is g at this place, and the curvature 1.
            parts = ((g * p).sum() + (p - p.detach()).square().sum() / 2 for p, g in pairs)
            loss = sum(parts, torch.zeros(()))
            loss.backward(create_graph=True)
            return loss.detach()

        if hasattr(self.optimizer, "fused_backward"):  # updates while it differentiates
            loss = torch.stack([(g * p).sum() for p, g in pairs]).sum()
            self.optimizer.fused_backward(loss, self.groups[0]["lr"])
        elif self.setting.closure:
            self.optimizer.step(backward)
        else:
            backward()
            self.optimizer.step()


def run(
    setting: Setting,
    lr: float,
    weight_decay: float,
    *,
    decaying: bool = True,
    scale: float = 1.0,
    faster: float = 1.0,
    gradient: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Trajectory:
    """Warm up without decay, take the probed step, put the weights back and take one more without decay.

    Args:
        setting: the optimizer.
        lr: its step size.
        weight_decay: its strength.
        decaying: False for the same run without decay.
        scale: times all gradients.
        faster: times the step size in the probed step.
        gradient: makes the probed step's gradient from the random one and the weights; without a switch,
            that of the steps before it too.
    """
    driver = Driver(setting, lr, weight_decay)
    switched = setting.switched and driver.switchable
    if not switched and not decaying:
        driver = Driver(setting, lr, 0.0)
    taken = setting.gradients[: setting.warm + 2]
    *warm, probed, last = [[g * scale for g in gradients] for gradients in taken]
    driver.decay(on=not switched)
    for i, gradients in enumerate(warm):
        if i == setting.warm - 2:  # some read the step size at the end of a step
            driver.learn(faster)
        if gradient is not None and not switched:
            gradients = [gradient(g, w) for g, w in zip(gradients, setting.start, strict=True)]
        driver.step(gradients)
        if not switched:  # it may have decayed, so that the runs with and without it differ by now
            driver.put(setting.start)
    before = driver.values()
    driver.decay(on=decaying or not switched)
    if gradient is not None:
        probed = [gradient(g, w) for g, w in zip(probed, before, strict=True)]
    driver.step(probed)
    after = driver.values()
    driver.put(before)
    driver.decay(on=not switched)
    driver.step(last)
    return Trajectory(before, after, driver.values())


@dataclass(frozen=True)
class Fading:
    """What becomes of the weights at zero gradients.

    Args:
        rate: the fraction that a step removes from the norm in the long run; None where it is no number.
        acts: the steps that changed a weight, from 0.
    """

    rate: float | None
    acts: tuple[int, ...]

    @property
    def every(self) -> float:
        """How many steps lie between two that act."""
        if len(self.acts) < 2:
            return 1.0
        return (self.acts[-1] - self.acts[0]) / (len(self.acts) - 1)


def long_run(setting: Setting, lr: float, weight_decay: float, steps: int = 120) -> Fading:
    """Step at zero gradients from the start; twice as long where fewer than two of the steps act."""
    driver = Driver(setting, lr, weight_decay)
    zeros = [torch.zeros_like(value) for value in setting.start]
    norms, acts, kept = [], [], driver.values()
    for i in range(2 * steps):
        if i >= steps and len(acts) >= 2:
            break
        driver.step(zeros)
        norms.append(float(driver.parameters[0].detach().double().norm()))
        if not all(map(torch.equal, driver.parameters, kept)):
            acts.append(i)
            kept = driver.values()
    # From one step that acts to another: what acts every few steps is averaged over whole periods.
    first, last = (acts[len(acts) // 2 - 1], acts[-1]) if len(acts) > 1 else (steps // 2 - 1, steps - 1)
    early, late = norms[first], norms[last]
    if not (early > 0 and late > 0 and early + late < float("inf")):
        return Fading(None, tuple(acts))
    return Fading(1 - (late / early) ** (1 / (last - first)), tuple(acts))


def workable(setting: Setting, lr: float, weight_decay: float) -> Setting:
    """The way of driving it that works: gradients alone, with a graph, with a closure.

    Raises:
        Unbuilt: none does.
    """
    reasons = []
    for curved, closure in ((False, False), (True, False), (False, True), (True, True)):
        attempt = Setting(setting.build, setting.start, setting.gradients, curved, closure)
        try:
            driver = Driver(attempt, lr, weight_decay)
            if closure and not _takes_closure(driver.optimizer):
                continue
            for gradients in setting.gradients[:3]:
                driver.step(gradients)
        except Exception as error:  # an optimizer may raise anything
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
        else:
            return attempt
    raise Unbuilt(reasons[-1])


def _takes_closure(optimizer: Any) -> bool:
    try:
        return "closure" in inspect.signature(optimizer.step).parameters
    except (TypeError, ValueError):
        return False


# Options that choose an implementation; the plain one runs on small CPU tensors.
_IMPLEMENTATION = {"foreach": None, "fused": None, "capturable": False, "differentiable": False}
_SIMPLE = (bool, int, float, complex, str, type(None), torch.dtype)
# Group entries that schedulers and wrappers leave, or that speak of the live parameters.
_NOT_OPTIONS = ("params", "param_names")


def plain(value: Any) -> float:
    """A number that may be a tensor; NaN for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return float("nan")


def shadow(optimizer: optim.Optimizer, group: int) -> Callable[..., Any]:
    """A function of parameters, step size and strength that makes an optimizer like this one.

    Raises:
        Unbuilt: it holds something that can neither be shared nor copied.
    """
    kind = type(optimizer)
    options = _options(optimizer.param_groups[group])
    # A step counter belongs to the training, unless the constructor makes it.
    defaults = getattr(optimizer, "defaults", None) or {}  # a class that is none of torch's may have none
    if "step" in defaults:
        options["step"] = _options({"from": defaults["step"]}).get("from", 0)
    attributes = {
        key: _own(key, value, optimizer)
        for key, value in vars(optimizer).items()
        if key not in ("state", "param_groups", *HOOKS, *WRAPPED)
    }

    def make(parameters: Any, lr: float, weight_decay: float) -> Any:
        twin = kind.__new__(kind)
        vars(twin).update({key: copy.deepcopy(value) for key, value in attributes.items()})
        vars(twin).update({key: OrderedDict() for key in HOOKS})
        vars(twin).update(_rebound(optimizer, twin))
        twin.state = defaultdict(dict)
        twin.param_groups = []
        for own in parameters if isinstance(parameters[0], dict) else [{"params": parameters}]:
            group = copy.deepcopy(options)
            group |= {"lr": lr} if "lr" in options else {}
            group |= {"weight_decay": weight_decay} if "weight_decay" in options else {}
            group |= {key: value for key, value in own.items() if key == "params" or key in options}
            group["params"] = [own["params"]] if isinstance(own["params"], Tensor) else list(own["params"])
            twin.param_groups.append(group)
        return twin

    return make


def fingerprint(optimizer: optim.Optimizer, group: int) -> tuple[Any, ...] | None:
    """The class and all options of a group, to measure alike ones once; None if some cannot be compared."""
    kind = type(optimizer)
    items: list[tuple[str, str]] = []
    for key, value in optimizer.param_groups[group].items():
        if key in _NOT_OPTIONS or key in _IMPLEMENTATION:
            continue
        if not _simple(value) and not (isinstance(value, Tensor) and value.numel() == 1):
            return None
        items.append((key, repr(value.item() if isinstance(value, Tensor) else value)))
    for key, value in vars(optimizer).items():
        if key in ("state", "param_groups", "defaults", *HOOKS, *WRAPPED):
            continue
        if not _simple(value):
            return None
        items.append((f".{key}", repr(value)))
    return (kind, *sorted(items))


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's options without what it counts and remembers of the training."""
    options: dict[str, Any] = {}
    for key, value in group.items():
        if key in _NOT_OPTIONS or key == "step" or (isinstance(value, Tensor) and value.numel() > 1):
            continue
        if isinstance(value, Tensor):
            options[key] = value.item()
        elif key in _IMPLEMENTATION:
            options[key] = _IMPLEMENTATION[key]
        elif _simple(value):
            options[key] = value
    return options


def _simple(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_simple, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _simple(item) for key, item in value.items())
    return isinstance(value, _SIMPLE)


def _own(key: str, value: Any, optimizer: optim.Optimizer) -> Any:
    """What the clone gets for an attribute; nothing that leads back to the live tensors."""
    if isinstance(value, FunctionType) and value.__closure__:
        raise Unbuilt(f"{type(optimizer).__name__}.{key} is a function that may hold the live optimizer")
    if _simple(value) or isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return value
    if isinstance(value, MethodType):
        return None  # bound again in _rebound
    if key == "defaults" and isinstance(value, dict):
        return _options(value)
    if isinstance(value, (dict, list, tuple, set)) and not value:
        return type(value)()
    own = getattr(value, "__dict__", None)
    if own is not None and not isinstance(value, (nn.Module, optim.Optimizer)) and _simple(own):
        return copy.deepcopy(value)  # a small object, such as a schedule of its own
    if isinstance(value, (nn.Module, Tensor, optim.Optimizer)) or not isinstance(value, (dict, list, tuple)):
        raise Unbuilt(f"{type(optimizer).__name__}.{key} is a {type(value).__name__}, which is not copied")
    raise Unbuilt(f"{type(optimizer).__name__}.{key} holds more than plain values, which are not copied")


def _rebound(optimizer: optim.Optimizer, twin: Any) -> dict[str, Any]:
    """Methods kept as attributes, bound to the twin."""
    return {
        key: MethodType(value.__func__, twin)
        for key, value in vars(optimizer).items()
        if isinstance(value, MethodType) and value.__self__ is optimizer and key not in WRAPPED
    }


Pattern = tuple[float, ...]
# Strengths of three groups, in multiples of one: a first group that decays, and one that does not.
PATTERNS: tuple[Pattern, ...] = ((1.0, 2.0, 0.0), (0.0, 1.0, 2.0))
_WEAK = 1e-3  # strengths so small that many steps remove in proportion to them


def mixed_up(
    build_with: Callable[[Pattern], Build],
    setting: Setting,
    patterns: Sequence[Pattern],
    lr: float,
    strength: float,
    every: float,
) -> str | None:
    """How groups of one matrix each decay, where that is not by their own strengths; else None.

    All have the same weights and gradients, so that they differ by their strengths alone.

    Args:
        build_with: makes an optimizer with a parameter in each group, of these strengths.
        setting: how to drive it; its `build` puts all parameters into one group.
        patterns: the strengths to try, each in multiples of one.
        lr: the step size.
        strength: λ, of which it takes no more than a little.
        every: how many steps lie between two that decay.
    """
    strength, start = min(strength, _WEAK), setting.start[0]
    gradients = [drawn[0] for drawn in setting.gradients[: max(WARM + 1, int(2 * every) + 1)]]

    def after(build: Build, n: int, weight_decay: float) -> list[Tensor]:
        driver = Driver(replace(setting, build=build, start=[start] * n), lr, weight_decay)
        for gradient in gradients:
            driver.step([gradient] * n)
        return driver.values()

    def removed(build: Build, n: int, weight_decay: float) -> list[float]:
        # Against as many parameters without decay: random numbers and norms over all of them are the same.
        pairs = zip(after(setting.build, n, 0.0), after(build, n, weight_decay), strict=True)
        return [float(((without - with_).double() / start.double()).median()) for without, with_ in pairs]

    once, twice = (removed(setting.build, 1, times * strength)[0] for times in (1, 2))
    if not abs(once) > 0 or not 1 < twice / once < 8:
        return None  # it is not the strength that decides
    power = math.log2(twice / once)
    first, second = removed(setting.build, 2, strength)
    if abs(first / once - 1) < 0.3 and abs(beside := second / once) < 0.3:
        return f"of two alike parameters in one group, the second decays {abs(beside):.2g} times as much"
    for pattern in patterns:
        strengths = tuple(times * strength for times in pattern)
        seen = [share / once for share in removed(build_with(strengths), len(strengths), max(strengths))]
        wanted = [times**power for times in pattern]
        common = sum(seen) / sum(wanted)  # a norm over all of them may scale all alike
        off = [
            abs(share - common * to) > 0.3 * common * max(to, 1.0)
            for share, to in zip(seen, wanted, strict=True)
        ]
        if any(off) or not 0.3 < common < 3:
            asked, got = (", ".join(f"{abs(value):.2g}" for value in values) for values in (pattern, seen))
            return f"strengths in the proportion {asked} decay as {got}"
    return None
