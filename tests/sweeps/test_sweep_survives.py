"""Faults that happen: kill -9, a worker that dies, a full disk, a folder that cannot be written, TLS."""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import job as jobs
import pytest
import torch

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.sweeps.store import FILE, opened

pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own, of processes that are killed on purpose
HERE = Path(__file__).parent
KILLS = int(os.environ.get("WEIGHTDECAY_KILLS", "5"))  # the issue asks for 20


@pytest.fixture(scope="module")
def whole():
    return jobs.job()


@pytest.fixture(scope="module")
def processes():
    """Processes that start at once, and from a clean state."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["job", "torch._dynamo"])  # an optimizer loads the second
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *sys.path])
    first = context.Process(target=os.getpid)
    first.start()
    first.join()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


def same(one, other):
    assert one.table().equals(other.table())
    assert one.curves().equals(other.curves())
    assert one.best == other.best
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def stored(folder):
    """What is in the store is whole: rows, each once."""
    if not (folder / FILE).exists():
        return 0
    with contextlib.closing(sqlite3.connect(folder / FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with opened(folder) as store:
        found = store.trained()
        assert len({one.copy for one in found}) == len(found)
        assert all(len(one.looks) == 3 for one in found)
        return len(found)


def test_killed_at_random_moments_it_ends_the_same(whole, processes, tmp_path):
    """Each sweep is killed up to five times; the moments lie in its work, not in the start of the process."""
    moments = random.Random(0)
    times = [_run(processes, tmp_path / "undisturbed", None)[1] for _ in range(2)]
    work, start = times[0] - times[1], times[1]  # the second had nothing left to do
    kills, at = 0, []
    # Later ones come later: a busy machine may take longer to start than the one run that was timed.
    while kills < KILLS or (len(set(at)) == 1 and kills < 4 * KILLS):
        folder, rows = tmp_path / f"from {kills}", 0
        for _ in range(5):
            late = moments.uniform(0, 0.35) * (1 + kills / KILLS)
            finished, _ = _run(processes, folder, 0.9 * start + late * work)
            if finished:
                break
            kills += 1
            now = stored(folder)
            assert now >= rows  # nothing is lost
            rows = now
            at.append((rows, len([*folder.glob("checkpoints/*.safetensors")])))
        assert _run(processes, folder, None)[0]
        same(wd.load(folder), whole)
        assert stored(folder) == len(whole.trained)
    print("rows and checkpoints at each kill:", at)
    assert len(set(at)) > 1  # killed at different stages
    assert any(rows < len(whole.trained) for rows, _ in at)


def _run(processes, folder, after):
    """Begin or resume, and kill after so many seconds; whether it came to its end, and the time it took."""
    process = processes.Process(target=jobs.quietly, args=(folder,))
    begun = time.monotonic()
    process.start()
    process.join(after)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0, time.monotonic() - begun


def test_two_sweeps_on_one_store_end_the_same(whole, processes, tmp_path):
    crew = [processes.Process(target=jobs.quietly, args=(tmp_path,)) for _ in range(2)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    assert [process.exitcode for process in crew] == [0, 0]
    same(wd.load(tmp_path), whole)
    assert stored(tmp_path) == len(whole.trained)


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(lambda path: sys.path.insert(0, path), str(HERE))
        yield client


class Deadly(torch.nn.Module):
    """Kills the process it is trained in, once: the first that gets to train with the mark there."""

    def __init__(self, mark):
        super().__init__()
        self.net, self.mark = jobs.network(), mark

    def forward(self, x):
        if self.training and multiprocessing.current_process().name != "MainProcess":
            with contextlib.suppress(FileNotFoundError):
                Path(self.mark).unlink()  # one process only can do that
                os.kill(os.getpid(), signal.SIGKILL)
        return self.net(x)


def test_a_worker_that_dies_in_its_task_costs_only_that(whole, client, tmp_path):
    mark = tmp_path / "mark"

    def model():
        return Deadly(str(mark))

    mark.touch()
    workers = set(client.scheduler_info()["workers"])
    found = jobs.job(make_model=model, engine=client, out=tmp_path / "out")
    assert not mark.exists()  # one has died
    assert set(client.scheduler_info()["workers"]) != workers
    assert stored(tmp_path / "out") == len(whole.trained)
    assert found.table().equals(whole.table())  # what the network alone gives here
    assert found.curves().equals(whole.curves())
    for name, tensor in whole.weights.items():
        assert torch.equal(found.weights[f"net.{name}"], tensor)


def test_begun_by_workers_and_resumed_here_is_the_same(whole, client, tmp_path):
    with pytest.raises(wd.Interrupted):
        jobs.job(out=tmp_path, engine=client.scheduler.address, on_progress=stop)
    assert stored(tmp_path) >= 8
    same(jobs.job(out=tmp_path, resume=True), whole)


def test_what_a_worker_refuses_is_told(client):
    with pytest.raises(InputError, match="cannot be sent to workers"):
        jobs.job(engine=client, metrics={"accuracy": Unsendable()})


class Unsendable:
    def __call__(self, output, target):
        return (output.argmax(-1) == target).float().mean()

    def __reduce__(self):
        raise TypeError("not me")


def run_in(command, folder, more=""):
    """A sweep in a process of its own; what it printed and whether it was an InputError."""
    script = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import job, weightdecay\n{more}\n"
        f"try: job.job(out={str(folder)!r}, resume=True)\n"
        "except weightdecay.InputError as error: print(error); sys.exit(2)\n"
    )
    done = subprocess.run([*command, sys.executable, "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_full_disk_is_told_and_the_store_stays_whole(whole, tmp_path):
    """A file system of 160 kB, on which the store and checkpoints do not fit."""
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = (
        f'mount -t tmpfs -o size=160k none {disk} && shift && "$@"; status=$?;'
        f" cp -r {disk} {tmp_path}/copy; exit $status"
    )
    space = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if subprocess.run([*space, "mount", "-t", "tmpfs", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    done = run_in([*space, "sh", "-c", inside, "sh", "--"], disk)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stdout
    assert "No space left" in done.stdout or "full" in done.stdout
    assert done.stdout.count("\n") == 1
    rows = stored(tmp_path / "copy")
    assert rows < len(whole.trained)
    same(jobs.job(out=tmp_path / "copy", resume=True), whole)


def test_files_that_may_not_grow_are_told_and_the_store_stays_whole(whole, tmp_path):
    """A quota, as a limit on the size of files."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    done = run_in([], tmp_path, limit)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stdout
    assert 0 < stored(tmp_path) < len(whole.trained)
    same(jobs.job(out=tmp_path, resume=True), whole)


