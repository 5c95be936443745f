"""Data as people hold it: tensors, arrays, a Dataset or a DataLoader, taken into memory and checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from weightdecay.errors import InputError
from weightdecay.sweeps.task import Data

# Items of a dataset that are fetched again to see whether they stay the same, and how often each.
_AGAIN, _TIMES = 8, 3
_REMEDY = "give tensors (X, y), a map-style Dataset or a DataLoader of one"


def data_of(given: Any, where: str) -> Data:
    """Take data into memory.

    Args:
        given: `Data`; tensors or arrays (X, y), or (X1, X2, y) for a model of several inputs; a map-style
            Dataset of such items; or a DataLoader, of which dataset and collate function are taken.
        where: what to call it in messages.

    Raises:
        InputError: something else; no examples; tensors of different lengths; numbers that are not finite;
            an item that differs when it is fetched again; a DataLoader with a sampler or a batch_sampler of
            its own, or with drop_last.

    >>> data_of((np.zeros((3, 2), dtype=np.float32), [0, 1, 1]), "train").target
    tensor([0, 1, 1])
    """
    if isinstance(given, Data):
        tensors = [*given.inputs, given.target]
    elif isinstance(given, DataLoader):
        tensors = _loaded(given, where)
    elif isinstance(given, TensorDataset):
        tensors = list(given.tensors)
    elif isinstance(given, tuple | list):
        tensors = [_tensor(part, f"{where}[{i}]") for i, part in enumerate(given)]
    else:
        tensors = _fetched(given, default_collate, where)
    return _checked(tensors, where)


def _loaded(loader: DataLoader, where: str) -> list[Tensor]:
    """The examples of a loader of which nothing is lost but its order, which the sweep draws itself."""
    if not isinstance(loader.dataset, IterableDataset):  # which is refused as what it is
        _check_order(loader, where)
    return _fetched(loader.dataset, loader.collate_fn, where)


def _check_order(loader: DataLoader, where: str) -> None:
    draws, remedy = (
        "the sweep draws its own order, in which every epoch sees each example once",
        "give the dataset",
    )
    if loader.batch_size is None:
        # None stands for both: batches that a batch_sampler makes, and examples without batches.
        batches: Any = loader.batch_sampler
        if batches is None:
            raise InputError("a DataLoader that makes no batches", f"{where}.batch_size", "None", remedy)
        what = f"a batch_sampler of its own is not followed: {draws}"
        raise InputError(what, f"{where}.batch_sampler", type(batches).__name__, f"{remedy}, and batch_size")
    sampler: Any = loader.sampler
    if type(sampler) not in (SequentialSampler, RandomSampler) or len(sampler) != len(loader.dataset):  # pyright: ignore[reportArgumentType]
        what = f"a sampler of its own is not followed: {draws}"
        raise InputError(what, f"{where}.sampler", type(sampler).__name__, remedy)
    if getattr(sampler, "replacement", False):
        what = f"a sampler with replacement is not followed: {draws}"
        raise InputError(what, f"{where}.sampler", type(sampler).__name__, remedy)
    if loader.drop_last:
        what = f"drop_last is not followed: {draws}"
        raise InputError(what, f"{where}.drop_last", True, "leave it out; the last batch holds what is left")


def _fetched(dataset: Any, collate: Callable[[list[Any]], Any], where: str) -> list[Tensor]:
    """All items of a dataset, as one batch."""
    by_place = hasattr(dataset, "__getitem__") and not isinstance(dataset, Mapping)
    if isinstance(dataset, IterableDataset) or not by_place:
        raise InputError(
            "not data that can be taken example by example", where, type(dataset).__name__, _REMEDY
        )
    try:
        count = len(dataset)
    except TypeError as error:
        raise InputError("data without a length", where, type(dataset).__name__, _REMEDY) from error
    if count == 0:
        raise InputError("no examples", where, 0, "give some")
    spread = sorted({round(i * (count - 1) / max(_AGAIN - 1, 1)) for i in range(_AGAIN)})
    for place in spread:
        first = _flat(collate([dataset[place]]), where)
        for _ in range(_TIMES - 1):
            for one, other in zip(first, _flat(collate([dataset[place]]), where), strict=True):
                if one.shape != other.shape or not torch.equal(one, other):
                    what = "an item differs when it is fetched again (random augmentation?)"
                    remedy = "give data that stay the same: copies are compared on equal data"
                    raise InputError(what, f"{where}[{place}]", None, remedy)
    return _flat(collate([dataset[i] for i in range(count)]), where)


def _flat(batch: Any, where: str) -> list[Tensor]:
    """A batch as tensors, the target last."""
    if not isinstance(batch, tuple | list):
        what = "an item has to be (input, target) or (input, ..., target)"
        raise InputError(what, where, type(batch).__name__, "give a collate function that makes it so")
    return [_tensor(part, f"{where}[{i}]") for i, part in enumerate(batch)]


def _tensor(part: Any, where: str) -> Tensor:
    if isinstance(part, Tensor):
        return part.detach()
    try:
        return torch.as_tensor(np.asarray(part))
    except (TypeError, ValueError) as error:
        raise InputError("not numbers", where, type(part).__name__, _REMEDY) from error


def _checked(tensors: Sequence[Tensor], where: str) -> Data:
    if len(tensors) < 2:
        raise InputError("inputs and a target are needed", where, f"{len(tensors)} tensors", _REMEDY)
    if any(tensor.ndim == 0 for tensor in tensors):
        raise InputError("a number where examples should be", where, "0-dim", _REMEDY)
    lengths = [len(tensor) for tensor in tensors]
    if len(set(lengths)) > 1:
        what = "the tensors differ in length"
        raise InputError(what, where, lengths, "the first axis of each counts the examples")
    if lengths[0] == 0:
        raise InputError("no examples", where, 0, "give some")
    for i, tensor in enumerate(tensors):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            row = int(
                (~tensor.isfinite())
                .flatten(1 if tensor.ndim > 1 else 0)
                .reshape(len(tensor), -1)
                .any(1)
                .int()
                .argmax()
            )
            raise InputError("not finite", f"{where}[{i}]", f"row {row}", "leave the row out, or fill it in")
    return Data(tuple(tensors[:-1]), tensors[-1])
