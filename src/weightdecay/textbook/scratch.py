"""The textbook's experiment from scratch: linear regression with weight decay in tensors and autograd.

Read it from top to bottom. n examples (rows), p inputs, weights w, bias b, batches of m rows:

    objective   J(w, b) = 1/n Σ_i ½ (x_i'w + b − y_i)²  +  λ/2 ||w||²
    update      w ← (1 − lr·λ) w − lr/m Σ_{i in batch} x_i (x_i'w + b − y_i)

The second line is the gradient step on the first: the penalty's gradient is λw, so every step first
shrinks w by the factor 1 − lr·λ. That is the *decay* of the weights. The bias usually goes free.
"""

import torch
from torch import Tensor


def synthetic_data(w, b, n, noise=0.01, generator=None):
    """Draw n examples of a linear model: y = Xw + b + ε, X ~ N(0, 1), ε ~ N(0, noise²).

    >>> X, y = synthetic_data(torch.full((200,), 0.01), 0.05, n=20)
    >>> X.shape, y.shape
    (torch.Size([20, 200]), torch.Size([20]))
    """
    X = torch.randn(n, len(w), dtype=w.dtype, generator=generator)
    y = X @ w + b + noise * torch.randn(n, dtype=w.dtype, generator=generator)
    return X, y


def minibatches(X, y, batch_size, generator=None):
    """Shuffle the examples and yield them in batches; the last batch holds the rows that are left.

    >>> [len(y) for X, y in minibatches(torch.zeros(12, 3), torch.zeros(12), batch_size=5)]
    [5, 5, 2]
    """
    for rows in torch.randperm(len(X), generator=generator).split(batch_size):
        yield X[rows], y[rows]


def init_params(n_inputs, dtype=torch.float32, generator=None):
    """Draw the starting point: w ~ N(0, 1) in each input, b = 0.

    >>> w, b = init_params(200)
    >>> w.shape, b.item(), w.requires_grad
    (torch.Size([200]), 0.0, True)
    """
    w = torch.randn(n_inputs, dtype=dtype, generator=generator).requires_grad_()
    b = torch.zeros((), dtype=dtype).requires_grad_()
    return w, b


def linreg(X, w, b):
    """Predict with the linear model: ŷ = Xw + b."""
    return X @ w + b


def squared_loss(y_hat, y):
    """Half the squared error of each example: ℓ_i = ½ (ŷ_i − y_i)². Not averaged.

    >>> squared_loss(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0]))
    tensor([2., 0.])
    """
    return (y_hat - y) ** 2 / 2


def l2_penalty(w):
    """Half the squared norm of the weights: ½ Σ_j w_j², whose gradient is w itself.

    >>> l2_penalty(torch.tensor([3.0, 4.0]))
    tensor(12.5000)
    """
    return (w**2).sum() / 2


def sgd(params, lr, batch_size):
    """Take one step of gradient descent, in place: θ ← θ − lr/m · ∂(summed loss)/∂θ.

    The gradient is of a *sum* over the m rows really in the batch, so it is divided by m here.
    """
    with torch.no_grad():
        for param in params:
            param -= lr * param.grad / batch_size
            param.grad = None


def evaluate_loss(w, b, X, y):
    """Half the mean squared error on a whole data set: 1/n Σ_i ½ (ŷ_i − y_i)². No penalty in it."""
    with torch.no_grad():
        return squared_loss(linreg(X, w, b), y).mean().item()


def train(
    train_data: tuple[Tensor, Tensor],
    test_data: tuple[Tensor, Tensor],
    w: Tensor,
    b: Tensor,
    *,
    lam=3.0,
    lr=0.003,
    epochs=100,
    batch_size=5,
    every=5,
    penalize_bias=False,
    generator=None,
    watch=None,
):
    """Train w and b in place by minibatch gradient descent on the penalised loss.

    Each example carries its own copy of the penalty, ℓ_i + λ/2 ||w||², so the sum over a batch divided
    by its m rows is the mean loss plus λ/2 ||w||² *once*: λ means the same for every batch size.

    Args:
        train_data: X of shape (n, p) and y of shape (n,).
        test_data: likewise; looked at, never learned from.
        w: the weights (p,), with requires_grad.
        b: the bias (), with requires_grad.
        lam: λ, the strength of the decay (half mean squared loss, λ/2 ||w||²).
        lr: the step size.
        epochs: how often every example is seen.
        batch_size: m, the rows of a batch.
        every: look at both losses every so many epochs, and after the last.
        penalize_bias: count the bias into the penalty, too.
        generator: draws the order of the examples.
        watch: called as watch(epoch, train_loss, test_loss, w_norm) at every look.
    """
    for epoch in range(1, epochs + 1):
        for X, y in minibatches(*train_data, batch_size, generator):
            penalty = l2_penalty(w) + l2_penalty(b) if penalize_bias else l2_penalty(w)
            loss = squared_loss(linreg(X, w, b), y) + lam * penalty
            loss.sum().backward()
            sgd([w, b], lr, len(y))
        if watch and (epoch % every == 0 or epoch == epochs):
            losses = evaluate_loss(w, b, *train_data), evaluate_loss(w, b, *test_data)
            watch(epoch, *losses, w.detach().norm().item())
