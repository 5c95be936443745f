"""`weightdecay sweep` as a person runs it: pipes, a real terminal."""

import json
import re

import polars as pl
import pytest
from tests.commands import at_a_terminal, here, in_a_process

from weightdecay.saving import load

FILES = [
    *(
        "curves.parquet",
        "report.html",
        "sweep.json",
        "sweep.png",
        "sweep.sqlite",
        "sweep.svg",
        "table.parquet",
    ),
    "weights.safetensors",
]
TINY = """
from functools import partial
import torch
from torch import nn

print("the file prints this")
epochs, batch_size = 3, 8
loss = nn.functional.mse_loss
optimizer = partial(torch.optim.SGD, lr=0.1)

def make_model():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

def data():
    X = torch.randn(40, 3)
    y = X[:, :1] + 0.5 * torch.randn(40, 1)
    return (X[:16], y[:16]), (X[16:], y[16:])

metrics = {"agreement": lambda output, target: ((output > 0) == (target > 0)).float().mean()}
"""
SWEEP = ("sweep", "tiny.py", "--strengths", "0.01:1:3", "--seeds", "2", "--widen", "0", "--out", "a")
NO_SEEDS = SWEEP[:4] + SWEEP[6:]  # an option is given once


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.py").write_text(TINY)
    return tmp_path


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    (folder / "tiny.py").write_text(TINY)
    return folder, in_a_process(*SWEEP, cwd=folder)


