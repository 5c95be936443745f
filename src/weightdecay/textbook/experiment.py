"""Run the experiment: train what is asked for, alone and batched, and set theory beside it."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

import torch

from weightdecay.errors import InputError, Interrupted
from weightdecay.ridge import LeastLoo, factor, least_loo
from weightdecay.sweeps import LinearSweep
from weightdecay.textbook import theory
from weightdecay.textbook.compare import OnProgress, lambda_curve, outcomes_of
from weightdecay.textbook.data import Draw, Synthetic, draw
from weightdecay.textbook.explain import explain
from weightdecay.textbook.limits import RUNAWAY, check_lr, diverged, start_loss
from weightdecay.textbook.measure import Measured, as_table, merge
from weightdecay.textbook.record import Evaluation, Outcome, Run
from weightdecay.textbook.settings import Experiment
from weightdecay.textbook.slider import slider
from weightdecay.textbook.versions import VERSIONS, Version, train_batched, train_plain
from weightdecay.units import grid

OnEvaluation = Callable[[Evaluation], None]


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
    for name in experiment.versions:
        check_lr(VERSIONS[name], experiment, draws, experiment.lambdas or ())
    watched: dict[str, list[Evaluation]] = {}
    measured: dict[str, Measured] = {}
    outcomes: list[Outcome] = []
    try:
        for name in experiment.versions:
            watched[name] = []
            _watch(VERSIONS[name], experiment, draws[0], watched[name], on_evaluation)
        for name in experiment.versions:
            sweep = _batched(VERSIONS[name], experiment, draws, on_progress)
            measured[name] = merge(experiment, sweep, watched[name])
        for name in experiment.versions:
            outcomes += outcomes_of(VERSIONS[name], experiment, draws, measured[name])
        first = VERSIONS[experiment.versions[0]]
        curve = lambda_curve(first, experiment, draws, on_progress) if experiment.curve else None
        positions = slider(experiment, draws[0]) if experiment.curve else None
    except KeyboardInterrupt as interrupt:
        notes.append("interrupted: only what was computed until then is here")
        results = as_table(experiment, measured, watched)
        partial = Run(experiment, results, tuple(outcomes), notes=tuple(notes), complete=False)
        raise Interrupted(partial) from interrupt
    if experiment.curve and curve is None:
        notes.append(f"No curve over λ: at lr = {experiment.lr:g} gradient descent works at none of its λ.")
    results = as_table(experiment, measured, watched)
    notes += explain(experiment, draws[0], results, outcomes, curve, max(m.gap for m in measured.values()))
    return Run(experiment, results, tuple(outcomes), curve, tuple(notes), slider=positions)


def resolved(experiment: Experiment) -> Experiment:
    """The settings with λ and the curve filled in, as the record of the run will have them.

    Raises:
        InputError: a setting cannot be used.
    """
    return _resolved(experiment, draw(experiment.data, experiment.seed_list[0]))[0]


def _resolved(experiment: Experiment, first: Draw) -> tuple[Experiment, list[str]]:
    """The settings with λ and curve filled in, and for a table a note on the λ of least leave-one-out error.

    λ is 0 and 3 as in the textbook; for a table 0 and the λ of least exact leave-one-out error.
    """
    if isinstance(experiment.data, Synthetic):
        lambdas, curve, notes = (0.0, 3.0), grid("1e-3:100:61"), []
    else:
        best = _least_loo(first, needed=experiment.lambdas is None)
        lambdas, curve = (0.0, best.lam if best else 0.0), grid("1e-10:100:73")
        notes = [] if best is None else [_loo_note(best, first)]
    if experiment.lambdas is not None:
        lambdas = experiment.lambdas
    if experiment.curve is not None:
        curve = experiment.curve
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


def _loo_note(best: LeastLoo, first: Draw) -> str:
    edge = " (an edge of its grid: the least may lie beyond)" if best.at_edge else ""
    ridge = theory.ridge_models(first, torch.tensor([best.lam], dtype=torch.float64))
    test_loss = float(ridge.half_mse(first.X_test, first.y_test))
    return (
        f"λ = {best.lam:.3g}{edge} has the least exact leave-one-out error on the training part of seed "
        f"{first.seed}: half mean squared error {best.error / 2:.4g}. Exact ridge there has a test loss of "
        f"{test_loss:.4g}."
    )


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


def _batched(
    version: Version, experiment: Experiment, draws: list[Draw], progress: OnProgress | None
) -> LinearSweep:
    lambdas = torch.tensor(experiment.lambdas, dtype=torch.float64)
    stage = f"{version.name}: {len(draws) * len(lambdas)} trainings at once"
    on_epoch = functools.partial(progress, stage) if progress else None
    sweep = train_batched(version, draws, experiment, lambdas, on_epoch)
    for s, one in enumerate(draws):
        start = start_loss(version, experiment, one)
        ran_away = ~(sweep.train_loss[s] <= RUNAWAY * start)
        if bool(ran_away.any()):
            i, look = ran_away.nonzero()[0].tolist()
            losses = [float(x[s, i, look]) for x in (sweep.train_loss, sweep.test_loss, sweep.w_norm)]
            lam, epoch = float(lambdas[i]), sweep.epochs[look]
            seen = Evaluation(version.name, one.seed, lam, epoch, *losses, epochs=experiment.epochs)
            raise diverged(version, experiment, draws, seen, start)
    return sweep
