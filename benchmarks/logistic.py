"""The path of logistic regression against scikit-learn and a plain sweep, interleaved in one run.

    .venv/bin/python benchmarks/logistic.py                         folds and leave-one-out
    .venv/bin/python benchmarks/logistic.py --shapes digits,569×30×2 --repeats 3
    .venv/bin/python benchmarks/logistic.py --quick                 small shapes, to see that it runs

20 λ from 10 to 1e-4, mean convention, 5 folds and the final fit. Contestants take turns, in processes of
their own: ours by folds and by leave-one-out, with 20 λ and 100; `LogisticRegressionCV` at its defaults and
at a tighter tolerance; L-BFGS of torch as people write it for probes, each fold and λ from zero. Ratios are
taken within a repeat. `excess`: by how much the objective of the final fits is above ours, relative, the
largest over λ.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

from table import note
from weightdecay.logistic.leave_one_out import leave_one_out
from weightdecay.logistic.solve import solve
from weightdecay.ridge.linalg import one_pool

FOLDS = 5
TABLES = {"digits": load_digits, "breast cancer": load_breast_cancer, "iris": load_iris}
GOALS = {("digits", "folds"): 10, ("digits", "leave-one-out"): 30, ("5000×512×10", "folds"): 8}
GOALS |= {("breast cancer", "folds"): 3}
SHAPES = "digits,breast cancer,iris,5000×512×10,2000×100×2,300×1000×3"
QUICK = "iris,200×20×3"
OURS = ("folds", "leave-one-out", "folds, 100 λ", "leave-one-out, 100 λ")
PEERS = ("LogisticRegressionCV", "LogisticRegressionCV, tol 1e-7", "torch L-BFGS")


def draw(shape: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A data set that ships with scikit-learn, standardised, or a mixture n×p×classes."""
    if shape in TABLES:
        X, y = TABLES[shape](return_X_y=True)
        return (X - X.mean(0)) / np.maximum(X.std(0), 1e-3), y
    n, p, classes = map(int, shape.split("×"))
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    scale = (1 + np.arange(p)) ** -0.5 * p**0.25
    return (rng.normal(size=(classes, p))[y] * 0.5 + rng.normal(size=(n, p))) * scale, y


def grid(count: int) -> np.ndarray:
    return np.logspace(1, -4, count)


def objective(X: np.ndarray, y: np.ndarray, W: np.ndarray, b: np.ndarray, lam: float) -> float:
    """Mean log loss + λ/2 ‖W‖²."""
    Z = X @ W.T + b
    Z = np.concatenate([np.zeros_like(Z), Z], 1) if Z.shape[1] == 1 else Z
    top = Z.max(1, keepdims=True)
    losses = np.log(np.exp(Z - top).sum(1)) + top[:, 0] - Z[np.arange(len(y)), y]
    return float(losses.mean() + lam / 2 * (W**2).sum())


@one_pool()
def ours(X: np.ndarray, y: np.ndarray, job: str, fold: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    n, p, classes = *X.shape, int(y.max()) + 1
    tensors = torch.tensor(X), torch.tensor(y, dtype=torch.int64), classes
    alphas = n * torch.tensor(grid(100 if "100" in job else 20))
    if job.startswith("leave"):
        ones = torch.ones(n, dtype=torch.float64), torch.ones(p, dtype=torch.float64)
        return [
            (left.fit.coef[0].numpy(), left.fit.intercept[0].numpy())
            for left in leave_one_out(*tensors, *ones, alphas)
        ]
    weights = torch.ones(FOLDS + 1, n, dtype=torch.float64)
    for k in range(FOLDS):
        weights[k, fold == k] = 0
    fits = solve(*tensors, weights, torch.ones(FOLDS + 1, p, dtype=torch.float64), alphas)
    found = []
    for fit in fits:
        for k in range(FOLDS):
            fit.logits(k, torch.tensor(np.flatnonzero(fold == k)))
        found.append((fit.coef[-1].numpy(), fit.intercept[-1].numpy()))
    return found


def scikit_learn(X: np.ndarray, y: np.ndarray, job: str, fold: np.ndarray) -> None:
    pairs = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]
    options: dict[str, Any] = {"tol": 1e-7, "max_iter": 10000} if "tol" in job else {}
    options |= {"Cs": 1 / (len(y) * grid(20)), "l1_ratios": (0,), "use_legacy_attributes": True}
    model = LogisticRegressionCV(cv=pairs, scoring="neg_log_loss", **options)
    model.fit(X, y)


