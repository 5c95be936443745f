"""What users do to model and optimizer while a rule is attached; what a failing `attach` leaves behind."""

import functools
import warnings
from dataclasses import dataclass

import pytest
import torch
from tests.hooks.zoo import LR, Model, closure_of, same, train, weights
from torch import nn, optim

import weightdecay as wd
from weightdecay.rules import RULES

# Strengths here are for reckoning, not for training.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")


def ones(count=3, optimizer=optim.SGD, **options):
    """Weights of 1 with zero gradients: what is left is what decay left."""
    ws = [nn.Parameter(torch.ones(2, 2, dtype=torch.float64)) for _ in range(count)]
    for w in ws:
        w.grad = torch.zeros_like(w)
    named = [(f"w{i}", w) for i, w in enumerate(ws)]
    return ws, optimizer(named, **{"lr": 0.1, **options})


@pytest.mark.parametrize("tensor", ["lr", "strength", "neither"])
@pytest.mark.parametrize("kind", [optim.SGD, optim.Adagrad, optim.RMSprop, optim.Adadelta, optim.Adamax])
@pytest.mark.parametrize("name", ["Decoupled", "Corrected", "Cautious", "Toward"])
def test_every_parameter_of_a_group_decays_once(name, kind, tensor):
    """Numbers and tensors alike: three parameters in one group, one of them at half the strength."""
    lr = torch.tensor(0.1, dtype=torch.float64) if tensor == "lr" else 0.1
    strength = torch.tensor(0.5, dtype=torch.float64) if tensor == "strength" else 0.5
    ws, optimizer = ones(optimizer=kind, lr=lr)
    more = {"Corrected": {"lr_max": 0.2}, "Toward": {"to": {f"w{i}": torch.zeros(2, 2) for i in range(3)}}}
    rule = RULES[name](strength, **more.get(name, {}))
    wd.attach(optimizer, rule, on=[wd.Group(name="w2", scale=0.5), wd.Group(name="*")])
    optimizer.step()
    rate = 0.025 if name == "Corrected" else 0.05
    for w, left in zip(ws, (1 - rate, 1 - rate, 1 - rate / 2), strict=True):
        torch.testing.assert_close(w.detach(), torch.full_like(w, left), rtol=1e-12, atol=0)


def test_no_back_door_into_a_refused_cell():
    """A mixed group or a constant law would need hooks, which schedule-free weights do not bear."""
    schedulefree = pytest.importorskip("schedulefree")
    model = Model()
    for rule, on in ((wd.Decoupled(0.4), "matrices"), (wd.Decoupled(wd.HalfLife(steps=20)), "all")):
        optimizer = schedulefree.AdamWScheduleFree(model.named_parameters(), lr=0.1)
        with pytest.raises(wd.InputError, match=r"two sequences.*on groups that wd.param_groups made"):
            wd.attach(optimizer, rule, model=model, on=on)
        assert not optimizer._optimizer_step_pre_hooks
    differentiable = optim.AdamW(model.named_parameters(), lr=0.1, weight_decay=0, differentiable=True)
    with pytest.raises(wd.InputError, match="part of a graph"):
        wd.attach(differentiable, wd.Decoupled(0.4), model=model)
    assert list(wd.attach(differentiable, wd.Decoupled(0.4), model=model, on="all").plan.native) == [0]


def test_a_subclass_that_does_something_else_is_not_lowered():
    @dataclass(frozen=True)
    class Half(wd.Decoupled):
        def decayed(self, w, step):
            return w * (1 - step.rate / 2)

    @dataclass(frozen=True)
    class Twofold(wd.L2):
        def gradient(self, g, w, step, out=None):
            return g + 2 * step.weight_decay * w

    @dataclass(frozen=True)
    class Brave(wd.Cautious):
        def decayed(self, w, step):
            return w * (1 - step.rate)

    for kind, rule, left in (
        (optim.AdamW, Half(0.5), 0.975),
        (optim.SGD, Half(0.5), 0.975),
        (optim.SGD, Twofold(0.5), 0.9),
        (optim.AdamW, Brave(0.5), 0.95),
    ):
        ws, optimizer = ones(optimizer=kind, weight_decay=0)
        wd.attach(optimizer, rule, on="all")
        optimizer.step()
        torch.testing.assert_close(ws[0].detach(), torch.full_like(ws[0], left))
    for name in ("Half", "Twofold", "Brave"):
        del RULES[name]  # they are no part of the contract table


