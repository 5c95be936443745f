"""The store, checkpoint files, the plan and the processes: each by itself."""

import math
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from weightdecay.engine import Capacity, as_finished, connected, in_processes, packed
from weightdecay.errors import InputError
from weightdecay.sweeps.method import Method, Plan, chunks_of, plan_of, split
from weightdecay.sweeps.run import Leader
from weightdecay.sweeps.selection import best_of, selections_of
from weightdecay.sweeps.store import FILE, Checkpoints, Round, Weights, opened
from weightdecay.sweeps.task import Checkpoint, Chunk, Copy, Goal, Look, Trained
from weightdecay.text import Text

CPU = torch.device("cpu")
METHOD = Method("vectorised", Text("", ""), True, 100)
CHUNK = Chunk("Decoupled", None, (0.0, 0.1), "weight_decay", (0, 1))


def trained(strength=0.1, seed=0, lr=None, loss=1 / 3, diverged=None):
    looks = tuple(Look(epoch, loss / epoch, loss, {"accuracy": 0.1 * epoch, "odd": loss}) for epoch in (1, 2))
    copy = Copy("Decoupled", lr, strength, "weight_decay", seed)
    return Trained(copy, strength, loss, loss * 2, {"accuracy": 0.7, "odd": loss}, looks, diverged)


def names(store):
    return {one.copy for one in store.trained()}


def test_what_goes_in_comes_out_to_the_bit(tmp_path):
    several = [
        trained(),
        trained(seed=1, loss=math.nan, diverged=7),
        trained(5e-324, loss=math.inf),
        trained(0.1, lr=math.pi),
        trained(0.1, lr=1e-300),
    ]
    for folder in (tmp_path, None):
        with opened(folder) as store:
            assert [store.add(one) for one in several] == [True] * 5
            found = {one.copy: one for one in store.trained()}
            assert names(store) == set(found) == {one.copy for one in several}
            assert all(repr(found[one.copy]) == repr(one) for one in several)  # NaN is not equal to itself
    with opened(tmp_path) as store:
        assert len(store.trained()) == 5


def test_names_of_metrics_stay_what_they_are(tmp_path):
    odd = {"Infinity": math.inf, "to -Infinity": -math.inf, 'a "NaN"': math.nan, "1e999": 0.1, "é\n": 5e-324}
    with opened(tmp_path) as store:
        store.add(replace(trained(), metrics=odd))
        (found,) = store.trained()
        assert repr(found.metrics) == repr(odd)


def test_a_training_is_stored_once_and_whole(tmp_path):
    with opened(tmp_path) as store:
        assert store.add(trained())
        assert not store.add(trained(loss=99.0))  # with a learning rate of NULL, too
        assert store.add(trained(lr=0.1))
        assert not store.add(trained(lr=0.1))
        assert [one.train_loss for one in store.trained()] == [1 / 3, 1 / 3]
        bad = trained(seed=5)
        bad.looks[1].metrics["accuracy"] = object()  # fails in the middle of the transaction
        with pytest.raises(TypeError):
            store.add(bad)
        assert len(names(store)) == 2
        assert store.add(trained(seed=5))


def test_who_comes_first_decides(tmp_path):
    with opened(tmp_path) as one, opened(tmp_path) as other:
        assert one.about("plan") is None
        assert one.agree({"plan": [1], "settings": {"a": 2.5}}) == {"plan": [1], "settings": {"a": 2.5}}
        assert other.agree({"plan": [2], "more": 3}) == {"plan": [1], "settings": {"a": 2.5}}
        assert other.about("plan") == [1]
        assert one.agree_round(Round(0, "the grid", (0.0, 0.1))).strengths == (0.0, 0.1)
        assert other.agree_round(Round(0, "another", (5.0,))) == Round(0, "the grid", (0.0, 0.1))


def _write(folder, first, barrier):
    barrier.wait()
    with opened(folder) as store:
        store.agree({"who": first})
        for seed in range(100):
            store.add(trained(seed=seed))
            store.add(trained(seed=first + seed))


