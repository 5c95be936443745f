"""What other libraries put around optimizers, schedulers and layers is taken off, by behaviour."""

import copy

import pytest
import torch
from torch import nn, optim
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.hooks.optimizers import bare_optimizer
from weightdecay.probing.run import probe_optimizer


class Uninitialised(optim.Optimizer):
    """As Accelerate: a subclass whose own `__init__` never ran."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)


class Copied:
    """As Lightning and Fabric: the attributes of the inner one, and its class beside its own."""

    def __new__(cls, optimizer):
        return object.__new__(type("Copied" + type(optimizer).__name__, (cls, type(optimizer)), {}))

    def __init__(self, optimizer):
        self.__dict__.update({key: value for key, value in vars(optimizer).items() if key != "step"})
        self._optimizer = optimizer

    def step(self, closure=None):
        return self._optimizer.step(closure)


class Plain:
    """As DeepSpeed: no optimizer of torch's kind at all."""

    def __init__(self, optimizer):
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    def step(self):
        self.optimizer.step()


class Lookahead(optim.Optimizer):
    """Uses another in its step, and has hooks of its own."""

    def __init__(self, optimizer):
        super().__init__(optimizer.param_groups, {"lr": 0.1})
        self.optimizer = optimizer

    def step(self, closure=None):
        self.optimizer.step()


def made():
    model = nn.Linear(3, 3, bias=False)
    return model, optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("wrap", [Uninitialised, Copied, Plain, lambda o: Plain(Uninitialised(Copied(o)))])
def test_wrapped_optimizers(wrap):
    model, optimizer = made()
    outer, start = wrap(optimizer), model.weight.detach().clone()
    assert bare_optimizer(outer) is optimizer
    decay = wd.attach(outer, wd.Decoupled(0.5), model=model)
    assert decay.optimizer is optimizer
    monitor = wd.Monitor(model, outer, every=2)
    scheduler = wd.WeightDecayScheduler(decay, lambda t: 1.0)
    assert scheduler.optimizer is optimizer
    assert monitor.optimizer is optimizer
    assert wd.audit(model, outer).parameters == wd.audit(model, optimizer).parameters
    assert probe_optimizer(outer).optimizer == "SGD"
    for _ in range(4):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
    torch.testing.assert_close(model.weight.detach(), start * 0.95**4)


def test_what_has_hooks_of_its_own_stays():
    _, optimizer = made()
    outer = Lookahead(optimizer)
    assert bare_optimizer(outer) is outer
    assert bare_optimizer(optimizer) is optimizer
    with pytest.raises(InputError, match="not an optimizer of torch's kind"):
        wd.attach(nn.Linear(2, 2), wd.Decoupled(0.1))


class Scheduler:
    """As Accelerate: holds torch's, and steps it as often as there are processes."""

    def __init__(self, scheduler):
        self.scheduler = scheduler


@pytest.mark.parametrize("wrap", [Scheduler, lambda s: {"scheduler": s}, lambda s: Scheduler(Scheduler(s))])
def test_wrapped_schedulers(wrap):
    model, optimizer = made()
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    decay = wd.attach(
        Uninitialised(optimizer),
        wd.Decoupled(wd.HalfLives(1)),
        model=model,
        schedule=wrap(scheduler),
        steps=30,
    )
    start = model.weight.detach().clone()
    for _ in range(30):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(model.weight.detach(), start / 2)
    decay.detach()
    model, optimizer = made()
    given = wrap(optim.lr_scheduler.CosineAnnealingLR(optimizer, 30))
    assert wd.audit(model, optimizer, schedule=given, steps=30).settings["steps"] == 30


def test_the_scheduler_of_another_optimizer_is_still_refused():
    _, optimizer = made()
    _, other = made()
    schedule = Scheduler(optim.lr_scheduler.StepLR(other, 3))
    with pytest.raises(InputError, match="belongs to another optimizer"):
        wd.attach(optimizer, wd.Decoupled(wd.HalfLives(1)), on="all", schedule=schedule, steps=10)