def test_new_gradients_after_a_failed_step_are_not_replaced_by_old_ones():
    w = nn.Parameter(torch.ones(1))
    optimizer = optim.AdamW([("w", w)], lr=0.1, weight_decay=0)
    with pytest.warns(wd.WeightDecayWarning, match="no decay rate"):
        wd.attach(optimizer, wd.L2(0.5), on="all")

    def broken(*_):
        raise KeyError("no batch")

    w.grad = torch.full_like(w, 100.0)
    handle = optimizer.register_step_pre_hook(broken)
    with pytest.raises(KeyError):
        optimizer.step()
    handle.remove()
    w.grad = new = torch.ones_like(w)
    optimizer.step()
    assert w.grad is new


def test_a_parameter_that_was_replaced_decays():
    _, optimizer = ones(1)
    wd.attach(optimizer, wd.Decoupled(0.5), on="all")
    new = nn.Parameter(torch.ones(5, 2, dtype=torch.float64))
    new.grad = torch.zeros_like(new)
    optimizer.param_groups[0]["params"][0] = new
    optimizer.step()
    torch.testing.assert_close(new.detach(), torch.full_like(new, 0.95))


@pytest.mark.parametrize("kind", [optim.SGD, optim.RMSprop])
def test_two_rules_that_look_at_the_update(kind):
    """Each starts from what the other left, whether u is read before the step or after it."""
    ws, optimizer = ones(1, kind)
    wd.attach(optimizer, wd.chain(wd.Cautious(5.0), wd.Cautious(5.0)), on="all")
    optimizer.step()
    torch.testing.assert_close(ws[0].detach(), torch.full_like(ws[0], 0.25))


@pytest.mark.parametrize("kind", [optim.SGD, optim.RMSprop])
def test_rules_that_look_at_the_update_come_last(kind):
    """Toward first, whatever the order of the chain: 1 -> 1.1 -> 1.045, not 1 -> .95 -> 1.055."""
    ws, optimizer = ones(1, kind)
    toward = wd.Toward(1.0, to={"w0": torch.full((2, 2), 2.0)})
    wd.attach(optimizer, wd.chain(wd.Cautious(0.5), toward), on="all")
    optimizer.step()
    torch.testing.assert_close(ws[0].detach(), torch.full_like(ws[0], 1.1 * 0.95))


def test_two_penalties_and_the_users_gradient():
    ws, optimizer = ones(1)
    own = ws[0].grad
    wd.attach(optimizer, wd.chain(wd.L2(0.5), wd.L2(0.25)), on="all")
    for left in (0.925, 0.925**2):
        optimizer.step()
        torch.testing.assert_close(ws[0].detach(), torch.full_like(ws[0], left))
        assert ws[0].grad is own
        assert not own.any()


def test_an_optimizer_that_ignores_its_closure():
    class Deaf(optim.SGD):
        def step(self, closure=None):
            return super().step()

    ws, optimizer = ones(1, Deaf)
    wd.attach(optimizer, wd.Decoupled(0.5), on="all")
    with pytest.raises(wd.InputError, match=r"did not evaluate its closure.*Deaf; make the gradients first"):
        optimizer.step(lambda: 0.0)
    optimizer.step()
    torch.testing.assert_close(ws[0].detach(), torch.full_like(ws[0], 0.95))


def test_a_loss_in_the_place_of_a_closure_is_left_alone():
    class TakesLoss(optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1})
            self.seen = []

        def step(self, loss=None):
            self.seen.append(loss)

    ws, _ = ones(1)
    optimizer = TakesLoss(ws)
    wd.attach(optimizer, wd.Decoupled(0.5), on="all")
    optimizer.step(3.5)
    assert optimizer.seen == [3.5]
    torch.testing.assert_close(ws[0].detach(), torch.full_like(ws[0], 0.95))


