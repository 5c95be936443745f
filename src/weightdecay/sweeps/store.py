"""What a sweep keeps while it runs: the store, checkpoints and weights of chunks, states as plain values.

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
import hashlib
import json
import math
import re
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.saving import replacing, writable_folder
from weightdecay.sweeps.task import Checkpoint, Chunk, Copy, Look, Trained

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
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            safetensors.torch.save_file(_unshared(plain), temporary, {"about": json.dumps(about)})
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while serializing: ")
        remedy = "give it space, then resume: what is in the store is intact"
        raise InputError("a file cannot be written", str(file), reason, remedy) from error


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
