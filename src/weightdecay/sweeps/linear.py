"""Linear models at many strengths and seeds, trained as one batched program (`train_linear`).

`linear_of` finds out whether a task of a sweep is such a model, `train_squared` trains a chunk of it.

Minibatch gradient descent with decay never leaves the span of its start and its examples: every step
scales w and adds rows of X. In an orthonormal basis Q of that span, w = Qv, the program is the plain
one with min(p, n + 1) inputs instead of p, and norms are kept. All strengths of a seed share the inputs,
so a step is two small matrix products for all of them, batched over the seeds.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn, optim
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from weightdecay.rules import L2, Decoupled
from weightdecay.sweeps.chunk import Recipes, Settings
from weightdecay.sweeps.looks import (
    all_trained,
    doubles,
    made,
    measures_of,
    order,
    pack,
    unpack,
)
from weightdecay.sweeps.task import Checkpoint, Chunk, ChunkResult, OnEpoch, Task
from weightdecay.sweeps.vectorised import measured
from weightdecay.text import Text

# What one block of strengths may take in residuals of the larger data set, in bytes.
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class LinearProblem:
    """Data, start and batch order of S independent trainings; one row of each tensor is one seed.

    Args:
        X: training inputs (S, n, p).
        y: training targets (S, n).
        X_test: test inputs (S, t, p).
        y_test: test targets (S, t).
        w: the weights at the start (S, p).
        b: the bias at the start (S,).
        order: for each epoch the order in which the examples are seen (S, epochs, n).
    """

    X: Float[Tensor, "S n p"]
    y: Float[Tensor, "S n"]
    X_test: Float[Tensor, "S t p"]
    y_test: Float[Tensor, "S t"]
    w: Float[Tensor, "S p"]
    b: Float[Tensor, " S"]
    order: Int64[Tensor, "S epochs n"]


@dataclass(frozen=True)
class AdamBias:
    """Train the bias by torch.optim.Adam's rule (its default betas and eps) with this step size."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True)
class LinearSweep:
    """What S seeds × L strengths gave; E is the number of looks.

    Args:
        lambdas: the strengths (L,).
        epochs: after which epochs the losses were taken.
        train_loss: half the mean squared training error (S, L, E).
        test_loss: half the mean squared test error (S, L, E).
        w_norm: the L2 norm of the weights (S, L, E).
        b: the bias at the end (S, L).
        coordinates: the weights at the end in the basis (S, k, L).
        basis: orthonormal columns (S, p, k), or None where the coordinates are the weights.
        batch_loss: c/2 times the mean squared error of an epoch's examples, each batch as it was before its
            step (S, L, E); None unless asked for.
        diverged: the first step whose batch loss is not finite, -1 where there is none (S, L); likewise.
    """

    lambdas: Float[Tensor, " L"]
    epochs: tuple[int, ...]
    train_loss: Float[Tensor, "S L E"]
    test_loss: Float[Tensor, "S L E"]
    w_norm: Float[Tensor, "S L E"]
    b: Float[Tensor, "S L"]
    coordinates: Float[Tensor, "S k L"]
    basis: Float[Tensor, "S p k"] | None
    batch_loss: Float[Tensor, "S L E"] | None = None
    diverged: Int64[Tensor, "S L"] | None = None

    @property
    def w(self) -> Float[Tensor, "S L p"]:
        """The weights at the end, made when asked for."""
        w = self.coordinates if self.basis is None else self.basis @ self.coordinates
        return w.mT


@dataclass
class LinearState:
    """How far trainings are after an epoch; what goes on from it ends with the same bits.

    Args:
        epoch: epochs that are done.
        Z: coordinates and bias (S, k + 1, L) of each block of strengths.
        seen: train loss, test loss and norm at each look so far (3, S, L, E).
        batch_loss: as in `LinearSweep`.
        diverged: as in `LinearSweep`.
    """

    epoch: int
    Z: list[Tensor]
    seen: Float[Tensor, "3 S L E"]
    batch_loss: Float[Tensor, "S L E"] | None
    diverged: Int64[Tensor, "S L"] | None


