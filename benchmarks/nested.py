"""Does the λ chosen inside do well outside? Nested cross-validation on real spectra.

    .venv/bin/python benchmarks/nested.py [--target protein] [--seeds 10]

Tecator: 215 near-infrared spectra of meat, 100 channels; a target is predicted, the two others are left out.
Outer: 5 folds, shuffled, for each seed; λ is chosen on the training rows alone, columns standardised on them;
the error is the mean squared error on the outer test rows, over the 5 folds of a seed. In hindsight: the one
λ of a fine grid with the least error on the very same test rows, for each seed; nobody can choose it, and a
ratio of 1 is as good as it gets. All errors are computed here from the chosen λ, by singular values.
"""

import argparse
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

import weightdecay as wd
from ridge_contestants import glmnet_is_here
from weightdecay.tables import read_table

TABLE = Path(__file__).parents[1] / "examples/data/tecator.csv"
OTHERS = {"protein": ["water", "fat"], "fat": ["water", "protein"], "water": ["fat", "protein"]}
GRID = np.logspace(-12, 2, 281)  # hindsight's, canonical λ on standardised columns
Chooser = Callable[[np.ndarray, np.ndarray, int], dict[str, float]]  # names and their canonical λ


def ours(X: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float]:
    """Every criterion of `wd.ridge_path` on its automatic grid, and its one-standard-error choices."""
    chosen = {}
    criteria = {"leave-one-out": "loo", "generalised CV": "gcv", "evidence": "evidence", "5 folds": 5}
    for name, cv in criteria.items():
        path = wd.ridge_path(X, y, cv=cv, seed=seed, standardize=True)
        chosen[f"weightdecay, {name}"] = float(path.best)
        if name in ("leave-one-out", "5 folds"):
            chosen[f"weightdecay, {name}, one standard error"] = float(path.one_se)
    return chosen


def scikit_learn(X: np.ndarray, y: np.ndarray, _: int) -> dict[str, float]:
    """`RidgeCV` on columns standardised before: its default grid, and one of fourteen decades."""
    from sklearn.linear_model import RidgeCV

    Z = (X - X.mean(0)) / X.std(0)
    grids = {"default grid": [0.1, 1.0, 10.0], "14 decades": len(y) * np.logspace(-12, 2, 169)}
    fits: dict[str, Any] = {name: RidgeCV(alphas).fit(Z, y) for name, alphas in grids.items()}
    return {f"scikit-learn RidgeCV, {name}": float(fit.alpha_) / len(y) for name, fit in fits.items()}


R = """
suppressPackageStartupMessages(library(glmnet))
d <- as.matrix(read.csv("train.csv", header=FALSE)); set.seed(SEED)
fit <- cv.glmnet(d[, -1], d[, 1], alpha=0, nfolds=5)
cat(fit$lambda.min, fit$lambda.1se, "\\n")
"""


def glmnet(X: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float]:
    """`cv.glmnet` as it comes: standardised, its own grid, 5 folds. Its penalty is λ / sd(y)."""
    with tempfile.TemporaryDirectory() as folder:
        np.savetxt(Path(folder) / "train.csv", np.column_stack([y, X]), delimiter=",", fmt="%.17g")
        script = R.replace("SEED", str(seed))
        done = subprocess.run(
            ["Rscript", "-e", script], cwd=folder, capture_output=True, text=True, check=True
        )
    given = [float(value) for value in done.stdout.split()]
    least, one_se = np.asarray(wd.convert(given, "glmnet", "canonical", sd_y=y.std()))
    return {"glmnet, 5 folds": float(least), "glmnet, 5 folds, one standard error": float(one_se)}


def outer_errors(
    X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, lambdas: np.ndarray
) -> np.ndarray:
    """Mean squared error on the test rows at each λ (L,): standardised ridge by singular values."""
    m, sd, y_mean = X[train].mean(0), X[train].std(0), y[train].mean()
    U, s, Vt = np.linalg.svd((X[train] - m) / sd, full_matrices=False)
    gains = s[:, None] / (s[:, None] ** 2 + len(train) * lambdas)
    coefficients = Vt.T @ (gains * (U.T @ (y[train] - y_mean))[:, None])
    return np.mean((y[test, None] - y_mean - (X[test] - m) / sd @ coefficients) ** 2, axis=0)


def study(X: np.ndarray, y: np.ndarray, seeds: int, choosers: list[Chooser]) -> dict[str, np.ndarray]:
    """For each rule: λ and outer error of each seed and outer fold (seeds, 5, 2); hindsight's first."""
    found: dict[str, list[list[list[float]]]] = {}
    every = np.empty((seeds, 5, len(GRID)))
    for seed in range(seeds):
        fold = np.random.default_rng(seed).permutation(len(y)) % 5
        for k in range(5):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            every[seed, k] = outer_errors(X, y, train, test, GRID)
            for choose in choosers:
                for name, lam in choose(X[train], y[train], seed).items():
                    error = outer_errors(X, y, train, test, np.array([lam]))[0]
                    found.setdefault(name, [[] for _ in range(seeds)])[seed].append([lam, error])
    best = every.mean(1).argmin(1)
    hindsight = [[[GRID[b], e] for e in every[seed, :, b]] for seed, b in enumerate(best)]
    return {"in hindsight": np.array(hindsight), **{name: np.array(rows) for name, rows in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", choices=OTHERS, default="protein")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # flat curves and edges are what the table shows
    table = read_table(TABLE, options.target, OTHERS[options.target])
    choosers: list[Chooser] = [ours, scikit_learn]
    if glmnet_is_here():
        choosers.append(glmnet)
    results = study(table.X.numpy(), table.y.numpy(), options.seeds, choosers)
    hindsight = results["in hindsight"][:, :, 1].mean(1)
    print(f"Tecator, {options.target}: outer 5 folds × {options.seeds} seeds, mean squared error.\n")
    print("| λ chosen by | median λ | mean error | median over seeds | × hindsight, median | min – max |")
    print("|---|---|---|---|---|---|")
    for name, figures in results.items():
        errors = figures[:, :, 1].mean(1)
        ratios = errors / hindsight
        print(
            f"| {name} | {np.median(figures[:, :, 0]):.2g} | {mean(errors):.4g} | {median(errors):.4g} | "
            f"{median(ratios):.3f} | {ratios.min():.3f} – {ratios.max():.3f} |"
        )


if __name__ == "__main__":
    main()
