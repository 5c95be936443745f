"""Every convention: training with the converted number ends at the solution of the canonical λ."""

import itertools
import math
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.units.conventions import CONTEXT, ROWS, convert, remarks

N, P, LAM, STEPS = 12, 3, 0.3, 1200
random = np.random.default_rng(0)
X = random.normal(size=(N, P)) * [1.0, 1.5, 0.7]
Y = X @ [1.0, -2.0, 0.5] + 0.3 * random.normal(size=N)
EXACT = np.linalg.solve(X.T @ X / N + LAM * np.eye(P), X.T @ Y / N)
XT, YT = torch.tensor(X), torch.tensor(Y)


def trained(loss, optimizer, weight_decay, steps=STEPS, **options):
    """The weights after full-batch training with a real optimizer, and every stop on the way."""
    w = torch.zeros(P, dtype=torch.float64, requires_grad=True)
    optimizer = optimizer([w], weight_decay=weight_decay, **options)
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss(w)
        optimizer.step()
        path.append(w.detach().numpy().copy())
    return path


def backward(function):
    return lambda w: function(w).backward()


mse, mse_sum = torch.nn.MSELoss(), torch.nn.MSELoss(reduction="sum")


def accumulated(w):
    """Three micro-batches of four, added up and not averaged."""
    for rows in torch.arange(N).reshape(3, 4):
        (mse(XT[rows] @ w, YT[rows]) / 2).backward()


TORCH_ROWS = {  # name: the loss, how many times lr acts, the context
    "torch.SGD+mean_loss": (backward(lambda w: mse(XT @ w, YT) / 2), 1, {}),
    "torch.SGD+half_mse": (backward(lambda w: mse(XT @ w, YT) / 2), 1, {}),
    "torch.SGD+sum_loss": (backward(lambda w: mse_sum(XT @ w, YT) / 2), N, {"n": N}),
    "torch.SGD+MSELoss": (backward(lambda w: mse(XT @ w, YT)), 2, {}),
    "torch.SGD+MSELoss.sum": (backward(lambda w: mse_sum(XT @ w, YT)), 2 * N, {"n": N}),
    "torch.SGD+half_sum": (backward(lambda w: mse_sum(XT @ w, YT) / 2), N, {"n": N}),
    "torch.SGD+accumulated": (accumulated, 3, {"micro_batches": 3}),
}
SGD_OPTIONS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.8, "dampening": 0.5},
    {"momentum": 0.9, "nesterov": True},
]


@pytest.mark.parametrize("name", TORCH_ROWS)
@pytest.mark.parametrize("options", SGD_OPTIONS)
def test_torch_reaches_the_ridge_solution(name, options):
    loss, times, context = TORCH_ROWS[name]
    weight_decay = convert(LAM, "canonical", name, **context)
    path = trained(loss, torch.optim.SGD, weight_decay, lr=0.1 / times, **options)
    np.testing.assert_allclose(path[-1], EXACT, rtol=1e-10)


@pytest.mark.parametrize("name", TORCH_ROWS)
def test_lr_acts_as_the_remark_says(name):
    """With lr divided by it, every stop of the way is the canonical one."""
    loss, times, context = TORCH_ROWS[name]
    canonical = trained(TORCH_ROWS["torch.SGD+half_mse"][0], torch.optim.SGD, LAM, 30, lr=0.1)
    path = trained(loss, torch.optim.SGD, convert(LAM, "canonical", name, **context), 30, lr=0.1 / times)
    np.testing.assert_allclose(path, canonical, rtol=1e-12)
    said = {2: "2·lr", 2 * N: "2·n·lr", N: "n·lr", 3: "K·lr"}
    assert times == 1 or f"lr acts as {said[times]}" in remarks("canonical", name)[0]


