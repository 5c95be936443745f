"""Steps of a large model, the optimizer alone and with a rule side by side: a part of `attach.py`.

Two optimizers are in memory at a time: each candidate is made with a base of its own, takes steps in turn
with it and with a copy of a large block of memory, and is freed before the next. Weights are

    float32     stepped in float32, then copied to the bfloat16 weights of a forward pass; base and candidate
    bfloat16    stepped in bfloat16, decay rounded at random; the base's own decay to the nearest

Bytes a parameter are those that have to move: w, g, m, v read and w, m, v written, the copy, and what the
rule reads and writes beside that once (w; for Cautious also g and m). A rule that goes over memory more often
shows as a smaller fraction of the copy's bandwidth.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, optim

import weightdecay as wd
from devices import waiting

LR, STRENGTH = 1e-4, 0.1
COPIED = {"cpu": 1 << 27, "cuda": 1 << 30}  # bytes of the block whose copy tells the bandwidth
# All but the biases, so that one option cannot speak for the group and hooks have to do it.
WEIGHTS = [wd.Group(role="bias", scale=0), wd.Group(name="*")]
# By weights and name: the rule, options of attach, bytes a parameter beside the base's.
PAIRS: dict[str, dict[str, tuple[Any, dict[str, Any], int]]] = {
    "float32": {
        "Decoupled, lowered": (wd.Decoupled(STRENGTH), {"on": "all"}, 0),
        "Decoupled, hooks": (wd.Decoupled(STRENGTH), {"on": WEIGHTS}, 8),
        "Cautious, hooks": (wd.Cautious(STRENGTH), {"on": "all"}, 16),
        "Cautious, hooks, compiled": (wd.Cautious(STRENGTH), {"on": "all", "compile": True}, 16),
    },
    "bfloat16": {
        "Decoupled, at random": (wd.Decoupled(STRENGTH), {"on": "all", "rounding": "stochastic"}, 4),
        "Cautious, at random": (wd.Cautious(STRENGTH), {"on": "all", "rounding": "stochastic"}, 8),
    },
}
BASE = {"float32": 28 + 6, "bfloat16": 14}


def shapes(count: float) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Matrices and biases of a transformer of about so many parameters, of eight layers or more."""
    width = next((w for w in (2048, 1024, 512, 256) if 8 * 12 * w**2 <= count), 128)
    for layer in range(max(1, round(count / (12 * width**2)))):
        sides = {"qkv": (3, 1), "out": (1, 1), "up": (4, 1), "down": (1, 4)}
        for name, (rows, columns) in sides.items():
            yield f"{layer}.{name}.weight", (rows * width, columns * width)
            yield f"{layer}.{name}.bias", (rows * width,)


def stepping(
    gradients: dict[str, Tensor], weights: str, attach: Callable[[optim.Optimizer], object] | None
) -> Callable[[], None]:
    """A step of fused AdamW on weights of its own, by its own decay or with a rule attached."""
    named = []
    for name, gradient in gradients.items():
        w = nn.Parameter(torch.full_like(gradient, 0.02))
        w.grad = gradient
        named.append((name, w))
    own = 0.0 if attach else STRENGTH
    optimizer = optim.AdamW(named, lr=LR, weight_decay=own, fused=True)
    if attach:
        attach(optimizer)
    masters = [w.detach() for _, w in named]
    copies = [w.to(torch.bfloat16) for w in masters] if weights == "float32" else []

    def step() -> None:
        optimizer.step()
        if copies:
            torch._foreach_copy_(copies, masters)  # pyright: ignore[reportPrivateImportUsage]

    return step


def turns(contestants: dict[str, Callable[[], object]], rounds: int, warm: int) -> dict[str, list[float]]:
    """Seconds of each, one after the other in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(warm + rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if round_ >= warm:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def pairs(device: str, count: float, weights: list[str], only: str, rounds: int, warm: int) -> None:
    """Print the table."""
    block = torch.empty(COPIED[device], dtype=torch.uint8, device=device).fill_(1)
    other = torch.empty_like(block)
    for kind in weights:
        dtype = getattr(torch, kind)
        filled = partial(torch.full, fill_value=1e-3, dtype=dtype, device=device)
        gradients = {name: filled(shape) for name, shape in shapes(count)}
        held = sum(gradient.numel() for gradient in gradients.values())
        copied = ", float32 weights and a bfloat16 copy" if kind == "float32" else ", bfloat16 weights"
        print(f"\n{held / 1e6:.1f} M parameters{copied}; {rounds} rounds, fused AdamW beside each")
        columns = ("step ms", "base ms", "ratio", "quartiles", "goal", "bytes", "GB/s", "copy GB/s", "share")
        print(f"{'':26}" + "".join(f"{name:>{15 if name == 'quartiles' else 10}}" for name in columns))
        for name, (rule, options, more) in PAIRS[kind].items():
            if only not in name:
                continue

            def attach(optimizer: optim.Optimizer, rule: Any = rule, options: Any = options) -> object:
                return wd.attach(optimizer, rule, **options)

            try:
                found = turns(
                    {
                        "copy": waiting(lambda: other.copy_(block), device),
                        "base": waiting(stepping(gradients, kind, None), device),
                        "rule": waiting(stepping(gradients, kind, attach), device),
                    },
                    rounds,
                    warm,
                )
            except (wd.InputError, torch.OutOfMemoryError) as error:
                print(f"{name:26}  {type(error).__name__}: {str(error).splitlines()[0][:150]}")
            else:
                print(f"{name:26}" + line(found, held, BASE[kind] + more, device))
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()


def line(seconds: dict[str, list[float]], count: int, moved: int, device: str) -> str:
    """A candidate's figures; ratio and share are taken within a round."""
    ratios = [mine / base for mine, base in zip(seconds["rule"], seconds["base"], strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    step, base = statistics.median(seconds["rule"]), statistics.median(seconds["base"])
    rates = [moved * count / one / 1e9 for one in seconds["rule"]]
    copies = [2 * COPIED[device] / one / 1e9 for one in seconds["copy"]]
    share = statistics.median(rate / copy for rate, copy in zip(rates, copies, strict=True))
    goal, spread = "≤ 1.10" if device == "cuda" else "", f"{low:.2f} - {high:.2f}"
    return (
        f"{step * 1e3:10.2f}{base * 1e3:10.2f}{ratio:10.2f}{spread:>15}{goal:>10}{moved:10d}"
        f"{statistics.median(rates):10.1f}{statistics.median(copies):10.1f}{share:10.0%}"
    )
