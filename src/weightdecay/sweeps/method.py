"""How the copies of a task are trained: the method, found by trying, its chunks, and the training of one.

The sections: what may be trained at all (`check_task`), whether copies can be trained together
(`linear_is_right`, `why_not_stacked`, `why_not_in_doubles`), and how many go into a chunk (`plan_of`).
"""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn, optim
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from weightdecay.engine import Capacity, cores
from weightdecay.errors import InputError
from weightdecay.memory import available
from weightdecay.rules import Rule, Step
from weightdecay.sweeps.alone import Alone, train_alone
from weightdecay.sweeps.chunk import Recipes, Settings, optimizer_of, options_of
from weightdecay.sweeps.linear import Linear, has_hooks, linear_of, train_squared
from weightdecay.sweeps.looks import (
    at_epoch,
    brief,
    doubles,
    failed,
    function_name,
    loss_of,
    made,
    mixed,
    outputs_of,
    reseed,
    set_up,
    tensors_of,
)
from weightdecay.sweeps.task import Checkpoint, Chunk, ChunkResult, OnEpoch, Task
from weightdecay.sweeps.vectorised import AXES, Copies, apply_to_copies, fuse, train_vectorised
from weightdecay.text import Text

_CHINESE = {
    "linear": "线性回归，所有副本一起训练",
    "vectorised": "所有副本合成一个模型",
    "one by one": "逐个训练",
}


@dataclass(frozen=True)
class Method:
    """How the copies of a task are trained.

    Args:
        name: "linear": `weightdecay.sweeps.linear`; "vectorised": all copies of a chunk as one model;
            "one by one": each by the plain loop.
        reason: why, a sentence.
        seeds_together: whether a chunk may hold several seeds.
        bytes_per_copy: an upper estimate of what a copy takes in training.
        work: what a step of a copy moves and multiplies, bytes and operations together; by no clock, so that
            the same sweep is planned in the same way, busy machine or not.
    """

    name: Literal["linear", "vectorised", "one by one"]
    reason: Text
    seeds_together: bool
    bytes_per_copy: int
    work: int = 0

    @property
    def words(self) -> Text:
        """The method and why, as a record says it."""
        return Text(f"{self.name}: {self.reason}", f"{_CHINESE[self.name]}（{self.reason.zh}）")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "reason_zh": self.reason.zh}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Method":
        """What `to_dict` gave; stores of earlier versions have no Chinese."""
        reason = Text(values["reason"], values.get("reason_zh", values["reason"]))
        sizes = values["bytes_per_copy"], values.get("work", 0)
        return cls(values["name"], reason, values["seeds_together"], *sizes)


def method_of(recipes: Recipes) -> Method:
    """Find out how the copies of a task can be trained, by trying it on one batch.

    Raises:
        InputError: the task cannot be trained at all, or a strength cannot be; see `check_task`, `wd.attach`.
    """
    task = recipes.task
    with set_up(task):
        trial = check_task(task)
        recipes.check(task.strengths.values)  # refuses what attach refuses, before any training
        linear = None if trial.draws else linear_of(recipes)
        if linear is not None and linear_is_right(recipes, linear):
            return Method("linear", linear.reason, True, linear.bytes_per_copy, linear.bytes_per_copy)
        seeds = task.seeds[:1] if trial.draws else task.seeds[:2]
        # Tried are the optimizer, every rule, and training itself: two strengths against the plain loop.
        reason, lr = None, task.pairs[0][1]
        for each in task.lrs or (None,):
            reason = reason or why_not_stacked(task, seeds[0], each)
        for rule in task.rules:
            if reason is None:
                settings = _short(recipes, (rule, lr), seeds)
                reason = _rules(settings) or _training(settings)
        reason = reason or why_not_in_doubles(task, seeds)
        if reason is not None:  # refuses what cannot be trained this way, either
            train_alone(_short(recipes, task.pairs[0], seeds[:1], (0.0,)))
    # Weights, gradients, two of the optimizer's, a rule's point, copies; activations; outputs.
    size = 10 * trial.weight_bytes + 5 * trial.forward_bytes + 3 * trial.output_bytes
    work = size + 3 * trial.flops  # of the forward pass, and twice as many of the backward pass
    if reason is not None:
        return Method("one by one", reason, True, size, work)
    reason = Text("all copies run as one model", "所有副本作为一个模型运行")
    if trial.draws:
        reason = Text(
            f"{reason}; the model draws random numbers, so each seed has a chunk of its own",
            f"{reason.zh}；模型会抽取随机数，所以每个种子单独成块",
        )
    return Method("vectorised", reason, not trial.draws, size, work)


