"""Whether copies can be trained as one model: found by trying, on a few steps and a few copies."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn, optim

from weightdecay.rules import Rule, Step
from weightdecay.sweeps.alone import train_alone
from weightdecay.sweeps.decay import apply_to_copies
from weightdecay.sweeps.records import Chunk, Trained
from weightdecay.sweeps.seeds import doubles, made
from weightdecay.sweeps.settings import Settings, optimizer_of, settings_of
from weightdecay.sweeps.task import Data, Task
from weightdecay.sweeps.vectorised import fuse, train_vectorised

_STEPS = 3
# A strength that shows in three steps and never removes a whole weight.
_STRENGTH = 0.01
# Weights and gradients of the copies in the trial of an optimizer have these sizes: one that looks at a
# norm over all of a tensor would take the largest for all of them.
_SIZES = (1.0, 30.0, 0.02)


def why_not_together(task: Task, seeds: tuple[int, ...]) -> str | None:
    """Why copies have to be trained one by one, as a sentence; None where they need not.

    Tried are the optimizer (three stacked copies against each alone, made-up gradients), every rule
    (stacked against alone) and then training itself, two strengths against the plain loop.
    """
    lr = None if task.lrs is None else task.lrs[0]
    if reason := _optimizer(task, seeds[0], lr):
        return reason
    for name in task.rules:
        chunk = Chunk(name, lr, (0.0, _STRENGTH), "weight_decay", seeds)
        settings = _short(settings_of(task, chunk))
        if reason := _rules(settings) or _training(settings):
            return reason
    return None


def _short(settings: Settings) -> Settings:
    """The same with three batches of training data and few test data."""
    task = settings.task
    rows = min(len(task.train), _STEPS * task.batch_size)
    batch = -(-rows // min(_STEPS, task.steps))  # no more steps than the run, whose step sizes are known
    train = Data(tuple(tensor[:rows] for tensor in task.train.inputs), task.train.target[:rows])
    test = Data(tuple(tensor[:batch] for tensor in task.test.inputs), task.test.target[:batch])
    short = dataclasses.replace(task, train=train, test=test, epochs=1, batch_size=batch, every=1)
    rates = settings.rates[:, : short.steps]
    return dataclasses.replace(settings, task=short, rates=rates)


def _optimizer(task: Task, seed: int, lr: float | None) -> str | None:
    """Whether the optimizer treats every element by itself."""
    starts = [p.detach() for p in made(task, seed).parameters() if p.requires_grad]
    copies = [torch.stack([size * p for size in _SIZES]) for p in starts]
    kind = "the optimizer"
    try:
        alone = [optimizer_of(task, [nn.Parameter(p[j].clone()) for p in copies], lr) for j in range(3)]
        kind = type(alone[0]).__name__
        if isinstance(alone[0], optim.LBFGS):
            return "LBFGS searches along one line for all elements of a model"
        stacked = optimizer_of(task, [nn.Parameter(p.clone()) for p in copies], lr)
        fuse(stacked)
        drawn = doubles(0)
        for _ in range(_STEPS):
            for i, one in enumerate(_held(stacked)):
                draw = torch.randn(one.shape, **drawn).to(one)
                one.grad = torch.stack([size * part for size, part in zip(_SIZES, draw, strict=True)])
                for j, copy in enumerate(alone):
                    _held(copy)[i].grad = one.grad[j].clone()
            for optimizer in (stacked, *alone):
                optimizer.step()
    except Exception as error:
        return f"{kind} does not take stacked parameters ({_said(error)})"
    for i, one in enumerate(_held(stacked)):
        for j, copy in enumerate(alone):
            found, wanted = one.detach()[j], _held(copy)[i].detach()
            if not _close(found - copies[i][j], wanted - copies[i][j], wanted):
                return f"{kind} does not treat every element by itself"
    return None


def _rules(settings: Settings) -> str | None:
    """Whether the chunk's rules act on stacked weights as on each alone."""
    for r, rule in enumerate(settings.strong[0].rules):
        name = type(rule).__name__
        if any(_fixed(rule) != _fixed(strong.rules[r]) for strong in settings.strong):
            return f"{name} depends on the strength in more than its strength"
        if rule.told_more:
            return f"{name} looks at more than stacked weights and their update"
        if type(rule).__module__.startswith("weightdecay."):
            continue
        target = settings.strong[0].plan.all_targets[0]
        w = torch.linspace(-1, 1, 3 * target.parameter.numel()).to(target.parameter)
        copies = w.view(1, 3, *target.parameter.shape)
        try:
            together, each = _applied(rule, copies, target.name)
        except Exception as error:
            return f"{name} does not take stacked weights ({_said(error)})"
        if not _close(together, each, each):
            return f"{name} does not treat every copy by itself"
    return None