def test_a_sum_over_minibatches_counts_their_examples():
    """As the remark says: over batches of m, m takes n's place."""
    lam = convert(0.5, "torch.SGD+MSELoss.sum", "canonical", batch_size=4)
    assert lam == 0.5 / 8 == convert(0.5, "torch.SGD+MSELoss.sum", "canonical", n=N, batch_size=4)
    w = torch.tensor(EXACT, requires_grad=True)
    sums = [
        torch.autograd.grad(mse_sum(XT[rows] @ w, YT[rows]), w)[0] for rows in torch.arange(N).reshape(3, 4)
    ]
    mean = torch.stack(sums).mean(0).numpy()
    weight_decay = convert(LAM, "canonical", "torch.SGD+MSELoss.sum", batch_size=4)
    np.testing.assert_allclose(mean + weight_decay * EXACT, 0, atol=1e-12)


SUMMED = {
    "cross entropy": lambda out, classes: torch.nn.functional.cross_entropy(out, classes, reduction="sum"),
    "smoothed": lambda out, classes: torch.nn.functional.cross_entropy(
        out, classes, reduction="sum", label_smoothing=0.2
    ),
    "huber": lambda out, classes: torch.nn.functional.huber_loss(
        out[:, 0], classes.double(), reduction="sum"
    ),
    "poisson": lambda out, classes: torch.nn.functional.poisson_nll_loss(
        out[:, 0], classes.double(), reduction="sum"
    ),
}


@pytest.mark.parametrize("kind", SUMMED)
@pytest.mark.parametrize("options", SGD_OPTIONS)
def test_a_summed_loss_of_any_kind(kind, options):
    """Batches of m summed, weight_decay × m and lr / m: the steps of the mean loss, to the last digits."""
    classes, m = torch.tensor([0, 1, 2, 1, 0, 2, 2, 1, 0, 1, 1, 0]), 4
    lam, ends = convert(0.05, "torch.SGD+mean_loss", "canonical"), []
    summed = convert(lam, "canonical", "torch.SGD+sum_loss", batch_size=m)
    assert summed == 0.05 * m
    for weight_decay, lr, share in ((0.05, 0.1, m), (summed, 0.1 / m, 1)):
        w = torch.zeros(P, 3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=lr, weight_decay=weight_decay, **options)
        for step in range(60):
            rows = slice(m * (step % 3), m * (step % 3) + m)
            optimizer.zero_grad()
            (SUMMED[kind](XT[rows] @ w, classes[rows]) / share).backward()
            optimizer.step()
        ends.append(w.detach().numpy())
    np.testing.assert_allclose(*ends, rtol=1e-10)


def test_a_summed_cross_entropy_is_least_where_its_gradient_and_the_penalty_cancel():
    """The optimality condition of the mean loss + λ/2 ||w||², by autograd at where the sum ends."""
    classes = torch.tensor([0, 1] * 6)
    loss = backward(lambda w: SUMMED["cross entropy"]((XT @ w)[:, None] * torch.tensor([0.0, 1.0]), classes))
    end = trained(loss, torch.optim.SGD, convert(LAM, "canonical", "torch.SGD+sum_loss", n=N), lr=0.2 / N)[-1]
    w = torch.tensor(end, requires_grad=True)
    SUMMED["cross entropy"]((XT @ w)[:, None] * torch.tensor([0.0, 1.0]), classes).div(N).backward()
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy() + LAM * end, 0, atol=1e-12)
    summed = convert(LAM, "canonical", "torch.SGD+sum_loss", n=N)
    C = convert(summed, "torch.SGD+sum_loss", "sklearn.LogisticRegression", n=N)
    assert pytest.approx(1 / (N * LAM)) == C


def textbook_loop(lam, once=False, batch_size=4):
    """The from-scratch loop, whole: the mean gradient of an epoch's batches at the ridge solution."""
    total = torch.zeros(P, dtype=torch.float64)
    for start in range(0, N, batch_size):
        w = torch.tensor(EXACT, requires_grad=True)
        rows = slice(start, start + batch_size)
        each = (XT[rows] @ w - YT[rows]) ** 2 / 2
        penalty = lam / 2 * (w**2).sum()
        loss = each.sum() + penalty if once else (each + penalty).sum()
        loss.backward()
        total += w.grad / batch_size
    return total.numpy()


