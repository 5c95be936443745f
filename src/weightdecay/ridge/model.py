"""A fitted ridge model: predictions, intervals, and a folder of two plain files that holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.files import sha256, write_together
from weightdecay.ridge.covariance import Covariance
from weightdecay.ridge.linalg import on_cpu
from weightdecay.ridge.matching import matched
from weightdecay.ridge.quantile import student_t
from weightdecay.ridge.record_files import (
    environment,
    json_bytes,
    names_of_list,
    plain,
    read_record,
    read_tensors,
    tensor_bytes,
)

KIND, VERSION = "ridge model", 1
LEAST_LEFT = 1.0  # degrees of freedom for the noise, without which there are no intervals
# What is a number or a tensor of numbers: kept in model.safetensors, to the bit.
_NUMBERS = ("coef", "intercept", "lam", "alpha", "dof", "noise_sd", "mean", "scale")


@dataclass(frozen=True, eq=False)
class RidgeModel:
    """ŷ = X b + b0, with what is needed to use it, to doubt it and to know where it came from.

    Args:
        coef: b, on the original scale of the columns: (p,), or (p, t) for t targets.
        intercept: b0, () or (t,).
        features: the columns' names; None where it was fitted on a tensor without names.
        targets: the targets' names, or None.
        lam: the strength, in `unit`; for several targets one, or one each (t,).
        unit: its convention, a name of `wd.units`.
        alpha: the same in the sum convention, scikit-learn's alpha.
        n: rows it was fitted on.
        dof: effective degrees of freedom, one or (t,).
        noise_sd: σ̂, √(RSS / (n − dof)), () or (t,); of a row of mean weight. NaN where n − dof is 0
            but for rounding.
        mean: the training inputs' means (p,).
        scale: their standard deviations, divided by n, (p,).
        covariance: (X'X + αF)^-1 in a form that serves intervals; None where it is not kept.
        settings: everything that was chosen, as plain values.
    """

    coef: Float64[Tensor, "p *t"] = field(repr=False)
    intercept: Float64[Tensor, "*t"]
    features: tuple[str, ...] | None = field(repr=False)
    targets: tuple[str, ...] | None
    lam: float | Float64[Tensor, " t"]
    unit: str
    alpha: float | Float64[Tensor, " t"]
    n: int
    dof: float | Float64[Tensor, " t"]
    noise_sd: Float64[Tensor, "*t"]
    mean: Float64[Tensor, " p"] = field(repr=False)
    scale: Float64[Tensor, " p"] = field(repr=False)
    covariance: Covariance | None = field(default=None, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def predict(self, X: Any) -> Float64[Tensor, "m *t"]:
        """Predictions for new rows: (m,), or (m, t) for several targets, on the device of X.

        Args:
            X: tensor or array (m, p), its columns in the order of the fit; or a polars or pandas DataFrame,
                matched by name in any order.

        Raises:
            InputError: columns that are missing or unknown, cells that are not finite.
        """
        return self._predict(matched(X, self.features, len(self.coef)))

    @on_cpu
    def interval(self, X: Any, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Prediction intervals: where a new measurement of each row lies with probability `level`.

            ŷ ± t σ̂ √(1 + v),   t of n − dof degrees of freedom, v the variance of ŷ in units of σ²

        Convention: noise of equal variance, and a model that is right: the bias of shrinking is not counted.

        Args:
            X: as in `predict`.
            level: the probability, between 0 and 1.

        Returns:
            The lower and the upper ends, each of the shape of the predictions.

        Raises:
            InputError: the level is no probability; the covariance was not kept; fewer than one degree of
                freedom is left for the noise.
        """
        if not 0 < level < 1:
            raise InputError("not a probability", "level", level, "give one between 0 and 1, such as 0.9")
        if self.covariance is None:
            raise InputError(
                "no intervals without the covariance of the coefficients",
                "covariance",
                "not kept",
                self._why_not(),
            )
        left = self.n - torch.as_tensor(self.dof, dtype=torch.float64)
        if not bool((left >= LEAST_LEFT).all()):
            raise InputError(
                "the model interpolates its training rows, and no degrees of freedom are left for the noise",
                "n − dof",
                f"{float(left.min()):.3g}",
                str(
                    self.settings.get("no_noise") or "fit with a larger λ (--choose one-se), or on more rows"
                ),
            )
        rows = matched(X, self.features, len(self.coef))
        middle = self._predict(rows)
        t = torch.tensor([student_t(level, float(one)) for one in left.reshape(-1)], dtype=torch.float64)
        spread = (1 + self.covariance.variance(rows.cpu())).sqrt()
        noise = (t.reshape(left.shape) * self.noise_sd.cpu()).to(middle.device)
        spread = spread.to(middle.device)
        half = noise * (spread[:, None] if middle.ndim > spread.ndim else spread)
        return middle - half, middle + half

    def save(self, folder: str | Path) -> list[Path]:
        """Write model.safetensors and model.json into a folder, made if need be; returns their paths.

        Either both files are replaced or neither; model.json has the checksum of the other.

        Raises:
            InputError: they cannot be written.
        """
        tensors: dict[str, float | Tensor] = {name: getattr(self, name) for name in _NUMBERS}
        if self.covariance is not None:
            tensors |= {f"covariance.{name}": part for name, part in self.covariance.tensors().items()}
        content = tensor_bytes(tensors)
        record = json_bytes(self.to_dict() | {"sha256": sha256(content)})
        return write_together(folder, {"model.safetensors": content, "model.json": record})

    def to_dict(self) -> dict[str, Any]:
        """All but the coefficients and the covariance, as plain values; null where a number is not finite."""
        return {
            "kind": KIND,
            "version": VERSION,
            "targets": self.targets,
            "lambda": plain(self.lam),
            "unit": self.unit,
            "alpha": plain(self.alpha),
            "n": self.n,
            "dof": plain(self.dof),
            "noise_sd": plain(self.noise_sd),
            "intercept": plain(self.intercept),
            "settings": dict(self.settings),
            "environment": environment(),
            "features": self.features,
            "means": plain(self.mean),
            "scales": plain(self.scale),
        }

    def _predict(self, rows: Float64[Tensor, "m p"]) -> Float64[Tensor, "m *t"]:
        return rows @ self.coef.to(rows.device) + self.intercept.to(rows.device)

    def _why_not(self) -> str:
        reason = self.settings.get("no_covariance")
        return (
            str(reason)
            if reason
            else "fit with fewer columns or rows, or take the spread of the held-out errors"
        )


def load_model(folder: str | Path) -> RidgeModel:
    """Load what `RidgeModel.save` wrote.

    Raises:
        InputError: a file is missing, cut short, of another model, or no model at all.
    """
    folder = Path(folder)
    record, weights = folder / "model.json", folder / "model.safetensors"
    values = read_record(record, KIND, VERSION)
    tensors = read_tensors(weights, values.get("sha256"), record.name)
    try:
        parts = {
            name.removeprefix("covariance."): t
            for name, t in tensors.items()
            if name.startswith("covariance.")
        }
        numbers: dict[str, Any] = {name: tensors[name] for name in _NUMBERS}
        for name in ("lam", "alpha", "dof"):
            numbers[name] = numbers[name] if numbers[name].ndim else float(numbers[name])
        return RidgeModel(
            **numbers,
            features=names_of_list(values["features"]),
            targets=names_of_list(values["targets"]),
            unit=values["unit"],
            n=values["n"],
            covariance=Covariance.of(parts, tensors["mean"]) if parts else None,
            settings=values["settings"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("a field is missing or wrong", str(record), error, "fit it again") from error
