"""Each check: what it finds and, as important, what it leaves alone; numbers against steps really taken."""

import math

import pytest
import torch
from torch import nn, optim

import weightdecay as wd
from weightdecay.auditing.run import audit


def small(**options):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2)).to(**options)


def good(model, weight_decay=0.1, lr=1e-3):
    return optim.AdamW(wd.param_groups(model, weight_decay), lr=lr)


def found(*arguments, **settings):
    """The names that each code is about."""
    result: dict[str, tuple[str, ...]] = {}
    for one in audit(*arguments, **settings).findings:
        result[one.code] = result.get(one.code, ()) + one.parameters
    return result


# Which parameters decay


@pytest.mark.parametrize("groups", ["all", None])
def test_who_wants_everything_to_decay_is_told_nothing(groups):
    model = small()
    assert found(model, optim.AdamW(model.parameters(), weight_decay=0.1), groups=groups) == {}


def test_no_decay_at_all_is_a_choice():
    model = small()
    assert found(model, optim.Adam(model.parameters())) == {}
    assert found(model, optim.AdamW(model.parameters(), weight_decay=0.0)) == {}


def test_a_group_with_a_name_of_its_own_is_a_reason():
    model = small()
    exception = [wd.Group(name="2.weight", scale=0, label="the last layer"), "matrices"]
    named = optim.AdamW(wd.param_groups(model, 0.1, exception), lr=1e-3)
    assert found(model, named) == {"WD103": ("2.weight",)}
    parts = [
        {"params": [model[0].weight], "weight_decay": 0.1},
        {"params": [p for name, p in model.named_parameters() if name != "0.weight"], "weight_decay": 0.0},
    ]
    assert found(model, optim.AdamW(parts)) == {"WD103": ("2.weight",), "WD104": ("2.weight",)}


def test_layerwise_strengths_are_no_split():
    model = small()
    layers = [wd.Group(name=f"{i}.weight", role="matrix", scale=0.5**i) for i in (0, 2)]
    assert found(model, optim.AdamW(wd.param_groups(model, 0.1, [*layers, "matrices"]))) == {}


def test_an_exempt_parameter_that_is_forced_is_meant():
    model = small()
    model[0].weight._no_weight_decay = True
    force = [wd.Group(name="0.weight", force=True), "matrices"]
    optimizer = optim.AdamW(wd.param_groups(model, 0.1, force), lr=1e-3)
    assert found(model, optimizer) == {"WD107": ("0.weight",)}
    assert found(model, optimizer, groups=force) == {}
    bare = optim.SGD(model.named_parameters(), lr=0.1)
    wd.attach(bare, wd.Decoupled(0.1), model=model, on=force)
    assert found(model, bare) == {}


def test_rows_with_gradient_are_counted():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2, bias=False))
    optimizer = optim.AdamW(wd.param_groups(model, 0.1, "all"))
    model(torch.tensor([1, 2, 3])).sum().backward()
    (one,) = audit(model, optimizer).findings
    assert "7 of 10 rows" in one.message
    optimizer.zero_grad()
    model(torch.arange(10)).sum().backward()
    assert found(model, optimizer) == {}


# Coverage


def test_slices_of_one_storage_are_no_tie():
    model, memory = nn.Linear(4, 4), torch.randn(20)
    model.weight, model.bias = nn.Parameter(memory[:16].view(4, 4)), nn.Parameter(memory[16:])
    assert found(model, good(model)) == {}
    model.bias = nn.Parameter(memory[15:19])
    assert found(model, good(model)) == {"WD206": ("weight", "bias"), "WD204": ("weight", "bias")}


def test_columns_of_one_storage_are_no_tie():
    memory = torch.randn(4, 8)
    model = nn.ParameterList([nn.Parameter(memory[:, :4]), nn.Parameter(memory[:, 4:])])
    assert "WD206" not in found(model, good(model))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_transposed_tie_over_one_memory_is_found(device):
    model = nn.Sequential(
        nn.Linear(8, 4, bias=False, device=device), nn.Linear(4, 8, bias=False, device=device)
    )
    model[1].weight = nn.Parameter(model[0].weight.detach().T)
    assert found(model, good(model)) == {"WD206": ("0.weight", "1.weight")}
    model[1].weight.requires_grad_(False)
    assert found(model, good(model)) == {}


