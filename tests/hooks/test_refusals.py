"""Bad input: one line that says what, where, which value and what to do; the optimizer is left as it was."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torch.distributed.tensor
from tests.hooks.zoo import Model, train
from torch import nn, optim

import weightdecay as wd


def adamw(**options):
    model = Model()
    return model, optim.AdamW(model.named_parameters(), lr=0.1, **{"weight_decay": 0, **options})


def sgd(**options):
    model = Model()
    return model, optim.SGD(model.named_parameters(), lr=0.1, **options)


def of(parameter):
    return None, optim.SGD([("odd", parameter)], lr=0.1)


def flat():
    parameter = nn.Parameter(torch.ones(4))
    parameter._is_flat_param = True
    return of(parameter)


def other_model():
    return Model(), sgd()[1]


def twice():
    model, optimizer = sgd()
    optimizer.param_groups.append({**optimizer.param_groups[0]})
    return model, optimizer


def unmade():
    return None, optim.SGD.__new__(optim.SGD)


CASES = [
    (sgd, lambda: wd.Decoupled(-0.1), {}, r"Decoupled.weight_decay = -0.1; give"),
    (sgd, lambda: wd.Decoupled(float("nan")), {}, r"Decoupled.weight_decay = nan"),
    (sgd, lambda: wd.Decoupled(float("inf")), {}, r"Decoupled.weight_decay = inf"),
    (
        sgd,
        lambda: wd.Decoupled(torch.ones(2)),
        {},
        r"a strength is one number.*= \(2,\); give a 0-dim tensor",
    ),
    (sgd, lambda: wd.Decoupled([0.1, 0.2]), {}, r"\[0.1, 0.2\]; the optimizer has 1 group"),
    (sgd, lambda: wd.Decoupled(lambda step: -1.0), {}, r"Decoupled.weight_decay\(0\) = -1"),
    (
        sgd,
        lambda: wd.Decoupled(10.0),
        {},
        r"removes the whole weight or more.*10 at lr = 0.1; give less than 10",
    ),
    (sgd, lambda: wd.L2(10.0), {}, r"removes the whole weight or more"),
    (lambda: sgd(momentum=0.9), lambda: wd.L2(40.0), {}, r"the weight diverges"),
    (sgd, lambda: wd.Decoupled(0.1), {"schedule": [0.1, 20.0]}, r"0.1 at lr = 20"),
    (sgd, lambda: wd.Decoupled(wd.HalfLife(epochs=2)), {}, r"half-life in epochs needs steps_per_epoch"),
    (sgd, lambda: wd.Decoupled(wd.HalfLife(samples=9)), {}, r"needs samples_per_step"),
    (sgd, lambda: wd.Decoupled(wd.HalfLife(tokens=9)), {}, r"needs tokens_per_step"),
    (sgd, lambda: wd.Decoupled(wd.HalfLives(per_run=2)), {}, r"half-lives of a run need the run: steps"),
    (sgd, lambda: wd.L2(wd.HalfLives(per_run=2)), {"steps": 9}, r"cannot be given in half-lives of a run"),
    (sgd, lambda: wd.L2(wd.HalfLife(steps=100)), {}, r"HalfLife.lr = None; give lr="),
    (
        adamw,
        lambda: wd.L2(wd.HalfLife(steps=100)),
        {},
        r"in this optimizer: L2.weight_decay = HalfLife\(steps=100\);",
    ),
    (
        sgd,
        lambda: wd.Corrected(0.1),
        {},
        r"needs the peak learning rate: Corrected.lr_max = None; give lr_max=",
    ),
    (sgd, lambda: wd.Independent(0.1), {}, r"needs the peak learning rate: Independent.lr_max"),
    (
        sgd,
        lambda: wd.Corrected(0.1, lr_max=[0.1, 0.2]),
        {},
        r"Corrected.lr_max = \[0.1, 0.2\]; the optimizer has 1",
    ),
    (sgd, lambda: wd.Corrected(0.1, lr_max=-1.0), {}, r"Corrected.lr_max = -1"),
    (sgd, lambda: wd.Toward(0.1, to={}), {}, r"no point for a parameter: to = first.weight"),
    (
        sgd,
        lambda: wd.Toward(0.1, to={"first.weight": torch.full((3, 4), float("nan"))}),
        {},
        r"a point to decay toward is not finite: to = first.weight",
    ),
    (
        sgd,
        lambda: wd.Toward(0.1, to={"first.weight": torch.ones(2)}),
        {},
        r"first.weight has another shape.*\(2,\)",
    ),
    (sgd, lambda: wd.Decoupled(0.1), {"on": "matrixes"}, r"matrixes"),
    (sgd, lambda: wd.Decoupled(0.1), {"on": wd.Group(name="third.*")}, r"third"),
    (
        sgd,
        lambda: wd.Decoupled(0.1),
        {"on": [wd.Group(name="*", scale=0)]},
        r"no parameter of the optimizer decays",
    ),
    (
        sgd,
        lambda: wd.Decoupled(0.1),
        {"on": wd.Group(name="*", options={"lr": 1.0})},
        r"sets no optimizer options",
    ),
    (sgd, lambda: wd.Decoupled(0.1), {"steps_per_epoch": 0}, r"steps_per_epoch = 0"),
    (sgd, lambda: wd.Decoupled(0.1), {"schedule": [[0.1, 0.1]] * 3}, r"one row for each parameter group.*3"),
    (
        sgd,
        lambda: wd.Decoupled(0.1),
        {"schedule": "cosine", "steps": 9},
        r"no peak: schedule = 'cosine'",
    ),
    (
        lambda: adamw(weight_decay=0.01),
        lambda: wd.Cautious(0.1),
        {},
        r"already decays.*group 0 = 0.01; give weight_decay=0",
    ),
    (
        other_model,
        lambda: wd.Decoupled(0.1),
        {},
        r"not in the model: group 0, position 0 = first.weight \(3, 4\)",
    ),
    (
        twice,
        lambda: wd.Decoupled(0.1),
        {},
        r"stands twice in the optimizer: group 1, position 0 = first.weight",
    ),
    (
        flat,
        lambda: wd.Decoupled(0.1),
        {"on": "all"},
        r"flattened parameter.*odd = float32 \(4,\); shard with",
    ),
    (
        lambda: of(nn.Parameter(torch.ones(2, 2, device="meta"))),
        lambda: wd.Decoupled(0.1),
        {},
        r"meta tensor has no",
    ),
    (
        lambda: of(nn.Parameter(torch.ones(2, 2).half())),
        lambda: wd.Decoupled(0.1),
        {},
        r"16-bit.*float16 \(2, 2\)",
    ),
    (unmade, lambda: wd.Decoupled(0.1), {}, r"not an optimizer of torch's kind"),
    (lambda: sgd(differentiable=True), lambda: wd.Decoupled(0.1), {}, r"SGD with differentiable=True"),
]


def snapshot(optimizer):
    if not isinstance(optimizer, optim.Optimizer) or not hasattr(optimizer, "param_groups"):
        return None
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    hooks = len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)
    return pickle.dumps(groups), hooks, dict(optimizer.state)


@pytest.mark.parametrize(("make", "rule", "settings", "message"), CASES)
def test_refused_and_nothing_changed(make, rule, settings, message):
    model, optimizer = make()
    before = snapshot(optimizer)
    with pytest.raises(wd.InputError, match=message) as error:
        wd.attach(optimizer, rule(), model=model, **settings)
    assert "\n" not in str(error.value)
    assert snapshot(optimizer) == before


WRONG_TYPES = """
import torch, weightdecay as wd
model = torch.nn.Linear(3, 1)
def sgd(**options):
    return torch.optim.SGD(model.named_parameters(), lr=0.1, **options)
