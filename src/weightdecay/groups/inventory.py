"""What each parameter of a model or of a list of names is: its names, its owners, its role, its exemption.

The role comes from the type of the module that holds it and its shape, else from what the forward does with
it, else it is guessed from the name.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from weightdecay import arguments
from weightdecay.arguments import class_name
from weightdecay.errors import InputError
from weightdecay.groups.before_norm import NORMS, WRAPPED, is_norm, wrapped_attribute
from weightdecay.groups.usage import Traced, one_axis, role_by_use
from weightdecay.text import Text

# What wrappers put into names: torch.compile, FSDP1, activation checkpointing.
INSERTED = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_MARKED = Text(
    "the model exempts it: _no_weight_decay is set on the parameter",
    "模型要求豁免：参数上设了 _no_weight_decay",
)
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
    parts = name.split(".")
    if WRAPPED.isdisjoint(parts):
        return name
    path, kept = "", []
    for part in parts:
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
                    kind = class_name(module)
                    said = Text(
                        f"the model exempts it: no_weight_decay() of {kind}",
                        f"模型要求豁免：{kind} 的 no_weight_decay()",
                    )
                    reasons.setdefault(key, said)
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


ROLES = ("bias", "normalization", "embedding", "head", "convolution", "matrix", "other")

# What the `weight` of torch's own modules is for.
_WEIGHT_ROLES = {
    "normalization": NORMS,
    "convolution": (nn.modules.conv._ConvNd,),
    "embedding": (nn.Embedding, nn.EmbeddingBag),
    "matrix": (nn.Linear, nn.Bilinear),
}
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")

# Global response normalisation (ConvNextV2GRN) adds its input to what it normalises: its gain is one of a
# normalisation, but what is before it is not free in scale, as it would be before those of `is_norm`.
_RESPONSE_NORM = re.compile(r"GRN$")

# What a bare parameter of an unknown module may be called. They only matter where neither type nor shape
# says what the parameter is for: the first set wins, as `gate_up_proj` is a matrix and `gate` is not.
_MATRIX_WORDS = {"kernel", "proj", "projection", "matrix", "lora"}
# Stronger than a `w` (`W_pos`), and than a product: what is learnt for places and tokens is no linear map.
_PLACE_WORDS = {
    *("pos", "position", "positional", "positions", "embed", "embedding", "embeddings", "emb"),
    *("token", "tokens", "tok", "cls", "wte", "wpe"),
}
_LEARNT_WORDS = {
    *("query", "queries", "latent", "latents", "prompt", "prompts", "prefix", "register", "registers"),
    *("memory", "codebook", "prototypes", "centroids", "freqs", "table"),
}
_NO_MATRIX_WORDS = {
    *_LEARNT_WORDS,
    *("log", "gamma", "beta", "alpha", "lambda", "scale", "gain", "gate", "temperature", "mask"),
    *("decay", "time", "imag", "magnitude"),
}
_TOKEN_EMBEDDING = re.compile(r"[wW]_?[eE]")
# `b_Q`, `b1`, `experts_b1`; not `lora_b`, `w_b` and `hada_w1_b`, which are factors, nor a lone `b` of several
# axes.
_BIAS_LETTER = re.compile(r"(?!^b$)(^|_)b(\d*$|_|[qkvoQKVO]$)")
_FACTOR = re.compile(r"(lora|hada|lokr|vera|lambda|(^|_)[wW]\d*_b)")
_NORM_WORDS = re.compile(r"norm|^(bn|gn|ln|ln_f|rms)\d*($|_)|_(bn|ln)\d*$", re.IGNORECASE)
_EMBEDDING_WORDS = {"embed", "embedding", "embeddings", "emb", "wte", "wpe", "vocab"}


def role_in(
    module: nn.Module, attribute: str, parameter: Tensor, use: Callable[[], str | None] = lambda: None
) -> tuple[str, str]:
    """The role of a parameter that a module holds under an attribute's name, and why.

    Args:
        module: what holds it.
        attribute: under which name.
        parameter: the tensor.
        use: what the forward does with it; asked where the module's type says nothing.
    """
    kind = class_name(module)
    if attribute.endswith("_g") and f"{attribute[:-2]}_v" in module._parameters:
        return "normalization", f"{attribute} of {kind}"  # the gain that torch's older weight_norm leaves
    # `weight_orig` (pruning, older spectral_norm) and `weight_v` (older weight_norm) stand for `weight`.
    plain = attribute.removesuffix("_orig")
    if attribute.endswith("_v") and f"{attribute[:-2]}_g" in module._parameters:
        plain = attribute[:-2]
    if is_bias(plain, parameter):
        return "bias", f"{attribute} of {kind}"
    if known := _by_type(module, plain, parameter):
        return known, f"{attribute} of {kind}"
    if (is_norm(module) or _RESPONSE_NORM.search(kind)) and (
        one_axis(parameter) or _normalized_shape(module) == tuple(parameter.shape)
    ):
        return "normalization", f"{attribute} of {kind}, a normalisation by the name of its class"
    if "embedding" in kind.lower() and attribute == "weight" and parameter.ndim == 2:
        return "embedding", f"weight of {kind}, an embedding by the name of its class"
    role, why = bare(attribute, parameter)
    used = use()
    if used is not None and used != role and not _kept_by_name(used, attribute):
        return used, f"{attribute}, {_USES[used]} of {kind}"
    return role, f"{why} of {kind}"


_USES = {
    "normalization": "the gain of a normalisation by its use in forward",
    "bias": "added by the forward",
    "matrix": "a linear map by its use in forward",
    "convolution": "a kernel by its use in forward",
    "embedding": "looked up by the forward",
    "head": "embedding and output head by its use in forward",
    "other": "no weight matrix by its use in forward",
}


def _kept_by_name(used: str, attribute: str) -> bool:
    """A learnt place or token may be added, looked up or multiplied like a key, and is what its name says."""
    words = _words(attribute)
    if words & _MATRIX_WORDS:
        return False
    return used in ("bias", "matrix", "embedding") and bool(words & (_PLACE_WORDS | _LEARNT_WORDS))


def _words(attribute: str) -> set[str]:
    return set(re.findall(r"[a-z]+", attribute.lower()))


def _by_type(module: nn.Module, attribute: str, parameter: Tensor) -> str | None:
    """The role that the module's type, or the weight beside a bias, decides."""
    if attribute.endswith("_bias"):
        # Biases of several experts in one tensor: `down_proj_bias` (experts, out), `down_proj` one axis more.
        # Not by getattr: it would compute a parametrised weight, for spectral_norm a training step.
        weight = module._parameters.get(attribute.removesuffix("_bias"))
        if weight is not None and weight.ndim > parameter.ndim:
            return "bias"
    if isinstance(module, _RECURRENT) and attribute.startswith("weight_"):
        return "matrix"
    if isinstance(module, nn.MultiheadAttention) and attribute in _ATTENTION:
        return "matrix"
    if attribute != "weight":
        return None
    for role, classes in _WEIGHT_ROLES.items():
        if isinstance(module, classes):
            return role
    return None


