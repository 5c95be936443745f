"""`mypackage.train:build`: a function that builds what is trained, found by its name and called."""

import contextlib
import importlib
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from weightdecay.errors import InputError
from weightdecay.sweeps.script import ScriptError, install

_WORDS = {"model": "model", "optimizer": "optimizers", "optimizers": "optimizers"}
_SETTINGS = ("schedule", "steps", "steps_per_epoch", "interval", "groups", "scaler", "ignore")
_SAME = {"scheduler": "schedule", "schedulers": "schedule", "lr_scheduler": "schedule"}
_RETURN = "return (model, optimizer), (model, [optimizers], scheduler) or a mapping with these names"
# What torch says where there is no GPU.
_GPU = (
    *("not compiled with cuda", "no nvidia driver", "no cuda gpus", "cuda driver", "cuda error", "hip error"),
    *("invalid device", "mps", "xpu", "cannot access accelerator", "nccl"),
)
_NO_GPU = "it asks for a GPU: let the builder use torch.device('meta') or the CPU; shapes are enough"


@dataclass(frozen=True)
class Built:
    """What a builder returned, as `audit` takes it."""

    model: nn.Module
    optimizers: tuple[Any, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def build(target: str) -> Built:
    """Import what a target names, call it, and read what it returns.

    Args:
        target: "mypackage.train:build", or "path/file.py:build"; without a colon the function is `build`.

    Raises:
        InputError: no such module, file or function; it returns the wrong things.
        ScriptError: it fails; `frames` has its traceback.
    """
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "build")
    if not place or not name:
        raise InputError(
            "not a builder", "target", repr(target), "give mypackage.train:build or file.py:build"
        )
    module = _file(Path(place), target) if place.endswith(".py") else _module(place, target)
    function = module
    with _told(target, "the module fails", Path(str(getattr(module, "__file__", "") or place))):
        for part in name.split("."):
            function = getattr(function, part, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        own = [key for key in there if getattr(getattr(module, key), "__module__", None) == module.__name__]
        remedy = f"it has {', '.join(own)}" if own else "define a function that returns model and optimizer"
        raise InputError(f"no function {name}", "target", repr(target), remedy)
    with _told(target, "the builder fails", Path(str(getattr(module, "__file__", "") or place))):
        result = function()
    return _read(result, target)


def _module(name: str, target: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    if any(not part.isidentifier() for part in name.split(".")):
        remedy = "give mypackage.train:build, or a file that ends in .py"
        raise InputError("not a module's name", "target", repr(target), remedy)
    parents = [".".join(name.split(".")[: i + 1]) for i in range(name.count(".") + 1)]
    try:
        with _told(target, "the module cannot be imported", Path(*name.split("."))):
            return importlib.import_module(name)
    except ScriptError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name in parents:
            remedy = "run it where the package is found, or give file.py:build"
            raise InputError("no such module", "target", repr(target), remedy) from None
        raise


def _file(path: Path, target: str) -> ModuleType:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            "the file cannot be read", "target", f"{target!r} ({said})", "give a Python file"
        ) from error
    name = f"weightdecay_audit_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path.resolve())
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python file.py` does
    sys.modules[name] = module
    with _told(target, "the file cannot be imported", path):
        exec(compile(content, str(path.resolve()), "exec", dont_inherit=True), module.__dict__)
    return module


@contextlib.contextmanager
def _told(target: str, what: str, file: Path) -> Iterator[None]:
    """Turn what a user's code raises into one line, and the frames that are the user's own."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename, file)]
        line = own[-1].lineno if own else getattr(error, "lineno", None)
        said = " ".join(traceback.format_exception_only(error)[-1].split())
        gpu = any(re.search(rf"\b{word}\b", said.lower()) for word in _GPU)
        remedy = (
            _NO_GPU
            if gpu
            else install(error, line) or f"see line {line} of {Path(own[-1].filename).name}"
            if own
            else ""
        )
        found = ScriptError(what, target, said, remedy)
        shown = ["Traceback, frames of your code alone:\n", *traceback.format_list(own)]
        found.frames = "".join([*(shown if own else []), *traceback.format_exception_only(error)]).rstrip()
        raise found from error


def _is_own(filename: str, file: Path) -> bool:
    """Whether a frame is in the builder's file, or beside it; not in an installed library."""
    if filename.startswith("<") or "site-packages" in filename:
        return False
    there, here = Path(filename).resolve(), file.resolve()
    return there == here or (there.parent == here.parent and here.suffix == ".py") or _inside(there, here)


def _inside(there: Path, here: Path) -> bool:
    return here.suffix != ".py" and str(there).startswith(str(Path.cwd()))


def _read(result: Any, target: str) -> Built:
    """What a builder returned."""
    if isinstance(result, Mapping):
        return _mapping(result, target)
    if isinstance(result, nn.Module) or not isinstance(result, (tuple, list)) or not 2 <= len(result) <= 3:
        found = f"{len(result)} things" if isinstance(result, (tuple, list)) else type(result).__name__
        raise InputError("the builder returns the wrong things", target, found, _RETURN)
    model, optimizers, *rest = result
    if rest and isinstance(rest[0], Mapping):
        return _mapping({"model": model, "optimizers": optimizers, **rest[0]}, target)
    if rest and rest[0] is not None and not isinstance(rest[0], (LRScheduler, list, tuple)):
        kind = type(rest[0]).__name__
        if not callable(rest[0]) and not hasattr(rest[0], "scheduler"):
            raise InputError("the third thing a builder returns is its scheduler", target, kind, _RETURN)
    return _checked(model, optimizers, {"schedule": rest[0]} if rest else {}, target)


def _mapping(result: Mapping[Any, Any], target: str) -> Built:
    named = {_SAME.get(str(key), str(key)): value for key, value in result.items()}
    both = {"optimizer", "optimizers"} <= set(named)
    if both or len(named) < len(result):
        remedy = "give one of optimizer and optimizers, one of schedule and scheduler"
        raise InputError("the builder says a thing twice", target, ", ".join(map(str, result)), remedy)
    unknown = [key for key in named if key not in (*_WORDS, *_SETTINGS)]
    if unknown:
        remedy = f"use {', '.join((*_WORDS, *_SETTINGS))}"
        raise InputError("the builder returns an unknown name", target, repr(unknown[0]), remedy)
    optimizers = named.get("optimizers", named.get("optimizer"))
    if "model" not in named or optimizers is None:
        raise InputError("the builder's mapping lacks model or optimizer", target, ", ".join(named), _RETURN)
    settings = {key: value for key, value in named.items() if key in _SETTINGS}
    return _checked(named["model"], optimizers, settings, target)


def _checked(model: Any, optimizers: Any, settings: Mapping[str, Any], target: str) -> Built:
    if not isinstance(model, nn.Module):
        what = "the first thing a builder returns is its model"
        raise InputError(what, target, type(model).__name__, _RETURN)
    several = tuple(optimizers) if isinstance(optimizers, (list, tuple)) else (optimizers,)
    return Built(model, several, settings)
