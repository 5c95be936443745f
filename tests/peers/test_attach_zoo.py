"""Every optimizer of torch.optim, pytorch_optimizer and schedulefree keeps the decay, or is refused."""

import pytest
from tests.faults.optimizers import kept, rules, ways, zoo

from weightdecay.errors import InputError

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

ZOO = zoo()
# They cannot be driven here: they need a process group, einops, sparse gradients, their own backward pass.
CANNOT = {"po.DistributedMuon", "po.DeMo", "torch.SparseAdam", "po.LOMO", "po.AdaLOMO"}
# Refused, and a word of the reason.
REFUSED = {
    **dict.fromkeys(("po.A2Grad", "po.AliG"), "no learning rate"),
    "sf.ScheduleFreeWrapper": "not an optimizer of torch's kind",
    "po.SafeFP16Optimizer": "not in the model",  # the optimizer inside holds wide copies of the weights
    **dict.fromkeys(("sf.SGDScheduleFree", "sf.AdamWScheduleFree", "sf.RAdamScheduleFree"), "two sequences"),
    **dict.fromkeys(("po.ScheduleFreeSGD", "po.ScheduleFreeAdamW", "po.ScheduleFreeRAdam"), "two sequences"),
    **dict.fromkeys(("po.ScheduleFreeWrapper", "po.SPlus"), "two sequences"),
    **dict.fromkeys(("po.FTRL", "po.DAdaptAdaGrad", "po.Nero", "po.TRAC"), "puts back"),
    **dict.fromkeys(("po.DAdaptSGD", "po.MADGRAD", "po.SRMM", "po.AccSGD", "po.FOCUS"), "blends"),
    **dict.fromkeys(("po.Ranger", "po.Ranger21", "po.Lookahead"), "blends"),
    "torch.LBFGS": "curvature",
}
# They move the weights at random without a gradient, and Cautious decays only what does not move against it.
RANDOM = {"po.BSAM", "po.Gravity"}


def test_the_tables_are_of_the_zoo():
    assert len(ZOO) > 140
    assert CANNOT | set(REFUSED) <= set(ZOO)
    assert not CANNOT & set(REFUSED)


@pytest.mark.parametrize("name", sorted(CANNOT))
def test_those_that_cannot_be_driven(name):
    assert not ways(ZOO[name])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name):
    for one in rules().values():
        with pytest.raises(InputError, match=REFUSED[name]):
            kept(ZOO[name], one, 1, "plain")


@pytest.mark.parametrize("name", sorted(set(ZOO) - CANNOT - set(REFUSED)))
def test_kept(name):
    driven = ways(ZOO[name])
    assert driven
    for rule, one in rules().items():
        if rule == "Cautious" and name in RANDOM:
            continue
        for way in driven:
            for steps in (20, 200) if rule == "Decoupled" else (20,):
                ratio, _ = kept(ZOO[name], one, steps, way)
                assert ratio == pytest.approx(1, abs=0.02), (rule, way, steps)
