"""Any rule on any torch optimizer; the only package that touches optimizer hooks."""

from weightdecay.hooks.attach import attach
from weightdecay.hooks.decay import Decay
from weightdecay.hooks.scheduler import WeightDecayScheduler

__all__ = ["Decay", "WeightDecayScheduler", "attach"]