WRAPPINGS = {
    "compiled": torch.compile,
    "data parallel": nn.DataParallel,
    "checkpointed": checkpoint_wrapper,
    "both": lambda layer: torch.compile(checkpoint_wrapper(layer)),
    "three": lambda layer: nn.DataParallel(torch.compile(checkpoint_wrapper(layer))),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method")  # torch.compile's own, the first time
@pytest.mark.parametrize("wrap", WRAPPINGS)
def test_wrapped_layers(wrap):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 3), nn.ModuleDict({"module": nn.Linear(3, 2)}))
    wrapped = copy.deepcopy(plain)
    wrapped[0] = WRAPPINGS[wrap](wrapped[0])
    wrapped[1]["module"] = WRAPPINGS[wrap](wrapped[1]["module"])
    names = ("0.weight", "1.module.weight")  # the second is no wrapper's word
    start = {key: value + 1 for key, value in plain.state_dict().items()}

    def states(model, to, on="matrices"):
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        decay = wd.attach(optimizer, wd.Toward(0.5, to=to), model=model, on=on)
        state = decay.state_dict()["parameters"]
        decay.detach()
        return state

    expected = states(plain, start)
    on = [wd.Group(name=names), wd.Group(name="*", scale=0)]
    for model, to in ((wrapped, start), (wrapped, {k: v + 1 for k, v in wrapped.state_dict().items()})):
        for selector in ("matrices", on):
            found = states(model, to, selector)
            assert tuple(found) == tuple(expected) == names
            for name in names:
                assert torch.equal(found[name][0]["point"], expected[name][0]["point"])
    optimizer = optim.SGD(wrapped.parameters(), lr=0.1)
    assert [one.name for one in wd.audit(wrapped, optimizer).parameters] == list(plain.state_dict())
    named = optim.SGD(wrapped.named_parameters(), lr=0.1)
    if wrap in ("compiled", "checkpointed", "both"):  # words that nobody else uses
        assert list(wd.attach(named, wd.Decoupled(0.1)).state_dict()["parameters"]) == list(names)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method")
def test_a_state_moves_between_the_plain_and_the_compiled_model():
    plain = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    first = wd.attach(optim.SGD(plain.parameters(), lr=0.1), wd.Toward(0.5), model=plain)
    state = first.state_dict()
    wrapped = nn.Sequential(torch.compile(nn.Linear(3, 3)), nn.DataParallel(nn.Linear(3, 2)))
    second = wd.attach(optim.SGD(wrapped.parameters(), lr=0.1), wd.Toward(0.5), model=wrapped)
    second.load_state_dict(state)
    found = second.state_dict()["parameters"]
    assert all(torch.equal(found[name][0]["point"], state["parameters"][name][0]["point"]) for name in found)


def test_the_order_of_loading_and_attaching():
    """As the message says: attach first, then load; the run goes on bit for bit."""

    def steps(model, optimizer, count):
        for t in range(count):
            model.weight.grad = torch.full_like(model.weight, 0.1 * t + 0.1)
            optimizer.step()

    def fresh():
        torch.manual_seed(0)
        model = nn.Linear(3, 3, bias=False)
        return model, optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)

    model, optimizer = fresh()
    decay = wd.attach(optimizer, wd.Decoupled(0.1), model=model)
    steps(model, optimizer, 3)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), decay.state_dict()))
    steps(model, optimizer, 3)
    again, other = fresh()
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    with pytest.raises(InputError, match="attach the rule first and load that state afterwards"):
        wd.attach(other, wd.Decoupled(0.1), model=again)
    again, other = fresh()
    resumed = wd.attach(other, wd.Decoupled(0.1), model=again)
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    resumed.load_state_dict(saved[2])
    steps(again, other, 3)
    assert torch.equal(again.weight, model.weight)
