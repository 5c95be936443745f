"""What cannot be audited, said in one line; what can be, however odd."""

import pytest
import torch
from torch import distributed, nn, optim
from torch.distributed.fsdp import fully_shard

import weightdecay as wd
from weightdecay.auditing.run import audit
from weightdecay.errors import InputError


def model_and_optimizer():
    model = nn.Linear(2, 2, bias=False)
    return model, optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m, o: ((nn.Linear, o), {}), "a class where a model is needed"),
        (lambda m, o: ((list(m.parameters()), o), {}), "not a model"),
        (lambda m, o: ((o, m), {}), "not a model"),
        (lambda m, o: ((m,), {}), "no optimizer"),
        (lambda m, o: ((m, []), {}), "no optimizer"),
        (lambda m, o: ((m, optim.AdamW), {}), "an optimizer's class where an optimizer is needed"),
        (lambda m, o: ((m, "adamw"), {}), "not an optimizer of torch's kind"),
        (lambda m, o: ((m, optim.lr_scheduler.StepLR(o, 3)), {}), "a scheduler where an optimizer is needed"),
        (lambda m, o: ((nn.Identity(), o), {}), "no parameters"),
        (lambda m, o: ((nn.LazyLinear(3), o), {}), "uninitialised"),
        (lambda m, o: ((m, o), {"steps": 0}), "steps"),
        (lambda m, o: ((m, o), {"steps": 1.5}), "steps"),
        (lambda m, o: ((m, o), {"steps_per_epoch": -1}), "steps_per_epoch"),
        (lambda m, o: ((m, o), {"groups": "matrixes"}), "no such preset"),
        (lambda m, o: ((m, o), {"groups": [wd.Group(name="wieght"), "matrices"]}), "selects nothing"),
        (lambda m, o: ((m, o), {"scaler": True}), "not a gradient scaler"),
        (lambda m, o: ((m, o), {"schedule": "cosine"}), "how many steps"),
        (lambda m, o: ((m, o), {"schedule": "sine", "steps": 3}), "no such schedule"),
        (lambda m, o: ((m, o), {"schedule": [[0.1], [0.2], [0.3]]}), "one row for each group"),
        (lambda m, o: ((m, o), {"schedule": optim.lr_scheduler.StepLR(o, 3)}), "how many steps"),
        (lambda m, o: ((m, o), {"schedule": object(), "steps": 3}), "schedule"),
    ],
)
def test_bad_input_is_told_in_one_line(spoil, said):
    arguments, settings = spoil(*model_and_optimizer())
    with pytest.raises(InputError, match=said) as raised:
        audit(*arguments, **settings)
    assert "\n" not in str(raised.value)


def test_an_optimizer_whose_init_has_not_run():
    class Bare(optim.Optimizer):
        def __init__(self):
            pass

    model, _ = model_and_optimizer()
    with pytest.raises(InputError, match="whose __init__ has run"):
        audit(model, Bare())


def test_what_holds_an_optimizer_is_opened():
    model, optimizer = model_and_optimizer()

    class AcceleratedOptimizer(optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer = optimizer

        param_groups = property(lambda self: self.optimizer.param_groups)

    class LightningOptimizer:
        def __init__(self, optimizer):
            self._optimizer = optimizer

    class LightningAdamW(LightningOptimizer):  # made anew for each optimizer's class
        pass

    plain = audit(model, optimizer)
    assert audit(model, LightningAdamW(optimizer)).parameters == plain.parameters
    assert audit(model, AcceleratedOptimizer(optimizer)).parameters == plain.parameters
    assert audit(model, [optimizer], optimizer).parameters == plain.parameters
    bare = optim.SGD(model.parameters(), lr=0.1)
    decay = wd.attach(bare, wd.Decoupled(0.1), model=model)
    assert audit(model, decay).parameters == audit(model, bare).parameters


def test_a_model_that_is_frozen_throughout_is_audited():
    model, optimizer = model_and_optimizer()
    model.requires_grad_(False)
    found = audit(model, optimizer)
    assert found.parameters[0].frozen
    assert not found.findings


@pytest.mark.parametrize("value", [torch.tensor(0.1), torch.tensor([0.1])])
def test_strengths_and_step_sizes_may_be_tensors(value):
    model = nn.Linear(2, 2, bias=False)
    optimizer = optim.SGD(model.parameters(), lr=torch.tensor(0.1), weight_decay=0.1)
    optimizer.param_groups[0]["weight_decay"] = value
    (one,) = audit(model, optimizer).parameters
    assert one.weight_decay == pytest.approx(0.1)
    assert one.half_life == pytest.approx(68.97, rel=1e-3)


def test_an_optimizer_without_the_usual_options():
    class Plain(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self, closure=None):
            return None

    model, _ = model_and_optimizer()
    found = audit(model, Plain(model.parameters()))
    assert "which has no weight_decay" in found.parameters[0].why
    assert not found.findings


def test_a_group_that_was_added_after_a_rule_was_attached():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    optimizer = optim.SGD([("0.weight", model[0].weight)], lr=0.1)
    wd.attach(optimizer, wd.Decoupled(0.1), model=model)
    optimizer.add_param_group({"params": [("1.weight", model[1].weight)]})
    found = audit(model, optimizer)
    assert [one.weight_decay for one in found.parameters] == [0.1, 0.0]


def test_values_on_the_meta_device_are_not_read():
    with torch.device("meta"):
        model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, batch_first=True), 2)
    optimizer = optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3)
    assert not audit(model, optimizer).findings


@pytest.fixture
def alone():
    """A process group with nobody else in it."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_sharded_parameters_are_whole_parameters(alone):
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))

    plain, sharded = make(), make()
    fully_shard(sharded, mesh=distributed.init_device_mesh("cpu", (1,)))
    assert type(sharded[0].weight).__name__ == "DTensor"
    found = audit(sharded, optim.AdamW(wd.param_groups(sharded, 0.1), lr=1e-3))
    wanted = audit(plain, optim.AdamW(wd.param_groups(plain, 0.1), lr=1e-3))
    assert found.parameters == wanted.parameters
    assert found.findings == ()
    with torch.no_grad():
        sharded[0].weight.to_local().fill_(torch.nan)
    assert [one.code for one in audit(sharded, optim.AdamW(wd.param_groups(sharded))).findings] == ["WD504"]


def test_an_optimizer_without_hooks_of_its_own_is_audited():
    """As wrappers of the Lookahead kind are: of torch's class, with the lists of the one inside."""

    class Look(torch.optim.Optimizer):
        def __init__(self, base):
            self.base = base
            self.param_groups, self.state, self.defaults = base.param_groups, base.state, base.defaults

        def step(self, closure=None):
            return self.base.step(closure)

    model = torch.nn.Linear(3, 2)
    audit = wd.audit(model, Look(torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)))
    assert [parameter.name for parameter in audit.parameters] == ["weight", "bias"]
