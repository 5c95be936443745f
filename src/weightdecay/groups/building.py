"""Groups as optimizers take them: `param_groups` for one optimizer, `split` for several."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from weightdecay.errors import InputError
from weightdecay.groups.assignment import Assignment, Group, assign, checked_strength, resolve


def param_groups(
    model: nn.Module | Iterable[Any],
    weight_decay: float = 0.1,
    groups: str | Group | Sequence[str | Group] = "matrices",
    *,
    within: Iterable[Any] | None = None,
) -> list[dict[str, Any]]:
    """Make the parameter groups of a torch optimizer: every trainable parameter exactly once.

    Args:
        model: a module, or (name, parameter) pairs where there is none (see `weightdecay.groups.assign`).
        weight_decay: what the optimizer calls so, a finite number of 0 or more.
        groups: a preset's name ("matrices", "all", "no-bias", "gpt", "vit"), one `Group` (what it selects
            decays, nothing else does), or a list of groups and presets' names that covers everything.
        within: only these parameters: one part of what `split` returns.

    Convention: each group's weight_decay is weight_decay × scale. First match wins; a tied parameter is
    there once, under its first name, and embedding and output weight in one is a head; frozen parameters
    stay out; what the model exempts (`no_weight_decay()`, `_no_weight_decay`) gets 0 unless its group has
    force=True. Nothing in the model changes.

    Returns:
        Dicts in the order of the groups, none empty, with params ((name, parameter) pairs, from which the
        optimizer keeps `param_names`), weight_decay, name (the group's label) and the group's options.

    Raises:
        InputError: as `assign`, and for a strength that is negative or not finite.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    >>> optimizer = torch.optim.AdamW(param_groups(model, weight_decay=0.1), lr=3e-4)
    >>> for group in optimizer.param_groups:
    ...     print(group["name"], group["weight_decay"], group["param_names"])
    decay 0.1 ['0.weight', '2.weight']
    no decay 0.0 ['0.bias', '1.weight', '1.bias', '2.bias']

    Source: torch.optim's per-parameter options.
    """
    strength = checked_strength(weight_decay, "weight_decay")
    parts: dict[tuple[int, bool], list[Assignment]] = {}
    for record in assign(model, groups, within=within):
        parts.setdefault((record.rank, record.scale != record.group.scale), []).append(record)
    ordered = [parts[key] for key in sorted(parts)]
    titles = [
        f"{part[0].label}, exempt by the model" if part[0].scale != part[0].group.scale else part[0].label
        for part in ordered
    ]
    return [
        {
            "params": [(record.name, record.parameter) for record in part],
            "weight_decay": strength * part[0].scale,
            "name": name,
            **part[0].group.options,
        }
        for part, name in zip(ordered, _unique(titles), strict=True)
    ]


def split(
    model: nn.Module | Iterable[Any], parts: Mapping[str, Group | str | Sequence[Group | str]]
) -> dict[str, list[tuple[str, Tensor]]]:
    """Divide the trainable parameters among several optimizers, each parameter to exactly one.

    Args:
        model: a module, or (name, parameter) pairs where there is none.
        parts: for each part's name a `Group`, a list of groups, or "rest" for what no group selects. Parts
            are tried in their order; "rest" comes last wherever it stands, and may stand in a list:
            `{"adamw": [wd.Group(name="lm_head.*"), "rest"], "muon": wd.Group(role="matrix")}`.

    Convention: only which parameter goes where. Strengths belong to
    `param_groups(model, weight_decay, within=part)`.

    Returns:
        For each part (name, parameter) pairs in the model's order, as any torch optimizer takes them.

    Raises:
        InputError: parameters in no part and no "rest", a group that selects nothing or has a strength or
            options, two rests, bad input.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> halves = split(model, {"muon": Group(role="matrix"), "adamw": "rest"})
    >>> {part: [name for name, _ in pairs] for part, pairs in halves.items()}
    {'muon': ['0.weight', '2.weight'], 'adamw': ['0.bias', '2.bias']}

    Source: the recipe of Muon, which is for matrices only and leaves the rest to AdamW.
    """
    groups, homes = _read_parts(parts)
    placed = [(group, f"parts[{home!r}]") for group, home in zip(groups, homes, strict=True)]
    remedy = 'name a part for them, or make one part "rest"'
    records = resolve(model, placed, ("part", "parts", remedy))
    divided: dict[str, list[tuple[str, Tensor]]] = {name: [] for name in parts}
    for record in records:
        divided[homes[record.rank]].append((record.name, record.parameter))
    return divided


def _unique(names: list[str]) -> list[str]:
    """Lightning refuses two groups of one name."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def _read_parts(parts: Any) -> tuple[list[Group], list[str]]:
    """The groups in order, that for the rest last, and the part that each belongs to."""
    if not isinstance(parts, Mapping) or not parts or not all(isinstance(name, str) for name in parts):
        remedy = 'give a dict such as {"muon": wd.Group(role="matrix"), "adamw": "rest"}'
        raise InputError("no parts by name", "parts", repr(parts), remedy)
    groups: list[Group] = []
    homes: list[str] = []
    rest: str | None = None
    for name, wanted in parts.items():
        for item in wanted if isinstance(wanted, (list, tuple)) else [wanted]:
            if isinstance(item, Group):
                if item.scale != 1 or item.options:
                    remedy = "give the strength to param_groups(model, weight_decay, within=part)"
                    raise InputError("split only divides", f"parts[{name!r}]", repr(item), remedy)
                groups.append(item)
                homes.append(name)
            elif item != "rest":
                raise InputError(
                    "neither a Group nor 'rest'", f"parts[{name!r}]", repr(item), "wd.Group(...)"
                )
            elif rest is not None:
                raise InputError("two parts for the rest", "parts", f"{rest!r}, {name!r}", "keep one")
            else:
                rest = name
        if isinstance(wanted, (list, tuple)) and not wanted:
            raise InputError("an empty part", f"parts[{name!r}]", "[]", "give a Group or leave the part out")
    if rest is None:
        return groups, homes
    return [*groups, Group(name="*", label="rest", optional=True)], [*homes, rest]
