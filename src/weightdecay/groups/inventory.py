"""Every parameter of a model or of a list of names: once, with its names, owners, role and exemption."""

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from weightdecay import arguments
from weightdecay.errors import InputError
from weightdecay.groups.roles import class_name, guessed, role_in, wrapped_attribute
from weightdecay.groups.usage import Traced, role_by_use

# What wrappers put into names: torch.compile, FSDP1, activation checkpointing.
INSERTED = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_MARKED = "the model exempts it: _no_weight_decay is set on the parameter"
_NAMELESS = re.compile(r"(group \d+, )?position \d+")


@dataclass(frozen=True)
class Use:
    """One place where a parameter is held, and what it is for there."""

    name: str
    owner: nn.Module
    role: str
    why: str


@dataclass(frozen=True, eq=False)
class Candidate:
    """A parameter with all that selectors ask about."""

    name: str
    parameter: Tensor
    names: tuple[str, ...]
    owners: tuple[nn.Module, ...]
    role: str
    why: str
    exempt: str | None = None


def inventory(source: nn.Module | Iterable[Any], *, frozen: bool = False) -> list[Candidate]:
    """Return the trainable parameters in their order, tied ones once under the first name.

    Args:
        source: a model, or (name, parameter) pairs.
        frozen: return the frozen ones, too; then there need not be any parameter.

    Raises:
        InputError: not a model, nothing to train, uninitialised or flattened parameters, names that clash.
    """
    candidates: list[Candidate] = []
    if isinstance(source, nn.Module):
        uses: dict[int, list[Use]] = {}
        tensors: dict[int, Tensor] = {}
        traced: Traced = {}
        modules = dict(source.named_modules(remove_duplicate=False))
        for path, module in modules.items():
            for attribute, parameter in module._parameters.items():
                if parameter is not None:
                    _check_tensor(f"{path}.{attribute}" if path else attribute, parameter)
                    tensors[id(parameter)] = parameter
                    use = _use(modules, path, attribute, parameter, traced)
                    uses.setdefault(id(parameter), []).append(use)
        exempt, heads = _exempted(modules, uses, tensors), _output_weights(modules)
        for key, held in uses.items():
            candidates.append(_candidate(tensors[key], held, exempt.get(key), key in heads, modules))
    else:
        candidates = _of_pairs(source)
    if frozen:
        return candidates
    kind = class_name(source) if isinstance(source, nn.Module) else "the list"
    if not candidates:
        raise InputError("no parameters", "model", kind, "give a model that has parameters")
    trainable = [candidate for candidate in candidates if candidate.parameter.requires_grad]
    if not trainable:
        remedy = "call requires_grad_(True) on what shall be trained"
        raise InputError(f"all {len(candidates)} parameters are frozen", "model", kind, remedy)
    return trainable


def plain_name(modules: Mapping[str, nn.Module], name: str) -> str:
    """Return a parameter's name without what wrappers put into it, wherever in the model they are.

    Args:
        modules: the model's modules by path, from `named_modules(remove_duplicate=False)`.
        name: a name as the model has it.
    """
    path, kept = "", []
    for part in name.split("."):
        if path not in modules or part != wrapped_attribute(modules[path]):
            kept.append(part)
        path = f"{path}.{part}".lstrip(".")
    return ".".join(kept)


