"""Roles by what a forward does with a bare tensor; the right ones are written by hand from each forward."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from weightdecay.groups import assign


def parameter(*shape):
    return nn.Parameter(torch.ones(shape))


class Holding(nn.Module):
    """Tensors of these shapes, and a forward that is a function of them and x."""

    def __init__(self, forward, **shapes):
        super().__init__()
        self.function = forward
        for name, shape in shapes.items():
            self.register_parameter(name, parameter(*shape))

    def forward(self, x):
        return self.function(self, x)


def root(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def standard(x):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-6)


def deviation(m, x):
    """From left to right, as in the annotated transformer."""
    return m.a * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + m.b_2


def scan(m, x):
    rates = torch.exp(torch.einsum("bld,dn->bldn", functional.softplus(x), -torch.exp(m.rates)))
    return rates.sum(-1) + x * m.direct


def squeezed(m, x):
    """A value times its own mean is not normalised."""
    return x * x.mean(-1, keepdim=True) * m.k


G, B, M, REST = "normalization", "bias", "matrix", "other"
# Forward, shapes, roles.
CASES = {
    "layer_norm": (
        lambda m, x: functional.layer_norm(x, m.g.shape, m.g, m.c),
        {"g": (4, 8), "c": (4, 8)},
        (G, B),
    ),
    "group_norm": (
        lambda m, x: functional.group_norm(x, 2, weight=m.g, bias=m.c),
        {"g": (8,), "c": (8,)},
        (G, B),
    ),
    "rsqrt": (lambda m, x: root(x.float()).type_as(x) * m.g, {"g": (4, 8)}, (G,)),
    "normalize": (lambda m, x: functional.normalize(x, dim=-1) * 8**0.5 * m.g, {"g": (4, 8)}, (G,)),
    "one plus": (lambda m, x: x / (x.norm(dim=-1, keepdim=True) + 1e-6) * (1 + m.g), {"g": (4, 8)}, (G,)),
    "standard": (lambda m, x: m.s * standard(x) + m.t, {"s": (4, 8), "t": (4, 8)}, (G, B)),
    "deviation": (deviation, {"a": (4, 8), "b_2": (4, 8)}, (G, B)),
    "squeezed": (squeezed, {"k": (4, 8)}, (REST,)),
    "column": (lambda m, x: x @ m.theta + m.c, {"theta": (8, 1), "c": (1,)}, (M, REST)),
    "gain of a weight": (
        lambda m, x: functional.linear(x, m.g * m.k / m.k.norm(dim=1, keepdim=True), m.c),
        {"g": (4, 1), "k": (4, 8), "c": (4,)},
        (REST, M, B),
    ),
    "gain of a kernel": (
        lambda m, x: functional.conv2d(x, (m.k - m.k.mean((1, 2, 3), keepdim=True)) * m.g),
        {"g": (4, 1, 1, 1), "k": (4, 3, 3, 3)},
        (REST, "convolution"),
    ),
    "adapter": (lambda m, x: x * m.theta.flatten(), {"theta": (8, 1)}, (REST,)),
    "linear": (lambda m, x: functional.linear(x, m.k, m.c), {"k": (4, 8), "c": (4,)}, (M, B)),
    "masked": (lambda m, x: functional.linear(x, m.k * (m.k > 0)), {"k": (4, 8)}, (M,)),
    "experts": (
        lambda m, x: torch.einsum("nd,edf->nef", x, m.k) + m.c,
        {"k": (4, 8, 6), "c": (4, 6)},
        (M, B),
    ),
    "gate": (lambda m, x: (x @ m.gate).softmax(-1), {"gate": (8, 4)}, (M,)),
    "outer": (lambda m, x: torch.einsum("bd,dn->bdn", x, m.k), {"k": (8, 4)}, (REST,)),
    "scan": (scan, {"rates": (8, 4), "direct": (8,)}, (REST, REST)),
    "looked up": (lambda m, x: m.k[x], {"k": (20, 8)}, ("embedding",)),
    "tied": (lambda m, x: m.k[x] @ m.k.T, {"k": (20, 8)}, ("head",)),
    "place": (lambda m, x: x + m.pos_k[: x.shape[1]], {"pos_k": (20, 8)}, (REST,)),
    "queries": (lambda m, x: m.queries @ x.transpose(-1, -2), {"queries": (4, 8)}, (REST,)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_use_decides(name):
    forward, shapes, roles = CASES[name]
    found = {one.name: one.role for one in assign(Holding(forward, **shapes))}
    expected = dict(zip(shapes, roles, strict=True))
    if name == "column":
        expected["c"] = B
    assert found == expected


def test_lists_of_parameters_belong_to_their_owner():
    model = Holding(lambda m, x: x @ m.maps[0] * m.scales["a"] + m.scales["b"])
    model.maps = nn.ParameterList([parameter(8, 8)])
    model.scales = nn.ParameterDict({"a": parameter(4, 8), "b": parameter(4, 8)})
    assert [one.role for one in assign(model)] == [M, REST, B]


def test_a_forward_that_does_not_trace_leaves_it_to_the_name():
    def undecided(m, x):
        return x @ m.k if x.sum() > 0 else x * m.k

    assert [one.role for one in assign(Holding(undecided, k=(8, 8), b_k=(2, 4)))] == [M, B]


def test_looking_changes_nothing():
    def noisy(m, x):
        m.calls = getattr(m, "calls", 0) + 1
        print("seen")
        return torch.rand(2) + x @ m.k

    model, state = Holding(noisy, k=(8, 8)), torch.get_rng_state()
    model.register_forward_hook(lambda *_: pytest.fail("a hook was called"))
    assign(model)
    assert torch.equal(state, torch.get_rng_state())
    assert not hasattr(model, "calls")


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        *(
            (name, (2, 4), B)
            for name in ("b_Q", "bQ", "b1", "experts_b1", "r_w_bias", "bias_q", "out_biases")
        ),
        *(
            (name, (4, 8), M)
            for name in ("lora_b", "lora_B", "hada_w1_b", "w_b", "W_query", "bias_proj", "B")
        ),
        *(
            (name, (4, 8), REST)
            for name in ("W_pos", "w_embed", "pos_bias_u", "time_decay", "codebook", "A_imag")
        ),
        ("W_E", (9, 4), "embedding"),
        *(("k", shape, REST) for shape in ((4, 1), (4, 1, 1), (1, 4, 1))),
        *((name, (4, 1), M) for name in ("w", "weight", "lora_A", "kernel")),
    ],
)
def test_names_decide_where_nothing_else_does(name, shape, role):
    module = nn.Module()
    module.register_parameter(name, parameter(*shape))
    assert assign(module)[0].role == role
    assert assign([(name, module._parameters[name])])[0].role == role or name == "weight"
