"""Who has called `step`: told from the frames on the stack, since torch does not say."""

import sys
from collections.abc import Iterator
from types import FrameType

from torch import optim


def nested(optimizer: optim.Optimizer) -> bool:
    """Whether this step is called by a step of the same optimizer.

    torch runs the hooks in every class whose `step` it has wrapped, so a subclass that calls
    `super().step()` runs them twice. (A step that is open and not on the stack was left by an exception.)
    """
    return steps_of(optimizer) > 1


def steps_of(optimizer: optim.Optimizer) -> int:
    """How many calls of this optimizer's step have not returned yet."""
    return sum(
        frame.f_locals.get("self") is optimizer
        for frame in _frames()
        if frame.f_code.co_qualname.endswith("profile_hook_step.<locals>.wrapper")
    )


def makes_state(optimizer: optim.Optimizer) -> bool:
    """Whether this step is none: distributed checkpoints make one so that there is a state to fill."""
    return not optimizer.state and any(frame.f_code.co_name == "_init_optim_state" for frame in _frames())


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
