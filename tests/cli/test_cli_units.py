"""transfer, convert and half-life as a person runs them."""

import json
import math
import subprocess
import sys

import pytest
from tests.commands import here, in_a_process
from typer.testing import CliRunner

import weightdecay as wd
from weightdecay.cli import app
from weightdecay.schedule.lifetimes import lifetime

OLD, NEW = "batch=256,lr=3e-4,steps=10000", "batch=1024,lr=6e-4,steps=5000,schedule=cosine"


def weightdecay(*arguments):
    return in_a_process(*arguments, cwd=".")


def printed(*arguments):
    """In this process, for speed; options and parsing are the real ones."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], standalone_mode=False)
    assert result.exception is None, result.exception
    return result.stdout


def test_convert_as_in_the_readme():
    done = weightdecay("convert", 3, "--from", "textbook", "--to", "sklearn.Ridge", "--n", 20)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "60"
    assert done.stdout.splitlines()[1].startswith("note: textbook: the penalty must be broadcast")


def test_convert_into_json():
    found = json.loads(
        printed("convert", "0.5,1", "--from", "textbook", "--to", "torch.SGD+MSELoss", "--json")
    )
    assert found["value"] == [1.0, 2.0]
    assert (found["from"], found["to"], found["context"]) == ("textbook", "torch.SGD+MSELoss", {})
    assert "lr acts as 2·lr" in found["notes"][1]
    arguments = ("--from", "glmnet.standardize", "--to", "canonical", "--sd-y", 2, "--sd-x", "1,3", "--json")
    found = json.loads(printed("convert", 0.5, *arguments))
    assert found["value"] == [0.25, 2.25]
    assert found["context"] == {"sd_y": 2.0, "sd_x": [1.0, 3.0]}


@pytest.mark.parametrize(
    ("target", "option", "value", "expected"),
    [
        ("sklearn.LogisticRegression", "--n", 20, 1 / 60),
        ("textbook.added_once", "--batch-size", 5, 15),
        ("torch.SGD+accumulated", "--micro-batches", 4, 12),
        ("sgdw", "--momentum", 0.5, 6),
        ("glmnet", "--sd-y", 2, 6),
    ],
)
def test_convert_passes_on_what_it_is_told(target, option, value, expected):
    found = printed("convert", 3, "--from", "textbook", "--to", target, option, value)
    assert float(found.splitlines()[0]) == pytest.approx(expected, rel=1e-11)


def test_convert_passes_on_several_numbers():
    arguments = ("--from", "textbook", "--to", "sgdw", "--momentum", 0.5, "--dampening", 0.5)
    assert printed("convert", 3, *arguments).splitlines()[0] == "3"
    arguments = ("--from", "textbook", "--to", "gaussian_prior", "--n", 3, "--noise-sd", 3)
    assert printed("convert", 3, *arguments).splitlines()[0] == "1"
    arguments = ("--from", "torch.AdamW", "--to", "independent", "--lr-max", 1e-3)
    assert printed("convert", 0.1, *arguments).splitlines()[0] == "0.0001"


def test_convert_lists():
    table = printed("convert", "--list")
    for row in wd.conventions():
        assert row.name in table
    rows = json.loads(printed("convert", "--list", "--json"))["conventions"]
    assert [row["name"] for row in rows] == [row.name for row in wd.conventions()]
    assert rows[-1]["family"] == "adam-l2"


def test_half_life_as_in_the_issue():
    done = weightdecay(
        *("half-life", "--lr", "3e-4", "--weight-decay", ".1", "--schedule", "cosine", "--steps", 10000),
        *("--dtype", "bfloat16"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[1] == "half-life     23104.6 steps at the peak step size"
    assert lines[3] == "of the run    2.31 times its 10,000 steps is that half-life"
    assert lines[6] == "left of start 0.8607"
    assert lines[7].startswith("mean age      6938.43 steps")
    assert lines[8].startswith("warning: the decay is lost in bfloat16: the rate 3e-05 a step")
    assert lines[9].startswith("warning: the timescale 1/rate, 3.333e+04 steps, is longer than the run")
    assert len(lines) == 10


def test_half_life_the_other_way_and_json():
    found = json.loads(printed("half-life", "--lr", 3e-4, "--half-life", 500, "--json"))
    assert found == json.loads(json.dumps(vars(lifetime(half_life_steps=500, lr=3e-4))))
    assert "weight_decay  4.61778\n" in printed("half-life", "--lr", 3e-4, "--half-life", 500)
    options = ("--half-lives", 5, "--schedule", "wsd", "--steps", 1000, "--warmup", 0.1, "--decay", 0.3)
    found = json.loads(printed("half-life", "--lr", 1e-3, *options, "--floor", 0.1, "--json"))
    assert found["half_lives"] == pytest.approx(5)
    assert found["retention"] == pytest.approx(2**-5)
    expected = lifetime(half_lives=5, lr=1e-3, schedule="wsd", steps=1000, warmup=0.1, decay=0.3, floor=0.1)
    assert found["weight_decay"] == expected.weight_decay
    assert json.loads(printed("half-life", "--lr", 1e-3, "--weight-decay", 0, "--json"))["half_life"] is None


def test_half_life_of_coupled_decay():
    options = ("--lr", 0.1, "--weight-decay", 5e-4, "--coupled", "--momentum", 0.9)
    assert "half-life     1379.68 steps" in printed("half-life", *options)
    found = json.loads(printed("half-life", *options, "--nesterov", "--steps", 100, "--json"))
    expected = lifetime(5e-4, lr=0.1, coupled=True, momentum=0.9, nesterov=True, steps=100)
    assert found["rate"] == expected.rate
    found = json.loads(printed("half-life", *options, "--dampening", 0.5, "--json"))
    assert found["rate"] == lifetime(5e-4, lr=0.1, coupled=True, momentum=0.9, dampening=0.5).rate
    assert "shorter than an epoch of 5000" in printed("half-life", *options, "--steps-per-epoch", 5000)
    assert "mean age" not in printed("half-life", *options, "--steps", 100)
    found = json.loads(
        printed("half-life", "--lr", 0.1, "--weight-decay", 0.01, "--law", "constant", "--json")
    )
    assert found["rate"] == 0.01


def test_transfer_as_in_the_issue():
    done = weightdecay("transfer", 0.1, "--old", OLD, "--new", NEW, "--keep", "run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "weight_decay  0.199954"
    assert lines[1] == "half-lives    0.4328 in the old run, 0.4328 in the new"
    assert lines[2] == "left of start 0.7408 after the old run, 0.7408 after the new"
    assert lines[3].startswith("note: kept: half-lives per run")
    assert len(lines) == 4  # no warning: the answer does what the old strength did
    short = weightdecay(
        "transfer", 1, "--old", OLD, "--new", "batch=256,lr=3e-4,steps=100", "--keep", "epoch"
    )
    assert short.stdout.splitlines()[-1].startswith("warning: the decay does next to nothing")


def test_transfer_options_and_json():
    old = wd.Setup(256, 3e-4, 10_000, examples=1000, width=64)
    new = wd.Setup(512, 1e-4, 100, "wsd", examples=2000, width=128, warmup=0.1, floor=0.2, decay=0.3)
    expected = wd.transfer(0.1, old, new, keep="epoch", law="lr_squared", width_rule="sqrt")
    found = json.loads(
        printed(
            *("transfer", 0.1, "--old", f"{OLD},examples=1000,width=64"),
            *(
                "--new",
                "batch=512,lr=1e-4,steps=100,schedule=wsd,examples=2000,width=128,warmup=.1,floor=.2,decay=.3",
            ),
            *("--keep", "epoch", "--law", "lr_squared", "--width-rule", "sqrt", "--json"),
        )
    )
    assert found == json.loads(json.dumps(vars(expected)))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("convert 3 --from textbok --to sklearn.Ridge", ["--from = 'textbok'", "use textbook"]),
        ("convert 3 --from textbook --to Ridge", ["--to = 'Ridge'", "use sklearn.Ridge"]),
        (
            "convert 3 --from textbook --to sklearn.Ridge",
            ["n, the number of training examples", "--n = nothing"],
        ),
        ("convert 3 --from textbook --to sklearn.Ridge --n 0", ["--n = 0"]),
        ("convert 3 --from textbook --to sklearn.Ridge --n x", ["--n", "'x'"]),
        ("convert 3 --from textbook --to keras.l2 --n 3", ["not used", "--n = 3"]),
        ("convert x --from textbook --to keras.l2", ["VALUE = 'x'"]),
        ("convert nan --from textbook --to keras.l2", ["VALUE = nan"]),
        ("convert 3 --from torch.AdamW --to sklearn.Ridge", ["does not exist", "1/wd", "half-lives"]),
        ("convert 3 --from torch.Adam --to torch.AdamW", ["does not exist", "no decay rate"]),
        ("convert", ["VALUE = nothing", "--list"]),
        ("convert 3", ["--from = nothing"]),
        ("convert 3 --from textbook", ["--to = nothing"]),
        ("convert 3 --from glmnet.standardize --to textbook --sd-y 1 --sd-x 1,x", ["--sd-x = 'x'"]),
        ("half-life", ["--lr"]),
        ("half-life --lr .1", ["exactly one of"]),
        ("half-life --lr .1 --weight-decay 1 --half-life 3", ["2 ways"]),
        ("half-life --lr 0 --weight-decay 1", ["--lr = 0"]),
        ("half-life --lr nan --weight-decay 1", ["--lr = nan"]),
        ("half-life --lr .1 --weight-decay -1", ["--weight-decay = -1"]),
        ("half-life --lr .1 --weight-decay 10", ["--weight-decay = 10 at lr = 0.1", "less than 10"]),
        ("half-life --lr .1 --half-life 0", ["--half-life = 0"]),
        ("half-life --lr .1 --half-lives 3", ["--steps"]),
        ("half-life --lr .1 --half-lives 300 --steps 3", ["half-lives per run = 300"]),
        ("half-life --lr .1 --weight-decay 1 --schedule cosine", ["--steps"]),
        ("half-life --lr .1 --weight-decay 1 --schedule cos --steps 9", ["--schedule = 'cos'", "cosine"]),
        ("half-life --lr .1 --weight-decay 1 --steps 0", ["--steps = 0"]),
        ("half-life --lr .1 --weight-decay 1 --steps 1e3", ["--steps", "'1e3'"]),
        ("half-life --lr .1 --weight-decay 1 --steps 1000000000000", ["--steps = 1000000000000", "or less"]),
        ("half-life --lr .1 --weight-decay 1 --dtype int8", ["--dtype = int8", "bfloat16"]),
        ("half-life --lr .1 --weight-decay 1 --law fast", ["--law = 'fast'"]),
        ("half-life --lr .1 --weight-decay 1 --momentum .9", ["--momentum = 0.9", "coupled"]),
        ("half-life --lr .1 --weight-decay 1 --warmup 2 --steps 9", ["--warmup = 2"]),
        ("transfer", ["WEIGHT_DECAY"]),
        ("transfer x --old OLD --new NEW", ["WEIGHT_DECAY = 'x'"]),
        ("transfer nan --old OLD --new NEW", ["WEIGHT_DECAY = nan"]),
        ("transfer 5000 --old OLD --new NEW", ["WEIGHT_DECAY = 5000 at lr = 0.0003"]),
        ("transfer .1 --old OLD", ["--new"]),
        ("transfer .1 --old OLD --new batch=2,lr=1e-3", ["--new steps = nothing", "add steps="]),
        ("transfer .1 --old batch=0,lr=1,steps=1 --new NEW", ["--old batch = 0"]),
        ("transfer .1 --old batch=x,lr=1,steps=1 --new NEW", ["--old batch = 'x'"]),
        ("transfer .1 --old batch=1,lr=1,steps=1.5 --new NEW", ["--old steps = 1.5"]),
        ("transfer .1 --old batch=1,lr=1,steps=1,lr=2 --new NEW", ["--old = 'lr=2'"]),
        ("transfer .1 --old OLD,size=3 --new NEW", ["--old = 'size=3'", "examples="]),
        ("transfer .1 --old OLD --new OLD,schedule=cos", ["--new schedule = 'cos'"]),
        ("transfer .1 --old OLD --new OLD,warmup=3", ["--new warmup = 3"]),
        ("transfer .1 --old OLD --new NEW --keep both", ["--keep = 'both'", "run, epoch"]),
        ("transfer .1 --old OLD --new NEW --width-rule sqrt", ["--width-rule = sqrt", "both"]),
        ("transfer .1 --old OLD --new NEW --width-rule x", ["--width-rule = 'x'"]),
        ("transfer 3000 --old OLD --new batch=1,lr=1,steps=1", ["more half-lives than 1 steps"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, parts):
    done = here(*arguments.replace("OLD", OLD).replace("NEW", NEW).split(), cwd=".")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize("command", ["transfer", "convert", "half-life"])
def test_help_has_an_example_that_runs(command):
    usage, _, text = printed(command, "--help").partition("\n")
    assert usage.startswith("Usage: ")
    assert "None" not in text
    example = text[text.index(f"weightdecay {command} ") :].split("\n\n")[0]
    assert weightdecay(*example.split()[1:]).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["transfer", "0.1", "--old", OLD, "--new", NEW],
        ["convert", "3", "--from", "textbook", "--to", "keras.l2"],
        ["half-life", "--lr", "1e-3", "--weight-decay", "1", "--steps", "10"],
        ["half-life", "--help"],
    ],
)
def test_torch_is_not_imported(arguments):
    code = (
        f"import sys; sys.argv = ['weightdecay', *{arguments!r}]\nfrom weightdecay import cli\n"
        "try: cli.main()\nexcept SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'polars', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_schedule_by_epochs():
    """9 epochs of 4 steps, cosine once an epoch: the product over the epochs, each rate four times."""
    options = ("--lr", 0.1, "--weight-decay", 0.5, "--schedule", "cosine", "--steps", 36)
    by_epoch = ("--interval", "epoch", "--steps-per-epoch", 4)
    left = math.prod((1 - 0.05 * (1 + math.cos(math.pi * e / 9)) / 2) ** 4 for e in range(9))
    for every in (by_epoch, ("--interval", 4)):
        found = json.loads(printed("half-life", *options, *every, "--json"))
        assert found["retention"] == pytest.approx(left, rel=1e-12)
    old = "batch=10,lr=0.1,steps=36,schedule=cosine,interval=epoch,examples=39"
    found = json.loads(printed("transfer", 0.5, "--old", old, "--new", "batch=10,lr=0.1,steps=50", "--json"))
    assert found["retention_old"] == pytest.approx(left, rel=1e-12)
    assert found["retention_new"] == pytest.approx(left, rel=1e-12)
    for wrong, said in (
        (("--interval", "epoch"), "steps_per_epoch"),
        (("--interval", "epochs"), "no such interval: --interval"),
        (("--interval", "0.5"), "--interval = 0.5"),
    ):
        done = here("half-life", *options, *wrong, cwd=".")
        assert done.returncode == 2
        assert said in done.stderr.replace("--steps-per-epoch", "steps_per_epoch")
    done = here("transfer", 0.5, "--old", old.replace(",examples=39", ""), "--new", NEW, cwd=".")
    assert done.returncode == 2
    assert "--old examples" in done.stderr
