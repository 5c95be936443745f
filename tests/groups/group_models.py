"""Small models of many kinds, each with a table of roles written by hand.

A table maps a name to one letter: b bias, n normalization, e embedding, h head, c convolution, m matrix,
o other. A capital letter: the model exempts the parameter.
"""

import warnings

import torch
from torch import nn

ROLE = {
    **{"b": "bias", "n": "normalization", "e": "embedding", "h": "head"},
    **{"c": "convolution", "m": "matrix", "o": "other"},
}


def expected(table):
    """The table as {name: (role, exempt)}, in order."""
    pairs = [line.split() for line in table.strip().splitlines()]
    return {name: (ROLE[letter.lower()], letter.isupper()) for letter, name in pairs}


class RMSNormalised(nn.RMSNorm):
    """A subclass with a name that says nothing of torch's."""


class LlamaRMSNorm(nn.Module):
    """As in transformers: no subclass of anything."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = 1e-6

    def forward(self, x):
        return x * x.pow(2).mean(-1, keepdim=True).add(self.eps).rsqrt() * self.weight


class MixtureNorm(nn.Module):
    """A norm over two axes that subclasses nothing."""

    def __init__(self, shape):
        super().__init__()
        self.normalized_shape = shape
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))


class PreNorm(nn.Module):
    """A wrapper whose name says norm and that holds a weight matrix of its own."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, x):
        return self.norm(x) @ self.weight


class WeightNormLinear(nn.Linear):
    """Norm in the name of a linear layer."""


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.PReLU(8), nn.Linear(8, 2))

    def forward(self, x):
        return self.layers(x)


class ConvNet(nn.Module):
    """Names as in torchvision: bn1, norm1."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 4, 2)
        self.norm1 = nn.GroupNorm(2, 4)
        self.line = nn.Conv1d(4, 4, 1)
        self.instance = nn.InstanceNorm1d(4, affine=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.norm1(self.up(x)).flatten(2)
        return self.fc(self.instance(self.line(x)).mean(2))


class Gpt(nn.Module):
    """As nanoGPT: the output head is the token embedding; ln_f."""

    def __init__(self, tied=True):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(11, 8),
                "wpe": nn.Embedding(5, 8),
                "h": nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)]),
                "ln_f": nn.LayerNorm(8),
            }
        )
        self.lm_head = nn.Linear(8, 11, bias=False)
        if tied:
            self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, tokens):
        x = self.transformer["wte"](tokens) + self.transformer["wpe"].weight[: tokens.shape[1]]
        return self.lm_head(self.transformer["ln_f"](self.transformer["h"][0](x)))


class Untied(Gpt):
    """As transformers: says which layer is the head."""

    def __init__(self):
        super().__init__(tied=False)

    def get_output_embeddings(self):
        return self.lm_head


class Base(nn.Module):
    """As a base model of transformers: there is no head."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def get_output_embeddings(self):
        raise NotImplementedError


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.EmbeddingBag(7, 4)
        self.vocabulary = VocabParallelEmbedding()
        self.rnn = nn.LSTM(4, 6, num_layers=1, proj_size=2)
        self.cell = nn.GRUCell(2, 3)
        self.both = nn.Bilinear(3, 3, 2)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.same = nn.MultiheadAttention(8, 2, add_bias_kv=True)
        self.cross = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, bias=False)