for call in (
    lambda: wd.attach(sgd(), wd.Decoupled("0.1")),
    lambda: wd.attach(sgd(), wd.Decoupled(None)),
    lambda: wd.attach(sgd(), 0.1),
    lambda: wd.attach(sgd(), wd.Decoupled),
    lambda: wd.attach("adam", wd.Decoupled(0.1)),
    lambda: wd.attach(sgd(), wd.Decoupled(0.1), model={}),
    lambda: wd.attach(sgd(), wd.Decoupled(0.1), on=3),
    lambda: wd.attach(sgd(), wd.Decoupled(0.1), steps="many"),
    lambda: wd.attach(sgd(), wd.Decoupled(0.1)).load_state_dict([]),
    lambda: wd.chain(0.1),
    lambda: wd.Toward(0.1, to="origin"),
    lambda: wd.Toward(0.1, to=model),
    lambda: wd.attach(sgd(), wd.Toward(0.1, to={"weight": model.weight.detach().numpy()})),
    lambda: wd.WeightDecayScheduler("adam", float),
    lambda: wd.WeightDecayScheduler(sgd(weight_decay=0.1), 0.5),
):
    try:
        call()
    except wd.InputError as error:
        print(error)
"""


def test_wrong_types_get_a_message():
    """In a process of its own: in this one the tests' own type checks would come first."""
    done = subprocess.run([sys.executable, "-c", WRONG_TYPES], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "not a number: Decoupled.weight_decay = '0.1'; give a number",
        "not a number: Decoupled.weight_decay = None; give a number",
        "not a decay rule: rule = 0.1; give, say, wd.Decoupled(0.1)",
        "not a decay rule: rule = <class 'weightdecay.rules.decays.Decoupled'>; give, say, wd.Decoupled(0.1)",
        "not an optimizer of torch's kind: optimizer = str; "
        "give a torch.optim.Optimizer whose __init__ has run",
        "not a model: model = dict; give a torch.nn.Module",
        "no groups: groups = 3; give a preset's name, a Group or a list of these",
        "not a number: steps = 'many'; give a number",
        "not the state of a decay: state_dict = list; give Decay.state_dict()",
        "not a decay rule: rule = 0.1; give, say, wd.Decoupled(0.1)",
        "no such point to decay toward: to = 'origin'; give \"start\", or tensors by name (a state dict)",
        'no such point to decay toward: to = Linear; give "start", or tensors by name (a state dict)',
        "no point for a parameter: to = weight: ndarray; give a tensor for every parameter",
        "nothing to schedule: target = str; give a Decay or an optimizer",
        "not a function: factor = 0.5; give a function of the step",
    ]


