"""Leave-one-out of logistic and multinomial regression by one Newton step from the fit, along λ.

Without row i the gradient at the fit is −g_i ⊗ x_i, with g_i = w_i (P_i − Y_i), and the Hessian
H − S_i ⊗ x_i x_i', with S_i = w_i (diag P_i − P_i P_i'). One Newton step from there changes the logits of the
row by

    B_i (I − S_i B_i)^-1 g_i,   B_i = (I ⊗ x_i)' H^-1 (I ⊗ x_i),   classes × classes

x_i with its one for the intercept (Rad and Maleki, 2020). Degrees of freedom are Σ_i tr S_i B_i; the evidence
is Laplace's. The matrices B_i need the inverse of H. They are smooth in log α: of a fine grid it is inverted
at some α, the pivots. A few rows are really left out, to see how far the step is off.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.logistic.solve import Factor, Fit, Shared, System, newton, solve

LARGEST = 8192  # coordinates times classes, of which a Hessian is still inverted
DOUBLE = 1536  # up to which it is in double precision
APART = 0.4  # decades between pivots, at least
NEAR = 4  # pivots that others are interpolated from
ENOUGH = 1e-3  # of what a row changes, to which it is really left out


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Each row judged without it, at one α.

    Args:
        fit: of all rows, K = 1.
        logits: of each row by the model without it (n, c), by one Newton step; rows of weight 0 as predicted.
        precision: of the mean log loss: the largest difference of a row's log loss from that of the model
            really fitted without it, over the mean; of the rows that were drawn, here or at the α beside it
            where some were; 0 if none were.
        dof: effective degrees of freedom of the fit, with those that are not penalised.
        evidence: −2 log of the Laplace approximation to the evidence, over Σ w.
        rows: that were really left out here (m,).
        differences: of their log loss, by one step less really left out (m,).
    """

    fit: Fit
    logits: Float64[Tensor, "n c"]
    precision: float
    dof: float
    evidence: float
    rows: Int64[Tensor, " m"]
    differences: Float64[Tensor, " m"]


def invertible(rows: int, columns: int, classes: int) -> bool:
    """Whether the Hessian is small enough for leave-one-out, degrees of freedom and evidence."""
    return (min(rows, columns) + 1) * (1 if classes == 2 else classes) <= LARGEST


def leave_one_out(
    X: Float[Tensor, "n p"],
    labels: Int64[Tensor, " n"],
    classes: int,
    weights: Float64[Tensor, " n"],
    penalty: Float64[Tensor, " p"],
    alphas: Float64[Tensor, " L"],
    *,
    intercept: bool = True,
    tolerance: float = 1e-8,
    draws: int = 8,
    seed: int = 0,
) -> list[LeftOut]:
    """Return each α from the strongest to the weakest.

    Args:
        X: as `solve`'s, like the others.
        labels: (n,).
        classes: C.
        weights: of one problem (n,).
        penalty: of one problem (p,).
        alphas: (L,).
        intercept: whether there is one; it moves where a row is left out.
        tolerance: of the fits.
        draws: how many rows are really left out at a time: one half drawn by lot, the other those whose log
            loss one step changes most; 0 for none.
        seed: of the lot.
    """
    w, f = weights[None], penalty[None]
    fits = list(solve(X, labels, classes, w, f, alphas, intercept=intercept, tolerance=tolerance))
    inverses = Inverses(fits)
    system = fits[0].parts[0][0]
    norm = system.size(system.evaluate(system.start(), system.all, 0.0)[1])
    generator = torch.Generator().manual_seed(seed)
    results, checked = [], inverses.between() if draws else []
    for at, fit in enumerate(fits):
        step = _Step(fit, inverses.forms(at))
        rows, differences = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
        if at in checked:
            rows = step.draw(draws, generator)
            differences = step.differences(rows, inverses.factor(at), norm)
        largest = float(differences.abs().max()) / step.mean if len(rows) else 0.0
        evidence = _evidence(fit, inverses.log_det(at))
        results.append(LeftOut(fit, step.logits, largest, step.dof, evidence, rows, differences))
    found = [result.precision for result in results]
    for at, result in enumerate(results):
        beside = [*[j for j in checked if j <= at][-1:], *[j for j in checked if j >= at][:1]]
        if beside:
            results[at] = replace(result, precision=max(found[j] for j in beside))
    return results


