"""Optimizers as people write them, in which a change of the weights from outside may not survive a step."""

import torch
from torch import optim


class Plain(optim.Optimizer):
    """SGD."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def pairs(self):
        return [
            (p, group["lr"]) for group in self.param_groups for p in group["params"] if p.grad is not None
        ]

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for p, lr in self.pairs():
            p.sub_(lr * p.grad)
        return loss


class Restoring(Plain):
    """Sharpness-aware: perturb, evaluate again, restore what was kept, and step; all in one."""

    def __init__(self, params, lr=0.1, rho=0.05):
        super().__init__(params, lr)
        self.rho = rho

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        norm = torch.stack([p.grad.norm() for p, _ in self.pairs()]).norm()
        kept = {p: p.clone() for p, _ in self.pairs()}
        for p in kept:
            p.add_(p.grad, alpha=self.rho / (float(norm) + 1e-12))
        with torch.enable_grad():
            closure()
        for p, lr in self.pairs():
            p.copy_(kept[p]).sub_(lr * p.grad)
        return loss


class Phases(Plain):
    """The same in two public phases, or with a closure for the second gradient; nothing inside."""

    def __init__(self, params, lr=0.1, rho=0.05):
        super().__init__(params, lr)
        self.rho = rho

    @torch.no_grad()
    def first_step(self, zero_grad=False):
        norm = torch.stack([p.grad.norm() for p, _ in self.pairs()]).norm()
        for p, _ in self.pairs():
            self.state[p]["old"] = p.clone()
            p.add_(p.grad, alpha=self.rho / (float(norm) + 1e-12))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad=False):
        for p, lr in self.pairs():
            p.copy_(self.state[p]["old"]).sub_(lr * p.grad)
        if zero_grad:
            self.zero_grad()

    def step(self, closure=None):
        self.first_step(zero_grad=True)
        with torch.enable_grad():
            closure()
        self.second_step()


class Ascending(optim.Optimizer):
    """The same around a base optimizer, its phases named otherwise."""

    def __init__(self, params, base=optim.SGD, rho=0.05, lr=0.1, **options):
        super().__init__(params, {"lr": lr, **options})
        self.base = base(self.param_groups, lr=lr, **options)
        self.param_groups = self.base.param_groups
        self.rho, self.kept = rho, {}

    @torch.no_grad()
    def ascend(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.kept[p] = p.clone()
                    p.add_(p.grad, alpha=self.rho)

    @torch.no_grad()
    def descend(self):
        for p, value in self.kept.items():
            p.copy_(value)
        self.kept.clear()
        self.base.step()

    def step(self, closure=None):
        self.ascend()
        closure()
        self.descend()


class Masters(Plain):
    """Steps copies of the weights and writes them back."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.masters = [p.detach().clone().float() for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure=None):
        for (p, lr), master in zip(self.pairs(), self.masters, strict=True):
            master.sub_(lr * p.grad)
            p.copy_(master)


class InnerMasters(Plain):
    """The same, by an optimizer of the copies."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.masters = [p.detach().clone().float() for group in self.param_groups for p in group["params"]]
        self.inner = optim.SGD(self.masters, lr=lr)

    @torch.no_grad()
    def step(self, closure=None):
        for (p, _), master in zip(self.pairs(), self.masters, strict=True):
            master.grad = p.grad.float()
        self.inner.step()
        for (p, _), master in zip(self.pairs(), self.masters, strict=True):
            p.copy_(master)


class Averaging(Plain):
    """Dual averaging: the start, less all gradients so far."""

    @torch.no_grad()
    def step(self, closure=None):
        for p, lr in self.pairs():
            state = self.state[p]
            if not state:
                state["start"], state["sum"] = p.clone(), torch.zeros_like(p)
            state["sum"] += p.grad
            p.copy_(state["start"] - lr * state["sum"])


class Looking(Plain):
    """Lookahead: every k-th step half way back to the slow weights."""

    def __init__(self, params, lr=0.1, k=5):
        super().__init__(params, lr)
        self.k, self.count, self.slow = k, 0, {}

    @torch.no_grad()
    def step(self, closure=None):
        for p, _ in self.pairs():
            self.slow.setdefault(p, p.clone())
        super().step(closure)
        self.count += 1
        if self.count % self.k == 0:
            for p, slow in self.slow.items():
                slow.lerp_(p, 0.5)
                p.copy_(slow)


class Swapping(Plain):
    """Trains weights of which evaluation sees an average."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.other, self.training = {}, True

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for p, _ in self.pairs():
            self.other.setdefault(p, p.clone()).lerp_(p, 0.05)

    def _swap(self):
        for p, other in self.other.items():
            p.data, self.other[p] = other, p.data

    def eval(self):
        if self.training:
            self._swap()
        self.training = False

    def train(self):
        if not self.training:
            self._swap()
        self.training = True


