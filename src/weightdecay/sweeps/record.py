"""The record of a sweep: every training, the choices, the best weights; and the folder that holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from jaxtyping import Float64
from torch import Tensor

from weightdecay.saving import KINDS, Saved, plain, save
from weightdecay.select import Edge
from weightdecay.sweeps import selection
from weightdecay.sweeps.selection import Comparison, Selection, best_of, selections_of
from weightdecay.sweeps.task import Copy, Goal, Look, Trained, goal_of
from weightdecay.text import Text
from weightdecay.units.halflife import half_life


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """Trainings at many strengths and seeds, and what they say about the strength.

    Where there is a second axis (rules or learning rates), strengths, scores and choices are those of its
    best setting; `selections` and `heat()` have all of them.

    Args:
        trained: every training, as it ended.
        goal: what strengths are chosen by.
        selections: what the strengths of each rule and learning rate say.
        chosen: the place of the best of them.
        method: how it was trained, in words.
        settings: everything that was chosen, as plain values.
        weights: the best strength's parameters and buffers at the end, by name: (S, ...), a row each seed.
        seconds: how long it took.
        steps_per_epoch: steps of an epoch; None where it is not known.
        factors: for each rule and learning rate the fraction of a weight that λ = 1 removes in a step at the
            largest learning rate; None where there is no such number.
        place: in which processes it was trained and why, where there was a choice.
    """

    trained: tuple[Trained, ...]
    goal: Goal
    selections: tuple[Selection, ...]
    chosen: int
    method: Text
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    steps_per_epoch: int | None = None
    factors: Mapping[tuple[str, float | None], float | None] = field(default_factory=dict)
    place: Text | None = None

    @property
    def selection(self) -> Selection:
        """What the strengths of the best rule and learning rate say."""
        return self.selections[self.chosen]

    @property
    def rule(self) -> str:
        """The best rule's name."""
        return self.selection.rule

    @property
    def lr(self) -> float | None:
        """The best learning rate, where there are several."""
        return self.selection.lr

    @property
    def unit(self) -> str:
        """The unit of all strengths: "weight_decay" is λ."""
        return self.selection.unit

    @property
    def strengths(self) -> tuple[float, ...]:
        """In the order of ascending strength, no decay (0) first (L,)."""
        return self.selection.strengths

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds (S,)."""
        return self.selection.seeds

    @property
    def scores(self) -> Float64[Tensor, " L"]:
        """The mean score over seeds at each strength; ±infinity where a seed diverged (L,)."""
        return self.selection.means

    @property
    def errors(self) -> Float64[Tensor, " L"]:
        """The standard errors of the scores over seeds; 0 with one seed (L,)."""
        return self.selection.errors

    @property
    def best(self) -> float:
        """The strength with the best score, in `unit`."""
        return self.selection.best

    @property
    def one_se(self) -> float:
        """The strongest whose difference to the best, seed by seed, is within its standard error."""
        return self.selection.one_se

    @property
    def edge(self) -> Edge:
        """The end of the grid, "low" or "high", beyond which a better strength may be; None within it."""
        return self.selection.edge

    @property
    def flat(self) -> bool:
        """Whether one standard error tells no strength from the best."""
        return self.selection.flat

    @property
    def flat_range(self) -> tuple[float, float]:
        """The weakest and strongest around the best that one standard error does not tell from it."""
        return self.selection.flat_range

    @property
    def no_decay(self) -> Comparison | None:
        """No decay against the best strength; None where it was not trained."""
        return self.selection.no_decay

    @property
    def weight_decay(self) -> float | None:
        """The number λ that the best strength comes to: what `weight_decay=` of AdamW takes for Decoupled."""
        return self.selection.weight_decays[self.selection.place(self.best)]

    def half_lives(self) -> tuple[float | None, ...]:
        """Half-lives in epochs at the largest learning rate, of the best setting's strengths (L,).

            rate = factor·λ,   half-life = ln 2 / (−ln(1 − rate) · steps per epoch)

        None where there is no number λ, or no such rate (coupled decay); infinite for no decay.
        """
        factor = self.factors.get((self.rule, self.lr))
        if factor is None or self.steps_per_epoch is None:
            return (None,) * len(self.strengths)
        rates = [None if lam is None else factor * lam for lam in self.selection.weight_decays]
        return tuple(
            None if rate is None or rate > 1 else half_life(rate) / self.steps_per_epoch for rate in rates
        )

    @property
    def lines(self) -> tuple[Text, ...]:
        """The answer: the best, one standard error, against no decay, and the shape of the curve."""
        return selection.lines(self.selection, self.goal, len(self.selections))

    @property
    def doubts(self) -> tuple[Text, ...]:
        """What to be careful about, in sentences."""
        others = (*self.selections[: self.chosen], *self.selections[self.chosen + 1 :])
        return selection.doubts(self.selection, self.goal, others)

    @property
    def notes(self) -> tuple[Text, ...]:
        """What there is to know, in sentences; the doubts last."""
        how = [Text(f"trained {self.method}", f"训练方式：{self.method.zh}")]
        if self.place is not None:
            how.append(Text(f"trained {self.place}", f"训练地点：{self.place.zh}"))
        return (*self.lines, *how, *self.doubts)

    def table(self) -> pl.DataFrame:
        """One row per training: rule, lr, strength, weight_decay, seed, losses, metrics, diverged (step)."""
        return table_of(self.trained)

    def curves(self) -> pl.DataFrame:
        """One row per training and look: rule, lr, strength, seed, epoch, losses, metrics."""
        return curves_of(self.trained)

    def heat(self) -> pl.DataFrame:
        """One row per rule, learning rate and strength: what `summary` has, of every setting."""
        tables = []
        for judged in self.selections:
            keys = pl.lit(judged.rule).alias("rule"), pl.lit(judged.lr, dtype=pl.Float64).alias("lr")
            tables.append(_summary(judged).select(*keys, pl.all()))
        return pl.concat(tables)

    def summary(self) -> pl.DataFrame:
        """One row per strength of the best setting.

        Columns: strength, weight_decay, score, error, difference (how much worse than the best, over shared
        seeds), difference_error, diverged (how many seeds).
        """
        return _summary(self.selection)

    def to_dict(self) -> dict[str, Any]:
        """Settings and answers as plain values; null where a number is infinite."""
        none = self.no_decay
        return {
            "kind": KINDS["sweep.json"].name,
            "goal": asdict(self.goal),
            "rule": self.rule,
            "lr": self.lr,
            "unit": self.unit,
            "strengths": list(self.strengths),
            "scores": plain(self.scores),
            "errors": plain(self.errors),
            "seeds": list(self.seeds),
            "best": self.best,
            "weight_decay": self.weight_decay,
            "one_se": self.one_se,
            "edge": self.edge,
            "flat": self.flat,
            "flat_range": list(self.flat_range),
            "no_decay": none and {name: _plain(value) for name, value in asdict(none).items()},
            "method": self.method,
            "method_zh": self.method.zh,
            "place": self.place,
            "place_zh": self.place and self.place.zh,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "settings": dict(self.settings),
            "steps_per_epoch": self.steps_per_epoch,
            "factors": [[*key, value] for key, value in self.factors.items()],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write table.parquet, curves.parquet, weights.safetensors and sweep.json; returns their paths.

        The folder is made if need be. Either all files are written or none.

        Raises:
            InputError: it cannot be written.
        """
        tables = {"table.parquet": self.table(), "curves.parquet": self.curves()}
        return save(folder, "sweep.json", self.to_dict(), {**tables, "weights.safetensors": self.weights})

    def __repr__(self) -> str:
        """The answer in a line."""
        return (
            f"Sweep(best={self.best:.6g}, one_se={self.one_se:.6g}, unit={self.unit!r}, edge={self.edge!r}, "
            f"flat={self.flat}, trainings={len(self.trained)})"
        )

    def __str__(self) -> str:
        """The answer in sentences."""
        return "\n".join((*self.lines, *self.doubts))


