"""Logistic and multinomial regression along λ, several problems at once.

Each problem k minimises over (W, b)

    Σ_i w_ki logloss_ki + α/2 Σ_j f_kj ‖W_kj‖²

with one logit where there are two classes, and else the symmetric softmax, whose coefficients sum to zero
over the classes. The intercept b is free. A row of weight 0 is held out.

All problems, the folds and the final fit, are solved together by Newton's method: their logits and gradients
are one product with the inputs each. The equations of a step are solved by conjugate gradients to the
precision that the step deserves, in single precision, preconditioned by a Hessian that the problems share;
gradients and objectives are of double precision. α runs from strong to weak, and each start is extrapolated
from the fits before.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.ridge.linalg import EPS, eigh, gram

BLOCK = 1 << 19  # logits that are made together
EXACT = 1e8  # multiplications of the problems' own Hessians, up to which each problem has its own
DENSE = 2e9  # of one Hessian that all share
BLOCKS = 3e11  # of one Hessian for each class
NEWTON, CONJUGATE = 100, 200  # steps at most
HISTORY = 5  # fits that a start is extrapolated from
STALE = 1.7  # α of a shared Hessian, over the present one, up to which it serves
KIND = None
FIXED = 0
Apply = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Fit:
    """The fits of K problems at one α.

    Args:
        alpha: the penalty on the sum.
        place: of this α among those that were given.
        objective: Σ w logloss + α/2 Σ f ‖W_j‖² (K,).
        gradient: norm of the gradient over its norm at W = 0 and the best intercept (K,), each column taken
            in the unit in which its penalty factor is 1.
        U: coefficients in the coordinates of the system.
        system: the problems.
    """

    alpha: float
    place: int
    objective: Float64[Tensor, " K"]
    gradient: Float64[Tensor, " K"]
    U: Float64[Tensor, "K c R"]
    system: "System"

    @cached_property
    def _original(self) -> tuple[Float64[Tensor, "K c p"], Float64[Tensor, "K c"]]:
        return self.system.coordinates.original(self.U)

    @property
    def coef(self) -> Float64[Tensor, "K c p"]:
        """W, for X as it was given."""
        return self._original[0]

    @property
    def intercept(self) -> Float64[Tensor, "K c"]:
        """b; zero where there is none."""
        return self._original[1]

    def logits(self, k: int, rows: Int64[Tensor, " m"] | slice = slice(None)) -> Float64[Tensor, "m c"]:
        """Logits of some rows, or of all, by problem k."""
        return self.system.coordinates.T[rows] @ self.U[k].mT

    def at(self, k: int) -> tuple[Float64[Tensor, "c p"], Float64[Tensor, " c"]]:
        """W and b of one problem."""
        coef, intercept = self.system.coordinates.original(self.U[k : k + 1])
        return coef[0], intercept[0]


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Inputs in which all penalty factors are 1, or nearly so: logits are T U'.

    Columns are centred where there is an intercept, which is a column of ones. Where the problems share their
    penalty factors the others are the principal axes, no more of them than rows.

    Args:
        T: (n, R).
        D: penalty factors of the coordinates, 0 for those that are free (K, R).
        mean: of the columns before they were centred (R,).
        beyond: squared norm of the mean that lies outside of the coordinates.
        original: U (K, c, R) as W (K, c, p) and b (K, c).
    """

    T: Float64[Tensor, "n R"]
    D: Float64[Tensor, "K R"]
    mean: Float64[Tensor, " R"]
    beyond: float
    original: Callable[[Tensor], tuple[Tensor, Tensor]]


