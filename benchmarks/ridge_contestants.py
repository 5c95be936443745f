"""The contestants of `benchmarks/ridge.py`: designs, and what each package does with one.

Everybody gets the same float64 arrays and the same 100 values of λ and ends with the coefficients and the
intercept at the λ of least score. A contestant makes its imports, then takes a `Problem` and returns an
`Outcome`.
"""

import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """What a contestant found, for a check that all did the same work.

    Args:
        alpha: of least score, sum convention (the first target's).
        score: the least score.
        seconds, extra: time and extra MB by its own account, where it ran elsewhere.
    """

    alpha: float
    score: float
    seconds: float | None = None
    extra: float | None = None


@dataclass(frozen=True)
class Design:
    """A shape, and the goals set for it: least speedup over each peer."""

    n: int
    p: int
    targets: int
    goals: dict[str, float]

    def __str__(self) -> str:
        return f"{self.n} × {self.p}" + (f", {self.targets} targets" if self.targets > 1 else "")


DESIGNS = {
    "A": Design(100, 20_000, 1, {"scikit-learn": 10, "himalaya": 4, "glmnet": 40}),
    "B": Design(500, 50_000, 1, {"scikit-learn": 6, "himalaya": 4, "glmnet": 40}),
    "C": Design(2000, 5000, 1, {"scikit-learn": 4, "himalaya": 40, "glmnet": 40}),
    "D": Design(100_000, 200, 1, {"scikit-learn": 100, "glmnet": 40}),
    "E": Design(1000, 2000, 500, {"scikit-learn": 8, "himalaya": 8}),
}
# What people have, beside the extremes above: leave-one-out alone, on Gaussian inputs.
SHAPES = {
    f"{n}×{p}": Design(n, p, 1, {"scikit-learn": 1.5 if n * p >= 1e4 else 1})
    for n, p in (
        (20, 200), (60, 401), (200, 10), (442, 10), (300, 300), (1000, 1000), (5000, 50), (2000, 2000),
        (20_000, 1000), (1_000_000, 20),
    )
}  # fmt: skip
ALPHAS = (-2, 5)  # powers of ten between which their grid lies
QUICK = {
    "A": Design(60, 2000, 1, {}),
    "D": Design(5000, 50, 1, {}),
    "E": Design(200, 400, 20, {}),
}


@dataclass(frozen=True)
class Problem:
    """Data of a design: X (n, p), y (n,) or (n, t), and the alphas, ascending."""

    X: np.ndarray
    y: np.ndarray
    alphas: np.ndarray


def draw_gaussian(design: Design, seed: int, lambdas: int) -> Problem:
    """Standard normal inputs, a signal of variance 1 in all columns, and noise of variance 1."""
    random = np.random.default_rng(seed)
    X = random.standard_normal((design.n, design.p))
    y = X @ random.standard_normal(design.p) / design.p**0.5 + random.standard_normal(design.n)
    return Problem(X, y, np.logspace(*ALPHAS, lambdas))


def draw(design: Design, seed: int, lambdas: int) -> Problem:
    """Columns with means, half of their variance in 20 factors, which the targets follow; half of y is noise.

    The grid spans eight decades about the bulk of the eigenvalues, max(n, p).
    """
    random = np.random.default_rng(seed)
    factors = random.standard_normal((design.n, 20))
    X = random.standard_normal((design.n, design.p))
    X += factors @ (random.standard_normal((20, design.p)) / 20**0.5)
    X += random.standard_normal(design.p)
    y = factors @ random.standard_normal((20, design.targets)) / 20**0.5
    y += random.standard_normal(y.shape) + 1
    alphas = max(design.n, design.p) * np.logspace(-4, 4, lambdas)
    return Problem(X, y[:, 0] if design.targets == 1 else y, alphas)


Contestant = Callable[[Problem], Outcome]


def first(value) -> float:
    """The first target's, as a float."""
    return float(np.ravel(value)[0])


# ours


def ours(cv: str | int) -> Contestant:
    """`wd.ridge_path`, coefficients and intercept at the best λ included."""
    import torch

    import weightdecay as wd

    ridge_path = wd.ridge_path  # names are resolved at their first use: an import, not a part of the run

    def run(problem: Problem) -> Outcome:
        path = ridge_path(problem.X, problem.y, problem.alphas / len(problem.X), cv=cv)
        path.coef()
        path.intercept()
        scores = torch.as_tensor(path.scores).reshape(len(problem.alphas), -1)
        return Outcome(first(path.best) * len(problem.X), float(scores[:, 0].min()))

    return run


# leave-one-out