def laplace(fits: Sequence[Fit], k: int = -1) -> tuple[Float64[Tensor, " L"], Float64[Tensor, " L"]]:
    """Degrees of freedom and evidence, as `LeftOut` has them, of problem k (L,); fits strong to weak."""
    inverses = Inverses(fits, k)
    dof = [_Step(fit, inverses.forms(at), k).dof for at, fit in enumerate(fits)]
    evidence = [_evidence(fit, inverses.log_det(at), k) for at, fit in enumerate(fits)]
    return torch.tensor(dof, dtype=torch.float64), torch.tensor(evidence, dtype=torch.float64)


class Inverses:
    """What the inverse of the Hessian says of the rows, along α.

    Args:
        fits: from strong to weak.
        k: the problem.
    """

    def __init__(self, fits: Sequence[Fit], k: int = -1):
        self.places = pivots([fit.alpha for fit in fits])
        self.logs = torch.tensor([fit.alpha for fit in fits], dtype=torch.float64).log()
        self.c = fits[0].part(k)[0].c
        made = [_pivot(fits[at], k) for at in self.places]
        self._forms, self._log_dets = torch.stack([each[0] for each in made]), [each[1] for each in made]
        self._factors = [each[2] for each in made]

    def between(self) -> list[int]:
        """Places half way between pivots; of pivots beside one another the first, and the last."""
        return [*[(a + b) // 2 for a, b in pairwise(self.places)], self.places[-1]]

    def factor(self, at: int) -> Factor:
        """The factor of the nearest pivot."""
        return self._factors[min(range(len(self.places)), key=lambda j: abs(self.places[j] - at))]

    def forms(self, at: int) -> Float64[Tensor, "n c c"]:
        """B of each row."""
        packed = torch.zeros(self._forms.shape[1:], dtype=torch.float64)
        for j, share in self._shares(at):
            packed += share * self._forms[j]
        packed *= math.exp(-float(self.logs[at]) / 2)
        a, b = torch.triu_indices(self.c, self.c)
        B = packed.new_empty(len(packed), self.c, self.c)
        B[:, a, b] = packed
        B[:, b, a] = packed
        return B

    def log_det(self, at: int) -> float:
        """Log |H|, without what nothing determines."""
        return sum(share * self._log_dets[j] for j, share in self._shares(at))

    def _shares(self, at: int) -> list[tuple[int, float]]:
        """The nearest pivots and their weights, of the polynomial in log α through them."""
        if at in self.places:
            return [(self.places.index(at), 1.0)]
        near = sorted(
            range(len(self.places)), key=lambda j: abs(float(self.logs[self.places[j]] - self.logs[at]))
        )
        x = {j: float(self.logs[self.places[j]]) for j in near[:NEAR]}
        point = float(self.logs[at])
        return [(j, math.prod((point - x[i]) / (x[j] - x[i]) for i in x if i != j)) for j in x]


def _pivot(fit: Fit, k: int) -> tuple[Tensor, float, Factor]:
    """√α B of each row, the pairs a ≤ b of classes (n, pairs); log |H|; its factor."""
    system, U = fit.part(k)
    c, R, index = system.c, system.R, torch.tensor([k % system.K])
    assert R * c <= LARGEST
    dtype = torch.float64 if R * c <= DOUBLE else torch.float32
    curvature = system.evaluate(U, index, fit.alpha, dtype)[2]
    pull = (fit.alpha * system.D[index[0]]).to(dtype)
    H = system.hessian(curvature, 0, pull)
    log_det = 0.0
    if c > 1:  # what is free and the same for all classes
        for j in (pull == 0).nonzero()[:, 0].tolist():
            at = torch.arange(c) * R + j
            log_det -= math.log(float(H[at[:, None], at].sum()) / c)
    factor = Factor(H)
    log_det += 2 * float(factor.L.diagonal().double().log().sum() - factor.scale.double().log().sum())
    inverse = factor.inverse().view(c, R, c, R)
    T, forms = system.inputs(dtype), []
    for a in range(c):
        right = inverse[a, :, a:].reshape(R, -1)
        rows = max(256, (1 << 22) // right.shape[1])
        parts = [((t @ right).view(len(t), c - a, R) * t[:, None]).sum(2) for t in T.split(rows)]
        forms.append(torch.cat(parts))
    return torch.cat(forms, 1) * fit.alpha**0.5, log_det, factor


class _Step:
    """One Newton step for each row left out.

    Args:
        fit: of all rows.
        B: (n, c, c).
        k: the problem.
    """

    def __init__(self, fit: Fit, B: Tensor, k: int = -1):
        self.fit = fit
        self.system, self.U = fit.part(k)
        self.weights = self.system.weights[k]
        labels, c = self.system.labels, self.system.c
        Z = self.system.T @ self.U[0].mT
        y = torch.nn.functional.one_hot(labels, max(2, c)).double()[:, -c:]
        P = Z.sigmoid() if c == 1 else Z.softmax(1)
        g = self.weights[:, None] * (P - y)
        S = (self.weights[:, None] * P)[:, :, None] * (
            (1 - P)[:, :, None] if c == 1 else torch.eye(c) - P[:, None]
        )
        SB = S @ B
        self.dof = float(SB.diagonal(dim1=1, dim2=2).sum())
        if c == 1:
            self.v = g / (1 - SB[:, 0]).clamp_min(1e-12)
        else:
            self.v = torch.linalg.solve(torch.eye(c, dtype=torch.float64) - SB, g)
        self.logits = Z + (B @ self.v[:, :, None])[:, :, 0]
        before, self.losses = log_loss(Z, labels), log_loss(self.logits, labels)
        self.changes = (self.losses - before) * self.weights
        self.mean = float(self.weights @ self.losses / self.weights.sum())

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows to leave out really: those that change most, and as many by lot."""
        there = int((self.weights > 0).sum())
        most = self.changes.abs().topk(min(count // 2, there)).indices
        others = self.weights.clone()
        others[most] = 0
        lot = (others > 0).nonzero()[:, 0]
        lot = lot[torch.randperm(len(lot), generator=generator)[: count - len(most)]]
        return torch.cat([most, lot])

    def differences(self, rows: Tensor, factor: Factor, norm: Tensor) -> Tensor:
        """Log loss of rows by one step, less that of the model fitted without each (m,)."""
        full, m, alpha = self.system, len(rows), self.fit.alpha
        weights = self.weights.repeat(m, 1)
        weights[torch.arange(m), rows] = 0
        D = full.D[-1:].expand(m, -1)
        system = System(replace(full.coordinates, D=D), full.labels, full.c, weights, full.intercept)
        start = self.U + factor.solve(self.v[rows][:, :, None] * full.T[rows][:, None])
        shared = Shared(system)
        shared.use(factor.solve)
        tolerance = ENOUGH / len(full.labels)
        U = newton(system, start, [], alpha, norm.expand(m), tolerance, shared)[0]
        logits = (U @ full.T[rows][:, :, None])[:, :, 0]
        return self.losses[rows] - log_loss(logits, full.labels[rows])


def log_loss(logits: Float64[Tensor, "n c"], labels: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """−log of the probability of each label."""
    if logits.shape[1] == 1:
        return torch.nn.functional.softplus(torch.where(labels == 1, -logits[:, 0], logits[:, 0]))
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def _evidence(fit: Fit, log_det: float, k: int = -1) -> float:
    """−2 log ∫ exp(−objective) under the prior N(0, 1/(α f)), flat where f = 0, by Laplace, over Σ w."""
    system = fit.part(k)[0]
    D = system.D[k]
    free, c = int((D == 0).sum()), system.c
    prior = c * float((fit.alpha * D[D > 0]).log().sum())
    flat = free * max(1, c - 1) * math.log(2 * math.pi)
    return (2 * float(fit.objective[k]) - prior + log_det - flat) / float(system.weights[k].sum())


def pivots(alphas: Sequence[float]) -> list[int]:
    """Places, in a descending list of α, at which the Hessian is inverted; the first and the last among them.

    >>> pivots([1.0, 0.1, 0.01]), pivots([1.0, 0.9, 0.8, 0.7])
    ([0, 1, 2], [0, 3])
    """
    places = [0]
    for at, alpha in enumerate(alphas):
        if alphas[places[-1]] / alpha >= 10**APART or (at == len(alphas) - 1 and at > places[-1]):
            places.append(at)
    return places
