"""Models and paths as the first version wrote them (commit 1484fb3): they load for ever.

PYTHONPATH=src python tests/ridge/kept/make.py    (on that commit; it writes beside itself)
"""

from pathlib import Path

import numpy as np
import torch

import weightdecay as wd

SHAPES = {"wide": (12, 20), "tall": (30, 4)}


def data(shape):
    """Inputs and a target."""
    n, p = SHAPES[shape]
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)) * np.arange(1, p + 1)
    return X, X[:, 0] + rng.normal(size=n)


if __name__ == "__main__":
    for shape in SHAPES:
        for intercept in ("free", "none"):
            X, y = map(torch.tensor, data(shape))
            path = wd.ridge_path(X, y, [0.5, 2.0], cv="loo", intercept=intercept)
            folder = Path(__file__).parent / f"{shape}-{intercept}"
            path.model(path.best).save(f"{folder}-model")
            path.save(f"{folder}-path")
