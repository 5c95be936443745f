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

from weightdecay.ridge.linalg import EPS, eigh, gram, matmul, one_pool

BLOCK = 1 << 19  # logits that are made together
LARGE = 1e7  # multiplications of a product, from which on several threads help
COPY = 1 << 24  # numbers of X that are copied together
EXACT = 1e8  # multiplications of the problems' own Hessians, up to which each problem has its own
BLOCKS = 80  # coordinates to a problem up to which a Hessian for each class pays for itself
CHEAP = 1e8  # multiplications of those Hessians that are not worth a thought
NEWTON, CONJUGATE = 100, 300  # steps at most
STALLED = 4  # steps without progress, after which more precise ones are made
SMALL = 2000  # coordinates times classes, up to which a step that is exact is the last resort
HISTORY = 5  # fits that a start is extrapolated from
STALE = 4.0  # α of a shared Hessian, over the present one, up to which it serves
Apply = Callable[[Tensor], Tensor]
Past = tuple[float, Tensor, Tensor]  # α, coefficients and objectives of a fit before


@dataclass(frozen=True, eq=False)
class Fit:
    """The fits of K problems at one α.

    Args:
        alpha: the penalty on the sum.
        place: of this α among those that were given.
        objective: Σ w logloss + α/2 Σ f ‖W_j‖² (K,).
        gradient: norm of the gradient over its norm at W = 0 and the best intercept (K,), each column taken
            in the unit in which its penalty factor is 1.
        parts: the problems as they were solved, all together or each by itself, with their coefficients in
            the coordinates of their system (k, c, R).
    """

    alpha: float
    place: int
    objective: Float64[Tensor, " K"]
    gradient: Float64[Tensor, " K"]
    parts: "tuple[tuple[System, Tensor], ...]"

    @cached_property
    def _original(self) -> tuple[Float64[Tensor, "K c p"], Float64[Tensor, "K c"]]:
        each = [system.coordinates.original(U) for system, U in self.parts]
        return torch.cat([W for W, _ in each]), torch.cat([b for _, b in each])

    @property
    def coef(self) -> Float64[Tensor, "K c p"]:
        """W, for X as it was given."""
        return self._original[0]

    @property
    def intercept(self) -> Float64[Tensor, "K c"]:
        """b; zero where there is none."""
        return self._original[1]

    def part(self, k: int) -> tuple["System", Tensor]:
        """The system of problem k and its coefficients in it (1, c, R)."""
        k %= len(self.objective)
        system, U = self.parts[0] if len(self.parts) == 1 else self.parts[k]
        return system, U[k : k + 1] if len(self.parts) == 1 else U

    def logits(self, k: int, rows: Int64[Tensor, " m"] | slice = slice(None)) -> Float64[Tensor, "m c"]:
        """Logits of some rows, or of all, by problem k."""
        system, U = self.part(k)
        return system.T[rows] @ U[0].mT

    def at(self, k: int) -> tuple[Float64[Tensor, "c p"], Float64[Tensor, " c"]]:
        """W and b of one problem."""
        system, U = self.part(k)
        coef, intercept = system.coordinates.original(U)
        return coef[0], intercept[0]


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Inputs in which all penalty factors are the same, or nearly so: logits are T U'.

    Columns are centred where there is an intercept, which is a column of ones, the last. Where the problems
    share their penalty factors the others are the principal axes, no more of them than rows.

    Args:
        T: of the size of 1 (n, R).
        D: penalty factors of the coordinates, 0 for those that are free (K, R).
        scale: what a gradient is multiplied by to be one with respect to √f W (R,).
        mean: of the columns before they were centred, in the same coordinates (R,).
        beyond: squared norm of the mean that lies outside of them.
        original: U (K, c, R) as W (K, c, p) and b (K, c).
        axes: principal axes of T where its columns are not (r, r).
    """

    T: Float64[Tensor, "n R"]
    D: Float64[Tensor, "K R"]
    scale: Float64[Tensor, " R"]
    mean: Float64[Tensor, " R"]
    beyond: float
    original: Callable[[Tensor], tuple[Tensor, Tensor]]
    axes: Float64[Tensor, "r r"] | None = None


def coordinates(X: Tensor, penalty: Tensor, intercept: bool) -> Coordinates:
    """Coordinates for X (n, p) and penalty factors (K, p); these are equal for all problems where p > n."""
    (n, p), f = X.shape, penalty[-1]
    same = bool((penalty == f).all())
    mean = X.mean(0, dtype=torch.float64) * intercept
    root = torch.where(f > 0, f, 1).sqrt()
    pen, free = (f > 0 if same else f >= 0).nonzero()[:, 0], (f == 0 if same else f < 0).nonzero()[:, 0]
    parts, squares = list(pen.split(max(64, n, COPY // n))), 0.0

    def block(J: Tensor) -> Tensor:
        return ((X if len(J) == p else X[:, J]).double() - mean[J]).div_(root[J])

    for J in parts:
        squares += float((block(J) ** 2).sum())
    size = (squares / (n * max(1, len(pen)))) ** 0.5 or 1.0  # so that T is of the size of 1
    shift, beyond, axes, E = mean[pen] / root[pen], 0.0, None, None
    if len(pen) <= n:
        T = block(pen).div_(size)
        axes = eigh(gram(T.mT))[1]
        if same:
            T, shift = T @ axes, shift @ axes
    else:
        assert same
        K = sum((gram(block(J)) for J in parts), X.new_zeros(n, n, dtype=torch.float64)) / size**2
        s, E = eigh(K)
        kept = s > n * EPS * s[-1]
        T = E[:, kept] * s[kept].sqrt()
        E = E[:, kept] / s[kept].sqrt() / size  # T = A V, V = A'E, and A = (X − mean) / √f
        inside = sum((E.mT @ (block(J) @ shift[at]) for J, at in _places(parts)), T.new_zeros(T.shape[1]))
        beyond, shift = float((shift**2).sum() - (inside**2).sum()), inside
    F = X[:, free].double() - mean[free]
    rms = (F**2).mean(0).sqrt()
    rms = torch.where(rms > 0, rms, 1)
    r, q, ones = T.shape[1], len(free), int(intercept)

    def original(U: Tensor) -> tuple[Tensor, Tensor]:
        W = U.new_zeros(*U.shape[:2], p)
        if E is not None:
            rows = (U[:, :, :r].flatten(0, 1) @ E.mT).contiguous()
            for J in parts:
                W[:, :, J] = (rows @ block(J)).view(*U.shape[:2], -1) / (root[J] * size)
        elif same:
            assert axes is not None
            W[:, :, pen] = U[:, :, :r] @ axes.mT / (root[pen] * size)
        else:
            W[:, :, pen] = U[:, :, :r] / (root[pen] * size)
        W[:, :, free] = U[:, :, r : r + q] / rms
        return W, (U[:, :, -1] if intercept else U.new_zeros(U.shape[:2])) - W @ mean

    D = T.new_ones(len(penalty), r) if same else penalty / root**2
    return Coordinates(
        torch.cat([T, F / rms, T.new_ones(n, ones)], 1),
        torch.cat([D / size**2, D.new_zeros(len(penalty), q + ones)], 1),
        torch.cat([T.new_full((r,), size), rms, T.new_ones(ones)]),
        torch.cat([shift, mean[free], T.new_zeros(ones)]),
        beyond,
        original,
        None if same else axes,
    )


def _places(parts: list[Tensor]) -> Iterator[tuple[Tensor, slice]]:
    """Columns in blocks and their places among the columns of all blocks."""
    first = 0
    for J in parts:
        yield J, slice(first, first + len(J))
        first += len(J)


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
        self._single: Tensor | None = None
        self.plain = bool(((weights == 0) | (weights == 1)).all())
        self.n, self.R = self.T.shape
        self.K = len(weights)
        self.all = torch.arange(self.K)

    def inputs(self, dtype: torch.dtype) -> Tensor:
        """T in single or double precision."""
        if dtype == torch.float64:
            return self.T
        if self._single is None:
            self._single = self.T.float()
        return self._single

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
            Z = times(flat, T.mT).view(k, c, -1)
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
            G += times(Z.view(k * c, -1), T)
        pull = alpha * self.D[ks][:, None] * U
        objective += (pull * U).sum((1, 2)) / 2
        return objective, G.view_as(U) + pull, (P, weighted)

    def size(self, G: Tensor) -> Tensor:
        """Norm of the gradient with respect to √f W, for columns as they were given, and b (k,)."""
        to = self.coordinates
        if not self.intercept:
            return (G * to.scale).flatten(1).norm(dim=1)
        b = G[:, :, -1:]
        squares = ((G * to.scale + b * to.mean) ** 2).sum((1, 2))
        return (squares + to.beyond * (b**2).sum((1, 2))).sqrt()

    def product(self, V: Tensor, curvature: tuple[Tensor, Tensor], pull: Tensor) -> Tensor:
        """Hessian times V (k, c, R), in the precision of V."""
        P, weighted = curvature
        k, c = V.shape[:2]
        T = self.inputs(V.dtype)
        flat, out = V.reshape(k * c, -1), V * pull
        total = out.view(k * c, -1)
        rows = max(256, BLOCK // (k * c))
        for first in range(0, self.n, rows):
            b = slice(first, min(self.n, first + rows))
            Z = times(flat, T[b].mT).view(k, c, -1)
            Z *= weighted[..., b]
            if c > 1:
                Z.addcmul_(P[..., b], Z.sum(1, keepdim=True), value=-1)
            total += times(Z.view(k * c, -1), T[b])
        return out

    def hessian(self, curvature: tuple[Tensor, Tensor], k: int, pull: Tensor) -> Tensor:
        """The Hessian of one problem, of coordinates within classes (c R, c R), as the curvature's dtype.

        What is free and the same for all classes, which nothing determines, is given a curvature.
        """
        P, weighted = (each[k] for each in curvature)
        c, n, R = self.c, self.n, self.R
        T = self.inputs(P.dtype)
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
    if intercept:  # a column that is constant where it is fitted repeats the intercept: W = 0
        for j in (penalty == 0).any(0).nonzero()[:, 0].tolist():
            for k in (penalty[:, j] == 0).nonzero()[:, 0].tolist():
                x = X[weights[k] > 0, j]
                if bool((x == x[:1]).all()):
                    penalty = penalty.clone()
                    penalty[k, j] = 1
    c = 1 if classes == 2 else classes
    if X.shape[1] > len(X) and not bool((penalty == penalty[-1]).all()):
        yield from _one_by_one(X, labels, c, weights, penalty, alphas, intercept, tolerance)
        return
    with one_pool():
        system = System(coordinates(X, penalty, intercept), labels, c, weights, intercept)
    yield from descend(system, alphas, tolerance)


def descend(system: System, alphas: Tensor, tolerance: float) -> Iterator[Fit]:
    """Yield the fits of a system from the strongest α to the weakest."""
    with one_pool():
        start = system.start()
        norms = system.size(system.evaluate(start, system.all, 0.0)[1])
    past: list[Past] = []
    shared = Shared(system)
    for place in alphas.argsort(descending=True).tolist():
        alpha = float(alphas[place])
        with one_pool():
            U, objective, gradient = newton(system, start, past, alpha, norms, tolerance, shared)
        if not past or alpha < past[-1][0]:
            past = [*past[1 - HISTORY :], (alpha, U, objective)]
        yield Fit(alpha, place, objective, gradient, ((system, U),))


def extrapolated(past: list[Past], alpha: float) -> Tensor:
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
    """A preconditioner for all problems of a system: the inverse of a Hessian that is like theirs.

    Args:
        system: the problems.

    Attributes:
        kind: "exact", each problem's own Hessian; "blocks", a Hessian for each class; "diagonal", in the
            principal axes.
        dtype: of products and of the preconditioner.
    """

    def __init__(self, system: System):
        n, R, c, K = system.n, system.R, system.c, system.K
        self.system = system
        self.kind = "diagonal"
        if K * n * (R * c) ** 2 <= EXACT:
            self.kind = "exact"
        elif R + R**2 / n <= BLOCKS * K or c * R**2 * (n + R) <= CHEAP:
            self.kind = "blocks"
        self.dtype = torch.float64 if self.kind == "exact" else torch.float32
        self.alpha = float("inf")
        self.apply: Apply | None = None

    def use(self, apply: Apply) -> None:
        """Take an inverse that is given, at any α."""
        self.kind, self.apply, self.alpha = "given", apply, 0.0
        self.dtype = torch.float32

    def escalate(self) -> bool:
        """Go over to double precision, then to exact steps where they are small; False where neither is."""
        if self.dtype == torch.float32:
            self.dtype, self.apply = torch.float64, None
        elif self.kind != "exact" and self.system.R * self.system.c <= SMALL:
            self.kind = "exact"
        else:
            return False
        return True

    def prepare(self, curvature: tuple[Tensor, Tensor], k: int, alpha: float) -> Apply:
        """The inverse at problem k's curvature and α, or that of before where it still serves."""
        if self.apply is None or self.alpha > STALE * alpha:
            self.apply, self.alpha = self._make(curvature, k, alpha * self.system.D[-1]), alpha
        return self.apply

    def _make(self, curvature: tuple[Tensor, Tensor], k: int, pull: Tensor) -> Apply:
        system = self.system
        c, R, pull, T = system.c, system.R, pull.to(self.dtype), system.inputs(self.dtype)
        P, weight = curvature[0][k], curvature[1][k]
        if c > 1:
            weight = (weight * (1 - P)).clamp_min(0)
        if self.kind == "blocks":
            inverse = T.new_empty(c, R, R)
            for j in range(c):
                H = gram((T * weight[j, :, None].sqrt()).mT)
                H.diagonal().add_(pull)
                inverse[j] = Factor(H).inverse()
            return lambda r: torch.matmul(inverse, r.permute(1, 2, 0)).permute(2, 0, 1).contiguous()
        axes = system.coordinates.axes
        if axes is None:
            H = weight @ T**2 + pull
            return lambda r: r / H
        q = R - len(axes)
        V = torch.block_diag(axes, torch.eye(q, dtype=torch.float64)).to(self.dtype)
        H = weight @ (T @ V) ** 2 + pull @ V**2
        return lambda r: (r @ V / H) @ V.mT