def train_linear(
    problem: LinearProblem,
    lambdas: Float[Tensor, " L"],
    *,
    lr: float,
    batch_size: int,
    every: int,
    loss_scale: float = 1.0,
    penalize_bias: bool = False,
    adam_bias: AdamBias | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
    batch_losses: bool = False,
    on_look: Callable[[slice, Float[Tensor, "S t L"]], None] | None = None,
    state: "LinearState | None" = None,
    on_state: Callable[["LinearState"], None] | None = None,
) -> LinearSweep:
    """Train every seed at every strength by minibatch gradient descent.

    Objective and update, for batches of m rows and loss scale c (c = 1: half mean squared loss; c = 2:
    the mean squared loss of torch's MSELoss):

        J(w, b) = c/(2n) ||Xw + b − y||² + λ/2 ||w||²
        w ← (1 − lr·λ) w − lr·c/m X_B'(X_B w + b − y_B),   b likewise, without decay

    Args:
        problem: data, start and order, in float32 or float64.
        lambdas: λ (L,), as torch.optim.SGD's weight_decay.
        lr: step size.
        batch_size: rows of a batch; the last batch of an epoch holds what is left and is divided by that.
        every: take the losses after every so many epochs, and after the last.
        loss_scale: c.
        penalize_bias: let the bias decay, too.
        adam_bias: step the bias by Adam instead (its penalty, if any, is then part of its gradient).
        on_epoch: called as on_epoch(done, total) after each epoch.
        batch_losses: keep what the batches' losses were, too.
        on_look: called at each look with the place of a block of strengths and its predictions of y_test,
            in the place of taking losses and norms, which stay 0.
        state: go on from here, to the same bits; not with `adam_bias`.
        on_state: called after each epoch of all strengths with the state, which goes on changing.

    Returns:
        A LinearSweep. A training that diverges ends in inf or NaN and leaves the others alone.
    """
    seeds, epochs, n = problem.order.shape
    basis, inputs, start = _span(problem)
    design = nn.functional.pad(inputs, (0, 1), value=1.0)
    test_inputs = problem.X_test if basis is None else problem.X_test @ basis
    test_design = nn.functional.pad(test_inputs, (0, 1), value=1.0)
    block = max(1, _BLOCK_BYTES // (seeds * max(n, problem.X_test.shape[1]) * design.element_size()))
    parts = [part.to(design) for part in lambdas.split(block)]
    sizes = design.new_tensor([min(batch_size, n - first) for first in range(0, n, batch_size)])
    looks = tuple(e for e in range(1, epochs + 1) if e % every == 0 or e == epochs)
    if state is None:
        first = torch.cat([start, problem.b[:, None]], 1)[:, :, None]
        shape = seeds, len(lambdas)
        state = LinearState(
            epoch=0,
            Z=[first.repeat(1, 1, len(part)) for part in parts],
            seen=design.new_zeros(3, *shape, len(looks)),
            batch_loss=design.new_zeros(*shape, len(looks)) if batch_losses else None,
            diverged=torch.full(shape, -1, device=design.device) if batch_losses else None,
        )
    adams = [
        adam_bias and _Adam(adam_bias, part if penalize_bias else torch.zeros_like(part)) for part in parts
    ]

    def train_block(index: int, batches: list[tuple[Tensor, Tensor]]) -> Tensor | None:
        """An epoch of a block of strengths; the batches' losses (batches, S, L) if they are asked for."""
        Z, part, adam = state.Z[index], parts[index], adams[index]
        errors = Z.new_empty(len(batches), seeds, len(part)) if batch_losses else None
        decay = (lr * part).expand(Z.shape[1:]).clone()
        if not penalize_bias or adam_bias:
            decay[-1] = 0
        for i, (A, target) in enumerate(batches):
            residual = torch.baddbmm(target, A, Z, beta=-1)
            if errors is not None:
                torch.mean(residual.square(), 1, out=errors[i])
            bias = adam.step(Z[:, -1], loss_scale * residual.mean(1)) if adam else None
            # Not Z *= 1 - decay: rounding 1 - decay would bend a small decay the same way at every step.
            Z.addcmul_(Z, decay, value=-1)
            Z.baddbmm_(A.mT, residual, alpha=-lr * loss_scale / A.shape[1])
            if bias is not None:
                Z[:, -1] = bias
        return errors

    def note_losses(epoch: int, place: slice, errors: Tensor) -> None:
        assert state.batch_loss is not None
        assert state.diverged is not None
        bad = ~errors.isfinite()
        before = state.diverged[:, place]
        if bad.any():
            first = torch.where(bad.any(0), bad.int().argmax(0) + (epoch - 1) * len(sizes), -1)
            state.diverged[:, place] = torch.where(before < 0, first, before)
        if epoch in looks:
            mean = torch.tensordot(sizes / n, errors, 1)
            state.batch_loss[:, place, looks.index(epoch)] = mean * (loss_scale / 2)

    def look(epoch: int, place: slice, Z: Tensor) -> None:
        if on_look:
            on_look(place, test_design @ Z)
            return
        seen = state.seen[:, :, place, looks.index(epoch)]
        seen[0] = _half_mse(design, problem.y, Z)
        seen[1] = _half_mse(test_design, problem.y_test, Z)
        seen[2] = torch.linalg.vector_norm(Z[:, :-1], dim=1)

    with torch.no_grad():
        for epoch in range(state.epoch + 1, epochs + 1):
            rows = problem.order[:, epoch - 1]
            X = design.take_along_dim(rows[:, :, None], 1)
            y = problem.y.take_along_dim(rows, 1)[:, :, None]
            batches = list(zip(X.split(batch_size, 1), y.split(batch_size, 1), strict=True))
            for index, Z in enumerate(state.Z):
                place = slice(index * block, index * block + len(parts[index]))
                errors = train_block(index, batches)
                if errors is not None:
                    note_losses(epoch, place, errors)
                if epoch in looks:
                    look(epoch, place, Z)
                if on_epoch:
                    on_epoch((epoch - 1) * len(parts) + index + 1, len(parts) * epochs)
            state.epoch = epoch
            if on_state:
                on_state(state)
    Z = torch.cat(state.Z, 2)
    return LinearSweep(
        lambdas,
        looks,
        *state.seen,
        b=Z[:, -1],
        coordinates=Z[:, :-1],
        basis=basis,
        batch_loss=state.batch_loss,
        diverged=state.diverged,
    )


def _span(problem: LinearProblem) -> tuple[Tensor | None, Tensor, Tensor]:
    """Basis (S, p, n + 1), inputs (S, n, n + 1) and start (S, n + 1) in it; the originals if p is no larger.

    The start comes last, so that what of it no example reaches has a coordinate of its own, in which
    every input is exactly zero. The factorisation is done in float64.
    """
    X, w = problem.X, problem.w
    if X.shape[2] <= X.shape[1] + 1:
        return None, X, w
    Q, R = torch.linalg.qr(torch.cat([X.mT, w[:, :, None]], 2).double())
    R = R.to(X).mT
    return Q.to(X), R[:, :-1].contiguous(), R[:, -1].contiguous()


def _half_mse(design: Tensor, y: Tensor, Z: Tensor) -> Float[Tensor, "S L"]:
    return torch.baddbmm(y[:, :, None], design, Z, beta=-1).square_().mean(1) / 2


class _Adam:
    """Adam's moments for the biases of all trainings, (S, L), as torch.optim.Adam keeps them."""

    def __init__(self, rule: AdamBias, weight_decay: Tensor) -> None:
        self.rule, self.weight_decay = rule, weight_decay
        self.mean = self.square = torch.zeros(())
        self.steps = 0

    def step(self, b: Tensor, gradient: Tensor) -> Tensor:
        beta1, beta2 = self.rule.betas
        gradient = gradient + self.weight_decay * b
        self.steps += 1
        self.mean = beta1 * self.mean + (1 - beta1) * gradient
        self.square = beta2 * self.square + (1 - beta2) * gradient**2
        root = (self.square / (1 - beta2**self.steps)).sqrt() + self.rule.eps
        return b - self.rule.lr / (1 - beta1**self.steps) * self.mean / root


# Numbers in the inputs, of which every seed has its own copy.
_MOST = 2**24
# Numbers in the inputs that the model is tried on: batches that hold more are tried shorter.
_TRIED = 2**21
# Operations that make polynomials of what they are given, and those of their gradients.
_POLYNOMIAL = {
    *("add", "addmm", "baddbmm", "bmm", "div", "dot", "linear", "matmul", "mean", "mm", "mse_loss"),
    *("mse_loss_backward", "mul", "mv", "neg", "pow", "rsub", "square", "sub", "sum", "vdot"),
    *("alias", "as_strided", "clone", "contiguous", "copy", "detach", "empty_like", "expand", "fill"),
    *("full_like", "new_empty", "new_empty_strided", "new_zeros", "ones_like", "permute", "reshape"),
    *("select", "select_backward", "slice", "slice_backward", "squeeze", "t", "transpose", "unsafe_view"),
    *("unsqueeze", "view", "zeros", "zeros_like"),
}


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
    def reason(self) -> Text:
        """Why it goes this way, as a sentence."""
        what = "a linear model, a squared loss, plain SGD: solved in the span of the examples"
        return Text(what, "线性模型、平方损失、普通 SGD：在样本张成的空间里求解")


def linear_of(recipes: Recipes) -> Linear | None:
    """How a task is linear regression; None where it is not."""
    task = recipes.task
    X, target = task.train.inputs[0], task.train.target
    if task.clip is not None or len(task.train.inputs) != 1 or X.ndim != 2 or not X.is_floating_point():
        return None
    if target.dtype != X.dtype or target.shape[1:] not in ((), (1,)):
        return None
    if (decaying := _decaying(recipes)) is None:
        return None
    model = made(task, task.seeds[0])
    named = dict(model.named_parameters())
    weights = [name for name, p in named.items() if p.ndim == 2 and len(p) == 1]
    biases = [name for name, p in named.items() if p.shape == (1,)]
    trained = all(p.requires_grad for p in named.values())
    if [len(weights), len(biases), len(named)] != [1, 1, 2] or not trained:
        return None
    if list(model.buffers()) or any(p.dtype != X.dtype for p in named.values()) or _hooked(model):
        return None
    weight, bias = weights[0], biases[0]
    bias_decays = decaying == {(weight, 1.0), (bias, 1.0)}
    if not bias_decays and decaying != {(weight, 1.0)}:
        return None
    try:
        before = _memory([model.train(), task.loss])
        output = _output(task, model, weight, bias)
        scale = None if output is None else _loss_scale(task, output)
        remembers = _memory([model.train(), task.loss]) != before
    except Exception:  # not made for doubles, say: the other ways are tried
        return None
    if output is None or scale is None or remembers:
        return None
    n, p = X.shape
    k = min(p, n + 1) + 1
    if n * k > _MOST:
        return None
    held = 4 * k + 2 * p + 4 * max(n, len(task.test))
    return Linear(weight, bias, scale, bias_decays, output, target.element_size() * held)


def train_squared(
    linear: Linear, settings: Settings, start: Checkpoint | None = None, on_epoch: OnEpoch | None = None
) -> ChunkResult:
    """Train a chunk of linear models by `train_linear`: start, order and records as by the plain loop."""
    task, chunk = settings.task, settings.chunk
    problem = _problem(task, chunk, linear)
    lambdas = problem.X.new_tensor(settings.weight_decays)
    state, by_block = None, {}  # by the first place of a block: the measures of each look
    if start is not None:
        Z, seen, batch_loss, diverged, by_block = unpack(start.tensors, start.plain, task.device)
        state = LinearState(start.epoch, Z, seen, batch_loss, diverged)

    def look(place: slice, predictions: Tensor) -> None:
        outputs = linear.output(predictions.mT)
        by_block.setdefault(place.start, []).append(
            {
                name: measured(name, f, outputs, task.test.target.to(outputs.device), outputs.shape[:2]).cpu()
                for name, f in measures_of(task).items()
            }
        )

    def on_state(now: LinearState) -> None:
        def make() -> Checkpoint:
            return Checkpoint(now.epoch, *pack([now.Z, now.seen, now.batch_loss, now.diverged, by_block]))

        if on_epoch is not None:
            on_epoch(now.epoch, make)

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
        state=state,
        on_state=on_state,
    )
    blocks = [by_block[place] for place in sorted(by_block)]
    measures = [
        {name: torch.cat([block[e][name] for block in blocks], 1) for name in blocks[0][e]}
        for e in range(len(sweep.epochs))
    ]
    assert sweep.batch_loss is not None
    assert sweep.diverged is not None
    batch_loss, diverged = sweep.batch_loss.double().cpu(), sweep.diverged.cpu()
    looks = [
        {"epoch": epoch, "train": batch_loss[:, :, e], "test": test}
        for e, (epoch, test) in enumerate(zip(sweep.epochs, measures, strict=True))
    ]
    weights = {linear.weight: sweep.w.unsqueeze(2).cpu(), linear.bias: sweep.b.unsqueeze(2).cpu()}
    for tensor in weights.values():
        tensor[diverged >= 0] = math.nan
    trained = all_trained(chunk, settings.weight_decays, task.steps_per_epoch, looks, diverged)
    return ChunkResult(trained, weights)


