"""Map a function over items, in this process, in local processes or by Dask workers."""

import contextlib
import functools
import json
import os
import pickle
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from weightdecay.errors import InputError

S = TypeVar("S")
T = TypeVar("T")
PATIENCE = 10.0  # seconds in which a scheduler has to answer
DEATHS = 3  # workers that may die of one shard before it is given up


def map_merge(
    task: Callable[[S], T],
    shards: Sequence[S],
    merge: Callable[[T, T], T],
    engine: Any = None,
    on_progress: Callable[[int, int], None] | None = None,
    names: Sequence[str] | None = None,
) -> T:
    """merge(task(shard), …) over all shards, neighbours first.

    The order of merging is fixed by the shards' order, so that the result has the same bits whoever computed
    what, and whichever was ready first. A result that has arrived is kept whatever becomes of the worker.

    Args:
        task: shard -> result; sent to workers, so it can be pickled.
        shards: what to map over.
        merge: two neighbours' results -> one.
        engine: None: in this process. "dask": workers on this machine, one to a core, closed at the end.
            "tcp://host:port", "tls://host:port" (certificates from Dask's configuration) or a
            `distributed.Client`: that scheduler's.
        on_progress: called with the place of a shard that is done, and how many are.
        names: of the shards, for messages.

    Raises:
        InputError: what a task raised; a shard several workers died of; no Dask; no scheduler there.

    >>> map_merge(lambda shard: shard**2, [1, 2, 3, 4, 5], lambda a, b: a + b)
    55
    """
    if len(shards) == 0:
        raise InputError("there is nothing to compute", "shards", 0, "give at least one")
    names = [str(shard) for shard in shards] if names is None else names
    results = enumerate(map(task, shards)) if engine is None else _by_dask(task, shards, engine, names)
    tree = Tree(len(shards), merge)
    for done, (place, result) in enumerate(results, start=1):
        tree.add(place, result)
        if on_progress is not None:
            on_progress(place, done)
    return tree.root


def as_finished(
    task: Callable[[Any, S], T], shared: Any, items: Sequence[S], engine: Any, names: Sequence[str]
) -> Iterator[tuple[int, T]]:
    """task(shared, item) for every item: its place and the result, as soon as it is there.

    What is shared goes to each worker once. A task whose worker died is given to another; when the caller
    stops, what is not finished is cancelled.

    Args:
        task: shared, item -> result; sent to workers, so it can be pickled.
        shared: what every task needs, or a function that makes it; sent to workers, too.
        items: what to map over.
        engine: as in `map_merge`; None: in this process, one after the other.
        names: of the items, for messages.

    Raises:
        InputError: what a task raised; an item several workers died of; no Dask; no scheduler there.

    >>> list(as_finished(lambda a, b: a * b, 10, [1, 2], None, ["one", "two"]))
    [(0, 10), (1, 20)]
    """
    if engine is None:
        yield from ((place, task(shared, item)) for place, item in enumerate(items))
        return
    distributed = _dask()
    with _client(distributed, engine) as client:
        # A task of its own and not scattered data: Dask does it again when the workers that hold it die.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")
            held = client.submit(pickle.loads, _packed(shared), pure=False)
            futures = {
                client.submit(task, held, item, pure=False, retries=0): place
                for place, item in enumerate(items)
            }
        yield from _arriving(client, futures, names, distributed)


@dataclass(frozen=True)
class Capacity:
    """What an engine can do at a time.

    Args:
        tasks: how many tasks.
        memory: bytes a task may take; None where workers do not say.
    """

    tasks: int
    memory: int | None


