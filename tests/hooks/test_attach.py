"""What happens around `step`: schedules, scalers, compilation, groups that change, resuming."""

import copy
import io
import math
from dataclasses import dataclass

import pytest
import torch
from tests.hooks.zoo import LR, Model, closure_of, same, train, weights
from torch import nn, optim
from torch.optim import lr_scheduler

import weightdecay as wd
from weightdecay.rules import RULES

STEPS = 60

SCHEDULES = {
    "constant": lambda opt: lr_scheduler.LambdaLR(opt, lambda t: 1.0),
    "linear": lambda opt: lr_scheduler.LinearLR(opt, 1.0, 0.0, STEPS),
    "cosine": lambda opt: lr_scheduler.CosineAnnealingLR(opt, STEPS),
    "one cycle": lambda opt: lr_scheduler.OneCycleLR(opt, max_lr=4 * LR, total_steps=STEPS + 1),
    "warm-up, constant, decay": lambda opt: lr_scheduler.SequentialLR(
        opt,
        [
            lr_scheduler.LinearLR(opt, 0.1, 1.0, 10),
            lr_scheduler.ConstantLR(opt, 1.0),
            lr_scheduler.LinearLR(opt, 1.0, 0.0, 20),
        ],
        milestones=[10, 40],
    ),
}
# The fraction that each rule removes at lr, for weight_decay = .5 and lr_max = .2.
RATES = {
    "Decoupled": (lambda: wd.Decoupled(0.5), lambda lr: 0.5 * lr),
    "Independent": (lambda: wd.Independent(0.05, lr_max=0.2), lambda lr: 0.05 * lr / 0.2),
    "Corrected": (lambda: wd.Corrected(0.5, lr_max=0.2), lambda lr: 0.5 * lr**2 / 0.2),
    "Cautious": (lambda: wd.Cautious(0.5), lambda lr: 0.5 * lr),
    "Toward": (
        lambda: wd.Toward(0.5, to={"w": torch.full((5,), 2.0, dtype=torch.float64)}),
        lambda lr: 0.5 * lr,
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rule", RATES)
@pytest.mark.parametrize("kind", [optim.SGD, optim.AdamW, optim.RMSprop])
def test_zero_gradient_is_the_exact_product(kind, rule, schedule):
    """(w_T - w_0) = prod(1 - rate_t) (w_start - w_0), to 1e-12: sixty roundings of float64."""
    start = torch.tensor([3.0, -2.0, 1.0, 0.5, 7.0], dtype=torch.float64)
    w = nn.Parameter(start.clone())
    optimizer = kind([("w", w)], lr=LR, weight_decay=0)
    scheduler = SCHEDULES[schedule](optimizer)
    make, rate = RATES[rule]
    wd.attach(optimizer, make(), on="all")
    product = 1.0
    for _ in range(STEPS):
        product *= 1 - rate(optimizer.param_groups[0]["lr"])
        w.grad = torch.zeros_like(w)
        optimizer.step()
        scheduler.step()
    point = 2.0 if rule == "Toward" else 0.0
    torch.testing.assert_close(w.detach() - point, product * (start - point), rtol=1e-12, atol=1e-14)


def issue_example(**settings):
    model = Model(seed=3)
    optimizer = optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, wd.attach(optimizer, wd.Cautious(wd.HalfLife(epochs=2)), model=model, **settings)


def test_the_example_of_the_readme():
    model, optimizer, decay = issue_example(steps_per_epoch=500)
    assert [t.name for t in decay.plan.all_targets] == ["first.weight", "second.weight"]
    train(model, optimizer, 3)
    decay.load_state_dict({**decay.state_dict()})
    text = repr(decay)
    assert "hooks around step" in text
    assert "decays    first.weight" in text
    assert "no decay  first.bias" in text
    decay.detach()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_half_life_halves():
    """At whatever lr when none is named; at the peak of the schedule when there is one."""
    for options, schedule, steps in (
        ({"steps_per_epoch": 5}, None, 10),
        ({"schedule": [0.1] * 10}, None, 10),
        ({}, lambda opt: lr_scheduler.LambdaLR(opt, lambda t: 0.5), 20),
    ):
        w = nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = optim.SGD([("w", w)], lr=0.1)
        scheduler = schedule and schedule(optimizer)
        half_life = wd.HalfLife(epochs=2) if "steps_per_epoch" in options else wd.HalfLife(steps=10, lr=0.1)
        wd.attach(optimizer, wd.Decoupled(half_life), on="all", **options)
        for _ in range(steps):
            w.grad = torch.zeros_like(w)
            optimizer.step()
            if scheduler:
                scheduler.step()
        # At half the lr a step removes half the rate: not exactly half of w is left, but sqrt-close to it.
        rate = 1 - 0.5**0.1
        expected = (1 - rate / 2) ** 20 if scheduler else 0.5
        torch.testing.assert_close(
            w.detach(), torch.full((3,), expected, dtype=torch.float64), rtol=1e-12, atol=0
        )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_half_lives_per_run(schedule):
    """H half-lives over the run leave 2^-H under every schedule, with the scheduler itself as argument."""
    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = optim.AdamW([("w", w)], lr=LR, weight_decay=0)
    scheduler = SCHEDULES[schedule](optimizer)
    before = copy.deepcopy(scheduler.state_dict()) if schedule != "warm-up, constant, decay" else None
    wd.attach(optimizer, wd.Decoupled(wd.HalfLives(per_run=3)), on="all", schedule=scheduler, steps=STEPS)
    assert before is None or scheduler.state_dict() == before
    for _ in range(STEPS):
        w.grad = torch.zeros_like(w)
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(w.detach(), torch.full((3,), 1 / 8, dtype=torch.float64), rtol=1e-12, atol=0)


def test_coupled_half_life_counts_momentum():
    """After the fast root has died out, SGD with momentum halves the weight in the half-life asked for."""
    w = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = optim.SGD([("w", w)], lr=0.1, momentum=0.9)
    wd.attach(optimizer, wd.L2(wd.HalfLife(steps=200, lr=0.1)), on="all")
    seen = []
    for _ in range(800):
        w.grad = torch.zeros_like(w)
        optimizer.step()
        seen.append(w.item())
    assert seen[700] / seen[500] == pytest.approx(0.5, rel=1e-9)


class Scaled:
    """Three steps under a gradient scaler, the second with an overflow."""

    def __init__(self, make, rule, overflow):
        self.model = Model(dtype=torch.float32)
        self.optimizer = make(self.model.named_parameters())
        self.decay = wd.attach(self.optimizer, rule, model=self.model, on="all") if rule else None
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        self.moved = []
        for step in range(3):
            self.optimizer.zero_grad()
            scaler.scale(self.model.loss()).backward()
            if overflow and step == 1:
                self.model.first.weight.grad[0, 0] = math.inf
            before = weights(self.model)
            scaler.step(self.optimizer)
            scaler.update()
            self.moved.append(not same(before, weights(self.model)))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [optim.AdamW, optim.SGD])
@pytest.mark.parametrize(
    "rule",
    [wd.Decoupled(0.5), wd.Cautious(0.5), wd.Toward(0.5, to="start"), wd.L2(0.05)],
    ids=lambda r: r.shown,
)
@pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")
def test_a_step_the_scaler_skips_does_not_decay(rule, kind, fused):
    def make(parameters):
        return kind(parameters, lr=LR, weight_decay=0, fused=fused)

    run = Scaled(make, rule, overflow=True)
    assert run.moved == [True, False, True]
    assert run.decay.steps == 2


@pytest.mark.parametrize("rule", [wd.Cautious(0.5), wd.L2(0.05)], ids=lambda r: r.shown)
@pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")
def test_scaled_gradients_make_no_difference(rule):
    """Fused optimizers see scaled gradients; scaling by powers of two is exact."""

    def make(parameters):
        return optim.AdamW(parameters, lr=LR, weight_decay=0, fused=True)

    scaled = Scaled(make, rule, overflow=False)
    model = Model(dtype=torch.float32)
    optimizer = make(model.named_parameters())
    wd.attach(optimizer, rule, model=model, on="all")
    train(model, optimizer, 3)
    for ours, theirs in zip(weights(scaled.model), weights(model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "rule",
    [
        wd.Decoupled(0.4),
        wd.Decoupled(lambda step: 0.4 / (1 + step)),
        wd.Cautious(lambda step: 0.4 / (1 + step)),
        wd.Toward(0.4),
        wd.L2(lambda step: 0.4 / (1 + step)),
    ],
    ids=lambda rule: rule.shown,
)
@pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from torch's own tracing
@pytest.mark.parametrize("tensor_lr", [True, False])
def test_a_compiled_step_makes_no_graph_per_step(rule, tensor_lr):
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    def prepare():
        model = Model()
        lr = torch.tensor(LR, dtype=torch.float64) if tensor_lr else LR
        optimizer = optim.AdamW(model.named_parameters(), lr=lr, weight_decay=0)
        wd.attach(optimizer, rule, model=model, on="all")
        return model, optimizer, lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))

    model, optimizer, scheduler = prepare()
    other, second, following = prepare()
    compiled = torch.compile(optimizer.step, backend=backend)
    counts = []
    for _ in range(12):
        for m, opt, step, sched in (
            (model, optimizer, compiled, scheduler),
            (other, second, second.step, following),
        ):
            closure_of(m, opt)()
            step()
            sched.step()
        counts.append(len(graphs))
    assert counts[0] > 0
    assert counts[4] == counts[-1]
    for ours, theirs in zip(weights(model), weights(other), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # torch's own compiled AdamW: 1e-6


def test_groups_added_later_decay_by_the_same_selectors():
    model = Model()
    optimizer = optim.SGD(model.first.named_parameters(prefix="first"), lr=LR)
    decay = wd.attach(optimizer, wd.Toward(0.5), model=model)
    train(model, optimizer, 2)
    optimizer.add_param_group({"params": list(model.second.named_parameters(prefix="second"))})
    before = model.second.weight.detach().clone(), model.second.bias.detach().clone()
    train(model, optimizer, 1)
    assert [t.name for t in decay.plan.all_targets] == ["first.weight", "second.weight"]
    point = decay.state_dict()["parameters"]["second.weight"][0]["point"]
    assert torch.equal(point, before[0])  # its start is the weight when it came
    assert "group 1: hooks" in repr(decay)


def test_a_parameter_that_is_thawed_begins_to_decay():
    model = Model()
    model.second.weight.requires_grad_(False)
    optimizer = optim.SGD(model.named_parameters(), lr=LR)
    decay = wd.attach(optimizer, wd.Decoupled(0.5), model=model)
    assert [t.name for t in decay.plan.all_targets] == ["first.weight"]
    model.second.weight.requires_grad_(True)
    train(model, optimizer, 1)
    assert [t.name for t in decay.plan.all_targets] == ["first.weight", "second.weight"]


def test_a_group_added_with_a_decay_of_its_own_is_an_error_before_the_step():
    model = Model()
    optimizer = optim.AdamW(model.first.named_parameters(), lr=LR, weight_decay=0)
    wd.attach(optimizer, wd.Cautious(0.5))
    optimizer.add_param_group(
        {"params": list(model.second.named_parameters(prefix="second")), "weight_decay": 0.1}
    )
    closure_of(model, optimizer)()
    before = weights(model)
    with pytest.raises(wd.InputError, match=r"already decays.*group 1 = 0.1"):
        optimizer.step()
    assert same(weights(model), before)


def test_options_of_a_loaded_state_do_not_win():
    """A saved weight_decay that is stale is set again where the rule is lowered, an error where it is not."""
    model = Model()
    stale = optim.AdamW(model.named_parameters(), lr=LR, weight_decay=0.7)
    optimizer = optim.AdamW(model.named_parameters(), lr=LR, weight_decay=0)
    decay = wd.attach(optimizer, wd.Decoupled(0.1), model=model, on="all")
    optimizer.load_state_dict(stale.state_dict())
    train(model, optimizer, 1)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    decay.detach()
    assert optimizer.param_groups[0]["weight_decay"] == 0
    wd.attach(optimizer, wd.Cautious(0.1), model=model)
    optimizer.load_state_dict(stale.state_dict())
    with pytest.raises(wd.InputError, match="already decays"):
        train(model, optimizer, 1)


@pytest.mark.parametrize("rule", [wd.L2(0.5), wd.Cautious(0.5)], ids=lambda rule: rule.shown)
@pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")
def test_a_step_that_failed_leaves_nothing_behind(rule):
    """The next step is what it would have been: one penalty, one decay, the user's own gradients."""

    def prepare():
        model = Model()
        optimizer = optim.RMSprop(model.named_parameters(), lr=LR)
        wd.attach(optimizer, rule, model=model)
        closure_of(model, optimizer)()
        return model, optimizer

    def broken(*_):
        raise KeyError("no batch")

    model, optimizer = prepare()
    own = model.first.weight.grad
    handle = optimizer.register_step_pre_hook(broken)
    with pytest.raises(KeyError):
        optimizer.step()
    handle.remove()
    optimizer.step()
    assert model.first.weight.grad is own
    twin, second = prepare()
    second.step()
    assert same(weights(model), weights(twin))


def test_gradient_accumulation_decays_once_a_step():
    """Four backward passes and one step remove what one step removes."""
    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = optim.SGD([("w", w)], lr=0.1)
    wd.attach(optimizer, wd.Decoupled(0.5), on="all")
    for _ in range(4):
        (w * 0).sum().backward()
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.full((3,), 0.95, dtype=torch.float64), rtol=1e-15, atol=0)


