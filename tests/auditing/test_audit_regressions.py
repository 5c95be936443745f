"""What a reviewer found: numbers that are none, functions that hold the live optimizer, broken plans."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn, optim

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.saving import write_text
from weightdecay.scripts import build


def small(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    return model, optim.AdamW(wd.param_groups(model, options.pop("weight_decay", 0.1)), lr=1e-3)


def test_a_numpy_number_is_a_number():
    model, optimizer = small()
    for group in optimizer.param_groups:
        group["lr"] = np.float32(0.1)
        group["weight_decay"] = np.float32(group["weight_decay"]) * np.float32(5)
    found = {one.name: one for one in wd.audit(model, optimizer).parameters}
    assert found["0.weight"].weight_decay == pytest.approx(0.5)
    assert found["0.weight"].half_life == pytest.approx(np.log(2) / -np.log(0.95), rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, "0.1", [0.1], torch.ones(2)])
@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_what_is_no_strength_is_refused(name, value):
    model, optimizer = small()
    optimizer.param_groups[0][name] = value
    with pytest.raises(InputError, match=name):
        wd.audit(model, optimizer)


def test_a_function_that_holds_the_live_optimizer_is_not_called():
    class Shrinking(optim.SGD):
        def __init__(self, params, lr, weight_decay):
            super().__init__(params, lr=lr, weight_decay=weight_decay)
            self.after = lambda: self.param_groups[0].update(lr=self.param_groups[0]["lr"] / 2)

        def step(self, closure=None):
            super().step(closure)
            self.after()

    model, _ = small()
    optimizer = Shrinking(model.parameters(), 0.1, 0.1)
    found = wd.audit(model, optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert {one.form for one in found.parameters} == {"unknown"}


def test_an_optimizer_without_defaults_is_audited():
    class Bare(optim.SGD):
        pass

    model, _ = small()
    optimizer = Bare(model.parameters(), lr=0.1, weight_decay=0.1)
    del optimizer.defaults
    assert wd.audit(model, optimizer).parameters[0].weight_decay == 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"weight_decay": "abc"},
        {"weight_decay": None},
        {"weight_decay": [1]},
        {"name": {}},
        {"name": None},
        {"numel": "x"},
        {"numel": True},
        {"aliases": [1]},
        {"name": "2.weight"},
    ],
)
def test_a_plan_with_other_values_is_refused(tmp_path, change):
    model, optimizer = small()
    found = wd.audit(model, optimizer)
    file = found.save(tmp_path / "plan.json")
    assert wd.load(file) == found
    plan = json.loads(file.read_text())
    plan["parameters"][0].update(change)
    file.write_text(json.dumps(plan))
    with pytest.raises(InputError, match=r"plan\.json"):
        wd.load(file)


def test_a_file_of_brackets_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="not JSON"):
        wd.load(tmp_path / "plan.json")


def test_only_files_are_replaced(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", ""):
        with pytest.raises(InputError, match="cannot be written"):
            write_text(tmp_path / name if name == "pipe" else type(tmp_path)(name), "x")
    write_text(tmp_path / "real.txt", "old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "real.txt").read_text() == "new"
    assert (tmp_path / "link.txt").is_symlink()


def test_two_schedulers_of_one_optimizer_are_refused():
    model, optimizer = small()
    both = [optim.lr_scheduler.ConstantLR(optimizer), optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)]
    with pytest.raises(InputError, match="two schedulers"):
        wd.audit(model, optimizer, schedule=both, steps=9)
    assert wd.audit(model, optimizer, schedule=[None], steps=9).settings["steps"] == 9


def test_a_change_of_the_plan_is_not_ignored():
    model, optimizer = small()
    with pytest.raises(InputError, match="WD601"):
        wd.audit(model, optimizer, ignore=["WD601"])


def test_a_decay_that_is_not_applied_is_none():
    class Forgetful(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1, "weight_decay": 0.1})

        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        if p.grad is not None:
                            p.sub_(p.grad, alpha=group["lr"])

    model, _ = small()
    found = wd.audit(model, Forgetful(model.parameters()))
    assert found.decaying == 0
    assert str(found).startswith("weight decay: 0 of 6 parameters decay")
    assert all(group.decaying == 0 for group in found.groups)


def test_eight_bits_and_fake_tensors_are_passed_over():
    from torch._subclasses.fake_tensor import FakeTensorMode

    model, optimizer = small()
    model.register_parameter(
        "eight", nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn), requires_grad=False)
    )
    assert wd.audit(model, optimizer).parameters
    with FakeTensorMode():
        model = nn.Linear(4, 4)
    assert wd.audit(model, optim.AdamW(model.parameters())).parameters


def test_a_probe_beside_another_default_device():
    with torch.device("meta"):
        assert wd.probe(optim.AdamW).form == "decoupled"


def test_a_probe_leaves_the_seeds_of_gpus_alone():
    code = (
        "import torch, weightdecay as wd; torch.manual_seed(7); "
        "seen = []; torch.cuda.manual_seed_all = seen.append; wd.probe(torch.optim.AdamW); print(seen)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('timestamps')", "line"),
        ("raise RuntimeError('MPS backend is not here')", "asks for a GPU"),
        ("class Odd(BaseException): pass\n    raise Odd('x')", "Odd"),
        ("return {'model': 1, 'optimizer': 1, 'optimizers': [2]}", "twice"),
        ("return {'model': 1, 'optimizer': 1, 'schedule': 1, 'scheduler': 2}", "twice"),
    ],
)
def test_what_builders_do(tmp_path, body, said):
    (tmp_path / "it.py").write_text(f"def build():\n    {body}\n")
    with pytest.raises(InputError, match=said) as error:
        build(f"{tmp_path / 'it.py'}:build")
    assert ("GPU" in str(error.value)) == ("GPU" in said)
