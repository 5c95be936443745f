"""Large tensors come and go at every step: keep their memory instead of giving it back each time."""

import contextlib
import ctypes
import platform
from collections.abc import Iterator

# glibc's malloc.h: which threshold, and its default. Setting either ends glibc's own adjusting of both.
_TRIM, _MMAP, _DEFAULT = -1, -3, 128 * 2**10
# What glibc's adjusting may reach at most on 64 bits, and what is as good as never.
_MMAP_MOST, _NEVER = 32 * 2**20, 2**31 - 1


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Let glibc keep freed memory for the next step; elsewhere nothing happens.

    Freed memory that goes back to the kernel comes back as pages to be zeroed, one fault each; on small
    models that took a third of the time.
    """
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    mallopt(_MMAP, 1 << 30)
    mallopt(_TRIM, _NEVER)
    try:
        yield
    finally:
        # Near the defaults: the mapping threshold where glibc's own adjusting ends up.
        mallopt(_MMAP, _MMAP_MOST)
        mallopt(_TRIM, 2 * _MMAP_MOST)
        _trim()


def _mallopt() -> "ctypes._NamedFuncPointer | None":
    if platform.libc_ver()[0] != "glibc":
        return None
    return getattr(ctypes.CDLL(None), "mallopt", None)


def _trim() -> None:
    """Give back what is free now."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
