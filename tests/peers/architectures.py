"""Architectures built small, from configuration or from torch.nn: `BUILDERS` maps a name to a function.

The libraries are imported when a builder is called, so that this file can be read where they are missing.
"""

import importlib

from tests.peers.plain_modules import Captioner, Forecaster, Generator
from torch import nn

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 40,
    "max_position_embeddings": 24,
}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IMAGE = {"image_size": 16, "patch_size": 8, "num_channels": 3}
GROUPED = {**SMALL, "num_key_value_heads": 1, **IDS}


def _from(model, config, **options):
    """A builder of a transformers model from its configuration."""

    def build():
        transformers = importlib.import_module("transformers")
        return getattr(transformers, model)(getattr(transformers, config)(**options))

    return build


def _vision(**options):
    small = {key: SMALL[key] for key in list(SMALL)[:4]}
    return {**small, **IMAGE, **options}


def _encoder_decoder(**options):
    return {
        "vocab_size": 40,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        **options,
    }


def _clip():
    transformers = importlib.import_module("transformers")
    text, vision = transformers.CLIPTextConfig(**SMALL, **IDS), transformers.CLIPVisionConfig(**_vision())
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    return transformers.CLIPModel(config)


BUILDERS = {
    "bert": _from("BertForMaskedLM", "BertConfig", **SMALL),
    "roberta": _from("RobertaForSequenceClassification", "RobertaConfig", **SMALL),
    "albert": _from("AlbertForMaskedLM", "AlbertConfig", **SMALL, embedding_size=8),
    "electra": _from("ElectraForPreTraining", "ElectraConfig", **SMALL, embedding_size=8),
    "distilbert": _from(
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        vocab_size=40,
        dim=16,
        n_layers=1,
        n_heads=2,
        hidden_dim=32,
    ),
    "deberta": _from(
        "DebertaV2ForMaskedLM",
        "DebertaV2Config",
        **SMALL,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=4,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
    ),
    "modernbert": _from("ModernBertForMaskedLM", "ModernBertConfig", **SMALL, **IDS),
    "gpt2": _from(
        "GPT2LMHeadModel", "GPT2Config", vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=24
    ),
    "gpt-neox": _from("GPTNeoXForCausalLM", "GPTNeoXConfig", **SMALL),
    "opt": _from(
        "OPTForCausalLM",
        "OPTConfig",
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        max_position_embeddings=24,
        word_embed_proj_dim=8,
    ),
    "bloom": _from("BloomForCausalLM", "BloomConfig", vocab_size=40, hidden_size=16, n_layer=1, n_head=2),
    "falcon": _from(
        "FalconForCausalLM",
        "FalconConfig",
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        **IDS,
    ),
    "llama": _from("LlamaForCausalLM", "LlamaConfig", **GROUPED),
    "gemma2": _from("Gemma2ForCausalLM", "Gemma2Config", **GROUPED, head_dim=8),
    "qwen3": _from("Qwen3ForCausalLM", "Qwen3Config", **GROUPED, head_dim=8),
    "phi": _from("PhiForCausalLM", "PhiConfig", **SMALL, **IDS),
    "olmo2": _from("Olmo2ForCausalLM", "Olmo2Config", **GROUPED),
    "mixtral": _from("MixtralForCausalLM", "MixtralConfig", **GROUPED, num_local_experts=4),
    "qwen2-moe": _from(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        **GROUPED,
        num_experts=4,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
    "deepseek-v3": _from(
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        **{**GROUPED, "num_key_value_heads": 2},
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        moe_intermediate_size=16,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        v_head_dim=8,
        qk_nope_head_dim=4,
    ),
    "gpt-oss": _from("GptOssForCausalLM", "GptOssConfig", **GROUPED, head_dim=8, num_local_experts=4),
    "mamba": _from(
        "MambaForCausalLM", "MambaConfig", vocab_size=40, hidden_size=16, num_hidden_layers=1, state_size=4
    ),
    "mamba2": _from(
        "Mamba2ForCausalLM",
        "Mamba2Config",
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        state_size=4,
        num_heads=4,
        head_dim=8,
        n_groups=1,
        **IDS,
    ),
    "jamba": _from(
        "JambaForCausalLM",
        "JambaConfig",
        **GROUPED,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
    ),
    "rwkv": _from(
        "RwkvForCausalLM",
        "RwkvConfig",
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        attention_hidden_size=16,
        intermediate_size=32,
    ),
    "t5": _from(
        "T5ForConditionalGeneration",
        "T5Config",
        vocab_size=40,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
    ),
    "bart": _from(
        "BartForConditionalGeneration", "BartConfig", **_encoder_decoder(max_position_embeddings=24)
    ),
    "whisper": _from(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        **_encoder_decoder(
            num_mel_bins=8,
            max_source_positions=10,
            max_target_positions=10,
            pad_token_id=0,
            decoder_start_token_id=1,
        ),
    ),
    "vit": _from("ViTForImageClassification", "ViTConfig", **_vision()),
    "deit": _from("DeiTForImageClassificationWithTeacher", "DeiTConfig", **_vision()),
    "beit": _from(
        "BeitForImageClassification",
        "BeitConfig",
        **_vision(use_relative_position_bias=True, use_mask_token=True),
    ),
    "dinov2": _from("Dinov2ForImageClassification", "Dinov2Config", **_vision()),
    "swin": _from(
        "SwinForImageClassification",
        "SwinConfig",
        image_size=16,
        patch_size=2,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=2,
    ),
    "segformer": _from(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
    ),
    "convnext": _from(
        "ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2
    ),
    "convnextv2": _from(
        "ConvNextV2ForImageClassification",
        "ConvNextV2Config",
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_stages=2,
    ),
    "resnet": _from(
        "ResNetForImageClassification",
        "ResNetConfig",
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="bottleneck",
    ),
    "mobilenet-v2": _from(
        "MobileNetV2ForImageClassification", "MobileNetV2Config", image_size=16, depth_multiplier=0.35
    ),
    "clip": _clip,
    "wav2vec2": _from(
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        **{key: SMALL[key] for key in list(SMALL)[:5]},
        conv_dim=[8, 8],
        conv_kernel=[3, 3],
        conv_stride=[2, 2],
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2,
    ),
    "nn-transformer": lambda: nn.Transformer(16, 2, 1, 1, 32),
    "nn-captioner": Captioner,
    "nn-generator": Generator,
    "nn-forecaster": Forecaster,
}
