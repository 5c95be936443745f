"""Does a strength carry over to another batch size as a half-life, or as λ? Digits with wrong labels.

    python examples/half_life_transfers.py
    python examples/half_life_transfers.py --seeds 3 --epochs 10 --out runs/quick

A perceptron with LayerNorms learns digits of which 30 % of the training labels are wrong; without decay it
learns the wrong ones by heart. With one hidden layer (--hidden 1) it does so less, and the answer is another.
A strength is chosen at batch size 32 by one part of the held-out images, then
carried to batches of 128 and 512 in two ways: as the same half-lives per run, and as the same λ of AdamW.
Both are compared, on the other part, with the best strength there.

It prints two tables and writes results.json and curves.png (README.md here says what is to be seen). The same
seeds give the same bits.
"""

import argparse
import itertools
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import polars as pl
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor, nn
from torch.nn import functional as F

import weightdecay as wd
from weightdecay.saving import replacing, writable_folder, write_json

WIDTH, LR, WRONG = 256, 1e-3, 0.3  # of the hidden layers; AdamW's; the share of wrong training labels
TRAIN, CHOOSE = 1197, 300  # images to train on, to choose by; the other 300 are reported on
RARE = 0.01  # added to a pixel's standard deviation: those of the margin are 0 in nearly every image
FIRST, OTHERS = 32, (128, 512)  # the batch size where λ is chosen, and those it is carried to
GRID = wd.HalfLives.grid(2.5, 80, 11)
JUDGES = ("accuracy", "likelihood")