def test_textbook_rows():
    lam = convert(LAM, "canonical", "textbook")
    np.testing.assert_allclose(textbook_loop(lam), 0, atol=1e-12)
    np.testing.assert_allclose(textbook_loop(lam, batch_size=5), 0, atol=1e-12)  # batches of 5, 5, 2
    slip = convert(LAM, "canonical", "textbook.added_once", batch_size=4)
    assert slip == 4 * lam
    np.testing.assert_allclose(textbook_loop(slip, once=True), 0, atol=1e-12)


class SGDW(torch.optim.SGD):
    """Decoupled decay on SGD with momentum, from the paper."""

    def __init__(self, params, weight_decay, **options):
        super().__init__(params, **options)
        self.strength = weight_decay

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                with torch.no_grad():
                    p.mul_(1 - group["lr"] * self.strength)
        return super().step()


@pytest.mark.parametrize("options", SGD_OPTIONS)
def test_decoupled_sgd(options):
    mu, dampening = options.get("momentum", 0.0), options.get("dampening", 0.0)
    weight_decay = convert(LAM, "canonical", "sgdw", momentum=mu, dampening=dampening)
    path = trained(TORCH_ROWS["torch.SGD+half_mse"][0], SGDW, weight_decay, lr=0.06, **options)
    np.testing.assert_allclose(path[-1], EXACT, rtol=1e-9)
    if dampening == 0:
        weight_decay = convert(LAM, "canonical", "keras.SGD", momentum=mu)
        path = trained(TORCH_ROWS["torch.SGD+MSELoss"][0], SGDW, weight_decay, lr=0.03, **options)
        np.testing.assert_allclose(path[-1], EXACT, rtol=1e-9)


def test_rows_that_only_rename():
    """keras.l2: d/dw of mean squared loss + c ||w||²; optax: coupled beside a mean of half squares."""
    residual_gradient = X.T @ (X @ EXACT - Y) / N
    c = convert(LAM, "canonical", "keras.l2")
    np.testing.assert_allclose(2 * residual_gradient + 2 * c * EXACT, 0, atol=1e-14)
    coupled = convert(LAM, "canonical", "optax.add_decayed_weights")
    np.testing.assert_allclose(residual_gradient + coupled * EXACT, 0, atol=1e-14)


def test_ridge():
    alpha = convert(LAM, "canonical", "sklearn.Ridge", n=N)
    np.testing.assert_allclose(np.linalg.solve(X.T @ X + alpha * np.eye(P), X.T @ Y), EXACT, rtol=1e-12)
    assert convert(3, "textbook", "sklearn.Ridge", n=20) == 60.0
    assert all(convert(3, "textbook", "sklearn.Ridge", n=n) == 3 * n for n in range(1, 500))


def glmnet(lam, standardize):
    """What glmnet does: y and, if asked, X to unit variance (1/n), ridge there, back."""
    sd_y, sd_x = Y.std(), X.std(0) if standardize else np.ones(P)
    Z, u = (X - X.mean(0)) / sd_x, (Y - Y.mean()) / sd_y
    return np.linalg.solve(Z.T @ Z / N + lam / sd_y * np.eye(P), Z.T @ u / N) * sd_y / sd_x


