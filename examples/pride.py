"""Three decay rules side by side, and none: a small transformer reads Pride and Prejudice letter by letter.

    python examples/pride.py
    python examples/pride.py --rules none,decoupled,toward --half-lives 1 --seed 7 --out runs/other

It trains on a short slice of the novel, read over and over, and validates on the novel's end. Every rule
starts from the same weights, sees the same batches at the same time and is as strong as the others: a weight
without gradient is halved so many times in the run, under its warm-up and cosine.

    none       no decay
    decoupled  AdamW's decay, of all matrices
    cautious   the same, but an entry decays only in steps in which its update takes it toward zero, too
    corrected  AdamC's decay, with lr², of the matrices before a normalisation; AdamW's of the others
    toward     AdamW's, toward the initial weights instead of zero

It prints one table and writes results.json and curves.png, in about a minute on one core (README.md here says
what is to be seen). The same seed gives the same bits.
"""

import argparse
import copy
import math
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NoReturn

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn, optim
from torch.nn import functional as F

import weightdecay as wd
from weightdecay.hooks import Decay
from weightdecay.saving import replacing, writable_folder, write_json

NOVEL = Path(__file__).parent / "data" / "pride-and-prejudice.txt"
CONTEXT, BATCH, HEAD, LAYERS = 64, 16, 24, 2  # letters seen at once, windows a step, width of a head, blocks
LR, WARM_UP, FLOOR = 5e-3, 0.1, 0.1  # the peak, the share of the run that leads to it, the end as its share
LOOKS = 10  # how often losses and norms are taken
RULES = {"none": "black", "decoupled": "C0", "cautious": "C1", "corrected": "C2", "toward": "C4"}


class Block(nn.Module):
    """Attention and a perceptron, each normalised before it is added, and queries and keys, too (as OLMo 2).

    The scale of a matrix before a normalisation does not matter to the model: `Corrected` is meant for those.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.query_norm, self.key_norm = nn.RMSNorm(HEAD), nn.RMSNorm(HEAD)
        self.attention_norm, self.perceptron_norm = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Add what attention finds, then what the perceptron makes of it."""
        layers = (self.query, self.key, self.value)
        q, k, v = (layer(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for layer in layers)
        found = F.scaled_dot_product_attention(self.query_norm(q), self.key_norm(k), v, is_causal=True)
        x = x + self.attention_norm(self.out(found.transpose(1, 2).flatten(2)))
        return x + self.perceptron_norm(self.down(F.relu(self.up(x))))


class Reader(nn.Module):
    """The transformer: for each of CONTEXT letters, logits of the one that follows."""

    def __init__(self, letters: int, width: int) -> None:
        super().__init__()
        self.letter, self.place = nn.Embedding(letters, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(LAYERS)))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, letters, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        """From (windows, CONTEXT) letters to (windows, CONTEXT, letters) logits."""
        return self.head(self.norm(self.blocks(self.letter(text) + self.place.weight)))


def attach(rule: str, half_lives: float, **run: Any) -> list[Decay]:
    """Attach a rule by its name: the place where weightdecay is at work."""
    strength = wd.HalfLives(per_run=half_lives)
    if rule == "none":
        return []
    if rule == "corrected":
        rest = [wd.Group(before_norm=True, scale=0), "matrices"]
        return [
            wd.attach(rule=wd.Corrected(strength), on=wd.Group(before_norm=True), **run),
            wd.attach(rule=wd.Decoupled(strength), on=rest, **run),
        ]
    kinds = {"decoupled": wd.Decoupled, "cautious": wd.Cautious, "toward": wd.Toward}
    return [wd.attach(rule=kinds[rule](strength), on="matrices", **run)]


