"""Decay of a product of two factors, as LoRA trains them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.rules.base import Rule, Step, laid_like, whole

# peft's and torchtune's names: lora_A, lora_B, lora_embedding_A, lora_a.
_FACTOR = re.compile(r"(?<=lora_)(?P<kind>embedding_)?(?P<side>[ABab])(?=\.|$)")
_OTHER = {"A": "B", "B": "A", "a": "b", "b": "a"}


@dataclass(frozen=True)
class LoRAProduct(Rule):
    """Decay of what LoRA adds to a weight, the product BA, instead of its factors; decoupled.

        B <- B - lr_t wd B (A Aᵀ) - lr_t u_B,     A <- A - lr_t wd (Bᵀ B) A - lr_t u_A

    These are the gradients of wd/2 ||BA||². They go through the r × r products A Aᵀ and Bᵀ B: BA, which is
    as large as the weight, is never formed. Both are taken from the factors before either moves. Decay of the
    factors by themselves is something else: it depends on how they share the product.

    Args:
        weight_decay: wd; multiply it by the square of the adapter's scaling, α/r or α/sqrt(r), for a
            penalty on what is really added.
        pairs: from the name of each B (out × r) to the name of its A (r × in); left out, names with lora_A
            and lora_B (peft, torchtune) belong together.

    Convention: one half, times lr. It shrinks the product where lr wd ||A||² and lr wd ||B||², spectral
    norms, are below 1.

    Source: the derivative of the penalty; unsloth issue 5747 asks for it.

    Raises:
        InputError: a factor is no matrix, has no partner, or the two do not fit.

    >>> import torch
    >>> from weightdecay.rules import Step
    >>> B, A = torch.tensor([[1.0], [1.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> LoRAProduct(0.5).decayed(B, Step(rate=0.125, weight_decay=0.5, partner=A, name="lora_B.weight"))
    tensor([[0.5000],
            [0.5000]])
    """

    elementwise = False
    paced = overshoots = False

    # A mapping has no hash: rules compare without it.
    pairs: Mapping[str, str] | None = field(default=None, repr=False, compare=False)

    def partner_of(self, name: str) -> str:
        """The name of the other factor.

        Raises:
            InputError: there is none.
        """
        if self.pairs is not None:
            both = dict(self.pairs) | {a: b for b, a in self.pairs.items()}
            if name in both:
                return both[name]
        elif match := _FACTOR.search(name):
            side = match["side"]
            return f"{name[: match.start('side')]}{_OTHER[side]}{name[match.end('side') :]}"
        what, remedy = (
            "not a factor of a product",
            "give pairs={name of B: name of A}, or leave it out with on=",
        )
        raise InputError(what, "LoRAProduct", name, remedy)

    def mismatch(self, name: str, w: Tensor, partner: Tensor) -> str | None:
        """The shapes, where B (out × r) and A (r × in) cannot be multiplied, or are complex."""
        left, right = (w, partner) if self._is_left(name) else (partner, w)
        fits = left.ndim == right.ndim == 2 and left.shape[1] == right.shape[0] and not w.is_complex()
        return None if fits else f"{tuple(left.shape)} and {tuple(right.shape)}"

    def decayed(self, w: Tensor, step: Step) -> Tensor:
        """Return the factor less rate times the penalty's gradient over wd."""
        assert step.partner is not None
        partner, here = whole(step.partner).to(w.dtype), whole(w)  # factors are small
        left = self._is_left(step.name)
        pull = here @ (partner @ partner.mT) if left else (partner.mT @ partner) @ here
        return w - step.rate * laid_like(pull, w)

    def penalty(self, w: Tensor, step: Step) -> Tensor:
        """Return wd/2 ||BA||² = wd/2 tr(Bᵀ B A Aᵀ)."""
        assert step.partner is not None
        left, right = (w, step.partner) if self._is_left(step.name) else (step.partner, w)
        return step.weight_decay * ((left.mT @ left) * (right @ right.mT)).sum() / 2

    def _is_left(self, name: str) -> bool:
        """Whether it is B."""
        if self.pairs is not None:
            return name in self.pairs
        match = _FACTOR.search(name)
        return match is not None and match["side"] in "Bb"
