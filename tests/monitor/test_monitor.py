"""The monitor beside a training: what it measures, what it leaves alone, where it writes."""

import math

import polars as pl
import pytest
import torch
from torch import nn, optim
from walks import walk

import weightdecay as wd
from weightdecay.monitor import record
from weightdecay.monitor.run import Monitor
from weightdecay.saving import load


def build(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))


def train(model, optimizer, steps=12, scheduler=None, note=None):
    drawn = torch.Generator().manual_seed(3)
    for _ in range(steps):
        loss = (model(torch.randn(16, 6, generator=drawn)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if note is not None:
            note(train_loss=loss.item())
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def adam_with_l2(params):
    return optim.Adam(params, lr=0.01, weight_decay=0.1)


OPTIMIZERS = {
    "AdamW": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "AdamW, amsgrad": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "SGD, nesterov": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": adam_with_l2,
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_is_the_same_to_the_bit(name):
    ends = []
    for watched in (False, True):
        model = build()
        optimizer = OPTIMIZERS[name](model.parameters())
        scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
        monitor = Monitor(model, optimizer, every=4, burst=3) if watched else None
        train(model, optimizer, scheduler=scheduler)
        state = [value for one in optimizer.state.values() for value in one.values()]
        ends.append([*model.parameters(), *state, torch.get_rng_state()])
    assert monitor is not None
    assert monitor.result().rows.height > 0
    for plain, seen in zip(*ends, strict=True):
        assert torch.equal(torch.as_tensor(plain), torch.as_tensor(seen))


def test_attached_rules_too_and_the_order_of_attaching_does_not_matter():
    found = []
    for first in (False, True):
        model = build()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if first:
            monitor = Monitor(model, optimizer, every=3, burst=2, parameters="*weight")
        wd.attach(optimizer, wd.Decoupled(0.5), model=model)
        if not first:
            monitor = Monitor(model, optimizer, every=3, burst=2, parameters="*weight")
        train(model, optimizer)
        found.append(monitor.result().rows)
    assert found[0].equals(found[1])
    assert found[0]["intended"].to_list() == pytest.approx([0.05] * 8)
    assert found[0]["applied"].to_list() == pytest.approx([0.05] * 8, rel=1e-5)


def test_what_one_step_does_is_measured_exactly():
    model = build().double()
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.2)
    monitor = Monitor(model, optimizer, every=2, burst=2, parameters="0.weight")
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        loss = (model(torch.ones(4, 6, dtype=torch.float64)) - 1).square().mean()
    loss = (model(torch.ones(4, 6, dtype=torch.float64)) - 1).square().mean()
    loss.backward()
    optimizer.step()
    after = model[0].weight.detach()
    update = after - before * (1 - 0.1 * 0.2)
    row = monitor._open[id(model[0].weight)]
    assert row["norm"] == pytest.approx(float(before.norm()), rel=1e-12)
    assert row["rms"] == pytest.approx(float(before.square().mean().sqrt()), rel=1e-12)
    assert row["update_norm"] == pytest.approx(float(update.norm()), rel=1e-12)
    assert row["effective_lr"] == pytest.approx(float(update.norm() / before.norm()), rel=1e-12)
    assert row["applied"] == pytest.approx(0.02, rel=1e-12)
    cosine = float((before * after).sum() / before.norm() / after.norm())
    assert row["angle"] == pytest.approx(math.acos(cosine), rel=1e-6)
    assert row["steps_to_equilibrium"] == pytest.approx(25)


def test_momentum_carries_coupled_decay_on():
    model = build()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    with Monitor(model, optimizer, every=4, burst=3) as monitor:
        train(model, optimizer)
    rows = monitor.result().rows
    assert rows["applied"].to_list() == pytest.approx([1e-3] * rows.height, rel=1e-3)
    assert rows["rate"].to_list() == pytest.approx([wd.units.coupled_rate(0.1, 0.01, 0.9)] * rows.height)


def test_weights_in_bfloat16_do_not_decay_and_it_says_so():
    seen = walk(lambda p: optim.AdamW(p, lr=1e-3, weight_decay=0.1), 1.0, steps=100, dtype=torch.bfloat16)
    assert abs(seen.summary()["ratio"][0]) < 0.1
    assert any("bfloat16" in doubt for doubt in seen.doubts)


def test_a_step_that_a_scaler_skips_applies_nothing():
    model = build()
    optimizer = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    with Monitor(model, optimizer, every=2, burst=2) as monitor:
        train(model, optimizer, steps=2)
        optimizer.found_inf, optimizer.grad_scale = torch.tensor(1.0), torch.tensor(1.0)
        train(model, optimizer, steps=2)
    by_step = monitor.result().rows.group_by("step", maintain_order=True).agg(pl.col("applied").abs().max())
    assert by_step["applied"].to_list() == [pytest.approx(1e-3, rel=1e-3), 0.0]


def test_coupled_decay_in_an_adaptive_optimizer_has_no_rate():
    model = build()
    optimizer = adam_with_l2(model.parameters())
    with Monitor(model, optimizer, every=4, burst=3) as monitor:
        train(model, optimizer)
    seen = monitor.result()
    assert seen.rows["intended"].is_nan().all()
    assert any("no rate is known" in doubt for doubt in seen.doubts)


def test_a_closure_hides_the_gradient_part_only():
    model = build()
    optimizer = optim.SGD(model.parameters(), lr=0.01, weight_decay=0.1)
    with Monitor(model, optimizer, every=2, burst=2) as monitor:
        for _ in range(4):

            def closure():
                optimizer.zero_grad()
                loss = model(torch.ones(3, 6)).square().mean()
                loss.backward()
                return loss

            optimizer.step(closure)
    seen = monitor.result()
    assert seen.rows["update_norm"].is_nan().all()
    assert seen.rows["norm"].is_finite().all()
    assert any("closure" in doubt for doubt in seen.doubts)


def test_what_was_noted_stands_at_the_next_look():
    model = build()
    optimizer = optim.SGD(model.parameters(), lr=0.01, weight_decay=0.1)
    with Monitor(model, optimizer, every=4, burst=2) as monitor:
        train(model, optimizer, steps=3, note=monitor.note)
        monitor.note(test_loss=0.5)
        train(model, optimizer, steps=3)
    losses = monitor.result().rows.group_by("step", maintain_order=True).agg(pl.col("test_loss").first())
    assert losses["test_loss"].to_list() == [None, 0.5]


def test_it_goes_on_after_a_resume_and_once_closed_it_is_gone(tmp_path):
    def parts():
        model = build()
        return model, optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)

    model, optimizer = parts()
    with Monitor(model, optimizer, every=4, burst=3) as monitor:
        train(model, optimizer, steps=8)
    train(model, optimizer, steps=8)
    assert monitor.steps == 8
    assert not optimizer._optimizer_step_pre_hooks
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    again = Monitor(*parts(), every=4, burst=3)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.steps == 8
    assert again.result().rows.equals(monitor.result().rows)
    with pytest.raises(wd.InputError, match="other looks"):
        Monitor(*parts(), every=5).load_state_dict(monitor.state_dict())
    with pytest.raises(wd.InputError, match="not the state"):
        again.load_state_dict({})


def test_rows_go_to_files_and_functions(tmp_path):
    seen = []
    model = build()
    optimizer = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    files = [record.file(tmp_path / "deep" / name) for name in ("m.csv", "m.parquet")]
    with Monitor(model, optimizer, every=4, burst=3, sinks=[*files, seen.extend]) as monitor:
        train(model, optimizer)
    rows = monitor.result().rows
    assert len(seen) == rows.height == 12
    assert pl.read_parquet(tmp_path / "deep/m.parquet").equals(rows)
    assert pl.read_csv(tmp_path / "deep/m.csv")["norm"].to_list() == rows["norm"].to_list()


def test_the_record_is_saved_and_loaded_and_refuses_what_is_not_its_own(tmp_path):
    seen = walk(lambda p: optim.AdamW(p, lr=1e-3, weight_decay=1.0), 0.02, steps=120)
    seen.save(tmp_path)
    again = load(tmp_path)
    assert again.rows.equals(seen.rows)
    assert str(again) == str(seen)
    assert repr(again) == "Monitored(AdamW, 120 steps, 3 looks at 1 parameters)"
    content = (tmp_path / "monitor.parquet").read_bytes()
    (tmp_path / "monitor.parquet").write_bytes(content[:-9])
    with pytest.raises(wd.InputError, match="cut short"):
        load(tmp_path)
    (tmp_path / "monitor.json").write_text("{}")
    with pytest.raises(wd.InputError, match="not the record"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 1}, "every"),
        ({"burst": 0}, "burst"),
        ({"parameters": "weihgt"}, "closest names are"),
    ],
)
def test_bad_input_is_told(options, message):
    model = build()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(wd.InputError, match=message):
        Monitor(model, optimizer, **options)
    assert not optimizer._optimizer_step_pre_hooks


def test_the_optimizer_has_to_be_the_model_s():
    with pytest.raises(wd.InputError, match="not in the model"):
        Monitor(build(), optim.SGD(build().parameters(), lr=0.1))
