"""Common random numbers: what is drawn for a seed is the same at every strength, rule and step size."""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from weightdecay.errors import InputError
from weightdecay.sweeps.task import Task

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
    name = getattr(task.make_model, "__qualname__", type(task.make_model).__name__)
    try:
        model = task.make_model()
        moved = model.to(task.device) if isinstance(model, nn.Module) else None
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        what = f"the model cannot be made ({type(error).__name__}: {said})"
        raise InputError(what, "make_model", name, "mend it") from error
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
