"""Every parameter of a model or of a list of names: once, with its names, owners, role and exemption."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from weightdecay import arguments
from weightdecay.errors import InputError
from weightdecay.groups.roles import _wrapped, class_name, guessed, role_in

# What wrappers put into names: torch.compile, FSDP1, activation checkpointing.
INSERTED = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_MARKED = "the model exempts it: _no_weight_decay is set on the parameter"
_NAMELESS = re.compile(r"(group \d+, )?position \d+")


@dataclass(frozen=True)
class Use:
    """One place where a parameter is held: `attribute` is what the tensor is for there."""

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


def inventory(source: nn.Module | Iterable[Any]) -> list[Candidate]:
    """The trainable parameters in their order, tied ones once under the first name.

    Raises:
        InputError: not a model, nothing to train, uninitialised or flattened parameters, names that clash.
    """
    found = _of_model(source) if isinstance(source, nn.Module) else _of_pairs(source)
    kind = class_name(source) if isinstance(source, nn.Module) else "the list"
    if not found:
        raise InputError("no parameters", "model", kind, "give a model that has parameters")
    trainable = [candidate for candidate in found if candidate.parameter.requires_grad]
    if not trainable:
        remedy = "call requires_grad_(True) on what shall be trained"
        raise InputError(f"all {len(found)} parameters are frozen", "model", kind, remedy)
    return trainable


def frozen(source: nn.Module | list[Any]) -> list[Candidate]:
    """The parameters that stay out."""
    found = _of_model(source) if isinstance(source, nn.Module) else _of_pairs(source)
    return [one for one in found if not one.parameter.requires_grad]


def plain_name(modules: Mapping[str, nn.Module], name: str) -> str:
    """A parameter's name without what wrappers put into it, wherever in the model they are.

    Args:
        modules: the model's modules by path, from `named_modules(remove_duplicate=False)`.
        name: a name as the model has it.
    """
    path, kept = "", []
    for part in name.split("."):
        if path not in modules or part != _wrapped(modules[path]):
            kept.append(part)
        path = f"{path}.{part}".lstrip(".")
    return ".".join(kept)


def plain_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters in their order, tied ones once, by name without what wrappers put into it."""
    modules, found, known = dict(model.named_modules(remove_duplicate=False)), {}, set()
    for path, module in modules.items():
        for attribute, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in known:
                known.add(id(parameter))
                found[plain_name(modules, f"{path}.{attribute}".lstrip("."))] = parameter
    return found


def _of_model(model: nn.Module) -> list[Candidate]:
    from weightdecay.groups.usage import Usage  # it reads modules as this module peels them

    uses: dict[int, list[Use]] = {}
    tensors: dict[int, Tensor] = {}
    usage = Usage()
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, module in modules.items():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                name = f"{path}.{attribute}" if path else attribute
                _check_tensor(name, parameter)
                tensors[id(parameter)] = parameter
                use = _use(modules, path, module, attribute, parameter, usage)
                uses.setdefault(id(parameter), []).append(use)
    exempt, heads = _exempted(modules, uses, tensors), _output_weights(modules)
    return [
        _candidate(tensors[key], held, exempt.get(key), key in heads, modules) for key, held in uses.items()
    ]


def _check_tensor(name: str, parameter: Tensor) -> None:
    if is_lazy(parameter):
        remedy = "run one batch through the model first: a lazy layer has no shape yet"
        raise InputError("an uninitialised parameter", "model", name, remedy)
    if type(parameter).__name__ == "FlatParameter":
        remedy = (
            "use torch.distributed.fsdp.fully_shard, or use_orig_params=True: names and shapes are lost here"
        )
        raise InputError("a flattened parameter of older sharding", "model", name, remedy)


def _use(
    modules: dict[str, nn.Module],
    path: str,
    module: nn.Module,
    attribute: str,
    parameter: Tensor,
    usage: Callable[[nn.Module, str], str | None],
) -> Use:
    """Who really holds a parameter; for a parametrisation, the layer whose tensor it makes."""
    name = f"{path}.{attribute}" if path else attribute
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
        role, why = role_in(module, named, parameter, lambda: usage(owner, inside))
        return Use(name, owner, role, why)
    return Use(name, module, *role_in(module, attribute, parameter, lambda: usage(module, attribute)))


def _candidate(
    parameter: Tensor, uses: list[Use], exempt: str | None, output: bool, modules: Mapping[str, nn.Module]
) -> Candidate:
    first, roles = uses[0], {use.role for use in uses}
    role, why = first.role, first.why
    shown = " and ".join(dict.fromkeys(use.name for use in uses))
    if "embedding" in roles and roles & {"matrix", "convolution"}:
        # Softmax reaches every row of a tied weight in every step, so that no row decays without gradient.
        role, why = "head", f"tied: {shown} are one parameter, embedding and output head"
    elif output and parameter.ndim >= 2:
        role, why = "head", f"{why}, returned by get_output_embeddings()"
    elif len({id(use.owner) for use in uses}) > 1:
        why = f"{why}; tied: {shown} are one parameter, with the role of the first"
    names = dict.fromkeys(use.name for use in uses)
    plain = dict.fromkeys(plain_name(modules, name) for name in names)
    owners = {id(use.owner): use.owner for use in uses}
    return Candidate(first.name, parameter, (*(names | plain),), (*owners.values(),), role, why, exempt)


def _exempted(
    modules: dict[str, nn.Module], uses: dict[int, list[Use]], tensors: dict[int, Tensor]
) -> dict[int, str]:
    """What the model itself does not want to decay, by identity, and the word for it."""
    reasons = {
        key: _MARKED for key, parameter in tensors.items() if getattr(parameter, "_no_weight_decay", False)
    }
    for path, module in modules.items():
        for relative in _asked(module, path):
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


def _asked(module: nn.Module, path: str) -> set[str]:
    """The names that a module's `no_weight_decay` gives, for wrappers that only pass it on none."""
    if inspect.getattr_static(module, "no_weight_decay", None) is None:
        return set()
    answer = module.no_weight_decay
    try:
        names = answer() if callable(answer) else answer
        return {str(name) for name in names or ()} if not isinstance(names, str) else {names}
    except Exception as error:
        remedy = "it should return a set of parameter names"
        where = f"{path or 'model'}.no_weight_decay() of {class_name(module)}"
        raise InputError(f"cannot be asked ({type(error).__name__}: {error})", where, None, remedy) from error


def _output_weights(modules: dict[str, nn.Module]) -> set[int]:
    """Identities of the parameters that `get_output_embeddings()` of any part returns."""
    found: set[int] = set()
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
        found |= {id(parameter) for parameter in held}
    return found


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
    return [_guess(tensors[key], held) for key, held in names.items()]


def _pair(position: int, pair: Any) -> tuple[str, Tensor]:
    if isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[1], Tensor):
        name, parameter = pair
        if name is None or isinstance(name, str):
            return name or f"position {position}", parameter
    shown = f"a {type(pair).__name__} at position {position}"
    remedy = "give a torch.nn.Module, or the (name, parameter) pairs of model.named_parameters()"
    raise InputError("not a pair of a name and a parameter", "model", shown, remedy)


def _guess(parameter: Tensor, names: list[str]) -> Candidate:
    first = names[0]
    role, why = guessed(None if _NAMELESS.fullmatch(first) else first, parameter)
    exempt = _MARKED if getattr(parameter, "_no_weight_decay", False) else None
    plain = [INSERTED.sub("", name) for name in names]
    return Candidate(first, parameter, (*dict.fromkeys([*names, *plain]),), (), role, why, exempt)