class VocabParallelEmbedding(nn.Module):
    """As Megatron's: an embedding by its name only."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(9, 4))


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.LayerNorm((2, 4))
        self.rms = RMSNormalised(4)
        self.llama = LlamaRMSNorm(4)
        self.mixture = MixtureNorm((2, 4))
        self.pre = PreNorm(4)
        self.linear = WeightNormLinear(4, 4)


class Mamba(nn.Module):
    """A_log and D as in mamba, dt_bias as in mamba2."""

    def __init__(self, marked=True):
        super().__init__()
        self.in_proj = nn.Linear(4, 8, bias=False)
        self.conv1d = nn.Conv1d(8, 8, 3, groups=8)
        self.A_log = nn.Parameter(torch.zeros(8, 3))
        self.D = nn.Parameter(torch.ones(8))
        self.dt_bias = nn.Parameter(torch.zeros(8))
        if marked:
            self.A_log._no_weight_decay = True
            self.D._no_weight_decay = True


class Vit(nn.Module):
    """As timm: names of its own in no_weight_decay(), one of which does not exist."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 8))
        self.reg_token = nn.Parameter(torch.zeros(1, 2, 8))
        self.patch_embed = nn.Conv2d(3, 8, 4)
        self.norm = nn.LayerNorm(8)
        self.layer_scale = nn.Parameter(torch.full((8,), 0.1))
        self.head = nn.Linear(8, 3)

    def no_weight_decay(self):
        return {"pos_embed", "cls_token", "dist_token"}

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(x * self.layer_scale)[:, 0])


class Clip(nn.Module):
    """Two towers: the submodule exempts by its own names."""

    def __init__(self):
        super().__init__()
        self.visual = Vit()
        self.positional_embedding = nn.Parameter(torch.zeros(7, 8))
        self.text_projection = nn.Parameter(torch.zeros(8, 8))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))


class Debias(nn.Module):
    def __init__(self):
        super().__init__()
        self.debias_head = nn.Linear(4, 2)
        self.bias_net = nn.Linear(4, 4, bias=False)
        self.unbiased = nn.Parameter(torch.randn(4, 4))


class Lora(nn.Module):
    """As loralib: bare matrices in a subclass of nothing; and a list of them."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 4)
        self.lora_A = nn.Parameter(torch.randn(2, 4))
        self.lora_B = nn.Parameter(torch.zeros(4, 2))
        self.experts = nn.ParameterList([nn.Parameter(torch.randn(4, 4))])
        self.gates = nn.ParameterDict({"gate": nn.Parameter(torch.randn(4, 4))})
        self.gate_up_proj = nn.Parameter(torch.randn(2, 4, 8))
        self.soft_prompt = nn.Parameter(torch.randn(5, 4))
        self.custom = nn.Parameter(torch.randn(1, 4, 4))
        self.w = nn.Parameter(torch.randn(4, 1))
        self.b = nn.Parameter(torch.zeros(1))


class ResponseGRN(nn.Module):
    """As ConvNeXt V2's global response normalisation, for channels last."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, width))


class Stacked(nn.Module):
    """Experts in one tensor, as gpt-oss has them, with biases of two axes; and a gain of three."""

    def __init__(self):
        super().__init__()
        self.down_proj = nn.Parameter(torch.randn(2, 4, 8))
        self.down_proj_bias = nn.Parameter(torch.zeros(2, 8))
        self.grn = ResponseGRN(4)
        self.weight = nn.Parameter(torch.ones(1, 1, 4))


def parametrised():
    wrapped = nn.utils.parametrizations
    return nn.ModuleDict(
        {
            "weight": wrapped.weight_norm(nn.Linear(3, 2)),
            "spectral": wrapped.spectral_norm(nn.Conv1d(3, 2, 1)),
            "orthogonal": wrapped.orthogonal(nn.Linear(3, 3, bias=False)),
        }
    )


def older():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.ModuleDict(
            {
                "weight": nn.utils.weight_norm(nn.Linear(3, 2)),
                "spectral": nn.utils.spectral_norm(nn.Conv1d(3, 2, 1)),
            }
        )


