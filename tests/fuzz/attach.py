"""Random lives of an optimizer with an attached rule, beside a plain loop with the rule's equation."""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.hooks.homemade import Ascending, Gathering, Phases, Plain, Restoring
from torch import Tensor, nn, optim

import weightdecay as wd
from weightdecay.errors import InputError

STEPS = 12
MATRICES = {"first.weight", "second.weight", "late.weight"}
# Made of named parameters and a learning rate.
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "SGD": lambda ps, lr: optim.SGD(ps, lr=lr),
    "momentum": lambda ps, lr: optim.SGD(ps, lr=lr, momentum=0.9, dampening=0.1),
    "nesterov": lambda ps, lr: optim.SGD(ps, lr=lr, momentum=0.8, nesterov=True),
    "foreach": lambda ps, lr: optim.SGD(ps, lr=lr, momentum=0.9, foreach=True),
    "fused": lambda ps, lr: optim.SGD(ps, lr=lr, fused=True),
    "Adam": lambda ps, lr: optim.Adam(ps, lr=lr),
    "amsgrad": lambda ps, lr: optim.Adam(ps, lr=lr, amsgrad=True),
    "AdamW": lambda ps, lr: optim.AdamW(ps, lr=lr, weight_decay=0),
    "AdamW fused": lambda ps, lr: optim.AdamW(ps, lr=lr, weight_decay=0, fused=True),
    "NAdam": lambda ps, lr: optim.NAdam(ps, lr=lr),
    "RAdam": lambda ps, lr: optim.RAdam(ps, lr=lr),
    "Adagrad": lambda ps, lr: optim.Adagrad(ps, lr=lr),
    "RMSprop": lambda ps, lr: optim.RMSprop(ps, lr=lr, momentum=0.5),
    "Adamax": lambda ps, lr: optim.Adamax(ps, lr=lr),
    "Adadelta": lambda ps, lr: optim.Adadelta(ps, lr=lr),
    "Rprop": lambda ps, lr: optim.Rprop(ps, lr=lr),
    "homemade": lambda ps, lr: Plain(ps, lr),
    "gathering": lambda ps, lr: Gathering(ps, lr),
    "restoring": lambda ps, lr: Restoring(ps, lr),
    "phases": lambda ps, lr: Phases(ps, lr),
    "ascending": lambda ps, lr: Ascending(ps, lr=lr),
}
SHARP = ("restoring", "phases", "ascending")  # they need a closure
STRENGTHS = "number", "function", "tensor"


@dataclass
class Case:
    """What is drawn before training."""

    optimizer: str
    rule: str
    strength: str
    on: str
    lr: float
    wd: float
    scheduled: bool
    scaled: bool

    def strength_at(self, step: int) -> float:
        return self.wd / (1 + 0.1 * step) if self.strength == "function" else self.wd

    def make_rule(self, start: dict[str, Tensor]) -> Any:
        value: Any = self.wd
        if self.strength == "function":
            value = self.strength_at
        elif self.strength == "tensor":
            value = torch.tensor(self.wd, dtype=torch.float64)
        more = {
            "Independent": {"lr_max": 2 * self.lr},
            "Corrected": {"lr_max": 2 * self.lr},
            "Toward": {"to": {name: w.flip(0) for name, w in start.items()}},
            "Huber": {"delta": 0.5},
            "PNorm": {"p": 1.5},
        }
        if self.rule in ("FixedNorm", "Constrained"):
            return wd.FixedNorm() if self.rule == "FixedNorm" else wd.Constrained(bound=1.0, mu=0.05)
        return getattr(wd, self.rule)(value, **more.get(self.rule, {}))

    def scale(self, name: str) -> float:
        """How strongly a parameter decays."""
        if self.on == "scaled":
            return 0.5 if name == "first.weight" else float(name in MATRICES)
        return float(self.on == "all" or name in MATRICES)

    @property
    def selectors(self) -> Any:
        return [wd.Group(name="first.weight", scale=0.5), "matrices"] if self.on == "scaled" else self.on


