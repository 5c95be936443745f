"""Sums over rows that merge, and from which every ridge solution follows: weight, means, centred products.

Merging  G = G_a + G_b + (W_a W_b/W) d d',  d = m_b − m_a,  only adds; nothing is ever subtracted again from a
whole, so a part with rows a million times as large as the rest takes no digits from the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.folds import places
from weightdecay.ridge.linalg import eigh, gram, matmul, one_pool
from weightdecay.ridge.problem import Intercept, is_constant
from weightdecay.ridge.sparse_inputs import SparseInputs

BLOCK = 2_000_000  # numbers to a block: 16 MB in float64, of which the working copies are made
LEAST_ROWS = 256  # rows in a block at least
JOINT = 16  # targets that ride along in the Gram matrix of the inputs
SHARED_FOLDS = 32  # folds from which on blocks do not grow with their number


@dataclass(frozen=True)
class Moments:
    """Weighted sums over some rows about their own means.

    Args:
        rows: number of rows.
        weight: sum of their weights W.
        mean: means of inputs, then of targets (p + t,).
        rest: what rounding left out of the means: they are mean + rest to twice the digits (p + t,).
        G: Σ w (x − m)(x − m)', (p, p).
        g: Σ w (x − m)(y − ȳ)', (p, t).
        ss: Σ w (y − ȳ)², (t,).
    """

    rows: int
    weight: float
    mean: Float64[Tensor, " pt"]
    rest: Float64[Tensor, " pt"]
    G: Float64[Tensor, "p p"]
    g: Float64[Tensor, "p t"]
    ss: Float64[Tensor, " t"]

    @property
    def p(self) -> int:
        """The number of inputs."""
        return len(self.G)

    @property
    def x_mean(self) -> Float64[Tensor, " p"]:
        """The inputs' means (p,)."""
        return self.mean[: self.p]

    @property
    def y_mean(self) -> Float64[Tensor, " t"]:
        """The targets' means (t,)."""
        return self.mean[self.p :]


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two sets of rows together, from their own; it is associative up to rounding."""
    if a.rows == 0 or b.rows == 0:
        return b if a.rows == 0 else a
    weight = a.weight + b.weight
    d = (b.mean - a.mean) + (b.rest - a.rest)
    step = a.rest + (b.weight / weight) * d
    mean = a.mean + step
    rest = step - (mean - a.mean)
    share = a.weight * b.weight / weight
    dx, dy = d[: a.p], d[a.p :]
    G = torch.addr(a.G + b.G, share * dx, dx)
    g = torch.addr(a.g + b.g, share * dx, dy)
    return Moments(a.rows + b.rows, weight, mean, rest, G, g, a.ss + b.ss + share * dy**2)


def merge_tree(parts: Sequence[Moments]) -> Moments:
    """All of them, neighbours first: the order is fixed by their number."""
    parts = list(parts)
    while len(parts) > 1:
        pairs = [merge(*parts[i : i + 2]) for i in range(0, len(parts) - 1, 2)]
        parts = pairs + parts[len(pairs) * 2 :]
    return parts[0]


def training(folds: Sequence[Moments]) -> Iterator[Moments]:
    """For each fold, the moments of all other folds: merges of what lies before it and after it.

    Raises:
        InputError: there is one fold only.
    """
    if len(folds) < 2:
        what = "all rows of positive weight are in one fold"
        raise InputError(what, "cv", len(folds), "use other folds, or another seed")
    after = list(folds[-1:])
    for part in reversed(folds[1:-1]):
        after.append(merge(part, after[-1]))
    before: Moments | None = None
    for k in range(len(folds)):
        if k < len(folds) - 1:
            follows = after.pop()
            yield follows if before is None else merge(before, follows)
        else:
            assert before is not None  # two folds at least
            yield before
        before = folds[k] if before is None else merge(before, folds[k])


class Sums:
    """Moments in the making: blocks of rows go in; the first one's means are taken out of all of them.

    Args:
        p: number of inputs.
        t: number of targets.
        dtype: of the products, float64 or float32; they are added up in float64.
        device: where.
    """

    def __init__(self, p: int, t: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        self.p, self.t = p, t
        self.joint = t if t <= JOINT else 0
        self.dtype, self.device = dtype, torch.device(device)
        self.rows, self.weight = 0, 0.0
        self.buffer: Tensor | None = None

    def _start(self, X: Tensor, y: Tensor) -> None:
        """Means of the first rows, as values of X's type: taking them out rounds nothing twice."""
        side = self.p + self.joint + 1
        first = y[:1024]
        self.x_shift = X[:1024].double().mean(0).to(self.dtype)
        self.y_shift = torch.where(
            (first == first[0]).all(0), first[0], first.mean(0)
        )  # exact for a constant
        size = (first - self.y_shift).abs().amax(0)  # by which products in float32 stay in range
        self.y_unit = torch.where(size > 0, size, 1).log2().floor().exp2()
        self.raw = torch.zeros(side, side, dtype=torch.float64, device=self.device)
        self.cross = torch.zeros(self.p, self.t, dtype=torch.float64, device=self.device)
        self.y_sum = torch.zeros(self.t, dtype=torch.float64, device=self.device)
        self.y_squares = torch.zeros(self.t, dtype=torch.float64, device=self.device)

    def add(
        self, X: Float[Tensor, "b p"], y: Float64[Tensor, "b t"], weights: Float64[Tensor, " b"] | None = None
    ) -> None:
        """Add a block of rows."""
        b, p = X.shape
        if b == 0:
            return
        if self.rows == 0:
            self._start(X, y)
        Z = self._working_copy(b, by_columns(X))
        torch.sub(X, self.x_shift, out=Z[:, :p])
        v = y - self.y_shift
        if self.joint:
            Z[:, p:-1] = v / self.y_unit
        Z[:, -1] = 1
        w = None if weights is None else weights[:, None]
        if w is not None:
            Z *= w.sqrt()
        self.raw += gram(Z.mT)
        wv = v if w is None else v * w
        if not self.joint:
            root = v if w is None else v * w.sqrt()
            self.cross += matmul(Z[:, :p].mT, (root / self.y_unit).to(self.dtype))
        self.y_sum += wv.sum(0)
        self.y_squares += (wv * v).sum(0)
        self.weight += float(b) if weights is None else float(weights.sum())
        self.rows += b

    def _working_copy(self, b: int, columns: bool) -> Float[Tensor, "b side"]:
        """Room for b rows, laid out as the data are."""
        side = self.p + self.joint + 1
        if self.buffer is None or len(self.buffer) < b * side:
            self.buffer = torch.empty(b * side, dtype=self.dtype, device=self.device)
        room = self.buffer[: b * side]
        return room.view(side, b).mT if columns else room.view(b, side)

    def moments(self) -> Moments:
        """What was added, about its own means."""
        p, W = self.p, self.weight
        if self.rows == 0:
            zero = torch.zeros(p + self.t, dtype=torch.float64, device=self.device)
            return Moments(
                0,
                0.0,
                zero,
                zero.clone(),
                zero.new_zeros(p, p),
                zero.new_zeros(p, self.t),
                zero[: self.t].clone(),
            )
        offset = torch.cat([self.raw[-1, :p], self.y_sum]) / W
        shift = torch.cat([self.x_shift.double(), self.y_shift])
        mean = shift + offset
        rest = offset - (mean - shift)
        x, y = offset[:p], offset[p:]
        G = torch.addr(self.raw[:p, :p], W * x, -x)
        cross = (self.raw[:p, p:-1] if self.joint else self.cross) * self.y_unit
        return Moments(
            self.rows, W, mean, rest, (G + G.mT) / 2, torch.addr(cross, W * x, -y), self.y_squares - W * y**2
        )