def test_weights_that_do_not_fit_are_told(tmp_path):
    """Half a file is none: what is there stays as it was."""
    script = (
        "import pathlib, resource, sys, torch, weightdecay\n"
        "from weightdecay.sweeps.store import Weights\n"
        "from weightdecay.sweeps.task import Chunk\n"
        "weights = Weights(pathlib.Path(sys.argv[1]))\n"
        "chunk = Chunk('L2', None, (0.0,), 'weight_decay', (0,))\n"
        "weights.put(chunk, {'w': torch.ones(10)})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "try: weights.put(chunk, {'w': torch.ones(100_000)})\n"
        "except weightdecay.InputError as error: print(error, len(weights.get(chunk)['w']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.startswith("a file cannot be written: "), done.stderr
    assert done.stdout.endswith("intact 10\n")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_told(whole, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the output folder cannot be written"):
        jobs.job(out=tmp_path / "file")
    closed = tmp_path / "closed"
    with pytest.raises(wd.Interrupted):
        jobs.job(out=closed, on_progress=stop)
    rows = stored(closed)
    if os.geteuid():
        closed.chmod(0o555)
        done = run_in([], closed)
        closed.chmod(0o755)
    else:  # root writes into every folder but one that is mounted read-only
        bind = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
            pytest.skip("root, and nothing can be mounted here")
        done = run_in(["unshare", "--mount", "sh", "-c", bind, "sh", str(closed)], closed)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stdout
    assert done.stdout.count("\n") == 1
    assert stored(closed) == rows
    same(jobs.job(out=closed, resume=True), whole)


def stop(progress):
    if progress.done >= 8:
        raise KeyboardInterrupt


def certificates(folder):
    """A certificate authority, and a certificate for 127.0.0.1 that it signed."""
    commands = (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 1 -subj /CN=ca",
        "req -newkey rsa:2048 -nodes -keyout node.key -out node.csr -subj /CN=node",
        "x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out node.pem -extfile names",
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
def test_workers_behind_tls(whole, tmp_path):
    distributed = pytest.importorskip("distributed")
    certificates(tmp_path)
    names = {
        f"tls_{role}_{kind}": str(tmp_path / f"node.{ending}")
        for role in ("scheduler", "worker", "client")
        for kind, ending in (("cert", "pem"), ("key", "key"))
    }
    security = distributed.Security(tls_ca_file=str(tmp_path / "ca.pem"), require_encryption=True, **names)
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        host="127.0.0.1",
        protocol="tls://",
        security=security,
        dashboard_address=None,
        silence_logs=50,
    ) as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        with distributed.Client(cluster.scheduler_address, security=security) as client:
            client.run(lambda path: sys.path.insert(0, path), str(HERE))
            same(jobs.job(engine=client), whole)
        with pytest.raises(InputError, match="TLS needs certificates"):
            jobs.job(engine=cluster.scheduler_address)
        import dask.config

        tls = {"ca-file": str(tmp_path / "ca.pem")}
        tls["client"] = {"cert": str(tmp_path / "node.pem"), "key": str(tmp_path / "node.key")}
        tls = {f"distributed.comm.tls.{name}": value for name, value in tls.items()}
        with dask.config.set(tls):
            same(jobs.job(engine=cluster.scheduler_address), whole)
