"""`Group` and `assign`: ordered groups over parameters, first match wins, with the reason for each."""

import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from weightdecay.arguments import class_name, closest, function, no_number
from weightdecay.errors import InputError
from weightdecay.groups.before_norm import Following, followed_by_norm
from weightdecay.groups.inventory import ROLES, Candidate, inventory

_CRITERIA = ("role", "module", "name", "where", "before_norm")
_TAKEN = ("params", "param_names", "weight_decay", "name")


@dataclass(frozen=True, repr=False)
class Group:
    """One selector: which parameters, and how strongly they decay.

    A parameter is selected when every criterion that is given holds; at least one has to be given. Groups
    are tried in order and the first that selects a parameter has it.

    Args:
        role: what the parameter is for, one or several of "bias", "normalization", "embedding", "head",
            "convolution", "matrix", "other". Decided from the type of the module that holds it, else
            from what the module's forward does with it (as torch.fx sees it), else from its name and shape.
            "head" is a weight that is also an embedding (tied), that `get_output_embeddings()`
            returns, or that you name: `Group(role="head", name="classifier.weight")`.
        module: class (or classes) of the module that itself holds the parameter: `nn.Linear`, not the block
            around it.
        name: pattern (or patterns) for the whole parameter name: a glob (`"layers.*.weight"`, where `*`
            also passes dots), or after "re:" a regular expression. Names are those of
            `model.named_parameters()`, with or without what DistributedDataParallel and torch.compile add.
        where: a function of (name, parameter) that answers True or False.
        before_norm: True for weights of layers (linear, convolution, embedding) whose output only goes to a
            normalisation, directly or through steps that keep the scale (identity, dropout, reshapes,
            products, ReLU, pooling): the norm of such a weight (together with its layer's bias, if any)
            does not change what the model computes in training. False for all others, biases included.
            Read from torch.fx and from the order of nn.Sequential; no data pass through.
        scale: times the strength; 0 for no decay.
        options: further optimizer options of these parameters, such as `{"lr": 1e-4}`.
        label: the group's printed name; made from the criteria when left out.
        optional: whether the group may select nothing; otherwise that is an error (a misspelt name). The
            groups of presets are optional.
        force: decay even what the model exempts (`_no_weight_decay`, `no_weight_decay()`); by default the
            model's word holds and such a parameter gets scale 0.

    Convention: the strength of a parameter is weight_decay × scale, in whatever convention the optimizer
    or rule has. Layer-wise strengths are a list:
    `[wd.Group(name=f"blocks.{i}.*", role="matrix", scale=0.75 ** (11 - i)) for i in range(12)]`.

    Raises:
        InputError: no criterion, an unknown role, a pattern that does not compile, a scale that is negative
            or not finite, options that are not a mapping or that the group itself sets.

    >>> Group(role=("bias", "normalization"), scale=0)
    Group(role=('bias', 'normalization'), scale=0.0)
    >>> Group(name="layers.*.weight", options={"lr": 1e-4}).label
    'layers.*.weight'

    Source: the ordered patterns of torchtitan's `components/optimizer`, with roles in place of most names.
    """

    role: str | tuple[str, ...] | None = None
    module: type | tuple[type, ...] | None = None
    name: str | tuple[str, ...] | None = None
    where: Callable[[str, Tensor], bool] | None = None
    before_norm: bool | None = None
    scale: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    label: str | None = None
    optional: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        for key in ("role", "module", "name"):
            if isinstance(getattr(self, key), list):
                object.__setattr__(self, key, tuple(getattr(self, key)))
        _check_criteria(self)
        object.__setattr__(self, "scale", checked_strength(self.scale, "scale"))
        object.__setattr__(self, "options", _checked_options(self.options))
        if self.label is None:
            object.__setattr__(self, "label", _default_label(self))
        elif not isinstance(self.label, str) or not self.label:
            raise InputError("not a label", "label", repr(self.label), "give a short text")

    def __repr__(self) -> str:
        shown = []
        for spec in fields(self):
            value, default = getattr(self, spec.name), {} if spec.name == "options" else spec.default
            if value != default and not (spec.name == "label" and value == _default_label(self)):
                shown.append(f"{spec.name}={_shown(value)}")
        return f"Group({', '.join(shown)})"

    def takes_role(self, role: str, parameter: Tensor) -> bool:
        """Whether a parameter of this role is meant; with a name, a weight matrix may be called a head."""
        if self.role is None or role in several(self.role):
            return True
        return self.name is not None and self.names_a_head(role, parameter)

    def names_a_head(self, role: str, parameter: Tensor) -> bool:
        """Whether this group calls a weight of another role a head."""
        mine = several(self.role)
        named = self.name is not None and "head" in mine and role not in mine
        return named and role in ("matrix", "convolution", "embedding") and parameter.ndim >= 2

    def takes_name(self, name: str) -> bool:
        """Whether one of the patterns (or no pattern) fits a name: a glob, or after "re:" an expression."""
        for pattern in several(self.name):
            if pattern.startswith("re:"):
                fits = re.fullmatch(pattern[3:], name) is not None
            else:
                fits = fnmatchcase(name, pattern)
            if fits:
                return True
        return self.name is None


