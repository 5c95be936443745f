"""A model trained with transformers' Trainer, stopped and resumed: the same bits as one never stopped."""

import pytest
import torch

import weightdecay as wd
from weightdecay.errors import FindingsError
from weightdecay.integrations.transformers import WeightDecay

pytestmark = [pytest.mark.peer]
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

RULES = {
    "native": wd.Decoupled(0.1),
    "hooks": wd.Cautious(0.1),
    "state": wd.Toward(0.5, ema=0.9),
    "half-life": wd.Decoupled(wd.HalfLife(steps=50)),
}


class Stop(transformers.TrainerCallback):
    """Ends a run early, as a machine that goes away does; its length stays what it was."""

    def __init__(self, after):
        self.after = after

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.after


def trainer(folder, callback, *, weight_decay=0.0, own=True, stop=None, **arguments):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=16, vocab_size=32, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    tokens = torch.randint(32, (48, 8), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(wd.param_groups(model, weight_decay), lr=1e-3)
    settings = transformers.TrainingArguments(
        str(folder),
        **{
            "max_steps": 12,
            "save_steps": 6,
            "use_cpu": True,
            "report_to": [],
            "disable_tqdm": True,
            "logging_strategy": "no",
            "dataloader_pin_memory": False,
            **arguments,
        },
    )
    return transformers.Trainer(
        model,
        settings,
        train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
        optimizers=(optimizer if own else None, None),
        callbacks=[*([callback] if callback else []), Stop(stop)],
    )


def trained(folder, callback, resume=None, **settings):
    made = trainer(folder, callback, **settings)
    made.train(resume_from_checkpoint=resume)
    return [w.tolist() for w in made.model.parameters()]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_resumed_run_ends_with_the_same_bits(rule, tmp_path):
    whole, first, second = (WeightDecay(rule, every=3) for _ in range(3))
    through = trained(tmp_path / "whole", whole)
    stopped = trained(tmp_path / "parts", first, stop=6)
    resumed = trained(tmp_path / "parts", second, resume=str(tmp_path / "parts/checkpoint-6"))
    assert resumed == through != stopped
    assert second.decays[0].steps == 12
    assert through != trained(tmp_path / "none", None)
    assert whole.audit.errors == ()
    assert whole.audit.settings["schedule"] == "LambdaLR"
    looks = [callback.monitors[0].result().table() for callback in (whole, second)]
    assert looks[0].equals(looks[1], null_equal=True)
    assert set(looks[0]["step"]) == {0, 3, 6, 9}


def test_the_callback_changes_nothing_that_it_was_not_asked_to(tmp_path):
    for own in (True, False):
        alone = trained(tmp_path / "b", None, own=own)
        assert trained(tmp_path / "a", WeightDecay(every=3), own=own) == alone


def test_errors_of_the_audit_stop_the_run_before_its_first_step(tmp_path):
    callback = WeightDecay()
    with pytest.raises(FindingsError, match="WD401"):
        trained(tmp_path, callback, weight_decay=2000.0)
    assert callback.audit.errors
    trained(tmp_path, WeightDecay(check=False), weight_decay=2000.0, max_steps=1)


def test_a_rule_needs_an_optimizer_of_the_user_s(tmp_path):
    with pytest.raises(wd.InputError, match="could not be attached before training began"):
        trained(tmp_path, WeightDecay(wd.Decoupled(0.1)), own=False)


def test_a_checkpoint_of_another_rule_is_refused(tmp_path):
    trained(tmp_path, WeightDecay(wd.Decoupled(0.1)), stop=6)
    checkpoint = str(tmp_path / "checkpoint-6")
    with pytest.raises(wd.InputError, match="the state belongs to another rule"):
        trained(tmp_path, WeightDecay(wd.Cautious(0.1)), resume=checkpoint)


def test_a_checkpoint_without_the_callback_is_told(tmp_path):
    trained(tmp_path, None, stop=6)
    with pytest.warns(wd.WeightDecayWarning, match="begins at its step 0"):
        trained(tmp_path, WeightDecay(wd.Decoupled(0.1)), resume=str(tmp_path / "checkpoint-6"))


def test_accumulated_batches_are_one_step(tmp_path):
    callback = WeightDecay(wd.Decoupled(0.1))
    trained(tmp_path, callback, gradient_accumulation_steps=3, per_device_train_batch_size=4, max_steps=4)
    assert callback.decays[0].steps == 4
    assert callback.audit.settings["steps_per_epoch"] == 4
