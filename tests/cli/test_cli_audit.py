"""`weightdecay audit` as a person runs it: real processes, files, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from weightdecay.auditing.checks import CODES
from weightdecay.saving import load

COMMAND = [str(Path(sys.executable).parent / "weightdecay")]
ROOT = Path(__file__).parents[2]
BUILDERS = """
import torch
from torch import nn, optim

import weightdecay as wd

print("the builder's file prints this")


def build():
    print("and the builder this")
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    return model, optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3)


def one_group():
    model, _ = build()
    return {"model": model, "optimizer": optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)}


def with_schedule():
    model, optimizer = build()
    return model, [optimizer], optim.lr_scheduler.CosineAnnealingLR(optimizer, 50_000)


def settings():
    model, optimizer = build()
    return {"model": model, "optimizers": [optimizer], "steps": 100, "ignore": {"WD403": "a test"}}


def wrong():
    model, _ = build()
    return model, optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)


def fails():
    return helper()


def helper():
    raise RuntimeError("out of\\ncheese")


def leaves():
    raise SystemExit(3)


def needs_gpu():
    return nn.Linear(2, 2).to("cuda:77"), None


def only_model():
    return nn.Linear(2, 2)


def four():
    return 1, 2, 3, 4


def no_model():
    return {"optimizer": 3}


def unknown():
    return {"model": nn.Linear(2, 2), "optimiser": 3}


def no_optimizer():
    return nn.Linear(2, 2), "adamw"


def not_a_model():
    return 3, 4


def third():
    return (*build(), 3)


def with_arguments(name):
    return build()