ZOO = {
    "mlp": (Mlp, "m layers.0.weight\nb layers.0.bias\no layers.1.weight\nm layers.2.weight\nb layers.2.bias"),
    "convnet": (
        ConvNet,
        """
        c conv1.weight
        n bn1.weight
        b bn1.bias
        c up.weight
        b up.bias
        n norm1.weight
        b norm1.bias
        c line.weight
        b line.bias
        n instance.weight
        b instance.bias
        m fc.weight
        b fc.bias
        """,
    ),
    "tied gpt": (
        Gpt,
        """
        h transformer.wte.weight
        e transformer.wpe.weight
        m transformer.h.0.self_attn.in_proj_weight
        b transformer.h.0.self_attn.in_proj_bias
        m transformer.h.0.self_attn.out_proj.weight
        b transformer.h.0.self_attn.out_proj.bias
        m transformer.h.0.linear1.weight
        b transformer.h.0.linear1.bias
        m transformer.h.0.linear2.weight
        b transformer.h.0.linear2.bias
        n transformer.h.0.norm1.weight
        b transformer.h.0.norm1.bias
        n transformer.h.0.norm2.weight
        b transformer.h.0.norm2.bias
        n transformer.ln_f.weight
        b transformer.ln_f.bias
        """,
    ),
    "base model": (Base, "m fc.weight\nb fc.bias"),
    "recurrent": (
        Recurrent,
        """
        e words.weight
        e vocabulary.weight
        m rnn.weight_ih_l0
        m rnn.weight_hh_l0
        b rnn.bias_ih_l0
        b rnn.bias_hh_l0
        m rnn.weight_hr_l0
        m cell.weight_ih
        m cell.weight_hh
        b cell.bias_ih
        b cell.bias_hh
        m both.weight
        b both.bias
        """,
    ),
    "attention": (
        Attention,
        """
        m same.in_proj_weight
        b same.in_proj_bias
        b same.bias_k
        b same.bias_v
        m same.out_proj.weight
        b same.out_proj.bias
        m cross.q_proj_weight
        m cross.k_proj_weight
        m cross.v_proj_weight
        m cross.out_proj.weight
        """,
    ),
    "norms": (
        Norms,
        """
        n matrix.weight
        b matrix.bias
        n rms.weight
        n llama.weight
        n mixture.weight
        b mixture.bias
        m pre.weight
        n pre.norm.weight
        b pre.norm.bias
        m linear.weight
        b linear.bias
        """,
    ),
    "mamba": (Mamba, "O A_log\nO D\nb dt_bias\nm in_proj.weight\nc conv1d.weight\nb conv1d.bias"),
    "mamba without marks": (
        lambda: Mamba(marked=False),
        "o A_log\no D\nb dt_bias\nm in_proj.weight\nc conv1d.weight\nb conv1d.bias",
    ),
    "vit": (
        Vit,
        """
        O cls_token
        O pos_embed
        o reg_token
        o layer_scale
        c patch_embed.weight
        b patch_embed.bias
        n norm.weight
        b norm.bias
        m head.weight
        b head.bias
        """,
    ),
    "clip": (
        Clip,
        """
        o positional_embedding
        m text_projection
        o logit_scale
        O visual.cls_token
        O visual.pos_embed
        o visual.reg_token
        o visual.layer_scale
        c visual.patch_embed.weight
        b visual.patch_embed.bias
        n visual.norm.weight
        b visual.norm.bias
        m visual.head.weight
        b visual.head.bias
        """,
    ),
    "debias": (Debias, "m unbiased\nm debias_head.weight\nb debias_head.bias\nm bias_net.weight"),
    "lora": (
        Lora,
        "m lora_A\nm lora_B\nm gate_up_proj\no soft_prompt\no custom\nm w\no b\n"
        "m base.weight\nb base.bias\nm experts.0\no gates.gate",
    ),
    "stacked": (Stacked, "m down_proj\nb down_proj_bias\no weight\nn grn.weight\nb grn.bias"),
    "parametrised": (
        parametrised,
        """
        b weight.bias
        n weight.parametrizations.weight.original0
        m weight.parametrizations.weight.original1
        b spectral.bias
        c spectral.parametrizations.weight.original
        m orthogonal.parametrizations.weight.original
        """,
    ),
    "older": (
        older,
        "b weight.bias\nn weight.weight_g\nm weight.weight_v\nb spectral.bias\nc spectral.weight_orig",
    ),
}
