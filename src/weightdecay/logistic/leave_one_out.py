"""Leave-one-out of logistic and multinomial regression by one Newton step from the fit, along λ.

Without row i the gradient at the fit is −g_i ⊗ x_i, with g_i = w_i (P_i − Y_i), and the Hessian
H − S_i ⊗ x_i x_i', with S_i = w_i (diag P_i − P_i P_i'). One Newton step from there changes the logits of the
row by

    B_i (I − S_i B_i)^-1 g_i,   B_i = (I ⊗ x_i)' H^-1 (I ⊗ x_i),   classes × classes

x_i with its one for the intercept (Rad and Maleki, 2020). Degrees of freedom are Σ_i tr S_i B_i; the evidence
is Laplace's. The matrices B_i need the inverse of H. They are smooth in log α: of a fine grid it is inverted
at some α, the pivots.

One step is short for the few rows that change the fit most. Those are really left out, and so are a few that
are drawn by lot, which tell how far the steps of the others are off.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.logistic.solve import Factor, Fit, Shared, System, newton, solve
from weightdecay.ridge.linalg import matmul, one_pool

LARGEST = 8192  # coordinates times classes, of which a Hessian is still inverted
DOUBLE = 1536  # up to which it is in double precision
APART = 0.4  # decades between pivots, at least
CHECKS = 0.24  # between α at which rows are really left out
MOST = 64  # rows that are really left out because one step is short for them, at most
SHORT = 0.5  # times the square of a change of log loss: about what one step misses
WANTED = 2e-3  # of the mean log loss, that all other rows may miss by that
NEAR = 4  # pivots that others are interpolated from
ENOUGH = 1e-3  # of the gradient that a row leaves, to which it is really left out


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Each row judged without it, at one α.

    Args:
        fit: of all rows, K = 1.
        logits: of each row by the model without it (n, c); rows of weight 0 as predicted.
        precision: of the mean log loss, relative: estimated from the rows that were really left out, here or
            at the α beside it where some were; 0 if none were.
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


@one_pool()
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
        draws: how many rows, drawn by lot, are really left out at a time beside those that change the fit
            most; 0 for none of both.
        seed: of the lot.
    """
    w, f = weights[None], penalty[None]
    fits = list(solve(X, labels, classes, w, f, alphas, intercept=intercept, tolerance=tolerance))
    inverses = Inverses(fits)
    generator = torch.Generator().manual_seed(seed)
    none, no_rows = torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
    checks = pivots([fit.alpha for fit in fits], CHECKS) if draws else []
    results, corrections = [], {}
    for at, fit in enumerate(fits):
        step = _Step(fit, inverses.forms(at))
        rows, differences, precision = no_rows, none, 0.0
        if at in checks:
            most = step.most()
            rows = torch.cat([most, step.lot(most, draws, generator)])
            exact = step.really(rows, inverses.factor(at))
            differences = step.losses[rows] - log_loss(exact, labels[rows])
            precision = step.precision(rows, differences)
            corrections[at] = torch.zeros_like(step.logits)
            corrections[at][rows] = exact - step.logits[rows]
        evidence = _evidence(fit, inverses.log_det(at))
        results.append(LeftOut(fit, step.logits, precision, step.dof, evidence, rows, differences))
    found = [result.precision for result in results]
    for at, result in enumerate(results):
        beside = [*[j for j in checks if j <= at][-1:], *[j for j in checks if j >= at][:1]]
        if beside:
            a, b = beside[0], beside[-1]
            logs = [math.log(fits[j].alpha) for j in (a, at, b)]
            share = 0.0 if a == b else (logs[0] - logs[1]) / (logs[0] - logs[2])
            logits = result.logits + torch.lerp(corrections[a], corrections[b], share)
            results[at] = replace(result, logits=logits, precision=max(found[a], found[b]))
    return results


@one_pool()
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
        parts = [(matmul(t, right).view(len(t), c - a, R) * t[:, None]).sum(2) for t in T.split(rows)]
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
        self.g = g = self.weights[:, None] * (P - y)
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
        self.before, self.losses = log_loss(Z, labels), log_loss(self.logits, labels)
        self.changes = (self.losses - self.before) * self.weights
        self.mean = float(self.weights @ self.losses / self.weights.sum())

    def most(self) -> Tensor:
        """Rows for which one step is short, those that change most first."""
        order = self.changes.abs().argsort(descending=True)
        squares = SHORT * (self.changes[order] ** 2).flip(0).cumsum(0).flip(0)
        count = int((squares > WANTED * self.mean * float(self.weights.sum())).sum())
        return order[: min(count, MOST)]

    def lot(self, most: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Some of the other rows."""
        others = self.weights.clone()
        others[most] = 0
        rows = (others > 0).nonzero()[:, 0]
        return rows[torch.randperm(len(rows), generator=generator)[:count]]

    def really(self, rows: Tensor, factor: Factor) -> Tensor:
        """Logits of rows by the model fitted without each (m, c)."""
        full, m, alpha = self.system, len(rows), self.fit.alpha
        weights = self.weights.repeat(m, 1)
        weights[torch.arange(m), rows] = 0
        D = full.D[-1:].expand(m, -1)
        system = System(replace(full.coordinates, D=D), full.labels, full.c, weights, full.intercept)
        start = self.U + factor.solve(self.v[rows][:, :, None] * full.T[rows][:, None])
        shared = Shared(system)
        shared.use(factor.solve)
        pulls = system.size(self.g[rows][:, :, None] * full.T[rows][:, None])
        U = newton(system, start, [], alpha, pulls.clamp_min(1e-300), ENOUGH, shared)[0]
        return (U @ full.T[rows][:, :, None])[:, :, 0]

    def precision(self, rows: Tensor, differences: Tensor) -> float:
        """By how much the mean log loss may be off, relative: what the steps of other rows may have missed.

        They are taken to miss as large a part of their changes as the rows that were really left out: of all
        those, or of the half that changes least, the larger; twice that is reported.
        """
        changes = (self.losses - self.before).abs()
        found, missed = changes[rows], differences.abs()
        least = found <= found.median()
        part = max(
            float(missed[some].sum() / found[some].sum().clamp_min(1e-300)) for some in (least, found >= 0)
        )
        others = self.weights * changes
        others[rows] = 0
        return 2 * part * float(others.sum()) / float(self.weights @ self.losses)


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


def pivots(alphas: Sequence[float], apart: float = APART) -> list[int]:
    """Places in a descending list of α that are so many decades apart, with the first and the last.

    >>> pivots([1.0, 0.1, 0.01]), pivots([1.0, 0.9, 0.8, 0.7])
    ([0, 1, 2], [0, 3])
    """
    places = [0]
    for at, alpha in enumerate(alphas):
        if alphas[places[-1]] / alpha >= 10**apart or (at == len(alphas) - 1 and at > places[-1]):
            places.append(at)
    return places