def test_sparse_parameters():
    optimizer = optim.SGD([("odd", nn.Parameter(torch.eye(3).to_sparse()))], lr=0.1)
    with pytest.raises(wd.InputError, match=r"sparse parameters are not supported yet: odd = float32"):
        wd.attach(optimizer, wd.Decoupled(0.1), on="all")


def test_a_second_rule_on_the_same_parameters():
    model, optimizer = sgd()
    wd.attach(optimizer, wd.Decoupled(0.1), model=model)
    with pytest.raises(wd.InputError, match=r"second decay on top.*first.weight = Decoupled.*wd.chain"):
        wd.attach(optimizer, wd.Toward(0.1), model=model)
    biases = wd.attach(optimizer, wd.Toward(0.1), model=model, on=wd.Group(role="bias"))
    assert [t.name for t in biases.plan.all_targets] == ["first.bias", "second.bias"]
    biases.detach()
    assert repr(biases).startswith("Decay(Toward(weight_decay=0.1, to='start')) on SGD, detached: 2 of 4 ")


def test_two_rules_on_different_groups_of_one_optimizer():
    """Corrected before normalisations and Decoupled elsewhere: each lowered in its own groups."""
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    groups = wd.param_groups(model, 0.0, [wd.Group(before_norm=True), "matrices"])
    optimizer = optim.AdamW(groups, lr=0.1, weight_decay=0)
    before = wd.attach(optimizer, wd.Corrected(0.4, lr_max=0.2), model=model, on=wd.Group(before_norm=True))
    after = wd.attach(optimizer, wd.Decoupled(0.3), model=model, on=wd.Group(name="2.weight"))
    assert (list(before.plan.native), list(after.plan.native)) == ([0], [1])
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(5, 4)).sum().backward()
        optimizer.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.4 * 0.5, 0.3, 0]
    before.detach()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0.3, 0]
    optimizer.param_groups[2]["weight_decay"] = 0.1
    with pytest.raises(wd.InputError, match=r"already decays.*group 2 = 0.1"):
        optimizer.step()


def test_lr_that_grows_beyond_reach_stops_the_step():
    model, optimizer = sgd()
    wd.attach(optimizer, wd.Decoupled(0.5), model=model)
    train(model, optimizer, 1)
    optimizer.param_groups[0]["lr"] = 2.0
    before = model.first.weight.detach().clone()
    with pytest.raises(wd.InputError, match=r"group 0 = 1 at lr = 2, step 1; lower lr or the strength"):
        train(model, optimizer, 1)
    assert torch.equal(model.first.weight, before)


def test_lr_above_its_peak_is_warned_about_once():
    model, optimizer = sgd()
    wd.attach(optimizer, wd.Corrected(0.5, lr_max=0.05), model=model)
    with pytest.warns(wd.WeightDecayWarning, match=r"lr = 0.1 of parameter group 0 is above lr_max = 0.05"):
        train(model, optimizer, 1)
    train(model, optimizer, 1)