def test_glmnet_by_its_closed_form():
    Xc, yc = X - X.mean(0), Y - Y.mean()
    lam = convert(0.7, "glmnet", "canonical", sd_y=Y.std())
    expected = np.linalg.solve(Xc.T @ Xc / N + lam * np.eye(P), Xc.T @ yc / N)
    np.testing.assert_allclose(glmnet(0.7, False), expected, rtol=1e-12)
    lams = convert(0.7, "glmnet.standardize", "canonical", sd_y=Y.std(), sd_x=X.std(0))
    assert lams.shape == (P,)
    expected = np.linalg.solve(Xc.T @ Xc / N + np.diag(lams), Xc.T @ yc / N)
    np.testing.assert_allclose(glmnet(0.7, True), expected, rtol=1e-12)
    back = convert(lams, "canonical", "glmnet.standardize", sd_y=Y.std(), sd_x=list(X.std(0)))
    np.testing.assert_allclose(back, 0.7, rtol=1e-14)


def test_gaussian_prior():
    noise = 0.4
    tau = convert(LAM, "canonical", "gaussian_prior", n=N, noise_sd=noise)
    mode = np.linalg.solve(X.T @ X / noise**2 + np.eye(P) / tau**2, X.T @ Y / noise**2)
    np.testing.assert_allclose(mode, EXACT, rtol=1e-12)
    assert convert(tau, "gaussian_prior", "canonical", n=N, noise_sd=noise) == pytest.approx(LAM, rel=1e-14)


def logistic(weights_of_loss, weights_of_penalty):
    """argmin of a·sum log loss + b/2 ||w||² by Newton's method."""
    labels, w = (Y > 0).astype(float), np.zeros(P)
    for _ in range(50):
        p = 1 / (1 + np.exp(-X @ w))
        gradient = weights_of_loss * X.T @ (p - labels) + weights_of_penalty * w
        hessian = weights_of_loss * (X.T * (p * (1 - p))) @ X + weights_of_penalty * np.eye(P)
        w = w - np.linalg.solve(hessian, gradient)
    return w


def test_logistic_rows():
    labels = torch.tensor((Y > 0).astype(float))
    cross_entropy = torch.nn.BCEWithLogitsLoss()
    path = trained(
        backward(lambda w: cross_entropy(XT @ w, labels)), torch.optim.SGD, LAM, lr=0.3, momentum=0.9
    )
    C = convert(LAM, "torch.SGD+mean_loss", "sklearn.LogisticRegression", n=N)
    np.testing.assert_allclose(path[-1], logistic(C, 1), rtol=1e-10)
    tau = convert(LAM, "torch.SGD+mean_loss", "gaussian_prior.nll", n=N)
    np.testing.assert_allclose(path[-1], logistic(1, 1 / tau**2), rtol=1e-10)


def test_independent_is_adamw_with_another_number():
    """The paper's own update, w <- (1 - λ_ind·lr_t/lr_max) w, beside the real AdamW under a schedule."""
    peak, strength = 2e-3, 1e-4
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    p.grad = torch.zeros_like(p)
    weight_decay = convert(strength, "independent", "torch.AdamW", lr_max=peak)
    optimizer, expected = torch.optim.AdamW([p], lr=peak, weight_decay=weight_decay), 1.0
    for t in range(200):
        relative = (1 + math.cos(math.pi * t / 200)) / 2
        optimizer.param_groups[0]["lr"] = peak * relative
        optimizer.step()
        expected *= 1 - strength * relative
    assert float(p.detach()) == pytest.approx(expected, rel=1e-13)


def test_why_adamw_has_no_lambda():
    """The refusal's claim: full-batch AdamW ends at the least loss with every |w_j| <= 1/wd."""
    optimum = torch.tensor([3.0, 0.3, -2.0, -0.1], dtype=torch.float64)
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([w], lr=1e-2, betas=(0.9, 0.99), weight_decay=2.0)
    for step in range(3000):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 3000)
        optimizer.zero_grad()
        (((w - optimum) ** 2).sum() / 2).backward()
        optimizer.step()
    torch.testing.assert_close(
        w.detach(), torch.tensor([0.5, 0.3, -0.5, -0.1]), rtol=0, atol=2e-3, check_dtype=False
    )


