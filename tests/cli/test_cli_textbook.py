"""The command as a person runs it: pipes, a real terminal, signals."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
from tests.commands import COMMAND, at_a_terminal, here, in_a_process

TECATOR = str(Path("examples/data/tecator.csv").resolve())
QUICK = ["--epochs", "10", "--curve", "1:10:3", "--curve-seeds", "2"]
SHORTEST = ["--epochs", "1", "--curve", "none"]
FILES = [
    "curves.png",
    "curves.svg",
    "lambda.parquet",
    "lambda.png",
    "lambda.svg",
    "report.html",
    "results.parquet",
    "run.json",
    "slider.parquet",
]


def test_the_main_job(tmp_path):
    """As `make textbook` runs it, into a pipe: plain lines, one table, every file."""
    done = in_a_process("textbook", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sorted(path.name for path in (tmp_path / "runs/textbook").iterdir()) == FILES
    assert "\x1b" not in done.stdout
    assert re.search(r"scratch +│ 0 .*│ +82\.\d+ │", done.stdout)
    assert re.search(r"scratch +│ 3 .*│ +0\.06\d+ │", done.stdout)
    assert "Why: 20 examples reach 20 of the 200 directions" in done.stdout
    results = pl.read_parquet(tmp_path / "runs/textbook/results.parquet")
    assert results.columns == ["version", "seed", "lam", "epoch", "train_loss", "test_loss", "w_norm"]
    assert results.height == 2 * 2 * 20
    png = (tmp_path / "runs/textbook/curves.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 20_000
    assert "λ = 3" in (tmp_path / "runs/textbook/curves.svg").read_text(encoding="utf-8")


def test_json_is_one_object_and_a_run_can_be_run_again_bit_for_bit(tmp_path):
    first = here("textbook", "--lambda", "0,3", "--seeds", 20, "--out", "a", "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    values = json.loads(first.stdout)
    assert values["seeds"] == list(range(20))
    assert len(values["outcomes"]) == 4
    assert sorted(values["files"]) == [f"a/{name}" for name in FILES]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    again = in_a_process(
        "textbook", "--settings", "a/run.json", "--out", "b", "--quiet", cwd=tmp_path, env=one_thread
    )
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_real_spectra(tmp_path):
    done = here(
        *("textbook", "--data", TECATOR, "--target", "fat", "--drop", "water,protein", "--n-train", 40),
        *QUICK,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "least exact leave-one-out error" in done.stdout
    again = in_a_process("textbook", "--settings", "runs/textbook/run.json", "--out", "b", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    for name in FILES:
        assert (tmp_path / "runs/textbook" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    worse = here(
        *("textbook", "--data", TECATOR, "--target", "fat", "--drop", "water,protein", "--n-train", 40),
        *("--lambda", "0,3", "--curve", "none", "--force"),
        cwd=tmp_path,
    )
    assert "WORSE" in worse.stdout
    assert re.search(r"scratch +│ 3 .* worse │", worse.stdout)
    assert not (tmp_path / "runs/textbook/lambda.svg").exists()


BAD = [
    ("--n-train 0", ["--n-train = 0"]),
    ("--batch-size 50", ["--batch-size = 50", "--n-train = 20"]),
    ("--lambda -1", ["--lambda = -1"]),
    ("--lambda nan", ["--lambda = nan"]),
    ("--lambda three", ["--lambda = 'three'", "0,3"]),
    ("--lambda 400", ["--lambda = 400", "lr·λ"]),
    ("--lr 0.2", ["--lr = 0.2", "use less than"]),
    ("--lr 0.05 --version scratch", ["diverged", "--lr = 0.05", "largest that completes"]),
    ("--lr fast", ["--lr", "'fast'"]),
    ("--epochs 1.5", ["--epochs", "'1.5'"]),
    ("--version keras", ["--version = 'keras'", "two-optimizers"]),
    ("--init one", ["--init = 'one'"]),
    ("--curve 1:2", ["--curve = '1:2'"]),
    ("--no-such-option", ["--no-such-option"]),
    ("--target fat", ["--target = fat", "--data"]),
    ("--data DATA", ["--target"]),
    ("--data DATA --target fat --noise 1", ["--noise = 1"]),
    ("--data DATA --target flat", ["'flat'"]),
    ("--data none.csv --target fat", ["none.csv"]),
    ("--data DATA --target fat --n-train 500", ["--n-train = 500", "215 rows"]),
    ("--settings none.json", ["none.json"]),
    ("--settings file", ["file", "not JSON"]),
    ("--data my_table.csv --target a_b", ["my_table.csv"]),
    ("--data DATA --target c_d", ["'c_d'"]),
    ("--settings settings.json", ["lr = '0.1'"]),
    ("--settings none.json --lr 0.1", ["--settings", "leave out --lr\n"]),
    ("--settings settings.json --bias-lr 0.1", ["leave out --bias-lr\n"]),
    ("--settings settings.json --lambda 3", ["leave out --lambda\n"]),
    ("--n-inputs 100000000000", ["too large", "GB"]),
    ("--out file", ["file", "--out"]),
    (f"--out {'x' * 300}", ["cannot be written"]),
    ("--out file/below", ["file/below", "--out"]),
]


def test_bad_input_is_one_line_and_exit_code_2(tmp_path):
    (tmp_path / "file").write_text("")
    settings = {"data": {"kind": "Synthetic"}, "lr": "0.1"}
    (tmp_path / "settings.json").write_text(json.dumps({"settings": settings}))
    for arguments, parts in BAD:
        # A wrong type is for the program to refuse, not for the tests' own checks of types.
        command = in_a_process if arguments == "--settings settings.json" else here
        done = command("textbook", *arguments.replace("DATA", TECATOR).split(), cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert done.stdout == "", arguments
        assert len(done.stderr.splitlines()) == 1, (arguments, done.stderr)
        assert done.stderr.startswith("error: "), arguments
        for part in parts:
            assert part in done.stderr, arguments
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "settings.json"]


def test_a_nan_cell_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,3\n4,,6\n7,8,9\n")
    done = here("textbook", "--data", "t.csv", "--target", "y", cwd=tmp_path)
    assert done.returncode == 2
    assert "row 2, column 'b'" in done.stderr


@pytest.mark.usefixtures("undrawn")
def test_a_table_that_changed_since_is_not_the_same_run(tmp_path):
    rows = "".join(f"{i % 7},{i % 5},{i}\n" for i in range(30))
    (tmp_path / "t.csv").write_text("a,b,y\n" + rows)
    arguments = ("--target", "y", "--n-train", 12, "--version", "scratch", *QUICK, "--out", "a")
    assert here("textbook", "--data", "t.csv", *arguments, cwd=tmp_path).returncode == 0
    again = ("textbook", "--settings", "a/run.json", "--out", "b", "--quiet")
    assert here(*again, cwd=tmp_path).returncode == 0
    (tmp_path / "t.csv").write_text("a,b,y\n1,1,1\n" + rows)
    for part in ("has changed since", "cannot be read"):
        done = here(*again, cwd=tmp_path)
        assert done.returncode == 2
        assert part in done.stderr
        (tmp_path / "t.csv").unlink(missing_ok=True)


def test_ctrl_c_keeps_what_was_computed(tmp_path):
    """Interrupted while it trains: exit code 130, whole files, no traceback."""
    process = subprocess.Popen(
        [*COMMAND, "textbook", "--epochs", "3000", "--every", "1", "--curve", "none"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("scratch, λ = 0")  # one training is done, the next has begun
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "error: interrupted\n"
    assert "interrupted: only what was computed until then is here" in out
    folder = tmp_path / "runs/textbook"
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.png",
        "curves.svg",
        "results.parquet",
        "run.json",
    ]
    assert 3000 <= pl.read_parquet(folder / "results.parquet").height < 12000
    assert json.loads((folder / "run.json").read_text())["complete"] is False


@pytest.mark.parametrize("delay", [0.1, 0.3, 0.5, 0.8])
def test_ctrl_c_while_libraries_load(tmp_path, delay):
    process = subprocess.Popen(
        [*COMMAND, "textbook"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "error: interrupted\n"


def test_an_output_without_greek(tmp_path):
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = in_a_process("textbook", *SHORTEST, cwd=tmp_path, env=plain)
    assert done.returncode == 0, done.stderr
    assert "\\u03bb = 3" in done.stdout
    done = here("textbook", *QUICK, "--json", "--out", "b", cwd=tmp_path, encoding="ascii")
    assert "λ" in " ".join(json.loads(done.stdout)["notes"])
    assert here("textbook", *QUICK, "--out", "c", cwd=tmp_path, encoding="ascii").returncode == 0


def test_an_output_that_cannot_be_written(tmp_path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "textbook", *SHORTEST], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the output cannot be written")
    assert len(done.stderr.splitlines()) == 1


def test_a_terminal_shows_growing_curves(tmp_path):
    code, _, text = at_a_terminal("textbook", *QUICK, cwd=tmp_path, columns=100, output_too=True)
    assert code == 0
    assert "\x1b[" in text
    assert any("\u2801" <= character <= "\u28ff" for character in text)
    assert "trainings at once" in text
    assert "scratch, λ = 3" in text


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    process = subprocess.run(
        f"{COMMAND[0]} textbook {' '.join(QUICK)} | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.stderr == ""
    assert process.returncode == 141


def test_version_and_help(tmp_path):
    import weightdecay as wd

    assert in_a_process("--version", cwd=tmp_path).stdout == f"weightdecay {wd.__version__}\n"
    for arguments in (["--help"], ["textbook", "--help"], []):
        assert "textbook" in here(*arguments, cwd=tmp_path).stdout