def _decaying(recipes: Recipes) -> set[tuple[str, float]] | None:
    """The names and scales that decay, if all there is is w <- (1 - lr λ) w - lr g at a constant lr."""
    decaying: list[set[tuple[str, float]]] = []
    for pair in recipes.task.pairs:
        recipe = recipes.of(*pair)
        optimizer, rates, none = recipe.optimizer, recipe.rates, recipe.strong(0.0, "weight_decay")
        group = optimizer.param_groups[0]
        options = ("momentum", "dampening", "nesterov", "maximize", "weight_decay")
        if type(optimizer) is not optim.SGD or len(optimizer.param_groups) > 1 or _hooked(optimizer):
            return None
        if any(map(group.get, options)):
            return None
        if sorted(map(id, group["params"])) != sorted(map(id, recipe.model.parameters())):
            return None
        kinds = [type(rule) for rule in none.rules]
        if kinds not in ([Decoupled], [L2]) or none.weight_decay is None:
            return None
        if (rates != rates[0, 0]).any():
            return None
        decaying.append({(target.name, target.scale) for target in none.plan.all_targets})
    return decaying[0] if all(names == decaying[0] for names in decaying) else None


def _hooked(thing: nn.Module | optim.Optimizer) -> bool:
    """Whether hooks, or a method of its own, change what a model or an optimizer of this class does."""
    for part in [*thing.modules(), *thing.parameters()] if isinstance(thing, nn.Module) else [thing]:
        if isinstance(part, Tensor) and has_hooks(part):
            return True
        for name, value in vars(part).items():
            if ("hook" in name and value) or name in ("forward", "step"):
                return True
    return False


