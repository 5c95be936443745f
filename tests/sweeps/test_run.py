"""The front door: what it refuses before any training, and that it goes on where it stopped."""

import inspect
import json
import sqlite3
import time
import warnings
from functools import partial

import job as jobs
import pytest
import torch
from torch import nn

import weightdecay as wd
from weightdecay.engine import connected
from weightdecay.errors import InputError, Interrupted
from weightdecay.sweeps import method, run
from weightdecay.sweeps.store import FILE, opened
from weightdecay.sweeps.task import task_of

job = jobs.job


ARGUMENTS = {
    "make_model": jobs.network,
    "train": jobs.points(96, 0),
    "test": jobs.points(200, 1),
    "loss": nn.functional.cross_entropy,
    "optimizer": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0),
    "metrics": {"accuracy": jobs.accuracy},
    "rule": wd.Decoupled,
    "strengths": [0.3, 3.0],
    "seeds": 2,
    **{"minimize": "loss", "maximize": None, "widen": 0, "refine": 0},
    "epochs": 6,
    "batch_size": 32,
    "every": 2,
    **dict.fromkeys(("schedule", "clip", "lr", "device")),
    "on": "matrices",
}


def same(one, other):
    """Tables, curves, choices and weights: the same bits."""
    assert one.table().equals(other.table())
    assert one.curves().equals(other.curves())
    assert (one.best, one.one_se, one.rule, one.strengths) == (
        other.best,
        other.one_se,
        other.rule,
        other.strengths,
    )
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


@pytest.fixture(scope="module")
def whole():
    return job()


def test_with_a_folder_and_without_one_are_the_same(whole, tmp_path):
    files = []

    def count_files(progress):
        files.append(len(list((tmp_path / "new" / "folder" / "weights").glob("*"))))

    found = job(out=tmp_path / "new" / "folder", on_progress=count_files)
    same(found, whole)
    assert 1 <= max(files) <= 2  # of six chunks: those that may still be the best
    assert found.settings["versions"]["torch"] == torch.__version__
    same(wd.load(tmp_path / "new" / "folder"), whole)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(
        [FILE, "sweep.json", "table.parquet", "curves.parquet", "weights.safetensors"]
    )
    assert len(whole.table()) == 2 * 2 * len(whole.strengths)
    assert len(whole.strengths) > 4  # two rounds
    assert {tensor.shape[0] for tensor in whole.weights.values()} == {2}


def test_the_weights_are_those_of_the_best(whole):
    X, y = jobs.points(200, 1)
    for seed in range(2):
        model = jobs.network()
        model.load_state_dict({name: tensor[seed] for name, tensor in whole.weights.items()})
        row = whole.table().filter(rule=whole.rule, strength=whole.best, seed=seed)
        assert nn.functional.cross_entropy(model(X), y).item() == pytest.approx(
            row["test_loss"].item(), abs=1e-5
        )


def test_a_finished_sweep_is_not_trained_again(whole, tmp_path):
    job(out=tmp_path)
    seen = []
    same(job(out=tmp_path, resume=True, on_progress=seen.append), whole)
    assert not seen
    (tmp_path / "weights.safetensors").unlink()  # trained again, to the same bits
    same(job(out=tmp_path, resume=True), whole)


