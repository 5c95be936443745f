"""Linear models at many strengths and seeds, trained as one batched program.

Minibatch gradient descent with decay never leaves the span of its start and its examples: every step
scales w and adds rows of X. In an orthonormal basis Q of that span, w = Qv, the program is the plain
one with min(p, n + 1) inputs instead of p, and norms are kept. All strengths of a seed share the inputs,
so a step is two small matrix products for all of them, batched over the seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# What one block of strengths may take in residuals of the larger data set, in bytes.
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class LinearProblem:
    """Data, start and batch order of S independent trainings; one row of each tensor is one seed.

    Args:
        X: training inputs (S, n, p).
        y: training targets (S, n).
        X_test: test inputs (S, t, p).
        y_test: test targets (S, t).
        w: the weights at the start (S, p).
        b: the bias at the start (S,).
        order: for each epoch the order in which the examples are seen (S, epochs, n).
    """

    X: Float[Tensor, "S n p"]
    y: Float[Tensor, "S n"]
    X_test: Float[Tensor, "S t p"]
    y_test: Float[Tensor, "S t"]
    w: Float[Tensor, "S p"]
    b: Float[Tensor, " S"]
    order: Int64[Tensor, "S epochs n"]


@dataclass(frozen=True)
class AdamBias:
    """Train the bias by torch.optim.Adam's rule (its default betas and eps) with this step size."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True)
class LinearSweep:
    """What S seeds × L strengths gave; E is the number of looks.

    Args:
        lambdas: the strengths (L,).
        epochs: after which epochs the losses were taken.
        train_loss: half the mean squared training error (S, L, E).
        test_loss: half the mean squared test error (S, L, E).
        w_norm: the L2 norm of the weights (S, L, E).
        b: the bias at the end (S, L).
        coordinates: the weights at the end in the basis (S, k, L).
        basis: orthonormal columns (S, p, k), or None where the coordinates are the weights.
        batch_loss: c/2 times the mean squared error of an epoch's examples, each batch as it was before its
            step (S, L, E); None unless asked for.
        diverged: the first step whose batch loss is not finite, -1 where there is none (S, L); likewise.
    """

    lambdas: Float[Tensor, " L"]
    epochs: tuple[int, ...]
    train_loss: Float[Tensor, "S L E"]
    test_loss: Float[Tensor, "S L E"]
    w_norm: Float[Tensor, "S L E"]
    b: Float[Tensor, "S L"]
    coordinates: Float[Tensor, "S k L"]
    basis: Float[Tensor, "S p k"] | None
    batch_loss: Float[Tensor, "S L E"] | None = None
    diverged: Int64[Tensor, "S L"] | None = None

    @property
    def w(self) -> Float[Tensor, "S L p"]:
        """The weights at the end, made when asked for."""
        w = self.coordinates if self.basis is None else self.basis @ self.coordinates
        return w.mT


@dataclass
class LinearState:
    """How far trainings are after an epoch; what goes on from it ends with the same bits.

    Args:
        epoch: epochs that are done.
        Z: coordinates and bias (S, k + 1, L) of each block of strengths.
        seen: train loss, test loss and norm at each look so far (3, S, L, E).
        batch_loss: as in `LinearSweep`.
        diverged: as in `LinearSweep`.
    """

    epoch: int
    Z: list[Tensor]
    seen: Float[Tensor, "3 S L E"]
    batch_loss: Float[Tensor, "S L E"] | None
    diverged: Int64[Tensor, "S L"] | None


