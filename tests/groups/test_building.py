"""What optimizers get: real ones take the groups, move the right parameters and keep the names."""

import copy
import subprocess
import sys

import pytest
import pytorch_optimizer
import schedulefree
import torch
from tests.groups import group_models as zoo
from torch import nn

import weightdecay as wd

OPTIMIZERS = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.01),
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "AdamW foreach": lambda groups: torch.optim.AdamW(groups, lr=0.01, foreach=True),
    "AdamW fused": lambda groups: torch.optim.AdamW(groups, lr=0.01, fused=True),
    "Adam": lambda groups: torch.optim.Adam(groups, lr=0.01),
    "NAdam": lambda groups: torch.optim.NAdam(groups, lr=0.01),
    "RAdam": lambda groups: torch.optim.RAdam(groups, lr=0.01),
    "Adamax": lambda groups: torch.optim.Adamax(groups, lr=0.01),
    "Adadelta": lambda groups: torch.optim.Adadelta(groups, lr=0.01),
    "Adagrad": lambda groups: torch.optim.Adagrad(groups, lr=0.01),
    "ASGD": lambda groups: torch.optim.ASGD(groups, lr=0.01),
    "RMSprop": lambda groups: torch.optim.RMSprop(groups, lr=0.01),
    "Adafactor": lambda groups: torch.optim.Adafactor(groups, lr=0.01),
    "schedulefree AdamW": lambda groups: schedulefree.AdamWScheduleFree(groups, lr=0.01),
    "schedulefree SGD": lambda groups: schedulefree.SGDScheduleFree(groups, lr=0.01),
    "pytorch_optimizer Lion": lambda groups: pytorch_optimizer.Lion(groups, lr=0.01),
    "pytorch_optimizer SOAP": lambda groups: pytorch_optimizer.SOAP(groups, lr=0.01),
    "pytorch_optimizer AdaBelief": lambda groups: pytorch_optimizer.AdaBelief(groups, lr=0.01),
}


def step(model, optimizer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 3, 8, 8, generator=generator)
    if hasattr(optimizer, "train"):
        optimizer.train()
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers_take_the_groups_and_keep_the_names(kind):
    torch.manual_seed(0)
    model = zoo.ConvNet()
    groups = [wd.Group(name="fc.*", scale=0.5, options={"lr": 0.02}), "matrices"]
    optimizer = OPTIMIZERS[kind](wd.param_groups(model, 0.1, groups))
    kept = [name for name, p in model.named_parameters() if p.ndim == 1 and name != "fc.bias"]
    wanted = [
        ("fc.*", 0.05, 0.02, ["fc.weight", "fc.bias"]),
        ("decay", 0.1, 0.01, ["conv1.weight", "up.weight", "line.weight"]),
        ("no decay", 0.0, 0.01, kept),
    ]
    before = copy.deepcopy(model.state_dict())
    step(model, optimizer)
    step(model, optimizer, 1)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        if parameter.grad.abs().max() > 1e-4:  # not those that a normalisation cancels
            assert not torch.equal(before[name], parameter), name
    saved = copy.deepcopy(optimizer.state_dict())
    for held in (optimizer.param_groups, saved["param_groups"]):
        assert [(g["name"], g["weight_decay"], g["lr"], g["param_names"]) for g in held] == wanted
    fresh = OPTIMIZERS[kind](wd.param_groups(model, 0.3, groups))
    fresh.load_state_dict(saved)
    assert [(g["name"], g["weight_decay"]) for g in fresh.param_groups] == [row[:2] for row in wanted]


