"""What a decay rule is: a frozen value with one pure function of a tensor; and how tensors are laid out.

A parameter may be distributed over processes: `laid_like`, `whole` and `seen` lead from it to plain tensors.
"""

import functools
import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.units import HalfLife, HalfLives, Law

# A number or 0-dim tensor; one number for each parameter group of the optimizer; a half-life; a function
# of the step.
Strength = float | Tensor | Sequence[float] | HalfLife | HalfLives | Callable[[int], float]

# Every rule by its name, in order of definition; a subclass of Rule enters by being defined.
RULES: "dict[str, type[Rule]]" = {}


@dataclass(frozen=True)
class Step:
    """What a rule is told about one parameter at one step.

    Args:
        rate: strength times what the rule's `law` makes of lr: the fraction of w that plain decay removes.
        weight_decay: the strength at this step, the group's scale included.
        update: u, where the optimizer is about to do w <- w - lr u, up to a positive factor; only for
            rules with `needs_update`. Scratch memory: a rule may overwrite it.
        state: what the rule keeps for this parameter, made by `start`.
        lr: the group's learning rate.
        before: the weight before the step and all decay; only for rules that act `after` it.
        second_moment: the mean over all parameters of Adam's average of squared gradients, this step's
            gradient and the correction for a short average included; only for rules with
            `needs_second_moment`.
        partner: the other parameter that a rule with a `partner_of` looks at, as it was when this rule's
            turn came.
        name: the parameter's name; only for rules that keep something or have a partner.
        rows: whether each row is a weight; only for rules that go `by_rows`.
    """

    rate: float | Tensor
    weight_decay: float | Tensor
    update: Tensor | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    lr: float | Tensor = 0.0
    before: Tensor | None = None
    second_moment: float = 0.0
    partner: Tensor | None = None
    name: str = ""
    rows: bool = False


