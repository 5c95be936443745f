"""What cannot be on several ranks is refused on every one, with the reason, and nobody waits forever."""

import time
import warnings

import pytest
import torch
from tests.distributed.models import Net, attached, sharded, train
from tests.distributed.ranks import spawn
from torch import nn, optim
from torch.distributed import fsdp, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import weightdecay as wd
from weightdecay.hooks import ranks as meeting


def refused(rule, ranks, rank, model=None, **options):
    """The message with which attach refuses; nothing is left behind."""
    warnings.simplefilter("ignore", wd.WeightDecayWarning)
    model = sharded(Net(), ranks) if model is None else model
    optimizer = optim.AdamW(model.named_parameters(), lr=0.05, weight_decay=0)
    before = repr(optimizer)
    try:
        wd.attach(optimizer, rule, model=model, **({"on": "all"} | options))
    except wd.InputError as error:
        assert repr(optimizer) == before
        assert not optimizer._optimizer_step_pre_hooks
        return str(error)
    raise AssertionError("not refused")


def disagreements(rank, ranks):
    first = rank == 0
    return [
        refused(wd.Decoupled(0.1) if first else wd.Cautious(0.1), ranks, rank),
        refused(wd.Decoupled(lambda t: 0.1 if first else 0.2), ranks, rank),
        refused(wd.Decoupled(0.1), ranks, rank, on="all" if first else "matrices"),
        refused(wd.Decoupled(0.1), ranks, rank, rounding="stochastic", seed=rank),
        refused(wd.Decoupled(0.1 if first else -0.1), ranks, rank),
    ]


def test_ranks_that_disagree_all_hear_of_it():
    for answers in zip(*spawn(disagreements, 3), strict=True):
        rule = answers[0]
        assert all(
            "ranks disagree" in a or "another rank cannot attach" in a or "weight_decay = -0.1" in a
            for a in answers
        ), rule
    rules, strengths, on, seeds, failed = zip(*spawn(disagreements, 2), strict=True)
    both = "Decoupled(weight_decay=0.1) and Cautious(weight_decay=0.1)"
    assert set(rules) == {f"ranks disagree: rule, on ranks 0 and 1 = {both}; give every rank the same"}
    assert "strength in parameter group 0, on ranks 0 and 1 = 0.1 (lr, lr_max None) and 0.2" in strengths[0]
    assert "decay of head.bias, on ranks 0 and 1 = × 1 and none" in on[1]
    assert "seed, on ranks 0 and 1 = 0 and 1" in seeds[0]
    assert failed[0].startswith(
        "another rank cannot attach: rank 1 = out of range: Decoupled.weight_decay = -0.1"
    )
    assert failed[1].startswith("out of range: Decoupled.weight_decay = -0.1")


def a_rank_stays_away(rank, ranks):
    meeting.PATIENCE = 1.0
    model = sharded(Net(), ranks)
    begin = time.monotonic()
    if rank == 0:
        said = refused(wd.Decoupled(0.1), ranks, rank, model)
        assert "a rank did not attach within 1 s: rank = 1; call attach on every rank" in said
        assert time.monotonic() - begin < 10


def test_a_rank_that_does_not_come_is_named():
    spawn(a_rank_stays_away, 2)


def not_finite(rank, ranks):
    model = Net()
    with torch.no_grad():
        model.lora_B.weight[4, 0] = torch.nan
    return refused(wd.FixedNorm(), ranks, rank, sharded(model, ranks))


def test_nan_in_a_shard_is_named_by_parameter_and_rank():
    first, second, third = spawn(not_finite, 3)
    assert third.startswith("a shard is not finite: lora_B.weight on rank 2 = NaN or infinite")
    assert first == second
    assert first.startswith(
        "another rank cannot attach: rank 2 = a shard is not finite: lora_B.weight on rank 2"
    )


def nan_on_the_way(rank, ranks):
    """A gradient that is none, under a rule that looks at all: every rank raises before a weight moves."""
    warnings.simplefilter("ignore", wd.WeightDecayWarning)
    model = sharded(Net(), ranks)
    optimizer, _ = attached(model, wd.Stable(0.1))
    train(model, optimizer, 1)
    before = model.lora_B.weight.to_local().clone()
    model().backward()
    if rank == 1:
        model.lora_B.weight.grad.to_local()[0] = torch.nan
    with pytest.raises(wd.InputError, match=r"gradients are not finite: lora_B\.weight on rank 1"):
        optimizer.step()
    assert torch.equal(model.lora_B.weight.to_local(), before)


def test_nan_in_a_gradient_is_named_by_parameter_and_rank():
    spawn(nan_on_the_way, 2)


