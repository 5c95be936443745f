"""The textbook's experiment with `torch.nn` and `torch.optim`: the optimizer's own weight decay.

`MSELoss` has no ½ and the optimizer adds wd·w to the gradient, so the objective here is

    J(w, b) = 1/n Σ_i (x_i'w + b − y_i)²  +  wd/2 ||w||²

At equal numbers this is *not* the objective of `scratch`: with wd = 2λ and half the lr it is, step by step.
"""

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from weightdecay.textbook.scratch import minibatches


def linear_model(w: Tensor, b: Tensor) -> nn.Linear:
    """Make a linear layer that starts at w of shape (p,) and b of shape ().

    The layer exists before its parameters are set, and nothing initialises them afterwards. Made
    on the meta device it draws nothing from the global generator.
    """
    model = nn.Linear(len(w), 1, dtype=w.dtype, device="meta").to_empty(device=w.device)
    with torch.no_grad():
        model.weight.copy_(w)
        model.bias.copy_(b)
    return model


def one_optimizer(
    model: nn.Linear, *, lr: float, weight_decay: float, bias_decay: float = 0.0
) -> list[Optimizer]:
    """SGD with two parameter groups: the weight decays, the bias goes free (unless bias_decay says no)."""
    return [
        SGD(
            [
                {"params": [model.weight], "weight_decay": weight_decay},
                {"params": [model.bias], "weight_decay": bias_decay},
            ],
            lr=lr,
        )
    ]


def two_optimizers(
    model: nn.Linear, *, lr: float, weight_decay: float, bias_lr: float, bias_decay: float = 0.0
) -> list[Optimizer]:
    """Different optimizers for different parameters: SGD with decay for the weight, Adam for the bias."""
    return [
        SGD([model.weight], lr=lr, weight_decay=weight_decay),
        Adam([model.bias], lr=bias_lr, weight_decay=bias_decay),
    ]


def half_mse(model: nn.Linear, X: Tensor, y: Tensor) -> float:
    """Half the mean squared error, so that curves compare with those from scratch. No penalty in it."""
    with torch.no_grad():
        return nn.functional.mse_loss(model(X).squeeze(1), y).item() / 2


def train(
    train_data: tuple[Tensor, Tensor],
    test_data: tuple[Tensor, Tensor],
    model: nn.Linear,
    optimizers: list[Optimizer],
    *,
    epochs=100,
    batch_size=5,
    every=5,
    generator=None,
    watch=None,
):
    """Train the model in place, each optimizer stepping its own parameters.

    Args:
        train_data: X of shape (n, p) and y of shape (n,).
        test_data: likewise; looked at, never learned from.
        model: a linear layer from p inputs to one output.
        optimizers: all are stepped after each batch; the decay is theirs.
        epochs: how often every example is seen.
        batch_size: the rows of a batch.
        every: look at both losses every so many epochs, and after the last.
        generator: draws the order of the examples.
        watch: called as watch(epoch, train_loss, test_loss, w_norm) at every look.
    """
    loss = nn.MSELoss()
    for epoch in range(1, epochs + 1):
        for X, y in minibatches(*train_data, batch_size, generator):
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss(model(X).squeeze(1), y).backward()
            for optimizer in optimizers:
                optimizer.step()
        if watch and (epoch % every == 0 or epoch == epochs):
            losses = half_mse(model, *train_data), half_mse(model, *test_data)
            watch(epoch, *losses, model.weight.detach().norm().item())