def test_the_answer_is_a_table_and_five_lines(swept):
    folder, done = swept
    assert done.returncode == 0, done.stderr
    assert names(folder / "a") == FILES
    assert "\x1b" not in done.stdout + done.stderr
    assert "the file prints this" in done.stderr
    lines = done.stdout.splitlines()
    sweep = load(folder / "a")
    assert lines[0] == "Decoupled, test loss: mean ± standard error over 2 seeds"
    assert [line.split()[0] for line in lines[1:6]] == ["λ", "no", "0.01", "0.1", "1"]
    assert lines[6:10] == list(sweep.lines)
    assert lines[10] == f"written into a: {', '.join(FILES)}"
    assert len(lines) == 11
    assert [line for line in done.stderr.splitlines() if line.startswith("note: ")] == [
        f"note: {doubt}" for doubt in sweep.doubts
    ]
    assert pl.read_parquet(folder / "a/table.parquet").height == 4 * 2
    assert (folder / "a/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert sweep.settings["script"]


def test_resumed_it_says_the_same_and_a_changed_file_is_refused(swept):
    folder, done = swept
    more = [["--resume"], [], ["--resume", "--epochs", "4"]]
    again, new, other = (here(*SWEEP, *words, cwd=folder) for words in more)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    refused(new, ["--out = a/sweep.sqlite", "--resume"])
    refused(other, ["other settings", "epochs"])
    (folder / "tiny.py").write_text(TINY + "# changed\n")
    refused(here(*SWEEP, "--resume", cwd=folder), ["other settings", "script"])


def test_json_is_an_object_a_line(tiny):
    options = ("--unit", "half-lives", "--lr", "0.05,0.1", "--seeds", "3,5", "--refine", "1", "--maximize")
    done = here(*NO_SEEDS, *options, "agreement", "--json", cwd=tiny)
    assert done.returncode == 0, done.stderr
    *progress, result = [json.loads(line) for line in done.stdout.splitlines()]
    assert progress
    assert {one["event"] for one in progress} == {"progress"}
    assert [one["done"] for one in progress] == sorted(one["done"] for one in progress)
    assert progress[-1]["done"] == progress[-1]["total"]
    assert (result["event"], result["unit"], result["seeds"]) == ("result", "half_lives_per_run", [3, 5])
    assert result["goal"] == {"name": "agreement", "maximize": True}
    assert sorted(result["files"]) == [f"a/{name}" for name in FILES]
    table = pl.read_parquet(tiny / "a/table.parquet")
    assert table.select("lr").unique().height == 2
    assert table.select("strength").unique().height >= 4 + 1
    quiet = here(*SWEEP[:-1], "b", "--quiet", cwd=tiny)
    assert (quiet.returncode, quiet.stdout) == (0, "")
    assert "note: " not in quiet.stderr


@pytest.mark.usefixtures("undrawn")
def test_rules_are_a_second_axis_and_the_command_overrides_the_file(tiny):
    options = ("--rule", "decoupled, L2", "--seeds", 1, "--epochs", 2, "--batch-size", 16)
    done = here(*NO_SEEDS, *options, cwd=tiny)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the best strength of each setting\n")
    assert "note: one seed only: there are no error bars" in done.stderr
    sweep = load(tiny / "a")
    assert [one.rule for one in sweep.selections] == ["Decoupled", "L2"]
    assert sweep.curves()["epoch"].max() == 2
    assert sweep.settings["batch_size"] == 16


BAD = [
    ("none.py --strengths 1", ["the file cannot be read", "none.py"]),
    ("tiny.py", ["--strengths"]),
    ("tiny.py --strengths 1,1", ["--strengths = 1", "twice"]),
    ("tiny.py --strengths 0", ["no decay alone", "--strengths"]),
    ("tiny.py --strengths -1", ["--strengths = -1"]),
    ("tiny.py --strengths many", ["--strengths = 'many'"]),
    ("tiny.py --strengths 1:2", ["--strengths = '1:2'"]),
    ("tiny.py --strengths 1 --unit years", ["--unit = 'years'", "half-lives"]),
    ("tiny.py --strengths 1 --unit half-life-tokens", ["--unit", "half-life-epochs, half-life-samples"]),
    ("tiny.py --strengths 1 --seeds few", ["--seeds = 'few'"]),
    ("tiny.py --strengths 1 --seeds 0", ["--seeds = 0"]),
    ("tiny.py --strengths 1 --seeds 1,1", ["--seeds", "different"]),
    ("tiny.py --strengths 1 --epochs 0", ["--epochs = 0"]),
    ("tiny.py --strengths 1 --batch-size 17", ["--batch-size = 17"]),
    ("tiny.py --strengths 1 --rule lasso", ["--rule = 'lasso'", "decoupled"]),
    ("tiny.py --strengths 1 --lr 0", ["--lr"]),
    ("tiny.py --strengths 1 --lr 1e-3:1", ["--lr = '1e-3:1'"]),
    ("tiny.py --strengths 1 --maximize beauty", ["--maximize = 'beauty'", "agreement"]),
    ("tiny.py --strengths 1 --minimize loss --maximize agreement", ["--maximize", "--minimize"]),
    ("tiny.py --strengths 1 --widen -1", ["--widen = -1"]),
    ("tiny.py --strengths 1 --device abacus", ["--device = abacus"]),
    ("tiny.py --strengths 1 --engine carts", ["--engine = 'carts'"]),
    ("tiny.py --strengths 20", ["20"]),  # lr·λ = 2
    ("tiny.py --strengths 1 --out tiny.py", ["tiny.py", "--out"]),
    ("tiny.py --strengths 1 --resume --out tiny.py/a", ["tiny.py/a", "--out"]),
    (f"tiny.py --strengths 1 --out {'a' * 300}", ["too long", "--out"]),
    ("lacking.py --strengths 1", ["lacks data and optimizer"]),
    ("tiny.py --strengths 1 --no-such-option", ["--no-such-option"]),
]


def refused(done, parts, case=""):
    assert done.returncode == 2, (case, done.stdout, done.stderr)
    assert done.stdout == "", case
    lines = [line for line in done.stderr.splitlines() if line != "the file prints this"]
    assert len(lines) == 1, (case, done.stderr)
    assert lines[0].startswith("error: "), (case, done.stderr)
    for part in parts:
        assert part in lines[0], (case, done.stderr)


def test_bad_input_is_one_line_and_nothing_is_written(tiny):
    (tiny / "lacking.py").write_text("make_model = loss = print\n")
    before = names(tiny)
    for arguments, parts in BAD:
        refused(here("sweep", *arguments.split(), cwd=tiny), parts, arguments)
    assert [name for name in names(tiny) if name != "__pycache__"] == before


def test_a_file_that_fails_shows_its_own_lines(tiny):
    (tiny / "broken.py").write_text("import torch\n\nx = torch.nn.Linear(3)\n")
    done = in_a_process("sweep", "broken.py", "--strengths", 1, cwd=tiny)
    assert (done.returncode, done.stdout) == (2, "")
    *frames, last = done.stderr.splitlines()
    assert last.startswith("error: the file cannot be imported: broken.py = TypeError: ")
    assert last.endswith("see line 3")
    assert frames[0] == "Traceback, frames of this file alone:"
    assert sum(line.startswith("  File ") for line in frames) == 1


def test_a_terminal_shows_a_bar(tiny):
    (tiny / "tiny.py").write_text(TINY.replace("epochs, batch_size = 3, 8", "epochs, batch_size = 60, 8"))
    code, out, shown = at_a_terminal(*SWEEP, "--curves", cwd=tiny, columns=140)
    assert code == 0
    assert out.splitlines()[-1].startswith("written into a: ")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "8 of 8 trainings" in plain
    assert "left" in plain
    assert "best so far" in plain
    assert re.search(r"λ = \S+, seed \d", plain)
