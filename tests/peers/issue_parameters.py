"""Reported bugs of wrong parameters and tied weights, re-enacted small; see issue_builders."""

import importlib
import warnings

import torch
from tests.peers.issue_models import by_name, good, gpt2, llama, one_process, opt
from torch import nn, optim

import weightdecay as wd

# Wrong parameters


def norms_by_torch_s_class(mended):
    """transformers#35927: only torch's own LayerNorm was left out; the model has a norm of its own."""
    model = llama()
    if mended:
        return model, good(model)
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    decay = [p for n, p in model.named_parameters() if id(p) not in norms and "bias" not in n]
    rest = [p for n, p in model.named_parameters() if id(p) in norms or "bias" in n]
    groups = [{"params": decay, "weight_decay": 0.1}]
    return model, optim.AdamW(groups + ([{"params": rest, "weight_decay": 0.0}] if rest else []), lr=1e-3)


def norms_by_two_words(mended):
    """transformers#42754: the language modelling examples look for two words; gpt2 says ln_1."""
    model = gpt2()
    return model, good(model) if mended else by_name(model, ["bias", "layer_norm.weight"])


def one_group(mended):
    """verl#5070: one group for everything."""
    model = opt()
    return model, good(model) if mended else optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)


def renamed_in_a_refactor(mended):
    """Fast-LLM#542: what said that a norm does not decay was lost when the code was moved."""
    model = llama()
    return model, by_name(model, ["bias", "norm", "embed"] if mended else ["bias", "normalization", "embed"])


def split_then_merged(mended):
    """cosmos-predict2.5#165: the groups are made, then put together into one again."""
    model = opt()
    optimizer = good(model)
    if mended:
        return model, optimizer
    merged = [p for group in optimizer.param_groups for p in group["params"]]
    return model, optim.AdamW(merged, lr=1e-3, weight_decay=0.1)


def swapped(mended):
    """CLIP4Clip#11: the strength went to the group called no_decay."""
    model = opt()
    first, second = good(model).param_groups
    decay, rest = first["params"], second["params"]
    if not mended:
        decay, rest = rest, decay
    return model, optim.AdamW(
        [{"params": decay, "weight_decay": 0.2}, {"params": rest, "weight_decay": 0.0}], lr=1e-3
    )


def swapped_in_a_convnet(mended):
    """BalancingGroups#6: biases and norms decay, the weights do not."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    small = [p for p in model.parameters() if p.ndim < 2]
    large = [p for p in model.parameters() if p.ndim >= 2]
    if not mended:
        small, large = large, small
    return model, optim.SGD(
        [{"params": large, "weight_decay": 1e-3}, {"params": small, "weight_decay": 0.0}],
        lr=0.1,
        momentum=0.9,
    )


def whole_names_against_words(mended):
    """mt-dnn#37: `name not in no_decay` where a part of the name was meant: the list matches nothing."""
    model = opt()
    words = ["bias", "layer_norm", "embed"]
    if mended:
        return model, by_name(model, words)
    decay = [p for name, p in model.named_parameters() if name not in words]
    return model, optim.AdamW([{"params": decay, "weight_decay": 0.1}], lr=1e-3)


class Vision(nn.Module):
    """As in timm: the model says what it does not want to decay."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 8) * 0.02)
        self.patch_embed = nn.Conv2d(3, 8, 4)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def no_weight_decay(self):
        return {"pos_embed"}


def hidden_by_a_wrapper(mended):
    """deit#39: asked through DistributedDataParallel, the model seems to exempt nothing."""
    with one_process():
        wrapped = nn.parallel.DistributedDataParallel(Vision())
        asked = wrapped.module if mended else wrapped
        skip = asked.no_weight_decay() if hasattr(asked, "no_weight_decay") else set()
        exempt = {f"module.{name}" for name in skip}
        decay = [p for n, p in wrapped.named_parameters() if p.ndim >= 2 and n not in exempt]
        rest = [p for n, p in wrapped.named_parameters() if p.ndim < 2 or n in exempt]
        groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
        return wrapped, optim.AdamW(groups, lr=1e-3)


def names_of_another_model(mended):
    """DeepSpeedExamples#755: LayerNorm.weight, and the model says layer_norm."""
    model = opt()
    return model, by_name(
        model, ["bias", "layer_norm.weight", "embed"] if mended else ["bias", "LayerNorm.weight", "embed"]
    )


class StateSpace(nn.Module):
    """As in mamba: two parameters carry a mark."""

    def __init__(self):
        super().__init__()
        self.in_proj = nn.Linear(8, 16, bias=False)
        self.A_log = nn.Parameter(torch.zeros(16, 4))
        self.D = nn.Parameter(torch.ones(16))
        self.A_log._no_weight_decay = True
        self.D._no_weight_decay = True