def test_an_optimizer_that_asks_twice_decays_once():
    """A third-party optimizer that evaluates its closure twice a step, as sharpness-aware ones do."""

    class Twice(optim.SGD):
        @torch.no_grad()
        def step(self, closure):
            with torch.enable_grad():
                closure()
            return super().step(torch.enable_grad()(closure))

    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optim.SGD([w], lr=0.1)  # from now on torch runs the hooks of a step in SGD's own step, too
    optimizer = Twice([("w", w)], lr=0.1)
    decay = wd.attach(optimizer, wd.Decoupled(0.5), on="all")

    def closure():
        optimizer.zero_grad()
        loss = (w * 0).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(w.detach(), torch.full((3,), 0.95, dtype=torch.float64), rtol=1e-15, atol=0)
    with pytest.raises(ZeroDivisionError) as failed:  # kept, and with it the frames of the step
        optimizer.step(lambda: 1 / 0)
    optimizer.step(closure)  # the one that failed is not taken for one that is still going on
    assert failed.tb is not None
    torch.testing.assert_close(w.detach(), torch.full((3,), 0.95**2, dtype=torch.float64), rtol=1e-15, atol=0)
    assert decay.steps == 2


def test_strengths_by_group_tensor_and_function():
    first, second = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    groups = [{"params": [("a", first)], "lr": 0.1}, {"params": [("b", second)], "lr": 0.2}]
    for strength, left in (
        ([0.5, 0.0], (0.95, 1.0)),
        (torch.tensor(0.5), (0.95, 0.9)),
        (lambda step: 0.5 if step == 0 else 1 / 0, (0.95, 0.9)),
    ):
        first.data.fill_(1), second.data.fill_(1)
        optimizer = optim.SGD(groups, lr=0.1)
        wd.attach(optimizer, wd.Decoupled(strength))
        first.grad, second.grad = torch.zeros(2, 2), torch.zeros(2, 2)
        optimizer.step()
        torch.testing.assert_close(first.detach(), torch.full((2, 2), left[0]))
        torch.testing.assert_close(second.detach(), torch.full((2, 2), left[1]))


@pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")  # two steps decay little
def test_a_group_at_half_the_lr_has_half_the_peak():
    """Corrected with a peak for each group: at its own peak each group decays at the full strength."""
    first, second = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second], "lr": 0.05}], lr=0.1)
    schedule = [[0.1, 0.05], [0.05, 0.025]]
    wd.attach(optimizer, wd.Corrected(0.5), schedule=schedule)
    first.grad, second.grad = torch.zeros(2, 2), torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(first.detach(), torch.full((2, 2), 1 - 0.1 * 0.5))
    torch.testing.assert_close(second.detach(), torch.full((2, 2), 1 - 0.05 * 0.5))


def test_selectors_scale_the_strength():
    model = Model()
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    on = [wd.Group(name="first.weight", scale=0.5), "matrices"]
    wd.attach(optimizer, wd.Decoupled(0.5), model=model, on=on)
    before = {name: w.detach().clone() for name, w in model.named_parameters()}
    for w in model.parameters():
        w.grad = torch.zeros_like(w)
    optimizer.step()
    left = {"first.weight": 0.975, "second.weight": 0.95, "first.bias": 1, "second.bias": 1}
    for name, w in model.named_parameters():
        torch.testing.assert_close(w.detach(), before[name] * left[name], rtol=1e-14, atol=0)


