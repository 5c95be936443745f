"""`wd.sweep`: arguments become a task, the task is tried, then what is not stored yet is trained."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightdecay.arguments import count, function, number
from weightdecay.engine import Capacity, connected
from weightdecay.errors import InputError
from weightdecay.rules import Decoupled
from weightdecay.saving import environment, writable_folder
from weightdecay.sweeps.chunk import Recipes
from weightdecay.sweeps.fingerprint import JUDGING, check_same, settings_plain
from weightdecay.sweeps.looks import forked
from weightdecay.sweeps.method import Method, Plan, method_of, plan_of
from weightdecay.sweeps.record import Sweep
from weightdecay.sweeps.rounds import OnProgress, Search
from weightdecay.sweeps.store import FILE, SECONDS, Store, opened
from weightdecay.sweeps.task import task_of


def sweep(
    make_model: Callable[[], torch.nn.Module],
    train: Any,
    test: Any,
    *,
    loss: Callable[[Any, Tensor], Tensor],
    optimizer: Callable[..., torch.optim.Optimizer],
    rule: Any = Decoupled,
    strengths: Any,
    seeds: Any = 8,
    epochs: int,
    batch_size: int | None = None,
    metrics: Mapping[str, Callable[[Any, Tensor], Any]] | None = None,
    schedule: Any = None,
    clip: float | None = None,
    on: Any = "matrices",
    every: int = 1,
    lr: Any = None,
    minimize: str = "loss",
    maximize: str | None = None,
    widen: int = 2,
    refine: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    engine: Any = None,
    chunk: int | None = None,
    device: Any = None,
    on_progress: OnProgress | None = None,
    checkpoint_seconds: float = SECONDS,
    about: Mapping[str, Any] | None = None,
) -> Sweep:
    """Train a model at many strengths of weight decay and several seeds at once, and find the best strength.

        score(λ) = mean over seeds s of score_s(λ),   best = argmin score

    Each training is what a plain loop over `optimizer` gives at that seed: the same initialisation, order of
    the data and dropout at every strength. No decay is always trained, too.

    Args:
        make_model: returns a new model, drawing its initialisation from torch's global generator.
        train: tensors (X, y) or (X1, X2, y), a Dataset, or a DataLoader; held in memory.
        test: the data that strengths are judged on, in the same form.
        loss: (output, target) -> the mean loss of a batch, a function of these two alone. `train_loss` is
            Σ m·loss / n over an epoch's batches of m of the n examples.
        optimizer: parameters -> optimizer without decay, say partial(torch.optim.AdamW, lr=1e-3,
            weight_decay=0); called with lr= where `lr` is given.
        rule: a decay rule such as `Decoupled`, or a function of the strength; a list or a mapping by name of
            several is a second axis.
        strengths: numbers λ, `HalfLives` or `HalfLife`, or a grid of them.
        seeds: how many, counted from 0, or which.
        epochs: passes over the training data.
        batch_size: examples of a step; by default a DataLoader's own, else 128 or all there are.
        metrics: name -> (output, target) -> number, over all test data.
        schedule: step sizes over the run, as in `wd.lifetime`, or optimizer -> torch scheduler, which is
            stepped after every step.
        clip: the largest norm of a training's gradient.
        on: which parameters decay, as in `wd.attach`.
        every: look at the test data after every so many epochs, and at the end.
        lr: step sizes, as a second axis.
        minimize: choose by "loss", the test loss, or by a metric.
        maximize: choose by a metric of which more is better, instead.
        widen: how often the grid may be widened by a decade when the best is at its edge.
        refine: how often strengths half way to the best one's neighbours are added.
        out: a folder for the store, checkpoints, and at the end the record; None: everything in memory.
        resume: go on with the store in `out`; without one, begin. Another goal, or more rounds of `widen` or
            `refine`, are taken where the rounds so far are those that they lead to.
        engine: None: here. "dask": workers on this machine. "tcp://host:port", "tls://host:port" or a
            `distributed.Client`: that scheduler's workers.
        chunk: the most trainings that run together; by default as many as fit into memory, and fewer where
            there are several workers.
        device: where to train; by default where the training data are.
        on_progress: called with a `Progress` after each epoch and each finished chunk.
        checkpoint_seconds: the least time between two checkpoints of a running chunk, which are taken at the
            end of an epoch; more where writing one is slow. Only with `out`; 0: after every epoch.
        about: further plain values that a store must agree on, say a script's checksum.

    Convention: strengths are those of the rule; `Decoupled` removes lr·λ·w in a step.

    Returns:
        A `Sweep`. Resumed after anything, it has the bits of a sweep that was never interrupted.

    Raises:
        InputError: an argument, model, loss, strength (lr·λ >= 1), folder, engine or store that cannot be
            used, before any training; a full disk, with the store intact.
        DivergenceError: at every strength a training diverged.
        Interrupted: Ctrl-C; `partial` is a `Sweep` of what is finished, or None, and `kept` says what the
            folder has: finished trainings, and epochs of those that were running.

    >>> from functools import partial
    >>> X = torch.linspace(-1, 1, 32)[:, None]
    >>> found = sweep(
    ...     lambda: torch.nn.Linear(1, 1), (X, 2 * X), (X, 2 * X), loss=torch.nn.functional.mse_loss,
    ...     optimizer=partial(torch.optim.SGD, lr=0.1), strengths=[0.1, 1.0], seeds=2, epochs=20, widen=0)
    >>> found.best, len(found.table())
    (0.0, 6)
    """
    begun = time.monotonic()
    task = task_of(
        make_model,
        train,
        test,
        loss=loss,
        optimizer=optimizer,
        rule=rule,
        strengths=strengths,
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        metrics=metrics,
        schedule=schedule,
        clip=clip,
        on=on,
        every=every,
        lr=lr,
        minimize=minimize,
        maximize=maximize,
        widen=widen,
        refine=refine,
        device=device,
    )
    chunk = None if chunk is None else count(chunk, "chunk")
    seconds = number(checkpoint_seconds, "checkpoint_seconds", least=0)
    if about is not None and not isinstance(about, Mapping):
        raise InputError("not a mapping", "about", type(about).__name__, "give names and plain values")
    if on_progress is not None:
        function(on_progress, "on_progress", "give one, or None", type(on_progress).__name__)
    try:
        folder = None if out is None else Path(out)
    except TypeError as error:
        raise InputError("not a folder's name", "out", repr(out), "give a path, or None") from error
    with forked(task.device):
        settings = settings_plain(task, about)
    recipes = Recipes(task)
    # What is new is tried before there is a folder: what cannot be leaves nothing behind.
    there = folder is not None and os.path.exists(folder / FILE)  # noqa: PTH110 (raises nothing)
    method = None if there else method_of(recipes)
    with connected(engine) as (client, capacity):
        folder = folder and writable_folder(folder)
        with opened(folder) as store:
            plan = _agreed(store, recipes, settings, resume, method, capacity, chunk)
            recipes = replace(recipes, task=replace(task, threads=plan.threads))
            search = Search(recipes, store, plan, folder, seconds, client, on_progress, settings, begun)
            return search.run()


def _agreed(
    store: Store,
    recipes: Recipes,
    here: dict[str, Any],
    resume: bool,
    method: Method | None,
    capacity: Capacity | None,
    chunk: int | None,
) -> Plan:
    """The plan of the store, if it has the same settings; for a new one, both are stored."""
    there = store.about("settings")
    if there is not None and not resume:
        remedy = "resume it (resume=True, --resume), or give another folder"
        raise InputError("there is a sweep in the folder", "out", store.file, remedy)
    if there is None:
        method, task = method or method_of(recipes), recipes.task
        total = len(task.pairs) * len(task.strengths) * len(task.seeds)
        plan = plan_of(method, total, task.threads, task.device, capacity, chunk)
        begun = {"settings": here, "plan": plan.to_dict(), "environment": environment()}
        there = store.agree(begun)["settings"]
    check_same(there, here, store.file, JUDGING)  # also where another process came first
    return Plan.from_dict(store.about("plan"))
