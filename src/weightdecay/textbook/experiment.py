"""Run the experiment: train what is asked for, alone and batched, and set theory beside it."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.arguments import grid
from weightdecay.errors import DivergenceError, InputError, Interrupted
from weightdecay.ridge import LeastLoo, LinearModel, factor, least_loo
from weightdecay.text import Text
from weightdecay.textbook import theory
from weightdecay.textbook.record import (
    CURVE_SCHEMA,
    RESULT_SCHEMA,
    SLIDER_SCHEMA,
    Evaluation,
    LambdaCurve,
    Outcome,
    Run,
    explain,
)
from weightdecay.textbook.settings import INITS, Draw, Experiment, Synthetic, draw
from weightdecay.textbook.versions import VERSIONS, Version, train_batched, train_plain
from weightdecay.units.halflife import half_life

OnEvaluation = Callable[[Evaluation], None]
OnProgress = Callable[[str, int, int], None]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread for a while.

    The matrices are so small that a second thread gains little, and loses a hundredfold when the machine is
    busy and every operation waits for it. And the last bit no longer depends on the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def run_experiment(
    experiment: Experiment | None = None,
    *,
    on_evaluation: OnEvaluation | None = None,
    on_progress: OnProgress | None = None,
) -> Run:
    """Run the textbook's experiment and return one record of it.

    The first seed is trained by the plain programs of `scratch` and `concise`, one λ after the other (at
    four λ spread over the list, if it is longer); all other trainings are one batched program.

    Args:
        experiment: the settings; None for the textbook's own.
        on_evaluation: called with an `Evaluation` at every look at a plain training, as it happens.
        on_progress: called as on_progress(stage, done, total) during the batched stages.

    Returns:
        A `Run`.

    Raises:
        InputError: a setting cannot be used; nothing was trained.
        DivergenceError: a training ran away; names the largest step size that does not.
        Interrupted: Ctrl-C; its `partial` is a `Run` with what was computed.

    >>> run = run_experiment(Experiment(lambdas=(0.0, 3.0), versions=("scratch",), curve=()))
    >>> [round(outcome.w_norm, 1) for outcome in run.outcomes]
    [12.9, 0.3]
    """
    experiment = (experiment or Experiment()).checked()
    draws = [draw(experiment.data, seed) for seed in experiment.seed_list]
    experiment, notes = _resolved(experiment, draws[0])
    versions = [VERSIONS[name] for name in experiment.versions]
    for version in versions:
        check_lr(version, experiment, draws)
    watched: dict[str, list[Evaluation]] = {}
    measured: dict[str, Measured] = {}
    outcomes: list[Outcome] = []
    gap = 0.0  # between the plain and the batched programs
    try:
        for version in versions:
            watched[version.name] = []
            _watch(version, experiment, draws[0], watched[version.name], on_evaluation)
        for version in versions:
            measured[version.name] = _measure(version, experiment, draws, watched[version.name], on_progress)
            gap = max(gap, measured[version.name].gap)
        for version in versions:
            outcomes += outcomes_of(version, experiment, draws, measured[version.name])
        curve = lambda_curve(versions[0], experiment, draws, on_progress) if experiment.curve else None
        positions = slider(experiment, draws[0]) if experiment.curve else None
    except KeyboardInterrupt as interrupt:
        notes.append(
            Text(
                "interrupted: only what was computed until then is here", "已中断：这里只有中断之前算出的结果"
            )
        )
        results = as_table(experiment, measured, watched)
        partial = Run(experiment, results, tuple(outcomes), notes=tuple(notes), complete=False)
        raise Interrupted(partial) from interrupt
    if experiment.curve and curve is None:
        notes.append(
            Text(
                f"No curve over λ: at lr = {experiment.lr:g} gradient descent works at none of its λ.",
                f"没有 λ 的曲线：lr = {experiment.lr:g} 时梯度下降在它的任何 λ 上都不可行。",
            )
        )
    results = as_table(experiment, measured, watched)
    notes += explain(experiment, draws[0], results, outcomes, curve, gap)
    return Run(experiment, results, tuple(outcomes), curve, tuple(notes), slider=positions)


def resolved(experiment: Experiment) -> Experiment:
    """The settings with λ and the curve filled in, as the record of the run will have them.

    Raises:
        InputError: a setting cannot be used.
    """
    return _resolved(experiment, draw(experiment.data, experiment.seed_list[0]))[0]


def _resolved(experiment: Experiment, first: Draw) -> tuple[Experiment, list[Text]]:
    """The settings with λ and curve filled in, and for a table a note on the λ of least leave-one-out error.

    λ is 0 and 3 as in the textbook; for a table 0 and the λ of least exact leave-one-out error.
    """
    lambdas, curve, notes = experiment.lambdas, experiment.curve, []
    textbook = isinstance(experiment.data, Synthetic)
    best = None if textbook else _least_loo(first, needed=lambdas is None)
    if best is not None:
        notes = [_loo_note(best, first)]
    if lambdas is None:
        lambdas = (0.0, best.lam if best else 3.0)
    if curve is None:
        curve = grid("1e-3:100:61" if textbook else "1e-10:100:73")
    return dataclasses.replace(experiment, lambdas=lambdas, curve=curve).checked(), notes


def _least_loo(first: Draw, needed: bool) -> LeastLoo | None:
    """The λ of least leave-one-out error on the first seed's training part; None where there is none."""
    if len(first.y) < 3:
        problem = InputError(
            "leave-one-out needs 3 rows", "n_train", len(first.y), "raise it, or give λ yourself"
        )
    else:
        factors = factor(first.X, first.y)
        if factors.rank:
            return least_loo(factors)
        problem = InputError(
            "every input is constant in the training part", "n_train", len(first.y), "raise it"
        )
    if needed:
        raise problem
    return None