@pytest.mark.parametrize(
    ("rule", "make", "message"),
    [
        (wd.Decoupled(5.0), sgd, "very fast"),
        (wd.Decoupled(1e-9), sgd, "is lost in float32"),
        (wd.L2(0.1), lambda: sgd(momentum=0.9), "weights oscillate"),
        (wd.L2(0.1), adamw, "no decay rate"),
    ],
)
def test_advice_comes_as_a_warning(rule, make, message):
    model, optimizer = make()
    if message.startswith("is lost"):
        model = Model(dtype=torch.float32)
        optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    with pytest.warns(wd.WeightDecayWarning, match=message):
        wd.attach(optimizer, rule, model=model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {}, "not the state of a decay"),
        (lambda s: {**s, "rule": "Decoupled(weight_decay=0.1)"}, "belongs to another rule"),
        (lambda s: {**s, "parameters": {}}, "not the same parameters decay.*only the optimizer has it"),
        (
            lambda s: {**s, "parameters": {**s["parameters"], "third": [{}]}},
            "not the same parameters decay: state_dict = third; only the saved state has it",
        ),
        (
            lambda s: {**s, "parameters": {k: [{"point": torch.ones(1)}] for k in s["parameters"]}},
            r"does not fit: point of first.weight = \(1,\); \(3, 4\) is needed",
        ),
        (lambda s: {**s, "parameters": {k: [{}] for k in s["parameters"]}}, "does not fit"),
        (
            lambda s: {**s, "parameters": {k: [] for k in s["parameters"]}},
            r"a state for another number of rules: first.weight = 0",
        ),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    model, optimizer = sgd()
    decay = wd.attach(optimizer, wd.Toward(0.1), model=model)
    train(model, optimizer, 2)
    before = decay.state_dict()["parameters"]["first.weight"][0]["point"].clone()
    with pytest.raises(wd.InputError, match=message):
        decay.load_state_dict(change(decay.state_dict()))
    assert torch.equal(decay.state_dict()["parameters"]["first.weight"][0]["point"], before)
    assert decay.steps == 2


def test_the_scheduler_of_another_optimizer():
    model, optimizer = sgd()
    other = optim.lr_scheduler.CosineAnnealingLR(sgd()[1], 10)
    with pytest.raises(wd.InputError, match="belongs to another optimizer: schedule = CosineAnnealingLR"):
        wd.attach(optimizer, wd.Corrected(0.1), model=model, schedule=other, steps=10)


def test_a_peak_below_the_lr_is_refused_at_once():
    model, optimizer = sgd()
    with pytest.raises(wd.InputError, match=r"lr²/lr_max·weight_decay.* = 1 .*or give the true lr_max"):
        wd.attach(optimizer, wd.Corrected(0.1, lr_max=0.001), model=model)


def test_pulling_to_a_point_is_not_called_weak():
    """Half a percent a run is what L2-SP means; a decay toward zero would be warned about."""
    model, optimizer = sgd()
    wd.attach(optimizer, wd.Toward(1e-4), model=model, schedule=[0.1] * 500).detach()
    with pytest.warns(wd.WeightDecayWarning, match="^Decoupled on SGD: the decay does next to nothing"):
        wd.attach(optimizer, wd.Decoupled(1e-4), model=model, schedule=[0.1] * 500)


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_are_refused(copying):
    model, optimizer = sgd()
    decay = wd.attach(optimizer, wd.Decoupled(0.1), model=model)
    with pytest.raises(wd.InputError, match=r"cannot be copied or pickled.*attach the rule to the copy"):
        copying(decay)


def test_without_names_state_goes_by_position():
    model = Model()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    decay = wd.attach(optimizer, wd.Toward(0.1))
    assert list(decay.state_dict()["parameters"]) == ["group 0, position 0", "group 0, position 2"]
    assert "state goes by group and position" in repr(decay)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from torch.compile
def test_names_are_those_of_the_model_without_its_wrappers():
    model = Model()
    for wrapped in (torch.compile(model), nn.DataParallel(model)):
        optimizer = optim.SGD(wrapped.named_parameters(), lr=0.1)
        decay = wd.attach(optimizer, wd.Toward(0.1), model=wrapped)
        assert list(decay.state_dict()["parameters"]) == ["first.weight", "second.weight"]