def two_meshes(rank, ranks):
    one, other = (
        init_device_mesh("cpu", (ranks,)),
        init_device_mesh("cpu", (ranks, 1), mesh_dim_names=("a", "b")),
    )
    model = nn.ParameterDict(
        {
            "first": nn.Parameter(distribute_tensor(torch.ones(4, 4), one, [Shard(0)])),
            "second": nn.Parameter(distribute_tensor(torch.ones(4, 4), other, [Shard(0), Shard(1)])),
        }
    )
    return refused(wd.Decoupled(0.1), ranks, rank, model)


def test_meshes_that_differ():
    for said in spawn(two_meshes, 2):
        assert said.startswith(
            "parameters are distributed over different meshes: first and second = DeviceMesh"
        )


def muon(rank, ranks):
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 2, bias=False))
    sharded(model, ranks)
    small = optim.Muon(model.named_parameters(), lr=0.01, weight_decay=0)
    with pytest.raises(
        wd.InputError,
        match=r"torch's Muon .*: 1.weight = \(2, 6\) over 3 ranks in dimension 0; give it to AdamW",
    ):
        wd.attach(small, wd.Decoupled(0.1), model=model)
    fits = optim.Muon([("0.weight", model[0].weight)], lr=0.01, weight_decay=0)
    wd.attach(fits, wd.Cautious(0.1), model=model)
    model(torch.ones(2, 4)).square().sum().backward()
    fits.step()


def test_muon_where_torch_cannot():
    spawn(muon, 3)


def older_sharding(rank, ranks):
    for original in (True, False):
        model = fsdp.FullyShardedDataParallel(
            nn.Linear(4, 4), use_orig_params=original, device_id=torch.device("cpu")
        )
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        for given in (model, None):
            with pytest.raises(
                wd.InputError, match=r"a flattened parameter .* shard with fully_shard \(FSDP2\)"
            ):
                wd.attach(optimizer, wd.Decoupled(0.1), model=given, on="all")


def test_flattened_parameters_are_refused_with_the_way_out():
    spawn(older_sharding, 2)


def other_points(rank, ranks):
    """Points of the same number under other names, in a chain whose other rule has to meet to start."""
    full = {name: torch.zeros_like(w) for name, w in Net().named_parameters()}
    if rank == 1:
        full = {f"other.{name}": w for name, w in full.items()}
    return refused(wd.chain(wd.Toward(0.1, to=full), wd.FixedNorm()), ranks, rank)


def test_points_that_differ_are_found_before_anyone_waits():
    for said in spawn(other_points, 2):
        assert said.startswith(
            "ranks disagree: to of lora_A.weight, on ranks 0 and 1 = torch.Size([2, 4]) and none"
        )


def a_slip_and_another_try(rank, ranks):
    """One rank has a wrong argument: all hear of it, and the next try is a new one."""
    meeting.PATIENCE = 5.0
    model = sharded(Net(), ranks)
    rounding = "up" if rank == 1 else "nearest"
    said = refused(wd.Decoupled(0.1), ranks, rank, model, rounding=rounding)
    optimizer, decay = attached(model, wd.Decoupled(0.1))
    train(model, optimizer, 1)
    assert decay.steps == 1
    return said


def test_after_a_slip_ranks_can_try_again():
    first, second = spawn(a_slip_and_another_try, 2)
    assert first.startswith("another rank cannot attach: rank 1 = no such rounding")
    assert second.startswith("no such rounding: rounding = 'up'")


def watched(rank, ranks):
    model = sharded(Net(), ranks)
    optimizer, _ = attached(model, wd.Decoupled(0.1))
    with pytest.raises(wd.InputError, match=r"only a shard of the parameter is here: lora_A.weight"):
        wd.Monitor(model, optimizer)


def test_a_monitor_says_that_it_does_not_know_shards():
    spawn(watched, 2)


def sharded_too_late(rank, ranks):
    model = Net()
    optimizer, _ = attached(model, wd.Decoupled(0.1))
    sharded(model, ranks)
    model().backward()
    with pytest.raises(wd.InputError, match="holds a parameter that is not in the model"):
        optimizer.step()


def test_a_model_that_is_sharded_after_attaching():
    spawn(sharded_too_late, 2)


def replicas(rank, ranks):
    model = nn.parallel.DistributedDataParallel(Net())
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    wd.attach(optimizer, wd.Decoupled(0.1), model=model, on="all").detach()  # alike: fine
    with pytest.raises(wd.InputError, match="ranks disagree: rule, on ranks 0 and 1"):
        wd.attach(optimizer, wd.Decoupled(0.1 * (1 + rank)), model=model, on="all")


def test_replicas_are_compared_where_the_model_tells_of_them():
    spawn(replicas, 2)
