"""One table: every rule of the registry × every optimizer either works or is refused with a reason.

A new rule enters by being defined: the rule of the how-to page does.
"""

import copy
import io
import re
from pathlib import Path

import pytest
import torch
from tests.hooks.equations import Reference
from tests.hooks.zoo import (
    BUILT_IN,
    LR,
    OPTIMIZERS,
    VARIANTS,
    WD,
    Model,
    closure_of,
    make_rule,
    parts,
    same,
    train,
    weights,
)
from torch import nn, optim

from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.hooks import attach
from weightdecay.rules import RULES

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")

_page = Path("docs/howto/own-rule.md").read_text("utf-8")
exec(re.search(r"```\{code-cell\}[^\n]*\n(.*?class Beyond.*?)```", _page, re.DOTALL)[1])

# Not contracts of every rule: these find or need no strength, so there is none to be 0.
WITHOUT_STRENGTH = ("Constrained", "FixedNorm")
# Adam and its kin keep the size of all gradients.
KEEPING = ("Adam", "AdamW", "NAdam", "RAdam")
# The cells that are refused, and a word of the reason.
REFUSED = {
    **{
        ("Stable", optimizer): "no average of squared" for optimizer in OPTIMIZERS if optimizer not in KEEPING
    },
    **{(rule, "LBFGS"): "curvature" for rule in RULES if rule != "L2"},
    **{(rule, "schedulefree"): "two sequences" for rule in RULES if rule not in ("L2", "Decoupled")},
}
CELLS = [(rule, optimizer) for rule in RULES for optimizer in OPTIMIZERS]
WORKING = [cell for cell in CELLS if cell not in REFUSED]
LOWERED = {
    *(
        (rule, o)
        for rule in ("Decoupled", "Independent", "Corrected")
        for o in ("Adam", "AdamW", "NAdam", "RAdam")
    ),
    *((rule, o) for rule in ("Decoupled", "Independent", "Corrected") for o in ("Adafactor", "Muon")),
    ("Decoupled", "schedulefree"),
    *(("L2", o) for o in ("SGD", "SGD+momentum", "Nesterov", "Adam", "NAdam", "RAdam", "Adagrad", "RMSprop")),
}


def attached(rule, name, strength=WD, **settings):
    model = Model(name, **settings)
    optimizer = OPTIMIZERS[name](model.named_parameters())
    return model, optimizer, attach(optimizer, make_rule(rule, strength), model=model, on=parts(rule))


def plain(name, **settings):
    model = Model(name, **settings)
    return model, OPTIMIZERS[name](model.named_parameters())


def test_the_page_adds_a_rule():
    assert [rule for rule in RULES if rule not in BUILT_IN] == ["Beyond"]


@pytest.mark.parametrize(("rule", "name"), CELLS)
def test_works_or_is_refused(rule, name):
    if (rule, name) not in REFUSED:
        _, _, decay = attached(rule, name)
        assert list(decay.plan.native) == ([0] if (rule, name) in LOWERED else [])
        return
    model, optimizer = plain(name)
    before = repr(optimizer), len(optimizer._optimizer_step_pre_hooks)
    with pytest.raises(InputError, match=REFUSED[rule, name]):
        attach(optimizer, make_rule(rule), model=model, on=parts(rule))
    assert (repr(optimizer), len(optimizer._optimizer_step_pre_hooks)) == before


@pytest.mark.parametrize(("rule", "name"), [cell for cell in WORKING if cell[0] in BUILT_IN])
def test_equation(rule, name):
    """Against the plain optimizer with the equation around it: 1e-12, rounding in float64 over ten steps."""
    model, optimizer, _ = attached(rule, name)
    other, plain_optimizer = plain(name)
    if (rule, name) == ("L2", "LBFGS"):
        bare = other.loss
        other.loss = lambda: bare() + WD / 2 * sum(w.square().sum() for w in other.parameters())
        train(other, plain_optimizer, 10)
    elif (rule, name) == ("Decoupled", "schedulefree"):
        plain_optimizer.param_groups[0]["weight_decay"] = WD
        train(other, plain_optimizer, 10)
    else:
        reference = Reference(rule, other, plain_optimizer)
        for _ in range(10):
            reference.step()
    train(model, optimizer, 10)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rule", "name"), sorted(LOWERED))
def test_lowered_is_bitwise_the_optimizers_own(rule, name):
    model, optimizer, _ = attached(rule, name)
    other, own = plain(name)
    options = {
        "weight_decay": {"Independent": WD / (2 * LR), "Corrected": WD * (LR / (2 * LR))}.get(rule, WD)
    }
    if "decoupled_weight_decay" in own.param_groups[0]:
        options["decoupled_weight_decay"] = rule != "L2"
    own.param_groups[0].update(options)
    train(model, optimizer, 10)
    train(other, own, 10)
    assert same(weights(model), weights(other))


