"""The models and the usual splits of `issue_parameters` and `issue_forms`."""

import contextlib
import importlib

from torch import distributed, optim

import weightdecay as wd

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 24,
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
}


def llama():
    transformers = importlib.import_module("transformers")
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, intermediate_size=32))


def opt():
    transformers = importlib.import_module("transformers")
    config = transformers.OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16)
    return transformers.OPTForCausalLM(config)


def gpt2():
    transformers = importlib.import_module("transformers")
    config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=24)
    config.bos_token_id = config.eos_token_id = 2
    return transformers.GPT2LMHeadModel(config)


def by_name(model, exempt, lr=1e-3, weight_decay=0.1):
    """The split that most training scripts have: a list of words, searched for in the names."""
    named = list(model.named_parameters())
    decay = [p for name, p in named if not any(word in name for word in exempt)]
    rest = [p for name, p in named if any(word in name for word in exempt)]
    return optim.AdamW(
        [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}], lr=lr
    )


def good(model, weight_decay=0.1, lr=1e-3):
    return optim.AdamW(wd.param_groups(model, weight_decay), lr=lr)


@contextlib.contextmanager
def one_process():
    """A process group with nobody else in it, for wrappers that need one."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()