def _loo_note(best: LeastLoo, first: Draw) -> Text:
    ridge = theory.ridge_models(first, torch.tensor([best.lam], dtype=torch.float64))
    test_loss, error = f"{float(ridge.half_mse(first.X_test, first.y_test)):.4g}", f"{best.error / 2:.4g}"
    lam, edge = f"{best.lam:.3g}", Text("", "")
    if best.at_edge:
        edge = Text(
            " (an edge of its grid: the least may lie beyond)", "（在网格的边缘：最小值也许还在外面）"
        )
    return Text(
        f"λ = {lam}{edge} has the least exact leave-one-out error on the training part of seed "
        f"{first.seed}: half mean squared error {error}. Exact ridge there has a test loss of {test_loss}.",
        f"λ = {lam}{edge.zh} 在种子 {first.seed} 的训练部分上精确留一误差最小：½ 均方误差 {error}。"
        f"该处精确岭回归的测试损失是 {test_loss}。",
    )


# A loss beyond this multiple of its start is a training that ran away.
RUNAWAY = 1e6


def check_lr(version: Version, experiment: Experiment, draws: Sequence[Draw]) -> None:
    """Refuse a step size at which even full batches diverge: lr ≥ 2/(h + λ), canonically."""
    for drawn in draws:
        h = theory.largest_curvature(drawn.X, with_bias=not version.adam_bias)
        for strength in experiment.lambdas or ():
            lam, lr = version.canonical(strength, experiment.lr)
            if lr * (h + lam) > 2:
                limit = 2 / (h + lam) * experiment.lr / lr
                bound = "2/(2h+λ)" if version.loss_scale == 2 and version.lr_factor == 1 else "2/(h+λ)"
                curvature = f"(largest curvature h = {h:.4g}, seed {drawn.seed})"
                raise InputError(
                    f"the step size is too large for {version.name}: gradient descent diverges "
                    f"from {bound} on",
                    "lr",
                    f"{experiment.lr:g} at λ = {strength:g} {curvature}",
                    f"use less than {limit:.3g}, and batches may need less still",
                )


