"""What a monitor costs: a small transformer trained with and without, blocks of steps in turn.

    python benchmarks/monitor.py

The model learns the letters of a text that is drawn at random; a block is as long as the monitor's interval,
so every block has one look, its burst included. Prints medians and the ratio with its quartiles; goal 1.02.
"""

import argparse
import statistics
import time

import torch
from torch import nn

import weightdecay as wd
from table import note

WIDTH, LAYERS, LENGTH, LETTERS = 128, 4, 64, 64


class Letters(nn.Module):
    """A small causal transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(LETTERS, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, LETTERS)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Logits of the next letter."""
        return self.head(self.blocks(self.embed(text), mask=self.mask, is_causal=True))


def block(model: nn.Module, optimizer: torch.optim.Optimizer, batches: torch.Tensor) -> float:
    """Seconds for a step on each of some batches."""
    begin = time.perf_counter()
    for text in batches:
        logits = model(text[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=50, help="steps between looks [%(default)s]")
    parser.add_argument("--repeats", type=int, default=31, help="blocks of each kind [%(default)s]")
    parser.add_argument("--batch", type=int, default=16, help="texts in a step [%(default)s]")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = Letters()
    optimizer = torch.optim.AdamW(wd.param_groups(model, 0.1), lr=3e-4)
    batches = torch.randint(LETTERS, (args.every, args.batch, LENGTH + 1))
    block(model, optimizer, batches)
    plain, watched = [], []
    for repeat in range(args.repeats):
        for watch in (repeat % 2 == 0, repeat % 2 == 1):
            if watch:
                with wd.Monitor(model, optimizer, every=args.every):
                    watched.append(block(model, optimizer, batches))
            else:
                plain.append(block(model, optimizer, batches))
    ratios = [b / a for a, b in zip(plain, watched, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    note(f"a monitor every {args.every} steps", "the training alone", ratios, "≤ 1.02")
    size = sum(p.numel() for p in model.parameters())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{size:,} parameters, batch {args.batch}, a look every {args.every} steps")
    print(
        f"a step {1e3 * statistics.median(plain) / args.every:.1f} ms, "
        f"with a monitor {1e3 * statistics.median(watched) / args.every:.1f} ms: "
        f"ratio {middle:.3f} ({low:.3f} to {high:.3f}; goal 1.02)"
    )


if __name__ == "__main__":
    main()