def test_progress_counts_to_the_end(whole):
    seen = []
    job(on_progress=seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == len(whole.table())
    assert seen[-1].share == 1.0
    assert seen[-1].looks is not None  # nothing is trained again for its weights
    again = []
    early = job(
        on_progress=again.append, strengths=[0.3, 90.0], rule=wd.Decoupled, widen=0, refine=0, chunk=2
    )
    assert early.best < 90.0  # not of the chunk that comes last
    assert again[-1].looks is not None
    assert all(0 < p.share <= 1 for p in seen)
    assert sum(p.looks is not None for p in seen) >= len(whole.table()) / 4
    assert len([p for p in seen if p.looks is None]) > 25  # every epoch of every chunk
    assert seen[0].best is None
    assert seen[-1].best == (whole.best, pytest.approx(float(whole.scores.min())))


def test_ctrl_c_keeps_what_is_finished(whole, tmp_path):
    def interrupt(progress):
        if progress.done >= 8 and progress.share * progress.total > progress.done:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        job(out=tmp_path, on_progress=interrupt)
    partial_table = caught.value.partial.table()
    assert 8 <= len(partial_table) < len(whole.table())
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    same(job(out=tmp_path, resume=True), whole)
    with pytest.raises(Interrupted) as at_once:
        job(on_progress=interrupt_now)
    assert at_once.value.partial is None


def interrupt_now(progress):
    raise KeyboardInterrupt


def test_a_checkpoint_is_gone_on_from(tmp_path):
    """Not begun anew: the epochs before it are not trained again."""

    def stop(progress):
        if progress.share * progress.total >= 0.8 * 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        job(out=tmp_path, on_progress=stop)
    seen = []
    job(out=tmp_path, resume=True, on_progress=seen.append)
    assert seen[0].share * seen[0].total > 0.8 * 4


def test_another_sweep_s_store_is_refused(tmp_path):
    job(out=tmp_path)
    with pytest.raises(InputError, match=r"there is a sweep in the folder: out = .*resume it"):
        job(out=tmp_path)
    with pytest.raises(
        InputError, match=r"other settings: epochs: epochs = 6 in .*, 7 now; give the same again"
    ):
        job(out=tmp_path, resume=True, epochs=7)
    X, y = jobs.points(96, 0)
    for changes, name in (
        ({"train": (X + 1e-6, y)}, "train"),
        ({"strengths": [0.3, 3.0]}, "strengths"),
        ({"seeds": [0, 2]}, "seeds"),
        ({"optimizer": partial(torch.optim.AdamW, lr=2e-2, weight_decay=0)}, r"optimizer\.lr"),
        ({"loss": lambda output, target: nn.functional.cross_entropy(output, target)}, "loss"),
        ({"make_model": lambda: jobs.Branching()}, "make_model, model.layout, model.classes"),
        ({"rule": wd.Decoupled}, r"rules\.Cautious"),
        ({"refine": 0}, "refine"),  # the store has a finer round
        ({"about": {"script": "abc"}}, "script"),
    ):
        with pytest.raises(InputError, match=f"other settings: {name}[:,] "):
            job(out=tmp_path, resume=True, **changes)
    with sqlite3.connect(tmp_path / FILE) as connection:
        (text,) = connection.execute("SELECT value FROM about WHERE name = 'settings'").fetchone()
        settings = {**json.loads(text), "versions": {"weightdecay": "0.0.1", "torch": "2.0"}}
        connection.execute("UPDATE about SET value = ? WHERE name = 'settings'", (json.dumps(settings),))
    connection.close()
    with pytest.raises(
        InputError, match=r"versions\.weightdecay, versions\.torch: versions\.weightdecay = '0\.0\.1'"
    ):
        job(out=tmp_path, resume=True)


class Undetermined(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x):
        return self.layer(x) * len(set(map(id, [object() for _ in range(3)]))) * next(_numbers)


_numbers = iter(range(1, 10_000))


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)
        self.count = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"make_model": Undetermined}, "not deterministic under a fixed seed"),
        ({"make_model": Whole}, r"a parameter that is not float: count = int64"),
        ({"make_model": lambda: nn.Linear(5, 2)}, "cannot be called with the data"),
        ({"make_model": lambda: 3}, r"make_model has to return a torch\.nn\.Module"),
        ({"make_model": nn.Linear(6, 2)}, "the model cannot be made"),
        (
            {"loss": partial(nn.functional.cross_entropy, reduction="none")},
            r"one number for a batch: loss = shape",
        ),
        ({"optimizer": partial(torch.optim.AdamW, lr=0.1, weight_decay=0.1)}, "decays by itself"),
        ({"maximize": "loss"}, "more loss is not better"),
        ({"strengths": []}, "nothing to try"),
        ({"strengths": [0.1, 0.1]}, "a strength is there twice"),
        ({"strengths": [-0.1]}, "out of range"),
        ({"strengths": [0.1, 100.0]}, r"removes the whole weight or more"),
        ({"strengths": [1.0, 50.0], "lr": [0.01, 0.1]}, r"removes the whole weight or more"),
        ({"seeds": 0}, "seeds = 0"),
        ({"seeds": [1, 1]}, "seeds have to be different"),
        ({"epochs": 0}, "epochs = 0"),
        ({"batch_size": 97}, "too large: batch_size = 97; give 96 or less"),
        ({"clip": 0}, "clip = 0"),
        ({"chunk": 0}, "chunk = 0"),
        ({"widen": -1}, "widen = -1"),
        ({"lr": [0.1, 0.1]}, "step sizes have to be different"),
        ({"lr": []}, "step sizes have to be different"),
        ({"rule": wd.Decoupled(0.1)}, "a rule that has its strength already"),
        ({"rule": "decoupled"}, "not a rule: rule = 'decoupled'"),
        ({"rule": [wd.Decoupled, wd.Decoupled]}, "rules need different names"),
        ({"minimize": "accurracy"}, "no such score"),
        ({"device": "gpu"}, "no such device"),
        ({"engine": "spark"}, "no such engine"),
        ({"schedule": "cosinus"}, "schedule"),
    ],
)
def test_what_cannot_be_used_is_told_before_any_training(tmp_path, changes, message):
    seen = []
    with pytest.raises(InputError, match=message):
        job(out=tmp_path, on_progress=seen.append, **changes)
    assert not seen
    if (tmp_path / FILE).exists():  # and nothing stands in the way of the next
        job(out=tmp_path, epochs=1, refine=0, widen=0)


