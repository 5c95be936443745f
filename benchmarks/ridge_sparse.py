"""The ridge path on a sparse table of words against scikit-learn's `RidgeCV`, interleaved: time and memory.

    .venv/bin/python benchmarks/ridge_sparse.py
    .venv/bin/python benchmarks/ridge_sparse.py --rows 500 --words 4000 --repeats 2

Texts are drawn by Zipf's law with Mandelbrot's offset, their words counted and weighted by tf-idf, each row
of length 1: 2,000 texts, 20,000 words, about 100 of them in each. Everybody gets the same CSR array and the
same 100 values of alpha, judges them by exact leave-one-out, and ends with coefficients; ours also by 5
folds.
Every contestant has a process of its own, and in each repeat a new table is drawn, the same for all.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from statistics import median

import numpy as np
import scipy.sparse as sp

from ridge import heading, machine, row, span
from ridge_contestants import first
from ridge_workers import forget, resident
from table import note

OURS, FOLDS, THEIRS = "weightdecay, leave-one-out", "weightdecay, 5 folds", "scikit-learn, RidgeCV"
ALPHAS = np.logspace(-2, 3, 100)
GOAL = 3.0


def texts(rows: int, words: int, seed: int) -> tuple[sp.csr_array, np.ndarray]:
    """A table of words, and a target of which half of the variance follows it."""
    random = np.random.default_rng(seed)
    share = 1 / (np.arange(words) + 3.7)
    length = random.poisson(118, rows)
    text = np.repeat(np.arange(rows), length)
    word = random.choice(words, size=len(text), p=share / share.sum())
    X = sp.csr_array((np.ones(len(text)), (text, word)), shape=(rows, words))
    X.sum_duplicates()
    rarity = np.log((1 + rows) / (1 + np.bincount(X.indices, minlength=words))) + 1
    X.data = (1 + np.log(X.data)) * rarity[X.indices]
    X.data /= np.repeat(np.sqrt(X.power(2).sum(axis=1)), np.diff(X.indptr))
    signal = X @ random.standard_normal(words)
    return X, signal / signal.std() + random.standard_normal(rows)


def fit(name: str, X: sp.csr_array, y: np.ndarray) -> tuple[float, float]:
    """A contestant's work; returns the alpha of least score, and the score."""
    if name == THEIRS:
        from sklearn.linear_model import RidgeCV

        model = RidgeCV(alphas=ALPHAS).fit(X, y)
        return first(model.alpha_), -first(model.best_score_)
    import weightdecay as wd

    path = wd.ridge_path(X, y, ALPHAS, unit="sklearn.Ridge", cv="loo" if name == OURS else 5)
    path.coef()
    return first(path.best), float(path.scores.min())


def work(name: str, rows: int, words: int) -> None:
    """A contestant's process: a seed comes in on a line, what it took goes out on a line."""
    warnings.simplefilter("ignore")  # a curve may be flat
    fit(name, *texts(50, 80, 0))  # imports, thread pools
    for seed in sys.stdin:
        X, y = texts(rows, words, int(seed))
        before, start = forget(), time.perf_counter()
        alpha, score = fit(name, X, y)
        seconds, extra = time.perf_counter() - start, resident("VmHWM") - before
        print(json.dumps({"seconds": seconds, "extra": extra, "alpha": alpha, "score": score}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--words", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        work(options.contestant, options.rows, options.words)
        return
    shape = ["--rows", str(options.rows), "--words", str(options.words)]
    processes = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--contestant", name, *shape],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in (OURS, THEIRS, FOLDS)
    }
    replies = {name: [] for name in processes}
    for repeat in range(options.repeats):
        for name, process in processes.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{repeat}\n")
            process.stdin.flush()
            replies[name].append(json.loads(process.stdout.readline()))
    for process in processes.values():
        process.communicate()
    X, _ = texts(options.rows, options.words, 0)
    rows, words = options.rows, options.words
    print(f"{machine()}\n\n{rows} texts × {words} words, {X.nnz / rows:.0f} words in a text\n")
    print(heading(("package", "median s", "min – max", "extra MB", "RidgeCV over it", "min – max", "goal")))
    for name, found in replies.items():
        seconds = [reply["seconds"] for reply in found]
        ratios = [
            theirs["seconds"] / reply["seconds"] for reply, theirs in zip(found, replies[THEIRS], strict=True)
        ]
        cells = [name, f"{median(seconds):.3g}", span(seconds), f"{found[0]['extra']:.0f}"]
        cells += [f"{median(ratios):.3g}", span(ratios)] if name != THEIRS else ["", ""]
        if name == OURS:
            note(f"ridge path, {rows} × {words} sparse, leave-one-out", THEIRS, ratios, f"≥ {GOAL:g}")
        print(row([*cells, f"≥ {GOAL:g}" if name == OURS else ""]))
    apart = max(abs(a["score"] / b["score"] - 1) for a, b in zip(replies[OURS], replies[THEIRS], strict=True))
    print(f"\nLeast leave-one-out scores agree to {apart:.1g}.")


if __name__ == "__main__":
    main()
