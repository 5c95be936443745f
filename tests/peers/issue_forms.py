"""Reported bugs of form, strength and mechanics, re-enacted small; see issue_builders."""

import torch
from tests.peers.issue_models import good, opt
from torch import nn, optim

import weightdecay as wd

# Form and strength


def the_paper_s_number(mended):
    """pytorch#38853, apex#1849, optax#292: the paper's decay has no lr in it, that of libraries has."""
    model = opt()
    strength = 0.5 if mended else 1e-4
    return model, good(model, strength), {"steps": 5000}


def adam_for_adamw(mended):
    """pytorch#48793, pytorch#42843: Adam's weight_decay is coupled, and has no rate."""
    model = opt()
    kind = optim.AdamW if mended else optim.Adam
    return model, kind(wd.param_groups(model, 0.1), lr=1e-3)


def adamw_for_adam(mended):
    """DeepSpeed#668: Adam was asked for and its other form switched on."""
    model = opt()
    optimizer = optim.Adam(wd.param_groups(model, 0.1), lr=1e-3)
    if mended:
        return model, optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3)
    optimizer.load_state_dict(optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3).state_dict())
    return model, optimizer


class SGDW(optim.Optimizer):
    """As tensorflow/addons' SGDW: the decay does not follow lr."""

    def __init__(self, params, lr=0.1, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["weight_decay"]).add_(p.grad, alpha=-group["lr"])


def strength_that_stays(mended):
    """tensorflow/addons#844: lr decays to nothing and the decay goes on as before."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    kind = optim.SGD if mended else SGDW
    optimizer = kind(wd.param_groups(model, 1e-3 if mended else 1e-2), lr=0.1)
    return (
        model,
        optimizer,
        {"schedule": optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000), "steps": 2000},
    )


class Adapted(nn.Module):
    """A frozen layer with a low-rank addition."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(16, 16).requires_grad_(False)
        self.lora_A = nn.Linear(16, 2, bias=False)
        self.lora_B = nn.Linear(2, 16, bias=False)


def adapters(mended):
    """unsloth#5747: decay of LoRA's factors pulls towards the base model."""
    model = Adapted()
    return model, optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0 if mended else 0.1
    )


# Mechanics


def sparse_gradients(mended):
    """pytorch#1285, pytorch#30402: SGD with a sparse gradient and weight_decay raises in the first step."""
    model = nn.Sequential(nn.Embedding(30, 8, sparse=True), nn.Linear(8, 2))
    optimizer = optim.SGD(wd.param_groups(model, 0.0 if mended else 1e-2, "all"), lr=0.1)
    return model, optimizer


def half_precision(mended):
    """OneTrainer#996: bfloat16 weights, lr·wd far below what bfloat16 can resolve."""
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    model = model if mended else model.bfloat16()
    return model, good(model)


class Forgetful(optim.AdamW):
    """As in pytorch_optimizer#517: the option is taken and nothing is done with it."""

    @torch.no_grad()
    def step(self, closure=None):
        kept = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            group["weight_decay"] = 0.0
        loss = super().step(closure)
        for group, strength in zip(self.param_groups, kept, strict=True):
            group["weight_decay"] = strength
        return loss


def silent(mended):
    """pytorch_optimizer#517: weight_decay is accepted and never applied."""
    model = opt()
    return model, (optim.AdamW if mended else Forgetful)(wd.param_groups(model, 0.1), lr=1e-3)


def resumed(mended):
    """Megatron-LM#7468, timm#2792: a checkpoint's groups bring their own weight_decay."""
    model = opt()
    optimizer = optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3, weight_decay=0.1)
    old = good(model, 0.1 if mended else 0.033)
    optimizer.load_state_dict(old.state_dict())
    return model, optimizer


FORM = {
    "pytorch#38853": (the_paper_s_number, {"WD403"}, "*"),
    "apex#1849": (the_paper_s_number, {"WD403"}, "*"),
    "optax#292": (the_paper_s_number, {"WD403"}, "*"),
    "pytorch#48793": (adam_for_adamw, {"WD301"}, "*"),
    "pytorch#42843": (adam_for_adamw, {"WD301"}, "*"),
    "DeepSpeed#668": (adamw_for_adam, {"WD503"}, "*"),
    "tensorflow/addons#844": (strength_that_stays, {"WD305"}, "*"),
    "unsloth#5747": (adapters, {"WD106"}, "lora_?.weight"),
}
MECHANICS = {
    "pytorch#1285": (sparse_gradients, {"WD501"}, "0.weight"),
    "pytorch#30402": (sparse_gradients, {"WD501"}, "0.weight"),
    "OneTrainer#996": (half_precision, {"WD402"}, "*.weight"),
    "pytorch_optimizer#517": (silent, {"WD304"}, "*"),
    "Megatron-LM#7468": (resumed, {"WD506"}, "*"),
    "timm#2792": (resumed, {"WD506"}, "*"),
}
