"""What an attached rule costs: step time and memory over the optimizer without it, in one run.

    .venv/bin/python benchmarks/attach.py            both tables
    .venv/bin/python benchmarks/attach.py --memory   the memory table alone
    .venv/bin/python benchmarks/attach.py --time ''   the times alone
    .venv/bin/python benchmarks/attach.py --small    many small parameters, over three optimizers
    .venv/bin/python benchmarks/attach.py --weights both --parameters 2e6 --device cpu   a large model, below

Time: a transformer's 33 million parameters, fused AdamW with its own decay as the base. Every candidate has
weights and state of its own and takes one step in turn, so a busy machine slows all of them; a ratio is of
neighbours in one round. Bytes: fused AdamW reads w, g, m, v and writes w, m, v, 28 bytes a parameter; a
second pass that multiplies w moves 8 more (1.29 ×), one that also looks at g and m 16 more (1.57 ×).

Small: 300 matrices of 32 x 32, on one thread, CPU time. Each rule and the optimizer without it take one step
in turn; a ratio is of neighbours.

With `--weights` or `--parameters`, and always on a GPU, times are of Decoupled and Cautious on a model of so
many parameters, each beside a base of its own, in float32 with a bfloat16 copy and in bfloat16: see
`attach_pairs.py`.
"""

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_optimizer
import schedulefree
import torch
from torch import Tensor, nn, optim

import weightdecay as wd
from attach_pairs import pairs
from devices import device_of, name_of
from table import note

warnings.simplefilter("ignore", wd.WeightDecayWarning)  # strengths here are for timing, not for training
DEVICE = "cpu"  # --device
WIDTH, LAYERS, ROUNDS, WARM = 512, 10, 21, 3
LR, STRENGTH, PEAK = 1e-4, 0.1, 2e-4
# Candidates by name: how they are made from named parameters, and the most they may cost, where that is set.
Maker = Callable[[list[tuple[str, nn.Parameter]]], optim.Optimizer]