def coordinates(X: Tensor, penalty: Tensor, intercept: bool) -> Coordinates:
    """Coordinates for X (n, p) and penalty factors (K, p); these are equal for all problems where p > n."""
    (n, p), K = X.shape, len(penalty)
    f = penalty[-1]
    same = bool((penalty == f).all())
    mean = X.mean(0, dtype=torch.float64) * intercept
    unit = torch.where(f > 0, f, 1).rsqrt()
    free, pen = (f == 0).nonzero()[:, 0], (f > 0).nonzero()[:, 0]
    if not same:
        free, pen = free[:0], torch.arange(p)
    everything = len(pen) == p
    A = (X if everything else X[:, pen]).double() - mean[pen]
    A *= unit[pen]
    D = penalty[:, pen] * unit[pen] ** 2
    V = None
    if same:
        D = torch.ones_like(D)
        if len(pen) <= n:
            V = eigh(gram(A.mT))[1]
            T = A @ V
        else:
            s, E = eigh(gram(A))
            kept = s > n * EPS * s[-1]
            s, E = s[kept], E[:, kept]
            T = E * s.sqrt()
            V = A.mT @ (E / s.sqrt())
            D = D.new_ones(K, len(s))
    else:
        T = A
    F = X[:, free].double() - mean[free]
    size = (F**2).mean(0).sqrt()
    size = torch.where(size > 0, size, 1)
    F /= size
    parts = [T, F, *([T.new_ones(n, 1)] if intercept else [])]
    m = mean[pen] * unit[pen]
    inside = m if V is None else m @ V
    r, q = T.shape[1], len(free)

    def original(U: Tensor) -> tuple[Tensor, Tensor]:
        W = U.new_zeros(*U.shape[:2], p)
        W[:, :, pen] = (U[:, :, :r] if V is None else U[:, :, :r] @ V.mT) * unit[pen]
        W[:, :, free] = U[:, :, r : r + q] / size
        b = U[:, :, -1] if intercept else U.new_zeros(U.shape[:2])
        return W, b - W @ mean

    return Coordinates(
        torch.cat(parts, 1),
        torch.cat([D, D.new_zeros(K, q + intercept)], 1),
        torch.cat([inside, mean[free] / size, mean.new_zeros(int(intercept))]),
        float((m**2).sum() - (inside**2).sum()) if V is not None and V.shape[1] < p else 0.0,
        original,
    )


