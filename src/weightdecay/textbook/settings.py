"""What the experiment is: its data and every setting, checked, and what one seed draws."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.arguments import finite, whole
from weightdecay.errors import InputError
from weightdecay.tables import Table, read_table
from weightdecay.tables.cells import unreadable
from weightdecay.text import Text
from weightdecay.textbook.scratch import init_params, synthetic_data

VERSION_NAMES = ("scratch", "concise", "concise-matched", "two-optimizers")
INITS = ("normal", "zero")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


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
            whole(getattr(self, name), name)
        for name in ("true_weight", "true_bias", "noise"):
            finite(getattr(self, name), name)
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
        whole(self.n_train, "n_train")
        if self.n_test is not None:
            whole(self.n_test, "n_test")
        rows, needed = len(self.table.y), self.n_train + (self.n_test or 1)
        if rows < needed:
            remedy = f"{self.path} has {rows} rows, and {self.n_test or 1} must be left to test on"
            raise InputError("the table has too few rows", "n_train", self.n_train, remedy)

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
            raise unreadable(str(self.path), error.strerror, "check the path") from error

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
            whole(getattr(self, name), name)
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
            if finite(getattr(self, name), name) <= 0:
                remedy = Text("give a finite number above 0", "请给大于 0 的有限的数")
                raise InputError(Text("not a step size", "不是学习率"), name, getattr(self, name), remedy)
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
        if finite(lam, where) < 0:
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
        generator, order = self.generator(), torch.empty(epochs, len(self.y), dtype=torch.int64)
        for rows in order:
            torch.randperm(len(self.y), generator=generator, out=rows)
        return order


def draw(source: Synthetic | TableFile, seed: int) -> Draw:
    """Draw data, starting point and batch order with one seed; no global random state is touched.

    Everything is drawn in float64, so that a float32 run sees the same numbers, rounded.
    """
    generator = torch.Generator().manual_seed(seed)
    X, y, X_test, y_test = source.split(generator)
    w, _ = init_params(X.shape[1], torch.float64, generator)
    b = torch.randn((), dtype=torch.float64, generator=generator)
    return Draw(seed, X, y, X_test, y_test, w.detach(), b, generator.get_state())