def test_an_engine_that_does_not_answer_is_told_in_time():
    pytest.importorskip("distributed")
    assert inspect.signature(connected).parameters["patience"].default == 10.0
    begun = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask's, of a connection that fails
        with pytest.raises(InputError, match=r"no scheduler answers: engine = tcp://127\.0\.0\.1:1"):
            connected("tcp://127.0.0.1:1", patience=0.5).__enter__()
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"make_model": None}, "not a function: make_model = NoneType"),
        ({"loss": "mse"}, "not a function: loss = str"),
        (
            {"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)},
            "not a function: optimizer = SGD",
        ),
        ({"every": 1.5}, r"not a whole number: every = 1\.5"),
        ({"metrics": [jobs.accuracy]}, "metrics have names"),
        ({"metrics": {"accuracy": 3}}, r"not a function: metrics\['accuracy'\] = 3"),
        ({"metrics": {7: jobs.accuracy}}, "a metric's name is not text: metrics = 7"),
        ({"clip": "1"}, "not a number: clip"),
        ({"lr": "0.1"}, "not a number: lr"),
    ],
)
def test_arguments_of_another_kind_are_told(changes, message):
    """What the type checks of the tests would refuse before the front door does."""
    with pytest.raises(InputError, match=message):
        task_of(**{**ARGUMENTS, **changes})


def test_one_seed_works_and_says_that_there_are_no_error_bars():
    found = job(seeds=1, rule=wd.Decoupled, refine=0)
    assert any("one seed only" in doubt for doubt in found.doubts)
    assert found.seeds == (0,)


def test_the_grid_widens_up_to_a_rate_of_one():
    """lr·λ < 1 is λ < 100 here: from 1, 10 there is nothing above but 100, which is not tried."""
    X = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    y = torch.randint(0, 2, (40,), generator=torch.Generator().manual_seed(2))  # noise: more decay is better
    arguments = {"train": (X, y), "batch_size": 20, "rule": wd.Decoupled, "refine": 0, "epochs": 30}
    found = job(strengths=[0.1, 1.0], **arguments)
    assert found.strengths == pytest.approx((0.0, 0.1, 1.0, 10.0))
    assert found.edge == "high"
    assert job(strengths=[0.1, 1.0], widen=0, **arguments).strengths == (0.0, 0.1, 1.0)


def test_a_copy_that_diverges_is_stored_and_comes_back_as_such(tmp_path):
    sgd = partial(torch.optim.SGD, lr=1.0)
    X, y = jobs.points(96, 0)
    changes = {
        "optimizer": sgd,
        "make_model": lambda: nn.Linear(6, 1),
        "train": (X * 2, y[:, None].float()),
        "test": (X, y[:, None].float()),
        "loss": nn.functional.mse_loss,
        "metrics": {},
        "lr": [0.05, 5.0],
        "rule": wd.Decoupled,
        "strengths": [0.01, 0.1],
        "epochs": 60,
        "refine": 0,
        "widen": 0,
    }
    here = job(**changes)
    diverged = here.table().filter(lr=5.0)
    assert diverged["diverged"].null_count() == 0
    assert diverged["test_loss"].is_nan().all()
    assert here.lr == 0.05
    job(out=tmp_path, **changes)
    same(job(out=tmp_path, resume=True, **changes), here)


