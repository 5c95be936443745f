"""Followed by a normalisation: the oracle is what the model computes when the layer is scaled."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.groups.group_models import LlamaRMSNorm, Mlp, PreNorm, RMSNormalised
from torch import fx, nn

import weightdecay as wd
from weightdecay.groups import assign
from weightdecay.groups.before_norm import followed_by_norm


class Block(nn.Module):
    """A residual block, with names and order as in torchvision."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(3)
        self.shortcut = nn.Conv2d(3, 3, 1)

    def forward(self, x, mask=None):
        if mask is not None:
            x = x * mask
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Sequential(nn.MaxPool2d(2), nn.GroupNorm(1, 3))
        )
        self.body = nn.Sequential(Block(), Block())
        self.dead = nn.Conv2d(3, 3, 1)
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


class Attention(nn.Module):
    """Queries and keys are normalised, values are not; `qkv` is all three in one layer."""

    def __init__(self, fused=False):
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.qkv = nn.Linear(4, 12, bias=False) if fused else None
        if not fused:
            self.q, self.k, self.v = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.q_norm, self.k_norm = LlamaRMSNorm(2), nn.RMSNorm(2)
        self.out = nn.Linear(4, 4)
        self.post = nn.LayerNorm(4)

    def forward(self, tokens):
        x = self.norm(self.words(tokens))
        if self.qkv is not None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            q, k, v = self.q(x), self.k(x), self.v(x)
        q, k, v = (part.view(part.size(0), -1, part.shape[-1] // 2, 2).transpose(1, 2) for part in (q, k, v))
        q, k = self.q_norm(q), self.k_norm(k)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.post(x + self.out(mixed))


class Functional(nn.Module):
    """Weights used by functions; a cosine classifier; two uses of one weight."""

    def __init__(self):
        super().__init__()
        self.early = nn.Linear(4, 4, bias=False)
        self.mix = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.W = nn.Parameter(torch.randn(4, 5))
        self.direct = nn.Linear(5, 5, bias=False)
        self.cosine = nn.Linear(5, 3, bias=False)
        self.twice = nn.Linear(5, 5, bias=False)
        self.tanh = nn.Linear(5, 5)
        self.last = nn.LayerNorm(5, eps=1e-12)

    def forward(self, x, flip=False):
        if flip:
            x = x.flip(0)
        self.unused(x)
        x = F.layer_norm(F.linear(self.early(x), self.mix.weight, self.mix.bias), (4,), eps=1e-12)
        x = F.layer_norm((x @ self.W) * 0.5, (5,), eps=1e-12)
        x = F.layer_norm(F.linear(x, self.direct.weight) / 2.0, (5,), eps=1e-12)
        x = self.last(self.twice(x)) + F.linear(x, self.twice.weight)
        x = self.last(torch.tanh(self.tanh(x)))
        return F.linear(F.normalize(x, dim=-1), F.normalize(self.cosine.weight, dim=-1))


class Residual(nn.Module):
    """Has norm in its name and a normalisation inside, and normalises only a branch."""

    def __init__(self):
        super().__init__()
        self.norm, self.inside = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.inside(self.norm(x))


ResidualPreNorm = type("ResidualPreNorm", (Residual,), {})


class FrozenBatchNorm(nn.Module):
    """As in torchvision's detection models: constants, so that nothing is normalised."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.full((4,), 2.0))
        self.register_buffer("shift", torch.ones(4))

    def forward(self, x):
        return x * self.scale + self.shift


class Chained(nn.Module):
    """Layers that are followed by others first, and a norm that only its name tells."""

    def __init__(self):
        super().__init__()
        self.pre = PreNorm(4)
        self.first = nn.Linear(4, 4)
        self.second = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.norm = LlamaRMSNorm(4)
        self.gelu = nn.Linear(4, 4)
        self.both = nn.Linear(4, 4)
        self.residual, self.frozen = ResidualPreNorm(), FrozenBatchNorm()
        self.up, self.gate = nn.Linear(4, 4), nn.Linear(4, 4)
        self.before = nn.Linear(4, 4)

    def forward(self, x):
        x = self.residual(self.frozen(self.before(x)))
        x = self.norm(self.up(x) * torch.sigmoid(self.gate(x)))
        x = self.norm(self.second(F.relu(self.first(self.pre(x)) - 1.0)))
        x = self.norm(F.gelu(self.gelu(x)))
        x = self.both(x)
        return self.norm(x) + x


def image():
    return torch.randn(4, 3, 8, 8)


def tokens():
    return torch.randint(7, (2, 5))


def rows():
    return torch.randn(6, 4)


# name: model, data, the weights that are followed by a normalisation
MODELS = {
    "convnet": (
        ConvNet,
        image,
        {f"body.{i}.conv{j}.weight" for i in (0, 1) for j in (1, 2)} | {"stem.0.weight"},
    ),
    "attention": (Attention, tokens, {"words.weight", "q.weight", "k.weight"}),
    "fused attention": (lambda: Attention(fused=True), tokens, {"words.weight"}),
    "functional": (Functional, rows, {"W", "direct.weight", "cosine.weight", "mix.weight"}),
    "chained": (Chained, rows, {"second.parametrizations.weight.original1", "up.weight"}),
    "mlp": (Mlp, rows, set()),
}


def prepared(make):
    torch.manual_seed(0)
    model = make().double().train()
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-12
    return model


def data(make):
    torch.manual_seed(1)
    x = make()
    return x.double() if x.is_floating_point() else x


def named(model):
    following = followed_by_norm(model)
    return {name for name, p in model.named_parameters() if id(p) in following.yes}


def computes_the_same_scaled(model, name, x):
    """Whether 3 × the weight (and the layer's bias) leaves the output as it is."""
    before = model(x)
    scaled = copy.deepcopy(model)
    layer = name.split(".parametrizations")[0].rpartition(".")[0] or ""
    with torch.no_grad():
        for other, parameter in scaled.named_parameters():
            if (
                other == name
                or other == name.replace("weight", "bias")
                or (other == f"{layer}.bias" and layer)
            ):
                parameter.mul_(3.0)
    return torch.allclose(before, scaled(x), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", MODELS)
def test_weights_followed_by_a_normalisation_are_these(kind):
    make, _, wanted = MODELS[kind]
    assert named(make()) == wanted


@pytest.mark.parametrize("kind", MODELS)
def test_scaling_such_a_weight_changes_nothing_and_scaling_another_does(kind):
    make, inputs, wanted = MODELS[kind]
    model, x = prepared(make), data(inputs)
    for name, parameter in model.named_parameters():
        layer = name.rsplit(".", 1)[0].replace("body.0.", "").replace("body.1.", "")
        if parameter.ndim >= 2 and layer not in ("dead", "unused", "norm", "second.parametrizations.weight"):
            assert computes_the_same_scaled(model, name, x) == (name in wanted), name


class Steps(nn.Sequential):
    """A Sequential with a forward of its own: its order says nothing."""

    def forward(self, x):
        return self[0](x) + self[1](x) if x.sum() > 0 else x


class Untraceable(nn.Module):
    """Branches on data; parts of it are Sequential, one part traces."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Dropout(0.1), nn.BatchNorm1d(4)))
        self.middle = nn.Linear(4, 4)
        self.steps = Steps(nn.Linear(4, 4), nn.LayerNorm(4))
        self.traces = Inner()
        self.order = nn.Sequential(
            nn.Linear(4, 4), nn.Sequential(RMSNormalised(4), Branch()), nn.Linear(4, 4)
        )
        self.layer = nn.TransformerEncoderLayer(4, 1, 4)

    def forward(self, x):
        if x.sum() > 0:
            x = self.middle(x)
        return self.order(self.traces(self.steps(self.first(x))))


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x):
        return self.two(self.norm(self.one(x)))


def test_a_model_that_does_not_trace_is_read_in_parts():
    model = Untraceable()
    assert named(model) == {"first.0.weight", "traces.one.weight", "order.0.weight"}
    following = followed_by_norm(model)
    assert {name for name, p in model.named_parameters() if id(p) in following.unknown} == {
        "middle.weight",
        "traces.two.weight",
        "order.2.weight",
        "steps.0.weight",
    }
    assert "control flow" in following.problem


def test_a_layer_in_two_places_needs_a_normalisation_in_both():
    shared = nn.Linear(4, 4)
    once = nn.Sequential(shared, RMSNormalised(4))
    assert named(once) == {"0.weight"}
    assert named(nn.Sequential(shared, nn.LayerNorm(4), shared)) == set()
    block = nn.TransformerEncoderLayer(4, 1, 4)
    block.linear1.weight = shared.weight
    assert named(nn.Sequential(shared, nn.LayerNorm(4), block)) == set()
    other = nn.Linear(4, 4)
    other.weight = shared.weight
    assert named(nn.Sequential(shared, nn.LayerNorm(4), other, nn.Tanh())) == set()
    assert named(nn.Sequential(Branch(), shared, nn.LayerNorm(4), other, nn.Tanh())) == set()
    assert named(nn.Sequential(Branch(), shared, nn.LayerNorm(4), other)) == set()


def test_selecting_by_it_and_saying_so():
    model = ConvNet()
    records = assign(model, [wd.Group(before_norm=True, scale=2), wd.Group(before_norm=False)])
    twice = {one.name for one in records if one.scale == 2}
    assert twice == MODELS["convnet"][2]
    assert all(
        one.reason.endswith("followed by a normalisation")
        and ("not followed" in one.reason) == (one.name not in twice)
        for one in records
        if one.role != "bias"
    )
    wrapped = nn.DataParallel(torch.compile(model, backend="eager"))
    records = assign(wrapped, [wd.Group(before_norm=True, scale=2), "all"])
    assert {one.name.removeprefix("module._orig_mod.") for one in records if one.scale == 2} == twice
    compiled = nn.Sequential(torch.compile(nn.Linear(4, 4), backend="eager"), nn.LayerNorm(4))
    assert len(assign(compiled, [wd.Group(before_norm=True), "matrices"])) == 4


def test_nothing_followed_is_an_error_that_says_why():
    with pytest.raises(wd.InputError, match=r"no layer is seen .*: name the layers, Group\(name='...'\)"):
        assign(Mlp(), [wd.Group(before_norm=True), "matrices"])
    with pytest.raises(wd.InputError, match=r"\(TraceError: .*control flow.*\): name the layers"):
        assign(nn.ModuleDict({"a": Branching()})["a"], [wd.Group(before_norm=True), "matrices"])
    with pytest.raises(wd.InputError, match="no model to read the order of layers from"):
        assign(Mlp().named_parameters(), [wd.Group(before_norm=True), "matrices"])


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)

    def forward(self, x):
        return self.norm(self.fc(x)) if x.sum() > 0 else x


class Busy(nn.Module):
    """A forward with every side effect that tracing might leave behind."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.register_buffer("steps", torch.zeros(3))
        self.seen, self.last = [], None

    def forward(self, x):
        self.steps += 1
        self.seen.append(x)
        self.last = x
        x = x + torch.rand(3) + random.random() + np.random.rand()  # noqa: NPY002 - the generator that older code uses
        print("in forward")
        if isinstance(x, fx.Proxy):
            warnings.warn("in forward", stacklevel=2)
        return self.norm(self.fc(x))


def legacy():
    return np.random.get_state()[2], np.random.get_state()[1].tolist()  # noqa: NPY002


def test_looking_changes_nothing(capsys):
    model, heard = Busy(), []
    whole = nn.Sequential(model)
    model.register_forward_hook(lambda *args: heard.append(args))
    model.fc.register_forward_pre_hook(lambda *args: heard.append(args))
    before = copy.deepcopy(model.state_dict())
    kept = {key: copy.copy(value) for key, value in vars(model).items()}
    generators = random.getstate(), legacy(), torch.get_rng_state()
    assert named(whole) == {"0.fc.weight"}
    assert (random.getstate(), legacy()) == generators[:2]
    assert torch.equal(torch.get_rng_state(), generators[2])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert vars(model).keys() == kept.keys()
    assert model.seen == []
    assert model.last is None
    assert heard == []
    assert model.training
    assert capsys.readouterr() == ("", "")
    assert model(torch.ones(2, 3)).shape == (2, 3)
    assert len(heard) == 2