def test_a_rate_beyond_one_is_refused_for_a_tensor_lr_too():
    ws, optimizer = ones(1, lr=torch.tensor(0.1))
    wd.attach(optimizer, wd.Decoupled(0.5), on="all")
    optimizer.param_groups[0]["lr"] = torch.tensor(6.0)
    with pytest.raises(wd.InputError, match="3 at lr = 6"):
        optimizer.step()
    assert ws[0].detach().eq(1).all()


def test_a_failing_attach_sets_no_option():
    ws, _ = ones(2)
    groups = [{"params": [("a", ws[0])], "lr": 0.1}, {"params": [("b", ws[1])], "lr": 10.0}]
    optimizer = optim.AdamW(groups, weight_decay=0)
    with pytest.raises(wd.InputError, match="whole weight"):
        wd.attach(optimizer, wd.Corrected(0.5, lr_max=0.1))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0]
    assert not optimizer._optimizer_step_pre_hooks


def test_warnings_as_errors_leave_nothing_attached():
    model = Model()
    optimizer = optim.AdamW(model.named_parameters(), lr=0.1, weight_decay=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # within the test, after the module's filter
        with pytest.raises(wd.WeightDecayWarning):
            wd.attach(optimizer, wd.L2(0.5), model=model)
    assert not optimizer._optimizer_step_pre_hooks


def test_a_group_that_comes_after_the_schedule():
    """One row of learning rates counts for it, too; rows by group do not, and say so."""
    for schedule in ([0.1, 0.1], [[0.1, 0.1]]):
        _, optimizer = ones(1)
        late = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        late.grad = torch.zeros_like(late)
        wd.attach(optimizer, wd.Corrected(5.0), on="all", schedule=schedule)
        optimizer.add_param_group({"params": [("late", late)]})
        optimizer.step()
        torch.testing.assert_close(late.detach(), torch.full_like(late, 0.5))
    _, optimizer = ones(1)
    optimizer.add_param_group({"params": [("second", nn.Parameter(torch.ones(2, 2)))]})
    wd.attach(optimizer, wd.Corrected(5.0), on="all", schedule=[[0.1], [0.1]])
    optimizer.add_param_group({"params": [("third", nn.Parameter(torch.ones(2, 2)))]})
    with pytest.raises(wd.InputError, match="came later: schedule = 2 rows; there is no row for group 2"):
        optimizer.step()


def test_freezing_during_training():
    """Selectors that select nothing any more are no error then; nor is an optimizer with nothing to train."""
    model = Model()
    optimizer = optim.SGD(model.named_parameters(), lr=LR)
    on = [wd.Group(name="first.*", scale=0.5), "matrices"]
    decay = wd.attach(optimizer, wd.Toward(0.5), model=model, on=on)
    train(model, optimizer, 1)
    model.first.requires_grad_(False)
    train(model, optimizer, 1)
    assert [target.name for target in decay.plan.all_targets] == ["second.weight"]
    assert list(decay.state_dict()["parameters"]) == ["second.weight"]
    resumed = Model()
    resumed.first.requires_grad_(False)
    again = optim.SGD(resumed.named_parameters(), lr=LR)
    wd.attach(again, wd.Toward(0.5), model=resumed, on=["matrices"]).load_state_dict(decay.state_dict())
    model.second.requires_grad_(False)
    for w in model.parameters():
        w.grad = None
    optimizer.step()
    assert decay.plan.all_targets == ()


@pytest.mark.parametrize("rule", [wd.Toward(0.5), wd.L2(0.5), wd.Cautious(0.5)], ids=lambda rule: rule.shown)
def test_a_model_that_was_cast_after_a_step(rule):
    """State, gradients with a penalty and weights before the step follow the weights' type."""
    model = Model(dtype=torch.float32)
    optimizer = optim.Adafactor(model.named_parameters(), lr=LR)
    decay = wd.attach(optimizer, rule, model=model)
    train(model, optimizer, 1)
    model.double()
    model.x, model.y = model.x.double(), model.y.double()
    optimizer.state.clear()  # torch's own would not follow
    train(model, optimizer, 2)
    (state,) = decay.state_dict()["parameters"]["first.weight"]
    assert all(tensor.dtype == torch.float64 for tensor in state.values())


@pytest.mark.parametrize("name", ["Independent", "Corrected", "Cautious", "Decoupled"])
@pytest.mark.parametrize("lr_now", [0.2, 0.1])
def test_half_lives_follow_the_law_of_the_rule(name, lr_now):
    """At the peak a half-life of 10 steps halves in ten; at half the peak the rate is 1/2, by lr² 1/4."""
    ws, optimizer = ones(1, lr=lr_now)
    more = {"lr_max": 0.2} if "lr_max" in RULES[name].__dataclass_fields__ else {}
    half_life = wd.HalfLife(steps=10) if more else wd.HalfLife(steps=10, lr=0.2)
    wd.attach(optimizer, RULES[name](half_life, **more), on="all")
    for _ in range(10):
        optimizer.step()
    part = (lr_now / 0.2) ** (2 if name == "Corrected" else 1)
    expected = (1 - part * (1 - 0.5**0.1)) ** 10
    torch.testing.assert_close(ws[0].detach(), torch.full_like(ws[0], expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["Independent", "Corrected", "Cautious", "Decoupled"])
@pytest.mark.parametrize("schedule", [[0.2, 0.1, 0.05, 0.0] * 5, None])
def test_half_lives_of_a_run_follow_the_law_of_the_rule(name, schedule):
    if schedule is None and name in ("Independent", "Corrected"):
        pytest.skip("they need a peak")
    ws, optimizer = ones(1, lr=0.2)
    context = {"steps": 20} if schedule is None else {"schedule": schedule}
    wd.attach(optimizer, RULES[name](wd.HalfLives(per_run=2)), on="all", **context)
    for lr in schedule or [0.2] * 20:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    torch.testing.assert_close(ws[0].detach(), torch.full_like(ws[0], 0.25), rtol=1e-12, atol=0)


def test_a_group_whose_lr_stays_zero():
    first, second = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    groups = [{"params": [("a", first)]}, {"params": [("b", second)], "lr": 0.0}]
    schedule = [[0.1, 0.1], [0.0, 0.0]]
    optimizer = optim.SGD(groups, lr=0.1)
    with pytest.raises(wd.InputError, match="no half-life at a learning rate of 0: schedule = group 1"):
        wd.attach(optimizer, wd.Decoupled(wd.HalfLife(steps=5)), schedule=schedule)
    on = wd.Group(name="a")
    for rule in (wd.Decoupled(wd.HalfLife(steps=5)), wd.Independent(0.1), wd.Decoupled(wd.HalfLives(1))):
        wd.attach(optimizer, rule, on=on, schedule=schedule).detach()


def test_an_optimizer_without_a_learning_rate():
    class Bare(optim.Optimizer):
        def step(self, closure=None):
            return None

    for defaults, found in (({}, "None"), ({"lr": None}, "None"), ({"lr": "auto"}, "'auto'")):
        optimizer = Bare([nn.Parameter(torch.ones(2, 2))], defaults)
        with pytest.raises(wd.InputError, match=f"no learning rate.*lr of parameter group 0 = {found}"):
            wd.attach(optimizer, wd.Decoupled(0.5))


def test_functions_of_the_step_that_fail():
    _, optimizer = ones(1)
    with pytest.raises(
        wd.InputError, match=r"function of the step failed \(TypeError.*= step 0; write a function"
    ):
        wd.attach(optimizer, wd.Decoupled(lambda: 0.5), on="all")
    decay = wd.attach(optimizer, wd.Decoupled([0.5, 0.4].__getitem__), on="all")
    optimizer.step()
    optimizer.step()
    with pytest.raises(wd.InputError, match=r"failed \(IndexError"):
        optimizer.step()
    assert "of unknown strength" in repr(decay)


def test_a_function_of_the_step_is_followed_over_the_schedule():
    """One that begins weakly is not called weak, and one that ends beyond reach is refused."""
    _, optimizer = ones(1)
    wd.attach(optimizer, wd.Decoupled(lambda t: 1e-6 + t / 10), on="all", schedule=[0.1] * 20).detach()
    with pytest.raises(wd.InputError, match=r"whole weight.*weight_decay = 10 at lr = 0.1, step 10; lower"):
        wd.attach(optimizer, wd.Decoupled(lambda t: float(t)), on="all", schedule=[0.1] * 20)


def test_the_stamp_is_the_same_in_every_process():
    class Slow:
        def __call__(self, step):
            return 0.1

    for rule, shown in (
        (wd.Decoupled(functools.partial(max, 0.1)), "Decoupled(weight_decay=partial(max, 0.1))"),
        (wd.Decoupled([0.1, 0.2]), "Decoupled(weight_decay=(0.1, 0.2))"),
        (wd.Toward(0.1, to={"w": torch.ones(2)}), "Toward(weight_decay=0.1, to={1 tensors})"),
    ):
        assert rule.shown == shown
        assert rule == rule
        hash(rule)
    assert wd.Decoupled(Slow()).shown.endswith("Slow)")
    assert " at 0x" not in wd.Decoupled(Slow()).shown


def test_the_state_of_another_optimizer_is_refused():
    states = []
    for kind in (optim.SGD, optim.RMSprop):
        model = Model()
        optimizer = kind(model.named_parameters(), lr=LR)
        decay = wd.attach(optimizer, wd.Toward(0.5), model=model)
        states.append(decay.state_dict())
    with pytest.raises(wd.InputError, match=r"another optimizer: state_dict = SGD; here it is RMSprop"):
        decay.load_state_dict(states[0])
    for change in ({"steps": "x"}, {"steps": -5}, {"factor": float("nan")}, {"parameters": None}):
        with pytest.raises(wd.InputError):
            decay.load_state_dict({**states[1], **change})


def test_points_named_by_a_wrapped_model():
    model = Model()
    wrapped = nn.DataParallel(model)
    optimizer = optim.SGD(wrapped.named_parameters(), lr=LR)
    wd.attach(optimizer, wd.Toward(0.5, to=wrapped.state_dict()), model=wrapped)
    closure_of(model, optimizer)()
    optimizer.step()


def test_a_copy_carries_no_hook_but_its_options():
    """torch leaves hooks out of a deep copy; options that were set stay, as plain numbers."""
    model = Model()
    optimizer = optim.AdamW(model.named_parameters(), lr=LR, weight_decay=0)
    wd.attach(optimizer, wd.Decoupled(0.4), model=model, on="all")
    saved = optimizer.state_dict()
    other = Model()
    plain = optim.AdamW(other.named_parameters(), lr=LR, weight_decay=0)
    plain.load_state_dict(saved)
    train(model, optimizer, 3)
    train(other, plain, 3)
    assert same(weights(model), weights(other))


def test_a_state_loaded_after_attach_counts():
    """The message about a state that decays says to attach first and to load afterwards."""
    w = [torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2)]
    late, early = (
        torch.optim.SGD([p], lr=0.1, momentum=0.9 * first) for p, first in zip(w, (0, 1), strict=True)
    )
    state = early.state_dict()
    half_lives = wd.L2(wd.HalfLife(steps=50, lr=0.1))
    for optimizer in (late, early):
        wd.attach(optimizer, half_lives, on="all")
    late.load_state_dict(state)
    for _ in range(5):
        for optimizer in (late, early):
            optimizer.param_groups[0]["params"][0].grad = torch.zeros(3, 3)
            optimizer.step()
    assert torch.equal(w[0], w[1])
    assert 0.9 < float(w[0].detach().max()) < 1
