"""λ in the user's convention <-> the sum convention's α."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.units.conventions import convert

SUM = "sklearn.Ridge"


@dataclass(frozen=True)
class Strength:
    """A convention of `wd.units` and what it needs to know.

    Args:
        unit: the convention's name.
        context: n, and what else the convention needs, such as sd_y for glmnet's.
    """

    unit: str
    context: Mapping[str, Any] = field(default_factory=dict)

    def alpha(self, lam: Any, where: str = "lam") -> Float64[Tensor, " L"]:
        """α of one λ or several, (L,).

        Raises:
            InputError: negative, not finite, or no number; or a convention without a ridge equivalent.
        """
        return torch.from_numpy(np.atleast_1d(self._convert(self.numbers(lam, where), self.unit, SUM)))

    @staticmethod
    def numbers(lam: Any, where: str = "lam") -> np.ndarray:
        """One λ or several as a new array, in their own unit (L,); errors as `alpha`'s."""
        try:
            given = lam.detach().cpu().numpy() if isinstance(lam, Tensor) else lam
            values = np.array(given, dtype=np.float64, order="C", ndmin=1).ravel()
        except (TypeError, ValueError) as error:
            raise InputError("not numbers", where, repr(lam)[:60], "give numbers of 0 or more") from error
        wrong = values[~((values >= 0) & (values < np.inf))]
        if len(wrong) or not len(values):
            what = float(wrong[0]) if len(wrong) else "nothing"
            raise InputError("not a strength", where, what, "give finite numbers of 0 or more")
        return values

    def lam(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        """λ of several α (L,)."""
        return torch.from_numpy(np.atleast_1d(self._convert(alphas.cpu().numpy(), SUM, self.unit)))

    def _convert(self, values: np.ndarray, source: str, target: str) -> np.ndarray:
        if source == target:
            return values.copy()
        needed = {name: self.context[name] for name in self.context if name in _used(source, target)}
        return np.asarray(convert(values, source, target, **needed))


def strength(unit: str, n: int, variance: Float64[Tensor, " t"]) -> Strength:
    """The convention for n rows and targets of these variances.

    Raises:
        InputError: several targets of different sd, in a convention that goes with the target's sd.
    """
    sd = variance.sqrt()
    if "sd_y" in _used(unit, SUM) and float(sd.max() - sd.min()) > 1e-12 * float(sd.max()):
        what = "this convention goes with the target's standard deviation, and there are several"
        raise InputError(what, "unit", repr(unit), "fit one target at a time, or use 'canonical'")
    return Strength(unit, {"n": n, "sd_y": float(sd[0])})


def _used(source: str, target: str) -> set[str]:
    from weightdecay.units.rows import ROWS

    rows = [row for row in ROWS if row.name in (source, target)]
    return {name for row in rows for name in (*row.needs, *row.takes)}
