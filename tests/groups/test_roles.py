"""Roles, exemptions and presets against tables written by hand."""

import warnings

import pytest
import torch
from tests.groups import group_models as zoo
from torch import nn

import weightdecay as wd
from weightdecay.groups import ROLES, assign, table

DECAYING = {"matrix", "convolution", "head"}


def roles(records):
    return {one.name: (one.role, "exempt" in one.reason) for one in records}


@pytest.mark.parametrize("kind", zoo.ZOO)
def test_roles_are_those_of_the_table(kind):
    make, wanted = zoo.ZOO[kind]
    records = assign(make())
    assert roles(records) == zoo.expected(wanted)
    assert [one.name for one in records] == list(zoo.expected(wanted))
    for one in records:
        role, exempt = zoo.expected(wanted)[one.name]
        assert one.scale == float(role in DECAYING and not exempt), one


def test_every_role_is_in_the_zoo():
    found = {role for _, wanted in zoo.ZOO.values() for role, _ in zoo.expected(wanted).values()}
    assert found == set(ROLES)


@pytest.mark.parametrize("kind", zoo.ZOO)
def test_records_say_which_tensor(kind):
    model = zoo.ZOO[kind][0]()
    for one in assign(model):
        assert model.get_parameter(one.name) is one.parameter
        assert one.shape == tuple(one.parameter.shape)
        assert one.numel == one.parameter.numel()


def expected_scales(model, preset):
    """What the recipes do, from names and shapes as they do it (their own code, shortened)."""
    skip = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
    scales = {}
    for name, p in model.named_parameters():
        # nanoGPT, model.py::configure_optimizers; timm, optim/_param_groups.py::param_groups_weight_decay
        decays = p.dim() >= 2 if preset == "gpt" else not (p.ndim <= 1 or name.endswith(".bias"))
        scales[name] = float(decays and name not in skip and not getattr(p, "_no_weight_decay", False))
    return scales


@pytest.mark.parametrize("preset", ["gpt", "vit"])
@pytest.mark.parametrize("kind", zoo.ZOO)
def test_presets_do_what_their_recipes_do(preset, kind):
    if kind == "clip":
        return  # timm asks the outer model only; here its towers are asked, too
    model = zoo.ZOO[kind][0]()
    wanted = expected_scales(model, preset)
    if kind == "attention" and preset == "vit":
        wanted |= {"same.bias_k": 0.0, "same.bias_v": 0.0}  # timm's `.bias` does not see them
    if kind == "stacked" and preset == "vit":
        wanted |= {"down_proj_bias": 0.0}  # nor this one
    assert {one.name: one.scale for one in assign(model, preset)} == wanted


def test_presets_all_and_no_bias():
    model = zoo.ConvNet()
    assert {one.scale for one in assign(model, "all")} == {1.0}
    assert {one.name: one.scale for one in assign(model, "no-bias")} == {
        name: float("bias" not in name) for name, _ in model.named_parameters()
    }


def test_a_preset_prints():
    assert repr(wd.groups.preset("gpt")) == (
        "(Group(where=two_or_more_axes, label='decay', optional=True), "
        "Group(name='*', scale=0.0, label='no decay', optional=True))"
    )
    assert repr(wd.groups.preset()) == (
        "(Group(role=('matrix', 'convolution', 'head'), label='decay', optional=True), Group(role=('bias', "
        "'normalization', 'embedding', 'other'), scale=0.0, label='no decay', optional=True))"
    )


def test_the_head_is_returned_or_tied_or_named():
    named = {one.name: one for one in assign(zoo.Untied())}
    assert named["lm_head.weight"].role == "head"
    assert "get_output_embeddings" in named["lm_head.weight"].reason
    assert named["transformer.wte.weight"].role == "embedding"
    tied = {one.name: one for one in assign(zoo.Gpt())}
    assert "lm_head.weight" not in tied
    head = tied["transformer.wte.weight"]
    assert head.names == ("transformer.wte.weight", "lm_head.weight")
    assert "tied: transformer.wte.weight and lm_head.weight are one parameter" in head.reason
    groups = [wd.Group(role="head", name="fc.weight", scale=2), "matrices"]
    by_name = {one.name: one for one in assign(zoo.ConvNet(), groups)}
    assert (by_name["fc.weight"].role, by_name["fc.weight"].scale) == ("head", 2.0)
    with pytest.raises(wd.InputError, match="roles here are convolution, normalization, bias, matrix"):
        assign(zoo.ConvNet(), [wd.Group(role="head"), "matrices"])