def parameters(gradients: dict[str, Tensor] | None = None) -> list[tuple[str, nn.Parameter]]:
    """Matrices, biases and gains of a small transformer, 33 million in all; gradients are shared."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"embedding.weight": (3000, WIDTH)}
    for layer in range(LAYERS):
        matrices = {"qkv": 3 * WIDTH, "out": WIDTH, "up": 4 * WIDTH}
        for name, rows in matrices.items():
            shapes |= {f"{layer}.{name}.weight": (rows, WIDTH), f"{layer}.{name}.bias": (rows,)}
        shapes |= {f"{layer}.down.weight": (WIDTH, 4 * WIDTH), f"{layer}.down.bias": (WIDTH,)}
    made = []
    for name, shape in shapes.items():
        w = nn.Parameter(torch.randn(shape, generator=generator).to(DEVICE) * 0.02)
        w.grad = gradients[name] if gradients else (torch.randn(shape, generator=generator) * 1e-3).to(DEVICE)
        made.append((name, w))
    return made


def adamw(params: Any, **options: Any) -> optim.Optimizer:
    """Fused AdamW."""
    return optim.AdamW(params, lr=LR, fused=True, **{"weight_decay": 0.0, **options})


def ruled(make: Callable[..., optim.Optimizer], rule: Any, on: Any = "all", **options: Any) -> Maker:
    """An optimizer with a rule attached."""

    def maker(named: list[tuple[str, nn.Parameter]]) -> optim.Optimizer:
        optimizer = make(named)
        wd.attach(optimizer, rule, on=on, **options)
        return optimizer

    return maker


# All but the biases, so that one option cannot speak for the group and hooks have to do it.
WEIGHTS = [wd.Group(role="bias", scale=0), wd.Group(name="*")]
CANDIDATES: dict[str, tuple[Maker, float | None]] = {
    "AdamW, weight_decay=.1 (base)": (lambda ps: adamw(ps, weight_decay=STRENGTH), 1.02),
    "AdamW, no decay": (adamw, 1.02),
    "Decoupled, lowered": (ruled(adamw, wd.Decoupled(STRENGTH)), 1.02),
    "Decoupled, lowered in Adam": (
        ruled(lambda ps: optim.Adam(ps, lr=LR, fused=True), wd.Decoupled(STRENGTH)),
        1.02,
    ),
    "Independent, lowered": (ruled(adamw, wd.Independent(STRENGTH * PEAK, lr_max=PEAK)), 1.02),
    "Corrected, lowered": (ruled(adamw, wd.Corrected(STRENGTH, lr_max=PEAK)), 1.02),
    "L2, lowered in Adam": (ruled(lambda ps: optim.Adam(ps, lr=LR, fused=True), wd.L2(STRENGTH)), 1.02),
    "Decoupled, hooks": (ruled(adamw, wd.Decoupled(STRENGTH), on=WEIGHTS), 1.30),
    "Corrected, hooks": (ruled(adamw, wd.Corrected(STRENGTH, lr_max=PEAK), on=WEIGHTS), 1.30),
    "Cautious, hooks": (ruled(adamw, wd.Cautious(STRENGTH)), 1.5),
    "Cautious, hooks, compiled": (ruled(adamw, wd.Cautious(STRENGTH), compile=True), 1.5),
    "Toward the start, hooks": (ruled(adamw, wd.Toward(STRENGTH)), 1.8),
    "Toward an EMA, hooks": (ruled(adamw, wd.Toward(STRENGTH, ema=0.999)), 2.0),
    "L2, hooks": (ruled(adamw, wd.L2(STRENGTH)), 2.0),
    "chain(Decoupled, Toward), hooks": (ruled(adamw, wd.chain(wd.Decoupled(0.1), wd.Toward(0.1))), 2.0),
    "Huber, hooks": (ruled(adamw, wd.Huber(STRENGTH, delta=0.02)), 1.8),
    "PNorm(p=1), hooks": (ruled(adamw, wd.PNorm(STRENGTH)), 2.5),
    "Stable, hooks": (ruled(adamw, wd.Stable(STRENGTH * 1e-3)), 1.8),
    "Constrained, hooks": (ruled(adamw, wd.Constrained(mu=1e-4)), 1.6),
    "FixedNorm, hooks": (ruled(adamw, wd.FixedNorm(), on=WEIGHTS), 2.2),
}


def times(only: str) -> None:
    """Print the step time of every candidate over the base's."""
    first = parameters()
    gradients = {name: w.grad for name, w in first if w.grad is not None}
    chosen = {name: make for name, (make, _) in CANDIDATES.items() if "base" in name or only in name}
    optimizers = {name: make(parameters(gradients)) for name, make in chosen.items()}
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for round_ in range(WARM + ROUNDS):
        for name, optimizer in optimizers.items():
            start = time.perf_counter()
            optimizer.step()
            if round_ >= WARM:
                seconds[name].append(time.perf_counter() - start)
    count = sum(w.numel() for _, w in first)
    base = seconds[next(iter(seconds))]
    rate = 28 * count / statistics.median(base) / 1e9
    print(f"{count / 1e6:.1f} M parameters, {ROUNDS} rounds; base {rate:.0f} GB/s at 28 bytes a parameter")
    print(f"{'':34}{'median ms':>10}{'ratio':>8}{'quartiles':>16}{'goal':>8}")
    for name, own in seconds.items():
        ratios = [mine / theirs for mine, theirs in zip(own, base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        most = CANDIDATES[name][1]
        goal = f"≤ {most:.2f}" if most else ""
        if goal and own is not base:
            note(
                f"{name}: a step, {count / 1e6:.0f} M parameters",
                "fused AdamW with its own decay",
                ratios,
                goal,
            )
        spread = f"{low:.2f} - {high:.2f}"
        print(f"{name:34}{statistics.median(own) * 1e3:10.1f}{middle:8.2f}{spread:>16}{goal:>8}")


# What the step of 300 small parameters may cost over the bare one: plain decay, every other rule.
SMALL: dict[str, tuple[Maker, float, float]] = {
    "AdamW, foreach": (lambda ps: optim.AdamW(ps, lr=LR, weight_decay=0, foreach=True), 1.3, 1.3),
    "AdamW, fused": (adamw, 1.3, 2.5),
    "SGD": (lambda ps: optim.SGD(ps, lr=LR), 1.5, 4.0),
}
SMALL_COUNT, SMALL_SIDE, SMALL_ROUNDS = 300, 32, 60


def small() -> None:
    """Print what each rule costs many small parameters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rules = {**RULES, "Decoupled": wd.Decoupled(wd.HalfLife(steps=1000))}  # at any lr: no option says that
    rules["Toward an EMA"] = wd.Toward(STRENGTH, ema=0.999)
    size = f"{SMALL_COUNT} parameters of {SMALL_SIDE} x {SMALL_SIDE}"
    print(f"\n{size}, {SMALL_ROUNDS} rounds, CPU time on one thread")
    print(f"{'':16}{'':16}{'bare ms':>10}{'ratio':>8}{'quartiles':>16}{'goal':>8}")
    for name, (make, most, most_others) in SMALL.items():
        for rule, value in rules.items():
            try:
                seconds = small_steps(make, value)
            except wd.InputError:  # Stable needs Adam's average
                continue
            if not seconds:
                continue
            ratios = [mine / bare for bare, mine in seconds]
            low, middle, high = statistics.quantiles(ratios, n=4)
            bare = statistics.median(bare for bare, _ in seconds) * 1e3
            spread, goal = f"{low:.2f} - {high:.2f}", most if rule == "Decoupled" else most_others
            note(f"{rule}: a step, {size}", f"{name}, alone", ratios, f"≤ {goal:.1f}")
            print(f"{name:16}{rule:16}{bare:10.2f}{middle:8.2f}{spread:>16}{f'≤ {goal:.1f}':>8}")
    torch.set_num_threads(threads)


def small_steps(make: Maker, rule: Any) -> list[tuple[float, float]]:
    """Seconds of each bare step and of the one with a rule after it; nothing where no hook decays."""
    generator = torch.Generator().manual_seed(0)
    optimizers = []
    for _ in range(2):
        named = [
            (f"{i}.weight", nn.Parameter(torch.randn(SMALL_SIDE, SMALL_SIDE, generator=generator) * 0.02))
            for i in range(SMALL_COUNT)
        ]
        for _, w in named:
            w.grad = torch.randn(w.shape, generator=generator) * 1e-3
        optimizers.append(make(named))
    if not wd.attach(optimizers[1], rule).plan.by_hooks:
        return []
    seconds = []
    for _ in range(WARM + SMALL_ROUNDS):
        start = time.process_time()
        optimizers[0].step()
        middle = time.process_time()
        optimizers[1].step()
        seconds.append((middle - start, time.process_time() - middle))
    return seconds[WARM:]


OPTIMIZERS: dict[str, Maker] = {
    "SGD": lambda ps: optim.SGD(ps, lr=LR),
    "SGD, momentum": lambda ps: optim.SGD(ps, lr=LR, momentum=0.9),
    "Adam": lambda ps: optim.Adam(ps, lr=LR),
    "AdamW": adamw,
    "NAdam": lambda ps: optim.NAdam(ps, lr=LR),
    "RAdam": lambda ps: optim.RAdam(ps, lr=LR),
    "Adagrad": lambda ps: optim.Adagrad(ps, lr=LR),
    "RMSprop": lambda ps: optim.RMSprop(ps, lr=LR),
    "Adafactor": lambda ps: optim.Adafactor(ps, lr=LR),
    "Muon": lambda ps: optim.Muon(ps, lr=LR, weight_decay=0.0),
    "LBFGS": lambda ps: optim.LBFGS(ps, lr=LR, max_iter=1, history_size=2),
    "schedulefree": lambda ps: schedulefree.AdamWScheduleFree(ps, lr=LR),
    "AdaBelief": lambda ps: pytorch_optimizer.AdaBelief(ps, lr=LR),
}
RULES: dict[str, Any] = {
    "L2": wd.L2(STRENGTH),
    "Decoupled": wd.Decoupled(STRENGTH),
    "Independent": wd.Independent(STRENGTH * PEAK, lr_max=PEAK),
    "Corrected": wd.Corrected(STRENGTH, lr_max=PEAK),
    "Cautious": wd.Cautious(STRENGTH),
    "Toward": wd.Toward(STRENGTH),
    "Huber": wd.Huber(STRENGTH),
    "PNorm": wd.PNorm(STRENGTH),
    "Stable": wd.Stable(STRENGTH * 1e-4),
    "Constrained": wd.Constrained(),
    "FixedNorm": wd.FixedNorm(),
}


def resident() -> int:
    """Bytes in memory now."""
    if DEVICE == "cuda":
        return torch.cuda.memory_allocated()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def memory_of(make: Maker, rule: Any) -> tuple[float, float]:
    """Bytes kept after three steps and bytes at the peak, in copies of the parameters, gradient left out."""
    if DEVICE == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
    before = resident()
    w = nn.Parameter(torch.zeros(65_536, 256, device=DEVICE).fill_(1e-2))
    w.grad = torch.full_like(w, 1e-3)
    size = w.numel() * w.element_size()
    optimizer = make([("matrix.weight", w)])
    if hasattr(optimizer, "train"):
        optimizer.train()  # type: ignore[attr-defined]
    if rule is not None:
        wd.attach(optimizer, rule)
    for _ in range(3):
        optimizer.step(lambda: torch.zeros(()))  # type: ignore[arg-type]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if DEVICE == "cuda":
        peak = torch.cuda.max_memory_allocated()
    return (resident() - before) / size - 2, (peak - before) / size - 2


def in_a_child(make: Maker, rule: Any) -> tuple[float, float] | None:
    """`memory_of` in a process of its own, whose peak is its own; None if the rule is refused."""
    if DEVICE == "cuda":  # torch counts its memory, and a forked process could not use it
        try:
            return memory_of(make, rule)
        except wd.InputError:
            return None
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            found = memory_of(make, rule)
        except wd.InputError:
            found = None
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


def memory() -> None:
    """Print what each rule adds to each optimizer: kept between steps, and more at the peak of a step."""
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    print("\nextra memory in copies of the parameters: kept between steps, peak of a step (· refused)")
    print(f"{'':16}" + "".join(f"{rule:>14}" for rule in RULES))
    for name, make in OPTIMIZERS.items():
        alone = in_a_child(make, None)
        assert alone is not None
        cells = []
        for rule in RULES.values():
            found = in_a_child(make, rule)
            more = [mine - own for mine, own in zip(found, alone, strict=True)] if found else []
            cells.append(", ".join(f"{round(value, 1) + 0.0:.1f}" for value in more) or "·")
        print(f"{name:16}" + "".join(f"{cell:>14}" for cell in cells))


def main() -> None:
    global DEVICE
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", action="store_true", help="the memory table alone")
    parser.add_argument("--small", action="store_true", help="many small parameters alone, on the CPU")
    parser.add_argument(
        "--time", metavar="PART", help="the times alone, of candidates with this in their name"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="by default a GPU where there is one")
    parser.add_argument("--weights", choices=["float32", "bfloat16", "both"], help="times of a large model")
    parser.add_argument("--parameters", type=float, help="of that model; by default 33e6, on a GPU 1e9")
    arguments = parser.parse_args()
    DEVICE = device_of(arguments.device)
    threads = torch.get_num_threads()
    print(f"{platform.machine()}, torch {torch.__version__}, {name_of(DEVICE)}")
    asked = arguments.weights or arguments.parameters
    if arguments.small:
        return small()
    if arguments.memory or not (asked or arguments.time is not None):
        memory()  # first: it forks, which wants a process without threads
    if arguments.memory:
        return None
    torch.set_num_threads(threads)
    if not asked and DEVICE == "cpu":
        if not arguments.time:
            small()
        return times(arguments.time or "")
    kinds = ["float32", "bfloat16"] if arguments.weights in (None, "both") else [arguments.weights]
    count = arguments.parameters or (1e9 if DEVICE == "cuda" else 33e6)
    return pairs(DEVICE, count, kinds, arguments.time or "", ROUNDS, WARM)


if __name__ == "__main__":
    main()
