"""What decides the numbers of a sweep, as plain values: a store goes on only with the same."""

import contextlib
import functools
import hashlib
import inspect
import math
import numbers
import textwrap
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, fields, is_dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weightdecay.errors import InputError
from weightdecay.sweeps.chunk import optimizer_of, options_of
from weightdecay.sweeps.looks import forked, made
from weightdecay.sweeps.method import check_parameters
from weightdecay.sweeps.task import Task

_PLAIN = (
    *("make_model", "loss", "metrics", "optimizer", "rules", "schedule", "on"),
    *("lrs", "epochs", "batch_size", "every", "clip"),
)
# What decides how trainings are judged, and by that which rounds follow; not what a training is.
JUDGING = ("goal", "widen", "refine")


def settings_plain(task: Task, about: Mapping[str, Any] | None) -> dict[str, Any]:
    """All settings as JSON has them; functions and classes by name and a checksum of their source.

    Args:
        task: what is asked for.
        about: what the caller adds, say a script's checksum.
    """
    return {
        **{name: plain(getattr(task, name)) for name in _PLAIN},
        **_model_and_optimizer(task),
        "train": plain((*task.train.inputs, task.train.target)),
        "test": plain((*task.test.inputs, task.test.target)),
        "strengths": plain(task.strengths.values),
        "unit": task.strengths.unit,
        "seeds": plain(task.seeds),
        "goal": asdict(task.goal),
        "widen": task.widen,
        "refine": task.refine,
        "device": task.device.type,
        "versions": {"weightdecay": version("weightdecay"), "torch": version("torch")},
        **plain(dict(about or {})),
    }


def check_same(
    there: Mapping[str, Any], here: Mapping[str, Any], file: str, apart: Sequence[str] = ()
) -> None:
    """Refuse a store that was made with other settings.

    Args:
        there: the store's.
        here: those of now.
        file: the store, for the message.
        apart: names that are not compared.

    Raises:
        InputError: names the settings that differ, with both values of the first.
    """
    if there == here:
        return
    stored, now = (
        _flat({name: value for name, value in values.items() if name not in apart})
        for values in (there, here)
    )
    differ = [name for name in {**stored, **now} if stored.get(name) != now.get(name)]
    if not differ:
        return
    name = differ[0]
    what = f"the store was made with other settings: {', '.join(differ[:5])}"
    more = f"{_short(stored.get(name))} in {file}, {_short(now.get(name))} now"
    raise InputError(what, name, more, f"give the same again, or another folder{_why(differ)}")


def _why(differ: Sequence[str]) -> str:
    """Why settings that could be added to cannot be, where it is they that differ."""
    if not {"seeds", "strengths"}.isdisjoint(differ):
        return ": a store takes no more seeds or strengths, by which its chunks and rounds were decided on"
    if all(name.split(".")[0] in JUDGING for name in differ):
        return ": the store has rounds that these would not have decided on"
    return ""


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
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, Set):
        return sorted(str(plain(part)) for part in value)
    if isinstance(value, Sequence):
        return [plain(part) for part in value]
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
    """Name and checksum of the source, where there is one, and the plain values that it holds."""
    function = inspect.unwrap(function)
    held = "".join(f" {name}={value!r}" for name, value in sorted(_held(function).items()))
    if not isinstance(function, type) and not hasattr(function, "__code__"):
        if hasattr(function, "__func__"):
            function = function.__func__
        elif not hasattr(function, "__qualname__"):
            function = type(function)  # an instance with __call__
    name = f"{getattr(function, '__module__', '')}.{function.__qualname__}"
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # built in, or typed into a shell
        return name + held
    return f"{name}{held} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _held(function: Any) -> dict[str, Any]:
    """What a function has from elsewhere: defaults, its closure, the attributes of what it is a method of.

    Only plain values: others may be changed by being used, and would refuse what is the same.
    """
    if isinstance(function, type):
        return {}
    held: dict[str, Any] = {}
    if (code := getattr(function, "__code__", None)) is not None:
        names = code.co_varnames[: code.co_argcount]
        defaults = function.__defaults__ or ()
        held |= dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
        held |= function.__kwdefaults__ or {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a name that has no value yet
                held[name] = cell.cell_contents
    owner = getattr(function, "__self__", None if code else function)
    if owner is not None and not isinstance(owner, type | ModuleType):
        held |= {f"self.{name}": value for name, value in getattr(owner, "__dict__", {}).items()}
    if isinstance(owner, nn.Module):
        held |= {f"self.{name}": _tensor(tensor) for name, tensor in owner.state_dict().items()}
    return {name: value for name, value in held.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int | float)


def _model_and_optimizer(task: Task) -> dict[str, Any]:
    """The model's layout and the source of every class that is not torch's; the optimizer's options."""
    with forked(task.device):
        model = made(task, task.seeds[0])
    check_parameters(model)
    layout = {name: [list(p.shape), str(p.dtype)] for name, p in model.state_dict().items()}
    classes = set(map(type, model.modules()))
    own = sorted(_source(kind) for kind in classes if not kind.__module__.startswith("torch."))
    checksum = hashlib.sha256(repr(layout).encode()).hexdigest()[:16]
    count = sum(map(Tensor.numel, model.parameters()))
    optimizer = optimizer_of(task, list(model.parameters()), task.lrs[0] if task.lrs else None)
    return {
        "model": {"numbers": count, "layout": checksum, "classes": own},
        # A function may have them from elsewhere: its source does not tell.
        "optimizer_options": plain(options_of(optimizer)),
    }


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
