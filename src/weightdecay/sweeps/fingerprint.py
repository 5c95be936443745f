"""What decides the numbers of a sweep, as plain values: a store goes on only with the same."""

import functools
import hashlib
import inspect
import math
import numbers
import platform
import textwrap
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, fields, is_dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weightdecay.errors import InputError
from weightdecay.sweeps.checks import check_parameters
from weightdecay.sweeps.selection import Goal
from weightdecay.sweeps.settings import optimizer_of
from weightdecay.sweeps.strengths import Strengths
from weightdecay.sweeps.task import Data, Task

_FUNCTIONS = ("make_model", "loss", "metrics", "optimizer", "rules", "schedule", "on")
_PLAIN = ("lrs", "epochs", "batch_size", "every", "clip")


def settings_plain(
    task: Task,
    strengths: Strengths,
    seeds: Sequence[int],
    goal: Goal,
    widen: int,
    refine: int,
    about: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """All settings as JSON has them; functions and classes by name and a checksum of their source.

    Args:
        task: what is trained.
        strengths: the grid as given.
        seeds: the seeds.
        goal: what is chosen by.
        widen: how many rounds may widen the grid.
        refine: how many rounds refine it.
        about: what the caller adds, say a script's checksum.
    """
    return {
        **{name: plain(getattr(task, name)) for name in (*_FUNCTIONS, *_PLAIN)},
        **_made(task, seeds[0]),
        "train": _data(task.train),
        "test": _data(task.test),
        "strengths": list(strengths.values),
        "unit": strengths.unit,
        "seeds": list(seeds),
        "goal": asdict(goal),
        "widen": widen,
        "refine": refine,
        "device": task.device.type,
        "versions": {name: version(name) for name in ("weightdecay", "torch")},
        **plain(dict(about or {})),
    }


def environment() -> dict[str, str]:
    """Where a store was begun; told, not compared."""
    names = ("numpy", "polars", "safetensors")
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    return {**machine, **{name: version(name) for name in names}}


def check_same(there: Mapping[str, Any], here: Mapping[str, Any], file: str) -> None:
    """Refuse a store that was made with other settings.

    Raises:
        InputError: names the settings that differ, with both values of the first.
    """
    one, other = _flat(there), _flat(here)
    differ = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    if not differ:
        return
    name = differ[0]
    what = f"the store was made with other settings: {', '.join(differ[:5])}"
    more = f"{_short(one.get(name))} in {file}, {_short(other.get(name))} now"
    raise InputError(what, name, more, "give the same again, or another folder")


def plain(value: Any) -> Any:
    """A value as JSON has it, without memory addresses."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON has no infinity
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, numbers.Real):
        return plain(float(value))
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, Set):
        return sorted(str(plain(one)) for one in value)
    if isinstance(value, Sequence):
        return [plain(one) for one in value]
    if isinstance(value, functools.partial):
        return {"partial": plain(value.func), "args": plain(value.args), **plain(value.keywords)}
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "kind": type(value).__name__,
            **{f.name: plain(getattr(value, f.name)) for f in fields(value)},
        }
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return _source(value) if callable(value) else type(value).__qualname__


def _source(function: Any) -> str:
    """Name and checksum of the source, where there is one."""
    function = inspect.unwrap(function)
    if not isinstance(function, type) and not hasattr(function, "__code__"):
        if hasattr(function, "__func__"):
            function = function.__func__
        elif not hasattr(function, "__qualname__"):
            function = type(function)  # an instance with __call__
    name = f"{getattr(function, '__module__', '')}.{function.__qualname__}"
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # built in, or typed into a shell
        return name
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _made(task: Task, seed: int) -> dict[str, Any]:
    """The model's layout and the source of every class that is not torch's; the optimizer's options."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = task.make_model()
        except Exception as error:
            what = f"the model cannot be made ({type(error).__name__}: {error})"
            raise InputError(what, "make_model", plain(task.make_model), "give a function") from error
    if not isinstance(model, nn.Module):
        what = "make_model has to return a torch.nn.Module"
        raise InputError(what, "make_model", type(model).__name__, "return a new model at each call")
    check_parameters(model)
    layout = {name: [list(p.shape), str(p.dtype)] for name, p in model.state_dict().items()}
    classes = {type(module) for module in model.modules()}
    own = sorted(_source(one) for one in classes if not one.__module__.startswith("torch."))
    checksum = hashlib.sha256(repr(layout).encode()).hexdigest()[:16]
    count = sum(p.numel() for p in model.parameters())
    optimizer = optimizer_of(task, list(model.parameters()), task.lrs[0] if task.lrs else None)
    # A function may have them from elsewhere: its source does not tell.
    options = [
        {name: value for name, value in group.items() if name not in ("params", "param_names")}
        for group in optimizer.param_groups
    ]
    return {
        "model": {"numbers": count, "layout": checksum, "classes": own},
        "optimizer_options": plain(options),
    }


def _data(data: Data) -> list[str]:
    return [_tensor(tensor) for tensor in (*data.inputs, data.target)]


def _tensor(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{kind} {tuple(tensor.shape)} {hashlib.sha256(content.data).hexdigest()[:16]}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