def test_lowering_needs_the_whole_group():
    """AdamW over everything goes by hooks, since its biases do not decay; grouped, it is lowered."""
    model = Model()
    mixed = optim.AdamW(model.named_parameters(), lr=LR, weight_decay=0)
    assert not wd.attach(mixed, wd.Decoupled(0.4), model=model).plan.native
    grouped = optim.AdamW(wd.param_groups(model, weight_decay=0.0), lr=LR, weight_decay=0)
    decay = wd.attach(grouped, wd.Decoupled(0.4), model=model)
    assert list(decay.plan.native) == [0]
    assert [group["weight_decay"] for group in grouped.param_groups] == [0.4, 0.0]


def test_native_groups_are_bitwise_what_attach_does():
    """wd.param_groups with a strength, and attach on the same groups without one."""
    results = []
    for strength in (0.4, 0.0):
        model = Model()
        groups = wd.param_groups(model, weight_decay=strength)
        optimizer = optim.AdamW(groups, lr=LR, weight_decay=0)
        if not strength:
            wd.attach(optimizer, wd.Decoupled(0.4), model=model)
        train(model, optimizer, 5)
        results.append(weights(model))
    assert same(*results)


def test_an_ema_follows_and_is_resumed():
    def prepare():
        model = Model()
        optimizer = optim.SGD(model.named_parameters(), lr=LR)
        return model, optimizer, wd.attach(optimizer, wd.Toward(0.5, ema=0.9), model=model)

    model, optimizer, decay = prepare()
    point = model.first.weight.detach().clone()
    for _ in range(4):
        point = 0.9 * point + 0.1 * model.first.weight.detach()
        train(model, optimizer, 1)
        own = decay.state_dict()["parameters"]["first.weight"][0]["point"]
        torch.testing.assert_close(own, point, rtol=1e-13, atol=1e-13)
    file = io.BytesIO()
    torch.save(
        {"model": model.state_dict(), "opt": optimizer.state_dict(), "decay": decay.state_dict()}, file
    )
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, second, on = prepare()
    other.load_state_dict(saved["model"])
    second.load_state_dict(saved["opt"])
    on.load_state_dict(saved["decay"])
    train(model, optimizer, 3)
    train(other, second, 3)
    assert same(weights(model), weights(other))