def _applied(rule: Rule, copies: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """A rule on three stacked copies at three rates, and on each alone."""
    rates = torch.tensor([0.0, 0.3, 0.6]).to(copies)
    states = [rule.start(copies[0, i].clone(), name) for i in range(len(rates))]
    beside = torch.cos(copies * 7)
    broad = rates.view(1, -1, *(1,) * (copies.ndim - 2))
    stacked = {key: torch.stack([state[key] for state in states])[None].clone() for key in states[0]}
    together = apply_to_copies(rule, copies.clone(), Step(broad, broad, beside.clone(), stacked))
    each = []
    for i, rate in enumerate(rates.tolist()):
        w, u = copies[0, i].clone(), beside[0, i].clone()
        if rule.elementwise:
            w, u = w.flatten(), u.flatten()
            states[i] = {key: value.flatten() for key, value in states[i].items()}
        step = Step(rate, rate, u if rule.needs_update else None, states[i])
        if rule.coupled:
            w = rule.gradient(u, w, step)
        else:
            rule.decay_(w, step)
        each.append(w.view(copies.shape[2:]))
    return together, torch.stack(each)[None]


def _training(settings: Settings) -> str | None:
    """Whether training together gives what training alone gives."""
    try:
        together = train_vectorised(settings)
    except Exception as error:
        return f"the copies do not run as one model ({_said(error)})"
    alone = train_alone(settings)
    for one, other in zip(together.trained, alone.trained, strict=True):
        found, wanted = _results(one), _results(other)
        loose = 1e-8 if _double(together.weights) else 1e-3
        if not torch.allclose(found, wanted, rtol=loose, atol=loose, equal_nan=True):
            gap = (found - wanted).abs().max().item()
            return f"copies trained as one model end elsewhere than alone (losses differ by {gap:.2g})"
    if name := _unmoved(settings, together.weights, alone.weights):
        return f"the buffer {name} does not follow a copy's batches (the model replaces it)"
    return None


def _unmoved(settings: Settings, together: dict[str, Tensor], alone: dict[str, Tensor]) -> str | None:
    """The name of a buffer that stays behind where it moves alone; losses may not show it in three steps.

    What it moved by is compared roughly: before a BatchNorm, biases follow rounding noise.
    """
    starts = [dict(made(settings.task, seed).named_buffers()) for seed in settings.chunk.seeds]
    for name in starts[0]:
        start = torch.stack([buffers[name] for buffers in starts]).unsqueeze(1).cpu().double()
        found, wanted = together[name].double() - start, alone[name].double() - start
        room = 0.5 * wanted.abs().max() + 1e-6 * start.abs().max() if start.numel() else 0
        if start.numel() and ((found - wanted).abs() > room).any():
            return name
    return None


def _results(trained: Trained) -> Tensor:
    return torch.tensor([trained.train_loss, trained.test_loss], dtype=torch.float64, device="cpu")


def _double(weights: dict[str, Tensor]) -> bool:
    return all(value.dtype == torch.float64 for value in weights.values() if value.is_floating_point())


def _fixed(rule: Rule) -> Any:
    """All of a rule but its strength."""
    fields = (f for f in dataclasses.fields(rule) if f.name != "weight_decay" and f.compare)
    return type(rule), [getattr(rule, f.name) for f in fields], callable(rule.weight_decay)


def _close(found: Tensor, wanted: Tensor, weights: Tensor) -> bool:
    """Equal up to rounding, of the difference and of the weights it was taken from."""
    eps = torch.finfo(wanted.dtype).eps
    room = 1e3 * eps * wanted.abs().max() + 8 * eps * weights.abs().max()
    return bool(((found - wanted).abs() <= room).all())


def _held(optimizer: optim.Optimizer) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _said(error: Exception) -> str:
    error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:100]}"
