"""Around a training: random numbers and torch's flags, losses and metrics measured, its record and state."""

import contextlib
import gc
import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from weightdecay.errors import InputError
from weightdecay.sweeps.task import Chunk, Copy, Data, Look, Task, Trained

_CUDNN: Any = torch.backends.cudnn
# The order of the examples in an epoch, a step's own draws (dropout), a look's own draws.
What = Literal["order", "step", "look"]


def mixed(seed: int, what: What, number: int) -> int:
    """A seed of its own for each use of a training's seed.

        mixed(s, what, k) = the first four bytes of BLAKE2b("s/what/k"), as a little-endian integer

    Args:
        seed: the training's seed s.
        what: "order" for the data order of epoch k, "step" for what the model draws at step k, "look" for
            what it draws while it is looked at after epoch k.
        number: k; steps, and epochs of "order", count from 0.

    Returns:
        An integer of 32 bits, which is what torch's CPU generator keeps of a seed.

    >>> mixed(0, "order", 0) == int.from_bytes(hashlib.blake2b(b"0/order/0").digest()[:4], "little")
    True
    """
    text = f"{seed}/{what}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text).digest()[:4], "little")


def order(examples: int, seed: int, epoch: int) -> Int64[Tensor, " n"]:
    """The order in which an epoch, counted from 0, sees the examples."""
    generator = torch.Generator().manual_seed(mixed(seed, "order", epoch))
    return torch.randperm(examples, generator=generator, device="cpu")


def reseed(number: int, device: torch.device) -> None:
    """Start torch's random stream on the CPU and on the device; `torch.manual_seed` starts every GPU's."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)


def forked(device: torch.device) -> AbstractContextManager[None]:
    """Put the random states of the CPU and of the device back afterwards."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def made(task: Task, seed: int) -> nn.Module:
    """The model with the initialisation of a seed, on the task's device.

    Raises:
        InputError: it cannot be made, or is none.
    """
    reseed(seed, task.device)
    try:
        model = task.make_model()
        moved = model.to(task.device) if isinstance(model, nn.Module) else None
    except Exception as error:
        what = f"the model cannot be made ({brief(error)})"
        raise InputError(what, "make_model", function_name(task.make_model), "mend it") from error
    if moved is None:
        what = "make_model has to return a torch.nn.Module"
        raise InputError(what, "make_model", type(model).__name__, "return a new model at each call")
    return moved


@contextlib.contextmanager
def set_up(task: Task) -> Iterator[None]:
    """Torch's threads and flags as a training needs them; everything is put back, random states included."""
    threads, cudnn = torch.get_num_threads(), _CUDNN
    flags = cudnn.deterministic, cudnn.benchmark
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    with (
        forked(task.device),
        sdpa_kernel(SDPBackend.MATH),  # the one form of attention that can be batched over copies
        warnings.catch_warnings(),
    ):
        # An operation that torch batches by a loop is slow and right.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        try:
            torch.set_num_threads(task.threads)
            # A transformer layer's way for inference has no batched form, and other roundings.
            torch.backends.mha.set_fastpath_enabled(False)
            if task.device.type == "cuda":
                cudnn.deterministic, cudnn.benchmark = True, False
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.mha.set_fastpath_enabled(fast_attention)
            cudnn.deterministic, cudnn.benchmark = flags


def doubles(seed: int) -> dict[str, Any]:
    """Options of torch's random functions: the same doubles, whatever device is the default."""
    return {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64, "device": "cpu"}


def outputs_of(forward: Callable[..., Any], data: Data, task: Task, rows_axis: int = 0) -> Any:
    """A model's outputs for all rows, computed in batches and joined along their rows."""
    rows, parts = 4 * task.batch_size, []  # without gradients no more memory than one batch with them
    for first in range(0, len(data), rows):
        inputs = data.rows(slice(first, first + rows), task.device).inputs
        parts.append(pytree.tree_flatten(forward(*inputs)))
    leaves, structures = zip(*parts, strict=True)
    joined = [torch.cat(same, rows_axis) for same in zip(*leaves, strict=True)]
    return pytree.tree_unflatten(joined, structures[0])


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """A model's parameters and buffers by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def measures_of(task: Task) -> Mapping[str, Callable[[Any, Tensor], Tensor]]:
    """The loss, under an empty name, and the metrics."""
    return {"": task.loss, **task.metrics}


def loss_of(task: Task, output: Any, target: Tensor) -> Tensor:
    """The loss of a batch.

    Raises:
        InputError: the user's function fails.
    """
    try:
        return task.loss(output, target)
    except Exception as error:
        raise failed("", task.loss, error) from error


def measured_alone(name: str, measure: Callable[..., Any], output: Any, target: Tensor) -> float:
    """The loss (an empty name) or a metric of one copy's outputs.

    Where the outputs are not finite and the function refuses them, as those of scikit-learn do, it is NaN:
    a copy that diverges does not end the others.

    Raises:
        InputError: the user's function fails.
    """
    try:
        return float(measure(output, target))
    except Exception as error:
        floats = (leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))
        if not all(bool(leaf.isfinite().all()) for leaf in floats):
            return math.nan
        raise failed(name, measure, error) from error


@contextlib.contextmanager
def at_epoch(epoch: int) -> Iterator[None]:
    """What the user's model or optimizer raises in an epoch, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        what = f"a training fails ({brief(error)})"
        remedy = "mend the model or the optimizer; a plain loop shows where"
        raise InputError(what, "epoch", epoch, remedy) from error