def marks_ignored(mended):
    """mamba#798: a trainer that does not look at `_no_weight_decay`."""
    model = StateSpace()
    return model, good(model) if mended else optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)


def names_of_another_library(mended):
    """minGPT#23: `LayerNorm.weight` where the names are ln1, ln2 and ln_f."""
    model = gpt2()
    return model, by_name(model, ["bias", "ln_", "wpe"] if mended else ["bias", "LayerNorm.weight", "wpe"])


def rare_tokens(mended):
    """torchtitan#2599: tokens that do not occur get no gradient, and decay."""
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 50))
    groups = "matrices" if mended else [wd.Group(role="embedding"), "matrices"]
    optimizer = optim.AdamW(wd.param_groups(model, 0.1, groups), lr=1e-3)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    return model, optimizer


# Tied, shared, sharded


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layer = nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight


def shared_in_two_sets(mended):
    """returnn#1319: seen in the embedding it does not decay, seen in the output layer it does."""
    model = Tied()
    if mended:
        return model, good(model)
    decay = optim.AdamW([model.head.weight, model.layer.weight], lr=1e-3, weight_decay=0.1)
    return model, [decay, optim.AdamW([model.embedding.weight, model.layer.bias], lr=1e-3, weight_decay=0.0)]


def tied_in_two_optimizers(mended):
    """APOLLO#4: torch refuses a tied weight in two groups, so each goes to an optimizer of its own."""
    model = Tied()
    if mended:
        return model, good(model)
    inner = optim.AdamW([model.layer.weight, model.head.weight], lr=1e-3, weight_decay=0.1)
    return model, [inner, optim.AdamW([model.embedding.weight, model.layer.bias], lr=1e-3, weight_decay=0.1)]


def twice_in_a_group(mended):
    """pytorch#40967: the same parameter twice in one list: updated twice."""
    model = Tied()
    decay = [model.embedding.weight, model.head.weight, model.layer.weight]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        groups = [
            {"params": decay[1:] if mended else decay},
            {"params": [model.layer.bias], "weight_decay": 0.0},
        ]
        return model, optim.AdamW(groups, lr=1e-3, weight_decay=0.1)


def two_over_the_same_memory(mended):
    """pytorch#40967, in the way that passes torch's check: two Parameter objects over one storage."""
    model = Tied()
    if not mended:
        model.head.weight = nn.Parameter(model.embedding.weight.detach())
    return model, good(model)


def flattened_by_sharding(mended):
    """pytorch#101343: the first FSDP lays all tensors into one: no names, no shapes, nothing to exempt by."""
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    with one_process():
        fsdp = importlib.import_module("torch.distributed.fsdp")
        sharded = fsdp.FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=mended)
        groups = wd.param_groups(sharded, 0.1) if mended else sharded.parameters()
        return sharded, optim.AdamW(groups, lr=1e-3, weight_decay=0.1)


WRONG_PARAMETERS = {
    "transformers#35927": (norms_by_torch_s_class, {"WD101"}, "*norm*"),
    "transformers#42754": (norms_by_two_words, {"WD101"}, "*.ln_*"),
    "verl#5070": (one_group, {"WD101", "WD102"}, "*"),
    "Fast-LLM#542": (renamed_in_a_refactor, {"WD101"}, "*norm*"),
    "cosmos-predict2.5#165": (split_then_merged, {"WD101", "WD102"}, "*"),
    "CLIP4Clip#11": (swapped, {"WD101", "WD102", "WD103"}, "*"),
    "BalancingGroups#6": (swapped_in_a_convnet, {"WD101", "WD102", "WD103"}, "*"),
    "mt-dnn#37": (whole_names_against_words, {"WD101", "WD102"}, "*"),
    "deit#39": (hidden_by_a_wrapper, {"WD107"}, "*pos_embed"),
    "DeepSpeedExamples#755": (names_of_another_model, {"WD101"}, "*layer_norm.weight"),
    "mamba#798": (marks_ignored, {"WD107"}, "*"),
    "minGPT#23": (names_of_another_library, {"WD101"}, "*.ln_*"),
    "torchtitan#2599": (rare_tokens, {"WD105"}, "0.weight"),
}
TIED = {
    "returnn#1319": (shared_in_two_sets, {"WD202", "WD204"}, "embedding.weight"),
    "APOLLO#4": (tied_in_two_optimizers, {"WD202"}, "embedding.weight"),
    "pytorch#40967": (twice_in_a_group, {"WD202"}, "embedding.weight"),
    "pytorch#40967 (storage)": (two_over_the_same_memory, {"WD206"}, "*.weight"),
    "pytorch#101343": (flattened_by_sharding, {"WD205"}, "*"),
    "open_clip#358": (flattened_by_sharding, {"WD205"}, "*"),
}
