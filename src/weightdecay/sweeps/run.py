"""`wd.sweep`: arguments become a task, the task is tried, then what is not stored yet is trained in rounds.

The first round is the grid as given; others widen it while the best is at its edge, then refine it around
the best (`Search`). Chunks are trained here, in processes or by Dask (`results`); `Leader` knows whose
weights may still be needed.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from weightdecay.arguments import count, function, number
from weightdecay.engine import NotReadyError, as_finished, connected, cores, in_processes, packed
from weightdecay.errors import DivergenceError, InputError, Interrupted
from weightdecay.rules import Decoupled
from weightdecay.saving import environment, load, writable_folder
from weightdecay.sweeps.chunk import Recipes
from weightdecay.sweeps.grid import Strengths, ascending, log_strength, refined, widened
from weightdecay.sweeps.looks import forked, set_up
from weightdecay.sweeps.method import (
    Plan,
    chunks_of,
    method_of,
    plan_of,
    processes_of,
    sampled,
    train_chunk,
)
from weightdecay.sweeps.record import Sweep, sweep_record
from weightdecay.sweeps.selection import best_of, selections_of, tied
from weightdecay.sweeps.store import (
    FILE,
    JUDGING,
    SECONDS,
    Checkpoints,
    Round,
    Store,
    Weights,
    check_same,
    opened,
    plain,
    settings_plain,
)
from weightdecay.sweeps.task import Checkpoint, Chunk, ChunkResult, Copy, Goal, Trained, task_of
from weightdecay.text import Text

GRID = "the grid"


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Args:
        done: trainings that are finished and stored.
        total: trainings of the rounds that are decided on; widening and refining add some.
        seconds: since the call.
        best: the best strength so far and its mean score over seeds; None before every seed of one is done.
        looks: a training that has just finished, with its curve; None after an epoch.
        share: of all epochs that are done; a running chunk's count, too.
        running: trainings that run together now; 0 where none runs here.
        epoch: how many epochs those have done.
        epochs: of how many.
    """

    done: int
    total: int
    seconds: float
    best: tuple[float, float] | None
    looks: Trained | None
    share: float
    running: int = 0
    epoch: int = 0
    epochs: int = 0


OnProgress = Callable[[Progress], None]


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
        engine: None: in processes of one thread each on this machine's cores where that saves time, else in
            this one (`notes` says which). "here": in this one, to the same bits. "dask": workers on this
            machine. "tcp://host:port", "tls://host:port" or a `distributed.Client`: that scheduler's workers.
        chunk: the most trainings that run together; by default as many as fit into memory, and fewer where
            there are several workers or processes.
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
    >>> result = sweep(
    ...     lambda: torch.nn.Linear(1, 1), (X, 2 * X), (X, 2 * X), loss=torch.nn.functional.mse_loss,
    ...     optimizer=partial(torch.optim.SGD, lr=0.1), strengths=[0.1, 1.0], seeds=2, epochs=20, widen=0)
    >>> result.best, len(result.table())
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
    here = isinstance(engine, str) and engine == "here"
    with connected(None if here else engine) as (client, capacity):
        folder = folder and writable_folder(folder)
        with opened(folder) as store:
            stored = store.about("settings")
            if stored is not None and not resume:
                remedy = "resume it (resume=True, --resume), or give another folder"
                raise InputError("there is a sweep in the folder", "out", store.file, remedy)
            if stored is None:
                total = len(task.pairs) * len(task.strengths) * len(task.seeds)
                method = method or method_of(recipes)
                if client is None:
                    capacity = processes_of(method, task, total)
                    if capacity is not None and packed(task) is None:
                        capacity = None
                plan = plan_of(method, total, task.threads, task.device, capacity, chunk)
                begun_with = {"settings": settings, "plan": plan.to_dict(), "environment": environment()}
                stored = store.agree(begun_with)["settings"]
            check_same(stored, settings, store.file, JUDGING)  # also where another process came first
            plan = Plan.from_dict(store.about("plan"))
            recipes = replace(recipes, task=replace(task, threads=plan.threads))
            more = client, here, on_progress, settings, begun
            return Search(recipes, store, plan, folder, seconds, *more).run()


