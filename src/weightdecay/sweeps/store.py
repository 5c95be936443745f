"""What a sweep keeps while it runs: the store, the settings that it was made with, checkpoints and weights.

The store is one SQLite file that is whole at every moment. Beside it lie safetensors files, each written
whole or not at all: checkpoints of running chunks (`Checkpoints`), weights of finished ones (`Weights`).

Schema (application id "wdsw", user version 1); every value is plain and can be read by any SQLite program:

    about    name TEXT, value TEXT (JSON)       settings, versions and the plan: whoever comes first writes
    round    place, why, strengths (JSON)       0 is the grid as given, later ones widen or refine it
    trained  id, rule, lr, strength, unit, seed, weight_decay, train_loss, test_loss, metrics (JSON), diverged
    look     trained (an id), epoch, train_loss, test_loss, metrics (JSON)

A training is stored in one transaction, with its looks, once: (rule, lr, strength, unit, seed) is unique and
a second one is ignored, so that two processes on one store do each other no harm. NaN is NULL in a column and
null in JSON. The journal is a write-ahead log (WAL), which needs a file system of this machine, not of a
network. Nothing waits for the disk: kill -9 loses nothing; a power cut may lose the last trainings, which are
then trained again, to the same bits.
"""

import contextlib
import functools
import hashlib
import inspect
import json
import math
import numbers
import re
import sqlite3
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from weightdecay.errors import InputError
from weightdecay.saving import replacing, unwritable, writable_folder
from weightdecay.sweeps.chunk import optimizer_of, options_of
from weightdecay.sweeps.looks import forked, made
from weightdecay.sweeps.method import check_parameters
from weightdecay.sweeps.task import Checkpoint, Chunk, Copy, Look, Task, Trained

FILE = "sweep.sqlite"
VERSION = 1
_ID = int.from_bytes(b"wdsw")
_WAIT = 60.0  # seconds for another process to finish writing
_SCHEMA = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE round (place INTEGER PRIMARY KEY, why TEXT NOT NULL, strengths TEXT NOT NULL)",
    "CREATE TABLE trained (id INTEGER PRIMARY KEY, rule TEXT NOT NULL, lr REAL,"
    " strength REAL NOT NULL, unit TEXT NOT NULL, seed INTEGER NOT NULL, weight_decay REAL, train_loss REAL,"
    " test_loss REAL, metrics TEXT NOT NULL, diverged INTEGER)",
    # Two NULLs are different to SQLite; no learning rate is negative.
    "CREATE UNIQUE INDEX once ON trained (rule, ifnull(lr, -1), strength, unit, seed)",
    "CREATE TABLE look (trained INTEGER NOT NULL REFERENCES trained (id), epoch INTEGER NOT NULL,"
    " train_loss REAL, test_loss REAL, metrics TEXT NOT NULL, PRIMARY KEY (trained, epoch)) WITHOUT ROWID",
)


@dataclass(frozen=True)
class Round:
    """A round of a sweep.

    Args:
        place: 0, 1, ...
        why: what it is for, in a few words.
        strengths: new in this round, in the sweep's unit.
    """

    place: int
    why: str
    strengths: tuple[float, ...]


