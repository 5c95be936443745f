"""How much memory there is, asked before it is taken."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from weightdecay.errors import InputError


def available(device: torch.device | str = "cpu") -> int | None:
    """Bytes that can still be had on a device; None where the system does not say."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def require(needed: int, what: str, device: torch.device | str = "cpu") -> None:
    """Raise unless so many bytes can be had.

    Raises:
        InputError: they cannot; both amounts are told.
    """
    there = available(device)
    if there is not None and needed > 0.9 * there:
        need, have = needed / 2**30, there / 2**30
        raise InputError(
            "not enough memory",
            what,
            f"{need:.1f} GiB of {have:.1f} GiB available",
            "use fewer rows or columns, whichever are fewer, or a larger machine",
        )


# glibc's malloc.h: which threshold. Setting either ends glibc's own adjusting of both.
_TRIM, _MMAP = -1, -3
# What glibc's adjusting may reach at most on 64 bits, and what is as good as never.
_MMAP_MOST, _NEVER = 32 * 2**20, 2**31 - 1


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Let glibc keep freed memory for the next step; elsewhere nothing happens.

    Freed memory that goes back to the kernel comes back as pages to be zeroed, one fault each; on small
    models that took a third of the time.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP, 1 << 30)
    libc.mallopt(_TRIM, _NEVER)
    try:
        yield
    finally:
        # Near the defaults: the mapping threshold where glibc's own adjusting ends up.
        libc.mallopt(_MMAP, _MMAP_MOST)
        libc.mallopt(_TRIM, 2 * _MMAP_MOST)
        libc.malloc_trim(0)  # gives back what is free now
