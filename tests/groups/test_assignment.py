"""First match wins, every trainable parameter once, nothing in the model changes."""

import copy
import pickle
import random
from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.groups import group_models as zoo
from torch import nn

import weightdecay as wd
from weightdecay.groups import ROLES, assign, preset

LEAVES = (
    lambda: nn.Linear(3, 2),
    lambda: nn.Linear(3, 2, bias=False),
    lambda: nn.Conv1d(2, 2, 1),
    lambda: nn.BatchNorm1d(2),
    lambda: nn.LayerNorm((2, 4)),
    lambda: nn.Embedding(3, 2),
    lambda: nn.GRU(2, 2),
    lambda: nn.MultiheadAttention(2, 1),
    lambda: nn.PReLU(),
    lambda: zoo.Mamba(),
    lambda: nn.ParameterList([nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3))]),
)


def tree(generator, depth=0):
    """A module tree with shared modules, tied weights and frozen parameters."""
    if depth == 3 or (depth and generator.random() < 0.4):
        return generator.choice(LEAVES)()
    children = [tree(generator, depth + 1) for _ in range(generator.randint(1, 3))]
    if generator.random() < 0.2:
        children.append(children[0])
    if generator.random() < 0.5:
        return nn.ModuleList(children)
    return nn.ModuleDict({generator.choice("abcd") + str(i): child for i, child in enumerate(children)})


def drawn_model(seed):
    generator = random.Random(seed)
    model = nn.ModuleList([nn.Linear(3, 2), tree(generator)])
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    if generator.random() < 0.5:
        linears[-1].weight = linears[0].weight
    for parameter in model.parameters():
        parameter.requires_grad_(generator.random() < 0.8)
    model[0].weight.requires_grad_(True)
    return model


def drawn_groups(seed):
    generator = random.Random(seed)
    patterns = ["*weight*", "0.*", "*.bias", "re:.*[ab]\\d.*", "*l0"]
    made = []
    for _ in range(generator.randint(0, 4)):
        criteria = {
            "role": tuple(generator.sample(ROLES, generator.randint(1, 3))),
            "module": generator.choice([nn.Linear, (nn.Conv1d, nn.Embedding), nn.Module]),
            "name": generator.choice(patterns),
            "where": lambda name, p: p.numel() % 2 == 0,
        }
        chosen = generator.sample(sorted(criteria), generator.randint(1, 2))
        scale = generator.choice([0, 0.5, 1, 2])
        made.append(wd.Group(**{key: criteria[key] for key in chosen}, scale=scale, optional=True))
    return [*made, wd.Group(name="*", scale=7, optional=True)]


def plainly(group, one, owners):
    """The criteria once more, as the docstring has them."""
    patterns = {
        "re:.*[ab]\\d.*": lambda n: any(n[i] in "ab" and n[i + 1].isdigit() for i in range(len(n) - 1))
    }
    return (
        (group.role is None or one.role in group.role)
        and (group.module is None or any(isinstance(owner, group.module) for owner in owners))
        and (
            group.name is None
            or any(patterns.get(group.name, lambda n: fnmatchcase(n, group.name))(n) for n in one.names)
        )
        and (group.where is None or group.where(one.name, one.parameter))
    )


@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_every_trainable_parameter_once_and_first_match_wins(seed, other):
    model, groups = drawn_model(seed), drawn_groups(other)
    records = assign(model, groups)
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert [(one.name, id(one.parameter)) for one in records] == [(name, id(p)) for name, p in trainable]
    for one in records:
        owners = [
            model.get_submodule(name.rpartition(".")[0])
            for name, p in model.named_parameters(remove_duplicate=False)
            if p is one.parameter
        ]
        first = next(group for group in groups if plainly(group, one, owners))
        assert one.group is first
        assert one.scale == (0 if hasattr(one.parameter, "_no_weight_decay") else first.scale)
    for dicts in (wd.param_groups(model, 0.5, groups), wd.param_groups(model, 0.5)):
        pairs = [pair for part in dicts for pair in part["params"]]
        assert sorted((name, id(p)) for name, p in pairs) == sorted((name, id(p)) for name, p in trainable)
        assert all(part["params"] for part in dicts)
        assert len({part["name"] for part in dicts}) == len(dicts)