@dataclass(frozen=True)
class Store:
    """An open store.

    Args:
        connection: to the file, or to a store in memory.
        file: where it is, for messages.
    """

    connection: sqlite3.Connection
    file: str

    def add(self, trained: Trained) -> bool:
        """Store a training, in a transaction of its own; False if it was there.

        Raises:
            InputError: it cannot be written; what was stored before is there.
        """
        copy = trained.copy
        values = (
            *(copy.rule, copy.lr, copy.strength, copy.unit, copy.seed),
            *(trained.weight_decay, trained.train_loss, trained.test_loss),
            *(_json(trained.metrics), trained.diverged),
        )
        with self._execute(write=True) as execute:
            row = execute(_INSERT, values)
            if not row.rowcount:
                return False
            for look in trained.looks:
                values = row.lastrowid, look.epoch, look.train_loss, look.test_loss, _json(look.metrics)
                execute("INSERT INTO look VALUES (?, ?, ?, ?, ?)", values)
        return True

    def trained(self) -> list[Trained]:
        """Every training, in the order of their names, whoever stored what first."""
        with self._execute() as execute:
            rows = execute("SELECT * FROM trained ORDER BY rule, lr, strength, unit, seed").fetchall()
            seen = execute("SELECT * FROM look ORDER BY trained, epoch").fetchall()
        looks: dict[int, list[Look]] = defaultdict(list)
        for at, epoch, train_loss, test_loss, metrics in seen:
            losses = _number(train_loss), _number(test_loss)
            looks[at].append(Look(epoch, *losses, _metrics(metrics)))
        trained = []
        for at, *name, weight_decay, train_loss, test_loss, metrics, diverged in rows:
            last = _number(train_loss), _number(test_loss), _metrics(metrics)
            trained.append(Trained(Copy(*name), weight_decay, *last, tuple(looks[at]), diverged))
        return trained

    def agree(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Store JSON values by name, none of them if there are any; returns what is there."""
        with self._execute(write=True) as execute:
            if not execute("SELECT count(*) FROM about").fetchone()[0]:
                for name, value in values.items():
                    execute("INSERT INTO about VALUES (?, ?)", (name, json.dumps(value)))
            rows = execute("SELECT name, value FROM about").fetchall()
        return {name: json.loads(text) for name, text in rows}

    def about(self, name: str) -> Any:
        """The JSON value of a name; None if there is none."""
        with self._execute() as execute:
            row = execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return row and json.loads(row[0])

    def put(self, name: str, value: Any) -> None:
        """Store a JSON value in the place of the one of that name."""
        with self._execute(write=True) as execute:
            execute("UPDATE about SET value = ? WHERE name = ?", (json.dumps(value), name))

    def agree_round(self, new: Round) -> Round:
        """Store a round unless one of that place is there; returns what is there."""
        with self._execute(write=True) as execute:
            values = (new.place, new.why, json.dumps(new.strengths))
            execute("INSERT OR IGNORE INTO round VALUES (?, ?, ?)", values)
            row = execute("SELECT why, strengths FROM round WHERE place = ?", (new.place,)).fetchone()
        return Round(new.place, row[0], tuple(json.loads(row[1])))

    def rounds(self) -> list[Round]:
        """The rounds so far."""
        with self._execute() as execute:
            rows = execute("SELECT * FROM round ORDER BY place").fetchall()
        return [Round(place, why, tuple(json.loads(strengths))) for place, why, strengths in rows]

    @contextmanager
    def _execute(self, write: bool = False) -> Iterator[Any]:
        """The connection's `execute`, in a transaction to write; what SQLite raises, as an InputError."""
        connection = self.connection
        try:
            try:
                if write:
                    connection.execute("BEGIN IMMEDIATE")
                yield connection.execute
                if write:
                    connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise failure(self.file, error) from error


@contextmanager
def opened(folder: Path | None) -> Iterator[Store]:
    """The store in a folder, made if need be; without a folder, one in memory.

    Raises:
        InputError: the file cannot be written, is no store, or was written by another version.
    """
    file = ":memory:" if folder is None else str(folder / FILE)
    try:
        connection = sqlite3.connect(file, timeout=_WAIT, isolation_level=None)
    except sqlite3.Error as error:
        raise failure(file, error) from error
    try:
        _prepare(connection, file)
        yield Store(connection, file)
    finally:
        connection.close()


def failure(file: str, error: Exception) -> InputError:
    """What SQLite says of a file, with what to do."""
    text = str(error)
    if isinstance(error, sqlite3.OperationalError):
        remedy = "choose another folder, or give it space and the right to write, then resume"
        return InputError("the sweep's store cannot be written", file, text, f"{remedy}: it is intact")
    return InputError("not a sweep's store, or damaged", file, text, "choose another folder")


def _prepare(connection: sqlite3.Connection, file: str) -> None:
    """Make the tables, or find those of this version."""
    try:
        _patiently(connection, "PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        (id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif id != _ID:
            raise InputError("not a sweep's store", file, "another program's file", "choose another folder")
        elif version != VERSION:
            raise InputError("a store of another version", file, version, f"this program writes {VERSION}")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise failure(file, error) from error


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Changing the journal does not wait for another process by itself."""
    end = time.monotonic() + _WAIT
    while True:
        try:
            connection.execute(statement).fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


_INSERT = (
    "INSERT OR IGNORE INTO trained"
    " (rule, lr, strength, unit, seed, weight_decay, train_loss, test_loss, metrics, diverged)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _json(metrics: Mapping[str, Any]) -> str:
    """Metrics as JSON, which has neither infinity (1e999 is read as it) nor NaN (null)."""
    infinite = {math.inf: "1e999", -math.inf: "-1e999"}
    pairs = []
    for name, value in metrics.items():
        text = infinite.get(value) or json.dumps(None if value != value else value)
        pairs.append(f"{json.dumps(name)}: {text}")
    return "{" + ", ".join(pairs) + "}"


def _metrics(text: str) -> dict[str, float]:
    return {name: _number(value) for name, value in json.loads(text).items()}


SECONDS = 1.0  # from one checkpoint of a chunk to the next
_SHARE = 0.05  # of the time may go into writing them
_UNREADABLE = (OSError, SafetensorError, KeyError, ValueError)


def name_of(chunk: Chunk) -> str:
    """A file name for a chunk: the same in every process, another for every other chunk."""
    text = json.dumps(asdict(chunk), sort_keys=True)
    rule = re.sub(r"\W+", "_", chunk.rule)[:40]  # a user's own name, which may be no file's
    return f"{rule}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass
class _Files:
    """One file for a chunk in a folder; none without a folder."""

    folder: Path | None
    prefix: ClassVar[str] = ""

    def drop(self, chunk: Chunk) -> None:
        """Forget the file of a chunk."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self._file(chunk).unlink(missing_ok=True)

    def _file(self, chunk: Chunk) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.prefix}{name_of(chunk)}.safetensors"


@dataclass
class Checkpoints(_Files):
    """The checkpoints of running chunks, in files of a folder, or none.

    Args:
        folder: where; None for nowhere.
        seconds: the least time from one checkpoint of a chunk to the next; where writing is slow it is more,
            so that it takes a twentieth of the time. 0: after every epoch.
        last: when the last one was written.
        took: how long that took.
    """

    seconds: float = SECONDS
    last: float = field(default_factory=time.monotonic)
    took: float = 0.0

    def read(self, chunk: Chunk) -> Checkpoint | None:
        """The checkpoint of a chunk, if there is one that can be read."""
        read = None if self.folder is None else _read(self._file(chunk))
        if read is None:
            return None
        tensors, about = read
        return Checkpoint(about["epoch"], tensors, about["plain"])

    def epoch(self, chunk: Chunk) -> int | None:
        """How many epochs the checkpoint of a chunk has, if there is one."""
        if self.folder is None:
            return None
        with contextlib.suppress(*_UNREADABLE), safe_open(self._file(chunk), "pt") as content:
            return _about(content)["epoch"]
        return None

    def write(self, chunk: Chunk, make: Callable[[], Checkpoint]) -> None:
        """Write a checkpoint, if it is time.

        Raises:
            InputError: it cannot be written.
        """
        wait = max(self.seconds, self.took / _SHARE) if self.seconds else 0
        begun = time.monotonic()
        if self.folder is None or begun < self.last + wait:
            return
        checkpoint = make()
        about = {"epoch": checkpoint.epoch, "plain": checkpoint.plain}
        _write(self._file(chunk), checkpoint.tensors, about)
        self.last = time.monotonic()
        self.took = self.last - begun


@dataclass
class Weights(_Files):
    """The weights of finished chunks, in files of a folder, or in memory without one.

    Args:
        folder: where; None for memory.
    """

    prefix: ClassVar[str] = "chunk-"
    held: dict[Chunk, dict[str, Tensor]] = field(default_factory=dict)

    def put(self, chunk: Chunk, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights of a chunk.

        Raises:
            InputError: they cannot be written.
        """
        if self.folder is None:
            self.held[chunk] = dict(weights)
        else:
            _write(self._file(chunk), weights, {"chunk": asdict(chunk)})

    def get(self, chunk: Chunk) -> dict[str, Tensor] | None:
        """The weights of a chunk; None if they are gone."""
        if self.folder is None:
            return self.held.get(chunk)
        read = _read(self._file(chunk))
        return read and read[0]

    def drop(self, chunk: Chunk) -> None:
        """Forget the weights of a chunk."""
        self.held.pop(chunk, None)
        super().drop(chunk)


def _write(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Tensors and JSON as one file, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    writable_folder(file.parent)
    try:
        with replacing(file) as temporary:
            # safetensors refuses tensors that share memory, as tied weights do.
            here = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            safetensors.torch.save_file(_unshared(here), temporary, {"about": json.dumps(about)})
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while serializing: ")
        remedy = "give it space, then resume: what is in the store is intact"
        raise unwritable(file, reason, remedy) from error


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `_write` wrote; None if it is missing or not whole."""
    try:
        with safe_open(file, "pt") as content:
            # Cloned: the file may be replaced while its pages are mapped.
            tensors = {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118
            return tensors, _about(content)
    except _UNREADABLE:
        return None


def _about(content: Any) -> dict[str, Any]:
    return json.loads((content.metadata() or {})["about"])


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
        result[name] = tensor if whole and place not in seen else tensor.clone()
        seen.add(place)
    return result


# The settings that a store was made with: what decides the numbers of a sweep, as plain values.

_SETTINGS = (
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
        **{name: plain(getattr(task, name)) for name in _SETTINGS},
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
