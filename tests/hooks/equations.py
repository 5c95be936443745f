"""Every rule the slow way: the plain optimizer, and the rule by its equation beside it."""

import torch
from tests.hooks.zoo import LR, WD, closure_of, weights
from torch import optim

# Adafactor scales its update by the weight, and from outside it can only be the decayed weight.
_EARLY = ("Toward", "Huber", "Constrained", "LoRAProduct")


class Reference:
    """Steps of one rule; it keeps what the equation keeps."""

    def __init__(self, rule, model, optimizer):
        self.rule, self.model, self.optimizer = rule, model, optimizer
        self.start = weights(model)
        self.multipliers = [0.0] * len(self.start)

    @torch.no_grad()
    def step(self):
        with torch.enable_grad():
            closure_of(self.model, self.optimizer)()
        parameters, before = list(self.model.parameters()), weights(self.model)
        if self.rule == "L2":
            for w in parameters:
                w.grad = w.grad + WD * w
        early = self.rule in _EARLY and isinstance(self.optimizer, optim.Adafactor)
        if early:
            for w, removed in zip(parameters, self.removed(before, before), strict=True):
                w -= removed
        self.optimizer.step()
        if self.rule == "FixedNorm":
            for w, old, first in zip(parameters, before, self.start, strict=True):
                update = old - w
                moved = old - self.optimizer.param_groups[0]["lr"] * first.norm() * update / update.norm()
                w.copy_(first.norm() * moved / moved.norm())
        elif self.rule == "PNorm":
            for w, old in zip(parameters, before, strict=True):
                w /= 1 + LR * WD / old.abs()
        elif not early:
            for w, removed in zip(parameters, self.removed(before, weights(self.model)), strict=True):
                w -= removed

    def removed(self, before, after):
        """What the rule takes from each weight, in terms of the weights before the step."""
        if self.rule == "LoRAProduct":
            named = dict(zip([name for name, _ in self.model.named_parameters()], before, strict=True))
            B, A = named["second.weight"], named["first.weight"]
            product = {"second.weight": B @ A @ A.T, "first.weight": B.T @ B @ A}
            return [LR * WD * product.get(name, 0 * w) for name, w in named.items()]
        if self.rule == "Constrained":
            pairs = zip(self.multipliers, before, strict=True)
            self.multipliers = [max(0.0, m + 0.01 * (w.square().sum().item() - 1)) for m, w in pairs]
            return [2 * m * w for m, w in zip(self.multipliers, before, strict=True)]
        return [self._one(*three) for three in zip(before, after, self.start, strict=True)]

    def _one(self, old, new, start):
        if self.rule == "Stable":
            group = self.optimizer.param_groups[0]
            states = [self.optimizer.state[w] for w in self.model.parameters()]
            corrected = [s["exp_avg_sq"] / (1 - group["betas"][1] ** float(s["step"])) for s in states]
            return LR * WD * old / torch.cat([v.flatten() for v in corrected]).mean().sqrt()
        return {
            "L2": 0.0 * old,
            "Decoupled": LR * WD * old,
            "Independent": LR / (2 * LR) * WD * old,
            "Corrected": LR**2 / (2 * LR) * WD * old,
            "Cautious": LR * WD * ((old - new) * old >= 0).double() * old,
            "Toward": LR * WD * (old - start),
            "Huber": LR * WD * old.clamp(-1, 1),
        }[self.rule]