@dataclass
class Search:
    """A sweep in progress.

    Args:
        recipes: of the task.
        store: what is finished.
        plan: how trainings are put together.
        folder: of the store; None for memory.
        checkpoint_seconds: the least time between two checkpoints of a chunk.
        client: of Dask; None: on this machine.
        here: stay in this process.
        on_progress: called with a `Progress`.
        settings: for the record.
        begun: when, by the monotonic clock.
    """

    recipes: Recipes
    store: Store
    plan: Plan
    folder: Path | None
    checkpoint_seconds: float
    client: Any
    here: bool
    on_progress: OnProgress | None
    settings: dict[str, Any]
    begun: float
    chunks: list[Chunk] = field(default_factory=list)
    pending: list[Chunk] = field(default_factory=list)
    done: set[Copy] = field(default_factory=set)
    total: int = 0
    shares: dict[Chunk, float] = field(default_factory=dict)
    place: Text | None = None

    def __post_init__(self) -> None:
        self.task = self.recipes.task
        self.checkpoints = Checkpoints(self.folder and self.folder / "checkpoints", self.checkpoint_seconds)
        self.weights = Weights(self.folder and self.folder / "weights")
        self.leader = Leader(self.task.goal, self.task.seeds, self.task.pairs)

    def run(self) -> Sweep:
        """Train every round, and make the record."""
        try:
            self._agree_rounds()
            rounds: list[Round] = []
            new: Round | None = Round(0, GRID, self.task.strengths.values)
            while new is not None:  # each is decided on, and stored, when the ones before are trained
                rounds.append(self.store.agree_round(new))
                self._train(rounds[-1])
                new = self._next(rounds)
            record = self._record(self._trained())
            record = replace(record, weights=self._best_weights(record))
            if self.folder is not None:
                record.save(self.folder)
                for chunk in self.chunks:  # file by file: the folders may hold what is not the sweep's
                    self.weights.drop(chunk)
                    self.checkpoints.drop(chunk)
                for name in ("weights", "checkpoints"):
                    with contextlib.suppress(OSError):
                        (self.folder / name).rmdir()
            return record
        except KeyboardInterrupt as interrupt:
            raise Interrupted(self._partial(), self._kept()) from interrupt

    def _agree_rounds(self) -> None:
        """Go on with a store that was judged otherwise, if its rounds are those of this judging, too."""
        stored, rounds = self.store.about("settings"), self.store.rounds()
        if stored == self.settings:
            return
        if any(self._next(rounds[:place]) != rounds[place] for place in range(1, len(rounds))):
            check_same(stored, self.settings, self.store.file)
        self.store.put("settings", self.settings)

    def _next(self, rounds: Sequence[Round]) -> Round | None:
        """What to train after these rounds, by what they alone gave; None: nothing.

        The store may have more, which they led to. No round widens the grid after the first that refines.
        """
        task, unit = self.task, self.task.strengths.unit
        tried = {strength for earlier in rounds for strength in earlier.strengths}
        grid = Strengths(ascending(tried, unit), unit)
        trained = [each for each in self._trained() if each.copy.strength in tried]
        try:
            selections = selections_of(trained, task.goal)
        except DivergenceError:  # there is no best; the record says so
            return None
        best = selections[best_of(selections, task.goal)]
        whys = [earlier.why.split()[0] for earlier in rounds]
        wider, finer = whys.count("wider"), whys.count("finer")
        if best.edge is not None and wider < task.widen and not finer:
            new = self._new(widened(grid, best.edge), tried)
            if new:
                return Round(len(rounds), f"wider at the {best.edge} end", new)
        if finer < task.refine:
            new = self._new(refined(grid, grid.values.index(best.best)), tried)
            if new:
                return Round(len(rounds), f"finer around {best.best:g}", new)
        return None

    def _new(self, strengths: Sequence[float], tried: set[float]) -> tuple[float, ...]:
        """Those not tried yet that every rule at every step size can have."""
        possible = []
        for strength in strengths:
            if strength not in tried:
                with contextlib.suppress(InputError):
                    self.recipes.check([strength])
                    possible.append(strength)
        return tuple(possible)

    def _train(self, new: Round) -> None:
        """Train and store what is missing of a round."""
        task = self.task
        trained = self._trained()
        stored = {each.copy for each in trained}
        self.leader.add(trained)
        missing = []
        for chunk in chunks_of(self.plan, task.pairs, new.strengths, task.strengths.unit, task.seeds):
            self.chunks.append(chunk)
            self.total += len(chunk.copies)
            self.done |= stored.intersection(chunk.copies)
            if not stored.issuperset(chunk.copies):
                missing.append(chunk)
        for chunk, result in self._results(missing):
            # The weights first, so that what the store has is whole.
            self.weights.put(chunk, result.weights)
            for each in result.trained:
                self.store.add(each)
            self.leader.add(result.trained)
            # Another process, or one that was killed, may have stored some of a chunk: each counts once.
            self.done |= set(chunk.copies)
            for other in self.chunks:
                if not self.leader.may_need(other):
                    self.weights.drop(other)
            self._report(result.trained[-1])

    def _results(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, ChunkResult]]:
        job = Job(self.recipes, self.plan, self.checkpoints)
        self.pending = list(chunks)
        places = results(job, chunks, self.client, self._share, self._place, self.here)
        with contextlib.closing(places) as pairs:
            for chunk, result in pairs:
                self.shares.pop(chunk, None)
                yield chunk, result
                self.checkpoints.drop(chunk)
                self.pending.remove(chunk)

    def _place(self, place: Text) -> None:
        """Keep where chunks are trained; of several rounds the first, which is the grid."""
        self.place = self.place or place

    def _share(self, chunk: Chunk, share: float) -> None:
        self.shares[chunk] = share
        self._report(None)

    def _report(self, looks: Trained | None) -> None:
        """Call `on_progress`."""
        if self.on_progress is None:
            return
        # In whole epochs, whose sum is the same in any order: the share never falls by a rounding error.
        epochs, running, together = self.task.epochs, 0, 0
        for chunk, share in self.shares.items():
            several = len(set(chunk.copies) - self.done)
            running, together = running + round(share * several * epochs), together + several
        now = (together, round(running / max(1, together)), epochs)
        best = self.leader.best and (self.leader.best[0][2], self.leader.best[1])
        whole = min(1.0, (len(self.done) * epochs + running) / (max(1, self.total) * epochs))
        seconds = time.monotonic() - self.begun
        self.on_progress(Progress(len(self.done), self.total, seconds, best, looks, whole, *now))

    def _trained(self) -> list[Trained]:
        """What is stored, in an order that does not depend on who finished first."""
        pairs, seeds = self.task.pairs, self.task.seeds

        def place(trained: Trained) -> tuple[int, float, int]:
            copy = trained.copy
            strength = log_strength(copy.strength, copy.unit)
            return pairs.index((copy.rule, copy.lr)), strength, seeds.index(copy.seed)

        return sorted(self.store.trained(), key=place)

    def _record(self, trained: Sequence[Trained]) -> Sweep:
        goal, method = self.task.goal, self.plan.method
        with set_up(self.task):  # making a model draws random numbers
            factors = {pair: self.recipes.of(*pair).factor for pair in self.task.pairs}
        return sweep_record(
            trained,
            minimize="loss" if goal.maximize else goal.name,
            maximize=goal.name if goal.maximize else None,
            method=method.words,
            place=self.place,
            settings=self.settings,
            seconds=time.monotonic() - self.begun,
            steps_per_epoch=self.task.steps_per_epoch,
            factors=factors,
        )

    def _partial(self) -> Sweep | None:
        """A record of what is finished, if that is enough for one."""
        with contextlib.suppress(InputError):
            return self._record(self._trained())
        return None

    def _kept(self) -> Text:
        """What a later call with `resume` goes on from, in words; empty without a folder."""
        if self.folder is None:
            return Text("", "")
        stored = [trained.copy for trained in self.store.trained()]
        done, total, whole = len(self.done.intersection(stored)), self.total, self.task.epochs
        finished = Text(f"{done} of {total} trainings are finished", f"{total} 次训练已完成 {done} 次")
        at = {
            chunk: self.checkpoints.epoch(chunk)
            for chunk in self.pending
            if not self.done.issuperset(chunk.copies)
        }
        epochs = [epoch for epoch in at.values() if epoch is not None]
        if not epochs:
            return Text(
                f"{finished}, and no checkpoint of the others was written yet",
                f"{finished.zh}，其余的还没有写过检查点",
            )
        copies = sum(len(chunk.copies) for chunk, epoch in at.items() if epoch is not None)
        first, last = min(epochs), max(epochs)
        span = (
            Text(f"{first}", f"{first}")
            if first == last
            else Text(f"{first} to {last}", f"{first} 至 {last}")
        )
        return Text(
            f"{finished}, and {copies} more are kept up to epoch {span} of {whole}",
            f"{finished.zh}，另有 {copies} 次保存到第 {span.zh} / {whole} 轮",
        )

    def _best_weights(self, record: Sweep) -> dict[str, Tensor]:
        """The best strength's, seed by seed; trained again where its files are gone."""
        if (saved := self._saved(record)) is not None:
            return saved
        parts: dict[int, dict[str, Tensor]] = {}
        for chunk in self.chunks:
            if (chunk.rule, chunk.lr) != (record.rule, record.lr) or record.best not in chunk.strengths:
                continue
            weights = self.weights.get(chunk)
            if weights is None:
                weights = next(result.weights for _, result in self._results([chunk]))
                self.weights.put(chunk, weights)
            place = chunk.strengths.index(record.best)
            parts[self.task.seeds.index(chunk.seeds[0])] = {
                name: tensor[:, place].clone() for name, tensor in weights.items()
            }
        in_order = [parts[place] for place in sorted(parts)]
        return pytree.tree_map(lambda *seeds: torch.cat(seeds), *in_order)

    def _saved(self, record: Sweep) -> dict[str, Tensor] | None:
        """The weights of a record in the folder that this one repeats."""
        if self.folder is None:
            return None
        with contextlib.suppress(InputError):
            before = load(self.folder / "sweep.json")
            names, again = ([key_of(each.copy) for each in sweep.trained] for sweep in (before, record))
            best = record.rule, record.lr, record.best
            if names == again and (before.rule, before.lr, before.best) == best:
                return dict(before.weights)
        return None