def plain_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters in their order, tied ones once, by name without what wrappers put into it."""
    modules, parameters, known = dict(model.named_modules(remove_duplicate=False)), {}, set()
    for path, module in modules.items():
        for attribute, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in known:
                known.add(id(parameter))
                parameters[plain_name(modules, f"{path}.{attribute}".lstrip("."))] = parameter
    return parameters


def _check_tensor(name: str, parameter: Tensor) -> None:
    if is_lazy(parameter):
        remedy = "run one batch through the model first: a lazy layer has no shape yet"
        raise InputError("an uninitialised parameter", "model", name, remedy)
    if type(parameter).__name__ == "FlatParameter":
        remedy = (
            "use torch.distributed.fsdp.fully_shard, or use_orig_params=True: names and shapes are lost here"
        )
        raise InputError("a flattened parameter of older sharding", "model", name, remedy)


def _use(modules: dict[str, nn.Module], path: str, attribute: str, parameter: Tensor, traced: Traced) -> Use:
    """Who really holds a parameter; for a parametrisation, the layer whose tensor it makes."""
    module, name = modules[path], f"{path}.{attribute}" if path else attribute
    if isinstance(module, nn.utils.parametrize.ParametrizationList):
        layer, tensor = path.rsplit(".", 1)
        owner = modules[layer.removesuffix("parametrizations").removesuffix(".")]
        if attribute == "original0" and type(module[0]).__name__ == "_WeightNorm":
            return Use(
                name, owner, "normalization", f"the gain of weight_norm on {tensor} of {class_name(owner)}"
            )
        role, why = role_in(owner, tensor, parameter)
        return Use(name, owner, role, f"{attribute} of the parametrised {why}")
    if isinstance(module, (nn.ParameterList, nn.ParameterDict)):
        holder, _, listed = path.rpartition(".")
        owner = modules.get(holder, module)
        inside = f"{listed}.{attribute}"
        named = f"{listed}_{attribute}".strip("_")
        role, why = role_in(module, named, parameter, lambda: role_by_use(owner, inside, traced))
        return Use(name, owner, role, why)
    role, why = role_in(module, attribute, parameter, lambda: role_by_use(module, attribute, traced))
    return Use(name, module, role, why)


def _candidate(
    parameter: Tensor, uses: list[Use], exempt: str | None, output: bool, modules: Mapping[str, nn.Module]
) -> Candidate:
    first = uses[0]
    role, why = first.role, first.why
    names: dict[str, None] = {}  # as they are, and then without what wrappers put into them
    plain: dict[str, None] = {}
    owners: dict[int, nn.Module] = {}
    roles: set[str] = set()
    for use in uses:
        names[use.name] = plain[plain_name(modules, use.name)] = None
        owners[id(use.owner)] = use.owner
        roles.add(use.role)
    shown = " and ".join(names)
    if "embedding" in roles and roles & {"matrix", "convolution"}:
        # Softmax reaches every row of a tied weight in every step, so that no row decays without gradient.
        role, why = "head", f"tied: {shown} are one parameter, embedding and output head"
    elif output and parameter.ndim >= 2:
        role, why = "head", f"{why}, returned by get_output_embeddings()"
    elif len(owners) > 1:
        why = f"{why}; tied: {shown} are one parameter, with the role of the first"
    return Candidate(first.name, parameter, (*(names | plain),), (*owners.values(),), role, why, exempt)


def _exempted(
    modules: dict[str, nn.Module], uses: dict[int, list[Use]], tensors: dict[int, Tensor]
) -> dict[int, str]:
    """What the model itself does not want to decay, by identity, and the word for it."""
    reasons = {}
    for key, parameter in tensors.items():
        if getattr(parameter, "_no_weight_decay", False):
            reasons[key] = _MARKED
    for path, module in modules.items():
        if inspect.getattr_static(module, "no_weight_decay", None) is None:
            continue
        for relative in _exempt_names(module, path):
            whole = f"{path}.{relative}" if path else relative
            for key, held in uses.items():
                if any(_is_or_inside(use.name, whole) for use in held):
                    reasons.setdefault(
                        key, f"the model exempts it: no_weight_decay() of {class_name(module)}"
                    )
    return reasons


def _is_or_inside(name: str, whole: str) -> bool:
    plain, wanted = INSERTED.sub("", name), INSERTED.sub("", whole)
    return plain == wanted or plain.startswith(f"{wanted}.")


def _exempt_names(module: nn.Module, path: str) -> set[str]:
    """The names that a module's `no_weight_decay` gives, for wrappers that only pass it on none."""
    answer: Any = module.no_weight_decay
    try:
        names: Any = answer() if callable(answer) else answer
        return {str(name) for name in names or ()} if not isinstance(names, str) else {names}
    except Exception as error:
        remedy = "it should return a set of parameter names"
        where = f"{path or 'model'}.no_weight_decay() of {class_name(module)}"
        raise InputError(f"cannot be asked ({type(error).__name__}: {error})", where, None, remedy) from error


def _output_weights(modules: dict[str, nn.Module]) -> set[int]:
    """Identities of the parameters that `get_output_embeddings()` of any part returns."""
    weights: set[int] = set()
    for path, module in modules.items():
        if inspect.getattr_static(module, "get_output_embeddings", None) is None:
            continue
        try:
            layer: Any = module.get_output_embeddings()  # pyright: ignore[reportCallIssue]
        except (NotImplementedError, AttributeError):  # a base model without a head says so like this
            continue
        except Exception as error:
            where = f"{path or 'model'}.get_output_embeddings() of {class_name(module)}"
            remedy = "it should return a module or None"
            raise InputError(
                f"cannot be asked ({type(error).__name__}: {error})", where, None, remedy
            ) from error
        held = layer.parameters() if isinstance(layer, nn.Module) else [layer]
        weights |= {id(parameter) for parameter in held}
    return weights


def _of_pairs(source: Iterable[Any]) -> list[Candidate]:
    if isinstance(source, Optimizer):
        remedy = "give the model, or the (name, parameter) pairs of model.named_parameters()"
        raise InputError("an optimizer where a model is needed", "model", type(source).__name__, remedy)
    if isinstance(source, (str, bytes, Tensor)) or not isinstance(source, Iterable):
        remedy = "give a torch.nn.Module, or the (name, parameter) pairs of model.named_parameters()"
        arguments.model(source, remedy)
    names: dict[int, list[str]] = {}
    owners: dict[str, int] = {}
    tensors: dict[int, Tensor] = {}
    for position, pair in enumerate(source):
        name, parameter = _pair(position, pair)
        _check_tensor(name, parameter)
        if owners.setdefault(name, id(parameter)) != id(parameter):
            raise InputError("two parameters of one name", "model", repr(name), "give each its own name")
        names.setdefault(id(parameter), []).append(name)
        tensors[id(parameter)] = parameter
    candidates: list[Candidate] = []
    for key, held in names.items():
        first, parameter = held[0], tensors[key]
        role, why = guessed(None if _NAMELESS.fullmatch(first) else first, parameter)
        exempt = _MARKED if getattr(parameter, "_no_weight_decay", False) else None
        plain = [INSERTED.sub("", name) for name in held]
        candidates.append(
            Candidate(first, parameter, (*dict.fromkeys([*held, *plain]),), (), role, why, exempt)
        )
    return candidates


def _pair(position: int, pair: Any) -> tuple[str, Tensor]:
    if isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[1], Tensor):
        name, parameter = pair
        if name is None or isinstance(name, str):
            return name or f"position {position}", parameter
    shown = f"a {type(pair).__name__} at position {position}"
    remedy = "give a torch.nn.Module, or the (name, parameter) pairs of model.named_parameters()"
    raise InputError("not a pair of a name and a parameter", "model", shown, remedy)
