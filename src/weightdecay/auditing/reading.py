"""The parameters of a live model and where live optimizers hold them; nothing is changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn, optim

from weightdecay.auditing.given import titles
from weightdecay.errors import InputError
from weightdecay.groups import assign
from weightdecay.groups.inventory import Candidate, _of_model, plain_name
from weightdecay.groups.roles import class_name, role_in


@dataclass(frozen=True)
class Place:
    """Where an optimizer holds a parameter: positions of the optimizer, the group, and within the group."""

    optimizer: int
    group: int
    position: int


@dataclass(frozen=True, eq=False)
class Held:
    """A parameter of the model, with every place that holds it."""

    name: str
    aliases: tuple[str, ...]
    candidate: Candidate
    places: tuple[Place, ...]

    @property
    def parameter(self) -> Tensor:
        """The tensor itself."""
        return self.candidate.parameter

    @property
    def role(self) -> str:
        """What it is for."""
        return self.candidate.role

    @property
    def moves(self) -> bool:
        """Whether an optimizer that holds it changes it: frozen ones still do with a gradient left over."""
        return self.parameter.requires_grad or self.parameter.grad is not None


@dataclass(frozen=True, eq=False)
class Live:
    """A model and its optimizers, read once.

    Args:
        model: the model.
        optimizers: without what other libraries wrap around them.
        titles: a name for each optimizer.
        held: the model's parameters in their order.
        strange: places that hold what is not in the model, each with a name for it.
        flat: whether parameters were flattened, so that roles mean nothing.
    """

    model: nn.Module
    optimizers: tuple[optim.Optimizer, ...]
    titles: tuple[str, ...]
    held: tuple[Held, ...]
    strange: tuple[tuple[Place, str], ...]
    flat: bool

    def group(self, place: Place) -> Mapping[str, Any]:
        """The parameter group of a place."""
        return self.optimizers[place.optimizer].param_groups[place.group]


def read(model: nn.Module, optimizers: tuple[optim.Optimizer, ...]) -> Live:
    """Read a model and its optimizers.

    Raises:
        InputError: no parameters, or one that a lazy layer has not made yet.
    """
    flat = any(map(is_flat, model.parameters()))
    candidates = _as_they_are(model) if flat else _of_model(model)
    if not candidates:
        raise InputError("no parameters", "model", class_name(model), "give a model that has parameters")
    places = _places(optimizers)
    modules = dict(model.named_modules(remove_duplicate=False))
    held = tuple(_held(one, places.pop(id(one.parameter), []), modules) for one in candidates)
    strange = [(place, _strange_name(optimizers, place)) for rest in places.values() for place in rest]
    return Live(model, optimizers, titles(optimizers), held, tuple(strange), flat)


def is_flat(parameter: Tensor) -> bool:
    """Whether a parameter is many tensors laid into one, as older sharding leaves them."""
    return getattr(parameter, "_is_flat_param", False) or type(parameter).__name__ == "FlatParameter"


def expected(live: Live, groups: Any) -> dict[int, float]:
    """What should decay, as scales by identity of the parameter; empty where nobody has an opinion.

    Raises:
        InputError: groups that cannot be used.
    """
    trainable = any(one.parameter.requires_grad for one in live.held)
    if groups is None or live.flat or not trainable:
        return {}
    return {id(one.parameter): one.scale for one in assign(live.model, groups)}


def _held(candidate: Candidate, places: Sequence[Place], modules: Mapping[str, nn.Module]) -> Held:
    plain = dict.fromkeys(plain_name(modules, name) for name in candidate.names)
    name, *aliases = plain
    return Held(name, tuple(aliases), candidate, tuple(places))


def _places(optimizers: tuple[optim.Optimizer, ...]) -> dict[int, list[Place]]:
    found: dict[int, list[Place]] = {}
    for o, optimizer in enumerate(optimizers):
        for g, group in enumerate(optimizer.param_groups):
            for p, parameter in enumerate(group["params"]):
                found.setdefault(id(parameter), []).append(Place(o, g, p))
    return found


def _strange_name(optimizers: tuple[optim.Optimizer, ...], place: Place) -> str:
    """What to call a parameter that the model does not have."""
    group = optimizers[place.optimizer].param_groups[place.group]
    names = group.get("param_names")
    if names is not None and place.position < len(names):
        return str(names[place.position])
    return f"group {place.group}, position {place.position}"


def _as_they_are(model: nn.Module) -> list[Candidate]:
    """The parameters of a model in which some are flattened: the inventory refuses those."""
    found: dict[int, Candidate] = {}
    for path, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is None or id(parameter) in found:
                continue
            name = f"{path}.{attribute}" if path else attribute
            role, why = role_in(module, attribute, parameter)
            if is_flat(parameter):
                role, why = "other", f"{attribute} of {class_name(module)}, several tensors laid into one"
            found[id(parameter)] = Candidate(name, parameter, (name,), (module,), role, why)
    return list(found.values())
