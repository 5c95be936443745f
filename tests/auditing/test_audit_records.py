"""What an audit says of each parameter: against hand-written truth and against steps really taken."""

import math

import pytest
import torch
from torch import nn, optim

import weightdecay as wd
from weightdecay.auditing.run import audit


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(6, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def by_name(found):
    return {one.name: one for one in found.parameters}


def test_every_field_of_a_record():
    model = small()
    model[3].bias.requires_grad_(False)
    found = audit(model, optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3), steps=10_000)
    one = by_name(found)["1.weight"]
    assert (one.module, one.role, one.shape, one.dtype, one.numel) == (
        *("Linear", "matrix", (8, 8), "float32"),
        64,
    )
    assert (one.optimizer, one.group, one.weight_decay, one.form) == ("AdamW", 0, 0.1, "decoupled")
    assert one.half_life == pytest.approx(math.log(2) / -math.log1p(-1e-4))
    assert one.share_of_run == pytest.approx(one.half_life / 10_000)
    assert "weight of Linear" in one.why
    assert "group 0 'decay' of AdamW" in one.why
    frozen = by_name(found)["3.bias"]
    assert (frozen.frozen, frozen.optimizer, frozen.weight_decay) == (True, None, 0.0)
    assert [(group.optimizer, group.group) for group in found.groups] == [
        ("AdamW", 0),
        ("AdamW", 1),
        (None, None),
    ]
    assert [group.elements for group in found.groups] == [64 + 16, 48 + 8 + 8 + 8, 2]
    assert (found.elements, found.decaying) == (154, 80)
    assert found.groups[0].weight_decay == (0.1,)
    assert found.groups[0].decaying == 80
    assert found.groups[1].decaying == 0


def after_steps(make, steps, weight=1.0):
    """What is left of a weight whose gradient is zero, after real steps."""
    layer = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(layer.weight, weight)
    optimizer = make(layer)
    for _ in range(steps):
        layer.weight.grad = torch.zeros_like(layer.weight)
        optimizer.step()
    return layer, optimizer, layer.weight.item() / weight


def attached(rule):
    def make(layer):
        optimizer = optim.SGD(layer.parameters(), lr=0.1)
        wd.attach(optimizer, rule, model=layer, schedule=[0.1] * 10)
        return optimizer

    return make


@pytest.mark.parametrize(
    "make",
    [
        lambda layer: optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.2),
        lambda layer: optim.Adam(layer.parameters(), lr=0.1, weight_decay=0.2, decoupled_weight_decay=True),
        lambda layer: optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.2),
        lambda layer: optim.Muon(layer.parameters(), lr=0.1, weight_decay=0.2),
        lambda layer: optim.Adafactor(layer.parameters(), lr=0.1, weight_decay=0.2),
        attached(wd.Decoupled(0.2)),
        attached(wd.Independent(0.02)),
        attached(wd.Corrected(0.2)),
        attached(wd.L2(0.2)),
        attached(wd.Decoupled(wd.HalfLife(steps=35))),
    ],
)
def test_the_half_life_is_that_of_real_steps(make):
    layer, optimizer, left = after_steps(make, 50)
    life = audit(layer, optimizer).parameters[0].half_life
    assert 50 / -math.log2(left) == pytest.approx(life, rel=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_half_life_with_momentum_is_that_of_real_steps(nesterov):
    def make(layer):
        return optim.SGD(layer.parameters(), lr=0.1, weight_decay=5e-4, momentum=0.9, nesterov=nesterov)

    layer, optimizer, early = after_steps(make, 1000)
    _, _, late = after_steps(make, 3000)  # past what momentum does at the start
    life = audit(layer, optimizer).parameters[0].half_life
    assert 2000 / -math.log2(late / early) == pytest.approx(life, rel=1e-6)


def test_the_half_life_is_at_the_peak_of_the_schedule():
    model = small()
    optimizer = optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=1000)
    found = audit(model, optimizer, schedule=schedule, steps=1000)
    assert by_name(found)["1.weight"].half_life == pytest.approx(math.log(2) / -math.log1p(-1e-3), rel=1e-4)


def test_adam_with_l2_and_no_decay_have_no_half_life():
    model = small()
    assert (
        by_name(audit(model, optim.Adam(model.parameters(), weight_decay=0.1)))["1.weight"].half_life is None
    )
    assert by_name(audit(model, optim.Adam(model.parameters())))["1.weight"].half_life is None
    assert by_name(audit(model, optim.Adam(model.parameters())))["1.weight"].form == "none"