def start_loss(version: Version, experiment: Experiment, drawn: Draw) -> float:
    """Half the mean squared training error before the first step."""
    return float(LinearModel(*version.start(drawn, experiment)).half_mse(drawn.X, drawn.y))


def diverged(
    version: Version, experiment: Experiment, draws: list[Draw], seen: Evaluation, start: float
) -> DivergenceError:
    """The error for a training that ran away, with a step size that does not."""
    error = DivergenceError(
        f"training diverged: {version.name}, λ = {seen.lam:g}, seed {seen.seed}, epoch {seen.epoch}, "
        f"train loss {seen.train_loss:.3g} from {start:.3g}",
        "lr",
        f"{experiment.lr:g}",
        _remedy(version, experiment, largest := _largest_lr(version, experiment, draws)),
    )
    error.largest_lr = largest
    return error


def _largest_lr(version: Version, experiment: Experiment, draws: list[Draw]) -> float | None:
    """Halve lr until every training of the version completes; None if 40 halvings do not help."""
    lambdas = torch.tensor(experiment.lambdas, dtype=torch.float64)
    starts = [start_loss(version, experiment, drawn) for drawn in draws]
    bounds = RUNAWAY * torch.tensor(starts, dtype=torch.float64)[:, None, None]
    for halvings in range(1, 41):
        lr = experiment.lr / 2**halvings
        losses = train_batched(version, draws, experiment, lambdas, lr=lr).train_loss.double()
        if bool((losses.isfinite() & (losses <= bounds)).all()):
            return lr
    return None


def _remedy(version: Version, experiment: Experiment, largest: float | None) -> str:
    if largest is not None:
        return f"halving it, {largest:.4g} is the largest that completes"
    if version.adam_bias:
        return f"no halving of it completes, so try a smaller bias_lr = {experiment.bias_lr:g}"
    return "no halving of it completes, so look at the data's scale"


def _watch(
    version: Version,
    experiment: Experiment,
    first: Draw,
    watched: list[Evaluation],
    on_evaluation: OnEvaluation | None,
) -> None:
    """Train the first seed by the plain program at the λ worth watching; looks are added as they come."""
    start = start_loss(version, experiment, first)
    for lam in experiment.watched:

        def watch(epoch: int, train_loss: float, test_loss: float, w_norm: float, lam: float = lam) -> None:
            seen = Evaluation(
                version.name, first.seed, lam, epoch, train_loss, test_loss, w_norm, experiment.epochs
            )
            if not train_loss <= RUNAWAY * start:
                raise diverged(version, experiment, [first], seen, start)
            watched.append(seen)
            if on_evaluation:
                on_evaluation(seen)

        train_plain(version, first, experiment, lam, watch)


@dataclass(frozen=True)
class Measured:
    """All trainings of one version: S seeds, L strengths, E looks.

    Args:
        epochs: after which epochs one looked.
        train_loss: half the mean squared training error (S, L, E).
        test_loss: half the mean squared test error (S, L, E).
        w_norm: the L2 norm of the weights (S, L, E).
        w: the weights at the end (S, L, p).
        b: the bias at the end (S, L).
        gap: by how much the plain and the batched program differ in test loss, relatively, at most.
    """

    epochs: tuple[int, ...]
    train_loss: Float64[Tensor, "S L E"]
    test_loss: Float64[Tensor, "S L E"]
    w_norm: Float64[Tensor, "S L E"]
    w: Float64[Tensor, "S L p"]
    b: Float64[Tensor, "S L"]
    gap: float