def train_linear(
    problem: LinearProblem,
    lambdas: Float[Tensor, " L"],
    *,
    lr: float,
    batch_size: int,
    every: int,
    loss_scale: float = 1.0,
    penalize_bias: bool = False,
    adam_bias: AdamBias | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
    batch_losses: bool = False,
    on_look: Callable[[slice, Float[Tensor, "S t L"]], None] | None = None,
    state: "LinearState | None" = None,
    on_state: Callable[["LinearState"], None] | None = None,
) -> LinearSweep:
    """Train every seed at every strength by minibatch gradient descent.

    Objective and update, for batches of m rows and loss scale c (c = 1: half mean squared loss; c = 2:
    the mean squared loss of torch's MSELoss):

        J(w, b) = c/(2n) ||Xw + b − y||² + λ/2 ||w||²
        w ← (1 − lr·λ) w − lr·c/m X_B'(X_B w + b − y_B),   b likewise, without decay

    Args:
        problem: data, start and order, in float32 or float64.
        lambdas: λ (L,), as torch.optim.SGD's weight_decay.
        lr: step size.
        batch_size: rows of a batch; the last batch of an epoch holds what is left and is divided by that.
        every: take the losses after every so many epochs, and after the last.
        loss_scale: c.
        penalize_bias: let the bias decay, too.
        adam_bias: step the bias by Adam instead (its penalty, if any, is then part of its gradient).
        on_epoch: called as on_epoch(done, total) after each epoch.
        batch_losses: keep what the batches' losses were, too.
        on_look: called at each look with the place of a block of strengths and its predictions of y_test.
        state: go on from here, to the same bits; not with `adam_bias`.
        on_state: called after each epoch of all strengths with the state, which goes on changing.

    Returns:
        A LinearSweep. A training that diverges ends in inf or NaN and leaves the others alone.
    """
    seeds, epochs, n = problem.order.shape
    basis, inputs, start = _span(problem)
    design = _with_ones(inputs)
    test_design = _with_ones(problem.X_test if basis is None else problem.X_test @ basis)
    block = max(1, _BLOCK_BYTES // (seeds * max(n, problem.X_test.shape[1]) * design.element_size()))
    parts = [part.to(design) for part in lambdas.split(block)]
    sizes = design.new_tensor([min(batch_size, n - first) for first in range(0, n, batch_size)])
    looks = tuple(e for e in range(1, epochs + 1) if e % every == 0 or e == epochs)
    if state is None:
        first = torch.cat([start, problem.b[:, None]], 1)[:, :, None]
        shape = seeds, len(lambdas)
        state = LinearState(
            epoch=0,
            Z=[first.repeat(1, 1, len(part)) for part in parts],
            seen=design.new_zeros(3, *shape, len(looks)),
            batch_loss=design.new_zeros(*shape, len(looks)) if batch_losses else None,
            diverged=torch.full(shape, -1, device=design.device) if batch_losses else None,
        )
    adams = [
        adam_bias and _Adam(adam_bias, part if penalize_bias else torch.zeros_like(part)) for part in parts
    ]

    def train_block(index: int, batches: list[tuple[Tensor, Tensor]]) -> Tensor | None:
        """An epoch of a block of strengths; the batches' losses (batches, S, L) if they are asked for."""
        Z, part, adam = state.Z[index], parts[index], adams[index]
        errors = Z.new_empty(len(batches), seeds, len(part)) if batch_losses else None
        decay = (lr * part).expand(Z.shape[1:]).clone()
        if not penalize_bias or adam_bias:
            decay[-1] = 0
        for i, (A, target) in enumerate(batches):
            residual = torch.baddbmm(target, A, Z, beta=-1)
            if errors is not None:
                torch.mean(residual.square(), 1, out=errors[i])
            bias = adam.step(Z[:, -1], loss_scale * residual.mean(1)) if adam else None
            # Not Z *= 1 - decay: rounding 1 - decay would bend a small decay the same way at every step.
            Z.addcmul_(Z, decay, value=-1)
            Z.baddbmm_(A.mT, residual, alpha=-lr * loss_scale / A.shape[1])
            if bias is not None:
                Z[:, -1] = bias
        return errors

    def note_losses(epoch: int, place: slice, errors: Tensor) -> None:
        assert state.batch_loss is not None
        assert state.diverged is not None
        bad = ~errors.isfinite()
        first = torch.where(bad.any(0), bad.int().argmax(0) + (epoch - 1) * len(sizes), -1)
        state.diverged[:, place] = torch.where(state.diverged[:, place] < 0, first, state.diverged[:, place])
        if epoch in looks:
            mean = torch.tensordot(sizes / n, errors, 1)
            state.batch_loss[:, place, looks.index(epoch)] = mean * (loss_scale / 2)

    def look(epoch: int, place: slice, Z: Tensor) -> None:
        if on_look:
            on_look(place, test_design @ Z)
        seen = state.seen[:, :, place, looks.index(epoch)]
        seen[0] = _half_mse(design, problem.y, Z)
        seen[1] = _half_mse(test_design, problem.y_test, Z)
        seen[2] = torch.linalg.vector_norm(Z[:, :-1], dim=1)

    with torch.no_grad():
        for epoch in range(state.epoch + 1, epochs + 1):
            rows = problem.order[:, epoch - 1]
            X = design.take_along_dim(rows[:, :, None], 1)
            y = problem.y.take_along_dim(rows, 1)[:, :, None]
            batches = list(zip(X.split(batch_size, 1), y.split(batch_size, 1), strict=True))
            for index, Z in enumerate(state.Z):
                place = slice(index * block, index * block + len(parts[index]))
                errors = train_block(index, batches)
                if errors is not None:
                    note_losses(epoch, place, errors)
                if epoch in looks:
                    look(epoch, place, Z)
                if on_epoch:
                    on_epoch((epoch - 1) * len(parts) + index + 1, len(parts) * epochs)
            state.epoch = epoch
            if on_state:
                on_state(state)
    Z = torch.cat(state.Z, 2)
    return LinearSweep(
        lambdas,
        looks,
        *state.seen,
        b=Z[:, -1],
        coordinates=Z[:, :-1],
        basis=basis,
        batch_loss=state.batch_loss,
        diverged=state.diverged,
    )


def _span(problem: LinearProblem) -> tuple[Tensor | None, Tensor, Tensor]:
    """Basis (S, p, n + 1), inputs (S, n, n + 1) and start (S, n + 1) in it; the originals if p is no larger.

    The start comes last, so that what of it no example reaches has a coordinate of its own, in which
    every input is exactly zero. The factorisation is done in float64.
    """
    X, w = problem.X, problem.w
    if X.shape[2] <= X.shape[1] + 1:
        return None, X, w
    Q, R = torch.linalg.qr(torch.cat([X.mT, w[:, :, None]], 2).double())
    R = R.to(X).mT
    return Q.to(X), R[:, :-1].contiguous(), R[:, -1].contiguous()


def _with_ones(X: Float[Tensor, "S n k"]) -> Float[Tensor, "S n k+1"]:
    return torch.cat([X, X.new_ones(*X.shape[:2], 1)], 2)


def _half_mse(design: Tensor, y: Tensor, Z: Tensor) -> Float[Tensor, "S L"]:
    return torch.baddbmm(y[:, :, None], design, Z, beta=-1).square_().mean(1) / 2


class _Adam:
    """Adam's moments for the biases of all trainings, (S, L), as torch.optim.Adam keeps them."""

    def __init__(self, rule: AdamBias, weight_decay: Tensor) -> None:
        self.rule, self.weight_decay = rule, weight_decay
        self.mean = self.square = torch.zeros(())
        self.steps = 0

    def step(self, b: Tensor, gradient: Tensor) -> Tensor:
        beta1, beta2 = self.rule.betas
        gradient = gradient + self.weight_decay * b
        self.steps += 1
        self.mean = beta1 * self.mean + (1 - beta1) * gradient
        self.square = beta2 * self.square + (1 - beta2) * gradient**2
        root = (self.square / (1 - beta2**self.steps)).sqrt() + self.rule.eps
        return b - self.rule.lr / (1 - beta1**self.steps) * self.mean / root
