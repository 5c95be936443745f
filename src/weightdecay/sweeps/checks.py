"""What a model, a loss and metrics have to be before anything is trained; and what a copy of them takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from weightdecay.errors import InputError
from weightdecay.sweeps.looks import failed, loss_of, outputs_of
from weightdecay.sweeps.seeds import made, mixed, reseed
from weightdecay.sweeps.task import Task


@dataclass(frozen=True)
class Seen:
    """What a batch and the test data showed.

    Args:
        draws: whether the model draws random numbers.
        forward_bytes: of one copy, kept from the forward pass of a batch for the backward pass.
        weight_bytes: of its parameters and buffers.
        output_bytes: of its outputs for all test examples.
        results: loss and metrics, to be compared.
    """

    draws: bool
    forward_bytes: int
    weight_bytes: int
    output_bytes: int
    results: str


def check_task(task: Task, seeds: Sequence[int]) -> Seen:
    """Try model, loss and metrics on one batch, twice under the first seed.

    Raises:
        InputError: the model cannot be made or called; parameters that are not float, or none to train; two
            runs under one seed differ; a seed has a model of another layout; the loss is not one number
            that the parameters decide, or has other values for equal arguments; a metric fails.
    """
    seed = seeds[0]
    models = [made(task, seed) for _ in range(2)]
    check_parameters(models[0])
    one, two = ({id(p) for p in model.parameters()} for model in models)
    if not one.isdisjoint(two):
        what, remedy = (
            "every call has to return a new model",
            "make the model in the function, or a deep copy",
        )
        raise InputError(what, "make_model", _named(task.make_model), remedy)
    for other in seeds[1:]:
        _check_layout(models[0], made(task, other), other)
    again = models[1].state_dict()
    for name, tensor in models[0].state_dict().items():
        if name not in again or not torch.equal(tensor, again[name]):
            raise _undetermined("its initialisation differs between two runs", name)
    one, two = (_seen(task, model, seed) for model in models)
    if one.results != two.results:
        raise _undetermined("its output differs between two runs", type(models[0]).__name__)
    _try_last_batch(task, models[1].train())
    return one


def _check_layout(model: nn.Module, other: nn.Module, seed: int) -> None:
    """Weights of several seeds are kept together: they have to be of the same shapes."""
    one, two = (
        {name: (tuple(x.shape), x.dtype) for name, x in (*each.named_parameters(), *each.named_buffers())}
        for each in (model, other)
    )
    if one != two:
        name = next(name for name in {**one, **two} if one.get(name) != two.get(name))
        what = f"the model's layout depends on the seed: {name} is another with seed {seed}"
        raise InputError(what, "make_model", type(model).__name__, "make models of one layout")


def _try_last_batch(task: Task, model: nn.Module) -> None:
    """An epoch's last batch holds what is left: BatchNorm refuses one of a single example."""
    if not (rows := len(task.train) % task.batch_size):
        return
    inputs = [tensor[:rows].to(task.device) for tensor in task.train.inputs]
    try:
        _loss(task, _output(model, inputs), task.train.target[:rows].to(task.device))
    except InputError as error:
        what = f"the last batch of an epoch holds {rows} of {task.batch_size} examples, and {error}"
        raise InputError(what, "batch_size", task.batch_size, "give another batch size") from error


def _seen(task: Task, model: nn.Module, seed: int) -> Seen:
    rows = min(task.batch_size, len(task.train))
    inputs = [tensor[:rows].to(task.device) for tensor in task.train.inputs]
    target = task.train.target[:rows].to(task.device)
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = _bytes([tensor])
        return tensor

    def forward_and_back() -> Tensor:
        model.train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = _loss(task, _output(model, inputs), target)
            trained = [p for p in model.parameters() if p.requires_grad]
            try:
                torch.autograd.grad(loss, trained, allow_unused=True)
            except Exception as error:
                what = f"the loss has no gradient ({type(error).__name__}: {_line(error)})"
                raise InputError(what, "loss", _named(task.loss), "mend the model or the loss") from error
            return loss

    def looked() -> Any:
        model.eval()
        try:
            return outputs_of(
                lambda *x: _output(model, [tensor.to(task.device) for tensor in x]), task.test, task
            )
        except InputError:
            raise
        except Exception as error:
            what = f"the outputs of batches cannot be joined ({type(error).__name__}: {_line(error)})"
            remedy = "return tensors whose first axis counts the examples"
            raise InputError(what, "make_model", type(model).__name__, remedy) from error

    weights = [*model.parameters(), *model.buffers()]
    loss, draws = _drawing(task, mixed(seed, "step", 0), forward_and_back)
    with torch.no_grad():
        output, draws_too = _drawing(task, mixed(seed, "look", 0), looked)
        target = task.test.target.to(task.device)
        losses = [loss.item(), _loss(task, output, target, decided=False).item()]
        _check_loss(task, output, target)
        results = [*losses, *(_metric(task, name, output, target) for name in task.metrics)]
    shared = {tensor.data_ptr() for tensor in (*weights, *inputs)}
    return Seen(
        draws=draws or draws_too,
        forward_bytes=sum(size for pointer, size in saved.items() if pointer not in shared),
        weight_bytes=_bytes(weights),
        output_bytes=_bytes(pytree.tree_leaves(output)),
        results=repr([results, [leaf.double().sum().item() for leaf in pytree.tree_leaves(output)]]),
    )


def _drawing(task: Task, seed: int, function: Callable[[], Any]) -> tuple[Any, bool]:
    """What a function gives, and whether it drew random numbers."""
    reseed(seed, task.device)
    before = _random_states(task)
    found = function()
    return found, not all(map(torch.equal, before, _random_states(task)))


def _random_states(task: Task) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(task.device)] if task.device.type == "cuda" else states


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


def _output(model: nn.Module, inputs: list[Tensor]) -> Any:
    try:
        return model(*inputs)
    except InputError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" for x in inputs)
        what = f"the model cannot be called with the data ({type(error).__name__}: {_line(error)})"
        raise InputError(
            what, "inputs", shapes, "give what the model takes; the last tensor is the target"
        ) from error


def _loss(task: Task, output: Any, target: Tensor, decided: bool = True) -> Tensor:
    """The loss; `decided`: it has to depend on the parameters."""
    loss: Any = loss_of(task, output, target)
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        what = "the loss has to be one number for a batch"
        raise InputError(what, "loss", found, "return the mean over the batch, a 0-dim tensor")
    if (decided and not loss.requires_grad) or not loss.is_floating_point():
        what = "the loss does not depend on the parameters"
        raise InputError(
            what, "loss", _named(task.loss), "compute it from the output, without detach or item"
        )
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
        raise InputError(what, "loss", _named(task.loss), remedy)


def _metric(task: Task, name: str, output: Any, target: Tensor) -> float:
    try:
        return float(task.metrics[name](output, target))
    except Exception as error:
        raise failed(name, task.metrics[name], error) from error


def _undetermined(what: str, where: str) -> InputError:
    return InputError(
        f"the model is not deterministic under a fixed seed: {what}",
        "make_model",
        where,
        "draw all random numbers from torch's global generator, and none at import",
    )


def _line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [""])[0][:200]


def _named(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