def state(model):
    """All that grouping could have touched."""
    parts = {}
    for name, module in model.named_modules():
        kept = {key: copy.copy(value) for key, value in vars(module).items()}
        parts[name] = (id(module), type(module), repr(kept))
    tensors = {name: (id(p), p.requires_grad, p.grad, p._version) for name, p in model.named_parameters()}
    bits = {name: buffer.numpy().tobytes() for name, buffer in model.named_buffers()}
    return (
        parts,
        tensors,
        bits,
        torch.get_rng_state().tolist(),
    )  # the type checks of the tests use Python's own


@pytest.mark.parametrize("kind", zoo.ZOO)
def test_grouping_changes_nothing(kind):
    model = zoo.ZOO[kind][0]().eval()
    for module in list(model.modules())[::2]:
        module.train(not module.training)
    before = state(model)
    bits = copy.deepcopy([p.detach() for p in model.parameters()])
    first = assign(model)
    wd.param_groups(model, 0.1, "vit")
    wd.split(model, {"one": wd.Group(name="*", optional=True), "rest": "rest"})
    before_norm = wd.Group(before_norm=True, optional=True)
    assign(model, [before_norm, "all"])
    assert state(model) == before
    assert all(torch.equal(a, b) for a, b in zip(bits, model.parameters(), strict=True))
    assert assign(model) == first


def test_a_group_alone_decays_nothing_else():
    records = assign(zoo.ConvNet(), wd.Group(module=nn.Conv2d, role="convolution", scale=2))
    assert {one.name: one.scale for one in records if one.scale} == {"conv1.weight": 2.0}
    rest = [one for one in records if one.name != "conv1.weight"]
    assert {(one.label, one.reason.split("; ")[-1]) for one in rest} == {
        ("not selected", "no group selects it")
    }


def test_a_list_covers_everything_or_says_what_it_leaves():
    with pytest.raises(wd.InputError) as error:
        assign(zoo.ConvNet(), [wd.Group(role="matrix"), wd.Group(role="bias")])
    assert str(error.value) == (
        "6 parameters in no group: groups = conv1.weight, bn1.weight, up.weight, norm1.weight, line.weight "
        "and 1 more; end the list with Group(name='*', scale=...) or a preset's name"
    )


def test_layer_wise_strengths_are_a_list():
    model = nn.ModuleDict(
        {"embed": nn.Embedding(4, 3), "blocks": nn.ModuleList(nn.Linear(3, 3) for _ in range(3))}
    )
    layers = [wd.Group(name=f"blocks.{i}.*", role="matrix", scale=0.75 ** (2 - i)) for i in range(3)]
    dicts = wd.param_groups(model, 0.1, [*layers, "matrices"])
    assert [(part["name"], part["weight_decay"]) for part in dicts] == [
        ("matrix, blocks.0.*", 0.1 * 0.5625),
        ("matrix, blocks.1.*", 0.1 * 0.75),
        ("matrix, blocks.2.*", 0.1),
        ("no decay", 0.0),
    ]
    assert [name for name, _ in dicts[-1]["params"]] == [
        "embed.weight",
        *(f"blocks.{i}.bias" for i in range(3)),
    ]


def test_a_selector_that_selects_nothing_says_what_is_there():
    model = zoo.Gpt()
    model.lm_head.register_parameter("bias", nn.Parameter(torch.zeros(11), requires_grad=False))
    cases = {
        "closest names are transformer.h.0.norm1.weight, transformer.h.0.norm2.weight, ": (
            wd.Group(name="transformer.h.0.norms.weight")
        ),
        "closest names are lm_head.weight": wd.Group(name="lm_haed.weight"),
        "the roles here are head, embedding, matrix, bias, normalization": wd.Group(role="convolution"),
        "the classes that hold parameters here are Linear, NonDynamicallyQuantizableLinear": (
            wd.Group(module=nn.Bilinear)
        ),
        "no parameter meets all its criteria at once": wd.Group(role="matrix", name="*bias"),
    }
    for message, group in cases.items():
        with pytest.raises(wd.InputError) as error:
            assign(model, [wd.Group(role="bias"), group, "all"])
        assert message in str(error.value)
        assert f"a group that selects nothing: groups[1] = {group!r}" in str(error.value)
        assert "\n" not in str(error.value)
        assert (
            assign(model, [wd.Group(role="bias"), copy.replace(group, optional=True), "all"])
            if hasattr(copy, "replace")
            else True
        )


def test_patterns_fit_the_whole_name():
    for pattern, names in {
        "layers.?.weight": ["layers.0.weight", "layers.1.weight", "layers.2.weight"],
        "re:layers.[02].*t": ["layers.0.weight", "layers.2.weight"],
        "*.[02].bias": ["layers.0.bias", "layers.2.bias"],
    }.items():
        records = assign(zoo.Mlp(), wd.Group(name=pattern))
        assert [one.name for one in records if one.scale] == names
    for pattern in ("layers.0", "re:weight", "LAYERS.*", "weight"):
        with pytest.raises(wd.InputError, match="a group that selects nothing"):
            assign(zoo.Mlp(), wd.Group(name=pattern))


