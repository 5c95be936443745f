"""The ridge path on a GPU beside the CPU: the same call, tensors there and here, in turn in one process."""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch

import weightdecay as wd
from devices import name_of, waiting
from ridge_contestants import Design, draw

COLUMNS = ("design", "job", "CPU s", "GPU s", "copying there s", "× faster", "min – max", "scores agree to")


def taken(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the function gave."""
    start = time.perf_counter()
    found = function()
    return time.perf_counter() - start, found


def compared(design: Design, cv: str | int, device: str, repeats: int) -> list[str]:
    """One design and job; the first run of each, which also loads kernels, is left out."""
    here, there, copies, apart = [], [], [], []
    for repeat in range(repeats + 1):
        problem = draw(design, repeat, 100)
        lambdas = problem.alphas / design.n
        X, y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)

        def path(X: torch.Tensor, y: torch.Tensor, lambdas: Any = lambdas) -> torch.Tensor:
            found = wd.ridge_path(X, y, lambdas, cv=cv)
            found.coef()
            found.intercept()
            return found.scores

        copying, (X_there, y_there) = taken(waiting(lambda X=X, y=y: (X.to(device), y.to(device)), device))
        on_cpu, wanted = taken(lambda X=X, y=y, path=path: path(X, y))
        on_device, found = taken(waiting(lambda X=X_there, y=y_there, path=path: path(X, y), device))
        if repeat:
            here.append(on_cpu)
            there.append(on_device)
            copies.append(copying)
            apart.append(float((found / wanted - 1).abs().max()))
    ratios = [one / other for one, other in zip(here, there, strict=True)]
    figures = [f"{median(values):.3g}" for values in (here, there, copies, ratios)]
    return [*figures, f"{min(ratios):.3g} – {max(ratios):.3g}", f"{max(apart):.1g}"]


def report(designs: dict[str, Design], device: str, repeats: int) -> Iterator[str]:
    """The table, line by line."""
    yield f"\nGPU: {name_of(device)}; float64, 100 λ, coefficients at the best; ratios within a repeat.\n"
    yield "| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS)
    for letter, design in designs.items():
        for name, cv in (("leave-one-out", "loo"), ("5 folds", 5)):
            cells = [f"{letter} {design}", name, *compared(design, cv, device, repeats)]
            yield "| " + " | ".join(cells) + " |"
