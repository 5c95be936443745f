"""Many trainings at once."""

from weightdecay.sweeps.linear import AdamBias, LinearProblem, LinearSweep, train_linear

__all__ = ["AdamBias", "LinearProblem", "LinearSweep", "train_linear"]