def make_model(hidden: int) -> nn.Module:
    """64 pixels, hidden layers with LayerNorm, 10 digits."""
    widths = [64, *[WIDTH] * hidden]
    layers = [
        layer
        for before, width in itertools.pairwise(widths)
        for layer in (nn.Linear(before, width), nn.LayerNorm(width), nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Standardised training images with wrong labels, and the rest with true ones; always the same."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    drawn = torch.Generator().manual_seed(1)
    order = torch.randperm(len(images), generator=drawn)
    X, y = torch.tensor(images / 16, dtype=torch.float32)[order], torch.tensor(digits)[order]
    X = (X - X[:TRAIN].mean(0)) / (X[:TRAIN].std(0) + RARE)
    wrong = torch.rand(TRAIN, generator=drawn) < WRONG
    other = (y[:TRAIN] + torch.randint(1, 10, (TRAIN,), generator=drawn)) % 10
    return (X[:TRAIN], torch.where(wrong, other, y[:TRAIN])), (X[TRAIN:], y[TRAIN:])


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Percent that are right."""
    return 100 * (output.argmax(-1) == target).float().mean()


def likelihood(output: Tensor, target: Tensor) -> Tensor:
    """Mean log probability of the true digit, in nats."""
    return -F.cross_entropy(output, target)


METRICS = {
    f"{name} {part}": lambda output, target, judge=judge, rows=rows: judge(output[rows], target[rows])
    for name, judge in (("accuracy", accuracy), ("likelihood", likelihood))
    for part, rows in (("chosen by", slice(0, CHOOSE)), ("reported", slice(CHOOSE, None)))
}


def train(batch: int, strengths: Any, args: argparse.Namespace) -> pl.DataFrame:
    """All strengths and seeds at one batch size, at once: one row for each training."""
    return wd.sweep(
        partial(make_model, args.hidden),
        *data(),
        loss=F.cross_entropy,
        metrics=METRICS,
        optimizer=partial(torch.optim.AdamW, lr=LR, weight_decay=0.0),
        rule=wd.Decoupled,
        strengths=strengths,
        seeds=args.seeds,
        epochs=args.epochs,
        batch_size=batch,
        every=args.epochs,
        widen=0,
    ).table()


def reported(trained: pl.DataFrame, judge: str, strength: float) -> tuple[float, float]:
    """Mean and standard error over the seeds of what is reported at a strength."""
    values = trained.filter(strength=strength)[f"test_{judge} reported"].to_torch()
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def chosen(trained: pl.DataFrame, judge: str) -> float:
    """The half-lives per run that are best on the images to choose by."""
    score = pl.col(f"test_{judge} chosen by")
    return trained.group_by("strength").agg(score.mean()).sort(score.meta.output_name())["strength"][-1]


def lam_of(trained: pl.DataFrame, strength: float) -> float:
    """AdamW's weight_decay of a strength."""
    return trained.filter(strength=strength)["weight_decay"][0]


def compare(judge: str, args: argparse.Namespace, grids: dict[int, pl.DataFrame]) -> list[dict[str, Any]]:
    """A row for each batch size: no decay, the best there, and the two ways to carry a strength there."""
    half_lives = chosen(grids[FIRST], judge)
    lam = lam_of(grids[FIRST], half_lives)
    rows = []
    for batch, trained in grids.items():
        same = {"trained": trained, "strength": half_lives}
        if batch != FIRST and lam > 0:
            same = {"trained": train(batch, [lam], args), "strength": lam}
        rows.append(
            {
                "judge": judge,
                "batch": batch,
                "half_lives": half_lives,
                "lam": lam,
                "lam_of_half_lives": lam_of(trained, half_lives),
                "none": reported(trained, judge, 0.0),
                "best": max(reported(trained, judge, h) for h in trained["strength"].unique()),
                "same_half_lives": reported(trained, judge, half_lives),
                "same_lam": reported(judge=judge, **same),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each batch size; means over the seeds ± standard error."""
    names = {
        "none": "no decay",
        "best": "best there",
        "same_half_lives": "same half-lives",
        "same_lam": "same λ",
    }
    judge, half_lives, lam = (rows[0][key] for key in ("judge", "half_lives", "lam"))
    unit, digits = ("%", 2) if judge == "accuracy" else ("nats", 3)
    lines = [
        f"{judge}, {unit}: at batch {FIRST} {half_lives:.3g} half-lives per run are chosen, λ = {lam:.3g}",
        f"{'batch':>5}" + "".join(f"{name:>17}" for name in names.values()) + f"{'λ of half-lives':>17}",
    ]
    for row in rows:
        cells = (f"{row[key][0]:.{digits}f} ± {row[key][1]:.{digits}f}" for key in names)
        cells = "".join(f"{cell:>17}" for cell in cells)
        lines.append(f"{row['batch']:5d}{cells}{row['lam_of_half_lives']:17.3g}")
    return "\n".join(lines)


def draw(grids: dict[int, pl.DataFrame], path: Path) -> None:
    """Accuracy and likelihood over half-lives and over λ, a line for each batch size."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    labels = {"strength": "half-lives per run", "weight_decay": "λ, AdamW's weight_decay"}
    for judge, row in zip(JUDGES, figure.subplots(2, 2, sharey="row"), strict=True):
        for (key, label), axes in zip(labels.items(), row, strict=True):
            for batch, trained in grids.items():
                seen = pl.col(f"test_{judge} reported")
                means = trained.filter(pl.col("strength") > 0).group_by(key).agg(seen.mean()).sort(key)
                axes.plot(*means, ".-", label=f"batch {batch}")
            axes.set(xscale="log", xlabel=label)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        row[0].set(ylabel="accuracy, %" if judge == "accuracy" else "log likelihood, nats")
        row[0].legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


class Options(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"error: {message}\n")


def options(words: list[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = Options(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="trainings of each strength [%(default)s]")
    parser.add_argument("--epochs", type=int, default=20, help="[%(default)s]")
    parser.add_argument("--hidden", type=int, default=2, help="hidden layers [%(default)s]")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/half-life"), help="for the results [%(default)s]"
    )
    args = parser.parse_args(words)
    if args.seeds < 2 or args.epochs < 1 or args.hidden < 1:
        parser.error("give two seeds at least, one epoch and one hidden layer")
    return args


def main(words: list[str] | None = None) -> int:
    """Train, print and save; exit codes: 0 fine, 2 bad input, 130 interrupted."""
    args = options(words)
    begin = time.perf_counter()
    try:
        writable_folder(args.out)
        grids = {batch: train(batch, GRID, args) for batch in (FIRST, *OTHERS)}
        rows = []
        for judge in JUDGES:
            rows += compare(judge, args, grids)
            print(table(rows[-len(grids) :]), end="\n\n", flush=True)
        draw(grids, args.out / "curves.png")
        settings = {"width": WIDTH, "lr": LR, "wrong": WRONG}
        settings |= {name: vars(args)[name] for name in ("seeds", "epochs", "hidden")}
        write_json(args.out / "results.json", {"settings": settings, "rows": rows})
        print(f"{time.perf_counter() - begin:.0f} s in all; curves.png, results.json in {args.out}")
    except wd.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    sys.exit(main())