def _measure(
    version: Version,
    experiment: Experiment,
    draws: list[Draw],
    watched: Sequence[Evaluation],
    progress: OnProgress | None,
) -> Measured:
    """Train every seed at every λ as one batched program; losses that were watched replace their twins."""
    lambdas = [*(experiment.lambdas or ())]
    count = len(draws) * len(lambdas)
    stage = Text(f"{version.name}: {count} trainings at once", f"{version.name}：同时训练 {count} 次")
    on_epoch = functools.partial(progress, stage) if progress else None
    strengths = torch.tensor(lambdas, dtype=torch.float64)
    sweep = train_batched(version, draws, experiment, strengths, on_epoch)
    for s, drawn in enumerate(draws):
        start = start_loss(version, experiment, drawn)
        ran_away = ~(sweep.train_loss[s] <= RUNAWAY * start)
        if bool(ran_away.any()):
            i, look = ran_away.nonzero()[0].tolist()
            losses = [float(x[s, i, look]) for x in (sweep.train_loss, sweep.test_loss, sweep.w_norm)]
            epoch = sweep.epochs[look]
            seen = Evaluation(version.name, drawn.seed, lambdas[i], epoch, *losses, epochs=experiment.epochs)
            raise diverged(version, experiment, draws, seen, start)
    train_loss, test_loss, w_norm = sweep.train_loss.double(), sweep.test_loss.double(), sweep.w_norm.double()
    batched = test_loss[0].clone()
    for seen in watched:
        place = 0, lambdas.index(seen.lam), sweep.epochs.index(seen.epoch)
        train_loss[place], test_loss[place], w_norm[place] = seen.train_loss, seen.test_loss, seen.w_norm
    gap = float((batched / test_loss[0] - 1).abs().nan_to_num(0).max())
    w, b = sweep.w.double(), sweep.b.double()
    return Measured(sweep.epochs, train_loss, test_loss, w_norm, w=w, b=b, gap=gap)


def as_table(
    experiment: Experiment, measured: Mapping[str, Measured], watched: Mapping[str, Sequence[Evaluation]]
) -> pl.DataFrame:
    """One row per version, seed, λ and look; of a version not yet measured, what was watched of it."""
    parts = [pl.DataFrame(schema=RESULT_SCHEMA)]
    for version in experiment.versions:
        if version in measured:
            m = measured[version]
            s, i, e = torch.cartesian_prod(*map(torch.arange, m.test_loss.shape)).T
            columns = {
                "version": pl.repeat(version, len(s), eager=True),
                "seed": torch.tensor(experiment.seed_list)[s].numpy(),
                "lam": torch.tensor(experiment.lambdas, dtype=torch.float64)[i].numpy(),
                "epoch": torch.tensor(m.epochs)[e].numpy(),
                "train_loss": m.train_loss.flatten().numpy(),
                "test_loss": m.test_loss.flatten().numpy(),
                "w_norm": m.w_norm.flatten().numpy(),
            }
        else:
            looks = watched.get(version, [])
            columns = {name: [getattr(look, name) for look in looks] for name in RESULT_SCHEMA}
        parts.append(pl.DataFrame(columns, schema=RESULT_SCHEMA))
    return pl.concat(parts)


def outcomes_of(
    version: Version, experiment: Experiment, draws: Sequence[Draw], measured: Measured
) -> Iterator[Outcome]:
    """The last look at every λ, medians over seeds, with theory computed for each seed's own draw."""
    lambdas = experiment.lambdas or ()
    expected = predicted(version, experiment, draws, lambdas)
    canonical, lr = version.canonical(torch.tensor(lambdas, dtype=torch.float64), experiment.lr)
    residues, out_of_reach = [], []
    for drawn, w in zip(draws, measured.w, strict=True):
        residues.append(theory.residue(drawn.X, canonical, lr, experiment.steps))
        out_of_reach.append(theory.out_of_reach(drawn.X, w))
    low, middle, high = _quartiles(measured.test_loss[:, :, -1])
    columns = {
        "train_loss": _median(measured.train_loss[:, :, -1]),
        "test_loss": middle,
        "test_low": low,
        "test_high": high,
        "w_norm": _median(measured.w_norm[:, :, -1]),
        "ridge": _median(expected.ridge),
        "b": _median(measured.b),
        "ridge_b": _median(expected.ridge_b),
        "residue": _median(torch.stack(residues)) * (experiment.init == "normal"),
        "out_of_reach": _median(torch.stack(out_of_reach)),
    }
    if not version.adam_bias:
        columns["theory"] = _median(expected.loss)
        columns["theory_b"] = _median(expected.b)
    if isinstance(experiment.data, Synthetic):
        columns["excess"] = _median(theory.excess_risk(experiment.data, measured.w, measured.b))
    missing = dict.fromkeys({"theory", "theory_b", "excess"} - set(columns))
    for lam, *values in zip(lambdas, *map(Tensor.tolist, columns.values()), strict=True):
        yield Outcome(version.name, lam, **missing, **dict(zip(columns, values, strict=True)))


