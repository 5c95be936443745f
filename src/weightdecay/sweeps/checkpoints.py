"""Files beside the store, no pickle: the state of a running chunk, and the weights of finished ones."""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.files import replacing, writable_folder
from weightdecay.sweeps.records import Checkpoint, Chunk

SECONDS = 1.0  # from one checkpoint of a chunk to the next
_SHARE = 0.05  # of the time may go into writing them
_ENDING = ".safetensors"
_UNREADABLE = (OSError, SafetensorError, KeyError, ValueError)


def name_of(chunk: Chunk) -> str:
    """A file name for a chunk: the same in every process, another for every other chunk."""
    text = json.dumps(asdict(chunk), sort_keys=True)
    rule = re.sub(r"\W+", "_", chunk.rule)[:40]  # a user's own name, which may be no file's
    return f"{rule}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass
class Keeper:
    """Keeps checkpoints of running chunks in a folder, or keeps none.

    Args:
        folder: where; None for nowhere.
        seconds: the least time from one checkpoint of a chunk to the next; where writing is slow it is more,
            so that it takes a twentieth of the time. 0: after every epoch.
        last: when the last one was written.
        took: how long that took.
    """

    folder: Path | None
    seconds: float = SECONDS
    last: float = field(default_factory=time.monotonic)
    took: float = 0.0

    def found(self, chunk: Chunk) -> Checkpoint | None:
        """The checkpoint of a chunk, if there is one that can be read."""
        if self.folder is None:
            return None
        read = _read(self._file(chunk))
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

    def keep(self, chunk: Chunk, make: Callable[[], Checkpoint]) -> None:
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

    def drop(self, chunk: Chunk) -> None:
        """The chunk is done."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self._file(chunk).unlink(missing_ok=True)

    def _file(self, chunk: Chunk) -> Path:
        assert self.folder is not None
        return self.folder / f"{name_of(chunk)}{_ENDING}"


@dataclass
class Weights:
    """The weights of finished chunks, in files of a folder, or in memory without one.

    Args:
        folder: where; None for memory.
    """

    folder: Path | None
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
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self._file(chunk).unlink(missing_ok=True)

    def _file(self, chunk: Chunk) -> Path:
        assert self.folder is not None
        return self.folder / f"chunk-{name_of(chunk)}{_ENDING}"


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


def taken(weights: Mapping[str, Tensor], seeds: slice, place: int) -> dict[str, Tensor]:
    """The weights of one strength of a chunk: (seeds, …)."""
    return {name: tensor[seeds, place].clone() for name, tensor in weights.items()}


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The weights of one strength whose seeds ran in several chunks."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
