"""What a parameter is for: decided from its module's type and its shape, else guessed."""

import re

from torch import Tensor, nn

ROLES = ("bias", "normalization", "embedding", "head", "convolution", "matrix", "other")

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_PROJECTIONS = (nn.Linear, nn.Bilinear)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")

# "Norm" as a word of a class name: LlamaRMSNorm, T5LayerNorm, LayerNormalization; not Normal or Normalizer.
_NORM_CLASS = re.compile(r"norm(?!ous|ed|al(?!ization))", re.IGNORECASE)
# Global response normalisation (ConvNextV2GRN) adds its input to what it normalises: its gain is one of a
# normalisation, but what is before it is not free in scale, as it would be before those of `is_norm`.
_RESPONSE_NORM = re.compile(r"GRN$")

# What a bare parameter of an unknown module may be called. They only matter where neither type nor shape
# says what the parameter is for: the first set wins, as `gate_up_proj` is a matrix and `gate` is not.
_MATRIX_WORDS = {"kernel", "w", "proj", "projection", "matrix", "lora"}
_NO_MATRIX_WORDS = {
    *("pos", "position", "positional", "positions", "embed", "embedding", "embeddings", "emb"),
    *("token", "tokens", "query", "queries", "latent", "latents", "prompt", "prompts", "register"),
    *("registers", "log", "gamma", "beta", "alpha", "scale", "gain", "gate", "temperature", "mask"),
    *("table", "freqs", "memory"),
}
_NORM_WORDS = re.compile(r"norm|^(bn|gn|ln|ln_f|rms)\d*($|_)|_(bn|ln)\d*$", re.IGNORECASE)
_EMBEDDING_WORDS = {"embed", "embedding", "embeddings", "emb", "wte", "wpe", "vocab"}


def class_name(module: nn.Module) -> str:
    """The name of the module's class; for a scripted module, of the class it was scripted from."""
    return str(getattr(module, "original_name", None) or type(module).__name__)


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: torch's own classes, or a class whose name says so."""
    return isinstance(module, _NORMS) or bool(_NORM_CLASS.search(class_name(module)))


def role_in(module: nn.Module, attribute: str, parameter: Tensor) -> tuple[str, str]:
    """The role of a parameter that a module holds under an attribute's name, and why."""
    kind = class_name(module)
    found = _magnitude(module, attribute) or _known(module, attribute, parameter)
    if found:
        return found, f"{attribute} of {kind}"
    if (is_norm(module) or _RESPONSE_NORM.search(kind)) and (
        _one_axis(parameter) or _normalized_shape(module) == tuple(parameter.shape)
    ):
        return "normalization", f"{attribute} of {kind}, a normalisation by the name of its class"
    if "embedding" in kind.lower() and attribute == "weight" and parameter.ndim == 2:
        return "embedding", f"weight of {kind}, an embedding by the name of its class"
    role, why = bare(attribute, parameter)
    return role, f"{why} of {kind}"


def _magnitude(module: nn.Module, attribute: str) -> str | None:
    """The gain that torch's older `weight_norm` leaves beside the direction `weight_v`."""
    base = attribute.removesuffix("_g")
    return "normalization" if base != attribute and f"{base}_v" in module._parameters else None


def _known(module: nn.Module, attribute: str, parameter: Tensor) -> str | None:
    attribute = _unwrapped(module, attribute)
    if is_bias(attribute, parameter) or _beside_its_weight(module, attribute, parameter):
        return "bias"
    if isinstance(module, _RECURRENT) and attribute.startswith("weight_"):
        return "matrix"
    if isinstance(module, nn.MultiheadAttention) and attribute in _ATTENTION:
        return "matrix"
    if attribute != "weight":
        return None
    kinds = {
        "normalization": _NORMS,
        "convolution": _CONVOLUTIONS,
        "embedding": _EMBEDDINGS,
        "matrix": _PROJECTIONS,
    }
    return next((role for role, classes in kinds.items() if isinstance(module, classes)), None)


def _unwrapped(module: nn.Module, attribute: str) -> str:
    """`weight_orig` (pruning, older spectral_norm) and `weight_v` (older weight_norm) stand for `weight`."""
    if attribute.endswith("_v") and f"{attribute[:-2]}_g" in module._parameters:
        return attribute[:-2]
    return attribute.removesuffix("_orig")


def is_bias(attribute: str, parameter: Tensor) -> bool:
    """A parameter named `bias`, or one along one axis with `bias` as a word of its name (`bias_hh_l0`)."""
    return attribute == "bias" or ("bias" in attribute.split("_") and _one_axis(parameter))


def _beside_its_weight(module: nn.Module, attribute: str, parameter: Tensor) -> bool:
    """Biases of several experts in one tensor: `down_proj_bias` (experts, out), `down_proj` one axis more."""
    # Not by getattr: a parametrised weight would be computed, which spectral_norm takes for a training step.
    weight = dict(module.named_parameters(recurse=False)).get(attribute.removesuffix("_bias"))
    return attribute.endswith("_bias") and weight is not None and weight.ndim > parameter.ndim


def _one_axis(parameter: Tensor) -> bool:
    return sum(size != 1 for size in parameter.shape) <= 1


def _normalized_shape(module: nn.Module) -> tuple[int, ...] | None:
    shape = getattr(module, "normalized_shape", None)
    return tuple(shape) if isinstance(shape, (tuple, list)) else None


def bare(attribute: str, parameter: Tensor) -> tuple[str, str]:
    """The role of a parameter whose module says nothing: from its shape, then from its own name."""
    words = set(re.findall(r"[a-z]+", attribute.lower()))
    if is_bias(attribute, parameter):
        return "bias", attribute
    if parameter.ndim < 2:
        return "other", f"{attribute}, a {'vector' if parameter.ndim else 'scalar'}"
    if words & _MATRIX_WORDS:
        return "matrix", f"{attribute}, a weight matrix by its name and shape,"
    if words & _NO_MATRIX_WORDS:
        return "other", f"{attribute}, no weight matrix by its name ({min(words & _NO_MATRIX_WORDS)}),"
    if parameter.ndim > 2 and _one_axis(parameter):
        return "other", f"{attribute}, a vector with further axes of size 1,"
    if words & {"weight", "weights"}:
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
