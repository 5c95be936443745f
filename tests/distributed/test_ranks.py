"""The harness: what ranks return, raise and leave behind."""

import multiprocessing
import os
import signal
import time

import pytest
import ranks
import torch
from torch import distributed as dist
from torch import multiprocessing as mp


def total(rank, world, values):
    found = torch.tensor(values[rank])
    dist.all_reduce(found)
    return found.item(), torch.get_num_threads(), (dist.get_rank(), dist.get_world_size()) == (rank, world)


def one_fails(rank, world):
    if rank == 1:
        raise ValueError("the second rank")
    dist.barrier()


def one_is_killed(rank, world):
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def one_waits(rank, world):
    if rank == 0:
        time.sleep(60)
    dist.barrier()


def test_ranks_answer():
    assert ranks.spawn(total, 3, [1.0, 2.0, 4.0]) == [(7.0, 1, True)] * 3


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (one_fails, ranks.RankError, "(?s)rank 1 of 2.*in one_fails.*ValueError: the second rank"),
        (one_is_killed, mp.ProcessExitedException, "SIGKILL"),
        (one_waits, TimeoutError, "one_waits on 2 ranks: not over after 2 s"),
    ],
)
def test_a_failure_ends_all_ranks(function, error, message):
    begin = time.monotonic()
    with pytest.raises(error, match=message):
        ranks.spawn(function, 2, timeout=2 if function is one_waits else 60)
    assert time.monotonic() - begin < 20
    assert multiprocessing.active_children() == []