def train_chunk(
    recipes: Recipes,
    chunk: Chunk,
    method: Method,
    start: Checkpoint | None = None,
    on_epoch: OnEpoch | None = None,
) -> ChunkResult:
    """Train every seed of a chunk at every strength.

    The bits do not depend on `start` and `on_epoch`. They may depend on the number of threads and on how
    many copies the chunk holds, but not on their values: a copy that diverges leaves the others alone.

    Args:
        recipes: of the task that is trained.
        chunk: the copies.
        method: what `method_of` found.
        start: go on from here.
        on_epoch: called after each epoch with the number of epochs done and a function that makes the
            checkpoint; one by one, epochs are counted over the copies.

    Raises:
        InputError: a strength that cannot be, a step that would remove a whole weight; before any training.
            The task is not linear regression, though its store says so.
    """
    with set_up(recipes.task):
        settings = recipes.of(chunk.rule, chunk.lr).settings(chunk)
        return _trained(recipes, settings, method, start, on_epoch)


def _trained(
    recipes: Recipes, settings: Settings, method: Method, start: Checkpoint | None, on_epoch: OnEpoch | None
) -> ChunkResult:
    if method.name == "one by one":
        return train_alone(settings, start, on_epoch)
    if method.name == "vectorised":
        assert method.seeds_together or len(settings.chunk.seeds) == 1
        return train_vectorised(settings, start, on_epoch)
    linear = linear_of(recipes)
    if linear is None:
        what = "the store was begun by a version that took this for plain linear regression, which it is not"
        raise InputError(what, "out", None, "begin again in another folder")
    return train_squared(linear, settings, start, on_epoch)


