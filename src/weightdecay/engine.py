"""Map a function over shards, in this process or by Dask workers: results merged, or as they finish."""

import os
import queue
import struct
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

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
    results = _here(task, shards) if engine is None else _by_dask(task, shards, engine, names)
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
            held = client.submit(_unpacked, _packed(shared), pure=False)
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
    import cloudpickle

    try:
        return cloudpickle.dumps(shared)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        remedy = "define it in a module or by def, without open files, locks or generators"
        raise InputError("something cannot be sent to workers", "engine", what, remedy) from error


def _unpacked(content: bytes) -> Any:
    import cloudpickle

    return cloudpickle.loads(content)


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


def _here(task: Callable[[S], T], shards: Sequence[S]) -> Iterator[tuple[int, T]]:
    for place, shard in enumerate(shards):
        yield place, task(shard)


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
        raise InputError(
            "Dask is not installed",
            "engine",
            "'dask'",
            "pip install 'weightdecay[dask]', or leave engine out",
        ) from error
    return distributed


@contextmanager
def _client(distributed: Any, engine: Any, patience: float = PATIENCE) -> Iterator[Any]:
    """A client of the scheduler that is meant; what was started here is closed at the end."""
    if isinstance(engine, distributed.Client):
        yield engine
        return
    if engine == "dask":
        import os

        import dask.config

        single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
        with dask.config.set({"distributed.scheduler.allowed-failures": DEATHS}):
            cluster = distributed.LocalCluster(
                n_workers=os.cpu_count() or 1,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                env=single,
                silence_logs=50,
            )
        with cluster, distributed.Client(cluster) as client:
            yield client
        return
    if not isinstance(engine, str) or "://" not in engine:
        raise InputError(
            "no such engine",
            "engine",
            repr(engine),
            "leave it out, or give 'dask', 'tcp://host:port' or 'tls://host:port'",
        )
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


_START = "from weightdecay.engine import serve; serve()"


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
