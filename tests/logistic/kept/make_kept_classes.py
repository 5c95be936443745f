"""A path and a model of classes as the first version wrote them, with their numbers: they load for ever.

PYTHONPATH=src python tests/logistic/kept/make_kept_classes.py    (it writes beside itself)
"""

import json
from pathlib import Path

import numpy as np
import torch

import weightdecay as wd

HERE = Path(__file__).parent


def numbers(result):
    """What a result says, as JSON has it."""
    rows = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)
    values = [result.coef() if callable(result.coef) else result.coef, result.predict_proba(rows)]
    if isinstance(result, wd.LogisticPath):
        values += [
            result.lambdas,
            result.scores,
            result.errors,
            result.dof,
            result.confusion()["predicted a"],
        ]
        values += [torch.tensor([result.best, result.one_se, result.share_wrong])]
    return [value.to_list() if hasattr(value, "to_list") else value.tolist() for value in values]


def main():
    """Write both."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, size=60)
    X = generator.normal(size=(60, 3)) + np.eye(3)[labels]
    path = wd.logistic_path(X, np.array(["a", "b", "c"])[labels], np.geomspace(1e-3, 1, 7), cv=4)
    model = path.model(path.one_se)
    path.save(HERE / "path")
    model.save(HERE / "model")
    text = json.dumps({"path": numbers(path), "model": numbers(model)})
    (HERE / "numbers.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