def has_hooks(p: Tensor) -> bool:
    """Whether a parameter has hooks on its gradient."""
    return bool(p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None))


class _Operations(TorchDispatchMode):
    """Notes the names of torch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name.removeprefix("aten::").strip("_"))
        return func(*args, **(kwargs or {}))


def _polynomial(function: Callable[..., Tensor], *given: Tensor) -> tuple[Tensor, list[Tensor]] | None:
    """What a function gives, and the gradients of its sum; None where an operation is no polynomial."""
    leaves = [tensor.detach().requires_grad_() for tensor in given]
    with _Operations() as operations:
        value = function(*leaves)
        gradients = torch.autograd.grad(value.sum(), leaves)
    return (value.detach(), list(gradients)) if operations.names <= _POLYNOMIAL else None


def _sizes(rows: int, batch: int) -> list[int]:
    """How many rows batches hold: the full ones, and the last."""
    return sorted({min(batch, rows), rows % batch or min(batch, rows)})


def _output(task: Task, model: nn.Module, weight: str, bias: str) -> Callable[[Tensor], Tensor] | None:
    """From predictions (n,) to what the model puts out; None if it is not Xw + b."""
    drawn, value = doubles(0), None
    named = dict(model.named_parameters())
    most = max(1, _TRIED // task.train.inputs[0].shape[1])
    sizes = [(True, size) for size in _sizes(len(task.train), task.batch_size)]
    sizes += [(False, size) for size in _sizes(len(task.test), 4 * task.batch_size)]
    for training, size in [(training, min(size, most)) for training, size in sizes]:
        model.train(training)
        X = torch.randn(size, task.train.inputs[0].shape[1], **drawn).to(task.device)
        w, b = (torch.randn(named[name].shape, **drawn).to(task.device) for name in (weight, bias))
        tried = _polynomial(lambda w, b: functional_call(model, {weight: w, bias: b}, (X,)), w, b)  # noqa: B023
        if tried is None:
            return None
        value, gradients = tried
        wanted = X @ w[0] + b, X.sum(0), torch.full_like(b, size)
        if value.shape not in ((size,), (size, 1)):
            return None
        if not all(map(_equal, (value.flatten(), gradients[0][0], gradients[1]), wanted)):
            return None
    assert value is not None
    return (lambda y: y) if value.ndim == 1 else (lambda y: y.unsqueeze(-1))


def _loss_scale(task: Task, output: Callable[[Tensor], Tensor]) -> float | None:
    """C of a loss c/2 mean((output - target)²) at every size of a batch; None if it is another loss."""
    drawn = doubles(1)
    scales = []
    for size in _sizes(len(task.train), task.batch_size):
        for one in (1.0, 30.0):
            predicted = output(one * torch.randn(size, **drawn).to(task.device))
            target = one * torch.randn(size, **drawn).to(task.device).view(size, *task.train.target.shape[1:])
            if predicted.shape != target.shape:
                return None  # broadcasting would make a loss of all pairs
            tried = _polynomial(lambda predicted: task.loss(predicted, target), predicted)  # noqa: B023
            if tried is None or tried[0].ndim:
                return None
            loss, (gradient,) = tried
            error = predicted - target
            scales.append(loss.item() / (error.square().mean().item() / 2))
            if not _equal(gradient, scales[-1] / size * error):
                return None
    alike = all(math.isclose(scale, scales[0], rel_tol=1e-10) for scale in scales)
    return scales[0] if alike and scales[0] > 0 else None


def _equal(value: Tensor, wanted: Tensor) -> bool:
    """Equal up to rounding, of the largest."""
    return bool((value - wanted).abs().max() <= 1e-10 * wanted.abs().max())


def _memory(value: Any, seen: "set[int] | None" = None) -> Any:
    """What a function or a model could keep from one call to the next, to be compared: its plain values.

    Of tensors it is which they are, and how often they were changed in place.
    """
    if value is None or isinstance(value, str | bool | int | float | complex):
        return value
    seen = set() if seen is None else seen
    code = getattr(value, "__code__", None)
    torch_own = code is not None and str(getattr(value, "__module__", "")).startswith("torch.")
    if id(value) in seen or isinstance(value, type | ModuleType) or torch_own:
        return None
    seen.add(id(value))
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, functools.partial):
        value = [value.func, value.args, value.keywords]
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, Sequence | Set):
        return len(value), [_memory(one, seen) for one in [*value][:1000]]
    parts = dict(getattr(value, "__dict__", {}))
    if code is not None:
        parts |= {name: value.__globals__[name] for name in code.co_names if name in value.__globals__}
        for name, cell in zip(code.co_freevars, getattr(value, "__closure__", None) or (), strict=False):
            with contextlib.suppress(ValueError):  # a name that has no value yet
                parts[name] = cell.cell_contents
    parts |= {name: getattr(value, name) for name in ("__self__", "__func__") if hasattr(value, name)}
    return [(name, _memory(part, seen)) for name, part in parts.items()]


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
        y_test=shared(task.train.target.new_zeros(len(task.test))),  # looks take the user's loss instead
        w=torch.stack([start[linear.weight].detach()[0] for start in starts]),
        b=torch.stack([start[linear.bias].detach()[0] for start in starts]),
        order=torch.stack(orders).to(device),
    )
