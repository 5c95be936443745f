"""What only a GPU has: fused and capturable optimizers, graphs, gradient scalers, generators, kernels."""

import copy
import shutil
import subprocess
import sys

import pytest
import torch
from tests.gpu.agnostic import TOLERANCE, moved
from tests.hooks.zoo import LR, Model, closure_of, make_rule, train, weights
from torch import nn, optim

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.rules import RULES

pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")


def adamw(model, rule, **options):
    lr = options.pop("lr", LR)
    optimizer = optim.AdamW(model.named_parameters(), lr=lr, weight_decay=0.0, **options)
    return optimizer, wd.attach(optimizer, rule, model=model, on="all")


def on_the_cpu(rule, steps):
    model = Model("AdamW")
    train(model, adamw(model, rule)[0], steps)
    return weights(model)


def close(found, wanted, **tolerance):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.cpu(), other.cpu(), **(tolerance or TOLERANCE))


@pytest.mark.parametrize("way", ["foreach", "fused", "capturable"])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_on_each_way_of_stepping(cuda, name, way):
    """Capturable with lr in a tensor on the GPU."""
    model = moved(Model("AdamW"), cuda)
    options = {"lr": torch.tensor(LR, dtype=torch.float64, device=cuda)} if way == "capturable" else {}
    optimizer, _ = adamw(model, make_rule(name), **options, **{way: True})
    train(model, optimizer, 6)
    close(weights(model), on_the_cpu(make_rule(name), 6), rtol=1e-6, atol=1e-7)


GRAPHED = {
    "lowered": wd.Decoupled(0.4),
    "Cautious": wd.Cautious(0.4),
    "toward an EMA": wd.Toward(0.4, ema=0.9),
    "L2": wd.L2(0.4),
    "a function of the step": wd.Cautious(lambda step: 0.4 / (1 + step)),
}


@pytest.mark.parametrize("name", GRAPHED)
def test_a_captured_step_is_right_or_refused(cuda, name):
    model = moved(Model("AdamW"), cuda)
    lr = torch.tensor(LR, dtype=torch.float64, device=cuda)
    optimizer, _ = adamw(model, GRAPHED[name], lr=lr, capturable=True)
    evaluate = closure_of(model, optimizer)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        train(model, optimizer, 3)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            evaluate()
            optimizer.step()
    except InputError:
        return
    for _ in range(4):
        graph.replay()
    close(weights(model), on_the_cpu(GRAPHED[name], 7), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["Decoupled", "Cautious", "L2", "Toward"])
def test_a_step_that_a_scaler_skips_does_not_decay(cuda, name, fused):
    model = moved(Model("AdamW", dtype=torch.float32), cuda)
    optimizer, decay = adamw(model, make_rule(name), fused=fused)
    scaler = torch.amp.GradScaler(cuda, init_scale=2.0**4)
    for step in range(3):
        before, steps = weights(model), decay.steps
        optimizer.zero_grad()
        scaler.scale(model.loss()).backward()
        if step == 1:
            model.first.weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        same = all(map(torch.equal, before, weights(model)))
        assert same == (step == 1)
        assert decay.steps == steps + (step != 1)


def narrow(cuda, seed=0, n=20_000):
    layer = nn.Linear(n, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(1, n, generator=torch.Generator().manual_seed(1)))
    layer.to(cuda, torch.bfloat16)
    optimizer = optim.SGD(layer.parameters(), lr=1e-3)
    return (
        layer,
        optimizer,
        wd.attach(optimizer, wd.Decoupled(0.1), model=layer, rounding="stochastic", seed=seed),
    )


def step(layer, optimizer):
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()


def test_rounding_at_random_is_unbiased(cuda):
    layer, optimizer, decay = narrow(cuda)
    start = layer.weight.detach().double().norm()
    for _ in range(1000):
        step(layer, optimizer)
    left = float(layer.weight.detach().double().norm() / start)
    assert left == pytest.approx((1 - 1e-4) ** 1000, abs=0.005)
    assert decay.happened().ratio == pytest.approx(1, abs=0.02)


def test_rounding_at_random_is_resumed_bit_for_bit(cuda):
    layer, optimizer, decay = narrow(cuda)
    for _ in range(3):
        step(layer, optimizer)
    saved = copy.deepcopy((layer.state_dict(), optimizer.state_dict(), decay.state_dict()))
    again = narrow(cuda)
    for one, state in zip(again, saved, strict=True):
        one.load_state_dict(state)
    for _ in range(3):
        step(layer, optimizer)
        step(*again[:2])
    assert torch.equal(layer.weight, again[0].weight)
    assert decay.happened() == again[2].happened()


COMPILED = """
import torch, weightdecay as wd

def trained(compiled):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(200, 150, generator=generator, dtype=torch.float64).to("DEVICE").requires_grad_()
    optimizer = torch.optim.AdamW([("w", w)], lr=0.05, weight_decay=0)
    wd.attach(optimizer, wd.Cautious(0.4), on="all", compile=compiled)
    for _ in range(4):
        w.grad = torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w)
        optimizer.step()
    return w.detach()

print(float((trained(True) - trained(False)).abs().max()))
"""


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_rule(cuda):
    """In a process without the tests' own type checks, which torch cannot trace."""
    program = COMPILED.replace("DEVICE", cuda)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-10


def test_random_states_of_the_gpu_are_left_alone(cuda):
    before = torch.cuda.get_rng_state()
    X = torch.linspace(-1, 1, 32)[:, None]
    for where in ("cpu", cuda):
        wd.sweep(
            lambda: nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.1), nn.Linear(4, 1)),
            (X, 2 * X),
            (X, 2 * X),
            loss=nn.functional.mse_loss,
            optimizer=lambda parameters: optim.SGD(parameters, lr=0.1),
            strengths=[0.1],
            seeds=1,
            epochs=2,
            widen=0,
            device=where,
        )
    wd.probe(optim.AdamW)
    assert torch.equal(torch.cuda.get_rng_state(), before)
