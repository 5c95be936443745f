"""A plain Python file that says what to train."""

import contextlib
import hashlib
import importlib
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from weightdecay.errors import InputError, in_chinese
from weightdecay.text import Text

NEEDED = {
    "make_model": "a function that returns a new model",
    "data": "(train, test), or a function that returns both",
    "loss": "a function of (output, target)",
    "optimizer": "a function of the parameters, say partial(torch.optim.AdamW, lr=1e-3, weight_decay=0)",
}
OPTIONAL = (
    *("metrics", "schedule", "epochs", "batch_size", "rule", "on", "clip", "every"),
    *("minimize", "maximize"),
)


class ScriptError(InputError):
    """A script of the user's failed; `frames` is its traceback, without anybody else's frames."""

    frames: str = ""


@dataclass(frozen=True)
class Script:
    """What a file says.

    Args:
        path: the file.
        sha256: of its content.
        arguments: of `sweep`, by name: make_model, train, test, loss, optimizer, and whatever else it names.
    """

    path: Path
    sha256: str
    arguments: Mapping[str, Any]


def load_script(path: str | Path) -> Script:
    """Import a file with the names make_model, data, loss and optimizer.

    `data` is (train, test), or a function that returns both. It may also have metrics, schedule, epochs,
    batch_size, rule, on, clip, every, minimize and maximize: arguments of `sweep`. Modules beside it are
    found, and torch's random numbers are those of seed 0 while it is imported and makes its data. What it
    defines can be sent to other processes, which need not have the file.

    Args:
        path: the file.

    Raises:
        InputError: there is no such file; a name is missing, all of them told; `data` is not a pair.
        ScriptError: it fails.
    """
    file = Path(path)
    content = _content(file, str(path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with _blamed("the file cannot be imported", str(file), file):
            module = _imported(file.resolve(), content)
        _check_names(module, file)
        train, test = _pair(module.data, file)
    arguments = {name: getattr(module, name) for name in OPTIONAL if hasattr(module, name)}
    for name in ("make_model", "loss", "optimizer"):
        arguments[name] = getattr(module, name)
    return Script(file, hashlib.sha256(content).hexdigest(), {**arguments, "train": train, "test": test})


def _content(file: Path, where: str, target: str = "") -> bytes:
    """The bytes of a file; `where` and `target` are for the message."""
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        text = str(error.strerror if isinstance(error, OSError) else error)
        reason = Text(text, in_chinese(text))
        value = Text(f"{target!r} ({reason})", f"{target!r}（{reason.zh}）") if target else reason
        remedy = Text("give a Python file", "请给一个 Python 文件")
        raise InputError(Text("the file cannot be read", "文件无法读取"), where, value, remedy) from error


def _imported(file: Path, content: bytes) -> ModuleType:
    """The module, under a name that is the same in every run, whatever else is called as the file is."""
    module = _executed(file, content, "weightdecay_script_")
    with contextlib.suppress(ImportError):
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    return module


def _executed(file: Path, content: bytes, prefix: str) -> ModuleType:
    """A module of a file's content; modules beside it are found."""
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))  # as `python file.py` does, and for good: imports may come late
    name = prefix + re.sub(r"\W", "_", file.stem)
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # where dataclasses, pickle and inspect look for it
    try:
        exec(compile(content, str(file), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_names(module: ModuleType, file: Path) -> None:
    missing = [name for name in NEEDED if not hasattr(module, name)]
    if missing:
        names = Text(" and ".join(missing), "、".join(missing))
        what = Text(f"the file lacks {names}", f"文件缺少 {names.zh}")
        remedy = "; ".join(f"{name} is {NEEDED[name]}" for name in missing)
        raise InputError(what, str(file), None, remedy)
    for name in ("make_model", "loss", "optimizer"):
        value = getattr(module, name)
        if not callable(value):
            raise InputError(
                f"{name} is not a function", str(file), repr(value)[:60], f"make it {NEEDED[name]}"
            )


def _pair(data: Any, file: Path) -> tuple[Any, Any]:
    """The training and the test data."""
    if callable(data):
        with _blamed("its function data fails", str(file), file):
            data = data()
    if not isinstance(data, tuple | list) or len(data) != 2:
        kind = f"{len(data)} things" if isinstance(data, tuple | list) else type(data).__name__
        raise InputError("data is not a pair", str(file), kind, f"make it {NEEDED['data']}")
    return data[0], data[1]


# Libraries that training code often imports, and their packages. Another name may be misspelt, and whoever
# installs that gets a stranger's package.
_PACKAGES = {
    **{"sklearn": "scikit-learn", "PIL": "pillow", "cv2": "opencv-python", "yaml": "pyyaml"},
    **{"distributed": "'weightdecay[dask]'", "lightning": "'weightdecay[lightning]'"},
    **{"transformers": "'weightdecay[transformers]'", "tensorboard": "'weightdecay[tensorboard]'"},
    **{name: name for name in ("accelerate", "datasets", "pandas", "peft", "pyarrow", "scipy")},
    **{name: name for name in ("timm", "torchvision", "torchaudio", "torchmetrics", "tqdm", "wandb")},
}


def install(error: BaseException, line: int | None) -> str:
    """What to do where a library is missing; nothing where that is not the error.

    >>> install(ModuleNotFoundError("No module named 'sklearn'", name="sklearn.datasets"), 12)
    'pip install scikit-learn, which line 12 needs'
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name or "pip install" in str(error):
        return ""
    package = _PACKAGES.get(error.name.partition(".")[0])
    where = f"line {line}" if line else "the file"
    if package is None:
        return f"see {where}: is the name right, and is its package installed?"
    return f"pip install {package}, which {where} needs"


# What torch says where there is no GPU.
_GPU = (
    *("not compiled with cuda", "no nvidia driver", "no cuda gpus", "cuda driver", "cuda error", "hip error"),
    *("invalid device", "mps", "xpu", "cannot access accelerator", "nccl"),
)
_NO_GPU = "it asks for a GPU: let the builder use torch.device('meta') or the CPU; shapes are enough"


@contextlib.contextmanager
def _blamed(what: str, where: str, file: Path, builder: bool = False) -> Iterator[None]:
    """Turn what a user's code raises into one line, and the traceback's frames that are the user's own.

    Args:
        what: what fails, for the message.
        where: the file or the target, likewise.
        file: the user's; a builder's frames are also those of files beside it.
        builder: whether it is a builder's.
    """
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        own = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if (
                _is_own(frame.filename, file) if builder else Path(frame.filename).resolve() == file.resolve()
            )
        ]
        last = traceback.format_exception_only(error)
        message = " ".join(last[-1].split())
        line = own[-1].lineno if own else getattr(error, "lineno", None)
        if builder and any(re.search(rf"\b{word}\b", message.lower()) for word in _GPU):
            remedy = _NO_GPU
        elif line is None or (builder and not own):
            remedy = "" if builder else install(error, None)
        else:
            place = f" of {Path(own[-1].filename).name}" if builder else ""
            remedy = install(error, line) or f"see line {line}{place}"
        failed = ScriptError(what, where, message, remedy)
        whose = "your code" if builder else "this file"
        shown = [f"Traceback, frames of {whose} alone:\n", *traceback.format_list(own)] if own else []
        failed.frames = "".join([*shown, *last]).rstrip()
        raise failed from error


_WORDS = {"model": "model", "optimizer": "optimizers", "optimizers": "optimizers"}
_SETTINGS = ("schedule", "steps", "steps_per_epoch", "interval", "groups", "scaler", "ignore")
_SAME = {"scheduler": "schedule", "schedulers": "schedule", "lr_scheduler": "schedule"}
_RETURN = "return (model, optimizer), (model, [optimizers], scheduler) or a mapping with these names"


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
        remedy = Text(
            "give mypackage.train:build or file.py:build", "写成 mypackage.train:build 或 file.py:build"
        )
        raise InputError(Text("not a builder", "不是构造函数"), "target", repr(target), remedy)
    module = _file(Path(place), target) if place.endswith(".py") else _module(place, target)
    function = module
    file = Path(str(getattr(module, "__file__", "") or place))
    with _blamed("the module fails", target, file, builder=True):
        for part in name.split("."):
            function = getattr(function, part, None)
    if not callable(function):
        callables = [
            key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
        ]
        own = [
            key for key in callables if getattr(getattr(module, key), "__module__", None) == module.__name__
        ]
        has = ", ".join(own)
        remedy = Text(
            "define a function that returns model and optimizer", "请定义一个返回模型和优化器的函数"
        )
        if own:
            remedy = Text(f"it has {has}", f"其中有 {has}")
        raise InputError(Text(f"no function {name}", f"没有函数 {name}"), "target", repr(target), remedy)
    with _blamed("the builder fails", target, file, builder=True):
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
        with _blamed("the module cannot be imported", target, Path(*name.split(".")), builder=True):
            return importlib.import_module(name)
    except ScriptError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name in parents:
            remedy = Text(
                "run it where the package is found, or give file.py:build",
                "请在能找到该包的地方运行，或写成 file.py:build",
            )
            raise InputError(Text("no such module", "没有这个模块"), "target", repr(target), remedy) from None
        raise


def _file(path: Path, target: str) -> ModuleType:
    content = _content(path, "target", target)
    with _blamed("the file cannot be imported", target, path, builder=True):
        return _executed(path.resolve(), content, "weightdecay_audit_")


def _is_own(filename: str, file: Path) -> bool:
    """Whether a frame is in the builder's file, or beside it; not in an installed library."""
    if filename.startswith("<") or "site-packages" in filename:
        return False
    there, here = Path(filename).resolve(), file.resolve()
    if here.suffix == ".py":
        return there.parent == here.parent
    return there == here or str(there).startswith(str(Path.cwd()))  # a module's


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