def test_large_parameters_go_in_pieces_with_the_same_result():
    """4.4 million elements in pieces of a million, against the rule on the whole tensor."""
    generator = torch.Generator().manual_seed(0)
    w0, g = (torch.randn(2200, 2000, generator=generator) for _ in range(2))
    for rule in (wd.Cautious(0.5), wd.Toward(0.5, to={"w": torch.ones(2200, 2000)})):
        w = nn.Parameter(w0.clone())
        optimizer = optim.AdamW([("w", w)], lr=LR, weight_decay=0)
        wd.attach(optimizer, rule)
        w.grad = g.clone()
        optimizer.step()
        other = nn.Parameter(w0.clone())
        plain = optim.AdamW([other], lr=LR, weight_decay=0)
        step = wd.rules.Step(LR * 0.5, 0.5, update=g.clone(), state={"point": torch.ones(2200, 2000)})
        other.data = rule.decayed(other.data, step)
        other.grad = g.clone()
        plain.step()
        assert torch.equal(w, other)


def test_a_state_of_another_shape_comes_whole():
    """A counter beside a parameter large enough to go in pieces."""

    @dataclass(frozen=True)
    class Counting(wd.Rule):
        def start(self, w, name):
            return {"steps": torch.zeros(())}

        def decayed(self, w, step):
            return w - step.rate * w

        def decay_(self, w, step):
            step.state["steps"].add_(1)
            w.copy_(self.decayed(w, step))

    del RULES["Counting"]  # it is no part of the contract table
    w = nn.Parameter(torch.ones(2200, 2000))
    optimizer = optim.SGD([("w", w)], lr=0.1)
    decay = wd.attach(optimizer, Counting(0.5))
    for _ in range(3):
        w.grad = torch.zeros_like(w)
        optimizer.step()
    assert decay.state_dict()["parameters"]["w"][0]["steps"] == 3
    torch.testing.assert_close(w.detach(), torch.full((2200, 2000), 0.95**3))


