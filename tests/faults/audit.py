"""What the audit, the probe and the monitor say of a decay: its sign, its size, its groups, its owners."""

import torch
from tests.faults.rows import row
from torch import nn, optim

import weightdecay as wd
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
