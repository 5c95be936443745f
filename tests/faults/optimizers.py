"""What every optimizer class keeps of an attached decay: a table of all of them.

python -m tests.faults.optimizers            all of torch.optim, pytorch_optimizer and schedulefree
python -m tests.faults.optimizers SAM FTRL   those with these in their names

A row has the class, where the decay acts (before or after the step, or the reason of the refusal), and what
is left of a matrix after 20 and 200 steps without gradient, over the product it should be.
"""

import inspect
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn, optim

from weightdecay.errors import InputError
from weightdecay.hooks import attach
from weightdecay.rules import Cautious, Decoupled, Huber, Rule

LR, RATE = 0.1, 0.005
# Arguments without which a class cannot be built.
NEEDED: dict[str, dict[str, Any]] = {
    "Ranger21": {"num_iterations": 1000},
    "BSAM": {"num_data": 100},
}
Make = Callable[[nn.Module], Any]


class Net(nn.Module):
    """Two matrices and a bias, with a loss without gradient (but a graph, for those who differentiate it)."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = nn.Linear(6, 4)
        self.second = nn.Linear(4, 3, bias=False)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator) + 0.1

    def loss(self, scale: float = 0.0) -> torch.Tensor:
        """Zero, with a gradient of zero at every weight; with `scale`, a gradient of random numbers."""
        generator = torch.Generator().manual_seed(2)
        noise = [scale * torch.randn(p.shape, generator=generator) for p in self.parameters()]
        pairs = zip(self.parameters(), noise, strict=True)
        return sum(
            (((p - p.detach()).square() / 2 + n * (p - p.detach())).sum() for p, n in pairs), torch.zeros(())
        )


def _pytorch_optimizer() -> dict[str, Make]:
    import pytorch_optimizer as po
    from pytorch_optimizer.optimizer import OPTIMIZERS

    def make(kind: type) -> Make:
        def build(net: nn.Module) -> Any:
            first = next(iter(inspect.signature(kind).parameters))
            given = {"lr": LR, "weight_decay": 0.0, **NEEDED.get(kind.__name__, {})}
            known = inspect.signature(kind).parameters
            loose = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
            given = {key: value for key, value in given.items() if key in known or loose}
            if first in ("model", "module"):
                return kind(net, **given)
            if kind.__name__ == "SpectralSphere":  # it takes matrices only
                return kind([p for p in net.parameters() if p.ndim == 2], **given)
            try:
                return kind(net.parameters(), **given)
            except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
                if "muon" in str(error).lower() or "__contains__" in str(error):
                    groups = [{"params": [p], "use_muon": p.ndim > 1} for p in net.parameters()]
                    return kind(groups, **given)
                return kind(list(net.named_parameters()), **given)

        return build

    kinds = {kind.__name__: kind for kind in OPTIMIZERS.values() if isinstance(kind, type)}
    found = {
        f"po.{name}": make(kind) for name, kind in kinds.items() if not kind.__module__.startswith("torch.")
    }
    sgd = optim.SGD
    found |= {
        "po.SAM": lambda net: po.SAM(net.parameters(), sgd, lr=LR),
        "po.SAM(AdamW)": lambda net: po.SAM(net.parameters(), optim.AdamW, lr=LR, weight_decay=0.0),
        "po.FriendlySAM": lambda net: po.FriendlySAM(net.parameters(), sgd, lr=LR),
        "po.LookSAM": lambda net: po.LookSAM(net.parameters(), sgd, lr=LR),
        "po.WSAM": lambda net: po.WSAM(net, net.parameters(), sgd, lr=LR),
        "po.Lookahead": lambda net: po.Lookahead(sgd(net.parameters(), lr=LR)),
        "po.OrthoGrad": lambda net: po.OrthoGrad(sgd(net.parameters(), lr=LR)),
        "po.PCGrad": lambda net: po.PCGrad(sgd(net.parameters(), lr=LR)),
        "po.TRAC": lambda net: po.TRAC(sgd(net.parameters(), lr=LR)),
        "po.ScheduleFreeWrapper": lambda net: po.ScheduleFreeWrapper(sgd(net.parameters(), lr=LR)),
        "po.SafeFP16Optimizer": lambda net: po.SafeFP16Optimizer(sgd(net.parameters(), lr=LR)),
    }
    return found


def zoo() -> dict[str, Make]:
    """Every class by name, with a function of a model that makes one without decay of its own."""
    import schedulefree

    found: dict[str, Make] = {}
    for name in dir(optim):
        kind = getattr(optim, name)
        if isinstance(kind, type) and issubclass(kind, optim.Optimizer) and kind is not optim.Optimizer:
            given = {"lr": LR} | (
                {"weight_decay": 0.0} if "weight_decay" in inspect.signature(kind).parameters else {}
            )
            found[f"torch.{name}"] = lambda net, kind=kind, given=given: kind(
                [p for p in net.parameters() if p.ndim > 1 or kind is not optim.Muon], **given
            )
    found |= _pytorch_optimizer()
    for name in ("SGDScheduleFree", "AdamWScheduleFree", "RAdamScheduleFree"):
        found[f"sf.{name}"] = lambda net, name=name: getattr(schedulefree, name)(
            net.parameters(), lr=LR, weight_decay=0.0
        )
    found["sf.ScheduleFreeWrapper"] = lambda net: schedulefree.ScheduleFreeWrapper(
        optim.SGD(net.parameters(), lr=LR)
    )
    return found


def drive(
    net: Net, optimizer: Any, steps: int, way: str, scale: float = 0.0
) -> list[tuple[torch.Tensor, float]]:
    """Steps as a user takes them: "plain", "graph" (create_graph), "closure", or the two "phases" of SAM.

    Returns:
        The first matrix and the learning rate before each step, and at the end, as evaluation sees it.
    """

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = net.loss(scale)
            loss.backward(create_graph=way == "graph")
        return loss.detach()

    def now() -> tuple[torch.Tensor, float]:
        return net.first.weight.detach().double().clone(), optimizer.param_groups[0].get("lr") or 0.0

    seen = []
    for mode in (optimizer, net):
        if callable(train := getattr(mode, "train", None)):
            train()
    for _ in range(steps):
        seen.append(now())
        closure()
        if way == "phases":
            optimizer.first_step(zero_grad=True)
            closure()
            optimizer.second_step(zero_grad=True)
        elif way == "closure":
            optimizer.step(closure)
        else:
            optimizer.step()
    seen.append(now())
    for mode in (optimizer, net):
        if callable(rest := getattr(mode, "eval", None)):
            rest()
    return [*seen, now()]


def ways(make: Make) -> list[str]:
    """The ways in which the optimizer can be driven at all, without decay."""
    found = []
    for way in ("plain", "graph", "closure", "phases"):
        if way == "graph" and found:
            continue
        net = Net()
        try:
            drive(net, make(net), 3, way, 0.1)
        except Exception:  # whatever an optimizer raises when it is driven in another way than it wants
            continue
        found.append(way)
    return found


def kept(make: Make, rule: Any, steps: int, way: str) -> tuple[float, str]:
    """What is left of the first matrix over what should be left of it, and where the decay acts.

    What the optimizer does without decay is counted as added to the decayed weights, or as a factor of them
    (some shrink their weights themselves), whichever is nearer.

    Raises:
        InputError: attach refuses.
    """
    torch.manual_seed(0)
    net = Net()
    optimizer = make(net)
    decay = attach(optimizer, rule, model=net)
    torch.manual_seed(0)
    plain = Net()
    alone = drive(plain, make(plain), steps, way)
    torch.manual_seed(0)
    make(Net())  # some draw numbers when they are made
    seen = drive(net, optimizer, steps, way)
    assert decay.steps == steps, f"{decay.steps} steps counted of {steps}"
    where = "native" if decay.plan.native else "after" if getattr(decay, "late", False) else "before"
    right = added = seen[0][0]
    for step in range(steps):
        rate = seen[step][1] * rule.weight_decay
        bound = rule.delta if isinstance(rule, Huber) else float("inf")
        moved = alone[step + 1][0] - alone[step][0]
        # Some move without a gradient; Cautious then decays only what they do not move away from 0.
        decays = added * moved <= 0 if isinstance(rule, Cautious) else torch.ones_like(added)
        right = right - rate * right.clamp(-bound, bound)
        added = added - rate * decays * added.clamp(-bound, bound) + moved
    factor = float(alone[-1][0].norm() / alone[0][0].norm())
    found = float(seen[-1][0].norm())
    ratios = [found / float(added.norm()), found / (factor * float(right.norm()))]
    return min(ratios, key=lambda ratio: abs(ratio - 1)), where


def rules() -> dict[str, Rule]:
    """Rules that decay at a gradient of zero."""
    return {
        "Decoupled": Decoupled(RATE / LR),
        "Huber": Huber(RATE / LR, delta=0.5),
        "Cautious": Cautious(RATE / LR),
    }


def describe(name: str, make: Make, rule: Rule) -> list[str]:
    """The lines of one class: one for each way of driving it."""
    lines = []
    for way in ways(make) or ["none"]:
        found, where = [], "?"
        try:
            for steps in (20, 200):
                ratio, where = kept(make, rule, steps, way)
                found.append(f"{ratio:8.4f}")
        except InputError as error:
            where = f"refused: {error}"
        except Exception as error:  # shown in the table
            where = f"raises {type(error).__name__}: {error}"
        lines.append(f"{name:28} {way:8} {' '.join(found):18} {where}".rstrip())
    return lines


def main(names: list[str]) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name, make in zoo().items():
        if not names or any(one in name for one in names):
            for line in describe(name, make, Decoupled(RATE / LR)):
                print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