def sampled(recipes: Recipes, chunk: Chunk, method: Method) -> tuple[ChunkResult, float]:
    """Train a few steps of a chunk, for what they give and for the seconds that all of it would take.

    Five epochs of at most three batches: the first is slower than others, the last alone has a look at the
    test data; of those in between the fastest counts, because a busy machine only makes one slower.
    """
    task = recipes.task
    with set_up(task):
        settings = recipes.of(chunk.rule, chunk.lr).settings(chunk)
        epochs = min(task.epochs, 5)
        rows = task.train.rows(slice(_STEPS * task.batch_size))
        short = dataclasses.replace(task, train=rows, epochs=epochs, every=epochs)
        settings = dataclasses.replace(settings, task=short, rates=settings.rates[:, : short.steps])
        ends = [time.perf_counter()]
        result = _trained(recipes, settings, method, None, lambda *_: ends.append(time.perf_counter()))
    spans = [end - begun for begun, end in itertools.pairwise(ends)]
    step = min(spans[1:-1] or spans[:1])
    look = max(0.0, spans[-1] - step)
    looks = -(-task.epochs // task.every)
    return result, step * task.steps / short.steps_per_epoch + look * looks


# What may be trained at all.


@dataclass(frozen=True)
class Trial:
    """What a batch and the test data showed.

    Args:
        draws: whether the model draws random numbers.
        forward_bytes: of one copy, kept from the forward pass of a batch for the backward pass.
        weight_bytes: of its parameters and buffers.
        output_bytes: of its outputs for all test examples.
        flops: operations of the forward pass of a batch in matrix products and convolutions.
        results: loss, metrics and outputs, to be compared.
    """

    draws: bool
    forward_bytes: int
    weight_bytes: int
    output_bytes: int
    flops: int
    results: str


def check_task(task: Task) -> Trial:
    """Try model, loss and metrics on one batch, twice under the first seed.

    Raises:
        InputError: the model cannot be made or called; parameters that are not float, or none to train; two
            runs under one seed differ; a seed has a model of another layout; the loss is not one number
            that the parameters decide, or has other values for equal arguments; a metric fails.
    """
    seed = task.seeds[0]
    model, again = made(task, seed), made(task, seed)
    check_parameters(model)
    kind = type(model).__name__
    if not set(map(id, model.parameters())).isdisjoint(map(id, again.parameters())):
        remedy = "make the model in the function, or a deep copy"
        where = function_name(task.make_model)
        raise InputError("every call has to return a new model", "make_model", where, remedy)
    layout = _layout(model)
    for other in task.seeds[1:]:  # weights of several seeds are kept together
        if (another := _layout(made(task, other))) != layout:
            name = next(name for name in {**layout, **another} if layout.get(name) != another.get(name))
            what = f"the model's layout depends on the seed: {name} is another with seed {other}"
            raise InputError(what, "make_model", kind, "make models of one layout")
    same = again.state_dict()
    for name, tensor in model.state_dict().items():
        if name not in same or not torch.equal(tensor, same[name]):
            raise _undetermined("its initialisation differs between two runs", name)
    trial = _tried(task, model, seed)
    if trial.results != _tried(task, again, seed).results:
        raise _undetermined("its output differs between two runs", kind)
    if rows := len(task.train) % task.batch_size:  # BatchNorm refuses a last batch of a single example
        batch = task.train.rows(slice(rows), task.device)
        try:
            _loss(task, _output(again.train(), *batch.inputs), batch.target)
        except InputError as error:
            what = f"the last batch of an epoch holds {rows} of {task.batch_size} examples, and {error}"
            raise InputError(what, "batch_size", task.batch_size, "give another batch size") from error
    return trial


def check_parameters(model: nn.Module) -> None:
    """Refuse parameters that are not float or have no shape yet, and a model with nothing to train."""
    for name, p in model.named_parameters():
        if isinstance(p, nn.UninitializedParameter):
            remedy = "give the layer its sizes"
            raise InputError("a parameter without a shape before the first batch", name, "lazy", remedy)
        if not p.is_floating_point():
            kind = str(p.dtype).removeprefix("torch.")
            raise InputError("a parameter that is not float", name, kind, "use a floating point type")
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("nothing to train", "make_model", type(model).__name__, "unfreeze some parameters")


def _layout(model: nn.Module) -> dict[str, Any]:
    layout = {}
    for name, tensor in tensors_of(model).items():
        layout[name] = tuple(tensor.shape), tensor.dtype
    return layout


def _tried(task: Task, model: nn.Module, seed: int) -> Trial:
    """A forward and backward pass of the first batch, then loss and metrics of the test data."""
    batch = task.train.rows(slice(task.batch_size), task.device)
    weights, saved = [*model.parameters(), *model.buffers()], {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    reseed(mixed(seed, "step", 0), task.device)
    before = _random_state(task.device)
    model.train()
    counter = _Flops()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with counter:
            output = _output(model, *batch.inputs)
        loss = _loss(task, output, batch.target)
        try:
            torch.autograd.grad(loss, [p for p in weights if p.requires_grad], allow_unused=True)
        except Exception as error:
            what = f"the loss has no gradient ({brief(error)})"
            remedy = "mend the model or the loss"
            raise InputError(what, "loss", function_name(task.loss), remedy) from error
    draws = not torch.equal(before, _random_state(task.device))
    results = [loss.item()]
    with torch.no_grad():
        reseed(mixed(seed, "look", 0), task.device)
        before = _random_state(task.device)
        model.eval()
        try:
            output = outputs_of(functools.partial(_output, model), task.test, task)
        except InputError:
            raise
        except Exception as error:
            what = f"the outputs of batches cannot be joined ({brief(error)})"
            remedy = "return tensors whose first axis counts the examples"
            raise InputError(what, "make_model", type(model).__name__, remedy) from error
        draws = draws or not torch.equal(before, _random_state(task.device))
        target = task.test.target.to(task.device)
        results.append(_loss(task, output, target, decided=False).item())
        _check_loss(task, output, target)
        for name, metric in task.metrics.items():
            try:
                results.append(float(metric(output, target)))
            except Exception as error:
                raise failed(name, metric, error) from error
    leaves = pytree.tree_leaves(output)
    shared = set(map(Tensor.data_ptr, (*weights, *batch.inputs)))
    return Trial(
        draws=draws,
        forward_bytes=sum(size for pointer, size in saved.items() if pointer not in shared),
        weight_bytes=sum(tensor.nbytes for tensor in weights),
        output_bytes=sum(tensor.nbytes for tensor in leaves),
        flops=counter.flops,
        results=repr([results, [leaf.double().sum().item() for leaf in leaves]]),
    )


class _Flops(TorchDispatchMode):
    """Counts the operations of matrix products, convolutions and attention."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += int(count(*args, **(kwargs or {}), out_val=result))
        return result


def _random_state(device: torch.device) -> Tensor:
    """The state of torch's generators, to see whether numbers are drawn."""
    state = torch.get_rng_state()
    return torch.cat([state, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else state


def _output(model: nn.Module, *inputs: Tensor) -> Any:
    try:
        return model(*inputs)
    except InputError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" for x in inputs)
        what = f"the model cannot be called with the data ({brief(error)})"
        remedy = "give what the model takes; the last tensor is the target"
        raise InputError(what, "inputs", shapes, remedy) from error


def _loss(task: Task, output: Any, target: Tensor, decided: bool = True) -> Tensor:
    """The loss; `decided`: it has to depend on the parameters."""
    loss: Any = loss_of(task, output, target)
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        shape = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        what = "the loss has to be one number for a batch"
        raise InputError(what, "loss", shape, "return the mean over the batch, a 0-dim tensor")
    if (decided and not loss.requires_grad) or not loss.is_floating_point():
        what, remedy = "the loss does not depend on the parameters", "without detach or item"
        raise InputError(what, "loss", function_name(task.loss), f"compute it from the output, {remedy}")
    return loss


def _check_loss(task: Task, output: Any, target: Tensor) -> None:
    """Refuse a loss that remembers: it would be another one in each training."""
    values = []
    for _ in range(2):
        reseed(0, task.device)
        values.append(_loss(task, output, target, decided=False).item())
    if repr(values[0]) != repr(values[1]):
        what = "the loss has another value when it is called again"
        remedy = "make it a function of (output, target) alone, drawing from torch's global generator"
        raise InputError(what, "loss", function_name(task.loss), remedy)


def _undetermined(what: str, where: str) -> InputError:
    return InputError(
        f"the model is not deterministic under a fixed seed: {what}",
        "make_model",
        where,
        "draw all random numbers from torch's global generator, and none at import",
    )


# Whether copies can be trained together.

_STEPS = 3
_MORE_STEPS = 12  # of an optimizer that is not torch's, which may do something else after a while
# A strength that shows in three steps and never removes a whole weight.
_STRENGTH = 0.01
# Weights and gradients of the copies in the trial of an optimizer have these sizes: one that looks at a
# norm over all of a tensor would take the largest for all of them.
_SIZES = (1.0, 1e4, 1e-3)


def linear_is_right(recipes: Recipes, linear: Linear) -> bool:
    """Whether the linear route ends where the plain loop does, after a few steps: losses and weights."""
    _, lr = recipes.task.pairs[0]
    for rule in recipes.task.rules:
        settings = _short(recipes, (rule, lr), recipes.task.seeds[:2])
        fast, plain = train_squared(linear, settings), train_alone(settings)
        eps = torch.finfo(next(iter(plain.weights.values())).dtype).eps
        for one, other in zip(fast.trained, plain.trained, strict=True):
            losses = torch.tensor(
                [[copy.train_loss, copy.test_loss] for copy in (one, other)],
                dtype=torch.float64,
                device="cpu",
            )
            if one.diverged != other.diverged or not torch.allclose(*losses, rtol=1e4 * eps, equal_nan=True):
                return False
        for name, weights in plain.weights.items():
            wanted = weights.nan_to_num()
            if not _close(fast.weights[name].nan_to_num(), wanted, wanted):
                return False
    return True


def why_not_in_doubles(task: Task, seeds: tuple[int, ...]) -> Text | None:
    """Why not together, found in doubles, where rounding hides less; None if model or loss take none."""
    if {p.dtype for p in made(task, seeds[0]).parameters()} == {torch.float64}:
        return None  # that was it

    def double(x: Tensor) -> Tensor:
        return x.double() if x.is_floating_point() else x

    train, test = task.train.map(double), task.test.map(double)
    doubled = dataclasses.replace(task, make_model=lambda: task.make_model().double(), train=train, test=test)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        try:
            settings = _short(Recipes(doubled), task.pairs[0], seeds)
            for seed in seeds:
                run = Alone(settings, dataclasses.replace(settings.chunk.copies[0], seed=seed))  # no decay
                for epoch in range(settings.task.epochs):
                    run.train_epoch(epoch)
        except Exception:  # a weight of the loss in float32, say
            return None
        return _training(settings)
    finally:
        torch.set_default_dtype(before)


def _short(
    recipes: Recipes,
    pair: tuple[str, float | None],
    seeds: tuple[int, ...],
    strengths: tuple[float, ...] = (0.0, _STRENGTH),
) -> Settings:
    """A chunk of about three steps: at most two full batches, the last one, and few test data."""
    task = recipes.task
    settings = recipes.of(*pair).settings(Chunk(*pair, strengths, "weight_decay", seeds))
    full, last = divmod(len(task.train), task.batch_size)
    rows = min(full, _STEPS - 1) * task.batch_size + last
    train, test = task.train.rows(slice(rows)), task.test.rows(slice(task.batch_size))
    short = dataclasses.replace(task, train=train, test=test, every=1)
    epochs = min(task.epochs, -(-_STEPS // short.steps_per_epoch))
    short = dataclasses.replace(short, epochs=epochs)
    return dataclasses.replace(settings, task=short, rates=settings.rates[:, : short.steps])


def why_not_stacked(task: Task, seed: int, lr: float | None) -> Text | None:
    """Why the optimizer cannot hold stacked copies, as a sentence: three copies against each alone."""
    starts: list[Tensor] = []  # three copies of each parameter
    together: list[nn.Parameter] = []
    apart: list[list[nn.Parameter]] = [[], [], []]
    for name, p in made(task, seed).named_parameters():
        if has_hooks(p):
            what = f"the parameter {name} has hooks, which stacked copies of it have not"
            return Text(what, f"参数 {name} 带有钩子，而它堆叠后的副本没有")
        starts.append(torch.stack([size * p.detach() for size in _SIZES]))
        # Two axes in front, as in training.
        together.append(nn.Parameter(starts[-1][None].clone(), p.requires_grad))
        for several, copy in zip(apart, starts[-1], strict=True):
            several.append(nn.Parameter(copy.clone(), p.requires_grad))
    kind = Text("the optimizer", "优化器")
    try:
        alone = [optimizer_of(task, several, lr) for several in apart]
        kind = Text(type(alone[0]).__name__, f"{type(alone[0]).__name__} ")
        if isinstance(alone[0], optim.LBFGS):
            what = "LBFGS searches along one line for all elements of a model"
            return Text(what, "LBFGS 对模型的所有元素沿同一条直线搜索")
        stacked = optimizer_of(task, together, lr)
        groups = _groups(alone[0], apart[0])
        if any(None in places for places, _ in groups):
            return Text(f"{kind} holds parameters that it was not given", f"{kind.zh}持有未交给它的参数")
        if _groups(stacked, together) != groups:
            what = f"the parameter groups of {kind} depend on the shapes of the parameters"
            return Text(what, f"{kind.zh}的参数组取决于参数的形状")
        fuse(stacked)
        drawn = doubles(0)
        for _ in range(_STEPS if type(alone[0]).__module__.startswith("torch.optim.") else _MORE_STEPS):
            for i, p in enumerate(together):
                if not p.requires_grad:
                    continue
                draw = torch.randn(p.shape[1:], **drawn).to(p)
                gradients = [size * part for size, part in zip(_SIZES, draw, strict=True)]
                p.grad = torch.stack(gradients)[None]
                for copy, gradient in zip(apart, gradients, strict=True):
                    copy[i].grad = gradient.clone()
            for optimizer in (stacked, *alone):
                optimizer.step()
    except Exception as error:
        cause = _cause(error)
        return Text(
            f"{kind} does not take stacked parameters ({cause})", f"{kind.zh}不接受堆叠的参数（{cause}）"
        )
    for i, p in enumerate(together):
        for j, copy in enumerate(apart):
            value, wanted = p.detach()[0, j], copy[i].detach()
            if not _close(value - starts[i][j], wanted - starts[i][j], wanted):
                return Text(f"{kind} does not treat every element by itself", f"{kind.zh}不是逐元素更新的")
    return None


def _groups(optimizer: optim.Optimizer, given: list[nn.Parameter]) -> list[tuple[list[int | None], str]]:
    """Of each group the places of its parameters among those given (None: not given), and its options."""
    places = {id(p): i for i, p in enumerate(given)}
    groups = []
    for group, options in zip(optimizer.param_groups, options_of(optimizer), strict=True):
        groups.append((list(map(places.get, map(id, group["params"]))), repr(options)))
    return groups


def _rules(settings: Settings) -> Text | None:
    """Whether the chunk's rules act on stacked weights as on each alone."""
    for r, rule in enumerate(settings.strong[0].rules):
        name = type(rule).__name__
        if any(_fixed(rule) != _fixed(strong.rules[r]) for strong in settings.strong):
            what = f"{name} depends on the strength in more than its strength"
            return Text(what, f"{name} 除强度外还有别的量随强度变化")
        if rule.told_more:
            what = f"{name} looks at more than stacked weights and their update"
            return Text(what, f"{name} 用到的不只是堆叠的权重及其更新量")
        if rule.built_in:
            continue
        target = settings.strong[0].plan.all_targets[0]
        w = torch.linspace(-1, 1, 3 * target.parameter.numel()).to(target.parameter)
        copies = w.view(1, 3, *target.parameter.shape)
        try:
            together, each = _applied(rule, copies, target.name)
        except Exception as error:
            cause = _cause(error)
            return Text(
                f"{name} does not take stacked weights ({cause})", f"{name} 不接受堆叠的权重（{cause}）"
            )
        if not _close(together, each, each):
            return Text(f"{name} does not treat every copy by itself", f"{name} 没有分别处理各个副本")
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


def _training(settings: Settings) -> Text | None:
    """Whether training together gives what training alone gives."""
    task = settings.task
    try:
        models = [made(task, seed) for seed in settings.chunk.seeds]
        together = Copies(settings, models)
        data = task.train.rows(slice(None), task.device)
        for epoch in range(task.epochs):
            together.train_epoch(epoch, data)
    except Exception as error:
        cause = _cause(error)
        return Text(f"the copies do not run as one model ({cause})", f"各副本无法合成一个模型运行（{cause}）")
    if any(p.grad is not None for model in models for p in model.parameters()):
        what = "model or loss reach the weights otherwise than as the model's parameters"
        return Text(what, "模型或损失不是通过模型的参数取得权重")
    alone = []
    for copy in settings.chunk.copies:
        alone.append(Alone(settings, copy))
        for epoch in range(task.epochs):
            with at_epoch(epoch + 1):
                alone[-1].train_epoch(epoch)
    eps = max(torch.finfo(p.dtype).eps for p in together.parameters.values())
    return (
        _other_losses(together, alone, eps)
        or _other_gradients(together, alone, eps)
        or _unmoved(together, alone)
    )


def _other_losses(together: Copies, alone: list[Alone], eps: float) -> Text | None:
    loose = 1e-8 if eps < 1e-12 else max(1e-3, 2 * eps)
    train, test = together.looks[-1]["train"], together.looks[-1]["test"][""]
    diverged = together.diverged.flatten().tolist()
    losses = zip(train.flatten().tolist(), test.flatten().tolist(), strict=True)
    for plain, at, both in zip(alone, diverged, losses, strict=True):
        if (None if at < 0 else at) != plain.diverged:
            what = "copies trained as one model diverge at another step than alone"
            return Text(what, "合在一起训练时，副本发散的步数与单独训练时不同")
        _, *wanted, _ = plain.looks[-1]
        gap = max(abs(x - y) - loose * abs(y) for x, y in zip(both, wanted, strict=True))
        if plain.diverged is None and gap > loose:
            what = f"copies trained as one model end elsewhere than alone (losses differ by {gap:.2g})"
            return Text(what, f"合在一起训练的结果与单独训练不同（损失相差 {gap:.2g}）")
    return None


def _other_gradients(together: Copies, alone: list[Alone], eps: float) -> Text | None:
    """Whether a gradient of the last step differs, without decay: a loss may not show it in three steps.

    What is compared are norms of tensors; one that is all rounding, as of a bias before a BatchNorm, is
    small beside the norm of them all.
    """
    loose, floor = (eps**0.5, eps**0.75) if eps < 1e-12 else (eps ** (1 / 3), eps ** (2 / 3))
    width = together.diverged.shape[1]
    for s, plain in enumerate(alone[::width]):
        gradients, norms = {}, {}
        for name, p in plain.model.named_parameters():
            if p.grad is not None:
                gradients[name] = p.grad.to_dense().double()
                norms[name] = float(gradients[name].norm())
        whole = math.hypot(*norms.values())
        for name, p in together.parameters.items():
            if (p.grad is None) != (name not in gradients):
                what = f"the parameter {name} has a gradient together and none alone, or the other way round"
                return Text(what, f"参数 {name} 只在合并训练或只在单独训练时有梯度")
            if p.grad is None or plain.diverged is not None:
                continue
            gap = float((p.grad[s, 0].double() - gradients[name]).norm())
            if gap > loose * norms[name] + floor * whole:
                share = gap / max(norms[name], floor * whole)
                return Text(
                    "copies trained as one model have other gradients than alone "
                    f"({name}: {share:.2g} of it)",
                    f"合在一起训练时梯度与单独训练不同（{name}：相对差 {share:.2g}）",
                )
    return None


def _unmoved(together: Copies, alone: list[Alone]) -> Text | None:
    """Whether a buffer stays behind where it moves alone; losses may not show it in three steps.

    What it moved by is compared roughly: before a BatchNorm, biases follow rounding noise.
    """
    if not together.buffers:
        return None
    task, seeds = together.settings.task, together.settings.chunk.seeds
    starts = [dict(made(task, seed).named_buffers()) for seed in seeds]
    for name, stacked in together.buffers.items():
        start = torch.stack([buffers[name] for buffers in starts]).unsqueeze(1).double()
        ends = torch.stack([dict(plain.model.named_buffers())[name] for plain in alone]).unflatten(
            0, stacked.shape[:AXES]
        )
        moved_by, wanted = stacked.double() - start, ends.double() - start
        room = 0.5 * wanted.abs().max() + 1e-6 * start.abs().max() if start.numel() else 0
        if start.numel() and ((moved_by - wanted).abs() > room).any():
            what = f"the buffer {name} does not follow a copy's batches (the model replaces it)"
            return Text(what, f"缓冲区 {name} 没有跟随副本的批次变化（模型把它换掉了）")
    return None


def _fixed(rule: Rule) -> Any:
    """All of a rule but its strength."""
    others = [f.name for f in dataclasses.fields(rule) if f.name != "weight_decay" and f.compare]
    return type(rule), [getattr(rule, name) for name in others], callable(rule.weight_decay)


def _close(value: Tensor, wanted: Tensor, weights: Tensor) -> bool:
    """Equal up to rounding, of the difference and of the weights it was taken from."""
    eps = torch.finfo(wanted.dtype).eps
    room = 1e3 * eps * wanted.abs().max() + 8 * eps * weights.abs().max()
    return bool(((value - wanted).abs() <= room).all())


def _cause(error: Exception) -> str:
    return brief(error.__cause__ if isinstance(error.__cause__, Exception) else error, 100)


# How many copies go into a chunk.

T = TypeVar("T")
# What chunks may take of the memory that can be had: the estimate is of one copy, and others need some, too.
_SHARE = {"cpu": 0.4, "cuda": 0.7}
_PROCESS_BYTES = 300 * 2**20  # what a process with torch takes before it trains
# Work of a sweep (`Method.work`) from which it is planned for every core: about ten seconds of one.
_MUCH_WORK = 2 * 10**11
_STEP_WORK = 2 * 10**7  # what a step costs beside its copies: about a millisecond


@dataclass(frozen=True)
class Plan:
    """How copies are put together.

    Args:
        method: how they are trained.
        copies: the most that train together.
        threads: of torch in each training; results of another number may differ in their last bit.
        tasks: how many chunks are meant to be trained at a time.
    """

    method: Method
    copies: int
    threads: int
    tasks: int = 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "method": self.method.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Plan":
        """What `to_dict` gave; stores of earlier versions have no `tasks`."""
        numbers = values["copies"], values["threads"], values.get("tasks", 1)
        return cls(Method.from_dict(values["method"]), *numbers)


def processes_of(method: Method, task: Task, total: int) -> Capacity | None:
    """What local processes of one thread can do, one a core and no more than memory allows.

    None where a sweep is planned for this process with torch's threads: too little work, a single core, a
    GPU; one by one, whose copies are the same wherever they are trained.

    Args:
        method: how copies are trained.
        task: what is trained.
        total: how many copies.
    """
    work = method.work * task.steps * total
    if method.name == "one by one" or task.device.type != "cpu" or work < _MUCH_WORK:
        return None
    count, memory = cores(), available("cpu")
    if memory is not None:
        data = (task.train.inputs, task.train.target, task.test.inputs, task.test.target)
        held = _PROCESS_BYTES + 2 * sum(tensor.nbytes for tensor in pytree.tree_leaves(data))
        # Halved, so that nearly the same memory at hand gives the same chunks.
        while count > 1 and memory // count - held < 4 * method.bytes_per_copy:
            count //= 2
        memory = memory // count - held
    return Capacity(count, memory) if count > 1 else None


def plan_of(
    method: Method,
    total: int,
    threads: int,
    device: torch.device,
    capacity: Capacity | None,
    chunk: int | None,
) -> Plan:
    """Make chunks as large as memory allows, but as many as there are workers.

    Args:
        method: how copies are trained.
        total: how many there are.
        threads: of torch here.
        device: where they are trained.
        capacity: of the workers; None: chunks run here, one after another.
        chunk: the most copies of a chunk, where the user says so.
    """
    if method.name == "one by one":
        return Plan(method, 1, 1)  # the cores are shared by copies
    if capacity is None:
        tasks, memory = 1, available(device)
    else:
        tasks, memory, threads = capacity.tasks, capacity.memory, 1
    copies = -(-total // tasks)
    if memory is not None:
        fits = max(1, int(memory * _SHARE.get(device.type, 0.4)) // max(1, method.bytes_per_copy))
        if copies > fits:  # a power of two: nearly the same memory at hand gives the same chunks, so bits
            copies = 2 ** (fits.bit_length() - 1)
    return Plan(method, chunk or copies, threads, tasks)


def chunks_of(
    plan: Plan,
    settings: Sequence[tuple[str, float | None]],
    strengths: Sequence[float],
    unit: str,
    seeds: Sequence[int],
) -> tuple[Chunk, ...]:
    """Every strength and seed of every rule and learning rate, in chunks.

    Of all ways to cut seeds and strengths into equal parts it is the one that `plan.tasks` at a time are done
    with first; and of those the one with most seeds to a chunk: weights are kept until every seed is done.

    >>> method = Method("vectorised", Text("", ""), True, 1)
    >>> grid = [("Decoupled", None)], (0.0, 0.1, 0.2), "weight_decay", (0, 1)
    >>> [(chunk.strengths, chunk.seeds) for chunk in chunks_of(Plan(method, 4, 1), *grid)]
    [((0.0, 0.1, 0.2), (0,)), ((0.0, 0.1, 0.2), (1,))]
    """

    def sizes(count: int) -> list[int]:
        return sorted({-(-count // parts) for parts in range(1, count + 1)})

    def costs(cut: tuple[int, int]) -> tuple[float, int, int]:
        chunks = len(settings) * -(-len(seeds) // cut[0]) * -(-len(strengths) // cut[1])
        return -(-chunks // plan.tasks) * (cut[0] * cut[1] * work + _STEP_WORK), chunks, -cut[0]

    work = max(1, plan.method.work)
    several = sizes(len(seeds)) if plan.method.seeds_together else [1]
    cuts = ((a, b) for a in several for b in sizes(len(strengths)) if a * b <= plan.copies)
    most_seeds, most_strengths = min(cuts, key=costs)
    return tuple(
        Chunk(rule, lr, some, unit, part)
        for rule, lr in settings
        for some in split(strengths, most_strengths)
        for part in split(seeds, most_seeds)
    )


def split(values: Sequence[T], most: int) -> tuple[tuple[T, ...], ...]:
    """Parts of at most so many, and of nearly the same size.

    >>> split(range(5), 3)
    ((0, 1, 2), (3, 4))
    """
    count = -(-len(values) // most)
    size, longer = divmod(len(values), count) if count else (0, 0)
    parts, start = [], 0
    for i in range(count):
        end = start + size + (i < longer)
        parts.append(tuple(values[start:end]))
        start = end
    return tuple(parts)