def test_twice_in_one_group():
    model = nn.Linear(2, 2, bias=False)
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = optim.AdamW([model.weight, model.weight], weight_decay=0.1)
    (one,) = audit(model, optimizer).findings
    assert (one.code, one.parameters) == ("WD202", ("weight",))
    assert "2 times in AdamW" in one.message


def test_several_models_in_a_list_of_modules():
    one, two = small(), small()
    optimizer = optim.AdamW([*wd.param_groups(one, 0.1), *wd.param_groups(two, 0.1)], lr=1e-3)
    assert len(found(one, optimizer)["WD203"]) == 6
    assert found(nn.ModuleList([one, two]), optimizer) == {}


# Form


def test_an_attached_l2_in_an_adaptive_optimizer_is_coupled():
    model = small()
    optimizer = optim.Adam(model.named_parameters())
    with pytest.warns(wd.WeightDecayWarning, match="adaptive"):
        wd.attach(optimizer, wd.L2(0.1), model=model)
    assert set(found(model, optimizer)) == {"WD301"}
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    wd.attach(optimizer, wd.L2(0.1), model=model)
    assert found(model, optimizer) == {}


def test_a_default_that_groups_differ_from_was_chosen():
    model = small()
    assert set(found(model, optim.AdamW(model.parameters()), groups=None)) == {"WD303"}
    assert found(model, optim.AdamW(wd.param_groups(model, 0.01))) == {}
    assert found(model, optim.SGD(model.parameters(), lr=0.1), groups=None) == {}


def test_the_table_of_torch_s_classes_is_what_the_probe_sees():
    from weightdecay.auditing.state import _probed
    from weightdecay.hooks.optimizers import form_of

    for kind in (
        *(optim.SGD, optim.ASGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax),
        *(optim.Adagrad, optim.RMSprop, optim.Adadelta, optim.Adafactor, optim.Muon),
    ):
        optimizer = kind([nn.Parameter(torch.ones(2, 2))], lr=1e-3, weight_decay=0.1)
        known = form_of(optimizer, optimizer.param_groups[0])
        assert known is not None
        assert known == _probed(optimizer, 0).form, kind


def test_a_decay_that_does_not_follow_the_schedule_is_told():
    class Constant(optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.mul_(1 - group["weight_decay"]).add_(p.grad, alpha=-group["lr"])

    model = small()
    optimizer = Constant(wd.param_groups(model, 1e-3), lr=0.1)
    assert found(model, optimizer) == {}
    assert set(found(model, optimizer, schedule="cosine", steps=1000)) == {"WD305"}
    life = audit(model, optimizer).parameters[0].half_life
    assert life == pytest.approx(math.log(2) / -math.log1p(-1e-3))


# Strength


def grown(lr, weight_decay, momentum, nesterov=False):
    """Whether real steps make a weight without gradient grow, and whether it ever changes its sign."""
    w = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = optim.SGD([w], lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)
    sizes = []
    for _ in range(400):
        w.grad = torch.zeros_like(w)
        optimizer.step()
        sizes.append(w.item())
    return abs(sizes[-1]) > 1, min(sizes) < 0


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_momentum_oscillates_and_diverges_where_the_findings_say(nesterov, factor):
    model = nn.Linear(2, 2, bias=False)
    mu = 0.9
    oscillates = ((1 - mu) / (1 + mu)) ** 2 if nesterov else (1 - math.sqrt(mu)) ** 2
    diverges = 2 * (1 + mu) / (1 + 2 * mu if nesterov else 1)
    options = {"lr": 0.1, "momentum": mu, "nesterov": nesterov}
    for limit, code, which in ((oscillates, "WD406", 1), (diverges, "WD401", 0)):
        strength = factor * limit / 0.1
        codes = found(model, optim.SGD(model.parameters(), weight_decay=strength, **options))
        assert (code in codes) == (factor > 1)
        assert grown(0.1, strength, mu, nesterov)[which] == (factor > 1)


@pytest.mark.parametrize(("lr", "wrong"), [(0.99, False), (1.0, True), (2.5, True)])
def test_decoupled_decay_overshoots_from_one_on(lr, wrong):
    model = nn.Linear(2, 2, bias=False)
    assert ("WD401" in found(model, optim.AdamW(model.parameters(), lr=lr, weight_decay=1.0))) == wrong


def test_the_peak_of_a_schedule_overshoots():
    model = nn.Linear(2, 2, bias=False)
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=2.0)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=100)
    assert "WD401" in found(model, optimizer, schedule=schedule, steps=100)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_what_is_below_precision_changes_no_weight(dtype, factor):
    floor = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12, torch.float32: 2.0**-25}[dtype]
    model = nn.Linear(100, 100, bias=False, dtype=dtype)
    # float16 has no 1e-8, Adam's own eps.
    optimizer = optim.AdamW(model.parameters(), lr=1.0, weight_decay=factor * floor, eps=1e-3)
    before = model.weight.detach().clone()
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    lost = torch.equal(before, model.weight)
    assert lost == (factor < 1)
    optimizer.zero_grad()
    (one,) = [one for one in audit(model, optimizer).findings if one.code == "WD402"]
    # Just above it decay happens, though not as much as it says.
    assert (one.severity == "error") == lost
    assert ("is lost in" if lost else "is quantised in") in one.message


