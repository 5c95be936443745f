"""`Group`: one ordered selector of parameters and what they get."""

import math
import numbers
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from weightdecay.arguments import closest, function
from weightdecay.errors import InputError
from weightdecay.groups.roles import ROLES

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
        given = []
        for spec in fields(self):
            value, default = getattr(self, spec.name), {} if spec.name == "options" else spec.default
            if value != default and not (spec.name == "label" and value == _default_label(self)):
                given.append(f"{spec.name}={_shown(value)}")
        return f"Group({', '.join(given)})"

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
        raise InputError("not a number", where, repr(value), "give a finite number of 0 or more")
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