def by_columns(X: Float[Tensor, "b p"]) -> bool:
    """Whether a table lies column after column."""
    return X.stride(0) == 1 and X.stride(1) != 1


def some_rows(X: Float[Tensor, "b p"], rows: Int64[Tensor, " m"]) -> Float[Tensor, "m p"]:
    """A copy of some rows, laid out as X is."""
    return X.mT.index_select(1, rows).mT if by_columns(X) else X.index_select(0, rows)


@one_pool()
def fold_moments(
    X: Float[Tensor, "n p"] | SparseInputs,
    y: Float64[Tensor, "n t"],
    fold: Int64[Tensor, " n"] | None = None,
    weights: Float64[Tensor, " n"] | None = None,
) -> list[Moments]:
    """The moments of every fold in one pass over the rows; of all rows where no fold is given.

    Args:
        X: inputs, float64 or float32 (n, p); read in blocks, never copied as a whole.
        y: targets (n, t).
        fold: the fold of each row, 0 to K − 1 (n,).
        weights: of each row (n,).
    """
    (n, p), t = X.shape, y.shape[1]
    K = 1 if fold is None or n == 0 else int(fold.max()) + 1
    if isinstance(X, SparseInputs):
        parts = [torch.arange(n)] if fold is None else places(fold, K)
        return [moments_of_rows(X, y, rows, weights) for rows in parts]
    sums = [Sums(p, t, X.dtype, X.device) for _ in range(K)]
    most = max(LEAST_ROWS, BLOCK // (p + min(t, JOINT) + 1))
    share = _shared_buffer(sums, most, K)
    for start in range(0, n, share):
        rows = slice(start, min(n, start + share))
        if fold is None:
            sums[0].add(X[rows], y[rows], None if weights is None else weights[rows])
            continue
        for k, chosen in enumerate(places(fold[rows].cpu(), K)):
            if len(chosen) == 0:
                continue
            if int(chosen[-1] - chosen[0]) + 1 == len(chosen):  # one stretch: no need to gather
                part = slice(start + int(chosen[0]), start + int(chosen[-1]) + 1)
                sums[k].add(X[part], y[part], None if weights is None else weights[part])
            else:
                chosen = chosen.to(X.device)
                w = None if weights is None else weights[rows][chosen]
                sums[k].add(some_rows(X[rows], chosen), y[rows][chosen], w)
    return [part.moments() for part in sums]


@one_pool()
def moments_of_rows(
    X: Float[Tensor, "n p"] | SparseInputs,
    y: Float64[Tensor, "n t"],
    rows: Int64[Tensor, " m"],
    weights: Float64[Tensor, " n"] | None = None,
) -> Moments:
    """The moments of some rows, each as often as it is named."""
    p, t = X.shape[1], y.shape[1]
    if isinstance(X, SparseInputs):
        return _sparse_moments(X[rows], y[rows], None if weights is None else weights[rows])
    sums = Sums(p, t, X.dtype, X.device)
    for some in rows.to(X.device).split(max(LEAST_ROWS, BLOCK // (p + min(t, JOINT) + 1))):
        sums.add(some_rows(X, some), y[some], None if weights is None else weights[some])
    return sums.moments()


def _sparse_moments(
    X: SparseInputs, y: Float64[Tensor, "n t"], weights: Float64[Tensor, " n"] | None
) -> Moments:
    """The moments of sparse inputs: of the crowded columns and the targets as of any table, row by row dense.

    Of the others the means are taken out of products, and out of those with what is centred already.
    """
    many = X.crowded(weights)
    crowded, few = many.nonzero()[:, 0], (~many).nonzero()[:, 0]
    full, thin = X.of_columns(crowded), X.of_columns(few)
    p, h, t = X.shape[1], len(crowded), y.shape[1]
    sums = Sums(h, t, X.dtype)
    for rows, block in full.blocks():
        sums.add(block, y[rows], None if weights is None else weights[rows])
    part = sums.moments()
    w = y.new_ones(len(X)) if weights is None else weights
    mean = thin.transposed_times(w) / part.weight
    beside = y.new_zeros(len(few), h + t)  # products with what is centred
    for rows, block in full.blocks():
        centred = torch.cat([block, y[rows]], dim=1) - part.mean - part.rest
        beside += thin[rows].transposed_times(centred * w[rows, None])
    G, g = y.new_zeros(p, p), y.new_zeros(p, t)
    G[crowded[:, None], crowded] = part.G
    G[few[:, None], few] = torch.addr(thin.products_of_columns(w.sqrt()), part.weight * mean, -mean)
    G[few[:, None], crowded] = beside[:, :h]
    G[crowded[:, None], few] = beside[:, :h].mT
    g[crowded], g[few] = part.g, beside[:, h:]
    means, rest = y.new_zeros(p + t), y.new_zeros(p + t)
    means[crowded], means[few], means[p:] = part.mean[:h], mean, part.mean[h:]
    rest[crowded], rest[p:] = part.rest[:h], part.rest[h:]
    return Moments(part.rows, part.weight, means, rest, G, g, part.ss)


def _shared_buffer(sums: list[Sums], most: int, K: int) -> int:
    """One working copy for all folds; returns how many rows to read at a time."""
    first = sums[0]
    share = max(LEAST_ROWS * K, most) if K <= SHARED_FOLDS else most
    buffer = torch.empty(share * (first.p + first.joint + 1), dtype=first.dtype, device=first.device)
    for part in sums:
        part.buffer = buffer
    return share


def check_float32(alphas: Float64[Tensor, " L"], largest: float) -> None:
    """Refuse single precision where it cannot be trusted.

    Raises:
        InputError: the least α is below 1e-6 of the largest eigenvalue.
    """
    if float(alphas.min()) < 1e-6 * largest:
        raise InputError(
            "float32 is not precise enough",
            "smallest λ in the sum convention",
            f"{float(alphas.min()):.3g}",
            f"under 1e-6 of the largest eigenvalue, {largest:.3g}: give float64 inputs, or larger λ",
        )


# Factoring the moments of training rows.


@dataclass(frozen=True)
class Penalty:
    """What is penalised: Σ_j f_j b_j², on columns divided by their sd if `standardize`.

    Args:
        factors: f ≥ 0 (p,), or None for ones.
        intercept: "free", "penalized" like a column of ones, or "none".
        standardize: divide columns by their sd on the training rows.
    """

    factors: Float64[Tensor, " p"] | None = None
    intercept: Intercept = "free"
    standardize: bool = False


@dataclass(frozen=True)
class Basis:
    """A factored set of training rows; m is p, and one more for a penalised intercept.

    Args:
        R: directions (m, r): the penalised by falling s, then the free.
        s: eigenvalues of the penalised, scaled, projected X'X (k,), descending, rounding zeros set to 0.
        null: directions the rows say nothing of, in the penalty's own scale (m, z).
        c: R'g (r, t).
        ss: Σ w (y − centre)² (t,).
        center: what is taken out of inputs and targets before anything else (p + t,).
        rest: what rounding left out of it (p + t,).
        largest: of the diagonal before what is free was projected out, or s: what rounding is relative to.
        floor: eigenvalues below it were taken for zero.
        free_condition: condition number of the free columns' products.
        weight: sum of the rows' weights.
        intercept: "free", "penalized" (the last row of R is its own) or "none".
    """

    R: Float64[Tensor, "m r"]
    s: Float64[Tensor, " k"]
    null: Float64[Tensor, "m z"]
    c: Float64[Tensor, "r t"]
    ss: Float64[Tensor, " t"]
    center: Float64[Tensor, " pt"]
    rest: Float64[Tensor, " pt"]
    largest: float
    floor: float
    free_condition: float
    weight: float
    intercept: Intercept

    @property
    def ones(self) -> bool:
        """Whether the last row of R is an intercept's."""
        return self.intercept == "penalized"

    @property
    def rank(self) -> int:
        """How many penalised directions the rows determine."""
        return int((self.s > 0).sum())

    @property
    def free(self) -> int:
        """How many unpenalised columns there are, as far as the rows tell them apart."""
        return self.R.shape[1] - self.rank

    @property
    def p(self) -> int:
        """The number of inputs."""
        return len(self.R) - self.ones

    def phi(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "r L"]:
        """s/(s + α), and 1 for free directions."""
        s = self.s[: self.rank, None]
        alphas = alphas.to(s.device)
        return torch.cat([s / (s + alphas), alphas.new_ones(self.free, len(alphas))])

    def lost(self, alphas: Float64[Tensor, " L"]) -> Float64[Tensor, "r L"]:
        """α/(s + α), which is 1 − φ with all its digits, and 0 for free directions."""
        s = self.s[: self.rank, None]
        alphas = alphas.to(s.device)
        return torch.cat([alphas / (s + alphas), alphas.new_zeros(self.free, len(alphas))])

    def fits(self, alphas: Float64[Tensor, " L"], targets: slice = slice(None)) -> Float64[Tensor, "m L u"]:
        """Coefficients at each α, an intercept penalised or free of columns last where there is one."""
        c = self.c[:, targets]
        spread = self.phi(alphas)[:, :, None] * c[:, None, :]
        L, u = len(alphas), c.shape[1]
        return matmul(self.R, spread.reshape(len(c), L * u)).reshape(len(self.R), L, u)

    def solve(self, alphas: Float64[Tensor, " t"]) -> tuple[Float64[Tensor, "p t"], Float64[Tensor, " t"]]:
        """Coefficients and intercepts on the original scale, an α for each target."""
        b = matmul(self.R, self.phi(alphas) * self.c)
        p = self.p
        coef = b[:p]
        mean, y_mean = self.center[:p], self.center[p:]
        intercept = (y_mean - mean @ coef) + (self.rest[p:] - self.rest[:p] @ coef)
        return coef, intercept + b[p] if self.ones else intercept


def basis(moments: Moments, penalty: Penalty, dtype: torch.dtype = torch.float64) -> Basis:
    """Factor a set of rows given by its moments.

    Args:
        moments: of the training rows.
        penalty: what is penalised.
        dtype: of the products the moments are sums of.
    """
    p, eps = moments.p, torch.finfo(dtype).eps
    G, g, ss, center, rest = _about_the_intercept(moments, penalty.intercept)
    factors = G.new_ones(len(G))
    if penalty.factors is not None:
        factors[:p] = penalty.factors.to(G.device)
    sd = deviations(moments, dtype)
    scale = _scale(sd, penalty, len(G))
    unpenalised = factors == 0
    if penalty.intercept == "free":  # beside a constant of its own a constant column has nothing to say
        unpenalised[:p] &= sd > 0
    P, U = (factors > 0).nonzero()[:, 0], unpenalised.nonzero()[:, 0]
    column = scale[P] / factors[P].sqrt()
    K = column[:, None] * G[P][:, P] * column
    largest = float(K.diagonal().max()) if len(P) else 0.0
    free, condition = _free(G, U, eps)
    along = matmul(free.mT, G[U][:, P] * column)  # free directions against penalised columns
    if len(U):
        K = K - matmul(along.mT, along)
    s, V = eigh(K) if len(P) else (G.new_zeros(0), G.new_zeros(0, 0))
    s, V = s.flip(0), V.flip(1)
    largest = max(largest, float(s[0]) if len(s) else 0.0)
    floor = (max(len(P), 8) if dtype == torch.float64 else 4) * eps * largest
    s = torch.where(s > floor, s, 0)
    rank = int((s > 0).sum())

    full = G.new_zeros(len(G), len(P) + free.shape[1])
    full[P, : len(P)] = column[:, None] * V
    if len(U):
        full[U, : len(P)] = -matmul(free, matmul(along, V))
        full[U, len(P) :] = free
    R = torch.cat([full[:, :rank] / s[:rank].sqrt(), full[:, len(P) :]], dim=1)
    return Basis(
        R, s, full[:, rank : len(P)], matmul(R.mT, g), ss, center, rest, largest, floor, condition,
        moments.weight, penalty.intercept,
    )  # fmt: skip


def _about_the_intercept(m: Moments, intercept: Intercept) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Products about the means, or about zero where the intercept is not free, with ones if penalised."""
    if intercept == "free":
        return m.G, m.g, m.ss, m.mean, m.rest
    x, y, W = m.x_mean, m.y_mean, m.weight
    G, g = torch.addr(m.G, W * x, x), torch.addr(m.g, W * x, y)
    if intercept == "penalized":
        edge = torch.cat([W * x, x.new_tensor([W])])
        G = torch.cat([torch.cat([G, W * x[None]]), edge[:, None]], dim=1)
        g = torch.cat([g, W * y[None]])
    return G, g, m.ss + W * y**2, torch.zeros_like(m.mean), torch.zeros_like(m.rest)


def deviations(m: Moments, dtype: torch.dtype) -> Float64[Tensor, " p"]:
    """Standard deviations (1/n) of the inputs, which were of this type; 0 for one that does not vary."""
    sd = (m.G.diagonal().clamp_min(0) / m.weight).sqrt()
    return torch.where(is_constant(m.x_mean, sd, dtype), 0, sd)


def _scale(sd: Float64[Tensor, " p"], penalty: Penalty, side: int) -> Tensor:
    """1/sd if columns are standardised, and 0 for a column that is constant, whose coefficient is 0."""
    scale = sd.new_ones(side)
    if penalty.standardize:
        scale[: len(sd)] = 1 / sd
    if penalty.standardize or penalty.intercept == "free":
        scale[: len(sd)][sd == 0] = 0
    return scale


def _free(G: Tensor, U: Tensor, eps: float) -> tuple[Tensor, float]:
    """An orthonormal basis of the free columns, by any scale of theirs, and their condition number."""
    if len(U) == 0:
        return G.new_zeros(0, 0), 1.0
    unit = G[U, U].clamp_min(0)
    unit = torch.where(unit > 0, unit.rsqrt(), 0)
    u, Q = eigh(unit[:, None] * G[U][:, U] * unit)
    kept = u > 8 * len(U) * eps
    if not bool(kept.any()):
        return G.new_zeros(len(U), 0), 1.0
    return unit[:, None] * Q[:, kept] / u[kept].sqrt(), float(u.max() / u[kept].min())
