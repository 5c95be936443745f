"""Every setting of the experiment, with the textbook's values as defaults, checked."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from weightdecay.errors import InputError
from weightdecay.textbook.data import Synthetic, TableFile, finite, positive_integer

VERSION_NAMES = ("scratch", "concise", "concise-matched", "two-optimizers")
INITS = ("normal", "zero")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Experiment:
    """The settings of one run. `Experiment()` is the textbook's.

    Args:
        data: a `Synthetic` design or a `TableFile`.
        lambdas: the strengths λ of `½ mean squared loss + λ/2 ||w||²`, as the textbook gives them to each
            version; None is 0 and 3 for the synthetic design, and for a table 0 and the λ of least
            leave-one-out error.
        versions: among scratch, concise, concise-matched, two-optimizers.
        seed: the first seed; a seed draws data, starting point and batch order.
        seeds: how many seeds, counted up from the first.
        batch_size: rows of a batch.
        lr: the step size.
        bias_lr: Adam's step size for the bias in two-optimizers.
        epochs: how often every example is seen.
        every: take the losses after every so many epochs.
        init: "normal" draws the starting weights from N(0, 1), "zero" starts at 0.
        penalize_bias: count the bias into the penalty.
        dtype: "float32" or "float64".
        curve: the λ of the curve "test loss against λ"; empty for none; None is 1e-3 to 100 and, for a
            table, whose best λ may be tiny, 1e-10 to 100.
        curve_seeds: over how many seeds its band is taken, counted up from the first.

    Raises:
        InputError: from `checked`, not on construction.

    >>> Experiment(lr=0.001).lr
    0.001
    """

    data: Synthetic | TableFile = field(default_factory=Synthetic)
    lambdas: Sequence[float] | None = None
    versions: Sequence[str] = ("scratch", "concise")
    seed: int = 0
    seeds: int = 1
    batch_size: int = 5
    lr: float = 0.003
    bias_lr: float = 0.01
    epochs: int = 100
    every: int = 5
    init: str = "normal"
    penalize_bias: bool = False
    dtype: str = "float32"
    curve: Sequence[float] | None = None
    curve_seeds: int = 20

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _plain(getattr(self, f.name)))
        for name in ("lambdas", "versions", "curve"):
            value = getattr(self, name)
            if value is not None:
                single = isinstance(value, str | int | float)
                object.__setattr__(self, name, (value,) if single else tuple(map(_plain, value)))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype the trainings run in."""
        return DTYPES[self.dtype]

    @property
    def seed_list(self) -> list[int]:
        """The seeds of the run."""
        return list(range(self.seed, self.seed + self.seeds))

    @property
    def watched(self) -> Sequence[float]:
        """All λ, or four spread over a longer list: those worth watching one by one."""
        lambdas, most = self.lambdas or (), 4
        if len(lambdas) <= most:
            return lambdas
        return tuple(lambdas[round(i * (len(lambdas) - 1) / (most - 1))] for i in range(most))

    @property
    def steps(self) -> int:
        """Gradient steps of one training."""
        return self.epochs * math.ceil(self.data.n_train / self.batch_size)

    def checked(self) -> "Experiment":
        """Return self if every setting can be used.

        Raises:
            InputError: one cannot; nothing has been trained or written.
        """
        if not isinstance(self.data, Synthetic | TableFile):
            raise InputError("not a source of data", "data", self.data, "give a Synthetic or a TableFile")
        self.data.check()
        for name in ("seeds", "batch_size", "epochs", "every", "curve_seeds"):
            positive_integer(name, getattr(self, name))
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**62:
            raise InputError("not a seed", "seed", self.seed, "give a whole number from 0 to 2**62")
        if self.batch_size > self.data.n_train:
            raise InputError(
                "the batch is larger than the training data",
                "batch_size",
                self.batch_size,
                f"use at most n_train = {self.data.n_train}",
            )
        for name in ("lr", "bias_lr"):
            if finite(name, getattr(self, name)) <= 0:
                raise InputError("not a step size", name, getattr(self, name), "give a finite number above 0")
        _one_of("init", [self.init], INITS)
        _one_of("dtype", [self.dtype], tuple(DTYPES))
        _one_of("version", self.versions, VERSION_NAMES)
        check_lambdas("lambda", self.lambdas if self.lambdas is not None else (0.0,))
        if self.curve:
            check_lambdas("curve", self.curve)
        self._check_size()
        for lam in self.lambdas or ():
            if self.lr * lam >= 1:
                raise InputError(
                    "the decay overshoots zero (lr·λ must stay below 1)",
                    "lambda",
                    f"{lam:g} at lr = {self.lr:g} (lr·λ = {self.lr * lam:g})",
                    f"use λ < {1 / self.lr:g} or a smaller lr",
                )
        return self

    def _check_size(self) -> None:
        """Refuse what cannot fit into memory: draws of all seeds, and weights and losses of all trainings."""
        data, seeds = self.data, max(self.seeds, self.curve_seeds)
        if isinstance(data, Synthetic):
            rows, p = data.n_train + data.n_test, data.n_inputs
        else:
            rows, p = data.table.X.shape
        trainings = self.seeds * len(self.lambdas or (0, 3)) * len(self.versions)
        numbers = 2 * seeds * rows * p + trainings * (2 * p + 12 * -(-self.epochs // self.every))
        if numbers > 1e9:
            raise InputError(
                "the experiment is too large",
                "n_train, n_test, n_inputs, seeds, lambda",
                f"{8e-9 * numbers:.3g} GB at once",
                "give fewer of one of them; 8 GB is the limit",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` is the way back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "data": {"kind": type(self.data).__name__, **asdict(self.data)}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Experiment":
        """The settings that `to_dict` wrote.

        Raises:
            InputError: a setting is unknown or missing its kind.
        """
        try:
            values, data = {**values}, {**values["data"]}
            del values["data"]
            kind = {"Synthetic": Synthetic, "TableFile": TableFile}[data.pop("kind")]
            return cls(data=kind(**data), **values)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "not the settings of an experiment", "settings", error, "give a run.json"
            ) from error


def check_lambdas(where: str, lambdas: Iterable[float]) -> None:
    """Raise InputError unless there is at least one λ and each is finite, at least 0 and given once."""
    seen: set[float] = set()
    for lam in lambdas:
        if finite(where, lam) < 0:
            raise InputError("λ must not be negative", where, lam, "give 0 for no decay")
        if lam in seen:
            raise InputError("a λ is given twice", where, f"{lam:g}", "give each once")
        seen.add(lam)
    if not seen:
        raise InputError("no λ is given", where, None, "give at least one")


def _one_of(where: str, values: Iterable[str], allowed: Sequence[str]) -> None:
    values = list(values)
    for value in values:
        if value not in allowed:
            raise InputError(f"not a known {where}", where, repr(value), f"choose among {', '.join(allowed)}")
    if not values or len(set(values)) < len(values):
        raise InputError(f"give at least one {where}, each once", where, ",".join(values) or "nothing")


def _plain(value: Any) -> Any:
    """A NumPy or torch number as Python's own; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () else value