def test_the_end_of_a_schedule_may_be_below_precision_but_not_most_of_the_decay():
    model = small()
    cosine = {"schedule": "cosine", "steps": 30_000}
    assert "WD402" not in found(model, good(model, 0.05), **cosine)
    weak = audit(model, good(model, 5e-5), **cosine)
    (one,) = [one for one in weak.findings if one.code == "WD402"]
    assert "of the steps" in one.message


def test_timescales_against_the_run_and_the_epoch():
    model = small()
    run = {"steps": 10_000, "steps_per_epoch": 100}
    assert set(found(model, good(model, 0.005), **run)) == {"WD403"}
    assert set(found(model, good(model, 0.05), **run)) == {"WD405"}
    assert set(found(model, good(model, 1.0), **run)) == set()
    assert set(found(model, good(model, 20.0), **run)) == {"WD404"}
    assert found(model, good(model, 0.005)) == {}  # nothing is known of the run


def test_a_group_with_step_size_zero_is_not_judged():
    model = small()
    optimizer = good(model)
    optimizer.param_groups[0]["lr"] = 0.0
    assert found(model, optimizer, steps=100) == {}


def test_warmup_does_not_hide_the_peak():
    model = small()
    optimizer = good(model, 0.1)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(t / 100, 1))
    assert optimizer.param_groups[0]["lr"] == 0
    assert audit(model, optimizer).parameters[0].half_life == pytest.approx(6931, rel=1e-3)
    assert found(model, optimizer, schedule=schedule, steps=20_000) == {}


# Mechanics


def test_a_scaler():
    model, scaler = small(), torch.amp.GradScaler("cpu")
    assert found(model, good(model), scaler=scaler) == {}
    off = audit(model, good(model), scaler=torch.amp.GradScaler("cpu", enabled=False))
    assert [(one.code, one.severity) for one in off.findings] == [("WD502", "info")]
    half = small(dtype=torch.float16)
    assert len(found(half, good(half), scaler=scaler)["WD502"]) == 6


def test_a_flag_that_a_state_dict_brought():
    model = small()
    adam, adamw = optim.Adam(wd.param_groups(model, 0.1)), optim.AdamW(wd.param_groups(model, 0.1))
    assert set(found(model, adam)) == {"WD301"}
    adam.load_state_dict(adamw.state_dict())
    assert found(model, adam) == {"WD503": ("0.weight", "2.weight")}
    chosen = optim.Adam(wd.param_groups(model, 0.1), decoupled_weight_decay=True)
    assert found(model, chosen) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_no_numbers_are_counted_and_large_ones_are_not(dtype):
    model = nn.Linear(4, 4, bias=False, dtype=dtype)
    optimizer = optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.1)
    nn.init.constant_(model.weight, torch.finfo(dtype).max)  # their sum is infinite
    assert "WD504" not in found(model, optimizer)
    with torch.no_grad():
        model.weight[0, :2] = torch.tensor([math.nan, -math.inf])
    (one,) = [one for one in audit(model, optimizer).findings if one.code == "WD504"]
    assert "weight 2" in one.message


