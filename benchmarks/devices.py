"""The device a benchmark runs on, and waiting for it."""

import sys
from collections.abc import Callable

import torch


def device_of(asked: str | None) -> str:
    """The device asked for, by default a GPU where there is one; ends the program where it is not there."""
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        print("error: torch sees no GPU: --device cuda; leave it out, or give --device cpu", file=sys.stderr)
        raise SystemExit(2)
    return asked or ("cuda" if there else "cpu")


def name_of(device: str) -> str:
    """What the device is called, or how many threads there are."""
    return torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"


def waiting(function: Callable[[], object], device: str) -> Callable[[], object]:
    """The function, after which the device has finished."""

    def run() -> object:
        found = function()
        if device == "cuda":
            torch.cuda.synchronize()
        return found

    return run if device == "cuda" else function