Key = tuple[str, float | None, float]  # rule, learning rate, strength


def key_of(copy: Copy) -> Key:
    """What the seeds of a strength share."""
    return copy.rule, copy.lr, copy.strength


@dataclass
class Leader:
    """The strength with the best mean score of those that every seed has finished.

    Of means that are equal up to rounding it is the one that the end chooses (`best_of`, `choose_paired`),
    whoever finished first: the setting that comes first, and there the strongest.

    Args:
        goal: what is best.
        seeds: the seeds.
        settings: every rule at every step size, in their order.
    """

    goal: Goal
    seeds: tuple[int, ...]
    settings: Sequence[tuple[str, float | None]]
    scores: dict[Key, dict[int, float]] = field(default_factory=dict)
    best: tuple[Key, float] | None = None

    def add(self, trained: Iterable[Trained]) -> None:
        """Take in trainings."""
        for each in trained:
            key = key_of(each.copy)
            scores = self.scores.setdefault(key, {})
            scores[each.copy.seed] = self.goal.score(each)
            if self.complete(key):
                several = [scores[seed] for seed in self.seeds]
                mean = torch.tensor(several, dtype=torch.float64, device="cpu").mean().item()
                if not math.isfinite(mean):  # one diverged: never chosen
                    continue
                if self.best is None or self._before(each.copy.unit, (key, mean), self.best):
                    self.best = key, mean

    def _before(self, unit: str, new: tuple[Key, float], old: tuple[Key, float]) -> bool:
        """Whether the new one is chosen of the two."""
        if not tied(new[1], old[1], len(self.seeds)):
            return self.goal.sign * (new[1] - old[1]) < 0
        (*setting, strength), (*best_setting, best) = new[0], old[0]
        if setting != best_setting:
            places = [self.settings.index((rule, lr)) for rule, lr in (setting, best_setting)]
            return places[0] < places[1]
        return ascending((best, strength), unit)[-1] == strength

    def complete(self, key: Key) -> bool:
        """Whether every seed has finished."""
        return len(self.scores.get(key, ())) == len(self.seeds)

    def may_need(self, chunk: Chunk) -> bool:
        """Whether the weights of a chunk may turn out to be the best."""
        for strength in chunk.strengths:
            key = chunk.rule, chunk.lr, strength
            if not self.complete(key) or (self.best is not None and key == self.best[0]):
                return True
        return False