def test_two_processes_on_one_store_lose_and_double_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    crew = [context.Process(target=_write, args=(tmp_path, first, barrier)) for first in (1000, 2000, 50)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    assert [process.exitcode for process in crew] == [0, 0, 0]
    with opened(tmp_path) as store:
        assert sorted(copy.seed for copy in names(store)) == [
            *range(150),
            *range(1000, 1100),
            *range(2000, 2100),
        ]
        assert len(store.trained()) == 350
        assert all(len(one.looks) == 2 for one in store.trained())
        assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_files_that_are_no_store(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database, not at all" * 100)
    with pytest.raises(InputError, match="not a sweep's store, or damaged"), opened(tmp_path):
        pass
    other = tmp_path / "other"
    other.mkdir()
    with sqlite3.connect(other / FILE) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(InputError, match="another program's file"), opened(other):
        pass
    later = tmp_path / "later"
    later.mkdir()
    with opened(later) as store:
        store.connection.execute("PRAGMA user_version = 7")
    with (
        pytest.raises(InputError, match=r"a store of another version: .* = 7; this program writes 1"),
        opened(later),
    ):
        pass


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    torch.manual_seed(0)
    square = torch.randn(3, 3)
    tensors = {
        "half": torch.randn(5).bfloat16(),
        "double": torch.randn(2, 3, dtype=torch.float64),
        "turned": square.T,
        "same": square,
        "part": square[1:],
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
    }
    plain = {"step": 3, "looks": [[1, 0.1, None]], "name": "λ"}
    checkpoints = Checkpoints(tmp_path / "checkpoints", seconds=0)
    assert checkpoints.read(CHUNK) is None
    checkpoints.write(CHUNK, lambda: Checkpoint(4, tensors, plain))
    found = Checkpoints(tmp_path / "checkpoints").read(CHUNK)
    assert (found.epoch, found.plain) == (4, plain)
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype
    assert checkpoints.read(Chunk("Decoupled", None, (0.0,), "weight_decay", (0, 1))) is None
    checkpoints.drop(CHUNK)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_checkpoints_are_written_when_it_is_time(tmp_path):
    made = []

    def make():
        made.append(1)
        return Checkpoint(1, {}, {})

    Checkpoints(None, 0).write(CHUNK, make)
    slow = Checkpoints(tmp_path, seconds=0.2)
    slow.write(CHUNK, make)
    assert not made
    time.sleep(0.21)
    slow.write(CHUNK, make)
    slow.write(CHUNK, make)
    assert len(made) == 1


def test_a_checkpoint_that_is_not_whole_is_none(tmp_path):
    checkpoints = Checkpoints(tmp_path, seconds=0)
    checkpoints.write(CHUNK, lambda: Checkpoint(4, {"w": torch.ones(100)}, {}))
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    for cut in (0, 5, 60, len(content) - 8):
        file.write_bytes(content[:cut])
        assert checkpoints.read(CHUNK) is None


@pytest.mark.parametrize("in_memory", [True, False])
def test_weights_are_kept_and_forgotten(tmp_path, in_memory):
    weights = Weights(None if in_memory else tmp_path)
    assert weights.get(CHUNK) is None
    weights.put(CHUNK, {"w": torch.arange(4.0).view(2, 2)})
    assert torch.equal(weights.get(CHUNK)["w"], torch.arange(4.0).view(2, 2))
    weights.drop(CHUNK)
    assert weights.get(CHUNK) is None
    assert not list(tmp_path.iterdir())


def test_parts_of_nearly_one_size():
    for n in range(1, 30):
        for most in range(1, 12):
            parts = split(range(n), most)
            sizes = [len(part) for part in parts]
            assert [value for part in parts for value in part] == list(range(n))
            assert max(sizes) <= most
            assert max(sizes) - min(sizes) <= 1
            assert len(parts) == math.ceil(n / most)


@pytest.mark.parametrize("seeds_together", [True, False])
@pytest.mark.parametrize("copies", [1, 3, 4, 7, 24, 100])
def test_chunks_hold_every_copy_once(copies, seeds_together):
    pairs = [("Decoupled", 0.1), ("Decoupled", 0.2), ("Cautious", 0.1)]
    strengths, seeds = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6), (5, 3, 9, 1)
    plan = Plan(Method("vectorised", Text("", ""), seeds_together, 1), copies, 1)
    chunks = chunks_of(plan, pairs, strengths, "weight_decay", seeds)
    found = [copy for chunk in chunks for copy in chunk.copies]
    assert len(found) == len(set(found)) == 3 * 6 * 4
    assert max(len(chunk.copies) for chunk in chunks) <= copies
    assert seeds_together or all(len(chunk.seeds) == 1 for chunk in chunks)
    if seeds_together and copies == 24:
        assert len(chunks) == 3


def test_chunks_fit_into_memory_and_are_as_many_as_workers():
    assert plan_of(METHOD, 100, 2, CPU, Capacity(4, None), None) == Plan(METHOD, 25, 1, 4)
    assert plan_of(METHOD, 100, 2, CPU, Capacity(1, 4000), None) == Plan(METHOD, 16, 1)
    assert plan_of(METHOD, 100, 2, CPU, None, None) == Plan(METHOD, 100, 2)
    assert plan_of(METHOD, 100, 2, CPU, None, 6) == Plan(METHOD, 6, 2)
    huge = Method("vectorised", Text("", ""), True, 10**15)
    assert plan_of(huge, 100, 2, CPU, None, None).copies == 1
    alone = Method("one by one", Text("", ""), True, 100)
    assert plan_of(alone, 100, 2, CPU, None, None) == Plan(alone, 1, 1)
    plan = Plan(METHOD, 25, 2, 3)
    assert Plan.from_dict(plan.to_dict()) == plan
    early = {name: value for name, value in plan.to_dict().items() if name != "tasks"}
    assert Plan.from_dict(early) == replace(plan, tasks=1)


@pytest.mark.parametrize("settings", [1, 2, 3, 7])
@pytest.mark.parametrize("tasks", [2, 4, 16])
@pytest.mark.parametrize(("strengths", "seeds"), [(9, 8), (64, 1), (3, 2), (20, 5)])
def test_those_that_train_at_a_time_have_about_the_same_number_of_copies(settings, tasks, strengths, seeds):
    total = settings * strengths * seeds
    plan = Plan(replace(METHOD, work=10**9), total, 1, tasks)
    pairs = [("Decoupled", 0.1 * i) for i in range(settings)]
    chunks = chunks_of(plan, pairs, range(strengths), "weight_decay", range(seeds))
    assert sum(len(chunk.copies) for chunk in chunks) == total
    loads = [0] * tasks  # each takes the next chunk when it is done
    for chunk in chunks:
        loads[loads.index(min(loads))] += len(chunk.copies)
    assert max(loads) <= 1.25 * total / tasks + 2
    small = chunks_of(replace(plan, method=METHOD), pairs, range(strengths), "weight_decay", range(seeds))
    assert len(small) <= max(tasks, settings)  # each chunk has a step's own cost, which is most of it then


def test_weights_are_needed_until_a_strength_is_beaten():
    leader = Leader(Goal(), (0, 1), [("Decoupled", None)])
    first, second = (Chunk("Decoupled", None, (value,), "weight_decay", (0, 1)) for value in (0.1, 0.2))
    leader.add([trained(0.1, 0, loss=1.0), trained(0.2, 0, loss=5.0)])
    assert leader.best is None
    assert leader.may_need(first)
    assert leader.may_need(second)
    leader.add([trained(0.1, 1, loss=3.0)])
    assert leader.best == (("Decoupled", None, 0.1), 4.0)
    assert leader.may_need(second)  # a seed is missing
    leader.add([trained(0.2, 1, loss=2.0)])
    assert leader.may_need(first)
    assert not leader.may_need(second)


@pytest.mark.parametrize("unit", ["weight_decay", "half_life_steps"])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_leader_of_equal_ones_is_who_is_chosen_at_the_end(unit, backwards):
    """Whoever finished first: of two settings the first, of two strengths the stronger."""
    settings = [("Decoupled", 0.2), ("Decoupled", 0.1)]
    several = [
        replace(one, copy=replace(one.copy, unit=unit))
        for lr in (0.2, 0.1)
        for one in (
            trained(0.1, lr=lr, loss=2.0),
            trained(0.2, lr=lr, loss=2.0),
            trained(0.0, lr=lr, loss=3.0),
        )
    ]
    leader = Leader(Goal(), (0,), settings)
    for one in reversed(several) if backwards else several:
        leader.add([one])
    selections = selections_of(several, Goal())
    chosen = selections[best_of(selections, Goal())]
    assert leader.best == (("Decoupled", 0.2, chosen.best), 4.0)
    assert chosen.best == (0.2 if unit == "weight_decay" else 0.1)


def _task(shared, item, note):
    folder, factor = shared
    marks = len(list(folder.glob(f"{item}.*")))
    (folder / f"{item}.{os.getpid()}.{marks}").touch()
    print("what a user's code prints is not an answer")
    if item == 3 and marks == 0:
        os.kill(os.getpid(), 9)
    if item == 5:
        raise InputError("a cell is empty", "row 7", None, "fill it")
    if item == 6:
        os.kill(os.getpid(), 9)
    return factor * item


def test_processes_give_each_result_once_also_when_one_dies(tmp_path):
    shared = packed((tmp_path, 10))
    found = list(in_processes(_task, shared, [0, 1, 2, 3, 4], 2))
    assert sorted(found) == [(i, 10 * i) for i in range(5)]
    assert len(list(tmp_path.glob("3.*"))) == 2
    # Another process takes the item of the one that died: one that waits, or a third.
    assert len({file.name.split(".")[1] for file in tmp_path.glob("3.*")}) == 2
    assert len({file.name.split(".")[1] for file in tmp_path.iterdir()}) in (2, 3)


def test_what_a_process_refuses_or_dies_of_is_an_input_error_here(tmp_path):
    with pytest.raises(InputError, match="row 7"):
        list(in_processes(_task, packed((tmp_path, 1)), [1, 5], 2))
    with pytest.raises(InputError, match=r"processes die of a training: 6 = 2 times"):
        list(in_processes(_task, packed((tmp_path, 1)), [6], 1, deaths=1))


def test_what_cannot_be_sent_is_none():
    assert packed((print, lambda x: x)) is not None
    assert packed(sys.stdout) is None
    assert packed(x for x in "ab") is None


def test_without_cloudpickle_functions_of_modules_can_be_sent(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    assert packed((_sleep, torch.nn.Linear, {"a": 1})) is not None
    assert packed(lambda: 1) is None
    typed = type("Typed", (), {"__module__": "__main__"})  # a notebook's
    monkeypatch.setattr(sys.modules["__main__"], "Typed", typed, raising=False)
    assert packed(typed) is None


def _sleep(shared, item, note):
    (shared / f"{os.getpid()}").touch()
    time.sleep(60)


def test_processes_end_when_the_one_that_waits_is_killed(tmp_path):
    """And when it stops early."""
    script = (
        "import sys, pathlib; from weightdecay.engine import *; sys.path.insert(0, sys.argv[2]);"
        "import test_store as t; list(in_processes(t._sleep, packed(pathlib.Path(sys.argv[1])), [1, 2], 2))"
    )
    main = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)])
    end = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    main.kill()
    main.wait()
    assert all(_gone(int(file.name)) for file in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2


def _gone(pid, patience=10.0):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
                if file.read().split(")")[1].split()[0] == "Z":
                    return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_no_engine_is_this_process():
    with connected(None) as found:
        assert found == (None, None)
    assert list(as_finished(lambda a, b: a + b, 1, [1, 2], None, ["a", "b"])) == [(0, 2), (1, 3)]