def sweep_record(
    trained: Sequence[Trained],
    *,
    minimize: str = "loss",
    maximize: str | None = None,
    method: str = "",
    settings: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
    seconds: float = 0.0,
    steps_per_epoch: int | None = None,
    factors: Mapping[tuple[str, float | None], float | None] | None = None,
    place: Text | None = None,
) -> Sweep:
    """The record of trainings; a pure function of what they gave.

    Args:
        trained: trainings at strengths of one unit, in any order; the record keeps it.
        minimize: "loss", the test loss, or a metric to choose by.
        maximize: a metric to choose by instead, where more is better.
        method: how it was trained, in words, a `Text` for both languages.
        settings: everything that was chosen, as JSON has it.
        weights: the best strength's, by name; which it is, `selections_of` and `best_of` say.
        seconds: how long it took.
        steps_per_epoch: steps of an epoch.
        factors: as the record has them.
        place: in which processes it was trained and why.

    Raises:
        DivergenceError: at every strength a training diverged.
        InputError: nothing was trained; no such metric.
    """
    goal = goal_of(minimize, maximize, tuple(trained[0].metrics) if trained else ())
    selections = selections_of(trained, goal)
    chosen = best_of(selections, goal)
    words = method if isinstance(method, Text) else Text(method, method)
    about = words, settings or {}, weights or {}, seconds, steps_per_epoch, factors or {}, place
    return Sweep(tuple(trained), goal, selections, chosen, *about)