STARTING = 2.0  # seconds that the start of a process takes, most of them for torch
OnShare = Callable[[Chunk, float], None]  # called with a chunk and the share of its epochs that is done


@dataclass(frozen=True)
class Job:
    """What every chunk needs.

    Args:
        recipes: of the task that is trained.
        plan: how.
        checkpoints: of running chunks.
        sample: a chunk, and what a few of its steps give here (`digest`); None where nobody compares.
    """

    recipes: Recipes
    plan: Plan
    checkpoints: Checkpoints
    sample: tuple[Chunk, str] | None = None


def results(
    job: Job,
    chunks: Sequence[Chunk],
    client: Any,
    on_share: OnShare,
    on_place: Callable[[Text], None] = lambda _: None,
    here: bool = False,
) -> Generator[tuple[Chunk, ChunkResult]]:
    """Train chunks; each with its result as soon as it is there.

    Args:
        job: what every chunk needs.
        chunks: what is to be trained.
        client: of Dask; None: here, or in local processes where that is worth it.
        on_share: called after each epoch of a chunk that is trained on this machine.
        on_place: called with where chunks are trained, and why, when that was a choice.
        here: stay in this process.

    Raises:
        InputError: a chunk cannot be trained.
    """
    if client is not None:
        # Workers have their own disks: no checkpoints there.
        shared = replace(job, checkpoints=Checkpoints(None))
        names = [str(chunk) for chunk in chunks]
        for place, result in as_finished(run_chunk, shared, chunks, client, names):
            yield chunks[place], result
        return
    left, count = list(chunks), min(cores(), len(chunks))
    several = job.plan.tasks > 1 or job.plan.method.name == "one by one"
    if several and not here and count > 1 and job.recipes.task.device.type == "cpu":
        result, seconds = sampled(job.recipes, left[0], job.plan.method)
        seconds *= len(left)
        about = f"{seconds:.0f} s"
        if seconds * (1 - 1 / count) < 3 * STARTING:
            what = f"in this process: about {about} of training are not worth the start of others"
            on_place(Text(what, f"在本进程中：约 {seconds:.0f} 秒的训练不值得另启进程"))
        elif (shared := packed(replace(job, sample=(left[0], digest(result))))) is None:
            what = "in this process: something of the model, the loss or the data cannot be sent to another"
            on_place(Text(what, "在本进程中：模型、损失或数据中有无法发送给其他进程的内容"))
        else:
            what = f"in {count} processes of one thread each: in this one it would take about {about}"
            place = Text(what, f"在 {count} 个单线程进程中：只用本进程约需 {seconds:.0f} 秒")

            def on_note(i: int, share: float) -> None:
                on_share(chunks[i], share)

            several = in_processes(run_chunk, shared, chunks, count, on_note=on_note, prepare=check_sample)
            try:
                with contextlib.closing(several) as pairs:
                    for i, result in pairs:
                        on_place(place)
                        left.remove(chunks[i])
                        yield chunks[i], result
            except NotReadyError as error:
                why = error.value or error.what
                on_place(
                    Text(
                        f"in this process: no other could be started that gives the same bits ({why})",
                        f"在本进程中：无法启动结果逐位相同的进程（{why}）",
                    )
                )
    for chunk in left:
        yield chunk, run_chunk(job, chunk, partial(on_share, chunk))