def test_a_shadowed_selector_names_what_stands_before_it():
    groups = [
        wd.Group(role="matrix"),
        wd.Group(name="*weight", label="all weights"),
        wd.Group(module=nn.PReLU),
        "all",
    ]
    with pytest.raises(wd.InputError, match=r"earlier groups \(all weights\) take all .*: groups\[2\]"):
        assign(zoo.Mlp(), groups)


def test_within_only_these_count():
    model = zoo.ConvNet()
    parts = wd.split(model, {"convolutions": wd.Group(role="convolution"), "others": "rest"})
    dicts = wd.param_groups(model, 0.3, within=parts["others"])
    assert [name for name, _ in dicts[0]["params"]] == ["fc.weight"]
    assert sum(len(part["params"]) for part in dicts) == len(parts["others"]) == 10
    groups = [wd.Group(name="conv1.*", scale=2), "matrices"]  # one list for all parts
    (only,) = wd.param_groups(model, 0.3, groups, within=[model.fc.weight])
    assert [name for name, _ in only["params"]] == ["fc.weight"]
    with pytest.raises(wd.InputError, match=r"not trainable parameters of the model: within = 0.weight"):
        wd.param_groups(model, within=nn.Sequential(nn.Linear(1, 1)).named_parameters())
    with pytest.raises(wd.InputError, match="within = "):
        wd.param_groups(model, within=[])


def test_groups_print_compare_hash_and_pickle():
    group = wd.Group(module=(nn.Linear, nn.Conv2d), name=("a.*", "b.*"), options={"lr": 1}, before_norm=True)
    assert repr(group) == (
        "Group(module=(Linear, Conv2d), name=('a.*', 'b.*'), before_norm=True, options={'lr': 1})"
    )
    assert group.label == "Linear/Conv2d, a.*|b.*, before a normalisation"
    assert group == pickle.loads(pickle.dumps(group)) == copy.deepcopy(group)
    assert len({group, copy.copy(group), *preset("gpt")}) == 3
    assert repr(wd.Group(role="head", label="x", force=True)) == "Group(role='head', label='x', force=True)"
    assert wd.Group(where=lambda name, p: True).label == "<lambda>"


def test_groups_of_presets_mix_with_ones_own():
    groups = [wd.Group(name="*fc.weight", scale=0), "matrices"]
    by_name = {one.name: one for one in assign(zoo.ConvNet(), groups)}
    assert by_name["fc.weight"].label == "*fc.weight"
    assert by_name["fc.weight"].scale == 0
    assert by_name["conv1.weight"].label == "decay"
    spliced = assign(zoo.ConvNet(), [groups[0], *wd.groups.preset("matrices")])
    assert tuple(by_name.values()) == spliced


def test_groups_of_frozen_parameters_are_fine():
    """Adapters alone train: the frozen base is named, or left to what remains."""
    base = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).requires_grad_(False)
    base.register_parameter("lora_A", nn.Parameter(torch.ones(2, 3)))
    base.register_parameter("lora_B", nn.Parameter(torch.ones(3, 2)))
    lora, rest = wd.Group(name="*lora_*"), wd.Group(name="*", scale=0)
    for groups in (
        [lora, rest],
        [wd.Group(name="0.*", scale=2), lora],
        [wd.Group(role="bias", scale=0), lora, rest],
        [wd.Group(module=nn.Linear), lora],
        ["no-bias", rest],
    ):
        found = {one.name: one.scale for one in assign(base, groups)}
        assert found == {"lora_A": 1.0, "lora_B": 1.0}
    for held in ([p for p in base.parameters() if p.requires_grad], base.named_parameters()):
        optimizer = torch.optim.SGD(held, lr=0.1)
        for model in (base, None):
            decay = wd.attach(optimizer, wd.Decoupled(0.1), model=model, on=[wd.Group(role="matrix"), rest])
            assert len(decay.plan.all_targets) == 2
            decay.detach()
    with pytest.raises(wd.InputError, match="a group that selects nothing"):
        assign(base, [lora, wd.Group(name="lorra_*"), rest])
    base[0].weight.requires_grad_(True)
    with pytest.raises(wd.InputError, match="1 parameter in no group"):
        assign(base, [lora])