@dataclass(frozen=True)
class Rule:
    """A decay rule; subclass it as a frozen dataclass and override `decayed`.

    Args:
        weight_decay: the strength wd: a number, a 0-dim tensor, a list with one number for each parameter
            group of the optimizer, a half-life, or a function of the step (counted from 0).

    Class variables declare what the rule is and needs:
        law: how the removed fraction follows lr: "lr", "lr_relative" (lr/lr_max), "lr_squared"
            (lr²/lr_max) or "constant".
        native: what the rule is called where an optimizer brings it along: "coupled", "decoupled", None.
        coupled: the rule changes the gradient (`gradient`), not the weight.
        needs_update: the rule looks at the optimizer's update.
        needs_second_moment: the rule looks at the size of all gradients, which Adam and its kin keep.
        after: the rule acts on what the step left of the weight, and is told where it was before.
        elementwise: an element's decay depends on that element alone, so tensors come flat: large ones in
            pieces, small ones joined.
        by_rows: the rule looks at whole weights, and takes small ones also as rows of a matrix, padded with
            zeros; a number that it keeps for each comes as a column then, and `step.rows` says so.
        toward_zero: what is left of the start says whether the decay does anything; else no such warning.
        paced: a step removes the fraction `rate`, of any weight: half-lives have a meaning.
        overshoots: a rate of 1 or more takes weights beyond zero, and is refused.

    Convention: one half, times lr where the law says so: plain decay removes rate·w, rate = wd·lr.
    """

    weight_decay: Strength

    law: ClassVar[Law] = "lr"
    native: ClassVar[Literal["coupled", "decoupled"] | None] = None
    coupled: ClassVar[bool] = False
    needs_update: ClassVar[bool] = False
    needs_second_moment: ClassVar[bool] = False
    after: ClassVar[bool] = False
    elementwise: ClassVar[bool] = True
    by_rows: ClassVar[bool] = False
    toward_zero: ClassVar[bool] = True
    paced: ClassVar[bool] = True
    overshoots: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        """Enter the registry; whoever overrides `decayed` alone gets the `decay_` that calls it."""
        super().__init_subclass__(**options)
        RULES[cls.__name__] = cls
        if "decayed" in cls.__dict__ and "decay_" not in cls.__dict__:
            cls.decay_ = Rule.decay_

    def __post_init__(self) -> None:
        for f in fields(self):  # lists become tuples: a rule is a value
            if isinstance(value := getattr(self, f.name), list):
                object.__setattr__(self, f.name, tuple(value))

    @property
    def composes(self) -> bool:
        """Whether decays by the rates r and s are one decay by 1 - (1 - r)(1 - s), whatever they are.

        Then the rows of a sparse gradient can catch up with several decays at once: `decayed` gets rows and a
        column of rates, and may read nothing else of the step but its own state.
        """
        return False

    def factor(self, step: Step) -> float | Tensor:
        """Return what every weight is multiplied with, by a rule that does nothing else."""
        return 1 - step.rate

    def decayed(self, w: Tensor, step: Step) -> Tensor:
        """Return the weight after the decay alone; a new tensor."""
        return w * self.factor(step)

    def _decayed_copy(self, w: Tensor, step: Step) -> Tensor:
        """What `decay_` makes of a copy: `decayed` of a rule whose definition is in place."""
        ended = w.clone()
        self.decay_(ended, step)
        return ended

    def decay_(self, w: Tensor, step: Step) -> None:
        """Do the same in place, and bring the state up to date; override it to save memory traffic."""
        w.copy_(laid_like(self.decayed(w, step), w))

    def gradient(self, g: Tensor, w: Tensor, step: Step, out: Tensor | None = None) -> Tensor:
        """Return the gradient with the penalty's share, for a coupled rule; a new tensor, or `out`."""
        raise NotImplementedError

    def penalty(self, w: Tensor, step: Step) -> Tensor:
        """Return what a coupled rule adds to the loss: its gradient is what `gradient` adds."""
        raise NotImplementedError

    def start(self, w: Tensor, name: str) -> dict[str, Tensor]:
        """Return what the rule keeps for a parameter, made when it is attached."""
        del w, name
        return {}

    def partner_of(self, name: str) -> str | None:
        """Return the name of the parameter that the rule looks at beside this one; None for none."""
        del name
        return None

    def mismatch(self, name: str, w: Tensor, partner: Tensor) -> str | None:
        """Return why a parameter and its partner do not fit; None where they do."""
        del name, w, partner
        return None

    @property
    def multiplies(self) -> bool:
        """Whether the rule multiplies every weight with a `factor` that is the same for all."""
        own = self.needs_update or self.after or type(self).start is not Rule.start
        alike = not own and type(self).partner_of is Rule.partner_of
        return alike and (type(self).decayed, type(self).decay_) == (Rule.decayed, Rule.decay_)

    @property
    def plain(self) -> bool:
        """Whether the rule is plain decay: every weight times 1 - rate."""
        return self.multiplies and type(self).factor is Rule.factor

    @property
    def told_more(self) -> bool:
        """Whether the rule looks at more than its rate, the update and its state."""
        return self.after or self.needs_second_moment or type(self).partner_of is not Rule.partner_of

    @property
    def built_in(self) -> bool:
        """Whether the rule is one of the package's own, which need no trial."""
        return type(self).__module__.startswith("weightdecay.")

    @property
    def has_strength(self) -> bool:
        """Whether the rule is given a strength; some find or need none."""
        return next(f.init for f in fields(self) if f.name == "weight_decay")

    @property
    def shown(self) -> str:
        """The rule as it was written, without memory addresses: what a saved state is stamped with."""
        values = {f.name: shown(getattr(self, f.name)) for f in fields(self) if f.init}
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in values.items() if v is not None)})"


def shown(value: Any) -> str | None:
    """An argument of a rule, short and without memory addresses; None for nothing."""
    if value is None or isinstance(value, str):
        return None if value is None else repr(value)
    if isinstance(value, Tensor):
        return "tensor"  # its value may change while it is attached
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if isinstance(value, Mapping):
        named = all(isinstance(part, str) for part in value.values())
        return f"{{{', '.join(f'{k}: {v}' for k, v in value.items()) if named else f'{len(value)} tensors'}}}"
    if isinstance(value, HalfLife):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        return f"HalfLife({', '.join(f'{k}={v:g}' for k, v in parts.items() if v is not None)})"
    if isinstance(value, functools.partial):
        return f"partial({', '.join(str(shown(part)) for part in (value.func, *value.args))})"
    if isinstance(value, Sequence):
        return f"({', '.join(str(shown(part)) for part in value)})"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return repr(value)


