"""Every rule on sharded parameters is the rule on whole ones, on any number of ranks."""

import warnings

import pytest
import torch
from tests.distributed.models import OPTIMIZERS, Net, attached, rule_named, sharded, train, weights, whole
from tests.distributed.ranks import spawn
from tests.hooks.zoo import BUILT_IN
from torch import nn, optim

import weightdecay as wd

CELLS = [
    (rule, optimizer)
    for rule in BUILT_IN
    for optimizer in OPTIMIZERS
    if rule != "Stable" or optimizer.startswith("Adam")
]


def ended(ranks, rule, optimizer, steps=5):
    """Weights and state of the rule after a few steps; on one rank nothing is sharded."""
    warnings.simplefilter("ignore", wd.WeightDecayWarning)
    model = Net() if ranks == 1 else sharded(Net(), ranks)
    made, decay = attached(model, rule_named(rule), optimizer)
    train(model, made, steps)
    states = decay.state_dict()["parameters"]
    return weights(model), {
        f"{name} {key}": whole(value) for name, (state,) in states.items() for key, value in state.items()
    }


def every_cell(rank, ranks):
    return {cell: ended(ranks, *cell) for cell in CELLS}


@pytest.fixture(scope="module")
def alone():
    return every_cell(0, 1)


@pytest.mark.parametrize("ranks", [2, 3])
def test_shards_end_where_the_whole_does(ranks, alone):
    """1e-10 in float64: sums over shards are added in another order, and Adam divides by what they give."""
    answers = spawn(every_cell, ranks, timeout=300)
    for cell in CELLS:
        for rank in range(ranks):
            for ours, theirs in zip(answers[rank][cell], alone[cell], strict=True):
                assert ours.keys() == theirs.keys()
                for name in theirs:
                    torch.testing.assert_close(
                        ours[name],
                        theirs[name],
                        rtol=1e-10,
                        atol=1e-10,
                        msg=lambda m, c=cell, n=name: f"{c} {n}\n{m}",
                    )


def a_state_that_was_whole(rank, ranks):
    """A point given as whole tensors, and the state of a training that was not sharded."""
    warnings.simplefilter("ignore", wd.WeightDecayWarning)
    points = {name: torch.full_like(w, 2.0) for name, w in Net().named_parameters()}
    plain = Net()
    made, decay = attached(plain, wd.Toward(0.4, to=points, ema=0.5))
    train(plain, made, 3)
    model = sharded(Net(), ranks)
    other, on = attached(model, wd.Toward(0.4, to=points, ema=0.5))
    train(model, other, 3)
    mine = on.state_dict()["parameters"]["lora_B.weight"][0]["point"]
    theirs = decay.state_dict()["parameters"]["lora_B.weight"][0]["point"]
    torch.testing.assert_close(whole(mine), theirs, rtol=1e-12, atol=1e-12)
    fresh = sharded(Net(), ranks)
    _, on = attached(fresh, wd.Toward(0.4, to=points, ema=0.5))
    on.load_state_dict(decay.state_dict())
    mine = on.state_dict()["parameters"]["lora_B.weight"][0]["point"]
    assert torch.equal(whole(mine), theirs)
    _, back = attached(Net(), wd.Toward(0.4, to=points, ema=0.5))  # and the other way
    back.load_state_dict(on.state_dict())
    assert torch.equal(back.state_dict()["parameters"]["lora_B.weight"][0]["point"], theirs)


def test_states_and_points_that_are_whole_are_cut():
    spawn(a_state_that_was_whole, 3)


def rounded(rank, ranks):
    """bfloat16 on 2 × 2 ranks: two copies of two shards."""
    warnings.simplefilter("ignore", wd.WeightDecayWarning)
    model = nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    nn.init.ones_(model.weight)
    model = sharded(model, ranks, (2, 2), ("copy", "shard"))
    optimizer = optim.SGD(model.named_parameters(), lr=1e-3)
    decay = wd.attach(optimizer, wd.Decoupled(0.1), model=model, rounding="stochastic", seed=3)
    for _ in range(1000):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
    return whole(model.weight), model.weight.to_local().detach().clone(), decay.happened().ratio


def test_copies_round_alike_and_shards_do_not():
    answers = spawn(rounded, 4)
    ends, shards, ratios = zip(*answers, strict=True)
    assert all(torch.equal(end, ends[0]) for end in ends)
    assert torch.equal(shards[0], shards[2])  # the same shard's copies
    assert torch.equal(shards[1], shards[3])
    assert not torch.equal(shards[0], shards[1])
    assert ends[0].double().mean().item() == pytest.approx(0.905, abs=0.005)
    assert all(ratio == pytest.approx(1, abs=0.02) for ratio in ratios)


def in_copies(rank, ranks):
    """Hybrid sharding: sums over shards must not count copies twice."""
    warnings.simplefilter("ignore", wd.WeightDecayWarning)
    ends = {}
    for rule in ("Stable", "FixedNorm", "Constrained"):
        model = Net() if ranks == 1 else sharded(Net(), ranks, (2, 2), ("copy", "shard"))
        made, _ = attached(model, rule_named(rule))
        train(model, made, 5)
        ends[rule] = weights(model)
    return ends


def test_global_statistics_count_copies_once():
    alone = in_copies(0, 1)
    for answer in spawn(in_copies, 4):
        for rule, ends in alone.items():
            for name, end in ends.items():
                torch.testing.assert_close(answer[rule][name], end, rtol=1e-10, atol=1e-10)
