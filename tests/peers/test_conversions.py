"""Every conversion against the library whose convention it is, to 1e-8.

The canonical solution comes from the normal equations. What another library is given is converted from the
canonical λ; what it ends at must be that solution.
"""

import math
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch

from weightdecay.units.conventions import convert

os.environ.setdefault("KERAS_BACKEND", "torch")

pytestmark = pytest.mark.peer

N, P, LAM = 30, 4, 0.2
random = np.random.default_rng(1)
X = random.normal(size=(N, P)) * [1.0, 1.4, 0.8, 1.1]
Y = X @ [1.0, -2.0, 0.5, 0.0] + 0.5 * random.normal(size=N)
EXACT = np.linalg.solve(X.T @ X / N + LAM * np.eye(P), X.T @ Y / N)


def close(found, expected, tolerance=1e-8):
    assert float(abs(np.asarray(found) - expected).max()) < tolerance * float(abs(np.asarray(expected)).max())


def test_ridge():
    linear_model = pytest.importorskip("sklearn.linear_model")
    for lam in (1e-3, LAM, 10.0):
        alpha = convert(lam, "canonical", "sklearn.Ridge", n=N)
        exact = np.linalg.solve(X.T @ X / N + lam * np.eye(P), X.T @ Y / N)
        close(linear_model.Ridge(alpha=alpha, fit_intercept=False).fit(X, Y).coef_, exact)


def test_gaussian_prior_against_bayesian_ridge():
    """Its update for given precisions is the posterior's mean: noise 1/alpha_, prior 1/lambda_."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = linear_model.BayesianRidge(fit_intercept=False).fit(X, Y)
    tau, noise = 1 / math.sqrt(model.lambda_), 1 / math.sqrt(model.alpha_)
    lam = convert(tau, "gaussian_prior", "canonical", n=N, noise_sd=noise)
    close(model.coef_, np.linalg.solve(X.T @ X / N + lam * np.eye(P), X.T @ Y / N))


def test_logistic_regression():
    """Beside torch's own cross entropy and weight_decay."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    labels, XT = (Y > 0).astype(float), torch.tensor(X)
    w = torch.zeros(P, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.5, momentum=0.9, weight_decay=LAM)
    for _ in range(2000):
        optimizer.zero_grad()
        torch.nn.BCEWithLogitsLoss()(XT @ w, torch.tensor(labels)).backward()
        optimizer.step()
    C = convert(LAM, "torch.SGD+mean_loss", "sklearn.LogisticRegression", n=N)
    model = linear_model.LogisticRegression(C=C, fit_intercept=False, tol=1e-14, max_iter=1000)
    close(w.detach().numpy(), model.fit(X, labels).coef_[0])


@pytest.fixture
def optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield optax
    jax.config.update("jax_enable_x64", before)


def test_optax_add_decayed_weights(optax):
    import jax
    import jax.numpy as jnp

    Xj, Yj = jnp.asarray(X), jnp.asarray(Y)
    wd = convert(LAM, "canonical", "optax.add_decayed_weights")
    for momentum in (None, 0.9):
        chain = optax.chain(optax.add_decayed_weights(wd), optax.sgd(0.1, momentum=momentum))

        def step(carry, _, chain=chain):
            w, state = carry
            gradient = jax.grad(lambda w: jnp.mean(optax.l2_loss(Xj @ w, Yj)))(w)
            updates, state = chain.update(gradient, state, w)
            return (optax.apply_updates(w, updates), state), None

        w = jnp.zeros(P, dtype=jnp.float64)
        (w, _), _ = jax.lax.scan(step, (w, chain.init(w)), None, length=1500)
        assert w.dtype == jnp.float64
        close(w, EXACT)