@pytest.mark.parametrize(("rule", "name"), [cell for cell in WORKING if cell[0] not in WITHOUT_STRENGTH])
def test_strength_zero_changes_nothing(rule, name):
    model, optimizer, _ = attached(rule, name, strength=0.0)
    other, plain_optimizer = plain(name)
    train(model, optimizer, 5)
    train(other, plain_optimizer, 5)
    assert same(weights(model), weights(other))


@pytest.mark.parametrize(("rule", "name"), WORKING)
def test_it_decays(rule, name):
    model, optimizer, _ = attached(rule, name)
    other, plain_optimizer = plain(name)
    train(model, optimizer, 5)
    train(other, plain_optimizer, 5)
    assert not same(weights(model), weights(other))


def saved(optimizer, decay, model):
    """Through a file, as a user would, loaded without pickle's powers."""
    file = io.BytesIO()
    torch.save(
        {"opt": optimizer.state_dict(), "decay": decay.state_dict(), "model": model.state_dict()}, file
    )
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(("rule", "name"), WORKING)
def test_resuming_at_every_step_is_bit_equal(rule, name):
    """A strength that changes each step, so that the count of steps matters, too."""
    strength = 0.4 if (rule, name) == ("L2", "LBFGS") else lambda step: 0.4 / (1 + step)
    # torch itself reloads NAdam's float32 product of momenta in the weights' type.
    dtype = torch.float32 if name == "NAdam" else torch.float64
    model, optimizer, decay = attached(rule, name, strength, dtype=dtype)
    snapshots = []
    for _ in range(5):
        snapshots.append(saved(optimizer, decay, model))
        train(model, optimizer, 1)
    assert decay.steps == 5
    for k, snapshot in enumerate(snapshots):
        resumed, again, on = attached(rule, name, strength, seed=1, dtype=dtype)  # weights that are all wrong
        resumed.x, resumed.y = model.x, model.y
        resumed.load_state_dict(snapshot["model"])
        again.load_state_dict(snapshot["opt"])
        on.load_state_dict(snapshot["decay"])
        train(resumed, again, 5 - k)
        assert same(weights(resumed), weights(model)), k


@pytest.mark.parametrize(("rule", "name"), [cell for cell in WORKING if cell[1] != "LBFGS"])
def test_a_closure_makes_no_difference(rule, name):
    model, optimizer, _ = attached(rule, name)
    other, second, _ = attached(rule, name)
    train(model, optimizer, 5)
    for step in range(5):
        closure = closure_of(other, second)
        second.step(closure=closure) if step % 2 else second.step(closure)
    assert same(weights(model), weights(other))


@pytest.mark.parametrize(("rule", "name"), WORKING)
def test_float32(rule, name):
    """Within 2e-3 of float64: Adam's kin divide by gradients that are themselves rounded."""
    model, optimizer, _ = attached(rule, name, dtype=torch.float32)
    exact, second, _ = attached(rule, name)
    train(model, optimizer, 3)
    train(exact, second, 3)
    for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("rule", "name"), WORKING)
def test_bfloat16_is_refused_for_now(rule, name):
    model, optimizer = plain(name, dtype=torch.bfloat16)
    before = repr(optimizer)
    what = "a penalty" if rule == "L2" else "decay"
    with pytest.raises(InputError, match=f"16-bit weights are too narrow for {what}"):
        attach(optimizer, make_rule(rule), model=model, on=parts(rule))
    assert repr(optimizer) == before
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize(("rule", "name"), WORKING)
def test_frozen_stay_and_tied_decay_once(rule, name):
    class Tied(Model):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            self.frozen = nn.Parameter(torch.ones(2, 2, dtype=torch.float64), requires_grad=False)
            self.again = self.second

    model = Tied(name)
    optimizer = OPTIMIZERS[name](model.named_parameters())
    decay = attach(optimizer, make_rule(rule), model=model, on=parts(rule))
    other, second, _ = attached(rule, name)
    train(model, optimizer, 5)
    train(other, second, 5)
    assert torch.equal(model.frozen, torch.ones(2, 2, dtype=torch.float64))
    for ours, theirs in zip(
        [w for w in model.parameters() if w.requires_grad], other.parameters(), strict=True
    ):
        # LBFGS counts the frozen in its dot products, as zeros; the others agree bit for bit.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 if name == "LBFGS" else 0)
    assert not any(target.name.startswith(("again", "frozen")) for target in decay.plan.all_targets)


