"""Slow, readable, independent references in NumPy. Nothing here imports the package."""

import numpy as np


def minibatch_descent(X, y, w, b, order, *, lam, lr, batch_size, loss_scale=1.0, penalize_bias=False):
    """Minibatch gradient descent with decay, one example at a time; yields (w, b) after each epoch."""
    w, b = np.array(w, dtype=float), float(b)
    for rows in order:
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            gradient_w, gradient_b = lam * w, lam * b if penalize_bias else 0.0
            for i in batch:
                error = X[i] @ w + b - y[i]
                gradient_w = gradient_w + loss_scale * error * X[i] / len(batch)
                gradient_b = gradient_b + loss_scale * error / len(batch)
            w, b = w - lr * gradient_w, b - lr * gradient_b
        yield w.copy(), b


def expected_path(X, y, w, b, t, *, lam, lr, penalize_bias=False):
    """w_t and b_t = A^t z_0 + (I - A^t) z*, with A multiplied out and z* from a linear solve (λ > 0)."""
    n, p = X.shape
    D = np.eye(p + 1)
    D[p, p] = float(penalize_bias)
    Z = np.column_stack([X, np.ones(n)])
    H = Z.T @ Z / n + lam * D
    A = np.linalg.matrix_power(np.eye(p + 1) - lr * H, t)
    minimum = np.linalg.solve(H, Z.T @ y / n)
    z = A @ np.append(w, b) + (np.eye(p + 1) - A) @ minimum
    return z[:p], z[p]


def ridge(X, y, lam, penalize_bias=False):
    """Ridge by the normal equations, canonical λ > 0: (w, b)."""
    n, p = X.shape
    Z = np.column_stack([X, np.ones(n)])
    D = np.eye(p + 1)
    D[p, p] = float(penalize_bias)
    z = np.linalg.solve(Z.T @ Z / n + lam * D, Z.T @ y / n)
    return z[:p], z[p]


def leave_one_out(X, y, lam):
    """Mean squared error of n refits; the penalty in the sum convention, n·λ, stays as it is."""
    n = len(y)
    errors = []
    for i in range(n):
        keep = np.arange(n) != i
        w, b = ridge(X[keep], y[keep], lam * n / (n - 1))
        errors.append(y[i] - X[i] @ w - b)
    return np.mean(np.square(errors))


def half_mse(X, y, w, b):
    """Half the mean squared error."""
    return np.mean((X @ w + b - y) ** 2) / 2