def _summary(judged: Selection) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "strength": judged.strengths,
            "weight_decay": judged.weight_decays,
            "score": judged.means.tolist(),
            "error": judged.errors.tolist(),
            "difference": judged.differences.tolist(),
            "difference_error": judged.difference_errors.tolist(),
            "diverged": (~judged.scores.isfinite()).sum(0).tolist(),
        },
        schema_overrides={"weight_decay": pl.Float64, "diverged": pl.Int64},
    )


def _plain(value: Any) -> Any:
    finite = not isinstance(value, float) or abs(value) < float("inf")  # NaN is not less, either
    return value if finite else None


KEY = {"rule": pl.String, "lr": pl.Float64, "strength": pl.Float64}
_NAME = (*KEY, "seed", "unit")  # of a training
_METRIC = "test_"


def table_of(trained: Sequence[Trained]) -> pl.DataFrame:
    """One row per training: its key, the number λ, losses and metrics at the end, the step it diverged at."""
    columns: dict[str, list[Any]] = {
        **_columns([each.copy for each in trained], *_NAME),
        **_columns(trained, "weight_decay", "train_loss", "test_loss"),
        **_metrics([each.metrics for each in trained]),
        **_columns(trained, "diverged"),
    }
    schema = {**KEY, "seed": pl.Int64, "unit": pl.String, **dict.fromkeys([*columns][5:], pl.Float64)}
    return pl.DataFrame(columns, schema={**schema, "diverged": pl.Int64})


def curves_of(trained: Sequence[Trained]) -> pl.DataFrame:
    """One row per training and look: its key, the epoch, losses and metrics."""
    looks = [look for each in trained for look in each.looks]
    columns: dict[str, list[Any]] = {
        **_columns([each.copy for each in trained for _ in each.looks], *_NAME),
        **_columns(looks, "epoch", "train_loss", "test_loss"),
        **_metrics([look.metrics for look in looks], trained[0].metrics if trained else ()),
    }
    schema = {**KEY, "seed": pl.Int64, "unit": pl.String, "epoch": pl.Int64}
    return pl.DataFrame(columns, schema={**schema, **dict.fromkeys([*columns][6:], pl.Float64)})


def trained_of(table: pl.DataFrame, curves: pl.DataFrame) -> tuple[Trained, ...]:
    """The trainings that the two tables were made from.

    Raises:
        KeyError, TypeError, polars' ColumnNotFoundError: they are other tables.
    """
    looks: dict[Copy, list[Look]] = {}
    for row in curves.iter_rows(named=True):
        copy = _copy(row)
        looks.setdefault(copy, []).append(
            Look(row.pop("epoch"), row.pop("train_loss"), row.pop("test_loss"), _unprefixed(row))
        )
    trained = []
    for row in table.iter_rows(named=True):
        copy = _copy(row)
        numbers = {name: row.pop(name) for name in ("weight_decay", "train_loss", "test_loss", "diverged")}
        trained.append(Trained(copy, **numbers, metrics=_unprefixed(row), looks=tuple(looks.pop(copy, ()))))
    return tuple(trained)


def _columns(records: Sequence[Any], *names: str) -> dict[str, list[Any]]:
    return {name: [getattr(record, name) for record in records] for name in names}


def _copy(row: dict[str, Any]) -> Copy:
    return Copy(**{name: row.pop(name) for name in _NAME})


def _metrics(values: Sequence[dict[str, float]], names: Any = None) -> dict[str, list[float]]:
    names = values[0] if values else names or ()
    return {_METRIC + name: [metrics[name] for metrics in values] for name in names}


def _unprefixed(row: dict[str, Any]) -> dict[str, float]:
    return {name.removeprefix(_METRIC): value for name, value in row.items()}


def from_saved(saved: Saved) -> Sweep:
    """Make the sweep that `Sweep.save` or `weightdecay sweep` wrote."""
    name, maximize = saved["goal"]["name"], saved["goal"]["maximize"]
    return sweep_record(
        trained_of(saved.table("table.parquet"), saved.table("curves.parquet")),
        **({"maximize": name} if maximize else {"minimize": name}),
        weights=saved.tensors("weights.safetensors"),
        method=Text(saved["method"], saved.values.get("method_zh", saved["method"])),
        **{field: saved[field] for field in ("settings", "seconds")},
        steps_per_epoch=saved.values.get("steps_per_epoch"),  # older records have none of these
        factors={(rule, lr): value for rule, lr, value in saved.values.get("factors", ())},
        place=Text(saved["place"], saved["place_zh"]) if saved.values.get("place") else None,
    )