def test_other_memory_layouts():
    """channels_last and a transposed parameter cannot be viewed flat: they go whole."""
    for start in (
        torch.randn(2, 3, 600, 600).to(memory_format=torch.channels_last),
        torch.randn(900, 700).t(),
    ):
        for rule in (wd.Cautious(0.5), wd.Toward(0.5), wd.Decoupled(0.5)):
            results = []
            for layout in (start.clone(memory_format=torch.preserve_format), start.contiguous()):
                w = nn.Parameter(layout)
                optimizer = optim.RMSprop([("w", w)], lr=LR)
                wd.attach(optimizer, rule, on="all")
                for sign in (1, -1):
                    w.grad = sign * w.detach().sin()
                    optimizer.step()
                results.append(w.detach())
            assert torch.equal(*results)


@pytest.mark.parametrize("rule", [wd.Decoupled, wd.Cautious, wd.Huber, wd.PNorm, wd.L2])
def test_tensors_of_one_number_are_numbers(rule):
    """torch's optimizers take an lr of shape (1,); a strength may have it, too."""
    ended = []
    for lr, strength in ((0.5, 0.0625), (torch.tensor([0.5]), 0.0625), (0.5, torch.tensor([0.0625]))):
        w = nn.Parameter(torch.tensor([[2.0, -1.0], [0.5, 0.0]]))
        optimizer = torch.optim.SGD([w], lr=lr)
        wd.attach(optimizer, rule(strength), on="all")
        for _ in range(2):
            w.grad = torch.full_like(w, 0.1)
            optimizer.step()
        ended.append(w.detach())
    assert not torch.equal(ended[0], torch.tensor([[1.9, -1.1], [0.4, -0.1]]))
    torch.testing.assert_close(ended[1], ended[0])
    torch.testing.assert_close(ended[2], ended[0])