@contextmanager
def connected(engine: Any, patience: float = PATIENCE) -> Iterator[tuple[Any, Capacity | None]]:
    """The client of an engine, open for the block, and what its workers can do; None and None for no engine.

    Args:
        engine: as in `map_merge`.
        patience: seconds in which a scheduler has to answer.

    Raises:
        InputError: no Dask; no such engine; no scheduler that answers.

    >>> with connected(None) as found:
    ...     found
    (None, None)
    """
    if engine is None:
        yield None, None
        return
    with _client(_dask(), engine, patience) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        shares = [w["memory_limit"] // max(1, w["nthreads"]) for w in workers if w["memory_limit"]]
        tasks = sum(worker["nthreads"] for worker in workers)
        yield client, Capacity(max(1, tasks), min(shares) if shares else None)


def _packed(shared: Any) -> bytes:
    """Pickled here, so that what cannot be is told before anything is sent."""
    try:
        return _dumps(shared)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        remedy = "define it in a module or by def, without open files, locks or generators"
        raise InputError("something cannot be sent to workers", "engine", what, remedy) from error


def _dumps(value: Any) -> bytes:
    """Pickled; where cloudpickle is installed, with functions that no module has or only `__main__`."""
    try:
        import cloudpickle
    except ImportError:
        content = pickle.dumps(value)
        if b"__main__" in content:  # another process has another one
            raise pickle.PicklingError("__main__ cannot be imported, and cloudpickle is missing") from None
        return content
    return cloudpickle.dumps(value)


class Tree:
    """A binary tree over places 0 … n − 1: two neighbours are merged as soon as both are there.

    Args:
        n: number of leaves.
        merge: left, right -> both.
    """

    def __init__(self, n: int, merge: Callable[[Any, Any], Any]) -> None:
        self.n, self.merge = n, merge
        self.waiting: dict[tuple[int, int], Any] = {}

    def add(self, place: int, value: Any) -> None:
        """Put in a leaf."""
        level, width = 0, self.n
        while width > 1:
            partner = place ^ 1
            if partner < width:
                other = self.waiting.pop((level, partner), None)
                if other is None:
                    break
                value = self.merge(other, value) if partner < place else self.merge(value, other)
            level, place, width = level + 1, place // 2, (width + 1) // 2
        self.waiting[level, place] = value

    @property
    def root(self) -> Any:
        """All of them merged."""
        assert len(self.waiting) == 1, "a leaf is missing"
        return next(iter(self.waiting.values()))


def _by_dask(
    task: Callable[[S], T], shards: Sequence[S], engine: Any, names: Sequence[str]
) -> Iterator[tuple[int, T]]:
    """Results as they arrive; a task whose worker died is given to another."""
    distributed = _dask()
    with _client(distributed, engine) as client:
        futures = {
            client.submit(_alone, task, shard, pure=False, retries=0): place
            for place, shard in enumerate(shards)
        }
        yield from _arriving(client, futures, names, distributed)


def _arriving(
    client: Any, futures: dict[Any, int], names: Sequence[str], distributed: Any
) -> Iterator[tuple[int, Any]]:
    """Results as they arrive; the rest is cancelled when that ends early."""
    try:
        for future in distributed.as_completed(list(futures)):
            place = futures[future]
            if future.status != "finished":
                raise _failure(future, names[place], distributed)
            result = future.result()
            future.release()
            yield place, result
    finally:
        left = [future for future in futures if not future.done()]
        if left:  # even an empty cancellation goes to all clients, and one that is connecting fails of it
            client.cancel(left)


def _alone(task: Callable[[S], T], shard: S) -> T:
    """A task on one thread: workers share the cores by tasks."""
    with _one_thread():
        return task(shard)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:  # a worker started with OPENBLAS_NUM_THREADS=1 needs none
            yield
            return
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _failure(future: Any, name: str, distributed: Any) -> Exception:
    """What a worker says, as an InputError that names the shard."""
    error = future.exception()
    if isinstance(error, InputError):
        return error
    if isinstance(error, distributed.scheduler.KilledWorker):
        return InputError(
            "workers die of a shard",
            name,
            f"{DEATHS + 1} times",
            "give workers more memory, or look at the file; results of the others were kept until now",
        )
    return InputError("a worker failed", name, f"{type(error).__name__}: {error}", "see the worker's log")


def _dask() -> Any:
    try:
        import distributed
    except ImportError as error:
        remedy = "pip install 'weightdecay[dask]', or leave engine out"
        raise InputError("Dask is not installed", "engine", "'dask'", remedy) from error
    return distributed


@contextmanager
def _client(distributed: Any, engine: Any, patience: float = PATIENCE) -> Iterator[Any]:
    """A client of the scheduler that is meant; what was started here is closed at the end."""
    if isinstance(engine, distributed.Client):
        yield engine
        return
    if engine == "dask":
        import dask.config

        with dask.config.set({"distributed.scheduler.allowed-failures": DEATHS}):
            cluster = distributed.LocalCluster(
                n_workers=os.cpu_count() or 1,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                env=SINGLE,
                silence_logs=50,
            )
        with cluster, distributed.Client(cluster) as client:
            yield client
        return
    if not isinstance(engine, str) or "://" not in engine:
        remedy = "leave it out, or give 'dask', 'tcp://host:port' or 'tls://host:port'"
        raise InputError("no such engine", "engine", repr(engine), remedy)
    try:
        client = distributed.Client(engine, timeout=patience)
    except TypeError as error:
        remedy = (
            "give a `distributed.Client` with security=, or set distributed.comm.tls in Dask's configuration"
        )
        raise InputError("TLS needs certificates", "engine", engine, remedy) from error
    except (OSError, ValueError) as error:
        raise InputError("no scheduler answers", "engine", engine, "start one, or give 'dask'") from error
    with client:
        yield client


def packed(value: Any) -> bytes | None:
    """A value for another process; None where it cannot be sent."""
    try:
        return _packed(value)
    except InputError:
        return None


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class NotReadyError(InputError):
    """A process could not be started, could not load what it was sent, or refused it."""


def in_processes(
    function: Callable[[Any, S, Callable[[Any], None]], T],
    shared: bytes,
    items: Sequence[S],
    count: int,
    deaths: int = DEATHS,
    on_note: Callable[[int, Any], None] | None = None,
    prepare: Callable[[Any], None] | None = None,
) -> Generator[tuple[int, T]]:
    """function(shared, item, note) for every item: its place and the result, as soon as it is there.

    Processes have one thread each. An item whose process died is given to another. When the caller stops, so
    do the processes; and when this process is killed.

    `concurrent.futures.ProcessPoolExecutor` keeps none of that: a process that dies breaks the pool and takes
    the items of the others with it, one that is computing goes on when its parent is killed, and the start
    of a process runs the user's script again, which may have no `if __name__ == "__main__"`.

    Args:
        function: of a module, so that it can be found by its name; what it calls `note` with comes here.
        shared: from `packed`; sent to each process once.
        items: what to map over.
        count: how many processes.
        deaths: how many may die of one item before it is given up.
        on_note: called here with the place of an item and what its function noted.
        prepare: called in each process with what is shared, before its first item.

    Raises:
        NotReadyError: a process that does not start, or what `prepare` raised.
        InputError: what the function raised; an item several processes died of.
    """
    processes = _Processes(function, shared, deaths, prepare)
    arrived: queue.Queue[tuple[int, str, Any]] = queue.Queue()

    def ask(place: int, item: S) -> None:
        try:
            result = processes.ask(item, lambda note: arrived.put((place, "note", note)))
            arrived.put((place, "result", result))
        except BaseException as error:
            arrived.put((place, "error", error))

    with ThreadPoolExecutor(max(1, min(count, len(items)))) as threads:  # one waits for each process
        for place, item in enumerate(items):
            threads.submit(ask, place, item)
        try:
            left = len(items)
            while left:
                place, kind, value = arrived.get()
                if kind == "error":
                    raise value
                if kind == "result":
                    left -= 1
                    yield place, value
                elif on_note is not None:
                    on_note(place, value)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            processes.stop()


class _Processes:
    """Processes that compute one item at a time each, started when one is needed and none is idle."""

    def __init__(
        self, function: Callable[..., Any], shared: bytes, deaths: int, prepare: Callable[..., Any] | None
    ) -> None:
        self.work = _dumps((function, shared, prepare))
        self.deaths, self.stopped = deaths, False
        self.idle: list[subprocess.Popen[bytes]] = []
        self.busy: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.Lock()

    def ask(self, item: Any, note: Callable[[Any], None]) -> Any:
        """What the function gives; raises what it raised."""
        for _ in range(self.deaths + 1):
            process = self._take()
            try:
                _send(process.stdin, _dumps(item))
                kind, result = _receive(process)
                while kind == "note":
                    note(result)
                    kind, result = _receive(process)
            except _DIED:
                self._drop(process)
                continue
            with self.lock:
                self.busy.discard(process)
                self.idle.append(process)
            if kind == "result":
                return result
            raise result
        remedy = "give the machine more memory, or make the model smaller"
        raise InputError("processes die of a training", str(item), f"{self.deaths + 1} times", remedy)

    def _take(self) -> "subprocess.Popen[bytes]":
        """An idle process, or a new one."""
        with self.lock:
            if self.stopped:
                raise CancelledError
            if self.idle:
                process = self.idle.pop()
                self.busy.add(process)
                return process
            try:
                process = subprocess.Popen(
                    [sys.executable, "-c", _START, json.dumps(sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for this process, which then ends the others
                    env={**os.environ, **SINGLE},
                )
            except OSError as error:
                raise NotReadyError("no process can be started", "engine", str(error), _HERE) from error
            self.busy.add(process)
        try:
            _send(process.stdin, self.work)
            kind, error = _receive(process)
        except _DIED:
            kind, error = "error", NotReadyError("a process died at its start", "engine", None, _HERE)
        if kind == "error":
            self._drop(process)
            raise CancelledError if self.stopped else error
        return process

    def _drop(self, process: "subprocess.Popen[bytes]") -> None:
        _end(process)
        with self.lock:
            self.busy.discard(process)

    def stop(self) -> None:
        """End all of them, and start no other."""
        with self.lock:
            self.stopped = True
            for process in self.busy:  # the thread that waits for it ends it
                process.kill()
            for process in self.idle:
                _end(process)


SINGLE = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
# The path first: this package may have been found by it.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import weightdecay.engine as e; e.serve()"
_HERE = "give engine='here'"
_DIED = (EOFError, OSError, pickle.UnpicklingError)  # what a pipe to a process that died raises


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what was not sent
            if pipe is not None:
                pipe.close()


def _send(pipe: Any, message: bytes) -> None:
    pickle.dump(message, pipe)
    pipe.flush()


def _receive(process: "subprocess.Popen[bytes]") -> tuple[str, Any]:
    """A kind of message, "ready", "note", "result" or "error", and what it brings."""
    assert process.stdout is not None
    return pickle.loads(pickle.load(process.stdout))


def serve() -> None:
    """What a process does: load the work, then take an item and give the result, until its input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a user's code prints is not an answer
    inbox: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read, args=(inbox,), daemon=True).start()

    def answer(kind: str, value: Any = None) -> None:
        _send(answers, _dumps((kind, value)))

    try:
        function, content, prepare = pickle.loads(inbox.get())
        shared = pickle.loads(content)
        if prepare is not None:
            prepare(shared)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        answer("error", NotReadyError("a process cannot do this work", "engine", what, _HERE))
        return
    answer("ready")
    while True:
        item = None
        try:
            item = pickle.loads(inbox.get())
            answer("result", function(shared, item, functools.partial(answer, "note")))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            known = isinstance(error, InputError)
            answer("error", error if known else InputError("a training failed", str(item), what, "mend it"))


def _read(inbox: "queue.Queue[bytes]") -> None:
    """Read messages; when the input ends, so does this process, in the middle of whatever it does."""
    try:
        while True:
            inbox.put(pickle.load(sys.stdin.buffer))
    except BaseException:
        os._exit(0)
