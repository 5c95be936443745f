"""What the audit, the probe and the monitor say of a decay: its sign, its size, its groups, its owners."""

import torch
from tests.faults.rows import row
from torch import nn, optim
from torch.nn import functional

import weightdecay as wd
from weightdecay.groups import assign
from weightdecay.probing.run import probe_optimizer


class Descent(optim.Optimizer):
    """Gradient descent whose decay is anything but p *= 1 - lr·λ."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0, kind="right"):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "kind": kind})
        self.steps = 0

    @torch.no_grad()
    def step(self, closure=None):
        first = self.param_groups[0]["weight_decay"]
        for number, group in enumerate(self.param_groups):
            lr, own = group["lr"], group["weight_decay"]
            for p in group["params"]:
                if p.grad is not None:
                    kind, k = group["kind"], 1
                    if kind.startswith("every"):
                        k = int(kind[6:])
                    taken = {
                        "wrong sign": -own * p,
                        "twice": 2 * own * p,
                        "squared": own**2 * p,
                        "strictly cautious": own * p * (p.grad * p > 0),
                        "the first group's": first * p,
                        "only the first group": own * p if number == 0 else 0 * p,
                    }.get(kind, k * own * p * (self.steps % k == 0))
                    p.sub_(lr * (p.grad.sign() if kind != "wrong sign" else p.grad)).sub_(lr * taken)
        self.steps += 1


def trained(kind, groups=None, steps=8):
    """A small model, its optimizer, and what a monitor saw."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = Descent(wd.param_groups(model, 0.1) if groups is None else groups(model), lr=0.01, kind=kind)
    with wd.Monitor(model, optimizer, every=2, burst=2) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(16, 6)).square().mean().backward()
            optimizer.step()
    return model, optimizer, monitor.result()


def codes(found, severity=None):
    return {one.code for one in found.findings if severity in (None, one.severity)}


@row("38", "decay of the wrong sign, probed", "an error; 1·lr·λ has none")
def wrong_sign_probed():
    errors = {kind: codes(wd.probe(Descent, kind=kind), "error") for kind in ("wrong sign", "right")}
    return f"{errors}", errors["wrong sign"] != set() and errors["right"] == set()


@row("38", "decay of the wrong sign, audited and monitored", "an error, and applied over intended -1")
def wrong_sign_seen():
    model, optimizer, seen = trained("wrong sign")
    found, ratios = wd.audit(model, optimizer), seen.summary()["ratio"].to_list()
    told = [doubt for doubt in seen.doubts if "sign" in doubt]
    right = bool(found.errors) and all(abs(ratio + 1) < 1e-3 for ratio in ratios) and bool(told)
    return f"{[str(one) for one in found.findings]}, ratios {ratios}, {told}", right


@row("38", "twice the strength, and its square", "a warning, and applied over intended 2")
def wrong_size():
    said = {kind: codes(wd.probe(Descent, kind=kind), "warning") for kind in ("twice", "squared")}
    ratios = trained("twice")[2].summary()["ratio"].to_list()
    return f"{said}, {ratios}", all(said.values()) and all(abs(ratio - 2) < 1e-3 for ratio in ratios)


@row("38", "one group's strength for all, one group alone", "an error of each; of a right optimizer none")
def several_groups():
    kinds = "the first group's", "only the first group", "right"
    said = {kind: codes(wd.probe(Descent, kind=kind), "error") for kind in kinds}
    model, optimizer, _ = trained("the first group's")
    found = wd.audit(model, optimizer)
    return f"{said}, audit {codes(found)}", [bool(one) for one in said.values()] == [
        True,
        True,
        False,
    ] and bool(found.errors)


@row("11", "decay applied every k-th step", "decoupled, lr·λ in the average, nothing found")
def every_few_steps():
    found = {k: wd.probe(Descent, kind=f"every {k}") for k in (2, 4, 10)}
    said = {k: (one.form, one.rate, codes(one)) for k, one in found.items()}
    right = all(form == "decoupled" and abs(rate / 1e-4 - 1) < 0.01 for form, rate, _ in said.values())
    return f"{said}", right and not any(wrong for *_, wrong in said.values())


@row("11", "the audit of decay applied every 4th step", "no findings, half-life ln 2/(lr·λ) = 693 steps")
def every_fourth_audited():
    model, optimizer, _ = trained("every 4", steps=7)
    found = wd.audit(model, optimizer)
    life = found.parameters[0].half_life
    return f"{codes(found)}, {life}", not found.findings and life is not None and abs(life - 693) < 1


@row("13", "a cautious optimizer with a strict >", "cautious, lr·λ of the weights that decay, said to be so")
def strictly_cautious():
    found = wd.probe(Descent, kind="strictly cautious")
    said = str(found).splitlines()[1]
    right = found.form == "cautious" and found.rate and abs(found.rate / 1e-4 - 1) < 1e-6
    live = probe_optimizer(trained("strictly cautious")[1])
    return f"{found.form}, {said.strip()}", bool(right) and "with a gradient" in said and live.rate != 0