class System:
    """K problems on the same rows: objectives, gradients, Hessians.

    Args:
        coordinates: of the inputs.
        labels: (n,).
        c: logits of a row.
        weights: (K, n).
        intercept: whether the last coordinate is one.
    """

    def __init__(self, coordinates: Coordinates, labels: Tensor, c: int, weights: Tensor, intercept: bool):
        self.coordinates, self.labels, self.c, self.weights = coordinates, labels, c, weights
        self.T, self.D, self.intercept = coordinates.T, coordinates.D, intercept
        self.single = self.T.float()
        self.plain = bool(((weights == 0) | (weights == 1)).all())
        self.n, self.R = self.T.shape
        self.K = len(weights)
        self.all = torch.arange(self.K)

    def start(self) -> Tensor:
        """Zero, and the intercept that gives the shares of the classes."""
        U = self.T.new_zeros(self.K, self.c, self.R)
        if self.intercept:
            y = torch.nn.functional.one_hot(self.labels, max(2, self.c)).double()[:, -self.c :]
            share = (self.weights @ y) / self.weights.sum(1, keepdim=True)
            if self.c == 1:
                U[:, :, -1] = share.log() - (1 - share).log()
            else:
                U[:, :, -1] = share.log() - share.log().mean(1, keepdim=True)
        return U

    def evaluate(
        self, U: Tensor, ks: Tensor, alpha: float, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Objective (k,), gradient (k, c, R) and curvature of some of the problems at U (k, c, R).

        The curvature is P and w P, probabilities (k, c, n), or of one logit w P (1 − P) twice.
        """
        k, c, n = len(ks), self.c, self.n
        objective, G = U.new_zeros(k), U.new_zeros(k * c, self.R)
        P = torch.empty(k, c, n, dtype=dtype)
        weighted = P if self.plain or c == 1 else torch.empty_like(P)
        rows = max(256, BLOCK // (k * c))
        flat = U.reshape(k * c, self.R)
        weights = self.weights if k == self.K else self.weights[ks]
        for first in range(0, n, rows):
            b = slice(first, min(n, first + rows))
            T, y = self.T[b], self.labels[b]
            w = weights[:, None, b]
            Z = (flat @ T.mT).view(k, c, -1)
            if c == 1:
                label = y.double()
                probability = Z.sigmoid()
                loss = torch.nn.functional.softplus(Z) - Z * label
                objective += (loss * w).sum((1, 2))
                P[..., b] = probability * (1 - probability) * w
                Z = (probability - label) * w
            else:
                place = y.expand(k, 1, -1)
                Z -= Z.amax(1, keepdim=True)
                own = Z.gather(1, place)
                Z.exp_()
                total = Z.sum(1, keepdim=True)
                objective += ((total.log() - own) * w).sum((1, 2))
                if self.plain:
                    Z *= w / total
                    P[..., b] = Z
                else:
                    Z /= total
                    P[..., b] = Z
                    Z *= w
                    weighted[..., b] = Z
                Z.scatter_add_(1, place, -w)
            G += Z.view(k * c, -1) @ T
        pull = alpha * self.D[ks][:, None] * U
        objective += (pull * U).sum((1, 2)) / 2
        return objective, G.view_as(U) + pull, (P, weighted)

    def size(self, G: Tensor) -> Tensor:
        """Norm of the gradient with respect to coefficients of columns that are not centred (k,)."""
        if not self.intercept:
            return G.flatten(1).norm(dim=1)
        b = G[:, :, -1:]
        squares = ((G + b * self.coordinates.mean) ** 2).sum((1, 2))
        return (squares + self.coordinates.beyond * (b**2).sum((1, 2))).sqrt()

    def product(self, V: Tensor, curvature: tuple[Tensor, Tensor], pull: Tensor) -> Tensor:
        """Hessian times V (k, c, R), in the precision of V."""
        P, weighted = curvature
        k, c = V.shape[:2]
        T = self.single if V.dtype == torch.float32 else self.T
        flat, out = V.reshape(k * c, -1), V * pull
        total = out.view(k * c, -1)
        rows = max(256, BLOCK // (k * c))
        for first in range(0, self.n, rows):
            b = slice(first, min(self.n, first + rows))
            Z = (flat @ T[b].mT).view(k, c, -1)
            Z *= weighted[..., b]
            if c > 1:
                Z.addcmul_(P[..., b], Z.sum(1, keepdim=True), value=-1)
            total.addmm_(Z.view(k * c, -1), T[b])
        return out

    def hessian(self, curvature: tuple[Tensor, Tensor], k: int, pull: Tensor) -> Tensor:
        """The Hessian of one problem, of coordinates within classes (c R, c R), as the curvature's dtype.

        What is free and the same for all classes, which nothing determines, is given a curvature.
        """
        P, weighted = (each[k] for each in curvature)
        c, n, R = self.c, self.n, self.R
        T = self.single if P.dtype == torch.float32 else self.T
        if c == 1:
            return (T.mT * weighted) @ T + pull.diag()
        root = (weighted * P).sqrt()  # √w P
        H = torch.zeros(c * R, c * R, dtype=P.dtype)
        own = torch.zeros(c, R, R, dtype=P.dtype)
        rows = max(R, (1 << 24) // (c * R))
        for first in range(0, n, rows):
            b = slice(first, min(n, first + rows))
            columns = T[b].mT.contiguous()
            H -= gram((root[:, None, b] * columns).view(c * R, -1))
            own += (weighted[:, None, b] * columns) @ T[b]
        for j in range(c):
            H[j * R : (j + 1) * R, j * R : (j + 1) * R] += own[j]
        H.diagonal().add_(pull.repeat(c))
        free = (pull == 0).nonzero()[:, 0]
        if len(free):
            at = (torch.arange(c)[:, None] * R + free).T  # (q, c)
            scale = own[:, free, free].sum(0) / c
            H[at[:, :, None], at[:, None]] += (scale / c)[:, None, None]
        return H


def solve(
    X: Float[Tensor, "n p"],
    labels: Int64[Tensor, " n"],
    classes: int,
    weights: Float64[Tensor, "K n"],
    penalty: Float64[Tensor, "K p"],
    alphas: Float64[Tensor, " L"],
    *,
    intercept: bool = True,
    tolerance: float = 1e-8,
) -> Iterator[Fit]:
    """Yield the fits from the strongest α to the weakest.

    Args:
        X: inputs (n, p), float32 or float64.
        labels: 0 to classes − 1 (n,).
        classes: C; two have c = 1 logit, that of class 1, more have c = C.
        weights: w ≥ 0 (K, n); zero is held out. The last problem is the one that the others are most like,
            the fit of all rows.
        penalty: f ≥ 0 (K, p).
        alphas: α > 0 (L,), in any order.
        intercept: whether there is a free one.
        tolerance: of the gradient's norm, in its norm at the start.
    """
    c = 1 if classes == 2 else classes
    system = System(coordinates(X, penalty, intercept), labels, c, weights, intercept)
    return descend(system, alphas, tolerance)


def descend(system: System, alphas: Tensor, tolerance: float) -> Iterator[Fit]:
    """Yield the fits of a system from the strongest α to the weakest."""
    start = system.start()
    norms = system.size(system.evaluate(start, system.all, 0.0)[1])
    past: list[tuple[float, Tensor]] = []
    shared = Shared(system)
    global LAST
    LAST = shared
    for place in alphas.argsort(descending=True).tolist():
        alpha = float(alphas[place])
        U = extrapolated(past, alpha) if past else start
        U, objective, gradient = newton(system, U, alpha, norms, tolerance, shared)
        past = [*past[1 - HISTORY :], (alpha, U)]
        yield Fit(alpha, place, objective, gradient, U, system)


def extrapolated(past: list[tuple[float, Tensor]], alpha: float) -> Tensor:
    """Coefficients at α by the polynomial in log α through the last fits.

    Of as many of them as would have been best for the last fit.
    """
    x = torch.tensor([each[0] for each in past], dtype=torch.float64).log()

    def at(point: float, nodes: list[int]) -> Tensor:
        total = torch.zeros_like(past[0][1])
        for i in nodes:
            share = 1.0
            for j in nodes:
                share *= float((point - x[j]) / (x[i] - x[j])) if j != i else 1.0
            total += share * past[i][1]
        return total

    last = len(past) - 1
    errors = [
        float((at(float(x[last]), list(range(last - m, last))) - past[last][1]).norm())
        for m in range(1, last + 1)
    ]
    m = 1 + min(range(len(errors)), key=errors.__getitem__) if errors else 1
    target = float(torch.tensor(alpha, dtype=torch.float64).log())
    return at(target, list(range(last + 1 - min(m + (m == last), last + 1), last + 1)))


class Shared:
    """A preconditioner for all problems of a system: the inverse of a Hessian that is like theirs."""

    def __init__(self, system: System):
        n, N, R, c = system.n, system.R * system.c, system.R, system.c
        self.system = system
        self.kind = "diagonal"
        if system.K * n * N**2 <= EXACT:
            self.kind = "exact"
        elif n * N**2 + N**3 / 3 <= DENSE:
            self.kind = "dense"
        elif c * (n * R**2 + R**3 / 3) <= BLOCKS:
            self.kind = "blocks"
        if KIND: self.kind = KIND
        self.alpha = float("inf")
        self.apply: Apply | None = None
        self.steps = 0
        self.made = 0
        self.by = {}

    def prepare(self, curvature: tuple[Tensor, Tensor], k: int, alpha: float) -> Apply:
        """The inverse at problem k's curvature and α, or that of before where it still serves."""
        if self.apply is None or self.alpha > STALE * alpha:
            pull = alpha * self.system.D[-1]
            self.made += 1
            self.apply, self.alpha = self._make(curvature, k, pull), alpha
        return self.apply

    def _make(self, curvature: tuple[Tensor, Tensor], k: int, pull: Tensor) -> Apply:
        system, P = self.system, curvature[0]
        c, R = system.c, system.R
        pull = pull.to(P.dtype)
        T = system.single if P.dtype == torch.float32 else system.T
        if self.kind in ("dense", "exact"):
            L = definite(system.hessian(curvature, k, pull))
            return lambda r: torch.cholesky_solve(r.reshape(len(r), -1).mT, L).mT.reshape(r.shape)
        if self.kind in ("axes", "kron"):
            Pk, Pw = P[k], curvature[1][k]
            total = (Pw * (1 - Pk)).sum(0)
            G = gram((T * total[:, None].sqrt()).mT)
            V = eigh(G)[1] if FIXED == 0 else torch.eye(R, dtype=P.dtype)
            A = T @ V
            if self.kind == "axes":
                B = torch.zeros(R, c, c, dtype=P.dtype)
                A2 = (A**2).mT.contiguous()
                for j in range(c):
                    B[:, j, :] = -A2 @ (Pw[j] * Pk).mT
                    B[:, j, j] += A2 @ Pw[j]
            else:
                B0 = -(Pw * total) @ Pk.mT + torch.diag(Pw @ total)
                B0 /= (total**2).sum()
                B = (A**2 * total[:, None]).sum(0)[:, None, None] * B0
            B.diagonal(dim1=1, dim2=2).add_(((V**2).mT @ pull)[:, None])
            fix = torch.ones(c, c, dtype=P.dtype) / c**2
            B += B.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] * fix
            Bi = torch.linalg.inv(B)
            return lambda r: ((Bi @ (r @ V).permute(2, 1, 0)).permute(2, 1, 0) @ V.mT).contiguous()
        weight = (curvature[1][k] if c == 1 else curvature[1][k] * (1 - P[k])).clamp_min(0)
        if self.kind == "blocks":
            inverse = torch.empty(c, R, R, dtype=P.dtype)
            for j in range(c):
                H = gram((T * weight[j, :, None].sqrt()).mT)
                H.diagonal().add_(pull)
                inverse[j] = torch.cholesky_inverse(definite(H))
            return lambda r: torch.matmul(inverse, r.permute(1, 2, 0)).permute(2, 0, 1).contiguous()
        H = weight @ T**2 + pull
        return lambda r: r / H


