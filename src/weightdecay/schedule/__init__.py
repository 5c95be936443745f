"""Step sizes as functions of the step, and strengths carried over from one set-up to another.

`lrs` and `transfer` are functions here; the modules they live in are reached by their full names only.
"""

from weightdecay.schedule.lrs import lrs
from weightdecay.schedule.transfer import Setup, Transfer, transfer

__all__ = ["Setup", "Transfer", "lrs", "transfer"]