def lambda_curve(
    version: Version, experiment: Experiment, draws: list[Draw], progress: OnProgress | None
) -> LambdaCurve | None:
    """Test loss against λ over `curve_seeds` seeds; None if gradient descent works at none of the λ.

    λ at which it cannot work are left out.
    """
    seeds = range(experiment.seed, experiment.seed + experiment.curve_seeds)
    draws = [*draws, *(draw(experiment.data, seed) for seed in seeds[len(draws) :])][: len(seeds)]
    curve = experiment.curve or ()
    inside = (lam for lam in experiment.lambdas or () if min(curve) <= lam <= max(curve) and lam > 0)
    possible = workable(version, experiment, draws, sorted({*curve, *inside}))
    if not possible:
        return None
    lambdas = torch.tensor(possible, dtype=torch.float64)
    count = len(draws) * len(possible)
    stage = Text(
        f"{version.name}: the curve, {count} trainings at once", f"{version.name}：曲线，同时训练 {count} 次"
    )
    on_epoch = functools.partial(progress, stage) if progress else None
    sweep = train_batched(version, draws, experiment, lambdas, on_epoch, every=experiment.epochs)
    expected = predicted(version, experiment, draws, possible)
    low, middle, high = _quartiles(sweep.test_loss[:, :, -1].double())
    theory_loss = torch.full_like(middle, torch.nan) if version.adam_bias else _median(expected.loss)
    columns = (lambdas, middle, low, high, theory_loss, _median(expected.ridge))
    table = {name: column.numpy() for name, column in zip(CURVE_SCHEMA, columns, strict=True)}
    best = theory.best_lam(experiment.data) if isinstance(experiment.data, Synthetic) else None
    return LambdaCurve(
        version.name,
        len(draws),
        pl.DataFrame(table, schema=CURVE_SCHEMA),
        best_lam=possible[int(middle.nan_to_num(torch.inf).argmin())],
        best_lam_theory=None if best is None else best * version.loss_scale / version.lam_factor,
    )


def workable(
    version: Version, experiment: Experiment, draws: Sequence[Draw], lambdas: Sequence[float]
) -> list[float]:
    """Those of the λ at which gradient descent on full batches converges, for every draw."""
    h = max(theory.largest_curvature(drawn.X, with_bias=not version.adam_bias) for drawn in draws)
    possible = []
    for strength in lambdas:
        lam, lr = version.canonical(strength, experiment.lr)
        if lr * (h + lam) < 2 and lr * lam < 1:
            possible.append(strength)
    return possible


@dataclass(frozen=True)
class _Predicted:
    """For S seeds and L strengths: test loss and bias of the expected w_t, b_t, and of exact ridge.

    Where Adam steps the bias, `loss` and `b` are not what is expected and must not be shown.
    """

    loss: Float64[Tensor, "S L"]
    b: Float64[Tensor, "S L"]
    ridge: Float64[Tensor, "S L"]
    ridge_b: Float64[Tensor, "S L"]