@dataclass(frozen=True)
class Chain:
    """Rules that act on the same parameters, made by `chain`."""

    rules: tuple[Rule, ...]

    @property
    def shown(self) -> str:
        """The rules as they were written."""
        return f"chain({', '.join(rule.shown for rule in self.rules)})"


def chain(*rules: Rule | Chain) -> Chain:
    """Compose decay rules: each acts on what the one before it left.

        w <- r_k(... r_2(r_1(w)))

    Convention: rules that change the gradient add up; rules that look at the update come after those that
    do not, and rules that act on what the step left (`PNorm`, `FixedNorm`) last. A chain is never lowered
    to the optimizer's own decay.

    Raises:
        InputError: no rule, or something that is not a rule.

    >>> from weightdecay.rules import Cautious, Decoupled
    >>> chain(Decoupled(0.1), Cautious(0.01)).shown
    'chain(Decoupled(weight_decay=0.1), Cautious(weight_decay=0.01))'
    """
    flat: list[Rule] = []
    for rule in rules:
        flat += rules_of(rule)
    if not flat:
        raise InputError("an empty chain", "chain", "()", "give at least one rule")
    return Chain(tuple(flat))


def rules_of(rule: Rule | Chain) -> tuple[Rule, ...]:
    """The rules that one stands for.

    Raises:
        InputError: it is not a rule.
    """
    if isinstance(rule, Chain):
        return rule.rules
    if isinstance(rule, Rule):
        return (rule,)
    raise InputError("not a decay rule", "rule", repr(rule), "give, say, wd.Decoupled(0.1)")


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is distributed over a mesh of processes."""
    module = sys.modules.get("torch.distributed.tensor")  # not loaded: nothing can be
    return module is not None and isinstance(tensor, module.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a distributed tensor, on every rank; sums that are still to be made are made."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def laid_like(tensor: Tensor, w: Any) -> Tensor:
    """The same numbers laid out as w is: a whole tensor cut, every rank having all of it; shards joined."""
    if not is_sharded(w):
        return whole(tensor)
    if is_sharded(tensor):
        alike = (tensor.device_mesh, tensor.placements) == (w.device_mesh, w.placements)  # pyright: ignore[reportAttributeAccessIssue]
        return tensor if alike else tensor.redistribute(w.device_mesh, w.placements)  # pyright: ignore[reportAttributeAccessIssue]
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, w.device_mesh, w.placements, src_data_rank=None)


def seen(tensor: Tensor) -> Tensor:
    """The same memory as a plain, real tensor: of a distributed one what is on this rank.

    For rules whose elements depend on themselves alone, and for sums that are reduced afterwards.
    """
    tensor = tensor.detach() if tensor.requires_grad else tensor
    if type(tensor) is Tensor and not tensor.is_complex():  # what nearly all are
        return tensor
    if is_sharded(tensor):
        tensor = tensor.to_local()  # pyright: ignore[reportAttributeAccessIssue]
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


# From so many elements on a copy of a tensor costs more than the calls that it saves: on a CPU, elsewhere.
SMALL, SMALL_ELSEWHERE = 1 << 14, 1 << 18


def shard_of(w: Tensor) -> tuple[int, ...]:
    """Which shard of a parameter is here; copies of one shard have the same answer."""
    if not is_sharded(w):
        return ()
    mesh: Any = w.device_mesh  # pyright: ignore[reportAttributeAccessIssue]
    at = mesh.get_coordinate() or ()
    placements: Any = w.placements  # pyright: ignore[reportAttributeAccessIssue]
    return tuple(i for i, placement in zip(at, placements, strict=False) if placement.is_shard())


def total(values: Tensor, w: Tensor) -> Tensor:
    """Sums over the shard that is here, added over all shards of a parameter distributed as w is."""
    if not is_sharded(w):
        return values
    from torch.distributed.tensor import DTensor, Partial, Replicate

    placements = [Partial() if p.is_shard() else Replicate() for p in w.placements]  # pyright: ignore[reportAttributeAccessIssue]
    mesh = w.device_mesh  # pyright: ignore[reportAttributeAccessIssue]
    return DTensor.from_local(values, mesh, placements, run_check=False).full_tensor()
