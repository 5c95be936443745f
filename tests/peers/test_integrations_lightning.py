"""A model trained with Lightning, stopped and resumed: the same bits as one that was never stopped."""

import copy

import pytest
import torch
from torch import nn

import weightdecay as wd
from weightdecay.auditing import state as audit_state
from weightdecay.errors import FindingsError
from weightdecay.integrations.lightning import WeightDecay

pytestmark = [
    pytest.mark.peer,
    # Lightning's own: advice on workers and logs, and what its dependencies will drop.
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*"),
]
pl = pytest.importorskip("lightning.pytorch")

RULES = {
    "native": wd.Decoupled(0.1),
    "hooks": wd.Cautious(0.1),
    "state": wd.Toward(0.5, ema=0.9),
    "half-life": wd.Decoupled(wd.HalfLife(steps=50)),
}


class Small(pl.LightningModule):
    def __init__(self, weight_decay=0.0, optimizers=1):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 1))
        self.weight_decay, self.number = weight_decay, optimizers
        self.automatic_optimization = optimizers == 1

    def training_step(self, batch, index):
        x, y = batch
        loss = (self.net(x) - y).square().mean()
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss

    def configure_optimizers(self):
        if self.number == 2:
            return [torch.optim.AdamW(wd.param_groups(self.net[i], 0.0), lr=1e-2) for i in (0, 3)]
        optimizer = torch.optim.AdamW(wd.param_groups(self, self.weight_decay), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=12)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fit(folder, callback, steps, resume=None, **model):
    torch.manual_seed(0)
    module = Small(**model)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(24, 4, generator=generator)
    data = torch.utils.data.DataLoader(list(zip(rows, rows[:, :1].sin(), strict=True)), batch_size=4)
    saver = pl.callbacks.ModelCheckpoint(folder, save_last=True, every_n_train_steps=6)
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[callback, saver],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data, ckpt_path=resume)
    return module


def bits(module):
    return [w.tolist() for w in module.parameters()]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_resumed_run_ends_with_the_same_bits(rule, tmp_path):
    whole, first, second = (WeightDecay(rule, every=3) for _ in range(3))
    through = fit(tmp_path / "whole", whole, 12)
    stopped = fit(tmp_path / "parts", first, 6)
    resumed = fit(tmp_path / "parts", second, 12, resume=tmp_path / "parts/last.ckpt")
    assert bits(resumed) == bits(through) != bits(stopped)
    assert second.decays[0].steps == 12
    assert bits(through) != bits(fit(tmp_path / "none", WeightDecay(), 12))
    assert whole.audit.errors == ()
    assert whole.audit.settings["schedule"] == "list"
    looks = [callback.monitors[0].result().table() for callback in (whole, second)]
    assert looks[0].equals(looks[1], null_equal=True)
    assert set(looks[0]["step"]) == {0, 3, 6, 9}


def test_the_callback_changes_nothing_that_it_was_not_asked_to(tmp_path):
    watched = fit(tmp_path / "a", WeightDecay(every=3), 12, weight_decay=0.1)
    alone = fit(tmp_path / "b", pl.Callback(), 12, weight_decay=0.1)
    assert bits(watched) == bits(alone)


def test_errors_of_the_audit_stop_the_run_before_its_first_step(tmp_path):
    callback = WeightDecay()
    with pytest.raises(FindingsError, match="WD401"):
        fit(tmp_path, callback, 12, weight_decay=1000.0)
    assert callback.audit.errors
    unchecked = WeightDecay(check=False)
    fit(tmp_path, unchecked, 2, weight_decay=1000.0)
    assert unchecked.audit is None
    fit(tmp_path, WeightDecay(audit_options={"ignore": ["WD401"]}), 2, weight_decay=1000.0)


def test_several_optimizers_have_a_rule_each(tmp_path):
    ignored = {"ignore": ["WD201"]}  # the layer norm is left out on purpose
    callback = WeightDecay([wd.Decoupled(0.1), None], every=2, audit_options=ignored)
    fit(tmp_path, callback, 4, optimizers=2)
    assert [decay.shown for decay in callback.decays] == ["Decoupled(weight_decay=0.1)"]
    assert len(callback.monitors) == 2
    with pytest.raises(wd.InputError, match="another number of rules than optimizers: rule = 1"):
        fit(tmp_path, WeightDecay([wd.Decoupled(0.1)]), 4, optimizers=2)


def test_a_checkpoint_of_another_rule_is_refused(tmp_path):
    fit(tmp_path, WeightDecay(wd.Decoupled(0.1)), 6)
    last = tmp_path / "last.ckpt"
    with pytest.raises(wd.InputError, match="the state belongs to another rule"):
        fit(tmp_path, WeightDecay(wd.Cautious(0.1)), 12, resume=last)
    with pytest.raises(wd.InputError, match="another number of rules"):
        fit(tmp_path, WeightDecay(), 12, resume=last)


def test_a_checkpoint_without_the_callback_is_told(tmp_path):
    fit(tmp_path, pl.Callback(), 6)
    with pytest.warns(wd.WeightDecayWarning, match="begins at its step 0"):
        fit(tmp_path, WeightDecay(wd.Decoupled(0.1)), 12, resume=tmp_path / "last.ckpt")


def test_what_is_no_rule_is_refused_at_once():
    with pytest.raises(wd.InputError, match=r"not a decay rule: rule = 0\.1"):
        WeightDecay(0.1)
    assert isinstance(copy.copy(WeightDecay(wd.L2(0.1))), pl.Callback)


class ByEpoch(Small):
    """Its scheduler is stepped as `interval` and `frequency` say."""

    def __init__(self, interval, frequency):
        super().__init__(weight_decay=0.5)
        self.every = {"interval": interval, "frequency": frequency}
        self.seen = []

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(wd.param_groups(self, self.weight_decay), lr=1e-2)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
                **self.every,
            },
        }

    def on_before_optimizer_step(self, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("interval", "frequency", "accumulate", "followed"),
    [
        ("epoch", 1, 1, True),
        ("epoch", 2, 1, True),
        ("step", 3, 1, True),
        ("epoch", 1, 4, True),
        ("step", 4, 1, False),
    ],
)
def test_schedulers_are_followed_as_lightning_steps_them(
    interval, frequency, accumulate, followed, monkeypatch
):
    """The rates that the audit is told, against those of the run."""
    told = {}
    whole = audit_state.learning_rates

    def learning_rates(*arguments):
        found = whole(*arguments)
        told.update(found.rows)
        return found

    monkeypatch.setattr(audit_state, "learning_rates", learning_rates)
    torch.manual_seed(0)
    module = ByEpoch(interval, frequency)
    rows = torch.randn(24, 4)
    data = torch.utils.data.DataLoader(list(zip(rows, rows[:, :1], strict=True)), batch_size=4)
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(
        max_epochs=4,
        accumulate_grad_batches=accumulate,
        enable_checkpointing=False,
        callbacks=[WeightDecay()],
        **options,
    )
    trainer.fit(module, data)
    assert len(module.seen) == (8 if accumulate == 4 else 24)
    if followed:
        assert told[0, 0].tolist() == pytest.approx(module.seen)
    else:
        assert set(told[0, 0].tolist()) == {1e-2}