def test_a_tied_parameter_is_selected_by_any_of_its_names_and_layers():
    for group in (
        wd.Group(name="lm_head.*", scale=3),
        wd.Group(module=nn.Linear, name="*wte*", scale=3),
        wd.Group(module=nn.Embedding, role="head", scale=3),
    ):
        records = assign(zoo.Gpt(), [group, "matrices"])
        assert [one.name for one in records if one.scale == 3] == ["transformer.wte.weight"]
    pair = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    pair[1].weight = pair[0].weight
    assert [one.name for one in assign(pair)] == ["0.weight", "0.bias", "1.bias"]
    assert "tied: 0.weight and 1.weight" in assign(pair)[0].reason


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPPERS = {
    "ddp": (nn.parallel.DistributedDataParallel, "module."),
    "parallel": (nn.DataParallel, "module."),
    "compiled": (compiled, "_orig_mod."),
    "both": (lambda model: nn.parallel.DistributedDataParallel(compiled(model)), "module._orig_mod."),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_hide_nothing(wrapper, process_group):
    wrap, prefix = WRAPPERS[wrapper]
    for make in (zoo.Vit, zoo.Mamba, zoo.Untied, zoo.Clip):
        model = make()
        plain = {f"{prefix}{one.name}": (one.role, one.scale) for one in assign(model)}
        assert {one.name: (one.role, one.scale) for one in assign(wrap(model))} == plain


def test_patterns_need_no_prefixes_of_wrappers():
    model = nn.DataParallel(compiled(zoo.Vit()))
    groups = [wd.Group(name="head.weight", scale=2), "matrices"]
    assert [one.name for one in assign(model, groups) if one.scale == 2] == ["module._orig_mod.head.weight"]
    blocks = nn.Sequential(compiled(nn.Linear(2, 2)))
    assert assign(blocks, [wd.Group(name="0.weight", scale=2), "all"])[0].scale == 2


def test_exempt_modules_attributes_and_force():
    class Model(nn.Module):
        no_weight_decay = ("table", "first.weight")  # an attribute, and the name of a module

        def __init__(self):
            super().__init__()
            self.table = nn.Linear(3, 3)
            self.first = nn.Linear(3, 3)
            self.tableau = nn.Linear(3, 3)

    inside = Model()
    inside.first = compiled(inside.first)
    zeros = [one.name for one in assign(inside, "all") if one.scale == 0]
    assert zeros == ["table.weight", "table.bias", "first._orig_mod.weight"]
    scales = {one.name: one.scale for one in assign(Model(), "all")}
    assert [name for name, scale in scales.items() if scale == 0] == [
        "table.weight",
        "table.bias",
        "first.weight",
    ]
    forced = assign(Model(), [wd.Group(name="table.*", force=True), "all"])
    assert [one.name for one in forced if one.scale == 0] == ["first.weight"]
    assert "although the model exempts it" in forced[0].reason


def test_without_a_model_roles_are_guessed_from_names_and_say_so():
    for make in (zoo.Mlp, zoo.ConvNet, zoo.Untied, zoo.Recurrent, zoo.Vit, zoo.Debias, zoo.Attention):
        model = make()
        known = {one.name: one.scale for one in assign(model)}
        if make is zoo.Recurrent:
            known |= {"words.weight": 1.0, "vocabulary.weight": 1.0}  # neither name nor shape tells
        records = assign(list(model.named_parameters()))
        assert {one.name: one.scale for one in records} == known
        assert all("guessed from the name and the shape" in one.reason for one in records)
    assert {one.role for one in assign(zoo.Norms().named_parameters()) if "norm" in one.name} == {
        "normalization",
        "bias",
    }


@pytest.mark.parametrize("name", [None, "group 1, position 0"])
def test_without_names_the_shape_decides(name):
    shapes = {(): 0, (4,): 0, (3, 4): 1, (2, 3, 4): 1, (1, 3, 4): 0, (2, 3, 4, 4): 1}
    for shape, scale in shapes.items():
        (one,) = assign([(name, nn.Parameter(torch.zeros(shape)))])
        assert one.scale == scale
        assert "guessed from the shape alone" in one.reason
        assert one.name == (name or "position 0")


def test_scripted_modules_have_the_roles_of_their_classes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Embedding(3, 2)))
    groups = [wd.Group(before_norm=True, optional=True), "matrices"]
    for records in (assign(model), assign(model, groups)):
        assert [(one.name, one.role) for one in records] == [
            *(("0.weight", "matrix"), ("0.bias", "bias"), ("1.weight", "normalization"), ("1.bias", "bias")),
            ("2.weight", "embedding"),
        ]


def test_a_meta_model_is_grouped():
    with torch.device("meta"):
        model = zoo.Gpt()
    assert {one.name: one.role for one in assign(model)} == {one.name: one.role for one in assign(zoo.Gpt())}


def test_the_table_prints_names_roles_and_reasons():
    lines = table(assign(zoo.Vit())).splitlines()
    assert lines[0].split() == f"cls_token (1, 1, 8) other no decay × 0 {assign(zoo.Vit())[0].reason}".split()
    assert "no_weight_decay() of Vit" in lines[0]
    assert table([]) == ""