class Norm(nn.Module):
    """A normalisation by F.layer_norm, with a gain of several axes."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(4, 8)), nn.Parameter(torch.zeros(4, 8))

    def forward(self, x):
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias)


class Root(nn.Module):
    """A home-made RMSNorm."""

    def __init__(self):
        super().__init__()
        self.g = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.g


class Scan(nn.Module):
    """Tensors of many roles that should not decay, and one matrix."""

    def __init__(self):
        super().__init__()
        self.A_log, self.D = nn.Parameter(torch.zeros(8, 4)), nn.Parameter(torch.ones(8))
        self.cls_token, self.pos_embed = (
            nn.Parameter(torch.zeros(1, 1, 8)),
            nn.Parameter(torch.zeros(1, 5, 8)),
        )
        self.layer_scale, self.logit_scale = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(()))
        self.temperature = nn.Parameter(torch.ones(2, 1, 1))
        self.ln, self.root, self.out = Norm(), Root(), nn.Linear(8, 8, bias=False)


def told(model, optimizer, **settings):
    return {name for one in wd.audit(model, optimizer, **settings).findings for name in one.parameters}


@row("7", "roles that should not decay, under one AdamW for all", "each parameter but the matrix is told")
def roles_that_decay():
    model = Scan()
    missed = {name for name, _ in model.named_parameters()} - {"out.weight"}
    missed -= told(model, optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1))
    return f"not told: {sorted(missed)}", not missed


@row("7", "the same under a rule by axes", "what has two axes and is no matrix is told, and nothing else")
def roles_by_axes():
    model = Scan()
    two = {name: p for name, p in model.named_parameters() if p.ndim >= 2}
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": [*two.values()], "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    found = told(model, optim.AdamW(groups, lr=1e-3))
    return f"{sorted(found)}", found == set(two) - {"out.weight"}


@row("8", "frozen after training with its gradient there", "told, and no longer after zero_grad")
def frozen_and_moving():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
    model[0].weight.requires_grad_(False)
    model[0].weight.grad.zero_()
    before = model[0].weight.detach().clone()
    found = told(model, optimizer)
    optimizer.step()
    moved = not torch.equal(before, model[0].weight)
    optimizer.zero_grad()
    later = told(model, optimizer)
    return f"moved {moved}, told {found}, later {later}", moved and found == {"0.weight"} and not later


class Scaled(nn.Module):
    """IA³ by hand: the outputs of a frozen layer times a vector of ones."""

    def __init__(self, shape):
        super().__init__()
        self.base = nn.Linear(4, 6).requires_grad_(False)
        self.ia3_l = nn.Parameter(torch.ones(shape))

    def forward(self, x):
        return self.base(x) * self.ia3_l.flatten()


@row(
    "9",
    "vectors of ones that multiply, (n, 1) and (n, 1, 1)",
    "no decay by default; told: away from the base",
)
def multipliers():
    said = []
    for shape in ((6, 1), (6, 1, 1), (1, 6)):
        model = Scaled(shape)
        (group,) = [one for one in wd.param_groups(model, 0.1) if one["params"]]
        optimizer = optim.AdamW([model.ia3_l], lr=1e-3, weight_decay=0.1)
        found = [one.message for one in wd.audit(model, optimizer).findings if one.code == "WD106"]
        said.append((group["weight_decay"], found))
    right = all(strength == 0 and any("away from" in one for one in found) for strength, found in said)
    return f"{said}", right


@row("10", "biases of several axes", "role bias, no decay")
def biases_of_several_axes():
    model = nn.Module()
    shapes = {"r_w_bias": (2, 4), "r_r_bias": (2, 4), "r_s_bias": (2, 4), "up_proj_bias": (4, 8)}
    for name, shape in shapes.items():
        model.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    roles = {one.name: (one.role, one.scale) for one in assign(model)}
    return f"{roles}", set(roles.values()) == {("bias", 0.0)}


@row("40", "a transformer of bare tensors", "W_Q and W_out decay, and only they")
def bare_tensors():
    model = nn.Module()
    shapes = {"W_E": (20, 8), "W_pos": (5, 8), "W_Q": (2, 8, 4), "b_Q": (2, 4), "W_out": (16, 8)}
    shapes |= {"e_score_correction_bias": (4, 4), "experts_b1": (4, 16), "out_bias": (4, 1, 16)}
    for name, shape in shapes.items():
        model.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    decaying = {one.name for one in assign(model) if one.scale}
    found = told(model, optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1))
    right = decaying == {"W_Q", "W_out"} and found == set(shapes) - decaying
    return f"decay {sorted(decaying)}, told {sorted(found)}", right


@row("15", "AdamW's default, said to param_groups", "not asked; still asked where nobody said it")
def said_default():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    said = codes(wd.audit(model, optim.AdamW(wd.param_groups(model, weight_decay=0.01), lr=1e-3)))
    default = codes(wd.audit(model, optim.AdamW(model.parameters(), lr=1e-3)))
    return f"{said}, {default}", not said and default == {"WD303"}


@row("15", "the defaults of fine-tuning", "that it does next to nothing comes last, an information")
def fine_tuning():
    model = nn.Sequential(nn.Embedding(9, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    optimizer = optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.02)
    found = [(one.code, one.severity) for one in wd.audit(model, optimizer, steps=3000).findings]
    return f"{found}", found[-1] == ("WD403", "info") and len(found) > 2
