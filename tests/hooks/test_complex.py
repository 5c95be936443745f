"""A complex weight decays as the pair of reals that it is."""

import pytest
import torch
from tests.hooks.zoo import BUILT_IN, make_rule
from torch import nn, optim

import weightdecay as wd

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")


def random(seed):
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)


OPTIMIZERS = {
    "SGD": lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9),
    "AdamW": lambda ps: optim.AdamW(ps, lr=0.05, weight_decay=0),
    "NAdam": lambda ps: optim.NAdam(ps, lr=0.05),  # its update is the difference that a step makes
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("rule", [rule for rule in BUILT_IN if rule != "LoRAProduct"])
@pytest.mark.parametrize("whole_group", [True, False])
def test_complex_is_two_reals(rule, name, whole_group):
    """1e-13: torch's optimizers view complex weights as pairs, too; sums go in another order."""
    if (rule, name) == ("Stable", "SGD"):
        pytest.skip("refused: SGD keeps no average of squared gradients")
    ends = []
    for pairs in (False, True):
        seen = torch.view_as_real if pairs else torch.clone
        w, other = nn.Parameter(seen(random(0))), nn.Parameter(seen(random(9)))
        optimizer = OPTIMIZERS[name]([("w", w), ("other", other)])
        on = "all" if whole_group else [wd.Group(name="w"), wd.Group(name="*", scale=0)]
        wd.attach(optimizer, make_rule(rule), on=on)
        for t in range(5):
            w.grad = seen(random(t + 1))
            other.grad = torch.zeros_like(other)
            optimizer.step()
        ends.append(w.detach() if pairs else torch.view_as_real(w.detach()))
    torch.testing.assert_close(*ends, rtol=1e-13, atol=1e-13)
    plain = random(0)
    assert not torch.allclose(torch.view_as_real(plain), ends[0])


def test_narrow_complex_weights_are_rounded_at_random():
    w = nn.Parameter(torch.ones(4000, dtype=torch.complex64))
    optimizer = optim.SGD([w], lr=1e-4)
    decay = wd.attach(optimizer, wd.Decoupled(1e-4), on="all", rounding="stochastic")
    w.grad = torch.zeros_like(w)
    for _ in range(100):
        optimizer.step()
    assert decay.happened().ratio == pytest.approx(1, abs=0.5)  # about 33 of 4,000 weights move by 2^-24
    assert w.detach().imag.abs().max() == 0


def test_a_complex_product_is_refused():
    named = [(f"lora_{side}.weight", nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))) for side in "AB"]
    with pytest.raises(wd.InputError, match="do not fit"):
        wd.attach(optim.SGD(named, lr=0.1), wd.LoRAProduct(0.1), on="all")
