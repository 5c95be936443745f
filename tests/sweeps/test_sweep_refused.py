"""What is beside a sweep stays whole, and what cannot be is told before there is a folder."""

import json
from functools import partial

import pytest
import torch
from torch import nn

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.sweeps.run import Leader
from weightdecay.sweeps.selection import selections_of
from weightdecay.sweeps.task import Copy, Goal, Trained

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 3, generator=GENERATOR)
TRAIN, TEST = (X[:20], (X[:20, 0] > 0).long()), (X[20:], (X[20:, 0] > 0).long())


def swept(make_model=lambda: nn.Linear(3, 2), train=TRAIN, test=TEST, **changes):
    adamw = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0)
    arguments = {"loss": nn.functional.cross_entropy, "optimizer": adamw, "strengths": [0.1, 1.0]}
    arguments |= {"seeds": 2, "epochs": 2, "batch_size": 8, "widen": 0, **changes}
    return wd.sweep(make_model, train, test, **arguments)


def test_what_lies_in_the_folder_stays(tmp_path):
    for name in ("weights", "checkpoints"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.pt").write_text("mine")
    swept(out=tmp_path)
    for name in ("weights", "checkpoints"):
        assert [path.name for path in (tmp_path / name).iterdir()] == ["mine.pt"]


def test_any_name_of_a_rule_is_a_file(tmp_path):
    names = ["../../up", "n" * 300, "/" + str(tmp_path / "elsewhere")]
    swept(out=tmp_path / "in" / "out", rule=dict.fromkeys(names, wd.Decoupled), checkpoint_seconds=0)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


class Two(nn.Linear):
    def forward(self, input):
        return super().forward(input), self.weight.square().sum()


def normed():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": (X[20:], torch.full((20,), 9))}, "the loss cannot be computed"),
        ({"train": {"x": X}}, "not data that can be taken example by example: train = dict"),
        ({"make_model": normed, "batch_size": 19}, "the last batch of an epoch holds 1 of 19 examples"),
        (
            {"make_model": partial(Two, 3, 2), "loss": lambda output, target: output[1]},
            "the outputs of batches cannot be joined",
        ),
        ({"make_model": partial(nn.LazyLinear, 2)}, "a parameter without a shape before the first batch"),
        ({"strengths": [200.0]}, "removes the whole weight"),
    ],
)
def test_what_cannot_be_leaves_no_folder(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        swept(out=tmp_path / "new" / "folder", **changes)
    assert not (tmp_path / "new").exists()


def test_options_from_elsewhere_are_other_settings(tmp_path):
    class Chosen:
        lr = 0.01

    def adamw(parameters):
        return torch.optim.AdamW(parameters, lr=Chosen.lr, weight_decay=0)

    swept(out=tmp_path, optimizer=adamw, about={"scale": float("inf")})
    Chosen.lr = 0.02
    with pytest.raises(InputError, match="made with other settings: optimizer_options"):
        swept(out=tmp_path, optimizer=adamw, about={"scale": float("inf")}, resume=True)


class Replacing(nn.Linear):
    """Sets a new tensor in place of its buffer, which a call of all copies as one does not keep."""

    def __init__(self):
        super().__init__(3, 2)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, input):
        if self.training:
            self.mean = 0.999 * self.mean + 0.001 * input.mean(0)
        return super().forward(input - self.mean)


def test_a_buffer_that_is_replaced_moves_as_it_does_alone():
    found = swept(Replacing)
    assert (
        found.method == "one by one: the buffer mean does not follow a copy's batches (the model replaces it)"
    )
    assert (found.weights["mean"] != 0).all()


def trained(strength, loss):
    return Trained(Copy("Decoupled", None, strength, "weight_decay", 0), strength, loss, loss, {}, (), None)


def test_no_leader_is_without_a_finite_score():
    leader = Leader(Goal(), (0,), [("Decoupled", None)])
    leader.add([trained(0.1, float("inf"))])
    assert json.dumps(leader.best) == "null"
    leader.add([trained(1.0, 2.0), trained(2.0, float("nan"))])
    assert leader.best == (("Decoupled", None, 1.0), 2.0)


@pytest.mark.parametrize("losses", [[float("inf"), 1.0, 2.0, 3.0], [1.0, float("inf"), 3.0, 3.0]])
def test_weaker_ones_are_tried_beside_what_diverged(losses):
    several = [trained(strength, loss) for strength, loss in zip([0, 1.0, 2.0, 4.0], losses, strict=True)]
    assert selections_of(several, Goal())[0].edge == "low"


def test_a_run_of_two_steps_is_trained_together():
    assert swept(batch_size=20).method.startswith("vectorised")


def test_a_class_s_own_default_of_decay_gives_way_to_the_strengths():
    plain = swept(optimizer=partial(torch.optim.AdamW, lr=1e-2)).table()
    assert plain.equals(swept().table())


def test_a_loader_s_batch_may_be_larger_than_the_data():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*TRAIN), batch_size=64)
    found = swept(train=loader, batch_size=None)
    assert found.table().equals(swept(batch_size=20).table())
