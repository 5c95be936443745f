"""Step sizes as functions of the step, and strengths carried over from one set-up to another."""

from weightdecay.schedule.learning_rates import lrs
from weightdecay.schedule.lifetimes import Lifetime, lifetime
from weightdecay.schedule.setups import Setup, Transfer, transfer

__all__ = ["Lifetime", "Setup", "Transfer", "lifetime", "lrs", "transfer"]
