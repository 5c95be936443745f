"""The examples do what their documents say: the table, the files, the same bits, one-line errors, Ctrl-C."""

import importlib.util
import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "pride.py"
PRIDE = [sys.executable, str(SCRIPT)]
TINY = ("--steps", "20", "--width", "24", "--text", "500", "--half-lives", "0.5")
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")  # for so short a run


def loaded(script):
    """The example as a module, to be called here: a process of its own takes seconds to import torch."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def main():
    threads = torch.get_num_threads()
    module = loaded(SCRIPT)
    yield lambda *words: module.main([str(word) for word in words])
    torch.set_num_threads(threads)


def results(folder):
    """The file's content without the seconds, which are the only thing that may differ between two runs."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert all(one.pop("seconds") > 0 for one in found["rules"])
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """One small run of every rule: its folder and its output."""
    folder = tmp_path_factory.mktemp("pride")
    words = [*PRIDE, *TINY, "--rules", "none,decoupled,cautious,corrected,toward"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder / "runs" / "pride", done.stdout


def test_the_table_is_plain_and_says_what_the_file_says(tiny):
    folder, out = tiny
    head, *rows, last = out.splitlines()
    assert re.split(r"\s{2,}", head) == [
        "rule",
        "train loss",
        "validation loss",
        "norm",
        "decayed",
        "seconds",
    ]
    assert last.endswith("runs/pride")
    assert out.isascii()
    found = results(folder)
    assert [row.split()[0] for row in rows] == [one["rule"] for one in found["rules"]]
    for row, one in zip(rows, found["rules"], strict=True):
        look = one["looks"][-1]
        shown = [f"{look['train_loss']:.3f}", f"{look['validation_loss']:.3f}", f"{look['norm']:.1f}"]
        assert row.split()[1:4] == shown
    assert (found["complete"], found["settings"]["steps"], len(found["rules"][0]["looks"])) == (True, 20, 10)


def test_the_files_are_whole(tiny):
    folder, _ = tiny
    assert sorted(path.name for path in folder.iterdir()) == ["curves.png", "results.json"]
    assert (folder / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (folder / "curves.png").read_bytes()[-8:-4] == b"IEND"


def test_the_rules_decay_as_they_should(tiny):
    """Exact where it can be: all matrices or none; about half for Cautious; smaller norms where decay is."""
    folder, _ = tiny
    looks = {one["rule"]: one["looks"] for one in results(folder)["rules"]}
    width, letters, context = 24, 75, 64
    matrices = 2 * 12 * width**2 + letters * width
    everything = matrices + (letters + context) * width + 2 * (2 * width + 2 * 24) + width
    for rule in ("decoupled", "corrected", "toward"):
        assert all(math.isclose(look["decayed"], matrices / everything) for look in looks[rule])
    assert all(look["decayed"] == 0 for look in looks["none"])
    for look in looks["cautious"]:
        assert 0.3 < look["decayed"] * everything / matrices < 0.7
    norm = {rule: seen[-1]["norm"] for rule, seen in looks.items()}
    assert norm["decoupled"] < norm["cautious"] < norm["none"]
    assert norm["decoupled"] < norm["toward"] < norm["none"]
    assert norm["corrected"] != norm["decoupled"]


def test_half_a_half_life_is_a_factor(tiny):
    """The strength means what it says: what is left of the norm is a little more than no gradient leaves."""
    looks = {one["rule"]: one["looks"] for one in results(tiny[0])["rules"]}
    assert 2**-0.5 < looks["decoupled"][-1]["norm"] / looks["none"][-1]["norm"] < 0.85


def test_the_same_seed_gives_the_same_bits_and_rules_do_not_disturb_each_other(tiny, main, tmp_path):
    assert main(*TINY, "--rules", "cautious,none", "--out", tmp_path / "again") == 0
    first = {one["rule"]: one for one in results(tiny[0])["rules"]}
    again = {one["rule"]: one for one in results(tmp_path / "again")["rules"]}
    assert again == {rule: first[rule] for rule in ("cautious", "none")}
    assert main(*TINY, "--rules", "none", "--seed", 1, "--out", tmp_path / "other") == 0
    assert results(tmp_path / "other")["rules"][0] != first["none"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--rules", "lasso"), "lasso"),
        (("--rules", "none,none"), "once"),
        (("--steps", "many"), "many"),
        (("--steps", "0"), "--steps"),
        (("--text", "64"), "--text"),
        (("--text", "684767"), "--text"),
        (("--width", "30"), "multiple of 24"),
        (("--half-lives", "-1"), "HalfLives.per_run"),
        (("--half-lives", "nan"), "HalfLives.per_run"),
        (("--half-lives", "9999", "--rules", "decoupled"), "half-lives"),
        (("--out", "file"), "file"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_code_2(arguments, word, main, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    try:
        code = main(*TINY, *arguments)
    except SystemExit as left:
        code = left.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert word in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_ctrl_c_keeps_what_was_seen(tmp_path):
    process = subprocess.Popen(
        [*PRIDE, *TINY, "--steps", "1000", "--rules", "none,decoupled", "--half-lives", "5"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr.readline().startswith("step 100 of 1000"), process.kill()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert out.splitlines()[1].startswith("none ")
    found = results(tmp_path / "runs/pride")
    assert found["complete"] is False
    assert 100 <= found["rules"][0]["looks"][-1]["step"] < 1000
    assert sorted(path.name for path in (tmp_path / "runs/pride").iterdir()) == ["curves.png", "results.json"]


def test_strengths_are_carried_to_other_batch_sizes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = loaded(SCRIPT.with_name("half_life_transfers.py"))
    assert script.main(["--seeds", "2", "--epochs", "15"]) == 0
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "runs/half-life/results.json").read_text(encoding="utf-8"))["rows"]
    assert [row["batch"] for row in rows] == [32, 128, 512] * 2
    for row in rows:
        assert f"{row['same_half_lives'][0]:.2f} ± " in printed or row["judge"] == "likelihood"
    first, *others = rows[:3]
    assert first["none"][0] + 5 < first["same_half_lives"][0]  # without decay the wrong labels are learnt
    assert first["same_lam"] == first["same_half_lives"]  # at the batch size where it was chosen
    assert first["lam"] == 0 or all(row["lam_of_half_lives"] > first["lam"] for row in others)


def test_the_transfer_names_a_wrong_option(tmp_path):
    script = SCRIPT.with_name("half_life_transfers.py")
    words = [sys.executable, str(script), "--seeds", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "error: give two seeds at least, one epoch and one hidden layer\n",
    )
