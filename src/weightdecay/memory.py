"""How much memory there is, asked before it is taken."""

import contextlib
import os
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
