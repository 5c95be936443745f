"""What an attached rule does to which parameter, in words."""

from collections.abc import Sequence

from torch import Tensor, optim

from weightdecay.errors import InputError
from weightdecay.groups import Assignment
from weightdecay.hooks.plan import Plan
from weightdecay.hooks.strengths import plain
from weightdecay.rules import Rule
from weightdecay.rules.strength import GroupStrength

# Groups with more parameters are shown by what they have in common.
_MOST_LINES = 12


def described(
    title: str,
    rules: tuple[Rule, ...],
    plan: Plan,
    optimizer: optim.Optimizer,
    step: int,
    factor: float,
    late: bool,
) -> str:
    """The rule, and for every group what decays, how strongly, what does not, why, and by whose hand."""
    everything = [entry for entries in plan.assignments for entry in entries]
    decaying = [entry for entry in everything if entry.scale > 0]
    share = sum(entry.numel for entry in decaying) / max(1, sum(entry.numel for entry in everything))
    lines = [f"{title}: {len(decaying)} of {len(everything)} parameters decay, {share:.0%} of the elements"]
    if not plan.named:
        lines.append("  no names are known: state goes by group and position, roles by shape alone")
    hooks = "hooks after step" if late else "hooks around step"
    if plan.schedule:
        lines.append(f"  schedule: {plan.schedule}")
    for i, entries in enumerate(plan.assignments):
        parts = ["the optimizer's own decay" if i in plan.native else hooks]
        for rule, strengths in zip(rules, plan.strengths, strict=True):
            parts.append(_strength(rule, strengths[i], optimizer.param_groups[i]["lr"], step, factor))
        lines.append(f"  group {i}: {'; '.join(parts) if plan.targets[i] else 'nothing decays'}")
        lines += _one_by_one(entries) if len(entries) <= _MOST_LINES else _by_reason(entries)
    if count := len(plan.elsewhere):
        some = ", ".join(plan.elsewhere[:3]) + ", ..." * (count > 3)
        lines.append(f"  not in this optimizer: {count} parameter{'s' * (count > 1)} of the model ({some})")
    return "\n".join(lines)


def _strength(
    rule: Rule, strength: GroupStrength | None, lr: float | Tensor, step: int, factor: float
) -> str:
    if strength is None:
        return ""
    if not rule.has_strength:
        return rule.shown
    try:
        at = plain(strength.at(step)) * factor
    except InputError:  # a function of the step that has ended: printing goes on
        return "of unknown strength"
    if rule.coupled:
        return f"adds {at:.3g} w to the gradient"
    rate = plain(strength.rate(at, plain(lr)))
    if not rule.paced:
        return f"{type(rule).__name__} with lr·weight_decay = {rate:.3g}"
    return (
        f"removes {rate:.3g} a step {'at any lr' if strength.law == 'constant' else f'at lr = {plain(lr):g}'}"
    )


def _what(entry: Assignment) -> str:
    return "decays" if entry.scale == 1 else f"× {entry.scale:g}" if entry.scale else "no decay"


def _one_by_one(entries: Sequence[Assignment]) -> list[str]:
    width = max((len(entry.name) for entry in entries), default=0)
    return [f"    {_what(one):9} {one.name:{width}} {tuple(one.shape)}: {one.reason}" for one in entries]


def _by_reason(entries: Sequence[Assignment]) -> list[str]:
    alike: dict[tuple[str, str], list[Assignment]] = {}
    for entry in entries:
        alike.setdefault((_what(entry), entry.reason), []).append(entry)
    lines = []
    for (what, reason), same in alike.items():
        names = ", ".join(entry.name for entry in same[:3]) + ", ..." * (len(same) > 3)
        count = (
            f"{len(same)} parameter{'s' * (len(same) > 1)}, {sum(entry.numel for entry in same):,} elements"
        )
        lines.append(f"    {what:9} {count}: {reason} ({names})")
    return lines
