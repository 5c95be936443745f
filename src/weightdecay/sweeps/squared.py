"""Linear models under a squared loss and plain SGD: trained by `weightdecay.sweeps.linear`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.func import functional_call

from weightdecay.hooks.plan import Plan
from weightdecay.rules import L2, Decoupled
from weightdecay.sweeps.linear import LinearProblem, LinearSweep, train_linear
from weightdecay.sweeps.looks import all_trained, measures_of
from weightdecay.sweeps.records import Chunk, ChunkResult
from weightdecay.sweeps.seeds import doubles, made, order
from weightdecay.sweeps.settings import Settings, optimizer_of, rules_made, settings_of
from weightdecay.sweeps.task import Task
from weightdecay.sweeps.vectorised import measured

# Rows on which a model and a loss are tried.
_ROWS = 7
# Numbers in the inputs, of which every seed has its own copy.
_MOST = 2**24


@dataclass(frozen=True)
class Linear:
    """A task that is linear regression.

    Args:
        weight: the name of the weights (1, p).
        bias: the name of the bias (1,).
        loss_scale: the loss is so many times half the mean squared error.
        bias_decays: whether the bias decays, too.
        output: from predictions (..., n) to what the model puts out.
        bytes_per_copy: what a copy takes, the data apart.
    """

    weight: str
    bias: str
    loss_scale: float
    bias_decays: bool
    output: Callable[[Tensor], Tensor]
    bytes_per_copy: int

    @property
    def reason(self) -> str:
        """Why it goes this way, as a sentence."""
        return "a linear model, a squared loss, plain SGD: solved in the span of the examples"


def linear_of(task: Task, seed: int) -> Linear | None:
    """How a task is linear regression; None where it is not. Model and loss are tried on random numbers."""
    if task.clip is not None or len(task.train.inputs) != 1 or task.train.inputs[0].ndim != 2:
        return None
    model = made(task, seed)
    named = dict(model.named_parameters())
    weights = [name for name, p in named.items() if p.ndim == 2 and len(p) == 1]
    biases = [name for name, p in named.items() if p.shape == (1,)]
    trained = all(p.requires_grad for p in named.values())
    if [len(weights), len(biases), len(named)] != [1, 1, 2] or not trained:
        return None
    if list(model.buffers()) or any(p.dtype != task.train.inputs[0].dtype for p in named.values()):
        return None
    weight, bias = weights[0], biases[0]
    if (bias_decays := _plain_sgd(task, model, weight, bias)) is None:
        return None
    try:
        output = _output(task, model, weight, bias)
        scale = None if output is None else _loss_scale(task, output)
    except Exception:  # not made for doubles, or for so few rows: the other ways are tried
        return None
    if output is None or scale is None:
        return None
    n, p = task.train.inputs[0].shape
    k = min(p, n + 1) + 1
    if n * k > _MOST:
        return None
    size = task.train.target.element_size()
    held = 4 * k + 2 * p + 4 * max(n, len(task.test))
    return Linear(weight, bias, scale, bias_decays, output, size * held)


def train_squared(settings: Settings) -> ChunkResult:
    """Train a chunk of linear models by `train_linear`: start, order and records as by the plain loop."""
    task, chunk = settings.task, settings.chunk
    linear = linear_of(task, chunk.seeds[0])
    assert linear is not None
    problem = _problem(task, chunk, linear)
    lambdas = problem.X.new_tensor([_lambda(settings, i) for i in range(len(chunk.strengths))])
    found: dict[int, list[dict[str, Tensor]]] = {}

    def look(place: slice, predictions: Tensor) -> None:
        outputs = linear.output(predictions.mT)
        found.setdefault(place.start, []).append(
            {
                name: measured(name, f, outputs, task.test.target.to(outputs.device), outputs.shape[:2]).cpu()
                for name, f in measures_of(task).items()
            }
        )

    sweep = train_linear(
        problem,
        lambdas,
        lr=float(settings.rates[0, 0]),
        batch_size=task.batch_size,
        every=task.every,
        loss_scale=linear.loss_scale,
        penalize_bias=linear.bias_decays,
        batch_losses=True,
        on_look=look,
    )
    blocks = list(found.values())
    measures = [
        {name: torch.cat([block[e][name] for block in blocks], 1) for name in blocks[0][e]}
        for e in range(len(sweep.epochs))
    ]
    return _result(settings, linear, sweep, measures)


def _plain_sgd(task: Task, model: nn.Module, weight: str, bias: str) -> bool | None:
    """Whether the bias decays, if all there is is w <- (1 - lr λ) w - lr g at a constant lr; else None."""
    plans: list[Plan] = []
    for lr in task.lrs or (None,):
        optimizer = optimizer_of(task, list(model.parameters()), lr)
        group = optimizer.param_groups[0]
        options = ("momentum", "dampening", "nesterov", "maximize", "weight_decay")
        if (
            type(optimizer) is not optim.SGD
            or len(optimizer.param_groups) > 1
            or any(map(group.get, options))
        ):
            return None
        for name in task.rules:
            if not all(type(rule) in (Decoupled, L2) for rule in rules_made(task, name, 0.0)):
                return None
            settings = settings_of(task, Chunk(name, lr, (0.0,), "weight_decay", (0,)))
            strong = settings.strong[0]
            if (settings.rates != settings.rates[0, 0]).any() or len(strong.rules) > 1:
                return None
            if strong.weight_decay is None:
                return None
            plans.append(strong.plan)
    decaying = {frozenset((target.name, target.scale) for target in plan.all_targets) for plan in plans}
    if decaying == {frozenset({(weight, 1.0)})}:
        return False
    return True if decaying == {frozenset({(weight, 1.0), (bias, 1.0)})} else None


def _output(task: Task, model: nn.Module, weight: str, bias: str) -> Callable[[Tensor], Tensor] | None:
    """From predictions (n,) to what the model puts out; None if it is not Xw + b."""
    drawn = doubles(0)
    X = torch.randn(_ROWS, task.train.inputs[0].shape[1], **drawn).to(task.device)
    values = {name: torch.randn(p.shape, **drawn).to(task.device) for name, p in model.named_parameters()}
    for training in (True, False):
        model.train(training)
        found: Any = functional_call(model, values, (X,))
        wanted = X @ values[weight][0] + values[bias]
        if not isinstance(found, Tensor) or found.shape not in ((_ROWS,), (_ROWS, 1)):
            return None
        if not torch.allclose(found.flatten(), wanted, rtol=1e-10, atol=1e-10):
            return None
    return (lambda y: y) if found.ndim == 1 else (lambda y: y.unsqueeze(-1))


def _loss_scale(task: Task, output: Callable[[Tensor], Tensor]) -> float | None:
    """C of a loss c/2 mean((output - target)²); None if it is another loss, or the shapes differ."""
    if task.train.target.shape[1:] not in ((), (1,)) or not task.train.target.is_floating_point():
        return None
    drawn = doubles(1)
    scales = []
    for size in (1.0, 30.0, 1e-2):
        one, y = (size * torch.randn(_ROWS, **drawn).to(task.device) for _ in range(2))
        predicted, target = output(one), y.view(_ROWS, *task.train.target.shape[1:])
        if predicted.shape != target.shape:
            return None  # broadcasting would make a loss of all pairs
        half = (predicted - target).square().mean().item() / 2
        scales.append(task.loss(predicted, target).item() / half)
    alike = all(math.isclose(scale, scales[0], rel_tol=1e-10) for scale in scales)
    return scales[0] if alike and scales[0] > 0 else None


def _problem(task: Task, chunk: Chunk, linear: Linear) -> LinearProblem:
    starts = [dict(made(task, seed).named_parameters()) for seed in chunk.seeds]
    n, device = len(task.train), task.device

    def shared(tensor: Tensor) -> Tensor:
        return tensor.to(device).expand(len(starts), *tensor.shape)

    orders = [torch.stack([order(n, seed, epoch) for epoch in range(task.epochs)]) for seed in chunk.seeds]
    return LinearProblem(
        X=shared(task.train.inputs[0]),
        y=shared(task.train.target.flatten()),
        X_test=shared(task.test.inputs[0]),
        y_test=shared(task.test.target.flatten()),
        w=torch.stack([start[linear.weight].detach()[0] for start in starts]),
        b=torch.stack([start[linear.bias].detach()[0] for start in starts]),
        order=torch.stack(orders).to(device),
    )


def _lambda(settings: Settings, place: int) -> float:
    found = settings.strong[place].weight_decay
    assert found is not None
    return found


def _result(
    settings: Settings, linear: Linear, sweep: LinearSweep, measures: list[dict[str, Tensor]]
) -> ChunkResult:
    chunk, steps = settings.chunk, settings.task.steps_per_epoch
    assert sweep.batch_loss is not None
    assert sweep.diverged is not None
    batch_loss, diverged = sweep.batch_loss.double().cpu(), sweep.diverged.cpu()
    seen = [
        {"epoch": epoch, "train": batch_loss[:, :, e], "test": test}
        for e, (epoch, test) in enumerate(zip(sweep.epochs, measures, strict=True))
    ]
    weights = {linear.weight: sweep.w.unsqueeze(2).cpu(), linear.bias: sweep.b.unsqueeze(2).cpu()}
    for tensor in weights.values():
        tensor[diverged >= 0] = math.nan
    numbers = [strong.weight_decay for strong in settings.strong]
    return ChunkResult(all_trained(chunk, numbers, steps, seen, diverged), weights)