value = 3
"""


def weightdecay(*arguments, cwd, code=None):
    done = subprocess.run(
        [*COMMAND, "audit", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert code is None or done.returncode == code, (done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("audits")
    (path / "train.py").write_text(BUILDERS)
    (path / "broken.py").write_text("import torch\n\nthis is not Python\n")
    (path / "raising.py").write_text("import no_such_package\n")
    (path / "package").mkdir()
    (path / "package/train.py").write_text(BUILDERS)
    return path


def inside(folder, *arguments):
    """The command in this process: exit code, and the error if it is bad input."""
    import typer.testing

    from weightdecay.cli import app

    return typer.testing.CliRunner().invoke(app, ["audit", *map(str, arguments)])


GOOD = "weight decay: 1 of 4 parameters decay, 57.1% of 28 elements; no findings"


def test_a_good_builder_and_what_its_code_prints(folder):
    done = weightdecay("package.train:build", cwd=folder, code=0)
    assert done.stdout.startswith(GOOD)
    assert "the builder" not in done.stdout
    assert "and the builder this" in done.stderr


def test_json_is_the_saved_plan(folder):
    done = weightdecay("train.py:one_group", "--format", "json", "--save", "plan.json", cwd=folder, code=0)
    assert json.loads(done.stdout) == json.loads((folder / "plan.json").read_text())
    assert {one.code for one in load(folder / "plan.json").findings} == {"WD101", "WD102"}


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("target", ["train.py:build", "package/train.py"])
def test_a_file_will_do_and_the_function_is_build(here, target):
    done = inside(here, target)
    assert done.exit_code == 0
    assert done.stdout.startswith(GOOD)


def test_github_s_annotations(here):
    done = inside(here, "train.py:wrong", "--format", "github")
    assert done.exit_code == 1
    lines = [line for line in done.output.splitlines() if line.startswith("::")]
    assert lines[0].startswith("::error file=train.py,title=WD201::4 parameters require a gradient")
    assert "(0.weight, 0.bias, 1.weight, 1.bias); give them to an optimizer" in lines[0]
    assert lines[1].startswith("::error file=train.py,title=WD203::")
    done = inside(here, "train.py:one_group", "--format", "github")
    assert done.exit_code == 0
    assert "::warning file=train.py,title=WD101::" in done.output


def test_options_come_before_the_builder_s_own(here):
    assert "ignored WD403: a test" in inside(here, "train.py:settings").output
    assert "no findings" in inside(here, "train.py:settings", "--steps", "30000").output
    assert "WD404" in inside(here, "train.py:settings", "--steps-per-epoch", "1e6").output
    done = inside(here, "train.py:settings", "--steps-per-epoch", "1e6", "--ignore", "WD404")
    assert "ignored WD404: on the command line" in done.output
    assert "ignored WD403: a test" in done.output
    both = inside(here, "train.py:one_group", "--ignore", "WD102:*", "--ignore", "WD101")
    assert "no findings" in both.output
    assert "no findings" in inside(here, "train.py:one_group", "--groups", "all").output
    assert "no findings" in inside(here, "train.py:one_group", "--groups", "none").output
    with_schedule = inside(here, "train.py:with_schedule", "--steps", "50000")
    assert "no findings" in with_schedule.output
    assert "WD403" in inside(here, "train.py:build", "--schedule", "linear", "--steps", "100").output


def test_a_plan_that_changed_is_an_error(here):
    assert inside(here, "train.py:build", "--save", "good.json").exit_code == 0
    same = inside(here, "package.train:build", "--against", "good.json")
    assert same.exit_code == 0
    assert "the plan is the same" in same.output
    changed = inside(here, "train.py:one_group", "--against", "good.json", "--format", "github")
    assert changed.exit_code == 1
    assert "title=WD601::3 parameters differ in weight_decay" in changed.output
    as_json = inside(here, "train.py:one_group", "--against", "good.json", "--format", "json")
    assert json.loads(as_json.stdout)["against"]["findings"][0]["code"] == "WD601"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("train.py:none", "no function none"),
        ("train.py:value", "no function value"),
        ("nowhere.py:build", "the file cannot be read"),
        ("nowhere.train:build", "no such module"),
        ("package.nowhere:build", "no such module"),
        ("not a module:build", "not a module's name"),
        (":build", "not a builder"),
        ("broken.py:build", "the file cannot be imported"),
        ("raising.py:build", "No module named 'no_such_package'"),
        ("raising:build", "the module cannot be imported"),
        ("train.py:fails", "the builder fails: train.py:fails = RuntimeError: out of cheese"),
        ("train.py:leaves", "SystemExit: 3"),
        ("train.py:with_arguments", "missing 1 required positional argument"),
        ("train.py:needs_gpu", "it asks for a GPU: let the builder use"),
        ("train.py:only_model", "the builder returns the wrong things: train.py:only_model = Linear"),
        ("train.py:four", "4 things"),
        ("train.py:no_model", "lacks model or optimizer"),
        ("train.py:unknown", "unknown name: train.py:unknown = 'optimiser'"),
        ("train.py:no_optimizer", "not an optimizer of torch's kind"),
        ("train.py:not_a_model", "the first thing a builder returns is its model"),
        ("train.py:third", "the third thing a builder returns is its scheduler"),
    ],
)
def test_a_builder_that_cannot_be_used_is_told_in_one_line(here, target, said):
    error = inside(here, target).exception
    assert said in str(error)
    assert "\n" not in str(error)


def test_what_fails_is_shown_by_its_own_frames_alone(folder):
    done = weightdecay("train.py:fails", cwd=folder, code=2)
    assert done.stdout == ""
    assert "in helper" in done.stderr
    assert "in fails" in done.stderr
    assert "weightdecay/" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the builder fails: train.py:fails = RuntimeError")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "xml"), "error: no such format: --format = 'xml'; use table, json, github"),
        (("--ignore", "WD1"), "error: no such code: --ignore = 'WD1'"),
        (("--steps", "0"), "--steps = 0"),
        (("--against", "none.json"), "none.json"),
        (("--groups", "matrixes"), "no such preset"),
        (("--schedule", "sine", "--steps", "10"), "error: no such schedule: --schedule = 'sine'"),
        (("--save", "no/such/folder/plan.json"), "cannot be written"),
    ],
)
def test_bad_options(here, options, said):
    from weightdecay.cli import _in_options

    error = inside(here, "train.py:build", *options).exception
    assert said in f"error: {_in_options(error)}"  # pyright: ignore[reportArgumentType]


def test_the_example_has_a_mistake_of_each_kind(monkeypatch):
    monkeypatch.chdir(ROOT)
    found: set[str] = set()
    for builder in ("build", "build_flat"):
        done = inside(ROOT, f"examples/audit_me.py:{builder}", "--format", "json")
        assert done.exit_code == 1
        found |= {one["code"] for one in json.loads(done.stdout)["findings"]}
    assert found == set(CODES) - {"WD601"}
    good = inside(ROOT, "examples/audit_me.py:build_good", "--steps", "30000")
    assert good.exit_code == 0
    assert "no findings" in good.output