def predicted(
    version: Version, experiment: Experiment, draws: Sequence[Draw], strengths: Sequence[float]
) -> _Predicted:
    """What theory says of each draw at each λ."""
    lambdas, lr = version.canonical(torch.tensor(strengths, dtype=torch.float64), experiment.lr)
    rows = []
    for drawn in draws:
        models = theory.ridge_models(drawn, lambdas, experiment.penalize_bias)
        path = theory.expected_path(
            drawn.X,
            drawn.y,
            *version.start(drawn, experiment),
            lambdas,
            lr=lr,
            steps=[experiment.steps],
            penalize_bias=experiment.penalize_bias,
        )
        ridge = models.half_mse(drawn.X_test, drawn.y_test)
        loss = path.half_mse(drawn.X_test, drawn.y_test)[:, 0]
        rows.append((loss, path.b[:, 0], ridge, models.b))
    return _Predicted(*map(torch.stack, zip(*rows, strict=True)))


def _quartiles(values: Float64[Tensor, "S L"]) -> Float64[Tensor, "3 L"]:
    return values.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=0)


def _median(values: Float64[Tensor, "S L"]) -> Float64[Tensor, " L"]:
    return values.quantile(0.5, dim=0)


SHOWN = ("scratch", "concise", "concise-matched")
MOST_LOOKS = 20  # of one training; with more epochs the looks are further apart
MOST_WEIGHTS = 50


def slider(experiment: Experiment, first: Draw) -> pl.DataFrame:
    """Train the first seed at about 100 λ, from both starts, by three programs.

    A row for each training: version, init, lam; half_life in epochs (infinite without decay); theory, the
    test loss of the weights expected after as many steps; ridge, that of the exact minimiser; w_norm at the
    end; epoch, train_loss and test_loss at each look; weights, the first 50 at the end. λ at which gradient
    descent cannot work are left out.

    Args:
        experiment: settings, λ resolved; its own λ are among those of the grid, unless they are many.
        first: the draw of its first seed.
    """
    low = "1e-3" if isinstance(experiment.data, Synthetic) else "1e-10"
    own = experiment.lambdas or ()
    lambdas = sorted({0.0, *grid(f"{low}:100:99"), *(own if len(own) <= 8 else ())})
    return pl.concat(
        _trained(VERSIONS[name], dataclasses.replace(experiment, init=init), first, lambdas)
        for name in SHOWN
        for init in INITS
    )


def _trained(version: Version, experiment: Experiment, first: Draw, lambdas: list[float]) -> pl.DataFrame:
    lambdas = workable(version, experiment, [first], lambdas)
    if not lambdas:
        return pl.DataFrame(schema=SLIDER_SCHEMA)
    every = max(experiment.every, math.ceil(experiment.epochs / MOST_LOOKS))
    strengths = torch.tensor(lambdas, dtype=torch.float64)
    sweep = train_batched(version, [first], experiment, strengths, every=every)
    expected = predicted(version, experiment, [first], lambdas)
    batches = math.ceil(len(first.y) / experiment.batch_size)
    rate = experiment.lr * version.lr_factor * version.lam_factor
    rows = {
        "version": [version.name] * len(lambdas),
        "init": [experiment.init] * len(lambdas),
        "lam": lambdas,
        "half_life": [half_life(rate * lam) / batches if lam else math.inf for lam in lambdas],
        "theory": expected.loss[0].tolist(),
        "ridge": expected.ridge[0].tolist(),
        "w_norm": sweep.w_norm[0, :, -1].tolist(),
        "epoch": [list(sweep.epochs)] * len(lambdas),
        "train_loss": sweep.train_loss[0].tolist(),
        "test_loss": sweep.test_loss[0].tolist(),
        "weights": sweep.w[0, :, :MOST_WEIGHTS].tolist(),
    }
    went_well = sweep.test_loss[0].isfinite().all(1) & sweep.train_loss[0].isfinite().all(1)
    return pl.DataFrame(rows, schema=SLIDER_SCHEMA).filter(pl.Series(went_well.tolist()))