def adamw_of_torch(weight_decay, lrs, gradients, start):
    p = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.AdamW([p], lr=1.0, weight_decay=weight_decay, eps=1e-16)
    for lr, gradient in zip(lrs, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = float(lr)
        p.grad = torch.tensor(gradient)
        optimizer.step()
    return p.detach().numpy()


GRADIENTS = random.normal(size=(60, P))
START = random.normal(size=P)
LRS = 1e-2 * (1 + np.cos(np.pi * np.arange(60) / 60)) / 2


def test_optax_adamw(optax):
    import jax.numpy as jnp

    wd = convert(0.3, "torch.AdamW", "optax.adamw")
    optimizer = optax.adamw(lambda t: jnp.asarray(LRS)[t], eps=1e-16, weight_decay=wd)
    w = jnp.asarray(START)
    state = optimizer.init(w)
    for gradient in GRADIENTS:
        updates, state = optimizer.update(jnp.asarray(gradient), state, w)
        w = optax.apply_updates(w, updates)
    close(w, adamw_of_torch(0.3, LRS, GRADIENTS, START))


@pytest.fixture
def keras():
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras was imported with another backend")
    before = keras.backend.floatx()
    keras.backend.set_floatx("float64")
    yield keras
    keras.backend.set_floatx(before)


def trained_by_keras(keras, optimizer, regularizer=lambda _: 0.0, steps=500):
    """Keras's loss, penalty and optimizer. (Its layers compute to float32's precision even in float64.)"""
    loss, inputs, outputs = keras.losses.get("mse"), torch.tensor(X), torch.tensor(Y)[:, None]
    kernel = keras.Variable(np.zeros((P, 1)))
    for _ in range(steps):
        total = loss(outputs, inputs @ kernel.value).mean() + regularizer(kernel.value)
        (gradient,) = torch.autograd.grad(total, [kernel.value])
        optimizer.apply([gradient], [kernel])
    return kernel.value.detach().numpy()[:, 0]


def test_keras_l2(keras):
    c = convert(LAM, "canonical", "keras.l2")
    close(trained_by_keras(keras, keras.optimizers.SGD(0.1), keras.regularizers.L2(c)), EXACT)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}])
def test_keras_sgd(keras, options):
    wd = convert(LAM, "canonical", "keras.SGD", momentum=options.get("momentum", 0.0))
    optimizer = keras.optimizers.SGD(0.05, weight_decay=wd, **options)
    close(trained_by_keras(keras, optimizer), EXACT)


def test_keras_adamw(keras):
    wd = convert(0.3, "torch.AdamW", "keras.AdamW")
    optimizer = keras.optimizers.AdamW(1e-2, weight_decay=wd, epsilon=1e-16)
    variable = keras.Variable(START)
    for lr, gradient in zip(LRS, GRADIENTS, strict=True):
        optimizer.learning_rate.assign(lr)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    close(variable.value.detach().numpy(), adamw_of_torch(0.3, LRS, GRADIENTS, START))


R = """
suppressPackageStartupMessages(library(glmnet))
d <- as.matrix(read.csv("data.csv", header=FALSE)); X <- d[, -1]; y <- d[, 1]
for (s in c(FALSE, TRUE)) {
  fit <- glmnet(X, y, alpha=0, lambda=LAMBDA, standardize=s, thresh=1e-22, maxit=1e7)
  cat(format(as.vector(coef(fit))[-1], digits=17), "\\n")
}
"""


def test_glmnet(tmp_path):
    if not shutil.which("Rscript"):
        pytest.skip("there is no R here")
    np.savetxt(tmp_path / "data.csv", np.column_stack([Y, X]), delimiter=",", fmt="%.17g")
    script = R.replace("LAMBDA", "0.7")
    done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, cwd=tmp_path)
    if "no package called" in done.stderr:
        pytest.skip("R has no glmnet here")
    assert done.returncode == 0, done.stderr
    raw, standardized = ([float(v) for v in line.split()] for line in done.stdout.splitlines())
    Xc, yc = X - X.mean(0), Y - Y.mean()
    lam = convert(0.7, "glmnet", "canonical", sd_y=Y.std())
    close(raw, np.linalg.solve(Xc.T @ Xc / N + lam * np.eye(P), Xc.T @ yc / N))
    lams = convert(0.7, "glmnet.standardize", "canonical", sd_y=Y.std(), sd_x=X.std(0))
    close(standardized, np.linalg.solve(Xc.T @ Xc / N + np.diag(lams), Xc.T @ yc / N))