def alone(X: np.ndarray, y: np.ndarray, job: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fit all rows as `scikit_learn` does in its last fit, at every λ from zero: for its objective alone."""
    options = {"tol": 1e-7, "max_iter": 10000} if "tol" in job else {}
    found = []
    for lam in grid(20):
        model = LogisticRegression(C=1 / (len(y) * lam), **options).fit(X, y)
        found.append((model.coef_, model.intercept_))
    return found


def torch_sweep(X: np.ndarray, y: np.ndarray, fold: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """L-BFGS with strong Wolfe conditions, 100 iterations, as probes are fitted."""
    A, labels, classes = torch.tensor(X), torch.tensor(y, dtype=torch.int64), int(y.max()) + 1
    found = []
    W = b = torch.empty(0)
    for lam in grid(20):
        # Half of one logit's weights on either side of two are ‖w‖²/2: twice the penalty is the same model.
        penalty = lam if classes == 2 else lam / 2
        for k in [*range(FOLDS), -1]:
            rows = torch.tensor(np.flatnonzero(fold != k))
            W = torch.zeros(classes, A.shape[1], dtype=A.dtype, requires_grad=True)
            b = torch.zeros(classes, dtype=A.dtype, requires_grad=True)
            optimizer = torch.optim.LBFGS([W, b], max_iter=100, line_search_fn="strong_wolfe")
            inputs, targets = A[rows], labels[rows]

            def closure(W=W, b=b, inputs=inputs, targets=targets, optimizer=optimizer, penalty=penalty):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(inputs @ W.T + b, targets) + penalty * (W**2).sum()
                loss.backward()
                return loss

            optimizer.step(closure)
        W, b = W.detach(), b.detach()
        found.append(
            (W.numpy(), b.numpy()) if classes > 2 else ((W[1:] - W[:1]).numpy(), (b[1:] - b[:1]).numpy())
        )
    return found


def work(job: str, shape: str) -> None:
    """A contestant's process: a seed comes in on a line, seconds and objectives go out on a line."""
    for line in sys.stdin:
        X, y = draw(shape, int(line))
        fold = np.random.default_rng(int(line)).permutation(len(y)) % FOLDS
        start, cpu = time.perf_counter(), time.process_time()
        if job in OURS:
            fits = ours(X, y, job, fold)
        elif "torch" in job:
            fits = torch_sweep(X, y, fold)
        else:
            fits = scikit_learn(X, y, job, fold)
        taken, spent = time.perf_counter() - start, time.process_time() - cpu
        fits = alone(X, y, job) if fits is None else fits
        values = [objective(X, y, W, b, lam) for (W, b), lam in zip(fits, grid(len(fits)), strict=True)]
        print(json.dumps({"seconds": taken, "cpu": spent, "objectives": values}), flush=True)


def compare(shape: str, jobs: list[str], repeats: int) -> None:
    """Print a table's rows for one shape."""
    command = [sys.executable, "-W", "ignore", __file__, "--work"]
    processes = {
        job: subprocess.Popen(
            [*command, job, shape], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for job in jobs
    }
    replies: dict[str, list[dict]] = {job: [] for job in jobs}
    for seed in range(-1, repeats):  # the first settles imports and thread pools
        for job, process in processes.items():
            if seed < 0 and job not in OURS:
                continue
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{max(seed, 0)}\n")
            process.stdin.flush()
            reply = json.loads(process.stdout.readline())
            if seed >= 0:
                replies[job].append(reply)
    for process in processes.values():
        process.communicate()
    best = replies["folds"][0]["objectives"]
    for job in jobs:
        seconds = [reply["seconds"] for reply in replies[job]]
        ratios, cpu = (
            {
                base: [a[key] / b[key] for a, b in zip(replies[job], replies[base], strict=True)]
                for base in ("folds", "leave-one-out")
            }
            for key in ("seconds", "cpu")
        )
        values = replies[job][0]["objectives"]
        excess = (
            max(a / b - 1 for a, b in zip(values, best, strict=True)) if len(values) == 20 else float("nan")
        )
        cells = [
            shape,
            job,
            f"{median(seconds):.3g}",
            f"{median(reply['cpu'] for reply in replies[job]):.3g}",
        ]
        cells += [f"{median(ratios[base]):.3g}" for base in ratios] + [
            f"{median(cpu[base]):.3g}" for base in cpu
        ]
        print("| " + " | ".join([*cells, f"{excess:.1g}"]) + " |", flush=True)
        if job == "LogisticRegressionCV":
            for base, values in ratios.items():
                note(f"logistic path, {shape}, {base}", job, values, f"≥ {GOALS.get((shape, base), 1)}")
        if job.endswith("100 λ"):
            base = job.removesuffix(", 100 λ")
            note(f"logistic path, {shape}, {job}", "20 λ", ratios[base], "≤ 3")


def main() -> None:
    """Run all shapes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--alone", action="store_true", help="ours alone")
    parser.add_argument("--work", nargs=2, metavar=("JOB", "SHAPE"))
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return
    shapes = options.shapes or (QUICK if options.quick else SHAPES)
    peers = [] if options.alone else PEERS
    print("| shape | job | s | CPU s | × folds | × left out | CPU × folds | CPU × left out | excess |")
    print("|---" * 9 + "|")
    for shape in shapes.split(","):
        compare(shape, [*OURS, *peers], 1 if options.quick else options.repeats)


if __name__ == "__main__":
    main()