def several(value: Any) -> tuple:
    """One or several values, or none, as a tuple."""
    return () if value is None else value if isinstance(value, tuple) else (value,)


def checked_strength(value: Any, where: str) -> float:
    """A finite number of at least 0, as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise no_number(repr(value), where, "give a finite number of 0 or more")
    if not math.isfinite(value) or value < 0:
        raise InputError("not a strength", where, repr(value), "give a finite number of 0 or more")
    return float(value)


def _check_criteria(group: Group) -> None:
    if all(getattr(group, key) is None for key in _CRITERIA):
        raise InputError(
            "a group without a criterion",
            "Group",
            None,
            f"give one of {', '.join(_CRITERIA)}; Group(name='*') selects everything",
        )
    for key, kind, what in (("role", str, "a role"), ("module", type, "a class"), ("name", str, "a pattern")):
        value = getattr(group, key)
        wrong = next((item for item in several(value) if not isinstance(item, kind)), None)
        if wrong is not None or value == ():
            raise InputError(
                f"not {what}", key, repr(value if wrong is None else wrong), f"give {what} or several"
            )
    for role in several(group.role):
        if role not in ROLES:
            best = ", ".join(closest(role, ROLES, len(ROLES)))
            raise InputError("no such role", "role", repr(role), f"there are {best}")
    for kind in several(group.module):
        if not issubclass(kind, nn.Module):
            raise InputError(
                "not a module's class", "module", kind.__name__, "give a class such as nn.Linear"
            )
    for pattern in several(group.name):
        try:
            re.compile(pattern[3:] if pattern.startswith("re:") else "")
        except re.error as error:
            raise InputError(
                f"not a regular expression ({error})", "name", repr(pattern), "mend it, or use a glob"
            ) from None
    if group.where is not None:
        function(group.where, "where", "give a function of (name, parameter)")
    for key in ("before_norm", "optional", "force"):
        value = getattr(group, key)
        if not isinstance(value, bool) and not (value is None and key == "before_norm"):
            raise InputError("neither True nor False", key, repr(value), "give True or False")


def _checked_options(options: Any) -> dict[str, Any]:
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise InputError("not options by name", "options", repr(options), "give a dict such as {'lr': 1e-4}")
    taken = [key for key in _TAKEN if key in options]
    if taken:
        remedy = "use scale for the strength and label for the name"
        raise InputError("an option that the group sets itself", "options", repr(taken[0]), remedy)
    return dict(options)


def _default_label(group: Group) -> str:
    parts = ["/".join(several(group.role)), "/".join(kind.__name__ for kind in several(group.module))]
    parts += ["|".join(several(group.name)), _shown(group.where) if group.where is not None else ""]
    if group.before_norm is not None:
        parts.append("before a normalisation" if group.before_norm else "not before a normalisation")
    return ", ".join(part for part in parts if part)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_shown(item) for item in value)}{',' if len(value) == 1 else ''})"
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return value.__qualname__.rsplit("<locals>.", 1)[-1]
    return repr(value)


def two_or_more_axes(name: str, parameter: Tensor) -> bool:  # noqa: ARG001 - the signature of `where`
    """Whether a parameter is at least a matrix by its shape."""
    return parameter.ndim >= 2


PRESETS: dict[str, tuple[Group, ...]] = {
    "matrices": (
        Group(role=("matrix", "convolution", "head"), label="decay", optional=True),
        Group(
            role=("bias", "normalization", "embedding", "other"), scale=0.0, label="no decay", optional=True
        ),
    ),
    "all": (Group(name="*", label="decay", optional=True),),
    "no-bias": (
        Group(role="bias", scale=0.0, label="no decay", optional=True),
        Group(name="*", label="decay", optional=True),
    ),
    "gpt": (
        Group(where=two_or_more_axes, label="decay", optional=True),
        Group(name="*", scale=0.0, label="no decay", optional=True),
    ),
    "vit": (
        Group(role="bias", scale=0.0, label="no decay (biases)", optional=True),
        Group(where=two_or_more_axes, label="decay", optional=True),
        Group(name="*", scale=0.0, label="no decay", optional=True),
    ),
}


def preset(name: str = "matrices") -> tuple[Group, ...]:
    """The groups that a preset's name stands for; print them, or put your own before them.

    Args:
        name: one of
            "matrices": weights of linear and recurrent layers, attention and convolutions decay, and so does
            an output head, tied to an embedding or not; biases, normalisations, embeddings and all else
            (position embeddings, tokens, layer scales, `A_log`) do not;
            "all": every parameter decays;
            "no-bias": every parameter but biases;
            "gpt": every parameter with two or more axes decays, embeddings too, as in nanoGPT;
            "vit": as in timm and DeiT: all but biases and what has at most one axis.

    Convention: scales, 1 or 0, that multiply the strength. In every preset, what the model itself exempts
    (`no_weight_decay()`, `_no_weight_decay`) does not decay: position embeddings and class tokens of timm's
    vision transformers, for example.

    Raises:
        InputError: there is no such preset.

    >>> for group in preset("no-bias"):
    ...     print(group)
    Group(role='bias', scale=0.0, label='no decay', optional=True)
    Group(name='*', label='decay', optional=True)

    Source: nanoGPT `model.py::configure_optimizers`; timm `optim/_param_groups.py`.
    """
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]
    best = ", ".join(closest(str(name), PRESETS, len(PRESETS)))
    raise InputError("no such preset", "preset", repr(name), f"there are {best}")


_REST = Group(name="*", scale=0.0, label="not selected", optional=True)


@dataclass(frozen=True)
class Assignment:
    """What one parameter was given: `parameter` is the tensor itself, `group` the selector that took it.

    `names` has every name of a tied parameter (and those without what wrappers add), `label` the group's
    label, `scale` the factor on the strength (0 where the model exempts the parameter), `reason` says why
    it has its role and, where that is not the group's doing, its scale; `rank` is the group's position in
    the list.
    """

    name: str
    shape: tuple[int, ...]
    numel: int
    role: str
    label: str
    scale: float
    reason: str
    names: tuple[str, ...] = field(repr=False)
    parameter: Tensor = field(repr=False, compare=False)
    group: Group = field(repr=False, compare=False)
    rank: int = field(repr=False, compare=False)


def assign(
    model: nn.Module | Iterable[Any],
    groups: str | Group | Sequence[str | Group] = "matrices",
    *,
    within: Iterable[Any] | None = None,
) -> tuple[Assignment, ...]:
    """Say for every trainable parameter which group has it, with which scale, and why.

    Args:
        model: a module; or (name, parameter) pairs, as `model.named_parameters()` gives, when there is no
            module. Then roles are guessed from names and shapes and the reason says so. A name may be None.
        groups: a preset's name, one `Group`, or a list of these. One group alone: its parameters decay, no
            others do. A list has to cover every parameter; end it with `Group(name="*", scale=...)` or a
            preset's name for what remains.
        within: only these parameters, as (name, parameter) pairs or parameters; the others stay out. Groups
            are still held against the whole model: one that selects nothing within is no error.

    Convention: first match wins; a tied parameter appears once, under the first name in the model's order,
    and is selected by any of its names or layers; embedding and output weight in one is a head. Frozen
    parameters stay out. Nothing in the model changes.

    Returns:
        One record per parameter, in the model's order.

    Raises:
        InputError: a group that selects nothing (with the closest names) or only what earlier groups took
            (one for frozen parameters is fine, and a last `Group(name="*")`), parameters that no group of a
            list selects, one group alone whose scale is 0, bad input.

    >>> for parameter in assign(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))):
    ...     print(parameter.name, parameter.role, parameter.label, parameter.scale)
    0.weight matrix decay 1.0
    0.bias bias no decay 0.0
    1.weight normalization no decay 0.0
    1.bias bias no decay 0.0

    Source: torchtitan's param groups (first match wins, an unmatched pattern raises, all covered).
    """
    remedy = "end the list with Group(name='*', scale=...) or a preset's name"
    return resolve(model, _ordered(groups), ("group", "groups", remedy), within)


def resolve(
    model: Any, placed: list[tuple[Group, str]], left_over: tuple[str, str, str], within: Any = None
) -> tuple[Assignment, ...]:
    """`assign` for groups that come with their place in the call, for errors.

    Args:
        model: a module or pairs.
        placed: the groups in order, each with its place.
        left_over: how to say that parameters remain: in no what, the argument, what to do.
        within: as in `assign`.
    """
    # Iterators are read once; what is no list of pairs goes on to the check that names it.
    source = list(model) if hasattr(model, "__next__") else model
    trainable = inventory(source)
    counted = None if within is None else _identities(within, trainable)
    following: Following | None = None  # what is followed by a normalisation, read where a group asks
    for group, _ in placed:
        if group.before_norm is not None and following is None:
            if not isinstance(source, nn.Module):
                remedy = "give the model, or select these layers by name"
                raise InputError("no model to read the order of layers from", "before_norm", None, remedy)
            following = followed_by_norm(source)
    following = following or Following()
    ranks: list[int | None] = []
    left: list[str] = []
    records: list[Assignment] = []
    for candidate in trainable:
        rank = None
        for position, (group, _) in enumerate(placed):
            if selects(group, candidate, following):
                rank = position
                break
        ranks.append(rank)
        if counted is None or id(candidate.parameter) in counted:
            if rank is None:
                left.append(candidate.name)
            else:
                records.append(_record(candidate, rank, placed[rank][0], following))
    for rank, (group, where) in enumerate(placed):
        rest = group.name == "*" and rank == len(placed) - 1  # for what remains, and that may be nothing
        if not (group.optional or rest or rank in ranks):
            _check_unused(group, where, placed, trainable, ranks, following, source)
    if left:
        kind, where, remedy = left_over
        plural = "" if len(left) == 1 else "s"
        raise InputError(f"{len(left)} parameter{plural} in no {kind}", where, _some(left), remedy)
    return tuple(records)


def table(assignments: Iterable[Assignment]) -> str:
    """The records as aligned lines of text: name, shape, role, group, scale, reason.

    >>> print(table(assign(nn.Linear(4, 3))))
    weight  (3, 4)  matrix  decay     × 1  weight of Linear
    bias    (3,)    bias    no decay  × 0  bias of Linear
    """
    rows = [(r.name, str(r.shape), r.role, r.label, f"× {r.scale:g}", r.reason) for r in assignments]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _identities(within: Any, trainable: list[Candidate]) -> dict[int, str]:
    """The identities of the parameters within, each with its name."""
    if isinstance(within, (str, Tensor)) or not isinstance(within, Iterable):
        remedy = "give a part that split made, or (name, parameter) pairs"
        raise InputError("not parameters", "within", type(within).__name__, remedy)
    wanted: dict[int, str] = {}
    for item in within:
        name, tensor = item if isinstance(item, tuple) and len(item) == 2 else ("a parameter", item)
        wanted[id(tensor)] = str(name)
    strange = dict(wanted)
    for candidate in trainable:
        strange.pop(id(candidate.parameter), None)
    if strange or not wanted:
        remedy, names = "give a part that split made of this same model", _some([*strange.values()]) or "[]"
        raise InputError("not trainable parameters of the model", "within", names, remedy)
    return wanted


def _ordered(groups: Any) -> list[tuple[Group, str]]:
    """The groups one by one, each with its place in the argument; after one group alone, the rest."""
    if isinstance(groups, Group):
        if groups.scale == 0:
            remedy = "follow it with a preset: [group, 'matrices']"
            raise InputError("one group alone decays nothing with scale 0", "groups", repr(groups), remedy)
        return [(groups, "groups"), (_REST, "groups")]
    if not isinstance(groups, Sequence) or not (groups or isinstance(groups, str)):
        remedy = "give a preset's name, a Group or a list of these"
        raise InputError("no groups", "groups", repr(groups), remedy)
    ordered: list[tuple[Group, str]] = []
    for position, item in enumerate([groups] if isinstance(groups, str) else groups):
        where = "groups" if item is groups else f"groups[{position}]"
        if not isinstance(item, (str, Group)):
            raise InputError("neither a Group nor a preset's name", where, repr(item), "wd.Group(...)")
        ordered += [(group, where) for group in (preset(item) if isinstance(item, str) else (item,))]
    return ordered


def selects(group: Group, candidate: Candidate, following: Following) -> bool:
    """Return whether every criterion of a group holds for a parameter."""
    parameter, kinds = candidate.parameter, group.module
    return (
        group.takes_role(candidate.role, parameter)
        and (kinds is None or any(isinstance(owner, kinds) for owner in candidate.owners))
        and (group.name is None or any(group.takes_name(name) for name in candidate.names))
        and group.before_norm in (None, id(parameter) in following.yes)
        and (group.where is None or _answer(group.where, candidate))
    )


def _answer(where: Any, candidate: Candidate) -> bool:
    remedy = "write a function of (name, parameter) that answers True or False"
    try:
        answer = where(candidate.name, candidate.parameter)
    except Exception as error:
        what = f"the predicate failed ({type(error).__name__}: {error})"
        raise InputError(what, "where", candidate.name, remedy) from error
    if type(answer).__name__ not in ("bool", "bool_"):
        raise InputError(f"the predicate gave {type(answer).__name__}", "where", candidate.name, remedy)
    return bool(answer)


def _check_unused(
    group: Group,
    where: str,
    placed: list[tuple[Group, str]],
    trainable: list[Candidate],
    ranks: list[int | None],
    following: Following,
    source: Any,
) -> None:
    """Refuse a group that has nothing; say what it may have meant.

    Frozen parameters count: a group that is there for them has its use once they are thawed.
    """
    for candidate in inventory(source, frozen=True):
        if not candidate.parameter.requires_grad and selects(group, candidate, following):
            return
    pairs = zip(trainable, ranks, strict=True)
    earlier = [rank for candidate, rank in pairs if rank is not None and selects(group, candidate, following)]
    if earlier:
        labels = dict.fromkeys(str(placed[rank][0].label) for rank in earlier)
        what = f"earlier groups ({', '.join(labels)}) take all that this group selects"
        raise InputError(what, where, repr(group), "put it before them or leave it out")
    remedy = _hint(group, trainable, following)
    raise InputError("a group that selects nothing", where, repr(group), remedy)


def _hint(group: Group, trainable: list[Candidate], following: Following) -> str:
    names = [name for candidate in trainable for name in candidate.names]
    if group.name is not None and not any(group.takes_name(name) for name in names):
        return f"the closest names are {', '.join(closest(several(group.name)[0], names))}"
    if group.role is not None and not any(group.takes_role(c.role, c.parameter) for c in trainable):
        return f"the roles here are {', '.join(dict.fromkeys(c.role for c in trainable))}"
    kinds = several(group.module)
    owners = [owner for candidate in trainable for owner in candidate.owners]
    if kinds and not any(isinstance(owner, kinds) for owner in owners):
        if not owners:
            return "without the model the classes of its modules are not known: give the model"
        best = closest(kinds[0].__name__, [class_name(owner) for owner in owners], 5)
        return f"the classes that hold parameters here are {', '.join(best)}"
    if group.before_norm and not following.yes:
        why = f" ({following.problem})" if following.problem else ""
        return f"no layer is seen to be followed by a normalisation{why}: name the layers, Group(name='...')"
    return "no parameter meets all its criteria at once"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _record(candidate: Candidate, rank: int, group: Group, following: Following) -> Assignment:
    role, reasons = candidate.role, [candidate.why]
    if group.name is not None and group.names_a_head(role, candidate.parameter):
        role, reasons = "head", [*reasons, "a head because its group names it"]
    if group.before_norm is not None:
        reasons.append(following.why(candidate.parameter))
    if group is _REST:
        reasons.append("no group selects it")
    exempt = candidate.exempt is not None and not group.force
    if candidate.exempt is not None:
        reasons.append(candidate.exempt if exempt else "its group decays it although the model exempts it")
    return Assignment(
        name=candidate.name,
        shape=tuple(candidate.parameter.shape),
        numel=candidate.parameter.numel(),
        role=role,
        label=str(group.label),
        scale=0.0 if exempt else group.scale,
        reason="; ".join(reasons),
        names=candidate.names,
        parameter=candidate.parameter,
        group=group,
        rank=rank,
    )
