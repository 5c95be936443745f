"""WD3xx: is the decay of the form that was meant, is it there, is it there once, was it chosen?"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import optim

from weightdecay.auditing.course import Course
from weightdecay.auditing.decaying import Pull, Pulls, as_number, defaults
from weightdecay.auditing.drafts import Draft
from weightdecay.auditing.reading import Live
from weightdecay.findings import Finding


def doubts(live: Live, pulls: Pulls, run: Course) -> Iterator[Draft]:
    """The findings about form."""
    pairs = by_pull(live, pulls)
    for (pull, o), names in pairs.items():
        yield from _form(pull, live.titles[o], names, _changes(run, o))
    yield from _measured(live, pairs)
    yield from _twice(live, pulls)
    for o, optimizer in enumerate(live.optimizers):
        if not pulls.rules(o):
            yield from _default(live, o, optimizer)


def by_pull(live: Live, pulls: Pulls) -> dict[tuple[Pull, int], tuple[str, ...]]:
    """The decays that occur, each with its optimizer and the names it pulls at."""
    found: dict[tuple[Pull, int], dict[str, None]] = {}
    for one in live.held:
        for place in one.places:
            for pull in pulls.of(one, place):
                found.setdefault((pull, place.optimizer), {})[one.name] = None
    return {key: tuple(names) for key, names in found.items()}


def _changes(run: Course, o: int) -> bool:
    return any(row.max() > row.min() for (optimizer, _), row in run.rows.items() if optimizer == o)


def _form(pull: Pull, title: str, names: tuple[str, ...], changes: bool) -> Iterator[Draft]:
    strength = f"weight_decay = {pull.weight_decay:g}"
    if pull.form == "sign-normalised":
        who = f"{pull.by} on {title}" if pull.attached else title
        message = (
            f"{who} decays {{n}} parameter{{|s}} through the gradient and divides by its size: "
            f"{strength} has no rate"
        )
        fix = "use a decoupled form: AdamW, decoupled_weight_decay=True, or wd.attach a rule"
        yield Draft("WD301", names, message, fix)
    elif pull.form == "none":
        message = f"{title} has {strength} for {{n}} parameter{{|s}}, and applies none{_because(pull)}"
        fix = "use another implementation, or weight_decay=0 and wd.attach(optimizer, wd.Decoupled(...))"
        yield Draft("WD304", names, message, fix)
    elif pull.form == "unknown" and not pull.wrong:
        message = f"it is not known how {title} applies {strength}{_because(pull)}"
        yield Draft("WD305", names, message, "see wd.probe; or weight_decay=0 and wd.attach a rule")
    elif pull.form == "independent" and not pull.attached and changes:
        message = f"the decay of {title} does not follow lr: {strength} goes on as lr falls by its schedule"
        yield Draft("WD305", names, message, "schedule the strength too, or use a decay that follows lr")


def _measured(live: Live, pairs: Mapping[tuple[Pull, int], tuple[str, ...]]) -> Iterator[Draft]:
    """What a probe found wrong, once for all parameters of an optimizer."""
    found: dict[tuple[int, Finding], dict[str, None]] = {}
    for (pull, o), names in pairs.items():
        held = [one.name for one in live.held if any(place.optimizer == o for place in one.places)]
        for one in pull.wrong:
            about = held if one.code == "WD307" else names
            found.setdefault((o, one), {}).update(dict.fromkeys(about))
    for (_, one), names in found.items():
        yield Draft(one.code, tuple(names), one.message, one.fix, one.severity)


def _because(pull: Pull) -> str:
    return f" ({pull.why})" if pull.why else ""


def _twice(live: Live, pulls: Pulls) -> Iterator[Draft]:
    found: dict[str, list[str]] = {}
    for one in live.held:
        for place in one.places:
            several = pulls.of(one, place)
            own = [pull for pull in several if not pull.attached]
            rules = [pull for pull in several if pull.attached]
            if own and rules:
                title, value = live.titles[place.optimizer], own[0].weight_decay
                by = f"{title}'s own weight_decay = {value:g} and {rules[0].by}"
                found.setdefault(by, []).append(one.name)
    for by, names in found.items():
        message = f"{{n}} parameter{{|s}} decay{{s|}} twice: by {by}"
        yield Draft("WD302", tuple(names), message, "set the groups' weight_decay to 0, or detach the rule")


def _default(live: Live, o: int, optimizer: optim.Optimizer) -> Iterator[Draft]:
    """A strength that is the class's own default in every group."""
    default = class_default(optimizer)
    strengths = {as_number(group.get("weight_decay")) for group in optimizer.param_groups}
    if (
        not default
        or strengths != {default}
        or any(_said(optimizer, group) for group in optimizer.param_groups)
    ):
        return
    names = [one.name for one in live.held if any(place.optimizer == o for place in one.places)]
    kind = type(optimizer).__name__
    message = f"weight_decay = {default:g} is {kind}'s default, in every group: was it chosen?"
    yield Draft("WD303", tuple(names), message, "say the number: wd.param_groups(model, weight_decay=...)")


def _said(optimizer: optim.Optimizer, group: Mapping[str, Any]) -> bool:
    """Whether a group came with a strength of its own, whatever the number.

    torch adds what a group does not say from the defaults, in their order: a strength that stands before an
    option that comes earlier there was in the group already.
    """
    order, built = list(group), list(defaults(optimizer))
    if "weight_decay" not in order or "weight_decay" not in built:
        return False
    earlier = built[: built.index("weight_decay")]
    place = order.index("weight_decay")
    return any(key in order and order.index(key) > place for key in earlier)


def class_default(optimizer: optim.Optimizer) -> float | None:
    """The `weight_decay` that the optimizer's class has when nobody says anything; None if it takes none."""
    try:
        parameter = inspect.signature(type(optimizer)).parameters.get("weight_decay")
    except (TypeError, ValueError):
        return None
    return None if parameter is None or parameter.default is parameter.empty else as_number(parameter.default)
