"""WD1xx: do the right parameters decay?"""

import re
from collections.abc import Iterator, Mapping

import torch

from weightdecay.auditing.adapters import adapter_parameters, adapters
from weightdecay.auditing.decaying import Pulls
from weightdecay.auditing.drafts import Draft
from weightdecay.auditing.reading import Held, Live
from weightdecay.groups.presets import PRESETS

_WEIGHTS = ("matrix", "convolution", "head")
_GROUPS = "wd.param_groups(model, weight_decay=...) makes groups by role"


def decisions(live: Live, pulls: Pulls, wanted: Mapping[int, float]) -> Iterator[Draft]:
    """The findings about which parameters decay, against what should."""
    trained = [one for one in live.held if one.moves and one.places]
    decays = {id(one): bool(pulls.all(one)) for one in trained}
    decaying = [one for one in trained if any(pull.form != "none" for pull in pulls.all(one))]
    yield from _small_ones(decaying, wanted)
    yield from _unasked(decaying, wanted, adapter_parameters(live))
    yield from _left_out(trained, decays, wanted)
    yield from _split(live, pulls, trained, decays, wanted)
    yield from _embeddings(decaying)
    yield from adapters(live, decaying)
    yield from _exempt(decaying, pulls, wanted)


def _small_ones(decaying: list[Held], wanted: Mapping[int, float]) -> Iterator[Draft]:
    words = {
        "WD101": ("normalization", "{n} parameter{|s} of normalisations decay{s|}"),
        "WD102": ("bias", "{n} bias{|es} decay{s|}"),
    }
    for code, (role, message) in words.items():
        names = [one.name for one in decaying if one.role == role and _scale(wanted, one) == 0]
        if names:
            yield Draft(code, tuple(names), message, f"{_GROUPS}; or say groups='all'")


def _unasked(decaying: list[Held], wanted: Mapping[int, float], told: set[int]) -> Iterator[Draft]:
    """What should not decay and has no finding of its own, by role."""
    own = ("normalization", "bias", "embedding")
    mine = [one for one in decaying if one.role not in own and _scale(wanted, one) == 0]
    mine = [one for one in mine if one.candidate.exempt is None and id(one.parameter) not in told]
    for role in dict.fromkeys(one.role for one in mine):
        names = tuple(one.name for one in mine if one.role == role)
        if role == "other":
            message, fix = (
                "{n} parameter{|s} that {is|are} no weight matri{x|ces} decay{s|}",
                f"{_GROUPS}; or say groups='all'",
            )
        else:
            message = f"{{n}} {role} parameter{{|s}} decay{{s|}} and should not, by the groups of the audit"
            fix = "give the optimizer these groups, or the audit those of the optimizer"
        yield Draft("WD108", names, message, fix)


def _left_out(
    trained: list[Held], decays: Mapping[int, bool], wanted: Mapping[int, float]
) -> Iterator[Draft]:
    if not any(decays.values()):
        return  # no decay at all is a choice
    for role in _WEIGHTS:
        mine = [one for one in trained if one.role == role and (_scale(wanted, one) or 0) > 0]
        left = [one.name for one in mine if not decays[id(one)]]
        if left:
            others = "others of this role do" if len(left) < len(mine) else "parameters of other roles do"
            message = f"{{n}} {role} parameter{{|s}} do{{es|}} not decay, and {others}"
            yield Draft("WD103", tuple(left), message, f"{_GROUPS}; or ignore what is left out on purpose")


def _split(
    live: Live,
    pulls: Pulls,
    trained: list[Held],
    decays: Mapping[int, bool],
    wanted: Mapping[int, float],
) -> Iterator[Draft]:
    """One role of one optimizer, of which some decay and some do not, and nothing says why."""
    parts: dict[tuple[int, str], list[Held]] = {}
    for one in trained:
        alone = len(one.places) == 1 and one.candidate.exempt is None and not _named(live, pulls, one)
        if alone and _scale(wanted, one) != 0:
            parts.setdefault((one.places[0].optimizer, one.role), []).append(one)
    for (o, role), several in parts.items():
        left = [one.name for one in several if not decays[id(one)]]
        if 0 < len(left) < len(several) and role != "other":
            others = f"the other {len(several) - len(left)} of {live.titles[o]}"
            message = f"{{n}} {role} parameter{{|s}} do{{es|}} not decay, unlike {others}"
            fix = "decide by role, not by words in names; write an exception as a group of its own"
            yield Draft("WD104", tuple(left), message, fix)


def _named(live: Live, pulls: Pulls, one: Held) -> bool:
    """Whether the group of a parameter has a name that somebody wrote for it."""
    usual = {group.label for groups in PRESETS.values() for group in groups}
    label = pulls.label(one, one.places[0]) or live.group(one.places[0]).get("name")
    plain = re.sub(r" \(\d+\)$|, exempt by the model$", "", str(label))
    return label is not None and plain not in usual


def _embeddings(decaying: list[Held]) -> Iterator[Draft]:
    names, untouched, rows = [], 0, 0
    for one in decaying:
        if one.role != "embedding":
            continue
        counts = _rows_without_gradient(one)
        if counts == 0:
            continue
        names.append(one.name)
        if counts is not None:
            untouched, rows = untouched + counts, rows + one.parameter.shape[0]
    if names:
        seen = f" (now {untouched:,} of {rows:,} rows)" if rows else ""
        message = f"{{n}} embedding{{|s}} decay{{s|}}, rows without gradient{seen} as well"
        yield Draft("WD105", tuple(names), message, "leave embeddings out, or accept it for rare tokens")


def _rows_without_gradient(one: Held) -> int | None:
    """How many rows of the gradient are zero; None where there is none to look at."""
    gradient = one.parameter.grad
    if gradient is None or gradient.is_sparse or gradient.is_meta or hasattr(gradient, "_local_tensor"):
        return None
    with torch.no_grad():
        return int((gradient == 0).flatten(1).all(1).sum())


def _exempt(decaying: list[Held], pulls: Pulls, wanted: Mapping[int, float]) -> Iterator[Draft]:
    by_reason: dict[str, list[str]] = {}
    for one in decaying:
        reason = one.candidate.exempt
        meant = (_scale(wanted, one) or 0) > 0 or "although the model exempts it" in pulls.reason(
            one, one.places[0]
        )
        if reason is not None and not meant:
            by_reason.setdefault(reason.removeprefix("the model exempts it: "), []).append(one.name)
    for reason, names in by_reason.items():
        message = f"{{n}} parameter{{|s}} decay{{s|}} although the model exempts {{it|them}} ({reason})"
        yield Draft(
            "WD107",
            tuple(names),
            message,
            "wd.param_groups heeds the model; to overrule it, Group(force=True)",
        )


def _scale(wanted: Mapping[int, float], one: Held) -> float | None:
    """What should be: a scale, or None where there is no opinion."""
    return wanted.get(id(one.parameter))
