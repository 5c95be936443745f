"""Groups by name: what common recipes decay."""

from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.groups.selectors import Group
from weightdecay.groups.suggest import closest


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
