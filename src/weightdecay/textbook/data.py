"""Where the examples come from: the textbook's synthetic design or a table. One seed, one draw."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.tables import Table, read_table
from weightdecay.textbook.scratch import init_params, synthetic_data


@dataclass(frozen=True)
class Synthetic:
    """High-dimensional linear regression with too few examples: y = Xw + b + noise, X ~ N(0, 1).

    Args:
        n_train: training examples.
        n_test: test examples.
        n_inputs: p, the inputs of each example.
        true_weight: the value of every true weight.
        true_bias: the true bias.
        noise: the noise's standard deviation.
    """

    n_train: int = 20
    n_test: int = 100
    n_inputs: int = 200
    true_weight: float = 0.01
    true_bias: float = 0.05
    noise: float = 0.01

    def check(self) -> None:
        """Raise InputError unless every number makes sense."""
        for name in ("n_train", "n_test", "n_inputs"):
            positive_integer(name, getattr(self, name))
        for name in ("true_weight", "true_bias", "noise"):
            finite(name, getattr(self, name))
        if self.noise < 0:
            raise InputError("a standard deviation is negative", "noise", self.noise, "give 0 or more")

    def split(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Training inputs and targets, test inputs and targets, in float64."""
        w = torch.full((self.n_inputs,), self.true_weight, dtype=torch.float64)
        train = synthetic_data(w, self.true_bias, self.n_train, self.noise, generator)
        return *train, *synthetic_data(w, self.true_bias, self.n_test, self.noise, generator)


@dataclass(frozen=True)
class TableFile:
    """A table on disk: `target` is predicted from every other column that is not dropped.

    The rows are split at random with the seed; the inputs are standardised with the mean and the
    standard deviation (1/n) of the training part. The target is left in its own units.

    Args:
        path: a .csv or .parquet file.
        target: the column to predict.
        drop: columns to leave out.
        n_train: training rows.
        n_test: test rows; None takes all the others.
    """

    path: str | Path
    target: str
    drop: Sequence[str] = ()
    n_train: int = 20
    n_test: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        object.__setattr__(self, "drop", (self.drop,) if isinstance(self.drop, str) else tuple(self.drop))

    def check(self) -> None:
        """Raise InputError unless the table can be read and split."""
        positive_integer("n_train", self.n_train)
        if self.n_test is not None:
            positive_integer("n_test", self.n_test)
        rows, needed = len(self.table.y), self.n_train + (self.n_test or 1)
        if rows < needed:
            raise InputError(
                "the table has too few rows",
                "n_train",
                self.n_train,
                f"{self.path} has {rows} rows, and {self.n_test or 1} must be left to test on",
            )

    @cached_property
    def table(self) -> Table:
        """The file's contents, read once."""
        return read_table(self.path, self.target, self.drop)

    @property
    def sha256(self) -> str:
        """The file's checksum, so that a run can say what it was run on."""
        try:
            return hashlib.sha256(Path(self.path).read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(
                "the table cannot be read", str(self.path), error.strerror, "check the path"
            ) from error

    def split(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Training inputs and targets, test inputs and targets, in float64."""
        rows = torch.randperm(len(self.table.y), generator=generator)
        n_test = len(rows) - self.n_train if self.n_test is None else self.n_test
        train, test = rows[: self.n_train], rows[self.n_train : self.n_train + n_test]
        X, y = self.table.X, self.table.y
        mean, sd = X[train].mean(0), X[train].std(0, correction=0)
        X = (X - mean) / torch.where(sd > 0, sd, 1)  # a column that is constant in training stays zero there
        if bool((y[train] == y[train[0]]).all()):
            raise InputError(
                "the target is constant in the training part", "target", y[train[0]].item(), "raise n_train"
            )
        return X[train], y[train], X[test], y[test]


@dataclass(frozen=True)
class Draw:
    """What one seed draws, in float64: data, starting weights, a starting bias, and the batch order.

    Args:
        seed: the seed.
        X: training inputs (n, p).
        y: training targets (n,).
        X_test: test inputs (t, p).
        y_test: test targets (t,).
        w: N(0, 1) weights (p,).
        b: an N(0, 1) bias (), used by the concise versions as the textbook does.
        order_state: the state of the generator that shuffles the batches.
    """

    seed: int
    X: Float64[Tensor, "n p"]
    y: Float64[Tensor, " n"]
    X_test: Float64[Tensor, "t p"]
    y_test: Float64[Tensor, " t"]
    w: Float64[Tensor, " p"]
    b: Float64[Tensor, ""]
    order_state: Tensor

    def generator(self) -> torch.Generator:
        """A fresh generator that shuffles the batches of this seed: the same for every λ and version."""
        return torch.Generator().set_state(self.order_state)

    def order(self, epochs: int) -> Tensor:
        """The order of the examples in each epoch, (epochs, n), as `scratch.minibatches` will draw it."""
        generator = self.generator()
        return torch.stack([torch.randperm(len(self.y), generator=generator) for _ in range(epochs)])


def draw(source: Synthetic | TableFile, seed: int) -> Draw:
    """Draw data, starting point and batch order with one seed; no global random state is touched.

    Everything is drawn in float64, so that a float32 run sees the same numbers, rounded.
    """
    generator = torch.Generator().manual_seed(seed)
    X, y, X_test, y_test = source.split(generator)
    w, _ = init_params(X.shape[1], torch.float64, generator)
    b = torch.randn((), dtype=torch.float64, generator=generator)
    return Draw(seed, X, y, X_test, y_test, w.detach(), b, generator.get_state())


def positive_integer(name: str, value: object) -> None:
    """Raise InputError unless the value is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError("not a whole number of at least 1", name, value, "give 1 or more")


def finite(name: str, value: object) -> float:
    """The value, if it is a finite number (and one whose square is).

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e150:
        raise InputError("not a finite number below 1e150", name, repr(value), "give one")
    return value
