"""WD4xx: is the strength one that can do what it is for?"""

from collections.abc import Iterator

import numpy as np

from weightdecay.auditing.course import Course
from weightdecay.auditing.decaying import Pull, Pulls
from weightdecay.auditing.drafts import Draft
from weightdecay.auditing.reading import Live
from weightdecay.units.coupled import oscillates_from
from weightdecay.units.limits import FLOORS, OFF, rounded_rate
from weightdecay.units.rates import log_retention

# Less of the intended decay than this may be lost to rounding, as at the end of a schedule that goes to 0.
_LOST = 0.1
_WIDER = 'keep the weights in a wider type, or wd.attach(..., rounding="stochastic")'


def strengths(live: Live, pulls: Pulls, run: Course, steps_per_epoch: float | None) -> Iterator[Draft]:
    """The findings about strengths, over the run where it is known."""
    alike: dict[tuple[Pull, int, int, str], dict[str, None]] = {}
    for one in live.held:
        dtype = str(one.parameter.dtype).removeprefix("torch.")
        for place in one.places:
            for pull in pulls.of(one, place):
                key = pull, place.optimizer, place.group, dtype
                alike.setdefault(key, {})[one.name] = None
    merged: dict[tuple[str, str, str], tuple[Draft, dict[str, None]]] = {}
    for (pull, o, g, dtype), names in alike.items():
        for draft in _of(pull, run.rows[o, g], run.steps, steps_per_epoch, dtype):
            key = draft.code, draft.message, draft.severity or ""
            merged.setdefault(key, (draft, {}))[1].update(names)
    for draft, names in merged.values():
        yield Draft(draft.code, tuple(names), draft.message, draft.fix, draft.severity)


def _of(
    pull: Pull, lrs: np.ndarray, steps: int | None, steps_per_epoch: float | None, dtype: str
) -> Iterator[Draft]:
    removed = pull.removed(lrs)
    peak = float(lrs.max())
    if removed is None or not removed.max(initial=0) > 0:
        return
    said = f"weight_decay = {pull.weight_decay:g} at lr = {peak:g}"
    if removed.max() >= pull.limit:
        message = f"{said} takes {removed.max():.3g} of a weight in a step; {pull.limit:.3g} is too much"
        yield Draft(
            "WD401", (), message, f"give less than {pull.weight_decay * pull.limit / removed.max():.3g}"
        )
        return
    if pull.through_momentum and pull.sgd is not None:
        limit = oscillates_from(pull.sgd[0], pull.sgd[2])
        if removed.max() > limit:
            message = (
                f"{said} oscillates: lr·wd·(1 - dampening) = {removed.max():.3g}, and at most "
                f"{limit:.3g} does not at momentum = {pull.sgd[0]:g}"
            )
            fix = f"give less than {pull.weight_decay * limit / removed.max():.3g}, or decoupled decay"
            yield Draft("WD406", (), message, fix)
    yield from _precision(pull, removed, dtype, said)
    rates = pull.rates(lrs)
    if rates is not None:
        yield from _timescale(pull, rates, steps, steps_per_epoch, said)


def _precision(pull: Pull, removed: np.ndarray, dtype: str, said: str) -> Iterator[Draft]:
    floor = FLOORS.get(dtype)
    # What goes through the gradient is not rounded beside the weight.
    if floor is None or pull.at_random or pull.form == "coupled":
        return
    below = (removed <= floor) & (removed > 0)
    lost = float(removed[below].sum() / removed.sum())
    if lost <= _LOST:
        ratio = float(rounded_rate(removed, dtype).sum() / removed.sum())
        if abs(ratio - 1) > OFF:
            message = (
                f"{said} is quantised in {dtype}: about {ratio:.2f} times the decay happens, since "
                f"p·(1 - rate) is rounded to the nearest number and a step takes {removed.max():.3g} at most"
            )
            yield Draft("WD402", (), message, _WIDER, "warning" if abs(ratio - 1) > 0.2 else "info")
        return
    share = float(below.mean())
    when = "" if share == 1 else f" in {share:.0%} of the steps, with {lost:.0%} of the decay"
    message = (
        f"{said} is lost in {dtype}{when}: a step takes {removed.max():.3g} at most, and up to a rate of "
        f"{floor:.3g} p·(1 - rate) is p again"
    )
    yield Draft("WD402", (), message, _WIDER)


def _timescale(
    pull: Pull, rates: np.ndarray, steps: int | None, steps_per_epoch: float | None, said: str
) -> Iterator[Draft]:
    tau = 1 / float(rates.max())
    if tau < 10 or (steps_per_epoch is not None and tau < steps_per_epoch):
        than = "10 steps" if tau < 10 else f"an epoch of {steps_per_epoch:g}"
        message = f"{said} has a timescale 1/rate of {tau:.4g} steps, less than {than}"
        yield Draft("WD404", (), message, "give less, or a half-life in epochs")
    if steps is None or (pull.attached and pull.by.startswith("Toward(")):
        return
    kept = float(np.exp(log_retention(rates)))
    if kept > 0.9:
        message = f"{said} leaves {kept:.3g} of the initial weights after {steps:,} steps: next to nothing"
        yield Draft("WD403", (), message, "give wd.HalfLives(...) per run, or more")
    elif tau > steps:
        message = f"{said} has a timescale of {tau:.4g} steps, more than the run of {steps:,}"
        yield Draft("WD405", (), message, "keep it if that is meant; else give more")