class Factor:
    """Cholesky factor of a Hessian (N, N), scaled to a diagonal of ones.

    Where rounding has made it indefinite its diagonal is raised, by as little as will do.
    """

    def __init__(self, H: Tensor):
        diagonal = H.diagonal()
        self.scale = torch.where(diagonal > 0, diagonal, 1).rsqrt()
        H = H * self.scale[:, None] * self.scale
        self.L, info = torch.linalg.cholesky_ex(H)
        more = torch.finfo(H.dtype).eps * len(H)
        while int(info) > 0:
            H.diagonal().add_(more)
            self.L, info = torch.linalg.cholesky_ex(H)
            more *= 10

    def solve(self, r: Tensor) -> Tensor:
        """H^-1 of each of k coefficients (k, c, R), in their dtype."""
        columns = r.flatten(1).mT.to(self.L.dtype) * self.scale[:, None]
        x = torch.cholesky_solve(columns, self.L) * self.scale[:, None]
        return x.mT.to(r.dtype).reshape(r.shape)

    def inverse(self) -> Tensor:
        """H^-1 (N, N)."""
        return torch.cholesky_inverse(self.L) * self.scale[:, None] * self.scale


def newton(
    system: System,
    start: Tensor,
    past: list[Past],
    alpha: float,
    norms: Tensor,
    tolerance: float,
    shared: Shared,
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients, objectives and gradients' norms, of that at the start, of all problems at α."""
    U = extrapolated(past, alpha) if past else start.clone()
    objective, G, curvature = system.evaluate(U, system.all, alpha, shared.dtype)
    if past:  # no worse than the fit before
        before, last, least = past[-1]
        least = least - (before - alpha) / 2 * (system.D[:, None] * last**2).sum((1, 2))
        if bool((objective > least).any()):
            U = torch.where((objective > least)[:, None, None], last, U)
            objective, G, curvature = system.evaluate(U, system.all, alpha, shared.dtype)
    sizes, ks = system.size(G) / norms, system.all
    least, stalled, stuck = sizes.clone(), torch.zeros_like(ks), 0
    for _ in range(NEWTON):
        active = (sizes[ks] > tolerance).nonzero()[:, 0]
        if len(active) == 0:
            break
        if len(active) < len(ks):
            ks, G = ks[active], G[active]
            P = curvature[0][active]
            curvature = (P, P if curvature[1] is curvature[0] else curvature[1][active])
        d = centred(direction(system, G, curvature, ks, alpha, tolerance / sizes[ks], sizes[ks], shared))
        slope = (G * d).sum((1, 2))
        t, old = U.new_ones(len(ks)), objective[ks]
        while True:  # full steps, halved for those problems that they do not improve
            new = U[ks] + t[:, None, None] * d
            value, G, curvature = system.evaluate(new, ks, alpha, shared.dtype)
            after = (G * d).sum((1, 2))
            good = (value <= old + 1e-4 * t * slope) | (
                (value <= old + 1e-11 * old.abs()) & (after.abs() <= 0.8 * slope.abs())
            )
            if bool((good | (t < 1e-9)).all()):
                break
            t = torch.where(good, t, t / 2)
        U[ks], objective[ks], sizes[ks] = new, value, system.size(G) / norms[ks]
        stalled = torch.where(sizes < 0.5 * least, 0, stalled + 1)
        least = torch.minimum(least, sizes)
        if not bool((value < old - 1e-13 * old.abs()).any()):
            stuck += 1
        if bool((stalled[ks] >= STALLED).any()):
            if not shared.escalate() and stuck >= STALLED:
                break
            stalled[ks] = 0
            curvature = system.evaluate(U[ks], ks, alpha, shared.dtype)[2]
    if system.c > 1:
        U -= U.mean(1, keepdim=True)
    return U, objective, sizes


def direction(
    system: System,
    G: Tensor,
    curvature: tuple[Tensor, Tensor],
    ks: Tensor,
    alpha: float,
    ratio: Tensor,
    sizes: Tensor,
    shared: Shared,
) -> Tensor:
    """Newton's direction of the problems ks, exact or as precise as the step deserves (k, c, R)."""
    pull = (alpha * system.D[ks][:, None]).to(shared.dtype)
    if shared.kind == "exact":
        d = torch.empty_like(G)
        for i in range(len(ks)):
            H = system.hessian(curvature, i, pull[i, 0])
            d[i : i + 1] = -Factor(H).solve(G[i : i + 1])
        return d
    enough = torch.maximum(0.3 * ratio, sizes.sqrt().clamp_max(0.1))
    scale = G.flatten(1).norm(dim=1)[:, None, None]
    apply = shared.prepare(curvature, len(ks) - 1, alpha)
    r = (-G / scale).to(shared.dtype)
    return conjugate(system, r, curvature, pull, apply, enough.to(shared.dtype)).double() * scale


def conjugate(
    system: System, r: Tensor, curvature: tuple[Tensor, Tensor], pull: Tensor, apply: Apply, enough: Tensor
) -> Tensor:
    """Solve H x = r for each problem (k, c, R), until the residual is `enough` of its start (k,)."""
    x = torch.zeros_like(r)
    z = centred(apply(r))
    d, rz = z.clone(), (r * z).sum((1, 2))
    target = enough * r.flatten(1).norm(dim=1)
    for _ in range(CONJUGATE):
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
    return x


def times(A: Tensor, B: Tensor) -> Tensor:
    """A B, in NumPy's threads where they help."""
    return matmul(A, B) if len(A) * A.shape[1] * B.shape[1] > LARGE else A @ B


def centred(z: Tensor) -> Tensor:
    """Directions whose sum over classes is zero; of one logit as they are."""
    return z - z.mean(1, keepdim=True) if z.shape[1] > 1 else z


def _one_by_one(
    X: Tensor,
    labels: Tensor,
    c: int,
    weights: Tensor,
    penalty: Tensor,
    alphas: Tensor,
    intercept: bool,
    tolerance: float,
) -> Iterator[Fit]:
    """Yield the fits of problems of more columns than rows, each in coordinates of its own."""
    systems = [
        System(coordinates(X, f[None], intercept), labels, c, w[None], intercept)
        for w, f in zip(weights, penalty, strict=True)
    ]
    for fits in zip(*(descend(system, alphas, tolerance) for system in systems), strict=True):
        objective, gradient = (
            torch.cat([getattr(fit, name) for fit in fits]) for name in ("objective", "gradient")
        )
        parts = tuple(fit.parts[0] for fit in fits)
        yield Fit(fits[0].alpha, fits[0].place, objective, gradient, parts)