def test_settings_of_the_caller_are_left_alone():
    torch.manual_seed(5)
    wanted, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    job(refine=0, rule=wd.Decoupled, epochs=2)
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == threads


def in_two(monkeypatch, work=0):
    """Sweeps as on two cores, with processes where there is so much work, however little."""
    for module in (method, run):
        monkeypatch.setattr(module, "cores", lambda: 2)
    monkeypatch.setattr(run, "STARTING", 0.0)
    monkeypatch.setattr(method, "_MUCH_WORK", work)


def places(found):
    return [note for note in found.notes if note.startswith("trained in ")]


@pytest.mark.parametrize("network", [jobs.network, jobs.Branching])
def test_processes_give_the_bits_progress_and_store_of_this_process(monkeypatch, tmp_path, network):
    """Also where copies are trained one by one."""
    in_two(monkeypatch)
    changes = {"make_model": network, "chunk": None, "rule": wd.Decoupled, "refine": 0}
    seen = []
    here = job(engine="here", **changes)
    several = job(on_progress=seen.append, out=tmp_path, **changes)
    same(several, here)
    assert (places(here), len(places(several))) == ([], 1)
    assert places(several)[0].startswith("trained in 2 processes of one thread each: ")
    assert places(several)[0].zh.startswith("训练地点：在 2 个单线程进程中")
    assert places(wd.load(tmp_path)) == places(several)
    assert [progress.share for progress in seen] == sorted(progress.share for progress in seen)
    epochs = sum(progress.looks is None for progress in seen)
    assert epochs == (2 if network is jobs.network else len(here.trained)) * 6
    assert seen[-1].done == seen[-1].total == len(here.trained)
    with opened(tmp_path) as store:
        assert len(store.trained()) == len(here.trained)
    same(job(out=tmp_path, resume=True, **changes), here)


def test_ctrl_c_ends_the_processes_and_what_is_kept_goes_on_to_the_same_end(monkeypatch, tmp_path):
    in_two(monkeypatch)
    changes = {"chunk": None, "rule": wd.Decoupled, "refine": 0, "widen": 0}

    def stop(progress):
        if progress.epoch >= 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as interrupted:
        job(on_progress=stop, out=tmp_path, **changes)
    assert "0 of 8 trainings are finished, and " in interrupted.value.kept
    assert "more are kept up to epoch" in interrupted.value.kept
    same(job(out=tmp_path, resume=True, engine="here", **changes), job(engine="here", **changes))


class Unsendable:
    def __call__(self, output, target):
        return jobs.accuracy(output, target)

    def __reduce__(self):
        raise TypeError("not me")


def test_what_cannot_be_sent_is_trained_here_as_ever(monkeypatch):
    changes = {"rule": wd.Decoupled, "refine": 0, "widen": 0, "epochs": 3}
    before = job(chunk=None, **changes)
    in_two(monkeypatch)
    found = job(chunk=None, metrics={"accuracy": Unsendable()}, **changes)
    same(found, before)
    assert places(found) == []  # nothing to choose: it is planned for this process
    found = job(make_model=jobs.Branching, metrics={"accuracy": Unsendable()}, **changes)
    assert "cannot be sent to another" in places(found)[0]
    same(found, job(make_model=jobs.Branching, **changes))


def test_a_process_that_gives_other_bits_is_not_used(monkeypatch):
    """Its module is as it was imported, without what was changed since."""
    in_two(monkeypatch)
    monkeypatch.setattr(jobs, "network", lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)))
    changes = {"make_model": jobs.Branching, "rule": wd.Decoupled, "refine": 0, "widen": 0, "epochs": 3}
    found = job(**changes)
    assert "differ in their bits" in places(found)[0]
    same(found, job(engine="here", **changes))


def test_a_small_sweep_stays_in_this_process(monkeypatch):
    """By what it computes, not by a clock; a larger one by what the rest would take."""
    monkeypatch.setattr(run, "in_processes", None)
    assert places(job(chunk=None)) == []
    in_two(monkeypatch)
    monkeypatch.setattr(run, "STARTING", 1e6)
    found = job(chunk=None)
    assert "are not worth the start of others" in places(found)[0]
    assert "不值得另启进程" in places(found)[0].zh
