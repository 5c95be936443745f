"""What a sweep's trainings are called and what they give."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Copy:
    """One training's name: the key of an evaluation.

    Args:
        rule: the rule's name in the task.
        lr: the step size where there are several, else None.
        strength: as it was given, in `unit`; 0 in any unit is no decay.
        unit: "weight_decay", or the unit of a half-life.
        seed: of initialisation, data order and the model's own draws.
    """

    rule: str
    lr: float | None
    strength: float
    unit: str
    seed: int


@dataclass(frozen=True)
class Look:
    """What one look saw.

    Args:
        epoch: after which epoch, counted from 1.
        train_loss: Σ m_b·loss_b / n over the epoch's batches of m_b of n examples, each as it was before its
            step: the mean over the examples, where the loss is the mean over a batch.
        test_loss: the loss of all test examples.
        metrics: each metric of all test examples.
    """

    epoch: int
    train_loss: float
    test_loss: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Trained:
    """What one training gave.

    Args:
        copy: which training it was.
        weight_decay: the number that the strength comes to; None where there is no one number.
        train_loss: at the last look; NaN if it diverged.
        test_loss: at the last look; NaN if it diverged.
        metrics: at the last look; NaN if it diverged.
        looks: all looks.
        diverged: the first step, counted from 0, whose training loss is not finite; None: no step.
    """

    copy: Copy
    weight_decay: float | None
    train_loss: float
    test_loss: float
    metrics: dict[str, float]
    looks: tuple[Look, ...]
    diverged: int | None


@dataclass(frozen=True)
class Chunk:
    """Trainings that run together: every seed at every strength, in this order."""

    rule: str
    lr: float | None
    strengths: tuple[float, ...]
    unit: str
    seeds: tuple[int, ...]

    @property
    def copies(self) -> tuple[Copy, ...]:
        """The trainings, seed by seed."""
        return tuple(
            Copy(self.rule, self.lr, strength, self.unit, seed)
            for seed in self.seeds
            for strength in self.strengths
        )


@dataclass(frozen=True)
class ChunkResult:
    """What a chunk gave.

    Args:
        trained: one for each of the chunk's copies, in their order.
        weights: parameters and buffers at the end by name, with leading axes (seeds, strengths), on the CPU.
    """

    trained: tuple[Trained, ...]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A running chunk at the end of an epoch; whoever trains it knows how to go on from there.

    Args:
        epoch: epochs that are done.
        tensors: weights, buffers, the optimizer's and the rules' state, by name, on the CPU.
        plain: everything else, as JSON has it.
    """

    epoch: int
    tensors: dict[str, Tensor]
    plain: dict[str, Any]