def brief(error: Exception, most: int = 200) -> str:
    """An error's type and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:most]}"


def function_name(function: Any) -> str:
    """How a message calls a function."""
    return getattr(function, "__qualname__", type(function).__name__)


def failed(name: str, measure: Callable[..., Any], error: Exception) -> InputError:
    """What is said of a loss (an empty name) or a metric that raises."""
    what = f"the {'metric' if name else 'loss'} cannot be computed ({brief(error)})"
    remedy = "give a function of (output, target)" + " that returns one number" * bool(name)
    where = f"metrics[{name!r}]" if name else "loss"
    return InputError(what, where, function_name(measure), remedy)


def all_trained(
    chunk: Chunk,
    weight_decays: Sequence[float | None],
    steps_per_epoch: int,
    seen: Sequence[Mapping[str, Any]],
    diverged: Int64[Tensor, "S L"],
) -> tuple[Trained, ...]:
    """The records of a chunk's copies.

    Args:
        chunk: the copies.
        weight_decays: what each strength comes to.
        steps_per_epoch: to place a divergence among the looks.
        seen: for each look "epoch", "train" (S, L) and "test", the measures by name (S, L).
        diverged: the first step whose loss is not finite, -1 where there is none.
    """
    looks: list[list[Look]] = [[] for _ in chunk.copies]
    with _uncollected():
        for look in seen:
            # As lists at once: a number taken out of a tensor costs as much as a small training step.
            values = torch.stack([look["train"], *look["test"].values()]).flatten(1).tolist()
            _, *metrics = look["test"]  # the loss comes first
            for of_copy, (train, test, *more) in zip(looks, zip(*values, strict=True), strict=True):
                of_copy.append(Look(look["epoch"], train, test, dict(zip(metrics, more, strict=True))))
    trained = []
    for i, (copy, step) in enumerate(zip(chunk.copies, diverged.flatten().tolist(), strict=True)):
        number = weight_decays[i % len(weight_decays)]
        trained.append(trained_of(copy, number, looks[i], None if step < 0 else step, steps_per_epoch))
    return tuple(trained)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's garbage collector, which many records at once send through all of torch."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def trained_of(
    copy: Copy, weight_decay: float | None, looks: list[Look], diverged: int | None, steps_per_epoch: int
) -> Trained:
    """One training's record; whatever was seen after it diverged is NaN."""
    last = looks[-1]
    if diverged is not None:
        last = _blank(last)
        looks = [_blank(look) if diverged < look.epoch * steps_per_epoch else look for look in looks]
    return Trained(copy, weight_decay, last.train_loss, last.test_loss, last.metrics, tuple(looks), diverged)


def _blank(look: Look) -> Look:
    return Look(look.epoch, math.nan, math.nan, dict.fromkeys(look.metrics, math.nan))


_PLAIN = (bool, int, float, str, type(None))


def pack(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Split dictionaries, lists and tuples of tensors and plain values into tensors by path and the rest.

    Returns:
        Copies of the tensors on the CPU, and what JSON can hold, from which `unpack` makes the tree again.

    Raises:
        InputError: something that is neither.

    >>> tensors, plain = pack({"step": 3, 0: [torch.zeros(2)]})
    >>> list(tensors), plain
    (['0/0'], {'dict': [['step', 3], [0, {'list': [{'tensor': '0/0', 'cpu': True}]}]]})
    """
    tensors: dict[str, Tensor] = {}

    def packed(part: Any, path: tuple[str, ...]) -> Any:
        if isinstance(part, Tensor):
            name = "/".join(path)
            tensors[name] = part.detach().to("cpu", copy=True).contiguous()
            return {"tensor": name, "cpu": part.device.type == "cpu"}
        if isinstance(part, dict):
            return {"dict": [[key, packed(value, (*path, str(key)))] for key, value in part.items()]}
        if isinstance(part, list | tuple):
            kind = "list" if isinstance(part, list) else "tuple"
            return {kind: [packed(value, (*path, str(i))) for i, value in enumerate(part)]}
        if isinstance(part, _PLAIN):
            return part
        what = "a state that cannot be written down"
        raise InputError(what, "/".join(path), type(part).__name__, "keep tensors and numbers in it")

    return tensors, packed(tree, ())


def unpack(tensors: dict[str, Tensor], plain: Any, device: torch.device) -> Any:
    """The tree again; tensors that were on a device go to this one."""
    if not isinstance(plain, dict):
        return plain
    (kind, value), *_ = plain.items()
    if kind == "tensor":
        return tensors[value].to("cpu" if plain["cpu"] else device, copy=True)
    if kind == "dict":
        return {key: unpack(tensors, part, device) for key, part in value}
    parts = [unpack(tensors, part, device) for part in value]
    return parts if kind == "list" else tuple(parts)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimizer has gathered, by the position of its parameters; and its plain options."""
    states, groups = [], []
    for group in optimizer.param_groups:
        states.append([dict(optimizer.state[p]) if p in optimizer.state else None for p in group["params"]])
        groups.append({key: value for key, value in group.items() if key != "params" and _storable(value)})
    return {"state": states, "groups": groups}


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Put that back, bit for bit (torch's own loading would cast)."""
    for group, states, options in zip(optimizer.param_groups, saved["state"], saved["groups"], strict=True):
        group.update(options)
        for parameter, state in zip(group["params"], states, strict=True):
            if state is not None:
                optimizer.state[parameter] = state


def _storable(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_storable, value))
    return isinstance(value, (*_PLAIN, Tensor))
