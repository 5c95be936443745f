"""A plain Python file that says what to train."""

import contextlib
import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from weightdecay.errors import InputError

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
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InputError("the file cannot be read", str(path), said, "give a Python file") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with _own_frames(file, "the file cannot be imported"):
            module = _imported(file.resolve(), content)
        _check_names(module, file)
        train, test = _pair(module.data, file)
    given = {name: getattr(module, name) for name in OPTIONAL if hasattr(module, name)}
    for name in ("make_model", "loss", "optimizer"):
        given[name] = getattr(module, name)
    return Script(file, hashlib.sha256(content).hexdigest(), {**given, "train": train, "test": test})


def _imported(file: Path, content: bytes) -> ModuleType:
    """The module, under a name that is the same in every run, whatever else is called as the file is."""
    name = "weightdecay_script_" + re.sub(r"\W", "_", file.stem)
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))  # as `python file.py` does, and for good: imports may come late
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(file))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(file)
    sys.modules[name] = module  # where dataclasses, pickle and inspect look for it
    try:
        exec(compile(content, str(file), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    with contextlib.suppress(ImportError):
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    return module


def _check_names(module: ModuleType, file: Path) -> None:
    missing = [name for name in NEEDED if not hasattr(module, name)]
    if missing:
        what = f"the file lacks {' and '.join(missing)}"
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
        with _own_frames(file, "its function data fails"):
            data = data()
    if not isinstance(data, tuple | list) or len(data) != 2:
        found = f"{len(data)} things" if isinstance(data, tuple | list) else type(data).__name__
        raise InputError("data is not a pair", str(file), found, f"make it {NEEDED['data']}")
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


@contextlib.contextmanager
def _own_frames(file: Path, what: str) -> Iterator[None]:
    """Turn what a file raises into one line and the traceback's frames of that file."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).resolve() == file.resolve()
        ]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        said = " ".join(traceback.format_exception_only(error)[-1].split())
        found = ScriptError(
            what, str(file), said, install(error, line) or (f"see line {line}" if line else "")
        )
        shown = ["Traceback, frames of this file alone:\n", *traceback.format_list(frames)]
        found.frames = "".join([*(shown if frames else []), *traceback.format_exception_only(error)]).rstrip()
        raise found from error