def test_why_adam_with_l2_has_no_rate():
    """The refusal's claim: without gradient about lr a step, whatever weight_decay is."""
    for weight_decay in (1e-4, 1e-1):
        p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = torch.optim.Adam([p], lr=1e-3, weight_decay=weight_decay)
        for _ in range(50):
            p.grad = torch.zeros_like(p)
            optimizer.step()
        assert float(p.detach()) == pytest.approx(0.9503, abs=5e-5)


RIDGE = [row.name for row in ROWS if row.family == "ridge"]
DECOUPLED = [row.name for row in ROWS if row.family == "decoupled"]
PAIRS = [*itertools.product(RIDGE, RIDGE), *itertools.product(DECOUPLED, DECOUPLED)]
ALL = {
    "n": st.integers(1, 10**7),
    "batch_size": st.integers(1, 10**5),
    "micro_batches": st.integers(1, 100),
    "momentum": st.floats(0, 0.999),
    "dampening": st.floats(0, 0.99),
    "lr_max": st.floats(1e-6, 10),
    "sd_y": st.floats(1e-3, 1e3),
    "sd_x": st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3),
    "noise_sd": st.floats(1e-3, 1e3),
}


def record(name):
    return next(row for row in ROWS if row.name == name)


def used(context, *names):
    rows = [record(name) for name in names]
    return {key: value for key, value in context.items() if any(key in (*r.needs, *r.takes) for r in rows)}


@given(st.sampled_from(PAIRS), st.floats(1e-9, 1e6), st.fixed_dictionaries(ALL))
def test_there_and_back(pair, value, context):
    context = used(context, *pair)
    there = convert(value, *pair, **context)
    back = convert(there, *reversed(pair), **context)
    np.testing.assert_allclose(back, value, rtol=1e-12)


@given(st.sampled_from(RIDGE), st.sampled_from(RIDGE), st.floats(1e-6, 1e6), st.fixed_dictionaries(ALL))
def test_by_way_of_the_canonical(source, target, value, context):
    lam = convert(value, source, "canonical", **used(context, source))
    through = convert(lam, "canonical", target, **used(context, target))
    np.testing.assert_allclose(
        through, convert(value, source, target, **used(context, source, target)), rtol=1e-12
    )


def test_every_pair_of_families_is_refused():
    for source, target in itertools.product(RIDGE, [*DECOUPLED, "torch.Adam"]):
        for pair in ((source, target), (target, source)):
            with pytest.raises(InputError, match="this conversion does not exist"):
                convert(0.1, *pair)
    with pytest.raises(InputError, match="1/wd"):
        convert(0.1, "torch.AdamW", "sklearn.Ridge", n=3)
    with pytest.raises(InputError, match="about lr a step whatever weight_decay is"):
        convert(0.1, "torch.Adam", "torch.AdamW")