class Net(nn.Module):
    """Two layers that the optimizer holds, and one that comes later."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)
        self.late = nn.Linear(2, 2)
        self.double()
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)

    def loss(self, batch: int) -> Tensor:
        generator = torch.Generator().manual_seed(batch)
        x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        y = torch.randn(6, 2, generator=generator, dtype=torch.float64)
        return (self.late(torch.tanh(self.second(torch.tanh(self.first(x))))) - y).square().mean()


@dataclass
class World:
    """A model in training; one of the two has the rule attached, the other decays by hand."""

    case: Case
    net: Net
    optimizer: Any = None
    decay: Any = None
    scheduler: Any = None
    scaler: Any = None
    steps: int = 0
    factor: float = 1.0
    kept: dict[str, Any] = field(default_factory=dict)  # what the equation keeps

    def start(self, attached: bool) -> None:
        held = [(n, p) for n, p in self.net.named_parameters() if not n.startswith("late")]
        self.optimizer = OPTIMIZERS[self.case.optimizer](held, self.case.lr)
        self.schedule()
        if self.case.scaled:
            self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        self.first = {n: p.detach().clone() for n, p in self.net.named_parameters()}
        if attached:
            self.attach()

    def schedule(self) -> None:
        if self.case.scheduled:
            self.scheduler = optim.lr_scheduler.LambdaLR(self.optimizer, lambda t: 1 / (1 + 0.2 * t))

    def attach(self) -> None:
        rule = self.case.make_rule(self.first)
        self.decay = wd.attach(self.optimizer, rule, model=self.net, on=self.case.selectors)

    def held(self) -> dict[str, Tensor]:
        ids = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        return {n: p for n, p in self.net.named_parameters() if id(p) in ids}


def case(seed: int) -> str | None:
    """Train twice, and compare after every step."""
    draw = random.Random(seed)
    kind = draw.choice(sorted(OPTIMIZERS))
    rules = [
        "L2",
        "Decoupled",
        "Independent",
        "Corrected",
        "Cautious",
        "Toward",
        "Huber",
        "PNorm",
        "FixedNorm",
    ]
    rules += ["Constrained"] + ["Stable"] * (kind in ("Adam", "AdamW", "AdamW fused"))
    if kind in SHARP:
        rules.remove("L2")
    chosen = Case(
        optimizer=kind,
        rule=draw.choice(rules),
        strength=draw.choice(STRENGTHS),
        on=draw.choice(("matrices", "all", "scaled")),
        lr=draw.choice((0.01, 0.05)),
        wd=draw.choice((0.1, 0.5)),
        scheduled=draw.random() < 0.5,
        scaled=kind not in (*SHARP, "gathering") and draw.random() < 0.25,
    )
    if chosen.rule in ("FixedNorm", "Constrained") and chosen.on == "scaled":
        chosen.on = "matrices"
    ours, theirs = World(chosen, Net(seed)), World(chosen, Net(seed))
    said = [str(chosen)]
    try:
        ours.start(attached=True)
        theirs.start(attached=False)
        for step in range(STEPS):
            said.append(_live(draw, ours, theirs, step))
            wrong = _compare(ours, theirs)
            if wrong:
                return f"{wrong}; {' | '.join(said)}"
    except InputError as error:
        return f"refused: {error}; {' | '.join(said)}"
    return None


def _live(draw: random.Random, ours: World, theirs: World, step: int) -> str:
    """Something happens to both, and a step is taken."""
    both, said = (ours, theirs), []
    names = sorted(theirs.held())
    event = draw.choice(("", "", "freeze", "thaw", "group", "resume", "copy", "factor", "lr", "detach"))
    name = draw.choice(names)
    keep_gradient = draw.random() < 0.5 and not ours.case.scaled  # which may be infinite, and scaled again
    if event == "freeze" and sum(p.requires_grad for p in theirs.held().values()) > 2:
        for world in both:
            p = dict(world.net.named_parameters())[name]
            p.requires_grad_(False)
            p.grad = p.grad if keep_gradient else None
    elif event == "thaw":
        for world in both:
            for p in world.net.parameters():
                p.requires_grad_(True)
    elif (
        event == "group"
        and "late.weight" not in names
        and not ours.case.scheduled
        and ours.case.optimizer != "ascending"
    ):
        for world in both:
            world.optimizer.add_param_group({"params": list(world.net.late.named_parameters(prefix="late"))})
    elif event in ("resume", "copy", "detach") and any(not p.requires_grad for p in theirs.held().values()):
        event = ""  # what is frozen when a rule is attached is not its own
    elif event in ("resume", "copy") and ours.case.optimizer not in SHARP:
        for world in both:
            _again(world, event)
    elif event == "factor":
        theirs.factor = ours.decay.factor = draw.choice((0.5, 1.0, 2.0))
    elif event == "lr" and not ours.case.scheduled:
        lr = ours.case.lr * draw.choice((0.2, 1, 1.5))
        for world in both:
            for group in world.optimizer.param_groups:
                group["lr"] = lr
    elif event == "detach":
        state = ours.decay.state_dict()
        ours.decay.detach()
        ours.attach()
        ours.decay.load_state_dict(copy.deepcopy(state))
    else:
        event = ""
    said.append(
        f"{event} {name if event == 'freeze' else ''} {keep_gradient if event == 'freeze' else ''}".strip()
    )
    none = draw.choice(names) if draw.random() < 0.2 else None
    overflow = ours.case.scaled and draw.random() < 0.2
    batches = [100 * step + i for i in range(draw.choice((1, 1, 2)))]
    way = draw.choice(("plain", "closure"))
    way = {"restoring": "closure", "ascending": draw.choice(("closure", "own phases"))}.get(
        ours.case.optimizer, way
    )
    if ours.case.optimizer == "phases":
        way = draw.choice(("closure", "phases"))
    if ours.case.optimizer == "gathering" or ours.case.scaled:
        way = "plain"
    said.append(f"{way} {'none ' + none if none else ''} {'overflow' if overflow else ''} {batches}")
    for world in both:
        _step(world, way, batches, none, overflow)
    return f"{step}: " + ", ".join(one for one in said if one)


def _again(world: World, event: str) -> None:
    """Everything through state dicts into new objects, or through a deep copy."""
    decay = None if world.decay is None else copy.deepcopy(world.decay.state_dict())
    late = any(p is world.net.late.weight for group in world.optimizer.param_groups for p in group["params"])
    if event == "copy":
        world.net, world.optimizer = copy.deepcopy((world.net, world.optimizer))
        world.optimizer.__dict__.pop("step", None)
    else:
        net, optimizer = world.net, world.optimizer
        world.net = Net(0)
        world.net.load_state_dict(net.state_dict())
        for p, old in zip(world.net.parameters(), net.parameters(), strict=True):
            p.requires_grad_(old.requires_grad)
            p.grad = None if old.grad is None else old.grad.clone()
        held = [(n, p) for n, p in world.net.named_parameters() if not n.startswith("late")]
        world.optimizer = OPTIMIZERS[world.case.optimizer](held, world.case.lr)
        if late:
            world.optimizer.add_param_group({"params": list(world.net.late.named_parameters(prefix="late"))})
        state = copy.deepcopy(optimizer.state_dict())
        if world.decay is not None and world.decay.plan.native:  # as in the checkpoint of a lowered rule
            world.optimizer.load_state_dict(state)
            for group in world.optimizer.param_groups:
                group["weight_decay"] = 0
        else:
            world.optimizer.load_state_dict(state)
    if world.scheduler is not None:
        state = world.scheduler.state_dict()
        lrs = [group["lr"] for group in world.optimizer.param_groups]
        world.schedule()
        world.scheduler.load_state_dict(state)
        for group, lr in zip(world.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr
    if world.decay is not None:
        world.attach()
        world.decay.load_state_dict(decay)


def _step(world: World, way: str, batches: list[int], none: str | None, overflow: bool) -> None:
    net, optimizer, scaler = world.net, world.optimizer, world.scaler

    def closure() -> Tensor:
        for p in net.parameters():
            if p.requires_grad:
                p.grad = None
        with torch.enable_grad():
            loss = sum((net.loss(batch) for batch in batches), torch.zeros((), dtype=torch.float64))
            (loss if scaler is None else scaler.scale(loss)).backward()
        if none is not None:
            dict(net.named_parameters())[none].grad = None
        if overflow:
            next(p for p in net.parameters() if p.requires_grad and p.grad is not None).grad.fill_(torch.inf)
        return loss.detach()

    def penalised() -> Tensor:
        loss = closure()
        by_hand.penalise()
        return loss

    by_hand = _ByHand(world)
    evaluate = closure if world.decay is not None else penalised
    if way != "closure" or world.case.optimizer in ("phases", "ascending"):
        evaluate()
    by_hand.begin()
    if scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    elif way == "plain":
        optimizer.step()
    elif way == "closure":
        optimizer.step(evaluate)
    else:
        first, second = ("first_step", "second_step") if way == "phases" else ("ascend", "descend")
        getattr(optimizer, first)()
        evaluate()
        getattr(optimizer, second)()
    if world.decay is None:
        by_hand.end(skipped=overflow)
    if world.scheduler is not None:
        world.scheduler.step()


class _ByHand:
    """The equations of the rules, of one step."""

    def __init__(self, world: World) -> None:
        self.world = world
        held = world.held()
        self.lr = {id(p): float(g["lr"]) for g in world.optimizer.param_groups for p in g["params"]}
        case = world.case
        self.scales = {n: case.scale(n) for n, p in held.items() if case.scale(n) and p.requires_grad}
        self.strength = case.strength_at(world.steps) * world.factor
        self.own: dict[str, Tensor] = {}
        self.before = {n: p.detach().clone() for n, p in held.items()}

    def begin(self) -> None:
        """What rules keep starts when a parameter first decays."""
        for name in self.scales:
            w = self.before[name]
            self.world.kept.setdefault(name, {"norm": w.norm(), "multiplier": 0.0})

    def penalise(self) -> None:
        if self.world.case.rule == "L2":
            scale = 1.0 if self.world.scaler is None else self.world.scaler.get_scale()
            for name, p in self.world.held().items():
                if name in self.scales and p.grad is not None:
                    self.own[name] = p.grad / scale  # the scaler takes it out of what stands there
                    p.grad = p.grad + scale * self.strength * self.scales[name] * p.detach()

    @torch.no_grad()
    def end(self, skipped: bool) -> None:
        size = self._size() if self.world.case.rule == "Stable" and not skipped else 1.0
        for name, gradient in self.own.items():
            dict(self.world.net.named_parameters())[name].grad = gradient
        self.world.steps += not skipped
        for name, p in self.world.held().items():
            if name in self.scales and p.grad is not None and not skipped:
                p.copy_(self._decayed(name, self.before[name], p.clone(), self.lr[id(p)], size))

    def _size(self) -> float:
        total, count = 0.0, 0
        for group in self.world.optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.world.optimizer.state[p]
                    v = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
                    total, count = total + float(v.sum()), count + v.numel()
        return (total / count) ** 0.5

    def _decayed(self, name: str, old: Tensor, new: Tensor, lr: float, size: float) -> Tensor:
        rule, kept = self.world.case.rule, self.world.kept[name]
        strength = self.strength * self.scales[name]
        rate, peak = lr * strength, 2 * self.world.case.lr
        if rule == "FixedNorm":
            update = old - new
            length = update.norm() or torch.ones(())
            moved = old - lr * kept["norm"] * update / length
            return kept["norm"] * moved / moved.norm()
        if rule == "PNorm":
            return new / (1 + rate * old.abs() ** -0.5)
        if rule == "Constrained":
            kept["multiplier"] = min(
                max(0.0, kept["multiplier"] + 0.05 * (float(old.square().sum()) - 1)), 0.25
            )
            return new - 2 * kept["multiplier"] * old
        removed = {
            "L2": 0 * old,
            "Decoupled": rate * old,
            "Independent": lr / peak * strength * old,
            "Corrected": lr * lr / peak * strength * old,
            "Cautious": rate * ((old - new) * old >= 0).double() * old,
            "Toward": rate * (old - self.world.first[name].flip(0)),
            "Huber": rate * old.clamp(-0.5, 0.5),
            "Stable": rate / size * old,
        }
        return new - removed[rule]


def _compare(ours: World, theirs: World) -> str | None:
    pairs = zip(ours.net.named_parameters(), theirs.net.parameters(), strict=True)
    for (name, mine), other in pairs:
        if not torch.allclose(mine, other, rtol=1e-8, atol=1e-9):
            return f"{name} is off by {float((mine - other).abs().max()):.2e}"
    if ours.decay.steps != theirs.steps:
        return f"{ours.decay.steps} steps counted of {theirs.steps}"
    return None
