"""A few steps of an optimizer: warm-up without decay, one step with it, one more to see what it remembers."""

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightdecay.probing.building import Build, Unbuilt, parameters_like

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
class Course:
    """The weights before the probed step, after it, and after one more from the same place without decay."""

    before: list[Tensor]
    after: list[Tensor]
    echo: list[Tensor]


class Driver:
    """An optimizer on parameters of its own, and the switch of its decay."""

    def __init__(self, setting: Setting, lr: float, weight_decay: float) -> None:
        torch.default_generator.manual_seed(0)  # not torch.manual_seed, which seeds every GPU, too
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  (whatever an optimizer draws is the same in every course)
        self.setting = setting
        self.parameters = parameters_like(setting.start)
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

        def backward() -> Tensor:
            for p in self.parameters:
                p.grad = None
            return self._backward(gradients)

        if hasattr(self.optimizer, "fused_backward"):  # updates while it differentiates
            loss = torch.stack([(g * p).sum() for p, g in zip(self.parameters, gradients, strict=True)]).sum()
            self.optimizer.fused_backward(loss, self.groups[0]["lr"])
        elif self.setting.closure:
            self.optimizer.step(backward)
        else:
            backward()
            self.optimizer.step()

    def _backward(self, gradients: list[Tensor]) -> Tensor:
        if not self.setting.curved:
            for p, g in zip(self.parameters, gradients, strict=True):
                p.grad = g.clone()
            return torch.ones(())
        pairs = list(zip(self.parameters, gradients, strict=True))
        # The gradient is g at this place, and the curvature 1.
        loss = sum(((g * p).sum() + (p - p.detach()).square().sum() / 2 for p, g in pairs), torch.zeros(()))
        loss.backward(create_graph=True)
        return loss.detach()


def run(
    setting: Setting,
    lr: float,
    weight_decay: float,
    *,
    decaying: bool = True,
    scale: float = 1.0,
    faster: float = 1.0,
    gradient: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Course:
    """Warm up without decay, take the probed step, put the weights back and take one more without decay.

    Args:
        setting: the optimizer.
        lr: its step size.
        weight_decay: its strength.
        decaying: False for the same course without decay.
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
    for i, given in enumerate(warm):
        gradients = given
        if i == setting.warm - 2:  # some read the step size at the end of a step
            driver.learn(faster)
        if gradient is not None and not switched:
            gradients = [gradient(g, w) for g, w in zip(gradients, setting.start, strict=True)]
        driver.step(gradients)
        if not switched:  # it may have decayed, so that the courses with and without it differ by now
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
    return Course(before, after, driver.values())


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
        if not all(torch.equal(one, other) for one, other in zip(driver.parameters, kept, strict=True)):
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
