"""The record of a regularisation path: every λ, its score, the choices, and the models behind them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.files import sha256, write_together
from weightdecay.ridge.covariance import Covariance
from weightdecay.ridge.explain import facts, stronger
from weightdecay.ridge.linalg import on_cpu
from weightdecay.ridge.model import LEAST_LEFT, RidgeModel
from weightdecay.ridge.record_files import environment, json_bytes, plain, tensor_bytes
from weightdecay.ridge.route import Route, at_least
from weightdecay.ridge.stored import store, tensors_of, values_of
from weightdecay.ridge.strength import Strength
from weightdecay.select import Edge

KIND, VERSION = "ridge path", 1
# Fields that are plain values.
PLAIN = ("unit", "edge", "flat", "cv", "route", "n", "p")

NOTHING = 1e-9  # degrees of freedom left, as a share of the rows, that are the rounding of their difference
REMEMBERED = 1_000_000  # coefficients that are kept when they have been found: 8 MB


@dataclass(frozen=True, eq=False)
class RidgePath:
    """Ridge at every λ of a grid, judged; from it coefficients, models and predictions at any λ ≥ 0.

    For several targets scores have a last axis of t, and λ may be one each; for one target there is none.

    Args:
        lambdas: the grid in `unit`, in the order of ascending strength (L,).
        unit: its convention, a name of `wd.conventions()`.
        alphas: the same in the sum convention, scikit-learn's alpha (L,).
        scores: mean squared error out of fold or leave-one-out, generalised CV, or −2 log evidence.
        errors: their standard errors; for the evidence 1.
        fold_scores: each fold's mean squared error (K, L) or (K, L, t); None without folds.
        precision: a bound on the relative error that rounding leaves in each score, |score/exact − 1| with
            `exact` from the numbers as they are given, for the target that has lost most; infinite where no
            digit is certain, and such a score is not chosen (L,).
        best: λ of the least score, the strongest of those within their own precision of it; one each (t,)
            for several targets, unless one is shared.
        one_se: the strongest λ whose score is within one standard error of the least.
        edge: "low" or "high" where the least score is at an end of the grid, which was not to be moved.
        flat: whether one standard error tells no λ of the grid from the best, for some target.
        flat_range: the λ around the best that one standard error does not tell from it; the widest target's.
        cv: how λ was judged, in words.
        route: what was decomposed, in words.
        n: rows of positive weight.
        p: columns.
        features: the columns' names, or None.
        targets: the targets' names, or None.
        doubts: what to be careful about, in sentences with the figures of this path; each was a warning, too.
        settings: everything that was chosen, as plain values.
    """

    lambdas: Float64[Tensor, " L"] = field(repr=False)
    unit: str
    alphas: Float64[Tensor, " L"] = field(repr=False)
    scores: Float64[Tensor, "L *t"] = field(repr=False)
    errors: Float64[Tensor, "L *t"] = field(repr=False)
    fold_scores: Float64[Tensor, "K L *t"] | None = field(repr=False)
    precision: Float64[Tensor, " L"] = field(repr=False)
    best: float | Float64[Tensor, " t"]
    one_se: float | Float64[Tensor, " t"]
    edge: Edge
    flat: bool
    flat_range: tuple[float, float]
    cv: str
    route: str
    n: int
    p: int
    features: tuple[str, ...] | None = field(repr=False)
    targets: tuple[str, ...] | None
    doubts: tuple[str, ...]
    settings: Mapping[str, Any] = field(repr=False)
    _solver: Route = field(repr=False)
    _strength: Strength = field(repr=False)
    _last: dict[tuple[float, ...], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    @cached_property
    def dof(self) -> Float64[Tensor, " L"]:
        """Effective degrees of freedom, Σ s/(s + α) + unpenalised, at every λ (L,)."""
        return self._dof(self.alphas)

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to know, in sentences with the figures of this path; the doubts last."""
        return (*facts(self), *self.doubts)

    @property
    def still(self) -> list[int]:
        """Places of the columns that do not vary."""
        return self._solver.still

    def coef(self, lam: float | Tensor | None = None) -> Float64[Tensor, "p *t"]:
        """Coefficients on the original scale (p,) or (p, t), at λ in `unit`; at the best without it."""
        return self._squeezed(self._solution(self._alphas(lam))[0])

    def intercept(self, lam: float | Tensor | None = None) -> Float64[Tensor, "*t"]:
        """The intercept () or (t,)."""
        return self._squeezed(self._solution(self._alphas(lam))[1])

    def predict(self, X: Any, lam: float | Tensor | None = None) -> Float64[Tensor, "m *t"]:
        """Predictions for new rows (m,) or (m, t) at λ; a DataFrame is matched by name."""
        return self._model(lam, None, {}).predict(X)

    @on_cpu
    def out_of_fold(self, lam: float | Tensor | None = None) -> Float64[Tensor, "n *t"]:
        """The prediction of each row by a fit that has not seen it; leave-one-out where there are no folds.

        NaN for rows that no split holds out.
        """
        return self._squeezed(self._solver.out_of_fold(self._alphas(lam)))

    def out_of_fold_blocks(self, lam: float | Tensor | None = None) -> Iterator[Float64[Tensor, "b *t"]]:
        """The same of a file, in its blocks, so that memory does not follow the number of rows."""
        for predicted in self._solver.out_of_fold_blocks(self._alphas(lam)):
            yield self._squeezed(predicted)

    @on_cpu
    def standard_errors(self, lam: float | Tensor | None = None) -> Float64[Tensor, "p *t"]:
        """Standard errors of the coefficients (p,) or (p, t): how they vary with the noise, at fixed λ.

            the roots of the diagonal of σ̂² (X'X + αF)^-1 X'X (X'X + αF)^-1,   σ̂² = RSS / (n − dof)

        The bias that shrinking brings is not in them. NaN where n − dof is 0 but for rounding. Source: Hoerl
        and Kennard (1970).
        """
        alphas = self._alphas(lam)
        spread = torch.stack([self._solver.spread(float(alpha)) for alpha in alphas], dim=1)
        return self._squeezed(spread * self._noise(alphas))

    @on_cpu
    def model(self, lam: float | Tensor | None = None) -> RidgeModel:
        """The model at λ, which can be saved and used without the data; at the best λ without an argument."""
        alphas = self._alphas(lam)
        if float(alphas.min()) != float(alphas.max()):
            why = "targets have different λ; choose one for all of them, by --shared or shared=True"
            return self._model(lam, None, {"no_covariance": why})
        try:
            return self._model(lam, self._solver.covariance(float(alphas[0])).cpu(), {})
        except InputError as error:
            return self._model(lam, None, {"no_covariance": str(error)})

    def frame(self) -> pl.DataFrame:
        """One row per target and λ: target, lam, alpha, score, error, dof, precision, fold_1 and so on."""
        L, t = len(self.lambdas), self.scores[0].numel()
        names = self.targets or tuple(str(i + 1) for i in range(t))
        columns: dict[str, Any] = {"target": [name for name in names for _ in range(L)]}
        for name, values in (("lam", self.lambdas), ("alpha", self.alphas)):
            columns[name] = values.repeat(t).tolist()
        for name, values in (("score", self.scores), ("error", self.errors)):
            columns[name] = values.reshape(L, t).T.reshape(-1).tolist()
        for name, values in (("dof", self.dof), ("precision", self.precision)):
            columns[name] = values.repeat(t).tolist()
        for k, fold in enumerate(() if self.fold_scores is None else self.fold_scores):
            columns[f"fold_{k + 1}"] = fold.reshape(L, t).T.reshape(-1).tolist()
        return pl.DataFrame(columns)

    def coef_frame(self, lam: float | Tensor | None = None) -> pl.DataFrame:
        """The coefficients at λ as a table: target, column, coefficient, standard_error, per_sd.

        A row per target and column, and one, "(intercept)", for the intercept. `per_sd` is the coefficient
        times the column's standard deviation, which can be compared between columns. `standard_error` is that
        of `standard_errors`; null where fewer than one degree of freedom is left for the noise.
        """
        t = self.scores[0].numel()
        model = self._model(lam, None, {})
        sd, coef = model.scale, model.coef.reshape(self.p, t)
        left = self.n - torch.as_tensor(model.dof, dtype=torch.float64).expand(t)
        errors = self.standard_errors(lam).cpu().reshape(self.p, t)
        errors = torch.where(left >= LEAST_LEFT, errors, torch.nan)
        names = self.features or tuple(f"column {j + 1}" for j in range(self.p))
        intercept = model.intercept.reshape(t)
        parts = [
            pl.DataFrame(
                {
                    "target": [target] * (self.p + 1),
                    "column": ["(intercept)", *names],
                    "coefficient": [float(intercept[k]), *coef[:, k].tolist()],
                    "standard_error": pl.Series([None, *errors[:, k].tolist()], dtype=pl.Float64),
                    "per_sd": pl.Series([None, *(coef[:, k] * sd).tolist()], dtype=pl.Float64),
                }
            )
            for k, target in enumerate(self.targets or [str(k + 1) for k in range(t)])
        ]
        return pl.concat(parts).with_columns(pl.col("standard_error").fill_nan(None))

    def save(self, folder: str | Path) -> list[Path]:
        """Write path.safetensors, path.parquet (`frame`) and path.json into a folder, made if need be.

        Of the data nothing is kept but means and standard deviations of the columns. Coefficients are those
        of every λ of the grid; of the best and by one standard error only where they would take more than
        160 MB. Either all files are replaced or none; path.json has the checksums of the others.

        Returns:
            The files' paths.

        Raises:
            InputError: they cannot be written.
        """
        stored = store(self)
        numbers, table = tensor_bytes(tensors_of(stored)), BytesIO()
        self.frame().write_parquet(table)
        record = {
            "kind": KIND,
            "version": VERSION,
            "sha256": {"path.safetensors": sha256(numbers), "path.parquet": sha256(table.getvalue())},
            **{name: getattr(self, name) for name in PLAIN},
            "best": plain(self.best),
            "one_se": plain(self.one_se),
            "flat_range": self.flat_range,
            "single": self.scores.ndim == 1,
            "targets": self.targets,
            "notes": self.notes,
            "doubts": self.doubts,
            "settings": dict(self.settings),
            "context": dict(self._strength.context),
            "solver": values_of(stored),
            "environment": environment(),
            "features": self.features,
        }
        files = {"path.safetensors": numbers, "path.parquet": table.getvalue()}
        return write_together(folder, {**files, "path.json": json_bytes(record)})

    def _alphas(self, lam: float | Tensor | None) -> Float64[Tensor, " t"]:
        """α of λ, one for each target."""
        t = self.scores[0].numel()
        alphas = self._strength.alpha(self.best if lam is None else lam)
        if len(alphas) not in (1, t):
            raise InputError("one λ for each target is needed", "lam", len(alphas), f"give one, or {t}")
        return at_least(alphas, self._solver).expand(t).to(self._solver.device)

    @on_cpu
    def _solution(
        self, alphas: Float64[Tensor, " t"]
    ) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """Coefficients and intercepts; the last small ones are remembered: one asks for both in turn."""
        key = tuple(alphas.tolist())
        if key not in self._last:
            found = self._solver.solve(alphas)
            if found[0].numel() > REMEMBERED:
                return found
            self._last.clear()
            self._last[key] = found
        coef, intercept = self._last[key]
        return coef.clone(), intercept.clone()

    def _dof(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        s = self._solver.eigenvalues.cpu()
        return (s / (s + alphas.cpu()[:, None])).sum(1) + self._solver.unpenalized

    def _noise(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, " t"]:
        """σ̂ of each target at its α; NaN where no degree of freedom is left."""
        rss, s = self._solver.rss(alphas).diagonal(), self._solver.eigenvalues
        # n − dof without the difference of two numbers that are almost the same.
        left = (alphas / (s[:, None] + alphas)).sum(0) + self.n - len(s) - self._solver.unpenalized
        left = torch.where(left > NOTHING * self.n, left, torch.nan)
        return (rss / left).sqrt()

    def _squeezed(self, values: Tensor) -> Tensor:
        """Without the targets' axis where there is one target."""
        return values[..., 0] if self.scores.ndim == 1 else values

    def _model(
        self, lam: float | Tensor | None, covariance: Covariance | None, more: dict[str, Any]
    ) -> RidgeModel:
        alphas = self._alphas(lam)
        coef, intercept = self._solution(alphas)
        mean, sd = self._solver.inputs()
        given = self.best if lam is None else lam
        one = float(alphas.min()) == float(alphas.max())
        dof = self._dof(alphas)
        if self.n - float(dof.max()) < LEAST_LEFT:
            more = {**more, "no_noise": stronger(self, int(dof.argmax()))}
        return RidgeModel(
            coef=self._squeezed(coef).cpu(),
            intercept=self._squeezed(intercept).cpu(),
            features=self.features,
            targets=self.targets,
            lam=given.double().cpu() if isinstance(given, Tensor) and given.ndim else float(given),
            unit=self.unit,
            alpha=float(alphas[0]) if one else alphas.cpu(),
            n=self.n,
            dof=float(dof[0]) if one else dof,
            noise_sd=self._squeezed(self._noise(alphas)).cpu(),
            mean=mean.cpu(),
            scale=sd.cpu(),
            covariance=covariance,
            settings=dict(self.settings) | more,
        )