def is_bias(attribute: str, parameter: Tensor) -> bool:
    """Whether a name says bias: `bias` as its last word, or anywhere along one axis (`bias_hh_l0`)."""
    words = re.sub(r"\d+(?=_|$)", "", attribute).split("_")
    return words[-1] in ("bias", "biases") or ("bias" in words and one_axis(parameter))


def _normalized_shape(module: nn.Module) -> tuple[int, ...] | None:
    shape = getattr(module, "normalized_shape", None)
    return tuple(shape) if isinstance(shape, (tuple, list)) else None


def bare(attribute: str, parameter: Tensor) -> tuple[str, str]:
    """The role of a parameter whose module says nothing: from its shape, then from its own name."""
    words = _words(attribute)
    if is_bias(attribute, parameter):
        return "bias", attribute
    if parameter.ndim < 2:
        return "other", f"{attribute}, a {'vector' if parameter.ndim else 'scalar'}"
    if _BIAS_LETTER.search(attribute) and not _FACTOR.search(attribute):
        return "bias", attribute
    if words & _MATRIX_WORDS:
        return "matrix", f"{attribute}, a weight matrix by its name and shape,"
    if _TOKEN_EMBEDDING.fullmatch(attribute):
        return "embedding", f"{attribute}, a token embedding by its name,"
    if words & _PLACE_WORDS:
        return "other", f"{attribute}, no weight matrix by its name ({min(words & _PLACE_WORDS)}),"
    if "w" in words:
        return "matrix", f"{attribute}, a weight matrix by its name and shape,"
    if words & _NO_MATRIX_WORDS:
        return "other", f"{attribute}, no weight matrix by its name ({min(words & _NO_MATRIX_WORDS)}),"
    if "bias" in words:
        return "bias", attribute
    named = words & {"weight", "weights"}
    if one_axis(parameter) and not (named and parameter.ndim == 2):
        return "other", f"{attribute}, a vector with further axes of size 1,"
    if named:
        return "matrix", f"{attribute}, a weight matrix by its name and shape,"
    if parameter.shape[0] == 1:
        return "other", f"{attribute}, broadcast along its first axis,"
    return "matrix", f"{attribute}, taken for a weight matrix by its shape,"


def guessed(name: str | None, parameter: Tensor) -> tuple[str, str]:
    """The role of a parameter of which only the name (if that) and the shape are known."""
    if name is None:
        role = _by_shape(parameter)
        return role, f"guessed from the shape alone ({parameter.ndim} axes); give the model to be certain"
    *parents, attribute = name.split(".")
    return _by_name(parents[-1] if parents else "", attribute, parameter), (
        "guessed from the name and the shape; give the model to be certain"
    )


def _by_shape(parameter: Tensor) -> str:
    if parameter.ndim < 2 or (parameter.ndim > 2 and parameter.shape[0] == 1):
        return "other"
    return "matrix" if parameter.ndim == 2 else "convolution"


def _by_name(parent: str, attribute: str, parameter: Tensor) -> str:
    if is_bias(attribute, parameter):
        return "bias"
    if attribute not in ("weight", "weight_v", "weight_orig", "original", "original1"):
        return bare(attribute, parameter)[0]
    if _NORM_WORDS.search(parent) and "_proj" not in parent:
        return "normalization"
    if parameter.ndim < 2:
        # A vector called weight is the gain of a normalisation in nearly every module there is.
        return "normalization"
    if parameter.ndim == 2 and set(parent.lower().split("_")) & _EMBEDDING_WORDS:
        return "embedding"
    return _by_shape(parameter)
