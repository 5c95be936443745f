"""A training with a planted mistake of each kind: `weightdecay audit examples/audit_me.py:build`.

`build_flat` has the one that hides the others, `build_good` has none.
"""

from typing import Any

import torch
from torch import nn, optim

import weightdecay as wd


class Forgetful(optim.Optimizer):
    """Takes a `weight_decay` and does nothing with it."""

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step of plain gradient descent."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"])
        return closure


class Odd(Forgetful):
    """Decays in a way that nobody has a name for: large weights only."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step whose decay grows with the weight."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.sign() * p.square(), alpha=group["lr"] * group["weight_decay"])
        return super().step(closure)


class Growing(Forgetful):
    """Decays with the wrong sign."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step that makes weights larger."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 + group["lr"] * group["weight_decay"])
        return super().step(closure)


class OneForAll(Forgetful):
    """Decays all groups by the strength of the first."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step that reads one group's options for all of them."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * self.param_groups[0]["weight_decay"])
        return super().step(closure)


class Model(nn.Module):
    """Layers that have nothing to do with one another; each meets its own mistake."""

    def __init__(self) -> None:
        super().__init__()
        names = (
            *(
                "first",
                "second",
                "debias_head",
                "forgotten",
                "shared",
                "adam",
                "attached",
                "default",
                "dropped",
            ),
            *("odd", "huge", "tiny", "slow", "shaky", "loaded", "resumed", "broken", "copied"),
            *("frozen", "growing", "grouped"),
        )
        self.layers = nn.ModuleDict({name: nn.Linear(8, 8) for name in names})
        self.norm = nn.LayerNorm(8)
        self.words = nn.Embedding(50, 8)
        self.rare_words = nn.Embedding(50, 8, sparse=True)
        self.logit_scale = nn.Parameter(torch.ones(()))
        self.lora_A = nn.Linear(8, 2, bias=False)
        self.A_log = nn.Parameter(torch.zeros(8, 4))
        self.A_log._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.narrow = nn.Linear(8, 8, bias=False, dtype=torch.float16)
        self.coarse = nn.Linear(8, 8, bias=False, dtype=torch.bfloat16)


def build() -> dict[str, Any]:
    """Everything wrong at once, for `wd.audit`."""
    torch.manual_seed(0)
    model = Model()
    layers = {name: list(layer.parameters()) for name, layer in model.layers.items()}
    both = [*layers["first"], *layers["second"]]

    # WD101, WD102, WD105 to WD108: a split by words in names, which these names do not contain.
    # WD103, WD104: and "bias" is in the name of a layer.
    decaying = [*both, *model.norm.parameters(), model.words.weight, model.lora_A.weight, model.A_log]
    decaying.append(model.logit_scale)
    split = [
        {"params": decaying, "weight_decay": 0.1},
        {"params": layers["debias_head"], "weight_decay": 0.0},
    ]
    main = optim.AdamW(split, lr=1e-3)

    # WD201: `forgotten` is in no optimizer. WD203: a parameter that the model does not have.
    # WD202, WD204: `shared` is in two optimizers, under two strengths.
    stray = optim.AdamW([*layers["shared"], nn.Parameter(torch.zeros(8))], lr=1e-3, weight_decay=0.1)
    again = optim.AdamW([layers["shared"][0]], lr=1e-3, weight_decay=0.0)

    # WD206: a copy of the parameter over the memory of the first, in place of a tie.
    model.layers["copied"].weight = nn.Parameter(layers["first"][0].detach())
    copied = optim.AdamW(model.layers["copied"].parameters(), lr=1e-3, weight_decay=0.1)

    # WD207: frozen while its gradient was there, and not taken out of the optimizer.
    frozen = optim.SGD(layers["frozen"], lr=0.1, weight_decay=1e-3)
    for p in layers["frozen"]:
        p.grad = torch.zeros_like(p)
        p.requires_grad_(False)

    # WD301: Adam's weight_decay is not AdamW's. WD303: nobody chose .01.
    coupled = optim.Adam(layers["adam"], lr=1e-3, weight_decay=0.1)
    default = optim.AdamW(layers["default"], lr=1e-3)

    # WD302: a rule is attached, and then a number is set as well.
    attached = optim.SGD(layers["attached"], lr=1e-2)
    wd.attach(attached, wd.Decoupled(0.1), on="all")
    attached.param_groups[0]["weight_decay"] = 0.01

    # WD304: the option is taken and dropped. WD305: nobody knows the form.
    dropped = Forgetful(layers["dropped"], weight_decay=0.1)
    odd = Odd(layers["odd"], weight_decay=0.1)

    # WD306: the weights grow. WD307: the bias decays by the strength of the weight.
    growing = Growing(layers["growing"], weight_decay=0.1)
    weight, bias = layers["grouped"]
    parts = [{"params": [weight], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
    grouped = OneForAll(parts)

    # WD401, WD404: lr·wd is 1.2, and .2. WD402: bfloat16 has no number so close to 1, nor has float32.
    # WD403, WD405: too weak for 10,000 steps. WD406: momentum carries the decay too far.
    huge = optim.AdamW(layers["huge"], lr=1.0, weight_decay=1.2)
    fast = optim.AdamW(layers["broken"], lr=0.1, weight_decay=2.0)
    coarse = optim.AdamW([model.coarse.weight, model.narrow.weight], lr=1e-3, weight_decay=0.1)
    tiny = optim.AdamW(layers["tiny"], lr=1e-4, weight_decay=1e-4)
    slow = optim.AdamW(layers["slow"], lr=1e-3, weight_decay=0.05)
    shaky = optim.SGD(layers["shaky"], lr=0.1, momentum=0.9, weight_decay=0.05)

    # WD501: a sparse gradient and decay. WD502: a scaler and float16 weights (`narrow`).
    sparse = optim.SGD(model.rare_words.parameters(), lr=0.1, weight_decay=1e-3)

    # WD503: an Adam that took over the state of an AdamW. WD506: a strength out of a checkpoint.
    loaded = optim.Adam(layers["loaded"], lr=1e-3)
    loaded.load_state_dict(optim.AdamW(layers["loaded"], lr=1e-3, weight_decay=0.1).state_dict())
    resumed = optim.AdamW(layers["resumed"], lr=1e-3, weight_decay=0.1)
    resumed.load_state_dict(optim.AdamW(layers["resumed"], lr=1e-3, weight_decay=0.033).state_dict())

    # WD504: weights that are no numbers. WD505: the scheduler of an optimizer that was made anew since.
    with torch.no_grad():
        layers["broken"][0][0, :3] = float("nan")
    schedule = optim.lr_scheduler.CosineAnnealingLR(optim.AdamW(split, lr=1e-3), 10_000)

    return {
        "model": model,
        "optimizers": [
            *(main, stray, again, copied, coupled, default, attached, dropped, odd, huge, fast, coarse, tiny),
            *(slow, shaky, sparse, loaded, resumed, frozen, growing, grouped),
        ],
        "schedule": schedule,
        "steps": 10_000,
        "steps_per_epoch": 100,
        "scaler": torch.amp.GradScaler("cpu"),
    }


def build_flat() -> tuple[nn.Module, optim.Optimizer]:
    """WD205: all weights in one parameter, as older sharding leaves them; nothing else can be told then."""

    class Flat(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self._flat_param = nn.Parameter(torch.cat([p.detach().flatten() for p in model.parameters()]))
            self._flat_param._is_flat_param = True  # pyright: ignore[reportAttributeAccessIssue]

    model = Flat(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)))
    return model, optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)


def build_good() -> tuple[nn.Module, optim.Optimizer, optim.lr_scheduler.LRScheduler]:
    """Nothing wrong; WD601 is a change against a plan: `--save plan.json`, later `--against plan.json`."""
    with torch.device("meta"):
        model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, batch_first=True), 2)
    optimizer = optim.AdamW(wd.param_groups(model, weight_decay=0.1), lr=1e-3)
    return model, optimizer, optim.lr_scheduler.CosineAnnealingLR(optimizer, 30_000)
