"""The arguments of a sweep, checked and put into a task."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from weightdecay.errors import InputError
from weightdecay.rules import Chain, Rule
from weightdecay.sweeps.data import data_of
from weightdecay.sweeps.task import Task
from weightdecay.units.numbers import count, number

BATCH = 128  # where none is given


def task_of(
    make_model: Any,
    train: Any,
    test: Any,
    *,
    loss: Any,
    optimizer: Any,
    rule: Any,
    epochs: Any,
    batch_size: Any,
    metrics: Any,
    schedule: Any,
    clip: Any,
    on: Any,
    every: Any,
    lr: Any,
    device: Any,
) -> Task:
    """What is trained, from what a user gave to `sweep`.

    Raises:
        InputError: an argument that cannot be used.
    """
    adamw = "partial(torch.optim.AdamW, lr=1e-3, weight_decay=0)"
    for name, value, example in (
        ("make_model", make_model, "a function that returns a new model"),
        ("loss", loss, "a function of (output, target), say torch.nn.functional.cross_entropy"),
        ("optimizer", optimizer, f"a function of the parameters, say {adamw}"),
    ):
        if not callable(value) or isinstance(value, torch.optim.Optimizer):
            raise InputError("not a function", name, type(value).__name__, f"give {example}")
    train_data, test_data = data_of(train, "train"), data_of(test, "test")
    if batch_size is None:
        batch_size = min(_own_batch(train) or BATCH, len(train_data))
    return Task(
        make_model=make_model,
        train=train_data,
        test=test_data,
        loss=loss,
        metrics=_metrics(metrics),
        optimizer=optimizer,
        rules=rules_named(rule),
        lrs=_lrs(lr),
        schedule=schedule,
        on=tuple(on) if isinstance(on, list) else on,
        epochs=count(epochs, "epochs"),
        batch_size=count(batch_size, "batch_size", most=len(train_data)),
        every=count(every, "every"),
        clip=None if clip is None else number(clip, "clip", above=0),
        device=_device(device, train_data.target),
        threads=torch.get_num_threads(),
    )


def seeds_of(given: Any) -> tuple[int, ...]:
    """0 … n − 1 for a number n, or the seeds that are given: a list, a range, an array or a tensor.

    Raises:
        InputError: none, one that is repeated, or not a whole number from 0 to 2**62.

    >>> seeds_of(3), seeds_of([7, 5]), seeds_of(range(10, 12))
    ((0, 1, 2), (7, 5), (10, 11))
    """
    plain = given.tolist() if hasattr(given, "tolist") else given  # an array, a tensor or a number of theirs
    if isinstance(plain, str) or not isinstance(plain, Sequence):
        return tuple(range(count(plain, "seeds", most=100_000)))
    values = [_seed(value, f"seeds[{i}]") for i, value in enumerate(plain)]
    if not values:
        raise InputError("no seeds", "seeds", values, "give at least one, or how many")
    if len(set(values)) < len(values):
        raise InputError("seeds have to be different", "seeds", values, "give each once")
    return tuple(values)


def _seed(value: Any, where: str) -> int:
    """A whole number, exactly: through a float those beyond 2**53 would become others."""
    checked = count(value, where, least=0, most=2**62)
    return int(value) if isinstance(value, int | np.integer) else checked


def rules_named(given: Any) -> dict[str, Callable[[Any], Rule | Chain]]:
    """Rules by name, from one or several; a rule is a class such as Decoupled or a function of the strength.

    Raises:
        InputError: none, no function, a rule that has its strength already, two of one name.

    >>> from weightdecay.rules import Cautious, Decoupled
    >>> list(rules_named([Decoupled, Cautious]))
    ['Decoupled', 'Cautious']
    """
    if isinstance(given, Mapping):
        pairs = [(str(name), rule) for name, rule in given.items()]
    else:
        several = list(given) if isinstance(given, list | tuple) else [given]
        pairs = [(getattr(rule, "__name__", f"rule {i}"), rule) for i, rule in enumerate(several)]
    for name, rule in pairs:
        if isinstance(rule, Rule | Chain):
            what, remedy = "a rule that has its strength already", "give the class, say rule=wd.Decoupled"
            raise InputError(what, "rule", rule.shown, remedy)
        if not callable(rule):
            raise InputError("not a rule", "rule", repr(rule), f"give, say, wd.Decoupled for {name}")
    found = dict(pairs)
    if not found or len(found) < len(pairs):
        names = ", ".join(name for name, _ in pairs) or "none"
        raise InputError("rules need different names", "rule", names, "give a mapping from name to rule")
    return found


def _metrics(given: Any) -> dict[str, Callable[..., Any]]:
    if given is not None and not isinstance(given, Mapping):
        remedy = "give a mapping, say {'accuracy': accuracy}"
        raise InputError("metrics have names", "metrics", type(given).__name__, remedy)
    for name, metric in (given or {}).items():
        if not isinstance(name, str):
            raise InputError("a metric's name is not text", "metrics", repr(name), "give, say, 'accuracy'")
        if not name:
            raise InputError("a metric without a name", "metrics", repr(name), "give, say, 'accuracy'")
        if not callable(metric):
            raise InputError(
                "not a function", f"metrics[{name!r}]", repr(metric), "give one of (output, target)"
            )
    return dict(given or {})


def _lrs(given: Any) -> tuple[float, ...] | None:
    if given is None:
        return None
    several = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(several, Sequence) or isinstance(several, str):
        several = [several]
    values = tuple(sorted(number(value, f"lr[{i}]", above=0) for i, value in enumerate(several)))
    if not values or len(set(values)) < len(values):
        raise InputError("step sizes have to be different", "lr", list(values), "give each once")
    return values


def _own_batch(train: Any) -> int | None:
    return train.batch_size if isinstance(train, DataLoader) else None


def _device(given: Any, data: torch.Tensor) -> torch.device:
    try:
        device = data.device if given is None else torch.device(given)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"no such device ({said})", "device", given, "leave it out, or give 'cpu'"
        ) from error
    return device
