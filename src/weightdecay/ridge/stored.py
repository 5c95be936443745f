"""A path without its data: solutions at the λ of its grid, as its files hold them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.covariance import Covariance
from weightdecay.ridge.route import Curve, Scale
from weightdecay.ridge.strength import Strength

if TYPE_CHECKING:
    from weightdecay.ridge.record import RidgePath

LARGEST = 20_000_000  # numbers in the table of coefficients: 160 MB,
LARGEST_COVARIANCE = 5_000_000  # and in each of two covariances: 40 MB
SAME = 1e-9  # relative difference of two α that are one: a λ may have been typed
AGAIN = "fit it again with `ridge_path`"


@dataclass(frozen=True)
class Stored:
    """The route of a loaded path: it looks up what was solved before, and refuses what needs the data.

    Args:
        name: what was decomposed, in words.
        n: rows that were fitted.
        strength: the convention of λ.
        alphas: where coefficients are known: an α for each target (m, t).
        coefs: coefficients there (m, p, t).
        intercepts: (m, t).
        squares: training residual sums of squares (m, t).
        eigenvalues: of the penalised, scaled, projected X'X on all rows, descending (k,).
        mean, sd: of the columns (p,).
        variance: of the targets (t,).
        scale: of the eigenvalues.
        unpenalized: how many coefficients are free, the intercept among them.
        still: places of the columns that do not vary.
        spreads: standard errors in units of σ (p,) by α, at the α that were chosen.
        covariances: (X'X + αF)^-1 by α likewise, or the reason why there is none.
    """

    name: str
    n: int
    strength: Strength
    alphas: Float64[Tensor, "m t"]
    coefs: Float64[Tensor, "m p t"]
    intercepts: Float64[Tensor, "m t"]
    squares: Float64[Tensor, "m t"]
    eigenvalues: Float64[Tensor, " k"]
    mean: Float64[Tensor, " p"]
    sd: Float64[Tensor, " p"]
    variance: Float64[Tensor, " t"]
    scale: Scale
    unpenalized: int
    still: list[int]
    spreads: Mapping[float, Float64[Tensor, " p"]]
    covariances: Mapping[float, Covariance | str]

    @property
    def device(self) -> torch.device:
        """Main memory."""
        return self.coefs.device

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self.coefs.shape[1]

    def inputs(self) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
        """Weighted means and standard deviations (1/n) of the columns."""
        return self.mean, self.sd

    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """Coefficients and intercepts, an α for each target.

        Raises:
            InputError: there are none at this α.
        """
        places, target = self._places(alphas), torch.arange(len(alphas))
        return self.coefs[places, :, target].mT.contiguous(), self.intercepts[places, target]

    def rss(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "L t"]:
        """The weighted training residual sum of squares; NaN where it is not known."""
        found = self.squares.new_full((len(alphas), self.squares.shape[1]), torch.nan)
        for row, alpha in zip(found, alphas, strict=True):
            places, targets = self._near(alpha).nonzero(as_tuple=True)
            row[targets] = self.squares[places, targets]
        return found

    def spread(self, alpha: float) -> Float64[Tensor, " p"]:
        """Standard errors of the coefficients in units of σ.

        Raises:
            InputError: there are none at this α.
        """
        return self._chosen(self.spreads, alpha, "no standard errors at this λ without the data")

    def covariance(self, alpha: float) -> Covariance:
        """(X'X + αF)^-1.

        Raises:
            InputError: there is none at this α.
        """
        found = self._chosen(self.covariances, alpha, "no intervals at this λ without the data")
        if isinstance(found, str):
            raise InputError("no intervals here", "covariance", "not kept", found)
        return found

    def curve(self, alphas: Float64[Tensor, " L"]) -> Curve:
        """Refused: scores are known on the grid of the path only."""
        raise _data_are_gone("scores at other λ", len(alphas))

    def out_of_fold(self, alphas: Float64[Tensor, " t"]) -> Float64[Tensor, "n t"]:
        """Refused: it takes the rows."""
        raise _data_are_gone("predictions out of fold", len(alphas))

    def out_of_fold_blocks(self, alphas: Float64[Tensor, " t"]) -> Iterator[Float64[Tensor, "b t"]]:
        """Refused likewise."""
        raise _data_are_gone("predictions out of fold", len(alphas))

    def _near(self, alphas: Tensor) -> Tensor:
        return (self.alphas - alphas).abs() <= SAME * alphas

    def _places(self, alphas: Float64[Tensor, " t"]) -> Tensor:
        """Where each target's α is among those that are known (t,)."""
        near = self._near(alphas)
        missing = (~near.any(0)).nonzero()[:, 0]
        if len(missing):
            target = int(missing[0])
            lam = _short(self.strength.lam(alphas[target : target + 1])[0])
            known = self.strength.lam(self.alphas[:, target].unique())
            what = "the path was saved without its data, and without coefficients at this λ"
            raise InputError(what, "lam", lam, f"there are those of {_listed(known)}; or {AGAIN}")
        return near.byte().argmax(0)

    def _chosen(self, known: Mapping[float, Any], alpha: float, what: str) -> Any:
        for one, found in known.items():
            if abs(one - alpha) <= SAME * alpha:
                return found
        lam = _short(self.strength.lam(torch.tensor([alpha], dtype=torch.float64))[0])
        there = self.strength.lam(torch.tensor([*known], dtype=torch.float64)) if known else None
        remedy = f"there are those of {_listed(there)}; or {AGAIN}" if there is not None else AGAIN
        raise InputError(what, "lam", lam, remedy)


def store(path: "RidgePath") -> Stored:
    """Solve at every λ of the grid; at the best and by one standard error only where that is too much.

    Standard errors and covariances are kept where one λ was chosen for all targets.
    """
    solver = path._solver
    if isinstance(solver, Stored):
        return solver
    choices = [path.best, path.one_se]
    size = path.lambdas.numel() * path.p * path.scores[0].numel()
    lambdas = path.lambdas.tolist() if size <= LARGEST else choices
    alphas = torch.stack([path._alphas(lam) for lam in lambdas])
    # One λ at a time, as the path itself solves: products of several at once differ in their last bits.
    coefs, intercepts = zip(*(solver.solve(row) for row in alphas), strict=True)
    chosen = {float(path._alphas(lam)[0]) for lam in choices if isinstance(lam, float)}
    mean, sd = solver.inputs()
    return Stored(
        name=path.route,
        n=path.n,
        strength=path._strength,
        alphas=alphas.cpu(),
        coefs=torch.stack(coefs).cpu(),
        intercepts=torch.stack(intercepts).cpu(),
        squares=torch.stack([solver.rss(row).diagonal() for row in alphas]).cpu(),
        eigenvalues=solver.eigenvalues.cpu(),
        mean=mean.cpu(),
        sd=sd.cpu(),
        variance=solver.variance.cpu(),
        scale=solver.scale,
        unpenalized=solver.unpenalized,
        still=solver.still,
        spreads={alpha: solver.spread(alpha).cpu() for alpha in sorted(chosen)},
        covariances={alpha: _covariance(path, alpha) for alpha in sorted(chosen)},
    )


def _covariance(path: "RidgePath", alpha: float) -> Covariance | str:
    side = min(path.n, path.p)
    if side * path.p > LARGEST_COVARIANCE:
        return f"{side:,} × {path.p:,} numbers are too many for a path; save `path.model()`, which has them"
    try:
        return path._solver.covariance(alpha).cpu()
    except InputError as error:
        return str(error)


def tensors_of(stored: Stored) -> dict[str, Tensor]:
    """What is a tensor, by name."""
    found = {name: getattr(stored, name) for name in _TENSORS}
    for k, (alpha, spread) in enumerate(stored.spreads.items()):
        found[f"spread.{k}"] = spread
        covariance = stored.covariances[alpha]
        if isinstance(covariance, Covariance):
            found |= {f"covariance.{k}.{name}": part for name, part in covariance.tensors().items()}
    return found


def values_of(stored: Stored) -> dict[str, Any]:
    """What is not, as plain values."""
    return {
        "scale": [stored.scale.mean, stored.scale.largest],
        "unpenalized": stored.unpenalized,
        "still": stored.still,
        "chosen": [*stored.spreads],
        "no_covariance": [one if isinstance(one, str) else None for one in stored.covariances.values()],
    }


def stored_of(
    tensors: Mapping[str, Tensor], values: Mapping[str, Any], name: str, n: int, strength: Strength
) -> Stored:
    """From `tensors_of` and `values_of`."""
    spreads, covariances = {}, {}
    for k, (alpha, why) in enumerate(zip(values["chosen"], values["no_covariance"], strict=True)):
        prefix = f"covariance.{k}."
        parts = {key.removeprefix(prefix): part for key, part in tensors.items() if key.startswith(prefix)}
        spreads[alpha] = tensors[f"spread.{k}"]
        covariances[alpha] = Covariance.of(parts, tensors["mean"]) if why is None else why
    return Stored(
        name=name,
        n=n,
        strength=strength,
        **{key: tensors[key] for key in _TENSORS},
        scale=Scale(*values["scale"]),
        unpenalized=values["unpenalized"],
        still=values["still"],
        spreads=spreads,
        covariances=covariances,
    )


_TENSORS = ("alphas", "coefs", "intercepts", "squares", "eigenvalues", "mean", "sd", "variance")


def _data_are_gone(what: str, count: int) -> InputError:
    return InputError(f"{what} need the data, which a loaded path does not have", "λ", count, AGAIN)


def _listed(lambdas: Tensor) -> str:
    ordered = lambdas.sort().values
    if len(ordered) <= 4:
        return "λ = " + ", ".join(_short(lam) for lam in ordered)
    return f"{len(ordered)} λ from {_short(ordered[0])} to {_short(ordered[-1])}, `path.lambdas`"


def _short(value: Any) -> str:
    return f"{float(value):.6g}"
