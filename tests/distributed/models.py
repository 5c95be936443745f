"""A small model with shards of all kinds, and its training on any number of ranks."""

import torch
from tests.hooks.zoo import LR, WD, make_rule
from torch import nn, optim
from torch.distributed import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import weightdecay as wd

OPTIMIZERS = {
    f"{kind.__name__} {way}": lambda ps, kind=kind, options=options, way=way: kind(
        ps, lr=LR, weight_decay=0, foreach=way == "foreach", **options
    )
    for kind, options in ((optim.SGD, {"momentum": 0.9}), (optim.Adam, {}), (optim.AdamW, {}))
    for way in ("foreach", "single")
}


class Net(nn.Module):
    """Five rows on three ranks are uneven; of two rows or two elements one rank has none."""

    def __init__(self, dtype=torch.float64, seed=0):
        super().__init__()
        self.lora_A, self.lora_B = nn.Linear(4, 2, bias=False), nn.Linear(2, 5, bias=False)
        self.head = nn.Linear(5, 2)
        self.to(dtype)
        generator = torch.Generator().manual_seed(seed)
        for w in self.parameters():
            w.data.copy_(torch.randn(w.shape, generator=generator, dtype=torch.float64))
        x, y = (torch.randn(6, n, generator=generator, dtype=torch.float64).to(dtype) for n in (4, 2))
        self.register_buffer("x", x)
        self.register_buffer("y", y)

    def forward(self):
        return (self.head(torch.tanh(self.lora_B(self.lora_A(self.x)))) - self.y).square().mean()


def sharded(model, ranks, shape=None, names=None):
    """FSDP2 over all ranks; of two axes the first holds copies."""
    mesh = init_device_mesh("cpu", shape or (ranks,), mesh_dim_names=names)
    return fully_shard(model, mesh=mesh)


def rule_named(name, strength=WD):
    """A rule of the registry; the product is that of the model's factors."""
    return wd.LoRAProduct(strength) if name == "LoRAProduct" else make_rule(name, strength)


def attached(model, rule, optimizer="AdamW foreach", **options):
    """An optimizer with a rule on it; a product needs its own parameters."""
    made = OPTIMIZERS[optimizer](model.named_parameters())
    on = [wd.Group(name="lora_*"), wd.Group(name="*", scale=0)] if isinstance(rule, wd.LoRAProduct) else "all"
    return made, wd.attach(made, rule, model=model, on=on, **options)


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()


def whole(tensor):
    """All of it, on every rank."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def weights(model):
    return {name: whole(w) for name, w in model.named_parameters()}
