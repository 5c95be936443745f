"""What a parameter is for: decided from its module's type and its shape, else guessed."""

import re
from collections.abc import Callable

from torch import Tensor, nn

ROLES = ("bias", "normalization", "embedding", "head", "convolution", "matrix", "other")

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# What the `weight` of torch's own modules is for.
_WEIGHT_ROLES = {
    "normalization": _NORMS,
    "convolution": (nn.modules.conv._ConvNd,),
    "embedding": (nn.Embedding, nn.EmbeddingBag),
    "matrix": (nn.Linear, nn.Bilinear),
}
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")

# "Norm" as a word of a class name: LlamaRMSNorm, T5LayerNorm, LayerNormalization; not Normal or Normalizer.
_NORM_CLASS = re.compile(r"norm(?!ous|ed|al(?!ization))", re.IGNORECASE)
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


def class_name(module: nn.Module) -> str:
    """The name of the module's class; for a scripted module, of the class it was scripted from."""
    return str(getattr(module, "original_name", None) or type(module).__name__)


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: torch's own classes, or a class whose name says so."""
    return isinstance(module, _NORMS) or bool(_NORM_CLASS.search(class_name(module)))


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


def one_axis(parameter: Tensor) -> bool:
    """Whether at most one axis is longer than 1."""
    return sum(size != 1 for size in parameter.shape) <= 1


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


_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "_FabricModule": "_forward_module",
}


def peeled(module: nn.Module) -> nn.Module:
    """Return the module inside DataParallel, DistributedDataParallel, torch.compile and the like."""
    while attribute := wrapped_attribute(module):
        inner = getattr(module, attribute, None)
        if not isinstance(inner, nn.Module):
            break
        module = inner
    return module


def wrapped_attribute(module: nn.Module) -> str:
    """Return the attribute in which a wrapper has what it wraps; empty for a module that wraps nothing."""
    for kind in type(module).__mro__:
        if kind.__name__ in _WRAPPERS:
            return _WRAPPERS[kind.__name__]
    return ""