class Training:
    """A model with its optimizer, schedule and decay, and what was seen of it."""

    def __init__(self, rule: str, start: nn.Module, steps: int, half_lives: float) -> None:
        self.rule, self.model, self.seconds = rule, copy.deepcopy(start), 0.0
        self.optimizer = optim.AdamW(self.model.named_parameters(), lr=LR, weight_decay=0.0, fused=True)
        self.schedule = optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: warm_cosine(step, steps))
        run = {"optimizer": self.optimizer, "model": self.model, "schedule": self.schedule, "steps": steps}
        self.decays = attach(rule, half_lives, **run)
        self.matrices = [m.weight for m in self.model.modules() if isinstance(m, nn.Linear)]
        self.looks: list[dict[str, float]] = []

    def step(self, batch: Tensor) -> None:
        """Take one step; the decay happens inside."""
        begin = time.process_time()
        self.optimizer.zero_grad()
        loss(self.model, batch).backward()
        self.optimizer.step()
        self.schedule.step()
        self.seconds += time.process_time() - begin

    @torch.no_grad()
    def look(self, step: int, train: Tensor, validation: Tensor, before: list[Tensor]) -> None:
        """Note losses, the norm of the matrices, and what the last step decayed."""
        self.looks.append(
            {
                "step": step,
                "train_loss": loss(self.model, train).item(),
                "validation_loss": loss(self.model, validation).item(),
                "norm": math.hypot(*(w.norm().item() for w in self.matrices)),
                "decayed": self.decayed(before),
            }
        )

    def decayed(self, before: list[Tensor]) -> float:
        """The share of all weights that the last step decayed. Cautious decays what moves toward zero."""
        pairs = zip(self.matrices, before, strict=True) if self.decays else ()
        picky = self.rule == "cautious"
        count = sum(int(((w - old) * old < 0).sum()) if picky else w.numel() for w, old in pairs)
        return count / sum(w.numel() for w in self.model.parameters())