class Gathering(Plain):
    """Gathers gradients, and moves weights every fourth call only."""

    @torch.no_grad()
    def step(self, closure=None):
        for p, lr in self.pairs():
            state = self.state[p]
            state["count"] = state.get("count", 0) + 1
            state["sum"] = state.get("sum", 0) + p.grad
            if state["count"] % 4 == 0:
                p.sub_(lr * state.pop("sum"))


class Gathered(Plain):
    """The same, keeping the weights of the last move to start from."""

    @torch.no_grad()
    def step(self, closure=None):
        for p, lr in self.pairs():
            state = self.state[p]
            state.setdefault("from", p.clone())
            state["count"] = state.get("count", 0) + 1
            state["sum"] = state.get("sum", 0) + p.grad
            if state["count"] % 4 == 0:
                p.copy_(state["from"] - lr * state.pop("sum"))
                state["from"] = p.clone()


class Normalised(Plain):
    """Keeps the norm of each weight."""

    @torch.no_grad()
    def step(self, closure=None):
        for p, lr in self.pairs():
            norm = self.state[p].setdefault("norm", p.norm())
            p.sub_(lr * p.grad).mul_(norm / p.norm())


class Wrapping(optim.Optimizer):
    """Drives the optimizer it is given."""

    def __init__(self, inner):
        named = [
            pair
            for group in inner.param_groups
            for pair in zip(group["param_names"], group["params"], strict=True)
        ]
        super().__init__(named, {"lr": 0.1})
        self.inner = inner

    def step(self, closure=None):
        return self.inner.step(closure)


class Flat(Plain):
    """Steps one long vector of all weights, which it keeps."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.flat = torch.cat([p.detach().flatten() for p in self.param_groups[0]["params"]])

    @torch.no_grad()
    def step(self, closure=None):
        start = 0
        for p, lr in self.pairs():
            part = self.flat[start : start + p.numel()]
            part.sub_(lr * p.grad.flatten())
            p.copy_(part.view_as(p))
            start += p.numel()


class Wanting(Plain):
    """Wants the loss."""

    def step(self, loss):
        assert float(loss) >= 0
        super().step()


# How each is made, and where its decay has to act; a word of the reason where it is refused.
HOMEMADE = {
    "plain": (Plain, "before"),
    "restoring": (Restoring, "after"),
    "phases": (Phases, "after"),
    "ascending": (Ascending, "after"),
    "ascending AdamW": (lambda ps: Ascending(ps, optim.AdamW, weight_decay=0.0), "after"),
    "masters": (Masters, "puts back"),
    "inner masters": (InnerMasters, "puts back"),
    "averaging": (Averaging, "puts back"),
    "looking": (Looking, "blends"),
    "looking far": (lambda ps: Looking(ps, k=100), "blends"),
    "swapping": (Swapping, "two sequences"),
    "gathering": (Gathering, "before"),
    "gathered": (Gathered, "puts back"),
    "normalised": (Normalised, "puts back"),
    "wrapping": (lambda ps: Wrapping(optim.SGD(ps, lr=0.1, momentum=0.9)), "before"),
    "wrapping looking": (lambda ps: Wrapping(Looking(ps)), "blends"),
    "flat": (Flat, "puts back"),
    "wanting": (Wanting, "before"),
}