def test_the_list_is_a_table():
    rows = wd.conventions()
    assert {row.name for row in rows} == {row.name for row in ROWS}
    assert len({row.name for row in rows}) == len(rows) >= 20
    table = str(rows).splitlines()
    assert len(table) == len(rows) + 1
    assert table[0].split()[0] == "name"
    line = next(line for line in table if line.startswith("sklearn.Ridge"))
    assert "λ = alpha / n" in line
    for row in rows:
        assert row.what
        assert row.equation
        assert row.source
        assert set(row.needs) | set(row.takes) <= set(CONTEXT)
        assert "divisor" not in row.to_dict()
        assert hash(row) is not None


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: convert(3, "textbook", "sklearn.Ridge"), ["n, the number of training examples", "give n"]),
        (lambda: convert(3, "textbook", "sklearn.Ridge", n=0), ["n = 0"]),
        (lambda: convert(3, "textbook", "sklearn.Ridge", n=1.5), ["not a whole number: n = 1.5"]),
        (lambda: convert(3, "textbook", "sklearn.Ridge", n=True), ["n = True"]),
        (lambda: convert(3, "textbook", "sklearn.Ridge", n="20"), ["n = '20'"]),
        (lambda: convert(3, "textbook", "sklearn.Ridge", n=None), ["n, the number"]),
        (
            lambda: convert(3, "textbook", "sklearn.Ridge", n=5, momentum=0.9),
            ["not used", "momentum", "uses n"],
        ),
        (lambda: convert(3, "textbook", "sgdw", momentun=0.9), ["no such context", "did you mean momentum"]),
        (
            lambda: convert(3, "textbook", "sgdw", xyz=0.9),
            ["no such context: xyz", "uses momentum, dampening"],
        ),
        (lambda: convert(3, "textbook", "sgdw", momentum=1.0), ["momentum = 1.0", "less than 1"]),
        (lambda: convert(3, "textbok", "sgdw", momentum=0.9), ["source = 'textbok'", "use textbook"]),
        (lambda: convert(3, "textbook", "ridge", n=3), ["target = 'ridge'", "use sklearn.Ridge"]),
        (lambda: convert(3, "textbook", "torch.sgd", n=3), ["torch.SGD+MSELoss.sum"]),
        (lambda: convert(3, "textbook", "qqqq"), ["canonical or textbook"]),
        (lambda: convert(-3, "textbook", "canonical"), ["value = -3"]),
        (lambda: convert(math.nan, "textbook", "canonical"), ["value = nan"]),
        (lambda: convert(math.inf, "textbook", "canonical"), ["value = inf"]),
        (lambda: convert([1.0, -1.0], "textbook", "canonical"), ["value[1] = -1"]),
        (
            lambda: convert(0, "textbook", "gaussian_prior.nll", n=3),
            ["no finite number in gaussian_prior.nll"],
        ),
        (lambda: convert(0, "sklearn.LogisticRegression", "textbook", n=3), ["no λ belongs to it", "give C"]),
        (lambda: convert(1, "glmnet.standardize", "textbook", sd_y=1, sd_x=[1, 0]), ["does not vary: sd_x"]),
        (lambda: convert(1, "glmnet", "textbook", sd_y=0), ["sd_y = 0"]),
        (
            lambda: convert([1, 2, 3], "glmnet.standardize", "textbook", sd_y=1, sd_x=[1, 2]),
            ["3 values for 2 features"],
        ),
    ],
)
def test_bad_input_is_named(call, parts):
    with pytest.raises(InputError) as refused:
        call()
    for part in parts:
        assert part in str(refused.value)


def test_values_of_wrong_types_are_refused():
    """Outside the tests' type checks, as a user calls it."""
    script = """
import weightdecay as wd
good = wd.Setup(1, 1, 2)
calls = [
    lambda: wd.convert("3", "textbook", "canonical"),
    lambda: wd.convert(True, "textbook", "canonical"),
    lambda: wd.convert(None, "textbook", "canonical"),
    lambda: wd.convert({}, "textbook", "canonical"),
    lambda: wd.convert(3, 4, "canonical"),
    lambda: wd.HalfLife(steps="3"),
    lambda: wd.HalfLives("x"),
    lambda: wd.HalfLives(None),
    lambda: wd.Setup("x", 1, 2),
    lambda: wd.Setup(1, 1, 2.5),
    lambda: wd.transfer("x", good, good),
    lambda: wd.transfer(.1, good, 3),
    lambda: wd.transfer(.1, good, good, keep="x"),
    lambda: wd.transfer(.1, good, good, law="x"),
    lambda: wd.transfer(.1, good, good, width_rule="x"),
]
for call in calls:
    try: call()
    except wd.InputError as error: print(error)
    else: print("ACCEPTED")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 15
    assert "ACCEPTED" not in done.stdout


@pytest.mark.parametrize(
    ("value", "source", "target"),
    [(1e308, "textbook", "sklearn.Ridge"), (1e-200, "gaussian_prior.nll", "canonical")],
)
def test_beyond_float64(value, source, target):
    with pytest.raises(InputError, match="beyond what float64 can hold: value = 1e"):
        convert(value, source, target, n=20)
