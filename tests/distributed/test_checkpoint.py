"""torch.distributed.checkpoint: the state of a decay goes on, on any number of ranks, or is refused."""

import warnings

import pytest
import torch
from tests.distributed.models import Net, attached, sharded, train, weights, whole
from tests.distributed.ranks import spawn
from torch import distributed as dist
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import state_dict as torch_states

import weightdecay as wd

RULE = wd.Toward(lambda step: 0.4 / (1 + step), ema=0.9)


def made(ranks, rule=RULE, seed=0, **options):
    warnings.simplefilter("ignore", wd.WeightDecayWarning)
    model = sharded(Net(seed=seed), ranks)
    return model, *attached(model, rule, **options)


def states(model, optimizer, decay):
    """What a checkpoint has; the decay is asked for its own state, and given it."""
    return {
        "model": torch_states.get_model_state_dict(model),
        "optimizer": torch_states.get_optimizer_state_dict(model, optimizer),
        "decay": decay,
    }


def saved(rank, ranks, folder):
    """Three steps, a checkpoint, three more."""
    model, optimizer, decay = made(ranks)
    train(model, optimizer, 3)
    dcp.save(states(model, optimizer, decay), checkpoint_id=folder)
    train(model, optimizer, 3)
    return weights(model)


def gone_on(rank, ranks, folder):
    """Other weights, the checkpoint, three steps."""
    model, optimizer, decay = made(ranks, seed=1)
    with torch.no_grad():  # the data of the other seed
        data = Net()
        model.x.copy_(data.x)
        model.y.copy_(data.y)
    found = states(model, optimizer, decay)
    dcp.load(found, checkpoint_id=folder)
    torch_states.set_model_state_dict(model, found["model"])
    torch_states.set_optimizer_state_dict(model, optimizer, found["optimizer"])
    assert decay.steps == 3
    train(model, optimizer, 3)
    return weights(model)


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 3), (3, 1)])
def test_it_goes_on_on_another_number_of_ranks(tmp_path, before, after):
    wanted = spawn(saved, before, str(tmp_path / "checkpoint"))[0]
    for found in spawn(gone_on, after, str(tmp_path / "checkpoint")):
        for name, end in wanted.items():
            if before == after:
                assert torch.equal(found[name], end)
            torch.testing.assert_close(found[name], end, rtol=1e-10, atol=1e-10)


def another_rule(rank, ranks, folder):
    """A checkpoint of Toward under another strength, and under another rule."""
    _, _, decay = made(ranks, wd.Toward(0.4))
    dcp.save({"decay": decay}, checkpoint_id=folder)
    for rule in (wd.Toward(0.3), wd.Decoupled(0.4)):
        _, _, other = made(ranks, rule, seed=1)
        before = [whole(t) for s in other.state_dict()["parameters"].values() for t in s[0].values()]
        with pytest.raises(dcp.api.CheckpointException, match=r"Missing key.*decay\.stamp\.") as caught:
            dcp.load({"decay": other}, checkpoint_id=folder)
        assert rule.shown in str(caught.value)
        after = [whole(t) for s in other.state_dict()["parameters"].values() for t in s[0].values()]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert other.steps == 0


def test_a_checkpoint_of_another_rule_is_refused_before_anything_is_loaded(tmp_path):
    spawn(another_rule, 2, str(tmp_path / "checkpoint"))


def asked_early(rank, ranks):
    """torch makes a step to have a state to give: it is none, for every kind of decay."""
    for rule in (wd.Toward(0.4, ema=0.5), wd.FixedNorm(), wd.L2(0.4), wd.Constrained(bound=0.5)):
        model, optimizer, decay = made(ranks, rule)
        before = weights(model)
        points = [whole(t) for s in decay.state_dict()["parameters"].values() for t in s[0].values()]
        torch_states.get_optimizer_state_dict(model, optimizer)
        assert decay.steps == 0
        assert all(torch.equal(before[name], w) for name, w in weights(model).items())
        again = [whole(t) for s in decay.state_dict()["parameters"].values() for t in s[0].values()]
        assert all(torch.equal(a, b) for a, b in zip(points, again, strict=True))
        train(model, optimizer, 1)
        assert decay.steps == 1
    dist.barrier()


def test_asking_for_the_optimizers_state_is_no_step():
    spawn(asked_early, 2)


def chained(rank, ranks, folder):
    """One rule of a chain keeps something, the other nothing."""
    rule = wd.chain(wd.Huber(0.4), wd.Toward(0.4))
    model, optimizer, decay = made(ranks, rule)
    train(model, optimizer, 2)
    dcp.save({"decay": decay}, checkpoint_id=folder)
    model, optimizer, again = made(ranks, rule, seed=1)
    dcp.load({"decay": again}, checkpoint_id=folder)
    assert again.steps == 2
    for name, states in decay.state_dict()["parameters"].items():
        other = again.state_dict()["parameters"][name]
        assert torch.equal(whole(states[1]["point"]), whole(other[1]["point"]))


def test_a_chain_of_which_one_rule_keeps_something(tmp_path):
    spawn(chained, 2, str(tmp_path / "checkpoint"))