def definite(H: Tensor) -> Tensor:
    """Cholesky factor of a Hessian; where rounding has made it indefinite, of one a little larger."""
    L, info = torch.linalg.cholesky_ex(H)
    more = torch.finfo(H.dtype).eps * float(H.diagonal().max()) or 1.0
    while int(info) > 0:
        H.diagonal().add_(more)
        L, info = torch.linalg.cholesky_ex(H)
        more *= 10
    return L


def newton(
    system: System, U: Tensor, alpha: float, norms: Tensor, tolerance: float, shared: Shared
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients, objectives and gradients' norms, of that at the start, of all problems at α."""
    U = U.clone()
    exact = shared.kind == "exact"
    dtype = torch.float64 if exact else torch.float32
    objective, G, curvature = system.evaluate(U, system.all, alpha, dtype)
    sizes = system.size(G) / norms
    ks = system.all
    best = objective.clone()
    for _ in range(NEWTON):
        active = (sizes[ks] > tolerance).nonzero()[:, 0]
        if len(active) == 0:
            break
        if len(active) < len(ks):
            ks, G = ks[active], G[active]
            P = curvature[0][active]
            curvature = (P, P if curvature[1] is curvature[0] else curvature[1][active])
        pull = alpha * system.D[ks][:, None]
        if exact:
            d = torch.empty_like(G)
            for i in range(len(ks)):
                L = definite(system.hessian(curvature, i, pull[i, 0]))
                d[i] = -torch.cholesky_solve(G[i].reshape(-1, 1), L).view_as(G[i])
            if system.c > 1:
                d -= d.mean(1, keepdim=True)
        else:
            ratio = tolerance / sizes[ks]
            enough = torch.maximum(0.3 * ratio, sizes[ks].sqrt().clamp_max(0.1))
            scale = G.flatten(1).norm(dim=1)[:, None, None]
            apply = shared.prepare(curvature, len(ks) - 1, alpha)
            d, steps = conjugate(
                system, (-G / scale).to(dtype), curvature, pull.to(dtype), apply, enough.to(dtype)
            )
            shared.steps += steps
            shared.by[alpha] = shared.by.get(alpha, 0) + steps
            d = centred(d.double() * scale)
        # Full steps, halved for those problems that they do not improve.
        slope = (G * d).sum((1, 2))
        t = U.new_ones(len(ks))
        for _ in range(40):
            new = U[ks] + t[:, None, None] * d
            value, G, curvature = system.evaluate(new, ks, alpha, dtype)
            after = (G * d).sum((1, 2))
            armijo = value <= best[ks] + 1e-4 * t * slope
            flat = (value <= best[ks] + 1e-11 * best[ks].abs()) & (after.abs() <= 0.8 * slope.abs())
            good = armijo | flat
            if bool(good.all()):
                break
            t = torch.where(good, t, t / 2)
        U[ks], best[ks] = new, value
        before = sizes[ks]
        sizes[ks] = system.size(G) / norms[ks]
        if not bool((sizes[ks] < before).any()) and bool((sizes[ks] < 1e-6).all()) and not bool(good.all()):
            break
    if system.c > 1:
        U -= U.mean(1, keepdim=True)
    return U, best, sizes


def conjugate(
    system: System, r: Tensor, curvature: tuple[Tensor, Tensor], pull: Tensor, apply: Apply, enough: Tensor
) -> tuple[Tensor, int]:
    """Solve H x = r for each problem (k, c, R), until the residual is `enough` of its start (k,)."""
    x = torch.zeros_like(r)
    z = centred(apply(r))
    d, rz = z.clone(), (r * z).sum((1, 2))
    target = enough * r.flatten(1).norm(dim=1)
    step = 0
    for step in range(1, CONJUGATE + 1):
        Hd = system.product(d, curvature, pull)
        length = (d * Hd).sum((1, 2))
        a = torch.where(length > 0, rz / length, 0)[:, None, None]
        x.addcmul_(a, d)
        r.addcmul_(a, Hd, value=-1)
        if bool((r.flatten(1).norm(dim=1) <= target).all()):
            break
        z = centred(apply(r))
        new = (r * z).sum((1, 2))
        d = z + torch.where(rz > 0, new / rz, 0)[:, None, None] * d
        rz = new
    return x, step


def centred(z: Tensor) -> Tensor:
    """Directions whose sum over classes is zero; of one logit as they are."""
    return z - z.mean(1, keepdim=True) if z.shape[1] > 1 else z