def test_a_long_list_is_shown_by_what_it_has_in_common():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(20)))
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    lines = repr(wd.attach(optimizer, wd.Decoupled(0.1), model=model)).splitlines()
    assert lines[2:] == [
        "    decays    20 parameters, 180 elements: weight of Linear (0.weight, 1.weight, 2.weight, ...)",
        "    no decay  20 parameters, 60 elements: bias of Linear (0.bias, 1.bias, 2.bias, ...)",
    ]


class TestWeightDecayScheduler:
    def test_on_an_optimizer(self):
        model = Model()
        groups = wd.param_groups(model, weight_decay=0.2)
        optimizer = optim.AdamW(groups, lr=0.1)
        scheduler = wd.WeightDecayScheduler(optimizer, lambda t: 1 / (1 + t))
        assert scheduler.get_last_weight_decay() == [0.2, 0.0]
        for t in range(1, 4):
            scheduler.step()
            assert scheduler.get_last_weight_decay() == [0.2 / (1 + t), 0.0]
        resumed = wd.WeightDecayScheduler(optimizer, lambda t: 1 / (1 + t))
        resumed.load_state_dict(scheduler.state_dict())
        resumed.step()
        scheduler.step()
        assert resumed.get_last_weight_decay() == scheduler.get_last_weight_decay()
        assert scheduler.get_last_weight_decay() == pytest.approx([0.2 / 5, 0.0])

    @pytest.mark.parametrize("kind", [optim.AdamW, optim.SGD])
    def test_on_a_decay_is_a_strength_by_step(self, kind):
        """Lowered (AdamW, whole groups) and by hooks: the same as a function of the step in the rule."""
        results = []
        for scheduled in (True, False):
            model = Model()
            optimizer = kind(model.named_parameters(), lr=0.1, weight_decay=0)
            strength = 0.5 if scheduled else (lambda t: 0.5 * (1 / (1 + t)))
            decay = wd.attach(optimizer, wd.Decoupled(strength), model=model, on="all")
            scheduler = wd.WeightDecayScheduler(decay, lambda t: 1 / (1 + t)) if scheduled else None
            assert decay.strengths() == [0.5]
            for _ in range(4):
                train(model, optimizer, 1)
                if scheduler:
                    scheduler.step()
            results.append([w.detach() for w in model.parameters()])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: wd.WeightDecayScheduler(sgd()[1], float), "no group has a weight_decay to multiply"),
            (
                lambda: wd.WeightDecayScheduler(adamw(weight_decay=0.1)[1], lambda t: -1.0),
                r"factor\(0\) = -1",
            ),
        ],
    )
    def test_bad_input(self, make, message):
        with pytest.raises(wd.InputError, match=message):
            make()

    def test_an_optimizer_that_a_rule_governs(self):
        model, optimizer = adamw()
        wd.attach(optimizer, wd.Decoupled(0.1), model=model, on="all")
        with pytest.raises(wd.InputError, match=r"a rule is attached.*give the Decay"):
            wd.WeightDecayScheduler(optimizer, lambda t: 1.0)

    def test_no_state_and_no_start(self):
        optimizer = adamw(weight_decay=0.1)[1]
        with pytest.raises(wd.InputError, match=r"factor\(0\) = nan"):
            wd.WeightDecayScheduler(optimizer, lambda t: float("nan"))
        assert "initial_weight_decay" not in optimizer.param_groups[0]
        with pytest.raises(wd.InputError, match="does not know the strengths to go on from"):
            wd.WeightDecayScheduler(optimizer, lambda t: 1.0, last_epoch=3)
        scheduler = wd.WeightDecayScheduler(optimizer, lambda t: 1.0)
        with pytest.raises(wd.InputError, match="not the state of a scheduler"):
            scheduler.load_state_dict({"epoch": 3})
        with pytest.raises(wd.InputError, match="last_epoch = -2"):
            scheduler.load_state_dict({"last_epoch": -2})

    def test_going_to_an_epoch_and_groups_that_come_later(self):
        model, other = Model(), nn.Parameter(torch.ones(2))
        optimizer = optim.AdamW(model.named_parameters(), lr=0.1, weight_decay=0.2)
        scheduler = wd.WeightDecayScheduler(optimizer, lambda t: 1 / (1 + t))
        optimizer.add_param_group({"params": [("other", other)], "weight_decay": 0.4})
        scheduler.step(3)
        assert scheduler.last_epoch == 3
        assert scheduler.get_last_weight_decay() == [0.05, 0.1]
