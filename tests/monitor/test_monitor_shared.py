"""A monitor beside what else is on an optimizer: other monitors, classes of one's own, sinks that fail."""

import contextlib
import json
import math
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn, optim

import weightdecay as wd
from weightdecay.errors import InputError


class Sgd(optim.Optimizer):
    """w <- (1 - lr wd) w - lr g, and whatever a subclass does with what it keeps."""

    def __init__(self, params, lr=0.1, weight_decay=0.1):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.kept = self.keep()

    def keep(self):
        return None

    def size(self):
        return 1.0

    @torch.no_grad()
    def step(self, closure=None):
        size = self.size()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(p.grad, alpha=group["lr"] * size)


class Counting(Sgd):
    def keep(self):
        return {"n": 0}

    def size(self):
        self.kept["n"] += 1
        return 1 / self.kept["n"]


class Averaging(Sgd):
    def keep(self):
        return (torch.ones(()),)

    def size(self):
        self.kept[0].mul_(0.9)
        return float(self.kept[0])


class Drawing(Sgd):
    def keep(self):
        return torch.Generator().manual_seed(3)

    def size(self):
        return float(torch.rand((), generator=self.kept))


class Holding(Sgd):
    def keep(self):
        return lambda: self.param_groups[0].update(lr=self.param_groups[0]["lr"] * 0.9)

    def size(self):
        self.kept()
        return 1.0


class Within(Sgd):
    def keep(self):
        return optim.AdamW(self.param_groups, lr=0.01)

    def step(self, closure=None):
        self.kept.step()


class Second(Sgd):
    def size(self):
        return self.param_groups[0]["lr"] + self.param_groups[1]["lr"]


class Orthogonal(optim.Optimizer):
    """Muon as people write it: of no gradient, the singular vectors are any."""

    def __init__(self, params, lr=0.02, weight_decay=0.1):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])
                if p.ndim == 2:
                    u, _, v = torch.linalg.svd(p.grad, full_matrices=False)
                    p.sub_(u @ v, alpha=group["lr"])


def model_and_groups():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    return model, [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters())}]