def test_a_scheduler_for_each_optimizer_and_one_that_knows_fewer_groups():
    model = small()
    first, second = (
        optim.AdamW([model[0].weight], weight_decay=0.1),
        optim.SGD(model[1:].parameters(), lr=0.1),
    )
    rest = {"params": [model[0].bias], "weight_decay": 0.0}
    schedules = [optim.lr_scheduler.CosineAnnealingLR(one, 100) for one in (first, second)]
    assert "WD505" not in found(model, first, second, schedule=schedules, steps=100)
    first.add_param_group(rest)
    assert "WD505" in found(model, first, second, schedule=schedules, steps=100)


def test_the_defaults_of_an_optimizer_inside_were_not_chosen_here():
    class Around(optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer, self.defaults = optimizer, optimizer.defaults
            self.param_groups, self.state = optimizer.param_groups, optimizer.state

    model = small()
    assert "WD506" not in found(model, Around(good(model)))


def test_a_strength_that_is_not_the_optimizer_s():
    model = small()
    optimizer = optim.AdamW(wd.param_groups(model, 0.2), weight_decay=0.3)
    assert found(model, optimizer) == {"WD506": ("0.weight", "2.weight")}
    optimizer.param_groups[0]["weight_decay"] = 0.3
    assert found(model, optimizer) == {}


# Frozen, and still moving


@pytest.mark.parametrize(
    ("make", "gradient", "says"),
    [
        (lambda ps: optim.SGD(ps, lr=0.1, weight_decay=1e-3), 0.0, "decays"),
        (lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9), 0.0, "coasts"),
        (lambda ps: optim.Adam(ps, lr=0.1), 0.0, "coasts"),
        (lambda ps: optim.SGD(ps, lr=0.1), 1.0, "follows"),
        (lambda ps: optim.SGD(ps, lr=0.1), 0.0, None),
        (lambda ps: optim.SGD(ps, lr=0.0, weight_decay=1e-3), 1.0, None),
    ],
)
def test_what_is_frozen_is_told_to_move_where_a_step_moves_it(make, gradient, says):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)).double()
    optimizer = make(model.parameters())
    model(torch.randn(8, 4).double()).square().mean().backward()
    optimizer.step()
    frozen = model[0].weight.requires_grad_(False)
    frozen.grad.fill_(gradient)
    about = [one for one in audit(model, optimizer).findings if one.code == "WD207"]
    assert [one.parameters for one in about] == ([("0.weight",)] if says else [])
    assert all(says in one.message for one in about)
    before = frozen.detach().clone()
    optimizer.step()
    assert torch.equal(before, frozen) == (says is None)


def test_what_was_frozen_from_the_start_or_is_in_no_optimizer_is_not_told():
    model = small()
    model[0].requires_grad_(False)
    assert found(model, good(model)) == {}
    optimizer = good(model)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    assert found(model, optimizer) == {}


# What should not decay


def test_what_the_audit_s_own_groups_leave_out_and_decays_is_told_by_role():
    model = small()
    groups = [wd.Group(name="2.*", scale=0), "matrices"]
    assert found(model, good(model), groups=groups) == {"WD108": ("2.weight",)}
    assert found(model, optim.AdamW(wd.param_groups(model, 0.1, groups)), groups=groups) == {}


# Which strengths were said


@pytest.mark.parametrize(
    ("groups", "asked"),
    [
        (lambda ps: [{"params": ps, "weight_decay": 0.01}], False),
        (lambda ps: [{"params": ps, "lr": 1e-3, "weight_decay": 0.01}], False),
        (lambda ps: [{"params": ps, "lr": 1e-3}], True),
        (lambda ps: [{"params": ps}], True),
        (lambda ps: ps, True),
    ],
)
def test_a_default_that_a_group_says_was_chosen(groups, asked):
    model = nn.Linear(3, 2, bias=False)
    optimizer = optim.AdamW(groups(list(model.parameters())))
    assert ("WD303" in found(model, optimizer)) == asked
    optimizer.load_state_dict(optimizer.state_dict())
    assert ("WD303" in found(model, optimizer)) == asked