def scikit_learn_loo() -> Contestant:
    """`RidgeCV`: its closed form, a λ for each target."""
    from sklearn.linear_model import RidgeCV

    def run(problem: Problem) -> Outcome:
        several = problem.y.ndim == 2
        model = RidgeCV(problem.alphas, alpha_per_target=several).fit(problem.X, problem.y)
        return Outcome(first(model.alpha_), -first(model.best_score_))

    return run


# five folds


def himalaya_folds(batch: int = 5) -> Contestant:
    """`KernelRidgeCV` on its torch backend; five values of λ at a time.

    On D its `RidgeCV` ran out of 23 GB (a matrix of rows for each λ), and a kernel would be 80 GB.
    """
    import torch
    from himalaya.backend import set_backend  # pyright: ignore[reportMissingImports]
    from himalaya.kernel_ridge import KernelRidgeCV  # pyright: ignore[reportMissingImports]
    from sklearn.model_selection import KFold

    set_backend("torch")
    warnings.filterwarnings("ignore", module="himalaya")

    def run(problem: Problem) -> Outcome:
        X, y = (torch.from_numpy(a) for a in (problem.X, problem.y.reshape(len(problem.y), -1)))
        model = KernelRidgeCV(
            alphas=torch.from_numpy(problem.alphas),
            cv=KFold(5, shuffle=True, random_state=0),  # type: ignore[arg-type]
            fit_intercept=True,
            solver_params={"n_alphas_batch": batch},
        )
        model.fit(X, y)
        model.get_primal_coef(X)
        return Outcome(first(model.best_alphas_), -first(model.cv_scores_))

    return run


def scikit_learn_folds() -> Contestant:
    """`GridSearchCV` over `Ridge`: a fit for each fold and λ."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, KFold

    def run(problem: Problem) -> Outcome:
        folds = KFold(5, shuffle=True, random_state=0)
        search = GridSearchCV(Ridge(), {"alpha": problem.alphas}, cv=folds, scoring="neg_mean_squared_error")
        search.fit(problem.X, problem.y)
        return Outcome(float(search.best_params_["alpha"]), -float(search.best_score_))

    return run


R = """
suppressPackageStartupMessages(library(glmnet))
a <- commandArgs(TRUE); n <- as.integer(a[1]); p <- as.integer(a[2])
X <- matrix(readBin("X", "double", n * p), n, p); y <- readBin("y", "double", n)
here <- function(f) {
  line <- grep(f, readLines("/proc/self/status"), value=TRUE)
  as.numeric(strsplit(line, "[^0-9]+")[[1]][2]) / 1024
}
small <- cv.glmnet(matrix(rnorm(600), 20), rnorm(20), alpha=0, nfolds=5); invisible(gc())
writeLines("5", "/proc/self/clear_refs"); before <- here("VmRSS")
start <- proc.time()[["elapsed"]]
fit <- cv.glmnet(X, y, alpha=0, nfolds=5, standardize=FALSE); b <- coef(fit, s="lambda.min")
end <- proc.time()[["elapsed"]]
cat(end - start, here("VmHWM") - before, fit$lambda.min, min(fit$cvm), "\\n")
"""


def glmnet_folds() -> Contestant:
    """`cv.glmnet` in an R of its own, which keeps the time and the memory.

    On its own grid of 100 values, which is not the grid of the others.
    """

    def run(problem: Problem) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            problem.X.T.tofile(Path(folder) / "X")
            problem.y.tofile(Path(folder) / "y")
            shape = [str(size) for size in problem.X.shape]
            done = subprocess.run(
                ["Rscript", "-e", R, *shape], cwd=folder, capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        seconds, extra, lam, score = map(float, done.stdout.split())
        return Outcome(lam * len(problem.X) / float(problem.y.std()), score, seconds, extra)

    return run


def glmnet_is_here() -> bool:
    """Whether `Rscript` is on the path and has glmnet."""
    if not shutil.which("Rscript"):
        return False
    return not subprocess.run(
        ["Rscript", "-e", "library(glmnet)"], capture_output=True, check=False
    ).returncode


# By (job, package): a function that makes the imports and returns the contestant.
CONTESTANTS: dict[tuple[str, str], Callable[[], Contestant]] = {
    ("loo", "weightdecay"): lambda: ours("loo"),
    ("loo", "scikit-learn"): scikit_learn_loo,
    ("folds", "weightdecay"): lambda: ours(5),
    ("folds", "himalaya"): himalaya_folds,
    ("folds", "glmnet"): glmnet_folds,
    ("folds", "GridSearchCV"): scikit_learn_folds,
}