def train(model, optimizer, steps=24):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        loss = model(torch.randn(8, 6, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_an_orthogonalised_update_is_not_taken_for_decay():
    model, groups = model_and_groups()
    optimizer = Orthogonal(groups)
    monitor = wd.Monitor(model, optimizer, every=8)
    train(model, optimizer)
    found = str(monitor.result())
    assert "applied over intended: 1 to 1 " in found
    assert "sign" not in found


@pytest.mark.parametrize("kind", [Counting, Averaging, Drawing, Holding, Within, Second])
def test_what_an_optimizer_keeps_is_its_own(kind):
    ends = []
    for watched in (False, True):
        model, groups = model_and_groups()
        optimizer = kind(groups)
        monitor = wd.Monitor(model, optimizer, every=6, burst=3) if watched else None
        ends.append(train(model, optimizer))
        if monitor:
            monitor.close()
            assert monitor.steps == 24
    for plain, seen in zip(*ends, strict=True):
        assert torch.equal(plain, seen)


def test_an_optimizer_that_cannot_be_copied_is_doubted_and_not_guessed():
    model, groups = model_and_groups()
    optimizer = Within(groups)
    with wd.Monitor(model, optimizer, every=6) as monitor:
        train(model, optimizer)
    assert monitor.result().table()["applied"].is_nan().all()
    assert any("cannot be copied" in doubt for doubt in monitor.result().doubts)


def test_a_step_of_the_class_above_is_the_same_step():
    class Mine(optim.AdamW):
        def step(self, closure=None):
            return super().step(closure)

    model, groups = model_and_groups()
    optim.AdamW(groups)  # torch wraps the step of a class when it is first made
    optimizer = Mine(groups, lr=0.01)
    with wd.Monitor(model, optimizer, every=6) as monitor:
        train(model, optimizer)
    assert monitor.steps == 24
    assert monitor.result().table()["step"].unique().sort().to_list() == [0, 6, 12, 18]


def test_three_monitors_and_a_rule():
    model, groups = model_and_groups()
    optimizer = optim.SGD(groups, lr=0.1)
    monitors = [wd.Monitor(model, optimizer, every=6)]
    wd.attach(optimizer, wd.Decoupled(0.5), model=model)
    monitors += [wd.Monitor(model, optimizer, every=4), wd.Monitor(model, optimizer, every=6)]
    train(model, optimizer)
    tables = [monitor.result().table().filter(parameter="0.weight") for monitor in monitors]
    assert tables[0].select("norm", "applied").equals(tables[2].select("norm", "applied"))
    for table in tables:
        np.testing.assert_allclose(table["applied"], 0.05, rtol=1e-4)  # float32


def test_a_parameter_may_come_later():
    model, _ = model_and_groups()
    model[0].weight.requires_grad_(False)
    optimizer = optim.AdamW(list(model.parameters())[1:], lr=0.01)
    monitor = wd.Monitor(model, optimizer, every=4, burst=2)
    train(model, optimizer, 6)
    model[0].weight.requires_grad_(True)
    optimizer.add_param_group({"params": [model[0].weight]})
    train(model, optimizer, 6)
    names = monitor.result().table().group_by("step", maintain_order=True).agg("parameter").to_dicts()
    assert ["0.weight" in one["parameter"] for one in names] == [False, False, True]


def test_a_sink_that_fails_stops_neither_the_count_nor_the_others():
    def failing(rows):
        raise RuntimeError("full")

    seen = []
    model, groups = model_and_groups()
    optimizer = optim.AdamW(groups, lr=0.01)
    monitor = wd.Monitor(model, optimizer, every=3, burst=3, sinks=[failing, seen.append])
    for _ in range(9):
        with contextlib.suppress(RuntimeError):
            train(model, optimizer, 1)
    assert monitor.steps == 9
    assert [rows[0]["step"] for rows in seen] == [0, 3, 6]


def test_what_ends_a_training_is_told_before_what_ends_a_sink():
    def failing(rows):
        raise RuntimeError("full")

    model, groups = model_and_groups()
    optimizer = optim.AdamW(groups, lr=0.01)

    def interrupted():
        with wd.Monitor(model, optimizer, sinks=[failing]):
            train(model, optimizer, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_loss_that_runs_away_is_recorded():
    model, groups = model_and_groups()
    optimizer = optim.AdamW(groups, lr=0.01)
    with wd.Monitor(model, optimizer, every=2) as monitor:
        monitor.note(train_loss=math.inf, test_loss=math.nan)
        train(model, optimizer, 2)
    assert monitor.result().table()["train_loss"].to_list()[0] == math.inf


def test_without_decay_there_is_no_equilibrium():
    model, groups = model_and_groups()
    optimizer = optim.SGD(groups, lr=0.1)
    with wd.Monitor(model, optimizer, every=6) as monitor:
        train(model, optimizer)
    assert monitor.result().summary()["residual"].is_null().all()
    assert "equilibrium" not in str(monitor.result())


def test_a_rate_that_does_not_follow_lr_is_not_made_to():
    class Independent(Sgd):
        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.mul_(1 - group["weight_decay"]).sub_(p.grad, alpha=group["lr"])

    model, groups = model_and_groups()
    optimizer = Independent(groups, lr=0.1, weight_decay=0.01)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    with wd.Monitor(model, optimizer, every=2) as monitor:
        for _ in range(12):
            train(model, optimizer, 1)
            scheduler.step()
    np.testing.assert_allclose(monitor.result().table()["intended"], 0.01, rtol=1e-6)
    np.testing.assert_allclose(monitor.result().summary()["ratio"], 1, rtol=1e-3)


def test_a_strength_that_is_ignored_is_doubted():
    class Forgetting(Sgd):
        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.sub_(p.grad, alpha=group["lr"])

    model, groups = model_and_groups()
    optimizer = Forgetting(groups)
    with wd.Monitor(model, optimizer, every=6) as monitor:
        train(model, optimizer)
    assert any("ignores it" in doubt for doubt in monitor.result().doubts)


def test_a_state_that_is_loaded_ends_the_look_that_was_open():
    model, groups = model_and_groups()
    optimizer = optim.AdamW(groups, lr=0.01)
    monitor = wd.Monitor(model, optimizer, every=6, burst=4)
    train(model, optimizer, 2)
    monitor.load_state_dict({"steps": 100, "every": 6, "rows": []})
    train(model, optimizer, 10)
    assert monitor.result().table()["step"].unique().to_list() == [102]
    with pytest.raises(InputError, match="rows that are not a monitor's"):
        monitor.load_state_dict({"steps": 0, "every": 6, "rows": [{"step": "x"}]})


# In a process of its own: the type checker that the tests are imported with draws random numbers, and cannot
# be traced by torch.compile.
ALONE = """
import random, sys
import numpy as np, torch
from torch import nn, optim
import weightdecay as wd

class Throwing(optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.01 + 0.01 * random.random() + 0.01 * np.random.rand()
        super().step(closure)

def end(watched, compiled):
    torch._dynamo.reset(); random.seed(0); np.random.seed(0); torch.manual_seed(0)
    model = nn.Linear(6, 5)
    kind = optim.SGD if compiled else Throwing
    optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.1)
    monitor = wd.Monitor(model, optimizer, every=4, burst=2) if watched else None
    step = torch.compile(lambda: optimizer.step(), backend="eager") if compiled else optimizer.step
    for _ in range(8):
        loss = model(torch.ones(3, 6)).square().mean()
        optimizer.zero_grad(); loss.backward(); step()
    if monitor and compiled:
        assert abs(monitor.result().summary()["ratio"] - 1).max() < 1e-3, monitor.result().summary()
    return model.weight.detach().clone()

compiled = sys.argv[1] == "compiled"
print(torch.equal(end(False, compiled), end(True, compiled)))
"""


@pytest.mark.parametrize("how", ["compiled", "random"])
def test_steps_that_draw_or_are_compiled_keep_their_bits(how):
    out = subprocess.run([sys.executable, "-c", ALONE, how], capture_output=True, text=True, check=False)
    assert out.stdout.strip() == "True", out.stderr


@pytest.mark.parametrize(("field", "value"), [("every", "many"), ("steps", -5), ("optimizer", [1])])
def test_a_record_with_other_fields_is_refused(tmp_path, field, value):
    model, groups = model_and_groups()
    optimizer = optim.AdamW(groups, lr=0.01)
    with wd.Monitor(model, optimizer, every=6) as monitor:
        train(model, optimizer)
    monitor.result().save(tmp_path)
    file = tmp_path / "monitor.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(InputError, match="missing or wrong"):
        wd.load(tmp_path)


def test_a_monitor_is_drawn_and_its_table_shows_any_name():
    from rich.console import Console

    from weightdecay.reports.monitor import table

    model, groups = model_and_groups()
    optimizer = optim.AdamW(groups, lr=0.01)
    seen = []
    with wd.Monitor(model, optimizer, every=6, sinks=[seen.append]) as monitor:
        train(model, optimizer)
    axes = wd.plot(monitor.result())
    assert len(axes) == 3
    drawn = {tuple(line.get_xdata()) for line in axes[0].lines}
    assert (0, 6, 12, 18) in drawn
    console = Console(width=100, record=True, quiet=True)
    rows = [{**seen[-1][0], "parameter": "a[/b].[red]x"}]
    console.print(table(rows))
    assert isinstance(pl.DataFrame(rows), pl.DataFrame)
    with console.capture() as captured:
        console.quiet = False
        console.print(table(rows))
    assert "a[/b].[red]x" in captured.get()
