"""What there is to see in a run, in sentences with its own numbers."""

from collections.abc import Sequence

import polars as pl
import torch

from weightdecay.textbook.data import Draw, Synthetic
from weightdecay.textbook.record import LambdaCurve, Outcome
from weightdecay.textbook.settings import Experiment
from weightdecay.textbook.versions import VERSIONS


def explain(
    experiment: Experiment,
    first: Draw,
    results: pl.DataFrame,
    outcomes: Sequence[Outcome],
    curve: LambdaCurve | None,
    gap: float,
) -> list[str]:
    """The sentences, most striking first.

    Args:
        experiment: the settings.
        first: the draw of the first seed.
        results: every look at every training.
        outcomes: the end of each version at each λ.
        curve: test loss against λ, or None.
        gap: by how much the batched program and the plain ones differ in test loss, relatively, at most.
    """
    notes = [*_effect(outcomes), *_forgetting(experiment, first, outcomes), *_bias(experiment, outcomes)]
    if isinstance(experiment.data, Synthetic):
        notes += _best(experiment, curve)
    else:
        notes += _unreached(experiment, outcomes)
        notes.append(
            "What needs the true weights (excess risk, the best λ of the design) is left out for a table."
        )
    notes += _conventions(experiment, results)
    if len(experiment.watched) < len(experiment.lambdas or ()):
        notes.append(f"The curves show {len(experiment.watched)} of the {len(experiment.lambdas or ())} λ.")
    notes.append(
        f"The batched program repeats the plain ones: test losses differ by {gap:.1e} at most, relatively."
    )
    return notes


def _effect(outcomes: Sequence[Outcome]) -> list[str]:
    """What each λ did to the test loss, against none."""
    notes = []
    for without in (outcome for outcome in outcomes if outcome.lam == 0):
        for decayed in outcomes:
            if decayed.version != without.version or decayed.lam == 0:
                continue
            ratio = decayed.test_loss / without.test_loss
            if decayed.is_worse_than(without):
                effect = "makes the test loss WORSE"
            elif ratio < 0.995:
                by = f"{1 / ratio:,.0f} times" if ratio < 0.1 else f"by {1 - ratio:.0%}"
                effect = f"lowers the test loss {by}"
            else:
                effect = "hardly changes the test loss"
            notes.append(
                f"{without.version}: λ = {decayed.lam:.3g} {effect}: "
                f"{without.test_loss:.4g} without, {decayed.test_loss:.4g} with decay."
            )
    return notes


def _forgetting(experiment: Experiment, first: Draw, outcomes: Sequence[Outcome]) -> list[str]:
    """Why decay helps: it forgets the part of the start that no example reaches."""
    p, rank = first.X.shape[1], int(torch.linalg.matrix_rank(first.X))
    if rank == p:
        return []
    reach = f"{len(first.y)} examples reach {rank} of the {p} directions of w"
    if experiment.init == "zero":
        return [f"{reach}. Started from zero, the other {p - rank} hold nothing that decay could forget."]
    lambdas = [outcome.lam for outcome in sorted(outcomes, key=lambda outcome: outcome.test_loss)]
    helps = 0 in lambdas and lambdas[0] > 0
    notes = [
        f"{'Why: ' if helps else ''}{reach}. In the other {p - rank} no gradient ever moves the "
        "N(0, 1) start; only decay does."
    ]
    notes += [
        f"  λ = {outcome.lam:.3g}: after {experiment.steps} steps a squared length of {outcome.residue:.3g} "
        f"is expected in them; it is {outcome.out_of_reach:.3g}."
        for outcome in outcomes
        if outcome.version == outcomes[0].version
    ]
    if helps:
        notes.append('  Switch it off with init "zero": nothing to forget, and little of the effect remains.')
    return notes


def _unreached(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[str]:
    """Where so many steps of gradient descent are still far from the minimiser they go to."""
    return [
        f"{outcome.version}, λ = {outcome.lam:.3g}: {experiment.steps} steps do not get near the exact "
        f"minimiser, ridge, whose test loss is {outcome.ridge:.4g}."
        for outcome in outcomes
        if outcome.lam > 0 and outcome.test_loss > 1.5 * outcome.ridge
    ]


def _bias(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[str]:
    """Where the bias has got to, if that is not yet where ridge has it."""
    return [
        f"{outcome.version}, λ = {outcome.lam:.3g}: the bias, started at "
        f"{'N(0, 1)' if VERSIONS[outcome.version].draws_bias and experiment.init == 'normal' else 0}, is "
        f"{outcome.b:.3g} after {experiment.steps} steps (expected {outcome.theory_b:.3g}), on its way to "
        f"{outcome.ridge_b:.3g}."
        for outcome in outcomes
        if outcome.theory_b is not None
        and outcome.lam == max(o.lam for o in outcomes)
        and abs(outcome.b - outcome.ridge_b) > 0.1 * abs(outcome.ridge_b)
    ]


def _best(experiment: Experiment, curve: LambdaCurve | None) -> list[str]:
    if curve is None:
        return []
    losses = dict(curve.table.select("lam", "test_loss").iter_rows())
    least, close = (
        losses[curve.best_lam],
        [lam for lam, loss in losses.items() if loss <= 1.05 * losses[curve.best_lam]],
    )
    edge = " (the largest on the curve)" if curve.best_lam == max(losses) else ""
    notes = [
        f"{curve.version}, {curve.seeds} seeds: the median test loss is least, {least:.3g}, at "
        f"λ = {curve.best_lam:.3g}{edge}, and within 5 % of that from {min(close):.3g} to {max(close):.3g}."
    ]
    if experiment.init == "normal":
        notes[0] += f" In only {experiment.steps} steps more decay forgets more of the start."
    if curve.best_lam_theory is not None:
        notes.append(
            "Trained until nothing changes, as in the ridge column, the best λ for this design is "
            f"noise²/(n w*²), in this version λ = {curve.best_lam_theory:.3g}."
        )
    return notes


def _conventions(experiment: Experiment, results: pl.DataFrame) -> list[str]:
    """Which versions optimise the same objective, and how closely they then agree."""
    notes = []
    if {"concise", "two-optimizers"} & set(experiment.versions):
        notes.append(
            "As printed, MSELoss has no ½, so λ acts as λ/2 and lr as 2·lr, and the bias starts at N(0, 1): "
            "the concise curves differ from those from scratch. Version concise-matched gives the optimizer "
            "2λ and lr/2 instead."
        )
    if {"scratch", "concise-matched"} <= set(experiment.versions):
        keys = ["seed", "lam", "epoch"]
        scratch, matched = (results.filter(pl.col("version") == v) for v in ("scratch", "concise-matched"))
        pairs = scratch.join(matched, on=keys, suffix="_matched")
        gap = (pairs["test_loss_matched"] / pairs["test_loss"] - 1).abs().max()
        notes.append(
            f"scratch and concise-matched optimise one objective from one start: their test losses differ by "
            f"{gap:.1e} at most, relatively ({experiment.dtype})."
        )
    if "two-optimizers" in experiment.versions:
        notes.append("two-optimizers: no theory column, as Adam on the bias has no closed form.")
    return notes