def test_the_strength_is_that_of_the_optimizer_on_each_parameter():
    """Without a gradient, AdamW multiplies by 1 - lr × weight_decay: the product says who decays."""
    model = zoo.Vit()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    groups = [wd.Group(name="head.weight", scale=3), "matrices"]
    optimizer = torch.optim.AdamW(wd.param_groups(model, 0.5, groups), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    left = {name: p.mean().item() for name, p in model.named_parameters()}
    for name, value in left.items():
        wanted = {"head.weight": 0.85, "patch_embed.weight": 0.95}.get(name, 1.0)
        assert value == pytest.approx(wanted, abs=1e-6), name


def test_exempted_parameters_have_a_group_of_their_own():
    dicts = wd.param_groups(zoo.Mamba(), 0.1, "all")
    assert [(part["name"], part["weight_decay"]) for part in dicts] == [
        ("decay", 0.1),
        ("decay, exempt by the model", 0.0),
    ]
    assert [name for name, _ in dicts[1]["params"]] == ["A_log", "D"]
    twice = [wd.Group(role="bias", label="same"), wd.Group(name="*", label="same")]
    assert [part["name"] for part in wd.param_groups(zoo.Mlp(), 0.1, twice)] == ["same", "same (2)"]


def test_frozen_parameters_stay_out():
    model = zoo.Mlp()
    model.layers[0].requires_grad_(False)
    names = [name for part in wd.param_groups(model, 0.1) for name, _ in part["params"]]
    assert sorted(names) == ["layers.1.weight", "layers.2.bias", "layers.2.weight"]


class Lm(nn.Module):
    """A small language model: embedding, two hidden layers, a head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.hidden = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 8))
        self.lm_head = nn.Linear(8, 16)

    def forward(self, tokens):
        return self.lm_head(self.hidden(self.embed(tokens)))


def test_muon_for_matrices_adamw_for_the_rest():
    torch.manual_seed(0)
    model = Lm()
    parts = wd.split(model, {"adamw": [wd.Group(name="lm_head.*"), "rest"], "muon": wd.Group(role="matrix")})
    assert list(parts) == ["adamw", "muon"]
    assert [name for name, _ in parts["muon"]] == ["hidden.0.weight", "hidden.3.weight"]
    together = [pair for part in parts.values() for pair in part]
    assert sorted(name for name, _ in together) == sorted(name for name, _ in model.named_parameters())
    muon = torch.optim.Muon(wd.param_groups(model, 0.1, within=parts["muon"]), lr=0.02)
    adamw = torch.optim.AdamW(wd.param_groups(model, 0.1, within=parts["adamw"]), lr=0.01)
    assert [g["param_names"] for g in adamw.param_groups] == [
        ["lm_head.weight"],
        [
            "embed.weight",
            "hidden.0.bias",
            "hidden.1.weight",
            "hidden.1.bias",
            "hidden.3.bias",
            "lm_head.bias",
        ],
    ]
    tokens = torch.randint(16, (32,), generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(80):
        for optimizer in (muon, adamw):
            optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(tokens), (tokens + 1) % 16)
        loss.backward()
        losses.append(loss.item())
        for optimizer, part in ((muon, "muon"), (adamw, "adamw")):
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            optimizer.step()
            moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
            assert moved == {name for name, _ in parts[part]}
    assert losses[-1] < 0.1 * losses[0]


def test_split_leaves_nothing_and_repeats_nothing():
    same = wd.Group(name="*weight")
    parts = wd.split(
        zoo.Mlp(), {"a": [wd.Group(name="layers.0.*"), same], "b": "rest", "c": wd.Group(role="bias")}
    )
    assert {part: [name for name, _ in pairs] for part, pairs in parts.items()} == {
        "a": ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.2.weight"],
        "b": [],
        "c": ["layers.2.bias"],
    }
    head = wd.Group(role="matrix", optional=True)
    assert wd.split(zoo.Mlp(), {"a": head, "b": [head, "rest"]})["a"]
    with pytest.raises(
        wd.InputError, match=r"3 parameters in no part: parts = layers.0.bias, layers.1.weight"
    ):
        wd.split(zoo.Mlp(), {"muon": wd.Group(role="matrix")})


BAD = {
    "wd.param_groups(model, -1)": "not a strength: weight_decay = -1; give a finite number of 0 or more",
    "wd.param_groups(model, math.nan)": "not a strength: weight_decay = nan",
    "wd.param_groups(model, math.inf)": "not a strength: weight_decay = inf",
    "wd.param_groups(model, '0.1')": "not a number: weight_decay = '0.1'",
    "wd.param_groups(model, True)": "not a number: weight_decay = True",
    "wd.param_groups(model, groups='matrix')": "no such preset: preset = 'matrix'; there are matrices, ",
    "wd.groups.preset('GPT2')": "no such preset: preset = 'GPT2'; there are gpt, ",
    "wd.groups.preset(3)": "no such preset: preset = 3",
    "wd.param_groups(model, groups=[])": "no groups: groups = []",
    "wd.param_groups(model, groups=3)": "no groups: groups = 3",
    "wd.param_groups(model, groups=[None])": "neither a Group nor a preset's name: groups[0] = None",
    "wd.param_groups(model, groups=wd.Group(role='bias', scale=0))": (
        "one group alone decays nothing with scale 0"
    ),
    "wd.param_groups(torch.optim.SGD(model.parameters()))": (
        "an optimizer where a model is needed: model = SGD"
    ),
    "wd.param_groups(nn.ReLU())": "no parameters: model = ReLU",
    "wd.param_groups([])": "no parameters: model = the list",
    "wd.param_groups(nn.Linear(1, 1).requires_grad_(False))": "all 2 parameters are frozen: model = Linear",
    "wd.param_groups(None)": "not a model: model = NoneType",
    "wd.param_groups('model')": "not a model: model = str",
    "wd.param_groups(model.parameters())": (
        "not a pair of a name and a parameter: model = a Parameter at position 0"
    ),
    "wd.param_groups(model.named_parameters)": "not a model: model = method",
    "wd.param_groups([('a', model[0].weight), ('a', model[0].bias)])": (
        "two parameters of one name: model = 'a'"
    ),
    "wd.param_groups([(1, model[0].weight)])": (
        "not a pair of a name and a parameter: model = a tuple at position 0"
    ),
    "wd.param_groups(nn.Sequential(nn.LazyLinear(2)))": "an uninitialised parameter: model = 0.weight",
    "wd.param_groups(flat())": "a flattened parameter of older sharding: model = weight",
    "wd.param_groups(model, within=3)": "not parameters: within = int",
    "wd.param_groups(model, within=model[0].weight)": "not parameters: within = Parameter",
    "wd.Group()": "a group without a criterion: Group; give one of role, module, name, where, before_norm",
    "wd.Group(role='norm')": "no such role: role = 'norm'; there are normalization, ",
    "wd.Group(role=3)": "not a role: role = 3",
    "wd.Group(role=())": "not a role: role = ()",
    "wd.Group(module=nn.Linear(1, 1))": "not a class: module = Linear(",
    "wd.Group(module=int)": "not a module's class: module = int",
    "wd.Group(name='re:(')": (
        "not a regular expression (missing ), unterminated subpattern at position 0): name"
    ),
    "wd.Group(name=b'x')": "not a pattern: name = b'x'",
    "wd.Group(where='bias')": "not a function: where = 'bias'",
    "wd.Group(before_norm=1)": "neither True nor False: before_norm = 1",
    "wd.Group(name='*', force=None)": "neither True nor False: force = None",
    "wd.Group(name='*', scale=-0.5)": "not a strength: scale = -0.5",
    "wd.Group(name='*', scale=math.nan)": "not a strength: scale = nan",
    "wd.Group(name='*', scale=None)": "not a number: scale = None",
    "wd.Group(name='*', options=[1])": "not options by name: options = [1]",
    "wd.Group(name='*', options={'weight_decay': 1})": (
        "an option that the group sets itself: options = 'weight_decay'"
    ),
    "wd.Group(name='*', label='')": "not a label: label = ''",
    "wd.param_groups(model, groups=[wd.Group(where=lambda n, p: n[99] == 'a'), 'all'])": (
        "the predicate failed (IndexError: string index out of range): where = 0.weight"
    ),
    "wd.param_groups(model, groups=[wd.Group(where=lambda n, p: p > 0), 'all'])": (
        "the predicate gave Tensor: where = 0.weight; write a function of (name, parameter)"
    ),
    "wd.param_groups(asked())": (
        "cannot be asked (ZeroDivisionError: division by zero): model.no_weight_decay() of Asked"
    ),
    "wd.param_groups(returned())": (
        "cannot be asked (ZeroDivisionError: division by zero): model.get_output_embeddings() of Returned"
    ),
    "wd.split(model, {})": "no parts by name: parts = {}",
    "wd.split(model, ['rest'])": "no parts by name: parts = ['rest']",
    "wd.split(model, {'a': 'rest', 'b': 'rest'})": "two parts for the rest: parts = 'a', 'b'",
    "wd.split(model, {'a': 'matrices'})": "neither a Group nor 'rest': parts['a'] = 'matrices'",
    "wd.split(model, {'a': 3})": "neither a Group nor 'rest': parts['a'] = 3",
    "wd.split(model, {'a': [], 'b': 'rest'})": "an empty part: parts['a'] = []",
    "wd.split(model, {'a': wd.Group(role='bias', scale=2), 'b': 'rest'})": (
        "split only divides: parts['a'] = Group("
    ),
    "wd.split(model, {'a': wd.Group(role='head'), 'b': 'rest'})": (
        "a group that selects nothing: parts['a'] = Group("
    ),
}

SCRIPT = """
import math, sys, torch, weightdecay as wd
from torch import nn
model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
class FlatParameter(nn.Parameter): pass
def flat():
    layer = nn.Linear(2, 2)
    layer.weight = FlatParameter(torch.zeros(4))
    return layer
class Asked(nn.Linear):
    def no_weight_decay(self): return 1 / 0
class Returned(nn.Linear):
    def get_output_embeddings(self): return 1 / 0
asked, returned = lambda: Asked(1, 1), lambda: Returned(1, 1)
for line in sys.stdin.read().splitlines():
    try:
        eval(line)
        print("nothing raised")
    except wd.InputError as error:
        print(error)
    except Exception as error:
        print("RAW", type(error).__name__, error)
"""


def test_bad_input_is_one_line_that_says_what_to_do():
    """In a process without the type checks of the tests, which would speak first."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input="\n".join(BAD), capture_output=True, text=True, check=True
    )
    said = done.stdout.splitlines()
    assert len(said) == len(BAD)
    wrong = [
        (call, line)
        for (call, wanted), line in zip(BAD.items(), said, strict=True)
        if not line.startswith(wanted)
    ]
    assert not wrong, "\n".join(f"{call}\n    {line}" for call, line in wrong)
    assert all("; " in line for line in said)


def test_numbers_of_other_libraries_are_welcome():
    script = (
        "import numpy as np, torch, weightdecay as wd\n"
        "model = torch.nn.Linear(2, 1)\n"
        "half = wd.Group(role=['matrix'], scale=np.float32(0.5), where=lambda n, p: np.bool_(True))\n"
        "for value in (np.float64(0.5), np.int64(2), 0):\n"
        "    print(wd.param_groups(model, value, [half, 'all'])[0]['weight_decay'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.25", "1.0", "0.0"]
