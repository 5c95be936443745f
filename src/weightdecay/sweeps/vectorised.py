"""The copies of a chunk as one model: parameters (seeds, strengths, ...), nested vmap, one optimizer."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn, optim
from torch.func import functional_call, vmap
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from weightdecay.hooks.optimizers import direction, facts, is_readable
from weightdecay.hooks.plan import Target
from weightdecay.memory import kept_memory
from weightdecay.rules import Rule, Step
from weightdecay.sweeps.chunk import Settings, optimizer_of
from weightdecay.sweeps.looks import (
    all_trained,
    at_epoch,
    load_optimizer_state,
    loss_of,
    made,
    measured_alone,
    measures_of,
    mixed,
    optimizer_state,
    order,
    outputs_of,
    pack,
    reseed,
    tensors_of,
    unpack,
)
from weightdecay.sweeps.task import Checkpoint, ChunkResult, Data, OnEpoch

AXES = 2  # the leading axes of a stacked parameter: seeds and strengths


class Copies:
    """Every strength of a chunk at all of its seeds, in training; made from a model of each seed."""

    def __init__(self, settings: Settings, models: list[nn.Module]) -> None:
        self.settings = settings
        task, chunk = settings.task, settings.chunk
        self.model, shape = models[0], (len(chunk.seeds), len(chunk.strengths))
        self.buffers = _stacked(list(map(tensors_of, models)), shape[1])
        self.parameters = {}
        for name, p in self.model.named_parameters():
            self.parameters[name] = nn.Parameter(self.buffers.pop(name), requires_grad=p.requires_grad)
        self.optimizer = optimizer_of(task, list(self.parameters.values()), chunk.lr)
        fuse(self.optimizer)
        self.decay = StackedDecay(settings, self.optimizer, self.parameters)
        self.diverged = torch.full(shape, -1, dtype=torch.int64, device=task.device)
        self.looks: list[dict[str, Any]] = []
        self._losses = self._over_copies(self._loss, len(task.train.inputs), 0, seed=0)
        self._outputs = self._over_copies(self._output, len(task.test.inputs), seed=None)

    def _loss(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Tensor:
        output = functional_call(self.model, (parameters, buffers), data[:-1])
        return loss_of(self.settings.task, output, data[-1])

    def _output(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Any:
        return functional_call(self.model, (parameters, buffers), data)

    def _over_copies(self, function: Callable[..., Any], inputs: int, *more: int, seed: int | None) -> Any:
        """A function of one copy's weights, inputs and more, for all copies.

        All strengths share the inputs, so a first layer sees one batch for all of them; seeds have inputs of
        their own (axis `seed`) or not (None). What is drawn is the same at every strength: a model that
        draws has one seed here.
        """
        inner = vmap(function, (0, 0, *(None,) * inputs, *more), randomness="same")
        if len(self.settings.chunk.seeds) == 1:  # one level less for every operation to go through
            return _with_one_seed(inner, inputs if seed is None else 0)
        return vmap(inner, (0, 0, *(seed,) * inputs, *more), randomness="same")

    def train_epoch(self, epoch: int, data: Data) -> None:
        """Train an epoch, counted from 0, and look at the test data after it if it is time."""
        task, chunk, rates = self.settings.task, self.settings.chunk, self.settings.rates
        self.model.train()
        orders = torch.stack([order(len(data), seed, epoch) for seed in chunk.seeds]).to(task.device)
        batches = orders.split(task.batch_size, 1)
        losses = torch.empty(len(batches), *self.diverged.shape, dtype=torch.float64, device=task.device)
        for i, rows in enumerate(batches):
            step = epoch * len(batches) + i
            for group, lr in zip(self.optimizer.param_groups, rates[:, step], strict=True):
                group["lr"] = float(lr)
            reseed(mixed(chunk.seeds[0], "step", step), task.device)
            self._step(step, losses[i], data.rows(rows))
        bad = ~losses.isfinite()
        first = torch.where(bad.any(0), bad.int().argmax(0) + epoch * len(batches), -1)
        self.diverged = torch.where(self.diverged < 0, first, self.diverged)
        if task.looked_at(epoch + 1):
            sizes = torch.tensor([rows.shape[1] for rows in batches], dtype=torch.float64, device=task.device)
            self._look(epoch + 1, torch.tensordot(sizes / len(data), losses, 1))

    def _step(self, step: int, losses: Float[Tensor, "S L"], batch: Data) -> None:
        task, target = self.settings.task, batch.target
        # Losses and metrics get a target of every copy's own, a view: some refuse one that only seeds have.
        target = target.unsqueeze(1).expand(-1, losses.shape[1], *target.shape[1:])
        each = self._losses(dict(self.parameters), self.buffers, *batch.inputs, target)
        losses.copy_(each.detach())
        self.optimizer.zero_grad(set_to_none=True)
        each.sum().backward()
        if task.clip is not None:
            clip_each(list(self.parameters.values()), task.clip)
        self.decay.before(step)
        self.optimizer.step()
        self.decay.after()

    @torch.no_grad()
    def _look(self, epoch: int, train_loss: Tensor) -> None:
        task = self.settings.task
        self.model.eval()
        reseed(mixed(self.settings.chunk.seeds[0], "look", epoch), task.device)
        weights = {name: p.detach() for name, p in self.parameters.items()}
        forward = functools.partial(self._outputs, weights, self.buffers)
        outputs, target = outputs_of(forward, task.test, task, AXES), task.test.target.to(task.device)
        measures = {
            name: measured(name, measure, outputs, target, train_loss.shape).cpu()
            for name, measure in measures_of(task).items()
        }
        self.looks.append({"epoch": epoch, "train": train_loss.cpu(), "test": measures})

    def state(self) -> dict[str, Any]:
        """All that training goes on from."""
        return {
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "buffers": self.buffers,
            "optimizer": optimizer_state(self.optimizer),
            "rules": self.decay.states,
            "diverged": self.diverged,
            "looks": self.looks,
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, p in self.parameters.items():
            p.copy_(state["parameters"][name])
        self.buffers, self.decay.states = state["buffers"], state["rules"]
        self.diverged, self.looks = state["diverged"], state["looks"]
        load_optimizer_state(self.optimizer, state["optimizer"])


def train_vectorised(
    settings: Settings, start: Checkpoint | None = None, on_epoch: OnEpoch | None = None
) -> ChunkResult:
    """Train all copies of a chunk."""
    task, chunk, done = settings.task, settings.chunk, 0
    data = task.train.rows(slice(None), task.device)
    copies = Copies(settings, [made(task, seed) for seed in chunk.seeds])
    if start is not None:
        (state,), done = unpack(start.tensors, start.plain, task.device), start.epoch
        copies.load(state)
    with kept_memory():
        for epoch in range(done, task.epochs):
            with at_epoch(epoch + 1):
                copies.train_epoch(epoch, data)
            if on_epoch is not None:  # a list of one, as stored checkpoints are
                on_epoch(epoch + 1, lambda at=epoch + 1: Checkpoint(at, *pack([copies.state()])))
    diverged = copies.diverged.cpu()
    weights = {}
    for name, tensor in {**copies.parameters, **copies.buffers}.items():
        weights[name] = tensor.detach().cpu()
        if tensor.is_floating_point():
            weights[name][diverged >= 0] = math.nan
    trained = all_trained(chunk, settings.weight_decays, task.steps_per_epoch, copies.looks, diverged)
    return ChunkResult(trained, weights)


def measured(
    name: str, measure: Callable[[Any, Tensor], Tensor], outputs: Any, target: Tensor, shape: torch.Size
) -> Float[Tensor, "S L"]:
    """A loss or metric of every copy's outputs; one after another where it cannot be batched.

    Raises:
        InputError: the user's function fails.
    """
    try:
        return (
            vmap(vmap(measure))(outputs, target.expand(*shape, *target.shape))
            .detach()
            .double()
            .reshape(shape)
        )
    except Exception:  # a metric that looks at values, or leaves torch
        pick = pytree.tree_map
        values = [
            [
                measured_alone(name, measure, pick(lambda leaf: leaf[s, i], outputs), target)  # noqa: B023
                for i in range(shape[1])
            ]
            for s in range(shape[0])
        ]
        return torch.tensor(values, dtype=torch.float64)


@torch.no_grad()
def clip_each(parameters: list[nn.Parameter], most: float) -> None:
    """Clip the gradient of every copy by its own norm, as torch.nn.utils.clip_grad_norm_ does for one."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = [torch.linalg.vector_norm(g.flatten(AXES), dim=-1) for g in gradients if g.ndim > AXES]
    norms += [g.abs() for g in gradients if g.ndim == AXES]
    factor = (most / (torch.linalg.vector_norm(torch.stack(norms), dim=0) + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(factor.view(*factor.shape, *(1,) * (g.ndim - AXES)))


def _with_one_seed(inner: Callable[..., Any], shared: int) -> Callable[..., Any]:
    """The function over strengths alone, from and to tensors with a first axis of one seed."""

    def function(parameters: Any, buffers: Any, *data: Tensor) -> Any:
        own = parameters, buffers, data[shared:]
        parameters, buffers, data_of_seed = pytree.tree_map(lambda leaf: leaf.squeeze(0), own)
        outputs = inner(parameters, buffers, *data[:shared], *data_of_seed)
        return pytree.tree_map(lambda leaf: leaf.unsqueeze(0), outputs)

    return function


def _stacked(by_seed: list[dict[str, Tensor]], strengths: int) -> dict[str, Tensor]:
    """Each tensor with leading axes (S, L), every strength with memory of its own."""
    stacked = {}
    for name, tensor in by_seed[0].items():
        seeds = torch.stack([tensors[name].detach() for tensors in by_seed])
        stacked[name] = seeds.unsqueeze(1).repeat(1, strengths, *(1,) * tensor.ndim)
    return stacked


def fuse(optimizer: optim.Optimizer) -> None:
    """Switch on the fused kernel where the user left the choice to torch."""
    floats = (torch.float32, torch.float64)
    for group in optimizer.param_groups:
        free = group.get("fused", False) is None and not group.get("foreach") and not group.get("capturable")
        plain = not group.get("differentiable") and not group.get("amsgrad")
        if facts(optimizer).fused and free and plain and all(p.dtype in floats for p in group["params"]):
            group["fused"] = True


class StackedDecay:
    """What happens around a step of the optimizer that holds the stacked parameters.

    The optimizer's own decay is one number for all copies, so none is lowered to it: before the step comes
    every rule that does not look at the update, or whose update the optimizer's state tells; after it the
    others.

    Args:
        settings: the chunk.
        optimizer: over the stacked parameters, as many groups as the user's.
        parameters: (S, L, ...) by name.
    """

    def __init__(
        self, settings: Settings, optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]
    ) -> None:
        self._strong = settings.strong
        self._rules, self._optimizer = self._strong[0].rules, optimizer
        self._order = sorted(range(len(self._rules)), key=lambda r: self._rules[r].needs_update)
        self._targets: list[tuple[int, Target]] = []
        self.states: list[list[dict[str, Tensor]]] = [[] for _ in self._rules]
        for group, targets in enumerate(self._strong[0].plan.targets):
            for target in targets:
                stacked = Target(target.name, parameters[target.name], target.scale)
                self._targets.append((group, stacked))
                for rule, states in zip(self._rules, self.states, strict=True):
                    states.append(_started(rule, stacked))
        self._rates: dict[Any, tuple[float, Tensor, Tensor]] = {}
        self._waiting: list[tuple[Tensor, Tensor, list[tuple[Rule, Step]]]] = []

    @torch.no_grad()
    def before(self, step: int) -> None:
        """What is to be done before the optimizer's step, gradients made and clipped."""
        waiting: dict[int, tuple[Tensor, Tensor, list[tuple[Rule, Step]]]] = {}
        for r in self._order:
            rule = self._rules[r]
            for i, (group, target) in enumerate(self._targets):
                w, options = target.parameter, self._optimizer.param_groups[group]
                if w.grad is None:
                    continue
                rates = self._step(r, group, target, step, self.states[r][i])
                if rule.coupled:
                    w.grad = _gradient(rule, w.grad, w, rates, -1 if options.get("maximize") else 1)
                elif not rule.needs_update:
                    _decay(rule, w, rates)
                elif is_readable(self._optimizer):
                    update = direction(self._optimizer, options, [w])
                    _decay(rule, w, rates, update.into(torch.empty_like(w), update.tensors[0]))
                else:
                    kept = waiting.setdefault(i, (w, w.detach().clone(), []))
                    kept[2].append((rule, rates))
        self._waiting = list(waiting.values())

    @torch.no_grad()
    def after(self) -> None:
        """What is to be done after it: rules whose update is the difference that the step made."""
        for w, before, rules in self._waiting:
            decayed, update = before.clone(), before - w
            for rule, rates in rules:
                _decay(rule, decayed, rates, update.clone())
            w.add_(decayed.sub_(before))
        self._waiting = []

    def _step(self, r: int, group: int, target: Target, step: int, state: dict[str, Tensor]) -> Step:
        """Rate and strength of every copy, in the parameter's type, to be broadcast over it."""
        lr, w = self._optimizer.param_groups[group]["lr"], target.parameter
        key = r, group, target.scale, w.ndim, w.dtype
        kept = self._rates.get(key)
        if kept is None or kept[0] != lr or callable(self._rules[r].weight_decay):
            strengths = [strong.plan.strength(r, group) for strong in self._strong]
            numbers = [float(strength.at(step)) for strength in strengths]
            at = torch.tensor(numbers, dtype=torch.float64, device="cpu")
            rate = torch.as_tensor(strengths[0].rate(at, lr) * target.scale, device="cpu")
            shape = 1, -1, *(1,) * (w.ndim - AXES)
            kept = lr, rate.to(w).view(shape), (at * target.scale).to(w).view(shape)
            self._rates[key] = kept
        return Step(kept[1], kept[2], state=state)


def _started(rule: Rule, target: Target) -> dict[str, Tensor]:
    """The state of a rule for every copy (S, L, ...): all strengths of a seed start at the same weights."""
    copies = target.parameter.detach()
    by_seed = [rule.start(copies[s, 0].clone(), target.name) for s in range(len(copies))]
    return _stacked(by_seed, copies.shape[1])


def apply_to_copies(rule: Rule, w: Tensor, step: Step) -> Tensor:
    """A rule on stacked weights, coupled or not; for its trial."""
    if rule.coupled:
        assert step.update is not None
        return _gradient(rule, step.update, w, step, 1)
    _decay(rule, w, step, step.update if rule.needs_update else None)
    return w


def _decay(rule: Rule, w: Tensor, step: Step, update: Tensor | None = None) -> None:
    """Decay every copy in place."""
    assert isinstance(step.rate, Tensor)
    if rule.plain:
        w.mul_(1 - step.rate)
    elif rule.elementwise:
        rule.decay_(w, Step(step.rate, step.weight_decay, update, step.state))
    else:
        _each(lambda one, rates: (rule.decay_(one, rates), one)[1], w, step, update)


def _gradient(rule: Rule, gradient: Tensor, w: Tensor, step: Step, sign: int) -> Tensor:
    """The gradient of every copy with the penalty's share."""
    rates = Step(step.rate, step.weight_decay * sign, state=step.state)
    if rule.elementwise:
        return rule.gradient(gradient, w, rates)
    return _each(lambda one, rates: rule.gradient(rates.update, one, rates), w, rates, gradient)


def _each(function: Any, w: Tensor, step: Step, beside: Tensor | None) -> Tensor:
    """A function of (weight, step) for each copy by itself."""
    seeds = len(w)
    rate, strength = (
        value.reshape(1, -1).expand(seeds, -1).reshape(-1)
        for value in (step.rate, step.weight_decay)
        if isinstance(value, Tensor)
    )
    beside = torch.zeros_like(w) if beside is None else beside
    flat = [tensor.detach().flatten(0, 1) for tensor in (w, beside, *step.state.values())]

    def one(rate: Tensor, strength: Tensor, w: Tensor, beside: Tensor, *state: Tensor) -> Tensor:
        return function(w, Step(rate, strength, beside, dict(zip(step.state, state, strict=True))))

    return vmap(one)(rate, strength, *flat).unflatten(0, w.shape[:AXES])
