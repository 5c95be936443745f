"""Configurations in which nothing is wrong, as `audit` takes them: a model, optimizers, settings."""

import importlib

import torch
from tests.peers.architectures import BUILDERS
from tests.peers.issue_models import one_process
from torch import nn, optim

import weightdecay as wd

COSINE = optim.lr_scheduler.CosineAnnealingLR


def llama_with_a_schedule():
    model = BUILDERS["llama"]()
    optimizer = optim.AdamW(wd.param_groups(model, 0.1), lr=3e-4, betas=(0.9, 0.95))
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda t: min((t + 1) / 100, 1.0))
    return model, [optimizer], {"schedule": schedule, "steps": 20_000}


def resnet_with_sgd():
    model = BUILDERS["resnet"]()
    optimizer = optim.SGD(wd.param_groups(model, 5e-4), lr=0.1, momentum=0.9, nesterov=True)
    return model, [optimizer], {"steps": 35_000, "steps_per_epoch": 390}


def gpt_as_in_nanogpt():
    model = BUILDERS["gpt2"]()
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return model, [optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95))], {"groups": "gpt"}


def vit_as_in_timm():
    model = BUILDERS["vit"]()
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": rest, "weight_decay": 0.0}, {"params": decay, "weight_decay": 0.05}]
    return model, [optim.AdamW(groups, lr=1e-3)], {"groups": "vit"}


def bert_with_the_trainer_s_groups():
    model = BUILDERS["bert"]()
    transformers = importlib.import_module("transformers")
    decay = transformers.Trainer.get_decay_parameter_names(None, model)
    named = dict(model.named_parameters())
    groups = [
        {"params": [p for name, p in named.items() if name in decay], "weight_decay": 0.01},
        {"params": [p for name, p in named.items() if name not in decay], "weight_decay": 0.0},
    ]
    return model, [optim.AdamW(groups, lr=5e-5)], {"groups": None}


def muon_beside_adamw():
    model = BUILDERS["qwen3"]()
    parts = wd.split(model, {"muon": wd.Group(role="matrix"), "adamw": "rest"})
    muon = optim.Muon(wd.param_groups(model, 0.05, within=parts["muon"]), lr=2e-2)
    adamw = optim.AdamW(wd.param_groups(model, 0.1, within=parts["adamw"]), lr=3e-4)
    return model, [muon, adamw], {}


def a_rule_attached():
    model = BUILDERS["nn-captioner"]()
    optimizer = optim.Adam(model.named_parameters(), lr=1e-3)
    wd.attach(optimizer, wd.Cautious(0.1), model=model)
    return model, [optimizer], {"steps": 30_000}


def a_rule_lowered():
    model = BUILDERS["vit"]()
    optimizer = optim.AdamW(wd.param_groups(model, 0.0), lr=1e-3, weight_decay=0.0)
    wd.attach(optimizer, wd.Decoupled(0.05), model=model)
    return model, [optimizer], {"steps": 50_000}


def low_rank_adapters():
    peft = importlib.import_module("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(BUILDERS["llama"](), config)
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, [optim.AdamW(trained, lr=2e-4, weight_decay=0.0)], {}


def a_frozen_body():
    model = BUILDERS["dinov2"]()
    model.dinov2.requires_grad_(False)
    return model, [optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3)], {}


def autocast_with_a_scaler():
    model = BUILDERS["convnext"]()
    optimizer = optim.AdamW(wd.param_groups(model, 0.05), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu")
    return model, [optimizer], {"scaler": scaler, "schedule": COSINE(optimizer, 30_000), "steps": 30_000}


def t5_with_adafactor():
    model = BUILDERS["t5"]()
    return model, [optim.Adafactor(wd.param_groups(model, 0.1), lr=1e-2)], {}


def lion():
    model = BUILDERS["phi"]()
    optimizer = importlib.import_module("pytorch_optimizer").Lion(
        wd.param_groups(model, 1.0), lr=1e-4, weight_decay=1.0
    )
    return model, [optimizer], {"steps": 20_000}


def no_decay_meant():
    model = BUILDERS["distilbert"]()
    return model, [optim.Adam(model.parameters(), lr=1e-3)], {"groups": None}


def compiled_on_the_meta_device():
    with torch.device("meta"):
        model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4), 2)
    optimizer = optim.AdamW(wd.param_groups(model, 0.1), lr=3e-4)
    return torch.compile(model), [optimizer], {}


def one_cycle():
    model = BUILDERS["mobilenet-v2"]()
    optimizer = optim.SGD(wd.param_groups(model, 4e-5), lr=0.05, momentum=0.9)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=60_000)
    return model, [optimizer], {"schedule": schedule, "steps": 60_000}


def sharded():
    with one_process():
        fsdp = importlib.import_module("torch.distributed.fsdp")
        model = fsdp.fully_shard(BUILDERS["olmo2"]())
        return model, [optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3)], {"steps": 20_000}


def distributed_and_compiled():
    with one_process():
        model = torch.compile(nn.parallel.DistributedDataParallel(BUILDERS["vit"]()))
        return model, [optim.AdamW(wd.param_groups(model, 0.1), lr=1e-3)], {"steps": 20_000}


def two_networks():
    model = nn.ModuleDict({"generator": BUILDERS["nn-generator"](), "critic": BUILDERS["nn-forecaster"]()})
    both = [optim.AdamW(wd.param_groups(part, 0.02), lr=2e-4) for part in model.values()]
    return model, both, {}


GOOD = {
    make.__name__.replace("_", " "): make
    for make in (
        *(llama_with_a_schedule, resnet_with_sgd, gpt_as_in_nanogpt, vit_as_in_timm),
        *(bert_with_the_trainer_s_groups, muon_beside_adamw, a_rule_attached, a_rule_lowered),
        *(low_rank_adapters, a_frozen_body, autocast_with_a_scaler, t5_with_adafactor, lion),
        *(no_decay_meant, compiled_on_the_meta_device, one_cycle, sharded, distributed_and_compiled),
        two_networks,
    )
}
