"""Processes of this machine that run one task after another. They need no guarded main module."""

import os
import queue
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

from weightdecay.errors import InputError

S = TypeVar("S")
T = TypeVar("T")
DEATHS = 3
_START = "from weightdecay.sweeps.workers import serve; serve()"


def packed(value: Any) -> bytes | None:
    """A value for another process; None where it cannot be sent, or cloudpickle is not installed."""
    try:
        import cloudpickle

        return cloudpickle.dumps(value)
    except Exception:
        return None


def in_processes(
    function: Callable[[Any, S], T], shared: bytes, items: Sequence[S], count: int, deaths: int = DEATHS
) -> Iterator[tuple[int, T]]:
    """function(shared, item) for every item: its place and the result, as soon as it is there.

    An item whose process died is given to another. When the caller stops, so do the processes; and when this
    process is killed.

    Args:
        function: of a module, so that it can be found by its name.
        shared: from `packed`; sent to each process once.
        items: what to map over.
        count: how many processes.
        deaths: how many may die of one item before it is given up.

    Raises:
        InputError: what the function raised; an item several processes died of.
    """
    waiting = deque(enumerate(items))
    died = [0] * len(items)
    found: queue.Queue[tuple[int, bool, Any]] = queue.Queue()
    crew = [_Worker(function, shared) for _ in range(min(count, len(items)))]
    threads = [
        threading.Thread(target=_feed, args=(worker, waiting, died, deaths, found), daemon=True)
        for worker in crew
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in items:
            place, fine, result = found.get()
            if not fine:
                raise result
            yield place, result
    finally:
        waiting.clear()
        for worker in crew:
            worker.stop()
        for thread in threads:
            thread.join()


class _Worker:
    """A process, started when first needed and again when it died."""

    def __init__(self, function: Callable[..., Any], shared: bytes) -> None:
        self.hello = list(sys.path), (function, shared)  # apart: the function is found by way of the path
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False
        self.lock = threading.Lock()

    def ask(self, item: Any) -> tuple[bool, Any]:
        """Whether it went well and the result, or what was raised. EOFError, OSError: the process died."""
        with self.lock:
            if self.stopped:
                raise EOFError
            if self.process is None:
                # A session of its own: Ctrl-C is for this process, which then ends the others.
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _START],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
                fresh = True
            else:
                fresh = False
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        for part in self.hello if fresh else ():
            _send(process.stdin, part)
        _send(process.stdin, item)
        return _receive(process.stdout)

    def end(self) -> None:
        """Kill the process; the next item starts another."""
        with self.lock:
            if self.process is not None:
                self.process.kill()
                self.process.wait()
                for pipe in (self.process.stdin, self.process.stdout):
                    try:
                        if pipe is not None:
                            pipe.close()
                    except OSError:  # what was not sent
                        pass
                self.process = None

    def stop(self) -> None:
        """Kill the process, and start no other."""
        with self.lock:
            self.stopped = True
            if self.process is not None:
                self.process.kill()


def _feed(
    worker: _Worker, waiting: deque[Any], died: list[int], deaths: int, found: "queue.Queue[Any]"
) -> None:
    """One process's items, until there are none."""
    try:
        while True:
            try:
                place, item = waiting.popleft()
            except IndexError:
                # What another process dies of now is left to the one that waits for it.
                return
            while True:
                try:
                    fine, result = worker.ask(item)
                    break
                except (EOFError, OSError):
                    worker.end()
                    if worker.stopped:
                        return
                    died[place] += 1
                    if died[place] > deaths:
                        remedy = "give the machine more memory, or make the model smaller"
                        fine = False
                        result = InputError(
                            "processes die of a training", str(item), f"{deaths + 1} times", remedy
                        )
                        break
            found.put((place, fine, result))
    finally:
        worker.end()


def serve() -> None:
    """What a process does: take an item, give the result, until its input ends."""
    import cloudpickle

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a user's code prints is not an answer
    inbox: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, inbox), daemon=True).start()
    sys.path[:] = cloudpickle.loads(inbox.get())
    hello, loaded = inbox.get(), None
    while True:
        item = None
        content = inbox.get()
        try:
            if loaded is None:
                function, shared = cloudpickle.loads(hello)
                loaded = function, cloudpickle.loads(shared)
            item = cloudpickle.loads(content)
            answer = True, loaded[0](loaded[1], item)
        except Exception as error:
            known = isinstance(error, InputError)
            what = f"{type(error).__name__}: {error}"
            answer = False, error if known else InputError("a training failed", str(item), what, "mend it")
        _send(answers, answer)


def _read(source: BinaryIO, inbox: "queue.Queue[bytes]") -> None:
    """Read items; when the input ends, so does this process, in the middle of whatever it does."""
    try:
        while True:
            inbox.put(_content(source))
    except BaseException:
        os._exit(0)


def _send(pipe: Any, value: Any) -> None:
    import cloudpickle

    content = cloudpickle.dumps(value)
    pipe.write(struct.pack("<Q", len(content)))
    pipe.write(content)
    pipe.flush()


def _receive(pipe: Any) -> Any:
    import cloudpickle

    return cloudpickle.loads(_content(pipe))


def _content(pipe: Any) -> bytes:
    (size,) = struct.unpack("<Q", _exactly(pipe, 8))
    return _exactly(pipe, size)


def _exactly(pipe: Any, size: int) -> bytes:
    content = pipe.read(size)
    if len(content) < size:
        raise EOFError
    return content
