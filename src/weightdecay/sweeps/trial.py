"""Whether a fast way of training gives what each copy gives alone: found by trying a few steps and copies.

What training copies as one model assumes, and `why_not_together` checks:

- The optimizer treats every element by itself, puts stacked parameters into the groups that it puts those of
  one model into, and holds no others; made-up gradients of very different sizes show thresholds on norms.
- A rule treats every copy by itself.
- Model and loss run under `vmap`, draw what they draw alone, and reach the weights only as the model's
  parameters and buffers: no references kept elsewhere, no hooks on parameters. Losses and gradients of a few
  steps are compared with those of the plain loop, on batches of the run's own sizes, the last one included.
  In float32 little can be told from rounding (a dropout mask in another order shows in the third digit of a
  loss), so where model and loss take doubles they are compared in doubles, too.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn, optim

from weightdecay.rules import Rule, Step
from weightdecay.sweeps.alone import Alone, train_alone
from weightdecay.sweeps.decay import AXES, apply_to_copies
from weightdecay.sweeps.looks import told
from weightdecay.sweeps.records import Chunk, ChunkResult
from weightdecay.sweeps.seeds import doubles, made
from weightdecay.sweeps.settings import Settings, optimizer_of, settings_of
from weightdecay.sweeps.squared import train_squared
from weightdecay.sweeps.task import Data, Task
from weightdecay.sweeps.vectorised import Copies, fuse, moved

_STEPS = 3
_MORE_STEPS = 12  # of an optimizer that is not torch's, which may do something else after a while
# A strength that shows in three steps and never removes a whole weight.
_STRENGTH = 0.01
# Weights and gradients of the copies in the trial of an optimizer have these sizes: one that looks at a
# norm over all of a tensor would take the largest for all of them.
_SIZES = (1.0, 1e4, 1e-3)


def linear_is_right(task: Task, seeds: tuple[int, ...]) -> bool:
    """Whether the linear route ends where the plain loop does, after a few steps."""
    for name in task.rules:
        chunk = Chunk(name, _first_lr(task), (0.0, _STRENGTH), "weight_decay", seeds[:2])
        settings = _short(settings_of(task, chunk))
        found, wanted = train_squared(settings), train_alone(settings)
        if not _same_ends(found, wanted):
            return False
    return True


def try_alone(task: Task, seed: int) -> None:
    """A few steps by the plain loop.

    Raises:
        InputError: they fail.
    """
    chunk = Chunk(next(iter(task.rules)), _first_lr(task), (0.0,), "weight_decay", (seed,))
    train_alone(_short(settings_of(task, chunk)))


def _first_lr(task: Task) -> float | None:
    return None if task.lrs is None else task.lrs[0]


def _same_ends(found: ChunkResult, wanted: ChunkResult) -> bool:
    """Equal losses and weights, up to rounding."""
    for one, other in zip(found.trained, wanted.trained, strict=True):
        losses = (
            torch.tensor([copy.train_loss, copy.test_loss], dtype=torch.float64, device="cpu")
            for copy in (one, other)
        )
        eps = torch.finfo(next(iter(wanted.weights.values())).dtype).eps
        if one.diverged != other.diverged or not torch.allclose(*losses, rtol=1e4 * eps, equal_nan=True):
            return False
    return all(
        _close(weights.nan_to_num(), other.nan_to_num(), other.nan_to_num())
        for weights, other in ((found.weights[name], wanted.weights[name]) for name in wanted.weights)
    )


def why_not_together(task: Task, seeds: tuple[int, ...]) -> str | None:
    """Why copies have to be trained one by one, as a sentence; None where they need not.

    Tried are the optimizer (three stacked copies against each alone, made-up gradients), every rule
    (stacked against alone) and then training itself, two strengths against the plain loop.
    """
    for name, p in made(task, seeds[0]).named_parameters():
        if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
            return f"the parameter {name} has hooks, which stacked copies of it have not"
    for lr in task.lrs or (None,):
        if reason := _optimizer(task, seeds[0], lr):
            return reason
    lr = _first_lr(task)
    for name in task.rules:
        chunk = Chunk(name, lr, (0.0, _STRENGTH), "weight_decay", seeds)
        settings = _short(settings_of(task, chunk))
        if reason := _rules(settings) or _training(settings):
            return reason
    return _in_doubles(task, Chunk(next(iter(task.rules)), lr, (0.0, _STRENGTH), "weight_decay", seeds))


def _short(settings: Settings) -> Settings:
    """The same with about three steps: at most two full batches, the last one, and few test data."""
    task = settings.task
    full, last = divmod(len(task.train), task.batch_size)
    rows = min(full, _STEPS - 1) * task.batch_size + last
    train = Data(tuple(tensor[:rows] for tensor in task.train.inputs), task.train.target[:rows])
    few = task.batch_size
    test = Data(tuple(tensor[:few] for tensor in task.test.inputs), task.test.target[:few])
    short = dataclasses.replace(task, train=train, test=test, every=1)
    epochs = min(task.epochs, -(-_STEPS // short.steps_per_epoch))
    short = dataclasses.replace(short, epochs=epochs)
    return dataclasses.replace(settings, task=short, rates=settings.rates[:, : short.steps])


def _optimizer(task: Task, seed: int, lr: float | None) -> str | None:
    """Whether the optimizer treats every element by itself."""
    starts = list(made(task, seed).parameters())
    copies = [torch.stack([size * p.detach() for size in _SIZES]) for p in starts]
    kind = "the optimizer"
    try:
        apart = [[_parameter(p[j], start) for p, start in zip(copies, starts, strict=True)] for j in range(3)]
        alone = [optimizer_of(task, several, lr) for several in apart]
        kind = type(alone[0]).__name__
        if isinstance(alone[0], optim.LBFGS):
            return "LBFGS searches along one line for all elements of a model"
        # Two axes in front, as in training.
        together = [_parameter(p[None], start) for p, start in zip(copies, starts, strict=True)]
        stacked = optimizer_of(task, together, lr)
        groups = _groups(alone[0], apart[0])
        if any(None in places for places, _ in groups):
            return f"{kind} holds parameters that it was not given"
        if _groups(stacked, together) != groups:
            return f"the parameter groups of {kind} depend on the shapes of the parameters"
        fuse(stacked)
        drawn = doubles(0)
        for _ in range(_STEPS if type(alone[0]).__module__.startswith("torch.optim.") else _MORE_STEPS):
            for i, one in enumerate(together):
                if not one.requires_grad:
                    continue
                draw = torch.randn(one.shape[1:], **drawn).to(one)
                gradients = [size * part for size, part in zip(_SIZES, draw, strict=True)]
                one.grad = torch.stack(gradients)[None]
                for copy, gradient in zip(apart, gradients, strict=True):
                    copy[i].grad = gradient.clone()
            for optimizer in (stacked, *alone):
                optimizer.step()
    except Exception as error:
        return f"{kind} does not take stacked parameters ({_said(error)})"
    for i, one in enumerate(together):
        for j, copy in enumerate(apart):
            found, wanted = one.detach()[0, j], copy[i].detach()
            if not _close(found - copies[i][j], wanted - copies[i][j], wanted):
                return f"{kind} does not treat every element by itself"
    return None


def _parameter(value: Tensor, like: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(value.clone(), requires_grad=like.requires_grad)


def _groups(optimizer: optim.Optimizer, given: list[nn.Parameter]) -> list[tuple[list[int | None], Any]]:
    """Of each group the places of its parameters among those given (None: not given), and plain options."""
    places = {id(p): i for i, p in enumerate(given)}
    return [
        (
            [places.get(id(p)) for p in group["params"]],
            {name: repr(value) for name, value in group.items() if name not in ("params", "param_names")},
        )
        for group in optimizer.param_groups
    ]


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
    task, models = settings.task, []

    def make_model() -> nn.Module:
        models.append(task.make_model())
        return models[-1]

    noted = dataclasses.replace(settings, task=dataclasses.replace(task, make_model=make_model))
    try:
        together = Copies(noted, range(len(settings.chunk.strengths)))
        data = moved(task.train, task.device)
        for epoch in range(task.epochs):
            together.train_epoch(epoch, data)
    except Exception as error:
        return f"the copies do not run as one model ({_said(error)})"
    if any(p.grad is not None for model in models for p in model.parameters()):
        return "model or loss reach the weights otherwise than as the model's parameters"
    alone = []
    for copy in settings.chunk.copies:
        alone.append(Alone(settings, copy))
        for epoch in range(task.epochs):
            with told(epoch + 1):
                alone[-1].train_epoch(epoch)
    return _other_losses(together, alone) or _other_gradients(together, alone) or _unmoved(together, alone)


def _in_doubles(task: Task, chunk: Chunk) -> str | None:
    """The same in doubles, where model and loss take them."""
    kinds = {p.dtype for p in made(task, chunk.seeds[0]).parameters()}
    if kinds == {torch.float64}:
        return None  # that was it
    with _default_dtype(torch.float64):
        try:
            settings = _short(settings_of(_doubled(task), chunk))
            train_alone(dataclasses.replace(settings, chunk=dataclasses.replace(chunk, strengths=(0.0,))))
        except Exception:  # a weight of the loss in float32, say
            return None
        return _training(settings)


def _doubled(task: Task) -> Task:
    def data(part: Data) -> Data:
        tensors = [x.double() if x.is_floating_point() else x for x in (*part.inputs, part.target)]
        return Data(tuple(tensors[:-1]), tensors[-1])

    return dataclasses.replace(
        task, make_model=lambda: task.make_model().double(), train=data(task.train), test=data(task.test)
    )


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _eps(together: Copies) -> float:
    return max(torch.finfo(p.dtype).eps for p in together.parameters.values())


def _other_losses(together: Copies, alone: list[Alone]) -> str | None:
    eps = _eps(together)
    loose = 1e-8 if eps < 1e-12 else max(1e-3, 2 * eps)
    train, test = together.looks[-1]["train"], together.looks[-1]["test"][""]
    diverged = together.diverged.flatten().tolist()
    for one, at, *found in zip(
        alone, diverged, train.flatten().tolist(), test.flatten().tolist(), strict=True
    ):
        if (None if at < 0 else at) != one.diverged:
            return "copies trained as one model diverge at another step than alone"
        wanted = [one.looks[-1].train_loss, one.looks[-1].test_loss]
        gap = max(abs(x - y) - loose * abs(y) for x, y in zip(found, wanted, strict=True))
        if one.diverged is None and gap > loose:
            return f"copies trained as one model end elsewhere than alone (losses differ by {gap:.2g})"
    return None


def _other_gradients(together: Copies, alone: list[Alone]) -> str | None:
    """Whether a gradient of the last step differs, without decay: a loss may not show it in three steps.

    What is compared are norms of tensors; one that is all rounding, as of a bias before a BatchNorm, is
    small beside the norm of them all.
    """
    eps = _eps(together)
    loose, floor = (eps**0.5, eps**0.75) if eps < 1e-12 else (eps ** (1 / 3), eps ** (2 / 3))
    width = together.diverged.shape[1]
    for s, one in enumerate(alone[::width]):
        gradients = {
            name: p.grad.to_dense().double() for name, p in one.model.named_parameters() if p.grad is not None
        }
        norms = {name: float(g.norm()) for name, g in gradients.items()}
        whole = torch.tensor([*norms.values()], dtype=torch.float64, device="cpu").norm().item()
        for name, p in together.parameters.items():
            if (p.grad is None) != (name not in gradients):
                return f"the parameter {name} has a gradient together and none alone, or the other way round"
            if p.grad is None or one.diverged is not None:
                continue
            gap = float((p.grad[s, 0].double() - gradients[name]).norm())
            if gap > loose * norms[name] + floor * whole:
                share = gap / max(norms[name], floor * whole)
                return (
                    f"copies trained as one model have other gradients than alone ({name}: {share:.2g} of it)"
                )
    return None


def _unmoved(together: Copies, alone: list[Alone]) -> str | None:
    """Whether a buffer stays behind where it moves alone; losses may not show it in three steps.

    What it moved by is compared roughly: before a BatchNorm, biases follow rounding noise.
    """
    task, seeds = together.settings.task, together.settings.chunk.seeds
    starts = [dict(made(task, seed).named_buffers()) for seed in seeds]
    for name, stacked in together.buffers.items():
        start = torch.stack([buffers[name] for buffers in starts]).unsqueeze(1).double()
        ends = torch.stack([dict(one.model.named_buffers())[name] for one in alone]).unflatten(
            0, stacked.shape[:AXES]
        )
        found, wanted = stacked.double() - start, ends.double() - start
        room = 0.5 * wanted.abs().max() + 1e-6 * start.abs().max() if start.numel() else 0
        if start.numel() and ((found - wanted).abs() > room).any():
            return f"the buffer {name} does not follow a copy's batches (the model replaces it)"
    return None


def _fixed(rule: Rule) -> Any:
    """All of a rule but its strength."""
    fields = (f for f in dataclasses.fields(rule) if f.name != "weight_decay" and f.compare)
    return type(rule), [getattr(rule, f.name) for f in fields], callable(rule.weight_decay)


def _close(found: Tensor, wanted: Tensor, weights: Tensor) -> bool:
    """Equal up to rounding, of the difference and of the weights it was taken from."""
    eps = torch.finfo(wanted.dtype).eps
    room = 1e3 * eps * wanted.abs().max() + 8 * eps * weights.abs().max()
    return bool(((found - wanted).abs() <= room).all())


def _said(error: Exception) -> str:
    error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:100]}"
