"""The sharded example: killed and restarted, on other numbers of processes, with bad options."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import ranks
import torch
from torch import multiprocessing as mp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

SCRIPT = Path(__file__).parents[2] / "examples" / "sharded.py"
TINY = ("--steps", "20", "--every", "8", "--half-lives", "1", "--rule", "toward")


def trained(rank, world, out, *words):
    """The example in ranks that have met already."""
    sys.path.insert(0, str(SCRIPT.parent))
    import sharded

    sharded.run(sharded.options([*TINY, "--out", str(out), *words]))


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def saved(folder):
    """What is in the last checkpoint."""
    dcp_to_torch_save(folder / "checkpoints" / "step-000020", folder / "last.pt")
    return torch.load(folder / "last.pt", weights_only=True)["training"]


def assert_close(folder, other, tolerance):
    """Losses and norms, and the weights as one vector."""
    looks = [[tuple(look.values()) for look in results(one)["looks"]] for one in (folder, other)]
    torch.testing.assert_close(*map(torch.tensor, looks), rtol=tolerance, atol=0)
    mine, theirs = (torch.cat([w.flatten() for w in saved(one)["model"].values()]) for one in (folder, other))
    assert (mine - theirs).norm() <= tolerance * mine.norm()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Uninterrupted runs: their folder, by the number of processes."""
    folders = {world: tmp_path_factory.mktemp("sharded") for world in (1, 2)}
    for world, folder in folders.items():
        ranks.spawn(trained, world, folder)
    return folders


def test_a_killed_process_costs_no_bits(runs, tmp_path):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["--max-restarts", "1", SCRIPT, *TINY, "--out", tmp_path, "--kill-at", "14", "--kill-rank", "1"]
    done = subprocess.run([*run, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("going on from step 8\n") == 1
    assert len(done.stdout.splitlines()) == 12
    mine, whole = results(tmp_path), results(runs[2])
    assert (mine.pop("resumed_at"), whole.pop("resumed_at")) == (8, 0)
    assert mine == whole
    assert saved(tmp_path)["decay"]["steps"] == 20
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000020"]


def test_the_number_of_processes_is_rounding(runs, tmp_path):
    """Also where it changes on the way."""
    assert_close(runs[1], runs[2], 2e-5)
    with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
        ranks.spawn(trained, 1, tmp_path, "--kill-at", "14")
    ranks.spawn(trained, 3, tmp_path)
    assert (results(tmp_path)["processes"], results(tmp_path)["resumed_at"]) == (3, 8)
    assert_close(runs[1], tmp_path, 2e-5)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--rule", "lasso"), "error: argument --rule: invalid choice: 'lasso'"),
        (("--every", "0"), "error: --every 0: give 1 or more"),
        (("--kill-rank", "1"), "error: no such process: --kill-rank = 1; give 0 or less"),
        (("--half-lives", "nan"), "error: not a finite number: HalfLives.per_run"),
        (("--seed", "1"), "seed 0; choose another --out"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_code_2(words, error, runs, monkeypatch, capsys):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import sharded

    try:
        code = sharded.main([*TINY, "--out", str(runs[1]), *words])
    except SystemExit as left:
        code = left.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert error in err