def run_chunk(job: Job, chunk: Chunk, on_share: Callable[[float], None] | None = None) -> ChunkResult:
    """Train a chunk, from its checkpoint if there is one.

    Args:
        job: what every chunk needs.
        chunk: what is trained.
        on_share: called after each epoch with the share that is done.
    """
    method = job.plan.method
    copies = len(chunk.copies) if method.name == "one by one" else 1
    total = job.recipes.task.epochs * copies
    checkpoints = replace(job.checkpoints, last=time.monotonic())

    def on_epoch(done: int, make: Callable[[], Checkpoint]) -> None:
        if done < total:
            checkpoints.write(chunk, make)
        if on_share is not None:
            on_share(done / total)

    return train_chunk(job.recipes, chunk, method, checkpoints.read(chunk), on_epoch)


def check_sample(job: Job) -> None:
    """Refuse a process in which a few steps of training give other bits.

    It may have another version of a module, or lack what was set or changed after its import.
    """
    assert job.sample is not None
    chunk, wanted = job.sample
    if digest(sampled(job.recipes, chunk, job.plan.method)[0]) != wanted:
        raise InputError("its results differ in their bits", "engine", None, "give engine='here'")


def digest(result: ChunkResult) -> str:
    """Every bit of a result, in few characters."""
    return repr((result.trained, plain(result.weights)))