@pytest.mark.parametrize(("rule", "name"), WORKING)
def test_without_gradient_no_decay_and_with_zero_gradient_decay(rule, name):
    model, optimizer, _ = attached(rule, name)
    train(model, optimizer, 1)
    before = weights(model)
    if name == "LBFGS":
        pytest.skip("its closure always makes gradients")
    for w in model.parameters():
        w.grad = None
    optimizer.step()
    assert same(weights(model), before)
    fresh, second, _ = attached(rule, name)
    for w in fresh.parameters():
        w.grad = torch.zeros_like(w)
    before = weights(fresh)
    second.step()
    after = list(fresh.parameters())
    if rule in ("Toward", "Stable"):  # it starts where it is pulled to; there is no size to compare with
        assert same(after, before)
    elif rule == "FixedNorm":  # up to the rounding of a norm
        assert all(torch.allclose(w, b, rtol=1e-15, atol=0) for w, b in zip(after, before, strict=True))
    elif rule == "LoRAProduct":  # the product shrinks, a factor's element need not
        (A, B), (a, b) = ([w for w in ws if w.ndim == 2] for ws in (before, after))
        assert (b @ a).norm() < (B @ A).norm()
    elif (rule, name) in (("L2", "RMSprop"), ("L2", "Muon")):  # dividing by their size, they overshoot zero
        assert not same(after, before)
    else:
        assert all((w.abs() < b.abs()).all() for w, b in zip(after, before, strict=True))


@pytest.mark.parametrize(("rule", "name"), WORKING)
def test_gradients_are_the_users_own_after_the_step(rule, name):
    model, optimizer, _ = attached(rule, name)
    other, plain_optimizer = plain(name)
    if name == "LBFGS":
        pytest.skip("its closure makes new gradients several times a step")
    closure_of(model, optimizer)()
    closure_of(other, plain_optimizer)()
    kept = [w.grad for w in model.parameters()]
    optimizer.step()
    plain_optimizer.step()
    assert all(w.grad is grad for w, grad in zip(model.parameters(), kept, strict=True))
    if name != "schedulefree":  # it works in the gradient's memory
        assert same(kept, [w.grad for w in other.parameters()])


@pytest.mark.parametrize(("rule", "name"), WORKING)
def test_detach_restores(rule, name):
    model, optimizer, decay = attached(rule, name)
    other, plain_optimizer = plain(name)
    decay.detach()
    train(model, optimizer, 5)
    train(other, plain_optimizer, 5)
    assert same(weights(model), weights(other))
    assert repr(optimizer) == repr(plain_optimizer)
    attach(optimizer, make_rule(rule), model=model, on=parts(rule))


@pytest.mark.parametrize(("rule", "name"), WORKING)
def test_the_state_of_another_rule_is_refused(rule, name):
    _, _, decay = attached(rule, name)
    for other in (rule if rule == "L2" else "L2", "Decoupled"):
        strength = 0.3 if other == rule else WD
        if (other, name) in REFUSED:
            continue
        _, _, wrong = attached(other, name, strength)
        with pytest.raises(InputError, match="belongs to another rule"):
            decay.load_state_dict(wrong.state_dict())


@pytest.mark.parametrize(
    ("rule", "variant"),
    [(rule, way) for rule in RULES for way in VARIANTS if rule != "Stable" or way.split()[0] in KEEPING],
)
def test_foreach_fused_and_single_agree(rule, variant):
    """1e-10: the three ways round differently, and Adam's kin amplify it where a gradient is small."""
    base = next(v for v in VARIANTS if v.split()[0] == variant.split()[0])
    results = []
    for way in (variant, base):
        model = Model()
        optimizer = VARIANTS[way](model.named_parameters())
        attach(optimizer, make_rule(rule), model=model, on=parts(rule))
        train(model, optimizer, 10)
        results.append(weights(model))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        cell
        for cell in WORKING
        if cell[1] in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adagrad", "RMSprop", "Adafactor")
    ],
)
def test_maximize(rule, name):
    """Maximising -loss is minimising the loss, decay included."""
    kind = getattr(optim, name)
    results = []
    for sign in (1, -1):
        model = Model()
        bare = model.loss
        model.loss = lambda bare=bare, sign=sign: sign * bare()
        optimizer = kind(model.named_parameters(), lr=LR, weight_decay=0, maximize=sign < 0)
        attach(optimizer, make_rule(rule), model=model, on=parts(rule))
        train(model, optimizer, 5)
        results.append(weights(model))
    assert same(*results)


@pytest.mark.parametrize(("rule", "name"), WORKING)
def test_a_copy_of_the_optimizer_carries_no_hook(rule, name):
    """torch leaves hooks out of copies; options that were set natively stay, as numbers."""
    model, optimizer, _ = attached(rule, name)
    twin = copy.deepcopy(optimizer)
    assert not twin._optimizer_step_pre_hooks
    assert same(weights(model), weights(Model(name)))


def test_coupled_decay_in_an_adaptive_optimizer_is_warned_about():
    model, optimizer = plain("Adam")
    with pytest.warns(WeightDecayWarning, match="no decay rate"):
        attach(optimizer, make_rule("L2"), model=model, on="all")
