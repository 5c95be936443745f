"""A function on several ranks: gloo processes that cannot hang and leave nothing behind."""

import contextlib
import multiprocessing
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

# A server imports torch once and forks every rank: milliseconds instead of seconds for each.
PRELOADED = ["torch.distributed.fsdp", "torch.distributed.checkpoint", "tests.distributed.models"]


class RankError(Exception):
    """What a rank raised, as text."""


def spawn(function: Callable[..., Any], ranks: int, *args: Any, timeout: float = 60) -> list[Any]:
    """Call function(rank, ranks, *args) on each rank and return what each returned, by rank.

    The function is at the top of its module; what it takes and returns can be pickled.

    Raises:
        RankError: a rank raised; the first one's traceback is the message.
        torch.multiprocessing.ProcessExitedException: a rank was killed, or left without an exception.
        TimeoutError: not over after so many seconds.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        context = mp.start_processes(
            _rank,
            (function, ranks, folder, timeout, args),
            nprocs=ranks,
            join=False,
            start_method="forkserver",
        )
        end = time.monotonic() + timeout
        try:
            while not context.join(timeout=max(0, end - time.monotonic()), grace_period=1):
                if time.monotonic() > end:
                    raise TimeoutError(f"{function.__name__} on {ranks} ranks: not over after {timeout} s")
        except mp.ProcessRaisedException:
            raise RankError((Path(folder) / "error").read_text()) from None
        finally:
            for process in context.processes:
                process.kill()
                process.join()
        return [pickle.loads((Path(folder) / f"{rank}").read_bytes()) for rank in range(ranks)]


def _rank(
    rank: int, function: Callable[..., Any], ranks: int, folder: str, timeout: float, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=timeout),
        )
        answer = function(rank, ranks, *args)
        (Path(folder) / f"{rank}").write_bytes(pickle.dumps(answer))
        dist.barrier()  # a rank that leaves early would break the others' connections
    except Exception:
        with contextlib.suppress(FileExistsError), (Path(folder) / "error").open("x") as file:
            file.write(f"rank {rank} of {ranks}\n{traceback.format_exc()}")
        time.sleep(0.3)  # a rank that was killed is seen before those that miss it
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