def warm_cosine(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a straight line up, half a cosine down."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / (steps - warm))
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2


def loss(model: nn.Module, windows: Tensor) -> Tensor:
    """Cross-entropy of the next letter, in nats."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def novel() -> tuple[Tensor, int]:
    """The novel as numbers, and how many different letters it has."""
    text = NOVEL.read_text(encoding="utf-8")
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    return torch.tensor([letters[letter] for letter in text]), len(letters)


def windows(text: Tensor, starts: Tensor) -> Tensor:
    """Stretches of CONTEXT letters and the one that follows."""
    return text.unfold(0, CONTEXT + 1, 1)[starts]


def spread(text: Tensor, count: int) -> Tensor:
    """Windows at equal distances."""
    return windows(text, torch.linspace(0, len(text) - CONTEXT - 1, count).long())


def train(trainings: list[Training], text: Tensor, validation: Tensor, steps: int, seed: int) -> None:
    """Take all trainings through the same batches, side by side, and look at them now and then."""
    drawn = torch.Generator().manual_seed(seed)
    seen = spread(text, 96), spread(validation, 192)
    looks = {max(1, steps * i // LOOKS) for i in range(1, LOOKS + 1)}
    for step in range(1, steps + 1):
        batch = windows(text, torch.randint(len(text) - CONTEXT, (BATCH,), generator=drawn))
        for training in trainings:
            before = [w.detach().clone() for w in training.matrices] if step in looks else []
            training.step(batch)
            if step in looks:
                training.look(step, *seen, before)
        if step in looks:
            losses = (f"{one.rule} {one.looks[-1]['validation_loss']:.3f}" for one in trainings)
            print(
                f"step {step} of {steps}, validation loss: {', '.join(losses)}", file=sys.stderr, flush=True
            )


def table(trainings: list[Training]) -> str:
    """The last look at each training; the share that decayed is the mean over the looks."""
    lines = [f"{'rule':10}{'train loss':>12}{'validation loss':>17}{'norm':>8}{'decayed':>9}{'seconds':>9}"]
    for one in trainings:
        last, decayed = one.looks[-1], statistics.fmean(look["decayed"] for look in one.looks)
        losses = f"{last['train_loss']:12.3f}{last['validation_loss']:17.3f}"
        lines.append(f"{one.rule:10}{losses}{last['norm']:8.1f}{decayed:9.0%}{one.seconds:9.1f}")
    return "\n".join(lines)


def draw(trainings: list[Training], path: Path) -> None:
    """Validation loss and the norm of the matrices over the steps."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for one in trainings:
        steps = [look["step"] for look in one.looks]
        for axes, key in ((left, "validation_loss"), (right, "norm")):
            axes.plot(steps, [look[key] for look in one.looks], ".-", color=RULES[one.rule], label=one.rule)
    left.set(xlabel="step", ylabel="validation loss, nats a letter")
    right.set(xlabel="step", ylabel="norm of the matrices", ylim=(0, None))
    left.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def save(trainings: list[Training], settings: dict[str, Any], folder: Path, complete: bool) -> None:
    """Write the picture and the figures; each file is whole or not there."""
    draw(trainings, folder / "curves.png")
    rules = [{"rule": one.rule, "looks": one.looks, "seconds": one.seconds} for one in trainings]
    write_json(folder / "results.json", {"complete": complete, "settings": settings, "rules": rules})


class Options(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"error: {message}\n")


def options(words: list[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = Options(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rules", default="none,decoupled,cautious,corrected", help=f"of {', '.join(RULES)} [%(default)s]")
    add("--half-lives", type=float, default=5.0, help="of an untrained weight in the run [%(default)s]")
    add("--steps", type=int, default=600, help="[%(default)s]")
    add("--text", type=int, default=8000, help="letters to train on [%(default)s]")
    add("--width", type=int, default=72, help=f"of the model, a multiple of {HEAD} [%(default)s]")
    add("--seed", type=int, default=0, help="draws weights and batches [%(default)s]")
    add("--out", type=Path, default=Path("runs/pride"), help="folder for the results [%(default)s]")
    add("--show", action="store_true", help="print which weights decay, and why, first")
    args = parser.parse_args(words)
    args.rules = args.rules.split(",")
    for rule in args.rules:
        if rule not in RULES or args.rules.count(rule) > 1:
            parser.error(f"--rules {rule!r}: give each once, of {', '.join(RULES)}")
    least = {"steps": 2, "text": CONTEXT + 1, "width": HEAD, "seed": 0}
    for name, bound in least.items():
        if getattr(args, name) < bound:
            parser.error(f"--{name} {getattr(args, name)}: give {bound} or more")
    if args.text > 9 * NOVEL.stat().st_size // 10:
        parser.error(f"--text {args.text}: give 9/10 of the novel or less, the rest is for validation")
    if args.width % HEAD:
        parser.error(f"--width {args.width}: give a multiple of {HEAD}")
    return args


def prepare(args: argparse.Namespace) -> tuple[list[Training], Tensor, Tensor]:
    """The trainings, all from the same weights; the text to train on; the end of the novel to validate on."""
    text, letters = novel()
    torch.manual_seed(args.seed)
    start = Reader(letters, args.width)
    trainings = [Training(rule, start, args.steps, args.half_lives) for rule in args.rules]
    return trainings, text[: args.text], text[-len(text) // 10 :]


def main(words: list[str] | None = None) -> int:
    """Train, print and save; exit codes: 0 fine, 2 bad input, 130 interrupted."""
    args = options(words)
    torch.set_num_threads(1)  # the matrices are small, and the bits do not depend on the number of cores
    begin, complete, trainings = time.perf_counter(), True, []
    try:
        trainings, text, validation = prepare(args)
        for decay in [decay for one in trainings for decay in one.decays] if args.show else ():
            print(decay)
        writable_folder(args.out)
        try:
            train(trainings, text, validation, args.steps, args.seed)
        except KeyboardInterrupt:
            complete = False
            print("error: interrupted; what was seen until then is kept", file=sys.stderr)
        trainings = [one for one in trainings if one.looks]
        if trainings:
            settings = {name: value for name, value in vars(args).items() if name not in ("out", "show")}
            save(trainings, settings, args.out, complete)
            print(table(trainings))
            print(f"{time.perf_counter() - begin:.0f} s in all; curves.png, results.json in {args.out}")
    except wd.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        complete = False
    return 0 if complete else 130


if __name__ == "__main__":
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    sys.exit(main())