def test_an_attached_rule_is_found_with_its_strength_scale_and_reason():
    model = small()
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    wd.attach(optimizer, wd.Cautious(0.2), model=model, on=[wd.Group(name="3.weight", scale=0.5), "matrices"])
    found = by_name(audit(model, optimizer))
    assert (found["3.weight"].weight_decay, found["1.weight"].weight_decay) == (0.1, 0.2)
    assert found["1.weight"].form == "cautious"
    assert found["1.weight"].rule == "Cautious(weight_decay=0.2), attached"
    assert "group '3.weight'" in found["3.weight"].why
    assert found["2.weight"].weight_decay == 0


def test_a_rule_that_the_optimizer_does_itself_is_said_as_the_rule():
    model = small()
    optimizer = optim.AdamW(wd.param_groups(model, 0.0), lr=1e-3, weight_decay=0.0)
    wd.attach(optimizer, wd.Independent(0.002, lr_max=1e-3), model=model)
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(2.0)
    found = audit(model, optimizer)
    assert not found.findings
    assert by_name(found)["1.weight"].weight_decay == pytest.approx(0.002)
    assert by_name(found)["1.weight"].form == "independent"


def test_a_chain_adds_up():
    model = small()
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    wd.attach(optimizer, wd.chain(wd.Decoupled(0.1), wd.Cautious(0.3)), model=model)
    one = by_name(audit(model, optimizer))["1.weight"]
    assert one.form == "decoupled+cautious"
    assert 0.5 ** (1 / one.half_life) == pytest.approx((1 - 0.01) * (1 - 0.03))


def test_several_optimizers_of_one_class_are_told_apart():
    model = small()
    one = optim.AdamW(model[1].parameters(), lr=1e-3, weight_decay=0.1)
    two = optim.AdamW([*model[0].parameters(), *model[2:].parameters()], lr=1e-3, weight_decay=0.2)
    found = by_name(audit(model, [one, two]))
    assert found["1.weight"].optimizer == "AdamW (1 of 2)"
    assert found["3.weight"].optimizer == "AdamW (2 of 2)"


def test_tied_weights_are_one_parameter_with_both_names():
    model = nn.Sequential(nn.Embedding(6, 8), nn.Linear(8, 6, bias=False))
    model[1].weight = model[0].weight
    (one,) = audit(model, optim.AdamW(wd.param_groups(model, 0.1))).parameters
    assert (one.name, one.aliases, one.role) == ("0.weight", ("1.weight",), "head")


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel, lambda model: compiled(nn.DataParallel(model))])
def test_wrappers_are_seen_through(wrap):
    model = small()
    optimizer = optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3)
    plain, wrapped = audit(model, optimizer), audit(wrap(model), optimizer)
    assert wrapped.parameters == plain.parameters
    assert wrapped.findings == plain.findings == ()


def test_a_frozen_parameter_with_a_gradient_left_over_goes_on_decaying():
    model = nn.Linear(2, 2, bias=False)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    model.weight.requires_grad_(False)
    assert audit(model, optimizer).parameters[0].weight_decay == 0
    model.weight.grad = torch.zeros(2, 2)
    assert audit(model, optimizer).parameters[0].weight_decay == 0.1
    before = model.weight.clone()
    optimizer.step()
    assert not torch.equal(before, model.weight)  # it does


def test_the_table_has_a_row_for_each_and_an_audit_prints():
    model = small()
    found = audit(model, optim.AdamW(model.parameters(), lr=1e-3), ignore={"WD303": "chosen & <meant>"})
    table = found.table()
    assert table["name"].to_list() == [name for name, _ in model.named_parameters()]
    assert table["weight_decay"].sum() == pytest.approx(0.07)
    text, html = str(found), found._repr_html_()
    assert "WD101 warning" in text
    assert "1.weight" in text
    assert "ignored WD303: chosen & <meant>" in text
    assert "chosen &amp; &lt;meant&gt;" in html
    assert "<meant>" not in html


def test_a_large_model_is_shown_by_group_and_role():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(60)))
    text = str(audit(model, optim.AdamW(wd.param_groups(model, 0.1))))
    assert len(text.splitlines()) == 8
    assert "AdamW 0 'decay': 60 parameters, 960 elements, 960 decay at 0.1, lr = 0.001" in text


def test_errors_come_first_and_names_are_escaped_in_a_notebook():
    model = nn.ModuleDict({"<b>": nn.Linear(2, 2), "forgotten": nn.Linear(2, 2)})
    found = audit(model, optim.AdamW(model["<b>"].parameters(), weight_decay=0.1))
    assert [one.severity for one in found.findings] == ["error", "warning"]
    assert found.errors + found.warnings == found.findings
    html = found._repr_html_()
    assert "&lt;b&gt;.weight" in html
    assert "<b>" not in html
